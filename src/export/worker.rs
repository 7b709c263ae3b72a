//! The worker: one partition becomes one receipt, whatever the format, the destination and the number of readers.

mod abort;
mod rows;
mod shape;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use chrono::Utc;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::ExportError;
use super::mark::Mark;
use super::outlet::Outlet;
use super::outside::Fence;
use super::part::{OpenPart, PartSink};
use crate::base::cpu::{TaskLost, on_rayon};
use crate::base::words::counted;
use crate::base::{failpoint, telemetry};
use crate::encode::{EncodeError, EncodeSummary, Encoder, Tally, encoder, sorted_columns};
use crate::model::{
    AmountRead, ColumnPlan, Event, ExportErrorKind, FolderValue, Format, FormatOptions, ManifestStats, ObjectKind,
    PartReceipt, Partition, PartitionReceipt, Plan, PlannedContent, Staging, Visibility,
};
use crate::source::Reading;
use crate::store::stream::StreamWriter;
use crate::store::{AttemptSeed, Destination, Journal, PartName, PartWriter, StoreError, folder_path};
use shape::WorkColumns;
pub(crate) use shape::{check_columns, columns_of};

/// What all workers of a run share.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) reading: Arc<dyn Reading>,
    /// Which of its relations.
    pub(crate) relation: usize,
    pub(crate) plan: Arc<Plan>,
    /// The columns of the files.
    pub(crate) columns: Arc<[ColumnPlan]>,
    /// What is done with the rows of a batch before they are encoded, where anything is.
    pub(crate) shape: Option<Arc<WorkColumns>>,
    pub(crate) format: FormatOptions,
    pub(crate) outlet: Outlet,
    pub(crate) part_size: u64,
    pub(crate) visibility: Visibility,
    pub(crate) stats: ManifestStats,
    pub(crate) sha256: bool,
    /// From which attempts have their ids.
    pub(crate) seed: AttemptSeed,
    /// Set by whoever may have left something that is not of the export.
    pub(crate) litter: Mark,
    pub(crate) events: Sender<Event>,
    /// Where another process commits: what tells whether it still is the one that this work is for.
    pub(crate) fence: Option<Fence>,
}

impl Work {
    /// The same for another process that commits, which must still be there when a receipt is written.
    pub(crate) fn for_another(self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self }
    }
}

/// What one reader has done of its partition so far; read by the coordinator, written by the worker.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// One attempt at one partition.
#[derive(Debug)]
struct Attempt<'a> {
    work: &'a Work,
    partition: &'a Partition,
    id: u32,
    counters: &'a Counters,
    /// The writer of the next part on its way, in a task of its own: a cancel in the middle of it would leave an upload
    /// of which nobody knows.
    starting: Option<JoinHandle<Result<PartWriter, StoreError>>>,
    /// The parts on their way, at most one for each folder: the one that was written to last is the last.
    open: Vec<OpenPart>,
    /// How many parts have begun.
    rolls: u32,
    parts: Vec<PartReceipt>,
    /// Room for the bytes of a batch, from the last one.
    spare: Vec<u8>,
    /// Whether something that failed may have left what it made.
    unsure: bool,
    /// The last part on its way to being visible, in a task of its own: a cancel in the middle of it would leave a part
    /// of which nobody knows whether it is.
    showing: Option<JoinHandle<Result<(), StoreError>>>,
    /// The receipt on its way into the journal, in a task of its own: a cancel in the middle of it would take away the parts
    /// of a receipt that stays.
    noting: Option<JoinHandle<Result<PartitionReceipt, ExportError>>>,
    /// The receipt, once it may be in the journal.
    receipt: Option<PartitionReceipt>,
    read: AmountRead,
    /// How its objects are named; `None` until the source says it of bytes of its own.
    kind: Option<ObjectKind>,
    /// Whether a row beyond the cap came, where the plan asks for one.
    beyond_cap: bool,
}

