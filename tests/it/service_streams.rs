//! `outhaul serve`: the rows of a caller as one stream, and what it says of its end.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::eventually;
use crate::support::job::crc64nvme;
use crate::support::pg::{Pg, pg};
use crate::support::service::{Answer, BodyEnd, Service, key, request};

/// Rows of each tenant: more than a page.
const ROWS: usize = 12_000;

const LIMIT: Duration = Duration::from_secs(20);

/// A table of two tenants, of which the canary's rows are never to be seen.
async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, customer_id int not null, price numeric(10,2), quantity int, note text,
            created_at timestamptz not null, secret text);
        insert into orders select i, 7, i * 1.5, i % 5, case when i % 3 = 0 then 'a, \"b\"' end,
            timestamptz '2026-01-01 00:00:00+00' + i * interval '1 minute', 'canary-column' from generate_series(1, {ROWS}) i;
        insert into orders select {ROWS} + i, 8, 0, 0, 'canary-tenant', now(), 'canary-column' from generate_series(1, 500) i;
        create table empty (id int primary key, customer_id int);
        analyze"
    ))
    .await;
    pg
}

/// The service over it. The tiers are around the number of rows.
fn service(pg: &Pg) -> String {
    let (below, url) = (ROWS - 1, &pg.url);
    let keys = [
        ("seven", "7", "all"),
        ("exact", "7", "exact"),
        ("below", "7", "below"),
        ("few", "7", "few"),
        ("eight", "8", "all"),
    ];
    let keys: String = keys.into_iter().map(|(name, tenant, tier)| key(name, tenant, tier)).collect();
    format!(
        "{keys}
[source.shop]
from = \"{url}\"
[tier.all]
max_rows = \"unlimited\"
[tier.exact]
max_rows = {ROWS}
[tier.below]
max_rows = {below}
[tier.few]
max_rows = 100
[dataset.orders]
table = \"public.orders\"
tenant = \"customer_id = {{tenant}}\"
tenant_type = \"int\"
date_column = \"created_at\"
csv_header = \"labels\"
filename = \"my orders\"
[dataset.orders.columns]
id = {{ sort = true, label = \"Order no.\" }}
price = {{}}
total = {{ expr = \"price * quantity\" }}
note = {{ filter = false }}
created_at = {{}}
[dataset.empty]
table = \"empty\"
[dataset.empty.columns]
id = {{}}
[dataset.broken]
query = \"select id, 100 / (11000 - id) as x from orders where customer_id = 7\"
key = \"id\"
[dataset.broken.columns]
id = {{}}
x = {{}}
[dataset.slow]
query = \"select id, note, pg_catalog.pg_sleep(0.2)::text as nap from orders\"
key = \"id\"
[dataset.slow.columns]
id = {{}}
nap = {{}}
"
    )
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_caller_has_the_rows_of_his_tenant_as_asked_and_a_receipt() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    let answer = service.export_with("seven", "orders", r#"{"columns":["total","id"]}"#, "TE: trailers\r\n").await;
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{}", answer.body.escape_ascii());
    let expected = pg
        .value("select string_agg(format('{\"total\":%s,\"id\":%s}', price * quantity, id), e'\\n' order by id) from orders where customer_id = 7")
        .await;
    assert!(answer.text().trim_end() == expected, "{}", &answer.text()[..200]);
    for (name, value) in [
        ("content-type", "application/x-ndjson"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-accel-buffering", "no"),
        ("content-disposition", "attachment; filename=\"my_orders.ndjson\""),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!(answer.header("x-outhaul-export-truncated-hint"), None);
    assert_eq!(answer.header("x-outhaul-export-end-record"), None);
    let crc = crc64nvme(&answer.body);
    assert_eq!(answer.trailer("x-outhaul-export-rows"), Some(ROWS.to_string().as_str()));
    assert_eq!(answer.trailer("x-outhaul-export-truncated"), Some("false"));
    assert_eq!(answer.trailer("x-outhaul-export-max-rows"), None);
    assert_eq!(answer.trailer("x-outhaul-export-crc64nvme"), Some(crc.as_str()));
    let receipt = service.receipt("seven", &answer).await;
    let facts = json!({"status": "complete", "rows": ROWS, "truncated": false, "max_rows": null, "crc64nvme": crc,
        "bytes": answer.body.len(), "dataset": "orders", "format": "ndjson", "kind": "stream", "error": null});
    for (name, value) in facts.as_object().unwrap() {
        assert_eq!(&receipt[name], value, "{name}: {receipt}");
    }
    assert_eq!(receipt["id"].as_str(), answer.header("x-outhaul-export-id"));

    // Without TE there are no trailers, and the end is as clean.
    let csv = service.export("seven", "orders", r#"{"format":"csv","columns":["id","note"]}"#).await;
    assert_eq!((csv.status, csv.end, csv.trailers.len()), (200, BodyEnd::Whole, 0));
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(csv.text().starts_with("Order no.,note\r\n1,\r\n2,\r\n3,\"a, \"\"b\"\"\"\r\n"), "{}", &csv.text()[..80]);
    assert_eq!(csv.text().matches("\r\n").count(), ROWS + 1);
    service.stop().await;
}

#[tokio::test]
async fn filters_dates_and_order_choose_rows() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    for (body, condition) in [
        (r#""where":[{"column":"id","op":"=","value":5}]"#, "id = 5"),
        (r#""where":[{"column":"id","op":"in","values":[5,"6",12001]}]"#, "id in (5, 6)"),
        (
            r#""where":[{"column":"price","op":">","value":17000.5},{"column":"id","op":"!=","value":11500}]"#,
            "price > 17000.5 and id <> 11500",
        ),
        (r#""where":[{"column":"id","op":"between","values":[10,20]}]"#, "id between 10 and 20"),
        (r#""where":[{"column":"total","op":"<","value":3}]"#, "price * quantity < 3"),
        (
            r#""date_range":{"from":"2026-01-02","to":"2026-01-03"}"#,
            "created_at >= '2026-01-02Z' and created_at < '2026-01-04Z'",
        ),
    ] {
        let answer = service.export("seven", "orders", &format!(r#"{{"columns":["id"],{body}}}"#)).await;
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{body}: {}", answer.text());
        let ids: Vec<String> = lines(&answer).iter().map(|line| line["id"].to_string()).collect();
        let query = format!("select id from orders where customer_id = 7 and {condition} order by id");
        let expected: Vec<String> = pg.sql(&query).await.into_iter().map(|row| row[0].clone().unwrap()).collect();
        assert!(!ids.is_empty() && ids == expected, "{body}: {} rows and {}", ids.len(), expected.len());
    }
    // None of them is the day that the caller had in mind.
    for day in ["24-06-01", "2024-1-2", "+2024-01-02", " 2024-01-02", "2024-01-02 ", "+2024-1-02", "2024-02-30"] {
        let body = format!(r#"{{"columns":["id"],"date_range":{{"from":"{day}"}}}}"#);
        let problem = service.export("seven", "orders", &body).await.problem(400, "invalid_request");
        assert!(problem.to_string().contains("is no day"), "{day}: {problem}");
    }
    let body = r#"{"columns":["id"],"order_by":[{"column":"id","direction":"desc"}]}"#;
    let answer = service.export("few", "orders", body).await;
    let ids: Vec<i64> = lines(&answer).iter().filter_map(|line| line["id"].as_i64()).collect();
    let receipt = service.receipt("few", &answer).await;
    let note = receipt["notes"][0].as_str().unwrap();
    assert!(note.contains("in the order of id") && note.contains("missing or there twice"), "{receipt}");
    let last = i64::try_from(ROWS).unwrap();
    assert_eq!(ids, (last - 99..=last).rev().collect::<Vec<_>>());
    service.stop().await;
}

#[tokio::test]
async fn a_cap_cuts_exactly_and_everything_says_so() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    let ask = async |key| {
        let body = r#"{"columns":["id"],"end_record":true}"#;
        service.export_with(key, "orders", body, "TE: trailers\r\n").await
    };
    for (key, rows, truncated) in
        [("seven", ROWS, false), ("exact", ROWS, false), ("below", ROWS - 1, true), ("few", 100, true)]
    {
        let answer = ask(key).await;
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{key}: {}", answer.text());
        let mut lines = lines(&answer);
        let end = lines.pop().unwrap();
        assert_eq!(answer.header("x-outhaul-export-end-record"), Some("true"));
        let status = if truncated { "truncated" } else { "complete" };
        let cut = answer.body.len() - answer.text().lines().last().unwrap().len() - 1;
        let crc = crc64nvme(&answer.body[..cut]);
        let max_rows = if key == "seven" { Value::Null } else { json!(if truncated { rows } else { ROWS }) };
        assert_eq!(
            end["$end"],
            json!({"status": status, "rows": rows, "max_rows": max_rows, "crc64nvme": crc}),
            "{key}"
        );
        let ids: Vec<usize> = lines.iter().map(|line| usize::try_from(line["id"].as_u64().unwrap()).unwrap()).collect();
        assert!(ids.iter().copied().eq(1..=rows), "{key}: {} rows", ids.len());
        assert_eq!(answer.trailer("x-outhaul-export-rows"), Some(rows.to_string().as_str()));
        assert_eq!(answer.trailer("x-outhaul-export-truncated"), Some(truncated.to_string().as_str()));
        assert_eq!(answer.trailer("x-outhaul-export-max-rows").is_some(), key != "seven");
        let receipt = service.receipt(key, &answer).await;
        assert_eq!(
            (&receipt["status"], &receipt["rows"], &receipt["truncated"]),
            (&json!(status), &json!(rows), &json!(truncated))
        );
        assert_eq!((&receipt["max_rows"], &receipt["crc64nvme"]), (&max_rows, &json!(crc)));
        // Only where the first page passes the cap.
        let hint = (key == "few").then_some("true");
        assert_eq!(answer.header("x-outhaul-export-truncated-hint"), hint, "{key}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_stream_that_fails_never_ends_cleanly() {
    let pg = orders().await;
    let text = service(&pg);
    let running = Service::start(&text).await;
    for head in ["", "TE: trailers\r\n", "Accept-Encoding: gzip\r\n"] {
        for format in ["ndjson", "csv"] {
            let body = format!(r#"{{"format":"{format}","columns":["id","x"],"end_record":true}}"#);
            let answer = running.export_with("seven", "broken", &body, head).await;
            assert_eq!((answer.status, answer.end), (200, BodyEnd::Broken), "{head}{format}");
            assert!(!answer.body.is_empty() && answer.trailers.is_empty());
            let receipt = running.receipt("seven", &answer).await;
            assert_eq!((&receipt["status"], &receipt["rows"]), (&json!("failed"), &Value::Null), "{receipt}");
            assert!(receipt["error"]["code"].as_str().unwrap().starts_with("source_"), "{receipt}");
            assert!(!receipt.to_string().contains("11000"), "no SQL: {receipt}");
        }
    }
    running.stop().await;
    // A bug that ends the pump breaks its stream off too.
    let panics = Service::with(&text, |command| command.env("OUTHAUL_TEST_PANIC", "pumping")).await;
    let answer = panics.export_with("seven", "orders", r#"{"columns":["id"]}"#, "TE: trailers\r\n").await;
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Broken));
    let failed = async || (panics.receipt("seven", &answer).await["status"] == "failed").then_some(());
    eventually(LIMIT, "the record of it", failed).await;
    drop(panics);
    // The abort is what does it.
    let without = Service::with(&text, |command| command.env("OUTHAUL_TEST_OFF", "abort")).await;
    let answer = without.export("seven", "broken", r#"{"columns":["id","x"]}"#).await;
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "it broke off for another reason");
}

#[tokio::test]
async fn no_rows_are_told_at_once_and_http_1_0_has_no_streams() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    for format in ["ndjson", "csv"] {
        let body = format!(r#"{{"format":"{format}","columns":["id"]}}"#);
        let answer = service.export("seven", "empty", &body).await;
        assert_eq!(answer.problem(404, "no_data")["message"], "No data matches your filters");
        let body = format!(r#"{{"format":"{format}","columns":["id"],"allow_empty":true}}"#);
        let answer = service.export("seven", "empty", &body).await;
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole), "{}", answer.text());
        assert_eq!(answer.text(), if format == "csv" { "id\r\n" } else { "" });
        assert_eq!(service.receipt("seven", &answer).await["rows"], 0);
    }
    let old = request("POST", "seven", "/v1/query/orders/export", r#"{"columns":["id"]}"#, "")
        .replace("HTTP/1.1", "HTTP/1.0");
    let problem = service.ask(&old).await.problem(505, "http_version");
    assert!(problem["detail"].as_str().unwrap().contains("proxy_http_version 1.1"), "{problem}");
    service.stop().await;
}

#[tokio::test]
async fn codings_are_one_member_with_the_same_bytes() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    let body = r#"{"columns":["id","note","created_at"]}"#;
    let plain = service.export("seven", "orders", body).await;
    let crc = crc64nvme(&plain.body);
    for coding in ["gzip", "zstd"] {
        let coded = service.export_with("seven", "orders", body, &format!("Accept-Encoding: {coding}\r\n")).await;
        assert_eq!((coded.header("content-encoding"), coded.end), (Some(coding), BodyEnd::Whole));
        assert!(coded.body.len() < plain.body.len() / 4, "{} bytes", coded.body.len());
        let mut text = Vec::new();
        // Readers of exactly one member or frame.
        match coding {
            "gzip" => flate2::read::GzDecoder::new(&*coded.body).read_to_end(&mut text).unwrap(),
            _ => zstd::stream::read::Decoder::new(&*coded.body).unwrap().single_frame().read_to_end(&mut text).unwrap(),
        };
        assert!(text == plain.body, "{coding}");
        assert_eq!(service.receipt("seven", &coded).await["crc64nvme"], crc, "of the bytes before coding");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_proxy_that_cuts_or_strips_deceives_nobody() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    let body = r#"{"columns":["id","note"],"end_record":true}"#;
    // Without TE, as a proxy leaves it: the end record and the receipt still say it.
    let whole = service.export("seven", "orders", body).await;
    assert!(whole.text().trim_end().lines().last().unwrap().starts_with("{\"$end\""));
    // Cut anywhere, the body has no end and no end record.
    let wire = {
        let mut stream =
            service.connect(&request("POST", "seven", "/v1/query/orders/export", body, "TE: trailers\r\n")).await;
        let mut wire = Vec::new();
        stream.read_to_end(&mut wire).await.unwrap();
        wire
    };
    assert_eq!(Answer::parse(&wire).end, BodyEnd::Whole);
    for cut in (wire.len() / 2..wire.len()).step_by(wire.len() / 40).chain([wire.len() - 1, wire.len() - 2]) {
        assert_eq!(Answer::parse(&wire[..cut]).end, BodyEnd::Broken, "{cut} of {} bytes", wire.len());
    }
    service.stop().await;
}

/// The statement of a page, and none of those that describe the dataset before there is a stream.
const ACTIVE: &str = "select count(*) from pg_stat_activity where datname = current_database()
    and application_name like 'outhaul/%' and state = 'active' and query like 'COPY%pg_sleep%'";

#[tokio::test]
async fn a_client_that_goes_away_ends_the_query() {
    let pg = orders().await;
    let service = Service::start(&service(&pg)).await;
    let connection =
        service.connect(&request("POST", "seven", "/v1/query/slow/export", r#"{"columns":["id","nap"]}"#, "")).await;
    eventually(LIMIT, "the query", async || (pg.value(ACTIVE).await == "1").then_some(())).await;
    drop(connection);
    eventually(LIMIT, "its end", async || (pg.value(ACTIVE).await == "0").then_some(())).await;
    service.process.stderr_has("a stream ended").await;
    service.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nothing_and_meets_its_deadline() {
    let pg = orders().await;
    pg.batch(
        "insert into orders select 100000 + i, 7, 1, 1, repeat('x', 1000), now(), '' from generate_series(1, 60000) i",
    )
    .await;
    let text = format!("{}[limits]\nwrite_deadline = \"2s\"\n", service(&pg));
    let service = Service::start(&text).await;
    let ask = request("POST", "seven", "/v1/query/orders/export", r#"{"columns":["id","note"]}"#, "");
    let mut silent = service.connect(&ask).await;
    let mut first = [0; 1_000];
    silent.read_exact(&mut first).await.unwrap();
    let id = std::str::from_utf8(&first).unwrap().split("x-outhaul-export-id: ").nth(1).unwrap()[..32].to_owned();
    let held = "select count(*) from pg_stat_activity where datname = current_database()
        and application_name like 'outhaul/%' and (state <> 'idle' or backend_xmin is not null)";
    eventually(LIMIT, "nothing held", async || (pg.value(held).await == "0").then_some(())).await;
    // Others are served meanwhile.
    let other = service.export("few", "orders", r#"{"columns":["id"]}"#).await;
    assert_eq!((other.status, other.end), (200, BodyEnd::Whole));
    assert_eq!(service.get("seven", &format!("/v1/exports/{id}")).await.json()["status"], "streaming");
    let ended = async || {
        let receipt = service.get("seven", &format!("/v1/exports/{id}")).await.json();
        (receipt["status"] == "cancelled").then_some(())
    };
    eventually(LIMIT, "the deadline", ended).await;
    // What was in the sockets comes, and no clean end.
    let mut rest = first.to_vec();
    let _ = silent.read_to_end(&mut rest).await;
    assert_eq!(Answer::parse(&rest).end, BodyEnd::Broken);
    service.stop().await;
}
