//! A job whose partitions other processes read: one process holds all exports together under one snapshot, and whatever
//! becomes of the workers, or of that process, each export is the one that a single process would have made.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crash::{comparable, kill};
use crate::support::clickhouse::clickhouse;
use crate::support::job::{no_sessions_left, sorted};
use crate::support::night::Night;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, Run, Running, Stop, outhaul};
use crate::support::s3::s3;
use crate::support::{eventually, manifest};
use crate::workers::{Driver, QUICK, lines};

/// Five tables of which one is empty, and a view.
const SIX: &str = "create table a as select i as id, md5(i::text) as v from generate_series(1, 4000) i;
    create table b as select i as id, md5(i::text) as v from generate_series(1, 2000) i;
    create table c as select i as id from generate_series(1, 3) i;
    create table few as select i as id, i % 7 as n from generate_series(1, 900) i;
    create table empty (id int primary key, v text);
    create view seen as select id, upper(v) as v from b where id % 2 = 0; analyze";

const NAMES: [&str; 6] = ["a", "b", "c", "few", "empty", "seen"];

fn text(root: &str, more: &str) -> String {
    let one = |table: &&str| {
        let only = if *table == "few" { "where = 'n = 3'\n" } else { "" };
        format!("[[export]]\nname = '{table}'\ntable = '{table}'\nto = '{root}/{table}'\n{only}")
    };
    let exports: String = NAMES.iter().map(one).collect();
    format!("{more}[defaults]\nformat = 'csv'\ncsv_header = false\nreaders = 2\npartitions = 3\n{exports}")
}

fn six() -> Night {
    Night::new(&text("ROOT", ""))
}

/// A run that waits for workers.
fn driver(pg: &Pg, night: &Night, args: &[&str]) -> Outhaul {
    let all = [&["--workers", "external"], args].concat();
    night.run(pg, &all).env("OUTHAUL_TEST_LIMITS", QUICK)
}

fn root(night: &Night) -> String {
    night.out("").to_str().unwrap().trim_end_matches('/').to_owned()
}

fn worker_at(pg: &Pg, root: &str, args: &[&str]) -> Outhaul {
    let fixed = ["worker", "--destination", root, "--from", &pg.url];
    outhaul(fixed.iter().chain(args)).env("OUTHAUL_TEST_LIMITS", QUICK)
}

fn worker(pg: &Pg, night: &Night, args: &[&str]) -> Outhaul {
    worker_at(pg, &root(night), args)
}

fn resume(pg: &Pg, night: &Night, args: &[&str]) -> Outhaul {
    let root = root(night);
    let fixed = ["resume", &root, "--from", &pg.url, "--report", "json", "--progress", "none"];
    outhaul(fixed.iter().chain(args)).env("OUTHAUL_TEST_LIMITS", QUICK)
}

