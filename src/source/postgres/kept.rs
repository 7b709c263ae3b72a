//! A snapshot that outlives its run: who holds it, and how another process reads under it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalog::{CatalogRelation, query, value};
use super::closed::closed;
use super::connect::{Session, Sessions};
use super::let_go::union;
use super::meaning::Meaning;
use super::plan::PgPlan;
use super::prepare::application;
use super::server::ServerFacts;
use super::session::ServerIdentity;
use super::snapshot::{self, Custody, Locks, PING_TIMEOUT};
use crate::base::postgres::settings::ConnectSettings;
use crate::model::KeepEnd;
use crate::source::{Begun, Keeper, SourceError, SourceFault};

/// Between two looks of a keeper outside the run: whether its session lives, and whether somebody waits for its locks.
const KEPT_INTERVAL: Duration = Duration::from_secs(5);

/// What another process must know of a run's source to read under its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourceRecord {
    pub(super) found: Option<CatalogRelation>,
    pub(super) locks: Locks,
    pub(super) server: ServerFacts,
    pub(super) identity: ServerIdentity,
    pub(super) allow_rls: bool,
    pub(super) meaning: Meaning,
}

impl SourceRecord {
    /// Whether `other` reads the very same relation, and not one that has come in its place under its name.
    pub(super) fn is_of_relation(&self, other: &Self) -> bool {
        let oid = |record: &Self| record.found.as_ref().map(|found| found.oid);
        oid(self) == oid(other)
    }

    /// Whether the names in both runs' texts stand for the same, seen with the same eyes.
    pub(super) fn means_as(&self, other: &Self) -> bool {
        self.meaning.is_as(&other.meaning)
    }
}

/// What another process must know to go on with a run: [`Reading::record`](crate::source::Reading::record), for PostgreSQL.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PgRecord {
    pub(super) server: SourceRecord,
    pub(super) plan: PgPlan,
}

impl PgRecord {
    pub(super) fn write(&self) -> Result<Value, SourceError> {
        serde_json::to_value(self)
            .map_err(|error| SourceError::new(SourceFault::Protocol, "writing the plan down").with_source(error))
    }

    pub(super) fn read(record: &Value) -> Result<Self, SourceError> {
        // Serde's own words may quote a value.
        Self::deserialize(record).map_err(|_| {
            SourceError::new(SourceFault::Usage, "what the run noted of its source cannot be read by this outhaul")
                .with_hint("resume it with the version that began it, or run the export again")
        })
    }
}

/// What a keeper of one snapshot must know of all relations that are read under it, and the ids by which the snapshot can be
/// imported.
///
/// # Errors
/// A record cannot be read, or there is none.
pub(super) fn of_all(begun: &[Begun]) -> Result<(SourceRecord, Vec<String>), SourceError> {
    let read = |one: &Begun| PgRecord::read(&one.record).map(|record| record.server);
    let records: Vec<SourceRecord> = begun.iter().map(read).collect::<Result<_, _>>()?;
    let mut held: Vec<String> = Vec::new();
    for id in begun.iter().flat_map(|one| &one.held) {
        if !held.contains(id) {
            held.push(id.clone());
        }
    }
    let locks = match records.as_slice() {
        // It may lock less than all of its leaves.
        [only] => only.locks.clone(),
        all => union(all.iter().map(|record| &record.locks)),
    };
    let nothing = || SourceError::new(SourceFault::Usage, "nothing is read whose snapshot could be held");
    let first = records.into_iter().next().ok_or_else(nothing)?;
    Ok((SourceRecord { locks, ..first }, held))
}

/// A session that does nothing but hold a snapshot and its locks.
#[derive(Debug)]
pub(super) struct SnapshotKeeper {
    session: Session,
    /// The id under which others import the snapshot.
    snapshot: String,
}

