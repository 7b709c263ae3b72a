//! What the exports of a run have in common while they read and commit.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::crew::Crew;
use super::error::ExportError;
use super::keep::DetachedKeeper;
use super::request::ExportRequest;
use crate::model::{ExportErrorKind, SnapshotScope};
use crate::source::Reading;

/// Exports that commit at the same time: each waits for its destination more than it computes.
const COMMITS_AT_ONCE: usize = 8;

/// Exports that read at the same time where each has sessions of its own: while one is planned another one is read.
const READINGS_AT_ONCE: usize = 2;

/// What a guard says, to each of several exports.
type Alarm = BoxFuture<'static, Arc<ExportError>>;

/// The guard of what several exports read.
type CommonGuard = (Weak<dyn Reading>, WeakShared<Alarm>);

/// The exports of a run. One export is a company of one.
#[derive(Debug)]
pub(crate) struct Company {
    /// The readers.
    pub(crate) crew: Crew,
    /// How many there were at first.
    pub(crate) readers: usize,
    /// Cancelled where the run is stopped, or where one export has failed and all are to stop then.
    pub(crate) stop: CancellationToken,
    exports: usize,
    /// What the job asks for beside what is carried out; `None` where nobody knows that any more.
    beside: Option<Vec<ExportRequest>>,
    /// What is read under one snapshot.
    scope: SnapshotScope,
    /// Whether exports that another process of the run began are gone on with; then, whether under another snapshot.
    resumes: Option<AllowMixed>,
    /// Holds the snapshot of all outside of this process.
    keeper: Mutex<Option<DetachedKeeper>>,
    /// The right to have sessions of its own.
    readings: Semaphore,
    /// The guards of what they read, each for as long as one of them reads it.
    guards: Mutex<Vec<CommonGuard>>,
    /// Where all are to be read before the first commits.
    gate: Option<watch::Sender<Gate>>,
    desk: Semaphore,
}

/// Whether the rest of an export may be read under another snapshot than what is there of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllowMixed(pub(crate) bool);

/// How far the exports are that wait for each other.
#[derive(Debug, Clone, Copy)]
struct Gate {
    /// Those that still read.
    reading: usize,
    failed: bool,
}

impl Company {
    /// So many exports with so many readers. With `all_or_none` none commits before all are read, and one that fails stops
    /// the others.
    pub(crate) fn new(exports: usize, readers: usize, all_or_none: bool, cancel: &CancellationToken) -> Self {
        let gate = all_or_none.then(|| watch::Sender::new(Gate { reading: exports, failed: false }));
        Self {
            crew: Crew::new(readers),
            readers,
            stop: cancel.child_token(),
            exports,
            beside: Some(Vec::new()),
            scope: SnapshotScope::Run,
            resumes: None,
            keeper: Mutex::default(),
            readings: Semaphore::new(READINGS_AT_ONCE),
            guards: Mutex::default(),
            gate,
            desk: Semaphore::new(COMMITS_AT_ONCE),
        }
    }

    /// The same where so much is read under one snapshot.
    pub(crate) fn under(self, scope: SnapshotScope) -> Self {
        Self { scope, ..self }
    }

    /// The same where exports that another process of the run began are gone on with.
    pub(crate) fn resuming(self, allow_mixed: AllowMixed) -> Self {
        Self { resumes: Some(allow_mixed), ..self }
    }

    /// Whether exports that another process of the run began are gone on with.
    pub(crate) fn resumes(&self) -> bool {
        self.resumes.is_some()
    }

    /// Whether what is missing of them may be read under another snapshot.
    pub(crate) fn allows_mixed(&self) -> bool {
        self.resumes.is_some_and(|AllowMixed(allowed)| allowed)
    }

    /// A keeper holds the snapshot of all.
    pub(crate) fn is_kept_by(&self, keeper: DetachedKeeper) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// The keeper, to be told of the end of the run.
    pub(crate) fn take_keeper(&self) -> Option<DetachedKeeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The same of a job that asks for more than what is carried out.
    pub(crate) fn asked_beside(self, beside: Option<Vec<ExportRequest>>) -> Self {
        Self { beside, ..self }
    }

    /// What the job asks for beside what is carried out; `None` where only the process that began the run knew that.
    pub(crate) fn beside(&self) -> Option<&[ExportRequest]> {
        self.beside.as_deref()
    }

    /// What is read under one snapshot.
    pub(crate) fn scope(&self) -> SnapshotScope {
        self.scope
    }

