//! `outhaul export` and `outhaul plan`.

use clap::ArgMatches;

use super::progress::{Progress, View};
use super::screen::stdout_line;
use super::summary::{self, Failure, Left};
use super::{Stage, args, exit};
use crate::config::{self, FrontOptions, LogFormat, ProgressKind, ReportKind};
use crate::export::request::{ExportRequest, Target, Visibility};
use crate::export::{self, Event, ExportError, ExportErrorKind, ExportReport};
use crate::plan::describe::PlanView;
use crate::telemetry;
use crate::telemetry::exporter::Exporter;

pub(super) async fn export(matches: &ArgMatches, stage: &Stage) -> Result<u8, ExportError> {
    let (request, front) = match config::load(args::flags(matches), &stage.environment, true) {
        Ok(loaded) => loaded,
        Err(errors) => return Ok(refused(&errors.into(), stage, wants_json(matches, stage))),
    };
    start_logs(&front, stage);
    let exporter = start_metrics(&front).await?;
    let view = view(&front, stage);
    let facts = Facts::of(&request);
    let (progress, events) = Progress::start(view, &stage.screen).map_err(|error| {
        ExportError::new(ExportErrorKind::Internal, "starting the progress display").with_source(error)
    })?;
    let allow = exit::Truncation::from_flag(request.work.allow_truncated);
    let committing = events.clone();
    let result = export::run(request, events, stage.signals.token().clone()).await;
    drop(committing);
    let code = match result {
        Ok(report) => {
            let code = exit::committed(report.status, allow);
            progress.finish(view, &Event::RunFinished { report: Box::new(report.clone()) }).await;
            tell_success(&report, code, &front, stage);
            code
        }
        Err(error) => {
            let error = named(error, stage);
            progress.finish(view, &failed_event(&error, &facts.run_id)).await;
            tell_failure(&facts.failure(&error), front.report, front.to_stdout, stage);
            exit::failed(error.kind)
        }
    };
    if let Some(exporter) = exporter
        && let Err(error) = exporter.finish()
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "metrics could not be written");
    }
    Ok(code)
}

pub(super) async fn plan(matches: &ArgMatches, stage: &Stage) -> Result<u8, ExportError> {
    let (request, front) = match config::load(args::flags(matches), &stage.environment, false) {
        Ok(loaded) => loaded,
        Err(errors) => return Ok(refused(&errors.into(), stage, wants_json(matches, stage))),
    };
    start_logs(&front, stage);
    let (work, format) = (request.work.clone(), request.format.format);
    let token = stage.signals.token();
    let planned = tokio::select! {
        () = token.cancelled() => Err(ExportError::cancelled()),
        planned = export::plan(request) => planned,
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => {
            let error = named(error, stage);
            let failure = Failure { error: &error, run_id: None, destination: None, left: Left::Nothing };
            tell_failure(&failure, front.report, false, stage);
            return Ok(exit::failed(error.kind));
        }
    };
    let shown = PlanView::new(&plan, &work, format);
    match front.report {
        ReportKind::Text => stdout_line(shown.to_string().trim_end()),
        ReportKind::Json => stdout_line(
            &serde_json::to_string(&shown)
                .map_err(|error| ExportError::internal("writing the plan as JSON").with_source(error))?,
        ),
    }
    Ok(0)
}

/// What the report of a failure needs of the request.
struct Facts {
    run_id: String,
    destination: String,
    left: Left,
}

impl Facts {
    fn of(request: &ExportRequest) -> Self {
        let commit = &request.commit;
        let (destination, left) = match (&commit.target, commit.visibility) {
            (Target::Stdout { .. }, _) => ("-".to_owned(), Left::Stream),
            (Target::Destination(url), Visibility::AsWritten) => (url.clone(), Left::Parts),
            (Target::Destination(url), Visibility::AtCommit) => (url.clone(), Left::Nothing),
        };
        Self { run_id: commit.run_id.clone(), destination, left }
    }

    fn failure<'a>(&'a self, error: &'a ExportError) -> Failure<'a> {
        Failure { error, run_id: Some(&self.run_id), destination: Some(&self.destination), left: self.left }
    }
}

/// A stopped run knows that it was stopped; only the signals know by which.
fn named(error: ExportError, stage: &Stage) -> ExportError {
    match stage.signals.reason() {
        Some(stop) if error.kind == ExportErrorKind::Interrupted => ExportError { kind: stop.kind(), ..error },
        _ => error,
    }
}

fn failed_event(error: &ExportError, run_id: &str) -> Event {
    Event::RunFailed {
        run_id: run_id.to_owned(),
        exit_code: exit::failed(error.kind),
        error: summary::chain(error),
        hint: error.hint.clone(),
        retryable: error.kind.retryable(),
    }
}

fn tell_success(report: &ExportReport, code: u8, front: &FrontOptions, stage: &Stage) {
    match front.report {
        ReportKind::Text if stage.verbosity < 0 => {}
        ReportKind::Text if front.to_stdout => stage.screen.line(&summary::text(report, code)),
        ReportKind::Text => stdout_line(&summary::text(report, code)),
        ReportKind::Json => {
            if let Ok(line) = summary::json(report, code) {
                if front.to_stdout { stage.screen.line(&line) } else { stdout_line(&line) }
            }
        }
    }
}

fn tell_failure(failure: &Failure<'_>, report: ReportKind, to_stdout: bool, stage: &Stage) {
    stage.screen.clear();
    stage.screen.line(&summary::error_text(failure));
    if report == ReportKind::Json
        && let Ok(line) = summary::error_json(failure)
    {
        if to_stdout { stage.screen.line(&line) } else { stdout_line(&line) }
    }
}

fn refused(error: &ExportError, stage: &Stage, json: bool) -> u8 {
    let failure = Failure { error, run_id: None, destination: None, left: Left::Nothing };
    tell_failure(&failure, if json { ReportKind::Json } else { ReportKind::Text }, false, stage);
    exit::failed(error.kind)
}

/// Whether the report was asked for as JSON, told without the rest of the configuration, which is wrong.
fn wants_json(matches: &ArgMatches, stage: &Stage) -> bool {
    let flag = matches.get_one::<String>("report").cloned();
    flag.or_else(|| stage.environment.get("OUTHAUL_REPORT")).is_some_and(|report| report == "json")
}

fn view(front: &FrontOptions, stage: &Stage) -> View {
    match front.progress {
        ProgressKind::Auto => View::auto(stage.verbosity < 0),
        ProgressKind::Bar => View::Bar,
        ProgressKind::Plain => View::Plain,
        ProgressKind::Json => View::Json,
        ProgressKind::None => View::None,
    }
}

fn start_logs(front: &FrontOptions, stage: &Stage) {
    let format = match front.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    telemetry::start_logs(format, stage.verbosity, color, stage.screen.clone());
}

async fn start_metrics(front: &FrontOptions) -> Result<Option<Exporter>, ExportError> {
    if front.metrics_file.is_none() && front.metrics_listen.is_none() {
        return Ok(None);
    }
    let listen = front.metrics_listen.map(|address| address.to_string());
    let started = Exporter::start(front.metrics_file.clone(), listen.as_deref()).await;
    started.map(Some).map_err(|error| {
        ExportError::new(ExportErrorKind::Usage, "starting the metrics")
            .with_source(error)
            .with_hint("check --metrics-file and --metrics-listen")
    })
}
