//! Framed rows become Arrow columns: one decoder a column, chosen before the first row, and a loop over all rows for
//! each. No row object and no dispatch by field.

mod column;
mod error;
mod loops;
mod numeric;
mod scalar;
#[cfg(test)]
mod tests;
mod text;
mod wkb;

use std::sync::Arc;

use arrow::array::{NullBufferBuilder, RecordBatchOptions};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::frame::{Field, FieldTable};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use crate::plan::ColumnPlan;
use crate::source::Batch;
use column::{Decoder, TakeError};
pub(crate) use error::{DecodeError, Problem};
use loops::Cells;

/// Fields decoded between two looks at the batch's size: their table entries stay in the first-level cache for all
/// columns.
const BLOCK_FIELDS: usize = 4096;

/// And rows: a number's text can be 10,000 times as long as its wire form, and must not blow the batch up.
const BLOCK_ROWS: usize = 256;

/// Collects framed rows into batches. After an error it is spent.
#[derive(Debug)]
pub(crate) struct BatchDecoder {
    plan: Arc<[ColumnPlan]>,
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    /// Rows in the batches taken so far.
    taken: u64,
}

#[derive(Debug)]
struct Column {
    decoder: Decoder,
    nulls: NullBufferBuilder,
}

impl BatchDecoder {
    /// Chooses a decoder for each column.
    ///
    /// # Errors
    /// A column whose wire form cannot become its carrier.
    pub(crate) fn new(columns: &Arc<[ColumnPlan]>) -> Result<Self, DecodeError> {
        let fields: Vec<_> =
            columns.iter().map(|plan| ArrowField::new(&plan.name, plan.carrier.data_type(), plan.nullable)).collect();
        let decoders =
            columns.iter().map(|plan| Ok(Column { decoder: Decoder::new(plan)?, nulls: NullBufferBuilder::new(0) }));
        Ok(Self {
            columns: decoders.collect::<Result<_, DecodeError>>()?,
            plan: Arc::clone(columns),
            schema: Arc::new(Schema::new(fields)),
            rows: 0,
            taken: 0,
        })
    }

    /// Decodes the table's rows from row `from` on, until the batch [is full](Self::is_full) or the table's end.
    /// Returns the row to go on with once the batch was taken; the table is done when that is `fields.rows()`.
    ///
    /// # Errors
    /// A value that is broken or that its carrier cannot hold, or a NULL where the plan has none.
    pub(crate) fn decode(&mut self, input: &[u8], fields: &FieldTable, from: usize) -> Result<usize, DecodeError> {
        let width = self.columns.len();
        if fields.columns() != width {
            return Err(DecodeError::Columns { expected: width, found: fields.columns() });
        }
        let block_rows = (BLOCK_FIELDS / width.max(1)).clamp(1, BLOCK_ROWS);
        let mut from = from;
        while from < fields.rows() && !self.is_full() {
            let to = fields.rows().min(from + block_rows).min(from + BATCH_ROWS_MAX - self.rows);
            self.block(input, &fields.fields()[from * width..to * width])?;
            self.rows += to - from;
            from = to;
        }
        Ok(from)
    }

    /// Rows of the batch under way.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the values of the batch under way, without NULL bitmaps and spare room.
    pub(crate) fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.decoder.bytes()).sum()
    }

    /// Whether the batch under way has reached its bound of rows or bytes and is to be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS_MAX || self.bytes() >= BATCH_BYTES_MAX
    }

    /// The batch under way, which may be empty; the next one starts with room for as much.
    ///
    /// # Errors
    /// Text that is not UTF-8: it is validated here, all values of a column at once.
    pub(crate) fn take_batch(&mut self) -> Result<Batch, DecodeError> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, plan) in self.columns.iter_mut().zip(self.plan.iter()) {
            let nulls = column.nulls.finish();
            arrays.push(column.decoder.take(nulls).map_err(|error| match error {
                TakeError::Row(row) => value_error(plan, self.taken, row, Problem::InvalidUtf8),
                TakeError::Arrow(error) => DecodeError::Arrow(error),
            })?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        self.taken += rows.num_rows() as u64;
        self.rows = 0;
        Ok(Batch { rows, changed: Box::default() })
    }

    fn block(&mut self, input: &[u8], fields: &[Field]) -> Result<(), DecodeError> {
        let width = self.columns.len();
        let before = self.taken + self.rows as u64;
        for (index, (column, plan)) in self.columns.iter_mut().zip(self.plan.iter()).enumerate() {
            let cells = Cells { input, fields, columns: width, column: index };
            let nulls = column
                .decoder
                .append(&cells)
                .map_err(|failure| value_error(plan, before, failure.row, failure.problem))?;
            if nulls == 0 {
                column.nulls.append_n_non_nulls(cells.rows());
                continue;
            }
            for (row, field) in cells.iter().enumerate() {
                if field.is_null() && !plan.nullable {
                    return Err(value_error(plan, before, row, Problem::Null));
                }
                column.nulls.append(!field.is_null());
            }
        }
        Ok(())
    }
}

#[cold]
fn value_error(plan: &ColumnPlan, rows_before: u64, row: usize, problem: Problem) -> DecodeError {
    DecodeError::Value { column: plan.name.clone(), row: rows_before + row as u64 + 1, problem }
}
