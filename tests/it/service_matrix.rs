//! `outhaul serve`: rows of the fault matrix and of OWASP's list of 2023, one test each. Others of them are in the files
//! beside this one: a name says which row it holds.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::support::eventually;
use crate::support::pg::{Pg, pg};
use crate::support::run::outhaul;
use crate::support::service::{BodyEnd, Service, digest, key, request};
use crate::support::tls::{Authority, LOCAL};

const LIMIT: Duration = Duration::from_secs(20);

/// Rows of the tenant: more than a page.
const ROWS: usize = 12_000;

/// Which statements of the service wait within their second page.
const NAPPING: &str = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'
    and application_name like 'outhaul/%' and wait_event = 'PgSleep'";

async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, tenant text not null, note text, secret text);
        insert into orders select i, 'acme', 'note ' || i, 'canary-column' from generate_series(1, {ROWS}) i;
        insert into orders select 100000 + i, 'canary-tenant', 'canary-note', 'canary-column' from generate_series(1, 500) i;
        create table guarded (id int primary key, tenant text, note text);
        insert into guarded select id, tenant, note from orders where id <= 20 or id > 100000;
        alter table guarded enable row level security;
        create policy own on guarded using (tenant = current_setting('app.tenant'));
        create function nap(bigint) returns text immutable cost 10000 language plpgsql as
            'begin if $1 = 11000 then perform pg_sleep(25); end if; return null; end';
        create table texts (id int primary key, note text, formula text);
        insert into texts values (1, '=1+1', '=1+1'), (2, '@x', '+2'), (3, 'plain', '-3'), (4, '-4', null);
        analyze"
    ))
    .await;
    pg
}

