//! The record of a job at its root: which exports a run has, and what became of them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::clean::{CleanReport, CleanRequest, clean};
use super::error::ExportError;
use super::job::{JobOutcome, JobPart, JobTerms};
use super::outside::posted;
use crate::base::failpoint;
use crate::model::{CredentialCommand, ExportErrorKind, OnError, RunStatus, SnapshotScope};
use crate::store::{Destination, StoreOptions, unreadable};

/// The version of the record.
const RECORD_VERSION: u32 = 1;

/// The folder of the records at a root.
const RECORDS: &str = "_runs";

/// The newest record of a run that has ended.
const NEWEST: &str = "_run.json";

const JSON: &str = "application/json";

/// `_runs/<run_id>.json` and `_run.json`, version 1.
#[derive(Serialize)]
struct JobRunRecord<'a> {
    version: u32,
    run_id: &'a str,
    outhaul_version: &'static str,
    started_at: DateTime<Utc>,
    /// Null while the run goes on, and for ever where it was killed.
    ended_at: Option<DateTime<Utc>>,
    one_instant: Option<bool>,
    /// `continue` or `stop`.
    on_error: &'static str,
    /// `run` or `export`.
    snapshot: &'static str,
    /// The day that stood for `{date}`; null where nobody knows.
    date: Option<&'a str>,
    exports: Vec<ExportInRecord>,
}

/// One export of a run. A record that is to be cleaned or gone on with needs its destination alone.
#[derive(Serialize, Deserialize)]
pub(super) struct ExportInRecord {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) relation: String,
    pub(super) destination: String,
    #[serde(default)]
    pub(super) single_file: bool,
    /// `running`, `complete`, `truncated`, `failed` or `cancelled`.
    #[serde(default = "running")]
    status: String,
    #[serde(default)]
    manifest: Option<String>,
    #[serde(default)]
    rows: Option<u64>,
    #[serde(default)]
    parts: Option<u64>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    snapshot: Option<String>,
    #[serde(default)]
    already_committed: bool,
    #[serde(default)]
    error: Option<String>,
}

/// The status of an export that has not ended, or was killed.
fn running() -> String {
    "running".to_owned()
}

/// What is needed of a record to go on with its run, or to clean after it.
#[derive(Deserialize)]
pub(super) struct FoundRecord {
    version: u32,
    pub(super) run_id: String,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    #[serde(default)]
    on_error: Option<String>,
    #[serde(default)]
    snapshot: Option<String>,
    #[serde(default)]
    pub(super) date: Option<String>,
    pub(super) exports: Vec<ExportInRecord>,
}

impl FoundRecord {
    /// What a failed export does to the others.
    pub(super) fn on_error(&self) -> OnError {
        if self.on_error.as_deref() == Some("stop") { OnError::Stop } else { OnError::Continue }
    }

    /// What is read under one snapshot.
    pub(super) fn scope(&self) -> SnapshotScope {
        if self.snapshot.as_deref() == Some("export") { SnapshotScope::Export } else { SnapshotScope::Run }
    }
}

/// What was cleaned at the destinations of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanedJob {
    /// Each destination that a run of the job has written to, or was to.
    pub exports: Vec<CleanReport>,
}

/// Writes down which exports a run is going to have.
///
/// # Errors
/// The root cannot be written.
pub(super) async fn begin(terms: &JobTerms, parts: &[JobPart], started_at: DateTime<Utc>) -> Result<(), ExportError> {
    let exports = parts.iter().map(|part| ExportInRecord {
        name: part.name.clone(),
        relation: part.relation.clone(),
        destination: part.destination.clone(),
        single_file: part.single_file,
        status: running(),
        manifest: None,
        rows: None,
        parts: None,
        bytes: None,
        snapshot: None,
        already_committed: false,
        error: None,
    });
    let exports = with_others(terms, exports.collect()).await?;
    let json = record(terms, started_at, None, None, exports)?;
    Ok(terms.root.put(&path(&terms.run_id), json.into(), JSON).await?)
}

