//! Whether a destination still is what its manifest says.
//!
//! By default one HEAD a part: size, and CRC64NVME where the store keeps it. With `read_data` every part is read again:
//! bytes, checksums and rows. What differs is a [`Finding`], not an error; errors are a destination that cannot be
//! looked at.

mod content;
mod rows;

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::build::totals;
use super::error::ManifestError;
use super::existing::look;
use super::model::{Manifest, PartEntry};
use super::placement::Placement;
use super::wire::crc64nvme_text;
use crate::export::report::RunStatus;
use crate::limits;
use crate::store::Destination;

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
    /// Rows they have by the manifest; with `read_data` and no finding, by counting.
    pub rows: u64,
    /// Bytes they have by the manifest.
    pub bytes: u64,
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
    fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// Compares a destination with its manifest. No manifest, and one that cannot be read, are findings.
///
/// Memory: [`limits::VERIFIES_AT_ONCE`] parts at a time, a few read buffers each, and one Parquet footer each.
///
/// # Errors
/// [`ManifestError::Look`] or [`ManifestError::Verify`] where the destination does not answer.
///
/// # Cancel safety
/// It only reads.
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
        rows: 0,
        bytes: 0,
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

    let checks = stream::iter(0..manifest.parts.len())
        .map(|index| check_part(destination, &manifest, &manifest.parts[index], options));
    let found: Vec<Vec<Finding>> = checks.buffered(limits::VERIFIES_AT_ONCE).try_collect().await?;
    report.findings.extend(found.into_iter().flatten());
    if *placement == Placement::Parts {
        report.findings.extend(strangers(destination, &manifest).await?);
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
    let rows = manifest.totals.rows;
    match manifest.row_cap.max_rows.map(std::num::NonZeroU64::get) {
        Some(cap) if rows > cap || (truncated && rows != cap) => {
            problems.push(format!("it has {rows} rows under a cap of {cap}"));
        }
        None if truncated => problems.push("it is truncated without a cap".to_owned()),
        _ => {}
    }
    let mut seen = HashSet::new();
    let twice = manifest.parts.iter().filter(|part| !seen.insert(part.path.as_str()));
    problems.extend(twice.map(|part| format!("it names {} twice", part.path)));
    problems
}

async fn check_part(
    destination: &Destination,
    manifest: &Arc<Manifest>,
    part: &PartEntry,
    options: VerifyOptions,
) -> Result<Vec<Finding>, ManifestError> {
    let Some(facts) = destination.head(&part.path).await.map_err(ManifestError::Verify)? else {
        return Ok(vec![Finding::new(&part.path, "it is missing")]);
    };
    let mut problems = Vec::new();
    if facts.bytes != part.bytes {
        problems.push(format!("it has {} bytes, the manifest says {}", facts.bytes, part.bytes));
    }
    if let Some(crc) = facts.crc64nvme.filter(|crc| *crc != part.crc64nvme) {
        problems.push(wrong_crc("the store says", crc, part.crc64nvme));
    }
    if options.read_data && problems.is_empty() {
        problems = content::check(destination, manifest, part).await?;
    }
    Ok(problems.into_iter().map(|problem| Finding::new(&part.path, problem)).collect())
}

fn wrong_crc(who: &str, found: u64, wanted: u64) -> String {
    let (found, wanted) = (crc64nvme_text(found), crc64nvme_text(wanted));
    format!("{who} its CRC64NVME is {found}, the manifest says {wanted}")
}

/// Objects that a reader of `data/` would take for parts, and no manifest names. With the flat layout other objects may
/// stand beside the parts, so there only names of parts count.
async fn strangers(destination: &Destination, manifest: &Manifest) -> Result<Vec<Finding>, ManifestError> {
    let named: HashSet<&str> = manifest.parts.iter().map(|part| part.path.as_str()).collect();
    let flat = !manifest.parts.iter().all(|part| part.path.starts_with("data/"));
    let listed = destination.list(if flat { "" } else { "data" }).await.map_err(ManifestError::Verify)?;
    let counts = |path: &str| path.starts_with("data/") || (flat && !path.contains('/') && path.starts_with("part-"));
    let strange = listed.iter().filter(|(path, _)| counts(path) && !named.contains(path.as_str()));
    Ok(strange.map(|(path, bytes)| Finding::new(path, format!("no manifest names it ({bytes} bytes)"))).collect())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
