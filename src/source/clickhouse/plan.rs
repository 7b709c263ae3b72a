//! The plan of one relation, as this source knows it and as all other rooms do. Pure.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::columns::ChColumn;
use super::eyes::ChEyes;
use super::names::{literal, quoted};
use super::parts::{PartPiece, condition};
use super::per_partition::{self, TablePartition};
use super::shards::ALL_SHARDS;
use crate::base::failpoint;
use crate::base::words::counted;
use crate::model::{
    CapPlan, Consistency, ConsistencyMode, KeyColumn, PartRange, Partition, Plan, PlannedContent, ReadPlan,
    ReadRequest, Relation, RelationKind, RowOrder, SnapshotRecord, SourceIdentity,
};
use crate::source::{SourceError, SourceFault};

/// What the reads of a run have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChMode {
    /// One statement, which sees one set of parts.
    SingleStatement,
    /// Named parts, whose rows were counted.
    PartSet,
    /// A statement for each partition of the table, each at a moment of its own.
    PerPartition,
    /// Ranges of a key, each at a moment of its own.
    KeyRanges,
}

impl ChMode {
    fn word(self) -> &'static str {
        match self {
            Self::SingleStatement => "single_statement",
            Self::PartSet => "part_set",
            Self::PerPartition => "per_partition",
            Self::KeyRanges => "key_ranges",
        }
    }

    fn consistency(self) -> ConsistencyMode {
        ConsistencyMode::Other(self.word().to_owned())
    }

    /// What shows that nothing is missing.
    fn proof(self) -> &'static str {
        match self {
            Self::PartSet => "eos_and_count",
            Self::PerPartition => "eos_and_parts",
            Self::SingleStatement | Self::KeyRanges => "eos",
        }
    }

    /// What it promises, for people.
    fn promise(self) -> &'static str {
        match self {
            Self::SingleStatement => "one statement, which reads one set of parts",
            Self::PartSet => "named parts, each slice's rows compared with those that were counted when it was planned",
            Self::PerPartition => {
                "a statement for each partition of the table and one for new ones, each read at a moment of its own, with \
                 no fewer rows than were counted when it was planned"
            }
            Self::KeyRanges => "ranges of the key, each read at a moment of its own",
        }
    }
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChRelation {
    pub(crate) kind: RelationKind,
    /// Database and table; `None` for a query.
    pub(crate) table: Option<(String, String)>,
    /// As the person wrote it.
    pub(crate) query: Option<String>,
    pub(crate) predicate: Option<String>,
    pub(crate) engine: String,
    pub(crate) estimated_rows: Option<u64>,
    pub(crate) estimated_bytes: Option<u64>,
    /// Which of all tables that ever have this name; `None` for a query, and in the record of a run of an earlier version.
    #[serde(default)]
    pub(crate) identity: Option<String>,
}

impl ChRelation {
    /// Its name for people.
    pub(crate) fn name(&self) -> Option<String> {
        let (database, table) = self.table.as_ref()?;
        Some(format!("{}.{}", shown(database), shown(table)))
    }

    /// What stands behind FROM.
    pub(crate) fn from(&self) -> String {
        match (&self.table, &self.query) {
            (Some((database, table)), _) => format!("{}.{}", quoted(database), quoted(table)),
            (None, query) => format!("(\n{}\n)", query.as_deref().unwrap_or_default()),
        }
    }

    /// The predicate and a condition of ours, as what stands behind the relation.
    pub(crate) fn filter(&self, condition: Option<&str>) -> String {
        let person = self.predicate.as_ref().map(|predicate| format!("(\n{predicate}\n)"));
        // Ours comes first: the server leaves parts out by it.
        let both: Vec<String> = condition.map(|condition| format!("({condition})")).into_iter().chain(person).collect();
        if both.is_empty() { String::new() } else { format!(" WHERE {}", both.join(" AND ")) }
    }
}

/// A name as `--table` takes it back.
fn shown(name: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    if !name.is_empty() && name.chars().all(word) { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

/// The rows of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChSlice {
    /// All of them.
    Whole,
    /// None: the relation had none when it was planned.
    Nothing,
    /// Those of named parts.
    Parts(Vec<PartPiece>),
    /// Those of some partitions of the table.
    Partitions(Vec<TablePartition>),
    /// Those of all partitions but these.
    Complement(Vec<String>),
    /// Those for which a condition on the key holds.
    Condition(String),
}

/// A slice and its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChPartition {
    pub(crate) number: u32,
    pub(crate) slice: ChSlice,
}

impl ChPartition {
    /// The rows that were counted when it was planned.
    pub(crate) fn planned_rows(&self) -> Option<u64> {
        match &self.slice {
            ChSlice::Parts(pieces) => Some(pieces.iter().fold(0, |sum, piece| piece.rows.saturating_add(sum))),
            ChSlice::Nothing => Some(0),
            ChSlice::Whole | ChSlice::Partitions(_) | ChSlice::Complement(_) | ChSlice::Condition(_) => None,
        }
    }

