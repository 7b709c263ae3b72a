//! A second source, with types of its own, that has nothing of PostgreSQL: it is planned, exported, capped, resumed, planned
//! again under way and verified by what PostgreSQL is.

mod memory;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use outhaul::config::{Environment, load};
use outhaul::export::resume::{ResumeRequest, resume};
use outhaul::export::{ExportError, ExportRequest, plan, run};
use outhaul::model::{ExportErrorKind, ExportReport, Format, ReadRequest, RunStatus};
use outhaul::source::{Opened, Source as _};
use serde_json::json;
use tokio::sync::mpsc::channel;
use tokio_util::sync::CancellationToken;

use crate::support::run::outhaul;
use memory::{Memory, SONG, Trouble};

fn request(source: &Arc<Memory>, to: &Path, words: &[(&'static str, &str)]) -> ExportRequest {
    let own = [("from", "postgres://nobody@nowhere/none"), ("to", to.to_str().unwrap())];
    let flags = own.iter().chain(words).map(|(key, value)| (*key, vec![(*value).to_owned()])).collect();
    let (mut request, _) = load(flags, &Environment::default(), false).unwrap();
    request.source = Arc::<Memory>::clone(source);
    request
}

async fn export(request: ExportRequest) -> Result<ExportReport, ExportError> {
    let (events, mut told) = channel(100);
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    run(request, events, CancellationToken::new()).await
}

fn manifest(to: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(to.join("_manifest.json")).unwrap()).unwrap()
}

/// The rows of all parts that the manifest names, in its order, without headers.
fn rows(to: &Path) -> Vec<String> {
    let manifest = manifest(to);
    let parts = manifest["parts"].as_array().unwrap().iter().map(|part| part["path"].as_str().unwrap().to_owned());
    let texts = parts.map(|path| std::fs::read_to_string(to.join(path)).unwrap());
    texts.flat_map(|text| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect()
}

async fn verified(to: &Path) {
    outhaul(["verify", to.to_str().unwrap(), "--read-data"]).run().await.expect(0);
}

const CSV: [(&str, &str); 2] = [("format", "csv"), ("readers", "2")];

#[tokio::test]
async fn its_relations_are_exported_in_every_format_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::calm());
    for (table, count) in [("numbers", 25), ("words", 4), ("nothing", 0)] {
        for format in ["csv", "ndjson", "parquet"] {
            let to = folder.path().join(format!("{table}-{format}"));
            let report = export(request(&memory, &to, &[("table", table), ("format", format)])).await.unwrap();
            assert_eq!((report.rows, report.status), (Some(count), RunStatus::Complete), "{table} {format}");
            let manifest = manifest(&to);
            assert_eq!(manifest["source"]["kind"], "memory");
            assert_eq!(manifest["consistency"]["mode"], "at_rest");
            let (own, postgres) = if table == "words" { ("utf8 string", "text") } else { ("u63", "bigint") };
            assert_eq!(manifest["schema"][0]["source_type"], own);
            assert_eq!(manifest["schema"][0]["pg_type"], postgres);
            verified(&to).await;
        }
    }
    assert_eq!(rows(&folder.path().join("numbers-csv")), (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(rows(&folder.path().join("words-csv")), ["one", "\"two, and\"", "three", "\"\""]);
}

#[tokio::test]
async fn it_is_planned_without_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::calm());
    let plan = plan(request(&memory, folder.path(), &[("table", "numbers")])).await.unwrap();
    assert_eq!((plan.partitions.len(), plan.columns[0].type_name.as_str()), (3, "u63"));
    assert!(memory.opened().is_empty(), "{:?}", memory.opened());
    let error = export(request(&memory, &folder.path().join("no"), &[("table", "none")])).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ExportErrorKind::SchemaChanged, "there is no relation none"));
}

#[tokio::test]
async fn several_of_its_relations_are_one_reading() {
    let (folder, memory) = (tempfile::tempdir().unwrap(), Arc::new(Memory::calm()));
    let tables = ["numbers", "song"];
    let requests = tables.map(|table| {
        let ExportRequest { shape, format, policies, work, commit, .. } =
            request(&memory, folder.path(), &[("table", table)]);
        let (run_id, stats) = (commit.run_id, commit.manifest_stats);
        let (format, together) = (format.format, Vec::new());
        let (single, keep, watermark, protect) = (false, false, None, None);
        ReadRequest { run_id, shape, format, policies, work, single, stats, keep, watermark, together, protect }
    });
    let reading = memory.begin(requests.to_vec()).await.unwrap();
    let plan = |relation| reading.plan(relation).unwrap();
    assert_eq!(tables.map(str::to_owned), [0, 1].map(|relation| plan(relation).relation.name.clone().unwrap()));
    assert_eq!((plan(0).partitions.len(), plan(1).partitions.len(), reading.plan(2)), (3, 1, None));
    assert!(matches!(reading.open(0, 2).await.unwrap(), Opened::Rows(_)));
    assert!(matches!(reading.open(1, 0).await.unwrap(), Opened::Bytes { .. }));
}

