//! `outhaul verify`.

use clap::ArgMatches;

use super::summary::{self, Failure};
use super::{Stage, exit};
use crate::export::{ExportError, ExportErrorKind};

pub(super) async fn verify(_matches: &ArgMatches, stage: &Stage) -> u8 {
    let error = ExportError::new(ExportErrorKind::Usage, "not yet");
    stage.screen.line(&summary::error_text(&Failure::early(&error)));
    std::future::ready(exit::USAGE).await
}
