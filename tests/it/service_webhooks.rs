//! `outhaul serve`: what it does by itself. Messages reach their receivers and nobody else, exports expire, and files are removed.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::service_jobs::{BODY, config, ended, id_of, job, orders, submit};
use crate::support::eventually;
use crate::support::service::{Answer, Service};

const LIMIT: Duration = Duration::from_mins(1);

/// What came in at each of a machine's own addresses: the address that was called, and the body, which is empty where nothing
/// was sent.
type Arrived = Arc<Mutex<Vec<(String, String)>>>;

/// A receiver at all addresses of this machine; gives its port.
async fn receiver() -> (u16, Arrived) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let arrived = Arrived::default();
    let all = Arc::clone(&arrived);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                let called = socket.local_addr().unwrap().ip().to_string();
                let mut text = Vec::new();
                while !text.ends_with(b"}") && socket.read_buf(&mut text).await.is_ok_and(|read| read > 0) {}
                let text = String::from_utf8(text).unwrap();
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                all.lock().unwrap().push((called, body.to_owned()));
                drop(socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await);
            });
        }
    });
    (port, arrived)
}

fn hook(url: &str, allow: &str) -> String {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    format!("[[webhook]]\nname = \"backend\"\nurl = \"{url}\"\nsecret = \"{secret}\"\n{allow}")
}

/// A name that leads to a listed address for one message and to another for the next: what is looked at is the address that
/// was connected to, so that between a look and a call nothing can change.
#[tokio::test]
async fn a_name_that_leads_elsewhere_since_the_last_message_is_sent_nothing() {
    let (pg, (port, arrived)) = (orders().await, receiver().await);
    let names = tempfile::tempdir().unwrap();
    let names = names.path().join("names");
    let leads = |address: &str| std::fs::write(&names, format!("hooks.example.test {address}\n")).unwrap();
    leads("127.0.0.1");
    let hook = hook(&format!("http://hooks.example.test:{port}/"), "allow = [\"127.0.0.1\"]\n");
    let service = Service::with(&(config(&pg) + &hook), |command| {
        let command = command.env("OUTHAUL_TEST_LIMITS", "job_poll=0.1,webhook_retry=0.2,webhook_hold=2");
        command.env("OUTHAUL_TEST_NAMES", &names)
    })
    .await;
    let told = |id: &str| {
        let arrived = arrived.lock().unwrap();
        let of_it = arrived.iter().filter(|(_, body)| body.contains(id));
        of_it.map(|(called, _)| called.clone()).collect::<Vec<_>>()
    };
    let first = id_of(&submit(&service, "acme-key", BODY, "").await);
    eventually(LIMIT, "the first message", async || (told(&first) == ["127.0.0.1"]).then_some(())).await;
    leads("127.0.0.2");
    let second = id_of(&submit(&service, "acme-key", BODY, "").await);
    let silent = async || {
        let arrived = arrived.lock().unwrap();
        let calls = || arrived.iter().filter(|(called, _)| called == "127.0.0.2");
        (calls().count() > 2 || calls().any(|(_, body)| !body.is_empty())).then_some(())
    };
    eventually(LIMIT, "three tries at the other address", silent).await;
    let sent = arrived.lock().unwrap().iter().any(|(called, body)| called == "127.0.0.2" && !body.is_empty());
    assert!(!sent, "{arrived:?}");
    service.process.stderr_has("127.0.0.2, which is not on the list").await;
    // Once it leads back, the message arrives.
    leads("127.0.0.1");
    eventually(LIMIT, "the second message", async || (told(&second) == ["127.0.0.1"]).then_some(())).await;
    service.stop().await;
}

/// rmyndharis/OpenWA#511: one receiver that takes messages and does not answer held up those of all others.
#[tokio::test]
async fn a_receiver_that_is_silent_holds_nobody_else_up() {
    let (pg, (port, arrived)) = (orders().await, receiver().await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let (backend, gone) = (hook(&format!("http://127.0.0.1:{port}/"), ""), hook(&format!("http://{address}/"), ""));
    let text = config(&pg) + &gone.replace("\"backend\"", "\"silent\"") + &backend;
    let service = Service::start(&text).await;
    // All that wait for the silent one came first.
    tell(&service, &[vec!["silent"; 100], vec!["backend"]].concat());
    let told = async || (!arrived.lock().unwrap().is_empty()).then_some(());
    // The silent one has ten seconds for each sixteen of its messages.
    eventually(Duration::from_secs(9), "the message to the other one", told).await;
    assert_eq!(arrived.lock().unwrap().as_slice(), [("127.0.0.1".to_owned(), "{\"of\":100}".to_owned())]);
    drop(silent);
    service.stop().await;
}

/// Puts messages to these webhooks into the state file, numbered in their bodies.
fn tell(service: &Service, targets: &[&str]) {
    let mut state = state_of(service);
    let all = state.transaction().unwrap();
    for (number, target) in (0_u32..).zip(targets) {
        let insert = "INSERT INTO outbox (id, export_id, target, event, body, attempt, due_at)
            VALUES (?1, ?1, ?2, 'export.ready', '{\"of\":' || ?3 || '}', 0, ?4)";
        let now = chrono::Utc::now().timestamp_micros();
        all.execute(insert, rusqlite::params![format!("m{number}"), target, number, now]).unwrap();
    }
    all.commit().unwrap();
}

fn state_of(service: &Service) -> rusqlite::Connection {
    let state = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    state.busy_timeout(LIMIT).unwrap();
    state
}

/// formbricks/formbricks#9123: while a new release comes up beside the old one, the old one took away what it did not know.
#[tokio::test]
async fn a_message_waits_for_a_process_that_knows_its_webhook() {
    let (pg, (port, arrived)) = (orders().await, receiver().await);
    let service = Service::start(&(config(&pg) + &hook(&format!("http://127.0.0.1:{port}/"), ""))).await;
    tell(&service, &["billing", "backend"]);
    let bodies = || arrived.lock().unwrap().iter().map(|(_, body)| body.clone()).collect::<Vec<_>>();
    eventually(LIMIT, "the message to the known one", async || (!bodies().is_empty()).then_some(())).await;
    // Two looks at the store later it is as it was.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let waiting = state_of(&service).query_row(
        "SELECT target, attempt, due_at <= ?1 FROM outbox",
        [chrono::Utc::now().timestamp_micros()],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?, row.get::<_, bool>(2)?)),
    );
    assert_eq!(waiting.unwrap(), ("billing".to_owned(), 0, true), "nobody has taken it");
    assert_eq!(bodies(), ["{\"of\":1}"]);
    service.stop().await;
}

