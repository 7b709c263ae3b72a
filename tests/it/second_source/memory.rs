//! Four relations in memory, of a system that nobody has heard of; one gives bytes of a format of its own.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use futures_util::future::{BoxFuture, pending, ready};
use futures_util::stream::{self, StreamExt};
use futures_util::{FutureExt, TryFutureExt};
use outhaul::model::{
    CapPlan, Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, Consistency, ConsistencyMode, ObjectKind, PartRange,
    Partition, Plan, PlannedContent, Policies, ReadPlan, ReadRequest, Relation, RelationKind, RelationRequest,
    RowOrder, RowsAvailable, ShapeOptions, SourceFacts, SourceKind,
};
use outhaul::source::{Batch, BatchStream, Begun, Opened, Reading, Replan, Retry, Source, SourceError, SourceFault};
use serde_json::{Value, json};

const WORDS: [&str; 4] = ["one", "two, and", "three", ""];

/// What the relation `song` gives, which is no text in any encoding.
pub const SONG: [&[u8]; 3] = [b"do\0", b"re\xff\n", b"mi"];

/// What goes wrong while it is read.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    Nothing,
    /// A partition never ends.
    HangsAt(u32),
    /// A partition turns out to be part of something else, with another one, once that has been read.
    Moves {
        partition: u32,
        with: u32,
        then_hangs: Option<u32>,
    },
    /// It moves whenever it is looked at.
    MovesForEver,
}

#[derive(Debug)]
pub struct Memory {
    trouble: Trouble,
    opened: Arc<Mutex<BTreeSet<u32>>>,
}

/// The relations of one run.
#[derive(Debug)]
struct All(Vec<Rows>);

/// One relation, being read.
#[derive(Debug)]
struct Rows {
    table: String,
    trouble: Trouble,
    opened: Arc<Mutex<BTreeSet<u32>>>,
    state: Mutex<State>,
    cap: Option<NonZeroU64>,
}

/// Which rows each partition has, and how often that was changed.
#[derive(Debug, Clone)]
struct State {
    partitions: Vec<(u32, Range<i64>)>,
    changes: u32,
}

impl Memory {
    pub fn calm() -> Self {
        Self::with(Trouble::Nothing)
    }

    pub fn with(trouble: Trouble) -> Self {
        Self { trouble, opened: Arc::default() }
    }

    /// The partitions that were read.
    pub fn opened(&self) -> BTreeSet<u32> {
        self.opened.lock().unwrap().clone()
    }

    fn rows(&self, request: &ReadRequest, state: Option<State>) -> Result<Rows, SourceError> {
        let RelationRequest::Table(table) = &request.shape.relation else {
            return Err(SourceError::new(SourceFault::Usage, "there are no queries here"));
        };
        let cap = request.work.cap.as_ref().and_then(|cap| cap.max_rows);
        // Where the partitions end.
        let ends = match (table.as_str(), cap) {
            ("numbers", None) => vec![10, 20, 25],
            ("numbers", Some(cap)) => vec![25.min(i64::try_from(cap.get()).unwrap())],
            ("words", _) => vec![4],
            ("nothing" | "silence", _) => vec![0],
            ("song", _) => vec![i64::try_from(SONG.len()).unwrap()],
            _ => {
                let message = format!("there is no relation {table}");
                return Err(SourceError::new(SourceFault::SchemaChanged, message));
            }
        };
        let starts = std::iter::once(0).chain(ends.clone());
        let ranges = starts.zip(ends).map(|(start, end)| start..end);
        let state = state.unwrap_or(State { partitions: (0..).zip(ranges).collect(), changes: 0 });
        let (trouble, opened) = (self.trouble, Arc::clone(&self.opened));
        Ok(Rows { table: table.clone(), trouble, opened, state: Mutex::new(state), cap })
    }
}

fn reading(relations: Vec<Rows>) -> Arc<dyn Reading> {
    Arc::new(All(relations))
}

impl Source for Memory {
    fn kind(&self) -> SourceKind {
        SourceKind::Other("memory".to_owned())
    }

    fn check(&self, _: &mut ShapeOptions) -> Result<(), SourceError> {
        Ok(())
    }

