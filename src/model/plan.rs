//! What source, workers and manifest agree on before anything is read.

use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    ColumnPlan, ConsistencyMode, Direction, KeyValue, Partition, PlannedWatermark, SourceIdentity, SourceProfile,
};

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

impl CapPlan {
    /// No cap, in no order.
    pub fn none() -> Self {
        Self {
            tier: None,
            max_rows: None,
            truncated: false,
            order: RowOrder::Unspecified,
            boundary: None,
            available: RowsAvailable::Unknown,
            by_reading: false,
        }
    }
}

/// The kind of relation behind the request (`pg_class.relkind`, or a query).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are PostgreSQL's own terms")]
pub enum RelationKind {
    Table,
    PartitionedTable,
    View,
    MaterializedView,
    ForeignTable,
    Query,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// What it is.
    pub kind: RelationKind,
    /// Its name for people, `schema.table`; `None` for a query.
    pub name: Option<String>,
    /// `--query` as the person wrote it; `None` for a table.
    pub query: Option<String>,
    /// `--where` as the person wrote it.
    pub predicate: Option<String>,
    /// Rows by the source's statistics, where known; never trusted for correctness.
    pub estimated_rows: Option<u64>,
    /// Bytes that it takes at the source, where known.
    pub estimated_bytes: Option<u64>,
    /// Tables that are read in its place.
    pub tables: usize,
    /// Whether rows of it may be hidden from the role; only where the request allows that.
    pub row_security: bool,
    /// Which database it is of, as far as the role may know; absent in plans of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SourceIdentity>,
}

/// A column of the key that orders or splits the rows. NULLs come last, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// Its name at the source.
    pub name: String,
    /// Its direction.
    pub direction: Direction,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// Whether its values may stand in a manifest.
    pub may_show: bool,
}

/// How the partitions are read, and what that takes of the source: stated before it begins (invariants I5 and I11).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadPlan {
    /// How, in a word of the source's own: `copy`.
    pub mode: String,
    /// What the reads will have in common (`consistency.mode` of the manifest).
    pub consistency: ConsistencyMode,
    /// Rows of a page, where pages are read.
    pub page_size: Option<u64>,
    /// Connections that read.
    pub readers: usize,
    /// Connections at the busiest moment, readers included.
    pub peak_connections: usize,
    /// How hard the source may be worked.
    pub source_profile: SourceProfile,
    /// What a person should know of it: why one statement reads all rows, what moment foreign tables are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What else the source says of it, by name.
    #[serde(flatten)]
    pub details: serde_json::Map<String, serde_json::Value>,
    /// The same for people: a label, and a line of text or several. The first says how it is read.
    #[serde(skip)]
    pub lines: Vec<(String, String)>,
}

/// What the partitions of a relation give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedContent {
    /// Rows of the planned columns.
    Rows,
    /// Bytes of a format of the source's own: no columns, no cap, and nobody counts rows.
    Bytes,
}

/// A whole plan of one relation: what source, workers and manifest agree on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The relation.
    pub relation: Relation,
    /// The moment that the clocks in a person's texts are set to; `None` where they have none.
    pub now: Option<DateTime<Utc>>,
    /// Rows, or bytes of the source's own.
    pub content: PlannedContent,
    /// The output columns, in output order; none where the content is bytes.
    pub columns: Vec<ColumnPlan>,
    /// The key that orders or splits the rows; empty where nothing does.
    pub key: Vec<KeyColumn>,
    /// The cap.
    pub cap: CapPlan,
    /// The partitions, numbered from 0 in output order.
    pub partitions: Vec<Partition>,
    /// How it is read.
    pub read: ReadPlan,
    /// The tables, for people, that each statement reads at a moment of its own, whatever the others read: no statement
    /// can be repeated where there are several.
    pub at_own_moments: Vec<String>,
    /// What an incremental export goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<PlannedWatermark>,
}

impl Plan {
    /// Whether the partitions are statements that each see some tables at a moment of their own: reading one again would
    /// be one moment more.
    pub fn reads_at_several_moments(&self) -> bool {
        !self.at_own_moments.is_empty() && self.partitions.len() > 1
    }
}
