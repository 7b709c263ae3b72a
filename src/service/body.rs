//! The body of a stream's response: frames as the pump hands them over.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// A stream that must not end as if it were whole: its connection is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is broken off")]
pub(crate) struct BrokenOff;

/// What the pump sends.
pub(crate) type BodySender = Sender<Result<Frame<Bytes>, BrokenOff>>;

/// The body. Dropped by the connection, it tells the pump that nobody reads any more.
#[derive(Debug)]
pub(crate) struct StreamBody(Receiver<Result<Frame<Bytes>, BrokenOff>>);

/// A body, and what fills it. One frame waits at most, so that the client's pace is that of the source.
pub(crate) fn pipe() -> (BodySender, StreamBody) {
    let (sender, receiver) = channel(1);
    (sender, StreamBody(receiver))
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.0.poll_recv(cx)
    }
}
