-- ClickHouse: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- the server's own credentials read the bucket
-- "grid", "odd": ClickHouse has no NULL there, and shows an empty value for it

CREATE OR REPLACE VIEW `orders` AS
SELECT
    `id`,
    `opens`,
    `wide`,
    `grid`,
    `odd`,
    `Id`
FROM s3('s3://lake/orders/data/{part-00000-000-9f3a2b1c.parquet,part-00001-000-9f3a2b1c.parquet,part-00001-001-9f3a2b1c.parquet,part-00002-000-9f3a2b1c.parquet}', 'Parquet', '`id` Nullable(UUID), `opens` Nullable(Time64(6)), `wide` Nullable(Decimal(50, 10)), `grid` Array(Tuple(`y` Array(Nullable(Int32)))), `odd` Tuple(`a b``c` Nullable(Int32)), `Id` Nullable(Int32)', 'none')
SETTINGS
    use_hive_partitioning = 0;
