//! Merges, mutations, inserts and removals throughout a parallel export: what is written is what one set of parts had, or the run
//! ends with 12 and publishes nothing. `OUTHAUL_TEST_MERGES` says how many seeds are tried.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::clickhouse_typed::{Target, found, lines};
use crate::support::clickhouse::ClickHouse;

/// Rows that are there before the export. Those that come later have numbers beyond.
const ROWS: u32 = 48_000;
const LATE: u32 = 1_000_000;

/// Rows that one statement inserts into one part.
const BATCH: u32 = 100;

/// What happens once, or not at all, to rows that were there: the statement, and which rows it leaves.
fn removal(seed: u64, random: &mut StdRng) -> Option<(String, String)> {
    let (id, bucket) = (random.random_range(0..ROWS), random.random_range(0..4));
    Some(match seed % 5 {
        1 => (format!("ALTER TABLE lines DELETE WHERE id = {id} SETTINGS mutations_sync = 2"), format!("id != {id}")),
        2 => (format!("ALTER TABLE lines DROP PARTITION {bucket}"), format!("bucket != {bucket}")),
        3 => ("TRUNCATE TABLE lines".to_owned(), "0".to_owned()),
        _ => return None,
    })
}

/// What happens all the time, and takes no row away. What is gentle changes one partition.
fn unrest(step: u32, random: &mut StdRng, gentle: bool) -> String {
    match if gentle { random.random_range(1..11) } else { random.random_range(0..12) } {
        0 => "OPTIMIZE TABLE lines FINAL".to_owned(),
        1..=6 => format!("OPTIMIZE TABLE lines PARTITION {} FINAL", random.random_range(0..4)),
        7..=10 => {
            let (from, bucket) = (LATE + step * BATCH, random.random_range(0..4));
            format!(
                "INSERT INTO lines SELECT number + {from}, {bucket}, 0, 'late', toDateTime(0, 'UTC') FROM numbers({BATCH})"
            )
        }
        _ => "ALTER TABLE lines DELETE WHERE id > 500000000 SETTINGS mutations_sync = 1".to_owned(),
    }
}

/// Plans that follow what has changed, before a run gives up.
const PLANNED_ANEW_MAX: u32 = 3;

/// So many things happen under the export of a seed: few enough to be followed, or as many as there is time for.
fn happenings(seed: u64) -> u32 {
    [2, PLANNED_ANEW_MAX, 12, 60][usize::try_from(seed % 4).unwrap()]
}

/// Whether an export must come through what happens under it.
fn is_gentle(most: u32) -> bool {
    most <= PLANNED_ANEW_MAX
}

async fn disturb(
    server: &ClickHouse,
    random: &mut StdRng,
    (most, removed): (u32, Option<&str>),
    mut done: oneshot::Receiver<()>,
) -> u32 {
    let mut removal = removed.map(|removed| (random.random_range(0..most.min(4)), removed));
    // From hardly ever to more often than a plan can follow.
    let pause = [600, 300, 150, 40][random.random_range(0..4)];
    let mut steps = 0;
    while steps < most && done.try_recv() == Err(TryRecvError::Empty) {
        if let Some((_, removed)) = removal.take_if(|(at, _)| *at == steps) {
            server.run(removed).await;
        }
        server.run(&unrest(steps, random, is_gentle(most))).await;
        steps += 1;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..pause))).await;
    }
    steps
}

/// The early rows that `which` leaves: their number, and sums that would differ where a value did.
async fn early(server: &ClickHouse, which: &str) -> Value {
    let sql = format!(
        "SELECT count(), toString(sum(id)), toString(toInt64(sum(price) * 100)), toString(sum(lengthUTF8(note))) \
         FROM lines WHERE id < {LATE} AND {which} FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0"
    );
    serde_json::from_str(&server.run(&sql).await).unwrap()
}

/// The same of what was exported, with the rows that are there twice, and the late batches that are there in part.
fn exported() -> String {
    let early = format!("FILTER (id < {LATE})");
    format!(
        "SELECT count(*) {early}, coalesce(sum(id::HUGEINT) {early}, 0)::VARCHAR, \
         coalesce(sum((price * 100)::BIGINT) {early}, 0)::VARCHAR, coalesce(sum(length(note)) {early}, 0)::VARCHAR, \
         count(*) - count(DISTINCT id), (SELECT count(*) FROM (SELECT count(*) AS rows FROM DATA WHERE id >= {LATE} \
         GROUP BY id::BIGINT // {BATCH}) WHERE rows != {BATCH}) FROM DATA"
    )
}

#[tokio::test]
async fn merges_throughout_an_export_change_nothing_in_it_or_end_it() {
    let seeds: u64 = std::env::var("OUTHAUL_TEST_MERGES").map_or(5, |seeds| seeds.parse().unwrap());
    let (mut whole, mut anew, mut lost) = (0, 0, 0);
    for seed in 0..seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let server = lines(ROWS).await;
        let removal = removal(seed, &mut random);
        let mut states = vec![early(&server, "1").await];
        if let Some((_, left)) = &removal {
            states.push(early(&server, left).await);
        }
        let most = happenings(seed);
        if is_gentle(most) {
            // The server merges nothing of its own.
            server.run("ALTER TABLE lines MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1").await;
        }
        server.run("SYSTEM START MERGES lines").await;
        let target = Target::new();
        let (stop, done) = oneshot::channel();
        let arguments = ["--table", "lines", "--format", "parquet", "--readers", "8", "--partitions", "24"];
        let export = async {
            let run = target.export(&server, &arguments).await;
            let _ = stop.send(());
            run
        };
        let removed = removal.as_ref().map(|(statement, _)| statement.as_str());
        let (run, steps) = tokio::join!(export, disturb(&server, &mut random, (most, removed), done));
        assert!(steps > 0);
        if run.code == 12 {
            assert!(removed.is_some() || !is_gentle(most), "seed {seed}: {}", run.stderr);
            assert!(!target.dest().join("_manifest.json").exists(), "seed {seed}");
            assert!(run.stderr.contains("changed while they were read"), "seed {seed}: {}", run.stderr);
            lost += 1;
            continue;
        }
        assert_eq!(run.code, 0, "seed {seed}: {}", run.stderr);
        let mut told = found(&target.dest(), &exported()).await[0].as_array().unwrap().clone();
        let [twice, torn] = told.split_off(4).try_into().unwrap();
        assert_eq!((twice, torn), (json!(0), json!(0)), "seed {seed}: rows twice, or batches in part");
        assert!(states.contains(&json!(told)), "seed {seed} {removed:?}: {told:?} is none of {states:?}");
        let note = target.manifest()["consistency"]["note"].to_string();
        anew += u32::from(note.contains("planned anew"));
        whole += 1;
    }
    eprintln!("{seeds} seeds: {whole} whole, {anew} of them planned anew; {lost} ended with 12");
    assert!(whole > 0, "no export came through");
}
