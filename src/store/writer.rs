//! Writes one object, chunk by chunk, so that it is whole and invisible until it is published.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use object_store::PutPayload;
use tokio::task::{JoinHandle, JoinSet};

use super::checksums::Checksums;
use super::chunks::{Gather, chunk_bytes};
use super::destination::{Backend, StoreOptions};
use super::error::{StoreError, StoreFault};
use super::journal::Journal;
use super::local::{Folder, sync_folder_of};
use super::receipt::{StagedObject, Staging};
use super::remote::Remote;
use crate::cpu::on_rayon;
use crate::limits;

/// An object being written. Made by [`Destination::writer`](super::Destination::writer).
///
/// Memory: at most `concurrency + 1` chunks of the size asked for (those in flight and the one that fills), or two
/// chunks where they have grown past that; locally two chunks of [`limits::LOCAL_CHUNK_BYTES`]. A buffer that a chunk's
/// end cuts in two is freed with the later one.
///
/// Once a call has failed, or was cancelled in the middle of a chunk, every later one fails: no object with a gap can
/// be finished. Dropping a writer publishes nothing; a local staged file is removed, an upload stays for the journal's
/// reader to abort (and is billed until then), so prefer [`PartWriter::abort`].
#[derive(Debug)]
pub struct PartWriter {
    path: String,
    object: String,
    options: StoreOptions,
    gather: Gather,
    /// `None` while a chunk is being hashed, and for good if that was cancelled.
    checksums: Option<Checksums>,
    /// Chunks taken from `gather`.
    chunks: usize,
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
                let staged = StagedFile { folder: Arc::clone(folder), file: journal.staged_file(path), keep: false };
                let name = staged.file.clone();
                let file = folder.run("staging", object.clone(), move |folder| folder.stage(&name)).await?;
                Sink::Local(LocalSink { staged, state: LocalState::Idle(file) })
            }
            Backend::Remote(remote) => {
                let upload_id = remote.start(path, content_type).await?;
                if let Err(error) = journal.record_upload(path, &upload_id).await {
                    // Best effort: the first error is the one to report.
                    let _ = remote.abort(path, &upload_id).await;
                    return Err(error);
                }
                Sink::Remote(RemoteSink {
                    remote: Arc::clone(remote),
                    path: path.to_owned(),
                    upload_id,
                    in_flight: JoinSet::new(),
                    in_flight_bytes: 0,
                    done: BTreeMap::new(),
                })
            }
        };
        Ok(Self {
            path: path.to_owned(),
            object,
            options,
            gather: Gather::new(sink.chunk_bytes(options, 0)),
            checksums: Some(Checksums::new(options.sha256)),
            chunks: 0,
            bytes: 0,
            sink,
            failed: None,
        })
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
        while self.gather.fill(&mut bytes) {
            self.send_chunk().await?;
        }
        Ok(())
    }

    /// Bytes handed to [`PartWriter::write`] so far and taken.
    pub fn bytes_written(&self) -> u64 {
        let gathered = u64::try_from(self.gather.len()).unwrap_or(u64::MAX);
        self.bytes.saturating_add(gathered)
    }

    /// Waits until every byte is stored; nothing is visible yet.
    ///
    /// # Errors
    /// [`StoreError`]; what was staged is then removed, for as long as [`limits::ABORT_GRACE`], and stays in the journal.
    ///
    /// Cancel safety: as dropping the writer.
    pub async fn finish(mut self) -> Result<StagedObject, StoreError> {
        let staged = self.try_finish().await;
        if staged.is_err() {
            // The first error is the one to report.
            let _ = tokio::time::timeout(limits::ABORT_GRACE, self.abort()).await;
        }
        staged
    }

    async fn try_finish(&mut self) -> Result<StagedObject, StoreError> {
        self.still_whole()?;
        if !self.gather.is_empty() {
            self.send_chunk().await?;
        }
        let staging = self.sink.finish(&self.object, self.chunks).await?;
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
            None if self.checksums.is_none() => Err(interrupted(&self.object)),
            None => Ok(()),
        }
    }

    async fn send_chunk(&mut self) -> Result<(), StoreError> {
        let result = self.try_send_chunk().await;
        if let Err(error) = &result {
            self.failed = Some((error.fault, error.source.to_string()));
        }
        result
    }

    async fn try_send_chunk(&mut self) -> Result<(), StoreError> {
        let Some(mut checksums) = self.checksums.take() else {
            return Err(interrupted(&self.object));
        };
        let chunk = self.gather.take(self.sink.chunk_bytes(self.options, self.chunks + 1));
        let size = chunk.content_length();
        let hash = move || {
            for piece in &chunk {
                checksums.update(piece);
            }
            (checksums, chunk)
        };
        let (checksums, chunk) = if size < limits::INLINE_CPU_BYTES {
            hash()
        } else {
            on_rayon(hash).await.map_err(|error| self.bug(error))?
        };
        let index = self.chunks;
        self.sink.send(&self.object, self.options, index, chunk).await?;
        self.chunks += 1;
        self.bytes = u64::try_from(size)
            .ok()
            .and_then(|size| self.bytes.checked_add(size))
            .ok_or_else(|| self.bug("the size of the object overflows"))?;
        // Only now: a call that was dropped while it waited leaves the writer unusable.
        self.checksums = Some(checksums);
        Ok(())
    }

    fn bug(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::new("writing", &self.object, StoreFault::Unavailable, source)
    }
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
    fn chunk_bytes(&self, options: StoreOptions, index: usize) -> usize {
        match self {
            Self::Local(_) => limits::LOCAL_CHUNK_BYTES.min(options.chunk_bytes.get()),
            Self::Remote(_) => chunk_bytes(options.chunk_bytes.get(), index),
        }
    }

    async fn send(
        &mut self,
        object: &str,
        options: StoreOptions,
        index: usize,
        chunk: PutPayload,
    ) -> Result<(), StoreError> {
        match self {
            Self::Local(sink) => sink.send(object, chunk).await,
            Self::Remote(sink) => sink.send(options, index, chunk).await,
        }
    }

    async fn finish(&mut self, object: &str, chunks: usize) -> Result<Staging, StoreError> {
        match self {
            Self::Local(sink) => sink.finish(object).await,
            Self::Remote(sink) => sink.finish(chunks).await,
        }
    }
}

