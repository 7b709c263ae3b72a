//! Reads a Parquet part again: its footer, then one row group at a time.

use std::io::{Read, Result as IoResult};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Decimal128Type, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType,
};
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression as Codec, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::chain;
use super::columns::{ExpectedColumn, KEPT_BYTES, ObservedStatistics};
use super::value::Value;
use crate::base::cpu::on_rayon;
use crate::base::words::counted;
use crate::commit::ManifestError;
use crate::commit::model::{FormatKind, Manifest, PartEntry};
use crate::model::Compression;
use crate::store::Destination;

/// The largest Parquet footer that is read: 100,000 columns with statistics in 100 row groups stay far below.
const PARQUET_FOOTER_BYTES_MAX: u64 = 1 << 30;

/// The last bytes of a Parquet file: the footer's length, and the magic.
const TAIL_BYTES: u64 = 8;

/// Bytes of values that are decoded at once, by the footer's own sizes.
const BATCH_BYTES: i64 = 4 * 1024 * 1024;

/// Rows that are decoded at once, however small.
const BATCH_ROWS: i64 = 8_192;

/// What is wrong with a part, and what was found of its columns where they could be read.
pub(super) type FileCheck = (Vec<String>, Option<Vec<ObservedStatistics>>);

/// Checks a part whose bytes are known to be the ones that were written. One row group is in memory at a time.
pub(super) async fn check(
    destination: &Destination,
    manifest: &Manifest,
    part: &PartEntry,
    columns: &Arc<[ExpectedColumn]>,
) -> Result<FileCheck, ManifestError> {
    let footer = match read_footer(destination, part).await? {
        Ok(footer) => footer,
        Err(problem) => return Ok((vec![problem], None)),
    };
    let metadata = match on_rayon(move || parse(&footer)).await {
        Ok(Ok(metadata)) => metadata,
        Ok(Err(error)) => return Ok((vec![format!("its Parquet footer cannot be read: {}", chain(&error))], None)),
        Err(_) => return Ok((vec!["its Parquet footer makes the reader fail".to_owned()], None)),
    };
    let mut problems = Vec::new();
    let rows = metadata.metadata().file_metadata().num_rows();
    let said = part.rows.unwrap_or_default();
    if u64::try_from(rows) != Ok(said) {
        problems.push(format!("its Parquet footer says {}, the manifest {said}", counted(rows, "row")));
    }
    problems.extend(row_groups(manifest, metadata.metadata().row_groups()));
    let schema = schema(columns, metadata.schema().fields());
    if !schema.is_empty() {
        problems.extend(schema);
        return Ok((problems, None));
    }
    let mut found = vec![ObservedStatistics::default(); columns.len()];
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        let Some(range) = span(group).filter(|range| range.end <= part.bytes) else {
            problems.push(format!("its row group {index} lies outside the file"));
            return Ok((problems, None));
        };
        let bytes = destination.read_range(&part.path, range.clone()).await.map_err(ManifestError::Verify)?;
        let piece = FileRange { start: range.start, length: part.bytes, bytes };
        let (metadata, batch_rows) = (metadata.clone(), batch_rows(group));
        let decoded = on_rayon(move || {
            let read = decode(piece, metadata, index, batch_rows, &mut found);
            (read, found)
        });
        match decoded.await {
            Ok((Ok(()), so_far)) => found = so_far,
            Ok((Err(error), _)) => {
                problems.push(format!("its row group {index} cannot be read: {}", chain(&error)));
                return Ok((problems, None));
            }
            Err(_) => {
                problems.push(format!("its row group {index} makes the reader fail"));
                return Ok((problems, None));
            }
        }
    }
    Ok((problems, Some(found)))
}

async fn read_footer(destination: &Destination, part: &PartEntry) -> Result<Result<Bytes, String>, ManifestError> {
    let range = |start: u64, end: u64| destination.read_range(&part.path, start..end);
    let Some(tail_start) = part.bytes.checked_sub(TAIL_BYTES) else {
        return Ok(Err("it is too short for a Parquet file".to_owned()));
    };
    let tail = range(tail_start, part.bytes).await.map_err(ManifestError::Verify)?;
    let Some((length, b"PAR1")) = tail.split_first_chunk::<4>() else {
        return Ok(Err("it does not end as a Parquet file does".to_owned()));
    };
    let length = u64::from(u32::from_le_bytes(*length));
    match tail_start.checked_sub(length).filter(|_| length <= PARQUET_FOOTER_BYTES_MAX) {
        Some(start) => Ok(Ok(range(start, tail_start).await.map_err(ManifestError::Verify)?)),
        None => Ok(Err(format!("its Parquet footer claims {}", counted(length, "byte")))),
    }
}

