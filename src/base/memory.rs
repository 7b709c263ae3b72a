//! What bounds the memory of a run (invariant I6). Its peak is at most
//!
//! ```text
//! readers x (READ_BUFFER_BYTES + BATCHES_AT_ONCE x BATCH_BYTES_MAX + open parts x (encoder buffer + (upload concurrency + 1) x chunk)
//!     + 3 x largest row) + 4 KiB x parts
//! ```
//!
//! where a reader has one open part, or as many as `--open-parts` says where `--partition-by` puts its rows into folders, and
//! the encoder buffer is one encoded row group for Parquet and one batch's text otherwise. A stream of the service
//! has pages in memory as well, and pieces on their way to the client instead of chunks. A process that carries out several
//! runs admits them by this formula: `base::budget`.

/// Bytes read from the socket before they are handed over to rayon. Each hand-over wakes a thread on either side and
/// leaves an idle one spinning for a while: with 256 KiB, a third of the export's system time went there.
pub(crate) const READ_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// A batch ends once its values take this many bytes: what it becomes as text is several times as much, and each reader
/// has both in memory.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Batches that are decoded, and then encoded, before a thread hands over to another. A hand-over wakes a thread and leaves
/// an idle one spinning for a while, which for each batch took a tenth of the export's time.
pub(crate) const BATCHES_AT_ONCE: usize = 4;

/// A batch as text: numbers and dates grow, and NDJSON repeats the names of the columns.
pub(crate) const BATCH_TEXT_BYTES: usize = 2 * BATCH_BYTES_MAX;

/// The largest row of a run whose rows have no limit, as its reservation supposes it.
pub(crate) const ROW_BYTES_SUPPOSED: u64 = 1024 * 1024;

/// What a part costs until the commit.
pub(crate) const PART_BYTES: u64 = 4 * 1024;

/// Parts of a run whose number is not said, as its reservation supposes them.
pub(crate) const PARTS_SUPPOSED: u32 = 1_000;

/// Pieces of a stream's text that are in memory at the same time: one before the export's channel, one in it, one in the
/// service's, one at the connection.
pub(crate) const STREAM_PIECES: u64 = 4;

/// The window and the output of a compressor.
pub(crate) const COMPRESSOR_BYTES: u64 = 1024 * 1024;

/// The largest single protocol message accepted: PostgreSQL itself allows a row of 1 GiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Partitions of one run: names have five digits, and each costs 4 KiB until commit.
pub(crate) const PARTITIONS_MAX: u32 = 99_999;

/// Readers of one run; PostgreSQL serves far fewer connections well.
pub(crate) const READERS_MAX: u32 = 256;

/// Parts that a reader writes at the same time: each has a buffer and an upload of its own.
pub(crate) const OPEN_PARTS_MAX: usize = 256;

/// Chunks of one part in flight; beyond this a store answers no faster.
pub(crate) const UPLOAD_CONCURRENCY_MAX: usize = 64;

/// Bytes of the body of a request to the service: filters are short.
pub(crate) const REQUEST_BODY_BYTES_MAX: usize = 8 * 1024;

/// Those of one that carries a statement: ClickHouse takes statements up to this length unless told otherwise.
pub(crate) const STATEMENT_BODY_BYTES_MAX: usize = 256 * 1024;

/// Those of one that carries a signed text of ours, which has such a body in it.
pub(crate) const SIGNED_BODY_BYTES_MAX: usize = 24 * 1024;

/// So long a client has for them.
pub(crate) const REQUEST_BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Bytes of the head of a request; also what one connection of HTTP/1.1 holds of a response that is not sent yet.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;

/// What one stream of HTTP/2 holds of a response that is not sent yet, beside the piece that it was given.
pub(crate) const CONNECTION_SEND_BYTES: usize = 64 * 1024;

/// What a client may send ahead on one stream of HTTP/2: more than the largest body.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same of all streams of a connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// The answer to a question that is no stream: an estimate, the buckets of an analysis.
pub(crate) const ANSWER_BYTES: u64 = 1024 * 1024;

/// Streams of HTTP/2 on one connection.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 32;

/// What the formula is made of, of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunMemory {
    pub(crate) readers: u64,
    /// Bytes that each of them keeps of rows that are not encoded yet, beside a batch.
    pub(crate) page: u64,
    /// Parts that each of them writes at the same time.
    pub(crate) open_parts: u64,
    /// The buffer of a part's encoder.
    pub(crate) encoder: u64,
    /// Bytes on their way from it.
    pub(crate) on_their_way: u64,
    pub(crate) largest_row: u64,
    pub(crate) parts: u64,
}

impl RunMemory {
    /// The peak of the run.
    pub(crate) const fn peak(self) -> u64 {
        let fixed = (READ_BUFFER_BYTES + BATCHES_AT_ONCE * BATCH_BYTES_MAX) as u64;
        let rows = self.largest_row.saturating_mul(3);
        let part = self.encoder.saturating_add(self.on_their_way);
        let reader = fixed.saturating_add(self.page).saturating_add(part.saturating_mul(self.open_parts));
        let readers = reader.saturating_add(rows).saturating_mul(self.readers);
        readers.saturating_add(self.parts.saturating_mul(PART_BYTES))
    }
}
