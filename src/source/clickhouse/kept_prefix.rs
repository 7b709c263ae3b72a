//! The bytes that came before an answer failed, kept in a file where a person asks for them: rows, and never all of them.

use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::super::{SourceError, SourceFault};
use crate::base::words::counted;

/// The file, while the answer comes. It stays where it is dropped.
#[derive(Debug)]
pub(crate) struct KeptPrefix {
    path: PathBuf,
    file: File,
    bytes: u64,
}

fn failed(path: &Path, error: std::io::Error) -> SourceError {
    SourceError::new(SourceFault::Usage, format!("--keep-partial {}: it cannot be written", path.display()))
        .with_source(error)
}

impl KeptPrefix {
    /// # Errors
    /// There is something already, and nobody said that it may go.
    pub(crate) fn check(path: &Path) -> Result<(), SourceError> {
        if !path.exists() {
            return Ok(());
        }
        let message = format!("--keep-partial {}: there is a file already", path.display());
        Err(SourceError::new(SourceFault::Usage, message).with_hint("remove it, or name another"))
    }

    /// Begins it, and again where the answer is asked for again.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) async fn begin(path: &Path) -> Result<Self, SourceError> {
        let file = File::create(path).await.map_err(|error| failed(path, error))?;
        Ok(Self { path: path.to_owned(), file, bytes: 0 })
    }

    /// # Errors
    /// The file cannot be written.
    pub(crate) async fn add(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let written = async {
            self.file.write_all(bytes).await?;
            self.file.flush().await
        };
        written.await.map_err(|error| failed(&self.path, error))?;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// The answer is whole, and elsewhere.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) async fn remove(self) -> Result<(), SourceError> {
        drop(self.file);
        tokio::fs::remove_file(&self.path).await.map_err(|error| failed(&self.path, error))
    }

    /// An error, which says what is kept of the answer.
    pub(crate) fn told(self, error: SourceError) -> SourceError {
        let kept = format!(
            "{} has the {} that came before, which are incomplete",
            self.path.display(),
            counted(self.bytes, "byte")
        );
        let hint = error.hint.as_ref().map_or_else(|| kept.clone(), |hint| format!("{hint}; {kept}"));
        error.with_hint(hint)
    }
}
