//! `outhaul serve`: what becomes of exports in the background that are cancelled, that fail, and whose service is stopped or
//! killed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::service_jobs::{BODY, config, ended, id_of, job, orders, slow, submit};
use crate::support::eventually;
use crate::support::run::{Outhaul, Stop, outhaul};
use crate::support::service::{Answer, BodyEnd, Service, request};

fn soon(command: Outhaul) -> Outhaul {
    let limits = "job_lease=1,job_backoff=0.1,job_poll=0.1,job_sweep=0.2,webhook_hold=1,webhook_retry=0.3";
    command.env("OUTHAUL_TEST_LIMITS", limits)
}

async fn cancel(service: &Service, id: &str) -> Answer {
    service.ask(&request("DELETE", "acme-key", &format!("/v1/exports/{id}"), "", "")).await
}

async fn has_status(service: &Service, id: &str, status: &str) {
    let has = async || (job(service, "acme-key", id).await["status"] == status).then_some(());
    eventually(Duration::from_secs(20), status, has).await;
}

/// The folder of an export's files.
fn files(service: &Service, id: &str) -> PathBuf {
    service.folder.path().join("outhaul-state.sqlite3.exports").join(id)
}

fn has_file(folder: &Path) -> bool {
    let Ok(entries) = folder.read_dir() else { return false };
    let is = |entry: PathBuf| if entry.is_dir() { has_file(&entry) } else { true };
    entries.map(|entry| entry.unwrap().path()).any(is)
}

async fn has_no_files(service: &Service, id: &str) {
    let none = async || (!has_file(&files(service, id))).then_some(());
    eventually(Duration::from_secs(10), "no files", none).await;
}

async fn verified(service: &Service, id: &str) {
    let folder = files(service, id);
    outhaul(["verify", folder.to_str().unwrap()]).run().await.expect(0);
}

/// Row H4 of the fault matrix.
#[tokio::test]
async fn h4_what_waits_never_starts_and_what_runs_stops_within_seconds() {
    let pg = orders().await;
    let service = Service::with(&format!("{}[jobs]\nworkers = 1\n", config(&pg)), soon).await;
    let runs = id_of(&submit(&service, "acme-key", &slow(18_000), "").await);
    has_status(&service, &runs, "running").await;
    let waits = id_of(&submit(&service, "acme-key", BODY, "").await);
    let answer = cancel(&service, &waits).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("cancelled")), "{answer:?}");
    let answer = cancel(&service, &runs).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (202, Some("cancelling")), "{answer:?}");
    let asked = Instant::now();
    has_status(&service, &runs, "cancelled").await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let active = "select count(*)::text from pg_stat_activity where datname = current_database() and state = 'active'
        and pid <> pg_backend_pid()";
    let idle = async || (pg.value(active).await == "0").then_some(());
    eventually(Duration::from_secs(10), "an idle database", idle).await;
    has_no_files(&service, &runs).await;
    // The one worker is free, and has not begun what was cancelled.
    ended(&service, "acme-key", &id_of(&submit(&service, "acme-key", BODY, "").await)).await;
    let waited = job(&service, "acme-key", &waits).await;
    assert_eq!((&waited["status"], &waited["started_at"]), (&"cancelled".into(), &Value::Null), "{waited}");
}

/// Row H4 of the fault matrix: in the seconds of a commit nobody can say yet whether there will be files.
#[tokio::test]
async fn h4_a_commit_is_not_cancelled_and_what_is_cancelled_has_no_files() {
    let pg = orders().await;
    let (published, uploaded) = (Stop::at("published"), Stop::at("uploaded"));
    let service = Service::with(&config(&pg), |command| soon(command).stops([&published])).await;
    let id = id_of(&submit(&service, "acme-key", BODY, "").await);
    service.process.stands_at(&published).await;
    service.process.stderr_has("an export is being committed").await;
    let refused = cancel(&service, &id).await;
    refused.problem(409, "committing");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    published.release();
    assert_eq!(ended(&service, "acme-key", &id).await["status"], "complete");
    service.process.signal("TERM").await;
    let service = service.stopped_and_started(|command| soon(command).stops([&uploaded])).await;
    let id = id_of(&submit(&service, "acme-key", BODY, "").await);
    service.process.stands_at(&uploaded).await;
    assert_eq!(cancel(&service, &id).await.status, 202);
    uploaded.release();
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["download_url"]), (&"cancelled".into(), &Value::Null), "{done}");
    has_no_files(&service, &id).await;
}

