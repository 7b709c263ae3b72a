//! What a dead run left at a destination: found by its journal, finished or removed. Nothing else is ever touched.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::error::ExportError;
use super::identity::RunIdentity;
use crate::base::failpoint;
use crate::base::words::NAMES_IN_ERROR_MAX;
use crate::commit::{CommitRecord, Existing, Placement, Recovered, recover};
use crate::describe;
use crate::model::{ExportErrorKind, Visibility};
use crate::store::error::StoreFault;
use crate::store::{AttemptSeed, Destination, Journal, PartName, StoreError, UploadRecord};

/// A dead run.
#[derive(Debug)]
pub(crate) struct DeadRun {
    journal: Journal,
    /// `None` where it died before it was planned, and so before its first object.
    identity: Option<RunIdentity>,
    commit: Option<CommitRecord>,
    uploads: Vec<UploadRecord>,
    seeds: Vec<AttemptSeed>,
}

/// What became of a dead run.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The run had committed: its manifest, to which nothing is missing now.
    pub(crate) committed: Option<Box<Existing>>,
    /// Objects that were visible without a manifest, and are gone.
    pub(crate) removed: u64,
    /// Uploads that were aborted.
    pub(crate) aborted: u64,
    /// Staged files of a local destination that are gone.
    pub(crate) staged: u64,
    /// Uploads that the role may not abort; the journal stays for them.
    pub(crate) refused: Option<DeniedUploads>,
}

/// Uploads that stay, since the role may not abort them: invisible, and billed.
#[derive(Debug)]
pub(crate) struct DeniedUploads {
    uploads: Vec<String>,
    /// Why.
    pub(crate) error: StoreError,
}

impl DeniedUploads {
    pub(crate) fn warn(&self, run_id: &str) {
        let shown = self.uploads.iter().take(NAMES_IN_ERROR_MAX).map(String::as_str);
        tracing::warn!(
            error = %self.error,
            run_id,
            count = self.uploads.len(),
            uploads = shown.collect::<Vec<_>>().join(" "),
            "uploads of a dead run stay: nobody sees them, and they are billed until `outhaul clean` removes them with a \
             role that may abort uploads"
        );
    }
}

/// What a run that has not committed has at its destination, beside its records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// URLs of objects that are visible without a manifest.
    pub visible: Vec<String>,
    /// Uploads that are not complete, each with its object's URL: invisible, and billed.
    pub uploads: Vec<String>,
    /// Files of a local destination that are staged.
    pub staged: u64,
}

/// The journals below a destination that are of this placement and have not ended. Several single files may share a
/// folder, each with runs of its own.
pub(crate) async fn open_runs(destination: &Destination, placement: &Placement) -> Result<Vec<DeadRun>, ExportError> {
    let mut runs = Vec::new();
    for (journal, ended) in Journal::all(destination).await? {
        if ended {
            continue;
        }
        if let Some(run) = DeadRun::of(journal, placement).await? {
            runs.push(run);
        }
    }
    Ok(runs)
}

impl DeadRun {
    /// What the journal tells of the run, whichever version of outhaul wrote it; `None` where it is of another placement,
    /// or may be.
    ///
    /// # Errors
    /// The destination fails, or a newer version wrote records that this one would misread (exit 22).
    pub(crate) async fn of(journal: Journal, placement: &Placement) -> Result<Option<Self>, ExportError> {
        let identity = RunIdentity::read(&journal).await?;
        let ours = match &identity {
            Some(identity) => identity.is_of(placement),
            None => *placement == Placement::Parts,
        };
        if !ours {
            return Ok(None);
        }
        if let Some(identity) = &identity {
            identity.check(&journal, ExportErrorKind::DestinationTaken)?;
        }
        // Whoever finishes it may have been told of another way to encrypt, or of none.
        let journal = match &identity {
            Some(identity) => journal.encrypted_as(&identity.encryption)?,
            None => journal,
        };
        let mut commit: Option<CommitRecord> = journal.commit().await?;
        if let Some(commit) = &mut commit
            && !identity.as_ref().is_some_and(RunIdentity::has_place)
        {
            // It may be of a single file, whose manifest is not the one that is looked at, and may stand.
            let is_part = |path: &String| PartName::parse(path).is_some();
            commit.parts.retain(is_part);
            commit.replaced.retain(is_part);
        }
        let uploads = journal.uploads().await?;
        let mut seeds = journal.epochs().await?;
        seeds.extend(identity.as_ref().and_then(|identity| identity.seed));
        Ok(Some(Self { journal, identity, commit, uploads, seeds }))
    }

    pub(crate) fn run_id(&self) -> &str {
        self.journal.run_id()
    }

    pub(crate) fn identity(&self) -> Option<&RunIdentity> {
        self.identity.as_ref()
    }

    /// Finishes the run where its manifest stands; else removes all that it left. Its journal goes last, and stays where
    /// the role may not abort uploads.
    ///
    /// # Errors
    /// The destination fails, or the role may not remove something that is visible; the call may be repeated.
    pub(crate) async fn settle(&self, placement: &Placement) -> Result<Settled, ExportError> {
        let (begun, destination) = (self.visible_early(), self.journal.destination());
        let recovered = recover(destination, placement, self.commit.as_ref(), &begun, describe::documents).await?;
        let mut settled = match recovered {
            Recovered::Committed(existing) => Settled { committed: Some(existing), ..Settled::default() },
            Recovered::TakenBack(removed) => Settled { removed, ..Settled::default() },
        };
        let named: HashSet<&str> = settled
            .committed
            .iter()
            .flat_map(|existing| &existing.manifest.parts)
            .map(|part| part.path.as_str())
            .collect();
        let done = named.into_iter().map(|path| (path, None)).collect();
        (settled.aborted, settled.refused) = self.abort_uploads_but(destination, &done).await?;
        if settled.refused.is_none() {
            settled.staged = self.journal.staged().await?;
            self.journal.close().await?;
        }
        Ok(settled)
    }

