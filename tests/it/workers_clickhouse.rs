//! Workers of a run over ClickHouse: by named parts, by partitions of the table and by ranges of a key they make the export
//! that a single process would have made, or the run ends with 12 and nothing is there; and none leaves a query at the server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clickhouse_lineitem::{SUMS, TABLE as LINEITEM, own_sums};
use crate::clickhouse_typed::found;
use crate::crash::{comparable, kill};
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::clickhouse_fake::{FakeClickHouse, Scripted};
use crate::support::eventually;
use crate::support::job::parts;
use crate::support::manifest;
use crate::support::pg::lineitem;
use crate::support::place::Place;
use crate::support::run::{Outhaul, Running, Stop, outhaul};
use crate::support::s3::s3;
use crate::workers::{Driver, QUICK, lines, receipts, told};

/// After this nothing of a run may be at the server.
const GONE: Duration = Duration::from_secs(10);

const BY_PARTITION: [&str; 2] = ["--consistency", "per_partition"];

fn driver(server: &ClickHouse, place: &Place, args: &[&str]) -> Outhaul {
    let all = [&["--workers", "external"], args].concat();
    place
        .export(&server.url("writer"), &all)
        .env("CLICKHOUSE_PASSWORD", &server.password)
        .env("OUTHAUL_TEST_LIMITS", QUICK)
}

fn alone(server: &ClickHouse, place: &Place, args: &[&str]) -> Outhaul {
    place.export(&server.url("writer"), args).env("CLICKHOUSE_PASSWORD", &server.password)
}

fn worker<T: AsRef<str>>(server: &ClickHouse, place: &Place, args: &[T]) -> Outhaul {
    let (url, from) = (place.url(), server.url("writer"));
    let own = ["worker", "--destination", &url, "--from", &from];
    let run = place.outhaul(own.into_iter().chain(args.iter().map(AsRef::as_ref)));
    run.env("CLICKHOUSE_PASSWORD", &server.password).env("OUTHAUL_TEST_LIMITS", QUICK)
}

/// A table of four partitions, each of two parts.
async fn quarters() -> ClickHouse {
    let server = clickhouse().await;
    let table = "CREATE TABLE t (id UInt32, v String) ENGINE = MergeTree PARTITION BY id % 4 ORDER BY id \
        SETTINGS enable_block_number_column = 1, enable_block_offset_column = 1";
    server.run(table).await;
    server.run("SYSTEM STOP MERGES t").await;
    for half in 0..2 {
        let rows = format!("INSERT INTO t SELECT number * 2 + {half}, toString(cityHash64(number)) FROM numbers(2000)");
        server.run(&rows).await;
    }
    server.run("SYSTEM START MERGES t").await;
    server
}

/// A table of two partitions, of each of which the server sends more than sockets take in, and a small one.
async fn wide() -> ClickHouse {
    let server = clickhouse().await;
    let table =
        "CREATE TABLE t (id UInt32, v String) ENGINE = MergeTree PARTITION BY if(id < 12000, id % 2, 2) ORDER BY id";
    server.run(table).await;
    server.run("INSERT INTO t SELECT number, randomPrintableASCII(5000) FROM numbers(12100)").await;
    server
}

/// Half a minute of one statement, whose rows are few.
const SLOW: &str = "SELECT number AS id, sleepEachRow(0.01) AS v FROM numbers(3000) SETTINGS max_block_size = 10";

/// Statements of ours that read rows of the test's database now.
async fn reading(server: &ClickHouse) -> u32 {
    let sql = format!(
        "SELECT count() FROM system.processes WHERE current_database = '{}' AND query LIKE '%outhaul_c0%' \
         AND query NOT LIKE '%system.processes%'",
        server.database
    );
    server.run(&sql).await.trim().parse().unwrap()
}

async fn no_query_left(server: &ClickHouse) {
    eventually(GONE, "no query of the run", async || (reading(server).await == 0).then_some(())).await;
}

/// What a manifest says of its rows: a file of Parquet names its run, and threads of the server have no order.
fn essence(manifest: &Value) -> Value {
    let of = |part: &Value| json!([part["partition"], part["rows"]]);
    let parts: Vec<Value> = parts(manifest).iter().map(of).collect();
    let consistency = [&manifest["consistency"]["mode"], &manifest["consistency"]["note"]];
    json!([manifest["schema"], manifest["totals"]["rows"], consistency, manifest["completeness"], parts])
}

