//! ClickHouse over HTTP/1.1: one request on a connection of its own, whose answer is read whole or as it comes.
//!
//! HTTP/2 is not spoken: a server that fails there ends its answer as if all were well.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::super::{SourceError, SourceFault};
use super::coding::{BodyCoding, Unpacker};
use super::error::{ClickHouseError, of_http, of_status};
use super::frame::{FrameEnd, FrameProof, FrameScanner, HELD_BACK};
use super::kill::RunningQuery;
use crate::base::cpu::on_rayon;
use crate::base::failpoint;
use crate::base::http::HttpServer;
use crate::base::postgres::password;
use crate::base::postgres::settings::{ConnectSettings, Password, ServerAddress};
use crate::base::postgres::tls;

/// Bytes of an answer that is read whole.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// A server cuts an answer that nobody has read for 30 s; a reader that was away for so long may find it cut.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Names of settings and parameters, with their values.
pub(crate) type Parameters<'a> = &'a [(&'a str, &'a str)];

/// How a server is reached, and as whom.
#[derive(Debug)]
pub(crate) struct ClickHouseHttp {
    server: HttpServer,
    user: String,
    password: Option<Password>,
    database: String,
    /// What the server is asked to compress answers with.
    coding: Option<BodyCoding>,
    /// How the ids of our own questions begin.
    prefix: String,
    asked: AtomicU64,
}

impl ClickHouseHttp {
    /// The first address of `settings`. The ids of small questions begin with `prefix`.
    ///
    /// # Errors
    /// TLS cannot be prepared, or the address is a Unix socket.
    pub(crate) fn new(
        settings: &ConnectSettings,
        coding: Option<BodyCoding>,
        prefix: String,
    ) -> Result<Self, SourceError> {
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
            prefix,
            asked: AtomicU64::new(0),
        })
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
        parameters: Parameters<'_>,
    ) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        let id = format!("{}-ask-{}", self.prefix, self.asked.fetch_add(1, Ordering::Relaxed));
        let mut running = RunningQuery::new(Arc::clone(self), id.clone());
        let own = [("query_id", id.as_str()), ("default_format", "TabSeparated"), ("wait_end_of_query", "1")];
        let all: Vec<(&str, &str)> = own.iter().chain(parameters).copied().collect();
        let response = self.send(doing, sql, &all, None).await?;
        let answer = whole(response, doing).await?;
        running.ended();
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
        query_id: &str,
        parameters: Parameters<'_>,
    ) -> Result<ClickHouseBody, SourceError> {
        let mut running = RunningQuery::new(Arc::clone(self), query_id.to_owned());
        let all: Vec<(&str, &str)> = [("query_id", query_id)].iter().chain(parameters).copied().collect();
        let response = self.send(doing, sql, &all, self.coding).await?;
        if !response.status().is_success() {
            let error = refused(response, doing).await;
            running.ended();
            return Err(error);
        }
        ClickHouseBody::new(response, doing, running)
    }

    /// Ends a query of ours.
    pub(crate) async fn kill(&self, query_id: &str) -> Result<(), SourceError> {
        let sql = format!("KILL QUERY WHERE query_id = '{query_id}' ASYNC");
        let response = self.send("killing a query", &sql, &[], None).await?;
        whole(response, "killing a query").await.map(drop)
    }

    async fn send(
        &self,
        doing: &str,
        sql: &str,
        parameters: Parameters<'_>,
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
        self.server.send_patiently(request, None).await.map_err(|error| of_http(error, doing))
    }
}

fn header(text: &str, what: &str) -> Result<HeaderValue, SourceError> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        SourceError::new(SourceFault::Usage, format!("{what} has control characters, which HTTP cannot carry"))
    })
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
                let unpacked = unpacker.unpack(&data, |bytes| {
                    scanner.push(bytes.into(), &mut gone);
                    gone.clear();
                });
                if unpacked.is_err() {
                    break;
                }
            }
        }
        gone.clear();
    }
    let tail = scanner.into_held();
    of_status(status, code, &String::from_utf8_lossy(&tail), doing)
}

