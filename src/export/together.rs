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
use super::run::{Carry, ONLY, Run, unless_cancelled};
use crate::base::failpoint;
use crate::commit::Existing;
use crate::model::{ExportReport, SnapshotScope};
use crate::source::Reading;
use crate::store::Take;

/// Destinations that are looked at and taken at the same time.
const ENTERED_AT_ONCE: usize = 8;

/// An export that stands before its reads.
enum Entered {
    /// It has ended: what it would make is there.
    Ended(Box<ExportReport>),
    /// Its destination is its own.
    Ready(Ready),
}

/// An export whose destination is its own.
struct Ready {
    hold: Option<Hold>,
    /// The manifest that it is to replace.
    previous: Option<Box<Existing>>,
    /// Cancelled where the run is stopped, or the destination lost.
    stop: CancellationToken,
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
        entering.push(run.enter(&company.stop).boxed());
    }
    let entered: Vec<Result<Entered, ExportError>> = stream::iter(entering).buffered(ENTERED_AT_ONCE).collect().await;
    let mut ready = Vec::new();
    let mut ends: Vec<(usize, Result<ExportReport, ExportError>)> = Vec::new();
    for (place, entered) in entered.into_iter().enumerate() {
        match entered {
            Ok(Entered::Ready(one)) => ready.push((place, one)),
            Ok(Entered::Ended(report)) => {
                company.has_read();
                ends.push((place, Ok(*report)));
            }
            Err(error) => {
                company.has_failed();
                ends.push((place, Err(error)));
            }
        }
    }
    let reading = match company.scope() {
        SnapshotScope::Run => read(runs, ready, company).boxed(),
        SnapshotScope::Export => read_apart(runs, ready, company).boxed(),
    };
    ends.extend(reading.await);
    ends.sort_by_key(|(place, _)| *place);
    ends.into_iter().map(|(_, end)| end.map_err(|error| company.told(error, cancel))).collect()
}

/// Reads and commits the exports that are ready, each under a moment of its own.
async fn read_apart(
    runs: &[&Run],
    ready: Vec<(usize, Ready)>,
    company: &Company,
) -> Vec<(usize, Result<ExportReport, ExportError>)> {
    let going = ready.into_iter().map(|(place, one)| async move { (place, runs[place].go_apart(one, company).await) });
    join_all(going).await
}

/// Reads and commits the exports that are ready, all under one moment.
async fn read(
    runs: &[&Run],
    ready: Vec<(usize, Ready)>,
    company: &Company,
) -> Vec<(usize, Result<ExportReport, ExportError>)> {
    let Some((first, _)) = ready.first() else { return Vec::new() };
    let stop = match ready.as_slice() {
        // The loss of the one destination is reason enough to stop.
        [(_, only)] => only.stop.clone(),
        _ => company.stop.clone(),
    };
    let mut requests = Vec::new();
    for (place, _) in &ready {
        requests.push(runs[*place].request.read_request());
    }
    let source = Arc::clone(&runs[*first].request.source);
    let beginning = async { Ok(source.begin(requests).await?) };
    match unless_cancelled(&stop, Box::pin(beginning)).await {
        Ok(reading) => {
            let (mut places, mut going) = (Vec::new(), Vec::<BoxFuture<'_, Result<ExportReport, ExportError>>>::new());
            for (relation, (place, one)) in ready.into_iter().enumerate() {
                places.push(place);
                going.push(runs[place].go((Arc::clone(&reading), relation), one, company, None).boxed());
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

impl Run {
    /// Looks at the destination, and takes it where there is something to do.
    async fn enter(&self, cancel: &CancellationToken) -> Result<Entered, ExportError> {
        let run_id = &self.request.commit.run_id;
        self.announce().await;
        failpoint::reach("begun").await;
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
        let ended = match self.settle(hold.as_ref(), &stop).await {
            Ok(Before::Run(previous)) => return Ok(Entered::Ready(Ready { hold, previous, stop })),
            Ok(Before::Skip(existing) | Before::SameRun(existing)) => Ok(self.already(&existing).await),
            Err(error) => Err(error),
        };
        Ok(Entered::Ended(Box::new(self.end(ended, hold).await?)))
    }

    /// Settles what dead runs left, and looks once more: what stands now stands until we are gone, or somebody else breaks
    /// the rules.
    async fn settle(&self, hold: Option<&Hold>, stop: &CancellationToken) -> Result<Before, ExportError> {
        if let (Some(hold), RunTarget::Destination { destination, placement, .. }) = (hold, &self.place) {
            let settled = unless_cancelled(stop, hold.settle_dead_runs(destination, placement, None)).await;
            // The next run is to find it too.
            settled.inspect_err(|_| self.litter.set())?;
        }
        unless_cancelled(stop, self.place.look(&self.request)).await
    }

    /// Reads and commits an export under a moment of its own, once it may.
    async fn go_apart(&self, one: Ready, company: &Company) -> Result<ExportReport, ExportError> {
        let beginning = async {
            let permit = company.may_read(&one.stop).await?;
            let begun = async { Ok(self.request.source.begin(vec![self.request.read_request()]).await?) };
            Ok((unless_cancelled(&one.stop, Box::pin(begun)).await?, permit))
        };
        match beginning.await {
            Ok((reading, permit)) => self.go((reading, ONLY), one, company, Some(permit)).await,
            Err(error) => {
                company.has_failed();
                self.end(Err(error), one.hold).await
            }
        }
    }

    /// Plans, reads and commits one export of those that read together.
    async fn go(
        &self,
        (reading, relation): (Arc<dyn Reading>, usize),
        Ready { hold, previous, stop }: Ready,
        company: &Company,
        permit: Option<SemaphorePermit<'_>>,
    ) -> Result<ExportReport, ExportError> {
        // What is not read any more need not be held, and nothing of it while others commit.
        let source = Arc::downgrade(&reading);
        let going = async {
            if let Some(refused) = reading.refused(relation) {
                return Err(refused.into());
            }
            let planned = unless_cancelled(&stop, Box::pin(self.prepare(reading.as_ref(), relation))).await?;
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
