//! What a caller asks for becomes a condition: whatever text he sends, it means that text to the server and nothing else.

use std::sync::Arc;

use outhaul::config::{Environment, load};
use outhaul::model::{BucketUnit, RowScope, ScopeColumn, ScopeCondition, ScopeTest, TenantScope};
use outhaul::source::Source;

use crate::support::pg::{Pg, both, pg};

/// Texts that end strings, begin comments, escape and break lines.
const HOSTILE: [&str; 24] = [
    "'",
    "''",
    "\\",
    "\\'",
    "\\\\'",
    "'; drop table t; --",
    "\\'; drop table t; --",
    "/*",
    "*/",
    "--",
    "$$",
    "$1",
    "{tenant}",
    "E'\\x41'",
    "\\x41",
    "\\101",
    "a\nb",
    "a\r\nb",
    "\t",
    "\"",
    "%_",
    "null",
    "",
    " now ",
];

/// The same in letters that not every encoding has.
const LETTERS: [&str; 4] = ["é", "ü'\\", "日本", "\u{1f980}'"];

fn source(pg: &Pg) -> Arc<dyn Source> {
    let words = [("from", pg.url.as_str()), ("to", "-"), ("format", "csv"), ("table", "t")];
    let flags = words.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
    load(flags, &Environment::default(), false).unwrap().0.source
}

fn column(name: &str, type_name: &str) -> ScopeColumn {
    ScopeColumn { name: name.to_owned(), type_name: type_name.to_owned(), ..ScopeColumn::default() }
}

fn only(column: ScopeColumn, test: ScopeTest) -> RowScope {
    RowScope { conditions: vec![ScopeCondition { column, test }], tenant: None }
}

