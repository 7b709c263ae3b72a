//! What is asked of a store, and what it tells.

use std::num::NonZeroUsize;

use bytes::Bytes;

use super::chunks::UPLOAD_CHUNK_BYTES_MIN;
use crate::model::StagedObject;

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of the first chunks of an upload; `store/chunks.rs` says how it grows.
    pub chunk_bytes: NonZeroUsize,
    /// Chunks in flight for one object.
    pub concurrency: NonZeroUsize,
    /// Whether objects get a SHA-256 too.
    pub sha256: bool,
}

impl StoreOptions {
    /// For whoever reads, and writes only small records.
    pub fn small() -> Self {
        let (chunk_bytes, concurrency) =
            (NonZeroUsize::MIN.saturating_add(UPLOAD_CHUNK_BYTES_MIN - 1), NonZeroUsize::MIN);
        Self { chunk_bytes, concurrency, sha256: false }
    }
}

/// Which content of an object was seen, so that a later write can depend on nobody having changed it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The store's `ETag`; of a local file, its time, size and inode.
    pub(super) e_tag: Option<String>,
    /// The version or generation, where the store counts them.
    pub(super) generation: Option<String>,
}

/// A small object, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Small {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its version.
    pub version: Version,
}

/// What a store tells of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Its size.
    pub bytes: u64,
    /// Its version.
    pub version: Version,
    /// CRC64NVME of the whole object, where the store keeps one.
    pub crc64nvme: Option<u64>,
    /// When it was written, and which it is, in the store's own words: another text for whatever is written there later. Only
    /// what comes within one tick of the store's clock, a second or two, may have the same text.
    pub stamp: String,
}

impl ObjectFacts {
    /// Whether the object may have this size and checksum.
    pub(crate) fn fits(&self, bytes: u64, crc64nvme: u64) -> bool {
        self.bytes == bytes && self.crc64nvme.is_none_or(|crc| crc == crc64nvme)
    }

    /// Whether the object is not the one of this stamp, which stood there before.
    pub(crate) fn is_after(&self, before: Option<&str>) -> bool {
        before != Some(self.stamp.as_str())
    }
}

/// What the name of a staged object tells of an object that stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameKind {
    /// It is of one attempt: nobody else's object stands there.
    Unique,
    /// It is anybody's, and what stands there is replaced. `before` is the stamp of that.
    Shared { before: Option<String> },
}

impl NameKind {
    /// Whether the staged object is what stands at its name, though nobody has said that it was published.
    pub(super) fn has_published(&self, staged: &StagedObject, there: &ObjectFacts) -> bool {
        let is_new = match self {
            Self::Unique => true,
            // A checksum of the store's own proves the bytes, whoever wrote them.
            Self::Shared { before } => there.crc64nvme.is_some() || there.is_after(before.as_deref()),
        };
        is_new && there.fits(staged.bytes, staged.crc64nvme)
    }
}

/// What became of a create-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It was not there, and now is.
    Created,
    /// The store says something is there. It may be our own bytes, when the answer to a first try was lost, or nothing
    /// (S3 answers 409 to writers that race): read back and compare.
    Exists,
}

/// What became of a conditional replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplaceOutcome {
    /// The object had the expected version, and now has the new bytes.
    Replaced,
    /// It has another version, or is gone. It may be our own bytes: read back and compare.
    Changed,
}
