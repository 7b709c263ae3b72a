//! What the queue of every store does. A store's own tests call [`all`] with a function that opens the same store again and
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};

use super::{
    Cancelled, ClaimLimits, Expiry, IdempotencyKey, JobCursor, JobEnd, JobFinish, JobLease, JobProgress, JobRecord,
    JobStatus, JobsServed, LeaseState, OutboxMessage, RecordedError, StateStore, Submitted,
};

const LONG: Duration = Duration::from_mins(10);
const NONE: Duration = Duration::ZERO;
const LIMITS: ClaimLimits = ClaimLimits { lease: LONG, per_tenant: 2 };

/// Opens the store; the one that was opened before has been dropped.
pub(crate) async fn all<S: StateStore>(open: impl AsyncFn() -> S) {
    a_job_is_kept_as_it_was_given(&open().await).await;
    a_request_that_is_made_twice_is_one_job(&open().await).await;
    a_tenant_has_so_many_jobs_and_sees_its_own(&open().await).await;
    a_list_is_read_in_pieces(&open().await).await;
    each_tenant_has_its_turn(&open().await).await;
    a_job_is_claimed_once_however_many_ask(&open().await).await;
    a_job_waits_for_a_worker_that_has_what_it_needs(&open().await).await;
    a_lease_that_ran_out_is_taken_over_and_the_late_attempt_writes_nothing(&open().await).await;
    a_job_that_is_given_back_waits(&open().await).await;
    an_end_without_a_try_is_no_attempt(&open().await).await;
    what_runs_is_cancelled_by_its_worker_and_what_waits_at_once(&open().await).await;
    what_commits_is_not_cancelled(&open().await).await;
    an_end_and_what_tells_of_it_are_one(&open().await).await;
    each_receiver_has_its_own_messages(&open().await).await;
    what_is_ready_expires_once(&open().await).await;
    what_cannot_be_removed_waits_behind_all_others(&open().await).await;
    what_is_over_is_forgotten_once_its_files_are_gone(&open().await).await;
    names_and_messages_are_not_kept_for_ever(&open().await).await;
    a_queue_outlives_its_store(&open).await;
}

pub(crate) fn job(id: &str, tenant: &str) -> JobRecord {
    JobRecord {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        user: None,
        credential: "ci".to_owned(),
        request_id: "r".to_owned(),
        dataset: "orders".to_owned(),
        mode: "background".to_owned(),
        request: "{}".to_owned(),
        format: "csv".to_owned(),
        compression: "gzip".to_owned(),
        file_name: "orders".to_owned(),
        destination: format!("s3://bucket/x/{id}"),
        tier: Some("free".to_owned()),
        telling: Some("{}".to_owned()),
        overdue: false,
        status: JobStatus::Queued,
        attempt: 0,
        forgiven: 0,
        max_rows: None,
        estimated_rows: None,
        estimated_minutes: None,
        progress: JobProgress::default(),
        truncated: false,
        created_at: Utc::now(),
        started_at: None,
        claimed_at: None,
        completed_at: None,
        expires_at: None,
        error: None,
        revocation: 0,
        version: 1,
    }
}

async fn queue(store: &impl StateStore, id: &str, tenant: &str) -> JobRecord {
    match store.submit(job(id, tenant), None, 1_000).await.unwrap() {
        Submitted::Queued(job) => job,
        other => panic!("{other:?}"),
    }
}

/// What is needed for each [`job`].
pub(crate) fn served() -> Arc<JobsServed> {
    let [datasets, tiers, destinations] = [["orders", "new"], ["free", "pro"], ["s3://bucket/x", "s3://bucket/y"]]
        .map(|names| names.map(str::to_owned).into());
    Arc::new(JobsServed { datasets, tiers, destinations, patience: LONG })
}

async fn claim(store: &impl StateStore, limits: ClaimLimits) -> Option<(JobRecord, JobLease)> {
    let claimed = store.claim("w".to_owned(), served(), limits).await.unwrap()?;
    let lease = JobLease { id: claimed.id.clone(), attempt: claimed.attempt };
    Some((claimed, lease))
}

fn end(status: JobStatus) -> JobEnd {
    let keep = status.is_ready().then_some(LONG);
    JobEnd { status, progress: progress(5), error: None, max_rows: Some(7), keep, untried: false }
}

