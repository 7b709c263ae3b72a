//! An answer that is no stream: what the service says of it becomes an error with an exit code.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

use crate::base::{failpoint, voice};
use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind};

/// Bytes of an answer that is no stream.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// How long they may take behind the head.
const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// `application/problem+json`, as far as it is of use.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProblemJson {
    code: Option<String>,
    message: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
}

/// The whole body of a small answer, unless it does not come.
pub(crate) async fn small_body(body: Incoming) -> Option<Vec<u8>> {
    let whole = Limited::new(body, PROBLEM_BYTES_MAX).collect();
    let whole = timeout(failpoint::limit("small_body", BODY_PATIENCE), whole).await.ok()?;
    whole.ok().map(|whole| whole.to_bytes().to_vec())
}

/// The error that an answer stands for.
pub(crate) fn error(status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> ExportError {
    let problem: ProblemJson = body.and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let code = problem.code.as_deref();
    let (kind, reason) = classes(status, code);
    let said = problem.message.as_deref().map(voice::one_line).filter(|message| !message.is_empty());
    let mut message = match &said {
        Some(said) => format!("the service refused: {said}"),
        // A gateway's page tells nothing that a person should read here.
        None => format!("the service, or what stands before it, answered {status}"),
    };
    if let Some(id) = problem.request_id.filter(|id| !id.is_empty()) {
        message = format!("{message} (request {})", voice::one_line(&id));
    }
    let mut error = ExportError::new(kind, message);
    error.code = reason;
    error.hint = problem.detail.as_deref().map(voice::one_line).or_else(|| hint(status, code, headers));
    error
}

fn classes(status: StatusCode, code: Option<&str>) -> (ExportErrorKind, Option<ErrorCode>) {
    use ExportErrorKind as Kind;
    match (status, code) {
        (_, Some("no_data")) => (Kind::Data, None),
        (StatusCode::UNAUTHORIZED, _) => (Kind::SourceAuthentication, Some(ErrorCode::CredentialsRefused)),
        (StatusCode::FORBIDDEN, _) => (Kind::SourceAuthentication, Some(ErrorCode::AccessDenied)),
        (StatusCode::NOT_FOUND | StatusCode::GONE, _) => (Kind::SourceMissing, None),
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::GATEWAY_TIMEOUT, _) => (Kind::GaveWay, None),
        // HTTP/1.0 came to the service: a setting of a proxy, which no second attempt changes.
        (StatusCode::HTTP_VERSION_NOT_SUPPORTED, _) => (Kind::Usage, None),
        (status, _) if status.is_server_error() => (Kind::SourceUnavailable, None),
        _ => (Kind::Usage, None),
    }
}

fn hint(status: StatusCode, code: Option<&str>, headers: &HeaderMap) -> Option<String> {
    if let Some(seconds) = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()) {
        return Some(format!("try again after {} s", voice::one_line(seconds)));
    }
    let hint = match (status, code) {
        (_, Some("no_data")) => "--allow-empty makes no rows an answer",
        (StatusCode::UNAUTHORIZED, _) => "the API key is not known there, or is not valid any more",
        (StatusCode::NOT_FOUND, None) => "is this the URL of `outhaul serve`, without the /v1?",
        (status, _) if status.is_redirection() => "no key is sent on to another address: give the address itself",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> ExportError {
        error(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), Some(body.as_bytes()))
    }

    #[test]
    fn problems_have_classes_and_their_own_words() {
        use ExportErrorKind as Kind;
        let table = [
            (400, "invalid_request", Kind::Usage),
            (401, "unauthorized", Kind::SourceAuthentication),
            (403, "forbidden", Kind::SourceAuthentication),
            (404, "dataset_not_found", Kind::SourceMissing),
            (404, "no_data", Kind::Data),
            (422, "unprocessable", Kind::Usage),
            (429, "too_many", Kind::GaveWay),
            (502, "source_unavailable", Kind::SourceUnavailable),
            (504, "source_timeout", Kind::GaveWay),
            (505, "http_version", Kind::Usage),
            (302, "", Kind::Usage),
        ];
        for (status, code, kind) in table {
            let body = format!(r#"{{"code":"{code}","message":"what it\nsays","detail":"more","request_id":"r1"}}"#);
            let error = refused(status, &body);
            assert_eq!(error.kind, kind, "{status} {code}");
            assert_eq!(error.message, "the service refused: what it says (request r1)");
            assert_eq!(error.hint.as_deref(), Some("more"));
        }
    }

    #[test]
    fn a_page_of_a_gateway_is_not_repeated() {
        let error = refused(502, "<html>\u{1b}[2J</html>");
        assert_eq!(error.message, "the service, or what stands before it, answered 502 Bad Gateway");
        assert!(error.kind.retryable());
        assert!(refused(404, "nothing").hint.unwrap().contains("outhaul serve"));
        assert!(refused(301, "").hint.unwrap().contains("no key is sent on"));
    }
}
