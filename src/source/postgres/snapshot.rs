//! Locks, then snapshot; and its custody for as long as readers may come.
//!
//! An exported snapshot ends with the transaction that exported it. Two keepers hold it: A exports it, B imports and
//! exports it again, so that losing either loses nothing; the survivor's id serves until a new second keeper stands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::{Session, Sessions};
pub(crate) use super::lock_set::{DeferredLocks, Locks, Waiting};
use super::session::{Begin, ServerIdentity, begin, literal, server_identity};
use crate::base::{failpoint, telemetry};
use crate::model::SnapshotRecord;
use crate::source::{Retry, SourceError, SourceFault};

/// Between two pings of an idle keeper: below the idle limits of common proxies and of NAT.
pub(super) const KEEPER_PING: Duration = Duration::from_secs(30);

/// After the server had no connection left for a keeper, until it is asked for one again: its other clients come and go.
const KEEPER_PAUSE: Duration = Duration::from_secs(30);

/// An answer to a ping: a session that takes longer is taken for lost, and its snapshot's other keeper serves.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Exports the snapshot of the session's transaction.
pub(crate) async fn export(session: &Session) -> Result<String, SourceError> {
    let rows = query(session, "exporting the snapshot", "SELECT pg_catalog.pg_export_snapshot()", &[]).await?;
    let row = rows.first().ok_or_else(|| SourceError::new(SourceFault::Protocol, "no snapshot id came back"))?;
    value(row, 0)
}

/// The same with what the manifest says of it; both questions are on their way at once.
pub(super) async fn export_with_facts(session: &Session) -> Result<SnapshotRecord, SourceError> {
    let (id, facts) = tokio::join!(export(session), facts(session, None));
    Ok(SnapshotRecord { id: Some(id?), ..facts? })
}

/// What the manifest says of the session's snapshot.
pub(crate) async fn facts(session: &Session, id: Option<String>) -> Result<SnapshotRecord, SourceError> {
    let sql = closed(
        "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text, \
        (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
            ELSE pg_catalog.pg_current_wal_lsn() END)::text, \
        (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::int8",
    );
    let rows = query(session, "describing the snapshot", &sql, &[]).await?;
    let row = rows.first().ok_or_else(|| SourceError::new(SourceFault::Protocol, "the snapshot has no description"))?;
    let taken_at = DateTime::from_timestamp_micros(value(row, 2)?).unwrap_or_else(Utc::now);
    Ok(SnapshotRecord { id, xmin: value(row, 0)?, lsn: value(row, 1)?, taken_at })
}

/// Keeps an idle session from being taken for dead, by the server (`idle_in_transaction_session_timeout`) and on the
/// way to it. False where it does not answer: nothing can rest on it then.
pub(crate) async fn ping(session: &Session) -> bool {
    let answer = tokio::time::timeout(PING_TIMEOUT, session.batch("pinging a session", "SELECT"));
    matches!(answer.await, Ok(Ok(())))
}

/// The role of a session that reads.
pub(super) const READER: &str = "reader";

/// Whoever finds it first, the guard or a reader, says the same.
fn keepers_gone() -> SourceError {
    SourceError::new(SourceFault::SnapshotLost, "every keeper of the snapshot is gone")
        .with_hint("the server restarted or ended the sessions; run the export again")
}

#[derive(Debug)]
struct SnapshotSession {
    session: Session,
    snapshot: String,
    pinged: Instant,
}

/// The keepers of a run's snapshot.
#[derive(Debug)]
pub(crate) struct Custody {
    keepers: Mutex<VecDeque<SnapshotSession>>,
    /// Ids under which others hold the same snapshot.
    others: Mutex<Vec<String>>,
    /// Whether it has been told that nobody holds the snapshot any more.
    told: AtomicBool,
    /// When a keeper last became a reader, or could not be had, for want of connections.
    full: Mutex<Option<Instant>>,
    locks: SyncMutex<Arc<Locks>>,
    /// Whether readers hold all of them, and not only what they read.
    readers_lock: bool,
    server: ServerIdentity,
    application: String,
}

impl Custody {
    /// Exports the snapshot of `anchor`'s transaction: its id, and a custody that has no keeper yet.
    pub(crate) async fn of_exported(
        anchor: &Session,
        locks: &Locks,
        server: &ServerIdentity,
        application: &str,
    ) -> Result<(String, Self), SourceError> {
        let custody = Self::of_others(Vec::new(), locks.clone(), server.clone(), application);
        Ok((export(anchor).await?, custody))
    }

