//! The journal of a run, `_outhaul/<run_id>/…`: what a later `resume` or `clean` needs to know. It holds no secrets.
//!
//! ```text
//! plan.json                       what the run was asked for and what it planned, as its caller wrote it
//! epochs/1.json                   {"seed"}: from which a process's attempt ids are made
//! uploads/<path>.json             {"path", "upload_id"}: written before the upload's first chunk
//! receipts/00017-9f3a2b1c.json    a PartitionReceipt
//! keepers/<name>.json             a session that holds the run's snapshot beyond the run's own life
//! commit.json                     what the commit is about to make visible, and to remove
//! ended.json                      the run is over, and could not remove its records
//! staging/<path>                  local destinations only: the bytes until commit
//! ```

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::destination::Destination;
use super::error::{StoreError, StoreFault};
use super::receipt::PartitionReceipt;
use crate::limits;

const JSON: &str = "application/json";

/// The folder of all journals.
const FOLDER: &str = "_outhaul";

/// The journal of one run at one destination.
#[derive(Debug, Clone)]
pub struct Journal {
    destination: Destination,
    run_id: String,
}

/// An object that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The path that it gets, relative to the destination.
    pub path: String,
    /// The upload's id; none for a local file that is to be visible before the commit.
    pub upload_id: Option<String>,
}

/// From where one process of the run has its attempt ids, so that an object's name alone tells whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptSeed {
    seed: u64,
}

impl AttemptSeed {
    /// A new one.
    pub fn random() -> Self {
        Self { seed: rand::random() }
    }

    /// The id of a partition's nth attempt, counted from 0.
    pub fn attempt(self, partition: u32, nth: u32) -> u32 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(partition.to_be_bytes());
        hash.update(nth.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }

    /// Whether an attempt at a partition is one of this process's.
    pub fn made(self, partition: u32, attempt: u32) -> bool {
        (0..limits::ATTEMPT_NUMBERS).any(|nth| self.attempt(partition, nth) == attempt)
    }
}

impl Journal {
    /// The journal of run `run_id`. Nothing is written yet.
    pub fn new(destination: Destination, run_id: impl Into<String>) -> Self {
        Self { destination, run_id: run_id.into() }
    }

