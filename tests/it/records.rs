//! Records outlive the version that wrote them (invariant I12): whatever version 0.1.0 left at a destination, in each state
//! of a run, is told, removed or finished by this version; and whatever a later one leaves stops nobody without a reason.

use std::collections::BTreeMap;

use object_store::multipart::MultipartStore;
use serde_json::{Value, json};

use crate::support::job::{crc64nvme, parts, rows};
use crate::support::pg::{Pg, both, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Run, Stop, outhaul};
use crate::support::s3::{guarded, s3};

/// The states that are kept in `tests/golden/records_v1`, its README says how they were made. Then whether the run writes a
/// single file, and whether it had committed.
const STATES: [(&str, bool, bool); 17] = [
    ("local_owned", false, false),
    ("local_journalled", false, false),
    ("local_receipts", false, false),
    ("local_as_written", false, false),
    ("local_keyset", false, false),
    ("local_committing", false, false),
    ("local_committed", false, true),
    ("local_single", true, false),
    ("local_single_committing", true, false),
    ("s3_journalled", false, false),
    ("s3_uploads", false, false),
    ("s3_receipts", false, false),
    ("s3_as_written", false, false),
    ("s3_committing", false, false),
    ("s3_committed", false, true),
    ("s3_ended", false, true),
    ("s3_single", true, false),
];

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 400) i;
    alter table t add primary key (id); analyze t";

/// What the runs of the goldens read.
fn golden_rows() -> Vec<String> {
    let mut rows: Vec<String> = (1..=40).map(|i| format!("{i},v{i}")).collect();
    rows.sort();
    rows
}

/// A destination with what a run of 0.1.0 left there.
async fn laid_out(state: &str) -> Place {
    let place = if state.starts_with("s3_") { Place::S3(s3()) } else { Place::local() };
    lay_out(state, &place).await;
    place
}

