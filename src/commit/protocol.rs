//! The commit: staged parts become visible, and one manifest says so (invariants I1 and I2).
//!
//! 1. Look whether the manifest that stands is the one that was there when the run began.
//! 2. Delete an old `_SUCCESS`. 3. Publish all parts. 4. Write the manifest: create, or replace the version that was
//!    read at the start. 5. Read it back; only that decides.
//! 6. What describes it to other engines. 7. `_SUCCESS`. 8. Delete what only the replaced manifest named.
//!
//! Before step 5 succeeds a failure takes everything back that this run published, and restores a replaced `_SUCCESS`. After it the run is committed, and
//! calling [`commit`] again with the same manifest finishes what is left. Nothing else is ever deleted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;

use super::documents::{Describe, Documents, JSON};
use super::error::ManifestError;
use super::existing::{Existing, look};
use super::model::Manifest;
use super::placement::{Placement, SUCCESS_PATH};
use super::record::{CommitRecord, SingleRecord};
use crate::base::failpoint;
use crate::model::{OnExisting, StagedObject};
use crate::store::error::StoreFault;
use crate::store::{Claim, DISCARDS_AT_ONCE, Destination, Journal, StoreError, Version};

/// Parts made visible at the same time at commit. One completion is one small request, or one rename with its fsync;
/// the window in which some parts are visible and the manifest is not shrinks with it.
const PUBLISHES_AT_ONCE: usize = 16;

/// Tries to write the manifest where reading back shows that nothing was written. The client has its own retries of
/// requests; these are for a store that refuses writers that race, with nothing stored in the end.
const MANIFEST_TRIES: u32 = 3;

/// Between two tries to write the manifest.
const MANIFEST_PAUSE: Duration = Duration::from_millis(500);

/// What the commit depends on.
#[derive(Debug, Clone)]
pub(crate) struct CommitRules {
    /// Parts, or a single file.
    pub(crate) placement: Placement,
    /// Whether a single file may overwrite what stands at its key.
    pub(crate) on_existing: OnExisting,
    /// How other engines are told of the export.
    pub(crate) describe: Describe,
    /// The manifest that this one replaces, as it was before the run.
    pub(crate) previous: Option<Existing>,
    /// Whose destination it is, and where the commit notes what it is about to do; without them a commit that dies, or
    /// that another run overtakes, leaves its parts to people.
    pub(crate) run: Option<(Claim, Journal)>,
}

/// A commit that stands.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) manifest_url: String,
    /// Parts of the replaced manifest that could not be deleted; the commit stands all the same.
    pub(crate) warnings: Vec<StoreError>,
}

/// Commits `manifest`, whose parts are `staged` (in any order).
///
/// # Errors
/// See [`ManifestError`]. Where [`ManifestError::may_be_committed`] says so, nothing was taken back and nothing may be
/// discarded. Otherwise what this call published is removed again; what it did not come to is still staged, and the
/// caller's to discard.
///
/// # Cancel safety
/// Not cancel safe: dropped in the middle, parts may be visible that no manifest names. Once begun, carry it through.
pub(crate) async fn commit(
    destination: &Destination,
    manifest: Arc<Manifest>,
    staged: &[&StagedObject],
    rules: &CommitRules,
) -> Result<Committed, ManifestError> {
    let documents = Documents::of(Arc::clone(&manifest), rules.describe).await?;
    let staged = in_part_order(&manifest, staged)?;
    let mut run = Commit { destination, manifest: &manifest, documents: &documents, rules, single: None };
    if run.standing().await.map_err(ManifestState::before)?.must_be_written(&run)? {
        run.begin().await?;
        failpoint::reach("noted").await;
        let success = run.clear_success().await?;
        if let Err(error) = run.publish_and_write(&staged).await {
            run.restore_success(success, &error).await;
            return Err(error);
        }
    }
    failpoint::reach("committed").await;
    documents.write(destination, &rules.placement).await?;
    let warnings = run.delete(run.replaced()).await;
    Ok(Committed { manifest_url: run.manifest_url(), warnings })
}

/// Pairs every part of the manifest with its one staged object.
fn in_part_order<'a>(manifest: &Manifest, staged: &[&'a StagedObject]) -> Result<Vec<&'a StagedObject>, ManifestError> {
    let mut by_path: HashMap<&str, &StagedObject> =
        staged.iter().map(|object| (object.path.as_str(), *object)).collect();
    let mut ordered = Vec::with_capacity(staged.len());
    for part in &manifest.parts {
        match by_path.remove(part.path.as_str()) {
            Some(object) if (object.bytes, object.crc64nvme) == (part.bytes, part.crc64nvme) => ordered.push(object),
            _ => return Err(ManifestError::Staged { path: part.path.clone() }),
        }
    }
    match by_path.into_keys().next() {
        Some(path) => Err(ManifestError::Staged { path: path.to_owned() }),
        None if ordered.len() != staged.len() => Err(ManifestError::Staged { path: "given twice".to_owned() }),
        None => Ok(ordered),
    }
}

