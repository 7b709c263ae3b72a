//! Column chunks whose values hardly repeat: each page is written once it is full.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{
    ByteArrayType, DataType, Date32Type, Decimal64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
};
use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::statistics::ValueStatistics;
use parquet::schema::types::ColumnDescPtr;

use super::super::tally::{BOUND_BYTES_MAX, greatest_bound, least_bound};
use super::pages::{
    ChunkWriter, PageCodec, PageEnds, PageFacts, Presence, begin_page, integer_bytes, integer_statistics, too_large,
};
use super::{PAGE_ROWS, deltas};

/// Bytes of texts after which a page ends, as in the Parquet crate.
const PAGE_BYTES: usize = 1 << 20;

/// Bytes kept of the least and the greatest text: one more than bounds have, which tells that they are cut.
const END_BYTES: usize = BOUND_BYTES_MAX + 1;

/// One column of a row group as it fills.
pub(in crate::encode) struct DirectChunk {
    writer: ChunkWriter,
    nullable: bool,
    kind: DirectKind,
    /// Of the page that fills: its integers, or the lengths of its texts.
    longs: Vec<i64>,
    /// The texts of the page that fills, end to end.
    bytes: Vec<u8>,
    /// The rows of the page that fills.
    page: Presence,
    rows: usize,
    nulls: usize,
    /// The least and the greatest of the last page that had values, as the index has them.
    last: Option<(DirectValue, DirectValue)>,
    /// Those of all pages before the one that fills.
    all: Option<(DirectValue, DirectValue)>,
}

#[derive(Debug, Clone, Copy)]
enum DirectKind {
    /// `narrow` ones are of the format's INT32.
    Integers { narrow: bool },
    /// Bytes, which are a text or not.
    Strings { text: bool },
}

/// A value among those of one chunk, which are all of one variant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum DirectValue {
    Integer(i64),
    Bytes(Vec<u8>),
}

impl DirectChunk {
    pub(super) fn new(data_type: &DataType, column: &ColumnDescPtr, compressed: bool) -> Self {
        let (kind, encoding) = match data_type {
            DataType::Utf8 => (DirectKind::Strings { text: true }, Encoding::DELTA_LENGTH_BYTE_ARRAY),
            DataType::Binary => (DirectKind::Strings { text: false }, Encoding::DELTA_LENGTH_BYTE_ARRAY),
            _ => {
                let narrow = column.physical_type() == Type::INT32;
                (DirectKind::Integers { narrow }, Encoding::DELTA_BINARY_PACKED)
            }
        };
        let mut writer = ChunkWriter::new(column, encoding);
        if !compressed {
            writer.leave_plain();
        }
        Self {
            writer,
            nullable: column.max_def_level() > 0,
            kind,
            longs: Vec::with_capacity(PAGE_ROWS),
            bytes: Vec::new(),
            page: Presence::default(),
            rows: 0,
            nulls: 0,
            last: None,
            all: None,
        }
    }

    pub(super) fn push(&mut self, array: &ArrayRef, codec: &mut PageCodec) -> Result<(), ParquetError> {
        let mut from = 0;
        while from < array.len() {
            let rows = self.room(array, from);
            self.take(&array.slice(from, rows))?;
            from += rows;
            if self.page.rows() >= PAGE_ROWS || self.bytes.len() >= PAGE_BYTES {
                self.end_page(codec)?;
            }
        }
        Ok(())
    }

    /// Bytes that are written or wait for the end of their page.
    pub(super) fn bytes(&self) -> usize {
        self.writer.bytes() + self.bytes.len() + self.longs.len() * size_of::<i64>()
    }

