//! Receipts: proof that the parts of a partition are uploaded whole, and not yet visible. The journal keeps them in a form of
//! their own (`store/receipt_file.rs`).

use chrono::{DateTime, Utc};

use super::FolderValue;

/// Where the bytes of a staged object wait for commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staging {
    /// A file under `_outhaul/<run_id>/staging/`, renamed at commit. The path is relative to the destination.
    Local {
        /// The staged file.
        file: String,
    },
    /// An open multipart upload whose chunks are all there; completed at commit.
    Multipart {
        /// The upload's id.
        upload_id: String,
        /// What `put_part` returned, in order.
        chunks: Vec<String>,
    },
    /// Already visible (`--visibility as-written`).
    Published,
}

impl Staging {
    /// The upload that the object is to come from.
    pub(crate) fn upload_id(&self) -> Option<&str> {
        match self {
            Self::Multipart { upload_id, .. } => Some(upload_id),
            Self::Local { .. } | Self::Published => None,
        }
    }
}

/// One object, uploaded whole. Only [`PartWriter::finish`](crate::store::PartWriter::finish) makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedObject {
    /// The path it gets at commit, relative to the destination.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// CRC64NVME of all its bytes.
    pub crc64nvme: u64,
    /// SHA-256 of all its bytes, in hex, where asked for.
    pub sha256: Option<String>,
    /// Where the bytes are now.
    pub staging: Staging,
}

/// Count and extremes of one column in one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSummary {
    /// The output column.
    pub name: String,
    /// How many values are NULL.
    pub nulls: u64,
    /// The least value, as PostgreSQL prints it; `None` where unknown, withheld or all NULL.
    pub min: Option<String>,
    /// The greatest value.
    pub max: Option<String>,
    /// Whether `min` and `max` are values of the part rather than bounds around them.
    pub exact: bool,
    /// How many values a policy changed. The manifest has the sum over all parts, in its schema.
    pub changed: u64,
}

/// One part: an object and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct PartReceipt {
    /// The object.
    pub object: StagedObject,
    /// 0, 1, 2, … within the partition.
    pub roll: u32,
    /// The folders that it is in, from the outside in, with `--partition-by`.
    pub folders: Vec<FolderValue>,
    /// Data rows; `None` where the bytes are of a format of the source's own, in which nobody counts rows.
    pub rows: Option<u64>,
    /// Header lines.
    pub header_rows: u32,
    /// Bytes the header takes.
    pub header_bytes: u64,
    /// One entry for each column of the files.
    pub columns: Vec<ColumnSummary>,
    /// When its first row was asked for.
    pub started_at: DateTime<Utc>,
    /// When its last byte was accepted.
    pub finished_at: DateTime<Utc>,
}

/// What was read of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmountRead {
    /// So many rows, which the source confirmed.
    Rows(u64),
    /// So many bytes of a format of the source's own.
    Bytes(u64),
}

impl AmountRead {
    /// The rows, where rows were read.
    pub fn rows(self) -> Option<u64> {
        match self {
            Self::Rows(rows) => Some(rows),
            Self::Bytes(_) => None,
        }
    }

    /// Whether there was nothing.
    pub fn is_nothing(self) -> bool {
        matches!(self, Self::Rows(0) | Self::Bytes(0))
    }
}

/// A partition, read to its end and uploaded whole.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionReceipt {
    /// Its number.
    pub partition: u32,
    /// The attempt's random id, as in the names of its parts.
    pub attempt: u32,
    /// What was read; equals the sum over `parts` (invariant I3).
    pub read: AmountRead,
    /// Whether the statement had a row beyond the cap, where it was asked for one more. That row is in no part.
    pub beyond_cap: bool,
    /// Its parts in roll order; none for a partition without rows, unless it stands for an empty relation.
    pub parts: Vec<PartReceipt>,
}
