//! Stopped runs and failed commits (I1, I2): signals end a run within seconds, and nothing of it is visible afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use object_store::ObjectStoreExt;
use object_store::multipart::MultipartStore;

use crate::support::job::no_sessions_left;
use crate::support::pg::{Pg, both, pg};
use crate::support::place::Place;
use crate::support::run::{Outhaul, Run, Running, Stop};
use crate::support::s3::s3;
use crate::support::{eventually, oracle};

/// Wide rows, so that two megabytes, after which the first bytes are staged, are soon reached.
const TABLE: &str = "create table t as select i as id, repeat(md5(i::text), 128) as v from generate_series(1, 40000) i;
    analyze t";

/// Every row takes the server 1 ms: the whole table takes two readers 20 seconds.
const SLOW: [&str; 2] = ["--column", "slow=case when pg_sleep(0.001) is null then 1 end"];

/// From the signal to the exit, on a machine that is busy with other tests.
const SECONDS: Duration = Duration::from_secs(6);

const SIGNALS: [(u32, &str, i32); 2] = [(15, "INT", 130), (18, "TERM", 143)];

fn export(pg: &Pg, place: &Place, source: &[&str]) -> Outhaul {
    let to = place.url();
    let mut arguments = vec!["export", "--from", &pg.url, "--to", &to, "--format", "csv", "--readers", "2"];
    arguments.extend(["--report", "json", "--progress", "none"]);
    arguments.extend(source);
    place.outhaul(arguments)
}

async fn until_staged(place: &Place) {
    eventually(Duration::from_secs(30), "the first staged bytes", async || {
        (!place.staged().await.is_empty()).then_some(())
    })
    .await;
}

/// Waits for the end of a run that was told to stop at `told`.
async fn ended(run: Running, told: Instant, code: i32) -> Run {
    let run = run.wait().await.expect(code);
    let taken = told.elapsed();
    assert!(taken < SECONDS, "{taken:?}; {}", run.stderr);
    run
}

#[tokio::test]
async fn a_signal_before_the_first_read_stops_the_run() {
    for (version, signal, code) in SIGNALS {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for place in Place::both() {
            let planned = Stop::at("planned");
            let run = export(&pg, &place, &["--table", "t"]).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            run.signal(signal).await;
            run.stderr_has("stopping cleanly").await;
            let told = Instant::now();
            planned.release();
            let run = ended(run, told, code).await;
            assert!(run.stderr.contains("nothing was published"), "{}", run.stderr);
            assert_eq!(run.report["exit_code"], code);
            place.nothing_is_left().await;
            no_sessions_left(&pg).await;
        }
    }
}

#[tokio::test]
async fn a_signal_while_rows_are_read_stops_the_run() {
    for (version, signal, code) in SIGNALS {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for place in Place::both() {
            let source = [&["--table", "t", "--partitions", "4"][..], &SLOW].concat();
            let run = export(&pg, &place, &source).spawn();
            until_staged(&place).await;
            assert_eq!(place.visible().await, [""; 0]);
            let told = Instant::now();
            run.signal(signal).await;
            ended(run, told, code).await;
            place.nothing_is_left().await;
            no_sessions_left(&pg).await;
        }
    }
}

/// One sends rows as fast as they are taken, the other none at all.
#[tokio::test]
async fn a_signal_stops_a_query_that_would_never_end() {
    for (version, signal, code) in SIGNALS {
        let pg = pg(version).await;
        for query in ["select generate_series(1, 2000000000) as i", "select 1 as i from pg_sleep(3600)"] {
            let place = Place::local();
            let run = export(&pg, &place, &["--query", query]).spawn();
            eventually(Duration::from_secs(20), "the reader", async || {
                (!pg.exporter_pids("reader").await.is_empty()).then_some(())
            })
            .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let told = Instant::now();
            run.signal(signal).await;
            ended(run, told, code).await;
            place.nothing_is_left().await;
            no_sessions_left(&pg).await;
        }
    }
}

#[tokio::test]
async fn a_signal_ends_the_wait_for_a_lock() {
    for (version, signal, code) in SIGNALS {
        let pg = pg(version).await;
        pg.batch("create table t (id int)").await;
        let other = pg.connect().await;
        other.batch_execute("begin; lock table t in access exclusive mode").await.unwrap();
        let place = Place::local();
        let run = export(&pg, &place, &["--table", "t"]).spawn();
        eventually(Duration::from_secs(20), "the wait", async || {
            (pg.value("select count(*) from pg_locks where not granted").await == "1").then_some(())
        })
        .await;
        let told = Instant::now();
        run.signal(signal).await;
        ended(run, told, code).await;
        place.nothing_is_left().await;
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn a_signal_before_the_commit_stops_the_run() {
    for (version, signal, code) in SIGNALS {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for place in Place::both() {
            let uploaded = Stop::at("uploaded");
            let run = export(&pg, &place, &["--table", "t", "--partitions", "4"]).stops([&uploaded]).spawn();
            run.stands_at(&uploaded).await;
            assert_eq!(place.staged().await.len(), 4);
            assert_eq!(place.visible().await, [""; 0]);
            run.signal(signal).await;
            run.stderr_has("stopping cleanly").await;
            let told = Instant::now();
            uploaded.release();
            ended(run, told, code).await;
            place.nothing_is_left().await;
            no_sessions_left(&pg).await;
        }
    }
}

#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    for (version, signal, code) in SIGNALS {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let (place, planned) = (Place::local(), Stop::at("planned"));
        let run = export(&pg, &place, &["--table", "t"]).stops([&planned]).spawn();
        run.stands_at(&planned).await;
        run.signal(signal).await;
        run.stderr_has("a second signal leaves at once").await;
        let told = Instant::now();
        run.signal(signal).await;
        run.wait().await.expect(code);
        assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
        assert_eq!(place.visible().await, [""; 0]);
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn a_killed_run_leaves_nothing_that_readers_see() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for place in Place::both() {
            let source = [&["--table", "t"][..], &SLOW].concat();
            let run = export(&pg, &place, &source).spawn();
            until_staged(&place).await;
            run.signal("KILL").await;
            run.wait().await.expect(137);
            assert_eq!(place.visible().await, [""; 0]);

            let uploaded = Stop::at("uploaded");
            let run = export(&pg, &place, &["--table", "t"]).stops([&uploaded]).spawn();
            run.stands_at(&uploaded).await;
            run.signal("KILL").await;
            run.wait().await.expect(137);
            assert_eq!(place.visible().await, [""; 0]);
            no_sessions_left(&pg).await;
        }
    }
}

