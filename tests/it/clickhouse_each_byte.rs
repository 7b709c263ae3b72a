//! A server's error, cut at each of its bytes, behind rows of each kind of format and in each encoding: by the library in this
//! process, since so many processes would take minutes.

use bytes::Bytes;
use futures_util::StreamExt as _;
use outhaul::config::{Environment, load};
use outhaul::export::stream;
use outhaul::model::ExportErrorKind;
use tokio::sync::mpsc::channel;
use tokio_util::sync::CancellationToken;

use crate::support::clickhouse_fake::{Ending, FakeClickHouse, Scripted, frame};

const MESSAGE: &str = "Code: 395. DB::Exception: no";

/// The bytes of a frame up to which nobody can know that it is one.
const OPENING: usize = 35;

/// Bytes of a frame's beginning that a row may have by chance.
const CHANCE: usize = 6;

/// Exports that run at the same time.
const TOGETHER: usize = 4;

/// What came of an answer: its bytes, and how the export ended with the proof of its manifest.
async fn read(format: &str, answer: Scripted) -> (Vec<u8>, Result<String, ExportErrorKind>) {
    let server = FakeClickHouse::start("26.9.2.1", vec![answer]).await;
    let (url, query) = (server.url(), format!("SELECT n FROM t FORMAT {format}"));
    let words = [("from", url.as_str()), ("to", "-"), ("query", query.as_str())];
    let flags = words.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
    let (request, _) = load(flags, &Environment::default(), false).unwrap();
    let (sender, mut bytes) = channel::<Bytes>(4);
    let (told, _events) = channel(1_000);
    let running = tokio::spawn(stream(request, sender, told, CancellationToken::new()));
    let mut all = Vec::new();
    while let Some(piece) = bytes.recv().await {
        all.extend_from_slice(&piece);
    }
    let outcome = running.await.unwrap().map_err(|error| error.kind).map(|streamed| {
        let manifest: serde_json::Value = serde_json::from_slice(&streamed.manifest.to_json().unwrap()).unwrap();
        manifest["completeness"]["proof"].as_str().unwrap().to_owned()
    });
    (all, outcome)
}

/// Rows of a format as far as a server came that failed then: more than is held back, and no end of the format.
fn rows(format: &str) -> Vec<u8> {
    let row: &[u8] = match format {
        "CSV" => b"1,\"two\"\n",
        "JSONEachRow" => b"{\"n\":1,\"s\":\"two\"}\n",
        "JSON" => b"\t\t{\n\t\t\t\"n\": 1\n\t\t},\n",
        "Parquet" => b"\x15\x04\x15\xe0\xff\0\x01PAR",
        _ => b"\0\x01\xff\xfe",
    };
    row.iter().copied().cycle().take(40_000 / row.len() * row.len()).collect()
}

/// Whether files of it show by their last bytes that they are whole, or were cut within a row.
fn shows(format: &str) -> bool {
    !["RowBinary", "Native"].contains(&format)
}

#[derive(Debug, Clone, Copy)]
struct Case {
    format: &'static str,
    coding: Option<&'static str>,
    cut: usize,
    ending: Ending,
}

async fn holds(case: Case) {
    let Case { format, coding, cut, ending } = case;
    let (rows, frame) = (rows(format), frame(MESSAGE));
    let body = [rows.as_slice(), &frame[..cut]].concat();
    let answer = Scripted::of(format, &body).ends(ending);
    let answer = match coding {
        // A server that fails ends what it compresses, and one that dies does not.
        Some(coding) => answer.packed(coding, cut == frame.len()),
        None => answer,
    };
    let (bytes, outcome) = read(format, answer.cut(7919)).await;
    match outcome {
        Err(kind) => {
            let told =
                if cut >= OPENING { ExportErrorKind::StatementRejected } else { ExportErrorKind::SourceUnavailable };
            assert_eq!(kind, told, "{case:?}");
            assert!(
                rows.starts_with(&bytes),
                "{case:?}: {} bytes more than rows",
                bytes.len().saturating_sub(rows.len())
            );
        }
        // Rows that end anywhere, and no more behind them than chance may have put there. The manifest proves nothing.
        Ok(proof) => {
            let unclear = ending == Ending::Clean && coding.is_none() && cut < CHANCE;
            let lines = ["CSV", "JSONEachRow"].contains(&format) && cut == 0;
            assert!(unclear && (!shows(format) || lines), "{case:?}: {proof}");
            assert_eq!(proof, "http_end", "{case:?}");
            assert!(bytes == body, "{case:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_cut_at_each_of_its_bytes_is_in_no_output_and_no_cut_answer_is_proven_whole() {
    let length = frame(MESSAGE).len();
    let mut cases = Vec::new();
    for format in ["RowBinary", "Native", "CSV", "JSONEachRow", "JSON", "Parquet"] {
        for coding in [None, Some("gzip"), Some("zstd")] {
            for ending in [Ending::Broken, Ending::Clean] {
                // Each byte of what differs; of formats that end as another does, and in encodings, some.
                let each = match (format, coding) {
                    ("RowBinary" | "CSV", None) => true,
                    ("JSON", None) | ("RowBinary", Some(_)) => ending == Ending::Broken,
                    _ => false,
                };
                let cuts = (0..=length).step_by(if each { 1 } else { 25 });
                cases.extend(cuts.map(|cut| Case { format, coding, cut, ending }));
            }
        }
    }
    futures_util::stream::iter(cases).for_each_concurrent(TOGETHER, holds).await;
}
