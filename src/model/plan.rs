//! What source, workers and manifest agree on before anything is read.

use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{ColumnPlan, KeyColumn, KeyValue, Partition, PgType, RelationFacts, RelationKind};

/// How the order of rows in the output came about (`row_cap.order` of the manifest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOrder {
    /// By a key that no two rows share.
    Key,
    /// By place in the heap.
    Physical,
    /// Whatever the server sent.
    Unspecified,
}

/// How many rows exist beyond the cap (`row_cap.rows_available` of the manifest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum RowsAvailable {
    /// So many.
    Exact(u64),
    /// At least so many: row N+1 exists.
    AtLeast(u64),
    /// Not looked at.
    Unknown,
}

/// What the cap does to this export, decided under the snapshot before anything is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapPlan {
    /// The tier's name, where the cap came from one.
    pub tier: Option<String>,
    /// The cap; `None` is uncapped.
    pub max_rows: Option<NonZeroU64>,
    /// Whether row N+1 exists.
    pub truncated: bool,
    /// The order by which "the first N rows" is meant.
    pub order: RowOrder,
    /// The key of row N (or its place in the heap), as text; absent where not truncated or no key.
    pub boundary: Option<KeyValue>,
    /// Whether rows beyond the cap exist; for an uncapped plan `Unknown`, made exact by the run.
    pub available: RowsAvailable,
    /// Whether the only statement reads up to row N+1 and so decides by itself whether the cap cuts rows off. Counting
    /// before it would be another statement, which may have other rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_reading: bool,
}

/// The moment that stands for `now()` and its kin in what a person wrote, which each session would have its own of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedNow {
    /// When the transaction began that took the snapshot.
    pub at: DateTime<Utc>,
    /// `--query` as the person wrote it.
    pub query: Option<String>,
    /// `--where` as the person wrote it.
    pub predicate: Option<String>,
}

/// A column by which an error names a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKeyColumn {
    /// Its name in the catalog.
    pub name: String,
    /// Its type.
    pub pg_type: PgType,
    /// Where it stands among the plan's columns; else it is read beside them, in the order of the row key.
    pub place: Option<usize>,
    /// Whether its value may be shown: not where it is text, unless the manifest shows text too.
    pub shown: bool,
}

/// When a run locks what it reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockWay {
    /// All of it, before the snapshot.
    #[default]
    BeforeSnapshot,
    /// A few leaves at a time as they are read, each compared with what it was under the snapshot.
    LeafByLeaf,
    /// What a page reads, for as long as it is read.
    PageByPage,
}

/// What a plan takes of the lock table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockUse {
    /// When it locks.
    pub way: LockWay,
    /// Locks of all sessions of the run at the busiest moment, at most: rows of `pg_locks`.
    pub at_most: u64,
    /// Locks that the server's table is made for.
    pub lock_table: u64,
    /// Readers that may read at the same time, where these are fewer than were asked for.
    pub readers: Option<u64>,
}

/// A whole plan: what source, workers and manifest agree on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The relation.
    pub relation: RelationFacts,
    /// The person's predicate, checked, without parentheses around it, with literals in place of
    /// clocks where [`Plan::now`] is set.
    pub predicate: Option<String>,
    /// The moment that the clocks in the statement are set to; `None` where it has none, or where they were left alone.
    #[serde(default)]
    pub now: Option<FixedNow>,
    /// Why one statement reads all rows, for people: several statements could give what no single one gives. `None`
    /// where the rows may be split.
    #[serde(default)]
    pub one_statement: Option<String>,
    /// The output columns, in output order.
    pub columns: Vec<ColumnPlan>,
    /// The key that orders or splits the rows; empty where ctid or nothing does.
    pub key: Vec<KeyColumn>,
    /// By what an error names a row: the columns of a key, as far as they are known.
    pub row_key: Vec<RowKeyColumn>,
    /// The cap.
    pub cap: CapPlan,
    /// The partitions, numbered from 0 in output order.
    pub partitions: Vec<Partition>,
    /// What it takes of the server's lock table.
    #[serde(default)]
    pub locks: LockUse,
}

impl Plan {
    /// `--where` as the person wrote it.
    pub fn written_predicate(&self) -> Option<&str> {
        self.now.as_ref().map_or(self.predicate.as_deref(), |now| now.predicate.as_deref())
    }

    /// `--query` as the person wrote it; `None` for a table.
    pub fn written_query(&self) -> Option<&str> {
        let sent = (self.relation.kind == RelationKind::Query).then_some(self.relation.sql_name.as_str());
        self.now.as_ref().map_or(sent, |now| now.query.as_deref())
    }

    /// How many statements read foreign tables, each at a moment of its own; `None` where none is read.
    pub fn foreign_statements(&self) -> Option<usize> {
        (!self.relation.reading.foreign.is_empty()).then_some(self.partitions.len())
    }
}
