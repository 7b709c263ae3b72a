//! Records as rows.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction};

use super::super::{
    AuditRecord, Expiry, ExportEnd, ExportRecord, ExportStatus, RecordedError, SIGNING_KEY_BYTES, StateError,
};
use super::jobs::{after, now};

const SIGNING_KEY: &str = "signing_key";

const EXPORT: &str = "id, tenant, caller, dataset, kind, format, started_at, finished_at, status, row_count, max_rows,
    truncated, crc64nvme, bytes, error_code, error_message, notes";

const AUDIT: &str =
    "at, request_id, tenant, caller, credential, action, dataset, export_id, outcome, row_count, client, statement";

pub(super) fn begin(transaction: &Transaction<'_>, record: &ExportRecord) -> Result<(), StateError> {
    let doing = "an export began";
    let end = &record.end;
    let (code, message) = error_columns(end);
    let insert = format!(
        "INSERT INTO export ({EXPORT})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
    );
    let values = rusqlite::params![
        record.id,
        record.tenant,
        record.user,
        record.dataset,
        record.kind,
        record.format,
        now(),
        record.finished_at.map(micros),
        end.status.name(),
        count(end.rows, doing)?,
        count(end.max_rows, doing)?,
        end.truncated,
        end.crc64nvme,
        count(end.bytes, doing)?,
        code,
        message,
        notes(end, doing)?,
    ];
    match transaction.execute(&insert, values) {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(StateError::Taken { id: record.id.clone() })
        }
        Err(error) => Err(StateError::database(doing)(error)),
    }
}

/// Gives whether the export had not ended before.
pub(super) fn finish(transaction: &Transaction<'_>, id: &str, end: &ExportEnd) -> Result<bool, StateError> {
    let doing = "an export ended";
    let (code, message) = error_columns(end);
    let update = "UPDATE export
         SET finished_at = ?3, status = ?4, row_count = ?5, max_rows = ?6, truncated = ?7, crc64nvme = ?8, bytes = ?9,
             error_code = ?10, error_message = ?11, notes = ?12
         WHERE id = ?1 AND status = ?2";
    let values = rusqlite::params![
        id,
        ExportStatus::Streaming.name(),
        now(),
        end.status.name(),
        count(end.rows, doing)?,
        count(end.max_rows, doing)?,
        end.truncated,
        end.crc64nvme,
        count(end.bytes, doing)?,
        code,
        message,
        notes(end, doing)?,
    ];
    Ok(transaction.execute(update, values).map_err(StateError::database(doing))? == 1)
}

pub(super) fn export(
    transaction: &Transaction<'_>,
    id: &str,
    tenant: &str,
) -> Result<Option<ExportRecord>, StateError> {
    let select = format!("SELECT {EXPORT} FROM export WHERE id = ?1 AND tenant = ?2");
    let found = transaction.query_row(&select, (id, tenant), export_of).optional();
    found.map_err(StateError::database("an export was looked up"))
}

fn export_of(row: &Row<'_>) -> rusqlite::Result<ExportRecord> {
    let status: String = row.get(8)?;
    let known = ExportStatus::ALL.into_iter().find(|known| known.name() == status);
    let code: Option<String> = row.get(14)?;
    let message: Option<String> = row.get(15)?;
    let notes: String = row.get(16)?;
    Ok(ExportRecord {
        id: row.get(0)?,
        tenant: row.get(1)?,
        user: row.get(2)?,
        dataset: row.get(3)?,
        kind: row.get(4)?,
        format: row.get(5)?,
        started_at: moment(row, 6)?.ok_or_else(|| unreadable(6, Type::Null, "a moment is missing"))?,
        finished_at: moment(row, 7)?,
        end: ExportEnd {
            status: known.ok_or_else(|| unreadable(8, Type::Text, "an unknown status"))?,
            rows: whole(row, 9)?,
            max_rows: whole(row, 10)?,
            truncated: row.get(11)?,
            crc64nvme: row.get(12)?,
            bytes: whole(row, 13)?,
            error: code.zip(message).map(|(code, message)| RecordedError { code, message }),
            notes: serde_json::from_str(&notes).map_err(|error| unreadable(16, Type::Text, error))?,
        },
    })
}

