//! Standard output as a destination (`--to -`): one object, visible as it is written.

use std::io::Write;

use bytes::Bytes;

use super::checksums::Checksums;
use super::error::{StoreError, StoreFault};
use crate::model::{StagedObject, Staging};

/// The name of standard output in receipts and messages.
pub(crate) const STDOUT: &str = "-";

/// Writes one object to standard output.
#[derive(Debug)]
pub(crate) struct StdoutWriter {
    bytes: u64,
    /// `None` while a write is under way, and for good if it failed or was cancelled.
    checksums: Option<Checksums>,
}

impl StdoutWriter {
    /// A writer that has written nothing.
    pub(crate) fn new(sha256: bool) -> Self {
        Self { bytes: 0, checksums: Some(Checksums::new(sha256)) }
    }

    /// Writes and flushes; waits as long as whoever reads the pipe lets it wait.
    ///
    /// # Errors
    /// The reader closed the pipe, the disk behind it is full, or an earlier write failed.
    ///
    /// Cancel safety: none; what was written stays written, and the writer is spent.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let mut checksums = self.checksums.take().ok_or_else(spent)?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let written = tokio::task::spawn_blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()?;
            checksums.update(&bytes);
            Ok::<_, std::io::Error>(checksums)
        });
        match written.await {
            Ok(Ok(checksums)) => {
                self.checksums = Some(checksums);
                self.bytes = self.bytes.saturating_add(size);
                Ok(())
            }
            Ok(Err(error)) => {
                use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
                let full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
                Err(failed(if full { StoreFault::Full } else { StoreFault::Unavailable }, error))
            }
            Err(error) => Err(failed(StoreFault::Unavailable, error)),
        }
    }

    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// What was written.
    ///
    /// # Errors
    /// An earlier write failed.
    pub(crate) fn finish(self) -> Result<StagedObject, StoreError> {
        let (crc64nvme, sha256) = self.checksums.ok_or_else(spent)?.finish();
        Ok(StagedObject { path: STDOUT.to_owned(), bytes: self.bytes, crc64nvme, sha256, staging: Staging::Published })
    }
}

fn failed(fault: StoreFault, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new("writing", "standard output", fault, source)
}

fn spent() -> StoreError {
    failed(StoreFault::Unavailable, "an earlier write failed")
}
