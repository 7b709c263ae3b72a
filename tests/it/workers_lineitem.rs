//! lineitem by one, two and three workers, three of which are killed on the way: the export of a single process, each partition
//! once, and nothing left of anybody. `OUTHAUL_TEST_WORKERS_SCALE` says at which scale factor, `OUTHAUL_TEST_WORKERS` how often.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::crash::{comparable, kill};
use crate::support::job::{no_sessions_left, parts};
use crate::support::pg::lineitem_at;
use crate::support::place::{Place, export};
use crate::support::run::Running;
use crate::support::s3::s3;
use crate::support::{eventually, oracle};
use crate::workers::{Driver, driver, receipts, worker};

/// For a run at scale factor 1.
const LIMIT: Duration = Duration::from_mins(10);

const PARTITIONS: usize = 64;
const KILLS: usize = 3;

#[tokio::test]
async fn lineitem_by_workers_of_which_three_are_killed_is_that_of_one_process() {
    let scale = std::env::var("OUTHAUL_TEST_WORKERS_SCALE").unwrap_or_else(|_| "0.1".to_owned());
    let rounds: usize = std::env::var("OUTHAUL_TEST_WORKERS").map_or(1, |rounds| rounds.parse().unwrap());
    let pg = lineitem_at(18, &scale).await;
    let expected = oracle::query(&pg, "select * from lineitem").await;
    let count = PARTITIONS.to_string();
    let args = ["--table", "lineitem", "--partitions", &count];
    let single = Place::local();
    export(&pg, &single, &args).limit(LIMIT).run().await.expect(0);
    assert_eq!(single.contents().await, expected);
    let one = comparable(single.manifest().await);
    for round in 0..rounds {
        for workers in 1..=3 {
            let place = if (round + workers) % 2 == 0 { Place::S3(s3()) } else { Place::local() };
            let url = place.url();
            let all = [&args[..], &["--max-workers", "3"]].concat();
            let started = Driver::start(driver(&pg, &place, &all).limit(LIMIT)).await;
            assert_eq!(started.partitions().len(), PARTITIONS);
            let start =
                |index: usize| worker(&pg, &place, &["--shard", &format!("{index}/{workers}")]).limit(LIMIT).spawn();
            let mut running: Vec<Running> = (0..workers).map(start).collect();
            for nth in 1..=KILLS {
                let goal = nth * PARTITIONS / (KILLS + 2);
                let what = format!("{goal} receipts of {workers} workers");
                eventually(LIMIT, &what, async || (receipts(&place).await >= goal).then_some(())).await;
                let index = nth % workers;
                kill(std::mem::replace(&mut running[index], start(index))).await;
            }
            for worker in running {
                worker.wait().await.expect(0);
            }
            started.running.wait().await.expect(0);
            let manifest = place.manifest().await;
            assert_eq!(attempts(&manifest), PARTITIONS, "{workers} workers");
            assert_eq!(comparable(manifest), one, "{workers} workers");
            assert_eq!(place.contents().await, expected, "{workers} workers");
            no_sessions_left(&pg).await;
            assert_eq!((place.open_uploads().await, processes_about(&url)), (vec![], vec![]), "{workers} workers");
        }
    }
}

/// How many partitions a manifest has parts of, all of one attempt each.
fn attempts(manifest: &Value) -> usize {
    let mut of: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for part in parts(manifest) {
        of.entry(part["partition"].as_u64().unwrap()).or_default().push(&part["attempt"]);
    }
    assert!(of.values().all(|attempts| attempts.windows(2).all(|pair| pair[0] == pair[1])), "{of:?}");
    of.len()
}

/// Processes whose command line names a destination.
fn processes_about(url: &str) -> Vec<String> {
    let commands = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path().join("cmdline");
        let line = std::fs::read(path).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    commands.filter(|line| line.contains(url)).collect()
}
