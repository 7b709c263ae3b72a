//! Column chunks whose values repeat: a dictionary page, then pages of places in it. A value costs one look into a small
//! table, and only different values are compared. What is written is what the Parquet crate writes for the same values, page
//! for page, but for the codec, which is left away where it takes off next to nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, PrimitiveArray, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType,
};
use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescPtr;

use super::pages::{
    ChunkWriter, PageCodec, PageEnds, PageFacts, Presence, begin_page, integer_bytes, integer_statistics, too_large,
};
use super::table::{Full, Integers, NEAR, Strings};
use super::{PAGE_ROWS, hybrid};

/// Rows of the arrays that a dictionary is given back as.
const PIECE_ROWS: usize = 32 * 1024;

/// One column of a row group as it fills.
pub(in crate::encode) struct DictionaryChunk {
    data_type: DataType,
    values: DistinctValues,
    /// The place of each value that is not NULL.
    places: Vec<u16>,
    presence: Presence,
}

enum DistinctValues {
    Integers(Integers),
    Strings(Strings),
}

impl DictionaryChunk {
    /// An empty chunk for about so many `rows` of `data_type`, that of a carrier that [is for](super::is_for) this module.
    pub(super) fn new(data_type: DataType, rows: usize) -> Self {
        let values = match data_type {
            DataType::Utf8 | DataType::Binary => DistinctValues::Strings(Strings::new()),
            _ => DistinctValues::Integers(Integers::new()),
        };
        Self { data_type, values, places: Vec::with_capacity(rows), presence: Presence::default() }
    }

