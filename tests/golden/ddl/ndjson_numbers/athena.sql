-- Athena: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, NDJSON
-- TRUNCATED: a cap cut rows off
-- column "born" is read as text: the manifest does not say what birthday is made of
-- "day", "at", "at_utc": strings, as infinity and years before 1 are; date(…) and from_iso8601_timestamp(…) read them
-- "price": a decimal there has no NaN

CREATE EXTERNAL TABLE `orders` (
    `id` bigint,
    `flag` boolean,
    `count` int,
    `weight` double,
    `price` decimal(12,2),
    `note` string,
    `doc` string,
    `raw` string,
    `key` string,
    `day` string,
    `opens` string,
    `at` string,
    `at_utc` string,
    `tags` string,
    `born` string,
    `exact` string
)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://lake/orders/_symlink_format_manifest/';
