//! Killed runs: whatever the moment, the next run, `resume` or `clean` leaves one whole export or nothing, and a snapshot
//! that is kept is the one that is read.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::job::{no_sessions_left, parts, rows};
use crate::support::pg::{Pg, both, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Outhaul, Running, Stop};
use crate::support::s3::s3;
use crate::support::{eventually, unique};

pub(crate) const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 4000) i;
    alter table t add primary key (id); alter table t set (autovacuum_enabled = off); analyze t";

/// Where a run is killed, in the order of its life (K0 to K12 of the plan for faults).
const PLACES: [&str; 13] = [
    "begun",
    "locked",
    "journalled",
    "planned",
    "reading",
    "batch",
    "finished",
    "receipted",
    "uploaded",
    "published",
    "sent",
    "committed",
    "ending",
];

/// Those that only uploads have.
const UPLOADS: [&str; 2] = ["upload-begun", "upload-noted"];

/// From where on the manifest stands.
const COMMITTED: [&str; 3] = ["sent", "committed", "ending"];

fn resume(pg: &Pg, place: &Place, args: &[&str]) -> Outhaul {
    let url = place.url();
    let mut all = vec!["resume", &url, "--from", &pg.url, "--report", "json", "--progress", "none"];
    all.extend(args);
    place.outhaul(all)
}

async fn clean(place: &Place, args: &[&str]) -> Value {
    let url = place.url();
    let mut all = vec!["clean", &url, "--report", "json"];
    all.extend(args);
    place.outhaul(all).run().await.expect(0).report["report"].take()
}

pub(crate) async fn kill(running: Running) {
    running.signal("KILL").await;
    assert_eq!(running.wait().await.code, 137);
}

/// A run that is killed once it stands at `at`.
async fn killed(pg: &Pg, place: &Place, at: &'static str, args: &[&str]) {
    let stop = Stop::at(at);
    let running = export(pg, place, args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    kill(running).await;
}

fn places(place: &Place) -> Vec<&'static str> {
    let uploads: &[&str] = if matches!(place, Place::S3(_)) { &UPLOADS } else { &[] };
    PLACES.iter().chain(uploads).copied().collect()
}

#[tokio::test]
async fn c2_killed_anywhere_and_run_again_there_is_one_whole_export() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    let done = async |place: Place| {
        for at in places(&place) {
            // As a scheduler does it: the same command.
            let run_id = format!("job-{}", unique());
            let again = ["--run-id", &run_id, "--on-existing", "replace"];
            killed(&pg, &place, at, &again).await;
            let run = export(&pg, &place, &again).run().await.expect(0);
            assert_eq!(run.report["already_committed"], COMMITTED.contains(&at), "{at}");
            assert_eq!(place.whole().await, expected, "{at}");
        }
    };
    let [local, s3] = Place::both();
    tokio::join!(done(local), done(s3));
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn c2_killed_anywhere_and_cleaned_there_is_nothing_or_one_whole_export() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    let done = async |kind: fn() -> Place| {
        for at in places(&kind()) {
            for visibility in ["at-commit", "as-written"] {
                let place = kind();
                killed(&pg, &place, at, &["--visibility", visibility]).await;
                let planned = clean(&place, &["--dry-run"]).await;
                let before = place.list().await;
                assert_eq!(planned["dry_run"], true);
                let report = clean(&place, &[]).await;
                assert_eq!(planned["runs"].as_array().unwrap().len(), report["runs"].as_array().unwrap().len(), "{at}");
                assert!(at == "begun" || !before.is_empty(), "{at}: a dry run removes nothing");
                if COMMITTED.contains(&at) {
                    assert_eq!(place.whole().await, expected, "{at}");
                } else {
                    assert!(place.is_empty().await, "{at}, {visibility}: {:?} {report}", place.list().await);
                }
                // Two cleaners are one.
                assert_eq!(clean(&place, &[]).await["runs"].as_array().unwrap().len(), 0);
            }
        }
    };
    tokio::join!(done(Place::local), done(|| Place::S3(s3())));
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn c1_stopped_anywhere_it_leaves_nothing_and_after_the_commit_has_begun_everything() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    let done = async |kind: fn() -> Place, signal: &str, code: i32| {
        for at in places(&kind()) {
            let place = kind();
            let stop = Stop::at(at);
            let running = export(&pg, &place, &[]).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            let begun = Instant::now();
            running.signal(signal).await;
            if ["published", "sent", "committed", "ending"].contains(&at) {
                stop.release();
                running.wait().await.expect(0);
                assert_eq!(place.whole().await, expected, "{at}");
                continue;
            }
            // A step that cannot be left in the middle goes on once the test lets it.
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.release();
            running.wait().await.expect(code);
            assert!(begun.elapsed() < Duration::from_secs(10), "{at}: {:?}", begun.elapsed());
            assert!(place.is_empty().await, "{at}: {:?}", place.list().await);
        }
    };
    tokio::join!(done(Place::local, "INT", 130), done(|| Place::S3(s3()), "TERM", 143));
    no_sessions_left(&pg).await;
}

