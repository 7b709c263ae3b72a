//! What planning hands to reading, in the same room: a [`PgPlan`], of which [`told`](super::told) makes the plan that the
//! other rooms know.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::type_mapping::{is_free_text, values_are_safe};
use super::{Delta, PgKeyColumn, PgPartition, PgType, RelationFacts};
use crate::model::{
    CapPlan, Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, PlannedWatermark, Policies, RelationKind,
};

/// How a value is sent by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// The type's binary send function.
    Binary,
    /// The text of the type's output function; what `COPY … TO` in text form would show.
    OutputText,
    /// `to_json(value)::text`, for values that `row_to_json` writes as anything but a quoted output text.
    JsonText,
}

impl Wire {
    /// What a plan says of it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::OutputText => "output_text",
            Self::JsonText => "json_text",
        }
    }
}

/// One output column, and how the server sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PgColumn {
    /// What all others know of it.
    pub output: ColumnPlan,
    /// Its type.
    pub pg_type: PgType,
    /// How the server sends it.
    pub wire: Wire,
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

/// How one relation is read: what planning and reading agree on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PgPlan {
    /// The relation.
    pub relation: RelationFacts,
    /// The person's predicate, checked, without parentheses around it, with literals in place of
    /// clocks where [`PgPlan::now`] is set.
    pub predicate: Option<String>,
    /// The moment that the clocks in the statement are set to; `None` where it has none, or where they were left alone.
    #[serde(default)]
    pub now: Option<FixedNow>,
    /// Why one statement reads all rows, for people: several statements could give what no single one gives. `None`
    /// where the rows may be split.
    #[serde(default)]
    pub one_statement: Option<String>,
    /// The output columns, in output order.
    pub columns: Vec<PgColumn>,
    /// The key that orders or splits the rows; empty where ctid or nothing does.
    pub key: Vec<PgKeyColumn>,
    /// By what an error names a row: the columns of a key, as far as they are known.
    pub row_key: Vec<RowKeyColumn>,
    /// The cap.
    pub cap: CapPlan,
    /// The places of the columns by which a partition is sorted that has no other order; empty where nothing is gained.
    #[serde(default)]
    pub together: Vec<usize>,
    /// The partitions, numbered from 0 in output order.
    pub partitions: Vec<PgPartition>,
    /// What it takes of the server's lock table.
    #[serde(default)]
    pub locks: LockUse,
    /// What an incremental export goes by.
    #[serde(default)]
    pub watermark: Option<PlannedWatermark>,
    /// The rows that are read of it, where not all are.
    #[serde(default)]
    pub delta: Option<Delta>,
}

impl PgColumn {
    /// A column of the relation, or of its key, that is written as it is.
    pub(crate) fn plain(name: &str, pg_type: PgType, wire: Wire, carrier: Carrier) -> Self {
        let output = ColumnPlan {
            name: name.to_owned(),
            origin: ColumnOrigin::Column(name.to_owned()),
            type_name: pg_type.name.clone(),
            sent_as: wire.word().to_owned(),
            may_show: values_are_safe(&pg_type),
            free_text: is_free_text(&pg_type, &carrier),
            carrier,
            nullable: true,
            policies: Policies::default(),
            policy: "lossless".to_owned(),
            ordered: false,
            rewritten: false,
            text_varies: false,
            shared_name: None,
            note: None,
            statistics: ColumnStatistics::default(),
        };
        Self { output, pg_type, wire }
    }
}

impl PgPlan {
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
