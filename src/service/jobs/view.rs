//! A job, as its caller sees it.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::super::ServiceState;
use super::super::state::{JobRecord, JobStatus, RecordedError};
use super::super::tags::is_known;
use crate::base::text::number::hex_text;

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobView {
    id: String,
    /// `queued`, `running`, `cancelling`, `complete`, `truncated`, `failed`, `cancelled` or `expired`.
    #[schema(value_type = String)]
    status: JobStatus,
    /// As it was asked for: `auto` or `background`.
    mode: String,
    attempt: u32,
    dataset: String,
    format: String,
    compression: String,
    /// Rows that it is expected to have; none where nobody knows.
    estimated_rows: Option<u64>,
    estimated_minutes: Option<u64>,
    /// Of this attempt.
    processed_rows: u64,
    /// Once it is known.
    rows: Option<u64>,
    max_rows: Option<u64>,
    truncated: bool,
    bytes: u64,
    parts: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: DateTime<Utc>,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<DateTime<Utc>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    completed_at: Option<DateTime<Utc>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<DateTime<Utc>>,
    /// A link that needs no key, once the files can be had.
    download_url: Option<String>,
    requested_by: Option<String>,
    /// `code` and `message`: of the end, or of the last attempt.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    error: Option<RecordedError>,
}

impl JobView {
    pub(crate) fn of(service: &ServiceState, job: &JobRecord) -> Self {
        let job = job.clone();
        Self {
            download_url: service.links.download_url(&job),
            rows: job.status.is_ready().then_some(job.progress.rows),
            id: job.id,
            status: job.status,
            mode: job.mode,
            attempt: job.attempt,
            dataset: job.dataset,
            format: job.format,
            compression: job.compression,
            estimated_rows: job.estimated_rows,
            estimated_minutes: job.estimated_minutes,
            processed_rows: job.progress.rows,
            max_rows: job.max_rows,
            truncated: job.truncated,
            bytes: job.progress.bytes,
            parts: job.progress.parts,
            created_at: job.created_at,
            started_at: job.started_at,
            completed_at: job.completed_at,
            expires_at: job.expires_at,
            requested_by: job.user,
            error: job.error,
        }
    }
}

/// The job with its tag, or that it is the one that the caller has.
pub(crate) fn answer(view: &impl Serialize, version: u64, headers: &HeaderMap) -> Response {
    let body = serde_json::to_vec(view).unwrap_or_default();
    let digest = Sha256::digest(&body);
    let tag = format!("\"{version}-{}\"", &hex_text(&digest)[..16]);
    let fixed: [(HeaderName, String); 2] = [(CACHE_CONTROL, "no-store".to_owned()), (ETAG, tag.clone())];
    if is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    (fixed, [(CONTENT_TYPE, "application/json")], body).into_response()
}
