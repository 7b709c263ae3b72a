//! Arrays, composites, ranges, multiranges, hstore and vectors: a value's parts become fields of the same input, and
//! the parts' own columns append them as any column does.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::BLOCK_FIELDS;
use super::column::ColumnDecoder;
use super::error::Problem;
use super::loops::{DecodeFailure, FieldColumn, OUTSIDE, place, take_offsets};
use super::values::TakeError;
use crate::source::postgres::frame::Field;

/// What a list is sent as (`array_send`, `multirange_send`, `hstore_send`, pgvector's `vector_send`).
#[derive(Debug, Clone, Copy)]
pub(super) enum ListShape {
    /// The OIDs by which its elements may be named: their type's and its base type's.
    Array {
        element: [u32; 2],
    },
    Multirange,
    /// A map: two parts an item.
    Hstore,
    /// Elements of this many bytes.
    Vector {
        width: usize,
    },
}

/// A column of lists, or of maps.
#[derive(Debug)]
pub(super) struct Lists {
    shape: ListShape,
    /// Where each list ends, in items; the first entry is where the first list begins.
    offsets: Vec<i32>,
    /// One column, or keys and values.
    items: Vec<ColumnDecoder>,
    pending: PendingParts,
}

/// Parts found but not yet appended: few enough to stay in the first-level cache.
#[derive(Debug, Default)]
struct PendingParts {
    fields: Vec<Field>,
    /// Items, or rows, appended before them.
    before: usize,
}

impl PendingParts {
    /// Hands all fields over to the columns, one field to each in turn. A failure's row is that of the item in all.
    fn flush(&mut self, input: &[u8], columns: &mut [ColumnDecoder]) -> Result<(), DecodeFailure> {
        if self.fields.is_empty() {
            return Ok(());
        }
        let width = columns.len();
        for (index, column) in columns.iter_mut().enumerate() {
            let cells = FieldColumn { input, fields: &self.fields, columns: width, column: index };
            column.append(&cells).map_err(|failure| {
                let item = self.before + failure.row;
                column.within(failure, item)
            })?;
        }
        self.before += self.fields.len() / width;
        self.fields.clear();
        Ok(())
    }
}

/// Why a list is not appended.
enum ListFailure {
    /// Itself.
    Here(Problem),
    /// A part of it or of a list before it, by its row in the block.
    Part(DecodeFailure),
}

impl From<Problem> for ListFailure {
    fn from(problem: Problem) -> Self {
        Self::Here(problem)
    }
}

impl From<DecodeFailure> for ListFailure {
    fn from(failure: DecodeFailure) -> Self {
        Self::Part(failure)
    }
}

impl Lists {
    pub(super) fn new(shape: ListShape, items: Vec<ColumnDecoder>) -> Self {
        Self { shape, offsets: vec![0], items, pending: PendingParts::default() }
    }

    /// The columns of its items.
    pub(super) fn items(&mut self) -> &mut [ColumnDecoder] {
        &mut self.items
    }

    /// Appends one list for each row; returns how many are NULL.
    pub(super) fn append(&mut self, cells: &FieldColumn<'_>) -> Result<usize, DecodeFailure> {
        let first = self.offsets.len();
        let mut nulls = 0;
        for (row, field) in cells.iter().enumerate() {
            let found = if field.is_null() {
                nulls += 1;
                Ok(())
            } else {
                self.list(cells.input, field, first)
            };
            let end = self.pending.before + self.pending.fields.len() / self.items.len();
            let end = found.and_then(|()| i32::try_from(end).map_err(|_| ListFailure::Here(Problem::TooLarge)));
            match end {
                Ok(end) => self.offsets.push(end),
                Err(ListFailure::Part(failure)) => return Err(failure),
                Err(ListFailure::Here(problem)) => {
                    // What stands before it is appended, and may fail before it.
                    self.flush(cells.input, first)?;
                    return Err(DecodeFailure::new(row, problem));
                }
            }
        }
        self.flush(cells.input, first)?;
        Ok(nulls)
    }

    /// Appends what is pending. `first` is the place of the end of the block's first list.
    fn flush(&mut self, input: &[u8], first: usize) -> Result<(), DecodeFailure> {
        self.pending.flush(input, &mut self.items).map_err(|failure| {
            let ends = self.offsets.get(first..).unwrap_or_default();
            let row = ends.partition_point(|&end| place(end) <= failure.row);
            DecodeFailure { row, ..failure }
        })
    }

