//! ClickHouse by its own partitions: a statement for each and one for new ones. What was there when the run was planned is there,
//! as it was, or the run ends; what is inserted meanwhile may come too.

use serde_json::json;

use crate::clickhouse_typed::{SUMS, Target, between, found, lines, sums};
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::run::{Run, Stop, outhaul};

const ARGUMENTS: [&str; 10] = [
    "--table",
    "lines",
    "--format",
    "parquet",
    "--readers",
    "2",
    "--partitions",
    "4",
    "--consistency",
    "per_partition",
];

async fn merging(rows: u32) -> ClickHouse {
    let server = lines(rows).await;
    server.run("SYSTEM START MERGES lines").await;
    server
}

#[tokio::test]
async fn each_partition_is_read_in_a_statement_of_its_own() {
    let server = lines(40_000).await;
    let expected = sums(&server).await;
    for format in ["parquet", "csv", "ndjson"] {
        let target = Target::new();
        let arguments = [&ARGUMENTS[..2], &["--format", format, "--compression", "none"], &ARGUMENTS[4..]].concat();
        target.export(&server, &arguments).await.expect(0);
        assert_eq!(found(&target.dest(), SUMS).await, expected, "{format}");
        let manifest = target.manifest();
        assert_eq!(manifest["consistency"]["mode"], "per_partition");
        assert_eq!(manifest["completeness"]["proof"], "eos_and_parts");
        assert!(manifest["consistency"]["note"].as_str().unwrap().contains("of its own moment"));
        // One for each, and none of new rows.
        assert_eq!(manifest["parts"].as_array().unwrap().len(), 4);
    }
    let url = server.url("writer");
    let plan = ["plan", "--from", &url, "--table", "lines", "--consistency", "per_partition", "--partitions", "4"];
    let run = outhaul(plan).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
    assert!(String::from_utf8_lossy(&run.stdout).contains("a statement for each partition of the table"), "{run:?}");
    // Small partitions share a statement.
    let target = Target::new();
    let arguments = [&ARGUMENTS[..6], &ARGUMENTS[8..], &["--where", "id % 2 = 0"]].concat();
    target.export(&server, &arguments).await.expect(0);
    assert_eq!(target.manifest()["parts"].as_array().unwrap().len(), 1);
    assert_eq!(target.manifest()["totals"]["rows"], 20_000);
}

#[tokio::test]
async fn rows_that_are_inserted_meanwhile_come_too_and_merges_change_nothing() {
    let inserted = "INSERT INTO lines SELECT number + 1000000, number % 2 * 8 + 1, 0, 'late', now() FROM numbers(200)";
    for (off, rows) in [(None, 40_200), (Some("complement"), 40_100)] {
        let server = merging(40_000).await;
        let target = Target::new();
        between(&server, &target, &ARGUMENTS, inserted, off).await.expect(0);
        assert_eq!(target.manifest()["totals"]["rows"], rows, "{off:?}");
        let ids = "SELECT count(*), count(DISTINCT id), sum((id < 40000)::INT)::INT FROM DATA";
        assert_eq!(found(&target.dest(), ids).await, json!([[rows, rows, 40_000]]));
    }
    let server = merging(40_000).await;
    let expected = sums(&server).await;
    let target = Target::new();
    between(&server, &target, &ARGUMENTS, "OPTIMIZE TABLE lines FINAL", None).await.expect(0);
    assert_eq!(found(&target.dest(), SUMS).await, expected);
}

fn nothing_of_it(run: &Run, target: &Target, done: &str) {
    let told = run.report.to_string();
    assert!(
        told.contains("are gone, or a mutation has changed them") || told.contains("were counted"),
        "{done}: {told}"
    );
    assert!(!target.dest().join("_manifest.json").exists(), "{done}");
}