async fn lay_out(state: &str, place: &Place) {
    let file = format!("{}/tests/golden/records_v1/{state}.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut words = vec![("{{root}}".to_owned(), place.url())];
    if let Place::S3(s3) = place {
        let client = s3.client();
        for (word, path) in golden["uploads"].as_object().unwrap() {
            let key = s3.key(&format!("dest/{}", path.as_str().unwrap())).into();
            let id = client.create_multipart(&key).await.unwrap();
            client.put_part(&key, &id, 0, b"1,v1\n".to_vec().into()).await.unwrap();
            words.push((word.clone(), id));
        }
        words.push(("{{bucket}}".to_owned(), s3.bucket.clone()));
    }
    for (path, content) in golden["objects"].as_object().unwrap() {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        let text = words.iter().fold(text, |text, (word, value)| text.replace(word, value));
        put(place, path, text).await;
    }
}

async fn put(place: &Place, path: &str, text: impl AsRef<[u8]>) {
    match place {
        Place::Local(_) => {
            let file = place.folder().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Place::S3(s3) => s3.put(&format!("dest/{path}"), text.as_ref()).await,
    }
}

/// A command at the destination of a state: `clean`, `resume`, `keep` or `export`.
async fn command(command: &str, place: &Place, single: bool, more: &[&str]) -> Run {
    let url = if single { format!("{}/out.csv", place.url()) } else { place.url() };
    let mut all = if command == "export" { vec![command, "--to", &url] } else { vec![command, &url] };
    all.extend(single.then_some("--single-file"));
    all.extend(more);
    // The owners of these states are of another machine: `resume` waits for one renewal.
    place.outhaul(all).env("OUTHAUL_TEST_LIMITS", "owner-renewal=0.01").run().await
}

async fn clean(place: &Place, single: bool, more: &[&str]) -> Run {
    command("clean", place, single, &[&["--report", "json"], more].concat()).await
}

async fn resume(pg: &Pg, place: &Place, single: bool) -> Run {
    command("resume", place, single, &["--from", &pg.url, "--report", "json", "--progress", "none"]).await
}

async fn export_over(pg: &Pg, place: &Place, single: bool, more: &[&str]) -> Run {
    let mut all = vec!["--from", &pg.url, "--table", "t", "--format", "csv", "--csv-header", "off"];
    all.extend(["--report", "json", "--progress", "none"]);
    all.extend(more);
    command("export", place, single, &all).await
}

/// A run of this version that is killed once it stands at `at`.
async fn killed(pg: &Pg, place: &Place, at: &'static str, args: &[&str]) {
    let stop = Stop::at(at);
    let running = export(pg, place, args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    assert_eq!(running.wait().await.code, 137);
}

/// The path of a run's record, which may stand beside those of other runs.
async fn record(place: &Place, name: &str) -> String {
    let all = place.list().await;
    let found = all.into_keys().find(|path| path.starts_with("_outhaul/") && path.ends_with(&format!("/{name}")));
    found.unwrap_or_else(|| panic!("no {name}"))
}

fn says(run: &Run, texts: &[&str]) {
    for text in texts {
        assert!(run.stderr.contains(text), "{text:?} is not in {}", run.stderr);
    }
}

async fn cleaned(state: &str, single: bool, committed: bool) {
    let place = laid_out(state).await;
    let before = place.list().await;
    let planned = clean(&place, single, &["--dry-run"]).await.expect(0);
    let runs = usize::from(!["local_owned", "s3_ended"].contains(&state));
    assert_eq!(planned.report["report"]["runs"].as_array().unwrap().len(), runs, "{state}: {}", planned.report);
    assert_eq!(place.list().await, before, "{state}: a dry run removes nothing");
    let run = clean(&place, single, &[]).await.expect(0);
    assert_eq!(run.report["report"]["runs"].as_array().unwrap().len(), runs, "{state}: {}", run.report);
    if committed {
        // That version wrote no sources of dbt.
        put(&place, "_ddl/dbt-sources.yml", String::new()).await;
        assert_eq!(place.whole().await, golden_rows(), "{state}");
    } else {
        assert!(place.is_empty().await, "{state}: {:?} {}", place.list().await, run.report);
    }
    let again = clean(&place, single, &[]).await.expect(0);
    assert_eq!(again.report["report"]["runs"], json!([]), "{state}");
}

#[tokio::test]
async fn what_0_1_0_left_is_cleaned() {
    let of = async |kind: &str| {
        for (state, single, committed) in STATES.into_iter().filter(|(state, ..)| state.starts_with(kind)) {
            cleaned(state, single, committed).await;
        }
    };
    tokio::join!(of("local"), of("s3"));
}

#[tokio::test]
async fn what_0_1_0_left_is_settled_by_the_next_run() {
    let of = async |kind: &str, version: u32| {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for (state, single, committed) in STATES.into_iter().filter(|(state, ..)| state.starts_with(kind)) {
            let place = laid_out(state).await;
            let more: &[&str] = if committed { &["--on-existing", "replace"] } else { &[] };
            let run = export_over(&pg, &place, single, more).await.expect(0);
            let settled = !["local_owned", "s3_ended"].contains(&state);
            assert_eq!(run.stderr.contains("an earlier run had died here"), settled, "{state}: {}", run.stderr);
            if single {
                let there: Vec<String> = place.list().await.into_keys().collect();
                assert_eq!(there, ["out.csv", "out.csv.manifest.json"], "{state}");
                assert_eq!(place.open_uploads().await, [""; 0], "{state}");
                continue;
            }
            if state == "s3_ended" {
                // The next run leaves the records of one that has ended to whoever may delete.
                clean(&place, single, &[]).await.expect(0);
            }
            assert_eq!(place.whole().await, rows(&pg).await, "{state}");
        }
    };
    tokio::join!(of("local", 18), of("s3", 15));
}

#[tokio::test]
async fn a_run_of_0_1_0_is_not_resumed_and_not_kept_and_its_version_is_named() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (state, single, committed) in STATES {
        let place = laid_out(state).await;
        let before = place.list().await;
        if committed {
            // What is left to do needs no plan.
            let run = resume(&pg, &place, single).await.expect(0);
            assert_eq!(run.report["already_committed"], true, "{state}");
            continue;
        }
        let run = resume(&pg, &place, single).await.expect(2);
        assert_eq!(run.report["retryable"], false, "{state}");
        if state == "local_owned" {
            says(&run, &["there is no run to resume"]);
        } else {
            says(&run, &["run golden at ", "begun by outhaul 0.1.0", "version 1", "outhaul clean"]);
            let run = command("keep", &place, single, &["--from", &pg.url, "--for", "20s"]).await.expect(2);
            says(&run, &["begun by outhaul 0.1.0"]);
        }
        assert_eq!(place.list().await, before, "{state}: nothing is touched");
        // As the hint says.
        clean(&place, single, &[]).await.expect(0);
        assert!(place.is_empty().await, "{state}");
    }
}

/// What may stand in the place of a plan.
fn other_plans(plan: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut later: Value = serde_json::from_slice(plan).unwrap();
    later["version"] = json!(99);
    later["plan"] = json!({"unlike": ["anything"]});
    later["outhaul_version"] = json!("9.9.9");
    vec![
        ("empty", Vec::new()),
        ("cut", plan[..plan.len() / 2].to_vec()),
        ("garbage", b"\x00\xff{".to_vec()),
        ("of version 99", later.to_string().into_bytes()),
        ("a list", b"[]".to_vec()),
    ]
}

#[tokio::test]
async fn whatever_became_of_a_plan_the_run_is_told_removed_and_settled() {
    let of = async |fresh: fn() -> Place, version: u32| {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let place = fresh();
        let dies = async || killed(&pg, &place, "receipted", &["--visibility", "as-written"]).await;
        dies().await;
        let plan = place.get(&record(&place, "plan.json").await).await;
        clean(&place, false, &[]).await.expect(0);
        for (nth, (kind, bytes)) in other_plans(&plan).into_iter().enumerate() {
            dies().await;
            assert!(!place.visible().await.is_empty());
            put(&place, &record(&place, "plan.json").await, bytes).await;
            let run = resume(&pg, &place, false).await.expect(2);
            says(&run, &["cannot go on with it", concat!("outhaul ", env!("CARGO_PKG_VERSION"))]);
            if nth % 2 == 0 {
                clean(&place, false, &[]).await.expect(0);
            } else {
                export_over(&pg, &place, false, &[]).await.expect(0);
                assert_eq!(place.whole().await, rows(&pg).await, "{kind}");
                wipe(&place).await;
            }
            assert!(place.is_empty().await, "{kind}: {:?}", place.list().await);
        }
    };
    let [one, other] = both();
    tokio::join!(of(Place::local, one), of(|| Place::S3(s3()), other));
}

async fn wipe(place: &Place) {
    for path in place.list().await.into_keys() {
        place.delete(&path).await;
    }
}

/// Nothing but `run.json` says whose file a run was about to write where its plan is another version's.
#[tokio::test]
async fn without_a_run_json_a_plan_that_cannot_be_read_hides_its_run() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for (off, goes) in [("", true), ("run-record", false)] {
        for place in Place::both() {
            let to = format!("{}/out.csv", place.url());
            let stop = Stop::at("uploaded");
            let run = place.outhaul([
                "export",
                "--from",
                &pg.url,
                "--to",
                &to,
                "--table",
                "t",
                "--single-file",
                "--format",
                "csv",
            ]);
            let running = run.stops([&stop]).env("OUTHAUL_TEST_OFF", off).spawn();
            running.stands_at(&stop).await;
            running.signal("KILL").await;
            running.wait().await.expect(137);
            put(&place, &record(&place, "plan.json").await, "{").await;
            clean(&place, true, &[]).await.expect(0);
            assert_eq!(place.is_empty().await, goes, "{off}: {:?}", place.list().await);
        }
    }
}

#[tokio::test]
async fn a_run_that_died_before_its_plan_was_written_is_none_to_resume() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        killed(&pg, &place, "identified", &[]).await;
        assert_eq!(place.list().await.len(), 2, "an owner and the facts of its run");
        let run = resume(&pg, &place, false).await.expect(2);
        says(&run, &["there is no run to resume"]);
        clean(&place, false, &[]).await.expect(0);
        assert!(place.is_empty().await);
        killed(&pg, &place, "identified", &[]).await;
        export_over(&pg, &place, false, &[]).await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
    }
}

