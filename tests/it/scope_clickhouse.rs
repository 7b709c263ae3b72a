//! What a caller asks for, as a condition for ClickHouse: a value means itself, a group leads back to its own rows, and
//! nobody's tenant is anybody else's, for both sources alike.

use std::num::NonZeroU64;
use std::sync::Arc;

use outhaul::config::{Environment, load};
use outhaul::model::{
    AggregateRequest, BucketUnit, CountedRows, DescribedRelation, Dimension, Measure, RowScope, ScopeColumn,
    ScopeCondition, ScopeTest, ScopedPredicate, ServedRequest, ShapeOptions, TenantScope,
};
use outhaul::source::{Source, SourceFault};

use super::served::served;
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::pg::pg;

/// Texts that end strings, begin comments, escape, break lines and wrap around.
const HOSTILE: [&str; 24] = [
    "'",
    "''",
    "\\",
    "\\'",
    "\\\\'",
    "'; DROP TABLE t; --",
    "\\'; DROP TABLE t; --",
    "/*",
    "*/",
    "--",
    "$$",
    "{tenant}",
    "{p:String}",
    "a\nb",
    "a\tb",
    "\"",
    "`",
    "%_",
    "NULL",
    "\\N",
    "x' OR 1=1 OR 'a'='",
    "‘’",
    "日本\u{1f980}'",
    "18446744073709551660",
];

fn asked(from: &str, password: &str, table: &str) -> (Arc<dyn Source>, ShapeOptions) {
    let words = [("from", from), ("to", "-"), ("format", "csv"), ("table", table)];
    let flags = words.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
    let environment = Environment::of([("CLICKHOUSE_PASSWORD", password)], []);
    let request = load(flags, &environment, false).unwrap().0;
    (request.source, request.shape)
}

fn of(server: &ClickHouse, table: &str) -> (Arc<dyn Source>, ShapeOptions) {
    asked(&server.url("writer"), &server.password, table)
}

async fn described(source: &Arc<dyn Source>, shape: &ShapeOptions) -> DescribedRelation {
    source.describe(ServedRequest { shape: shape.clone(), served: served() }).unwrap().await.unwrap()
}

fn column(described: &DescribedRelation, name: &str) -> ScopeColumn {
    described.columns.iter().find(|column| column.scope.name == name).unwrap().scope.clone()
}

async fn counted(source: &Arc<dyn Source>, shape: &ShapeOptions, scope: &RowScope) -> u64 {
    let mut shape = shape.clone();
    shape.predicate = source.predicate(scope).unwrap();
    let request = ServedRequest { shape, served: served() };
    match source.estimate(request, NonZeroU64::new(1_000_000).unwrap()).unwrap().await {
        Ok(CountedRows::Exact(rows)) => rows,
        other => panic!("{scope:?}: {other:?}"),
    }
}

fn only(column: ScopeColumn, test: ScopeTest) -> RowScope {
    RowScope { conditions: vec![ScopeCondition { column, test }], tenant: None }
}

fn tenant(template: &str, type_name: &str, tenant: &str) -> RowScope {
    let [template, type_name, tenant] = [template, type_name, tenant].map(str::to_owned);
    RowScope { conditions: Vec::new(), tenant: Some(TenantScope { template, type_name, tenant }) }
}

