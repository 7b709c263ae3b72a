//! The text of every type, made here from its binary form, against what the server's own output functions write.

mod values;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::SinkExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::support::job::{copy, export, export_csv};
use crate::support::oracle;
use crate::support::pg::{Pg, both, pg};
use values::TYPES;

const RANDOM_ROWS: i32 = 4_000;

#[tokio::test]
async fn every_value_of_every_type_is_the_servers_text() {
    for version in both() {
        let pg = texts(version).await;
        let done = export_csv(&pg, &["--table", "texts"], 0).await;
        let (found, expected) = (done.data(), copy(&pg, "select * from texts").await);
        if found == expected {
            continue;
        }
        // Which value is it?
        let (found, expected) = (values(&found), values(&expected));
        for (id, expected) in &expected {
            for ((of, expected), found) in TYPES.iter().zip(expected).zip(&found[id]) {
                assert_eq!(found, expected, "PostgreSQL {version}, row {id}, {}", of.name);
            }
        }
        panic!("PostgreSQL {version}: the values are the same, but not their quotes or their order");
    }
}

/// What has a type of its own in text formats becomes text in Parquet where that is asked for.
#[tokio::test]
async fn text_in_parquet_is_the_servers_too() {
    for version in both() {
        let pg = texts(version).await;
        let columns: Vec<usize> = (0..TYPES.len()).collect();
        let name = |column: &usize| format!("c{column}");
        let all = columns.iter().map(name).collect::<Vec<_>>().join(",");
        let policies: Vec<String> = columns.iter().map(|column| format!("{}=text", name(column))).collect();
        let mut args = vec!["--table", "texts", "--columns", &all];
        args.extend(policies.iter().flat_map(|policy| ["--column-policy", policy]));
        let done = export(&pg, &args).await.expect(0);
        let text =
            |column| format!("case when {0} is distinct from null then format('%s', {0}) end as {0}", name(column));
        let select = columns.iter().map(text).collect::<Vec<_>>().join(", ");
        let expected = oracle::query(&pg, &format!("select {select} from texts")).await;
        assert_eq!(oracle::local(&done.dest(), &[]).await, expected, "PostgreSQL {version}");
    }
}

/// A table `texts` of one column `c0`, `c1`, … for each type: the edges, then random values.
#[expect(clippy::print_stdout, reason = "shown where the test fails")]
async fn texts(version: u32) -> Pg {
    let seed: u64 = std::env::var("OUTHAUL_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("PostgreSQL {version}: OUTHAUL_TEST_SEED={seed}");
    let pg = pg(version).await;
    let columns: Vec<String> = TYPES.iter().enumerate().map(|(at, of)| format!("c{at} {}", of.name)).collect();
    let literal = |of: &values::Type, row: usize| {
        of.edges.get(row).map_or_else(|| "null".to_owned(), |edge| format!("'{}'", edge.replace('\'', "''")))
    };
    let edges = TYPES.iter().map(|of| of.edges.len()).max().unwrap();
    let rows: Vec<String> = (0..edges)
        .map(|row| {
            let values: Vec<String> = TYPES.iter().map(|of| literal(of, row)).collect();
            format!("insert into texts values ({row}, {});", values.join(", "))
        })
        .collect();
    pg.batch(&format!("create table texts (id int, {}); {}", columns.join(", "), rows.concat())).await;
    if version >= 17 {
        let at = TYPES.iter().position(|of| of.name == "interval").unwrap();
        pg.batch(&format!("insert into texts (id, c{at}) values (-1, 'infinity'), (-2, '-infinity')")).await;
    }
    let first = i32::try_from(edges).unwrap();
    let payload = values::payload(&mut StdRng::seed_from_u64(seed), first, RANDOM_ROWS);
    let client = pg.connect().await;
    let sink = client.copy_in("copy texts from stdin (format binary)").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(payload)).await.unwrap();
    sink.finish().await.unwrap();
    pg
}

/// The values of CSV by the number in its first column.
fn values(csv: &[u8]) -> BTreeMap<i32, Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    let row = |record: csv::StringRecord| {
        let mut values = record.iter().map(str::to_owned);
        (values.next().unwrap().parse().unwrap(), values.collect())
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}
