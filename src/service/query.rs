//! `POST /v1/query/{dataset}/export`: the rows of a dataset as one stream.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, LINK, TRAILER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::access::Caller;
use super::coding::{Coding, takes_trailers};
use super::ending::TRAILERS;
use super::jobs::{JobQuestion, JobView, queue_or_stream};
use super::limits::StreamPermit;
use super::paced::ClientPace;
use super::prefer::responds_async;
use super::problem::{ProblemBody, Refusal};
use super::question::{Question, StreamFormat, tenant_of};
use super::scoped::scope_into;
use super::state::{ExportEnd, ExportRecord, ExportStatus};
use super::stream::{StreamHead, StreamOrder, begin};
use super::{RequestId, ServiceState};
use crate::base::failpoint;
use crate::base::memory::{REQUEST_BODY_BYTES_MAX, REQUEST_BODY_TIMEOUT};
use crate::config::service::{Dataset, DatasetColumn, served_reads};
use crate::export::ExportRequest;
use crate::model::{ColumnChoice, DescribedRelation, Direction, RowCap, RowScope, ScopeCondition};

/// How rows are read that no pages divide.
const ONE_STATEMENT: &str = "read by one statement, which sees the rows of each table as they were when it began";

/// Answers with the rows.
#[utoipa::path(
    post,
    path = "/v1/query/{dataset}/export",
    operation_id = "exportRows",
    params(
        ("dataset" = String, Path, description = "The name of the dataset"),
        ("Prefer" = Option<String>, Header, description = "respond-async queues the export"),
        ("Idempotency-Key" = Option<String>, Header, description = "Of an export that is queued: the same key with the same body is the same export"),
    ),
    request_body = Question,
    responses(
        (status = 200, description = "The rows, as NDJSON or CSV, unless they are to wait", content(
            (String = "application/x-ndjson"),
            (String = "text/csv"),
        )),
        (status = 202, description = "The export is queued, as Prefer asks", body = JobView),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn export(
    State(service): State<Arc<ServiceState>>,
    Path(dataset): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let queued = responds_async(&parts.headers);
    if !queued {
        streamable(parts.version)?;
    }
    let (caller, dataset) = service.admit_query(service.caller(&parts.headers)?, &dataset)?;
    let question = Question::parse(&body_of(body, REQUEST_BODY_BYTES_MAX).await?)?;
    if queued {
        let asked = JobQuestion::background(&dataset.name, question);
        return queue_or_stream(&service, caller, asked, &parts).await;
    }
    stream_of(&service, &caller, dataset, &question, Vec::new(), &parts).await
}

/// Refuses versions whose bodies do not say where they end: that of HTTP/1.0 is the end of its connection, whatever ended
/// it.
///
/// # Errors
/// It is one of them.
pub(crate) fn streamable(version: Version) -> Result<(), Refusal> {
    if version >= Version::HTTP_11 {
        return Ok(());
    }
    let message = "a stream is not sent over HTTP/1.0, which cannot tell its end from a break";
    Err(Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "http_version", message)
        .with_detail("behind nginx: proxy_http_version 1.1;"))
}

/// The stream that answers a question; `conditions` hold besides its filters.
///
/// # Errors
/// The question makes no sense, the caller has as many streams as he may have, or there is nothing to send.
pub(crate) async fn stream_of(
    service: &Arc<ServiceState>,
    caller: &Caller,
    dataset: &Dataset,
    question: &Question,
    conditions: Vec<ScopeCondition>,
    parts: &Parts,
) -> Result<Response, Refusal> {
    let conditions = &conditions;
    let stream = |described: Arc<DescribedRelation>| {
        async move {
            let permit = service.limits.stream(&caller.owner(), dataset.stream_bytes()).await?;
            let scope = question.scope(dataset, &described, caller, conditions)?;
            let rows = (&scope, !described.one_statement, permit);
            let mut order = order(caller, dataset, question, &parts.headers, service.config.limits.first_page, rows)?;
            order.asked_by = parts.extensions.get::<RequestId>().cloned().unwrap_or_default();
            order.pace = ClientPace::of(service, &parts.extensions);
            let promised = order.end_record;
            let head = head(service, dataset, question.format, &order)?;
            let begun = begin(order, Arc::clone(&service.store), service.stop.clone()).await?;
            Ok(response(head, begun, promised))
        }
        .boxed()
    };
    service.by_description(dataset, stream).await.map_err(|refusal| question.blamed(refusal))
}

