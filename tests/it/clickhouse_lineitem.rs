//! TPC-H lineitem out of our own Parquet into ClickHouse, and out again in every format: equal to what the server adds up itself,
//! and to what DuckDB reads. `OUTHAUL_TEST_LINEITEM_SCALE` says at which scale factor; 0.1 is 600,572 rows.

use std::time::Duration;

use serde_json::{Value, json};

use super::clickhouse_typed::found;
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::job::parts;
use crate::support::manifest;
use crate::support::pg::lineitem_at;
use crate::support::run::outhaul;

const LIMIT: Duration = Duration::from_mins(20);

pub(crate) const TABLE: &str = "CREATE TABLE lineitem (id Int64, l_orderkey Int64, l_partkey Int32, l_suppkey Int32, l_linenumber Int32, \
    l_quantity Decimal(15, 2), l_extendedprice Decimal(15, 2), l_discount Decimal(15, 2), l_tax Decimal(15, 2), \
    l_returnflag LowCardinality(String), l_linestatus FixedString(1), l_shipdate Date, l_commitdate Date, l_receiptdate Date, \
    l_shipinstruct LowCardinality(String), l_shipmode String, l_comment String) \
    ENGINE = MergeTree PARTITION BY toYear(l_shipdate) ORDER BY (l_orderkey, l_linenumber)";

pub(crate) const SUMS: &str = "SELECT count(*), count(DISTINCT id), sum(id::BIGINT)::VARCHAR, \
    sum(l_orderkey::HUGEINT * l_linenumber::INT)::VARCHAR, sum(l_partkey::HUGEINT * l_suppkey::HUGEINT)::VARCHAR, \
    (sum(l_quantity::DECIMAL(15, 2)) * 100)::HUGEINT::VARCHAR, (sum(l_extendedprice::DECIMAL(15, 2)) * 100)::HUGEINT::VARCHAR, \
    (sum(l_discount::DECIMAL(15, 2)) * 100)::HUGEINT::VARCHAR, (sum(l_tax::DECIMAL(15, 2)) * 100)::HUGEINT::VARCHAR, \
    min(l_shipdate::DATE)::VARCHAR, max(l_receiptdate::DATE)::VARCHAR, sum(datediff('day', l_commitdate::DATE, l_receiptdate::DATE))::VARCHAR, \
    sum(length(l_comment))::VARCHAR, sum(length(l_shipinstruct || l_shipmode))::VARCHAR, \
    count(*) FILTER (l_returnflag = 'R' AND l_linestatus = 'F') FROM DATA";

pub(crate) async fn own_sums(server: &ClickHouse) -> Value {
    let sql = "SELECT count(), uniqExact(id), toString(sum(id)), toString(sum(toInt128(l_orderkey) * l_linenumber)), \
        toString(sum(toInt128(l_partkey) * l_suppkey)), toString(toInt128(sum(l_quantity) * 100)), \
        toString(toInt128(sum(l_extendedprice) * 100)), toString(toInt128(sum(l_discount) * 100)), \
        toString(toInt128(sum(l_tax) * 100)), toString(min(l_shipdate)), toString(max(l_receiptdate)), \
        toString(sum(dateDiff('day', l_commitdate, l_receiptdate))), toString(sum(lengthUTF8(l_comment))), \
        toString(sum(lengthUTF8(concat(l_shipinstruct, l_shipmode)))), countIf(l_returnflag = 'R' AND l_linestatus = 'F') \
        FROM lineitem FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0";
    json!([serde_json::from_str::<Value>(&server.run(sql).await).unwrap()])
}

/// Each row as one number, so that a value in another row than its own is seen.
const ROWS: &str = "SELECT sum(hash(concat_ws('|', id::BIGINT, l_orderkey::BIGINT, l_partkey::BIGINT, l_suppkey::BIGINT, \
    l_linenumber::INT, l_quantity::DECIMAL(15, 2), l_extendedprice::DECIMAL(15, 2), l_discount::DECIMAL(15, 2), \
    l_tax::DECIMAL(15, 2), l_returnflag, l_linestatus, l_shipdate::DATE, l_commitdate::DATE, l_receiptdate::DATE, \
    l_shipinstruct, l_shipmode, coalesce(l_comment, '')))::HUGEINT)::VARCHAR FROM DATA";

const FORMATS: [&str; 3] = ["parquet", "csv", "ndjson"];
const READERS: [&str; 3] = ["1", "2", "8"];

#[tokio::test]
async fn lineitem_goes_in_by_our_parquet_and_leaves_exactly_with_any_number_of_readers() {
    let scale = std::env::var("OUTHAUL_TEST_LINEITEM_SCALE").unwrap_or_else(|_| "0.1".to_owned());
    let pg = lineitem_at(18, &scale).await;
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours");
    let first = ["export", "lineitem", "--from", &pg.url, "--to", ours.to_str().unwrap(), "--format", "parquet"];
    outhaul(first).limit(LIMIT).run().await.expect(0);
    let server = clickhouse().await;
    server.run(TABLE).await;
    for part in parts(&manifest(&ours)) {
        server.load("lineitem", "Parquet", &std::fs::read(ours.join(part["path"].as_str().unwrap())).unwrap()).await;
    }
    let expected = own_sums(&server).await;
    assert_eq!(found(&ours, SUMS).await, expected, "what was loaded");
    // One reader of the files for both.
    let all = format!("SELECT * FROM ({SUMS}), ({ROWS})");
    let rows = found(&ours, ROWS).await[0][0].clone();
    let mut whole = expected[0].clone();
    whole.as_array_mut().unwrap().push(rows);
    let whole = json!([whole]);
    for (format, readers) in FORMATS.into_iter().flat_map(|format| READERS.map(|readers| (format, readers))) {
        let to = folder.path().join(format!("{format}-{readers}"));
        let arguments = [
            "--table",
            "lineitem",
            "--format",
            format,
            "--readers",
            readers,
            "--partitions",
            "11",
            "--to",
            to.to_str().unwrap(),
        ];
        server.export(&arguments).limit(LIMIT).run().await.expect(0);
        assert_eq!(found(&to, &all).await, whole, "{format} {readers}");
        let manifest = manifest(&to);
        assert_eq!(
            (&manifest["totals"]["rows"], &manifest["consistency"]["mode"]),
            (&expected[0][0], &json!("part_set"))
        );
    }
    // Every row of the one is in the other, as often.
    let both =
        format!("SELECT count(*) FROM (FROM DATA EXCEPT ALL FROM read_parquet('{}/data/*.parquet'))", ours.display());
    assert_eq!(found(&folder.path().join("parquet-8"), &both).await, json!([[0]]));
}
