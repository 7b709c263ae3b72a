-- DuckDB: public.a'; DROP TABLE x; -- " ` \  , exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- INSTALL httpfs; LOAD httpfs; and CREATE SECRET for the bucket come first

CREATE OR REPLACE VIEW "a'; DROP TABLE x; -- "" ` \ 
" AS
SELECT
    "a'; DROP TABLE x; -- "" ` \ 
/* {b,c} */",
    "\'",
    "``"
FROM read_parquet(
    [
        's3://lake/it''s/data/part-00000-000-9f3a2b1c.parquet',
        's3://lake/it''s/data/part-00001-000-9f3a2b1c.parquet',
        's3://lake/it''s/data/part-00001-001-9f3a2b1c.parquet',
        's3://lake/it''s/data/part-00002-000-9f3a2b1c.parquet'
    ],
    hive_partitioning = false
);
