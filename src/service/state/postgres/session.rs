//! Sessions with the state database: a small pool, one short transaction at a time, and a new server where one was lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Config, Row};

use super::super::StateError;
use crate::base::failpoint;
use crate::base::postgres::connector::Connector;
use crate::base::postgres::settings::{CONNECT_TIMEOUT, ConnectSettings, TargetSessionAttrs};

/// Connections of one process; its transactions take milliseconds.
const CONNECTIONS: usize = 4;

/// How the database names our sessions.
const APPLICATION: &str = "outhaul/state";

/// So long a lost server is looked for again before a request fails: a failover or a restart.
const PATIENCE: Duration = Duration::from_secs(20);

const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// A transaction that the network does not answer.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Nothing of the role's or of the database's own settings changes what our statements mean. What is committed outlives
/// the server.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
    SET LOCAL search_path = pg_catalog, pg_temp; \
    SET LOCAL synchronous_commit = on; \
    SET LOCAL statement_timeout = 20000; \
    SET LOCAL lock_timeout = 10000; \
    SET LOCAL idle_in_transaction_session_timeout = 60000";

/// A parameter and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) fn text(value: &(impl ToSql + Sync)) -> Parameter<'_> {
    (value, Type::TEXT)
}

pub(super) fn number(value: &(impl ToSql + Sync)) -> Parameter<'_> {
    (value, Type::INT8)
}

#[derive(Debug)]
struct StateConnect(Arc<Connector>);

impl Connect for StateConnect {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, driver, _lender) = self.0.connect(&config).await?;
            Ok((client, driver))
        })
    }
}

/// The sessions of one process with the state database.
#[derive(Debug)]
pub(super) struct StateSessions {
    settings: ConnectSettings,
    /// Its connections are all to one server. Where that was lost there is a new pool, which looks at all hosts again.
    pool: Mutex<Pool>,
}

/// One transaction.
#[derive(Debug)]
pub(super) struct StateTransaction<'a> {
    client: &'a Client,
    doing: &'static str,
    /// Whether an earlier try of the same work may have been committed: its answer was lost.
    pub(super) may_be_done: bool,
}

/// What is done in a transaction, perhaps several times until it is committed.
pub(super) trait StateWork<T>:
    for<'t> Fn(&'t StateTransaction<'t>) -> BoxFuture<'t, Result<T, Undone>> + Send + Sync
{
}

impl<T, F> StateWork<T> for F where
    F: for<'t> Fn(&'t StateTransaction<'t>) -> BoxFuture<'t, Result<T, Undone>> + Send + Sync
{
}

/// Why a transaction came to nothing.
#[derive(Debug)]
pub(super) enum Undone {
    /// The connection was lost, or never made.
    Lost(StateError),
    /// Anything else.
    Failed(StateError),
}

impl From<StateError> for Undone {
    fn from(error: StateError) -> Self {
        Self::Failed(error)
    }
}

impl StateSessions {
    /// Nothing connects yet.
    ///
    /// # Errors
    /// What TLS needs cannot be read.
    pub(super) fn new(mut settings: ConnectSettings) -> Result<Self, StateError> {
        if settings.target_session_attrs == TargetSessionAttrs::Any {
            // A standby takes no records.
            settings.target_session_attrs = TargetSessionAttrs::ReadWrite;
        }
        let pool = Mutex::new(pool(&settings)?);
        Ok(Self { settings, pool })
    }

    /// How the database is reached.
    pub(super) fn settings(&self) -> &ConnectSettings {
        &self.settings
    }

    /// Does something in a transaction of its own, and again where the connection was lost meanwhile.
    ///
    /// # Cancel safety
    /// It is not to be dropped: a session would go back to the pool in the midst of a transaction.
    pub(super) async fn transact<T>(&self, doing: &'static str, work: impl StateWork<T>) -> Result<T, StateError> {
        self.persist(doing, failpoint::limit("state_patience", PATIENCE), work).await
    }

    /// The same for somebody who waits: a server that is not there is told at once.
    pub(super) async fn attempt<T>(&self, doing: &'static str, work: impl StateWork<T>) -> Result<T, StateError> {
        self.persist(doing, Duration::ZERO, work).await
    }

