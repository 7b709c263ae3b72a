//! The worker's side: it joins a run that waits for workers, reads its share of the partitions, and leaves a receipt of
//! each in the run's journal.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deal::numbers;
use super::fence::Fence;
use super::find::{Task, find};
use crate::base::failpoint;
use crate::commit::{Placement, look};
use crate::export::company::Company;
use crate::export::coordinator::export_partitions;
use crate::export::error::ExportError;
use crate::export::finish::RunTarget;
use crate::export::hold::{Retention, settle};
use crate::export::mark::Mark;
use crate::export::patience::{ABORT_PATIENCE, to_its_end};
use crate::export::planned::Planned;
use crate::export::receipts::sorted;
use crate::export::record::RunRecord;
use crate::export::run::{ONLY, Run, unless_cancelled};
use crate::model::{
    CredentialCommand, ExportErrorKind, PartitionDone, PartitionReceipt, Plan, ProtectKeyPlace, RunFence, Target,
    WorkerShare,
};
use crate::source::{Begun, Reading, Source};
use crate::store::journal::plan_sha256;
use crate::store::{Destination, Journal, WorkerFailure};

/// Between two looks for a run that wants workers.
pub(super) const WAIT_INTERVAL: Duration = Duration::from_secs(2);

/// Until the keepers that have come in the place of others stand in the journal: twice the time after which the run looks.
const NEW_KEEPERS: Duration = Duration::from_secs(12);

/// Between two looks for them.
const NEW_KEEPERS_LOOK: Duration = Duration::from_millis(500);

/// What a worker is asked to do.
#[derive(Debug, Clone)]
pub struct WorkRequest {
    /// Where the run reads.
    pub source: Arc<dyn Source>,
    /// Where it writes: its journal is there.
    pub destination: String,
    /// Which run, as it was when the worker was asked for; whichever wants workers there unless given.
    pub run: Option<RunFence>,
    /// Which partitions.
    pub share: WorkerShare,
    /// Where the key is under which the run hashes values; where the run itself had it unless given.
    pub protect_key: ProtectKeyPlace,
    /// So long the run may be awaited.
    pub wait: Duration,
    /// Who says credentials for AWS, where a command does.
    pub aws_credential_command: Option<CredentialCommand>,
}

/// What a worker tells while it works.
#[derive(Debug)]
pub enum WorkerWord {
    /// A partition has its receipt.
    Done(PartitionDone),
    /// An export of a job cannot be read; the worker goes on with the others.
    Failed {
        /// Its place in the job.
        export: u32,
        /// Why.
        error: ExportError,
    },
}

/// Why a worker has not done its share.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// It could not go on.
    #[error(transparent)]
    Run(Box<ExportError>),
    /// Some exports of a job could not be read, which [`WorkerWord::Failed`] has told; all others were.
    #[error("some exports of the job could not be read")]
    Exports(Vec<(String, ExportError)>),
}

impl From<ExportError> for WorkError {
    fn from(error: ExportError) -> Self {
        Self::Run(Box::new(error))
    }
}

/// A worker that has joined its run.
struct Joined {
    run: Run,
    record: RunRecord,
    planned: Planned,
    destination: Destination,
    journal: Journal,
    fence: Fence,
    /// Tells it from other workers.
    name: String,
    max_workers: NonZeroUsize,
    /// The export's place in its job, where it is of one.
    of_job: Option<u32>,
}

/// Reads a share of a run's partitions; each is told as soon as its receipt is in the journal. How many it has done.
///
/// # Errors
/// [`ExportErrorKind::DestinationTaken`] where the run has gone on without it, [`ExportErrorKind::Usage`] where run, plan
/// or version are not what they should be, [`ExportErrorKind::GaveWay`] where no run wants workers in time;
/// else as [`crate::export::run()`] up to the commit. Receipts that are in the journal stay there.
///
/// # Cancel safety
/// Cancel through `cancel`: what is being uploaded is aborted and the query cancelled.
pub async fn work(
    request: WorkRequest,
    told: Sender<WorkerWord>,
    cancel: CancellationToken,
) -> Result<usize, WorkError> {
    let stop = cancel.clone();
    // What several exports have met is no error of the worker as a whole.
    let working = async move {
        match worked(request, told, stop).await {
            Ok(done) => Ok(Ok(done)),
            Err(WorkError::Run(error)) => Err(*error),
            Err(exports) => Ok(Err(exports)),
        }
    };
    to_its_end(Box::pin(working), &Mark::default(), &cancel, ABORT_PATIENCE).await?
}

