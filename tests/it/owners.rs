//! Whose a destination is: one run at a time, and whoever has lost it touches nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::job::{no_sessions_left, rows};
use crate::support::pg::{both, pg};
use crate::support::place::{Place, export};
use crate::support::run::Stop;
use crate::support::s3::s3;

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 4000) i;
    alter table t add primary key (id); analyze t";

/// What is there but the owner record, which its owner renews.
async fn others(place: &Place) -> BTreeMap<String, u64> {
    place.list().await.into_iter().filter(|(path, _)| path != "_outhaul/owner.json").collect()
}

async fn put(place: &Place, path: &str, record: &Value) {
    match place {
        Place::Local(folder) => {
            let file = folder.path().join("dest").join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            // Renamed into its place, as outhaul does it: nobody reads half of it.
            let staged = folder.path().join("staged");
            std::fs::write(&staged, record.to_string()).unwrap();
            std::fs::rename(staged, file).unwrap();
        }
        Place::S3(s3) => s3.put(&format!("dest/{path}"), record.to_string().as_bytes()).await,
    }
}

#[tokio::test]
async fn d1_of_two_runs_one_owns_the_destination_and_the_other_reads_nothing() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let stop = Stop::at("uploaded");
        let first = export(&pg, &place, &[]).stops([&stop]).spawn();
        first.stands_at(&stop).await;
        let (before, uploads) = (others(&place).await, place.open_uploads().await);
        for args in [&[][..], &["--on-existing", "replace"], &["--run-id", "another"]] {
            let run = export(&pg, &place, args).run().await.expect(22);
            assert!(run.stderr.contains("is writing there"), "{}", run.stderr);
            assert_eq!((others(&place).await, place.open_uploads().await), (before.clone(), uploads.clone()));
        }
        // Nor does a cleaner touch it.
        let url = place.url();
        let cleaned = place.outhaul(["clean", &url, "--report", "json"]).run().await.expect(0);
        assert!(cleaned.report["report"]["alive"].is_string(), "{:?}", cleaned.report);
        assert_eq!((others(&place).await, place.open_uploads().await), (before, uploads));
        stop.release();
        first.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

#[tokio::test]
async fn d1_many_at_once_and_one_commits() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let running: Vec<_> = (0..4).map(|_| export(&pg, &place, &[]).spawn()).collect();
        let mut codes = Vec::new();
        for run in running {
            codes.push(run.wait().await.code);
        }
        codes.sort_unstable();
        assert_eq!(codes, [0, 22, 22, 22]);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

#[tokio::test]
async fn with_owners_switched_off_two_runs_get_in_each_other_s_way() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let stop = Stop::at("uploaded");
    let first = export(&pg, &place, &[]).stops([&stop]).spawn();
    first.stands_at(&stop).await;
    let second = export(&pg, &place, &[]).env("OUTHAUL_TEST_OFF", "owner").run().await;
    assert_eq!(second.code, 0, "{}", second.stderr);
    stop.release();
    assert_ne!(first.wait().await.code, 0);
}

#[tokio::test]
async fn an_owner_s_word_counts_for_a_minute_unless_its_process_is_known_to_be_gone() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let now = chrono::Utc::now();
    for (renewed, ended, code) in [(now, false, 22), (now - Duration::from_mins(5), false, 0), (now, true, 0)] {
        for place in Place::both() {
            // What the design names is enough; the rest is ours.
            let mut record = json!({"run_id": "theirs", "epoch": 4, "renewed_at": renewed});
            if ended {
                record["ended"] = json!(true);
            }
            put(&place, "_outhaul/owner.json", &record).await;
            let before = place.list().await;
            let run = export(&pg, &place, &[]).run().await.expect(code);
            if code == 22 {
                assert!(run.stderr.contains("run theirs is writing there"), "{}", run.stderr);
                assert_eq!(place.list().await, before);
            } else {
                assert_eq!(place.whole().await, rows(&pg).await);
            }
        }
    }
}

#[tokio::test]
async fn d3_a_run_that_was_overtaken_touches_nothing() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        for at in ["batch", "receipted", "uploaded", "published", "signing"] {
            let stop = Stop::at(at);
            let old = export(&pg, &place, &["--on-existing", "replace", "--key", "id"]).stops([&stop]).spawn();
            old.stands_at(&stop).await;
            old.signal("STOP").await;
            let url = place.url();
            let resumed = ["resume", url.as_str(), "--from", &pg.url, "--report", "json", "--take-over"];
            // The old process still holds the snapshot.
            let run = place.outhaul(resumed).run().await.expect(0);
            assert_eq!(run.report["already_committed"], false, "{at}");
            let after = place.list().await;
            old.signal("CONT").await;
            stop.release();
            let run = old.wait().await.expect(22);
            let taken = run.stderr.contains("taken this destination over") || at == "signing";
            assert!(taken, "{at}: {}", run.stderr);
            // Once it signs it has asked for the folder's lock.
            if at == "signing" && place.list().await.contains_key("_outhaul/lock") {
                place.delete("_outhaul/lock").await;
            }
            assert_eq!(place.list().await, after, "{at}");
            assert_eq!(place.whole().await, rows(&pg).await, "{at}");
        }
    }
    no_sessions_left(&pg).await;
}

