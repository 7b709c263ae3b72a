//! `outhaul serve` over a ClickHouse server: what a dataset of PostgreSQL answers, one of ClickHouse answers too.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::service_matrix::all_answers;
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::eventually;
use crate::support::run::Outhaul;
use crate::support::service::{BodyEnd, Service, digest, key, request, written};

const LIMIT: Duration = Duration::from_secs(30);

const ROWS: usize = 12_000;

async fn orders() -> ClickHouse {
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE orders (id UInt64, tenant LowCardinality(String), note Nullable(String), amount Decimal(12, 2), \
             status Enum8('new' = 1, 'it''s \"paid\"' = 2), tags Array(String), secret String, created_at DateTime64(3)) \
             ENGINE MergeTree ORDER BY (tenant, id)",
        )
        .await;
    server
        .run(&format!(
            "INSERT INTO orders SELECT number + 1, 'acme', concat('note ', toString(number + 1)), number / 4, \
             if(number % 3 = 0, 'new', 'it''s \"paid\"'), ['a', 'b'], 'canary-column', \
             toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalMinute(number * 10) FROM numbers({ROWS})"
        ))
        .await;
    // Some rows twice, and in several parts: no key is of one row here.
    server.run("INSERT INTO orders SELECT * FROM orders WHERE id <= 5").await;
    server
        .run(
            "INSERT INTO orders SELECT 100000 + number, 'canary-tenant', 'canary-note', 7, 'new', [], 'canary-column', \
             now64() FROM numbers(500)",
        )
        .await;
    server
}

