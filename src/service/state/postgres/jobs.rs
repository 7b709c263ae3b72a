//! Jobs as rows: how they are queued, claimed, held and ended.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::super::{
    Cancelled, ClaimLimits, IdempotencyKey, JobCursor, JobEnd, JobFinish, JobLease, JobProgress, JobRecord, JobStatus,
    JobsServed, LeaseState, OutboxMessage, RecordedError, StateError, Submitted,
};
use super::outbox::tell;
use super::records::{NOW, given, kept, micros, moment};
use super::session::{Parameter, StateTransaction, Undone, number, text};
use crate::base::failpoint;

/// The columns of a job, and whether its time is over by the clock of the database, as in [`NOW`].
pub(super) const JOB: &str = "id, tenant, caller, credential, request_id, dataset, mode, request, format, compression, file_name,
    destination, status, attempt, max_rows, estimated_rows, estimated_minutes, row_count, bytes, parts, committing,
    created_at, started_at, completed_at, expires_at, error_code, error_message, revocation, version, truncated, forgiven, claimed_at,
    tier, telling,
    COALESCE(expires_at <= (EXTRACT(epoch FROM pg_catalog.statement_timestamp()) * 1000000)::bigint, false)";

/// `Ohaj` in ASCII: under this lock one process at a time claims, or the bound of a tenant's jobs would not hold.
const CLAIM_LOCK: i64 = 0x4f68_616a;

/// `Ohas`, with the tenant: under this lock one request of a tenant at a time is queued.
const SUBMIT_LOCK: i32 = 0x4f68_6173;

/// Microseconds.
pub(super) fn span(time: Duration) -> i64 {
    // So that it can be added to a moment.
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

pub(super) async fn submit(
    transaction: &StateTransaction<'_>,
    job: &JobRecord,
    key: Option<&IdempotencyKey>,
    live: u32,
) -> Result<Submitted, Undone> {
    let tenant = kept(&job.tenant);
    let lock = "SELECT pg_catalog.pg_advisory_xact_lock($1, pg_catalog.hashtext($2))::text";
    if !failpoint::off("submit_lock") {
        transaction.rows(lock, &[(&SUBMIT_LOCK, Type::INT4), text(&tenant)]).await?;
    }
    if let Some(key) = key {
        let known = format!(
            "SELECT body_sha256, job_id FROM outhaul.idempotency WHERE tenant = $1 AND name = $2 AND keep_until > {NOW}"
        );
        let name = kept(&key.key);
        if let Some(row) = transaction.rows(&known, &[text(&tenant), text(&name)]).await?.first() {
            let (body, id): (Vec<u8>, String) = (transaction.value(row, 0)?, transaction.value(row, 1)?);
            if body != key.body_sha256 {
                return Ok(Submitted::OtherBody);
            }
            // Its job may have been forgotten; then the name is free.
            if let Some(known) = one(transaction, &id, Some(&job.tenant)).await? {
                let ours = transaction.may_be_done && known.id == job.id;
                return Ok(if ours { Submitted::Queued(known) } else { Submitted::Known(known) });
            }
        }
    }
    let living = "SELECT count(*) FROM outhaul.job WHERE tenant = $1 AND status IN ('queued', 'running', 'cancelling')";
    let rows = transaction.rows(living, &[text(&tenant)]).await?;
    let living: i64 = rows.first().map(|row| transaction.value(row, 0)).transpose()?.unwrap_or_default();
    if living >= i64::from(live) {
        return Ok(Submitted::TooMany);
    }
    let queued = insert(transaction, job, &tenant).await?;
    if let Some(key) = key {
        let name = format!(
            "INSERT INTO outhaul.idempotency (tenant, name, body_sha256, job_id, keep_until)
             VALUES ($1, $2, $3, $4, {NOW} + $5)
             ON CONFLICT (tenant, name) DO UPDATE SET body_sha256 = excluded.body_sha256, job_id = excluded.job_id,
                 keep_until = excluded.keep_until"
        );
        let (kept_name, body, keep) = (kept(&key.key), key.body_sha256.as_slice(), span(key.keep));
        let values = [text(&tenant), text(&kept_name), (&body, Type::BYTEA), text(&job.id), number(&keep)];
        transaction.changed(&name, &values).await?;
    }
    Ok(Submitted::Queued(queued))
}

async fn insert(transaction: &StateTransaction<'_>, job: &JobRecord, tenant: &str) -> Result<JobRecord, Undone> {
    let insert = format!(
        "INSERT INTO outhaul.job (id, tenant, caller, credential, request_id, dataset, mode, request, format, compression,
             file_name, destination, status, attempt, max_rows, estimated_rows, estimated_minutes, row_count, bytes, parts,
             committing, created_at, revocation, version, not_before, truncated, removed, forgiven, tier, telling)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'queued', 0, $13, $14, $15, 0, 0, 0, false, {NOW}, 0,
             1, {NOW}, false, false, 0, $16, $17)
         ON CONFLICT (id) DO NOTHING RETURNING {JOB}"
    );
    let [user, tier, telling] = [&job.user, &job.tier, &job.telling].map(|text| text.as_deref().map(kept));
    let [credential, request_id, dataset, request, file_name, destination] =
        [&job.credential, &job.request_id, &job.dataset, &job.request, &job.file_name, &job.destination]
            .map(|text| kept(text));
    let count =
        |count: Option<u64>| count.map(i64::try_from).transpose().map_err(|error| transaction.unreadable(error));
    let (max_rows, rows, minutes) = (count(job.max_rows)?, count(job.estimated_rows)?, count(job.estimated_minutes)?);
    let values = [
        text(&job.id),
        text(&tenant),
        text(&user),
        text(&credential),
        text(&request_id),
        text(&dataset),
        text(&job.mode),
        text(&request),
        text(&job.format),
        text(&job.compression),
        text(&file_name),
        text(&destination),
        number(&max_rows),
        number(&rows),
        number(&minutes),
        text(&tier),
        text(&telling),
    ];
    if let Some(queued) = first(transaction, &insert, &values).await? {
        return Ok(queued);
    }
    // The answer to the first try may be what was lost.
    match one(transaction, &job.id, Some(&job.tenant)).await? {
        Some(found) if transaction.may_be_done && found.request == job.request => Ok(found),
        _ => Err(StateError::Taken { id: job.id.clone() }.into()),
    }
}

