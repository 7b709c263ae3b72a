//! Column chunks of Parquet whose values repeat: a dictionary page, then pages of places in it.
//!
//! The Parquet crate writes them, too, and writes all columns that are not for this module: nested ones, floats, and
//! chunks whose dictionary grows too large. But it hashes and compares every value in a general table, and compares
//! each text twice more for the least and the greatest; here a value costs one look into a small table, and only
//! different values are compared. That is a tenth of the time of a whole export of mostly repeating columns.
//!
//! What is written follows the format's specification (`Encodings.md`: PLAIN for the dictionary page, `RLE_DICTIONARY`
//! for data pages of version 1) and is what the crate writes for the same values, page for page.

mod hybrid;
mod pages;
mod table;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanBufferBuilder, PrimitiveArray, StringArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType,
};
use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescPtr;

use crate::model::Carrier;
pub(super) use pages::PageCodec;
use pages::{ChunkWriter, Ends, too_large};
use table::{Full, Integers, NEAR, Strings};

/// Rows of a data page, as in the Parquet crate: readers skip by pages.
const PAGE_ROWS: usize = 20_000;

/// One column of a row group as it fills.
pub(super) struct DictionaryChunk {
    data_type: DataType,
    values: DistinctValues,
    /// The place of each value that is not NULL.
    places: Vec<u16>,
    /// Of each row whether it has a value; `None` until the first NULL.
    present: Option<BooleanBufferBuilder>,
    rows: usize,
}

enum DistinctValues {
    Integers(Integers),
    Strings(Strings),
}

/// Whether columns of this carrier can be written here.
pub(super) fn is_for(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Decimal128 { precision, .. } => *precision <= 18,
        Carrier::Int16
        | Carrier::Int32
        | Carrier::Int64
        | Carrier::Date32
        | Carrier::Time64
        | Carrier::Timestamp { .. }
        | Carrier::Text
        | Carrier::Json
        | Carrier::NumberText
        | Carrier::Bytes => true,
        _ => false,
    }
}

impl DictionaryChunk {
    /// An empty chunk for about so many `rows` of `data_type`, that of a carrier that [is for](is_for) this module.
    pub(super) fn new(data_type: DataType, rows: usize) -> Self {
        let values = match data_type {
            DataType::Utf8 | DataType::Binary => DistinctValues::Strings(Strings::new()),
            _ => DistinctValues::Integers(Integers::new()),
        };
        Self { data_type, values, places: Vec::with_capacity(rows), present: None, rows: 0 }
    }

