//! The [`Source`] that PostgreSQL is: sessions under one snapshot, a COPY a partition.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::Mutex;

use super::catalog;
use super::connect::{Session, Sessions};
use super::copy::Copy;
use super::decode::RowKey;
use super::error::{STANDBY_HINT, SourceError, SourceFault};
use super::kept::{self, SourceRecord};
use super::keyset;
use super::prepare::{Planning, application};
use super::session::{Begin, begin, identifier, send_text_as_stored};
use super::settings::ConnectSettings;
use super::snapshot::{self, Custody, SnapshotFacts};
use super::sql;
use super::untranslatable::{self, Reading};
use super::watch::Watch;
use crate::export::request::{ReadMode, WorkOptions};
use crate::plan::{ColumnPlan, Partition, Plan, RelationKind, Slice};
use crate::source::{BatchStream, Source, SourceCost};
use crate::{failpoint, limits};

/// How reads share one moment.
#[derive(Debug)]
enum Moment {
    /// Keepers hold an exported snapshot that each reader imports.
    Kept(Custody),
    /// One reader: its own transaction is the snapshot.
    Own(Arc<Mutex<Option<Session>>>),
    /// Keyset mode: each page is its own moment.
    Pages(keyset::Pages),
}

/// A PostgreSQL server, ready to be read from.
#[derive(Debug)]
pub struct PostgresSource {
    sessions: Arc<Sessions>,
    watch: Arc<Watch>,
    moment: Moment,
    snapshots: Vec<SnapshotFacts>,
    record: SourceRecord,
    /// Whether the database's encoding is `SQL_ASCII`.
    sql_ascii: bool,
}

impl PostgresSource {
    /// Ends planning: from here on partitions can be opened, by `readers` workers at a time.
    ///
    /// # Errors
    /// The snapshot cannot be exported or kept.
    ///
    /// With `keep` the snapshot can be imported by others even where only one reader needs it.
    pub async fn new(
        planning: Planning,
        plan: &Plan,
        readers: usize,
        read_mode: ReadMode,
        keep: bool,
    ) -> Result<Self, SourceError> {
        let Planning { sessions, watch, anchor, exported, locks, identity, application, found, server, .. } = planning;
        let sql_ascii = server.types.sql_ascii;
        let record = SourceRecord { found, locks: locks.clone(), server, identity, allow_rls: anchor.allows_rls() };
        let (moment, snapshots) = match read_mode {
            ReadMode::Keyset { page_size } => {
                let pages =
                    keyset::Pages::new(&anchor, record.found.as_ref(), page_size, &application, sql_ascii).await?;
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
                let (id, custody) = match exported {
                    Some(exported) => exported,
                    None => Custody::of_exported(&anchor, &locks, &record.identity, &application).await?,
                };
                let facts = snapshot::facts(&anchor, Some(id.clone())).await?;
                custody.entrust(anchor, id).await;
                if !plan.is_small() {
                    custody.second(&sessions).await?;
                }
                (Moment::Kept(custody), vec![facts])
            }
        };
        Ok(Self { sessions, watch, moment, snapshots, record, sql_ascii })
    }

