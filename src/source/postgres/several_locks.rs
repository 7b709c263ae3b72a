//! The locks of several relations, and the snapshot that is taken once all of them are held.

use std::collections::BTreeSet;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::catalog::{self, CatalogRelation, TreeNode};
use super::connect::{Session, Sessions};
use super::fixed_now::texts;
use super::locking::{LockRoom, behind, held, lockable, statements, unlocked};
use super::meaning::Meaning;
use super::prepare::{SNAPSHOT_TRIES, explained, tree_of};
use super::server::SessionFacts;
use super::session::{Begin, ServerIdentity, begin as begin_transaction, server_identity};
use super::several::Refused;
use super::snapshot::{Locks, Waiting};
use super::statement;
use crate::base::failpoint;
use crate::model::{ReadRequest, RelationRequest};
use crate::source::{SourceError, SourceFault};

/// After so many relations the lock table is asked whether it has room for more.
const LOCKED_BETWEEN_LOOKS: usize = 50;

/// Relations about which a session is asked at once: more would save nothing, as their answers come one after the other.
pub(super) const ASKED_AT_ONCE: usize = 64;

/// A relation that is locked.
pub(super) struct Locked<'a> {
    pub(super) number: usize,
    pub(super) request: &'a ReadRequest,
    pub(super) found: Option<CatalogRelation>,
    pub(super) locks: Locks,
    pub(super) meaning: Meaning,
    pub(super) tree: Vec<TreeNode>,
    pub(super) behind: Option<BTreeSet<u32>>,
}

/// A relation that was found and locked.
struct Found {
    relation: Option<CatalogRelation>,
    locks: Locks,
    meaning: Meaning,
    behind: Option<BTreeSet<u32>>,
}

impl Found {
    fn of(self, number: usize, request: &ReadRequest) -> Locked<'_> {
        let Self { relation: found, locks, meaning, behind } = self;
        Locked { number, request, found, locks, meaning, tree: Vec::new(), behind }
    }
}

/// Whether a request is of a table as it is, without a text of a person's, which is asked about under a savepoint of its own.
pub(super) fn is_plain(request: &ReadRequest) -> bool {
    matches!(request.shape.relation, RelationRequest::Table(_)) && texts(&request.shape).next().is_none()
}

/// The relations that are locked, by their oids; `None` for each query.
fn roots(locked: &[Locked<'_>]) -> Vec<Option<u32>> {
    locked.iter().map(|one| one.found.as_ref().map(|found| found.oid)).collect()
}

/// The session that locks, and what it needs.
pub(super) struct Locking<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) lock: &'a Session,
    pub(super) application: &'a str,
    pub(super) facts: &'a SessionFacts,
}

