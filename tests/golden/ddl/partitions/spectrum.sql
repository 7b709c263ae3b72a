-- Redshift Spectrum: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- "spectrum" is a schema that CREATE EXTERNAL SCHEMA made; --name gives another
-- AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy
-- text of more than 65,535 bytes is cut when it is read
-- nested columns are read with Redshift's syntax for them: FROM table t, t.list element
-- the table is made once; ADD PARTITION is for each export
-- a value that is gone from a later export has to be dropped by ALTER TABLE … DROP PARTITION

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
    "day" date,
    "at" timestamp,
    "at_utc" timestamp,
    "tags" array<varchar(65535)>,
    "range" struct<lower:integer,upper:integer,empty:boolean>,
    "attributes" map<varchar(65535),varchar(65535)>,
    "steps" array<struct<at:date,name:varchar(65535)>>
)
PARTITIONED BY ("load" varchar(256), "region" varchar(65535), "n" integer)
STORED AS PARQUET
LOCATION 's3://lake/orders/';

ALTER TABLE "spectrum"."orders" ADD IF NOT EXISTS
PARTITION ("load" = '7', "region" = 'N/L', "n" = '7') LOCATION 's3://lake/orders/load=7/_redshift/region=N%2FL/n=7/manifest'
PARTITION ("load" = '7', "region" = '__HIVE_DEFAULT_PARTITION__', "n" = '7') LOCATION 's3://lake/orders/load=7/_redshift/region=__HIVE_DEFAULT_PARTITION__/n=7/manifest'
PARTITION ("load" = '7', "region" = 'be', "n" = '7') LOCATION 's3://lake/orders/load=7/_redshift/region=be/n=7/manifest';