    fn plan(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Vec<Plan>, SourceError>> {
        let plans = requests.iter().map(|request| self.rows(request, None).map(|rows| rows.planned())).collect();
        ready(plans).boxed()
    }

    fn begin(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        let relations = requests.iter().map(|request| self.rows(request, None)).collect::<Result<_, _>>();
        ready(relations).map_ok(reading).boxed()
    }

    fn resume(&self, requests: Vec<ReadRequest>, begun: Begun) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        let partition = |one: &Value| {
            let number = |place: usize| one[place].as_i64().unwrap();
            (u32::try_from(number(0)).unwrap(), number(1)..number(2))
        };
        let relation = |(request, record): (&ReadRequest, &Value)| {
            let partitions = record["partitions"].as_array().unwrap().iter().map(partition).collect();
            self.rows(request, Some(State { partitions, changes: 0 }))
        };
        let records = begun.record.as_array().unwrap();
        ready(requests.iter().zip(records).map(relation).collect::<Result<_, _>>()).map_ok(reading).boxed()
    }
}

impl Rows {
    fn column(&self) -> ColumnPlan {
        let words = self.table == "words";
        ColumnPlan {
            name: "value".to_owned(),
            origin: ColumnOrigin::Column("value".to_owned()),
            type_name: if words { "utf8 string" } else { "u63" }.to_owned(),
            sent_as: "memory".to_owned(),
            carrier: if words { Carrier::Text } else { Carrier::Int64 },
            nullable: false,
            policies: Policies::default(),
            policy: "lossless".to_owned(),
            ordered: true,
            may_show: !words,
            free_text: words,
            rewritten: false,
            text_varies: false,
            shared_name: None,
            note: None,
            statistics: ColumnStatistics::default(),
        }
    }

    fn partitions(&self) -> Vec<Partition> {
        let partition = |(number, _): &(u32, Range<i64>)| Partition {
            number: *number,
            range: PartRange::Other("rows".to_owned()),
            ordered: false,
            row_limit: self.cap,
            counted_rows: None,
        };
        self.state.lock().unwrap().partitions.iter().map(partition).collect()
    }

    fn gives_bytes(&self) -> bool {
        matches!(self.table.as_str(), "song" | "silence")
    }

    fn planned(&self) -> Plan {
        let truncated = self.cap.is_some_and(|cap| cap.get() < 25);
        Plan {
            relation: Relation {
                kind: RelationKind::Table,
                name: Some(self.table.clone()),
                query: None,
                predicate: None,
                estimated_rows: None,
                estimated_bytes: None,
                tables: 1,
                row_security: false,
                identity: None,
            },
            now: None,
            content: if self.gives_bytes() { PlannedContent::Bytes } else { PlannedContent::Rows },
            columns: if self.gives_bytes() { Vec::new() } else { vec![self.column()] },
            key: Vec::new(),
            cap: CapPlan {
                tier: None,
                max_rows: self.cap,
                truncated,
                order: RowOrder::Physical,
                boundary: None,
                available: if truncated { RowsAvailable::Exact(25) } else { RowsAvailable::Unknown },
                by_reading: false,
            },
            partitions: self.partitions(),
            read: ReadPlan {
                mode: "copied".to_owned(),
                consistency: ConsistencyMode::Other("at_rest".to_owned()),
                page_size: None,
                readers: 2,
                peak_connections: 0,
                source_profile: outhaul::model::SourceProfile::Balanced,
                note: None,
                details: serde_json::Map::new(),
                lines: Vec::new(),
            },
            at_own_moments: Vec::new(),
            watermark: None,
        }
    }

    fn batch(&self, rows: Range<i64>) -> Batch {
        if self.gives_bytes() {
            let values: ArrayRef =
                Arc::new(BinaryArray::from_iter_values(rows.map(|row| SONG[usize::try_from(row).unwrap()])));
            let rows = RecordBatch::try_from_iter([("bytes", values)]).unwrap();
            return Batch { rows, changed: Box::default(), beyond_cap: false, is_followed: false };
        }
        let column = self.column();
        let values: ArrayRef = if self.table == "words" {
            let words = rows.map(|row| WORDS[usize::try_from(row).unwrap()]);
            Arc::new(StringArray::from_iter_values(words))
        } else {
            Arc::new(Int64Array::from_iter_values(rows))
        };
        let schema = Arc::new(Schema::new(vec![column.carrier.field("value", false)]));
        let rows = RecordBatch::try_new(schema, vec![values]).unwrap();
        // It promises another batch behind the last one, too: whoever believes it must not lose the rows.
        Batch { rows, changed: Box::default(), beyond_cap: false, is_followed: true }
    }
}

