//! A snapshot that outlives its run: who holds it, and how another process reads under it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::catalog::{Found, query, value};
use super::closed::closed;
use super::connect::{Connector, Session, Sessions};
use super::meaning::Meaning;
use super::prepare::application;
use super::server::ServerFacts;
use super::session::ServerIdentity;
use super::settings::ConnectSettings;
use super::snapshot::{self, Custody, Locks, PING_TIMEOUT};
use crate::source::{SourceError, SourceFault};

/// Between two looks of a keeper outside the run: whether its session lives, whether somebody waits for its locks, and
/// whether its run is over.
pub(crate) const KEPT_INTERVAL: Duration = Duration::from_secs(5);

/// What another process must know of a run's source to read under its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    pub(super) found: Option<Found>,
    pub(super) locks: Locks,
    pub(super) server: ServerFacts,
    pub(super) identity: ServerIdentity,
    pub(super) allow_rls: bool,
    pub(super) meaning: Meaning,
}

impl SourceRecord {
    /// The server's version, as it says itself.
    pub fn server_version(&self) -> &str {
        &self.server.version
    }

    /// Whether `other` reads the very same relation, and not one that has come in its place under its name.
    pub fn is_of_relation(&self, other: &Self) -> bool {
        let oid = |record: &Self| record.found.as_ref().map(|found| found.oid);
        oid(self) == oid(other)
    }

    /// Whether the names in both runs' texts stand for the same, seen with the same eyes.
    pub fn means_as(&self, other: &Self) -> bool {
        self.meaning.is_as(&other.meaning)
    }

    /// Whether it is a standby.
    pub fn standby(&self) -> bool {
        self.server.standby
    }
}

/// A snapshot that a keeper of its own holds, as its run's journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSnapshot {
    /// The id to import.
    pub snapshot: String,
    /// Until when at most.
    pub until: DateTime<Utc>,
    /// The keeper's machine.
    pub host: String,
    /// The keeper's process.
    pub pid: u32,
}

/// What counts of a [`KeptSnapshot`] for whoever imports it; all that is known of one that the run itself holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotId {
    /// The id to import.
    pub snapshot: String,
}

/// Why a keeper let its snapshot go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepEnd {
    /// Its run has ended, or was cleaned away.
    RunEnded,
    /// Its time was up.
    Deadline,
    /// A session waited for its locks, with everybody else behind it.
    Yielded {
        /// The session's process on the server.
        pid: i32,
    },
    /// It was told to.
    Stopped,
}

/// A session that does nothing but hold a snapshot and its locks.
#[derive(Debug)]
pub struct Keeper {
    session: Session,
    /// The id under which others import the snapshot.
    pub snapshot: String,
}

impl Keeper {
    /// Imports one of `snapshots`, on the server of the run and with its locks, and exports it again.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where none of them is held any more, or the server is another one.
    ///
    /// # Cancel safety
    /// Dropping the future closes the session.
    pub async fn begin(
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

    /// Holds the snapshot until `stop` resolves, until `deadline`, or until a session has waited for our locks for
    /// `yield_after`.
    ///
    /// # Errors
    /// The session is lost.
    pub async fn hold(
        &self,
        deadline: Instant,
        yield_after: Option<Duration>,
        stop: impl Future<Output = KeepEnd>,
    ) -> Result<KeepEnd, SourceError> {
        let mut stop = std::pin::pin!(stop);
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

/// A pool of sessions for a run that another process began.
pub(super) fn sessions(
    connect: &ConnectSettings,
    source: &SourceRecord,
    application: &str,
    size: usize,
) -> Result<Arc<Sessions>, SourceError> {
    let connector = Arc::new(Connector::new(connect.clone(), source.allow_rls)?);
    let sessions = Sessions::new(connector, application, size)?;
    sessions.pin_search_path(source.meaning.path());
    Ok(Arc::new(sessions))
}

/// The custody of a snapshot that only others hold so far.
pub(super) fn custody(source: &SourceRecord, snapshots: &[String], application: &str) -> Custody {
    Custody::of_others(snapshots.to_vec(), source.locks.clone(), source.identity.clone(), application)
}
