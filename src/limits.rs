//! Every bound, queue depth and timeout, with its unit and its reason.
//!
//! Peak memory of a run (invariant I6) is at most
//!
//! ```text
//! readers x (READ_BUFFER_BYTES + BATCH_BYTES_MAX + encoder buffer + (upload concurrency + 1) x chunk + 3 x largest row)
//!     + 4 KiB x parts
//! ```
//!
//! where the encoder buffer is one encoded row group for Parquet and one batch's text otherwise.

use std::time::Duration;

/// Free memory that the allocator keeps at the end of each of its heaps: more than a batch. glibc's own bound is 128 KiB
/// until a larger block has been freed, and each batch's memory would go back to the system and come again, page by page:
/// 57,000 page faults for 6 million rows of CSV instead of 6,000.
pub const KEPT_HEAP_BYTES: usize = 2 * 1024 * 1024;

/// Bytes read from the socket before they are handed over to rayon. Each hand-over wakes a thread on either side and
/// leaves an idle one spinning for a while: with 256 KiB, a third of the export's system time went there.
pub const READ_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// Bytes that gather in the kernel before a reader that has been sent a full buffer is woken for more: the server sends
/// 8 KiB at a time, and a wake-up for each of them costs as much as decoding it. Well below half of what Linux lets a
/// socket's buffer grow to (6 MiB), so that the server never waits for it.
pub const READ_LOW_WATER_BYTES: usize = 512 * 1024;

/// A reader that waits for [`READ_LOW_WATER_BYTES`] takes what there is after so long: at the end of a partition no more
/// come.
pub const LOW_WATER_PATIENCE: Duration = Duration::from_millis(10);

/// Fields framed before they are decoded: their places (8 bytes each) and their bytes stay in the processor's cache for
/// all columns.
pub const FRAMED_FIELDS: usize = 8192;

/// A batch ends once its values take this many bytes: what it becomes as text is several times as much, and each reader
/// has both in memory.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;

/// A batch ends at this many rows, so that narrow tables still show progress and cancel quickly.
pub const BATCH_ROWS_MAX: usize = 32 * 1024;

/// The largest single protocol message accepted: PostgreSQL itself allows a row of 1 GiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Events waiting for the front end. A slow terminal slows nothing: progress events are dropped when it is full, the
/// others wait.
pub const EVENT_QUEUE: usize = 256;

/// S3's limit of chunks in one upload is 10,000; sizes are scaled to stay below this.
pub const UPLOAD_CHUNKS_MAX: usize = 9_000;

/// S3's smallest chunk but the last.
pub const UPLOAD_CHUNK_BYTES_MIN: usize = 5 * 1024 * 1024;

/// S3's largest chunk.
pub const UPLOAD_CHUNK_BYTES_MAX: usize = 5 << 30;

/// Bytes that a local staged file takes at once, at least. Past the page cache 2 GB in blocks of 2 MiB cost 0.14 s of
/// system time, in blocks of 1 MiB or less 0.4 s, and the hand-overs to rayon and to a blocking thread do not show. A part
/// has two.
pub const LOCAL_BLOCK_BYTES: usize = 2 << 20;

/// What such a block has room for beyond that: the text of one batch, which ends it. More makes it grow.
pub const LOCAL_BLOCK_ROOM_BYTES: usize = 2 << 20;

/// What memory, offset and length of a write past the page cache are multiples of: no device in use has larger logical
/// blocks.
pub const DIRECT_ALIGN_BYTES: usize = 4096;

/// Bytes read at once from a local file.
pub const STORE_READ_BYTES: usize = 256 * 1024;

/// Below this a buffer is hashed where it is: the hand-over to rayon costs more.
pub const INLINE_CPU_BYTES: usize = 64 * 1024;

/// A request to a store may take this long until its answer begins, or longer where its body is large:
/// [`UPLOAD_RATE_MIN`].
pub const REQUEST_TIMEOUT_MIN: Duration = Duration::from_mins(2);

