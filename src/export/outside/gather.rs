//! The run's side: it waits until the journal has a whole receipt for each partition, and then takes one of each.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deal::weighed;
use super::{EngineWord, Outside};
use crate::base::words::counted;
use crate::base::{failpoint, telemetry};
use crate::export::company::Company;
use crate::export::error::ExportError;
use crate::export::finish::RunTarget;
use crate::export::hold::Hold;
use crate::export::receipts::{Sorted, discard_others, receipts_of_plan};
use crate::export::run::Run;
use crate::export::worker::Work;
use crate::model::{Event, ExportErrorKind, Invitation, PartitionReceipt, Plan, PlannedContent, WorkersWanted};
use crate::store::Journal;
use crate::store::journal::{plan_sha256, receipt_name};

/// Between two looks into the journal, where nobody says that one is worth it: one request to list, and one for each new
/// receipt.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// So long a part that is gone may be missing at least, once all other partitions have their receipts.
const GONE_PATIENCE: Duration = Duration::from_mins(5);

/// Exports of a job whose journals are looked at so often; with more of them each has its turn less often.
const EXPORTS_AT_ONCE: usize = 8;

/// What the journal is known to have.
#[derive(Debug, Default)]
struct Gathered {
    /// The names of the receipts that were read.
    known: HashSet<String>,
    /// Rows and bytes of the first receipt of each partition.
    amounts: BTreeMap<u32, (u64, u64)>,
    /// How many receipts whoever starts the workers has told of.
    heard: u64,
    /// Until when those whose parts are gone are awaited anew.
    deadline: Option<Instant>,
}

/// Invites workers, and waits for a whole receipt of each partition; those that have none are theirs to read.
///
/// # Errors
/// A worker failed for a reason that no other one would mend; whoever starts them is gone
/// ([`ExportErrorKind::SourceUnavailable`]); a part that had a receipt is gone, and nobody reads it again in time
/// ([`ExportErrorKind::DestinationUnavailable`]); the source's guard; a cancel. What is in the journal stays there.
///
/// # Cancel safety
/// Cancel through `stop`.
pub(crate) async fn gather(
    run: &Run,
    outside: &Outside,
    (work, company): (&Arc<Work>, &Company),
    hold: Option<&Hold>,
    stop: &CancellationToken,
) -> Result<Vec<PartitionReceipt>, ExportError> {
    let (RunTarget::Destination { destination, placement, journal }, Some(hold)) = (&run.place, hold) else {
        return Err(ExportError::internal("a stream has no workers"));
    };
    refuse(run, &work.plan)?;
    let mut guard = company.guard(&work.reading, work.relation);
    let mut gathered = Gathered::default();
    let gathering = async {
        // A worker of the process before may have written one since this one looked.
        gathered.start(&receipts_of_plan(destination, journal, &work.plan).await?);
        invite(run, outside, work, journal, hold, &gathered).await?;
        failpoint::reach("invited").await;
        loop {
            let gone = !gathered.is_whole(&work.plan) && next_word(outside, &mut gathered.heard).await?;
            gathered.look(journal, hold.claim.epoch()).await?;
            gathered.tell(work);
            if gathered.is_whole(&work.plan) {
                failpoint::reach("gathered").await;
                let sorted = receipts_of_plan(destination, journal, &work.plan).await?;
                if sorted.whole.len() == work.plan.partitions.len() {
                    // Another process that has the run now decides what is in nobody's way.
                    hold.claim.check().await?;
                    discard_others(destination, placement, journal, &sorted).await?;
                    return Ok(sorted.whole.into_values().collect());
                }
                gathered.keep(&sorted);
            }
            let missing = work.plan.partitions.len() - gathered.amounts.len();
            if gone {
                return Err(nobody(missing));
            }
            if gathered.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(not_again(missing));
            }
        }
    };
    let gathered = tokio::select! {
        biased;
        () = stop.cancelled() => Err(ExportError::cancelled()),
        error = &mut guard => Err(error),
        gathered = gathering => gathered,
    };
    // Those of another process of this run, which has its place now, are not ours to end.
    if !hold.is_lost() {
        work.reading.dismiss(work.relation).await;
    }
    gathered
}