#[tokio::test]
async fn without_owners_the_first_to_commit_stands_and_the_other_leaves_no_trace() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create table t as select i as id from generate_series(1, 1000) i").await;
        for place in Place::both() {
            let uploaded = Stop::at("uploaded");
            let slow = export(&pg, &place, &["--table", "t"]).stops([&uploaded]).spawn();
            slow.stands_at(&uploaded).await;
            // What the manifest itself guarantees, where owners fail: on a store without conditional writes, say.
            let other = export(&pg, &place, &["--table", "t", "--where", "id <= 500"]);
            other.env("OUTHAUL_TEST_OFF", "owner").run().await.expect(0);
            uploaded.release();
            let taken = slow.wait().await.expect(22);
            assert!(taken.stderr.contains("taken this destination over"), "{}", taken.stderr);
            // It checks that exactly the parts of the manifest are there.
            assert_eq!(place.contents().await, oracle::query(&pg, "select * from t where id <= 500").await);
            assert_eq!(place.staged().await, [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_folder_that_cannot_take_the_parts_gets_none() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    // The permissions of a folder do not stop root, so a file stands where the folder should be.
    for (path, folder) in [("data", false), ("a part", true)] {
        let (place, uploaded) = (Place::local(), Stop::at("uploaded"));
        let dest = place.folder();
        let run = export(&pg, &place, &["--table", "t", "--partitions", "4"]).stops([&uploaded]).spawn();
        run.stands_at(&uploaded).await;
        let staged = place.staged().await;
        let in_the_way = if folder {
            let (_, part) = staged[2].split_once("/staging/").unwrap();
            std::fs::create_dir_all(dest.join(part).join("somebody's")).unwrap();
            part
        } else {
            std::fs::write(dest.join(path), "").unwrap();
            path
        };
        uploaded.release();
        let run = run.wait().await;
        assert!((20..=23).contains(&run.code), "{}: {}", run.code, run.stderr);
        std::fs::remove_dir_all(dest.join(in_the_way))
            .or_else(|_| std::fs::remove_file(dest.join(in_the_way)))
            .unwrap();
        place.nothing_is_left().await;
    }
}

#[tokio::test]
async fn an_upload_that_vanished_takes_the_other_parts_back() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let (s3, uploaded) = (s3(), Stop::at("uploaded"));
    let client = s3.client();
    let place = Place::S3(s3);
    let Place::S3(s3) = &place else { unreachable!() };
    let run = export(&pg, &place, &["--table", "t", "--partitions", "4"]).stops([&uploaded]).spawn();
    run.stands_at(&uploaded).await;
    let journal: Vec<String> = place.list().await.into_keys().filter(|path| path.contains("/uploads/")).collect();
    assert_eq!(journal.len(), 4);
    // Listed names are encoded already.
    let note = object_store::path::Path::parse(s3.key(&format!("dest/{}", journal[2]))).unwrap();
    let note = client.get(&note).await.unwrap().bytes().await.unwrap();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap();
    let key = s3.key(&format!("dest/{}", note["path"].as_str().unwrap()));
    client.abort_multipart(&key.into(), &note["upload_id"].as_str().unwrap().to_owned()).await.unwrap();
    uploaded.release();
    let run = run.wait().await;
    assert!((20..=23).contains(&run.code), "{}: {}", run.code, run.stderr);
    place.nothing_is_left().await;
}

/// As written, a part is visible before its worker knows it: a signal in between must not leave it there.
#[tokio::test]
async fn a_part_that_is_just_appearing_when_the_signal_comes_goes_again() {
    for place in Place::both() {
        let pg = pg(18).await;
        pg.batch(TABLE).await;
        let stop = Stop::at("shown");
        let source = ["--table", "t", "--partitions", "4", "--visibility", "as-written"];
        let run = export(&pg, &place, &source).stops([&stop]).spawn();
        run.stands_at(&stop).await;
        let parts = |listing: &BTreeMap<String, u64>| listing.keys().filter(|path| path.contains("part-")).count();
        assert!(parts(&place.list().await) > 0, "nothing was visible, so that nothing is shown by its absence");
        run.signal("INT").await;
        run.stderr_has("stopping").await;
        stop.release();
        run.wait().await.expect(130);
        let left = place.list().await;
        let visible: Vec<_> = left.keys().filter(|path| !path.starts_with("_outhaul/")).collect();
        assert!(visible.is_empty(), "{visible:?}");
    }
}
