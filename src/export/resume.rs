//! `resume`: goes on with a run whose process died, from its journal alone. That of a job's root is in `job_resume.rs`.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::SemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::company::Company;
use super::error::ExportError;
use super::finish;
use super::finish::RunTarget;
use super::hold::Hold;
use super::identity::RunIdentity;
use super::mark::Mark;
use super::outside::Outside;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::place::{of_run, place_by};
use super::planned::Planned;
use super::receipts::{discard_others, receipts_of_plan};
use super::record::RunRecord;
use super::run::{Carry, ONLY, Run, unless_cancelled};
use super::since::Continuation;
use crate::base::failpoint;
use crate::base::words::counted;
use crate::commit::{Existing, Placement, look};
use crate::model::{
    CredentialCommand, Event, ExportErrorKind, ExportReport, OnExisting, PartitionReceipt, ProtectKeyPlace,
    ProtectOptions, ResumedProgress, SnapshotRecord, Target,
};
use crate::source::{Begun, Reading, Source};
use crate::store::owner::{owner, refuse_alive};
use crate::store::{Destination, Journal, Take};

/// What is to be resumed.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own, and any may be given with any")]
pub struct ResumeRequest {
    /// Where the run reads.
    pub source: Arc<dyn Source>,
    /// Where it writes.
    pub destination: String,
    /// Whether that is a single file.
    pub single_file: bool,
    /// Readers; as many as the run had unless given.
    pub readers: Option<NonZeroUsize>,
    /// Whether the rest may be read under another snapshot where the run's own is gone.
    pub allow_mixed_snapshot: bool,
    /// Whether an export that has committed is none to report: only what has not ended counts.
    pub unfinished: bool,
    /// Whether the run is taken over although it is alive, which ends it.
    pub take_over: bool,
    /// Who says credentials for AWS, where a command does.
    pub aws_credential_command: Option<CredentialCommand>,
    /// That other processes read what is missing, where they do.
    pub external: Option<Outside>,
    /// Where the key of hashes is, where that is said again.
    pub protect_key: ProtectKeyPlace,
}

/// What is found of the run.
pub(super) enum RunState {
    /// It has committed.
    Committed(Box<Existing>),
    /// It has not: what its journal says.
    Open(Box<RunRecord>),
}

/// Goes on with the run that died at a destination: partitions with a receipt are not read again, and the manifest is
/// the one that the run would have written. One that has committed is finished and reported.
///
/// # Errors
/// As [`super::run()`]; [`ExportErrorKind::DestinationTaken`] where a run is alive there and is not to be taken over,
/// [`ExportErrorKind::Usage`] where there is no run, [`ExportErrorKind::SnapshotLost`] where nobody
/// holds its snapshot any more. What is uploaded stays for another try then.
///
/// # Cancel safety
/// As [`super::run()`].
pub async fn resume(
    request: ResumeRequest,
    events: Sender<Event>,
    cancel: CancellationToken,
) -> Result<ExportReport, ExportError> {
    let (commit_begun, stop) = (Mark::default(), cancel.clone());
    let run = Box::pin(resumed(request, events, stop, commit_begun.clone()));
    to_its_end(run, &commit_begun, &cancel, ABORT_PATIENCE).await
}

