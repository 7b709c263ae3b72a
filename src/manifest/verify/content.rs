//! Reads one part again. Bytes are hashed, unpacked and counted on rayon, a few buffers at a time.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use flate2::write::MultiGzDecoder;
use futures_util::stream::StreamExt;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use sha2::{Digest as _, Sha256};

use super::rows::{CsvRows, Lines};
use super::{chain, wrong_crc};
use crate::cpu::on_rayon;
use crate::encode::Compression;
use crate::limits;
use crate::manifest::error::ManifestError;
use crate::manifest::model::{FormatKind, Manifest, PartEntry};
use crate::store::error::StoreFault;
use crate::store::{Destination, StoreError};

/// Buffers that go to rayon together, where so many have come: small ones are not worth a hand-over each.
const BUFFERS_AT_ONCE: usize = 16;

/// The last bytes of a Parquet file: the footer's length, and the magic.
const PARQUET_TAIL_BYTES: u64 = 8;

/// What is wrong with a part's content; empty where nothing is.
pub(super) async fn check(
    destination: &Destination,
    manifest: &Arc<Manifest>,
    part: &PartEntry,
) -> Result<Vec<String>, ManifestError> {
    let mut reading = match Reading::new(manifest, part) {
        Ok(reading) => reading,
        Err(error) => return Ok(vec![format!("it cannot be unpacked: {error}")]),
    };
    let mut buffers = destination.read_stream(&part.path).ready_chunks(BUFFERS_AT_ONCE);
    while let Some(some) = buffers.next().await {
        let some: Result<Vec<Bytes>, StoreError> = some.into_iter().collect();
        let some = match some {
            Ok(some) => some,
            Err(error) if error.fault == StoreFault::Missing => return Ok(vec!["it went missing".to_owned()]),
            Err(error) => return Err(ManifestError::Verify(error)),
        };
        reading = on_rayon(move || {
            for bytes in &some {
                reading.take(bytes);
            }
            reading
        })
        .await?;
    }
    let part_of = part.clone();
    let mut problems = on_rayon(move || reading.end(&part_of)).await?;
    // A footer is parsed only of bytes that are known to be the ones that were written.
    if problems.is_empty() && matches!(manifest.format.kind, FormatKind::Parquet { .. }) {
        problems.extend(check_footer(destination, part).await?);
    }
    Ok(problems)
}

/// A part that is being read.
struct Reading {
    bytes: u64,
    crc: Digest,
    sha256: Option<Sha256>,
    rows: Unpack,
    /// Why counting ended early. Bytes and checksums go on.
    broken: Option<String>,
}

impl Reading {
    fn new(manifest: &Manifest, part: &PartEntry) -> io::Result<Self> {
        Ok(Self {
            bytes: 0,
            crc: Digest::new(CrcAlgorithm::Crc64Nvme),
            sha256: part.sha256.as_ref().map(|_| Sha256::new()),
            rows: Unpack::new(manifest)?,
            broken: None,
        })
    }

    fn take(&mut self, bytes: &[u8]) {
        // `usize` is 64 bits or less on every platform that there is.
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.crc.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if self.broken.is_none()
            && let Err(error) = self.rows.take(bytes)
        {
            self.broken = Some(chain(&error));
        }
    }

