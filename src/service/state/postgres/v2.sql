-- Exports in the background. A lease is columns of the job: whoever claims it adds one to attempt, and writes as that attempt.
CREATE TABLE outhaul.job (
    id                TEXT COLLATE "C" PRIMARY KEY,
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
    attempt           BIGINT NOT NULL,
    forgiven          BIGINT NOT NULL,
    max_rows          BIGINT,
    estimated_rows    BIGINT,
    estimated_minutes BIGINT,
    row_count         BIGINT NOT NULL,
    bytes             BIGINT NOT NULL,
    parts             BIGINT NOT NULL,
    committing        BOOLEAN NOT NULL,
    created_at        BIGINT NOT NULL,
    started_at        BIGINT,
    completed_at      BIGINT,
    expires_at        BIGINT,
    error_code        TEXT,
    error_message     TEXT,
    revocation        BIGINT NOT NULL,
    version           BIGINT NOT NULL,
    not_before        BIGINT NOT NULL,
    worker            TEXT,
    claimed_at        BIGINT,
    renewed_at        BIGINT,
    lease_until       BIGINT,
    truncated         BOOLEAN NOT NULL,
    removed           BOOLEAN NOT NULL
);

CREATE INDEX job_by_status ON outhaul.job (status, created_at);
CREATE INDEX job_of_tenant ON outhaul.job (tenant, created_at, id);
CREATE INDEX job_claimed ON outhaul.job (tenant, claimed_at);

CREATE TABLE outhaul.idempotency (
    tenant      TEXT NOT NULL,
    name        TEXT NOT NULL,
    body_sha256 BYTEA NOT NULL,
    job_id      TEXT NOT NULL,
    keep_until  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE outhaul.outbox (
    number    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    export_id TEXT NOT NULL,
    target    TEXT NOT NULL,
    event     TEXT NOT NULL,
    body      TEXT NOT NULL,
    attempt   BIGINT NOT NULL,
    due_at    BIGINT NOT NULL
);

CREATE INDEX outbox_due ON outhaul.outbox (due_at);

-- The address of whoever asked.
ALTER TABLE outhaul.audit ADD COLUMN client TEXT;
