//! `resume` of a job's root: goes on with every export of the run that began there last.

use std::time::Instant;

use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::company::AllowMixed;
use super::error::ExportError;
use super::finish::RunTarget;
use super::identity::RunIdentity;
use super::job::{ExportEvent, JobPart, JobReport, JobTerms, OpenedPart, carried_out, open, refuse_workers};
use super::job_record::{self, ExportInRecord, FoundRecord};
use super::mark::Mark;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::place::place_by;
use super::record::RunRecord;
use super::request::ExportRequest;
use super::resume::{ResumeRequest, committed, nothing, of_source};
use crate::commit::{Placement, look};
use crate::model::{CommitOptions, ExportErrorKind, SnapshotScope, Target};
use crate::store::owner::refuse_alive;
use crate::store::{Destination, Journal, StoreOptions, of_records, shown};

/// Destinations that are looked at at the same time.
const LOOKED_AT_ONCE: usize = 8;

/// The run of a job that is to be resumed.
#[derive(Debug)]
pub struct ResumableJob {
    terms: JobTerms,
    parts: Vec<JobPart>,
}

impl ResumableJob {
    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.terms.run_id
    }

    /// Where its record is, without credentials.
    pub fn root(&self) -> &str {
        &self.terms.root_url
    }

    /// The most readers that it has.
    pub fn readers(&self) -> usize {
        self.terms.readers
    }

    /// What is read under one snapshot.
    pub fn snapshot(&self) -> SnapshotScope {
        self.terms.snapshot
    }

    /// What people call its exports.
    pub fn names(&self) -> Vec<String> {
        self.parts.iter().map(|part| part.name.clone()).collect()
    }
}

/// Looks for the run of a job that began last at a root; `None` where none has left a record there.
///
/// # Errors
/// The root does not answer, or all is committed where only what is unfinished counts. What is wrong with one export is its
/// own error, which [`resume_job`] tells.
///
/// # Cancel safety
/// It finishes what has committed and was killed then; a repeated call goes on where this one stopped.
pub async fn find_job(request: &ResumeRequest) -> Result<Option<ResumableJob>, ExportError> {
    if request.single_file {
        return Ok(None);
    }
    let credentials = request.aws_credential_command.as_ref();
    let root = Destination::connect(&request.destination, &StoreOptions::small(), credentials).await?;
    let Some(record) = job_record::newest(&root).await? else { return Ok(None) };
    let parts = record.exports.iter().map(|export| Box::pin(found(request, &record.run_id, export)));
    let parts: Vec<JobPart> = stream::iter(parts).buffered(LOOKED_AT_ONCE).collect().await;
    let has_committed = |part: &JobPart| matches!(&part.opened, OpenedPart::Ended(ended) if ended.is_ok());
    if request.unfinished && parts.iter().all(has_committed) {
        return Err(nothing(&shown(&request.destination)));
    }
    let readers = parts.iter().filter_map(|part| match &part.opened {
        OpenedPart::Open(open) => Some(open.0.work.readers.get()),
        OpenedPart::Ended(_) => None,
    });
    let (readers, root_url) = (readers.max().unwrap_or(1), shown(&request.destination));
    let objects = parts.iter().find_map(|part| match &part.opened {
        OpenedPart::Open(open) => Some(open.0.commit.objects.clone()),
        OpenedPart::Ended(_) => None,
    });
    // What is written there from now on is encrypted as the exports are.
    let objects = of_records(&request.destination, &objects.unwrap_or_default())?;
    let options = StoreOptions::small();
    let root = Destination::connect_for(&request.destination, &options, credentials, &objects).await?;
    let (on_error, snapshot) = (record.on_error(), record.scope());
    refuse_workers(request.source.as_ref(), request.external.is_some())?;
    if snapshot == SnapshotScope::Export && request.external.is_some() {
        let message = "--workers external: the exports of this job have a snapshot each, and workers read under one";
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("leave it out"));
    }
    let allow_mixed = AllowMixed(request.allow_mixed_snapshot);
    let FoundRecord { run_id, date, .. } = record;
    // The process that was killed may have had workers.
    let may_be_posted = true;
    // The process that began the run has checked the names of `--protect` over all of them.
    let beside = None;
    let terms =
        JobTerms { root, root_url, run_id, on_error, snapshot, date, readers, allow_mixed, may_be_posted, beside };
    Ok(Some(ResumableJob { terms, parts }))
}

