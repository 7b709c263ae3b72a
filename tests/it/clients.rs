//! `client.js` and its hook, in Node and in a real Chromium, against a service that cuts, lies and is silent.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fake_service::{FakeService, KEY, ROWS, rows};
use crate::support::run::program;

fn file(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs the cases where it is said, and gives the result of each.
pub(crate) async fn run(place: &str, url: &str, key: &str, more: &Value) -> Value {
    let cases = std::fs::read_to_string(file("tests/support/client_cases.mjs")).unwrap();
    let mut asked = json!({
        "url": url, "key": key, "page": "/", "cases_text": cases, "client": file("src/service/client/client.js"),
        "cases_file": file("tests/support/client_cases.mjs"),
    });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let node = program("node", [&file("tests/support/clients.mjs"), place]);
    node.env("CLIENT_TEST", asked.to_string()).limit(Duration::from_mins(2)).run().await.expect(0).report
}

/// Each behaviour with what the client is asked for.
fn cases() -> Value {
    let whole = json!({"columns": ["id", "note"]});
    let mut cases = serde_json::Map::new();
    for dataset in [
        "complete",
        "truncated",
        "cut",
        "cut-close",
        "cut-reset",
        "cut-http10",
        "whole-http10",
        "failed-clean",
        "half-row",
        "lying-proxy",
        "lying-rows",
        "lying-crc",
        "late-receipt",
        "no-receipt",
        "no-proof",
        "buffered",
        "stripped",
        "html",
        "no-data",
        "busy",
    ] {
        for format in ["ndjson", "csv"] {
            let mut options = whole.clone();
            options["dataset"] = dataset.into();
            options["format"] = format.into();
            options["receiptMs"] = json!(2000);
            cases.insert(format!("{dataset} {format}"), options);
        }
    }
    for (name, options) in [
        ("blob", json!({"dataset": "truncated", "format": "csv", "blob": true})),
        ("cut blob", json!({"dataset": "cut-close", "blob": true})),
        ("wrong key", json!({"dataset": "complete", "wrongKey": true})),
        ("silent", json!({"dataset": "stall", "silenceMs": 300, "receiptMs": 300})),
        ("aborted", json!({"dataset": "stall", "abortAfter": 300})),
        ("expired", json!({"dataset": "expired", "format": "csv"})),
        ("renewed", json!({"dataset": "expired", "format": "csv", "renewed": true})),
        ("expired ndjson", json!({"dataset": "expired"})),
        ("hanging receipt", json!({"dataset": "hanging-receipt", "format": "csv", "receiptMs": 300})),
        ("hanging refusal", json!({"dataset": "hanging-refusal", "silenceMs": 300})),
        ("hanging head", json!({"dataset": "hanging-head", "silenceMs": 300})),
        ("left", json!({"dataset": "slow", "leaveAfter": 2})),
        ("bucket", json!({"dataset": "complete", "analysis": "by status", "bucketKey": "k.1", "parse": "json"})),
    ] {
        cases.insert(name.to_owned(), options);
    }
    json!({"cases": cases})
}

/// What must come of each of them, wherever the client runs. `chunked` cuts are seen or proved by the receipt.
fn check(results: &Value, place: &str) {
    let first = |format: &str| {
        let text = rows(format);
        if format == "csv" {
            return text.split("\r\n").skip(1).take(2).collect::<Vec<_>>().join("\r\n");
        }
        text.lines().next().unwrap().to_owned()
    };
    for format in ["ndjson", "csv"] {
        let of = |case: &str| &results[format!("{case} {format}")];
        for case in ["complete", "whole-http10", "late-receipt", "buffered", "stripped"] {
            let seen = of(case);
            assert_eq!(
                (&seen["rows"], &seen["error"], &seen["end"]),
                (&json!(ROWS), &Value::Null, &Value::Null),
                "{place} {case} {format}: {seen}"
            );
            assert_eq!(seen["first"], first(format), "{place} {case} {format}");
            assert_eq!(seen["progress"], json!(ROWS));
        }
        let end = json!({"kind": "truncated", "actualRows": ROWS, "maxRows": ROWS});
        assert_eq!((&of("truncated")["end"], &of("truncated")["rows"]), (&end, &json!(ROWS)), "{place} {format}");
        let wrong = [
            ("cut", "source_unavailable"),
            ("cut-close", "source_unavailable"),
            ("cut-reset", "source_unavailable"),
            ("cut-http10", "source_unavailable"),
            ("failed-clean", "source_unavailable"),
            ("half-row", "broken_stream"),
            ("lying-proxy", if format == "csv" { "verification" } else { "broken_stream" }),
            ("lying-rows", "verification"),
            ("lying-crc", "verification"),
            ("no-proof", "unproven"),
            ("html", "not_rows"),
            ("no-data", "no_data"),
            ("busy", "too_many"),
        ];
        for (case, code) in wrong {
            let seen = of(case);
            assert_eq!(
                (&seen["error"]["code"], &seen["error"]["name"]),
                (&json!(code), &json!("ExportError")),
                "{place} {case} {format}: {seen}"
            );
            assert_eq!(seen["end"], Value::Null, "{place} {case} {format}");
        }
        assert_eq!(of("busy")["error"]["retryAfter"], json!(7));
        // The end record alone proves it; CSV has none, and no browser shows trailers.
        let error = if format == "csv" { json!("unproven") } else { Value::Null };
        assert_eq!(of("no-receipt")["error"]["code"], error, "{place} {format}: {}", of("no-receipt"));
    }
    assert_eq!(results["complete csv"]["header"], "id,note");
    let size = rows("csv").len();
    let blob = &results["blob"];
    assert_eq!(
        (&blob["size"], &blob["truncated"], &blob["rows"]),
        (&json!(size), &json!(true), &json!(ROWS)),
        "{place}: {blob}"
    );
    assert!(blob["start"].as_str().unwrap().starts_with("id,note\r\n9007199"), "{place}: {blob}");
    assert_eq!(results["cut blob"]["error"]["code"], "source_unavailable", "{place}");
    assert_eq!(results["wrong key"]["error"]["code"], "unauthorized", "{place}");
    assert_eq!(results["aborted"]["error"]["name"], "AbortError", "{place}: {}", results["aborted"]);
    assert_eq!(results["left"]["chunks"], json!(2), "{place}");
    // Parsed, the digits are lost: that is why it is not the default.
    assert_eq!(results["bucket"]["first"]["id"].as_u64(), Some(9_007_199_254_740_992), "{place}");
}

/// Services that hang, and keys that expire.
fn check_patience(results: &Value, place: &str) {
    assert_eq!(results["silent"]["error"]["code"], "silent", "{place}: {}", results["silent"]);
    let silent = &results["silent"];
    assert!(silent["rows"].as_u64() > Some(0) && silent["error"]["rows"] == silent["rows"], "{place}: {silent}");
    // A key that expired meanwhile: what is missing is the proof, and another key gets it.
    let expired = &results["expired"]["error"];
    assert_eq!(
        [&expired["code"], &expired["status"], &expired["rows"]],
        [&json!("unauthorized"), &json!(401), &json!(ROWS)],
        "{place}: {expired}"
    );
    let renewed = &results["renewed"];
    assert_eq!(
        (&renewed["error"], &renewed["keys"]),
        (&Value::Null, &json!([null, null, "unauthorized"])),
        "{place}: {renewed}"
    );
    assert_eq!(results["expired ndjson"]["error"], Value::Null, "{place}: the end record proves it");
    for (case, code, status) in
        [("receipt", "unproven", Value::Null), ("refusal", "http_error", json!(502)), ("head", "silent", Value::Null)]
    {
        let error = &results[format!("hanging {case}")]["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(code), &status), "{place} {case}: {error}");
    }
}

/// What the service was asked for by the last case.
fn check_requests(service: &FakeService) {
    let requests = service.requests();
    let bucket = requests.iter().find(|request| request.path.contains("/analyze/")).unwrap();
    assert_eq!(bucket.path, "/v1/analyze/complete/by%20status/rows/export");
    let body: Value = serde_json::from_slice(&bucket.body).unwrap();
    assert_eq!(body, json!({"format": "ndjson", "bucket_key": "k.1", "end_record": true}));
    let csv = requests.iter().find(|request| request.body.starts_with(br#"{"format":"csv""#)).unwrap();
    let body: Value = serde_json::from_slice(&csv.body).unwrap();
    assert_eq!(body, json!({"format": "csv", "columns": ["id", "note"]}));
}

#[tokio::test]
async fn node_tells_whole_capped_and_broken_streams_apart() {
    let service = FakeService::start().await;
    let results = run("node", &service.url, KEY, &cases()).await;
    check(&results, "node");
    check_patience(&results, "node");
    check_requests(&service);
}

#[tokio::test]
async fn chromium_tells_whole_capped_and_broken_streams_apart() {
    let service = FakeService::start().await;
    let results = run("chromium", &service.url, KEY, &cases()).await;
    check(&results, "chromium");
    check_patience(&results, "chromium");
    check_requests(&service);
}

#[tokio::test]
async fn the_hook_shows_each_state_and_is_silent_once_it_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        let to = folder.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file(from), to).unwrap();
    };
    for name in ["client.js", "use-export-rows.js"] {
        copy(&format!("src/service/client/{name}"), name);
    }
    copy("tests/support/hook_driver.mjs", "hook_driver.mjs");
    copy("tests/support/react.mjs", "node_modules/react/index.js");
    for place in [folder.path(), &folder.path().join("node_modules/react")] {
        std::fs::write(place.join("package.json"), r#"{"type": "module", "exports": "./index.js"}"#).unwrap();
    }
    let service = FakeService::start().await;
    let hook = folder.path().join("hook_driver.mjs");
    let results = run("hook", &service.url, KEY, &json!({"hook": hook})).await;
    let bytes = rows("ndjson").len();
    assert_eq!((&results["before"], &results["at_once"]), (&json!("idle"), &json!("streaming")));
    assert_eq!(results["blob"], json!(bytes));
    let done = json!({"state": "done", "rows": ROWS, "bytes": bytes, "error": null});
    assert_eq!(results["complete"], done);
    assert_eq!(results["again"], done);
    assert_eq!(results["truncated"]["state"], "truncated");
    assert_eq!((&results["cut"]["state"], &results["cut"]["error"]), (&json!("error"), &json!("source_unavailable")));
    assert_eq!(results["nothing"], Value::Null);
    assert_eq!((&results["cancelled"]["state"], &results["cancelled"]["error"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(results["left"], json!([null, "streaming"]));
}

/// The calls besides streams, against answers of the test's own.
#[tokio::test]
async fn the_calls_of_the_client_ask_and_understand() {
    let script = file("tests/support/client_calls.mjs");
    let seen = program("node", [script, file("src/service/client/client.js")]).run().await.expect(0).report;
    let asked = seen["asked"].as_array().unwrap();
    let lines: Vec<String> =
        asked.iter().map(|one| format!("{} {}", text(&one["method"]), text(&one["url"]))).collect();
    assert_eq!(
        lines,
        [
            "GET http://service/v1/datasets",
            "POST http://service/v1/query/a%2Fb/estimate",
            "POST http://service/v1/exports",
            "POST http://service/v1/exports",
            "GET http://service/v1/exports?cursor=a%20b",
            "GET http://service/v1/exports/j%201",
            "GET http://service/v1/exports/j%201/manifest",
            "DELETE http://service/v1/exports/j%201",
        ]
    );
    assert!(asked.iter().all(|one| one["key"] == "Bearer k"), "{asked:?}");
    let (columns, filters, range) =
        (json!(["x"]), json!([{"column": "x", "op": "is null"}]), json!({"from": "2026-01-01"}));
    let estimate = json!({"format": "ndjson", "columns": columns, "where": filters, "date_range": range});
    assert_eq!((&asked[1]["body"], &seen["estimate"]), (&estimate, &json!({"rows": 3})));
    let job = json!({"dataset": "a/b", "mode": "background", "format": "parquet", "compression": "zstd", "columns": columns,
        "where": filters, "date_range": range});
    assert_eq!((&asked[2]["body"], &asked[2]["idempotency"]), (&job, &json!("once")));
    // The filters of a bucket are in its key.
    let bucket = json!({"dataset": "a/b", "mode": "background", "format": "ndjson", "columns": columns, "analysis": "by_x",
        "bucket_key": "b"});
    assert_eq!(asked[3]["body"], bucket);
    assert_eq!(seen["analyzed"]["body"], json!({"where": filters, "date_range": range}));

    // Each event once, from where the connection broke, until the job has ended.
    let running = |rows: u64| json!({"status": "running", "processed_rows": rows});
    assert_eq!(seen["events"], json!([running(1), running(2), {"status": "complete"}]));
    assert_eq!(seen["last"], json!([null, "1", "1"]));
    assert_eq!(seen["known"], json!([{"status": "running"}]));
    // A connection that is silent is given up for another.
    assert_eq!(
        (&seen["silent"], &seen["silent_last"]),
        (&json!([running(1), {"status": "complete"}]), &json!([null, "1"]))
    );
    assert_eq!((&seen["gone"], &seen["aborted"]), (&json!(["export_not_found"]), &json!(["AbortError"])));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The types say what the module exports.
#[test]
fn the_types_name_what_the_module_exports() {
    let read = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let names = |text: &str, starts: &[&str]| {
        let named = |line: &str| {
            let rest = starts.iter().find_map(|start| line.strip_prefix(start))?;
            Some(rest.chars().take_while(|c| c.is_alphanumeric()).collect::<String>())
        };
        text.lines().filter_map(named).collect::<std::collections::BTreeSet<_>>()
    };
    let module = read("src/service/client/client.js");
    assert!(!module.contains("import ") && !module.contains("require("), "it depends on something");
    let exported =
        names(&module, &["export function ", "export async function ", "export async function* ", "export class "]);
    let typed = names(&read("src/service/client/client.d.ts"), &["export function ", "export class "]);
    assert_eq!(exported, typed);
    assert_eq!(exported.len(), 15);
}
