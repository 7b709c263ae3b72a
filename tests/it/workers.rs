//! A run whose partitions other processes read: whatever becomes of the workers, or of the process that commits, the export
//! is the one that a single process would have made, and nothing else stays.
//!
//! Whoever starts the workers is a shell engine here: processes, pipes, signals.

use std::time::Duration;

use serde_json::{Value, json};

use crate::crash::{TABLE, comparable, kill};
use crate::support::eventually;
use crate::support::job::{no_sessions_left, rows};
use crate::support::pg::{Pg, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Outhaul, Run, Running, Stop};
use crate::support::s3::s3;

/// What would be seconds in life.
pub(crate) const QUICK: &str = "look=0.1,wait=0.1,fence=0.2,new-keepers=2";

/// A run that waits for workers.
pub(crate) struct Driver {
    pub(crate) running: Running,
    /// What it has said of itself.
    pub(crate) ready: Value,
}

pub(crate) fn driver(pg: &Pg, place: &Place, args: &[&str]) -> Outhaul {
    let mut all = vec!["--workers", "external"];
    all.extend(args);
    export(pg, place, &all).env("OUTHAUL_TEST_LIMITS", QUICK)
}

pub(crate) fn resume(pg: &Pg, place: &Place, args: &[&str]) -> Outhaul {
    let url = place.url();
    let mut all = vec!["resume", &url, "--from", &pg.url, "--report", "json", "--progress", "none"];
    all.extend(args);
    place.outhaul(all).env("OUTHAUL_TEST_LIMITS", QUICK)
}

pub(crate) fn worker(pg: &Pg, place: &Place, args: &[&str]) -> Outhaul {
    let url = place.url();
    let mut all = vec!["worker", "--destination", &url, "--from", &pg.url];
    all.extend(args);
    place.outhaul(all).env("OUTHAUL_TEST_LIMITS", QUICK)
}

impl Driver {
    pub(crate) async fn start(run: Outhaul) -> Self {
        let running = run.spawn();
        let ready = eventually(Duration::from_secs(30), "the line `ready`", async || {
            lines(&running.stdout(), "ready").pop().or_else(|| {
                assert!(!running.stderr().contains("error:"), "{}", running.stderr());
                None
            })
        })
        .await;
        Self { running, ready }
    }

