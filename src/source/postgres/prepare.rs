//! From a request to facts: locks first, then the snapshot, then everything planning asks for, seen under it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::blame;
use super::catalog::{self, CatalogRelation, TreeNode};
use super::connect::{Session, Sessions};
use super::culprit::explain_refusal;
use super::describe::describe;
use super::locking::{LockRoom, branches, held, lockable, newest_branches, statements, unlocked};
use super::meaning::Meaning;
use super::server::{self, ServerFacts};
use super::session::{Begin, ServerIdentity, begin, server_identity};
use super::snapshot::{Custody, Locks, Waiting, export_with_facts};
use super::split_safety::SplitSafety;
use super::standby::warn_of_replay;
use super::statement;
use super::watch::Watch;
use super::watermark;
use crate::base::failpoint;
use crate::model::{ReadMode, ReadRequest, RelationRequest, ShapeOptions, SnapshotRecord, WorkOptions};
use crate::source::postgres::plan::delta::Running;
use crate::source::postgres::plan::{ColumnFacts, FixedNow, LockUse, RelationFacts};
use crate::source::{SourceError, SourceFault};

/// Tries to list the leaves under a snapshot that was taken after all of them were locked.
pub(super) const SNAPSHOT_TRIES: usize = 3;

/// A source that has its locks and its snapshot, and answers planning's questions.
#[derive(Debug)]
pub struct Planning {
    pub(crate) sessions: Arc<Sessions>,
    /// Looks at the source, over the session that holds the locks.
    pub(crate) watch: Arc<Watch>,
    /// The session whose snapshot all facts come from.
    pub(crate) anchor: Session,
    /// The snapshot, which is exported, and its custody, for the anchor: where a reader stands ready already.
    pub(crate) exported: Option<(SnapshotRecord, Custody)>,
    pub(crate) locks: Locks,
    pub(crate) identity: ServerIdentity,
    pub(crate) application: String,
    pub(crate) found: Option<CatalogRelation>,
    pub(crate) meaning: Meaning,
    /// The relation.
    pub relation: RelationFacts,
    /// The columns that `--column` expressions make, in their order.
    pub expressions: Vec<ColumnFacts>,
    /// The shape, with literals in place of clocks where [`Planning::now`] is set.
    pub(crate) shape: ShapeOptions,
    /// The moment that these literals are of.
    pub(crate) now: Option<FixedNow>,
    /// Whether the rows may be split.
    pub(crate) split_safety: SplitSafety,
    /// The server.
    pub server: ServerFacts,
    /// What may be taken of its lock table.
    pub(crate) room: LockRoom,
    /// The transactions that ran just before the snapshot, where an incremental export has to know.
    pub(crate) running: Running,
}

