//! Several relations under one snapshot: all of them are locked, then the snapshot is taken, then each is planned under it.
//! A relation that cannot be read leaves the others alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::catalog::{self, CatalogRelation, TreeNode};
use super::connect::{Session, Sessions};
use super::decide;
use super::describe::{Described, describe};
use super::kept::SourceRecord;
use super::let_go::union;
use super::locking::{LockRoom, behind, held, lockable, statements, unlocked};
use super::meaning::Meaning;
use super::plan::PgPlan;
use super::plan::delta::Running;
use super::plan::locks::CONTROL_SESSIONS;
use super::prepare::{Planning, SNAPSHOT_TRIES, application, explained, running, tree_of, warn_of_replay};
use super::reader::PostgresReading;
use super::relation_read::{Common, RelationRead};
use super::server::{self, ServerFacts, SessionFacts};
use super::session::{Begin, ServerIdentity, begin as begin_transaction, server_identity};
use super::snapshot::{self, Custody, Locks, Waiting};
use super::source::sized_sessions;
use super::statement;
use super::watch::Watch;
use crate::base::failpoint;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ReadMode, ReadRequest, RelationRequest, WorkOptions};
use crate::source::{SourceError, SourceFault};

/// After so many relations the lock table is asked whether it has room for more.
const LOCKED_BETWEEN_LOOKS: usize = 50;

/// A relation that is locked.
struct Locked<'a> {
    number: usize,
    request: &'a ReadRequest,
    found: Option<CatalogRelation>,
    locks: Locks,
    meaning: Meaning,
    tree: Vec<TreeNode>,
    behind: Option<BTreeSet<u32>>,
}

/// A relation that was found and locked.
struct Found {
    relation: Option<CatalogRelation>,
    locks: Locks,
    meaning: Meaning,
    behind: Option<BTreeSet<u32>>,
}

/// A relation that is described under the snapshot.
struct DescribedPart<'a> {
    locked: Locked<'a>,
    described: Described,
}

/// What all relations share while they are planned.
struct PlanningCommon {
    sessions: Arc<Sessions>,
    watch: Arc<Watch>,
    anchor: Session,
    identity: ServerIdentity,
    application: String,
    server: ServerFacts,
    room: LockRoom,
    running: Running,
}

/// Why relations are not read, by the numbers of their requests.
type Refused = BTreeMap<usize, SourceError>;

/// Locks all relations, takes one snapshot and plans each of them under it.
///
/// # Errors
/// The requests cannot be read together, or the source fails. Nothing stays behind on the server.
///
/// # Cancel safety
/// Dropping the future closes the sessions.
pub(super) async fn begin(connect: &ConnectSettings, requests: &[ReadRequest]) -> Result<PostgresReading, SourceError> {
    check(requests)?;
    let mut refused = Refused::new();
    loop {
        let before = refused.len();
        let attempt = Box::pin(attempt(connect, requests, &mut refused)).await?;
        match attempt {
            Some((common, relations)) => return Ok(PostgresReading::of_several(common, relations, refused)),
            // One was refused so late that its locks went with all others: they are taken anew without it.
            None if refused.len() > before => {}
            None => {
                let message = "tables are being attached faster than they can be locked";
                return Err(SourceError::new(SourceFault::SchemaChanged, message)
                    .with_hint("try again when the maintenance of the partitions is done"));
            }
        }
    }
}

/// What is the run's and not a relation's has to be the same for all of them.
fn check(requests: &[ReadRequest]) -> Result<(), SourceError> {
    let refuse = |what: &str, hint: &str| Err(SourceError::new(SourceFault::Usage, what).with_hint(hint));
    let Some(first) = requests.first() else { return refuse("nothing is to be read", "name a table") };
    if requests.iter().any(|request| matches!(request.work.read_mode, ReadMode::Keyset { .. })) {
        let what = "several relations share one snapshot, and --read-mode keyset has none";
        return refuse(what, "export them one by one, or with --read-mode copy");
    }
    if requests.iter().any(|request| request.keep || request.work.served.is_some()) {
        return refuse("the snapshot of several relations ends with their run", "leave --keep-snapshot out");
    }
    if requests.iter().any(|request| request.shape.allow_rls != first.shape.allow_rls) {
        return refuse("--allow-rls is given for some relations of a run and not for others", "give it for all");
    }
    Ok(())
}

type PlannedTogether = (Common, BTreeMap<usize, RelationRead>);