    /// Waits until an export may have sessions of its own. It gives the permit back when it has read everything.
    ///
    /// # Errors
    /// The run is stopped.
    pub(crate) async fn may_read(&self, stop: &CancellationToken) -> Result<SemaphorePermit<'_>, ExportError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ExportError::cancelled()),
            permit = self.readings.acquire() => {
                permit.map_err(|error| ExportError::internal("waiting to read").with_source(error))
            }
        }
    }

    /// One export by itself.
    pub(crate) fn alone(readers: usize, cancel: &CancellationToken) -> Self {
        Self::new(1, readers, false, cancel)
    }

    /// Guards what an export reads: its own relation, and what is common to all of them, once.
    pub(crate) fn guard(&self, reading: &Arc<dyn Reading>, relation: usize) -> BoxFuture<'static, ExportError> {
        let (common, reading) = (self.guard_common(reading), Arc::clone(reading));
        let guarding = async move {
            tokio::select! {
                error = common => error,
                error = reading.guard_of(relation) => error.into(),
            }
        };
        guarding.boxed()
    }

    fn guard_common(&self, reading: &Arc<dyn Reading>) -> BoxFuture<'static, ExportError> {
        let of = Arc::downgrade(reading);
        let reading = Arc::clone(reading);
        let guarding = async move { ExportError::from(reading.guard().await) };
        if self.exports == 1 {
            return guarding.boxed();
        }
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let known = guards.iter().find(|(known, _)| known.ptr_eq(&of)).and_then(|(_, guard)| guard.upgrade());
        let shared: Shared<Alarm> = known.unwrap_or_else(|| guarding.map(Arc::new).boxed().shared());
        guards.retain(|(known, guard)| !known.ptr_eq(&of) && guard.upgrade().is_some());
        guards.extend(shared.downgrade().map(|guard| (of, guard)));
        drop(guards);
        shared.map(|error| error.again()).boxed()
    }

    /// An export that has nothing to read, or has read all of it.
    pub(crate) fn has_read(&self) {
        if let Some(gate) = &self.gate {
            gate.send_modify(|gate| gate.reading = gate.reading.saturating_sub(1));
        }
    }

    /// An export has failed.
    pub(crate) fn has_failed(&self) {
        if let Some(gate) = &self.gate {
            gate.send_modify(|gate| gate.failed = true);
            self.stop.cancel();
        }
    }

    /// Whether one export has failed, and all are to stop then.
    pub(crate) fn is_given_up(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.borrow().failed)
    }

    /// Waits until an export that has read everything may commit. Held, the permit keeps others waiting.
    ///
    /// # Errors
    /// Another export has failed, or the run is stopped.
    pub(crate) async fn may_commit(&self, stop: &CancellationToken) -> Result<SemaphorePermit<'_>, ExportError> {
        self.has_read();
        let all_read = async {
            let Some(gate) = &self.gate else { return Ok(()) };
            let mut seen = gate.subscribe();
            let gate = seen.wait_for(|gate| gate.failed || gate.reading == 0).await;
            match gate {
                Ok(gate) if !gate.failed => Ok(()),
                Ok(_) | Err(_) => Err(given_up()),
            }
        };
        let permitted = async {
            all_read.await?;
            self.desk.acquire().await.map_err(|error| ExportError::internal("waiting to commit").with_source(error))
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ExportError::cancelled()),
            permit = permitted => permit,
        }
    }

    /// The error of an export that was stopped: for the sake of another one, where that is so.
    pub(crate) fn told(&self, error: ExportError, cancel: &CancellationToken) -> ExportError {
        let stopped = error.kind == ExportErrorKind::Interrupted && !cancel.is_cancelled();
        if stopped && self.is_given_up() { given_up() } else { error }
    }
}

fn given_up() -> ExportError {
    ExportError::new(
        ExportErrorKind::Interrupted,
        "stopped before its commit, because another export of the run failed",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn none_commits_before_all_are_read_where_all_or_none_is_asked_for() {
        let cancel = CancellationToken::new();
        let company = Company::new(2, 1, true, &cancel);
        let mut first = Box::pin(company.may_commit(&company.stop));
        assert!(futures_util::poll!(&mut first).is_pending());
        let second = company.may_commit(&company.stop).await;
        assert!(second.is_ok() && first.await.is_ok());

        let company = Company::new(2, 1, true, &cancel);
        let waiting = company.may_commit(&company.stop);
        company.has_failed();
        let error = company.told(waiting.await.unwrap_err(), &cancel);
        assert!(error.message.contains("another export"), "{error}");

        let company = Company::new(2, 1, false, &cancel);
        company.has_failed();
        assert!(company.may_commit(&company.stop).await.is_ok(), "each for itself");
    }
}
