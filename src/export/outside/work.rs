//! The worker's side: it joins a run that waits for workers, reads its share of the partitions, and leaves a receipt of
//! each in the run's journal.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deal::numbers;
use super::fence::Fence;
use crate::base::failpoint;
use crate::commit::Placement;
use crate::export::company::Company;
use crate::export::coordinator::export_partitions;
use crate::export::error::ExportError;
use crate::export::finish::RunTarget;
use crate::export::hold::{Retention, settle};
use crate::export::mark::Mark;
use crate::export::patience::{ABORT_PATIENCE, to_its_end};
use crate::export::place::place_by;
use crate::export::planned::Planned;
use crate::export::record::RunRecord;
use crate::export::resume::is_whole;
use crate::export::run::{ONLY, Run, unless_cancelled};
use crate::model::{
    CredentialCommand, ExportErrorKind, PartitionDone, PartitionReceipt, Plan, RunFence, Target, WorkerShare,
    WorkersWanted,
};
use crate::source::{Reading, Source};
use crate::store::journal::plan_sha256;
use crate::store::owner::owner;
use crate::store::{Destination, Journal, WorkerFailure};

/// Between two looks for a run that wants workers.
const WAIT_INTERVAL: Duration = Duration::from_secs(2);

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
    /// So long the run may be awaited.
    pub wait: Duration,
    /// Who says credentials for AWS, where a command does.
    pub aws_credential_command: Option<CredentialCommand>,
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
    told: Sender<PartitionDone>,
    cancel: CancellationToken,
) -> Result<usize, ExportError> {
    let stop = cancel.clone();
    let working = Box::pin(async move { worked(request, told, stop).await });
    to_its_end(working, &Mark::default(), &cancel, ABORT_PATIENCE).await
}

