//! Which exports that another process of the run began are gone on with, and which are made anew.

use std::sync::Arc;

use super::company::Company;
use super::error::ExportError;
use super::run::{ONLY, Run, unless_cancelled};
use super::together::{EndOf, Ready};
use crate::model::{ExportErrorKind, SnapshotRecord, SnapshotScope};
use crate::source::Reading;

/// An export that is gone on with, its place among those of the run, and what it reads, with its number there, where that is
/// begun.
pub(super) type GoneOn = (usize, Ready, Option<(Arc<dyn Reading>, usize)>);

/// What becomes of exports that another process began, each with its place among those of the run.
#[derive(Default)]
pub(super) struct Revived {
    /// They are gone on with. Where it was tried already whether the snapshot lives, what reads under it.
    pub(super) going: Vec<GoneOn>,
    /// Nobody holds their snapshot any more.
    pub(super) anew: Vec<(usize, Ready)>,
    pub(super) ended: Vec<EndOf>,
}

/// Finds out whether the snapshot of exports that another process began is still held. Exports that share one are all gone
/// on with, or all that are not read whole are made anew, under one snapshot again.
pub(super) async fn revive(runs: &[&Run], begun: Vec<(usize, Ready)>, company: &Company) -> Revived {
    if runs.iter().any(|run| run.request.external.is_some()) {
        return Box::pin(revive_for_workers(runs, begun, company)).await;
    }
    let mut revived = Revived::default();
    let mut lives = None;
    for (place, mut one) in begun {
        let run = runs[place];
        let (Some(hold), Some(unfinished)) = (&one.hold, &one.unfinished) else { continue };
        // Each that has its own snapshot finds out when it is its turn.
        let tried = lives == Some(true) || company.scope() == SnapshotScope::Export;
        if tried || unfinished.is_read() {
            revived.going.push((place, one, None));
            continue;
        }
        if lives.is_none() {
            let reading = Box::pin(unfinished.reading(run, company.allows_mixed()));
            match unless_cancelled(&one.stop, reading).await {
                Ok(reading) => {
                    lives = Some(true);
                    revived.going.push((place, one, Some((reading, ONLY))));
                    continue;
                }
                Err(error) if error.kind == ExportErrorKind::SnapshotLost => {
                    tracing::warn!(error = error.sentence(), "what is not read whole is exported anew");
                    lives = Some(false);
                }
                Err(error) => {
                    company.has_failed();
                    let error: ExportError = run.stays_resumable(error, hold);
                    revived.ended.push((place, run.end(Err(error), one.hold.take()).await));
                    continue;
                }
            }
        }
        revived.make_anew(run, (place, one), company).await;
    }
    revived
}

/// Snapshots, and the exports of a run that were read under them, each with its place.
type OfOneSnapshot = (Vec<SnapshotRecord>, Vec<(usize, Ready)>);

/// The same where other processes read: all exports under one snapshot wait for these at the same time, and share one set of
/// sessions meanwhile.
async fn revive_for_workers(runs: &[&Run], begun: Vec<(usize, Ready)>, company: &Company) -> Revived {
    let mut revived = Revived::default();
    let mut groups: Vec<OfOneSnapshot> = Vec::new();
    for (place, one) in begun {
        let Some(unfinished) = &one.unfinished else { continue };
        if unfinished.is_read() {
            revived.going.push((place, one, None));
            continue;
        }
        let snapshots = unfinished.snapshots().to_vec();
        match groups.iter_mut().find(|(known, _)| *known == snapshots) {
            Some((_, group)) => group.push((place, one)),
            None => groups.push((snapshots, vec![(place, one)])),
        }
    }
    for (_, group) in groups {
        match unless_cancelled(&company.stop, Box::pin(reading_of(runs, &group))).await {
            Ok(reading) => {
                let numbered = group.into_iter().enumerate();
                revived
                    .going
                    .extend(numbered.map(|(number, (place, one))| (place, one, Some((Arc::clone(&reading), number)))));
            }
            Err(error) if error.kind == ExportErrorKind::SnapshotLost => {
                tracing::warn!(error = error.sentence(), "what is not read whole is exported anew");
                for one in group {
                    revived.make_anew(runs[one.0], one, company).await;
                }
            }
            Err(error) => {
                company.has_failed();
                for (place, mut one) in group {
                    let Some(hold) = one.hold.take() else { continue };
                    let error = runs[place].stays_resumable(error.again(), &hold);
                    revived.ended.push((place, runs[place].end(Err(error), Some(hold)).await));
                }
            }
        }
    }
    revived
}

/// What reads the exports of a group, each by its place in it.
async fn reading_of(runs: &[&Run], group: &[(usize, Ready)]) -> Result<Arc<dyn Reading>, ExportError> {
    let nothing = || ExportError::internal("nothing is there to be gone on with");
    let (mut requests, mut begun) = (Vec::new(), Vec::new());
    for (place, one) in group {
        let run = runs[*place];
        begun.push(one.unfinished.as_ref().ok_or_else(nothing)?.begun(run, false).await?);
        requests.push(run.request.read_request());
    }
    let (first, _) = group.first().ok_or_else(nothing)?;
    Ok(runs[*first].request.source.resume_together(requests, begun).await?)
}

impl Revived {
    /// Has an export begin again.
    async fn make_anew(&mut self, run: &Run, (place, one): (usize, Ready), company: &Company) {
        match run.begin_anew(one).await {
            Ok(one) => self.anew.push((place, one)),
            Err(ended) => {
                match &*ended {
                    Ok(_) => company.has_read(),
                    Err(_) => company.has_failed(),
                }
                self.ended.push((place, *ended));
            }
        }
    }
}
