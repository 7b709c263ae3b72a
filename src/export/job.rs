//! Several exports of one run, as a job file asks for them, and the record of what became of them.

use std::convert::Infallible;
use std::sync::Arc;

use chrono::Utc;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::company::{AllowMixed, Company};
use super::error::ExportError;
use super::finish::RunTarget;
use super::job_record;
use super::mark::Mark;
use super::outside::Meeting;
use super::outside::meeting::MeetingTerms;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::planned::{check_counts, format_of};
use super::protect_names::{self, NamedColumns};
use super::request::ExportRequest;
use super::run::{Run, plan_alone, unless_cancelled};
use super::since;
use super::together::together;
use crate::model::{Event, ExportErrorKind, ExportReport, OnError, Plan, RelationRequest, SnapshotScope, Target};
use crate::source::Source;
use crate::store::{Destination, StoreOptions, of_records, shown};

/// Events of one export that wait to be told apart from those of the others.
const EVENT_QUEUE: usize = 64;

/// Several exports of one source, under one moment unless each is to have its own.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Where the run's record goes.
    pub root: String,
    /// The run's id, which all exports share.
    pub run_id: String,
    /// What a failed export does to the others.
    pub on_error: OnError,
    /// What of it is read under one snapshot.
    pub snapshot: SnapshotScope,
    /// The day that stands for `{date}`, as `2026-11-28`.
    pub date: String,
    /// Whether somebody said so: else a retry takes the day on which the run began.
    pub date_given: bool,
    /// The exports, with one source and one id. The first has the run's own options.
    pub exports: Vec<JobExport>,
    /// What else the job asks for, and is left out now: a name of `--protect` may be of one of these.
    pub left_out: Vec<ExportRequest>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct JobExport {
    /// What people call it.
    pub name: String,
    /// Whether the first rows are asked for and nothing else (`limit`), so that others are not missed.
    pub limited: bool,
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
    /// What was to be read under one snapshot.
    pub snapshot: SnapshotScope,
    /// The exports, in the order of the request.
    pub exports: Vec<JobOutcome>,
}

/// An export of a job before it is read, with what the record says of it.
#[derive(Debug)]
pub(super) struct JobPart {
    /// What people call it.
    pub(super) name: String,
    /// A relation's name, or `query`.
    pub(super) relation: String,
    /// The destination, without credentials.
    pub(super) destination: String,
    pub(super) single_file: bool,
    pub(super) opened: OpenedPart,
}

/// How far an export is known before it is read.
#[derive(Debug)]
pub(super) enum OpenedPart {
    /// Its destination is known.
    Open(Box<(ExportRequest, RunTarget)>),
    /// It has ended.
    Ended(Box<Result<ExportReport, ExportError>>),
}

/// What all exports of a job have in common.
#[derive(Debug)]
pub(super) struct JobTerms {
    /// Where the run's record goes.
    pub(super) root: Destination,
    /// The same, without credentials.
    pub(super) root_url: String,
    pub(super) run_id: String,
    pub(super) on_error: OnError,
    pub(super) snapshot: SnapshotScope,
    /// The day that stands for `{date}`, where that is known.
    pub(super) date: Option<String>,
    pub(super) readers: usize,
    /// Whether the rest of an export may be read under another snapshot than what is there of it.
    pub(super) allow_mixed: AllowMixed,
    /// Whether something may stand at the root for workers.
    pub(super) may_be_posted: bool,
    /// What the job asks for beside what is carried out, where that is known.
    pub(super) beside: Option<Vec<ExportRequest>>,
}

/// Carries a job out. Each export commits its own manifest; the run's record is written last. What another process of the
/// same run has begun is gone on with where its snapshot is still held.
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
    let carried = Box::pin(begun(job, events, stop, commit_begun.clone()));
    to_its_end(carried, &commit_begun, &cancel, ABORT_PATIENCE).await
}

