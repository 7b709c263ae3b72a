//! What an export promises whatever it reads: one suite, which PostgreSQL and ClickHouse both pass. Death and what follows it,
//! caps, shapes, destinations, `verify`, and what manifests and plans say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::crash::receipted;
use crate::support::job::{parts, sorted, visible};
use crate::support::place::Place;
use crate::support::run::{Run, Stop};
use crate::support::twins::{Twin, row, rows, twins};

const ROWS: u32 = 2_000;

/// From where on the manifest stands.
const COMMITTED: [&str; 3] = ["sent", "committed", "ending"];

/// A run that is killed once it stands at `at`.
async fn killed(twin: &Twin, place: &Place, at: &'static str, arguments: &[&str]) {
    let stop = Stop::at(at);
    let running = twin.export(place, arguments).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    assert_eq!(running.wait().await.code, 137);
}

async fn resume(twin: &Twin, place: &Place) -> Run {
    let (to, from) = (place.url(), twin.url());
    let words = ["resume", &to, "--from", &from, "--report", "json", "--progress", "none"];
    twin.outhaul(place, &words).run().await
}

async fn clean(place: &Place, more: &[&str]) -> Value {
    let to = place.url();
    let words = ["clean", &to, "--report", "json"];
    place.outhaul(words.iter().chain(more).copied()).run().await.expect(0).report["report"].take()
}

async fn verify(twin: &Twin, place: &Place, more: &[&str]) -> Run {
    let (to, from) = (place.url(), twin.url());
    let source: &[&str] = if more.contains(&"--against-source") { &["--from", &from] } else { &[] };
    twin.outhaul(place, &[&["verify", &to, "--report", "json"], more, source].concat()).run().await
}

/// Both at the same time.
async fn each(twins: &[Twin; 2], done: impl AsyncFn(&Twin)) {
    let [one, other] = twins;
    tokio::join!(done(one), done(other));
}

/// The data lines of a place as they come, part by part.
async fn lines(place: &Place) -> Vec<String> {
    let mut all = Vec::new();
    for part in parts(&place.manifest().await) {
        let bytes = place.get(part["path"].as_str().unwrap()).await;
        all.extend(String::from_utf8(bytes).unwrap().lines().map(str::to_owned));
    }
    all
}

#[tokio::test]
async fn killed_anywhere_and_resumed_it_has_the_rows_of_its_plan_and_reads_none_twice() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let mut there = ROWS;
        for at in ["planned", "batch", "receipted", "uploaded", "published", "committed"] {
            let (place, what) = (Place::local(), format!("{} at {at}", twin.name()));
            killed(twin, &place, at, twin.resumable()).await;
            let before = receipted(&place).await;
            // What comes later is not of the run.
            twin.insert(there..there + 10).await;
            let run = resume(twin, &place).await;
            assert_eq!(run.code, 0, "{what}: {}", run.stderr);
            assert_eq!(run.report["already_committed"], COMMITTED.contains(&at), "{what}");
            let manifest = place.manifest().await;
            let now: Vec<&str> = parts(&manifest).iter().map(|part| part["path"].as_str().unwrap()).collect();
            assert!(before.iter().all(|path| now.contains(&path.as_str())), "{what}: read again: {before:?} {now:?}");
            assert_eq!(place.whole().await, rows(0..there), "{what}");
            assert_eq!(resume(twin, &place).await.expect(0).report["already_committed"], true, "{what}");
            there += 10;
        }
        twin.is_at_rest().await;
    })
    .await;
}

#[tokio::test]
async fn killed_anywhere_and_cleaned_there_is_nothing_or_one_whole_export() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        for (at, visibility) in [
            ("journalled", "at-commit"),
            ("batch", "as-written"),
            ("receipted", "at-commit"),
            ("uploaded", "as-written"),
            ("published", "at-commit"),
            ("committed", "at-commit"),
        ] {
            let (place, what) = (Place::local(), format!("{} at {at}", twin.name()));
            killed(twin, &place, at, &["--visibility", visibility]).await;
            let before = place.list().await;
            let planned = clean(&place, &["--dry-run"]).await;
            assert_eq!(place.list().await, before, "{what}: a dry run removes nothing");
            let report = clean(&place, &[]).await;
            assert_eq!(planned["runs"].as_array().unwrap().len(), report["runs"].as_array().unwrap().len(), "{what}");
            if COMMITTED.contains(&at) {
                assert_eq!(place.whole().await, rows(0..ROWS), "{what}");
            } else {
                assert!(place.is_empty().await, "{what}, {visibility}: {:?} {report}", place.list().await);
            }
            assert_eq!(clean(&place, &[]).await["runs"], json!([]), "{what}");
        }
        twin.is_at_rest().await;
    })
    .await;
}

