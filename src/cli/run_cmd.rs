//! `outhaul run`: the exports of a job file, under one snapshot.

use std::path::Path;
use std::time::Instant;

use chrono::NaiveDate;
use clap::ArgMatches;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::looks::Looks;
use super::progress::{Progress, View};
use super::report::ReportForm;
use super::run_plan::PlannedJob;
use super::run_view::{JobSummary, JobTotals, JobVerdict};
use super::screen::stdout_answer;
use super::session::{Front, by_signal};
use super::summary::Failure;
use super::{CommandContext, args, engine, exit, export_cmd, printable, refuse};
use crate::base::telemetry::{self, Outcome};
use crate::config::job::{JobChoice, JobFile, schema};
use crate::config::{ConfigErrors, FrontOptions};
use crate::export::ExportError;
use crate::export::job::{ExportEvent, JobExport, JobReport, JobRequest, plan_job, run_job};
use crate::export::job_record::day_of;
use crate::model::{Event, ExportErrorKind};

pub(super) async fn run(matches: &ArgMatches, context: &CommandContext) -> u8 {
    if matches.get_flag("schema") {
        return match serde_json::to_string_pretty(&schema::schema()) {
            Ok(schema) => stdout_answer(&schema),
            Err(error) => context.fail(&ExportError::internal("writing the schema").with_source(error)),
        };
    }
    let path = matches.get_one::<String>("job").map_or("", String::as_str);
    let environment = &context.environment;
    let read = JobFile::read(Path::new(path), environment);
    let (people, file) = match read.and_then(|file| Ok((file.front(args::flags(matches), environment)?, file))) {
        Ok(known) => known,
        Err(errors) => return context.refuse(&errors),
    };
    // Before anything else can fail: a scheduler reads the report of a job that did not begin too.
    context.start_logs(Looks::of(people.color, people.log_format));
    let front = export_cmd::front(&people, context);
    let (mut job, options) = match load(&file, matches, context).await {
        Ok(loaded) => loaded,
        Err(NoJob::Config(errors)) => return refuse(&errors, &front.reporter, &front.screen),
        Err(NoJob::Source(error)) => return front.fail(&Failure::early(&error)),
    };
    if front.view == View::Json {
        return front.fail(&Failure::early(&no_json_events()));
    }
    if matches.get_flag("dry_run") {
        return plan(&job, &front, context).await;
    }
    if job.exports.iter().any(|export| export.request.external.is_some()) {
        let line = engine::line(options.stdin);
        for export in &mut job.exports {
            export.request.external = Some(line.clone());
        }
    }
    let totals = JobTotals::new(&job);
    export_cmd::with_metrics(&front, &options, async {
        carry_out(totals, &front, |events, cancel| run_job(job, events, cancel)).await
    })
    .await
}

/// Why nobody hears of a job event by event.
pub(super) fn no_json_events() -> ExportError {
    ExportError::new(ExportErrorKind::Usage, "--progress json is of one export, and a job has several")
        .with_hint("--report json tells of each export at the end")
}

/// Why a job is none.
enum NoJob {
    Config(ConfigErrors),
    Source(ExportError),
}

/// Makes the job of its file, and asks the source which tables there are where the file has patterns.
async fn load(
    file: &JobFile,
    matches: &ArgMatches,
    context: &CommandContext,
) -> Result<(JobRequest, FrontOptions), NoJob> {
    let (flags, environment) = (args::flags(matches), &context.environment);
    let source = file.source(flags.clone(), environment).map_err(NoJob::Config)?;
    let listed = if file.has_patterns() {
        let listing = async {
            let no_catalog =
                || ExportError::new(ExportErrorKind::Usage, "this source does not tell which tables it has");
            Ok::<_, ExportError>(source.list().ok_or_else(no_catalog)?.await?)
        };
        context.unless_stopped("stopped while listing", listing).await.map_err(NoJob::Source)?
    } else {
        Vec::new()
    };
    let names = |id: &str| matches.get_many::<String>(id).into_iter().flatten().cloned().collect();
    let choice = JobChoice { only: names("only"), except: names("except") };
    let made = |day: Option<String>| {
        let day = day.map(|day| ("date", vec![day]));
        let flags: Vec<_> = flags.iter().cloned().chain(day).collect();
        file.job(&flags, environment, &source, &listed, &choice).map_err(NoJob::Config)
    };
    let (mut job, mut options) = made(None)?;
    // A plan looks at no destination.
    if file.names_the_day()
        && !matches.get_flag("dry_run")
        && let Some(day) = day_of_first_try(&job, |day| Ok(made(Some(day))?.0), context).await?
    {
        tracing::info!(day, "the run began on another day, by which {{date}} expands");
        (job, options) = made(Some(day))?;
    }
    let kept = job.exports.iter().any(|export| export.request.commit.keep_snapshot.is_some());
    if kept {
        let connection = file.connection(flags, environment);
        for JobExport { request, .. } in &mut job.exports {
            let yield_after = request.work.source_limits.yield_to_ddl;
            request.keeper = Some(export_cmd::launch(connection.clone(), yield_after).map_err(NoJob::Source)?);
        }
    }
    Ok((job, options))
}

