//! Foreign tables: their server does not know our snapshot. What is read of them is of the moment of each statement, the
//! manifest says so, and no statement among several is read a second time.

use std::time::Duration;

use crate::support::foreign;
use crate::support::job::{command, copy, export_csv, no_sessions_left, parts, sorted};
use crate::support::pg::{Pg, both, pg};
use crate::support::place::Place;
use crate::support::run::{Run, Stop, outhaul};
use crate::support::{eventually, unique};

const COLUMNS: &str = "(id int, v text)";

/// The foreign table `t` over 20,000 rows, beside all through which it can be read.
async fn made(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(
        "create schema away; create table away.t (id int, v text);
        alter table away.t set (autovacuum_enabled = off);
        insert into away.t select i, repeat(md5(i::text), 10) from generate_series(1, 20000) i;
        create table near (id int primary key, v text); insert into near select * from away.t where id <= 500",
    )
    .await;
    pg.batch(&foreign::tables(&pg, "away.t", COLUMNS, &["t", "leaf", "child"]).await).await;
    pg.batch(
        "create view v as select id, v from t where id % 2 = 0; create view vv as select v.* from v join near using (id);
        create materialized view m as select * from t where id <= 1000;
        create table parent (id int, v text) partition by range (id);
        create table near_leaf partition of parent for values from (100000) to (200000);
        insert into parent values (100001, 'near');
        alter table parent attach partition leaf for values from (0) to (100000);
        create table mother (id int, v text); insert into mother values (0, 'mother'); alter table child inherit mother;
        analyze",
    )
    .await;
    pg
}

#[tokio::test]
async fn the_manifest_and_the_plan_say_that_foreign_tables_are_read() {
    for version in both() {
        let pg = made(version).await;
        for (what, keyed, foreign) in [
            (&["--table", "t"][..], true, true),
            (&["--table", "v"], true, true),
            (&["--table", "vv"], true, true),
            (&["--table", "parent"], true, true),
            (&["--table", "mother"], true, true),
            (&["--query", "select * from t where id < 9"], true, true),
            (
                &["--query", "with w as (select id from t) select n.id from near n where exists (select from w)"],
                true,
                true,
            ),
            (&["--table", "near", "--where", "id in (select id from t)"], false, true),
            (&["--table", "near", "--column", "n=(select count(*) from v)"], false, true),
            (&["--table", "m"], true, false),
            (&["--table", "near"], true, false),
            (&["--table", "near_leaf"], true, false),
        ] {
            let splits: &[&[&str]] = if keyed { &[&[], &["--key", "id", "--partitions", "3"]] } else { &[&[]] };
            for split in splits {
                let done = export_csv(&pg, &[what, split].concat(), 0).await;
                let consistency = done.manifest()["consistency"].clone();
                let mode = if foreign { "foreign" } else { "single_snapshot" };
                assert_eq!(consistency["mode"], mode, "{version}: {what:?} {split:?}");
                let note = consistency["note"].as_str().unwrap_or_default();
                assert_eq!(note.contains("foreign table"), foreign, "{what:?}: {note}");
                let planned = planned(&pg, &[what, split].concat()).await;
                assert_eq!(planned.report["read"]["consistency"], mode, "{what:?}");
                let several = planned.report["partitions"].as_array().unwrap().len() > 1;
                assert!(!foreign || note.contains("one statement") != several, "{what:?} {split:?}: {note}");
            }
        }
    }
}

async fn planned(pg: &Pg, args: &[&str]) -> Run {
    let fixed = ["plan", "--from", &pg.url, "--report", "json", "--format", "csv"];
    outhaul([&fixed[..], args].concat()).run().await.expect(0)
}

/// Ends all readers that there are.
async fn lose_readers(pg: &Pg) -> Vec<String> {
    let readers = pg.exporter_pids("reader").await;
    for reader in &readers {
        // It may be gone by itself.
        pg.sql(&format!("select pg_terminate_backend({reader})")).await;
    }
    for reader in &readers {
        eventually(Duration::from_secs(10), "the end of a reader", async || {
            let left = pg.value(&format!("select count(*) from pg_stat_activity where pid = {reader}")).await;
            (left == "0").then_some(())
        })
        .await;
    }
    readers
}

