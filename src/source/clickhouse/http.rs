//! ClickHouse over HTTP/1.1: one request on a connection of its own, whose answer is read whole or as it comes.
//!
//! HTTP/2 is not spoken: a server that fails there ends its answer as if all were well.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, SERVER, TRANSFER_ENCODING, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::super::pace::Pace;
use super::super::{SourceError, SourceFault};
use super::body::ClickHouseBody;
use super::coding::Unpacker;
use super::error::{ClickHouseError, of_status};
use super::frame::{FrameEnd, FrameScanner, HELD_BACK};
use super::kill::{QueryName, RunningQuery};
use super::names::literal;
use super::prepare::{prefix, query_id};
use super::unreached::of_http;
use crate::base::http::{BodyCoding, CodingChoice, HttpServer};
use crate::base::postgres::password;
use crate::base::postgres::settings::{ConnectSettings, Password, ServerAddress};
use crate::base::postgres::tls;

/// Bytes of an answer that is read whole.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// What the system keeps of an answer that is read at a pace: where it keeps much, the server waits for longer than it has
/// patience until there is room for more.
const PACED_BUFFER_BYTES: usize = 64 * 1024;

/// Names of settings and parameters, with their values.
pub(crate) type QuestionParameters<'a> = &'a [(&'a str, &'a str)];

/// How a server is reached, and as whom.
#[derive(Debug)]
pub(crate) struct ClickHouseHttp {
    server: HttpServer,
    user: String,
    password: Option<Password>,
    database: String,
    /// Whether the server is asked to compress answers.
    coding: CodingChoice,
    /// What showed in an answer that something stands between.
    between: OnceLock<String>,
    /// How fast answers may be read, all together, where that is limited.
    pace: Option<Arc<Pace>>,
    /// How the ids of our own questions begin.
    prefix: String,
    /// Queries that run now.
    running: AtomicUsize,
    /// The most that ran at the same time.
    peak: AtomicUsize,
}

impl ClickHouseHttp {
    /// The first address of `settings`. The ids of small questions begin as those of the run `run_id` do.
    ///
    /// # Errors
    /// TLS cannot be prepared, or the address is a Unix socket.
    pub(crate) fn new(settings: &ConnectSettings, coding: CodingChoice, run_id: &str) -> Result<Self, SourceError> {
        let Some(ServerAddress::Tcp { host, port }) = settings.addresses.first() else {
            return Err(SourceError::new(SourceFault::Usage, "ClickHouse is reached at a host and a port"));
        };
        let tls = tls::client_config(settings)
            .map_err(|error| SourceError::new(SourceFault::Authentication, "preparing TLS").with_source(error))?;
        Ok(Self {
            server: HttpServer::at(host, *port, tls),
            user: settings.user.clone(),
            password: settings.password.clone(),
            database: settings.database.clone(),
            coding,
            between: OnceLock::new(),
            pace: None,
            prefix: prefix(run_id),
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        })
    }

    /// Answers that are streamed are read no faster than this, all together.
    pub(crate) fn paced(self, rate: Option<NonZeroU64>) -> Self {
        match rate {
            Some(rate) => {
                Self { pace: Some(Arc::new(Pace::new(rate))), server: self.server.keeping(PACED_BUFFER_BYTES), ..self }
            }
            None => self,
        }
    }

    /// The most connections that were open at the same time.
    pub(crate) fn peak_connections(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// What shows that something stands between, as far as anything was answered.
    pub(crate) fn between(&self) -> Option<&str> {
        self.between.get().map(String::as_str)
    }

    /// What answers that are streamed are compressed with. Where something stands between, that has an end which nobody but
    /// the server can have written.
    pub(crate) fn coding(&self) -> Option<BodyCoding> {
        match self.coding {
            CodingChoice::Plain => None,
            CodingChoice::Packed(coding) => Some(coding),
            CodingChoice::AsNeeded => self.between().map(|_| BodyCoding::Zstd),
        }
    }

    pub(super) fn opened(&self) {
        let running = self.running.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.peak.fetch_max(running, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Asks, and reads the answer whole: rows of values, where `None` is NULL. The statement must have no FORMAT.
    ///
    /// # Errors
    /// The server refuses, cannot be reached, fails, or answers more than is kept.
    ///
    /// # Cancel safety
    /// Dropping the future kills the query.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        doing: &str,
        sql: &str,
        parameters: QuestionParameters<'_>,
    ) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        let id = query_id(&self.prefix, "ask");
        let mut running = RunningQuery::new(Arc::clone(self), QueryName::unique(id.clone()));
        let own = [("query_id", id.as_str()), ("default_format", "TabSeparated"), ("wait_end_of_query", "1")];
        let all: Vec<(&str, &str)> = own.iter().chain(parameters).copied().collect();
        let response = self.send(doing, sql, &all, None).await?;
        let answer = whole(response, doing).await?;
        running.ended();
        if std::str::from_utf8(&answer).is_err() {
            let message = format!("{doing}: a text of the answer is not UTF-8");
            return Err(SourceError::new(SourceFault::Data, message));
        }
        rows(&answer).ok_or_else(|| {
            SourceError::new(SourceFault::Protocol, format!("{doing}: the server's answer is no text of rows"))
        })
    }

    /// Asks, and gives the answer once its head is there, which may take as long as the server computes.
    ///
    /// # Errors
    /// The server refuses, cannot be reached, or fails before its first row.
    ///
    /// # Cancel safety
    /// Dropping the future, or the body, kills the query.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        doing: &str,
        sql: &str,
        name: &QueryName,
        parameters: QuestionParameters<'_>,
    ) -> Result<ClickHouseBody, SourceError> {
        let mut running = RunningQuery::new(Arc::clone(self), name.clone());
        let all: Vec<(&str, &str)> = [("query_id", name.id.as_str())].iter().chain(parameters).copied().collect();
        let response = self.send(doing, sql, &all, self.coding()).await?;
        if is_refusal(&response) {
            let error = refused(response, doing).await;
            running.ended();
            return Err(error);
        }
        ClickHouseBody::new(response, doing, running, self.pace.clone())
    }

