//! Exports in the background as the store knows them: a queue whose leases are columns of the job, and whose every later
//! write is fenced by the attempt that makes it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Notify;

use super::{RecordedError, StateError};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobStatus {
    Queued,
    Running,
    /// Its caller does not want it any more, and its worker has not stopped yet.
    Cancelling,
    Complete,
    Truncated,
    Failed,
    Cancelled,
    /// Its files are removed, or about to be.
    Expired,
}

impl JobStatus {
    pub(crate) const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Cancelling,
        Self::Complete,
        Self::Truncated,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// As records and answers spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing is done for it any more.
    pub(crate) const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running | Self::Cancelling)
    }

    /// Whether its files can be had.
    pub(crate) const fn is_ready(self) -> bool {
        matches!(self, Self::Complete | Self::Truncated)
    }
}

/// One job, which is one row of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobRecord {
    /// The id of the export, and of the run.
    pub(crate) id: String,
    /// As in [`super::ExportRecord`].
    pub(crate) tenant: String,
    pub(crate) user: Option<String>,
    /// As in [`super::AuditRecord`].
    pub(crate) credential: String,
    pub(crate) request_id: String,
    pub(crate) dataset: String,
    /// `auto` or `background`, as it was asked for.
    pub(crate) mode: String,
    /// What is exported, as JSON that the worker reads; it holds filters, and no log shows it.
    pub(crate) request: String,
    /// `ndjson`, `csv` or `parquet`.
    pub(crate) format: String,
    /// As in a manifest; `none` is one.
    pub(crate) compression: String,
    /// What the joined file is called, without its extension.
    pub(crate) file_name: String,
    /// The URL of the folder of its files.
    pub(crate) destination: String,
    /// Which tier asked; none in a row of an older version.
    pub(crate) tier: Option<String>,
    /// Who is to be told how it ends, as JSON of whoever queued it; none in a row of an older version.
    pub(crate) telling: Option<String>,
    pub(crate) status: JobStatus,
    /// How often it was claimed; 0 before the first time. It grows as long as the job is live: writes are fenced by it.
    pub(crate) attempt: u32,
    /// Those of them that were given back uncounted.
    pub(crate) forgiven: u32,
    pub(crate) max_rows: Option<u64>,
    pub(crate) estimated_rows: Option<u64>,
    pub(crate) estimated_minutes: Option<u64>,
    pub(crate) progress: JobProgress,
    pub(crate) truncated: bool,
    pub(crate) created_at: DateTime<Utc>,
    /// When it was claimed first.
    pub(crate) started_at: Option<DateTime<Utc>>,
    /// When this attempt began.
    pub(crate) claimed_at: Option<DateTime<Utc>>,
    /// When it became final.
    pub(crate) completed_at: Option<DateTime<Utc>>,
    /// When its files go; none before it is ready.
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// Whether that moment had come, by the store's own clock.
    pub(crate) overdue: bool,
    pub(crate) error: Option<RecordedError>,
    /// Links that were signed for another number are void.
    pub(crate) revocation: u32,
    /// Each write adds one: the record's tag.
    pub(crate) version: u64,
}

impl JobRecord {
    /// Attempts that count.
    pub(crate) const fn counted(&self) -> u32 {
        self.attempt.saturating_sub(self.forgiven)
    }
}

/// How far this attempt is; a later attempt begins anew, and numbers are never added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct JobProgress {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) parts: u64,
    /// Whether the manifest is being written: too late to cancel, too early to remove.
    pub(crate) committing: bool,
}

/// The right to work on a job, and to say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobLease {
    pub(crate) id: String,
    pub(crate) attempt: u32,
}

/// A caller's own name for a request, with what the request was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey {
    pub(crate) key: String,
    /// Of the canonical body.
    pub(crate) body_sha256: [u8; 32],
    /// So long it is known.
    pub(crate) keep: Duration,
}

/// What became of a request for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It is queued.
    Queued(JobRecord),
    /// The same request was made before, and this is its job.
    Known(JobRecord),
    /// The key was used for another request.
    OtherBody,
    /// The tenant has as many jobs that are not final as it may have.
    TooMany,
}

/// What a worker can make exports of. Processes that share a database may have read different files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobsServed {
    pub(crate) datasets: Vec<String>,
    pub(crate) tiers: Vec<String>,
    /// URLs without a slash at their ends. Folders of the machine want no settings, and are those of all.
    pub(crate) destinations: Vec<String>,
    /// A job that has waited so long is taken whatever it needs: nobody seems to have that.
    pub(crate) patience: Duration,
}

/// By what a worker claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimLimits {
    pub(crate) lease: Duration,
    /// Jobs of one tenant that run at the same time.
    pub(crate) per_tenant: u32,
}

/// What a renewal finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseState {
    Held,
    /// It is held, and the caller wants an end.
    Cancelling,
    /// Another attempt has the job, or it is final: stop now.
    Lost,
}

/// What became of the end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobFinish {
    Ended,
    /// Its caller wants it cancelled, and no other end is written.
    Cancelling,
    /// Another attempt has the job, or it is final.
    Lost,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobEnd {
    /// A final one.
    pub(crate) status: JobStatus,
    pub(crate) progress: JobProgress,
    pub(crate) error: Option<RecordedError>,
    /// What the last attempt was capped at.
    pub(crate) max_rows: Option<u64>,
    /// Ready files are kept so long.
    pub(crate) keep: Option<Duration>,
    /// Whether the claim that writes this tried nothing, so that it is taken out of the attempts.
    pub(crate) untried: bool,
}