async fn begun(
    job: JobRequest,
    events: Sender<ExportEvent>,
    cancel: CancellationToken,
    commit_begun: Mark,
) -> Result<JobReport, ExportError> {
    let Some(first) = job.exports.first() else {
        return Err(ExportError::new(ExportErrorKind::Usage, "the job has no export"));
    };
    refuse_workers(first.request.source.as_ref(), first.request.external.is_some())?;
    let credentials = first.request.commit.aws_credential_command.clone();
    let objects = of_records(&job.root, &first.request.commit.objects)?;
    let options = StoreOptions::small();
    let connecting = async { Ok(Destination::connect_for(&job.root, &options, credentials.as_ref(), &objects).await?) };
    let root = unless_cancelled(&cancel, connecting).await?;
    let readers = job.exports.iter().map(|export| export.request.work.readers.get()).max().unwrap_or(1);
    let may_be_posted = job.exports.iter().any(|export| export.request.external.is_some());
    let (mut parts, mut beside) = (Vec::new(), job.left_out);
    for JobExport { name, request, .. } in job.exports {
        let opened = unless_cancelled(&cancel, open(&request)).await;
        if opened.is_err() {
            beside.push(request.clone());
        }
        parts.push(JobPart {
            name,
            relation: relation(&request),
            destination: opened.as_ref().map_or_else(|_| written(&request), |(_, place)| place.url()),
            single_file: request.commit.single_file,
            opened: match opened {
                Ok(open) => OpenedPart::Open(Box::new(open)),
                Err(error) => OpenedPart::Ended(Box::new(Err(error))),
            },
        });
    }
    let terms = JobTerms {
        root,
        root_url: shown(&job.root),
        run_id: job.run_id,
        on_error: job.on_error,
        snapshot: job.snapshot,
        date: Some(job.date),
        readers,
        allow_mixed: AllowMixed(false),
        may_be_posted,
        beside: Some(beside),
    };
    Box::pin(carried_out(terms, parts, events, cancel, commit_begun)).await
}

/// Carries the exports of a run out, and writes its record.
pub(super) async fn carried_out(
    mut terms: JobTerms,
    parts: Vec<JobPart>,
    events: Sender<ExportEvent>,
    cancel: CancellationToken,
    commit_begun: Mark,
) -> Result<JobReport, ExportError> {
    let started_at = Utc::now();
    // A run that is killed is found by it, and a root that cannot be written is told of before anything is read.
    let beginning = async { job_record::begin(&terms, &parts, started_at).await };
    unless_cancelled(&cancel, beginning).await?;
    let company = Company::new(parts.len(), terms.readers, terms.on_error == OnError::Stop, &cancel)
        .under(terms.snapshot)
        .asked_beside(terms.beside.take())
        .resuming(terms.allow_mixed);
    let meeting = meeting(&parts);
    let mut runs = Vec::new();
    let (mut told, mut results) = (Vec::new(), Vec::<Option<Result<ExportReport, ExportError>>>::new());
    let mut telling = JoinSet::new();
    for (number, JobPart { name, relation, destination, single_file, opened }) in parts.into_iter().enumerate() {
        told.push((name, relation, destination, single_file));
        match opened {
            OpenedPart::Open(open) => {
                let (mut request, place) = *open;
                if let (Some(meeting), Some(outside)) = (&meeting, &request.external) {
                    request.external = Some(outside.among(meeting, number));
                }
                let own = tell_apart(number, &events, &mut telling);
                let mut run = Run::new(request, place, own);
                run.commit_begun = commit_begun.clone();
                runs.push((number, run));
                results.push(None);
            }
            OpenedPart::Ended(result) => {
                if let Some(meeting) = &meeting {
                    meeting.needs_nobody(number);
                }
                match &*result {
                    Ok(report) => {
                        company.has_read();
                        let event = Event::RunFinished { report: Box::new(report.clone()) };
                        // Nobody listens any more: the run goes on all the same.
                        let _ = events.send(ExportEvent { export: number, event }).await;
                    }
                    Err(_) => company.has_failed(),
                }
                results.push(Some(*result));
            }
        }
    }
    drop(events);
    let all: Vec<&Run> = runs.iter().map(|(_, run)| run).collect();
    let ends = tokio::select! {
        ends = together(&all, &company, &cancel) => ends,
        never = workers_invited(meeting.as_deref(), &terms) => match never {},
    };
    for ((number, _), end) in runs.iter().zip(ends) {
        if let Some(result) = results.get_mut(*number) {
            *result = Some(end);
        }
    }
    drop(runs);
    while telling.join_next().await.is_some() {}
    let outcomes = told.into_iter().zip(results).map(|((name, relation, destination, single_file), result)| {
        let result = result.unwrap_or_else(|| Err(ExportError::internal("the export has no end")));
        JobOutcome { name, relation, destination, single_file, result }
    });
    let exports: Vec<JobOutcome> = outcomes.collect();
    let standing = exports.iter().filter_map(|export| export.result.as_ref().ok());
    let one_instant = job_record::one_instant(standing.map(|report| report.snapshot.as_deref()));
    let record = job_record::end(&terms, started_at, &exports).await;
    let JobTerms { run_id, root_url, snapshot, .. } = terms;
    Ok(JobReport { run_id, root: root_url, record, one_instant, snapshot, exports })
}

/// Refuses workers where the source has none for several relations.
pub(super) fn refuse_workers(source: &dyn Source, wanted: bool) -> Result<(), ExportError> {
    if !wanted || source.takes_workers_for_several() {
        return Ok(());
    }
    let message = "--workers external: the exports of a job over this source are read by the process that plans them";
    Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("leave it out, or export the tables one by one"))
}

