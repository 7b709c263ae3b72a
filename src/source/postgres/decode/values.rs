//! What a column has collected, one variant for each kind of storage, with the loop that fills it.

use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow::array::{ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, TimeUnit, i256};

use super::error::Problem;
use super::loops::{
    DecodeFailure, FieldColumn, Variable, append_bytes, append_trimmed, append_versioned, fixed, parsed, place, room,
    variable,
};
use super::members::Members;
use super::nested::{Lists, Structs};
use super::number_texts::NumberTexts;
use super::numeric::Decimals;
use super::text::TextWriter;
use super::{numeric, scalar, wkb};

/// The values of a column so far, NULLs as zeros or empty, and how the next ones are read.
#[derive(Debug)]
pub(super) enum ValueBuilder {
    Bool(Vec<bool>, Truth),
    Int16(Vec<i16>),
    Int32(Vec<i32>, Days),
    Int64(Vec<i64>, Long),
    Float32(Vec<f32>, Float),
    Float64(Vec<f64>, Double),
    Int128(Vec<i128>, Wide),
    Int256(Vec<i256>, Digits),
    Uuid(Vec<[u8; 16]>),
    Variable(Variable, Bytes),
    Lists(Box<Lists>),
    Structs(Box<Structs>),
}

/// What a byte of truth is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Truth {
    Bool,
    /// The flag of a range under this mask.
    Flag(u8),
}

/// What 4 bytes are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Days {
    /// `int4`, and `date` in PostgreSQL's epoch.
    Plain,
    Date32,
}

/// What 64 bits come from.
#[derive(Debug)]
pub(super) enum Long {
    /// `int8`, and timestamps in PostgreSQL's epoch.
    Plain,
    /// 32 bits without a sign.
    Oid,
    /// A number of up to 18 digits.
    Numeric(Box<Decimals>),
    PgTime,
    Time64,
    Micros,
    Millis {
        round: bool,
    },
}

/// What a 32-bit float comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Float {
    Plain,
    /// Without NaN and infinities.
    Finite,
    /// From 16 bits.
    Half,
}

/// What a 64-bit float comes from.
#[derive(Debug)]
pub(super) enum Double {
    Plain,
    /// Without NaN and infinities.
    Finite,
    /// The nearest to a numeric, with room for its digits.
    Nearest(Vec<u8>),
}

/// Precision and scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digits {
    pub(super) precision: u8,
    pub(super) scale: i8,
}

/// What 128 bits come from.
#[derive(Debug)]
pub(super) enum Wide {
    Numeric(Box<Decimals>),
    /// `money`: 64 bits.
    Signed,
    /// `xid8`: 64 bits without a sign.
    Unsigned,
}

/// What text and bytes come from.
#[derive(Debug)]
pub(super) enum Bytes {
    Plain,
    /// `char(n)` without its blanks.
    Trimmed,
    /// Behind a byte of the version: `jsonb`, `jsonpath`.
    Versioned,
    Numeric(Box<NumberTexts>),
    /// The type's text, made here.
    Written(TextWriter),
    /// Extended WKB whose SRID is said elsewhere.
    IsoWkb,
    /// A nested value as the server printed it, with parts that a choice changes.
    Members(Box<Members>),
}

impl ValueBuilder {
    /// Bytes, or text out of them.
    pub(super) fn variable(from: Bytes) -> Self {
        Self::Variable(Variable::new(), from)
    }

