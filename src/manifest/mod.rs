//! Stage 5, COMMIT: receipts become one manifest, written once, last, and read back (invariant I2).
//!
//! ```text
//! receipts ──build──> Manifest ──commit──> parts visible, _manifest.json, foreign manifests, _SUCCESS
//!                              recover <── what a commit that died left undone
//!                                 look <── what stands at a destination before a run
//!                                  ddl <── how other engines read it
//!                               verify <── whether the destination still is what its manifest says
//! ```

pub(crate) mod build;
mod commit;
pub(crate) mod ddl;
mod documents;
mod error;
pub(crate) mod existing;
pub(crate) mod foreign;
pub mod model;
pub(crate) mod placement;
mod recover;
mod types;
pub mod verify;
pub mod wire;

pub(crate) use build::{RunFacts, build};
pub(crate) use commit::{CommitRecord, CommitRules, Committed, commit};
pub use error::ManifestError;
pub(crate) use existing::{Existing, Standing, before_run, look};
pub use model::Manifest;
pub use placement::Placement;
pub(crate) use recover::{Recovered, recover};
pub use verify::{Finding, VerifyOptions, VerifyReport, verify};

#[cfg(test)]
pub(crate) mod test_data;
