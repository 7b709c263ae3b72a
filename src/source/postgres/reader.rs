//! The [`Reading`] of a PostgreSQL server: sessions under one snapshot, a COPY a partition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Mutex;

use super::connect::{Session, Sessions};
use super::error::STANDBY_HINT;
use super::kept::{PgRecord, SourceRecord};
use super::let_go::{Holding, LetGo};
use super::partition_reading::{Manner, PartitionReading};
use super::permits::Permits;
use super::plan::PgPlan;
use super::plan::locks::LockShare;
use super::plan::sizing::heap_blocks;
use super::prepare::Planning;
use super::relation_read::{Common, RelationRead, permits, unknown};
use super::served_pages::Serving;
use super::slots::ReaderSlots;
use super::snapshot::{self, Custody, KEEPER_PING, READER};
use super::watch::Watch;
use super::{catalog, keyset};
use crate::model::{
    Consistency, ConsistencyMode, Plan, ReadMode, ReadRequest, ServedReads, SnapshotRecord, SourceCost, SourceFacts,
    SourceKind,
};
use crate::source::{BatchStream, Opened, Reading, SourceError, SourceFault};

/// Between two looks at the keepers and the lock session: a lost keeper is replaced within seconds.
const GUARD_INTERVAL: Duration = Duration::from_secs(1);

/// How reads share one moment.
#[derive(Debug)]
pub(super) enum Moment {
    /// Keepers hold an exported snapshot that each reader imports.
    Kept(Box<Custody>),
    /// One reader: its own transaction is the snapshot.
    Own(Arc<Mutex<Option<Session>>>),
    /// Keyset mode: each page is its own moment.
    Pages(keyset::Pages),
}

/// A PostgreSQL server, ready to be read from.
#[derive(Debug)]
pub(crate) struct PostgresReading {
    pub(super) sessions: Arc<Sessions>,
    pub(super) watch: Arc<Watch>,
    pub(super) moment: Moment,
    /// By the numbers of their requests.
    pub(super) relations: BTreeMap<usize, RelationRead>,
    /// Which of them are held no more.
    pub(super) let_go: LetGo,
    /// Why others are not read.
    pub(super) refused: SyncMutex<BTreeMap<usize, SourceError>>,
    pub(super) snapshots: Vec<SnapshotRecord>,
    pub(super) read_mode: ReadMode,
    /// Whether some partitions were read under another snapshot than the others.
    pub(super) mixed: bool,
    pub(super) permits: Arc<Permits>,
    /// Whether the database's encoding is `SQL_ASCII`.
    pub(super) sql_ascii: bool,
    /// How pages are read for somebody who may read them slowly.
    pub(super) served: Option<ServedReads>,
    /// Where other processes read the same run: the right of one of them to read.
    pub(super) slots: Option<ReaderSlots>,
}

impl PostgresReading {
    /// Relations that were planned together, and those that cannot be read, by the numbers of their requests.
    pub(super) fn of_several(
        Common { sessions, watch, custody, snapshot, readers, sql_ascii }: Common,
        relations: BTreeMap<usize, RelationRead>,
        refused: BTreeMap<usize, SourceError>,
    ) -> Self {
        let readers = u64::try_from(readers).unwrap_or(u64::MAX);
        Self {
            sessions,
            watch,
            moment: Moment::Kept(Box::new(custody)),
            relations,
            let_go: LetGo::new(),
            refused: SyncMutex::new(refused),
            snapshots: vec![snapshot],
            read_mode: ReadMode::Copy,
            mixed: false,
            permits: Permits::new(LockShare { readers, relations: u64::MAX }),
            sql_ascii,
            served: None,
            slots: None,
        }
    }