fn service(url: &str) -> String {
    let trusted = digest("backend");
    format!(
        "{}{}{}
[[key]]
name = \"backend\"
sha256 = \"{trusted}\"
datasets = [\"*\"]
may_assert = true
[source.shop]
from = \"{url}\"
[dataset.orders]
table = \"orders\"
tenant = \"tenant = {{tenant}}\"
[dataset.orders.columns]
id = {{}}
tenant = {{}}
note = {{}}
[dataset.orders.analysis.by_note]
dimensions = [\"note\"]
measures = [\"count\", \"min(tenant)\"]
[dataset.guarded]
table = \"guarded\"
tenant_setting = \"app.tenant\"
[dataset.guarded.columns]
id = {{}}
tenant = {{}}
note = {{}}
[dataset.guarded.analysis.by_note]
dimensions = [\"note\"]
measures = [\"count\", \"min(tenant)\"]
[dataset.naps]
query = \"select id, note, nap(id) as nap from orders\"
key = \"id\"
[dataset.naps.columns]
id = {{}}
note = {{}}
nap = {{}}
[dataset.texts]
table = \"texts\"
csv_header = \"labels\"
[dataset.texts.columns]
id = {{}}
note = {{ label = \"Note\" }}
formula = {{ label = \"=formula\", raw = true }}
made = {{ expr = \"formula\", raw = true }}
",
        key("acme-key", "acme", "enterprise"),
        key("nobody", "nobody", "enterprise"),
        key("canary-key", "canary-tenant", "enterprise"),
    )
}

/// curl's exit code, the head and trailers that it saw, and its body.
async fn curl(service: &Service, words: &[&str], dataset: &str, body: &str) -> (Option<i32>, String, Vec<u8>) {
    let url = format!("http://{}/v1/query/{dataset}/export", service.address);
    let folder = tempfile::tempdir().unwrap();
    let head = folder.path().join("head");
    let child = Command::new("curl")
        .args(["-sS", "-N", "-H", "Authorization: Bearer acme-key", "-d", body, "-D"])
        .arg(&head)
        .args(words)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    (child.status.code(), std::fs::read_to_string(head).unwrap_or_default(), child.stdout)
}

#[tokio::test]
async fn h1_a_source_that_dies_behind_the_first_byte_breaks_the_stream_off_in_every_version() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    let body = r#"{"columns":["id","nap"],"end_record":true}"#;
    for (words, codes) in [(&["--http1.1"][..], &[18][..]), (&["--http2-prior-knowledge", "-H", "TE: trailers"], &[92])]
    {
        let killed = async {
            eventually(LIMIT, "the second page", async || (pg.value(NAPPING).await == "1").then_some(())).await;
            pg.value(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database()
                    and wait_event = 'PgSleep'",
            )
            .await
        };
        let ((code, head, body), _) = tokio::join!(curl(&service, words, "naps", body), killed);
        assert!(code.is_some_and(|code| codes.contains(&code)), "{words:?}: {code:?}");
        // The first page came, and nothing says that it was all.
        let text = String::from_utf8(body).unwrap();
        assert!(text.starts_with("{\"id\":1,") && !text.contains("$end"), "{words:?}");
        assert!(!head.contains("x-outhaul-export-rows:"), "{words:?}: {head}");
        let id = head.lines().find_map(|line| line.strip_prefix("x-outhaul-export-id: ")).unwrap().trim().to_owned();
        let receipt = service.get("acme-key", &format!("/v1/exports/{id}")).await.json();
        assert_eq!((&receipt["status"], &receipt["rows"]), (&json!("failed"), &Value::Null), "{receipt}");
        assert_eq!(receipt["error"]["code"], "source_unavailable", "{receipt}");
    }
    service.stop().await;
}

#[tokio::test]
async fn h2_trailers_come_over_http_2_too() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    let words = ["--http2-prior-knowledge", "-H", "TE: trailers"];
    let (code, head, body) = curl(&service, &words, "orders", r#"{"columns":["id"]}"#).await;
    assert_eq!((code, String::from_utf8(body).unwrap().lines().count()), (Some(0), ROWS));
    assert!(head.contains(&format!("x-outhaul-export-rows: {ROWS}")), "{head}");
    service.stop().await;
}

#[tokio::test]
async fn h3_a_client_of_http_2_that_leaves_ends_its_query() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    let url = format!("http://{}/v1/query/naps/export", service.address);
    let mut child = Command::new("curl")
        .args(["-sS", "--http2-prior-knowledge", "-H", "Authorization: Bearer acme-key", "-o", "/dev/null", "-d"])
        .args([r#"{"columns":["id","nap"]}"#, &url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually(LIMIT, "the query", async || (pg.value(NAPPING).await == "1").then_some(())).await;
    child.kill().await.unwrap();
    let began = Instant::now();
    eventually(LIMIT, "its end", async || (pg.value(NAPPING).await == "0").then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn h10_a_page_goes_out_while_the_next_one_is_read_whatever_the_coding() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    for coding in ["identity", "gzip", "zstd"] {
        let head = format!("Accept-Encoding: {coding}\r\n");
        let body = r#"{"columns":["id","note","nap"]}"#;
        let mut stream = service.connect(&request("POST", "acme-key", "/v1/query/naps/export", body, &head)).await;
        let mut wire = Vec::new();
        let of_body =
            |wire: &[u8]| wire.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |end| wire.len() - end);
        // More than the coding itself begins with: rows of the first page.
        let first = async {
            while of_body(&wire) < 300 {
                assert!(stream.read_buf(&mut wire).await.unwrap() > 0, "{coding}: it ended");
            }
        };
        crate::support::within(LIMIT, "the first page", first).await;
        let text = String::from_utf8_lossy(&wire).into_owned();
        assert!(text.contains("x-accel-buffering: no"), "{text}");
        eventually(LIMIT, "the second page", async || (pg.value(NAPPING).await == "1").then_some(())).await;
        drop(stream);
        eventually(LIMIT, "its end", async || (pg.value(NAPPING).await == "0").then_some(())).await;
    }
    service.stop().await;
}

/// Rows, estimate, groups, and the rows of each group: all that a dataset answers.
pub(crate) async fn all_answers(service: &Service, key: &str, head: &str, dataset: &str) -> Vec<(String, u16, String)> {
    let columns = r#"{"columns":["id","tenant","note"]}"#;
    let mut all = Vec::new();
    let mut ask = async |path: String, body: String| {
        let answer = service.post(key, &path, &body, head).await;
        let text = answer.text().to_owned();
        all.push((path, answer.status, text.clone()));
        text
    };
    ask(format!("/v1/query/{dataset}/export"), columns.to_owned()).await;
    ask(format!("/v1/query/{dataset}/export"), columns.replacen('{', "{\"format\":\"csv\",", 1)).await;
    ask(format!("/v1/query/{dataset}/export"), columns.replacen('{', "{\"allow_empty\":true,\"end_record\":true,", 1))
        .await;
    ask(format!("/v1/query/{dataset}/estimate"), columns.to_owned()).await;
    let found = ask(
        format!("/v1/analyze/{dataset}/by_note"),
        r#"{"where":[{"column":"id","op":">","value":11990}]}"#.to_owned(),
    )
    .await;
    let found: Value = serde_json::from_str(&found).unwrap();
    for bucket in found["buckets"].as_array().into_iter().flatten().take(3) {
        let body = json!({"bucket_key": bucket["bucket_key"], "columns": ["id", "tenant", "note"]}).to_string();
        ask(format!("/v1/analyze/{dataset}/by_note/rows/export"), body).await;
    }
    all
}

#[tokio::test]
async fn owasp_1_no_path_shows_counts_or_estimates_the_canaries_of_another_tenant() {
    let pg = orders().await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!("grant select on guarded, orders, texts to {role}")).await;
    let service = Service::start(&service(&url)).await;
    let trusted = "X-Outhaul-Tier: enterprise\r\nX-Outhaul-Tenant: acme\r\n";
    for dataset in ["orders", "guarded"] {
        for (key, head) in [("acme-key", ""), ("backend", trusted)] {
            for (path, status, text) in all_answers(&service, key, head, dataset).await {
                assert!(status == 200, "{dataset} {path}: {status} {text}");
                assert!(!text.contains("canary"), "{dataset} {path}: {text}");
            }
        }
        // Somebody without rows learns of none: not by a count, not by a group.
        for (path, status, text) in all_answers(&service, "nobody", "", dataset).await {
            let right = match status {
                404 => text.contains("no_data"),
                200 if path.ends_with("estimate") => serde_json::from_str::<Value>(&text).unwrap()["rows"] == 0,
                200 if path.ends_with("by_note") => text.contains("\"buckets\":[]"),
                200 => text.starts_with("{\"$end\"") && text.contains("\"rows\":0"),
                _ => false,
            };
            assert!(right, "{dataset} {path}: {status} {text}");
        }
        // The canaries are there for whom they are.
        let own = all_answers(&service, "canary-key", "", dataset).await;
        assert!(
            own.iter().filter(|(path, ..)| !path.ends_with("estimate")).all(|(_, _, text)| text.contains("canary"))
        );
    }
    // The audit of one tenant has nothing of another.
    let audit = crate::service_access::reqwest_free_get(&service.admin, "/audit?tenant=nobody").await;
    assert!(audit.starts_with("HTTP/1.1 200") && !audit.contains("canary"), "{audit}");
    service.stop().await;
}

#[tokio::test]
async fn owasp_4_and_h8_bodies_without_measure_are_refused_before_they_are_read() {
    let pg = orders().await;
    let text = service(&pg.url);
    let service = Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", "request_body=1")).await;
    let head =
        "POST /v1/query/orders/export HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer acme-key\r\n";
    let began = Instant::now();
    for (what, framing, sent, status) in [
        ("a gigabyte", "Content-Length: 1073741824\r\n\r\n", "{".repeat(20_000), "400"),
        ("no end", "Transfer-Encoding: chunked\r\n\r\n", "4000\r\n".to_owned() + &" ".repeat(0x4000) + "\r\n", "400"),
        ("too slow", "Content-Length: 100\r\n\r\n", "{".to_owned(), "408"),
        ("too slow from the start", "Transfer-Encoding: chunked\r\n\r\n", String::new(), "408"),
    ] {
        let mut stream = service.connect(&format!("{head}{framing}")).await;
        // It may have answered, and closed, before all of it is sent.
        let _ = stream.write_all(sent.as_bytes()).await;
        let mut wire = Vec::new();
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut wire)).await.unwrap();
        let text = String::from_utf8_lossy(&wire);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {text}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn owasp_5_the_operator_s_paths_are_not_on_the_public_address_however_they_are_written() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    for path in [
        "/metrics",
        "/%6detrics",
        "//metrics",
        "/v1/../metrics",
        "/metrics/",
        "/audit?tenant=canary-tenant",
        "/healthz",
        "/readyz",
        "/v1/audit?tenant=acme",
    ] {
        for method in ["GET", "POST", "HEAD"] {
            let answer = service.ask(&request(method, "acme-key", path, "", "")).await;
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn raw_columns_stay_as_they_are_and_the_receipt_counts_what_the_guard_did() {
    let pg = orders().await;
    let service = Service::start(&service(&pg.url)).await;
    let body = r#"{"format":"csv","columns":["id","note","formula","made"]}"#;
    let answer = service.export("acme-key", "texts", body).await;
    let expected = "id,Note,'=formula,made\r\n1,'=1+1,=1+1,=1+1\r\n2,'@x,+2,+2\r\n3,plain,-3,-3\r\n4,'-4,,\r\n";
    assert_eq!((answer.status, answer.end, answer.text()), (200, BodyEnd::Whole, expected));
    let receipt = service.receipt("acme-key", &answer).await;
    let notes = receipt["notes"].to_string();
    assert!(notes.contains("3 values of Note got a ' in front"), "{receipt}");
    // NDJSON has no guard, and says nothing of one.
    let answer = service.export("acme-key", "texts", r#"{"columns":["note","made"]}"#).await;
    assert!(answer.text().starts_with("{\"note\":\"=1+1\",\"made\":\"=1+1\"}\n"), "{}", answer.text());
    assert!(!service.receipt("acme-key", &answer).await["notes"].to_string().contains("in front"));
    service.stop().await;
}

#[tokio::test]
async fn pull_over_https_trusts_the_authority_that_is_named_and_no_other() {
    let pg = orders().await;
    let (authority, stranger) = (Authority::new("ec"), Authority::new("ec"));
    let (local, elsewhere) = (authority.issue("service", LOCAL, 10), authority.issue("service", "DNS:example.com", 10));
    for (certificate, trusted, code, said) in [
        (&local, &authority, 0, ""),
        (&local, &stranger, 10, "certificate"),
        (&elsewhere, &authority, 10, "certificate"),
    ] {
        let (crt, private) = (certificate.certificate.display(), certificate.key.display());
        let service =
            Service::start(&format!("tls_cert = \"{crt}\"\ntls_key = \"{private}\"\n{}", service(&pg.url))).await;
        let url = format!("https://{}", service.address);
        let line = ["pull", &url, "--dataset", "orders", "--columns", "id", "-o", "-"];
        let command = outhaul(line).env("OUTHAUL_API_KEY", "acme-key").env("SSL_CERT_FILE", trusted.certificate());
        let run = command.run().await.expect(code);
        assert!(run.stderr.contains(said) && !run.stderr.contains("acme-key"), "{}", run.stderr);
        assert_eq!(run.stdout.split_inclusive(|byte| *byte == b'\n').count(), if code == 0 { ROWS } else { 0 });
        drop(service);
    }
}