/// The paths of the parts whose receipts a run has left. One that another reader was writing stands under a hidden name.
pub(crate) async fn receipted(place: &Place) -> Vec<String> {
    let mut paths = Vec::new();
    let stands = |path: &String| path.contains("/receipts/") && !path.contains("/receipts/.");
    for path in place.list().await.into_keys().filter(stands) {
        let receipt: Value = serde_json::from_slice(&place.get(&path).await).unwrap();
        let named = receipt["parts"].as_array().unwrap().iter();
        paths.extend(named.map(|part| part["object"]["path"].as_str().unwrap().to_owned()));
    }
    paths
}

/// What a run without the crash would have written: attempts and times aside.
pub(crate) fn comparable(mut manifest: Value) -> Value {
    for field in ["run_id", "nonce", "created_at", "finished_at"] {
        manifest[field].take();
    }
    // Hashed with the run's id.
    manifest["source"]["identity"].take();
    for part in manifest["parts"].as_array_mut().unwrap() {
        for field in ["path", "url", "attempt", "started_at", "finished_at"] {
            part[field].take();
        }
    }
    for snapshot in manifest["consistency"]["snapshots"].as_array_mut().unwrap() {
        for field in ["id", "lsn", "xmin", "taken_at"] {
            snapshot[field].take();
        }
    }
    manifest
}

#[tokio::test]
async fn c3_killed_anywhere_and_resumed_it_is_the_export_of_its_snapshot() {
    let fresh = |kind: &Place| match kind {
        Place::Local(_) => Place::local(),
        Place::S3(_) => Place::S3(s3()),
    };
    let done = async |pg: &Pg, kind: Place| {
        let undisturbed = fresh(&kind);
        export(pg, &undisturbed, &["--key", "id"]).run().await.expect(0);
        for at in ["planned", "batch", "finished", "receipted", "uploaded", "published", "sent", "committed"] {
            let place = fresh(&kind);
            killed(pg, &place, at, &["--key", "id", "--keep-snapshot", "60s"]).await;
            // What the snapshot does not see.
            pg.batch("update t set v = 'later' where id % 7 = 0; insert into t select 5000 + i, 'x' from generate_series(1, 9) i").await;
            let before = receipted(&place).await;
            let run = resume(pg, &place, &[]).run().await.expect(0);
            let manifest = place.manifest().await;
            let now: Vec<&str> = parts(&manifest).iter().map(|part| part["path"].as_str().unwrap()).collect();
            for path in &before {
                assert!(now.contains(&path.as_str()), "{at}: {path} was read again: {}", run.stderr);
            }
            assert_eq!(place.whole().await, undisturbed.whole().await, "{at}");
            assert_eq!(comparable(manifest), comparable(undisturbed.manifest().await), "{at}");
            assert_eq!(run.report["already_committed"], COMMITTED.contains(&at), "{at}");
            // Once more it is done already.
            let run = resume(pg, &place, &[]).run().await.expect(0);
            assert_eq!(run.report["already_committed"], true);
            pg.batch("update t set v = md5(id::text); delete from t where id > 4000").await;
        }
        // The keepers look into the journal every few seconds.
        no_sessions_left(pg).await;
    };
    let [eighteen, fifteen] = [pg(18).await, pg(15).await];
    eighteen.batch(TABLE).await;
    fifteen.batch(TABLE).await;
    let [local, bucket] = Place::both();
    tokio::join!(done(&eighteen, local), done(&fifteen, bucket));
}