    fn end(self, part: &PartEntry) -> Vec<String> {
        let mut problems = Vec::new();
        if self.bytes != part.bytes {
            problems.push(format!("{} bytes were read, the manifest says {}", self.bytes, part.bytes));
        }
        let crc = self.crc.finalize();
        if crc != part.crc64nvme {
            problems.push(wrong_crc("as read", crc, part.crc64nvme));
        }
        if let (Some(found), Some(wanted)) = (self.sha256, &part.sha256)
            && hex(&found.finalize()) != *wanted
        {
            problems.push("its SHA-256 is not the manifest's".to_owned());
        }
        let counted = match self.broken {
            Some(problem) => Err(problem),
            None => self.rows.end().map_err(|error| chain(&error)),
        };
        match counted {
            Err(problem) => problems.push(format!("its rows cannot be read: {problem}")),
            Ok(Some(lines)) if lines != part.rows.saturating_add(u64::from(part.header_rows)) => {
                problems.push(format!(
                    "it has {lines} lines, the manifest says {} rows and {} header lines",
                    part.rows, part.header_rows
                ));
            }
            Ok(_) => {}
        }
        problems
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Lines of a text format.
enum Count {
    Csv(Box<CsvRows>),
    Ndjson(Lines),
}

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Csv(rows) => rows.take(bytes)?,
            Self::Ndjson(lines) => lines.take(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Count {
    fn end(self) -> io::Result<u64> {
        match self {
            Self::Csv(rows) => rows.end(),
            Self::Ndjson(lines) => lines.end(),
        }
    }
}

/// The way from a part's bytes to its lines.
enum Unpack {
    /// Parquet: its footer tells.
    Nothing,
    Plain(Count),
    Gzip(Box<MultiGzDecoder<Count>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Count>>),
}

impl Unpack {
    fn new(manifest: &Manifest) -> io::Result<Self> {
        let count = match &manifest.format.kind {
            FormatKind::Parquet { .. } => return Ok(Self::Nothing),
            FormatKind::Csv(options) => Count::Csv(Box::new(CsvRows::new(options, manifest.schema.len()))),
            FormatKind::Ndjson => Count::Ndjson(Lines::default()),
        };
        match manifest.format.compression {
            Compression::None => Ok(Self::Plain(count)),
            Compression::Gzip(_) => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(count)))),
            Compression::Zstd(_) => Ok(Self::Zstd(Box::new(zstd::stream::write::Decoder::new(count)?))),
            Compression::Snappy | Compression::Lz4 => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "text formats have gzip and zstd"))
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Plain(count) => count.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
            Self::Zstd(decoder) => decoder.write_all(bytes),
        }
    }

    /// The lines; `None` for Parquet.
    fn end(self) -> io::Result<Option<u64>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Plain(count) => count.end().map(Some),
            Self::Gzip(decoder) => decoder.finish()?.end().map(Some),
            Self::Zstd(mut decoder) => {
                decoder.flush()?;
                decoder.into_inner().end().map(Some)
            }
        }
    }
}

async fn check_footer(destination: &Destination, part: &PartEntry) -> Result<Vec<String>, ManifestError> {
    let range = |start: u64, end: u64| destination.read_range(&part.path, start..end);
    let Some(tail_start) = part.bytes.checked_sub(PARQUET_TAIL_BYTES) else {
        return Ok(vec!["it is too short for a Parquet file".to_owned()]);
    };
    let tail = range(tail_start, part.bytes).await.map_err(ManifestError::Verify)?;
    let Some((length, b"PAR1")) = tail.split_first_chunk::<4>() else {
        return Ok(vec!["it does not end as a Parquet file does".to_owned()]);
    };
    let length = u64::from(u32::from_le_bytes(*length));
    let start = tail_start.checked_sub(length).filter(|_| length <= limits::PARQUET_FOOTER_BYTES_MAX);
    let Some(start) = start else {
        return Ok(vec![format!("its Parquet footer claims {length} bytes")]);
    };
    let footer = range(start, tail_start).await.map_err(ManifestError::Verify)?;
    Ok(match on_rayon(move || footer_rows(&footer)).await? {
        Ok(rows) if u64::try_from(rows) == Ok(part.rows) => Vec::new(),
        Ok(rows) => vec![format!("its Parquet footer says {rows} rows, the manifest {}", part.rows)],
        Err(error) => vec![format!("its Parquet footer cannot be read: {}", chain(&error))],
    })
}

/// The file's row count, which must be the sum of its row groups'.
fn footer_rows(footer: &[u8]) -> Result<i64, ParquetError> {
    let metadata = ParquetMetaDataReader::decode_metadata(footer)?;
    let rows = metadata.file_metadata().num_rows();
    let groups = metadata.row_groups().iter().try_fold(0_i64, |sum, group| sum.checked_add(group.num_rows()));
    if groups == Some(rows) {
        return Ok(rows);
    }
    Err(ParquetError::General(format!("it says {rows} rows, and its row groups have another sum")))
}
