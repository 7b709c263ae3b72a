-- Redshift: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- IAM_ROLE default is the cluster's default role; the bucket is in the cluster's region
-- nested columns are SUPER, as SERIALIZETOJSON loads them
-- timestamp with time zone is TIMESTAMP in UTC: COPY reads no other from Parquet
-- AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy
-- VARCHAR holds 65,535 bytes: COPY fails over longer text

CREATE TABLE "orders" (
    "id" BIGINT,
    "flag" BOOLEAN,
    "small" SMALLINT,
    "count" INTEGER,
    "ratio" REAL,
    "weight" DOUBLE PRECISION,
    "price" DECIMAL(12,2),
    "amount" VARCHAR(65535),
    "note" VARCHAR(65535),
    "doc" VARCHAR(65535),
    "raw" VARBYTE(1024000),
    "day" DATE,
    "at" TIMESTAMP,
    "at_utc" TIMESTAMP,
    "tags" SUPER,
    "range" SUPER,
    "attributes" SUPER,
    "steps" SUPER
);

COPY "orders"
FROM 's3://lake/orders/_redshift/manifest'
IAM_ROLE default
MANIFEST
FORMAT AS PARQUET
SERIALIZETOJSON;