    async fn persist<T>(
        &self,
        doing: &'static str,
        patience: Duration,
        work: impl StateWork<T>,
    ) -> Result<T, StateError> {
        let deadline = Instant::now() + patience;
        let mut may_be_done = false;
        loop {
            let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let lost = match once(&pool, doing, &mut may_be_done, &work).await {
                Ok(done) => return Ok(done),
                Err(Undone::Failed(error)) => return Err(error),
                Err(Undone::Lost(error)) => error,
            };
            if Instant::now() >= deadline || failpoint::off("state_reconnect") {
                return Err(lost);
            }
            tracing::warn!(error = ?lost, "the state database was lost; it is looked for again");
            self.renew(&pool)?;
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    /// A new pool in place of this one, unless somebody was faster.
    fn renew(&self, lost: &Pool) -> Result<(), StateError> {
        let mut current = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if std::ptr::eq(current.manager(), lost.manager()) {
            lost.close();
            *current = pool(&self.settings)?;
        }
        Ok(())
    }
}

fn pool(settings: &ConnectSettings) -> Result<Pool, StateError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StateError::Unreachable { source };
    let connector = Connector::new(settings.clone()).map_err(|error| failed(error.into()))?;
    let config = connector.driver_config(APPLICATION);
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_connect(config, StateConnect(Arc::new(connector)), recycling);
    let pool = Pool::builder(manager).max_size(CONNECTIONS).runtime(Runtime::Tokio1);
    pool.wait_timeout(Some(CONNECT_TIMEOUT)).build().map_err(|error| failed(error.into()))
}

async fn once<T>(
    pool: &Pool,
    doing: &'static str,
    may_be_done: &mut bool,
    work: &impl StateWork<T>,
) -> Result<T, Undone> {
    let client = pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) if error.as_db_error().is_some_and(|error| !passing(error.code().code())) => {
            Undone::Failed(StateError::Unreachable { source: error.into() })
        }
        other => Undone::Lost(StateError::Unreachable { source: other.into() }),
    })?;
    let done = tokio::time::timeout(TRANSACTION_TIMEOUT, whole(&client, doing, may_be_done, work)).await;
    let silent = || Undone::Lost(StateError::Database { doing, source: "the state database is silent".into() });
    let done = done.unwrap_or_else(|_| Err(silent()));
    let usable = match &done {
        Ok(_) => true,
        Err(Undone::Failed(_)) => {
            let left = tokio::time::timeout(TRANSACTION_TIMEOUT, client.batch_execute("ROLLBACK")).await;
            left.is_ok_and(|left| left.is_ok())
        }
        Err(Undone::Lost(_)) => false,
    };
    if !usable {
        drop(Object::take(client));
    }
    done
}

async fn whole<T>(
    client: &Client,
    doing: &'static str,
    may_be_done: &mut bool,
    work: &impl StateWork<T>,
) -> Result<T, Undone> {
    let transaction = StateTransaction { client, doing, may_be_done: *may_be_done };
    transaction.batch(if failpoint::off("state_settings") { "BEGIN" } else { BEGIN }).await?;
    let done = work(&transaction).await?;
    *may_be_done = true;
    transaction.batch("COMMIT").await?;
    Ok(done)
}

/// Whether a server that says so will say something else soon: it stops, starts, has become a standby, or has chosen this
/// transaction to end a deadlock.
fn passing(state: &str) -> bool {
    state.starts_with("57P") || state.starts_with("08") || ["25006", "40001", "40P01", "53300"].contains(&state)
}

impl StateTransaction<'_> {
    /// Runs a statement for its rows.
    pub(super) async fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Undone> {
        self.client.query_typed(sql, parameters).await.map_err(|error| self.undone(error))
    }

    /// Runs a statement, and gives the number of rows that it changed, whose `RETURNING` gives one value each.
    pub(super) async fn changed(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<usize, Undone> {
        let counted = format!("{sql} RETURNING 1");
        Ok(self.rows(&counted, parameters).await?.len())
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Undone> {
        self.client.batch_execute(sql).await.map_err(|error| self.undone(error))
    }

    /// A value of a row.
    pub(super) fn value<'a, T: FromSql<'a>>(&self, row: &'a Row, column: usize) -> Result<T, Undone> {
        row.try_get(column)
            .map_err(|error| Undone::Failed(StateError::Database { doing: self.doing, source: error.into() }))
    }

    /// A count, which is never below zero.
    pub(super) fn count(&self, row: &Row, column: usize) -> Result<Option<u64>, Undone> {
        let number: Option<i64> = self.value(row, column)?;
        number.map(u64::try_from).transpose().map_err(|error| self.unreadable(error))
    }

    /// A value that no version of outhaul wrote.
    pub(super) fn unreadable(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Undone {
        Undone::Failed(StateError::Database { doing: self.doing, source: why.into() })
    }

    fn undone(&self, error: tokio_postgres::Error) -> Undone {
        let lost = match error.as_db_error() {
            Some(told) => passing(told.code().code()),
            None => error.is_closed() || self.client.is_closed(),
        };
        let error = StateError::Database { doing: self.doing, source: error.into() };
        if lost { Undone::Lost(error) } else { Undone::Failed(error) }
    }
}
