//! What ClickHouse's Arrow has of a column, as its carrier holds it. CPU work, without IO.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, GenericStringBuilder, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::model::column::ELEMENT;
use crate::model::{
    Carrier, ColumnPlan, InvalidUtf8, JsonNan, Member, OnUnrepresentable, Policies, Precision, TimestampPrecision,
};

/// PostgreSQL's epoch in microseconds, from which its `timestamp(3)` rounds.
const ROUNDING_EPOCH: i64 = 946_684_800_000_000;

/// A batch that does not become one of the plan's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConvertError {
    /// The server sent another number of columns than were asked for.
    #[error("the number of columns is {found}, where {wanted} were asked for")]
    Columns { found: usize, wanted: usize },
    /// Another type came than the expression gives.
    #[error("column {column:?} came as {found}, which is none that holds {wanted}")]
    Type { column: String, found: DataType, wanted: String },
    /// A text is not UTF-8, and nothing says what is to happen with it.
    #[error("column {column:?} holds text that is not UTF-8")]
    Utf8 { column: String },
    /// NaN or an infinity, which JSON has no number for.
    #[error("column {column:?} holds a number that is not finite, which JSON has no number for")]
    NotFinite { column: String },
    /// A timestamp finer than the file's.
    #[error("column {column:?} holds a timestamp finer than milliseconds")]
    TooFine { column: String },
    /// Arrow refuses the values.
    #[error("column {column:?} does not fit what was planned")]
    Arrow { column: String, source: ArrowError },
}

/// A batch as the plan has it, and for each column how many values a policy changed.
pub(crate) fn converted(batch: &RecordBatch, columns: &[ColumnPlan]) -> Result<(RecordBatch, Vec<u64>), ConvertError> {
    if batch.num_columns() != columns.len() {
        return Err(ConvertError::Columns { found: batch.num_columns(), wanted: columns.len() });
    }
    let mut arrays = Vec::with_capacity(columns.len());
    let mut changed = Vec::with_capacity(columns.len());
    for (column, array) in columns.iter().zip(batch.columns()) {
        let mut one = Conversion { column: &column.name, policies: &column.policies, changed: 0 };
        let made = one.array(array, &column.carrier)?;
        if column.rewritten {
            one.changed = u64::try_from(made.len() - made.null_count()).unwrap_or(u64::MAX);
        }
        changed.push(one.changed);
        arrays.push(made);
    }
    let fields: Vec<Field> = columns.iter().map(|column| column.carrier.field(&column.name, true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options);
    let rows = rows.map_err(|source| ConvertError::Arrow { column: String::new(), source })?;
    Ok((rows, changed))
}

struct Conversion<'a> {
    column: &'a str,
    policies: &'a Policies,
    changed: u64,
}

