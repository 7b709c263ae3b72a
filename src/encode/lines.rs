//! [`LineEncoder`]: the encoder of both text formats, compressed or not.

use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use super::compress::Compressor;
use super::csv::CsvRows;
use super::ndjson::NdjsonRows;
use super::text::{Cells, cells};
use super::{EncodeError, EncodeSummary, Encoder};
use crate::model::ColumnPlan;

/// Rows turned into text before they are compressed: enough to call the compressor seldom, few enough that the text
/// of common rows is still in the processor's cache.
const ROWS_AT_A_TIME: usize = 512;

/// How rows become text.
#[derive(Debug)]
pub(crate) enum Rows {
    Csv(CsvRows),
    Ndjson(NdjsonRows),
}

/// Encodes batches as lines of text.
#[derive(Debug)]
pub(crate) struct LineEncoder {
    columns: Arc<[ColumnPlan]>,
    types: Vec<DataType>,
    format: Rows,
    compressor: Option<Compressor>,
    /// Text on its way to the compressor.
    text: Vec<u8>,
    rows: u64,
    /// Whether the prologue has a frame of its own.
    joinable: bool,
    /// What can be cut off in front of the rows, once the prologue is written.
    header_bytes: Option<u64>,
}

impl LineEncoder {
    pub(crate) fn new(
        columns: Arc<[ColumnPlan]>,
        format: Rows,
        compressor: Option<Compressor>,
        joinable: bool,
    ) -> Self {
        let types = cells::types(&columns);
        Self { columns, types, format, compressor, text: Vec::new(), rows: 0, joinable, header_bytes: None }
    }

    /// Appends what stands in front of the first row, once. In a part it has a frame of its own, so that whoever joins
    /// parts can leave it out; in an object that stands alone it has not, since some readers stop after the first frame.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<u64, EncodeError> {
        if let Some(bytes) = self.header_bytes {
            return Ok(bytes);
        }
        let before = out.len();
        let apart = self.joinable || self.compressor.is_none();
        if let Rows::Csv(format) = &mut self.format {
            match &mut self.compressor {
                None => format.prologue(&self.columns, out),
                Some(compressor) => {
                    self.text.clear();
                    format.prologue(&self.columns, &mut self.text);
                    if !self.text.is_empty() {
                        compressor.write(&self.text, out)?;
                        if apart {
                            compressor.end_frame(out)?;
                        }
                    }
                }
            }
        }
        let bytes = if apart { super::count(out.len() - before) } else { 0 };
        self.header_bytes = Some(bytes);
        Ok(bytes)
    }

    fn header_rows(&self) -> u32 {
        match &self.format {
            Rows::Csv(format) => format.header_rows(),
            Rows::Ndjson(_) => 0,
        }
    }
}

impl Rows {
    /// For each column how many values a policy changed; empty where none.
    fn changed(&self) -> Box<[u64]> {
        let changed: Box<[u64]> = match self {
            Self::Csv(format) => format.changed().collect(),
            Self::Ndjson(format) => format.changed().collect(),
        };
        if changed.iter().any(|&count| count > 0) { changed } else { Box::default() }
    }

    fn append(&mut self, cells: &[Cells<'_>], rows: std::ops::Range<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Csv(format) => format.append(cells, rows, out),
            Self::Ndjson(format) => format.append(cells, rows, out),
        }
    }
}

impl Encoder for LineEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.begin(out)?;
        cells::check(&self.columns, &self.types, batch)?;
        let cells = Cells::of_batch(&self.columns, batch)?;
        let rows = batch.num_rows();
        match &mut self.compressor {
            None => self.format.append(&cells, 0..rows, out),
            Some(compressor) => {
                for from in (0..rows).step_by(ROWS_AT_A_TIME) {
                    self.text.clear();
                    self.format.append(&cells, from..rows.min(from + ROWS_AT_A_TIME), &mut self.text);
                    compressor.write(&self.text, out)?;
                }
            }
        }
        self.rows += super::count(rows);
        Ok(())
    }

    fn buffered_bytes(&self) -> usize {
        // A compressor holds back less than one of its blocks, which no bound has to know.
        0
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) -> Result<EncodeSummary, EncodeError> {
        let header_bytes = self.begin(out)?;
        // Without any frame, an empty part would be no gzip or zstd file at all.
        if let Some(compressor) = &mut self.compressor
            && (self.rows > 0 || header_bytes == 0)
        {
            compressor.end_frame(out)?;
        }
        let changed = self.format.changed();
        Ok(EncodeSummary { rows: Some(self.rows), header_rows: self.header_rows(), header_bytes, changed })
    }
}