/// Exports one partition.
///
/// With `empty` nothing is read: the partition's rows are known to be none, and its only part stands for an empty
/// relation.
///
/// # Errors
/// Of source, encoder or store, with the partition named. Nothing of the attempt is left behind then, nor after a
/// cancel; one that comes while the receipt is written is too late.
///
/// # Cancel safety
/// Cancel through `cancel`: it aborts uploads. Dropping the future publishes nothing but leaves uploads to the journal.
pub(crate) async fn export_partition(
    work: &Work,
    partition: &Partition,
    nth: u32,
    counters: &Counters,
    empty: bool,
    cancel: &CancellationToken,
) -> Result<PartitionReceipt, ExportError> {
    let id = work.seed.attempt(partition.number, nth);
    let mut attempt = Attempt {
        work,
        partition,
        id,
        counters,
        starting: None,
        open: Vec::new(),
        rolls: 0,
        parts: Vec::new(),
        spare: Vec::new(),
        unsure: false,
        showing: None,
        noting: None,
        receipt: None,
        read: match work.plan.content {
            PlannedContent::Rows => AmountRead::Rows(0),
            PlannedContent::Bytes => AmountRead::Bytes(0),
        },
        kind: work.format.object_kind(),
        beyond_cap: false,
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ExportError::cancelled()),
        result = attempt.run(empty) => result,
    };
    match result {
        Ok(receipt) => Ok(receipt),
        Err(error) => {
            if let Some(noting) = attempt.noting.take()
                && let Ok(Ok(receipt)) = noting.await
            {
                return Ok(receipt);
            }
            // A store that gave an error may have kept the receipt. As long as it may stand, its parts do.
            if !attempt.forget_receipt().await || !attempt.abort().await {
                work.litter.set();
            }
            Err(error.in_partition(work.plan.relation.name.as_deref(), partition.number))
        }
    }
}

/// Writes a receipt into the journal. Where another process commits, it must still be the one that the receipt is for, before
/// and after.
async fn note(
    receipt: PartitionReceipt,
    journal: Journal,
    fence: Option<Fence>,
) -> Result<PartitionReceipt, ExportError> {
    if let Some(fence) = &fence {
        fence.check().await?;
        failpoint::reach("fenced").await;
    }
    journal.record_receipt(&receipt).await?;
    failpoint::reach("receipted").await;
    if let Some(fence) = &fence {
        fence.check_open(&journal).await?;
    }
    Ok(receipt)
}

