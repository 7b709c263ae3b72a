//! What several relations let go of before the last of them is read: those that are read whole, and the one for whose lock
//! somebody has waited too long. Keepers and lock session are replaced by ones that hold less; readers lock what they read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connect::Sessions;
use super::relation_read::RelationRead;
use super::snapshot::{Custody, Locks};
use super::watch::Watch;
use crate::base::failpoint;
use crate::source::{SourceError, SourceFault};

/// Between two replacements of the sessions that hold the locks: three connections are worth no less.
const LET_GO_INTERVAL: Duration = Duration::from_secs(30);

/// So long a relation that was let go may still be waited for: its readers are being stopped.
const READERS_STOP: Duration = Duration::from_secs(5);

/// Which relations are held, and which no more.
#[derive(Debug)]
pub(super) struct LetGo {
    state: Mutex<State>,
    /// Why relations are lost, by the numbers of their requests: message and hint.
    lost: watch::Sender<BTreeMap<usize, (String, Option<String>)>>,
}

#[derive(Debug)]
struct State {
    /// Nothing of them is read any more.
    done: BTreeSet<usize>,
    /// Their locks are gone too, since then.
    let_go: BTreeMap<usize, Instant>,
    /// When the sessions were last replaced.
    last: Instant,
}

/// What holds the locks.
#[derive(Clone, Copy)]
pub(super) struct Holding<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) custody: &'a Custody,
    pub(super) watch: &'a Watch,
    pub(super) relations: &'a BTreeMap<usize, RelationRead>,
}

impl LetGo {
    pub(super) fn new() -> Self {
        let state = State { done: BTreeSet::new(), let_go: BTreeMap::new(), last: Instant::now() };
        Self { state: Mutex::new(state), lost: watch::Sender::new(BTreeMap::new()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of a relation is read any more.
    pub(super) fn done(&self, relation: usize) {
        self.state().done.insert(relation);
    }

    /// Why a relation is lost, once it is.
    pub(super) async fn lost(&self, relation: usize) -> SourceError {
        let mut seen = self.lost.subscribe();
        let told = seen.wait_for(|lost| lost.contains_key(&relation)).await;
        let told = told.ok().and_then(|lost| lost.get(&relation).cloned());
        let Some((message, hint)) = told else { return std::future::pending().await };
        let error = SourceError::new(SourceFault::GaveWay, message);
        hint.into_iter().fold(error, SourceError::with_hint)
    }

    /// Lets go of what is read whole, now and then.
    pub(super) async fn tend(&self, holding: Holding<'_>) {
        let gone: BTreeSet<usize> = {
            let state = self.state();
            let some = state.done.iter().any(|relation| !state.let_go.contains_key(relation));
            if !some || state.last.elapsed() < failpoint::limit("let-go", LET_GO_INTERVAL) {
                return;
            }
            state.done.iter().chain(state.let_go.keys()).copied().collect()
        };
        if let Err(error) = self.narrow(holding, gone).await {
            tracing::debug!(%error, "what is read whole is not let go yet");
        }
    }

    /// Gives way where somebody has waited too long for the lock of `oid`: whether that is enough, and only the exports
    /// that read it fail.
    pub(super) async fn give_way(&self, holding: Holding<'_>, oid: u32, error: &SourceError) -> bool {
        if failpoint::off("let-go") {
            return false;
        }
        let held = |relation: &RelationRead| relation.behind.as_ref().is_none_or(|behind| behind.contains(&oid));
        let reads: BTreeSet<usize> =
            holding.relations.iter().filter(|(_, relation)| held(relation)).map(|(number, _)| *number).collect();
        let (mut gone, lost, still_stopping) = {
            let state = self.state();
            let new: BTreeSet<usize> =
                reads.iter().filter(|number| !state.let_go.contains_key(number)).copied().collect();
            let still =
                reads.iter().filter_map(|number| state.let_go.get(number)).any(|at| at.elapsed() < READERS_STOP);
            let lost: BTreeSet<usize> = new.difference(&state.done).copied().collect();
            let gone: BTreeSet<usize> = state.done.iter().chain(state.let_go.keys()).copied().collect();
            (if new.is_empty() { None } else { Some(gone.union(&new).copied().collect::<BTreeSet<_>>()) }, lost, still)
        };
        let Some(gone) = gone.take() else {
            // Its readers hold it until they have stopped.
            return still_stopping;
        };
        if gone.len() == holding.relations.len() {
            return false;
        }
        if let Err(error) = self.narrow(holding, gone).await {
            tracing::warn!(%error, "the tables that nobody waits for cannot be held apart");
            return false;
        }
        self.lost.send_modify(|told| {
            told.extend(lost.iter().map(|number| (*number, (error.message.clone(), error.hint.clone()))));
        });
        true
    }

    /// Has new sessions hold all but `gone`, and closes those that hold more.
    async fn narrow(&self, holding: Holding<'_>, gone: BTreeSet<usize>) -> Result<(), SourceError> {
        let kept = holding.relations.iter().filter(|(number, _)| !gone.contains(number)).map(|(_, relation)| relation);
        let locks = union(kept.map(|relation| &relation.record.locks));
        if locks.tables.is_empty() && locks.statements.is_empty() {
            return Ok(());
        }
        holding.custody.narrow(holding.sessions, locks.clone()).await?;
        holding.watch.narrow(&locks).await?;
        let mut state = self.state();
        let now = Instant::now();
        for number in gone {
            state.let_go.entry(number).or_insert(now);
        }
        state.last = now;
        tracing::debug!(let_go = state.let_go.len(), "the locks of some tables are let go");
        drop(state);
        Ok(())
    }
}

/// The locks of all of several relations.
pub(super) fn union<'a>(locks: impl Iterator<Item = &'a Locks>) -> Locks {
    let (mut tables, mut statements, mut readers) = (BTreeSet::new(), BTreeSet::new(), None);
    for one in locks {
        tables.extend(one.tables.iter().cloned());
        statements.extend(one.statements.iter().cloned());
        readers = readers.max(one.readers);
    }
    let (tables, statements) = (tables.into_iter().collect(), statements.into_iter().collect());
    Locks { tables, statements, checked: None, readers }
}
