//! The pages of a column chunk, and what the footer and the page index say of them.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, BooleanBufferBuilder};
use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::hybrid;

/// How pages are compressed.
pub(in crate::encode) enum PageCodec {
    None,
    Zstd(zstd::bulk::Compressor<'static>),
}

/// Pages that the codec takes less than this part off are written as they are: whoever reads them is faster for it.
const CODEC_GAIN: usize = 32;

/// Bytes of a chunk up to which its codec is not worth a thought.
const SMALL_CHUNK: usize = 64 * 1024;

impl PageCodec {
    /// Whether a chunk of so many pages like `page`, behind a page like `dictionary`, gets shorter by it.
    pub(super) fn pays(&mut self, dictionary: &[u8], page: &[u8], pages: usize) -> Result<bool, ParquetError> {
        let Self::Zstd(compressor) = self else { return Ok(false) };
        let plain = dictionary.len() + page.len() * pages;
        if plain <= SMALL_CHUNK {
            return Ok(true);
        }
        let mut gain =
            |plain: &[u8]| Ok::<_, ParquetError>(plain.len().saturating_sub(compressor.compress(plain)?.len()));
        let gained = gain(dictionary)? + gain(page)? * pages;
        Ok(gained >= plain / CODEC_GAIN)
    }
}

/// What the footer and the page index say of a page.
pub(super) struct PageFacts {
    pub(super) rows: usize,
    pub(super) nulls: usize,
    pub(super) ends: PageEnds,
    /// Bytes of its texts, without their lengths; `None` where they are none.
    pub(super) string_bytes: Option<i64>,
}

/// The least and the greatest value of a page.
pub(super) enum PageEnds {
    /// It has no value.
    None,
    /// No bound of them is short enough; the chunk has no page index then.
    Unknown,
    /// As the page index has them, and how they stand to those of the last page that had values.
    Known { least: Vec<u8>, greatest: Vec<u8>, order: (Ordering, Ordering) },
}

/// The pages of one chunk, and what its metadata are made of.
pub(super) struct ChunkWriter {
    column: ColumnDescPtr,
    encoding: Encoding,
    /// Whether the codec is left away.
    is_plain: bool,
    sink: TrackedWrite<Vec<u8>>,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
    uncompressed: usize,
    data_offset: Option<u64>,
    pages: i32,
    string_bytes: Option<i64>,
    ascending: bool,
    descending: bool,
}

impl ChunkWriter {
    /// A chunk whose data pages are encoded so.
    pub(super) fn new(column: &ColumnDescPtr, encoding: Encoding) -> Self {
        Self {
            column: Arc::clone(column),
            encoding,
            is_plain: false,
            sink: TrackedWrite::new(Vec::new()),
            column_index: ColumnIndexBuilder::new(column.physical_type()),
            offset_index: OffsetIndexBuilder::new(),
            uncompressed: 0,
            data_offset: None,
            pages: 0,
            string_bytes: None,
            ascending: true,
            descending: true,
        }
    }

