//! Framed rows become Arrow columns: one decoder a column, chosen before the first row, and a loop over all rows for
//! each. No row object and no dispatch by field.

mod choose;
mod column;
mod error;
#[cfg(test)]
mod fuzz_tests;
mod loops;
mod members;
mod nested;
mod number_texts;
mod numeric;
mod row_key;
mod scalar;
#[cfg(test)]
mod tests;
mod text;
mod values;
mod wkb;

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::RecordBatchOptions;
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::frame::{Field, FieldTable};
use crate::base::memory::BATCH_BYTES_MAX;
use crate::source::Batch;
use crate::source::postgres::plan::{PgColumn, Wire};
use column::ColumnDecoder;
pub(crate) use error::{DecodeError, RowName};
use error::{Problem, ValueError};
use loops::{DecodeFailure, FieldColumn};
pub(crate) use row_key::{RowKey, shown_part};
use values::TakeError;

/// A batch ends at this many rows, so that narrow tables still show progress and cancel quickly.
pub(crate) const BATCH_ROWS_MAX: usize = 32 * 1024;

/// Fields decoded between two looks at the batch's size: their table entries stay in the first-level cache for all
/// columns.
const BLOCK_FIELDS: usize = 4096;

/// And rows: a number's text can be 10,000 times as long as its wire form, and must not blow the batch up.
const BLOCK_ROWS: usize = 256;

/// And bytes, as far as they can be told before. A row that alone is larger on the wire is a batch of its own, since its
/// text can be sixteen times as long, and must stay within 32-bit offsets where that is possible at all.
const BLOCK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of text for a byte on the wire, at most: a numeric of one digit group, with its length 14 bytes, has up to
/// 131,072 digits.
const NUMERIC_GROWTH: usize = 131_072 / 14 + 1;

/// What a 32-bit offset can address.
const OFFSET_MAX: usize = (1 << 31) - 1;

/// Collects framed rows into batches. After an error it is spent.
#[derive(Debug)]
pub(crate) struct BatchDecoder {
    plan: Arc<[PgColumn]>,
    schema: SchemaRef,
    columns: Vec<ColumnDecoder>,
    /// Columns whose values can be much longer than their wire form and of which a row can have many.
    expanding: Vec<usize>,
    key: RowKey,
    rows: usize,
    /// Rows in the batches taken so far.
    taken: u64,
    /// Whether the next row is to begin a batch.
    crowded: bool,
    /// Rows behind so many are not decoded: nothing is to be told of them, and nothing in them can fail.
    cap: Option<NonZeroU64>,
    /// Whether there was one.
    beyond_cap: bool,
}

impl BatchDecoder {
    /// Chooses a decoder for each column.
    ///
    /// # Errors
    /// A column whose wire form cannot become its carrier.
    pub(crate) fn new(columns: &Arc<[PgColumn]>) -> Result<Self, DecodeError> {
        let fields: Vec<_> = columns
            .iter()
            .map(|plan| ArrowField::new(&plan.output.name, plan.output.carrier.data_type(), plan.output.nullable))
            .collect();
        let decoders = columns.iter().map(|plan| ColumnDecoder::new(plan).ok_or_else(|| no_decoder(plan)));
        let decoders: Vec<ColumnDecoder> = decoders.collect::<Result<_, DecodeError>>()?;
        let expanding = |&index: &usize| columns[index].output.carrier.is_nested() && decoders[index].expands();
        Ok(Self {
            expanding: (0..decoders.len()).filter(expanding).collect(),
            columns: decoders,
            plan: Arc::clone(columns),
            schema: Arc::new(Schema::new(fields)),
            key: RowKey::default(),
            rows: 0,
            taken: 0,
            crowded: false,
            cap: None,
            beyond_cap: false,
        })
    }

    /// Rows have `key`'s extra columns behind the plan's, and errors name them by it.
    pub(crate) fn with_row_key(self, key: RowKey) -> Self {
        Self { key, ..self }
    }

    /// Rows behind the first `cap` are not decoded.
    pub(crate) fn with_cap(self, cap: Option<NonZeroU64>) -> Self {
        Self { cap, ..self }
    }

    /// Rows that the cap leaves to be decoded.
    fn left(&self) -> usize {
        let left = |cap: NonZeroU64| cap.get().saturating_sub(self.taken + self.rows as u64);
        self.cap.map_or(usize::MAX, |cap| usize::try_from(left(cap)).unwrap_or(usize::MAX))
    }

    /// Fields of a framed row.
    fn width(&self) -> usize {
        self.columns.len() + self.key.extra().len()
    }

