//! What a run stands in: its streams, its limits, its machine, and others who write to its table (rows C6 to C10 and E8 of
//! the fault matrix).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::disk::Disk;
use crate::support::eventually;
use crate::support::http_proxy::{Fault, Op, Proxy, on};
use crate::support::job::{no_sessions_left, rows};
use crate::support::pg::{both, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Stop, outhaul};

/// Some megabytes in many blocks.
const TABLE: &str = "create table t as select i as id, repeat(md5(i::text), 20) as v from generate_series(1, 10000) i;
    alter table t set (autovacuum_enabled = off); analyze t";

/// The rows are four mebibytes each, made while they are read; the table has few in a block.
const WIDE: [&str; 4] = ["--columns", "id", "--column", "v=repeat(md5(id::text), 131072)"];

fn wide(rows: u32) -> String {
    format!(
        "create table t as select i as id, repeat(md5(i::text), 60) as pad from generate_series(1, {rows}) i; analyze t"
    )
}

/// A reader that opens a stream of the run and leaves at once.
const LEAVES: &str = "mkfifo pipe; : <pipe &";

#[tokio::test]
async fn c6_streams_that_nobody_reads_change_nothing() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    for (before, redirected) in [
        (LEAVES, ">pipe"),
        (LEAVES, "2>pipe"),
        (LEAVES, ">pipe 2>&1"),
        ("", "<&- >&- 2>&-"),
        // As a log on a full disk is.
        ("", ">/dev/full 2>/dev/full"),
    ] {
        for view in ["bar", "plain", "json"] {
            for place in if view == "json" { Vec::from(Place::both()) } else { vec![Place::local()] } {
                let before = format!("{before} exec {redirected};");
                let args = ["--progress", view, "-vv", "--partitions", "16"];
                let run = place.export_by(&before, &pg.url, &args).run().await.expect(0);
                assert_eq!(place.whole().await, expected, "{before} {view}: {}", run.stderr);
            }
        }
    }
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn c6_a_failure_that_nobody_reads_keeps_its_exit_code() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for redirected in ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"] {
        let place = Place::local();
        let before = format!("exec {redirected};");
        place.export_by(&before, &pg.url, &["--table", "missing"]).run().await.expect(13);
        let panicking = place.export_by(&before, &pg.url, &[]).env("OUTHAUL_TEST_PANIC", "encoding");
        panicking.run().await.expect(1);
        place.nothing_is_left().await;
    }
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn c6_metrics_on_a_disk_that_fills_change_nothing() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let (disk, place, stop) = (Disk::new(1).await, Place::local(), Stop::at("planned"));
    let (url, metrics) = (place.url(), disk.folder().join("metrics"));
    let args = ["export", "--from", &pg.url, "--to", &url, "--table", "t", "--format", "csv", "--csv-header", "off"];
    let running = disk.outhaul(&[&args[..], &["--metrics-file", metrics.to_str().unwrap()]].concat());
    let running = running.stops([&stop]).spawn();
    running.stands_at(&stop).await;
    disk.fill();
    stop.release();
    let run = running.wait().await.expect(0);
    assert!(run.stderr.contains("metrics could not be written"), "{}", run.stderr);
    assert_eq!(place.whole().await, rows(&pg).await);
}

/// `RLIMIT_DATA` rather than `RLIMIT_AS`: it counts what is private and writable (heap, stacks, arenas) whether it is
/// used or not, so that it is stricter than a control group's limit, and it leaves out address space that is only
/// reserved. Nobody needs to be root for it.
#[tokio::test]
async fn c7_wide_rows_before_a_stalled_store_live_in_256_mib() {
    let pg = pg(18).await;
    pg.batch(&wide(24)).await;
    let place = Place::both().into_iter().next_back().unwrap();
    let Place::S3(s3) = &place else { unreachable!() };
    // The first chunks stand still for seconds, the others are slow.
    let stalled = on(Op::Chunk, "part-", Fault::Throttle(1 << 20)).only(1..=4);
    let proxy = Proxy::start(&s3.endpoint, [stalled, on(Op::Chunk, "part-", Fault::Throttle(8 << 20))]).await;
    let limited = |mebibytes: u32| {
        let before = format!("ulimit -d {};", mebibytes * 1024);
        let run = place.export_by(&before, &pg.url, &WIDE).env("AWS_ENDPOINT", &proxy.endpoint);
        run.limit(Duration::from_mins(3))
    };
    // It is a limit: with less the run is ended, and leaves what the next one removes.
    let run = limited(32).run().await;
    assert_eq!(run.code, 134, "{}", run.stderr);
    let run = limited(256).run().await.expect(0);
    assert!(run.memory_peak < 256 << 20, "{} bytes", run.memory_peak);
    assert!(proxy.broken(Op::Chunk, "part-") > 4);
    assert_eq!(place.whole().await.len(), 24);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn c8_few_files_one_processor_and_no_folder_of_one_s_own_are_enough() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
    let (_, allowed) = allowed.split_once("Cpus_allowed_list:\t").unwrap();
    let processor: String = allowed.chars().take_while(char::is_ascii_digit).collect();
    for (before, readers) in [
        ("ulimit -n 64;", "8"),
        ("ulimit -v 2097152;", "4"),
        (format!("taskset -pc {processor} $$ >&2;").as_str(), "4"),
        // Where not even root can write.
        ("unset HOME; export TMPDIR=/proc; cd /proc;", "4"),
    ] {
        for place in Place::both() {
            let args = ["--readers", readers, "--partitions", "32"];
            let run = place.export_by(before, &pg.url, &args).run().await.expect(0);
            assert_eq!(place.whole().await, expected, "{before} {}", run.stderr);
        }
    }
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn c8_too_few_files_are_a_clear_error_or_fewer_readers() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    for files in ["64", "32", "16"] {
        for place in Place::both() {
            let before = format!("ulimit -n {files};");
            let args = ["--readers", "16", "--partitions", "32"];
            let run = place.export_by(&before, &pg.url, &args).run().await;
            if run.code == 0 {
                // What it could not open once the manifest stood, it has told, and a resume finishes it.
                if run.stderr.contains("could not be") {
                    let resume = ["resume", &place.url(), "--from", &pg.url, "--report", "json"];
                    place.known_to(outhaul(resume)).run().await.expect(0);
                }
                assert_eq!(place.whole().await, expected, "{files}: {}", run.stderr);
            } else {
                assert!([11, 21].contains(&run.code), "{files}: {} {}", run.code, run.stderr);
                assert!(run.stderr.to_lowercase().contains("too many open files"), "{files}: {}", run.stderr);
                assert!(run.stderr.contains("raise `ulimit -n`"), "{files}: {}", run.stderr);
                // What it could not open, it could not remove: the next run can.
                assert_eq!(place.visible().await, [""; 0]);
                export(&pg, &place, &[]).run().await.expect(0);
                assert_eq!(place.whole().await, expected, "{files}");
            }
        }
    }
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn c9_a_panic_on_a_computing_thread_ends_the_run_and_leaves_nothing() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for at in ["decoding", "encoding", "closing"] {
            for (place, format) in Place::both().into_iter().zip(["csv", "parquet"]) {
                let args = ["--readers", "4", "--format", format];
                // Its message is the whole environment.
                let run = export(&pg, &place, &args).env("OUTHAUL_TEST_PANIC", at).env("CANARY", "tweet");
                let run = run.env("RUST_BACKTRACE", "full").run().await.expect(1);
                assert!(run.stderr.contains("internal error at"), "{at}: {}", run.stderr);
                assert_eq!(run.report["error_kind"], "internal", "{at}");
                assert!(!run.stderr.contains("tweet") && !run.report.to_string().contains("tweet"), "{at}");
                place.nothing_is_left().await;
            }
        }
        no_sessions_left(&pg).await;
    }
}

