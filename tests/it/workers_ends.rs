//! How workers and the run that waits for them come to their end: signals, standard input, other versions, turns, refusals.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::crash::{TABLE, comparable, kill};
use crate::support::eventually;
use crate::support::job::{no_sessions_left, parts, rows};
use crate::support::pg::pg;
use crate::support::place::{Place, export};
use crate::support::run::{Running, Stop, program};
use crate::support::s3::s3;
use crate::workers::{Driver, driver, lines, receipts, resume, told, worker};

/// W10: told to stop in the middle of a part, a worker is gone with its query and its upload, and the run goes on.
#[tokio::test]
async fn w10_a_worker_stops_at_once_by_signals_and_with_its_starter() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::S3(s3());
    let driver = Driver::start(driver(&pg, &place, &[])).await;
    for (how, says) in [("TERM", "a signal"), ("HUP", "SIGHUP"), ("", "standard input has ended")] {
        let stop = Stop::at("batch");
        let mut running = driver.worker(&pg, &place, "0").stops([&stop]).piped().spawn();
        running.stands_at(&stop).await;
        let begun = Instant::now();
        if how.is_empty() {
            running.hang_up();
        } else {
            running.signal(how).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.release();
        let run = running.wait().await.expect(143);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
        assert_eq!((&failed[0]["code"], &failed[0]["retryable"]), (&json!(143), &json!(true)));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(place.open_uploads().await, Vec::<String>::new(), "{how}");
        eventually(Duration::from_secs(10), "no reader", async || {
            pg.exporter_pids("reader").await.is_empty().then_some(())
        })
        .await;
    }
    worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
    driver.running.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
    no_sessions_left(&pg).await;
}

/// The end of standard input means something where it was a pipe, unless told otherwise; /dev/null and files have none.
#[tokio::test]
async fn the_end_of_standard_input_counts_where_it_was_a_pipe() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let driver = Driver::start(driver(&pg, &place, &[])).await;
    let by_shell = |before: &str, extra: &[&str], partition: &str| {
        let mut words = driver.fence(partition);
        words.extend(extra.iter().map(|word| (*word).to_owned()));
        let url = place.url();
        let script = if before.ends_with("| ") {
            format!("{before} \"$0\" \"$@\"")
        } else {
            format!("{before} exec \"$0\" \"$@\"")
        };
        let fixed = ["worker", "--destination", &url, "--from", &pg.url].map(str::to_owned);
        let shell = ["-c".to_owned(), script, env!("CARGO_BIN_EXE_outhaul").to_owned()];
        program("/bin/sh", shell.into_iter().chain(fixed).chain(words))
    };
    // The program's own standard input is /dev/null.
    for (before, extra, partition, code) in [
        ("", &[][..], "0", 0),
        ("", &["--stdin", "watch"][..], "1", 143),
        ("exec < /etc/hostname;", &[][..], "1", 0),
        ("sleep 0.01 | ", &[][..], "2", 143),
        ("sleep 0.01 | ", &["--stdin", "ignore"][..], "2", 0),
    ] {
        // One that is to be stopped is so on its way there, or where it stands; the other is let go, well after the end.
        let stop = Stop::at("batch");
        let running = by_shell(before, extra, partition).stops([&stop]).spawn();
        if code == 0 {
            running.stands_at(&stop).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.release();
        }
        let run = running.wait().await;
        assert_eq!(run.code, code, "{before:?} {extra:?}: {}", run.stderr);
    }
    // As an engine that pipes everything through: xargs gives its processes /dev/null.
    let numbers = ["1", "3"].join("\n");
    let url = place.url();
    let fence = driver.fence("@@").iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let script = format!(
        "printf '{numbers}' | xargs -P 2 -I @@ \"$0\" worker --destination '{url}' --from '{}' {fence}",
        pg.url
    );
    let run = program("/bin/sh", ["-c", &script, env!("CARGO_BIN_EXE_outhaul")]).run().await.expect(0);
    assert_eq!(told(&run), (vec![3], vec![1]));
    driver.running.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
}

/// A run whose starter is gone ends; what is there stays for another one.
#[tokio::test]
async fn a_run_whose_starter_is_gone_leaves_what_is_there() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    for (place, whole) in [(Place::local(), false), (Place::S3(s3()), true)] {
        let mut started = Driver::start(driver(&pg, &place, &["--keep-snapshot", "60s"]).piped()).await;
        let partitions = if whole { "0,1,2,3" } else { "0,1" };
        started.worker(&pg, &place, partitions).run().await.expect(0);
        if whole {
            started.running.hang_up();
            started.running.wait().await.expect(0);
            assert_eq!(place.whole().await, expected);
            continue;
        }
        started.running.hang_up();
        let run = started.running.wait().await.expect(11);
        assert!(run.stderr.contains("2 partitions missing"), "{}", run.stderr);
        assert_eq!((receipts(&place).await, &run.report["retryable"]), (2, &json!(true)));
        pg.batch("update t set v = 'later'").await;
        // By one process: workers are no fate.
        let run = resume(&pg, &place, &[]).run().await.expect(0);
        assert!(run.report["rows_read_now"].as_u64() < Some(4000), "{}", run.report);
        assert_eq!(place.whole().await, expected);
        pg.batch("update t set v = md5(id::text)").await;
    }
    no_sessions_left(&pg).await;
}

