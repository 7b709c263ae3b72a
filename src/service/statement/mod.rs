//! `/v1/clickhouse`: the operator's console. A statement goes to the database as it is written, and the answer comes as the
//! database writes it.
//!
//! It is an export like others: the body of the response is its outlet. No cap and no tier apply to it; who may, and as
//! whom the database is asked, stands in `[clickhouse_console]`.

mod redact;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::HeaderMap;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::coding::Coding;
use super::paced::ClientPace;
use super::problem::{ProblemBody, Refusal};
use super::query::{body_of, file_name, stream_head, streamable};
use super::question::parsed;
use super::state::{ExportEnd, ExportRecord, ExportStatus};
use super::stream::{StreamOrder, begin};
use super::{RequestId, ServiceState};
use crate::base::memory::STATEMENT_BODY_BYTES_MAX;
use crate::base::postgres::settings::Secret;
use crate::config::service::{StatementConsole, StatementCredentials};
use crate::export::ExportRequest;
use crate::model::RelationRequest;

/// In it a caller says as whom the database is asked, as `Authorization` says it by `Basic`. It is in no log and no record.
const CREDENTIALS: &str = "x-outhaul-database-authorization";

/// What a console is for the caller.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatementSources {
    /// The sources that take statements of the caller; none where he may send none.
    sources: Vec<String>,
    /// `caller`: each statement comes with X-Outhaul-Database-Authorization. `source`: the service has a user for it.
    #[schema(value_type = String)]
    credentials: &'static str,
}

/// A statement.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Statement {
    /// It goes to the database as it is. Its FORMAT is that of the answer; `TabSeparatedWithNames` unless it has one.
    statement: String,
}