/// A worker that is given partitions of the line `ready`.
fn given(pg: &Pg, night: &Night, driver: &Driver, partitions: &str) -> Outhaul {
    let words = driver.fence(partitions);
    worker(pg, night, &words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The number of an export in the line `ready`.
fn number(driver: &Driver, name: &str) -> u64 {
    let exports = driver.ready["exports"].as_array().unwrap();
    exports.iter().find(|export| export["name"] == name).unwrap()["number"].as_u64().unwrap()
}

/// All partitions of the line `ready`, each with its export.
fn listed(driver: &Driver) -> Vec<(u64, u64)> {
    let one = |one: &Value| (one["export"].as_u64().unwrap(), one["number"].as_u64().unwrap());
    let mut listed: Vec<_> = driver.ready["partitions"].as_array().unwrap().iter().map(one).collect();
    listed.sort_unstable();
    listed
}

/// All partitions of one export, as a worker takes them.
fn all_of(driver: &Driver, name: &str) -> String {
    let export = number(driver, name);
    let own = listed(driver).into_iter().filter(|(of, _)| *of == export);
    format!("{name}:{}", own.map(|(_, number)| number.to_string()).collect::<Vec<_>>().join(","))
}

/// Partitions, each behind the number of its export.
type Numbers = Vec<(u64, u64)>;

/// The partitions that a worker has read, and those that had a receipt.
fn told(run: &Run) -> (Numbers, Numbers) {
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let (already, read): (Vec<Value>, Vec<Value>) =
        lines(&text, "receipt").into_iter().partition(|line| line["already"] == true);
    let numbers = |lines: Vec<Value>| {
        let one = |line: &Value| (line["export"].as_u64().unwrap(), line["partition"].as_u64().unwrap());
        let mut numbers: Vec<_> = lines.iter().map(one).collect();
        numbers.sort_unstable();
        numbers
    };
    (numbers(read), numbers(already))
}

/// The rows of an export, after checking that nothing else of its run is there.
fn rows(night: &Night, name: &str) -> Vec<String> {
    assert!(!night.out(name).join("_outhaul").exists(), "{name} has leftovers");
    sorted(&crate::support::job::data(&night.out(name)))
}

/// What each export is, to be compared with what another run has made.
fn made(night: &Night) -> BTreeMap<&'static str, (Vec<String>, Value)> {
    NAMES.into_iter().map(|name| (name, (rows(night, name), comparable(manifest(&night.out(name)))))).collect()
}

/// That a run is over at its root.
fn is_over(night: &Night, run: &Run) {
    // An empty folder is what another process has made.
    let left: Vec<_> = std::fs::read_dir(night.out("_workers")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(night.record()["run_id"], run.report["run_id"]);
    assert_eq!((&run.report["one_instant"], &night.record()["one_instant"]), (&json!(true), &json!(true)));
}

/// W0: one worker or three, each export is that of a single process, and no partition is read twice.
#[tokio::test]
async fn w0_each_export_of_a_job_is_that_of_a_single_process() {
    let pg = pg(18).await;
    pg.batch(SIX).await;
    let alone = six();
    alone.run(&pg, &[]).run().await.expect(0);
    let expected = made(&alone);
    for count in [1, 3] {
        let night = six();
        let driver = Driver::start(driver(&pg, &night, &["--max-workers", "2"])).await;
        assert_eq!(driver.ready["exports"].as_array().unwrap().len(), 6);
        assert_eq!(
            (&driver.ready["max_workers"], driver.ready["destination"].as_str()),
            (&json!(2), Some(&*root(&night)))
        );
        let shards: Vec<String> = (0..count).map(|index| format!("{index}/{count}")).collect();
        let workers: Vec<Running> =
            shards.iter().map(|shard| worker(&pg, &night, &["--shard", shard]).spawn()).collect();
        let mut read = Vec::new();
        for worker in workers {
            read.extend(told(&worker.wait().await.expect(0)).0);
        }
        read.sort_unstable();
        assert_eq!(read, listed(&driver), "{count} workers");
        let run = driver.running.wait().await.expect(0);
        assert_eq!(made(&night), expected);
        is_over(&night, &run);
        let rows_read: u64 =
            run.report["exports"].as_array().unwrap().iter().map(|one| one["rows_read_now"].as_u64().unwrap()).sum();
        assert_eq!(rows_read, 4000 + 2000 + 3 + 129 + 1000);
    }
    no_sessions_left(&pg).await;
}

/// The same in an object store, where a worker knows the root alone.
#[tokio::test]
async fn a_job_in_an_object_store_by_index() {
    let pg = pg(15).await;
    pg.batch(SIX).await;
    let s3 = s3();
    let root = s3.url("night");
    let night = Night::new(&text(&root, ""));
    let early: Vec<Running> = (0..2)
        .map(|index: u32| {
            let run = worker_at(&pg, &root, &["--shard", "auto", "--shards", "2"]).envs(s3.env());
            run.env("AWS_BATCH_JOB_ARRAY_INDEX", index.to_string()).spawn()
        })
        .collect();
    let run = driver(&pg, &night, &[]).envs(s3.env()).run().await.expect(0);
    let ready = lines(&String::from_utf8_lossy(&run.stdout), "ready").pop().unwrap();
    let mut read = 0;
    for worker in early {
        read += told(&worker.wait().await.expect(0)).0.len();
    }
    assert_eq!(
        (run.report["status"].as_str(), read),
        (Some("complete"), ready["partitions"].as_array().unwrap().len())
    );
    for (name, rows) in [("a", 4000), ("empty", 0), ("few", 129)] {
        let manifest: Value = serde_json::from_slice(&s3.get(&format!("night/{name}/_manifest.json")).await).unwrap();
        assert_eq!(manifest["totals"]["rows"], rows, "{name}");
    }
    let left: Vec<String> = s3.list("night").await.into_keys().filter(|path| path.contains("_workers/")).collect();
    assert_eq!((left, s3.open_uploads().await), (vec![], vec![]));
    no_sessions_left(&pg).await;
}

/// W1, W11: a worker is killed in the middle of a part, and what names no export, no partition or another plan is refused.
#[tokio::test]
async fn w1_a_killed_worker_and_wrong_words_cost_nothing() {
    let pg = pg(15).await;
    pg.batch(SIX).await;
    let night = six();
    let driver = Driver::start(driver(&pg, &night, &[])).await;
    let (a, stop) = (number(&driver, "a"), Stop::at("batch"));
    let killed = given(&pg, &night, &driver, "a:0,1").stops([&stop]).spawn();
    killed.stands_at(&stop).await;
    kill(killed).await;
    for (partitions, says) in [
        ("nowhere:0", "has no export nowhere"),
        ("17:0", "has no export 17"),
        ("a:77", "no partition 77"),
        ("0,1", "an export in front"),
        ("a:x", "EXPORT:7,12"),
    ] {
        let run = given(&pg, &night, &driver, partitions).run().await.expect(2);
        assert!(run.stderr.contains(says), "{partitions}: {}", run.stderr);
    }
    let mut words = driver.fence("a:0");
    words[5] = "00".repeat(32);
    let wrong = || worker(&pg, &night, &words.iter().map(String::as_str).collect::<Vec<_>>());
    let run = wrong().run().await.expect(2);
    assert!(run.stderr.contains("was asked for"), "{}", run.stderr);
    let run = wrong().env("OUTHAUL_TEST_OFF", "plan-hash").run().await.expect(0);
    assert_eq!(told(&run).0, [(a, 0)], "without the hash any plan is taken");
    let mut words = driver.fence("a:0");
    words[3] = "7".to_owned();
    worker(&pg, &night, &words.iter().map(String::as_str).collect::<Vec<_>>()).run().await.expect(22);
    // By number and by name, and what is there costs no read.
    let run = given(&pg, &night, &driver, &format!("{a}:0,1,a:2")).run().await.expect(0);
    assert_eq!(told(&run), (vec![(a, 1), (a, 2)], vec![(a, 0)]));
    let run = worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(0);
    assert!(told(&run).0.iter().all(|(export, _)| *export != a));
    let run = driver.running.wait().await.expect(0);
    is_over(&night, &run);
    assert_eq!((rows(&night, "a").len(), rows(&night, "seen").len()), (4000, 1000));
    no_sessions_left(&pg).await;
}

/// W8: the process that commits is killed. A keeper beside it holds the snapshot of all exports, and what is there is not
/// read again. Once another process goes on, its own keepers are enough.
#[tokio::test]
async fn w8_a_killed_driver_of_a_job_costs_no_partition() {
    let pg = pg(18).await;
    pg.batch(SIX).await;
    for keeper_dies in [false, true] {
        let (alone, night) = (six(), six());
        alone.run(&pg, &[]).run().await.expect(0);
        let expected = made(&alone);
        let first = Driver::start(driver(&pg, &night, &[])).await;
        let root = root(&night);
        let keeping = outhaul(["keep", &root, "--from", &pg.url, "--for", "60s"]).spawn();
        keeping.stderr_has("holding the snapshot as").await;
        let (c, b) = (number(&first, "c"), number(&first, "b"));
        let run = given(&pg, &night, &first, &format!("{},b:1", all_of(&first, "c"))).run().await.expect(0);
        let read = told(&run).0;
        assert!(read.contains(&(b, 1)) && read.iter().all(|one| one.0 == c || *one == (b, 1)), "{read:?}");
        // One export has committed before the end.
        let committed = async || night.committed().contains("c").then_some(());
        eventually(Duration::from_secs(20), "the commit of c", committed).await;
        let all = listed(&first).len();
        kill(first.running).await;
        pg.batch("update few set n = 3 where id = 1; insert into c values (4)").await;
        let again = resume(&pg, &night, &["--workers", "external", "--max-workers", "3"]);
        let second = Driver::start(again.env("OUTHAUL_TEST_LIMITS", format!("note-keepers=0.2,{QUICK}"))).await;
        assert_eq!((listed(&second).len(), &second.ready["max_workers"]), (all - read.len(), &json!(3)));
        assert!(listed(&second).iter().all(|one| *one != (b, 1) && one.0 != c));
        let keeping = if keeper_dies {
            kill(keeping).await;
            None
        } else {
            Some(keeping)
        };
        let run = worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(0);
        assert_eq!((told(&run).0, told(&run).1), (listed(&second), vec![(b, 1)]));
        let run = second.running.wait().await.expect(0);
        is_over(&night, &run);
        assert_eq!(made(&night), expected);
        if let Some(keeping) = keeping {
            keeping.wait().await.expect(0);
        }
        pg.batch("update few set n = 1 where id = 1; delete from c where id = 4").await;
    }
    no_sessions_left(&pg).await;
}

/// A job of one good table, one with a value that Parquet cannot hold, and one that is missing.
const TWO_BAD: &str = "create table good as select i as id from generate_series(1, 500) i;
    create table bad as select i as id, (case when i = 399 then 'NaN'::numeric else 1 end)::numeric(9,2) as v
    from generate_series(1, 400) i; alter table bad add primary key (id); analyze";

fn two_bad(more: &str) -> Night {
    let one = |table: &str| format!("[[export]]\nname = '{table}'\ntable = '{table}'\nto = 'ROOT/{table}'\n");
    let exports = ["gone", "bad", "good"].map(one).concat();
    Night::new(&format!("{more}[defaults]\nreaders = 2\npartitions = 2\n{exports}"))
}

fn codes(run: &Run) -> Vec<(String, u64)> {
    let exports = run.report["exports"].as_array().unwrap();
    let code = |one: &Value| (one["name"].as_str().unwrap().to_owned(), one["exit_code"].as_u64().unwrap());
    exports.iter().map(code).collect()
}

/// W5: an export that no worker can read ends by itself, by the journal or by a line, and the others are made.
#[tokio::test]
async fn w5_an_export_that_cannot_be_read_leaves_the_others() {
    let pg = pg(18).await;
    pg.batch(TWO_BAD).await;
    for by_line in [false, true] {
        let night = two_bad("");
        let mut driver = Driver::start(driver(&pg, &night, &[]).piped()).await;
        assert_eq!(driver.ready["exports"].as_array().unwrap().len(), 2, "{}", driver.ready);
        let bad = number(&driver, "bad");
        if by_line {
            let line = json!({"type": "failed", "export": bad, "code": 15, "message": "no such function"});
            driver.running.tell(&line.to_string()).await;
            given(&pg, &night, &driver, &all_of(&driver, "good")).run().await.expect(0);
        } else {
            let run = worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(14);
            let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
            assert_eq!((failed.len(), &failed[0]["export"], &failed[0]["code"]), (1, &json!(bad), &json!(14)));
            assert!(run.stderr.contains("bad: partition ") && run.stderr.contains("id = 399"), "{}", run.stderr);
        }
        let run = driver.running.wait().await.expect(13);
        let code = if by_line { 15 } else { 14 };
        let expected = [("gone", 13), ("bad", code), ("good", 0)].map(|(name, code)| (name.to_owned(), code));
        assert_eq!(codes(&run), expected);
        assert!(run.stderr.contains("bad: error: a worker failed: "), "{}", run.stderr);
        assert_eq!(night.committed().into_iter().collect::<Vec<_>>(), ["good"]);
        assert!(!night.out("bad").join("_outhaul").exists() && !night.out("_workers").exists());
    }
    let night = two_bad("on_error = 'stop'\n");
    let run = driver(&pg, &night, &[]).run().await.expect(13);
    assert!(lines(&String::from_utf8_lossy(&run.stdout), "ready").is_empty(), "nobody is asked to read what has ended");
    assert!(night.committed().is_empty());
    no_sessions_left(&pg).await;
}

/// Whoever starts the workers is gone: what is there stays for another process, which reads the rest for itself.
#[tokio::test]
async fn a_job_whose_starter_is_gone_is_gone_on_with() {
    let pg = pg(15).await;
    pg.batch(SIX).await;
    let alone = six();
    alone.run(&pg, &[]).run().await.expect(0);
    for (args, signal) in
        [(&["--keep-snapshot", "60s"][..], ""), (&["--keep-snapshot", "60s", "--on-signal", "keep"], "TERM")]
    {
        let night = six();
        let mut driver = Driver::start(driver(&pg, &night, args).piped()).await;
        given(&pg, &night, &driver, "a:0,1,seen:0").run().await.expect(0);
        let code = if signal.is_empty() {
            driver.running.hang_up();
            11
        } else {
            driver.running.signal(signal).await;
            143
        };
        let run = driver.running.wait().await.expect(code);
        assert_eq!(run.report["resumable"], true, "{signal}");
        pg.batch("insert into c values (4)").await;
        let run = resume(&pg, &night, &[]).run().await.expect(0);
        is_over(&night, &run);
        assert_eq!(made(&night), made(&alone), "{signal}");
        pg.batch("delete from c where id = 4").await;
    }
    no_sessions_left(&pg).await;
}

/// The keepers of the snapshot are replaced as exports are done, and a worker that comes later finds those of now.
#[tokio::test]
async fn a_worker_finds_the_keepers_that_came_in_the_place_of_others() {
    let pg = pg(18).await;
    pg.batch(SIX).await;
    for (off, code) in [("", 0), ("note-keepers", 12)] {
        let night = six();
        let wait = if off.is_empty() { 10 } else { 1 };
        let limits = format!("let-go=0.1,note-keepers=2,new-keepers={wait},{QUICK}");
        let run = driver(&pg, &night, &[]).env("OUTHAUL_TEST_LIMITS", &limits).env("OUTHAUL_TEST_OFF", off);
        let driver = Driver::start(run).await;
        let before = pg.exporter_pids("keeper").await;
        given(&pg, &night, &driver, &all_of(&driver, "c")).run().await.expect(0);
        eventually(Duration::from_secs(20), "other keepers", async || {
            let now = pg.exporter_pids("keeper").await;
            (!now.is_empty() && now.iter().all(|pid| !before.contains(pid))).then_some(())
        })
        .await;
        let late = given(&pg, &night, &driver, "a:0").env("OUTHAUL_TEST_LIMITS", &limits).run().await.expect(code);
        assert_eq!(told(&late).0.len(), usize::from(code == 0), "{off}");
        if code == 0 {
            worker(&pg, &night, &["--shard", "0/1"]).env("OUTHAUL_TEST_LIMITS", &limits).run().await.expect(0);
            driver.running.wait().await.expect(0);
            assert_eq!(rows(&night, "a").len(), 4000);
        }
    }
    no_sessions_left(&pg).await;
}

/// However many workers read, and of whichever exports, `--max-workers` of them do at the same time.
#[tokio::test]
async fn the_workers_of_all_exports_share_the_slots() {
    let pg = pg(18).await;
    pg.batch(SIX).await;
    let night = six();
    let driver = Driver::start(driver(&pg, &night, &["--max-workers", "1"])).await;
    let (stop, late) = (Stop::at("batch"), Stop::at("batch"));
    let first = given(&pg, &night, &driver, "a:0").stops([&stop]).spawn();
    first.stands_at(&stop).await;
    let second = given(&pg, &night, &driver, "b:0").stops([&late]).spawn();
    second.stderr_has("waiting for one of them to end").await;
    let reading = "select count(*) from pg_stat_activity where datname = current_database() and query like 'COPY%'";
    assert_eq!(pg.value(reading).await, "1");
    stop.release();
    first.wait().await.expect(0);
    second.stands_at(&late).await;
    late.release();
    second.wait().await.expect(0);
    worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(0);
    driver.running.wait().await.expect(0);
    no_sessions_left(&pg).await;
}

/// What is attached to a partitioned table once the snapshot is taken, with rows from before it, is not read by a worker that
/// comes later: whoever reads by leaves reads those of the plan, and whoever reads the parent notices.
#[tokio::test]
async fn what_is_attached_later_is_read_by_no_worker() {
    let pg = pg(18).await;
    pg.batch(
        "create table p (id int not null, v text) partition by range (id);
        create table p1 partition of p for values from (0) to (5000);
        create table p2 (id int not null, v text);
        insert into p select i, 'x' from generate_series(1, 1000) i; insert into p2 select i, 'y' from generate_series(5001, 5500) i;
        create index on p (id); create index on p2 (id); analyze",
    )
    .await;
    let one = |name: &str, more: &str| format!("[[export]]\nname = '{name}'\ntable = 'p'\nto = 'ROOT/{name}'\n{more}");
    let exports = [one("leaves", ""), one("keyed", "key = 'id'\n")].concat();
    let night =
        Night::new(&format!("[defaults]\nformat = 'csv'\ncsv_header = false\nreaders = 2\npartitions = 2\n{exports}"));
    let driver = Driver::start(driver(&pg, &night, &[])).await;
    pg.batch("alter table p attach partition p2 for values from (5000) to (6000)").await;
    let workers = [worker(&pg, &night, &["--shard", "0/2"]).spawn(), worker(&pg, &night, &["--shard", "1/2"]).spawn()];
    for worker in workers {
        let run = worker.wait().await;
        assert!([0, 12, 13].contains(&run.code), "{}: {}", run.code, run.stderr);
    }
    let run = driver.running.wait().await;
    assert_eq!(codes(&run)[0], ("leaves".to_owned(), 0));
    for name in night.committed() {
        assert_eq!(rows(&night, &name).len(), 1000, "{name}");
    }
    assert!(night.committed().contains("keyed") || [12, 13].contains(&codes(&run)[1].1), "{:?}", codes(&run));
    no_sessions_left(&pg).await;
}

/// What is new since the last night is what a single process would have found.
#[tokio::test]
async fn an_incremental_job_reads_what_is_new() {
    let pg = pg(15).await;
    pg.batch(
        "create table e (id int, ts timestamptz default now()); insert into e select i from generate_series(1, 900) i;
        create table f (id int); insert into f select i from generate_series(1, 9) i; analyze",
    )
    .await;
    let text = "root = 'ROOT'\n[defaults]\nformat = 'csv'\ncsv_header = false\nreaders = 2\npartitions = 2\n\
        [[export]]\nname = 'e'\ntable = 'e'\nto = 'ROOT/e/{run_id}'\nwatermark = 'ts'\n\
        [[export]]\nname = 'f'\ntable = 'f'\nto = 'ROOT/f/{run_id}'\n";
    let (alone, night) = (Night::new(text), Night::new(text));
    for (id, changes) in [("n1", ""), ("n2", "insert into e select i from generate_series(901, 960) i")] {
        if !changes.is_empty() {
            pg.batch(changes).await;
        }
        alone.run(&pg, &["--run-id", id]).run().await.expect(0);
        let driver = Driver::start(driver(&pg, &night, &["--run-id", id])).await;
        worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(0);
        driver.running.wait().await.expect(0);
        for name in ["e", "f"] {
            let place = format!("{name}/{id}");
            assert_eq!(rows(&night, &place), rows(&alone, &place), "{place}");
        }
    }
    assert!((60..900).contains(&rows(&night, "e/n2").len()), "{}", rows(&night, "e/n2").len());
    no_sessions_left(&pg).await;
}

/// What has no workers says so before anything is read.
#[tokio::test]
async fn what_has_no_workers_is_refused() {
    let pg = pg(15).await;
    pg.batch(SIX).await;
    for (more, says) in [
        ("snapshot = 'export'\n", "snapshot = \"export\""),
        ("", "--max-workers has no meaning without --workers external"),
    ] {
        let night = Night::new(&text("ROOT", more));
        let args: &[&str] = if more.is_empty() { &["--max-workers", "2"] } else { &["--workers", "external"] };
        let run = night.run(&pg, args).run().await.expect(2);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        assert!(night.committed().is_empty());
    }
    let server = clickhouse().await;
    server.run("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").await;
    let night = Night::new(&format!("[[export]]\nname = 't'\ntable = '{}.t'\nto = 'ROOT/t'\n", server.database));
    let run = night.run_at(&server.url("writer"), &["--workers", "external"]);
    let run = run.env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(2);
    assert!(run.stderr.contains("are read by the process that plans them"), "{}", run.stderr);
}

/// Two tables alike, in four partitions each.
const PAIR: &str = "create table a as select i as id, md5(i::text) as v from generate_series(1, 8000) i;
    create table b as select i as id, md5(i::text) as v from generate_series(1, 8000) i; analyze";

fn pair() -> Night {
    let one = |table: &str| format!("[[export]]\nname = '{table}'\ntable = '{table}'\nto = 'ROOT/{table}'\n");
    let exports = ["a", "b"].map(one).concat();
    Night::new(&format!("[defaults]\nformat = 'csv'\ncsv_header = false\nreaders = 2\npartitions = 4\n{exports}"))
}

/// A share is the same for each process of a run: what one worker has read before a resume makes no other read less.
#[tokio::test]
async fn a_share_is_the_same_after_a_resume() {
    let pg = pg(18).await;
    pg.batch(PAIR).await;
    for one_commits in [false, true] {
        let night = pair();
        let first = Driver::start(driver(&pg, &night, &["--keep-snapshot", "60s"])).await;
        let read = told(&worker(&pg, &night, &["--shard", "0/2"]).run().await.expect(0)).0;
        assert_eq!(read.len(), 4);
        if one_commits {
            given(&pg, &night, &first, &all_of(&first, "a")).run().await.expect(0);
            let committed = async || night.committed().contains("a").then_some(());
            eventually(Duration::from_secs(20), "the commit of a", committed).await;
        }
        kill(first.running).await;
        let second = Driver::start(resume(&pg, &night, &["--workers", "external"])).await;
        let rest = worker(&pg, &night, &["--shard", "1/2"]).run().await.expect(0);
        assert_eq!(told(&rest).0, listed(&second), "{one_commits}");
        second.running.wait().await.expect(0);
        assert_eq!((rows(&night, "a").len(), rows(&night, "b").len()), (8000, 8000));
    }
    no_sessions_left(&pg).await;
}

/// A worker that comes again after its export has committed has nothing left to do, while another export waits.
#[tokio::test]
async fn a_worker_of_an_export_that_has_committed_has_done_its_share() {
    let pg = pg(18).await;
    pg.batch(PAIR).await;
    for (off, code) in [("", 0), ("committed-share", 22)] {
        let night = pair();
        let driver = Driver::start(driver(&pg, &night, &[])).await;
        let a = all_of(&driver, "a");
        given(&pg, &night, &driver, &a).run().await.expect(0);
        let committed = async || night.committed().contains("a").then_some(());
        eventually(Duration::from_secs(20), "the commit of a", committed).await;
        given(&pg, &night, &driver, &a).env("OUTHAUL_TEST_OFF", off).run().await.expect(code);
        worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(0);
        driver.running.wait().await.expect(0);
        assert_eq!((rows(&night, "a").len(), rows(&night, "b").len()), (8000, 8000));
    }
}

/// What workers read and write moves the metrics of the run, which an alert asks whether it is stuck. A posting of a run that
/// is dead keeps no keeper from the one that lives.
#[tokio::test]
async fn the_metrics_of_a_run_move_with_its_workers() {
    let pg = pg(18).await;
    pg.batch(PAIR).await;
    let night = pair();
    let file = night.folder.path().join("run.prom");
    let args = ["--metrics-file", file.to_str().unwrap()];
    let driver = Driver::start(driver(&pg, &night, &args)).await;
    let posted = std::fs::read_dir(night.out("_workers")).unwrap().next().unwrap().unwrap().path();
    let posting = std::fs::read_to_string(posted).unwrap();
    let run_id = driver.ready["run_id"].as_str().unwrap();
    std::fs::write(night.out("_workers").join("zzz.json"), posting.replace(run_id, "zzz")).unwrap();
    let root = root(&night);
    let keeping = outhaul(["keep", &root, "--from", &pg.url, "--for", "60s"]).spawn();
    keeping.stderr_has("holding the snapshot as").await;
    worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(0);
    driver.running.wait().await.expect(0);
    keeping.wait().await.expect(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    for (name, expected) in [
        ("outhaul_rows_read_total", 16000.0),
        ("outhaul_rows_encoded_total", 16000.0),
        ("outhaul_partitions_completed_total", 8.0),
    ] {
        assert!((value(name) - expected).abs() < 0.5, "{name}: {text}");
    }
    assert!(value("outhaul_bytes_written_total") > 16000.0 * 33.0, "{text}");
}

/// A worker whose clock is ahead takes every sign of life for one of long ago.
#[tokio::test]
async fn a_worker_whose_clock_is_ahead_joins() {
    let pg = pg(18).await;
    pg.batch(PAIR).await;
    for fenced in [true, false] {
        let night = pair();
        let run = driver(&pg, &night, &[]).env("OUTHAUL_TEST_LIMITS", format!("owner-renewal=0.2,{QUICK}"));
        let driver = Driver::start(run).await;
        let ahead = format!("owner-lease=0.001,owner-renewal=1,{QUICK}");
        let words = if fenced { driver.fence("0:0") } else { vec!["--shard".to_owned(), "0/1".to_owned()] };
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--wait", "5s"]).collect();
        worker(&pg, &night, &words).env("OUTHAUL_TEST_LIMITS", ahead).run().await.expect(0);
        if fenced {
            worker(&pg, &night, &["--shard", "0/1"]).run().await.expect(0);
        }
        driver.running.wait().await.expect(0);
    }
}
