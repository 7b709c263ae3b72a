//! The journal of a run, `_outhaul/<run_id>/…`: what a later `resume` or `clean` needs to know. It holds no secrets.
//!
//! ```text
//! run.json                        the few facts by which any later version removes or finishes the run; written first
//! plan.json                       what the run was asked for and what it planned, for `resume` by the same version
//! epochs/1.json                   {"seed"}: from which a process's attempt ids are made; 1-9f3a2b1c.json is a worker's
//! uploads/<path>.json             {"path", "upload_id"}: written before the upload's first chunk
//! receipts/00017-9f3a2b1c.json    a PartitionReceipt
//! failures/9f3a2b1c.json          why a worker cannot read its partitions
//! keepers/<name>.json             a session that holds the run's snapshot beyond the run's own life
//! commit.json                     what the commit is about to make visible, and to remove
//! ended.json                      the run is over, and could not remove its records
//! staging/<path>                  local destinations only: the bytes until commit
//! ```
//!
//! Every record but the plan is a format of its own that outlives the version which wrote it (invariant I12): readers
//! ignore members that they do not know, and a record that they cannot read at all stops nobody from cleaning.

mod workers;

pub use workers::WorkerFailure;
pub(crate) use workers::plan_sha256;

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::attempt_seed::AttemptSeed;
use super::destination::Destination;
use super::error::{StoreError, StoreFault};
use super::receipt_file::ReceiptFile;
use crate::model::{ObjectOptions, PartitionReceipt};

/// Objects of a failed run that are removed at the same time: a store answers so many at once without throttling.
pub(crate) const DISCARDS_AT_ONCE: usize = 16;

const JSON: &str = "application/json";

/// The folder of all journals.
const FOLDER: &str = "_outhaul";

/// The journal of one run at one destination.
#[derive(Debug, Clone)]
pub struct Journal {
    destination: Destination,
    run_id: String,
}

