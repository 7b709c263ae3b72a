//! What a service remembers: how each stream ended, and who asked for it.

mod memory;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;

pub(crate) use memory::MemoryStore;

/// How a stream ended, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExportStatus {
    Streaming,
    Complete,
    Truncated,
    Failed,
    Cancelled,
}

/// Why an export failed, as its caller is told.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct RecordedError {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportRecord {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) user: Option<String>,
    pub(crate) dataset: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    pub(crate) end: ExportEnd,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportEnd {
    pub(crate) status: ExportStatus,
    pub(crate) rows: Option<u64>,
    pub(crate) max_rows: Option<u64>,
    pub(crate) truncated: bool,
    pub(crate) crc64nvme: Option<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) error: Option<RecordedError>,
    pub(crate) notes: Vec<String>,
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[error("the state store: {0}")]
pub(crate) struct StateError(pub(crate) String);

/// Where records are kept.
pub(crate) trait StateStore: Send + Sync + std::fmt::Debug {
    fn begin_export(&self, record: ExportRecord) -> BoxFuture<'_, Result<(), StateError>>;
    fn finish_export(&self, id: String, end: ExportEnd) -> BoxFuture<'_, Result<(), StateError>>;
    fn export(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<ExportRecord>, StateError>>;
}