    /// Decodes the table's rows from row `from` on, until the batch [is full](Self::is_full) or the table's end.
    /// Returns the row to go on with once the batch was taken; the table is done when that is `fields.rows()`.
    ///
    /// # Errors
    /// A value that is broken or that its carrier cannot hold, or a NULL where the plan has none.
    pub(crate) fn decode(&mut self, input: &[u8], fields: &FieldTable, from: usize) -> Result<usize, DecodeError> {
        let width = self.width();
        if fields.columns() != width {
            return Err(DecodeError::Columns { expected: width, found: fields.columns() });
        }
        let block_rows = (BLOCK_FIELDS / width.max(1)).clamp(1, BLOCK_ROWS);
        let mut from = from;
        while from < fields.rows() && !self.is_full() {
            let left = self.left();
            if left == 0 {
                self.beyond_cap = true;
                return Ok(fields.rows());
            }
            let to = fields.rows().min(from + block_rows.min(left)).min(from + BATCH_ROWS_MAX - self.rows);
            let fit = self.fitting(input.len(), &fields.fields()[from * width..to * width]);
            if fit == 0 {
                self.crowded = true;
                break;
            }
            self.block(input, &fields.fields()[from * width..(from + fit) * width])?;
            self.rows += fit;
            from += fit;
        }
        Ok(from)
    }

    /// How many of the rows can be decoded before another look at the batch's size; none where the first is to begin a
    /// batch. Looked at closely only where a read buffer could be too much.
    fn fitting(&self, input_bytes: usize, fields: &[Field]) -> usize {
        let width = self.width();
        // Without columns a row is as good as a block.
        let rows = fields.len().checked_div(width).unwrap_or(1);
        if width == 0 || input_bytes <= BLOCK_BYTES_MAX && self.expanding.is_empty() {
            return rows;
        }
        let (mut sent, mut grown) = (0_usize, 0_usize);
        for (index, row) in fields.chunks_exact(width).enumerate() {
            sent += row.iter().map(|field| field.length()).sum::<usize>();
            grown += self.expanding.iter().map(|&column| row[column].length() * NUMERIC_GROWTH).sum::<usize>();
            if sent + grown > BLOCK_BYTES_MAX {
                let joins = sent <= BLOCK_BYTES_MAX && self.bytes() + sent + grown <= OFFSET_MAX;
                return if index == 0 { usize::from(self.rows == 0 || joins) } else { index };
            }
        }
        rows
    }

    /// Whether a row beyond the cap has come since the last batch was taken.
    pub(crate) fn is_beyond_cap(&self) -> bool {
        self.beyond_cap
    }

    /// Rows of the batch under way.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the values of the batch under way, without NULL bitmaps and spare room.
    pub(crate) fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnDecoder::bytes).sum()
    }

    /// Whether the batch under way has reached its bound of rows or bytes and is to be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS_MAX || self.crowded || self.bytes() >= BATCH_BYTES_MAX
    }

    /// The batch under way, which may be empty; the next one starts with room for as much. With it how many values of
    /// each column a policy changed.
    ///
    /// # Errors
    /// Text that is not UTF-8: it is validated here, all values of a column at once.
    pub(crate) fn take_batch(&mut self) -> Result<Batch, DecodeError> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        let mut changed = Vec::with_capacity(self.columns.len());
        for (column, plan) in self.columns.iter_mut().zip(self.plan.iter()) {
            let (array, count) = column.take().map_err(|error| match error {
                TakeError::Row(row) => {
                    let number = RowName::Number(self.taken + row as u64 + 1);
                    value_error(plan, number, DecodeFailure::new(row, Problem::InvalidUtf8))
                }
                TakeError::Arrow(error) => DecodeError::Arrow(error),
            })?;
            arrays.push(array);
            changed.push(count);
        }
        if changed.iter().all(|count| *count == 0) {
            changed.clear();
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        self.taken += rows.num_rows() as u64;
        self.rows = 0;
        self.crowded = false;
        Ok(Batch {
            rows,
            changed: changed.into(),
            beyond_cap: std::mem::take(&mut self.beyond_cap),
            is_followed: false,
        })
    }

    fn block(&mut self, input: &[u8], fields: &[Field]) -> Result<(), DecodeError> {
        let width = self.width();
        for (index, (column, plan)) in self.columns.iter_mut().zip(self.plan.iter()).enumerate() {
            let cells = FieldColumn { input, fields, columns: width, column: index };
            column.append(&cells).map_err(|failure| {
                let row = fields.chunks_exact(width).nth(failure.row).unwrap_or_default();
                let number = self.taken + self.rows as u64 + failure.row as u64 + 1;
                value_error(plan, self.key.name(input, row, number), failure)
            })?;
        }
        Ok(())
    }
}

#[cold]
fn value_error(plan: &PgColumn, row: RowName, failure: DecodeFailure) -> DecodeError {
    DecodeError::Value(Box::new(ValueError::new(plan, row, failure)))
}

#[cold]
fn no_decoder(plan: &PgColumn) -> DecodeError {
    DecodeError::NoDecoder {
        column: plan.output.name.clone(),
        pg_type: plan.pg_type.name.clone(),
        wire: match plan.wire {
            Wire::Binary => "binary",
            Wire::OutputText => "output text",
            Wire::JsonText => "JSON text",
        },
        carrier: plan.output.carrier.clone(),
    }
}
