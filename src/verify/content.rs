//! Reads one part again. Bytes are hashed, unpacked and read on rayon, a few buffers at a time.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use flate2::write::MultiGzDecoder;
use futures_util::stream::StreamExt;
use sha2::{Digest as _, Sha256};

use super::columns::{self, ExpectedColumn, ObservedStatistics};
use super::csv::CsvReader;
use super::ndjson::NdjsonReader;
use super::{chain, parquet, wrong_crc};
use crate::base::cpu::on_rayon;
use crate::base::text::number::hex_text;
use crate::base::words::counted;
use crate::commit::ManifestError;
use crate::commit::model::{FormatKind, Manifest, PartEntry};
use crate::model::Compression;
use crate::store::error::StoreFault;
use crate::store::{Destination, StoreError};

/// Buffers that go to rayon together, where so many have come: small ones are not worth a hand-over each.
const BUFFERS_AT_ONCE: usize = 16;

/// What is wrong with a part's content; empty where nothing is.
pub(super) async fn check(
    destination: &Destination,
    manifest: &Arc<Manifest>,
    part: &PartEntry,
    columns: &Arc<[ExpectedColumn]>,
) -> Result<Vec<String>, ManifestError> {
    let mut reading = match PartReader::new(manifest, part, columns) {
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
    let (mut problems, mut found) = on_rayon(move || reading.end(&part_of)).await?;
    // What is not the bytes that were written is looked at no further.
    if problems.is_empty() && matches!(manifest.format.kind, FormatKind::Parquet { .. }) {
        (problems, found) = parquet::check(destination, manifest, part, columns).await?;
    }
    if let Some(found) = found {
        problems.extend(columns::compare(columns, &found, part));
    }
    Ok(problems)
}

/// A part that is being read.
struct PartReader {
    bytes: u64,
    crc: Digest,
    sha256: Option<Sha256>,
    rows: Unpack,
    /// Why reading rows ended early. Bytes and checksums go on.
    broken: Option<String>,
}

impl PartReader {
    fn new(manifest: &Manifest, part: &PartEntry, columns: &Arc<[ExpectedColumn]>) -> io::Result<Self> {
        Ok(Self {
            bytes: 0,
            crc: Digest::new(CrcAlgorithm::Crc64Nvme),
            sha256: part.sha256.as_ref().map(|_| Sha256::new()),
            rows: Unpack::new(manifest, columns)?,
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

    /// What is wrong with the bytes; else with the rows, and what was found of each column.
    fn end(self, part: &PartEntry) -> (Vec<String>, Option<Vec<ObservedStatistics>>) {
        let mut problems = Vec::new();
        if self.bytes != part.bytes {
            problems.push(format!("it gave {}, the manifest says {}", counted(self.bytes, "byte"), part.bytes));
        }
        let crc = self.crc.finalize();
        if crc != part.crc64nvme {
            problems.push(wrong_crc("as read", crc, part.crc64nvme));
        }
        if let (Some(found), Some(wanted)) = (self.sha256, &part.sha256)
            && hex_text(&found.finalize()) != *wanted
        {
            problems.push("its SHA-256 is not the manifest's".to_owned());
        }
        if !problems.is_empty() {
            return (problems, None);
        }
        let read = match self.broken {
            Some(problem) => Err(problem),
            None => self.rows.end().map_err(|error| chain(&error)),
        };
        match read {
            Err(problem) => (vec![format!("its rows cannot be read: {problem}")], None),
            Ok(None) => (problems, None),
            Ok(Some((lines, found))) => {
                let (rows, header_rows) = (part.rows.unwrap_or_default(), part.header_rows);
                if lines != rows.saturating_add(u64::from(header_rows)) {
                    problems.push(format!(
                        "it has {}, the manifest says {} and {}",
                        counted(lines, "line"),
                        counted(rows, "row"),
                        counted(header_rows, "header line")
                    ));
                }
                (problems, Some(found))
            }
        }
    }
}

/// Lines of a text format.
enum Lines {
    Csv(Box<CsvReader>),
    Ndjson(NdjsonReader),
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Csv(rows) => rows.take(bytes)?,
            Self::Ndjson(rows) => rows.take(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn end(self) -> io::Result<(u64, Vec<ObservedStatistics>)> {
        match self {
            Self::Csv(rows) => rows.end(),
            Self::Ndjson(rows) => rows.end(),
        }
    }
}

/// The way from a part's bytes to its rows.
enum Unpack {
    /// Parquet, whose footer tells, and bytes of the source, which nobody here can read.
    Nothing,
    Plain(Lines),
    Gzip(Box<MultiGzDecoder<Lines>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Lines>>),
}

impl Unpack {
    fn new(manifest: &Manifest, columns: &Arc<[ExpectedColumn]>) -> io::Result<Self> {
        let lines = match &manifest.format.kind {
            FormatKind::Parquet { .. } | FormatKind::Source => return Ok(Self::Nothing),
            FormatKind::Csv(options) => Lines::Csv(Box::new(CsvReader::new(options, columns))),
            FormatKind::Ndjson => Lines::Ndjson(NdjsonReader::new(columns)),
        };
        match manifest.format.compression {
            Compression::None => Ok(Self::Plain(lines)),
            Compression::Gzip(_) => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(lines)))),
            Compression::Zstd(_) => Ok(Self::Zstd(Box::new(zstd::stream::write::Decoder::new(lines)?))),
            Compression::Snappy | Compression::Lz4 => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "text formats have gzip and zstd"))
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Plain(lines) => lines.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
            Self::Zstd(decoder) => decoder.write_all(bytes),
        }
    }

    /// Lines and columns; `None` where they are not read here.
    fn end(self) -> io::Result<Option<(u64, Vec<ObservedStatistics>)>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Plain(lines) => lines.end().map(Some),
            Self::Gzip(decoder) => decoder.finish()?.end().map(Some),
            Self::Zstd(mut decoder) => {
                decoder.flush()?;
                decoder.into_inner().end().map(Some)
            }
        }
    }
}