/// Kills at random moments, each followed by what `go_on` does, until one comes through.
async fn survives(seed: u64, kills: usize, pg: &Pg, place: &Place, go_on: &str) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut killed = 0;
    let mut first = true;
    let begun = Instant::now();
    while killed < kills {
        assert!(begun.elapsed() < Duration::from_mins(3), "{killed} kills, seed {seed}");
        let run_id = format!("soak-{killed}");
        let args = ["--keep-snapshot", "60s", "--on-existing", "replace", "--run-id", &run_id, "--part-size", "64KiB"];
        let running = match (first, go_on) {
            (false, "resume") => resume(pg, place, &[]).spawn(),
            _ => export(pg, place, &args).spawn(),
        };
        first = false;
        tokio::time::sleep(Duration::from_millis(random.random_range(5..400))).await;
        running.signal("KILL").await;
        match running.wait().await.code {
            137 => killed += 1,
            // Through before the kill, or killed before there was a run.
            0 | 2 => first = true,
            // Killed before anybody but the run itself held the snapshot: then it had read nothing.
            12 if receipted(place).await.is_empty() => first = true,
            code => panic!("exit {code}, seed {seed}"),
        }
    }
    let last = match go_on {
        "resume" => resume(pg, place, &[]).run().await,
        _ => export(pg, place, &["--on-existing", "replace"]).run().await,
    };
    if last.code != 0 {
        assert!([2, 12].contains(&last.code) && go_on == "resume", "{}", last.stderr);
        assert!(receipted(place).await.is_empty(), "{}", last.stderr);
        export(pg, place, &["--on-existing", "replace"]).run().await.expect(0);
    }
}

#[tokio::test]
async fn twenty_kills_at_random_moments_and_one_whole_export() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let expected = rows(&pg).await;
    let seed: u64 = std::env::var("OUTHAUL_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("OUTHAUL_TEST_SEED={seed}");
    for (place, go_on) in [(Place::local(), "resume"), (Place::S3(s3()), "resume"), (Place::local(), "export")] {
        survives(seed, 20, &pg, &place, go_on).await;
        assert_eq!(place.whole().await, expected, "{go_on}, seed {seed}");
    }
}

#[tokio::test]
async fn c4_without_its_snapshot_a_run_is_not_resumed_unless_a_mix_is_allowed() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (key, place) in [(true, Place::local()), (false, Place::S3(s3()))] {
        let args: &[&str] = if key { &["--key", "id"] } else { &[] };
        let stop = Stop::at("receipted");
        let running = export(&pg, &place, args).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        eventually(Duration::from_secs(10), "two receipts", async || {
            (receipted(&place).await.len() >= 2).then_some(())
        })
        .await;
        kill(running).await;
        let run = resume(&pg, &place, &[]).run().await.expect(12);
        assert!(run.stderr.contains("--keep-snapshot"), "{}", run.stderr);
        assert!(!receipted(&place).await.is_empty(), "what is uploaded stays");
        let run = resume(&pg, &place, &["--allow-mixed-snapshot"]).run().await;
        if key {
            run.expect(0);
            let consistency = place.manifest().await["consistency"].take();
            assert_eq!(consistency["mode"], "mixed");
            assert_eq!(consistency["snapshots"].as_array().unwrap().len(), 2);
            assert_eq!(place.whole().await, rows(&pg).await);
        } else {
            let run = run.expect(12);
            assert!(run.stderr.contains("not split by key"), "{}", run.stderr);
            export(&pg, &place, &[]).run().await.expect(0);
            assert_eq!(place.whole().await, rows(&pg).await);
        }
    }
}

