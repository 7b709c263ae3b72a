//! One stream: an export whose bytes are the body of a response, and a record of how it ended.
//!
//! A task of its own owns it: whoever stops waiting, for the head or for the body, only closes a channel. The record is
//! written before the body ends, so that nobody who has seen the end finds it open.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::RequestId;
use super::body::StreamBody;
use super::coding::{Coder, Coding};
use super::ending::{self, StreamOutcome};
use super::late;
use super::limits::StreamPermit;
use super::paced::{ClientPace, PacedSender};
use super::problem::Refusal;
use super::question::StreamFormat;
use super::state::{AuditRecord, ExportEnd, ExportRecord, StateStore};
use crate::base::failpoint;
use crate::base::telemetry::serving;
use crate::export::{ExportError, ExportRequest, Streamed, stream_told};
use crate::model::{ObjectKind, ReadMode, StreamKind};

/// Encoded bytes that may wait for the first page to end, where that page decides on the hint.
const FIRST_PAGE_BYTES: usize = 4 << 20;

/// So long the head waits for the end of a run that the first page may have brought to its cap.
const HINT_PATIENCE: Duration = Duration::from_millis(500);

/// What a stream is made of.
#[derive(Debug)]
pub(crate) struct StreamOrder {
    pub(crate) record: ExportRecord,
    pub(crate) request: ExportRequest,
    /// `None` for bytes as the database writes them.
    pub(crate) format: Option<StreamFormat>,
    pub(crate) coding: Coding,
    pub(crate) max_rows: Option<NonZeroU64>,
    pub(crate) allow_empty: bool,
    pub(crate) end_record: bool,
    pub(crate) trailers: bool,
    pub(crate) first_page: Duration,
    /// What is wanted of the client.
    pub(crate) pace: ClientPace,
    /// What the key is called.
    pub(crate) credential: String,
    pub(crate) asked_by: RequestId,
    /// The caller's own statement, as the audit keeps it. Who wrote it is told what the database says of it.
    pub(crate) statement: Option<String>,
    /// Held to the end.
    pub(crate) permit: Option<StreamPermit>,
}

/// A stream that has begun.
#[derive(Debug)]
pub(crate) struct StreamHead {
    /// Whether it is known already that the cap cuts rows off.
    pub(crate) truncated: bool,
    /// What the bytes are, where there are any.
    pub(crate) kind: Option<ObjectKind>,
    pub(crate) body: StreamBody,
}

/// Starts a stream, and waits until it is known what it is.
///
/// # Errors
/// There are no rows, the source fails before the first one, or it takes too long.
///
/// # Cancel safety
/// Dropped, it stops the stream, whose record then says so.
pub(crate) async fn begin(
    order: StreamOrder,
    store: Arc<dyn StateStore>,
    stop: CancellationToken,
) -> Result<StreamHead, Refusal> {
    let (head, told) = oneshot::channel();
    let (id, kept, max_rows) = (order.record.id.clone(), Arc::clone(&store), order.max_rows);
    let pumping = tokio::spawn(async move {
        let (body, frames) = PacedSender::new(order.pace.clone());
        let mut pump = match Pump::start(order, store, stop, body).await {
            Ok(pump) => pump,
            Err(problem) => return drop(head.send(Err(problem))),
        };
        let outcome = pump.run(head, frames).await;
        pump.end(outcome).await;
    });
    tokio::spawn(async move {
        if pumping.await.is_err() {
            // It has panicked, which the panic hook tells; its body has broken off with it.
            let outcome = StreamOutcome::Failed(ExportError::internal("a stream's task is gone"));
            let end = ending::record(&outcome, None, max_rows);
            if kept.finish_export(id.clone(), end.clone()).await.is_err() {
                late::record(kept, id, end).await;
            }
        }
    });
    told.await.unwrap_or_else(|_| Err(Refusal::of_export(&ExportError::internal("a stream's task is gone"))))
}

type Head = oneshot::Sender<Result<StreamHead, Refusal>>;

/// What moves a stream's bytes.
struct Pump {
    order: StreamOrder,
    store: Arc<dyn StateStore>,
    /// Stops the export.
    stop: CancellationToken,
    chunks: Receiver<Bytes>,
    kind: StreamKind,
    run: JoinHandle<Result<Streamed, ExportError>>,
    body: PacedSender,
    coder: Coder,
    bytes: u64,
    /// Whether the caller has a head.
    answered: bool,
}

/// What the first look finds.
enum First {
    /// Rows, and the run's end where that is known too.
    Rows(Vec<Bytes>, Option<StreamOutcome>),
    /// No rows.
    Empty(Vec<Bytes>, StreamOutcome),
    /// Nothing that could be sent.
    Failed(StreamOutcome),
}

