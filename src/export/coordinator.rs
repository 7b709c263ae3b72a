//! The event loop: it alone owns the queue of partitions, the receipts and the decision to stop.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::company::Company;
use super::crew::{Crew, Seat};
use super::error::ExportError;
use super::hold::Retention;
use super::outlet::{Outlet, discard};
use super::planned::Planned;
use super::record::RunRecord;
use super::worker::{Counters, Work, export_partition};
use crate::base::cpu::TaskLost;
use crate::base::{failpoint, retry, telemetry};
use crate::model::{Event, ExportErrorKind, Partition, PartitionReceipt, Plan, ReaderProgress};
use crate::source::{Replan, Retry};
use crate::store::owner::Claim;
use crate::store::{ABORT_GRACE, DISCARDS_AT_ONCE};

/// Between two progress events: what a person can follow.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A reader's place: which partition it has, and how far it is.
#[derive(Debug, Default)]
struct Slot {
    partition: Option<u32>,
    counters: Arc<Counters>,
    /// Where a partition of this export is being read.
    seat: Option<Seat>,
}

/// How often an attempt at a partition has failed, and since when.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    since: Instant,
}

type Finished = (usize, Partition, Result<PartitionReceipt, ExportError>);

#[derive(Debug)]
struct Coordinator {
    work: Arc<Work>,
    /// Whether the destination is still ours, where there is one.
    claim: Option<Claim>,
    /// The plan as it stands now.
    plan: Arc<Plan>,
    /// Partitions that the source has planned anew. An attempt at one of them may still run.
    discarded: HashSet<u32>,
    queue: VecDeque<Partition>,
    /// The readers of the run.
    crew: Crew,
    /// Asked of them for the queue's next partition.
    wanted: Option<oneshot::Receiver<Seat>>,
    /// By the numbers of the readers.
    slots: Vec<Slot>,
    running: JoinSet<Finished>,
    failures: HashMap<u32, Failures>,
    /// The number of each partition's last attempt, failed or given up for want of a connection: each has names of its
    /// own.
    attempts: HashMap<u32, u32>,
    receipts: Vec<PartitionReceipt>,
    /// Whether it was said that readers go: once is enough.
    told_of_fewer: bool,
    stop: CancellationToken,
}

/// Reads, encodes and uploads every partition of the plan that has no receipt yet, with the readers of `company`, which
/// the other exports of the run share. The receipts, with those given, come in no order.
///
/// A partition whose attempt fails for a passing reason is tried again under the same snapshot ([`Retry`]), in bounds.
///
/// # Errors
/// The first failure of a worker that another attempt would not mend, or of the source's guard, or a cancel; everything
/// that this process uploaded is removed then, as far as [`ABORT_GRACE`] allows. Parts that have a receipt stay where
/// `retention` says so.
///
/// # Cancel safety
/// Cancel through `cancel`.
pub(crate) async fn export_partitions(
    work: Arc<Work>,
    company: &Company,
    receipts: Vec<PartitionReceipt>,
    cancel: &CancellationToken,
    retention: &Retention,
) -> Result<Vec<PartitionReceipt>, ExportError> {
    let done: HashSet<u32> = receipts.iter().map(|receipt| receipt.partition).collect();
    let todo = work.plan.partitions.iter().filter(|partition| !done.contains(&partition.number));
    let mut coordinator = Coordinator {
        work: Arc::clone(&work),
        claim: retention.claim.clone(),
        plan: Arc::clone(&work.plan),
        discarded: HashSet::new(),
        queue: todo.cloned().collect(),
        crew: company.crew.clone(),
        wanted: None,
        slots: (0..company.readers).map(|_| Slot::default()).collect(),
        running: JoinSet::new(),
        failures: HashMap::new(),
        attempts: HashMap::new(),
        receipts,
        told_of_fewer: false,
        stop: cancel.child_token(),
    };
    let guard = company.guard(&work.reading, work.relation);
    match coordinator.run(cancel, guard).await {
        Ok(()) => Ok(coordinator.receipts),
        Err(error) => {
            if !coordinator.abort(&error, retention).await || retention.outlasts_signal(&error) {
                work.litter.set();
            }
            Err(error)
        }
    }
}