    /// Finds the items of one list. What keeps a list from being one is found before any of them.
    fn list(&mut self, input: &[u8], field: Field, first: usize) -> Result<(), ListFailure> {
        let mut cursor = Cursor::new(input, field)?;
        let count = self.shape.count(&mut cursor)?;
        for _ in 0..count {
            match self.shape {
                ListShape::Array { .. } | ListShape::Multirange => self.pending.fields.push(cursor.value()?),
                ListShape::Vector { width } => self.pending.fields.push(cursor.part(width)?),
                ListShape::Hstore => {
                    let (key, value) = (cursor.value()?, cursor.value()?);
                    if key.is_null() {
                        return Err(ListFailure::Here(Problem::Malformed("hstore with a NULL as key")));
                    }
                    self.pending.fields.extend([key, value]);
                }
            }
            if self.pending.fields.len() >= BLOCK_FIELDS {
                self.flush(input, first)?;
            }
        }
        Ok(cursor.end()?)
    }

    /// Bytes of the items so far and of the lists' ends.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.offsets.as_slice()) + self.items.iter().map(ColumnDecoder::bytes).sum::<usize>()
    }

    pub(super) fn expands(&self) -> bool {
        self.items.iter().any(ColumnDecoder::expands)
    }

    /// The lists so far as an array of `data_type`.
    pub(super) fn take(
        &mut self,
        data_type: &DataType,
        nulls: Option<NullBuffer>,
        changed: &mut u64,
    ) -> Result<ArrayRef, TakeError> {
        self.pending.before = 0;
        let offsets = take_offsets(&mut self.offsets);
        let list_of = |error| match error {
            TakeError::Row(item) => {
                TakeError::Row(offsets.partition_point(|&end| place(end) <= item).saturating_sub(1))
            }
            TakeError::Arrow(error) => TakeError::Arrow(error),
        };
        let mut arrays = Vec::with_capacity(self.items.len());
        for column in &mut self.items {
            let (array, parts_changed) = column.take().map_err(list_of)?;
            *changed += parts_changed;
            arrays.push(array);
        }
        match (data_type, arrays.as_slice()) {
            (DataType::List(field), [items]) => {
                Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, Arc::clone(items), nulls)?))
            }
            (DataType::Map(field, ordered), _) => {
                let DataType::Struct(fields) = field.data_type() else { return Err(unlike(data_type)) };
                let entries = StructArray::try_new(fields.clone(), arrays, None)?;
                Ok(Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, nulls, *ordered)?))
            }
            _ => Err(unlike(data_type)),
        }
    }
}

fn unlike(data_type: &DataType) -> TakeError {
    TakeError::Arrow(ArrowError::SchemaError(format!("nested values where {data_type} is wanted")))
}

impl ListShape {
    /// Reads what stands before the items: how many there are.
    fn count(self, cursor: &mut Cursor<'_>) -> Result<usize, Problem> {
        match self {
            Self::Array { element } => {
                let dimensions = cursor.long()?;
                // Whether there are NULLs; the elements say it themselves.
                cursor.long()?;
                if !element.contains(&u32::from_be_bytes(cursor.bytes()?)) {
                    return Err(Problem::Malformed("array of another element type"));
                }
                match dimensions {
                    0 => return Ok(0),
                    1 => {}
                    2..=6 => {
                        return Err(Problem::Unrepresentable { value: "an array of several dimensions" });
                    }
                    _ => return Err(Problem::Malformed("array of an impossible number of dimensions")),
                }
                let count = cursor.count()?;
                if cursor.long()? != 1 {
                    return Err(Problem::Unrepresentable { value: "an array whose indexes do not begin at 1" });
                }
                Ok(count)
            }
            Self::Multirange | Self::Hstore => cursor.count(),
            Self::Vector { .. } => {
                let count = u16::from_be_bytes(cursor.bytes()?);
                let _unused: [u8; 2] = cursor.bytes()?;
                Ok(usize::from(count))
            }
        }
    }
}

/// What a struct is sent as (`record_send`, `range_send`).
#[derive(Debug)]
pub(super) enum StructShape {
    /// The attributes' types, in order.
    Composite {
        types: Vec<u32>,
    },
    Range,
}

/// A column of structs.
#[derive(Debug)]
pub(super) struct Structs {
    shape: StructShape,
    members: Vec<ColumnDecoder>,
    pending: PendingParts,
}

/// Flags of a range that say that a bound is not sent (`rangetypes.h`).
const EMPTY: u8 = 0x01;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

impl Structs {
    pub(super) fn new(shape: StructShape, members: Vec<ColumnDecoder>) -> Self {
        Self { shape, members, pending: PendingParts::default() }
    }

    /// The columns of its members.
    pub(super) fn members(&mut self) -> &mut [ColumnDecoder] {
        &mut self.members
    }

