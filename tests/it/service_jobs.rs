//! `outhaul serve`: exports in the background, and what becomes of them when the service is killed.

use std::time::Duration;

use serde_json::Value;

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::run::Outhaul;
use crate::support::service::{Answer, BodyEnd, Service, key, request};

const ROWS: usize = 20_000;

async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, tenant text not null, note text not null);
        insert into orders select n, case when n % 10 = 0 then 'globex' else 'acme' end, 'canary of ' || n
            from generate_series(1, {ROWS}) n;
        analyze",
    ))
    .await;
    pg
}

fn config(pg: &Pg) -> String {
    format!(
        "{}{}
[tier.free]
max_rows = \"unlimited\"
[tier.small]
max_rows = 100
[source.shop]
from = \"{}\"
[dataset.orders]
table = \"orders\"
tenant = \"tenant = {{tenant}}\"
[dataset.orders.columns]
id = {{ sort = true }}
note = {{}}
",
        key("acme-key", "acme", "free"),
        key("globex-key", "globex", "small"),
        pg.url
    )
}

const BODY: &str = r#"{"dataset":"orders","mode":"background","format":"csv","columns":["id","note"]}"#;

async fn submit(service: &Service, key: &str, body: &str, head: &str) -> Answer {
    service.post(key, "/v1/exports", body, head).await
}

async fn job(service: &Service, key: &str, id: &str) -> Value {
    service.get(key, &format!("/v1/exports/{id}")).await.json()
}

async fn ended(service: &Service, key: &str, id: &str) -> Value {
    eventually(Duration::from_mins(1), "the export's end", async || {
        let job = job(service, key, id).await;
        job["completed_at"].is_string().then_some(job)
    })
    .await
}

fn id_of(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_export_in_the_background_ends_with_a_file_of_its_tenants_rows() {
    let pg = orders().await;
    let service = Service::start(&config(&pg)).await;
    let queued = submit(&service, "acme-key", BODY, "Prefer: respond-async\r\n").await;
    assert_eq!((queued.status, queued.header("preference-applied")), (202, Some("respond-async")), "{queued:?}");
    let id = id_of(&queued);
    assert_eq!(queued.header("location"), Some(format!("/v1/exports/{id}").as_str()));
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((done["status"].as_str(), done["rows"].as_u64()), (Some("complete"), Some(18_000)), "{done}");
    let link = done["download_url"].as_str().unwrap();
    let file = service.ask(&format!("GET {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert_eq!((file.status, file.end), (200, BodyEnd::Whole));
    let numbers: Vec<usize> =
        file.text().lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    let expected: Vec<usize> = (1..=ROWS).filter(|number| number % 10 != 0).collect();
    assert_eq!(numbers, expected);
    // A tag that is known is enough.
    let whole = service.get("acme-key", &format!("/v1/exports/{id}")).await;
    let tag = whole.header("etag").unwrap();
    let head = format!("If-None-Match: {tag}\r\n");
    let known = service.ask(&request("GET", "acme-key", &format!("/v1/exports/{id}"), "", &head)).await;
    assert_eq!(known.status, 304);
    // Another tenant's is not there, whatever is asked of it.
    for (method, path) in [("GET", ""), ("DELETE", ""), ("GET", "/events")] {
        let path = format!("/v1/exports/{id}{path}");
        let answer = service.ask(&request(method, "globex-key", &path, "", "")).await;
        answer.problem(404, "export_not_found");
    }
    let listed = service.get("globex-key", "/v1/exports").await.json();
    assert_eq!(listed["exports"].as_array().unwrap().len(), 0);
    // Removed, it has expired: its links are void and its files go.
    let removed = service.ask(&request("DELETE", "acme-key", &format!("/v1/exports/{id}"), "", "")).await;
    assert_eq!((removed.status, removed.json()["status"].as_str()), (200, Some("expired")), "{removed:?}");
    let gone = service.ask(&format!("GET {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(gone.status, 410);
}

#[tokio::test]
async fn a_cap_is_told_and_a_request_that_is_made_twice_is_one_export() {
    let pg = orders().await;
    let service = Service::start(&config(&pg)).await;
    let head = "Idempotency-Key: mine\r\n";
    let first = submit(&service, "globex-key", BODY, head).await;
    let again = submit(&service, "globex-key", BODY, head).await;
    assert_eq!((first.status, again.status, id_of(&first)), (202, 202, id_of(&again)));
    let other = BODY.replace(",\"note\"", "");
    submit(&service, "globex-key", &other, head).await.problem(422, "idempotency_key_reused");
    let done = ended(&service, "globex-key", &id_of(&first)).await;
    assert_eq!((done["status"].as_str(), done["rows"].as_u64()), (Some("truncated"), Some(100)), "{done}");
    let listed = service.get("globex-key", "/v1/exports?limit=1").await.json();
    assert_eq!(listed["exports"].as_array().unwrap().len(), 1);
    let few = submit(&service, "globex-key", &BODY.replace("background", "auto"), "").await;
    assert_eq!((few.status, few.text().lines().count()), (200, 101));
}

/// Row H4 of the fault matrix: the service is killed at random moments, and each export ends once with a true manifest.
#[tokio::test]
async fn a_killed_service_neither_loses_nor_doubles_an_export() {
    let pg = orders().await;
    let text = config(&pg);
    let soon = |command: Outhaul| command.env("OUTHAUL_TEST_LIMITS", "job_lease=1,job_backoff=0.2,job_poll=0.1");
    let mut service = Service::with(&text, soon).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(id_of(&submit(&service, "acme-key", BODY, "").await));
        tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 300)).await;
        service = service.killed_and_started(soon).await;
    }
    for id in ids {
        let done = ended(&service, "acme-key", &id).await;
        assert_eq!((done["status"].as_str(), done["rows"].as_u64()), (Some("complete"), Some(18_000)), "{done}");
    }
}
