//! Slow destinations, slow reading on purpose, answers that are compressed on their way, and what the server is told of queries that
//! nobody waits for.

use std::time::{Duration, Instant};

use crate::clickhouse_typed::{SUMS, Target, found, lines, sums};
use crate::support::clickhouse::clickhouse;
use crate::support::clickhouse_fake::{Ending, FakeClickHouse, Scripted};
use crate::support::manifest;
use crate::support::run::{Run, Stop};

const QUERY: [&str; 2] = ["--query", "SELECT n FROM t FORMAT RowBinary"];

fn asked(server: &FakeClickHouse) -> usize {
    server.statements().iter().filter(|(_, sql)| sql.starts_with("SELECT n")).count()
}

/// An export whose reader is away for longer than it may be, once.
async fn stalled(server: &FakeClickHouse, to: &str, off: &str) -> Run {
    let stop = Stop::at("batch");
    let command = server.export(&[&QUERY[..], &["--to", to]].concat());
    let command = command.env("OUTHAUL_TEST_LIMITS", "clickhouse_pause=1").env("OUTHAUL_TEST_OFF", off);
    let running = command.stops([&stop]).spawn();
    running.stands_at(&stop).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.release();
    running.wait().await
}

#[tokio::test]
async fn an_answer_that_nobody_read_for_long_is_given_up_and_asked_for_again() {
    // The server cut it, and a proxy made a whole answer of that.
    let rows: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
    let cut = Scripted::of("RowBinary", rows.get(..2_000_000).unwrap()).cut(60_000);
    let whole = Scripted::of("RowBinary", &rows).cut(60_000);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let server = FakeClickHouse::start("26.9.2.1", vec![cut.clone(), whole.clone()]).await;
    stalled(&server, to.to_str().unwrap(), "").await.expect(0);
    assert_eq!(asked(&server), 2);
    let path = manifest(&to)["parts"][0]["path"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read(to.join(path)).unwrap(), rows);

    let server = FakeClickHouse::start("26.9.2.1", vec![cut.clone(), whole.clone()]).await;
    let run = stalled(&server, "-", "").await.expect(11);
    assert!(run.stderr.contains("nothing was read for 1 s") && run.stderr.contains("30 s"), "{}", run.stderr);
    assert_eq!(asked(&server), 1, "bytes went out");

    // Off, a cut file is called whole.
    let to = folder.path().join("off");
    let server = FakeClickHouse::start("26.9.2.1", vec![cut, whole]).await;
    stalled(&server, to.to_str().unwrap(), "clickhouse_pause").await.expect(0);
    assert_eq!(manifest(&to)["totals"]["bytes"], 2_000_000);
}

#[tokio::test]
async fn a_slice_that_nobody_read_for_long_is_read_again() {
    let server = lines(200_000).await;
    let expected = sums(&server).await;
    let (target, stop) = (Target::new(), Stop::at("batch"));
    let arguments = ["--table", "lines", "--format", "parquet", "--readers", "2", "--partitions", "4"];
    let command = target.command(&server, &arguments).env("OUTHAUL_TEST_LIMITS", "clickhouse_pause=1");
    let running = command.stops([&stop]).spawn();
    running.stands_at(&stop).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.release();
    let run = running.wait().await.expect(0);
    assert_eq!(found(&target.dest(), SUMS).await, expected);
    assert!(run.report["partitions_retried"].as_u64().is_none_or(|retried| retried > 0), "{}", run.report);
}

#[tokio::test]
async fn a_rate_is_kept_by_all_readers_together() {
    let server = clickhouse().await;
    server.run("CREATE TABLE noise (id UInt64, v String) ENGINE = MergeTree ORDER BY id").await;
    // Two megabytes that nothing makes smaller.
    server.run("INSERT INTO noise SELECT number, randomString(400) FROM numbers(5000)").await;
    let typed =
        ["--table", "noise", "--format", "csv", "--invalid-utf8", "replace", "--readers", "2", "--partitions", "4"];
    let verbatim = ["--query", "SELECT * FROM noise FORMAT RowBinary"];
    for (arguments, off) in [(&typed[..], ""), (&verbatim, ""), (&typed, "clickhouse_pace")] {
        let target = Target::new();
        let limited = [arguments, &["--max-bytes-per-second", "600KB"]].concat();
        let began = Instant::now();
        target.command(&server, &limited).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        let seconds = began.elapsed().as_secs_f64();
        let kept = (2.5..15.0).contains(&seconds);
        assert_eq!(kept, off.is_empty(), "{arguments:?}: {seconds}");
    }
    let target = Target::new();
    let run = target.export(&server, &["--table", "noise", "--max-bytes-per-second", "100KB"]).await.expect(2);
    assert!(run.stderr.contains("128KiB is the least"), "{}", run.stderr);
}

