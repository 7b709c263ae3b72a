//! `outhaul pull` and `client.js` against `outhaul serve` itself: whole, capped and broken streams, and refusals.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clients;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, outhaul, program};
use crate::support::service::{Service, key};

/// More than a page.
const ROWS: u64 = 12_000;

const CAP: u64 = 10_500;

async fn started() -> (Pg, Service) {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, note text);
         insert into orders select 9007199254740992 + i, E'two\\nlines, \"ü\" ' || i from generate_series(1, {ROWS}) i;
         create function slept(id bigint) returns text language plpgsql immutable as
            'begin perform pg_sleep(0.005); return null; end';
         analyze"
    ))
    .await;
    let (url, all, few) = (&pg.url, key("whole", "7", "all"), key("capped", "7", "few"));
    let text = format!(
        "{all}{few}
[source.shop]
from = \"{url}\"
[tier.all]
max_rows = \"unlimited\"
[tier.few]
max_rows = {CAP}
[dataset.orders]
table = \"public.orders\"
[dataset.orders.columns]
id = {{}}
note = {{}}
[dataset.slow]
query = \"select id, slept(id) as slept from orders\"
key = \"id\"
[dataset.slow.columns]
id = {{}}
slept = {{}}
[dataset.broken]
query = \"select id, 100 / (9007199254751992 - id) as x from orders\"
key = \"id\"
[dataset.broken.columns]
id = {{}}
x = {{}}
"
    );
    let service = Service::start(&text).await;
    (pg, service)
}

fn pull(service: &Service, dataset: &str, columns: &str, more: &[&str]) -> Outhaul {
    let url = format!("http://{}", service.address);
    let words = ["pull", &url, "--dataset", dataset, "--columns", columns];
    outhaul(words.iter().chain(more))
}

#[tokio::test]
async fn pull_tells_whole_capped_and_broken_streams_of_the_service_apart() {
    let (pg, service) = started().await;
    let folder = tempfile::tempdir().unwrap();
    for format in ["csv", "ndjson"] {
        let path = folder.path().join(format!("whole.{format}"));
        let words = ["-o", path.to_str().unwrap(), "--format", format, "--json"];
        let run = pull(&service, "orders", "id,note", &words).env("OUTHAUL_API_KEY", "whole").run().await.expect(0);
        let text = std::fs::read_to_string(&path).unwrap();
        let facts = (&run.report["rows"], &run.report["proof"], &run.report["bytes"]);
        assert_eq!(facts, (&json!(ROWS), &json!("receipt"), &json!(text.len())), "{format}: {}", run.stderr);
        assert!(!text.contains("$end") && text.contains("9007199254752992"), "{format}");

        let path = folder.path().join(format!("capped.{format}"));
        let words = ["-o", path.to_str().unwrap(), "--format", format, "--json"];
        let run = pull(&service, "orders", "id,note", &words).env("OUTHAUL_API_KEY", "capped").run().await.expect(3);
        assert_eq!((&run.report["rows"], &run.report["max_rows"]), (&json!(CAP), &json!(CAP)), "{format}");
        assert!(text.starts_with(&std::fs::read_to_string(&path).unwrap()), "{format}");

        let path = folder.path().join(format!("broken.{format}"));
        let words = ["-o", path.to_str().unwrap(), "--format", format];
        let run = pull(&service, "broken", "id,x", &words).env("OUTHAUL_API_KEY", "whole").run().await;
        assert!(run.code != 0 && run.code != 3 && !path.exists(), "{format}: {}", run.stderr);
        assert!(run.stderr.contains("the stream failed"), "{format}: {}", run.stderr);
    }
    let run = pull(&service, "nothing", "id", &["-o", "-"]).env("OUTHAUL_API_KEY", "whole").run().await.expect(13);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    pull(&service, "orders", "id", &["-o", "-"]).env("OUTHAUL_API_KEY", "nobody").run().await.expect(10);
    let none = ["-o", "-", "--filter", "id=1"];
    pull(&service, "orders", "id", &none).env("OUTHAUL_API_KEY", "whole").run().await.expect(14);
    service.stop().await;
    drop(pg);
}

