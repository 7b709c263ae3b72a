//! `outhaul export` and `outhaul plan`.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::ArgMatches;

use super::exit::{self, Truncation};
use super::looks::Looks;
use super::plan_view::PlanView;
use super::printable;
use super::progress::View;
use super::report::{ReportForm, ReportPlace, Reporter};
use super::screen::stdout_answer;
use super::session::{self, Facts, Front};
use super::summary::{Failure, Left};
use super::{CommandContext, args, engine, refuse};
use crate::base::telemetry::exporter::Exporter;
use crate::base::telemetry::{self, LogFormat};
use crate::config::options::of_connection;
use crate::config::{self, ConfigErrors, FrontOptions, ProgressKind, ReportKind};
use crate::export::keep::KeeperLaunch;
use crate::export::request::ExportRequest;
use crate::export::show::{self, PlannedDestination};
use crate::export::{self, ExportError};
use crate::model::{Compression, ExportErrorKind, Format, FormatOptions, Plan, Target, Visibility};

pub(super) async fn export(matches: &ArgMatches, context: &CommandContext) -> u8 {
    if matches.get_flag("dry_run") {
        return Box::pin(plan(matches, context)).await;
    }
    let (mut request, options) = match config::load(args::flags(matches), &context.environment, true) {
        Ok(loaded) => loaded,
        Err(errors) => return refused(&errors, matches, context),
    };
    context.start_logs(Looks::of(options.color, options.log_format));
    let front = front(&options, context);
    if let Some(error) = binary_to_terminal(&request, io::stdout().is_terminal()) {
        return front.fail(&Failure::early(&error));
    }
    if request.commit.keep_snapshot.is_some() {
        let mut connection = args::flags(matches);
        connection.retain(|(key, _)| of_connection().any(|option| option.key == *key));
        let connection = connection.into_iter().map(|(key, values)| (key.to_owned(), values)).collect();
        request.keeper = match launch(connection, request.work.source_limits.yield_to_ddl) {
            Ok(launch) => Some(launch),
            Err(error) => return front.fail(&Failure::early(&error)),
        };
    }
    if request.external.is_some() {
        request.external = Some(engine::line(options.stdin));
    }
    let facts = facts(&request, &options);
    let run = session::export(&front, &facts, |events, cancel| export::run(request, events, cancel));
    Box::pin(with_metrics(&front, &options, run)).await
}

/// Tells every mistake of the options; a file that has one may say too how that is told.
fn refused(errors: &ConfigErrors, matches: &ArgMatches, context: &CommandContext) -> u8 {
    match config::load_front(args::flags(matches), &context.environment) {
        Ok(options) => {
            let mut reporter = front(&options, context).reporter;
            // Standard output is for data as soon as the command line says so.
            if context.reporter.place == ReportPlace::Stderr {
                reporter.place = ReportPlace::Stderr;
            }
            refuse(errors, &reporter, &context.screen)
        }
        Err(_) => context.refuse(errors),
    }
}

/// Serves or writes metrics for as long as a run lasts.
pub(super) async fn with_metrics(front: &Front, options: &FrontOptions, run: impl Future<Output = u8>) -> u8 {
    let exporter = match start_metrics(options).await {
        Ok(exporter) => exporter,
        Err(error) => return front.fail(&Failure::early(&error)),
    };
    if let Some(address) = exporter.as_ref().and_then(Exporter::address) {
        if front.quiet {
            tracing::info!("metrics are at http://{address}/metrics");
        } else {
            front.screen.line(&format!("metrics are at http://{address}/metrics"));
        }
    }
    let exit_code = run.await;
    telemetry::run_ended(exit_code);
    if let Some(exporter) = exporter
        && let Err(error) = exporter.finish()
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "metrics could not be written");
    }
    exit_code
}

/// Refuses to write to a terminal what is no text, which may do anything to it.
fn binary_to_terminal(request: &ExportRequest, is_terminal: bool) -> Option<ExportError> {
    let FormatOptions { format, compression, .. } = &request.format;
    let what = match (format, compression) {
        (Format::Parquet, _) => "Parquet",
        (_, Compression::None) => return None,
        (_, codec) => codec.name(),
    };
    if !is_terminal || !matches!(request.commit.target, Target::Stream { .. }) {
        return None;
    }
    let message = format!("--to - would write {what}, which is no text, to the terminal");
    let hint = "redirect it: `--to - > FILE`; or write text: --format csv";
    Some(ExportError::new(ExportErrorKind::Usage, message).with_hint(hint))
}

/// How a keeper is started: this program, which connects by the same options.
pub(super) fn launch(
    connection: Vec<(String, Vec<String>)>,
    yield_after: Option<Duration>,
) -> Result<KeeperLaunch, ExportError> {
    let program = std::env::current_exe()
        .map_err(|error| ExportError::internal("finding this program's own file").with_source(error))?;
    Ok(KeeperLaunch { program, connection, yield_after })
}

