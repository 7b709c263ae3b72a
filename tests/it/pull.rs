//! `outhaul pull` against a service that cuts, lies, is silent and speaks HTTP/1.0, and against what stands before one.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, Mode};
use serde_json::{Value, json};

use crate::support::fake_service::{FakeService, KEY, ROWS, crc, rows};
use crate::support::run::{Outhaul, outhaul, program};

fn pull(service: &FakeService, dataset: &str, output: &str, more: &[&str]) -> Outhaul {
    let fixed = ["pull", &service.url, "--dataset", dataset, "--columns", "id,note", "-o", output];
    outhaul(fixed.iter().chain(more)).env("OUTHAUL_API_KEY", KEY).env("OUTHAUL_TEST_LIMITS", "receipt=1")
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_whole_stream_becomes_the_file_whatever_stands_before_the_service() {
    let service = FakeService::start().await;
    for dataset in ["complete", "whole-http10", "buffered", "stripped", "no-receipt"] {
        for format in ["ndjson", "csv"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rows");
            let run =
                pull(&service, dataset, path.to_str().unwrap(), &["--format", format, "--json"]).run().await.expect(0);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), rows(format), "{dataset} {format}");
            assert_eq!(names(folder.path()), ["rows"], "{dataset} {format}");
            let report = &run.report;
            let proof = match (dataset, format) {
                ("no-receipt", "csv") => "trailers",
                ("no-receipt", _) => "end record",
                _ => "receipt",
            };
            let facts = ["status", "rows", "bytes", "crc64nvme", "proof", "max_rows", "exit_code", "command"];
            let facts = facts.map(|name| report[name].clone());
            let all = rows(format);
            let expected = json!(["complete", ROWS, all.len(), crc(all.as_bytes()), proof, null, 0, "pull"]);
            assert_eq!(json!(facts), expected, "{dataset} {format}");
            assert_eq!(run.stderr.contains("there is no receipt"), dataset == "no-receipt", "{}", run.stderr);
        }
    }
    let asked = &service.requests()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/v1/query/complete/export"));
    assert_eq!((asked.header("te"), asked.header("accept-encoding")), (Some("trailers"), Some("identity")));
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(body, json!({"format": "ndjson", "columns": ["id", "note"], "end_record": true}));
}

#[tokio::test]
async fn beside_rows_on_standard_output_the_report_stands_on_standard_error() {
    let service = FakeService::start().await;
    let asked = ["pull", &service.url, "--dataset", "complete"];
    let json = ["--json"];
    let with = |more: &[&str]| outhaul(asked.iter().chain(more)).env("OUTHAUL_API_KEY", KEY);
    for output in [&["--output", "-"][..], &["--output=-"], &["-o", "-"], &["-o-"], &["-vo", "-"], &["-qo-"]] {
        for (more, variable) in [(&json[..], "text"), (&[], "json")] {
            let pulled = with(&[output, more].concat()).env("OUTHAUL_REPORT", variable).run().await.expect(0);
            assert!(pulled.stdout == rows("ndjson").into_bytes(), "{output:?}: {}", pulled.stderr);
            let report: Value = serde_json::from_str(pulled.stderr.lines().last().unwrap()).unwrap();
            assert_eq!((&report["status"], &report["rows"]), (&json!("complete"), &json!(ROWS)), "{output:?}");
        }
        // However early it fails.
        for wrong in [["--env-file", "nowhere"], ["--filter", "nothing"], ["--api-key-file", "nowhere"]] {
            let failed = with(&[output, &json, &wrong].concat()).run().await.expect(2);
            assert_eq!(failed.stdout, b"", "{output:?} {wrong:?}");
            let report: Value = serde_json::from_str(failed.stderr.lines().last().unwrap()).unwrap();
            assert_eq!(report["status"], "failed", "{output:?} {wrong:?}");
        }
    }
}

#[tokio::test]
async fn a_truncated_stream_is_a_file_and_exit_3() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let name = path.to_str().unwrap();
    let run = pull(&service, "truncated", name, &["--json"]).run().await.expect(3);
    assert_eq!((&run.report["status"], &run.report["max_rows"]), (&json!("truncated"), &json!(ROWS)));
    assert!(run.stderr.contains("the cap of this key will cut rows off"), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), rows("csv"));
    let run = pull(&service, "truncated", name, &["--on-existing", "replace", "-q"]).run().await.expect(3);
    assert!(run.stderr.contains("TRUNCATED") && run.stderr.contains("2,000"), "{}", run.stderr);
    pull(&service, "truncated", name, &["--on-existing", "replace", "--allow-truncated"]).run().await.expect(0);
}