fn progress(number: u64) -> JobProgress {
    JobProgress { rows: number, bytes: number * 10, parts: 1, committing: false }
}

fn failure(code: &str) -> RecordedError {
    RecordedError { code: code.to_owned(), message: format!("it was {code}") }
}

fn message(id: &str, export: &str) -> OutboxMessage {
    OutboxMessage {
        id: id.to_owned(),
        export_id: export.to_owned(),
        target: "ours".to_owned(),
        event: "export.ready".to_owned(),
        body: format!("{{\"id\":\"{export}\"}} \u{1f980}"),
        attempt: 0,
    }
}

/// What is due to the receiver of [`message`].
async fn due(store: &impl StateStore, most: u32, hold: Duration) -> Vec<OutboxMessage> {
    store.due_messages(vec!["ours".to_owned()], most, hold).await.unwrap()
}

async fn found(store: &impl StateStore, id: &str) -> JobRecord {
    store.any_job(id.to_owned()).await.unwrap().unwrap()
}

/// Ends all that is live, so that the next test has the queue to itself.
async fn drain(store: &impl StateStore) {
    let limits = ClaimLimits { lease: LONG, per_tenant: 10_000 };
    while let Some((_, lease)) = claim(store, limits).await {
        assert_eq!(store.finish_job(lease, end(JobStatus::Cancelled), Vec::new()).await.unwrap(), JobFinish::Ended);
    }
}

async fn a_job_is_kept_as_it_was_given(store: &impl StateStore) {
    let mut given = job("kept", "Tenant 'quoted' \u{1f980}");
    given.user = Some("ü\"; DROP TABLE job; --".to_owned());
    given.request = "{\"where\":[{\"value\":\"'\\u0000'\"}]}".to_owned();
    (given.max_rows, given.estimated_rows, given.estimated_minutes) = (Some(10), Some(i64::MAX as u64), Some(3));
    let Submitted::Queued(queued) = store.submit(given.clone(), None, 1).await.unwrap() else { panic!() };
    given.created_at = queued.created_at;
    assert_eq!(queued, given);
    assert!((Utc::now() - queued.created_at).abs() < TimeDelta::minutes(1));
    assert_eq!(store.job(given.id.clone(), given.tenant.clone()).await.unwrap(), Some(given.clone()));
    for tenant in ["another", "", "%"] {
        assert_eq!(store.job(given.id.clone(), tenant.to_owned()).await.unwrap(), None);
        assert_eq!(store.cancel(given.id.clone(), tenant.to_owned()).await.unwrap(), None);
    }
    store.submit(given, None, 10).await.unwrap_err();
    drain(store).await;
}

async fn a_request_that_is_made_twice_is_one_job(store: &impl StateStore) {
    let key = |body: u8, keep| Some(IdempotencyKey { key: "mine".to_owned(), body_sha256: [body; 32], keep });
    let Submitted::Queued(first) = store.submit(job("twice-1", "i"), key(1, LONG), 9).await.unwrap() else { panic!() };
    assert_eq!(store.submit(job("twice-2", "i"), key(1, LONG), 9).await.unwrap(), Submitted::Known(first));
    assert_eq!(store.submit(job("twice-3", "i"), key(2, LONG), 9).await.unwrap(), Submitted::OtherBody);
    // mastodon/mastodon#37879: those that come at the same moment are one as well, and a bound counts all of them.
    let at_once = (0..12).map(|number| store.submit(job(&format!("at-once-{number}"), "at-once"), key(1, LONG), 9));
    let answers: Vec<_> = futures_util::future::join_all(at_once).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Submitted::Queued(_))).count(), 1, "{answers:?}");
    let known = |answer: &Submitted| matches!(answer, Submitted::Queued(job) | Submitted::Known(job) if job.id.starts_with("at-once"));
    assert!(answers.iter().all(known), "{answers:?}");
    assert_eq!(store.jobs("at-once".to_owned(), None, 99).await.unwrap().len(), 1);
    let at_once = (0..12).map(|number| store.submit(job(&format!("bound-{number}"), "at-once"), None, 5));
    let answers = futures_util::future::join_all(at_once).await;
    let queued = answers.into_iter().filter(|answer| matches!(answer, Ok(Submitted::Queued(_)))).count();
    assert_eq!(queued, 4, "with the one from before");
    // Another tenant's name is another name.
    let other = store.submit(job("twice-4", "other"), key(2, NONE), 9).await.unwrap();
    assert!(matches!(other, Submitted::Queued(_)));
    // It was kept for no time at all.
    let again = store.submit(job("twice-5", "other"), key(3, LONG), 9).await.unwrap();
    assert!(matches!(again, Submitted::Queued(_)));
    for id in ["twice-2", "twice-3"] {
        assert_eq!(store.any_job(id.to_owned()).await.unwrap(), None);
    }
    drain(store).await;
}

