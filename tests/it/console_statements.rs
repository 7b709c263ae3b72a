//! The console of statements in a real Chromium: what a person writes, where it goes, and what his file has however the
//! answer ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::run::program;
use crate::support::service::{Service, key};
use crate::support::variable;

/// A service over nothing that is ever asked: who writes statements here has a service within the page.
async fn started() -> Service {
    let key = key("whole", "7", "all");
    let text = format!(
        "{key}
[source.shop]
from = \"postgresql://nobody@127.0.0.1:1/none\"
[tier.all]
max_rows = \"unlimited\"
[dataset.orders]
table = \"public.orders\"
[dataset.orders.columns]
id = {{}}
"
    );
    Service::start(&text).await
}

/// What a person sees. With `OUTHAUL_TEST_SHOTS`, pictures of it are left in that folder.
pub(crate) async fn drive(what: &str, service: &Service, more: &Value) -> Value {
    let (url, shots) = (format!("http://{}", service.address), std::env::var("OUTHAUL_TEST_SHOTS").ok());
    let asked = json!({"url": url, "axe": variable("OUTHAUL_TEST_AXE"), "shots": shots, "more": more});
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/statements.mjs");
    let node = program("node", [driver, what]).env("CONSOLE_TEST", asked.to_string()).env("TZ", "UTC");
    node.limit(Duration::from_mins(3)).run().await.expect(0).report
}

fn cases() -> Value {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let (cases, formats) = (include_str!("../cases/trailing_format.json"), include_str!("../cases/formats.json"));
    json!({"cases": read(cases), "formats": read(formats)})
}

#[tokio::test]
async fn a_person_exports_a_statement_and_his_file_has_bytes_of_the_answer_alone() {
    let service = started().await;
    let seen = drive("pretended", &service, &cases()).await;
    assert_eq!((&seen["lexed"], &seen["files"]), (&json!([]), &json!([])), "cases that the page reads otherwise");
    let usual = json!({"format": "TabSeparatedWithNames", "ending": "tsv", "type": "text/tab-separated-values", "refused": false});
    assert_eq!(seen["usual"], usual);
    assert_eq!(seen["sources"], json!(["lake", "warehouse"]));
    assert_eq!(seen["label"], "Export full result to a file (streams to disk, uncapped)");
    assert_eq!(
        (&seen["blank"], &seen["nothing"]),
        (&json!(["true", "Nothing to export"]), &json!(["Nothing to export", 0]))
    );

    let whole = &seen["whole"];
    assert_eq!(
        (&whole["result"], &whole["problem"], &whole["file"]),
        (&json!("Export complete"), &json!(""), &json!("a\tb\n1\t2\n"))
    );
    // The picker is asked within the click, before anything is fetched, for a file of the statement's format.
    let picked = &whole["picked"];
    assert_eq!((&picked["inClick"], &picked["requests"]), (&json!(true), &json!(0)), "{picked}");
    assert_eq!(picked["options"]["types"], json!([{"description": "CSVWithNames", "accept": {"text/csv": [".csv"]}}]));
    let name = picked["options"]["suggestedName"].as_str().unwrap();
    assert!(name.starts_with("lake-20") && name.strip_suffix(".csv").is_some(), "{name}");
    let sent = json!({"pathname": "/v1/clickhouse/lake/export", "as": "Basic YW5uYTpzMzpjcmV0IMO8",
        "statement": "SELECT ' FORMAT XML ' AS a FORMAT CSVWithNames -- all"});
    assert_eq!(seen["sent"], sent, "the statement is not sent as it is written");

    let problem = |place: &str| seen[place]["problem"].as_str().unwrap_or_else(|| panic!("{place}: {seen}"));
    assert_eq!(problem("failed_dialog"), "Save dialog failed: Cross origin sub frames");
    assert_eq!(seen["dismissed"], json!(["", ""]));
    assert_eq!(problem("refused"), "Export failed: the database rejected the query: Code: 62. Syntax error");
    assert_eq!(problem("no_file"), "Export failed: a file cannot be in the format Null. Choose another.");
    for place in ["failed_dialog", "refused", "no_file"] {
        assert_eq!(seen[place]["file"], "NotFoundError", "{place}");
    }
    for (place, why) in [
        ("broken", "Code: 395. Value passed to throwIf"),
        ("repaired", "Code: 395. Value passed to throwIf"),
        ("short", "the service sent 9 bytes, and 8 came, or others"),
        ("altered", "the service sent 8 bytes, and 8 came, or others"),
    ] {
        let said = format!(
            "Export incomplete: server error mid-stream: {why}. The file has what came before, and is incomplete."
        );
        assert_eq!((problem(place), &seen[place]["file"]), (said.as_str(), &json!("a\tb\n1\t2\n")), "{place}");
        assert_eq!(seen[place]["result"], "", "{place}");
    }
    assert_eq!(seen["meanwhile"], json!(["true", "One export at a time: this one has to end first."]));
    let cancelled = "Export cancelled after 8 bytes. The file has what came before, and is incomplete.";
    assert_eq!((problem("cancelled"), &seen["cancelled"]["file"]), (cancelled, &json!("a\tb\n1\t2\n")));
    assert_eq!((&seen["cancelled"]["aborted"], &seen["cancelled"]["focus"]), (&json!(1), &json!("sql-save")));
    assert_eq!(seen["left"], json!([true, "", "", ""]), "something stays in the page of who has left");
    let why = "Large export requires Chrome/Edge over HTTPS";
    assert_eq!(seen["elsewhere"], json!(["true", why, why, 0, true]));
    assert_eq!((&seen["nobody"], &seen["wrong"]), (&json!(true), &json!([])));
    service.stop().await;
}

#[tokio::test]
async fn the_console_of_statements_has_no_barriers_in_any_look() {
    let service = started().await;
    let seen = drive("looks", &service, &Value::Null).await;
    for (place, violations) in seen["violations"].as_object().unwrap() {
        assert_eq!(violations, &json!([]), "{place}");
    }
    assert_eq!((seen["violations"].as_object().unwrap().len(), &seen["wrong"]), (9, &json!([])));
    service.stop().await;
}

/// Off unless it is configured: a caller has no source, and cannot send a statement to one.
#[tokio::test]
async fn nobody_sends_statements_to_a_service_without_a_console() {
    let service = started().await;
    let list = service.get("whole", "/v1/clickhouse").await;
    assert_eq!((list.status, list.json()), (200, json!({"sources": [], "credentials": "caller"})));
    assert_eq!(service.get("nobody", "/v1/clickhouse").await.status, 401);
    let body = json!({"statement": "SELECT 1"}).to_string();
    let export = service.post("whole", "/v1/clickhouse/shop/export", &body, "").await;
    export.problem(404, "source_not_found");
    service.stop().await;
}
