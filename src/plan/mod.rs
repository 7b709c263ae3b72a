//! Stage 1, WHAT: relation, statistics and cap become disjoint, covering partitions and one column plan per column.
//!
//! Nothing here does IO or awaits (invariant I8): facts come in as values, a [`Plan`] goes out.

pub(crate) mod clocks;
pub mod column;
pub mod columns;
mod constant;
pub mod describe;
pub mod error;
mod extremes;
pub mod key;
mod lexer;
pub mod locks;
mod members;
pub(crate) mod mentions;
pub(crate) mod oid;
pub mod partition;
mod pieces;
pub mod policy;
pub mod predicate;
pub mod sizing;
pub mod split;
#[cfg(test)]
mod testing;
mod travel;
pub(crate) mod whole_row;
mod words;

use std::collections::HashSet;
use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use column::{
    Attribute, Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, ExtensionType, Member, PgType, Precision, TypeKind,
    Wire,
};
pub use columns::{ColumnRules, columns};
pub use describe::PlanView;
pub use error::{PlanError, SqlFlaw};
pub use key::{KeyChoice, choose_key};
pub(crate) use lexer::NAME_BYTES_MAX;
pub use locks::LockUse;
pub use partition::{
    Comparison, Direction, KeyColumn, KeyRange, KeyValue, Operators, Partition, Slice, TupleId, number_partitions,
};
pub use policy::{Policies, PolicyOptions, Preset};
pub use predicate::{check_expression, check_predicate, check_query};
pub use sizing::Sizing;
pub use travel::ServerTypes;
pub(crate) use travel::{is_free_text, is_text, srid};

/// Bytes of heap that are read before a second snapshot keeper would stand: about 10 ms.
const SMALL_PLAN_HEAP_BYTES: u64 = 1024 * 1024;

/// What is to be exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationRequest {
    /// `--table`: a name as a person writes it, quoted where it must be, with or without its schema.
    Table(String),
    /// `--query`: one SELECT, VALUES or WITH statement.
    Query(String),
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

/// A column as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its type.
    pub pg_type: PgType,
    /// Whether `NOT NULL` holds for every row that can be read.
    pub not_null: bool,
    /// How its values are compared where it is a key; none where its type has no order.
    pub comparison: Option<Comparison>,
    /// Whether it is text that is sorted byte by byte: by its collation, as far as the catalog tells.
    #[serde(default)]
    pub byte_ordered: bool,
    /// Statistics, where the role may read them.
    pub statistics: ColumnStatistics,
}

/// One table that stores rows of the relation itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafFacts {
    /// `pg_class.oid`.
    pub oid: u32,
    /// `schema.table`, quoted for SQL.
    pub sql_name: String,
    /// Blocks by `pg_relation_size` of the main fork, taken under the snapshot.
    pub blocks: u32,
    /// Bytes a block.
    pub block_size: u32,
    /// Whether a `ctid` range is legal and cheap: heap access method on PostgreSQL 14 or later.
    pub ctid_ranges: bool,
    /// Relations that are locked to read it: itself, its indexes, its TOAST table and that one's index.
    #[serde(default = "one")]
    pub relations: u32,
}

/// A record of a version that did not count them.
fn one() -> u32 {
    1
}

impl LeafFacts {
    /// Whether it is read in less time than a connection takes to make.
    pub fn is_small(&self) -> bool {
        sizing::heap_bytes(self) <= SMALL_PLAN_HEAP_BYTES
    }
}

/// What of a relation says how it may be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingFacts {
    /// Whether its tables may not be read one by one because an expression or the predicate may mean its whole row, which
    /// is another one in each of them.
    #[serde(default)]
    pub whole_rows: bool,
    /// The foreign tables among what is read, `schema.table` for people: each statement reads them at its own moment.
    #[serde(default)]
    pub foreign: Vec<String>,
}

/// All that planning knows of the relation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelationFacts {
    /// What it is.
    pub kind: RelationKind,
    /// `schema.table` quoted for SQL; for a query the statement itself, without a trailing semicolon.
    pub sql_name: String,
    /// The name by which a predicate may qualify columns, quoted for SQL: the table's own, or `query`.
    pub alias: String,
    /// `schema.table` for people; `None` for a query.
    pub display_name: Option<String>,
    /// The columns, in catalog order, dropped ones left out.
    pub columns: Vec<ColumnFacts>,
    /// The tables that may be read directly in its place, in a stable order; empty where the relation must be read
    /// through its own name (views, queries, foreign leaves, row security, missing privileges).
    pub leaves: Vec<LeafFacts>,
    /// Estimated rows by `pg_class.reltuples`, where known; never trusted for correctness.
    pub estimated_rows: Option<u64>,
    /// Columns of the primary key or, without one, of a unique index over NOT NULL columns; in index order.
    pub unique_key: Option<Vec<String>>,
    /// Whether row security may hide rows of it from the role; only where the request allows that.
    pub row_security: bool,
    /// What says how it may be read.
    #[serde(default)]
    pub reading: ReadingFacts,
}

/// `name_2`, or the next number that `take` takes.
fn numbered(name: &str, mut take: impl FnMut(String) -> bool) -> String {
    let mut number = 2_u64;
    loop {
        let next = format!("{name}_{number}");
        if take(next.clone()) {
            return next;
        }
        number += 1;
    }
}

impl RelationFacts {
    /// What our SQL calls each column: its name, or for the second of that name, which a query can have, a numbered one.
    pub(crate) fn column_aliases(&self) -> Vec<String> {
        let mut taken: HashSet<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let mut seen = HashSet::new();
        let mut aliases = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let first = seen.insert(column.name.as_str());
            aliases.push(if first { column.name.clone() } else { numbered(&column.name, |name| taken.insert(name)) });
        }
        aliases
    }

    /// The column that `flag` calls `name`, letter case counting.
    ///
    /// # Errors
    /// There is none; the error offers the nearest.
    pub fn column(&self, flag: &'static str, name: &str) -> Result<&ColumnFacts, PlanError> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            PlanError::unknown_column(flag, name, self.columns.iter().map(|column| column.name.as_str()))
        })
    }
}

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

/// A whole plan: what source, workers and manifest agree on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The relation.
    pub relation: RelationFacts,
    /// The person's predicate, checked by [`predicate`](self), without parentheses around it, with literals in place of
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

    /// Whether it is read in less time than a connection takes to make: one slice of a small heap.
    pub fn is_small(&self) -> bool {
        let leaf = match self.partitions.as_slice() {
            [Partition { slice: Slice::Heap { leaf, .. }, .. }] => self.relation.leaves.get(*leaf),
            _ => None,
        };
        leaf.is_some_and(LeafFacts::is_small)
    }

    /// How many statements read foreign tables, each at a moment of its own; `None` where none is read.
    pub fn foreign_statements(&self) -> Option<usize> {
        (!self.relation.reading.foreign.is_empty()).then_some(self.partitions.len())
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