#[tokio::test]
async fn rows_that_go_or_change_meanwhile_end_the_run() {
    // More rows come than go in the last two: their number says nothing.
    let again = "INSERT INTO lines SELECT number, 1, 0, 'again', now() FROM numbers(20000)";
    let changes: [(&str, &[&str]); 7] = [
        ("truncate", &["TRUNCATE TABLE lines"]),
        ("drop", &["ALTER TABLE lines DROP PARTITION 1"]),
        ("drop part", &["ALTER TABLE lines DROP PART '1_2_2_0'"]),
        ("delete", &["ALTER TABLE lines DELETE WHERE id < 7 SETTINGS mutations_sync = 2"]),
        ("light delete", &["DELETE FROM lines WHERE id < 7"]),
        ("drop and fill", &["ALTER TABLE lines DROP PARTITION 1", again]),
        ("update and fill", &["ALTER TABLE lines UPDATE note = 'x' WHERE id < 7 SETTINGS mutations_sync = 2", again]),
    ];
    for (what, statements) in changes {
        let server = merging(40_000).await;
        let target = Target::new();
        let (first, rest) = statements.split_first().unwrap();
        let stop = Stop::at("planned");
        let running = target.command(&server, &ARGUMENTS).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        server.run(first).await;
        for sql in rest {
            server.run(sql).await;
        }
        stop.release();
        let run = running.wait().await.expect(12);
        nothing_of_it(&run, &target, what);
    }
}

#[tokio::test]
async fn without_what_was_counted_and_seen_rows_would_be_missing() {
    let server = merging(40_000).await;
    let target = Target::new();
    let off = Some("planned_rows,planned_parts");
    between(&server, &target, &ARGUMENTS, "ALTER TABLE lines DROP PARTITION 1", off).await.expect(0);
    assert_eq!(target.manifest()["totals"]["rows"], 30_000);
    // Each alone finds it; a part that went is not found by the number of rows where others came.
    for off in ["planned_rows", "planned_parts"] {
        let server = merging(40_000).await;
        let target = Target::new();
        let run = between(&server, &target, &ARGUMENTS, "TRUNCATE TABLE lines", Some(off)).await.expect(12);
        nothing_of_it(&run, &target, off);
    }
    // Rows came and went, and are no fewer in any slice: without a look at the parts nobody would see it.
    let again = "INSERT INTO lines SELECT number + 1000000, 1, 0, 'again', now() FROM numbers(20000)";
    for (off, code) in [(None, 12), (Some("planned_parts"), 0)] {
        let server = merging(40_000).await;
        let target = Target::new();
        let stop = Stop::at("planned");
        let command = target.command(&server, &ARGUMENTS);
        let command = off.into_iter().fold(command, |command, off| command.env("OUTHAUL_TEST_OFF", off));
        let running = command.stops([&stop]).spawn();
        running.stands_at(&stop).await;
        server.run("ALTER TABLE lines DROP PARTITION 1").await;
        server.run(again).await;
        stop.release();
        let run = running.wait().await.expect(code);
        if code == 0 {
            let planned = "SELECT count(*)::INT FROM DATA WHERE id < 40000";
            assert_eq!(found(&target.dest(), planned).await, json!([[30_000]]));
        } else {
            nothing_of_it(&run, &target, "drop and fill");
        }
    }
    let doubled = "CREATE TABLE lines (id UInt64, v UInt8) ENGINE = ReplacingMergeTree ORDER BY id";
    for (off, code) in [(None, 12), (Some("planned_rows"), 0)] {
        let server = clickhouse().await;
        server.run(doubled).await;
        server.run("SYSTEM STOP MERGES lines").await;
        for version in 0..2 {
            server.run(&format!("INSERT INTO lines SELECT number, {version} FROM numbers(1000)")).await;
        }
        server.run("SYSTEM START MERGES lines").await;
        let target = Target::new();
        // Its merges drop rows that were counted, and every part went into the merged one.
        between(&server, &target, &ARGUMENTS, "OPTIMIZE TABLE lines FINAL", off).await.expect(code);
        if code == 0 {
            assert_eq!(target.manifest()["totals"]["rows"], 1_000);
        }
    }
}

