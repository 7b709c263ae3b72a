//! Why the state store could not be opened, or did not answer.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::base::voice;

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
    /// A newer outhaul wrote it.
    #[error(
        "{place} was last written by outhaul {written_by}, and outhaul {} cannot read its version {version}",
        env!("CARGO_PKG_VERSION")
    )]
    TooNew { place: String, written_by: String, version: i64 },
    /// It is somebody else's.
    #[error("{place} is none of outhaul")]
    Foreign { place: String },
    /// Not every text can be kept in the database.
    #[error("the state database keeps its texts in {encoding}")]
    Encoding { encoding: String },
    /// The database cannot be reached, or does not let us in.
    #[error("the state database cannot be reached")]
    Unreachable { source: Box<dyn Error + Send + Sync> },
    /// The role may not do what the service will have to.
    #[error("the role may not {what} in the state database")]
    Rights { what: &'static str },
    /// The file or its lock cannot be opened.
    #[error("opening the state file {}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The database failed. Its own words are told, since the log has nothing else of it.
    #[error("the state store failed while {doing}: {}", why(source.as_ref()))]
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
                "one process of `outhaul serve` has a state file to itself: stop the other, or give both one PostgreSQL \
                 database with `state_url`",
            ),
            Self::TooNew { .. } => Some(
                "go on with that version of outhaul or a later one, or name another place with `state` or `state_url`",
            ),
            Self::Foreign { .. } => Some("name another with `state` or `state_url`; what is missing is made"),
            Self::Encoding { .. } => Some("make one for it: CREATE DATABASE outhaul ENCODING UTF8 TEMPLATE template0"),
            Self::Unreachable { .. } => Some("check `state_url`, and that the server runs and lets this role in"),
            Self::Rights { .. } => Some(
                "let it: GRANT CREATE ON DATABASE, or an empty schema `outhaul` of its own; tables that are there belong to \
                 one role, for all processes",
            ),
            Self::File { .. } => Some("the folder must be there, and file and folder must be writable"),
            Self::Database { .. } | Self::Taken { .. } | Self::NoEnd { .. } | Self::Stopped => None,
        }
    }
}

/// The database's own words, without what it quotes of a row: that may be what a caller asked for.
fn why(source: &(dyn Error + 'static)) -> String {
    let words = voice::cause(source);
    words.split(" DETAIL: ").next().unwrap_or_default().to_owned()
}

fn named(pid: Option<&u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
