//! Statements of an operator's own, on a real ClickHouse server: over HTTP, and from the page in a real Chromium.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::console_statements::drive;
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::eventually;
use crate::support::service::{Answer, BodyEnd, Service, key, request, written};

const LIMIT: Duration = Duration::from_secs(30);

async fn started(server: &ClickHouse, more: &str) -> Service {
    let (from, ops, guest) = (server.url("writer"), key("ops", "7", "free"), key("guest", "7", "free"));
    let text = format!(
        "{ops}{guest}
[source.warehouse]
from = \"{from}\"
[clickhouse_console]
sources = [\"warehouse\"]
keys = [\"ops\"]
{more}
"
    );
    let password = server.password.clone();
    Service::with(&text, |command| command.env("CLICKHOUSE_PASSWORD", &password)).await
}

/// Sends a statement as this user of the database.
async fn send(service: &Service, (user, password): (&str, &str), statement: &str) -> Answer {
    let coded = STANDARD.encode(format!("{user}:{password}"));
    let head = format!("X-Outhaul-Database-Authorization: Basic {coded}\r\n");
    let body = json!({"statement": statement}).to_string();
    service.post("ops", "/v1/clickhouse/warehouse/export", &body, &head).await
}

#[tokio::test]
async fn an_answer_comes_as_the_server_writes_it_beyond_every_cap() {
    let server = clickhouse().await;
    let service = started(&server, "").await;
    let me = ("writer", server.password.as_str());
    let list = service.get("ops", "/v1/clickhouse").await.json();
    assert_eq!(list, json!({"sources": ["warehouse"], "credentials": "caller"}));
    // Of ten thousand rows the key's tier knows nothing here.
    for (format, kind, ending) in [
        ("CSV", "text/csv", "csv"),
        ("JSONEachRow", "application/x-ndjson", "jsonl"),
        ("Native", "application/octet-stream", "native"),
    ] {
        let sql = format!(
            "SELECT number, 'mon''tecristo' AS s FROM numbers(200000) SETTINGS max_threads = 1 FORMAT {format}"
        );
        let answer = send(&service, me, &sql).await;
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{format}");
        assert!(answer.body == server.bytes(&sql).await, "{format}: other bytes");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{:?}", answer.header("content-type"));
        let file = answer.header("content-disposition").unwrap();
        assert!(file.ends_with(&format!(".{ending}\"")), "{file}");
        let receipt = service.receipt("ops", &answer).await;
        let told = (&receipt["status"], &receipt["bytes"], &receipt["rows"], &receipt["max_rows"]);
        assert_eq!(told, (&json!("complete"), &json!(answer.body.len()), &Value::Null, &Value::Null));
    }
    let none = send(&service, me, "SELECT 1 AS a WHERE false").await;
    assert_eq!((none.status, none.text(), none.end), (200, "a\n", BodyEnd::Whole));
    let audit = service.audit("7").await;
    let kept = "SELECT number, ?? AS s FROM numbers(?) SETTINGS max_threads = ? FORMAT Native";
    assert_eq!((&audit[1]["statement"], &audit[1]["action"]), (&json!(kept), &json!("statement")), "{audit}");
    // Neither the literals nor the password stand in anything that the service keeps.
    for entry in std::fs::read_dir(service.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        for secret in [b"tecristo".as_slice(), server.password.as_bytes()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
    let log = service.stop().await;
    assert!(!log.contains("tecristo") && !log.contains(&server.password), "{log}");
}

#[tokio::test]
async fn a_statement_that_fails_never_ends_as_if_it_were_whole() {
    let server = clickhouse().await;
    let service = started(&server, "audit_literals = true").await;
    let me = ("writer", server.password.as_str());
    let sql =
        "SELECT number, throwIf(number = 900000, 'too far') FROM numbers(1000000) SETTINGS max_threads = 1 FORMAT CSV";
    let answer = send(&service, me, sql).await;
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Broken));
    let rows: Vec<&str> = answer.text().lines().collect();
    assert!(rows.len() > 1_000, "{}", rows.len());
    for (number, row) in rows[..rows.len() - 1].iter().enumerate() {
        assert_eq!(*row, format!("{number},0"));
    }
    assert!(!answer.text().contains("xception"), "the error is among the rows");
    let receipt = service.receipt("ops", &answer).await;
    assert_eq!((&receipt["status"], &receipt["error"]["code"]), (&json!("failed"), &json!("source_rejected")));
    assert!(receipt["error"]["message"].as_str().unwrap().contains("too far"), "{receipt}");
    assert_eq!(service.audit("7").await[0]["statement"], sql, "as it is configured");

    let wrong = send(&service, me, "SELEC 1").await;
    assert!(wrong.problem(502, "source_rejected")["detail"].as_str().unwrap().contains("yntax error"));
    let stranger = send(&service, ("writer", "hunter2"), "SELECT 1").await;
    let told = stranger.problem(502, "source_authentication");
    assert!(!told.to_string().contains("hunter2"), "{told}");
    let body = json!({"statement": "SELECT 1"}).to_string();
    let nobody = service.post("ops", "/v1/clickhouse/warehouse/export", &body, "").await;
    nobody.problem(400, "database_user_required");
    service.post("guest", "/v1/clickhouse/warehouse/export", &body, "").await.problem(403, "forbidden");
    service.post("ops", "/v1/clickhouse/other/export", &body, "").await.problem(404, "source_not_found");
    assert_eq!(service.get("guest", "/v1/clickhouse").await.json()["sources"], json!([]));
    // It reads only, whoever asks.
    let made = send(&service, me, "CREATE TABLE made (x Int8) ENGINE = Memory").await;
    assert!(made.status >= 400, "{made:?}");
    assert_eq!(server.run("EXISTS TABLE made").await.trim(), "0");
    let log = service.stop().await;
    assert!(!log.contains("hunter2") && !log.contains("too far") && !log.contains(&server.password), "{log}");
}

#[tokio::test]
async fn the_user_of_the_source_is_asked_for_everybody_where_it_is_configured_so() {
    let server = clickhouse().await;
    let service = started(&server, "credentials = \"source\"").await;
    let body = json!({"statement": "SELECT currentUser()"}).to_string();
    let answer = service.post("ops", "/v1/clickhouse/warehouse/export", &body, "").await;
    assert_eq!((answer.status, answer.text()), (200, "currentUser()\nwriter\n"));
    send(&service, ("fixed", &server.password), "SELECT 1").await.problem(400, "invalid_request");
    service.stop().await;
}

#[tokio::test]
async fn a_console_is_checked_before_it_is_started() {
    let server = clickhouse().await;
    let (from, ops) = (server.url("writer"), key("ops", "7", "free"));
    let text = format!(
        "{ops}
[source.warehouse]
from = \"{from}\"
[clickhouse_console]
sources = [\"warehouse\"]
keys = [\"ops\"]
credentials = \"source\"
"
    );
    for (password, exit_code) in [(server.password.as_str(), 0), ("hunter2", 2)] {
        let (_folder, command) = written(&text, &["--check"]);
        let said = command.env("CLICKHOUSE_PASSWORD", password).run().await.expect(exit_code).stderr;
        assert_eq!(said.contains("clickhouse_console: source \"warehouse\""), exit_code == 2, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// Queries with a mark in them that run.
async fn running(server: &ClickHouse, mark: &str) -> u32 {
    let sql =
        format!("SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'");
    server.run(&sql).await.trim().parse().unwrap()
}

#[tokio::test]
async fn who_goes_away_ends_the_statement_at_the_server() {
    let server = clickhouse().await;
    let service = started(&server, "").await;
    let mark = format!("mark_{}", server.database);
    let coded = STANDARD.encode(format!("writer:{}", server.password));
    let head = format!("X-Outhaul-Database-Authorization: Basic {coded}\r\n");
    // It sends nothing for a long time, so that the server would not see by itself that nobody listens.
    let sql = format!("SELECT sum(sleepEachRow(1)) AS {mark} FROM numbers(600) SETTINGS max_block_size = 1");
    let body = json!({"statement": sql}).to_string();
    let asked = request("POST", "ops", "/v1/clickhouse/warehouse/export", &body, &head);
    let connection = service.connect(&asked).await;
    eventually(LIMIT, "the statement runs", async || (running(&server, &mark).await == 1).then_some(())).await;
    drop(connection);
    eventually(LIMIT, "the statement is gone", async || (running(&server, &mark).await == 0).then_some(())).await;
    service.stop().await;
}

#[tokio::test]
async fn a_person_exports_a_million_rows_in_three_formats_to_picked_files_and_cancels_another() {
    let server = clickhouse().await;
    let service = started(&server, "").await;
    let mark = format!("mark_{}", server.database);
    let million = |format: &str| {
        format!(
            "SELECT number AS n, concat('row ', toString(number)) AS text FROM numbers(1000000) SETTINGS max_threads = 1 FORMAT {format}"
        )
    };
    let formats = ["CSV", "JSONEachRow", "Parquet"];
    let more = json!({
        "user": "writer", "password": server.password, "statements": formats.map(million),
        "endless": format!("SELECT number AS {mark}, randomPrintableASCII(1000) FROM numbers(1000000000) FORMAT TSV"),
        "fails": "SELECT number, throwIf(number = 900000, 'too far') FROM numbers(1000000) SETTINGS max_threads = 1 FORMAT CSV",
        "wrong": "SELEC 1",
    });
    let seen = drive("real", &service, &more).await;
    for (at, format) in formats.iter().enumerate() {
        let one = &seen["files"][at];
        assert_eq!((&one["result"], &one["problem"]), (&json!("Export complete"), &json!("")), "{format}");
        let bytes = server.bytes(&million(format)).await;
        let hex = Sha256::digest(&bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!((&one["size"], &one["sha256"]), (&json!(bytes.len()), &json!(hex)), "{format}: other bytes");
    }
    assert!(seen["wrong"]["problem"].as_str().unwrap().starts_with("Export failed: the database rejected the query: "));
    let failed = seen["fails"]["problem"].as_str().unwrap();
    assert!(
        failed.starts_with("Export incomplete: server error mid-stream: ") && failed.contains("too far"),
        "{failed}"
    );
    assert!(
        seen["fails"]["rows"].as_u64().unwrap() > 1_000 && seen["fails"]["foreign"] == json!([]),
        "{}",
        seen["fails"]
    );
    assert!(seen["cancelled"].as_str().unwrap().starts_with("Export cancelled after "), "{}", seen["cancelled"]);
    eventually(LIMIT, "the statement is gone", async || (running(&server, &mark).await == 0).then_some(())).await;
    assert_eq!(seen["errors"], json!([]));
    let why = "Large export requires Chrome/Edge over HTTPS";
    assert_eq!(seen["plain"], json!([false, "undefined", "true", why, why]));
    service.stop().await;
}
