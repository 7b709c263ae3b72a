//! How a run ended: a summary or an error for people, one line of JSON for scripts.

use std::error::Error;

use serde::Serialize;

use super::exit::{self, Truncation};
use super::human;
use crate::export::ExportError;
use crate::model::{ExportErrorKind, ExportReport, RowOrder, RowsAvailable, RunStatus, SourceCost};

/// Raised when a field of the JSON report changes its meaning or goes away.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What a run that did not commit left for others to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// Parts appear as they finish (`--visibility as-written`), and no manifest names them.
    Parts,
    /// The commit had begun: parts may be visible, and even the manifest.
    Commit,
    /// The reader of standard output has a beginning (`--to -`).
    Stream,
}

/// A run that did not commit, with what is told of it.
#[derive(Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) error: &'a ExportError,
    /// The run's id, once it has one.
    pub(crate) run_id: Option<&'a str>,
    /// The destination's URL, once it is known.
    pub(crate) destination: Option<&'a str>,
    pub(crate) left: Left,
}

impl<'a> Failure<'a> {
    /// Of a run that has not begun.
    pub(crate) fn early(error: &'a ExportError) -> Self {
        Self { error, run_id: None, destination: None, left: Left::Nothing }
    }
}

/// The summary of a run that committed, without a line end at its end.
pub(crate) fn text(report: &ExportReport, truncation: Truncation) -> String {
    let exit_code = exit::committed(report.status, truncation);
    let mut lines = vec![heading(report, truncation)];
    let mut entry = |name: &str, value: String| lines.push(format!("  {name:<9} {value}"));
    if report.status == RunStatus::Truncated {
        entry("cap", cap(report, exit_code));
    }
    let what = if report.rows.is_some() { "rows" } else { "bytes" };
    entry(what, format!("{}, {}", human::rows_in_parts(report.rows, report.parts), human::bytes(report.bytes)));
    let before = report.rows.unwrap_or_default().saturating_sub(report.rows_read_now);
    if !report.already_committed && before > 0 {
        entry(
            "resumed",
            format!("{} were there, {} read now", human::plural(before, "row"), human::count(report.rows_read_now)),
        );
    }
    if !report.already_committed {
        entry("time", time(report));
    }
    if let Some(cost) = &report.source_cost {
        entry("source", source_cost(cost));
    }
    if let Some(snapshot) = &report.snapshot {
        entry("snapshot", snapshot.clone());
    }
    entry("run", report.run_id.clone());
    if let Some(manifest) = &report.manifest {
        entry("manifest", manifest.clone());
        entry("check it", format!("outhaul verify {}", shell_word(&report.destination)));
    }
    lines.join("\n")
}

/// `300 rows/s, `.
fn rate(rows: u64, seconds: f64) -> String {
    format!("{} rows/s, ", human::count(human::per_second(rows, seconds)))
}

fn heading(report: &ExportReport, truncation: Truncation) -> String {
    let ExportReport { relation, destination, .. } = report;
    let done = if report.already_committed { " (already committed, nothing done)" } else { "" };
    match report.status {
        RunStatus::Complete => format!("complete{done}: {relation} -> {destination}"),
        RunStatus::Truncated if truncation == Truncation::Asked => {
            let rows = human::plural(report.rows.unwrap_or_default(), "row");
            format!("the first {rows}, as asked; there are more{done}: {relation} -> {destination}")
        }
        RunStatus::Truncated => format!("TRUNCATED{done}: {relation} -> {destination}"),
    }
}

/// `12.5 s with 4 readers: 480,097 rows/s, 23.04 MiB/s`, where what was read before a resume is in no rate.
fn time(report: &ExportReport) -> String {
    let readers = u64::try_from(report.readers).unwrap_or(u64::MAX);
    format!(
        "{} with {}: {}{}/s",
        human::seconds(report.seconds),
        human::plural(readers, "reader"),
        report.rows.map_or_else(String::new, |_| rate(report.rows_read_now, report.seconds)),
        human::bytes(human::per_second(report.bytes_written_now, report.seconds)),
    )
}