#[tokio::test]
async fn killed_and_run_again_by_its_id_there_is_one_whole_export() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let place = Place::local();
        for at in ["planned", "receipted", "published", "committed"] {
            let again = ["--run-id", &format!("job-{at}"), "--on-existing", "replace"];
            killed(twin, &place, at, &again).await;
            let run = twin.export(&place, &again).run().await.expect(0);
            assert_eq!(run.report["already_committed"], COMMITTED.contains(&at), "{} at {at}", twin.name());
            assert_eq!(place.whole().await, rows(0..ROWS), "{} at {at}", twin.name());
        }
    })
    .await;
}

#[tokio::test]
async fn a_signal_leaves_nothing_at_the_destination_and_no_query_at_the_server() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        for (at, signal, code) in [("planned", "TERM", 143), ("batch", "INT", 130), ("receipted", "INT", 130)] {
            let (place, stop) = (Place::local(), Stop::at(at));
            let running = twin.export(&place, &[]).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            running.signal(signal).await;
            stop.release();
            let run = running.wait().await;
            assert_eq!(run.code, code, "{} at {at}: {}", twin.name(), run.stderr);
            assert!(place.is_empty().await, "{} at {at}: {:?}", twin.name(), place.list().await);
            twin.is_at_rest().await;
        }
    })
    .await;
}

#[tokio::test]
async fn verify_finds_what_is_damaged_and_what_the_source_has_more() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let place = Place::local();
        twin.export(&place, &[]).run().await.expect(0);
        for more in [&[][..], &["--read-data"], &["--read-data", "--against-source"]] {
            let run = verify(twin, &place, more).await;
            assert_eq!((run.code, &run.report["verified"]), (0, &json!(true)), "{}: {}", twin.name(), run.stderr);
        }
        twin.insert(ROWS..ROWS + 5).await;
        let run = verify(twin, &place, &["--against-source"]).await.expect(30);
        let said = run.report["problems"].to_string() + &run.report.to_string();
        assert!(said.contains("2005") || said.contains("2,005"), "{}: {}", twin.name(), run.report);
        let manifest = place.manifest().await;
        let name = parts(&manifest)[0]["path"].as_str().unwrap();
        let path = place.folder().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let run = verify(twin, &place, &["--read-data"]).await.expect(30);
        assert!(run.report.to_string().contains(name), "{}: {}", twin.name(), run.report);
        std::fs::remove_file(&path).unwrap();
        verify(twin, &place, &[]).await.expect(30);
    })
    .await;
}

