-- Redshift Spectrum: public.a'; DROP TABLE x; -- " ` \  , exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- "spectrum" is a schema that CREATE EXTERNAL SCHEMA made; --name gives another
-- AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy
-- text of more than 65,535 bytes is cut when it is read

CREATE EXTERNAL TABLE "spectrum"."a'; DROP TABLE x; -- "" ` \ 
" (
    "a'; DROP TABLE x; -- "" ` \ 
/* {b,c} */" integer,
    "\'" varchar(65535),
    "``" varchar(65535)
)
STORED AS PARQUET
LOCATION 's3://lake/it''s/_redshift/manifest'
TABLE PROPERTIES ('numRows' = '12');
