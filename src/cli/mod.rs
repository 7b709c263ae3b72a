//! The command line. The only user of `clap`, and of standard output and error.

mod args;
mod bars;
mod clean_cmd;
mod ddl_cmd;
mod demo;
mod demo_cmd;
mod demo_serve;
mod engine;
mod env_file;
mod events;
pub mod exit;
mod export_cmd;
mod help;
mod human;
mod keep_cmd;
mod looks;
mod ls_cmd;
mod meter;
pub(crate) mod plan_view;
mod printable;
mod progress;
mod pull;
mod pull_cmd;
mod report;
mod resume_cmd;
mod run_cmd;
mod run_plan;
mod run_view;
mod screen;
mod serve_cmd;
mod session;
mod show_cmd;
mod signals;
mod stdin;
mod summary;
mod synonyms;
mod table;
mod verify_cmd;
mod worker_args;
mod worker_cmd;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod samples;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ArgMatches;
use serde::Serialize;

use crate::base::telemetry::{self, LogFormat};
use crate::config::{ConfigError, ConfigErrors, Environment};
use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind};
use crate::source::cancels_sent;
use looks::Looks;
use report::{ErrorRecord, Reporter};
use screen::{Screen, stdout_answer, stdout_line};
use signals::Signals;
use summary::Failure;

/// Free memory that the allocator keeps at the end of each of its heaps: more than a batch. glibc's own bound is 128 KiB
/// until a larger block has been freed, and each batch's memory would go back to the system and come again, page by page:
/// 57,000 page faults for 6 million rows of CSV instead of 6,000.
const KEPT_HEAP_BYTES: usize = 2 * 1024 * 1024;

/// Threads that do IO. Sockets and files wait more than they compute, and all CPU work is on rayon, so two keep up with
/// any number of readers.
const IO_THREADS: usize = 2;

/// What every command has at hand.
#[derive(Debug)]
struct CommandContext {
    screen: Screen,
    signals: Signals,
    environment: Environment,
    /// The number of `-v`, or -1 for `-q`.
    verbosity: i8,
    reporter: Reporter,
}

impl CommandContext {
    /// Tells of a command that failed; returns the exit code.
    fn fail(&self, error: &ExportError) -> u8 {
        fail(error, &self.reporter, &self.screen, self.verbosity > 0)
    }

    /// Gives out what a command was asked for, for people or as a report; returns the exit code.
    fn answer(&self, text: impl FnOnce() -> String, body: &impl Serialize) -> u8 {
        if !self.reporter.is_json() {
            let answered = stdout_answer(&printable::lines(&text()));
            self.reporter.give(&self.screen, body, &[]);
            return answered;
        }
        self.reporter.answer(&self.screen, body, &[])
    }

    /// The error of a command that a signal stopped; `message` says what it was at.
    fn stopped(&self, message: &'static str) -> ExportError {
        let kind = self.signals.reason().map_or(ExportErrorKind::Interrupted, signals::StopSignal::kind);
        ExportError::new(kind, message)
    }

    /// What `work` gives, unless a signal comes first: then the error of [`CommandContext::stopped`].
    async fn unless_stopped<T>(
        &self,
        message: &'static str,
        work: impl Future<Output = Result<T, ExportError>>,
    ) -> Result<T, ExportError> {
        tokio::select! {
            () = self.signals.token().cancelled() => Err(self.stopped(message)),
            done = work => done,
        }
    }

    /// Starts the log lines, which look from now on as all else on standard error does.
    fn start_logs(&self, looks: Looks) {
        self.screen.look(looks);
        let format = if looks.json { LogFormat::Json } else { LogFormat::Text };
        telemetry::start_logs(format, self.verbosity, looks.paints_stderr(), self.screen.clone());
    }

    /// Tells every mistake of a configuration; returns the exit code.
    fn refuse(&self, errors: &ConfigErrors) -> u8 {
        refuse(errors, &self.reporter, &self.screen)
    }
}