fn moved() -> SourceError {
    SourceError { retry: Retry::Replan, ..SourceError::new(SourceFault::Unavailable, "the rows have moved") }
}

impl Rows {
    fn record(&self) -> Value {
        let partitions = self.state.lock().unwrap().partitions.clone();
        let all: Vec<Value> =
            partitions.into_iter().map(|(number, rows)| json!([number, rows.start, rows.end])).collect();
        json!({ "partitions": all })
    }

    fn open(&self, partition: u32) -> BoxFuture<'_, Result<BatchStream, SourceError>> {
        self.opened.lock().unwrap().insert(partition);
        let state = self.state.lock().unwrap().clone();
        let rows = state.partitions.iter().find(|(number, _)| *number == partition).unwrap().1.clone();
        let whole = stream::iter([Ok(self.batch(rows.clone()))]);
        let error = match self.trouble {
            Trouble::HangsAt(at) | Trouble::Moves { then_hangs: Some(at), .. } if at == partition => {
                return pending().boxed();
            }
            Trouble::Moves { partition: at, .. } if at == partition => {
                // Half of it was read.
                let half = self.batch(rows.start..rows.start + 5);
                let moved = stream::iter([Ok(half), Err(moved())]).then(|batch| async {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    batch
                });
                return ready(Ok(moved.boxed())).boxed();
            }
            Trouble::MovesForEver => moved(),
            _ => return ready(Ok(whole.boxed())).boxed(),
        };
        ready(Err(error)).boxed()
    }

    fn replan(&self, partition: u32) -> BoxFuture<'_, Result<Option<Replan>, SourceError>> {
        let before = self.state.lock().unwrap().clone();
        let with = match self.trouble {
            Trouble::Moves { with, .. } => with,
            _ => partition,
        };
        if before.changes == 3 {
            let message = format!("partition {partition} moved {} times", before.changes);
            return ready(Err(SourceError::new(SourceFault::SnapshotLost, message))).boxed();
        }
        let discard: Vec<u32> = BTreeSet::from([partition, with]).into_iter().collect();
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            before.partitions.into_iter().partition(|(number, _)| discard.contains(number));
        let (start, end) = (gone[0].1.start, gone[gone.len() - 1].1.end);
        let next = kept.iter().chain(&gone).map(|(number, _)| number + 1).max().unwrap();
        // Cut at another place than before.
        kept.extend([(next, start..start + 3), (next + 1, start + 3..end)]);
        *self.state.lock().unwrap() = State { partitions: kept, changes: before.changes + 1 };
        let add = self.partitions().into_iter().filter(|partition| partition.number >= next).collect();
        ready(Ok(Some(Replan { discard, add }))).boxed()
    }
}

impl Reading for All {
    fn plan(&self, relation: usize) -> Option<Arc<Plan>> {
        self.0.get(relation).map(|rows| Arc::new(rows.planned()))
    }

    fn facts(&self) -> SourceFacts {
        let kind = SourceKind::Other("memory".to_owned());
        SourceFacts { kind, server_version: "1".to_owned(), standby: false }
    }

    fn consistency(&self, _: usize) -> Consistency {
        let mode = ConsistencyMode::Other("at_rest".to_owned());
        Consistency { mode, snapshots: Vec::new(), now: None, note: None, proof: None }
    }

    fn record(&self, relation: usize) -> Result<Value, SourceError> {
        Ok(json!([self.0[relation].record()]))
    }

    fn open(&self, relation: usize, partition: u32) -> BoxFuture<'_, Result<Opened, SourceError>> {
        let rows = &self.0[relation];
        let opened = |batches| {
            if rows.gives_bytes() {
                let kind = ObjectKind::of_source("song".to_owned(), "audio/x-song".to_owned()).unwrap();
                Opened::Bytes { kind, batches }
            } else {
                Opened::Rows(batches)
            }
        };
        rows.open(partition).map_ok(opened).boxed()
    }

    fn replan(&self, relation: usize, partition: u32) -> BoxFuture<'_, Result<Option<Replan>, SourceError>> {
        self.0[relation].replan(partition)
    }

    fn guard(&self) -> BoxFuture<'_, SourceError> {
        pending().boxed()
    }
}
