//! `outhaul serve`: the service of a file, until a signal ends it.

use std::path::Path;

use clap::ArgMatches;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::looks::Looks;
use super::{CommandContext, exit};
use crate::config::service::{ServiceConfig, ServiceRole, load_service};
use crate::config::{ConfigErrors, Environment};
use crate::export::ExportError;
use crate::model::ExportErrorKind;
use crate::service::{self, Listening, ServiceError};

pub(super) async fn serve(matches: &ArgMatches, context: &CommandContext) -> u8 {
    context.start_logs(Looks::wished(&std::env::args_os().collect::<Vec<_>>(), &context.environment));
    let file = matches.get_one::<String>("config").map(String::as_str).unwrap_or_default();
    let role = matches.get_one::<ServiceRole>("role").copied().unwrap_or_default();
    let loaded = load_service(Path::new(file), &context.environment);
    let config = match loaded.and_then(|mut config| config.take_role(role).map(|()| config)) {
        Ok(config) => config,
        Err(errors) => return context.refuse(&errors),
    };
    for warning in &config.warnings {
        context.screen.line(&format!("warning: {warning}"));
    }
    if matches.get_flag("check") {
        let misfits = service::check(&config).await;
        if !misfits.is_empty() {
            return context.refuse(&ConfigErrors(misfits));
        }
        if context.verbosity >= 0 {
            context.screen.line(&format!("{file} is right"));
        }
        return exit::COMPLETE;
    }
    let listening = |at: Listening| {
        if context.verbosity >= 0 {
            context.screen.line(&address_line(at));
        }
    };
    let (sender, receiver) = channel(1);
    let again = tokio::spawn(read_again(file.to_owned(), context.environment.clone(), sender));
    let exit_code = run(config, context, receiver, listening).await;
    again.abort();
    exit_code
}

/// Reads the file again at each SIGHUP. One that is wrong changes nothing.
async fn read_again(file: String, environment: Environment, changed: Sender<ServiceConfig>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        match load_service(Path::new(&file), &environment) {
            Ok(config) => drop(changed.send(config).await),
            Err(errors) => tracing::error!(%errors, "the file is wrong; everything stays as it was"),
        }
    }
}

/// Serves until a signal comes; returns the exit code.
pub(super) async fn run(
    config: ServiceConfig,
    context: &CommandContext,
    changes: Receiver<ServiceConfig>,
    listening: impl FnOnce(Listening),
) -> u8 {
    match service::serve(config, context.signals.token().clone(), changes, listening).await {
        // It was told to stop, and has.
        Ok(()) => exit::COMPLETE,
        Err(error) => context.fail(&failed(error)),
    }
}

fn address_line(at: Listening) -> String {
    let admin = at.admin.map_or_else(String::new, |admin| format!(", metrics and health on http://{admin}"));
    let scheme = if at.secure { "https" } else { "http" };
    at.public.map_or_else(
        || format!("a worker, which answers no callers{admin}"),
        |public| format!("listening on {scheme}://{public}{admin}"),
    )
}

fn failed(error: ServiceError) -> ExportError {
    let (kind, hint) = match &error {
        ServiceError::Metrics(_) => (ExportErrorKind::Internal, None),
        ServiceError::Jobs(_) => (ExportErrorKind::Usage, Some("check that the folder of state can be written")),
        ServiceError::Listen { .. } => (ExportErrorKind::Usage, Some("choose another address")),
        ServiceError::Jwks(_) => (ExportErrorKind::Usage, Some("check jwks_file, which is a JWKS document")),
        ServiceError::Tls(_) => (ExportErrorKind::Usage, Some("check tls_cert and tls_key, which are PEM files")),
        ServiceError::State { hint, .. } => (ExportErrorKind::Usage, *hint),
    };
    let (message, hint) = (error.to_string(), hint.map(str::to_owned));
    ExportError { hint, ..ExportError::new(kind, message).with_source(error) }
}
