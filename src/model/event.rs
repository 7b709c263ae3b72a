//! What a run tells whoever watches it: a closed set of events over a bounded channel.

use serde::Serialize;

use super::{ExportErrorKind, ExportReport, PartitionReceipt};

/// One event. `--progress json` prints them, one object a line, with `event` and `schema_version` in each.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run has begun.
    RunStarted {
        /// Its id.
        run_id: String,
        /// What is exported: a relation's name, or `query`.
        relation: String,
        /// The destination's URL, without credentials.
        destination: String,
        /// `parquet`, `csv` or `ndjson`.
        format: String,
        /// `none`, `snappy`, `lz4`, `zstd` or `gzip`.
        compression: String,
        /// Whether all rows go into one file.
        single_file: bool,
        /// Readers.
        readers: usize,
    },
    /// The plan stands; reading begins.
    Planned {
        /// Its id.
        run_id: String,
        /// Partitions.
        partitions: usize,
        /// Rows by the server's statistics, where there are any.
        estimated_rows: Option<u64>,
        /// Bytes on the server's disk, where known.
        estimated_bytes: Option<u64>,
        /// The snapshot that every read shares.
        snapshot: Option<String>,
        /// Whether the cap cuts rows off.
        truncated: bool,
        /// What an earlier process of the run has done already.
        resumed: ResumedProgress,
    },
    /// A reader has begun a partition.
    PartitionStarted {
        /// The reader, 0 to readers - 1.
        reader: usize,
        /// The partition.
        partition: u32,
    },
    /// Totals so far; at most a few a second.
    Progress {
        /// Rows encoded.
        rows: u64,
        /// Encoded bytes.
        bytes: u64,
        /// Partitions with a receipt.
        partitions_done: usize,
        /// Partitions in all.
        partitions: usize,
        /// One entry a reader.
        readers: Vec<ReaderProgress>,
    },
    /// One part is uploaded whole (not yet visible, but under `--visibility as-written`).
    PartFinished {
        /// Its path at commit, relative to the destination.
        path: String,
        /// The partition it belongs to.
        partition: u32,
        /// Its data rows.
        rows: u64,
        /// Its size.
        bytes: u64,
    },
    /// The commit has begun.
    Committing {
        /// Parts to publish.
        parts: usize,
    },
    /// The manifest stands and was read back.
    RunFinished {
        /// All of it.
        report: Box<ExportReport>,
    },
    /// The run ended without a manifest.
    RunFailed {
        /// Its id.
        run_id: String,
        /// The class of the failure, which a front end tells in its own way.
        #[serde(skip)]
        kind: ExportErrorKind,
        /// The whole chain of causes.
        error: String,
        /// What to do, where it is known.
        hint: Option<String>,
        /// Whether the same command may succeed later.
        retryable: bool,
    },
}

/// What was done before a run was resumed; it counts in the totals, and in no rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ResumedProgress {
    /// Partitions with a receipt.
    pub partitions: usize,
    /// Their rows.
    pub rows: u64,
    /// Their encoded bytes.
    pub bytes: u64,
}

impl ResumedProgress {
    /// That of the receipts with which a process begins.
    pub(crate) fn of(receipts: &[PartitionReceipt]) -> Self {
        let parts = || receipts.iter().flat_map(|receipt| &receipt.parts);
        Self {
            partitions: receipts.len(),
            rows: parts().fold(0, |sum, part| sum.saturating_add(part.rows.unwrap_or_default())),
            bytes: parts().fold(0, |sum, part| sum.saturating_add(part.object.bytes)),
        }
    }
}

/// What one reader is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReaderProgress {
    /// The partition it reads, if any.
    pub partition: Option<u32>,
    /// Rows of that partition so far.
    pub rows: u64,
    /// Encoded bytes of that partition so far.
    pub bytes: u64,
}