/// I13 over both sources: whatever a tenant is called, he has his own rows, by every way in which they are asked for.
#[tokio::test]
async fn i13_a_tenant_has_his_own_rows_whatever_he_is_called() {
    let server = clickhouse().await;
    let pg = pg(18).await;
    pg.batch("create table t (n int, tenant text); create table u (n int, tenant bigint)").await;
    server.run("CREATE TABLE t (n UInt32, tenant String) ENGINE MergeTree ORDER BY tenant").await;
    server.run("CREATE TABLE u (n UInt32, tenant UInt64) ENGINE MergeTree ORDER BY tenant").await;
    let client = pg.connect().await;
    let mut rows = Vec::new();
    for (n, text) in (1_i32..).zip(HOSTILE) {
        // Each has as many rows as his number, so that a count tells whose they are.
        for _ in 0..n {
            client.execute("insert into t values ($1, $2)", &[&n, &text]).await.unwrap();
        }
        let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
        rows.push(format!("SELECT {n}, char({}) FROM numbers({n})", bytes.join(", ")));
    }
    server.run(&format!("INSERT INTO t {}", rows.join(" UNION ALL "))).await;
    server.run("INSERT INTO u SELECT number, number FROM numbers(1, 50)").await;
    pg.batch("insert into u select n, n from generate_series(1, 50) n").await;
    for (from, password) in [(server.url("writer"), server.password.as_str()), (pg.url.clone(), "")] {
        let (source, shape) = asked(&from, password, "t");
        let facts = described(&source, &shape).await;
        for (n, text) in (1_u64..).zip(HOSTILE) {
            for scope in [
                tenant("tenant={tenant} -- that one", "", text),
                only(column(&facts, "tenant"), ScopeTest::Equal(text.to_owned())),
                only(column(&facts, "tenant"), ScopeTest::In(vec![text.to_owned(), "nobody".to_owned()])),
            ] {
                assert_eq!(counted(&source, &shape, &scope).await, n, "{} {text:?}", source.kind());
            }
            let mut grouped = shape.clone();
            grouped.predicate = source.predicate(&tenant("tenant={tenant}", "", text)).unwrap();
            let dimension = Dimension { column: column(&facts, "tenant"), bucket: None };
            let request = AggregateRequest {
                of: ServedRequest { shape: grouped, served: served() },
                dimensions: vec![dimension],
                measures: vec![Measure::Count],
                max_buckets: NonZeroU64::new(10).unwrap(),
                max_bytes: 1 << 20,
            };
            let found = source.aggregate(request).unwrap().await.unwrap();
            assert_eq!(found.buckets.len(), 1, "{text:?}");
            assert_eq!(found.buckets[0].dimensions[0].text.as_deref(), Some(text));
            assert_eq!(found.buckets[0].measures, [n.to_string()]);
        }
        // A number that wraps around is nobody's, whether the operator says the type of the tenant or forgets it.
        let (source, shape) = asked(&from, password, "u");
        let (number, hidden) = (
            if password.is_empty() { "bigint" } else { "UInt64" },
            ["18446744073709551660", "18446744073709551617", "-1", "44.0", "4 4", "44,"],
        );
        assert_eq!(counted(&source, &shape, &tenant("tenant = {tenant}", number, "44")).await, 1);
        for text in hidden {
            for template in ["tenant = {tenant}", "tenant IN ({tenant})"] {
                for type_name in [number, ""] {
                    let what = format!("{} {template} {type_name} {text}", source.kind());
                    let Ok(predicate) = source.predicate(&tenant(template, type_name, text)) else { continue };
                    let mut shape = shape.clone();
                    shape.predicate = predicate;
                    let request = ServedRequest { shape, served: served() };
                    let counted = source.estimate(request, NonZeroU64::new(100).unwrap()).unwrap().await;
                    assert!(matches!(counted, Err(_) | Ok(CountedRows::Exact(0))), "{what}: {counted:?}");
                }
            }
        }
    }
}

const SCALARS: &str = "CREATE TABLE scalars (id UInt32, b Nullable(Bool), i8 Int8, u8 UInt8, i64 Nullable(Int64), u64 UInt64, \
    i128 Int128, u256 UInt256, f32 Float32, f64 Nullable(Float64), dec Decimal(10, 3), big Decimal(60, 20), d Date, \
    d32 Nullable(Date32), dt DateTime('Asia/Tokyo'), ms DateTime64(3), ns Nullable(DateTime64(9, 'America/New_York')), \
    e Enum8('one' = 1, 'it''s' = -2), s LowCardinality(Nullable(String)), f FixedString(4), u UUID, v4 IPv4, v6 Nullable(IPv6)) \
    ENGINE MergeTree ORDER BY id";

const ROWS: &str = "INSERT INTO scalars SELECT number, if(number % 5 = 0, NULL, number % 2 = 0), toInt8(number * 37), \
    toUInt8(number * 37), if(number % 7 = 0, NULL, toInt64(-9223372036854775807) + number % 3), 18446744073709551615 - number % 3, \
    toInt128('-170141183460469231731687303715884105728') + number % 2, \
    toUInt256('115792089237316195423570985008687907853269984665640564039457584007913129639935') - number % 2, \
    number % 3 / 10, multiIf(number % 11 = 0, NULL, number % 11 = 1, nan, number % 11 = 2, -inf, number % 3 / 7), \
    number % 5 / 8, toDecimal256('-1234567890123456789012345678901234567890.12345678901234567890', 20) + number % 2, \
    toDate('1970-01-01') + (number % 4) * 20000, if(number % 6 = 0, NULL, toDate32('1900-01-01') + (number % 4) * 40000), \
    toDateTime(number % 4 * 1000000000), toDateTime64('1950-06-01 00:00:00.123', 3, 'UTC') + number % 3, \
    if(number % 9 = 0, NULL, toDateTime64('2020-06-01 00:00:00.123456789', 9, 'UTC') + number % 3), \
    if(number % 2 = 0, 'one', 'it''s'), multiIf(number % 8 = 0, NULL, number % 8 = 1, '', number % 8 = 2, 'a\\'\\\\\\n\\tb', 'plain'), \
    if(number % 2 = 0, 'ab', 'wxyz'), toUUID('00000000-0000-0000-0000-00000000000a'), toIPv4(number % 2), \
    if(number % 3 = 0, NULL, toIPv6('fe80::1')) FROM numbers(200)";