#[tokio::test]
async fn the_client_tells_whole_capped_and_broken_streams_of_the_service_apart() {
    let (pg, service) = started().await;
    let url = format!("http://{}", service.address);
    let mut cases = serde_json::Map::new();
    for format in ["ndjson", "csv"] {
        for (name, dataset, columns, key) in [
            ("whole", "orders", ["id", "note"], "whole"),
            ("capped", "orders", ["id", "note"], "capped"),
            ("broken", "broken", ["id", "x"], "whole"),
        ] {
            let options = json!({"dataset": dataset, "columns": columns, "format": format, "apiKey": key});
            cases.insert(format!("{name} {format}"), options);
        }
    }
    // The page of the browser is the service's own: its scripts, and no other origin.
    for place in ["node", "chromium"] {
        let results = clients::run(place, &url, "whole", &json!({"cases": cases, "page": "/client.js"})).await;
        for format in ["ndjson", "csv"] {
            let of = |name: &str| &results[format!("{name} {format}")];
            assert_eq!(
                (&of("whole")["rows"], &of("whole")["error"]),
                (&json!(ROWS), &Value::Null),
                "{place}: {}",
                of("whole")
            );
            assert!(of("whole")["first"].as_str().unwrap().contains("9007199254740993"), "{place}");
            let end = json!({"kind": "truncated", "actualRows": CAP, "maxRows": CAP});
            assert_eq!((&of("capped")["end"], &of("capped")["rows"]), (&end, &json!(CAP)), "{place}: {}", of("capped"));
            assert_eq!(of("broken")["error"]["name"], "ExportError", "{place}: {}", of("broken"));
            assert_ne!(of("broken")["error"]["code"], "broken_stream", "{place}: the receipt says why");
        }
    }
    service.stop().await;
    drop(pg);
}

#[tokio::test]
async fn the_client_drives_the_background_exports_of_the_service() {
    let (pg, service) = started().await;
    let [script, client] = ["tests/support/client_jobs.mjs", "src/service/client/client.js"]
        .map(|path| format!("{}/{path}", env!("CARGO_MANIFEST_DIR")));
    let asked = json!({"url": format!("http://{}", service.address)});
    let node = program("node", [script, client]).env("CLIENT_TEST", asked.to_string()).limit(Duration::from_mins(2));
    let seen = node.run().await.expect(0).report;
    assert_eq!(seen["datasets"], json!(["broken", "orders", "slow"]));
    assert_eq!((&seen["estimate"]["rows"], &seen["estimate"]["kind"]), (&json!(ROWS), &json!("exact")));
    assert_eq!((&seen["same"], &seen["reused"]), (&json!(true), &json!(["idempotency_key_reused", 422])));
    let last = seen["events"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["status"], &last["processed_rows"], &last["percent"]),
        (&json!("complete"), &json!(ROWS), &json!(100))
    );
    let job = &seen["job"];
    assert_eq!(
        (&job["rows"], &job["truncated"], &job["compression"]),
        (&json!(ROWS), &json!(false), &json!("gzip")),
        "{job}"
    );
    let files = &seen["files"];
    let rows: u64 = files["parts"].as_array().unwrap().iter().map(|part| part["rows"].as_u64().unwrap()).sum();
    assert_eq!((rows, &files["rows"], &seen["link"]), (ROWS, &json!(ROWS), &json!(200)), "{files}");
    let followed = seen["followed"].as_array().unwrap();
    assert_eq!(followed.last(), Some(&json!("cancelled")), "{followed:?}");
    assert_eq!(seen["pages"], json!([[0, 1], [2]]), "the newest first, each once");
    assert_eq!(seen["removed"], json!(["expired", 410, ["expired", 410]]));
    assert_eq!(seen["none"], json!(["export_not_found", 404]));
    // The types name what is there.
    let types =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/service/client/client.d.ts")).unwrap();
    for (name, value) in [("Job", job), ("JobEvent", last)] {
        let known = types.split("export interface Job {").nth(1).unwrap().split("\n}").next().unwrap();
        let more = types.split("export type JobEvent").nth(1).unwrap().split("\n};").next().unwrap();
        for field in value.as_object().unwrap().keys() {
            let there = |text: &str| text.contains(&format!("  {field}: ")) || text.contains(&format!("'{field}'"));
            assert!(there(known) || (name == "JobEvent" && there(more)), "{name}.{field}");
        }
    }
    service.stop().await;
    drop(pg);
}
