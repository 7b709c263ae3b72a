//! Stage 5, COMMIT: receipts become one manifest, written once, last, and read back (invariant I2).
//!
//! ```text
//! receipts ──build──> Manifest ──protocol──> parts visible, _manifest.json, what describes it, _SUCCESS
//!                                recover <── what a commit that died left undone
//!                                   look <── what stands at a destination before a run
//! ```

pub(crate) mod build;
mod documents;
mod error;
mod existing;
pub mod model;
pub(crate) mod placement;
mod protocol;
mod record;
mod recover;
mod strangers;
pub(crate) mod types;
mod watermark;
pub mod wire;

pub(crate) use build::{RunFacts, build};
pub(crate) use documents::Document;
pub use error::ManifestError;
pub(crate) use existing::{Existing, StartDecision, before_run, look};
pub use model::Manifest;
pub use placement::Placement;
pub(crate) use protocol::{CommitRules, Committed, commit};
pub(crate) use record::CommitRecord;
pub(crate) use recover::{Recovered, recover};
pub(crate) use strangers::strangers;
pub(crate) use wire::crc64nvme_text;

#[cfg(test)]
pub(crate) mod test_data;
