//! The queue under several processes: its bounds, its turns, and what is lost when connections are.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::tests::{Database, SHORT, USUAL};
use super::*;
use crate::service::state::jobs_conformance::{self, job, served};
use crate::service::state::{
    ClaimLimits, JobEnd, JobFinish, JobLease, JobProgress, JobRecord, JobStatus, JobStore, Submitted,
};

const LIMITS: ClaimLimits = ClaimLimits { lease: Duration::from_mins(10), per_tenant: 2 };

async fn queue(store: &PostgresStore, id: &str, tenant: &str) {
    let submitted = store.submit(job(id, tenant), None, 1_000).await.unwrap();
    assert!(matches!(submitted, Submitted::Queued(_)), "{submitted:?}");
}

fn lease(job: &JobRecord) -> JobLease {
    JobLease { id: job.id.clone(), attempt: job.attempt }
}

fn ended(rows: u64) -> JobEnd {
    let progress = JobProgress { rows, ..JobProgress::default() };
    let keep = Some(Duration::from_mins(1));
    JobEnd { status: JobStatus::Complete, progress, error: None, max_rows: None, keep, untried: false }
}

#[tokio::test]
async fn its_queue_does_what_every_queue_does() {
    for version in [15, 18] {
        let database = Database::new(version, "").await;
        jobs_conformance::all(async || database.store(SHORT).await).await;
        database.drop().await;
    }
}

#[tokio::test]
async fn a_tenant_s_bound_holds_however_many_processes_claim() {
    for version in [15, 18] {
        let database = Database::new(version, "").await;
        let stores = join_all((0..4).map(|_| database.store(USUAL))).await;
        for number in 0..80 {
            queue(&stores[0], &format!("bound-{number}"), "a").await;
        }
        for round in 0..15 {
            let claims = stores.iter().flat_map(|store| (0..3).map(|_| store.claim("w".to_owned(), served(), LIMITS)));
            let claimed: Vec<JobRecord> = join_all(claims).await.into_iter().filter_map(Result::unwrap).collect();
            assert_eq!(claimed.len(), 2, "round {round}: {claimed:?}");
            for job in claimed {
                assert_eq!(stores[0].finish_job(lease(&job), ended(1), Vec::new()).await.unwrap(), JobFinish::Ended);
            }
        }
        database.drop().await;
    }
}

#[tokio::test]
async fn two_hundred_jobs_of_ten_tenants_have_their_turns() {
    const TENANTS: usize = 10;
    const EACH: usize = 20;
    const WORKERS: usize = 4;
    let database = Database::new(18, "").await;
    let stores = join_all((0..2).map(|_| database.store(USUAL))).await;
    // All jobs of one tenant stand before those of the next.
    for tenant in 0..TENANTS {
        for number in 0..EACH {
            queue(&stores[0], &format!("turn-{tenant}-{number}"), &format!("t{tenant}")).await;
        }
    }
    let turns = Mutex::new(Vec::new());
    let work = async |store: &PostgresStore| {
        while let Some(job) = store.claim("w".to_owned(), served(), LIMITS).await.unwrap() {
            turns.lock().unwrap().push(job.tenant.clone());
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(store.finish_job(lease(&job), ended(1), Vec::new()).await.unwrap(), JobFinish::Ended);
        }
    };
    let begun = std::time::Instant::now();
    join_all(stores.iter().flat_map(|store| (0..WORKERS / 2).map(|_| work(store)))).await;
    println!("{} jobs in {:?}", TENANTS * EACH, begun.elapsed());
    let turns = turns.into_inner().unwrap();
    assert_eq!(turns.len(), TENANTS * EACH, "none is lost, none comes twice");
    let mut had: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, tenant) in turns.iter().enumerate() {
        let turn = had.entry(tenant).or_default();
        *turn += 1;
        // Whoever comes for the nth time has waited for n turns of each, and for what the other workers were at.
        assert!(place < *turn * TENANTS + WORKERS, "turn {turn} of {tenant} is at {place}: {turns:?}");
    }
    database.drop().await;
}