#[tokio::test]
async fn caps_and_tiers_give_the_first_rows_by_key_and_say_so() {
    let many = 10_050;
    let twins = twins(many).await;
    each(&twins, async |twin| {
        let name = twin.name();
        for (arguments, code, expected) in [
            (&["--max-rows", "10"][..], 3, 0..10),
            (&["--limit", "10"], 0, 0..10),
            (&["--max-rows", "10050"], 0, 0..many),
            (&["--max-rows", "10049"], 3, 0..many - 1),
            (&["--max-rows", "10051"], 0, 0..many),
            (&["--tier", "free"], 3, 0..10_000),
            (&["--tier", "enterprise"], 0, 0..many),
            (&["--max-rows", "20", "--where", "id >= 100 and id < 120"], 0, 100..120),
            (&["--max-rows", "19", "--where", "id >= 100 and id < 120"], 3, 100..119),
            (&["--tier", "free", "--readers", "8", "--partitions", "7"], 3, 0..10_000),
        ] {
            let place = Place::local();
            let run = twin.export(&place, arguments).run().await;
            assert_eq!(run.code, code, "{name} {arguments:?}: {}", run.stderr);
            assert_eq!(place.whole().await, rows(expected.clone()), "{name} {arguments:?}");
            let manifest = place.manifest().await;
            let cut = code == 3 || arguments[0] == "--limit";
            assert_eq!(manifest["status"], if cut { "truncated" } else { "complete" }, "{name} {arguments:?}");
            if cut {
                // The lines come by key, so that who reads them as they stand has the first ones first.
                assert_eq!(lines(&place).await, expected.map(row).collect::<Vec<_>>(), "{name} {arguments:?}");
                assert_eq!(
                    (&manifest["row_cap"]["order"], &manifest["row_cap"]["truncated"]),
                    (&json!("key"), &json!(true)),
                    "{name} {arguments:?}"
                );
            }
        }
        let place = Place::local();
        twin.export(&place, &["--key", "id desc", "--max-rows", "7"]).run().await.expect(3);
        assert_eq!(lines(&place).await, (many - 7..many).rev().map(row).collect::<Vec<_>>(), "{name}");
        twin.export(&Place::local(), &["--tier", "golden"]).run().await.expect(2);
        twin.export(&Place::local(), &["--min-rows", "10051"]).run().await.expect(14);
    })
    .await;
}

#[tokio::test]
async fn predicates_columns_and_names_shape_what_is_written() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let name = twin.name();
        let place = Place::local();
        twin.export(&place, &["--where", "id < 700 and (maybe is null or name = 'none')"]).run().await.expect(0);
        assert_eq!(place.whole().await, sorted_rows((0..700).filter(|id| id % 7 == 0)), "{name}");
        let place = Place::local();
        let shaped =
            ["--columns", "price,id,twice", "--column", "twice=id * 2", "--rename", "id=number", "--where", "id < 3"];
        twin.export(&place, &[&shaped[..], &["--csv-header", "on"]].concat()).run().await.expect(0);
        let mut found = lines(&place).await;
        found.sort();
        found.dedup();
        assert_eq!(found, ["0.00,0,0", "0.25,1,2", "0.50,2,4", "price,number,twice"], "{name}");
        for (arguments, code) in [
            (&["--where", "id < 3) or (1 = 1"][..], 2),
            (&["--where", "id < 3; select 1"], 2),
            // Whether a predicate's column is there only PostgreSQL says before it is asked.
            (&["--where", "nowhere = 1"], if twin.kind() == "clickhouse" { 15 } else { 13 }),
            (&["--columns", "id,nowhere"], 2),
            (&["--rename", "nowhere=x"], 2),
            (&["--table", "nothing_of_it"], 13),
            (&["--query", "select from where"], 15),
        ] {
            let place = Place::local();
            let run = twin.export(&place, arguments).run().await;
            assert_eq!(run.code, code, "{name} {arguments:?}: {}", run.stderr);
            assert!(run.stderr.contains("error: "), "{name} {arguments:?}: {}", run.stderr);
            assert!(place.visible().await.is_empty(), "{name} {arguments:?}");
        }
    })
    .await;
}

fn sorted_rows(ids: impl Iterator<Item = u32>) -> Vec<String> {
    let mut all: Vec<String> = ids.map(row).collect();
    all.sort();
    all
}