/// See [`CommandContext::fail`].
fn fail(error: &ExportError, reporter: &Reporter, screen: &Screen, verbose: bool) -> u8 {
    let failure = Failure::early(error);
    screen.line(&summary::error_text(&failure, verbose));
    reporter.give(screen, &summary::failed(&failure), &[ErrorRecord::of(error)]);
    exit::failed(error.kind)
}

/// See [`CommandContext::refuse`].
fn refuse(errors: &ConfigErrors, reporter: &Reporter, screen: &Screen) -> u8 {
    let usage = |error: &ConfigError| {
        ExportError::new(ExportErrorKind::Usage, error.what.as_str()).with_hint(error.hint.as_str())
    };
    let all: Vec<ExportError> = errors.0.iter().map(usage).collect();
    for error in &all {
        screen.line(&summary::error_text(&Failure::early(error), false));
    }
    let records: Vec<ErrorRecord> = all.iter().map(ErrorRecord::of).collect();
    let error = match errors.0.as_slice() {
        [only] => usage(only),
        all => {
            let all: Vec<String> = all.iter().map(|error| format!("{} ({})", error.what, error.hint)).collect();
            ExportError::new(ExportErrorKind::Usage, all.join("; "))
        }
    };
    reporter.give(screen, &summary::failed(&Failure::early(&error)), &records);
    exit::failed(error.kind)
}

/// Parses the command line, runs the command and gives its exit code. A panic anywhere is exit 1.
///
/// # Examples
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     outhaul::cli::main()
/// }
/// ```
pub fn main() -> ExitCode {
    announce_panics();
    ExitCode::from(catch_unwind(AssertUnwindSafe(parse_and_run)).unwrap_or(exit::INTERNAL))
}

fn parse_and_run() -> u8 {
    let screen = Screen::stderr();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let environment = Environment::of_process();
    screen.look(Looks::wished(&arguments, &environment));
    let mut command = help::dressed(args::command());
    let names: Vec<String> = args::names(&command);
    let reporter = Reporter::wished(&arguments, &environment, &names);
    if let Some(hint) = synonyms::host(&arguments) {
        return misspelt("-h shows the help", &hint, &reporter, &screen);
    }
    if let Some(text) = help::short(&arguments, &command) {
        stdout_line(&text);
        return exit::COMPLETE;
    }
    let matches = match command.try_get_matches_from_mut(&arguments) {
        Ok(matches) => matches,
        Err(error) => {
            return match synonyms::of(&error, &arguments) {
                Some((what, hint)) => misspelt(&what, &hint, &reporter, &screen),
                None => unparsed(&error, &reporter, &screen),
            };
        }
    };
    // clap demands a command.
    let Some((name, matches)) = matches.subcommand() else { return exit::USAGE };
    let reporter = reporter.beside_rows_of(matches);
    if let Some(shown) = help::shown(name, matches, &mut command) {
        return match shown {
            Ok(()) => exit::COMPLETE,
            Err(wrong) => fail(&ExportError::new(ExportErrorKind::Usage, wrong), &reporter, &screen, false),
        };
    }
    if let Some(file) = env_file::wanted(matches, &environment) {
        if let Err(errors) = env_file::enter(&file, &environment) {
            return refuse(&errors, &reporter, &screen);
        }
        if environment.is_open_to_others(&file) {
            let file = file.display();
            screen.line(&format!("warning: group or others can read the secrets of {file}: run chmod 600 {file}"));
        }
    }
    match start(&screen) {
        Ok((runtime, signals)) => {
            let context = CommandContext { screen, signals, environment, verbosity: verbosity(matches), reporter };
            let exit_code = runtime.block_on(async {
                let exit_code = Box::pin(run(name, matches, &context)).await;
                cancels_sent().await;
                exit_code
            });
            // A reader of standard output that never reads must not keep the process alive.
            runtime.shutdown_background();
            exit_code
        }
        Err(error) => fail(&error, &reporter, &screen, verbosity(matches) > 0),
    }
}

/// Tells of a word that other programs know, and what it is here.
fn misspelt(what: &str, hint: &str, reporter: &Reporter, screen: &Screen) -> u8 {
    let error = ExportError::new(ExportErrorKind::Usage, what).with_code(ErrorCode::OptionUnknown).with_hint(hint);
    fail(&error, reporter, screen, false)
}

