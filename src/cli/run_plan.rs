//! What people and scripts see of the plan of a job.

use std::fmt;

use serde::Serialize;

use super::report::ErrorRecord;
use super::run_view::gravest;
use super::summary::{self, Failure};
use super::table::Table;
use super::{exit, human};
use crate::export::ExportError;
use crate::export::job::{JobRequest, PlannedExport};

/// What a job would read.
#[derive(Debug)]
pub(super) struct PlannedJob<'a> {
    job: &'a JobRequest,
    plans: &'a [PlannedExport],
}

/// The JSON form.
#[derive(Debug, Serialize)]
pub(super) struct PlannedJobJson<'a> {
    schema_version: u32,
    exit_code: u8,
    run_id: &'a str,
    root: String,
    retryable: bool,
    exports: Vec<PlannedExportJson<'a>>,
}

#[derive(Debug, Serialize)]
struct PlannedExportJson<'a> {
    name: &'a str,
    exit_code: u8,
    destination: String,
    partitions: Option<usize>,
    estimated_rows: Option<u64>,
    estimated_bytes: Option<u64>,
    error: Option<String>,
}

impl<'a> PlannedJob<'a> {
    pub(super) fn new(job: &'a JobRequest, plans: &'a [PlannedExport]) -> Self {
        Self { job, plans }
    }

    pub(super) fn exit_code(&self) -> u8 {
        gravest(self.plans.iter().map(|(_, plan)| plan_code(plan)))
    }

    pub(super) fn failures(&self) -> Vec<String> {
        let failed = |(name, plan): &PlannedExport| {
            Some(format!("{name}: {}", summary::error_text(&Failure::early(plan.as_ref().err()?), false)))
        };
        self.plans.iter().filter_map(failed).collect()
    }

    pub(super) fn errors(&self) -> Vec<ErrorRecord> {
        self.plans.iter().filter_map(|(_, plan)| plan.as_ref().err()).map(ErrorRecord::of).collect()
    }

    fn destinations(&self) -> impl Iterator<Item = String> {
        self.job.exports.iter().map(|export| match &export.request.commit.target {
            crate::model::Target::Destination(url) => crate::store::shown(url),
            crate::model::Target::Stream { .. } => "-".to_owned(),
        })
    }

    pub(super) fn body(&self) -> PlannedJobJson<'a> {
        let exports = self.plans.iter().zip(self.destinations()).map(|((name, plan), destination)| {
            let known = plan.as_ref().ok();
            PlannedExportJson {
                name,
                exit_code: plan_code(plan),
                destination,
                partitions: known.map(|plan| plan.partitions.len()),
                estimated_rows: known.and_then(|plan| plan.relation.estimated_rows),
                estimated_bytes: known.and_then(|plan| plan.relation.estimated_bytes),
                error: plan.as_ref().err().map(ExportError::sentence),
            }
        });
        let failed = || self.plans.iter().filter_map(|(_, plan)| plan.as_ref().err());
        PlannedJobJson {
            schema_version: summary::SCHEMA_VERSION,
            exit_code: self.exit_code(),
            run_id: &self.job.run_id,
            root: crate::store::shown(&self.job.root),
            retryable: failed().next().is_some() && failed().all(|error| error.kind.retryable()),
            exports: exports.collect(),
        }
    }
}

fn plan_code<T>(plan: &Result<T, ExportError>) -> u8 {
    plan.as_ref().err().map_or(exit::COMPLETE, |error| exit::failed(error.kind))
}

impl fmt::Display for PlannedJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::flush();
        table.right(1).right(2).right(3);
        table.row(["export", "partitions", "rows", "size", "to"].map(str::to_owned));
        for ((name, plan), destination) in self.plans.iter().zip(self.destinations()) {
            let cells = match plan {
                Ok(plan) => {
                    let rows = plan.relation.estimated_rows.map_or_else(|| "?".to_owned(), human::about);
                    let bytes = plan.relation.estimated_bytes.map_or_else(|| "?".to_owned(), human::bytes);
                    [name.clone(), plan.partitions.len().to_string(), rows, bytes, destination]
                }
                Err(error) => {
                    let note = format!("cannot be read, exit {}", exit::failed(error.kind));
                    [name.clone(), String::new(), String::new(), String::new(), note]
                }
            };
            table.row(cells);
        }
        write!(f, "{table}")
    }
}