pub(super) async fn one(
    transaction: &StateTransaction<'_>,
    id: &str,
    tenant: Option<&str>,
) -> Result<Option<JobRecord>, Undone> {
    let (id, tenant) = (kept(id), tenant.map(kept));
    let select = format!("SELECT {JOB} FROM outhaul.job WHERE id = $1 AND ($2 IS NULL OR tenant = $2)");
    first(transaction, &select, &[text(&id), text(&tenant)]).await
}

pub(super) async fn first(
    transaction: &StateTransaction<'_>,
    sql: &str,
    values: &[Parameter<'_>],
) -> Result<Option<JobRecord>, Undone> {
    transaction.rows(sql, values).await?.first().map(|row| job_of(transaction, row)).transpose()
}

/// The jobs that a condition chooses.
pub(super) async fn several(
    transaction: &StateTransaction<'_>,
    rest: &str,
    values: &[Parameter<'_>],
) -> Result<Vec<JobRecord>, Undone> {
    let select = format!("SELECT {JOB} FROM outhaul.job WHERE {rest}");
    transaction.rows(&select, values).await?.iter().map(|row| job_of(transaction, row)).collect()
}

pub(super) async fn list(
    transaction: &StateTransaction<'_>,
    tenant: &str,
    after: Option<&JobCursor>,
    most: u32,
) -> Result<Vec<JobRecord>, Undone> {
    let (at, id) = after.map(|after| (micros(after.created_at), kept(&after.id))).unzip();
    let (tenant, most) = (kept(tenant), i64::from(most));
    let rest = "tenant = $1 AND ($2 IS NULL OR (created_at, id) < ($2, $3)) ORDER BY created_at DESC, id DESC LIMIT $4";
    several(transaction, rest, &[text(&tenant), number(&at), text(&id), number(&most)]).await
}

/// Which of the jobs that could be claimed are for this worker.
const SERVED: &str = "(job.status = 'cancelling' OR GREATEST(job.not_before, job.lease_until) <= now.at - $4
     OR (job.dataset IN (SELECT pg_catalog.json_array_elements_text($5::text::json))
         AND (job.tier IS NULL OR job.tier IN (SELECT pg_catalog.json_array_elements_text($6::text::json)))
         AND (job.destination LIKE 'file://%'
             OR pg_catalog.left(job.destination, pg_catalog.length(job.destination) - pg_catalog.length(job.id) - 1)
                 IN (SELECT pg_catalog.json_array_elements_text($7::text::json)))))";

pub(super) async fn claim(
    transaction: &StateTransaction<'_>,
    worker: &str,
    served: &JobsServed,
    limits: ClaimLimits,
) -> Result<Option<JobRecord>, Undone> {
    if !failpoint::off("claim_lock") {
        transaction.rows("SELECT pg_catalog.pg_advisory_xact_lock($1)::text", &[number(&CLAIM_LOCK)]).await?;
    }
    // Whose jobs run least comes first, then who has waited longest since his last one.
    let order = if failpoint::off("fairness") { "" } else { "COALESCE(busy.jobs, 0), before.claimed_at," };
    let lapsed = if failpoint::off("lease") { "false" } else { "job.lease_until < now.at" };
    let bound = if failpoint::off("per_tenant") { "$3 IS NOT NULL" } else { "COALESCE(busy.jobs, 0) < $3" };
    // What depends on the tenant is asked once for each tenant, however many of its jobs wait; without OFFSET the planner
    // would ask for each job. Locked, the row is looked at once more: its lease may have been renewed, or the job ended,
    // meanwhile.
    let claim = format!(
        "UPDATE outhaul.job SET status = CASE status WHEN 'cancelling' THEN 'cancelling' ELSE 'running' END,
             attempt = attempt + 1, version = version + 1, worker = $1, claimed_at = {NOW}, renewed_at = {NOW},
             lease_until = {NOW} + $2, started_at = COALESCE(started_at, {NOW}), row_count = 0, bytes = 0, parts = 0,
             committing = false
         WHERE id = (
             SELECT job.id FROM (SELECT {NOW} AS at) AS now CROSS JOIN outhaul.job
             LEFT JOIN (
                 SELECT other.tenant, count(*) AS jobs FROM outhaul.job AS other
                 WHERE other.status IN ('running', 'cancelling') AND other.lease_until >= {NOW}
                 GROUP BY other.tenant) AS busy ON busy.tenant = job.tenant
             JOIN (
                 SELECT live.tenant, COALESCE((
                     SELECT max(other.claimed_at) FROM outhaul.job AS other WHERE other.tenant = live.tenant
                 ), 0) AS claimed_at
                 FROM (
                     SELECT DISTINCT each.tenant FROM outhaul.job AS each
                     WHERE each.status IN ('queued', 'running', 'cancelling')) AS live
                 OFFSET 0
             ) AS before ON before.tenant = job.tenant
             WHERE ((job.status = 'queued' AND job.not_before <= now.at)
                     OR (job.status IN ('running', 'cancelling') AND {lapsed}))
                 AND {bound} AND {SERVED}
             ORDER BY {order} job.created_at, job.id LIMIT 1 FOR UPDATE OF job SKIP LOCKED
         )
         RETURNING {JOB}"
    );
    let (worker, lease, per_tenant) = (kept(worker), span(limits.lease), i64::from(limits.per_tenant));
    let patience = span(served.patience);
    let [datasets, tiers, destinations] = [&served.datasets, &served.tiers, &served.destinations]
        .map(|names| names.iter().map(|name| kept(name)).collect::<serde_json::Value>().to_string());
    let mut values = vec![text(&worker), number(&lease), number(&per_tenant), number(&patience)];
    values.extend([text(&datasets), text(&tiers), text(&destinations)]);
    first(transaction, &claim, &values).await
}

/// Which job and attempt a write is for; it stands in each of them.
fn fence() -> &'static str {
    if failpoint::off("fence") {
        return "id = $1 AND $2::bigint IS NOT NULL AND status IN ('running', 'cancelling')";
    }
    "id = $1 AND attempt = $2 AND status IN ('running', 'cancelling')"
}

