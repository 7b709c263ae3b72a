//! A ClickHouse server's own bytes, against a real server: one statement, one object, no byte changed, in any of its formats.

use std::path::Path;
use std::time::Duration;

use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::run::outhaul;
use crate::support::{eventually, manifest, variable};

/// Those whose files have an end of their own.
const ENDED: [&str; 6] = ["JSONObjectEachRow", "Parquet", "ORC", "Arrow", "ArrowStream", "XML"];

/// One of each family, and its extension.
const FORMATS: [(&str, &str); 18] = [
    ("CSV", "csv"),
    ("CSVWithNames", "csv"),
    ("TSV", "tsv"),
    ("TabSeparatedWithNamesAndTypes", "tsv"),
    ("TSKV", "tskv"),
    ("JSONEachRow", "jsonl"),
    ("JSONCompactEachRowWithNames", "jsonl"),
    ("JSONObjectEachRow", "json"),
    ("Parquet", "parquet"),
    ("ORC", "orc"),
    ("Arrow", "arrow"),
    ("ArrowStream", "arrows"),
    ("Native", "native"),
    ("RowBinary", "rowbinary"),
    ("MsgPack", "msgpack"),
    ("XML", "xml"),
    ("Markdown", "md"),
    ("Values", "txt"),
];

fn part(folder: &Path) -> (String, Vec<u8>) {
    let manifest = manifest(folder);
    let path = manifest["parts"][0]["path"].as_str().unwrap().to_owned();
    let bytes = std::fs::read(folder.join(&path)).unwrap();
    (path, bytes)
}

/// Rows with values that are quoted, escaped and long, in one order.
fn rows(count: u32, format: &str) -> String {
    format!(
        "SELECT number AS n, if(number % 7 = 0, NULL, concat('v\"\\t,\\n', toString(number))) AS v, number / 3 AS f \
         FROM numbers({count}) ORDER BY n SETTINGS max_threads = 1, output_format_write_statistics = 0 FORMAT {format}"
    )
}

#[tokio::test]
async fn every_format_is_written_as_the_server_writes_it() {
    let server = clickhouse().await;
    let folder = tempfile::tempdir().unwrap();
    for (format, extension) in FORMATS {
        let sql = rows(5000, format);
        let expected = server.bytes(&sql).await;
        let to = folder.path().join(format);
        server.export(&["--query", &sql, "--to", to.to_str().unwrap()]).run().await.expect(0);
        let (path, bytes) = part(&to);
        assert_eq!(Path::new(&path).extension().unwrap(), extension, "{format}");
        assert!(bytes == expected, "{format}: {} bytes, and not {}", bytes.len(), expected.len());
        let manifest = manifest(&to);
        let (proof, note) = (&manifest["completeness"]["proof"], manifest["consistency"]["note"].as_str());
        let ended = ENDED.contains(&format);
        assert_eq!(proof, if ended { "format_end" } else { "http_end" }, "{format}");
        assert_eq!(note.is_some_and(|note| note.contains("by the end of HTTP alone")), !ended, "{format}: {note:?}");
        assert_eq!((&manifest["version"], &manifest["source"]["kind"]), (&2.into(), &"clickhouse".into()), "{format}");
        outhaul(["verify", to.to_str().unwrap(), "--read-data"]).run().await.expect(0);
        let streamed = server.export(&["--query", &sql, "--to", "-"]).run().await.expect(0);
        assert!(streamed.stdout == expected, "{format}");
    }
}

#[tokio::test]
async fn a_statement_without_a_format_has_tabs_and_names_where_the_server_is_to_write_it() {
    let server = clickhouse().await;
    let folder = tempfile::tempdir().unwrap();
    server.run("CREATE TABLE t (a UInt8, b String) ENGINE = MergeTree ORDER BY a").await;
    server.run("INSERT INTO t VALUES (1, 'x'), (2, 'y')").await;
    for (what, arguments) in [
        ("query", ["--query", "SELECT * FROM t ORDER BY a; -- all", "--format", "source"]),
        ("table", ["--table", "t", "--format", "source"]),
    ] {
        let to = folder.path().join(what);
        server.export(&[&arguments[..], &["--to", to.to_str().unwrap()]].concat()).run().await.expect(0);
        let (path, bytes) = part(&to);
        assert_eq!(path.rsplit_once('.').unwrap().1, "tsv", "{path}");
        assert_eq!(String::from_utf8(bytes).unwrap(), "a\tb\n1\tx\n2\ty\n");
    }
    // Into one file, by its name; nothing at all is a file too.
    let file = folder.path().join("none.csv");
    let query = "SELECT * FROM t WHERE a > 7 FORMAT CSV";
    server.export(&["--query", query, "--to", file.to_str().unwrap()]).run().await.expect(0);
    assert_eq!(std::fs::read(&file).unwrap(), b"");
}