/// Row H5 of the fault matrix: whoever is stopped gives back what it has, and the next one goes on at once.
#[tokio::test]
async fn h5_a_service_that_is_stopped_gives_its_exports_back() {
    let pg = orders().await;
    let text = format!("{}[limits]\nshutdown = \"5s\"\n[jobs]\nattempts = 1\n", config(&pg));
    let mut service = Service::start(&text).await;
    let id = id_of(&submit(&service, "acme-key", &slow(3_000), "").await);
    for attempt in 1..=2 {
        let begun = Instant::now();
        has_status(&service, &id, "running").await;
        let follows = request("GET", "acme-key", &format!("/v1/exports/{id}/events"), "", "");
        let (answer, ()) = tokio::join!(service.ask(&follows), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            service.process.signal("TERM").await;
        });
        // Whoever follows is let go.
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{answer:?}");
        service = service.stopped_and_started(|command| command).await;
        assert_eq!(job(&service, "acme-key", &id).await["attempt"].as_u64().unwrap().max(attempt), attempt + 1);
        // Nobody waited for the end of a lease.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["attempt"]), (&"complete".into(), &3.into()), "none of them counts: {done}");
    assert_eq!(done["rows"], 2_700, "{done}");
    verified(&service, &id).await;
}

/// Row H5 of the fault matrix: a state store that does not answer holds nobody's lease.
#[tokio::test]
async fn h5_an_attempt_whose_lease_is_not_renewed_ends_before_the_next_one_begins() {
    let (pg, renewal) = (orders().await, Stop::at("job-renewal"));
    let hangs = |command: Outhaul| command.env("OUTHAUL_TEST_LIMITS", "job_lease=3,job_poll=0.1").stops([&renewal]);
    let service = Service::with(&config(&pg), hangs).await;
    let id = id_of(&submit(&service, "acme-key", &slow(6_000), "").await);
    service.process.stands_at(&renewal).await;
    let second = format!("an attempt begins export=\"{id}\" attempt=2");
    service.process.stderr_has(&second).await;
    renewal.release();
    let told = service.process.stderr();
    let before = told.split_once(&second).unwrap().0;
    assert!(before.contains("a lease was not renewed in time"), "{before}");
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["attempt"]), (&"complete".into(), &2.into()), "{done}");
}

/// Row H5 of the fault matrix: of two attempts at a time the later one has the folder, and the earlier one writes nothing.
#[tokio::test]
async fn h5_of_two_attempts_the_later_one_is_right() {
    let (pg, renewal) = (orders().await, Stop::at("job-renewal"));
    let hangs = |command: Outhaul| {
        let off = std::env::var("OUTHAUL_TEST_OFF").unwrap_or_default();
        let command = command.env("OUTHAUL_TEST_OFF", format!("lease_end,{off}"));
        command.env("OUTHAUL_TEST_LIMITS", "job_lease=1.5,job_poll=0.1,job_backoff=0.1").stops([&renewal])
    };
    let service = Service::with(&config(&pg), hangs).await;
    let id = id_of(&submit(&service, "acme-key", &slow(5_000), "").await);
    service.process.stands_at(&renewal).await;
    service.process.stderr_has(&format!("an attempt begins export=\"{id}\" attempt=2")).await;
    renewal.release();
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["attempt"]), (&"complete".into(), &2.into()), "{done}");
    verified(&service, &id).await;
    let told = service.stop().await;
    assert!(told.contains("an attempt has lost its lease"), "{told}");
}

/// Row H6 of the fault matrix: a job whose worker dies each time is given up, and the others go on.
#[tokio::test]
async fn h6_a_poison_export_stops_after_its_attempts() {
    let pg = orders().await;
    let text = format!("{}[jobs]\nattempts = 2\nrunning_per_tenant = 1\n", config(&pg));
    let deadly = |command: Outhaul| {
        let limits = "job_lease=0.7,job_poll=0.1";
        command.env("OUTHAUL_TEST_LIMITS", limits).env("OUTHAUL_TEST_PANIC", "job-claimed")
    };
    let service = Service::with(&text, deadly).await;
    let id = id_of(&submit(&service, "acme-key", BODY, "").await);
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["error"]["code"]), (&"failed".into(), &"attempts_exhausted".into()), "{done}");
    // The claim that only says so is none of them.
    assert_eq!((&done["attempt"], &done["processed_rows"]), (&2.into(), &0.into()), "{done}");
    let service = service.killed_and_started(soon).await;
    assert_eq!(job(&service, "acme-key", &id).await["status"], "failed");
    let next = ended(&service, "acme-key", &id_of(&submit(&service, "acme-key", BODY, "").await)).await;
    assert_eq!(next["status"], "complete", "{next}");
}

/// Row H5 of the fault matrix: the last attempt that is allowed has committed, and is killed before it has said so.
#[tokio::test]
async fn h5_a_last_attempt_that_has_committed_is_no_failure() {
    let (pg, ending) = (orders().await, Stop::at("job-ending"));
    let text = format!("{}[jobs]\nattempts = 1\n", config(&pg));
    let service = Service::with(&text, |command| soon(command).stops([&ending])).await;
    let id = id_of(&submit(&service, "acme-key", BODY, "").await);
    service.process.stands_at(&ending).await;
    let service = service.killed_and_started(soon).await;
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["rows"]), (&"complete".into(), &18_000.into()), "{done}");
    // The claim that found it is no attempt.
    assert_eq!(done["attempt"], 1, "{done}");
    verified(&service, &id).await;
}

