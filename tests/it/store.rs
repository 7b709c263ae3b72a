//! The conformance suite of destinations, on memory, a local folder and a real S3 server.

#[path = "../support/store_suite.rs"]
mod store_suite;

use std::collections::BTreeMap;

use outhaul::store::error::StoreFault;
use outhaul::store::{Destination, Journal, StoreOptions};
use store_suite::Subject;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests through scripts/test"))
}

fn s3_variables() -> BTreeMap<String, String> {
    [
        ("AWS_ENDPOINT", variable("OUTHAUL_TEST_S3_ENDPOINT")),
        ("AWS_ACCESS_KEY_ID", variable("OUTHAUL_TEST_S3_ACCESS_KEY")),
        ("AWS_SECRET_ACCESS_KEY", variable("OUTHAUL_TEST_S3_SECRET_KEY")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn s3_bucket() -> String {
    format!("s3://{}", variable("OUTHAUL_TEST_S3_BUCKET"))
}

fn options() -> StoreOptions {
    let number = |number| std::num::NonZeroUsize::new(number).unwrap();
    StoreOptions { chunk_bytes: number(5 << 20), concurrency: number(2), sha256: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    let subject = Subject { url: "memory:///suite".into(), variables: BTreeMap::new(), tells_crc: false };
    store_suite::all(&subject).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_folder() {
    let folder = tempfile::tempdir().unwrap();
    // A name that URLs must encode.
    let url = folder.path().join("a b%20c").to_str().unwrap().to_owned();
    store_suite::all(&Subject { url, variables: BTreeMap::new(), tells_crc: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3() {
    let subject = Subject { url: format!("{}/store suite", s3_bucket()), variables: s3_variables(), tells_crc: false };
    store_suite::all(&subject).await;
}

#[tokio::test]
async fn s3_refusals_are_classified_and_keep_secrets() {
    let open = |url: &str, changes: &[(&str, &str)]| {
        let mut variables = s3_variables();
        variables.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Destination::open_with(url, &options(), &variables).unwrap()
    };
    let wrong_secret = open(&s3_bucket(), &[("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")]);
    let wrong_key = open(&s3_bucket(), &[("AWS_ACCESS_KEY_ID", "nobody")]);
    let no_bucket = open("s3://no-such-bucket-here", &[]);
    for (destination, fault) in [
        (wrong_secret, StoreFault::Authentication),
        (wrong_key, StoreFault::Authentication),
        (no_bucket, StoreFault::Configuration),
    ] {
        let journal = Journal::new(destination.clone(), "run");
        let errors = [
            destination.read("x").await.unwrap_err(),
            destination.list("").await.unwrap_err(),
            destination.put("x", "x".into(), "text/plain").await.unwrap_err(),
            destination.writer("x", "text/plain", &journal).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.fault, fault, "{error}: {}", error.source);
            let everything = format!("{error} {} {error:?} {destination:?}", error.source);
            assert!(!everything.contains("hunter2") && !everything.contains("CanonicalRequest"), "{everything}");
        }
    }
}

#[tokio::test]
async fn a_foreign_local_file_is_kept_unless_it_is_to_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let destination = Destination::open(folder.path().to_str().unwrap(), &options()).unwrap();
    let journal = Journal::new(destination.clone(), "run");
    let mut writer = destination.writer("orders.csv", "text/csv", &journal).await.unwrap();
    writer.write("ours").await.unwrap();
    let staged = writer.finish().await.unwrap();
    std::fs::write(folder.path().join("orders.csv"), "theirs").unwrap();

    assert_eq!(destination.publish(&staged).await.unwrap_err().fault, StoreFault::Taken);
    assert_eq!(std::fs::read(folder.path().join("orders.csv")).unwrap(), b"theirs");
    destination.publish_over(&staged).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("orders.csv")).unwrap(), b"ours");
    destination.publish(&staged).await.unwrap();
    journal.close().await.unwrap();
    assert_eq!(destination.list("").await.unwrap(), [("orders.csv".to_owned(), 4)]);
}

#[tokio::test]
async fn a_staged_file_that_lost_bytes_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let destination = Destination::open(folder.path().to_str().unwrap(), &options()).unwrap();
    let mut writer = destination.writer("part", "text/csv", &Journal::new(destination.clone(), "run")).await.unwrap();
    writer.write("four").await.unwrap();
    let staged = writer.finish().await.unwrap();
    std::fs::write(folder.path().join("_outhaul/run/staging/part"), "fo").unwrap();
    destination.publish(&staged).await.unwrap_err();
    assert_eq!(destination.head("part").await.unwrap(), None);
}
