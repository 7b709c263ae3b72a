//! Formats x encodings x places of a failure: not one byte of an error in any output, and no cut answer that passes for a whole
//! one. Against a scripted server, which cuts where it is told to, and against a real one behind what proxies do.

use std::path::Path;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::clickhouse_fake::{Ending, FakeClickHouse, Scripted, frame};
use crate::support::clickhouse_hop::{Hop, Meddling};
use crate::support::manifest;
use crate::support::run::Run;

const MESSAGE: &str =
    "Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero. (FUNCTION_THROW_IF) (version 26.9.2.1)";

/// The bytes of a frame up to which nobody can know that it is one.
const OPENING: usize = 35;

const QUERY: [&str; 2] = ["--query", "SELECT n FROM t FORMAT RowBinary"];

/// Exports that run at the same time.
const TOGETHER: usize = 4;

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Neither a manifest nor data are in a folder.
fn is_unpublished(to: &Path) -> bool {
    !to.join("_manifest.json").exists() && !to.join("data").exists()
}

fn rows() -> Vec<u8> {
    (0..40_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// An export onto standard output of a server that answers so.
async fn streamed(answer: Scripted) -> Run {
    let server = FakeClickHouse::start("26.9.2.1", vec![answer]).await;
    server.export(&[&QUERY[..], &["--to", "-"]].concat()).run().await
}

#[tokio::test]
async fn a_frame_within_a_compressed_answer_is_found_and_is_nowhere_in_the_output() {
    let (rows, frame) = (rows(), frame(MESSAGE));
    let cuts = (0..=45).chain([frame.len() / 2]).chain(frame.len() - 40..=frame.len());
    let cases = cuts.flat_map(|cut| ["gzip", "zstd"].map(|coding| (cut, coding)));
    let (rows, frame) = (&rows, &frame);
    stream::iter(cases)
        .for_each_concurrent(TOGETHER, async |(cut, coding)| {
            let body = [rows.as_slice(), frame.get(..cut).unwrap()].concat();
            // A server that fails ends what it compresses, and one that dies does not.
            let whole = cut == frame.len();
            let answer = Scripted::of("RowBinary", &body).packed(coding, whole).cut(7919).ends(Ending::Broken);
            let run = streamed(answer).await;
            assert_eq!(run.code, if cut >= OPENING { 15 } else { 11 }, "{coding} {cut}: {}", run.stderr);
            assert!(rows.starts_with(&run.stdout), "{coding} {cut}");
            assert!(run.stdout.len() + 256 * 1024 > rows.len(), "{coding} {cut}: too much is held back");
        })
        .await;
}

#[tokio::test]
async fn a_compressed_answer_without_its_own_end_is_no_whole_one_however_http_ends() {
    let rows = rows();
    let rows = &rows;
    let cases = (1..=24).flat_map(|missing| ["gzip", "zstd"].map(|coding| (missing, coding)));
    stream::iter(cases)
        .for_each_concurrent(TOGETHER, async |(missing, coding)| {
            let answer = Scripted::of("RowBinary", rows).packed(coding, true).short_by(missing).cut(7919);
            let run = streamed(answer).await;
            assert_eq!(run.code, 11, "{coding} without {missing} bytes: {}", run.stderr);
            assert!(rows.starts_with(&run.stdout), "{coding} {missing}");
        })
        .await;
    for coding in ["gzip", "zstd"] {
        let run = streamed(Scripted::of("RowBinary", rows).packed(coding, true).cut(7919)).await.expect(0);
        assert!(run.stdout == *rows, "{coding}");
        // An error before the first row, by its status.
        let error = Scripted::bare(format!("{MESSAGE}\n").as_bytes()).packed(coding, true);
        let run = streamed(error.status("500 Internal Server Error")).await.expect(15);
        assert!(run.stdout.is_empty() && run.stderr.contains("throwIf"), "{coding}: {}", run.stderr);
    }
    let strange = Scripted::bare(b"rows").with(vec!["Content-Encoding: br".to_owned()]);
    let run = streamed(strange).await;
    assert!(run.code == 1 && run.stdout.is_empty(), "{} {}", run.code, run.stderr);
}

/// chproxy has been seen to make an empty success of a refusal.
#[tokio::test]
async fn a_refusal_of_which_a_proxy_left_the_number_alone_is_no_empty_answer() {
    for (code, exit_code) in [(49, 15), (60, 13), (241, 16), (516, 10)] {
        let number = format!("X-ClickHouse-Exception-Code: {code}");
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let server = FakeClickHouse::start("26.9.2.1", vec![Scripted::of("RowBinary", b"").with(vec![number])]).await;
        let run = server.export(&[&QUERY[..], &["--to", to.to_str().unwrap()]].concat()).run().await;
        assert_eq!(run.code, exit_code, "{code}: {}", run.stderr);
        assert!(run.stderr.contains(&code.to_string()) && is_unpublished(&to), "{code}: {}", run.stderr);
    }
    let none = Scripted::of("RowBinary", b"").with(vec!["X-ClickHouse-Exception-Code: 0".to_owned()]);
    streamed(none).await.expect(0);
}

/// Fails behind so many rows of 300,000.
fn failing(at: u32, format: &str) -> String {
    format!(
        "SELECT number, throwIf(number = {at}, 'stop here') AS t, toString(number) AS text FROM numbers(300000) \
         SETTINGS max_block_size = 1000, max_threads = 1 FORMAT {format}"
    )
}

async fn leaves_nothing_of_its_error(hop: &Hop, server: &ClickHouse, sql: &str, what: &str) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let run = hop.export(server, &["--query", sql, "--to", to.to_str().unwrap()]).run().await;
    assert_eq!(run.code, 15, "{what}: {}", run.stderr);
    assert!(run.stderr.contains("stop here"), "{what}: {}", run.stderr);
    assert!(is_unpublished(&to), "{what}");
    let run = hop.export(server, &["--query", sql, "--to", "-"]).run().await;
    assert_eq!(run.code, 15, "{what}: {}", run.stderr);
    for word in ["stop here", "__exception__", "DB::Exception"] {
        assert!(!holds(&run.stdout, word), "{what}: {word}");
    }
}

#[tokio::test]
async fn a_real_servers_error_in_a_compressed_answer_leaves_no_byte_of_it_anywhere() {
    let server = &clickhouse().await;
    let mut cases = Vec::new();
    for coding in ["gzip", "zstd"] {
        for format in ["CSV", "JSONEachRow", "RowBinary", "Native", "Parquet", "ArrowStream"] {
            // Before the first row, in the middle, and in the last 16 KiB.
            cases.extend([0, 200_000, 299_500].map(|at| (coding, format, at)));
        }
    }
    stream::iter(cases)
        .for_each_concurrent(TOGETHER, async |(coding, format, at)| {
            let hop = Hop::before(server, Meddling::Compress(coding)).await;
            let what = format!("{coding} {format} {at}");
            leaves_nothing_of_its_error(&hop, server, &failing(at, format), &what).await;
        })
        .await;
}

#[tokio::test]
async fn a_whole_answer_that_a_proxy_has_compressed_is_written_as_the_server_wrote_it() {
    let server = clickhouse().await;
    for coding in ["gzip", "zstd"] {
        let hop = Hop::before(&server, Meddling::Compress(coding)).await;
        for format in ["CSV", "JSONEachRow", "RowBinary", "Native", "Parquet"] {
            let sql = format!(
                "SELECT number, toString(number) AS text FROM numbers(100000) ORDER BY number SETTINGS max_threads = 1 FORMAT {format}"
            );
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("out");
            hop.export(&server, &["--query", &sql, "--to", to.to_str().unwrap()]).run().await.expect(0);
            let manifest = manifest(&to);
            let path = manifest["parts"][0]["path"].as_str().unwrap();
            assert!(std::fs::read(to.join(path)).unwrap() == server.bytes(&sql).await, "{coding} {format}");
            assert_eq!(manifest["completeness"]["proof"], "compressed_end", "{coding} {format}");
        }
    }
}

#[tokio::test]
async fn rows_whose_stream_fails_or_ends_early_are_in_no_file_of_ours() {
    let server = &clickhouse().await;
    let mut cases = Vec::new();
    for format in ["parquet", "csv", "ndjson"] {
        cases.extend([0, 200_000, 299_500].map(|at| (format, at)));
    }
    stream::iter(cases)
        .for_each_concurrent(TOGETHER, async |(format, at)| {
            let sql = format!(
                "SELECT number, throwIf(number = {at}, 'stop here') AS t, toString(number) AS text FROM numbers(300000) \
                 SETTINGS max_block_size = 1000, max_threads = 1"
            );
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("out");
            let arguments = ["--query", &sql, "--format", format, "--to", to.to_str().unwrap()];
            let run = server.export(&arguments).run().await;
            assert_eq!(run.code, 15, "{format} {at}: {}", run.stderr);
            assert!(run.stderr.contains("stop here") && is_unpublished(&to), "{format} {at}: {}", run.stderr);
            let run = server.export(&["--query", &sql, "--format", format, "--to", "-"]).run().await;
            assert_eq!(run.code, 15, "{format} {at}: {}", run.stderr);
            for word in ["stop here", "__exception__", "DB::Exception"] {
                assert!(!holds(&run.stdout, word), "{format} {at}: {word}");
            }
        })
        .await;
    server.run("CREATE TABLE t (id UInt32, s String) ENGINE = MergeTree ORDER BY id").await;
    server.run("INSERT INTO t SELECT number, toString(number) FROM numbers(200000)").await;
    // The marker of the end, a part of it, and whole messages before it.
    stream::iter([1, 8, 9, 5_000, 1_000_000])
        .for_each_concurrent(TOGETHER, async |missing| {
            let hop = Hop::before(server, Meddling::Shorten(missing)).await;
            let run = hop.export(server, &["--table", "t", "--format", "csv", "--to", "-"]).run().await;
            assert_eq!(run.code, 11, "{missing}: {}", run.stderr);
        })
        .await;
}
