//! The inner loops: all rows of a block, one column.

use std::borrow::Cow;

use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use super::error::Problem;
use crate::base::memory::BATCH_BYTES_MAX;
use crate::source::postgres::frame::Field;

/// Texts up to these lengths are copied as so many bytes and then cut to length: cheaper than a copy of unknown length.
const SHORT: usize = 16;
const MIDDLING: usize = 64;

/// A value that could not be decoded, by its row in the block. The rows before it are decoded; whatever was made for
/// this one and later ones is to be cut off.
#[derive(Debug)]
pub(super) struct DecodeFailure {
    pub(super) row: usize,
    pub(super) problem: Problem,
    /// What it should have become, where that is a part of the column's value.
    pub(super) target: Option<String>,
}

impl DecodeFailure {
    pub(super) fn new(row: usize, problem: Problem) -> Self {
        Self { row, problem, target: None }
    }
}

/// Some rows of a field table, seen as one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldColumn<'a> {
    pub(super) input: &'a [u8],
    /// Whole rows.
    pub(super) fields: &'a [Field],
    pub(super) columns: usize,
    pub(super) column: usize,
}

/// One NULL.
pub(super) const ABSENT: FieldColumn<'static> =
    FieldColumn { input: &[], fields: &[Field::ABSENT], columns: 1, column: 0 };

impl FieldColumn<'_> {
    pub(super) fn rows(&self) -> usize {
        self.fields.len() / self.columns
    }

    #[inline]
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Field> {
        self.fields.get(self.column..).unwrap_or_default().iter().step_by(self.columns).copied()
    }

    /// The rows from `row` on.
    pub(super) fn behind(&self, row: usize) -> Self {
        Self { fields: self.fields.get(row * self.columns..).unwrap_or_default(), ..*self }
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

    /// Forgets all values but the first `rows`.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.values.truncate(self.offsets.last().map_or(0, |&end| place(end)));
    }

    fn value(&self, row: usize) -> &[u8] {
        &self.values[place(self.offsets[row])..place(self.offsets[row + 1])]
    }

    /// The first of the values from `first` on that is not UTF-8.
    pub(super) fn invalid_utf8(&self, first: usize) -> Option<usize> {
        let added = &self.values[place(self.offsets[first])..];
        // What is ASCII is valid wherever it is cut; only the rest is looked at value by value.
        if added.is_ascii() {
            return None;
        }
        (first..self.offsets.len() - 1).find(|&row| std::str::from_utf8(self.value(row)).is_err())
    }

    /// Writes U+FFFD for what is not UTF-8 in the values from `first` on; returns how many values that changed.
    pub(super) fn replace_invalid(&mut self, first: usize) -> Result<u64, DecodeFailure> {
        let Some(invalid) = self.invalid_utf8(first) else { return Ok(0) };
        let texts: Vec<(String, bool)> = (invalid..self.offsets.len() - 1)
            .map(|row| match String::from_utf8_lossy(self.value(row)) {
                Cow::Borrowed(valid) => (valid.to_owned(), false),
                Cow::Owned(replaced) => (replaced, true),
            })
            .collect();
        self.truncate(invalid);
        let mut replaced = 0;
        for (at, (text, changed)) in texts.iter().enumerate() {
            self.values.extend_from_slice(text.as_bytes());
            let end = i32::try_from(self.values.len());
            self.offsets.push(end.map_err(|_| DecodeFailure::new(invalid - first + at, Problem::TooLarge))?);
            replaced += u64::from(*changed);
        }
        Ok(replaced)
    }

    /// The values so far; room for as many is made anew, but not for another row beyond the bound of a batch.
    pub(super) fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let values = Vec::with_capacity(room(self.values.len().min(BATCH_BYTES_MAX)));
        (take_offsets(&mut self.offsets), Buffer::from_vec(std::mem::replace(&mut self.values, values)))
    }
}

