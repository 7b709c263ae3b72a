//! What every session is set to before it reads: `pg_dump`'s settings, inside the transaction so that poolers keep them.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::closed::closed;
use super::connect::Session;
use crate::base::failpoint;
use crate::source::{SourceError, SourceFault};

/// How long the lock session waits behind somebody's ACCESS EXCLUSIVE before it gives way (exit 16): every later query
/// on the table queues behind us as long.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The server drops a keeper whose host died after this long (`idle_in_transaction_session_timeout`).
const KEEPER_IDLE_TIMEOUT: Duration = Duration::from_mins(10);

/// The server looks so often whether a client whose query runs is still there (`client_connection_check_interval`): a
/// query that sends nothing for hours ends with a process that was stopped or killed.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of every session (`pg_dump.c`, `setup_connection`), plus those that our SQL relies on.
///
/// Parallel
/// workers are off because with them a ctid range became a whole-table scan in each worker. Backslashes in strings mean
/// themselves, or people's SQL could end elsewhere than its check thinks (`plan::predicate`). A `tcp_user_timeout` of the
/// server's would end the connection of a reader that waits for a slow destination.
const SETTINGS: &str = "SET LOCAL DateStyle = ISO; SET LOCAL IntervalStyle = postgres; SET LOCAL TimeZone = 'UTC'; \
    SET LOCAL extra_float_digits = 3; SET LOCAL array_nulls = on; SET LOCAL bytea_output = hex; SET LOCAL synchronize_seqscans = off; \
    SET LOCAL statement_timeout = 0; SET LOCAL max_parallel_workers_per_gather = 0; \
    SET LOCAL jit = off; SET LOCAL tcp_user_timeout = 0; SET LOCAL standard_conforming_strings = on; SET LOCAL client_min_messages = warning";

/// How a session's transaction begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin<'a> {
    /// READ COMMITTED: takes locks, sees the newest catalog.
    Latest,
    /// REPEATABLE READ with a snapshot of its own, taken by the first query.
    NewSnapshot,
    /// REPEATABLE READ under somebody else's exported snapshot.
    Import(&'a str),
}

/// Begins the one transaction of a session and applies the settings.
///
/// `role` ends the `application_name`, for whoever looks into `pg_stat_activity`.
///
/// # Errors
/// An imported snapshot that is gone is [`SourceFault::SnapshotLost`].
pub(crate) async fn begin(session: &Session, begin: Begin<'_>, application: &str) -> Result<(), SourceError> {
    let start = match begin {
        Begin::Latest => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY".to_owned(),
        Begin::NewSnapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        Begin::Import(id) => {
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(id))
        }
    };
    session.set_open();
    let settings = settings(session, application);
    // Both are on their way at once. Where the transaction has not begun the settings do nothing.
    let (started, settled) = tokio::join!(
        session.batch("beginning a transaction", &start),
        // A setting changed before the first query leaves a new snapshot untaken only because SET takes none; the SELECTs
        // at the end take it, so a session that must lock first locks before this is called.
        session.batch_value("setting up a session", &settings),
    );
    if let Err(error) = started {
        // A protocol violation, by a pooler's word for it, and by nothing else that is known.
        if error.code.as_deref() == Some("08P01") && session.refuses_transactions().await {
            return Err(SourceError { fault: SourceFault::Usage, ..error }.with_hint(
                "the pooler in between gives each statement another connection, and an export needs transactions: connect \
                 to the server itself, or by way of a pool_mode of transaction or session",
            ));
        }
        let import = matches!(begin, Begin::Import(_));
        // Of another database: a feature that is not supported.
        if import && error.code.as_deref() == Some("0A000") {
            return Err(SourceError { fault: SourceFault::Usage, ..error }
                .with_hint("--from names another database than the one that the run reads"));
        }
        // 22023: no such snapshot (PostgreSQL 15); 42704: the same from 16 on; 55000: its owner has ended.
        let gone = matches!(error.code.as_deref(), Some("22023" | "42704" | "55000"));
        return Err(if import && gone { SourceError { fault: SourceFault::SnapshotLost, ..error } } else { error });
    }
    session.set_pid(settled?.and_then(|pid| pid.parse().ok()).unwrap_or(0));
    Ok(())
}

/// The settings of a session's transaction, as statements; the last one asks for the server process.
fn settings(session: &Session, application: &str) -> String {
    // Off makes a table whose policies would hide rows an error instead of a short export.
    let row_security = if session.allows_rls() { "on" } else { "off" };
    // A server on Windows cannot see that its client is gone, and refuses the setting.
    let interval = CLIENT_CHECK_INTERVAL.as_millis();
    let questions = closed(&format!(
        "SELECT pg_catalog.set_config('transaction_timeout', '0', true) \
         WHERE pg_catalog.current_setting('server_version_num')::int4 >= 170000; \
         SELECT pg_catalog.set_config('client_connection_check_interval', '{interval}', true) \
         WHERE pg_catalog.version() !~* 'windows|mingw|msvc|visual'; \
         SELECT pg_catalog.pg_backend_pid()",
    ));
    let path = session.search_path().map_or(String::new(), |path| format!("SET LOCAL search_path = {path}; "));
    let style = session.terms().date_style.get();
    let style = style.map_or(String::new(), |style| format!("SET LOCAL DateStyle = {}; ", literal(style)));
    format!(
        "{SETTINGS}; {style}{path}{}SET LOCAL row_security = {row_security}; SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}; \
         SET LOCAL application_name = {}; {questions}",
        session.terms().settings(),
        failpoint::limit("lock", LOCK_TIMEOUT).as_millis(),
        KEEPER_IDLE_TIMEOUT.as_millis(),
        literal(application),
    )
}

/// For the rest of its transaction the server sends text as it is stored. In a `SQL_ASCII` database, where it vouches
/// for nothing, it would otherwise refuse what is not UTF-8, before the policies for such text are asked. Only for rows:
/// names and settings are to be UTF-8.
pub(crate) async fn send_text_as_stored(session: &Session) -> Result<(), SourceError> {
    session.batch("setting the encoding", "SET LOCAL client_encoding = 'SQL_ASCII'").await
}

/// Ends [`send_text_as_stored`].
pub(crate) async fn send_text_as_utf8(session: &Session) -> Result<(), SourceError> {
    session.batch("setting the encoding", "SET LOCAL client_encoding = 'UTF8'").await
}

/// What tells one server from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerIdentity(String);

impl ServerIdentity {
    /// The same, where it is `other` as well.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where it is not.
    pub(super) fn agreed(self, other: &Self) -> Result<Self, SourceError> {
        if self == *other {
            return Ok(self);
        }
        let message = "a new connection reached another server than the run began on";
        Err(SourceError::new(SourceFault::SnapshotLost, message)
            .with_hint("name one server in --from: a balancer or a failover sits behind this address"))
    }
}

/// Asks the session which server it is on.
pub(crate) async fn server_identity(session: &Session) -> Result<ServerIdentity, SourceError> {
    let sql = closed(
        "SELECT pg_catalog.pg_postmaster_start_time() || ' ' || oid \
        FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
    );
    let identity = session.batch_value("asking which server this is", &sql).await?;
    let unknown = || SourceError::new(SourceFault::Protocol, "the database does not know itself");
    identity.map(ServerIdentity).ok_or_else(unknown)
}

/// A string literal.
pub(crate) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// A quoted identifier.
pub(crate) fn identifier(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}
