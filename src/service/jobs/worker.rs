//! Workers: each takes one job after the other and makes its export, whose run has the export's id. An attempt that finds the
//! manifest of an earlier one is done; else what that left is cleared by the run itself.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::ServiceState;
use super::super::problem::{Refusal, told, without_values};
use super::super::state::{
    ClaimLimits, Finished, JobEnd, JobLease, JobProgress, JobRecord, JobStatus, LeaseState, RecordedError,
};
use super::super::webhooks::{WebhookEvent, messages};
use super::order;
use super::routes::audit;
use crate::base::budget::MemoryPermit;
use crate::base::failpoint;
use crate::base::telemetry::serving;
use crate::export::{ExportError, ExportRequest, run};
use crate::model::{Event, ExportErrorKind, ExportReport, RunStatus};

/// Jobs that run in one process.
const WORKERS: usize = 2;

/// Of one tenant, in all processes.
const RUNNING_PER_TENANT: u32 = 2;

/// A lease, which is renewed three times in its life.
const LEASE: Duration = Duration::from_secs(30);

/// Between two looks at an empty queue.
const POLL: Duration = Duration::from_secs(2);

/// After so many attempts a job has failed.
const ATTEMPTS: u32 = 5;

/// Before the second attempt; each later one waits twice as long.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// Progress is written so often at most.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// Starts the workers of this process. They end once the service stops.
///
/// # Errors
/// The folder of the files cannot be made for its owner alone.
pub(crate) fn start(service: &Arc<ServiceState>) -> io::Result<Vec<JoinHandle<()>>> {
    // Rows of all tenants are in it.
    DirBuilder::new().recursive(true).mode(0o700).create(&service.config.job_folder)?;
    let worker = |number| tokio::spawn(work(Arc::clone(service), format!("{}-{number}", std::process::id())));
    Ok((0..WORKERS).map(worker).collect())
}

async fn work(service: Arc<ServiceState>, name: String) {
    let limits = ClaimLimits { lease: failpoint::limit("job_lease", LEASE), per_tenant: RUNNING_PER_TENANT };
    while !service.stopping.is_cancelled() {
        match service.store.claim(name.clone(), limits).await {
            Ok(Some(job)) => {
                // One that panics, which the panic hook tells, is tried again once its lease runs out.
                let _ = tokio::spawn(Attempt::of(&service, job).carry_out()).await;
            }
            Ok(None) => rest(&service).await,
            Err(error) => {
                tracing::error!(%error, "no export was taken from the queue");
                rest(&service).await;
            }
        }
    }
}

async fn rest(service: &ServiceState) {
    tokio::select! {
        () = service.stopping.cancelled() => {}
        () = service.job_queued.notified() => {}
        () = sleep(failpoint::limit("job_poll", POLL)) => {}
    }
}

/// Why a run was told to stop.
#[derive(Debug, Default)]
struct StopReason(AtomicU8);

const BY_CALLER: u8 = 1;
const LOST: u8 = 2;

impl StopReason {
    fn set(&self, reason: u8) {
        self.0.store(reason, Ordering::Release);
    }

    fn is(&self, reason: u8) -> bool {
        self.0.load(Ordering::Acquire) == reason
    }
}

/// One attempt at one job.
struct Attempt {
    service: Arc<ServiceState>,
    job: JobRecord,
    lease: JobLease,
    /// Stops the run: the lease is lost, the caller wants no more, or the service stops.
    stop: CancellationToken,
    reason: Arc<StopReason>,
}

/// How an attempt ended.
enum Ended {
    Done(Box<ExportReport>),
    /// With what a caller is told.
    Failed(RecordedError),
    /// The same may succeed later.
    Later(RecordedError),
    Stopped,
}

impl Attempt {
    fn of(service: &Arc<ServiceState>, job: JobRecord) -> Self {
        let lease = JobLease { id: job.id.clone(), attempt: job.attempt };
        Self { service: Arc::clone(service), job, lease, stop: service.stopping.child_token(), reason: Arc::default() }
    }

