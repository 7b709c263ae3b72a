//! The conformance suite of destinations, on memory, a local folder and a real S3 server.

#[path = "../support/store_suite.rs"]
pub(crate) mod store_suite;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use outhaul::store::error::StoreFault;
use outhaul::store::{Destination, Journal, PartWriter, StoreError, StoreOptions};
use store_suite::Subject;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

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

/// A store in memory is for tests alone, and not in the program that people get.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    let subject = Subject { url: "memory:///suite".into(), variables: BTreeMap::new(), tells_crc: false, aborts: true };
    store_suite::all(&subject).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_folder() {
    let folder = tempfile::tempdir().unwrap();
    // A name that URLs must encode.
    let url = folder.path().join("a b%20c").to_str().unwrap().to_owned();
    store_suite::all(&Subject { url, variables: BTreeMap::new(), tells_crc: false, aborts: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3() {
    let subject = Subject {
        url: format!("{}/store suite", s3_bucket()),
        variables: s3_variables(),
        tells_crc: true,
        aborts: true,
    };
    store_suite::all(&subject).await;
}

#[tokio::test]
async fn s3_refusals_are_classified_and_keep_secrets() {
    let open = |url: &str, changes: &[(&str, &str)]| {
        let mut variables = s3_variables();
        variables.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Destination::open_with(url, &options(), &variables).unwrap()
    };
    let check = |error: StoreError, destination: &Destination, fault: StoreFault| {
        assert_eq!(error.fault, fault, "{error}: {}", error.source);
        let everything = format!("{error} {} {error:?} {destination:?}", error.source);
        assert!(!everything.contains("hunter2") && !everything.contains("CanonicalRequest"), "{everything}");
    };
    for change in [("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"), ("AWS_ACCESS_KEY_ID", "nobody")] {
        let destination = open(&s3_bucket(), &[change]);
        let journal = Journal::new(destination.clone(), "run");
        let fault = StoreFault::Authentication;
        check(destination.read("x").await.unwrap_err(), &destination, fault);
        check(destination.list("").await.unwrap_err(), &destination, fault);
        check(destination.put("x", "x".into(), "text/plain").await.unwrap_err(), &destination, fault);
        check(destination.writer("x", "text/plain", &journal).await.unwrap_err(), &destination, fault);
    }
    // Only asked: SeaweedFS makes a bucket for whoever may and writes to it.
    let destination = open("s3://never-made-by-any-test", &[]);
    check(destination.read("x").await.unwrap_err(), &destination, StoreFault::Configuration);
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
    destination.publish_over(&staged, None).await.unwrap();
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

/// What an S3 server does with a chunk.
#[derive(Clone, Copy)]
enum Chunks {
    Deafened,
    Refused,
    Taken,
}

/// An S3 server in which uploads start, and which keeps nothing but the headers of what was sent to it.
struct DeafS3 {
    variables: BTreeMap<String, String>,
    aborted: Arc<AtomicUsize>,
    /// Request line and headers, in lower case, of each chunk.
    chunks: Arc<Mutex<Vec<String>>>,
}

impl DeafS3 {
    async fn start(answer: Chunks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let aborted = Arc::new(AtomicUsize::new(0));
        let chunks = Arc::new(Mutex::new(Vec::new()));
        let (counter, heads) = (Arc::clone(&aborted), Arc::clone(&chunks));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Self::answer(socket, answer, Arc::clone(&counter), Arc::clone(&heads)));
            }
        });
        let variables =
            [("AWS_ENDPOINT", endpoint.as_str()), ("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { variables, aborted, chunks }
    }

    async fn answer(
        socket: TcpStream,
        answer: Chunks,
        aborted: Arc<AtomicUsize>,
        chunks: Arc<Mutex<Vec<String>>>,
    ) -> std::io::Result<()> {
        let mut socket = BufReader::new(socket);
        let (mut request, mut head, mut length) = (String::new(), String::new(), 0);
        socket.read_line(&mut request).await?;
        loop {
            let mut header = String::new();
            socket.read_line(&mut header).await?;
            head.push_str(&header.to_ascii_lowercase());
            match header.to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        tokio::io::copy(&mut (&mut socket).take(length), &mut tokio::io::sink()).await?;
        let (status, body) = if request.starts_with("POST ") {
            ("200 OK", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        } else if request.starts_with("DELETE ") {
            aborted.fetch_add(1, Ordering::SeqCst);
            ("204 No Content", "")
        } else if !request.contains("partNumber=") {
            ("200 OK", "")
        } else {
            chunks.lock().unwrap().push(format!("{}{head}", request.to_ascii_lowercase()));
            match answer {
                Chunks::Deafened => std::future::pending().await,
                Chunks::Refused => ("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"),
                Chunks::Taken => ("200 OK", ""),
            }
        };
        let size = body.len();
        let head = format!("HTTP/1.1 {status}\r\nETag: \"e\"\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n");
        socket.write_all(format!("{head}{body}").as_bytes()).await
    }

    async fn writer(&self) -> PartWriter {
        let destination = Destination::open_with("s3://bucket/x", &options(), &self.variables).unwrap();
        destination.writer("part", "text/csv", &Journal::new(destination.clone(), "run")).await.unwrap()
    }
}

#[tokio::test]
async fn a_slow_store_holds_the_writer_back() {
    let server = DeafS3::start(Chunks::Deafened).await;
    let mut writer = server.writer().await;
    let chunk = Bytes::from(vec![7; 5 << 20]);
    // Two chunks fly, the third fills.
    writer.write(chunk.clone()).await.unwrap();
    writer.write(chunk.clone()).await.unwrap();
    writer.write(chunk.slice(1..)).await.unwrap();
    assert_eq!(writer.bytes_written(), 3 * (5 << 20) - 1);
    let full = tokio::time::timeout(Duration::from_millis(300), writer.write(chunk.slice(..1))).await;
    assert!(full.is_err(), "a third chunk was taken in flight");
    // The cancelled call leaves a gap, so nothing more is taken.
    assert_eq!(writer.write("x").await.unwrap_err().fault, StoreFault::Unavailable);
    writer.abort().await.unwrap();
    assert_eq!(server.aborted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_object_with_a_failed_chunk_cannot_be_finished() {
    let server = DeafS3::start(Chunks::Refused).await;
    let mut writer = server.writer().await;
    writer.write(vec![7; 5 << 20]).await.unwrap();
    assert_eq!(writer.finish().await.unwrap_err().fault, StoreFault::Authentication);
    assert_eq!(server.aborted.load(Ordering::SeqCst), 1, "finish aborts what it cannot finish");

    let mut writer = server.writer().await;
    let chunk = Bytes::from(vec![7; 5 << 20]);
    let mut failed = None;
    for _ in 0..4 {
        failed = failed.or(writer.write(chunk.clone()).await.err());
    }
    assert_eq!(failed.unwrap().fault, StoreFault::Authentication);
    let later = writer.write("x").await.unwrap_err();
    assert_eq!(later.fault, StoreFault::Authentication);
    assert!(later.source.to_string().contains("an earlier chunk failed"), "{}", later.source);
    writer.finish().await.unwrap_err();
}

/// A chunk is covered by its CRC, which is in the signature; no other checksum of it is computed.
#[tokio::test]
async fn chunks_carry_a_crc_and_no_hash() {
    let server = DeafS3::start(Chunks::Taken).await;
    let mut writer = server.writer().await;
    let bytes = Bytes::from((0..(5 << 20) + 9).map(|n: u32| n.to_le_bytes()[1]).collect::<Vec<_>>());
    writer.write(bytes.clone()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    assert_eq!(staged.crc64nvme, crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes));

    let mut heads = server.chunks.lock().unwrap().clone();
    heads.sort_unstable_by_key(|head| head.contains("partnumber=2"));
    assert_eq!(heads.len(), 2, "{heads:?}");
    for (head, chunk) in heads.iter().zip([&bytes[..5 << 20], &bytes[5 << 20..]]) {
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.split_once(':').filter(|(found, _)| *found == name))
                .map(|(_, v)| v.trim())
        };
        assert_eq!(header("x-amz-content-sha256"), Some("unsigned-payload"), "{head}");
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, chunk);
        let crc = base64::prelude::BASE64_STANDARD.encode(crc.to_be_bytes()).to_ascii_lowercase();
        assert_eq!(header("x-amz-checksum-crc64nvme"), Some(crc.as_str()), "{head}");
        let signed = header("authorization").unwrap().split_once("signedheaders=").unwrap().1;
        assert!(signed.contains("x-amz-checksum-crc64nvme"), "{head}");
        assert!(header("content-md5").is_none() && header("x-amz-checksum-sha256").is_none(), "{head}");
    }
}
