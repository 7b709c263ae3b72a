//! What the run does to its source, and what the source does for the run: one session looks every few seconds. Where
//! somebody waits for our locks, or a limit is reached, the run gives way; where a reader gets no bytes, the server is
//! asked why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::catalog::{TypedParameter, query, value};
use super::closed::closed;
use super::connect::{Session, Sessions};
use super::culprit::{IN_THE_WAY, with_culprit};
use super::newcomers;
use super::session::{Begin, begin};
use super::silence::{BACKEND, BackendState, INQUIRY_TIMEOUT};
use super::snapshot::{self, Locks, Waiting};
use crate::base::spare::Spares;
use crate::base::{failpoint, telemetry};
use crate::model::SourceLimits;
use crate::source::pace::Pace;
use crate::source::{SourceError, SourceFault};

/// Between two looks at who waits for our locks and how far a standby is behind; each costs the server a look through its
/// lock table.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Looks within `--yield-to-ddl`, at least: a run gives way two looks early, so that nobody waits longer.
const WATCHES_PER_YIELD: u32 = 8;

/// Looks in a row that must see a standby too far behind, since its own measure jumps after a quiet hour.
const LATE_LOOKS: u32 = 3;

/// Who waits for a lock of ours, longest first. `pg_locks` is open to every role, `pg_blocking_pids` is exact, and of the
/// statement only its first word is taken: the rest may hold values.
const BLOCKED: &str = "WITH ours AS MATERIALIZED (SELECT pid FROM pg_catalog.pg_stat_activity \
        WHERE datname = pg_catalog.current_database() AND pg_catalog.starts_with(application_name, $1)) \
    SELECT w.pid, w.mode, w.relation::regclass::text, \
        COALESCE(extract(epoch FROM pg_catalog.clock_timestamp() - w.waitstart), 0)::float8, \
        pg_catalog.upper(pg_catalog.substring(a.query, '^\\s*([A-Za-z]+)')), w.relation \
    FROM pg_catalog.pg_locks w LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid \
    WHERE NOT w.granted AND w.locktype = 'relation' \
        AND w.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
        AND NOT w.pid = ANY (SELECT pid FROM ours) \
        AND pg_catalog.pg_blocking_pids(w.pid) && ARRAY(SELECT pid FROM ours) \
    ORDER BY 4 DESC LIMIT 1";

/// How far a standby's replay is behind, in seconds at most; NULL where it has replayed all that it received. One that
/// has replayed no commit yet has been behind since it started.
const REPLAY_LAG: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
        AND COALESCE(pg_catalog.pg_last_wal_receive_lsn() <> pg_catalog.pg_last_wal_replay_lsn(), \
            NOT (pg_catalog.pg_last_wal_receive_lsn() IS NULL AND pg_catalog.pg_last_wal_replay_lsn() IS NULL)) \
    THEN extract(epoch FROM pg_catalog.clock_timestamp() \
        - COALESCE(pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.pg_postmaster_start_time()))::float8 END";

/// Words by which a statement that wants such a lock may be called.
const CLASSES: [&str; 10] =
    ["ALTER", "CLUSTER", "COMMENT", "CREATE", "DROP", "LOCK", "REFRESH", "REINDEX", "TRUNCATE", "VACUUM"];

/// The looking session and what it looks for.
#[derive(Debug)]
pub(crate) struct Watch {
    sessions: Arc<Sessions>,
    /// It holds the locks; where it was lost, one that only looks stands in its place. Empty in keyset mode, and for a
    /// small table, until there is something to ask.
    control: Mutex<Option<Session>>,
    /// Whether it holds the locks, as far as is known.
    locks: AtomicBool,
    /// The relation for whose lock somebody has waited too long; 0 where nobody has.
    waited_for: AtomicU32,
    limits: SourceLimits,
    application: String,
    standby: bool,
    began: Instant,
    /// When the snapshot was taken, where there is one.
    snapshot: Option<Instant>,
    pace: Option<Pace>,
    /// Looks in a row that saw the standby too far behind.
    late: AtomicU32,
    /// Read buffers that reads have done with.
    buffers: Spares<Vec<u8>>,
}