    /// The custody of a snapshot that only others hold so far, under these ids. Keepers of its own come with
    /// [`Custody::tend`].
    pub(crate) fn of_others(ids: Vec<String>, locks: Locks, server: ServerIdentity, application: &str) -> Self {
        Self {
            keepers: Mutex::default(),
            others: Mutex::new(ids),
            told: AtomicBool::new(false),
            full: Mutex::default(),
            locks: SyncMutex::new(Arc::new(locks)),
            readers_lock: true,
            server,
            application: application.to_owned(),
        }
    }

    /// The same where readers lock only what they read, for as long as they read it.
    pub(crate) fn of_several(self) -> Self {
        Self { readers_lock: false, ..self }
    }

    /// A session that exported `snapshot`, and stays in its transaction, is a keeper from now on.
    pub(crate) async fn entrust(&self, session: Session, snapshot: String) {
        self.keepers.lock().await.push_back(SnapshotSession { session, snapshot, pinged: Instant::now() });
    }

    /// Has the first reader idle in the pool before it is asked for. Where that fails, whoever asks finds out why. With
    /// `ends` the session has a transaction that is to end first.
    pub(crate) async fn admit(&self, session: Session, snapshot: &str, ends: bool) {
        let ending = async { if ends { session.batch("ending the lock session", "COMMIT").await } else { Ok(()) } };
        let (ended, entered) = tokio::join!(ending, self.enter(&session, READER, vec![snapshot.to_owned()]));
        match ended.and(entered) {
            Ok(()) => {
                session.set_open();
                session.set_entered();
            }
            Err(_) => session.discard(),
        }
    }

    /// Whether every session under the snapshot holds all locks.
    pub(crate) fn readers_lock_all(&self) -> bool {
        self.readers_lock
    }