#[tokio::test]
async fn a_stream_that_is_cut_or_lied_about_never_looks_whole() {
    let service = FakeService::start().await;
    let table = [
        ("cut", 11, "the database was lost"),
        ("cut-close", 11, "the database was lost"),
        ("cut-reset", 11, "the database was lost"),
        ("cut-http10", 11, "the database was lost"),
        ("failed-clean", 11, "the database was lost"),
        ("half-row", 11, "the stream is cut"),
        ("lying-rows", 30, "the receipt counts 2,001 rows, and 2000 came"),
        ("lying-crc", 30, "the receipt has another checksum"),
        ("no-proof", 11, "nothing proves that the rows are all"),
        ("stall", 11, "the service sent nothing for 1 s"),
    ];
    for (dataset, code, said) in table {
        for format in ["ndjson", "csv"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rows");
            let pulled = pull(&service, dataset, path.to_str().unwrap(), &["--format", format, "--json"]);
            let run = pulled.env("OUTHAUL_TEST_LIMITS", "receipt=0.3,pull_silence=1").run().await.expect(code);
            assert!(run.stderr.contains(said), "{dataset} {format}: {}", run.stderr);
            assert!(run.stderr.contains("rows.partial, which is not whole"), "{dataset} {format}: {}", run.stderr);
            assert_eq!(names(folder.path()), ["rows.partial"], "{dataset} {format}");
            let kept = std::fs::read_to_string(folder.path().join("rows.partial")).unwrap();
            // The end record is in none of them.
            assert!(rows(format).starts_with(&kept) && !kept.is_empty(), "{dataset} {format}");
            assert_eq!(run.report["retryable"], json!(code == 11));
        }
    }
    // A proxy that ends a stream as if it were whole: CSV shows it by its receipt, NDJSON by its end record too.
    for (format, code) in [("csv", 30), ("ndjson", 11)] {
        pull(&service, "lying-proxy", "-", &["--format", format]).run().await.expect(code);
    }
}

#[tokio::test]
async fn a_refusal_has_a_code_and_leaves_no_file() {
    let service = FakeService::start().await;
    let table = [
        ("no-data", 14, "No data matches your filters (request r-1)"),
        ("busy", 16, "try again after 7 s"),
        ("redirect", 2, "no key is sent on to another address"),
        ("html", 11, "the answer is \"text/html\""),
        ("coded", 11, "coded the rows as br"),
    ];
    for (dataset, code, said) in table {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let run = pull(&service, dataset, path.to_str().unwrap(), &[]).run().await.expect(code);
        assert!(run.stderr.contains(said), "{dataset}: {}", run.stderr);
        assert_eq!(names(folder.path()), [""; 0], "{dataset}");
    }
    // Of the redirect nobody heard the key.
    assert!(
        service.requests().iter().all(|request| request.header("host").is_some_and(|host| service.url.ends_with(host)))
    );
    outhaul(["pull", "http://127.0.0.1:1", "--dataset", "d", "-o", "-"])
        .env("OUTHAUL_API_KEY", KEY)
        .run()
        .await
        .expect(11);
}

#[tokio::test]
async fn a_receipt_that_comes_late_is_waited_for() {
    let service = FakeService::start().await;
    let run =
        pull(&service, "late-receipt", "-", &["--format", "csv"]).env("OUTHAUL_TEST_LIMITS", "").run().await.expect(0);
    assert_eq!(run.stdout, rows("csv").into_bytes());
    assert!(service.requests().iter().filter(|request| request.path.ends_with("late-receipt.csv")).count() >= 3);
    assert!(run.stderr.contains("complete: 2,000 rows"), "{}", run.stderr);
}

/// What has a head and no body, as a proxy that hangs gives it.
#[tokio::test]
async fn an_answer_whose_body_never_comes_is_not_waited_for_without_end() {
    let service = FakeService::start().await;
    let impatient = |dataset: &str, format: &str| {
        pull(&service, dataset, "-", &["--format", format]).env("OUTHAUL_TEST_LIMITS", "receipt=1,small_body=1")
    };
    let limit = Duration::from_secs(20);
    let run = impatient("hanging-receipt", "ndjson").limit(limit).run().await.expect(0);
    assert!(run.stderr.contains("the receipt did not come within 1 s"), "{}", run.stderr);
    // The service's word on why a stream broke does not come either.
    let run = impatient("hanging-receipt-cut", "csv").limit(limit).run().await.expect(11);
    assert!(run.stderr.contains("the stream broke off"), "{}", run.stderr);
    let run = impatient("hanging-refusal", "csv").limit(limit).run().await.expect(11);
    assert!(run.stderr.contains("answered 502 Bad Gateway"), "{}", run.stderr);
}

