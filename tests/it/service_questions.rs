//! `outhaul serve`: a question means the same rows whatever its dataset has become meanwhile, and whatever words, digits and
//! lengths its values have.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::service::{Answer, BodyEnd, Service, key};

const COUNT: &str = "[dataset.t.analysis.NAME]\ndimensions = [\"NAME\"]\nmeasures = [\"count\"]\n";

/// A dataset `t` of the table `t`, without a tenant.
fn service(pg: &Pg, more: &str, columns: &[&str], analyses: &[&str]) -> String {
    let columns: String = columns
        .iter()
        .map(|column| if column.contains('=') { format!("{column}\n") } else { format!("{column} = {{}}\n") })
        .collect();
    let analyses: String = analyses.iter().map(|name| COUNT.replace("NAME", name)).collect();
    format!(
        "{}[source.shop]\nfrom = \"{}\"\n[dataset.t]\ntable = \"t\"\n{more}[dataset.t.columns]\n{columns}{analyses}",
        key("k", "acme", "pro"),
        pg.url
    )
}

async fn export(service: &Service, body: &Value) -> Answer {
    service.export("k", "t", &body.to_string()).await
}

async fn ids(service: &Service, body: Value) -> Vec<u64> {
    let answer = export(service, &body).await;
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap()).collect()
}

fn equal(column: &str, value: &str) -> Value {
    json!({"columns": ["id"], "where": [{"column": column, "op": "=", "value": value}], "allow_empty": true})
}

async fn analyze(service: &Service, name: &str) -> Answer {
    service.post("k", &format!("/v1/analyze/t/{name}"), "", "").await
}

/// The rows of a bucket.
async fn opened(service: &Service, name: &str, bucket: &Value) -> Answer {
    let body = json!({"bucket_key": bucket["bucket_key"], "columns": ["id"]}).to_string();
    service.post("k", &format!("/v1/analyze/t/{name}/rows/export"), &body, "").await
}

/// The server's own casts leave out what a type has no place for.
#[tokio::test]
async fn no_part_of_a_date_or_a_time_is_left_out() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id bigint primary key, d date, ts timestamp, tm time, tz timetz);
        insert into t values (1, '2024-01-02', '2024-01-31 12:00:00', '12:00:00', '12:00:00+05'),
            (2, '2024-01-01', '2024-02-01 00:00:00', '07:00:00', '12:00:00+00'), (3, 'infinity', '-infinity', '24:00', null),
            (4, '0044-03-15 BC', '0044-03-15 12:00:00 BC', null, null)",
    )
    .await;
    let names = ["d", "ts", "tm", "tz"];
    let service = Service::start(&service(&pg, "", &["id", "d", "ts", "tm", "tz"], &names)).await;
    for (column, value, expected) in [
        ("d", "2024-01-02", Some(&[1][..])),
        ("d", "2024-01-02T12:00:00Z", None),
        ("d", "2024-01-02 00:00", None),
        ("ts", "2024-02-01T00:00:00+12:00", Some(&[1])),
        ("ts", "2024-02-01T00:00:00", Some(&[2])),
        ("ts", "2024-02-01", Some(&[2])),
        ("tm", "12:00:00", Some(&[1])),
        ("tm", "12:00:00+05", None),
        ("tm", "2024-01-01 12:00:00", None),
        ("tz", "12:00:00+05", Some(&[1])),
        ("tz", "2024-01-01 12:00:00+05", None),
    ] {
        let answer = export(&service, &equal(column, value)).await;
        match expected {
            Some(expected) => {
                assert_eq!(answer.status, 200, "{column} {value}: {}", answer.text());
                assert_eq!(ids(&service, equal(column, value)).await, expected, "{column} {value}");
            }
            None => drop(answer.problem(400, "invalid_request")),
        }
    }
    // What the server prints itself leads back to its row.
    for name in names {
        for bucket in analyze(&service, name).await.json()["buckets"].as_array().unwrap() {
            let rows = opened(&service, name, bucket).await;
            assert_eq!((rows.status, rows.end), (200, BodyEnd::Whole), "{bucket}: {}", rows.text());
            assert_eq!(json!(rows.text().lines().count()), bucket["measures"]["count"], "{bucket}");
        }
    }
    service.stop().await;
}
