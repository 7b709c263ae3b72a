//! Exports that read together: one moment, one set of readers. Each has its own destination, its own journal and its own
//! manifest, and fails by itself. One export is a run of one.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, StreamExt};
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::company::Company;
use super::error::ExportError;
use super::finish::{Before, RunTarget};
use super::hold::Hold;
use super::planned::Planned;
use super::protect_names;
use super::record::RunRecord;
use super::resume::Unfinished;
use super::revive::{Revived, revive};
use super::run::{Carry, ONLY, Run, unless_cancelled};
use crate::base::failpoint;
use crate::commit::Existing;
use crate::model::{ExportErrorKind, ExportReport, SnapshotScope};
use crate::source::Reading;
use crate::store::Take;

/// Destinations that are looked at and taken at the same time.
const ENTERED_AT_ONCE: usize = 8;

/// How an export ended, with its place among those of the run.
pub(super) type EndOf = (usize, Result<ExportReport, ExportError>);

/// An export on the way to its end.
type Ending<'a> = BoxFuture<'a, Result<ExportReport, ExportError>>;

/// An export that stands before its reads.
enum Entered {
    /// It has ended: what it would make is there.
    Ended(Box<ExportReport>),
    /// Its destination is its own.
    Ready(Ready),
}

/// An export whose destination is its own.
pub(super) struct Ready {
    pub(super) hold: Option<Hold>,
    /// The manifest that it is to replace.
    previous: Option<Box<Existing>>,
    /// Cancelled where the run is stopped, or the destination lost.
    pub(super) stop: CancellationToken,
    /// What another process of the run has of it.
    pub(super) unfinished: Option<Box<Unfinished>>,
}