impl Planning {
    /// Connects, locks, takes the snapshot and describes the relation.
    ///
    /// The query or predicate of `request` has been lexed already; the server checks the rest of it here.
    ///
    /// # Errors
    /// See [`SourceFault`]; nothing stays behind on the server.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    pub(crate) async fn begin(sessions: Arc<Sessions>, request: &ReadRequest) -> Result<Self, SourceError> {
        let (began, ReadRequest { run_id, shape, work, keep, .. }) = (Instant::now(), request);
        let (read_mode, keep, application) = (work.read_mode, *keep, application(run_id));
        let (let_in, first) = oneshot::channel();
        let locking = async {
            let lock = sessions.get().await?;
            // Who waits for it may have no need of it any more.
            let _ = let_in.send(());
            let (server, meaning, found) = enter(&sessions, &lock, shape, work, &application).await?;
            let mut room = LockRoom::new(server.lock_table(), shape, work, keep);
            let locked = lock_relation(&lock, (shape, found), read_mode, &application, &mut room).await;
            Ok::<_, SourceError>((lock, server, meaning, locked, room))
        };
        // The session that will take the snapshot connects meanwhile. Where it cannot, it is asked for again.
        let anchor = async { if read_mode == ReadMode::Copy { sessions.second(first).await.ok() } else { None } };
        let (locked, anchor) = tokio::join!(Box::pin(locking), Box::pin(anchor));
        let (lock, server, mut meaning, locked, mut room) = locked?;
        let (found, mut locks) = match locked {
            Ok(locked) => locked,
            Err(error) => {
                return Err(blame::explain(&lock, explained(&lock, error, shape, &application).await, shape).await);
            }
        };
        let running = running(&lock, [request]).await?;
        failpoint::reach("locked").await;
        let exports = read_mode == ReadMode::Copy && work.readers.get() > 1 && !keep;
        let (locking, how) = ((&mut locks, &mut room), (application.as_str(), exports));
        let seen = seen(&sessions, (lock, anchor), (shape, read_mode), found.as_ref(), locking, how);
        let Seen { lock, taken, anchor, tree, identity, exported } = Box::pin(seen).await?;
        // By now a child may have come that was not there when the relation was looked up.
        let found = found.map(|found| CatalogRelation { tables: tree.len(), ..found });
        // The keeper that outlives the run comes before the readers: they can do with fewer connections, and it cannot.
        let exported = exported.filter(|_| room.readers() > 1);
        let describing = describe(&anchor, shape, found.as_ref(), &tree);
        let (described, exported, lock) = if let Some(snapshot) = exported {
            let custody = Custody::of_others(Vec::new(), locks.clone(), identity.clone(), &application);
            let id = snapshot.id.clone().unwrap_or_default();
            let becomes_reader = is_small(&tree, work) && !meaning.is_watched();
            let (lock, first) = if becomes_reader { (None, lock) } else { (lock, None) };
            let admitting = admit_reader(&sessions, first, &custody, &id);
            let (described, ()) = tokio::join!(Box::pin(describing), Box::pin(admitting));
            (described, Some((snapshot, custody)), lock)
        } else {
            (Box::pin(describing).await, None, lock)
        };
        let watch = Watch::new(&sessions, work.source_limits, &application, server.standby, began, (lock, taken));
        let (described, watch) = (described?, Arc::new(watch));
        meaning.look_behind(&anchor, shape, (found.as_ref(), &tree), &described.split_safety.calls).await?;
        Ok(Self {
            sessions,
            watch,
            anchor,
            exported,
            locks,
            identity,
            application,
            found,
            meaning,
            relation: described.relation,
            expressions: described.expressions,
            shape: described.shape,
            now: described.now,
            split_safety: described.split_safety,
            server,
            room,
            running,
        })
    }

    /// What is taken of the server's lock table.
    pub(crate) fn lock_use(&self) -> LockUse {
        self.room.lock_use(&self.locks, &self.relation)
    }

    /// Whether leaves are locked as they are read, and not before: then nothing may be planned over what they inherit from.
    pub(crate) fn checks_leaves(&self) -> bool {
        self.locks.checked.is_some()
    }

    /// Why the relation is not read through its own name where its leaves are locked as they are read.
    pub(crate) fn refuse_parent(&self) -> SourceError {
        self.room.refuse(self.relation.display_name.as_deref().unwrap_or("the query"))
    }

    /// `work` while the source is watched: its locks are held already.
    ///
    /// # Errors
    /// As `work`; [`SourceFault::GaveWay`] where others need the source more.
    pub(crate) async fn watched<T, E: From<SourceError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // Planning's own future is large.
        let work = Box::pin(work);
        tokio::select! {
            result = work => result,
            error = self.watch.run() => Err(error.into()),
        }
    }
}

/// A relation as it was found before anything was locked, or why it was not.
type FirstFound = Option<Result<CatalogRelation, SourceError>>;

/// The transactions that run, where one of these requests has to know.
pub(super) async fn running<'a>(
    lock: &Session,
    requests: impl IntoIterator<Item = &'a ReadRequest>,
) -> Result<Running, SourceError> {
    if requests.into_iter().all(|request| request.watermark.is_none()) {
        return Ok(Running::default());
    }
    watermark::running(lock).await
}

/// Begins the session that will have the locks: the server's facts, what names stand for, and the relation where one is
/// named. All questions are on their way at once.
async fn enter(
    sessions: &Sessions,
    lock: &Session,
    shape: &ShapeOptions,
    work: &WorkOptions,
    application: &str,
) -> Result<(ServerFacts, Meaning, FirstFound), SourceError> {
    let role = format!("{application}/locks");
    let finding = async {
        match named(shape) {
            Some(name) => Some(catalog::find(lock, name).await),
            None => None,
        }
    };
    let (begun, facts, meaning, found) = tokio::join!(
        begin(lock, Begin::Latest, &role),
        server::facts(lock),
        Box::pin(Meaning::of(lock, shape)),
        Box::pin(finding),
    );
    let (mut server, session) = begun.and(facts)?;
    sessions.pin(&session.search_path, &session.date_style);
    let meaning = meaning?.seen_by(session);
    if found.as_ref().is_none_or(Result::is_ok) {
        server::identify(lock, &mut server, work).await?;
        warn_of_replay(lock, &server, work).await?;
    }
    Ok((server, meaning, found))
}

/// An error with whoever was in the way, or with the flag whose text is wrong.
pub(super) async fn explained(
    lock: &Session,
    error: SourceError,
    shape: &ShapeOptions,
    application: &str,
) -> SourceError {
    let error = explain_refusal(lock, error, named(shape), application).await;
    blame::explain(lock, error, shape).await
}

/// The name by which a person asked for a table.
fn named(shape: &ShapeOptions) -> Option<&str> {
    match &shape.relation {
        RelationRequest::Table(name) => Some(name),
        RelationRequest::Query(_) => None,
    }
}

