//! Workers of others that panic, whose engine dies, or whose network fails on one side: what is there stays, what is missing is
//! read by others, and nothing else is left.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::crash::{TABLE as FEW, kill};
use crate::support::eventually;
use crate::support::http_proxy::{End, Fault, Op, Proxy, on};
use crate::support::job::{no_sessions_left, rows};
use crate::support::pg::{Pg, pg};
use crate::support::place::Place;
use crate::support::run::{Outhaul, Stop, program};
use crate::support::s3::s3;
use crate::support::tcp_proxy::{Fate, TcpProxy};
use crate::workers::{Driver, QUICK, driver, lines, receipts, resume, told, worker};

/// Some megabytes in four partitions, so that a reader is still at one when it is met.
const TABLE: &str = "create table t as select i as id, repeat(md5(i::text), 60) as v from generate_series(1, 20000) i;
    alter table t set (autovacuum_enabled = off); analyze t";

/// After this nothing may be left of a process that has been told to stop.
const GONE: Duration = Duration::from_secs(10);

/// W6: a worker that panics ends by itself and shows no secret. What it was at is the fault of the program, so the run ends
/// with it, and nothing stays of what the others did.
#[tokio::test]
async fn w6_a_worker_that_panics_ends_the_run_and_leaves_nothing() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (place, at) in [(Place::local(), "encoding"), (Place::S3(s3()), "encoding"), (Place::S3(s3()), "batch")] {
        let started = Driver::start(driver(&pg, &place, &[])).await;
        started.worker(&pg, &place, "0").run().await.expect(0);
        let stop = Stop::at("batch");
        let other = started.worker(&pg, &place, "1").stops([&stop]).spawn();
        other.stands_at(&stop).await;
        let panics = started.worker(&pg, &place, "2").env("OUTHAUL_TEST_PANIC", at).env("PGPASSWORD", "hush-hush");
        let run = panics.run().await.expect(1);
        assert!(!run.stderr.contains("hush-hush") && !run.stdout.windows(9).any(|bytes| bytes == b"hush-hush"));
        let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
        assert_eq!((&failed[0]["code"], &failed[0]["retryable"]), (&json!(1), &json!(false)), "{at}: {failed:?}");
        let run = started.running.wait().await.expect(1);
        assert!(run.stderr.contains("a worker failed: "), "{at}: {}", run.stderr);
        stop.release();
        let run = other.wait().await;
        assert!([21, 22].contains(&run.code), "{at}: {}: {}", run.code, run.stderr);
        place.nothing_is_left().await;
    }
    no_sessions_left(&pg).await;
}

/// Every row takes the server a millisecond.
const SLOW: &str = "slow=case when pg_sleep(0.001) is null then 1 end";