async fn a_tenant_has_so_many_jobs_and_sees_its_own(store: &impl StateStore) {
    for (id, expected) in [("many-1", true), ("many-2", true), ("many-3", false)] {
        let queued = store.submit(job(id, "bounded"), None, 2).await.unwrap();
        assert_eq!(matches!(queued, Submitted::Queued(_)), expected, "{queued:?}");
    }
    assert!(matches!(store.submit(job("many-4", "b2"), None, 2).await.unwrap(), Submitted::Queued(_)));
    drain(store).await;
    assert!(matches!(store.submit(job("many-5", "bounded"), None, 2).await.unwrap(), Submitted::Queued(_)));
    drain(store).await;
}

async fn a_list_is_read_in_pieces(store: &impl StateStore) {
    for number in 0..7 {
        queue(store, &format!("list-{number}"), "lister").await;
    }
    queue(store, "list-other", "other").await;
    let (mut after, mut ids) = (None, Vec::new());
    loop {
        let piece = store.jobs("lister".to_owned(), after, 3).await.unwrap();
        assert!(piece.len() <= 3);
        let Some(last) = piece.last() else { break };
        after = Some(JobCursor { created_at: last.created_at, id: last.id.clone() });
        ids.extend(piece.into_iter().map(|job| (job.created_at, job.id)));
    }
    assert_eq!(ids.len(), 7);
    assert!(ids.is_sorted_by(|one, next| one > next), "{ids:?}");
    drain(store).await;
}

/// The third tenant's one job does not wait for the forty of the first, and nobody has more at a time than he may.
async fn each_tenant_has_its_turn(store: &impl StateStore) {
    for number in 0..20 {
        queue(store, &format!("turn-a-{number}"), "turn-a").await;
    }
    for number in 0..20 {
        queue(store, &format!("turn-b-{number}"), "turn-b").await;
    }
    queue(store, "turn-c", "turn-c").await;
    let mut order = Vec::new();
    // One worker, which does one after the other.
    for _ in 0..6 {
        let (claimed, lease) = claim(store, LIMITS).await.unwrap();
        order.push(claimed.tenant);
        assert_eq!(store.finish_job(lease, end(JobStatus::Complete), Vec::new()).await.unwrap(), JobFinish::Ended);
    }
    order[..3].sort();
    order[3..].sort();
    assert_eq!(order[..3], ["turn-a", "turn-b", "turn-c"]);
    let mut running = BTreeMap::<String, u32>::new();
    while let Some((claimed, _)) = claim(store, LIMITS).await {
        *running.entry(claimed.tenant).or_default() += 1;
    }
    assert_eq!(running, [("turn-a".to_owned(), 2), ("turn-b".to_owned(), 2)].into());
    let figures = store.figures().await.unwrap();
    assert_eq!((figures.running, figures.cancelling), (4, 0));
    assert!(figures.oldest_lease.unwrap() < LONG);
    for tenant in ["turn-a", "turn-b"] {
        for running in store.jobs(tenant.to_owned(), None, 100).await.unwrap() {
            let lease = JobLease { id: running.id, attempt: running.attempt };
            store.finish_job(lease, end(JobStatus::Cancelled), Vec::new()).await.unwrap();
        }
    }
    drain(store).await;
    let figures = store.figures().await.unwrap();
    assert_eq!((figures.queued, figures.running, figures.oldest_lease), (0, 0, None));
}