/// Something to tell the outside: written with the status that it tells of, sent later and until it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxMessage {
    /// The same in each try: a receiver tells repetitions by it.
    pub(crate) id: String,
    pub(crate) export_id: String,
    /// The webhook's name in the configuration.
    pub(crate) target: String,
    /// `export.ready`, `export.failed` or `export.expired`.
    pub(crate) event: String,
    /// The same bytes in each try.
    pub(crate) body: String,
    /// Tries that failed.
    pub(crate) attempt: u32,
}

/// What a cancellation finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// It was live: it is `cancelled` if it was queued, and `cancelling` if it ran.
    Live(JobRecord),
    /// Its manifest is being written.
    Committing(JobRecord),
    /// It was final before.
    Final(JobRecord),
}

/// A place in a list, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobCursor {
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) id: String,
}

/// The queue as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueueFigures {
    /// Jobs by status, those that are final left out.
    pub(crate) queued: u64,
    pub(crate) running: u64,
    pub(crate) cancelling: u64,
    /// How long the lease that was renewed longest ago is old.
    pub(crate) oldest_lease: Option<Duration>,
}

/// The queue, as every store has it. Moments are by the store's own clock.
///
/// # Cancel safety
/// As [`super::StateStore`].
pub(crate) trait JobStore: Send + Sync + std::fmt::Debug {
    /// Queues a job; `live` bounds the tenant's jobs that are not final.
    ///
    /// # Errors
    /// There is one with its id, or the store failed.
    fn submit(
        &self,
        job: JobRecord,
        key: Option<IdempotencyKey>,
        live: u32,
    ) -> BoxFuture<'_, Result<Submitted, StateError>>;

    /// A job of this tenant; another tenant's is none.
    fn job(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>>;

    /// A job, whoever it belongs to: for links, which are signed, and for workers.
    fn any_job(&self, id: String) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>>;

    /// The tenant's jobs, the newest first, from after a place on.
    fn jobs(
        &self,
        tenant: String,
        after: Option<JobCursor>,
        most: u32,
    ) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>>;

    /// Wakes one who waits for `queued` whenever another process has queued a job, for as long as the store can: it may end at
    /// once, and it may miss some, so that whoever waits looks for himself now and then. Dropped, it ends.
    fn hints(&self, queued: Arc<Notify>) -> BoxFuture<'static, ()>;

    /// Takes the next job that the worker serves, or one whose lease ran out, by one UPDATE: of the tenant with the fewest that
    /// run, the oldest. A job that was being cancelled when its worker died comes too, for its worker to clear what is left of
    /// it.
    fn claim(
        &self,
        worker: String,
        served: Arc<JobsServed>,
        limits: ClaimLimits,
    ) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>>;

    /// Holds on to a job.
    fn renew(&self, lease: JobLease, time: Duration) -> BoxFuture<'_, Result<LeaseState, StateError>>;

    /// Overwrites how far the attempt is, and says what a renewal would. A job that is being cancelled does not begin to
    /// commit.
    fn progress(&self, lease: JobLease, progress: JobProgress) -> BoxFuture<'_, Result<LeaseState, StateError>>;

    /// Ends a job, with the messages that tell of it. One that is being cancelled ends cancelled, and not otherwise.
    ///
    /// # Errors
    /// The end is none, or the store failed.
    fn finish_job(
        &self,
        lease: JobLease,
        end: JobEnd,
        messages: Vec<OutboxMessage>,
    ) -> BoxFuture<'_, Result<JobFinish, StateError>>;

    /// Gives a job back to the queue for after a while, with the error of this attempt; gives whether the attempt still had
    /// it. With `counted` unset the attempt is forgiven: the service stops.
    fn give_back(
        &self,
        lease: JobLease,
        error: Option<RecordedError>,
        delay: Duration,
        counted: bool,
    ) -> BoxFuture<'_, Result<bool, StateError>>;

    /// Ends what is live, for its tenant.
    fn cancel(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<Cancelled>, StateError>>;

    /// Makes a job that is ready `expired`, voids its links, and tells of it; gives the record after it where this call did
    /// it.
    fn expire(&self, id: String, messages: Vec<OutboxMessage>) -> BoxFuture<'_, Result<Option<JobRecord>, StateError>>;

    /// Jobs that are ready and whose time is over.
    fn overdue(&self, most: u32) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>>;

    /// Jobs that failed, were cancelled or have expired, and whose files nobody has removed; whoever has waited longest first.
    fn unremoved(&self, most: u32) -> BoxFuture<'_, Result<Vec<JobRecord>, StateError>>;

    /// The files of a job are gone.
    fn removed(&self, id: String) -> BoxFuture<'_, Result<(), StateError>>;

    /// The files of a job that is over could not be removed: it comes again after a while, behind all others.
    fn removal_failed(&self, id: String, delay: Duration) -> BoxFuture<'_, Result<(), StateError>>;

    /// Messages to these webhooks whose time has come, the oldest first, each given to one asker for so long.
    fn due_messages(
        &self,
        targets: Vec<String>,
        most: u32,
        hold: Duration,
    ) -> BoxFuture<'_, Result<Vec<OutboxMessage>, StateError>>;

    /// A message has arrived, or is given up.
    fn message_done(&self, id: String) -> BoxFuture<'_, Result<(), StateError>>;

    /// A message did not arrive: it is due again after a while.
    fn message_failed(&self, id: String, delay: Duration) -> BoxFuture<'_, Result<(), StateError>>;

    /// How long the queue is.
    fn figures(&self) -> BoxFuture<'_, Result<QueueFigures, StateError>>;
}
