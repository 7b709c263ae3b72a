//! One COPY on the borrowed socket: bytes are read on the async thread, framed and decoded on rayon.

mod pipe;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{QUIET_PATIENCE, Session};
use super::decode::{DecodeError, RowKey};
use super::frame::FrameError;
use super::silence::unless_lost;
use super::watch::Watch;
use crate::base::cpu::on_rayon;
use crate::base::postgres::canceller::Canceller;
use crate::base::postgres::low_water::READ_LOW_WATER_BYTES;
use crate::base::postgres::stream::Loan;
use crate::base::{failpoint, memory};
use crate::model::ErrorCode;
use crate::source::postgres::plan::PgColumn;
use crate::source::{Batch, SourceError, SourceFault};
use pipe::{CopyProgress, End, Pipe, StepError};

/// A reader that waits for [`READ_LOW_WATER_BYTES`] takes what there is after so long: at the end of a partition no more
/// come.
const LOW_WATER_PATIENCE: Duration = Duration::from_millis(10);

/// With whole messages at hand, so long a reader waits for the buffer to fill before it hands over what there is: the
/// server sends far more often than this while it has rows.
const FILL_PATIENCE: Duration = Duration::from_millis(20);

/// A COPY under way. Dropped before its end, it closes the socket and asks the server to stop.
#[derive(Debug)]
pub(crate) struct Copy {
    session: Option<Session>,
    watch: Arc<Watch>,
    loan: Option<Loan>,
    canceller: Canceller,
    what: String,
    pipe: Option<Box<Pipe>>,
    /// Batches that are decoded at a time, where so many have come.
    batches_at_once: usize,
    /// Those that are to be handed out, and what came behind them.
    ready: VecDeque<Batch>,
    behind: Option<Result<CopyProgress, StepError>>,
    /// Whether the last read filled the buffer, so that there is more to come.
    flowing: bool,
    /// Whether the socket waits for [`READ_LOW_WATER_BYTES`].
    gathering: bool,
    /// Rows that came before the server refused to go on.
    refused_after: Option<u64>,
    /// Bytes of the rows that have come so far.
    bytes: u64,
}

impl Copy {
    /// Sends the statement on `session`'s socket; it selects `columns` and then what `key` has beside them. Rows behind the
    /// first `cap` are left out. `what` names the partition in errors.
    ///
    /// # Errors
    /// The session is gone, or a column cannot be decoded as planned.
    pub(crate) async fn start(
        session: Session,
        watch: Arc<Watch>,
        statement: &str,
        columns: &Arc<[PgColumn]>,
        key: RowKey,
        cap: Option<NonZeroU64>,
        what: String,
    ) -> Result<Self, SourceError> {
        let pipe = Pipe::new(columns, key, cap, &watch)
            .map_err(|error| SourceError::new(error.fault(), format!("reading {what}")).with_source(error))?;
        let canceller = session.canceller();
        let mut loan = session.lender().lend(QUIET_PATIENCE).await.map_err(|error| {
            SourceError::new(SourceFault::Unavailable, format!("starting to read {what}")).with_source(error)
        })?;
        let lost =
            |error| SourceError::new(SourceFault::Unavailable, format!("starting to read {what}")).with_source(error);
        let request = request(statement).map_err(lost)?;
        let socket = loan.socket().map_err(lost)?;
        socket.write_all(&request).await.map_err(lost)?;
        socket.flush().await.map_err(lost)?;
        Ok(Self {
            session: Some(session),
            watch,
            loan: Some(loan),
            canceller,
            what,
            pipe: Some(Box::new(pipe)),
            batches_at_once: 1,
            ready: VecDeque::new(),
            behind: None,
            flowing: false,
            gathering: false,
            refused_after: None,
            bytes: 0,
        })
    }

    /// Ends with an error at a row that takes more bytes than these.
    #[must_use]
    pub(crate) fn with_rows_of_at_most(mut self, bytes: NonZeroU64) -> Self {
        if let Some(pipe) = &mut self.pipe {
            pipe.row_bytes_max = usize::try_from(bytes.get()).unwrap_or(usize::MAX);
        }
        self
    }

