//! The metrics of a service: who has a stream, what was refused and why, and what it takes.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Streams and questions that are under way.
const STREAMS: &str = "outhaul_service_streams";
/// Streams that ended; label `outcome`, as their receipts have it.
const STREAMS_ENDED: &str = "outhaul_service_streams_total";
/// Requests that were refused; label `code`, as their problems have it.
const REFUSED: &str = "outhaul_service_refused_total";
/// Bytes of bodies that were handed to connections, as they are coded.
const BYTES_SENT: &str = "outhaul_service_bytes_total";
/// Memory that streams and jobs have reserved.
const MEMORY_RESERVED: &str = "outhaul_service_memory_reserved_bytes";
/// The budget of it.
const MEMORY: &str = "outhaul_service_memory_bytes";

/// Exports in the background that have not ended; label `status`.
const JOBS: &str = "outhaul_service_jobs";
/// Exports in the background that this process ended; label `status`, as their records have it.
const JOBS_ENDED: &str = "outhaul_service_jobs_total";
/// Whether the state store told the length of the queue when it was asked last: 1 or 0.
const QUEUE_KNOWN: &str = "outhaul_service_queue_known";
/// How long ago the lease was renewed whose renewal is the longest ago.
const LEASE_AGE: &str = "outhaul_service_lease_age_seconds";

/// The ends of exports in the background.
const ENDS: [&str; 5] = ["complete", "truncated", "failed", "cancelled", "expired"];
/// Outcomes and codes that an alert may look at: they are there from the start.
const OUTCOMES: [&str; 4] = ["complete", "truncated", "failed", "cancelled"];
const CODES: [&str; 2] = ["busy", "too_many_requests"];

/// What a service takes at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) streams: u32,
    pub(crate) memory_reserved: u64,
    pub(crate) memory: u64,
}

/// The queue of exports in the background, of all processes that share it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLength {
    pub(crate) queued: u64,
    pub(crate) running: u64,
    pub(crate) cancelling: u64,
    /// Zero where nothing runs.
    pub(crate) oldest_lease: Duration,
}

/// Gives the metrics of a service their descriptions and their zeros.
pub(crate) fn describe() {
    describe_gauge!(STREAMS, Unit::Count, "Streams and questions that are under way");
    describe_counter!(STREAMS_ENDED, Unit::Count, "Streams that ended, by outcome");
    for outcome in OUTCOMES {
        counter!(STREAMS_ENDED, "outcome" => outcome).increment(0);
    }
    describe_counter!(REFUSED, Unit::Count, "Requests that were refused, by code");
    for code in CODES {
        counter!(REFUSED, "code" => code).increment(0);
    }
    describe_counter!(BYTES_SENT, Unit::Bytes, "Bytes of bodies that were handed to connections");
    counter!(BYTES_SENT).increment(0);
    describe_gauge!(MEMORY_RESERVED, Unit::Bytes, "Memory that streams and jobs have reserved");
    describe_gauge!(MEMORY, Unit::Bytes, "Memory that they may reserve");
    describe_gauge!(
        JOBS,
        Unit::Count,
        "Exports in the background that have not ended, by status, when the state store answered last"
    );
    describe_gauge!(
        QUEUE_KNOWN,
        Unit::Count,
        "1 where the state store answers, 0 where the length of the queue is an old one"
    );
    describe_gauge!(
        LEASE_AGE,
        Unit::Seconds,
        "Since the renewal, the longest ago, of the lease of an export that runs"
    );
    describe_counter!(JOBS_ENDED, Unit::Count, "Exports in the background that this process ended, by status");
    for status in ENDS {
        counter!(JOBS_ENDED, "status" => status).increment(0);
    }
}

/// Says how long the queue is; without it, that nobody knows: what is told of it stays then as it was.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no queue is so long")]
pub(crate) fn queue(length: Option<QueueLength>) {
    gauge!(QUEUE_KNOWN).set(if length.is_some() { 1.0 } else { 0.0 });
    let Some(length) = length else { return };
    gauge!(JOBS, "status" => "queued").set(length.queued as f64);
    gauge!(JOBS, "status" => "running").set(length.running as f64);
    gauge!(JOBS, "status" => "cancelling").set(length.cancelling as f64);
    gauge!(LEASE_AGE).set(length.oldest_lease.as_secs_f64());
}

/// Counts an export in the background that has ended.
pub(crate) fn job_ended(status: &'static str) {
    counter!(JOBS_ENDED, "status" => status).increment(1);
}

/// Says what is taken now; before metrics are read.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and nobody reads the last bytes of it")]
pub(crate) fn usage(usage: Usage) {
    gauge!(STREAMS).set(f64::from(usage.streams));
    gauge!(MEMORY_RESERVED).set(usage.memory_reserved as f64);
    gauge!(MEMORY).set(usage.memory as f64);
}

/// Counts a stream that has ended.
pub(crate) fn stream_ended(outcome: &'static str) {
    counter!(STREAMS_ENDED, "outcome" => outcome).increment(1);
}

/// Counts a request that was refused.
pub(crate) fn refused(code: &'static str) {
    counter!(REFUSED, "code" => code).increment(1);
}

/// Counts bytes that were handed to a connection.
pub(crate) fn bytes_sent(bytes: usize) {
    counter!(BYTES_SENT).increment(u64::try_from(bytes).unwrap_or(u64::MAX));
}
