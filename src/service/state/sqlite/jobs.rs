//! The queue as rows: jobs, the names of requests, and what is to be told.

use std::time::Duration;

use chrono::Utc;
use rusqlite::types::Type;
use rusqlite::{ErrorCode, OptionalExtension, Row, Transaction};

use super::super::{
    Cancelled, ClaimLimits, IdempotencyKey, JobCursor, JobEnd, JobFinish, JobLease, JobProgress, JobRecord, JobStatus,
    JobsServed, LeaseState, OutboxMessage, RecordedError, StateError, Submitted,
};
use super::outbox::tell;
use super::records::{count, micros, moment, unreadable, whole};
use crate::base::failpoint;

pub(super) const JOB: &str = "id, tenant, caller, credential, request_id, dataset, mode, request, format, compression, file_name,
    destination, status, attempt, max_rows, estimated_rows, estimated_minutes, row_count, bytes, parts, committing,
    created_at, started_at, completed_at, expires_at, error_code, error_message, revocation, version, truncated, forgiven, claimed_at,
    tier, telling";

pub(super) fn now() -> i64 {
    micros(Utc::now())
}

pub(super) fn after(now: i64, time: Duration) -> i64 {
    now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn submit(
    transaction: &Transaction<'_>,
    job: &JobRecord,
    key: Option<&IdempotencyKey>,
    live: u32,
) -> Result<Submitted, StateError> {
    let doing = "a job was queued";
    let now = now();
    if let Some(key) = key {
        let known = "SELECT body_sha256, job_id FROM idempotency WHERE tenant = ?1 AND name = ?2 AND keep_until > ?3";
        let read = |row: &Row<'_>| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?));
        let known = transaction.query_row(known, (&job.tenant, &key.key, now), read).optional();
        if let Some((body, id)) = known.map_err(StateError::database(doing))? {
            if body != key.body_sha256 {
                return Ok(Submitted::OtherBody);
            }
            // Its job may have been forgotten; then the name is free.
            if let Some(job) = one(transaction, &id, Some(&job.tenant), doing)? {
                return Ok(Submitted::Known(job));
            }
        }
    }
    let living = "SELECT count(*) FROM job WHERE tenant = ?1 AND status IN ('queued', 'running', 'cancelling')";
    let living: u32 =
        transaction.query_row(living, [&job.tenant], |row| row.get(0)).map_err(StateError::database(doing))?;
    if living >= live {
        return Ok(Submitted::TooMany);
    }
    insert(transaction, job, now, doing)?;
    if let Some(key) = key {
        let name = "INSERT INTO idempotency (tenant, name, body_sha256, job_id, keep_until) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (tenant, name) DO UPDATE SET body_sha256 = excluded.body_sha256, job_id = excluded.job_id,
                 keep_until = excluded.keep_until";
        let values = (&job.tenant, &key.key, key.body_sha256.as_slice(), &job.id, after(now, key.keep));
        transaction.execute(name, values).map_err(StateError::database(doing))?;
    }
    let queued = one(transaction, &job.id, None, doing)?;
    queued.map(Submitted::Queued).ok_or(StateError::Stopped)
}

fn insert(transaction: &Transaction<'_>, job: &JobRecord, now: i64, doing: &'static str) -> Result<(), StateError> {
    let insert = "INSERT INTO job (id, tenant, caller, credential, request_id, dataset, mode, request, format, compression,
             file_name, destination, status, attempt, max_rows, estimated_rows, estimated_minutes, row_count, bytes, parts,
             committing, created_at, revocation, version, not_before, truncated, removed, forgiven, tier, telling)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'queued', 0, ?13, ?14, ?15, 0, 0, 0, 0, ?16, 0, 1, ?16,
             0, 0, 0, ?17, ?18)";
    let values = rusqlite::params![
        job.id,
        job.tenant,
        job.user,
        job.credential,
        job.request_id,
        job.dataset,
        job.mode,
        job.request,
        job.format,
        job.compression,
        job.file_name,
        job.destination,
        count(job.max_rows, doing)?,
        count(job.estimated_rows, doing)?,
        count(job.estimated_minutes, doing)?,
        now,
        job.tier,
        job.telling,
    ];
    match transaction.execute(insert, values) {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(StateError::Taken { id: job.id.clone() })
        }
        Err(error) => Err(StateError::database(doing)(error)),
    }
}

