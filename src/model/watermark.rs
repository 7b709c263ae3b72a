//! What an incremental export goes by: the watermark that the export before it left, and the one that it leaves itself.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// `--watermark` and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncrementalOptions {
    /// `--watermark`: the column by whose values new rows are found.
    pub column: String,
    /// `--look-back`: how much older than its transaction a value of the column may be.
    pub look_back: Option<Duration>,
    /// `--since`.
    pub since: Since,
    /// `--on-schema-change`.
    pub on_schema_change: OnSchemaChange,
    /// Where a job remembers the export.
    pub state: Option<StatePlace>,
}

/// Which export an incremental one goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// The one that the job remembers; none where nothing remembers one.
    Remembered,
    /// None: all rows are read.
    Nothing,
    /// The one at an address: a manifest, a destination, a run's record or the root of a job.
    At(String),
}

/// What happens where the columns are others than in the export before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSchemaChange {
    /// It is told.
    Report,
    /// The export fails (exit 13).
    Fail,
}

/// Where a job remembers the last export of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePlace {
    /// The folder of all that the job remembers.
    pub folder: String,
    /// What the job calls the export.
    pub name: String,
}

/// What a source is asked for where the export is incremental.
#[derive(Debug, Clone, PartialEq)]
pub struct WatermarkRequest {
    /// The column.
    pub column: String,
    /// How much older than its transaction a value of it may be.
    pub look_back: Option<Duration>,
    /// The export to go on from; without one all rows are read.
    pub since: Option<SinceExport>,
}

/// An export that another one goes on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinceExport {
    /// Its run.
    pub run_id: String,
    /// What it left.
    pub watermark: Watermark,
}

/// What the values of the column count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatermarkScale {
    /// Transactions: the column holds the id of the one that wrote the row.
    Transaction,
    /// Moments, by a clock that needs no zone.
    Instant,
    /// Dates or times of a zone that is not known.
    LocalTime,
    /// Numbers.
    Number,
}

/// What an incremental export goes by, decided under the snapshot before anything is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedWatermark {
    /// The column, by its name at the source.
    pub column: String,
    /// What its values count.
    pub scale: WatermarkScale,
    /// The least transaction that was running under the snapshot.
    #[serde(with = "digits")]
    pub horizon: u64,
    /// When the oldest transaction began that was running, where the source tells; see [`Watermark::oldest_xact_start`].
    pub oldest_xact_start: Option<DateTime<Utc>>,
    /// Whether a prepared transaction was running, whose beginning nobody tells.
    pub prepared: bool,
    /// When the snapshot was taken.
    pub taken_at: DateTime<Utc>,
    /// `--look-back`.
    pub look_back: Option<Duration>,
    /// No row that this export does not see has a value before this moment; none where nobody can say.
    pub floor: Option<DateTime<Utc>>,
    /// Where the rows are.
    pub history: WatermarkHistory,
    /// Columns of the relation by which no two rows are alike; none where there is no such key, or where equal values of it may
    /// be written in several ways.
    pub key: Vec<String>,
    /// The export that this one goes on from.
    pub since: Option<SinceExport>,
    /// Why all rows are read although there was an export to go on from.
    pub why_full: Option<String>,
}

/// By what two exports of one table are told from those of two tables, and from those of two servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkHistory {
    /// `system_identifier` of the server.
    pub system_identifier: Option<String>,
    /// The timeline of its WAL.
    pub timeline: Option<u32>,
    /// The database's OID.
    pub database: Option<u32>,
    /// The relation's OID; none for a query.
    pub relation: Option<u32>,
    /// The WAL position when the snapshot was taken.
    pub lsn: Option<String>,
    /// OIDs of the tables that store the rows: what one holds that is attached later may be older than the horizon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<u32>,
}

/// What an export leaves for the next one (`watermark` of the manifest).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    /// The column, by its name at the source.
    pub column: String,
    /// The greatest value of the column that was ever exported; none where nothing was.
    pub value: Option<String>,
    /// The least transaction that was running under the snapshot: what is not in the export is of this one or a later one.
    #[serde(with = "digits")]
    pub horizon: u64,
    /// No transaction that was running had begun before; none where the source did not tell.
    #[serde(with = "super::micros::optional")]
    pub oldest_xact_start: Option<DateTime<Utc>>,
    /// Seconds by which the next export looks back behind `value`; none where it looks at every row.
    pub look_back: Option<u64>,
    /// When the snapshot was taken.
    #[serde(with = "super::micros")]
    pub taken_at: DateTime<Utc>,
    /// Whether a prepared transaction was running.
    #[serde(default)]
    pub prepared: bool,
    /// The run that this export went on from; none where it has all rows.
    pub since: Option<String>,
    /// Why it has all rows although there was an export to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_full: Option<String>,
    /// Output columns by which no two rows are alike; none where there is no such key.
    #[serde(default)]
    pub key: Vec<String>,
    /// What of the relation was asked for.
    pub selection: AskedColumns,
    /// Where the rows were.
    pub history: WatermarkHistory,
    /// How the columns differ from those of the export before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<SchemaChange>,
}

/// What of a relation was asked for: the next export asks for the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedColumns {
    /// `--columns`; none is all.
    pub columns: Option<Vec<String>>,
    /// `--column`.
    #[serde(default)]
    pub expressions: Vec<(String, String)>,
    /// `--rename`.
    #[serde(default)]
    pub renames: Vec<(String, String)>,
}

/// A column that is another than in the export before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaChange {
    /// Its name in the output.
    pub column: String,
    /// What has become of it.
    pub change: ColumnChange,
}

/// What has become of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnChange {
    /// It was not there.
    Added,
    /// It is there no more.
    Dropped,
    /// It has another type.
    Retyped,
}

/// Numbers that readers of JSON may not hold exactly, as texts.
mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| D::Error::custom("a transaction id is a whole number"))
    }
}
