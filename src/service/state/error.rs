//! Why the state store could not be opened, or did not answer.

use std::error::Error;
use std::path::{Path, PathBuf};

/// A fault of the state store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another process has the file.
    #[error("the state file {} is in use by another process{}", .path.display(), named(.holder.as_ref()))]
    InUse {
        path: PathBuf,
        /// The process that says it has it.
        holder: Option<u32>,
    },
    /// A newer outhaul wrote the file.
    #[error(
        "the state file {} was last written by outhaul {written_by}, and outhaul {} cannot read its version {version}",
        .path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    TooNew { path: PathBuf, written_by: String, version: i64 },
    /// The file is somebody else's.
    #[error("{} is no state file of outhaul", .path.display())]
    Foreign { path: PathBuf },
    /// The file or its lock cannot be opened.
    #[error("opening the state file {}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The database failed.
    #[error("the state store failed while {doing}")]
    Database { doing: &'static str, source: Box<dyn Error + Send + Sync> },
    /// An export with this id was begun before.
    #[error("there is an export {id} already")]
    Taken { id: String },
    /// An end that is none.
    #[error("an export does not end as {status}")]
    NoEnd { status: &'static str },
    /// Its thread has ended, which is a bug.
    #[error("the state store has stopped")]
    Stopped,
}

impl StateError {
    pub(crate) fn database(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { doing, source: Box::new(source) }
    }

    pub(crate) fn file(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }

    /// What to do, where it is known.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => Some(
                "one process of `outhaul serve` has a state file to itself: stop the other, or give this one another \
                 file with `state`",
            ),
            Self::TooNew { .. } => {
                Some("go on with that version of outhaul or a later one, or begin another file with `state`")
            }
            Self::Foreign { .. } => Some("name another file with `state`; one that is missing is made"),
            Self::File { .. } => Some("the folder must be there, and file and folder must be writable"),
            Self::Database { .. } | Self::Taken { .. } | Self::NoEnd { .. } | Self::Stopped => None,
        }
    }
}

fn named(pid: Option<&u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