/// W0: one worker or several, by whatever the plan splits, the export is that of a single process.
#[tokio::test]
async fn the_export_is_that_of_a_single_process() {
    let pg = lineitem(18).await;
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours");
    let first = ["export", "lineitem", "--from", &pg.url, "--to", ours.to_str().unwrap(), "--format", "parquet"];
    outhaul(first).run().await.expect(0);
    let server = clickhouse().await;
    server.run(LINEITEM).await;
    for part in parts(&manifest(&ours)) {
        server.load("lineitem", "Parquet", &std::fs::read(ours.join(part["path"].as_str().unwrap())).unwrap()).await;
    }
    let expected = own_sums(&server).await;
    for (mode, split, count) in [
        ("per_partition", &BY_PARTITION[..], 1),
        ("per_partition", &BY_PARTITION, 3),
        ("key_ranges", &["--key", "l_orderkey"], 2),
        ("key_ranges", &["--key", "l_orderkey"], 3),
        ("part_set", &[], 2),
    ] {
        let args = [&["--table", "lineitem", "--format", "parquet", "--partitions", "8"], split].concat();
        let [single, place] = [Place::local(), Place::local()];
        alone(&server, &single, &args).run().await.expect(0);
        let driver = Driver::start(driver(&server, &place, &args)).await;
        let shards: Vec<String> = (0..count).map(|index| format!("{index}/{count}")).collect();
        let workers: Vec<Running> =
            shards.iter().map(|shard| worker(&server, &place, &["--shard", shard]).spawn()).collect();
        let mut read = Vec::new();
        for worker in workers {
            read.extend(told(&worker.wait().await.expect(0)).0);
        }
        read.sort_unstable();
        assert_eq!(read, driver.partitions(), "{mode} {count}: each is read once");
        driver.running.wait().await.expect(0);
        assert_eq!(found(&place.folder(), SUMS).await, expected, "{mode} {count}");
        let (ours, theirs) = (place.manifest().await, single.manifest().await);
        assert_eq!(ours["consistency"]["mode"], mode);
        if mode == "key_ranges" {
            // The sample by which the key is cut is of no fixed order.
            assert_eq!(ours["totals"]["rows"], theirs["totals"]["rows"]);
        } else {
            assert_eq!(essence(&ours), essence(&theirs), "{mode} {count}");
        }
    }
    no_query_left(&server).await;
}

/// W1: a worker that is killed in the middle of a part leaves neither its query nor its upload, and costs its partition alone.
#[tokio::test]
async fn a_killed_worker_leaves_no_query() {
    let server = wide().await;
    for place in Place::both() {
        let driver = Driver::start(driver(&server, &place, &BY_PARTITION)).await;
        let stop = Stop::at("batch");
        let running = worker(&server, &place, &driver.fence("1")).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        assert_eq!(reading(&server).await, 1);
        kill(running).await;
        no_query_left(&server).await;
        let run = worker(&server, &place, &["--shard", "0/1"]).run().await.expect(0);
        assert_eq!((told(&run).0, told(&run).1.len()), (driver.partitions(), 0));
        driver.running.wait().await.expect(0);
        let single = Place::local();
        alone(&server, &single, &BY_PARTITION).run().await.expect(0);
        assert_eq!(place.whole().await, single.whole().await);
    }
}

/// Told to stop, a worker kills its own query; and a run that ends takes along what a worker that hangs still asks for.
#[tokio::test]
async fn whoever_stops_ends_the_queries() {
    let server = wide().await;
    let place = Place::local();
    let started = Driver::start(driver(&server, &place, &BY_PARTITION)).await;
    let stop = Stop::at("batch");
    let running = worker(&server, &place, &started.fence("1")).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("TERM").await;
    stop.release();
    running.wait().await.expect(143);
    no_query_left(&server).await;
    started.running.signal("TERM").await;
    started.running.wait().await.expect(143);

    for (off, left) in [("", 0), ("clear_seats", 1)] {
        let started = Driver::start(driver(&server, &place, &["--query", SLOW]).env("OUTHAUL_TEST_OFF", off)).await;
        let hung = worker(&server, &place, &started.fence("0")).spawn();
        eventually(GONE, "the query", async || (reading(&server).await == 1).then_some(())).await;
        // It hears nothing any more, as on a machine that is cut off: only the server can end its query.
        hung.signal("STOP").await;
        started.running.signal("TERM").await;
        started.running.wait().await.expect(143);
        if left == 0 {
            no_query_left(&server).await;
        } else {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(reading(&server).await, left, "without the run's word its query would be gone");
        }
        hung.signal("CONT").await;
        let run = hung.wait().await;
        assert!([16, 21, 22].contains(&run.code), "{}: {}", run.code, run.stderr);
        no_query_left(&server).await;
        place.nothing_is_left().await;
    }
}

