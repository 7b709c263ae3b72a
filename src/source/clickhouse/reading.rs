//! One run of a ClickHouse server: its plan, and its slices as they are read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::ClickHouseBody;
use super::deadline;
use super::decode::ArrowRows;
use super::kill::QueryName;
use super::parts::{Grain, PartPiece, closure, partition_ids, slices};
use super::per_partition::PartitionWitness;
use super::plan::{ChMode, ChPartition, ChPlan, ChSlice};
use super::prepare::{Prepared, count_parts, numbered, patches, prefix, query_id};
use super::seats::{WorkerSeats, clear};
use super::served_rows;
use super::settings::ClickHouseSession;
use crate::base::cpu::on_rayon;
use crate::base::failpoint;
use crate::base::words::counted;
use crate::model::{ColumnPlan, Consistency, Plan, ReadRequest, SourceCost, SourceFacts, SourceKind};
use crate::source::{Batch, BatchStream, Opened, Reading, Replan, Retry, SourceError, SourceFault};

/// Bytes that are handed to rayon at a time.
const HANDED_BYTES: usize = 256 * 1024;

/// How often a partition of the table may be planned anew.
const REPLANS_MAX: u32 = 3;

/// The form of [`ChRecord`]; another one is of another version of outhaul.
const RECORD_VERSION: u32 = 1;

/// What another process must know to go on with the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChRecord {
    version: u32,
    pub(crate) plan: ChPlan,
    replans: BTreeMap<String, u32>,
}

impl ChRecord {
    /// # Errors
    /// It is none of this version.
    pub(crate) fn read(value: &Value) -> Result<Self, SourceError> {
        let record: Result<Self, _> = serde_json::from_value(value.clone());
        match record {
            Ok(record) if record.version == RECORD_VERSION => Ok(record),
            Ok(_) => Err(SourceError::new(SourceFault::Usage, "the run is of another version of outhaul")),
            Err(error) => {
                Err(SourceError::new(SourceFault::Protocol, "the run's record cannot be read").with_source(error))
            }
        }
    }
}

/// What changes while the run lasts.
#[derive(Debug)]
struct ChState {
    plan: ChPlan,
    told: Arc<Plan>,
    /// How often each partition of the table was planned anew.
    replans: BTreeMap<String, u32>,
}

/// One relation, being read.
#[derive(Debug)]
pub(crate) struct ClickHouseReading {
    session: Arc<ClickHouseSession>,
    request: ReadRequest,
    columns: Arc<[ColumnPlan]>,
    state: Mutex<ChState>,
    /// Statements at the same time: no more than the server's threads.
    permits: Arc<Semaphore>,
    /// When `--max-duration` is over.
    deadline: Option<Instant>,
    /// Where another process holds the run together: the turns of all that read for it.
    seats: Option<WorkerSeats>,
}

impl ClickHouseReading {
    pub(crate) fn new(prepared: Prepared, request: ReadRequest, record: Option<ChRecord>) -> Self {
        let Prepared { session, plan, deadline } = prepared;
        let (plan, replans) = match record {
            // Threads and readers are of this process, all else is as it was planned.
            Some(record) => (
                ChPlan {
                    threads: plan.threads,
                    fixed_threads: plan.fixed_threads,
                    readers: plan.readers,
                    ..record.plan
                },
                record.replans,
            ),
            None => (plan, BTreeMap::new()),
        };
        let readers = plan.readers.max(1);
        Self { deadline, ..Self::of(session, request, (plan, replans), readers) }
    }

    /// Some partitions of a run that another process has planned, one at a time.
    pub(super) fn joined(
        session: Arc<ClickHouseSession>,
        request: ReadRequest,
        record: ChRecord,
        seats: WorkerSeats,
    ) -> Self {
        let ChRecord { plan, replans, .. } = record;
        Self { seats: Some(seats), ..Self::of(session, request, (plan, replans), 1) }
    }

    fn of(
        session: Arc<ClickHouseSession>,
        request: ReadRequest,
        (plan, replans): (ChPlan, BTreeMap<String, u32>),
        readers: usize,
    ) -> Self {
        let told = Arc::new(plan.told(&request, session.sent()));
        let columns = plan.columns.iter().map(|column| column.output.clone()).collect();
        let (permits, state) = (Arc::new(Semaphore::new(readers)), Mutex::new(ChState { plan, told, replans }));
        Self { session, request, columns, state, permits, deadline: None, seats: None }
    }