    /// Takes in an array. False where its values are too many or too long for a dictionary: then nothing of it was
    /// taken in, and the chunk is good only for [`Self::into_array`].
    pub(super) fn push(&mut self, array: &ArrayRef) -> bool {
        let before = self.places.len();
        if self.try_push(array).is_err() {
            self.places.truncate(before);
            return false;
        }
        if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
            let rows = self.rows;
            let present = self.present.get_or_insert_with(|| {
                let mut present = BooleanBufferBuilder::new(rows + array.len());
                present.append_n(rows, true);
                present
            });
            present.append_buffer(nulls.inner());
        } else if let Some(present) = &mut self.present {
            present.append_n(array.len(), true);
        }
        self.rows += array.len();
        true
    }

    fn try_push(&mut self, array: &ArrayRef) -> Result<(), Full> {
        let (values, places) = (&mut self.values, &mut self.places);
        match (values, array.data_type()) {
            (DistinctValues::Strings(strings), DataType::Utf8) => {
                let array = array.as_string::<i32>();
                each(array, |row| strings.place(array.value(row).as_bytes()), places)
            }
            (DistinctValues::Strings(strings), DataType::Binary) => {
                let array = array.as_binary::<i32>();
                each(array, |row| strings.place(array.value(row)), places)
            }
            (DistinctValues::Integers(integers), DataType::Int16) => integers_of::<Int16Type>(array, integers, places),
            (DistinctValues::Integers(integers), DataType::Int32) => integers_of::<Int32Type>(array, integers, places),
            (DistinctValues::Integers(integers), DataType::Date32) => {
                integers_of::<Date32Type>(array, integers, places)
            }
            (DistinctValues::Integers(integers), DataType::Int64) => integers_of::<Int64Type>(array, integers, places),
            (DistinctValues::Integers(integers), DataType::Time64(_)) => {
                integers_of::<Time64MicrosecondType>(array, integers, places)
            }
            (DistinctValues::Integers(integers), DataType::Timestamp(TimeUnit::Millisecond, _)) => {
                integers_of::<TimestampMillisecondType>(array, integers, places)
            }
            (DistinctValues::Integers(integers), DataType::Timestamp(..)) => {
                integers_of::<TimestampMicrosecondType>(array, integers, places)
            }
            (DistinctValues::Integers(integers), DataType::Decimal128(..)) => {
                integers_of::<Decimal128Type>(array, integers, places)
            }
            _ => Err(Full),
        }
    }

    /// Bytes of the chunk so far before compression.
    pub(super) fn bytes(&self) -> usize {
        self.dictionary_bytes() + self.places.len() * usize::from(hybrid::width(self.len())) / 8
    }

    /// Different values.
    fn len(&self) -> usize {
        match &self.values {
            DistinctValues::Integers(integers) => integers.values.len(),
            DistinctValues::Strings(strings) => strings.len(),
        }
    }

    fn dictionary_bytes(&self) -> usize {
        match &self.values {
            DistinctValues::Integers(integers) => integers.values.len() * 8,
            DistinctValues::Strings(strings) => strings.page.len(),
        }
    }

    /// What was taken in, as one array.
    ///
    /// # Errors
    /// None that anybody has seen: the values came from arrays of the same type.
    pub(super) fn into_array(mut self) -> Result<ArrayRef, ParquetError> {
        let present = self.present.take().map(|mut present| present.finish());
        let mut places = self.places.iter().map(|&place| usize::from(place));
        let rows = (0..self.rows)
            .map(|row| if present.as_ref().is_none_or(|present| present.value(row)) { places.next() } else { None });
        let array: ArrayRef = match &self.values {
            DistinctValues::Strings(strings) => {
                let values = rows.map(|place| place.map(|place| strings.value(place)));
                if self.data_type == DataType::Binary {
                    Arc::new(values.collect::<BinaryArray>())
                } else {
                    let texts = values.map(|value| value.map(std::str::from_utf8).transpose());
                    Arc::new(texts.collect::<Result<StringArray, _>>()?)
                }
            }
            DistinctValues::Integers(integers) => {
                let longs = rows.map(|place| place.map(|place| integers.values[place]));
                match &self.data_type {
                    DataType::Int16 => Arc::new(narrowed::<Int16Type>(longs)?),
                    DataType::Int32 => Arc::new(narrowed::<Int32Type>(longs)?),
                    DataType::Date32 => Arc::new(narrowed::<Date32Type>(longs)?),
                    DataType::Time64(_) => Arc::new(narrowed::<Time64MicrosecondType>(longs)?),
                    DataType::Timestamp(TimeUnit::Millisecond, _) => {
                        Arc::new(narrowed::<TimestampMillisecondType>(longs)?.with_data_type(self.data_type))
                    }
                    DataType::Timestamp(..) => {
                        Arc::new(narrowed::<TimestampMicrosecondType>(longs)?.with_data_type(self.data_type))
                    }
                    DataType::Decimal128(..) => {
                        Arc::new(narrowed::<Decimal128Type>(longs)?.with_data_type(self.data_type))
                    }
                    _ => Arc::new(narrowed::<Int64Type>(longs)?),
                }
            }
        };
        Ok(array)
    }

    /// Writes the chunk: its bytes, from the dictionary page on, and what the footer says of it.
    ///
    /// # Errors
    /// The compressor fails, or a size is beyond the format's 32 bits.
    pub(super) fn close(
        mut self,
        column: &ColumnDescPtr,
        codec: &mut PageCodec,
    ) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let present = self.present.take().map(|mut present| present.finish());
        let order = Order::of(&self.values);
        let mut writer = ChunkWriter::new(column, codec);
        writer.dictionary(self.plain(column.physical_type()), self.len())?;
        let (width, mut places) = (hybrid::width(self.len()), self.places.as_slice());
        for first in (0..self.rows).step_by(PAGE_ROWS) {
            let rows = PAGE_ROWS.min(self.rows - first);
            let levels = present.as_ref().map(|present| present.slice(first, rows));
            let values = levels.as_ref().map_or(rows, arrow::buffer::BooleanBuffer::count_set_bits);
            let (here, rest) = places.split_at(values);
            places = rest;
            let mut page = Vec::with_capacity(rows * usize::from(width) / 8 + rows / 8 + 64);
            if column.max_def_level() > 0 {
                page.extend_from_slice(&[0; 4]);
                let bits = levels.map(|levels| levels.sliced());
                hybrid::append_levels(bits.as_deref().unwrap_or_default(), rows, rows - values, &mut page);
                let length = u32::try_from(page.len() - 4).map_err(too_large)?;
                page[..4].copy_from_slice(&length.to_le_bytes());
            }
            page.push(width);
            hybrid::append(here, width, &mut page);
            let ends = order.ends(here);
            writer
                .data(page, rows, rows - values, ends, self.string_bytes(here), |place| self.bytes_of(place, column))?;
        }
        let nulls = u64::try_from(self.rows - self.places.len()).map_err(too_large)?;
        let statistics = self.statistics(&order, column.physical_type(), nulls)?;
        writer.close(statistics, self.rows)
    }

    /// The dictionary page.
    fn plain(&self, physical: Type) -> Vec<u8> {
        match &self.values {
            DistinctValues::Strings(strings) => strings.page.clone(),
            DistinctValues::Integers(integers) => {
                let bytes = integers.values.iter().map(|value| value.to_le_bytes());
                if physical == Type::INT32 {
                    // The lower half: every value fits into it.
                    bytes.flat_map(|[a, b, c, d, ..]| [a, b, c, d]).collect()
                } else {
                    bytes.flatten().collect()
                }
            }
        }
    }

    /// One value as statistics of pages have it.
    fn bytes_of(&self, place: usize, column: &ColumnDescPtr) -> Vec<u8> {
        match &self.values {
            DistinctValues::Strings(strings) => strings.value(place).to_vec(),
            DistinctValues::Integers(integers) => {
                let bytes = integers.values[place].to_le_bytes();
                bytes[..if column.physical_type() == Type::INT32 { 4 } else { 8 }].to_vec()
            }
        }
    }

    /// Bytes of the values at these places, without their lengths; for strings only.
    fn string_bytes(&self, places: &[u16]) -> Option<i64> {
        let DistinctValues::Strings(strings) = &self.values else { return None };
        let bytes: usize = places.iter().map(|&place| strings.value(usize::from(place)).len()).sum();
        i64::try_from(bytes).ok()
    }

    fn statistics(&self, order: &Order, physical: Type, nulls: u64) -> Result<Statistics, ParquetError> {
        let distinct = Some(u64::try_from(self.len()).map_err(too_large)?);
        let ends = order.all().map(|(least, greatest)| (usize::from(least), usize::from(greatest)));
        Ok(match &self.values {
            DistinctValues::Strings(strings) => {
                let value = |place| ByteArray::from(strings.value(place).to_vec());
                let ends = ends.map(|(least, greatest)| (value(least), value(greatest)));
                let (least, greatest) = ends.unzip();
                ValueStatistics::new(least, greatest, distinct, Some(nulls), false).into()
            }
            DistinctValues::Integers(integers) => {
                let (least, greatest) = ends.map(|(l, g)| (integers.values[l], integers.values[g])).unzip();
                if physical == Type::INT32 {
                    let narrow = |value: Option<i64>| value.map(i32::try_from).transpose().map_err(too_large);
                    ValueStatistics::new(narrow(least)?, narrow(greatest)?, distinct, Some(nulls), false)
                        .with_backwards_compatible_min_max(true)
                        .into()
                } else {
                    ValueStatistics::new(least, greatest, distinct, Some(nulls), false)
                        .with_backwards_compatible_min_max(true)
                        .into()
                }
            }
        })
    }
}

