//! `outhaul verify`.

use std::sync::Arc;

use clap::ArgMatches;

use super::printable;
use super::report::ErrorRecord;
use super::screen::stdout_line;
use super::{CommandContext, args, exit, human};
use crate::config;
use crate::export::place::place;
use crate::export::{self, CountMode, ExportError, SourceCheck};
use crate::model::{ExportErrorKind, RunStatus};
use crate::source::Source;
use crate::verify::{self, Finding, VerifyOptions, VerifyReport};

/// Findings that `outhaul verify` shows people before it says how many more there are.
const FINDINGS_SHOWN_MAX: usize = 40;

/// What was asked for.
struct VerifyRequest<'a> {
    url: &'a str,
    single_file: bool,
    read_data: bool,
    /// `--against-source`.
    source: Option<Arc<dyn Source>>,
}

/// What was found.
struct Verified {
    report: VerifyReport,
    source: Option<SourceCheck>,
}

impl Verified {
    fn findings(&self) -> impl Iterator<Item = &Finding> {
        let source = self.source.iter().flat_map(|source| &source.findings);
        self.report.findings.iter().chain(source)
    }
}

pub(super) async fn verify(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let source = if matches.get_flag("against_source") {
        match config::load_connection(args::flags(matches), &context.environment) {
            Ok(source) => Some(source),
            Err(errors) => return context.refuse(&errors),
        }
    } else {
        None
    };
    let asked = VerifyRequest {
        url: matches.get_one::<String>("dest").map_or("", String::as_str),
        single_file: matches.get_flag("single_file"),
        read_data: matches.get_flag("read_data"),
        source,
    };
    let verified = context.unless_stopped("stopped while verifying", look(&asked)).await;
    match verified {
        Ok(verified) => tell(&verified, context),
        Err(error) => context.fail(&error),
    }
}

/// Verifies what the URL names, as `export --to` would.
async fn look(asked: &VerifyRequest<'_>) -> Result<Verified, ExportError> {
    let (destination, placement) = place(asked.url, asked.single_file).await?;
    let read_data = asked.read_data;
    let report = verify::verify(&destination, &placement, VerifyOptions { read_data }).await?;
    let source = match &asked.source {
        Some(source) => export::against_source(&destination, &placement, source.as_ref()).await?,
        None => None,
    };
    Ok(Verified { report, source })
}

fn tell(verified: &Verified, context: &CommandContext) -> u8 {
    let differs = verified.findings().count();
    let told = !context.reporter.is_json() && (differs > 0 || context.verbosity >= 0);
    if told {
        stdout_line(&printable::lines(&text(verified)));
    }
    let Verified { report, source } = verified;
    let error = (differs > 0).then(|| {
        let what = if differs == 1 { "1 thing differs".to_owned() } else { format!("{differs} things differ") };
        ExportError::new(ExportErrorKind::Verification, format!("{what} from what {} says", report.manifest))
    });
    let exit_code = if differs > 0 { exit::VERIFICATION } else { exit::COMPLETE };
    let body = serde_json::json!({
        "schema_version": 1, "exit_code": exit_code, "verified": differs == 0, "report": report, "source": source,
        "retryable": false,
    });
    let errors: Vec<ErrorRecord> = error.iter().map(ErrorRecord::of).collect();
    context.reporter.give(&context.screen, &body, &errors);
    exit_code
}

/// The report for people.
fn text(verified: &Verified) -> String {
    let report = &verified.report;
    let mut lines = Vec::new();
    let findings: Vec<&Finding> = verified.findings().collect();
    if findings.is_empty() {
        let status = match report.status {
            Some(RunStatus::Complete) => " (complete)",
            Some(RunStatus::Truncated) => " (truncated)",
            None => "",
        };
        lines.push(format!("verified: {}{status}", report.manifest));
    } else {
        lines.push(format!("NOT verified: {}", report.manifest));
    }
    for finding in findings.iter().take(FINDINGS_SHOWN_MAX) {
        lines.push(format!("  {}: {}", finding.path, finding.problem));
    }
    let more = findings.len().saturating_sub(FINDINGS_SHOWN_MAX);
    if more > 0 {
        lines.push(format!("  and {more} more; --report json has all"));
    }
    if report.run_id.is_some() {
        lines.push(format!(
            "  {}, {}: {}",
            human::rows_in_parts(report.rows, report.parts),
            human::bytes(report.bytes),
            looked(report)
        ));
    }
    lines.extend(verified.source.iter().map(counted));
    lines.join("\n")
}

/// How the parts were looked at.
fn looked(report: &VerifyReport) -> String {
    if report.data_read {
        return "every byte read again".to_owned();
    }
    match report.parts.saturating_sub(report.checksums_kept) {
        0 => "sizes and stored checksums compared".to_owned(),
        none if none == report.parts => {
            "sizes compared; the store keeps no checksum, and --read-data reads the bytes".to_owned()
        }
        some => format!(
            "sizes and stored checksums compared; the store keeps none of {}, and --read-data reads the bytes",
            human::plural(some, "part")
        ),
    }
}

/// How the source was counted.
fn counted(check: &SourceCheck) -> String {
    let under = match (check.mode, &check.snapshot) {
        (CountMode::RunSnapshot, Some(id)) => format!("the run's snapshot {id}"),
        (CountMode::RunSnapshot, None) => "the run's snapshot".to_owned(),
        (CountMode::Now, _) if check.foreign => {
            "the source as it is now, for no snapshot says what its foreign tables held".to_owned()
        }
        (CountMode::Now, _) => "the source as it is now, for the run's snapshot is gone".to_owned(),
    };
    let each = match (check.partitions, check.partitions_uncounted) {
        (0, 0) => String::new(),
        (0, _) => ", in total alone".to_owned(),
        (some, 0) => format!(", and in each of {}", human::plural(some, "partition")),
        (some, none) => format!(", and in each of {} of {} partitions", some, some.saturating_add(none)),
    };
    let note = check.note.as_ref().map_or_else(String::new, |why| format!("; {why}"));
    format!("  {} counted in {under}{each}{note}", human::plural(check.rows, "row"))
}
