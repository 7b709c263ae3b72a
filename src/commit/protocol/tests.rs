use std::collections::BTreeMap;

use crc_fast::{CrcAlgorithm, checksum};

use super::*;
use crate::commit::model::PartEntry;
use crate::commit::test_data::{manifest, memory, open};
use crate::commit::wire::crc64nvme_text;
use crate::commit::{Recovered, look, recover};
use crate::describe::documents;
use crate::model::Layout;
use crate::store::{Claim, Journal, PartName, Take};
use crate::verify::{VerifyOptions, verify};

/// A manifest of its own run, with its parts staged.
struct Ready {
    manifest: Arc<Manifest>,
    staged: Vec<StagedObject>,
}

async fn ready(destination: &Destination, run: &str, attempt: u32) -> Ready {
    staged_under(destination, run, |part| {
        PartName { partition: part.partition, roll: part.roll, attempt }.path(Layout::Nested, "csv")
    })
    .await
}

async fn staged_under(destination: &Destination, run: &str, path_of: impl Fn(&PartEntry) -> String) -> Ready {
    let mut manifest = manifest();
    manifest.run_id = run.into();
    manifest.nonce = format!("nonce of {run}");
    let mut staged = Vec::new();
    let mut bytes = 0;
    for part in &mut manifest.parts {
        part.path = path_of(part);
        part.url = destination.object_url(&part.path);
        let object = stage(destination, run, &part.path, &format!("{run} {}\n", part.path)).await;
        (part.bytes, part.crc64nvme) = (object.bytes, object.crc64nvme);
        bytes += part.bytes;
        staged.push(object);
    }
    manifest.totals.bytes = bytes;
    Ready { manifest: Arc::new(manifest), staged }
}

async fn stage(destination: &Destination, run: &str, path: &str, text: &str) -> StagedObject {
    let journal = Journal::new(destination.clone(), run);
    let mut writer = destination.writer(path, "text/csv", &journal).await.unwrap();
    writer.write(Bytes::from(text.to_owned())).await.unwrap();
    writer.finish().await.unwrap()
}

impl Ready {
    async fn commit(&self, destination: &Destination, rules: &CommitRules) -> Result<Committed, ManifestError> {
        commit(destination, Arc::clone(&self.manifest), &self.staged.iter().rev().collect::<Vec<_>>(), rules).await
    }
}

fn parts_rules(previous: Option<Existing>) -> CommitRules {
    CommitRules {
        placement: Placement::Parts,
        on_existing: OnExisting::Replace,
        previous,
        run: None,
        describe: documents,
    }
}

async fn standing(destination: &Destination) -> Option<Existing> {
    look(destination, &Placement::Parts).await.unwrap()
}

/// Everything visible but the journal.
async fn visible(destination: &Destination) -> Vec<String> {
    let listed = destination.list("").await.unwrap();
    listed.into_iter().map(|(path, _)| path).filter(|path| !path.starts_with("_outhaul")).collect()
}

async fn contents(destination: &Destination) -> BTreeMap<String, Bytes> {
    let mut contents = BTreeMap::new();
    for path in visible(destination).await {
        let bytes = destination.read(&path).await.unwrap().unwrap().bytes;
        contents.insert(path, bytes);
    }
    contents
}

fn all_files(manifest: &Manifest) -> Vec<String> {
    let fixed = [
        "_SUCCESS",
        "_ddl/athena.sql",
        "_ddl/clickhouse.sql",
        "_ddl/dbt-sources.yml",
        "_ddl/duckdb.sql",
        "_ddl/redshift.sql",
        "_ddl/spectrum.sql",
        "_manifest.json",
        "_redshift/manifest",
        "_symlink_format_manifest/manifest",
    ];
    let mut files: Vec<String> = fixed.map(str::to_owned).into();
    files.extend(manifest.parts.iter().map(|part| part.path.clone()));
    files.sort_unstable();
    files
}

