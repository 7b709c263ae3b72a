//! Parquet: format 1.0, one row group in memory, encodings chosen by `steer`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use parquet::basic::{Compression as Codec, Encoding, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;
use zstd::bulk;

use super::chunk::{self, OwnWay, PageCodec};
use super::row_group::RowGroups;
use super::steer::{Choice, choose};
use super::text::cells;
use super::{EncodeError, EncodeSummary, Encoder};
use crate::model::column::{ELEMENT, ENTRIES, KEY, VALUE};
use crate::model::{Carrier, ColumnPlan, ColumnStatistics, Compression, FormatOptions, ParquetOptions};

/// What readers such as parquet-mr look for in front of the version before they trust statistics.
const CREATED_BY: &str = concat!("outhaul version ", env!("CARGO_PKG_VERSION"));

/// Encodes batches as one Parquet file.
pub(crate) struct ParquetEncoder {
    columns: Arc<[ColumnPlan]>,
    types: Vec<DataType>,
    schema: SchemaRef,
    options: ParquetOptions,
    compression: Compression,
    writer: WriterState,
    rows: u64,
}

enum WriterState {
    /// Until the first batch shows what the values are like.
    Waiting(Box<WriterPropertiesBuilder>),
    Open(Box<RowGroups>),
    /// Only after an error.
    Lost,
}

impl std::fmt::Debug for ParquetEncoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ParquetEncoder").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl ParquetEncoder {
    /// An encoder for one part.
    ///
    /// # Errors
    /// A level that the codec does not have, or a column that the format cannot hold.
    pub(crate) fn new(options: &FormatOptions, columns: Arc<[ColumnPlan]>) -> Result<Self, EncodeError> {
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let writer = WriterState::Waiting(Box::new(properties(&options.parquet, options.compression, &columns)?));
        Ok(Self {
            types: cells::types(&columns),
            columns,
            schema,
            options: options.parquet.clone(),
            compression: options.compression,
            writer,
            rows: 0,
        })
    }

    /// The writer; made for values like those of `batch` where there is none yet.
    fn writer(&mut self, batch: Option<&RecordBatch>) -> Result<&mut RowGroups, EncodeError> {
        if let WriterState::Waiting(_) = &self.writer
            && let WriterState::Waiting(properties) = std::mem::replace(&mut self.writer, WriterState::Lost)
        {
            let (properties, ways) = self.steered(*properties, batch);
            let codec = match self.compression {
                Compression::Zstd(level) => PageCodec::Zstd(bulk::Compressor::new(level).map_err(ParquetError::from)?),
                _ => PageCodec::None,
            };
            let ParquetOptions { row_group_rows, row_group_bytes, .. } = self.options;
            let schema = Arc::clone(&self.schema);
            let groups = RowGroups::new(schema, properties.build(), ways, codec, row_group_rows, row_group_bytes)?;
            self.writer = WriterState::Open(Box::new(groups));
        }
        match &mut self.writer {
            WriterState::Open(writer) => Ok(writer),
            _ => Err(ParquetError::General("an earlier call failed".to_owned()).into()),
        }
    }

    /// Chooses the encoding of each leaf, `batch` being the first of the part. Tells of each column how we write it
    /// ourselves.
    fn steered(
        &self,
        mut builder: WriterPropertiesBuilder,
        batch: Option<&RecordBatch>,
    ) -> (WriterPropertiesBuilder, Vec<Option<OwnWay>>) {
        // Other codecs are the Parquet crate's own, and so are their pages.
        let ours = matches!(self.compression, Compression::Zstd(_) | Compression::None);
        let mut ways = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter().enumerate() {
            let values = batch.and_then(|batch| batch.columns().get(index));
            let mut leaves = Vec::new();
            add_leaves(&mut vec![column.name.clone()], &column.carrier, column.statistics, values, &mut leaves);
            let mut way = None;
            for Leaf { path, carrier, statistics, values } in leaves {
                let ParquetOptions { row_group_rows, delta, .. } = self.options;
                let mut choice = choose(&carrier, statistics, values.as_ref(), row_group_rows, delta);
                if ours && chunk::is_for(&column.carrier) {
                    way = own_way(choice);
                    if way == Some(OwnWay::Dictionary) {
                        // The crate goes on where the dictionary has grown too large.
                        choice = Choice::Plain;
                    }
                }
                builder = encoded(builder, path, choice);
            }
            ways.push(way);
        }
        (builder, ways)
    }

    /// The batch under the plan's names and promises, so that nothing else reaches the file.
    fn planned(&self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        cells::check(&self.columns, &self.types, batch)?;
        for (column, array) in self.columns.iter().zip(batch.columns()) {
            if !column.nullable && array.null_count() > 0 {
                return Err(EncodeError::Unrepresentable {
                    column: column.name.clone(),
                    reason: "a NULL arrived although it is declared NOT NULL, which foreign tables do not enforce"
                        .to_owned(),
                    hint: "leave it out of --columns and write it as an expression: --column NAME=EXPRESSION"
                        .to_owned(),
                });
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &options)
            .map_err(|error| EncodeError::Parquet(error.into()))
    }

    /// Moves what the writer has finished to `out`.
    fn drain(finished: &mut Vec<u8>, out: &mut Vec<u8>) {
        if out.is_empty() {
            std::mem::swap(finished, out);
        } else {
            out.append(finished);
        }
    }
}

