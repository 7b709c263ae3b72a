//! The row groups of a Parquet file: which rows each has, and who writes its columns.

use std::num::NonZeroU64;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriter, ArrowWriterOptions, compute_leaves,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use super::chunk::{ColumnChunk, OwnWay, PageCodec};

/// A row group ends once it takes so many times its bytes in memory: places in dictionaries have two bytes there and may have
/// one bit in the file.
const HELD_MAX: usize = 4;

/// Writes one file, one row group in memory.
pub(super) struct RowGroups {
    /// Finished row groups pass through its vector on their way out.
    file: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// How each column is written by us; `None` where the Parquet crate writes it.
    ways: Vec<Option<OwnWay>>,
    codec: PageCodec,
    rows_max: usize,
    bytes_max: usize,
    group: Option<OpenRowGroup>,
}

/// The row group that fills.
struct OpenRowGroup {
    columns: Vec<ColumnWriter>,
    rows: usize,
    /// Its place in the file.
    number: usize,
}

enum ColumnWriter {
    /// The leaves of any column.
    Leaves(Vec<ArrowColumnWriter>),
    /// One leaf.
    Ours(ColumnChunk),
}

impl RowGroups {
    /// A file whose row groups have at most so many rows, and end once they have so many bytes. `ways` tells of
    /// each column how it is written with `codec`; `properties` must have no dictionary for these.
    ///
    /// # Errors
    /// A column that the format cannot hold.
    pub(super) fn new(
        schema: SchemaRef,
        properties: WriterProperties,
        ways: Vec<Option<OwnWay>>,
        codec: PageCodec,
        rows_max: NonZeroU64,
        bytes_max: NonZeroU64,
    ) -> Result<Self, ParquetError> {
        let bound = |limit: NonZeroU64| usize::try_from(limit.get()).unwrap_or(usize::MAX);
        // Without Arrow's own schema in the footer, every reader sees the file's plain types.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), SchemaRef::clone(&schema), options)?;
        let (file, factory) = writer.into_serialized_writer()?;
        let (rows_max, bytes_max) = (bound(rows_max), bound(bytes_max));
        Ok(Self { file, factory, schema, ways, codec, rows_max, bytes_max, group: None })
    }

    /// Takes in a batch; row groups that it fills are written.
    ///
    /// # Errors
    /// A value that the format cannot hold, or a compressor that fails.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut from = 0;
        while from < batch.num_rows() {
            let group = match &mut self.group {
                Some(group) => group,
                none => none.insert(OpenRowGroup::new(&self.factory, &self.file, &self.schema, &self.ways)?),
            };
            let room = group.room(self.rows_max, self.bytes_max);
            if room == 0 {
                self.end_group()?;
                continue;
            }
            let rows = room.min(batch.num_rows() - from);
            group.write(&batch.slice(from, rows), &self.schema, (&self.factory, &mut self.ways, &mut self.codec))?;
            from += rows;
            let is_full = group.rows >= self.rows_max || group.bytes() >= self.bytes_max;
            if is_full || group.held() >= self.bytes_max.saturating_mul(HELD_MAX) {
                self.end_group()?;
            }
        }
        Ok(())
    }

    /// Encoded bytes of the row group that fills, as far as they can be told.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.group.as_ref().map_or(0, OpenRowGroup::bytes)
    }

    /// What is finished; it is the caller's to empty.
    pub(super) fn finished(&mut self) -> &mut Vec<u8> {
        self.file.inner_mut()
    }

    /// Ends the last row group and the file.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn finish(&mut self) -> Result<(), ParquetError> {
        self.end_group()?;
        self.file.finish()?;
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        // Without room for all of it, the vector would double on its way and be copied each time.
        self.file.inner_mut().reserve(group.bytes());
        let leaves = self.file.schema_descr().columns().to_vec();
        let mut leaves = leaves.iter();
        let mut out = self.file.next_row_group()?;
        for column in group.columns {
            match column {
                ColumnWriter::Leaves(writers) => {
                    for writer in writers {
                        writer.close()?.append_to_row_group(&mut out)?;
                        leaves.next();
                    }
                }
                ColumnWriter::Ours(chunk) => {
                    let leaf = leaves.next().ok_or_else(|| missing("a leaf"))?;
                    let (bytes, close) = chunk.close(leaf, &mut self.codec)?;
                    out.append_column(&bytes, close)?;
                }
            }
        }
        out.close()?;
        Ok(())
    }
}

