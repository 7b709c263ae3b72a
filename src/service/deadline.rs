//! What guards each connection: their number, the write deadline (a connection whose client takes no bytes ends; layers above
//! see only that nobody polls them), and an end that a request can call for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use futures_util::future::{Ready, ready as at_once};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Layer;

use crate::base::failpoint;

/// So many bytes must be taken within each deadline: whoever takes one byte a minute is as good as gone.
pub(crate) const PROGRESS_BYTES: usize = 64 * 1024;

/// Takes connections, and gives each its guard.
#[derive(Debug, Clone)]
pub(crate) struct GuardedAcceptor {
    deadline: Duration,
    connections: Arc<Semaphore>,
}

/// Ends the connection of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionEnd(CancellationToken);

impl ConnectionEnd {
    pub(crate) fn end(&self) {
        self.0.cancel();
    }

    #[cfg(test)]
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl GuardedAcceptor {
    pub(crate) fn new(deadline: Duration, connections: u32) -> Self {
        let connections = usize::try_from(connections).unwrap_or(Semaphore::MAX_PERMITS);
        Self { deadline, connections: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))) }
    }

    fn guarded(&self, stream: TcpStream, end: &ConnectionEnd) -> io::Result<Deadlined<TcpStream>> {
        // One too many is closed at once: it must not wait for memory that the others have.
        let held = Arc::clone(&self.connections).try_acquire_owned().map_err(io::Error::other);
        let held = if failpoint::off("connections") { None } else { Some(held?) };
        stream.set_nodelay(true)?;
        let mut guarded = Deadlined::new(stream, self.deadline);
        guarded.end = Some(Box::pin(end.0.clone().cancelled_owned()));
        guarded.held = held;
        Ok(guarded)
    }
}

impl<S> Accept<TcpStream, S> for GuardedAcceptor {
    type Stream = Deadlined<TcpStream>;
    type Service = AddExtension<S, ConnectionEnd>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let end = ConnectionEnd::default();
        let guarded = self.guarded(stream, &end);
        at_once(guarded.map(|guarded| (guarded, Extension(end).layer(service))))
    }
}

/// A connection with a deadline for its writes.
#[derive(Debug)]
pub(crate) struct Deadlined<T> {
    inner: T,
    limit: Duration,
    /// Since when the client has not taken what it is sent, and the end of its time.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// So long it has let us wait before. A source that has nothing to send costs the client no time.
    blocked: Duration,
    /// Bytes that it has taken meanwhile.
    taken: usize,
    /// The end that one of its requests may call for.
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Its place among the connections.
    held: Option<OwnedSemaphorePermit>,
}

impl<T> Deadlined<T> {
    fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit, waiting: None, blocked: Duration::ZERO, taken: 0, end: None, held: None }
    }

    /// Whether somebody has called for its end, who wakes whoever reads from it now.
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready())
    }

    /// Judges one try to write.
    fn judge(&mut self, cx: &mut Context<'_>, tried: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match tried {
            Poll::Ready(Ok(bytes)) => {
                if let Some((since, _)) = self.waiting.take() {
                    self.blocked = self.blocked.saturating_add(since.elapsed());
                }
                self.taken = self.taken.saturating_add(bytes);
                if self.taken >= PROGRESS_BYTES {
                    (self.taken, self.blocked) = (0, Duration::ZERO);
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if failpoint::off("write_deadline") => Poll::Pending,
            Poll::Pending => {
                let left = self.limit.saturating_sub(self.blocked);
                let (_, end) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
                ready!(end.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Deadlined<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.has_ended(cx) {
            self.end = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Deadlined<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_ends_the_connection_and_a_slow_one_only_below_the_rate() {
        let (client, server) = duplex(1_024);
        let mut connection = Deadlined::new(server, LIMIT);
        let began = Instant::now();
        let error = connection.write_all(&[0; 2_048]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
        drop(client);
        // A byte now and then is no progress.
        let (mut client, server) = duplex(1_024);
        let mut connection = Deadlined::new(server, LIMIT);
        let reader = tokio::spawn(async move {
            while client.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let error = connection.write_all(&[0; 8_192]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        reader.await.unwrap();
        // A client that takes enough has all the time it needs.
        let (mut client, server) = duplex(PROGRESS_BYTES);
        let mut connection = Deadlined::new(server, LIMIT);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            let mut piece = vec![0; PROGRESS_BYTES];
            while let Ok(read @ 1..) = client.read(&mut piece).await {
                all.extend_from_slice(&piece[..read]);
                tokio::time::sleep(LIMIT / 2).await;
            }
            all.len()
        });
        connection.write_all(&vec![0; PROGRESS_BYTES * 10]).await.unwrap();
        drop(connection);
        assert_eq!(reader.await.unwrap(), PROGRESS_BYTES * 10);
    }
}