/// Where the exports meet that wait for workers; nothing where none does.
fn meeting(parts: &[JobPart]) -> Option<Arc<Meeting>> {
    let outside = parts.iter().find_map(|part| match &part.opened {
        OpenedPart::Open(open) => open.0.external.as_ref(),
        OpenedPart::Ended(_) => None,
    })?;
    Some(Meeting::new(outside, parts.iter().map(|part| part.name.clone()).collect()))
}

/// Invites workers once all exports are planned, and goes on for ever.
async fn workers_invited(meeting: Option<&Meeting>, terms: &JobTerms) -> Infallible {
    match meeting {
        Some(meeting) => {
            let JobTerms { root, root_url, run_id, .. } = terms;
            meeting.invite(MeetingTerms { root, root_url, run_id }).await
        }
        None => std::future::pending().await,
    }
}

/// Checks a request, and opens its destination.
pub(super) async fn open(request: &ExportRequest) -> Result<(ExportRequest, RunTarget), ExportError> {
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
pub(super) fn relation(request: &ExportRequest) -> String {
    match &request.shape.relation {
        RelationRequest::Table(name) => name.clone(),
        RelationRequest::Query(_) => "query".to_owned(),
    }
}

/// An export's name with its plan, or why it has none.
pub type PlannedExport = (String, Result<Arc<Plan>, ExportError>);

/// The plans of a job: of each export its plan, or why it has none. Locks and snapshot are taken as for a run, and let go;
/// nobody looks at the destinations.
///
/// # Errors
/// The source fails.
///
/// # Cancel safety
/// Dropping the future closes the sessions.
pub async fn plan_job(job: &JobRequest) -> Result<Vec<PlannedExport>, ExportError> {
    let mut requests = Vec::new();
    for export in &job.exports {
        let mut request = export.request.clone();
        request.source.check(&mut request.shape)?;
        RunTarget::check(&request)?;
        requests.push(request);
    }
    if job.snapshot == SnapshotScope::Export {
        return plan_apart(job, requests).await;
    }
    let Some(first) = requests.first() else { return Ok(Vec::new()) };
    let (mut asked, mut since) = (Vec::new(), Vec::new());
    for request in &requests {
        let found = since::find(request).await?;
        asked.push(request.read_request_since(found.export()?));
        since.push(found);
    }
    // Any of them may have values that nobody is to see.
    let careful = requests.iter().find(|request| request.commit.protect.is_some()).unwrap_or(first);
    let reading = first.source.begin(asked).await.map_err(|error| careful.told(error))?;
    let mut plans = Vec::new();
    for (relation, (export, request)) in job.exports.iter().zip(&requests).enumerate() {
        let planned = match (reading.refused(relation), reading.plan(relation)) {
            (Some(error), _) => Err(request.told(error)),
            (None, Some(plan)) => {
                let compared =
                    since.get(relation).map_or(Ok(()), |found| since::compare(request, &plan, found, None).map(drop));
                let counted = format_of(&plan, &request.format).and_then(|_| check_counts(&plan, request));
                counted.and(compared).map(|()| plan)
            }
            (None, None) => Err(ExportError::internal("the source planned nothing")),
        };
        plans.push((export.name.clone(), planned));
    }
    // Their sessions end before others are asked.
    drop(reading);
    check_names(&requests, &plans, &job.left_out).await?;
    Ok(plans)
}

/// Refuses names of `--protect` that no export has.
async fn check_names(
    requests: &[ExportRequest],
    plans: &[PlannedExport],
    left_out: &[ExportRequest],
) -> Result<(), ExportError> {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (request, (_, plan)) in requests.iter().zip(plans) {
        match plan {
            Ok(plan) => known.push(NamedColumns::of(request, plan)),
            Err(_) => unknown.push(request),
        }
    }
    protect_names::check(&known, unknown.into_iter().chain(left_out)).await
}

/// The plan of each export under a moment of its own.
async fn plan_apart(job: &JobRequest, requests: Vec<ExportRequest>) -> Result<Vec<PlannedExport>, ExportError> {
    let mut plans = Vec::new();
    for (export, request) in job.exports.iter().zip(&requests) {
        let planned = plan_alone(request.clone()).await.map(|(plan, _)| Arc::new(plan));
        // Who cannot be reached for one is not asked for the others.
        let unreachable = [ExportErrorKind::SourceUnavailable, ExportErrorKind::SourceAuthentication];
        match planned {
            Err(error) if unreachable.contains(&error.kind) => return Err(error),
            planned => plans.push((export.name.clone(), planned)),
        }
    }
    check_names(&requests, &plans, &job.left_out).await?;
    Ok(plans)
}
