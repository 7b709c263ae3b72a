-- Athena: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- "at_utc": microseconds, of which Athena shows milliseconds; --preset athena writes those
-- a value that is gone from a later export has to be dropped by ALTER TABLE … DROP PARTITION
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
    `day` date,
    `at` timestamp,
    `at_utc` timestamp,
    `tags` array<string>,
    `range` struct<lower:int,upper:int,empty:boolean>,
    `attributes` map<string,string>,
    `steps` array<struct<at:date,name:string>>
)
PARTITIONED BY (`load` string, `region` string, `n` int)
ROW FORMAT SERDE 'org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe'
STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://lake/orders/';

ALTER TABLE `orders` ADD IF NOT EXISTS
PARTITION (`load` = '7', `region` = 'N/L', `n` = '7') LOCATION 's3://lake/orders/load=7/_symlink_format_manifest/region=N%2FL/n=7/'
PARTITION (`load` = '7', `region` = '__HIVE_DEFAULT_PARTITION__', `n` = '7') LOCATION 's3://lake/orders/load=7/_symlink_format_manifest/region=__HIVE_DEFAULT_PARTITION__/n=7/'
PARTITION (`load` = '7', `region` = 'be', `n` = '7') LOCATION 's3://lake/orders/load=7/_symlink_format_manifest/region=be/n=7/';
