//! The result of a run, for people and as the one JSON line.

use serde::Serialize;

use super::{RowOrder, RowsAvailable, Watermark};

/// How a run that has a manifest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Every row of the request is there.
    Complete,
    /// The cap cut rows off.
    Truncated,
}

/// What a run costs its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct SourceCost {
    /// The most connections that were open at the same time, cancel requests apart.
    pub peak_connections: usize,
    /// Seconds for which the snapshot was held, and with it the server's horizon; none in keyset mode.
    pub snapshot_age_seconds: Option<f64>,
    /// Blocks of heap that were read: those of the plan's ranges, each once. None where an index may have been read
    /// instead: by key, or with a predicate.
    pub heap_blocks_read: Option<u64>,
}

/// How far an incremental export has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WatermarkReport {
    /// The column.
    pub column: String,
    /// Its greatest value that was ever exported.
    pub value: Option<String>,
    /// The run that it went on from; none where all rows are there.
    pub since: Option<String>,
    /// Why all rows are there although there was an export to go on from.
    pub why_full: Option<String>,
}

impl From<&Watermark> for WatermarkReport {
    fn from(watermark: &Watermark) -> Self {
        let Watermark { column, value, since, why_full, .. } = watermark.clone();
        Self { column, value, since, why_full }
    }
}

/// The report of one export.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    /// `complete` or `truncated`.
    pub status: RunStatus,
    /// The run's id.
    pub run_id: String,
    /// What was exported: a relation's name, or `query`.
    pub relation: String,
    /// The destination's URL, without credentials.
    pub destination: String,
    /// The manifest's URL; absent under `--to -` without `--manifest`.
    pub manifest: Option<String>,
    /// Data rows; `None` where the bytes are of a format of the source's own, in which nobody counts rows.
    pub rows: Option<u64>,
    /// The rows that this process read: fewer than `rows` where a run was resumed, none where the work was already done.
    pub rows_read_now: u64,
    /// The bytes that this process wrote.
    pub bytes_written_now: u64,
    /// Parts.
    pub parts: u64,
    /// Bytes of all parts.
    pub bytes: u64,
    /// The cap, where one was given.
    pub max_rows: Option<u64>,
    /// Its tier, where one named it.
    pub tier: Option<String>,
    /// The order by which a cap means "the first N rows".
    pub order: RowOrder,
    /// The names of the key's columns, where `order` is by key; else empty.
    pub key: Vec<String>,
    /// Those of them that descend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub descending: Vec<String>,
    /// How many rows the request has in all, as far as the run knows.
    pub rows_available: RowsAvailable,
    /// The snapshot that every read shared.
    pub snapshot: Option<String>,
    /// Readers.
    pub readers: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// What the run cost the source; absent where this call found the work already done.
    pub source_cost: Option<SourceCost>,
    /// How far an incremental export has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkReport>,
    /// Whether this call found the work already done (`--on-existing skip`, or a `--run-id` that had committed).
    pub already_committed: bool,
    /// Whether the run was to be content with the first rows (`--allow-truncated`, `--limit`).
    #[serde(skip)]
    pub truncation_allowed: bool,
}
