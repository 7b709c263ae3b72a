//! What stands at the root of a job for as long as its exports wait for workers: `_workers/<run_id>.json`. A worker that
//! knows the root finds there where the exports write, and which partitions they have.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::export::error::ExportError;
use crate::model::{ExportErrorKind, InvitedExport, JobPartition};
use crate::store::{Destination, unreadable};

/// The version of the file.
pub(super) const VERSION: u32 = 1;

/// Its folder at a root.
const FOLDER: &str = "_workers";

/// `_workers/<run_id>.json`, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PostedJob {
    pub(super) version: u32,
    pub(crate) run_id: String,
    /// The highest epoch of its exports.
    pub(super) epoch: u64,
    pub(super) outhaul_version: String,
    /// Those that wait for workers.
    pub(crate) exports: Vec<InvitedExport>,
    /// What they are to read, the heaviest first.
    pub(super) partitions: Vec<JobPartition>,
    /// All partitions of the exports, those with a receipt too, the heaviest first: shards are dealt of these, so that a worker
    /// of the run as it was before has the same share. An earlier version has none.
    #[serde(default)]
    pub(super) dealt: Vec<JobPartition>,
    pub(super) max_workers: usize,
}

/// Read first, so that another version's members are not complained of.
#[derive(Deserialize)]
struct PostedVersion {
    version: u32,
}

impl PostedJob {
    /// Writes it; the bytes that were written.
    pub(super) async fn write(&self, root: &Destination) -> Result<Bytes, ExportError> {
        let json = serde_json::to_vec(self)
            .map_err(|error| ExportError::internal("writing down what the workers must know").with_source(error))?;
        let bytes = Bytes::from(json);
        root.put(&path(&self.run_id), bytes.clone(), "application/json").await?;
        Ok(bytes)
    }
}

fn path(run_id: &str) -> String {
    format!("{FOLDER}/{run_id}.json")
}

/// What a run has left at a root for its workers, with its bytes; `None` where it has left nothing.
///
/// # Errors
/// The destination fails, or another version wrote it ([`ExportErrorKind::Usage`]).
pub(super) async fn read(root: &Destination, run_id: &str) -> Result<Option<(PostedJob, Bytes)>, ExportError> {
    let path = path(run_id);
    let Some(found) = root.read(&path).await? else { return Ok(None) };
    let why = match serde_json::from_slice::<PostedVersion>(&found.bytes) {
        Ok(PostedVersion { version }) if version != VERSION => {
            format!("it is of version {version}, where version {VERSION} is wanted")
        }
        Ok(_) => match serde_json::from_slice::<PostedJob>(&found.bytes) {
            Ok(posted) => return Ok(Some((posted, found.bytes))),
            Err(error) => unreadable(&error),
        },
        Err(error) => unreadable(&error),
    };
    let message = format!("{} cannot be read: {why}", root.object_url(&path));
    Err(ExportError::new(ExportErrorKind::Usage, message)
        .with_hint("workers and the run that they read for are of one version"))
}

/// What a run has left, if this version can read it; why it cannot is for `unread`.
///
/// # Errors
/// The destination fails.
pub(super) async fn known(
    root: &Destination,
    run_id: &str,
    unread: impl FnOnce(ExportError),
) -> Result<Option<PostedJob>, ExportError> {
    match read(root, run_id).await {
        Err(error) if error.kind == ExportErrorKind::Usage => {
            unread(error);
            Ok(None)
        }
        found => Ok(found?.map(|(job, _)| job)),
    }
}

/// The runs that have left something at a root for their workers, the latest by name first.
///
/// # Errors
/// The destination fails.
pub(crate) async fn runs(root: &Destination) -> Result<Vec<String>, ExportError> {
    let mut runs: Vec<String> = Vec::new();
    for (path, _) in root.list(FOLDER).await? {
        let name = path.rsplit('/').next().unwrap_or_default();
        // What is being written stands under a hidden name.
        runs.extend(name.strip_suffix(".json").filter(|name| !name.starts_with('.')).map(str::to_owned));
    }
    runs.sort_unstable_by(|one, other| other.cmp(one));
    Ok(runs)
}

/// Takes away what some runs have left.
///
/// # Errors
/// The destination fails.
pub(crate) async fn remove(root: &Destination, runs: &[String]) -> Result<(), ExportError> {
    root.delete_all(runs.iter().map(|run_id| path(run_id)).collect()).await?;
    root.remove_empty().await;
    Ok(())
}