    /// Appends one value for each row; returns how many are NULL. What a policy changed is added to `changed`. After a
    /// failure the values before it stand, once [`Self::truncate`] has cut the rest off.
    pub(super) fn append(&mut self, cells: &FieldColumn<'_>, changed: &mut u64) -> Result<usize, DecodeFailure> {
        match self {
            Self::Bool(values, Truth::Bool) => fixed(cells, values, scalar::boolean),
            Self::Bool(values, Truth::Flag(mask)) => fixed(cells, values, |flags| Ok(scalar::flag(flags, *mask))),
            Self::Int16(values) => fixed(cells, values, |bytes| Ok(i16::from_be_bytes(bytes))),
            Self::Int32(values, Days::Plain) => fixed(cells, values, |bytes| Ok(i32::from_be_bytes(bytes))),
            Self::Int32(values, Days::Date32) => fixed(cells, values, scalar::date32),
            Self::Int64(values, long) => append_long(cells, values, long, changed),
            Self::Float32(values, Float::Plain) => fixed(cells, values, |bytes| Ok(f32::from_be_bytes(bytes))),
            Self::Float32(values, Float::Finite) => {
                fixed(cells, values, |bytes| scalar::finite(f32::from_be_bytes(bytes)))
            }
            Self::Float32(values, Float::Half) => fixed(cells, values, |bytes| Ok(scalar::half(bytes))),
            Self::Float64(values, Double::Plain) => fixed(cells, values, |bytes| Ok(f64::from_be_bytes(bytes))),
            Self::Float64(values, Double::Finite) => {
                fixed(cells, values, |bytes| scalar::finite(f64::from_be_bytes(bytes)))
            }
            Self::Float64(values, Double::Nearest(text)) => parsed(cells, values, |rest, length| {
                let (value, exact) = numeric::double(&rest[..length], text)?;
                *changed += u64::from(!exact);
                Ok(value)
            }),
            Self::Int128(values, Wide::Numeric(decimals)) => {
                parsed(cells, values, |rest, length| decimals.wide_at(rest, length))
            }
            Self::Int128(values, Wide::Signed) => {
                fixed(cells, values, |bytes| Ok(i128::from(i64::from_be_bytes(bytes))))
            }
            Self::Int128(values, Wide::Unsigned) => {
                fixed(cells, values, |bytes| Ok(i128::from(u64::from_be_bytes(bytes))))
            }
            Self::Int256(values, Digits { precision, scale }) => {
                parsed(cells, values, |rest, length| numeric::decimal256(&rest[..length], *precision, *scale))
            }
            Self::Uuid(values) => fixed(cells, values, Ok),
            Self::Variable(values, from) => append_variable(cells, values, from, changed),
            Self::Lists(lists) => lists.append(cells),
            Self::Structs(structs) => structs.append(cells),
        }
    }

    /// Forgets all values but the first `rows`. Nested ones never hold more than are to be kept.
    pub(super) fn truncate(&mut self, rows: usize) {
        match self {
            Self::Bool(values, _) => values.truncate(rows),
            Self::Int16(values) => values.truncate(rows),
            Self::Int32(values, _) => values.truncate(rows),
            Self::Int64(values, _) => values.truncate(rows),
            Self::Float32(values, _) => values.truncate(rows),
            Self::Float64(values, _) => values.truncate(rows),
            Self::Int128(values, _) => values.truncate(rows),
            Self::Int256(values, _) => values.truncate(rows),
            Self::Uuid(values) => values.truncate(rows),
            Self::Variable(values, _) => values.truncate(rows),
            Self::Lists(_) | Self::Structs(_) => {}
        }
    }

    /// Bytes of the values so far.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bool(values, _) => values.len(),
            Self::Int16(values) => size_of_val(values.as_slice()),
            Self::Int32(values, _) => size_of_val(values.as_slice()),
            Self::Int64(values, _) => size_of_val(values.as_slice()),
            Self::Float32(values, _) => size_of_val(values.as_slice()),
            Self::Float64(values, _) => size_of_val(values.as_slice()),
            Self::Int128(values, _) => size_of_val(values.as_slice()),
            Self::Int256(values, _) => size_of_val(values.as_slice()),
            Self::Uuid(values) => size_of_val(values.as_slice()),
            Self::Variable(values, _) => values.bytes(),
            Self::Lists(lists) => lists.bytes(),
            Self::Structs(structs) => structs.bytes(),
        }
    }

    /// Whether values can be ten thousand times as long as their wire form: a numeric's digits.
    pub(super) fn expands(&self) -> bool {
        match self {
            Self::Variable(_, Bytes::Numeric(_)) => true,
            Self::Lists(lists) => lists.expands(),
            Self::Structs(structs) => structs.expands(),
            _ => false,
        }
    }

    /// The values so far as an array of `data_type`; none are left.
    pub(super) fn take(
        &mut self,
        data_type: &DataType,
        nulls: Option<NullBuffer>,
        changed: &mut u64,
    ) -> Result<ArrayRef, TakeError> {
        Ok(match self {
            Self::Bool(values, _) => Arc::new(BooleanArray::new(BooleanBuffer::from(take(values)), nulls)),
            Self::Int16(values) => primitive::<Int16Type>(values, data_type, nulls)?,
            Self::Int32(values, Days::Plain) => primitive::<Int32Type>(values, data_type, nulls)?,
            Self::Int32(values, Days::Date32) => primitive::<Date32Type>(values, data_type, nulls)?,
            Self::Int64(values, _) => match data_type {
                DataType::Decimal64(..) => primitive::<Decimal64Type>(values, data_type, nulls)?,
                DataType::Time64(_) => primitive::<Time64MicrosecondType>(values, data_type, nulls)?,
                DataType::Timestamp(TimeUnit::Millisecond, _) => {
                    primitive::<TimestampMillisecondType>(values, data_type, nulls)?
                }
                DataType::Timestamp(..) => primitive::<TimestampMicrosecondType>(values, data_type, nulls)?,
                _ => primitive::<Int64Type>(values, data_type, nulls)?,
            },
            Self::Float32(values, _) => primitive::<Float32Type>(values, data_type, nulls)?,
            Self::Float64(values, _) => primitive::<Float64Type>(values, data_type, nulls)?,
            Self::Int128(values, _) => primitive::<Decimal128Type>(values, data_type, nulls)?,
            Self::Int256(values, _) => primitive::<Decimal256Type>(values, data_type, nulls)?,
            Self::Uuid(values) => {
                let values = Buffer::from_vec(take(values).into_flattened());
                Arc::new(FixedSizeBinaryArray::try_new(16, values, nulls)?)
            }
            Self::Variable(values, _) if *data_type == DataType::Binary => {
                let (offsets, values) = values.take();
                Arc::new(BinaryArray::try_new(offsets, values, nulls)?)
            }
            Self::Variable(values, _) => text(values, nulls)?,
            Self::Lists(lists) => lists.take(data_type, nulls, changed)?,
            Self::Structs(structs) => structs.take(data_type, nulls, changed)?,
        })
    }
}

