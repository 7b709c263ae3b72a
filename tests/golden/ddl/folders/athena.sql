-- Athena: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- "at_utc": microseconds, of which Athena shows milliseconds; --preset athena writes those
-- column "DT" is left out of the table: its partition column of the same name stands for it
-- Athena runs one statement at a time: the table once, then ADD PARTITION for each export

CREATE EXTERNAL TABLE IF NOT EXISTS `orders` (
    `id` bigint,
    `flag` boolean,
    `small` smallint,
    `count` int,
    `ratio` float,
    `weight` double,
    `price` decimal(12,2),
    `amount` string,
    `note` string,
    `doc` string,
    `raw` binary,
    `at` timestamp,
    `at_utc` timestamp,
    `tags` array<string>,
    `range` struct<lower:int,upper:int,empty:boolean>,
    `attributes` map<string,string>,
    `steps` array<struct<at:date,name:string>>
)
PARTITIONED BY (`dt` string, `hour` string)
ROW FORMAT SERDE 'org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe'
STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://lake/orders/';

ALTER TABLE `orders` ADD IF NOT EXISTS
PARTITION (`dt` = '2026-11-21', `hour` = '07') LOCATION 's3://lake/orders/dt=2026-11-21/hour=07/_symlink_format_manifest/';
