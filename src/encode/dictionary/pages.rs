//! The pages of a column chunk, and what the footer and the page index say of them.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// How pages are compressed.
pub(in crate::encode) enum PageCodec {
    None,
    Zstd(zstd::bulk::Compressor<'static>),
}

/// The least and the greatest value of a page.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    /// By rank among the chunk's values.
    pub(super) ranks: (u16, u16),
    /// By place in the dictionary.
    pub(super) places: (u16, u16),
}

/// The pages of one chunk, and what its metadata are made of.
pub(super) struct ChunkWriter<'a> {
    column: &'a ColumnDescPtr,
    codec: &'a mut PageCodec,
    sink: TrackedWrite<Vec<u8>>,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
    uncompressed: usize,
    data_offset: Option<u64>,
    pages: i32,
    string_bytes: Option<i64>,
    last: Option<Ends>,
    ascending: bool,
    descending: bool,
}

impl<'a> ChunkWriter<'a> {
    pub(super) fn new(column: &'a ColumnDescPtr, codec: &'a mut PageCodec) -> Self {
        Self {
            column,
            codec,
            sink: TrackedWrite::new(Vec::new()),
            column_index: ColumnIndexBuilder::new(column.physical_type()),
            offset_index: OffsetIndexBuilder::new(),
            uncompressed: 0,
            data_offset: None,
            pages: 0,
            string_bytes: None,
            last: None,
            ascending: true,
            descending: true,
        }
    }

    pub(super) fn dictionary(&mut self, plain: Vec<u8>, values: usize) -> Result<(), ParquetError> {
        let num_values = u32::try_from(values).map_err(too_large)?;
        let page = |buf| Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        self.page(plain, page)?;
        Ok(())
    }

    pub(super) fn data(
        &mut self,
        page: Vec<u8>,
        rows: usize,
        nulls: usize,
        ends: Option<Ends>,
        string_bytes: Option<i64>,
        value: impl Fn(usize) -> Vec<u8>,
    ) -> Result<(), ParquetError> {
        let num_values = u32::try_from(rows).map_err(too_large)?;
        let spec = self.page(page, |buf| Page::DataPage {
            buf,
            num_values,
            encoding: Encoding::RLE_DICTIONARY,
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
        self.offset_index.append_unencoded_byte_array_data_bytes(string_bytes);
        self.string_bytes = string_bytes.map(|bytes| bytes + self.string_bytes.unwrap_or(0));
        let nulls = i64::try_from(nulls).map_err(too_large)?;
        let Some(ends) = ends else {
            self.column_index.append(true, Vec::new(), Vec::new(), nulls, None);
            return Ok(());
        };
        let (least, greatest) = (value(ends.places.0.into()), value(ends.places.1.into()));
        self.column_index.append(false, least, greatest, nulls, None);
        if let Some(Ends { ranks, .. }) = self.last.replace(ends) {
            self.ascending &= ranks.0 <= ends.ranks.0 && ranks.1 <= ends.ranks.1;
            self.descending &= ranks.0 >= ends.ranks.0 && ranks.1 >= ends.ranks.1;
        }
        Ok(())
    }

    fn page(&mut self, plain: Vec<u8>, page: impl FnOnce(Bytes) -> Page) -> Result<PageWriteSpec, ParquetError> {
        let size = plain.len();
        let bytes = match self.codec {
            PageCodec::None => plain,
            PageCodec::Zstd(compressor) => compressor.compress(&plain)?,
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
    ) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let long = |number: usize| i64::try_from(number).map_err(too_large);
        let bytes = self.sink.into_inner()?;
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let metadata = ColumnChunkMetaData::builder(Arc::clone(self.column))
            .set_compression(match self.codec {
                PageCodec::None => Compression::UNCOMPRESSED,
                PageCodec::Zstd(_) => Compression::ZSTD(ZstdLevel::default()),
            })
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_page_encoding_stats(vec![
                stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
                stats(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, self.pages),
            ])
            .set_total_compressed_size(long(bytes.len())?)
            .set_total_uncompressed_size(long(self.uncompressed)?)
            .set_num_values(long(rows)?)
            .set_dictionary_page_offset(Some(0))
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
            column_index: Some(self.column_index.build()?),
            offset_index: Some(self.offset_index.build()),
        };
        Ok((bytes.into(), result))
    }
}
/// A size beyond the format's own integers.
pub(super) fn too_large(_: std::num::TryFromIntError) -> ParquetError {
    ParquetError::General("a column chunk beyond the format's bounds".to_owned())
}
