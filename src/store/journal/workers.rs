//! What processes that read partitions of another one's run note in its journal, and how that one finds it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Journal, unreadable};
use crate::base::text::number::hex_text;
use crate::model::{ExportErrorKind, PartitionReceipt};
use crate::store::AttemptSeed;
use crate::store::error::StoreError;
use crate::store::receipt_file::ReceiptFile;

/// Why a worker cannot read its partitions, and no other could: the format of `failures/<name>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFailure {
    /// The class of its error.
    pub kind: ExportErrorKind,
    /// The error.
    pub message: String,
    /// What to do about it, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The epoch that the worker read for: what another one met counts no more.
    pub epoch: u64,
}

/// What tells one plan from another: its SHA-256, in hex.
pub(crate) fn plan_sha256(plan: &[u8]) -> String {
    hex_text(&Sha256::digest(plan))
}

impl Journal {
    /// Notes the seed of a worker's attempt ids, before its first upload: `name` tells it from other workers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_worker(&self, epoch: u64, name: &str, seed: AttemptSeed) -> Result<(), StoreError> {
        self.put(&format!("epochs/{epoch}-{name}.json"), &seed).await
    }

    /// Notes why a worker cannot read its partitions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_failure(&self, name: &str, failure: &WorkerFailure) -> Result<(), StoreError> {
        self.put(&format!("failures/{name}.json"), failure).await
    }

    /// Why workers could not read their partitions, as far as it can be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn failures(&self) -> Result<Vec<WorkerFailure>, StoreError> {
        Ok(self.records("failures").await?.into_iter().filter_map(|(_, failure)| failure).collect())
    }

    /// The names of all receipts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn receipt_names(&self) -> Result<HashSet<String>, StoreError> {
        let files = self.destination.list(&self.path("receipts")).await?;
        let names = files.into_iter().filter_map(|(path, _)| path.rsplit('/').next().map(str::to_owned));
        // What is being written stands under a hidden name.
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    /// The receipts that have come since, in order of partitions; `known` are the names of those that were seen, and of
    /// these when it returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts_but(&self, known: &mut HashSet<String>) -> Result<Vec<PartitionReceipt>, StoreError> {
        let mut new: Vec<String> =
            self.receipt_names().await?.into_iter().filter(|name| !known.contains(name)).collect();
        new.sort_unstable();
        let mut found = Vec::new();
        for name in new {
            let path = self.path(&format!("receipts/{name}"));
            let Some(small) = self.destination.read(&path).await? else { continue };
            known.insert(name);
            match serde_json::from_slice::<ReceiptFile>(&small.bytes) {
                Ok(file) => found.extend(PartitionReceipt::try_from(file).ok()),
                Err(error) => {
                    let object = self.destination.object_url(&path);
                    tracing::warn!(why = unreadable(&error), "{object} is passed over");
                }
            }
        }
        Ok(found)
    }

    /// The receipts of some partitions, in order of partitions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts_of(&self, partitions: &HashSet<u32>) -> Result<Vec<PartitionReceipt>, StoreError> {
        let number = |name: &String| name.split_once('-').and_then(|(number, _)| number.parse().ok());
        let mut others = self.receipt_names().await?;
        // One whose name tells nothing is read.
        others.retain(|name| number(name).is_some_and(|number| !partitions.contains(&number)));
        let found = self.receipts_but(&mut others).await?;
        Ok(found.into_iter().filter(|receipt| partitions.contains(&receipt.partition)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Destination, StoreOptions};

    fn journal(name: &str) -> (Destination, Journal) {
        let destination = Destination::in_memory(&format!("journal-workers-{name}"), &StoreOptions::small());
        (destination.clone(), Journal::new(destination, "run"))
    }

    fn receipt(partition: u32, attempt: u32) -> PartitionReceipt {
        let read = crate::model::AmountRead::Rows(1);
        PartitionReceipt { partition, attempt, read, beyond_cap: false, parts: Vec::new() }
    }

    #[tokio::test]
    async fn each_receipt_is_told_once_and_those_of_others_are_not_read() {
        let (destination, journal) = journal("receipts");
        let mut known = HashSet::new();
        assert_eq!(journal.receipts_but(&mut known).await.unwrap(), []);
        journal.record_receipt(&receipt(3, 1)).await.unwrap();
        journal.record_receipt(&receipt(0, 7)).await.unwrap();
        destination.put("_outhaul/run/receipts/00005-00000001.json", "{".into(), "application/json").await.unwrap();
        destination
            .put("_outhaul/run/receipts/.00006-00000001.json.tmp", "{".into(), "application/json")
            .await
            .unwrap();
        assert_eq!(journal.receipts_but(&mut known).await.unwrap(), [receipt(0, 7), receipt(3, 1)]);
        journal.record_receipt(&receipt(3, 2)).await.unwrap();
        assert_eq!(journal.receipts_but(&mut known).await.unwrap(), [receipt(3, 2)]);
        assert_eq!(journal.receipts_of(&[3, 9].into()).await.unwrap(), [receipt(3, 1), receipt(3, 2)]);
    }

    #[tokio::test]
    async fn a_workers_seed_is_one_of_the_runs_and_its_failure_is_read_back() {
        let (_, journal) = journal("seeds");
        let seed = AttemptSeed::random();
        journal.record_worker(3, "9f3a2b1c", seed).await.unwrap();
        assert_eq!(journal.epochs().await.unwrap(), [seed]);
        let failure = WorkerFailure { kind: ExportErrorKind::Data, message: "NaN".to_owned(), hint: None, epoch: 3 };
        journal.record_failure("9f3a2b1c", &failure).await.unwrap();
        assert_eq!(journal.failures().await.unwrap(), [failure]);
    }

    #[test]
    fn a_plan_is_known_by_its_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(plan_sha256(b""), empty);
        assert_ne!(plan_sha256(b"{}"), empty);
    }
}
