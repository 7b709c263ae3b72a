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
    /// All partitions of the plan, the heaviest first: shards are dealt of these, however far the run has come.
    #[serde(skip)]
    pub all: Vec<WeighedPartition>,
    /// So many of the workers read at the same time, at most; the others wait.
    pub max_workers: usize,
}

/// An export of a job that waits for workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedExport {
    /// Its place in the job, from 0.
    pub number: u32,
    /// What people call it.
    pub name: String,
    /// The destination's URL, without credentials.
    pub destination: String,
    /// The epoch by which the run owns the destination.
    pub epoch: u64,
    /// SHA-256 of its plan, in hex.
    pub plan_sha256: String,
}

/// A partition of one of several exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPartition {
    /// The export, by its place in the job.
    pub export: u32,
    /// Its number in the plan of that export.
    pub number: u32,
    /// As [`WeighedPartition::weight`].
    pub weight: u64,
}

/// The exports of a job are planned, and wait for workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobInvitation {
    /// The run.
    pub run_id: String,
    /// The URL of the job's root, without credentials.
    pub destination: String,
    /// The highest epoch of its exports.
    pub epoch: u64,
    /// SHA-256 of what stands at the root for workers, in hex; the hashes of the plans are in it.
    pub plan_sha256: String,
    /// The version of outhaul that the workers must have.
    pub outhaul_version: String,
    /// The exports that wait; those that have ended are not among them.
    pub exports: Vec<InvitedExport>,
    /// What has no receipt yet of all of them, the heaviest first.
    pub partitions: Vec<JobPartition>,
    /// So many of the workers read at the same time, at most; the others wait.
    pub max_workers: usize,
}

/// What a run says to whoever starts its workers, once it waits for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ReadyLine {
    /// One export.
    One(Invitation),
    /// Several.
    Job(JobInvitation),
}

/// Partitions of one export of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportShare {
    /// The export, by its number or its name.
    pub export: String,
    /// Its partitions, in the order in which they are read.
    pub partitions: Vec<u32>,
}

/// Which partitions a worker reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerShare {
    /// These, in this order.
    Partitions(Vec<u32>),
    /// These of the exports of a job.
    OfExports(Vec<ExportShare>),
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
    /// The export of a job that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<u32>,
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
