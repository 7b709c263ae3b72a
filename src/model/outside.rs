//! What a run whose partitions other processes read has in common with them.

use serde::{Deserialize, Serialize};

/// Who reads the partitions of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// The process that plans and commits.
    Own,
    /// Other processes, which whoever runs this one has started: `outhaul worker`.
    External,
}

/// What the end of standard input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdinRule {
    /// Whoever started the process is gone: it stops.
    Watch,
    /// Nothing.
    Ignore,
}

/// What a run says of itself to those who are to read its partitions, in its owner record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkersWanted {
    /// SHA-256 of the run's plan, in hex: a worker reads by no other.
    pub plan_sha256: String,
    /// So many of them read at the same time, at most.
    pub max_workers: usize,
}

/// What tells one process of a run from another, and one plan from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFence {
    /// The run.
    pub run_id: String,
    /// The epoch of the process that commits it.
    pub epoch: u64,
    /// SHA-256 of its plan, in hex.
    pub plan_sha256: String,
}

/// A partition as whoever deals them out sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WeighedPartition {
    /// Its number.
    pub number: u32,
    /// About how many bytes it has at the source; 1 where nothing is known of any.
    pub weight: u64,
}

/// The run is planned, and waits for workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invitation {
    /// The run.
    pub run_id: String,
    /// The destination's URL, without credentials.
    pub destination: String,
    /// The epoch by which it owns the destination.
    pub epoch: u64,
    /// SHA-256 of its plan, in hex.
    pub plan_sha256: String,
    /// The version of outhaul that the workers must have.
    pub outhaul_version: String,
    /// What has no receipt yet, the heaviest first.
    pub partitions: Vec<WeighedPartition>,
    /// So many of the workers read at the same time, at most; the others wait.
    pub max_workers: usize,
}

/// Which partitions a worker reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerShare {
    /// These, in this order.
    Partitions(Vec<u32>),
    /// Those that fall to it where all are dealt by weight.
    Shard {
        /// Which worker it is, from 0.
        index: u32,
        /// How many there are.
        of: u32,
    },
}

/// What a worker tells of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionDone {
    /// The run.
    pub run_id: String,
    /// The partition.
    pub partition: u32,
    /// The attempt, as in the names of its parts.
    pub attempt: String,
    /// Rows; none where the bytes are of a format of the source's own.
    pub rows: Option<u64>,
    /// Bytes of its parts.
    pub bytes: u64,
    /// Its parts.
    pub parts: usize,
    /// Whether it had a receipt already, so that nothing was read.
    pub already: bool,
}
