//! `outhaul keep`, in the foreground for people and pods, and as the detached process of `--keep-snapshot`.

use std::io::{BufRead, Write};
use std::time::Duration;

use clap::ArgMatches;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{CommandContext, args, exit};
use crate::config;
use crate::config::options::by_key;
use crate::export::ExportError;
use crate::export::keep::{self, HandOver, KeepRequest, KeeperReply, RUN_ENDED};
use crate::model::{ExportErrorKind, KeepEnd, KeptSnapshot};

pub(super) async fn keep(matches: &ArgMatches, context: &CommandContext) -> u8 {
    if matches.get_flag("handed_over") {
        return handed_over(context).await;
    }
    let (source, yield_after) = match config::load_keep(args::flags(matches), &context.environment) {
        Ok(loaded) => loaded,
        Err(errors) => return context.refuse(&errors),
    };
    let request = KeepRequest {
        source,
        destination: matches.get_one::<String>("dest").cloned().unwrap_or_default(),
        single_file: matches.get_flag("single_file"),
        run_id: matches.get_one::<String>("run_id").cloned(),
        others: Vec::new(),
        duration: matches.get_one::<Duration>("for").copied().unwrap_or_default(),
        yield_after,
    };
    let token = context.signals.token().clone();
    let stop = async move {
        token.cancelled().await;
        KeepEnd::Stopped
    };
    let mut was_held = false;
    let held = |kept: &KeptSnapshot| {
        was_held = true;
        if context.verbosity >= 0 {
            let until = kept.until.format("%Y-%m-%d %H:%M:%S UTC");
            context.screen.line(&format!("holding the snapshot as {} until {until} at most", kept.snapshot));
        }
    };
    let error = match keep::keep(request, held, stop).await {
        Ok(KeepEnd::RunEnded) => {
            if context.verbosity >= 0 {
                context.screen.line(if was_held {
                    "the run has ended, and with it the hold on its snapshot"
                } else {
                    "the export there is finished: there is no snapshot to hold"
                });
            }
            return exit::COMPLETE;
        }
        Ok(KeepEnd::Deadline) => ExportError::new(ExportErrorKind::GaveWay, "the time was up before the run had ended"),
        Ok(KeepEnd::Yielded { pid }) => {
            let message = format!("gave way to the session with pid {pid}, which waited for the snapshot's locks");
            ExportError::new(ExportErrorKind::GaveWay, message)
        }
        Ok(KeepEnd::Stopped) => context.stopped("stopped; the snapshot is held no longer"),
        Err(error) => error,
    };
    context.fail(&error)
}

/// The keeper that a run has started: its orders come on standard input, its answer goes to standard output, and then
/// it is alone.
async fn handed_over(context: &CommandContext) -> u8 {
    let answered = match orders(context) {
        Ok(request) => {
            // The terminal of the run may go.
            let _hangup = signal(SignalKind::hangup());
            let token = context.signals.token().clone();
            let (told, run_ended) = oneshot::channel();
            // Its own thread: it stands until the run says something or the program ends.
            std::thread::spawn(move || {
                let mut line = Vec::new();
                if std::io::stdin().lock().read_until(b'\n', &mut line).is_ok() && line == RUN_ENDED {
                    let _ = told.send(());
                }
            });
            let stop = async move {
                tokio::select! {
                    () = token.cancelled() => KeepEnd::Stopped,
                    // A run that is gone without a word may be resumed.
                    Ok(()) = run_ended => KeepEnd::RunEnded,
                }
            };
            let held = |kept: &KeptSnapshot| answer(&KeeperReply::Held(kept.snapshot.clone()));
            keep::keep(request, held, stop).await.map(|_| ())
        }
        Err(error) => Err(error),
    };
    match answered {
        Ok(()) => exit::COMPLETE,
        Err(error) => {
            // Nobody reads it where the snapshot was held before.
            answer(&KeeperReply::Failed { kind: error.kind, why: error.sentence(), hint: error.hint.clone() });
            exit::failed(error.kind)
        }
    }
}

fn orders(context: &CommandContext) -> Result<KeepRequest, ExportError> {
    let unreadable = |why: &dyn std::fmt::Display| {
        ExportError::new(ExportErrorKind::Usage, format!("reading what is handed over: {why}"))
            .with_hint("--handed-over is for `outhaul export --keep-snapshot` alone")
    };
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| unreadable(&error))?;
    let orders: HandOver = serde_json::from_str(&line).map_err(|error| unreadable(&error))?;
    let mut environment = context.environment.clone();
    let known = |(key, mut values): (String, Vec<String>)| {
        let key = by_key(&key)?.key;
        if key == "from" {
            // It came by a pipe, where nobody else could read it.
            values = values.iter().map(|from| environment.take_source("the job file", from)).collect();
        }
        Some((key, values))
    };
    let flags = orders.connection.into_iter().filter_map(known).collect();
    let source = config::load_connection(flags, &environment)
        .map_err(|errors| unreadable(&errors.0.first().map_or("no connection", |error| error.what.as_str())))?;
    Ok(KeepRequest {
        source,
        destination: orders.destination,
        single_file: orders.single_file,
        run_id: Some(orders.run_id),
        others: orders.others,
        duration: orders.duration,
        yield_after: orders.yield_after,
    })
}

fn answer(answer: &KeeperReply) {
    if let Ok(line) = serde_json::to_string(answer) {
        let mut stdout = std::io::stdout().lock();
        // The run may be gone already.
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    }
}
