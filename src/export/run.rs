//! A whole run: look at the destination, plan under locks and a snapshot, export the partitions, commit.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::coordinator::{discard_receipts, export_partitions};
use super::error::ExportError;
use super::event::Event;
use super::finish::{self, Before, Place};
use super::planning;
use super::report::ExportReport;
use super::request::ExportRequest;
use super::worker::{Outlet, Work};
use crate::failpoint;
use crate::manifest::{Existing, ManifestError, Placement};
use crate::plan::predicate::{check_expression, check_predicate, check_query};
use crate::plan::sizing::heap_blocks;
use crate::plan::{ColumnPlan, Plan, RelationRequest};
use crate::source::{Source, SourceCost};
use crate::source::postgres::snapshot::SnapshotFacts;
use crate::source::postgres::{Planning, PostgresSource};

/// What is known of a run from its start.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) request: ExportRequest,
    pub(crate) place: Place,
    pub(crate) started: Instant,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) events: Sender<Event>,
}

/// What is known of it once it is planned.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Arc<Plan>,
    pub(crate) server_version: String,
    pub(crate) standby: bool,
    pub(crate) snapshots: Vec<SnapshotFacts>,
}

/// Exports one relation and commits it.
///
/// Events go to `events` as they happen; a closed channel stops nothing. The last is [`Event::RunFinished`] where the
/// run committed; a failure is the caller's to announce, who knows by which signal it was stopped.
///
/// # Errors
/// Whatever keeps the run from committing; nothing of it is visible then (but under `--visibility as-written` until it
/// is removed).
///
/// # Cancel safety
/// Cancel through `cancel`: uploads are aborted and queries cancelled. Once the commit has begun it is carried through.
pub async fn run(
    mut request: ExportRequest,
    events: Sender<Event>,
    cancel: CancellationToken,
) -> Result<ExportReport, ExportError> {
    check_statements(&mut request)?;
    let place = Place::open(&request)?;
    let run = Run { request, place, started: Instant::now(), created_at: Utc::now(), events };
    run.announce().await;
    let previous = match unless_cancelled(&cancel, run.place.look(&run.request)).await? {
        Before::Run(previous) => previous,
        Before::Skip(existing) => return Ok(run.already(&existing).await),
        Before::SameRun(existing) => {
            let plan = unless_cancelled(&cancel, plan(run.request.clone())).await?;
            existing.same_request(&plan, &run.request.format)?;
            return Ok(run.already(&existing).await);
        }
    };
    let result = run.carry_out(previous, &cancel).await;
    run.place.close().await;
    result
}

/// Plans an export without reading rows: locks and snapshot are taken as for a run, and let go.
///
/// # Errors
/// As [`run`], up to the first read.
pub async fn plan(mut request: ExportRequest) -> Result<Plan, ExportError> {
    check_statements(&mut request)?;
    let planning = begin(&request).await?;
    planning.watched(planning::plan(&request, &planning)).await
}

/// The lexical checks, before anything is sent to anybody.
fn check_statements(request: &mut ExportRequest) -> Result<(), ExportError> {
    let shape = &mut request.shape;
    if let RelationRequest::Query(query) = &mut shape.relation {
        *query = check_query(query)?;
    }
    if let Some(predicate) = &shape.predicate {
        check_predicate(predicate)?;
    }
    for (name, text) in &shape.expressions {
        check_expression(name, text)?;
    }
    Ok(())
}

async fn begin(request: &ExportRequest) -> Result<Planning, ExportError> {
    let ExportRequest { connect, shape, work, commit, .. } = request;
    Ok(Planning::begin(connect, shape, work, &commit.run_id).await?)
}

async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, ExportError>>,
) -> Result<T, ExportError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ExportError::cancelled()),
        result = work => result,
    }
}

impl Run {
    async fn carry_out(
        &self,
        previous: Option<Box<Existing>>,
        cancel: &CancellationToken,
    ) -> Result<ExportReport, ExportError> {
        let (source, planned) = unless_cancelled(cancel, self.prepare()).await?;
        failpoint::reach("planned").await;
        let work = Arc::new(self.work(source, &planned));
        let receipts = export_partitions(Arc::clone(&work), self.request.work.readers.get(), cancel).await?;
        // The rows are all here: the sessions end, and with them the locks and the hold on the server's horizon.
        let cost = SourceCost { heap_blocks_read: heap_blocks(&planned.plan), ..work.source.cost() };
        let outlet = work.outlet.clone();
        drop(work);
        failpoint::reach("uploaded").await;
        if cancel.is_cancelled() {
            discard_receipts(&outlet, &receipts).await;
            return Err(ExportError::cancelled());
        }
        match finish::finish(self, &planned, &receipts, previous).await {
            Ok(report) => {
                let report = ExportReport { source_cost: Some(cost), ..report };
                self.tell(Event::RunFinished { report: Box::new(report.clone()) }).await;
                Ok(report)
            }
            Err(error) => {
                // Where the manifest may stand, it may name the parts.
                if !may_be_committed(&error) {
                    discard_receipts(&outlet, &receipts).await;
                }
                Err(error)
            }
        }
    }

