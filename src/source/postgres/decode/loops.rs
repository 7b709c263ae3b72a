//! The inner loops: all rows of a block, one column.

use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use super::error::Problem;
use super::numeric;
use crate::limits::BATCH_BYTES_MAX;
use crate::source::postgres::frame::Field;

/// Texts up to these lengths are copied as so many bytes and then cut to length: cheaper than a copy of unknown length.
const SHORT: usize = 16;
const MIDDLING: usize = 64;

/// A value that could not be decoded, by its row in the block.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) row: usize,
    pub(super) problem: Problem,
}

/// Some rows of a field table, seen as one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cells<'a> {
    pub(super) input: &'a [u8],
    /// Whole rows.
    pub(super) fields: &'a [Field],
    pub(super) columns: usize,
    pub(super) column: usize,
}

impl Cells<'_> {
    pub(super) fn rows(&self) -> usize {
        self.fields.len() / self.columns
    }

    #[inline]
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Field> {
        self.fields[self.column..].iter().step_by(self.columns).copied()
    }
}

/// Values of variable length, end to end.
#[derive(Debug)]
pub(super) struct Variable {
    offsets: Vec<i32>,
    values: Vec<u8>,
}

impl Variable {
    pub(super) fn new() -> Self {
        Self { offsets: vec![0], values: Vec::new() }
    }

    /// Bytes of the values so far and of their ends.
    pub(super) fn bytes(&self) -> usize {
        self.values.len() + size_of_val(self.offsets.as_slice())
    }

    /// The values so far; room for as many is made anew, but not for another row beyond the bound of a batch.
    pub(super) fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let next = Self {
            offsets: Vec::with_capacity(self.offsets.len()),
            values: Vec::with_capacity(self.values.len().min(BATCH_BYTES_MAX)),
        };
        let Self { offsets, values } = std::mem::replace(self, next);
        self.offsets.push(0);
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(values))
    }
}

/// Values of `N` bytes.
#[inline]
pub(super) fn fixed<const N: usize, T: Copy + Default>(
    cells: &Cells<'_>,
    values: &mut Vec<T>,
    convert: impl Fn([u8; N]) -> Result<T, Problem>,
) -> Result<usize, Failure> {
    let before = values.len();
    values.resize(before + cells.rows(), T::default());
    let mut nulls = 0;
    for (row, (field, value)) in cells.iter().zip(&mut values[before..]).enumerate() {
        match field.array::<N>(cells.input) {
            Some(&bytes) => *value = convert(bytes).map_err(|problem| Failure { row, problem })?,
            None if field.is_null() => nulls += 1,
            None => {
                return Err(Failure { row, problem: misplaced(field, cells.input, N) });
            }
        }
    }
    Ok(nulls)
}

#[cold]
fn misplaced(field: Field, input: &[u8], expected: usize) -> Problem {
    match field.bytes(input) {
        Some(bytes) => Problem::Length { expected, found: bytes.len() },
        None => OUTSIDE,
    }
}

const OUTSIDE: Problem = Problem::Malformed("its place is outside of the input");

pub(super) fn decimals(cells: &Cells<'_>, values: &mut Vec<i128>, precision: u8, scale: i8) -> Result<usize, Failure> {
    let before = values.len();
    values.resize(before + cells.rows(), 0);
    let mut nulls = 0;
    for (row, (field, value)) in cells.iter().zip(&mut values[before..]).enumerate() {
        if let Some(bytes) = field.bytes(cells.input) {
            *value = numeric::decimal(bytes, precision, scale).map_err(|problem| Failure { row, problem })?;
        } else if field.is_null() {
            nulls += 1;
        } else {
            return Err(Failure { row, problem: OUTSIDE });
        }
    }
    Ok(nulls)
}

/// Values of any length: `append` gets the value with all input after it, and the value's length.
#[inline]
pub(super) fn variable(
    cells: &Cells<'_>,
    values: &mut Variable,
    append: impl Fn(&[u8], usize, &mut Vec<u8>) -> Result<(), Problem>,
) -> Result<usize, Failure> {
    let Variable { offsets, values } = values;
    let before = offsets.len();
    offsets.resize(before + cells.rows(), 0);
    let mut nulls = 0;
    for (row, (field, end)) in cells.iter().zip(&mut offsets[before..]).enumerate() {
        if let Some((rest, length)) = field.bytes_and_rest(cells.input) {
            append(rest, length, values).map_err(|problem| Failure { row, problem })?;
        } else if field.is_null() {
            nulls += 1;
        } else {
            return Err(Failure { row, problem: OUTSIDE });
        }
        *end = i32::try_from(values.len()).map_err(|_| Failure { row, problem: Problem::TooLarge })?;
    }
    Ok(nulls)
}

#[inline]
pub(super) fn append_bytes(rest: &[u8], length: usize, out: &mut Vec<u8>) {
    let end = out.len() + length;
    match (rest.first_chunk::<SHORT>(), rest.first_chunk::<MIDDLING>()) {
        (Some(chunk), _) if length <= SHORT => out.extend_from_slice(chunk),
        (_, Some(chunk)) if length <= MIDDLING => out.extend_from_slice(chunk),
        _ => out.extend_from_slice(&rest[..length]),
    }
    out.truncate(end);
}

#[inline]
pub(super) fn append_jsonb(rest: &[u8], length: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    match rest.split_first() {
        Some((1, text)) if length > 0 => {
            append_bytes(text, length - 1, out);
            Ok(())
        }
        _ => Err(Problem::Malformed("jsonb of an unknown version")),
    }
}
