-- ClickHouse: public.a'; DROP TABLE x; -- " ` \  , exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- the server's own credentials read the bucket

CREATE OR REPLACE VIEW `a'; DROP TABLE x; -- " `` \\ 
` AS
SELECT
    `a'; DROP TABLE x; -- " `` \\ 
/* {b,c} */`,
    `\\'`,
    ``````
FROM s3('s3://lake/it''s/data/{part-00000-000-9f3a2b1c.parquet,part-00001-000-9f3a2b1c.parquet,part-00001-001-9f3a2b1c.parquet,part-00002-000-9f3a2b1c.parquet}', 'Parquet', '`a''; DROP TABLE x; -- " `` \\\\ 
/* {b,c} */` Nullable(Int32), `\\\\''` Nullable(String), `````` Nullable(String)', 'none')
SETTINGS
    use_hive_partitioning = 0;
