//! What a service asks of a source before it serves rows: how a relation looks, how many rows there are, what they come to.

use std::num::NonZeroU64;
use std::time::Duration;

use outhaul::model::{
    AggregateBucket, AggregateRequest, BucketUnit, CountedRows, Dimension, Direction, Measure, RelationRequest,
    RowScope, ScopeColumn, ScopeCondition, ScopeTest, ServedRequest,
};

use super::served::{request, served};
use crate::support::pg::{Pg, both, pg};

const ORDERS: &str = "create schema ext; create extension citext schema ext; \
    create domain label as varchar(20) check (value <> ''); \
    create table orders (id bigint primary key, status label, name ext.citext, placed timestamptz not null, \
        day date, total numeric(12,2), place point); \
    insert into orders select id, case when id % 5 = 0 then null else (array['new','paid','sent'])[id % 3 + 1] end, \
        'Name' || id % 4, '2024-01-01 00:00:00+00'::timestamptz + id * interval '5 hours', \
        '2024-01-01'::date + (id % 40)::int, (id * 1.25)::numeric(12,2), point(id, id) from generate_series(1, 1000) id; \
    create index on orders (placed); create index on orders (status, day); create index on orders (total) where id > 5; \
    create view recent as select id as number, placed, total * 2 as twice from orders; \
    analyze orders";

fn asked(pg: &Pg, relation: (&'static str, &str), key: Option<&str>) -> ServedRequest {
    let mut shape = request(pg, relation, 10).shape;
    shape.key = key.map(|key| vec![(key.to_owned(), Direction::Asc)]);
    ServedRequest { shape, served: served() }
}

#[tokio::test]
async fn a_relation_is_described_as_its_pages_will_need_it() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(ORDERS).await;
        let source = request(&pg, ("table", "orders"), 10).source;
        let mut request = asked(&pg, ("table", "orders"), None);
        request.shape.expressions = vec![("month".into(), "date_trunc('month', placed)".into())];
        let found = source.describe(request).unwrap().await.unwrap();
        assert_eq!((found.key.as_slice(), found.key_unique), (&["id".to_owned()][..], true));
        assert_eq!((found.refused.as_deref(), found.estimated_rows), (None, Some(1_000)));
        let facts = |name: &str| {
            let column = found.columns.iter().find(|column| column.scope.name == name).unwrap();
            let scope = &column.scope;
            let flags = [column.nullable, column.comparable, column.dates, column.leads_index].map(u8::from);
            (column.type_name.clone(), scope.type_name.clone(), scope.operators.clone(), flags)
        };
        let own = |text: &str| Some(text.to_owned());
        let expected = |shown: &str, sql: &str, operators, flags| (shown.to_owned(), sql.to_owned(), operators, flags);
        assert_eq!(facts("id"), expected("bigint", "pg_catalog.\"int8\"", None, [0, 1, 0, 1]));
        assert_eq!(facts("status"), expected("label", "pg_catalog.\"varchar\"", None, [1, 1, 0, 1]));
        assert_eq!(facts("name"), expected("ext.citext", "\"ext\".\"citext\"", own("ext"), [1, 1, 0, 0]));
        let placed = expected("timestamp with time zone", "pg_catalog.\"timestamptz\"", None, [0, 1, 1, 1]);
        assert_eq!(facts("placed"), placed);
        assert_eq!(facts("day").3, [1, 1, 1, 0], "{version}: another column leads its index");
        assert_eq!(facts("total").3, [1, 1, 0, 0], "{version}: its index is partial");
        assert_eq!(facts("place").3, [1, 0, 0, 0], "{version}: points have no order");
        assert_eq!(found.expressions[0].scope.sql.as_deref(), Some("date_trunc('month', placed)"));
        assert!(found.expressions[0].dates && !found.expressions[0].leads_index);

        // A scope made of the description means what psql means by it.
        let name = found.columns.iter().find(|column| column.scope.name == "name").unwrap();
        let status = found.columns.iter().find(|column| column.scope.name == "status").unwrap();
        for (column, value, written) in [(name, "nAME3", "name = 'nAME3'"), (status, "paid", "status = 'paid'")] {
            let condition = ScopeCondition { column: column.scope.clone(), test: ScopeTest::Equal(value.to_owned()) };
            let scope = RowScope { conditions: vec![condition], tenant: None };
            let predicate = source.predicate(&scope).unwrap().unwrap();
            let count = async |filter: &str| pg.value(&format!("select count(*) from orders where {filter}")).await;
            pg.batch("set search_path = public, ext").await;
            assert_eq!(count(&predicate).await, count(written).await, "{version} {predicate}");
            assert_ne!(count(written).await, "0");
        }

        for (relation, key, names, unique) in [
            (("table", "recent"), Some("placed"), &["placed"][..], false),
            (("query", "select * from recent"), Some("number"), &["number"], false),
        ] {
            let found = source.describe(asked(&pg, relation, key)).unwrap().await.unwrap();
            assert_eq!(
                (found.key.as_slice(), found.key_unique),
                (&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..], unique)
            );
            let leading: Vec<&str> = found
                .columns
                .iter()
                .filter(|column| column.leads_index)
                .map(|column| column.scope.name.as_str())
                .collect();
            assert_eq!(leading, ["number", "placed"], "{version} {relation:?}");
        }
        let keyless = source.describe(asked(&pg, ("table", "recent"), None)).unwrap().await.unwrap();
        assert!(keyless.key.is_empty() && keyless.refused.is_some(), "{keyless:?}");
        let sampled = asked(&pg, ("query", "select * from orders order by total limit 10"), Some("id"));
        assert!(source.describe(sampled).unwrap().await.unwrap().refused.is_some());
    }
}

