//! What shows of a ClickHouse server's own bytes that none is missing, where something between ends an answer that it cut as if
//! it were whole.

use serde_json::Value;

use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::clickhouse_fake::{FakeClickHouse, Scripted};
use crate::support::clickhouse_hop::{Hop, Meddling};
use crate::support::manifest;
use crate::support::run::{Run, outhaul};

fn rows(format: &str) -> String {
    format!(
        "SELECT toUInt32(number) AS n, toString(number) AS s FROM numbers(200000) ORDER BY n SETTINGS max_threads = 1 FORMAT {format}"
    )
}

/// An export into a folder, its manifest where it has one, and the bytes of its part.
async fn exported(
    hop: &Hop,
    server: &ClickHouse,
    parameters: &str,
    (sql, off): (&str, &str),
) -> (Run, Option<(Value, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let run = hop.export_with(parameters, server, &["--query", sql, "--to", to.to_str().unwrap()]);
    let run = run.env("OUTHAUL_TEST_OFF", off).run().await;
    if run.code != 0 {
        assert!(!to.join("_manifest.json").exists() && !to.join("data").exists(), "{sql}");
        return (run, None);
    }
    let manifest = manifest(&to);
    let bytes = std::fs::read(to.join(manifest["parts"][0]["path"].as_str().unwrap())).unwrap();
    (run, Some((manifest, bytes)))
}

#[tokio::test]
async fn an_answer_that_was_cut_before_its_formats_end_or_within_a_row_is_no_whole_one() {
    let server = clickhouse().await;
    for (format, missing) in [
        ("Parquet", 1),
        ("Parquet", 500_000),
        ("ORC", 1),
        ("Arrow", 6),
        ("ArrowStream", 8),
        ("JSON", 1),
        ("JSONCompact", 40),
        ("JSONColumns", 3),
        ("JSONObjectEachRow", 2),
        ("XML", 11),
        ("CSV", 1),
        ("CSVWithNames", 3),
        ("TSV", 2),
        ("JSONEachRow", 5),
        ("JSONCompactEachRow", 1),
        ("Markdown", 2),
    ] {
        let hop = Hop::before(&server, Meddling::Shorten(missing)).await;
        let sql = rows(format);
        let run = hop.export(&server, &["--query", &sql, "--to", "-"]).run().await;
        assert_eq!(run.code, 11, "{format} without {missing}: {}", run.stderr);
        assert!(run.stderr.contains("it was cut on the way") && run.stderr.contains("time limits"), "{}", run.stderr);
    }
    let hop = Hop::before(&server, Meddling::Shorten(3)).await;
    let (run, _) = exported(&hop, &server, "", (&rows("CSV"), "")).await;
    assert_eq!(run.code, 11, "{}", run.stderr);
    // Without that look it is called whole, though not by its end.
    let (_, kept) = exported(&hop, &server, "", (&rows("CSV"), "format_end")).await;
    let (manifest, bytes) = kept.unwrap();
    assert_eq!(bytes.len() + 3, server.bytes(&rows("CSV")).await.len());
    assert_eq!(manifest["completeness"]["proof"], "http_end");
}

#[tokio::test]
async fn where_something_says_that_it_stands_between_the_end_must_be_the_servers_own() {
    let server = &clickhouse().await;
    let sql = &rows("RowBinary");
    let whole = server.bytes(sql).await;
    let passing = &Hop::before(server, Meddling::ShortenAndSay(0)).await;
    let (run, kept) = exported(passing, server, "", (sql, "")).await;
    let (manifest, bytes) = kept.unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(bytes == whole);
    assert_eq!(manifest["completeness"]["proof"], "compressed_end");
    assert!(manifest["consistency"]["note"].is_null());
    for missing in [1, 5, 300_000] {
        let hop = Hop::before(server, Meddling::ShortenAndSay(missing)).await;
        let run = hop.export(server, &["--query", sql, "--to", "-"]).run().await;
        assert_eq!(run.code, 11, "{missing}: {}", run.stderr);
        assert!(whole.starts_with(&run.stdout));
    }
    // Who wants no compression has the word of the server's log, which comes some seconds later.
    let cutting = &Hop::before(server, Meddling::ShortenAndSay(whole.len() / 2)).await;
    let asked = async |hop: &Hop, off| exported(hop, server, "?compression=none", (sql, off)).await;
    let ((run, kept), cut, (unseen, short)) = tokio::join!(
        asked(passing, ""),
        cutting.export_with("?compression=none", server, &["--query", sql, "--to", "-"]).run(),
        asked(cutting, "query_log")
    );
    let (manifest, bytes) = kept.unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(bytes == whole);
    assert_eq!(manifest["completeness"]["proof"], "query_log");
    assert_eq!(cut.code, 11, "{}", cut.stderr);
    assert!(cut.stderr.contains("the server's log says that it sent"), "{}", cut.stderr);
    // Without it the manifest says what the file rests on.
    let (manifest, bytes) = short.unwrap_or_else(|| panic!("{}", unseen.stderr));
    assert!(bytes.len() < whole.len());
    assert_eq!(manifest["completeness"]["proof"], "http_end");
    assert!(manifest["consistency"]["note"].as_str().unwrap().contains("by the end of HTTP alone"));
}

#[tokio::test]
async fn the_plan_says_what_will_show_that_nothing_is_missing() {
    let server = clickhouse().await;
    let hop = Hop::before(&server, Meddling::ShortenAndSay(0)).await;
    for (url, format, word, told) in [
        (server.url("writer"), "Parquet", "format_end", "the end that the format has"),
        (server.url("writer"), "CSV", "http_end", "?compression=zstd"),
        (format!("{}?compression=zstd", server.url("writer")), "CSV", "compressed_end", "what the server compresses"),
        (hop.url("", &server), "CSV", "compressed_end", "via: 1.1 hop"),
        (hop.url("?compression=none", &server), "CSV", "query_log", "the server's log of queries"),
    ] {
        let sql = format!("SELECT 1 AS a FORMAT {format}");
        for report in ["text", "json"] {
            let plan = ["plan", "--from", &url, "--query", &sql, "--report", report];
            let run = outhaul(plan).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(said.contains(if report == "text" { told } else { word }), "{url} {format}: {said}");
        }
    }
}

#[tokio::test]
async fn what_the_log_says_of_the_bytes_is_believed_as_far_as_it_goes() {
    let body = vec![7_u8; 400_000];
    let finished = |sent: usize| Some(format!("QueryFinish\t\t{sent}\n"));
    for (log, worth, code, proof) in [
        (finished(400_800), "160", 0, "query_log"),
        (Some("QueryFinish\t\t0\n".to_owned()), "160", 0, "query_log"),
        // A proxy unpacked it.
        (finished(100_000), "160", 0, "query_log"),
        // Small chunks, or some rows: nobody can tell.
        (finished(440_000), "160", 0, "http_end"),
        (finished(900_000), "160", 11, ""),
        (None, "160", 0, "http_end"),
        (
            Some("ExceptionWhileProcessing\tCode: 241. DB::Exception: Memory limit exceeded. (NAME)\t0\n".to_owned()),
            "160",
            16,
            "",
        ),
        // Nothing stands between: an answer that took long is worth the question, and one that did not is not asked for.
        (finished(900_000), "0", 11, "direct"),
        (finished(900_000), "160", 0, "direct"),
    ] {
        let server = FakeClickHouse::start("26.9.2.1", vec![Scripted::of("RowBinary", &body)]).await;
        if proof != "direct" {
            server.behind("Server: nginx");
        }
        if let Some(log) = &log {
            server.logs(log);
        }
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let limits = format!("query_log=0.01,query_log_worth={worth}");
        let query = ["--query", "SELECT n FROM t FORMAT RowBinary", "--to", to.to_str().unwrap()];
        let run = server.export_with("?compression=none", &query).env("OUTHAUL_TEST_LIMITS", limits).run().await;
        assert_eq!(run.code, code, "{log:?} {worth}: {}", run.stderr);
        if code == 0 {
            let proof = if proof == "direct" { "http_end" } else { proof };
            assert_eq!(manifest(&to)["completeness"]["proof"], proof, "{log:?}");
        }
    }
}
