//! Whether a destination still is what its manifest says.

use std::collections::HashSet;
use std::io::{self, Write};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use futures_util::{StreamExt, stream};
use parquet::file::metadata::ParquetMetaDataReader;
use serde::Serialize;

use super::error::ManifestError;
use super::existing::look;
use super::model::{Manifest, PartEntry};
use super::placement::Placement;
use crate::cpu::on_rayon;
use crate::encode::{Compression, Format};
use crate::export::report::RunStatus;
use crate::limits;
use crate::store::Destination;

/// Bytes at the end of a Parquet file: the footer's length and a magic number.
const PARQUET_TAIL: usize = 8;

/// One thing that is not as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The object, relative to the destination.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The manifest's URL.
    pub manifest: String,
    /// The run that it names; absent where there is no manifest.
    pub run_id: Option<String>,
    /// Whether the export is complete or truncated, as the manifest says.
    pub status: Option<RunStatus>,
    /// Parts that were looked at.
    pub parts: u64,
    /// Rows that the manifest counts.
    pub rows: u64,
    /// Bytes that the manifest counts.
    pub bytes: u64,
    /// Whether every byte was read again.
    pub read_data: bool,
    /// All that is wrong; empty where all is right.
    pub findings: Vec<Finding>,
}

/// Compares a destination with its manifest: each part is there with its size and, where the store tells one, its
/// checksum; nothing else stands under `data/`. With `read_data` each part is read again: size, checksum, rows.
///
/// # Errors
/// The destination cannot be read. Whatever is merely wrong is a finding; so is a missing or unreadable manifest.
pub async fn verify(
    destination: &Destination,
    placement: &Placement,
    read_data: bool,
) -> Result<VerifyReport, ManifestError> {
    let path = placement.manifest_path();
    let mut report = VerifyReport {
        manifest: destination.object_url(&path),
        run_id: None,
        status: None,
        parts: 0,
        rows: 0,
        bytes: 0,
        read_data,
        findings: Vec::new(),
    };
    let manifest = match look(destination, placement).await {
        Ok(Some(existing)) => existing.manifest,
        Ok(None) => {
            report.findings.push(finding(&path, "there is no manifest: no export was committed here"));
            return Ok(report);
        }
        Err(ManifestError::Decode { source, .. }) => {
            report.findings.push(finding(&path, format!("not a manifest that this version understands: {source}")));
            return Ok(report);
        }
        Err(other) => return Err(other),
    };
    report.run_id = Some(manifest.run_id.clone());
    report.status = Some(manifest.status);
    report.rows = manifest.totals.rows;
    report.bytes = manifest.totals.bytes;
    check_totals(&manifest, &path, &mut report.findings);
    let checks = stream::iter(&manifest.parts).map(|part| check_part(destination, &manifest, part, read_data));
    let mut checked = checks.buffered(limits::VERIFIES_AT_ONCE);
    while let Some(findings) = checked.next().await {
        report.parts += 1;
        report.findings.extend(findings?);
    }
    if *placement == Placement::Parts {
        strangers(destination, &manifest, &mut report.findings).await?;
    }
    Ok(report)
}

fn finding(path: &str, problem: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), problem: problem.into() }
}

fn check_totals(manifest: &Manifest, path: &str, findings: &mut Vec<Finding>) {
    let sum = |of: fn(&PartEntry) -> u64| manifest.parts.iter().map(of).fold(0_u64, u64::saturating_add);
    let parts = u64::try_from(manifest.parts.len()).unwrap_or(u64::MAX);
    for (what, total, found) in [
        ("parts", manifest.totals.parts, parts),
        ("rows", manifest.totals.rows, sum(|part| part.rows)),
        ("bytes", manifest.totals.bytes, sum(|part| part.bytes)),
    ] {
        if total != found {
            findings.push(finding(path, format!("its total of {what} is {total}, and its parts have {found}")));
        }
    }
}

/// Objects under `data/` that the manifest does not name: a reader that lists would take them for rows.
async fn strangers(
    destination: &Destination,
    manifest: &Manifest,
    findings: &mut Vec<Finding>,
) -> Result<(), ManifestError> {
    let named: HashSet<&str> = manifest.parts.iter().map(|part| part.path.as_str()).collect();
    for (path, _) in destination.list("data").await.map_err(ManifestError::Verify)? {
        if !named.contains(path.as_str()) {
            findings.push(finding(&path, "the manifest does not name it"));
        }
    }
    Ok(())
}

async fn check_part(
    destination: &Destination,
    manifest: &Manifest,
    part: &PartEntry,
    read_data: bool,
) -> Result<Vec<Finding>, ManifestError> {
    let Some(facts) = destination.head(&part.path).await.map_err(ManifestError::Verify)? else {
        return Ok(vec![finding(&part.path, "it is missing")]);
    };
    let mut findings = Vec::new();
    if facts.bytes != part.bytes {
        findings.push(finding(&part.path, format!("it has {} bytes instead of {}", facts.bytes, part.bytes)));
    }
    if facts.crc64nvme.is_some_and(|crc| crc != part.crc64nvme) {
        findings.push(finding(&part.path, "the store's checksum of it differs"));
    }
    if read_data {
        findings.extend(read_part(destination, manifest, part).await?);
    }
    Ok(findings)
}