/// The footer, whose row count must be the sum of its row groups', with the schema that readers see.
fn parse(footer: &[u8]) -> Result<ArrowReaderMetadata, ParquetError> {
    let metadata = ParquetMetaDataReader::decode_metadata(footer)?;
    let rows = metadata.file_metadata().num_rows();
    let groups = metadata.row_groups().iter().try_fold(0_i64, |sum, group| sum.checked_add(group.num_rows()));
    if groups != Some(rows) {
        let problem = format!("it says {}, and its row groups have another sum", counted(rows, "row"));
        return Err(ParquetError::General(problem));
    }
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::try_new(Arc::new(metadata), options)
}

/// Row groups against the options that the manifest says they were written with.
fn row_groups(manifest: &Manifest, groups: &[RowGroupMetaData]) -> Vec<String> {
    let mut problems = Vec::new();
    if let FormatKind::Parquet { row_group_rows, .. } = manifest.format.kind
        && let Some(most) = groups.iter().map(RowGroupMetaData::num_rows).max()
        && u64::try_from(most).is_ok_and(|most| most > row_group_rows.get())
    {
        problems.push(format!("a row group has {}, the manifest says {row_group_rows} at most", counted(most, "row")));
    }
    let agrees = |chunk: &ColumnChunkMetaData| {
        matches!(
            (chunk.compression(), manifest.format.compression),
            (Codec::UNCOMPRESSED, Compression::None)
                | (Codec::SNAPPY, Compression::Snappy)
                | (Codec::LZ4_RAW, Compression::Lz4)
                | (Codec::ZSTD(_), Compression::Zstd(_))
                | (Codec::GZIP(_), Compression::Gzip(_))
        )
    };
    // Differences and places in a dictionary that are noise are left as they are, whatever the codec.
    let noise = |chunk: &ColumnChunkMetaData| {
        let packed = |encoding| matches!(encoding, Encoding::DELTA_BINARY_PACKED | Encoding::RLE_DICTIONARY);
        chunk.compression() == Codec::UNCOMPRESSED && chunk.encodings().any(packed)
    };
    let mut chunks = groups.iter().flat_map(RowGroupMetaData::columns);
    let other = chunks.find(|chunk| !agrees(chunk) && !noise(chunk)).map(ColumnChunkMetaData::compression);
    problems.extend(other.map(|codec| format!("it is compressed with {codec}, the manifest says otherwise")));
    problems
}

/// The file's columns against the manifest's.
fn schema(columns: &[ExpectedColumn], fields: &[FieldRef]) -> Vec<String> {
    if columns.len() != fields.len() {
        return vec![format!("it has {}, the manifest {}", counted(fields.len(), "column"), columns.len())];
    }
    let mut problems = Vec::new();
    for (column, field) in columns.iter().zip(fields) {
        let (name, found) = (&column.name, field.data_type());
        let planned = column.carrier.read_type();
        if field.name() != name {
            problems.push(format!("it has column {:?} where the manifest has {name:?}", field.name()));
        } else if !same_type(found, &planned) {
            problems.push(format!("column {name:?}: it is {found} in the file, the manifest says {planned}"));
        } else if field.is_nullable() != column.nullable {
            let (can, says) = if field.is_nullable() { ("can", "cannot") } else { ("cannot", "can") };
            problems.push(format!("column {name:?}: it {can} be NULL in the file, the manifest says that it {says}"));
        }
    }
    problems
}