async fn a_job_is_claimed_once_however_many_ask(store: &impl StateStore) {
    for number in 0..12 {
        queue(store, &format!("once-{number}"), &format!("once-{}", number % 4)).await;
    }
    let asking = (0..30).map(|worker| store.claim(format!("w{worker}"), served(), LIMITS));
    let answers = futures_util::future::join_all(asking).await;
    let mut claimed: Vec<JobRecord> = answers.into_iter().filter_map(Result::unwrap).collect();
    assert!(claimed.iter().all(|job| job.attempt == 1 && job.status == JobStatus::Running));
    // Two of each of the four tenants.
    assert_eq!(claimed.len(), 8);
    claimed.sort_by(|one, other| one.id.cmp(&other.id));
    claimed.dedup_by(|one, other| one.id == other.id);
    assert_eq!(claimed.len(), 8);
    for claimed in claimed {
        let lease = JobLease { id: claimed.id, attempt: 1 };
        assert_eq!(store.finish_job(lease, end(JobStatus::Complete), Vec::new()).await.unwrap(), JobFinish::Ended);
    }
    drain(store).await;
}

/// titen#148: a worker that had read an older file failed what it did not know.
async fn a_job_waits_for_a_worker_that_has_what_it_needs(store: &impl StateStore) {
    let known = served();
    let without = |change: &dyn Fn(&mut JobsServed)| {
        let mut less = JobsServed::clone(&known);
        change(&mut less);
        Arc::new(less)
    };
    let ask = async |served: Arc<JobsServed>| {
        let claimed = store.claim("w".to_owned(), served, LIMITS).await.unwrap();
        claimed.map(|job| (job.id.clone(), JobLease { id: job.id, attempt: job.attempt }))
    };
    let no_dataset = without(&|served| served.datasets = vec!["orders'\\".to_owned()]);
    let no_tier = without(&|served| served.tiers.clear());
    let no_destination =
        without(&|served| served.destinations = vec!["s3://bucket".to_owned(), "s3://bucket/x/".to_owned()]);
    queue(store, "needs", "n").await;
    for less in [&no_dataset, &no_tier, &no_destination] {
        assert_eq!(ask(Arc::clone(less)).await, None, "{less:?}");
    }
    // It keeps nobody from what he has.
    let old = JobRecord { tier: None, destination: "file:///x/folder".to_owned(), ..job("needs-little", "n") };
    assert!(matches!(store.submit(old, None, 9).await.unwrap(), Submitted::Queued(_)));
    let (id, lease) = ask(without(&|served| (served.tiers.clear(), served.destinations.clear()).0)).await.unwrap();
    assert_eq!(id, "needs-little");
    assert_eq!(store.finish_job(lease, end(JobStatus::Complete), Vec::new()).await.unwrap(), JobFinish::Ended);
    // A lease that ran out waits too; what is only to be cleared needs nothing.
    let limits = ClaimLimits { lease: NONE, ..LIMITS };
    let (_, first) = claim(store, limits).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(ask(Arc::clone(&no_dataset)).await, None);
    assert!(matches!(store.cancel("needs".to_owned(), "n".to_owned()).await.unwrap(), Some(Cancelled::Live(_))));
    let (id, lease) = ask(Arc::clone(&no_dataset)).await.unwrap();
    assert_eq!((id, lease.attempt), ("needs".to_owned(), first.attempt + 1));
    assert_eq!(store.finish_job(lease, end(JobStatus::Cancelled), Vec::new()).await.unwrap(), JobFinish::Ended);
    // Nobody has had it for too long: whoever comes says so.
    queue(store, "needs-nobody", "n").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let impatient = without(&|served| (served.datasets, served.patience) = (Vec::new(), Duration::from_millis(1)));
    let (id, lease) = ask(impatient).await.unwrap();
    assert_eq!(id, "needs-nobody");
    assert_eq!(store.finish_job(lease, end(JobStatus::Failed), Vec::new()).await.unwrap(), JobFinish::Ended);
    drain(store).await;
}

