//! The two ends of a run at its destination: what stands there before, and the commit after.

use std::path::PathBuf;

use bytes::Bytes;

use super::error::{ExportError, ExportErrorKind};
use super::report::ExportReport;
use super::request::{ExportRequest, Target};
use super::run::{Planned, Run, enough_rows};
use crate::plan::Plan;
use crate::store::stdout::STDOUT;
use crate::store::{Destination, Journal, PartitionReceipt, StoreOptions};

/// Where a run writes.
#[derive(Debug)]
pub(crate) enum Place {
    /// Parts below a destination.
    Parts { destination: Destination, journal: Journal },
    /// One object of exactly this name; `destination` is its folder.
    Single { destination: Destination, journal: Journal, name: String },
    /// Standard output.
    Stdout { manifest: Option<PathBuf> },
}

impl Place {
    /// Opens the destination; nothing is written, nothing is read.
    pub(crate) fn open(request: &ExportRequest) -> Result<Self, ExportError> {
        let url = match &request.commit.target {
            Target::Stdout { manifest } => return Ok(Self::Stdout { manifest: manifest.clone() }),
            Target::Destination(url) => url,
        };
        let options = StoreOptions {
            chunk_bytes: request.work.upload_chunk_size,
            concurrency: request.work.upload_concurrency,
            sha256: request.commit.sha256,
        };
        let run_id = &request.commit.run_id;
        if !request.commit.single_file {
            let destination = Destination::open(url, &options)?;
            let journal = Journal::new(destination.clone(), run_id);
            return Ok(Self::Parts { destination, journal });
        }
        let (folder, name) = match url.rsplit_once('/') {
            Some((folder, name)) => (if folder.is_empty() { "/" } else { folder }, name),
            None => (".", url.as_str()),
        };
        if name.is_empty() {
            let message = format!("--single-file needs the name of a file, and {url} ends in a folder");
            return Err(ExportError::new(ExportErrorKind::Usage, message));
        }
        let destination = Destination::open(folder, &options)?;
        let journal = Journal::new(destination.clone(), run_id);
        Ok(Self::Single { destination, journal, name: name.to_owned() })
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Parts { destination, .. } => destination.url().to_owned(),
            Self::Single { destination, name, .. } => destination.object_url(name),
            Self::Stdout { .. } => STDOUT.to_owned(),
        }
    }

    pub(crate) async fn look(&self, _run: &Run) -> Result<Option<ExportReport>, ExportError> {
        Ok(None)
    }

    /// Keeps the plan where `resume` and `clean` look for it.
    pub(crate) async fn journal_plan(&self, plan: &Plan) -> Result<(), ExportError> {
        let (Self::Parts { journal, .. } | Self::Single { journal, .. }) = self else { return Ok(()) };
        let json = serde_json::to_vec(plan)
            .map_err(|error| ExportError::internal("writing the plan down").with_source(error))?;
        Ok(journal.put_plan(Bytes::from(json)).await?)
    }
}

pub(crate) async fn commit(
    run: &Run,
    planned: &Planned,
    receipts: &[PartitionReceipt],
) -> Result<ExportReport, ExportError> {
    let rows = receipts.iter().map(|r| r.rows_read).sum();
    enough_rows(&run.request, rows)?;
    let parts: Vec<_> = receipts.iter().flat_map(|r| &r.parts).collect();
    if let Place::Parts { destination, .. } | Place::Single { destination, .. } = &run.place {
        for part in &parts {
            destination.publish(&part.object).await?;
        }
    }
    Ok(ExportReport {
        status: super::report::RunStatus::Complete,
        run_id: run.request.commit.run_id.clone(),
        relation: String::new(),
        destination: run.place.url(),
        manifest: None,
        rows,
        parts: parts.len() as u64,
        bytes: parts.iter().map(|p| p.object.bytes).sum(),
        max_rows: None,
        tier: None,
        order: planned.plan.cap.order,
        key: planned.plan.key.iter().map(|column| column.name.clone()).collect(),
        rows_available: planned.plan.cap.available,
        snapshot: None,
        readers: 1,
        seconds: run.started.elapsed().as_secs_f64(),
        already_committed: false,
    })
}