/// One try: nothing where a relation was refused after others had been locked for the snapshot.
async fn attempt(
    connect: &ConnectSettings,
    requests: &[ReadRequest],
    refused: &mut Refused,
) -> Result<Option<PlannedTogether>, SourceError> {
    let began = Instant::now();
    let Some(first) = requests.first() else { return Ok(None) };
    let readers = requests.iter().map(|request| request.work.readers).max().unwrap_or(first.work.readers);
    let work = WorkOptions { readers, ..first.work.clone() };
    // One more than a single relation has: it looks at the newest catalog while others are read.
    let sessions = sized_sessions(connect, first, readers.get() + CONTROL_SESSIONS + 1)?;
    let application = application(&first.run_id);
    let lock = sessions.get().await?;
    begin_transaction(&lock, Begin::Latest, &format!("{application}/locks")).await?;
    let (server, facts) = server::facts(&lock).await?;
    sessions.pin_search_path(&facts.search_path);
    warn_of_replay(&lock, &server, &work).await?;
    let mut room = LockRoom::new(server.lock_table(), &first.shape, &work, false);
    let locking = Locking { sessions: &sessions, lock: &lock, application: &application, facts: &facts };
    let mut locked = locking.all(requests, &mut room, refused).await?;
    let running = running(&lock, requests).await?;
    failpoint::reach("locked").await;
    let all = union(locked.iter().map(|one| &one.locks));
    let Some((anchor, taken)) = locking.take_snapshot(&all, &mut locked, &mut room, refused).await? else {
        return Ok(None);
    };
    let identity = server_identity(&anchor).await?;
    let parts = describe_all(&sessions, &anchor, &application, locked, refused).await?;
    let held = (Some(lock), Some(taken));
    let watch = Arc::new(Watch::new(&sessions, work.source_limits, &application, server.standby, began, held));
    let readers = readers.get().min(room.readers());
    let shared =
        PlanningCommon { sessions, watch: Arc::clone(&watch), anchor, identity, application, server, room, running };
    let planning = Box::pin(plan_all(shared, parts, refused));
    let (shared, relations) = tokio::select! {
        planned = planning => planned?,
        error = watch.run() => return Err(error),
    };
    let PlanningCommon { sessions, anchor, identity, application, server, .. } = shared;
    let (id, custody) = Custody::of_exported(&anchor, &all, &identity, &application).await?;
    let custody = custody.of_several();
    let snapshot = snapshot::facts(&anchor, Some(id.clone())).await?;
    custody.entrust(anchor, id).await;
    custody.second(&sessions).await?;
    let sql_ascii = server.types.sql_ascii;
    Ok(Some((Common { sessions, watch, custody, snapshot, readers, sql_ascii }, relations)))
}

/// The relations that are locked, by their oids; `None` for each query.
fn roots(locked: &[Locked<'_>]) -> Vec<Option<u32>> {
    locked.iter().map(|one| one.found.as_ref().map(|found| found.oid)).collect()
}

/// The session that locks, and what it needs.
struct Locking<'a> {
    sessions: &'a Sessions,
    lock: &'a Session,
    application: &'a str,
    facts: &'a SessionFacts,
}

