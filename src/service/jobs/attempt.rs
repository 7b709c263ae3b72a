//! One attempt at one job: the run has the export's id, the lease is renewed beside it, and how it ended is written as this
//! attempt, which the store takes from nobody else.
//!
//! An attempt that finds the manifest of an earlier one is done. Otherwise it starts over: the run clears what the earlier one
//! left. To go on there would be wrong: what is granted and capped is judged anew, and a snapshot ends with its process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::ServiceState;
use super::super::problem::{Refusal, without_values};
use super::super::state::{JobEnd, JobFinish, JobLease, JobProgress, JobRecord, JobStatus, LeaseState, RecordedError};
use super::super::webhooks::{WebhookEvent, messages};
use super::order::{self, JobRows};
use super::retry::{backoff, error_of, passes_by_itself, recorded};
use super::routes::audit;
use super::worker::lease;
use crate::base::budget::MemoryPermit;
use crate::base::failpoint;
use crate::base::telemetry::serving;
use crate::commit::{Placement, look};
use crate::export::{ExportError, ExportRequest, run};
use crate::model::{Event, ExportReport, RunStatus};
use crate::store::{Destination, StoreOptions};

/// Progress is written so often at most.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// Why a run was told to stop, where it was not the service that stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopReason {
    /// Its caller wants it cancelled.
    ByCaller,
    /// Another attempt has the job, or will have it soon.
    Lost,
}

/// One attempt at one job.
pub(super) struct JobAttempt {
    service: Arc<ServiceState>,
    job: JobRecord,
    lease: JobLease,
    /// Stops the run: the lease is lost, the caller wants no more, or the service stops.
    stop: CancellationToken,
    /// The first reason stays: the store knows whether it still holds.
    reason: Arc<OnceLock<StopReason>>,
}

/// How it ended.
enum AttemptEnd {
    /// With the cap that it had.
    Done(Box<ExportReport>, Option<u64>),
    /// With what a caller is told.
    Failed(RecordedError),
    /// The same may succeed later.
    Later(RecordedError),
    Stopped,
}

impl JobAttempt {
    pub(super) fn of(service: &Arc<ServiceState>, job: JobRecord) -> Self {
        let lease = JobLease { id: job.id.clone(), attempt: job.attempt };
        Self { service: Arc::clone(service), job, lease, stop: service.stopping.child_token(), reason: Arc::default() }
    }

