//! A job that is killed or stopped is gone on with: by `outhaul resume ROOT`, and by the same command with the same
//! `--run-id`. What is read under a snapshot that is still held is of that instant.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::job::{command, no_sessions_left};
use crate::support::manifest;
use crate::support::night::{Night, Pgbench, THREE, foreign_keys, shop, three};
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, Run, Stop, outhaul};

const TABLES: [&str; 3] = ["a", "b", "c"];

const KEPT: &str = "readers = 2\npartitions = 3\nkeep_snapshot = '60s'";

/// Other rows than those of the snapshot.
const LATER: &str = "insert into a select i, 'new' from generate_series(1, 10) i;
    insert into b select i, 'new' from generate_series(1, 10) i; insert into c select i from generate_series(1, 10) i";

fn resume(pg: &Pg, night: &Night) -> Outhaul {
    let root = night.out("");
    let root = root.to_str().unwrap();
    outhaul(["resume", root, "--from", &pg.url, "--report", "json", "--progress", "none"])
}

/// A run that is killed once it stands at `at`; then rows are added to every table.
async fn killed(pg: &Pg, night: &Night, at: &'static str) {
    let stop = Stop::at(at);
    let running = night.run(pg, &["--run-id", "night-1"]).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await;
    pg.batch(LATER).await;
}

fn rows(night: &Night) -> Vec<u64> {
    TABLES.iter().map(|table| manifest(&night.out(table))["totals"]["rows"].as_u64().unwrap()).collect()
}

/// All of it is of the instant of the first process.
fn is_of_one_instant(night: &Night, run: &Run) {
    assert_eq!(rows(night), [2000, 2000, 3]);
    assert_eq!((&run.report["one_instant"], &night.record()["one_instant"]), (&Value::Bool(true), &Value::Bool(true)));
    let id = |table: &&str| manifest(&night.out(table))["consistency"]["snapshots"][0]["id"].to_string();
    assert_eq!(TABLES.iter().map(id).collect::<BTreeSet<_>>().len(), 1);
    for table in TABLES {
        assert!(!night.out(table).join("_outhaul").exists(), "{table} has leftovers");
    }
}

