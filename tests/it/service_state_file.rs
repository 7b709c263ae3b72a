//! `outhaul serve` whose state file cannot be written for a while, or ever.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::service_jobs::{BODY, config, ended, id_of, job, orders, slow, submit};
use crate::support::disk::Disk;
use crate::support::eventually;
use crate::support::run::Outhaul;
use crate::support::service::{Service, request};

const LIMIT: Duration = Duration::from_secs(30);

fn soon(command: Outhaul) -> Outhaul {
    command.env("OUTHAUL_TEST_LIMITS", "state_busy=0.3,job_poll=0.1,job_figures=0.1,job_progress=0.1")
}

/// A test asks oftener than a caller may.
const OFTEN: &str = "[limits]\nrequests_per_minute = 100000\n";

/// No sample of what is told to Prometheus is something that a reader of numbers cannot read.
fn are_numbers(metrics: &str) {
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(value.is_finite(), "{line}");
    }
}

/// Row H6 of the fault matrix: somebody else writes to the state file, a backup tool, and does not stop.
#[tokio::test]
async fn h6_a_state_file_that_somebody_has_locked_refuses_and_loses_nothing() {
    let pg = orders().await;
    let service = Service::with(&(config(&pg) + OFTEN), soon).await;
    let runs = id_of(&submit(&service, "acme-key", &slow(6_000), "").await);
    let running = async || (job(&service, "acme-key", &runs).await["status"] == "running").then_some(());
    eventually(LIMIT, "a job that runs", running).await;
    let known = async |value: &str| {
        let metrics = service.metrics().await;
        let has = metrics.contains(&format!("outhaul_service_queue_known {value}\n"));
        (has && metrics.contains("outhaul_service_jobs{status=\"running\"} 1\n")).then_some(metrics)
    };
    eventually(LIMIT, "the length of the queue", async || known("1").await).await;
    let file = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = Instant::now();
    let refused = submit(&service, "acme-key", BODY, "Idempotency-Key: mine\r\n").await;
    refused.problem(503, "state_unavailable");
    assert!(refused.header("retry-after").is_some() && asked.elapsed() < LIMIT, "{refused:?}");
    let stream = service.export("acme-key", "orders", r#"{"columns":["id"]}"#).await;
    stream.problem(503, "state_unavailable");
    // What was known last is told still.
    are_numbers(&eventually(LIMIT, "that the queue is not known", async || known("0").await).await);
    file.execute_batch("ROLLBACK").unwrap();
    // Whoever asks again is served, and the job that ran has ended once.
    let queued = eventually(LIMIT, "the job to be queued", async || {
        let answer = submit(&service, "acme-key", BODY, "Idempotency-Key: mine\r\n").await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    for (id, rows) in [(&runs, 5_400), (&id_of(&queued), 18_000)] {
        let done = ended(&service, "acme-key", id).await;
        assert_eq!((&done["status"], &done["rows"], &done["attempt"]), (&"complete".into(), &rows.into(), &1.into()));
    }
    let listed = service.get("acme-key", "/v1/exports").await.json();
    assert_eq!(listed["exports"].as_array().unwrap().len(), 2, "{listed}");
    let known = async || (service.metric("outhaul_service_queue_known").await == "1").then_some(());
    eventually(LIMIT, "the length of the queue", known).await;
    let log = service.stop().await;
    assert!(log.contains("database is locked") && !log.contains("panicked"), "{log}");
}

/// Row H6 of the fault matrix: the disk of the state file is full, and then it is not.
#[tokio::test]
async fn h6_a_full_disk_under_the_state_file_refuses_and_loses_nothing() {
    let (pg, disk) = (orders().await, Disk::new(16).await);
    let text = format!("state = \"{}/state.sqlite3\"\n{}{OFTEN}", disk.folder().display(), config(&pg));
    let service = Service::by(&text, |file| soon(disk.outhaul(&["serve", "--config", file]))).await;
    let before = ended(&service, "acme-key", &id_of(&submit(&service, "acme-key", BODY, "").await)).await;
    assert_eq!(before["status"], "complete", "{before}");
    disk.fill();
    // A page of the file may have room for one or two still.
    let refused = eventually(LIMIT, "a refusal", async || {
        let answer = submit(&service, "globex-key", BODY, "").await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    refused.problem(503, "state_unavailable");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let listed = |list: &Value| list["exports"].as_array().unwrap().len();
    let queued = listed(&service.get("globex-key", "/v1/exports").await.json());
    // What was answered is there still.
    let id = before["id"].as_str().unwrap();
    assert_eq!(job(&service, "acme-key", id).await["status"], "complete");
    are_numbers(&service.metrics().await);
    std::fs::remove_file(disk.seen().join("filler")).unwrap();
    let next = submit(&service, "acme-key", BODY, "").await;
    assert_eq!(next.status, 202, "{next:?}");
    let done = ended(&service, "acme-key", &id_of(&next)).await;
    assert_eq!((&done["status"], &done["rows"]), (&"complete".into(), &18_000.into()), "{done}");
    assert_eq!(listed(&service.get("globex-key", "/v1/exports").await.json()), queued, "what was refused is not there");
    let removed = service.ask(&request("DELETE", "acme-key", &format!("/v1/exports/{id}"), "", "")).await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let log = service.stop().await;
    assert!(!log.contains("panicked"), "{log}");
}

/// Row H6 of the fault matrix: on a disk that is mounted read-only the service says so, and does not start.
#[tokio::test]
async fn h6_a_state_file_that_cannot_be_written_is_told_at_the_start() {
    let (pg, disk) = (orders().await, Disk::new(16).await);
    let text = format!("state = \"{}/state.sqlite3\"\n{}", disk.folder().display(), config(&pg));
    let service = Service::by(&text, |file| disk.outhaul(&["serve", "--config", file])).await;
    let file = service.folder.path().join("service.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    service.stop().await;
    disk.remount("ro").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.toml");
    std::fs::write(&file, text).unwrap();
    let refused = disk.outhaul(&["serve", "--config", file.to_str().unwrap()]).run().await.expect(2).stderr;
    assert!(refused.contains("state.sqlite3") && refused.contains("must be writable"), "{refused}");
    assert!(refused.contains("ead-only file system"), "{refused}");
}
