//! A whole run: look at the destination, plan under locks and a snapshot, export the partitions, commit.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::coordinator::{discard_receipts, export_partitions};
use super::error::ExportError;
use super::finish::{self, Before, Place};
use super::hold::{Hold, Retention};
use super::identity::RunIdentity;
use super::keep::{self, DetachedKeeper};
use super::mark::Mark;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::planning;
use super::record::RunRecord;
use super::request::ExportRequest;
use super::worker::{Outlet, Work};
use crate::base::failpoint;
use crate::commit::{Existing, ManifestError, Placement};
use crate::model::{ColumnPlan, Event, ExportReport, PartitionReceipt, Plan, RelationRequest, SourceCost};
use crate::plan::predicate::{check_expression, check_predicate, check_query};
use crate::plan::sizing::heap_blocks;
use crate::source::Source;
use crate::source::postgres::snapshot::SnapshotFacts;
use crate::source::postgres::{Planning, PostgresSource};
use crate::store::{AttemptSeed, Take};

/// What is known of a run from its start.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) request: ExportRequest,
    pub(crate) place: Place,
    pub(crate) started: Instant,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) events: Sender<Event>,
    /// From which this process's attempts have their ids.
    pub(crate) seed: AttemptSeed,
    /// Holds the snapshot outside of this process.
    pub(crate) keeper: Mutex<Option<DetachedKeeper>>,
    /// Whether its commit has begun: its parts may be visible.
    pub(crate) commit_begun: Mark,
    /// Whether something of it may stay at the destination beside what it commits, which its journal names.
    pub(crate) litter: Mark,
}

/// What is known of it once it is planned.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Arc<Plan>,
    pub(crate) server_version: String,
    pub(crate) standby: bool,
    pub(crate) snapshots: Vec<SnapshotFacts>,
    /// Whether some partitions were read under another snapshot than the others.
    pub(crate) mixed: bool,
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
/// Cancel through `cancel`: uploads are aborted and queries cancelled, which takes no longer than `ABORT_PATIENCE`. Once
/// the commit has begun it is carried through. Dropped, it drops the run.
pub async fn run(
    mut request: ExportRequest,
    events: Sender<Event>,
    cancel: CancellationToken,
) -> Result<ExportReport, ExportError> {
    check_statements(&mut request)?;
    let place = Place::open(&request)?;
    let run = Run::new(request, place, events);
    let (commit_begun, stop) = (run.commit_begun.clone(), cancel.clone());
    to_its_end(Box::pin(async move { run.execute(&stop).await }), &commit_begun, &cancel, ABORT_PATIENCE).await
}

/// Plans an export without reading rows: locks and snapshot are taken as for a run, and let go. Nobody looks at the
/// destination, but what is none is refused.
///
/// # Errors
/// As [`run`], up to the first read.
pub async fn plan(mut request: ExportRequest) -> Result<Plan, ExportError> {
    check_statements(&mut request)?;
    Place::check(&request)?;
    let planning = begin(&request).await?;
    planning.watched(planning::plan(&request, &planning)).await
}

/// The lexical checks, before anything is sent to anybody.
pub(super) fn check_statements(request: &mut ExportRequest) -> Result<(), ExportError> {
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
    Ok(Planning::begin(connect, shape, work, &commit.run_id, commit.keep_snapshot.is_some()).await?)
}