impl Watch {
    /// For a run that `began` then. `control` is the session that holds its locks, where one does nothing else, and
    /// `snapshot` when its snapshot was taken; without a snapshot there is nothing that others could wait for.
    pub(crate) fn new(
        sessions: &Arc<Sessions>,
        limits: SourceLimits,
        application: &str,
        standby: bool,
        began: Instant,
        (control, snapshot): (Option<Session>, Option<Instant>),
    ) -> Self {
        telemetry::snapshot_taken(snapshot);
        Self {
            sessions: Arc::clone(sessions),
            locks: AtomicBool::new(control.is_some()),
            waited_for: AtomicU32::new(0),
            control: Mutex::new(control),
            limits,
            application: format!("{application}/"),
            standby,
            began,
            snapshot,
            pace: limits.max_bytes_per_second.map(Pace::new),
            late: AtomicU32::new(0),
            buffers: Spares::new(),
        }
    }

    /// How long the snapshot has been held; none in keyset mode.
    pub(crate) fn snapshot_age(&self) -> Option<Duration> {
        self.snapshot.map(|taken| taken.elapsed())
    }

    /// Whether the server is a standby.
    pub(crate) fn standby(&self) -> bool {
        self.standby
    }

    /// Read buffers, to be taken and to be kept for the next read.
    pub(super) fn buffers(&self) -> &Spares<Vec<u8>> {
        &self.buffers
    }

    /// How fast readers may read, where that is limited.
    pub(super) fn pace(&self) -> Option<&Pace> {
        self.pace.as_ref()
    }

    /// Looks for as long as it is polled; resolves where the run must give way.
    ///
    /// # Cancel safety
    /// Dropping it leaves the session usable.
    pub(crate) async fn run(&self) -> SourceError {
        loop {
            tokio::time::sleep(self.until_next()).await;
            if let Err(error) = self.look().await {
                return error;
            }
        }
    }

    /// Between two looks.
    fn interval(&self) -> Duration {
        let patience = self.limits.yield_to_ddl.unwrap_or(Duration::MAX);
        WATCH_INTERVAL.min(patience / WATCHES_PER_YIELD)
    }

    /// Until the next look, or the end of a limit.
    fn until_next(&self) -> Duration {
        let left = |limit: Option<Duration>, since: Option<Instant>| Some(limit?.saturating_sub(since?.elapsed()));
        let ends =
            [left(self.limits.max_duration, Some(self.began)), left(self.limits.max_snapshot_age, self.snapshot)];
        ends.into_iter().flatten().fold(self.interval(), Duration::min)
    }

    async fn look(&self) -> Result<(), SourceError> {
        let passed = |limit: Option<Duration>, since: Option<Instant>| {
            limit.zip(since).is_some_and(|(limit, since)| since.elapsed() >= limit)
        };
        if passed(self.limits.max_duration, Some(self.began)) {
            return Err(gave_way("the run has taken as long as --max-duration allows"));
        }
        if passed(self.limits.max_snapshot_age, self.snapshot) {
            return Err(gave_way("the snapshot is as old as --max-snapshot-age allows")
                .with_hint("a resumed run counts from the same moment: export again, under a new snapshot"));
        }
        if let (Some(patience), true) = (self.limits.yield_to_ddl, self.snapshot.is_some()) {
            self.yield_to(patience).await?;
        }
        if let (Some(most), true) = (self.limits.max_replay_lag, self.standby) {
            self.keep_up(most).await?;
        }
        Ok(())
    }

