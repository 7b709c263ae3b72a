//! `outhaul verify`.

use std::num::NonZeroUsize;

use clap::ArgMatches;

use super::screen::stdout_line;
use super::summary::{self, Failure};
use super::{Stage, exit, human};
use crate::export::{ExportError, ExportErrorKind};
use crate::limits;
use crate::manifest::{self, Placement, VerifyOptions, VerifyReport};
use crate::store::{Destination, StoreOptions};

pub(super) async fn verify(matches: &ArgMatches, stage: &Stage) -> u8 {
    let json = matches.get_one::<String>("report").is_some_and(|report| report == "json");
    match look(matches, stage).await {
        Ok(report) if report.findings.is_empty() && !json && stage.verbosity < 0 => exit::COMPLETE,
        Ok(report) => tell(&report, json),
        Err(error) => {
            let failure = Failure::early(&error);
            stage.screen.line(&summary::error_text(&failure));
            if let (true, Ok(line)) = (json, summary::error_json(&failure)) {
                stdout_line(&line);
            }
            exit::failed(error.kind)
        }
    }
}

async fn look(matches: &ArgMatches, stage: &Stage) -> Result<VerifyReport, ExportError> {
    if matches.get_flag("against_source") {
        return Err(ExportError::new(ExportErrorKind::Usage, "--against-source is not in this version yet"));
    }
    let url = matches.get_one::<String>("dest").map_or("", String::as_str);
    tokio::select! {
        () = stage.signals.token().cancelled() => {
            let kind = stage.signals.reason().map_or(ExportErrorKind::Interrupted, super::signals::Stop::kind);
            Err(ExportError::new(kind, "stopped while verifying"))
        }
        report = verify_at(url, matches.get_flag("single_file"), matches.get_flag("read_data")) => report,
    }
}

fn tell(report: &VerifyReport, json: bool) -> u8 {
    let code = if report.findings.is_empty() { 0 } else { exit::failed(ExportErrorKind::Verification) };
    if json {
        let line = serde_json::json!({"schema_version": 1, "exit_code": code, "verified": code == 0, "report": report, "retryable": false});
        stdout_line(&line.to_string());
    } else {
        stdout_line(&text(report));
    }
    code
}

/// Verifies what `url` names, as `export --to` would.
async fn verify_at(url: &str, single_file: bool, read_data: bool) -> Result<VerifyReport, ExportError> {
    let options = StoreOptions {
        chunk_bytes: NonZeroUsize::new(limits::UPLOAD_CHUNK_BYTES_MIN).unwrap_or(NonZeroUsize::MIN),
        concurrency: NonZeroUsize::MIN,
        sha256: false,
    };
    let (destination, placement) = place(url, single_file, &options).await?;
    Ok(manifest::verify(&destination, &placement, VerifyOptions { read_data }).await?)
}

/// A folder of parts, or the one file of a `--single-file` export, which the manifest beside it gives away.
pub(super) async fn place(
    url: &str,
    single_file: bool,
    options: &StoreOptions,
) -> Result<(Destination, Placement), ExportError> {
    if let Ok((folder, placement)) = crate::export::locate(url, true)
        && let Ok(destination) = Destination::open(folder, options)
        && let Ok(Some(_)) = destination.head(&placement.manifest_path()).await
    {
        return Ok((destination, placement));
    }
    let (folder, placement) = crate::export::locate(url, single_file)?;
    Ok((Destination::open(folder, options)?, placement))
}

/// The report for people.
fn text(report: &VerifyReport) -> String {
    let mut lines = Vec::new();
    let how = if report.data_read { "every byte read again" } else { "sizes and stored checksums" };
    if report.findings.is_empty() {
        let status = report.status.map_or("", |status| match status {
            crate::export::report::RunStatus::Complete => "complete",
            crate::export::report::RunStatus::Truncated => "truncated",
        });
        lines.push(format!("verified: {} ({status})", report.manifest));
        lines.push(format!(
            "  {} in {}, {}: {how}",
            human::plural(report.rows, "row"),
            human::plural(report.parts, "part"),
            human::bytes(report.bytes)
        ));
    } else {
        lines.push(format!("NOT verified: {}", report.manifest));
        for finding in report.findings.iter().take(limits::FINDINGS_SHOWN_MAX) {
            lines.push(format!("  {}: {}", finding.path, finding.problem));
        }
        let more = report.findings.len().saturating_sub(limits::FINDINGS_SHOWN_MAX);
        if more > 0 {
            lines.push(format!("  and {more} more; --report json has all"));
        }
    }
    lines.join("\n")
}
