//! Logs and metrics: how records are written, what the metrics are called, and who may read them.
//!
//! Records and metrics carry no secrets and no row values (invariant I9). Each metric of a run has the labels `relation`
//! and `to`, the destination as it was written, `{date}` unexpanded: one series a nightly export, whatever the night. The
//! run's id stands on one metric alone.

pub(crate) mod exporter;
mod prose;
pub(crate) mod serving;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use prose::Prose;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Rows that came from the source, those of failed attempts included.
pub(crate) const ROWS_READ: &str = "outhaul_rows_read_total";
/// Rows encoded, those of failed attempts included.
pub(crate) const ROWS_ENCODED: &str = "outhaul_rows_encoded_total";
/// Encoded bytes that the destination accepted.
pub(crate) const BYTES_WRITTEN: &str = "outhaul_bytes_written_total";
/// Partitions with a receipt.
pub(crate) const PARTITIONS_COMPLETED: &str = "outhaul_partitions_completed_total";
/// Attempts at a partition after its first.
pub(crate) const PARTITION_RETRIES: &str = "outhaul_partition_retries_total";
/// From a part's first byte to its last being accepted.
pub(crate) const PART_UPLOAD_SECONDS: &str = "outhaul_part_upload_seconds";
/// Readers that have a partition now.
pub(crate) const READERS_ACTIVE: &str = "outhaul_readers_active";
/// Times that keeper B took over a lost snapshot.
pub(crate) const KEEPER_PROMOTIONS: &str = "outhaul_keeper_promotions_total";
/// Exports that ended; label `outcome`: complete, truncated, failed, cancelled.
pub(crate) const EXPORTS: &str = "outhaul_exports_total";
/// From start to end of an export, however it ended.
pub(crate) const EXPORT_DURATION_SECONDS: &str = "outhaul_export_duration_seconds";
/// 1 with the labels `run_id` and `version`.
pub(crate) const RUN_INFO: &str = "outhaul_run_info";
/// 1 while a run lasts, 0 once it has ended.
pub(crate) const RUNNING: &str = "outhaul_running";
/// When the run began, in seconds since 1970.
pub(crate) const RUN_START: &str = "outhaul_run_start_timestamp_seconds";
/// The exit code of the run, once it has ended.
pub(crate) const EXIT_CODE: &str = "outhaul_exit_code";
/// How long the run has held its snapshot; 0 without one.
pub(crate) const SNAPSHOT_AGE: &str = "outhaul_snapshot_age_seconds";
/// When an export last committed, in seconds since 1970; what an alert on a nightly export looks at.
pub(crate) const LAST_COMMIT: &str = "outhaul_last_commit_timestamp_seconds";

/// Upper ends of the histogram buckets for uploads of one part, in seconds.
const PART_BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Upper ends of the histogram buckets for exports, in seconds.
const EXPORT_BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

/// How an export ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    Truncated,
    Failed,
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Complete, Self::Truncated, Self::Failed, Self::Cancelled];

    fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Gives every metric its description and unit, and every counter its zero: a rate over a counter that appears with its
/// first increment misses that increment.
fn describe() {
    let counters = [
        (ROWS_READ, Unit::Count, "Rows that came from the source"),
        (ROWS_ENCODED, Unit::Count, "Rows encoded"),
        (BYTES_WRITTEN, Unit::Bytes, "Encoded bytes that the destination accepted"),
        (PARTITIONS_COMPLETED, Unit::Count, "Partitions uploaded whole"),
        (PARTITION_RETRIES, Unit::Count, "Attempts at a partition after its first"),
        (KEEPER_PROMOTIONS, Unit::Count, "Times that the second keeper took over a lost snapshot"),
    ];
    for (name, unit, description) in counters {
        describe_counter!(name, unit, description);
        counter!(name).increment(0);
    }
    describe_counter!(EXPORTS, Unit::Count, "Exports that ended, by outcome");
    for outcome in Outcome::ALL {
        counter!(EXPORTS, "outcome" => outcome.label()).increment(0);
    }
    describe_gauge!(READERS_ACTIVE, Unit::Count, "Readers that have a partition now");
    gauge!(READERS_ACTIVE).set(0.0);
    describe_gauge!(RUN_INFO, Unit::Count, "The run's id and the program's version");
    describe_gauge!(RUNNING, Unit::Count, "1 while a run lasts");
    describe_gauge!(RUN_START, Unit::Seconds, "When the run began, since 1970");
    describe_gauge!(EXIT_CODE, Unit::Count, "The exit code of the run, once it has ended");
    describe_gauge!(SNAPSHOT_AGE, Unit::Seconds, "How long the run has held its snapshot");
    describe_gauge!(LAST_COMMIT, Unit::Seconds, "When an export last committed, since 1970");
    describe_histogram!(PART_UPLOAD_SECONDS, Unit::Seconds, "From a part's first byte to its last being accepted");
    describe_histogram!(EXPORT_DURATION_SECONDS, Unit::Seconds, "From start to end of an export");
}

/// Counts rows that came from the source; once a batch.
pub(crate) fn rows_read(rows: u64) {
    counter!(ROWS_READ).increment(rows);
}