/// An engine as people write it in a shell: it starts the run and two workers on one pipe, and dies without a word.
fn engine(pg: &Pg, place: &Place, folder: &Path) -> Outhaul {
    let script = "cd \"$3\" && mkfifo line
        (\"$0\" export --workers external --from \"$1\" --to \"$2\" --table t --format csv --csv-header off --partitions 8 \\
            --column \"$4\" --progress none --keep-snapshot 60s < line; echo $? > run.code) > run.out 2> run.err &
        for share in 0 1; do
            (\"$0\" worker --destination \"$2\" --from \"$1\" --shard $share/2 < line; echo $? > worker.$share.code) \\
                > worker.$share.out 2> worker.$share.err &
        done
        exec 3> line
        wait";
    let words = ["-c", script, env!("CARGO_BIN_EXE_outhaul"), &pg.url, &place.url(), folder.to_str().unwrap(), SLOW];
    place.known_to(program("/bin/sh", words)).env("OUTHAUL_TEST_LIMITS", QUICK)
}

/// W7: the engine is killed. Its workers stop, its run ends and leaves what is there, and another engine goes on with it.
#[tokio::test]
async fn w7_a_killed_engine_costs_what_its_workers_were_at() {
    let pg = pg(18).await;
    pg.batch(FEW).await;
    let expected: Vec<String> = rows(&pg).await.into_iter().map(|row| row + ",").collect();
    for place in Place::both() {
        let folder = tempfile::tempdir().unwrap();
        let running = engine(&pg, &place, folder.path()).spawn();
        eventually(Duration::from_secs(30), "two receipts", async || (receipts(&place).await >= 2).then_some(())).await;
        kill(running).await;
        let code = |name: &str| std::fs::read_to_string(folder.path().join(format!("{name}.code"))).ok();
        for (name, expected) in [("run", "11\n"), ("worker.0", "143\n"), ("worker.1", "143\n")] {
            let ended = eventually(GONE, name, async || code(name).filter(|code| code.ends_with('\n'))).await;
            assert_eq!(ended, expected, "{name}");
        }
        let kept = receipts(&place).await;
        assert!((2..8).contains(&kept), "{kept} receipts");
        pg.batch("update t set v = 'later' where id % 7 = 0").await;
        let resumed = Driver::start(resume(&pg, &place, &["--workers", "external"])).await;
        let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        assert_eq!((told(&run).0.len(), told(&run).1.len()), (8 - kept, kept), "what is there is not read again");
        resumed.running.wait().await.expect(0);
        assert_eq!(place.whole().await, expected);
        pg.batch("update t set v = md5(id::text) where id % 7 = 0").await;
    }
    no_sessions_left(&pg).await;
}

/// A worker that is stopped while it writes a receipt keeps the part that the receipt names.
#[tokio::test]
async fn w7_a_worker_that_is_stopped_at_its_receipt_keeps_its_part() {
    let pg = pg(18).await;
    pg.batch(FEW).await;
    for place in Place::both() {
        let started = Driver::start(driver(&pg, &place, &[])).await;
        let stop = Stop::at("receipted");
        let running = started.worker(&pg, &place, "2").stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("TERM").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.release();
        running.wait().await.expect(143);
        let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        assert_eq!(told(&run), (vec![0, 1, 3], vec![2]));
        let run = started.running.wait().await.expect(0);
        assert!(!run.stderr.contains("is gone"), "{}", run.stderr);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

/// A receipt whose part is gone is believed by no worker, whether the run may remove it or not.
#[tokio::test]
async fn a_part_that_is_gone_before_the_workers_come_is_read_again() {
    let pg = pg(18).await;
    pg.batch(FEW).await;
    for (place, off) in [(Place::S3(s3()), ""), (Place::S3(s3()), "forget-receipts"), (Place::local(), "")] {
        let first = Driver::start(driver(&pg, &place, &["--keep-snapshot", "60s"])).await;
        first.worker(&pg, &place, "0,2").run().await.expect(0);
        kill(first.running).await;
        place.lose_part("part-00002").await;
        let second = Driver::start(resume(&pg, &place, &["--workers", "external"]).env("OUTHAUL_TEST_OFF", off)).await;
        assert_eq!(second.partitions(), [1, 2, 3]);
        assert_eq!(receipts(&place).await, if off.is_empty() { 1 } else { 2 });
        let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        assert_eq!(told(&run), (vec![1, 2, 3], vec![0]));
        second.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

/// A part that goes while workers read is read by another worker, and only the run's end removes what no receipt names. If none
/// comes, the run ends, and can be resumed.
#[tokio::test]
async fn a_part_that_goes_while_workers_read_is_read_again_or_ends_the_run() {
    let pg = pg(18).await;
    pg.batch(FEW).await;
    for (place, comes) in [(Place::S3(s3()), true), (Place::S3(s3()), false), (Place::local(), true)] {
        let limits = format!("{QUICK},gone={}", if comes { 60.0 } else { 0.3 });
        let run = driver(&pg, &place, &["--keep-snapshot", "60s"]).env("OUTHAUL_TEST_LIMITS", limits);
        let started = Driver::start(run).await;
        started.worker(&pg, &place, "0,1,2").run().await.expect(0);
        place.lose_part("part-00002").await;
        let stop = Stop::at("finished");
        let again = comes.then(|| started.worker(&pg, &place, "2").stops([&stop]).spawn());
        if let Some(again) = &again {
            again.stands_at(&stop).await;
        }
        started.worker(&pg, &place, "3").run().await.expect(0);
        started.running.stderr_has("a part that has a receipt is gone").await;
        if let Some(again) = again {
            stop.release();
            assert_eq!(told(&again.wait().await.expect(0)), (vec![2], vec![]));
            started.running.wait().await.expect(0);
        } else {
            let run = started.running.wait().await.expect(21);
            assert!(run.stderr.contains("1 partition had a receipt whose part is gone"), "{}", run.stderr);
            let run = resume(&pg, &place, &[]).run().await.expect(0);
            assert!(run.report["rows_read_now"].as_u64() < Some(4000), "the rest alone is read: {}", run.report);
        }
        assert_eq!(place.whole().await, rows(&pg).await);
    }
    no_sessions_left(&pg).await;
}

/// A receipt that comes when the next process of the run has looked already is counted all the same.
#[tokio::test]
async fn w8_a_receipt_between_two_processes_of_a_run_is_counted() {
    let pg = pg(18).await;
    pg.batch(FEW).await;
    let place = Place::local();
    let first = Driver::start(driver(&pg, &place, &["--keep-snapshot", "60s"])).await;
    let stop = Stop::at("fenced");
    let limits = format!("fence=60,{QUICK}");
    let late = first.worker(&pg, &place, "2").stops([&stop]).env("OUTHAUL_TEST_LIMITS", limits).spawn();
    late.stands_at(&stop).await;
    kill(first.running).await;
    let looked = Stop::at("receipts");
    let second = resume(&pg, &place, &["--workers", "external"]).stops([&looked]).spawn();
    second.stands_at(&looked).await;
    stop.release();
    late.wait().await.expect(0);
    looked.release();
    let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
    assert_eq!(told(&run), (vec![0, 1, 3], vec![2]));
    second.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
}

/// A run that was begun anew under the same id has the first epoch again: a worker of the one before reads nothing for it.
#[tokio::test]
async fn w4_a_run_of_the_same_id_and_epoch_is_another_run() {
    let pg = pg(18).await;
    pg.batch(FEW).await;
    for (off, code) in [("", 22), ("plan-hash", 0)] {
        let place = Place::local();
        let args = ["--run-id", "again"];
        let first = Driver::start(driver(&pg, &place, &args)).await;
        // It has the snapshot, and nothing of it is at the destination.
        let stop = Stop::at("reading");
        let limits = format!("fence=60,{QUICK}");
        let zombie = first.worker(&pg, &place, "3").stops([&stop]).env("OUTHAUL_TEST_LIMITS", limits);
        let zombie = zombie.env("OUTHAUL_TEST_OFF", off).spawn();
        zombie.stands_at(&stop).await;
        first.running.signal("TERM").await;
        first.running.wait().await.expect(143);
        let second = Driver::start(driver(&pg, &place, &args)).await;
        assert_eq!(second.ready["epoch"], first.ready["epoch"]);
        stop.release();
        zombie.wait().await.expect(code);
        assert_eq!(receipts(&place).await, usize::from(code == 0));
        worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        second.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

/// Two workers at addresses of their own, as on machines of their own.
const HOSTS: [&str; 2] = ["127.0.0.2", "127.0.0.3"];

/// W9: a worker is cut off from the database alone. For a moment it costs an attempt; for good it costs the worker, another one
/// does its work, and it may come back.
#[tokio::test]
async fn w9_a_worker_that_is_cut_off_from_the_database_is_replaced() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::S3(s3());
    let started = Driver::start(driver(&pg, &place, &[])).await;
    let [(near, first), (_far, second)] =
        [TcpProxy::at(HOSTS[0], &pg.url).await, TcpProxy::at(HOSTS[1], &pg.url).await];
    let from = |url: &str, partitions: &str| {
        let fence = started.fence(partitions);
        let destination = place.url();
        let own = ["worker", "-v", "--destination", &destination, "--from", url];
        place.outhaul(own.into_iter().chain(fence.iter().map(String::as_str))).env("OUTHAUL_TEST_LIMITS", QUICK)
    };
    for (back, code) in [(true, 0), (false, 11)] {
        let stop = Stop::at("batch");
        let partition = if back { "0" } else { "1" };
        let running = from(&first, partition).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        let asked = near.statements();
        assert!(asked.iter().any(|sql| sql.starts_with("COPY")), "it reads by an address of its own: {asked:?}");
        near.all(Fate::Close);
        // The connection is closed once its bytes are wanted.
        stop.release();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if back {
            near.all(Fate::Pass);
        }
        let run = running.wait().await.expect(code);
        assert!(run.stderr.contains("repeated under the same snapshot"), "{}", run.stderr);
        let read = if back { vec![0] } else { vec![] };
        assert_eq!(told(&run), (read, vec![]));
        if !back {
            let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
            assert_eq!((&failed[0]["code"], &failed[0]["retryable"]), (&json!(11), &json!(true)), "{failed:?}");
            assert_eq!(
                place.open_uploads().await.len(),
                1,
                "what it was at is gone, and what has its receipt is there"
            );
        }
    }
    assert_eq!(told(&from(&second, "1,2").run().await.expect(0)), (vec![1, 2], vec![]));
    near.all(Fate::Pass);
    assert_eq!(told(&from(&first, "1,3").run().await.expect(0)), (vec![3], vec![1]));
    started.running.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
    no_sessions_left(&pg).await;
}

/// W9: a worker is cut off from the store alone. It ends with 21, its query with it; its upload is gone when the run is.
#[tokio::test]
async fn w9_a_worker_that_is_cut_off_from_the_store_is_replaced() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::S3(s3());
    let Place::S3(store) = &place else { unreachable!() };
    let proxy = Proxy::start(&store.endpoint, []).await;
    let started = Driver::start(driver(&pg, &place, &[])).await;
    let stop = Stop::at("batch");
    let cut = started.worker(&pg, &place, "2").env("AWS_ENDPOINT", &proxy.endpoint);
    let limits = format!("{QUICK},store-retry=1,request=2");
    let running = cut.env("OUTHAUL_TEST_LIMITS", limits).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    let all = [Op::Create, Op::Chunk, Op::Complete, Op::Abort, Op::Put, Op::Get, Op::List, Op::Head, Op::Delete];
    proxy.set(all.map(|op| on(op, "", Fault::Lost(End::Close))));
    stop.release();
    let run = running.wait().await.expect(21);
    let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
    assert_eq!((&failed[0]["code"], &failed[0]["retryable"]), (&json!(21), &json!(true)), "{failed:?}");
    eventually(GONE, "no reader", async || pg.exporter_pids("reader").await.is_empty().then_some(())).await;
    assert_eq!(receipts(&place).await, 0);
    let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
    assert_eq!(told(&run), (vec![0, 1, 2, 3], vec![]));
    started.running.wait().await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
    no_sessions_left(&pg).await;
}
