//! `outhaul serve`: the files of an export that is ready, by links and by its tenant's key.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::job::crc64nvme;
use crate::support::pg::{Pg, pg};
use crate::support::run::outhaul;
use crate::support::s3::s3;
use crate::support::service::{Answer, BodyEnd, Service, digest, key};
use crate::support::{eventually, within};

const ROWS: usize = 25_000;

/// Rows of the file that is cut: as many, unless a soak says more.
fn cut_rows() -> usize {
    std::env::var("OUTHAUL_TEST_DOWNLOAD_ROWS").map_or(ROWS, |number| number.parse().unwrap())
}

/// Rows of two kilobytes: 50 MB of text.
async fn orders(rows: usize) -> Pg {
    let pg = pg(18).await;
    pg.batch(&format!(
        "create table orders (id bigint primary key, tenant text not null, note text not null);
        insert into orders select n, 'acme', md5(n::text) || repeat(n::text || ' ', 1968 / (length(n::text) + 1))
            from generate_series(1, {rows}) n;
        analyze",
    ))
    .await;
    pg
}

fn config(pg: &Pg, more: &str) -> String {
    format!(
        "{more}
{}{}
[[key]]
name = \"narrow\"
sha256 = \"{}\"
tenant = \"acme\"
tier = \"free\"
datasets = [\"vip\"]
[source.shop]
from = \"{}\"
[dataset.orders]
table = \"orders\"
tenant = \"tenant = {{tenant}}\"
[dataset.orders.columns]
id = {{}}
[dataset.vip]
table = \"orders\"
tenant = \"tenant = {{tenant}}\"
[dataset.vip.columns]
id = {{}}
",
        key("acme-key", "acme", "free"),
        key("other-key", "globex", "free"),
        digest("narrow-key"),
        pg.url
    )
}

/// An export of the command line, as a job of this name would leave it.
async fn export(pg: &Pg, to: &str, words: &[&str], environment: &[(&'static str, String)]) {
    let mut line = vec!["export", "--from", &pg.url, "--table", "orders", "--to", to];
    line.extend(words);
    let command = outhaul(line);
    environment.iter().fold(command, |command, (name, value)| command.env(name, value)).run().await.expect(0);
}

/// Writes down that the export is of a job of `acme`.
fn record(service: &Service, id: &str, destination: &str, format: &str) {
    let now = Utc::now().timestamp_micros();
    let file = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    file.execute(
        "INSERT INTO job (id, tenant, credential, request_id, dataset, mode, request, format, compression, file_name, destination,
             status, attempt, forgiven, row_count, bytes, parts, committing, created_at, completed_at, expires_at, revocation, version,
             not_before, truncated, removed)
         VALUES (?1, 'tenant:acme', 'acme-key', 'r', 'orders', 'background', '{}', ?2, 'none', 'orders', ?3,
             'complete', 1, 0, 0, 0, 0, 0, ?4, ?4, ?5, 0, 1, ?4, 0, 0)",
        (id, format, destination, now, now + 3_600_000_000),
    )
    .unwrap();
}

/// Changes the record as the store would.
fn change(service: &Service, id: &str, what: &str) {
    let file = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    assert_eq!(file.execute(&format!("UPDATE job SET {what} WHERE id = ?1"), [id]).unwrap(), 1);
}

fn url_of(folder: &Path) -> String {
    format!("file://{}", folder.to_str().unwrap())
}

/// Follows a link, which is all that its holder has.
async fn follow(service: &Service, link: &str, head: &str) -> Answer {
    follow_by(service, "GET", link, head).await
}

async fn follow_by(service: &Service, method: &str, link: &str, head: &str) -> Answer {
    service.ask(&format!("{method} {link} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n")).await
}

/// What curl makes of a link.
async fn curled(service: &Service, link: &str, words: &[&str]) -> Vec<u8> {
    let url = format!("http://{}{link}", service.address);
    let output = Command::new("curl").args(["--silent", "--fail", &url]).args(words).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name}: {value}"))
}

/// The lists of links of an export.
async fn list(service: &Service, id: &str) -> Value {
    let answer = service.get("acme-key", &format!("/v1/exports/{id}/manifest")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_download_goes_on_after_a_cut_at_any_byte_and_is_what_the_manifest_says() {
    let rows = cut_rows();
    let pg = orders(rows).await;
    let service = Service::start(&config(&pg, "")).await;
    let folder = service.folder.path().join("files");
    export(&pg, &url_of(&folder), &["--format", "csv", "--readers", "2", "--part-size", "8MiB", "--csv-bom"], &[])
        .await;
    record(&service, "one", &url_of(&folder), "csv");
    let listed = list(&service, "one").await;
    let link = text(&listed, "download_url");
    let head = follow_by(&service, "HEAD", link, "").await;
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert!(length > 1_960 * rows && head.body.is_empty() && head.status == 200, "{head:?}");
    let etag = head.header("etag").unwrap().to_owned();
    assert!(!etag.starts_with("W/"));
    // The connection is lost at a random byte.
    let at = usize::try_from(rand::random::<u32>()).unwrap() % length;
    let mut body = follow(&service, link, "").await.body;
    assert_eq!(body.len(), length);
    body.truncate(at);
    let rest = follow(&service, link, &format!("Range: bytes={at}-\r\nIf-Range: {etag}\r\n")).await;
    assert_eq!((rest.status, rest.end), (206, BodyEnd::Whole));
    assert_eq!(rest.header("content-range"), Some(format!("bytes {at}-{}/{length}", length - 1).as_str()));
    body.extend_from_slice(&rest.body);
    // Each part is its header and its share of the file.
    let mut before = 0;
    let parts = listed["parts"].as_array().unwrap();
    assert!(parts.len() > 4);
    let size = |part: &Value, name: &str| usize::try_from(part[name].as_u64().unwrap()).unwrap();
    let header = body[..size(&parts[0], "header_bytes")].to_vec();
    assert!(header.starts_with(b"\xef\xbb\xbfid,tenant,note"));
    for (number, part) in parts.iter().enumerate() {
        let (whole, front) = (size(part, "bytes"), size(part, "header_bytes"));
        let skipped = if number == 0 { 0 } else { front };
        let share = &body[before..before + whole - skipped];
        before += share.len();
        let object = [&header[..skipped], share].concat();
        assert_eq!(crc64nvme(&object), text(part, "crc64nvme"), "part {number}, cut at {at}");
    }
    assert_eq!(before, body.len());
    assert_eq!(body.split(|byte| *byte == b'\n').count() - 1, rows + 1);
    // What a client has of another file is not made longer with this one.
    let stale = follow(&service, link, "Range: bytes=7-9\r\nIf-Range: \"another\"\r\n").await;
    assert_eq!((stale.status, stale.body.len()), (200, length));
    let beyond = follow(&service, link, &format!("Range: bytes={length}-\r\n")).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(format!("bytes */{length}").as_str())));
    let said = service.stop().await;
    assert!(!said.contains("sig=") && said.contains("/download") == said.contains("exp="), "{said}");
}

#[tokio::test]
async fn compressed_parts_join_and_parquet_is_a_list() {
    let pg = orders(ROWS).await;
    pg.batch("delete from orders where id % 8 <> 0").await;
    let service = Service::start(&config(&pg, "")).await;
    for (id, format, compression) in
        [("gz", "csv", "gzip"), ("zst", "csv", "zstd"), ("lines", "ndjson", "gzip"), ("parquet", "parquet", "zstd")]
    {
        let folder = service.folder.path().join(id);
        let words = ["--format", format, "--compression", compression, "--partitions", "3"];
        export(&pg, &url_of(&folder), &words, &[]).await;
        record(&service, id, &url_of(&folder), format);
        let listed = list(&service, id).await;
        let parts = listed["parts"].as_array().unwrap();
        assert!(parts.len() > 1, "{listed}");
        for (number, part) in parts.iter().enumerate() {
            let answer = follow(&service, text(part, "url"), "").await;
            assert_eq!(crc64nvme(&answer.body), text(part, "crc64nvme"), "{id} {number}");
            assert!(answer.header("content-disposition").unwrap().contains(&format!("orders-{number:05}.{format}")));
        }
        let answer = service.get("acme-key", &format!("/v1/exports/{id}/download")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-encoding"), None);
        if !listed["download_url"].is_null() {
            let content_type = if compression == "gzip" { "application/gzip" } else { "application/zstd" };
            assert_eq!(answer.header("content-type"), Some(content_type));
            let name = format!("orders.{format}.{}", if compression == "gzip" { "gz" } else { "zst" });
            assert_eq!(answer.header("content-disposition"), Some(format!("attachment; filename=\"{name}\"").as_str()));
            // official-stockfish/fishtest#1966: what unpacks on the way stops behind the first member.
            assert!(curled(&service, text(&listed, "download_url"), &["--compressed"]).await == answer.body, "{id}");
        }
        let mut lines = String::new();
        match compression {
            "gzip" => drop(flate2::read::MultiGzDecoder::new(&answer.body[..]).read_to_string(&mut lines).unwrap()),
            _ if format == "csv" => {
                lines = String::from_utf8(zstd::stream::decode_all(&answer.body[..]).unwrap()).unwrap();
            }
            _ => {
                assert!(listed["download_url"].is_null());
                assert_eq!(answer.json()["parts"], listed["parts"]);
                continue;
            }
        }
        let header = usize::from(format == "csv");
        assert_eq!(lines.lines().count(), ROWS / 8 + header, "{id}");
        assert_eq!(lines.matches("id,tenant,note").count(), header, "{id}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_link_opens_one_thing_for_a_time_until_it_is_revoked() {
    let pg = orders(ROWS).await;
    pg.batch("delete from orders where id > 100").await;
    let service = Service::start(&config(&pg, "link_ttl = \"1h\"\n")).await;
    let folder = service.folder.path().join("files");
    export(&pg, &url_of(&folder), &["--format", "csv"], &[]).await;
    for id in ["one", "two", "short"] {
        record(&service, id, &url_of(&folder), "csv");
    }
    let listed = list(&service, "one").await;
    let link = text(&listed, "download_url").to_owned();
    let answer = follow(&service, &link, "").await;
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "attachment; filename=\"orders.csv\""),
        ("cache-control", "private, no-store, no-transform"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let manifest = service.get("acme-key", "/v1/exports/one/manifest").await;
    for secret in ["tenant =", "file:", "data/part", "public.orders"] {
        assert!(!manifest.text().contains(secret), "{secret}");
    }
    // Whatever is wrong with a link, its answer is the same.
    let path = link.split_once('?').unwrap().0;
    let query = link.split_once('?').unwrap().1;
    let ends: i64 = query.split('&').find_map(|pair| pair.strip_prefix("exp=")).unwrap().parse().unwrap();
    assert!(ends > Utc::now().timestamp() && ends <= Utc::now().timestamp() + 3_600, "in UTC, whatever the zone");
    let wrong = [
        format!("{path}?{}", query.replace(&format!("exp={ends}"), &format!("exp={}", ends + 1))),
        format!("{path}?{}", query.replace("kid=", "kid=x")),
        format!("{path}?exp={ends}&kid=a&sig=AAAA"),
        format!("{path}?sig="),
        link.replace("/one/", "/two/"),
        link.replace("/one/", "/none/"),
        link.replace("/download", "/manifest"),
        link.replace("/download", "/parts/0"),
        format!("{link}&exp={ends}"),
    ];
    let mut bodies = Vec::new();
    for link in &wrong {
        bodies.push(follow(&service, link, "").await.problem(403, "link_invalid"));
    }
    // The time is up.
    change(&service, "short", &format!("expires_at = {}", Utc::now().timestamp_micros() + 2_000_000));
    let short = text(&list(&service, "short").await, "download_url").to_owned();
    assert_eq!(follow(&service, &short, "").await.status, 200);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    bodies.push(follow(&service, &short, "").await.problem(403, "link_invalid"));
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    // Another tenant learns nothing, not even that it is there.
    let strange = service.get("other-key", path).await.problem(404, "export_not_found");
    let none = service.get("other-key", "/v1/exports/none/download").await.problem(404, "export_not_found");
    assert_eq!(strange, none);
    // Nor does a key of the tenant that does not open the dataset.
    assert_eq!(service.get("narrow-key", path).await.problem(404, "export_not_found"), none);
    service
        .ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        .await
        .problem(401, "unauthorized");
    // Revoked at once; a new link is good.
    change(&service, "one", "revocation = revocation + 1");
    assert_eq!(follow(&service, &link, "").await.problem(403, "link_invalid"), bodies[0]);
    let link = text(&list(&service, "one").await, "download_url").to_owned();
    assert_eq!(follow(&service, &link, "").await.status, 200);
    // Expired, it says so, to whoever had a link and to its tenant.
    change(&service, "one", "revocation = revocation + 1, status = 'expired'");
    follow(&service, &link, "").await.problem(410, "expired");
    service.get("acme-key", path).await.problem(410, "expired");
    follow(&service, &format!("{path}?exp={ends}&kid=a&sig=AAAA"), "").await.problem(403, "link_invalid");
    change(&service, "two", "status = 'running'");
    service.get("acme-key", "/v1/exports/two/download").await.problem(409, "not_ready");
    change(&service, "two", "status = 'failed'");
    service.get("acme-key", "/v1/exports/two/download").await.problem(409, "no_files");
    service.stop().await;
}

#[tokio::test]
async fn what_can_be_no_link_of_ours_is_no_question_to_the_store() {
    let pg = pg(18).await;
    let service = Service::start(&config(&pg, "")).await;
    let file = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    file.execute_batch("DROP TABLE job").unwrap();
    service.get("acme-key", "/v1/exports/one/download").await.problem(503, "state_unavailable");
    for query in ["sig=", "exp=99999999999&kid=a&sig=AAAA", &format!("exp=9999999999&kid=a&sig={}", "A".repeat(43))] {
        follow(&service, &format!("/v1/exports/one/download?{query}"), "").await.problem(403, "link_invalid");
    }
}

/// riffado/riffado#220: files could be had until somebody had removed them.
#[tokio::test]
async fn what_is_over_is_gone_before_anybody_has_written_that_down() {
    let pg = orders(10).await;
    let seldom = ("OUTHAUL_TEST_LIMITS", "job_sweep=600");
    let service = Service::with(&config(&pg, ""), |command| command.env(seldom.0, seldom.1)).await;
    let folder = service.folder.path().join("files");
    export(&pg, &url_of(&folder), &["--format", "csv"], &[]).await;
    record(&service, "over", &url_of(&folder), "csv");
    assert_eq!(service.get("acme-key", "/v1/exports/over/download").await.status, 200);
    change(&service, "over", &format!("expires_at = {}", Utc::now().timestamp_micros()));
    for below in ["download", "manifest", "parts/0"] {
        service.get("acme-key", &format!("/v1/exports/over/{below}")).await.problem(410, "expired");
    }
    assert_eq!(service.get("acme-key", "/v1/exports/over").await.json()["status"], "complete");
}

#[tokio::test]
async fn a_link_to_a_part_leads_to_the_store_where_that_signs() {
    let (pg, s3) = (orders(ROWS).await, s3());
    pg.batch("delete from orders where id > 100").await;
    let environment = s3.env();
    export(&pg, &s3.url("job"), &["--format", "csv"], &environment).await;
    for redirect in [true, false] {
        let text_of = config(&pg, &format!("link_redirect = {redirect}\n"));
        let limits = ("OUTHAUL_TEST_LIMITS", "link_redirect=2");
        let service = Service::with(&text_of, |command| command.envs(s3.env()).env(limits.0, limits.1)).await;
        record(&service, "one", &s3.url("job"), "csv");
        let listed = list(&service, "one").await;
        let part = &listed["parts"][0];
        let answer = follow(&service, text(part, "url"), "").await;
        let bytes = if redirect {
            assert_eq!((answer.status, answer.header("referrer-policy")), (307, Some("no-referrer")));
            let there = answer.header("location").unwrap();
            assert!(there.starts_with(&s3.endpoint) && there.contains("X-Amz-Expires=2&"), "{there}");
            let path = there.strip_prefix(&s3.endpoint).unwrap();
            let mut elsewhere = service;
            elsewhere.address = s3.endpoint.strip_prefix("http://").unwrap().to_owned();
            let host = elsewhere.address.clone();
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let fetched = elsewhere.ask(&request).await;
            assert_eq!((fetched.status, fetched.header("content-type")), (200, Some("text/csv; charset=utf-8")));
            // It is saved under the name that the service gives the part, and not under the object's own.
            let name = "attachment; filename=\"orders-00000.csv\"";
            assert_eq!(fetched.header("content-disposition"), Some(name));
            // Each click has a URL of its own, whose time is soon up.
            eventually(Duration::from_secs(10), "the store to refuse the URL", async || {
                (elsewhere.ask(&request).await.status == 403).then_some(())
            })
            .await;
            let said = elsewhere.stop().await;
            assert!(!said.contains("X-Amz-Signature") && !said.contains("sig="), "{said}");
            fetched.body
        } else {
            assert_eq!(answer.status, 200);
            service.stop().await;
            answer.body
        };
        assert_eq!(crc64nvme(&bytes), text(part, "crc64nvme"));
    }
}

/// A receiver that refuses the first message, and what it was told: id, signature and body.
async fn receiver() -> (String, tokio::sync::mpsc::Receiver<[String; 3]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, told) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        for answer in ["500 Internal Server Error", "204 No Content"] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut wire = Vec::new();
            while !wire.ends_with(b"}") && socket.read_buf(&mut wire).await.unwrap() > 0 {}
            let wire = String::from_utf8(wire).unwrap();
            let (head, body) = wire.split_once("\r\n\r\n").unwrap();
            let field = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap().to_owned()
            };
            sender.send([field("webhook-id"), field("webhook-signature"), body.to_owned()]).await.unwrap();
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_webhook_is_told_again_until_it_has_heard() {
    let pg = pg(18).await;
    let (address, mut told) = receiver().await;
    let hook = format!(
        "{}[[webhook]]\nname = \"backend\"\nurl = \"http://{address}/hooks\"\nsecret = \"env:HOOK_SECRET\"\nallow = [\"127.0.0.1\"]\n",
        config(&pg, "")
    );
    let service = Service::with(&hook, |command| {
        command
            .env("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .env("OUTHAUL_TEST_LIMITS", "webhook_retry=0.1")
    })
    .await;
    let file = rusqlite::Connection::open(service.folder.path().join("outhaul-state.sqlite3")).unwrap();
    let body = r#"{"type":"export.ready","id":"one"}"#;
    file.execute(
        "INSERT INTO outbox (id, export_id, target, event, body, attempt, due_at)
         VALUES ('msg_one_ready_backend', 'one', 'backend', 'export.ready', ?1, 0, ?2)",
        // One of long ago would be forgotten.
        (body, Utc::now().timestamp_micros()),
    )
    .unwrap();
    let limit = Duration::from_secs(20);
    let first = within(limit, "the first message", told.recv()).await.unwrap();
    let second = within(limit, "the second message", told.recv()).await.unwrap();
    assert_eq!((&first[0], &first[2]), (&"msg_one_ready_backend".to_owned(), &body.to_owned()));
    assert_eq!((&first[0], &first[2]), (&second[0], &second[2]));
    assert!(second[1].starts_with("v1,"));
    eventually(limit, "the message to be done", async || {
        let left: u32 = file.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
        (left == 0).then_some(())
    })
    .await;
    let said = service.stop().await;
    assert!(!said.contains("MfKQ9r8G") && !said.contains(&first[1]), "{said}");
}
