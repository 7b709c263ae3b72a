//! Connections: a deadpool-postgres pool whose sessions have a lendable stream.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row, SimpleQueryMessage};

use super::closed::closed;
use super::shared::{Companion, Companions, Return, RunTerms};
use super::silence::{INQUIRY_TIMEOUT, SOURCE_SILENCE};
use crate::base::failpoint;
use crate::base::postgres::canceller::Canceller;
use crate::base::postgres::connector::{Connector, TLS_FILES_HINT};
use crate::base::postgres::settings::{CONNECT_TIMEOUT, ConnectSettings, SslMode};
use crate::base::postgres::stream::Lender;
use crate::source::{SourceError, SourceFault};

tokio::task_local! {
    /// The lender of the session that the pool makes inside the current `get`; the pool itself has no place for it.
    static NEW_LENDER: Mutex<Option<Lender>>;
}

#[derive(Debug)]
struct PoolConnect(Arc<Connector>);

impl Connect for PoolConnect {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, driver, lender) = self.0.connect(&config).await?;
            // Without the scope there is nobody to lend to; `Sessions::get` always opens it.
            let _ = NEW_LENDER.try_with(|slot| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(lender));
            Ok((client, driver))
        })
    }
}

/// The sessions of one run.
#[derive(Debug)]
pub(crate) struct Sessions {
    connector: Arc<Connector>,
    pool: Pool,
    companions: Companions,
    /// The most connections that were open at the same time.
    peak: AtomicUsize,
    terms: Arc<RunTerms>,
}

/// One checked-out session. Dropping it returns it to the pool; [`Session::discard`] closes it.
#[derive(Debug)]
pub(crate) struct Session {
    client: Object,
    companion: Companion,
    connector: Arc<Connector>,
    /// Whether this checkout made the connection, so that nothing has been set up on it.
    fresh: bool,
    terms: Arc<RunTerms>,
    companions: Companions,
    /// Of a session that runs share. It comes behind the client, and so is dropped after it.
    _returned: Option<Return>,
}

impl Sessions {
    /// A pool of at most `size` sessions. Nothing connects yet. `allow_rls` says whether rows that row security hides may be
    /// missing; else reading such a table is an error.
    pub(crate) fn new(
        settings: ConnectSettings,
        allow_rls: bool,
        application_name: &str,
        size: usize,
    ) -> Result<Self, SourceError> {
        let connector = Connector::new(settings).map_err(|error| {
            SourceError::new(SourceFault::Authentication, "preparing TLS").with_source(error).with_hint(TLS_FILES_HINT)
        })?;
        let connector = Arc::new(connector);
        let config = connector.driver_config(application_name);
        let manager = Manager::from_connect(
            config,
            PoolConnect(Arc::clone(&connector)),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(size)
            // Connecting has its own limit, for each candidate.
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| SourceError::new(SourceFault::Protocol, "building the session pool").with_source(error))?;
        let terms = Arc::new(RunTerms { allow_rls, ..RunTerms::default() });
        Ok(Self { connector, pool, companions: Companions::default(), peak: AtomicUsize::new(0), terms })
    }

    /// The same sessions for one more run, which has its own terms.
    pub(crate) fn for_run(&self, terms: RunTerms) -> Self {
        let (connector, pool, companions) = (Arc::clone(&self.connector), self.pool.clone(), self.companions.clone());
        Self { connector, pool, companions, peak: AtomicUsize::new(0), terms: Arc::new(terms) }
    }

    /// Whether they outlive the run.
    pub(crate) fn are_shared(&self) -> bool {
        self.terms.served.is_some()
    }

    /// As [`Self::get`], beside the `first` session, once that is let in. Encryption and a password take some round trips:
    /// then both connect at the same time.
    pub(crate) async fn second(&self, first: oneshot::Receiver<()>) -> Result<Session, SourceError> {
        let settings = self.connector.settings();
        if settings.password.is_none() && matches!(settings.ssl_mode, SslMode::Disable | SslMode::Prefer) {
            let refused = |error| SourceError::new(SourceFault::Unavailable, "the first session").with_source(error);
            first.await.map_err(refused)?;
        }
        self.get().await
    }

