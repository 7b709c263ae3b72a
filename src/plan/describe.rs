//! A plan for people (`outhaul plan`) and as JSON.

mod text;

use std::collections::BTreeSet;
use std::ops::Bound;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::sizing::heap_bytes;
use crate::base::text::key;
use crate::model::{
    CapPlan, Carrier, ColumnOrigin, ColumnPlan, Direction, Format, KeyColumn, KeyRange, KeyValue, LeafFacts, LockUse,
    Plan, ReadMode, RelationKind, Slice, SourceProfile, TupleId, Wire, WorkOptions,
};
use crate::plan::locks::CONTROL_SESSIONS;

/// A plan as `outhaul plan` shows it: serialized as JSON, or by `Display` as text.
///
/// Partition bounds are key values, so rows' values are in it: it is shown to who asked for it and logged nowhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanView<'a> {
    /// `outhaul.plan`.
    pub format: &'static str,
    /// The version of this form, 1.
    pub version: u32,
    /// What is read.
    pub relation: RelationView<'a>,
    /// `--where`.
    pub predicate: Option<&'a str>,
    /// The moment that stands for `now()` and its kin in the query, the predicate and the expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<DateTime<Utc>>,
    /// The key that orders or splits the rows.
    pub key: Vec<KeyView<'a>>,
    /// The cap.
    pub row_cap: &'a CapPlan,
    /// How it is read.
    pub read: ReadView,
    /// The format of the parts.
    pub output: Format,
    /// The output columns.
    pub columns: Vec<ColumnView<'a>>,
    /// The partitions, in output order.
    pub partitions: Vec<PartitionView>,
}

/// The relation of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of `RelationFacts`")]
pub struct RelationView<'a> {
    pub kind: RelationKind,
    pub name: Option<&'a str>,
    pub query: Option<&'a str>,
    pub estimated_rows: Option<u64>,
    /// Bytes of the heaps, without TOAST; absent where the leaves are not read directly.
    pub heap_bytes: Option<u64>,
    pub leaves: usize,
}

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of `KeyColumn`")]
pub struct KeyView<'a> {
    pub name: &'a str,
    pub direction: Direction,
    pub nullable: bool,
}

/// How the partitions are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadView {
    /// `copy` or `keyset`.
    pub mode: &'static str,
    /// `consistency.mode` of the manifest.
    pub consistency: &'static str,
    /// Rows of a keyset page.
    pub page_size: Option<u64>,
    /// Connections that read.
    pub readers: usize,
    /// Connections at the busiest moment, readers included.
    pub peak_connections: usize,
    /// `gentle`, `balanced` or `fast`.
    pub source_profile: SourceProfile,
    /// Bytes of heap that are read past `PostgreSQL`'s ring of buffers, and so may evict as much of what others have in
    /// the server's cache: those of leaves that are cut into ranges of blocks.
    pub may_evict_bytes: u64,
    /// Why one statement reads all rows, where the rows cannot be split; what moment foreign tables are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What is taken of the server's lock table.
    pub locks: LockUse,
}

/// An output column.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of `ColumnPlan`")]
pub struct ColumnView<'a> {
    pub name: &'a str,
    pub from: &'a ColumnOrigin,
    pub pg_type: &'a str,
    pub wire: Wire,
    pub carrier: &'a Carrier,
    /// The Arrow type of the carrier.
    pub arrow_type: String,
    pub nullable: bool,
    pub policy: &'a str,
    pub note: Option<&'a str>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionView {
    /// Its number.
    pub number: u32,
    /// Its rows, in words.
    pub range: String,
    /// Whether the rows are read in key order.
    pub ordered: bool,
    /// At most so many rows.
    pub row_limit: Option<u64>,
}

impl<'a> PlanView<'a> {
    /// The view of a plan that is carried out with these options.
    pub fn new(plan: &'a Plan, work: &WorkOptions, output: Format) -> Self {
        let facts = &plan.relation;
        Self {
            format: "outhaul.plan",
            version: 1,
            relation: RelationView {
                kind: facts.kind,
                name: facts.display_name.as_deref(),
                query: plan.written_query(),
                estimated_rows: facts.estimated_rows,
                heap_bytes: (!facts.leaves.is_empty()).then(|| facts.leaves.iter().map(heap_bytes).sum()),
                leaves: facts.leaves.len(),
            },
            predicate: plan.written_predicate(),
            now: plan.now.as_ref().map(|now| now.at),
            key: plan
                .key
                .iter()
                .map(|key| KeyView { name: &key.name, direction: key.direction, nullable: key.nullable })
                .collect(),
            row_cap: &plan.cap,
            read: read_view(work, plan),
            output,
            columns: plan.columns.iter().map(column_view).collect(),
            partitions: plan
                .partitions
                .iter()
                .map(|partition| PartitionView {
                    number: partition.number,
                    range: slice_words(&partition.slice, &facts.leaves, &plan.key),
                    ordered: partition.ordered,
                    row_limit: partition.row_limit.map(u64::from),
                })
                .collect(),
        }
    }
}

impl PlanView<'_> {
    /// With `keep` one keeper more holds the snapshot beyond the run, and those of the run stand beside a single reader too.
    #[must_use]
    pub fn with_keeper(mut self, keep: bool) -> Self {
        if keep {
            self.read.peak_connections = self.read.readers.saturating_add(CONTROL_SESSIONS).saturating_add(1);
        }
        self
    }
}

