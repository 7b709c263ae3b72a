//! The store that several processes share: a schema of a PostgreSQL database.
//!
//! Nothing is held between two requests, neither a transaction nor a lock of a session, so a pooler may stand in between.
//! One connection more listens for hints, without which jobs start a little later.
//! Each process says every few seconds that it lives; the streams of one that has not for its lease have failed.

mod hints;
mod jobs;
mod outbox;
mod queue;
mod records;
mod schema;
mod session;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use self::session::{StateSessions, StateWork};
use super::{AuditRecord, Expiry, ExportEnd, ExportRecord, ExportStatus, SIGNING_KEY_BYTES, StateError, StateStore};
use crate::base::failpoint;
use crate::base::postgres::settings::ConnectSettings;
use crate::base::words::counted;

/// A process that has not been heard of for so long has gone.
const INSTANCE_LEASE: Duration = Duration::from_secs(30);

/// A store in a database.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    sessions: Arc<StateSessions>,
    /// This process, as its exports name it.
    instance: Arc<str>,
    renewal: JoinHandle<()>,
}

impl PostgresStore {
    /// Reaches the database, and brings it to this version.
    ///
    /// # Errors
    /// It cannot be reached, a newer outhaul wrote it, or it is no state database.
    pub(crate) async fn open(settings: ConnectSettings) -> Result<Self, StateError> {
        Self::with(settings, failpoint::limit("instance_lease", INSTANCE_LEASE)).await
    }

    /// Looks whether it could be opened, and changes nothing: replicas of another version may be at work.
    ///
    /// # Errors
    /// As [`Self::open`], or the role may not do what it will have to.
    pub(crate) async fn probe(settings: ConnectSettings) -> Result<(), StateError> {
        schema::probe(&StateSessions::new(settings)?, schema::STEPS.len()).await
    }

    async fn with(settings: ConnectSettings, lease: Duration) -> Result<Self, StateError> {
        let sessions = Arc::new(StateSessions::new(settings)?);
        schema::open(&sessions, schema::STEPS).await?;
        let instance: Arc<str> = format!("{:032x}", rand::random::<u128>()).into();
        renew(&sessions, &instance, lease).await?;
        let renewal = tokio::spawn(live(Arc::clone(&sessions), Arc::clone(&instance), lease));
        Ok(Self { sessions, instance, renewal })
    }

    /// Does something in a transaction, whether or not somebody still waits for it.
    fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl StateWork<T> + 'static,
    ) -> BoxFuture<'_, Result<T, StateError>> {
        let handed = handed_over(&self.sessions, doing, work);
        async move { handed.await.unwrap_or(Err(StateError::Stopped)) }.boxed()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Does something in a task of its own, which nobody ends in the midst of a transaction.
fn handed_over<T: Send + 'static>(
    sessions: &Arc<StateSessions>,
    doing: &'static str,
    work: impl StateWork<T> + 'static,
) -> JoinHandle<Result<T, StateError>> {
    let sessions = Arc::clone(sessions);
    tokio::spawn(async move { sessions.transact(doing, work).await })
}

/// Renews for as long as the store is there.
async fn live(sessions: Arc<StateSessions>, instance: Arc<str>, lease: Duration) {
    loop {
        tokio::time::sleep(lease / 3).await;
        if let Err(error) = renew(&sessions, &instance, lease).await {
            tracing::warn!(error = ?error, "the state database was not told that this process lives");
        }
    }
}

async fn renew(sessions: &Arc<StateSessions>, instance: &Arc<str>, lease: Duration) -> Result<(), StateError> {
    let doing = "this process said that it lives";
    let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
    let instance = Arc::clone(instance);
    let closed = handed_over(sessions, doing, move |transaction| {
        let instance = Arc::clone(&instance);
        async move { records::renew(transaction, &instance, lease).await }.boxed()
    });
    let closed = closed.await.unwrap_or(Err(StateError::Stopped))?;
    if closed > 0 {
        tracing::warn!("{} of a process that has gone did not end; they have failed", counted(closed, "stream"));
    }
    Ok(())
}

impl StateStore for PostgresStore {
    fn begin_export(&self, record: ExportRecord) -> BoxFuture<'_, Result<(), StateError>> {
        let (record, instance) = (Arc::new(record), Arc::clone(&self.instance));
        self.ask("an export began", move |transaction| {
            let (record, instance) = (Arc::clone(&record), Arc::clone(&instance));
            async move { records::begin(transaction, &instance, &record).await }.boxed()
        })
    }

    fn finish_export(&self, id: String, end: ExportEnd) -> BoxFuture<'_, Result<bool, StateError>> {
        if end.status == ExportStatus::Streaming {
            return std::future::ready(Err(StateError::NoEnd { status: end.status.name() })).boxed();
        }
        let end = Arc::new((Arc::clone(&self.instance), id, end));
        self.ask("an export ended", move |transaction| {
            let end = Arc::clone(&end);
            async move { records::finish(transaction, &end.0, &end.1, &end.2).await }.boxed()
        })
    }

    fn export(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<ExportRecord>, StateError>> {
        self.ask("an export was looked up", move |transaction| {
            let (id, tenant) = (id.clone(), tenant.clone());
            async move { records::export(transaction, &id, &tenant).await }.boxed()
        })
    }

    fn audit(&self, record: AuditRecord) -> BoxFuture<'_, Result<(), StateError>> {
        let record = Arc::new((format!("{:032x}", rand::random::<u128>()), record));
        self.ask("an audit record was added", move |transaction| {
            let record = Arc::clone(&record);
            async move { records::audit(transaction, &record.0, &record.1).await }.boxed()
        })
    }

    fn audits(&self, tenant: String, most: u32) -> BoxFuture<'_, Result<Vec<AuditRecord>, StateError>> {
        self.ask("the audit was read", move |transaction| {
            let tenant = tenant.clone();
            async move { records::audits(transaction, &tenant, most).await }.boxed()
        })
    }

    fn signing_key(&self) -> BoxFuture<'_, Result<[u8; SIGNING_KEY_BYTES], StateError>> {
        let made = rand::random();
        self.ask("the signing key was read", move |transaction| records::signing_key(transaction, made).boxed())
    }

    fn prune(&self, expiry: Expiry) -> BoxFuture<'_, Result<u64, StateError>> {
        self.ask("old records were removed", move |transaction| records::prune(transaction, expiry).boxed())
    }
}

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;
