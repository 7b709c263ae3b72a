//! What keeps a worker from working for a run that has gone on without it: the epoch in the destination's owner record.

use std::time::Duration;

use crate::base::failpoint;
use crate::export::error::ExportError;
use crate::model::{ExportErrorKind, RunFence};
use crate::store::owner::owner;
use crate::store::{Destination, Journal};

/// Between two looks at the owner while a partition is read, one small request each.
const FENCE_INTERVAL: Duration = Duration::from_secs(3);

/// The run that a worker reads for, as it was when the worker began.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    pub(super) destination: Destination,
    /// Where the owner record stands.
    pub(super) path: String,
    pub(super) run: RunFence,
}

impl Fence {
    /// Makes sure that the run is still the same, and of the same process.
    ///
    /// # Errors
    /// [`ExportErrorKind::DestinationTaken`] where it is not.
    pub(crate) async fn check(&self) -> Result<(), ExportError> {
        if failpoint::off("fence") {
            return Ok(());
        }
        let RunFence { run_id, epoch, plan_sha256 } = &self.run;
        let Some(owner) = owner(&self.destination, &self.path).await? else { return Err(self.lost("it has ended")) };
        let wanted = owner.workers.as_ref().map(|wanted| &wanted.plan_sha256);
        let why = if (&owner.run_id, owner.epoch) != (run_id, *epoch) {
            format!("run {} (epoch {}) has the destination now", owner.run_id, owner.epoch)
        } else if owner.ended {
            "its process has ended".to_owned()
        } else if wanted == Some(plan_sha256) || failpoint::off("plan-hash") {
            return Ok(());
        } else {
            // A run that ended well leaves no record, and one of the same id then begins with the first epoch again.
            "a run of the same id has another plan".to_owned()
        };
        Err(self.lost(&why))
    }

    /// Makes sure that the run's journal is open: what was noted in it since is somebody's to find.
    ///
    /// # Errors
    /// [`ExportErrorKind::DestinationTaken`] where it is not.
    pub(crate) async fn check_open(&self, journal: &Journal) -> Result<(), ExportError> {
        if failpoint::off("late-fence") || journal.is_open().await? {
            return Ok(());
        }
        Err(self.lost("its journal is closed"))
    }

    /// Looks again and again; resolves once the run is no more what it was.
    pub(super) async fn end(&self) -> ExportError {
        loop {
            tokio::time::sleep(failpoint::limit("fence", FENCE_INTERVAL)).await;
            match self.check().await {
                Err(error) if error.kind == ExportErrorKind::DestinationTaken => return error,
                // A store that does not answer now: the next look is soon.
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn lost(&self, why: &str) -> ExportError {
        let RunFence { run_id, epoch, .. } = &self.run;
        let message = format!("this worker is of run {run_id} (epoch {epoch}), and {why}");
        ExportError::new(ExportErrorKind::DestinationTaken, message)
            .with_hint("nothing is left of what it read since; whoever runs the export says how it ended")
    }
}