    /// Ends a query of ours.
    pub(crate) async fn kill(&self, name: &QueryName) -> Result<(), SourceError> {
        self.tell_to_kill(&name.kill()).await
    }

    /// Ends the queries whose ids begin so, whoever asked them.
    pub(super) async fn kill_all(&self, prefix: &str) -> Result<(), SourceError> {
        self.tell_to_kill(&format!("KILL QUERY WHERE startsWith(query_id, {}) ASYNC", literal(prefix))).await
    }

    async fn tell_to_kill(&self, sql: &str) -> Result<(), SourceError> {
        let response = self.send("killing a query", sql, &[], None).await?;
        whole(response, "killing a query").await.map(drop)
    }

    async fn send(
        &self,
        doing: &str,
        sql: &str,
        parameters: QuestionParameters<'_>,
        coding: Option<BodyCoding>,
    ) -> Result<Response<Incoming>, SourceError> {
        let mut path = format!("/?database={}", escaped(&self.database));
        for (name, value) in parameters {
            let _ = write!(path, "&{}={}", escaped(name), escaped(value));
        }
        if coding.is_some() {
            path.push_str("&enable_http_compression=1");
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.server.authority())
            .header("X-ClickHouse-User", header(&self.user, "the user's name")?)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8");
        if let Some(password) = &self.password {
            let secret = password::current(password)
                .await
                .map_err(|error| SourceError::new(SourceFault::Authentication, error.to_string()))?;
            let mut key = header(secret.expose(), "the password")?;
            key.set_sensitive(true);
            request = request.header("X-ClickHouse-Key", key);
        }
        if let Some(coding) = coding {
            request = request.header(ACCEPT_ENCODING, coding.name());
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(sql.as_bytes()))).map_err(|error| {
            SourceError::new(SourceFault::Protocol, format!("{doing}: the request cannot be written"))
                .with_source(error)
        })?;
        let response = self.server.send_patiently(request, None).await.map_err(|error| of_http(error, doing))?;
        if let Some(sign) = stands_between(&response) {
            self.between.get_or_init(|| sign);
        }
        Ok(response)
    }
}

fn header(text: &str, what: &str) -> Result<HeaderValue, SourceError> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        SourceError::new(SourceFault::Usage, format!("{what} has control characters, which HTTP cannot carry"))
    })
}

/// What in an answer shows that it is not as the server sent it: a server has no such header, and answers in the version
/// that it was asked in.
fn stands_between(response: &Response<Incoming>) -> Option<String> {
    let cached = HeaderName::from_static("x-cache");
    let shown = [VIA, SERVER, AGE, cached].into_iter().find_map(|name| {
        let value = response.headers().get(&name)?;
        Some(format!("{name}: {}", value.to_str().unwrap_or("?")))
    });
    shown.or_else(|| (response.version() == Version::HTTP_10).then(|| "HTTP/1.0".to_owned()))
}

/// As it stands in the query of a URL.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The error's number by the answer's header.
fn code_of(headers: &HeaderMap) -> Option<u32> {
    headers.get("X-ClickHouse-Exception-Code")?.to_str().ok()?.parse().ok()
}

/// Whether an answer is an error by its head. A proxy may make a success of a refusal, whose number it leaves.
fn is_refusal(response: &Response<Incoming>) -> bool {
    !response.status().is_success() || code_of(response.headers()).is_some_and(|code| code != 0)
}