async fn found(pg: &Pg, scope: &RowScope, rows: &str) -> Vec<String> {
    let predicate = source(pg).predicate(scope).unwrap().unwrap();
    let rows = pg.sql(&format!("select n from ({rows}) as t where ({predicate}) order by n")).await;
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

#[tokio::test]
async fn hostile_texts_mean_themselves_on_every_server() {
    for version in both() {
        for encoding in ["UTF8", "LATIN1", "SQL_ASCII", "EUC_JP"] {
            let pg = Pg::encoded(version, encoding).await;
            pg.batch("create table t (n int, v text, tenant text)").await;
            let client = pg.connect().await;
            let mut there = Vec::new();
            for (n, text) in (0_i32..).zip(HOSTILE.iter().chain(&LETTERS)) {
                if client.execute("insert into t values ($1, $2, $2)", &[&n, text]).await.is_ok() {
                    there.push((n, *text));
                }
            }
            assert!(there.len() > HOSTILE.len(), "{encoding}");
            for conforming in ["on", "off"] {
                pg.batch(&format!("set standard_conforming_strings = {conforming}; set backslash_quote = on")).await;
                for (n, text) in &there {
                    let what = format!("{version} {encoding} {conforming} {text:?}");
                    let equal = only(column("v", "text"), ScopeTest::Equal((*text).to_owned()));
                    assert_eq!(found(&pg, &equal, "table t").await, [n.to_string()], "{what}");
                    // As the server itself would quote it.
                    let quoted = client.query_one("select quote_literal($1)", &[text]).await.unwrap();
                    let theirs = format!("select n::text from t where v = {}", quoted.get::<_, &str>(0));
                    assert_eq!(pg.value(&theirs).await, n.to_string(), "{what}");
                    let any = only(column("v", "text"), ScopeTest::In(vec![(*text).to_owned(), "no".to_owned()]));
                    assert_eq!(found(&pg, &any, "table t").await, [n.to_string()], "{what}");
                    if text.trim().is_empty() {
                        continue;
                    }
                    let tenant = TenantScope {
                        template: "tenant={tenant} -- that one".to_owned(),
                        type_name: String::new(),
                        tenant: (*text).to_owned(),
                    };
                    let tenant = RowScope { conditions: Vec::new(), tenant: Some(tenant) };
                    assert_eq!(found(&pg, &tenant, "table t").await, [n.to_string()], "{what}");
                }
            }
            assert_eq!(pg.value("select count(*) from t").await, there.len().to_string());
        }
    }
}

/// A cast to `varchar(3)` or `numeric(4,1)` would change the value, and find the rows of another.
#[tokio::test]
async fn a_value_is_compared_as_it_is_and_not_as_its_column_would_have_it() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table t (n int, v varchar(3), c char(4), x \"char\", m name, d numeric(4,1), b bit(3), \
                ts timestamp(0), i int[], f float4, u uuid); create type mood as enum ('sad', 'glad'); \
            alter table t add e mood; \
            insert into t values (1, 'abc', 'ab', 'a', repeat('m', 63), 1.2, b'101', '2024-01-31 23:59:59', '{1,2}', 0.1, \
                '00000000-0000-0000-0000-000000000001', 'glad')",
        )
        .await;
        let long = "m".repeat(64);
        let exact = "m".repeat(63);
        for (name, type_name, value, there) in [
            ("v", "character varying(3)", "abc", true),
            ("v", "character varying(3)", "abcdef", false),
            ("c", "character(4)", "ab", true),
            ("c", "character(4)", "abcdef", false),
            ("x", "\"char\"", "a", true),
            ("x", "\"char\"", "abc", false),
            ("m", "name", exact.as_str(), true),
            ("m", "name", long.as_str(), false),
            ("d", "numeric(4,1)", "1.2", true),
            ("d", "numeric(4,1)", "1.24", false),
            ("b", "bit(3)", "101", true),
            ("b", "bit(3)", "1010", false),
            ("ts", "timestamp(0) without time zone", "2024-01-31T23:59:59", true),
            ("ts", "timestamp(0) without time zone", "2024-01-31T23:59:59.2", false),
            ("i", "integer[]", "{1,2}", true),
            ("i", "integer[]", "{1,2,3}", false),
            ("f", "real", "0.1", true),
            ("u", "uuid", "00000000-0000-0000-0000-000000000001", true),
            ("e", "mood", "glad", true),
            ("e", "mood", "sad", false),
        ] {
            for test in [ScopeTest::Equal(value.to_owned()), ScopeTest::In(vec![value.to_owned()])] {
                let rows = found(&pg, &only(column(name, type_name), test), "table t").await;
                assert_eq!(rows.len(), usize::from(there), "{version} {name} {value}");
            }
        }
    }
}

