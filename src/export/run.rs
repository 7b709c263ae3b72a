//! A whole run: look at the destination, plan under locks and a snapshot, export the partitions, commit.

mod work;

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, OnceCell, SemaphorePermit, mpsc::Sender};
use tokio_util::sync::CancellationToken;

use super::company::Company;
use super::coordinator::{discard_receipts, export_partitions};
use super::error::ExportError;
use super::finish::{self, RunTarget};
use super::hold::{Hold, Retention};
use super::identity::RunIdentity;
use super::keep::{self, DetachedKeeper};
use super::mark::Mark;
use super::patience::{ABORT_PATIENCE, to_its_end};
use super::planned::{Planned, check_counts, format_of};
use super::protect_names::{self, NamedColumns};
use super::record::RunRecord;
use super::request::ExportRequest;
use super::since::{self, Continuation};
use super::together::together;
use crate::base::failpoint;
use crate::commit::Existing;
use crate::encode::ProtectKey;
use crate::model::{ColumnPlan, Event, ExportReport, OnSignal, PartitionReceipt, Plan, ResumedProgress};
use crate::source::Reading;
use crate::store::AttemptSeed;

/// The number of the one relation of a run that is resumed.
pub(super) const ONLY: usize = 0;

/// What is known of a run from its start.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) request: ExportRequest,
    pub(crate) place: RunTarget,
    pub(crate) started: Instant,
    created_at: DateTime<Utc>,
    /// When the process began whose run this one goes on with.
    pub(super) begun_at: OnceLock<DateTime<Utc>>,
    /// Cancelled by a signal.
    pub(super) signal: OnceLock<CancellationToken>,
    pub(crate) events: Sender<Event>,
    /// From which this process's attempts have their ids.
    pub(crate) seed: AttemptSeed,
    /// Holds the snapshot outside of this process.
    pub(crate) keeper: Mutex<Option<DetachedKeeper>>,
    /// Whether its commit has begun: its parts may be visible.
    pub(crate) commit_begun: Mark,
    /// The export that an incremental one goes on from, once it is looked for.
    pub(crate) since: OnceLock<Continuation>,
    /// Whether something of it may stay at the destination beside what it commits, which its journal names.
    pub(crate) litter: Mark,
    /// Under which values are hashed, once it is read; `None` where none are.
    pub(crate) protect_key: OnceCell<Option<ProtectKey>>,
    /// The columns that could be protected, once they are planned, by whichever process of the run.
    pub(super) protectable: OnceLock<Vec<ColumnPlan>>,
}

/// What of a run is to be carried out, and with whom.
pub(crate) struct Carry<'a> {
    /// What is read; `None` where everything has a receipt.
    pub(crate) reading: Option<Arc<dyn Reading>>,
    /// Which of its relations.
    pub(crate) relation: usize,
    /// Those of an earlier process.
    pub(crate) receipts: Vec<PartitionReceipt>,
    /// The manifest to replace.
    pub(crate) previous: Option<Box<Existing>>,
    pub(crate) hold: Option<&'a Hold>,
    pub(crate) stop: &'a CancellationToken,
    pub(crate) company: &'a Company,
    /// The right to the sessions of `reading`, where they are this export's own.
    pub(crate) permit: Option<SemaphorePermit<'a>>,
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
///
/// # Examples
/// ```no_run
/// use outhaul::{config, export};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let flags = vec![("table", vec!["public.orders".to_owned()]), ("to", vec!["./orders".to_owned()])];
/// let (request, _) = config::load(flags, &config::Environment::of_process(), true)?;
/// let (events, mut seen) = tokio::sync::mpsc::channel(64);
/// tokio::spawn(async move { while seen.recv().await.is_some() {} });
/// let report = export::run(request, events, tokio_util::sync::CancellationToken::new()).await?;
/// println!("{:?} rows", report.rows);
/// # Ok(())
/// # }
/// ```
pub async fn run(
    mut request: ExportRequest,
    events: Sender<Event>,
    cancel: CancellationToken,
) -> Result<ExportReport, ExportError> {
    request.source.check(&mut request.shape)?;
    let place = unless_cancelled(&cancel, RunTarget::open(&request)).await?;
    let run = Run::new(request, place, events);
    let (commit_begun, stop) = (run.commit_begun.clone(), cancel.clone());
    to_its_end(Box::pin(async move { run.execute(&stop).await }), &commit_begun, &cancel, ABORT_PATIENCE).await
}

/// Plans an export without reading rows: locks and snapshot are taken as for a run, and let go. Nobody looks at the
/// destination, but what is none is refused.
///
/// # Errors
/// As [`run`], up to the first read.
pub async fn plan(request: ExportRequest) -> Result<Plan, ExportError> {
    let (plan, request) = plan_alone(request).await?;
    protect_names::tell_of_idle([NamedColumns::of(&request, &plan)]);
    Ok(plan)
}