pub(super) async fn plan(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let (request, options) = match config::load(args::flags(matches), &context.environment, false) {
        Ok(loaded) => loaded,
        Err(errors) => return refused(&errors, matches, context),
    };
    context.start_logs(Looks::of(options.color, options.log_format));
    // A plan has no data on standard output, whatever `--to` says.
    let mut front = front(&options, context);
    front.reporter.place = ReportPlace::Stdout;
    let (asked, commit) = (request.format.clone(), request.commit.clone());
    let token = context.signals.token();
    let planned = tokio::select! {
        () = token.cancelled() => Err(ExportError::cancelled()),
        planned = planned(request, options.has_target) => planned,
    };
    match planned {
        Ok((plan, destination)) => {
            let mut view = PlanView::new(&plan, asked.format);
            if let Some(destination) = &destination {
                view.writes(&plan, &asked, destination, &commit);
            }
            let answered = match front.reporter.form {
                ReportForm::Text => stdout_answer(printable::lines(&view.to_string()).trim_end()),
                ReportForm::Json => exit::COMPLETE,
            };
            let reported = front.reporter.answer(&front.screen, &view, &[]);
            if answered == exit::COMPLETE { reported } else { answered }
        }
        Err(error) => front.fail(&Failure::early(&session::by_signal(error, &front))),
    }
}

/// Plans, and looks at the destination meanwhile, where there is one.
async fn planned(request: ExportRequest, has_target: bool) -> Result<(Plan, Option<PlannedDestination>), ExportError> {
    let looking = async {
        let request = request.clone();
        if has_target { Some(show::before(&request).await) } else { None }
    };
    let (plan, destination) = tokio::join!(export::plan(request.clone()), looking);
    Ok((plan?, destination))
}

fn facts(request: &ExportRequest, options: &FrontOptions) -> Facts {
    let commit = &request.commit;
    Facts {
        run_id: Some(commit.run_id.clone()),
        truncation: if options.limited {
            Truncation::Asked
        } else {
            Truncation::from_flag(request.work.allow_truncated)
        },
        left: match (&commit.target, commit.visibility) {
            (Target::Stream { .. }, _) => Left::Stream,
            (Target::Destination(_), Visibility::AsWritten) => Left::Parts,
            (Target::Destination(_), Visibility::AtCommit) => Left::Nothing,
        },
    }
}

pub(super) fn front(options: &FrontOptions, context: &CommandContext) -> Front {
    let quiet = context.verbosity < 0;
    Front {
        screen: context.screen.clone(),
        signals: context.signals.clone(),
        view: match options.progress {
            // Bars among records would be no records.
            ProgressKind::Auto if options.log_format == LogFormat::Json && !quiet => View::Plain,
            ProgressKind::Auto => View::auto(quiet),
            ProgressKind::Bar => View::Bar,
            ProgressKind::Plain => View::Plain,
            ProgressKind::Json => View::Json,
            ProgressKind::None => View::None,
        },
        reporter: Reporter {
            form: match options.report {
                ReportKind::Text => ReportForm::Text,
                ReportKind::Json => ReportForm::Json,
            },
            place: if options.to_stdout { ReportPlace::Stderr } else { ReportPlace::Stdout },
            file: options.report_file.clone().or_else(|| context.reporter.file.clone()),
            ..context.reporter.clone()
        },
        verbose: context.verbosity > 0,
        quiet,
    }
}

async fn start_metrics(front: &FrontOptions) -> Result<Option<Exporter>, ExportError> {
    if front.metrics_file.is_none() && front.metrics_listen.is_none() {
        return Ok(None);
    }
    let started = Exporter::start(front.metrics_file.clone(), front.metrics_listen, &front.labels).await;
    started.map(Some).map_err(|error| {
        ExportError::new(ExportErrorKind::Usage, "starting the metrics")
            .with_source(error)
            .with_hint("check --metrics-file and --metrics-listen")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn a_terminal_gets_text_only() {
        let refused = |words: &[(&'static str, &str)], is_terminal| {
            let base = [("from", "postgres://u@127.0.0.1/d"), ("table", "t")];
            let flags = base.iter().chain(words).map(|(key, value)| (*key, vec![(*value).to_owned()])).collect();
            let (request, _) = config::load(flags, &Environment::of([], []), true).unwrap();
            binary_to_terminal(&request, is_terminal).map(|error| error.message)
        };
        let parquet = "--to - would write Parquet, which is no text, to the terminal";
        assert_eq!(refused(&[("to", "-")], true).as_deref(), Some(parquet));
        let gzip = refused(&[("to", "-"), ("format", "csv"), ("compression", "gzip")], true);
        assert!(gzip.unwrap().contains("would write gzip"));
        assert_eq!(refused(&[("to", "-")], false), None);
        assert_eq!(refused(&[("to", "-"), ("format", "ndjson")], true), None);
        assert_eq!(refused(&[("to", "x.parquet")], true), None);
    }
}