    pub(super) async fn carry_out(self) {
        tracing::info!(export = self.job.id, attempt = self.job.attempt, "an attempt begins");
        // Dropped, it ends: a run that panics lets go of its lease.
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(Arc::clone(&self.service), self.lease.clone(), self.stop.clone(), Arc::clone(&self.reason)));
        let ended = tokio::select! {
            ended = self.run() => ended,
            // The next attempt clears what is left, or finds the manifest.
            () = self.out_of_time() => AttemptEnd::Stopped,
        };
        keeper.shutdown().await;
        self.end(ended).await;
    }

    /// Once the service has stopped for most of the time that it has for it: the rest is for giving the job back.
    async fn out_of_time(&self) {
        self.service.stopping.cancelled().await;
        let shutdown = self.service.config.limits.shutdown;
        sleep(shutdown.saturating_sub(shutdown / 5)).await;
    }

    async fn run(&self) -> AttemptEnd {
        if self.job.status == JobStatus::Cancelling {
            self.reason.get_or_init(|| StopReason::ByCaller);
            return AttemptEnd::Stopped;
        }
        if self.is_untried() && !self.has_committed().await {
            let message = "the export was tried several times, and its worker died each time";
            let lost = || recorded("attempts_exhausted", message);
            return AttemptEnd::Failed(self.job.error.clone().unwrap_or_else(lost));
        }
        failpoint::reach("job-claimed").await;
        let (request, rows) = match order::request(&self.service, &self.job).await {
            Ok(request) => request,
            Err(Refusal { code, message, retry_after, .. }) => {
                let error = recorded(code, &message);
                return if retry_after.is_some() { AttemptEnd::Later(error) } else { AttemptEnd::Failed(error) };
            }
        };
        let _permit = match self.memory(request.memory_bytes()).await {
            Ok(permit) => permit,
            Err(ended) => return ended,
        };
        let cap = request.work.cap.as_ref().and_then(|cap| cap.max_rows).map(std::num::NonZeroU64::get);
        match self.export(request).await {
            Ok(report) => AttemptEnd::Done(Box::new(report), cap),
            Err(error) => self.judged(&error, &rows).await,
        }
    }

    /// Whether the attempts were used up before this one, which then tries nothing.
    fn is_untried(&self) -> bool {
        self.job.counted() > self.service.config.jobs.attempts && !failpoint::off("job_attempts")
    }

    /// Whether the last attempt has committed, and died before it had said so. This is looked at once, because an end that
    /// kills its worker is to be given up too.
    async fn has_committed(&self) -> bool {
        let first = self.job.counted() == self.service.config.jobs.attempts.saturating_add(1);
        if !first || failpoint::off("job_committed") {
            return false;
        }
        let credentials = self.service.config.credentials_of(&self.job.destination);
        let connected = Destination::connect(&self.job.destination, &StoreOptions::small(), credentials).await;
        let Ok(destination) = connected else { return false };
        let found = look(&destination, &Placement::Parts).await;
        found.is_ok_and(|found| found.is_some_and(|existing| existing.manifest.run_id == self.job.id))
    }

    /// Waits for memory; others run meanwhile.
    async fn memory(&self, bytes: u64) -> Result<MemoryPermit, AttemptEnd> {
        loop {
            match self.service.memory.try_reserve(bytes) {
                Ok(Some(permit)) => return Ok(permit),
                Ok(None) => {}
                Err(_) => {
                    let message = "the export needs more memory than the service has";
                    return Err(AttemptEnd::Failed(recorded("memory", message)));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(AttemptEnd::Stopped),
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
                Event::Progress { rows, bytes, .. } => {
                    // A partition that is read again may be behind where it was.
                    (now.rows, now.bytes) = (now.rows.max(rows), now.bytes.max(bytes));
                }
                Event::PartFinished { .. } => now.parts = now.parts.saturating_add(1),
                Event::Committing { .. } => now.committing = true,
                _ => continue,
            }
            if !now.committing && written.elapsed() < failpoint::limit("job_progress", BETWEEN_WRITES) {
                continue;
            }
            written = Instant::now();
            match self.service.store.progress(self.lease.clone(), now).await {
                Ok(LeaseState::Held) if now.committing => {
                    tracing::debug!(export = self.job.id, "an export is being committed and not cancelled any more");
                }
                Ok(LeaseState::Held) => {}
                Ok(state) => stop_for(state, &self.stop, &self.reason),
                Err(error) => tracing::warn!(%error, "the progress of an export was not written"),
            }
        }
    }

    async fn judged(&self, error: &ExportError, JobRows { dataset, described }: &JobRows<'_>) -> AttemptEnd {
        if error.kind.is_cancel() && self.stop.is_cancelled() {
            return AttemptEnd::Stopped;
        }
        let export = &self.job.id;
        tracing::warn!(export, attempt = self.job.attempt, error = without_values(error), "an export failed");
        // The next attempt chooses its rows by the columns as they are now.
        let changed = Refusal::of_export(error).may_be_of_changed_columns()
            && self.service.renewed(dataset, described).await.is_some();
        let later = changed || passes_by_itself(error.kind);
        if later { AttemptEnd::Later(error_of(error)) } else { AttemptEnd::Failed(error_of(error)) }
    }

    async fn end(self, ended: AttemptEnd) {
        if self.reason.get() == Some(&StopReason::Lost) {
            tracing::warn!(export = self.job.id, attempt = self.job.attempt, "an attempt has lost its lease");
            return;
        }
        let end = match ended {
            AttemptEnd::Done(report, cap) => self.ready(&report, cap),
            AttemptEnd::Failed(error) => self.without_files(JobStatus::Failed, Some(error)),
            AttemptEnd::Later(error) if self.job.counted() >= self.service.config.jobs.attempts => {
                self.without_files(JobStatus::Failed, Some(error))
            }
            AttemptEnd::Later(error) => return self.give_back(Some(error), backoff(self.job.counted()), true).await,
            AttemptEnd::Stopped if self.reason.get() == Some(&StopReason::ByCaller) => {
                self.without_files(JobStatus::Cancelled, None)
            }
            // The service stops, which is not the job's fault.
            AttemptEnd::Stopped => return self.give_back(self.job.error.clone(), Duration::ZERO, false).await,
        };
        failpoint::reach("job-ending").await;
        self.finish(end).await;
    }

    fn ready(&self, report: &ExportReport, max_rows: Option<u64>) -> JobEnd {
        let status = match report.status {
            RunStatus::Complete => JobStatus::Complete,
            RunStatus::Truncated => JobStatus::Truncated,
        };
        let (rows, bytes, parts) = (report.rows.unwrap_or_default(), report.bytes, report.parts);
        let progress = JobProgress { rows, bytes, parts, committing: false };
        let keep = Some(Duration::from_secs(self.service.config.link_seconds.unsigned_abs()));
        JobEnd { status, progress, error: None, max_rows, keep, untried: self.is_untried() }
    }

    fn without_files(&self, status: JobStatus, error: Option<RecordedError>) -> JobEnd {
        let (progress, max_rows) = (JobProgress::default(), self.job.max_rows);
        JobEnd { status, progress, error, max_rows, keep: None, untried: self.is_untried() }
    }

    async fn give_back(&self, error: Option<RecordedError>, delay: Duration, counted: bool) {
        if failpoint::off("job_give_back") {
            return;
        }
        match self.service.store.give_back(self.lease.clone(), error, delay, counted).await {
            Ok(_) => tracing::info!(export = self.job.id, counted, "an export went back to the queue"),
            // Its lease runs out.
            Err(error) => tracing::error!(%error, "an export was not given back to the queue"),
        }
    }

    async fn finish(self, end: JobEnd) {
        let mut after = self.job.clone();
        (after.status, after.progress, after.error) = (end.status, end.progress, end.error.clone());
        (after.truncated, after.max_rows) = (end.status == JobStatus::Truncated, end.max_rows);
        after.expires_at =
            end.keep.and_then(|keep| chrono::Utc::now().checked_add_signed(chrono::TimeDelta::from_std(keep).ok()?));
        let event = match end.status {
            JobStatus::Complete | JobStatus::Truncated => Some(WebhookEvent::Ready),
            JobStatus::Failed => Some(WebhookEvent::Failed),
            _ => None,
        };
        let told = event.map(|event| messages(&self.service.config.webhooks, &self.service.links, event, &after));
        match self.service.store.finish_job(self.lease.clone(), end, told.unwrap_or_default()).await {
            Ok(JobFinish::Ended) => {
                serving::job_ended(after.status.name());
                audit(&self.service, &after, after.user.clone(), after.credential.clone(), "export").await;
                tracing::info!(export = after.id, status = after.status.name(), "an export ended");
            }
            // It was cancelled while it ended, and its caller has been told so: the files go.
            Ok(JobFinish::Cancelling) => {
                let end = self.without_files(JobStatus::Cancelled, None);
                Box::pin(self.finish(end)).await;
            }
            Ok(JobFinish::Lost) => tracing::warn!(export = after.id, "an attempt ended after another had begun"),
            // The next attempt finds the manifest.
            Err(error) => tracing::error!(%error, export = after.id, "the end of an export was not written"),
        }
    }
}