pub(crate) async fn unless_cancelled<T>(
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
    pub(super) fn new(request: ExportRequest, place: Place, events: Sender<Event>) -> Self {
        let (started, created_at, seed) = (Instant::now(), Utc::now(), AttemptSeed::random());
        let (keeper, commit_begun, litter) = (Mutex::default(), Mark::default(), Mark::default());
        Self { request, place, started, created_at, events, seed, keeper, commit_begun, litter }
    }

    pub(super) async fn execute(&self, cancel: &CancellationToken) -> Result<ExportReport, ExportError> {
        let run_id = &self.request.commit.run_id;
        self.announce().await;
        failpoint::reach("begun").await;
        let before = unless_cancelled(cancel, self.place.look(&self.request)).await?;
        if let Before::Skip(existing) | Before::SameRun(existing) = before {
            unless_cancelled(cancel, self.place.repair(run_id)).await?;
            if existing.manifest.run_id == *run_id {
                let plan = unless_cancelled(cancel, Box::pin(plan(self.request.clone()))).await?;
                existing.same_request(&plan, &self.request.format)?;
            }
            return Ok(self.already(&existing).await);
        }
        let stop = cancel.child_token();
        let hold = unless_cancelled(cancel, self.place.take(run_id, Take::Free, &stop)).await?;
        let result = self.begin_and_carry_out(hold.as_ref(), &stop).await;
        self.end(result, hold).await
    }

    async fn begin_and_carry_out(
        &self,
        hold: Option<&Hold>,
        stop: &CancellationToken,
    ) -> Result<ExportReport, ExportError> {
        if let (Some(hold), Place::Destination { destination, placement, .. }) = (hold, &self.place) {
            let settled = unless_cancelled(stop, hold.settle_dead_runs(destination, placement, None)).await;
            // The next run is to find it too.
            settled.inspect_err(|_| self.litter.set())?;
        }
        // Looked at once more: what stands now stands until we are gone, or somebody else breaks the rules.
        let previous = match unless_cancelled(stop, self.place.look(&self.request)).await? {
            Before::Run(previous) => previous,
            Before::Skip(existing) | Before::SameRun(existing) => return Ok(self.already(&existing).await),
        };
        let (source, planned) = unless_cancelled(stop, Box::pin(self.prepare())).await?;
        failpoint::reach("planned").await;
        self.carry_out(source, &planned, Vec::new(), previous, hold, stop).await
    }

    /// Reads what has no receipt yet, and commits.
    pub(crate) async fn carry_out(
        &self,
        source: Option<Arc<dyn Source>>,
        planned: &Planned,
        receipts: Vec<PartitionReceipt>,
        previous: Option<Box<Existing>>,
        hold: Option<&Hold>,
        stop: &CancellationToken,
    ) -> Result<ExportReport, ExportError> {
        let retention = self.retention(hold);
        let outlet = self.outlet();
        let blocks =
            heap_blocks(&planned.plan, |partition| receipts.iter().all(|receipt| receipt.partition != partition));
        let receipts = match &source {
            Some(source) => {
                let work = Arc::new(self.work(Arc::clone(source), planned));
                let readers = self.request.work.readers.get();
                let exporting = export_partitions(work, readers, receipts, stop, &retention);
                tokio::select! {
                    exported = exporting => exported?,
                    never = self.note_new_keepers(source.as_ref()) => match never {},
                }
            }
            None => receipts,
        };
        let unchanged = match &source {
            Some(source) if !stop.is_cancelled() => source.unchanged().await.map_err(ExportError::from),
            _ => Ok(()),
        };
        // The rows are all here: the sessions end, and with them the locks and the hold on the server's horizon.
        let cost = source.as_ref().map(|source| SourceCost { heap_blocks_read: blocks, ..source.cost() });
        drop(source);
        failpoint::reach("uploaded").await;
        let finished = match unchanged {
            _ if stop.is_cancelled() => Err(ExportError::cancelled()),
            Ok(()) => finish::finish(self, planned, &receipts, previous, hold).await,
            Err(error) => Err(error),
        };
        let error = match finished {
            Ok(report) => {
                let report = ExportReport { source_cost: cost, ..report };
                self.tell(Event::RunFinished { report: Box::new(report.clone()) }).await;
                return Ok(report);
            }
            Err(error) => error,
        };
        // Where the manifest may stand, it may name the parts.
        let kept = may_be_committed(&error) || retention.keeps(&error).await;
        if kept || !discard_receipts(&outlet, &receipts).await {
            self.litter.set();
        }
        Err(error)
    }

    async fn note_new_keepers(&self, source: &dyn Source) -> Infallible {
        match &self.place {
            Place::Destination { journal, .. } => keep::note_new_keepers(source, journal).await,
            Place::Stream { .. } => std::future::pending().await,
        }
    }

    fn retention(&self, hold: Option<&Hold>) -> Retention {
        Retention {
            claim: hold.map(|hold| hold.claim.clone()),
            snapshot_kept: self.request.commit.keep_snapshot.is_some(),
        }
    }

    /// Gives the destination back, or leaves the journal to whoever comes next.
    pub(crate) async fn end(
        &self,
        result: Result<ExportReport, ExportError>,
        hold: Option<Hold>,
    ) -> Result<ExportReport, ExportError> {
        let (Some(hold), Place::Destination { destination, placement, journal }) = (hold, &self.place) else {
            return result;
        };
        if hold.is_lost() && result.is_err() {
            let lost = hold.claim.check().await.err();
            hold.yield_to_winner(destination, placement, journal).await;
            return result.map_err(|error| lost.map_or(error, ExportError::from));
        }
        failpoint::reach("ending").await;
        match result {
            Err(error) if self.litter.is_set() => {
                let retention = self.retention(Some(&hold));
                hold.leave().await;
                let resumable = retention.outlasts(&error) && error.hint.is_none();
                let hint = "`outhaul resume` goes on with it while the snapshot is kept";
                Err(if resumable { error.with_hint(hint) } else { error })
            }
            result => {
                if let Some(keeper) = self.keeper.lock().await.take() {
                    keeper.end().await;
                }
                // The next run, or `clean`, removes what a failed attempt of a run that committed has left.
                if self.litter.is_set() {
                    hold.leave().await;
                } else {
                    hold.close(destination, placement, journal).await;
                }
                result
            }
        }
    }

    /// Reports an export that stands already.
    pub(crate) async fn already(&self, existing: &Existing) -> ExportReport {
        let report = finish::report(self, &existing.manifest, Some(existing.url.clone()), true);
        self.tell(Event::RunFinished { report: Box::new(report.clone()) }).await;
        report
    }

    /// Nobody listens any more: the run goes on all the same.
    pub(crate) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    pub(crate) async fn announce(&self) {
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

    async fn prepare(&self) -> Result<(Option<Arc<dyn Source>>, Planned), ExportError> {
        let request = &self.request;
        let planning = begin(request).await?;
        let plan = Arc::new(planning.watched(planning::plan(request, &planning)).await?);
        let server = planning.server.clone();
        let readers = request.work.readers.get();
        let keep = request.commit.keep_snapshot.is_some();
        let source = PostgresSource::new(planning, &plan, readers, request.work.read_mode, keep).await?;
        let snapshots = source.snapshots().to_vec();
        let planned =
            Planned { plan, server_version: server.version, standby: server.standby, snapshots, mixed: false };
        self.announce_plan(&planned).await;
        if let Place::Destination { journal, placement, .. } = &self.place {
            RunIdentity::write(request, self.created_at, self.seed, placement, journal).await?;
            failpoint::reach("identified").await;
            let record = RunRecord::new(
                request,
                self.created_at,
                self.seed,
                &planned.plan,
                source.record().clone(),
                source.held().await,
                planned.snapshots.clone(),
            );
            record.write(journal).await?;
            failpoint::reach("journalled").await;
        }
        if let Some(launch) = &request.keeper {
            let keeper = launch.start(request).await?;
            source.also_held(keeper.snapshot.clone()).await;
            *self.keeper.lock().await = Some(keeper);
            failpoint::reach("kept").await;
        }
        Ok((Some(Arc::new(source)), planned))
    }

    pub(crate) async fn announce_plan(&self, planned: &Planned) {
        let plan = &planned.plan;
        let heap_bytes = plan.relation.leaves.iter().map(|leaf| u64::from(leaf.blocks) * u64::from(leaf.block_size));
        self.tell(Event::Planned {
            run_id: self.request.commit.run_id.clone(),
            partitions: plan.partitions.len(),
            estimated_rows: plan
                .cap
                .max_rows
                .filter(|_| plan.cap.truncated)
                .map(std::num::NonZeroU64::get)
                .or(plan.relation.estimated_rows),
            estimated_bytes: (!plan.relation.leaves.is_empty()).then(|| heap_bytes.sum()),
            snapshot: planned.snapshots.first().and_then(|snapshot| snapshot.id.clone()),
            truncated: plan.cap.truncated,
        })
        .await;
    }

    fn work(&self, source: Arc<dyn Source>, planned: &Planned) -> Work {
        let ExportRequest { format, work, commit, .. } = &self.request;
        let mut format = format.clone();
        format.parquet.metadata.push(("outhaul.run_id".to_owned(), commit.run_id.clone()));
        if let Some(id) = planned.snapshots.first().and_then(|snapshot| snapshot.id.clone()) {
            format.parquet.metadata.push(("outhaul.snapshot".to_owned(), id));
        }
        let columns: Arc<[ColumnPlan]> = planned.plan.columns.clone().into();
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
            seed: self.seed,
            litter: self.litter.clone(),
            events: self.events.clone(),
        }
    }

    fn outlet(&self) -> Outlet {
        match &self.place {
            Place::Stream { sink, .. } => Outlet::Stream(sink.clone()),
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
pub(super) fn may_be_committed(error: &ExportError) -> bool {
    let source = error.source.as_ref().and_then(|source| source.downcast_ref::<ManifestError>());
    source.is_some_and(ManifestError::may_be_committed)
}
