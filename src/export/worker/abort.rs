//! How an attempt that will have no receipt is taken back.

use super::Attempt;
use crate::base::failpoint;
use crate::export::outlet::discard;
use crate::export::part::{PartSink, aborted};
use crate::model::Staging;

impl Attempt<'_> {
    /// Takes the receipt out of the journal, where it may be: whether it is not there.
    pub(super) async fn forget_receipt(&mut self) -> bool {
        let (Some(receipt), Some(journal)) = (&self.receipt, self.work.outlet.journal()) else { return true };
        if failpoint::off("forget-receipts") {
            return true;
        }
        let forgotten = journal.forget_receipt(receipt).await;
        if let Err(error) = &forgotten {
            tracing::warn!(%error, "a receipt stays, and what it is of");
        }
        forgotten.is_ok()
    }

    /// Removes what the attempt has uploaded: whether all of it is gone. Failures are logged, since the first error is
    /// the one to report.
    pub(super) async fn abort(&mut self) -> bool {
        let mut whole = !self.unsure;
        if let Some(starting) = self.starting.take() {
            match starting.await {
                Ok(Ok(writer)) => whole &= aborted(writer).await,
                // It removes what it began, if it can.
                Ok(Err(_)) | Err(_) => whole = false,
            }
        }
        for open in self.open.drain(..) {
            if let Some(PartSink::Store(writer)) = open.writer {
                whole &= aborted(*writer).await;
            }
            if let Some(finishing) = open.finishing {
                whole &= match finishing.await {
                    Ok(Ok(object)) => discard(&self.work.outlet, &object).await,
                    // A writer that fails to finish has removed what it staged, or tried to.
                    Ok(Err(error)) => error.leaves_nothing,
                    Err(_) => false,
                };
            }
        }
        if let Some(showing) = self.showing.take() {
            match (showing.await, self.parts.last_mut()) {
                (Ok(Ok(())), Some(part)) => part.object.staging = Staging::Published,
                // It may be visible all the same.
                _ => whole = false,
            }
        }
        for part in self.parts.drain(..) {
            whole &= discard(&self.work.outlet, &part.object).await;
        }
        whole
    }
}
