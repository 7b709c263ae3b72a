-- DuckDB: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- INSTALL httpfs; LOAD httpfs; and CREATE SECRET for the bucket come first
-- timestamps with time zone are shown in the session's TimeZone

CREATE OR REPLACE VIEW "orders" AS
SELECT
    "id",
    "flag",
    "small",
    "count",
    "ratio",
    "weight",
    "price",
    "amount",
    "note",
    "doc",
    "raw",
    "day",
    "at",
    "at_utc",
    "tags",
    "range",
    "attributes",
    "steps",
    CAST('N/L' AS VARCHAR) AS "region",
    CAST('7' AS INTEGER) AS "n"
FROM read_parquet(
    [
        's3://lake/orders/load=7/data/region=N%2FL/n=7/part-00000-000-9f3a2b1c.parquet',
        's3://lake/orders/load=7/data/region=N%2FL/n=7/part-00001-001-9f3a2b1c.parquet'
    ],
    hive_partitioning = false
)
UNION ALL
SELECT
    "id",
    "flag",
    "small",
    "count",
    "ratio",
    "weight",
    "price",
    "amount",
    "note",
    "doc",
    "raw",
    "day",
    "at",
    "at_utc",
    "tags",
    "range",
    "attributes",
    "steps",
    CAST(NULL AS VARCHAR) AS "region",
    CAST('7' AS INTEGER) AS "n"
FROM read_parquet(
    [
        's3://lake/orders/load=7/data/region=__HIVE_DEFAULT_PARTITION__/n=7/part-00001-000-9f3a2b1c.parquet'
    ],
    hive_partitioning = false
)
UNION ALL
SELECT
    "id",
    "flag",
    "small",
    "count",
    "ratio",
    "weight",
    "price",
    "amount",
    "note",
    "doc",
    "raw",
    "day",
    "at",
    "at_utc",
    "tags",
    "range",
    "attributes",
    "steps",
    CAST('be' AS VARCHAR) AS "region",
    CAST('7' AS INTEGER) AS "n"
FROM read_parquet(
    [
        's3://lake/orders/load=7/data/region=be/n=7/part-00002-000-9f3a2b1c.parquet'
    ],
    hive_partitioning = false
);