fn config(server: &ClickHouse) -> String {
    let trusted = digest("backend");
    format!(
        "{}{}{}{}
[[key]]
name = \"backend\"
sha256 = \"{trusted}\"
datasets = [\"*\"]
may_assert = true
[source.warehouse]
from = \"{}\"
[tier.small]
max_rows = 100
[dataset.orders]
source = \"warehouse\"
table = \"orders\"
key = \"id\"
tenant = \"tenant = {{tenant}}\"
date_column = \"created_at\"
[dataset.orders.columns]
id = {{ sort = true, label = \"Number\" }}
tenant = {{}}
note = {{}}
amount = {{ sort = true }}
status = {{}}
tags = {{ filter = false }}
created_at = {{}}
gross = {{ expr = \"amount * 2\" }}
[dataset.orders.analysis.by_note]
dimensions = [\"note\"]
measures = [\"count\", \"min(tenant)\"]
[dataset.orders.analysis.by_status]
dimensions = [\"status\"]
measures = [\"count\", \"sum(amount)\", \"max(created_at)\", \"avg(amount)\"]
[dataset.orders.analysis.by_month]
bucket = \"month\"
measures = [\"count\"]
max_buckets = 2
[dataset.plain]
source = \"warehouse\"
query = \"SELECT number AS id, 'acme' AS tenant, toString(number) AS note FROM numbers(20000)\"
tenant = \"tenant = {{tenant}}\"
[dataset.plain.columns]
id = {{}}
note = {{}}
bulk = {{ expr = \"arrayStringConcat(arrayMap(i -> hex(sipHash128(id, i)), range(30)))\", filter = false }}
slow = {{ expr = \"sleepEachRow(0.001)\", filter = false }}
failing = {{ expr = \"throwIf(id = 11000, 'canary of a database')\", filter = false }}
wide = {{ expr = \"repeat(note, if(id = 11000, 900000, 1))\", filter = false }}
",
        key("acme-key", "acme", "enterprise"),
        key("small-key", "acme", "small"),
        key("nobody", "nobody", "enterprise"),
        key("canary-key", "canary-tenant", "enterprise"),
        server.url("writer"),
    )
}

async fn started(server: &ClickHouse, text: &str) -> Service {
    let password = server.password.clone();
    Service::with(text, |command| command.env("CLICKHOUSE_PASSWORD", &password)).await
}

fn checked(server: &ClickHouse, text: &str) -> (tempfile::TempDir, Outhaul) {
    let (folder, command) = written(text, &["--check"]);
    (folder, command.env("CLICKHOUSE_PASSWORD", &server.password))
}

/// The lines of an answer that is whole.
#[track_caller]
fn lines(answer: &crate::support::service::Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn filters_days_order_and_caps_are_those_of_the_question() {
    let server = orders().await;
    let service = started(&server, &config(&server)).await;
    let all = service.export("acme-key", "orders", r#"{"columns":["id","note"]}"#).await;
    let receipt = service.receipt("acme-key", &all).await;
    assert_eq!((&receipt["status"], &receipt["rows"]), (&json!("complete"), &json!(ROWS + 5)), "{receipt}");
    assert!(receipt["notes"].to_string().contains("one statement"), "{receipt}");
    let found = ids(&lines(&all));
    assert!(found.len() == ROWS + 5 && found.is_sorted(), "the order is not that of the key");
    assert_eq!(&found[..4], [1, 1, 2, 2], "rows that share a key are all there");
    for (conditions, sql) in [
        (json!({"where": [{"column": "id", "op": "between", "values": [10, 19]}]}), "id BETWEEN 10 AND 19"),
        (json!({"where": [{"column": "status", "op": "=", "value": "it's \"paid\""}]}), "status = 'it\\'s \"paid\"'"),
        (json!({"where": [{"column": "note", "op": "like", "value": "note 11_\\0%"}]}), "note LIKE 'note 11_0%'"),
        (json!({"where": [{"column": "gross", "op": ">", "value": 5990.5}]}), "amount * 2 > toDecimal64('5990.5', 2)"),
        (json!({"where": [{"column": "amount", "op": "in", "values": [0.25, 0.50, "7"]}]}), "amount IN (0.25, 0.5, 7)"),
        (
            json!({"date_range": {"from": "2026-01-31", "to": "2026-02-01"}}),
            "toDate(created_at, 'UTC') IN ('2026-01-31', '2026-02-01')",
        ),
        (
            json!({"where": [{"column": "created_at", "op": "<", "value": "2026-01-01T02:00:00+01:00"}]}),
            "created_at < toDateTime64('2026-01-01 01:00:00', 3, 'UTC')",
        ),
    ] {
        let mut body = conditions.clone();
        body["columns"] = json!(["id"]);
        let answer = service.export("acme-key", "orders", &body.to_string()).await;
        let sql = format!("SELECT id FROM orders WHERE tenant = 'acme' AND ({sql}) ORDER BY id");
        let theirs: Vec<u64> = server.run(&sql).await.lines().map(|line| line.parse().unwrap()).collect();
        assert!(!theirs.is_empty(), "{sql}");
        assert_eq!(ids(&lines(&answer)), theirs, "{conditions}");
        let estimate = service.post("acme-key", "/v1/query/orders/estimate", &body.to_string(), "").await.json();
        assert_eq!((&estimate["rows"], &estimate["kind"]), (&json!(theirs.len()), &json!("exact")), "{conditions}");
    }
    // The cap is exact, and the same rows each time: those that share a key come in the order of all that is written of them.
    let body = r#"{"columns":["id","amount"],"order_by":[{"column":"amount","direction":"desc"}],"end_record":true}"#;
    let mut first = Vec::new();
    for _ in 0..3 {
        let answer = service.export("small-key", "orders", body).await;
        let mut found = lines(&answer);
        let end = found.pop().unwrap();
        assert_eq!((&end["$end"]["status"], &end["$end"]["rows"]), (&json!("truncated"), &json!(100)), "{end}");
        assert_eq!((found.len(), &found[0]["id"]), (100, &json!(ROWS)));
        assert!(first.is_empty() || first == found, "other rows");
        assert_eq!(answer.header("x-outhaul-export-truncated-hint"), Some("true"));
        first = found;
    }
    // Exactly as many rows as the cap are not truncated.
    let body = r#"{"columns":["id"],"where":[{"column":"id","op":"between","values":[101,200]}]}"#;
    let receipt = service.receipt("small-key", &service.export("small-key", "orders", body).await).await;
    assert_eq!((&receipt["status"], &receipt["rows"]), (&json!("complete"), &json!(100)), "{receipt}");
    // CSV, with its labels and an array in it.
    let body = r#"{"format":"csv","columns":["id","tags","created_at"],"where":[{"column":"id","op":"=","value":7}]}"#;
    let answer = service.export("acme-key", "orders", body).await;
    assert_eq!(answer.text(), "id,tags,created_at\r\n7,\"[\"\"a\"\",\"\"b\"\"]\",2026-01-01 01:00:00+00\r\n");
    for (body, status, code) in [
        (r#"{"columns":["secret"]}"#, 400, "invalid_request"),
        (r#"{"columns":["id"],"where":[{"column":"id","op":"=","value":-1}]}"#, 400, "invalid_request"),
        (r#"{"columns":["id"],"where":[{"column":"id","op":"=","value":"1 OR 1=1"}]}"#, 400, "invalid_request"),
        (r#"{"columns":["id"],"where":[{"column":"amount","op":"=","value":0.255}]}"#, 400, "invalid_request"),
        (r#"{"columns":["id"],"order_by":[{"column":"note"}]}"#, 400, "invalid_request"),
        (r#"{"columns":["id"],"where":[{"column":"id","op":"=","value":999999}]}"#, 404, "no_data"),
    ] {
        service.export("acme-key", "orders", body).await.problem(status, code);
    }
    service.stop().await;
}

#[tokio::test]
async fn buckets_open_their_rows_and_are_of_the_tenant() {
    let server = orders().await;
    let service = started(&server, &config(&server)).await;
    let body = r#"{"where":[{"column":"id","op":"<=","value":150}]}"#;
    let found = service.post("acme-key", "/v1/analyze/orders/by_status", body, "").await;
    assert!(found.status == 200 && !found.text().contains("canary"), "{}", found.text());
    let found = found.json();
    assert_eq!(found["buckets"].as_array().unwrap().len(), 2, "{found}");
    for bucket in found["buckets"].as_array().unwrap() {
        let status = bucket["dimensions"]["status"].as_str().unwrap();
        let sql = format!(
            "SELECT count(), sum(amount), toUnixTimestamp64Milli(max(created_at)) FROM orders WHERE tenant = 'acme' AND id <= 150 \
             AND status = '{}' FORMAT TSV",
            status.replace('\'', "\\'")
        );
        let theirs = server.run(&sql).await;
        let theirs: Vec<&str> = theirs.trim().split('\t').collect();
        let measures = &bucket["measures"];
        assert_eq!(
            (measures["count"].to_string(), measures["sum_amount"].to_string()),
            (theirs[0].into(), theirs[1].into())
        );
        let moment: chrono::DateTime<chrono::Utc> = measures["max_created_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(moment.timestamp_millis().to_string(), theirs[2], "{bucket}");
        let body = json!({"bucket_key": bucket["bucket_key"], "columns": ["id", "status"]}).to_string();
        let rows = lines(&service.post("acme-key", "/v1/analyze/orders/by_status/rows/export", &body, "").await);
        assert_eq!(rows.len().to_string(), theirs[0]);
        assert!(rows.iter().all(|row| row["status"] == status));
        // The rows of a bucket in the background too.
        let path = "/v1/analyze/orders/by_status/rows/export";
        let queued = service.post("acme-key", path, &body, "Prefer: respond-async\r\n").await;
        assert_eq!(queued.status, 202, "{}", queued.text());
        let job = super::service_jobs::ended(&service, "acme-key", queued.json()["id"].as_str().unwrap()).await;
        assert_eq!((&job["status"], job["rows"].to_string()), (&json!("complete"), theirs[0].into()), "{job}");
        service.post("canary-key", path, &body, "").await.problem(400, "bucket_key_invalid");
    }
    let months = service.post("acme-key", "/v1/analyze/orders/by_month", "", "").await.json();
    assert_eq!((months["buckets"].as_array().unwrap().len(), &months["truncated"]), (2, &json!(true)), "{months}");
    assert_eq!(months["buckets"][0]["dimensions"]["created_at"], "2026-01-01T00:00:00+00:00");
    assert_eq!(months["buckets"][0]["measures"]["count"], json!(31 * 144 + 5));
    let body = json!({"bucket_key": months["buckets"][1]["bucket_key"], "columns": ["id"]}).to_string();
    let rows = lines(&service.post("acme-key", "/v1/analyze/orders/by_month/rows/export", &body, "").await);
    assert_eq!(rows.len(), 28 * 144);
    service.stop().await;
}

#[tokio::test]
async fn i13_no_path_shows_counts_or_estimates_the_canaries_of_another_tenant() {
    let server = orders().await;
    let service = started(&server, &config(&server)).await;
    let trusted = "X-Outhaul-Tier: enterprise\r\nX-Outhaul-Tenant: acme\r\n";
    let hostile = "X-Outhaul-Tier: enterprise\r\nX-Outhaul-Tenant: acme' OR tenant = 'canary-tenant\r\n";
    for (key, head, empty) in
        [("acme-key", "", false), ("backend", trusted, false), ("nobody", "", true), ("backend", hostile, true)]
    {
        for (path, status, text) in all_answers(&service, key, head, "orders").await {
            assert!(!text.contains("canary"), "{key} {path}: {text}");
            let right = match status {
                404 => empty && text.contains("no_data"),
                200 if !empty => true,
                200 if path.ends_with("estimate") => serde_json::from_str::<Value>(&text).unwrap()["rows"] == 0,
                200 if path.ends_with("by_note") => text.contains("\"buckets\":[]"),
                200 => text.starts_with("{\"$end\"") && text.contains("\"rows\":0"),
                _ => false,
            };
            assert!(right, "{key} {path}: {status} {text}");
        }
    }
    let own = all_answers(&service, "canary-key", "", "orders").await;
    assert!(own.iter().filter(|(path, ..)| !path.ends_with("estimate")).all(|(_, _, text)| text.contains("canary")));
    service.stop().await;
}

#[tokio::test]
async fn an_export_in_the_background_is_of_the_tenant_and_of_its_tier() {
    let server = orders().await;
    let service = started(&server, &config(&server)).await;
    for (key, format, rows, status) in [
        ("acme-key", "csv", ROWS + 5, "complete"),
        ("acme-key", "parquet", ROWS + 5, "complete"),
        ("small-key", "ndjson", 100, "truncated"),
    ] {
        let body = json!({"dataset": "orders", "mode": "background", "format": format, "columns": ["id", "tenant", "note", "tags"],
            "order_by": [{"column": "id", "direction": "desc"}]});
        let queued = service.post(key, "/v1/exports", &body.to_string(), "").await;
        assert_eq!(queued.status, 202, "{}", queued.text());
        let job = super::service_jobs::ended(&service, key, queued.json()["id"].as_str().unwrap()).await;
        assert_eq!((job["status"].as_str(), job["rows"].as_u64()), (Some(status), Some(rows as u64)), "{job}");
        if format != "parquet" {
            let file = service.get(key, &format!("/v1/exports/{}/download", job["id"].as_str().unwrap())).await;
            assert!(!file.text().contains("canary"));
            let first = file.text().lines().nth(usize::from(format == "csv")).unwrap();
            assert!(first.contains("12000"), "{first}");
        }
    }
    // What `auto` streams, and what it queues.
    let body = r#"{"dataset":"orders","mode":"auto","columns":["id"]}"#;
    assert_eq!(service.post("acme-key", "/v1/exports", body, "").await.status, 200);
    server
        .run("INSERT INTO orders SELECT 200000 + number, 'acme', '', 0, 'new', [], '', now64() FROM numbers(40000)")
        .await;
    assert_eq!(service.post("acme-key", "/v1/exports", body, "").await.status, 202);
    service.stop().await;
}

/// Statements of the service that run now over the table of this test.
async fn running(server: &ClickHouse) -> String {
    let sql = format!(
        "SELECT count() FROM system.processes WHERE query_id LIKE 'outhaul-%' AND current_database = '{}' \
         AND query LIKE '%sleepEachRow%'",
        server.database
    );
    server.run(&sql).await.trim().to_owned()
}

#[tokio::test]
async fn who_leaves_or_stops_reading_ends_his_statement() {
    let server = orders().await;
    let service = started(&server, &format!("{}[limits]\nwrite_deadline = \"1s\"\n", config(&server))).await;
    let ask = request("POST", "acme-key", "/v1/query/plain/export", r#"{"columns":["id","bulk","slow"]}"#, "");
    let mut open = service.connect(&ask).await;
    let mut first = [0; 200];
    open.read_exact(&mut first).await.unwrap();
    assert_eq!(running(&server).await, "1");
    drop(open);
    let began = Instant::now();
    eventually(LIMIT, "its end", async || (running(&server).await == "0").then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // A client that takes nothing: more than what the sockets hold.
    server
        .run(
            "INSERT INTO orders SELECT 300000 + number, 'acme', repeat('x', 2000), 0, 'new', [], '', now64() \
             FROM numbers(40000)",
        )
        .await;
    let body = r#"{"columns":["id","note"],"where":[{"column":"id","op":">=","value":300000}]}"#;
    let mut slow = service.connect(&request("POST", "acme-key", "/v1/query/orders/export", body, "")).await;
    slow.read_exact(&mut first).await.unwrap();
    let head = String::from_utf8_lossy(&first).into_owned();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let count = format!(
        "SELECT count() FROM system.processes WHERE query_id LIKE 'outhaul-%' AND current_database = '{}'",
        server.database
    );
    eventually(LIMIT, "its end", async || (server.run(&count).await.trim() == "0").then_some(())).await;
    service.stop().await;
}

#[tokio::test]
async fn a_server_that_fails_breaks_the_stream_off_and_the_receipt_says_why() {
    let server = orders().await;
    let service = started(&server, &config(&server)).await;
    for (column, code) in [("failing", "source_rejected"), ("wide", "row_too_large")] {
        let body = json!({"columns": ["id", "bulk", column], "end_record": true}).to_string();
        let answer = service.export("acme-key", "plain", &body).await;
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Broken), "{column}");
        assert!(answer.text().starts_with("{\"id\":") && !answer.text().contains("$end"), "{column}");
        assert!(!answer.text().contains("canary of a database") && !answer.text().contains("DB::Exception"));
        let receipt = service.receipt("acme-key", &answer).await;
        assert_eq!((&receipt["status"], &receipt["error"]["code"]), (&json!("failed"), &json!(code)), "{receipt}");
    }
    // Before its first row it is an answer of its own, which no filter is blamed for.
    let body = r#"{"columns":["failing"],"where":[{"column":"id","op":">=","value":11000}]}"#;
    service.export("acme-key", "plain", body).await.problem(502, "source_rejected");
    server.run("DROP TABLE orders").await;
    let problem = service.export("acme-key", "orders", r#"{"columns":["id"]}"#).await.problem(502, "source_schema");
    assert!(!problem.to_string().contains("127.0.0.1") && !problem.to_string().contains("DB::"), "{problem}");
    service.stop().await;
    let gone = config(&server).replace(&server.server, "127.0.0.1:1");
    let service = started(&server, &gone).await;
    let problem =
        service.export("acme-key", "orders", r#"{"columns":["id"]}"#).await.problem(502, "source_unavailable");
    assert!(!problem.to_string().contains("127.0.0.1"), "{problem}");
    service.stop().await;
}

#[tokio::test]
async fn a_check_names_what_does_not_fit_the_server() {
    let server = orders().await;
    server.run("CREATE TABLE numbered (id UInt64, tenant UInt64) ENGINE MergeTree ORDER BY id").await;
    let right = config(&server)
        + "[dataset.numbered]\ntable = \"numbered\"\ntenant = \"tenant = {tenant}\"\ntenant_type = \"UInt64\"\n\
           [dataset.numbered.columns]\nid = {}\n[dataset.made]\nquery = \"SELECT id, tenant, count() AS n FROM orders GROUP BY id, tenant\"\n\
           tenant = \"tenant = {tenant}\"\n[dataset.made.columns]\nid = {}\nn = {}\n";
    for (from, to, expected) in [
        ("note = {}", "note = {}\nnte = {}", "nte"),
        ("note = {}", "note = {}\nmeasured = { expr = \"amount + note\" }", "dataset.orders: "),
        ("tags = { filter = false }", "tags = { sort = true }", "rows cannot be ordered by \"tags\""),
        (
            "gross = { expr = \"amount * 2\" }",
            "gross = { expr = \"amount * 2\", sort = true }",
            "rows cannot be ordered by \"gross\"",
        ),
        ("tenant_type = \"UInt64\"\n", "", "tenant_type"),
        ("tenant_type = \"UInt64\"", "tenant_type = \"bigint\"", "is no type of ClickHouse"),
        ("key = \"id\"", "key = \"nr\"", "there is no column \"nr\""),
        ("key = \"id\"", "key = \"tags\"", "orders no rows"),
        ("key = \"id\"", "key = \"id\"\nread_mode = \"copy\"", "read_mode is of PostgreSQL"),
        (
            "tenant = \"tenant = {tenant}\"\ndate_column",
            "tenant_setting = \"app.tenant\"\ndate_column",
            "tenant_setting is of PostgreSQL",
        ),
        ("date_column = \"created_at\"", "date_column = \"note\"", "date_column \"note\""),
        ("sum(amount)", "sum(note)", "dataset.orders.analysis.by_status: "),
        ("dimensions = [\"status\"]", "dimensions = [\"tags\"]", "dataset.orders.analysis.by_status: "),
        ("table = \"numbered\"", "table = \"numbred\"", "dataset.numbered: "),
        (
            "tenant = \"tenant = {tenant}\"\ndate_column",
            "tenant = \"tenat = {tenant}\"\ndate_column",
            "dataset.orders: ",
        ),
        (
            "tenant = \"tenant = {tenant}\"\ndate_column",
            "tenant = \"'{tenant}' = tenant\"\ndate_column",
            "outside of quotes",
        ),
    ] {
        let text = right.replacen(from, to, 1);
        assert_ne!(text, right, "{from}");
        let (_folder, command) = checked(&server, &text);
        let run = command.run().await.expect(2);
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
    let (_folder, command) = checked(&server, &right);
    let run = command.run().await.expect(0);
    assert!(run.stderr.contains("is right"), "{}", run.stderr);
    let patient = format!("{right}[limits]\nwrite_deadline = \"2m\"\n");
    let (_folder, command) = checked(&server, &patient);
    let run = command.run().await.expect(0);
    assert!(run.stderr.contains("30 s for which ClickHouse waits"), "{}", run.stderr);
}
