use proptest::prelude::*;

use super::*;
use crate::model::{BucketUnit, RowScope, ScopeColumn, ScopeCondition, ScopeTest, TenantScope};
use crate::source::postgres::plan::check_predicate;

fn column(name: &str, type_name: &str) -> ScopeColumn {
    ScopeColumn { name: name.to_owned(), type_name: type_name.to_owned(), ..ScopeColumn::default() }
}

fn one(column: ScopeColumn, test: ScopeTest) -> Result<String, ScopeError> {
    let scope = RowScope { conditions: vec![ScopeCondition { column, test }], tenant: None };
    predicate(&scope).map(Option::unwrap_or_default)
}

fn of_tenant(template: &str, type_name: &str, tenant: &str) -> Result<String, ScopeError> {
    let [template, type_name, tenant] = [template, type_name, tenant].map(str::to_owned);
    predicate(&RowScope { conditions: Vec::new(), tenant: Some(TenantScope { template, type_name, tenant }) })
        .map(Option::unwrap_or_default)
}

#[test]
fn a_type_loses_what_would_change_a_value() {
    for (name, sql) in [
        ("", "pg_catalog.\"text\""),
        ("character varying(20)", "pg_catalog.\"text\""),
        ("varchar", "pg_catalog.\"text\""),
        ("pg_catalog.\"varchar\"", "pg_catalog.\"text\""),
        ("character(4)", "pg_catalog.\"bpchar\""),
        ("char", "pg_catalog.\"bpchar\""),
        ("\"char\"", "pg_catalog.\"text\""),
        ("pg_catalog.\"char\"", "pg_catalog.\"text\""),
        ("name", "pg_catalog.\"text\""),
        ("numeric(10,2)", "pg_catalog.\"numeric\""),
        ("numeric(3,-2)", "pg_catalog.\"numeric\""),
        ("bit(3)", "pg_catalog.\"bit\""),
        ("bit varying(3)", "pg_catalog.\"varbit\""),
        ("timestamp(3) with time zone", "pg_catalog.\"timestamptz\""),
        ("timestamp without time zone", "pg_catalog.\"timestamp\""),
        ("TIME WITH TIME ZONE", "pg_catalog.\"timetz\""),
        ("interval day to second(3)", "pg_catalog.\"interval\""),
        ("double precision", "pg_catalog.\"float8\""),
        ("integer[]", "pg_catalog.\"int4\"[]"),
        ("character varying(9)[]", "pg_catalog.\"varchar\"[]"),
        ("uuid", "pg_catalog.\"uuid\""),
        ("mood", "\"mood\""),
        ("public.citext", "\"public\".\"citext\""),
        ("\"My Schema\".\"a\"\"b\"[]", "\"My Schema\".\"a\"\"b\"[]"),
        ("\"uuid\"", "pg_catalog.\"uuid\""),
    ] {
        assert_eq!(SqlType::parse(name).unwrap().sql, sql, "{name}");
    }
    for name in [
        "int; drop table t",
        "int--",
        "a.b.c",
        "'x'",
        "a'",
        "\"a",
        "\"\"",
        "\"a\"b",
        "int)",
        "(3)",
        "int(3",
        "int(x)",
        ".a",
        "a.",
        "int[3]",
        "int[] x",
        "1a",
        "a::b",
        "a/*",
        "[]",
        "\"a\0\"",
        "$$",
    ] {
        assert_eq!(SqlType::parse(name).unwrap_err(), ScopeError::TypeName(name.to_owned()), "{name}");
    }
}

#[test]
fn literals() {
    for (text, type_name, sql) in [
        ("it's", "", "'it''s'::pg_catalog.\"text\""),
        ("a\\'b", "text", "E'a\\\\''b'::pg_catalog.\"text\""),
        ("2026-01-31T12:00:00Z", "timestamptz", "'2026-01-31T12:00:00Z'::pg_catalog.\"timestamptz\""),
        ("-infinity", "date", "'-infinity'::pg_catalog.\"date\""),
        ("0044-03-15 BC", "date", "'0044-03-15 BC'::pg_catalog.\"date\""),
    ] {
        assert_eq!(literal(text, type_name).unwrap(), sql);
    }
    assert_eq!(literal("a\0b", "text").unwrap_err(), ScopeError::Nul);
    for moment in
        ["now", "today", "Tomorrow 12:00", "yesterday", "epoch", "2026-01-01 Europe/Berlin", "", "allballs", "１ｎow"]
    {
        for type_name in ["date", "timestamp", "timestamp with time zone", "time"] {
            assert!(matches!(literal(moment, type_name), Err(ScopeError::Moment(_))), "{moment} {type_name}");
        }
        literal(moment, "text").unwrap();
    }
}

