//! Bytes of a format of the source's own: each batch has one column of bytes, and they go on as they came.

use arrow::array::{Array as _, BinaryArray};
use arrow::record_batch::RecordBatch;

use super::{EncodeError, EncodeSummary, Encoder};

#[derive(Debug)]
pub(super) struct VerbatimEncoder;

/// The bytes of a batch, one value after the other.
///
/// # Errors
/// The batch is not one column of bytes without NULLs: a bug in the source.
pub(crate) fn bytes_of(batch: &RecordBatch) -> Result<&BinaryArray, EncodeError> {
    let bytes = match batch.columns() {
        [column] => column.as_any().downcast_ref::<BinaryArray>().filter(|bytes| bytes.null_count() == 0),
        _ => None,
    };
    bytes.ok_or_else(|| EncodeError::WrongCarrier {
        column: "bytes".to_owned(),
        found: format!("{:?}", batch.schema().fields()),
        expected: "one column of bytes without NULLs".to_owned(),
    })
}

impl Encoder for VerbatimEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let bytes = bytes_of(batch)?;
        for value in bytes {
            out.extend_from_slice(value.unwrap_or_default());
        }
        Ok(())
    }

    fn buffered_bytes(&self) -> usize {
        0
    }

    fn finish(self: Box<Self>, _: &mut Vec<u8>) -> Result<EncodeSummary, EncodeError> {
        Ok(EncodeSummary { rows: None, header_rows: 0, header_bytes: 0, changed: Box::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("bytes", column)]).unwrap()
    }

    #[test]
    fn bytes_go_on_as_they_came_and_nothing_else_does() {
        let mut out = b"before ".to_vec();
        let values: ArrayRef = Arc::new(BinaryArray::from_iter_values([&b"a\0\xff"[..], b"", b"b"]));
        VerbatimEncoder.encode(&batch(values), &mut out).unwrap();
        let summary = Box::new(VerbatimEncoder).finish(&mut out).unwrap();
        assert_eq!((out.as_slice(), summary.rows), (&b"before a\0\xffb"[..], None));
        let null: ArrayRef = Arc::new(BinaryArray::from_iter([Some(&b"a"[..]), None]));
        for wrong in [Arc::new(StringArray::from_iter_values(["a"])) as ArrayRef, null] {
            assert!(matches!(bytes_of(&batch(wrong)), Err(EncodeError::WrongCarrier { .. })));
        }
    }
}
