//! A plan as all other rooms know it: without types, places or operators of the server.

use std::collections::BTreeSet;

use indicatif::{HumanBytes, HumanCount};
use serde_json::{Map, json};

use super::locks::CONTROL_SESSIONS;
use super::sizing::heap_bytes;
use super::type_mapping::values_are_safe;
use super::{LeafFacts, PgKeyColumn, PgPartition, PgPlan, Slice};
use crate::base::failpoint;
use crate::base::text::key;
use crate::base::words::{counted, plural};
use crate::model::{
    CapPlan, Consistency, ConsistencyMode, KeyColumn, KeyRange, KeyValue, PartRange, Partition, Plan, PlannedContent,
    PlannedWatermark, ReadMode, ReadPlan, ReadRequest, Relation, SnapshotRecord, SourceProfile,
};
use crate::source::{SourceError, SourceFault};

impl PgPlan {
    /// What the other rooms know of it.
    ///
    /// # Errors
    /// A partition is of a leaf that the plan does not have: a bug.
    pub(crate) fn told(&self, request: &ReadRequest) -> Result<Plan, SourceError> {
        let facts = &self.relation;
        let leaves = &facts.leaves;
        Ok(Plan {
            content: PlannedContent::Rows,
            relation: Relation {
                kind: facts.kind,
                name: facts.display_name.clone(),
                query: self.written_query().map(str::to_owned),
                predicate: self.written_predicate().map(str::to_owned),
                estimated_rows: facts.estimated_rows,
                estimated_bytes: (!leaves.is_empty()).then(|| leaves.iter().map(heap_bytes).sum()),
                tables: leaves.len(),
                row_security: facts.row_security,
                identity: None,
            },
            now: self.now.as_ref().map(|now| now.at),
            columns: self.columns.iter().map(|column| column.output.clone()).collect(),
            key: self.key.iter().map(key_column).collect(),
            cap: CapPlan { boundary: self.cap.boundary.as_ref().map(shown), ..self.cap.clone() },
            partitions: self.partitions.iter().map(|partition| self.partition(partition)).collect::<Result<_, _>>()?,
            read: self.read_plan(request),
            at_own_moments: facts.reading.foreign.clone(),
            watermark: self.watermark.clone(),
        })
    }

    fn partition(&self, partition: &PgPartition) -> Result<Partition, SourceError> {
        let range = part_range(&partition.slice, &self.relation.leaves).ok_or_else(|| {
            let message = format!("partition {} is of a table that the plan does not have", partition.number);
            SourceError::new(SourceFault::Protocol, message)
        })?;
        let PgPartition { number, ordered, row_limit, .. } = *partition;
        Ok(Partition { number, range, ordered, row_limit, counted_rows: None })
    }

    fn read_plan(&self, request: &ReadRequest) -> ReadPlan {
        let work = &request.work;
        // As many as were asked for, unless their locks would take too much room.
        let fewer = self.locks.readers.and_then(|readers| usize::try_from(readers).ok());
        let readers = fewer.map_or(work.readers.get(), |fewer| fewer.min(work.readers.get()));
        let (mode, page_size, beside) = match work.read_mode {
            // One keeper more holds the snapshot beyond the run, and those of the run stand beside a single reader too.
            ReadMode::Copy if request.keep => ("copy", None, CONTROL_SESSIONS + 1),
            ReadMode::Copy if readers > 1 => ("copy", None, CONTROL_SESSIONS),
            // The only reader's own transaction is the snapshot, so there are no keepers.
            ReadMode::Copy => ("copy", None, 1),
            ReadMode::Keyset { page_size } => ("keyset", Some(page_size.get()), 1),
        };
        let mut details = Map::new();
        details.insert("may_evict_bytes".to_owned(), json!(self.may_evict_bytes()));
        details.insert("locks".to_owned(), json!(self.locks));
        let mut told = ReadPlan {
            mode: mode.to_owned(),
            consistency: self.consistency(work.read_mode),
            page_size,
            readers,
            peak_connections: readers.saturating_add(beside),
            source_profile: work.source_profile,
            note: self.note(),
            details,
            lines: Vec::new(),
        };
        told.lines = self.lines(&told);
        told
    }

    /// What its reads will have in common.
    pub(crate) fn consistency(&self, read_mode: ReadMode) -> ConsistencyMode {
        match read_mode {
            ReadMode::Keyset { .. } => ConsistencyMode::Keyset,
            ReadMode::Copy if self.foreign_statements().is_some() => ConsistencyMode::Foreign,
            ReadMode::Copy => ConsistencyMode::SingleSnapshot,
        }
    }

    /// The same once it is read: under which snapshots, and whether another process read a part under another one.
    pub(crate) fn promise(&self, read_mode: ReadMode, mixed: bool, snapshots: Vec<SnapshotRecord>) -> Consistency {
        let foreign = if failpoint::off("foreign") { None } else { self.foreign_note() };
        let (mode, note) = match read_mode {
            ReadMode::Keyset { .. } => {
                let note =
                    "each page is of its own moment: rows that changed their key meanwhile may be missing or twice";
                (ConsistencyMode::Keyset, Some(note))
            }
            ReadMode::Copy => {
                let note = "the run was resumed under another snapshot: rows that changed between the two may be missing \
                    or twice";
                let mode = if mixed { ConsistencyMode::Mixed } else { ConsistencyMode::SingleSnapshot };
                (if foreign.is_some() { ConsistencyMode::Foreign } else { mode }, mixed.then_some(note))
            }
        };
        let mut notes: Vec<String> = note.into_iter().map(str::to_owned).chain(foreign).collect();
        notes.extend(self.one_statement.as_ref().map(|why| format!("read as one statement: {why}")));
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        Consistency { mode, snapshots, now: self.now.as_ref().map(|now| now.at), note, proof: None }
    }