/// What a statement with `RETURNING status` says of the lease.
async fn held(
    transaction: &StateTransaction<'_>,
    update: &str,
    values: &[Parameter<'_>],
) -> Result<LeaseState, Undone> {
    let rows = transaction.rows(update, values).await?;
    let Some(row) = rows.first() else { return Ok(LeaseState::Lost) };
    let status: String = transaction.value(row, 0)?;
    Ok(if status == JobStatus::Cancelling.name() { LeaseState::Cancelling } else { LeaseState::Held })
}

pub(super) async fn renew(
    transaction: &StateTransaction<'_>,
    lease: &JobLease,
    time: Duration,
) -> Result<LeaseState, Undone> {
    let renew = format!(
        "UPDATE outhaul.job SET renewed_at = {NOW}, lease_until = {NOW} + $3 WHERE {} RETURNING status",
        fence()
    );
    let (attempt, time) = (i64::from(lease.attempt), span(time));
    held(transaction, &renew, &[text(&lease.id), number(&attempt), number(&time)]).await
}

/// The columns of progress.
fn counts(transaction: &StateTransaction<'_>, progress: JobProgress) -> Result<[i64; 3], Undone> {
    let JobProgress { rows, bytes, parts, .. } = progress;
    let count = |count| i64::try_from(count).map_err(|error| transaction.unreadable(error));
    Ok([count(rows)?, count(bytes)?, count(parts)?])
}

pub(super) async fn progress(
    transaction: &StateTransaction<'_>,
    lease: &JobLease,
    progress: JobProgress,
) -> Result<LeaseState, Undone> {
    let update = format!(
        "UPDATE outhaul.job SET row_count = $3, bytes = $4, parts = $5, committing = ($6 AND status = 'running'),
             version = version + 1
         WHERE {} RETURNING status",
        fence()
    );
    let attempt = i64::from(lease.attempt);
    let [rows, bytes, parts] = counts(transaction, progress)?;
    let committing = (&progress.committing as &(dyn tokio_postgres::types::ToSql + Sync), Type::BOOL);
    let values = [text(&lease.id), number(&attempt), number(&rows), number(&bytes), number(&parts), committing];
    held(transaction, &update, &values).await
}

pub(super) async fn finish(
    transaction: &StateTransaction<'_>,
    lease: &JobLease,
    end: &JobEnd,
    messages: &[OutboxMessage],
) -> Result<JobFinish, Undone> {
    let update = format!(
        "UPDATE outhaul.job SET status = $3, row_count = $4, bytes = $5, parts = $6, committing = false, truncated = $7,
             error_code = $8, error_message = $9, completed_at = {NOW}, expires_at = {NOW} + $10,
             max_rows = $11, version = version + 1, lease_until = NULL, attempt = attempt - $12, not_before = {NOW}
         WHERE {}{}",
        fence(),
        unless_cancelling(end.status)
    );
    let (attempt, status, truncated) =
        (i64::from(lease.attempt), end.status.name(), end.status == JobStatus::Truncated);
    let [rows, bytes, parts] = counts(transaction, end.progress)?;
    let (code, message) = error_columns(end.error.as_ref());
    let (keep, untried) = (end.keep.map(span), i64::from(end.untried));
    let max_rows = end.max_rows.map(i64::try_from).transpose().map_err(|error| transaction.unreadable(error))?;
    let values = [
        text(&lease.id),
        number(&attempt),
        text(&status),
        number(&rows),
        number(&bytes),
        number(&parts),
        (&truncated, Type::BOOL),
        text(&code),
        text(&message),
        number(&keep),
        number(&max_rows),
        number(&untried),
    ];
    if transaction.changed(&update, &values).await? == 1 {
        tell(transaction, messages).await?;
        return Ok(JobFinish::Ended);
    }
    let written = lease.attempt.saturating_sub(u32::from(end.untried));
    let found = one(transaction, &lease.id, None).await?;
    let found = found.filter(|job| job.attempt == lease.attempt || (job.status.is_final() && job.attempt == written));
    Ok(match found.map(|job| job.status) {
        Some(status) if status == end.status && transaction.may_be_done => JobFinish::Ended,
        Some(JobStatus::Cancelling) => JobFinish::Cancelling,
        _ => JobFinish::Lost,
    })
}

/// What stands behind the fence of an end.
fn unless_cancelling(end: JobStatus) -> &'static str {
    if end == JobStatus::Cancelled || failpoint::off("cancel") { "" } else { " AND status = 'running'" }
}