fn count(folder: &Path) -> usize {
    let Ok(entries) = folder.read_dir() else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

async fn follow(service: &Service, link: &str) -> Answer {
    service.ask(&format!("GET {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

/// On a state file as on a database: nobody asks for it, and once its time is over an export is expired, its files are gone,
/// its link says so, and its receiver is told, all of it once.
#[tokio::test]
async fn an_export_expires_by_itself_once_its_time_is_over() {
    let (pg, (port, arrived)) = (orders().await, receiver().await);
    let hook = hook(&format!("http://127.0.0.1:{port}/"), "");
    let text = format!("link_ttl = \"6s\"\n{}[limits]\nrequests_per_minute = 100000\n{hook}", config(&pg));
    let service =
        Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", "job_poll=0.1,job_sweep=0.2")).await;
    let id = id_of(&submit(&service, "acme-key", BODY, "").await);
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!(done["status"], "complete", "{done}");
    let link = done["download_url"].as_str().unwrap().to_owned();
    assert_eq!(follow(&service, &link).await.status, 200);
    let folder = service.folder.path().join("outhaul-state.sqlite3.exports");
    assert!(count(&folder) > 1);
    let expired = eventually(LIMIT, "its end", async || {
        let job = job(&service, "acme-key", &id).await;
        (job["status"] == "expired").then_some(job)
    })
    .await;
    let at = |job: &Value, field: &str| chrono::DateTime::parse_from_rfc3339(job[field].as_str().unwrap()).unwrap();
    assert!(chrono::Utc::now() >= at(&done, "expires_at"), "{done}");
    let fields = ["download_url", "completed_at", "rows"];
    assert_eq!(fields.map(|field| expired[field].clone()), [Value::Null, done["completed_at"].clone(), Value::Null]);
    follow(&service, &link).await.problem(410, "expired");
    service.get("acme-key", &format!("/v1/exports/{id}/download")).await.problem(410, "expired");
    eventually(LIMIT, "the files to go", async || (count(&folder) == 0).then_some(())).await;
    let types = || {
        let arrived = arrived.lock().unwrap();
        let bodies = arrived.iter().map(|(_, body)| serde_json::from_str::<Value>(body).unwrap());
        bodies.map(|body| body["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually(LIMIT, "the second message", async || (types().len() == 2).then_some(())).await;
    // Some sweeps later it is told and noted still once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(types(), ["export.ready", "export.expired"]);
    let state = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    let noted = "SELECT count(*) FROM audit WHERE action = 'expire' AND export_id = ?1";
    let noted: u32 = state.query_row(noted, [&id], |row| row.get(0)).unwrap();
    assert_eq!(noted, 1);
    assert_eq!(service.metric("outhaul_service_jobs_total{status=\"expired\"}").await, "1");
    service.stop().await;
}

/// Two hundred exports whose files cannot be removed, as where a bucket or a right is gone, keep no others from being removed.
#[tokio::test]
async fn files_that_cannot_be_removed_keep_no_others() {
    let pg = orders().await;
    let service =
        Service::with(&config(&pg), |command| command.env("OUTHAUL_TEST_LIMITS", "job_poll=0.1,job_sweep=0.2")).await;
    let id = id_of(&submit(&service, "acme-key", BODY, "").await);
    ended(&service, "acme-key", &id).await;
    let mut state = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    state.busy_timeout(LIMIT).unwrap();
    let all = state.transaction().unwrap();
    for number in 0..200 {
        // Nobody removes a folder that is not the export's own.
        let insert = "INSERT INTO job (id, tenant, credential, request_id, dataset, mode, request, format, compression, file_name,
                 destination, status, attempt, forgiven, row_count, bytes, parts, committing, created_at, completed_at,
                 revocation, version, not_before, truncated, removed)
             VALUES (?1, 'tenant:acme', 'acme-key', 'r', 'orders', 'background', '{}', 'csv', 'none', 'orders', 'file:///nowhere',
                 'failed', 1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0)";
        all.execute(insert, [format!("stuck-{number}")]).unwrap();
    }
    all.commit().unwrap();
    let folder = service.folder.path().join("outhaul-state.sqlite3.exports");
    assert!(count(&folder) > 1);
    let removed = crate::support::service::request("DELETE", "acme-key", &format!("/v1/exports/{id}"), "", "");
    assert_eq!(service.ask(&removed).await.status, 200);
    eventually(LIMIT, "the files to go", async || (count(&folder) == 0).then_some(())).await;
    service.stop().await;
}
