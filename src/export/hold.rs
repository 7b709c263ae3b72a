//! The destination for as long as a run has it: taken before the first read, renewed, and given back at the end.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::ExportError;
use super::leftovers::{DeadRun, open_runs};
use crate::base::failpoint;
use crate::commit::Placement;
use crate::commit::placement::SUCCESS_PATH;
use crate::describe;
use crate::model::ExportErrorKind;
use crate::store::{Claim, Destination, Journal, StoreError, Take};

/// A failed run asks once more whether the destination is still its own, before it removes anything, and waits so long:
/// a clean abort has little time.
const OWNER_CHECK: Duration = Duration::from_secs(3);

/// What decides whether uploaded parts stay after a failure.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// The destination's, where it has one.
    pub(crate) claim: Option<Claim>,
    /// Whether somebody holds the snapshot beyond this process.
    pub(crate) snapshot_kept: bool,
    /// Whether another process commits, whose receipts they are.
    pub(crate) of_worker: bool,
    /// Cancelled by a signal, where what is uploaded is to outlast one.
    pub(crate) signal: Option<CancellationToken>,
}

impl Retention {
    /// That of a worker.
    pub(crate) fn of_worker() -> Self {
        Self { claim: None, snapshot_kept: true, of_worker: true, signal: None }
    }

    /// Whether they do: for `resume`, where the cause may pass; or because they have become another run's.
    pub(crate) async fn keeps(&self, error: &ExportError) -> bool {
        self.of_worker || self.outlasts(error) || self.is_lost().await
    }

    /// Whether the run can be resumed after a failure.
    pub(crate) fn outlasts(&self, error: &ExportError) -> bool {
        let passing = matches!(
            error.kind,
            ExportErrorKind::SourceUnavailable
                | ExportErrorKind::GaveWay
                | ExportErrorKind::DestinationUnavailable
                | ExportErrorKind::DestinationFull
        );
        (passing || self.outlasts_signal(error)) && self.snapshot_kept
    }

    /// Whether a signal has stopped the run, after which it is to be resumed.
    pub(crate) fn outlasts_signal(&self, error: &ExportError) -> bool {
        let signalled = self.signal.as_ref().is_some_and(CancellationToken::is_cancelled);
        signalled && self.snapshot_kept && error.kind == ExportErrorKind::Interrupted
    }

    /// Whether the destination is another run's by now, asked of the destination where that is not known yet.
    async fn is_lost(&self) -> bool {
        let Some(claim) = &self.claim else { return false };
        if !claim.lost().is_cancelled() {
            // One that does not answer is found out by whatever comes next.
            let _ = tokio::time::timeout(OWNER_CHECK, claim.check()).await;
        }
        claim.lost().is_cancelled()
    }
}

/// A destination that is ours. Dropped, it is no longer renewed.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) claim: Claim,
    renewal: JoinHandle<()>,
    /// Cancelled where nothing is to be renewed any more.
    ended: CancellationToken,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Every small file that a run writes at its destination, outside of its journal.
pub(crate) fn own_files(placement: &Placement) -> Vec<String> {
    let mut files = vec![placement.owner_path(), placement.manifest_path()];
    if *placement == Placement::Parts {
        files.push(SUCCESS_PATH.to_owned());
        files.extend(describe::paths().map(str::to_owned));
    }
    files
}

impl Hold {
    /// Takes a destination. Once it is lost, `stop` is cancelled.
    ///
    /// # Errors
    /// Another run lives there (exit 22), or the destination fails.
    pub(crate) async fn take(
        destination: &Destination,
        placement: &Placement,
        run_id: &str,
        how: Take,
        stop: CancellationToken,
    ) -> Result<Self, ExportError> {
        let claim = Claim::take(destination, &placement.owner_path(), run_id, how).await?;
        destination.sweep(own_files(placement)).await?;
        let (keeper, ended) = (claim.clone(), CancellationToken::new());
        let until = ended.clone();
        let renewal = tokio::spawn(async move {
            if let Some(error) = keeper.keep(&until).await {
                tracing::error!(%error, "the destination is lost to another run");
                stop.cancel();
            }
        });
        Ok(Self { claim, renewal, ended })
    }