impl Locking<'_> {
    /// Locks every relation that is not refused yet.
    async fn all<'r>(
        &self,
        requests: &'r [ReadRequest],
        room: &mut LockRoom,
        refused: &mut Refused,
    ) -> Result<Vec<Locked<'r>>, SourceError> {
        let mut locked = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            if refused.contains_key(&number) {
                continue;
            }
            self.lock.batch("locking one relation of several", "SAVEPOINT outhaul_one").await?;
            match self.one(request).await {
                Ok(Found { relation: found, locks, meaning, behind }) => {
                    self.lock.batch("locking one relation of several", "RELEASE SAVEPOINT outhaul_one").await?;
                    locked.push(Locked { number, request, found, locks, meaning, tree: Vec::new(), behind });
                }
                Err(error) => {
                    back(self.lock, &error).await?;
                    refused.insert(number, why(self.sessions, error, request, self.application).await);
                }
            }
            if locked.len() % LOCKED_BETWEEN_LOOKS == 0 {
                room.admit_several(self.lock, &roots(&locked)).await?;
            }
        }
        room.admit_several(self.lock, &roots(&locked)).await?;
        let readers = u64::try_from(room.readers()).ok();
        for one in &mut locked {
            one.locks.readers = readers;
        }
        Ok(locked)
    }

    /// Finds a relation, locks it, and makes sure that its name still means what was locked.
    async fn one(&self, request: &ReadRequest) -> Result<Found, SourceError> {
        let (lock, shape) = (self.lock, &request.shape);
        let meaning = Meaning::of(lock, self.facts.clone(), shape).await?;
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

    /// Takes a snapshot under which nothing is read but what the lock session holds: the session that has it, and since
    /// when. Nothing where a relation was refused meanwhile, or where tables come faster than they are locked.
    async fn take_snapshot(
        &self,
        all: &Locks,
        locked: &mut [Locked<'_>],
        room: &mut LockRoom,
        refused: &mut Refused,
    ) -> Result<Option<(Session, Instant)>, SourceError> {
        let anchor = self.sessions.get().await?;
        for _ in 0..SNAPSHOT_TRIES {
            let before = held(self.lock).await?;
            let taken = Instant::now();
            begin_transaction(&anchor, Begin::NewSnapshot, &format!("{}/keeper", self.application)).await?;
            let mut oids = Vec::new();
            for one in locked.iter_mut() {
                one.tree = tree_of(&anchor, one.found.as_ref()).await?;
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
                return Ok(Some((anchor, taken)));
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
async fn back(session: &Session, error: &SourceError) -> Result<(), SourceError> {
    let rolled = session
        .batch("going on with the other relations", "ROLLBACK TO SAVEPOINT outhaul_one; RELEASE SAVEPOINT outhaul_one")
        .await;
    rolled.map_err(|lost| SourceError { message: format!("{}: {}", error.message, lost.message), ..lost })
}

/// The error of one relation, with whoever was in the way, or with the flag whose text is wrong. Asked over a session of its
/// own, since the transactions of the others go on.
async fn why(sessions: &Sessions, error: SourceError, request: &ReadRequest, application: &str) -> SourceError {
    let Ok(aside) = sessions.get().await else { return error };
    let begun = begin_transaction(&aside, Begin::Latest, &format!("{application}/inquiry")).await;
    let error = match begun {
        Ok(()) => explained(&aside, error, &request.shape, application).await,
        Err(_) => error,
    };
    aside.discard();
    error
}

/// Describes each relation under the snapshot.
async fn describe_all<'a>(
    sessions: &Sessions,
    anchor: &Session,
    application: &str,
    locked: Vec<Locked<'a>>,
    refused: &mut Refused,
) -> Result<Vec<DescribedPart<'a>>, SourceError> {
    let mut parts = Vec::new();
    for mut one in locked {
        anchor.batch("describing one relation of several", "SAVEPOINT outhaul_one").await?;
        let shape = &one.request.shape;
        let describing = async {
            let described = Box::pin(describe(anchor, shape, one.found.as_ref(), &one.tree)).await?;
            let behind = (one.found.as_ref(), one.tree.as_slice());
            one.meaning.look_behind(anchor, shape, behind, &described.split_safety.calls).await?;
            Ok::<_, SourceError>(described)
        };
        match describing.await {
            Ok(described) => {
                anchor.batch("describing one relation of several", "RELEASE SAVEPOINT outhaul_one").await?;
                parts.push(DescribedPart { locked: one, described });
            }
            Err(error) => {
                back(anchor, &error).await?;
                refused.insert(one.number, why(sessions, error, one.request, application).await);
            }
        }
    }
    Ok(parts)
}

/// Plans each relation.
async fn plan_all(
    mut shared: PlanningCommon,
    parts: Vec<DescribedPart<'_>>,
    refused: &mut Refused,
) -> Result<(PlanningCommon, BTreeMap<usize, RelationRead>), SourceError> {
    let mut relations = BTreeMap::new();
    for DescribedPart { locked, described } in parts {
        let (number, request, behind) = (locked.number, locked.request, locked.behind.clone());
        shared.anchor.batch("planning one relation of several", "SAVEPOINT outhaul_one").await?;
        let planning = shared.planning(locked, described);
        let planned = Box::pin(decide::plan(request, &planning)).await;
        let (rest, made) = PlanningCommon::after(planning, planned, request);
        shared = rest;
        match made {
            Ok(relation) => {
                shared.anchor.batch("planning one relation of several", "RELEASE SAVEPOINT outhaul_one").await?;
                relations.insert(number, relation.with_behind(behind));
            }
            Err(error) => {
                back(&shared.anchor, &error).await?;
                let error = why(&shared.sessions, error, request, &shared.application).await;
                refused.insert(number, error);
            }
        }
    }
    Ok((shared, relations))
}

impl PlanningCommon {
    /// What planning knows of one relation.
    fn planning(self, locked: Locked<'_>, described: Described) -> Planning {
        let Self { sessions, watch, anchor, identity, application, server, room, running } = self;
        let Described { relation, expressions, shape, now, split_safety } = described;
        let Locked { found, locks, meaning, .. } = locked;
        Planning {
            sessions,
            watch,
            anchor,
            exported: None,
            locks,
            identity,
            application,
            found,
            meaning,
            relation,
            expressions,
            shape,
            now,
            split_safety,
            server,
            room,
            running,
        }
    }

    /// What is left for the next relation, and what became of this one.
    fn after(
        planning: Planning,
        planned: Result<PgPlan, SourceError>,
        request: &ReadRequest,
    ) -> (Self, Result<RelationRead, SourceError>) {
        let Planning { sessions, watch, anchor, identity, application, server, room, running, .. } = planning;
        let Planning { found, locks, meaning, .. } = planning;
        let allow_rls = anchor.allows_rls();
        let (of_record, of_server) = (identity.clone(), server.clone());
        let record = SourceRecord { found, locks, server: of_server, identity: of_record, allow_rls, meaning };
        let made = planned.and_then(|plan| RelationRead::new(record, plan, request));
        (Self { sessions, watch, anchor, identity, application, server, room, running }, made)
    }
}