async fn a_lease_that_ran_out_is_taken_over_and_the_late_attempt_writes_nothing(store: &impl StateStore) {
    queue(store, "late", "l").await;
    let (_, first) = claim(store, ClaimLimits { lease: NONE, ..LIMITS }).await.unwrap();
    assert_eq!(store.progress(first.clone(), progress(3)).await.unwrap(), LeaseState::Held);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let (again, second) = claim(store, LIMITS).await.expect("the lease has run out");
    assert_eq!((again.attempt, again.progress, again.status), (2, JobProgress::default(), JobStatus::Running));
    // It is held now.
    assert!(claim(store, LIMITS).await.is_none());
    let before = found(store, "late").await;
    assert_eq!(store.renew(first.clone(), LONG).await.unwrap(), LeaseState::Lost);
    assert_eq!(store.progress(first.clone(), progress(9)).await.unwrap(), LeaseState::Lost);
    let told = vec![message("late-message", "late")];
    assert_eq!(store.finish_job(first.clone(), end(JobStatus::Complete), told).await.unwrap(), JobFinish::Lost);
    assert!(!store.give_back(first, Some(failure("late")), NONE, true).await.unwrap());
    assert_eq!(found(store, "late").await, before);
    assert_eq!(due(store, 10, NONE).await, []);
    // A renewal holds it.
    assert_eq!(store.renew(second.clone(), NONE).await.unwrap(), LeaseState::Held);
    assert_eq!(store.renew(second.clone(), LONG).await.unwrap(), LeaseState::Held);
    assert!(claim(store, LIMITS).await.is_none());
    assert_eq!(store.finish_job(second.clone(), end(JobStatus::Complete), Vec::new()).await.unwrap(), JobFinish::Ended);
    assert_eq!(store.finish_job(second.clone(), end(JobStatus::Failed), Vec::new()).await.unwrap(), JobFinish::Lost);
    assert_eq!(store.renew(second, LONG).await.unwrap(), LeaseState::Lost);
    assert_eq!(found(store, "late").await.status, JobStatus::Complete);
}

async fn a_job_that_is_given_back_waits(store: &impl StateStore) {
    queue(store, "back", "g").await;
    let (_, lease) = claim(store, LIMITS).await.unwrap();
    assert!(store.give_back(lease, Some(failure("source")), LONG, true).await.unwrap());
    let waiting = found(store, "back").await;
    assert_eq!((waiting.status, waiting.attempt, waiting.error), (JobStatus::Queued, 1, Some(failure("source"))));
    assert!(claim(store, LIMITS).await.is_none());
    assert!(matches!(store.cancel("back".to_owned(), "g".to_owned()).await.unwrap(), Some(Cancelled::Live(_))));
    queue(store, "back-2", "g").await;
    let (_, lease) = claim(store, LIMITS).await.unwrap();
    assert!(store.give_back(lease.clone(), None, NONE, false).await.unwrap());
    let (again, late) = (claim(store, LIMITS).await.unwrap(), lease);
    let (again, lease) = again;
    // The service stopped: that was no attempt that counts, and its number is not given again.
    assert_eq!((again.attempt, again.forgiven, again.counted()), (2, 1, 1));
    assert_eq!(store.renew(late.clone(), LONG).await.unwrap(), LeaseState::Lost);
    assert_eq!(store.finish_job(late, end(JobStatus::Complete), Vec::new()).await.unwrap(), JobFinish::Lost);
    assert_eq!(store.finish_job(lease, end(JobStatus::Complete), Vec::new()).await.unwrap(), JobFinish::Ended);
}