async fn read_part(
    destination: &Destination,
    manifest: &Manifest,
    part: &PartEntry,
) -> Result<Vec<Finding>, ManifestError> {
    let mut reading = Reading::new(manifest.format.format(), manifest.format.compression);
    let mut chunks = destination.read_stream(&part.path);
    while let Some(chunk) = chunks.next().await {
        let chunk: Bytes = chunk.map_err(ManifestError::Verify)?;
        reading = on_rayon(move || {
            reading.take(&chunk);
            reading
        })
        .await?;
    }
    Ok(on_rayon({
        let (path, rows, header, crc) = (part.path.clone(), part.rows, u64::from(part.header_rows), part.crc64nvme);
        move || {
            let found = reading.finish();
            let mut findings = Vec::new();
            if found.crc64nvme != crc {
                findings.push(finding(&path, "its bytes have another checksum"));
            }
            match found.rows {
                Ok(read) if read != rows.saturating_add(header) => findings
                    .push(finding(&path, format!("it holds {} rows instead of {rows}", read.saturating_sub(header)))),
                Ok(_) => {}
                Err(error) => findings.push(finding(&path, format!("it cannot be read: {error}"))),
            }
            findings
        }
    })
    .await?)
}

/// One part on its way through: never more of it in memory than a chunk, or than a Parquet footer.
struct Reading {
    crc: Digest,
    rows: Rows,
    failed: Option<io::Error>,
}

enum Rows {
    Plain(Lines),
    Gzip(Box<flate2::write::MultiGzDecoder<Lines>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Lines>>),
    /// The last bytes, where the footer is.
    Parquet(Vec<u8>),
    Broken,
}

struct Found {
    crc64nvme: u64,
    rows: io::Result<u64>,
}

impl Reading {
    fn new(format: Format, compression: Compression) -> Self {
        let lines = Lines { quotes: format == Format::Csv, quoted: false, lines: 0 };
        let mut failed = None;
        let rows = match (format, compression) {
            (Format::Parquet, _) => Rows::Parquet(Vec::new()),
            (_, Compression::Gzip(_)) => Rows::Gzip(Box::new(flate2::write::MultiGzDecoder::new(lines))),
            (_, Compression::Zstd(_)) => match zstd::stream::write::Decoder::new(lines) {
                Ok(decoder) => Rows::Zstd(Box::new(decoder)),
                Err(error) => {
                    failed = Some(error);
                    Rows::Broken
                }
            },
            _ => Rows::Plain(lines),
        };
        Self { crc: Digest::new(CrcAlgorithm::Crc64Nvme), rows, failed }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.crc.update(chunk);
        if self.failed.is_some() {
            return;
        }
        let taken = match &mut self.rows {
            Rows::Plain(lines) => lines.write_all(chunk),
            Rows::Gzip(decoder) => decoder.write_all(chunk),
            Rows::Zstd(decoder) => decoder.write_all(chunk),
            Rows::Parquet(tail) => {
                tail.extend_from_slice(chunk);
                let spare = tail.len().saturating_sub(limits::PARQUET_FOOTER_BYTES_MAX + PARQUET_TAIL);
                tail.drain(..spare);
                Ok(())
            }
            Rows::Broken => Ok(()),
        };
        self.failed = taken.err();
    }

    fn finish(self) -> Found {
        let crc64nvme = self.crc.finalize();
        let rows = match (self.failed, self.rows) {
            (Some(error), _) => Err(error),
            (None, Rows::Plain(lines)) => Ok(lines.lines),
            (None, Rows::Gzip(decoder)) => decoder.finish().map(|lines| lines.lines),
            (None, Rows::Zstd(mut decoder)) => decoder.flush().map(|()| decoder.into_inner().lines),
            (None, Rows::Parquet(tail)) => parquet_rows(&tail),
            (None, Rows::Broken) => Err(io::Error::other("no decoder")),
        };
        Found { crc64nvme, rows }
    }
}

/// Rows by the footer.
fn parquet_rows(tail: &[u8]) -> io::Result<u64> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (rest, end) = tail.split_last_chunk::<PARQUET_TAIL>().ok_or_else(|| broken("it is too short for Parquet"))?;
    let ([a, b, c, d, ..], b"PAR1") = (end, &end[4..]) else { return Err(broken("it does not end as Parquet does")) };
    let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
    let start = rest.len().checked_sub(length).ok_or_else(|| broken("its footer is longer than it, or than 64 MiB"))?;
    let footer = ParquetMetaDataReader::decode_metadata(&rest[start..]).map_err(io::Error::other)?;
    let file = u64::try_from(footer.file_metadata().num_rows()).map_err(|_| broken("its row count is negative"))?;
    let groups: i64 = footer.row_groups().iter().map(parquet::file::metadata::RowGroupMetaData::num_rows).sum();
    if u64::try_from(groups).ok() == Some(file) { Ok(file) } else { Err(broken("its row groups do not add up")) }
}

/// Counts line ends, in CSV those outside quotes. Quotes in CSV come in pairs, doubled ones included, so that their
/// parity says whether a line end belongs to a value. (A CSV reader would pass over the empty line that a NULL in an
/// only column is.)
#[derive(Debug)]
struct Lines {
    quotes: bool,
    quoted: bool,
    lines: u64,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            match byte {
                b'"' if self.quotes => self.quoted = !self.quoted,
                b'\n' if !self.quoted => self.lines += 1,
                _ => {}
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
