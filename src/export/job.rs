//! Several exports of one run, as a job file asks for them, and the record of what became of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::Utc;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::company::Company;
use super::error::ExportError;
use super::finish::RunTarget;
use super::job_record;
use super::mark::Mark;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::request::ExportRequest;
use super::run::{Run, check_counts, format_of, unless_cancelled};
use super::together::together;
use super::worker::folders_of;
use crate::model::{Event, ExportErrorKind, ExportReport, OnError, Plan, RelationRequest, Target};
use crate::store::{Destination, StoreOptions, shown};

/// Events of one export that wait to be told apart from those of the others.
const EVENT_QUEUE: usize = 64;

/// Several exports of one source, under one moment.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Where the run's record goes.
    pub root: String,
    /// The run's id, which all exports share.
    pub run_id: String,
    /// What a failed export does to the others.
    pub on_error: OnError,
    /// The exports, with one source and one id. The first has the run's own options.
    pub exports: Vec<JobExport>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct JobExport {
    /// What people call it.
    pub name: String,
    /// What is asked for.
    pub request: ExportRequest,
}

/// An event of one export.
#[derive(Debug)]
pub struct ExportEvent {
    /// Its place in [`JobRequest::exports`].
    pub export: usize,
    /// What happened.
    pub event: Event,
}

/// How an export of a job ended.
#[derive(Debug)]
pub struct JobOutcome {
    /// What people call it.
    pub name: String,
    /// What was exported: a relation's name, or `query`.
    pub relation: String,
    /// The destination, without credentials.
    pub destination: String,
    /// Whether that is a single file.
    pub single_file: bool,
    /// Its report, or why it did not commit.
    pub result: Result<ExportReport, ExportError>,
}

/// How a job ended.
#[derive(Debug)]
pub struct JobReport {
    /// The run's id.
    pub run_id: String,
    /// Where its record is, without credentials.
    pub root: String,
    /// The record's URL, or why there is none.
    pub record: Result<String, ExportError>,
    /// Whether all exports that stand share one snapshot.
    pub one_instant: bool,
    /// The exports, in the order of the request.
    pub exports: Vec<JobOutcome>,
}

/// Carries a job out. Each export commits its own manifest; the run's record is written last.
///
/// # Errors
/// Nothing could be begun: what becomes of each export is in the report.
///
/// # Cancel safety
/// As [`super::run()`].
pub async fn run_job(
    job: JobRequest,
    events: Sender<ExportEvent>,
    cancel: CancellationToken,
) -> Result<JobReport, ExportError> {
    let (commit_begun, stop) = (Mark::default(), cancel.clone());
    let carried = Box::pin(carried_out(job, events, stop, commit_begun.clone()));
    to_its_end(carried, &commit_begun, &cancel, ABORT_PATIENCE).await
}

async fn carried_out(
    job: JobRequest,
    events: Sender<ExportEvent>,
    cancel: CancellationToken,
    commit_begun: Mark,
) -> Result<JobReport, ExportError> {
    let started_at = Utc::now();
    let Some(first) = job.exports.first() else {
        return Err(ExportError::new(ExportErrorKind::Usage, "the job has no export"));
    };
    let credentials = first.request.commit.aws_credential_command.clone();
    let connecting = async { Ok(Destination::connect(&job.root, &StoreOptions::small(), credentials.as_ref()).await?) };
    let root = unless_cancelled(&cancel, connecting).await?;
    let (mut opened, mut places) = (Vec::new(), Vec::new());
    for export in &job.exports {
        let place = unless_cancelled(&cancel, open(&export.request)).await;
        places.push(place.as_ref().map_or_else(|_| written(&export.request), |(_, place)| place.url()));
        opened.push(place);
    }
    // A run that is killed is found by it, and a root that cannot be written is told of before anything is read.
    let beginning = async { job_record::begin(&root, &job, &places, started_at).await };
    unless_cancelled(&cancel, beginning).await?;
    let readers = job.exports.iter().map(|export| export.request.work.readers.get()).max().unwrap_or(1);
    let company = Company::new(opened.len(), readers, job.on_error == OnError::Stop, &cancel);
    let mut runs = Vec::new();
    let mut results: Vec<Option<Result<ExportReport, ExportError>>> = Vec::new();
    let mut telling = JoinSet::new();
    for (number, opened) in opened.into_iter().enumerate() {
        match opened {
            Ok((request, place)) => {
                let own = tell_apart(number, &events, &mut telling);
                let mut run = Run::new(request, place, own);
                run.commit_begun = commit_begun.clone();
                runs.push((number, run));
                results.push(None);
            }
            Err(error) => {
                company.has_failed();
                results.push(Some(Err(error)));
            }
        }
    }
    drop(events);
    let all: Vec<&Run> = runs.iter().map(|(_, run)| run).collect();
    let ends = together(&all, &company, &cancel).await;
    for ((number, _), end) in runs.iter().zip(ends) {
        if let Some(result) = results.get_mut(*number) {
            *result = Some(end);
        }
    }
    drop(runs);
    while telling.join_next().await.is_some() {}
    let exports: Vec<JobOutcome> = job
        .exports
        .iter()
        .zip(places)
        .zip(results)
        .map(|((export, destination), result)| outcome(export, destination, result))
        .collect();
    let one_instant = one_instant(&exports);
    let record = job_record::end(&root, &job.run_id, started_at, one_instant, &exports).await;
    Ok(JobReport { run_id: job.run_id, root: shown(&job.root), record, one_instant, exports })
}