fn append_long(
    cells: &FieldColumn<'_>,
    values: &mut Vec<i64>,
    long: &mut Long,
    changed: &mut u64,
) -> Result<usize, DecodeFailure> {
    match long {
        Long::Plain => fixed(cells, values, |bytes| Ok(i64::from_be_bytes(bytes))),
        Long::Oid => fixed(cells, values, |bytes| Ok(i64::from(u32::from_be_bytes(bytes)))),
        Long::Numeric(decimals) => parsed(cells, values, |rest, length| decimals.long_at(rest, length)),
        Long::PgTime => fixed(cells, values, scalar::time),
        Long::Time64 => fixed(cells, values, scalar::time64),
        Long::Micros => fixed(cells, values, scalar::timestamp),
        Long::Millis { round } => fixed(cells, values, |bytes| {
            let (value, rounded) = scalar::timestamp_millis(bytes, *round)?;
            *changed += u64::from(rounded);
            Ok(value)
        }),
    }
}

fn append_variable(
    cells: &FieldColumn<'_>,
    values: &mut Variable,
    from: &mut Bytes,
    changed: &mut u64,
) -> Result<usize, DecodeFailure> {
    type Writer = fn(&[u8], &mut Vec<u8>) -> Result<(), Problem>;
    let write: Writer = match from {
        Bytes::Members(members) => {
            return variable(cells, values, |rest, length, out| {
                *changed += members.append(&rest[..length], out)?;
                Ok(())
            });
        }
        Bytes::Plain => {
            return variable(cells, values, |rest, length, out| {
                append_bytes(rest, length, out);
                Ok(())
            });
        }
        Bytes::Trimmed => {
            return variable(cells, values, |rest, length, out| {
                *changed += u64::from(append_trimmed(rest, length, out));
                Ok(())
            });
        }
        Bytes::Versioned => return variable(cells, values, append_versioned),
        Bytes::Numeric(texts) => return texts.append(cells, values),
        Bytes::Written(write) => *write,
        Bytes::IsoWkb => wkb::append_iso_wkb,
    };
    variable(cells, values, |rest, length, out| write(&rest[..length], out))
}

/// Why a batch's column could not be assembled.
#[derive(Debug)]
pub(super) enum TakeError {
    /// The value of this row of the batch is not UTF-8.
    Row(usize),
    Arrow(arrow::error::ArrowError),
}

impl From<arrow::error::ArrowError> for TakeError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Arrow(error)
    }
}

/// The values so far; room for about as many is made anew.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(room(values.len()));
    std::mem::replace(values, next)
}

fn primitive<P: ArrowPrimitiveType>(
    values: &mut Vec<P::Native>,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, TakeError> {
    let array = PrimitiveArray::<P>::try_new(ScalarBuffer::from(take(values)), nulls)?;
    Ok(Arc::new(array.with_data_type(data_type.clone())))
}

/// Text is validated here, in one pass over all values of the batch end to end; only a failure looks at single rows.
fn text(values: &mut Variable, nulls: Option<NullBuffer>) -> Result<ArrayRef, TakeError> {
    let (offsets, values) = values.take();
    match StringArray::try_new(offsets.clone(), values.clone(), nulls) {
        Ok(array) => Ok(Arc::new(array)),
        Err(error) => {
            let invalid = offsets
                .windows(2)
                .position(|ends| std::str::from_utf8(&values[place(ends[0])..place(ends[1])]).is_err());
            Err(invalid.map_or(TakeError::Arrow(error), TakeError::Row))
        }
    }
}
