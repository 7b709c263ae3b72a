//! What a person can choose about a format.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// The file format of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// CSV as PostgreSQL's COPY writes it.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// The codec: inside the pages for Parquet, around the whole part for CSV and NDJSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "codec", content = "level", rename_all = "lowercase")]
pub enum Compression {
    /// Uncompressed.
    None,
    /// Snappy; Parquet only.
    Snappy,
    /// LZ4 (`LZ4_RAW`); Parquet only.
    Lz4,
    /// zstd at a level from 1 to 22.
    Zstd(i32),
    /// gzip at a level from 0 to 9.
    Gzip(u32),
}

/// The line end of CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Newline {
    /// `\n`.
    Lf,
    /// `\r\n`, as RFC 4180 has it.
    Crlf,
}

/// Options of CSV.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsvOptions {
    /// Whether each part begins with a header line.
    pub header: bool,
    /// Between values; one ASCII byte, neither quote, CR, LF nor NUL.
    pub delimiter: u8,
    /// What an absent value is written as, unquoted; a value that reads the same is quoted.
    pub null: String,
    /// At the end of each line, the header's included.
    pub newline: Newline,
    /// Whether each part begins with a UTF-8 byte order mark.
    pub bom: bool,
    /// Whether text that a spreadsheet would run as a formula gets a `'` in front.
    pub formula_guard: bool,
}

/// Options of Parquet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParquetOptions {
    /// At most so many rows in a row group.
    pub row_group_rows: NonZeroU64,
    /// A row group ends once its encoded bytes reach this.
    pub row_group_bytes: NonZeroU64,
    /// Key-value metadata for the footer (run id, snapshot).
    pub metadata: Vec<(String, String)>,
    /// How the rows of each row group are ordered: columns by their place, and whether each descends; NULLs last. Empty
    /// where they are not, or not in Parquet's own order of the values.
    pub sorted: Vec<(usize, bool)>,
    /// Whether integers may be written as differences (`DELTA_BINARY_PACKED`) and texts apart from their lengths
    /// (`DELTA_LENGTH_BYTE_ARRAY`), which old readers and those of warehouses need not know.
    pub delta: bool,
}

/// Everything an encoder is made from, but the columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatOptions {
    /// The format.
    pub format: Format,
    /// The codec.
    pub compression: Compression,
    /// Used where `format` is CSV.
    pub csv: CsvOptions,
    /// Used where `format` is Parquet.
    pub parquet: ParquetOptions,
}

impl FormatOptions {
    /// The end of an object's name: `parquet`, `csv`, `ndjson`, then `.gz` or `.zst`.
    pub fn extension(&self) -> &'static str {
        match (self.format, self.compression) {
            (Format::Parquet, _) => "parquet",
            (Format::Csv, Compression::Gzip(_)) => "csv.gz",
            (Format::Csv, Compression::Zstd(_)) => "csv.zst",
            (Format::Csv, _) => "csv",
            (Format::Ndjson, Compression::Gzip(_)) => "ndjson.gz",
            (Format::Ndjson, Compression::Zstd(_)) => "ndjson.zst",
            (Format::Ndjson, _) => "ndjson",
        }
    }

    /// The object's Content-Type. A compressed text part is its compressed bytes, not an encoding of the text, so that
    /// no client unpacks it on the way.
    pub fn content_type(&self) -> &'static str {
        match (self.format, self.compression) {
            (Format::Parquet, _) => "application/vnd.apache.parquet",
            (_, Compression::Gzip(_)) => "application/gzip",
            (_, Compression::Zstd(_)) => "application/zstd",
            (Format::Csv, _) => "text/csv; charset=utf-8",
            (Format::Ndjson, _) => "application/x-ndjson",
        }
    }
}
