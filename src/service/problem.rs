//! What a caller is told of a request that is not answered: `application/problem+json`, without SQL, hosts or values.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind};
use crate::source::without_words_of;

/// A request that is not answered.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// What scripts go by.
    pub(crate) code: &'static str,
    /// One sentence.
    pub(crate) message: String,
    /// What to do, or where in the request it is.
    pub(crate) detail: Option<String>,
    /// Seconds after which the same request may be answered.
    pub(crate) retry_after: Option<u64>,
    /// The source's own code of what is behind it, which no caller is told.
    pub(crate) source_code: Option<String>,
}

/// The body of a refusal.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    r#type: String,
    title: String,
    status: u16,
    /// What scripts go by.
    code: String,
    message: String,
    detail: Option<String>,
    /// By which the log knows it.
    request_id: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, retry_after: None, source_code: None }
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// A request that makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "a valid API key or token is wanted";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message).with_detail("send Authorization: Bearer KEY")
    }

    /// The state store failed; what exactly is in the log.
    pub(crate) fn state() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "state_unavailable", "the service cannot keep its records now")
            .after(5)
    }

    /// An export that failed before its first byte. What it says of the source is for the log.
    pub(crate) fn of_export(error: &ExportError) -> Self {
        let (status, code, message) = told(error);
        let problem = Self { source_code: error.source_code.clone(), ..Self::new(status, code, message) };
        if error.kind.retryable() { problem.after(5) } else { problem }
    }

    /// Whether it may be that a column is none as it was described: it is gone, or has another type, for which there may be no
    /// such operator.
    pub(crate) fn may_be_of_changed_columns(&self) -> bool {
        let of_types = |code: &str| code.len() == 5 && code.starts_with("42");
        let code = self.source_code.as_deref();
        self.code == "source_schema" || self.code == "source_rejected" && code.is_some_and(of_types)
    }

    /// The whole answer, with the id that the log has too.
    pub(crate) fn render(&self, request_id: &str) -> Response {
        let body = ProblemBody {
            r#type: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            message: self.message.clone(),
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
        };
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Refusal {
    /// Carried as it is to the layer that knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What the log says of a failed export: what stands between quotes may be a caller's value, or a row's, and may have quotes
/// in it. A source that quotes as it likes is told by its code alone.
pub(crate) fn without_values(error: &ExportError) -> String {
    match error.source.as_ref().and_then(|cause| without_words_of(cause.as_ref())) {
        Some(words) => format!("{}: {words}", without_quoted(&error.message)),
        None => without_quoted(&error.sentence()),
    }
}

/// The sentence without all that is from its first quote of any kind to its last, or to its end where that is the only one.
fn without_quoted(sentence: &str) -> String {
    let mut quotes = sentence.char_indices().filter(|(at, letter)| is_quote(sentence, *at, *letter));
    let Some((first, quote)) = quotes.next() else { return sentence.to_owned() };
    let before = sentence.get(..first).unwrap_or_default();
    let after = quotes.next_back().and_then(|(last, _)| sentence.get(last + 1..)).unwrap_or_default();
    format!("{before}{quote}…{quote}{after}")
}

/// Whether a character is a quote, and not the apostrophe of `the server's`.
fn is_quote(sentence: &str, at: usize, letter: char) -> bool {
    let is_of_word = |near: Option<char>| near.is_some_and(char::is_alphanumeric);
    let before = sentence.get(..at).and_then(|text| text.chars().next_back());
    let mut behind = sentence.get(at + 1..).unwrap_or_default().chars();
    match letter {
        '"' | '`' => true,
        '\'' => !(is_of_word(before) && behind.next() == Some('s') && !is_of_word(behind.next())),
        _ => false,
    }
}

/// Status, code and sentence of a failed export, which receipts have too.
pub(crate) fn told(error: &ExportError) -> (StatusCode, &'static str, &'static str) {
    use ExportErrorKind as Kind;
    let bad_gateway = StatusCode::BAD_GATEWAY;
    match error.code {
        Some(ErrorCode::KeyNotSelective) => {
            return (bad_gateway, "key_not_selective", "too many rows share one value of what the rows are ordered by");
        }
        Some(ErrorCode::RowTooLarge) => return (bad_gateway, "row_too_large", "a row is larger than may be sent"),
        _ => {}
    }
    match error.kind {
        Kind::SourceAuthentication => (bad_gateway, "source_authentication", "the database refused the service"),
        Kind::SourceUnavailable => (bad_gateway, "source_unavailable", "the database cannot be reached, or was lost"),
        Kind::SnapshotLost => (bad_gateway, "snapshot_lost", "the database's snapshot was lost"),
        Kind::SourceMissing | Kind::SchemaChanged => {
            (bad_gateway, "source_schema", "the dataset is not in the database as it is declared")
        }
        Kind::StatementRejected => (bad_gateway, "source_rejected", "the database rejected the query"),
        Kind::GaveWay => (bad_gateway, "source_busy", "the database was busy, or the query took too long"),
        Kind::Data => (bad_gateway, "source_value", "a value of the dataset cannot be written"),
        Kind::Usage => (StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "the dataset cannot be read as asked"),
        Kind::ReaderGone | Kind::DestinationUnavailable => (bad_gateway, "cancelled", "the client went away"),
        Kind::Interrupted | Kind::Terminated => {
            (StatusCode::SERVICE_UNAVAILABLE, "interrupted", "the service was stopped")
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "an internal error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_logged_whatever_quotes_it_has() {
        for (sentence, logged) in [
            ("the connection was lost", "the connection was lost"),
            (r#"invalid input for type int: "secret""#, r#"invalid input for type int: "…""#),
            (r#"column "id": invalid "my "secret" value" of it"#, r#"column "…" of it"#),
            (r#"value "a"secret"b" is too long"#, r#"value "…" is too long"#),
            (r#"cut off: "secret"#, r#"cut off: "…""#),
            ("Cannot parse string 'secret' as UInt64", "Cannot parse string '…' as UInt64"),
            ("In scope SELECT `a` WHERE note = 'it\\'s secret'", "In scope SELECT `…`"),
            ("x'736563726574' is none", "x'…' is none"),
            ("the server's answer is no text of rows", "the server's answer is no text of rows"),
        ] {
            assert_eq!(without_quoted(sentence), logged);
        }
    }

    #[test]
    fn of_what_clickhouse_says_the_code_is_logged_alone() {
        let said = "Code: 6. DB::Exception: Cannot parse string 'anna@example.com' as UInt64: value 4711 of it: In scope SELECT \
            toUInt64(note) FROM t WHERE note = 'x'. (CANNOT_PARSE_TEXT) (version 26.9.2.1)";
        let refused = crate::source::clickhouse::error::ClickHouseError::of_message(said, None);
        let error = ExportError::from(refused.while_doing("reading partition 3"));
        assert!(error.sentence().contains("anna@example.com"));
        assert_eq!(without_values(&error), "reading partition 3: code 6 (CANNOT_PARSE_TEXT)");
    }
}