/// The slowest upload that is waited for, in bytes a second.
pub const UPLOAD_RATE_MIN: usize = 64 * 1024;

/// `object_store` starts no more retries of a request after this long (its default); it has one signature for all of
/// them, which a store takes for five minutes at least.
pub const STORE_RETRY_BUDGET: Duration = Duration::from_mins(3);

/// A TCP and TLS connection to a store; the client tries again within its retry budget.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection attempt, TCP, TLS and authentication together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a configuration, environment, service or password file: far more than anybody writes by hand, so that a wrong
/// name does not fill the memory.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The command that says a connection's password: an answer of a vault or a cloud's token service takes a second or two.
pub const PASSWORD_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a password file, and of what a password command prints: a token of an identity service has a few thousand.
pub const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a password command's standard error that an error repeats: its last lines say why.
pub const PASSWORD_COMMAND_WORDS_MAX: usize = 500;

/// How long the lock session waits behind somebody's ACCESS EXCLUSIVE before it gives way (exit 16): every later query
/// on the table queues behind us as long.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries to list the leaves under a snapshot that was taken after all of them were locked.
pub const SNAPSHOT_TRIES: usize = 3;

/// Between two pings of an idle keeper: below the idle limits of common proxies and of NAT.
pub const KEEPER_PING: Duration = Duration::from_secs(30);

/// After the server had no connection left for a keeper, until it is asked for one again: its other clients come and go.
pub const KEEPER_PAUSE: Duration = Duration::from_secs(30);

/// An answer to a ping: a session that takes longer is taken for lost, and its snapshot's other keeper serves.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A reader that is ready and gets no bytes for so long asks another session what the server is doing: a sort sends
/// nothing for hours and is left alone, a connection that lost its bytes is not.
pub const SOURCE_SILENCE: Duration = Duration::from_mins(1);

/// A connection that looks as if it had lost its bytes gets so long until it is looked at again: they may have been on
/// their way when the server was asked.
pub const SILENCE_RECHECK: Duration = Duration::from_secs(5);

/// Another session's answer to that question, a new connection for it included.
pub const INQUIRY_TIMEOUT: Duration = Duration::from_secs(15);

/// TCP keepalive on every connection to the source: the first probe after so long without a packet, below the idle
/// limits of NAT and of firewalls.
pub const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Between two such probes.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Unanswered probes after which the connection is lost.
pub const TCP_KEEPALIVE_PROBES: u32 = 6;

/// What was sent and not acknowledged for so long loses the connection: as long as the probes take.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(90);

/// Between two looks at who waits for our locks and how far a standby is behind; each costs the server a look through its
/// lock table.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Looks within `--yield-to-ddl`, at least: a run gives way two looks early, so that nobody waits longer.
pub const WATCHES_PER_YIELD: u32 = 8;

/// Looks in a row that must see a standby too far behind, since its own measure jumps after a quiet hour.
pub const LATE_LOOKS: u32 = 3;

/// Reads a second under `--max-bytes-per-second`: a reader that took a whole buffer at once would then rest for long.
pub const PACES_PER_SECOND: u64 = 8;

/// The server drops a keeper whose host died after this long (`idle_in_transaction_session_timeout`).
pub const KEEPER_IDLE_TIMEOUT: Duration = Duration::from_mins(10);

/// The server looks so often whether a client whose query runs is still there (`client_connection_check_interval`): a
/// query that sends nothing for hours ends with a process that was stopped or killed.
pub const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A clean abort (cancel requests, aborted uploads) may take this long; then the process leaves all the same.
pub const ABORT_GRACE: Duration = Duration::from_secs(8);

/// Partitions of one run: names have five digits, and each costs 4 KiB until commit.
pub const PARTITIONS_MAX: u32 = 99_999;

/// An owner that has not said for so long that it is alive is dead: a scheduler that runs a killed export again after a
/// minute finds the destination free. Six renewals, so that a slow store or a busy machine costs nobody its run.
pub const OWNER_LEASE: Duration = Duration::from_mins(1);