/// Room for a batch like the last one, which had so many. Batches differ by some rows, and a vector that grows for the
/// last few copies all of them.
pub(super) fn room(last: usize) -> usize {
    last + last / 4 + MIDDLING
}

/// An offset as a place; it is never below zero.
pub(super) fn place(offset: i32) -> usize {
    offset.unsigned_abs() as usize
}

/// The offsets so far; they begin at zero again, with room for as many.
pub(super) fn take_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut next = Vec::with_capacity(room(offsets.len()));
    next.push(0);
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, next)))
}

/// Values of `N` bytes.
#[inline]
pub(super) fn fixed<const N: usize, T: Copy + Default>(
    cells: &FieldColumn<'_>,
    values: &mut Vec<T>,
    mut convert: impl FnMut([u8; N]) -> Result<T, Problem>,
) -> Result<usize, DecodeFailure> {
    let before = values.len();
    values.resize(before + cells.rows(), T::default());
    let mut nulls = 0;
    for (row, (field, value)) in cells.iter().zip(&mut values[before..]).enumerate() {
        match field.array::<N>(cells.input) {
            Some(&bytes) => *value = convert(bytes).map_err(|problem| DecodeFailure::new(row, problem))?,
            None if field.is_null() => nulls += 1,
            None => {
                return Err(DecodeFailure::new(row, misplaced(field, cells.input, N)));
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

pub(super) const OUTSIDE: Problem = Problem::Malformed("its place is outside of the input");

/// Values of one width from bytes of any length: `convert` gets the value with all input after it, and its length.
#[inline]
pub(super) fn parsed<T: Copy + Default>(
    cells: &FieldColumn<'_>,
    values: &mut Vec<T>,
    mut convert: impl FnMut(&[u8], usize) -> Result<T, Problem>,
) -> Result<usize, DecodeFailure> {
    let before = values.len();
    values.resize(before + cells.rows(), T::default());
    let mut nulls = 0;
    for (row, (field, value)) in cells.iter().zip(&mut values[before..]).enumerate() {
        if let Some((rest, length)) = field.bytes_and_rest(cells.input) {
            *value = convert(rest, length).map_err(|problem| DecodeFailure::new(row, problem))?;
        } else if field.is_null() {
            nulls += 1;
        } else {
            return Err(DecodeFailure::new(row, OUTSIDE));
        }
    }
    Ok(nulls)
}

/// Values of any length: `append` gets the value with all input after it, and the value's length.
#[inline]
pub(super) fn variable(
    cells: &FieldColumn<'_>,
    values: &mut Variable,
    mut append: impl FnMut(&[u8], usize, &mut Vec<u8>) -> Result<(), Problem>,
) -> Result<usize, DecodeFailure> {
    let Variable { offsets, values } = values;
    let before = offsets.len();
    offsets.resize(before + cells.rows(), 0);
    let mut nulls = 0;
    for (row, (field, end)) in cells.iter().zip(&mut offsets[before..]).enumerate() {
        if let Some((rest, length)) = field.bytes_and_rest(cells.input) {
            append(rest, length, values).map_err(|problem| DecodeFailure::new(row, problem))?;
        } else if field.is_null() {
            nulls += 1;
        } else {
            return Err(DecodeFailure::new(row, OUTSIDE));
        }
        *end = i32::try_from(values.len()).map_err(|_| DecodeFailure::new(row, Problem::TooLarge))?;
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
pub(super) fn append_versioned(rest: &[u8], length: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    match rest.split_first() {
        Some((1, text)) if length > 0 => {
            append_bytes(text, length - 1, out);
            Ok(())
        }
        _ => Err(Problem::Malformed("jsonb or jsonpath of an unknown version")),
    }
}

/// Without the blanks at its end; returns whether there were any.
#[inline]
pub(super) fn append_trimmed(rest: &[u8], length: usize, out: &mut Vec<u8>) -> bool {
    let blanks = rest[..length].iter().rev().take_while(|&&byte| byte == b' ').count();
    append_bytes(rest, length - blanks, out);
    blanks > 0
}