/// Appends the place of each value that is not NULL.
#[inline]
fn each(
    array: &impl Array,
    mut place: impl FnMut(usize) -> Result<u16, Full>,
    places: &mut Vec<u16>,
) -> Result<(), Full> {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            let first = places.len();
            places.resize(first + array.len(), 0);
            places[first..].iter_mut().enumerate().try_for_each(|(row, slot)| {
                *slot = place(row)?;
                Ok(())
            })
        }
        Some(nulls) => nulls.valid_indices().try_for_each(|row| {
            places.push(place(row)?);
            Ok(())
        }),
    }
}

#[inline]
fn integers_of<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    integers: &mut Integers,
    places: &mut Vec<u16>,
) -> Result<(), Full>
where
    i64: TryFrom<T::Native>,
{
    let array = array.as_primitive::<T>();
    let values = array.values();
    if places.len() >= NEAR {
        integers.look_near();
    }
    each(array, |row| integers.place(i64::try_from(values[row]).map_err(|_| Full)?), places)
}

fn narrowed<T: ArrowPrimitiveType>(values: impl Iterator<Item = Option<i64>>) -> Result<PrimitiveArray<T>, ParquetError>
where
    T::Native: TryFrom<i64>,
{
    let narrow = |value: i64| T::Native::try_from(value).map_err(|_| ParquetError::General("a value grew".to_owned()));
    values.map(|value| value.map(narrow).transpose()).collect()
}

