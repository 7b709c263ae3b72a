//! What bounds the memory of a run (invariant I6). Its peak is at most
//!
//! ```text
//! readers x (READ_BUFFER_BYTES + BATCH_BYTES_MAX + encoder buffer + (upload concurrency + 1) x chunk + 3 x largest row)
//!     + 4 KiB x parts
//! ```
//!
//! where the encoder buffer is one encoded row group for Parquet and one batch's text otherwise.

/// Bytes read from the socket before they are handed over to rayon. Each hand-over wakes a thread on either side and
/// leaves an idle one spinning for a while: with 256 KiB, a third of the export's system time went there.
pub(crate) const READ_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// A batch ends once its values take this many bytes: what it becomes as text is several times as much, and each reader
/// has both in memory.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// The largest single protocol message accepted: PostgreSQL itself allows a row of 1 GiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Partitions of one run: names have five digits, and each costs 4 KiB until commit.
pub(crate) const PARTITIONS_MAX: u32 = 99_999;

/// Readers of one run; PostgreSQL serves far fewer connections well.
pub(crate) const READERS_MAX: u32 = 256;

/// Chunks of one part in flight; beyond this a store answers no faster.
pub(crate) const UPLOAD_CONCURRENCY_MAX: usize = 64;

/// Bytes of the body of a request to the service: filters are short.
pub(crate) const REQUEST_BODY_BYTES_MAX: usize = 8 * 1024;

/// Those of one that carries a signed text of ours, which has such a body in it.
pub(crate) const SIGNED_BODY_BYTES_MAX: usize = 24 * 1024;

/// So long a client has for them.
pub(crate) const REQUEST_BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Bytes of the head of a request; also what one connection of HTTP/1.1 holds of a response that is not sent yet.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;

/// What one stream of HTTP/2 holds of a response that is not sent yet.
pub(crate) const CONNECTION_SEND_BYTES: usize = 64 * 1024;

/// Streams of HTTP/2 on one connection.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 32;