impl Conversion<'_> {
    fn arrow(&self, source: ArrowError) -> ConvertError {
        ConvertError::Arrow { column: self.column.to_owned(), source }
    }

    fn wrong(&self, array: &ArrayRef, carrier: &Carrier) -> ConvertError {
        let (column, found) = (self.column.to_owned(), array.data_type().clone());
        ConvertError::Type { column, found, wanted: carrier.read_type().to_string() }
    }

    fn array(&mut self, array: &ArrayRef, carrier: &Carrier) -> Result<ArrayRef, ConvertError> {
        if let DataType::Dictionary(_, values) = array.data_type() {
            let plain = self.cast(array, values)?;
            return self.array(&plain, carrier);
        }
        let wanted = carrier.data_type();
        match carrier {
            Carrier::Float32 | Carrier::Float64 if self.policies.json_nan != JsonNan::String => {
                let numbers = self.number(array, carrier, &wanted)?;
                self.finite(numbers)
            }
            Carrier::Bool
            | Carrier::Int16
            | Carrier::Int32
            | Carrier::Int64
            | Carrier::Float32
            | Carrier::Float64
            | Carrier::Decimal128 { .. }
            | Carrier::Decimal256 { .. } => self.number(array, carrier, &wanted),
            Carrier::NumberText if is_number(array.data_type()) => self.cast(array, &DataType::Utf8),
            Carrier::NumberText | Carrier::Text | Carrier::Json => self.text(array, carrier),
            Carrier::Bytes => self.bytes(array, carrier).map(|bytes| Arc::new(bytes) as ArrayRef),
            Carrier::Uuid | Carrier::Date32 if *array.data_type() == wanted => Ok(Arc::clone(array)),
            Carrier::Timestamp { unit, utc: true } => self.timestamp(array, *unit, carrier),
            Carrier::List(element) => self.list(array, element, carrier),
            Carrier::Struct(members) => self.members(array, members, carrier),
            _ => Err(self.wrong(array, carrier)),
        }
    }

    fn cast(&self, array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ConvertError> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, to, &options).map_err(|error| self.arrow(error))
    }

    /// Numbers, widened where the server has narrower ones. Whatever would lose a digit is refused.
    fn number(&self, array: &ArrayRef, carrier: &Carrier, wanted: &DataType) -> Result<ArrayRef, ConvertError> {
        use DataType::{Boolean, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
        let found = array.data_type();
        if found == wanted {
            return Ok(Arc::clone(array));
        }
        let widens = match wanted {
            Boolean => matches!(found, UInt8),
            Int16 => matches!(found, Int8 | UInt8),
            Int32 => matches!(found, Int8 | UInt8 | Int16 | UInt16),
            Int64 => matches!(found, Int8 | UInt8 | Int16 | UInt16 | Int32 | UInt32),
            Float64 => matches!(found, Float32),
            DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
                match found {
                    UInt64 => *scale == 0,
                    DataType::Decimal32(_, from)
                    | DataType::Decimal64(_, from)
                    | DataType::Decimal128(_, from)
                    | DataType::Decimal256(_, from) => from == scale,
                    _ => false,
                }
            }
            _ => false,
        };
        if widens { self.cast(array, wanted) } else { Err(self.wrong(array, carrier)) }
    }

    /// Floats without NaN and the infinities.
    fn finite(&mut self, array: ArrayRef) -> Result<ArrayRef, ConvertError> {
        let not_finite: Vec<bool> = match array.data_type() {
            DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().map(|v| !v.is_finite()).collect(),
            _ => array.as_primitive::<Float64Type>().values().iter().map(|v| !v.is_finite()).collect(),
        };
        let is_one = |row: usize| not_finite.get(row).copied().unwrap_or(false) && !array.is_null(row);
        let count = (0..array.len()).filter(|row| is_one(*row)).count();
        if count == 0 {
            return Ok(array);
        }
        if self.policies.json_nan == JsonNan::Error {
            return Err(ConvertError::NotFinite { column: self.column.to_owned() });
        }
        self.changed = self.changed.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        let mask = arrow::array::BooleanArray::from((0..array.len()).map(is_one).collect::<Vec<bool>>());
        arrow::compute::nullif(&array, &mask).map_err(|error| self.arrow(error))
    }

    fn bytes(&self, array: &ArrayRef, carrier: &Carrier) -> Result<BinaryArray, ConvertError> {
        let binary = match array.data_type() {
            DataType::Binary => Arc::clone(array),
            DataType::LargeBinary | DataType::Utf8 | DataType::LargeUtf8 | DataType::FixedSizeBinary(_) => {
                let large = matches!(array.data_type(), DataType::LargeUtf8);
                let array = if large { self.cast(array, &DataType::LargeBinary)? } else { Arc::clone(array) };
                self.cast(&array, &DataType::Binary)?
            }
            DataType::Null => self.cast(array, &DataType::Binary)?,
            _ => return Err(self.wrong(array, carrier)),
        };
        binary.as_binary_opt::<i32>().cloned().ok_or_else(|| self.wrong(array, carrier))
    }

    fn text(&mut self, array: &ArrayRef, carrier: &Carrier) -> Result<ArrayRef, ConvertError> {
        if *array.data_type() == DataType::Utf8 {
            return Ok(Arc::clone(array));
        }
        let bytes = self.bytes(array, carrier)?;
        let (offsets, values, nulls) = bytes.clone().into_parts();
        if let Ok(text) = StringArray::try_new(offsets, values, nulls) {
            return Ok(Arc::new(text));
        }
        if self.policies.invalid_utf8 != InvalidUtf8::Replace {
            return Err(ConvertError::Utf8 { column: self.column.to_owned() });
        }
        let mut text = GenericStringBuilder::<i32>::with_capacity(bytes.len(), bytes.value_data().len());
        for value in &bytes {
            let value = value.map(String::from_utf8_lossy);
            self.changed = self.changed.saturating_add(u64::from(matches!(value, Some(std::borrow::Cow::Owned(_)))));
            text.append_option(value);
        }
        Ok(Arc::new(text.finish()))
    }

    /// Timestamps, which come as microseconds since 1970.
    fn timestamp(&mut self, array: &ArrayRef, unit: Precision, carrier: &Carrier) -> Result<ArrayRef, ConvertError> {
        let Some(micros) = array.as_primitive_opt::<Int64Type>() else { return Err(self.wrong(array, carrier)) };
        if unit == Precision::Micros {
            let (_, values, nulls) = micros.clone().into_parts();
            return Ok(Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone("UTC")));
        }
        let millis = self.millis(micros)?;
        let (_, values, nulls) = millis.into_parts();
        Ok(Arc::new(TimestampMillisecondArray::new(values, nulls).with_timezone("UTC")))
    }

    fn millis(&mut self, micros: &Int64Array) -> Result<Int64Array, ConvertError> {
        let exact = self.policies.timestamp_precision == TimestampPrecision::MillisExact;
        let mut millis = Vec::with_capacity(micros.len());
        for value in micros {
            let Some(value) = value else {
                millis.push(None);
                continue;
            };
            if value % 1_000 == 0 {
                millis.push(Some(value / 1_000));
                continue;
            }
            self.changed = self.changed.saturating_add(1);
            match (exact, self.policies.on_unrepresentable) {
                (true, OnUnrepresentable::Null) => millis.push(None),
                (true, _) => return Err(ConvertError::TooFine { column: self.column.to_owned() }),
                (false, _) => millis.push(Some(rounded(value))),
            }
        }
        Ok(Int64Array::from(millis))
    }

    fn list(&mut self, array: &ArrayRef, element: &Arc<Carrier>, carrier: &Carrier) -> Result<ArrayRef, ConvertError> {
        let list = match array.data_type() {
            DataType::List(_) => Arc::clone(array),
            DataType::LargeList(item) => self.cast(array, &DataType::List(Arc::clone(item)))?,
            _ => return Err(self.wrong(array, carrier)),
        };
        let Some(list) = list.as_list_opt::<i32>() else { return Err(self.wrong(array, carrier)) };
        let items = self.array(list.values(), element)?;
        let field = Arc::new(element.field(ELEMENT, true));
        let made = ListArray::try_new(field, list.offsets().clone(), items, list.nulls().cloned());
        made.map(|list| Arc::new(list) as ArrayRef).map_err(|error| self.arrow(error))
    }

    fn members(&mut self, array: &ArrayRef, members: &[Member], carrier: &Carrier) -> Result<ArrayRef, ConvertError> {
        let found = array.as_struct_opt().filter(|found| found.num_columns() == members.len());
        let Some(found) = found else { return Err(self.wrong(array, carrier)) };
        let parts = found.columns().iter().zip(members).map(|(part, member)| self.array(part, &member.carrier));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let fields: Fields = members.iter().map(|member| member.carrier.field(&member.name, member.nullable)).collect();
        let made = StructArray::try_new(fields, parts, found.nulls().cloned());
        made.map(|made| Arc::new(made) as ArrayRef).map_err(|error| self.arrow(error))
    }
}

/// Whether Arrow holds numbers by this type, which it prints with all their digits.
fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_decimal()
}

/// The nearest millisecond, as `timestamp(3)` of PostgreSQL has it: halves go away from 2000.
fn rounded(micros: i64) -> i64 {
    let since = micros.saturating_sub(ROUNDING_EPOCH);
    let half = if since < 0 { -500 } else { 500 };
    since.saturating_add(half) / 1_000 + ROUNDING_EPOCH / 1_000
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
