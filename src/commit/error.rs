//! What can go wrong between the last receipt and a manifest that stands.

use super::wire::WireError;
use crate::base::cpu::CpuPanic;
use crate::base::words::{counted, first_of};
use crate::store::StoreError;
use crate::store::error::StoreFault;

/// An error of the commit stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are named for what they hold, and each message says it")]
pub enum ManifestError {
    /// A partition's parts do not hold the rows that were read for it (invariant I3).
    #[error("partition {partition}: {} came, but its parts hold {written}", counted(*.read, "row"))]
    RowCount {
        partition: u32,
        /// Rows that the source confirmed.
        read: u64,
        written: u64,
    },
    /// The receipts are not one for each planned partition.
    #[error("{found} receipts say they are of partition {partition}, where the plan wants {expected}")]
    Receipts {
        partition: u32,
        found: u64,
        /// 1 for a planned partition, 0 for any other number.
        expected: u64,
    },
    /// A partition's parts are not numbered 0, 1, 2, … .
    #[error("partition {partition}: its part {roll} is missing")]
    Rolls {
        partition: u32,
        /// The first number that is missing.
        roll: u32,
    },
    /// A partition whose bytes are not all there.
    #[error("partition {partition}: {} were read and {written} were written", counted(*.read, "byte"))]
    ByteCount { partition: u32, read: u64, written: u64 },
    /// Rows where the plan has bytes of the source's own, or the other way round.
    #[error("partition {partition}: its receipt is not of what its plan gives, rows or bytes")]
    Content { partition: u32 },
    /// Two parts have one name.
    #[error("two parts are named {path}")]
    DuplicatePath { path: String },
    /// A part is not in the folders that were asked for.
    #[error("{path} has no value for each of its folders, or other ones")]
    Folders { path: String },
    /// There is not even the one part of an empty relation.
    #[error("there is no part; an empty relation has one")]
    NoParts,
    /// The rows are not the cap's (invariant I7).
    #[error("the parts hold {} under a cap of {cap} that was planned to be {planned}", counted(*.rows, "row"))]
    Cap {
        rows: u64,
        cap: u64,
        /// `reached` (so rows must equal the cap) or `not exceeded`.
        planned: &'static str,
    },
    /// A sum does not fit 64 bits.
    #[error("the sum of {what} exceeds 64 bits")]
    Overflow { what: &'static str },
    /// The manifest could not be turned into JSON.
    #[error("writing the manifest of run {run_id}")]
    Serialize { run_id: String, source: WireError },
    /// The staged objects are not the manifest's parts.
    #[error("part {path} of the manifest and its staged object differ")]
    Staged { path: String },
    /// A manifest stands where this run was to put its own, and is not the one it may replace.
    #[error("the manifest of run {run_id} stands at {object}")]
    Taken { object: String, run_id: String },
    /// The manifest that was to be replaced has gone meanwhile.
    #[error("the manifest to be replaced is no longer at {object}")]
    Vanished { object: String },
    /// An object that no manifest describes stands where the single file was to be.
    #[error("{object} is there already, and no manifest describes it")]
    Occupied { object: String },
    /// Objects that no manifest and no journal names stand where the parts are to be.
    #[error("{destination} has {} among its parts that no manifest names: {}", counted(objects.len(), "object"), first_of(objects))]
    Strangers {
        destination: String,
        /// Relative to the destination.
        objects: Vec<String>,
    },
    /// The run id was used for another request.
    #[error("run {run_id} committed a different export at {object}: {} {}", fields.join(", "), if fields.len() == 1 { "differs" } else { "differ" })]
    OtherRequest {
        object: String,
        run_id: String,
        /// What differs, in the words of the options.
        fields: Vec<&'static str>,
    },
    /// What stands at a manifest's place cannot be read as one.
    #[error("reading the manifest at {object}")]
    Decode { object: String, source: WireError },
    /// The manifest could not be read before the commit.
    #[error("looking for a manifest")]
    Look(#[source] StoreError),
    /// An old `_SUCCESS` could not be removed.
    #[error("removing the old _SUCCESS")]
    ClearSuccess(#[source] StoreError),
    /// A part could not be made visible; those that were are removed again.
    #[error("making the parts visible")]
    Publish(#[source] StoreError),
    /// The commit failed, and not all that it had made visible could be removed again.
    #[error("a commit that failed could not remove {} again", counted(*.left, "part"))]
    Stranded {
        /// How many may still be visible.
        left: usize,
        source: Box<ManifestError>,
    },
    /// The manifest was not written, and reading it back shows that.
    #[error("writing the manifest")]
    Write(#[source] StoreError),
    /// The store said that it wrote the manifest, and it is not there.
    #[error("the store says that it wrote {object}, but it is not there")]
    NotThere { object: String },
    /// The manifest could not be read back: the run may be committed. Nothing was removed.
    #[error("the run may be committed, but its manifest cannot be read back")]
    ReadBack(#[source] StoreError),
    /// The run is committed, and a file that only describes it could not be written.
    #[error("the run is committed, but {what} is not written")]
    Unfinished { what: String, source: StoreError },
    /// The destination could not be looked at.
    #[error("verifying")]
    Verify(#[source] StoreError),
    /// The destination is no longer this run's, or that cannot be found out.
    #[error("making sure that the destination is still ours")]
    Owner(#[source] StoreError),
    /// Another run has taken the destination over while the manifest was on its way, and has removed parts that it names.
    #[error(
        "another run took the destination over while {object} was written, and {path} is gone: the export is not whole"
    )]
    Overtaken { object: String, path: String },
    /// What a dead run left visible could not be removed.
    #[error("removing {path}, which a dead run left")]
    Remove {
        /// The object, relative to the destination.
        path: String,
        source: StoreError,
    },
    /// A computation panicked.
    #[error("working on a manifest")]
    Panic(#[from] CpuPanic),
}

impl ManifestError {
    /// The class of the error, where it is the destination's. Everything else is a bug (exit 1), but for
    /// [`ManifestError::OtherRequest`], which counts as taken.
    pub fn fault(&self) -> Option<StoreFault> {
        match self {
            Self::Taken { .. }
            | Self::Vanished { .. }
            | Self::Occupied { .. }
            | Self::Strangers { .. }
            | Self::OtherRequest { .. }
            | Self::Overtaken { .. }
            // Somebody wrote it, and it was not this build.
            | Self::Decode { .. } => Some(StoreFault::Taken),
            Self::NotThere { .. } => Some(StoreFault::Unavailable),
            Self::Stranded { source, .. } => source.fault(),
            _ => self.store().map(|store| store.fault),
        }
    }

    /// The error of the destination that it is about, where it is about one.
    pub fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Look(source)
            | Self::ClearSuccess(source)
            | Self::Publish(source)
            | Self::Write(source)
            | Self::ReadBack(source)
            | Self::Unfinished { source, .. }
            | Self::Owner(source)
            | Self::Remove { source, .. }
            | Self::Verify(source) => Some(source),
            Self::Stranded { source, .. } => source.store(),
            Self::Taken { .. }
            | Self::Vanished { .. }
            | Self::Occupied { .. }
            | Self::Strangers { .. }
            | Self::OtherRequest { .. }
            | Self::Overtaken { .. }
            | Self::Decode { .. }
            | Self::NotThere { .. }
            | Self::RowCount { .. }
            | Self::ByteCount { .. }
            | Self::Content { .. }
            | Self::Receipts { .. }
            | Self::Rolls { .. }
            | Self::DuplicatePath { .. }
            | Self::Folders { .. }
            | Self::NoParts
            | Self::Cap { .. }
            | Self::Overflow { .. }
            | Self::Serialize { .. }
            | Self::Staged { .. }
            | Self::Panic(_) => None,
        }
    }

    /// Whether the manifest stands, or may. Then nothing of the run may be discarded: a manifest could name it.
    pub fn may_be_committed(&self) -> bool {
        matches!(self, Self::ReadBack(_) | Self::Unfinished { .. } | Self::Overtaken { .. })
    }
}