fn read_view(work: &WorkOptions, plan: &Plan) -> ReadView {
    // As many as were asked for, unless their locks would take too much room.
    let fewer = plan.locks.readers.and_then(|readers| usize::try_from(readers).ok());
    let readers = fewer.map_or(work.readers.get(), |fewer| fewer.min(work.readers.get()));
    let (mode, page_size, beside) = match work.read_mode {
        ReadMode::Copy if readers > 1 => ("copy", None, CONTROL_SESSIONS),
        // The only reader's own transaction is the snapshot, so there are no keepers.
        ReadMode::Copy => ("copy", None, 1),
        ReadMode::Keyset { page_size } => ("keyset", Some(page_size.get()), 1),
    };
    let consistency = match work.read_mode {
        ReadMode::Keyset { .. } => "keyset",
        ReadMode::Copy if plan.foreign_statements().is_some() => "foreign",
        ReadMode::Copy => "single_snapshot",
    };
    ReadView {
        mode,
        consistency,
        page_size,
        readers,
        peak_connections: readers.saturating_add(beside),
        source_profile: work.source_profile,
        may_evict_bytes: may_evict_bytes(plan),
        note: note(plan),
        locks: plan.locks,
    }
}

fn note(plan: &Plan) -> Option<String> {
    let one_statement = plan.one_statement.as_ref().map(|why| format!("one statement: {why}"));
    let notes: Vec<String> = plan.foreign_note().into_iter().chain(one_statement).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn may_evict_bytes(plan: &Plan) -> u64 {
    let cut: BTreeSet<usize> = plan
        .partitions
        .iter()
        .filter_map(|partition| match &partition.slice {
            Slice::Heap { leaf, from, to } => (from.is_some() || to.is_some()).then_some(*leaf),
            Slice::Whole | Slice::Leaves { .. } | Slice::Keys(_) | Slice::NullKeys => None,
        })
        .collect();
    cut.into_iter().filter_map(|leaf| plan.relation.leaves.get(leaf)).map(heap_bytes).sum()
}

fn column_view(column: &ColumnPlan) -> ColumnView<'_> {
    ColumnView {
        name: &column.name,
        from: &column.origin,
        pg_type: &column.pg_type.name,
        wire: column.wire,
        carrier: &column.carrier,
        arrow_type: column.carrier.data_type().to_string(),
        nullable: column.nullable,
        policy: &column.policy,
        note: column.note.as_deref(),
    }
}

/// A slice in words, for example `blocks 0 to 127 of public.orders` or `id from 10 to before 20`.
///
/// Key values are in it (invariant I9): show it only where they were asked for.
pub fn slice_words(slice: &Slice, leaves: &[LeafFacts], key: &[KeyColumn]) -> String {
    match slice {
        Slice::Whole => "all rows".to_owned(),
        Slice::Heap { leaf, from, to } => {
            let table = leaves.get(*leaf).map_or("an unknown table", |leaf| leaf.sql_name.as_str());
            heap_words(table, *from, *to)
        }
        Slice::Leaves { from, to } => leaves_words(leaves.get(*from..*to).unwrap_or_default()),
        Slice::Keys(range) => key_words(range, key),
        Slice::NullKeys => {
            format!("{} is NULL", key.first().map_or("the key", |column| column.name.as_str()))
        }
    }
}

fn leaves_words(leaves: &[LeafFacts]) -> String {
    match leaves {
        [first, .., last] => format!("all of {} tables, {} to {}", leaves.len(), first.sql_name, last.sql_name),
        _ => "an unknown table".to_owned(),
    }
}

fn heap_words(table: &str, from: Option<TupleId>, to: Option<TupleId>) -> String {
    let first = |place: TupleId| match place.offset {
        0 | 1 => place.block.to_string(),
        offset => format!("{} (from row {offset})", place.block),
    };
    let last = |place: TupleId| match (place.offset, place.block.checked_sub(1)) {
        (0, Some(block)) => block.to_string(),
        (offset, _) => format!("{} (to row {})", place.block, offset.saturating_sub(1)),
    };
    match (from, to) {
        (None, None) => format!("all of {table}"),
        (Some(from), None) => format!("blocks from {} on of {table}", first(from)),
        (from, Some(to)) => {
            let first = from.map_or_else(|| "0".to_owned(), first);
            format!("blocks {first} to {} of {table}", last(to))
        }
    }
}

fn key_words(range: &KeyRange, key: &[KeyColumn]) -> String {
    let lower = match &range.lower {
        Bound::Unbounded => None,
        Bound::Included(value) => Some(("from", value)),
        Bound::Excluded(value) => Some(("after", value)),
    };
    let upper = match &range.upper {
        Bound::Unbounded => None,
        Bound::Included(value) => Some(("through", value)),
        Bound::Excluded(value) => Some(("to before", value)),
    };
    let compared = |(_, value): (&str, &KeyValue)| value.len();
    let width = lower.map(compared).max(upper.map(compared)).unwrap_or(key.len());
    let names: Vec<&str> = key.iter().take(width).map(|column| column.name.as_str()).collect();
    let mut words = tuple_words(&names);
    for (word, value) in [lower, upper].into_iter().flatten() {
        words = format!("{words} {word} {}", value_words(value));
    }
    match (lower, upper) {
        (None, None) => format!("every {words}"),
        (Some(_), None) => format!("{words} on"),
        (_, Some(_)) => words,
    }
}

/// A key value as people read it, for example `7`, `(7, NULL)`.
pub fn value_words(value: &KeyValue) -> String {
    let shown = |value: &Option<String>| value.as_deref().map_or_else(|| "NULL".to_owned(), key::shown);
    let values: Vec<String> = value.iter().map(shown).collect();
    tuple_words(&values.iter().map(String::as_str).collect::<Vec<_>>())
}

fn tuple_words(values: &[&str]) -> String {
    match values {
        [one] => (*one).to_owned(),
        several => format!("({})", several.join(", ")),
    }
}

#[cfg(test)]
mod tests;
