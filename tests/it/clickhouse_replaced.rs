//! Another table of ClickHouse takes a table's name while it is exported: its parts have the names of the first one's parts.
//! The export ends with 12 and publishes nothing.

use std::time::Duration;

use crate::clickhouse_typed::{Target, between};
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::run::{Run, Stop, outhaul};

const PART_SET: [&str; 8] = ["--table", "t", "--format", "csv", "--readers", "1", "--partitions", "4"];

const BY_PARTITION: [&str; 10] =
    ["--table", "t", "--format", "csv", "--readers", "1", "--partitions", "4", "--consistency", "per_partition"];

/// Two tables of the same shape, with parts of the same names and rows.
async fn twins(server: &ClickHouse) {
    for (table, word) in [("t", "old"), ("next", "new")] {
        let made = "(id UInt32, v String) ENGINE = MergeTree PARTITION BY id % 4 ORDER BY id";
        server.run(&format!("CREATE TABLE {table} {made}")).await;
        server.run(&format!("INSERT INTO {table} SELECT number, '{word}' FROM numbers(4000)")).await;
    }
}

fn is_refused(run: &Run, target: &Target, what: &str) {
    assert_eq!(run.code, 12, "{what}: {}", run.stderr);
    assert!(!target.dest().join("_manifest.json").exists(), "{what}");
}

#[tokio::test]
async fn a_table_that_takes_the_name_between_plan_and_read_ends_the_run() {
    for arguments in [&PART_SET[..], &BY_PARTITION] {
        for done in ["EXCHANGE TABLES t AND next", "CREATE OR REPLACE TABLE t AS next"] {
            // Each slice finds it, and so does the look at the end.
            for off in [None, Some("identity"), Some("slice_identity")] {
                let server = clickhouse().await;
                twins(&server).await;
                let target = Target::new();
                let run = between(&server, &target, arguments, done, off).await;
                is_refused(&run, &target, &format!("{arguments:?} {done} {off:?}"));
                let told = run.report.to_string();
                let is_told = told.contains("another table is called") || told.contains("0 rows came");
                assert!(off.is_some() || is_told, "{told}");
            }
        }
        // Without both the new rows would be taken for the old ones.
        let server = clickhouse().await;
        twins(&server).await;
        let target = Target::new();
        let off = Some("identity,slice_identity");
        between(&server, &target, arguments, "EXCHANGE TABLES t AND next", off).await.expect(0);
        assert!(target.lines().iter().any(|line| line.contains("new")));
    }
}

#[tokio::test]
async fn a_killed_run_does_not_go_on_with_the_table_of_the_next_night() {
    for arguments in [&PART_SET[..], &BY_PARTITION] {
        let server = clickhouse().await;
        twins(&server).await;
        let target = Target::new();
        let stop = Stop::at("receipted");
        let running = target.command(&server, arguments).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        server.run("EXCHANGE TABLES t AND next").await;
        let (dest, url) = (target.dest(), server.url("writer"));
        let resume =
            ["resume", dest.to_str().unwrap(), "--from", &url, "--progress", "none", "--report", "json", "--take-over"];
        let resumed = || outhaul(resume).env("CLICKHOUSE_PASSWORD", &server.password);
        let run = resumed().run().await;
        is_refused(&run, &target, "resumed");
        assert!(run.report.to_string().contains("another table is called"), "{}", run.report);
        // It goes on once the table is back.
        server.run("EXCHANGE TABLES t AND next").await;
        resumed().run().await.expect(0);
        assert_eq!(target.lines().iter().filter(|line| line.contains("old")).count(), 4_000);
    }
}

/// A database of the old kind gives its tables no ids.
#[tokio::test]
async fn a_table_without_an_id_is_known_by_its_age() {
    let server = clickhouse().await;
    let database = format!("{}_plain", server.database);
    let made = format!("CREATE DATABASE {database} ENGINE = Ordinary");
    server.run_under("&allow_deprecated_database_ordinary=1", &made).await;
    let server = ClickHouse { database, ..server };
    twins(&server).await;
    let target = Target::new();
    let stop = Stop::at("planned");
    let running = target.command(&server, &PART_SET).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    // Ages are in seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    server.run("RENAME TABLE t TO gone, next TO t").await;
    stop.release();
    is_refused(&running.wait().await, &target, "renamed");
    let target = Target::new();
    target.export(&server, &PART_SET).await.expect(0);
}