/// Writes down what became of a run: its own record first, then the newest one of the root.
pub(super) async fn end(
    terms: &JobTerms,
    started_at: DateTime<Utc>,
    exports: &[JobOutcome],
) -> Result<String, ExportError> {
    let exports = with_others(terms, exports.iter().map(in_record).collect()).await?;
    let standing = exports.iter().filter(|export| ["complete", "truncated"].contains(&export.status.as_str()));
    let one_instant = one_instant(standing.map(|export| export.snapshot.as_deref()));
    let json = record(terms, started_at, Some(Utc::now()), Some(one_instant), exports)?;
    let (root, path) = (&terms.root, path(&terms.run_id));
    root.put(&path, json.clone().into(), JSON).await?;
    root.put(NEWEST, json.into(), JSON).await?;
    if terms.may_be_posted
        && let Err(error) = posted::remove(root, std::slice::from_ref(&terms.run_id)).await
    {
        // Workers see that nobody owns the destinations any more.
        tracing::warn!(error = error.sentence(), "what stood at the root for workers could not be removed");
    }
    Ok(root.object_url(&path))
}

/// Adds the exports of the run that are not among these, as its record has them: a retry may have been asked for a few, or a
/// pattern may not find a table any more, and what the run has left of the others is found by the record alone.
async fn with_others(terms: &JobTerms, mut exports: Vec<ExportInRecord>) -> Result<Vec<ExportInRecord>, ExportError> {
    let Some(found) = terms.root.read(&path(&terms.run_id)).await? else { return Ok(exports) };
    // One that cannot be read is written anew.
    if let Ok(record) = serde_json::from_slice::<FoundRecord>(&found.bytes) {
        let is_among = |other: &ExportInRecord| exports.iter().any(|export| export.destination == other.destination);
        let others: Vec<_> = record.exports.into_iter().filter(|other| !is_among(other)).collect();
        exports.extend(others);
    }
    Ok(exports)
}

/// Whether all that stands was read under one snapshot, by the snapshot of each.
pub(super) fn one_instant<'a>(standing: impl Iterator<Item = Option<&'a str>>) -> bool {
    let snapshots: Vec<_> = standing.collect();
    let different: BTreeSet<_> = snapshots.iter().collect();
    snapshots.len() < 2 || (different.len() == 1 && !different.contains(&None))
}

fn path(run_id: &str) -> String {
    format!("{RECORDS}/{run_id}.json")
}

fn record(
    terms: &JobTerms,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    one_instant: Option<bool>,
    exports: Vec<ExportInRecord>,
) -> Result<Vec<u8>, ExportError> {
    let (version, outhaul_version) = (RECORD_VERSION, env!("CARGO_PKG_VERSION"));
    let on_error = match terms.on_error {
        OnError::Continue => "continue",
        OnError::Stop => "stop",
    };
    let snapshot = match terms.snapshot {
        SnapshotScope::Run => "run",
        SnapshotScope::Export => "export",
    };
    let run_id = &terms.run_id;
    let record = JobRunRecord {
        version,
        run_id,
        outhaul_version,
        started_at,
        ended_at,
        one_instant,
        on_error,
        snapshot,
        date: terms.date.as_deref(),
        exports,
    };
    serde_json::to_vec_pretty(&record)
        .map_err(|error| ExportError::internal("writing the run's record as JSON").with_source(error))
}

fn in_record(outcome: &JobOutcome) -> ExportInRecord {
    let JobOutcome { name, relation, destination, single_file, result } = outcome;
    let report = result.as_ref().ok();
    ExportInRecord {
        name: name.clone(),
        relation: relation.clone(),
        destination: destination.clone(),
        single_file: *single_file,
        status: match result {
            Ok(report) if report.status == RunStatus::Complete => "complete",
            Ok(_) => "truncated",
            Err(error) if error.kind.is_cancel() => "cancelled",
            Err(_) => "failed",
        }
        .to_owned(),
        manifest: report.and_then(|report| report.manifest.clone()),
        rows: report.and_then(|report| report.rows),
        parts: report.map(|report| report.parts),
        bytes: report.map(|report| report.bytes),
        snapshot: report.and_then(|report| report.snapshot.clone()),
        already_committed: report.is_some_and(|report| report.already_committed),
        error: result.as_ref().err().map(ExportError::sentence),
    }
}

