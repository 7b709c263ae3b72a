//! The tables, and how a file of an older version becomes one of this version.

use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::super::{ExportStatus, INTERRUPTED, INTERRUPTED_MESSAGE, StateError};
use super::jobs::after;
use super::records;
use crate::base::failpoint;

/// `Ohau` in ASCII: the file says whose it is.
const APPLICATION_ID: i64 = 0x4f68_6175;

/// For a backup that reads the file; nobody else writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// No job waits longer for its next attempt, or for the next try to remove its files.
const JOB_WAIT_MAX: Duration = Duration::from_mins(5);

/// No message waits longer for its next try.
const MESSAGE_WAIT_MAX: Duration = Duration::from_hours(24);

/// What makes each version of the one before it. A line that was released never changes.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("v1.sql"), include_str!("v2.sql"), include_str!("v3.sql"), include_str!("v4.sql")];

/// Opens a file that this process has locked, brings it to this version, and ends what its last process left open; gives the
/// moment of the newest record before that.
pub(super) fn open(path: &Path) -> Result<(Connection, Option<i64>), StateError> {
    let mut connection = connect(path)?;
    migrate(&mut connection, path, MIGRATIONS)?;
    let newest = records::newest(&connection)?;
    super::in_transaction(&mut connection, "the exports of the last process were ended", |transaction| {
        let open = "UPDATE export SET status = ?1, error_code = ?2, error_message = ?3, finished_at = ?4
                    WHERE status = ?5";
        let (failed, streaming) = (ExportStatus::Failed.name(), ExportStatus::Streaming.name());
        let now = records::micros(Utc::now());
        let values = (failed, INTERRUPTED, INTERRUPTED_MESSAGE, now, streaming);
        let left = || {
            transaction.execute(open, values)?;
            // Whoever had a lease has gone with the lock of the file, whatever the clock says.
            let leases = "UPDATE job SET lease_until = 0 WHERE status IN ('running', 'cancelling')";
            transaction.execute(leases, [])?;
            // The clock may have gone back: nothing waits longer than it would have by a clock that goes on.
            let jobs = "UPDATE job SET not_before = ?1 WHERE not_before > ?1";
            transaction.execute(jobs, [after(now, JOB_WAIT_MAX)])?;
            let messages = "UPDATE outbox SET due_at = ?1 WHERE due_at > ?1";
            transaction.execute(messages, [after(now, MESSAGE_WAIT_MAX)])
        };
        left().map_err(StateError::database("the exports of the last process were ended"))
    })?;
    Ok((connection, newest))
}

fn place(path: &Path) -> String {
    format!("the state file {}", path.display())
}

fn connect(path: &Path) -> Result<Connection, StateError> {
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StateError::Foreign { place: place(path) },
        _ => StateError::database("it was opened")(error),
    };
    // A path is a path, and never a URI with options.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(failpoint::limit("state_busy", BUSY_TIMEOUT)).map_err(failed)?;
    // The first statement that reads the file.
    let ours = pragma(&connection, "application_id").map_err(failed)? == APPLICATION_ID;
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).map_err(failed)?;
    if !ours && tables > 0 {
        return Err(StateError::Foreign { place: place(path) });
    }
    // What was answered must outlive a power cut: a receipt that was seen is there again.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    Ok(connection)
}

/// Does what the file lacks, each version whole or not at all.
pub(super) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StateError> {
    let doing = "it was brought to this version";
    let version = pragma(connection, "user_version").map_err(StateError::database(doing))?;
    let done = usize::try_from(version).ok().filter(|done| *done <= migrations.len());
    let Some(done) = done else {
        let asked = connection.query_row("SELECT outhaul FROM written_by", [], |row| row.get(0));
        let written_by = asked.unwrap_or_else(|_| "of a later version".to_owned());
        return Err(StateError::TooNew { place: place(path), written_by, version });
    };
    for (version, migration) in (1_i64..).zip(migrations).skip(done) {
        let step = |connection: &mut Connection| {
            let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", version)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.commit()
        };
        step(connection).map_err(StateError::database(doing))?;
    }
    let note = "INSERT INTO written_by (one, outhaul) VALUES (1, ?1)
                ON CONFLICT (one) DO UPDATE SET outhaul = excluded.outhaul";
    connection.execute(note, [env!("CARGO_PKG_VERSION")]).map_err(StateError::database(doing))?;
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