    /// Decodes several batches at a time: whoever takes them says nothing of a batch to the source before the next one.
    #[must_use]
    pub(crate) fn with_batches_at_once(mut self) -> Self {
        self.batches_at_once = memory::BATCHES_AT_ONCE;
        self
    }

    /// Bytes of the rows that have come so far, on the wire.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next batch; `None` after the last, once the server confirmed the number of rows.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the read, as dropping the `Copy` does.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(Batch { is_followed: !self.ready.is_empty(), ..batch }));
            }
            let Some(pipe) = self.pipe.take() else { return Ok(None) };
            let Some(progress) = self.behind.take() else {
                self.advance(pipe).await?;
                continue;
            };
            match progress.map_err(|error| self.failed(error))? {
                // It would be among those that are ready.
                CopyProgress::Batch(batch) => self.ready.push_back(batch),
                CopyProgress::Done(rest) => {
                    self.end(pipe);
                    return Ok(rest);
                }
                CopyProgress::NeedMore => {
                    let pipe = self.fill(pipe).await?;
                    self.pipe = Some(pipe);
                }
            }
        }
    }

    /// Frames and decodes what has been read.
    async fn advance(&mut self, mut pipe: Box<Pipe>) -> Result<(), SourceError> {
        let batches = self.batches_at_once;
        let stepped = on_rayon(move || {
            failpoint::blow("decoding");
            let steps = pipe.steps(batches);
            (pipe, steps)
        });
        let (pipe, (ready, behind)) = stepped.await.map_err(|error| {
            SourceError::new(SourceFault::Protocol, format!("reading {}", self.what)).with_source(error)
        })?;
        if matches!(behind, Some(Err(StepError::Frame(FrameError::Server { .. })))) {
            self.refused_after = Some(pipe.framer.rows());
        }
        self.bytes = pipe.framed_bytes;
        (self.ready, self.behind, self.pipe) = (ready, behind, Some(pipe));
        Ok(())
    }

    /// Gives back what a COPY that has ended well does not need any more.
    fn end(&mut self, pipe: Box<Pipe>) {
        tracing::debug!(rows = pipe.framer.rows(), notices = pipe.framer.notices(), "read");
        // One that a huge row has stretched is not kept.
        if pipe.buffer.len() == memory::READ_BUFFER_BYTES {
            self.watch.buffers().keep(pipe.buffer);
        }
        if let Some(mut loan) = self.loan.take() {
            if let (true, Ok(socket)) = (self.gathering, loan.socket()) {
                socket.wait_for(1);
            }
            loan.give_back();
        }
    }

    /// Whether nothing more comes: all has been handed out.
    pub(crate) fn has_ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// The rows that came before the server refused to go on, where it did.
    pub(crate) fn refused_after(&self) -> Option<u64> {
        self.refused_after
    }

    /// Takes the session back once the COPY has ended well.
    pub(crate) fn into_session(mut self) -> Option<Session> {
        if self.loan.is_none() { self.session.take() } else { None }
    }

    /// Reads until the buffer is full, the COPY's last message may be in it, or nothing comes for a while.
    async fn fill(&mut self, mut pipe: Box<Pipe>) -> Result<Box<Pipe>, SourceError> {
        if let Some(end) = pipe.end.take() {
            return Err(self.lost(pipe, end));
        }
        pipe.make_room();
        let wanted = pipe.framer.needed_bytes();
        let what = &self.what;
        let Some(loan) = &mut self.loan else {
            return Err(SourceError::new(SourceFault::Protocol, format!("reading {what} without a socket")));
        };
        let socket = loan.socket().map_err(|error| {
            SourceError::new(SourceFault::Unavailable, format!("reading {what}: the connection was lost"))
                .with_source(error)
        })?;
        let (action, watch) = (format!("reading {what}"), &self.watch);
        let pid = self.session.as_ref().and_then(Session::pid);
        let ask = || watch.backend(pid);
        let pace = self.watch.pace();
        let mut at_once = false;
        while pipe.end.is_none() && pipe.filled < pipe.buffer.len() && !(pipe.filled >= wanted && pipe.ends_ready()) {
            let filled = pipe.filled;
            if self.flowing && !self.gathering && !at_once {
                socket.wait_for(READ_LOW_WATER_BYTES);
                self.gathering = true;
            }
            let end = pace.map_or(usize::MAX, |pace| filled.saturating_add(pace.chunk())).min(pipe.buffer.len());
            let reading = socket.read(&mut pipe.buffer[filled..end]);
            let read = if self.gathering {
                let Ok(read) = tokio::time::timeout(LOW_WATER_PATIENCE, reading).await else {
                    // There may be no more to come than has gathered.
                    socket.wait_for(1);
                    (self.gathering, at_once) = (false, true);
                    continue;
                };
                read
            } else if filled < wanted {
                // The only wait in which a silent server matters: a slow destination is waited for elsewhere.
                unless_lost(&action, reading, ask).await?
            } else {
                // The last message may have come and not be seen as such, and a slow query's rows are wanted too.
                let Ok(read) = tokio::time::timeout(FILL_PATIENCE, reading).await else { break };
                read
            };
            at_once = false;
            match read {
                Ok(read @ 1..) => {
                    pipe.filled += read;
                    if let Some(pace) = pace {
                        pace.rest(read).await;
                        if pipe.filled >= wanted {
                            break;
                        }
                    }
                }
                Ok(0) => pipe.end = Some(End::Closed),
                Err(error) => pipe.end = Some(End::Broken(error)),
            }
        }
        self.flowing = pipe.filled == pipe.buffer.len();
        Ok(pipe)
    }

    fn lost(&mut self, pipe: Box<Pipe>, end: End) -> SourceError {
        match (pipe.framer.closed(), end) {
            (FrameError::Closed { .. }, End::Broken(error)) => {
                let message = format!("reading {}: the connection was lost", self.what);
                SourceError::new(SourceFault::Unavailable, message).with_source(error)
            }
            (error, _) => self.failed(StepError::Frame(error)),
        }
    }

    fn failed(&mut self, error: StepError) -> SourceError {
        let what = format!("reading {}", self.what);
        match error {
            StepError::Decode(error) => undecoded(what, error),
            StepError::RowTooLarge(_) => SourceError::new(SourceFault::Data, error.to_string())
                .with_reason(ErrorCode::RowTooLarge)
                .with_hint("leave the large column out"),
            StepError::Frame(FrameError::Server { error, .. }) => SourceError::reading(what, (*error).into()),
            StepError::Frame(error) => {
                SourceError::new(error.fault().unwrap_or(SourceFault::Protocol), what).with_source(error)
            }
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let Some(loan) = self.loan.take() else { return };
        drop(loan);
        if let Some(session) = self.session.take() {
            session.discard();
        }
        // The closed socket stops the server at its next send; a sort or a filter would go on until then.
        self.canceller.clone().send();
    }
}

/// A value that cannot be read stands for itself; all else happened while something was read.
fn undecoded(what: String, error: DecodeError) -> SourceError {
    let (fault, hint) = (error.fault(), error.hint());
    let (message, reason) = match fault {
        SourceFault::Data => (error.to_string(), Some(ErrorCode::ValueUnrepresentable)),
        _ => (what, None),
    };
    SourceError { reason, hint, ..SourceError::new(fault, message).with_source(error) }
}

/// Parse, Bind, Execute, Sync of the unnamed statement: by the protocol it can only ever be one statement.
fn request(statement: &str) -> std::io::Result<BytesMut> {
    let mut buffer = BytesMut::new();
    frontend::parse("", statement, [], &mut buffer)?;
    frontend::bind("", "", [], std::iter::empty::<()>(), |(), _| Ok(postgres_protocol::IsNull::Yes), [], &mut buffer)
        .map_err(|error| match error {
        frontend::BindError::Conversion(error) => std::io::Error::other(error),
        frontend::BindError::Serialization(error) => error,
    })?;
    frontend::execute("", 0, &mut buffer)?;
    frontend::sync(&mut buffer);
    Ok(buffer)
}