#[tokio::test]
async fn a_job_whose_snapshot_is_kept_goes_on_under_it() {
    for (at, by_root) in
        [("kept", true), ("receipted", true), ("receipted", false), ("uploaded", false), ("committed", true)]
    {
        let pg = pg(15).await;
        pg.batch(THREE).await;
        let night = three(KEPT);
        killed(&pg, &night, at).await;
        let again = if by_root { resume(&pg, &night) } else { night.run(&pg, &["--run-id", "night-1"]) };
        let run = again.run().await.expect(0);
        assert_eq!(run.report["run_id"], "night-1", "{at}");
        is_of_one_instant(&night, &run);
        // Once more it is only told.
        let told = resume(&pg, &night).run().await.expect(0);
        let exports = told.report["exports"].as_array().unwrap();
        assert!(exports.len() == 3 && exports.iter().all(|export| export["already_committed"] == true), "{at}");
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn what_is_killed_twice_keeps_what_both_have_read() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let night = three(KEPT);
    killed(&pg, &night, "receipted").await;
    // A commit takes its receipts away.
    let read = || {
        let receipts = |table: &str| std::fs::read_dir(night.out(table).join("_outhaul/night-1/receipts"));
        let parts = |table: &str| manifest(&night.out(table))["parts"].as_array().map_or(0, Vec::len);
        let of = |table: &&str| {
            let has_committed = night.out(table).join("_manifest.json").exists();
            if has_committed { parts(table) } else { receipts(table).map_or(0, Iterator::count) }
        };
        TABLES.iter().map(of).sum::<usize>()
    };
    let first = read();
    let stop = Stop::at("receipted");
    let running = resume(&pg, &night).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await;
    assert!(first > 0 && read() > first, "{first}, then {}", read());
    let run = resume(&pg, &night).run().await.expect(0);
    is_of_one_instant(&night, &run);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn one_keeper_holds_the_snapshot_of_all_exports() {
    let pg = pg(18).await;
    pg.batch(THREE).await;
    let (night, batch) = (three(KEPT), Stop::at("batch"));
    let running = night.run(&pg, &[]).stops([&batch]).spawn();
    running.stands_at(&batch).await;
    let keepers = "select distinct c.relname from pg_locks l join pg_stat_activity s using (pid) join pg_class c on c.oid = l.relation
        where s.datname = current_database() and s.application_name like 'outhaul/%/kept' and c.relname in ('a', 'b', 'c')";
    assert_eq!(pg.sql(keepers).await.len(), 3);
    let sessions = "select count(*) from pg_stat_activity where application_name like 'outhaul/%/kept' and datname = current_database()";
    assert_eq!(pg.sql(sessions).await[0][0].as_deref(), Some("1"));
    batch.release();
    running.wait().await.expect(0);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn a_snapshot_is_kept_by_a_job_file_that_holds_the_password() {
    let pg = pg(18).await;
    pg.batch(THREE).await;
    let from = pg.url.replace("postgres@", "postgres:swordfish@");
    assert!(from.contains(":swordfish@"), "{from}");
    let night = three(&format!("from = '{from}'\n{KEPT}"));
    let job = night.folder.path().join("job.toml");
    std::fs::set_permissions(&job, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let stop = Stop::at("receipted");
    let args = ["run", job.to_str().unwrap(), "--run-id", "night-1", "--report", "json", "--progress", "none"];
    let running = outhaul(args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    let killed = running.wait().await;
    assert!(!killed.stderr.contains("swordfish"), "{}", killed.stderr);
    pg.batch(LATER).await;
    // Nobody but the keeper holds the snapshot now.
    let run = outhaul(args).run().await.expect(0);
    is_of_one_instant(&night, &run);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn without_its_snapshot_what_is_missing_is_exported_anew() {
    for (by_root, at) in [(true, "receipted"), (false, "receipted"), (true, "committed")] {
        let pg = pg(15).await;
        pg.batch(THREE).await;
        let night = three("readers = 1\npartitions = 2");
        killed(&pg, &night, at).await;
        let before = night.committed();
        let again = if by_root { resume(&pg, &night) } else { night.run(&pg, &["--run-id", "night-1"]) };
        let run = again.run().await.expect(0);
        // What had committed is of the first instant, and what was read whole too.
        let found = rows(&night);
        assert!(
            found.iter().zip([[2000, 2010], [2000, 2010], [3, 13]]).all(|(rows, may)| may.contains(rows)),
            "{found:?}"
        );
        let old = found.iter().filter(|rows| [2000, 3].contains(*rows)).count();
        assert!(old >= before.len() && old < 3, "{found:?}, {before:?}");
        assert_eq!(run.report["one_instant"], old == 0, "{found:?}");
        no_sessions_left(&pg).await;
    }
}

/// What a killed run has left of the others is found by the record alone.
#[tokio::test]
async fn a_retry_of_a_few_exports_leaves_the_others_in_the_record() {
    for by_clean in [true, false] {
        let pg = pg(15).await;
        pg.batch(THREE).await;
        let night = three("readers = 1\npartitions = 2");
        killed(&pg, &night, "receipted").await;
        night.run(&pg, &["--run-id", "night-1", "--only", "c"]).run().await.expect(0);
        let record = night.record();
        let status = |table: &str| {
            let exports = record["exports"].as_array().unwrap();
            let found = exports.iter().find(|export| export["name"] == table).unwrap_or_else(|| panic!("{record}"));
            found["status"].as_str().unwrap().to_owned()
        };
        assert_eq!(TABLES.map(status), ["running", "running", "complete"], "{record}");
        assert!(night.out("a/_outhaul").exists() || night.out("b/_outhaul").exists());
        if by_clean {
            outhaul(["clean", night.out("").to_str().unwrap()]).run().await.expect(0);
            assert_eq!(night.committed().len(), 1);
        } else {
            resume(&pg, &night).run().await.expect(0);
            assert_eq!(night.committed().len(), 3);
            assert_eq!(night.record()["exports"].as_array().unwrap().len(), 3);
        }
        for table in TABLES {
            assert!(!night.out(table).join("_outhaul").exists(), "{table} has leftovers");
        }
    }
}

#[tokio::test]
async fn a_retry_that_asks_for_other_rows_takes_nothing_from_the_run_before() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let night = three(KEPT);
    killed(&pg, &night, "uploaded").await;
    let job = night.folder.path().join("job.toml");
    let text = std::fs::read_to_string(&job).unwrap().replace("partitions = 3", "partitions = 3\nwhere = 'id <= 3'");
    std::fs::write(&job, text).unwrap();
    night.run(&pg, &["--run-id", "night-1"]).run().await.expect(0);
    assert_eq!(rows(&night), [6, 6, 6]);
}

#[tokio::test]
async fn what_never_began_is_told_and_a_root_without_a_run_is_none() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let night = three("readers = 1");
    killed(&pg, &night, "begun").await;
    let run = resume(&pg, &night).run().await.expect(2);
    assert_eq!(run.report["exports"].as_array().unwrap().len(), 3);
    assert!(run.stderr.contains("night-1") && run.stderr.contains("--run-id"), "{}", run.stderr);
    night.run(&pg, &["--run-id", "night-1"]).run().await.expect(0);
    let empty = tempfile::tempdir().unwrap();
    outhaul(["resume", empty.path().to_str().unwrap(), "--from", &pg.url]).run().await.expect(2);
}

#[tokio::test]
async fn a_signal_leaves_what_is_uploaded_where_that_is_asked_for() {
    for (by_root, how) in [(true, "on_signal = 'keep'"), (false, "on_signal = 'keep'"), (false, "on_signal = 'abort'")]
    {
        let pg = pg(18).await;
        pg.batch(THREE).await;
        let night = three(&format!("{KEPT}\n{how}"));
        let stop = Stop::at("receipted");
        let running = night.run(&pg, &["--run-id", "night-1"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("TERM").await;
        stop.release();
        let run = running.wait().await.expect(143);
        let keeps = how.contains("keep'");
        assert_eq!((&run.report["resumable"], night.committed().len()), (&Value::Bool(keeps), 0), "{how}");
        pg.batch(LATER).await;
        let again = if by_root { resume(&pg, &night) } else { night.run(&pg, &["--run-id", "night-1"]) };
        let run = again.run().await.expect(0);
        if keeps {
            is_of_one_instant(&night, &run);
        } else {
            assert_eq!(rows(&night), [2010, 2010, 13]);
        }
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn a_signal_leaves_one_export_to_resume_too() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let to = to.to_str().unwrap();
    let args = ["--table", "a", "--readers", "2", "--partitions", "3", "--keep-snapshot", "60s", "--on-signal", "keep"];
    let stop = Stop::at("receipted");
    let running = command(&pg, to, &args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("TERM").await;
    stop.release();
    let run = running.wait().await.expect(143);
    assert_eq!((&run.report["resumable"], &run.report["retryable"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(run.stderr.contains("outhaul resume"), "{}", run.stderr);
    pg.batch(LATER).await;
    outhaul(["resume", to, "--from", &pg.url]).run().await.expect(0);
    assert_eq!(manifest(std::path::Path::new(to))["totals"]["rows"], 2000);
    command(&pg, to, &["--table", "a", "--on-signal", "keep"]).run().await.expect(2);
    no_sessions_left(&pg).await;
}

/// Whether the snapshot of a run that was killed is held outside of it, by the journals. One that was killed before that may be
/// gone on with while its sessions are still ending, and what is not read by then is of another moment.
fn is_kept(night: &Night) -> bool {
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut journals = entries(night.out("")).map(|out| out.join("_outhaul/night-1")).filter(|run| run.exists());
    journals.all(|run| entries(run.join("keepers")).next().is_some())
}

#[tokio::test]
async fn killed_at_any_moment_and_resumed_forty_tables_are_of_one_instant() {
    let kills = std::env::var("OUTHAUL_TEST_KILLS").map_or(3, |kills| kills.parse().unwrap());
    let pg = shop().await;
    let _writing = Pgbench::of(&pg);
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    for nth in 0..kills {
        let night = Night::all("readers = 2\npart_size = '16KiB'\nkeep_snapshot = '60s'");
        let args = ["--run-id", "night-1"];
        let running = night.run(&pg, &args).spawn();
        tokio::time::sleep(Duration::from_millis(random.random_range(100..4_000))).await;
        running.signal("KILL").await;
        running.wait().await;
        let (kept, before) = (is_kept(&night), night.committed().len());
        let by_root = if nth % 2 == 0 { Some(resume(&pg, &night).run().await) } else { None };
        let told = by_root.as_ref().map_or(String::new(), |run| format!("{before} before; {}", run.stderr));
        let by_root = by_root.map_or(2, |run| run.code);
        // Killed so early that not all of them had begun, it is for the command that knows what was asked for.
        assert!([0, 2].contains(&by_root), "kill {nth} of seed {seed}: {by_root}");
        if by_root == 2 {
            night.run(&pg, &args).run().await.expect(0);
        }
        let committed = night.committed();
        assert_eq!(committed.len(), 40, "kill {nth} of seed {seed}");
        let id = |name: &String| manifest(&night.out(name))["consistency"]["snapshots"][0]["id"].to_string();
        let snapshots: BTreeSet<String> = committed.iter().map(id).collect();
        let one = snapshots.len() == 1;
        let what = format!("kill {nth} of seed {seed}, resumed by its root with {by_root}: {told}");
        assert!(one || !kept, "{what}");
        assert_eq!(night.record()["one_instant"], one, "{what}");
        if !one {
            continue;
        }
        for [lost, rows] in foreign_keys(&night.out("")).await {
            assert!(lost == 0 && rows >= 900, "kill {nth} of seed {seed}: {lost} of {rows}");
        }
        for name in &committed {
            assert!(!night.out(name).join("_outhaul").exists(), "{name} has leftovers, seed {seed}");
        }
    }
    no_sessions_left(&pg).await;
}