/// Whether two types are the same, but for the NULLs of a struct's members, which the manifest's names do not tell.
fn same_type(a: &DataType, b: &DataType) -> bool {
    let same = |a: &FieldRef, b: &FieldRef| a.name() == b.name() && same_type(a.data_type(), b.data_type());
    match (a, b) {
        (DataType::List(a), DataType::List(b)) | (DataType::Map(a, _), DataType::Map(b, _)) => same(a, b),
        (DataType::Struct(a), DataType::Struct(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

/// Where the row group's bytes are.
fn span(group: &RowGroupMetaData) -> Option<Range<u64>> {
    let mut span: Option<Range<u64>> = None;
    for chunk in group.columns() {
        let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
        let start = u64::try_from(start.min(chunk.data_page_offset())).ok()?;
        let end = start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?;
        span = Some(span.map_or(start..end, |span| span.start.min(start)..span.end.max(end)));
    }
    span
}

/// How many rows are decoded at once, so that long values do not fill the memory.
fn batch_rows(group: &RowGroupMetaData) -> usize {
    let sizes = group
        .columns()
        .iter()
        .map(|chunk| chunk.uncompressed_size().max(chunk.unencoded_byte_array_data_bytes().unwrap_or(0)));
    let bytes = sizes.fold(0_i64, i64::saturating_add).max(1);
    let rows = BATCH_BYTES.saturating_mul(group.num_rows().max(1)) / bytes;
    usize::try_from(rows.clamp(1, BATCH_ROWS)).unwrap_or(1)
}

fn decode(
    piece: FileRange,
    metadata: ArrowReaderMetadata,
    group: usize,
    batch_rows: usize,
    found: &mut [ObservedStatistics],
) -> Result<(), ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(piece, metadata)
        .with_row_groups(vec![group])
        .with_batch_size(batch_rows)
        .build()?;
    for batch in reader {
        observe(&batch?, found);
    }
    Ok(())
}

fn observe(batch: &RecordBatch, found: &mut [ObservedStatistics]) {
    for (array, found) in batch.columns().iter().zip(found) {
        // A length in memory is less than 2^64.
        found.nulls = found.nulls.saturating_add(u64::try_from(array.null_count()).unwrap_or(u64::MAX));
        for value in extremes(array) {
            found.widen(value);
        }
    }
}

/// The least and greatest value of a batch, or all of it where that is as good.
fn extremes(array: &ArrayRef) -> Vec<Value> {
    match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean();
            let ends = [compute::min_boolean(array), compute::max_boolean(array)];
            ends.into_iter().flatten().map(|value| Value::Int(value.into())).collect()
        }
        DataType::Int16 => ends::<Int16Type>(array, 1),
        DataType::Int32 => ends::<Int32Type>(array, 1),
        DataType::Int64 => ends::<Int64Type>(array, 1),
        DataType::Date32 => ends::<Date32Type>(array, 1),
        DataType::Decimal128(..) => ends::<Decimal128Type>(array, 1),
        DataType::Time64(_) => ends::<Time64MicrosecondType>(array, 1),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, _) => {
            ends::<TimestampMillisecondType>(array, 1_000)
        }
        DataType::Timestamp(..) => ends::<TimestampMicrosecondType>(array, 1),
        // Arrow's own extremes of floats tell -0 from 0, and NaN from NaN.
        DataType::Float32 => floats(array.as_primitive::<Float32Type>().iter().flatten().map(f64::from)),
        DataType::Float64 => floats(array.as_primitive::<Float64Type>().iter().flatten()),
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            let ends = [compute::min_string(array), compute::max_string(array)];
            ends.into_iter().flatten().map(|text| kept(text.as_bytes())).collect()
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            [compute::min_binary(array), compute::max_binary(array)].into_iter().flatten().map(kept).collect()
        }
        DataType::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            let ends = [compute::min_fixed_size_binary(array), compute::max_fixed_size_binary(array)];
            ends.into_iter().flatten().map(kept).collect()
        }
        _ => Vec::new(),
    }
}

fn ends<T>(array: &ArrayRef, factor: i128) -> Vec<Value>
where
    T: ArrowNumericType + ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    let array = array.as_primitive::<T>();
    let ends = [compute::min(array), compute::max(array)];
    ends.into_iter().flatten().map(|value| Value::Int(value.into().saturating_mul(factor))).collect()
}

fn floats(values: impl Iterator<Item = f64>) -> Vec<Value> {
    let mut found = ObservedStatistics::default();
    values.for_each(|value| found.widen(Value::Float(value)));
    found.extremes.map_or_else(Vec::new, |(min, max)| vec![min, max])
}

fn kept(value: &[u8]) -> Value {
    Value::Bytes(value[..value.len().min(KEPT_BYTES)].to_vec())
}

/// A piece of a file, read as if all of it were there.
struct FileRange {
    /// Where it begins in the file.
    start: u64,
    length: u64,
    bytes: Bytes,
}

impl FileRange {
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let rest = at.filter(|at| *at <= self.bytes.len()).map(|at| self.bytes.slice(at..));
        rest.ok_or_else(|| ParquetError::EOF(format!("a page at byte {start} lies outside its row group")))
    }
}

impl Length for FileRange {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for FileRange {
    type T = PieceReader;

    fn get_read(&self, start: u64) -> parquet::errors::Result<PieceReader> {
        Ok(PieceReader(self.from(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let rest = self.from(start)?;
        if length > rest.len() {
            return Err(ParquetError::EOF(format!("a page at byte {start} is longer than its row group")));
        }
        Ok(rest.slice(..length))
    }
}

/// The rest of a piece, byte by byte.
struct PieceReader(Bytes);

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
        let length = out.len().min(self.0.len());
        self.0.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}
