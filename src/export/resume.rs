//! `resume`: goes on with a run whose process died, from its journal alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::company::Company;
use super::error::ExportError;
use super::finish;
use super::finish::RunTarget;
use super::hold::Hold;
use super::identity::RunIdentity;
use super::leftovers::DeadRun;
use super::mark::Mark;
use super::outside::Outside;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::place::place_by;
use super::record::RunRecord;
use super::run::{Carry, ONLY, Planned, Run, unless_cancelled};
use crate::base::failpoint;
use crate::base::words::counted;
use crate::commit::{Existing, Placement, look};
use crate::model::{
    CredentialCommand, Event, ExportErrorKind, ExportReport, OnExisting, PartitionReceipt, Plan, ResumedProgress,
    StagedObject, Staging, Target,
};
use crate::source::{Reading, Source};
use crate::store::owner::{owner, refuse_alive};
use crate::store::{AttemptSeed, Destination, Journal, Take};

/// What is to be resumed.
#[derive(Debug, Clone)]
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
    /// Whether the run is taken over although it is alive, which ends it.
    pub take_over: bool,
    /// Who says credentials for AWS, where a command does.
    pub aws_credential_command: Option<CredentialCommand>,
    /// That other processes read what is missing, where they do.
    pub external: Option<Outside>,
}

/// What is found of the run.
enum RunState {
    /// It has committed.
    Committed(Box<Existing>),
    /// It has not: its journal, and what that says.
    Open(Box<(Journal, RunRecord)>),
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
    let found = find(&destination, &placement, request.take_over);
    let (journal, record) = match unless_cancelled(&cancel, found).await? {
        RunState::Committed(existing) => {
            let place = RunTarget::Destination {
                journal: Journal::new(destination.clone(), existing.manifest.run_id.clone()),
                destination,
                placement,
            };
            place.repair(&existing.manifest.run_id).await?;
            return Ok(finish::report_of(&place, 0, started, &existing.manifest, Some(existing.url.clone()), true));
        }
        RunState::Open(found) => *found,
    };
    let mut export = record.request(Arc::clone(&request.source), Target::Destination(request.destination.clone()));
    if let Some(readers) = request.readers {
        export.work.readers = readers;
    }
    export.external = request.external.clone();
    export.commit.single_file = placement != Placement::Parts;
    export.commit.aws_credential_command = request.aws_credential_command.clone();
    let place = unless_cancelled(&cancel, RunTarget::open(&export)).await?;
    let seed = AttemptSeed::random();
    let (created_at, keeper) = (record.created_at, Mutex::default());
    let run = Run {
        request: export,
        place,
        started,
        created_at,
        events,
        seed,
        keeper,
        commit_begun,
        litter: Mark::default(),
    };
    run.announce().await;
    unless_cancelled(&cancel, run.place.ready(&run.request)).await?;
    let stop = cancel.child_token();
    let how = if request.take_over { Take::Over } else { Take::Free };
    let hold = unless_cancelled(&cancel, run.place.take(&record.run_id, how, &stop)).await?;
    let Some(hold) = hold else { return Err(ExportError::internal("a stream has nothing to resume")) };
    let result = Box::pin(go_on(&run, &request, &journal, record, &hold, &stop)).await;
    run.end(result, Some(hold)).await
}

/// Looks for the run that the destination's owner names, or the only one whose journal is open.
async fn find(destination: &Destination, placement: &Placement, take_over: bool) -> Result<RunState, ExportError> {
    let path = placement.owner_path();
    let owner =
        if take_over { owner(destination, &path).await? } else { refuse_alive(destination, &path, true).await? };
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
            return Ok(RunState::Open(Box::new((journal, record))));
        }
    }
    if let Some(existing) = standing {
        return Ok(RunState::Committed(Box::new(existing)));
    }
    let message = format!("there is no run to resume at {}", destination.url());
    Err(ExportError::new(ExportErrorKind::Usage, message)
        .with_hint("a run that failed cleanly or was stopped has left nothing; `outhaul export` begins a new one"))
}