impl Pump {
    async fn start(
        order: StreamOrder,
        store: Arc<dyn StateStore>,
        stop: CancellationToken,
        body: PacedSender,
    ) -> Result<Self, Refusal> {
        let coder = Coder::new(order.coding).map_err(|error| Refusal::of_export(&error))?;
        let (sender, chunks) = channel(1);
        // Nobody listens to the events.
        let (events, _) = channel(1);
        let stop = stop.child_token();
        let kind = StreamKind::default();
        let run = stream_told(order.request.clone(), (sender, kind.clone()), events, stop.clone());
        let run = tokio::spawn(run);
        let (bytes, answered) = (0, false);
        let pump = Self { order, store, stop, chunks, kind, run, body, coder, bytes, answered };
        // While the database is asked already.
        if let Err(error) = pump.store.begin_export(pump.order.record.clone()).await {
            tracing::error!(%error, "a stream was not begun");
            pump.stop.cancel();
            return Err(Refusal::state());
        }
        Ok(pump)
    }

    /// Carries the stream from its first look to its end.
    async fn run(&mut self, mut head: Head, frames: StreamBody) -> StreamOutcome {
        let patience = self.order.first_page;
        let first = tokio::select! {
            () = head.closed() => return StreamOutcome::Cancelled,
            first = timeout(patience, self.first()) => first.unwrap_or(First::Failed(StreamOutcome::TooSlow)),
        };
        let (pieces, known) = match first {
            First::Rows(pieces, known) => (pieces, known),
            First::Empty(pieces, outcome) if self.order.allow_empty => (pieces, Some(outcome)),
            First::Empty(_, outcome) => {
                drop(head.send(Err(ending::no_data())));
                return outcome;
            }
            First::Failed(outcome) => {
                drop(head.send(Err(outcome.problem(self.order.statement.is_some()))));
                return outcome;
            }
        };
        let truncated = known.as_ref().is_some_and(StreamOutcome::is_truncated);
        if head.send(Ok(StreamHead { truncated, kind: self.kind.get().cloned(), body: frames })).is_err() {
            return StreamOutcome::Cancelled;
        }
        self.answered = true;
        for piece in pieces {
            if let Some(outcome) = self.send(piece).await {
                return outcome;
            }
        }
        match known {
            Some(outcome) => outcome,
            None => self.rest().await,
        }
    }

    /// Waits for the first rows, or for the end.
    async fn first(&mut self) -> First {
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut has_rows = false;
        while !has_rows {
            match self.chunks.recv().await {
                Some(piece) => {
                    let is_header = pieces.is_empty() && self.order.format == Some(StreamFormat::Csv);
                    has_rows = !is_header || ending::has_more_than_a_header(&piece);
                    pieces.push(piece);
                }
                None => return ended(self.outcome().await, pieces),
            }
        }
        if !self.first_page_decides() {
            return First::Rows(pieces, None);
        }
        let whole = timeout(HINT_PATIENCE, self.whole_first_page(&mut pieces)).await;
        match whole.unwrap_or_default() {
            Some(StreamOutcome::Done(streamed)) => First::Rows(pieces, Some(StreamOutcome::Done(streamed))),
            // Rows that were read before it broke off are not worth a head that says they are there.
            Some(outcome) => First::Failed(outcome),
            None => First::Rows(pieces, None),
        }
    }

    /// Whether the first page may pass the cap.
    fn first_page_decides(&self) -> bool {
        let ReadMode::Keyset { page_size, .. } = self.order.request.work.read_mode else { return false };
        self.order.max_rows.is_some_and(|max_rows| max_rows <= page_size)
    }

    /// Takes what comes until the end of the run; `None` where that is too much.
    async fn whole_first_page(&mut self, pieces: &mut Vec<Bytes>) -> Option<StreamOutcome> {
        while let Some(piece) = self.chunks.recv().await {
            pieces.push(piece);
            if pieces.iter().map(Bytes::len).sum::<usize>() > FIRST_PAGE_BYTES {
                return None;
            }
        }
        Some(self.outcome().await)
    }

    async fn rest(&mut self) -> StreamOutcome {
        loop {
            // What waits here would be one piece more in memory.
            if let Some(outcome) = self.room().await {
                return outcome;
            }
            let piece = tokio::select! {
                () = self.body.closed() => return StreamOutcome::Cancelled,
                piece = self.chunks.recv() => piece,
            };
            failpoint::blow("pumping");
            let Some(piece) = piece else { return self.outcome().await };
            if let Some(outcome) = self.send(piece).await {
                return outcome;
            }
        }
    }

    /// How the run ended, which has no more to say.
    async fn outcome(&mut self) -> StreamOutcome {
        match (&mut self.run).await {
            Ok(Ok(streamed)) => StreamOutcome::Done(Box::new(streamed)),
            Ok(Err(error)) => StreamOutcome::Failed(error),
            Err(_) => StreamOutcome::Failed(ExportError::internal("the export's task is gone")),
        }
    }