    fn state(&self) -> MutexGuard<'_, ChState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn opened(&self, partition: u32) -> Result<BatchStream, SourceError> {
        let (found, statement, (threads, fixed), cap, relation) = {
            let state = self.state();
            let found = state.plan.partitions.iter().find(|one| one.number == partition).cloned();
            let found = found.ok_or_else(|| {
                SourceError::new(SourceFault::Protocol, format!("there is no partition {partition} in the plan"))
            })?;
            let statement = state.plan.statement(&found.slice);
            let threads = (state.plan.threads, state.plan.fixed_threads);
            (found, statement, threads, state.plan.cap.max_rows, state.plan.relation.clone())
        };
        if found.slice == ChSlice::Nothing {
            return Ok(stream::empty().boxed());
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit =
            permit.map_err(|error| SourceError::new(SourceFault::Protocol, "waiting to read").with_source(error))?;
        let doing = format!("reading partition {partition}");
        let threads = threads.to_string();
        let mut parameters = vec![("default_format", "ArrowStream")];
        let served = self.request.work.served.as_ref();
        if !fixed {
            parameters.push(("max_threads", threads.as_str()));
            parameters.extend(served.map(|_| served_rows::BLOCK_ROWS));
        }
        let body = if let Some(seats) = &self.seats {
            seats.stream(&self.session, &doing, &statement, &parameters).await?
        } else {
            let name = QueryName::unique(query_id(&prefix(&self.request.run_id), partition));
            self.session.stream(&doing, &statement, &name, &parameters).await?
        };
        let witness = match relation.table {
            Some(table) if !found.table_partitions().is_empty() => {
                Some(PartitionWitness::new(Arc::clone(&self.session), table, found.table_partitions().to_vec()))
            }
            _ => None,
        };
        let reading = SliceReading {
            body,
            witness,
            rows: Some(ArrowRows::new(Arc::clone(&self.columns))),
            ready: VecDeque::new(),
            ended: false,
            planned: found.planned_rows(),
            least: found.table_partitions().iter().fold(0, |sum, one| one.rows.saturating_add(sum)),
            read: 0,
            cap: cap.map(NonZeroU64::get),
            max_row_bytes: served.map(|served| served.max_row_bytes),
            doing,
            _permit: permit,
        };
        Ok(stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(batch)) => Some((Ok(batch), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }

    /// Plans the partitions of the table anew that a slice has rows of, and all that hang together with them.
    async fn planned_anew(&self, partition: u32) -> Result<Option<Replan>, SourceError> {
        let before = self.state().plan.clone();
        let pieces_of = |one: &ChPartition| match &one.slice {
            ChSlice::Parts(pieces) => pieces.clone(),
            _ => Vec::new(),
        };
        let Some(moved) = before.partitions.iter().find(|one| one.number == partition) else { return Ok(None) };
        let moved = pieces_of(moved);
        if moved.is_empty() {
            return Ok(None);
        }
        if self.seats.is_some() {
            let why = "where other processes read, nothing is planned anew";
            return Err(lost(&partition_ids(&moved), why).with_hint(
                "export it again when the table is quiet, or with --consistency per_partition, which merges do not disturb",
            ));
        }
        before.relation.is_same_table(&self.session).await?;
        let all: Vec<Vec<PartPiece>> = before.partitions.iter().map(pieces_of).collect();
        let ids = closure(&moved, &all);
        let times = self.state().replans.iter().filter(|(id, _)| ids.contains(*id)).map(|(_, times)| *times).max();
        if times.unwrap_or(0) >= REPLANS_MAX {
            return Err(lost(
                &ids,
                &format!("it was planned anew {} and has changed again", counted(REPLANS_MAX, "time")),
            ));
        }
        let (gone, mut kept): (Vec<ChPartition>, Vec<ChPartition>) = before
            .partitions
            .iter()
            .cloned()
            .partition(|one| pieces_of(one).iter().any(|piece| ids.contains(&piece.partition_id)));
        let rows_of = |partitions: &[ChPartition]| {
            partitions.iter().filter_map(ChPartition::planned_rows).fold(0_u64, u64::saturating_add)
        };
        let planned = rows_of(&gone);
        let grain = Grain::of(planned, u64::try_from(gone.len()).unwrap_or(1), true);
        let found = count_parts(&self.session, &before.relation, &before.host, grain, Some(&ids)).await?;
        let next = before.partitions.iter().map(|one| one.number).max().unwrap_or(0).saturating_add(1);
        let add = numbered(slices(found, grain), next)?;
        let now = rows_of(&add);
        // Whoever deletes rows between plan and read leaves an export that is of no moment at all.
        if now < planned && !failpoint::off("fewer_rows") {
            return Err(lost(&ids, &format!("of {} that were planned {now} are left", counted(planned, "row"))));
        }
        let discard: Vec<u32> = gone.iter().map(|one| one.number).collect();
        let added: Vec<u32> = add.iter().map(|one| one.number).collect();
        kept.extend(add);
        let mut state = self.state();
        for id in &ids {
            *state.replans.entry(id.clone()).or_insert(0) += 1;
        }
        state.plan.replanned.extend(ids);
        state.plan.partitions = kept;
        state.told = Arc::new(state.plan.told(&self.request, self.session.sent()));
        let add = state.told.partitions.iter().filter(|one| added.contains(&one.number)).cloned().collect();
        Ok(Some(Replan { discard, add }))
    }
}

/// The end of a run whose parts do not stand still.
fn lost(ids: &BTreeSet<String>, why: &str) -> SourceError {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let noun = if ids.len() == 1 { "partition" } else { "partitions" };
    let message =
        format!("the parts of the table's {noun} {} have changed while they were read: {why}", ids.join(", "));
    SourceError::new(SourceFault::SnapshotLost, message)
        .with_hint("export it again when the table is quiet, or with --partitions 1, which reads it in one statement")
}

/// One slice on its way.
struct SliceReading {
    body: ClickHouseBody,
    /// `None` once the end was looked at.
    rows: Option<ArrowRows>,
    ready: VecDeque<Batch>,
    ended: bool,
    planned: Option<u64>,
    /// The least rows that there can be.
    least: u64,
    /// What shows besides that all was there.
    witness: Option<PartitionWitness>,
    /// Rows that came so far, the one beyond the cap too.
    read: u64,
    cap: Option<u64>,
    /// Bytes of one row, beyond which somebody is not served.
    max_row_bytes: Option<NonZeroU64>,
    doing: String,
    _permit: OwnedSemaphorePermit,
}

impl SliceReading {
    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                served_rows::check(&batch.rows, self.max_row_bytes, &self.doing)?;
                return self.counted(batch).map(Some);
            }
            if self.ended {
                self.end()?;
                if let Some(witness) = self.witness.take() {
                    witness.confirm().await?;
                }
                return Ok(None);
            }
            let chunks = self.chunks().await?;
            self.decode(chunks).await?;
        }
    }

    /// The next bytes, as many as are worth a way to another thread.
    async fn chunks(&mut self) -> Result<Vec<Bytes>, SourceError> {
        let (mut chunks, mut bytes) = (Vec::new(), 0_usize);
        while bytes < HANDED_BYTES {
            let Some(chunk) = self.body.next().await? else {
                self.ended = true;
                break;
            };
            bytes = bytes.saturating_add(chunk.len());
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    async fn decode(&mut self, chunks: Vec<Bytes>) -> Result<(), SourceError> {
        let Some(mut rows) = self.rows.take() else { return Ok(()) };
        let work = move || {
            let batches = rows.take(chunks);
            (rows, batches)
        };
        let (rows, batches) = on_rayon(work)
            .await
            .map_err(|panic| SourceError::new(SourceFault::Protocol, self.doing.clone()).with_source(panic))?;
        self.ready = batches.map_err(|error| error.while_doing(&self.doing))?.into();
        self.rows = Some(rows);
        Ok(())
    }

    /// Counts a batch, and cuts off what is beyond the cap.
    fn counted(&mut self, batch: Batch) -> Result<Batch, SourceError> {
        let rows = batch.rows.num_rows();
        let before = self.read;
        let wide = u64::try_from(rows).unwrap_or(u64::MAX);
        self.read = before.checked_add(wide).ok_or_else(|| {
            SourceError::new(SourceFault::Protocol, format!("{}: the count of its rows overflows", self.doing))
        })?;
        let Some(cap) = self.cap.filter(|cap| self.read > *cap) else { return Ok(batch) };
        let keep = usize::try_from(cap.saturating_sub(before)).unwrap_or(rows).min(rows);
        Ok(Batch { rows: batch.rows.slice(0, keep), beyond_cap: true, ..batch })
    }

    /// Whether all has come that should.
    fn end(&mut self) -> Result<(), SourceError> {
        if let Some(rows) = self.rows.take() {
            rows.finish().map_err(|error| error.while_doing(&self.doing))?;
        }
        if self.read < self.least && !failpoint::off("planned_rows") {
            let (came, least) = (counted(self.read, "row"), self.least);
            let message = format!("{}: {came} came where {least} were counted when the run was planned", self.doing);
            return Err(SourceError::new(SourceFault::SnapshotLost, message)
                .with_hint("export it again when the table is quiet, or with --consistency single_statement"));
        }
        match self.planned {
            Some(planned) if planned != self.read && !failpoint::off("planned_rows") => {
                let message = format!(
                    "{}: {} came where {planned} were planned: its parts have changed",
                    self.doing,
                    counted(self.read, "row")
                );
                Err(SourceError { retry: Retry::Replan, ..SourceError::new(SourceFault::SnapshotLost, message) })
            }
            _ => Ok(()),
        }
    }
}

impl Reading for ClickHouseReading {
    fn plan(&self, relation: usize) -> Option<Arc<Plan>> {
        (relation == 0).then(|| Arc::clone(&self.state().told))
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts { kind: SourceKind::Clickhouse, server_version: self.session.version.clone(), standby: false }
    }

    fn consistency(&self, _: usize) -> Consistency {
        self.state().plan.consistency()
    }

    fn record(&self, _: usize) -> Result<Value, SourceError> {
        let state = self.state();
        let record = ChRecord { version: RECORD_VERSION, plan: state.plan.clone(), replans: state.replans.clone() };
        serde_json::to_value(record)
            .map_err(|error| SourceError::new(SourceFault::Protocol, "writing the run's record").with_source(error))
    }

    fn open(&self, _: usize, partition: u32) -> BoxFuture<'_, Result<Opened, SourceError>> {
        async move { self.opened(partition).await.map(Opened::Rows) }.boxed()
    }

    fn replan(&self, _: usize, partition: u32) -> BoxFuture<'_, Result<Option<Replan>, SourceError>> {
        self.planned_anew(partition).boxed()
    }

    fn unchanged<'a>(&'a self, _: usize, rows: &'a BTreeMap<u32, u64>) -> BoxFuture<'a, Result<(), SourceError>> {
        async move {
            let (mode, relation, planned) = {
                let state = self.state();
                state.plan.has_its_rows(rows)?;
                (state.plan.mode, state.plan.relation.clone(), state.plan.patches.clone())
            };
            if !matches!(mode, ChMode::PartSet | ChMode::PerPartition) {
                return Ok(());
            }
            relation.is_same_table(&self.session).await?;
            if failpoint::off("patches") || patches(&self.session, &relation).await? == planned {
                return Ok(());
            }
            let message = "rows of the table were updated while they were read, some before they were and some after";
            Err(SourceError::new(SourceFault::SnapshotLost, message).with_hint(
                "export it again when the table is quiet, or with --partitions 1, which reads it in one statement",
            ))
        }
        .boxed()
    }

    fn dismiss(&self, _: usize) -> BoxFuture<'_, ()> {
        let own = self.state().plan.seats.clone();
        async move { clear(&self.session, &own).await }.boxed()
    }

    fn cost(&self, _: usize) -> SourceCost {
        self.session.cost()
    }

    fn guard(&self) -> BoxFuture<'_, SourceError> {
        // Nothing is held at the server: each slice proves itself. Only time runs out.
        deadline::guard(self.deadline)
    }
}