/// Answers with the sources that take statements of the caller.
#[utoipa::path(
    get,
    path = "/v1/clickhouse",
    operation_id = "listStatementSources",
    responses(
        (status = 200, description = "Where the caller may send statements", body = StatementSources),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn sources(
    State(service): State<Arc<ServiceState>>,
    headers: HeaderMap,
) -> Result<Json<StatementSources>, Refusal> {
    let caller = service.caller(&headers)?;
    let console = service.config.console.as_ref().filter(|console| admits(console, &caller));
    let credentials = match console.map(|console| console.credentials) {
        Some(StatementCredentials::Source) => "source",
        Some(StatementCredentials::Caller) | None => "caller",
    };
    let sources = console.map(|console| console.sources.keys().cloned().collect()).unwrap_or_default();
    Ok(Json(StatementSources { sources, credentials }))
}

/// Answers with what the database answers a statement, byte for byte.
#[utoipa::path(
    post,
    path = "/v1/clickhouse/{source}/export",
    operation_id = "exportStatement",
    params(
        ("source" = String, Path, description = "The name of the source"),
        ("X-Outhaul-Database-Authorization" = Option<String>, Header, description = "Basic, and user:password in base64: as whom the database is asked, where the service has no user for it"),
    ),
    request_body = Statement,
    responses(
        (status = 200, description = "The answer of the database in the format of the statement, without a cap", content(
            (String = "text/tab-separated-values"),
            (String = "application/octet-stream"),
        )),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn export(
    State(service): State<Arc<ServiceState>>,
    Path(source): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    streamable(parts.version)?;
    let caller = service.caller(&parts.headers)?;
    let not_found =
        || Refusal::new(StatusCode::NOT_FOUND, "source_not_found", "no source of this name takes statements");
    let console = service.config.console.as_ref().ok_or_else(not_found)?;
    if !admits(console, &caller) {
        return Err(Refusal::forbidden("the key or token may not send statements"));
    }
    let template = console.sources.get(&source).ok_or_else(not_found)?;
    let Statement { statement } = parsed(&body_of(body, STATEMENT_BODY_BYTES_MAX).await?)?;
    if statement.trim().is_empty() {
        return Err(Refusal::invalid("the statement is empty"));
    }
    let kept =
        if console.audit_literals { redact::shortened(&statement) } else { redact::without_literals(&statement) };
    let request = of_statement(template, console, &parts.headers, statement)?;
    let permit = service.limits.stream(&caller.owner(), request.memory_bytes()).await?;
    let order = StreamOrder {
        record: record(&caller, &source, &request),
        request,
        format: None,
        coding: Coding::of(&parts.headers),
        max_rows: None,
        allow_empty: true,
        end_record: false,
        // They tell how many rows came, which nobody counts here.
        trailers: false,
        first_page: console.first_bytes,
        pace: ClientPace::of(&service, &parts.extensions),
        credential: caller.credential.clone(),
        asked_by: parts.extensions.get::<RequestId>().cloned().unwrap_or_default(),
        statement: Some(kept),
        permit: Some(permit),
    };
    answer(&service, &source, order).await
}

/// Whether the caller may send statements: a key by its own name, a token by its user.
fn admits(console: &StatementConsole, caller: &Caller) -> bool {
    let named = |prefix: &str, names: &[String]| {
        caller.own.strip_prefix(prefix).is_some_and(|own| names.iter().any(|name| name == own))
    };
    named("key:", &console.keys) || named("user:", &console.users)
}

/// Begins the stream, and answers with its head.
async fn answer(service: &Arc<ServiceState>, source: &str, order: StreamOrder) -> Result<Response, Refusal> {
    let stem = file_name(Some(source), order.record.started_at);
    // What the bytes are is only known once there are some.
    let mut head = stream_head(service, &order, &stem, "application/octet-stream")?;
    let begun = begin(order, Arc::clone(&service.store), service.stop.clone()).await?;
    if let Some(kind) = &begun.kind {
        let wrong = |_| Refusal::invalid("a header cannot be written");
        let file = format!("attachment; filename=\"{stem}.{}\"", kind.extension());
        for (name, value) in [("content-type", kind.content_type()), ("content-disposition", &file)] {
            head.insert(HeaderName::from_static(name), HeaderValue::from_str(value).map_err(wrong)?);
        }
    }
    Ok((head, axum::body::Body::new(begun.body)).into_response())
}

/// The export of a statement.
fn of_statement(
    template: &ExportRequest,
    console: &StatementConsole,
    headers: &HeaderMap,
    statement: String,
) -> Result<ExportRequest, Refusal> {
    let mut request = template.clone();
    match console.credentials {
        StatementCredentials::Source if headers.contains_key(CREDENTIALS) => {
            return Err(Refusal::invalid("the service asks the database as a user of its own")
                .with_detail("leave X-Outhaul-Database-Authorization out"));
        }
        StatementCredentials::Source => {}
        StatementCredentials::Caller => {
            let (user, password) = database_user(headers)?;
            let source = request.source.as_user(user, password);
            request.source = source.ok_or_else(|| Refusal::invalid("the source takes no user of a caller's"))?;
        }
    }
    request.shape.relation = RelationRequest::Query(statement);
    // The database knows the statement by it too.
    request.commit.run_id = format!("{:032x}", rand::random::<u128>());
    Ok(request)
}

/// As whom the caller wants the database to be asked.
fn database_user(headers: &HeaderMap) -> Result<(String, Secret), Refusal> {
    let wanted = || {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "database_user_required",
            "the database is asked as a user of the caller's",
        )
        .with_detail("send X-Outhaul-Database-Authorization: Basic, and user:password in base64")
    };
    let text = headers.get(CREDENTIALS).and_then(|value| value.to_str().ok()).ok_or_else(wanted)?;
    let (scheme, coded) = text.split_once(' ').ok_or_else(wanted)?;
    let plain = STANDARD.decode(coded.trim()).ok().and_then(|plain| String::from_utf8(plain).ok());
    let plain = plain.filter(|_| scheme.eq_ignore_ascii_case("basic")).ok_or_else(wanted)?;
    let (user, password) = plain.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or_else(wanted)?;
    Ok((user.to_owned(), Secret::new(password.to_owned())))
}

fn record(caller: &Caller, source: &str, request: &ExportRequest) -> ExportRecord {
    ExportRecord {
        id: request.commit.run_id.clone(),
        tenant: caller.owner(),
        user: caller.user.clone(),
        dataset: source.to_owned(),
        kind: "stream".to_owned(),
        format: "source".to_owned(),
        started_at: Utc::now(),
        finished_at: None,
        end: ExportEnd {
            status: ExportStatus::Streaming,
            rows: None,
            max_rows: None,
            truncated: false,
            crc64nvme: None,
            bytes: None,
            error: None,
            notes: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str) -> Result<(String, String), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CREDENTIALS, HeaderValue::from_str(value).unwrap());
        database_user(&headers).map(|(user, password)| (user, password.expose().to_owned()))
    }

    #[test]
    fn a_database_user_comes_with_his_password_and_shows_in_no_refusal() {
        let coded = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(asked(&coded("anna:s3:cret ü")).unwrap(), pair("anna", "s3:cret ü"));
        assert_eq!(asked(&coded("anna:")).unwrap(), pair("anna", ""));
        assert_eq!(asked(&coded("anna:x").replace("Basic", "basic")).unwrap(), pair("anna", "x"));
        for wrong in [coded(":hunter2"), coded("hunter2"), coded("anna:hunter2").replace("Basic", "Bearer"), "x".into()]
        {
            let refusal = asked(&wrong).unwrap_err();
            assert_eq!((refusal.status, refusal.code), (StatusCode::BAD_REQUEST, "database_user_required"));
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
        }
        assert_eq!(database_user(&HeaderMap::new()).unwrap_err().code, "database_user_required");
    }
}