pub(super) fn one(
    transaction: &Transaction<'_>,
    id: &str,
    tenant: Option<&str>,
    doing: &'static str,
) -> Result<Option<JobRecord>, StateError> {
    let select = format!("SELECT {JOB} FROM job WHERE id = ?1 AND (?2 IS NULL OR tenant = ?2)");
    transaction.query_row(&select, (id, tenant), job_of).optional().map_err(StateError::database(doing))
}

pub(super) fn list(
    transaction: &Transaction<'_>,
    tenant: &str,
    after: Option<&JobCursor>,
    most: u32,
) -> Result<Vec<JobRecord>, StateError> {
    let (at, id) = after.map(|after| (micros(after.created_at), after.id.as_str())).unzip();
    let select = format!(
        "SELECT {JOB} FROM job WHERE tenant = ?1 AND (?2 IS NULL OR (created_at, id) < (?2, ?3))
         ORDER BY created_at DESC, id DESC LIMIT ?4"
    );
    several(transaction, &select, (tenant, at, id, most), "jobs were listed")
}

pub(super) fn several(
    transaction: &Transaction<'_>,
    select: &str,
    values: impl rusqlite::Params,
    doing: &'static str,
) -> Result<Vec<JobRecord>, StateError> {
    let read = || transaction.prepare(select)?.query_map(values, job_of)?.collect::<Result<Vec<_>, rusqlite::Error>>();
    read().map_err(StateError::database(doing))
}

pub(super) fn claim(
    transaction: &Transaction<'_>,
    worker: &str,
    served: &JobsServed,
    limits: ClaimLimits,
) -> Result<Option<JobRecord>, StateError> {
    let now = now();
    // Whose jobs run least comes first, then who has waited longest since his last one.
    let order = if failpoint::off("fairness") { "created_at, id" } else { "running, claimed_before, created_at, id" };
    let lapsed = if failpoint::off("lease") { "FALSE" } else { "lease_until < ?1" };
    let bound = if failpoint::off("per_tenant") { "?4 IS NOT NULL" } else { "running < ?4" };
    let claim = format!(
        "UPDATE job SET status = CASE status WHEN 'cancelling' THEN 'cancelling' ELSE 'running' END,
             attempt = attempt + 1, version = version + 1, worker = ?2, claimed_at = ?1, renewed_at = ?1, lease_until = ?3,
             started_at = COALESCE(started_at, ?1), row_count = 0, bytes = 0, parts = 0, committing = 0
         WHERE id = (
             SELECT id FROM (
                 SELECT job.id, job.created_at, COALESCE(busy.jobs, 0) AS running,
                     COALESCE((SELECT max(claimed_at) FROM job AS other WHERE other.tenant = job.tenant), 0)
                         AS claimed_before
                 FROM job LEFT JOIN (
                     SELECT tenant, count(*) AS jobs FROM job
                     WHERE status IN ('running', 'cancelling') AND lease_until >= ?1 GROUP BY tenant
                 ) AS busy ON busy.tenant = job.tenant
                 WHERE ((status = 'queued' AND not_before <= ?1)
                         OR (status IN ('running', 'cancelling') AND {lapsed}))
                     AND (status = 'cancelling' OR max(not_before, COALESCE(lease_until, 0)) <= ?5
                         OR (dataset IN (SELECT value FROM json_each(?6))
                             AND (tier IS NULL OR tier IN (SELECT value FROM json_each(?7)))
                             AND (destination LIKE 'file://%' OR substr(destination, 1, length(destination) - length(id) - 1)
                                 IN (SELECT value FROM json_each(?8)))))
             )
             WHERE {bound}
             ORDER BY {order} LIMIT 1
         )
         RETURNING {JOB}"
    );
    let waited = now.saturating_sub(after(0, served.patience));
    let [datasets, tiers, destinations] = [&served.datasets, &served.tiers, &served.destinations]
        .map(|names| serde_json::Value::from(names.clone()).to_string());
    let lease = after(now, limits.lease);
    let values = (now, worker, lease, limits.per_tenant, waited, datasets, tiers, destinations);
    let claimed = transaction.query_row(&claim, values, job_of).optional();
    claimed.map_err(StateError::database("a job was claimed"))
}