#[tokio::test]
async fn bytes_of_its_own_are_written_as_they_come_and_nobody_counts_rows() {
    let (folder, memory) = (tempfile::tempdir().unwrap(), Arc::new(Memory::calm()));
    for (table, bytes) in [("song", SONG.concat()), ("silence", Vec::new())] {
        let to = folder.path().join(table);
        // A part as small as can be cuts nothing: nobody knows where these bytes may be cut.
        let words = [("table", table), ("part_size", "1B"), ("format", "parquet")];
        let report = export(request(&memory, &to, &words)).await.unwrap();
        assert_eq!((report.rows, report.parts, report.status), (None, 1, RunStatus::Complete));
        let manifest = manifest(&to);
        assert_eq!((&manifest["version"], &manifest["format_options"]["format"]), (&json!(2), &json!("source")));
        assert_eq!((&manifest["schema"], &manifest["totals"]["bytes"]), (&json!([]), &json!(bytes.len())));
        for (holder, field) in [("/totals", "rows"), ("/parts/0", "rows"), ("/parts/0", "columns")] {
            assert!(manifest.pointer(holder).unwrap().get(field).is_none(), "{manifest}");
        }
        let path = manifest["parts"][0]["path"].as_str().unwrap();
        assert_eq!(Path::new(path).extension().unwrap(), "song");
        assert_eq!(std::fs::read(to.join(path)).unwrap(), bytes);
        verified(&to).await;
        let ddl = outhaul(["ddl", to.to_str().unwrap(), "--dialect", "duckdb"]).run().await;
        assert!(ddl.expect(2).stderr.contains("as the source made them"));
        std::fs::write(to.join(path), b"do re").unwrap();
        outhaul(["verify", to.to_str().unwrap(), "--read-data"]).run().await.expect(30);
    }
    // Into one file of a given name, too.
    let to = folder.path().join("my.song");
    export(request(&memory, &to, &[("table", "song"), ("single_file", "true")])).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), SONG.concat());
    // Replaced by rows, and the other way round.
    let replace = async |table| {
        let words = [("table", table), ("format", "csv"), ("on_existing", "replace")];
        export(request(&memory, &folder.path().join("song"), &words)).await.unwrap();
        verified(&folder.path().join("song")).await;
    };
    replace("words").await;
    replace("song").await;
}

#[tokio::test]
async fn what_cannot_be_counted_is_not_asked_for() {
    let (folder, memory) = (tempfile::tempdir().unwrap(), Arc::new(Memory::calm()));
    for words in [("max_rows", "2"), ("min_rows", "1")] {
        let request = request(&memory, folder.path(), &[("table", "song"), words]);
        let error = export(request).await.unwrap_err();
        assert_eq!(error.kind, ExportErrorKind::Usage, "{error:?}");
        assert!(error.message.starts_with("nobody counts rows in bytes"), "{error:?}");
    }
    let mut rows = request(&memory, folder.path(), &[("table", "words")]);
    rows.format.format = Format::Source;
    let error = plan(rows).await.unwrap_err();
    assert!(error.kind == ExportErrorKind::Usage && error.message.contains("has no format of its own"), "{error:?}");
    assert!(memory.opened().is_empty());
}

#[tokio::test]
async fn bytes_of_a_run_that_died_are_read_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::with(Trouble::HangsAt(0)));
    let request = request(&memory, folder.path(), &[("table", "song"), ("run_id", "died")]);
    let (events, mut told) = channel(100);
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    let planned = async {
        while !folder.path().join("_outhaul/died/plan.json").exists() || memory.opened().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ended = run(request, events, CancellationToken::new()) => panic!("{ended:?}"),
        () = planned => {}
    }
    let request = going_on(Arc::new(Memory::calm()), folder.path());
    let report = resume(request, channel(100).0, CancellationToken::new()).await.unwrap();
    assert_eq!((report.rows, report.bytes), (None, 9));
    verified(folder.path()).await;
}