async fn worked(request: WorkRequest, told: Sender<WorkerWord>, cancel: CancellationToken) -> Result<usize, WorkError> {
    let tasks = unless_cancelled(&cancel, Box::pin(find(&request))).await?;
    let (mut done, mut failed, mut lost) = (0, Vec::new(), None);
    for task in tasks {
        let export = task.export.clone();
        match (Box::pin(at_one(&request, task, &told, &cancel)).await, export) {
            (Ok(some), _) => done += some,
            (Err(error), Some(_)) if error.kind == ExportErrorKind::DestinationTaken => {
                tracing::warn!(error = error.sentence(), "an export has ended, or goes on without this worker");
                lost = Some(error);
            }
            (Err(error), Some((number, name))) if is_of_one_export(error.kind) => {
                // Nobody listens any more: the journal has it.
                let _ = told.send(WorkerWord::Failed { export: number, error: error.again() }).await;
                failed.push((name, error));
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    match (failed.is_empty(), lost) {
        (false, _) => Err(WorkError::Exports(failed)),
        // Where others of its exports go on, one that has ended is no fault.
        (true, Some(error)) if done == 0 => Err(error.into()),
        (true, _) => Ok(done),
    }
}

/// Whether another export of the same job may be read all the same.
fn is_of_one_export(kind: ExportErrorKind) -> bool {
    ends_the_export(kind) || matches!(kind, ExportErrorKind::Usage | ExportErrorKind::GaveWay)
}

/// Whether no other worker could read it either.
fn ends_the_export(kind: ExportErrorKind) -> bool {
    matches!(
        kind,
        ExportErrorKind::Data
            | ExportErrorKind::StatementRejected
            | ExportErrorKind::SourceMissing
            | ExportErrorKind::SchemaChanged
            | ExportErrorKind::SnapshotLost
            | ExportErrorKind::Internal
    )
}

/// Reads what is to be read at one destination.
async fn at_one(
    request: &WorkRequest,
    task: Task,
    told: &Sender<WorkerWord>,
    cancel: &CancellationToken,
) -> Result<usize, ExportError> {
    let share = task.share.clone();
    let (destination, placement, run_id) = (task.destination.clone(), task.placement.clone(), task.run.run_id.clone());
    let result = Box::pin(in_the_run(request, task, &share, told, cancel)).await;
    // The records of a run that has ended are gone, and with them what a worker looks for.
    let may_be_over = |error: &ExportError| {
        matches!(error.kind, ExportErrorKind::DestinationTaken | ExportErrorKind::DestinationUnavailable)
    };
    if result.as_ref().is_err_and(may_be_over) && has_committed(&destination, &placement, &run_id).await {
        tracing::info!(run_id, "the export has committed: the share is done");
        return Ok(0);
    }
    result
}

/// Whether the export that stands is of this run. A destination that does not answer says nothing.
async fn has_committed(destination: &Destination, placement: &Placement, run_id: &str) -> bool {
    let standing = look(destination, placement).await.ok().flatten();
    standing.is_some_and(|existing| existing.manifest.run_id == run_id) && !failpoint::off("committed-share")
}

async fn in_the_run(
    request: &WorkRequest,
    task: Task,
    share: &WorkerShare,
    told: &Sender<WorkerWord>,
    cancel: &CancellationToken,
) -> Result<usize, ExportError> {
    let joined = unless_cancelled(cancel, Box::pin(join(request, task))).await?;
    failpoint::reach("joined").await;
    let stop = cancel.child_token();
    let mut reading = Box::pin(joined.read(share, told, &stop));
    let result = tokio::select! {
        biased;
        result = &mut reading => result,
        lost = joined.fence.end() => {
            // What it is at is aborted as by a signal.
            stop.cancel();
            let _ = reading.await;
            Err(lost)
        }
    };
    if let Err(error) = &result {
        joined.leave(error).await;
    }
    result
}

/// Joins the run at one destination, and makes sure that it is the one that is meant.
async fn join(request: &WorkRequest, task: Task) -> Result<Joined, ExportError> {
    let Task { export: of_job, destination, url, placement, run, max_workers, .. } = task;
    let journal = Journal::new(destination.clone(), run.run_id.clone());
    let fence = Fence { destination: destination.clone(), path: placement.owner_path(), run };
    if of_job.is_some() {
        // It may have committed before the others.
        fence.check().await?;
    }
    let run = &fence.run;
    let record = planned_by(&journal, run).await?;
    if record.facts.kind != request.source.kind() {
        let message = format!("the run reads `{}`, and --from names `{}`", record.facts.kind, request.source.kind());
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    let mut export = record.request(Arc::clone(&request.source), Target::Destination(url));
    export.work.readers = NonZeroUsize::MIN;
    export.commit.aws_credential_command = request.aws_credential_command.clone();
    let protect = export.commit.protect.take();
    export.commit.protect = protect.map(|protect| protect.with_key_at(request.protect_key.clone()));
    let place = RunTarget::open(&export).await?;
    // Nobody watches: what a worker tells are its partitions.
    let (events, _) = mpsc::channel(1);
    let working = Run::new(export, place, events);
    // Equal values have equal hashes in all parts only under the key of the run.
    working.same_protect_key(record.protect_key_id.as_deref()).await?;
    // What it notes is encrypted as what it writes.
    let journal = match &working.place {
        RunTarget::Destination { journal, .. } => journal.clone(),
        RunTarget::Stream { .. } => journal,
    };
    let name = format!("{:08x}", rand::random::<u32>());
    journal.record_worker(run.epoch, &name, working.seed).await?;
    // The journal may have been closed before the seed came into it.
    fence.check().await?;
    let planned = record.planned()?;
    let of_job = of_job.map(|(number, _)| number);
    tracing::info!(run_id = record.run_id, export = of_job, epoch = fence.run.epoch, "joined");
    Ok(Joined { run: working, record, planned, destination, journal, fence, name, max_workers, of_job })
}

/// The plan of the run, if it is the one that is meant, and of this version.
async fn planned_by(journal: &Journal, run: &RunFence) -> Result<RunRecord, ExportError> {
    let other = |what: String| {
        let message = format!("the plan of run {} at {} {what}", run.run_id, journal.destination_url());
        ExportError::new(ExportErrorKind::Usage, message)
    };
    let ended = || ExportError {
        kind: ExportErrorKind::DestinationTaken,
        ..other("is not there: the run has ended".to_owned())
    };
    let plan = journal.plan().await?.ok_or_else(ended)?;
    let found = plan_sha256(&plan);
    if found != run.plan_sha256 && !failpoint::off("plan-hash") {
        let what = format!("has the SHA-256 {found}, and {} was asked for", run.plan_sha256);
        return Err(
            other(what).with_hint("take --plan-sha256 from the line `ready` of the run, or leave it out with --shard")
        );
    }
    let record = RunRecord::read(journal).await?.ok_or_else(ended)?;
    let version = env!("CARGO_PKG_VERSION");
    if record.outhaul_version != version {
        let what = format!("is of outhaul {}, and this worker is outhaul {version}", record.outhaul_version);
        return Err(other(what).with_hint("workers and the run that they read for are of one version"));
    }
    Ok(record)
}

impl Joined {
    /// Reads what has no receipt yet, one partition after the other.
    async fn read(
        &self,
        share: &WorkerShare,
        told: &Sender<WorkerWord>,
        stop: &CancellationToken,
    ) -> Result<usize, ExportError> {
        let mine = numbers(share, &self.planned.plan)?;
        let there = unless_cancelled(stop, self.receipts(&mine)).await?;
        let mut missing = Vec::new();
        for number in &mine {
            match there.get(number) {
                Some(receipt) => self.tell(told, receipt, true).await,
                None => missing.push(*number),
            }
        }
        tracing::info!(partitions = mine.len(), missing = missing.len(), "reading");
        let (mut reading, mut held) = (None::<Arc<dyn Reading>>, Vec::new());
        let mut missing = missing.into_iter().peekable();
        while let Some(number) = missing.peek().copied() {
            let read = async {
                let open = if let Some(reading) = reading.take() {
                    reading
                } else {
                    let begun = self.record.begun(&self.journal, false).await?;
                    held.clone_from(&begun.held);
                    unless_cancelled(stop, self.open(begun)).await?
                };
                let receipt = self.partition(&open, number, stop).await?;
                Ok::<_, ExportError>((open, receipt))
            };
            match read.await {
                Ok((open, receipt)) => {
                    self.tell(told, &receipt, false).await;
                    missing.next();
                    reading = Some(open);
                }
                // Other keepers may have come in the place of those that were known.
                Err(error) if error.kind == ExportErrorKind::SnapshotLost => {
                    if !unless_cancelled(stop, self.has_new_keepers(&held)).await? {
                        return Err(error);
                    }
                    tracing::warn!(error = error.sentence(), "joining the run anew, by its keepers of now");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(mine.len())
    }

    /// Waits until the journal names other keepers than these, if that is soon: the process that holds the run replaces
    /// them as exports of a job are done, and notes the new ones a moment later.
    async fn has_new_keepers(&self, held: &[String]) -> Result<bool, ExportError> {
        // A source that holds no snapshot has nobody who could.
        if held.is_empty() {
            return Ok(false);
        }
        let deadline = Instant::now() + failpoint::limit("new-keepers", NEW_KEEPERS);
        loop {
            if self.record.begun(&self.journal, false).await?.held != held {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(NEW_KEEPERS_LOOK).await;
        }
    }

    /// The whole receipts of some partitions.
    async fn receipts(&self, mine: &[u32]) -> Result<BTreeMap<u32, PartitionReceipt>, ExportError> {
        if failpoint::off("known-receipts") {
            return Ok(BTreeMap::new());
        }
        let receipts = self.journal.receipts_of(&mine.iter().copied().collect()).await?;
        Ok(sorted(&self.destination, receipts).await?.whole)
    }

    /// Connects, and waits for its turn.
    async fn open(&self, begun: Begun) -> Result<Arc<dyn Reading>, ExportError> {
        let request = self.run.request.read_request();
        Ok(self.run.request.source.join(request, begun, self.max_workers).await?)
    }

    /// Reads one partition, with as many attempts as it takes.
    async fn partition(
        &self,
        reading: &Arc<dyn Reading>,
        number: u32,
        stop: &CancellationToken,
    ) -> Result<PartitionReceipt, ExportError> {
        let only = self.planned.plan.partitions.iter().filter(|partition| partition.number == number).cloned();
        let plan = Plan { partitions: only.collect(), ..Plan::clone(&self.planned.plan) };
        let Planned { format, facts, consistency, .. } = &self.planned;
        let (format, facts, consistency) = (format.clone(), facts.clone(), consistency.clone());
        let planned = Planned { plan: Arc::new(plan), format, facts, consistency, protect_key_id: None };
        let work = self.run.work(Arc::clone(reading), ONLY, &planned)?.for_another(self.fence.clone());
        let company = Company::alone(1, stop);
        let mut receipts =
            export_partitions(Arc::new(work), &company, Vec::new(), stop, &Retention::of_worker()).await?;
        receipts.pop().ok_or_else(|| ExportError::internal("a partition that was read has no receipt"))
    }

    async fn tell(&self, told: &Sender<WorkerWord>, receipt: &PartitionReceipt, already: bool) {
        let done = PartitionDone {
            run_id: self.record.run_id.clone(),
            export: self.of_job,
            partition: receipt.partition,
            attempt: format!("{:08x}", receipt.attempt),
            rows: receipt.read.rows(),
            bytes: receipt.parts.iter().map(|part| part.object.bytes).sum(),
            parts: receipt.parts.len(),
            already,
        };
        // Nobody listens any more: the journal has it.
        let _ = told.send(WorkerWord::Done(done)).await;
    }

    /// Ends a worker that has failed: the run is told where no other would do better, and what came into a closed journal
    /// is removed.
    async fn leave(&self, error: &ExportError) {
        if ends_the_export(error.kind) && self.fence.check().await.is_ok() {
            let (kind, epoch) = (error.kind, self.fence.run.epoch);
            let failure = WorkerFailure { kind, message: error.sentence(), hint: error.hint.clone(), epoch };
            if let Err(error) = self.journal.record_failure(&self.name, &failure).await {
                tracing::warn!(%error, "the run could not be told why the worker failed");
            }
        }
        let RunTarget::Destination { placement, .. } = &self.run.place else { return };
        if let Ok(false) = self.journal.is_open().await
            && let Err(error) = settle(placement, &self.journal).await
        {
            tracing::warn!(error = error.sentence(), "what was begun too late could not be removed");
        }
    }
}
