//! The bytes of one `ArrowStream` become batches of the plan. CPU work, without IO.

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::convert::{ConvertError, converted};
use crate::base::memory::BATCH_BYTES_MAX;
use crate::model::ColumnPlan;
use crate::source::{Batch, SourceError, SourceFault};

/// What the decoder says of bytes behind the end.
const BEHIND_END: &str = "Unexpected EOS";

/// Why the bytes are no rows of the plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArrowDecodeError {
    /// They are no `ArrowStream`.
    #[error("the answer is no ArrowStream")]
    Stream(#[source] ArrowError),
    /// They end before the end that an `ArrowStream` has.
    #[error("the answer ends without the mark that ends an ArrowStream")]
    NoEnd,
    /// They go on behind it.
    #[error("the answer goes on behind the end of its ArrowStream")]
    BehindEnd,
    /// They are rows of something else.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl ArrowDecodeError {
    /// As a source's error, with what was being done.
    pub(crate) fn while_doing(self, doing: &str) -> SourceError {
        let (fault, hint) = match &self {
            // A cut answer is told by its transport; here only a proxy can have repaired its end.
            Self::NoEnd => (SourceFault::Unavailable, None),
            Self::Stream(_) | Self::BehindEnd | Self::Convert(ConvertError::Arrow { .. }) => {
                (SourceFault::Protocol, None)
            }
            Self::Convert(ConvertError::Columns { .. } | ConvertError::Type { .. }) => {
                (SourceFault::SchemaChanged, Some("the relation was changed while it was read: export it again"))
            }
            Self::Convert(ConvertError::Utf8 { .. }) => {
                let hint = "--invalid-utf8 replace writes U+FFFD, --invalid-utf8 bytes the bytes; --column-policy says it \
                    for one column";
                (SourceFault::Data, Some(hint))
            }
            Self::Convert(ConvertError::NotFinite { .. }) => {
                (SourceFault::Data, Some("--json-nan string writes it as a string, --json-nan null as null"))
            }
            Self::Convert(ConvertError::TooFine { .. }) => {
                (SourceFault::Data, Some("--timestamp-precision ms rounds it, us keeps it"))
            }
        };
        let error = SourceError::new(fault, doing).with_source(self);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// Takes an `ArrowStream` apart as it comes.
#[derive(Debug)]
pub(crate) struct ArrowRows {
    decoder: StreamDecoder,
    columns: Arc<[ColumnPlan]>,
}

impl ArrowRows {
    pub(crate) fn new(columns: Arc<[ColumnPlan]>) -> Self {
        Self { decoder: StreamDecoder::new(), columns }
    }

    /// The batches that the next bytes complete, none of them much larger than a batch may be.
    pub(crate) fn take(&mut self, chunks: Vec<Bytes>) -> Result<Vec<Batch>, ArrowDecodeError> {
        let mut batches = Vec::new();
        for chunk in chunks {
            let mut buffer = Buffer::from(chunk);
            while !buffer.is_empty() {
                match self.decoder.decode(&mut buffer) {
                    Ok(Some(batch)) => self.add(&batch, &mut batches)?,
                    Ok(None) => {}
                    Err(ArrowError::IpcError(why)) if why == BEHIND_END => return Err(ArrowDecodeError::BehindEnd),
                    Err(error) => return Err(ArrowDecodeError::Stream(error)),
                }
            }
        }
        Ok(batches)
    }

    /// All bytes have come.
    ///
    /// # Errors
    /// [`ArrowDecodeError::NoEnd`]: the decoder takes a cut between two messages for an end, so it is asked whether it would take
    /// another byte.
    pub(crate) fn finish(mut self) -> Result<(), ArrowDecodeError> {
        let whole = self.decoder.finish().is_ok();
        let takes_more = self.decoder.decode(&mut Buffer::from(&[0_u8])).is_ok();
        if whole && !takes_more { Ok(()) } else { Err(ArrowDecodeError::NoEnd) }
    }

    fn add(&self, batch: &RecordBatch, batches: &mut Vec<Batch>) -> Result<(), ArrowDecodeError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let (whole, changed) = converted(batch, &self.columns)?;
        let bytes = whole.get_array_memory_size().max(1);
        let most = rows.saturating_mul(BATCH_BYTES_MAX).checked_div(bytes).unwrap_or(rows).clamp(1, rows);
        let mut changed = changed.into_boxed_slice();
        let mut from = 0;
        while from < rows {
            let length = most.min(rows - from);
            // Counted once, with the first piece.
            let counts = std::mem::take(&mut changed);
            batches.push(Batch {
                rows: whole.slice(from, length),
                changed: counts,
                beyond_cap: false,
                is_followed: false,
            });
            from += length;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