pub(super) async fn give_back(
    transaction: &StateTransaction<'_>,
    lease: &JobLease,
    error: Option<&RecordedError>,
    delay: Duration,
    counted: bool,
) -> Result<bool, Undone> {
    // One that is being cancelled comes to the next worker at once.
    let update = format!(
        "UPDATE outhaul.job SET status = CASE status WHEN 'running' THEN 'queued' ELSE status END,
             not_before = {NOW} + $3, lease_until = 0, committing = false, error_code = $4, error_message = $5,
             version = version + 1, forgiven = forgiven + (CASE WHEN $6 THEN 0 ELSE 1 END)
         WHERE {}",
        fence()
    );
    let (attempt, delay) = (i64::from(lease.attempt), span(delay));
    let (code, message) = error_columns(error);
    let values =
        [text(&lease.id), number(&attempt), number(&delay), text(&code), text(&message), (&counted, Type::BOOL)];
    Ok(transaction.changed(&update, &values).await? == 1)
}

pub(super) async fn cancel(
    transaction: &StateTransaction<'_>,
    id: &str,
    tenant: &str,
) -> Result<Option<Cancelled>, Undone> {
    // Whoever lets its lease run out while it commits has died, or will be told by the end that it writes.
    let held = if failpoint::off("lease") { "true".to_owned() } else { format!("lease_until >= {NOW}") };
    let update = format!(
        "UPDATE outhaul.job SET version = version + 1, completed_at = CASE status WHEN 'queued' THEN {NOW} END,
             not_before = {NOW},
             status = CASE status WHEN 'queued' THEN 'cancelled' ELSE 'cancelling' END
         WHERE id = $1 AND tenant = $2 AND status IN ('queued', 'running', 'cancelling')
             AND NOT (committing AND {held})
         RETURNING {JOB}"
    );
    let (kept_id, kept_tenant) = (kept(id), kept(tenant));
    if let Some(live) = first(transaction, &update, &[text(&kept_id), text(&kept_tenant)]).await? {
        return Ok(Some(Cancelled::Live(live)));
    }
    let found = one(transaction, id, Some(tenant)).await?;
    Ok(found.map(|job| if job.status.is_final() { Cancelled::Final(job) } else { Cancelled::Committing(job) }))
}

