//! An independent judgement of a finished export: `oracle.py` reads the destination, PostgreSQL reads the query, and
//! both come down to a row count and an order-independent hash over all rows and columns.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::Client;

use super::pg::{Pg, rows};
use super::s3::S3;
use super::{variable, within};

/// Six million rows take 15 to 25 seconds, several times that beside other tests.
const LIMIT: Duration = Duration::from_mins(4);

/// What a destination or a query holds. Equal contents give equal values; the order of rows does not matter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The columns in order.
    pub columns: Vec<String>,
    /// Rows.
    pub rows: u64,
    /// The sums modulo 2^64 of the two halves of the MD5 of every row's text.
    pub hash: [u64; 2],
}

/// The contents of a local destination, after checking that its files are exactly those its manifest names, with its
/// sizes, counts and checksums. `options` are those of `oracle.py`.
pub(crate) async fn local(dest: &Path, options: &[&str]) -> Contents {
    judged(&ask(dest.to_str().unwrap(), options).await)
}

/// The contents of a destination on S3, checked in the same way.
pub(crate) async fn on_s3(s3: &S3, path: &str, options: &[&str]) -> Contents {
    judged(&ask(&s3.url(path), options).await)
}

/// What `oracle.py` finds wrong with a local destination.
pub(crate) async fn problems(dest: &Path, options: &[&str]) -> Vec<String> {
    let answer = ask(dest.to_str().unwrap(), options).await;
    serde_json::from_value(answer["problems"].clone()).unwrap()
}

/// The contents of a query.
pub(crate) async fn query(pg: &Pg, sql: &str) -> Contents {
    query_in(&pg.connect().await, sql).await
}

/// The contents of a query in a given session, whose transaction may have taken a snapshot.
pub(crate) async fn query_in(client: &Client, sql: &str) -> Contents {
    let settings = "set datestyle = iso; set intervalstyle = postgres; set timezone = 'UTC';
        set extra_float_digits = 1; set bytea_output = hex";
    client.batch_execute(settings).await.unwrap();
    let columns = client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let columns = columns.columns().iter().map(|column| column.name().to_owned()).collect();
    let half = |side| format!("coalesce(sum(('x' || {side}(digest, 16))::bit(64)::bigint), 0)");
    let hash = format!(
        "select count(*), {}, {} from (select md5(contents::text) as digest from ({sql}) as contents) as digests",
        half("left"),
        half("right")
    );
    let answer = within(LIMIT, "PostgreSQL's hash", rows(client, &hash)).await;
    let number = |column: usize| answer[0][column].as_deref().unwrap().parse::<i128>().unwrap();
    let wrapped = |column| u64::try_from(number(column).rem_euclid(1 << 64)).unwrap();
    Contents { columns, rows: wrapped(0), hash: [wrapped(1), wrapped(2)] }
}

async fn ask(dest: &str, options: &[&str]) -> serde_json::Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/oracle.py");
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.arg(script).arg(dest).args(options).kill_on_drop(true);
    let output = within(LIMIT, "oracle.py", python.output()).await.unwrap();
    assert!(output.status.success(), "oracle.py {dest}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn judged(answer: &serde_json::Value) -> Contents {
    let problems = answer["problems"].as_array().unwrap();
    assert!(problems.is_empty(), "the destination is not what its manifest says: {problems:#?}");
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse().unwrap();
    Contents {
        columns: serde_json::from_value(answer["columns"].clone()).unwrap(),
        rows: answer["rows"].as_u64().unwrap(),
        hash: [number(&answer["hash"][0]), number(&answer["hash"][1])],
    }
}
