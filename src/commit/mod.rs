//! Stage 5, COMMIT: receipts become one manifest, written once, last, and read back (invariant I2).
//!
//! ```text
//! receipts ──build──> Manifest ──protocol──> parts visible, _manifest.json, what describes it, _SUCCESS
//!                                recover <── what a commit that died left undone
//!                                   look <── what stands at a destination before a run
//! ```

pub mod build;
pub mod documents;
pub mod error;
pub mod existing;
pub mod model;
pub mod placement;
pub mod protocol;
pub mod recover;
pub(crate) mod types;
pub mod wire;

pub use build::{RunFacts, build};
pub use documents::{Describe, Document};
pub use error::ManifestError;
pub use existing::{Existing, Standing, before_run, look};
pub use model::Manifest;
pub use placement::Placement;
pub use protocol::{CommitRecord, CommitRules, Committed, commit};
pub use recover::{Recovered, recover};

#[cfg(test)]
pub(crate) mod test_data;
