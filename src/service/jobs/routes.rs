//! The list of a tenant's exports, and the end of one before its time.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::access::Caller;
use super::super::problem::{ProblemBody, Refusal};
use super::super::state::{AuditRecord, Cancelled, JobCursor, JobRecord, StateError};
use super::super::{RequestId, ServiceState};
use super::sweep::{expire, over};
use super::view::JobView;
use crate::base::telemetry::serving;

const LISTED: u32 = 50;
const LISTED_MAX: u32 = 200;

/// Exports in the background, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobList {
    exports: Vec<JobView>,
    /// What `cursor` is for the next ones; none at the end.
    next: Option<String>,
}

/// Which of them.
#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    cursor: Option<String>,
    limit: Option<u32>,
}

pub(crate) fn state(error: &StateError) -> Refusal {
    tracing::error!(%error, "the queue was not asked");
    Refusal::state()
}

fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "export_not_found", "there is no such export")
}

/// Whether the caller may see the job: a key that does not open its dataset sees none.
pub(crate) fn visible(service: &ServiceState, caller: &Caller, job: &JobRecord) -> bool {
    service.config.datasets.get(&job.dataset).is_some_and(|dataset| caller.may_use(dataset))
}

pub(crate) async fn found(service: &ServiceState, caller: &Caller, id: &str) -> Result<JobRecord, Refusal> {
    let job = service.store.job(id.to_owned(), caller.owner()).await.map_err(|error| state(&error))?;
    job.filter(|job| visible(service, caller, job)).ok_or_else(not_found)
}

/// Lists exports.
#[utoipa::path(
    get,
    path = "/v1/exports",
    operation_id = "listExports",
    params(
        ("cursor" = Option<String>, Query, description = "What the last list said in next"),
        ("limit" = Option<u32>, Query, description = "Exports at most"),
    ),
    responses(
        (status = 200, description = "The newest first", body = JobList),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Arc<ServiceState>>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers)?;
    let Query(ListQuery { cursor, limit }) = query.map_err(|_| Refusal::invalid("limit is a number"))?;
    let after = cursor.map(|text| cursor_of(&text).ok_or_else(|| Refusal::invalid("cursor: take it from next")));
    let most = limit.unwrap_or(LISTED).clamp(1, LISTED_MAX);
    let jobs = service.store.jobs(caller.owner(), after.transpose()?, most).await.map_err(|error| state(&error))?;
    let full = u32::try_from(jobs.len()).is_ok_and(|length| length == most);
    let next = jobs.last().filter(|_| full).map(|job| format!("{}.{}", job.created_at.timestamp_micros(), job.id));
    let seen = jobs.iter().filter(|job| visible(&service, &caller, job));
    let exports = seen.map(|job| JobView::of(&service, job)).collect();
    Ok(([(CACHE_CONTROL, "no-store")], Json(JobList { exports, next })).into_response())
}

fn cursor_of(text: &str) -> Option<JobCursor> {
    let (micros, id) = text.split_once('.')?;
    Some(JobCursor { created_at: DateTime::from_timestamp_micros(micros.parse().ok()?)?, id: id.to_owned() })
}

/// Cancels an export that is live, and removes one that is ready: its links are void at once.
#[utoipa::path(
    delete,
    path = "/v1/exports/{id}",
    operation_id = "cancelExport",
    params(("id" = String, Path, description = "The export")),
    responses(
        (status = 200, description = "It is over", body = JobView),
        (status = 202, description = "It is being cancelled", body = JobView),
        (status = 409, description = "It is being committed: ask again in seconds", body = ProblemBody, content_type = "application/problem+json"),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(
    State(service): State<Arc<ServiceState>>,
    Path(id): Path<String>,
    asked_by: Extension<RequestId>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers)?;
    found(&service, &caller, &id).await?;
    let cancelled = service.store.cancel(id.clone(), caller.owner()).await.map_err(|error| state(&error))?;
    let (status, job) = match cancelled.ok_or_else(not_found)? {
        Cancelled::Committing(_) => {
            let message = "the export is being committed";
            return Err(Refusal::new(StatusCode::CONFLICT, "committing", message).after(2));
        }
        Cancelled::Live(job) if job.status.is_final() => {
            serving::job_ended(job.status.name());
            (StatusCode::OK, job)
        }
        Cancelled::Live(job) => (StatusCode::ACCEPTED, job),
        Cancelled::Final(job) if job.status.is_ready() => {
            let expired = expire(&service, &job).await.map_err(|error| state(&error))?;
            // Where somebody was faster, it is over all the same.
            (StatusCode::OK, expired.unwrap_or_else(|| over(job)))
        }
        Cancelled::Final(job) => (StatusCode::OK, job),
    };
    let entry = AuditRecord {
        request_id: asked_by.0.id,
        client: asked_by.0.client,
        ..entry(&job, caller.user, caller.credential, "cancel")
    };
    note(&service, entry).await;
    Ok((status, [(CACHE_CONTROL, "no-store")], Json(JobView::of(&service, &job))).into_response())
}

/// Notes what the service itself did with a job.
pub(super) async fn audit(
    service: &ServiceState,
    job: &JobRecord,
    user: Option<String>,
    credential: String,
    action: &str,
) {
    note(service, entry(job, user, credential, action)).await;
}

/// What there is to note of a job, without an address.
pub(crate) fn entry(job: &JobRecord, user: Option<String>, credential: String, action: &str) -> AuditRecord {
    AuditRecord {
        at: Utc::now(),
        request_id: job.request_id.clone(),
        client: None,
        tenant: job.tenant.clone(),
        user,
        credential,
        action: action.to_owned(),
        dataset: job.dataset.clone(),
        export_id: Some(job.id.clone()),
        outcome: job.status.name().to_owned(),
        rows: job.status.is_ready().then_some(job.progress.rows),
        statement: None,
    }
}

pub(crate) async fn note(service: &ServiceState, entry: AuditRecord) {
    if let Err(error) = service.store.audit(entry).await {
        tracing::error!(%error, "an audit record was lost");
    }
}