impl SnapshotKeeper {
    /// Imports one of `snapshots`, on the server of the run and with its locks, and exports it again.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where none of them is held any more, or the server is another one.
    ///
    /// # Cancel safety
    /// Dropping the future closes the session.
    pub(super) async fn begin(
        connect: &ConnectSettings,
        source: &SourceRecord,
        snapshots: &[String],
        run_id: &str,
    ) -> Result<Self, SourceError> {
        let application = application(run_id);
        let sessions = sessions(connect, source, &application, 1)?;
        let custody = custody(source, snapshots, &application);
        let session = custody.session(&sessions, "kept").await?;
        let snapshot = snapshot::export(&session).await?;
        Ok(Self { session, snapshot })
    }

    async fn hold_until(
        &self,
        deadline: Instant,
        yield_after: Option<Duration>,
        mut stop: BoxFuture<'_, KeepEnd>,
    ) -> Result<KeepEnd, SourceError> {
        let mut tick = tokio::time::interval(KEPT_INTERVAL);
        let mut blocked: Option<(i32, Instant)> = None;
        loop {
            tokio::select! {
                biased;
                end = &mut stop => return Ok(end),
                () = tokio::time::sleep_until(deadline.into()) => return Ok(KeepEnd::Deadline),
                _ = tick.tick() => {}
            }
            // The question is the ping as well.
            let waiting = tokio::time::timeout(PING_TIMEOUT, self.blocks()).await.map_err(|_| {
                SourceError::new(SourceFault::SnapshotLost, "the server does not answer the keeper of the snapshot")
            })??;
            blocked = match (waiting, blocked) {
                (Some(pid), Some((same, since))) if pid == same => Some((pid, since)),
                (Some(pid), _) => Some((pid, Instant::now())),
                (None, _) => None,
            };
            if let (Some((pid, since)), Some(limit)) = (blocked, yield_after)
                && since.elapsed() >= limit
            {
                return Ok(KeepEnd::Yielded { pid });
            }
        }
    }

    /// A session that waits for a lock of this one. From `pg_locks`: `pg_stat_activity` stands still in a transaction.
    async fn blocks(&self) -> Result<Option<i32>, SourceError> {
        let sql = closed(
            "SELECT l.pid FROM pg_catalog.pg_locks l WHERE NOT l.granted AND l.locktype = 'relation' \
            AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(l.pid)) ORDER BY l.pid LIMIT 1",
        );
        let rows = query(&self.session, "looking for sessions that wait for the snapshot's locks", &sql, &[]).await?;
        rows.first().map(|row| value(row, 0)).transpose()
    }
}

impl Keeper for SnapshotKeeper {
    fn snapshot(&self) -> &str {
        &self.snapshot
    }

    fn hold<'a>(
        &'a self,
        deadline: Instant,
        yield_after: Option<Duration>,
        stop: BoxFuture<'a, KeepEnd>,
    ) -> BoxFuture<'a, Result<KeepEnd, SourceError>> {
        self.hold_until(deadline, yield_after, stop).boxed()
    }
}

/// A pool of sessions for a run that another process began.
pub(super) fn sessions(
    connect: &ConnectSettings,
    source: &SourceRecord,
    application: &str,
    size: usize,
) -> Result<Arc<Sessions>, SourceError> {
    let sessions = Sessions::new(connect.clone(), source.allow_rls, application, size)?;
    sessions.pin(source.meaning.path(), source.meaning.date_style());
    Ok(Arc::new(sessions))
}

/// The custody of a snapshot that only others hold so far.
pub(super) fn custody(source: &SourceRecord, snapshots: &[String], application: &str) -> Custody {
    Custody::of_others(snapshots.to_vec(), source.locks.clone(), source.identity.clone(), application)
}

/// How old a snapshot is that was taken then, both by the server's clock.
pub(super) async fn age(session: &Session, taken_at: DateTime<Utc>) -> Result<Duration, SourceError> {
    let sql = closed("SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::int8");
    let rows = query(session, "asking for the time", &sql, &[]).await?;
    let micros: Option<i64> = rows.first().map(|row| value(row, 0)).transpose()?;
    let now = micros
        .and_then(DateTime::from_timestamp_micros)
        .ok_or_else(|| SourceError::new(SourceFault::Protocol, "the server does not know the time"))?;
    // A clock that was set back makes it no younger than new.
    Ok((now - taken_at).to_std().unwrap_or_default())
}
