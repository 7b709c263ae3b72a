//! What every kind of destination must do, checked against one that is given. Each case works below a prefix of its
//! own, so that cases may run at the same time.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use bytes::Bytes;
use futures_util::TryStreamExt;
use outhaul::model::{AmountRead, PartReceipt, PartitionReceipt, StagedObject};
use outhaul::store::error::StoreFault;
use outhaul::store::{CreateOutcome, Destination, Journal, ReplaceOutcome, StoreOptions};

/// The smallest legal chunk, so that a few make many.
const CHUNK: usize = 5 << 20;
const TYPE: &str = "application/octet-stream";
const RUN: &str = "suite-run";

/// A kind of destination.
pub struct Subject {
    /// Cases open destinations below this URL.
    pub url: String,
    /// What stands for the environment.
    pub variables: BTreeMap<String, String>,
    /// Whether the store is known to tell the CRC64NVME of an object.
    pub tells_crc: bool,
    /// Whether a discarded upload is gone. Azure has no such request, and drops what was not used after a week.
    pub aborts: bool,
}

impl Subject {
    fn open(&self, case: &str) -> Destination {
        let options = StoreOptions {
            chunk_bytes: NonZeroUsize::new(CHUNK).unwrap(),
            concurrency: NonZeroUsize::new(3).unwrap(),
            sha256: true,
        };
        let url = format!("{}/{case}-{:016x}", self.url, rand::random::<u64>());
        #[cfg(feature = "failpoints")]
        if let Some(name) = url.strip_prefix("memory:///") {
            return Destination::in_memory(name, &options);
        }
        Destination::open_with(&url, &options, &self.variables).unwrap()
    }
}

/// Runs every case.
pub async fn all(subject: &Subject) {
    object_of_size(subject, "empty", 0).await;
    object_of_size(subject, "one-byte", 1).await;
    object_of_size(subject, "exact-multiple", 2 * CHUNK).await;
    object_of_size(subject, "many-chunks", 7 * CHUNK + 12_345).await;
    writers_at_the_same_time(subject).await;
    discarded(subject).await;
    dropped(subject).await;
    aborted(subject).await;
    conditional_writes(subject).await;
    small_objects(subject).await;
    missing_staging(subject).await;
    replaced_object(subject).await;
    strange_paths(subject).await;
}

