//! `outhaul verify`.

use clap::ArgMatches;

use super::Stage;
use crate::export::{ExportError, ExportErrorKind};

pub(super) async fn verify(_matches: &ArgMatches, _stage: &Stage) -> Result<u8, ExportError> {
    std::future::ready(Err(ExportError::new(ExportErrorKind::Usage, "not yet"))).await
}
