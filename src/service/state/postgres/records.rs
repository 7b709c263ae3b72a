//! Records as rows.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::super::{
    AuditRecord, Expiry, ExportEnd, ExportRecord, ExportStatus, INTERRUPTED, INTERRUPTED_MESSAGE, RecordedError,
    SIGNING_KEY_BYTES, StateError,
};
use super::jobs::span;
use super::outbox;
use super::session::{Parameter, StateTransaction, Undone, number, text};
use crate::base::failpoint;

const SIGNING_KEY: &str = "signing_key";

/// The moment of the database's clock: those of replicas differ.
pub(super) const NOW: &str = "(EXTRACT(epoch FROM pg_catalog.statement_timestamp()) * 1000000)::bigint";

const EXPORT: &str = "id, tenant, caller, dataset, kind, format, started_at, finished_at, status, row_count, max_rows,
    truncated, crc64nvme, bytes, error_code, error_message, notes";

const AUDIT: &str =
    "at, request_id, tenant, caller, credential, action, dataset, export_id, outcome, row_count, client, statement";

/// A text as PostgreSQL can hold it: without the zero character.
pub(super) fn kept(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\0', "\\0")
}

/// The text that was kept.
pub(super) fn given(kept: &str) -> String {
    let mut text = String::with_capacity(kept.len());
    let mut characters = kept.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => characters.next().map_or('\\', |escaped| if escaped == '0' { '\0' } else { escaped }),
            other => other,
        });
    }
    text
}

/// The columns of an end.
struct EndColumns {
    status: &'static str,
    rows: Option<i64>,
    max_rows: Option<i64>,
    truncated: bool,
    crc64nvme: Option<String>,
    bytes: Option<i64>,
    code: Option<String>,
    message: Option<String>,
    notes: String,
}

impl EndColumns {
    fn of(transaction: &StateTransaction<'_>, end: &ExportEnd) -> Result<Self, Undone> {
        let count =
            |count: Option<u64>| count.map(i64::try_from).transpose().map_err(|error| transaction.unreadable(error));
        let notes = serde_json::to_string(&end.notes).map_err(|error| transaction.unreadable(error))?;
        Ok(Self {
            status: end.status.name(),
            rows: count(end.rows)?,
            max_rows: count(end.max_rows)?,
            truncated: end.truncated,
            crc64nvme: end.crc64nvme.clone(),
            bytes: count(end.bytes)?,
            code: end.error.as_ref().map(|error| kept(&error.code)),
            message: end.error.as_ref().map(|error| kept(&error.message)),
            notes,
        })
    }

    fn parameters(&self) -> [Parameter<'_>; 9] {
        [
            text(&self.status),
            number(&self.rows),
            number(&self.max_rows),
            (&self.truncated, Type::BOOL),
            text(&self.crc64nvme),
            number(&self.bytes),
            text(&self.code),
            text(&self.message),
            text(&self.notes),
        ]
    }
}

/// Begins an export that this process streams.
pub(super) async fn begin(
    transaction: &StateTransaction<'_>,
    instance: &str,
    record: &ExportRecord,
) -> Result<(), Undone> {
    let end = EndColumns::of(transaction, &record.end)?;
    let insert = format!(
        "INSERT INTO outhaul.export (status, row_count, max_rows, truncated, crc64nvme, bytes, error_code, error_message,
            notes, id, instance, tenant, caller, dataset, kind, format, finished_at, started_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, {NOW})
         ON CONFLICT (id) DO NOTHING"
    );
    let (tenant, user, dataset) = (kept(&record.tenant), record.user.as_deref().map(kept), kept(&record.dataset));
    let finished = record.finished_at.map(micros);
    let mut parameters = end.parameters().to_vec();
    parameters.extend([
        text(&record.id),
        text(&instance),
        text(&tenant),
        text(&user),
        text(&dataset),
        text(&record.kind),
        text(&record.format),
        number(&finished),
    ]);
    if transaction.changed(&insert, &parameters).await? == 1 {
        return Ok(());
    }
    // The answer to the first try may be what was lost.
    let found = export(transaction, &record.id, &record.tenant).await?;
    let same = |found: ExportRecord| ExportRecord { started_at: record.started_at, ..found } == *record;
    let ours = transaction.may_be_done && found.is_some_and(same);
    if ours { Ok(()) } else { Err(StateError::Taken { id: record.id.clone() }.into()) }
}