/// Each group of each type leads back to as many rows as it has, by its text alone, and all of them together are all rows.
#[tokio::test]
async fn groups_of_every_type_lead_back_to_their_rows() {
    let server = clickhouse().await;
    server.run(SCALARS).await;
    server.run(ROWS).await;
    let (source, shape) = of(&server, "scalars");
    let facts = described(&source, &shape).await;
    assert!(facts.one_statement && facts.refused.is_none(), "{facts:?}");
    for found in &facts.columns {
        assert!(found.comparable, "{found:?}");
        let request = AggregateRequest {
            of: ServedRequest { shape: shape.clone(), served: served() },
            dimensions: vec![Dimension { column: found.scope.clone(), bucket: None }],
            measures: vec![Measure::Count, Measure::Min(found.scope.clone())],
            max_buckets: NonZeroU64::new(500).unwrap(),
            max_bytes: 1 << 20,
        };
        let name = &found.scope.name;
        let grouped = source.aggregate(request).unwrap().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let all: usize = grouped.buckets.iter().map(|bucket| bucket.measures[0].parse::<usize>().unwrap()).sum();
        assert_eq!(all, 200, "{name}");
        // Some of the many: each is a statement.
        for bucket in grouped.buckets.iter().step_by(grouped.buckets.len() / 5 + 1) {
            let value = &bucket.dimensions[0];
            let json: serde_json::Value = serde_json::from_str(&value.json).unwrap();
            assert_eq!(json.is_null(), value.text.is_none(), "{name} {value:?}");
            serde_json::from_str::<serde_json::Value>(&bucket.measures[1]).unwrap();
            let test = value.text.clone().map_or(ScopeTest::IsNull, ScopeTest::Equal);
            let rows = counted(&source, &shape, &only(found.scope.clone(), test.clone())).await;
            assert_eq!(rows.to_string(), bucket.measures[0], "{name} {value:?}");
            if let ScopeTest::Equal(text) = test {
                let set = only(found.scope.clone(), ScopeTest::In(vec![text.clone()]));
                assert_eq!(counted(&source, &shape, &set).await, rows, "{name} {value:?}");
                let others = only(found.scope.clone(), ScopeTest::NotEqual(text));
                let nulls = counted(&source, &shape, &only(found.scope.clone(), ScopeTest::IsNull)).await;
                assert_eq!(counted(&source, &shape, &others).await, 200 - nulls - rows, "{name} {value:?}");
            }
        }
    }
    // Lists long enough for the server to make a set of equalities. In a set it lets what is out of range wrap around:
    // https://github.com/ClickHouse/ClickHouse/issues/117244 and 118437.
    for (name, values) in [
        ("dt", ["2106-02-07T06:28:16Z", "2242-03-16T12:56:32Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00.5Z"]),
        ("d", ["2149-06-07", "2299-12-31", "1900-01-01", "1969-12-31"]),
        ("ms", ["1950-06-01T00:00:00.1230001Z", "1950-06-01T00:00:00.1234Z", "2299-12-31T00:00:00Z", "1970-01-01"]),
    ] {
        let values: Vec<String> = Vec::from(values.map(str::to_owned));
        let among = only(column(&facts, name), ScopeTest::In(values.clone()));
        assert_eq!(counted(&source, &shape, &among).await, 0, "{name} {values:?}");
    }
    // The sum of what fills its type is beyond it.
    for (name, sql) in [
        ("u64", "sum(toUInt256(u64))"),
        ("i64", "sum(toInt256(i64))"),
        ("i8", "sum(toInt256(i8))"),
        ("dec", "sum(toDecimal256(dec, 3))"),
    ] {
        let request = AggregateRequest {
            of: ServedRequest { shape: shape.clone(), served: served() },
            dimensions: Vec::new(),
            measures: vec![Measure::Sum(column(&facts, name))],
            max_buckets: NonZeroU64::MIN,
            max_bytes: 1 << 20,
        };
        let found = source.aggregate(request).unwrap().await.unwrap();
        let expected = server.run(&format!("SELECT toString({sql}) FROM scalars FORMAT TSV")).await;
        assert_eq!(found.buckets[0].measures, [expected.trim()], "{name}");
    }
}

