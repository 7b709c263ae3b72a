//! The lendable stream: a session's socket, which the driver uses until COPY borrows it and again afterwards.
//!
//! `tokio_postgres` hands COPY data from task to task in 8 KiB pieces, which costs more than decoding them. So the
//! driver speaks over a [`SessionStream`]; while the session is quiet (the last message was `ReadyForQuery`, nothing
//! was written since) its [`Lender`] gives out the socket itself as a [`Loan`]. The driver sees a stream on which
//! nothing arrives. A loan that is dropped instead of given back closes the session: it was left mid-protocol.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::{certificate, low_water};

/// The socket itself.
#[derive(Debug)]
pub(crate) enum RawStream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl RawStream {
    /// From now on a read waits until `bytes` have come, or the end; best effort, and with TLS they are its bytes.
    /// Whoever asks for more than one byte must be ready for a wait in vain.
    pub(crate) fn wait_for(&self, bytes: usize) {
        let socket = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        };
        if let Err(error) = low_water::set(socket, bytes) {
            tracing::debug!(%error, "the socket wakes at every byte");
        }
    }
}

macro_rules! on_raw {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            RawStream::Tcp($stream) => $call,
            RawStream::Unix($stream) => $call,
            RawStream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for RawStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_raw!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_raw!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_raw!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_raw!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Follows the messages that the driver reads, so that "quiet" is known rather than assumed.
#[derive(Debug, Default)]
struct Tracker {
    /// Message header bytes seen so far: a type byte and a 4-byte length.
    header: [u8; 5],
    header_len: usize,
    /// Bytes of the current message's body still to come.
    body: usize,
    /// Whether the last whole message was `ReadyForQuery` and nothing was written since.
    quiet: bool,
    /// Whether the single byte that answers an `SSLRequest` is still to come.
    ssl_answer: bool,
}

impl Tracker {
    fn read(&mut self, mut bytes: &[u8]) {
        if self.ssl_answer && !bytes.is_empty() {
            self.ssl_answer = false;
            bytes = &bytes[1..];
        }
        while let Some((&first, rest)) = bytes.split_first() {
            if self.body > 0 {
                let step = self.body.min(bytes.len());
                self.body -= step;
                bytes = &bytes[step..];
            } else {
                self.header[self.header_len] = first;
                self.header_len += 1;
                bytes = rest;
                if self.header_len < self.header.len() {
                    continue;
                }
                let [_, a, b, c, d] = self.header;
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                self.body = length.saturating_sub(4);
                self.header_len = 0;
            }
            if self.body == 0 && self.header_len == 0 {
                match self.header[0] {
                    b'Z' => self.quiet = true,
                    // Asynchronous messages may come at any time and change nothing.
                    b'N' | b'S' | b'A' => {}
                    _ => self.quiet = false,
                }
            }
        }
    }

    fn may_lend(&self) -> bool {
        self.quiet && self.header_len == 0 && self.body == 0
    }
}

#[derive(Debug)]
enum SocketState {
    /// The driver has the socket.
    Home(RawStream),
    /// COPY has it.
    Lent,
    /// It never connected: the driver's first write gets this error, and so does whoever asked for the session.
    Failed(Option<io::Error>),
    /// A loan was dropped mid-protocol.
    Closed,
}

#[derive(Debug)]
struct StreamState {
    place: SocketState,
    tracker: Tracker,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamState {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<StreamState>,
    became_quiet: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, StreamState> {
        // Every update of the state is complete when the guard drops, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct SessionStream(Arc<Shared>);

/// The means to borrow the socket of one session.
#[derive(Debug, Clone)]
pub(crate) struct Lender(Arc<Shared>);

/// The borrowed socket.
#[derive(Debug)]
pub(crate) struct Loan {
    raw: Option<RawStream>,
    shared: Arc<Shared>,
}

/// The session did not become quiet: the driver still waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is busy or closed")]
pub(crate) struct NotQuiet;

impl SessionStream {
    /// A connected socket; `ssl_answer` where the driver will ask the server for TLS first.
    pub(crate) fn new(raw: RawStream, ssl_answer: bool) -> Self {
        Self::with(SocketState::Home(raw), ssl_answer)
    }

    /// A socket that could not be connected. The driver's error carries `error` as its source.
    pub(crate) fn failed(error: io::Error) -> Self {
        Self::with(SocketState::Failed(Some(error)), false)
    }

    fn with(place: SocketState, ssl_answer: bool) -> Self {
        let tracker = Tracker { ssl_answer, ..Tracker::default() };
        let state = StreamState { place, tracker, reader: None, writer: None };
        Self(Arc::new(Shared { state: Mutex::new(state), became_quiet: Notify::new() }))
    }

    pub(crate) fn lender(&self) -> Lender {
        Lender(Arc::clone(&self.0))
    }

    /// Takes the TCP socket for a TLS handshake; [`SessionStream::secured`] puts the result in its place.
    pub(crate) fn take_tcp(&self) -> io::Result<TcpStream> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut state.place, SocketState::Closed) {
            SocketState::Home(RawStream::Tcp(stream)) => Ok(stream),
            _ => Err(io::Error::other("TLS needs a TCP connection")),
        }
    }

    /// What binds the password's proof to this connection, where it has TLS and its certificate has such a thing.
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        match &self.0.lock().place {
            SocketState::Home(RawStream::Tls(stream)) => {
                certificate::end_point(stream.get_ref().1.peer_certificates()?.first()?)
            }
            _ => None,
        }
    }

    pub(crate) fn secured(self, stream: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        self.0.lock().place = SocketState::Home(RawStream::Tls(Box::new(stream)));
        self
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        // Kept on every poll: a loan takes the socket, and with it the waker that the socket itself holds.
        state.reader = Some(cx.waker().clone());
        match &mut state.place {
            SocketState::Home(raw) => {
                let before = buf.filled().len();
                let poll = Pin::new(raw).poll_read(cx, buf);
                if poll.is_ready() {
                    state.tracker.read(&buf.filled()[before..]);
                    if state.tracker.may_lend() {
                        self.0.became_quiet.notify_one();
                    }
                }
                poll
            }
            SocketState::Lent => Poll::Pending,
            SocketState::Failed(_) | SocketState::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        match &mut state.place {
            SocketState::Home(raw) => {
                let poll = Pin::new(raw).poll_write(cx, buf);
                if matches!(poll, Poll::Ready(Ok(_))) {
                    state.tracker.quiet = false;
                }
                poll
            }
            SocketState::Lent => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            SocketState::Failed(error) => Poll::Ready(Err(error.take().unwrap_or_else(closed))),
            SocketState::Closed => Poll::Ready(Err(closed())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0.lock().place {
            SocketState::Home(raw) => Pin::new(raw).poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0.lock().place {
            SocketState::Home(raw) => Pin::new(raw).poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl TlsStream for SessionStream {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the session was closed in the middle of a COPY")
}

impl Lender {
    /// Borrows the socket once the session is quiet.
    ///
    /// # Errors
    /// [`NotQuiet`] where the driver is still waiting after `patience`, or the session is closed or already lent.
    ///
    /// # Cancel safety
    /// Nothing is borrowed until the future resolves.
    pub(crate) async fn lend(&self, patience: Duration) -> Result<Loan, NotQuiet> {
        let quiet = async {
            loop {
                if let Some(loan) = self.try_lend() {
                    return loan;
                }
                self.0.became_quiet.notified().await;
            }
        };
        tokio::time::timeout(patience, quiet).await.map_err(|_| NotQuiet)
    }

    /// Whether the session is gone, and nothing else has its socket.
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn try_lend(&self) -> Option<Loan> {
        let mut state = self.0.lock();
        if !state.tracker.may_lend() || !matches!(state.place, SocketState::Home(_)) {
            return None;
        }
        match std::mem::replace(&mut state.place, SocketState::Lent) {
            SocketState::Home(raw) => Some(Loan { raw: Some(raw), shared: Arc::clone(&self.0) }),
            other => {
                state.place = other;
                None
            }
        }
    }
}

impl Loan {
    /// The socket. Whoever uses it leaves it at `ReadyForQuery` before [`Loan::give_back`].
    pub(crate) fn socket(&mut self) -> io::Result<&mut RawStream> {
        self.raw.as_mut().ok_or_else(closed)
    }

    /// Gives the socket back to the driver; the session can be used again.
    pub(crate) fn give_back(mut self) {
        if let Some(raw) = self.raw.take() {
            let mut state = self.shared.lock();
            state.place = SocketState::Home(raw);
            state.wake();
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.raw.take().is_some() {
            let mut state = self.shared.lock();
            state.place = SocketState::Closed;
            state.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const READY: &[u8] = b"Z\0\0\0\x05I";

    fn tracker_after(pieces: &[&[u8]]) -> Tracker {
        let mut tracker = Tracker::default();
        for piece in pieces {
            tracker.read(piece);
        }
        tracker
    }

    #[test]
    fn quiet_only_after_a_whole_ready_for_query() {
        assert!(!Tracker::default().may_lend());
        assert!(tracker_after(&[READY]).may_lend());
        for cut in 1..READY.len() {
            assert!(!tracker_after(&[&READY[..cut]]).may_lend(), "cut at {cut}");
            assert!(tracker_after(&[&READY[..cut], &READY[cut..]]).may_lend(), "cut at {cut}");
        }
        // A notice or a parameter change in between leaves the session quiet, half of one does not.
        assert!(tracker_after(&[READY, b"S\0\0\0\x06a\0"]).may_lend());
        assert!(!tracker_after(&[READY, b"S\0\0\0\x06a"]).may_lend());
        assert!(!tracker_after(&[READY, b"T\0\0\0\x06\0\0"]).may_lend());
    }

    #[tokio::test]
    async fn a_loan_silences_the_driver_and_comes_back() {
        let (ours, mut server) = UnixStream::pair().unwrap();
        let mut stream = SessionStream::new(RawStream::Unix(ours), false);
        let lender = stream.lender();
        assert_eq!(lender.lend(Duration::from_millis(10)).await.unwrap_err(), NotQuiet);

        server.write_all(READY).await.unwrap();
        let mut seen = [0; 6];
        stream.read_exact(&mut seen).await.unwrap();
        let mut loan = lender.lend(Duration::from_secs(5)).await.unwrap();
        assert!(lender.try_lend().is_none(), "lent twice");

        server.write_all(b"copy").await.unwrap();
        let driver = tokio::spawn(async move {
            let mut buffer = [0; 4];
            stream.read_exact(&mut buffer).await.unwrap();
            (stream, buffer)
        });
        let mut buffer = [0; 4];
        loan.socket().unwrap().read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"copy");
        loan.give_back();
        server.write_all(b"back").await.unwrap();
        let (_, buffer) = driver.await.unwrap();
        assert_eq!(&buffer, b"back");
    }

    #[tokio::test]
    async fn a_dropped_loan_closes_the_session() {
        let (ours, mut server) = UnixStream::pair().unwrap();
        let mut stream = SessionStream::new(RawStream::Unix(ours), false);
        let lender = stream.lender();
        server.write_all(READY).await.unwrap();
        let mut seen = [0; 6];
        stream.read_exact(&mut seen).await.unwrap();
        drop(lender.lend(Duration::from_secs(5)).await.unwrap());
        assert_eq!(stream.read(&mut seen).await.unwrap(), 0);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(server.read(&mut seen).await.unwrap(), 0, "the server sees the socket closed");
    }
}