/// Whose manifest stands.
enum ManifestState {
    Nothing,
    Ours,
    Other { run_id: String, version: Version },
}

/// All that tells manifests apart.
#[derive(Deserialize)]
struct Identity {
    run_id: String,
    nonce: String,
}

enum ManifestReadError {
    Store(StoreError),
    Decode(ManifestError),
}

impl ManifestState {
    fn before(error: ManifestReadError) -> ManifestError {
        match error {
            ManifestReadError::Store(error) => ManifestError::Look(error),
            ManifestReadError::Decode(error) => error,
        }
    }

    fn read_back(error: ManifestReadError) -> ManifestError {
        match error {
            ManifestReadError::Store(error) => ManifestError::ReadBack(error),
            ManifestReadError::Decode(error) => error,
        }
    }

    /// Whether the manifest is still to be written; an error where it cannot be.
    fn must_be_written(self, run: &Commit<'_>) -> Result<bool, ManifestError> {
        match (self, &run.rules.previous) {
            (Self::Ours, _) => Ok(false),
            (Self::Nothing, None) => Ok(true),
            (Self::Other { version, .. }, Some(previous)) if version == previous.version => Ok(true),
            (Self::Nothing, Some(_)) => Err(ManifestError::Vanished { object: run.manifest_url() }),
            (Self::Other { run_id, .. }, _) => Err(ManifestError::Taken { object: run.manifest_url(), run_id }),
        }
    }
}

/// One commit under way.
struct Commit<'a> {
    destination: &'a Destination,
    manifest: &'a Manifest,
    documents: &'a Documents,
    rules: &'a CommitRules,
    /// A single file, and what stood at its key before it was published.
    single: Option<SingleRecord>,
}

