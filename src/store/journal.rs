//! The journal of a run, `_outhaul/<run_id>/…`: what a later `resume` or `clean` needs to know. It holds no secrets.
//!
//! ```text
//! plan.json                       the plan, as its caller wrote it
//! uploads/<path>.json             {"path", "upload_id"}: written before the upload's first chunk
//! receipts/00017-9f3a2b1c.json    a PartitionReceipt
//! staging/<path>                  local destinations only: the bytes until commit
//! ```

use bytes::Bytes;

use super::destination::Destination;
use super::error::{StoreError, StoreFault};
use super::receipt::PartitionReceipt;

const JSON: &str = "application/json";

/// The journal of one run at one destination.
#[derive(Debug, Clone)]
pub struct Journal {
    destination: Destination,
    run_id: String,
}

#[derive(serde::Serialize)]
struct Upload<'a> {
    path: &'a str,
    upload_id: &'a str,
}

impl Journal {
    /// The journal of run `run_id`. Nothing is written yet.
    pub fn new(destination: Destination, run_id: impl Into<String>) -> Self {
        Self { destination, run_id: run_id.into() }
    }

    /// Where it stands, relative to the destination: `_outhaul/<run_id>`.
    pub fn run_folder(&self) -> String {
        format!("_outhaul/{}", self.run_id)
    }

    /// Where a local destination keeps the bytes of the object at `path` until commit.
    pub(super) fn staged_file(&self, path: &str) -> String {
        format!("{}/staging/{path}", self.run_folder())
    }

    /// Notes an upload, so that it can be found and aborted if this process dies. Before its first chunk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_upload(&self, path: &str, upload_id: &str) -> Result<(), StoreError> {
        self.put(&format!("uploads/{path}.json"), &Upload { path, upload_id }).await
    }

    /// Notes that a partition is read and uploaded whole.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_receipt(&self, receipt: &PartitionReceipt) -> Result<(), StoreError> {
        self.put(&format!("receipts/{:05}-{:08x}.json", receipt.partition, receipt.attempt), receipt).await
    }

    /// Keeps the plan.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_plan(&self, json: Bytes) -> Result<(), StoreError> {
        self.destination.put(&format!("{}/plan.json", self.run_folder()), json, JSON).await
    }

    /// Removes the run's folder from a local destination, with whatever is still staged in it: after commit or a clean
    /// abort there is nothing to resume. On object stores the small records stay: the role that exports may not be
    /// allowed to delete.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.destination.delete_local_folder(&self.run_folder()).await
    }

    async fn put(&self, name: &str, record: &impl serde::Serialize) -> Result<(), StoreError> {
        let path = format!("{}/{name}", self.run_folder());
        let json = serde_json::to_vec(record).map_err(|error| {
            StoreError::new("writing", self.destination.object_url(&path), StoreFault::Configuration, error)
        })?;
        self.destination.put(&path, json.into(), JSON).await
    }
}