#[tokio::test]
async fn what_contradicts_a_format_or_needs_rows_is_refused_before_anything_is_sent() {
    let server = clickhouse().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let to = to.to_str().unwrap();
    let csv = "SELECT 1 AS a FORMAT CSV";
    let named = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (tsv, packed) = (named("out.tsv"), named("out.csv.gz"));
    let cases: [(&[&str], &str); 15] = [
        (&["--query", csv, "--format", "parquet", "--to", to], "--format parquet says otherwise"),
        (&["--query", csv, "--to", &tsv], "ends in .tsv"),
        (&["--query", csv, "--to", &packed], "ends in .gz"),
        (&["--query", csv, "--compression", "zstd", "--to", to], "as it comes"),
        (&["--query", csv, "--max-rows", "5", "--to", to], "--max-rows"),
        (&["--query", csv, "--tier", "free", "--to", to], "--tier"),
        (&["--query", csv, "--where", "a = 1", "--to", to], "--where"),
        (&["--query", csv, "--columns", "a", "--to", to], "--columns"),
        (&["--query", csv, "--key", "a", "--to", to], "--key"),
        (&["--query", "SELECT 1 FORMAT Null", "--to", to], "makes no file"),
        (&["--query", "SELECT 1; SELECT 2 FORMAT CSV", "--to", to], "more than one statement"),
        (&["--query", "SELECT 1 INTO OUTFILE 'x' FORMAT CSV", "--to", to], "INTO OUTFILE"),
        (
            &["--query", "SELECT 1 FORMAT CSV SETTINGS result_overflow_mode = 'break'", "--to", to],
            "result_overflow_mode",
        ),
        (&["--query", "SELECT 1", "--format", "source", "--csv-bom", "--to", to], "--csv-bom"),
        (&["--query", "SELECT 1 FORMAT CSV FORMAT TSV", "--to", to], "two FORMATs"),
    ];
    for (arguments, told) in cases {
        let run = server.export(arguments).run().await.expect(2);
        assert!(run.stderr.contains(told), "{arguments:?}: {}", run.stderr);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "{arguments:?}");
    }
    // PostgreSQL has no format of its own, and says so.
    let run = outhaul(["plan", "--from", "clickhouse://nobody@127.0.0.1:1/x", "--query", csv]).run().await;
    assert_eq!(run.code, 11, "{}", run.stderr);
}

/// Fails behind so many rows.
fn failing(at: u32, format: &str) -> String {
    format!(
        "SELECT number, throwIf(number = {at}, 'stop here') AS t FROM system.numbers LIMIT 3000000 \
         SETTINGS max_block_size = 1000, max_threads = 1 FORMAT {format}"
    )
}

#[tokio::test]
async fn a_statement_that_fails_under_way_leaves_no_byte_of_its_error_anywhere() {
    let server = clickhouse().await;
    let folder = tempfile::tempdir().unwrap();
    for format in ["CSV", "JSONEachRow", "JSON", "RowBinary", "Native", "Parquet", "XML", "ArrowStream"] {
        // Before the head, soon behind it, and after megabytes.
        for at in [0, 30_000, 2_500_000] {
            let sql = failing(at, format);
            let to = folder.path().join(format!("{format}-{at}"));
            let run = server.export(&["--query", &sql, "--to", to.to_str().unwrap()]).run().await;
            assert_eq!(run.code, 15, "{format} {at}: {}", run.stderr);
            assert!(run.stderr.contains("stop here"), "{format} {at}: {}", run.stderr);
            assert!(!to.join("_manifest.json").exists() && !to.join("data").exists(), "{format} {at}");
            let streamed = server.export(&["--query", &sql, "--to", "-"]).run().await.expect(15);
            for word in [&b"stop here"[..], b"__exception__", b"DB::Exception"] {
                assert!(!streamed.stdout.windows(word.len()).any(|window| window == word), "{format} {at}");
            }
        }
    }
    let run = server.export(&["--query", "SELECT FROM WHERE FORMAT CSV", "--to", "-"]).run().await.expect(15);
    assert!(run.stdout.is_empty() && run.stderr.contains("yntax"), "{}", run.stderr);
    server.export(&["--query", "SELECT * FROM nothing_of_it FORMAT CSV", "--to", "-"]).run().await.expect(13);
}

#[tokio::test]
async fn users_whose_profiles_cut_answers_or_forbid_settings_get_whole_answers_or_an_error() {
    let server = clickhouse().await;
    let sql = "SELECT number FROM numbers(100000) FORMAT CSV";
    let export = async |user: &str| server.export_as(user, &["--query", sql, "--to", "-"]).run().await;
    // Its profile ends results after 1,000 rows as if they were whole.
    let run = export("breaker").await;
    assert_eq!(run.code, 16, "{}", run.stderr);
    let run = export("fixed").await.expect(0);
    assert_eq!(run.stdout.split(|byte| *byte == b'\n').count(), 100_001);
    let wrong =
        server.export(&["--query", sql, "--to", "-"]).env("CLICKHOUSE_PASSWORD", "wrong").run().await.expect(10);
    assert!(wrong.stdout.is_empty() && !wrong.stderr.contains("wrong\""), "{}", wrong.stderr);
    let writing = server
        .export(&["--query", "CREATE TABLE x (a UInt8) ENGINE = Memory", "--format", "source", "--to", "-"])
        .run()
        .await;
    assert_eq!(writing.code, 10, "{}", writing.stderr);
}

