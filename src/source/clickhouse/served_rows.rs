//! Rows for somebody who waits for them and may be slow: one statement, small blocks, and no row beyond a size.

use std::num::NonZeroU64;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;

use crate::base::failpoint;
use crate::model::ErrorCode;
use crate::source::{SourceError, SourceFault};

/// Threads of the server for one such statement: many callers share it.
pub(super) const THREADS: u64 = 4;

/// A block is wholly in memory, whatever its rows have.
pub(super) const BLOCK_ROWS: (&str, &str) = ("max_block_size", "2048");

/// Refuses a row that is larger than these bytes; `None` is no limit.
///
/// # Errors
/// [`SourceFault::Data`].
pub(super) fn check(rows: &RecordBatch, most: Option<NonZeroU64>, doing: &str) -> Result<(), SourceError> {
    let Some(most) = most.filter(|_| !failpoint::off("row_bytes")) else { return Ok(()) };
    let most = usize::try_from(most.get()).unwrap_or(usize::MAX);
    // All of them together are smaller, mostly.
    if bytes(rows) <= most || (0..rows.num_rows()).all(|row| bytes(&rows.slice(row, 1)) <= most) {
        return Ok(());
    }
    let message = format!("{doing}: a row takes more bytes than the {most} that it may");
    Err(SourceError::new(SourceFault::Data, message)
        .with_reason(ErrorCode::RowTooLarge)
        .with_hint("leave its large columns out, or raise limits.max_row_bytes"))
}

/// What the values take, and not the buffers that they share with others.
fn bytes(rows: &RecordBatch) -> usize {
    let sizes = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    // What cannot be measured is not small.
    sizes.fold(0, |sum: usize, size| sum.saturating_add(size.unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn one_row_among_many_is_too_large() {
        let rows = |texts: &[String]| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(texts.len())));
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
            RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
        };
        let most = NonZeroU64::new(1_000);
        let small: Vec<String> = vec!["x".repeat(100); 500];
        assert!(check(&rows(&small), most, "reading").is_ok(), "together they have more");
        let mut large = small;
        large[400] = "x".repeat(1_000);
        let error = check(&rows(&large), most, "reading").unwrap_err();
        assert_eq!((error.fault, error.reason), (SourceFault::Data, Some(ErrorCode::RowTooLarge)));
        assert!(check(&rows(&large), None, "reading").is_ok());
        assert!(check(&rows(&large).slice(0, 400), most, "reading").is_ok(), "it is of another slice");
    }
}