pub(super) fn audit(transaction: &Transaction<'_>, record: &AuditRecord) -> Result<(), StateError> {
    let doing = "an audit record was added";
    let insert = format!("INSERT INTO audit ({AUDIT}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
    let values = rusqlite::params![
        now(),
        record.request_id,
        record.tenant,
        record.user,
        record.credential,
        record.action,
        record.dataset,
        record.export_id,
        record.outcome,
        count(record.rows, doing)?,
        record.client,
        record.statement,
    ];
    transaction.execute(&insert, values).map_err(StateError::database(doing))?;
    Ok(())
}

pub(super) fn audits(transaction: &Transaction<'_>, tenant: &str, most: u32) -> Result<Vec<AuditRecord>, StateError> {
    let select = format!("SELECT {AUDIT} FROM audit WHERE tenant = ?1 ORDER BY number DESC LIMIT ?2");
    let read = || {
        let mut statement = transaction.prepare(&select)?;
        let rows = statement.query_map((tenant, most), |row| {
            Ok(AuditRecord {
                at: moment(row, 0)?.ok_or_else(|| unreadable(0, Type::Null, "a moment is missing"))?,
                request_id: row.get(1)?,
                tenant: row.get(2)?,
                user: row.get(3)?,
                credential: row.get(4)?,
                action: row.get(5)?,
                dataset: row.get(6)?,
                export_id: row.get(7)?,
                outcome: row.get(8)?,
                rows: whole(row, 9)?,
                client: row.get(10)?,
                statement: row.get(11)?,
            })
        })?;
        rows.collect::<Result<_, _>>()
    };
    read().map_err(StateError::database("the audit was read"))
}

pub(super) fn signing_key(transaction: &Transaction<'_>) -> Result<[u8; SIGNING_KEY_BYTES], StateError> {
    let read_or_made = || {
        let made: [u8; SIGNING_KEY_BYTES] = rand::random();
        let insert = "INSERT INTO secret (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
        transaction.execute(insert, (SIGNING_KEY, made.as_slice()))?;
        transaction.query_row("SELECT value FROM secret WHERE name = ?1", [SIGNING_KEY], |row| row.get(0))
    };
    read_or_made().map_err(StateError::database("the signing key was read"))
}

pub(super) fn prune(transaction: &Transaction<'_>, expiry: Expiry, now: i64) -> Result<u64, StateError> {
    let before = |kept| now.saturating_sub(after(0, kept));
    let remove = || {
        // NULL is before nothing.
        let exports = transaction.execute("DELETE FROM export WHERE finished_at < ?1", [before(expiry.exports)])?;
        let audits = transaction.execute("DELETE FROM audit WHERE at < ?1", [before(expiry.audits)])?;
        let jobs = super::outbox::prune(transaction, before(expiry.exports), before(expiry.messages))?;
        Ok(u64::try_from(exports.saturating_add(audits).saturating_add(jobs)).unwrap_or(u64::MAX))
    };
    remove().map_err(StateError::database("old records were removed"))
}

/// The moment of the newest record.
pub(super) fn newest(connection: &Connection) -> Result<Option<i64>, StateError> {
    let select = "SELECT max(at) FROM (SELECT max(at) AS at FROM audit UNION ALL SELECT max(finished_at) FROM export)";
    let found = connection.query_row(select, [], |row| row.get(0));
    found.map_err(StateError::database("the newest record was looked up"))
}

pub(super) fn micros(moment: DateTime<Utc>) -> i64 {
    moment.timestamp_micros()
}

pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let Some(micros) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
    let moment = DateTime::from_timestamp_micros(micros);
    moment.map(Some).ok_or_else(|| unreadable(column, Type::Integer, "a moment out of range"))
}

pub(super) fn count(number: Option<u64>, doing: &'static str) -> Result<Option<i64>, StateError> {
    let fits = number.map(i64::try_from).transpose();
    fits.map_err(|error| StateError::Database { doing, source: Box::new(error) })
}

pub(super) fn whole(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    number.map(u64::try_from).transpose().map_err(|error| unreadable(column, Type::Integer, error))
}

fn notes(end: &ExportEnd, doing: &'static str) -> Result<String, StateError> {
    serde_json::to_string(&end.notes).map_err(|error| StateError::Database { doing, source: Box::new(error) })
}

fn error_columns(end: &ExportEnd) -> (Option<&str>, Option<&str>) {
    end.error.as_ref().map(|error| (error.code.as_str(), error.message.as_str())).unzip()
}

/// A value that no version of outhaul wrote.
pub(super) fn unreadable(column: usize, found: Type, why: impl Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, found, why.to_string().into())
}
