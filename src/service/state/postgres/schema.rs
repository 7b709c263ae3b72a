//! The tables, and how a database of an older version becomes one of this version.

use futures_util::FutureExt;

use super::super::StateError;
use super::session::{StateSessions, StateTransaction, Undone, number, text};
use crate::base::failpoint;

/// What makes each version of the one before it. A line that was released never changes, and replicas of the version before
/// go on while it runs.
pub(super) const STEPS: &[&str] = &[include_str!("v1.sql"), include_str!("v2.sql")];

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

async fn bring(transaction: &StateTransaction<'_>, steps: &[&str]) -> Result<(), Undone> {
    if !failpoint::off("schema_lock") {
        transaction.rows("SELECT pg_catalog.pg_advisory_xact_lock($1)::text", &[number(&SCHEMA_LOCK)]).await?;
    }
    let (encoding, tables, ours) = look(transaction).await?;
    if encoding != "UTF8" {
        return Err(StateError::Encoding { encoding }.into());
    }
    if !ours {
        if tables > 0 {
            return Err(StateError::Foreign { place: "the schema outhaul of the state database".to_owned() }.into());
        }
        // Who may not create schemas is given this one, empty.
        let there = transaction.rows("SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'outhaul'", &[]).await?;
        if there.is_empty() {
            transaction.batch("CREATE SCHEMA outhaul").await?;
        }
        let version = "CREATE TABLE outhaul.version (one INTEGER PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL, \
            written_by TEXT NOT NULL); INSERT INTO outhaul.version VALUES (1, 0, '')";
        transaction.batch(version).await?;
    }
    let found = transaction.rows("SELECT version, written_by FROM outhaul.version", &[]).await?;
    let row = found.first().ok_or_else(|| transaction.unreadable("its version is missing"))?;
    let (version, written_by): (i64, String) = (transaction.value(row, 0)?, transaction.value(row, 1)?);
    let done = usize::try_from(version).ok().filter(|done| *done <= steps.len());
    let Some(done) = done else {
        return Err(StateError::TooNew { place: PLACE.to_owned(), written_by, version }.into());
    };
    for step in steps.iter().skip(done) {
        transaction.batch(step).await?;
    }
    let version = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let ours = env!("CARGO_PKG_VERSION");
    let note = "UPDATE outhaul.version SET version = $1, written_by = $2 WHERE (version, written_by) <> ($1, $2)";
    transaction.changed(note, &[number(&version), text(&ours)]).await?;
    Ok(())
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
