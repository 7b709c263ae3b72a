//! `outhaul demo`: the demo's work is done by `export` and `verify` themselves, through their own command lines.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;

use super::demo::{self, Job, Options, TABLE};
use super::looks::Looks;
use super::progress::View;
use super::session::Front;
use super::{CommandContext, args, demo_serve, exit, export_cmd, verify_cmd};
use crate::config::Environment;

pub(super) async fn demo(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let quiet = context.verbosity < 0;
    let front = Front {
        screen: context.screen.clone(),
        signals: context.signals.clone(),
        view: View::auto(quiet),
        reporter: context.reporter.clone(),
        verbose: context.verbosity > 0,
        quiet,
    };
    let serve = matches.get_flag("serve");
    let options = Options {
        serve,
        rows: matches.get_one("rows").copied().unwrap_or_default(),
        folder: matches.get_one::<String>("dir").map(PathBuf::from).unwrap_or_default(),
    };
    if serve {
        context.start_logs(Looks::wished(&std::env::args_os().collect::<Vec<_>>(), &context.environment));
    }
    let work = async |job: &Job| {
        if serve { demo_serve::serve(job, context).await } else { Box::pin(work(job, context)).await }
    };
    demo::run(&front, &options, work).await
}

/// Exports the table, then verifies it by reading every part.
async fn work(job: &Job, context: &CommandContext) -> u8 {
    // Variables of the caller speak of other exports and other servers.
    let environment = Environment::default();
    let CommandContext { screen, signals, verbosity, reporter, .. } = context;
    let context = CommandContext {
        screen: screen.clone(),
        signals: signals.clone(),
        environment,
        verbosity: *verbosity,
        reporter: reporter.clone(),
    };
    let exported = command(&export_line(job), &context).await;
    if exported != exit::COMPLETE {
        return exported;
    }
    command(&["verify".into(), job.to.clone().into(), "--read-data".into()], &context).await
}

fn export_line(job: &Job) -> Vec<OsString> {
    let from =
        ["export", "--from", &job.from(), "--table", TABLE, "--on-existing", "replace", "--to"].map(OsString::from);
    from.into_iter().chain([job.to.clone().into()]).collect()
}

async fn command(line: &[OsString], context: &CommandContext) -> u8 {
    let line = std::iter::once("outhaul".into()).chain(line.iter().cloned());
    let matches = match args::command().try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) => return super::unparsed(&error, &context.reporter, &context.screen),
    };
    match matches.subcommand() {
        Some(("export", matches)) => Box::pin(export_cmd::export(matches, context)).await,
        Some(("verify", matches)) => verify_cmd::verify(matches, context).await,
        _ => exit::INTERNAL,
    }
}
