//! One export, as it is asked for.

use super::keep::KeeperLaunch;
use std::sync::Arc;

use crate::model::{CommitOptions, FormatOptions, PolicyOptions, ReadRequest, ShapeOptions, Target, WorkOptions};
use crate::source::Source;

/// One export: one relation, one destination, one manifest.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Where the rows are.
    pub source: Arc<dyn Source>,
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

impl ExportRequest {
    /// What of it the source is asked for.
    pub(crate) fn read_request(&self) -> ReadRequest {
        let Self { shape, format, policies, work, commit, .. } = self.clone();
        ReadRequest {
            // One object in one order is one partition.
            single: commit.single_file || matches!(commit.target, Target::Stream { .. }),
            run_id: commit.run_id,
            shape,
            format: format.format,
            policies,
            work,
            stats: commit.manifest_stats,
            keep: commit.keep_snapshot.is_some(),
        }
    }
}
