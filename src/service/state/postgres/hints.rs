//! Tells the workers of other processes that the queue has something for them, so that they need not wait for their next look.
//!
//! It is a hint: nothing depends on its arrival. It is sent once the change that it tells of is committed, in a transaction of
//! its own, because a server whose queue of notifications is full refuses the transaction. It is heard on a connection of its
//! own; a pooler that shares its connections between transactions lets nothing through, and then workers find jobs by looking.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;

use super::super::StateError;
use super::session::{StateSessions, StateTransaction, Undone};
use crate::base::failpoint;
use crate::base::postgres::connector::Connector;
use crate::base::postgres::settings::ConnectSettings;

/// How the database names the session that listens.
const APPLICATION: &str = "outhaul/state-hints";

/// Between two tries to listen.
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// Of the server for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Between two times that a session says that it listens: a proxy may have lost the server behind it and say nothing.
const BETWEEN_LISTENS: Duration = Duration::from_mins(1);

/// Sends a hint in the background.
pub(super) fn send(sessions: &Arc<StateSessions>) {
    if failpoint::off("job_hint") {
        return;
    }
    let sessions = Arc::clone(sessions);
    tokio::spawn(async move {
        let sent = sessions.attempt("workers were told of a job", |transaction| told(transaction).boxed()).await;
        if let Err(error) = sent {
            tracing::debug!(error = ?error, "workers were not told of a job, and find it by themselves");
        }
    });
}

async fn told(transaction: &StateTransaction<'_>) -> Result<(), Undone> {
    transaction.rows("SELECT pg_catalog.pg_notify('outhaul_job', '')::text", &[]).await.map(drop)
}

/// Wakes one who waits for `queued` with each hint, until it is dropped; a connection that is lost is made again.
pub(super) async fn listen(sessions: Arc<StateSessions>, queued: Arc<Notify>) {
    if failpoint::off("job_hint") {
        return;
    }
    let mut told = false;
    loop {
        let ended = session(sessions.settings().clone(), &queued).await;
        match ended {
            Ok(()) => told = false,
            // Once for an outage.
            Err(error) if !told => {
                told = true;
                tracing::warn!(error = ?error, "the state database is not listened to; jobs of other processes start later");
            }
            Err(_) => {}
        }
        tokio::time::sleep(failpoint::limit("job_listen", BETWEEN_TRIES)).await;
    }
}

/// One session, until it ends.
async fn session(settings: ConnectSettings, queued: &Arc<Notify>) -> Result<(), StateError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StateError::Unreachable { source };
    // Another server may be the right one since.
    let connector = Connector::new(settings).map_err(|error| failed(error.into()))?.telling(Arc::clone(queued));
    let config = connector.driver_config(APPLICATION);
    let (client, mut driver, _lender) = connector.connect(&config).await.map_err(|error| failed(error.into()))?;
    let silent = |_| StateError::Database { doing: "it was listened to", source: "it is silent".into() };
    loop {
        let listens = tokio::time::timeout(ANSWER_TIME, client.batch_execute("LISTEN outhaul_job")).await;
        listens.map_err(silent)?.map_err(|error| failed(error.into()))?;
        // What came while nobody listened.
        queued.notify_one();
        tokio::select! {
            // A panic has been told.
            _ = &mut driver => return Ok(()),
            () = tokio::time::sleep(failpoint::limit("job_listens", BETWEEN_LISTENS)) => {}
        }
    }
}