    async fn yield_to(&self, patience: Duration) -> Result<(), SourceError> {
        if failpoint::off("yield") {
            return Ok(());
        }
        // A look that fails ends nothing: the next one is soon.
        let Some(rows) = self.ask(BLOCKED, &[(&self.application, Type::TEXT)]).await.ok() else { return Ok(()) };
        let Some(row) = rows.first() else { return Ok(()) };
        let waited = Duration::try_from_secs_f64(value(row, 3)?).unwrap_or_default();
        // By the next look, and the end of the readers' sessions, they would have waited longer.
        if waited.saturating_add(self.interval().saturating_mul(2)) < patience {
            return Ok(());
        }
        let (pid, mode, relation): (i32, &str, &str) = (value(row, 0)?, value(row, 1)?, value(row, 2)?);
        self.waited_for.store(value(row, 5)?, Ordering::Relaxed);
        let class = value::<Option<&str>>(row, 4)?.filter(|word| CLASSES.contains(word)).unwrap_or("statement");
        Err(gave_way(format!(
            "gave way to process {pid}, whose {class} has waited {:.1} s for {mode} on {relation}",
            waited.as_secs_f64()
        ))
        .with_hint(
            "every later query on the table waits behind it; export again when it is done, or let it wait longer with --yield-to-ddl (off: for ever)",
        ))
    }

    async fn keep_up(&self, most: Duration) -> Result<(), SourceError> {
        let Ok(rows) = self.ask(REPLAY_LAG, &[]).await else { return Ok(()) };
        let lag = rows.first().map(|row| value::<Option<f64>>(row, 0)).transpose()?.flatten().unwrap_or(0.0);
        if lag < most.as_secs_f64() {
            self.late.store(0, Ordering::Relaxed);
            return Ok(());
        }
        // Behind by the time of the last commit it replayed, which after a quiet hour is an hour ago until the next one.
        if self.late.fetch_add(1, Ordering::Relaxed) + 1 < LATE_LOOKS {
            return Ok(());
        }
        Err(gave_way(format!("the standby is {lag:.1} s behind, more than --max-replay-lag allows"))
            .with_hint("export again when it has caught up, or from another standby"))
    }

    /// What the server process `pid` is at, whose reader has had no bytes for a while; where it is not known, nothing is.
    pub(super) async fn backend(&self, pid: Option<i32>) -> BackendState {
        let Some(pid) = pid else { return BackendState::Works };
        BackendState::of(self.ask(BACKEND, &[(&pid, Type::INT4), (&self.application, Type::TEXT)]).await)
    }