/// What stands behind a relation; nothing is known to stand behind a query.
pub(super) async fn tree_of(session: &Session, found: Option<&CatalogRelation>) -> Result<Vec<TreeNode>, SourceError> {
    match found {
        Some(found) => catalog::tree(session, found.oid).await,
        None => Ok(Vec::new()),
    }
}

/// Has the first reader stand ready under the snapshot: `first`, or a new session. Where that fails, the reader itself
/// finds out why.
async fn admit_reader(sessions: &Sessions, first: Option<Session>, custody: &Custody, snapshot: &str) {
    let ends = first.is_some();
    let session = match first {
        Some(session) => Ok(session),
        None => sessions.get().await,
    };
    if let Ok(session) = session {
        custody.admit(session, snapshot, ends).await;
    }
}

/// Whether it is one table, not to be cut, that is read in less time than connections take to make, and before the lock
/// session would have looked at the source: that session becomes the reader, as the anchor has the same locks.
fn is_small(tree: &[TreeNode], work: &WorkOptions) -> bool {
    work.partitions.is_none_or(|partitions| partitions.get() == 1)
        && matches!(tree, [node] if matches!(node.relkind.as_str(), "r" | "m") && node.facts.is_small())
}

/// How a run's sessions are called, before their role.
pub(crate) fn application(run_id: &str) -> String {
    // The tail of the id is its random part; its head is the time, which many runs share.
    let short: String = run_id.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
    format!("outhaul/{short}")
}

/// Finds the relation, locks it, and makes sure that the name still means what was locked.
async fn lock_relation(
    lock: &Session,
    (shape, mut first_found): (&ShapeOptions, FirstFound),
    read_mode: ReadMode,
    application: &str,
    room: &mut LockRoom,
) -> Result<(Option<CatalogRelation>, Locks), SourceError> {
    let RelationRequest::Table(name) = &shape.relation else {
        let mut locks = Locks { statements: statements(shape, None, ""), ..Locks::default() };
        if let Some(statement) = locks.statements.first() {
            // Described, it has locked what it names; planned, also what is behind that.
            let described =
                statement::describe(lock, "planning the statement, which locks what it reads", statement).await;
            described.map_err(|error| error.in_statement(statement, 0))?;
            room.admit_query(lock).await?;
            locks.readers = u64::try_from(room.readers()).ok();
        }
        locks.take(lock, Waiting::Patient).await?;
        return Ok((None, locks));
    };
    for _ in 0..SNAPSHOT_TRIES {
        let found = match first_found.take() {
            Some(found) => found?,
            None => catalog::find(lock, name).await?,
        };
        let tables = if lockable(&found) { vec![found.sql_name()] } else { Vec::new() };
        let first = Locks { tables, statements: statements(shape, Some(&found), ""), ..Locks::default() };
        let locks = room.decide(lock, &found, first, statements(shape, Some(&found), "ONLY ")).await?;
        let taking = async {
            let wanted = read_mode == ReadMode::Copy || !locks.statements.is_empty();
            if wanted { locks.take(lock, Waiting::Patient).await } else { Ok(()) }
        };
        // The name is looked up again behind the first lock, and both are on their way at once.
        let (taken, again) = tokio::join!(taking, Box::pin(catalog::find(lock, name)));
        taken?;
        if again?.oid == found.oid {
            return Ok((Some(found), locks));
        }
        lock.batch("starting over", "ROLLBACK").await?;
        begin(lock, Begin::Latest, &format!("{application}/locks")).await?;
    }
    Err(SourceError::new(SourceFault::SchemaChanged, format!("{name} is being replaced over and over"))
        .with_hint("another session renames or recreates the table; try again when it is done"))
}

/// What planning sees the relation by.
struct Seen {
    /// The session that holds the locks, where there is a snapshot.
    lock: Option<Session>,
    /// When the snapshot was taken.
    taken: Option<Instant>,
    /// The session whose snapshot all facts come from.
    anchor: Session,
    /// What the relation consists of.
    tree: Vec<TreeNode>,
    identity: ServerIdentity,
    /// The snapshot, where it was to be exported.
    exported: Option<SnapshotRecord>,
}

