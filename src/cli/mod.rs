//! The command line. The only user of `clap`, and of standard output and error.

mod args;
pub mod demo;
pub mod events;
pub mod exit;
mod export_cmd;
mod human;
mod meter;
pub mod progress;
pub mod screen;
pub mod session;
pub mod signals;
pub mod summary;
mod verify_cmd;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod samples;

use std::process::ExitCode;

use clap::ArgMatches;

use crate::config::{ConfigErrors, Environment};
use crate::export::{ExportError, ExportErrorKind};
use crate::limits;
use screen::Screen;
use signals::Signals;

/// What every command has at hand.
#[derive(Debug)]
struct Stage {
    screen: Screen,
    signals: Signals,
    environment: Environment,
    /// The number of `-v`, or -1 for `-q`.
    verbosity: i8,
}

/// Parses the command line, runs the command and gives its exit code.
pub fn main() -> ExitCode {
    announce_panics();
    let matches = match args::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are no mistakes; a closed pipe is nobody's.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::failed(ExportErrorKind::Usage) } else { 0 });
        }
    };
    let Some((name, matches)) = matches.subcommand() else {
        return ExitCode::from(exit::failed(ExportErrorKind::Usage));
    };
    let screen = Screen::stderr();
    if args::LATER.contains(&name) {
        screen.line(&format!("error: outhaul {name} is not in this version yet"));
        return ExitCode::from(exit::failed(ExportErrorKind::Usage));
    }
    let code = start(&screen).and_then(|(runtime, signals)| {
        let verbosity = verbosity(matches);
        let stage = Stage { screen: screen.clone(), signals, environment: Environment::of_process(), verbosity };
        let code = runtime.block_on(run(name, matches, &stage));
        // A reader of standard output that never reads must not keep the process alive.
        runtime.shutdown_background();
        code
    });
    let code = code.unwrap_or_else(|error| {
        let failure = summary::Failure { error: &error, run_id: None, destination: None, left: summary::Left::Nothing };
        screen.line(&summary::error_text(&failure));
        exit::failed(error.kind)
    });
    ExitCode::from(code)
}

async fn run(name: &str, matches: &ArgMatches, stage: &Stage) -> Result<u8, ExportError> {
    match name {
        "export" => export_cmd::export(matches, stage).await,
        "plan" => export_cmd::plan(matches, stage).await,
        "verify" => verify_cmd::verify(matches, stage).await,
        other => Err(ExportError::internal(format!("the command {other} is nobody's"))),
    }
}

/// The async threads wait and move bytes; rayon's compute.
fn start(screen: &Screen) -> Result<(tokio::runtime::Runtime, Signals), ExportError> {
    let failed = |what: &str| ExportError::new(ExportErrorKind::Internal, format!("starting {what}"));
    rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("outhaul-cpu-{index}"))
        .build_global()
        .map_err(|error| failed("the computing threads").with_source(error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits::IO_THREADS)
        .thread_name("outhaul-io")
        .enable_all()
        .build()
        .map_err(|error| failed("the async threads").with_source(error))?;
    let signals = Signals::listen(screen).map_err(|error| failed("the signal handlers").with_source(error))?;
    Ok((runtime, signals))
}

fn verbosity(matches: &ArgMatches) -> i8 {
    if matches.get_flag("quiet") { -1 } else { i8::try_from(matches.get_count("verbose")).unwrap_or(i8::MAX) }
}

/// A panic is a bug: say so, with its place, and without whatever the values were.
fn announce_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(String::new(), |place| format!(" at {}:{}", place.file(), place.line()));
        let version = env!("CARGO_PKG_VERSION");
        Screen::stderr().line(&format!("internal error{place} in outhaul {version}; please report it"));
    }));
}

impl From<ConfigErrors> for ExportError {
    fn from(errors: ConfigErrors) -> Self {
        match errors.0.as_slice() {
            [only] => Self::new(ExportErrorKind::Usage, only.what.clone()).with_hint(only.hint.clone()),
            _ => Self::new(ExportErrorKind::Usage, errors.to_string()),
        }
    }
}