    /// Rows from `from` on that the page still takes, at least one.
    fn room(&self, array: &ArrayRef, from: usize) -> usize {
        let rows = (PAGE_ROWS - self.page.rows()).min(array.len() - from);
        let offsets = match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value_offsets(),
            DataType::Binary => array.as_binary::<i32>().value_offsets(),
            _ => return rows,
        };
        let (Some(&first), Some(ends)) = (offsets.get(from), offsets.get(from + 1..=from + rows)) else { return rows };
        let room = PAGE_BYTES.saturating_sub(self.bytes.len());
        let before = ends.partition_point(|end| usize::try_from(end - first).is_ok_and(|bytes| bytes < room));
        (before + 1).min(rows)
    }

    /// Adds rows to the page.
    fn take(&mut self, array: &ArrayRef) -> Result<(), ParquetError> {
        self.page.add(array);
        let longs = &mut self.longs;
        match array.data_type() {
            DataType::Utf8 => strings(array.as_string::<i32>(), longs, &mut self.bytes),
            DataType::Binary => strings(array.as_binary::<i32>(), longs, &mut self.bytes),
            DataType::Int16 => integers::<Int16Type>(array, longs),
            DataType::Int32 => integers::<Int32Type>(array, longs),
            DataType::Date32 => integers::<Date32Type>(array, longs),
            DataType::Int64 => integers::<Int64Type>(array, longs),
            DataType::Time64(_) => integers::<Time64MicrosecondType>(array, longs),
            DataType::Timestamp(TimeUnit::Millisecond, _) => integers::<TimestampMillisecondType>(array, longs),
            DataType::Timestamp(..) => integers::<TimestampMicrosecondType>(array, longs),
            DataType::Decimal64(..) => integers::<Decimal64Type>(array, longs),
            other => Err(ParquetError::General(format!("{other} is not written so (a bug)"))),
        }
    }

    fn end_page(&mut self, codec: &mut PageCodec) -> Result<(), ParquetError> {
        let (rows, present) = self.page.take();
        if rows == 0 {
            return Ok(());
        }
        let nulls = rows - self.longs.len();
        let mut page = Vec::with_capacity(self.bytes.len() + self.longs.len() * 4 + rows / 8 + 64);
        if self.nullable {
            begin_page(present.as_ref(), rows, nulls, &mut page)?;
        }
        let (ends, string_bytes) = match self.kind {
            DirectKind::Integers { narrow } => {
                deltas::append(&self.longs, narrow, &mut page);
                let ends = self.longs.iter().fold((i64::MAX, i64::MIN), |(l, g), &value| (l.min(value), g.max(value)));
                let of = |value| DirectValue::Integer(value);
                ((!self.longs.is_empty()).then(|| (of(ends.0), of(ends.1))), None)
            }
            DirectKind::Strings { .. } => {
                deltas::append(&self.longs, true, &mut page);
                page.extend_from_slice(&self.bytes);
                let of = |value: &[u8]| DirectValue::Bytes(value[..value.len().min(END_BYTES)].to_vec());
                let ends = string_ends(&self.longs, &self.bytes).map(|(least, greatest)| (of(least), of(greatest)));
                (ends, Some(i64::try_from(self.bytes.len()).map_err(too_large)?))
            }
        };
        self.longs.clear();
        self.bytes.clear();
        // What a huge text has stretched goes back.
        self.bytes.shrink_to(2 * PAGE_BYTES);
        self.rows += rows;
        self.nulls += nulls;
        let facts = PageFacts { rows, nulls, ends: self.page_ends(ends), string_bytes };
        self.writer.data(page, facts, codec)
    }

    /// The ends of a page as the index has them; those of all pages are widened by them.
    fn page_ends(&mut self, ends: Option<(DirectValue, DirectValue)>) -> PageEnds {
        let Some((least, greatest)) = ends else { return PageEnds::None };
        match &mut self.all {
            Some((low, high)) => {
                if least < *low {
                    low.clone_from(&least);
                }
                if greatest > *high {
                    high.clone_from(&greatest);
                }
            }
            none => *none = Some((least.clone(), greatest.clone())),
        }
        let Some(bounds) = self.bound(&least, false).zip(self.bound(&greatest, true)) else {
            return PageEnds::Unknown;
        };
        // Texts are cut to whole letters, which does not keep their order.
        let told = match least {
            DirectValue::Integer(_) => (least, greatest),
            DirectValue::Bytes(_) => (DirectValue::Bytes(bounds.0.clone()), DirectValue::Bytes(bounds.1.clone())),
        };
        let before = self.last.as_ref().unwrap_or(&told);
        let order = (told.0.cmp(&before.0), told.1.cmp(&before.1));
        self.last = Some(told);
        PageEnds::Known { least: bounds.0, greatest: bounds.1, order }
    }

    /// A value as the page index has it: no value of its page is beyond.
    fn bound(&self, value: &DirectValue, greatest: bool) -> Option<Vec<u8>> {
        match (value, self.kind) {
            (DirectValue::Integer(value), DirectKind::Integers { narrow }) => Some(integer_bytes(*value, narrow)),
            (DirectValue::Bytes(value), DirectKind::Strings { text }) => {
                if greatest {
                    greatest_bound(value, text)
                } else {
                    Some(least_bound(value, text))
                }
            }
            _ => None,
        }
    }

    pub(super) fn close(mut self, codec: &mut PageCodec) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        self.end_page(codec)?;
        let nulls = Some(u64::try_from(self.nulls).map_err(too_large)?);
        let statistics = match (&self.all, self.kind) {
            (Some((DirectValue::Bytes(least), DirectValue::Bytes(greatest))), DirectKind::Strings { text }) => {
                // Some readers take one bound without the other for both.
                let ends = greatest_bound(greatest, text).map(|high| (least_bound(least, text), high));
                let exact = ends.as_ref().map_or((false, false), |(low, high)| (low == least, high == greatest));
                let (low, high) = ends.map(|(low, high)| (ByteArray::from(low), ByteArray::from(high))).unzip();
                let statistics = ValueStatistics::new(low, high, None, nulls, false);
                statistics.with_min_is_exact(exact.0).with_max_is_exact(exact.1).into()
            }
            (None, DirectKind::Strings { .. }) => {
                ValueStatistics::<ByteArray>::new(None, None, None, nulls, false).into()
            }
            (ends, kind) => {
                let ends = ends.as_ref().and_then(|ends| match ends {
                    (DirectValue::Integer(least), DirectValue::Integer(greatest)) => Some((*least, *greatest)),
                    _ => None,
                });
                integer_statistics(ends, matches!(kind, DirectKind::Integers { narrow: true }), None, nulls)?
            }
        };
        self.writer.close(statistics, self.rows, codec)
    }
}

