//! What a keeper outside of a run tells of itself.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A snapshot that a keeper of its own holds, as its run's journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSnapshot {
    /// The id to import.
    pub snapshot: String,
    /// Until when at most.
    pub until: DateTime<Utc>,
    /// The keeper's machine.
    pub host: String,
    /// The keeper's process.
    pub pid: u32,
}

/// What counts of a [`KeptSnapshot`] for whoever imports it; all that is known of one that the run itself holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotId {
    /// The id to import.
    pub snapshot: String,
}

/// Why a keeper let its snapshot go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepEnd {
    /// Its run has ended, or was cleaned away.
    RunEnded,
    /// Its time was up.
    Deadline,
    /// A session waited for its locks, with everybody else behind it.
    Yielded {
        /// The session's process on the server.
        pid: i32,
    },
    /// It was told to.
    Stopped,
}