/// Two kinds of store: in memory with uploads, and local with staged files.
fn destinations(name: &str) -> (tempfile::TempDir, [Destination; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let local = open(folder.path().to_str().unwrap());
    (folder, [memory(name), local])
}

#[tokio::test]
async fn i2_a_commit_leaves_exactly_the_parts_and_their_manifests() {
    let (_folder, destinations) = destinations("fresh");
    for destination in destinations {
        let ready = ready(&destination, "run-a", 1).await;
        assert!(visible(&destination).await.is_empty());
        let committed = ready.commit(&destination, &parts_rules(None)).await.unwrap();
        assert_eq!(visible(&destination).await, all_files(&ready.manifest));
        assert_eq!(committed.manifest_url, destination.object_url("_manifest.json"));

        let existing = standing(&destination).await.unwrap();
        assert_eq!(existing.manifest, *ready.manifest);
        let success: serde_json::Value =
            serde_json::from_slice(&destination.read("_SUCCESS").await.unwrap().unwrap().bytes).unwrap();
        let json = destination.read("_manifest.json").await.unwrap().unwrap().bytes;
        let crc = checksum(CrcAlgorithm::Crc64Nvme, &json);
        assert_eq!(
            success,
            serde_json::json!({"status": "truncated", "rows": 12, "manifest_crc64nvme": crc64nvme_text(crc)})
        );
        let report = verify(&destination, &Placement::Parts, VerifyOptions { read_data: false }).await.unwrap();
        assert_eq!(report.findings, []);
    }
}

#[tokio::test]
async fn replacing_deletes_what_only_the_old_manifest_named() {
    let (_folder, destinations) = destinations("replace");
    for destination in destinations {
        let old = ready(&destination, "run-a", 1).await;
        old.commit(&destination, &parts_rules(None)).await.unwrap();
        destination.put("data/somebody-elses.csv", "x".into(), "text/csv").await.unwrap();

        let previous = standing(&destination).await;
        let new = ready(&destination, "run-b", 2).await;
        let committed = new.commit(&destination, &parts_rules(previous)).await.unwrap();
        assert!(committed.warnings.is_empty());
        let mut wanted = all_files(&new.manifest);
        wanted.push("data/somebody-elses.csv".into());
        wanted.sort_unstable();
        assert_eq!(visible(&destination).await, wanted);
        assert_eq!(standing(&destination).await.unwrap().manifest.run_id, "run-b");
    }
}

#[tokio::test]
async fn a_manifest_that_was_changed_since_the_start_is_not_replaced() {
    let (_folder, destinations) = destinations("changed");
    for destination in destinations {
        ready(&destination, "run-a", 1).await.commit(&destination, &parts_rules(None)).await.unwrap();
        let seen_at_start = standing(&destination).await;
        ready(&destination, "run-b", 2).await.commit(&destination, &parts_rules(seen_at_start.clone())).await.unwrap();
        let before = contents(&destination).await;

        let late = ready(&destination, "run-c", 3).await;
        let error = late.commit(&destination, &parts_rules(seen_at_start.clone())).await.unwrap_err();
        assert!(matches!(&error, ManifestError::Taken { run_id, .. } if run_id == "run-b"), "{error}");
        let error = late.commit(&destination, &parts_rules(None)).await.unwrap_err();
        assert!(matches!(&error, ManifestError::Taken { run_id, .. } if run_id == "run-b"), "{error}");
        assert_eq!(contents(&destination).await, before);

        destination.delete("_manifest.json").await.unwrap();
        let error = late.commit(&destination, &parts_rules(seen_at_start)).await.unwrap_err();
        assert!(matches!(error, ManifestError::Vanished { .. }), "{error}");
    }
}

/// The put's own word decides nothing, so what it says is left out here: the manifest comes to stand between the look
/// before the commit and the put.
#[tokio::test]
async fn only_reading_back_decides_whose_manifest_stands() {
    let (_folder, destinations) = destinations("read-back");
    for destination in destinations {
        let (ours, other) = (ready(&destination, "run-a", 1).await, ready(&destination, "run-b", 2).await);
        let rules = parts_rules(None);
        let documents = Documents::of(Arc::clone(&ours.manifest), documents).await.unwrap();
        let manifest = &ours.manifest;
        let run = Commit { destination: &destination, manifest, documents: &documents, rules: &rules, single: None };

        // The store answers "exists" or with an error, and our own bytes are there.
        destination.put("_manifest.json", documents.manifest.clone(), JSON).await.unwrap();
        run.write_manifest().await.unwrap();

        // "Exists", and somebody else's are there.
        let theirs = other.manifest.to_json().unwrap();
        destination.put("_manifest.json", theirs.into(), JSON).await.unwrap();
        let staged: Vec<_> = ours.staged.iter().collect();
        let error = run.publish_and_write(&staged).await.unwrap_err();
        assert!(matches!(&error, ManifestError::Taken { run_id, .. } if run_id == "run-b"), "{error}");
        assert_eq!(visible(&destination).await, ["_manifest.json"]);
    }
}

#[tokio::test]
async fn i1_a_part_that_cannot_be_published_leaves_nothing_visible() {
    let (_folder, destinations) = destinations("publish-fails");
    for destination in destinations {
        let ready = ready(&destination, "run-a", 1).await;
        // Of a run that nobody knows any more; gone before the first part is published.
        destination.put("_SUCCESS", "old".into(), JSON).await.unwrap();
        destination.discard(&ready.staged[2]).await.unwrap();
        let error = ready.commit(&destination, &parts_rules(None)).await.unwrap_err();
        assert!(matches!(error, ManifestError::Publish(_)), "{error}");
        assert!(!error.may_be_committed());
        assert_eq!(visible(&destination).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_replacement_that_fails_leaves_the_destination_as_it_was() {
    let (_folder, destinations) = destinations("replace-fails");
    for destination in destinations {
        ready(&destination, "run-a", 1).await.commit(&destination, &parts_rules(None)).await.unwrap();
        let before = contents(&destination).await;
        let new = ready(&destination, "run-b", 2).await;
        destination.discard(&new.staged[0]).await.unwrap();
        let previous = standing(&destination).await;
        new.commit(&destination, &parts_rules(previous)).await.unwrap_err();
        assert_eq!(contents(&destination).await, before);
    }
}

#[tokio::test]
async fn a_commit_that_died_after_its_manifest_is_finished_by_a_second_call() {
    let (_folder, destinations) = destinations("again");
    for destination in destinations {
        let old = ready(&destination, "run-a", 1).await;
        old.commit(&destination, &parts_rules(None)).await.unwrap();
        let previous = standing(&destination).await;
        let new = ready(&destination, "run-b", 2).await;
        new.commit(&destination, &parts_rules(previous.clone())).await.unwrap();
        for lost in ["_SUCCESS", "_ddl/duckdb.sql", "_redshift/manifest", "_symlink_format_manifest/manifest"] {
            destination.delete(lost).await.unwrap();
        }
        new.commit(&destination, &parts_rules(previous)).await.unwrap();
        assert_eq!(visible(&destination).await, all_files(&new.manifest));
    }
}

#[tokio::test]
async fn the_staged_objects_must_be_the_manifests_parts() {
    let destination = memory("staged-differ");
    let ready = ready(&destination, "run-a", 1).await;
    let mut other_crc = ready.staged.clone();
    other_crc[1].crc64nvme ^= 1;
    let twice = [ready.staged.clone(), ready.staged[..1].to_vec()].concat();
    for staged in [&ready.staged[1..], &other_crc, &twice] {
        let staged: Vec<_> = staged.iter().collect();
        let error = commit(&destination, Arc::clone(&ready.manifest), &staged, &parts_rules(None)).await.unwrap_err();
        assert!(matches!(error, ManifestError::Staged { .. }), "{error}");
    }
    assert!(visible(&destination).await.is_empty());
}

fn single_placement() -> Placement {
    Placement::Single { name: "orders.csv".into() }
}

fn single_rules(on_existing: OnExisting, previous: Option<Existing>) -> CommitRules {
    CommitRules { placement: single_placement(), on_existing, previous, run: None, describe: documents }
}

/// A single file, whose content is the run's name.
async fn single(destination: &Destination, run: &str) -> Ready {
    let staged = stage(destination, run, "orders.csv", run).await;
    let mut manifest = manifest();
    (manifest.run_id, manifest.nonce) = (run.into(), format!("nonce of {run}"));
    manifest.parts.truncate(1);
    let part = &mut manifest.parts[0];
    (part.path, part.bytes, part.crc64nvme) = (staged.path.clone(), staged.bytes, staged.crc64nvme);
    Ready { manifest: Arc::new(manifest), staged: vec![staged] }
}

#[tokio::test]
async fn a_single_file_has_only_its_manifest_beside_it() {
    let (_folder, destinations) = destinations("single");
    for destination in destinations {
        destination.put("_SUCCESS", "somebody's".into(), JSON).await.unwrap();
        let (fresh, commit) = (single_rules(OnExisting::Fail, None), async |run: &str, rules: &CommitRules| {
            single(&destination, run).await.commit(&destination, rules).await
        });
        commit("run-a", &fresh).await.unwrap();
        let wanted = ["_SUCCESS", "orders.csv", "orders.csv.manifest.json"];
        assert_eq!(visible(&destination).await, wanted);

        let previous = look(&destination, &single_placement()).await.unwrap();
        commit("run-b", &single_rules(OnExisting::Replace, previous)).await.unwrap();
        assert_eq!(visible(&destination).await, wanted);
        assert_eq!(destination.read("orders.csv").await.unwrap().unwrap().bytes, "run-b");
        assert_eq!(destination.read("_SUCCESS").await.unwrap().unwrap().bytes, "somebody's");

        let error = commit("run-c", &fresh).await.unwrap_err();
        assert!(matches!(error, ManifestError::Taken { .. }), "{error}");
        assert_eq!(destination.read("orders.csv").await.unwrap().unwrap().bytes, "run-b");
    }
}

/// The old file has as many bytes as the new one was to have.
#[tokio::test]
async fn a_single_file_that_could_not_be_replaced_is_not_taken_for_the_new_one() {
    let (_folder, destinations) = destinations("single-refused");
    for destination in destinations {
        single(&destination, "run-a").await.commit(&destination, &single_rules(OnExisting::Fail, None)).await.unwrap();
        let before = contents(&destination).await;
        let previous = look(&destination, &single_placement()).await.unwrap();
        let new = single(&destination, "run-b").await;
        destination.discard(&new.staged[0]).await.unwrap();
        let error = new.commit(&destination, &single_rules(OnExisting::Replace, previous)).await.unwrap_err();
        assert!(matches!(error, ManifestError::Publish(_)), "{error}");
        assert_eq!(contents(&destination).await, before);
    }
}

#[tokio::test]
async fn a_foreign_file_that_could_not_be_replaced_stays() {
    let (_folder, destinations) = destinations("foreign-refused");
    for destination in destinations {
        for foreign in ["as long", "of another length"] {
            destination.put("orders.csv", foreign.into(), "text/csv").await.unwrap();
            let new = single(&destination, "run-new").await;
            destination.discard(&new.staged[0]).await.unwrap();
            let error = new.commit(&destination, &single_rules(OnExisting::Replace, None)).await.unwrap_err();
            assert!(matches!(error, ManifestError::Publish(_)), "{error}");
            assert_eq!(visible(&destination).await, ["orders.csv"]);
            assert_eq!(destination.read("orders.csv").await.unwrap().unwrap().bytes, foreign);
        }
    }
}

/// It came while the run went on, and was not to be replaced.
#[tokio::test]
async fn a_foreign_file_that_comes_meanwhile_is_not_replaced_unasked() {
    let (_folder, destinations) = destinations("foreign-came");
    for destination in destinations {
        destination.put("orders.csv", "as long".into(), "text/csv").await.unwrap();
        let new = single(&destination, "run-new").await;
        let error = new.commit(&destination, &single_rules(OnExisting::Fail, None)).await.unwrap_err();
        assert!(matches!(&error, ManifestError::Publish(cause) if cause.fault == StoreFault::Taken), "{error}");
        assert_eq!(destination.read("orders.csv").await.unwrap().unwrap().bytes, "as long");
    }
}

/// Lets the clock go on by more than a file system's times differ by.
async fn later() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_commit_that_died_is_taken_back_and_what_stood_there_before_is_not() {
    let (_folder, destinations) = destinations("foreign-died");
    for destination in destinations {
        destination.put("orders.csv", "as long".into(), "text/csv").await.unwrap();
        later().await;
        let new = single(&destination, "run-new").await;
        let part = &new.manifest.parts[0];
        let record = CommitRecord {
            nonce: new.manifest.nonce.clone(),
            parts: vec![part.path.clone()],
            replaced: Vec::new(),
            single: Some(SingleRecord::look(&destination, part).await.unwrap()),
        };
        let json = serde_json::to_vec(&record).unwrap();
        let record: CommitRecord = serde_json::from_slice(&json).unwrap();
        let recovered =
            async || recover(&destination, &single_placement(), Some(&record), &[], documents).await.unwrap();
        assert!(matches!(recovered().await, Recovered::TakenBack(0)));
        assert_eq!(destination.read("orders.csv").await.unwrap().unwrap().bytes, "as long");

        destination.publish_over(&new.staged[0], record.single.as_ref().unwrap().before.as_deref()).await.unwrap();
        assert!(matches!(recovered().await, Recovered::TakenBack(1)));
        assert_eq!(visible(&destination).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_single_file_whose_manifest_could_not_be_written_is_taken_away_again() {
    let (_folder, destinations) = destinations("single-unsigned");
    for destination in destinations {
        destination.put("orders.csv", "as long".into(), "text/csv").await.unwrap();
        later().await;
        let (new, rules) = (single(&destination, "run-new").await, single_rules(OnExisting::Replace, None));
        let documents = Documents::of(Arc::clone(&new.manifest), documents).await.unwrap();
        let (manifest, rules) = (&new.manifest, &rules);
        let mut run = Commit { destination: &destination, manifest, documents: &documents, rules, single: None };
        run.begin().await.unwrap();
        let mut begun = Vec::new();
        run.publish(&[&new.staged[0]], &mut begun).await.unwrap();
        assert_eq!(run.unpublish(&begun, &ManifestError::NotThere { object: run.manifest_url() }).await, 0);
        assert_eq!(visible(&destination).await, [""; 0]);
    }
}

/// What a process has published that died before its manifest is not what stood there before.
#[tokio::test]
async fn a_single_file_is_committed_by_the_second_process_of_its_run() {
    let (_folder, destinations) = destinations("single-again");
    for destination in destinations {
        destination.put("orders.csv", "as long".into(), "text/csv").await.unwrap();
        later().await;
        let new = single(&destination, "run-new").await;
        let claim = Claim::take(&destination, &single_placement().owner_path(), "run-new", Take::Free).await.unwrap();
        let run = Some((claim, Journal::new(destination.clone(), "run-new")));
        let rules = CommitRules { run, ..single_rules(OnExisting::Replace, None) };
        let documents = Documents::of(Arc::clone(&new.manifest), documents).await.unwrap();
        let (manifest, rules) = (&new.manifest, &rules);
        let mut died = Commit { destination: &destination, manifest, documents: &documents, rules, single: None };
        died.begin().await.unwrap();
        died.publish(&[&new.staged[0]], &mut Vec::new()).await.unwrap();
        new.commit(&destination, rules).await.unwrap();
        assert_eq!(destination.read("orders.csv").await.unwrap().unwrap().bytes, "run-new");
    }
}

/// Whoever runs exports spawns them.
#[test]
fn futures_can_be_spawned() {
    fn spawnable<T: Send>(_: &T) {}
    let destination = memory("spawnable");
    let rules = parts_rules(None);
    let manifest = Arc::new(manifest());
    spawnable(&commit(&destination, manifest, &[], &rules));
    spawnable(&verify(&destination, &Placement::Parts, VerifyOptions { read_data: true }));
}