/// W11: by another plan, or of another version, a worker reads nothing.
#[tokio::test]
async fn w11_another_plan_and_another_version_are_refused() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let started = Driver::start(driver(&pg, &place, &[])).await;
    let mut words = started.fence("0");
    words[5] = "00".repeat(32);
    let with = |words: &[String]| worker(&pg, &place, &words.iter().map(String::as_str).collect::<Vec<_>>());
    let run = with(&words).run().await.expect(2);
    assert!(run.stderr.contains("was asked for"), "{}", run.stderr);
    let mut words = started.fence("0");
    words[3] = "7".to_owned();
    let run = with(&words).run().await.expect(22);
    assert!(run.stderr.contains("epoch 7"), "{}", run.stderr);
    let run = with(&started.fence("9")).run().await.expect(2);
    assert!(run.stderr.contains("no partition 9"), "{}", run.stderr);
    // Of another version, which has the same form of a plan.
    let plan = place.list().await.into_keys().find(|path| path.ends_with("/plan.json")).unwrap();
    let file = place.folder().join(&plan);
    let text = String::from_utf8(place.get(&plan).await).unwrap();
    let ours = format!("\"outhaul_version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&ours));
    std::fs::write(&file, text.replace(&ours, "\"outhaul_version\":\"0.0.1\"")).unwrap();
    let mut words = started.fence("0");
    words[5] = crate::support::job::sha256(&std::fs::read(&file).unwrap());
    let run = with(&words).run().await.expect(2);
    assert!(run.stderr.contains("0.0.1"), "{}", run.stderr);
    std::fs::write(&file, text).unwrap();
    assert_eq!(receipts(&place).await, 0);
    // Without the hash any plan is taken for the one that was meant.
    let mut words = started.fence("0");
    words[5] = "00".repeat(32);
    with(&words).env("OUTHAUL_TEST_OFF", "plan-hash").run().await.expect(0);
    assert_eq!(receipts(&place).await, 1);
    worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
    started.running.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
}

/// W12: two workers at the same partition, as engines speculate: one receipt is chosen, and the other upload is gone.
#[tokio::test]
async fn w12_of_two_attempts_at_a_partition_one_is_chosen() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let driver = Driver::start(driver(&pg, &place, &[])).await;
        let stops = [Stop::at("finished"), Stop::at("finished")];
        let twins: Vec<Running> =
            stops.iter().map(|stop| driver.worker(&pg, &place, "1").stops([stop]).spawn()).collect();
        for (twin, stop) in twins.iter().zip(&stops) {
            twin.stands_at(stop).await;
        }
        for stop in &stops {
            stop.release();
        }
        for twin in twins {
            assert_eq!(told(&twin.wait().await.expect(0)), (vec![1], vec![]));
        }
        assert_eq!(receipts(&place).await, 2);
        worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        driver.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

/// However many workers are started, `--max-workers` of them read; the others wait without a connection.
#[tokio::test]
async fn no_more_workers_read_than_may() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (off, readers) in [("", 1), ("slots", 2)] {
        let place = Place::local();
        let driver = Driver::start(driver(&pg, &place, &["--max-workers", "1"])).await;
        let stop = Stop::at("batch");
        let first = driver.worker(&pg, &place, "0").stops([&stop]).spawn();
        first.stands_at(&stop).await;
        let late = Stop::at("batch");
        let second = driver.worker(&pg, &place, "1,2,3").stops([&late]).env("OUTHAUL_TEST_OFF", off).spawn();
        if off.is_empty() {
            second.stderr_has("waiting for one of them to end").await;
            // It looks again and again, each time for a moment.
            tokio::time::sleep(Duration::from_secs(3)).await;
        } else {
            second.stands_at(&late).await;
        }
        let reading = pg
            .value("select count(*) from pg_stat_activity where datname = current_database() and query like 'COPY%'")
            .await;
        assert_eq!(reading, readers.to_string(), "{off}");
        stop.release();
        first.wait().await.expect(0);
        if off.is_empty() {
            second.stands_at(&late).await;
        }
        late.release();
        second.wait().await.expect(0);
        driver.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

/// As a static Indexed Job does it every night: workers that are up before the run, know nothing but their index, and wait.
#[tokio::test]
async fn workers_that_know_their_index_alone_wait_for_the_run() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let run = worker(&pg, &place, &["--shard", "0/2", "--wait", "1s"]).run().await.expect(16);
    assert!(run.stderr.contains("--workers external"), "{}", run.stderr);
    let variables = ["JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID"];
    // A run that reads for itself wants nobody.
    let stop = Stop::at("batch");
    let own = export(&pg, &place, &["--on-existing", "replace"]).stops([&stop]).spawn();
    own.stands_at(&stop).await;
    let start = |(index, variable): (usize, &&str)| {
        worker(&pg, &place, &["--shard", "auto", "--shards", "3"]).env(variable, index.to_string()).spawn()
    };
    let workers: Vec<Running> = variables.iter().enumerate().map(start).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.release();
    own.wait().await.expect(0);
    let driver = driver(&pg, &place, &["--on-existing", "replace"]).spawn();
    let mut read = Vec::new();
    for worker in workers {
        read.extend(told(&worker.wait().await.expect(0)).0);
    }
    read.sort_unstable();
    assert_eq!(read, [0, 1, 2, 3]);
    driver.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
}