impl Coordinator {
    async fn run(
        &mut self,
        cancel: &CancellationToken,
        mut guard: BoxFuture<'_, ExportError>,
    ) -> Result<(), ExportError> {
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            self.ask();
            if self.running.is_empty() && self.queue.is_empty() {
                break;
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(ExportError::cancelled()),
                Some(finished) = self.running.join_next() => self.finished(finished).await?,
                seat = seated(&mut self.wanted) => self.dispatch(seat).await,
                error = &mut guard => return Err(error),
                _ = tick.tick() => self.progress(),
            }
        }
        self.represent_empty().await?;
        self.progress();
        Ok(())
    }

    /// Asks for a reader where a partition waits for one; without one that waits nobody is asked.
    fn ask(&mut self) {
        if self.queue.is_empty() {
            self.wanted = None;
        } else if self.wanted.is_none() {
            self.wanted = Some(self.crew.ask(self.size()));
        }
    }

    /// About how many bytes a partition has. What is not known may be large, and begins early.
    fn size(&self) -> u64 {
        let partitions = u64::try_from(self.plan.partitions.len()).unwrap_or(u64::MAX).max(1);
        self.plan.relation.estimated_bytes.map_or(u64::MAX, |bytes| bytes / partitions)
    }

    /// Gives a reader the next partition, if there is one.
    async fn dispatch(&mut self, seat: Seat) {
        self.wanted = None;
        let Some(partition) = self.queue.pop_front() else { return };
        let slot = seat.number();
        let event = Event::PartitionStarted { reader: slot, partition: partition.number };
        // Nobody listens any more: the run goes on all the same.
        let _ = self.work.events.send(event).await;
        seat.begin();
        self.slots[slot].seat = Some(seat);
        self.start(slot, partition, Duration::ZERO);
    }

    /// Starts an attempt, after a while.
    fn start(&mut self, slot: usize, partition: Partition, after: Duration) {
        let place = &mut self.slots[slot];
        place.partition = Some(partition.number);
        place.counters = Arc::default();
        let counters = Arc::clone(&place.counters);
        let nth = self.attempts.entry(partition.number).and_modify(|nth| *nth += 1).or_insert(0);
        let nth = *nth;
        let (work, stop) = (Arc::clone(&self.work), self.stop.clone());
        self.running.spawn(async move {
            if !after.is_zero() {
                tokio::select! {
                    () = stop.cancelled() => return (slot, partition, Err(ExportError::cancelled())),
                    () = tokio::time::sleep(after) => {}
                }
            }
            failpoint::reach("reading").await;
            let result = export_partition(&work, &partition, nth, &counters, false, &stop).await;
            (slot, partition, result)
        });
    }

    async fn finished(&mut self, finished: Result<Finished, JoinError>) -> Result<(), ExportError> {
        let (slot, partition, result) = finished.map_err(|error| {
            // Nobody has aborted what it had begun.
            self.work.litter.set();
            ExportError::internal("reading a partition").with_source(TaskLost::from(error))
        })?;
        match result {
            result if self.discarded.contains(&partition.number) => {
                if let Ok(receipt) = result {
                    self.drop_receipts(&[receipt]).await;
                }
                self.slots[slot] = Slot::default();
            }
            Ok(receipt) => {
                tracing::info!(partition = receipt.partition, rows = receipt.read.rows(), "a partition is uploaded");
                self.receipts.push(receipt);
                telemetry::partition_completed();
                self.slots[slot] = Slot::default();
            }
            Err(error) if error.retry == Retry::FewerReaders && self.crew.taken() > 1 => {
                let seat = std::mem::take(&mut self.slots[slot]).seat;
                self.queue.push_front(partition);
                // One that is the last by now comes back, and is asked for again.
                let Some(Ok(left)) = seat.map(Seat::give_up) else { return Ok(()) };
                if std::mem::replace(&mut self.told_of_fewer, true) {
                    tracing::debug!(readers = left, "one reader less");
                } else {
                    tracing::warn!(readers = left, "the server has no connection left; going on with fewer readers");
                }
            }
            // What a stream has said cannot be taken back.
            Err(error) if error.retry == Retry::Replan && !matches!(self.work.outlet, Outlet::Stream(_)) => {
                self.replan(partition.number, error).await?;
                self.slots[slot] = Slot::default();
            }
            Err(error) => {
                let delay = self.again(&partition, error)?;
                self.start(slot, partition, delay);
            }
        }
        Ok(())
    }

    /// Has the source plan a partition anew. The changed plan is noted before anything of the old one is dropped.
    async fn replan(&mut self, partition: u32, error: ExportError) -> Result<(), ExportError> {
        let reading = &self.work.reading;
        let replanned = reading.replan(self.work.relation, partition).await;
        let Some(Replan { discard, add }) = replanned.map_err(|error| self.work.told(error))? else {
            return Err(error);
        };
        let planned = Planned::of(reading.as_ref(), self.work.relation, &self.work.format)?;
        if let Some(journal) = self.work.outlet.journal() {
            if let Some(claim) = &self.claim {
                claim.check().await?;
            }
            RunRecord::change_plan(journal, &planned, reading.record(self.work.relation)?).await?;
            failpoint::reach("replanned").await;
        }
        tracing::warn!(
            error = error.sentence(),
            discarded = discard.len(),
            added = add.len(),
            "a partition is planned anew: what it was of has moved"
        );
        self.plan = planned.plan;
        self.discarded.extend(&discard);
        self.queue.retain(|partition| !discard.contains(&partition.number));
        let (gone, kept) =
            std::mem::take(&mut self.receipts).into_iter().partition(|receipt| discard.contains(&receipt.partition));
        self.receipts = kept;
        let gone: Vec<PartitionReceipt> = gone;
        self.drop_receipts(&gone).await;
        self.queue.extend(add);
        Ok(())
    }

    async fn drop_receipts(&self, receipts: &[PartitionReceipt]) {
        if !discard_receipts(&self.work.outlet, receipts).await {
            self.work.litter.set();
        }
    }

    /// How long to wait before another attempt at a partition, or the error, where none is worth it.
    fn again(&mut self, partition: &Partition, error: ExportError) -> Result<Duration, ExportError> {
        let failures = *self
            .failures
            .entry(partition.number)
            .and_modify(|failures| failures.count += 1)
            .or_insert_with(|| Failures { count: 1, since: Instant::now() });
        let most = match error.retry {
            Retry::Never | Retry::Replan => 1,
            Retry::Once => 2,
            Retry::Briefly => retry::LOCKED_ATTEMPTS_MAX,
            // The last reader waits for what others may give back.
            Retry::Again | Retry::FewerReaders => retry::ATTEMPTS_MAX,
        };
        // What a stream has said cannot be taken back.
        let most = if matches!(self.work.outlet, Outlet::Stream(_)) { 1 } else { most };
        if failures.count >= most || failures.since.elapsed() >= retry::RETRY_BUDGET {
            return Err(error.after_attempts(failures.count));
        }
        // Without a connection the statement has not begun.
        if error.retry != Retry::FewerReaders && self.reads_at_several_moments() {
            return Err(broken_promise(&self.work.plan, error));
        }
        let most = retry::RETRY_DELAY_MIN.saturating_mul(1 << (failures.count - 1).min(16));
        let delay = most.min(retry::RETRY_DELAY_MAX).mul_f64(rand::random());
        tracing::warn!(
            error = error.sentence(),
            attempt = failures.count,
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "an attempt failed and is repeated under the same snapshot"
        );
        telemetry::partition_retried();
        Ok(delay)
    }

    /// Whether the partitions are statements that each see foreign tables at a moment of their own: reading one again would
    /// be one moment more.
    fn reads_at_several_moments(&self) -> bool {
        !failpoint::off("foreign") && self.work.plan.reads_at_several_moments()
    }

    /// An empty relation still has one part: a schema, or a header.
    async fn represent_empty(&mut self) -> Result<(), ExportError> {
        // A worker has some of many partitions: whoever commits sees whether all are empty.
        if self.work.fence.is_some() || self.receipts.iter().any(|receipt| !receipt.parts.is_empty()) {
            return Ok(());
        }
        let plan = Arc::clone(&self.plan);
        let Some(first) = plan.partitions.first() else { return Ok(()) };
        let last = retry::ATTEMPT_NUMBERS - 1;
        let receipt = export_partition(&self.work, first, last, &Counters::default(), true, &self.stop).await?;
        if !receipt.read.is_nothing() && self.reads_at_several_moments() {
            let late = ExportError::internal("rows came where there were none before");
            return Err(broken_promise(&self.work.plan, late));
        }
        self.receipts.retain(|receipt| receipt.partition != first.number);
        self.receipts.push(receipt);
        Ok(())
    }

    fn progress(&self) {
        let readers: Vec<ReaderProgress> = self
            .slots
            .iter()
            .map(|slot| ReaderProgress {
                partition: slot.partition,
                rows: slot.counters.rows.load(Ordering::Relaxed),
                bytes: slot.counters.bytes.load(Ordering::Relaxed),
            })
            .collect();
        let done = self.receipts.iter().flat_map(|receipt| &receipt.parts);
        let (mut rows, mut bytes) = done.fold((0_u64, 0_u64), |(rows, bytes), part| {
            (rows.saturating_add(part.rows.unwrap_or(0)), bytes.saturating_add(part.object.bytes))
        });
        for reader in &readers {
            rows = rows.saturating_add(reader.rows);
            bytes = bytes.saturating_add(reader.bytes);
        }
        let partitions_done = self.receipts.len();
        // A full queue drops this one: the next tick says it better.
        let _ = self.work.events.try_send(Event::Progress {
            rows,
            bytes,
            partitions_done,
            partitions: self.plan.partitions.len(),
            readers,
        });
    }

    /// Stops the workers, which abort their uploads, and removes what receipts stand for, unless they are to be kept.
    /// Whether nothing of all this is left.
    async fn abort(&mut self, error: &ExportError, retention: &Retention) -> bool {
        self.stop.cancel();
        let clean = async {
            let mut whole = true;
            while let Some(finished) = self.running.join_next().await {
                match finished {
                    Ok((_, _, Ok(receipt))) => self.receipts.push(receipt),
                    // It has set the mark itself.
                    Ok((_, _, Err(_))) => {}
                    Err(_) => whole = false,
                }
            }
            if retention.keeps(error).await {
                whole && self.receipts.is_empty()
            } else {
                discard_receipts(&self.work.outlet, &self.receipts).await && whole
            }
        };
        if let Ok(whole) = tokio::time::timeout(ABORT_GRACE, clean).await {
            return whole;
        }
        tracing::warn!("not everything could be cleaned up in time; `outhaul clean` removes what is left");
        false
    }
}

