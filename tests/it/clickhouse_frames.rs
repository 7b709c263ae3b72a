//! Errors in the middle of a ClickHouse server's answer: of every age of servers, in every place of an answer, none of their
//! bytes is in a file, and no file that was cut is called whole. Against a scripted server.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::clickhouse_fake::{Ending, FakeClickHouse, Scripted, TAG, frame};
use crate::support::manifest;
use crate::support::run::{Run, Stop};

const MESSAGE: &str =
    "Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero. (FUNCTION_THROW_IF) (version 26.9.2.1)";

/// Everything that an export left in a folder, and below it.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// The one part of an export.
fn part(folder: &Path) -> Vec<u8> {
    let manifest = manifest(folder);
    let path = manifest["parts"][0]["path"].as_str().unwrap();
    std::fs::read(folder.join(path)).unwrap()
}

/// Exports from a server that answers so, into a folder and onto standard output.
async fn both(version: &str, answers: &[Scripted]) -> (Run, TempDir, Run) {
    let query = ["--query", "SELECT n FROM t FORMAT RowBinary", "--run-id", "frames"];
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let server = FakeClickHouse::start(version, answers.to_vec()).await;
    let run = server.export(&[&query[..], &["--to", to.to_str().unwrap()]].concat()).run().await;
    let server = FakeClickHouse::start(version, answers.to_vec()).await;
    let streamed = server.export(&[&query[..], &["--to", "-"]].concat()).run().await;
    (run, folder, streamed)
}

/// Neither a manifest nor a byte of the answer is there, and nothing of an error went onto standard output.
fn nothing_of_it(run: &Run, folder: &Path, streamed: &Run, rows: &[u8], what: &str) {
    let left = files(folder);
    let data = left.iter().filter(|(path, _)| path.contains("/data/") || path.ends_with("_manifest.json"));
    assert_eq!(data.count(), 0, "{what}: {left:?}\n{}", run.stderr);
    assert!(rows.starts_with(&streamed.stdout), "{what}: {:?}", String::from_utf8_lossy(&streamed.stdout));
}

#[tokio::test]
async fn a_frame_cut_at_each_byte_is_never_in_a_file_and_never_a_whole_answer() {
    let rows: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
    let frame = frame(MESSAGE);
    // Each byte of the opening and of the closing, and some of the message.
    let cuts = (0..=45).chain([frame.len() / 2]).chain(frame.len() - 40..=frame.len());
    for cut in cuts {
        let body = [rows.as_slice(), frame.get(..cut).unwrap()].concat();
        let answer = Scripted::of("RowBinary", &body).cut(7919).ends(Ending::Broken);
        let server = FakeClickHouse::start("26.9.2.1", vec![answer]).await;
        let query = ["--query", "SELECT n FROM t FORMAT RowBinary", "--to", "-"];
        let streamed = server.export(&query).run().await;
        let told = cut >= 35;
        assert_eq!(streamed.code, if told { 15 } else { 11 }, "{cut}: {}", streamed.stderr);
        assert!(rows.starts_with(&streamed.stdout), "{cut}");
        // What was certainly rows went out, and little was kept back.
        assert!(streamed.stdout.len() + 64 * 1024 > rows.len(), "{cut}");
    }
}

#[tokio::test]
async fn errors_of_every_age_commit_nothing_and_are_told_by_their_code() {
    let old = |end: &str| format!("Code: 395{end}").into_bytes();
    let by_age = [
        ("26.9.2.1", true, frame(MESSAGE), Ending::Broken),
        // Somebody on the way made a whole answer of it, or took the tag out.
        ("26.9.2.1", true, frame(MESSAGE), Ending::Clean),
        ("26.9.2.1", false, frame(MESSAGE), Ending::Clean),
        ("25.1.3.4", false, [b"__exception__\r\n", MESSAGE.as_bytes(), b"\n"].concat(), Ending::Broken),
        ("25.8.3.4", false, [MESSAGE.as_bytes(), b"\n"].concat(), Ending::Broken),
        ("23.8.1.2", false, [MESSAGE.as_bytes(), b"\n"].concat(), Ending::Clean),
        (
            "20.3.5.2",
            false,
            old(", e.displayText() = DB::Exception: no (version 20.3.5.2 (official build))\n"),
            Ending::Clean,
        ),
        ("18.16.1", false, old(", e.displayText() = DB::Exception: no, e.what() = DB::Exception\n"), Ending::Clean),
    ];
    for (version, tagged, error, ending) in by_age {
        for rows in [Vec::new(), vec![0xfe; 100], vec![b'x'; 200_000]] {
            let body = [rows.as_slice(), &error].concat();
            let answer = if tagged { Scripted::of("RowBinary", &body) } else { Scripted::bare(&body) };
            let what = format!("{version} {ending:?} {}", rows.len());
            let (run, folder, streamed) = both(version, &[answer.cut(8191).ends(ending)]).await;
            assert_eq!((run.code, streamed.code), (15, 15), "{what}: {}", run.stderr);
            assert!(run.stderr.contains("throwIf") || run.stderr.contains("no"), "{what}: {}", run.stderr);
            nothing_of_it(&run, folder.path(), &streamed, &rows, &what);
        }
    }
}