#[tokio::test]
async fn a_cap_cuts_it() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::calm());
    for (cap, status) in [("7", RunStatus::Truncated), ("25", RunStatus::Complete), ("30", RunStatus::Complete)] {
        let to = folder.path().join(cap);
        let words = [CSV[0], CSV[1], ("table", "numbers"), ("max_rows", cap)];
        let report = export(request(&memory, &to, &words)).await.unwrap();
        assert_eq!((report.status, report.rows), (status, Some(cap.parse::<u64>().unwrap().min(25))));
        verified(&to).await;
    }
}

/// Receipts of a run that died, as its journal has them.
fn receipts_in(to: &Path) -> usize {
    std::fs::read_dir(to.join("_outhaul/died/receipts")).map_or(0, Iterator::count)
}

/// Begins a run and drops it in the middle, as if its process had died, once it has so many receipts.
async fn die(memory: &Arc<Memory>, to: &Path, receipts: usize) {
    let request = request(memory, to, &[CSV[0], CSV[1], ("table", "numbers"), ("run_id", "died")]);
    let (events, mut told) = channel(100);
    tokio::select! {
        ended = run(request, events, CancellationToken::new()) => panic!("{ended:?}"),
        () = async { while told.recv().await.is_some_and(|_| receipts_in(to) < receipts) {} } => {}
    }
    assert!(!to.join("_manifest.json").exists());
}

/// Going on with a run that died here: its process, which is the test's own, is alive.
fn going_on(source: Arc<Memory>, to: &Path) -> ResumeRequest {
    ResumeRequest {
        protect_key: outhaul::model::ProtectKeyPlace::default(),
        source,
        destination: to.to_str().unwrap().to_owned(),
        single_file: false,
        readers: None,
        allow_mixed_snapshot: false,
        unfinished: false,
        take_over: true,
        aws_credential_command: None,
        external: None,
    }
}

/// Goes on with it, and says which partitions that read.
async fn go_on(to: &Path) -> BTreeSet<u32> {
    let calm = Arc::new(Memory::calm());
    let request = going_on(Arc::clone(&calm), to);
    let (events, mut told) = channel(100);
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    let report = resume(request, events, CancellationToken::new()).await.unwrap();
    assert_eq!((report.rows, report.run_id.as_str()), (Some(25), "died"));
    let mut all = rows(to);
    all.sort_by_key(|row| row.parse::<u64>().unwrap());
    assert_eq!(all, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
    verified(to).await;
    calm.opened()
}

#[tokio::test]
async fn what_died_is_resumed_and_read_once() {
    let folder = tempfile::tempdir().unwrap();
    die(&Arc::new(Memory::with(Trouble::HangsAt(2))), folder.path(), 2).await;
    assert_eq!(go_on(folder.path()).await, BTreeSet::from([2]), "only what was missing");
}

#[tokio::test]
async fn what_died_after_its_plan_was_changed_is_resumed_by_the_new_plan() {
    let folder = tempfile::tempdir().unwrap();
    // 0 and 2 are read; then 0 and 1 become 3 and 4, of which 3 is read: receipts of 0, 2 and 3.
    let trouble = Trouble::Moves { partition: 1, with: 0, then_hangs: Some(4) };
    die(&Arc::new(Memory::with(trouble)), folder.path(), 3).await;
    assert_eq!(go_on(folder.path()).await, BTreeSet::from([4]), "only what was missing of the new plan");
}

#[tokio::test]
async fn a_partition_that_is_gone_is_planned_again() {
    let folder = tempfile::tempdir().unwrap();
    // Its partition 1 is split by the source while it is read, and takes the rows of partition 0 with it.
    let memory = Arc::new(Memory::with(Trouble::Moves { partition: 1, with: 0, then_hangs: None }));
    let report = export(request(&memory, folder.path(), &[CSV[0], CSV[1], ("table", "numbers")])).await.unwrap();
    assert_eq!((report.rows, report.status), (Some(25), RunStatus::Complete));
    let mut all = rows(folder.path());
    all.sort_by_key(|row| row.parse::<u64>().unwrap());
    assert_eq!(all, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
    let numbers: BTreeSet<u64> = manifest(folder.path())["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["partition"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, BTreeSet::from([2, 3, 4]));
    verified(folder.path()).await;
}

#[tokio::test]
async fn a_plan_that_never_settles_ends() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::with(Trouble::MovesForEver));
    let error = export(request(&memory, folder.path(), &[CSV[0], CSV[1], ("table", "numbers")])).await.unwrap_err();
    assert_eq!(error.kind, ExportErrorKind::SnapshotLost, "{error:?}");
    assert!(
        !folder.path().join("data").exists() || std::fs::read_dir(folder.path().join("data")).unwrap().next().is_none()
    );
}