    /// Checks a session out, connecting where none is idle.
    ///
    /// # Errors
    /// The server cannot be reached or refuses us.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the pool as it was.
    pub(crate) async fn get(&self) -> Result<Session, SourceError> {
        loop {
            let session = self.check_out().await?;
            if !self.are_shared() || !session.is_open() {
                return Ok(session);
            }
            // Another run gave it up this very moment.
            session.discard();
        }
    }

    async fn check_out(&self) -> Result<Session, SourceError> {
        let checkout = async {
            let client = self.pool.get().await;
            let made = NEW_LENDER.with(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take());
            (client, made)
        };
        let (client, made) = NEW_LENDER.scope(Mutex::new(None), checkout).await;
        let client = client.map_err(|error| match error {
            PoolError::Backend(error) => SourceError::connecting(self.connector.settings(), error),
            other => SourceError::new(SourceFault::Unavailable, "connecting to PostgreSQL").with_source(other),
        })?;
        self.peak.fetch_max(self.pool.status().size, Ordering::Relaxed);
        let identity = identity(&client);
        let fresh = made.is_some();
        if let Some(lender) = made {
            self.companions.add(identity, lender);
        }
        let lost = || SourceError::new(SourceFault::Protocol, "a pooled session without its stream");
        let companion = self.companions.get(identity).ok_or_else(lost)?;
        let (connector, terms, companions) = (Arc::clone(&self.connector), &self.terms, self.companions.clone());
        let canceller = Canceller::new(Arc::clone(&connector), client.cancel_token());
        let returned = self.are_shared().then(|| Return {
            pool: self.pool.clone(),
            companions: companions.clone(),
            identity,
            open: Arc::clone(&companion.open),
            canceller,
        });
        Ok(Session { client, companion, connector, fresh, terms: Arc::clone(terms), companions, _returned: returned })
    }

    /// Gives all sessions this search path and this order of day and month as they begin; an empty one is not known.
    pub(crate) fn pin(&self, path: &str, date_style: &str) {
        // The first session's stands.
        let _ = self.terms.search_path.set(path.to_owned());
        if !date_style.is_empty() {
            let _ = self.terms.date_style.set(date_style.to_owned());
        }
    }

    /// Whether a session is idle in the pool.
    pub(crate) fn has_idle(&self) -> bool {
        self.pool.status().available > 0
    }

    /// Checks out a session that is either new or [entered](Session::set_entered), or that runs share; one that was given
    /// up on its way there is closed.
    pub(crate) async fn get_whole(&self) -> Result<Session, SourceError> {
        loop {
            let session = self.get().await?;
            if session.fresh || session.entered() || self.are_shared() {
                return Ok(session);
            }
            session.discard();
        }
    }

    /// Closes the idle sessions, and those under way as they come back; no new ones can be had. Other runs go on with what
    /// is shared.
    pub(crate) fn close(&self) {
        if !self.are_shared() {
            self.pool.close();
        }
    }

    /// The most connections that were open at the same time, cancel requests apart.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

pub(super) fn identity(client: &ClientWrapper) -> usize {
    Arc::as_ptr(&client.statement_cache).addr()
}

impl Session {
    /// The search path that the session is to have, in SQL.
    pub(crate) fn search_path(&self) -> Option<&str> {
        self.terms.search_path.get().map(String::as_str)
    }

    /// The options with which it connects.
    pub(crate) fn options(&self) -> Option<&str> {
        self.connector.settings().options.as_deref()
    }

    /// Whether rows that row security hides may be missing from what is read.
    pub(crate) fn allows_rls(&self) -> bool {
        self.terms.allow_rls
    }

    /// What its run's transactions begin with.
    pub(super) fn terms(&self) -> &RunTerms {
        &self.terms
    }

    /// Whether a transaction of it has begun and not ended.
    fn is_open(&self) -> bool {
        self.companion.open.load(Ordering::Relaxed)
    }