/// A reader, once it is there; never where none is wanted.
async fn seated(wanted: &mut Option<oneshot::Receiver<Seat>>) -> Seat {
    match wanted {
        Some(asked) => match asked.await {
            Ok(seat) => seat,
            // The crew lives as long as whoever asks it.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// The end of a run whose statements may not be repeated, for the reason of `error`.
fn broken_promise(plan: &Plan, error: ExportError) -> ExportError {
    let tables = plan.at_own_moments.join(", ");
    let message = format!(
        "{}; the statement is not repeated: it would read {tables} at another moment of the foreign server than the \
         other partitions did",
        error.sentence()
    );
    let error =
        ExportError { source: error.source, told: true, ..ExportError::new(ExportErrorKind::SnapshotLost, message) };
    error.with_hint("run the export again; without --key one statement reads all rows, and may be repeated")
}

/// Removes the staged or published objects of receipts that will not be committed: whether all are gone.
pub(crate) async fn discard_receipts(outlet: &Outlet, receipts: &[PartitionReceipt]) -> bool {
    let objects: Vec<_> = receipts.iter().flat_map(|receipt| &receipt.parts).map(|part| &part.object).collect();
    let mut whole = true;
    for some in objects.chunks(DISCARDS_AT_ONCE) {
        let gone = futures_util::future::join_all(some.iter().map(|object| discard(outlet, object))).await;
        whole &= gone.into_iter().all(|gone| gone);
    }
    whole
}
