-- ClickHouse: public.orders, exported by Outhaul 0.1.0
-- run 20260101T000000Z-4f1d2c3b: 12 rows in 4 parts, CSV
-- TRUNCATED: a cap cut rows off
-- column "born" is read as text: the manifest does not say what birthday is made of
-- file() reads below user_files_path on a server, and anywhere in clickhouse-local
-- a date or timestamp at infinity or outside the years 0 to 9999 fails a query
-- a Decimal has no NaN: a query that meets one fails

CREATE OR REPLACE VIEW `orders` AS
SELECT
    `id`,
    `flag`,
    `count`,
    `weight`,
    `price`,
    `note`,
    `doc`,
    unhex(substring(`raw`, 3)) AS `raw`,
    `key`,
    `day`,
    `opens`,
    `at`,
    `at_utc`,
    `tags`,
    `born`
FROM (
    SELECT * FROM file('/data/a b/[1]/x=1/data/part-00000-000-9f3a2b1c.parquet', 'CSVWithNames', '`id` Nullable(Int64), `flag` Nullable(Bool), `count` Nullable(Int32), `weight` Nullable(Float64), `price` Nullable(Decimal(12, 2)), `note` Nullable(String), `doc` Nullable(String), `raw` Nullable(String), `key` Nullable(UUID), `day` Nullable(Date32), `opens` Nullable(Time64(6)), `at` Nullable(DateTime64(6, ''UTC'')), `at_utc` Nullable(DateTime64(6, ''UTC'')), `tags` Nullable(String), `born` Nullable(String)', 'zstd')
    UNION ALL
    SELECT * FROM file('/data/a b/[1]/x=1/data/part-00001-000-9f3a2b1c.parquet', 'CSVWithNames', '`id` Nullable(Int64), `flag` Nullable(Bool), `count` Nullable(Int32), `weight` Nullable(Float64), `price` Nullable(Decimal(12, 2)), `note` Nullable(String), `doc` Nullable(String), `raw` Nullable(String), `key` Nullable(UUID), `day` Nullable(Date32), `opens` Nullable(Time64(6)), `at` Nullable(DateTime64(6, ''UTC'')), `at_utc` Nullable(DateTime64(6, ''UTC'')), `tags` Nullable(String), `born` Nullable(String)', 'zstd')
    UNION ALL
    SELECT * FROM file('/data/a b/[1]/x=1/data/part-00001-001-9f3a2b1c.parquet', 'CSVWithNames', '`id` Nullable(Int64), `flag` Nullable(Bool), `count` Nullable(Int32), `weight` Nullable(Float64), `price` Nullable(Decimal(12, 2)), `note` Nullable(String), `doc` Nullable(String), `raw` Nullable(String), `key` Nullable(UUID), `day` Nullable(Date32), `opens` Nullable(Time64(6)), `at` Nullable(DateTime64(6, ''UTC'')), `at_utc` Nullable(DateTime64(6, ''UTC'')), `tags` Nullable(String), `born` Nullable(String)', 'zstd')
    UNION ALL
    SELECT * FROM file('/data/a b/[1]/x=1/data/part-00002-000-9f3a2b1c.parquet', 'CSVWithNames', '`id` Nullable(Int64), `flag` Nullable(Bool), `count` Nullable(Int32), `weight` Nullable(Float64), `price` Nullable(Decimal(12, 2)), `note` Nullable(String), `doc` Nullable(String), `raw` Nullable(String), `key` Nullable(UUID), `day` Nullable(Date32), `opens` Nullable(Time64(6)), `at` Nullable(DateTime64(6, ''UTC'')), `at_utc` Nullable(DateTime64(6, ''UTC'')), `tags` Nullable(String), `born` Nullable(String)', 'zstd')
)
SETTINGS
    use_hive_partitioning = 0,
    date_time_input_format = 'best_effort',
    format_csv_delimiter = ',',
    format_csv_null_representation = '',
    input_format_csv_empty_as_default = 0,
    input_format_csv_trim_whitespaces = 0,
    input_format_csv_detect_header = 0,
    format_csv_allow_single_quotes = 0,
    input_format_with_names_use_header = 0;
