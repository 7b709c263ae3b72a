//! What a person can choose about a format.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};

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
    /// Bytes as the source made them, in a format of its own.
    Source,
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

impl Compression {
    /// The codec's name, as `--compression` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd(_) => "zstd",
            Self::Gzip(_) => "gzip",
        }
    }
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

/// How an object is named and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKind {
    extension: Cow<'static, str>,
    content_type: Cow<'static, str>,
}

impl ObjectKind {
    /// The longest extension, and the longest content type, that a source may give its bytes.
    const LENGTHS_MAX: (usize, usize) = (32, 128);

    /// What a source says of its bytes; `None` where either cannot safely stand in an object's name or in a header. An
    /// extension is of small letters, digits and, between them, dots.
    pub fn of_source(extension: String, content_type: String) -> Option<Self> {
        let (extension_max, type_max) = Self::LENGTHS_MAX;
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let printed = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let named = extension.len() <= extension_max && extension.split('.').all(word);
        let served = (1..=type_max).contains(&content_type.len()) && content_type.bytes().all(printed);
        (named && served).then_some(Self { extension: extension.into(), content_type: content_type.into() })
    }

    /// How objects of a format are named and served; `None` for bytes of the source, which says it itself.
    pub(crate) fn of(format: Format, compression: Compression) -> Option<Self> {
        let extension = match (format, compression) {
            (Format::Source, _) => return None,
            (Format::Parquet, _) => "parquet",
            (Format::Csv, Compression::Gzip(_)) => "csv.gz",
            (Format::Csv, Compression::Zstd(_)) => "csv.zst",
            (Format::Csv, _) => "csv",
            (Format::Ndjson, Compression::Gzip(_)) => "ndjson.gz",
            (Format::Ndjson, Compression::Zstd(_)) => "ndjson.zst",
            (Format::Ndjson, _) => "ndjson",
        };
        let content_type = match (format, compression) {
            (Format::Source, _) => return None,
            (Format::Parquet, _) => "application/vnd.apache.parquet",
            (_, Compression::Gzip(_)) => "application/gzip",
            (_, Compression::Zstd(_)) => "application/zstd",
            (Format::Csv, _) => "text/csv; charset=utf-8",
            (Format::Ndjson, _) => "application/x-ndjson",
        };
        Some(Self { extension: extension.into(), content_type: content_type.into() })
    }

    /// The end of an object's name: `parquet`, `csv`, `ndjson`, then `.gz` or `.zst`.
    pub fn extension(&self) -> &str {
        &self.extension
    }

    /// The object's Content-Type. A compressed text part is its compressed bytes, not an encoding of the text, so that
    /// no client unpacks it on the way.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }
}

/// What the bytes of a stream are, for whoever sends them on: told once, before the first of them.
#[derive(Debug, Clone, Default)]
pub struct StreamKind(Arc<OnceLock<ObjectKind>>);

impl StreamKind {
    /// What they are; `None` until it is known.
    pub fn get(&self) -> Option<&ObjectKind> {
        self.0.get()
    }

    pub(crate) fn tell(&self, kind: &ObjectKind) {
        // Told already where the source's bytes are opened anew before any was sent.
        let _ = self.0.set(kind.clone());
    }
}

impl FormatOptions {
    /// How objects of this format are named and served; `None` for bytes of the source, which says it itself.
    pub fn object_kind(&self) -> Option<ObjectKind> {
        ObjectKind::of(self.format, self.compression)
    }

    /// The same for bytes of the source: no codec of ours, no options.
    #[must_use]
    pub(crate) fn of_source(mut self) -> Self {
        (self.format, self.compression) = (Format::Source, Compression::None);
        self
    }
}