    /// Ends planning: from here on partitions can be opened, by as many workers at a time as `request` has readers. With
    /// [`ReadRequest::keep`] the snapshot can be imported by others even where only one reader needs it.
    ///
    /// # Errors
    /// The snapshot cannot be exported or kept.
    pub(super) async fn new(planning: Planning, plan: PgPlan, request: &ReadRequest) -> Result<Self, SourceError> {
        let (read_mode, keep) = (request.work.read_mode, request.keep);
        let Planning { sessions, watch, anchor, exported, locks, identity, .. } = planning;
        let Planning { application, found, meaning, server, room, .. } = planning;
        let readers = request.work.readers.get().min(room.readers());
        let sql_ascii = server.types.sql_ascii;
        let allow_rls = anchor.allows_rls();
        let record = SourceRecord { found, locks: locks.clone(), server, identity, allow_rls, meaning };
        let (moment, snapshots) = match read_mode {
            ReadMode::Keyset { page_size } => {
                let found = record.found.as_ref();
                let pages = keyset::Pages::new(&anchor, found, page_size, &application, sql_ascii).await?;
                let pages = match found {
                    None => pages.of_query(&anchor, &plan.relation.sql_name).await?,
                    Some(_) => pages,
                };
                anchor.batch("ending planning", "COMMIT").await?;
                (Moment::Pages(pages), Vec::new())
            }
            ReadMode::Copy if readers == 1 && !keep => {
                let facts = snapshot::facts(&anchor, None).await?;
                // The lock session may be lost before the first read.
                locks.take(&anchor, snapshot::Waiting::Nowait).await?;
                (Moment::Own(Arc::new(Mutex::new(Some(anchor)))), vec![facts])
            }
            ReadMode::Copy => {
                let (facts, custody) = if let Some(exported) = exported {
                    exported
                } else {
                    let identity = record.identity.clone();
                    let custody = Custody::of_others(Vec::new(), locks.clone(), identity, &application);
                    (snapshot::export_with_facts(&anchor).await?, custody)
                };
                custody.entrust(anchor, facts.id.clone().unwrap_or_default()).await;
                // One outside of the run is the second at first, and must not want for a connection.
                if !plan.is_small() && !keep {
                    custody.second(&sessions).await?;
                }
                (Moment::Kept(Box::new(custody)), vec![facts])
            }
        };
        let permits = permits(&record, readers);
        Ok(Self {
            sessions,
            watch,
            moment,
            relations: [(0, RelationRead::new(record, plan, request)?)].into(),
            let_go: LetGo::new(),
            refused: SyncMutex::default(),
            snapshots,
            read_mode,
            mixed: false,
            permits,
            sql_ascii,
            served: request.work.served.clone(),
            slots: None,
        })
    }

    /// What another process must know to read the only relation under the same snapshot.
    pub(super) fn source_record(&self) -> Result<&SourceRecord, SourceError> {
        Ok(&self.relation(0)?.record)
    }

    fn relation(&self, relation: usize) -> Result<&RelationRead, SourceError> {
        self.relations.get(&relation).ok_or_else(|| unknown(relation))
    }

    async fn reader(&self, of: &RelationRead) -> Result<Session, SourceError> {
        match self.session().await {
            Ok(session) => Ok(session),
            Err(error) => {
                let relation = of.record.found.as_ref().map(catalog::CatalogRelation::sql_name);
                Err(self.on_standby(self.watch.explain(error, relation.as_deref()).await))
            }
        }
    }

    /// On a standby it is the standby's replay that ends snapshots.
    fn on_standby(&self, error: SourceError) -> SourceError {
        if error.fault == SourceFault::SnapshotLost && self.watch.standby() {
            error.with_hint(STANDBY_HINT)
        } else {
            error
        }
    }

    async fn session(&self) -> Result<Session, SourceError> {
        match &self.moment {
            Moment::Own(slot) => slot.lock().await.take().ok_or_else(|| {
                SourceError::new(
                    SourceFault::SnapshotLost,
                    "the only reader's connection is gone, and the snapshot with it",
                )
                .with_hint("with --readers 2 or more a lost connection does not lose the snapshot")
            }),
            Moment::Kept(custody) => match self.kept_session(custody).await {
                Err(error) if error.is_out_of_connections() && self.slots.is_none() => {
                    custody.lend().await.ok_or(error)
                }
                session => session,
            },
            Moment::Pages(_) => self.sessions.get().await,
        }
    }

