-- Redshift: public.a'; DROP TABLE x; -- " ` \  , exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- IAM_ROLE default is the cluster's default role; the bucket is in the cluster's region
-- AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy
-- VARCHAR holds 65,535 bytes: COPY fails over longer text

CREATE TABLE "a'; DROP TABLE x; -- "" ` \ 
" (
    "a'; DROP TABLE x; -- "" ` \ 
/* {b,c} */" INTEGER,
    "\'" VARCHAR(65535),
    "``" VARCHAR(65535)
);

COPY "a'; DROP TABLE x; -- "" ` \ 
"
FROM 's3://lake/it''s/_redshift/manifest'
IAM_ROLE default
MANIFEST
FORMAT AS PARQUET;
