-- DuckDB: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, CSV
-- TRUNCATED: a cap cut rows off
-- column "born" is read as text: the manifest does not say what birthday is made of
-- INSTALL httpfs; LOAD httpfs; and CREATE SECRET for the bucket come first
-- timestamps with time zone are shown in the session's TimeZone
-- a DECIMAL has no NaN: a query that meets one fails
-- lines of more than 2,000,000 bytes fail a query unless max_line_size is raised

CREATE OR REPLACE VIEW "orders" AS
SELECT
    "id",
    "flag",
    "count",
    "weight",
    "price",
    "note",
    "doc",
    unhex(substr("raw", 3)) AS "raw",
    "key",
    CAST(CASE WHEN ends_with("day", ' BC') THEN regexp_replace("day", '^([0-9]+-[0-9]+-[0-9]+)(.*) BC$', '\1 (BC)\2') ELSE "day" END AS DATE) AS "day",
    "opens",
    CAST(CASE WHEN ends_with("at", ' BC') THEN regexp_replace("at", '^([0-9]+-[0-9]+-[0-9]+)(.*) BC$', '\1 (BC)\2') ELSE "at" END AS TIMESTAMP) AS "at",
    CAST(CASE WHEN ends_with("at_utc", ' BC') THEN regexp_replace("at_utc", '^([0-9]+-[0-9]+-[0-9]+)(.*) BC$', '\1 (BC)\2') ELSE "at_utc" END AS TIMESTAMP WITH TIME ZONE) AS "at_utc",
    "tags",
    "born"
FROM read_csv(
    [
        's3://lake/orders/data/part-00000-000-9f3a2b1c.parquet',
        's3://lake/orders/data/part-00001-000-9f3a2b1c.parquet',
        's3://lake/orders/data/part-00001-001-9f3a2b1c.parquet',
        's3://lake/orders/data/part-00002-000-9f3a2b1c.parquet'
    ],
    columns = {
        'id': 'BIGINT',
        'flag': 'BOOLEAN',
        'count': 'INTEGER',
        'weight': 'DOUBLE',
        'price': 'DECIMAL(12,2)',
        'note': 'VARCHAR',
        'doc': 'VARCHAR',
        'raw': 'VARCHAR',
        'key': 'UUID',
        'day': 'VARCHAR',
        'opens': 'TIME',
        'at': 'VARCHAR',
        'at_utc': 'VARCHAR',
        'tags': 'VARCHAR',
        'born': 'VARCHAR'
    },
    auto_detect = false,
    compression = 'gzip',
    header = false,
    delim = '	',
    quote = '"',
    escape = '"',
    nullstr = '\N',
    allow_quoted_nulls = false,
    hive_partitioning = false
);
