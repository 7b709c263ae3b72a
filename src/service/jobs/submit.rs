//! `POST /v1/exports`: an export in the background, or a stream where that is small enough.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::super::access::Caller;
use super::super::analyze;
use super::super::estimate::{self, minutes};
use super::super::prefer::responds_async;
use super::super::problem::{ProblemBody, Refusal};
use super::super::query::{body_of, file_name, stream_of, streamable};
use super::super::question::{DateRange, Filter, OrderBy, Question, parsed};
use super::super::state::{AuditRecord, IdempotencyKey, JobProgress, JobRecord, JobStatus, Submitted};
use super::super::webhooks::Telling;
use super::super::{RequestId, ServiceState};
use super::order::{JobFormat, JobOrder, compression};
use super::routes::{entry, note};
use super::view::JobView;
use crate::base::memory::{ANSWER_BYTES, SIGNED_BODY_BYTES_MAX};
use crate::config::service::Dataset;
use crate::model::{CountedRows, ScopeCondition};

/// What `auto` streams at most.
const STREAMED_ROWS_MAX: u64 = 50_000;

const KEYS_KEPT: Duration = Duration::from_hours(24);

const KEY_BYTES_MAX: usize = 255;

/// Seconds after which it is worth asking again.
const RETRY_SECONDS: u64 = 2;

/// Where an export goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobMode {
    /// A stream of at most 50,000 rows, unless they cannot be counted in time, or the caller has as many streams as he may
    /// have, or they come with an `Idempotency-Key`, or are to be Parquet; else in the background.
    #[default]
    Auto,
    Stream,
    Background,
}

/// The body: a query of a dataset, or the rows of a bucket.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobQuestion {
    #[schema(required = true)]
    dataset: String,
    mode: JobMode,
    format: JobFormat,
    /// `none`, `gzip`, `zstd`; for Parquet `snappy` and `lz4` too.
    compression: Option<String>,
    /// With `bucket_key`.
    analysis: Option<String>,
    bucket_key: Option<String>,
    #[schema(required = true)]
    columns: Vec<String>,
    r#where: Vec<Filter>,
    date_range: Option<DateRange>,
    order_by: Vec<OrderBy>,
    allow_empty: bool,
    end_record: bool,
}

