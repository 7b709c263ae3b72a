//! Bodies whose clients keep a pace. A client of HTTP/2 that lets a stream wait holds no write up, so that the deadline of
//! the connection's writes does not see it; what hands a body's pieces over does.

use std::time::Duration;

use axum::http::{Extensions, HeaderMap};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::ServiceState;
use super::body::{BodyPiece, BrokenOff, StreamBody, pipe};
use super::deadline::{ConnectionEnd, PROGRESS_BYTES};
use crate::base::failpoint;

/// The pace that is wanted of a client.
#[derive(Debug, Clone)]
pub(crate) struct ClientPace {
    /// So long a client may take too little.
    deadline: Duration,
    /// Its connection, which ends where it does: what the client has not taken goes only with that.
    connection: Option<ConnectionEnd>,
}

impl Default for ClientPace {
    /// Any pace.
    fn default() -> Self {
        Self { deadline: Duration::MAX, connection: None }
    }
}

impl ClientPace {
    /// The pace that the service wants of whoever has sent a request with these extensions.
    pub(crate) fn of(service: &ServiceState, extensions: &Extensions) -> Self {
        let deadline = failpoint::limit("write_deadline", service.config.limits.write_deadline);
        Self { deadline, connection: extensions.get::<ConnectionEnd>().cloned() }
    }

    /// So long so many bytes may wait for the client.
    fn patience(&self, ahead: usize) -> Duration {
        if failpoint::off("stream_deadline") {
            return Duration::MAX;
        }
        let times = u32::try_from(ahead / PROGRESS_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        self.deadline.saturating_mul(times)
    }
}

/// Hands the pieces of a body over, as fast as its client takes them.
#[derive(Debug)]
pub(crate) struct PacedSender {
    body: Sender<BodyPiece>,
    pace: ClientPace,
    /// Bytes of the last two pieces, which the client may not have taken yet.
    ahead: [usize; 2],
}

impl PacedSender {
    /// It, and the body that it fills.
    pub(crate) fn new(pace: ClientPace) -> (Self, StreamBody) {
        let (body, frames) = pipe();
        (Self { body, pace, ahead: [0; 2] }, frames)
    }

    /// Waits until the body has room for a piece, which is once the connection has taken all that was handed over, for as
    /// long as the client keeps the pace. Gives whether there is room: else the client is gone, or its connection ends.
    pub(crate) async fn room(&self) -> bool {
        let ahead = self.ahead.iter().sum();
        tokio::select! {
            room = self.body.reserve_many(self.body.max_capacity()) => room.is_ok(),
            () = tokio::time::sleep(self.pace.patience(ahead)) => {
                if let Some(connection) = &self.pace.connection {
                    connection.end();
                }
                false
            }
        }
    }

    /// Hands a piece over for which there is room; gives whether somebody reads.
    pub(crate) async fn hand(&mut self, bytes: Bytes) -> bool {
        self.ahead = [self.ahead[1], bytes.len()];
        self.body.send(BodyPiece::Data(bytes)).await.is_ok()
    }

    /// Says that the body ends here. Without that word it breaks off.
    pub(crate) async fn end(&self, trailers: Option<HeaderMap>) {
        // Whoever has gone hears of no end.
        let _ = self.body.send(BodyPiece::End(trailers)).await;
    }

    /// Waits until nobody reads the body any more.
    pub(crate) async fn closed(&self) {
        self.body.closed().await;
    }

