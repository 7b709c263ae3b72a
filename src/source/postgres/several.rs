//! Several relations under one snapshot: all of them are locked, then the snapshot is taken, then each is planned under it.
//! A relation that cannot be read leaves the others alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::connect::{Session, Sessions};
use super::decide;
use super::describe::{Described, describe};
use super::kept::SourceRecord;
use super::let_go::union;
use super::locking::LockRoom;
use super::plan::PgPlan;
use super::plan::delta::Running;
use super::plan::locks::CONTROL_SESSIONS;
use super::prepare::{Planning, application, running};
use super::reader::PostgresReading;
use super::relation_read::{Common, RelationRead};
use super::server::{self, ServerFacts};
use super::session::{Begin, ServerIdentity, begin as begin_transaction};
use super::several_locks::{ASKED_AT_ONCE, Locked, Locking, back, is_plain, why};
use super::snapshot::{self, Custody};
use super::source::sized_sessions;
use super::standby::warn_of_replay;
use super::watch::Watch;
use crate::base::failpoint;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ReadMode, ReadRequest, WorkOptions};
use crate::source::{SourceError, SourceFault};

const PLANNING: &str = "planning several relations";

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
pub(super) type Refused = BTreeMap<usize, SourceError>;

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
    if requests.iter().any(|request| request.work.served.is_some()) {
        return refuse("several relations are not read for one client", "ask for them one by one");
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
    let role = format!("{application}/locks");
    let (entered, facts) = tokio::join!(begin_transaction(&lock, Begin::Latest, &role), server::facts(&lock));
    let (mut server, facts) = entered.and(facts)?;
    server::identify(&lock, &mut server, &work).await?;
    sessions.pin(&facts.search_path, &facts.date_style);
    warn_of_replay(&lock, &server, &work).await?;
    let keep = requests.iter().any(|request| request.keep);
    let mut room = LockRoom::new(server.lock_table(), &first.shape, &work, keep);
    let locking = Locking { sessions: &sessions, lock: &lock, application: &application, facts: &facts };
    let mut locked = locking.all(requests, &mut room, refused).await?;
    let running = running(&lock, requests).await?;
    failpoint::reach("locked").await;
    let all = union(locked.iter().map(|one| &one.locks));
    let Some((anchor, taken, identity)) = locking.take_snapshot(&all, &mut locked, &mut room, refused).await? else {
        return Ok(None);
    };
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
    // One outside of the run is the second at first.
    if !keep {
        custody.second(&sessions).await?;
    }
    let sql_ascii = server.types.sql_ascii;
    Ok(Some((Common { sessions, watch, custody, snapshot, readers, sql_ascii }, relations)))
}

/// Describes relations whose questions are all on their way at once. All of them come back where one has to be asked about
/// by itself, or fails.
async fn describe_at_once<'a>(
    anchor: &Session,
    mut locked: Vec<Locked<'a>>,
) -> Result<Result<Vec<DescribedPart<'a>>, Vec<Locked<'a>>>, SourceError> {
    if locked.len() < 2 || !locked.iter().all(|one| is_plain(one.request)) || failpoint::off("at-once") {
        return Ok(Err(locked));
    }
    let action = "describing several relations";
    anchor.batch(action, "SAVEPOINT outhaul_one").await?;
    let mut asked: Vec<BoxFuture<'_, Result<Described, SourceError>>> = Vec::new();
    for one in &mut locked {
        let describing = async move {
            let shape = &one.request.shape;
            let described = Box::pin(describe(anchor, shape, one.found.as_ref(), &one.tree)).await?;
            let behind = (one.found.as_ref(), one.tree.as_slice());
            one.meaning.look_behind(anchor, shape, behind, &described.split_safety.calls).await?;
            Ok::<_, SourceError>(described)
        };
        asked.push(describing.boxed());
    }
    let described: Result<Vec<Described>, SourceError> =
        stream::iter(asked).buffered(ASKED_AT_ONCE).try_collect().await;
    match described {
        Ok(described) => {
            anchor.batch(action, "RELEASE SAVEPOINT outhaul_one").await?;
            let parts =
                locked.into_iter().zip(described).map(|(locked, described)| DescribedPart { locked, described });
            Ok(Ok(parts.collect()))
        }
        Err(error) => {
            back(anchor, &error).await?;
            Ok(Err(locked))
        }
    }
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
    let locked = match describe_at_once(anchor, locked).await? {
        Ok(described) => return Ok(described),
        Err(locked) => locked,
    };
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
    shared.anchor.batch(PLANNING, "SAVEPOINT outhaul_one").await?;
    for DescribedPart { locked, described } in parts {
        let (number, request, behind) = (locked.number, locked.request, locked.behind.clone());
        let planning = shared.planning(locked, described);
        let planned = Box::pin(decide::plan(request, &planning)).await;
        let (rest, made) = PlanningCommon::after(planning, planned, request);
        shared = rest;
        match made {
            Ok(relation) => drop(relations.insert(number, relation.with_behind(behind))),
            Err(error) => {
                // A plan that was made before needs nothing of the transaction.
                back(&shared.anchor, &error).await?;
                shared.anchor.batch(PLANNING, "SAVEPOINT outhaul_one").await?;
                let error = why(&shared.sessions, error, request, &shared.application).await;
                refused.insert(number, error);
            }
        }
    }
    shared.anchor.batch(PLANNING, "RELEASE SAVEPOINT outhaul_one").await?;
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
