//! One export, as it is asked for.

use super::keep::KeeperLaunch;
use crate::model::{CommitOptions, FormatOptions, PolicyOptions, ShapeOptions, WorkOptions};
use crate::source::postgres::ConnectSettings;

/// One export: one relation, one destination, one manifest.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Where the rows are.
    pub connect: ConnectSettings,
    /// Which rows and columns.
    pub shape: ShapeOptions,
    /// How they are written.
    pub format: FormatOptions,
    /// For whom, and what happens to values that cannot be written.
    pub policies: PolicyOptions,
    /// How the work is split.
    pub work: WorkOptions,
    /// Where it goes and how it is committed.
    pub commit: CommitOptions,
    /// How a keeper outside of this process is started, where the snapshot is to outlive it.
    pub keeper: Option<KeeperLaunch>,
}