impl OpenRowGroup {
    /// The row group after those that the file has, with room for as many rows as the last of them.
    fn new(
        factory: &ArrowRowGroupWriterFactory,
        file: &SerializedFileWriter<Vec<u8>>,
        schema: &SchemaRef,
        ways: &[Option<OwnWay>],
    ) -> Result<Self, ParquetError> {
        let before = file.flushed_row_groups();
        let rows = before.last().map_or(0, |group| usize::try_from(group.num_rows()).unwrap_or(0));
        let number = before.len();
        // Each has a compressor, and there may be none to compress.
        let theirs =
            if ways.iter().all(Option::is_some) { Vec::new() } else { factory.create_column_writers(number)? };
        let mut theirs = theirs.into_iter();
        let mut leaves = file.schema_descr().columns();
        let column = |(field, way): (&std::sync::Arc<Field>, &Option<OwnWay>)| {
            let writers: Vec<_> = theirs.by_ref().take(leaves_of(field)).collect();
            let (own, rest) = leaves.split_at_checked(leaves_of(field)).ok_or_else(|| missing("a leaf"))?;
            leaves = rest;
            Ok(match (way, own) {
                (Some(way), [leaf]) => ColumnWriter::Ours(ColumnChunk::new(*way, field.data_type(), leaf, rows)),
                _ => ColumnWriter::Leaves(writers),
            })
        };
        let columns = schema.fields().iter().zip(ways).map(column).collect::<Result<_, ParquetError>>()?;
        Ok(Self { columns, rows: 0, number })
    }

    /// Rows that can be added: within the bounds if those to come are as large as those that came.
    fn room(&self, rows_max: usize, bytes_max: usize) -> usize {
        let rows = rows_max.saturating_sub(self.rows);
        if self.rows == 0 {
            return rows;
        }
        let bytes = self.bytes();
        let room = bytes_max.saturating_sub(bytes);
        rows.min(room.checked_div(bytes / self.rows).unwrap_or(if room > 0 { rows } else { 0 }))
    }

    fn write(
        &mut self,
        batch: &RecordBatch,
        schema: &SchemaRef,
        (factory, ways, codec): (&ArrowRowGroupWriterFactory, &mut [Option<OwnWay>], &mut PageCodec),
    ) -> Result<(), ParquetError> {
        let (columns, mut first) = (self.columns.iter_mut().zip(ways), 0);
        for ((column, way), (field, array)) in columns.zip(schema.fields().iter().zip(batch.columns())) {
            if let ColumnWriter::Ours(chunk) = column
                && !chunk.push(array, codec)?
            {
                *way = None;
                let theirs = factory.create_column_writers(self.number)?.into_iter();
                column.go_on(theirs.skip(first).take(1).collect(), field)?;
            }
            if let ColumnWriter::Leaves(writers) = column {
                write(writers, field, array)?;
            }
            first += leaves_of(field);
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Bytes of memory that our chunks take, about.
    fn held(&self) -> usize {
        let held = |column: &ColumnWriter| match column {
            ColumnWriter::Leaves(_) => 0,
            ColumnWriter::Ours(chunk) => chunk.held(),
        };
        self.columns.iter().map(held).sum()
    }

    fn bytes(&self) -> usize {
        let bytes = |column: &ColumnWriter| match column {
            ColumnWriter::Leaves(writers) => writers.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum(),
            ColumnWriter::Ours(chunk) => chunk.bytes(),
        };
        self.columns.iter().map(bytes).sum()
    }
}

impl ColumnWriter {
    /// Has the Parquet crate go on with a column whose dictionary has grown too large.
    fn go_on(&mut self, mut writers: Vec<ArrowColumnWriter>, field: &Field) -> Result<(), ParquetError> {
        if let Self::Ours(chunk) = std::mem::replace(self, Self::Leaves(Vec::new())) {
            for array in chunk.into_arrays()? {
                write(&mut writers, field, &array?)?;
            }
        }
        *self = Self::Leaves(writers);
        Ok(())
    }
}

fn write(writers: &mut [ArrowColumnWriter], field: &Field, array: &ArrayRef) -> Result<(), ParquetError> {
    if array.is_empty() {
        return Ok(());
    }
    let leaves = compute_leaves(field, array)?;
    if leaves.len() != writers.len() {
        return Err(missing("a leaf's writer"));
    }
    leaves.iter().zip(writers).try_for_each(|(leaf, writer)| writer.write(leaf))
}

/// Columns of the file that a field becomes.
fn leaves_of(field: &Field) -> usize {
    use arrow::datatypes::DataType;
    match field.data_type() {
        DataType::List(element) | DataType::Map(element, _) => leaves_of(element),
        DataType::Struct(members) => members.iter().map(|member| leaves_of(member)).sum(),
        _ => 1,
    }
}

fn missing(what: &str) -> ParquetError {
    ParquetError::General(format!("{what} is missing (a bug)"))
}