/// Goes on with the run of a job: exports that have committed are reported, the others resumed where their snapshot is still
/// held, else made anew.
///
/// # Errors
/// As [`super::job::run_job`].
///
/// # Cancel safety
/// As [`super::run()`].
pub async fn resume_job(
    ResumableJob { terms, parts }: ResumableJob,
    events: Sender<ExportEvent>,
    cancel: CancellationToken,
) -> Result<JobReport, ExportError> {
    let (commit_begun, stop) = (Mark::default(), cancel.clone());
    let carried = Box::pin(carried_out(terms, parts, events, stop, commit_begun.clone()));
    to_its_end(carried, &commit_begun, &cancel, ABORT_PATIENCE).await
}

/// What is known of one export of a run.
async fn found(request: &ResumeRequest, run_id: &str, export: &ExportInRecord) -> JobPart {
    let opened = match opened(request, run_id, export).await {
        Ok(opened) => opened,
        Err(error) => OpenedPart::Ended(Box::new(Err(error))),
    };
    let ExportInRecord { name, relation, destination, single_file, .. } = export;
    JobPart {
        name: name.clone(),
        relation: relation.clone(),
        destination: destination.clone(),
        single_file: *single_file,
        opened,
    }
}

async fn opened(request: &ResumeRequest, run_id: &str, export: &ExportInRecord) -> Result<OpenedPart, ExportError> {
    let started = Instant::now();
    let credentials = request.aws_credential_command.as_ref();
    let (destination, placement) = place_by(&export.destination, export.single_file, credentials).await?;
    if !request.take_over {
        refuse_alive(&destination, &placement.owner_path(), true).await?;
    }
    if let Some(existing) = look(&destination, &placement).await?.filter(|found| found.manifest.run_id == run_id) {
        let report = committed(destination, placement, &existing, started).await;
        return Ok(OpenedPart::Ended(Box::new(report)));
    }
    let journal = Journal::new(destination, run_id);
    if let Some(identity) = RunIdentity::read(&journal).await? {
        identity.check(&journal, ExportErrorKind::Usage)?;
    }
    let Some(record) = RunRecord::read(&journal).await? else {
        let message = format!("run {run_id} has left nothing at {}", shown(&export.destination));
        let hint = "it failed there, or had not begun: `outhaul run` with the same --run-id exports it";
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint(hint));
    };
    of_source(&record, request.source.as_ref())?;
    if record.plan.watermark.is_some() {
        let message = "an export of what is new since another one is not gone on with from its journal alone";
        let hint = "`outhaul run` with the same --run-id asks for what is new again";
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint(hint));
    }
    let asked = of_record(&record, request, export, &placement);
    let (asked, place): (ExportRequest, RunTarget) = open(&asked).await?;
    Ok(OpenedPart::Open(Box::new((asked, place))))
}

/// The request of an export, as its record has it.
fn of_record(
    record: &RunRecord,
    request: &ResumeRequest,
    export: &ExportInRecord,
    placement: &Placement,
) -> ExportRequest {
    let mut asked =
        record.request(std::sync::Arc::clone(&request.source), Target::Destination(export.destination.clone()));
    if let Some(readers) = request.readers {
        asked.work.readers = readers;
    }
    asked.external.clone_from(&request.external);
    asked.commit = CommitOptions {
        single_file: *placement != Placement::Parts,
        // It is the same run, whatever gave it its name.
        run_id_given: true,
        take_over: request.take_over,
        aws_credential_command: request.aws_credential_command.clone(),
        protect: asked.commit.protect.map(|protect| protect.with_key_at(request.protect_key.clone())),
        ..asked.commit
    };
    asked
}
