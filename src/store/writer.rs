//! Writes one object, chunk by chunk, so that it is whole and invisible until it is published.

use std::time::Duration;

use bytes::Bytes;

use super::checksums::Checksums;
use super::destination::Backend;
use super::error::{StoreError, StoreFault};
use super::facts::StoreOptions;
use super::journal::Journal;
use super::local_sink::LocalSink;
use super::remote_sink::RemoteSink;
use crate::base::cpu::on_rayon;
use crate::model::{StagedObject, Staging};

/// A clean abort (cancel requests, aborted uploads) may take this long; then the process leaves all the same.
pub(crate) const ABORT_GRACE: Duration = Duration::from_secs(8);

/// Below this a buffer is hashed where it is: the hand-over to rayon costs more.
const INLINE_CPU_BYTES: usize = 64 * 1024;

/// An object being written. Made by [`Destination::writer`](super::Destination::writer).
///
/// Memory: at most `concurrency + 1` chunks of the size asked for (those in flight and the one that fills), or two
/// chunks where they have grown past that; a buffer that a chunk's end cuts in two is freed with the later one. Locally
/// two blocks of `LOCAL_BLOCK_BYTES` and what was appended to them at last; they are lent, or copied into.
///
/// Once a call has failed, or was cancelled in the middle of a chunk, every later one fails: no object with a gap can
/// be finished. Dropping a writer publishes nothing; a local staged file is removed, an upload stays for the journal's
/// reader to abort (and is billed until then), so prefer [`PartWriter::abort`].
#[derive(Debug)]
pub struct PartWriter {
    path: String,
    object: String,
    /// `None` while a chunk is being hashed, and for good if that was cancelled.
    checksums: Option<Checksums>,
    /// Of the chunks that were sent.
    bytes: u64,
    sink: Sink,
    failed: Option<(StoreFault, String)>,
}

impl PartWriter {
    pub(super) async fn start(
        backend: &Backend,
        options: StoreOptions,
        path: &str,
        object: String,
        content_type: &str,
        journal: &Journal,
    ) -> Result<Self, StoreError> {
        let sink = match backend {
            Backend::Local(folder) => {
                Sink::Local(LocalSink::start(folder, journal.staged_file(path), object.clone()).await?)
            }
            Backend::Remote(remote) => {
                Sink::Remote(RemoteSink::start(remote, options, path, content_type, journal).await?)
            }
        };
        let checksums = Some(Checksums::new(options.sha256));
        Ok(Self { path: path.to_owned(), object, checksums, bytes: 0, sink, failed: None })
    }