async fn worked(
    request: WorkRequest,
    told: Sender<PartitionDone>,
    cancel: CancellationToken,
) -> Result<usize, ExportError> {
    let joined = unless_cancelled(&cancel, Box::pin(join(&request))).await?;
    failpoint::reach("joined").await;
    let stop = cancel.child_token();
    let mut reading = Box::pin(joined.read(&request.share, &told, &stop));
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

/// Waits for the run, and makes sure that it is the one that is meant.
async fn join(request: &WorkRequest) -> Result<Joined, ExportError> {
    let credentials = request.aws_credential_command.as_ref();
    let (destination, placement) = place_by(&request.destination, false, credentials).await?;
    if placement != Placement::Parts {
        let message = format!("{} is a single file, which one process writes", request.destination);
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    let (run, max_workers) = wanted(request, &destination, &placement.owner_path()).await?;
    let journal = Journal::new(destination.clone(), run.run_id.clone());
    let record = planned_by(&journal, &run).await?;
    if record.facts.kind != request.source.kind() {
        let message = format!("the run reads `{}`, and --from names `{}`", record.facts.kind, request.source.kind());
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    if record.commit.protect.is_some() {
        let message = "the run protects columns, whose key is with the process that planned it";
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    let mut export = record.request(Arc::clone(&request.source), Target::Destination(request.destination.clone()));
    export.work.readers = NonZeroUsize::MIN;
    export.commit.aws_credential_command = request.aws_credential_command.clone();
    let place = RunTarget::open(&export).await?;
    // Nobody watches: what a worker tells are its partitions.
    let (events, _) = mpsc::channel(1);
    let working = Run::new(export, place, events);
    let name = format!("{:08x}", rand::random::<u32>());
    journal.record_worker(run.epoch, &name, working.seed).await?;
    let fence = Fence { destination: destination.clone(), path: placement.owner_path(), run };
    // The journal may have been closed before the seed came into it.
    fence.check().await?;
    let planned = record.planned()?;
    tracing::info!(run_id = record.run_id, epoch = fence.run.epoch, "joined");
    Ok(Joined { run: working, record, planned, destination, journal, fence, name, max_workers })
}

/// The run that wants workers.
async fn wanted(
    request: &WorkRequest,
    destination: &Destination,
    path: &str,
) -> Result<(RunFence, NonZeroUsize), ExportError> {
    let deadline = Instant::now() + request.wait;
    loop {
        let found = owner(destination, path).await?.filter(|owner| owner.is_alive(Utc::now()));
        match (&request.run, found) {
            (asked, Some(owner))
                if asked.as_ref().is_none_or(|run| (&run.run_id, run.epoch) == (&owner.run_id, owner.epoch)) =>
            {
                if let Some(WorkersWanted { plan_sha256, max_workers }) = owner.workers {
                    let max_workers = NonZeroUsize::new(max_workers).unwrap_or(NonZeroUsize::MIN);
                    let found = RunFence { run_id: owner.run_id, epoch: owner.epoch, plan_sha256 };
                    return Ok((request.run.clone().unwrap_or(found), max_workers));
                }
            }
            (Some(asked), _) => {
                let fence = Fence { destination: destination.clone(), path: path.to_owned(), run: asked.clone() };
                // One that is only late has its record all the same.
                fence.check().await?;
            }
            (None, _) => {}
        }
        if Instant::now() >= deadline {
            let message = format!("no run that wants workers was at {} in time", destination.url());
            return Err(ExportError::new(ExportErrorKind::GaveWay, message)
                .with_hint("`outhaul export --workers external` is such a run; --wait says how long it is awaited"));
        }
        tokio::time::sleep(failpoint::limit("wait", WAIT_INTERVAL)).await;
    }
}

/// The plan of the run, if it is the one that is meant, and of this version.
async fn planned_by(journal: &Journal, run: &RunFence) -> Result<RunRecord, ExportError> {
    let other = |what: String| {
        let message = format!("the plan of run {} at {} {what}", run.run_id, journal.destination_url());
        ExportError::new(ExportErrorKind::Usage, message)
    };
    let plan = journal.plan().await?.ok_or_else(|| other("is not there: the run has ended".to_owned()))?;
    let found = plan_sha256(&plan);
    if found != run.plan_sha256 && !failpoint::off("plan-hash") {
        let what = format!("has the SHA-256 {found}, and {} was asked for", run.plan_sha256);
        return Err(
            other(what).with_hint("take --plan-sha256 from the line `ready` of the run, or leave it out with --shard")
        );
    }
    let record = RunRecord::read(journal).await?.ok_or_else(|| other("is not there: the run has ended".to_owned()))?;
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
        told: &Sender<PartitionDone>,
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
        let mut reading: Option<(Arc<dyn Reading>, Vec<String>)> = None;
        let mut missing = missing.into_iter().peekable();
        while let Some(number) = missing.peek().copied() {
            let (open, held) = match reading.take() {
                Some(reading) => reading,
                None => unless_cancelled(stop, self.open()).await?,
            };
            match self.partition(&open, number, stop).await {
                Ok(receipt) => {
                    self.tell(told, &receipt, false).await;
                    missing.next();
                    reading = Some((open, held));
                }
                // Other keepers may have come in the place of those that were known.
                Err(error) if error.kind == ExportErrorKind::SnapshotLost => {
                    let now = self.record.begun(&self.journal, false).await?.held;
                    if now == held {
                        return Err(error);
                    }
                    tracing::warn!(error = error.sentence(), "joining the run anew, by its keepers of now");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(mine.len())
    }

    /// The whole receipts of some partitions.
    async fn receipts(&self, mine: &[u32]) -> Result<HashMap<u32, PartitionReceipt>, ExportError> {
        let mut whole = HashMap::new();
        if failpoint::off("known-receipts") {
            return Ok(whole);
        }
        for receipt in self.journal.receipts_of(&mine.iter().copied().collect::<HashSet<u32>>()).await? {
            if !whole.contains_key(&receipt.partition) && is_whole(&self.destination, &receipt, None).await? {
                whole.insert(receipt.partition, receipt);
            }
        }
        Ok(whole)
    }

    /// Connects, and waits for its turn; with it the ids by which the snapshot was found.
    async fn open(&self) -> Result<(Arc<dyn Reading>, Vec<String>), ExportError> {
        let begun = self.record.begun(&self.journal, false).await?;
        let held = begun.held.clone();
        let request = self.run.request.read_request();
        Ok((self.run.request.source.join(request, begun, self.max_workers).await?, held))
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

    async fn tell(&self, told: &Sender<PartitionDone>, receipt: &PartitionReceipt, already: bool) {
        let done = PartitionDone {
            run_id: self.record.run_id.clone(),
            partition: receipt.partition,
            attempt: format!("{:08x}", receipt.attempt),
            rows: receipt.read.rows(),
            bytes: receipt.parts.iter().map(|part| part.object.bytes).sum(),
            parts: receipt.parts.len(),
            already,
        };
        // Nobody listens any more: the journal has it.
        let _ = told.send(done).await;
    }

    /// Ends a worker that has failed: the run is told where no other would do better, and what came into a closed journal
    /// is removed.
    async fn leave(&self, error: &ExportError) {
        let of_the_rows = matches!(
            error.kind,
            ExportErrorKind::Data
                | ExportErrorKind::StatementRejected
                | ExportErrorKind::SourceMissing
                | ExportErrorKind::SchemaChanged
                | ExportErrorKind::SnapshotLost
                | ExportErrorKind::Internal
        );
        if of_the_rows && self.fence.check().await.is_ok() {
            let (kind, epoch) = (error.kind, self.fence.run.epoch);
            let failure = WorkerFailure { kind, message: error.sentence(), hint: error.hint.clone(), epoch };
            if let Err(error) = self.journal.record_failure(&self.name, &failure).await {
                tracing::warn!(%error, "the run could not be told why the worker failed");
            }
        }
        let RunTarget::Destination { placement, .. } = &self.run.place else { return };
        if let Ok(false) = self.journal.is_open().await
            && let Err(error) = settle(&self.destination, placement, &self.journal).await
        {
            tracing::warn!(error = error.sentence(), "what was begun too late could not be removed");
        }
    }
}