#[tokio::test]
async fn a_server_of_2018_whose_errors_look_like_rows_is_believed_only_as_far_as_its_last_bytes() {
    let address = variable("OUTHAUL_TEST_CLICKHOUSE_OLD").trim_start_matches("http://").to_owned();
    let url = format!("clickhouse://default@{address}/default");
    let folder = tempfile::tempdir().unwrap();
    let export =
        async |sql: &str, to: &str| outhaul(["export", "--from", &url, "--query", sql, "--to", to]).run().await;
    for format in ["CSV", "TSV", "JSON", "RowBinary", "Native", "Values"] {
        for at in [0, 200_000, 900_000] {
            let sql =
                format!("SELECT number, throwIf(number = {at}) FROM system.numbers LIMIT 1000000 FORMAT {format}");
            let to = folder.path().join(format!("{format}-{at}"));
            let run = export(&sql, to.to_str().unwrap()).await;
            assert_eq!(run.code, 15, "{format} {at}: {}", run.stderr);
            assert!(run.stderr.contains("throwIf"), "{format} {at}: {}", run.stderr);
            assert!(!to.join("_manifest.json").exists() && !to.join("data").exists(), "{format} {at}");
            let streamed = export(&sql, "-").await.expect(15);
            for word in [&b"throwIf' function"[..], b"DB::Exception"] {
                assert!(!streamed.stdout.windows(word.len()).any(|window| window == word), "{format} {at}");
            }
        }
    }
    let to = folder.path().join("whole");
    export("SELECT number FROM system.numbers LIMIT 300000 FORMAT TSV", to.to_str().unwrap()).await.expect(0);
    let (path, bytes) = part(&to);
    let mut expected = String::new();
    for number in 0..300_000 {
        expected.extend([number.to_string().as_str(), "\n"]);
    }
    assert_eq!(path.rsplit_once('.').unwrap().1, "tsv", "{path}");
    assert!(bytes == expected.as_bytes());
    assert_eq!(manifest(&to)["completeness"]["proof"], "heuristic");
    // What ends by itself needs nobody's word.
    for format in ["JSON", "XML"] {
        let to = folder.path().join(format!("whole-{format}"));
        let sql = format!("SELECT number FROM system.numbers LIMIT 300000 FORMAT {format}");
        export(&sql, to.to_str().unwrap()).await.expect(0);
        assert_eq!(manifest(&to)["completeness"]["proof"], "format_end", "{format}");
    }
    let typed = outhaul(["export", "--from", &url, "--table", "system.one", "--to", "-"]).run().await.expect(2);
    assert!(typed.stderr.contains("23.8"), "{}", typed.stderr);
}

/// Queries of ours that run on the server now, by the word in them.
async fn running(server: &ClickHouse, word: &str) -> usize {
    let sql =
        format!("SELECT count() FROM system.processes WHERE query LIKE '%{word}%' AND query NOT LIKE '%processes%'");
    server.run(&sql).await.trim().parse().unwrap()
}

#[tokio::test]
async fn a_cancelled_run_leaves_no_query_running() {
    let server = clickhouse().await;
    let word = format!("w{}", server.database);
    for (at, what) in [("1000000000", "while it computes"), ("0", "while it sends")] {
        let sql = format!(
            "SELECT sum(sleepEachRow(1)) AS {word} FROM numbers(100) WHERE number >= 0 AND {at} > 0 \
             SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT CSV"
        );
        let sending = format!(
            "SELECT number AS {word}, sleepEachRow(0.001) FROM system.numbers \
             SETTINGS max_block_size = 100, max_threads = 1 FORMAT CSV"
        );
        let sql = if at == "0" { sending } else { sql };
        let run = server.export(&["--query", &sql, "--to", "-"]).spawn();
        let limit = Duration::from_secs(20);
        eventually(limit, "the query's beginning", async || (running(&server, &word).await > 0).then_some(())).await;
        run.signal("INT").await;
        run.wait().await.expect(130);
        eventually(limit, what, async || (running(&server, &word).await == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn a_statement_ends_when_the_time_of_the_run_is_over() {
    let server = clickhouse().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    // One whose rows come, and one that computes for long before its first row.
    let word = format!("w{}", server.database);
    let slow = format!("sleepEachRow(0.01) AS {word} FROM numbers(6000)");
    for sql in [format!("SELECT number, {slow}"), format!("SELECT sum({word}) FROM (SELECT {slow})")] {
        let sql = format!("{sql} SETTINGS max_block_size = 10, max_threads = 1 FORMAT CSV");
        for to in [to.to_str().unwrap(), "-"] {
            let begun = std::time::Instant::now();
            let run = server.export(&["--query", &sql, "--to", to, "--max-duration", "2s"]).run().await.expect(16);
            assert!(run.stderr.contains("--max-duration"), "{}", run.stderr);
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
            assert!(!folder.path().join("out/_manifest.json").exists());
            let killed = async || (running(&server, &word).await == 0).then_some(());
            eventually(Duration::from_secs(10), "the statement is killed", killed).await;
        }
    }
}