    /// Takes bytes; waits while `concurrency` chunks are in flight. This is the back-pressure of the whole pipeline.
    ///
    /// # Errors
    /// [`StoreError`], of this or of an earlier chunk.
    ///
    /// Cancel safety: none. A writer whose `write` was dropped half-way can only be aborted.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let mut bytes = bytes.into();
        self.still_whole()?;
        while self.sink.fill(&mut bytes) {
            self.send_chunk().await?;
        }
        Ok(())
    }

    /// Memory of the writer's own to append bytes to, which [`PartWriter::take_back`] then takes without a copy; what
    /// stands in it is not to be touched. `None` where [`PartWriter::write`] copies nothing anyway, and where the writer
    /// is unusable.
    ///
    /// Until it is given back the writer can only be aborted.
    pub(crate) fn lend(&mut self) -> Option<Vec<u8>> {
        self.still_whole().ok()?;
        match &mut self.sink {
            Sink::Local(sink) => Some(sink.lend()),
            Sink::Remote(_) => None,
        }
    }

    /// As [`PartWriter::write`], with the bytes appended to what [`PartWriter::lend`] lent.
    ///
    /// # Errors
    /// As [`PartWriter::write`].
    ///
    /// Cancel safety: as [`PartWriter::write`].
    pub(crate) async fn take_back(&mut self, memory: Vec<u8>) -> Result<(), StoreError> {
        let taken = match &mut self.sink {
            Sink::Local(sink) => sink.take_back(&self.object, memory),
            Sink::Remote(_) => Err(bug(&self.object, "memory came back that was not lent")),
        };
        let full = taken.inspect_err(|error| self.failed = Some((error.fault, error.cause.to_string())))?;
        self.still_whole()?;
        if full { self.send_chunk().await } else { Ok(()) }
    }

    /// Bytes handed to the writer so far and taken.
    pub fn bytes_written(&self) -> u64 {
        let gathered = u64::try_from(self.sink.gathered()).unwrap_or(u64::MAX);
        self.bytes.saturating_add(gathered)
    }

    /// Waits until every byte is stored; nothing is visible yet.
    ///
    /// # Errors
    /// [`StoreError`]; what was staged is then removed, for as long as `ABORT_GRACE`, and stays in the journal.
    ///
    /// Cancel safety: as dropping the writer.
    pub async fn finish(mut self) -> Result<StagedObject, StoreError> {
        let error = match self.try_finish().await {
            Ok(staged) => return Ok(staged),
            Err(error) => error,
        };
        let is_local = matches!(self.sink, Sink::Local(_));
        // The first error is the one to report.
        let aborted = tokio::time::timeout(ABORT_GRACE, self.abort()).await;
        Err(StoreError { leaves_nothing: is_local && matches!(aborted, Ok(Ok(()))), ..error })
    }

    async fn try_finish(&mut self) -> Result<StagedObject, StoreError> {
        self.still_whole()?;
        if self.sink.gathered() > 0 {
            self.send_chunk().await?;
        }
        let staging = self.sink.finish(&self.object).await?;
        let Some(checksums) = self.checksums.take() else { return Err(interrupted(&self.object)) };
        let (crc64nvme, sha256) = checksums.finish();
        Ok(StagedObject { path: self.path.clone(), bytes: self.bytes, crc64nvme, sha256, staging })
    }

    /// Stops what is in flight and removes what is staged.
    ///
    /// # Errors
    /// [`StoreError`] where the upload or the file could not be removed; the journal still names it.
    pub async fn abort(self) -> Result<(), StoreError> {
        match self.sink {
            Sink::Local(sink) => sink.abort(self.object).await,
            Sink::Remote(sink) => sink.abort().await,
        }
    }

    fn still_whole(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some((fault, why)) => {
                Err(StoreError::new("writing", &self.object, *fault, format!("an earlier chunk failed: {why}")))
            }
            None if self.checksums.is_none() || self.sink.has_lent() => Err(interrupted(&self.object)),
            None => Ok(()),
        }
    }

    async fn send_chunk(&mut self) -> Result<(), StoreError> {
        let result = self.try_send_chunk().await;
        if let Err(error) = &result {
            self.failed = Some((error.fault, error.cause.to_string()));
        }
        result
    }

    async fn try_send_chunk(&mut self) -> Result<(), StoreError> {
        let Some(checksums) = self.checksums.take() else {
            return Err(interrupted(&self.object));
        };
        let gathered = self.sink.gathered();
        let checksums = self.sink.send(&self.object, checksums).await?;
        // A tail may have stayed.
        let sent = gathered.checked_sub(self.sink.gathered());
        self.bytes = sent
            .and_then(|sent| self.bytes.checked_add(u64::try_from(sent).ok()?))
            .ok_or_else(|| bug(&self.object, "the size of the object overflows"))?;
        // Only now: a call that was dropped while it waited leaves the writer unusable.
        self.checksums = Some(checksums);
        Ok(())
    }
}

/// Runs `work` over a chunk of `size` bytes: on rayon, unless the hand-over would cost more.
pub(super) async fn compute<T: Send + 'static>(
    object: &str,
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    if size < INLINE_CPU_BYTES {
        return Ok(work());
    }
    on_rayon(work).await.map_err(|error| bug(object, error))
}

fn bug(object: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new("writing", object, StoreFault::Unavailable, source)
}

fn interrupted(object: &str) -> StoreError {
    StoreError::new("writing", object, StoreFault::Unavailable, "an earlier write was interrupted")
}

#[derive(Debug)]
enum Sink {
    Local(LocalSink),
    Remote(RemoteSink),
}

impl Sink {
    fn fill(&mut self, bytes: &mut Bytes) -> bool {
        match self {
            Self::Local(sink) => sink.fill(bytes),
            Self::Remote(sink) => sink.fill(bytes),
        }
    }

    fn has_lent(&self) -> bool {
        matches!(self, Self::Local(sink) if sink.has_lent())
    }

    fn gathered(&self) -> usize {
        match self {
            Self::Local(sink) => sink.gathered(),
            Self::Remote(sink) => sink.gathered(),
        }
    }

    async fn send(&mut self, object: &str, checksums: Checksums) -> Result<Checksums, StoreError> {
        match self {
            Self::Local(sink) => sink.send(object, checksums).await,
            Self::Remote(sink) => sink.send(object, checksums).await,
        }
    }

    async fn finish(&mut self, object: &str) -> Result<Staging, StoreError> {
        match self {
            Self::Local(sink) => sink.finish(object).await,
            Self::Remote(sink) => sink.finish().await,
        }
    }
}
