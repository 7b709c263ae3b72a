//! A [`PgPartition`] is a slice of the relation, decided before reading.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::PgType;
use crate::model::{Direction, KeyRange, TupleId};

/// How values of a column are compared so that it agrees with how the server sorts them. Nothing in it is looked up on a
/// search path, where there may be an operator that fits better and means something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The type that bounds are cast to, with its schema, quoted for SQL, and without a modifier: under a domain, whose
    /// checks a bound made by arithmetic may fail.
    pub value_type: String,
    /// The type as which the operators read the column and its bounds, where they might be taken for other operators of
    /// their schema otherwise: they are not built in, and declared for another type than the column's.
    pub read_as: Option<String>,
    /// The operators.
    pub operators: Operators,
}

impl Default for Comparison {
    /// Of texts.
    fn default() -> Self {
        Self { value_type: "pg_catalog.text".to_owned(), read_as: None, operators: Operators::default() }
    }
}

/// The operators on which the order of a type rests (its default operator class for B-trees), each with its schema,
/// quoted for SQL: `pg_catalog.<`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the strategies of a B-tree")]
pub struct Operators {
    pub less: String,
    pub less_or_equal: String,
    pub equal: String,
    pub greater_or_equal: String,
    pub greater: String,
}

impl Default for Operators {
    /// Those of built-in types.
    fn default() -> Self {
        let [less, less_or_equal, equal, greater_or_equal, greater] =
            ["<", "<=", "=", ">=", ">"].map(|name| format!("pg_catalog.{name}"));
        Self { less, less_or_equal, equal, greater_or_equal, greater }
    }
}

/// One column of the key by which rows are split and ordered. NULLs come last, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgKeyColumn {
    /// The column's name in the catalog.
    pub name: String,
    /// Its type: bounds are sent as text and are cast to it.
    pub pg_type: PgType,
    /// Its direction.
    pub direction: Direction,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// How its values are compared.
    pub comparison: Comparison,
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
    /// Small leaf tables, each whole and read with `FROM ONLY`, one after the other.
    Leaves {
        /// Index of the first leaf.
        from: usize,
        /// Index behind the last leaf.
        to: usize,
    },
    /// A range of the key.
    Keys(KeyRange),
    /// The rows whose leading key column is NULL: the keys from `Included([None])` on.
    NullKeys,
}

/// A slice with its number: number order is output order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgPartition {
    /// 0, 1, 2, … in output order.
    pub number: u32,
    /// The rows.
    pub slice: Slice,
    /// Whether the rows are read in key order.
    pub ordered: bool,
    /// At most so many rows, for a cap on a relation that has no key to end it.
    pub row_limit: Option<NonZeroU64>,
}
