-- Redshift: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, CSV
-- TRUNCATED: a cap cut rows off
-- column "born" is read as text: the manifest does not say what birthday is made of
-- IAM_ROLE default is the cluster's default role; the bucket is in the cluster's region
-- COPY does not tell an unquoted empty field (here NULL) from "" (here the empty string): in text columns both become the same; export with --csv-null, Parquet or NDJSON to keep them apart
-- COPY fails over what its types do not have: infinity and years before 1, 24:00:00, NaN in a decimal
-- bytea is text here, \x and two digits a byte: TO_VARBYTE(SUBSTRING(column, 3), 'hex')
-- VARCHAR holds 65,535 bytes: COPY fails over longer text

CREATE TABLE "orders" (
    "id" BIGINT,
    "flag" BOOLEAN,
    "count" INTEGER,
    "weight" DOUBLE PRECISION,
    "price" DECIMAL(12,2),
    "note" VARCHAR(65535),
    "doc" VARCHAR(65535),
    "raw" VARCHAR(65535),
    "key" CHAR(36),
    "day" DATE,
    "opens" TIME,
    "at" TIMESTAMP,
    "at_utc" TIMESTAMPTZ,
    "tags" VARCHAR(65535),
    "born" VARCHAR(65535)
);

COPY "orders" (
    "id",
    "flag",
    "count",
    "weight",
    "price",
    "note",
    "doc",
    "raw",
    "key",
    "day",
    "opens",
    "at",
    "at_utc",
    "tags",
    "born"
)
FROM 's3://lake/orders/_redshift/manifest'
IAM_ROLE default
MANIFEST
FORMAT AS CSV
DELIMITER AS ','
QUOTE AS '"'
IGNOREHEADER 1
NULL AS ''
DATEFORMAT 'auto'
TIMEFORMAT 'auto'
ENCODING UTF8;