/// Between two renewals of `owner.json`, one small request each.
pub const OWNER_RENEWAL: Duration = Duration::from_secs(10);

/// A failed run asks once more whether the destination is still its own, before it removes anything, and waits so long:
/// a clean abort has little time.
pub const OWNER_CHECK: Duration = Duration::from_secs(3);

/// Tries to take a destination that others take at the same time.
pub const OWNER_TRIES: usize = 5;

/// Attempts at a partition that somebody else's lock keeps from being read, or for which the server has no memory.
pub const LOCKED_ATTEMPTS_MAX: u32 = 3;

/// No partition is tried again once its first failure is so long ago.
pub const RETRY_BUDGET: Duration = Duration::from_mins(10);

/// The longest wait before the second attempt; doubled for each further one. The wait itself is random, from none to
/// this, so that readers that failed together do not return together.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);

/// The longest wait before any attempt.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Attempts at one partition by one process, the first included.
pub const ATTEMPTS_MAX: u32 = 5;

/// Numbers of a partition's attempts by one process, each with names of its own: those that fail, those that are given up
/// for want of a connection (one a reader), and the one that stands for an empty relation.
pub const ATTEMPT_NUMBERS: u32 = ATTEMPTS_MAX + READERS_MAX + 1;

/// Between two looks of a keeper outside the run: whether its session lives, whether somebody waits for its locks, and
/// whether its run is over.
pub const KEPT_INTERVAL: Duration = Duration::from_secs(5);

/// Until a detached keeper has imported the snapshot and written that down: a connection and a few requests.
pub const KEEPER_START: Duration = Duration::from_secs(45);

/// One cancel request, connection included; it is a courtesy to the server and never waited for longer.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two looks at the keepers and the lock session: a lost keeper is replaced within seconds.
pub const GUARD_INTERVAL: Duration = Duration::from_secs(1);

/// Views upon views are looked through this deep for the stored column behind a key; deeper ones get no bounds.
pub const VIEW_DEPTH_MAX: usize = 8;

/// Geometries within geometries: as deep as `PostGIS` itself reads them (`LW_PARSER_MAX_DEPTH`).
pub const GEOMETRY_DEPTH_MAX: usize = 200;

/// A capped export is split once a partition has so many rows: below that, connecting costs more than reading.
pub const CAP_PARTITION_ROWS: u64 = 100_000;

/// Between two progress events: what a person can follow.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Objects of a failed run that are removed at the same time: a store answers so many at once without throttling.
pub const DISCARDS_AT_ONCE: usize = 16;
/// Partitions a reader, where the relation is large enough: with one each, all wait for the slowest.
pub const PARTITIONS_PER_READER: u64 = 2;

/// The same under `--source-profile fast`: the last ones are shorter, and so is the wait for the slowest.
pub const PARTITIONS_PER_FAST_READER: u64 = 4;

/// Bytes of heap below which cutting a partition only to keep readers busy costs more in round trips and objects than
/// it gains; a reader takes well under 100 ms for them.
pub const PARTITION_HEAP_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Locks of one session of ours on what the catalog is made of, and on its own transaction: planning looks into most of
/// the catalog's tables, by their indexes.
pub const SESSION_LOCKS: u64 = 64;

/// Leaves that one statement reads, or counts: a round trip to a cloud costs 30 ms, and the server 0.15 ms a leaf whether
/// they come one by one or together.
pub const STATEMENT_LEAVES_MAX: usize = 64;

/// Columns that such a statement selects, those of all its leaves together.
pub const STATEMENT_FIELDS_MAX: usize = 4096;

/// Bytes of heap that are read before a second snapshot keeper would stand: about 10 ms.
pub const SMALL_PLAN_HEAP_BYTES: u64 = 1024 * 1024;

/// Heap bytes per 100 bytes of Parquet: zstd and dictionaries take a row to about a quarter of its tuple.
pub const HEAP_PERCENT_OF_PARQUET: u64 = 400;

/// Heap bytes per 100 bytes of CSV: the text of numbers is longer than their binary form by about the tuple header.
pub const HEAP_PERCENT_OF_CSV: u64 = 100;

