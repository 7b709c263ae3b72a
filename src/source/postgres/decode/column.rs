//! One column: a decoder chosen once, its values so far, and the loops that fill them.

use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::DataType;

use super::error::DecodeError;
use super::loops::{Cells, Failure, Variable, append_bytes, append_jsonb, decimals, fixed, variable};
use super::numeric;
use super::scalar::{boolean, date32, time, time64, timestamp};
use crate::plan::{Carrier, ColumnPlan, Precision, TypeKind, Wire, oid};

/// The decoder of a column with the values it has made, NULLs as zeros or empty. One variant for each inner loop.
#[derive(Debug)]
pub(super) enum Decoder {
    Bool(Vec<bool>),
    Int16(Vec<i16>),
    /// `int4`, and `date` in PostgreSQL's epoch.
    Int32(Vec<i32>),
    /// `int8`, and timestamps in PostgreSQL's epoch.
    Int64(Vec<i64>),
    /// 32 bits without a sign.
    Oid(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    NumberText(Variable),
    Text(Variable),
    Jsonb(Variable),
    Bytes(Variable),
    Uuid(Vec<[u8; 16]>),
    PgTime(Vec<i64>),
    Date32(Vec<i32>),
    Time64(Vec<i64>),
    Timestamp {
        values: Vec<i64>,
        utc: bool,
    },
}

impl Decoder {
    /// The decoder for a column of the plan.
    pub(super) fn new(column: &ColumnPlan) -> Result<Self, DecodeError> {
        let decoder = match column.wire {
            Wire::Binary => Self::binary(column),
            Wire::OutputText | Wire::JsonText => match column.carrier {
                Carrier::Text | Carrier::Json | Carrier::NumberText => Some(Self::Text(Variable::new())),
                _ => None,
            },
        };
        decoder.ok_or_else(|| DecodeError::NoDecoder {
            column: column.name.clone(),
            pg_type: column.pg_type.name.clone(),
            wire: match column.wire {
                Wire::Binary => "binary",
                Wire::OutputText => "output text",
                Wire::JsonText => "JSON text",
            },
            carrier: column.carrier.clone(),
        })
    }

    fn binary(column: &ColumnPlan) -> Option<Self> {
        let decoder = match (column.pg_type.base_oid, &column.carrier) {
            (oid::BOOL, Carrier::Bool) => Self::Bool(Vec::new()),
            (oid::INT2, Carrier::Int16) => Self::Int16(Vec::new()),
            (oid::INT4, Carrier::Int32) | (oid::DATE, Carrier::PgDate) => Self::Int32(Vec::new()),
            (oid::INT8, Carrier::Int64)
            | (oid::TIMESTAMP, Carrier::PgTimestamp)
            | (oid::TIMESTAMPTZ, Carrier::PgTimestampTz) => Self::Int64(Vec::new()),
            (oid::OID | oid::XID | oid::CID, Carrier::Int64) => Self::Oid(Vec::new()),
            (oid::FLOAT4, Carrier::Float32) => Self::Float32(Vec::new()),
            (oid::FLOAT8, Carrier::Float64) => Self::Float64(Vec::new()),
            (oid::NUMERIC, &Carrier::Decimal128 { precision, scale }) => {
                Self::Decimal { values: Vec::new(), precision, scale }
            }
            (oid::NUMERIC, Carrier::NumberText) => Self::NumberText(Variable::new()),
            (oid::JSONB, Carrier::Json | Carrier::Text) => Self::Jsonb(Variable::new()),
            (oid::JSON, Carrier::Json | Carrier::Text)
            | (oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN, Carrier::Text) => {
                Self::Text(Variable::new())
            }
            (_, Carrier::Text) if column.pg_type.kind == TypeKind::Enum => Self::Text(Variable::new()),
            (oid::BYTEA, Carrier::Bytes) => Self::Bytes(Variable::new()),
            (oid::UUID, Carrier::Uuid) => Self::Uuid(Vec::new()),
            (oid::TIME, Carrier::PgTime) => Self::PgTime(Vec::new()),
            (oid::DATE, Carrier::Date32) => Self::Date32(Vec::new()),
            (oid::TIME, Carrier::Time64) => Self::Time64(Vec::new()),
            (oid::TIMESTAMP, &Carrier::Timestamp { unit: Precision::Micros, utc: utc @ false })
            | (oid::TIMESTAMPTZ, &Carrier::Timestamp { unit: Precision::Micros, utc: utc @ true }) => {
                Self::Timestamp { values: Vec::new(), utc }
            }
            _ => return None,
        };
        Some(decoder)
    }