    async fn kept_session(&self, custody: &Custody) -> Result<Session, SourceError> {
        match &self.slots {
            Some(slots) => slots.session(custody, &self.sessions).await,
            None => custody.session(&self.sessions, READER).await,
        }
    }

    /// Pings what idles for as long as others read.
    async fn ping_idle(&self) {
        self.watch.ping().await;
        if let Moment::Own(slot) = &self.moment
            && let Some(session) = &*slot.lock().await
        {
            snapshot::ping(session).await;
        }
    }

    /// Keeps what all reads rest on alive; resolves where nothing holds it any more.
    async fn tend(&self) -> SourceError {
        // Not at once: a second keeper that was left out for a small plan would come for nothing.
        let start = tokio::time::Instant::now() + GUARD_INTERVAL;
        let mut tick = tokio::time::interval_at(start, GUARD_INTERVAL);
        let mut pinged = Instant::now();
        loop {
            tick.tick().await;
            if let Moment::Kept(custody) = &self.moment {
                let locked = self.watch.holds_locks();
                if !custody.tend(&self.sessions, locked).await {
                    let message = "every session that holds the locks of the tables is gone";
                    return SourceError::new(SourceFault::SnapshotLost, message)
                        .with_hint("the server restarted or ended the sessions; run the job again");
                }
                if let Some(holding) = self.holding() {
                    self.let_go.tend(holding).await;
                }
            }
            if pinged.elapsed() >= KEEPER_PING {
                self.ping_idle().await;
                pinged = Instant::now();
            }
        }
    }

    /// Whether each reader locks what it reads, as where several relations were asked for, though one may be left of them.
    fn readers_lock_apart(&self) -> bool {
        matches!(&self.moment, Moment::Kept(custody) if !custody.readers_lock_all())
    }

    /// What holds the locks of several relations; a single one is held to its end.
    fn holding(&self) -> Option<Holding<'_>> {
        let Moment::Kept(custody) = &self.moment else { return None };
        let Self { sessions, watch, relations, .. } = self;
        (relations.len() > 1).then(|| Holding { sessions, custody, watch, relations })
    }

    /// Whether the source lets only some exports go on, which is enough for those who wait.
    async fn gave_way_in_part(&self, error: &SourceError) -> bool {
        match (self.holding(), self.watch.waited_for()) {
            (Some(holding), Some(oid)) => self.let_go.give_way(holding, oid, error).await,
            _ => false,
        }
    }

    /// Lets go of every lock that no reader has; the readers' go as they are stopped.
    async fn release(&self) {
        self.watch.release().await;
        match &self.moment {
            Moment::Kept(custody) => custody.release().await,
            Moment::Own(slot) => {
                if let Some(session) = slot.lock().await.take() {
                    session.discard();
                }
            }
            Moment::Pages(_) => {}
        }
    }

    async fn copy(&self, relation: usize, partition: u32) -> Result<BatchStream, SourceError> {
        let of = self.relation(relation)?;
        let plan = Arc::clone(&of.plan);
        let partition = of.partition(partition)?;
        let permit = self.permits.get().await?;
        // Whoever asked for the partition names it in front of an error.
        let what = "its rows".to_owned();
        if let (Moment::Pages(pages), Some(served)) = (&self.moment, self.served.clone()) {
            let (sessions, watch) = (Arc::clone(&self.sessions), Arc::clone(&self.watch));
            let serving = Serving { pages: pages.clone(), served, sessions, watch, plan, what };
            return Ok(permit.until_the_end_of(serving.open(&partition)));
        }
        let session = self.reader(of).await.inspect_err(|error| permit.heed(error))?;
        let home = match &self.moment {
            Moment::Pages(pages) => {
                let batches = pages.open(session, Arc::clone(&self.watch), plan, partition, what);
                return Ok(permit.until_the_end_of(batches));
            }
            Moment::Own(slot) => Some(Arc::clone(slot)),
            Moment::Kept(_) => None,
        };
        let manner = Manner {
            watch: Arc::clone(&self.watch),
            named: of.named(),
            own: self.readers_lock_apart().then(|| of.record.locks.clone()),
            checked: of.record.locks.checked.is_some().then(|| self.permits.relations()),
            sql_ascii: self.sql_ascii,
            home,
        };
        Ok(PartitionReading::start(manner, session, permit, plan, &partition, what).await?.batches())
    }
}

