//! The event loop: it alone owns the queue of partitions, the receipts and the decision to stop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::error::ExportError;
use super::event::{Event, ReaderProgress};
use super::worker::{Counters, Outlet, Work, discard, export_partition};
use crate::plan::Partition;
use crate::source::SourceError;
use crate::store::PartitionReceipt;
use crate::telemetry;
use crate::{failpoint, limits};

/// A reader's place: which partition it has, and how far it is.
#[derive(Debug, Default, Clone)]
struct Slot {
    partition: Option<u32>,
    counters: Arc<Counters>,
}

type Finished = (usize, Result<PartitionReceipt, ExportError>);

#[derive(Debug)]
struct Coordinator {
    work: Arc<Work>,
    queue: VecDeque<Partition>,
    slots: Vec<Slot>,
    running: JoinSet<Finished>,
    receipts: Vec<PartitionReceipt>,
    partitions: usize,
    stop: CancellationToken,
}

/// Reads, encodes and uploads every partition of the plan, `readers` at a time. The receipts come in no order.
///
/// # Errors
/// The first failure of a worker or of the source's guard, or a cancel; everything uploaded is removed then, as far as
/// [`limits::ABORT_GRACE`] allows.
///
/// # Cancel safety
/// Cancel through `cancel`.
pub(crate) async fn export_partitions(
    work: Arc<Work>,
    readers: usize,
    cancel: &CancellationToken,
) -> Result<Vec<PartitionReceipt>, ExportError> {
    let queue: VecDeque<Partition> = work.plan.partitions.iter().cloned().collect();
    let partitions = queue.len();
    let mut coordinator = Coordinator {
        work: Arc::clone(&work),
        queue,
        slots: vec![Slot::default(); readers],
        running: JoinSet::new(),
        receipts: Vec::with_capacity(partitions),
        partitions,
        stop: cancel.child_token(),
    };
    // Counters are shared within a slot, not between slots.
    for slot in &mut coordinator.slots {
        slot.counters = Arc::default();
    }
    match coordinator.run(cancel, work.source.guard()).await {
        Ok(()) => Ok(coordinator.receipts),
        Err(error) => {
            coordinator.abort().await;
            Err(error)
        }
    }
}

impl Coordinator {
    async fn run(
        &mut self,
        cancel: &CancellationToken,
        mut guard: BoxFuture<'_, SourceError>,
    ) -> Result<(), ExportError> {
        let mut tick = tokio::time::interval(limits::PROGRESS_INTERVAL);
        for slot in 0..self.slots.len() {
            self.dispatch(slot).await;
        }
        self.count_readers();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Err(ExportError::cancelled()),
                finished = self.running.join_next() => match finished {
                    Some(finished) => self.finished(finished).await?,
                    None => break,
                },
                error = &mut guard => return Err(error.into()),
                _ = tick.tick() => self.progress(),
            }
        }
        self.represent_empty().await?;
        self.progress();
        Ok(())
    }

    async fn dispatch(&mut self, slot: usize) {
        let Some(partition) = self.queue.pop_front() else { return };
        let place = &mut self.slots[slot];
        place.partition = Some(partition.number);
        place.counters = Arc::default();
        let counters = Arc::clone(&place.counters);
        let event = Event::PartitionStarted { reader: slot, partition: partition.number };
        // Nobody listens any more: the run goes on all the same.
        let _ = self.work.events.send(event).await;
        let (work, stop) = (Arc::clone(&self.work), self.stop.clone());
        self.running.spawn(async move {
            failpoint::reach("reading").await;
            (slot, export_partition(&work, &partition, &counters, false, &stop).await)
        });
    }

    fn count_readers(&self) {
        let active = self.slots.iter().filter(|slot| slot.partition.is_some()).count();
        telemetry::readers_active(u32::try_from(active).unwrap_or(u32::MAX));
    }

    async fn finished(&mut self, finished: Result<Finished, JoinError>) -> Result<(), ExportError> {
        let (slot, result) = finished.map_err(|error| ExportError::internal("a worker panicked").with_source(error))?;
        self.receipts.push(result?);
        telemetry::partition_completed();
        self.slots[slot] = Slot::default();
        self.dispatch(slot).await;
        self.count_readers();
        Ok(())
    }

    /// An empty relation still has one part: a schema, or a header.
    async fn represent_empty(&mut self) -> Result<(), ExportError> {
        if self.receipts.iter().any(|receipt| !receipt.parts.is_empty()) {
            return Ok(());
        }
        let Some(first) = self.work.plan.partitions.first() else { return Ok(()) };
        let receipt = export_partition(&self.work, first, &Counters::default(), true, &self.stop).await?;
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
            (rows.saturating_add(part.rows), bytes.saturating_add(part.object.bytes))
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
            partitions: self.partitions,
            readers,
        });
    }

    /// Stops the workers, which abort their uploads, and removes what receipts stand for.
    async fn abort(&mut self) {
        self.stop.cancel();
        let clean = async {
            while let Some(finished) = self.running.join_next().await {
                if let Ok((_, Ok(receipt))) = finished {
                    self.receipts.push(receipt);
                }
            }
            discard_receipts(&self.work.outlet, &self.receipts).await;
        };
        if tokio::time::timeout(limits::ABORT_GRACE, clean).await.is_err() {
            tracing::warn!("not everything could be cleaned up in time; outhaul's journal at the destination names it");
        }
    }
}

/// Removes the staged or published objects of receipts that will not be committed.
pub(crate) async fn discard_receipts(outlet: &Outlet, receipts: &[PartitionReceipt]) {
    let objects: Vec<_> = receipts.iter().flat_map(|receipt| &receipt.parts).map(|part| &part.object).collect();
    for some in objects.chunks(limits::DISCARDS_AT_ONCE) {
        futures_util::future::join_all(some.iter().map(|object| discard(outlet, object))).await;
    }
}
