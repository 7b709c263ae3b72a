-- Redshift Spectrum: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, NDJSON
-- TRUNCATED: a cap cut rows off
-- column "born" is read as text: the manifest does not say what birthday is made of
-- "spectrum" is a schema that CREATE EXTERNAL SCHEMA made; --name gives another
-- text of more than 65,535 bytes is cut when it is read
-- dates and times are text, as infinity and years before 1 are; a decimal has no NaN

CREATE EXTERNAL TABLE "spectrum"."orders" (
    "id" bigint,
    "flag" boolean,
    "count" integer,
    "weight" double precision,
    "price" decimal(12,2),
    "note" varchar(65535),
    "doc" varchar(65535),
    "raw" varchar(65535),
    "key" varchar(65535),
    "day" varchar(65535),
    "opens" varchar(65535),
    "at" varchar(65535),
    "at_utc" varchar(65535),
    "tags" varchar(65535),
    "born" varchar(65535),
    "exact" varchar(65535)
)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
STORED AS TEXTFILE
LOCATION 's3://lake/orders/_redshift/manifest'
TABLE PROPERTIES ('numRows' = '12');