impl ServiceState {
    /// The dataset, which the caller may use.
    ///
    /// # Errors
    /// There is no such dataset, or the caller may not.
    pub(crate) fn admit(&self, caller: Caller, dataset: &str) -> Result<(Caller, &Dataset), Refusal> {
        let not_found = || Refusal::new(StatusCode::NOT_FOUND, "dataset_not_found", "there is no such dataset");
        let dataset = self.config.datasets.get(dataset).ok_or_else(not_found)?;
        if !caller.may_use(dataset) {
            return Err(Refusal::forbidden("the key does not open this dataset"));
        }
        tenant_of(dataset, &caller)?;
        Ok((caller, dataset))
    }

    /// The same, for all of its rows.
    ///
    /// # Errors
    /// As [`ServiceState::admit`].
    pub(crate) fn admit_query(&self, caller: Caller, dataset: &str) -> Result<(Caller, &Dataset), Refusal> {
        let (caller, dataset) = self.admit(caller, dataset)?;
        if !caller.may_query(dataset) {
            return Err(Refusal::forbidden("the tier does not allow queries of this dataset"));
        }
        Ok((caller, dataset))
    }
}

/// The whole body, within bounds of size and time.
///
/// # Errors
/// It is too large, or too late.
pub(crate) async fn body_of(body: axum::body::Body, most: usize) -> Result<bytes::Bytes, Refusal> {
    let read = timeout(failpoint::limit("request_body", REQUEST_BODY_TIMEOUT), to_bytes(body, most)).await;
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come in time");
    read.map_err(late)?.map_err(|_| {
        let message = format!("the body is larger than {} KiB", most / 1_024);
        Refusal::new(StatusCode::BAD_REQUEST, "input_too_large", message)
    })
}

/// Everything that the stream is made of, before the database is asked anything.
fn order(
    caller: &Caller,
    dataset: &Dataset,
    question: &Question,
    headers: &HeaderMap,
    first_page: Duration,
    (scope, by_pages, permit): (&RowScope, bool, StreamPermit),
) -> Result<StreamOrder, Refusal> {
    let id = format!("{:032x}", rand::random::<u128>());
    let order = question.order(dataset)?;
    let notes = vec![if by_pages { ordering_note(&order) } else { ONE_STATEMENT.to_owned() }];
    let request = request(question, dataset, caller, scope, &id)?;
    let record = ExportRecord {
        id,
        tenant: caller.owner(),
        user: caller.user.clone(),
        dataset: dataset.name.clone(),
        kind: "stream".to_owned(),
        format: question.format.name().to_owned(),
        started_at: Utc::now(),
        finished_at: None,
        end: ExportEnd {
            status: ExportStatus::Streaming,
            rows: None,
            max_rows: caller.max_rows.map(std::num::NonZeroU64::get),
            truncated: false,
            crc64nvme: None,
            bytes: None,
            error: None,
            notes,
        },
    };
    Ok(StreamOrder {
        record,
        request,
        format: Some(question.format),
        coding: Coding::of(headers),
        max_rows: caller.max_rows,
        allow_empty: question.allow_empty,
        end_record: question.end_record && question.format == StreamFormat::Ndjson,
        trailers: takes_trailers(headers),
        first_page,
        pace: ClientPace::default(),
        permit: Some(permit),
        credential: caller.credential.clone(),
        asked_by: RequestId::default(),
        statement: None,
    })
}

/// What pages that are not of one moment may do to rows.
fn ordering_note(order: &[(String, Direction)]) -> String {
    let columns: Vec<&str> = order.iter().map(|(column, _)| column.as_str()).collect();
    let by = if columns.is_empty() { "the key".to_owned() } else { columns.join(", ") };
    format!(
        "read page by page in the order of {by}, and not at one moment: a row whose value of it changed meanwhile may be \
         missing or there twice"
    )
}

/// The export that answers the question.
fn request(
    question: &Question,
    dataset: &Dataset,
    caller: &Caller,
    scope: &RowScope,
    id: &str,
) -> Result<ExportRequest, Refusal> {
    let template = match question.format {
        StreamFormat::Ndjson => dataset.ndjson.clone(),
        StreamFormat::Csv => dataset.csv.clone(),
    };
    let labelled = dataset.labels && question.format == StreamFormat::Csv;
    let mut request = fill(template, labelled, question, dataset, caller, scope)?;
    id.clone_into(&mut request.commit.run_id);
    Ok(request)
}

