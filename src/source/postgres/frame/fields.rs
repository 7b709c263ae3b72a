//! Where the fields of framed rows lie in the read buffer.

use std::ops::Range;

/// The place of one field's value in the framer's input, or NULL. Eight bytes, because the table of a full read buffer
/// is walked once for each column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    start: u32,
    /// `NULL` marks an absent value: the wire's own -1. No value is that long.
    length: u32,
}

const NULL: u32 = u32::MAX;

impl Field {
    /// An absent value.
    pub(crate) const ABSENT: Self = Self { start: 0, length: NULL };

    /// `length` bytes at `start`; the wire allows no length above `i32::MAX`.
    pub(crate) fn at(start: u32, length: u32) -> Self {
        debug_assert!(length < NULL);
        Self { start, length }
    }

    /// Whether the value is NULL.
    #[inline]
    pub(crate) fn is_null(self) -> bool {
        self.length == NULL
    }

    /// Bytes of the value; none for NULL.
    pub(crate) fn length(self) -> usize {
        if self.is_null() { 0 } else { self.length as usize }
    }

    /// The value as exactly `N` bytes; `None` where it is NULL, of another length, or not in `input` at all.
    #[inline]
    pub(crate) fn array<const N: usize>(self, input: &[u8]) -> Option<&[u8; N]> {
        let start = self.start as usize;
        if self.length as usize == N { input.get(start..start + N)?.first_chunk() } else { None }
    }

    /// The value's bytes; `None` where it is NULL or not in `input` at all.
    #[inline]
    pub(crate) fn bytes(self, input: &[u8]) -> Option<&[u8]> {
        if self.is_null() {
            return None;
        }
        input.get(self.start as usize..)?.get(..self.length as usize)
    }

    /// The value's bytes by their place in `input`; `None` where it is NULL or not in `input` at all.
    pub(crate) fn range(self, input: &[u8]) -> Option<Range<usize>> {
        self.bytes(input).map(|bytes| self.start as usize..self.start as usize + bytes.len())
    }

    /// As [`Field::bytes`], with all input that follows it: short values are copied faster by their upper bound.
    #[inline]
    pub(crate) fn bytes_and_rest(self, input: &[u8]) -> Option<(&[u8], usize)> {
        if self.is_null() {
            return None;
        }
        let rest = input.get(self.start as usize..)?;
        let length = self.length as usize;
        (length <= rest.len()).then_some((rest, length))
    }
}

/// The fields of the rows of one call of [`super::Framer::frame`], row after row.
///
/// Positions hold for that call's input only, until a byte of it moves. The table is reused: it allocates while it
/// grows towards the largest read, at most twice the bytes of the input (a field takes four bytes there, eight here).
#[derive(Debug, Default)]
pub(crate) struct FieldTable {
    columns: usize,
    rows: usize,
    /// Longer than `columns x rows` after larger reads, so that a new row needs no clearing.
    fields: Vec<Field>,
}

impl FieldTable {
    /// Rows in the table.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of each row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// All fields, row after row.
    pub(crate) fn fields(&self) -> &[Field] {
        self.fields.get(..self.rows * self.columns).unwrap_or(&[])
    }

    /// The bytes of one field; `None` is NULL.
    #[cfg(test)]
    pub(crate) fn get<'a>(&self, input: &'a [u8], row: usize, column: usize) -> Option<&'a [u8]> {
        self.fields()[row * self.columns + column].bytes(input)
    }

    pub(super) fn clear(&mut self, columns: usize) {
        self.columns = columns;
        self.rows = 0;
    }

    /// The row after the last one, to be filled and then [committed](Self::commit_row).
    #[inline]
    pub(super) fn next_row(&mut self) -> &mut [Field] {
        let base = self.rows * self.columns;
        let end = base + self.columns;
        if end > self.fields.len() {
            let grown = end.max(self.fields.len() + self.fields.len() / 2);
            self.fields.resize(grown, Field::ABSENT);
        }
        &mut self.fields[base..end]
    }

    #[inline]
    pub(super) fn commit_row(&mut self) {
        self.rows += 1;
    }
}