/// The request that writes a manifest may take longer than others wait for a silent run, which then remove its parts.
#[tokio::test]
async fn d3_a_manifest_that_comes_late_is_no_success() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (place, off) in [(Place::local(), ""), (Place::S3(s3()), ""), (Place::S3(s3()), "confirm")] {
        let stop = Stop::at("signing");
        let old = export(&pg, &place, &[]).stops([&stop]).env("OUTHAUL_TEST_OFF", off).spawn();
        old.stands_at(&stop).await;
        old.signal("STOP").await;
        let mut record: Value = serde_json::from_slice(&place.get("_outhaul/owner.json").await).unwrap();
        record["renewed_at"] = "2026-01-01T00:00:00Z".into();
        record.as_object_mut().unwrap().remove("process");
        put(&place, "_outhaul/owner.json", &record).await;
        let reads = Stop::at("batch");
        let new = export(&pg, &place, &[]).stops([&reads]).spawn();
        new.stands_at(&reads).await;
        old.signal("CONT").await;
        stop.release();
        let run = old.wait().await.expect(if off.is_empty() { 22 } else { 0 });
        // In a folder the new run has taken away where the manifest would be written first.
        let told = ["the export is not whole", "taken this destination over"].iter().any(|it| run.stderr.contains(it));
        assert!(!off.is_empty() || told, "{}", run.stderr);
        reads.release();
        new.wait().await.expect(22);
    }
}

/// A run that takes over what another process of it is committing leaves the parts that this one's manifest names.
#[tokio::test]
async fn d3_the_parts_of_a_manifest_that_stands_are_left_by_all() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (place, off) in [(Place::local(), ""), (Place::S3(s3()), ""), (Place::S3(s3()), "named-parts")] {
        let stop = Stop::at("signing");
        let old = export(&pg, &place, &[]).stops([&stop]).spawn();
        old.stands_at(&stop).await;
        let (url, signs) = (place.url(), Stop::at("signing"));
        let resumed = ["resume", url.as_str(), "--from", &pg.url, "--report", "json", "--take-over"];
        let new = place.outhaul(resumed).stops([&signs]).env("OUTHAUL_TEST_OFF", off).spawn();
        new.stands_at(&signs).await;
        stop.release();
        old.wait().await.expect(0);
        signs.release();
        new.wait().await.expect(22);
        let whole = place.outhaul(["verify", url.as_str()]).run().await.code;
        assert_eq!(whole == 0, off.is_empty(), "{off}");
    }
}

/// A renewal writes beside the record first: a run that ends in the middle of one waits for it.
#[tokio::test]
async fn a_renewal_under_way_at_the_end_of_a_run_leaves_nothing() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let failing = async |off: &str| {
        let place = Place::local();
        let run = export(&pg, &place, &["--where", "id / 0 = 1"]).env("OUTHAUL_TEST_LIMITS", "owner-renewal=0.0001");
        run.env("OUTHAUL_TEST_OFF", off).run().await.expect(15);
        place
    };
    for _ in 0..20 {
        failing("").await.nothing_is_left().await;
    }
    // How often a renewal is under way just then hangs on the machine.
    let mut left = false;
    for _ in 0..200 {
        left = !failing("last-renewal").await.is_empty().await;
        if left {
            break;
        }
    }
    assert!(left, "it makes no difference");
}

/// Nothing reads a partition twice at once; but an attempt that ends late may have shown a part already.
#[tokio::test]
async fn d4_what_an_older_attempt_has_shown_changes_no_count() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for place in Place::both() {
            // The first part of a partition is visible when its reader is lost.
            let stop = Stop::at("shown");
            let args = ["--visibility", "as-written", "--partitions", "1", "--part-size", "16KiB", "-v"];
            let running = export(&pg, &place, &args).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            let visible = |paths: Vec<String>| paths.into_iter().filter(|path| path.contains("part-")).collect();
            let older: Vec<String> = visible(place.visible().await);
            assert!(!older.is_empty(), "nothing is visible yet");
            for reader in pg.exporter_pids("reader").await {
                pg.terminate(&reader).await;
            }
            stop.release();
            let run = running.wait().await.expect(0);
            assert!(run.stderr.contains("repeated under the same snapshot"), "{}", run.stderr);
            assert_eq!(place.whole().await, rows(&pg).await);
            let newer: Vec<String> = visible(place.visible().await);
            assert!(older.iter().all(|part| !newer.contains(part)), "{older:?} and {newer:?}");
        }
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn d5_a_replaced_export_stands_until_the_new_one_does() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        export(&pg, &place, &[]).run().await.expect(0);
        let old = place.manifest().await;
        let stop = Stop::at("published");
        let running = export(&pg, &place, &["--on-existing", "replace"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        assert_eq!(place.manifest().await, old);
        for part in crate::support::job::parts(&old) {
            place.get(part["path"].as_str().unwrap()).await;
        }
        stop.release();
        running.wait().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

#[tokio::test]
async fn d6_a_cleaner_touches_nothing_of_a_live_run() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        for at in ["planned", "batch", "uploaded"] {
            let stop = Stop::at(at);
            let running = export(&pg, &place, &["--on-existing", "replace"]).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            let (before, uploads) = (others(&place).await, place.open_uploads().await);
            let url = place.url();
            for _ in 0..2 {
                let cleaned = place.outhaul(["clean", &url, "--report", "json"]).run().await.expect(0);
                assert!(cleaned.report["report"]["alive"].is_string(), "{at}: {:?}", cleaned.report);
            }
            // Elsewhere its other workers go on.
            if ["planned", "uploaded"].contains(&at) {
                assert_eq!((others(&place).await, place.open_uploads().await), (before, uploads), "{at}");
            }
            stop.release();
            running.wait().await.expect(0);
            assert_eq!(place.whole().await, rows(&pg).await, "{at}");
        }
    }
    no_sessions_left(&pg).await;
}