/// What 0.1.0 left, with its plan damaged: then nothing tells when its parts became visible, and their names alone tell whose
/// they are.
#[tokio::test]
async fn of_0_1_0_a_damaged_plan_is_enough_to_know_its_parts() {
    for state in ["local_as_written", "local_receipts", "s3_as_written", "s3_receipts", "s3_committing"] {
        for bytes in [&b""[..], b"{\"version\":1,", b"{\"version\":99}"] {
            let place = laid_out(state).await;
            put(&place, "_outhaul/golden/plan.json", bytes).await;
            put(&place, "data/part-of-somebody.csv", "theirs").await;
            clean(&place, false, &[]).await.expect(0);
            let left: Vec<String> = place.list().await.into_keys().collect();
            assert_eq!(left, ["data/part-of-somebody.csv"], "{state}");
            assert_eq!(place.open_uploads().await, [""; 0], "{state}");
        }
    }
}

/// Without its plan a run of 0.1.0 may be of a single file, which stays: its manifest may stand.
#[tokio::test]
async fn of_0_1_0_a_damaged_plan_never_costs_a_single_file() {
    let place = laid_out("local_single_committing").await;
    put(&place, "_outhaul/golden/plan.json", "{").await;
    clean(&place, false, &[]).await.expect(0);
    clean(&place, true, &[]).await.expect(0);
    let left: Vec<String> = place.list().await.into_keys().filter(|path| !path.starts_with("_outhaul/")).collect();
    assert_eq!(left, ["out.csv"]);
}