#[test]
fn no_part_of_a_date_or_a_time_is_left_out() {
    for (text, type_name, written) in [
        ("2024-02-01T00:00:00+12:00", "timestamp", "2024-01-31 12:00:00"),
        ("2024-02-01 00:00:00.25", "timestamp(0)", "2024-02-01 00:00:00.250"),
        ("2024-02-01T01:00Z", "timestamp", "2024-02-01 01:00:00"),
        ("2024-02-01", "timestamp", "2024-02-01 00:00:00"),
        ("294276-12-31 23:59:59.999999", "timestamp", "294276-12-31 23:59:59.999999"),
        ("0044-03-15 12:00:00 BC", "timestamp", "0044-03-15 12:00:00 BC"),
        ("infinity", "timestamp", "infinity"),
        ("5874897-12-31", "date", "5874897-12-31"),
        ("24:00:00", "time", "24:00:00"),
        ("23:59:59.999999", "time(6)", "23:59:59.999999"),
        ("12:00:00+05:30:15", "timetz", "12:00:00+05:30:15"),
        ("12:00:00-08", "time with time zone", "12:00:00-08"),
    ] {
        let (quoted, _) =
            literal(text, type_name).unwrap().rsplit_once("::").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(quoted, format!("'{written}'"), "{type_name}");
    }
    for (text, type_name) in [
        ("2024-01-02T12:00:00Z", "date"),
        ("2024-01-02 00:00:00", "date"),
        ("20240102", "date"),
        ("2024-01-02Z", "date"),
        ("294276-12-31 23:59:59+01", "timestamp"),
        ("2024-02-01 00:00:00 UTC+3", "timestamp"),
        ("9999-12-31T23:59:59-01:00", "timestamp"),
        ("12:00:00+05", "time"),
        ("12:00:00Z", "time"),
        ("2024-01-01 12:00:00", "time"),
        ("2024-01-01 12:00:00+05", "timetz"),
        ("12:00:00 utc", "timetz"),
    ] {
        assert!(matches!(literal(text, type_name), Err(ScopeError::Moment(_))), "{text} {type_name}");
    }
    let times = ScopeColumn { holds_times: true, ..column("at", "timestamp with time zone[]") };
    assert_eq!(one(times.clone(), ScopeTest::Equal("{now}".into())).unwrap_err(), ScopeError::Clock("at".into()));
    one(times, ScopeTest::Equal("{2024-01-01}".into())).unwrap();
    one(column("title", "text[]"), ScopeTest::Equal("{now}".into())).unwrap();
}