/// `7 connections at most, snapshot held for 12.2 s, 157,234 blocks of heap read`.
fn source_cost(cost: &SourceCost) -> String {
    let connections = u64::try_from(cost.peak_connections).unwrap_or(u64::MAX);
    let mut words = vec![format!("{} at most", human::plural(connections, "connection"))];
    words.extend(cost.snapshot_age_seconds.map(|age| format!("snapshot held for {}", human::seconds(age))));
    words.extend(cost.heap_blocks_read.map(|blocks| format!("{} of heap read", human::plural(blocks, "block"))));
    words.join(", ")
}

/// The one line that even `-q` shows.
pub(crate) fn truncation(report: &ExportReport, exit_code: u8) -> String {
    format!("TRUNCATED: {}: {}", report.relation, cap(report, exit_code))
}

/// `first 10,000 rows of at least 10,001 by key (id), tier free; exit 3`.
fn cap(report: &ExportReport, exit_code: u8) -> String {
    let rows = human::plural(report.rows.unwrap_or_default(), "row");
    let available = match report.rows_available {
        RowsAvailable::Exact(rows) => format!(" of {}", human::count(rows)),
        RowsAvailable::AtLeast(rows) => format!(" of at least {}", human::count(rows)),
        RowsAvailable::Unknown => String::new(),
    };
    let order = match report.order {
        RowOrder::Key => {
            let word =
                |name: &String| if report.descending.contains(name) { format!("{name} desc") } else { name.clone() };
            format!("by key ({})", report.key.iter().map(word).collect::<Vec<_>>().join(", "))
        }
        RowOrder::Physical => "in physical order".to_owned(),
        RowOrder::Unspecified => "in no defined order".to_owned(),
    };
    let tier = report.tier.as_ref().map_or_else(String::new, |tier| format!(", tier {tier}"));
    format!("first {rows}{available} {order}{tier}; exit {exit_code}")
}

/// The error of a run that did not commit: `error: …`, `hint: …`, and what is left.
pub(crate) fn error_text(failure: &Failure<'_>) -> String {
    let mut lines = vec![format!("error: {}", chain(failure.error))];
    if let Some(hint) = &failure.error.hint {
        lines.push(format!("hint: {}", one_line(hint)));
    }
    if let Some(run_id) = failure.run_id {
        let left = match failure.left {
            Left::Nothing => "nothing was published",
            Left::Parts => "parts may be visible, and no manifest names them",
            Left::Commit => "the commit had begun: `outhaul verify` tells whether the manifest stands",
            Left::Stream => "the stream ends before its end",
        };
        lines.push(format!("(run {run_id}; {left})"));
    }
    lines.join("\n")
}

/// The whole chain of causes, `a: b: c`, in one line. Libraries often repeat their cause in their own message; what has
/// been said is not said again.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = one_line(&error.to_string());
        if !message.is_empty() && !text.contains(&message) {
            text += ": ";
            text += &message;
        }
        cause = error.source();
    }
    text
}

/// Control characters become spaces: a server's message must not move the cursor of whoever reads it.
fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|letter: char| letter.is_control() || letter == ' ').filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// One word for a POSIX shell.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@%+=,".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[derive(Serialize)]
struct CommittedRun<'a> {
    schema_version: u32,
    #[serde(flatten)]
    report: &'a ExportReport,
    exit_code: u8,
    retryable: bool,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Failed<'a> {
    schema_version: u32,
    status: &'static str,
    run_id: Option<&'a str>,
    destination: Option<&'a str>,
    exit_code: u8,
    retryable: bool,
    error_kind: ExportErrorKind,
    error: String,
    hint: Option<&'a str>,
}

/// `--report json` of a run that committed.
///
/// # Errors
/// None in practice: see [`super::events::line`].
pub(crate) fn json(report: &ExportReport, exit_code: u8) -> Result<String, serde_json::Error> {
    serde_json::to_string(&CommittedRun {
        schema_version: SCHEMA_VERSION,
        report,
        exit_code,
        retryable: false,
        error: None,
    })
}