/// Appends the values that are not NULL.
fn integers<T: ArrowPrimitiveType>(array: &ArrayRef, longs: &mut Vec<i64>) -> Result<(), ParquetError>
where
    i64: TryFrom<T::Native>,
{
    let array = array.as_primitive::<T>();
    let values = array.values();
    let long = |value: T::Native| {
        i64::try_from(value).map_err(|_| ParquetError::General("a number of more than 18 digits (a bug)".to_owned()))
    };
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
        return nulls.valid_indices().try_for_each(|row| {
            longs.push(long(values[row])?);
            Ok(())
        });
    }
    let first = longs.len();
    longs.resize(first + values.len(), 0);
    longs[first..].iter_mut().zip(values).try_for_each(|(slot, &value)| {
        *slot = long(value)?;
        Ok(())
    })
}

/// Appends the values that are not NULL, and their lengths.
fn strings<T: ByteArrayType<Offset = i32>>(
    array: &arrow::array::GenericByteArray<T>,
    lengths: &mut Vec<i64>,
    bytes: &mut Vec<u8>,
) -> Result<(), ParquetError> {
    let (offsets, values) = (array.value_offsets(), array.value_data());
    let range = |from: i32, to: i32| Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?);
    let outside = || ParquetError::General("a text outside of its array (a bug)".to_owned());
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
        return nulls.valid_indices().try_for_each(|row| {
            let (from, to) = (offsets[row], offsets[row + 1]);
            lengths.push(i64::from(to - from));
            bytes.extend_from_slice(range(from, to).and_then(|range| values.get(range)).ok_or_else(outside)?);
            Ok(())
        });
    }
    let (Some(&from), Some(&to)) = (offsets.first(), offsets.last()) else { return Ok(()) };
    lengths.extend(offsets.windows(2).map(|pair| i64::from(pair[1] - pair[0])));
    bytes.extend_from_slice(range(from, to).and_then(|range| values.get(range)).ok_or_else(outside)?);
    Ok(())
}

/// The least and the greatest of texts that stand end to end, byte by byte.
fn string_ends<'a>(lengths: &[i64], bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut rest = bytes;
    let mut ends: Option<[(u64, &[u8]); 2]> = None;
    for &length in lengths {
        let at = usize::try_from(length).unwrap_or(0).min(rest.len());
        let key = first_eight(rest, at);
        let (value, behind) = rest.split_at(at);
        rest = behind;
        let Some([least, greatest]) = &mut ends else {
            ends = Some([(key, value); 2]);
            continue;
        };
        // Nearly always the first eight bytes tell.
        if key < least.0 || key == least.0 && value < least.1 {
            *least = (key, value);
        }
        if key > greatest.0 || key == greatest.0 && value > greatest.1 {
            *greatest = (key, value);
        }
    }
    ends.map(|[(_, least), (_, greatest)]| (least, greatest))
}

/// The first eight bytes of the first `length` ones, as a number in whose order they are; zeros stand for those that are not
/// there.
#[inline]
fn first_eight(rest: &[u8], length: usize) -> u64 {
    let eight = match rest.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => rest.iter().zip((0..8).rev()).fold(0, |sum, (&byte, place)| sum | u64::from(byte) << (8 * place)),
    };
    match u32::try_from(length) {
        Ok(length @ 0..8) => eight & !u64::MAX.checked_shr(8 * length).unwrap_or(0),
        _ => eight,
    }
}