    /// All journals, those of ended runs too: whether each has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn all(destination: &Destination) -> Result<Vec<(Self, bool)>, StoreError> {
        let mut runs: Vec<(String, bool)> = Vec::new();
        for (path, _) in destination.list(FOLDER).await? {
            let mut steps = path.split('/').skip(1);
            let (Some(run), Some(name)) = (steps.next(), steps.next()) else { continue };
            let ended = name == ENDED;
            match runs.last_mut() {
                Some((last, last_ended)) if last == run => *last_ended |= ended,
                _ => runs.push((run.to_owned(), ended)),
            }
        }
        Ok(runs.into_iter().map(|(run, ended)| (Self::new(destination.clone(), run), ended)).collect())
    }

    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Where it stands, relative to the destination: `_outhaul/<run_id>`.
    pub fn run_folder(&self) -> String {
        format!("{FOLDER}/{}", self.run_id)
    }

    /// Where a local destination keeps the bytes of the object at `path` until commit.
    pub(super) fn staged_file(&self, path: &str) -> String {
        format!("{}/staging/{path}", self.run_folder())
    }

    /// How many objects of a local destination are staged, whole or not; uploads are not counted here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn staged(&self) -> Result<u64, StoreError> {
        if self.destination.local_folder().is_none() {
            return Ok(0);
        }
        let files = self.destination.list(&format!("{}/staging", self.run_folder())).await?;
        Ok(u64::try_from(files.len()).unwrap_or(u64::MAX))
    }

    /// Keeps the plan.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_plan(&self, json: Bytes) -> Result<(), StoreError> {
        self.destination.put(&self.path(PLAN), json, JSON).await
    }

    /// The plan, as it was kept; `None` where the run did not come so far.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn plan(&self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.destination.read(&self.path(PLAN)).await?.map(|small| small.bytes))
    }

    /// Notes the seed of this process's attempt ids, before its first upload.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_epoch(&self, epoch: u64, seed: AttemptSeed) -> Result<(), StoreError> {
        self.put(&format!("epochs/{epoch}.json"), &seed).await
    }

    /// The seeds of all processes of the run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn epochs(&self) -> Result<Vec<AttemptSeed>, StoreError> {
        self.records("epochs").await
    }

    /// Notes an upload, so that it can be found and aborted if this process dies. Before its first chunk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_upload(&self, path: &str, upload_id: &str) -> Result<(), StoreError> {
        let record = UploadRecord { path: path.to_owned(), upload_id: Some(upload_id.to_owned()) };
        self.put(&format!("uploads/{path}.json"), &record).await
    }

    /// Notes an object that is about to be visible before the commit; that of an upload is noted already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_visible(&self, path: &str) -> Result<(), StoreError> {
        if self.destination.local_folder().is_none() {
            return Ok(());
        }
        let record = UploadRecord { path: path.to_owned(), upload_id: None };
        self.put(&format!("uploads/{path}.json"), &record).await
    }

    /// Every object that the run has begun, as far as it came to note it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn uploads(&self) -> Result<Vec<UploadRecord>, StoreError> {
        self.records("uploads").await
    }

    /// Notes that a partition is read and uploaded whole.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_receipt(&self, receipt: &PartitionReceipt) -> Result<(), StoreError> {
        self.put(&format!("receipts/{:05}-{:08x}.json", receipt.partition, receipt.attempt), receipt).await
    }

    /// The receipts, in order of partitions; a partition may have several, of processes that overlapped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts(&self) -> Result<Vec<PartitionReceipt>, StoreError> {
        self.records("receipts").await
    }

    /// Notes who holds the run's snapshot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_keeper(&self, name: &str, keeper: &impl Serialize) -> Result<(), StoreError> {
        self.put(&format!("keepers/{name}.json"), keeper).await
    }

    /// Who holds the run's snapshot, or did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keepers<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.records("keepers").await
    }

    /// Notes what a commit is about to do.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_commit(&self, commit: &impl Serialize) -> Result<(), StoreError> {
        self.put(COMMIT, commit).await
    }

    /// What a commit was about to do; `None` where the run did not come so far.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn commit<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        self.record(COMMIT).await
    }

    /// Whether the run still has its journal: a keeper outlives its run, but not its journal.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_open(&self) -> Result<bool, StoreError> {
        let path = |name| self.path(name);
        Ok(self.destination.head(&path(PLAN)).await?.is_some() && self.destination.head(&path(ENDED)).await?.is_none())
    }

    /// Removes the run's records, and from a local destination whatever is still staged: there is nothing to resume.
    /// Where the role may not delete, a last record says that the run has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(&self) -> Result<(), StoreError> {
        let folder = self.run_folder();
        if self.destination.local_folder().is_some() {
            return self.destination.delete_local_folder(&folder).await;
        }
        let mut paths: Vec<String> = match self.destination.list(&folder).await {
            Ok(found) => found.into_iter().map(|(path, _)| path).collect(),
            // Without the right to list there is none to delete either.
            Err(_) => return self.put(ENDED, &Ended { ended: true }).await,
        };
        // The plan goes last, and before it what a commit was about: what is left tells what there was.
        let rank = |path: &String| (path.ends_with(PLAN), path.ends_with(COMMIT));
        paths.sort_by_key(|path| rank(path));
        for some in paths.chunk_by(|one, other| rank(one) == rank(other)) {
            if self.destination.delete_all(some.to_vec()).await.is_err() {
                return self.put(ENDED, &Ended { ended: true }).await;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.run_folder())
    }

    async fn put(&self, name: &str, record: &impl Serialize) -> Result<(), StoreError> {
        let path = self.path(name);
        let json = serde_json::to_vec(record).map_err(|error| {
            StoreError::new("writing", self.destination.object_url(&path), StoreFault::Configuration, error)
        })?;
        self.destination.put(&path, json.into(), JSON).await
    }

    async fn record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let path = self.path(name);
        let Some(small) = self.destination.read(&path).await? else { return Ok(None) };
        let read = serde_json::from_slice(&small.bytes).map(Some);
        read.map_err(|error| {
            StoreError::new("reading", self.destination.object_url(&path), StoreFault::Configuration, error)
        })
    }

    /// All records of one kind, in order of their names.
    async fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, StoreError> {
        let folder = self.run_folder();
        let names = self.destination.list(&format!("{folder}/{kind}")).await?;
        let names = names.into_iter().filter_map(|(path, _)| {
            // Whatever is being written stands under a hidden name.
            let hidden = path.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
            (!hidden).then(|| path.strip_prefix(&folder).unwrap_or(&path).trim_start_matches('/').to_owned())
        });
        stream::iter(names)
            .map(|name| async move { self.record(&name).await })
            .buffered(limits::DISCARDS_AT_ONCE)
            .try_filter_map(|record| std::future::ready(Ok(record)))
            .try_collect()
            .await
    }
}

const PLAN: &str = "plan.json";
const COMMIT: &str = "commit.json";
const ENDED: &str = "ended.json";

#[derive(Serialize)]
struct Ended {
    ended: bool,
}
