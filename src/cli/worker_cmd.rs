//! `outhaul worker`: reads some partitions of a run that another process holds together.

use std::time::Duration;

use clap::ArgMatches;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::looks::Looks;
use super::run_view::gravest;
use super::{CommandContext, args, engine, exit};
use crate::base::words::counted;
use crate::config::{self, ConfigError, ConfigErrors};
use crate::export::ExportError;
use crate::export::outside::work::{self, WorkRequest};
use crate::export::outside::{WorkError, partitions, shard};
use crate::model::{ExportErrorKind, RunFence, WorkerShare};

/// Receipts and failures that may wait to be printed.
const WORDS_WAITING: usize = 16;

pub(super) async fn worker(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let options = match config::load_worker(args::flags(matches), &context.environment) {
        Ok(options) => options,
        Err(errors) => return context.refuse(&errors),
    };
    let share = match share(matches, context) {
        Ok(share) => share,
        Err(why) => return context.refuse(&ConfigErrors(vec![why])),
    };
    context.start_logs(Looks::of(options.color, options.log_format));
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    let epoch = matches.get_one::<u64>("epoch").copied();
    let run = text("run_id").zip(epoch).zip(text("plan_sha256")).map(|((run_id, epoch), plan_sha256)| RunFence {
        run_id,
        epoch,
        plan_sha256: plan_sha256.to_lowercase(),
    });
    let request = WorkRequest {
        source: options.source,
        destination: text("destination").unwrap_or_default(),
        run,
        share,
        wait: matches.get_one::<Duration>("wait").copied().unwrap_or_default(),
        aws_credential_command: options.aws_credential_command,
        protect_key: options.protect_key,
    };
    let stop = Stop::listen(context, options.stdin);
    let (told, words) = mpsc::channel(WORDS_WAITING);
    let telling = tokio::spawn(engine::tell_words(words));
    let result = work::work(request, told, stop.all.clone()).await;
    // Every receipt and every failure is said before the end is.
    let _ = telling.await;
    match result {
        Ok(done) => {
            if context.verbosity >= 0 {
                context.screen.line(&format!("done: {} of the run", counted(done, "partition")));
            }
            exit::COMPLETE
        }
        Err(WorkError::Run(error)) => {
            let error = if error.kind == ExportErrorKind::Interrupted { stop.named(context, *error) } else { *error };
            engine::tell_failure(None, &error);
            context.fail(&error)
        }
        Err(WorkError::Exports(failed)) => context.fail(&of_exports(failed)),
    }
}

/// The one error of a worker that could not read some exports of its job: of the gravest kind, with the names of all.
fn of_exports(failed: Vec<(String, ExportError)>) -> ExportError {
    let gravest = gravest(failed.iter().map(|(_, error)| exit::failed(error.kind)));
    let kind = failed.iter().map(|(_, error)| error.kind).find(|kind| exit::failed(*kind) == gravest);
    let said: Vec<String> = failed.iter().map(|(name, error)| format!("{name}: {}", error.sentence())).collect();
    let hint = failed.into_iter().find_map(|(_, error)| error.hint);
    let error = ExportError::new(kind.unwrap_or(ExportErrorKind::Internal), said.join("; "));
    hint.into_iter().fold(error, ExportError::with_hint)
}

/// Which partitions are asked for.
fn share(matches: &ArgMatches, context: &CommandContext) -> Result<WorkerShare, ConfigError> {
    if let Some(numbers) = matches.get_many::<String>("numbers") {
        let hint = "the line `ready` of the run says which there are";
        let texts: Vec<String> = numbers.cloned().collect();
        return partitions(&texts).map_err(|why| ConfigError::new(why, hint));
    }
    let text = matches.get_one::<String>("shard").map_or("", String::as_str);
    let shards = matches.get_one::<u32>("shards").copied();
    let hint = "--shard 0/8 is the first of eight workers; --shard auto --shards 8 takes the index of the scheduler";
    shard(text, shards, |name| context.environment.get(name)).map_err(|why| ConfigError::new(why, hint))
}

/// What stops a worker: a signal, or the end of whoever started it.
struct Stop {
    all: CancellationToken,
    hangup: CancellationToken,
    input: CancellationToken,
}

impl Stop {
    fn listen(context: &CommandContext, rule: Option<crate::model::StdinRule>) -> Self {
        let signals = context.signals.token().clone();
        let (all, hangup, input) = (signals.child_token(), CancellationToken::new(), CancellationToken::new());
        engine::stop_at_the_end(rule, input.clone());
        let (any, gone, ended) = (all.clone(), hangup.clone(), input.clone());
        // The handler stands from here on; one that nobody may have leaves the signal to the system, which ends us.
        let hangups = signal(SignalKind::hangup()).ok();
        tokio::spawn(async move {
            let hung_up = async {
                match hangups {
                    Some(mut hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = hung_up => gone.cancel(),
                () = ended.cancelled() => {}
            }
            any.cancel();
        });
        Self { all, hangup, input }
    }

    /// The error of a worker that was stopped: by what.
    fn named(&self, context: &CommandContext, error: ExportError) -> ExportError {
        if context.signals.token().is_cancelled() {
            return context.stopped("stopped by a signal");
        }
        let why = if self.hangup.is_cancelled() {
            "stopped by SIGHUP"
        } else if self.input.is_cancelled() {
            "stopped: standard input has ended, and with it whoever started this worker"
        } else {
            return error;
        };
        ExportError::new(ExportErrorKind::Terminated, why)
    }
}
