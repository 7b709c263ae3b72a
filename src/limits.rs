//! Every bound, queue depth and timeout, with its unit and its reason.
//!
//! Peak memory of a run (invariant I6) is at most
//! `readers x (READ_BUFFER_BYTES + BATCH_BYTES_MAX + encoder buffer + (upload concurrency + 1) x chunk + 3 x largest row)
//! + 4 KiB x parts`, where the encoder buffer is one encoded row group for Parquet and one batch's text otherwise.

use std::time::Duration;

/// Bytes read from the socket before they are framed and decoded: the server flushes 8 KiB at a time, so larger
/// buffers save system calls and hand-overs to rayon; past 256 KiB nothing is gained.
pub const READ_BUFFER_BYTES: usize = 256 * 1024;

/// A batch ends once its values take this many bytes, far below what 32-bit offsets can address.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A batch ends at this many rows, so that narrow tables still show progress and cancel quickly.
pub const BATCH_ROWS_MAX: usize = 32 * 1024;

/// The largest single protocol message accepted: PostgreSQL itself allows a row of 1 GiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Events waiting for the front end. A slow terminal slows nothing: progress events are dropped when it is full, the
/// others wait.
pub const EVENT_QUEUE: usize = 256;

/// Messages from workers waiting for the coordinator; each worker sends a few a second.
pub const WORKER_QUEUE: usize = 64;

/// S3's limit of chunks in one upload is 10,000; sizes are scaled to stay below this.
pub const UPLOAD_CHUNKS_MAX: usize = 9_000;

/// S3's smallest chunk but the last.
pub const UPLOAD_CHUNK_BYTES_MIN: usize = 5 * 1024 * 1024;

/// One connection attempt, TCP, TLS and authentication together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the lock session waits behind somebody's ACCESS EXCLUSIVE before it gives way (exit 16): every later query
/// on the table queues behind us as long.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries to list the leaves under a snapshot that was taken after all of them were locked.
pub const SNAPSHOT_TRIES: usize = 3;

/// Between two pings of an idle keeper: below the idle limits of common proxies and of NAT.
pub const KEEPER_PING: Duration = Duration::from_secs(30);

/// The server drops a keeper whose host died after this long (`idle_in_transaction_session_timeout`).
pub const KEEPER_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A clean abort (cancel requests, aborted uploads) may take this long; then the process leaves all the same.
pub const ABORT_GRACE: Duration = Duration::from_secs(8);

/// Partitions of one run: names have five digits, and each costs 4 KiB until commit.
pub const PARTITIONS_MAX: u32 = 99_999;

/// One cancel request, connection included; it is a courtesy to the server and never waited for longer.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two looks at the keepers and the lock session: a lost keeper is replaced within seconds.
pub const GUARD_INTERVAL: Duration = Duration::from_secs(1);