    /// The partitions of the table that it has rows of, as they were counted, where more may have come since.
    pub(crate) fn table_partitions(&self) -> &[TablePartition] {
        match &self.slice {
            ChSlice::Partitions(partitions) => partitions,
            _ => &[],
        }
    }

    /// The least rows that there can be.
    fn least_rows(&self) -> u64 {
        let in_partitions = self.table_partitions().iter().fold(0, |sum: u64, one| one.rows.saturating_add(sum));
        self.planned_rows().unwrap_or(in_partitions)
    }

    /// About how many rows it has, as far as they were counted.
    fn counted_rows(&self) -> Option<u64> {
        match &self.slice {
            ChSlice::Whole | ChSlice::Condition(_) => None,
            // Nobody has counted what is not there yet.
            ChSlice::Complement(_) | ChSlice::Nothing | ChSlice::Parts(_) | ChSlice::Partitions(_) => {
                Some(self.least_rows())
            }
        }
    }

    fn range(&self) -> PartRange {
        match &self.slice {
            ChSlice::Whole | ChSlice::Nothing => PartRange::Whole,
            ChSlice::Parts(_) | ChSlice::Partitions(_) | ChSlice::Complement(_) | ChSlice::Condition(_) => {
                PartRange::Other("source".to_owned())
            }
        }
    }
}

/// A whole plan. Its serialized form is what `resume` goes on by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChPlan {
    pub(crate) relation: ChRelation,
    pub(crate) columns: Vec<ChColumn>,
    /// What stands behind ORDER BY; empty where nothing orders the rows.
    pub(crate) order: Vec<String>,
    /// The columns of `--key`.
    pub(crate) key: Vec<KeyColumn>,
    pub(crate) cap: CapPlan,
    pub(crate) mode: ChMode,
    /// Why it is one statement, where it could have been more.
    pub(crate) why: Option<String>,
    pub(crate) partitions: Vec<ChPartition>,
    /// The server's own name.
    pub(crate) host: String,
    /// Its id, where it has one: two servers may have one name.
    #[serde(default)]
    pub(crate) server_uuid: Option<String>,
    /// Whose eyes it is read with; `None` in the record of a run of an earlier version.
    #[serde(default)]
    pub(crate) eyes: Option<ChEyes>,
    /// Which database it is, for the manifest.
    #[serde(default)]
    pub(crate) source: Option<SourceIdentity>,
    /// What the queries of workers have in their ids, and no other run.
    #[serde(default)]
    pub(crate) seats: String,
    /// Threads of the server for one statement.
    pub(crate) threads: u64,
    /// Whether the user's profile says how many, and lets nobody change it.
    pub(crate) fixed_threads: bool,
    /// Statements at the same time.
    pub(crate) readers: usize,
    /// When the parts were listed, or the plan was made.
    pub(crate) taken_at: DateTime<Utc>,
    /// Stands for the updates of rows whose parts keep their names, as they were before the parts were counted.
    pub(crate) patches: String,
    /// Partitions of the table that were planned anew, each time.
    pub(crate) replanned: Vec<String>,
}

impl ChPlan {
    /// The statement that gives the rows of one slice.
    pub(crate) fn statement(&self, slice: &ChSlice) -> String {
        format!("{}{ALL_SHARDS}", self.select(slice))
    }

