//! Whether a destination still is what its manifest says.
//!
//! By default one HEAD a part: size, and CRC64NVME where the store keeps it. With `read_data` every part is read again:
//! bytes and checksums, then every row: its columns, types, NULLs, and the least and greatest values. What differs is a
//! [`Finding`], not an error; errors are a destination that cannot be looked at.

mod columns;
mod content;
mod csv;
mod ndjson;
mod order;
mod parquet;
mod value;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::base::words::counted;
use crate::commit::build::totals;
use crate::commit::model::PartEntry;
use crate::commit::wire::crc64nvme_text;
use crate::commit::{Manifest, ManifestError, Placement, look, strangers};
use crate::model::{ColumnSummary, RunStatus};
use crate::store::Destination;

/// Parts that `outhaul verify` looks at, or reads, at the same time.
const VERIFIES_AT_ONCE: usize = 8;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Whether every part is read.
    pub read_data: bool,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The manifest's URL.
    pub manifest: String,
    /// The run that wrote it; absent where there is none.
    pub run_id: Option<String>,
    /// What the run said of itself.
    pub status: Option<RunStatus>,
    /// Parts that were looked at.
    pub parts: u64,
    /// Rows they have by the manifest; with `read_data` and no finding, by counting. None where nobody counts them, in bytes
    /// that the source made, and where there is no manifest.
    pub rows: Option<u64>,
    /// Bytes they have by the manifest.
    pub bytes: u64,
    /// Parts whose checksum the store keeps, so that it was compared without reading them.
    pub checksums_kept: u64,
    /// Whether every part was read.
    pub data_read: bool,
    /// What differs; with any the destination is not to be trusted (exit 30).
    pub findings: Vec<Finding>,
}

/// One thing that is not as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The object, relative to the destination.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Finding {
    pub(crate) fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// Compares a destination with its manifest. No manifest, and one that cannot be read, are findings.