    /// Makes sure that no stranger inherits from `parents` by now.
    ///
    /// # Errors
    /// [`SourceFault::SchemaChanged`] where one does.
    pub(super) async fn meet(&self, parents: &[u32], strangers: &[u32]) -> Result<(), SourceError> {
        let parameters: [TypedParameter<'_>; 2] = [(&parents, Type::OID_ARRAY), (&strangers, Type::OID_ARRAY)];
        newcomers::refuse(&self.ask(&newcomers::question(), &parameters).await?)
    }

    /// Adds to a reader's error who is in its way, where that can be found out.
    pub(crate) async fn explain(&self, error: SourceError, relation: Option<&str>) -> SourceError {
        if !error.is_lock_conflict() {
            return error;
        }
        let found = self.ask(IN_THE_WAY, &[(&relation, Type::TEXT), (&self.application, Type::TEXT)]).await;
        with_culprit(error, found.unwrap_or_default().first())
    }

    /// Asks over the looking session; a lost one is replaced, and one that does not answer is given up.
    async fn ask(
        &self,
        sql: &str,
        parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, SourceError> {
        let limit = failpoint::limit("inquiry", INQUIRY_TIMEOUT);
        if let Ok(answer) = tokio::time::timeout(limit, self.ask_patiently(sql, parameters)).await {
            return answer;
        }
        self.discard_control().await;
        Err(SourceError::new(SourceFault::Unavailable, "looking at the source: no answer"))
    }

    async fn ask_patiently(
        &self,
        sql: &str,
        parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, SourceError> {
        let mut control = self.control.lock().await;
        if control.as_ref().is_some_and(|session| session.client().is_closed()) {
            self.locks.store(false, Ordering::Relaxed);
            tracing::warn!("the lock session was lost; the others hold the same locks");
            if let Some(session) = control.take() {
                session.discard();
            }
        }
        let session = match &mut *control {
            Some(session) => session,
            none => {
                let session = self.sessions.get_whole().await?;
                if !session.entered() {
                    begin(&session, Begin::Latest, &format!("{}watch", self.application)).await?;
                }
                none.insert(session)
            }
        };
        match look(session, sql, parameters).await {
            Ok(rows) => Ok(rows),
            Err(error) => {
                // Its transaction has failed or is in doubt, and with it the locks.
                self.locks.store(false, Ordering::Relaxed);
                if let Some(session) = control.take() {
                    session.discard();
                }
                tracing::debug!(%error, "a look at the source failed");
                Err(error)
            }
        }
    }

    /// A session to look at rows with, beside those that read: under the run's snapshot where one idles there, else under one
    /// of its own. It is not to go back to the pool.
    pub(super) async fn aside(&self) -> Result<Session, SourceError> {
        let session = self.sessions.get_whole().await?;
        if !session.entered() {
            begin(&session, Begin::NewSnapshot, &format!("{}inquiry", self.application)).await?;
        }
        Ok(session)
    }

    /// A session that sees the newest catalog, for when all has been read: it may have been any of the run's, but where it
    /// stands `beside` those that read on, whose locks stay. It is not to go back to the pool.
    pub(super) async fn latest(&self, beside: bool) -> Result<Session, SourceError> {
        let control = if beside { None } else { self.control.lock().await.take() };
        let control = control.filter(|session| !session.client().is_closed());
        let session = match control {
            Some(session) => session,
            None => self.sessions.get_whole().await?,
        };
        session.batch("leaving the snapshot", "ROLLBACK").await?;
        begin(&session, Begin::Latest, &format!("{}watch", self.application)).await?;
        Ok(session)
    }

    /// Keeps the looking session from being taken for dead.
    pub(crate) async fn ping(&self) {
        // Who has it uses it.
        let Ok(control) = self.control.try_lock() else { return };
        if let Some(session) = control.as_ref().filter(|session| !session.client().is_closed()) {
            snapshot::ping(session).await;
        }
    }

    /// Lets go of the locks at once: who waits for them has waited long enough.
    pub(crate) async fn release(&self) {
        self.discard_control().await;
        self.sessions.close();
    }

    async fn discard_control(&self) {
        self.locks.store(false, Ordering::Relaxed);
        if let Some(session) = self.control.lock().await.take() {
            session.discard();
        }
    }

    /// The relation for whose lock somebody has waited too long, told once.
    pub(super) fn waited_for(&self) -> Option<u32> {
        Some(self.waited_for.swap(0, Ordering::Relaxed)).filter(|oid| *oid != 0)
    }

    /// Holds no more than `locks` from now on: another session takes them, and the one that held more is closed.
    ///
    /// # Errors
    /// The locks cannot be taken; the old session stays.
    pub(super) async fn narrow(&self, locks: &Locks) -> Result<(), SourceError> {
        let session = self.sessions.get_whole().await?;
        let taking = async {
            if !session.entered() {
                begin(&session, Begin::Latest, &format!("{}locks", self.application)).await?;
            }
            locks.take(&session, Waiting::Nowait).await
        };
        if let Err(error) = taking.await {
            session.discard();
            return Err(error);
        }
        if let Some(old) = self.control.lock().await.replace(session) {
            old.discard();
        }
        self.locks.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the looking session still holds the locks that it was begun with.
    pub(super) fn holds_locks(&self) -> bool {
        let open = |control: &Option<Session>| control.as_ref().is_some_and(|session| !session.client().is_closed());
        // Who has it looks at it, and finds out.
        self.locks.load(Ordering::Relaxed) && self.control.try_lock().map_or(true, |control| open(&control))
    }
}

/// `pg_stat_activity` stays as it was first seen in a transaction (`stats_fetch_consistency`), so it is cleared first.
async fn look(
    session: &Session,
    sql: &str,
    parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
) -> Result<Vec<Row>, SourceError> {
    const ACTION: &str = "looking at the source";
    session.batch(ACTION, "SELECT pg_catalog.pg_stat_clear_snapshot()").await?;
    query(session, ACTION, &closed(sql), parameters).await
}

fn gave_way(message: impl Into<String>) -> SourceError {
    SourceError::new(SourceFault::GaveWay, message)
}