/// Heap bytes per 100 bytes of NDJSON: every row repeats the names of its columns.
pub const HEAP_PERCENT_OF_NDJSON: u64 = 50;

/// Names that an error lists before it says how many more there are: a screenful.
pub const NAMES_IN_ERROR_MAX: usize = 40;

/// Partitions that `outhaul plan` lists for people before it says how many more there are; the JSON form has all.
pub const PARTITIONS_SHOWN_MAX: usize = 40;

/// Readers of one run; PostgreSQL serves far fewer connections well.
pub const READERS_MAX: u32 = 256;

/// Connections of a run beside its readers: the lock session and two keepers.
pub const CONTROL_SESSIONS: usize = 3;

/// Chunks of one part in flight; beyond this a store answers no faster.
pub const UPLOAD_CONCURRENCY_MAX: usize = 64;
/// Threads that do IO. Sockets and files wait more than they compute, and all CPU work is on rayon, so two keep up with
/// any number of readers.
pub const IO_THREADS: usize = 2;

/// After [`ABORT_GRACE`], for what the run does once its workers have stopped.
pub const ABORT_MARGIN: Duration = Duration::from_secs(2);

/// Reader bars drawn at once: more would push the totals off a small terminal.
pub const BARS_MAX: usize = 12;

/// Between two redraws of the bars, in which the clock and the rates move even while no event comes.
pub const BAR_REFRESH: Duration = Duration::from_millis(200);

/// Between two plain progress lines: a log of an hour's run stays below a thousand lines.
pub const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Rates shown are taken over about this long: shorter ones jump with every row group.
pub const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Between two writes of `--metrics-file`, and between two upkeeps of the histograms.
pub const METRICS_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of one HTTP request to `--metrics-listen`: a scrape is a request line and a few headers.
pub const METRICS_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// One scrape, from accept to the last byte.
pub const METRICS_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Scrapes at the same time; more wait in the listener's backlog.
pub const METRICS_CONNECTIONS_MAX: usize = 8;

/// Before the responder tries again to accept a connection.
pub const METRICS_ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Rows that `outhaul demo` makes at most: about 100 GB of private tables.
pub const DEMO_ROWS_MAX: u64 = 1_000_000_000;

/// Parts made visible at the same time at commit. One completion is one small request, or one rename with its fsync;
/// the window in which some parts are visible and the manifest is not shrinks with it.
pub const PUBLISHES_AT_ONCE: usize = 16;

/// Tries to write the manifest where reading back shows that nothing was written. The client has its own retries of
/// requests; these are for a store that refuses writers that race, with nothing stored in the end.
pub const MANIFEST_TRIES: u32 = 3;

/// Tries of an upload's request that a store refuses because another one is under way.
pub const CONFLICT_TRIES: u32 = 5;

/// After the first such try; after the nth, n times as long.
pub const CONFLICT_PAUSE: Duration = Duration::from_millis(200);

/// Between two tries to write the manifest.
pub const MANIFEST_PAUSE: Duration = Duration::from_millis(500);

/// Parts that `outhaul verify` looks at, or reads, at the same time.
pub const VERIFIES_AT_ONCE: usize = 8;

/// Findings that `outhaul verify` shows people before it says how many more there are.
pub const FINDINGS_SHOWN_MAX: usize = 40;

/// The largest Parquet footer that is read: 100,000 columns with statistics in 100 row groups stay far below.
pub const PARQUET_FOOTER_BYTES_MAX: u64 = 1 << 30;

/// With whole messages at hand, so long a reader waits for the buffer to fill before it hands over what there is: the
/// server sends far more often than this while it has rows.
pub const FILL_PATIENCE: Duration = Duration::from_millis(20);

/// What to do where the system lets the process open no more files or sockets (`EMFILE`, `ENFILE`).
pub const OPEN_FILES_HINT: &str =
    "the process may open no more files and connections: raise `ulimit -n`, or take fewer --readers";