/// The order of the different values, so that extremes of pages are found by number.
struct Order {
    /// Of each place the rank of its value.
    ranks: Vec<u16>,
    /// Of each rank the place.
    places: Vec<u16>,
}

impl Order {
    fn of(values: &DistinctValues) -> Self {
        let count = match values {
            DistinctValues::Integers(integers) => integers.values.len(),
            DistinctValues::Strings(strings) => strings.len(),
        };
        let mut places: Vec<u16> = (0..count).filter_map(|place| u16::try_from(place).ok()).collect();
        match values {
            DistinctValues::Integers(integers) => {
                places.sort_unstable_by_key(|&place| integers.values[usize::from(place)]);
            }
            DistinctValues::Strings(strings) => {
                places.sort_unstable_by(|&a, &b| strings.value(a.into()).cmp(strings.value(b.into())));
            }
        }
        let mut ranks = vec![0; count];
        for (rank, &place) in (0..=u16::MAX).zip(&places) {
            ranks[usize::from(place)] = rank;
        }
        Self { ranks, places }
    }

    /// The ranks of the least and the greatest of some values; `None` where there are none.
    fn ends(&self, places: &[u16]) -> Option<Ends> {
        let ranks = places.iter().map(|&place| self.ranks[usize::from(place)]);
        let (least, greatest) =
            ranks.fold((u16::MAX, 0), |(least, greatest), rank| (least.min(rank), greatest.max(rank)));
        (!places.is_empty()).then(|| Ends {
            ranks: (least, greatest),
            places: (self.places[usize::from(least)], self.places[usize::from(greatest)]),
        })
    }

    /// The places of the least and the greatest of all.
    fn all(&self) -> Option<(u16, u16)> {
        self.places.first().copied().zip(self.places.last().copied())
    }
}

#[cfg(test)]
mod tests;
