//! How a run ended: a summary or an error for people, one line of JSON for scripts.

use serde::Serialize;

use super::exit::{self, Truncation};
use super::human;
use crate::base::voice;
use crate::export::ExportError;
use crate::model::{ExportErrorKind, ExportReport, RowOrder, RowsAvailable, RunStatus, SourceCost, WatermarkReport};

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
    /// The reader of standard output has everything; what failed is the manifest beside it.
    WholeStream,
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
    /// Whether it had come so far that something could be left: it had a plan.
    pub(crate) begun: bool,
}

impl<'a> Failure<'a> {
    /// Of a run that has not begun.
    pub(crate) fn early(error: &'a ExportError) -> Self {
        Self { error, run_id: None, destination: None, left: Left::Nothing, begun: false }
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
    if let Some(watermark) = &report.watermark {
        entry("since", since(watermark));
    }
    entry("run", report.run_id.clone());
    if let Some(manifest) = &report.manifest {
        entry("manifest", manifest.clone());
        entry("check it", format!("outhaul verify {}", shell_word(&report.destination)));
    }
    lines.join("\n")
}

/// `run 20261128T174427Z-9f3a2b1c, and updated_at up to 2026-11-28 01:02:03+00`.
fn since(watermark: &WatermarkReport) -> String {
    let from = match (&watermark.since, &watermark.why_full) {
        (Some(run), _) => format!("run {run}"),
        (None, Some(why)) => format!("the beginning: {why}"),
        (None, None) => "the beginning: there is no export to go on from".to_owned(),
    };
    let value = watermark.value.as_deref().unwrap_or("none");
    format!("{from}; greatest {}: {value}", watermark.column)
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

/// The one line that even `-q` shows. `name` is what people call the export.
pub(crate) fn truncation(name: &str, report: &ExportReport, exit_code: u8) -> String {
    format!("TRUNCATED: {name}: {}", cap(report, exit_code))
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
        // ClickHouse orders by expressions, which have no names.
        RowOrder::Key if report.key.is_empty() => "by the sorting key".to_owned(),
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

/// The error of a run that did not commit: `error: …`, the chain of its causes where that is asked for, `hint: …`, and what
/// a run that had begun has left.
pub(crate) fn error_text(failure: &Failure<'_>, verbose: bool) -> String {
    let mut lines = vec![format!("error: {}", failure.error.sentence())];
    if let (true, Some(source)) = (verbose, &failure.error.source) {
        lines.extend(voice::causes(source.as_ref()).into_iter().map(|cause| format!("  caused by: {cause}")));
    }
    if let Some(hint) = &failure.error.hint {
        lines.push(format!("hint: {}", voice::one_line(hint)));
    }
    if let (true, Some(run_id)) = (failure.begun, failure.run_id) {
        let left = match failure.left {
            Left::Nothing => "nothing was published",
            Left::Parts => "parts may be visible, and no manifest names them",
            Left::Commit => "the commit had begun: `outhaul verify` tells whether the manifest stands",
            Left::Stream => "the stream ends before its end",
            Left::WholeStream => "the stream is whole, and has no manifest",
        };
        lines.push(format!("(run {run_id}; {left})"));
    }
    lines.join("\n")
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

/// What `--report json` says of a run that committed.
#[derive(Debug, Serialize)]
pub(crate) struct CommittedRun<'a> {
    schema_version: u32,
    #[serde(flatten)]
    report: &'a ExportReport,
    exit_code: u8,
    retryable: bool,
    error: Option<&'a str>,
}

/// What it says of a command that failed: `status` is `failed` or `cancelled`.
#[derive(Debug, Serialize)]
pub(crate) struct Failed<'a> {
    schema_version: u32,
    status: &'static str,
    run_id: Option<&'a str>,
    destination: Option<&'a str>,
    exit_code: u8,
    retryable: bool,
    /// Whether `outhaul resume` goes on with it.
    resumable: bool,
    error_kind: ExportErrorKind,
    error: String,
    hint: Option<&'a str>,
}

pub(crate) fn committed(report: &ExportReport, exit_code: u8) -> CommittedRun<'_> {
    CommittedRun { schema_version: SCHEMA_VERSION, report, exit_code, retryable: false, error: None }
}

pub(crate) fn failed<'a>(failure: &Failure<'a>) -> Failed<'a> {
    let kind = failure.error.kind;
    Failed {
        schema_version: SCHEMA_VERSION,
        status: if kind.is_cancel() { "cancelled" } else { "failed" },
        run_id: failure.run_id,
        destination: failure.destination,
        exit_code: exit::failed(kind),
        retryable: kind.retryable(),
        resumable: failure.error.resumable,
        error_kind: kind,
        error: failure.error.sentence(),
        hint: failure.error.hint.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use crate::cli::report::{ErrorRecord, tests as report};
    use crate::cli::samples::{self, RUN};

    fn lost() -> ExportError {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        ExportError::new(ExportErrorKind::SourceUnavailable, "reading partition 7 of public.lineitem after 3 attempts")
            .with_hint("check that the server is up, then run the same command again")
            .with_source(io)
    }

    fn failure(error: &ExportError, left: Left) -> Failure<'_> {
        Failure { error, run_id: Some(RUN), destination: Some("s3://lake/lineitem/"), left, begun: true }
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
        let nameless = ExportReport { key: Vec::new(), ..samples::truncated() };
        let cases = [
            ("complete", samples::report(), Truncation::Signalled),
            ("truncated", samples::truncated(), Truncation::Signalled),
            ("truncated_allowed", samples::truncated(), Truncation::Allowed),
            ("truncated_asked", samples::truncated(), Truncation::Asked),
            ("truncated_descending", descending, Truncation::Signalled),
            ("truncated_physical", physical, Truncation::Signalled),
            ("truncated_by_the_sorting_key", nameless, Truncation::Signalled),
            ("already_committed", skipped, Truncation::Signalled),
            ("resumed", resumed, Truncation::Signalled),
            ("streamed", streamed, Truncation::Signalled),
        ];
        for (name, report, truncation) in cases {
            let exit_code = exit::committed(report.status, truncation);
            golden::check(&format!("summary/{name}.txt"), &(text(&report, truncation) + "\n"));
            report::check(&format!("report_v1/{name}.json"), &committed(&report, exit_code), &[]);
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
            ("failed_manifest_of_stream", failure(&lost, Left::WholeStream)),
            ("cancelled", failure(&interrupted, Left::Nothing)),
        ];
        for (name, failure) in cases {
            golden::check(&format!("summary/{name}.txt"), &(error_text(&failure, false) + "\n"));
            let errors = [ErrorRecord::of(failure.error)];
            report::check(&format!("report_v1/{name}.json"), &failed(&failure), &errors);
        }
    }

    #[test]
    fn the_chain_is_told_to_who_asks_for_it_and_a_run_that_had_not_begun_is_none() {
        let lost = lost();
        let failure = Failure { begun: false, ..failure(&lost, Left::Nothing) };
        assert!(!error_text(&failure, false).contains("caused by"));
        let lines = error_text(&failure, true);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines[1], "  caused by: connection reset");
        assert!(!lines.iter().any(|line| line.contains(RUN)), "{lines:?}");
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_word("s3://lake/a/"), "s3://lake/a/");
        assert_eq!(shell_word("/tmp/it's here"), r"'/tmp/it'\''s here'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("$HOME"), "'$HOME'");
    }
}