    /// What a worker is given that is to read these partitions.
    pub(crate) fn fence(&self, partitions: &str) -> Vec<String> {
        let text = |name: &str| match &self.ready[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (run_id, epoch, hash) = (text("run_id"), text("epoch"), text("plan_sha256"));
        let words = ["--run-id", &run_id, "--epoch", &epoch, "--plan-sha256", &hash, "--partitions", partitions];
        words.map(str::to_owned).to_vec()
    }

    pub(crate) fn worker(&self, pg: &Pg, place: &Place, partitions: &str) -> Outhaul {
        let fence = self.fence(partitions);
        worker(pg, place, &fence.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn partitions(&self) -> Vec<u64> {
        let partitions = self.ready["partitions"].as_array().unwrap();
        let mut numbers: Vec<u64> = partitions.iter().map(|one| one["number"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// The lines of JSON of one type.
pub(crate) fn lines(text: &str, kind: &str) -> Vec<Value> {
    let parsed = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["type"] == kind).collect()
}

/// The receipts that a worker has told of: those that it has read for, and those that were there.
pub(crate) fn told(run: &Run) -> (Vec<u64>, Vec<u64>) {
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let (already, read): (Vec<Value>, Vec<Value>) =
        lines(&text, "receipt").into_iter().partition(|line| line["already"] == true);
    let numbers = |lines: Vec<Value>| {
        let mut numbers: Vec<u64> = lines.iter().map(|line| line["partition"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    (numbers(read), numbers(already))
}

pub(crate) async fn receipts(place: &Place) -> usize {
    let stands = |path: &String| path.contains("/receipts/") && !path.contains("/receipts/.");
    place.list().await.into_keys().filter(stands).count()
}

/// W0: one worker or several, the export is that of a single process, and no partition is read twice.
#[tokio::test]
async fn w0_the_export_is_that_of_a_single_process() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    let done = async |fresh: fn() -> Place, counts: &[usize]| {
        let alone = fresh();
        export(&pg, &alone, &["--key", "id"]).run().await.expect(0);
        for count in counts {
            let place = fresh();
            let driver = Driver::start(driver(&pg, &place, &["--key", "id"])).await;
            assert_eq!((driver.partitions(), &driver.ready["max_workers"]), (vec![0, 1, 2, 3], &json!(2)));
            assert!(driver.ready["partitions"].as_array().unwrap().iter().all(|one| one["weight"].as_u64() > Some(1)));
            let shards: Vec<String> = (0..*count).map(|index| format!("{index}/{count}")).collect();
            let workers: Vec<Running> =
                shards.iter().map(|shard| worker(&pg, &place, &["--shard", shard]).spawn()).collect();
            let mut read = Vec::new();
            for worker in workers {
                read.extend(told(&worker.wait().await.expect(0)).0);
            }
            read.sort_unstable();
            assert_eq!(read, [0, 1, 2, 3], "{count} workers");
            let run = driver.running.wait().await.expect(0);
            assert_eq!(run.report["rows_read_now"], 4000);
            assert_eq!(place.whole().await, expected);
            assert_eq!(comparable(place.manifest().await), comparable(alone.manifest().await));
        }
    };
    tokio::join!(done(Place::local, &[1, 3]), done(|| Place::S3(s3()), &[2]));
    no_sessions_left(&pg).await;
}

/// W1, W3: workers are killed in the middle of a part, all of them; one that comes back reads what is missing.
#[tokio::test]
async fn w1_killed_workers_cost_what_they_were_at() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let driver = Driver::start(driver(&pg, &place, &[])).await;
        let stops = [Stop::at("batch"), Stop::at("batch")];
        let mut killed = Vec::new();
        for (stop, partition) in stops.iter().zip(["0", "1"]) {
            killed.push(driver.worker(&pg, &place, partition).stops([stop]).spawn());
        }
        for (running, stop) in killed.into_iter().zip(&stops) {
            running.stands_at(stop).await;
            kill(running).await;
        }
        let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        assert_eq!(told(&run), (vec![0, 1, 2, 3], vec![]));
        driver.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
    no_sessions_left(&pg).await;
}

/// W2: a worker that is killed between its receipt and the line that tells of it costs no second read.
#[tokio::test]
async fn w2_a_lost_line_costs_no_read() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (off, again) in [("", false), ("known-receipts", true)] {
        let place = Place::local();
        let driver = Driver::start(driver(&pg, &place, &[])).await;
        let stop = Stop::at("receipted");
        let running = driver.worker(&pg, &place, "2").stops([&stop]).spawn();
        running.stands_at(&stop).await;
        kill(running).await;
        let run = driver.worker(&pg, &place, "2").env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        assert_eq!(told(&run), if again { (vec![2], vec![]) } else { (vec![], vec![2]) });
        worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        driver.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

/// W4: a worker that stood still while its run went on under another epoch leaves nothing there.
#[tokio::test]
async fn w4_a_worker_of_another_epoch_is_fenced() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (place, off) in [(Place::local(), ""), (Place::S3(s3()), ""), (Place::local(), "fence")] {
        let stop = Stop::at("finished");
        let first = Driver::start(driver(&pg, &place, &["--keep-snapshot", "60s"])).await;
        let zombie = first.worker(&pg, &place, "3").stops([&stop]).env("OUTHAUL_TEST_OFF", off).spawn();
        zombie.stands_at(&stop).await;
        zombie.signal("STOP").await;
        kill(first.running).await;
        let second = Driver::start(resume(&pg, &place, &["--workers", "external"])).await;
        assert_eq!(second.ready["epoch"], 2);
        stop.release();
        zombie.signal("CONT").await;
        let run = zombie.wait().await;
        if off.is_empty() {
            let run = run.expect(22);
            assert!(run.stderr.contains("epoch 2"), "{}", run.stderr);
            assert_eq!(
                (receipts(&place).await, lines(&String::from_utf8_lossy(&run.stdout), "failed")[0]["code"].clone()),
                (0, json!(22))
            );
        } else {
            run.expect(0);
            assert_eq!(receipts(&place).await, 1, "without the fence its receipt is there");
        }
        worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        second.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
    no_sessions_left(&pg).await;
}

/// A receipt that comes into a journal that was closed meanwhile is taken back, with its upload.
#[tokio::test]
async fn w4_what_comes_after_the_end_is_taken_back() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for (place, off) in [(Place::local(), ""), (Place::S3(s3()), ""), (Place::S3(s3()), "late-fence")] {
        let stop = Stop::at("fenced");
        let driver = Driver::start(driver(&pg, &place, &[])).await;
        // It does not look while it stands there.
        let limits = "look=0.1,wait=0.1,fence=60";
        let late = driver.worker(&pg, &place, "3").stops([&stop]).env("OUTHAUL_TEST_LIMITS", limits);
        let late = late.env("OUTHAUL_TEST_OFF", off).spawn();
        late.stands_at(&stop).await;
        worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        driver.running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
        stop.release();
        let run = late.wait().await;
        if off.is_empty() {
            assert!([0, 21].contains(&run.code), "{}: {}", run.code, run.stderr);
            assert_eq!(place.whole().await, rows(&pg).await);
        } else {
            run.expect(0);
            assert!(receipts(&place).await > 0, "without the second look its receipt stays");
        }
    }
}

/// A table of which one partition holds what Parquet cannot.
const NOT_A_NUMBER: &str =
    "create table t as select i as id, (case when i = 3999 then 'NaN'::numeric else 1 end)::numeric(9,2) as v
    from generate_series(1, 4000) i; alter table t add primary key (id); analyze t";

/// W5: what no worker can read ends the run after one attempt, by the journal or by a line; what another one may do does not.
#[tokio::test]
async fn w5_what_no_worker_can_read_ends_the_run() {
    let pg = pg(18).await;
    pg.batch(NOT_A_NUMBER).await;
    let place = Place::local();
    // Without the journal nobody but the engine knows why the worker ended.
    let deaf = driver(&pg, &place, &["--format", "parquet"]).env("OUTHAUL_TEST_OFF", "worker-failures");
    let deaf = Driver::start(deaf).await;
    worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(14);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!deaf.running.stderr().contains("a worker failed"), "{}", deaf.running.stderr());
    deaf.running.signal("TERM").await;
    deaf.running.wait().await.expect(143);

    let started = Driver::start(driver(&pg, &place, &["--format", "parquet"])).await;
    let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(14);
    let failed = lines(&String::from_utf8_lossy(&run.stdout), "failed");
    assert_eq!((&failed[0]["code"], &failed[0]["retryable"]), (&json!(14), &json!(false)), "{failed:?}");
    let run = started.running.wait().await.expect(14);
    assert!(run.stderr.contains("a worker failed: partition ") && run.stderr.contains("id = 3999"), "{}", run.stderr);
    assert!(place.is_empty().await, "{:?}", place.list().await);

    let mut started = Driver::start(driver(&pg, &place, &[]).piped()).await;
    started.running.tell(r#"{"type":"failed","code":11,"message":"lost"}"#).await;
    started.running.tell(r#"{"type":"receipt","partition":0}"#).await;
    started.running.stderr_has("another one may not").await;
    started.running.tell(r#"{"type":"failed","code":15,"message":"no such function"}"#).await;
    let run = started.running.wait().await.expect(15);
    assert!(run.stderr.contains("a worker failed: no such function"), "{}", run.stderr);
    assert!(place.is_empty().await, "{:?}", place.list().await);
    no_sessions_left(&pg).await;
}

/// W8: the process that commits is killed, and a keeper beside it holds the snapshot: what is there is not read again.
#[tokio::test]
async fn w8_a_killed_driver_costs_no_partition() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    for place in Place::both() {
        let started = Driver::start(driver(&pg, &place, &[])).await;
        let url = place.url();
        let keeping = place.outhaul(["keep", &url, "--from", &pg.url, "--for", "60s"]).spawn();
        keeping.stderr_has("holding the snapshot as").await;
        let run = started.worker(&pg, &place, "0,2").run().await.expect(0);
        assert_eq!(told(&run), (vec![0, 2], vec![]));
        kill(started.running).await;
        pg.batch("update t set v = 'later'").await;
        let resumed = Driver::start(resume(&pg, &place, &["--workers", "external", "--max-workers", "3"])).await;
        assert_eq!((resumed.partitions(), &resumed.ready["max_workers"]), (vec![1, 3], &json!(3)));
        let run = worker(&pg, &place, &["--shard", "0/1"]).run().await.expect(0);
        assert_eq!(told(&run), (vec![1, 3], vec![0, 2]));
        let run = resumed.running.wait().await.expect(0);
        assert_eq!(run.report["rows"], 4000);
        assert_eq!(place.whole().await, expected);
        keeping.wait().await.expect(0);
        pg.batch("update t set v = md5(id::text)").await;
    }
    no_sessions_left(&pg).await;
}
