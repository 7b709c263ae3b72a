//! `GET /v1/exports/{id}`: how a stream ended, for whom it was.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::ServiceState;
use super::jobs::{self, JobView};
use super::problem::{ProblemBody, Refusal};
use super::state::{ExportRecord, ExportStatus, RecordedError};

/// The stream receipt.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamReceipt {
    id: String,
    kind: String,
    dataset: String,
    format: String,
    /// `streaming`, `complete`, `truncated`, `failed` or `cancelled`.
    #[schema(value_type = String)]
    status: ExportStatus,
    rows: Option<u64>,
    truncated: bool,
    max_rows: Option<u64>,
    /// Of the bytes before any coding, the end record left out.
    crc64nvme: Option<String>,
    /// So many of them.
    bytes: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    started_at: DateTime<Utc>,
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<DateTime<Utc>>,
    /// `code` and `message`.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    error: Option<RecordedError>,
    notes: Vec<String>,
}

impl From<ExportRecord> for StreamReceipt {
    fn from(record: ExportRecord) -> Self {
        let ExportRecord { id, dataset, kind, format, started_at, finished_at, end, .. } = record;
        Self {
            id,
            kind,
            dataset,
            format,
            status: end.status,
            rows: end.rows,
            truncated: end.truncated,
            max_rows: end.max_rows,
            crc64nvme: end.crc64nvme,
            bytes: end.bytes,
            started_at,
            finished_at,
            error: end.error,
            notes: end.notes,
        }
    }
}

/// An export: a job, or the receipt of a stream, whose `kind` is `stream`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ExportView {
    Job(Box<JobView>),
    Stream(Box<StreamReceipt>),
}

/// Answers with a job, or the receipt of a stream. Those of another tenant are not there.
#[utoipa::path(
    get,
    path = "/v1/exports/{id}",
    operation_id = "readExport",
    params(
        ("id" = String, Path, description = "The id of a job, or the X-Outhaul-Export-Id of a stream"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of the job that is known"),
    ),
    responses(
        (status = 200, description = "The job with its ETag, or how the stream ended", body = ExportView),
        (status = 304, description = "The job is the one of If-None-Match"),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn receipt(
    State(service): State<Arc<ServiceState>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers)?;
    let failed = |error| jobs::state(&error);
    let job = service.store.job(id.clone(), caller.owner()).await.map_err(failed)?;
    if let Some(job) = job.filter(|job| jobs::visible(&service, &caller, job)) {
        let view = ExportView::Job(Box::new(JobView::of(&service, &job)));
        return Ok(jobs::answer(&view, job.version, &headers));
    }
    let found = service.store.export(id, caller.owner()).await.map_err(|error| {
        tracing::error!(%error, "a receipt was not read");
        Refusal::state()
    })?;
    let record =
        found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "export_not_found", "there is no such export"))?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(ExportView::Stream(Box::new(record.into())))).into_response())
}
