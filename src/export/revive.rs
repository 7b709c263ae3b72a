//! Which exports that another process of the run began are gone on with, and which are made anew.

use std::sync::Arc;

use super::company::Company;
use super::error::ExportError;
use super::run::{Run, unless_cancelled};
use super::together::{EndOf, Ready};
use crate::model::{ExportErrorKind, SnapshotScope};
use crate::source::Reading;

/// An export that is gone on with, its place among those of the run, and what it reads where that is begun.
pub(super) type GoneOn = (usize, Ready, Option<Arc<dyn Reading>>);

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
                    revived.going.push((place, one, Some(reading)));
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
        match run.begin_anew(one).await {
            Ok(one) => revived.anew.push((place, one)),
            Err(ended) => {
                match &*ended {
                    Ok(_) => company.has_read(),
                    Err(_) => company.has_failed(),
                }
                revived.ended.push((place, *ended));
            }
        }
    }
    revived
}
