//! What is known of a relation before it is planned.

use serde::{Deserialize, Serialize};

use super::{Comparison, PgType};
use crate::model::{ColumnStatistics, RelationKind};

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
    /// Whether two of its values are equal only where their bytes are, as far as its collation decides that.
    #[serde(default)]
    pub bytes_equal: bool,
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
    /// Whether it is one table from which nothing inherits: what inherits from it later is left out by `ONLY`.
    #[serde(default)]
    pub alone: bool,
    /// The tables, by their oids, that are read with all that inherits from them: more of it may come than was there.
    #[serde(default)]
    pub parents: Vec<u32>,
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
