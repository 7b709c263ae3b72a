//! Texts that the server reads as a time by its clock, wherever they stand, and functions that are called without a
//! name: each keeps the rows with one statement, so that all rows have one value (I4, I5).

use std::collections::BTreeSet;

use crate::support::job::export_csv;
use crate::support::pg::{Pg, both, pg};

const TABLE: &str = "create table t(id int primary key, v text, e int);
    insert into t select i, md5(i::text), i from generate_series(1, 4000) i; analyze t;
    create type comp as (a int, at timestamptz)";

/// Reads it in four statements if it may be split; gives the number of parts, of values of the second column, and the
/// note.
async fn split(pg: &Pg, args: &[&str]) -> (usize, usize, String) {
    let done = export_csv(pg, &[args, &["--key", "id", "--partitions", "4"]].concat(), 0).await;
    let data = String::from_utf8(done.data()).unwrap();
    assert_eq!(data.lines().count(), 4000, "{args:?}");
    let values: BTreeSet<&str> = data.lines().filter_map(|line| Some(line.split_once(',')?.1)).collect();
    let note = done.manifest()["consistency"]["note"].as_str().unwrap_or_default().to_owned();
    (done.partitions(), values.len(), note)
}

async fn one(pg: &Pg, args: &[&str], what: &str) {
    let (parts, values, note) = split(pg, args).await;
    assert_eq!((parts, values), (1, 1), "{args:?}: {note}");
    assert!(note.starts_with("read as one statement: ") && note.contains(what), "{args:?}: {note:?} without {what:?}");
}

/// A value that a view takes from a text when it is read.
const IN_VIEWS: [(&str, &str); 8] = [
    ("t, lateral (select (('{now,tomorrow}'::text[])[1])::timestamptz) x(at)", "a time by the clock within a constant"),
    ("t, jsonb_to_record('{\"at\":\"now\"}') as x(at timestamptz)", "a time by the clock within a constant"),
    ("t, json_to_record('{\"at\":\"now\"}') as x(at timestamptz)", "the time '{\"at\":\"now\"}'"),
    (
        "t, lateral (select (jsonb_populate_record(null::comp, '{\"at\":\"now\"}')).at) x(at)",
        "a time by the clock within a constant",
    ),
    ("t, lateral (select upper('[-infinity,now)'::text::tstzrange)) x(at)", "the time '[-infinity,now)'"),
    ("t, lateral (select '04:05 PST today'::varchar::timestamptz) x(at)", "the time '04:05 PST today'"),
    ("t, lateral (select 'now'::name::text::timestamptz) x(at)", "the time 'now'"),
    (
        "t, xmltable('/a' passing '<a><at>now</at></a>' columns at timestamptz path 'at') x",
        "the time '<a><at>now</at></a>'",
    ),
];

const IN_VIEWS_SINCE_17: [&str; 2] = [
    "t, json_table('{\"at\":\"now\"}'::jsonb, '$' columns (at timestamptz path '$.at')) x",
    "t, lateral (select json_value('{\"at\":\"now\"}'::jsonb, '$.at' returning timestamptz)) x(at)",
];

#[tokio::test]
async fn a_view_that_reads_a_time_from_a_text_is_one_statement() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let newer = IN_VIEWS_SINCE_17.map(|from| (from, "a time by the clock within a constant"));
        let newer = newer.into_iter().filter(|_| version == 18);
        for (nth, (from, what)) in IN_VIEWS.into_iter().chain(newer).enumerate() {
            pg.batch(&format!("create view v{nth} as select t.id, x.at from {from}")).await;
            one(&pg, &["--table", &format!("v{nth}")], &format!("{what} in view public.v{nth}")).await;
            one(&pg, &["--query", &format!("select id, at from v{nth}")], what).await;
        }
        // The words alone are no time where nothing reads a text.
        pg.batch("create view label as select id, case when e > 0 then 'today' else 'tomorrow' end from t").await;
        let (parts, _, note) = split(&pg, &["--table", "label"]).await;
        assert_eq!(parts, 4, "{version}: {note}");
    }
}