    /// Leaves the codec away from all pages, of which there is none yet.
    pub(super) fn leave_plain(&mut self) {
        self.is_plain = true;
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> usize {
        self.sink.bytes_written()
    }

    pub(super) fn dictionary(
        &mut self,
        plain: Vec<u8>,
        values: usize,
        codec: &mut PageCodec,
    ) -> Result<(), ParquetError> {
        let num_values = u32::try_from(values).map_err(too_large)?;
        let page = |buf| Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        self.page(plain, codec, page)?;
        Ok(())
    }

    /// All pages of a chunk have one codec.
    pub(super) fn data(&mut self, page: Vec<u8>, facts: PageFacts, codec: &mut PageCodec) -> Result<(), ParquetError> {
        let num_values = u32::try_from(facts.rows).map_err(too_large)?;
        let encoding = self.encoding;
        let spec = self.page(page, codec, |buf| Page::DataPage {
            buf,
            num_values,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        self.data_offset.get_or_insert(spec.offset);
        self.pages += 1;
        self.offset_index.append_row_count(i64::from(num_values));
        self.offset_index.append_offset_and_size(
            i64::try_from(spec.offset).map_err(too_large)?,
            i32::try_from(spec.compressed_size).map_err(too_large)?,
        );
        self.offset_index.append_unencoded_byte_array_data_bytes(facts.string_bytes);
        self.string_bytes = facts.string_bytes.map(|bytes| bytes + self.string_bytes.unwrap_or(0));
        let nulls = i64::try_from(facts.nulls).map_err(too_large)?;
        match facts.ends {
            PageEnds::None => self.column_index.append(true, Vec::new(), Vec::new(), nulls, None),
            PageEnds::Unknown => self.column_index.to_invalid(),
            PageEnds::Known { least, greatest, order } => {
                self.column_index.append(false, least, greatest, nulls, None);
                self.ascending &= order.0.is_ge() && order.1.is_ge();
                self.descending &= order.0.is_le() && order.1.is_le();
            }
        }
        Ok(())
    }

    fn page(
        &mut self,
        plain: Vec<u8>,
        codec: &mut PageCodec,
        page: impl FnOnce(Bytes) -> Page,
    ) -> Result<PageWriteSpec, ParquetError> {
        let size = plain.len();
        let bytes = match codec {
            PageCodec::Zstd(compressor) if !self.is_plain => compressor.compress(&plain)?,
            _ => plain,
        };
        let page = CompressedPage::new(page(bytes.into()), size);
        let spec = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        self.uncompressed += spec.uncompressed_size;
        Ok(spec)
    }

    pub(super) fn close(
        mut self,
        statistics: Statistics,
        rows: usize,
        codec: &PageCodec,
    ) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let long = |number: usize| i64::try_from(number).map_err(too_large);
        let bytes = self.sink.into_inner()?;
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let codec = match codec {
            PageCodec::Zstd(_) if !self.is_plain => Compression::ZSTD(ZstdLevel::default()),
            _ => Compression::UNCOMPRESSED,
        };
        let mut encodings = vec![Encoding::RLE, self.encoding];
        let mut pages = vec![stats(PageType::DATA_PAGE, self.encoding, self.pages)];
        let has_dictionary = self.encoding == Encoding::RLE_DICTIONARY;
        if has_dictionary {
            encodings.insert(0, Encoding::PLAIN);
            pages.insert(0, stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
        }
        let metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(codec)
            .set_encodings(encodings)
            .set_page_encoding_stats(pages)
            .set_total_compressed_size(long(bytes.len())?)
            .set_total_uncompressed_size(long(self.uncompressed)?)
            .set_num_values(long(rows)?)
            .set_dictionary_page_offset(has_dictionary.then_some(0))
            .set_data_page_offset(i64::try_from(self.data_offset.unwrap_or(0)).map_err(too_large)?)
            .set_statistics(statistics)
            .set_unencoded_byte_array_data_bytes(self.string_bytes)
            .build()?;
        self.column_index.set_boundary_order(match (self.ascending, self.descending) {
            (true, _) => BoundaryOrder::ASCENDING,
            (false, true) => BoundaryOrder::DESCENDING,
            (false, false) => BoundaryOrder::UNORDERED,
        });
        let result = ColumnCloseResult {
            bytes_written: u64::try_from(bytes.len()).map_err(too_large)?,
            rows_written: u64::try_from(rows).map_err(too_large)?,
            metadata,
            bloom_filter: None,
            column_index: self.column_index.valid().then(|| self.column_index.build()).transpose()?,
            offset_index: Some(self.offset_index.build()),
        };
        Ok((bytes.into(), result))
    }
}

/// Rows, and which of them have a value.
#[derive(Default)]
pub(super) struct Presence {
    rows: usize,
    /// `None` until the first NULL.
    present: Option<BooleanBufferBuilder>,
}

impl Presence {
    pub(super) fn add(&mut self, array: &dyn Array) {
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
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// How many rows, and of each whether it has a value; `None` where all have. None are left.
    pub(super) fn take(&mut self) -> (usize, Option<BooleanBuffer>) {
        let Self { rows, present } = std::mem::take(self);
        (rows, present.map(|mut present| present.finish()))
    }
}

/// What the footer says of integers; `narrow` ones are of the format's INT32.
pub(super) fn integer_statistics(
    ends: Option<(i64, i64)>,
    narrow: bool,
    distinct: Option<u64>,
    nulls: Option<u64>,
) -> Result<Statistics, ParquetError> {
    let (least, greatest) = ends.unzip();
    if !narrow {
        let statistics = ValueStatistics::new(least, greatest, distinct, nulls, false);
        return Ok(statistics.with_backwards_compatible_min_max(true).into());
    }
    let of = |value: Option<i64>| value.map(i32::try_from).transpose().map_err(too_large);
    let statistics = ValueStatistics::new(of(least)?, of(greatest)?, distinct, nulls, false);
    Ok(statistics.with_backwards_compatible_min_max(true).into())
}

/// An integer as statistics of pages have it.
pub(super) fn integer_bytes(value: i64, narrow: bool) -> Vec<u8> {
    value.to_le_bytes()[..if narrow { 4 } else { 8 }].to_vec()
}

/// Begins a data page with the levels of its rows, for a column that may have NULLs.
pub(super) fn begin_page(
    present: Option<&BooleanBuffer>,
    rows: usize,
    nulls: usize,
    page: &mut Vec<u8>,
) -> Result<(), ParquetError> {
    page.extend_from_slice(&[0; 4]);
    let bits = present.map(BooleanBuffer::sliced);
    hybrid::append_levels(bits.as_deref().unwrap_or_default(), rows, nulls, page);
    let length = u32::try_from(page.len() - 4).map_err(too_large)?;
    page[..4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// A size beyond the format's own integers.
pub(super) fn too_large(_: std::num::TryFromIntError) -> ParquetError {
    ParquetError::General("a column chunk beyond the format's bounds".to_owned())
}