#[test]
fn conditions_name_their_operators() {
    use ScopeTest::*;
    let text = |text: &str| text.to_owned();
    let int = || column("n", "integer");
    for (column, test, sql) in [
        (int(), Equal(text("1")), "(\"n\" OPERATOR(\"pg_catalog\".=) '1'::pg_catalog.\"int4\")"),
        (int(), In(vec![]), "(false)"),
        (
            int(),
            In(vec![text("1"), text("2")]),
            "(\"n\" OPERATOR(\"pg_catalog\".=) ANY (ARRAY['1'::pg_catalog.\"int4\", '2'::pg_catalog.\"int4\"]))",
        ),
        (
            int(),
            Between(text("1"), text("2")),
            "((\"n\" OPERATOR(\"pg_catalog\".>=) '1'::pg_catalog.\"int4\") AND (\"n\" OPERATOR(\"pg_catalog\".<=) '2'::pg_catalog.\"int4\"))",
        ),
        (
            column("a", "pg_catalog.\"_int4\""),
            In(vec![text("{1}"), text("{2}")]),
            "(\"a\" OPERATOR(\"pg_catalog\".=) '{1}'::\"pg_catalog\".\"_int4\" OR \"a\" OPERATOR(\"pg_catalog\".=) '{2}'::\"pg_catalog\".\"_int4\")",
        ),
        (int(), IsNull, "(\"n\" IS NOT DISTINCT FROM NULL)"),
        (int(), IsNotNull, "(\"n\" IS DISTINCT FROM NULL)"),
        (
            column("a\"b", "\"char\""),
            Equal(text("xy")),
            "(\"a\"\"b\"::pg_catalog.text OPERATOR(\"pg_catalog\".=) 'xy'::pg_catalog.\"text\")",
        ),
        (
            ScopeColumn { operators: Some(text("ext")), ..column("c", "ext.citext") },
            NotEqual(text("x")),
            "(\"c\" OPERATOR(\"ext\".<>) 'x'::\"ext\".\"citext\")",
        ),
        (
            ScopeColumn { sql: Some(text("a || b -- both")), ..column("c", "") },
            Like(text("a%")),
            "((\na || b -- both\n)::pg_catalog.text OPERATOR(pg_catalog.~~) 'a%'::pg_catalog.\"text\")",
        ),
        (
            column("d", "timestamp(0) without time zone"),
            DateRange { from: None, to: Some(text("2024-02-28")) },
            "(\"d\" OPERATOR(pg_catalog.<) '2024-02-29 00:00:00'::pg_catalog.timestamp)",
        ),
        (
            column("d", "date"),
            DateRange { from: Some(text("2024-02-28")), to: None },
            "(\"d\" OPERATOR(pg_catalog.>=) '2024-02-28'::pg_catalog.date)",
        ),
    ] {
        assert_eq!(one(column, test).unwrap(), sql);
    }
    assert_eq!(predicate(&RowScope::default()).unwrap(), None);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    use ScopeTest::*;
    let days =
        |from: Option<&str>, to: Option<&str>| DateRange { from: from.map(str::to_owned), to: to.map(str::to_owned) };
    for (column, test, error) in [
        (column("d", "date"), days(None, None), ScopeError::NoRange),
        (column("d", "text"), days(Some("2024-01-01"), None), ScopeError::NoDays("d".into())),
        (
            column("d", "text"),
            Bucket { unit: BucketUnit::Day, start: "2024-01-01".into() },
            ScopeError::NoDays("d".into()),
        ),
        (column("c", "text"), Like("%".repeat(11)), ScopeError::Pattern),
        (column("c", "text"), Like("x".repeat(201)), ScopeError::Pattern),
        (column("c", "text"), Like(r"a\\\".into()), ScopeError::OpenPattern),
        (column("c\0", "text"), IsNull, ScopeError::Nul),
    ] {
        assert_eq!(one(column, test).unwrap_err(), error);
    }
    one(column("c", "text"), Like(r"a\\".into())).unwrap();
    for day in
        ["2024-02-30", "24-01-01", "2024-1-1", "0000-01-01", "now", "2024-01-01 ", "+024-01-01", "２０２４-01-01"]
    {
        assert_eq!(one(column("d", "date"), days(Some(day), None)).unwrap_err(), ScopeError::Day, "{day}");
    }
    let broken = ScopeColumn { sql: Some("a) or (true".into()), ..column("c", "") };
    assert!(matches!(one(broken, IsNull).unwrap_err(), ScopeError::Text(_)));
}

#[test]
fn a_tenant_stands_where_the_operator_says_and_nowhere_else() {
    assert_eq!(
        of_tenant("tenant_id = {tenant} -- {tenant}", "uuid", "x'").unwrap(),
        "(\ntenant_id = ('x'''::pg_catalog.\"uuid\") -- {tenant}\n)"
    );
    assert_eq!(of_tenant("{tenant}=a", "", "ü").unwrap(), "(\n('ü'::pg_catalog.\"text\")=a\n)");
    for tenant in ["", " ", "\t\n"] {
        assert_eq!(of_tenant("t = {tenant}", "", tenant).unwrap_err(), ScopeError::NoTenant);
    }
    for template in
        ["t = '{tenant}'", "t = \"{tenant}\"", "t = 1", "t = $${tenant}$$", "true /* {tenant} */", "t = { tenant }"]
    {
        assert_eq!(of_tenant(template, "", "a").unwrap_err(), ScopeError::NoPlaceholder, "{template}");
    }
    for template in ["t = {tenant}) or (true", "t = {tenant}; drop table t", "t = '{tenant}", ""] {
        assert!(matches!(of_tenant(template, "", "a").unwrap_err(), ScopeError::Text(_)), "{template}");
    }
}

/// What the server reads of a literal before `::`, whatever `standard_conforming_strings` is.
fn read_back(literal: &str) -> String {
    let (quoted, _) = literal.rsplit_once("::").unwrap();
    let escapes = quoted.starts_with('E');
    let inner = quoted.trim_start_matches('E').strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
    assert!(escapes || !inner.contains('\\'), "what a backslash means is for the server to say: {literal}");
    let mut text = String::new();
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        match next {
            '\'' => assert_eq!(rest.next(), Some('\''), "{literal} ends in its middle"),
            '\\' => assert_eq!(rest.next(), Some('\\'), "{literal} has an escape"),
            _ => {}
        }
        text.push(next);
    }
    text
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    #[test]
    fn any_text_is_one_literal(text in "(['\\\\$;()\\n-]|/\\*|[^\0]){0,40}") {
        let literal = literal(&text, "text").unwrap();
        prop_assert_eq!(read_back(&literal), text.clone());
        let tenants = of_tenant("t = {tenant} and u", "", &format!("x{text}")).unwrap();
        prop_assert!(check_predicate(&tenants).is_ok(), "{}", tenants);
        prop_assert_eq!(tenants, format!("(\nt = ({}) and u\n)", literal_of(&format!("x{text}"))));
    }

    #[test]
    fn any_scope_stays_one_condition(name in ".{0,12}", type_name in ".{0,12}", text in ".{0,12}", sql in ".{0,12}") {
        for sql in [None, Some(sql)] {
            let column = ScopeColumn { name: name.clone(), sql, type_name: type_name.clone(), operators: Some(text.clone()), ..ScopeColumn::default() };
            for test in [
                ScopeTest::Equal(text.clone()),
                ScopeTest::In(vec![text.clone(), text.clone()]),
                ScopeTest::Like(text.clone()),
                ScopeTest::Bucket { unit: BucketUnit::Month, start: text.clone() },
                ScopeTest::DateRange { from: Some(text.clone()), to: Some(text.clone()) },
            ] {
                if let Ok(sql) = one(column.clone(), test) {
                    prop_assert!(check_predicate(&sql).is_ok(), "{}", sql);
                }
            }
        }
    }
}

fn literal_of(text: &str) -> String {
    literal(text, "").unwrap()
}
