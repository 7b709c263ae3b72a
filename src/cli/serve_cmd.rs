//! `outhaul serve`: the service of a file, until a signal ends it.

use std::path::Path;

use clap::ArgMatches;

use super::looks::Looks;
use super::{CommandContext, exit};
use crate::config::ConfigErrors;
use crate::config::service::{ServiceConfig, load_service};
use crate::export::ExportError;
use crate::model::ExportErrorKind;
use crate::service::{self, Listening, ServiceError};

pub(super) async fn serve(matches: &ArgMatches, context: &CommandContext) -> u8 {
    context.start_logs(Looks::wished(&std::env::args_os().collect::<Vec<_>>(), &context.environment));
    let file = matches.get_one::<String>("config").map(String::as_str).unwrap_or_default();
    let config = match load_service(Path::new(file), &context.environment) {
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
    run(config, context, listening).await
}

/// Serves until a signal comes; returns the exit code.
pub(super) async fn run(config: ServiceConfig, context: &CommandContext, listening: impl FnOnce(Listening)) -> u8 {
    match service::serve(config, context.signals.token().clone(), listening).await {
        // It was told to stop, and has.
        Ok(()) => exit::COMPLETE,
        Err(error) => context.fail(&failed(error)),
    }
}

fn address_line(at: Listening) -> String {
    let admin = at.admin.map_or_else(String::new, |admin| format!(", metrics and health on http://{admin}"));
    format!("listening on http://{}{admin}", at.public)
}

fn failed(error: ServiceError) -> ExportError {
    let (kind, hint) = match &error {
        ServiceError::Metrics(_) => (ExportErrorKind::Internal, None),
        ServiceError::Listen { .. } => (ExportErrorKind::Usage, Some("choose another address")),
        ServiceError::State { hint, .. } => (ExportErrorKind::Usage, *hint),
    };
    let (message, hint) = (error.to_string(), hint.map(str::to_owned));
    ExportError {
        hint,
        told: matches!(error, ServiceError::State { .. }),
        ..ExportError::new(kind, message).with_source(error)
    }
}