/// Merges change nothing in a run by partitions of the table; what takes rows away ends it, before or after its worker came.
#[tokio::test]
async fn by_partitions_of_the_table_merges_change_nothing_and_removals_end_the_run() {
    let server = quarters().await;
    let [single, place] = [Place::local(), Place::local()];
    let args = [&BY_PARTITION[..], &["--partitions", "4"]].concat();
    alone(&server, &single, &args).run().await.expect(0);
    let started = Driver::start(driver(&server, &place, &args)).await;
    worker(&server, &place, &started.fence("1")).run().await.expect(0);
    server.run("OPTIMIZE TABLE t FINAL").await;
    worker(&server, &place, &["--shard", "0/1"]).run().await.expect(0);
    started.running.wait().await.expect(0);
    assert_eq!(place.whole().await, single.whole().await);
    assert_eq!(comparable(place.manifest().await), comparable(single.manifest().await));

    for done in [
        "ALTER TABLE t DELETE WHERE id < 9 SETTINGS mutations_sync = 2",
        "ALTER TABLE t DROP PARTITION 2",
        "TRUNCATE TABLE t",
    ] {
        let server = quarters().await;
        let place = Place::local();
        let started = Driver::start(driver(&server, &place, &args)).await;
        worker(&server, &place, &started.fence("1")).run().await.expect(0);
        server.run(done).await;
        let run = worker(&server, &place, &["--shard", "0/1"]).run().await.expect(12);
        let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
        assert_eq!((&failed[0]["code"], &failed[0]["retryable"]), (&json!(12), &json!(false)), "{done}: {failed:?}");
        let run = started.running.wait().await.expect(12);
        assert!(run.stderr.contains("a worker failed: "), "{done}: {}", run.stderr);
        place.nothing_is_left().await;
    }
}

/// Whoever commits counts the rows of each receipt itself: a worker that did not look is found out.
#[tokio::test]
async fn rows_that_a_worker_did_not_miss_are_missed_at_the_end() {
    for (split, done) in [
        (&["--consistency", "per_partition"][..], "ALTER TABLE t DROP PARTITION 2"),
        (&[], "ALTER TABLE t DELETE WHERE id < 9 SETTINGS mutations_sync = 2"),
    ] {
        for (off, code) in [("", 12), ("planned_rows", 0)] {
            let server = quarters().await;
            let place = Place::local();
            let started = Driver::start(driver(&server, &place, split).env("OUTHAUL_TEST_OFF", off)).await;
            server.run(done).await;
            let blind =
                worker(&server, &place, &["--shard", "0/1"]).env("OUTHAUL_TEST_OFF", "planned_rows,planned_parts");
            blind.run().await.expect(0);
            let run = started.running.wait().await.expect(code);
            if code == 12 {
                assert!(run.stderr.contains("were counted when the run was planned"), "{}", run.stderr);
                place.nothing_is_left().await;
            }
        }
    }
}

/// What the process that plans looks at before it commits holds for receipts of others.
#[tokio::test]
async fn an_update_of_rows_between_two_workers_ends_the_run() {
    for (off, code) in [("", 12), ("patches", 0)] {
        let server = quarters().await;
        let place = Place::local();
        let args = [&BY_PARTITION[..], &["--partitions", "4"]].concat();
        let started = Driver::start(driver(&server, &place, &args).env("OUTHAUL_TEST_OFF", off)).await;
        worker(&server, &place, &started.fence("0,1")).run().await.expect(0);
        let update = "UPDATE t SET v = 'late' WHERE id < 9 SETTINGS enable_lightweight_update = 1, \
            allow_experimental_lightweight_update = 1";
        server.run(update).await;
        worker(&server, &place, &["--shard", "0/1"]).run().await.expect(0);
        let run = started.running.wait().await.expect(code);
        if code == 12 {
            assert!(run.stderr.contains("were updated while they were read"), "{}", run.stderr);
            place.nothing_is_left().await;
        }
    }
}

/// Named parts that merge are not planned anew where others read: whoever finds it says so, and the run ends.
#[tokio::test]
async fn by_named_parts_a_part_that_goes_ends_the_run() {
    let server = quarters().await;
    let place = Place::S3(s3());
    let started = Driver::start(driver(&server, &place, &["--partitions", "8"])).await;
    worker(&server, &place, &started.fence("1")).run().await.expect(0);
    server.run("OPTIMIZE TABLE t FINAL").await;
    let run = worker(&server, &place, &["--shard", "0/1"]).run().await.expect(12);
    assert!(run.stderr.contains("nothing is planned anew") && run.stderr.contains("per_partition"), "{}", run.stderr);
    let run = started.running.wait().await.expect(12);
    assert!(run.stderr.contains("nothing is planned anew") && run.stderr.contains("per_partition"), "{}", run.stderr);
    place.nothing_is_left().await;
}