/// Renews a lease for as long as its attempt runs, whatever that does. Where no renewal comes through, the attempt is stopped
/// before its lease is over, by the clock of this process.
async fn keep(service: Arc<ServiceState>, held: JobLease, stop: CancellationToken, reason: Arc<OnceLock<StopReason>>) {
    let time = lease();
    // Of the lease, a sixth is for stopping.
    let good = if failpoint::off("lease_end") { Duration::from_hours(1) } else { time.saturating_sub(time / 6) };
    let mut until = Instant::now() + good;
    loop {
        sleep(time / 4).await;
        if failpoint::off("renewal") {
            continue;
        }
        let asked = Instant::now();
        let renewal = async {
            failpoint::reach("job-renewal").await;
            service.store.renew(held.clone(), time).await
        };
        match timeout_at(until.min(asked + time / 4), renewal).await {
            Ok(Ok(LeaseState::Held)) => until = asked + good,
            Ok(Ok(state)) => stop_for(state, &stop, &reason),
            Ok(Err(error)) => tracing::warn!(%error, "a lease was not renewed"),
            Err(_) => tracing::warn!("the renewal of a lease was not answered"),
        }
        if Instant::now() >= until {
            tracing::warn!(export = held.id, attempt = held.attempt, "a lease was not renewed in time");
            // Somebody else has the job soon.
            return stop_for(LeaseState::Lost, &stop, &reason);
        }
    }
}

fn stop_for(state: LeaseState, stop: &CancellationToken, reason: &OnceLock<StopReason>) {
    let why = match state {
        LeaseState::Held => return,
        LeaseState::Cancelling => StopReason::ByCaller,
        LeaseState::Lost => StopReason::Lost,
    };
    reason.get_or_init(|| why);
    stop.cancel();
}