    fn note(&self) -> Option<String> {
        let one_statement = self.one_statement.as_ref().map(|why| format!("one statement: {why}"));
        let notes: Vec<String> = self.foreign_note().into_iter().chain(one_statement).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn may_evict_bytes(&self) -> u64 {
        let cut: BTreeSet<usize> = self
            .partitions
            .iter()
            .filter_map(|partition| match &partition.slice {
                Slice::Heap { leaf, from, to } => (from.is_some() || to.is_some()).then_some(*leaf),
                Slice::Whole | Slice::Leaves { .. } | Slice::Keys(_) | Slice::NullKeys => None,
            })
            .collect();
        cut.into_iter().filter_map(|leaf| self.relation.leaves.get(leaf)).map(heap_bytes).sum()
    }

    /// How it is read, for people.
    fn lines(&self, read: &ReadPlan) -> Vec<(String, String)> {
        let mut lines = vec![("read".to_owned(), read_words(read))];
        if self.locks.lock_table > 0 {
            lines.push(("locks".to_owned(), self.locks.to_string()));
        }
        lines.extend(self.watermark.as_ref().map(|watermark| ("since".to_owned(), since_words(watermark))));
        let evicted = self.may_evict_bytes();
        if evicted > 0 {
            let mut text =
                format!("block ranges may evict up to {} of what the server has cached", HumanBytes(evicted));
            if read.source_profile != SourceProfile::Gentle {
                text.push_str("\n(--source-profile gentle reads each table in one pass, in a ring of 256 KiB)");
            }
            lines.push(("cache".to_owned(), text));
        } else if read.source_profile == SourceProfile::Gentle && self.key.is_empty() {
            let text = "each table in one pass, in a ring of 256 KiB of the server's cache\n\
                (a table below a quarter of shared_buffers is cached as a whole)";
            lines.push(("cache".to_owned(), text.to_owned()));
        }
        lines
    }

    /// What a person should know of rows that come from foreign tables.
    pub fn foreign_note(&self) -> Option<String> {
        let statements = self.foreign_statements()?;
        let tables = self.relation.reading.foreign.join(", ");
        Some(if statements > 1 {
            format!(
                "{statements} statements read the foreign tables {tables}, each at a moment of its own on the foreign \
                 server: rows that change there meanwhile may be missing or twice"
            )
        } else {
            format!(
                "one statement reads the foreign tables {tables}, at its moment on the foreign server and not under the \
                 snapshot"
            )
        })
    }
}

fn key_column(key: &PgKeyColumn) -> KeyColumn {
    KeyColumn {
        name: key.name.clone(),
        direction: key.direction,
        nullable: key.nullable,
        may_show: values_are_safe(&key.pg_type),
    }
}

fn read_words(read: &ReadPlan) -> String {
    let how = match read.page_size {
        None if read.consistency == ConsistencyMode::Foreign => {
            "COPY, foreign tables at the moment of each statement".to_owned()
        }
        None => "COPY under one snapshot".to_owned(),
        Some(rows) => format!("keyset pages of {} {}, no common snapshot", HumanCount(rows), plural(rows, "row")),
    };
    let (readers, connections) = (counted(read.readers, "reader"), counted(read.peak_connections, "connection"));
    let note = read.note.as_ref().map_or(String::new(), |note| format!("\n{note}"));
    format!("{how}, {readers}, {connections} at most{note}")
}

/// Which rows are read of an incremental export.
fn since_words(planned: &PlannedWatermark) -> String {
    match (&planned.since, &planned.why_full) {
        (Some(since), _) => {
            let value = since.watermark.value.as_deref().unwrap_or("any");
            let (column, horizon) = (&planned.column, since.watermark.horizon);
            format!(
                "run {}: rows beyond {value} of {column}, and those of transactions from {horizon} on",
                since.run_id
            )
        }
        (None, Some(why)) => format!("all rows: {why}"),
        (None, None) => "all rows: there is no export to go on from".to_owned(),
    }
}

/// A key as people and manifests have it: text, with U+FFFD for bytes that are no characters.
fn shown(key: &KeyValue) -> KeyValue {
    key.iter().map(|value| value.as_deref().map(key::shown)).collect()
}

/// A slice as the manifest has it; `None` where its leaves are not in the plan.
fn part_range(slice: &Slice, leaves: &[LeafFacts]) -> Option<PartRange> {
    Some(match slice {
        Slice::Whole => PartRange::Whole,
        Slice::NullKeys => PartRange::NullKeys,
        Slice::Keys(range) => {
            PartRange::Keys(KeyRange { lower: range.lower.as_ref().map(shown), upper: range.upper.as_ref().map(shown) })
        }
        Slice::Leaves { from, to } => {
            let leaves = leaves.get(*from..*to)?;
            PartRange::Leaves {
                first: leaves.first()?.sql_name.clone(),
                last: leaves.last()?.sql_name.clone(),
                tables: u64::try_from(leaves.len()).ok()?,
            }
        }
        Slice::Heap { leaf, from, to } => {
            PartRange::Heap { leaf: leaves.get(*leaf)?.sql_name.clone(), from: *from, to: *to }
        }
    })
}

#[cfg(test)]
mod tests;