/// An object that was begun: the format of `uploads/<path>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The path that it gets, relative to the destination.
    pub path: String,
    /// The upload's id; none for a local file that is to be visible before the commit.
    pub upload_id: Option<String>,
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
        let mut all = Vec::with_capacity(runs.len());
        for (run, ended) in runs {
            let journal = Self::new(destination.clone(), run);
            let ended = ended && journal.has_ended().await?;
            all.push((journal, ended));
        }
        Ok(all)
    }

    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The same, where what is written from now on is encrypted so; see [`Destination::encrypted_as`].
    ///
    /// # Errors
    /// As [`Destination::open`].
    pub(crate) fn encrypted_as(self, objects: &ObjectOptions) -> Result<Self, StoreError> {
        Ok(Self { destination: self.destination.encrypted_as(objects)?, ..self })
    }

    /// The destination that it is at.
    pub(crate) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The URL of the destination that it is at, without credentials.
    pub fn destination_url(&self) -> &str {
        self.destination.url()
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

    /// Keeps the facts of the run that outlive its version. Before the plan, and before the first object.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_run(&self, json: Bytes) -> Result<(), StoreError> {
        self.destination.put(&self.path(RUN), json, JSON).await
    }

    /// The same where nothing of the run is visible before its commit, and all of it stands below the destination: then what
    /// a loss of power leaves of the run is found and removed without these facts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn note_run(&self, json: Bytes) -> Result<(), StoreError> {
        self.destination.note(&self.path(RUN), json, JSON).await
    }

    /// Those facts, as they were kept; `None` where the run did not come so far, or a version wrote it that kept none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run(&self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.destination.read(&self.path(RUN)).await?.map(|small| small.bytes))
    }

    /// Keeps the plan. A loss of power may take it away, and the run cannot be resumed then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_plan(&self, json: Bytes) -> Result<(), StoreError> {
        self.destination.note(&self.path(PLAN), json, JSON).await
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
        self.note(&format!("epochs/{epoch}.json"), &seed).await
    }

    /// The seeds of all processes of the run, as far as they can be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn epochs(&self) -> Result<Vec<AttemptSeed>, StoreError> {
        Ok(self.records("epochs").await?.into_iter().filter_map(|(_, seed)| seed).collect())
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

    /// Every object that the run has begun, as far as it came to note it. A record that cannot be read still tells the
    /// object by its own name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn uploads(&self) -> Result<Vec<UploadRecord>, StoreError> {
        let named = |name: &str| {
            let path = name.strip_prefix("uploads/")?.strip_suffix(".json")?;
            Some(UploadRecord { path: path.to_owned(), upload_id: None })
        };
        let records: Vec<(String, Option<UploadRecord>)> = self.records("uploads").await?;
        Ok(records.into_iter().filter_map(|(name, record)| record.or_else(|| named(&name))).collect())
    }

    /// Notes that a partition is read and uploaded whole.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_receipt(&self, receipt: &PartitionReceipt) -> Result<(), StoreError> {
        // Without it the partition is read again.
        self.note(&format!("receipts/{}", receipt_name(receipt)), &ReceiptFile::from(receipt)).await
    }

    /// Takes back what [`Self::record_receipt`] noted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn forget_receipt(&self, receipt: &PartitionReceipt) -> Result<(), StoreError> {
        self.destination.delete(&self.path(&format!("receipts/{}", receipt_name(receipt)))).await
    }

    /// The receipts that can be read, in order of partitions; a partition may have several, of processes that overlapped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts(&self) -> Result<Vec<PartitionReceipt>, StoreError> {
        let files: Vec<(String, Option<ReceiptFile>)> = self.records("receipts").await?;
        Ok(files.into_iter().filter_map(|(_, file)| file?.try_into().ok()).collect())
    }

    /// How many partitions have a receipt, by the names of these alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn partitions_read(&self) -> Result<usize, StoreError> {
        let names = self.receipt_names().await?;
        let partitions = names.iter().filter_map(|name| name.split_once('-')).map(|(partition, _)| partition);
        Ok(partitions.collect::<HashSet<_>>().len())
    }

    /// Notes who holds the run's snapshot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_keeper(&self, name: &str, keeper: &impl Serialize) -> Result<(), StoreError> {
        self.note(&format!("keepers/{name}.json"), keeper).await
    }

    /// Who holds the run's snapshot, or did, as far as it can be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keepers<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        Ok(self.records("keepers").await?.into_iter().filter_map(|(_, keeper)| keeper).collect())
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
    /// [`StoreError`]; [`StoreFault::Taken`] where the record cannot be read: only it tells which parts may be visible.
    pub async fn commit<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        let Some(small) = self.destination.read(&self.path(COMMIT)).await? else { return Ok(None) };
        let read = serde_json::from_slice(&small.bytes).map(Some);
        read.map_err(|error| {
            let why =
                format!("{}; without it nobody knows which parts the commit had made visible", unreadable(&error));
            StoreError::new("reading", self.destination.object_url(&self.path(COMMIT)), StoreFault::Taken, why)
        })
    }

    /// Whether the run still has its journal: a keeper outlives its run, but not its journal.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_open(&self) -> Result<bool, StoreError> {
        let is_there = async |name| Ok::<_, StoreError>(self.destination.head(&self.path(name)).await?.is_some());
        // A run of 0.1.0 has no record but its plan.
        Ok((is_there(RUN).await? || is_there(PLAN).await?) && !self.has_ended().await?)
    }

    /// Whether the run to which the records belong has ended, and not only an earlier one of the same id whose records
    /// could not be removed.
    async fn has_ended(&self) -> Result<bool, StoreError> {
        let Some(small) = self.destination.read(&self.path(ENDED)).await? else { return Ok(false) };
        Ok(seed_in(&small.bytes) == self.run().await?.as_deref().and_then(seed_in))
    }

    /// Says that the run has ended, where its records must stay.
    async fn end(&self) -> Result<(), StoreError> {
        let run = self.run().await.unwrap_or_default();
        self.put(ENDED, &Ended { ended: true, seed: run.as_deref().and_then(seed_in) }).await
    }

    /// Removes the run's records, and from a local destination whatever is still staged: there is nothing to resume.
    /// Where the role may not delete, a last record says that the run has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(&self) -> Result<(), StoreError> {
        let folder = self.run_folder();
        if self.destination.local_folder().is_some() {
            return self.destination.delete_local_folder(&folder, RUN).await;
        }
        let mut paths: Vec<String> = match self.destination.list(&folder).await {
            Ok(found) => found.into_iter().map(|(path, _)| path).collect(),
            // Without the right to list there is none to delete either.
            Err(_) => return self.end().await,
        };
        // The facts of the run go last, and before them the plan, which had them in 0.1.0: what is left is known for what it
        // is.
        let last = [PLAN, RUN].map(|name| self.path(name));
        let rank = |path: &String| last.iter().position(|name| name == path).map_or(0, |place| place + 1);
        paths.sort_by_key(|path| rank(path));
        for some in paths.chunk_by(|one, other| rank(one) == rank(other)) {
            if self.destination.delete_all(some.to_vec()).await.is_err() {
                return self.end().await;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.run_folder())
    }

    async fn put(&self, name: &str, record: &impl Serialize) -> Result<(), StoreError> {
        let path = self.path(name);
        let json = self.json(&path, record)?;
        self.destination.put(&path, json, JSON).await
    }

    /// Keeps what a later process is only quicker with.
    async fn note(&self, name: &str, record: &impl Serialize) -> Result<(), StoreError> {
        let path = self.path(name);
        let json = self.json(&path, record)?;
        self.destination.note(&path, json, JSON).await
    }

    fn json(&self, path: &str, record: &impl Serialize) -> Result<Bytes, StoreError> {
        let json = serde_json::to_vec(record).map_err(|error| {
            StoreError::new("writing", self.destination.object_url(path), StoreFault::Configuration, error)
        })?;
        Ok(json.into())
    }

    /// All records of one kind with their names in the journal, in order of these; `None` in place of one that cannot be
    /// read.
    async fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(String, Option<T>)>, StoreError> {
        let folder = self.run_folder();
        let names = self.destination.list(&format!("{folder}/{kind}")).await?;
        let names = names.into_iter().filter_map(|(path, _)| {
            // Whatever is being written stands under a hidden name.
            let hidden = path.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
            (!hidden).then(|| path.strip_prefix(&folder).unwrap_or(&path).trim_start_matches('/').to_owned())
        });
        stream::iter(names)
            .map(|name| async move {
                let Some(small) = self.destination.read(&self.path(&name)).await? else { return Ok(None) };
                let record = serde_json::from_slice(&small.bytes);
                let record = record.inspect_err(|error| {
                    let object = self.destination.object_url(&self.path(&name));
                    tracing::warn!(why = unreadable(error), "{object} is passed over");
                });
                Ok(Some((name, record.ok())))
            })
            .buffered(DISCARDS_AT_ONCE)
            .try_filter_map(|record| std::future::ready(Ok(record)))
            .try_collect()
            .await
    }
}

/// Why a record cannot be read: the place, and not serde's own words, which may quote a value.
pub(crate) fn unreadable(error: &serde_json::Error) -> String {
    format!("it cannot be read as far as line {}, column {}", error.line(), error.column())
}

/// What a receipt is called in its folder.
pub(crate) fn receipt_name(receipt: &PartitionReceipt) -> String {
    format!("{:05}-{:08x}.json", receipt.partition, receipt.attempt)
}

const RUN: &str = "run.json";
const PLAN: &str = "plan.json";
const COMMIT: &str = "commit.json";
const ENDED: &str = "ended.json";

/// The format of `ended.json`. The seed is that of the `run.json` beside it: a later run of the same id has another one.
#[derive(Serialize)]
struct Ended {
    ended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
}

/// The seed in a `run.json` or an `ended.json`; `None` where it has none, as those of 0.1.0.
fn seed_in(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Seeded {
        seed: Option<String>,
    }
    serde_json::from_slice::<Seeded>(bytes).ok()?.seed
}
