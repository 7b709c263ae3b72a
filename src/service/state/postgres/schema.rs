//! The tables, and how a database of an older version becomes one of this version.

use futures_util::FutureExt;

use super::super::StateError;
use super::session::{StateSessions, StateTransaction, Undone, number, text};
use crate::base::failpoint;

/// What makes each version of the one before it. A line that was released never changes, and replicas of the version before
/// go on while it runs.
pub(super) const STEPS: &[&str] =
    &[include_str!("v1.sql"), include_str!("v2.sql"), include_str!("v3.sql"), include_str!("v4.sql")];

/// `Ohau` in ASCII: under this lock one process at a time changes the tables.
const SCHEMA_LOCK: i64 = 0x4f68_6175;

const PLACE: &str = "the state database";

/// Brings the database to this version.
///
/// # Errors
/// A newer outhaul wrote it, the schema `outhaul` is somebody else's, or its texts are not in UTF-8.
pub(super) async fn open(sessions: &StateSessions, steps: &'static [&'static str]) -> Result<(), StateError> {
    let doing = "it was brought to this version";
    sessions.attempt(doing, |transaction| bring(transaction, steps).boxed()).await
}

/// Looks whether a process of this version could open it.
///
/// # Errors
/// As [`open`], or the role lacks a right.
pub(super) async fn probe(sessions: &StateSessions, steps: usize) -> Result<(), StateError> {
    sessions.attempt("it was looked at", move |transaction| looked(transaction, steps).boxed()).await
}

async fn looked(transaction: &StateTransaction<'_>, steps: usize) -> Result<(), Undone> {
    if !ours(transaction).await? {
        let right = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
            WHERE pg_catalog.to_regnamespace('outhaul') IS NULL
            UNION ALL SELECT pg_catalog.has_schema_privilege('outhaul', 'CREATE')
            WHERE pg_catalog.to_regnamespace('outhaul') IS NOT NULL";
        return right_to(transaction, right, "make its tables there").await;
    }
    let rights = "SELECT pg_catalog.bool_and(CASE WHEN pg_catalog.has_schema_privilege('outhaul', 'USAGE')
            THEN pg_catalog.has_table_privilege('outhaul.' || pg_catalog.quote_ident(c.relname), need.name) ELSE false END)
        FROM pg_catalog.pg_class c, (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS need (name)
        WHERE c.relnamespace = pg_catalog.to_regnamespace('outhaul') AND c.relkind = 'r'";
    right_to(transaction, rights, "read and write its tables").await?;
    version(transaction, steps).await.map(drop)
}

async fn right_to(transaction: &StateTransaction<'_>, ask: &str, what: &'static str) -> Result<(), Undone> {
    let rows = transaction.rows(ask, &[]).await?;
    let may: Option<bool> = rows.first().map(|row| transaction.value(row, 0)).transpose()?.flatten();
    if may == Some(true) { Ok(()) } else { Err(StateError::Rights { what }.into()) }
}

async fn bring(transaction: &StateTransaction<'_>, steps: &[&str]) -> Result<(), Undone> {
    if !failpoint::off("schema_lock") {
        transaction.rows("SELECT pg_catalog.pg_advisory_xact_lock($1)::text", &[number(&SCHEMA_LOCK)]).await?;
    }
    if !ours(transaction).await? {
        // Who may not create schemas is given this one, empty.
        let there = transaction.rows("SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'outhaul'", &[]).await?;
        if there.is_empty() {
            transaction.batch("CREATE SCHEMA outhaul").await?;
        }
        let version = "CREATE TABLE outhaul.version (one INTEGER PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL, \
            written_by TEXT NOT NULL); INSERT INTO outhaul.version VALUES (1, 0, '')";
        transaction.batch(version).await?;
    }
    let done = version(transaction, steps.len()).await?;
    for step in steps.iter().skip(done) {
        transaction.batch(step).await?;
    }
    let version = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let ours = env!("CARGO_PKG_VERSION");
    let note = "UPDATE outhaul.version SET version = $1, written_by = $2 WHERE (version, written_by) <> ($1, $2)";
    transaction.changed(note, &[number(&version), text(&ours)]).await?;
    Ok(())
}

/// Whether the tables are there, in a database that can have them.
async fn ours(transaction: &StateTransaction<'_>) -> Result<bool, Undone> {
    let (encoding, tables, ours) = look(transaction).await?;
    if encoding != "UTF8" {
        return Err(StateError::Encoding { encoding }.into());
    }
    if !ours && tables > 0 {
        return Err(StateError::Foreign { place: "the schema outhaul of the state database".to_owned() }.into());
    }
    Ok(ours)
}

/// How many steps have made the tables, where this version knows that many.
async fn version(transaction: &StateTransaction<'_>, steps: usize) -> Result<usize, Undone> {
    let found = transaction.rows("SELECT version, written_by FROM outhaul.version", &[]).await?;
    let row = found.first().ok_or_else(|| transaction.unreadable("its version is missing"))?;
    let (version, written_by): (i64, String) = (transaction.value(row, 0)?, transaction.value(row, 1)?);
    let done = usize::try_from(version).ok().filter(|done| *done <= steps);
    done.ok_or_else(|| StateError::TooNew { place: PLACE.to_owned(), written_by, version }.into())
}

/// The encoding of the database, how many relations are in our schema, and whether one of them says the version.
async fn look(transaction: &StateTransaction<'_>) -> Result<(String, i64, bool), Undone> {
    let ask = "SELECT pg_catalog.current_setting('server_encoding'), pg_catalog.count(c.relname), \
            COALESCE(pg_catalog.bool_or(c.relname = 'version'), false) \
        FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_catalog.to_regnamespace('outhaul')";
    let rows = transaction.rows(ask, &[]).await?;
    let row = rows.first().ok_or_else(|| transaction.unreadable("no answer"))?;
    Ok((transaction.value(row, 0)?, transaction.value(row, 1)?, transaction.value(row, 2)?))
}