/// Row H6 of the fault matrix: what passes by itself is tried again and counted, and nothing else is.
#[tokio::test]
async fn h6_the_class_of_a_failure_decides_whether_it_is_tried_again() {
    let pg = orders().await;
    let gone = "[source.gone]\nfrom = \"postgres://postgres@127.0.0.1:1/x\"\n[dataset.gone]\nsource = \"gone\"\ntable = \"gone\"
[dataset.gone.columns]\nid = {}\n[jobs]\nattempts = 3\n";
    let text = config(&pg).replace("[dataset.orders]", "[dataset.orders]\nsource = \"shop\"") + gone;
    let service = Service::with(&text, soon).await;
    let body = |dataset: &str, column: &str| {
        format!(r#"{{"dataset":"{dataset}","mode":"background","columns":["{column}"]}}"#)
    };
    for (dataset, column, attempts, code) in
        [("gone", "id", 3, "source_unavailable"), ("orders", "half", 1, "source_rejected")]
    {
        let id = id_of(&submit(&service, "acme-key", &body(dataset, column), "").await);
        let done = ended(&service, "acme-key", &id).await;
        assert_eq!((&done["status"], &done["error"]["code"]), (&"failed".into(), &code.into()), "{done}");
        assert_eq!(done["attempt"], attempts, "{done}");
    }
    // What is granted is judged anew by each attempt.
    let stop = Stop::at("job-claimed");
    service.process.signal("TERM").await;
    let service = service.stopped_and_started(|command| soon(command).stops([&stop])).await;
    let id = id_of(&submit(&service, "acme-key", BODY, "").await);
    service.process.stands_at(&stop).await;
    assert!(text.contains("\nnote = {}\n"));
    service.rewrite(&text.replace("\nnote = {}\n", "\n"));
    let service = service.killed_and_started(soon).await;
    let done = ended(&service, "acme-key", &id).await;
    assert_eq!((&done["status"], &done["error"]["code"]), (&"failed".into(), &"invalid_request".into()), "{done}");
}

/// Where webhooks are sent to, and what has arrived: the bodies by their ids.
struct Receiver {
    address: SocketAddr,
    arrived: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arrived: Arc<Mutex<BTreeMap<String, Vec<Value>>>> = Arc::default();
        let all = Arc::clone(&arrived);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut text = Vec::new();
                // A service that is killed sends half.
                while !text.ends_with(b"}") && socket.read_buf(&mut text).await.is_ok_and(|read| read > 0) {}
                let text = String::from_utf8(text).unwrap();
                let id = text.lines().find_map(|line| line.strip_prefix("webhook-id: "));
                let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
                if let Some((id, body)) = id.zip(body) {
                    all.lock().unwrap().entry(id.to_owned()).or_default().push(body);
                    let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                }
            }
        });
        Self { address, arrived }
    }

    /// The ids of the messages that tell of an export, each of which always has the same body.
    fn ids(&self, export: &str) -> Vec<String> {
        let arrived = self.arrived.lock().unwrap();
        let of_it = arrived.iter().filter(|(_, bodies)| bodies[0]["id"] == export);
        let one = |(id, bodies): (&String, &Vec<Value>)| {
            assert!(bodies.iter().all(|body| *body == bodies[0] && body["type"] == "export.ready"), "{bodies:?}");
            id.clone()
        };
        of_it.map(one).collect()
    }
}

fn kills() -> usize {
    std::env::var("OUTHAUL_TEST_KILLS").map_or(8, |kills| kills.parse().unwrap())
}

/// Row H5 of the fault matrix: the service is killed at random moments, and each export ends once with a true manifest.
#[tokio::test]
async fn h5_a_killed_service_neither_loses_nor_doubles_an_export() {
    let (pg, receiver) = (orders().await, Receiver::start().await);
    let hook = format!(
        "[[webhook]]\nname = \"ours\"\nurl = \"http://{}/\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n",
        receiver.address
    );
    let text = format!("{}{hook}[jobs]\nattempts = 1000\nrunning_per_tenant = 3\nworkers = 3\n", config(&pg));
    let mut service = Service::with(&text, soon).await;
    let mut ids = Vec::new();
    for _ in 0..kills() {
        let id = id_of(&submit(&service, "acme-key", &slow(1_000), "").await);
        has_status(&service, &id, "running").await;
        ids.push(id);
        tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 1_500)).await;
        service = service.killed_and_started(soon).await;
    }
    let mut again = 0;
    for id in &ids {
        let done = ended(&service, "acme-key", id).await;
        assert_eq!((&done["status"], &done["rows"]), (&"complete".into(), &900.into()), "{done}");
        again += usize::from(done["attempt"].as_u64().unwrap() > 1);
        verified(&service, id).await;
    }
    assert!(again > 0, "no kill has met an export that ran");
    for id in &ids {
        let told = async || Some(receiver.ids(id)).filter(|ids| !ids.is_empty());
        let told = eventually(Duration::from_secs(20), "the webhook", told).await;
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