    /// Appends one struct for each row; returns how many are NULL.
    pub(super) fn append(&mut self, cells: &FieldColumn<'_>) -> Result<usize, DecodeFailure> {
        self.pending.before = 0;
        let width = self.members.len();
        let mut nulls = 0;
        for (row, field) in cells.iter().enumerate() {
            let whole = self.pending.fields.len();
            if field.is_null() {
                nulls += 1;
                self.pending.fields.resize(whole + width, Field::ABSENT);
            } else if let Err(problem) = self.parts(cells.input, field) {
                self.pending.fields.truncate(whole);
                self.pending.flush(cells.input, &mut self.members)?;
                return Err(DecodeFailure::new(row, problem));
            }
            if self.pending.fields.len() >= BLOCK_FIELDS {
                self.pending.flush(cells.input, &mut self.members)?;
            }
        }
        self.pending.flush(cells.input, &mut self.members)?;
        Ok(nulls)
    }

    fn parts(&mut self, input: &[u8], field: Field) -> Result<(), Problem> {
        let mut cursor = Cursor::new(input, field)?;
        match &self.shape {
            StructShape::Composite { types } => {
                if cursor.count()? != types.len() {
                    return Err(Problem::Malformed("composite of another number of attributes"));
                }
                for &pg_type in types {
                    if u32::from_be_bytes(cursor.bytes()?) != pg_type {
                        return Err(Problem::Malformed("composite with an attribute of another type"));
                    }
                    self.pending.fields.push(cursor.value()?);
                }
            }
            StructShape::Range => {
                let flags_field = cursor.part(1)?;
                let [flags] = *flags_field.array::<1>(input).ok_or(OUTSIDE)?;
                let mut bound = |infinite| {
                    if flags & (EMPTY | infinite) != 0 {
                        return Ok(Field::ABSENT);
                    }
                    match cursor.value()? {
                        bound if bound.is_null() => Err(Problem::Malformed("range with a NULL as bound")),
                        bound => Ok(bound),
                    }
                };
                let (lower, upper) = (bound(LOWER_INFINITE)?, bound(UPPER_INFINITE)?);
                self.pending.fields.extend([lower, upper, flags_field, flags_field, flags_field]);
            }
        }
        cursor.end()
    }

    /// Bytes of the members so far.
    pub(super) fn bytes(&self) -> usize {
        self.members.iter().map(ColumnDecoder::bytes).sum()
    }

    pub(super) fn expands(&self) -> bool {
        self.members.iter().any(ColumnDecoder::expands)
    }

    /// The structs so far as an array of `data_type`.
    pub(super) fn take(
        &mut self,
        data_type: &DataType,
        nulls: Option<NullBuffer>,
        changed: &mut u64,
    ) -> Result<ArrayRef, TakeError> {
        let DataType::Struct(fields) = data_type else { return Err(unlike(data_type)) };
        let mut arrays = Vec::with_capacity(self.members.len());
        for (column, field) in self.members.iter_mut().zip(fields) {
            let (array, parts_changed) = if field.is_nullable() { column.take()? } else { column.take_required()? };
            *changed += parts_changed;
            arrays.push(array);
        }
        Ok(Arc::new(StructArray::try_new(fields.clone(), arrays, nulls)?))
    }
}

/// Reads the parts of one value; nothing beyond its end.
#[derive(Debug)]
struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
    end: usize,
}

const CUT: Problem = Problem::Malformed("nested value that is cut off");

impl<'a> Cursor<'a> {
    fn new(input: &'a [u8], field: Field) -> Result<Self, Problem> {
        let range = field.range(input).ok_or(OUTSIDE)?;
        Ok(Self { input, at: range.start, end: range.end })
    }

    #[inline]
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = self.input.get(self.at..self.end).and_then(|rest| rest.first_chunk::<N>()).ok_or(CUT)?;
        self.at += N;
        Ok(*bytes)
    }

    #[inline]
    fn long(&mut self) -> Result<i32, Problem> {
        Ok(i32::from_be_bytes(self.bytes()?))
    }

    fn count(&mut self) -> Result<usize, Problem> {
        usize::try_from(self.long()?).map_err(|_| Problem::Malformed("nested value with a negative count"))
    }

    /// A value behind its length; -1 is NULL.
    #[inline]
    fn value(&mut self) -> Result<Field, Problem> {
        match self.long()? {
            -1 => Ok(Field::ABSENT),
            length => self.part(usize::try_from(length).map_err(|_| CUT)?),
        }
    }

    /// The next `length` bytes.
    #[inline]
    fn part(&mut self, length: usize) -> Result<Field, Problem> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.end).ok_or(CUT)?;
        let field = Field::at(u32::try_from(self.at).map_err(|_| OUTSIDE)?, u32::try_from(length).map_err(|_| CUT)?);
        self.at = end;
        Ok(field)
    }

    fn end(&self) -> Result<(), Problem> {
        if self.at == self.end { Ok(()) } else { Err(Problem::Malformed("nested value with bytes behind its end")) }
    }
}