    /// The same as it stands within another statement.
    pub(crate) fn select(&self, slice: &ChSlice) -> String {
        let list: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| format!("{} AS {}", column.sent, alias(place)))
            .collect();
        // Another server may have parts and partitions of the same names, and so may another table.
        let same = self.relation.same_table_condition().map_or(String::new(), |same| format!(" AND {same}"));
        let here = |condition: String| Some(format!("hostName() = {}{same} AND {condition}", literal(&self.host)));
        let ours = match slice {
            ChSlice::Whole | ChSlice::Nothing => None,
            ChSlice::Parts(pieces) => here(condition(pieces)),
            ChSlice::Partitions(partitions) => {
                here(per_partition::condition(partitions.iter().map(|one| one.id.as_str())))
            }
            ChSlice::Complement(ids) => here(per_partition::complement(ids)),
            ChSlice::Condition(condition) => Some(condition.clone()),
        };
        let filter = self.relation.filter(ours.as_deref());
        let mut sql = format!("SELECT {} FROM {}{filter}", list.join(", "), self.relation.from());
        if !self.order.is_empty() {
            sql.push_str(" ORDER BY ");
            sql.push_str(&self.order.join(", "));
        }
        if let Some(rows) = self.cap.max_rows {
            // One row more tells whether the cap cuts any off.
            sql.push_str(" LIMIT ");
            sql.push_str(&rows.get().saturating_add(1).to_string());
        }
        sql
    }

    /// What the other rooms know of it.
    pub(crate) fn told(&self, request: &ReadRequest, settings: &[(String, String)]) -> Plan {
        let ordered = !self.key.is_empty() && !self.order.is_empty();
        let partition = |partition: &ChPartition| Partition {
            number: partition.number,
            range: partition.range(),
            ordered,
            row_limit: self.cap.max_rows,
            counted_rows: partition.counted_rows(),
        };
        Plan {
            relation: Relation {
                kind: self.relation.kind,
                name: self.relation.name(),
                query: self.relation.query.clone(),
                predicate: self.relation.predicate.clone(),
                estimated_rows: self.relation.estimated_rows,
                estimated_bytes: self.relation.estimated_bytes,
                tables: usize::from(self.relation.table.is_some()),
                row_security: false,
                identity: self.source.clone(),
            },
            now: None,
            content: PlannedContent::Rows,
            columns: self.columns.iter().map(|column| column.output.clone()).collect(),
            key: self.key.clone(),
            cap: self.cap.clone(),
            partitions: self.partitions.iter().map(partition).collect(),
            read: self.read_plan(request, settings),
            at_own_moments: Vec::new(),
            watermark: None,
        }
    }

    fn read_plan(&self, request: &ReadRequest, settings: &[(String, String)]) -> ReadPlan {
        let mut details = Map::new();
        details.insert("max_threads".to_owned(), json!(self.threads));
        let sent: Map<String, serde_json::Value> =
            settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        details.insert("settings".to_owned(), sent.into());
        let threads = counted(self.threads, "thread");
        let readers = counted(self.readers, "reader");
        let why = self.why.as_ref().map_or(String::new(), |why| format!("\none statement: {why}"));
        let read = format!("{}, {readers}, {threads} of the server each{why}", self.mode.promise());
        let mut lines = vec![("read".to_owned(), read)];
        if matches!(self.mode, ChMode::PartSet | ChMode::PerPartition) && self.relation.predicate.is_some() {
            let text = "planning counts the rows of the predicate in each part, which reads its columns once more";
            lines.push(("count".to_owned(), text.to_owned()));
        }
        ReadPlan {
            mode: self.mode.word().to_owned(),
            consistency: self.mode.consistency(),
            page_size: None,
            readers: self.readers,
            peak_connections: self.readers.saturating_add(1),
            source_profile: request.work.source_profile,
            note: self.why.as_ref().map(|why| format!("one statement: {why}")),
            details,
            lines,
        }
    }

    /// Makes sure that each partition has the rows that were counted when it was planned, whichever process has read it.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where one has others.
    pub(crate) fn has_its_rows(&self, read: &BTreeMap<u32, u64>) -> Result<(), SourceError> {
        if failpoint::off("planned_rows") {
            return Ok(());
        }
        for partition in &self.partitions {
            let Some(came) = read.get(&partition.number) else { continue };
            let least = partition.least_rows();
            if *came < least || partition.planned_rows().is_some_and(|planned| planned != *came) {
                let rows = counted(*came, "row");
                let message = format!(
                    "partition {} has {rows}, and {least} were counted when the run was planned",
                    partition.number
                );
                return Err(SourceError::new(SourceFault::SnapshotLost, message)
                    .with_hint("export it again when the table is quiet, or with --consistency single_statement"));
            }
        }
        Ok(())
    }

    /// What its reads have in common, once they are made.
    pub(crate) fn consistency(&self) -> Consistency {
        let mut notes: Vec<String> = self.why.iter().map(|why| format!("read as one statement: {why}")).collect();
        if self.mode == ChMode::KeyRanges {
            let note =
                "each range of the key is of its own moment: rows that changed meanwhile may be missing or twice";
            notes.push(note.to_owned());
        }
        if self.mode == ChMode::PerPartition {
            let note = "each partition of the table is of its own moment: rows that were inserted after the run was planned \
                may be among them";
            notes.push(note.to_owned());
        }
        if !self.replanned.is_empty() {
            let ids = self.replanned.join(", ");
            notes.push(format!("planned anew while it was read, and of a later moment: partition {ids} of the table"));
        }
        let taken = SnapshotRecord { id: None, lsn: None, xmin: None, taken_at: self.taken_at };
        Consistency {
            mode: self.mode.consistency(),
            snapshots: if self.mode == ChMode::PartSet { vec![taken] } else { Vec::new() },
            now: None,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            proof: Some(self.mode.proof().to_owned()),
        }
    }
}

/// What a column is called in our statements: a name that nobody's text has, since the server takes an alias for a column.
pub(crate) fn alias(place: usize) -> String {
    format!("outhaul_c{place}")
}

/// The cap of a statement that reads one row more than it allows.
pub(crate) fn cap(tier: Option<String>, max_rows: Option<NonZeroU64>, ordered: bool) -> CapPlan {
    CapPlan {
        tier,
        max_rows,
        by_reading: max_rows.is_some(),
        order: if ordered { RowOrder::Key } else { RowOrder::Unspecified },
        ..CapPlan::none()
    }
}