impl Reading for PostgresReading {
    fn plan(&self, relation: usize) -> Option<Arc<Plan>> {
        self.relations.get(&relation).map(|of| Arc::clone(&of.told))
    }

    fn refused(&self, relation: usize) -> Option<SourceError> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&relation)
    }

    fn done(&self, relation: usize) {
        self.let_go.done(relation);
    }

    fn guard_of(&self, relation: usize) -> BoxFuture<'_, SourceError> {
        self.let_go.lost(relation).boxed()
    }

    fn facts(&self) -> SourceFacts {
        let server = self.relations.values().next().map(|of| &of.record.server);
        let (server_version, standby) =
            server.map_or_else(Default::default, |server| (server.version.clone(), server.standby));
        SourceFacts { kind: SourceKind::Postgresql, server_version, standby }
    }

    fn consistency(&self, relation: usize) -> Consistency {
        let snapshots = self.snapshots.clone();
        if let Some(of) = self.relations.get(&relation) {
            return of.plan.promise(self.read_mode, self.mixed, snapshots);
        }
        Consistency { mode: ConsistencyMode::SingleSnapshot, snapshots, now: None, note: None, proof: None }
    }

    fn record(&self, relation: usize) -> Result<Value, SourceError> {
        let of = self.relation(relation)?;
        PgRecord { server: of.record.clone(), plan: PgPlan::clone(&of.plan) }.write()
    }

    fn open(&self, relation: usize, partition: u32) -> BoxFuture<'_, Result<Opened, SourceError>> {
        async move { Ok(Opened::Rows(self.copy(relation, partition).await?)) }.boxed()
    }

    fn also_held(&self, id: String) -> BoxFuture<'_, ()> {
        async {
            if let Moment::Kept(custody) = &self.moment {
                custody.also_held(id).await;
            }
        }
        .boxed()
    }

    fn held(&self) -> BoxFuture<'_, Vec<String>> {
        async {
            match &self.moment {
                Moment::Kept(custody) => custody.ids().await,
                Moment::Own(_) | Moment::Pages(_) => Vec::new(),
            }
        }
        .boxed()
    }

    fn unchanged<'a>(&'a self, relation: usize, _: &'a BTreeMap<u32, u64>) -> BoxFuture<'a, Result<(), SourceError>> {
        async move {
            let meaning = &self.relation(relation)?.record.meaning;
            if !meaning.is_watched() {
                return Ok(());
            }
            // The locks of several relations are held until the last of them is read.
            let session = self.watch.latest(self.relations.len() > 1).await?;
            let unchanged = meaning.check(&session).await;
            if self.sessions.are_shared() {
                session.batch("looking up what names stand for", "COMMIT").await?;
            } else {
                session.discard();
            }
            unchanged
        }
        .boxed()
    }

    fn cost(&self, relation: usize) -> SourceCost {
        let read = |of: &RelationRead| {
            let opened = of.opened();
            heap_blocks(&of.plan, |partition| opened.contains(&partition))
        };
        SourceCost {
            peak_connections: self.sessions.peak(),
            snapshot_age_seconds: self.watch.snapshot_age().map(|age| age.as_secs_f64()),
            heap_blocks_read: self.relations.get(&relation).and_then(read),
        }
    }

    fn guard(&self) -> BoxFuture<'_, SourceError> {
        // The process that holds the run together keeps its snapshot and looks at its locks.
        if self.slots.is_some() {
            return std::future::pending().boxed();
        }
        async {
            loop {
                let error = tokio::select! {
                    error = self.tend() => return error,
                    error = self.watch.run() => error,
                };
                if !self.gave_way_in_part(&error).await {
                    self.release().await;
                    return error;
                }
            }
        }
        .boxed()
    }
}