impl Locking<'_> {
    /// Locks every relation that is not refused yet.
    pub(super) async fn all<'r>(
        &self,
        requests: &'r [ReadRequest],
        room: &mut LockRoom,
        refused: &mut Refused,
    ) -> Result<Vec<Locked<'r>>, SourceError> {
        let mut locked = Vec::new();
        let wanted: Vec<(usize, &ReadRequest)> =
            requests.iter().enumerate().filter(|(number, _)| !refused.contains_key(number)).collect();
        for some in wanted.chunks(LOCKED_BETWEEN_LOOKS) {
            match self.at_once(some).await? {
                Some(found) => locked.extend(found),
                None => self.one_by_one(some, &mut locked, refused).await?,
            }
            room.admit_several(self.lock, &roots(&locked)).await?;
        }
        let readers = u64::try_from(room.readers()).ok();
        for one in &mut locked {
            one.locks.readers = readers;
        }
        Ok(locked)
    }

    /// Locks relations whose questions are all on their way at once, so that they take no longer than those of one. Nothing
    /// where one of them has to be asked by itself, or was refused.
    async fn at_once<'r>(&self, some: &[(usize, &'r ReadRequest)]) -> Result<Option<Vec<Locked<'r>>>, SourceError> {
        if some.len() < 2 || !some.iter().all(|(_, request)| is_plain(request)) || failpoint::off("at-once") {
            return Ok(None);
        }
        let action = "locking several relations";
        self.lock.batch(action, "SAVEPOINT outhaul_one").await?;
        let mut asked: Vec<BoxFuture<'_, Result<Found, SourceError>>> = Vec::new();
        for (_, request) in some {
            asked.push(self.one(request).boxed());
        }
        match try_join_all(asked).await {
            Ok(found) => {
                self.lock.batch(action, "RELEASE SAVEPOINT outhaul_one").await?;
                let locked = some.iter().zip(found).map(|((number, request), found)| found.of(*number, request));
                Ok(Some(locked.collect()))
            }
            Err(error) => {
                back(self.lock, &error).await?;
                Ok(None)
            }
        }
    }

    /// Locks relations each for itself, so that one that is refused leaves the others alone.
    async fn one_by_one<'r>(
        &self,
        some: &[(usize, &'r ReadRequest)],
        locked: &mut Vec<Locked<'r>>,
        refused: &mut Refused,
    ) -> Result<(), SourceError> {
        for (number, request) in some {
            self.lock.batch("locking one relation of several", "SAVEPOINT outhaul_one").await?;
            match self.one(request).await {
                Ok(found) => {
                    self.lock.batch("locking one relation of several", "RELEASE SAVEPOINT outhaul_one").await?;
                    locked.push(found.of(*number, request));
                }
                Err(error) => {
                    back(self.lock, &error).await?;
                    refused.insert(*number, why(self.sessions, error, request, self.application).await);
                }
            }
        }
        Ok(())
    }

    /// Finds a relation, locks it, and makes sure that its name still means what was locked.
    async fn one(&self, request: &ReadRequest) -> Result<Found, SourceError> {
        let (lock, shape) = (self.lock, &request.shape);
        let meaning = Meaning::of(lock, shape).await?.seen_by(self.facts.clone());
        let RelationRequest::Table(name) = &shape.relation else {
            let locks = Locks { statements: statements(shape, None, ""), ..Locks::default() };
            for statement in &locks.statements {
                let described =
                    statement::describe(lock, "planning the statement, which locks what it reads", statement);
                described.await.map_err(|error| error.in_statement(statement, 0))?;
            }
            locks.take(lock, Waiting::Patient).await?;
            return Ok(Found { relation: None, locks, meaning, behind: None });
        };
        for _ in 0..SNAPSHOT_TRIES {
            let found = catalog::find(lock, name).await?;
            let tables = if lockable(&found) { vec![found.sql_name()] } else { Vec::new() };
            let locks = Locks { tables, statements: statements(shape, Some(&found), ""), ..Locks::default() };
            locks.take(lock, Waiting::Patient).await?;
            if catalog::find(lock, name).await?.oid == found.oid {
                let behind = Some(behind(lock, found.oid).await?);
                return Ok(Found { relation: Some(found), locks, meaning, behind });
            }
        }
        Err(SourceError::new(SourceFault::SchemaChanged, format!("{name} is being replaced over and over"))
            .with_hint("another session renames or recreates the table; try again when it is done"))
    }

    /// Takes a snapshot under which nothing is read but what the lock session holds: the session that has it, since when,
    /// and on which server. Nothing where a relation was refused meanwhile, or where tables come faster than they are locked.
    pub(super) async fn take_snapshot(
        &self,
        all: &Locks,
        locked: &mut [Locked<'_>],
        room: &mut LockRoom,
        refused: &mut Refused,
    ) -> Result<Option<(Session, Instant, ServerIdentity)>, SourceError> {
        let anchor = self.sessions.get().await?;
        for _ in 0..SNAPSHOT_TRIES {
            let (of_lock, before) = tokio::join!(server_identity(self.lock), held(self.lock));
            let (of_lock, before, taken) = (of_lock?, before?, Instant::now());
            let role = format!("{}/keeper", self.application);
            let (begun, identity) =
                tokio::join!(begin_transaction(&anchor, Begin::NewSnapshot, &role), server_identity(&anchor));
            begun?;
            // Locks on another server would be none.
            let identity = identity?.agreed(&of_lock)?;
            // So many questions are on their way at once.
            let mut asked: Vec<BoxFuture<'_, Result<Vec<TreeNode>, SourceError>>> = Vec::new();
            for one in locked.iter() {
                asked.push(tree_of(&anchor, one.found.as_ref()).boxed());
            }
            let trees: Vec<Vec<TreeNode>> = stream::iter(asked).buffered(ASKED_AT_ONCE).try_collect().await?;
            let mut oids = Vec::new();
            for (one, tree) in locked.iter_mut().zip(trees) {
                one.tree = tree;
                oids.extend(one.tree.iter().map(|node| node.oid));
                // By now a child may have come that was not there when the relation was looked up.
                if let Some(found) = &mut one.found {
                    found.tables = one.tree.len();
                }
            }
            // What came between the locks and the snapshot is locked only now, too late for this snapshot.
            if !self.took(self.lock, all, Waiting::Patient, locked, refused).await? {
                return Ok(None);
            }
            if held(self.lock).await? == before && unlocked(self.lock, &oids).await?.is_empty() {
                // The lock session may be lost.
                if !self.took(&anchor, all, Waiting::Nowait, locked, refused).await? {
                    return Ok(None);
                }
                room.holds(&before);
                failpoint::reach("snapshot").await;
                return Ok(Some((anchor, taken, identity)));
            }
            anchor.batch("leaving a snapshot that was taken too early", "ROLLBACK").await?;
        }
        Ok(None)
    }

    /// Takes all locks over a session: whether it has them. Where it has not, the relation that is in the way is refused.
    async fn took(
        &self,
        session: &Session,
        all: &Locks,
        waiting: Waiting,
        locked: &[Locked<'_>],
        refused: &mut Refused,
    ) -> Result<bool, SourceError> {
        session.batch("locking several relations", "SAVEPOINT outhaul_one").await?;
        let Err(first) = all.take(session, waiting).await else {
            session.batch("locking several relations", "RELEASE SAVEPOINT outhaul_one").await?;
            return Ok(true);
        };
        back(session, &first).await?;
        for one in locked {
            session.batch("locking several relations", "SAVEPOINT outhaul_one").await?;
            match one.locks.take(session, waiting).await {
                Ok(()) => session.batch("locking several relations", "RELEASE SAVEPOINT outhaul_one").await?,
                Err(error) => {
                    back(session, &error).await?;
                    let error = why(self.sessions, error, one.request, self.application).await;
                    refused.insert(one.number, error);
                    return Ok(false);
                }
            }
        }
        // Whoever was in the way has gone.
        Ok(true)
    }
}

/// Goes on with a session after the error of one relation.
///
/// # Errors
/// That error, where the session is lost.
pub(super) async fn back(session: &Session, error: &SourceError) -> Result<(), SourceError> {
    let rolled = session
        .batch("going on with the other relations", "ROLLBACK TO SAVEPOINT outhaul_one; RELEASE SAVEPOINT outhaul_one")
        .await;
    rolled.map_err(|lost| SourceError { message: format!("{}: {}", error.message, lost.message), ..lost })
}

/// The error of one relation, with whoever was in the way, or with the flag whose text is wrong. Asked over a session of its
/// own, since the transactions of the others go on.
pub(super) async fn why(
    sessions: &Sessions,
    error: SourceError,
    request: &ReadRequest,
    application: &str,
) -> SourceError {
    let Ok(aside) = sessions.get().await else { return error };
    let begun = begin_transaction(&aside, Begin::Latest, &format!("{application}/inquiry")).await;
    let error = match begun {
        Ok(()) => explained(&aside, error, &request.shape, application).await,
        Err(_) => error,
    };
    aside.discard();
    error
}
