//! What the service remembers: how each export ended, who asked for it, and the key with which it signs.
//!
//! One trait: a file for one process, or a database that several share; `conformance.rs` says what every store does. An export
//! is written when it begins and once more when it ends, before its caller sees the end.

#[cfg(test)]
mod conformance;
mod error;
mod jobs;
#[cfg(test)]
mod jobs_conformance;
mod postgres;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::config::service::ServiceConfig;

pub(crate) use error::StateError;
pub(crate) use jobs::{
    Cancelled, ClaimLimits, IdempotencyKey, JobCursor, JobEnd, JobFinish, JobLease, JobProgress, JobRecord, JobStatus,
    JobStore, JobsServed, LeaseState, OutboxMessage, QueueFigures, Submitted,
};
use postgres::PostgresStore;
use sqlite::SqliteStore;

/// Bytes of the key with which bucket keys are signed.
pub(crate) const SIGNING_KEY_BYTES: usize = 32;

/// The code of an export whose process ended before it did.
pub(crate) const INTERRUPTED: &str = "interrupted";

const INTERRUPTED_MESSAGE: &str = "the service stopped before this export had ended";

/// How an export ended, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExportStatus {
    Streaming,
    Complete,
    Truncated,
    Failed,
    Cancelled,
}

impl ExportStatus {
    pub(crate) const ALL: [Self; 5] = [Self::Streaming, Self::Complete, Self::Truncated, Self::Failed, Self::Cancelled];

    /// As records and receipts spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why an export failed, as its caller is told: no SQL, no host name, no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// `stream`.
    pub(crate) kind: String,
    pub(crate) format: String,
    /// By the store's own clock, once it is there.
    pub(crate) started_at: DateTime<Utc>,
    /// None until the store has its end.
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
    /// Of the bytes before any compression, in base64, as in a manifest.
    pub(crate) crc64nvme: Option<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) error: Option<RecordedError>,
    /// What a reader of the rows must know, such as what an order by a column that changes can miss.
    pub(crate) notes: Vec<String>,
}

/// Who asked for what, and what became of it; no value of a row, no filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    /// By the store's own clock, once it is there.
    pub(crate) at: DateTime<Utc>,
    pub(crate) request_id: String,
    /// The address of whoever asked; none where the service acts by itself.
    pub(crate) client: Option<String>,
    pub(crate) tenant: String,
    pub(crate) user: Option<String>,
    /// The name of the key, or the issuer of the token: never the secret.
    pub(crate) credential: String,
    /// `export`, `analyze`, `estimate`, …
    pub(crate) action: String,
    pub(crate) dataset: String,
    pub(crate) export_id: Option<String>,
    /// `complete`, `truncated`, …, or the code of a refusal.
    pub(crate) outcome: String,
    pub(crate) rows: Option<u64>,
    /// The caller's own statement, where he may write one; without its literals unless the operator wants them.
    pub(crate) statement: Option<String>,
}

/// How long what is kept, by the store's own clock: that of one process may be wrong, and what is forgotten is lost to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Exports that have ended.
    pub(crate) exports: Duration,
    /// Audit records.
    pub(crate) audits: Duration,
    /// Messages that are due, and that nobody has sent.
    pub(crate) messages: Duration,
}

/// Where records are kept. What a method has answered is on disk and outlives the process.
///
/// # Cancel safety
/// A record that was handed over is written, whether or not somebody still waits for the answer.
pub(crate) trait StateStore: JobStore {
    /// Records an export before its first byte.
    ///
    /// # Errors
    /// There is one with its id, or the store failed.
    fn begin_export(&self, record: ExportRecord) -> BoxFuture<'_, Result<(), StateError>>;

    /// Records how an export ended, and gives whether this was its end: the first end stays, but for one that other processes
    /// have written because they had not heard of the export's own.
    ///
    /// # Errors
    /// The end is none (`streaming`), or the store failed.
    fn finish_export(&self, id: String, end: ExportEnd) -> BoxFuture<'_, Result<bool, StateError>>;

    /// An export of this tenant; another tenant's is none.
    fn export(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<ExportRecord>, StateError>>;

    /// Adds to the audit.
    fn audit(&self, record: AuditRecord) -> BoxFuture<'_, Result<(), StateError>>;

    /// The newest audit records of a tenant, the newest first.
    fn audits(&self, tenant: String, most: u32) -> BoxFuture<'_, Result<Vec<AuditRecord>, StateError>>;

    /// The key with which bucket keys are signed: made by the first call ever, the same from then on.
    fn signing_key(&self) -> BoxFuture<'_, Result<[u8; SIGNING_KEY_BYTES], StateError>>;

    /// Forgets what is old, and gives how many records went. An export that has not ended is never old, and nothing is where
    /// the store has reason to doubt its clock.
    fn prune(&self, expiry: Expiry) -> BoxFuture<'_, Result<u64, StateError>>;
}

/// Looks whether the database that a file names can be the store, and changes nothing in it; a file of the machine is not
/// looked at.
///
/// # Errors
/// It is not to be had, or not ours.
pub(crate) async fn probe(config: &ServiceConfig) -> Result<(), StateError> {
    match &config.state_url {
        Some(settings) => PostgresStore::probe(settings.clone()).await,
        None => Ok(()),
    }
}

/// Opens the store that a file names.
///
/// # Errors
/// It is not to be had, or not ours.
pub(crate) async fn open(config: &ServiceConfig) -> Result<Arc<dyn StateStore>, StateError> {
    if let Some(settings) = &config.state_url {
        return Ok(Arc::new(PostgresStore::open(settings.clone()).await?));
    }
    let file = config.state.clone();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&file)).await;
    Ok(Arc::new(opened.unwrap_or(Err(StateError::Stopped))?))
}
