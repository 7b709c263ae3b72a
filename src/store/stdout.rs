//! Standard output as a destination (`--to -`): one object, visible as it is written.

use std::io::Write;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use sha2::{Digest as _, Sha256};

use super::error::{StoreError, StoreFault};
use super::receipt::{StagedObject, Staging};

/// The name of standard output in receipts and messages.
pub const STDOUT: &str = "-";

/// Writes one object to standard output.
#[derive(Debug)]
pub struct StdoutWriter {
    bytes: u64,
    /// `None` while a write is under way, and for good if it failed or was cancelled.
    digests: Option<Digests>,
}

#[derive(Debug)]
struct Digests {
    crc: Digest,
    sha256: Option<Sha256>,
}

impl StdoutWriter {
    /// A writer that has written nothing.
    pub fn new(sha256: bool) -> Self {
        let digests = Digests { crc: Digest::new(CrcAlgorithm::Crc64Nvme), sha256: sha256.then(Sha256::new) };
        Self { bytes: 0, digests: Some(digests) }
    }

    /// Writes and flushes; waits as long as whoever reads the pipe lets it wait.
    ///
    /// # Errors
    /// The reader closed the pipe, the disk behind it is full, or an earlier write failed.
    ///
    /// Cancel safety: none; what was written stays written, and the writer is spent.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let mut digests = self.digests.take().ok_or_else(spent)?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let written = tokio::task::spawn_blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()?;
            digests.crc.update(&bytes);
            if let Some(sha256) = &mut digests.sha256 {
                sha256.update(&bytes);
            }
            Ok::<_, std::io::Error>(digests)
        });
        match written.await {
            Ok(Ok(digests)) => {
                self.digests = Some(digests);
                self.bytes = self.bytes.saturating_add(size);
                Ok(())
            }
            Ok(Err(error)) => {
                let full = error.kind() == std::io::ErrorKind::StorageFull;
                Err(failed(if full { StoreFault::Full } else { StoreFault::Unavailable }, error))
            }
            Err(error) => Err(failed(StoreFault::Unavailable, error)),
        }
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// What was written.
    ///
    /// # Errors
    /// An earlier write failed.
    pub fn finish(self) -> Result<StagedObject, StoreError> {
        let Digests { crc, sha256 } = self.digests.ok_or_else(spent)?;
        Ok(StagedObject {
            path: STDOUT.to_owned(),
            bytes: self.bytes,
            crc64nvme: crc.finalize(),
            sha256: sha256.map(|sha256| sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            staging: Staging::Published,
        })
    }
}

fn failed(fault: StoreFault, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new("writing", "standard output", fault, source)
}

fn spent() -> StoreError {
    failed(StoreFault::Unavailable, "an earlier write failed")
}
