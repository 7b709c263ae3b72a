-- ClickHouse: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- the server's own credentials read the bucket
-- a date outside the years 0 to 9999 fails a query; a timestamp after 9999 is shown as 9999
-- "tags", "range", "attributes", "steps": ClickHouse has no NULL there, and shows an empty value for it

CREATE OR REPLACE VIEW `orders` AS
SELECT
    `id`,
    `flag`,
    `small`,
    `count`,
    `ratio`,
    `weight`,
    `price`,
    `amount`,
    `note`,
    `doc`,
    `raw`,
    `day`,
    `at`,
    `at_utc`,
    `tags`,
    `range`,
    `attributes`,
    `steps`
FROM s3('s3://lake/orders/data/{part-00000-000-9f3a2b1c.parquet,part-00001-000-9f3a2b1c.parquet,part-00001-001-9f3a2b1c.parquet,part-00002-000-9f3a2b1c.parquet}', 'Parquet', '`id` Int64, `flag` Nullable(Bool), `small` Nullable(Int16), `count` Nullable(Int32), `ratio` Nullable(Float32), `weight` Nullable(Float64), `price` Nullable(Decimal(12, 2)), `amount` Nullable(String), `note` Nullable(String), `doc` Nullable(String), `raw` Nullable(String), `day` Nullable(Date32), `at` Nullable(DateTime64(3, ''UTC'')), `at_utc` Nullable(DateTime64(6, ''UTC'')), `tags` Array(Nullable(String)), `range` Tuple(`lower` Nullable(Int32), `upper` Nullable(Int32), `empty` Nullable(Bool)), `attributes` Map(String, Nullable(String)), `steps` Array(Tuple(`at` Nullable(Date32), `name` Nullable(String)))', 'none')
SETTINGS
    use_hive_partitioning = 0;