#[tokio::test]
async fn final_is_split_only_where_the_partition_key_is_of_the_sorting_key() {
    let server = clickhouse().await;
    for (table, partition_by) in [("kept", "toYYYYMM(day)"), ("crossed", "v"), ("rounded", "toString(f)")] {
        server
            .run(&format!(
                "CREATE TABLE {table} (day Date, id UInt64, v UInt8, f Float64) ENGINE = ReplacingMergeTree(v) \
                 PARTITION BY {partition_by} ORDER BY (day, id, f)"
            ))
            .await;
        server.run(&format!("SYSTEM STOP MERGES {table}")).await;
        for version in 1..4 {
            server
                .run(&format!(
                    "INSERT INTO {table} SELECT toDate('2026-01-01') + number % 60, number, {version}, \
                     if({version} % 2 = 0, 0.0, -0.0) FROM numbers(3000)"
                ))
                .await;
        }
    }
    // 0.0 and -0.0 are one value to FINAL, and two partitions (ClickHouse#116981).
    for (table, mode) in [("kept", "per_partition"), ("crossed", "single_statement"), ("rounded", "single_statement")] {
        let target = Target::new();
        let dest = target.dest();
        let arguments =
            ["--table", table, "--format", "parquet", "--consistency", "per_partition", "--partitions", "3"];
        let own = ["--to", dest.to_str().unwrap(), "--report", "json", "--progress", "none"];
        server.export_as("final", &[&own, &arguments[..]].concat()).run().await.expect(0);
        assert_eq!(target.manifest()["consistency"]["mode"], mode);
        let rows = "SELECT count(*), count(DISTINCT id), min(v), max(v) FROM DATA";
        assert_eq!(found(&dest, rows).await, json!([[3000, 3000, 3, 3]]), "{table}");
        if mode == "single_statement" {
            let note = target.manifest()["consistency"]["note"].as_str().unwrap().to_owned();
            assert!(note.contains("the partition key is not made of columns of the sorting key"), "{note}");
        }
    }
}

#[tokio::test]
async fn a_killed_run_goes_on_by_the_partitions_of_its_plan() {
    let server = merging(40_000).await;
    let target = Target::new();
    let stop = Stop::at("receipted");
    let arguments = [&ARGUMENTS[..4], &["--readers", "1"], &ARGUMENTS[6..]].concat();
    let running = target.command(&server, &arguments).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await;
    server.run("OPTIMIZE TABLE lines FINAL").await;
    server.run("INSERT INTO lines SELECT number + 1000000, 9, 0, 'late', now() FROM numbers(100)").await;
    let (dest, url) = (target.dest(), server.url("writer"));
    let resume = ["resume", dest.to_str().unwrap(), "--from", &url, "--progress", "none", "--take-over"];
    outhaul(resume).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
    assert_eq!(found(&dest, "SELECT count(*), count(DISTINCT id) FROM DATA").await, json!([[40_100, 40_100]]));
}

#[tokio::test]
async fn a_mode_that_contradicts_the_rest_is_refused_before_anything_is_asked() {
    let nowhere = ["plan", "--from", "clickhouse://nobody@127.0.0.1:1/x"];
    for (arguments, told) in [
        (&["--table", "t", "--consistency", "per_partition", "--partitions", "1"][..], "--partitions 1"),
        (&["--table", "t", "--consistency", "part_set", "--key", "id"], "--key"),
        (&["--table", "t", "--consistency", "part_set", "--max-rows", "7"], "--max-rows"),
        (&["--query", "SELECT 1", "--consistency", "per_partition"], "--query"),
        (&["--table", "t", "--consistency", "single_statement", "--partitions", "3"], "--partitions"),
        (&["--table", "t", "--consistency", "snapshot"], "part_set, per_partition, single_statement"),
    ] {
        let run = outhaul([&nowhere[..], arguments].concat()).run().await.expect(2);
        assert!(run.stderr.contains(told), "{arguments:?}: {}", run.stderr);
    }
    let other = ["plan", "--from", "postgres://nobody@127.0.0.1:1/x", "--table", "t", "--consistency", "part_set"];
    let run = outhaul(other).run().await.expect(2);
    assert!(run.stderr.contains("not in ClickHouse"), "{}", run.stderr);
    let server = lines(4_000).await;
    let target = Target::new();
    target.export(&server, &["--table", "lines", "--consistency", "single_statement"]).await.expect(0);
    assert_eq!(target.manifest()["consistency"]["mode"], "single_statement");
    let verbatim = ["--query", "SELECT 1 FORMAT CSV", "--consistency", "single_statement", "--to", "-"];
    server.export(&verbatim).run().await.expect(0);
}