#[tokio::test]
async fn c5_resume_reports_what_has_committed_and_refuses_what_never_was() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let run = resume(&pg, &place, &[]).run().await.expect(2);
    assert!(run.stderr.contains("no run to resume"), "{}", run.stderr);
    export(&pg, &place, &["--max-rows", "10"]).run().await.expect(3);
    let before = place.list().await;
    let run = resume(&pg, &place, &[]).run().await.expect(3);
    assert_eq!(run.report["already_committed"], true);
    assert_eq!(place.list().await, before);
}

#[tokio::test]
async fn what_was_to_be_content_with_the_first_rows_is_so_after_a_resume() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    killed(&pg, &place, "uploaded", &["--keep-snapshot", "60s", "--limit", "10"]).await;
    let run = resume(&pg, &place, &[]).run().await.expect(0);
    assert_eq!((&run.report["status"], &run.report["rows"]), (&"truncated".into(), &10.into()));
}

#[tokio::test]
async fn a_receipt_whose_part_is_gone_is_not_believed() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        killed(&pg, &place, "uploaded", &["--keep-snapshot", "60s"]).await;
        place.lose_part("part-0").await;
        let run = resume(&pg, &place, &[]).run().await.expect(0);
        assert!(run.stderr.contains("is gone; its partition is read again"), "{}", run.stderr);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

#[tokio::test]
async fn a_snapshot_is_kept_in_the_foreground_until_its_run_has_ended() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let url = place.url();
    let keep = |args: &[&'static str]| {
        let mut all = vec!["keep", url.as_str(), "--from", &pg.url, "--for", "60s"];
        all.extend(args);
        place.outhaul(all).spawn()
    };
    // It may be up before the run.
    let keeping = keep(&[]);
    let stop = Stop::at("planned");
    let running = export(&pg, &place, &["--key", "id"]).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    keeping.stderr_has("holding the snapshot as").await;
    kill(running).await;
    pg.batch("delete from t where id % 2 = 0").await;
    resume(&pg, &place, &[]).run().await.expect(0);
    assert_eq!(place.whole().await.len(), 4000);
    let run = keeping.wait().await.expect(0);
    assert!(run.stderr.contains("the run has ended"), "{}", run.stderr);
    no_sessions_left(&pg).await;
}

/// Ends the run's keepers but the newest, and waits until another one stands.
async fn replace_keepers(pg: &Pg) {
    let all = "from pg_stat_activity where datname = current_database() and application_name like 'outhaul/%/keeper'";
    let count = format!("select count(*) {all}");
    for _ in 0..2 {
        let oldest = format!("select pid {all} order by backend_start limit 1");
        let oldest = pg.value(&oldest).await;
        pg.batch(&format!("select pg_terminate_backend({oldest})")).await;
        let gone = format!("select count(*) from pg_stat_activity where pid = {oldest}");
        eventually(Duration::from_secs(20), "a new keeper", async || {
            (pg.value(&gone).await == "0" && pg.value(&count).await == "2").then_some(())
        })
        .await;
    }
}

/// The ids with which a run began are gone with their sessions: whoever comes to keep its snapshot later needs new ones.
#[tokio::test]
async fn a_keeper_that_comes_late_finds_the_keepers_of_now() {
    for (version, off, says) in
        [(15, "", "holding the snapshot as"), (18, "note-keepers", "every keeper of the snapshot")]
    {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let place = Place::local();
        let stop = Stop::at("reading");
        let running = export(&pg, &place, &["--key", "id"]).stops([&stop]).env("OUTHAUL_TEST_OFF", off).spawn();
        running.stands_at(&stop).await;
        replace_keepers(&pg).await;
        // They are noted every few seconds.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let url = place.url();
        let keeping = place.outhaul(["keep", &url, "--from", &pg.url, "--for", "60s"]).spawn();
        keeping.stderr_has(says).await;
        stop.release();
        running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
        keeping.wait().await.expect(if off.is_empty() { 0 } else { 12 });
    }
}