/// Bytes that differ from chunk to chunk.
fn content(size: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

async fn stage(destination: &Destination, path: &str, bytes: &Bytes) -> StagedObject {
    let journal = Journal::new(destination.clone(), RUN);
    let mut writer = destination.writer(path, TYPE, &journal).await.unwrap();
    // Pieces that fit no chunk.
    for piece in bytes.chunks(1_234_567) {
        writer.write(bytes.slice_ref(piece)).await.unwrap();
    }
    assert_eq!(writer.bytes_written(), bytes.len() as u64);
    writer.finish().await.unwrap()
}

async fn read_back(destination: &Destination, path: &str) -> Bytes {
    let pieces: Vec<Bytes> = destination.read_stream(path).try_collect().await.unwrap();
    pieces.concat().into()
}

/// Nothing at the path, nothing below `data`.
async fn assert_invisible(destination: &Destination, path: &str) {
    assert_eq!(destination.read(path).await.unwrap(), None, "read");
    assert_eq!(destination.head(path).await.unwrap(), None, "head");
    assert_eq!(destination.list("data").await.unwrap(), [], "list");
    let missing = destination.read_stream(path).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(missing.fault, StoreFault::Missing, "{missing}");
}

/// The object as its receipt has it, which another process reads.
async fn from_its_journal(destination: &Destination, object: StagedObject) -> StagedObject {
    let journal = Journal::new(destination.clone(), RUN);
    let (rows, now) = (Some(0), chrono::Utc::now());
    let part = PartReceipt {
        object: object.clone(),
        roll: 0,
        folders: Vec::new(),
        rows,
        header_rows: 0,
        header_bytes: 0,
        columns: Vec::new(),
        started_at: now,
        finished_at: now,
    };
    let receipt =
        PartitionReceipt { partition: 7, attempt: 10, read: AmountRead::Rows(0), beyond_cap: true, parts: vec![part] };
    journal.record_receipt(&receipt).await.unwrap();
    let [read] = <[PartitionReceipt; 1]>::try_from(journal.receipts().await.unwrap()).unwrap();
    assert_eq!(read, receipt);
    object
}

/// Invisible until published, then exactly what was written; publishing twice is fine.
pub async fn object_of_size(subject: &Subject, case: &str, size: usize) {
    let destination = subject.open(case);
    let (path, bytes) = ("data/part-00000-000-0000000a.bin", content(size));
    let staged = stage(&destination, path, &bytes).await;
    assert_eq!((staged.path.as_str(), staged.bytes), (path, size as u64), "{case}");
    assert_eq!(staged.crc64nvme, crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes), "{case}");
    assert_eq!(staged.sha256, Some(sha256(&bytes)), "{case}");
    assert_invisible(&destination, path).await;

    let staged = from_its_journal(&destination, staged).await;
    destination.publish(&staged).await.unwrap();
    assert!(read_back(&destination, path).await == bytes, "{case}: other bytes came back");
    assert_eq!(destination.list("data").await.unwrap(), [(path.to_owned(), size as u64)], "{case}");
    let facts = destination.head(path).await.unwrap().unwrap();
    assert_eq!(facts.bytes, size as u64, "{case}");
    match facts.crc64nvme {
        Some(crc) => assert_eq!(crc, staged.crc64nvme, "{case}: the store's checksum"),
        None => assert!(!subject.tells_crc, "{case}: the store told no checksum"),
    }

    destination.publish(&staged).await.unwrap();
    assert!(read_back(&destination, path).await == bytes, "{case}: after the second publish");
    destination.discard(&staged).await.unwrap();
    assert!(destination.head(path).await.unwrap().is_some(), "{case}: discarding must not unpublish");
    Journal::new(destination.clone(), RUN).close().await.unwrap();
    assert!(destination.list("_outhaul/suite-run/staging").await.unwrap().is_empty(), "{case}");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Several objects grow at once and do not mix.
pub async fn writers_at_the_same_time(subject: &Subject) {
    let destination = subject.open("concurrent");
    let bytes = content(2 * CHUNK + 99);
    let part = |number: u32| {
        let (destination, bytes) = (destination.clone(), bytes.slice(number as usize..));
        async move { (stage(&destination, &format!("data/part-{number}"), &bytes).await, bytes) }
    };
    let (first, second, third) = tokio::join!(part(0), part(1), part(2));
    assert!(destination.list("data").await.unwrap().is_empty());
    for (staged, bytes) in [first, second, third] {
        destination.publish(&staged).await.unwrap();
        assert!(read_back(&destination, &staged.path).await == bytes, "{}", staged.path);
    }
    let listed = destination.list("data/").await.unwrap();
    assert_eq!(
        listed.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["data/part-0", "data/part-1", "data/part-2"]
    );
}

/// A discarded object is gone, and can be discarded again, but not published.
pub async fn discarded(subject: &Subject) {
    let destination = subject.open("discard");
    let path = "data/part";
    let staged = stage(&destination, path, &content(CHUNK + 1)).await;
    destination.discard(&staged).await.unwrap();
    destination.discard(&staged).await.unwrap();
    if subject.aborts {
        destination.publish(&staged).await.unwrap_err();
    }
    assert_invisible(&destination, path).await;
    assert!(destination.list("_outhaul/suite-run/staging").await.unwrap().is_empty());
}

/// A writer that is dropped publishes nothing; its upload is in the journal.
pub async fn dropped(subject: &Subject) {
    let destination = subject.open("drop");
    let path = "data/part";
    let journal = Journal::new(destination.clone(), RUN);
    let mut writer = destination.writer(path, TYPE, &journal).await.unwrap();
    writer.write(content(CHUNK + 1)).await.unwrap();
    drop(writer);
    assert_invisible(&destination, path).await;
    assert!(destination.list("_outhaul/suite-run/staging").await.unwrap().is_empty());
    if destination.local_folder().is_none() {
        let noted = destination.read("_outhaul/suite-run/uploads/data/part.json").await.unwrap().unwrap();
        let noted: BTreeMap<String, String> = serde_json::from_slice(&noted.bytes).unwrap();
        assert_eq!(noted["path"], path);
        assert!(noted.contains_key("upload_id"));
    }
}

/// An aborted writer leaves nothing staged.
pub async fn aborted(subject: &Subject) {
    let destination = subject.open("abort");
    let path = "data/part";
    let mut writer = destination.writer(path, TYPE, &Journal::new(destination.clone(), RUN)).await.unwrap();
    writer.write(content(2 * CHUNK + 1)).await.unwrap();
    writer.abort().await.unwrap();
    assert_invisible(&destination, path).await;
    assert!(destination.list("_outhaul/suite-run/staging").await.unwrap().is_empty());
}

/// Create-if-absent and replace-if-unchanged.
pub async fn conditional_writes(subject: &Subject) {
    let destination = subject.open("conditional");
    let (path, json) = ("_manifest.json", "application/json");
    let create = |bytes: &'static str| destination.create(path, bytes.into(), json);
    assert_eq!(create("one").await.unwrap(), CreateOutcome::Created);
    assert_eq!(create("two").await.unwrap(), CreateOutcome::Exists);
    let one = destination.read(path).await.unwrap().unwrap();
    assert_eq!(one.bytes, "one");
    assert_eq!(destination.head(path).await.unwrap().unwrap().version, one.version, "read and head disagree");

    let replace = |bytes: &'static str, expected| {
        let (destination, bytes) = (destination.clone(), Bytes::from(bytes));
        async move { destination.replace(path, bytes, json, &expected).await.unwrap() }
    };
    assert_eq!(replace("three", one.version.clone()).await, ReplaceOutcome::Replaced);
    assert_eq!(replace("four", one.version.clone()).await, ReplaceOutcome::Changed);
    let three = destination.read(path).await.unwrap().unwrap();
    assert_eq!(three.bytes, "three");
    assert_ne!(three.version, one.version);

    destination.delete(path).await.unwrap();
    assert_eq!(replace("five", three.version).await, ReplaceOutcome::Changed);
    assert_eq!(destination.read(path).await.unwrap(), None);

    let race = |number: u32| {
        let destination = destination.clone();
        async move { destination.create("race", number.to_string().into(), json).await.unwrap() }
    };
    let (a, b, c, d) = tokio::join!(race(0), race(1), race(2), race(3));
    let created = [a, b, c, d].into_iter().filter(|outcome| *outcome == CreateOutcome::Created).count();
    assert_eq!(created, 1, "exactly one of four creators wins");
}

