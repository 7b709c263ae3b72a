//! The wire form of `format_options`.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::WireError;
use crate::commit::model::{FormatKind, FormatRecord};
use crate::model::{Compression, CsvOptions, Format, Newline};

/// `csv` is there for CSV alone, `parquet` for Parquet alone.
#[derive(Serialize, Deserialize)]
pub(super) struct WireFormat {
    format: Format,
    compression: WireCompression,
    #[serde(skip_serializing_if = "Option::is_none")]
    csv: Option<WireCsv>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parquet: Option<WireParquet>,
}

#[derive(Serialize, Deserialize)]
struct WireCompression {
    codec: WireCodec,
    level: Option<i32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireCodec {
    None,
    Snappy,
    Lz4,
    Zstd,
    Gzip,
}

#[derive(Serialize, Deserialize)]
struct WireCsv {
    header: bool,
    delimiter: char,
    null: String,
    newline: WireNewline,
    bom: bool,
    formula_guard: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireNewline {
    Lf,
    Crlf,
}

#[derive(Serialize, Deserialize)]
struct WireParquet {
    row_group_rows: NonZeroU64,
    row_group_bytes: NonZeroU64,
}

impl From<&FormatRecord> for WireFormat {
    fn from(record: &FormatRecord) -> Self {
        let (csv, parquet) = match &record.kind {
            FormatKind::Parquet { row_group_rows, row_group_bytes } => {
                (None, Some(WireParquet { row_group_rows: *row_group_rows, row_group_bytes: *row_group_bytes }))
            }
            FormatKind::Csv(options) => (Some(options.into()), None),
            FormatKind::Ndjson | FormatKind::Source => (None, None),
        };
        Self { format: record.format(), compression: record.compression.into(), csv, parquet }
    }
}

impl TryFrom<WireFormat> for FormatRecord {
    type Error = WireError;

    fn try_from(wire: WireFormat) -> Result<Self, WireError> {
        let kind = match (wire.format, wire.csv, wire.parquet) {
            (Format::Parquet, _, Some(WireParquet { row_group_rows, row_group_bytes })) => {
                FormatKind::Parquet { row_group_rows, row_group_bytes }
            }
            (Format::Csv, Some(options), _) => FormatKind::Csv(options.try_into()?),
            (Format::Ndjson, _, _) => FormatKind::Ndjson,
            (Format::Source, _, _) => FormatKind::Source,
            (Format::Parquet, _, None) | (Format::Csv, None, _) => {
                return Err(WireError::Value {
                    field: "format_options",
                    found: "null".into(),
                    reason: "parquet and csv come with their own options",
                });
            }
        };
        Ok(Self { compression: wire.compression.try_into()?, kind })
    }
}

impl From<Compression> for WireCompression {
    fn from(compression: Compression) -> Self {
        let (codec, level) = match compression {
            Compression::None => (WireCodec::None, None),
            Compression::Snappy => (WireCodec::Snappy, None),
            Compression::Lz4 => (WireCodec::Lz4, None),
            Compression::Zstd(level) => (WireCodec::Zstd, Some(level)),
            Compression::Gzip(level) => (WireCodec::Gzip, i32::try_from(level).ok()),
        };
        Self { codec, level }
    }
}

impl TryFrom<WireCompression> for Compression {
    type Error = WireError;

    fn try_from(wire: WireCompression) -> Result<Self, WireError> {
        let bad_level = || WireError::Value {
            field: "format_options.compression.level",
            found: wire.level.map_or_else(|| "null".into(), |level| level.to_string()),
            reason: "zstd and gzip come with their level",
        };
        Ok(match wire.codec {
            WireCodec::None => Self::None,
            WireCodec::Snappy => Self::Snappy,
            WireCodec::Lz4 => Self::Lz4,
            WireCodec::Zstd => Self::Zstd(wire.level.ok_or_else(bad_level)?),
            WireCodec::Gzip => {
                Self::Gzip(wire.level.and_then(|level| u32::try_from(level).ok()).ok_or_else(bad_level)?)
            }
        })
    }
}

impl From<&CsvOptions> for WireCsv {
    fn from(options: &CsvOptions) -> Self {
        Self {
            header: options.header,
            delimiter: char::from(options.delimiter),
            null: options.null.clone(),
            newline: match options.newline {
                Newline::Lf => WireNewline::Lf,
                Newline::Crlf => WireNewline::Crlf,
            },
            bom: options.bom,
            formula_guard: options.formula_guard,
        }
    }
}

impl TryFrom<WireCsv> for CsvOptions {
    type Error = WireError;

    fn try_from(wire: WireCsv) -> Result<Self, WireError> {
        let delimiter = u8::try_from(wire.delimiter).ok().filter(u8::is_ascii).ok_or_else(|| WireError::Value {
            field: "format_options.csv.delimiter",
            found: wire.delimiter.to_string(),
            reason: "it is one ASCII character",
        })?;
        Ok(Self {
            header: wire.header,
            delimiter,
            null: wire.null,
            newline: match wire.newline {
                WireNewline::Lf => Newline::Lf,
                WireNewline::Crlf => Newline::Crlf,
            },
            bom: wire.bom,
            formula_guard: wire.formula_guard,
        })
    }
}
