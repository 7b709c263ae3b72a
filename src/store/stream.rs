//! A stream as a destination: one object, which its reader has as it is written.

use std::io::Write;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::checksums::Checksums;
use super::error::{StoreError, StoreFault};
use super::writer::compute;
use crate::base::cpu::TaskLost;
use crate::model::{ObjectKind, StagedObject, Staging, StreamKind};

/// The name of a stream in receipts, manifests and reports.
pub(crate) const STREAM: &str = "-";

/// Where the bytes of a stream go.
#[derive(Debug, Clone)]
pub(crate) enum StreamSink {
    /// Standard output (`--to -`).
    Stdout,
    /// A caller of the library. The channel's bound is the back-pressure: while it is full, the source waits.
    Caller(Sender<Bytes>, StreamKind),
}

impl StreamSink {
    /// Says what the bytes are that follow.
    pub(crate) fn tell(&self, kind: &ObjectKind) {
        if let Self::Caller(_, told) = self {
            told.tell(kind);
        }
    }

    /// Hands bytes on; waits as long as the reader lets it wait.
    async fn send(&self, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Stdout => print(bytes).await,
            Self::Caller(sender, _) => sender.send(bytes).await.map_err(|_| self.reader_gone()),
        }
    }

    /// Waits until the reader has taken all bytes. Nobody can tell that of standard output, which is a pipe at best.
    async fn drained(&self) -> Result<(), StoreError> {
        let Self::Caller(sender, _) = self else { return Ok(()) };
        let all = sender.reserve_many(sender.max_capacity()).await;
        all.map(drop).map_err(|_| self.reader_gone())
    }

    fn reader_gone(&self) -> StoreError {
        self.failed(StoreFault::Unavailable, "the reader of the stream went away")
    }

    fn failed(&self, fault: StoreFault, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        let name = match self {
            Self::Stdout => "standard output",
            Self::Caller(..) => "the stream",
        };
        StoreError::new("writing", name, fault, source)
    }
}

/// Writes to standard output, and flushes.
async fn print(bytes: Bytes) -> Result<(), StoreError> {
    let written = tokio::task::spawn_blocking(move || {
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()
    });
    let failed = |fault, error| Err(StreamSink::Stdout.failed(fault, error));
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            use std::io::ErrorKind::{BrokenPipe, FileTooLarge, QuotaExceeded, StorageFull};
            let fault = match error.kind() {
                StorageFull | QuotaExceeded | FileTooLarge => StoreFault::Full,
                BrokenPipe => StoreFault::ReaderGone,
                _ => StoreFault::Unavailable,
            };
            failed(fault, error)
        }
        Err(error) => failed(StoreFault::Unavailable, std::io::Error::other(TaskLost::from(error))),
    }
}

/// Writes one object to a stream.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    sink: StreamSink,
    bytes: u64,
    /// `None` while a write is under way, and for good if it failed or was cancelled.
    checksums: Option<Checksums>,
}

impl StreamWriter {
    /// A writer that has written nothing.
    pub(crate) fn new(sink: StreamSink, sha256: bool) -> Self {
        Self { sink, bytes: 0, checksums: Some(Checksums::new(sha256)) }
    }

    /// Writes; waits as long as the reader lets it wait.
    ///
    /// # Errors
    /// The reader went away, the disk behind standard output is full, or an earlier write failed.
    ///
    /// Cancel safety: none; what was written stays written, and the writer is spent.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let mut checksums = self.checksums.take().ok_or_else(|| self.spent())?;
        let hashed = bytes.clone();
        let checksums = compute(STREAM, bytes.len(), move || {
            checksums.update(&hashed);
            checksums
        })
        .await?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.sink.send(bytes).await?;
        self.checksums = Some(checksums);
        self.bytes = self.bytes.saturating_add(size);
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// Waits until the reader has all of it, and says what was written.
    ///
    /// # Errors
    /// The reader went away, or an earlier write failed.
    ///
    /// Cancel safety: as [`StreamWriter::write`].
    pub(crate) async fn finish(mut self) -> Result<StagedObject, StoreError> {
        let (crc64nvme, sha256) = self.checksums.take().ok_or_else(|| self.spent())?.finish();
        self.sink.drained().await?;
        Ok(StagedObject { path: STREAM.to_owned(), bytes: self.bytes, crc64nvme, sha256, staging: Staging::Published })
    }

    fn spent(&self) -> StoreError {
        self.sink.failed(StoreFault::Unavailable, "an earlier write failed")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::channel;
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn a_writer_waits_for_its_reader_and_ends_once_all_is_taken() {
        let (sender, mut receiver) = channel(1);
        let mut writer = StreamWriter::new(StreamSink::Caller(sender, StreamKind::default()), false);
        writer.write("one".into()).await.unwrap();
        let reader = tokio::spawn(async move {
            tokio::time::sleep(SHORT).await;
            let first = receiver.recv().await;
            tokio::time::sleep(SHORT).await;
            (first, receiver.recv().await, receiver.recv().await)
        });
        let started = std::time::Instant::now();
        writer.write("two".into()).await.unwrap();
        assert!(started.elapsed() >= SHORT, "there is room for one piece only");
        let object = writer.finish().await.unwrap();
        assert!(started.elapsed() >= SHORT * 2, "the last piece was not taken yet");
        assert_eq!((object.path.as_str(), object.bytes), (STREAM, 6));
        let mut whole = Checksums::new(false);
        whole.update(b"onetwo");
        assert_eq!(object.crc64nvme, whole.finish().0);
        assert_eq!(reader.await.unwrap(), (Some("one".into()), Some("two".into()), None));
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_the_write_that_waits_and_the_finish() {
        let (sender, receiver) = channel(1);
        let mut waiting = StreamWriter::new(StreamSink::Caller(sender.clone(), StreamKind::default()), false);
        let mut done = StreamWriter::new(StreamSink::Caller(sender, StreamKind::default()), false);
        done.write("one".into()).await.unwrap();
        assert!(timeout(SHORT, waiting.write("two".into())).await.is_err(), "the channel is full");
        drop(receiver);
        let gone = |error: StoreError| {
            assert_eq!(error.fault, StoreFault::Unavailable);
            assert_eq!(error.source.to_string(), "the reader of the stream went away");
        };
        gone(done.finish().await.unwrap_err());
        let (sender, receiver) = channel(1);
        drop(receiver);
        gone(
            StreamWriter::new(StreamSink::Caller(sender, StreamKind::default()), false)
                .write("x".into())
                .await
                .unwrap_err(),
        );
        // It was dropped in the middle of a write: nobody knows what of it went out.
        assert_eq!(waiting.write("three".into()).await.unwrap_err().source.to_string(), "an earlier write failed");
    }
}
