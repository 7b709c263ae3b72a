//! `clean`: removes what dead runs left at a destination, and nothing that their journals do not name.

use serde::Serialize;

use super::error::ExportError;
use super::hold::own_files;
use super::leftovers::{DeadRun, Settled};
use super::place::{of_run, place_by};
use crate::commit::Placement;
use crate::model::{CredentialCommand, ExportErrorKind};
use crate::store::error::StoreFault;
use crate::store::owner::{forget, owner, refuse_alive};
use crate::store::{Destination, Journal};

/// What is to be cleaned.
#[derive(Debug, Clone)]
pub struct CleanRequest {
    /// The destination.
    pub destination: String,
    /// Whether that is a single file.
    pub single_file: bool,
    /// Whether it is only told what would be done.
    pub dry_run: bool,
    /// Who says credentials for AWS, where a command does.
    pub aws_credential_command: Option<CredentialCommand>,
}

/// What was cleaned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CleanReport {
    /// The destination's URL, without credentials.
    pub destination: String,
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// The dead runs.
    pub runs: Vec<CleanedRun>,
    /// The run that is at work there, if any; nothing of it was touched.
    pub alive: Option<String>,
}

/// What became of one dead run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CleanedRun {
    /// Its id.
    pub run_id: String,
    /// Whether it had committed: then what its commit had left undone is done, and the export stands.
    pub committed: bool,
    /// Objects that were visible without a manifest and are removed.
    pub removed: u64,
    /// Uploads that are aborted.
    pub aborted: u64,
    /// Files of a local destination that were staged and are removed.
    pub staged: u64,
    /// With `dry_run`: what would be removed.
    pub traces: Vec<String>,
}

/// Removes what dead runs left, whichever version of outhaul they were of. Two at once do the same work, and either is fine.
///
/// # Errors
/// The destination fails, the role may not delete, or the records of a run are a newer version's: then the other runs are
/// cleaned all the same.
///
/// # Cancel safety
/// A repeated call goes on where this one stopped.
pub async fn clean(request: &CleanRequest) -> Result<CleanReport, ExportError> {
    let credentials = request.aws_credential_command.as_ref();
    let (destination, placement) = place_by(&request.destination, request.single_file, credentials).await?;
    let path = placement.owner_path();
    // Whose clock is behind ours lives although it looks dead.
    let (dead, alive) = match refuse_alive(&destination, &path, !request.dry_run).await {
        Ok(dead) => (dead, None),
        Err(error) if error.fault == StoreFault::Taken => (None, owner(&destination, &path).await?),
        Err(error) => return Err(error.into()),
    };
    let alive = alive.map(|owner| owner.run_id);
    let mut report = CleanReport {
        destination: placement.url(&destination),
        dry_run: request.dry_run,
        runs: Vec::new(),
        alive: alive.clone(),
    };
    let mut left = None;
    for (journal, ended) in Journal::all(&destination).await? {
        if Some(journal.run_id()) == alive.as_deref() {
            continue;
        }
        if ended {
            // Only its records are left: the role that exported could not remove them.
            if !request.dry_run {
                let destination = of_run(&destination, journal.run_id()).await?;
                Journal::new(destination, journal.run_id()).close().await?;
            }
            continue;
        }
        let run = match DeadRun::of(journal, &placement).await {
            Ok(Some(run)) => run,
            Ok(None) => continue,
            Err(error) if error.kind == ExportErrorKind::DestinationTaken => {
                left = left.or(Some(error));
                continue;
            }
            Err(error) => return Err(error),
        };
        report.runs.push(cleaned(&run, &destination, &placement, request.dry_run).await?);
    }
    if let Some(error) = left {
        return Err(error);
    }
    if alive.is_none() && !request.dry_run {
        destination.sweep(own_files(&placement)).await?;
    }
    if let (Some(dead), None, false) = (&dead, &alive, request.dry_run) {
        forget(&destination, &path, dead).await?;
    }
    if alive.is_none() && !request.dry_run {
        destination.remove_empty().await;
    }
    Ok(report)
}

async fn cleaned(
    run: &DeadRun,
    destination: &Destination,
    placement: &Placement,
    dry_run: bool,
) -> Result<CleanedRun, ExportError> {
    let run_id = run.run_id().to_owned();
    if dry_run {
        return Ok(CleanedRun { run_id, traces: run.traces(destination).await?, ..CleanedRun::default() });
    }
    let settled = run.settle(placement).await?;
    let committed = settled.committed.is_some();
    if let Some(refused) = settled.refused {
        return Err(refused.error.into());
    }
    let Settled { removed, aborted, staged, .. } = settled;
    Ok(CleanedRun { run_id, committed, removed, aborted, staged, traces: Vec::new() })
}