/// Puts a question into an export of its dataset.
///
/// # Errors
/// It names what is not granted, or has a value that its column cannot have.
pub(crate) fn fill(
    mut request: ExportRequest,
    labelled: bool,
    question: &Question,
    dataset: &Dataset,
    caller: &Caller,
    scope: &RowScope,
) -> Result<ExportRequest, Refusal> {
    let (columns, order) = (question.columns(dataset)?, question.order(dataset)?);
    let shape = &mut request.shape;
    let mut named = Vec::new();
    for (name, column) in columns {
        let written = output_name(name, column, labelled);
        if let Some(expr) = &column.expr {
            shape.expressions.push((written.to_owned(), expr.clone()));
        } else if written != name {
            shape.renames.push((name.to_owned(), written.to_owned()));
        }
        if column.raw && question.format == StreamFormat::Csv {
            request.policies.columns.push((written.to_owned(), ColumnChoice::Raw));
        }
        // An expression stands where its name is listed.
        named.push(if column.expr.is_some() { written } else { name }.to_owned());
    }
    shape.columns = Some(named);
    if !order.is_empty() {
        shape.key = Some(with_key(order, shape.key.take().unwrap_or_default()));
    }
    let mut served = request.work.served.clone().unwrap_or_else(served_reads);
    scope_into(shape, &mut served, dataset, caller, scope)?;
    if request.work.served.is_some() {
        request.work.served = Some(served);
    }
    request.work.cap =
        caller.max_rows.map(|max_rows| RowCap { tier: Some(caller.tier.clone()), max_rows: Some(max_rows) });
    Ok(request)
}

/// The order that is asked for, then the dataset's key, which goes the way of the last column: an index has both then.
fn with_key(mut order: Vec<(String, Direction)>, key: Vec<(String, Direction)>) -> Vec<(String, Direction)> {
    let direction = order.last().map_or(Direction::Asc, |(_, direction)| *direction);
    for (name, _) in key {
        if !order.iter().any(|(ordered, _)| *ordered == name) {
            order.push((name, direction));
        }
    }
    order
}

fn output_name<'a>(name: &'a str, column: &'a DatasetColumn, labelled: bool) -> &'a str {
    column.label.as_deref().filter(|_| labelled).unwrap_or(name)
}

impl StreamFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// The head of the answer, but for what only the first rows tell.
fn head(
    service: &ServiceState,
    dataset: &Dataset,
    format: StreamFormat,
    order: &StreamOrder,
) -> Result<HeaderMap, Refusal> {
    let name = file_name(dataset.filename.as_deref(), order.record.started_at);
    stream_head(service, order, &format!("{name}.{}", format.name()), format.content_type())
}

/// The head of a stream of any kind.
///
/// # Errors
/// A text cannot stand in a header.
pub(crate) fn stream_head(
    service: &ServiceState,
    order: &StreamOrder,
    file: &str,
    content_type: &str,
) -> Result<HeaderMap, Refusal> {
    let id = &order.record.id;
    let status = format!("<{}/v1/exports/{id}>; rel=\"status\"", service.public_path());
    let file = format!("attachment; filename=\"{file}\"");
    let fixed = [
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept-encoding"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut headers: HeaderMap =
        fixed.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    let id_name = HeaderName::from_static("x-outhaul-export-id");
    let made = [(LINK, status.as_str()), (CONTENT_DISPOSITION, &file), (id_name, id), (CONTENT_TYPE, content_type)];
    for (name, value) in made {
        let value = HeaderValue::from_str(value).map_err(|_| Refusal::invalid("a header cannot be written"))?;
        headers.insert(name, value);
    }
    if let Some(coding) = order.coding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    if order.trailers {
        headers.insert(TRAILER, HeaderValue::from_static(TRAILERS));
    }
    Ok(headers)
}

fn response(mut headers: HeaderMap, begun: StreamHead, promised: bool) -> Response {
    let yes = HeaderValue::from_static("true");
    if begun.truncated {
        headers.insert(HeaderName::from_static("x-outhaul-export-truncated-hint"), yes.clone());
    }
    if promised {
        headers.insert(HeaderName::from_static("x-outhaul-export-end-record"), yes);
    }
    (headers, axum::body::Body::new(begun.body)).into_response()
}

/// A file's name that every system takes, without its extension.
pub(crate) fn file_name(wanted: Option<&str>, at: DateTime<Utc>) -> String {
    let mut name = String::new();
    for letter in wanted.unwrap_or_default().chars() {
        if letter.is_ascii_alphanumeric() || "_.-".contains(letter) {
            name.push(letter);
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    if name.chars().any(|letter| letter.is_ascii_alphanumeric()) {
        return name;
    }
    format!("export-{}", at.to_rfc3339_opts(SecondsFormat::Secs, true).replace(':', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_plain() {
        let at = DateTime::UNIX_EPOCH;
        for (wanted, name) in [
            (Some("orders"), "orders"),
            (Some("my orders/2026: \"all\"\r\nX: y"), "my_orders_2026_all_X_y"),
            (Some("größe"), "gr_e"),
            (Some("///"), "export-1970-01-01T000000Z"),
            (None, "export-1970-01-01T000000Z"),
        ] {
            assert_eq!(file_name(wanted, at), name, "{wanted:?}");
        }
    }
}