    /// Finishes or removes what dead runs left, but for the run `but`. Only where somebody owned the destination before
    /// can there be any: whoever ends well takes his record with him.
    ///
    /// # Errors
    /// The destination fails, or the role may not remove something that is visible; uploads that it may not abort are
    /// warned about and stay in their run's journal.
    pub(crate) async fn settle_dead_runs(
        &self,
        destination: &Destination,
        placement: &Placement,
        but: Option<&str>,
    ) -> Result<(), ExportError> {
        if self.claim.previous().is_none() {
            return Ok(());
        }
        for run in open_runs(destination, placement).await? {
            if Some(run.run_id()) == but {
                continue;
            }
            let settled = run.settle(placement).await?;
            if let Some(refused) = &settled.refused {
                refused.warn(run.run_id());
                continue;
            }
            tracing::warn!(
                run_id = run.run_id(),
                committed = settled.committed.is_some(),
                removed = settled.removed,
                aborted = settled.aborted,
                staged = settled.staged,
                "an earlier run had died here; what it left is settled"
            );
        }
        Ok(())
    }

    /// Whether the destination has become somebody else's.
    pub(crate) fn is_lost(&self) -> bool {
        self.claim.lost().is_cancelled()
    }

    /// Ends the run: there is nothing to resume.
    pub(crate) async fn close(self, destination: &Destination, placement: &Placement, journal: &Journal) {
        if self.is_lost() {
            return;
        }
        // A process that was taken for dead may have begun more since, a worker too; so may a request whose answer was lost.
        let resumed = self.claim.previous().is_some_and(|previous| previous.run_id == journal.run_id());
        let closed = if resumed || self.claim.has_invited() || destination.may_have_unheard_uploads() {
            settle(placement, journal).await
        } else {
            journal.close().await.map(|()| true).map_err(ExportError::from)
        };
        match closed {
            Ok(true) => {}
            Ok(false) => return self.leave().await,
            Err(error) => {
                warn(&error, "the run's records could not be removed");
                // Without an owner nobody would look for them.
                return self.leave().await;
            }
        }
        if let Err(error) = self.release(destination).await {
            warn(&error, "the owner record could not be removed");
        }
    }

    /// Gives the destination back, where nothing of the run is left there.
    ///
    /// # Errors
    /// See [`Claim::release`].
    pub(crate) async fn release(mut self, destination: &Destination) -> Result<(), StoreError> {
        self.stop_renewing().await;
        let released = self.claim.release().await;
        destination.remove_empty().await;
        released
    }

    /// Ends a process whose run has become another's. What it has begun since that one's end is nobody else's.
    pub(crate) async fn yield_to_winner(self, placement: &Placement, journal: &Journal) {
        if let Ok(false) = journal.is_open().await
            && let Err(error) = settle(placement, journal).await
        {
            warn(&error, "what was begun too late could not be removed");
        }
    }

    /// Waits for a renewal under way: cut short it would leave a temporary file, or be written after the last word.
    async fn stop_renewing(&mut self) {
        self.ended.cancel();
        if !failpoint::off("last-renewal") {
            // A store that does not answer is not waited for.
            let _ = tokio::time::timeout(OWNER_CHECK, &mut self.renewal).await;
        }
        self.renewal.abort();
    }

    /// Ends this process's part in the run: the journal stays, for `resume`, `clean` or the next run.
    pub(crate) async fn leave(mut self) {
        self.stop_renewing().await;
        if !self.is_lost()
            && let Err(error) = self.claim.end().await
        {
            warn(&error, "the owner record could not be written");
        }
    }
}

/// Whether nothing stays of the run but what it has committed.
pub(crate) async fn settle(placement: &Placement, journal: &Journal) -> Result<bool, ExportError> {
    let Some(run) = DeadRun::of(journal.clone(), placement).await? else { return Ok(true) };
    let settled = run.settle(placement).await?;
    if let Some(refused) = &settled.refused {
        refused.warn(journal.run_id());
    }
    Ok(settled.refused.is_none())
}

fn warn(error: &(dyn std::error::Error + 'static), what: &str) {
    tracing::warn!(error, "{what}");
}