/// Eight readers of rows that are a gigabyte and a half together, and a store that takes hours for them.
#[tokio::test]
async fn c10_with_much_in_flight_a_stop_is_over_in_ten_seconds() {
    let pg = pg(18).await;
    pg.batch(&wide(400)).await;
    let place = Place::both().into_iter().next_back().unwrap();
    let Place::S3(s3) = &place else { unreachable!() };
    let proxy = Proxy::start(&s3.endpoint, [on(Op::Chunk, "part-", Fault::Throttle(128 << 10))]).await;
    let args = [&WIDE[..], &["--readers", "8", "--partitions", "8"]].concat();
    let running = export(&pg, &place, &args).env("AWS_ENDPOINT", &proxy.endpoint).spawn();
    // The last range may have no block.
    eventually(Duration::from_secs(30), "chunks of nearly every reader", async || {
        (proxy.broken(Op::Chunk, "part-") >= 7 && place.open_uploads().await.len() >= 7).then_some(())
    })
    .await;
    let told = Instant::now();
    running.signal("TERM").await;
    let run = running.wait().await.expect(143);
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}; {}", told.elapsed(), run.stderr);
    no_sessions_left(&pg).await;
    place.nothing_is_left().await;
}

/// Money moves between accounts, accounts come and go, and their sum stays.
#[tokio::test]
async fn e8_under_a_heavy_load_of_writes_the_export_is_one_moment() {
    for (version, place) in both().into_iter().zip(Place::both()) {
        let pg = pg(version).await;
        pg.batch(
            "create table t as select i as id, 100 as balance from generate_series(1, 6000) i;
             alter table t add primary key (id); analyze t",
        )
        .await;
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|mine| {
                let (url, over) = (pg.url.clone(), Arc::clone(&over));
                tokio::spawn(async move {
                    let client = crate::support::pg::connect(&url).await;
                    let mut round = 0;
                    while !over.load(Ordering::Relaxed) {
                        // Accounts of its own, so that no two wait for each other. None that goes has money moved to
                        // or from it, however long the export takes.
                        let account = |nth: u32| 1 + nth * 3 + mine;
                        let (from, to) = (account(round * 7 % 950), account((round * 7 + 1) % 950));
                        let gone = account(950 + round % 950);
                        let born = 10_000 + round * 3 + mine;
                        let moves = format!(
                            "begin; update t set balance = balance - 7 where id = {from};
                             update t set balance = balance + 7 where id = {to}; commit;
                             with gone as (delete from t where id = {gone} returning balance)
                                 insert into t select {born}, balance from gone"
                        );
                        client.batch_execute(&moves).await.unwrap();
                        round += 1;
                    }
                    round
                })
            })
            .collect();
        let slow = ["--key", "id", "--column", "slow=case when pg_sleep(0.0002) is null then 1 end"];
        export(&pg, &place, &slow).run().await.expect(0);
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            let rounds = writer.await.unwrap();
            assert!(rounds > 100, "{rounds} rounds");
        }
        let exported = place.whole().await;
        let balance = |row: &String| row.split(',').nth(1).unwrap().parse::<i64>().unwrap();
        assert_eq!(exported.iter().map(balance).sum::<i64>(), 600_000, "{version}");
        assert_ne!(pg.value("select count(*) from t where id > 10000").await, "0");
    }
}