    /// Reports an export that stands already.
    async fn already(&self, existing: &Existing) -> ExportReport {
        let report = finish::report(self, &existing.manifest, Some(existing.url.clone()), true);
        self.tell(Event::RunFinished { report: Box::new(report.clone()) }).await;
        report
    }

    /// Nobody listens any more: the run goes on all the same.
    pub(crate) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    async fn announce(&self) {
        let format = self.request.format.format;
        self.tell(Event::RunStarted {
            run_id: self.request.commit.run_id.clone(),
            relation: match &self.request.shape.relation {
                RelationRequest::Table(name) => name.clone(),
                RelationRequest::Query(_) => "query".to_owned(),
            },
            destination: self.place.url(),
            format: format!("{format:?}").to_lowercase(),
            readers: self.request.work.readers.get(),
        })
        .await;
    }

    async fn prepare(&self) -> Result<(PostgresSource, Planned), ExportError> {
        let request = &self.request;
        let planning = begin(request).await?;
        let plan = Arc::new(planning.watched(planning::plan(request, &planning)).await?);
        let server = planning.server.clone();
        let readers = request.work.readers.get();
        let source = PostgresSource::new(planning, readers, request.work.read_mode).await?;
        let snapshots = source.snapshots().to_vec();
        let heap_bytes = plan.relation.leaves.iter().map(|leaf| u64::from(leaf.blocks) * u64::from(leaf.block_size));
        self.tell(Event::Planned {
            run_id: request.commit.run_id.clone(),
            partitions: plan.partitions.len(),
            estimated_rows: plan
                .cap
                .max_rows
                .filter(|_| plan.cap.truncated)
                .map(std::num::NonZeroU64::get)
                .or(plan.relation.estimated_rows),
            estimated_bytes: (!plan.relation.leaves.is_empty()).then(|| heap_bytes.sum()),
            snapshot: snapshots.first().and_then(|snapshot| snapshot.id.clone()),
            truncated: plan.cap.truncated,
        })
        .await;
        self.place.journal_plan(&plan).await?;
        Ok((source, Planned { plan, server_version: server.version, standby: server.standby, snapshots }))
    }

    fn work(&self, source: PostgresSource, planned: &Planned) -> Work {
        let ExportRequest { format, work, commit, .. } = &self.request;
        let mut format = format.clone();
        format.parquet.metadata.push(("outhaul.run_id".to_owned(), commit.run_id.clone()));
        if let Some(id) = planned.snapshots.first().and_then(|snapshot| snapshot.id.clone()) {
            format.parquet.metadata.push(("outhaul.snapshot".to_owned(), id));
        }
        let columns: Arc<[ColumnPlan]> = planned.plan.columns.clone().into();
        let source: Arc<dyn Source> = Arc::new(source);
        Work {
            source,
            plan: Arc::clone(&planned.plan),
            columns,
            format,
            outlet: self.outlet(),
            part_size: work.part_size.get(),
            visibility: commit.visibility,
            stats: commit.manifest_stats,
            sha256: commit.sha256,
            events: self.events.clone(),
        }
    }

    fn outlet(&self) -> Outlet {
        match &self.place {
            Place::Stdout { .. } => Outlet::Stdout,
            Place::Destination { destination, journal, placement } => {
                let (destination, journal) = (destination.clone(), journal.clone());
                match placement {
                    Placement::Parts => Outlet::Parts { destination, journal, layout: self.request.commit.layout },
                    Placement::Single { name } => Outlet::Single { destination, journal, name: name.clone() },
                }
            }
        }
    }
}

/// Whether the manifest stands, or may.
fn may_be_committed(error: &ExportError) -> bool {
    let source = error.source.as_ref().and_then(|source| source.downcast_ref::<ManifestError>());
    source.is_some_and(ManifestError::may_be_committed)
}