impl JobQuestion {
    /// A query of a dataset that is to wait its turn.
    pub(crate) fn background(dataset: &str, question: Question) -> Self {
        let Question { format, columns, r#where, date_range, order_by, allow_empty, end_record } = question;
        let (dataset, mode, format) = (dataset.to_owned(), JobMode::Background, format.into());
        Self {
            dataset,
            mode,
            format,
            columns,
            r#where,
            date_range,
            order_by,
            allow_empty,
            end_record,
            ..Self::default()
        }
    }

    /// The same for the rows of a bucket.
    pub(crate) fn of_bucket(self, analysis: String, bucket_key: Option<String>) -> Self {
        Self { analysis: Some(analysis), bucket_key, ..self }
    }
}

/// Queues an export, or streams it.
#[utoipa::path(
    post,
    path = "/v1/exports",
    operation_id = "submitExport",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is the same export, for 24 hours"),
        ("Prefer" = Option<String>, Header, description = "respond-async makes mode auto background"),
    ),
    request_body = JobQuestion,
    responses(
        (status = 200, description = "The rows, where the mode is stream, or auto and they are few", content(
            (String = "application/x-ndjson"),
            (String = "text/csv"),
        )),
        (status = 202, description = "The export is queued", body = JobView),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn submit(State(service): State<Arc<ServiceState>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    // Nobody learns of a body's faults, or of a dataset, without a key.
    let caller = service.caller(&parts.headers)?;
    let asked: JobQuestion = parsed(&body_of(body, SIGNED_BODY_BYTES_MAX).await?)?;
    queue_or_stream(&service, caller, asked, &parts).await
}

/// The answer to a question whose mode is told, of whatever endpoint.
///
/// # Errors
/// The question makes no sense, the caller may not ask it, or has as many exports as he may have.
pub(crate) async fn queue_or_stream(
    service: &Arc<ServiceState>,
    caller: Caller,
    asked: JobQuestion,
    parts: &Parts,
) -> Result<Response, Refusal> {
    let body_sha256: [u8; 32] = Sha256::digest(serde_json::to_vec(&asked).unwrap_or_default()).into();
    let key = idempotency_key(&parts.headers, body_sha256)?;
    // What the body says is more than a preference.
    let preferred = asked.mode != JobMode::Stream && responds_async(&parts.headers);
    let mode = if preferred { JobMode::Background } else { asked.mode };
    let (format, codec) = (asked.format, compression(asked.compression.as_deref(), asked.format)?);
    let analysis = asked.analysis.clone();
    let (caller, dataset, question, conditions) = judged(service, caller, asked).await?;
    question.columns(dataset)?;
    question.order(dataset)?;
    let counted = match mode {
        JobMode::Stream => None,
        JobMode::Auto | JobMode::Background => counted(service, &caller, dataset, &question, &conditions).await,
    };
    let few = matches!(counted, Some(CountedRows::Exact(rows)) if rows <= STREAMED_ROWS_MAX);
    if mode == JobMode::Stream || (mode == JobMode::Auto && few && format.streamed().is_some() && key.is_none()) {
        if format.streamed().is_none() {
            return Err(Refusal::invalid("format: Parquet is not streamed; ask for it in the background"));
        }
        streamable(parts.version)?;
        return stream_of(service, &caller, dataset, &question, conditions, parts).await;
    }
    let order = JobOrder {
        question,
        format,
        compression: codec,
        analysis,
        conditions,
        tenant: caller.tenant.clone(),
        user: caller.user.clone(),
        tier: caller.tier.clone(),
    };
    let job = record(service, &caller, dataset, mode, &order, counted, parts)?;
    let submitted = service.store.submit(job, key, service.config.jobs.queued_per_tenant).await.map_err(|error| {
        tracing::error!(%error, "an export was not queued");
        Refusal::state()
    })?;
    match submitted {
        Submitted::Queued(job) => {
            service.job_queued.notify_one();
            audit_queued(service, &job, caller, parts).await;
            Ok(accepted(service, &job, preferred))
        }
        Submitted::Known(job) => Ok(accepted(service, &job, preferred)),
        Submitted::OtherBody => {
            let message = "this Idempotency-Key was used for another request";
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message))
        }
        Submitted::TooMany => {
            let message = "too many exports are queued";
            Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message).after(60))
        }
    }
}

/// Notes who queued a job, and from where: how it ends is noted by whoever ends it.
async fn audit_queued(service: &ServiceState, job: &JobRecord, caller: Caller, parts: &Parts) {
    let client = parts.extensions.get::<RequestId>().and_then(|request| request.client.clone());
    note(service, AuditRecord { client, ..entry(job, caller.user, caller.credential, "queue") }).await;
}

/// Who asks for which rows.
async fn judged(
    service: &ServiceState,
    caller: Caller,
    asked: JobQuestion,
) -> Result<(Caller, &Dataset, Question, Vec<ScopeCondition>), Refusal> {
    let mut question = Question {
        format: asked.format.streamed().unwrap_or_default(),
        columns: asked.columns,
        r#where: asked.r#where,
        date_range: asked.date_range,
        order_by: asked.order_by,
        allow_empty: asked.allow_empty,
        end_record: asked.end_record,
    };
    let Some(analysis) = asked.analysis else {
        if asked.bucket_key.is_some() {
            return Err(Refusal::invalid("analysis: bucket_key is of one"));
        }
        let (caller, dataset) = service.admit_query(caller, &asked.dataset)?;
        return Ok((caller, dataset, question, Vec::new()));
    };
    if !question.r#where.is_empty() || question.date_range.is_some() {
        return Err(Refusal::invalid("where, date_range: those of the bucket are in its key"));
    }
    let admitted = service.admit_analysis(caller, &asked.dataset, &analysis)?;
    let bucket = analyze::bucket_of(service, admitted, asked.bucket_key).await?;
    question.r#where = bucket.r#where;
    question.date_range = bucket.date_range;
    Ok((bucket.caller, bucket.dataset, question, bucket.conditions))
}

