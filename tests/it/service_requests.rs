//! `outhaul serve`: what the head of a request does: `Prefer`, the addresses that proxies tell, and pages of other origins.

use std::time::Duration;

use serde_json::Value;

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::service::{Answer, Service, key, request};

async fn started(more: &str) -> (Pg, Service) {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, status text not null);
         insert into orders select n, case when n % 4 = 0 then 'paid' else 'new' end from generate_series(1, 400) n;
         analyze",
    )
    .await;
    let (url, ours, other) = (&pg.url, key("ours", "7", "free"), key("other", "8", "free"));
    let text = format!(
        "{more}
{ours}{other}
[source.shop]
from = \"{url}\"
[dataset.orders]
table = \"orders\"
[dataset.orders.columns]
id = {{ sort = true }}
status = {{}}
[dataset.orders.analysis.by_status]
dimensions = [\"status\"]
measures = [\"count\"]
"
    );
    let service = Service::start(&text).await;
    (pg, service)
}

async fn ended(service: &Service, queued: &Answer) -> Value {
    let path = queued.header("location").unwrap();
    eventually(Duration::from_mins(1), "the export's end", async || {
        let job = service.get("ours", path).await.json();
        job["completed_at"].is_string().then_some(job)
    })
    .await
}

#[tokio::test]
async fn a_stream_that_is_preferred_to_wait_waits_and_is_the_same_export_by_either_endpoint() {
    let (_pg, service) = started("").await;
    let query = r#"{"format":"csv","columns":["id"],"where":[{"column":"id","op":"<=","value":30}]}"#;
    let stream = service.export("ours", "orders", query).await;
    assert_eq!((stream.status, stream.text().lines().count()), (200, 31));

    let head = "Prefer: wait=5, respond-async\r\nIdempotency-Key: once\r\n";
    let queued = service.export_with("ours", "orders", query, head).await;
    assert_eq!((queued.status, queued.header("preference-applied")), (202, Some("respond-async")), "{queued:?}");
    assert_eq!((queued.header("retry-after"), queued.json()["mode"].as_str()), (Some("2"), Some("background")));
    let by_body = query.replacen('{', r#"{"dataset":"orders","mode":"background","#, 1);
    let head = "Idempotency-Key: once\r\n";
    let again = service.post("ours", "/v1/exports", &by_body, head).await;
    assert_eq!((again.status, again.header("preference-applied")), (202, None));
    assert_eq!(again.json()["id"], queued.json()["id"]);
    assert_eq!(ended(&service, &queued).await["rows"], 30);

    // The rows of a bucket.
    let buckets = service.post("ours", "/v1/analyze/orders/by_status", "{}", "").await.json();
    let bucket = buckets["buckets"].as_array().unwrap().iter().find(|it| it["dimensions"]["status"] == "paid").unwrap();
    let body = serde_json::json!({"bucket_key": bucket["bucket_key"], "columns": ["id"]}).to_string();
    let path = "/v1/analyze/orders/by_status/rows/export";
    let queued = service.post("ours", path, &body, "Prefer: respond-async\r\n").await;
    assert_eq!(ended(&service, &queued).await["rows"], 100, "{queued:?}");
    service.post("other", path, &body, "Prefer: respond-async\r\n").await.problem(400, "bucket_key_invalid");

    // What the body says is more than a preference; and nothing else is one.
    let streamed = by_body.replace("background", "stream");
    let stream = service.post("ours", "/v1/exports", &streamed, "Prefer: respond-async\r\n").await;
    assert_eq!((stream.status, stream.header("preference-applied")), (200, None));
    for head in ["Prefer: x; respond-async\r\n", "Prefer: respond-async=no\r\n", "Prefer: return=minimal\r\n"] {
        let stream = service.export_with("ours", "orders", query, head).await;
        assert_eq!((stream.status, stream.header("preference-applied")), (200, None), "{head}");
    }
    // A mistake is told at once, and not by a job.
    let wrong = query.replace("\"id\"]", "\"nothing\"]");
    service.export_with("ours", "orders", &wrong, "Prefer: respond-async\r\n").await.problem(400, "invalid_request");
    service.stop().await;
}

#[tokio::test]
async fn the_audit_and_the_log_have_the_address_that_a_listed_proxy_tells_and_no_other() {
    let spoofed = "X-Forwarded-For: 6.6.6.6, 198.51.100.7\r\n";
    for (more, expected) in [("trusted_proxies = [\"127.0.0.0/8\"]", "198.51.100.7"), ("", "127.0.0.1")] {
        let (_pg, service) = started(more).await;
        let answer = service.export_with("ours", "orders", r#"{"columns":["id"]}"#, spoofed).await;
        assert_eq!(answer.status, 200);
        let body = r#"{"dataset":"orders","mode":"background","columns":["id"]}"#;
        let queued = service.post("ours", "/v1/exports", body, spoofed).await;
        ended(&service, &queued).await;
        let path = queued.header("location").unwrap();
        let removed = service.ask(&request("DELETE", "ours", path, "", spoofed)).await;
        assert_eq!(removed.status, 200, "{removed:?}");
        service.export_with("nobody", "orders", "{}", spoofed).await.problem(401, "unauthorized");
        let audit = eventually(Duration::from_secs(20), "the audit", async || {
            let url = format!("http://{}/audit?tenant=7", service.admin);
            let output = tokio::process::Command::new("curl").args(["-sS", &url]).output().await.unwrap();
            let records: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
            (records.len() >= 4).then_some(records)
        })
        .await;
        let mut clients: Vec<(&str, &Value)> =
            audit.iter().map(|it| (it["action"].as_str().unwrap(), &it["client"])).collect();
        let expected_json = Value::from(expected);
        // A worker's own record is of nobody's address.
        clients.sort_by_key(|(action, client)| (*action, client.as_str()));
        let wanted = [
            ("cancel", &expected_json),
            ("export", &Value::Null),
            ("export", &expected_json),
            ("queue", &expected_json),
        ];
        assert_eq!(clients, wanted, "{more}");
        let said = service.stop().await;
        let refusal = said.lines().find(|line| line.contains("unauthorized")).unwrap();
        assert!(refusal.contains(expected) && !refusal.contains("6.6.6.6"), "{refusal}");
    }
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_do_all_that_a_caller_may() {
    let (_pg, service) = started("cors_origins = [\"https://app.example.com\"]").await;
    let words = |text: Option<&str>| text.unwrap_or_default().split(", ").map(str::to_owned).collect::<Vec<_>>();
    let origin = "Origin: https://app.example.com\r\n";
    for (method, path) in [("DELETE", "/v1/exports/x"), ("GET", "/v1/exports/x/events"), ("POST", "/v1/exports")] {
        let head = format!("{origin}Access-Control-Request-Method: {method}\r\n");
        let answer = service.ask(&request("OPTIONS", "", path, "", &head)).await;
        assert_eq!(answer.status, 204, "{method}");
        assert!(words(answer.header("access-control-allow-methods")).contains(&method.to_owned()), "{answer:?}");
        let headers = words(answer.header("access-control-allow-headers"));
        for name in [
            "authorization",
            "content-type",
            "idempotency-key",
            "last-event-id",
            "prefer",
            "range",
            "if-range",
            "if-none-match",
            "if-match",
        ] {
            assert!(headers.contains(&name.to_owned()), "{name}: {headers:?}");
        }
    }
    let body = r#"{"dataset":"orders","mode":"background","columns":["id"]}"#;
    let queued = service.post("ours", "/v1/exports", body, &format!("{origin}Prefer: respond-async\r\n")).await;
    let exposed = words(queued.header("access-control-expose-headers"));
    for name in ["location", "retry-after", "preference-applied", "etag", "content-range", "content-disposition"] {
        assert!(exposed.contains(&name.to_owned()), "{name}: {exposed:?}");
    }
    service.stop().await;
}