#[tokio::test]
async fn a_kept_snapshot_is_let_go_for_whoever_waits_for_it_and_by_clean() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for end in ["ddl", "clean", "time"] {
        let place = Place::local();
        let duration = if end == "time" { "3s" } else { "60s" };
        killed(&pg, &place, "planned", &["--keep-snapshot", duration, "--yield-to-ddl", "1s"]).await;
        match end {
            "ddl" => {
                let begun = Instant::now();
                pg.batch("alter table t add column if not exists more int").await;
                assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
            }
            "clean" => drop(clean(&place, &[]).await),
            _ => {}
        }
        no_sessions_left(&pg).await;
        let code = if end == "clean" { 2 } else { 12 };
        resume(&pg, &place, &[]).run().await.expect(code);
    }
}

#[tokio::test]
async fn a_failure_that_may_pass_leaves_the_receipts_where_the_snapshot_is_kept() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    // The first partition is read at once, the others take ten seconds.
    let slow = "slow=case when id > 1000 then pg_sleep(0.01) is null end";
    let args = ["--keep-snapshot", "60s", "--max-duration", "3s", "--key", "id", "--column", slow];
    let run = export(&pg, &place, &args).run().await.expect(16);
    assert!(run.stderr.contains("--max-duration"), "{}", run.stderr);
    let kept = receipted(&place).await;
    assert!(!kept.is_empty());
    pg.batch("delete from t where id <= 1000").await;
    // The time counts anew, and is too short again.
    resume(&pg, &place, &[]).run().await.expect(16);
    assert!(receipted(&place).await.len() >= kept.len());
    clean(&place, &[]).await;
    assert!(place.is_empty().await);
}

/// A signal gives the run up, whichever of its processes gets it.
#[tokio::test]
async fn a_signal_to_a_resumed_run_leaves_nothing_of_any_of_its_processes() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        for at in ["receipts", "batch", "uploaded"] {
            killed(&pg, &place, "receipted", &["--keep-snapshot", "60s", "--key", "id"]).await;
            assert!(!receipted(&place).await.is_empty());
            let stop = Stop::at(at);
            let running = resume(&pg, &place, &[]).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            running.signal("INT").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.release();
            running.wait().await.expect(130);
            assert!(place.is_empty().await, "{at}: {:?}", place.list().await);
        }
    }
    no_sessions_left(&pg).await;
}

/// The age of the snapshot is what the limit is about, and not of the process that reads under it.
#[tokio::test]
async fn a_resumed_run_counts_the_age_of_its_snapshot_from_where_it_was_taken() {
    for (version, off, code) in [(15, "", 16), (18, "", 16), (18, "snapshot-age", 0)] {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let place = Place::local();
        let slow = "slow=pg_sleep(0.0005) is null";
        let args = ["--keep-snapshot", "60s", "--max-snapshot-age", "8s", "--key", "id", "--column", slow];
        killed(&pg, &place, "planned", &args).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let begun = Instant::now();
        let run = resume(&pg, &place, &[]).env("OUTHAUL_TEST_OFF", off).run().await.expect(code);
        if code == 16 {
            assert!(run.stderr.contains("--max-snapshot-age") && run.stderr.contains("export again"), "{}", run.stderr);
            assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        }
        clean(&place, &[]).await;
    }
}

#[tokio::test]
async fn both_versions_kill_and_go_on() {
    // The two servers name a lost snapshot in other words.
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let place = Place::local();
        killed(&pg, &place, "uploaded", &[]).await;
        resume(&pg, &place, &[]).run().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}
