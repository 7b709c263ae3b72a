//! The record of a job at its root: which exports a run has, and what became of them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::clean::{CleanReport, CleanRequest, clean};
use super::error::ExportError;
use super::job::{JobOutcome, JobRequest, relation};
use crate::model::RunStatus;
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
    exports: Vec<ExportInRecord<'a>>,
}

#[derive(Serialize)]
struct ExportInRecord<'a> {
    name: &'a str,
    relation: String,
    destination: &'a str,
    single_file: bool,
    /// `running`, `complete`, `truncated`, `failed` or `cancelled`.
    status: &'static str,
    manifest: Option<&'a str>,
    rows: Option<u64>,
    parts: Option<u64>,
    bytes: Option<u64>,
    snapshot: Option<&'a str>,
    already_committed: bool,
    error: Option<String>,
}

/// What is needed of a record to clean after its run.
#[derive(Deserialize)]
struct FoundRecord {
    ended_at: Option<DateTime<Utc>>,
    exports: Vec<FoundExport>,
}

#[derive(Deserialize)]
struct FoundExport {
    destination: String,
    #[serde(default)]
    single_file: bool,
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
pub(super) async fn begin(
    root: &Destination,
    job: &JobRequest,
    places: &[String],
    started_at: DateTime<Utc>,
) -> Result<(), ExportError> {
    let exports = job.exports.iter().zip(places).map(|(export, destination)| ExportInRecord {
        name: &export.name,
        relation: relation(export),
        destination,
        single_file: export.request.commit.single_file,
        status: "running",
        manifest: None,
        rows: None,
        parts: None,
        bytes: None,
        snapshot: None,
        already_committed: false,
        error: None,
    });
    let json = record(&job.run_id, started_at, None, None, exports.collect())?;
    Ok(root.put(&path(&job.run_id), json.into(), JSON).await?)
}

/// Writes down what became of a run: its own record first, then the newest one of the root.
pub(super) async fn end(
    root: &Destination,
    run_id: &str,
    started_at: DateTime<Utc>,
    one_instant: bool,
    exports: &[JobOutcome],
) -> Result<String, ExportError> {
    let exports = exports.iter().map(in_record).collect();
    let json = record(run_id, started_at, Some(Utc::now()), Some(one_instant), exports)?;
    root.put(&path(run_id), json.clone().into(), JSON).await?;
    root.put(NEWEST, json.into(), JSON).await?;
    Ok(root.object_url(&path(run_id)))
}

fn path(run_id: &str) -> String {
    format!("{RECORDS}/{run_id}.json")
}

fn record(
    run_id: &str,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    one_instant: Option<bool>,
    exports: Vec<ExportInRecord<'_>>,
) -> Result<Vec<u8>, ExportError> {
    let (version, outhaul_version) = (RECORD_VERSION, env!("CARGO_PKG_VERSION"));
    let record = JobRunRecord { version, run_id, outhaul_version, started_at, ended_at, one_instant, exports };
    serde_json::to_vec_pretty(&record)
        .map_err(|error| ExportError::internal("writing the run's record as JSON").with_source(error))
}

fn in_record(outcome: &JobOutcome) -> ExportInRecord<'_> {
    let JobOutcome { name, relation, destination, single_file, result } = outcome;
    let report = result.as_ref().ok();
    ExportInRecord {
        name,
        relation: relation.clone(),
        destination,
        single_file: *single_file,
        status: match result {
            Ok(report) if report.status == RunStatus::Complete => "complete",
            Ok(_) => "truncated",
            Err(error) if error.kind.is_cancel() => "cancelled",
            Err(_) => "failed",
        },
        manifest: report.and_then(|report| report.manifest.as_deref()),
        rows: report.and_then(|report| report.rows),
        parts: report.map(|report| report.parts),
        bytes: report.map(|report| report.bytes),
        snapshot: report.and_then(|report| report.snapshot.as_deref()),
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
    for (path, _) in root.list(RECORDS).await? {
        let Some(found) = root.read(&path).await? else { continue };
        match serde_json::from_slice::<FoundRecord>(&found.bytes) {
            Ok(record) => {
                places.extend(record.exports.into_iter().map(|export| (export.destination, export.single_file)));
                if record.ended_at.is_none() {
                    unended.push(path);
                }
            }
            Err(error) => tracing::warn!(why = unreadable(&error), path, "the record of a run is passed over"),
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
    }
    Ok(Some(cleaned))
}
