//! Parquet: format 1.0, one row group in memory, encodings steered by the server's statistics.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression as Codec, Encoding, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::text::cells;
use super::{Compression, EncodeError, EncodeSummary, Encoder, FormatOptions, ParquetOptions};
use crate::plan::column::{ELEMENT, ENTRIES, KEY, VALUE};
use crate::plan::{Carrier, ColumnPlan, ColumnStatistics};

/// At this fraction of distinct values a dictionary holds nearly every value once, and costs more than it saves.
const MOSTLY_DISTINCT: f32 = -0.5;

/// Beyond this correlation neighbours are close enough for differences to be short.
const NEARLY_SORTED: f32 = 0.9;

/// What readers such as parquet-mr look for in front of the version before they trust statistics.
const CREATED_BY: &str = concat!("outhaul version ", env!("CARGO_PKG_VERSION"));

/// Encodes batches as one Parquet file.
pub(crate) struct ParquetEncoder {
    columns: Arc<[ColumnPlan]>,
    types: Vec<DataType>,
    schema: SchemaRef,
    /// Finished row groups pass through its vector on their way out.
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
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
        let properties = properties(&options.parquet, options.compression, &columns)?;
        // Without Arrow's own schema in the footer, every reader sees the file's plain types.
        let writer_options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), writer_options)?;
        Ok(Self { types: cells::types(&columns), columns, schema, writer, rows: 0 })
    }

    /// The batch under the plan's names and promises, so that nothing else reaches the file.
    fn planned(&self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        cells::check(&self.columns, &self.types, batch)?;
        for (column, array) in self.columns.iter().zip(batch.columns()) {
            if !column.nullable && array.null_count() > 0 {
                return Err(EncodeError::Unrepresentable {
                    column: column.name.clone(),
                    reason:
                        "a NULL arrived although it is declared NOT NULL, which foreign tables do not enforce; leave \
                             it out of --columns and write it as an expression: --column NAME=EXPRESSION"
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
        self.writer.write(&batch)?;
        self.rows += super::count(batch.num_rows());
        Self::drain(self.writer.inner_mut(), out);
        Ok(())
    }

    fn buffered_bytes(&self) -> usize {
        self.writer.in_progress_size()
    }

    fn finish(self: Box<Self>, out: &mut Vec<u8>) -> Result<EncodeSummary, EncodeError> {
        let mut rest = self.writer.into_inner()?;
        Self::drain(&mut rest, out);
        Ok(EncodeSummary { rows: self.rows, header_rows: 0, header_bytes: 0, changed: Box::default() })
    }
}

fn field(column: &ColumnPlan) -> Field {
    column.carrier.field(&column.name, column.nullable)
}

fn properties(
    options: &ParquetOptions,
    compression: Compression,
    columns: &[ColumnPlan],
) -> Result<WriterProperties, EncodeError> {
    let metadata = options.metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(CREATED_BY.to_owned())
        .set_key_value_metadata(Some(metadata))
        .set_compression(codec(compression)?)
        .set_max_row_group_row_count(Some(bound(options.row_group_rows)))
        .set_max_row_group_bytes(Some(bound(options.row_group_bytes)));
    let mut firsts = Vec::with_capacity(columns.len());
    let mut leaves = Vec::new();
    for column in columns {
        firsts.push(leaves.len());
        add_leaves(&mut vec![column.name.clone()], &column.carrier, column.statistics, &mut leaves);
    }
    for leaf in leaves {
        builder = steer(builder, leaf, options.delta);
    }
    Ok(builder.set_sorting_columns(sorting_columns(&options.sorted, &firsts)?).build())
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
}

/// Appends the leaves below `path`, in the file's order.
fn add_leaves(path: &mut Vec<String>, carrier: &Carrier, statistics: ColumnStatistics, leaves: &mut Vec<Leaf>) {
    let mut below = |names: &[&str], carrier: &Carrier| {
        let depth = path.len();
        path.extend(names.iter().map(|&name| name.to_owned()));
        add_leaves(path, carrier, ColumnStatistics::default(), leaves);
        path.truncate(depth);
    };
    match carrier {
        Carrier::List(element) => below(&["list", ELEMENT], element),
        Carrier::Struct(members) => members.iter().for_each(|member| below(&[&member.name], &member.carrier)),
        Carrier::Map => [KEY, VALUE].iter().for_each(|part| below(&[ENTRIES, part], &Carrier::Text)),
        _ => leaves.push(Leaf { path: ColumnPath::new(path.clone()), carrier: carrier.clone(), statistics }),
    }
}

fn bound(limit: std::num::NonZeroU64) -> usize {
    usize::try_from(limit.get()).unwrap_or(usize::MAX)
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

/// Chooses a leaf's encoding: dictionary unless its values hardly repeat, differences where they also come sorted.
fn steer(builder: WriterPropertiesBuilder, leaf: Leaf, delta: bool) -> WriterPropertiesBuilder {
    let Leaf { path, carrier, statistics } = leaf;
    let mostly_distinct = statistics.n_distinct.map(|distinct| (-1.0..=MOSTLY_DISTINCT).contains(&distinct));
    let nearly_sorted = statistics.correlation.is_some_and(|correlation| correlation.abs() > NEARLY_SORTED);
    let rarely_repeats = matches!(carrier, Carrier::Float32 | Carrier::Float64 | Carrier::Uuid);
    if !mostly_distinct.unwrap_or(rarely_repeats) {
        return builder;
    }
    let builder = builder.set_column_dictionary_enabled(path.clone(), false);
    if delta && mostly_distinct == Some(true) && nearly_sorted && is_integer(&carrier) {
        builder.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
    } else {
        builder
    }
}

/// Whether the format stores the carrier as INT32 or INT64.
fn is_integer(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Decimal128 { precision, .. } => *precision <= 18,
        Carrier::Bool
        | Carrier::Float32
        | Carrier::Float64
        | Carrier::NumberText
        | Carrier::Text
        | Carrier::Json
        | Carrier::Bytes
        | Carrier::Uuid
        | Carrier::Decimal256 { .. }
        | Carrier::List(_)
        | Carrier::Struct(_)
        | Carrier::Map => false,
        _ => true,
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
