//! `outhaul serve` as one process that answers and two that work: killed at random moments, and asked for far more than it can
//! do at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, outhaul};
use crate::support::service::{BodyEnd, Service, key, kills};

const ROWS: u64 = 20_000;

const TENANTS: u64 = 10;

/// Rows of ten tenants, and a view over which an export takes a second: a kill then meets it at work.
async fn rows() -> Pg {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, tenant int not null, note text not null);
        insert into orders select n, n % {TENANTS}, 'canary of ' || n from generate_series(1, {ROWS}) n;
        create view slow as select id, tenant, case when id % 500 < 10 then note || pg_sleep(0.02)::text
            else note end as note from orders;
        analyze",
    ))
    .await;
    pg
}

fn config(pg: &Pg, state: &Pg, more: &str) -> String {
    let keys: String = (0..TENANTS).map(|tenant| key(&format!("key-{tenant}"), &tenant.to_string(), "all")).collect();
    format!(
        "state_url = \"{}\"
{keys}{more}
[tier.all]
max_rows = \"unlimited\"
[source.shop]
from = \"{}\"
[dataset.orders]
table = \"orders\"
tenant = \"tenant = {{tenant}}\"
tenant_type = \"int\"
[dataset.orders.columns]
id = {{ sort = true }}
note = {{}}
[dataset.slow]
query = \"select id, tenant, note from slow\"
key = \"id\"
tenant = \"tenant = {{tenant}}\"
tenant_type = \"int\"
[dataset.slow.columns]
id = {{ sort = true }}
note = {{}}
",
        state.url, pg.url
    )
}

/// Leases that a test can wait for.
fn soon(command: Outhaul) -> Outhaul {
    let limits = "job_lease=1,job_backoff=0.1,job_poll=0.1,job_figures=0.1,webhook_hold=1,webhook_retry=0.1";
    command.env("OUTHAUL_TEST_LIMITS", limits)
}

async fn role(text: &str, role: &str) -> Service {
    Service::with_words(text, &["--role", role, "-v"], soon).await
}

async fn submit(api: &Service, tenant: u64, dataset: &str) -> String {
    let body = json!({"dataset": dataset, "mode": "background", "format": "csv", "columns": ["id", "note"]});
    let answer = api.post(&format!("key-{tenant}"), "/v1/exports", &body.to_string(), "").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn job(api: &Service, tenant: u64, id: &str) -> Value {
    api.get(&format!("key-{tenant}"), &format!("/v1/exports/{id}")).await.json()
}

/// All of these, once each has ended.
async fn ended(api: &Service, jobs: &[(u64, String)]) -> Vec<Value> {
    let mut all = Vec::new();
    for (tenant, id) in jobs {
        let end = async || Some(job(api, *tenant, id).await).filter(|job| job["completed_at"].is_string());
        all.push(eventually(Duration::from_mins(2), "the export's end", end).await);
    }
    all
}

/// A receiver of webhooks that takes everything, and the messages that it was sent, by their ids.
async fn receiver() -> (String, Arc<Mutex<BTreeMap<String, Vec<Value>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let told: Arc<Mutex<BTreeMap<String, Vec<Value>>>> = Arc::default();
    let kept = Arc::clone(&told);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut text = Vec::new();
                // Whoever is killed while he sends it comes again.
                while !text.ends_with(b"}") {
                    if socket.read_buf(&mut text).await.is_ok_and(|read| read == 0) {
                        return;
                    }
                }
                let text = String::from_utf8(text).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let id = head.lines().find_map(|line| line.strip_prefix("webhook-id: ")).unwrap().to_owned();
                kept.lock().unwrap().entry(id).or_default().push(serde_json::from_str(body).unwrap());
                drop(socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await);
            });
        }
    });
    (url, told)
}