impl Encoder for ParquetEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let batch = self.planned(batch)?;
        let writer = self.writer(Some(&batch))?;
        writer.write(&batch)?;
        Self::drain(writer.finished(), out);
        self.rows += super::count(batch.num_rows());
        Ok(())
    }

    fn buffered_bytes(&self) -> usize {
        match &self.writer {
            WriterState::Open(writer) => writer.buffered_bytes(),
            WriterState::Waiting(_) | WriterState::Lost => 0,
        }
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) -> Result<EncodeSummary, EncodeError> {
        let writer = self.writer(None)?;
        writer.finish()?;
        Self::drain(writer.finished(), out);
        Ok(EncodeSummary { rows: Some(self.rows), header_rows: 0, header_bytes: 0, changed: Box::default() })
    }
}

fn own_way(choice: Choice) -> Option<OwnWay> {
    match choice {
        Choice::Dictionary => Some(OwnWay::Dictionary),
        Choice::Delta => Some(OwnWay::Deltas { compressed: true }),
        Choice::DeltaUncompressed => Some(OwnWay::Deltas { compressed: false }),
        Choice::Lengths => Some(OwnWay::Lengths),
        Choice::Plain => None,
    }
}

/// Has the Parquet crate write the column like this.
fn encoded(builder: WriterPropertiesBuilder, path: ColumnPath, choice: Choice) -> WriterPropertiesBuilder {
    let encoding = match choice {
        Choice::Dictionary => return builder,
        Choice::Plain => Encoding::PLAIN,
        Choice::Delta | Choice::DeltaUncompressed => Encoding::DELTA_BINARY_PACKED,
        Choice::Lengths => Encoding::DELTA_LENGTH_BYTE_ARRAY,
    };
    let builder = builder.set_column_dictionary_enabled(path.clone(), false);
    let builder = builder.set_column_encoding(path.clone(), encoding);
    if choice == Choice::DeltaUncompressed {
        return builder.set_column_compression(path, Codec::UNCOMPRESSED);
    }
    builder
}

fn field(column: &ColumnPlan) -> Field {
    column.carrier.field(&column.name, column.nullable)
}

fn properties(
    options: &ParquetOptions,
    compression: Compression,
    columns: &[ColumnPlan],
) -> Result<WriterPropertiesBuilder, EncodeError> {
    let metadata = options.metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(CREATED_BY.to_owned())
        .set_key_value_metadata(Some(metadata))
        .set_compression(codec(compression)?);
    let mut firsts = Vec::with_capacity(columns.len());
    let mut leaves = Vec::new();
    for column in columns {
        firsts.push(leaves.len());
        add_leaves(&mut vec![column.name.clone()], &column.carrier, column.statistics, None, &mut leaves);
    }
    Ok(builder.set_sorting_columns(sorting_columns(&options.sorted, &firsts)?))
}

/// The order of the rows in the file's own terms: by leaf columns. `firsts` are the first leaf of each column.
fn sorting_columns(sorted: &[(usize, bool)], firsts: &[usize]) -> Result<Option<Vec<SortingColumn>>, EncodeError> {
    let sorting = |(place, descending): &(usize, bool)| {
        let leaf = firsts.get(*place).and_then(|leaf| i32::try_from(*leaf).ok());
        let none = || ParquetError::General(format!("there is no column {place} to be sorted by"));
        Ok(SortingColumn { column_idx: leaf.ok_or_else(none)?, descending: *descending, nulls_first: false })
    };
    let columns = sorted.iter().map(sorting).collect::<Result<Vec<_>, EncodeError>>()?;
    Ok((!columns.is_empty()).then_some(columns))
}

/// A column of the file; a nested one of the plan has several.
struct Leaf {
    path: ColumnPath,
    carrier: Carrier,
    /// What is known of the leaf's own values: nothing below a nested column, of whose values as wholes the server knows.
    statistics: ColumnStatistics,
    /// The first of them.
    values: Option<ArrayRef>,
}

/// Appends the leaves below `path`, in the file's order.
fn add_leaves(
    path: &mut Vec<String>,
    carrier: &Carrier,
    statistics: ColumnStatistics,
    values: Option<&ArrayRef>,
    leaves: &mut Vec<Leaf>,
) {
    let mut below = |names: &[&str], carrier: &Carrier, values: Option<&ArrayRef>| {
        let depth = path.len();
        path.extend(names.iter().map(|&name| name.to_owned()));
        add_leaves(path, carrier, ColumnStatistics::default(), values, leaves);
        path.truncate(depth);
    };
    match carrier {
        Carrier::List(element) => {
            let elements = values.and_then(|values| values.as_list_opt::<i32>()).map(ListArray::values);
            below(&["list", ELEMENT], element, elements);
        }
        Carrier::Struct(members) => {
            let parts = values.and_then(|values| values.as_struct_opt());
            for (index, member) in members.iter().enumerate() {
                below(&[&member.name], &member.carrier, parts.and_then(|parts| parts.columns().get(index)));
            }
        }
        Carrier::Map => {
            let map = values.and_then(|values| values.as_map_opt());
            below(&[ENTRIES, KEY], &Carrier::Text, map.map(MapArray::keys));
            below(&[ENTRIES, VALUE], &Carrier::Text, map.map(MapArray::values));
        }
        _ => leaves.push(Leaf {
            path: ColumnPath::new(path.clone()),
            carrier: carrier.clone(),
            statistics,
            values: values.map(Arc::clone),
        }),
    }
}

fn codec(compression: Compression) -> Result<Codec, EncodeError> {
    Ok(match compression {
        Compression::None => Codec::UNCOMPRESSED,
        Compression::Snappy => Codec::SNAPPY,
        Compression::Lz4 => Codec::LZ4_RAW,
        Compression::Zstd(level) => Codec::ZSTD(ZstdLevel::try_new(level)?),
        Compression::Gzip(level) => Codec::GZIP(GzipLevel::try_new(level)?),
    })
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