    fn locks(&self) -> Arc<Locks> {
        Arc::clone(&self.locks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds no more than `locks` from now on: keepers that held more are replaced, one after the other.
    ///
    /// # Errors
    /// As [`Custody::reinforce`]; what is held then is the old locks, or both.
    pub(crate) async fn narrow(&self, sessions: &Sessions, locks: Locks) -> Result<(), SourceError> {
        *self.locks.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(locks);
        let keepers = self.keepers.lock().await.len();
        for _ in 0..keepers {
            self.reinforce(sessions).await?;
            if let Some(keeper) = self.keepers.lock().await.pop_front() {
                keeper.session.discard();
            }
        }
        Ok(())
    }

    /// Somebody else holds the snapshot too, under this id.
    pub(crate) async fn also_held(&self, id: String) {
        self.others.lock().await.push(id);
    }

    /// Starts the second keeper. Where the server has no connection for it, the first one does.
    ///
    /// # Errors
    /// As [`Custody::reinforce`], but for that.
    pub(crate) async fn second(&self, sessions: &Sessions) -> Result<(), SourceError> {
        let started = match self.reinforce(sessions).await {
            // The reader that stood ready, and that it took, was lost: a new session serves as well.
            Err(error) if error.retry == Retry::Again && !error.is_out_of_connections() => {
                tracing::warn!(error = %error, "the second snapshot keeper was lost as it began");
                self.reinforce(sessions).await
            }
            other => other,
        };
        match started {
            Err(error) if error.is_out_of_connections() => {
                tracing::warn!(error = %error, "no second snapshot keeper");
                *self.full.lock().await = Some(Instant::now());
                Ok(())
            }
            other => other,
        }
    }

    /// A keeper's session, to be read with, where the server has no connection left for a reader. Its transaction goes on,
    /// so the snapshot can be imported by its id for as long as it reads.
    pub(crate) async fn lend(&self) -> Option<Session> {
        if failpoint::off("lending") {
            return None;
        }
        let keeper = {
            let mut keepers = self.keepers.lock().await;
            keepers.retain(|keeper| !keeper.session.client().is_closed());
            let keeper = keepers.pop_back()?;
            // Before anybody can see that it is no keeper any more: who holds the snapshot is known at every moment.
            self.also_held(keeper.snapshot.clone()).await;
            keeper
        };
        *self.full.lock().await = Some(Instant::now());
        tracing::warn!("the server has no connection left; a keeper of the snapshot reads");
        keeper.session.set_entered();
        Some(keeper.session)
    }

    /// The ids under which the snapshot can be imported.
    pub(crate) async fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.keepers.lock().await.iter().map(|keeper| keeper.snapshot.clone()).collect();
        ids.extend(self.others.lock().await.iter().cloned());
        ids
    }

    /// A session whose transaction is under the snapshot, on the same server, with everything locked.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where no keeper is left, or the session is on another server.
    ///
    /// # Cancel safety
    /// A session that is given up half-way is closed by the next checkout.
    pub(crate) async fn session(&self, sessions: &Sessions, role: &str) -> Result<Session, SourceError> {
        // After a restart nobody need wait until the server takes connections again.
        if !sessions.has_idle() && self.is_lost().await {
            return Err(keepers_gone());
        }
        let session = sessions.get_whole().await?;
        if !session.entered() {
            if let Err(error) = self.enter(&session, role, self.ids().await).await {
                session.discard();
                return Err(error);
            }
            session.set_entered();
        }
        Ok(session)
    }

    /// Whether nobody holds the snapshot any more, as far as is known.
    async fn is_lost(&self) -> bool {
        // Keepers become others, and others no keepers: so in this order.
        let keepers = self.keepers.lock().await.iter().all(|keeper| keeper.session.client().is_closed());
        keepers && self.others.lock().await.is_empty()
    }

    async fn enter(&self, session: &Session, role: &str, ids: Vec<String>) -> Result<(), SourceError> {
        let application = format!("{}/{role}", self.application);
        let mut refused = None;
        for id in ids {
            let locks = async {
                let wanted = role != READER || self.readers_lock;
                if wanted { self.locks().take(session, Waiting::Nowait).await } else { Ok(()) }
            };
            // All are on their way at once: on another server the locks go with the session.
            let (begun, identity, locked) = tokio::join!(
                begin(session, Begin::Import(&id), &application),
                server_identity(session),
                Box::pin(locks),
            );
            match begun {
                Ok(()) => {
                    identity?.agreed(&self.server)?;
                    return locked;
                }
                Err(error) if error.fault == SourceFault::SnapshotLost => {
                    session.batch("leaving a failed transaction", "ROLLBACK").await?;
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let lost = keepers_gone();
        Err(match refused {
            Some(error) => lost.with_source(error),
            None => lost,
        })
    }

    /// Replaces keepers that died and pings those that idle; called every second or so. `locked` is whether another session
    /// holds the locks. Says whether somebody holds them.
    ///
    /// A keeper that cannot be replaced is only a warning, and so is the loss of all: readers that have imported the
    /// snapshot read on, and one of them that idles is made a keeper. Only whoever has to import it and cannot finds
    /// that it is lost.
    pub(crate) async fn tend(&self, sessions: &Sessions, locked: bool) -> bool {
        let alone = {
            let mut keepers = self.keepers.lock().await;
            let mut alive = VecDeque::new();
            while let Some(mut keeper) = keepers.pop_front() {
                let mut answers = !keeper.session.client().is_closed();
                if answers && keeper.pinged.elapsed() >= KEEPER_PING {
                    answers = ping(&keeper.session).await;
                    keeper.pinged = Instant::now();
                }
                if answers {
                    alive.push_back(keeper);
                } else {
                    tracing::warn!(snapshot = keeper.snapshot, "a snapshot keeper was lost");
                    telemetry::keeper_promoted();
                    keeper.session.discard();
                }
            }
            *keepers = alive;
            // Where there were no connections, a new keeper would take that of a reader.
            if keepers.len() > 1 || self.is_full().await {
                return self.readers_lock || locked || !keepers.is_empty();
            }
            keepers.is_empty()
        };
        // A new keeper would lock what may have changed since nobody held it.
        if alone && !self.readers_lock && !locked {
            return false;
        }
        if alone && !sessions.has_idle() && self.others.lock().await.is_empty() {
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!("every keeper of the snapshot is gone; what is being read is read on");
            }
            return true;
        }
        match self.reinforce(sessions).await {
            Ok(()) => tracing::info!("a new second snapshot keeper stands"),
            Err(error) => {
                tracing::warn!(error = %error, "no second snapshot keeper yet");
                if error.is_out_of_connections() {
                    *self.full.lock().await = Some(Instant::now());
                }
            }
        }
        true
    }

    /// Whether the server had no connection left a moment ago.
    async fn is_full(&self) -> bool {
        let pause = failpoint::limit("keeper", KEEPER_PAUSE);
        self.full.lock().await.is_some_and(|full| full.elapsed() < pause)
    }

    /// Ends all keepers, and with them their locks.
    pub(crate) async fn release(&self) {
        for keeper in self.keepers.lock().await.drain(..) {
            keeper.session.discard();
        }
    }

    /// Starts one keeper more.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where nobody holds the snapshot any more.
    pub(crate) async fn reinforce(&self, sessions: &Sessions) -> Result<(), SourceError> {
        // An idle reader serves as well as a new session.
        let session = self.session(sessions, "keeper").await?;
        if !self.readers_lock
            && let Err(error) = self.locks().take(&session, Waiting::Nowait).await
        {
            session.discard();
            return Err(error);
        }
        let application = literal(&format!("{}/keeper", self.application));
        let name = format!("SET LOCAL application_name = {application}");
        let (named, snapshot) = tokio::join!(session.batch("naming a keeper", &name), export(&session));
        named?;
        let snapshot = snapshot?;
        self.entrust(session, snapshot).await;
        Ok(())
    }
}