/// How many rows there are, where that is known in time, and the caller may have one stream more, whose place the count
/// takes: nothing else depends on it.
async fn counted(
    service: &ServiceState,
    caller: &Caller,
    dataset: &Dataset,
    question: &Question,
    conditions: &[ScopeCondition],
) -> Option<CountedRows> {
    let _permit = service.limits.stream(&caller.owner(), ANSWER_BYTES).await.ok()?;
    estimate::counted(service, caller, dataset, (question, conditions), STREAMED_ROWS_MAX + 1).await.ok()
}

/// How many rows the export will have, where somebody knows: a count that was broken off is none, but where the cap is
/// within it.
fn expected(counted: CountedRows, max_rows: Option<u64>) -> Option<u64> {
    match (counted, max_rows) {
        (CountedRows::AtLeast(rows), Some(most)) => (most <= rows).then_some(most),
        (CountedRows::AtLeast(_), None) => None,
        (CountedRows::Exact(rows) | CountedRows::Estimate(rows), most) => {
            Some(most.map_or(rows, |most| most.min(rows)))
        }
    }
}

fn record(
    service: &ServiceState,
    caller: &Caller,
    dataset: &Dataset,
    mode: JobMode,
    order: &JobOrder,
    counted: Option<CountedRows>,
    parts: &Parts,
) -> Result<JobRecord, Refusal> {
    let id = format!("{:032x}", rand::random::<u128>());
    let request = serde_json::to_string(order).map_err(|_| Refusal::invalid("the request cannot be kept"))?;
    let now = Utc::now();
    let max_rows = caller.max_rows.map(NonZeroU64::get);
    let estimated_rows = counted.and_then(|counted| expected(counted, max_rows));
    Ok(JobRecord {
        destination: format!("{}/{id}", service.config.destination_of(dataset)),
        id,
        tenant: caller.owner(),
        user: caller.user.clone(),
        credential: caller.credential.clone(),
        request_id: parts.extensions.get::<RequestId>().cloned().unwrap_or_default().id,
        dataset: dataset.name.clone(),
        mode: if mode == JobMode::Auto { "auto" } else { "background" }.to_owned(),
        request,
        format: order.format.name().to_owned(),
        compression: order.compression.name().to_owned(),
        file_name: file_name(dataset.filename.as_deref(), now),
        status: JobStatus::Queued,
        attempt: 0,
        forgiven: 0,
        max_rows,
        estimated_rows,
        estimated_minutes: estimated_rows.map(minutes),
        tier: Some(order.tier.clone()),
        telling: Telling::of(&service.config),
        overdue: false,
        progress: JobProgress::default(),
        truncated: false,
        created_at: now,
        started_at: None,
        claimed_at: None,
        completed_at: None,
        expires_at: None,
        error: None,
        revocation: 0,
        version: 1,
    })
}

fn idempotency_key(headers: &HeaderMap, body_sha256: [u8; 32]) -> Result<Option<IdempotencyKey>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let wrong = || Refusal::invalid(format!("Idempotency-Key is a text of at most {KEY_BYTES_MAX} characters"));
    let key = value.to_str().map_err(|_| wrong())?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(wrong());
    }
    Ok(Some(IdempotencyKey { key: key.to_owned(), body_sha256, keep: KEYS_KEPT }))
}

fn accepted(service: &ServiceState, job: &JobRecord, preferred: bool) -> Response {
    let location = format!("{}/v1/exports/{}", service.public_path(), job.id);
    let mut response = (StatusCode::ACCEPTED, Json(JobView::of(service, job))).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(LOCATION, location);
    }
    headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if preferred {
        headers.insert(HeaderName::from_static("preference-applied"), HeaderValue::from_static("respond-async"));
    }
    response
}