#[tokio::test]
async fn standard_output_has_the_data_and_nothing_else() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let name = twin.name();
        let expected: String = (0..ROWS).map(|id| row(id) + "\n").collect();
        let run = twin
            .export(
                &Place::local(),
                &["--to", "-", "--partitions", "1", "--readers", "1", "--report", "text", "--key", "id"],
            )
            .run()
            .await
            .expect(0);
        assert!(run.stdout == expected.as_bytes(), "{name}: {} bytes and not {}", run.stdout.len(), expected.len());
        let packed = [
            "--to",
            "-",
            "--partitions",
            "1",
            "--readers",
            "1",
            "--report",
            "text",
            "--key",
            "id",
            "--compression",
            "gzip",
        ];
        let run = twin.export(&Place::local(), &packed).run().await.expect(0);
        assert!(crate::support::job::unpacked("x.gz", &run.stdout) == expected.as_bytes(), "{name}");
        let few = [
            "--to",
            "-",
            "--partitions",
            "1",
            "--readers",
            "1",
            "--report",
            "text",
            "--format",
            "ndjson",
            "--where",
            "id = 8",
            "--columns",
            "id,maybe,price",
        ];
        let run = twin.export(&Place::local(), &few).run().await.expect(0);
        assert_eq!(String::from_utf8(run.stdout).unwrap(), "{\"id\":8,\"maybe\":24,\"price\":2.00}\n", "{name}");
        let capped = ["--to", "-", "--partitions", "1", "--readers", "1", "--report", "text", "--max-rows", "5"];
        let run = twin.export(&Place::local(), &capped).run().await.expect(3);
        assert_eq!(sorted(&run.stdout), rows(0..5), "{name}");
        let wrong =
            ["--to", "-", "--partitions", "1", "--readers", "1", "--report", "text", "--query", "select from where"];
        let run = twin.export(&Place::local(), &wrong).run().await.expect(15);
        assert!(run.stdout.is_empty() && run.stderr.contains("error: "), "{name}: {}", run.stderr);
    })
    .await;
}

/// What stands at a place, the engine's own folder aside.
async fn stands(place: &Place) -> BTreeMap<String, u64> {
    place.list().await.into_iter().filter(|(path, _)| !path.starts_with("_outhaul")).collect()
}

#[tokio::test]
async fn what_stands_is_kept_skipped_or_replaced_and_a_run_id_is_a_retry() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let (name, place) = (twin.name(), Place::local());
        let run = async |arguments: &[&str]| twin.export(&place, arguments).run().await;
        let first = run(&["--run-id", "nightly-7", "--max-rows", "10"]).await.expect(3);
        let before = stands(&place).await;
        let taken = run(&[]).await.expect(22);
        assert!(taken.stderr.contains("nightly-7"), "{name}: {}", taken.stderr);
        let skipped = run(&["--on-existing", "skip"]).await.expect(3);
        assert_eq!(
            (&skipped.report["already_committed"], &skipped.report["rows"]),
            (&json!(true), &json!(10)),
            "{name}"
        );
        twin.insert(ROWS..ROWS + 5).await;
        for more in [&[][..], &["--readers", "1"], &["--on-existing", "replace"]] {
            let again = run(&[&["--run-id", "nightly-7", "--max-rows", "10"], more].concat()).await.expect(3);
            for field in ["status", "rows", "parts", "bytes", "run_id", "manifest"] {
                assert_eq!(again.report[field], first.report[field], "{name} {more:?} {field}");
            }
            assert_eq!(again.report["already_committed"], true, "{name} {more:?}");
        }
        for other in [&["--max-rows", "11"][..], &["--max-rows", "10", "--where", "id > 5"]] {
            run(&[&["--run-id", "nightly-7"], other].concat()).await.expect(22);
        }
        run(&["--on-existing", "replace", "--where", "length(name) < name"]).await.expect(15);
        run(&["--on-existing", "replace", "--min-rows", "100000"]).await.expect(14);
        assert_eq!(stands(&place).await, before, "{name}: what failed took something away");
        run(&["--on-existing", "replace"]).await.expect(0);
        assert_eq!(place.whole().await, rows(0..ROWS + 5), "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_single_file_stands_alone_at_exactly_its_key() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("deep/numbers.csv.gz");
        let to = to.to_str().unwrap();
        let place = Place::local();
        let one = ["--partitions", "1", "--readers", "1"];
        let arguments = [&["--to", to, "--single-file", "--key", "id", "--compression", "gzip"][..], &one].concat();
        twin.export(&place, &arguments).run().await.expect(0);
        let expected: String = (0..ROWS).map(|id| row(id) + "\n").collect();
        let bytes = std::fs::read(to).unwrap();
        assert!(crate::support::job::unpacked(to, &bytes) == expected.as_bytes(), "{}", twin.name());
        let names: Vec<String> = visible(folder.path()).into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, ["deep/numbers.csv.gz", "deep/numbers.csv.gz.manifest.json"], "{}", twin.name());
        twin.export(&place, &arguments).run().await.expect(22);
        twin.outhaul(&place, &["verify", to, "--single-file", "--read-data"]).run().await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn a_plan_says_what_would_be_done_and_reads_no_rows() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let (name, from) = (twin.name(), twin.url());
        let plan = async |more: &[&str]| {
            let own = ["plan", "--from", &from, "--table", "t", "--report", "json"];
            twin.outhaul(&Place::local(), &[&own[..], more].concat()).run().await.expect(0).report
        };
        let found = plan(&["--partitions", "5", "--readers", "2", "--format", "csv"]).await;
        let numbers: Vec<u64> = found["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|partition| partition["number"].as_u64().unwrap())
            .collect();
        assert!(
            numbers.len() >= 4 && numbers.iter().enumerate().all(|(at, number)| at as u64 == *number),
            "{name}: {numbers:?}"
        );
        let columns: Vec<&str> =
            found["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(columns, ["id", "name", "maybe", "price", "at"], "{name}");
        assert!(found["read"]["peak_connections"].as_u64().unwrap() >= 2, "{name}: {}", found["read"]);
        let capped = plan(&["--max-rows", "10"]).await;
        assert_eq!(capped["row_cap"]["max_rows"], 10, "{name}: {}", capped["row_cap"]);
        twin.is_at_rest().await;
    })
    .await;
}