/// Checks a request, and opens its destination.
async fn open(request: &ExportRequest) -> Result<(ExportRequest, RunTarget), ExportError> {
    let mut request = request.clone();
    request.source.check(&mut request.shape)?;
    let place = RunTarget::open(&request).await?;
    Ok((request, place))
}

/// A channel for the events of one export.
fn tell_apart(export: usize, events: &Sender<ExportEvent>, telling: &mut JoinSet<()>) -> Sender<Event> {
    let (own, mut told) = mpsc::channel(EVENT_QUEUE);
    let events = events.clone();
    telling.spawn(async move {
        while let Some(event) = told.recv().await {
            // Nobody listens any more: the run goes on all the same.
            let _ = events.send(ExportEvent { export, event }).await;
        }
    });
    own
}

/// The destination as it was written, without credentials.
fn written(request: &ExportRequest) -> String {
    match &request.commit.target {
        Target::Destination(url) => shown(url),
        Target::Stream { .. } => "-".to_owned(),
    }
}

/// What is exported, for people.
pub(super) fn relation(export: &JobExport) -> String {
    match &export.request.shape.relation {
        RelationRequest::Table(name) => name.clone(),
        RelationRequest::Query(_) => "query".to_owned(),
    }
}

fn outcome(export: &JobExport, destination: String, result: Option<Result<ExportReport, ExportError>>) -> JobOutcome {
    JobOutcome {
        name: export.name.clone(),
        relation: relation(export),
        destination,
        single_file: export.request.commit.single_file,
        result: result.unwrap_or_else(|| Err(ExportError::internal("the export has no end"))),
    }
}

/// Whether all that stands was read under one snapshot.
fn one_instant(exports: &[JobOutcome]) -> bool {
    let standing: Vec<_> = exports.iter().filter_map(|export| export.result.as_ref().ok()).collect();
    let snapshots: BTreeSet<_> = standing.iter().map(|report| report.snapshot.as_deref()).collect();
    standing.len() < 2 || (snapshots.len() == 1 && !snapshots.contains(&None))
}

/// The plans of a job: of each export its plan, or why it has none. Locks and snapshot are taken as for a run, and let go;
/// nobody looks at the destinations.
///
/// # Errors
/// The source fails.
///
/// # Cancel safety
/// Dropping the future closes the sessions.
pub async fn plan_job(job: &JobRequest) -> Result<Vec<(String, Result<Arc<Plan>, ExportError>)>, ExportError> {
    let mut requests = Vec::new();
    for export in &job.exports {
        let mut request = export.request.clone();
        request.source.check(&mut request.shape)?;
        RunTarget::check(&request)?;
        requests.push(request);
    }
    let Some(first) = requests.first() else { return Ok(Vec::new()) };
    let mut asked = Vec::new();
    for request in &requests {
        asked.push(request.read_request());
    }
    let reading = first.source.begin(asked).await?;
    let mut plans = Vec::new();
    for (relation, (export, request)) in job.exports.iter().zip(&requests).enumerate() {
        let planned = match (reading.refused(relation), reading.plan(relation)) {
            (Some(error), _) => Err(error.into()),
            (None, Some(plan)) => {
                let counted = format_of(&plan, &request.format).and_then(|_| check_counts(&plan, request));
                let folders = || folders_of(request.commit.folders.as_ref(), &plan.columns);
                counted.and_then(|()| folders()).map(|_| plan)
            }
            (None, None) => Err(ExportError::internal("the source planned nothing")),
        };
        plans.push((export.name.clone(), planned));
    }
    Ok(plans)
}