async fn resumed(
    request: ResumeRequest,
    events: Sender<Event>,
    cancel: CancellationToken,
    commit_begun: Mark,
) -> Result<ExportReport, ExportError> {
    let started = Instant::now();
    let found = place_by(&request.destination, request.single_file, request.aws_credential_command.as_ref());
    let (destination, placement) = unless_cancelled(&cancel, found).await?;
    let found = find(&destination, &placement, &request);
    let record = match unless_cancelled(&cancel, found).await? {
        RunState::Committed(existing) => {
            return committed(destination, placement, &existing, started).await;
        }
        RunState::Open(record) => *record,
    };
    let mut export = record.request(Arc::clone(&request.source), Target::Destination(request.destination.clone()));
    if let Some(readers) = request.readers {
        export.work.readers = readers;
    }
    export.external = request.external.clone();
    export.commit.single_file = placement != Placement::Parts;
    export.commit.aws_credential_command = request.aws_credential_command.clone();
    export.commit.protect = keyed(export.commit.protect.take(), &request.protect_key)?;
    let place = unless_cancelled(&cancel, RunTarget::open(&export)).await?;
    let mut run = Run::new(export, place, events);
    run.commit_begun = commit_begun;
    run.started = started;
    // Each is set once.
    let _ = run.signal.set(cancel.clone());
    let _ = run.since.set(Continuation::of_changes(record.changes.clone()));
    run.announce().await;
    unless_cancelled(&cancel, run.place.ready(&run.request)).await?;
    let stop = cancel.child_token();
    let how = if request.take_over { Take::Over } else { Take::Free };
    let hold = unless_cancelled(&cancel, run.place.take(&record.run_id, how, &stop)).await?;
    let Some(hold) = hold else { return Err(ExportError::internal("a stream has nothing to resume")) };
    let result = Box::pin(go_on(&run, &request, record, &hold, &stop)).await;
    run.end(result.map_err(|error| run.stays_resumable(error, &hold)), Some(hold)).await
}

/// What protects columns, with the key where that is said again: no record has a command that prints it.
///
/// # Errors
/// [`ExportErrorKind::Usage`] where nothing is hashed.
fn keyed(protect: Option<ProtectOptions>, key: &ProtectKeyPlace) -> Result<Option<ProtectOptions>, ExportError> {
    if *key != ProtectKeyPlace::default() && !protect.as_ref().is_some_and(ProtectOptions::hashes) {
        let message = "a key is given, and the run hashes no column";
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("leave the key out"));
    }
    Ok(protect.map(|protect| protect.with_key_at(key.clone())))
}

/// Finishes an export that has committed, and reports it.
pub(super) async fn committed(
    destination: Destination,
    placement: Placement,
    existing: &Existing,
    started: Instant,
) -> Result<ExportReport, ExportError> {
    let run_id = &existing.manifest.run_id;
    let destination = of_run(&destination, run_id).await?;
    let journal = Journal::new(destination.clone(), run_id.clone());
    let place = RunTarget::Destination { journal, destination, placement };
    place.repair(run_id).await?;
    Ok(finish::report_of(&place, 0, started, &existing.manifest, Some(existing.url.clone()), true))
}

/// Looks for the run that the destination's owner names, or the only one whose journal is open.
async fn find(
    destination: &Destination,
    placement: &Placement,
    request: &ResumeRequest,
) -> Result<RunState, ExportError> {
    let path = placement.owner_path();
    let owner = if request.take_over {
        owner(destination, &path).await?
    } else {
        refuse_alive(destination, &path, true).await?
    };
    let standing = look(destination, placement).await?;
    let mut candidates: Vec<Journal> = match &owner {
        Some(owner) => vec![Journal::new(destination.clone(), owner.run_id.clone())],
        None => Vec::new(),
    };
    if candidates.is_empty() && standing.is_none() {
        let all = Journal::all(destination).await?;
        candidates.extend(all.into_iter().filter(|(_, ended)| !ended).map(|(journal, _)| journal));
    }
    for journal in candidates.into_iter().rev() {
        let Some(identity) = RunIdentity::read(&journal).await?.filter(|identity| identity.is_of(placement)) else {
            continue;
        };
        identity.check(&journal, ExportErrorKind::Usage)?;
        // Whichever version has committed: what is left to do needs no plan.
        if let Some(existing) = standing.as_ref().filter(|it| it.manifest.run_id == journal.run_id()) {
            return Ok(RunState::Committed(Box::new(existing.clone())));
        }
        if let Some(record) = RunRecord::read(&journal).await? {
            return Ok(RunState::Open(Box::new(record)));
        }
    }
    match standing {
        Some(existing) if !request.unfinished => Ok(RunState::Committed(Box::new(existing))),
        _ => Err(nothing(destination.url())),
    }
}

