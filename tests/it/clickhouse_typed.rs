//! Typed exports of ClickHouse: every type in every format, slices of named parts, and what happens to them meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::run::{Outhaul, Run, Stop, outhaul};
use crate::support::{manifest, variable, within};

const LIMIT: Duration = Duration::from_mins(2);

/// What another reader finds in the parts at a destination.
pub(crate) async fn found(dest: &Path, statement: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clickhouse_oracle.py");
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.arg(script).arg(dest).arg(statement).kill_on_drop(true);
    let output = within(LIMIT, "clickhouse_oracle.py", python.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A place of its own for one export.
pub(crate) struct Target {
    folder: TempDir,
}

impl Target {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dest(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub(crate) fn command(&self, server: &ClickHouse, arguments: &[&str]) -> Outhaul {
        let dest = self.dest();
        let own = ["--to", dest.to_str().unwrap(), "--report", "json", "--progress", "none"];
        server.export(&[&own, arguments].concat()).limit(LIMIT)
    }

    pub(crate) async fn export(&self, server: &ClickHouse, arguments: &[&str]) -> Run {
        self.command(server, arguments).run().await
    }

    pub(crate) fn manifest(&self) -> Value {
        manifest(&self.dest())
    }

    /// The lines of all parts, in order.
    pub(crate) fn lines(&self) -> Vec<String> {
        let parts = self.manifest()["parts"].as_array().unwrap().clone();
        let text = |part: &Value| {
            let path = self.dest().join(part["path"].as_str().unwrap());
            std::fs::read_to_string(path).unwrap()
        };
        parts.iter().flat_map(|part| text(part).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

/// A column of each type, and two rows: one of ordinary values, one of extremes and NULLs.
const EVERY_TYPE: [(&str, &str, &str, &str); 36] = [
    ("b", "Bool", "true", "false"),
    ("u8", "UInt8", "1", "255"),
    ("u16", "UInt16", "1", "65535"),
    ("u32", "UInt32", "1", "4294967295"),
    ("u64", "UInt64", "1", "18446744073709551615"),
    (
        "u256",
        "UInt256",
        "1",
        "toUInt256('57896044618658097711785492504343953926634992332820282019728792003956564819969')",
    ),
    ("i8", "Int8", "1", "-128"),
    ("i16", "Int16", "1", "-32768"),
    ("i32", "Int32", "1", "-2147483648"),
    ("i64", "Int64", "1", "-9223372036854775808"),
    ("i128", "Int128", "1", "toInt128('-170141183460469231731687303715884105728')"),
    ("f32", "Float32", "1.5", "-0.1"),
    ("f64", "Float64", "1.5", "0.1"),
    ("bf", "BFloat16", "1.5", "-2"),
    ("d9", "Decimal(9, 2)", "1.5", "toDecimal32('-1234567.89', 2)"),
    ("d38", "Decimal(38, 10)", "1.5", "toDecimal128('-1234567890123456789012345678.0123456789', 10)"),
    ("d76", "Decimal(76, 3)", "1.5", "toDecimal256('-1234567890123456789012345678901234567890.125', 3)"),
    ("day", "Date", "'2020-02-29'", "'2149-06-06'"),
    ("day32", "Date32", "'2020-02-29'", "'1900-01-01'"),
    ("t", "DateTime('Asia/Tokyo')", "'2020-02-29 09:00:00'", "'2106-02-07 15:28:15'"),
    ("t3", "DateTime64(3, 'UTC')", "'2020-02-29 00:00:00.125'", "'1969-12-31 23:59:59.750'"),
    ("t6", "Nullable(DateTime64(6, 'UTC'))", "'2020-02-29 00:00:00.000001'", "NULL"),
    ("t9", "DateTime64(9, 'UTC')", "'2020-02-29 00:00:00.123456789'", "'1970-01-01 00:00:00'"),
    ("e", "Enum8('it\\'s' = 1, 'ü' = -2)", "'it\\'s'", "'ü'"),
    ("s", "String", "'a,\"b\"\\nc'", "''"),
    ("n", "Nullable(String)", "'x'", "NULL"),
    ("lc", "LowCardinality(Nullable(String))", "'x'", "NULL"),
    ("fs", "FixedString(2)", "'ab'", "'zz'"),
    ("u", "UUID", "'61f0c404-5cb3-11e7-907b-a6006ad3dba0'", "'00000000-0000-0000-0000-000000000000'"),
    ("ip4", "IPv4", "'127.0.0.1'", "'255.255.255.255'"),
    ("ip6", "IPv6", "'::1'", "'2001:db8::ff'"),
    ("a", "Array(Nullable(UInt32))", "[1, NULL]", "[]"),
    ("tu", "Tuple(x UInt8, y Nullable(Date32))", "(1, '2020-02-29')", "(2, NULL)"),
    ("m", "Map(String, UInt64)", "map('k', 18446744073709551615)", "map()"),
    ("j", "JSON", "'{\"a\":{\"b\":[1,2]}}'", "'{}'"),
    ("v", "Variant(String, UInt64)", "7::UInt64", "NULL"),
];

async fn every_type() -> ClickHouse {
    let server = clickhouse().await;
    let columns: Vec<String> = EVERY_TYPE.iter().map(|(name, of, ..)| format!("{name} {of}")).collect();
    let columns = columns.join(", ");
    let made = format!("CREATE TABLE every ({columns}) ENGINE = MergeTree ORDER BY u8");
    server.run(&made).await;
    let rows = [EVERY_TYPE.map(|(_, _, first, _)| first), EVERY_TYPE.map(|(_, _, _, second)| second)];
    for values in rows {
        server.run(&format!("INSERT INTO every SELECT {}", values.join(", "))).await;
    }
    server
}

#[tokio::test]
async fn every_type_leaves_exactly_as_csv() {
    let server = every_type().await;
    let target = Target::new();
    target.export(&server, &["--table", "every", "--format", "csv", "--where", "u8 = 255"]).await.expect(0);
    let line = target.lines().pop().unwrap();
    let expected = "f,255,65535,4294967295,18446744073709551615,\
        57896044618658097711785492504343953926634992332820282019728792003956564819969,-128,-32768,-2147483648,\
        -9223372036854775808,-170141183460469231731687303715884105728,-0.1,0.1,-2,-1234567.89,\
        -1234567890123456789012345678.0123456789,-1234567890123456789012345678901234567890.125,2149-06-06,1900-01-01,\
        2106-02-07 06:28:15+00,1969-12-31 23:59:59.75+00,,1970-01-01 00:00:00.000000000+00,ü,\"\",,,zz,\
        00000000-0000-0000-0000-000000000000,255.255.255.255,2001:db8::ff,[],\"{\"\"x\"\":2,\"\"y\"\":null}\",{},{},";
    assert_eq!(line, expected);
}

#[tokio::test]
async fn every_type_leaves_exactly_as_ndjson() {
    let server = every_type().await;
    let target = Target::new();
    target.export(&server, &["--table", "every", "--format", "ndjson", "--where", "u8 = 1"]).await.expect(0);
    let row: Value = serde_json::from_str(&target.lines()[0]).unwrap();
    let expected = json!({
        "b": true, "u8": 1, "u16": 1, "u32": 1, "u64": 1, "u256": 1, "i8": 1, "i16": 1, "i32": 1, "i64": 1, "i128": 1,
        "f32": 1.5, "f64": 1.5, "bf": 1.5, "d9": 1.50, "d38": 1.5, "d76": 1.500, "day": "2020-02-29", "day32": "2020-02-29",
        "t": "2020-02-29T00:00:00+00:00", "t3": "2020-02-29T00:00:00.125+00:00", "t6": "2020-02-29T00:00:00.000001+00:00",
        "t9": "2020-02-29 00:00:00.123456789+00", "e": "it's", "s": "a,\"b\"\nc", "n": "x", "lc": "x", "fs": "ab",
        "u": "61f0c404-5cb3-11e7-907b-a6006ad3dba0", "ip4": "127.0.0.1", "ip6": "::1", "a": [1, null],
        "tu": {"x": 1, "y": "2020-02-29"}, "m": {"k": 18_446_744_073_709_551_615_u64}, "j": {"a": {"b": [1, 2]}}, "v": "7",
    });
    assert_eq!(row, expected);
}

#[tokio::test]
async fn every_type_leaves_exactly_as_parquet() {
    let server = every_type().await;
    let target = Target::new();
    target.export(&server, &["--table", "every", "--format", "parquet"]).await.expect(0);
    let rows = found(&target.dest(), "pyarrow").await;
    let of = |number: u64| rows.as_array().unwrap().iter().find(|row| row["u8"] == number).unwrap().clone();
    let expected = json!({
        "b": true, "u8": 1, "u16": 1, "u32": 1, "u64": "1", "u256": "1", "i8": 1, "i16": 1, "i32": 1, "i64": 1, "i128": "1",
        "f32": 1.5, "f64": 1.5, "bf": 1.5, "d9": "1.50", "d38": "1.5000000000", "d76": "1.500", "day": "2020-02-29",
        "day32": "2020-02-29", "t": "2020-02-29 00:00:00+00:00", "t3": "2020-02-29 00:00:00.125000+00:00",
        "t6": "2020-02-29 00:00:00.000001+00:00", "t9": "2020-02-29 00:00:00.123456789+00", "e": "it's", "s": "a,\"b\"\nc",
        "n": "x", "lc": "x", "fs": "ab", "u": "61f0c404-5cb3-11e7-907b-a6006ad3dba0", "ip4": "127.0.0.1", "ip6": "::1",
        "a": [1, null], "tu": {"x": 1, "y": "2020-02-29"}, "m": "{\"k\":18446744073709551615}", "j": "{\"a\":{\"b\":[1,2]}}",
        "v": "7",
    });
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), |text| text.replace('-', ""));
    for (name, value) in expected.as_object().unwrap() {
        let one = of(1);
        // A UUID comes as its bytes or as its text, by the version of pyarrow.
        assert!(one[name] == *value || name == "u" && text(&one[name]) == text(value), "{name}: {} {value}", one[name]);
    }
    let extremes = of(255);
    assert_eq!(extremes["u64"], "18446744073709551615");
    assert_eq!(extremes["t"], "2106-02-07 06:28:15+00:00");
    assert_eq!(extremes["t3"], "1969-12-31 23:59:59.750000+00:00");
    assert_eq!(extremes["d38"], "-1234567890123456789012345678.0123456789");
    assert_eq!((&extremes["t6"], &extremes["v"], &extremes["a"]), (&Value::Null, &Value::Null, &json!([])));
    let manifest = target.manifest();
    assert_eq!(
        (&manifest["source"]["kind"], &manifest["consistency"]["mode"]),
        (&json!("clickhouse"), &json!("part_set"))
    );
    assert_eq!(manifest["completeness"]["proof"], "eos_and_count");
    assert_eq!(manifest["schema"][4]["source_type"], "UInt64");
    assert_eq!(manifest["schema"][4]["pg_type"], "numeric(20,0)");
}

/// Rows in four partitions of the table, in many parts.
pub(crate) async fn lines(rows: u32) -> ClickHouse {
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE lines (id UInt64, bucket UInt8, price Decimal(15, 2), note String, at DateTime('UTC')) \
             ENGINE = MergeTree PARTITION BY bucket ORDER BY id SETTINGS index_granularity = 1024",
        )
        .await;
    server.run("SYSTEM STOP MERGES lines").await;
    for part in 0..4 {
        let rows = rows / 4;
        let from = part * rows;
        server
            .run(&format!(
                "INSERT INTO lines SELECT number + {from}, number % 4, number % 1000 / 7, \
                 concat('note, \"', toString(number), '\"'), toDateTime(number * 60, 'UTC') FROM numbers({rows})"
            ))
            .await;
    }
    server
}

pub(crate) const SUMS: &str = "SELECT count(*), sum(id::HUGEINT)::VARCHAR, (sum(price::DECIMAL(18, 2)) * 100)::BIGINT::VARCHAR, \
    sum(length(note))::VARCHAR, count(DISTINCT id) FROM DATA";

pub(crate) async fn sums(server: &ClickHouse) -> Value {
    let sql = "SELECT count(), toString(sum(id)), toString(toInt64(sum(price) * 100)), toString(sum(lengthUTF8(note))), \
        uniqExact(id) FROM lines FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0";
    json!([serde_json::from_str::<Value>(&server.run(sql).await).unwrap()])
}

#[tokio::test]
async fn any_number_of_readers_gives_the_same_rows() {
    let server = lines(200_000).await;
    let expected = sums(&server).await;
    for (readers, format) in [("1", "parquet"), ("2", "csv"), ("8", "ndjson"), ("8", "parquet")] {
        let target = Target::new();
        let arguments = ["--table", "lines", "--format", format, "--readers", readers, "--partitions", "9"];
        target.export(&server, &[&arguments[..], &["--compression", "none"]].concat()).await.expect(0);
        assert_eq!(found(&target.dest(), SUMS).await, expected, "{readers} {format}");
        let manifest = target.manifest();
        let partitions: std::collections::BTreeSet<u64> =
            manifest["parts"].as_array().unwrap().iter().map(|part| part["partition"].as_u64().unwrap()).collect();
        assert!(partitions.len() > 5, "{partitions:?}");
    }
}

/// Exports with the run held between its plan and its first read, while something is done to the table.
async fn meanwhile(server: &ClickHouse, target: &Target, done: &str, off: Option<&str>) -> Run {
    let arguments = ["--table", "lines", "--format", "parquet", "--readers", "2", "--partitions", "8"];
    between(server, target, &arguments, done, off).await
}

/// The same with other arguments.
pub(crate) async fn between(
    server: &ClickHouse,
    target: &Target,
    arguments: &[&str],
    done: &str,
    off: Option<&str>,
) -> Run {
    let stop = Stop::at("planned");
    let mut command = target.command(server, arguments).stops([&stop]);
    if let Some(off) = off {
        command = command.env("OUTHAUL_TEST_OFF", off);
    }
    let running = command.spawn();
    running.stands_at(&stop).await;
    server.run(done).await;
    stop.release();
    running.wait().await
}

#[tokio::test]
async fn parts_that_merge_before_they_are_read_are_planned_anew() {
    let server = lines(40_000).await;
    let expected = sums(&server).await;
    server.run("SYSTEM START MERGES lines").await;
    let target = Target::new();
    meanwhile(&server, &target, "OPTIMIZE TABLE lines FINAL", None).await.expect(0);
    assert_eq!(found(&target.dest(), SUMS).await, expected);
    let note = target.manifest()["consistency"]["note"].as_str().unwrap().to_owned();
    assert!(note.contains("planned anew"), "{note}");
}

#[tokio::test]
async fn rows_that_go_between_plan_and_read_end_the_run() {
    let gone = [
        "TRUNCATE TABLE lines",
        "ALTER TABLE lines DROP PARTITION 1",
        "ALTER TABLE lines DELETE WHERE id < 7 SETTINGS mutations_sync = 2",
    ];
    for done in gone {
        let server = lines(40_000).await;
        server.run("SYSTEM START MERGES lines").await;
        let target = Target::new();
        let run = meanwhile(&server, &target, done, None).await.expect(12);
        assert!(
            run.stderr.contains("have changed while they were read") || run.report.to_string().contains("have changed"),
            "{run:?}"
        );
        assert!(!target.dest().join("_manifest.json").exists(), "{done}");
        // The switch shows that it is the planned rows that tell.
        let server = lines(40_000).await;
        server.run("SYSTEM START MERGES lines").await;
        let target = Target::new();
        meanwhile(&server, &target, done, Some("planned_rows")).await.expect(0);
        assert!(target.manifest()["totals"]["rows"].as_u64().unwrap() < 40_000, "{done}");
    }
}

#[tokio::test]
async fn a_killed_run_is_resumed_though_its_parts_have_merged() {
    let server = lines(40_000).await;
    let expected = sums(&server).await;
    let target = Target::new();
    let stop = Stop::at("receipted");
    let arguments = ["--table", "lines", "--format", "parquet", "--readers", "1", "--partitions", "8"];
    let running = target.command(&server, &arguments).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await;
    server.run("SYSTEM START MERGES lines").await;
    server.run("OPTIMIZE TABLE lines FINAL").await;
    let (dest, url) = (target.dest(), server.url("writer"));
    let resume = [
        "resume",
        dest.to_str().unwrap(),
        "--from",
        url.as_str(),
        "--report",
        "json",
        "--progress",
        "none",
        "--take-over",
    ];
    outhaul(resume).env("CLICKHOUSE_PASSWORD", &server.password).limit(LIMIT).run().await.expect(0);
    assert_eq!(found(&target.dest(), SUMS).await, expected);
    let verify = ["verify", dest.to_str().unwrap(), "--against-source", "--from", url.as_str()];
    outhaul(verify).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
}

#[tokio::test]
async fn rows_that_go_are_missed_when_their_parts_are_planned_anew() {
    let server = lines(40_000).await;
    server.run("SYSTEM START MERGES lines").await;
    let target = Target::new();
    let done = "ALTER TABLE lines DELETE WHERE id < 7 SETTINGS mutations_sync = 2";
    meanwhile(&server, &target, done, Some("fewer_rows")).await.expect(0);
    assert_eq!(target.manifest()["totals"]["rows"], 39_993, "the switch shows what the comparison is for");
}

#[tokio::test]
async fn an_update_of_rows_between_plan_and_read_ends_the_run() {
    for off in [None, Some("patches")] {
        let server = clickhouse().await;
        server
            .run(
                "CREATE TABLE lines (id UInt64, note String) ENGINE = MergeTree ORDER BY id \
                 SETTINGS enable_block_number_column = 1, enable_block_offset_column = 1",
            )
            .await;
        server.run("INSERT INTO lines SELECT number, 'a' FROM numbers(40000)").await;
        let target = Target::new();
        let done = "UPDATE lines SET note = 'b' WHERE id < 7 SETTINGS enable_lightweight_update = 1, \
            allow_experimental_lightweight_update = 1";
        let run = meanwhile(&server, &target, done, off).await.expect(if off.is_none() { 12 } else { 0 });
        assert_eq!(off.is_none(), run.report.to_string().contains("were updated"), "{run:?}");
    }
}

#[tokio::test]
async fn a_run_ends_when_its_time_is_over() {
    let server = clickhouse().await;
    let slow = "SELECT number, sleepEachRow(0.01) AS s FROM numbers(1000000) SETTINGS max_block_size = 10";
    let arguments = ["--query", slow, "--format", "csv", "--max-duration", "2s"];
    let target = Target::new();
    let run = target.export(&server, &arguments).await.expect(16);
    assert!(run.stderr.contains("--max-duration") || run.report.to_string().contains("--max-duration"), "{run:?}");
}

#[tokio::test]
async fn a_cap_gives_the_first_rows_by_key() {
    let server = lines(8_000).await;
    let ids = |target: &Target| target.lines().into_iter().skip(1).collect::<Vec<_>>();
    let capped = ["--table", "lines", "--format", "csv", "--columns", "id", "--max-rows", "10"];
    for readers in ["1", "8"] {
        let target = Target::new();
        target.export(&server, &[&capped[..], &["--key", "id desc", "--readers", readers]].concat()).await.expect(3);
        let expected: Vec<String> = (7_990..8_000).rev().map(|id| id.to_string()).collect();
        assert_eq!(ids(&target), expected);
        assert_eq!(target.manifest()["row_cap"]["order"], "key");
    }
    let target = Target::new();
    target.export(&server, &capped).await.expect(3);
    assert_eq!(ids(&target), (0..10).map(|id| id.to_string()).collect::<Vec<_>>(), "by the table's own key");
    let target = Target::new();
    let all = ["--table", "lines", "--format", "csv", "--where", "id < 10", "--max-rows", "10", "--key", "id"];
    target.export(&server, &all).await.expect(0);
}

/// A day of 25 hours, of which one comes twice: its texts are ambiguous.
#[tokio::test]
async fn a_key_of_moments_splits_the_night_on_which_an_hour_comes_twice() {
    let server = clickhouse().await;
    let first = "toDateTime('2026-10-24 22:00:00', 'UTC') + number";
    for (of, value) in [
        ("DateTime('Europe/Amsterdam')", first.to_owned()),
        ("DateTime64(3, 'Europe/Amsterdam')", first.to_owned()),
        ("Nullable(DateTime('Europe/Amsterdam'))", format!("if(number = 7, NULL, {first})")),
        ("LowCardinality(Nullable(DateTime('Europe/Amsterdam')))", format!("if(number = 7, NULL, {first})")),
    ] {
        let low = "allow_suspicious_low_cardinality_types = 1";
        let view = format!("SELECT CAST({value} AS {of}) AS ts, number AS id FROM numbers(90000) SETTINGS {low}");
        server.run(&format!("CREATE OR REPLACE VIEW night AS {view}")).await;
        let target = Target::new();
        let arguments = ["--table", "night", "--format", "parquet", "--key", "ts", "--partitions", "32"];
        target.export(&server, &arguments).await.expect(0);
        let manifest = target.manifest();
        assert_eq!(manifest["consistency"]["mode"], "key_ranges", "{of}: {manifest}");
        assert!(manifest["parts"].as_array().unwrap().len() > 16, "{of}");
        let counts = "SELECT count(*), count(DISTINCT id) FROM DATA";
        assert_eq!(found(&target.dest(), counts).await, json!([[90_000, 90_000]]), "{of}");
    }
    // Where the bounds do not come back from their texts, it is one statement; the switches show what each is for.
    for (off, mode) in [("bound_in_utc", "single_statement"), ("bound_in_utc,same_bound", "key_ranges")] {
        server.run(&format!("CREATE OR REPLACE VIEW night AS SELECT toTimeZone({first}, 'Europe/Amsterdam') AS ts, number AS id FROM numbers(90000)")).await;
        let target = Target::new();
        let arguments = ["--table", "night", "--format", "parquet", "--key", "ts", "--partitions", "64"];
        target.command(&server, &arguments).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        let manifest = target.manifest();
        assert_eq!(manifest["consistency"]["mode"], mode);
        assert_eq!(manifest["totals"]["rows"] == 90_000, mode == "single_statement", "{off}: {}", manifest["totals"]);
    }
}

#[tokio::test]
async fn a_key_splits_what_has_no_parts_and_leaves_nothing_out() {
    let server = clickhouse().await;
    server
        .run(
            "CREATE VIEW halves AS SELECT if(number % 10 = 0, NULL, if(number % 10 = 1, nan, number / 2)) AS k, number AS id, \
             if(number % 3 = 0, '\\xff', 'x') AS word FROM numbers(20000)",
        )
        .await;
    let target = Target::new();
    let split =
        ["--format", "parquet", "--key", "k", "--readers", "2", "--partitions", "7", "--invalid-utf8", "replace"];
    target.export(&server, &[&["--table", "halves"], &split[..]].concat()).await.expect(0);
    let counts = "SELECT count(*), count(DISTINCT id), count(k), min(id), max(id) FROM DATA";
    assert_eq!(found(&target.dest(), counts).await, json!([[20_000, 20_000, 18_000, "0", "19999"]]));
    let manifest = target.manifest();
    assert_eq!(manifest["consistency"]["mode"], "key_ranges");
    assert!(manifest["parts"].as_array().unwrap().len() > 3);
    assert_eq!(manifest["schema"][2]["policy_count"], 6_667);
    // What depends on all rows is one statement.
    let target = Target::new();
    let query = ["--query", "SELECT * FROM halves WHERE isFinite(k) ORDER BY id LIMIT 500"];
    target.export(&server, &[&query[..], &split].concat()).await.expect(0);
    assert_eq!(target.manifest()["consistency"]["mode"], "single_statement");
    assert_eq!(target.manifest()["totals"]["rows"], 500);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_its_code() {
    let server = clickhouse().await;
    server
        .run("CREATE TABLE bad (id UInt8, s AggregateFunction(sum, UInt8), w String) ENGINE = MergeTree ORDER BY id")
        .await;
    server.run("INSERT INTO bad SELECT 1, sumState(1::UInt8), '\\xff'").await;
    for (arguments, code, words) in [
        (&["--table", "nothing"][..], 13, "there is no table"),
        (&["--table", "bad"], 2, "aggregate function"),
        (&["--table", "bad", "--columns", "idd"], 2, "there is no column"),
        (&["--table", "bad", "--columns", "id,w"], 14, "UTF-8"),
        (&["--table", "bad", "--columns", "id", "--where", "id = 1) OR (1 = 1"], 2, "--where"),
        (&["--table", "bad", "--columns", "id", "--where", "nowhere = 1"], 15, "nowhere"),
        (&["--table", "bad", "--columns", "id", "--read-mode", "keyset"], 2, "ClickHouse"),
        (&["--table", "bad", "--columns", "id", "--keep-snapshot", "1h"], 2, "ClickHouse"),
        (&["--query", "SELECT number, number FROM numbers(3)"], 2, "two columns"),
        (&["--query", "SELECT throwIf(number = 300000) AS a FROM numbers(1000000)"], 15, "throwIf"),
    ] {
        let target = Target::new();
        let run = target.export(&server, &[arguments, &["--format", "csv"]].concat()).await.expect(code);
        assert!(run.stderr.contains(words) || run.report.to_string().contains(words), "{arguments:?}: {}", run.stderr);
        assert!(!target.dest().join("_manifest.json").exists());
    }
    let target = Target::new();
    let wrong = target.command(&server, &["--table", "bad"]).env("CLICKHOUSE_PASSWORD", "wrong").run().await.expect(10);
    assert!(!wrong.stderr.contains("wrong\""), "{}", wrong.stderr);
}

#[tokio::test]
async fn columns_that_are_made_come_where_they_are_named() {
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE made (id UInt32, twice UInt32 MATERIALIZED id * 2, shown String ALIAS toString(id), \
             n Nested(k String, v UInt8)) ENGINE = MergeTree ORDER BY id",
        )
        .await;
    server.run("INSERT INTO made SELECT number + 1, ['a'], [7] FROM numbers(3)").await;
    let target = Target::new();
    target.export(&server, &["--table", "made", "--format", "csv"]).await.expect(0);
    assert_eq!(target.lines()[..2], ["id,n.k,n.v", "1,\"[\"\"a\"\"]\",[7]"]);
    let to = ["--table", "made", "--format", "csv", "--columns", "shown,twice,more", "--column", "more=id + 0.5"];
    let target = Target::new();
    target.export(&server, &[&to[..], &["--rename", "twice=doubled", "--where", "twice = 4"]].concat()).await.expect(0);
    assert_eq!(target.lines(), ["shown,doubled,more", "2,4,2.5"]);
    let stdout =
        server.export(&["--table", "made", "--format", "ndjson", "--columns", "id", "--to", "-"]).run().await.expect(0);
    assert_eq!(String::from_utf8(stdout.stdout).unwrap(), "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n");
}