fn error_columns(error: Option<&RecordedError>) -> (Option<String>, Option<String>) {
    error.map(|error| (kept(&error.code), kept(&error.message))).unzip()
}

fn job_of(transaction: &StateTransaction<'_>, row: &Row) -> Result<JobRecord, Undone> {
    let words = |column| transaction.value::<String>(row, column).map(|text| given(&text));
    let maybe = |column| transaction.value::<Option<String>>(row, column).map(|text| text.as_deref().map(given));
    let count = |column| transaction.count(row, column).map(Option::unwrap_or_default);
    let small = |column| u32::try_from(count(column)?).map_err(|error| transaction.unreadable(error));
    let status = words(12)?;
    let known = JobStatus::ALL.into_iter().find(|known| known.name() == status);
    Ok(JobRecord {
        id: words(0)?,
        tenant: words(1)?,
        user: maybe(2)?,
        credential: words(3)?,
        request_id: words(4)?,
        dataset: words(5)?,
        mode: words(6)?,
        request: words(7)?,
        format: words(8)?,
        compression: words(9)?,
        file_name: words(10)?,
        destination: words(11)?,
        status: known.ok_or_else(|| transaction.unreadable("an unknown status"))?,
        attempt: small(13)?,
        max_rows: transaction.count(row, 14)?,
        estimated_rows: transaction.count(row, 15)?,
        estimated_minutes: transaction.count(row, 16)?,
        progress: JobProgress {
            rows: count(17)?,
            bytes: count(18)?,
            parts: count(19)?,
            committing: transaction.value(row, 20)?,
        },
        created_at: moment(transaction, row, 21)?.ok_or_else(|| transaction.unreadable("a moment is missing"))?,
        started_at: moment(transaction, row, 22)?,
        completed_at: moment(transaction, row, 23)?,
        expires_at: moment(transaction, row, 24)?,
        error: maybe(25)?.zip(maybe(26)?).map(|(code, message)| RecordedError { code, message }),
        revocation: small(27)?,
        version: count(28)?,
        truncated: transaction.value(row, 29)?,
        forgiven: small(30)?,
        claimed_at: moment(transaction, row, 31)?,
        tier: maybe(32)?,
        telling: maybe(33)?,
        overdue: transaction.value(row, 34)?,
    })
}