    /// Hands all pieces over, then the end, and waits until that is taken too. HTTP/2 asks for the next piece once it has
    /// begun with the one before, and not once the client has that: so the last byte goes by itself, and where the end is
    /// asked for, the client has let all bytes come that are before it.
    async fn send_all(mut self, pieces: impl Stream<Item = Result<Bytes, BrokenOff>>, length: u64) {
        let mut pieces = std::pin::pin!(pieces);
        let mut left = length;
        while self.room().await {
            let piece = tokio::select! {
                () = self.closed() => return,
                piece = pieces.next() => piece,
            };
            match piece {
                Some(Ok(mut bytes)) => {
                    left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    if left == 0 && bytes.len() > 1 {
                        let last = bytes.split_off(bytes.len() - 1);
                        if !(self.hand(bytes).await && self.room().await) {
                            return;
                        }
                        bytes = last;
                    }
                    if !self.hand(bytes).await {
                        return;
                    }
                }
                Some(Err(BrokenOff)) => return,
                None => {
                    self.end(None).await;
                    self.room().await;
                    return;
                }
            }
        }
    }
}

/// A body of these pieces, of so many bytes, which a task of its own hands over: the next is made once the one before is at
/// the connection.
/// It breaks off where a piece fails, where the client does not keep the pace, and at `stop`. `held` is let go of once the
/// client has taken all of it, or has gone.
pub(crate) fn paced(
    pieces: impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static,
    length: u64,
    pace: ClientPace,
    stop: CancellationToken,
    held: impl Send + 'static,
) -> StreamBody {
    let (sender, body) = PacedSender::new(pace);
    tokio::spawn(async move {
        let _held = held;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sender.send_all(pieces, length) => {}
        }
    });
    body
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::Arc;

    use futures_util::stream;
    use http_body::Body;
    use tokio::time::{Instant, sleep};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A body with its connection, and what tells whether it holds something.
    fn body(sizes: &'static [usize]) -> (StreamBody, ConnectionEnd, std::sync::Weak<()>) {
        let pieces = stream::iter(sizes).map(|size| Ok(Bytes::from(vec![0; *size])));
        let (held, connection) = (Arc::new(()), ConnectionEnd::default());
        let pace = ClientPace { deadline: DEADLINE, connection: Some(connection.clone()) };
        let seen = Arc::downgrade(&held);
        let length = u64::try_from(sizes.iter().sum::<usize>()).unwrap();
        (paced(pieces, length, pace, CancellationToken::new(), held), connection, seen)
    }

    async fn next(body: &mut StreamBody) -> Option<Result<usize, BrokenOff>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_keeps_the_pace_has_all_and_only_then_is_let_go() {
        // Sixteen times as much as must be taken within a deadline.
        let (mut body, connection, held) = body(&[PROGRESS_BYTES * 16; 4]);
        let size = PROGRESS_BYTES * 16;
        // The end is told of once all before the last byte has been asked for.
        for size in [size, size, size, size - 1, 1] {
            assert_eq!(next(&mut body).await, Some(Ok(size)));
            sleep(if size > 1 { DEADLINE * 16 } else { Duration::ZERO }).await;
            assert_eq!(held.strong_count(), 1);
        }
        assert_eq!(next(&mut body).await, None);
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!connection.has_ended());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_loses_its_connection_and_holds_nothing() {
        let began = Instant::now();
        let (mut body, connection, held) = body(&[PROGRESS_BYTES * 2, 1, 1]);
        while held.strong_count() > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        assert!(began.elapsed() >= DEADLINE * 3 && began.elapsed() < DEADLINE * 4, "{:?}", began.elapsed());
        assert!(connection.has_ended());
        assert_eq!(next(&mut body).await, Some(Ok(PROGRESS_BYTES * 2)));
        assert_eq!(next(&mut body).await, Some(Err(BrokenOff)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_body_is_waited_for_no_longer_than_its_pieces() {
        let (mut body, connection, held) = body(&[1]);
        assert_eq!(next(&mut body).await, Some(Ok(1)));
        sleep(DEADLINE * 2).await;
        assert_eq!((held.strong_count(), connection.has_ended()), (0, true));
        // What it was told is what there is.
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_any_more_holds_nothing() {
        let (body, connection, held) = body(&[1, 1, 1]);
        drop(body);
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!connection.has_ended());
    }
}