/// The server groups floats by their bits, and finds them by their value.
#[tokio::test]
async fn floats_that_are_equal_are_one_group() {
    let server = clickhouse().await;
    server.run("CREATE TABLE floats (f Float64, g Nullable(Float32)) ENGINE MergeTree ORDER BY tuple()").await;
    server.run("INSERT INTO floats VALUES (0., 0.), (-0., -0.), (-nan, -nan), (nan, nan), (0.1, 0.1), (2, NULL)").await;
    let (source, shape) = of(&server, "floats");
    let facts = described(&source, &shape).await;
    for (name, expected) in [("f", ["0:2", "0.1:1", "2:1", "nan:2"]), ("g", ["0:2", "0.1:1", "nan:2", ":1"])] {
        let request = AggregateRequest {
            of: ServedRequest { shape: shape.clone(), served: served() },
            dimensions: vec![Dimension { column: column(&facts, name), bucket: None }],
            measures: vec![Measure::Count],
            max_buckets: NonZeroU64::new(9).unwrap(),
            max_bytes: 1 << 20,
        };
        let found = source.aggregate(request).unwrap().await.unwrap();
        let told = found
            .buckets
            .iter()
            .map(|bucket| format!("{}:{}", bucket.dimensions[0].text.clone().unwrap_or_default(), bucket.measures[0]));
        let mut told: Vec<String> = told.collect();
        told.sort();
        let mut expected = expected.map(str::to_owned);
        expected.sort();
        assert_eq!(told, expected, "{name}");
    }
}

/// Values are bounded where they are made, and bytes that are no text are the data's fault.
#[tokio::test]
async fn values_that_are_too_much_or_no_text_are_told() {
    let server = clickhouse().await;
    server.run("CREATE TABLE texts (n UInt64, s String, b String) ENGINE MergeTree ORDER BY n").await;
    server
        .run("INSERT INTO texts SELECT number, concat(toString(number), repeat('x', 9000)), unhex('ff') FROM numbers(300)")
        .await;
    let (source, shape) = of(&server, "texts");
    let facts = described(&source, &shape).await;
    let ask = async |name: &str, measure: Measure, max_bytes: u64| {
        let request = AggregateRequest {
            of: ServedRequest { shape: shape.clone(), served: served() },
            dimensions: vec![Dimension { column: column(&facts, name), bucket: None }],
            measures: vec![measure],
            max_buckets: NonZeroU64::new(1_000).unwrap(),
            max_bytes,
        };
        source.aggregate(request).unwrap().await
    };
    assert!(ask("s", Measure::Count, 1 << 30).await.unwrap().too_large);
    assert!(ask("n", Measure::Max(column(&facts, "s")), 1 << 20).await.unwrap().too_large);
    assert!(ask("n", Measure::Count, 1_000).await.unwrap().too_large);
    let all = ask("n", Measure::Max(column(&facts, "s")), 1 << 30).await.unwrap();
    assert_eq!((all.buckets.len(), all.too_large), (300, false));
    assert_eq!(ask("b", Measure::Count, 1 << 20).await.unwrap_err().fault, SourceFault::Data);
}