#[tokio::test]
async fn records_that_cannot_be_read_stop_no_cleaner_but_those_of_a_commit() {
    for state in ["local_as_written", "s3_as_written", "s3_receipts"] {
        let place = laid_out(state).await;
        for path in
            place.list().await.into_keys().filter(|path| path.contains("/receipts/") || path.contains("/uploads/"))
        {
            put(&place, &path, "{\"later\": true}").await;
        }
        put(&place, "_outhaul/golden/epochs/2.json", "[").await;
        put(&place, "_outhaul/golden/keepers/x.json", "7").await;
        clean(&place, false, &[]).await.expect(0);
        assert!(place.is_empty().await, "{state}: {:?} {:?}", place.list().await, place.open_uploads().await);
    }
    // Only this record tells which parts are visible.
    let place = laid_out("local_committing").await;
    put(&place, "_outhaul/golden/commit.json", "{\"later\": true}").await;
    put(&place, "_outhaul/other/run.json", run_of("0.1.0", 1)).await;
    let run = clean(&place, false, &[]).await.expect(22);
    says(&run, &["commit.json", "which parts"]);
    assert!(!place.list().await.contains_key("_outhaul/other/run.json"), "another dead run is cleaned all the same");
    assert_eq!(place.visible().await.len(), 2);
}

/// A `run.json` of any version and writer.
fn run_of(writer: &str, version: u32) -> String {
    json!({
        "version": version, "run_id": "other", "outhaul_version": writer, "created_at": "2026-11-28T17:44:27Z",
        "seed": "00ce61faa0b26aa9", "visibility": "at_commit", "placement": {"kind": "parts"},
    })
    .to_string()
}

#[tokio::test]
async fn the_records_of_a_newer_version_are_left_to_it() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        lay_out(if matches!(place, Place::Local(_)) { "local_journalled" } else { "s3_uploads" }, &place).await;
        put(&place, "_outhaul/golden/run.json", run_of("7.1.0", 2)).await;
        let before = place.list().await;
        for (run, code) in [
            (clean(&place, false, &[]).await, 22),
            (resume(&pg, &place, false).await, 2),
            (command("keep", &place, false, &["--from", &pg.url, "--for", "20s"]).await, 2),
            (export_over(&pg, &place, false, &[]).await, 22),
        ] {
            says(&run.expect(code), &["outhaul 7.1.0", "version 2 of run.json", "newer"]);
        }
        let others = |list: BTreeMap<String, u64>| -> Vec<String> {
            list.into_keys().filter(|path| !["_outhaul/owner.json", "_outhaul/lock"].contains(&path.as_str())).collect()
        };
        assert_eq!(others(place.list().await), others(before));
    }
    // Whose files are known to stand elsewhere is in nobody's way.
    let place = Place::local();
    let single = run_of("7.1.0", 2).replace(r#"{"kind":"parts"}"#, r#"{"kind":"single","name":"x.csv"}"#);
    put(&place, "_outhaul/other/run.json", single).await;
    clean(&place, false, &[]).await.expect(0);
    export_over(&pg, &place, false, &[]).await.expect(0);
}

#[tokio::test]
async fn an_owner_of_another_version_is_understood_as_far_as_it_goes() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let long_ago = json!({"run_id": "other", "epoch": 3, "renewed_at": "2026-01-01T00:00:00Z", "later": {"a": 1},
        "process": {"pod": "x", "started": "now"}});
    for place in Place::both() {
        put(&place, "_outhaul/owner.json", long_ago.to_string()).await;
        export_over(&pg, &place, false, &[]).await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
        put(&place, "_outhaul/owner.json", "{").await;
        let run = export_over(&pg, &place, false, &["--on-existing", "replace"]).await.expect(22);
        says(&run, &["owner.json", "somebody may be writing there"]);
    }
}