/// A key may expire while rows come: the receipt is refused, and asking again is of no use.
#[tokio::test]
async fn a_receipt_that_is_refused_is_not_asked_for_again() {
    let service = FakeService::start().await;
    for (dataset, said) in [("expired", "a valid API key is wanted"), ("no-receipt", "there is none")] {
        let pulled = pull(&service, dataset, "-", &["--format", "ndjson"]).env("OUTHAUL_TEST_LIMITS", "receipt=20");
        let run = pulled.limit(Duration::from_secs(15)).run().await.expect(0);
        assert!(run.stderr.contains(said), "{dataset}: {}", run.stderr);
        let asked =
            service.requests().iter().filter(|request| request.path.ends_with(&format!("{dataset}.ndjson"))).count();
        assert_eq!(asked, 1, "{dataset}");
    }
}

/// `outhaul pull -o - | less`, where nobody reads on.
#[tokio::test]
async fn the_first_signal_is_heard_while_the_reader_of_standard_output_does_not_read() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("rows");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    // Held open and never read: it takes 64 KiB, and the rows are more.
    let held = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let script = "exec \"$0\" \"$@\" >\"$ROWS\"";
    let words = ["-c", script, env!("CARGO_BIN_EXE_outhaul"), "pull", &service.url, "--dataset", "complete", "-o", "-"];
    let pulled = program("sh", words).env("OUTHAUL_API_KEY", KEY).env("ROWS", &fifo);
    let running = pulled.env("OUTHAUL_TEST_LIMITS", "pull_progress=0.001").limit(Duration::from_secs(20)).spawn();
    running.stderr_has("scanned ").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.signal("TERM").await;
    let run = running.wait().await.expect(143);
    assert!(run.stderr.contains("stopped while pulling"), "{}", run.stderr);
    drop(held);
}

#[tokio::test]
async fn what_is_there_is_not_overwritten_unasked() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let name = path.to_str().unwrap();
    std::fs::write(&path, "mine").unwrap();
    std::fs::write(folder.path().join("rows.partial"), "of an earlier one").unwrap();
    let run = pull(&service, "complete", name, &[]).run().await.expect(22);
    assert!(run.stderr.contains("--on-existing replace"), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    assert!(service.requests().is_empty());
    // A broken stream leaves the old file.
    pull(&service, "cut", name, &["--on-existing", "replace"]).run().await.expect(11);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let run = pull(&service, "complete", name, &["--on-existing", "replace"]).run().await.expect(0);
    assert!(run.stderr.contains("which an earlier pull left unfinished"), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), rows("ndjson"));
    assert_eq!(names(folder.path()), ["rows"]);
}

#[tokio::test]
async fn the_key_comes_from_a_place_that_others_cannot_read_and_is_never_shown() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{KEY}\nmore\n")).unwrap();
    let file = file.to_str().unwrap();
    let base = ["pull", &service.url, "--dataset", "complete", "-o", "-", "-v"];
    let with = |more: &[&str]| outhaul(base.iter().chain(more));
    let print = format!("printf %s {KEY}");
    with(&["--api-key-command", &print]).env("OUTHAUL_API_KEY", "wrong").run().await.expect(0);
    with(&[]).env("OUTHAUL_API_KEY_FILE", file).run().await.expect(0);
    let run = with(&["--api-key-file", file]).run().await.expect(0);
    assert!(run.stderr.contains("group or others can read the key"), "{}", run.stderr);
    let none = with(&[]).run().await.expect(2);
    assert!(none.stderr.contains("OUTHAUL_API_KEY"), "{}", none.stderr);
    with(&["--api-key-file", file, "--api-key-command", "true"]).run().await.expect(2);
    let failing = with(&["--api-key-command", "echo secret-of-mine >&2; exit 4"]).run().await.expect(2);
    assert!(!failing.stderr.contains("secret-of-mine"), "{}", failing.stderr);
    let wrong = with(&["--json"]).env("OUTHAUL_API_KEY", "wrong-but-secret").run().await.expect(10);
    assert!(!wrong.stderr.contains("wrong-but-secret"), "{}", wrong.stderr);
    with(&["--api-key", KEY]).env("OUTHAUL_API_KEY", KEY).run().await.expect(2);
    with(&[]).env("OUTHAUL_API_KEY", "two words").run().await.expect(2);
}

#[tokio::test]
async fn a_signal_ends_a_pull_and_progress_is_told_on_the_way() {
    let service = FakeService::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let pulled = pull(&service, "stall", path.to_str().unwrap(), &[]);
    let running = pulled.env("OUTHAUL_TEST_LIMITS", "pull_progress=0.01").spawn();
    running.stderr_has("scanned ").await;
    running.signal("INT").await;
    let run = running.wait().await.expect(130);
    assert!(run.stderr.contains("stopped while pulling"), "{}", run.stderr);
    assert_eq!(names(folder.path()), ["rows.partial"]);
    let slow = pull(&service, "slow", "-", &["-q"]).env("OUTHAUL_TEST_LIMITS", "pull_progress=0.01");
    let run = slow.limit(Duration::from_secs(30)).run().await.expect(0);
    assert_eq!(run.stderr, "");
}