/// `--report json` of a run that did not: `status` is `failed` or `cancelled`.
///
/// # Errors
/// None in practice: see [`super::events::line`].
pub(crate) fn error_json(failure: &Failure<'_>) -> Result<String, serde_json::Error> {
    let kind = failure.error.kind;
    let cancelled = kind.is_cancel();
    serde_json::to_string(&Failed {
        schema_version: SCHEMA_VERSION,
        status: if cancelled { "cancelled" } else { "failed" },
        run_id: failure.run_id,
        destination: failure.destination,
        exit_code: exit::failed(kind),
        retryable: kind.retryable(),
        error_kind: kind,
        error: chain(failure.error),
        hint: failure.error.hint.as_deref(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use crate::cli::samples::{self, RUN};

    fn lost() -> ExportError {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        ExportError::new(ExportErrorKind::SourceUnavailable, "reading partition 7 of public.lineitem after 3 attempts")
            .with_hint("check that the server is up, then run the same command again")
            .with_source(io)
    }

    fn failure(error: &ExportError, left: Left) -> Failure<'_> {
        Failure { error, run_id: Some(RUN), destination: Some("s3://lake/lineitem/"), left }
    }

    #[test]
    fn summaries_have_their_goldens() {
        let physical = ExportReport {
            order: RowOrder::Physical,
            key: Vec::new(),
            tier: None,
            rows_available: RowsAvailable::Unknown,
            ..samples::truncated()
        };
        let descending = ExportReport {
            key: vec!["l_shipdate".into(), "id".into()],
            descending: vec!["l_shipdate".into()],
            ..samples::truncated()
        };
        let skipped = ExportReport {
            already_committed: true,
            source_cost: None,
            rows_read_now: 0,
            bytes_written_now: 0,
            ..samples::report()
        };
        let resumed =
            ExportReport { rows_read_now: 1_001_215, bytes_written_now: 50_000_000, seconds: 2.0, ..samples::report() };
        let streamed = ExportReport { destination: "standard output".into(), manifest: None, ..samples::report() };
        let cases = [
            ("complete", samples::report(), Truncation::Signalled),
            ("truncated", samples::truncated(), Truncation::Signalled),
            ("truncated_allowed", samples::truncated(), Truncation::Allowed),
            ("truncated_asked", samples::truncated(), Truncation::Asked),
            ("truncated_descending", descending, Truncation::Signalled),
            ("truncated_physical", physical, Truncation::Signalled),
            ("already_committed", skipped, Truncation::Signalled),
            ("resumed", resumed, Truncation::Signalled),
            ("streamed", streamed, Truncation::Signalled),
        ];
        for (name, report, truncation) in cases {
            let exit_code = exit::committed(report.status, truncation);
            golden::check(&format!("summary/{name}.txt"), &(text(&report, truncation) + "\n"));
            let json = json(&report, exit_code).unwrap();
            assert!(!json.contains('\n'));
            golden::check(&format!("report_v1/{name}.json"), &(json + "\n"));
        }
    }

    #[test]
    fn failures_have_their_goldens() {
        let lost = lost();
        let interrupted = ExportError::new(ExportErrorKind::Interrupted, "interrupted");
        let cases = [
            ("failed", failure(&lost, Left::Nothing)),
            ("failed_at_commit", failure(&lost, Left::Commit)),
            ("failed_as_written", failure(&lost, Left::Parts)),
            ("failed_stream", failure(&lost, Left::Stream)),
            ("cancelled", failure(&interrupted, Left::Nothing)),
        ];
        for (name, failure) in cases {
            golden::check(&format!("summary/{name}.txt"), &(error_text(&failure) + "\n"));
            let json = error_json(&failure).unwrap();
            assert!(!json.contains('\n'));
            golden::check(&format!("report_v1/{name}.json"), &(json + "\n"));
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let error = ExportError { source: Some(Box::new(Repeats(std::io::Error::other("disk on fire")))), ..lost() };
        assert_eq!(chain(&error), "reading partition 7 of public.lineitem after 3 attempts: outer: disk on fire");
    }

    #[test]
    fn a_message_cannot_move_the_cursor() {
        let error = ExportError { message: "a\r\n\u{1b}[2Jb \u{9b}31m".into(), source: None, ..lost() };
        assert_eq!(chain(&error), "a [2Jb 31m");
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_word("s3://lake/a/"), "s3://lake/a/");
        assert_eq!(shell_word("/tmp/it's here"), r"'/tmp/it'\''s here'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("$HOME"), "'$HOME'");
    }
}