/// W8: the process that plans is killed. Another one goes on with its run, and only what is missing is read.
#[tokio::test]
async fn a_killed_driver_costs_no_partition() {
    let server = quarters().await;
    let [single, place] = [Place::local(), Place::S3(s3())];
    let args = [&BY_PARTITION[..], &["--partitions", "4"]].concat();
    alone(&server, &single, &args).run().await.expect(0);
    let started = Driver::start(driver(&server, &place, &args)).await;
    worker(&server, &place, &started.fence("0,2")).run().await.expect(0);
    kill(started.running).await;
    server.run("OPTIMIZE TABLE t FINAL").await;
    let (url, from) = (place.url(), server.url("writer"));
    let words = ["resume", &url, "--from", &from, "--report", "json", "--progress", "none", "--workers", "external"];
    let resuming = place.outhaul(words).env("CLICKHOUSE_PASSWORD", &server.password).env("OUTHAUL_TEST_LIMITS", QUICK);
    let resumed = Driver::start(resuming).await;
    assert_eq!(resumed.partitions(), [1, 3, 4]);
    let run = worker(&server, &place, &["--shard", "0/1"]).run().await.expect(0);
    assert_eq!(told(&run), (vec![1, 3, 4], vec![0, 2]));
    resumed.running.wait().await.expect(0);
    assert_eq!(place.whole().await, single.whole().await);
}

/// However many workers are started, `--max-workers` of them read; the others wait, and go on as soon as one has ended.
#[tokio::test]
async fn no_more_workers_read_than_may() {
    let server = wide().await;
    let args = [&BY_PARTITION[..], &["--max-workers", "1"]].concat();
    for (off, readers) in [("", 1), ("slots", 2)] {
        let place = Place::local();
        let driver = Driver::start(driver(&server, &place, &args)).await;
        let stop = Stop::at("batch");
        let first = worker(&server, &place, &driver.fence("0")).stops([&stop]).spawn();
        first.stands_at(&stop).await;
        let rest: Vec<String> = driver.partitions().iter().skip(1).map(u64::to_string).collect();
        let late = Stop::at("batch");
        let second =
            worker(&server, &place, &driver.fence(&rest.join(","))).stops([&late]).env("OUTHAUL_TEST_OFF", off);
        let second = second.spawn();
        if off.is_empty() {
            second.stderr_has("waiting for one of them to end").await;
        } else {
            second.stands_at(&late).await;
        }
        assert_eq!(reading(&server).await, readers, "{off}");
        stop.release();
        first.wait().await.expect(0);
        if off.is_empty() {
            second.stands_at(&late).await;
        }
        late.release();
        second.wait().await.expect(0);
        driver.running.wait().await.expect(0);
    }
}

/// One statement is one partition, which one worker reads, clock and all; bytes of the server's own are refused; and another
/// server has other parts.
#[tokio::test]
async fn one_statement_has_one_worker_and_another_server_none() {
    let server = quarters().await;
    let place = Place::local();
    let query = ["--query", "SELECT id, v, now64(9) AS at FROM t WHERE id < 100"];
    let started = Driver::start(driver(&server, &place, &query)).await;
    assert_eq!(started.partitions(), [0]);
    let run = worker(&server, &place, &["--shard", "1/2"]).run().await.expect(0);
    assert_eq!(told(&run), (vec![], vec![]));
    worker(&server, &place, &["--shard", "0/2"]).run().await.expect(0);
    started.running.wait().await.expect(0);
    let moments: std::collections::BTreeSet<String> =
        place.whole().await.iter().map(|row| row.rsplit_once(',').unwrap().1.to_owned()).collect();
    assert_eq!(moments.len(), 1, "{moments:?}");

    let place = Place::local();
    let (url, to) = (server.url("writer"), place.url());
    for what in [&["--table", "t", "--format", "source"][..], &["--query", "SELECT 1 FORMAT CSV"]] {
        let all = [&["export", "--workers", "external", "--from", &url, "--to", &to], what].concat();
        let run = place.outhaul(all).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(2);
        assert!(run.stderr.contains("one process writes"), "{what:?}: {}", run.stderr);
        place.nothing_is_left().await;
    }

    let started = Driver::start(driver(&server, &place, &BY_PARTITION)).await;
    let other = FakeClickHouse::start("26.9.2.1", vec![Scripted::bare(b"\n")]).await;
    let fence = started.fence("0");
    let own = ["worker", "--destination", &to, "--from", &other.url()];
    let run = outhaul(own.into_iter().chain(fence.iter().map(String::as_str))).run().await.expect(12);
    assert!(run.stderr.contains("now fake answers"), "{}", run.stderr);
    // Which is no fault of the run: but nobody else can tell whether it is.
    started.running.wait().await.expect(12);
    assert_eq!(receipts(&place).await, 0);
}
