//! Decoding, encoding and compressing are rayon's; the async threads move bytes.

use std::collections::BTreeMap;

use crate::support::pg::{both, lineitem};
use crate::support::run::{Stop, outhaul};

/// CPU time in user mode of a process's threads by the kind in their names, in clock ticks.
fn user_time(pid: u32) -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // Idle helper threads come and go.
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (name, rest) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).unwrap();
        let kind = name.trim_end_matches(|last: char| last.is_ascii_digit()).to_owned();
        // `utime` is the 14th field, the 12th after the name.
        let ticks: u64 = rest.split_whitespace().nth(11).unwrap().parse().unwrap();
        *times.entry(kind).or_default() += ticks;
    }
    times
}

#[tokio::test]
async fn cpu_work_is_done_by_the_computing_threads() {
    for version in both() {
        let pg = lineitem(version).await;
        pg.batch("create table t as select l.* from lineitem l, generate_series(1, 16); analyze t").await;
        for format in ["parquet", "csv", "ndjson"] {
            let (dest, planned, uploaded) = (tempfile::tempdir().unwrap(), Stop::at("planned"), Stop::at("uploaded"));
            let mut arguments = vec!["export", "--from", &pg.url, "--table", "t", "--readers", "2"];
            arguments.extend(["--to", dest.path().to_str().unwrap(), "--format", format, "--compression", "zstd"]);
            let run = outhaul(arguments).stops([&planned, &uploaded]).spawn();
            run.stands_at(&planned).await;
            let before = user_time(run.pid());
            planned.release();
            run.stands_at(&uploaded).await;
            let after = user_time(run.pid());
            uploaded.release();
            run.wait().await.expect(0);

            // The kernel keeps 15 characters of a name.
            let known = ["outhaul", "outhaul-cpu-", "outhaul-io-", "outhaul-progres", "outhaul-signals"];
            let unknown: Vec<_> = after.keys().filter(|kind| !known.contains(&kind.as_str())).collect();
            assert!(unknown.is_empty(), "threads without a name of ours: {unknown:?}");
            let spent = |kind| after[kind] - before.get(kind).copied().unwrap_or_default();
            let (computing, moving) = (spent("outhaul-cpu-"), spent("outhaul-io-"));
            assert!(computing >= 20, "{format}: {computing} ticks are too few to tell anything");
            assert!(computing >= 5 * moving, "{format}: {computing} ticks on rayon, {moving} on the async threads");
        }
    }
}
