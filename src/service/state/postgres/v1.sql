-- Moments are microseconds since 1970 in UTC. Texts of callers are escaped, since PostgreSQL's hold no zero character.
CREATE TABLE outhaul.instance (
    id          TEXT PRIMARY KEY,
    lease_until BIGINT NOT NULL
);

CREATE TABLE outhaul.export (
    id            TEXT COLLATE "C" PRIMARY KEY,
    instance      TEXT NOT NULL,
    tenant        TEXT NOT NULL,
    caller        TEXT,
    dataset       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    format        TEXT NOT NULL,
    started_at    BIGINT NOT NULL,
    finished_at   BIGINT,
    status        TEXT NOT NULL,
    row_count     BIGINT,
    max_rows      BIGINT,
    truncated     BOOLEAN NOT NULL,
    crc64nvme     TEXT,
    bytes         BIGINT,
    error_code    TEXT,
    error_message TEXT,
    notes         TEXT NOT NULL
);

CREATE INDEX export_ended ON outhaul.export (finished_at);
CREATE INDEX export_streaming ON outhaul.export (instance) WHERE status = 'streaming';

CREATE TABLE outhaul.audit (
    number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry      TEXT NOT NULL UNIQUE,
    at         BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    caller     TEXT,
    credential TEXT NOT NULL,
    action     TEXT NOT NULL,
    dataset    TEXT NOT NULL,
    export_id  TEXT,
    outcome    TEXT NOT NULL,
    row_count  BIGINT
);

CREATE INDEX audit_of_tenant ON outhaul.audit (tenant, number);
CREATE INDEX audit_at ON outhaul.audit (at);

CREATE TABLE outhaul.secret (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);
