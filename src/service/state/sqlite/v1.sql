-- Moments are microseconds since 1970 in UTC.
CREATE TABLE written_by (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    outhaul TEXT NOT NULL
) STRICT;

CREATE TABLE export (
    id            TEXT PRIMARY KEY,
    tenant        TEXT NOT NULL,
    caller        TEXT,
    dataset       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    format        TEXT NOT NULL,
    started_at    INTEGER NOT NULL,
    finished_at   INTEGER,
    status        TEXT NOT NULL,
    row_count     INTEGER,
    max_rows      INTEGER,
    truncated     INTEGER NOT NULL,
    crc64nvme     TEXT,
    bytes         INTEGER,
    error_code    TEXT,
    error_message TEXT,
    notes         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX export_ended ON export (finished_at);

CREATE TABLE audit (
    number     INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    caller     TEXT,
    credential TEXT NOT NULL,
    action     TEXT NOT NULL,
    dataset    TEXT NOT NULL,
    export_id  TEXT,
    outcome    TEXT NOT NULL,
    row_count  INTEGER
) STRICT;

CREATE INDEX audit_of_tenant ON audit (tenant, number);
CREATE INDEX audit_at ON audit (at);

CREATE TABLE secret (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
