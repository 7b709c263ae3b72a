//! `outhaul serve`: counts, sums, estimates, and the rows of a bucket.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::service::{BodyEnd, Service, digest, key};

async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, customer_id text not null, status text, amount numeric(20,2) not null,
            created_at timestamptz not null);
        insert into orders select i, 'acme', case i % 3 when 0 then 'new' when 1 then 'it''s \"paid\"' end, i,
            timestamptz '2026-01-01 00:00:00+00' + i * interval '6 hours' from generate_series(1, 300) i;
        insert into orders select 1000 + i, 'canary-tenant', 'canary-status', 12345678901234567.25, now() from generate_series(1, 50) i;
        analyze",
    )
    .await;
    pg
}

fn service(pg: &Pg) -> String {
    let drill = digest("drill");
    format!(
        "bucket_key_ttl = \"2s\"
{}{}
[[key]]
name = \"drill\"
sha256 = \"{drill}\"
tenant = \"acme\"
tier = \"team\"
datasets = [\"orders\"]
[source.shop]
from = \"{}\"
[tier.tiny]
max_rows = 10
[dataset.orders]
table = \"orders\"
tenant = \"customer_id = {{tenant}}\"
date_column = \"created_at\"
grants = {{ query = [\"pro\", \"tiny\"] }}
[dataset.orders.columns]
id = {{}}
status = {{}}
amount = {{}}
created_at = {{}}
[dataset.orders.analysis.by_status]
dimensions = [\"status\"]
measures = [\"count\", \"sum(amount)\", \"max(amount)\"]
[dataset.orders.analysis.by_month]
bucket = \"month\"
measures = [\"count\"]
max_buckets = 2
grants = [\"pro\", \"team\"]
",
        key("acme-key", "acme", "pro"),
        key("tiny-key", "acme", "tiny"),
        pg.url
    )
}

#[tokio::test]
async fn buckets_are_of_the_tenant_and_open_their_rows() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    let analyze = async |key: &str, name: &str, body: &str| {
        service.post(key, &format!("/v1/analyze/orders/{name}"), body, "").await
    };
    let answer = analyze("acme-key", "by_status", r#"{"where":[{"column":"id","op":"<=","value":150}]}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("canary"), "{}", answer.text());
    let found = answer.json();
    let buckets = found["buckets"].as_array().unwrap();
    assert_eq!((buckets.len(), &found["truncated"]), (3, &json!(false)));
    let rows = async |key: &str, name: &str, bucket: &Value| {
        let body = json!({"bucket_key": bucket["bucket_key"], "columns": ["id", "status"]}).to_string();
        service.post(key, &format!("/v1/analyze/orders/{name}/rows/export"), &body, "").await
    };
    for bucket in buckets {
        let status = &bucket["dimensions"]["status"];
        let condition = status
            .as_str()
            .map_or("status is null".to_owned(), |text| format!("status = '{}'", text.replace('\'', "''")));
        let query = format!(
            "select count(*), sum(amount), max(amount) from orders where customer_id = 'acme' and id <= 150 and {condition}"
        );
        let expected: Vec<f64> =
            pg.sql(&query).await[0].iter().map(|value| value.clone().unwrap().parse().unwrap()).collect();
        let measures =
            [&bucket["measures"]["count"], &bucket["measures"]["sum_amount"], &bucket["measures"]["max_amount"]];
        assert_eq!(measures.map(|value| value.as_f64().unwrap()).to_vec(), expected, "{bucket}");
        let drilled = rows("acme-key", "by_status", bucket).await;
        assert_eq!((drilled.status, drilled.end), (200, BodyEnd::Whole), "{}", drilled.text());
        assert_eq!(
            drilled.text().lines().count().to_string(),
            expected[0].to_string(),
            "the filter of the question is in the key"
        );
        assert!(drilled.text().lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["status"] == *status));
    }
    // Drilling is no right to query, and the other way round.
    assert_eq!(rows("drill", "by_status", &buckets[0]).await.status, 200);
    service.export("drill", "orders", r#"{"columns":["id"]}"#).await.problem(403, "forbidden");
    analyze("tiny-key", "by_month", "{}").await.problem(403, "forbidden");
    // Months, of which two are shown.
    let months = analyze("drill", "by_month", "").await.json();
    assert_eq!((months["buckets"].as_array().unwrap().len(), &months["truncated"]), (2, &json!(true)), "{months}");
    let first = &months["buckets"][0];
    let january =
        pg.value("select count(*) from orders where customer_id = 'acme' and created_at < '2026-02-01Z'").await;
    assert_eq!(first["measures"]["count"].to_string(), january, "{months}");
    assert_eq!(rows("drill", "by_month", first).await.text().lines().count().to_string(), january);
    // A key of one analysis, of nobody, and of yesterday opens nothing.
    rows("drill", "by_month", &buckets[0]).await.problem(400, "bucket_key_invalid");
    rows("drill", "by_status", &json!({"bucket_key": "e30.AAAA"})).await.problem(400, "bucket_key_invalid");
    let body = r#"{"columns":["id"]}"#;
    service
        .post("drill", "/v1/analyze/orders/by_status/rows/export", body, "")
        .await
        .problem(400, "bucket_key_required");
    analyze("drill", "nothing", "{}").await.problem(404, "analysis_not_found");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    rows("acme-key", "by_status", &buckets[0]).await.problem(400, "bucket_key_invalid");
    service.stop().await;
}

#[tokio::test]
async fn a_bucket_key_is_for_its_tenant_alone() {
    let pg = orders().await;
    let text = service(&pg) + &key("canary-key", "canary-tenant", "pro");
    let service = Service::start(&text).await;
    let found = service.post("canary-key", "/v1/analyze/orders/by_status", "{}", "").await.json();
    // All digits of a large number are there.
    assert!(found.to_string().contains("canary-status"), "{found}");
    assert_eq!(found["buckets"].as_array().unwrap().len(), 1);
    let body = json!({"bucket_key": found["buckets"][0]["bucket_key"], "columns": ["id"]}).to_string();
    let path = "/v1/analyze/orders/by_status/rows/export";
    service.post("acme-key", path, &body, "").await.problem(400, "bucket_key_invalid");
    assert_eq!(service.post("canary-key", path, &body, "").await.text().lines().count(), 50);
    service.stop().await;
}

#[tokio::test]
async fn an_estimate_counts_what_the_stream_would_send() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    let estimate = async |key: &str, body: &str| service.post(key, "/v1/query/orders/estimate", body, "").await;
    let body = r#"{"columns":["id"],"where":[{"column":"id","op":">","value":100}]}"#;
    let exact =
        json!({"rows": 200, "kind": "exact", "max_rows": 100_000, "will_truncate": false, "estimated_minutes": 1});
    assert_eq!(estimate("acme-key", body).await.json(), exact);
    let capped = estimate("tiny-key", body).await.json();
    assert_eq!((&capped["will_truncate"], &capped["max_rows"]), (&json!(true), &json!(10)), "{capped}");
    assert!(capped["rows"].as_u64().unwrap() <= 300, "nothing of another tenant: {capped}");
    estimate("drill", body).await.problem(403, "forbidden");
    estimate("acme-key", r#"{"columns":["secret"]}"#).await.problem(400, "invalid_request");
    service.stop().await;
}

/// What statistics say is of the whole table.
#[tokio::test]
async fn i13_a_count_that_is_cancelled_tells_a_tenant_nothing_of_everybody_s_rows() {
    let pg = orders().await;
    pg.batch(
        "create function slowly(bigint) returns bigint language sql immutable
            as 'select $1 from pg_catalog.pg_sleep(0.1)'; analyze",
    )
    .await;
    let slow = "slow = { expr = \"public.slowly(id)\" }\n";
    let own = service(&pg).replacen("amount = {}\n", &format!("amount = {{}}\n{slow}"), 1);
    let everybody = format!("{own}[dataset.all]\ntable = \"orders\"\n[dataset.all.columns]\nid = {{}}\n{slow}");
    let service = Service::start(&everybody).await;
    let body = r#"{"columns":["id"],"where":[{"column":"slow","op":">","value":0}]}"#;
    let cancelled = async |path: &str| {
        let cancel = async {
            let cancel = "select count(pg_cancel_backend(pid)) from pg_stat_activity where datname = current_database()
                and state = 'active' and query like 'SELECT pg_catalog.count(*)%'";
            let ended = async || (pg.value(cancel).await != "0").then_some(());
            eventually(Duration::from_secs(20), "the count", ended).await;
        };
        tokio::join!(service.post("acme-key", path, body, ""), cancel).0
    };
    let everybodys = cancelled("/v1/query/all/estimate").await.json();
    assert_eq!(everybodys["kind"], "estimate", "{everybodys}");
    cancelled("/v1/query/orders/estimate").await.problem(502, "source_busy");
    service.stop().await;
}