#[tokio::test]
async fn a_status_may_come_with_megabytes_of_rows_and_only_the_error_is_told() {
    let rows = b"Code: 60. DB::Exception: a row\n".repeat(100_000);
    let body = [rows.as_slice(), MESSAGE.as_bytes(), b"\n"].concat();
    let answer = Scripted::bare(&body)
        .cut(60_000)
        .status("500 Internal Server Error")
        .with(vec!["X-ClickHouse-Exception-Code: 395".to_owned()]);
    let (run, folder, streamed) = both("26.9.2.1", &[answer]).await;
    assert_eq!((run.code, streamed.code), (15, 15), "{}", run.stderr);
    assert!(run.stderr.contains("throwIf") && run.stderr.len() < 4000, "{}", run.stderr);
    assert!(streamed.stdout.is_empty());
    nothing_of_it(&run, folder.path(), &streamed, b"", "500");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_twice_more_and_not_once_more_where_bytes_went_out() {
    let rows: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let lost = Scripted::of("RowBinary", rows.get(..150_000).unwrap()).ends(Ending::Broken);
    let whole = Scripted::of("RowBinary", &rows);
    let query = ["--query", "SELECT n FROM t FORMAT RowBinary"];
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let arguments = [&query[..], &["--to", to.to_str().unwrap()]].concat();

    let server = FakeClickHouse::start("26.9.2.1", vec![lost.clone(), lost.clone(), whole.clone()]).await;
    server.export(&arguments).run().await.expect(0);
    assert_eq!(part(&to), rows);
    assert_eq!(manifest(&to)["completeness"]["proof"], "http_end");
    // Whoever lost the answer has the query killed, by its own id and no other.
    let killed = server.killed();
    assert!(killed.len() == 2 && killed.iter().all(|id| id.starts_with("outhaul-")), "{killed:?}");
    assert_ne!(killed.first(), killed.last());

    let server = FakeClickHouse::start("26.9.2.1", vec![lost.clone()]).await;
    let again = tempfile::tempdir().unwrap();
    let arguments = [&query[..], &["--to", again.path().to_str().unwrap()]].concat();
    server.export(&arguments).run().await.expect(11);
    let asked = server.statements().iter().filter(|(_, sql)| sql.starts_with("SELECT n")).count();
    assert_eq!(asked, 3);

    let server = FakeClickHouse::start("26.9.2.1", vec![lost, whole]).await;
    let streamed = server.export(&[&query[..], &["--to", "-"]].concat()).run().await.expect(11);
    assert!(rows.starts_with(&streamed.stdout) && streamed.stdout.len() < rows.len());
    let asked = server.statements().iter().filter(|(_, sql)| sql.starts_with("SELECT n")).count();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn what_came_before_a_failure_is_kept_where_somebody_asks_for_it() {
    let rows: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let folder = tempfile::tempdir().unwrap();
    let (kept, to) = (folder.path().join("kept"), folder.path().join("out"));
    let query = ["--query", "SELECT n FROM t FORMAT RowBinary", "--keep-partial", kept.to_str().unwrap()];
    let failing = [rows.as_slice(), &frame(MESSAGE)].concat();
    let answer = Scripted::of("RowBinary", &failing).cut(60_000).ends(Ending::Broken);
    for to in [to.to_str().unwrap(), "-"] {
        let server = FakeClickHouse::start("26.9.2.1", vec![answer.clone()]).await;
        let run = server.export(&[&query[..], &["--to", to]].concat()).run().await.expect(15);
        assert!(run.stderr.contains("800000 bytes that came before, which are incomplete"), "{}", run.stderr);
        assert_eq!(std::fs::read(&kept).unwrap(), rows);
        // It is not overwritten by the next.
        let server = FakeClickHouse::start("26.9.2.1", vec![answer.clone()]).await;
        server.export(&[&query[..], &["--to", to]].concat()).run().await.expect(2);
        std::fs::remove_file(&kept).unwrap();
    }
    let server = FakeClickHouse::start("26.9.2.1", vec![Scripted::of("RowBinary", &rows)]).await;
    server.export(&[&query[..], &["--to", to.to_str().unwrap()]].concat()).run().await.expect(0);
    assert!(!kept.exists() && part(&to) == rows);
    let typed = ["--query", "SELECT 1", "--keep-partial", kept.to_str().unwrap(), "--to", "-"];
    server.export(&typed).run().await.expect(2);
}

#[tokio::test]
async fn a_server_that_cut_its_answer_for_a_slow_destination_is_told_so() {
    let rows = vec![7_u8; 2_000_000];
    let server =
        FakeClickHouse::start("26.9.2.1", vec![Scripted::of("RowBinary", &rows).cut(60_000).ends(Ending::Broken)])
            .await;
    let (folder, stop) = (tempfile::tempdir().unwrap(), Stop::at("batch"));
    let to = folder.path().join("out");
    let query = ["--query", "SELECT n FROM t FORMAT RowBinary", "--to", to.to_str().unwrap()];
    let run = server.export(&query).env("OUTHAUL_TEST_LIMITS", "clickhouse_pause=1").stops([&stop]).spawn();
    run.stands_at(&stop).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.release();
    let run = run.wait().await.expect(11);
    assert_eq!(server.statements().iter().filter(|(_, sql)| sql.starts_with("SELECT n")).count(), 3);
    assert!(!to.join("_manifest.json").exists() && !to.join("data").exists());
    // Only the first time nobody read for so long.
    assert!(run.stderr.contains("nothing was read for 1 s") || run.stderr.contains("broke off"), "{}", run.stderr);
    let streaming = server.export(&["--query", "SELECT n FROM t FORMAT RowBinary", "--to", "-"]);
    let stop = Stop::at("batch");
    let run = streaming.env("OUTHAUL_TEST_LIMITS", "clickhouse_pause=1").stops([&stop]).spawn();
    run.stands_at(&stop).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.release();
    let run = run.wait().await.expect(11);
    assert!(run.stderr.contains("nothing was read for 1 s") && run.stderr.contains("30 s"), "{}", run.stderr);
}

#[tokio::test]
async fn without_a_tag_the_end_is_a_guess_and_the_manifest_says_so() {
    let rows = format!("1\t{MESSAGE}\n2\tfine\n").into_bytes();
    let (run, folder, streamed) = both("23.8.1.2", &[Scripted::bare(&rows)]).await;
    assert_eq!((run.code, streamed.code), (0, 0), "{}", run.stderr);
    assert_eq!(streamed.stdout, rows);
    let to = folder.path().join("out");
    assert_eq!(part(&to), rows);
    let manifest = manifest(&to);
    assert_eq!((&manifest["completeness"]["proof"], &manifest["version"]), (&"heuristic".into(), &2.into()));
    assert!(manifest["totals"].get("rows").is_none());
    assert!(manifest["consistency"]["note"].as_str().unwrap().contains("last bytes"));
}

#[tokio::test]
async fn what_stands_before_a_server_is_told_of() {
    let answers = [
        (Scripted::bare(b"<html>Bad Gateway</html>").status("502 Bad Gateway"), 11),
        (Scripted::bare(b"limits for user \"me\" are exceeded").status("429 Too Many Requests"), 16),
        (Scripted::bare(b"forbidden").status("403 Forbidden"), 10),
        (Scripted::bare(b"moved").status("301 Moved Permanently"), 2),
        // Its end cannot be told from a lost connection.
        (Scripted::of("RowBinary", b"abc").ends(Ending::Closed), 1),
        (
            Scripted::bare(b"[ Id: 1 ] concurrent query failed: Code: 202. DB::Exception: Too many (version 26.9.2.1)")
                .status("500 Internal Server Error"),
            16,
        ),
    ];
    for (answer, code) in answers {
        let server = FakeClickHouse::start("26.9.2.1", vec![answer.clone()]).await;
        let run = server.export(&["--query", "SELECT n FROM t FORMAT RowBinary", "--to", "-"]).run().await;
        assert_eq!(run.code, code, "{answer:?}: {}", run.stderr);
        assert!(run.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_profile_that_makes_answers_short_is_overridden_or_refused() {
    let breaking = vec![("readonly", "0"), ("result_overflow_mode", "break"), ("limit", "10")];
    let query = ["--query", "SELECT n FROM t FORMAT CSV", "--to", "-"];
    let server = FakeClickHouse::with("26.9.2.1", breaking, vec![Scripted::of("CSV", b"1\n")]).await;
    server.export(&query).run().await.expect(0);
    let (path, _) = server.statements().into_iter().find(|(_, sql)| sql.starts_with("SELECT n")).unwrap();
    for sent in ["result_overflow_mode=throw", "limit=0", "readonly=2", "default_format=TabSeparatedWithNames"] {
        assert!(path.contains(sent), "{path}");
    }
    assert!(!path.contains(TAG));
    let fixed = vec![("readonly", "1"), ("result_overflow_mode", "break")];
    let server = FakeClickHouse::with("26.9.2.1", fixed, vec![Scripted::of("CSV", b"1\n")]).await;
    let run = server.export(&query).run().await.expect(10);
    assert!(run.stderr.contains("result_overflow_mode = break") && run.stdout.is_empty(), "{}", run.stderr);
}