/// Put, list, delete.
pub async fn small_objects(subject: &Subject) {
    let destination = subject.open("small");
    assert_eq!(destination.list("").await.unwrap(), []);
    for (path, bytes) in [("b/2", "22"), ("a", "1"), ("b/c/3", "333"), ("b2", "4444"), (".hidden#1", "5")] {
        destination.put(path, bytes.into(), TYPE).await.unwrap();
    }
    let found = |listed: Vec<(String, u64)>| listed.into_iter().map(|(path, size)| format!("{path}={size}"));
    let all = found(destination.list("").await.unwrap()).collect::<Vec<_>>();
    assert_eq!(all, [".hidden#1=1", "a=1", "b/2=2", "b/c/3=3", "b2=4"]);
    assert_eq!(found(destination.list("b/").await.unwrap()).collect::<Vec<_>>(), ["b/2=2", "b/c/3=3"]);
    destination.put("a", "overwritten".into(), TYPE).await.unwrap();
    assert_eq!(destination.read("a").await.unwrap().unwrap().bytes, "overwritten");
    destination.delete("a").await.unwrap();
    destination.delete("a").await.unwrap();
    destination.delete("never/was").await.unwrap();
    assert_eq!(destination.read("a").await.unwrap(), None);
}

/// A receipt whose bytes are nowhere is not published, even where something else stands at its path.
pub async fn missing_staging(subject: &Subject) {
    if !subject.aborts {
        return;
    }
    let destination = subject.open("missing");
    let staged = stage(&destination, "part", &content(10)).await;
    destination.discard(&staged).await.unwrap();
    destination.put("part", "not ours".into(), TYPE).await.unwrap();
    destination.publish(&staged).await.unwrap_err();
    assert_eq!(destination.read("part").await.unwrap().unwrap().bytes, "not ours");
}

/// What stands at a name before something is published over it is never taken for that, whatever its size.
pub async fn replaced_object(subject: &Subject) {
    let destination = subject.open("replaced");
    let stamp = async || destination.head("orders").await.unwrap().map(|facts| facts.stamp);
    destination.put("orders", "theirs".into(), TYPE).await.unwrap();
    let before = stamp().await;
    if subject.aborts {
        let staged = stage(&destination, "orders", &Bytes::from("lost..")).await;
        destination.discard(&staged).await.unwrap();
        destination.publish_over(&staged, before.as_deref()).await.unwrap_err();
        assert_eq!(destination.read("orders").await.unwrap().unwrap().bytes, "theirs");
    }
    // A store may tell seconds only, and a file system a little more.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let staged = stage(&destination, "orders", &Bytes::from("staged")).await;
    destination.publish_over(&staged, before.as_deref()).await.unwrap();
    assert_ne!(stamp().await, before);
    // As where the answer to the first was lost.
    destination.publish_over(&staged, before.as_deref()).await.unwrap();
    assert_eq!(destination.read("orders").await.unwrap().unwrap().bytes, "staged");
}

/// A path cannot leave its destination.
pub async fn strange_paths(subject: &Subject) {
    let destination = subject.open("paths");
    for path in ["", "/a", "a//b", "../a", "a/../../b", "a/.", "a/", "a\nb"] {
        let error = destination.put(path, "x".into(), TYPE).await.unwrap_err();
        assert_eq!(error.fault, StoreFault::Configuration, "{path:?}");
    }
    let escape = Journal::new(destination.clone(), "../../escape");
    let error = destination.writer("part", TYPE, &escape).await.unwrap_err();
    assert_eq!(error.fault, StoreFault::Configuration);
}