/// An answer's body, of at most [`ANSWER_MAX`] bytes.
async fn whole(response: Response<Incoming>, doing: &str) -> Result<Vec<u8>, SourceError> {
    if !response.status().is_success() {
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
fn ends_by_itself(response: &Response<Incoming>, doing: &str) -> Result<(), SourceError> {
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
fn coding_of(headers: &HeaderMap) -> Result<Option<BodyCoding>, SourceError> {
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

/// The body of an answer, read as it comes: rows only, never a byte of an error.
#[derive(Debug)]
pub(crate) struct ClickHouseBody {
    headers: HeaderMap,
    body: Incoming,
    unpacker: Option<Box<Unpacker>>,
    packed: bool,
    scanner: Option<FrameScanner>,
    ready: VecDeque<Bytes>,
    proof: Option<FrameProof>,
    running: RunningQuery,
    doing: String,
    /// When somebody last asked for bytes, and was given some.
    given: Option<Instant>,
    /// The longest time between that and the next question.
    pause: Duration,
}

impl ClickHouseBody {
    fn new(response: Response<Incoming>, doing: &str, running: RunningQuery) -> Result<Self, SourceError> {
        ends_by_itself(&response, doing)?;
        let (head, body) = response.into_parts();
        let coding = coding_of(&head.headers)?;
        let failed = |error| SourceError::new(SourceFault::Protocol, "unpacking an answer").with_source(error);
        let unpacker = coding.map(Unpacker::new).transpose().map_err(failed)?.map(Box::new);
        let tag = head.headers.get("X-ClickHouse-Exception-Tag").map(HeaderValue::as_bytes);
        Ok(Self {
            scanner: Some(FrameScanner::new(tag)),
            headers: head.headers,
            body,
            packed: unpacker.is_some(),
            unpacker,
            ready: VecDeque::new(),
            proof: None,
            running,
            doing: doing.to_owned(),
            given: None,
            pause: Duration::ZERO,
        })
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the end of the answer proves, once it has come.
    pub(crate) fn proof(&self) -> Option<FrameProof> {
        self.proof
    }

    /// The next bytes, in pieces as large as they came; `None` where the answer has ended as a whole one does.
    ///
    /// # Errors
    /// The server failed, or the connection is lost. [`ClickHouseBody::rest`] then has the last bytes before.
    ///
    /// # Cancel safety
    /// None: a body whose reading was dropped is to be dropped too.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if let Some(given) = self.given.take() {
            self.pause = self.pause.max(given.elapsed());
        }
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.given = Some(Instant::now());
                return Ok(Some(bytes));
            }
            if self.scanner.is_none() {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.take(data).await?;
                    }
                }
                Some(Err(error)) => return Err(self.end(Some(error)).err().unwrap_or_else(|| self.cut(None))),
                None => self.end(None)?,
            }
        }
    }

    /// The last bytes before an error: rows, or the beginning of one.
    pub(crate) fn rest(&mut self) -> VecDeque<Bytes> {
        std::mem::take(&mut self.ready)
    }

    async fn take(&mut self, data: Bytes) -> Result<(), SourceError> {
        if !self.packed {
            if let Some(scanner) = &mut self.scanner {
                scanner.push(data, &mut self.ready);
            }
            return Ok(());
        }
        let (Some(mut unpacker), Some(mut scanner)) = (self.unpacker.take(), self.scanner.take()) else {
            return Err(SourceError::new(SourceFault::Protocol, "an answer is read whose reading was given up"));
        };
        let mut out = std::mem::take(&mut self.ready);
        let work = move || {
            let unpacked = unpacker.unpack(&data, |bytes| scanner.push(bytes.into(), &mut out));
            (unpacked, unpacker, scanner, out)
        };
        let (unpacked, unpacker, scanner, out) = on_rayon(work)
            .await
            .map_err(|panic| SourceError::new(SourceFault::Protocol, "unpacking an answer").with_source(panic))?;
        (self.unpacker, self.scanner, self.ready) = (Some(unpacker), Some(scanner), out);
        unpacked.map_err(|error| self.cut(None).with_source(error))
    }

    /// The body has ended, as it should or with an error.
    fn end(&mut self, error: Option<hyper::Error>) -> Result<(), SourceError> {
        let Some(mut scanner) = self.scanner.take() else { return Ok(()) };
        // What is packed must have its own end too.
        let unpacked = match self.unpacker.take().map(|unpacker| unpacker.finish()) {
            Some(Ok(bytes)) => {
                scanner.push(bytes.into(), &mut self.ready);
                true
            }
            Some(Err(_)) => false,
            None => true,
        };
        match scanner.finish(error.is_none() && unpacked) {
            FrameEnd::Whole { rest, proof } => {
                self.running.ended();
                self.proof = Some(proof);
                self.ready.extend((!rest.is_empty()).then_some(rest));
                Ok(())
            }
            FrameEnd::Failed { rest, message } => {
                self.running.ended();
                self.ready.extend((!rest.is_empty()).then_some(rest));
                Err(ClickHouseError::of_message(&message, None).while_doing(self.doing.clone()))
            }
            FrameEnd::Cut { rest } => {
                self.ready.extend((!rest.is_empty()).then_some(rest));
                Err(self.cut(error))
            }
        }
    }

    /// The connection is lost, or whoever reads was away for longer than the server waits.
    fn cut(&self, error: Option<hyper::Error>) -> SourceError {
        let doing = &self.doing;
        let failed = if self.pause >= failpoint::limit("clickhouse_pause", PAUSE_MAX) {
            let seconds = self.pause.as_secs();
            let message = format!("{doing}: the server cut its answer, of which nothing was read for {seconds} s");
            SourceError::new(SourceFault::Unavailable, message)
                .with_hint("the destination is slow, and ClickHouse waits 30 s for its readers")
        } else {
            SourceError::new(SourceFault::Unavailable, format!("{doing}: the answer broke off"))
        };
        match error {
            Some(error) => failed.with_source(error),
            None => failed,
        }
    }
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
