//! What is to be told and to be removed, how long the queue is, and what of it is forgotten.

use std::time::Duration;

use rusqlite::{Row, Transaction};

use super::super::{JobRecord, OutboxMessage, QueueFigures, StateError};
use super::jobs::{JOB, after, now, several};
use super::records::whole;

const MESSAGE: &str = "id, export_id, target, event, body, attempt";

pub(super) fn tell(
    transaction: &Transaction<'_>,
    messages: &[OutboxMessage],
    now: i64,
    doing: &'static str,
) -> Result<(), StateError> {
    let insert = format!("INSERT INTO outbox ({MESSAGE}, due_at) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6)");
    for OutboxMessage { id, export_id, target, event, body, .. } in messages {
        let values = (id, export_id, target, event, body, now);
        transaction.execute(&insert, values).map_err(StateError::database(doing))?;
    }
    Ok(())
}

pub(super) fn due_messages(
    transaction: &Transaction<'_>,
    targets: &[String],
    most: u32,
    hold: Duration,
) -> Result<Vec<OutboxMessage>, StateError> {
    let now = now();
    let names = serde_json::Value::from(targets.to_vec()).to_string();
    let update = format!(
        "UPDATE outbox SET due_at = ?2
         WHERE number IN (
             SELECT number FROM outbox
             WHERE due_at <= ?1 AND target IN (SELECT value FROM json_each(?4))
             ORDER BY due_at, number LIMIT ?3)
         RETURNING {MESSAGE}"
    );
    let message = |row: &Row<'_>| {
        Ok(OutboxMessage {
            id: row.get(0)?,
            export_id: row.get(1)?,
            target: row.get(2)?,
            event: row.get(3)?,
            body: row.get(4)?,
            attempt: row.get(5)?,
        })
    };
    let read = || {
        transaction
            .prepare(&update)?
            .query_map((now, after(now, hold), most, &names), message)?
            .collect::<Result<Vec<_>, rusqlite::Error>>()
    };
    read().map_err(StateError::database("messages were looked for"))
}

pub(super) fn message_done(transaction: &Transaction<'_>, id: &str) -> Result<(), StateError> {
    let delete = "DELETE FROM outbox WHERE id = ?1";
    transaction.execute(delete, [id]).map_err(StateError::database("a message arrived"))?;
    Ok(())
}

pub(super) fn message_failed(transaction: &Transaction<'_>, id: &str, delay: Duration) -> Result<(), StateError> {
    let update = "UPDATE outbox SET attempt = attempt + 1, due_at = ?2 WHERE id = ?1";
    let values = (id, after(now(), delay));
    transaction.execute(update, values).map_err(StateError::database("a message did not arrive"))?;
    Ok(())
}

pub(super) fn figures(transaction: &Transaction<'_>) -> Result<QueueFigures, StateError> {
    let doing = "the queue was counted";
    let select = "SELECT count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running'),
             count(*) FILTER (WHERE status = 'cancelling'), min(renewed_at) FILTER (WHERE status <> 'queued')
         FROM job WHERE status IN ('queued', 'running', 'cancelling')";
    let read = |row: &Row<'_>| {
        let oldest: Option<i64> = row.get(3)?;
        let age = oldest.map(|at| Duration::from_micros(now().saturating_sub(at).try_into().unwrap_or_default()));
        let number = |column| Ok::<_, rusqlite::Error>(whole(row, column)?.unwrap_or_default());
        Ok(QueueFigures { queued: number(0)?, running: number(1)?, cancelling: number(2)?, oldest_lease: age })
    };
    transaction.query_row(select, [], read).map_err(StateError::database(doing))
}

pub(super) fn overdue(transaction: &Transaction<'_>, most: u32) -> Result<Vec<JobRecord>, StateError> {
    let select = format!(
        "SELECT {JOB} FROM job WHERE status IN ('complete', 'truncated') AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2"
    );
    several(transaction, &select, (now(), most), "expired exports were looked for")
}

pub(super) fn unremoved(transaction: &Transaction<'_>, most: u32) -> Result<Vec<JobRecord>, StateError> {
    let select = format!(
        "SELECT {JOB} FROM job
         WHERE status IN ('failed', 'cancelled', 'expired') AND removed = 0 AND not_before <= ?2
         ORDER BY not_before, completed_at LIMIT ?1"
    );
    several(transaction, &select, (most, now()), "files without an export were looked for")
}

pub(super) fn removal_failed(transaction: &Transaction<'_>, id: &str, delay: Duration) -> Result<(), StateError> {
    let update = "UPDATE job SET not_before = ?2 WHERE id = ?1 AND status IN ('failed', 'cancelled', 'expired')";
    let values = (id, after(now(), delay));
    transaction.execute(update, values).map_err(StateError::database("files were not removed"))?;
    Ok(())
}

pub(super) fn removed(transaction: &Transaction<'_>, id: &str) -> Result<(), StateError> {
    let update = "UPDATE job SET removed = 1 WHERE id = ?1";
    transaction.execute(update, [id]).map_err(StateError::database("files were removed"))?;
    Ok(())
}

/// Forgets jobs that ended long ago and whose files are gone, names whose time is over, and messages that nobody has sent.
pub(super) fn prune(transaction: &Transaction<'_>, ended_before: i64, due_before: i64) -> rusqlite::Result<usize> {
    let jobs =
        "DELETE FROM job WHERE completed_at < ?1 AND removed = 1 AND status IN ('failed', 'cancelled', 'expired')";
    let jobs = transaction.execute(jobs, [ended_before])?;
    let names = transaction.execute("DELETE FROM idempotency WHERE keep_until <= ?1", [now()])?;
    let messages = transaction.execute("DELETE FROM outbox WHERE due_at < ?1", [due_before])?;
    Ok(jobs.saturating_add(names).saturating_add(messages))
}