///
/// Memory: `VERIFIES_AT_ONCE` parts at a time; of each a few read buffers and one row, or one Parquet footer
/// and one row group.
///
/// # Errors
/// [`ManifestError::Look`] or [`ManifestError::Verify`] where the destination does not answer.
///
/// # Cancel safety
/// It only reads.
///
/// # Examples
/// ```
/// use outhaul::commit::Placement;
/// use outhaul::verify::{VerifyOptions, verify};
/// use outhaul::store::{Destination, StoreOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bytes = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest_v1/manifest.json"));
/// # let (made, manifest) = (tempfile::tempdir()?, outhaul::commit::Manifest::from_json(bytes)?);
/// # let folder = made.path().to_str().unwrap();
/// # std::fs::create_dir(made.path().join("data"))?;
/// # std::fs::write(made.path().join("_manifest.json"), bytes)?;
/// # for part in &manifest.parts {
/// #     std::fs::write(made.path().join(&part.path), vec![0; usize::try_from(part.bytes)?])?;
/// # }
/// let destination = Destination::open(folder, &StoreOptions::small())?;
/// let report = verify(&destination, &Placement::Parts, VerifyOptions { read_data: false }).await?;
/// assert!(report.findings.is_empty(), "{:?}", report.findings);
/// # Ok(())
/// # }
/// ```
pub async fn verify(
    destination: &Destination,
    placement: &Placement,
    options: VerifyOptions,
) -> Result<VerifyReport, ManifestError> {
    let path = placement.manifest_path();
    let mut report = VerifyReport {
        manifest: destination.object_url(&path),
        run_id: None,
        status: None,
        parts: 0,
        rows: None,
        bytes: 0,
        checksums_kept: 0,
        data_read: options.read_data,
        findings: Vec::new(),
    };
    let manifest = match look(destination, placement).await {
        Ok(Some(existing)) => Arc::new(existing.manifest),
        Ok(None) => {
            report.findings.push(Finding::new(&path, "there is no manifest: no export was committed here"));
            return Ok(report);
        }
        Err(ManifestError::Decode { source, .. }) => {
            report.findings.push(Finding::new(&path, chain(&source)));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    report.run_id = Some(manifest.run_id.clone());
    report.status = Some(manifest.status);
    report.parts = manifest.totals.parts;
    report.rows = manifest.totals.rows;
    report.bytes = manifest.totals.bytes;
    report.findings.extend(contradictions(&manifest).into_iter().map(|problem| Finding::new(&path, problem)));

    let columns = match columns::columns(&manifest) {
        Ok(columns) => Some(columns.into()),
        Err(problems) => {
            report.findings.extend(problems.into_iter().map(|problem| Finding::new(&path, problem)));
            None
        }
    };
    // Without its types the data cannot be read, but a HEAD can be sent.
    let columns = columns.as_ref().filter(|_| options.read_data);
    let checks = stream::iter(0..manifest.parts.len()).map(|index| check_part(destination, &manifest, index, columns));
    let checked: Vec<PartCheck> = checks.buffered(VERIFIES_AT_ONCE).try_collect().await?;
    for part in checked {
        report.checksums_kept += u64::from(part.checksum_kept);
        report.findings.extend(part.findings);
    }
    if *placement == Placement::Parts {
        let named = manifest.parts.iter().map(|part| part.path.as_str()).collect();
        let flat = !manifest.parts.iter().all(|part| part.path.starts_with("data/"));
        let strange = strangers(destination, flat, &named).await.map_err(ManifestError::Verify)?;
        let finding = |bytes: u64| format!("no manifest names it ({})", counted(bytes, "byte"));
        report.findings.extend(strange.iter().map(|(path, bytes)| Finding::new(path, finding(*bytes))));
    }
    Ok(report)
}

/// What a manifest says against itself.
fn contradictions(manifest: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    match totals(&manifest.parts) {
        Ok(sums) if sums == manifest.totals => {}
        Ok(sums) => problems.push(format!("its totals are {:?}, but its parts add up to {sums:?}", manifest.totals)),
        Err(error) => problems.push(error.to_string()),
    }
    let truncated = manifest.row_cap.truncated;
    if truncated != (manifest.status == RunStatus::Truncated) {
        problems.push("status and row_cap.truncated contradict each other".to_owned());
    }
    let rows = manifest.totals.rows.unwrap_or_default();
    match manifest.row_cap.max_rows.map(std::num::NonZeroU64::get) {
        Some(cap) if rows > cap || (truncated && rows != cap) => {
            problems.push(format!("it has {} under a cap of {cap}", counted(rows, "row")));
        }
        None if truncated => problems.push("it is truncated without a cap".to_owned()),
        _ => {}
    }
    problems.extend(manifest.parts.iter().flat_map(|part| part_contradictions(manifest, part)));
    let mut seen = HashSet::new();
    let twice = manifest.parts.iter().find(|part| !seen.insert(part.path.as_str()));
    problems.extend(match twice {
        Some(part) => Some(format!("it names {} twice", part.path)),
        None => rolls(&manifest.parts),
    });
    problems
}

/// What the manifest says of a part's columns against what it says of the part and of the columns.
fn part_contradictions(manifest: &Manifest, part: &PartEntry) -> Vec<String> {
    // `--manifest-stats none`.
    if part.columns.is_empty() {
        return Vec::new();
    }
    let names = |column: &ColumnSummary| column.name.clone();
    if !part.columns.iter().map(names).eq(manifest.schema.iter().map(|column| column.name.clone())) {
        return vec![format!("the columns of {} are not those of its schema", part.path)];
    }
    let mut problems = Vec::new();
    for (summary, column) in part.columns.iter().zip(&manifest.schema) {
        let most = part.rows.filter(|_| column.nullable).unwrap_or_default();
        if summary.nulls > most {
            let (ColumnSummary { name, nulls, .. }, path) = (summary, &part.path);
            problems.push(format!("it counts {nulls} NULLs of column {name:?} in {path}, where {most} can be"));
        }
        problems.extend(order::problem(column, summary, &part.path));
    }
    problems
}

/// The parts of a partition are numbered 0, 1, 2, …, stand together and have one range.
fn rolls(parts: &[PartEntry]) -> Option<String> {
    let mut expected = (None, 0);
    let other_range =
        parts.windows(2).find(|pair| pair[0].partition == pair[1].partition && pair[0].range != pair[1].range);
    if let Some([_, part]) = other_range {
        return Some(format!(
            "{} has another range than the part before it, which is of the same partition",
            part.path
        ));
    }
    for part in parts {
        let wanted = if expected.0 == Some(part.partition) { expected.1 } else { 0 };
        if part.roll != wanted || expected.0.is_some_and(|last| part.partition < last) {
            return Some(format!(
                "{} does not follow the part before it: one is missing, or they are out of order",
                part.path
            ));
        }
        expected = (Some(part.partition), wanted + 1);
    }
    None
}

/// What was found of one part.
struct PartCheck {
    checksum_kept: bool,
    findings: Vec<Finding>,
}

/// Looks at a part; with `columns` it is read, where the HEAD has nothing against it.
async fn check_part(
    destination: &Destination,
    manifest: &Arc<Manifest>,
    index: usize,
    columns: Option<&Arc<[columns::ExpectedColumn]>>,
) -> Result<PartCheck, ManifestError> {
    let part = &manifest.parts[index];
    let mut problems = Vec::new();
    let mut checksum_kept = false;
    match destination.head(&part.path).await.map_err(ManifestError::Verify)? {
        None => problems.push("it is missing".to_owned()),
        Some(facts) => {
            checksum_kept = facts.crc64nvme.is_some();
            if facts.bytes != part.bytes {
                problems.push(format!("it has {}, the manifest says {}", counted(facts.bytes, "byte"), part.bytes));
            }
            if let Some(crc) = facts.crc64nvme.filter(|crc| *crc != part.crc64nvme) {
                problems.push(wrong_crc("the store says", crc, part.crc64nvme));
            }
        }
    }
    if let (Some(columns), true) = (columns, problems.is_empty()) {
        problems = content::check(destination, manifest, part, columns).await?;
    }
    let findings = problems.into_iter().map(|problem| Finding::new(&part.path, problem)).collect();
    Ok(PartCheck { checksum_kept, findings })
}

fn wrong_crc(who: &str, found: u64, wanted: u64) -> String {
    let (found, wanted) = (crc64nvme_text(found), crc64nvme_text(wanted));
    format!("{who} its CRC64NVME is {found}, the manifest says {wanted}")
}

fn odd(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "its last line is cut off")
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