/// A claim that only found that there is nothing to try is none of the attempts that are told.
async fn an_end_without_a_try_is_no_attempt(store: &impl StateStore) {
    queue(store, "untried", "u").await;
    let (_, first) = claim(store, ClaimLimits { lease: NONE, ..LIMITS }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let (again, second) = claim(store, LIMITS).await.unwrap();
    assert_eq!(again.attempt, 2);
    let untried = JobEnd { untried: true, ..end(JobStatus::Failed) };
    assert_eq!(store.finish_job(second.clone(), untried, Vec::new()).await.unwrap(), JobFinish::Ended);
    let done = found(store, "untried").await;
    assert_eq!((done.status, done.attempt), (JobStatus::Failed, 1));
    // Whoever had that number has it no more.
    for late in [first, second] {
        assert_eq!(store.renew(late.clone(), LONG).await.unwrap(), LeaseState::Lost);
        assert_eq!(store.finish_job(late, end(JobStatus::Complete), Vec::new()).await.unwrap(), JobFinish::Lost);
    }
    assert_eq!(found(store, "untried").await, done);
}

async fn what_runs_is_cancelled_by_its_worker_and_what_waits_at_once(store: &impl StateStore) {
    let cancel = async |id: &str| store.cancel(id.to_owned(), "c".to_owned()).await.unwrap().unwrap();
    queue(store, "cancel-run", "c").await;
    let (_, lease) = claim(store, LIMITS).await.unwrap();
    queue(store, "cancel-wait", "c").await;
    let Cancelled::Live(waiting) = cancel("cancel-wait").await else { panic!() };
    assert_eq!(waiting.status, JobStatus::Cancelled);
    assert!(waiting.completed_at.is_some());
    for _ in 0..2 {
        let Cancelled::Live(running) = cancel("cancel-run").await else { panic!() };
        assert_eq!((running.status, running.completed_at), (JobStatus::Cancelling, None));
    }
    assert_eq!(store.renew(lease.clone(), LONG).await.unwrap(), LeaseState::Cancelling);
    let committing = JobProgress { committing: true, ..progress(1) };
    assert_eq!(store.progress(lease.clone(), committing).await.unwrap(), LeaseState::Cancelling);
    assert!(!found(store, "cancel-run").await.progress.committing);
    // What had committed unseen does not end well.
    for status in [JobStatus::Complete, JobStatus::Truncated, JobStatus::Failed] {
        let told = vec![message("unseen", "cancel-run")];
        assert_eq!(store.finish_job(lease.clone(), end(status), told).await.unwrap(), JobFinish::Cancelling);
    }
    assert_eq!(found(store, "cancel-run").await.status, JobStatus::Cancelling);
    assert_eq!(due(store, 10, NONE).await, []);
    // Its worker died: the next one has it to clear.
    assert!(store.give_back(lease, None, LONG, true).await.unwrap());
    let (again, lease) = claim(store, LIMITS).await.unwrap();
    assert_eq!((again.id.as_str(), again.status), ("cancel-run", JobStatus::Cancelling));
    assert_eq!(store.finish_job(lease, end(JobStatus::Cancelled), Vec::new()).await.unwrap(), JobFinish::Ended);
    let Cancelled::Final(done) = cancel("cancel-run").await else { panic!() };
    assert_eq!(done.status, JobStatus::Cancelled);
}

async fn what_commits_is_not_cancelled(store: &impl StateStore) {
    queue(store, "commit", "c").await;
    let (_, lease) = claim(store, LIMITS).await.unwrap();
    let committing = JobProgress { committing: true, ..progress(1) };
    assert_eq!(store.progress(lease.clone(), committing).await.unwrap(), LeaseState::Held);
    let refused = store.cancel("commit".to_owned(), "c".to_owned()).await.unwrap().unwrap();
    assert!(matches!(refused, Cancelled::Committing(_)), "{refused:?}");
    assert_eq!(store.finish_job(lease, end(JobStatus::Truncated), Vec::new()).await.unwrap(), JobFinish::Ended);
    let done = found(store, "commit").await;
    assert!(done.truncated && !done.progress.committing);
    // Whoever committed has died: nobody waits for the next attempt to hear that. What it wrote unseen does not end well.
    queue(store, "commit-late", "c").await;
    let (_, late) = claim(store, ClaimLimits { lease: NONE, ..LIMITS }).await.unwrap();
    assert_eq!(store.progress(late.clone(), committing).await.unwrap(), LeaseState::Held);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let cancelled = store.cancel("commit-late".to_owned(), "c".to_owned()).await.unwrap().unwrap();
    assert!(matches!(&cancelled, Cancelled::Live(job) if job.status == JobStatus::Cancelling), "{cancelled:?}");
    let unseen = store.finish_job(late, end(JobStatus::Complete), Vec::new()).await.unwrap();
    assert_eq!(unseen, JobFinish::Cancelling);
    let (next, lease) = claim(store, LIMITS).await.unwrap();
    assert_eq!((next.status, next.progress.committing), (JobStatus::Cancelling, false));
    assert_eq!(store.finish_job(lease, end(JobStatus::Cancelled), Vec::new()).await.unwrap(), JobFinish::Ended);
}

async fn an_end_and_what_tells_of_it_are_one(store: &impl StateStore) {
    queue(store, "told", "t").await;
    let (claimed, lease) = claim(store, LIMITS).await.unwrap();
    let unended = JobEnd { status: JobStatus::Cancelling, ..end(JobStatus::Complete) };
    store.finish_job(lease.clone(), unended, Vec::new()).await.unwrap_err();
    let told = vec![message("m1", "told"), message("m2", "told")];
    // Twice the same message is a fault, and the status goes with it.
    let twice = vec![message("m1", "told"), message("m1", "told")];
    store.finish_job(lease.clone(), end(JobStatus::Complete), twice).await.unwrap_err();
    assert_eq!(found(store, "told").await, claimed);
    let before = Utc::now();
    assert_eq!(store.finish_job(lease, end(JobStatus::Complete), told.clone()).await.unwrap(), JobFinish::Ended);
    let done = found(store, "told").await;
    assert_eq!((done.status, done.progress, done.truncated), (JobStatus::Complete, progress(5), false));
    assert_eq!(done.max_rows, Some(7));
    let kept = done.expires_at.unwrap() - before;
    assert!((kept - TimeDelta::minutes(10)).abs() < TimeDelta::minutes(1), "{kept}");
    assert!(done.version > claimed.version && done.started_at == claimed.started_at && done.completed_at.is_some());
    assert_eq!(due(store, 1, LONG).await, told[..1]);
    assert_eq!(due(store, 10, LONG).await, told[1..]);
    // Each is held by whoever sends it.
    assert_eq!(due(store, 10, LONG).await, []);
    store.message_failed("m1".to_owned(), NONE).await.unwrap();
    let again = due(store, 10, NONE).await;
    assert_eq!(again, [OutboxMessage { attempt: 1, ..told[0].clone() }]);
    for id in ["m1", "m2"] {
        store.message_done(id.to_owned()).await.unwrap();
    }
    assert_eq!(due(store, 10, NONE).await, []);
}

/// Whoever sends to one receiver waits for no other.
async fn each_receiver_has_its_own_messages(store: &impl StateStore) {
    queue(store, "sorted", "t").await;
    let (_, lease) = claim(store, LIMITS).await.unwrap();
    let to = |id: &str, target: &str| OutboxMessage { target: target.to_owned(), ..message(id, "sorted") };
    let told = vec![to("s1", "one"), to("s2", "quo'te\u{e9}"), to("s3", "one"), to("s4", "gone")];
    assert_eq!(store.finish_job(lease, end(JobStatus::Complete), told.clone()).await.unwrap(), JobFinish::Ended);
    let due = async |names: &[&str], most| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        store.due_messages(names, most, LONG).await.unwrap()
    };
    assert_eq!(due(&["none"], 10).await, []);
    assert_eq!(due(&[], 10).await, []);
    assert_eq!(due(&["one"], 1).await, told[..1]);
    assert_eq!(due(&["quo'te\u{e9}"], 10).await, told[1..2]);
    assert_eq!(due(&["one", "quo'te\u{e9}"], 10).await, told[2..3]);
    // One that this process does not know is for another one, which may have read a newer file.
    assert_eq!(due(&["gone"], 10).await, told[3..]);
    for sent in told {
        store.message_done(sent.id).await.unwrap();
    }
}