/// What an answer says that is an error by its status: the end of its body, since megabytes of rows may stand before it.
async fn refused(response: Response<Incoming>, doing: &str) -> SourceError {
    let (status, code) = (response.status(), code_of(response.headers()));
    let coding = coding_of(response.headers());
    let mut body = response.into_body();
    let (mut scanner, mut gone) = (FrameScanner::new(None), VecDeque::new());
    let mut unpacker = match coding.map(|coding| coding.map(Unpacker::new)) {
        Ok(Some(Ok(unpacker))) => Some(unpacker),
        Ok(None) => None,
        Ok(Some(Err(_))) | Err(_) => return of_status(status, code, "", doing),
    };
    // What comes until it breaks is all that it says.
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        match &mut unpacker {
            None => scanner.push(data, &mut gone),
            Some(unpacker) => {
                let outcome = unpacker.unpack(&data, |bytes| {
                    scanner.push(bytes.into(), &mut gone);
                    gone.clear();
                });
                if outcome.is_err() {
                    break;
                }
            }
        }
        gone.clear();
    }
    // However it ended: what has come may tell.
    let _ = unpacker.map(|unpacker| unpacker.finish(|bytes| scanner.push(bytes.into(), &mut gone)));
    let tail = scanner.into_held();
    of_status(status, code, &String::from_utf8_lossy(&tail), doing)
}

/// An answer's body, of at most [`ANSWER_MAX`] bytes.
async fn whole(response: Response<Incoming>, doing: &str) -> Result<Vec<u8>, SourceError> {
    if is_refusal(&response) {
        return Err(refused(response, doing).await);
    }
    ends_by_itself(&response, doing)?;
    let tag = response.headers().get("X-ClickHouse-Exception-Tag").map(|tag| tag.as_bytes().to_vec());
    let mut body = response.into_body();
    let mut answer: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| SourceError::new(SourceFault::Unavailable, doing).with_source(error))?;
        let Ok(data) = frame.into_data() else { continue };
        if answer.len().saturating_add(data.len()) > ANSWER_MAX {
            return Err(SourceError::new(SourceFault::Protocol, format!("{doing}: the answer is larger than is kept")));
        }
        answer.extend_from_slice(&data);
    }
    // A server that buffers has a status for its errors. One before 24.11 that does not has only the text.
    let end = answer.len().saturating_sub(HELD_BACK);
    let mut scanner = FrameScanner::new(tag.as_deref());
    scanner.push(Bytes::copy_from_slice(answer.get(end..).unwrap_or_default()), &mut VecDeque::new());
    match scanner.finish(true) {
        FrameEnd::Whole { .. } => Ok(answer),
        FrameEnd::Failed { message, .. } => Err(ClickHouseError::of_message(&message, None).while_doing(doing)),
        FrameEnd::Cut { .. } => Err(SourceError::new(SourceFault::Unavailable, format!("{doing}: the answer is cut"))),
    }
}

/// # Errors
/// The answer has neither a length nor chunks, so that nobody can tell its end from a lost connection.
pub(super) fn ends_by_itself(response: &Response<Incoming>, doing: &str) -> Result<(), SourceError> {
    let headers = response.headers();
    let told = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if told || response.status() == http::StatusCode::NO_CONTENT {
        return Ok(());
    }
    let message =
        format!("{doing}: the answer has neither a length nor chunks, so that its end cannot be told from a cut");
    Err(SourceError::new(SourceFault::Protocol, message)
        .with_hint("a proxy that speaks HTTP/1.0 stands before the server: go around it"))
}

/// # Errors
/// It is one that we did not ask for.
pub(super) fn coding_of(headers: &HeaderMap) -> Result<Option<BodyCoding>, SourceError> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
    let name = value.to_str().unwrap_or("?");
    match (name, BodyCoding::of_name(name)) {
        ("identity", _) => Ok(None),
        (_, Some(coding)) => Ok(Some(coding)),
        _ => Err(SourceError::new(SourceFault::Protocol, "the answer has an encoding that nobody asked for")),
    }
}

/// Rows of `TabSeparated`; `None` where they are not.
fn rows(answer: &[u8]) -> Option<Vec<Vec<Option<String>>>> {
    let text = std::str::from_utf8(answer).ok()?;
    let lines = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() {
        return Some(Vec::new());
    }
    lines.split('\n').map(|line| line.split('\t').map(value).collect()).collect()
}

/// One value: NULL, or its text without escapes; `None` where an escape is none.
#[expect(clippy::option_option, reason = "the outer one is whether it is a value, the inner one whether that is NULL")]
fn value(written: &str) -> Option<Option<String>> {
    if written == "\\N" {
        return Some(None);
    }
    let mut out = String::with_capacity(written.len());
    let mut characters = written.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => match characters.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'r' => '\r',
                'n' => '\n',
                't' => '\t',
                '0' => '\0',
                other => other,
            },
            other => other,
        });
    }
    Some(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_text_are_values_and_nulls() {
        let text = |value: &str| Some(value.to_owned());
        assert_eq!(rows(b"").unwrap(), Vec::<Vec<Option<String>>>::new());
        assert_eq!(rows(b"a\t\\N\n\t\\\\N\n").unwrap(), [vec![text("a"), None], vec![text(""), text("\\N")]]);
        assert_eq!(rows(b"a\\tb\\nc\\'\n").unwrap(), [vec![text("a\tb\nc'")]]);
        assert_eq!(rows(b"\xff\n"), None);
        assert_eq!(rows(b"a\\"), None);
    }

    #[test]
    fn what_a_person_writes_stays_one_value_of_a_url() {
        assert_eq!(escaped("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(escaped("a&b=ü\n"), "a%26b%3D%C3%BC%0A");
    }
}