/// The same, where somebody else tells of names of columns that are for none.
pub(super) async fn plan_alone(mut request: ExportRequest) -> Result<(Plan, ExportRequest), ExportError> {
    request.source.check(&mut request.shape)?;
    RunTarget::check(&request)?;
    let found = since::find(&request).await?;
    let plans = request.source.plan(vec![request.read_request_since(found.export()?)]).await;
    let plans = plans.map_err(|error| request.told(error))?;
    let plan = plans.into_iter().next().ok_or_else(|| ExportError::internal("the source planned nothing"))?;
    since::compare(&request, &plan, &found, None)?;
    format_of(&plan, &request.format)?;
    check_counts(&plan, &request)?;
    Ok((plan, request))
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
    pub(super) fn new(request: ExportRequest, place: RunTarget, events: Sender<Event>) -> Self {
        let (started, created_at, seed) = (Instant::now(), Utc::now(), AttemptSeed::random());
        let (keeper, commit_begun, litter) = (Mutex::default(), Mark::default(), Mark::default());
        let (begun_at, signal, since) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self {
            request,
            place,
            started,
            created_at,
            begun_at,
            signal,
            events,
            seed,
            keeper,
            commit_begun,
            since,
            litter,
            protect_key: OnceCell::new(),
            protectable: OnceLock::new(),
        }
    }

    /// When it was begun, by whichever process.
    pub(super) fn created_at(&self) -> DateTime<Utc> {
        self.begun_at.get().copied().unwrap_or(self.created_at)
    }

    pub(super) async fn execute(&self, cancel: &CancellationToken) -> Result<ExportReport, ExportError> {
        let company = Company::alone(self.request.work.readers.get(), cancel);
        let ends = together(&[self], &company, cancel).await.pop();
        ends.unwrap_or_else(|| Err(ExportError::internal("the run has no end")))
    }

    /// Makes sure that what stands at the destination is what this run would make.
    pub(super) async fn is_same_request(&self, existing: &Existing) -> Result<(), ExportError> {
        let (plan, _) = plan_alone(self.request.clone()).await?;
        let format = format_of(&plan, &self.request.format)?;
        let _ = self.protectable.set(plan.columns.clone());
        let mut differs = self.asks_otherwise(&existing.manifest).to_vec();
        // A command may have to be run for it.
        if let Some(then) = &existing.manifest.protection_key {
            let key = self.protect_key().await?.map(ProtectKey::id);
            differs.push(("the key of --protect", key.is_some_and(|key| key != *then)));
        }
        Ok(existing.same_request(&plan, &format, self.request.commit.output_rules(), differs)?)
    }

    /// Reads what has no receipt yet, and commits.
    pub(crate) async fn carry_out(
        &self,
        planned: &Planned,
        Carry { reading, relation, receipts, previous, hold, stop, company, permit }: Carry<'_>,
    ) -> Result<ExportReport, ExportError> {
        let (retention, resumed) = (self.retention(hold), ResumedProgress::of(&receipts));
        let outlet = self.outlet();
        self.same_protect_key(planned.protect_key_id.as_deref()).await?;
        let receipts = if let Some(reading) = &reading {
            let work = Arc::new(self.work(Arc::clone(reading), relation, planned)?);
            let exporting = async {
                let receipts = self.gathered((&work, company), receipts, hold, stop).await?;
                export_partitions(work, company, receipts, stop, &retention).await
            };
            tokio::select! {
                exported = Box::pin(exporting) => exported?,
                never = self.note_new_keepers(reading.as_ref()) => match never {},
            }
        } else {
            self.needs_no_workers();
            receipts
        };
        // The source may have changed its plan.
        let changed = reading.as_deref().map(|reading| Planned::of(reading, relation, &planned.format)).transpose();
        let unchanged = match &reading {
            Some(reading) if !stop.is_cancelled() => {
                let rows = receipts.iter().filter_map(|receipt| Some((receipt.partition, receipt.read.rows()?)));
                reading.unchanged(relation, &rows.collect()).await.map_err(ExportError::from)
            }
            _ => Ok(()),
        };
        // The rows are all here: the sessions end, and with them the locks and the hold on the server's horizon.
        let cost = reading.as_ref().map(|reading| reading.cost(relation));
        if let Some(reading) = &reading {
            reading.done(relation);
        }
        drop(reading);
        drop(permit);
        failpoint::reach("uploaded").await;
        let finishing = async {
            if stop.is_cancelled() {
                return Err(ExportError::cancelled());
            }
            let changed = unchanged.and(changed)?;
            let _permit = company.may_commit(stop).await?;
            finish::finish(self, changed.as_ref().unwrap_or(planned), &receipts, previous, hold).await
        };
        let finished = finishing.await;
        let error = match finished {
            Ok(report) => {
                let report = ExportReport {
                    source_cost: cost,
                    rows_read_now: report.rows.unwrap_or_default().saturating_sub(resumed.rows),
                    bytes_written_now: report.bytes.saturating_sub(resumed.bytes),
                    ..report
                };
                self.tell(Event::RunFinished { report: Box::new(report.clone()) }).await;
                return Ok(report);
            }
            Err(error) => error,
        };
        // Where the manifest may stand, it may name the parts.
        let kept = error.may_be_committed() || retention.keeps(&error).await;
        if kept || !discard_receipts(&outlet, &receipts).await {
            self.litter.set();
        }
        Err(error)
    }

    async fn note_new_keepers(&self, reading: &dyn Reading) -> Infallible {
        match &self.place {
            RunTarget::Destination { journal, .. } => {
                keep::note_new_keepers(reading, journal, self.begun_at.get().is_some()).await
            }
            RunTarget::Stream { .. } => std::future::pending().await,
        }
    }

    pub(super) fn retention(&self, hold: Option<&Hold>) -> Retention {
        Retention {
            claim: hold.map(|hold| hold.claim.clone()),
            // Workers may have a keeper beside them, of which this process knows nothing.
            snapshot_kept: self.request.commit.keep_snapshot.is_some() || self.request.external.is_some(),
            of_worker: false,
            signal: self.signal.get().filter(|_| self.request.commit.on_signal == OnSignal::Keep).cloned(),
        }
    }

    /// Gives the destination back, or leaves the journal to whoever comes next.
    pub(crate) async fn end(
        &self,
        result: Result<ExportReport, ExportError>,
        hold: Option<Hold>,
    ) -> Result<ExportReport, ExportError> {
        self.needs_no_workers();
        let (Some(hold), RunTarget::Destination { destination, placement, journal }) = (hold, &self.place) else {
            return result;
        };
        if hold.is_lost() && result.is_err() {
            let lost = hold.claim.check().await.err();
            hold.yield_to_winner(placement, journal).await;
            return result.map_err(|error| lost.map_or(error, ExportError::from));
        }
        failpoint::reach("ending").await;
        match result {
            Err(mut error) if self.litter.is_set() => {
                error.resumable = self.retention(Some(&hold)).outlasts(&error);
                hold.leave().await;
                let hint = "`outhaul resume` goes on with it while the snapshot is kept";
                Err(if error.resumable && error.hint.is_none() { error.with_hint(hint) } else { error })
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

    /// Notes at the destination what is about to be read.
    ///
    /// With `alone` it has a keeper of its own where one is wanted.
    pub(super) async fn prepare(
        &self,
        reading: &dyn Reading,
        relation: usize,
        alone: bool,
    ) -> Result<Planned, ExportError> {
        let request = &self.request;
        let mut planned = Planned::of(reading, relation, &request.format)?;
        check_counts(&planned.plan, request)?;
        if request.commit.protect.is_some() {
            // Nobody else sets it.
            let _ = self.protectable.set(planned.plan.columns.clone());
        }
        planned.protect_key_id = self.protect_key().await?.map(ProtectKey::id);
        self.compare_since(&planned.plan)?;
        self.announce_plan(&planned, ResumedProgress::default()).await;
        if let RunTarget::Destination { journal, placement, .. } = &self.place {
            RunIdentity::write(request, self.created_at, self.seed, placement, journal).await?;
            failpoint::reach("identified").await;
            let beginning = (self.created_at, self.seed);
            let record = RunRecord::new(request, beginning, &planned, reading.record(relation)?, reading.held().await);
            let changes = self.since.get().map(Continuation::changes).unwrap_or_default();
            let record = RunRecord { changes, ..record };
            record.write(journal).await?;
            failpoint::reach("journalled").await;
        }
        if let Some(launch) = request.keeper.as_ref().filter(|_| alone) {
            let keeper = launch.start(&[request]).await?;
            reading.also_held(keeper.snapshot.clone()).await;
            *self.keeper.lock().await = Some(keeper);
            failpoint::reach("kept").await;
        }
        Ok(planned)
    }

    pub(crate) async fn announce_plan(&self, planned: &Planned, resumed: ResumedProgress) {
        let plan = &planned.plan;
        tracing::info!(partitions = plan.partitions.len(), snapshot = planned.snapshot(), "planned");
        self.tell(Event::Planned {
            run_id: self.request.commit.run_id.clone(),
            partitions: plan.partitions.len(),
            estimated_rows: plan
                .cap
                .max_rows
                .filter(|_| plan.cap.truncated)
                .map(std::num::NonZeroU64::get)
                .or(plan.relation.estimated_rows),
            estimated_bytes: plan.relation.estimated_bytes,
            snapshot: planned.snapshot(),
            truncated: plan.cap.truncated,
            resumed,
        })
        .await;
    }
}
