//! What a source has that could be exported.

use serde::Serialize;

use super::RelationKind;

/// How the rows of a relation would be split between readers, unless an export asks for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitWay {
    /// By place in its files.
    Blocks,
    /// Between the tables that it consists of.
    Tables,
    /// By its key.
    Key,
    /// Not at all: one statement reads it.
    OnePartition,
}

/// What the role may read of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadableRows {
    /// All of it.
    All,
    /// Some of its columns.
    SomeColumns,
    /// The rows that policies let it see.
    SomeRows,
    /// Nothing.
    None,
}

/// A relation that could be exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedRelation {
    /// As `--table` takes it: quoted where that is needed.
    pub table: String,
    /// Its schema's own name.
    pub schema: String,
    /// Its own name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// The table whose partition it is.
    pub part_of: Option<String>,
    /// Tables that hold its rows; none behind a view.
    pub tables: usize,
    /// Its rows by the source's statistics, those of all its tables, where they are known.
    pub estimated_rows: Option<u64>,
    /// The bytes that its tables take, large values stored apart among them; absent where it stores nothing itself.
    pub bytes: Option<u64>,
    /// The unique key without NULLs that orders its rows; empty where it has none.
    pub key: Vec<String>,
    /// How it would be split.
    pub split: SplitWay,
    /// What the role may read of it.
    pub readable: ReadableRows,
}