/// The day by which `{date}` expanded when the run of this id began, where that is another than today: a retry after midnight
/// goes on in the folders of the evening.
async fn day_of_first_try(
    job: &JobRequest,
    made: impl Fn(String) -> Result<JobRequest, NoJob>,
    context: &CommandContext,
) -> Result<Option<String>, NoJob> {
    let Some(JobExport { request, .. }) = job.exports.first().filter(|_| !job.date_given) else { return Ok(None) };
    if !request.commit.run_id_given {
        return Ok(None);
    }
    let credentials = request.commit.aws_credential_command.as_ref();
    let looked = async |root: &str| {
        let looking = Box::pin(day_of(root, &job.run_id, credentials));
        context.unless_stopped("stopped while looking for the run", looking).await.map_err(NoJob::Source)
    };
    if let Some(day) = looked(&job.root).await? {
        return Ok((day != job.date).then_some(day));
    }
    let evening = job.date.parse().ok().and_then(|date: NaiveDate| date.pred_opt());
    let Some(evening) = evening else { return Ok(None) };
    let before = made(evening.to_string())?;
    if before.root == job.root { Ok(None) } else { looked(&before.root).await }
}

/// Runs a job to its end and tells of it; returns the exit code.
pub(super) async fn carry_out<F>(
    totals: JobTotals,
    front: &Front,
    start: impl FnOnce(Sender<ExportEvent>, CancellationToken) -> F,
) -> u8
where
    F: Future<Output = Result<JobReport, ExportError>>,
{
    let started = Instant::now();
    telemetry::run_named(totals.run_id());
    let (progress, events) = match Progress::start(front.view, &front.screen) {
        Ok(progress) => progress,
        Err(error) => {
            let error = ExportError::internal("starting the progress display").with_source(error);
            return front.fail(&Failure::early(&error));
        }
    };
    let limited = totals.limited().clone();
    let screen = (!front.quiet).then(|| front.screen.clone());
    let (told, heard) = tokio::sync::mpsc::channel(EVENT_QUEUE);
    let telling = tokio::spawn(totals.tell(heard, events, screen));
    let ended = start(told, front.signals.token().clone()).await;
    // It ends with the last export's own channel.
    let _ = telling.await;
    let drained = progress.drain().await;
    drained.finish(&Event::Committing { parts: 0 }).await;
    match ended {
        Ok(report) => {
            let report = signalled(report, front);
            let view = JobSummary::new(&report, &limited);
            telemetry::export_ended(outcome(&view), started.elapsed());
            for line in view.failures() {
                front.screen.line(&line);
            }
            match front.reporter.form {
                ReportForm::Json => {}
                // A cap that cut rows off is told even to who wants to hear nothing.
                ReportForm::Text if front.quiet => {
                    for line in view.truncations() {
                        front.screen.line(&line);
                    }
                }
                ReportForm::Text => front.tell(&view.to_string()),
            }
            front.reporter.give(&front.screen, &view.body(), &view.errors());
            view.exit_code()
        }
        Err(error) => front.fail(&Failure::early(&by_signal(error, front))),
    }
}

/// Events of all exports that wait for the display.
const EVENT_QUEUE: usize = 256;

/// Exports that were told to stop do not know by which signal.
fn signalled(mut report: JobReport, front: &Front) -> JobReport {
    report.exports = report
        .exports
        .into_iter()
        .map(|mut export| {
            export.result = export.result.map_err(|error| by_signal(error, front));
            export
        })
        .collect();
    report
}

fn outcome(view: &JobSummary<'_>) -> Outcome {
    match (view.status(), view.exit_code()) {
        (JobVerdict::Complete, _) => Outcome::Complete,
        (JobVerdict::Truncated, _) => Outcome::Truncated,
        (JobVerdict::Incomplete, 130 | 143) => Outcome::Cancelled,
        (JobVerdict::Incomplete, _) => Outcome::Failed,
    }
}

/// Shows what a job would read.
async fn plan(job: &JobRequest, front: &Front, context: &CommandContext) -> u8 {
    let planned = context.unless_stopped("stopped while planning", plan_job(job)).await;
    match planned {
        Ok(plans) => {
            let view = PlannedJob::new(job, &plans);
            if !front.reporter.is_json() {
                let answered = stdout_answer(printable::lines(&view.to_string()).trim_end());
                if answered != exit::COMPLETE {
                    return answered;
                }
            }
            for line in view.failures() {
                front.screen.line(&line);
            }
            front.reporter.give(&front.screen, &view.body(), &view.errors());
            view.exit_code()
        }
        Err(error) => front.fail(&Failure::early(&error)),
    }
}