/// Splits the foreign table in two, and ends the reader that stands in the middle of one half.
async fn loses_a_reader(pg: &Pg, place: &Place, args: &[&str], off: &str) -> Run {
    let stop = Stop::at("batch");
    let export = place.export(&pg.url, &[&["--readers", "2"], args].concat());
    let running = export.env("OUTHAUL_TEST_OFF", off).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    if pg.version == 15 {
        pg.batch("update away.t set v = v || 'x' where id <= 300").await;
    }
    let killed = lose_readers(pg).await;
    assert!(!killed.is_empty());
    stop.release();
    running.wait().await
}

#[tokio::test]
async fn one_statement_of_several_is_not_repeated() {
    for version in both() {
        let pg = made(version).await;
        let place = Place::local();
        let run = loses_a_reader(&pg, &place, &["--key", "id", "--partitions", "2"], "").await.expect(12);
        assert!(run.stderr.contains("another moment of the foreign server"), "{}", run.stderr);
        assert_eq!(run.report["retryable"], true);
        assert!(place.is_empty().await, "{:?}", place.list().await);
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn the_only_statement_starts_over() {
    for version in both() {
        let pg = made(version).await;
        for table in ["t", "parent"] {
            let place = Place::local();
            let run = loses_a_reader(&pg, &place, &["--table", table, "--partitions", "1"], "").await.expect(0);
            assert!(run.stderr.contains("an attempt failed"), "{}", run.stderr);
            let manifest = place.manifest().await;
            assert_eq!(manifest["consistency"]["mode"], "foreign");
            assert_eq!(place.whole().await, sorted(&copy(&pg, &format!("select * from {table}")).await));
        }
    }
}

/// Without the mechanism a statement is repeated at another moment, and the rows are told to be of one.
#[tokio::test]
async fn a_statement_that_is_repeated_is_told_to_be_of_the_same_snapshot() {
    let pg = made(15).await;
    let place = Place::local();
    let run = loses_a_reader(&pg, &place, &["--key", "id", "--partitions", "2"], "foreign").await.expect(0);
    assert!(run.stderr.contains("repeated under the same snapshot"), "{}", run.stderr);
    assert_eq!(place.manifest().await["consistency"]["mode"], "single_snapshot");
}

#[tokio::test]
async fn a_run_that_has_read_a_part_of_a_foreign_table_is_not_resumed() {
    for version in both() {
        let pg = made(version).await;
        for (at, args, code) in [
            ("receipted", &["--key", "id", "--partitions", "3"][..], 12),
            ("planned", &["--key", "id", "--partitions", "3"], 0),
            ("receipted", &["--partitions", "1"], 0),
        ] {
            let place = Place::local();
            let stop = Stop::at(at);
            let kept = [&["--readers", "1", "--keep-snapshot", "60s"], args].concat();
            let running = place.export(&pg.url, &kept).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            running.signal("KILL").await;
            running.wait().await;
            let url = place.url();
            let resume = ["resume", &url, "--from", &pg.url, "--report", "json", "--progress", "none"];
            let run = place.outhaul(resume).run().await.expect(code);
            if code == 0 {
                assert_eq!(place.manifest().await["consistency"]["mode"], "foreign");
                assert_eq!(place.whole().await, sorted(&copy(&pg, "select * from t").await), "{at}");
            } else {
                assert!(run.stderr.contains("another moment of the foreign server"), "{}", run.stderr);
                assert_eq!(run.report["retryable"], true);
                // The same export again settles it.
                place.export(&pg.url, args).run().await.expect(0);
                assert_eq!(place.whole().await, sorted(&copy(&pg, "select * from t").await), "{at}");
            }
        }
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn verify_does_not_call_it_one_snapshot() {
    let pg = made(15).await;
    let done = export_csv(&pg, &["--table", "t", "--key", "id", "--partitions", "2"], 0).await;
    let dest = done.dest();
    let against = |report: &'static str| {
        outhaul(["verify", dest.to_str().unwrap(), "--against-source", "--from", &pg.url, "--report", report]).run()
    };
    let run = against("json").await.expect(0);
    assert_eq!((&run.report["source"]["mode"], &run.report["source"]["foreign"]), (&"now".into(), &true.into()));
    let text = against("text").await.expect(0);
    let said = format!("{}{}", String::from_utf8_lossy(&text.stdout), text.stderr);
    assert!(said.contains("foreign tables") && !said.contains("snapshot is gone"), "{said}");
    pg.batch("delete from away.t where id = 7").await;
    let run = against("json").await.expect(30);
    assert!(run.report.to_string().contains("the source may have changed since"), "{}", run.report);
}

/// What is counted before it is read may be another number by then.
#[tokio::test]
async fn a_cap_over_a_foreign_table_is_counted_as_it_is_read() {
    for version in both() {
        let pg = made(version).await;
        for (args, cap, code) in [
            (&["--table", "t"][..], "1000", 3),
            (&["--table", "t", "--key", "id"], "1000", 3),
            (&["--table", "v"], "20000", 0),
            (&["--table", "near", "--where", "id in (select id from t)"], "100", 3),
        ] {
            let done = export_csv(&pg, &[args, &["--max-rows", cap, "--partitions", "2"]].concat(), code).await;
            assert_eq!(done.manifest()["consistency"]["mode"], "foreign", "{args:?}");
            let expected = if code == 3 { cap } else { "10000" };
            assert_eq!(done.manifest()["totals"]["rows"].to_string(), expected);
        }
    }
    let pg = made(15).await;
    let place = Place::local();
    let stop = Stop::at("planned");
    let capped = ["--partitions", "1", "--max-rows", "19900"];
    let running = place.export(&pg.url, &capped).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    pg.batch("delete from away.t where id <= 500").await;
    stop.release();
    running.wait().await.expect(0);
    let manifest = place.manifest().await;
    assert_eq!((&manifest["status"], &manifest["totals"]["rows"]), (&"complete".into(), &19_500.into()));
}

/// With estimates of the other server planning itself connects to it.
#[tokio::test]
async fn partitions_that_are_planned_by_the_other_server() {
    let pg = pg(15).await;
    let far = format!("far_{}", unique());
    pg.batch(&format!("create database {far}")).await;
    let other = crate::support::pg::connect(&pg.url.replace(pg.url.rsplit_once('/').unwrap().1, &far)).await;
    other
        .batch_execute(
            "create table orders (id int, v text) partition by range (id);
            create table low partition of orders for values from (0) to (1000);
            create table high partition of orders for values from (1000) to (2000);
            insert into orders select i, 'x' from generate_series(0, 1999) i; analyze",
        )
        .await
        .unwrap();
    pg.batch(&foreign::postgres(&pg, &far).await).await;
    pg.batch(
        "alter server far options (add use_remote_estimate 'true');
        create table orders (id int, v text) partition by range (id); create schema imported;
        import foreign schema public limit to (low, high) from server far into imported;
        alter table orders attach partition imported.low for values from (0) to (1000);
        alter table orders attach partition imported.high for values from (1000) to (2000)",
    )
    .await;
    for args in [&["--table", "orders"][..], &["--table", "orders", "--key", "id", "--partitions", "4"]] {
        let done = export_csv(&pg, args, 0).await;
        assert_eq!(done.sorted(), sorted(&copy(&pg, "select * from orders").await));
        assert_eq!(done.manifest()["consistency"]["mode"], "foreign");
        assert!(!parts(&done.manifest()).is_empty());
    }
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    command(&pg, to.to_str().unwrap(), &["--table", "imported.low"]).run().await.expect(0);
    no_sessions_left(&pg).await;
    drop(other);
    pg.batch(&format!("drop database {far} with (force)")).await;
}