/// Cleans the destinations of all runs of a job, where `request` names a job's root; `None` where no run of a job has left a
/// record there. The records of runs that never ended go with what these left.
///
/// # Errors
/// As [`clean`]; destinations that were cleaned before stay clean.
///
/// # Cancel safety
/// A repeated call goes on where this one stopped.
pub async fn clean_job(request: &CleanRequest) -> Result<Option<CleanedJob>, ExportError> {
    if request.single_file {
        return Ok(None);
    }
    let credentials = request.aws_credential_command.as_ref();
    let root = Destination::connect(&request.destination, &StoreOptions::small(), credentials).await?;
    let (mut places, mut unended) = (BTreeSet::new(), Vec::new());
    // Before the records: who posts something has a record.
    let posted = posted::runs(&root).await?;
    for (path, record) in found(&root).await? {
        places.extend(record.exports.into_iter().map(|export| (export.destination, export.single_file)));
        if record.ended_at.is_none() {
            unended.push(path);
        }
    }
    if places.is_empty() {
        return Ok(None);
    }
    let mut cleaned = CleanedJob::default();
    for (destination, single_file) in places {
        let of_export = CleanRequest { destination, single_file, ..request.clone() };
        cleaned.exports.push(Box::pin(clean(&of_export)).await?);
    }
    let alive = cleaned.exports.iter().any(|export| export.alive.is_some());
    if !request.dry_run && !alive {
        root.delete_all(unended).await?;
        posted::remove(&root, &posted).await?;
    }
    Ok(Some(cleaned))
}

/// The day that stood for `{date}` when the run of this id began at a root; `None` where it has left no record there.
///
/// # Errors
/// The root does not answer.
///
/// # Cancel safety
/// It only reads.
pub async fn day_of(
    root: &str,
    run_id: &str,
    credentials: Option<&CredentialCommand>,
) -> Result<Option<String>, ExportError> {
    let root = Destination::connect(root, &StoreOptions::small(), credentials).await?;
    let Some(found) = root.read(&path(run_id)).await? else { return Ok(None) };
    // One that cannot be read is written anew.
    let record = serde_json::from_slice::<FoundRecord>(&found.bytes).ok();
    Ok(record.and_then(|record| record.date).filter(|_| !failpoint::off("first-day")))
}

/// The records at a root, each with its path. One that cannot be read is passed over.
async fn found(root: &Destination) -> Result<Vec<(String, FoundRecord)>, ExportError> {
    let mut records = Vec::new();
    for (path, _) in root.list(RECORDS).await? {
        let Some(found) = root.read(&path).await? else { continue };
        match serde_json::from_slice::<FoundRecord>(&found.bytes) {
            Ok(record) => records.push((path, record)),
            Err(error) => tracing::warn!(why = unreadable(&error), path, "the record of a run is passed over"),
        }
    }
    Ok(records)
}

/// The record of the run that began last at a root; `None` where no run of a job has left one.
///
/// # Errors
/// The destination fails, or a newer version wrote a record that this one would misread (exit 2).
pub(super) async fn newest(root: &Destination) -> Result<Option<FoundRecord>, ExportError> {
    let newest = found(root).await?.into_iter().map(|(_, record)| record).max_by_key(|record| record.started_at);
    match newest {
        Some(record) if record.version > RECORD_VERSION => {
            let message = format!(
                "the record of run {} is of version {}, and this outhaul {} reads version {RECORD_VERSION}",
                record.run_id,
                record.version,
                env!("CARGO_PKG_VERSION"),
            );
            Err(ExportError::new(ExportErrorKind::Usage, message)
                .with_hint("use the version of outhaul that wrote it, or a newer one"))
        }
        record => Ok(record),
    }
}