/// Carries exports of one source out, under one moment: their results, in their order.
///
/// # Cancel safety
/// Cancel through `cancel`.
pub(super) async fn together(
    runs: &[&Run],
    company: &Company,
    cancel: &CancellationToken,
) -> Vec<Result<ExportReport, ExportError>> {
    let mut entering: Vec<BoxFuture<'_, Result<Entered, ExportError>>> = Vec::new();
    for run in runs {
        // Nobody else sets it.
        let _ = run.signal.set(cancel.clone());
        entering.push(run.enter(company).boxed());
    }
    let entered: Vec<Result<Entered, ExportError>> = stream::iter(entering).buffered(ENTERED_AT_ONCE).collect().await;
    let (mut ready, mut begun) = (Vec::new(), Vec::new());
    let mut ends: Vec<EndOf> = Vec::new();
    for (place, entered) in entered.into_iter().enumerate() {
        match entered {
            Ok(Entered::Ready(one)) if one.unfinished.is_some() => begun.push((place, one)),
            Ok(Entered::Ready(one)) => ready.push((place, one)),
            Ok(Entered::Ended(report)) => {
                company.has_read();
                runs[place].needs_no_workers();
                ends.push((place, Ok(*report)));
            }
            Err(error) => {
                company.has_failed();
                runs[place].needs_no_workers();
                ends.push((place, Err(error)));
            }
        }
    }
    let Revived { going, anew, ended } = Box::pin(revive(runs, begun, company)).await;
    ends.extend(ended);
    ready.extend(anew);
    ready.sort_by_key(|(place, _)| *place);
    let (mut places, mut going_on) = (Vec::new(), Vec::<Ending<'_>>::new());
    for (place, one, reading) in going {
        places.push(place);
        going_on.push(runs[place].go_on_apart(one, reading, company).boxed());
    }
    let reading = match company.scope() {
        SnapshotScope::Run => read(runs, ready, company).boxed(),
        SnapshotScope::Export => read_apart(runs, ready, company).boxed(),
    };
    let (read, gone_on) = tokio::join!(reading, join_all(going_on));
    ends.extend(read.into_iter().chain(places.into_iter().zip(gone_on)));
    ends.sort_by_key(|(place, _)| *place);
    if let Some(keeper) = company.take_keeper() {
        // What is to be resumed is left to it.
        let left = |(place, end): &EndOf| end.is_err() && runs[*place].litter.is_set();
        if !ends.iter().any(left) {
            keeper.end().await;
        }
    }
    ends.into_iter().map(|(_, end)| end.map_err(|error| company.told(error, cancel))).collect()
}

/// Reads and commits the exports that are ready, each under a moment of its own.
async fn read_apart(runs: &[&Run], ready: Vec<(usize, Ready)>, company: &Company) -> Vec<EndOf> {
    let (mut places, mut going) = (Vec::new(), Vec::<Ending<'_>>::new());
    for (place, one) in ready {
        places.push(place);
        going.push(runs[place].go_apart(one, company).boxed());
    }
    let ends: Vec<EndOf> = places.into_iter().zip(join_all(going).await).collect();
    protect_names::tell_of_ended(runs);
    ends
}

/// Reads and commits the exports that are ready, all under one moment.
async fn read(runs: &[&Run], ready: Vec<(usize, Ready)>, company: &Company) -> Vec<EndOf> {
    let Some((first, _)) = ready.first() else { return Vec::new() };
    let stop = match ready.as_slice() {
        // The loss of the one destination is reason enough to stop.
        [(_, only)] => only.stop.clone(),
        _ => company.stop.clone(),
    };
    let mut requests = Vec::new();
    for (place, _) in &ready {
        requests.push(runs[*place].read_request());
    }
    let source = Arc::clone(&runs[*first].request.source);
    // Any of them may have values that nobody is to see.
    let careful = ready.iter().map(|(place, _)| &runs[*place].request).find(|request| request.commit.protect.is_some());
    let beginning = async {
        source.begin(requests).await.map_err(|error| match careful {
            Some(request) => request.told(error),
            None => error.into(),
        })
    };
    let begun = unless_cancelled(&stop, Box::pin(beginning)).await;
    let begun = match begun {
        Ok(reading) => {
            let places = ready.iter().map(|(place, _)| *place);
            let checking = protect_names::check_planned(runs, places, reading.as_ref(), company.beside());
            unless_cancelled(&stop, Box::pin(checking)).await.map(|()| reading)
        }
        Err(error) => Err(error),
    };
    match begun {
        Ok(reading) => {
            let mut planned = keep_for_all(runs, &reading, &ready, company, &stop).await.into_iter();
            let (mut places, mut going) = (Vec::new(), Vec::<Ending<'_>>::new());
            for (relation, (place, one)) in ready.into_iter().enumerate() {
                places.push(place);
                let source = (Arc::clone(&reading), relation);
                going.push(runs[place].go(source, planned.next().flatten(), one, (company, None)).boxed());
            }
            // The sessions end with the last export that reads.
            drop(reading);
            places.into_iter().zip(join_all(going).await).collect()
        }
        Err(error) => {
            company.has_failed();
            let mut ends = Vec::new();
            // The last has it whole, with its chain of causes.
            let mut ready = ready.into_iter().peekable();
            let mut whole = Some(error);
            while let Some((place, one)) = ready.next() {
                let error = match &whole {
                    Some(error) if ready.peek().is_some() => error.again(),
                    _ => whole.take().unwrap_or_else(ExportError::cancelled),
                };
                ends.push((place, runs[place].end(Err(error), one.hold).await));
            }
            ends
        }
    }
}

/// Where the snapshot of several exports is to outlive the process: plans each of them, and has one keeper hold it for all.
/// Nothing where there is no need; each export plans by itself then.
async fn keep_for_all(
    runs: &[&Run],
    reading: &Arc<dyn Reading>,
    ready: &[(usize, Ready)],
    company: &Company,
    stop: &CancellationToken,
) -> Vec<Option<Result<Planned, ExportError>>> {
    let launch = ready.first().and_then(|(place, _)| runs[*place].request.keeper.as_ref());
    let Some(launch) = launch.filter(|_| ready.len() > 1) else { return Vec::new() };
    let planning = ready.iter().enumerate().map(|(relation, (place, one))| {
        let planning = Box::pin(runs[*place].planned(reading.as_ref(), relation, false));
        async move { unless_cancelled(&one.stop, planning).await }
    });
    let mut planned = join_all(planning).await;
    let journalled = ready.iter().zip(&planned).filter(|(_, planned)| planned.is_ok());
    let requests: Vec<_> = journalled.map(|((place, _), _)| &runs[*place].request).collect();
    if !requests.is_empty() {
        match unless_cancelled(stop, launch.start(&requests)).await {
            Ok(keeper) => {
                reading.also_held(keeper.snapshot.clone()).await;
                company.is_kept_by(keeper);
                failpoint::reach("kept").await;
            }
            Err(error) => {
                planned = planned.into_iter().map(|planned| planned.and_then(|_| Err(error.again()))).collect();
            }
        }
    }
    planned.into_iter().map(Some).collect()
}

impl Run {
    /// Looks at the destination, and takes it where there is something to do.
    async fn enter(&self, company: &Company) -> Result<Entered, ExportError> {
        let cancel = &company.stop;
        let run_id = &self.request.commit.run_id;
        self.announce().await;
        failpoint::reach("begun").await;
        unless_cancelled(cancel, self.look_for_since()).await?;
        let before = unless_cancelled(cancel, self.place.look(&self.request)).await?;
        if let Before::Skip(existing) | Before::SameRun(existing) = before {
            unless_cancelled(cancel, self.place.repair(run_id)).await?;
            if existing.manifest.run_id == *run_id {
                unless_cancelled(cancel, Box::pin(self.is_same_request(&existing))).await?;
            }
            return Ok(Entered::Ended(Box::new(self.already(&existing).await)));
        }
        unless_cancelled(cancel, self.place.ready(&self.request)).await?;
        let stop = cancel.child_token();
        let how = if self.request.commit.take_over { Take::Over } else { Take::Free };
        let hold = unless_cancelled(cancel, self.place.take(run_id, how, &stop)).await?;
        let begun = match hold.as_ref().filter(|_| company.resumes()) {
            Some(hold) => {
                let begun = unless_cancelled(&stop, Box::pin(self.unfinished(hold))).await;
                begun.map_err(|error| self.stays_resumable(error, hold))
            }
            None => Ok(None),
        };
        match begun {
            Ok(None) => {}
            Ok(unfinished) => return Ok(Entered::Ready(Ready { hold, previous: None, stop, unfinished })),
            Err(error) => return Ok(Entered::Ended(Box::new(self.end(Err(error), hold).await?))),
        }
        let ended = match self.settle(hold.as_ref(), &stop).await {
            Ok(Before::Run(previous)) => {
                return Ok(Entered::Ready(Ready { hold, previous, stop, unfinished: None }));
            }
            Ok(Before::Skip(existing) | Before::SameRun(existing)) => Ok(self.already(&existing).await),
            Err(error) => Err(error),
        };
        Ok(Entered::Ended(Box::new(self.end(ended, hold).await?)))
    }

    /// What another process of this run has at its destination, where it was asked for the same.
    async fn unfinished(&self, hold: &Hold) -> Result<Option<Box<Unfinished>>, ExportError> {
        let RunTarget::Destination { journal, .. } = &self.place else { return Ok(None) };
        // What is new since another export is asked anew: meanwhile that may be another one.
        if self.request.incremental.is_some() {
            return Ok(None);
        }
        if hold.claim.previous().is_none_or(|previous| previous.run_id != self.request.commit.run_id) {
            return Ok(None);
        }
        match RunRecord::read(journal).await {
            Ok(Some(record)) if record.asks_for(&self.request) && self.goes_on_as(&record.plan) => {
                // Nobody else sets it.
                let _ = self.protectable.set(record.plan.columns.clone());
                let unfinished = Unfinished::take_up(self, record, hold).await?;
                Ok(Some(Box::new(unfinished)))
            }
            Ok(_) => Ok(None),
            // Another version's: it is removed, and the export is made anew.
            Err(error) if error.kind == ExportErrorKind::Usage => {
                tracing::warn!(error = error.sentence(), "what another process has of the export is not gone on with");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Settles what dead runs left, and looks once more: what stands now stands until we are gone, or somebody else breaks
    /// the rules.
    async fn settle(&self, hold: Option<&Hold>, stop: &CancellationToken) -> Result<Before, ExportError> {
        if let (Some(hold), RunTarget::Destination { destination, placement, .. }) = (hold, &self.place) {
            let settled = unless_cancelled(stop, hold.settle_dead_runs(destination, placement, None)).await;
            // The next run is to find it too.
            settled.inspect_err(|_| self.litter.set())?;
        }
        let before = unless_cancelled(stop, self.place.look(&self.request)).await?;
        if let Before::Run(previous) = &before {
            let standing = previous.as_ref().map(|previous| &previous.manifest);
            unless_cancelled(stop, self.refuse_strangers(standing)).await?;
            unless_cancelled(stop, self.begin_since(previous.as_deref())).await?;
        }
        Ok(before)
    }

    /// Gives up what another process has of the export: it is to be made anew, or it has ended so.
    pub(super) async fn begin_anew(&self, one: Ready) -> Result<Ready, Box<Result<ExportReport, ExportError>>> {
        let Ready { hold, stop, .. } = one;
        let ended = match self.settle(hold.as_ref(), &stop).await {
            Ok(Before::Run(previous)) => return Ok(Ready { hold, previous, stop, unfinished: None }),
            Ok(Before::Skip(existing) | Before::SameRun(existing)) => Ok(self.already(&existing).await),
            Err(error) => Err(error),
        };
        Err(Box::new(self.end(ended, hold).await))
    }

    /// Goes on with an export that another process began, over sessions of its own, once it may.
    async fn go_on_apart(
        &self,
        mut one: Ready,
        reading: Option<(Arc<dyn Reading>, usize)>,
        company: &Company,
    ) -> Result<ExportReport, ExportError> {
        let source = reading.as_ref().map(|(reading, relation)| (Arc::downgrade(reading), *relation));
        let (Some(unfinished), Some(hold)) = (one.unfinished.take(), one.hold.take()) else {
            return Err(ExportError::internal("nothing is there to be gone on with"));
        };
        let going = async {
            let (reading, permit) = match reading {
                _ if unfinished.is_read() => ((None, ONLY), None),
                // They all wait at the same time, over sessions that they share.
                Some((reading, relation)) if self.request.external.is_some() => ((Some(reading), relation), None),
                reading => {
                    let permit = company.may_read(&one.stop).await?;
                    let (reading, relation) = if let Some(reading) = reading {
                        reading
                    } else {
                        let reading = Box::pin(unfinished.reading(self, company.allows_mixed()));
                        (unless_cancelled(&one.stop, reading).await?, ONLY)
                    };
                    ((Some(reading), relation), Some(permit))
                }
            };
            self.go_on(*unfinished, reading, (&hold, &one.stop), (company, permit)).await
        };
        match Box::pin(going).await {
            Err(error) if error.kind == ExportErrorKind::SnapshotLost && company.scope() == SnapshotScope::Export => {
                match self.begin_anew(Ready { hold: Some(hold), ..one }).await {
                    Ok(one) => Box::pin(self.go_apart(one, company)).await,
                    Err(ended) => ended.inspect_err(|_| company.has_failed()),
                }
            }
            Err(error) => {
                company.has_failed();
                // What is not read any more need not be held for the others.
                if let Some((reading, relation)) = source
                    && let Some(reading) = reading.upgrade()
                {
                    reading.done(relation);
                }
                let error = self.stays_resumable(error, &hold);
                self.end(Err(error), Some(hold)).await
            }
            result => self.end(result, Some(hold)).await,
        }
    }

    /// Reads and commits an export under a moment of its own, once it may.
    async fn go_apart(&self, one: Ready, company: &Company) -> Result<ExportReport, ExportError> {
        let beginning = async {
            let permit = company.may_read(&one.stop).await?;
            let beginning = self.request.source.begin(vec![self.request.read_request()]);
            let begun = async { beginning.await.map_err(|error| self.request.told(error)) };
            Ok((unless_cancelled(&one.stop, Box::pin(begun)).await?, permit))
        };
        match beginning.await {
            Ok((reading, permit)) => self.go((reading, ONLY), None, one, (company, Some(permit))).await,
            Err(error) => {
                company.has_failed();
                self.end(Err(error), one.hold).await
            }
        }
    }

    /// The plan of an export, once it stands in its journal. With `alone` it has a keeper of its own where one is wanted.
    async fn planned(&self, reading: &dyn Reading, relation: usize, alone: bool) -> Result<Planned, ExportError> {
        if let Some(refused) = reading.refused(relation) {
            return Err(self.request.told(refused));
        }
        self.prepare(reading, relation, alone).await
    }

    /// Plans, reads and commits one export of those that read together.
    async fn go(
        &self,
        (reading, relation): (Arc<dyn Reading>, usize),
        planned: Option<Result<Planned, ExportError>>,
        Ready { hold, previous, stop, .. }: Ready,
        (company, permit): (&Company, Option<SemaphorePermit<'_>>),
    ) -> Result<ExportReport, ExportError> {
        // What is not read any more need not be held, and nothing of it while others commit.
        let source = Arc::downgrade(&reading);
        let going = async {
            let planned = match planned {
                Some(planned) => planned?,
                None => unless_cancelled(&stop, Box::pin(self.planned(reading.as_ref(), relation, true))).await?,
            };
            failpoint::reach("planned").await;
            let (receipts, hold) = (Vec::new(), hold.as_ref());
            let carry =
                Carry { reading: Some(reading), relation, receipts, previous, hold, stop: &stop, company, permit };
            self.carry_out(&planned, carry).await
        };
        let result = going.await;
        if result.is_err() {
            company.has_failed();
            if let Some(reading) = source.upgrade() {
                reading.done(relation);
            }
        }
        self.end(result, hold).await
    }
}
