//! The body of a stream's response: what the pump hands over, to an end that it has to say. A pump that is gone without a
//! word, whatever became of it, has broken off.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// A stream that must not end as if it were whole: its connection is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is broken off")]
pub(crate) struct BrokenOff;

/// What the pump sends.
#[derive(Debug)]
pub(crate) enum BodyPiece {
    Data(Bytes),
    /// The end, with trailers where the client reads them.
    End(Option<HeaderMap>),
}

/// The body. Dropped by the connection, it tells the pump that nobody reads any more.
#[derive(Debug)]
pub(crate) struct StreamBody {
    pieces: Receiver<BodyPiece>,
    ended: bool,
}

/// A body, and what fills it. One piece waits at most, so that the client's pace is that of the source.
pub(crate) fn pipe() -> (Sender<BodyPiece>, StreamBody) {
    let (sender, pieces) = channel(1);
    (sender, StreamBody { pieces, ended: false })
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx));
        self.ended = !matches!(piece, Some(BodyPiece::Data(_)));
        Poll::Ready(match piece {
            Some(BodyPiece::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(BodyPiece::End(trailers)) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            None => Some(Err(BrokenOff)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn read(sent: Vec<BodyPiece>) -> Vec<Result<Option<usize>, BrokenOff>> {
        let (sender, mut body) = pipe();
        tokio::spawn(async move {
            for piece in sent {
                sender.send(piece).await.unwrap();
            }
        });
        let mut seen = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            seen.push(frame.map(|frame| frame.data_ref().map(Bytes::len)));
        }
        seen
    }

    #[tokio::test]
    async fn a_body_ends_only_where_its_pump_has_said_so() {
        let data = || BodyPiece::Data("four".into());
        assert_eq!(read(vec![data(), BodyPiece::End(None)]).await, [Ok(Some(4))]);
        assert_eq!(read(vec![data(), BodyPiece::End(Some(HeaderMap::new()))]).await, [Ok(Some(4)), Ok(None)]);
        assert_eq!(read(vec![data()]).await, [Ok(Some(4)), Err(BrokenOff)]);
        assert_eq!(read(Vec::new()).await, [Err(BrokenOff)]);
    }
}
