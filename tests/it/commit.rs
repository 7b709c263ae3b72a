//! What others see of a run: nothing until it commits, then exactly what its manifest names (I1, I2).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::job::{self, command, copy, export, export_csv, no_sessions_left, parts, visible};
use crate::support::pg::{self, Pg, pg};
use crate::support::run::Run;
use crate::support::s3::{S3, s3};
use crate::support::watch::{Seen, Watcher, files};
use crate::support::{eventually, manifest};

const LIMIT: Duration = Duration::from_secs(30);

/// Names and sizes of a manifest's parts, relative to `data/`.
fn named(manifest: &Value) -> BTreeMap<String, u64> {
    let name = |part: &Value| part["path"].as_str().unwrap().strip_prefix("data/").unwrap().to_owned();
    parts(manifest).iter().map(|part| (name(part), part["bytes"].as_u64().unwrap())).collect()
}

/// Exports lineitem, stops once all is uploaded, calls `meanwhile`, lets it commit.
async fn stopped_before_commit(
    pg: &Pg,
    to: &str,
    env: &[(&'static str, String)],
    args: &[&str],
    meanwhile: impl AsyncFnOnce(),
) -> Run {
    let stops = tempfile::tempdir().unwrap();
    let stop = stops.path().join("uploaded");
    let all = [&["--table", "lineitem", "--format", "csv", "--partitions", "5"][..], args].concat();
    let mut run = command(pg, to, &all).env("OUTHAUL_TEST_STOP", format!("uploaded={}", stop.display()));
    for (name, value) in env {
        run = run.env(name, value);
    }
    let running = run.spawn();
    eventually(LIMIT, "all parts uploaded", async || stop.exists().then_some(())).await;
    meanwhile().await;
    std::fs::remove_file(&stop).unwrap();
    running.wait().await
}

/// Everything appeared after `committing` and is at last what the manifest names; nothing else was ever there.
fn judge(seen: &Seen, committing: std::time::Instant, manifest: &Value) {
    let named = named(manifest);
    assert!(seen.looks > 5, "{} looks", seen.looks);
    assert!(seen.changes[0].1.is_empty());
    for (at, listing) in &seen.changes[1..] {
        assert!(*at >= committing, "visible before the commit: {listing:?}");
        assert!(
            listing.iter().all(|(name, size)| named.get(name) == Some(size)),
            "{listing:?} has more than {named:?}"
        );
    }
    assert_eq!(seen.changes.last().unwrap().1, named);
    assert!(named.len() >= 5);
}

#[tokio::test]
async fn a_folder_shows_nothing_until_commit_and_then_all() {
    let pg = pg::lineitem(18).await;
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let watcher = Watcher::local(&dest.join("data"));
    let mut committing = None;
    stopped_before_commit(&pg, dest.to_str().unwrap(), &[], &[], async || {
        assert_eq!(visible(&dest), []);
        assert!(!dest.join("_manifest.json").exists());
        committing = Some(std::time::Instant::now());
    })
    .await
    .expect(0);
    judge(&watcher.stop().await, committing.unwrap(), &manifest(&dest));
    let kept: Vec<String> =
        files(&dest).into_keys().filter(|path| path.contains(".part") || path.contains("staging")).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

#[tokio::test]
async fn s3_shows_nothing_until_commit_and_then_all() {
    let (pg, s3) = (pg::lineitem(15).await, s3());
    let watcher = Watcher::s3(&s3, "out/data");
    let mut committing = None;
    stopped_before_commit(&pg, &s3.url("out"), &s3.env(), &[], async || {
        assert_eq!(s3.open_uploads().await.len(), 5, "every part is an upload that nobody sees");
        assert!(!s3.list("out").await.contains_key("_manifest.json"));
        committing = Some(std::time::Instant::now());
    })
    .await
    .expect(0);
    let manifest = serde_json::from_slice(&s3.get("out/_manifest.json").await).unwrap();
    judge(&watcher.stop().await, committing.unwrap(), &manifest);
    assert!(s3.open_uploads().await.is_empty());
}

#[tokio::test]
async fn as_written_parts_show_before_the_manifest() {
    let pg = pg::lineitem(18).await;
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let args = ["--visibility", "as-written"];
    stopped_before_commit(&pg, dest.to_str().unwrap(), &[], &args, async || {
        assert_eq!(visible(&dest).len(), 5);
        assert!(!dest.join("_manifest.json").exists());
    })
    .await
    .expect(0);
    assert!(job::sorted(&job::data(&dest)) == job::sorted(&copy(&pg, "select * from lineitem").await));
}

/// Divides by zero in one of the last rows.
const FAILING: &str = "create view late as select *, 1 / (60000 - id) as bad from lineitem";

#[tokio::test]
async fn a_failing_run_leaves_nothing_in_a_folder() {
    for (version, visibility) in [(15, "at-commit"), (18, "as-written")] {
        let pg = pg::lineitem(version).await;
        pg.batch(FAILING).await;
        for more in [&["--key", "id", "--partitions", "6", "--readers", "2"][..], &["--single-file"]] {
            if visibility == "as-written" && more == ["--single-file"] {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let dest = folder.path().join("out");
            let watcher = Watcher::local(&dest.join("data"));
            let mut args = [&["--table", "late", "--format", "csv"][..], more].concat();
            if visibility == "as-written" {
                args.extend(["--visibility", visibility]);
            }
            let run = command(&pg, dest.to_str().unwrap(), &args).run().await.expect(15);
            assert!(run.stderr.contains("22012") && run.stderr.contains("partition"), "{}", run.stderr);
            assert_eq!((&run.report["status"], &run.report["retryable"]), (&json!("failed"), &json!(false)));
            let seen = watcher.stop().await;
            assert!(visibility == "as-written" || seen.changes.len() == 1, "{:?}", seen.changes);
            assert_eq!(visible(&dest), []);
            for name in ["_manifest.json", "_SUCCESS", "_redshift/manifest"] {
                assert!(!dest.join(name).exists(), "{name}");
            }
            no_sessions_left(&pg).await;
        }
    }
}

#[tokio::test]
async fn a_failing_run_leaves_nothing_on_s3() {
    let (pg, s3) = (pg::lineitem(18).await, s3());
    pg.batch(FAILING).await;
    let watcher = Watcher::s3(&s3, "out/data");
    let args = ["--table", "late", "--key", "id", "--partitions", "6", "--readers", "2"];
    command(&pg, &s3.url("out"), &args).envs(s3.env()).run().await.expect(15);
    assert_eq!(watcher.stop().await.changes.len(), 1, "something was visible");
    assert!(s3.open_uploads().await.is_empty());
    let left: Vec<String> = s3.list("out").await.into_keys().filter(|path| !path.starts_with("_outhaul/")).collect();
    assert!(left.is_empty(), "{left:?}");
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn what_stands_is_kept_skipped_or_replaced() {
    let pg = numbers().await;
    let s3 = s3();
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("out").to_str().unwrap().to_owned();
    for (to, env) in [(local, None), (s3.url("out"), Some(&s3))] {
        let run = async |args: &[&str]| {
            let all = [&["--table", "numbers", "--format", "csv", "--partitions", "3"][..], args].concat();
            let command = command(&pg, &to, &all);
            if let Some(s3) = env { command.envs(s3.env()).run().await } else { command.run().await }
        };
        let first = run(&[]).await.expect(0);
        let stands = listing(env, &folder.path().join("out")).await;
        let taken = run(&[]).await.expect(22);
        assert!(taken.stderr.contains(first.report["run_id"].as_str().unwrap()), "{}", taken.stderr);
        let skipped = run(&["--on-existing", "skip"]).await.expect(0);
        assert_eq!(skipped.report["already_committed"], true);
        assert_eq!(skipped.report["run_id"], first.report["run_id"]);
        // A replacement that fails takes nothing away.
        run(&["--on-existing", "replace", "--where", "1 / (id - 999) > -5"]).await.expect(15);
        run(&["--on-existing", "replace", "--min-rows", "1001"]).await.expect(14);
        assert_eq!(listing(env, &folder.path().join("out")).await, stands);
        let replaced = run(&["--on-existing", "replace", "--where", "id <= 500"]).await.expect(0);
        assert_eq!((&replaced.report["rows"], &replaced.report["already_committed"]), (&json!(500), &json!(false)));
        let now = listing(env, &folder.path().join("out")).await;
        let data = |listing: &BTreeMap<String, u64>| -> Vec<String> {
            listing.keys().filter(|path| path.starts_with("data/")).cloned().collect()
        };
        assert!(data(&now).iter().all(|path| !stands.contains_key(path)), "the old parts are gone: {now:?}");
        let verified = crate::support::run::outhaul(["verify", to.as_str(), "--read-data"]);
        if let Some(s3) = env { verified.envs(s3.env()).run().await } else { verified.run().await }.expect(0);
        let again = run(&["--on-existing", "replace", "--max-rows", "7"]).await.expect(3);
        assert_eq!(again.report["rows"], 7);
        assert_eq!(run(&["--on-existing", "skip"]).await.expect(3).report["rows"], 7, "it exits as the first did");
    }
}

/// What stands at `out`, the engine's own folder aside.
async fn listing(s3: Option<&S3>, dest: &Path) -> BTreeMap<String, u64> {
    let all = match s3 {
        Some(s3) => s3.list("out").await,
        None => files(dest),
    };
    all.into_iter().filter(|(path, _)| !path.starts_with("_outhaul")).collect()
}

#[tokio::test]
async fn a_run_id_makes_a_retry_idempotent() {
    let pg = numbers().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let run = async |args: &[&str]| {
        let fixed = ["--table", "numbers", "--format", "csv", "--run-id", "nightly-7"];
        command(&pg, to.to_str().unwrap(), &[&fixed[..], args].concat()).run().await
    };
    let first = run(&["--max-rows", "10", "--partitions", "2"]).await.expect(3);
    assert_eq!((&first.report["run_id"], &first.report["already_committed"]), (&json!("nightly-7"), &json!(false)));
    let stands = files(&to);
    pg.batch("insert into numbers select -i, 'new' from generate_series(1, 10) i").await;
    for more in [&[][..], &["--readers", "1"], &["--on-existing", "replace"], &["--partitions", "4"]] {
        let again = run(&[&["--max-rows", "10"], more].concat()).await.expect(3);
        assert_eq!(again.report["already_committed"], true, "{more:?}");
        for field in ["status", "rows", "parts", "bytes", "run_id", "manifest"] {
            assert_eq!(again.report[field], first.report[field], "{field}");
        }
    }
    for other in [
        &["--max-rows", "11"][..],
        &["--max-rows", "10", "--where", "id > 5"],
        &["--max-rows", "10", "--columns", "id"],
    ] {
        let refused = run(other).await;
        assert_eq!(refused.code, 22, "{other:?}: {}", refused.stderr);
    }
    assert_eq!(files(&to), stands, "nothing was touched");
}

#[tokio::test]
async fn too_few_rows_publish_nothing() {
    let pg = numbers().await;
    for more in [&[][..], &["--single-file"], &["--layout", "flat"], &["--visibility", "as-written"]] {
        let few = export_csv(&pg, &[&["--table", "numbers", "--min-rows", "1001"], more].concat(), 14).await;
        assert_eq!(few.run.report["error_kind"], "data", "{more:?}");
        let left = visible(few.dest().parent().unwrap());
        assert!(left.is_empty(), "{more:?}: {left:?}");
    }
    export_csv(&pg, &["--table", "numbers", "--min-rows", "1000"], 0).await;
}

#[tokio::test]
async fn layouts_and_the_files_beside_the_parts() {
    let pg = numbers().await;
    for (layout, below) in [("nested", "data/"), ("flat", "")] {
        let done =
            export_csv(&pg, &["--table", "numbers", "--partitions", "3", "--layout", layout, "--sha256"], 0).await;
        assert!(done.sorted() == job::sorted(&copy(&pg, "select * from numbers").await));
        let (dest, manifest) = (done.dest(), done.manifest());
        for part in parts(&manifest) {
            let path = part["path"].as_str().unwrap();
            let (folder, name) =
                path.rsplit_once('/').map_or(("", path), |(folder, name)| (&path[..=folder.len()], name));
            assert_eq!(folder, below, "{path}");
            let attempt = part["attempt"].as_str().unwrap();
            let expected = format!(
                "part-{:05}-{:03}-{attempt}.csv",
                part["partition"].as_u64().unwrap(),
                part["roll"].as_u64().unwrap()
            );
            assert_eq!(name, expected);
            let bytes = std::fs::read(dest.join(path)).unwrap();
            assert_eq!(part["sha256"], job::sha256(&bytes));
            assert_eq!(part["url"], format!("file://{}", dest.join(path).display()));
        }
        let redshift: Value = serde_json::from_slice(&std::fs::read(dest.join("_redshift/manifest")).unwrap()).unwrap();
        let symlink = std::fs::read_to_string(dest.join("_symlink_format_manifest/manifest")).unwrap();
        let urls: Vec<&str> = parts(&manifest).iter().map(|part| part["url"].as_str().unwrap()).collect();
        let entries = redshift["entries"].as_array().unwrap();
        assert_eq!(entries.iter().map(|entry| entry["url"].as_str().unwrap()).collect::<Vec<_>>(), urls);
        assert_eq!(symlink.lines().collect::<Vec<_>>(), urls);
        let success: Value = serde_json::from_slice(&std::fs::read(dest.join("_SUCCESS")).unwrap()).unwrap();
        let crc = job::crc64nvme(&std::fs::read(dest.join("_manifest.json")).unwrap());
        assert_eq!(success, json!({"status": "complete", "rows": 1000, "manifest_crc64nvme": crc}));
    }
}

#[tokio::test]
async fn a_single_file_stands_alone_at_exactly_its_key() {
    let (pg, s3) = (numbers().await, s3());
    let expected = copy(&pg, "select * from numbers order by id desc").await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("deep/numbers.txt");
    let args = ["--table", "numbers", "--format", "csv", "--csv-header", "off", "--single-file", "--key", "id desc"];
    command(&pg, to.to_str().unwrap(), &args).run().await.expect(0);
    let names: Vec<String> = files(folder.path()).into_keys().filter(|path| !path.contains("_outhaul")).collect();
    assert_eq!(names, ["deep/numbers.txt", "deep/numbers.txt.manifest.json"]);
    assert!(std::fs::read(&to).unwrap() == expected);
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(to.with_extension("txt.manifest.json")).unwrap()).unwrap();
    assert_eq!((parts(&manifest).len(), &manifest["parts"][0]["path"]), (1, &json!("numbers.txt")));
    command(&pg, to.to_str().unwrap(), &args).run().await.expect(22);
    crate::support::run::outhaul(["verify", to.to_str().unwrap(), "--single-file", "--read-data"])
        .run()
        .await
        .expect(0);

    command(&pg, &s3.url("deep/numbers.txt"), &args).envs(s3.env()).run().await.expect(0);
    let names: Vec<String> = s3.list("").await.into_keys().filter(|path| !path.contains("_outhaul")).collect();
    assert_eq!(names, ["deep/numbers.txt", "deep/numbers.txt.manifest.json"]);
    assert!(s3.get("deep/numbers.txt").await == expected);
}

#[tokio::test]
async fn the_manifest_tells_as_much_of_the_values_as_asked() {
    let pg = numbers().await;
    for (choice, id, text) in [
        ("safe", json!(["1", "1000"]), json!([null, null])),
        ("all", json!(["1", "1000"]), json!(["secret 1", "secret 999"])),
        ("none", json!([null, null]), json!([null, null])),
    ] {
        let done =
            export(&pg, &["--table", "numbers", "--manifest-stats", choice, "--partitions", "1"]).await.expect(0);
        let columns = &done.manifest()["parts"][0]["columns"];
        let extremes = |name: &str| json!([columns[name]["min"], columns[name]["max"]]);
        assert_eq!((extremes("id"), extremes("v")), (id, text), "{choice}: {columns}");
        let raw = std::fs::read_to_string(done.dest().join("_manifest.json")).unwrap();
        assert_eq!(raw.contains("secret"), choice == "all", "{choice}");
    }
    let done = export_csv(&pg, &["--table", "numbers", "--key", "v", "--partitions", "4"], 0).await;
    assert!(done.partitions() > 1);
    assert!(
        !std::fs::read_to_string(done.dest().join("_manifest.json")).unwrap().contains("secret"),
        "bounds of a text key"
    );
}

#[tokio::test]
async fn destinations_with_odd_names_are_written_where_they_say() {
    let (pg, s3) = (numbers().await, s3());
    let folder = tempfile::tempdir().unwrap();
    let below = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (to, dest) in [
        (below("with space/ü #1?x%20y"), below("with space/ü #1?x%20y")),
        (format!("file://{}", below("encoded%20name")), below("encoded name")),
        (below("a/./b/../c/"), below("a/c")),
    ] {
        command(&pg, &to, &["--table", "numbers"]).run().await.expect(0);
        assert_eq!(manifest(Path::new(&dest))["totals"]["rows"], 1000, "{to}");
        crate::support::run::outhaul(["verify", &to, "--read-data"]).run().await.expect(0);
    }
    let to = s3.url("with space/ü+=&x");
    command(&pg, &to, &["--table", "numbers"]).envs(s3.env()).run().await.expect(0);
    crate::support::run::outhaul(["verify", &to, "--read-data"]).envs(s3.env()).run().await.expect(0);
    assert!(s3.list("").await.contains_key("with space/ü+=&x/_manifest.json"));
}

/// 1,000 rows with an integer key.
async fn numbers() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table numbers as select i as id, 'secret ' || i as v from generate_series(1, 1000) i;
        alter table numbers add primary key (id); analyze",
    )
    .await;
    pg
}
