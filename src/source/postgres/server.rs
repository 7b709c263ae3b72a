//! What a server says of itself: its version, and what types and locks depend on.

use serde::{Deserialize, Serialize};

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use super::outer_settings::outer_settings;
use super::session::identifier;
use crate::model::{SourceIdentity, WorkOptions};
use crate::source::postgres::plan::ServerTypes;
use crate::source::postgres::plan::locks::LockTable;
use crate::source::setting_digests::SettingDigests;
use crate::source::which::identity;
use crate::source::{SourceError, SourceFault};

/// Facts of the server for the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// `server_version`, for example `18.6`.
    pub version: String,
    /// `server_version_num`, for example 180006.
    pub version_num: i32,
    /// Whether it is a hot standby.
    pub standby: bool,
    /// What types depend on.
    pub types: ServerTypes,
    /// Locks that its lock table is made for.
    #[serde(default)]
    pub lock_entries: u64,
    /// The database's number and its name.
    #[serde(default)]
    pub database: Option<(u32, String)>,
    /// `system_identifier` of the cluster, which its standbys have too; `None` where the role may not know it.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// Whether the role may be told it.
    #[serde(skip)]
    pub may_identify: bool,
}

impl ServerFacts {
    /// Its lock table.
    pub fn lock_table(&self) -> LockTable {
        LockTable { entries: self.lock_entries }
    }

    /// Which database it is, for the manifest of a run.
    pub(super) fn identity(&self, run_id: &str) -> Option<SourceIdentity> {
        let (number, name) = self.database.as_ref()?;
        Some(identity(run_id, &format!("{number} {name}"), &self.system_identifier))
    }
}

/// Who a session is, and where it looks for names without a schema.
#[derive(Debug, Clone)]
pub(super) struct SessionFacts {
    /// The role (`current_user`).
    pub(super) role: String,
    /// The schemas of the search path that exist, in SQL.
    pub(super) search_path: String,
    /// `DateStyle`: in which order a text's day and month stand.
    pub(super) date_style: String,
    /// What was set for it from outside.
    pub(super) settings: SettingDigests,
}

/// Asks for all of them in one statement.
pub(super) async fn facts(session: &Session) -> Result<(ServerFacts, SessionFacts), SourceError> {
    // One unit of money as it is stored: 10 to the power of its digits after the point.
    let sql = closed(
        "SELECT pg_catalog.current_setting('server_version'), \
        pg_catalog.current_setting('server_version_num')::int4, pg_catalog.pg_is_in_recovery(), \
        pg_catalog.current_setting('server_encoding') = 'SQL_ASCII', \
        pg_catalog.cash_send(1::int4::money), \
        pg_catalog.current_setting('max_locks_per_transaction')::int8 * (pg_catalog.current_setting('max_connections')::int8 \
            + pg_catalog.current_setting('max_prepared_transactions')::int8), \
        pg_catalog.current_schemas(false)::text[], current_user::text, pg_catalog.current_setting('DateStyle'), \
        (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()), \
        pg_catalog.current_database()::text, \
        COALESCE(pg_catalog.has_function_privilege(pg_catalog.to_regprocedure('pg_catalog.pg_control_system()'), 'EXECUTE'), \
            false)",
    );
    let (rows, settings) =
        tokio::join!(query(session, "asking the server's version", &sql, &[]), outer_settings(session));
    let rows = rows?;
    let row = rows.first().ok_or_else(|| SourceError::new(SourceFault::Protocol, "the server has no version"))?;
    let unit: &[u8] = value(row, 4)?;
    let unit = unit.try_into().map_or(1, i64::from_be_bytes);
    let version_num: i32 = value(row, 1)?;
    let types = ServerTypes {
        infinite_intervals: version_num >= 170_000,
        sql_ascii: value(row, 3)?,
        money_scale: u8::try_from(unit.max(1).ilog10()).unwrap_or_default(),
    };
    let lock_entries = u64::try_from(value::<i64>(row, 5)?).unwrap_or(0);
    let facts = ServerFacts {
        version: value(row, 0)?,
        version_num,
        standby: value(row, 2)?,
        types,
        lock_entries,
        database: Some((value(row, 9)?, value(row, 10)?)),
        system_identifier: None,
        may_identify: value(row, 11)?,
    };
    if facts.version_num < 140_000 {
        let message = format!("PostgreSQL {} is too old: 14 is the oldest that is supported", facts.version);
        return Err(SourceError::new(SourceFault::Usage, message));
    }
    let schemas: Vec<String> = value(row, 6)?;
    let search_path = match schemas.as_slice() {
        [] => "''".to_owned(),
        schemas => schemas.iter().map(|schema| identifier(schema)).collect::<Vec<_>>().join(", "),
    };
    let (role, date_style, settings) = (value(row, 7)?, value(row, 8)?, settings?);
    Ok((facts, SessionFacts { role, search_path, date_style, settings }))
}

/// Asks which cluster it is, where that is to be told. The transaction must stand, and nothing else may be on its way in it: a
/// server that is only like PostgreSQL may refuse, and nobody else's question is to fail with this one.
///
/// # Errors
/// The session is lost.
///
/// # Cancel safety
/// Dropped, it leaves the session in a subtransaction.
pub(super) async fn identify(
    session: &Session,
    server: &mut ServerFacts,
    work: &WorkOptions,
) -> Result<(), SourceError> {
    const ACTION: &str = "asking which cluster this is";
    // What is served has no manifest.
    if !server.may_identify || work.served.is_some() {
        return Ok(());
    }
    let asked = closed("SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() s");
    let sql = format!("SAVEPOINT outhaul_which; {asked}; RELEASE SAVEPOINT outhaul_which");
    match session.batch_value(ACTION, &sql).await {
        Ok(identifier) => server.system_identifier = identifier,
        Err(_) => session.batch(ACTION, "ROLLBACK TO SAVEPOINT outhaul_which").await?,
    }
    Ok(())
}