/// A run of a machine whose clock is a minute and a half behind looks dead, and says again and again that it is not.
#[tokio::test]
async fn d6_a_cleaner_waits_for_a_run_whose_clock_is_behind() {
    let place = Place::local();
    let late = |nth: i64| {
        let renewed_at = chrono::Utc::now() - chrono::TimeDelta::seconds(90);
        json!({"run_id": "theirs", "epoch": 1, "renewed_at": renewed_at, "nonce": format!("{nth:016x}")})
    };
    put(&place, "_outhaul/owner.json", &late(0)).await;
    put(&place, "_outhaul/theirs/run.json", &json!({"run_id": "theirs"})).await;
    let url = place.url();
    let cleaner =
        place.outhaul(["clean", &url, "--report", "json"]).env("OUTHAUL_TEST_LIMITS", "owner-renewal=1").spawn();
    let renews = async {
        for nth in 1.. {
            tokio::time::sleep(Duration::from_millis(200)).await;
            put(&place, "_outhaul/owner.json", &late(nth)).await;
        }
    };
    // It renews for as long as the cleaner looks, however late that one starts.
    let run = tokio::select! {
        run = cleaner.wait() => run.expect(0),
        () = renews => unreachable!("it renews for ever"),
    };
    assert_eq!(run.report["report"]["alive"], "theirs");
    assert!(place.list().await.contains_key("_outhaul/theirs/run.json"));
}

#[tokio::test]
async fn d7_two_cleaners_are_one() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let stop = Stop::at("uploaded");
        let running = export(&pg, &place, &[]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        let url = place.url();
        let cleaners: Vec<_> = (0..3).map(|_| place.outhaul(["clean", url.as_str()]).spawn()).collect();
        for cleaner in cleaners {
            cleaner.wait().await.expect(0);
        }
        assert!(place.is_empty().await, "{:?}", place.list().await);
    }
}

#[tokio::test]
async fn what_nobody_noted_is_nobody_s_to_clean() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        put(&place, "notes.txt", &json!("somebody's")).await;
        let stop = Stop::at("published");
        let running = export(&pg, &place, &[]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        put(&place, "data/part-00000-000-deadbeef.csv", &json!("somebody's")).await;
        running.signal("KILL").await;
        running.wait().await;
        let url = place.url();
        place.outhaul(["clean", url.as_str()]).run().await.expect(0);
        let left = eventually(Duration::from_secs(5), "a clean destination", async || {
            Some(place.list().await.into_keys().collect::<Vec<_>>())
        });
        assert_eq!(left.await, ["data/part-00000-000-deadbeef.csv", "notes.txt"]);
    }
}

/// What a run that comes to nothing has made goes with it, and nothing else does.
#[tokio::test]
async fn a_run_that_reads_nothing_leaves_no_folder_behind() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let Place::Local(folder) = &place else { unreachable!() };
    let mistyped = ["--columns", "idd"];
    for (mistyped, code) in [(mistyped, 2), (["--where", "nope = 1"], 13)] {
        export(&pg, &place, &mistyped).run().await.expect(code);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    // Somebody else's folder stays, and is empty as it was.
    let dest = folder.path().join("dest");
    std::fs::create_dir(&dest).unwrap();
    export(&pg, &place, &mistyped).run().await.expect(2);
    assert_eq!(std::fs::read_dir(&dest).unwrap().count(), 0);

    // What is whole has no folder of records beside it, and two runs at once do not take each other's away.
    let (one, other) = tokio::join!(export(&pg, &place, &[]).run(), export(&pg, &place, &mistyped).run());
    assert!([2, 22].contains(&other.code), "{}", other.stderr);
    if one.code == 22 {
        export(&pg, &place, &[]).run().await.expect(0);
    } else {
        one.expect(0);
    }
    assert!(!dest.join("_outhaul").exists());
    place.whole().await;
}