/// Help and version, which are no mistakes, or what clap did not understand.
fn unparsed(error: &clap::Error, reporter: &Reporter, screen: &Screen) -> u8 {
    // A closed pipe is nobody's mistake.
    let printed = if error.use_stderr() && screen.looks().json {
        screen.line(error.to_string().trim_end());
        Ok(())
    } else {
        error.print()
    };
    if !error.use_stderr() {
        return if printed.is_ok() { exit::COMPLETE } else { exit::READER_GONE };
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let mut refused = ExportError::new(ExportErrorKind::Usage, first.strip_prefix("error: ").unwrap_or(first));
    if error.kind() == clap::error::ErrorKind::UnknownArgument {
        refused = refused.with_code(ErrorCode::OptionUnknown);
    }
    let tips = text.lines().find_map(|line| line.trim_start().strip_prefix("tip: ").or(line.strip_prefix("hint: ")));
    refused.hint = tips.map(str::to_owned);
    reporter.give(screen, &summary::failed(&Failure::early(&refused)), &[ErrorRecord::of(&refused)]);
    exit::USAGE
}

async fn run(name: &str, matches: &ArgMatches, context: &CommandContext) -> u8 {
    match name {
        "export" => Box::pin(export_cmd::export(matches, context)).await,
        "plan" => Box::pin(export_cmd::plan(matches, context)).await,
        "run" => run_cmd::run(matches, context).await,
        "resume" => resume_cmd::resume(matches, context).await,
        "pull" => pull_cmd::pull(matches, context).await,
        "clean" => clean_cmd::clean(matches, context).await,
        "worker" => worker_cmd::worker(matches, context).await,
        "keep" => keep_cmd::keep(matches, context).await,
        "verify" => verify_cmd::verify(matches, context).await,
        "ls" => ls_cmd::ls(matches, context).await,
        "show" => show_cmd::show(matches, context).await,
        "ddl" => ddl_cmd::print(matches, context).await,
        "serve" => serve_cmd::serve(matches, context).await,
        "demo" => Box::pin(demo_cmd::demo(matches, context)).await,
        other => context.fail(&ExportError::internal(format!("the command {other} is nobody's"))),
    }
}

/// The async threads wait and move bytes; rayon's compute.
fn start(screen: &Screen) -> Result<(tokio::runtime::Runtime, Signals), ExportError> {
    let failed = |what: &str| ExportError::new(ExportErrorKind::Internal, format!("starting {what}"));
    // Freed, it lifts the bound from which glibc gives memory back (mallopt(3), `M_MMAP_THRESHOLD`).
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_HEAP_BYTES / 2)));
    rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("outhaul-cpu-{index}"))
        // The panic hook has told of it; whoever waits for the task sees that it is gone. rayon's default aborts.
        .panic_handler(|_| ())
        .build_global()
        .map_err(|error| failed("the computing threads").with_source(error))?;
    let threads = AtomicUsize::new(0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name_fn(move || format!("outhaul-io-{}", threads.fetch_add(1, Ordering::Relaxed)))
        .enable_all()
        .build()
        .map_err(|error| failed("the async threads").with_source(error))?;
    let signals = Signals::listen(screen).map_err(|error| failed("the signal handlers").with_source(error))?;
    Ok((runtime, signals))
}

fn verbosity(matches: &ArgMatches) -> i8 {
    if matches.get_flag("quiet") { -1 } else { i8::try_from(matches.get_count("verbose")).unwrap_or(i8::MAX) }
}

/// A panic is a bug: say so, with its place, and without its message, which may hold a row's values. Straight to standard
/// error: the screen's locks may be held by who panics.
fn announce_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(String::new(), |place| format!(" at {}:{}", place.file(), place.line()));
        let version = env!("CARGO_PKG_VERSION");
        let mut stderr = io::stderr().lock();
        // Bars leave the cursor at the end of their line.
        let line = if stderr.is_terminal() { "\n" } else { "" };
        let _ = writeln!(stderr, "{line}error: internal error{place} in outhaul {version}; please report this line");
    }));
}
