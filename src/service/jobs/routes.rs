//! The list of a tenant's exports, the end of one before its time, and how one goes on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ServiceState;
use super::super::access::Caller;
use super::super::problem::{ProblemBody, Refusal};
use super::super::state::{AuditRecord, Cancelled, JobCursor, JobRecord, StateError};
use super::super::webhooks::{WebhookEvent, messages};
use super::view::JobView;
use crate::base::telemetry::serving;

const LISTED: u32 = 50;
const LISTED_MAX: u32 = 200;

/// Between two looks at a job that somebody follows.
const BETWEEN_EVENTS: Duration = Duration::from_secs(1);

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

async fn found(service: &ServiceState, caller: &Caller, id: &str) -> Result<JobRecord, Refusal> {
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
        Cancelled::Final(job) if job.status.is_ready() => (StatusCode::OK, expire(&service, job).await?),
        Cancelled::Final(job) => (StatusCode::OK, job),
    };
    audit(&service, &job, caller.user.clone(), caller.credential.clone(), "cancel").await;
    Ok((status, [(CACHE_CONTROL, "no-store")], Json(JobView::of(&service, &job))).into_response())
}

/// Makes an export expired, now.
pub(super) async fn expire(service: &ServiceState, job: JobRecord) -> Result<JobRecord, Refusal> {
    let mut after = job.clone();
    after.status = super::super::state::JobStatus::Expired;
    after.revocation = after.revocation.saturating_add(1);
    let told = messages(&service.config.webhooks, &service.links, WebhookEvent::Expired, &after);
    let expired = service.store.expire(job.id.clone(), told).await.map_err(|error| state(&error))?;
    if let Some(expired) = &expired {
        serving::job_ended(expired.status.name());
    }
    Ok(expired.unwrap_or(after))
}

pub(super) async fn audit(
    service: &ServiceState,
    job: &JobRecord,
    user: Option<String>,
    credential: String,
    action: &str,
) {
    let entry = AuditRecord {
        at: Utc::now(),
        request_id: job.request_id.clone(),
        tenant: job.tenant.clone(),
        user,
        credential,
        action: action.to_owned(),
        dataset: job.dataset.clone(),
        export_id: Some(job.id.clone()),
        outcome: job.status.name().to_owned(),
        rows: job.status.is_ready().then_some(job.progress.rows),
    };
    if let Err(error) = service.store.audit(entry).await {
        tracing::error!(%error, "an audit record was lost");
    }
}

/// What `data` of an event is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobEvent {
    #[schema(value_type = String)]
    status: super::super::state::JobStatus,
    processed_rows: u64,
    bytes: u64,
    parts: u64,
    /// Of the estimate; none without one.
    percent: Option<u64>,
    eta_seconds: Option<u64>,
}

impl JobEvent {
    fn of(job: &JobRecord) -> Self {
        let done = job.progress.rows;
        let expected = job.estimated_rows.map(|rows| job.max_rows.map_or(rows, |most| most.min(rows)));
        let percent = expected.filter(|rows| *rows > 0).map(|rows| (done.saturating_mul(100) / rows).min(99));
        let elapsed = job.started_at.map(|at| (Utc::now() - at).num_seconds().max(0).unsigned_abs());
        let eta_seconds = expected.zip(elapsed).filter(|_| done > 0 && !job.status.is_final());
        let eta_seconds = eta_seconds.map(|(rows, spent)| spent.saturating_mul(rows.saturating_sub(done)) / done);
        let percent = if job.status.is_ready() { Some(100) } else { percent };
        let super::super::state::JobProgress { rows, bytes, parts, .. } = job.progress;
        Self { status: job.status, processed_rows: rows, bytes, parts, percent, eta_seconds }
    }
}

/// How an export goes on, as server-sent events; the last has a final status.
#[utoipa::path(
    get,
    path = "/v1/exports/{id}/events",
    operation_id = "followExport",
    params(
        ("id" = String, Path, description = "The export"),
        ("Last-Event-ID" = Option<u64>, Header, description = "What is known already"),
    ),
    responses(
        (status = 200, description = "Events, whose data is JSON", body = JobEvent, content_type = "text/event-stream"),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn events(
    State(service): State<Arc<ServiceState>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers)?;
    let job = found(&service, &caller, &id).await?;
    let known = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let permit = service.limits.stream(&caller.owner(), 0).await?;
    let follow = Follow { service, job: Some(job), known, owner: caller.owner(), id, _permit: permit };
    let events = unfold(follow, |mut follow| async move { Some((Ok::<_, Infallible>(follow.next().await?), follow)) });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

/// Somebody who follows a job.
struct Follow {
    service: Arc<ServiceState>,
    /// What was found at the start; none once that is told, or once the end is.
    job: Option<JobRecord>,
    /// The version that he has.
    known: Option<u64>,
    owner: String,
    id: String,
    _permit: super::super::limits::StreamPermit,
}

impl Follow {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let job = self.job.take()?;
            let fresh = self.known.is_none_or(|known| job.version > known);
            if !job.status.is_final() {
                // The next look.
                let (store, stop) = (&self.service.store, &self.service.stopping);
                if !fresh {
                    tokio::select! {
                        () = stop.cancelled() => return None,
                        () = tokio::time::sleep(BETWEEN_EVENTS) => {}
                    }
                }
                self.job = store.job(self.id.clone(), self.owner.clone()).await.ok()?;
            }
            if fresh {
                self.known = Some(job.version);
                return Event::default().id(job.version.to_string()).json_data(JobEvent::of(&job)).ok();
            }
        }
    }
}
