//! `outhaul serve` by several processes, whose state is in a PostgreSQL database.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::pg::{Pg, pg};
use crate::support::service::{Answer, BodyEnd, Service, key, request, written};
use crate::support::{eventually, within};

async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, customer_id int not null, note text);
        insert into orders select i, 7, repeat('x', 400) from generate_series(1, 60000) i; analyze",
    )
    .await;
    pg
}

/// The service over it, with its state in the database of `state`.
fn service(pg: &Pg, state: &Pg) -> String {
    let (keys, url, state) = (key("seven", "7", "all") + &key("eight", "8", "all"), &pg.url, &state.url);
    format!(
        "state_url = \"{state}\"
{keys}
[source.shop]
from = \"{url}\"
[tier.all]
max_rows = \"unlimited\"
[dataset.orders]
table = \"public.orders\"
tenant = \"customer_id = {{tenant}}\"
tenant_type = \"int\"
[dataset.orders.columns]
id = {{ sort = true }}
note = {{}}
[dataset.orders.analysis.by_note]
dimensions = [\"note\"]
measures = [\"count\"]
"
    )
}

#[tokio::test]
async fn replicas_know_each_other_s_exports_and_open_each_other_s_bucket_keys() {
    let (pg, state) = (orders().await, pg(15).await);
    let text = service(&pg, &state);
    let (one, other) = tokio::join!(Service::start(&text), Service::start(&text));
    let body = json!({"columns": ["id"], "where": [{"column": "id", "op": "<=", "value": 3}]}).to_string();
    let answer = one.export("seven", "orders", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let receipt = other.receipt("seven", &answer).await;
    assert_eq!((&receipt["status"], &receipt["rows"]), (&json!("complete"), &json!(3)), "{receipt}");
    // Nobody else's.
    let path = format!("/v1/exports/{}", receipt["id"].as_str().unwrap());
    other.get("eight", &path).await.problem(404, "export_not_found");
    let buckets = one.post("seven", "/v1/analyze/orders/by_note", "{}", "").await.json();
    let body = json!({"bucket_key": buckets["buckets"][0]["bucket_key"], "columns": ["id"]}).to_string();
    let rows = other.post("seven", "/v1/analyze/orders/by_note/rows/export", &body, "").await;
    assert_eq!(rows.status, 200, "{rows:?}");
    let logs = one.stop().await + &other.stop().await;
    assert!(!logs.contains("panicked"), "{logs}");
    let again = Service::start(&text).await;
    assert_eq!(again.get("seven", &path).await.json()["status"], "complete");
}

#[tokio::test]
async fn a_replica_that_is_killed_leaves_its_stream_failed_for_all_others() {
    let (pg, state) = (orders().await, pg(18).await);
    let text = service(&pg, &state);
    let lease = [("OUTHAUL_TEST_LIMITS", "instance_lease=1".to_owned())];
    let (killed, other) = tokio::join!(
        Service::with(&text, |command| command.envs(lease.clone())),
        Service::with(&text, |command| command.envs(lease.clone())),
    );
    let body = json!({"columns": ["id", "note"]}).to_string();
    let mut stream = killed.connect(&request("POST", "seven", "/v1/query/orders/export", &body, "")).await;
    let mut head = [0; 2_000];
    let read = stream.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
    let id = head.split("x-outhaul-export-id: ").nth(1).unwrap().split('\r').next().unwrap().to_owned();
    let path = format!("/v1/exports/{id}");
    assert_eq!(other.get("seven", &path).await.json()["status"], "streaming");
    killed.process.signal("KILL").await;
    eventually(Duration::from_secs(15), "the stream has failed", async || {
        let receipt = other.get("seven", &path).await.json();
        (receipt["status"] == "failed" && receipt["error"]["code"] == "interrupted").then_some(())
    })
    .await;
}

/// A stream of which the client has read the head only, and its id.
async fn begun(service: &Service) -> (TcpStream, Vec<u8>, String) {
    let body = json!({"columns": ["id", "note"]}).to_string();
    let mut stream = service.connect(&request("POST", "seven", "/v1/query/orders/export", &body, "")).await;
    let mut head = vec![0; 1_000];
    stream.read_exact(&mut head).await.unwrap();
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let id = text.split("x-outhaul-export-id: ").nth(1).unwrap().split('\r').next().unwrap().to_owned();
    (stream, head, id)
}

#[tokio::test]
async fn a_stream_whose_record_says_otherwise_or_nothing_breaks_off_and_its_end_is_recorded_later() {
    let (pg, state) = (orders().await, pg(18).await);
    let service = Service::start(&service(&pg, &state)).await;
    let rest = async |mut stream: TcpStream, mut wire: Vec<u8>| {
        let _ = within(Duration::from_mins(1), "the rest", stream.read_to_end(&mut wire)).await;
        Answer::parse(&wire)
    };
    let receipt = async |id: &str| service.get("seven", &format!("/v1/exports/{id}")).await.json();
    let (stream, head, id) = begun(&service).await;
    state.batch(&format!("update outhaul.export set status = 'cancelled' where id = '{id}'")).await;
    assert_eq!(rest(stream, head).await.end, BodyEnd::Broken);
    assert_eq!(receipt(&id).await["status"], "cancelled");
    // What others say who have not heard of its process is corrected by itself.
    let (stream, head, id) = begun(&service).await;
    let gone = "status = 'failed', error_code = 'interrupted',
        error_message = 'the service stopped before this export had ended'";
    state.batch(&format!("update outhaul.export set {gone} where id = '{id}'")).await;
    assert_eq!(rest(stream, head).await.end, BodyEnd::Whole);
    assert_eq!(receipt(&id).await["status"], "complete");
    // The store takes no end.
    let (stream, head, id) = begun(&service).await;
    state.batch("alter table outhaul.export rename to away").await;
    assert_eq!(rest(stream, head).await.end, BodyEnd::Broken);
    state.batch("alter table outhaul.away rename to export").await;
    let ended = eventually(Duration::from_secs(40), "its end", async || {
        let receipt = receipt(&id).await;
        (receipt["status"] != "streaming").then_some(receipt)
    })
    .await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("interrupted")), "{ended}");
    service.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_state_database_is_waited_for_and_an_absent_one_is_told_at_the_start() {
    let (pg, state) = (orders().await, pg(15).await);
    let text = service(&pg, &state);
    let service = Service::start(&text).await;
    let body = json!({"columns": ["id"], "where": [{"column": "id", "op": "<=", "value": 3}]}).to_string();
    for _ in 0..3 {
        state
            .batch("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'outhaul/state' and datname = current_database()")
            .await;
        let answer = service.export("seven", "orders", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(service.receipt("seven", &answer).await["status"], "complete");
    }
    let nowhere = text.replace(&state.url, "postgresql://state:hunter2@127.0.0.1:1/x?connect_timeout=2");
    let (_folder, command) = written(&nowhere, &[]);
    let refused = command.run().await.expect(2).stderr;
    assert!(refused.contains("state database cannot be reached") && refused.contains("state_url"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn roles_that_share_need_a_database_and_a_worker_answers_the_operator_alone() {
    let (pg, state) = (orders().await, pg(18).await);
    let text = service(&pg, &state);
    let alone: String = text.lines().filter(|line| !line.starts_with("state_url")).collect::<Vec<_>>().join("\n");
    for role in ["api", "worker"] {
        let (_folder, command) = written(&alone, &["--role", role]);
        let refused = command.run().await.expect(2).stderr;
        assert!(refused.contains("state_url") && refused.contains("--role"), "{refused}");
    }
    // Before a deploy it is looked at, and nothing is made in it.
    let (_folder, command) = written(&text, &["--check"]);
    command.run().await.expect(0);
    let made = state.connect().await.query("select from pg_namespace where nspname = 'outhaul'", &[]).await.unwrap();
    assert!(made.is_empty());
    let nowhere = text.replace(&state.url, "postgresql://state:hunter2@127.0.0.1:1/x?connect_timeout=2");
    let (_folder, command) = written(&nowhere, &["--check"]);
    let refused = command.run().await.expect(2).stderr;
    assert!(
        refused.contains("state_url: the state database cannot be reached") && !refused.contains("hunter2"),
        "{refused}"
    );
    let (_folder, command) = written(&text, &["--role", "worker"]);
    let worker = command.spawn();
    worker.stderr_has("health on http://").await;
    let said = worker.stderr();
    assert!(said.contains("a worker, which answers no callers") && !said.contains("listening on"), "{said}");
    let admin = said.split("health on http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let mut health = tokio::net::TcpStream::connect(&admin).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut health, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    health.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    worker.signal("TERM").await;
    worker.wait().await.expect(0);
}