#[tokio::test]
async fn a_manifest_adds_up_in_every_format_and_compression() {
    let twins = twins(ROWS).await;
    each(&twins, async |twin| {
        let name = twin.name();
        for (format, compression) in [
            ("parquet", "zstd"),
            ("parquet", "none"),
            ("csv", "zstd"),
            ("csv", "gzip"),
            ("ndjson", "none"),
            ("ndjson", "gzip"),
        ] {
            let place = Place::local();
            let arguments = ["--format", format, "--compression", compression, "--part-size", "64KiB"];
            let run = twin.export(&place, &arguments).run().await.expect(0);
            let (what, manifest) = (format!("{name} {format} {compression}"), place.manifest().await);
            let sum = |field: &str| parts(&manifest).iter().map(|part| part[field].as_u64().unwrap()).sum::<u64>();
            for field in ["rows", "bytes"] {
                assert_eq!(manifest["totals"][field], sum(field), "{what} {field}");
                assert_eq!(run.report[field], manifest["totals"][field], "{what} {field}");
            }
            assert_eq!(sum("rows"), u64::from(ROWS), "{what}");
            let types: Vec<&str> = manifest["schema"]
                .as_array()
                .unwrap()
                .iter()
                .map(|column| column["pg_type"].as_str().unwrap())
                .collect();
            assert_eq!(types, ["bigint", "text", "bigint", "numeric(12,2)", "timestamp with time zone"], "{what}");
            assert_eq!(
                (&manifest["status"], &manifest["source"]["kind"], &manifest["version"]),
                (&json!("complete"), &json!(twin.kind()), &json!(1)),
                "{what}"
            );
            let there = visible(&place.folder()).into_iter().collect::<BTreeMap<_, _>>();
            let named: BTreeMap<String, u64> = parts(&manifest)
                .iter()
                .map(|part| (part["path"].as_str().unwrap().to_owned(), part["bytes"].as_u64().unwrap()))
                .collect();
            assert_eq!(there, named, "{what}");
            let contents = place.contents().await;
            assert_eq!(contents.rows, u64::from(ROWS), "{what}");
            verify(twin, &place, &["--read-data"]).await.expect(0);
        }
    })
    .await;
}

/// Both sources have the same values, so that what an independent reader makes of them is the same too.
#[tokio::test]
async fn the_same_rows_are_the_same_whatever_they_come_from_in_every_format() {
    let twins = twins(ROWS).await;
    for format in ["parquet", "csv", "ndjson"] {
        let mut seen = Vec::new();
        for twin in &twins {
            let place = Place::local();
            twin.export(&place, &["--format", format]).run().await.expect(0);
            let contents = place.contents().await;
            seen.push((contents.columns, contents.rows, contents.hash));
        }
        assert_eq!(seen[0], seen[1], "{format}");
    }
}
