//! What a dead run left at a destination: found by its journal, finished or removed. Nothing else is ever touched.

use std::collections::HashSet;

use super::error::ExportError;
use super::record::RunRecord;
use super::request::Visibility;
use crate::manifest::{CommitRecord, Existing, Placement, Recovered, recover};
use crate::store::{AttemptSeed, Destination, Journal, PartName, UploadRecord};

/// A dead run.
#[derive(Debug)]
pub(crate) struct DeadRun {
    journal: Journal,
    /// `None` where it died before it was planned, and so before its first object.
    record: Option<RunRecord>,
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
    /// What the journal tells of the run; `None` where it is of another placement, or may be.
    pub(crate) async fn of(journal: Journal, placement: &Placement) -> Result<Option<Self>, ExportError> {
        let record = RunRecord::read(&journal).await?;
        let ours = match &record {
            Some(record) => record.placement()? == *placement,
            None => *placement == Placement::Parts,
        };
        if !ours {
            return Ok(None);
        }
        let commit = journal.commit().await?;
        let uploads = journal.uploads().await?;
        let mut seeds = journal.epochs().await?;
        seeds.extend(record.as_ref().map(|record| record.seed));
        Ok(Some(Self { journal, record, commit, uploads, seeds }))
    }

    pub(crate) fn run_id(&self) -> &str {
        self.journal.run_id()
    }

    /// Finishes the run where its manifest stands; else removes all that it left. Its journal goes last.
    ///
    /// # Errors
    /// The destination fails, or the role may not remove something; the call may be repeated.
    pub(crate) async fn settle(
        &self,
        destination: &Destination,
        placement: &Placement,
    ) -> Result<Settled, ExportError> {
        let begun = self.visible_early();
        let recovered = recover(destination, placement, self.commit.as_ref(), &begun).await?;
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
        for (path, upload_id) in self.open_uploads(destination).await? {
            if !named.contains(path.as_str()) {
                destination.abort_upload(&path, &upload_id).await?;
                settled.aborted += 1;
            }
        }
        self.journal.close().await?;
        Ok(settled)
    }

    /// Removes all that the run has begun but the objects at `kept`: what was shown early and the uploads. Local staged
    /// files that nobody needs go with the journal.
    ///
    /// # Errors
    /// As [`DeadRun::settle`].
    pub(crate) async fn discard_but(&self, destination: &Destination, kept: &HashSet<&str>) -> Result<(), ExportError> {
        for path in self.visible_early() {
            if !kept.contains(path.as_str()) && destination.head(&path).await?.is_some() {
                destination.delete(&path).await?;
            }
        }
        for (path, upload_id) in self.open_uploads(destination).await? {
            if !kept.contains(path.as_str()) {
                destination.abort_upload(&path, &upload_id).await?;
            }
        }
        Ok(())
    }

    /// What [`DeadRun::settle`] may remove, for people: objects that may be visible, and uploads.
    pub(crate) async fn traces(&self, destination: &Destination) -> Result<Vec<String>, ExportError> {
        let mut traces = Vec::new();
        for path in self.visible_early().iter().chain(self.commit.iter().flat_map(|commit| &commit.parts)) {
            if destination.head(path).await?.is_some() {
                traces.push(destination.object_url(path));
            }
        }
        for (path, upload_id) in self.open_uploads(destination).await? {
            traces.push(format!("upload {upload_id} of {}", destination.object_url(&path)));
        }
        traces.push(destination.object_url(&self.journal.run_folder()));
        Ok(traces)
    }

    /// Objects that the run may have shown before its commit.
    fn visible_early(&self) -> Vec<String> {
        match &self.record {
            Some(record) if record.commit.visibility == Visibility::AsWritten => {
                self.uploads.iter().map(|upload| upload.path.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The uploads that the journal names and, where the store lists uploads, those whose names only this run makes.
    async fn open_uploads(&self, destination: &Destination) -> Result<Vec<(String, String)>, ExportError> {
        let noted = self.uploads.iter().filter_map(|it| Some((it.path.clone(), it.upload_id.clone()?)));
        let noted: Vec<(String, String)> = noted.collect();
        if self.record.is_none() {
            return Ok(noted);
        }
        let listed = match destination.open_uploads().await {
            Ok(Some(listed)) => listed,
            Ok(None) => return Ok(noted),
            Err(error) => {
                // A store or a role without the right to list: what was noted is known all the same.
                tracing::warn!(error = &error as &dyn std::error::Error, "open uploads cannot be listed");
                return Ok(noted);
            }
        };
        let known: HashSet<&(String, String)> = noted.iter().collect();
        let of_ours = |path: &str| {
            PartName::parse(path)
                .is_some_and(|name| self.seeds.iter().any(|seed| seed.made(name.partition, name.attempt)))
        };
        // What is listed no more has been completed or aborted.
        Ok(listed.into_iter().filter(|upload| known.contains(upload) || of_ours(&upload.0)).collect())
    }
}
