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
    "steps"
FROM read_parquet(
    [
        's3://lake/orders/data/part-00000-000-9f3a2b1c.parquet',
        's3://lake/orders/data/part-00001-000-9f3a2b1c.parquet',
        's3://lake/orders/data/part-00001-001-9f3a2b1c.parquet',
        's3://lake/orders/data/part-00002-000-9f3a2b1c.parquet'
    ],
    hive_partitioning = false
);