/// What no worker could read.
fn refuse(run: &Run, plan: &Plan) -> Result<(), ExportError> {
    if !run.request.source.takes_workers() {
        let message = "--workers external: partitions of this source are read by the process that planned them";
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    if plan.content == PlannedContent::Bytes {
        let message =
            "--workers external: an answer in a format of the source's own is one file, which one process writes";
        return Err(
            ExportError::new(ExportErrorKind::Usage, message).with_hint("name another --format, or leave it out")
        );
    }
    if plan.reads_at_several_moments() {
        let tables = plan.at_own_moments.join(", ");
        let message = format!("--workers external: each worker would read {tables} at another moment");
        return Err(ExportError::new(ExportErrorKind::Usage, message)
            .with_hint("without it one process reads all partitions of foreign tables"));
    }
    Ok(())
}

async fn invite(
    run: &Run,
    outside: &Outside,
    work: &Work,
    journal: &Journal,
    hold: &Hold,
    gathered: &Gathered,
) -> Result<(), ExportError> {
    let plan = journal.plan().await?.ok_or_else(|| ExportError::internal("the plan is not in the journal"))?;
    let (plan_sha256, max_workers) = (plan_sha256(&plan), run.request.work.readers.get());
    hold.claim.invite(WorkersWanted { plan_sha256: plan_sha256.clone(), max_workers }).await?;
    let all = weighed(&work.plan);
    let mut partitions = all.clone();
    partitions.retain(|partition| !gathered.amounts.contains_key(&partition.number));
    tracing::info!(partitions = partitions.len(), max_workers, "waiting for workers");
    let invitation = Invitation {
        run_id: run.request.commit.run_id.clone(),
        destination: run.place.url(),
        epoch: hold.claim.epoch(),
        plan_sha256,
        outhaul_version: env!("CARGO_PKG_VERSION").to_owned(),
        partitions,
        all,
        max_workers,
    };
    outside.invite(invitation).await;
    Ok(())
}

/// Waits until the journal is worth a look; whether whoever started the workers is gone. `heard` are the receipts that were
/// told of.
async fn next_word(outside: &Outside, heard: &mut u64) -> Result<bool, ExportError> {
    // Many exports have many journals: each of them is looked at less often.
    let share = u32::try_from(outside.exports() / EXPORTS_AT_ONCE).unwrap_or(u32::MAX).saturating_add(1);
    let interval = failpoint::limit("look", LOOK_INTERVAL).saturating_mul(share);
    tokio::select! {
        word = outside.hear(heard) => match word {
            EngineWord::Receipt { .. } => Ok(false),
            EngineWord::Failed { kind, message, .. } => {
                Err(ExportError::new(kind, format!("a worker failed: {message}")))
            }
            EngineWord::Uninvited { kind, message } => Err(ExportError::new(kind, message)),
            EngineWord::Gone => Ok(true),
        },
        () = tokio::time::sleep(interval) => Ok(false),
    }
}

fn nobody(missing: usize) -> ExportError {
    let missing = counted(missing, "partition");
    let message = format!("standard input has ended with {missing} missing: nobody starts workers any more");
    ExportError::new(ExportErrorKind::SourceUnavailable, message).with_hint(
        "what is there stays: `outhaul resume`, with or without --workers external, goes on while the snapshot is kept",
    )
}

fn not_again(missing: usize) -> ExportError {
    let missing = counted(missing, "partition");
    let message = format!("{missing} had a receipt whose part is gone, and no worker has read it again in time");
    ExportError::new(ExportErrorKind::DestinationUnavailable, message).with_hint(
        "somebody else has removed it: a rule of the bucket that aborts old uploads must leave them longer than a run takes. \
         What is there stays: `outhaul resume`, with or without --workers external, reads the rest while the snapshot is kept",
    )
}

/// So long other attempts at partitions may take: twice what these have taken, and some minutes.
fn patience(gone: &[PartitionReceipt]) -> Duration {
    let span = |receipt: &PartitionReceipt| {
        let began = receipt.parts.iter().map(|part| part.started_at).min()?;
        let ended = receipt.parts.iter().map(|part| part.finished_at).max()?;
        (ended - began).to_std().ok()
    };
    let longest = gone.iter().filter_map(span).max().unwrap_or_default();
    failpoint::limit("gone", GONE_PATIENCE).saturating_add(longest.saturating_mul(2))
}

/// Counts what another process has read, as if this one had: whoever watches the run sees that it moves.
fn count(receipt: &PartitionReceipt) {
    let rows = receipt.read.rows().unwrap_or(0);
    telemetry::rows_read(rows);
    telemetry::rows_encoded(rows);
    telemetry::bytes_written(receipt.parts.iter().map(|part| part.object.bytes).sum());
    telemetry::partition_completed();
}

impl Gathered {
    fn add<'a>(&mut self, receipts: impl IntoIterator<Item = &'a PartitionReceipt>) {
        for receipt in receipts {
            let bytes = receipt.parts.iter().map(|part| part.object.bytes).sum();
            self.amounts.entry(receipt.partition).or_insert((receipt.read.rows().unwrap_or(0), bytes));
        }
    }

    fn is_whole(&self, plan: &Plan) -> bool {
        plan.partitions.iter().all(|partition| self.amounts.contains_key(&partition.number))
    }

    /// Begins with what is there.
    fn start(&mut self, sorted: &Sorted) {
        self.amounts.clear();
        self.known = sorted.whole.values().chain(&sorted.gone).map(receipt_name).collect();
        self.add(sorted.whole.values());
    }

    /// Forgets what has turned out not to be whole: a worker may be at it again already.
    fn keep(&mut self, sorted: &Sorted) {
        self.start(sorted);
        self.deadline = Some(Instant::now() + patience(&sorted.gone));
    }

    /// Looks into the journal.
    ///
    /// # Errors
    /// The destination fails, or a worker of this epoch has noted why none can read.
    async fn look(&mut self, journal: &Journal, epoch: u64) -> Result<(), ExportError> {
        let found = journal.receipts_but(&mut self.known).await?;
        for receipt in &found {
            let rows = receipt.read.rows();
            tracing::info!(partition = receipt.partition, rows, "a worker has uploaded a partition");
            if !self.amounts.contains_key(&receipt.partition) {
                count(receipt);
            }
            self.add([receipt]);
        }
        let failed = journal.failures().await?.into_iter().find(|failure| failure.epoch == epoch);
        match failed {
            Some(failure) if !failpoint::off("worker-failures") => {
                let error = ExportError::new(failure.kind, format!("a worker failed: {}", failure.message));
                Err(ExportError { hint: failure.hint, ..error })
            }
            _ => Ok(()),
        }
    }

    fn tell(&self, work: &Work) {
        let (rows, bytes) = self.amounts.values().fold((0_u64, 0_u64), |(rows, bytes), amount| {
            (rows.saturating_add(amount.0), bytes.saturating_add(amount.1))
        });
        // A full queue drops this one: the next look says it better.
        let _ = work.events.try_send(Event::Progress {
            rows,
            bytes,
            partitions_done: self.amounts.len(),
            partitions: work.plan.partitions.len(),
            readers: Vec::new(),
        });
    }
}
