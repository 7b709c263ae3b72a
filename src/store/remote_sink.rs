//! An upload as the end of a [`PartWriter`](super::PartWriter).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::checksums::Checksums;
use super::chunks::{ChunkBuffer, chunk_bytes};
use super::error::{StoreError, StoreFault};
use super::facts::StoreOptions;
use super::journal::Journal;
use super::remote::Remote;
use super::writer::compute;
use crate::base::cpu::TaskLost;
use crate::base::failpoint;
use crate::model::Staging;

#[derive(Debug)]
pub(super) struct RemoteSink {
    remote: Arc<Remote>,
    path: String,
    options: StoreOptions,
    upload_id: String,
    gather: ChunkBuffer,
    /// Chunks taken from `gather`.
    chunks: usize,
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
    pub(super) async fn start(
        remote: &Arc<Remote>,
        options: StoreOptions,
        path: &str,
        content_type: &str,
        journal: &Journal,
    ) -> Result<Self, StoreError> {
        let upload_id = remote.start(path, content_type).await?;
        failpoint::reach("upload-begun").await;
        if let Err(error) = journal.record_upload(path, &upload_id).await {
            // Best effort: the first error is the one to report.
            let _ = remote.abort(path, &upload_id).await;
            return Err(error);
        }
        failpoint::reach("upload-noted").await;
        Ok(Self {
            remote: Arc::clone(remote),
            path: path.to_owned(),
            options,
            upload_id,
            gather: ChunkBuffer::new(chunk_bytes(options.chunk_bytes.get(), 0)),
            chunks: 0,
            in_flight: JoinSet::new(),
            in_flight_bytes: 0,
            done: BTreeMap::new(),
        })
    }

    /// Takes as much of `bytes` as fits. True once the chunk is full.
    pub(super) fn fill(&mut self, bytes: &mut Bytes) -> bool {
        self.gather.fill(bytes)
    }

    /// Bytes in the chunk that fills.
    pub(super) fn gathered(&self) -> usize {
        self.gather.len()
    }

    /// Hashes the chunk that fills, waits until it fits in what may be in flight, and sends it off.
    pub(super) async fn send(&mut self, object: &str, mut checksums: Checksums) -> Result<Checksums, StoreError> {
        let index = self.chunks;
        let chunk = self.gather.take(chunk_bytes(self.options.chunk_bytes.get(), index + 1));
        let size = chunk.content_length();
        let hash = move || {
            for piece in &chunk {
                checksums.update(piece);
            }
            (checksums, chunk)
        };
        let (checksums, chunk) = compute(object, size, hash).await?;
        let first = chunk_bytes(self.options.chunk_bytes.get(), 0);
        // In bytes, not in chunks: once they have grown, fewer fit.
        let budget = first.saturating_mul(self.options.concurrency.get());
        while !self.in_flight.is_empty() && self.in_flight_bytes.saturating_add(size) > budget {
            self.reap().await?;
        }
        self.in_flight_bytes += size;
        let (remote, path, upload_id) = (Arc::clone(&self.remote), self.path.clone(), self.upload_id.clone());
        self.in_flight.spawn(async move {
            let id = remote.put_chunk(&path, &upload_id, index, chunk).await?;
            Ok(Uploaded { index, size, id })
        });
        self.chunks += 1;
        Ok(checksums)
    }

    pub(super) async fn finish(&mut self) -> Result<Staging, StoreError> {
        while !self.in_flight.is_empty() {
            self.reap().await?;
        }
        let done = std::mem::take(&mut self.done);
        if !done.keys().copied().eq(0..self.chunks) {
            return Err(self.error("chunks are missing (a bug)"));
        }
        Ok(Staging::Multipart { upload_id: self.upload_id.clone(), chunks: done.into_values().collect() })
    }

    pub(super) async fn abort(mut self) -> Result<(), StoreError> {
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
            Some(Err(error)) => Err(self.error(TaskLost::from(error))),
            None => Ok(()),
        }
    }

    fn error(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        let object = self.remote.object_url(&self.path);
        StoreError::new("writing", object, StoreFault::Unavailable, source)
    }
}