/// Rows are chosen by types that may be others by then.
#[tokio::test]
async fn a_column_of_another_type_is_told() {
    let server = clickhouse().await;
    server.run("CREATE TABLE ev (n UInt64, day Date) ENGINE MergeTree ORDER BY n").await;
    let (source, mut shape) = of(&server, "ev");
    let facts = described(&source, &shape).await;
    let made = ScopeColumn { name: "made".to_owned(), sql: Some("day".to_owned()), ..column(&facts, "day") };
    let (from, to) = (Some("2024-01-01".to_owned()), Some("2024-01-03".to_owned()));
    for column in [column(&facts, "day"), made] {
        server.run("ALTER TABLE ev MODIFY COLUMN day Date SETTINGS mutations_sync = 2").await;
        let scope = only(column, ScopeTest::DateRange { from: from.clone(), to: to.clone() });
        assert_eq!(counted(&source, &shape, &scope).await, 0);
        server.run("ALTER TABLE ev MODIFY COLUMN day DateTime SETTINGS mutations_sync = 2").await;
        shape.predicate = source.predicate(&scope).unwrap();
        shape.scoped = Some(Box::new(ScopedPredicate {
            columns: scope.conditions.iter().map(|condition| condition.column.clone()).collect(),
            texts: Vec::new(),
        }));
        let request = ServedRequest { shape: shape.clone(), served: served() };
        let refused = source.estimate(request, NonZeroU64::MIN).unwrap().await.unwrap_err();
        assert_eq!(refused.fault, SourceFault::SchemaChanged);
        (shape.predicate, shape.scoped) = (None, None);
    }
}

/// Buckets and ranges of days have all of their moments and no others, before 1970 and behind 2106 too.
#[tokio::test]
async fn buckets_of_dates_have_all_of_their_rows_and_no_others() {
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE days (id UInt32, d Date, d32 Nullable(Date32), dt DateTime('Asia/Tokyo'), \
             ms Nullable(DateTime64(3, 'America/New_York'))) ENGINE MergeTree ORDER BY id AS \
             SELECT number, toDate(toUInt16(number * 97)), if(number % 50 = 0, NULL, toDate32('1900-01-01') + number * 217), \
             toDateTime(toUInt32(number * 6400000)), if(number % 50 = 1, NULL, \
             toDateTime64('1900-01-01 00:00:00.000', 3, 'UTC') + toIntervalMillisecond(number * 18700000001 - number % 2)) \
             FROM numbers(670)",
        )
        .await;
    let (source, shape) = of(&server, "days");
    let facts = described(&source, &shape).await;
    for name in ["d", "d32", "dt", "ms"] {
        let scope = column(&facts, name);
        for unit in [
            BucketUnit::Hour,
            BucketUnit::Day,
            BucketUnit::Week,
            BucketUnit::Month,
            BucketUnit::Quarter,
            BucketUnit::Year,
        ] {
            let request = AggregateRequest {
                of: ServedRequest { shape: shape.clone(), served: served() },
                dimensions: vec![Dimension { column: scope.clone(), bucket: Some(unit) }],
                measures: vec![Measure::Count],
                max_buckets: NonZeroU64::new(1_000).unwrap(),
                max_bytes: 1 << 20,
            };
            let grouped = source.aggregate(request).unwrap().await.unwrap();
            let texts: Vec<_> = grouped.buckets.iter().map(|bucket| bucket.dimensions[0].text.clone()).collect();
            assert!(texts.iter().flatten().is_sorted(), "{name} {unit:?}");
            let whole: usize = grouped.buckets.iter().map(|bucket| bucket.measures[0].parse::<usize>().unwrap()).sum();
            assert_eq!(whole, 670, "{name} {unit:?}");
            // Some of the many: each is a statement.
            for bucket in grouped.buckets.iter().step_by(grouped.buckets.len() / 12 + 1) {
                let test = match bucket.dimensions[0].text.clone() {
                    Some(start) => ScopeTest::Bucket { unit, start },
                    None => ScopeTest::IsNull,
                };
                let rows = counted(&source, &shape, &only(scope.clone(), test)).await;
                assert_eq!(rows.to_string(), bucket.measures[0], "{name} {unit:?} {bucket:?}");
            }
        }
        for (from, to) in [
            (Some("1960-01-01"), Some("1999-12-31")),
            (Some("0001-01-01"), None),
            (None, Some("2299-12-31")),
            (Some("2030-05-05"), Some("2030-05-05")),
            (Some("2020-01-01"), Some("2019-01-01")),
        ] {
            let days = ScopeTest::DateRange { from: from.map(str::to_owned), to: to.map(str::to_owned) };
            let rows = counted(&source, &shape, &only(scope.clone(), days)).await;
            let text = if name.starts_with('d') && name != "dt" {
                format!("toString({name})")
            } else {
                format!("left(toString({name}, 'UTC'), 10)")
            };
            let expected = format!(
                "SELECT count() FROM days WHERE {text} >= '{}' AND {text} <= '{}'",
                from.unwrap_or("0000"),
                to.unwrap_or("9999")
            );
            assert_eq!(rows.to_string(), server.run(&expected).await.trim(), "{name} {from:?} {to:?}");
        }
    }
}