#[tokio::test]
async fn days_and_buckets_have_all_of_their_moments_and_no_others() {
    use BucketUnit::{Day, Hour, Month, Quarter, Week, Year};
    let moments = "select row_number() over ()::int as n, at, at::timestamp as local, at::date as day from unnest(array[\
        '2024-01-30 23:59:59.999999+00', '2024-01-31 00:00:00+00', '2024-01-31 23:59:59.999999+00', \
        '2024-02-01 00:00:00+00', '2024-02-29 12:00:00+00', '2024-03-31 23:59:59.9+00', '2024-04-01 00:00:00+00', \
        'infinity', null]::timestamptz[]) as at";
    for version in both() {
        let pg = pg(version).await;
        // Another zone than UTC must make no difference to the moments themselves.
        pg.batch("set timezone = 'UTC'").await;
        for (name, type_name) in
            [("at", "timestamp with time zone"), ("local", "timestamp without time zone"), ("day", "date")]
        {
            for (from, to, expected) in [
                (Some("2024-01-31"), Some("2024-01-31"), &["2", "3"][..]),
                (Some("2024-02-01"), None, &["4", "5", "6", "7", "8"]),
                (None, Some("2024-01-30"), &["1"]),
                (Some("2024-02-29"), Some("2024-02-29"), &["5"]),
            ] {
                let days = ScopeTest::DateRange { from: from.map(str::to_owned), to: to.map(str::to_owned) };
                let rows = found(&pg, &only(column(name, type_name), days), moments).await;
                assert_eq!(rows, expected, "{version} {name} {from:?} {to:?}");
            }
            for (unit, start, expected) in [
                (Day, "2024-01-31", &["2", "3"][..]),
                (Month, "2024-01-01", &["1", "2", "3"]),
                (Month, "2024-02-01", &["4", "5"]),
                (Quarter, "2024-01-01", &["1", "2", "3", "4", "5", "6"]),
                (Year, "2024-01-01", &["1", "2", "3", "4", "5", "6", "7"]),
                (Week, "2024-01-29", &["1", "2", "3", "4"]),
                (Day, "infinity", &["8"]),
            ] {
                let bucket = ScopeTest::Bucket { unit, start: start.to_owned() };
                let rows = found(&pg, &only(column(name, type_name), bucket), moments).await;
                assert_eq!(rows, expected, "{version} {name} {unit:?} {start}");
            }
        }
        let hour = ScopeTest::Bucket { unit: Hour, start: "2024-01-31 23:00:00+00".to_owned() };
        assert_eq!(found(&pg, &only(column("at", "timestamptz"), hour), moments).await, ["3"]);
        pg.batch("set timezone = 'America/New_York'").await;
        let day = ScopeTest::DateRange { from: Some("2024-01-31".into()), to: Some("2024-01-31".into()) };
        assert_eq!(found(&pg, &only(column("at", "timestamptz"), day), moments).await, ["2", "3"], "{version}");
        let month = ScopeTest::Bucket { unit: Month, start: "2024-02-01 00:00:00+00".into() };
        assert_eq!(found(&pg, &only(column("at", "timestamptz"), month), moments).await, ["4", "5"], "{version}");
    }
}

#[tokio::test]
async fn tests_are_those_of_sql() {
    use ScopeTest::{Between, Greater, GreaterOrEqual, In, IsNotNull, IsNull, Less, LessOrEqual, Like, NotEqual};
    let rows = "select n, case when n < 5 then n end as v, 'a' || n || '%' as t from generate_series(1, 5) as n";
    let text = |text: &str| text.to_owned();
    for version in both() {
        let pg = pg(version).await;
        for (name, test, expected) in [
            ("v", NotEqual(text("2")), &["1", "3", "4"][..]),
            ("v", Less(text("2")), &["1"]),
            ("v", LessOrEqual(text("2")), &["1", "2"]),
            ("v", Greater(text("3")), &["4"]),
            ("v", GreaterOrEqual(text("3")), &["3", "4"]),
            ("v", In(vec![text("1"), text("4"), text("9")]), &["1", "4"]),
            ("v", In(vec![]), &[]),
            ("v", Between(text("2"), text("3")), &["2", "3"]),
            ("v", IsNull, &["5"]),
            ("v", IsNotNull, &["1", "2", "3", "4"]),
            ("v", Like(text("_")), &["1", "2", "3", "4"]),
        ] {
            let what = format!("{version} {name} {test:?}");
            assert_eq!(found(&pg, &only(column(name, "integer"), test), rows).await, expected, "{what}");
        }
        for (pattern, expected) in [("a%", 5), ("a3\\%", 1), ("a3\\\\%", 0), ("A%", 0), ("%'%", 0)] {
            let like = only(column("t", "text"), Like(pattern.to_owned()));
            assert_eq!(found(&pg, &like, rows).await.len(), expected, "{version} {pattern}");
        }
        let both = RowScope {
            conditions: vec![
                ScopeCondition { column: column("v", "integer"), test: Greater(text("1")) },
                ScopeCondition {
                    column: ScopeColumn { sql: Some(text("v * 2 -- doubled")), ..column("w", "bigint") },
                    test: Less(text("8")),
                },
            ],
            tenant: None,
        };
        assert_eq!(found(&pg, &both, rows).await, ["2", "3"], "{version}");
    }
}
