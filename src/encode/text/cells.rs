//! The columns of one batch, with their types settled once, so that the loop over rows only reads values.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal64Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;

use super::datetime::{self, PG_EPOCH_DAYS};
use super::{float, number};
use crate::encode::EncodeError;
use crate::model::{Carrier, ColumnPlan, Precision};

/// The values of one column of one batch.
#[derive(Debug)]
pub(crate) struct Cells<'a> {
    nulls: Option<&'a NullBuffer>,
    /// The values; what stands at a NULL means nothing.
    pub(crate) values: CellValues<'a>,
}

/// A column's values by the way they are printed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CellValues<'a> {
    Bool(&'a BooleanArray),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    ShortDecimal { unscaled: &'a [i64], scale: usize },
    Decimal { unscaled: &'a [i128], scale: usize },
    NumberText(&'a StringArray),
    Text(&'a StringArray),
    Json(&'a StringArray),
    Bytes(&'a BinaryArray),
    Uuid(&'a FixedSizeBinaryArray),
    Date { days: &'a [i32], epoch: i64 },
    Time(&'a [i64]),
    Timestamp { micros: &'a [i64], epoch: i64, utc: bool },
}

impl<'a> Cells<'a> {
    /// All columns of a batch that [`check`] passed.
    ///
    /// # Errors
    /// [`EncodeError::WrongCarrier`].
    pub(crate) fn of_batch(columns: &[ColumnPlan], batch: &'a RecordBatch) -> Result<Vec<Self>, EncodeError> {
        columns.iter().zip(batch.columns()).map(|(column, array)| Self::of(column, array)).collect()
    }

    /// One column.
    ///
    /// # Errors
    /// [`EncodeError::WrongCarrier`].
    pub(crate) fn of(column: &ColumnPlan, array: &'a ArrayRef) -> Result<Self, EncodeError> {
        let values = CellValues::of(&column.carrier, array).ok_or_else(|| wrong_carrier(column, array.data_type()))?;
        Ok(Self { nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), values })
    }

    /// Marks the NULLs among `rows`.
    pub(crate) fn mark_nulls(&self, rows: Range<usize>, marks: &mut [bool]) {
        if let Some(nulls) = self.nulls {
            for (mark, row) in marks.iter_mut().zip(rows) {
                *mark |= nulls.is_null(row);
            }
        }
    }

    /// Whether the value of `row` is NULL.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }
}

impl<'a> CellValues<'a> {
    fn of(carrier: &Carrier, array: &'a ArrayRef) -> Option<Self> {
        Some(match carrier {
            Carrier::Bool => Self::Bool(array.as_boolean_opt()?),
            Carrier::Int16 => Self::Int16(primitive::<Int16Type>(array)?),
            Carrier::Int32 => Self::Int32(primitive::<Int32Type>(array)?),
            Carrier::Int64 => Self::Int64(primitive::<Int64Type>(array)?),
            Carrier::Float32 => Self::Float32(primitive::<Float32Type>(array)?),
            Carrier::Float64 => Self::Float64(primitive::<Float64Type>(array)?),
            Carrier::Decimal128 { precision: ..=18, scale } => Self::ShortDecimal {
                unscaled: primitive::<Decimal64Type>(array)?,
                scale: usize::try_from(*scale).ok()?,
            },
            Carrier::Decimal128 { scale, .. } => {
                Self::Decimal { unscaled: primitive::<Decimal128Type>(array)?, scale: usize::try_from(*scale).ok()? }
            }
            Carrier::NumberText => Self::NumberText(array.as_string_opt()?),
            Carrier::Text => Self::Text(array.as_string_opt()?),
            Carrier::Json => Self::Json(array.as_string_opt()?),
            Carrier::Bytes => Self::Bytes(array.as_binary_opt()?),
            Carrier::Uuid => Self::Uuid(array.as_fixed_size_binary_opt()?),
            Carrier::PgDate => Self::Date { days: primitive::<Int32Type>(array)?, epoch: PG_EPOCH_DAYS },
            Carrier::Date32 => Self::Date { days: primitive::<Date32Type>(array)?, epoch: 0 },
            Carrier::PgTime => Self::Time(primitive::<Int64Type>(array)?),
            Carrier::Time64 => Self::Time(primitive::<Time64MicrosecondType>(array)?),
            Carrier::PgTimestamp | Carrier::PgTimestampTz => Self::Timestamp {
                micros: primitive::<Int64Type>(array)?,
                epoch: PG_EPOCH_DAYS,
                utc: *carrier == Carrier::PgTimestampTz,
            },
            Carrier::Timestamp { unit: Precision::Micros, utc } => {
                Self::Timestamp { micros: primitive::<TimestampMicrosecondType>(array)?, epoch: 0, utc: *utc }
            }
            // Only Parquet has them: the text formats get the server's own text.
            Carrier::Timestamp { unit: Precision::Millis, .. }
            | Carrier::Decimal256 { .. }
            | Carrier::List(_)
            | Carrier::Struct(_)
            | Carrier::Map => return None,
        })
    }

    /// Appends the value of `row` as the type's output function prints it. JSON stays as it is.
    pub(crate) fn output_text(&self, row: usize, out: &mut Vec<u8>) {
        match *self {
            Self::Bool(array) => out.push(if array.value(row) { b't' } else { b'f' }),
            Self::Int16(values) => number::integer(out, values[row]),
            Self::Int32(values) => number::integer(out, values[row]),
            Self::Int64(values) => number::integer(out, values[row]),
            Self::Float32(values) => float::float4(out, values[row]),
            Self::Float64(values) => float::float8(out, values[row]),
            Self::ShortDecimal { unscaled, scale } => number::decimal(out, unscaled[row].into(), scale),
            Self::Decimal { unscaled, scale } => number::decimal(out, unscaled[row], scale),
            Self::NumberText(array) | Self::Text(array) | Self::Json(array) => {
                out.extend_from_slice(array.value(row).as_bytes());
            }
            Self::Bytes(array) => {
                out.push(b'\\');
                number::hex_bytes(out, array.value(row));
            }
            Self::Uuid(array) => number::uuid(out, array.value(row)),
            Self::Date { days, epoch } => datetime::date(out, days[row], epoch),
            Self::Time(micros) => datetime::time(out, micros[row]),
            Self::Timestamp { micros, epoch, utc } => {
                datetime::timestamp(out, micros[row], epoch, utc, datetime::OUTPUT);
            }
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<&[T::Native]> {
    array.as_primitive_opt::<T>().map(|array| array.values().as_ref())
}

/// Compares a batch with the plan: as many columns, each of its carrier's type, in `types` where made beforehand.
///
/// # Errors
/// [`EncodeError::WrongCarrier`].
pub(crate) fn check(columns: &[ColumnPlan], types: &[DataType], batch: &RecordBatch) -> Result<(), EncodeError> {
    for (index, (column, expected)) in columns.iter().zip(types).enumerate() {
        match batch.columns().get(index) {
            Some(array) if array.data_type() == expected => {}
            Some(array) => return Err(wrong_carrier(column, array.data_type())),
            None => return Err(wrong_carrier(column, &DataType::Null)),
        }
    }
    if let Some(extra) = batch.columns().get(columns.len()) {
        return Err(EncodeError::WrongCarrier {
            column: batch.schema_ref().field(columns.len()).name().clone(),
            found: extra.data_type().to_string(),
            expected: "no such column".to_owned(),
        });
    }
    Ok(())
}

/// The Arrow types of the carriers, for [`check`].
pub(crate) fn types(columns: &[ColumnPlan]) -> Vec<DataType> {
    columns.iter().map(|column| column.carrier.data_type()).collect()
}

fn wrong_carrier(column: &ColumnPlan, found: &DataType) -> EncodeError {
    EncodeError::WrongCarrier {
        column: column.name.clone(),
        found: found.to_string(),
        expected: column.carrier.data_type().to_string(),
    }
}
