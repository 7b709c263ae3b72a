//! Stage 3, ENCODE: batches become the bytes of one part. Synchronous, without IO (invariant I8).

mod chunk;
mod compress;
#[cfg(test)]
mod conformance;
mod csv;
mod folders;
mod lines;
mod ndjson;
mod order;
mod parquet;
#[cfg(test)]
mod preset_tests;
mod protect;
mod row_group;
#[cfg(test)]
pub(crate) mod samples;
mod steer;
mod tally;
mod text;
mod verbatim;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::model::{ColumnPlan, Format, FormatOptions};
pub(crate) use compress::Compressor;
pub(crate) use folders::{FolderRows, FolderSplit};
use lines::{LineEncoder, Rows};
pub(crate) use order::sorted_columns;
pub(crate) use protect::{ColumnGuard, ProtectKey, guarded};
pub use tally::Tally;
pub(crate) use verbatim::bytes_of;

/// Turns the batches of one part into bytes.
///
/// Concatenating everything ever appended to `out` gives the object. An encoder that returned an error is spent: its
/// bytes are thrown away with the part.
pub trait Encoder: Send + std::fmt::Debug {
    /// Appends what this batch adds, which may be nothing while the format buffers.
    ///
    /// # Errors
    /// A value that the format cannot hold.
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Estimated encoded bytes held back so far, for memory bounds and part rolling.
    fn buffered_bytes(&self) -> usize;

    /// Appends the rest and ends the part.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    fn finish(self: Box<Self>, out: &mut Vec<u8>) -> Result<EncodeSummary, EncodeError>;
}

/// The encoder of one part, which may be `joinable` with others: whoever joins them can cut off its header. Cheap:
/// nothing is written before the first batch or the end.
///
/// # Errors
/// A codec or level that the format does not have.
pub fn encoder(
    options: &FormatOptions,
    columns: &Arc<[ColumnPlan]>,
    joinable: bool,
) -> Result<Box<dyn Encoder>, EncodeError> {
    let rows = match options.format {
        Format::Parquet => return Ok(Box::new(parquet::ParquetEncoder::new(options, Arc::clone(columns))?)),
        Format::Csv => Rows::Csv(csv::CsvRows::new(&options.csv, columns)),
        Format::Ndjson => Rows::Ndjson(ndjson::NdjsonRows::new(columns)),
        Format::Source => return Ok(Box::new(verbatim::VerbatimEncoder)),
    };
    let compressor = Compressor::new(options.compression, options.format)?;
    Ok(Box::new(LineEncoder::new(Arc::clone(columns), rows, compressor, joinable)))
}

/// A length as a count of rows or bytes.
pub(crate) fn count(length: usize) -> u64 {
    // No machine counts in memory beyond 64 bits.
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What an encoder knows of the part it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeSummary {
    /// Data rows in the part; `None` where nobody counts them.
    pub rows: Option<u64>,
    /// Header lines in front of them (CSV), 0 or 1.
    pub header_rows: u32,
    /// Bytes of the object that the header takes, after compression; 0 where it shares a frame with the rows.
    pub header_bytes: u64,
    /// For each column how many of its values the encoder changed, as a policy asks; empty where none.
    pub changed: Box<[u64]>,
}

/// An error while encoding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The Parquet writer refused a batch.
    #[error("writing Parquet")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// A codec that exists only inside Parquet, asked for around text.
    #[error("{codec} compression exists only for parquet, not for {format:?}: choose none, gzip or zstd")]
    CodecOfParquet {
        /// The codec's name.
        codec: &'static str,
        /// The text format.
        format: Format,
    },
    /// A compressor failed.
    #[error("compressing with {codec}")]
    Compress {
        /// The codec's name.
        codec: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Rows could not be sorted into their folders.
    #[error("sorting rows into their folders")]
    Folders(#[source] arrow::error::ArrowError),
    /// Columns could not be put together again.
    #[error("protecting columns")]
    Columns(#[source] arrow::error::ArrowError),
    /// A value that the format has no words for.
    #[error("column {column:?}: {reason}")]
    Unrepresentable {
        /// The output column.
        column: String,
        /// What the value is.
        reason: String,
        /// Which flag decides on it.
        hint: String,
    },
    /// The batch is not of the planned types: a bug in the source.
    #[error("column {column:?} arrived as {found} where the plan says {expected}")]
    WrongCarrier {
        /// The output column.
        column: String,
        /// The Arrow type that arrived.
        found: String,
        /// The Arrow type of the plan.
        expected: String,
    },
}

impl EncodeError {
    /// What to do, where it is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unrepresentable { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }
}
