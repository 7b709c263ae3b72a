//! `outhaul serve`: exports in the background, as their callers see them.

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::support::pg::{Pg, pg};
use crate::support::run::Outhaul;
use crate::support::service::{Answer, BodyEnd, Service, key, request};
use crate::support::{eventually, within};

const ROWS: usize = 20_000;

pub(super) async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, tenant text not null, note text not null);
        insert into orders select n, case when n % 10 = 0 then 'globex' else 'acme' end, 'canary of ' || n
            from generate_series(1, {ROWS}) n;
        -- About a second for a thousand rows, of which two hundred are a page; pages take no function that is volatile.
        create function slowly(text) returns text language sql immutable
            as 'select pg_catalog.repeat($1, 700) from pg_catalog.pg_sleep(0.001)';
        analyze",
    ))
    .await;
    pg
}

pub(super) fn config(pg: &Pg) -> String {
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
id = {{ sort = true, filter = true }}
note = {{}}
slow = {{ expr = \"public.slowly(note)\" }}
half = {{ expr = \"1 / (id - 5)\" }}
",
        key("acme-key", "acme", "free"),
        key("globex-key", "globex", "small"),
        pg.url
    )
}

pub(super) const BODY: &str = r#"{"dataset":"orders","mode":"background","format":"csv","columns":["id","note"]}"#;

pub(super) async fn submit(service: &Service, key: &str, body: &str, head: &str) -> Answer {
    service.post(key, "/v1/exports", body, head).await
}

pub(super) async fn job(service: &Service, key: &str, id: &str) -> Value {
    service.get(key, &format!("/v1/exports/{id}")).await.json()
}

pub(super) async fn ended(service: &Service, key: &str, id: &str) -> Value {
    eventually(Duration::from_mins(1), "the export's end", async || {
        let job = job(service, key, id).await;
        job["completed_at"].is_string().then_some(job)
    })
    .await
}

pub(super) fn id_of(answer: &Answer) -> String {
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

/// A job is its tenant's: a key that is taken away has nothing of what it queued, and the tenant has it.
#[tokio::test]
async fn what_a_key_queued_that_is_taken_away_is_for_its_tenant_alone() {
    let pg = orders().await;
    let text = config(&pg) + "[limits]\nrequests_per_minute = 100000\n";
    let service = Service::start(&(key("leaked-key", "acme", "free") + &text)).await;
    let id = id_of(&submit(&service, "leaked-key", &slow(3_000), "").await);
    let path = format!("/v1/exports/{id}");
    assert_eq!(service.get("leaked-key", &path).await.status, 200);
    service.rewrite(&text);
    service.process.signal("HUP").await;
    service.process.stderr_has("keys and certificates were read again").await;
    service.get("leaked-key", &path).await.problem(401, "unauthorized");
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["rows"]), (&"complete".into(), &2_700.into()), "{done}");
    for below in ["", "/download", "/manifest", "/events"] {
        service.get("leaked-key", &format!("{path}{below}")).await.problem(401, "unauthorized");
    }
    assert_eq!(service.get("acme-key", &format!("{path}/download")).await.text().lines().count(), 2_701);
}

/// What is slow enough to be met while it runs: of the first so many rows.
pub(super) fn slow(rows: usize) -> String {
    format!(
        r#"{{"dataset":"orders","mode":"background","format":"csv","columns":["id","slow"],"where":[{{"column":"id","op":"<=","value":{rows}}}]}}"#
    )
}

/// The events of a body, each with its number.
fn events(answer: &Answer) -> Vec<(u64, Value)> {
    let all = answer.text().split("\n\n").filter(|event| event.contains("data:"));
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap().to_owned()
    };
    all.map(|event| (field(event, "id").parse().unwrap(), serde_json::from_str(&field(event, "data")).unwrap()))
        .collect()
}

async fn follow(service: &Service, id: &str, head: &str) -> Answer {
    service.ask(&request("GET", "acme-key", &format!("/v1/exports/{id}/events"), "", head)).await
}

/// Row H9 of the fault matrix.
#[tokio::test]
async fn h9_whoever_follows_an_export_sees_it_grow_to_its_end_and_goes_on_where_he_was() {
    let pg = orders().await;
    let often = |command: Outhaul| command.env("OUTHAUL_TEST_LIMITS", "job_events=0.05,job_progress=0.05");
    let service = Service::with(&config(&pg), often).await;
    let id = id_of(&submit(&service, "acme-key", &slow(3_000), "").await);
    let all = follow(&service, &id, "").await;
    assert_eq!((all.status, all.end), (200, BodyEnd::Whole), "{all:?}");
    let (seen, text) = (events(&all), all.text());
    assert!(seen.is_sorted_by(|(one, _), (next, _)| one < next), "{text}");
    let number = |event: &Value, name: &str| event[name].as_u64().unwrap_or_else(|| panic!("{name}: {text}"));
    for pair in seen.windows(2) {
        for name in ["processed_rows", "bytes", "parts", "percent"] {
            assert!(number(&pair[0].1, name) <= number(&pair[1].1, name), "{name}: {text}");
        }
    }
    let running: Vec<&Value> =
        seen.iter().map(|(_, event)| event).filter(|event| event["status"] == "running").collect();
    assert!(running.iter().all(|event| event["attempt"] == 1 && number(event, "percent") < 100), "{text}");
    let growing = running.iter().filter(|event| number(event, "processed_rows") > 0 && event["eta_seconds"].is_u64());
    assert!(growing.count() > 1, "{text}");
    let (last, end) = seen.last().unwrap();
    let (percent, rows) = (number(end, "percent"), number(end, "processed_rows"));
    assert_eq!((end["status"].as_str(), percent, rows), (Some("complete"), 100, 2_700));
    // Whoever lost the connection has what he has not seen; whoever has seen all of it asks no more.
    let middle = seen[seen.len() / 2].0;
    let rest = events(&follow(&service, &id, &format!("Last-Event-ID: {middle}\r\n")).await);
    assert!(rest.iter().all(|(number, _)| *number > middle) && rest.last() == seen.last(), "{rest:?}");
    assert_eq!(follow(&service, &id, &format!("Last-Event-ID: {last}\r\n")).await.status, 204);
    for unknown in ["18446744073709551615", "x", "-1"] {
        let head = format!("Last-Event-ID: {unknown}\r\n");
        assert_eq!(events(&follow(&service, &id, &head).await).last(), seen.last(), "{unknown}");
    }
}

#[tokio::test]
async fn a_count_that_was_broken_off_is_no_estimate() {
    let pg = orders().await;
    pg.batch("insert into orders select n, 'acme', '' from generate_series(20001, 80000) n; analyze").await;
    let service = Service::start(&config(&pg)).await;
    let estimate = async |key: &str, body: &str| {
        let job = submit(&service, key, body, "").await.json();
        (job["estimated_rows"].as_u64(), job["estimated_minutes"].is_u64())
    };
    assert_eq!(estimate("acme-key", BODY).await, (None, false));
    assert_eq!(estimate("acme-key", &slow(1_000)).await, (Some(900), true));
    assert_eq!(estimate("globex-key", BODY).await, (Some(100), true));
}

#[tokio::test]
async fn a_count_takes_the_place_of_a_stream_and_no_stream_waits_for_one() {
    let pg = orders().await;
    let service = Service::start(&format!("{}[limits]\nstreams_per_tenant = 1\n", config(&pg))).await;
    // To count these takes as long as to read all of them.
    let slow = r#""columns":["id","slow"],"where":[{"column":"slow","op":"!=","value":""}]"#;
    let asked = format!(r#"{{"dataset":"orders","mode":"stream",{slow}}}"#);
    let mut stream = service.connect(&request("POST", "acme-key", "/v1/exports", &asked, "")).await;
    let mut head = [0; 12];
    within(Duration::from_secs(10), "the first rows", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // While that is the only one that the tenant may have, a job is queued all the same.
    for body in [BODY.to_owned(), BODY.replace("background", "auto")] {
        let queued = submit(&service, "acme-key", &body, "").await;
        assert_eq!((queued.status, queued.json()["estimated_rows"].as_u64()), (202, None), "{}", queued.text());
    }
    drop(stream);
    let counted = async || {
        let queued = submit(&service, "acme-key", BODY, "").await;
        (queued.json()["estimated_rows"] == 18_000).then_some(())
    };
    eventually(Duration::from_secs(20), "a count", counted).await;
}

#[tokio::test]
async fn whoever_follows_takes_no_stream_and_is_let_go() {
    let pg = orders().await;
    let service = Service::start(&format!("{}[limits]\nstreams_per_tenant = 2\n", config(&pg))).await;
    let id = id_of(&submit(&service, "acme-key", &slow(18_000), "").await);
    let path = format!("/v1/exports/{id}/events");
    let asked = request("GET", "acme-key", &path, "", "");
    let follows = async || {
        let mut follower = service.connect(&asked).await;
        // Its place is taken once it is answered.
        let mut head = [0; 12];
        follower.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        follower
    };
    // Who is not refused waits for the end.
    let third = async || tokio::time::timeout(Duration::from_millis(300), follow(&service, &id, "")).await.ok();
    let followers = (follows().await, follows().await);
    let refused = eventually(Duration::from_secs(10), "a refusal", third).await;
    refused.problem(429, "too_many_requests");
    assert_eq!(service.export("acme-key", "orders", r#"{"columns":["id"]}"#).await.status, 200);
    drop(followers);
    let taken = async || third().await.is_none().then_some(());
    eventually(Duration::from_secs(20), "the followers' places", taken).await;
}