/// The error where no run is found.
pub(super) fn nothing(url: &str) -> ExportError {
    let message = format!("there is no run to resume at {url}");
    ExportError::new(ExportErrorKind::Usage, message)
        .with_hint("a run that failed cleanly or was stopped has left nothing; `outhaul export` begins a new one")
}

async fn go_on(
    run: &Run,
    request: &ResumeRequest,
    record: RunRecord,
    hold: &Hold,
    stop: &CancellationToken,
) -> Result<ExportReport, ExportError> {
    of_source(&record, request.source.as_ref())?;
    let unfinished = unless_cancelled(stop, Box::pin(Unfinished::take_up(run, record, hold))).await?;
    let reading = if unfinished.is_read() {
        None
    } else {
        let reading = Box::pin(unfinished.reading(run, request.allow_mixed_snapshot));
        Some(unless_cancelled(stop, reading).await?)
    };
    let company = Company::alone(run.request.work.readers.get(), stop);
    Box::pin(run.go_on(unfinished, (reading, ONLY), (hold, stop), (&company, None))).await
}

/// Refuses to go on at another kind of source.
pub(super) fn of_source(record: &RunRecord, source: &dyn Source) -> Result<(), ExportError> {
    if record.facts.kind == source.kind() {
        return Ok(());
    }
    let message = format!("the run reads `{}`, and --from names `{}`", record.facts.kind, source.kind());
    Err(ExportError::new(ExportErrorKind::Usage, message))
}

/// A run that another process began, as far as it came.
#[derive(Debug)]
pub(super) struct Unfinished {
    record: RunRecord,
    receipts: Vec<PartitionReceipt>,
    /// The manifest that it is to replace.
    previous: Option<Box<Existing>>,
}

impl Unfinished {
    /// Takes it over at a destination that is ours: what is whole has a receipt, and whatever else was begun is removed.
    ///
    /// # Errors
    /// The destination fails.
    pub(super) async fn take_up(run: &Run, record: RunRecord, hold: &Hold) -> Result<Self, ExportError> {
        let RunTarget::Destination { destination, placement, journal } = &run.place else {
            return Err(ExportError::internal("a stream has nothing to resume"));
        };
        journal.record_epoch(hold.claim.epoch(), run.seed).await?;
        hold.settle_dead_runs(destination, placement, Some(&record.run_id)).await?;
        let previous = previous(run, destination, placement).await?;
        let sorted = receipts_of_plan(destination, journal, &record.plan).await?;
        discard_others(destination, placement, journal, &sorted).await?;
        run.refuse_strangers(previous.as_ref().map(|previous| &previous.manifest)).await?;
        let receipts: Vec<PartitionReceipt> = sorted.whole.into_values().collect();
        failpoint::reach("receipts").await;
        let unfinished = Self { record, receipts, previous };
        let (run_id, missing) = (&unfinished.record.run_id, unfinished.missing());
        tracing::info!(run_id, receipts = unfinished.receipts.len(), missing, "resuming");
        Ok(unfinished)
    }

    fn missing(&self) -> usize {
        self.record.plan.partitions.len().saturating_sub(self.receipts.len())
    }

    /// Whether nothing is missing but its commit.
    pub(super) fn is_read(&self) -> bool {
        self.missing() == 0 && self.receipts.iter().any(|receipt| !receipt.parts.is_empty())
    }

    /// Goes on reading where the other process left off.
    ///
    /// # Errors
    /// [`ExportErrorKind::SnapshotLost`] where nobody holds its snapshot any more; those of the source.
    pub(super) async fn reading(&self, run: &Run, allow_mixed: bool) -> Result<Arc<dyn Reading>, ExportError> {
        let begun = self.begun(run, allow_mixed).await?;
        Ok(run.request.source.resume(vec![run.request.read_request()], begun).await?)
    }

