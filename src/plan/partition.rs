//! A [`Partition`] is a slice of the relation, decided before reading: the unit of retry, receipt and resume.

use std::num::NonZeroU64;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::column::PgType;

/// The direction in which a key column is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Ascending.
    #[default]
    Asc,
    /// Descending.
    Desc,
}

/// One column of the key by which rows are split and ordered. NULLs come last, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyColumn {
    /// The column's name in the catalog.
    pub name: String,
    /// Its type: bounds travel as text and are cast to it.
    pub pg_type: PgType,
    /// Its direction.
    pub direction: Direction,
    /// Whether it can be NULL.
    pub nullable: bool,
}

/// A value of the whole key or of its leading columns, each as PostgreSQL prints it; `None` is NULL.
pub type KeyValue = Vec<Option<String>>;

/// Rows between two key values *in the key's own order* (a descending key runs from high to low).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// Where the range begins.
    pub lower: Bound<KeyValue>,
    /// Where it ends.
    pub upper: Bound<KeyValue>,
}

/// A row's place in a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TupleId {
    /// Block number.
    pub block: u32,
    /// Line pointer in the block; rows have 1 and more, 0 stands before all of them.
    pub offset: u16,
}

/// One slice of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Slice {
    /// All rows of the relation.
    Whole,
    /// All rows, or a range of blocks, of one leaf table, read with `FROM ONLY`.
    Heap {
        /// Index of the leaf in [`super::RelationFacts::leaves`].
        leaf: usize,
        /// First place, inclusive; `None` is the heap's beginning.
        from: Option<TupleId>,
        /// Last place, exclusive; `None` is open: rows beyond the counted blocks belong here.
        to: Option<TupleId>,
    },
    /// A range of the key.
    Keys(KeyRange),
    /// The rows whose leading key column is NULL.
    NullKeys,
}

/// A slice with its number: number order is output order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// 0, 1, 2, … in output order.
    pub number: u32,
    /// The rows.
    pub slice: Slice,
    /// Whether the rows are read in key order.
    pub ordered: bool,
    /// At most so many rows, for a cap on a relation that has no key to end it.
    pub row_limit: Option<NonZeroU64>,
}