/// A staged file, removed on drop unless it is to be kept.
#[derive(Debug)]
struct StagedFile {
    folder: Arc<Folder>,
    file: String,
    keep: bool,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.keep {
            // A leftover is in the run's staging folder, which is removed whole at its end.
            let _ = self.folder.delete(&self.file);
        }
    }
}

#[derive(Debug)]
struct LocalSink {
    staged: StagedFile,
    state: LocalState,
}

#[derive(Debug)]
enum LocalState {
    Idle(File),
    Writing(JoinHandle<std::io::Result<File>>),
    Failed,
}

impl LocalSink {
    /// One chunk is written while the next one fills.
    async fn send(&mut self, object: &str, chunk: PutPayload) -> Result<(), StoreError> {
        let mut file = self.idle(object).await?;
        self.state = LocalState::Writing(tokio::task::spawn_blocking(move || {
            for piece in &chunk {
                file.write_all(piece)?;
            }
            Ok(file)
        }));
        Ok(())
    }

    async fn finish(&mut self, object: &str) -> Result<Staging, StoreError> {
        let file = self.idle(object).await?;
        let name = self.staged.file.clone();
        let sync = move |folder: &Folder| {
            file.sync_all()?;
            sync_folder_of(&folder.join(&name))
        };
        self.staged.folder.run("staging", object.to_owned(), sync).await?;
        self.staged.keep = true;
        Ok(Staging::Local { file: self.staged.file.clone() })
    }

    async fn abort(mut self, object: String) -> Result<(), StoreError> {
        // What is being written must end before its file goes; how it ended does not matter any more.
        let _ = self.idle(&object).await;
        let file = self.staged.file.clone();
        self.staged.folder.run("discarding", object, move |folder| folder.delete(&file)).await
    }

    async fn idle(&mut self, object: &str) -> Result<File, StoreError> {
        let lost = |why: String| Err(StoreError::new("staging", object, StoreFault::Unavailable, why));
        match std::mem::replace(&mut self.state, LocalState::Failed) {
            LocalState::Idle(file) => Ok(file),
            LocalState::Writing(task) => match task.await {
                Ok(Ok(file)) => Ok(file),
                Ok(Err(error)) => Err(StoreError::from_io("staging", object, error)),
                Err(error) => lost(error.to_string()),
            },
            LocalState::Failed => lost("an earlier write failed or was interrupted".into()),
        }
    }
}

#[derive(Debug)]
struct RemoteSink {
    remote: Arc<Remote>,
    path: String,
    upload_id: String,
    in_flight: JoinSet<Result<Uploaded, StoreError>>,
    in_flight_bytes: usize,
    done: BTreeMap<usize, String>,
}

#[derive(Debug)]
struct Uploaded {
    index: usize,
    size: usize,
    id: String,
}

impl RemoteSink {
    async fn send(&mut self, options: StoreOptions, index: usize, chunk: PutPayload) -> Result<(), StoreError> {
        let size = chunk.content_length();
        let first = chunk_bytes(options.chunk_bytes.get(), 0);
        // In bytes, not in chunks: once they have grown, fewer fit.
        let budget = first.saturating_mul(options.concurrency.get());
        while !self.in_flight.is_empty() && self.in_flight_bytes.saturating_add(size) > budget {
            self.reap().await?;
        }
        self.in_flight_bytes += size;
        let (remote, path, upload_id) = (Arc::clone(&self.remote), self.path.clone(), self.upload_id.clone());
        self.in_flight.spawn(async move {
            let id = remote.put_chunk(&path, &upload_id, index, chunk).await?;
            Ok(Uploaded { index, size, id })
        });
        Ok(())
    }

    async fn finish(&mut self, chunks: usize) -> Result<Staging, StoreError> {
        while !self.in_flight.is_empty() {
            self.reap().await?;
        }
        let done = std::mem::take(&mut self.done);
        if !done.keys().copied().eq(0..chunks) {
            return Err(self.error("chunks are missing (a bug)"));
        }
        Ok(Staging::Multipart { upload_id: self.upload_id.clone(), chunks: done.into_values().collect() })
    }

    async fn abort(mut self) -> Result<(), StoreError> {
        // A chunk that arrives after the abort would stay behind.
        self.in_flight.shutdown().await;
        self.remote.abort(&self.path, &self.upload_id).await
    }

    async fn reap(&mut self) -> Result<(), StoreError> {
        match self.in_flight.join_next().await {
            Some(Ok(Ok(Uploaded { index, size, id }))) => {
                self.in_flight_bytes = self.in_flight_bytes.saturating_sub(size);
                self.done.insert(index, id);
                Ok(())
            }
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(self.error(error)),
            None => Ok(()),
        }
    }

    fn error(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        let object = self.remote.object_url(&self.path);
        StoreError::new("writing", object, StoreFault::Unavailable, source)
    }
}