    /// What its source is told of it.
    ///
    /// # Errors
    /// [`ExportErrorKind::SnapshotLost`] where the rest would be of another moment than what is there; those of the
    /// destination.
    pub(super) async fn begun(&self, run: &Run, allow_mixed: bool) -> Result<Begun, ExportError> {
        one_moment(&self.record, self.receipts.len(), self.missing())?;
        let RunTarget::Destination { journal, .. } = &run.place else {
            return Err(ExportError::internal("a stream has nothing to resume"));
        };
        Ok(self.record.begun(journal, allow_mixed).await?)
    }

    /// The snapshots that it was read under.
    pub(super) fn snapshots(&self) -> &[SnapshotRecord] {
        &self.record.consistency.snapshots
    }
}

impl Run {
    /// Carries out what is missing of a run that another process began.
    ///
    /// # Errors
    /// As [`super::run()`].
    pub(super) async fn go_on(
        &self,
        Unfinished { record, receipts, previous }: Unfinished,
        (reading, relation): (Option<Arc<dyn Reading>>, usize),
        (hold, stop): (&Hold, &CancellationToken),
        (company, permit): (&Company, Option<SemaphorePermit<'_>>),
    ) -> Result<ExportReport, ExportError> {
        // Nobody else sets it.
        let _ = self.begun_at.set(record.created_at);
        let planned = match &reading {
            None => record.planned()?,
            Some(reading) => {
                let planned = Planned::of(reading.as_ref(), relation, &record.format)?;
                // Equal values have equal hashes in all parts only under the key that the run began with.
                Planned { protect_key_id: record.protect_key_id.clone(), ..planned }
            }
        };
        self.announce_plan(&planned, ResumedProgress::of(&receipts)).await;
        let hold = Some(hold);
        let carry = Carry { reading, relation, receipts, previous, hold, stop, company, permit };
        self.carry_out(&planned, carry).await
    }

    /// The error of a run that another process began. Until the rest is committed whatever fails leaves the journal to
    /// another try; a signal gives the whole run up, as it does with one that was never killed, unless it is to be kept.
    pub(super) fn stays_resumable(&self, error: ExportError, hold: &Hold) -> ExportError {
        let stopped = matches!(error.kind, ExportErrorKind::Interrupted | ExportErrorKind::Terminated);
        if !stopped || self.retention(Some(hold)).outlasts_signal(&error) {
            self.litter.set();
        }
        error
    }
}

/// Refuses to read the rest of a run that reads foreign tables by several statements: theirs is the moment of the first
/// process.
fn one_moment(record: &RunRecord, receipts: usize, missing: usize) -> Result<(), ExportError> {
    let foreign = &record.plan.at_own_moments;
    if foreign.is_empty() || receipts == 0 || missing == 0 || failpoint::off("foreign") {
        return Ok(());
    }
    let message = format!(
        "what is missing ({}) would be read at another moment of the foreign server than what is there ({receipts}): {}",
        counted(missing, "partition"),
        foreign.join(", ")
    );
    Err(ExportError::new(ExportErrorKind::SnapshotLost, message)
        .with_hint("run the export again; without --key one statement reads all rows"))
}

/// The manifest that the run is to replace.
async fn previous(
    run: &Run,
    destination: &Destination,
    placement: &Placement,
) -> Result<Option<Box<Existing>>, ExportError> {
    match look(destination, placement).await? {
        Some(existing) if run.request.commit.on_existing == OnExisting::Replace => Ok(Some(Box::new(existing))),
        Some(existing) => {
            let run_id = existing.manifest.run_id;
            Err(crate::commit::ManifestError::Taken { object: existing.url, run_id }.into())
        }
        None => Ok(None),
    }
}