/// Gives whether this is the end of the export: it had none, or only the one that others gave it when they had not heard of
/// its process for too long, which it says itself to be wrong.
pub(super) async fn finish(
    transaction: &StateTransaction<'_>,
    instance: &str,
    id: &str,
    end: &ExportEnd,
) -> Result<bool, Undone> {
    let columns = EndColumns::of(transaction, end)?;
    let update = format!(
        "UPDATE outhaul.export
         SET status = $1, row_count = $2, max_rows = $3, truncated = $4, crc64nvme = $5, bytes = $6, error_code = $7,
             error_message = $8, notes = $9, finished_at = {NOW}
         WHERE id = $10 AND (status = $11
             OR instance = $12 AND status = $13 AND error_code = $14 AND error_message = $15)"
    );
    let (streaming, failed) = (ExportStatus::Streaming.name(), ExportStatus::Failed.name());
    let mut parameters = columns.parameters().to_vec();
    parameters.extend([text(&id), text(&streaming), text(&instance), text(&failed)]);
    parameters.extend([text(&INTERRUPTED), text(&INTERRUPTED_MESSAGE)]);
    if transaction.changed(&update, &parameters).await? == 1 {
        return Ok(true);
    }
    if !transaction.may_be_done {
        return Ok(false);
    }
    let select = format!("SELECT {EXPORT} FROM outhaul.export WHERE id = $1");
    let rows = transaction.rows(&select, &[text(&id)]).await?;
    let found = rows.first().map(|row| export_of(transaction, row)).transpose()?;
    Ok(found.is_some_and(|found| found.end == *end))
}

pub(super) async fn export(
    transaction: &StateTransaction<'_>,
    id: &str,
    tenant: &str,
) -> Result<Option<ExportRecord>, Undone> {
    // No id of ours has a zero character, and none can be asked for.
    if id.contains('\0') {
        return Ok(None);
    }
    let select = format!("SELECT {EXPORT} FROM outhaul.export WHERE id = $1 AND tenant = $2");
    let tenant = kept(tenant);
    let rows = transaction.rows(&select, &[text(&id), text(&tenant)]).await?;
    rows.first().map(|row| export_of(transaction, row)).transpose()
}

fn export_of(transaction: &StateTransaction<'_>, row: &Row) -> Result<ExportRecord, Undone> {
    let words = |column| transaction.value::<String>(row, column).map(|text| given(&text));
    let maybe = |column| transaction.value::<Option<String>>(row, column).map(|text| text.as_deref().map(given));
    let status: String = transaction.value(row, 8)?;
    let known = ExportStatus::ALL.into_iter().find(|known| known.name() == status);
    let notes: String = transaction.value(row, 16)?;
    Ok(ExportRecord {
        id: transaction.value(row, 0)?,
        tenant: words(1)?,
        user: maybe(2)?,
        dataset: words(3)?,
        kind: transaction.value(row, 4)?,
        format: transaction.value(row, 5)?,
        started_at: moment(transaction, row, 6)?.ok_or_else(|| transaction.unreadable("a moment is missing"))?,
        finished_at: moment(transaction, row, 7)?,
        end: ExportEnd {
            status: known.ok_or_else(|| transaction.unreadable("an unknown status"))?,
            rows: transaction.count(row, 9)?,
            max_rows: transaction.count(row, 10)?,
            truncated: transaction.value(row, 11)?,
            crc64nvme: transaction.value(row, 12)?,
            bytes: transaction.count(row, 13)?,
            error: maybe(14)?.zip(maybe(15)?).map(|(code, message)| RecordedError { code, message }),
            notes: serde_json::from_str(&notes).map_err(|error| transaction.unreadable(error))?,
        },
    })
}

/// Adds to the audit; `entry` is its own name, so that a second try adds nothing.
pub(super) async fn audit(transaction: &StateTransaction<'_>, entry: &str, record: &AuditRecord) -> Result<(), Undone> {
    let insert = format!(
        "INSERT INTO outhaul.audit (entry, {AUDIT}) VALUES ($1, {NOW}, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (entry) DO NOTHING"
    );
    let rows = record.rows.map(i64::try_from).transpose().map_err(|error| transaction.unreadable(error))?;
    let texts =
        [&record.request_id, &record.tenant, &record.credential, &record.action, &record.dataset, &record.outcome];
    let [request_id, tenant, credential, action, dataset, outcome] = texts.map(|text| kept(text));
    let [user, export_id, client, statement] =
        [&record.user, &record.export_id, &record.client, &record.statement].map(|text| text.as_deref().map(kept));
    let parameters = [
        text(&entry),
        text(&request_id),
        text(&tenant),
        text(&user),
        text(&credential),
        text(&action),
        text(&dataset),
        text(&export_id),
        text(&outcome),
        number(&rows),
        text(&client),
        text(&statement),
    ];
    transaction.changed(&insert, &parameters).await?;
    Ok(())
}