/// Which job and attempt a write is for; it stands in each of them.
fn fence() -> &'static str {
    if failpoint::off("fence") {
        return "id = ?1 AND ?2 IS NOT NULL AND status IN ('running', 'cancelling')";
    }
    "id = ?1 AND attempt = ?2 AND status IN ('running', 'cancelling')"
}

pub(super) fn renew(transaction: &Transaction<'_>, lease: &JobLease, time: Duration) -> Result<LeaseState, StateError> {
    let now = now();
    let renew = format!("UPDATE job SET renewed_at = ?3, lease_until = ?4 WHERE {} RETURNING status", fence());
    let values = (&lease.id, lease.attempt, now, after(now, time));
    held(transaction.query_row(&renew, values, |row| row.get(0)).optional(), "a lease was renewed")
}

fn held(status: rusqlite::Result<Option<String>>, doing: &'static str) -> Result<LeaseState, StateError> {
    Ok(match status.map_err(StateError::database(doing))? {
        None => LeaseState::Lost,
        Some(status) if status == JobStatus::Cancelling.name() => LeaseState::Cancelling,
        Some(_) => LeaseState::Held,
    })
}

pub(super) fn progress(
    transaction: &Transaction<'_>,
    lease: &JobLease,
    progress: JobProgress,
) -> Result<LeaseState, StateError> {
    let doing = "the progress of a job was written";
    let JobProgress { rows, bytes, parts, committing } = progress;
    let update = format!(
        "UPDATE job SET row_count = ?3, bytes = ?4, parts = ?5, committing = (?6 AND status = 'running'),
             version = version + 1
         WHERE {} RETURNING status",
        fence()
    );
    let [rows, bytes, parts] = [rows, bytes, parts].map(|number| count(Some(number), doing));
    let values = (&lease.id, lease.attempt, rows?, bytes?, parts?, committing);
    held(transaction.query_row(&update, values, |row| row.get(0)).optional(), doing)
}

pub(super) fn finish(
    transaction: &Transaction<'_>,
    lease: &JobLease,
    end: &JobEnd,
    messages: &[OutboxMessage],
) -> Result<JobFinish, StateError> {
    let doing = "a job ended";
    let now = now();
    let update = format!(
        "UPDATE job SET status = ?3, row_count = ?4, bytes = ?5, parts = ?6, committing = 0, truncated = ?7, error_code = ?8,
             error_message = ?9, completed_at = ?10, expires_at = ?11, max_rows = ?12, version = version + 1,
             lease_until = NULL, attempt = attempt - ?13, not_before = ?10
         WHERE {}{}",
        fence(),
        unless_cancelling(end.status)
    );
    let (code, message) = error_columns(end.error.as_ref());
    let values = rusqlite::params![
        lease.id,
        lease.attempt,
        end.status.name(),
        count(Some(end.progress.rows), doing)?,
        count(Some(end.progress.bytes), doing)?,
        count(Some(end.progress.parts), doing)?,
        end.status == JobStatus::Truncated,
        code,
        message,
        now,
        end.keep.map(|keep| after(now, keep)),
        count(end.max_rows, doing)?,
        u32::from(end.untried),
    ];
    let ended = transaction.execute(&update, values).map_err(StateError::database(doing))? == 1;
    if ended {
        tell(transaction, messages, now, doing)?;
        return Ok(JobFinish::Ended);
    }
    let still = format!("SELECT status FROM job WHERE {}", fence());
    let still = transaction.query_row(&still, (&lease.id, lease.attempt), |row| row.get(0)).optional();
    Ok(match held(still, doing)? {
        LeaseState::Cancelling => JobFinish::Cancelling,
        _ => JobFinish::Lost,
    })
}

/// What stands behind the fence of an end.
fn unless_cancelling(end: JobStatus) -> &'static str {
    if end == JobStatus::Cancelled || failpoint::off("cancel") { "" } else { " AND status = 'running'" }
}

pub(super) fn give_back(
    transaction: &Transaction<'_>,
    lease: &JobLease,
    error: Option<&RecordedError>,
    delay: Duration,
    counted: bool,
) -> Result<bool, StateError> {
    // One that is being cancelled comes to the next worker at once.
    let update = format!(
        "UPDATE job SET status = CASE status WHEN 'running' THEN 'queued' ELSE status END, not_before = ?3, lease_until = 0,
             committing = 0, error_code = ?4, error_message = ?5, version = version + 1,
             forgiven = forgiven + (CASE WHEN ?6 THEN 0 ELSE 1 END)
         WHERE {}",
        fence()
    );
    let (code, message) = error_columns(error);
    let values = (&lease.id, lease.attempt, after(now(), delay), code, message, counted);
    let given = transaction.execute(&update, values);
    Ok(given.map_err(StateError::database("a job was given back"))? == 1)
}