/// Counts encoded rows; once a batch.
pub(crate) fn rows_encoded(rows: u64) {
    counter!(ROWS_ENCODED).increment(rows);
}

/// Counts bytes that the destination accepted; once a chunk or part.
pub(crate) fn bytes_written(bytes: u64) {
    counter!(BYTES_WRITTEN).increment(bytes);
}

/// Counts a part that is uploaded whole.
pub(crate) fn part_uploaded(took: Duration) {
    histogram!(PART_UPLOAD_SECONDS).record(took.as_secs_f64());
}

/// Counts a partition that has its receipt.
pub(crate) fn partition_completed() {
    counter!(PARTITIONS_COMPLETED).increment(1);
}

/// Counts a further attempt at a partition.
pub(crate) fn partition_retried() {
    counter!(PARTITION_RETRIES).increment(1);
}

/// Says how many readers have a partition.
pub(crate) fn readers_active(readers: u32) {
    gauge!(READERS_ACTIVE).set(f64::from(readers));
}

/// Counts keeper B taking over.
pub(crate) fn keeper_promoted() {
    counter!(KEEPER_PROMOTIONS).increment(1);
}

/// When the process's run took its snapshot, while it holds one.
static SNAPSHOT: Mutex<Option<Instant>> = Mutex::new(None);

fn snapshot() -> MutexGuard<'static, Option<Instant>> {
    SNAPSHOT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes when the run took its snapshot.
pub(crate) fn snapshot_taken(at: Option<Instant>) {
    *snapshot() = at;
}

/// Says how old the snapshot is now; before metrics are read.
fn refresh_age() {
    gauge!(SNAPSHOT_AGE).set(snapshot().map_or(0.0, |taken| taken.elapsed().as_secs_f64()));
}

/// Says that a run has begun.
pub(crate) fn run_began() {
    gauge!(RUNNING).set(1.0);
    gauge!(RUN_START).set(since_1970());
}

/// Says which run it is.
pub(crate) fn run_named(run_id: &str) {
    gauge!(RUN_INFO, "run_id" => run_id.to_owned(), "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Says that the run has ended, and how.
pub(crate) fn run_ended(exit_code: u8) {
    gauge!(RUNNING).set(0.0);
    gauge!(EXIT_CODE).set(f64::from(exit_code));
    snapshot_taken(None);
}

fn since_1970() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Counts an export that ended.
pub(crate) fn export_ended(outcome: Outcome, took: Duration) {
    counter!(EXPORTS, "outcome" => outcome.label()).increment(1);
    histogram!(EXPORT_DURATION_SECONDS).record(took.as_secs_f64());
    if matches!(outcome, Outcome::Complete | Outcome::Truncated) {
        gauge!(LAST_COMMIT).set(since_1970());
    }
}

/// The form of a log record (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which records are written: `-q` errors, by default warnings, then `-v` `-vv` `-vvv`. Libraries stay at warnings, at
/// `-vvv` at information: below that some of them log statements and headers.
fn filter(verbosity: i8) -> Targets {
    let (own, libraries) = match verbosity {
        ..=-1 => (LevelFilter::ERROR, LevelFilter::ERROR),
        0 => (LevelFilter::WARN, LevelFilter::WARN),
        1 => (LevelFilter::INFO, LevelFilter::WARN),
        2 => (LevelFilter::DEBUG, LevelFilter::WARN),
        3.. => (LevelFilter::TRACE, LevelFilter::INFO),
    };
    Targets::new().with_default(libraries).with_target("outhaul", own)
}

/// Sends log records to `writer`; `verbosity` is the number of `-v`, or -1 for `-q`. A second call changes nothing.
pub(crate) fn start_logs<W>(format: LogFormat, verbosity: i8, color: bool, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let records = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(color).log_internal_errors(false);
    let prose = format == LogFormat::Text && verbosity <= 0;
    let registry = tracing_subscriber::registry().with(filter(verbosity));
    // Fails only where logs have been started before.
    drop(match format {
        LogFormat::Text if prose => registry.with(records.event_format(Prose)).try_init(),
        LogFormat::Text => registry.with(records).try_init(),
        LogFormat::Json => registry.with(records.json().flatten_event(true)).try_init(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_chooses_levels_and_libraries_never_show_their_statements() {
        use tracing::Level;
        let shown = |verbosity, target, level| filter(verbosity).would_enable(target, &level);
        let cases = [
            (-1, "outhaul::export", Level::ERROR, true),
            (-1, "outhaul::export", Level::WARN, false),
            (0, "outhaul::export", Level::WARN, true),
            (0, "outhaul::export", Level::INFO, false),
            (1, "outhaul::export", Level::INFO, true),
            (2, "outhaul::export", Level::DEBUG, true),
            (3, "outhaul::export", Level::TRACE, true),
            (0, "tokio_postgres::query", Level::WARN, true),
            (3, "tokio_postgres::query", Level::INFO, true),
            (100, "tokio_postgres::query", Level::DEBUG, false),
        ];
        for (verbosity, target, level, expected) in cases {
            assert_eq!(shown(verbosity, target, level), expected, "{verbosity} {target} {level}");
        }
    }
}