    /// Removes all that the run has begun but the objects at `kept`, with the uploads that are to become them: what was
    /// shown early and the uploads. Local staged files that nobody needs go with the journal.
    ///
    /// # Errors
    /// As [`DeadRun::settle`].
    pub(crate) async fn discard_but(
        &self,
        destination: &Destination,
        kept: &HashMap<&str, Option<&str>>,
    ) -> Result<(), ExportError> {
        for path in self.visible_early() {
            if !kept.contains_key(path.as_str()) && destination.head(&path).await?.is_some() {
                destination.delete(&path).await?;
            }
        }
        if let (_, Some(refused)) = self.abort_uploads_but(destination, kept).await? {
            refused.warn(self.run_id());
        }
        Ok(())
    }

    /// Aborts the run's uploads but those by which the objects at `kept` come about: how many, and those that the role
    /// may not abort. Where it may not abort the first, it is not tried with the others.
    async fn abort_uploads_but(
        &self,
        destination: &Destination,
        kept: &HashMap<&str, Option<&str>>,
    ) -> Result<(u64, Option<DeniedUploads>), ExportError> {
        let (mut aborted, mut refused) = (0, None::<DeniedUploads>);
        let (uploads, listed) = self.open_uploads(destination).await;
        for (path, upload_id) in uploads {
            // What is known to be open, and is not what the object comes from, is of a request whose answer was lost.
            if kept.get(path.as_str()).is_some_and(|id| !listed || *id == Some(upload_id.as_str())) {
                continue;
            }
            if let Some(refused) = &mut refused {
                refused.uploads.push(destination.object_url(&path));
                continue;
            }
            match destination.abort_upload(&path, &upload_id).await {
                Ok(()) => aborted += 1,
                Err(error) if error.fault == StoreFault::Authentication && !failpoint::off("tolerate-uploads") => {
                    refused = Some(DeniedUploads { uploads: vec![destination.object_url(&path)], error });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((aborted, refused))
    }

    /// What [`DeadRun::settle`] may remove, for people: objects that may be visible, uploads, and the records.
    pub(crate) async fn traces(&self, destination: &Destination) -> Result<Vec<String>, ExportError> {
        let Remains { visible, uploads, .. } = self.remains(destination).await?;
        let records = destination.object_url(&self.journal.run_folder());
        Ok(visible.into_iter().chain(uploads).chain([records]).collect())
    }

    /// What the run has at the destination.
    ///
    /// # Errors
    /// The destination fails.
    pub(crate) async fn remains(&self, destination: &Destination) -> Result<Remains, ExportError> {
        let mut remains = Remains { staged: self.journal.staged().await?, ..Remains::default() };
        let commit = self.commit.as_ref();
        for path in self.visible_early().iter().chain(commit.iter().flat_map(|commit| &commit.parts)) {
            let facts = destination.head(path).await?;
            if facts.is_some_and(|facts| commit.is_none_or(|commit| commit.may_have_made(path, &facts))) {
                remains.visible.push(destination.object_url(path));
            }
        }
        let uploads = self.open_uploads(destination).await.0;
        let named = |(path, id): (String, String)| format!("upload {id} of {}", destination.object_url(&path));
        remains.uploads = uploads.into_iter().map(named).collect();
        Ok(remains)
    }

    /// Every object of the run that may be visible, or that its commit was to remove.
    pub(crate) fn may_have_shown(&self) -> Vec<String> {
        let of_commit = self.commit.iter().flat_map(|commit| commit.parts.iter().chain(&commit.replaced));
        self.visible_early().into_iter().chain(of_commit.cloned()).collect()
    }

    /// Objects that the run may have shown before its commit. Where it is not known whether it did, those whose names
    /// only this run makes: a single file's name may be somebody else's file.
    fn visible_early(&self) -> Vec<String> {
        let Some(identity) = &self.identity else { return Vec::new() };
        let shown = |path: &str| match identity.visibility {
            Some(Visibility::AsWritten) => true,
            Some(Visibility::AtCommit) => false,
            None => PartName::parse(path).is_some(),
        };
        self.uploads.iter().filter(|upload| shown(&upload.path)).map(|upload| upload.path.clone()).collect()
    }

    /// The uploads that the journal names and, where the store lists uploads, those whose names only this run makes; and
    /// whether they were listed, so that all of them are open.
    async fn open_uploads(&self, destination: &Destination) -> (Vec<(String, String)>, bool) {
        let noted = self.uploads.iter().filter_map(|it| Some((it.path.clone(), it.upload_id.clone()?)));
        let noted: Vec<(String, String)> = noted.collect();
        if self.seeds.is_empty() {
            return (noted, false);
        }
        let listed = match destination.open_uploads().await {
            Ok(Some(listed)) => listed,
            Ok(None) => return (noted, false),
            Err(error) => {
                // A store or a role without the right to list: what was noted is known all the same.
                tracing::warn!(%error, "open uploads cannot be listed");
                return (noted, false);
            }
        };
        let known: HashSet<&(String, String)> = noted.iter().collect();
        let of_ours = |path: &str| {
            PartName::parse(path)
                .is_some_and(|name| self.seeds.iter().any(|seed| seed.made(name.partition, name.attempt)))
        };
        // What is listed no more has been completed or aborted.
        (listed.into_iter().filter(|upload| known.contains(upload) || of_ours(&upload.0)).collect(), true)
    }
}