pub(super) fn cancel(transaction: &Transaction<'_>, id: &str, tenant: &str) -> Result<Option<Cancelled>, StateError> {
    let doing = "a job was cancelled";
    // Whoever lets its lease run out while it commits has died, or will be told by the end that it writes.
    let held = if failpoint::off("lease") { "TRUE" } else { "lease_until >= ?3" };
    let update = format!(
        "UPDATE job SET version = version + 1,
             completed_at = CASE status WHEN 'queued' THEN ?3 END, not_before = ?3,
             status = CASE status WHEN 'queued' THEN 'cancelled' ELSE 'cancelling' END
         WHERE id = ?1 AND tenant = ?2 AND status IN ('queued', 'running', 'cancelling')
             AND NOT (committing = 1 AND {held})
         RETURNING {JOB}"
    );
    let live = transaction.query_row(&update, (id, tenant, now()), job_of).optional();
    if let Some(live) = live.map_err(StateError::database(doing))? {
        return Ok(Some(Cancelled::Live(live)));
    }
    let found = one(transaction, id, Some(tenant), doing)?;
    Ok(found.map(|job| if job.status.is_final() { Cancelled::Final(job) } else { Cancelled::Committing(job) }))
}

pub(super) fn expire(
    transaction: &Transaction<'_>,
    id: &str,
    messages: &[OutboxMessage],
) -> Result<Option<JobRecord>, StateError> {
    let doing = "an export expired";
    let now = now();
    let update = format!(
        "UPDATE job SET status = 'expired', revocation = revocation + 1, expires_at = min(expires_at, ?2),
             version = version + 1
         WHERE id = ?1 AND status IN ('complete', 'truncated') RETURNING {JOB}"
    );
    let expired = transaction.query_row(&update, (id, now), job_of).optional();
    let expired = expired.map_err(StateError::database(doing))?;
    if expired.is_some() {
        tell(transaction, messages, now, doing)?;
    }
    Ok(expired)
}

fn error_columns(error: Option<&RecordedError>) -> (Option<&str>, Option<&str>) {
    error.map(|error| (error.code.as_str(), error.message.as_str())).unzip()
}

fn job_of(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let status: String = row.get(12)?;
    let known = JobStatus::ALL.into_iter().find(|known| known.name() == status);
    let code: Option<String> = row.get(25)?;
    let message: Option<String> = row.get(26)?;
    let number = |column| Ok::<_, rusqlite::Error>(whole(row, column)?.unwrap_or_default());
    let expires_at = moment(row, 24)?;
    Ok(JobRecord {
        id: row.get(0)?,
        tenant: row.get(1)?,
        user: row.get(2)?,
        credential: row.get(3)?,
        request_id: row.get(4)?,
        dataset: row.get(5)?,
        mode: row.get(6)?,
        request: row.get(7)?,
        format: row.get(8)?,
        compression: row.get(9)?,
        file_name: row.get(10)?,
        destination: row.get(11)?,
        status: known.ok_or_else(|| unreadable(12, Type::Text, "an unknown status"))?,
        attempt: row.get(13)?,
        max_rows: whole(row, 14)?,
        estimated_rows: whole(row, 15)?,
        estimated_minutes: whole(row, 16)?,
        progress: JobProgress { rows: number(17)?, bytes: number(18)?, parts: number(19)?, committing: row.get(20)? },
        created_at: moment(row, 21)?.ok_or_else(|| unreadable(21, Type::Null, "a moment is missing"))?,
        started_at: moment(row, 22)?,
        completed_at: moment(row, 23)?,
        expires_at,
        overdue: expires_at.is_some_and(|end| end <= Utc::now()),
        error: code.zip(message).map(|(code, message)| RecordedError { code, message }),
        revocation: row.get(27)?,
        version: number(28)?,
        truncated: row.get(29)?,
        forgiven: row.get(30)?,
        claimed_at: moment(row, 31)?,
        tier: row.get(32)?,
        telling: row.get(33)?,
    })
}