    /// Takes in an array. False where its values are too many or too long for a dictionary: then nothing of it was
    /// taken in, and the chunk is good only for [`Self::into_arrays`].
    pub(super) fn push(&mut self, array: &ArrayRef) -> bool {
        let before = self.places.len();
        if self.try_push(array).is_err() {
            self.places.truncate(before);
            return false;
        }
        self.presence.add(array);
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
            (DistinctValues::Integers(integers), DataType::Decimal64(..)) => {
                integers_of::<Decimal64Type>(array, integers, places)
            }
            _ => Err(Full),
        }
    }

    /// Bytes of the chunk so far before compression.
    pub(super) fn bytes(&self) -> usize {
        self.dictionary_bytes() + self.places.len() * usize::from(hybrid::width(self.len())) / 8
    }

    /// Bytes of memory that the chunk takes, about.
    pub(super) fn held(&self) -> usize {
        self.dictionary_bytes() + size_of_val(self.places.as_slice())
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

    /// What was taken in, as arrays of some rows each: all at once may be many times what the chunk takes.
    ///
    /// # Errors
    /// None that anybody has seen: the values came from arrays of the same type.
    pub(super) fn into_arrays(mut self) -> impl Iterator<Item = Result<ArrayRef, ParquetError>> {
        let (rows, present) = self.presence.take();
        let mut from = 0;
        (0..rows).step_by(PIECE_ROWS).map(move |first| {
            let rows = PIECE_ROWS.min(rows - first);
            let present = present.as_ref().map(|present| present.slice(first, rows));
            let values = present.as_ref().map_or(rows, BooleanBuffer::count_set_bits);
            let places = &self.places[from..from + values];
            from += values;
            self.array(rows, present.as_ref(), places)
        })
    }

    fn array(&self, rows: usize, present: Option<&BooleanBuffer>, places: &[u16]) -> Result<ArrayRef, ParquetError> {
        let mut places = places.iter().map(|&place| usize::from(place));
        let rows =
            (0..rows).map(|row| if present.is_none_or(|present| present.value(row)) { places.next() } else { None });
        let data_type = self.data_type.clone();
        Ok(match &self.values {
            DistinctValues::Strings(strings) => {
                let values = rows.map(|place| place.map(|place| strings.value(place)));
                if data_type == DataType::Binary {
                    Arc::new(values.collect::<BinaryArray>())
                } else {
                    let texts = values.map(|value| value.map(std::str::from_utf8).transpose());
                    Arc::new(texts.collect::<Result<StringArray, _>>()?)
                }
            }
            DistinctValues::Integers(integers) => {
                let longs = rows.map(|place| place.map(|place| integers.values[place]));
                match &data_type {
                    DataType::Int16 => Arc::new(narrowed::<Int16Type>(longs)?),
                    DataType::Int32 => Arc::new(narrowed::<Int32Type>(longs)?),
                    DataType::Date32 => Arc::new(narrowed::<Date32Type>(longs)?),
                    DataType::Time64(_) => Arc::new(narrowed::<Time64MicrosecondType>(longs)?),
                    DataType::Timestamp(TimeUnit::Millisecond, _) => {
                        Arc::new(narrowed::<TimestampMillisecondType>(longs)?.with_data_type(data_type))
                    }
                    DataType::Timestamp(..) => {
                        Arc::new(narrowed::<TimestampMicrosecondType>(longs)?.with_data_type(data_type))
                    }
                    DataType::Decimal64(..) => Arc::new(narrowed::<Decimal64Type>(longs)?.with_data_type(data_type)),
                    _ => Arc::new(narrowed::<Int64Type>(longs)?),
                }
            }
        })
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
        let (all_rows, present) = self.presence.take();
        let (order, width) = (Order::of(&self.values), hybrid::width(self.len()));
        let mut writer = ChunkWriter::new(column, Encoding::RLE_DICTIONARY);
        let mut before: Option<(u16, u16)> = None;
        let mut plain = Some(self.plain(column.physical_type()));
        let (mut places, lengths) = (self.places.as_slice(), self.even_length());
        for first in (0..all_rows).step_by(PAGE_ROWS) {
            let rows = PAGE_ROWS.min(all_rows - first);
            let levels = present.as_ref().map(|present| present.slice(first, rows));
            let values = levels.as_ref().map_or(rows, BooleanBuffer::count_set_bits);
            let (here, rest) = places.split_at(values);
            places = rest;
            let mut page = Vec::with_capacity(rows * usize::from(width) / 8 + rows / 8 + 64);
            if column.max_def_level() > 0 {
                begin_page(levels.as_ref(), rows, rows - values, &mut page)?;
            }
            page.push(width);
            hybrid::append(here, width, &mut page);
            let ends = match order.ends(here) {
                None => PageEnds::None,
                Some(ranks) => {
                    let (least, greatest) = before.replace(ranks).unwrap_or(ranks);
                    let [low, high] = [ranks.0, ranks.1].map(|rank| order.places[usize::from(rank)].into());
                    PageEnds::Known {
                        least: self.bytes_of(low, column),
                        greatest: self.bytes_of(high, column),
                        order: (ranks.0.cmp(&least), ranks.1.cmp(&greatest)),
                    }
                }
            };
            if let Some(plain) = plain.take() {
                if !codec.pays(&plain, &page, all_rows.div_ceil(PAGE_ROWS))? {
                    writer.leave_plain();
                }
                writer.dictionary(plain, self.len(), codec)?;
            }
            let facts = PageFacts { rows, nulls: rows - values, ends, string_bytes: self.string_bytes(here, lengths) };
            writer.data(page, facts, codec)?;
        }
        let nulls = u64::try_from(all_rows - self.places.len()).map_err(too_large)?;
        let statistics = self.statistics(&order, column.physical_type(), nulls)?;
        writer.close(statistics, all_rows, codec)
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
                integer_bytes(integers.values[place], column.physical_type() == Type::INT32)
            }
        }
    }

    /// Bytes of the values at these places, without their lengths; for strings only.
    fn string_bytes(&self, places: &[u16], even: Option<usize>) -> Option<i64> {
        let DistinctValues::Strings(strings) = &self.values else { return None };
        if let Some(length) = even {
            return i64::try_from(length * places.len()).ok();
        }
        let bytes: usize = places.iter().map(|&place| strings.value(usize::from(place)).len()).sum();
        i64::try_from(bytes).ok()
    }

    /// The length of all strings, where they have the same.
    fn even_length(&self) -> Option<usize> {
        let DistinctValues::Strings(strings) = &self.values else { return None };
        let mut lengths = (0..strings.len()).map(|place| strings.value(place).len());
        let first = lengths.next()?;
        lengths.all(|length| length == first).then_some(first)
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
                let ends = ends.map(|(least, greatest)| (integers.values[least], integers.values[greatest]));
                integer_statistics(ends, physical == Type::INT32, distinct, Some(nulls))?
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

/// Values whose places are the bits of a word.
const FEW: usize = 64;

/// Places looked at between two looks whether all values have been seen.
const LOOKED_AT: usize = 256;

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
    fn ends(&self, places: &[u16]) -> Option<(u16, u16)> {
        let widened = |(least, greatest): (u16, u16), rank: u16| (least.min(rank), greatest.max(rank));
        let rank = |place: u16| self.ranks[usize::from(place)];
        if places.is_empty() {
            return None;
        }
        if self.ranks.len() > FEW {
            return Some(places.iter().fold((u16::MAX, 0), |ends, &place| widened(ends, rank(place))));
        }
        // Where there are few values, a page soon has all of them.
        let (mut seen, all) = (0_u64, u64::MAX >> (FEW - self.ranks.len()));
        for some in places.chunks(LOOKED_AT) {
            seen |= some.iter().fold(0, |seen, &place| seen | 1 << place);
            if seen == all {
                break;
            }
        }
        let seen = (0..).zip(&self.ranks).filter(|(place, _)| seen >> place & 1 == 1);
        Some(seen.fold((u16::MAX, 0), |ends, (_, &rank)| widened(ends, rank)))
    }

    /// The places of the least and the greatest of all.
    fn all(&self) -> Option<(u16, u16)> {
        self.places.first().copied().zip(self.places.last().copied())
    }
}