/// The moment of the plan is that of every worker.
#[tokio::test]
async fn the_clock_of_all_workers_stands_at_one_moment() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let args = ["--column", "at=now()", "--columns", "id", "--where", "now() > 'epoch'"];
    let driver = Driver::start(driver(&pg, &place, &args)).await;
    for partition in ["0", "1", "2", "3"] {
        driver.worker(&pg, &place, partition).run().await.expect(0);
    }
    driver.running.wait().await.expect(0);
    let moments: std::collections::BTreeSet<String> =
        place.whole().await.iter().map(|row| row.split_once(',').unwrap().1.to_owned()).collect();
    assert_eq!(moments.len(), 1, "{moments:?}");
}

/// An empty relation has its one part, and a capped one its first rows.
#[tokio::test]
async fn an_empty_relation_and_a_cap_are_as_ever() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for (args, code) in [(&["--where", "id < 0"][..], 0), (&["--max-rows", "1000"][..], 3)] {
        let [alone, place] = [Place::local(), Place::local()];
        export(&pg, &alone, args).run().await.expect(code);
        let driver = Driver::start(driver(&pg, &place, args)).await;
        worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        driver.running.wait().await.expect(code);
        assert_eq!(place.whole().await, alone.whole().await);
        assert_eq!(comparable(place.manifest().await), comparable(alone.manifest().await));
        assert!(!parts(&place.manifest().await).is_empty());
    }
}

/// The run watches its source for its workers too: who waits for a lock of theirs is given way to.
#[tokio::test]
async fn the_run_gives_way_for_its_workers() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let driver = Driver::start(driver(&pg, &place, &["--yield-to-ddl", "2s"])).await;
    let stop = Stop::at("batch");
    let running = driver.worker(&pg, &place, "0").stops([&stop]).spawn();
    running.stands_at(&stop).await;
    let altering = {
        let client = pg.connect().await;
        tokio::spawn(async move { client.batch_execute("alter table t add column more int").await.unwrap() })
    };
    let run = driver.running.wait().await.expect(16);
    assert!(run.stderr.contains("ALTER"), "{}", run.stderr);
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(600)).await;
    stop.release();
    running.wait().await.expect(22);
    altering.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    no_sessions_left(&pg).await;
}

/// A worker whose keepers were replaced meanwhile finds those of now.
#[tokio::test]
async fn a_worker_that_is_killed_by_the_server_joins_anew() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let driver = Driver::start(driver(&pg, &place, &[])).await;
    let stop = Stop::at("batch");
    let running = driver.worker(&pg, &place, "0,1,2,3").stops([&stop]).spawn();
    running.stands_at(&stop).await;
    for pid in pg.exporter_pids("reader").await {
        pg.terminate(&pid).await;
    }
    stop.release();
    assert_eq!(told(&running.wait().await.expect(0)), (vec![0, 1, 2, 3], vec![]));
    driver.running.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
}

/// A stopped run leaves nothing of its workers either.
#[tokio::test]
async fn a_stopped_run_leaves_nothing_of_its_workers() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let driver = Driver::start(driver(&pg, &place, &[])).await;
        driver.worker(&pg, &place, "0,1").run().await.expect(0);
        let stop = Stop::at("batch");
        let running = driver.worker(&pg, &place, "2").stops([&stop]).spawn();
        running.stands_at(&stop).await;
        driver.running.signal("TERM").await;
        driver.running.wait().await.expect(143);
        stop.release();
        let run = running.wait().await;
        assert!([21, 22].contains(&run.code), "{}: {}", run.code, run.stderr);
        assert!(place.is_empty().await, "{:?}", place.list().await);
    }
    no_sessions_left(&pg).await;
}

/// Killed with nobody to hold the snapshot, the run cannot be gone on with, and the next one takes its place.
#[tokio::test]
async fn without_a_keeper_the_run_ends_with_its_process() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let started = Driver::start(driver(&pg, &place, &[])).await;
    started.worker(&pg, &place, "0").run().await.expect(0);
    kill(started.running).await;
    let run = resume(&pg, &place, &["--workers", "external"]).run().await.expect(12);
    assert!(run.stderr.contains("--keep-snapshot"), "{}", run.stderr);
    export(&pg, &place, &[]).run().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
}
