use chrono::{DateTime, Utc};

use super::*;

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_795_886_437_123_450).unwrap()
}

const NOW: &str = "CAST('2026-11-28 17:20:37.123450+00' AS pg_catalog.timestamptz)";

#[test]
fn every_clock_is_one_literal() {
    for (text, fixed) in [
        ("at < now()", format!("at < {NOW}")),
        ("at < NOW ( )", format!("at < {NOW}")),
        ("at < now/* ( */(\n)-1", format!("at < {NOW}-1")),
        ("at < pg_catalog.now()", format!("at < {NOW}")),
        ("at < \"pg_catalog\" . Now()", format!("at < {NOW}")),
        ("transaction_timestamp() = statement_timestamp()", format!("{NOW} = {NOW}")),
        ("f((now()), g[now()])", format!("f(({NOW}), g[{NOW}])")),
        ("d = current_date", "d = CAST('2026-11-28' AS pg_catalog.date)".to_owned()),
        ("current_date- 7", "CAST('2026-11-28' AS pg_catalog.date)- 7".to_owned()),
        ("t < CURRENT_TIME", "t < CAST('17:20:37.123450+00' AS pg_catalog.timetz)".to_owned()),
        ("t < current_time ( 12 )", "t < CAST('17:20:37.123450+00' AS pg_catalog.timetz(12))".to_owned()),
        ("t < LocalTime(3)", "t < CAST('17:20:37.123450' AS pg_catalog.time(3))".to_owned()),
        ("t < localtimestamp", "t < CAST('2026-11-28 17:20:37.123450' AS pg_catalog.timestamp)".to_owned()),
        (
            "current_timestamp(0)::text",
            "CAST('2026-11-28 17:20:37.123450+00' AS pg_catalog.timestamptz(0))::text".to_owned(),
        ),
        ("(CURRENT_TIMESTAMP)", format!("({NOW})")),
    ] {
        assert_eq!(fix(text, at()), fixed, "{text}");
        assert!(Clocks::of(text).can_be_fixed(), "{text}");
    }
}

#[test]
fn what_is_no_clock_stays() {
    for text in [
        "t.current_date",
        "t . current_date = 1",
        "\"current_date\" > 1 and \"now\" is null",
        "now > 1",
        "app.now() > at",
        "db.pg_catalog.now() > at",
        "now(1)",
        "clock_timestamp() > at",
        "a = 'it says now() here' -- now()",
        "a /* current_date */ = $$ it is now() $$",
        "now_() and xnow() and now1()",
        "E'it\\'s not only now()' = a",
        "a = 'known' or a = 'snow' or a = 'to day' or b = B'01'",
        "note = 'see you tomorrow, maybe'",
        "sep = E'\\t' or sep = E'a\\x6eow'",
        "v <> 'nowhere' and v <> 'n' and v like 'ow%' and v || 'n' <> 'ow'",
    ] {
        let clocks = Clocks::of(text);
        assert!(clocks.is_empty(), "{text}: {clocks:?}");
        assert_eq!(fix(text, at()), text);
    }
}

#[test]
fn a_text_that_is_read_as_a_time_cannot_be_fixed() {
    for text in [
        "at < 'now'",
        "at < 'NOW'::timestamptz and b > now()",
        "d = date 'today'",
        "d = date '  Tomorrow '",
        "d = e'\\n yesterday'",
        "d = E'\\x6eow'",
        "d = E'n\\157w'",
        "d = U&'\\006eow'",
        "d = $$today$$",
        "d = $d$today$d$ || ''",
        "d = n'now'",
        "d = 'to'\n 'day'",
        "d = '12:00 today'",
        "d = '04:05:06 allballs yesterday'",
        "r = '[now,infinity)'",
        "r = '{now,today}'",
        "r = tstzrange '[-infinity,now)'",
        "r = '[epoch,now]'::tstzrange",
        "c = '(abc,now)'::comp",
        "d = '04:05 PST today'::timestamptz",
        "d = timestamptz U&'n!006fw' uescape '!'",
        "d = U&'nz006fw' UESCAPE /* z */ 'z'",
        "d = ('n' || 'ow')::timestamptz",
        "d = cast(('to'::text || ('d') || 'ay') as date)",
        "d = ('now'::timestamptz)::text || 'a b c'",
    ] {
        let clocks = Clocks::of(text);
        assert!(!clocks.can_be_fixed() && !clocks.is_empty(), "{text}: {clocks:?}");
        assert!(clocks.first().unwrap().starts_with("the time "), "{text}");
    }
}

#[test]
fn output_columns_keep_their_names() {
    let named = format!("(SELECT {NOW} AS \"now\")");
    for (text, fixed) in [
        ("select now()", format!("select {named}")),
        ("select now()::date, id from t where at < now()", format!("select {named}::date, id from t where at < {NOW}")),
        ("select 1 as now, now() as at from t", format!("select 1 as now, {named} as at from t")),
        ("select a is distinct from now(), now() from t", format!("select a is distinct from {named}, {named} from t")),
        (
            "select extract(epoch from now()), now() from t order by now()",
            format!("select extract(epoch from {named}), {named} from t order by {NOW}"),
        ),
        (
            "with q as (select now()) select q.now from q, t where (t.at) > now()",
            format!("with q as (select {named}) select q.now from q, t where (t.at) > {NOW}"),
        ),
        (
            "select id from t join u on u.at > now() and (u.at < now())",
            format!("select id from t join u on u.at > {NOW} and (u.at < {NOW})"),
        ),
        ("select * from now()", format!("select * from {named}")),
        ("select * from t, now() as n", format!("select * from t, {named} as n")),
        ("values (1, now())", format!("values (1, {NOW})")),
        (
            "exists (select current_date from u where now() > u.at) and at > now()",
            format!(
                "exists (select (SELECT CAST('2026-11-28' AS pg_catalog.date) AS \"current_date\") from u where {NOW} > u.at) \
                 and at > {NOW}"
            ),
        ),
    ] {
        assert_eq!(fix(text, at()), fixed, "{text}");
    }
}

#[test]
fn the_search_path_decides_on_bare_functions_only() {
    let clocks = Clocks::of("now() < pg_catalog.transaction_timestamp() and current_date is null");
    assert_eq!(clocks.by_path().collect::<Vec<_>>(), ["now"]);
}