#[tokio::test]
async fn a_written_text_that_is_read_as_a_time_is_one_statement() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for text in [
            "upper('[-infinity,now)'::tstzrange)",
            "lower(tstzrange '[today,infinity)')",
            "upper('[epoch,now]'::tstzrange)",
            "timestamptz U&'n!006fw' uescape '!'",
            "('n'||'ow')::timestamptz",
            "('(1,now)'::comp).at",
            "'04:05 PST today'::timestamptz",
            "(jsonb_populate_record(null::comp, '{\"at\":\"now\"}')).at",
        ] {
            one(&pg, &["--query", &format!("select id, {text} as at from t")], "the time").await;
            let column = format!("at={text}");
            one(&pg, &["--table", "t", "--columns", "id", "--column", &column], "the time").await;
            if text.contains("||") {
                continue;
            }
            pg.batch(&format!("create or replace view v as select id, {text} as at from t")).await;
            let (_, values, note) = split(&pg, &["--table", "v"]).await;
            assert_eq!(values, 1, "{text}: {note}");
        }
        let (parts, _, note) = split(&pg, &["--query", "select id, v from t where v <> 'nowhere'"]).await;
        assert_eq!(parts, 4, "{version}: {note}");
    }
}

#[tokio::test]
async fn functions_that_no_name_calls_are_one_statement() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        pg.batch(
            "create function clocked(a int, at timestamptz default clock_timestamp()) returns timestamptz
                language sql immutable as 'select at';
            create function told(a int, at timestamptz default current_timestamp) returns timestamptz
                language sql immutable as 'select at';
            create function read(a int, at timestamptz default 'now'::text::timestamptz) returns timestamptz
                language sql immutable as 'select at';
            create function outer_one(a int, at timestamptz default clocked(1)) returns timestamptz
                language sql immutable as 'select at';
            create function polyrnd(anyelement) returns text language sql volatile as
                'select coalesce(max(pg_backend_pid()), 0)::text';
            create domain tdom as comp;
            create function domrnd(tdom) returns text language sql volatile as 'select pg_backend_pid()::text'",
        )
        .await;
        // Casts of a database count for every text that a person wrote.
        let casts = "create type box1 as (n int); create domain whole as int;
            create function box_int(box1) returns int language sql volatile as 'select pg_backend_pid()';
            create cast (box1 as int) with function box_int(box1)";
        for (text, what) in [
            ("clocked(1)", "clock_timestamp() in"),
            ("told(1)", "public.told(), whose default asks a clock"),
            ("read(1)", "public.read(), whose default asks a clock or casts a text,"),
            ("outer_one(1)", "clock_timestamp() in"),
            ("t.polyrnd", "public.polyrnd()"),
            ("((1, now())::comp::tdom).domrnd", "public.domrnd()"),
            ("row(id)::box1::int", "public.box_int()"),
            ("row(id)::box1::integer", "public.box_int()"),
            ("row(id)::box1::whole", "public.box_int()"),
        ] {
            if text == "row(id)::box1::int" {
                pg.batch(casts).await;
            }
            let query = format!("select id, {text} as at from t");
            let (parts, _, note) = split(&pg, &["--query", &query]).await;
            assert!(parts == 1 && note.contains(what), "{version} {text}: {note:?} without {what:?}");
            let column = format!("at={text}");
            let (parts, _, note) = split(&pg, &["--table", "t", "--columns", "id", "--column", &column]).await;
            if what.starts_with("clock_timestamp()") {
                // Each row has a moment of its own.
                assert_eq!(parts, 4, "{version} {text}: {note:?}");
                let filter = format!("{text} is not null");
                let args = ["--table", "t", "--where", &filter, "--max-rows", "10", "--key", "id"];
                let capped = export_csv(&pg, &args, 3).await.manifest();
                let note = capped["consistency"]["note"].as_str().unwrap_or_default();
                assert!(note.contains("clock_timestamp() in --where"), "{version} {text}: {note:?}");
                continue;
            }
            assert!(parts == 1 && note.contains(what), "{version} {text}: {note:?} without {what:?}");
        }
        for function in ["clocked", "told", "read", "outer_one"] {
            pg.batch(&format!("create view v_{function} as select id, {function}(1) as at from t")).await;
            let (parts, _, note) = split(&pg, &["--table", &format!("v_{function}")]).await;
            assert!(parts == 1 && note.contains(&format!("in view public.v_{function}")), "{function}: {note:?}");
        }
    }
}