async fn go_on(
    run: &Run,
    request: &ResumeRequest,
    journal: &Journal,
    record: RunRecord,
    hold: &Hold,
    stop: &CancellationToken,
) -> Result<ExportReport, ExportError> {
    let RunTarget::Destination { destination, placement, .. } = &run.place else {
        return Err(ExportError::internal("a stream has nothing to resume"));
    };
    // Until the rest is committed whatever fails leaves the journal to another try; a signal gives the whole run up, as it
    // does with one that was never killed.
    let kept = |error: ExportError| {
        let stopped = matches!(error.kind, ExportErrorKind::Interrupted | ExportErrorKind::Terminated);
        if !stopped {
            run.litter.set();
        }
        error
    };
    if record.facts.kind != request.source.kind() {
        let message = format!("the run reads `{}`, and --from names `{}`", record.facts.kind, request.source.kind());
        return Err(kept(ExportError::new(ExportErrorKind::Usage, message)));
    }
    let prepared = async {
        journal.record_epoch(hold.claim.epoch(), run.seed).await?;
        hold.settle_dead_runs(destination, placement, Some(&record.run_id)).await?;
        let previous = previous(run, destination, placement).await?;
        let receipts = receipts_of_plan(destination, placement, journal, &record.plan).await?;
        failpoint::reach("receipts").await;
        Ok::<_, ExportError>((previous, receipts))
    };
    let (previous, receipts) = unless_cancelled(stop, prepared).await.map_err(kept)?;
    let missing = record.plan.partitions.len() - receipts.len();
    tracing::info!(run_id = record.run_id, receipts = receipts.len(), missing, "resuming");
    one_moment(&record, receipts.len(), missing).map_err(kept)?;
    let (reading, planned) = if missing == 0 && receipts.iter().any(|receipt| !receipt.parts.is_empty()) {
        (None, record.planned()?)
    } else {
        let reading = reading(run, journal, &record, request.allow_mixed_snapshot);
        let reading = unless_cancelled(stop, Box::pin(reading)).await.map_err(kept)?;
        let planned = Planned::of(reading.as_ref(), ONLY, &record.format).map_err(kept)?;
        (Some(reading), planned)
    };
    run.announce_plan(&planned, ResumedProgress::of(&receipts)).await;
    let company = Company::alone(run.request.work.readers.get(), stop);
    let carry = Carry { reading, relation: ONLY, receipts, previous, hold: Some(hold), stop, company: &company };
    run.carry_out(&planned, carry).await.map_err(kept)
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

/// One receipt for each partition of the plan that has one whose objects are all there; whatever else the run has begun is
/// removed.
pub(super) async fn receipts_of_plan(
    destination: &Destination,
    placement: &Placement,
    journal: &Journal,
    plan: &Plan,
) -> Result<Vec<PartitionReceipt>, ExportError> {
    let listed = destination.open_uploads().await.unwrap_or_else(|error| {
        tracing::warn!(
            %error,
            "open uploads cannot be listed; receipts are believed"
        );
        None
    });
    let open: Option<HashSet<(String, String)>> = listed.map(|listed| listed.into_iter().collect());
    let mut good: BTreeMap<u32, PartitionReceipt> = BTreeMap::new();
    let planned: HashSet<u32> = plan.partitions.iter().map(|partition| partition.number).collect();
    for receipt in journal.receipts().await?.into_iter().filter(|receipt| planned.contains(&receipt.partition)) {
        let better = good.get(&receipt.partition).is_none_or(|other| other.parts.is_empty());
        if better && is_whole(destination, &receipt, open.as_ref()).await? {
            good.insert(receipt.partition, receipt);
        }
    }
    let parts = good.values().flat_map(|receipt| &receipt.parts);
    let kept: HashMap<&str, Option<&str>> =
        parts.map(|part| (part.object.path.as_str(), part.object.staging.upload_id())).collect();
    if let Some(run) = DeadRun::of(journal.clone(), placement).await? {
        run.discard_but(destination, &kept).await?;
    }
    Ok(good.into_values().collect())
}

/// Whether every object of a receipt is staged, or visible already.
pub(super) async fn is_whole(
    destination: &Destination,
    receipt: &PartitionReceipt,
    open: Option<&HashSet<(String, String)>>,
) -> Result<bool, ExportError> {
    for part in &receipt.parts {
        let object = &part.object;
        let staged = match &object.staging {
            Staging::Local { file } => is_there(destination, file, object).await?,
            Staging::Multipart { upload_id, .. } => {
                open.is_none_or(|open| open.contains(&(object.path.clone(), upload_id.clone())))
            }
            Staging::Published => false,
        };
        if !staged && !is_there(destination, &object.path, object).await? {
            tracing::warn!(path = object.path, "a part that has a receipt is gone; its partition is read again");
            return Ok(false);
        }
    }
    Ok(true)
}

async fn is_there(destination: &Destination, path: &str, object: &StagedObject) -> Result<bool, ExportError> {
    let facts = destination.head(path).await?;
    Ok(facts
        .is_some_and(|facts| facts.bytes == object.bytes && facts.crc64nvme.is_none_or(|crc| crc == object.crc64nvme)))
}

/// Goes on reading where the run that died left off.
async fn reading(
    run: &Run,
    journal: &Journal,
    record: &RunRecord,
    allow_mixed: bool,
) -> Result<Arc<dyn Reading>, ExportError> {
    let begun = record.begun(journal, allow_mixed).await?;
    Ok(run.request.source.resume(vec![run.request.read_request()], begun).await?)
}