    /// Appends one value for each row; returns how many are NULL.
    pub(super) fn append(&mut self, cells: &Cells<'_>) -> Result<usize, Failure> {
        match self {
            Self::Bool(values) => fixed(cells, values, boolean),
            Self::Int16(values) => fixed(cells, values, |bytes| Ok(i16::from_be_bytes(bytes))),
            Self::Int32(values) => fixed(cells, values, |bytes| Ok(i32::from_be_bytes(bytes))),
            Self::Int64(values) => fixed(cells, values, |bytes| Ok(i64::from_be_bytes(bytes))),
            Self::Oid(values) => fixed(cells, values, |bytes| Ok(i64::from(u32::from_be_bytes(bytes)))),
            Self::Float32(values) => fixed(cells, values, |bytes| Ok(f32::from_be_bytes(bytes))),
            Self::Float64(values) => fixed(cells, values, |bytes| Ok(f64::from_be_bytes(bytes))),
            Self::Decimal { values, precision, scale } => decimals(cells, values, *precision, *scale),
            Self::NumberText(values) => {
                variable(cells, values, |rest, length, out| numeric::append_text(&rest[..length], out))
            }
            Self::Text(values) | Self::Bytes(values) => variable(cells, values, |rest, length, out| {
                append_bytes(rest, length, out);
                Ok(())
            }),
            Self::Jsonb(values) => variable(cells, values, append_jsonb),
            Self::Uuid(values) => fixed(cells, values, Ok),
            Self::PgTime(values) => fixed(cells, values, time),
            Self::Date32(values) => fixed(cells, values, date32),
            Self::Time64(values) => fixed(cells, values, time64),
            Self::Timestamp { values, .. } => fixed(cells, values, timestamp),
        }
    }

    /// Bytes of the values so far.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::Int16(values) => size_of_val(values.as_slice()),
            Self::Int32(values) | Self::Date32(values) => size_of_val(values.as_slice()),
            Self::Int64(values)
            | Self::Oid(values)
            | Self::PgTime(values)
            | Self::Time64(values)
            | Self::Timestamp { values, .. } => size_of_val(values.as_slice()),
            Self::Float32(values) => size_of_val(values.as_slice()),
            Self::Float64(values) => size_of_val(values.as_slice()),
            Self::Decimal { values, .. } => size_of_val(values.as_slice()),
            Self::NumberText(values) | Self::Text(values) | Self::Jsonb(values) | Self::Bytes(values) => values.bytes(),
            Self::Uuid(values) => size_of_val(values.as_slice()),
        }
    }

    /// The values so far as an array; the decoder is empty again.
    pub(super) fn take(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef, TakeError> {
        Ok(match self {
            Self::Bool(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(take(values)), nulls)),
            Self::Int16(values) => Arc::new(primitive::<Int16Type>(values, nulls)?),
            Self::Int32(values) => Arc::new(primitive::<Int32Type>(values, nulls)?),
            Self::Int64(values) | Self::Oid(values) | Self::PgTime(values) => {
                Arc::new(primitive::<Int64Type>(values, nulls)?)
            }
            Self::Float32(values) => Arc::new(primitive::<Float32Type>(values, nulls)?),
            Self::Float64(values) => Arc::new(primitive::<Float64Type>(values, nulls)?),
            Self::Decimal { values, precision, scale } => Arc::new(
                primitive::<Decimal128Type>(values, nulls)?.with_data_type(DataType::Decimal128(*precision, *scale)),
            ),
            Self::NumberText(values) | Self::Text(values) | Self::Jsonb(values) => text(values, nulls)?,
            Self::Bytes(values) => {
                let (offsets, values) = values.take();
                Arc::new(BinaryArray::try_new(offsets, values, nulls)?)
            }
            Self::Uuid(values) => {
                let values = Buffer::from_vec(take(values).into_flattened());
                Arc::new(FixedSizeBinaryArray::try_new(16, values, nulls)?)
            }
            Self::Date32(values) => Arc::new(primitive::<Date32Type>(values, nulls)?),
            Self::Time64(values) => Arc::new(primitive::<Time64MicrosecondType>(values, nulls)?),
            Self::Timestamp { values, utc } => {
                Arc::new(primitive::<TimestampMicrosecondType>(values, nulls)?.with_timezone_opt(utc.then_some("UTC")))
            }
        })
    }
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

/// The values so far; room for as many is made anew.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

fn primitive<P: ArrowPrimitiveType>(
    values: &mut Vec<P::Native>,
    nulls: Option<NullBuffer>,
) -> Result<PrimitiveArray<P>, TakeError> {
    Ok(PrimitiveArray::try_new(ScalarBuffer::from(take(values)), nulls)?)
}

/// Text is validated here, in one pass over all values of the batch end to end; only a failure looks at single rows.
fn text(values: &mut Variable, nulls: Option<NullBuffer>) -> Result<ArrayRef, TakeError> {
    let (offsets, values) = values.take();
    match StringArray::try_new(offsets.clone(), values.clone(), nulls) {
        Ok(array) => Ok(Arc::new(array)),
        Err(error) => {
            let invalid = offsets.windows(2).position(|ends| {
                let range = ends[0].unsigned_abs() as usize..ends[1].unsigned_abs() as usize;
                std::str::from_utf8(&values[range]).is_err()
            });
            Err(invalid.map_or(TakeError::Arrow(error), TakeError::Row))
        }
    }
}