async fn what_is_ready_expires_once(store: &impl StateStore) {
    queue(store, "expires", "e").await;
    let (_, lease) = claim(store, LIMITS).await.unwrap();
    let ready = JobEnd { keep: Some(NONE), ..end(JobStatus::Complete) };
    assert_eq!(store.finish_job(lease, ready, Vec::new()).await.unwrap(), JobFinish::Ended);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let overdue = store.overdue(100).await.unwrap();
    assert_eq!(overdue.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["expires"]);
    assert!(found(store, "expires").await.overdue);
    assert!(store.unremoved(100).await.unwrap().iter().all(|job| job.id != "expires"));
    let told = vec![message("expired", "expires")];
    let expired = store.expire("expires".to_owned(), told.clone()).await.unwrap().unwrap();
    assert_eq!((expired.status, expired.revocation), (JobStatus::Expired, 1));
    assert_eq!(store.expire("expires".to_owned(), told.clone()).await.unwrap(), None);
    assert_eq!(due(store, 10, LONG).await, told);
    store.message_done("expired".to_owned()).await.unwrap();
    assert_eq!(store.overdue(100).await.unwrap(), []);
    assert!(store.unremoved(100).await.unwrap().iter().any(|job| job.id == "expires"));
    store.removed("expires".to_owned()).await.unwrap();
    assert!(store.unremoved(100).await.unwrap().iter().all(|job| job.id != "expires"));
    queue(store, "running", "e").await;
    assert_eq!(store.expire("running".to_owned(), Vec::new()).await.unwrap(), None);
    drain(store).await;
}