pub(super) async fn audits(
    transaction: &StateTransaction<'_>,
    tenant: &str,
    most: u32,
) -> Result<Vec<AuditRecord>, Undone> {
    let select = format!("SELECT {AUDIT} FROM outhaul.audit WHERE tenant = $1 ORDER BY number DESC LIMIT $2");
    let (tenant, most) = (kept(tenant), i64::from(most));
    let rows = transaction.rows(&select, &[text(&tenant), number(&most)]).await?;
    let record = |row: &Row| {
        let words = |column| transaction.value::<String>(row, column).map(|text| given(&text));
        let maybe = |column| transaction.value::<Option<String>>(row, column).map(|text| text.as_deref().map(given));
        Ok(AuditRecord {
            at: moment(transaction, row, 0)?.ok_or_else(|| transaction.unreadable("a moment is missing"))?,
            request_id: words(1)?,
            tenant: words(2)?,
            user: maybe(3)?,
            credential: words(4)?,
            action: words(5)?,
            dataset: words(6)?,
            export_id: maybe(7)?,
            outcome: words(8)?,
            rows: transaction.count(row, 9)?,
            client: maybe(10)?,
            statement: maybe(11)?,
        })
    };
    rows.iter().map(record).collect()
}

pub(super) async fn signing_key(
    transaction: &StateTransaction<'_>,
    made: [u8; SIGNING_KEY_BYTES],
) -> Result<[u8; SIGNING_KEY_BYTES], Undone> {
    let insert = "INSERT INTO outhaul.secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    let made = made.as_slice();
    transaction.changed(insert, &[text(&SIGNING_KEY), (&made, Type::BYTEA)]).await?;
    // A statement of its own sees what another process was faster with.
    let rows = transaction.rows("SELECT value FROM outhaul.secret WHERE name = $1", &[text(&SIGNING_KEY)]).await?;
    let row = rows.first().ok_or_else(|| transaction.unreadable("the key is missing"))?;
    let key: Vec<u8> = transaction.value(row, 0)?;
    key.try_into().map_err(|_| transaction.unreadable("the key has another length"))
}

pub(super) async fn prune(transaction: &StateTransaction<'_>, expiry: Expiry) -> Result<u64, Undone> {
    let (exports, audits) = (span(expiry.exports), span(expiry.audits));
    // NULL is before nothing.
    let delete = format!("DELETE FROM outhaul.export WHERE finished_at < {NOW} - $1");
    let exports = transaction.changed(&delete, &[number(&exports)]).await?;
    let delete = format!("DELETE FROM outhaul.audit WHERE at < {NOW} - $1");
    let audits = transaction.changed(&delete, &[number(&audits)]).await?;
    let jobs = outbox::prune(transaction, expiry).await?;
    Ok(u64::try_from(exports.saturating_add(audits).saturating_add(jobs)).unwrap_or(u64::MAX))
}

/// Says that this process lives, and ends what processes that do not say so any more have left streaming.
pub(super) async fn renew(transaction: &StateTransaction<'_>, instance: &str, lease: i64) -> Result<usize, Undone> {
    let renew = format!(
        "INSERT INTO outhaul.instance (id, lease_until) VALUES ($1, {NOW} + $2)
         ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until"
    );
    transaction.changed(&renew, &[text(&instance), number(&lease)]).await?;
    if failpoint::off("instance_lease") {
        return Ok(0);
    }
    let close = format!(
        "UPDATE outhaul.export e SET status = $1, error_code = $2, error_message = $3, finished_at = {NOW}
         WHERE e.status = $4 AND NOT EXISTS (
             SELECT FROM outhaul.instance i WHERE i.id = e.instance AND i.lease_until > {NOW})"
    );
    let (failed, streaming) = (ExportStatus::Failed.name(), ExportStatus::Streaming.name());
    let parameters = [text(&failed), text(&INTERRUPTED), text(&INTERRUPTED_MESSAGE), text(&streaming)];
    let closed = transaction.changed(&close, &parameters).await?;
    // Whose streams have all ended is forgotten.
    let forget = format!(
        "DELETE FROM outhaul.instance i WHERE i.lease_until < {NOW} AND NOT EXISTS (
             SELECT FROM outhaul.export e WHERE e.instance = i.id AND e.status = $1)"
    );
    transaction.changed(&forget, &[text(&streaming)]).await?;
    Ok(closed)
}

pub(super) fn micros(moment: DateTime<Utc>) -> i64 {
    moment.timestamp_micros()
}

pub(super) fn moment(
    transaction: &StateTransaction<'_>,
    row: &Row,
    column: usize,
) -> Result<Option<DateTime<Utc>>, Undone> {
    let Some(micros) = transaction.value::<Option<i64>>(row, column)? else { return Ok(None) };
    let moment = DateTime::from_timestamp_micros(micros);
    moment.map(Some).ok_or_else(|| transaction.unreadable("a moment out of range"))
}