    async fn carry_out(self) {
        failpoint::reach("job-claimed").await;
        // Dropped, it ends: a run that panics lets go of its lease.
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(Arc::clone(&self.service), self.lease.clone(), self.stop.clone(), Arc::clone(&self.reason)));
        let ended = self.run().await;
        keeper.shutdown().await;
        self.end(ended).await;
    }

    async fn run(&self) -> Ended {
        if self.job.status == JobStatus::Cancelling {
            self.reason.set(BY_CALLER);
            return Ended::Stopped;
        }
        if self.job.counted() > ATTEMPTS {
            let lost =
                || recorded("attempts_exhausted", "the export was tried several times, and its worker died each time");
            return Ended::Failed(self.job.error.clone().unwrap_or_else(lost));
        }
        let request = match order::request(&self.service, &self.job).await {
            Ok(request) => request,
            Err(Refusal { code, message, retry_after, .. }) => {
                let error = recorded(code, &message);
                return if retry_after.is_some() { Ended::Later(error) } else { Ended::Failed(error) };
            }
        };
        let _permit = match self.memory(request.memory_bytes()).await {
            Ok(permit) => permit,
            Err(ended) => return ended,
        };
        match self.export(request).await {
            Ok(report) => Ended::Done(Box::new(report)),
            Err(error) => self.judged(&error),
        }
    }

    /// Waits for memory; others run meanwhile.
    async fn memory(&self, bytes: u64) -> Result<MemoryPermit, Ended> {
        loop {
            match self.service.memory.try_reserve(bytes) {
                Ok(Some(permit)) => return Ok(permit),
                Ok(None) => {}
                Err(_) => {
                    return Err(Ended::Failed(recorded("memory", "the export needs more memory than the service has")));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    async fn export(&self, request: ExportRequest) -> Result<ExportReport, ExportError> {
        let (sender, events) = channel(64);
        let telling = self.tell(events);
        // It ends with the run, which has the sender.
        let (report, ()) = tokio::join!(run(request, sender, self.stop.clone()), telling);
        report
    }

    /// Writes down how far the run is.
    async fn tell(&self, mut events: Receiver<Event>) {
        let mut now = JobProgress::default();
        let mut written = Instant::now();
        while let Some(event) = events.recv().await {
            match event {
                Event::Progress { rows, bytes, .. } => (now.rows, now.bytes) = (rows, bytes),
                Event::PartFinished { .. } => now.parts = now.parts.saturating_add(1),
                Event::Committing { .. } => now.committing = true,
                _ => continue,
            }
            if !now.committing && written.elapsed() < BETWEEN_WRITES {
                continue;
            }
            written = Instant::now();
            match self.service.store.progress(self.lease.clone(), now).await {
                Ok(LeaseState::Held) => {}
                Ok(state) => stop_for(state, &self.stop, &self.reason),
                Err(error) => tracing::warn!(%error, "the progress of an export was not written"),
            }
        }
    }

    fn judged(&self, error: &ExportError) -> Ended {
        if error.kind.is_cancel() {
            return Ended::Stopped;
        }
        let export = &self.job.id;
        tracing::warn!(export, attempt = self.job.attempt, error = without_values(error), "an export failed");
        let (_, code, message) = match error.kind {
            ExportErrorKind::DestinationUnavailable => {
                (axum::http::StatusCode::BAD_GATEWAY, "destination_unavailable", "the destination cannot be reached")
            }
            _ => told(error),
        };
        // An attempt that died is alive to others for as long as its lease of the destination.
        let later = error.kind.retryable() || error.kind == ExportErrorKind::DestinationTaken;
        if later { Ended::Later(recorded(code, message)) } else { Ended::Failed(recorded(code, message)) }
    }

    async fn end(self, ended: Ended) {
        if self.reason.is(LOST) {
            tracing::warn!(export = self.job.id, attempt = self.job.attempt, "an attempt has lost its lease");
            return;
        }
        let end = match ended {
            Ended::Done(report) => JobEnd {
                status: match report.status {
                    RunStatus::Complete => JobStatus::Complete,
                    RunStatus::Truncated => JobStatus::Truncated,
                },
                progress: JobProgress {
                    rows: report.rows.unwrap_or_default(),
                    bytes: report.bytes,
                    parts: report.parts,
                    committing: false,
                },
                error: None,
                keep: Some(self.kept()),
            },
            Ended::Failed(error) => failed(error),
            Ended::Later(error) if self.job.counted() >= ATTEMPTS => failed(error),
            Ended::Later(error) => {
                let doubled = 1_u32.checked_shl(self.job.counted().saturating_sub(1)).unwrap_or(u32::MAX);
                let delay = failpoint::limit("job_backoff", FIRST_BACKOFF).saturating_mul(doubled).min(BACKOFF_MAX);
                return self.give_back(Some(error), delay, true).await;
            }
            Ended::Stopped if self.reason.is(BY_CALLER) => cancelled(),
            // The service stops.
            Ended::Stopped => return self.give_back(None, Duration::ZERO, false).await,
        };
        self.finish(end).await;
    }

    fn kept(&self) -> Duration {
        Duration::from_secs(self.service.config.link_seconds.unsigned_abs())
    }

    async fn give_back(&self, error: Option<RecordedError>, delay: Duration, counted: bool) {
        if let Err(error) = self.service.store.give_back(self.lease.clone(), error, delay, counted).await {
            // Its lease runs out.
            tracing::error!(%error, "an export was not given back to the queue");
        }
    }

    async fn finish(self, end: JobEnd) {
        let mut after = self.job.clone();
        (after.status, after.progress, after.error) = (end.status, end.progress, end.error.clone());
        after.truncated = end.status == JobStatus::Truncated;
        after.expires_at =
            end.keep.and_then(|keep| chrono::Utc::now().checked_add_signed(chrono::TimeDelta::from_std(keep).ok()?));
        let event = match end.status {
            JobStatus::Complete | JobStatus::Truncated => Some(WebhookEvent::Ready),
            JobStatus::Failed => Some(WebhookEvent::Failed),
            _ => None,
        };
        let told = event.map(|event| messages(&self.service.config.webhooks, &self.service.links, event, &after));
        match self.service.store.finish_job(self.lease.clone(), end, told.unwrap_or_default()).await {
            Ok(Finished::Ended) => {
                serving::job_ended(after.status.name());
                audit(&self.service, &after, after.user.clone(), after.credential.clone(), "export").await;
                tracing::info!(export = after.id, status = after.status.name(), "an export ended");
            }
            // It was cancelled while it ended, and its caller has been told so: the files go.
            Ok(Finished::Cancelling) => Box::pin(self.finish(cancelled())).await,
            Ok(Finished::Lost) => tracing::warn!(export = after.id, "an attempt ended after another had begun"),
            // The next attempt finds the manifest.
            Err(error) => tracing::error!(%error, export = after.id, "the end of an export was not written"),
        }
    }
}

/// Renews a lease for as long as its attempt runs, whatever that does.
async fn keep(service: Arc<ServiceState>, lease: JobLease, stop: CancellationToken, reason: Arc<StopReason>) {
    let time = failpoint::limit("job_lease", LEASE);
    let mut renewed = Instant::now();
    loop {
        sleep(time / 3).await;
        if failpoint::off("renewal") {
            continue;
        }
        match service.store.renew(lease.clone(), time).await {
            Ok(LeaseState::Held) => renewed = Instant::now(),
            Ok(state) => {
                renewed = Instant::now();
                stop_for(state, &stop, &reason);
            }
            // Somebody else has it by now.
            Err(_) if renewed.elapsed() > time => stop_for(LeaseState::Lost, &stop, &reason),
            Err(error) => tracing::warn!(%error, "a lease was not renewed"),
        }
    }
}

fn stop_for(state: LeaseState, stop: &CancellationToken, reason: &StopReason) {
    match state {
        LeaseState::Held => return,
        LeaseState::Cancelling => reason.set(BY_CALLER),
        LeaseState::Lost => reason.set(LOST),
    }
    stop.cancel();
}

fn cancelled() -> JobEnd {
    JobEnd { status: JobStatus::Cancelled, progress: JobProgress::default(), error: None, keep: None }
}

fn failed(error: RecordedError) -> JobEnd {
    JobEnd { status: JobStatus::Failed, progress: JobProgress::default(), error: Some(error), keep: None }
}

fn recorded(code: &str, message: &str) -> RecordedError {
    RecordedError { code: code.to_owned(), message: message.to_owned() }
}
