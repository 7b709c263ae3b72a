-- Athena: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, Parquet
-- TRUNCATED: a cap cut rows off
-- "at_utc": microseconds, of which Athena shows milliseconds; --preset athena writes those

CREATE EXTERNAL TABLE `orders` (
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
ROW FORMAT SERDE 'org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe'
STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://lake/orders/_symlink_format_manifest/';