    /// Sends a piece; says how the stream ended where it cannot.
    async fn send(&mut self, piece: Bytes) -> Option<StreamOutcome> {
        self.bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.coded(piece, false).await
    }

    async fn coded(&mut self, piece: Bytes, last: bool) -> Option<StreamOutcome> {
        match self.coder.code(piece, last).await {
            Ok(coded) if coded.is_empty() => None,
            Ok(coded) => self.hand(coded).await,
            Err(error) => Some(StreamOutcome::Failed(error)),
        }
    }

    /// Hands bytes to the connection; says how the stream ended where it cannot.
    async fn hand(&mut self, bytes: Bytes) -> Option<StreamOutcome> {
        let size = bytes.len();
        if let Some(outcome) = self.room().await {
            return Some(outcome);
        }
        if !self.body.hand(bytes).await {
            return Some(StreamOutcome::Cancelled);
        }
        serving::bytes_sent(size);
        None
    }

    /// Waits for room for a piece; says how the stream ended where there is none.
    async fn room(&self) -> Option<StreamOutcome> {
        tokio::select! {
            room = self.body.room() => (!room).then_some(StreamOutcome::Cancelled),
            () = self.stop.cancelled() => Some(StreamOutcome::Failed(ExportError::cancelled())),
        }
    }

    /// Writes down how it ended, then lets the body end, or breaks it off.
    async fn end(mut self, mut outcome: StreamOutcome) {
        let _permit = self.order.permit.take();
        self.stop_unless(&outcome);
        // What is handed to the connection is gone from here; what is not has not been.
        let awaited = self.answered && matches!(outcome, StreamOutcome::Done(_));
        if awaited && let Some(other) = self.room().await {
            outcome = other;
        }
        let mut end = ending::record(&outcome, Some(self.bytes), self.order.max_rows);
        end.notes.clone_from(&self.order.record.end.notes);
        end.notes.extend(outcome.guarded());
        let id = self.order.record.id.clone();
        if self.order.statement.is_some() {
            ending::add_words(&mut end, &outcome);
            outcome.log_code(&id);
        } else {
            outcome.log(&id);
        }
        serving::stream_ended(end.status.name());
        self.audit(&end).await;
        if !self.is_recorded(id, end).await {
            outcome = StreamOutcome::Cancelled;
        }
        let StreamOutcome::Done(streamed) = &outcome else {
            if failpoint::off("abort") {
                self.body.end(None).await;
            }
            // Whoever reads it is gone already, or sees the connection break.
            return;
        };
        let last = if self.order.end_record { ending::end_record(streamed, self.order.max_rows) } else { Bytes::new() };
        let trailers = self.order.trailers.then(|| ending::trailers(streamed, self.order.max_rows));
        if self.coded(last, true).await.is_none() {
            self.body.end(trailers).await;
        }
    }

    /// Whether the store has this end. A body whose record says something else must not end as if it were whole.
    async fn is_recorded(&self, id: String, end: ExportEnd) -> bool {
        match self.store.finish_export(id.clone(), end.clone()).await {
            Ok(true) => true,
            Ok(false) => {
                tracing::error!(export = id, "the record of a stream has another end already");
                false
            }
            Err(error) => {
                tracing::error!(export = id, %error, "the end of a stream was not recorded; that is tried again");
                tokio::spawn(late::record(Arc::clone(&self.store), id, ending::unrecorded(end)));
                false
            }
        }
    }

    /// Notes who had which rows, or how many.
    async fn audit(&self, end: &ExportEnd) {
        let StreamOrder { record, credential, asked_by, statement, .. } = &self.order;
        let entry = AuditRecord {
            at: Utc::now(),
            request_id: asked_by.id.clone(),
            client: asked_by.client.clone(),
            tenant: record.tenant.clone(),
            user: record.user.clone(),
            credential: credential.clone(),
            action: if statement.is_some() { "statement" } else { "export" }.to_owned(),
            dataset: record.dataset.clone(),
            export_id: Some(record.id.clone()),
            outcome: end.status.name().to_owned(),
            rows: end.rows,
            statement: statement.clone(),
        };
        if let Err(error) = self.store.audit(entry).await {
            tracing::error!(%error, "a stream was not audited");
        }
    }

    /// Stops an export whose stream is over. The query that it waits for is cancelled.
    fn stop_unless(&mut self, outcome: &StreamOutcome) {
        if !matches!(outcome, StreamOutcome::Done(_)) {
            self.stop.cancel();
            self.chunks.close();
        }
    }
}

/// What a run has found that ended before its first row.
fn ended(outcome: StreamOutcome, pieces: Vec<Bytes>) -> First {
    match outcome {
        StreamOutcome::Done(streamed) => First::Empty(pieces, StreamOutcome::Done(streamed)),
        outcome => First::Failed(outcome),
    }
}