/// What cannot be removed comes again, and keeps nothing else from being removed.
async fn what_cannot_be_removed_waits_behind_all_others(store: &impl StateStore) {
    for id in ["stuck", "stuck-2", "goes"] {
        queue(store, id, "r").await;
        assert!(matches!(store.cancel(id.to_owned(), "r".to_owned()).await.unwrap(), Some(Cancelled::Live(_))));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let next = async |most: u32| {
        let jobs = store.unremoved(most).await.unwrap().into_iter();
        jobs.map(|job| job.id).filter(|id| ["stuck", "stuck-2", "goes"].contains(&id.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(next(100).await, ["stuck", "stuck-2", "goes"]);
    store.removal_failed("stuck".to_owned(), NONE).await.unwrap();
    store.removal_failed("stuck-2".to_owned(), LONG).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(next(100).await, ["goes", "stuck"]);
    for id in ["goes", "stuck", "stuck-2"] {
        store.removed(id.to_owned()).await.unwrap();
    }
    // A job that lives is none of them, and keeps its turn.
    queue(store, "lives", "r").await;
    store.removal_failed("lives".to_owned(), LONG).await.unwrap();
    assert!(claim(store, LIMITS).await.is_some());
    drain(store).await;
}

async fn what_is_over_is_forgotten_once_its_files_are_gone(store: &impl StateStore) {
    queue(store, "forgotten", "f").await;
    queue(store, "waits", "f").await;
    assert!(store.cancel("forgotten".to_owned(), "f".to_owned()).await.unwrap().is_some());
    let keeps = Expiry { exports: LONG, audits: LONG, messages: LONG };
    tokio::time::sleep(Duration::from_millis(2)).await;
    let prune = async || store.prune(Expiry { exports: NONE, ..keeps }).await.unwrap();
    prune().await;
    assert!(store.any_job("forgotten".to_owned()).await.unwrap().is_some());
    store.removed("forgotten".to_owned()).await.unwrap();
    prune().await;
    assert_eq!(store.any_job("forgotten".to_owned()).await.unwrap(), None);
    assert!(store.any_job("waits".to_owned()).await.unwrap().is_some());
    drain(store).await;
}

/// What is kept for a time is not kept for longer: names of requests, and messages that nobody sends.
async fn names_and_messages_are_not_kept_for_ever(store: &impl StateStore) {
    let key = |name: &str, keep| Some(IdempotencyKey { key: name.to_owned(), body_sha256: [1; 32], keep });
    for (id, keep) in [("named-1", NONE), ("named-2", LONG)] {
        let queued = store.submit(job(id, "names"), key(id, keep), 9).await.unwrap();
        assert!(matches!(queued, Submitted::Queued(_)), "{queued:?}");
    }
    let (claimed, lease) = claim(store, LIMITS).await.unwrap();
    let told = vec![message("unsent", &claimed.id)];
    assert_eq!(store.finish_job(lease, end(JobStatus::Complete), told.clone()).await.unwrap(), JobFinish::Ended);
    let keeps = Expiry { exports: LONG, audits: LONG, messages: LONG };
    // The name whose time is over, and nothing else.
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(store.prune(keeps).await.unwrap(), 1);
    let again = store.submit(job("named-3", "names"), key("named-2", LONG), 9).await.unwrap();
    assert!(matches!(&again, Submitted::Known(job) if job.id == "named-2"), "{again:?}");
    assert_eq!(due(store, 10, NONE).await, told);
    assert_eq!(store.prune(Expiry { messages: NONE, ..keeps }).await.unwrap(), 1);
    assert_eq!(due(store, 10, NONE).await, []);
    drain(store).await;
}

async fn a_queue_outlives_its_store<S: StateStore>(open: &impl AsyncFn() -> S) {
    let store = open().await;
    let waits = queue(&store, "outlives", "o").await;
    queue(&store, "outlives-2", "o").await;
    let (claimed, lease) = claim(&store, LIMITS).await.unwrap();
    assert_eq!(claimed.id, waits.id);
    drop(store);
    let store = open().await;
    // What ran has its attempt still, and goes on where nobody else has begun.
    assert_eq!(store.renew(lease, LONG).await.unwrap(), LeaseState::Held);
    assert_eq!(found(&store, "outlives-2").await.status, JobStatus::Queued);
    drain(&store).await;
}
