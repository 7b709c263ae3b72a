//! An export into a stream of the caller's: what a service answers with, without a second runner.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::error::ExportError;
use super::finish::RunTarget;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::request::ExportRequest;
use super::run::Run;
use crate::commit::Manifest;
use crate::model::{Event, ExportErrorKind, ExportReport, StreamKind, Target};
use crate::store::stream::StreamSink;

/// A stream whose reader has all of it.
#[derive(Debug)]
pub struct Streamed {
    /// As [`run`](super::run()) has it.
    pub report: ExportReport,
    /// Its manifest, which stands nowhere but in the file that [`Target::Stream`] may name.
    pub manifest: Arc<Manifest>,
}

/// Exports one relation into `bytes`, whose bound is the back-pressure: while it is full, the source waits. A request for
/// it has [`Target::Stream`].
///
/// The end of the channel says nothing of how the export ended: only the result does. What a stream has said cannot be
/// taken back, so there is one partition and one attempt at it.
///
/// Memory: what a run has for one reader, and as many encoded batches as the channel holds.
///
/// # Errors
/// As [`run`](super::run()); [`ExportErrorKind::DestinationUnavailable`] where the receiver is dropped before it has taken
/// all bytes: the source is stopped then, even if it has nothing to say at that moment.
///
/// # Cancel safety
/// As [`run`](super::run()).
pub async fn stream(
    request: ExportRequest,
    bytes: Sender<Bytes>,
    events: Sender<Event>,
    cancel: CancellationToken,
) -> Result<Streamed, ExportError> {
    stream_told(request, (bytes, StreamKind::default()), events, cancel).await
}

/// The same for who sends the bytes on: `kind` says what they are before the first of them is there.
///
/// # Errors
/// As [`stream`].
///
/// # Cancel safety
/// As [`stream`].
pub async fn stream_told(
    mut request: ExportRequest,
    (bytes, kind): (Sender<Bytes>, StreamKind),
    events: Sender<Event>,
    cancel: CancellationToken,
) -> Result<Streamed, ExportError> {
    request.source.check(&mut request.shape)?;
    let Target::Stream { manifest: file } = &request.commit.target else {
        return Err(ExportError::new(ExportErrorKind::Usage, "the rows are to go to a destination and into a stream"));
    };
    let place = RunTarget::stream(StreamSink::Caller(bytes.clone(), kind), file.clone());
    let run = Run::new(request, place, events);
    let (commit_begun, stop) = (run.commit_begun.clone(), cancel.clone());
    let streaming = Box::pin(async move { until_the_reader_goes(&run, &bytes, &stop).await });
    to_its_end(streaming, &commit_begun, &cancel, ABORT_PATIENCE).await
}

async fn until_the_reader_goes(
    run: &Run,
    bytes: &Sender<Bytes>,
    cancel: &CancellationToken,
) -> Result<Streamed, ExportError> {
    let stop = cancel.child_token();
    let running = run.execute(&stop);
    tokio::pin!(running);
    let result = tokio::select! {
        result = &mut running => result,
        () = bytes.closed() => {
            stop.cancel();
            running.await
        }
    };
    let report = result.map_err(|error| {
        let for_want_of_a_reader =
            matches!(error.kind, ExportErrorKind::Interrupted | ExportErrorKind::DestinationUnavailable);
        let gone = for_want_of_a_reader && bytes.is_closed() && !cancel.is_cancelled();
        if gone { reader_gone() } else { error }
    })?;
    let manifest = run.place.streamed().ok_or_else(|| ExportError::internal("a stream has no manifest"))?;
    Ok(Streamed { report, manifest })
}

fn reader_gone() -> ExportError {
    ExportError::new(ExportErrorKind::DestinationUnavailable, "the reader of the stream went away")
}