impl Commit<'_> {
    fn manifest_url(&self) -> String {
        self.destination.object_url(&self.rules.placement.manifest_path())
    }

    async fn standing(&self) -> Result<ManifestState, ManifestReadError> {
        let path = self.rules.placement.manifest_path();
        let Some(small) = self.destination.read(&path).await.map_err(ManifestReadError::Store)? else {
            return Ok(ManifestState::Nothing);
        };
        if small.bytes == self.documents.manifest {
            return Ok(ManifestState::Ours);
        }
        let identity: Identity = serde_json::from_slice(&small.bytes).map_err(|error| {
            ManifestReadError::Decode(ManifestError::Decode { object: self.manifest_url(), source: error.into() })
        })?;
        if identity.nonce == self.manifest.nonce {
            return Ok(ManifestState::Ours);
        }
        Ok(ManifestState::Other { run_id: identity.run_id, version: small.version })
    }

    /// Makes sure that the destination is still ours, and notes what is about to happen there.
    async fn begin(&mut self) -> Result<(), ManifestError> {
        self.check_owner().await.map_err(ManifestError::Owner)?;
        self.single = self.look_at_single().await?;
        let Some((_, journal)) = &self.rules.run else { return Ok(()) };
        let record = CommitRecord {
            nonce: self.manifest.nonce.clone(),
            parts: self.manifest.parts.iter().map(|part| part.path.clone()).collect(),
            replaced: self.replaced(),
            single: self.single.clone(),
        };
        journal.record_commit(&record).await.map_err(ManifestError::Owner)
    }

    /// Looks at the key of a single file. A process of this run that died in its commit has noted what stood there before;
    /// what stands there now may be what that process published.
    async fn look_at_single(&self) -> Result<Option<SingleRecord>, ManifestError> {
        let (Placement::Single { .. }, [part]) = (&self.rules.placement, self.manifest.parts.as_slice()) else {
            return Ok(None);
        };
        if let Some((_, journal)) = &self.rules.run {
            let noted: Option<CommitRecord> = journal.commit().await.map_err(ManifestError::Owner)?;
            match noted {
                // Of a version that did not look: what stands there now may be the run's own.
                Some(record) if record.single.is_none() => return Ok(None),
                Some(CommitRecord { single: Some(single), .. }) if single.is_of(part) => return Ok(Some(single)),
                _ => {}
            }
        }
        SingleRecord::look(self.destination, part).await.map(Some).map_err(ManifestError::Look)
    }

    /// From here on nobody who polls for `_SUCCESS` may take the old one for ours. It is looked for first, so that a
    /// role without the right to delete can export to a fresh destination.
    async fn clear_success(&self) -> Result<Option<Bytes>, ManifestError> {
        if self.rules.placement != Placement::Parts {
            return Ok(None);
        }
        let old = self.destination.read(SUCCESS_PATH).await.map_err(ManifestError::ClearSuccess)?;
        if old.is_some() {
            self.destination.delete(SUCCESS_PATH).await.map_err(ManifestError::ClearSuccess)?;
        }
        Ok(old.map(|small| small.bytes))
    }

    /// After a failure the old manifest stands as it did, and so may its `_SUCCESS`.
    async fn restore_success(&self, old: Option<Bytes>, error: &ManifestError) {
        let undisturbed = !error.may_be_committed() && !matches!(error, ManifestError::Taken { .. });
        if let (Some(old), Some(_), true) = (old, &self.rules.previous, undisturbed) {
            // Best effort: the commit's own error is the one to report.
            let _ = self.destination.put(SUCCESS_PATH, old, JSON).await;
        }
    }

    async fn publish_and_write(&self, staged: &[&StagedObject]) -> Result<(), ManifestError> {
        let mut begun = Vec::with_capacity(staged.len());
        let published = self.publish(staged, &mut begun).await;
        let error = match published {
            Err(source) => ManifestError::Publish(source),
            Ok(()) => match self.sign().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        if error.may_be_committed() {
            return Err(error);
        }
        Err(match self.unpublish(&begun, &error).await {
            0 => error,
            left => ManifestError::Stranded { left, source: Box::new(error) },
        })
    }

    /// The manifest, if the destination is still ours.
    async fn sign(&self) -> Result<(), ManifestError> {
        failpoint::reach("published").await;
        self.write_manifest().await
    }

    /// Asks whether the destination is still this run's, where it is anybody's.
    async fn check_owner(&self) -> Result<(), StoreError> {
        match &self.rules.run {
            Some((claim, _)) => claim.check().await,
            None => Ok(()),
        }
    }

    /// Publishes the parts, and notes in `begun` those that are or may be visible. After a failure no further part is
    /// begun, and those under way are waited for: dropped, they could become visible after they were removed.
    async fn publish(&self, staged: &[&StagedObject], begun: &mut Vec<String>) -> Result<(), StoreError> {
        let failed = AtomicBool::new(false);
        let wanted = (0..staged.len()).take_while(|_| !failed.load(Ordering::Relaxed));
        let mut results = stream::iter(wanted)
            .map(|index| {
                let (object, failed) = (staged[index], &failed);
                async move {
                    let result = match &self.single {
                        Some(single) if self.may_overwrite(&object.path) => {
                            self.destination.publish_over(object, single.before.as_deref()).await
                        }
                        // An object store would replace what has come to stand there while the run went on.
                        Some(single) if single.before.is_some() => Err(self.taken(&object.path)),
                        _ => self.destination.publish(object).await,
                    };
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    (object, result)
                }
            })
            .buffered(PUBLISHES_AT_ONCE);
        let mut first_error = None;
        while let Some((object, result)) = results.next().await {
            // A local file that was in the way is somebody else's, and not ours to remove.
            if !matches!(&result, Err(error) if error.fault == StoreFault::Taken) {
                begun.push(object.path.clone());
            }
            first_error = first_error.or(result.err());
        }
        first_error.map_or(Ok(()), Err)
    }

    fn taken(&self, path: &str) -> StoreError {
        let why = "somebody has written it since the run began";
        StoreError::new("publishing", self.destination.object_url(path), StoreFault::Taken, why)
    }

    /// Names of parts are of one attempt and never taken; only a single file's key can be.
    fn may_overwrite(&self, path: &str) -> bool {
        let previous = self.rules.previous.as_ref();
        matches!(&self.rules.placement, Placement::Single { .. })
            && (self.rules.on_existing == OnExisting::Replace
                || previous.is_some_and(|previous| previous.manifest.parts.iter().any(|part| part.path == path)))
    }

    /// Removes what this run published: how many objects could not be removed.
    async fn unpublish(&self, begun: &[String], error: &ManifestError) -> usize {
        // A single file's key is also named by the manifest that stands there, and its old bytes are gone either way.
        if matches!(self.rules.placement, Placement::Single { .. })
            && (self.rules.previous.is_some() || matches!(error, ManifestError::Taken { .. }))
        {
            return 0;
        }
        // Whoever has the destination now has the journal too, and may have taken these very parts for his own.
        if self.check_owner().await.is_err() {
            let is_lost = self.rules.run.as_ref().is_some_and(|(claim, _)| claim.lost().is_cancelled());
            return if is_lost { 0 } else { begun.len() };
        }
        let named = match error {
            ManifestError::Taken { .. } if !failpoint::off("named-parts") => self.named().await,
            _ => Some(HashSet::new()),
        };
        let Some(named) = named else { return begun.len() };
        let mut left = 0;
        let mut paths = Vec::new();
        for path in begun.iter().filter(|path| !named.contains(*path)) {
            match self.is_published(path).await {
                Ok(true) => paths.push(path.clone()),
                Ok(false) => {}
                Err(_) => left += 1,
            }
        }
        left + self.delete(paths).await.len()
    }

    /// Whether what stands at a part's name, if anything does, is ours. At the key of a single file may be what stood there
    /// before, which nothing has replaced.
    async fn is_published(&self, path: &str) -> Result<bool, StoreError> {
        let Some(single) = &self.single else { return Ok(true) };
        Ok(self.destination.head(path).await?.is_some_and(|there| single.is(&there)))
    }

    /// The parts that the standing manifest names: a process that was overtaken may have written it, and they are those of
    /// this run. `None` where it cannot be read.
    async fn named(&self) -> Option<HashSet<String>> {
        let there = look(self.destination, &self.rules.placement).await.ok()?;
        Some(there.into_iter().flat_map(|there| there.manifest.parts).map(|part| part.path).collect())
    }

    /// Makes sure that the export whose manifest stands is there. The manifest may have been on its way for longer than others
    /// wait for a run that is silent.
    async fn confirm(&self) -> Result<(), ManifestError> {
        if failpoint::off("confirm") || self.check_owner().await.is_ok() {
            return Ok(());
        }
        for part in &self.manifest.parts {
            let there = self.destination.head(&part.path).await.map_err(ManifestError::ReadBack)?;
            if there.is_none_or(|facts| facts.bytes != part.bytes) {
                return Err(ManifestError::Overtaken { object: self.manifest_url(), path: part.path.clone() });
            }
        }
        Ok(())
    }

    /// Writes the manifest and reads it back. What the put itself says is never trusted: a lost answer makes a success
    /// look like an error or like somebody else's manifest.
    async fn write_manifest(&self) -> Result<(), ManifestError> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.check_owner().await.map_err(ManifestError::Owner)?;
            failpoint::reach("signing").await;
            let put = self.put_manifest().await;
            failpoint::reach("sent").await;
            if failpoint::off("read-back") {
                return put.map_err(ManifestError::Write);
            }
            let standing = self.standing().await.map_err(ManifestState::read_back)?;
            if !standing.must_be_written(self)? {
                return self.confirm().await;
            }
            if tries == MANIFEST_TRIES {
                return Err(match put {
                    Err(error) => ManifestError::Write(error),
                    Ok(()) => ManifestError::NotThere { object: self.manifest_url() },
                });
            }
            tokio::time::sleep(MANIFEST_PAUSE).await;
        }
    }

    async fn put_manifest(&self) -> Result<(), StoreError> {
        let (path, bytes) = (self.rules.placement.manifest_path(), self.documents.manifest.clone());
        match &self.rules.previous {
            None => self.destination.create(&path, bytes, JSON).await.map(|_| ()),
            Some(previous) => self.destination.replace(&path, bytes, JSON, &previous.version).await.map(|_| ()),
        }
    }

    /// Deletes the parts that the replaced manifest names and this one does not.
    fn replaced(&self) -> Vec<String> {
        let Some(previous) = &self.rules.previous else { return Vec::new() };
        let kept: HashSet<&str> = self.manifest.parts.iter().map(|part| part.path.as_str()).collect();
        let replaced = previous.manifest.parts.iter().map(|part| &part.path);
        replaced.filter(|path| !kept.contains(path.as_str())).cloned().collect()
    }

    /// Deletes objects, and says why some could not be deleted.
    async fn delete(&self, paths: Vec<String>) -> Vec<StoreError> {
        let results = stream::iter(paths)
            .map(|path| async move { self.destination.delete(&path).await })
            .buffer_unordered(DISCARDS_AT_ONCE);
        results.filter_map(|result| std::future::ready(result.err())).collect().await
    }
}

#[cfg(test)]
mod tests;
