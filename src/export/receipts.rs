//! Which receipts of a run are whole: all objects of theirs are at the destination, staged or visible.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::error::ExportError;
use super::leftovers::DeadRun;
use crate::base::failpoint;
use crate::commit::Placement;
use crate::model::{PartitionReceipt, Plan, StagedObject, Staging};
use crate::store::{Destination, Journal};

/// The receipts of some partitions, by whether they can be believed.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// One for each partition that has a whole one.
    pub(super) whole: BTreeMap<u32, PartitionReceipt>,
    /// Those with an object that is gone.
    pub(super) gone: Vec<PartitionReceipt>,
}

/// Sorts receipts that were read from the journal before.
///
/// # Errors
/// The destination fails.
pub(super) async fn sorted(destination: &Destination, receipts: Vec<PartitionReceipt>) -> Result<Sorted, ExportError> {
    // Looked at after the receipts were read: what began since would not be listed.
    let mut parts = receipts.iter().flat_map(|receipt| &receipt.parts);
    let open =
        if parts.any(|part| part.object.staging.upload_id().is_some()) { listed(destination).await } else { None };
    let mut sorted = Sorted::default();
    for receipt in receipts {
        if sorted.whole.get(&receipt.partition).is_some_and(|other| !other.parts.is_empty()) {
            continue;
        }
        if is_whole(destination, &receipt, open.as_ref()).await? {
            sorted.whole.insert(receipt.partition, receipt);
        } else {
            sorted.gone.push(receipt);
        }
    }
    Ok(sorted)
}

/// The uploads that are open, by path and id; `None` where nobody can say.
async fn listed(destination: &Destination) -> Option<HashSet<(String, String)>> {
    let listed = destination.open_uploads().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "open uploads cannot be listed; receipts are believed");
        None
    });
    Some(listed?.into_iter().collect())
}

/// The receipts of the plan's partitions in the journal.
///
/// # Errors
/// The destination fails.
pub(super) async fn receipts_of_plan(
    destination: &Destination,
    journal: &Journal,
    plan: &Plan,
) -> Result<Sorted, ExportError> {
    let planned: HashSet<u32> = plan.partitions.iter().map(|partition| partition.number).collect();
    let mut receipts = journal.receipts().await?;
    receipts.retain(|receipt| planned.contains(&receipt.partition));
    sorted(destination, receipts).await
}

/// Removes whatever a run has begun but the objects of these receipts, and the receipts of what is gone, so that nobody
/// believes them. Nobody may read for the run meanwhile.
///
/// # Errors
/// The destination fails.
pub(super) async fn discard_others(
    destination: &Destination,
    placement: &Placement,
    journal: &Journal,
    Sorted { whole, gone }: &Sorted,
) -> Result<(), ExportError> {
    for receipt in gone {
        if failpoint::off("forget-receipts") {
            break;
        }
        // One that stays is found to be gone again.
        if let Err(error) = journal.forget_receipt(receipt).await {
            tracing::debug!(%error, "a receipt of what is gone stays");
        }
    }
    let parts = whole.values().flat_map(|receipt| &receipt.parts);
    let kept: HashMap<&str, Option<&str>> =
        parts.map(|part| (part.object.path.as_str(), part.object.staging.upload_id())).collect();
    if let Some(run) = DeadRun::of(journal.clone(), placement).await? {
        run.discard_but(destination, &kept).await?;
    }
    Ok(())
}

/// Whether every object of a receipt is staged, or visible already.
async fn is_whole(
    destination: &Destination,
    receipt: &PartitionReceipt,
    open: Option<&HashSet<(String, String)>>,
) -> Result<bool, ExportError> {
    for part in &receipt.parts {
        let object = &part.object;
        let staged = match &object.staging {
            Staging::Local { file } => is_there(destination, file, object).await?,
            Staging::Multipart { upload_id, .. } => {
                open.is_none_or(|open| open.contains(&(object.path.clone(), upload_id.clone())))
            }
            Staging::Published => false,
        };
        if !staged && !is_there(destination, &object.path, object).await? {
            tracing::warn!(path = object.path, "a part that has a receipt is gone; its partition is read again");
            return Ok(false);
        }
    }
    Ok(true)
}

async fn is_there(destination: &Destination, path: &str, object: &StagedObject) -> Result<bool, ExportError> {
    let facts = destination.head(path).await?;
    Ok(facts.is_some_and(|facts| facts.fits(object.bytes, object.crc64nvme)))
}