/// Takes the snapshot where rows are read under one; pages have none.
async fn seen(
    sessions: &Sessions,
    (lock, anchor): (Session, Option<Session>),
    (shape, read_mode): (&ShapeOptions, ReadMode),
    found: Option<&CatalogRelation>,
    locking: (&mut Locks, &mut LockRoom),
    (application, exports): (&str, bool),
) -> Result<Seen, SourceError> {
    let seen = match read_mode {
        ReadMode::Copy => {
            let taken = take_snapshot(sessions, anchor, &lock, found, locking, (application, exports)).await;
            taken.map(|it| (Some(it.taken), Some(it.anchor), it.tree, it.identity, it.exported))
        }
        ReadMode::Keyset { .. } => {
            // The sizes of the tables wait for locks as a read does.
            let (tree, identity) = tokio::join!(Box::pin(tree_of(&lock, found)), server_identity(&lock));
            tree.and_then(|tree| Ok((None, None, tree, identity?, None)))
        }
    };
    match seen {
        Ok((taken, Some(anchor), tree, identity, exported)) => {
            Ok(Seen { lock: Some(lock), taken, anchor, tree, identity, exported })
        }
        Ok((taken, None, tree, identity, exported)) => {
            Ok(Seen { lock: None, taken, anchor: lock, tree, identity, exported })
        }
        Err(error) => Err(explained(&lock, error, shape, application).await),
    }
}

/// A snapshot under which nothing is read but what is locked.
struct TakenSnapshot {
    /// The session whose transaction it is.
    anchor: Session,
    taken: Instant,
    /// What the relation consists of under it.
    tree: Vec<TreeNode>,
    identity: ServerIdentity,
    /// Where it was to be exported.
    exported: Option<SnapshotRecord>,
}

/// Takes the locks once more over the session that holds them: whether it held all of them before, `oids` among them.
async fn holds_no_more(lock: &Session, locks: &Locks, before: &[u32], oids: &[u32]) -> Result<bool, SourceError> {
    if locks.is_one_statement() {
        // All are on their way at once, and answered in this order.
        let (taken, after, missing) =
            tokio::join!(locks.take(lock, Waiting::Patient), held(lock), unlocked(lock, oids));
        taken?;
        return Ok(after? == before && missing?.is_empty());
    }
    locks.take(lock, Waiting::Patient).await?;
    Ok(held(lock).await? == before && unlocked(lock, oids).await?.is_empty())
}

/// Takes a snapshot under which nothing is read but what the lock session holds, or what is compared with it as it is read,
/// in the anchor's transaction. Also says when, and what the relation consists of under it.
async fn take_snapshot(
    sessions: &Sessions,
    anchor: Option<Session>,
    lock: &Session,
    found: Option<&CatalogRelation>,
    (locks, room): (&mut Locks, &mut LockRoom),
    (application, exports): (&str, bool),
) -> Result<TakenSnapshot, SourceError> {
    let anchor = match anchor {
        // It idled while the lock session waited, and the server may have ended it for that.
        Some(anchor) if !anchor.client().is_closed() => anchor,
        _ => sessions.get().await?,
    };
    if let (Some(checked), Some(found)) = (&mut locks.checked, found) {
        checked.branches = newest_branches(lock, found.oid).await?;
        locks.take(lock, Waiting::Patient).await?;
    }
    for _ in 0..SNAPSHOT_TRIES {
        let (taken, role) = (Instant::now(), format!("{application}/keeper"));
        // The lock session does nothing else meanwhile: what it holds now it held before the snapshot was taken.
        let (of_lock, before, begun, identity, tree) = tokio::join!(
            server_identity(lock),
            held(lock),
            begin(&anchor, Begin::NewSnapshot, &role),
            server_identity(&anchor),
            Box::pin(tree_of(&anchor, found)),
        );
        let (before, ()) = (before?, begun?);
        // Locks on another server would be none.
        let (identity, tree) = (identity?.agreed(&of_lock?)?, tree?);
        // What came between the locks and the snapshot is locked only now, too late for this snapshot: it may have been
        // emptied before. Behind views and queries nothing else would show it.
        let oids: Vec<u32> = if let Some(checked) = &mut locks.checked {
            checked.branches = branches(&tree).map(|node| node.facts.sql_name.clone()).collect();
            branches(&tree).map(|node| node.oid).collect()
        } else {
            tree.iter().map(|node| node.oid).collect()
        };
        // The anchor may be the only reader, and the lock session may be lost.
        let exporting = async { if exports { export_with_facts(&anchor).await.map(Some) } else { Ok(None) } };
        let (nothing_new, entered, exported) = tokio::join!(
            Box::pin(holds_no_more(lock, locks, &before, &oids)),
            Box::pin(locks.take(&anchor, Waiting::Nowait)),
            Box::pin(exporting),
        );
        if nothing_new? {
            entered?;
            room.holds(&before);
            failpoint::reach("snapshot").await;
            return Ok(TakenSnapshot { anchor, taken, tree, identity, exported: exported? });
        }
        anchor.batch("leaving a snapshot that was taken too early", "ROLLBACK").await?;
    }
    Err(SourceError::new(SourceFault::SchemaChanged, "tables are being attached faster than they can be locked")
        .with_hint("try again when the maintenance of the partitions is done"))
}
