-- Exports in the background. A lease is columns of the job: whoever claims it adds one to attempt, and writes as that attempt.
CREATE TABLE job (
    id                TEXT PRIMARY KEY,
    tenant            TEXT NOT NULL,
    caller            TEXT,
    credential        TEXT NOT NULL,
    request_id        TEXT NOT NULL,
    dataset           TEXT NOT NULL,
    mode              TEXT NOT NULL,
    request           TEXT NOT NULL,
    format            TEXT NOT NULL,
    compression       TEXT NOT NULL,
    file_name         TEXT NOT NULL,
    destination       TEXT NOT NULL,
    status            TEXT NOT NULL,
    attempt           INTEGER NOT NULL,
    forgiven          INTEGER NOT NULL,
    max_rows          INTEGER,
    estimated_rows    INTEGER,
    estimated_minutes INTEGER,
    row_count         INTEGER NOT NULL,
    bytes             INTEGER NOT NULL,
    parts             INTEGER NOT NULL,
    committing        INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    started_at        INTEGER,
    completed_at      INTEGER,
    expires_at        INTEGER,
    error_code        TEXT,
    error_message     TEXT,
    revocation        INTEGER NOT NULL,
    version           INTEGER NOT NULL,
    not_before        INTEGER NOT NULL,
    worker            TEXT,
    claimed_at        INTEGER,
    renewed_at        INTEGER,
    lease_until       INTEGER,
    truncated         INTEGER NOT NULL,
    removed           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX job_by_status ON job (status, created_at);
CREATE INDEX job_of_tenant ON job (tenant, created_at, id);
CREATE INDEX job_claimed ON job (tenant, claimed_at);

CREATE TABLE idempotency (
    tenant      TEXT NOT NULL,
    name        TEXT NOT NULL,
    body_sha256 BLOB NOT NULL,
    job_id      TEXT NOT NULL,
    keep_until  INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    number    INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    export_id TEXT NOT NULL,
    target    TEXT NOT NULL,
    event     TEXT NOT NULL,
    body      TEXT NOT NULL,
    attempt   INTEGER NOT NULL,
    due_at    INTEGER NOT NULL
) STRICT;

CREATE INDEX outbox_due ON outbox (due_at);

-- The address of whoever asked.
ALTER TABLE audit ADD COLUMN client TEXT;