#[tokio::test]
async fn lost_connections_lose_and_double_no_job() {
    let database = Database::new(18, "").await;
    let store = database.store(USUAL).await;
    let work = async {
        for number in 0..100 {
            let id = format!("cut-{number}");
            queue(&store, &id, "a").await;
            // A claim whose answer was lost is another attempt of somebody who takes the job over; here, ours.
            let short = ClaimLimits { lease: Duration::from_millis(50), per_tenant: 100 };
            let job = loop {
                if let Some(job) = store.claim("w".to_owned(), served(), short).await.unwrap() {
                    break job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            assert_eq!(job.id, id);
            assert_eq!(
                store.finish_job(lease(&job), ended(number), Vec::new()).await.unwrap(),
                JobFinish::Ended,
                "{number}"
            );
        }
    };
    let cuts = async {
        loop {
            tokio::time::sleep(Duration::from_millis(70)).await;
            database.cut().await;
        }
    };
    tokio::select! { () = work => {}, () = cuts => {} }
    let jobs = store.jobs("a".to_owned(), None, 1_000).await.unwrap();
    let rows: Vec<u64> = jobs.iter().map(|job| job.progress.rows).collect();
    assert_eq!(rows, (0..100).rev().collect::<Vec<_>>());
    database.drop().await;
}

/// A worker of another process hears of what is queued, given back, and ended, also after its connection was lost.
#[tokio::test]
async fn other_processes_hear_that_there_is_work() {
    for version in [15, 18] {
        let database = Database::new(version, "").await;
        let (one, other) = (database.store(USUAL).await, database.store(USUAL).await);
        let queued = Arc::new(Notify::new());
        let listener = tokio::spawn(other.hints(Arc::clone(&queued)));
        let heard = async || tokio::time::timeout(Duration::from_secs(10), queued.notified()).await.is_ok();
        // The listener tells of its own start.
        assert!(heard().await, "{version}");
        queue(&one, "heard", "a").await;
        assert!(heard().await, "{version}: of a job");
        let claimed = one.claim("w".to_owned(), served(), LIMITS).await.unwrap().unwrap();
        assert!(one.give_back(lease(&claimed), None, Duration::ZERO, false).await.unwrap());
        assert!(heard().await, "{version}: of a job that was given back");
        let claimed = one.claim("w".to_owned(), served(), LIMITS).await.unwrap().unwrap();
        assert_eq!(one.finish_job(lease(&claimed), ended(1), Vec::new()).await.unwrap(), JobFinish::Ended);
        assert!(heard().await, "{version}: of a free place");
        // Nothing else is a hint.
        assert_eq!(one.claim("w".to_owned(), served(), LIMITS).await.unwrap(), None);
        assert!(tokio::time::timeout(Duration::from_millis(300), queued.notified()).await.is_err(), "{version}");
        database.cut().await;
        assert!(heard().await, "{version}: that it listens again");
        queue(&one, "heard again", "a").await;
        assert!(heard().await, "{version}: of a job after that");
        listener.abort();
        drop((one, other));
        database.drop().await;
    }
}

/// que-rb/que#229: where the server takes no notifications, nothing was queued any more.
#[tokio::test]
async fn a_hint_that_cannot_be_sent_costs_nothing() {
    let database = Database::new(18, "").await;
    let store = database.store(USUAL).await;
    let no_hints = "ALTER FUNCTION pg_catalog.pg_notify (text, text) RENAME TO pg_notify_no_more";
    database.client().await.batch_execute(no_hints).await.unwrap();
    for number in 0..3 {
        queue(&store, &format!("unheard-{number}"), "a").await;
        let claimed = store.claim("w".to_owned(), served(), LIMITS).await.unwrap().unwrap();
        assert_eq!(store.finish_job(lease(&claimed), ended(1), Vec::new()).await.unwrap(), JobFinish::Ended);
    }
    database.drop().await;
}

/// Row H6 of the fault matrix: each claim looks at the tenants, and not at each waiting job's tenant anew.
#[tokio::test]
async fn h6_of_ten_thousand_that_wait_the_next_is_claimed_at_once() {
    let database = Database::new(18, "").await;
    let store = database.store(USUAL).await;
    queue(&store, "model", "t0").await;
    // A history too, and some that run.
    database
        .client()
        .await
        .batch_execute(
            "CREATE TEMP TABLE model AS SELECT * FROM outhaul.job;
            UPDATE model SET created_at = created_at + 1;
            INSERT INTO outhaul.job SELECT (jsonb_populate_record(model, jsonb_build_object(
                'id', 'wait-' || n, 'tenant', 't' || n % 10, 'destination', 's3://bucket/x/wait-' || n))).*
                FROM model, generate_series(1, 10000) n;
            INSERT INTO outhaul.job SELECT (jsonb_populate_record(model, jsonb_build_object(
                'id', 'done-' || n, 'tenant', 't' || n % 10, 'status', 'complete', 'claimed_at', n, 'removed', true))).*
                FROM model, generate_series(1, 20000) n;
            INSERT INTO outhaul.job SELECT (jsonb_populate_record(model, jsonb_build_object(
                'id', 'runs-' || n, 'tenant', 't' || n % 10, 'status', 'running', 'lease_until', model.created_at * 2))).*
                FROM model, generate_series(1, 50) n",
        )
        .await
        .unwrap();
    let limits = ClaimLimits { per_tenant: 10, ..LIMITS };
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        assert!(store.claim("w".to_owned(), served(), limits).await.unwrap().is_some());
    }
    let each = begun.elapsed() / 20;
    println!("a claim from 10,000 jobs that wait: {each:?}");
    assert!(each < Duration::from_millis(500), "{each:?}");
    database.drop().await;
}