#[tokio::test]
async fn answers_are_compressed_on_their_way_where_the_url_says_so() {
    let server = clickhouse().await;
    let sql = "SELECT number, toString(number % 10) AS v FROM numbers(300000) ORDER BY number FORMAT CSV";
    let expected = server.bytes(sql).await;
    for coding in ["zstd", "none"] {
        let url = format!("{}?compression={coding}", server.url("writer"));
        let export = async |sql: &str| {
            let arguments = ["export", "--from", &url, "--query", sql, "--to", "-"];
            crate::support::run::outhaul(arguments).env("CLICKHOUSE_PASSWORD", &server.password).run().await
        };
        let run = export(sql).await.expect(0);
        assert!(run.stdout == expected, "{coding}: {} bytes, and not {}", run.stdout.len(), expected.len());
        // An error in the middle stands within what is compressed.
        for at in [0, 200_000, 2_900_000] {
            let failing = format!(
                "SELECT number, throwIf(number = {at}, 'stop here') FROM system.numbers LIMIT 3000000 \
                 SETTINGS max_block_size = 1000, max_threads = 1 FORMAT CSV"
            );
            let run = export(&failing).await.expect(15);
            assert!(run.stderr.contains("stop here"), "{coding} {at}: {}", run.stderr);
            for word in [&b"stop here"[..], b"__exception__"] {
                assert!(!run.stdout.windows(word.len()).any(|window| window == word), "{coding} {at}");
            }
        }
    }
    let fake = FakeClickHouse::start("26.9.2.1", vec![Scripted::of("RowBinary", b"abc")]).await;
    fake.export_with("?compression=zstd", &[&QUERY[..], &["--to", "-"]].concat()).run().await.expect(0);
    let (path, _) = fake.statements().into_iter().find(|(_, sql)| sql.starts_with("SELECT n")).unwrap();
    assert!(path.contains("enable_http_compression=1"), "{path}");
    let run = fake.export_with("?compression=gzip", &[&QUERY[..], &["--to", "-"]].concat()).run().await.expect(2);
    assert!(run.stderr.contains("zstd or none"), "{}", run.stderr);
}

#[tokio::test]
async fn a_lost_answer_is_killed_at_the_server_and_asked_for_three_times_in_all() {
    let rows = vec![7_u8; 150_000];
    let lost = Scripted::of("RowBinary", &rows).ends(Ending::Broken);
    for (off, kills, most) in [("", true, true), ("kill_query", false, true), ("asked_thrice", true, false)] {
        let server = FakeClickHouse::start("26.9.2.1", vec![lost.clone()]).await;
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let command = server.export(&[&QUERY[..], &["--to", to.to_str().unwrap()]].concat());
        command.env("OUTHAUL_TEST_OFF", off).run().await.expect(11);
        assert_eq!(!server.killed().is_empty(), kills, "{off}");
        assert_eq!(asked(&server) == 3, most, "{off}: {}", asked(&server));
    }
}

#[tokio::test]
async fn a_server_with_too_many_queries_is_read_by_fewer_readers() {
    let server = lines(40_000).await;
    let target = Target::new();
    let dest = target.dest();
    let own = ["--to", dest.to_str().unwrap(), "--report", "json", "--progress", "none"];
    let arguments = ["--table", "lines", "--format", "parquet", "--readers", "4", "--partitions", "8"];
    // Its user may run one query at a time.
    let run = server.export_as("narrow", &[&own[..], &arguments].concat()).run().await.expect(0);
    assert_eq!(found(&dest, SUMS).await, sums(&server).await, "{}", run.stderr);
}