#[tokio::test]
async fn rows_are_counted_no_further_and_no_longer_than_asked() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(ORDERS).await;
        let source = request(&pg, ("table", "orders"), 10).source;
        let count = async |predicate: &str, up_to: u64| {
            let mut request = asked(&pg, ("table", "orders"), None);
            request.shape.predicate = Some(predicate.to_owned());
            request.served.statement_timeout = Duration::from_secs(1);
            source.estimate(request, NonZeroU64::new(up_to).unwrap()).unwrap().await.unwrap()
        };
        assert_eq!(count("id <= 100", 100).await, CountedRows::Exact(100));
        assert_eq!(count("id <= 101", 100).await, CountedRows::AtLeast(101));
        assert_eq!(count("false", 100).await, CountedRows::Exact(0));
        let slow = "(select count(*) from generate_series(1, 300000000) as g where g + id > 0) > 0";
        assert!(matches!(count(slow, 100).await, CountedRows::Estimate(1..=1_000)), "{version}");
    }
}

/// What psql prints for the same, row by row.
async fn theirs(pg: &Pg, sql: &str) -> Vec<Vec<Option<String>>> {
    pg.batch("set timezone = 'UTC'").await;
    pg.sql(sql).await
}

fn ours(buckets: &[AggregateBucket]) -> Vec<Vec<Option<String>>> {
    let row = |bucket: &AggregateBucket| {
        let dimensions = bucket.dimensions.iter().map(|value| value.text.clone());
        let null = |json: &String| (json != "null").then(|| json.clone());
        dimensions.chain(bucket.measures.iter().map(null)).collect()
    };
    buckets.iter().map(row).collect()
}

#[tokio::test]
async fn groups_are_those_of_sql_and_lead_back_to_their_rows() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(ORDERS).await;
        let source = request(&pg, ("table", "orders"), 10).source;
        let described = source.describe(asked(&pg, ("table", "orders"), None)).unwrap().await.unwrap();
        let column = |name: &str| -> ScopeColumn {
            described.columns.iter().find(|column| column.scope.name == name).unwrap().scope.clone()
        };
        let by = |name: &str, bucket| Dimension { column: column(name), bucket };
        let total = || column("total");
        let request = |dimensions, max_buckets| AggregateRequest {
            of: asked(&pg, ("table", "orders"), None),
            dimensions,
            measures: vec![
                Measure::Count,
                Measure::Sum(total()),
                Measure::Avg(total()),
                Measure::Min(total()),
                Measure::Max(column("id")),
            ],
            max_buckets: NonZeroU64::new(max_buckets).unwrap(),
            max_bytes: 1 << 20,
        };
        let measures = "count(*), sum(total), avg(total), min(total), max(id)";
        for (dimensions, grouped) in [
            (vec![by("status", None)], "status"),
            (vec![by("placed", Some(BucketUnit::Month)), by("status", None)], "date_trunc('month', placed), status"),
            (vec![by("day", Some(BucketUnit::Week))], "date_trunc('week', day::timestamp)::date"),
        ] {
            let found = source.aggregate(request(dimensions.clone(), 1_000)).unwrap().await.unwrap();
            let sql = format!("select {grouped}, {measures} from orders group by {grouped} order by {grouped}");
            assert_eq!(ours(&found.buckets), theirs(&pg, &sql).await, "{version} {grouped}");
            assert!(!found.truncated);
            // Each group's own rows are as many as it says.
            for bucket in &found.buckets {
                let conditions = dimensions.iter().zip(&bucket.dimensions).map(|(dimension, value)| ScopeCondition {
                    column: dimension.column.clone(),
                    test: match (&value.text, dimension.bucket) {
                        (None, _) => ScopeTest::IsNull,
                        (Some(text), Some(unit)) => ScopeTest::Bucket { unit, start: text.clone() },
                        (Some(text), None) => ScopeTest::Equal(text.clone()),
                    },
                });
                let scope = RowScope { conditions: conditions.collect(), tenant: None };
                let predicate = source.predicate(&scope).unwrap().unwrap();
                let rows = pg.value(&format!("select count(*) from orders where {predicate}")).await;
                assert_eq!(rows, bucket.measures[0], "{version} {predicate}");
            }
        }
        let cut = source.aggregate(request(vec![by("status", None)], 2)).unwrap().await.unwrap();
        assert_eq!((cut.buckets.len(), cut.truncated), (2, true));
        assert_eq!(cut.buckets[0].dimensions[0].json, "\"new\"");
        let mut all = request(Vec::new(), 1);
        all.of.shape.predicate = Some("id <= 10".into());
        all.of.shape.relation = RelationRequest::Query("select * from orders".into());
        let all = source.aggregate(all).unwrap().await.unwrap();
        let sql = format!("select {measures} from orders where id <= 10");
        assert_eq!((ours(&all.buckets), all.truncated), (theirs(&pg, &sql).await, false));
    }
}
