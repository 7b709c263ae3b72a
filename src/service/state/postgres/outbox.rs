//! What is to be told and to be removed, and how long the queue is.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::{Expiry, JobRecord, OutboxMessage, QueueFigures};
use super::jobs::{JOB, first, several, span};
use super::records::{NOW, given, kept};
use super::session::{StateTransaction, Undone, number, text};

const MESSAGE: &str = "id, export_id, target, event, body, attempt";

pub(super) async fn tell(transaction: &StateTransaction<'_>, messages: &[OutboxMessage]) -> Result<(), Undone> {
    let insert = format!("INSERT INTO outhaul.outbox ({MESSAGE}, due_at) VALUES ($1, $2, $3, $4, $5, 0, {NOW})");
    for message in messages {
        let [id, export_id, target, event, body] =
            [&message.id, &message.export_id, &message.target, &message.event, &message.body].map(|text| kept(text));
        let values = [text(&id), text(&export_id), text(&target), text(&event), text(&body)];
        transaction.changed(&insert, &values).await?;
    }
    Ok(())
}

pub(super) async fn due_messages(
    transaction: &StateTransaction<'_>,
    targets: &[String],
    most: u32,
    hold: Duration,
) -> Result<Vec<OutboxMessage>, Undone> {
    let update = format!(
        "WITH due AS (
             UPDATE outhaul.outbox SET due_at = {NOW} + $1
             WHERE number IN (
                 SELECT number FROM outhaul.outbox
                 WHERE due_at <= {NOW} AND target IN (SELECT pg_catalog.json_array_elements_text($3::text::json))
                 ORDER BY due_at, number LIMIT $2
                 FOR UPDATE SKIP LOCKED)
             RETURNING number, {MESSAGE})
         SELECT {MESSAGE} FROM due ORDER BY number"
    );
    let (hold, most) = (span(hold), i64::from(most));
    let names = serde_json::Value::from(targets.to_vec()).to_string();
    let values = [number(&hold), number(&most), text(&names)];
    let rows = transaction.rows(&update, &values).await?;
    let message = |row: &Row| {
        let words = |column| transaction.value::<String>(row, column).map(|text| given(&text));
        let tries = transaction.count(row, 5)?.unwrap_or_default();
        Ok(OutboxMessage {
            id: words(0)?,
            export_id: words(1)?,
            target: words(2)?,
            event: words(3)?,
            body: words(4)?,
            attempt: u32::try_from(tries).map_err(|error| transaction.unreadable(error))?,
        })
    };
    rows.iter().map(message).collect()
}

pub(super) async fn message_done(transaction: &StateTransaction<'_>, id: &str) -> Result<(), Undone> {
    let id = kept(id);
    transaction.changed("DELETE FROM outhaul.outbox WHERE id = $1", &[text(&id)]).await?;
    Ok(())
}

pub(super) async fn message_failed(
    transaction: &StateTransaction<'_>,
    id: &str,
    delay: Duration,
) -> Result<(), Undone> {
    let update = format!("UPDATE outhaul.outbox SET attempt = attempt + 1, due_at = {NOW} + $2 WHERE id = $1");
    let (id, delay) = (kept(id), span(delay));
    transaction.changed(&update, &[text(&id), number(&delay)]).await?;
    Ok(())
}

pub(super) async fn expire(
    transaction: &StateTransaction<'_>,
    id: &str,
    messages: &[OutboxMessage],
) -> Result<Option<JobRecord>, Undone> {
    let update = format!(
        "UPDATE outhaul.job SET status = 'expired', revocation = revocation + 1, expires_at = LEAST(expires_at, {NOW}),
             version = version + 1
         WHERE id = $1 AND status IN ('complete', 'truncated') RETURNING {JOB}"
    );
    let id = kept(id);
    let expired = first(transaction, &update, &[text(&id)]).await?;
    if expired.is_some() {
        tell(transaction, messages).await?;
    }
    Ok(expired)
}

pub(super) async fn overdue(transaction: &StateTransaction<'_>, most: u32) -> Result<Vec<JobRecord>, Undone> {
    let rest = format!("status IN ('complete', 'truncated') AND expires_at <= {NOW} ORDER BY expires_at LIMIT $1");
    several(transaction, &rest, &[number(&i64::from(most))]).await
}

pub(super) async fn unremoved(transaction: &StateTransaction<'_>, most: u32) -> Result<Vec<JobRecord>, Undone> {
    let rest = format!(
        "status IN ('failed', 'cancelled', 'expired') AND NOT removed AND not_before <= {NOW}
         ORDER BY not_before, completed_at LIMIT $1"
    );
    several(transaction, &rest, &[number(&i64::from(most))]).await
}

pub(super) async fn removal_failed(
    transaction: &StateTransaction<'_>,
    id: &str,
    delay: Duration,
) -> Result<(), Undone> {
    let (id, delay) = (kept(id), span(delay));
    let update = format!(
        "UPDATE outhaul.job SET not_before = {NOW} + $2 WHERE id = $1 AND status IN ('failed', 'cancelled', 'expired')"
    );
    transaction.changed(&update, &[text(&id), number(&delay)]).await?;
    Ok(())
}

pub(super) async fn removed(transaction: &StateTransaction<'_>, id: &str) -> Result<(), Undone> {
    let id = kept(id);
    transaction.changed("UPDATE outhaul.job SET removed = true WHERE id = $1", &[text(&id)]).await?;
    Ok(())
}

pub(super) async fn figures(transaction: &StateTransaction<'_>) -> Result<QueueFigures, Undone> {
    let select = format!(
        "SELECT count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running'),
             count(*) FILTER (WHERE status = 'cancelling'),
             max(GREATEST({NOW} - renewed_at, 0)) FILTER (WHERE status <> 'queued')
         FROM outhaul.job WHERE status IN ('queued', 'running', 'cancelling')"
    );
    let rows = transaction.rows(&select, &[]).await?;
    let row = rows.first().ok_or_else(|| transaction.unreadable("no answer"))?;
    let count = |column| transaction.count(row, column).map(Option::unwrap_or_default);
    Ok(QueueFigures {
        queued: count(0)?,
        running: count(1)?,
        cancelling: count(2)?,
        oldest_lease: transaction.count(row, 3)?.map(Duration::from_micros),
    })
}

/// Forgets jobs that ended long ago and whose files are gone, names whose time is over, and messages that nobody has sent.
pub(super) async fn prune(transaction: &StateTransaction<'_>, expiry: Expiry) -> Result<usize, Undone> {
    let (ended, due) = (span(expiry.exports), span(expiry.messages));
    let jobs = format!(
        "DELETE FROM outhaul.job
         WHERE completed_at < {NOW} - $1 AND removed AND status IN ('failed', 'cancelled', 'expired')"
    );
    let jobs = transaction.changed(&jobs, &[number(&ended)]).await?;
    let names = format!("DELETE FROM outhaul.idempotency WHERE keep_until <= {NOW}");
    let names = transaction.changed(&names, &[]).await?;
    let messages = format!("DELETE FROM outhaul.outbox WHERE due_at < {NOW} - $1");
    let messages = transaction.changed(&messages, &[number(&due)]).await?;
    Ok(jobs.saturating_add(names).saturating_add(messages))
}
