//! Stage 5, COMMIT: receipts become one manifest, written once, last, and read back (invariant I2).
//!
//! ```text
//! receipts ──build──> Manifest ──commit──> parts visible, _manifest.json, foreign manifests, _SUCCESS
//!                                 look <── what stands at a destination before a run
//!                               verify <── whether the destination still is what its manifest says
//! ```

pub mod build;
pub mod error;
pub mod foreign;
pub mod model;
pub mod types;
pub mod wire;

pub use build::{RunFacts, build};
pub use error::ManifestError;
pub use model::Manifest;

#[cfg(test)]
mod test_data;
