//! An answer's body, read as it comes: rows only, and an end that is known to be one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::super::pace::Pace;
use super::super::{SourceError, SourceFault};
use super::coding::Unpacker;
use super::error::ClickHouseError;
use super::frame::{FrameEnd, FrameProof, FrameScanner};
use super::http::{coding_of, ends_by_itself};
use super::kill::RunningQuery;
use crate::base::cpu::on_rayon;
use crate::base::failpoint;

/// A server cuts an answer that nobody has read for 30 s: one that nobody has read for so long is given up.
const PAUSE_MAX: Duration = Duration::from_secs(20);

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
    pace: Option<Arc<Pace>>,
    /// Bytes of the body that came, as they came.
    received: u64,
    /// In so many pieces, of which none is of two chunks.
    pieces: u64,
}

impl ClickHouseBody {
    pub(super) fn new(
        response: Response<Incoming>,
        doing: &str,
        running: RunningQuery,
        pace: Option<Arc<Pace>>,
    ) -> Result<Self, SourceError> {
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
            pace,
            received: 0,
            pieces: 0,
        })
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the server compressed it.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed
    }

    /// Bytes of the body that have come, compressed where it is.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The number of pieces that they came in: at least as many as there were chunks.
    pub(crate) fn pieces(&self) -> u64 {
        self.pieces
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
            self.in_time(given.elapsed())?;
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
                        let bytes = data.len();
                        self.received = self.received.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
                        self.pieces = self.pieces.saturating_add(1);
                        self.take(data).await?;
                        if let Some(pace) = self.pace.as_ref().filter(|_| !failpoint::off("clickhouse_pace")) {
                            pace.rest(bytes).await;
                        }
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
            let outcome = unpacker.unpack(&data, |bytes| scanner.push(bytes.into(), &mut out));
            (outcome, unpacker, scanner, out)
        };
        let (outcome, unpacker, scanner, out) = on_rayon(work)
            .await
            .map_err(|panic| SourceError::new(SourceFault::Protocol, "unpacking an answer").with_source(panic))?;
        (self.unpacker, self.scanner, self.ready) = (Some(unpacker), Some(scanner), out);
        outcome.map_err(|error| self.cut(None).with_source(error))
    }

    /// The body has ended, as it should or with an error.
    fn end(&mut self, error: Option<hyper::Error>) -> Result<(), SourceError> {
        let Some(mut scanner) = self.scanner.take() else { return Ok(()) };
        // What is packed must have its own end too.
        let ready = &mut self.ready;
        let unpacker = self.unpacker.take();
        let outcome =
            unpacker.is_none_or(|unpacker| unpacker.finish(|bytes| scanner.push(bytes.into(), ready)).is_ok());
        match scanner.finish(error.is_none() && outcome) {
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

    /// Gives an answer up that nobody has read for long: the server cuts it about then, and where a proxy stands between, a
    /// cut answer may end as a whole one does.
    fn in_time(&self, away: Duration) -> Result<(), SourceError> {
        // Once its end is known, nothing can be cut.
        let whole = self.scanner.is_none();
        if whole || away < failpoint::limit("clickhouse_pause", PAUSE_MAX) || failpoint::off("clickhouse_pause") {
            return Ok(());
        }
        let message = format!("{}: nothing was read for {} s, and the answer was given up", self.doing, away.as_secs());
        Err(SourceError::new(SourceFault::Unavailable, message)
            .with_hint("the destination is slow, and ClickHouse cuts an answer that nobody has read for 30 s"))
    }

    /// The connection is lost.
    fn cut(&self, error: Option<hyper::Error>) -> SourceError {
        let failed = SourceError::new(SourceFault::Unavailable, format!("{}: the answer broke off", self.doing));
        match error {
            Some(error) => failed.with_source(error),
            None => failed,
        }
    }
}
