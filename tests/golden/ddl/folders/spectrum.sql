-- Redshift Spectrum: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- "spectrum" is a schema that CREATE EXTERNAL SCHEMA made; --name gives another
-- AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy
-- text of more than 65,535 bytes is cut when it is read
-- nested columns are read with Redshift's syntax for them: FROM table t, t.list element
-- column "DT" is left out of the table: its partition column of the same name stands for it
-- the table is made once; ADD PARTITION is for each export

CREATE EXTERNAL TABLE "spectrum"."orders" (
    "id" bigint,
    "flag" boolean,
    "small" smallint,
    "count" integer,
    "ratio" real,
    "weight" double precision,
    "price" decimal(12,2),
    "amount" varchar(65535),
    "note" varchar(65535),
    "doc" varchar(65535),
    "raw" varbyte(1024000),
    "at" timestamp,
    "at_utc" timestamp,
    "tags" array<varchar(65535)>,
    "range" struct<lower:integer,upper:integer,empty:boolean>,
    "attributes" map<varchar(65535),varchar(65535)>,
    "steps" array<struct<at:date,name:varchar(65535)>>
)
PARTITIONED BY ("dt" varchar(256), "hour" varchar(256))
STORED AS PARQUET
LOCATION 's3://lake/orders/';

ALTER TABLE "spectrum"."orders" ADD IF NOT EXISTS
PARTITION ("dt" = '2026-11-21', "hour" = '07') LOCATION 's3://lake/orders/dt=2026-11-21/hour=07/_redshift/manifest';