    /// Goes on with a run that another process began, under the snapshot that was taken at `taken_at` and that others hold
    /// by the ids `held`.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where nobody holds it any more, or this is another server;
    /// [`SourceFault::SchemaChanged`] where the relation is not what it was.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    pub async fn resume(
        connect: &ConnectSettings,
        record: SourceRecord,
        (held, taken_at): (&[String], Option<DateTime<Utc>>),
        work: &WorkOptions,
        run_id: &str,
    ) -> Result<Self, SourceError> {
        let began = Instant::now();
        let application = application(run_id);
        let sessions = kept::sessions(connect, &record, &application, work.readers.get() + limits::CONTROL_SESSIONS)?;
        let sql_ascii = record.server.types.sql_ascii;
        let (held, moment) = match work.read_mode {
            ReadMode::Keyset { page_size } => {
                let anchor = sessions.get().await?;
                begin(&anchor, Begin::Latest, &format!("{application}/plan")).await?;
                let found = record.found.as_ref();
                let pages = keyset::Pages::new(&anchor, found, page_size, &application, sql_ascii).await?;
                anchor.batch("ending planning", "COMMIT").await?;
                ((None, None), Moment::Pages(pages))
            }
            ReadMode::Copy => {
                let custody = kept::custody(&record, held, &application);
                custody.take_over(&sessions).await?;
                let lock = custody.session(&sessions, "locks").await?;
                let age = match taken_at {
                    Some(taken_at) if !failpoint::off("snapshot-age") => snapshot::age(&lock, taken_at).await?,
                    _ => Duration::ZERO,
                };
                let taken = Instant::now().checked_sub(age).unwrap_or(began);
                ((Some(lock), Some(taken)), Moment::Kept(custody))
            }
        };
        let watch = Watch::new(&sessions, work.source_limits, &application, record.server.standby, began, held);
        Ok(Self { sessions, watch: Arc::new(watch), moment, snapshots: Vec::new(), record, sql_ascii })
    }

    /// What another process must know to read under the same snapshot.
    pub fn record(&self) -> &SourceRecord {
        &self.record
    }

    /// A keeper outside of this process holds the snapshot too.
    pub async fn also_held(&self, id: String) {
        if let Moment::Kept(custody) = &self.moment {
            custody.also_held(id).await;
        }
    }

    /// The snapshots that reads share; empty in keyset mode.
    pub fn snapshots(&self) -> &[SnapshotFacts] {
        &self.snapshots
    }

    async fn reader(&self) -> Result<Session, SourceError> {
        match self.session().await {
            Ok(session) => Ok(session),
            Err(error) => {
                let relation = self.record.found.as_ref().map(catalog::Found::sql_name);
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
            Moment::Kept(custody) => match custody.session(&self.sessions, "reader").await {
                Err(error) if error.is_out_of_connections() => custody.lend().await.ok_or(error),
                session => session,
            },
            Moment::Pages(_) => self.sessions.get().await,
        }
    }

    fn named(&self, plan: &Plan, slice: &Slice) -> Option<Named> {
        if let Slice::Heap { leaf, .. } = slice {
            let leaf = plan.relation.leaves.get(*leaf)?;
            return Some(Named { name: leaf.sql_name.clone(), oid: leaf.oid, tables: None });
        }
        let found = self.record.found.as_ref()?;
        let tables = (found.kind == RelationKind::PartitionedTable).then_some(found.tables);
        Some(Named { name: found.sql_name(), oid: found.oid, tables })
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

    /// Keeps what all reads rest on alive.
    async fn tend(&self) -> Infallible {
        // Not at once: a second keeper that was left out for a small plan would come for nothing.
        let start = tokio::time::Instant::now() + limits::GUARD_INTERVAL;
        let mut tick = tokio::time::interval_at(start, limits::GUARD_INTERVAL);
        let mut pinged = Instant::now();
        loop {
            tick.tick().await;
            if let Moment::Kept(custody) = &self.moment {
                custody.tend(&self.sessions).await;
            }
            if pinged.elapsed() >= limits::KEEPER_PING {
                self.ping_idle().await;
                pinged = Instant::now();
            }
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

    /// What the statement of a slice needs to stand in its transaction.
    async fn make_ready(&self, session: &Session, slice: &Slice) -> Result<(), SourceError> {
        if self.sql_ascii {
            send_text_as_stored(session).await?;
        }
        match sql::set_bounds(slice) {
            Some(bounds) => session.batch("setting the bounds of a partition", &bounds).await,
            None => Ok(()),
        }
    }

    async fn copy(&self, plan: Arc<Plan>, partition: Partition) -> Result<BatchStream, SourceError> {
        let session = self.reader().await?;
        let columns: Arc<[ColumnPlan]> = plan.columns.clone().into();
        // Whoever asked for the partition names it in front of an error.
        let what = "its rows".to_owned();
        if let Moment::Pages(pages) = &self.moment {
            return Ok(pages.open(session, Arc::clone(&self.watch), plan, partition, what));
        }
        if let Err(error) = self.make_ready(&session, &partition.slice).await {
            session.discard();
            return Err(error);
        }
        let key = RowKey::new(&plan.columns, &plan.row_key);
        let extra: Vec<String> = key.extra().iter().map(|name| identifier(name)).collect();
        let statement = sql::copy(&sql::select(&plan, &partition, &extra, None));
        let copy = Copy::start(session, Arc::clone(&self.watch), &statement, &columns, key, what).await?;
        let home = match &self.moment {
            Moment::Own(slot) => Some(Arc::clone(slot)),
            _ => None,
        };
        let named = self.named(&plan, &partition.slice);
        let (watch, job) = (Arc::clone(&self.watch), Arc::new((plan, partition)));
        let batches = stream::try_unfold(copy, move |mut copy| {
            let (home, named, watch, job) = (home.clone(), named.clone(), Arc::clone(&watch), Arc::clone(&job));
            async move {
                match copy.next().await {
                    Ok(Some(batch)) => return Ok(Some((batch, copy))),
                    Ok(None) => {}
                    Err(error) => return Err(explained(error, copy, &watch, &job).await),
                }
                let Some(session) = copy.into_session() else { return Ok(None) };
                if let Some(named) = named
                    && let Err(error) = catalog::same_relation(&session, &named.name, named.oid, named.tables).await
                {
                    session.discard();
                    return Err(error);
                }
                // Back to the pool, still in its transaction; or to the slot, where it is the snapshot.
                if let Some(home) = home {
                    *home.lock().await = Some(session);
                }
                Ok(None)
            }
        });
        Ok(batches.boxed())
    }
}

/// An error of a partition, with the column and the row where only a search finds them.
async fn explained(
    error: SourceError,
    copy: Copy,
    watch: &Watch,
    (plan, partition): &(Arc<Plan>, Partition),
) -> SourceError {
    let Some(rows) = copy.refused_after() else { return error };
    // Its session and its connection are spent.
    drop(copy);
    let reading = Reading { plan, partition, after: None, rows, what: "its rows" };
    untranslatable::explain(error, watch, reading).await
}

/// What a partition's statement names, and what that was when it was planned.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    oid: u32,
    tables: Option<usize>,
}

impl Source for PostgresSource {
    fn open(&self, plan: Arc<Plan>, partition: Partition) -> BoxFuture<'_, Result<BatchStream, SourceError>> {
        self.copy(plan, partition).boxed()
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

    fn cost(&self) -> SourceCost {
        SourceCost {
            peak_connections: self.sessions.peak(),
            snapshot_age_seconds: self.watch.snapshot_age().map(|age| age.as_secs_f64()),
            heap_blocks_read: None,
        }
    }

    fn guard(&self) -> BoxFuture<'_, SourceError> {
        async {
            tokio::select! {
                never = self.tend() => match never {},
                error = self.watch.run() => {
                    self.release().await;
                    error
                }
            }
        }
        .boxed()
    }
}