#[tokio::test]
async fn a_journal_without_any_fact_of_its_run_is_removed() {
    for place in Place::both() {
        put(&place, "_outhaul/other/receipts/00000-00000001.json", "{}").await;
        put(&place, "data/part-00000-000-00000001.csv", "theirs").await;
        clean(&place, false, &[]).await.expect(0);
        assert_eq!(place.list().await.into_keys().collect::<Vec<_>>(), ["data/part-00000-000-00000001.csv"]);
    }
}

/// A role that may not delete leaves records that say that their run has ended, 0.1.0's too.
#[tokio::test]
async fn records_that_may_not_be_deleted_are_ended() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::S3(guarded());
    lay_out("s3_receipts", &place).await;
    let Place::S3(s3) = &place else { unreachable!() };
    let url = place.url();
    let args = ["export", "--from", &pg.url, "--to", &url, "--table", "t", "--format", "csv", "--csv-header", "off"];
    outhaul(args).envs(s3.env_of("exporter")).run().await.expect(0);
    let left = place.list().await;
    assert!(left.contains_key("_outhaul/golden/ended.json"), "{left:?}");
    assert!(left.keys().any(|path| path.ends_with("/run.json")), "{left:?}");
    clean(&place, false, &[]).await.expect(0);
    assert_eq!(place.whole().await, rows(&pg).await);
}

/// A manifest whose enumerations have grown is verified, described, skipped and replaced like any other.
#[tokio::test]
async fn a_manifest_of_a_later_writer_is_used_as_far_as_it_is_understood() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        export(&pg, &place, &["--key", "id"]).run().await.expect(0);
        let mut manifest = place.manifest().await;
        manifest["source"]["kind"] = json!("clickhouse");
        manifest["consistency"]["mode"] = json!("part_set");
        manifest["later"] = json!(1);
        for part in manifest["parts"].as_array_mut().unwrap() {
            part["range"] = json!({"kind": "source", "of": ["all_1_1_0"]});
        }
        let text = format!("{manifest:#}\n");
        put(&place, "_manifest.json", &text).await;
        let mut success: Value = serde_json::from_slice(&place.get("_SUCCESS").await).unwrap();
        success["manifest_crc64nvme"] = json!(crc64nvme(text.as_bytes()));
        put(&place, "_SUCCESS", success.to_string()).await;

        let url = place.url();
        for (args, code) in [
            (&["verify", &url, "--read-data"][..], 0),
            (&["verify", &url, "--against-source", "--from", &pg.url][..], 2),
            (&["clean", &url][..], 0),
            (&["ddl", &url, "--dialect", "duckdb"][..], 0),
        ] {
            let run = place.outhaul(args.iter().copied()).run().await.expect(code);
            assert!(code == 0 || run.stderr.contains("`clickhouse`"), "{}", run.stderr);
        }
        let skipped = export(&pg, &place, &["--on-existing", "skip"]).run().await.expect(0);
        assert_eq!(skipped.report["already_committed"], true);
        export(&pg, &place, &["--on-existing", "replace"]).run().await.expect(0);
        assert_eq!(place.whole().await, rows(&pg).await);
        assert!(parts(&place.manifest().await).len() > 1);
    }
}

/// A scheduler gives its retries the same id. Where the role may not delete, the first one leaves its records, and says that
/// it has ended; that is not said of the next.
#[tokio::test]
async fn a_retry_of_the_same_id_is_not_taken_for_the_run_that_ended_before_it() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let place = Place::S3(guarded());
    let Place::S3(s3) = &place else { unreachable!() };
    let url = place.url();
    let args = ["export", "--from", &pg.url, "--to", &url, "--table", "t", "--run-id", "nightly"];
    outhaul(args.iter().chain(&["--min-rows", "9999"])).envs(s3.env_of("exporter")).run().await.expect(14);
    assert!(place.list().await.contains_key("_outhaul/nightly/ended.json"), "{:?}", place.list().await);
    let stop = Stop::at("receipted");
    let early = ["--visibility", "as-written"];
    let running = outhaul(args.iter().chain(&early)).envs(s3.env_of("exporter")).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await.expect(137);
    assert!(!place.visible().await.is_empty());
    clean(&place, false, &[]).await.expect(0);
    assert!(place.is_empty().await, "{:?}", place.list().await);
}
