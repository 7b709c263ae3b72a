//! What can go wrong between the last receipt and a manifest that stands.

use super::wire::WireError;

/// An error of the commit stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A partition's parts do not hold the rows that were read for it (invariant I3).
    #[error("partition {partition}: {read} rows were read, but its parts hold {written}")]
    RowCount {
        /// The partition.
        partition: u32,
        /// Rows that the source confirmed.
        read: u64,
        /// Rows in its parts.
        written: u64,
    },
    /// The receipts are not one for each planned partition.
    #[error("{found} receipts say they are of partition {partition}, where the plan wants {expected}")]
    Receipts {
        /// The partition.
        partition: u32,
        /// Receipts with its number.
        found: u64,
        /// 1 for a planned partition, 0 for any other number.
        expected: u64,
    },
    /// A partition's parts are not numbered 0, 1, 2, … .
    #[error("partition {partition}: its part {roll} is missing")]
    Rolls {
        /// The partition.
        partition: u32,
        /// The first number that is missing.
        roll: u32,
    },
    /// Two parts have one name.
    #[error("two parts are named {path}")]
    DuplicatePath {
        /// The name.
        path: String,
    },
    /// There is not even the one part of an empty relation.
    #[error("there is no part; an empty relation has one")]
    NoParts,
    /// The rows are not the cap's (invariant I7).
    #[error("{rows} rows were written under a cap of {cap} that was planned to be {planned}")]
    Cap {
        /// Rows in all parts.
        rows: u64,
        /// The cap.
        cap: u64,
        /// `reached` (so rows must equal the cap) or `not exceeded`.
        planned: &'static str,
    },
    /// A sum does not fit 64 bits.
    #[error("the sum of {what} exceeds 64 bits")]
    Overflow {
        /// What was added up.
        what: &'static str,
    },
    /// A partition of the plan names a leaf that the plan does not have.
    #[error("partition {partition} reads leaf {leaf}, which the plan does not have")]
    UnknownLeaf {
        /// The partition.
        partition: u32,
        /// The leaf's index.
        leaf: usize,
    },
    /// The manifest could not be turned into JSON.
    #[error("writing the manifest of run {run_id}")]
    Serialize {
        /// The run.
        run_id: String,
        /// Why.
        source: WireError,
    },
}