/// The file of an export is the tenant's rows, each once, and what stands at its destination is as its manifest says.
async fn is_whole(api: &Service, tenant: u64, done: &Value) {
    let link = done["download_url"].as_str().unwrap();
    let file = api.ask(&format!("GET {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert_eq!((file.status, file.end), (200, BodyEnd::Whole));
    let mut ids: Vec<u64> =
        file.text().lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq((1..=ROWS).filter(|id| id % TENANTS == tenant)), "{done}");
    let folders = std::fs::read_dir(api.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut exports = folders.filter(|path| path.extension().is_some_and(|extension| extension == "exports"));
    let folder = exports.next().unwrap().join(done["id"].as_str().unwrap());
    outhaul(["verify", folder.to_str().unwrap()]).run().await.expect(0);
}

#[tokio::test]
async fn killed_workers_and_a_killed_api_neither_lose_nor_double_an_export() {
    let (pg, state) = tokio::join!(rows(), pg(15));
    let (url, told) = receiver().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    // A soak kills often enough that five attempts would be an honest end.
    let hook =
        format!("[jobs]\nattempts = 100\n[[webhook]]\nname = \"backend\"\nurl = \"{url}\"\nsecret = \"{secret}\"\n");
    let text = config(&pg, &state, &hook);
    let mut api = role(&text, "api").await;
    let mut workers = [role(&text, "worker").await, role(&text, "worker").await];
    let mut jobs = Vec::new();
    let mut first_ends: BTreeMap<String, Value> = BTreeMap::new();
    for _ in 0..kills() {
        for tenant in [rand::random::<u64>() % TENANTS, rand::random::<u64>() % TENANTS] {
            jobs.push((tenant, submit(&api, tenant, "slow").await));
        }
        tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 900)).await;
        for (tenant, id) in &jobs {
            let found = job(&api, *tenant, id).await;
            if found["completed_at"].is_string() {
                first_ends.entry(id.clone()).or_insert(found);
            }
        }
        match rand::random::<u64>() % 4 {
            0 => api = api.killed_and_started(soon).await,
            one => {
                let [left, right] = workers;
                workers = if one == 1 {
                    [left.killed_and_started(soon).await, right]
                } else {
                    [left, right.killed_and_started(soon).await]
                };
            }
        }
    }
    let done = ended(&api, &jobs).await;
    let mut again = 0;
    for ((tenant, id), done) in jobs.iter().zip(&done) {
        assert_eq!((&done["status"], done["rows"].as_u64()), (&json!("complete"), Some(ROWS / TENANTS)), "{done}");
        // An end is one.
        if let Some(first) = first_ends.get(id) {
            assert_eq!((&first["completed_at"], &first["attempt"]), (&done["completed_at"], &done["attempt"]));
        }
        again += usize::from(done["attempt"].as_u64().unwrap() > 1);
        is_whole(&api, *tenant, done).await;
    }
    println!("{} exports, {again} of them by several attempts", jobs.len());
    assert!(again > 0, "no kill met an export at work");
    let all = || told.lock().unwrap().len() >= jobs.len();
    eventually(Duration::from_secs(30), "all messages", async || all().then_some(())).await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    let expected: Vec<String> = jobs.iter().map(|(_, id)| format!("msg_{id}_ready_backend")).collect();
    assert_eq!(told.keys().collect::<std::collections::BTreeSet<_>>(), expected.iter().collect());
    for bodies in told.values() {
        assert!(bodies.iter().all(|body| *body == bodies[0] && body["type"] == "export.ready"), "{bodies:?}");
    }
    for process in workers.into_iter().chain([api]) {
        let log = process.stop().await;
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// titen#148, backburner#154: a worker that had read an older file failed what it did not know, and told nobody of what it did.
#[tokio::test]
async fn a_job_of_a_newer_file_waits_for_a_worker_that_has_read_it() {
    let (pg, state) = tokio::join!(rows(), pg(15));
    let (url, told) = receiver().await;
    let hook = format!(
        "[[webhook]]\nname = \"backend\"\nurl = \"{url}\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
    );
    let new = format!("public_url = \"https://example.com/x\"\n{}", config(&pg, &state, &hook));
    let old = config(&pg, &state, "");
    let old = old.split("[dataset.slow]").next().unwrap();
    let (api, worker) = (role(&new, "api").await, role(old, "worker").await);
    let waits = submit(&api, 1, "slow").await;
    let done = submit(&api, 1, "orders").await;
    assert_eq!(ended(&api, &[(1, done.clone())]).await[0]["status"], "complete");
    eventually(Duration::from_secs(30), "the message", async || (!told.lock().unwrap().is_empty()).then_some(())).await;
    let bodies = std::mem::take(&mut *told.lock().unwrap());
    let body = &bodies[&format!("msg_{done}_ready_backend")][0];
    assert!(body["download_url"].as_str().unwrap().starts_with("https://example.com/x/v1/exports/"), "{body}");
    // Ten looks at the queue later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(job(&api, 1, &waits).await["status"], "queued");
    let newer = role(&new, "worker").await;
    assert_eq!(ended(&api, &[(1, waits)]).await[0]["status"], "complete");
    newer.stop().await;
    // Nobody has it for too long, and whoever comes says so.
    let gone = submit(&api, 1, "slow").await;
    worker.stop().await;
    let impatient = |command| soon(command).env("OUTHAUL_TEST_LIMITS", "job_poll=0.1,job_patience=0.3");
    let worker = Service::with_words(old, &["--role", "worker"], impatient).await;
    let gone = ended(&api, &[(1, gone)]).await;
    assert_eq!(gone[0]["error"]["message"], "the dataset is not served any more", "{gone:?}");
    worker.stop().await;
    api.stop().await;
}

/// Ten tenants, whose exports are queued one tenant after the other, have their turns; no tenant has more than two at a time,
/// and memory does not grow with the queue.
#[tokio::test]
async fn exports_of_ten_tenants_take_turns_whoever_came_first() {
    let each: usize = std::env::var("OUTHAUL_TEST_EXPORTS").map_or(3, |number| number.parse().unwrap());
    let (pg, state) = tokio::join!(rows(), pg(18));
    let text = config(&pg, &state, "");
    let api = role(&text, "api").await;
    let mut jobs = Vec::new();
    for tenant in 0..TENANTS {
        for _ in 0..each {
            jobs.push((tenant, submit(&api, tenant, "orders").await));
        }
    }
    let queued = jobs.len().to_string();
    let counted = async || (api.metric("outhaul_service_jobs{status=\"queued\"}").await == queued).then_some(());
    // A process that only answers takes none of them.
    eventually(Duration::from_secs(20), "the length of the queue", counted).await;
    assert_eq!(api.metric("outhaul_service_lease_age_seconds").await, "0");
    let begun = std::time::Instant::now();
    let worker = role(&text, "worker").await;
    let done = ended(&api, &jobs).await;
    let took = begun.elapsed();
    let moment = |job: &Value, field: &str| {
        chrono::DateTime::parse_from_rfc3339(job[field].as_str().unwrap()).unwrap().timestamp_micros()
    };
    let mut spans = Vec::new();
    for ((tenant, _), job) in jobs.iter().zip(&done) {
        assert_eq!((&job["status"], &job["attempt"]), (&json!("complete"), &json!(1)), "{job}");
        spans.push((moment(job, "started_at"), moment(job, "completed_at"), *tenant));
    }
    spans.sort_unstable();
    let turns: Vec<u64> = spans.iter().map(|(_, _, tenant)| *tenant).collect();
    let tenants = usize::try_from(TENANTS).unwrap();
    let mut had: BTreeMap<u64, usize> = BTreeMap::new();
    for (place, tenant) in turns.iter().enumerate() {
        let turn = had.entry(*tenant).or_default();
        *turn += 1;
        // The other worker's job may be the tenant's own of before.
        assert!(place < *turn * tenants + 2, "turn {turn} of {tenant} is at {place}: {turns:?}");
    }
    let first = spans[0].0;
    let waited: BTreeMap<u64, i64> = had
        .keys()
        .map(|tenant| {
            (*tenant, spans.iter().filter(|span| span.2 == *tenant).map(|span| (span.0 - first) / 1_000).sum())
        })
        .collect();
    let waited: Vec<i64> = waited.into_values().map(|sum| sum / i64::try_from(each).unwrap()).collect();
    assert_eq!(worker.metric("outhaul_service_jobs_total{status=\"complete\"}").await, queued);
    let figures = json!({
        "tenants": TENANTS, "exports": jobs.len(), "rows_each": ROWS / TENANTS, "seconds": took.as_secs_f64(),
        "mean_wait_ms_by_tenant": waited, "api_peak_mb": peak(&api), "worker_peak_mb": peak(&worker),
    });
    println!("{figures}");
    // A worker's own needs, and not those of a queue.
    assert!(peak(&worker) < 400.0 && peak(&api) < 200.0, "{figures}");
    for process in [worker, api] {
        process.stop().await;
    }
}

/// When a job of an idle worker in another process began, in seconds after it was queued.
async fn waited(limits: &str, off: &str) -> f64 {
    let (pg, state) = tokio::join!(rows(), pg(18));
    let text = config(&pg, &state, "");
    let limited = |command: Outhaul| {
        let all = format!("{off},{}", std::env::var("OUTHAUL_TEST_OFF").unwrap_or_default());
        command.env("OUTHAUL_TEST_LIMITS", limits).env("OUTHAUL_TEST_OFF", all)
    };
    let words = |role| ["--role", role, "-v"];
    let api = Service::with_words(&text, &words("api"), limited).await;
    let worker = Service::with_words(&text, &words("worker"), limited).await;
    // Its first look found nothing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = submit(&api, 1, "orders").await;
    let done = ended(&api, &[(1, id)]).await.remove(0);
    assert_eq!((&done["status"], &done["attempt"]), (&json!("complete"), &json!(1)), "{done}");
    let at = |field: &str| chrono::DateTime::parse_from_rfc3339(done[field].as_str().unwrap()).unwrap();
    let waited = at("started_at") - at("created_at");
    for process in [worker, api] {
        process.stop().await;
    }
    waited.as_seconds_f64()
}

/// A worker that looks once in half a minute has the job at once, because it hears of it.
#[tokio::test]
async fn a_worker_of_another_process_hears_of_a_job_long_before_it_looks() {
    let waited = waited("job_poll=30", "none").await;
    assert!(waited < 8.0, "{waited}");
}

/// Behind a pooler nothing is heard, and looking is enough.
#[tokio::test]
async fn a_worker_that_hears_nothing_finds_the_job_by_looking() {
    let waited = waited("job_poll=2", "job_hint").await;
    assert!(waited < 20.0, "{waited}");
}

/// Peak of resident memory, in MB.
fn peak(service: &Service) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", service.process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
