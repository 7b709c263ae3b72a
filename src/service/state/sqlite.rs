//! The embedded store: one `SQLite` file with its one writer, a thread that does one thing after another.

mod clock;
mod file;
mod jobs;
mod outbox;
mod queue;
mod records;
mod schema;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use self::clock::ClockWatch;
use self::file::FileLock;
use super::{AuditRecord, Expiry, ExportEnd, ExportRecord, ExportStatus, SIGNING_KEY_BYTES, StateError, StateStore};

/// Requests that wait for the thread; whoever comes then waits before handing his over.
const QUEUE: usize = 64;

/// A request, which answers by itself.
type Request = Box<dyn FnOnce(&mut Connection) + Send>;

/// A store in one file, which no other process has at the same time.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    /// None while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    clock: Arc<Mutex<ClockWatch>>,
}

impl SqliteStore {
    /// Opens the file, or makes it, and brings it to this version. Exports that had not ended were ended by the end of the
    /// process that ran them: they have failed.
    ///
    /// # Errors
    /// Another process has the file, a newer outhaul wrote it, it is no state file, or it cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let (path, lock) = FileLock::take(path)?;
        let (connection, newest) = schema::open(&path)?;
        let clock = ClockWatch::since(newest.unwrap_or_else(jobs::now), Instant::now());
        let (requests, mut waiting) = mpsc::channel::<Request>(QUEUE);
        let serve = move || {
            let mut connection = connection;
            while let Some(request) = waiting.blocking_recv() {
                request(&mut connection);
            }
            // The file is let go of once nothing writes to it any more.
            drop(connection);
            drop(lock);
        };
        let thread = std::thread::Builder::new().name("outhaul-state".to_owned()).spawn(serve);
        let thread = thread.map_err(StateError::file(&path))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), clock: Arc::new(Mutex::new(clock)) })
    }

    /// Does something in a transaction of its own on the store's thread.
    fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StateError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StateError>> {
        let (answer, answered) = oneshot::channel();
        let request: Request = Box::new(move |connection| {
            // Nobody may wait for it any more.
            let _ = answer.send(in_transaction(connection, doing, work));
        });
        async move {
            let requests = self.requests.as_ref().ok_or(StateError::Stopped)?;
            requests.send(request).await.map_err(|_| StateError::Stopped)?;
            answered.await.map_err(|_| StateError::Stopped)?
        }
        .boxed()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // What was handed over is written, and the file is free for the next process. A panic has been told.
            let _ = thread.join();
        }
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    doing: &'static str,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StateError>,
) -> Result<T, StateError> {
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.map_err(StateError::database(doing))?;
    let done = work(&transaction)?;
    transaction.commit().map_err(StateError::database(doing))?;
    Ok(done)
}

impl StateStore for SqliteStore {
    fn begin_export(&self, record: ExportRecord) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("an export began", move |transaction| records::begin(transaction, &record))
    }

    fn finish_export(&self, id: String, end: ExportEnd) -> BoxFuture<'_, Result<bool, StateError>> {
        if end.status == ExportStatus::Streaming {
            return std::future::ready(Err(StateError::NoEnd { status: end.status.name() })).boxed();
        }
        self.ask("an export ended", move |transaction| records::finish(transaction, &id, &end))
    }

    fn export(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<ExportRecord>, StateError>> {
        self.ask("an export was looked up", move |transaction| records::export(transaction, &id, &tenant))
    }

    fn audit(&self, record: AuditRecord) -> BoxFuture<'_, Result<(), StateError>> {
        self.ask("an audit record was added", move |transaction| records::audit(transaction, &record))
    }

    fn audits(&self, tenant: String, most: u32) -> BoxFuture<'_, Result<Vec<AuditRecord>, StateError>> {
        self.ask("the audit was read", move |transaction| records::audits(transaction, &tenant, most))
    }

    fn signing_key(&self) -> BoxFuture<'_, Result<[u8; SIGNING_KEY_BYTES], StateError>> {
        self.ask("the signing key was read", records::signing_key)
    }

    fn prune(&self, expiry: Expiry) -> BoxFuture<'_, Result<u64, StateError>> {
        let clock = Arc::clone(&self.clock);
        self.ask("old records were removed", move |transaction| {
            let now = jobs::now();
            if clock.lock().unwrap_or_else(PoisonError::into_inner).believes(now, Instant::now()) {
                return records::prune(transaction, expiry, now);
            }
            tracing::warn!(
                "the clock is more than 7 days ahead of the newest record: nothing is forgotten for 3 days, in which it can be \
                 set right"
            );
            Ok(0)
        })
    }
}

#[cfg(test)]
mod tests;