impl Attempt<'_> {
    async fn run(&mut self, empty: bool) -> Result<PartitionReceipt, ExportError> {
        if empty {
            self.start_part(Vec::new()).await?;
            self.finish_parts().await?;
        } else {
            self.read().await?;
        }
        let receipt = PartitionReceipt {
            partition: self.partition.number,
            attempt: self.id,
            read: self.read,
            beyond_cap: self.beyond_cap,
            parts: self.parts.clone(),
        };
        failpoint::reach("finished").await;
        let Some(journal) = self.work.outlet.journal().cloned() else { return Ok(receipt) };
        self.receipt = Some(receipt.clone());
        let noted = self.noting.insert(tokio::spawn(note(receipt, journal, self.work.fence.clone()))).await;
        self.noting = None;
        noted.map_err(|error| ExportError::internal("noting a receipt").with_source(TaskLost::from(error)))?
    }

    fn encoding(&mut self) -> Result<(Box<dyn Encoder>, Tally), ExportError> {
        let encoding = self.open.last_mut().and_then(|open| open.encoding.take());
        encoding.ok_or_else(|| ExportError::internal("the part's encoder is gone"))
    }

    /// The part that is written to.
    fn current(&mut self) -> Result<&mut OpenPart, ExportError> {
        self.open.last_mut().ok_or_else(|| ExportError::internal("no part is open"))
    }

    /// Where a batch is encoded to. Row groups of Parquet come whole, and are no larger for being copied.
    fn room(&mut self) -> Result<Vec<u8>, ExportError> {
        if self.work.format.format == Format::Parquet {
            return Ok(std::mem::take(&mut self.spare));
        }
        let mut spare = std::mem::take(&mut self.spare);
        let room = self.current()?.room(&mut spare);
        self.spare = spare;
        Ok(room)
    }

    async fn write(&mut self, encoding: (Box<dyn Encoder>, Tally), out: Vec<u8>) -> Result<(), ExportError> {
        let open = self.current()?;
        open.encoding = Some(encoding);
        self.spare = open.write(out).await?;
        Ok(())
    }

    async fn start_part(&mut self, folders: Vec<FolderValue>) -> Result<(), ExportError> {
        let work = self.work;
        let started_at = Utc::now();
        let writer = match &work.outlet {
            Outlet::Parts { destination, journal, layout } => {
                let name = PartName { partition: self.partition.number, roll: self.rolls, attempt: self.id };
                let path = name.path_in(*layout, &folder_path(&folders), self.kind()?.extension());
                self.store_writer(destination, journal, path).await?
            }
            Outlet::Single { destination, journal, name } => {
                self.store_writer(destination, journal, name.clone()).await?
            }
            Outlet::Stream(sink) => {
                sink.tell(self.kind()?);
                PartSink::Stream(Box::new(StreamWriter::new(sink.clone(), work.sha256)))
            }
        };
        let mut format = work.format.clone();
        if self.partition.ordered {
            format.parquet.sorted = sorted_columns(&work.plan.key, &work.columns);
        }
        let joinable = matches!(work.outlet, Outlet::Parts { .. });
        let encoder = encoder(&format, &work.columns, joinable)?;
        let tally = Tally::new(&work.columns, work.stats);
        let (encoding, roll) = (Some((encoder, tally)), self.rolls);
        self.rolls = roll.checked_add(1).ok_or_else(|| ExportError::internal("too many parts"))?;
        let writer = Some(writer);
        self.open.push(OpenPart { folders, roll, encoding, writer, lent: false, finishing: None, rows: 0, started_at });
        Ok(())
    }

    fn kind(&self) -> Result<&ObjectKind, ExportError> {
        self.kind.as_ref().ok_or_else(|| ExportError::internal("a part begins before it is known what it is"))
    }

    async fn store_writer(
        &mut self,
        destination: &Destination,
        journal: &Journal,
        path: String,
    ) -> Result<PartSink, ExportError> {
        let (destination, journal) = (destination.clone(), journal.clone());
        let content_type = self.kind()?.content_type().to_owned();
        let start = async move { destination.writer(&path, &content_type, &journal).await };
        let started = self.starting.insert(tokio::spawn(start)).await;
        self.starting = None;
        self.unsure |= !matches!(started, Ok(Ok(_)));
        let writer =
            started.map_err(|error| ExportError::internal("starting a part").with_source(TaskLost::from(error)))??;
        Ok(PartSink::Store(Box::new(writer)))
    }

    /// Finishes the part that was written to last.
    async fn finish_part(&mut self) -> Result<(), ExportError> {
        let (encoder, tally) = self.encoding()?;
        let (summary, columns, out) = on_rayon(move || {
            failpoint::blow("closing");
            let mut out = Vec::new();
            let summary: EncodeSummary = encoder.finish(&mut out)?;
            let mut tally = tally;
            tally.count_changed(&summary.changed);
            Ok::<_, EncodeError>((summary, tally.finish(), out))
        })
        .await??;
        let Some(open) = self.open.last_mut() else { return Err(ExportError::internal("no part is open")) };
        open.write(out).await?;
        // I3: what the encoder counted is what was handed to it.
        if summary.rows.unwrap_or(0) != open.rows {
            let message =
                format!("{} went into the encoder and {:?} came out", counted(open.rows, "row"), summary.rows);
            return Err(ExportError::internal(message));
        }
        let (started_at, roll, folders) = (open.started_at, open.roll, open.folders.clone());
        let finished = open.finish(&mut self.unsure).await;
        self.open.pop();
        let object = finished?;
        let finished_at = Utc::now();
        telemetry::bytes_written(object.bytes);
        telemetry::part_uploaded((finished_at - started_at).to_std().unwrap_or_default());
        let event = Event::PartFinished {
            path: object.path.clone(),
            partition: self.partition.number,
            rows: summary.rows.unwrap_or(0),
            bytes: object.bytes,
        };
        self.parts.push(PartReceipt {
            object,
            roll,
            folders,
            rows: summary.rows,
            header_rows: summary.header_rows,
            header_bytes: summary.header_bytes,
            columns,
            started_at,
            finished_at,
        });
        self.show().await?;
        // Nobody listens any more: the run goes on all the same.
        let _ = self.work.events.send(event).await;
        Ok(())
    }

    /// Under `--visibility as-written` the last part appears as soon as it is whole.
    async fn show(&mut self) -> Result<(), ExportError> {
        let (Visibility::AsWritten, Outlet::Parts { destination, journal, .. }) =
            (self.work.visibility, &self.work.outlet)
        else {
            return Ok(());
        };
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        journal.record_visible(&part.object.path).await?;
        let (destination, object) = (destination.clone(), part.object.clone());
        let showing = self.showing.insert(tokio::spawn(async move {
            destination.publish(&object).await?;
            failpoint::reach("shown").await;
            Ok(())
        }));
        let shown = showing.await;
        self.showing = None;
        self.unsure |= !matches!(shown, Ok(Ok(())));
        shown.map_err(|error| ExportError::internal("publishing a part").with_source(TaskLost::from(error)))??;
        part.object.staging = Staging::Published;
        Ok(())
    }
}

impl From<crate::base::cpu::CpuPanic> for ExportError {
    fn from(error: crate::base::cpu::CpuPanic) -> Self {
        Self::new(ExportErrorKind::Internal, "encoding").with_source(error)
    }
}
