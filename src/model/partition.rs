//! A [`Partition`] is a slice of the relation, decided before reading: the unit of retry, receipt and resume.

use std::num::NonZeroU64;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

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

/// A value of the whole key or of its leading columns, each as the source prints it, bytes that are no characters among it
/// (`base/text/key.rs`); `None` is NULL.
pub type KeyValue = Vec<Option<String>>;

/// Rows between two key values *in the key's own order* (a descending key runs from high to low).
///
/// Keys are compared column by column, each in its own direction, with NULL after every value in both directions. A
/// bound that gives only leading columns compares only those. So an unbounded `upper` takes the NULL keys in, and
/// `Excluded([None])` is every row whose leading column is not NULL.
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

/// What a partition, and so each of its parts, holds of the relation (`parts[].range` of the manifest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartRange {
    /// All of it.
    Whole,
    /// A range of places in one leaf's heap.
    Heap {
        /// The leaf's name.
        leaf: String,
        /// First place, inclusive; `None` is the beginning.
        from: Option<TupleId>,
        /// Last place, exclusive; `None` is open.
        to: Option<TupleId>,
    },
    /// Several leaves, each whole, in the order of their OIDs.
    Leaves {
        /// The first leaf's name.
        first: String,
        /// The last leaf's name.
        last: String,
        /// How many there are.
        tables: u64,
    },
    /// A range of the key.
    Keys(KeyRange),
    /// A range of the key, whose values `--manifest-stats` withholds.
    KeysWithheld,
    /// The rows whose leading key column is NULL.
    NullKeys,
    /// A slice of another kind, by its name, which a later version of outhaul makes.
    Other(String),
}

/// A part of the relation with its number: number order is output order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// 0, 1, 2, … in output order.
    pub number: u32,
    /// The rows, as the manifest tells them.
    pub range: PartRange,
    /// Whether the rows are read in key order.
    pub ordered: bool,
    /// At most so many rows, for a cap on a relation that has no key to end it.
    pub row_limit: Option<NonZeroU64>,
    /// Rows that the source has counted in it, where its range does not tell how large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_rows: Option<u64>,
}