    /// Notes that a transaction begins.
    pub(super) fn set_open(&self) {
        self.companion.open.store(true, Ordering::Relaxed);
    }

    /// The driver's client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The socket, for one COPY.
    pub(crate) fn lender(&self) -> &Lender {
        &self.companion.lender
    }

    /// Whether its transaction has the run's snapshot and locks, and has had no error since.
    pub(crate) fn entered(&self) -> bool {
        self.companion.entered.load(Ordering::Relaxed)
    }

    /// Marks it as entered; that stays with it in the pool.
    pub(crate) fn set_entered(&self) {
        self.companion.entered.store(true, Ordering::Relaxed);
    }

    /// The server process that runs its transaction, once it has begun one.
    pub(crate) fn pid(&self) -> Option<i32> {
        Some(self.companion.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Notes which server process runs its transaction: behind a pooler it changes from one to the next.
    pub(crate) fn set_pid(&self, pid: i32) {
        self.companion.pid.store(pid, Ordering::Relaxed);
    }

    /// Where a cancel request for this session goes.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller::new(Arc::clone(&self.connector), self.client.cancel_token())
    }

    /// Runs statements that are done at once, locks within their `lock_timeout` included, separated by `;`.
    ///
    /// # Errors
    /// Also [`SourceFault::Unavailable`] where no answer comes within [`SOURCE_SILENCE`].
    pub(crate) async fn batch(&self, action: &str, sql: &str) -> Result<(), SourceError> {
        self.answered(action, self.client.batch_execute(sql)).await?;
        if matches!(sql, "COMMIT" | "ROLLBACK") {
            self.companion.open.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The same, for the only value of the last row that any of them returns.
    pub(crate) async fn batch_value(&self, action: &str, sql: &str) -> Result<Option<String>, SourceError> {
        let messages = self.answered(action, self.client.simple_query(sql)).await?;
        let value = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        });
        Ok(value.flatten())
    }

    async fn answered<T>(
        &self,
        action: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SourceError> {
        let limit = failpoint::limit("silence", SOURCE_SILENCE);
        if let Ok(answer) = tokio::time::timeout(limit, answer).await {
            return answer.map_err(|error| SourceError::driver(action, error));
        }
        let message = format!("{action}: no answer within {} s", limit.as_secs());
        let hint = "the network lost the connection, or a pooler in between has no server connection to give";
        Err(SourceError::new(SourceFault::Unavailable, message).with_hint(hint))
    }

    /// Asks a question of ours over a connection of its own, beside the pool's.
    pub(super) async fn ask_aside(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, SourceError> {
        let failed = |error| SourceError::driver("looking at the source", error);
        let config = self.connector.driver_config("outhaul/inquiry");
        // The connection ends with its client.
        let (client, _driver, _lender) = self.connector.connect(&config).await.map_err(failed)?;
        client.query_typed(&closed(sql), parameters).await.map_err(failed)
    }

    /// Whether a new connection takes a statement and no transaction, as by way of a pooler that gives each statement a
    /// connection of its own.
    pub(super) async fn refuses_transactions(&self) -> bool {
        let config = self.connector.driver_config("outhaul/inquiry");
        let asked = async {
            let (client, _driver, _lender) = self.connector.connect(&config).await.ok()?;
            // Where even the statement fails, the pooler has no connection to give.
            client.simple_query("SELECT").await.ok()?;
            client.batch_execute("BEGIN").await.err()
        };
        let refused = tokio::time::timeout(INQUIRY_TIMEOUT, asked).await.ok().flatten();
        refused.is_some_and(|error| error.code().is_some_and(|code| code.code() == "08P01"))
    }

    /// Closes the session instead of returning it to the pool.
    pub(crate) fn discard(self) {
        self.companion.open.store(false, Ordering::Relaxed);
        // Its socket would stay open with it.
        self.companions.forget(identity(&self.client));
        drop(Object::take(self.client));
    }
}

/// How long a session may take to become quiet before COPY: the driver has nothing left to say by then.
pub(crate) const QUIET_PATIENCE: Duration = CONNECT_TIMEOUT;
