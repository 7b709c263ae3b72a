//! `outhaul serve`: what all streams together may take, how it ends, and what it forgets.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::pg::{Pg, pg};
use crate::support::service::{Answer, BodyEnd, Service, key, request};
use crate::support::{eventually, within};

const LIMIT: Duration = Duration::from_secs(30);

const MIB: u64 = 1 << 20;

/// Rows of 3 MB, and small ones.
async fn rows() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table large (id int primary key, v text); alter table large alter column v set storage external;
        insert into large select i, repeat('0123456789', 300000) from generate_series(1, 12) i;
        create table small (id int primary key);
        insert into small select i from generate_series(1, 10) i;
        analyze",
    )
    .await;
    pg
}

fn service(pg: &Pg, limits: &str) -> String {
    let (seven, eight, url) = (key("seven", "7", "enterprise"), key("eight", "8", "enterprise"), &pg.url);
    format!(
        "{limits}
{seven}{eight}
[source.shop]
from = \"{url}\"
[dataset.large]
table = \"large\"
[dataset.large.columns]
id = {{}}
v = {{}}
[dataset.small]
table = \"small\"
[dataset.small.columns]
id = {{}}
[dataset.small.analysis.by_id]
dimensions = [\"id\"]
measures = [\"count\"]
[dataset.slow]
query = \"select id, pg_catalog.pg_sleep(0.15)::text as nap from small\"
key = \"id\"
[dataset.slow.columns]
id = {{}}
nap = {{}}
"
    )
}

const IDS: &str = r#"{"columns":["id"]}"#;

/// A client that has begun to read a stream, and reads no more of it.
async fn silent(service: &Service) -> TcpStream {
    let ask = request("POST", "seven", "/v1/query/large/export", r#"{"columns":["id","v"]}"#, "");
    let mut stream = service.connect(&ask).await;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// What the operator sees.
async fn admin(service: &Service, path: &str) -> String {
    let mut stream = TcpStream::connect(&service.admin).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut text = String::new();
    within(LIMIT, "the answer", stream.read_to_string(&mut text)).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The value of a metric.
async fn metric(service: &Service, name: &str) -> u64 {
    let text = admin(service, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.trim().parse().unwrap()
}

/// The process's memory now, or its peak since the last look.
fn memory(service: &Service, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", service.process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_matches([':', '\t', ' ']).split(' ').next().unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn streams_are_admitted_by_the_memory_that_they_may_hold() {
    let pg = rows().await;
    let text = service(&pg, "[limits]\nmemory = \"80MiB\"");
    let running = Service::start(&text).await;
    assert_eq!(running.export("seven", "small", IDS).await.status, 200);
    let idle = memory(&running, "VmRSS");
    let (one, _other) = (silent(&running).await, silent(&running).await);
    let reserved = metric(&running, "outhaul_service_memory_reserved_bytes ").await;
    assert!((60 * MIB..=80 * MIB).contains(&reserved), "{reserved}");
    assert_eq!(metric(&running, "outhaul_service_memory_bytes ").await, 80 * MIB);
    assert_eq!(metric(&running, "outhaul_service_streams ").await, 2);
    // Another tenant's too: the memory is everybody's.
    let refused = running.export("eight", "small", IDS).await;
    refused.problem(503, "busy");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(metric(&running, "outhaul_service_refused_total{code=\"busy\"} ").await, 1);
    // What they hold is no more than what they have reserved, with rows as large as these and clients that read nothing.
    let held = memory(&running, "VmHWM").saturating_sub(idle);
    assert!(held <= reserved, "{held} bytes held, {reserved} reserved");
    // One who waits has the memory as soon as another gives it back.
    let waiting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(one);
    };
    let (answer, ()) = tokio::join!(running.export("eight", "small", IDS), waiting);
    assert_eq!(answer.status, 200, "{}", answer.text());
    running.process.signal("KILL").await;
    // The budget is what refused it.
    let without = Service::with(&text, |command| command.env("OUTHAUL_TEST_OFF", "memory")).await;
    let _streams = (silent(&without).await, silent(&without).await);
    assert_eq!(without.export("eight", "small", IDS).await.status, 200);
}

#[tokio::test]
async fn connections_are_counted_and_one_too_many_is_closed_at_once() {
    let pg = rows().await;
    let text = service(&pg, "[limits]\nconnections = 3");
    for off in [false, true] {
        let running = Service::with(&text, |it| if off { it.env("OUTHAUL_TEST_OFF", "connections") } else { it }).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            // One that is answered has its place.
            let ask =
                request("GET", "seven", "/v1/datasets", "", "").replace("Connection: close", "Connection: keep-alive");
            let mut stream = running.connect(&ask).await;
            stream.read_exact(&mut [0; 12]).await.unwrap();
            open.push(stream);
        }
        let mut extra = running.connect(&request("GET", "seven", "/v1/datasets", "", "")).await;
        let mut wire = Vec::new();
        let _ = within(LIMIT, "its end", extra.read_to_end(&mut wire)).await;
        assert_eq!(wire.is_empty(), !off, "{}", String::from_utf8_lossy(&wire));
        open.pop();
        let again = async || {
            let mut stream = running.connect(&request("GET", "seven", "/v1/datasets", "", "")).await;
            let mut wire = Vec::new();
            let _ = stream.read_to_end(&mut wire).await;
            wire.starts_with(b"HTTP/1.1 200").then_some(())
        };
        eventually(LIMIT, "a place", again).await;
        assert_eq!(admin(&running, "/healthz").await, "ok\n");
    }
}

/// One frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client asks over HTTP/2 that lets 1,000 bytes come and no more.
async fn stalled(service: &Service, (method, path, body): (&str, &str, &str)) -> TcpStream {
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    wire.extend(frame(4, 0, 0, &[0, 4, 0, 0, 3, 232]));
    let mut fields = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "service"),
        ("authorization", "Bearer seven"),
    ] {
        for text in [name, value] {
            // A literal, which nobody indexes.
            fields.extend(if text == name { &[0][..] } else { &[] });
            fields.push(u8::try_from(text.len()).unwrap());
            fields.extend(text.as_bytes());
        }
    }
    wire.extend(frame(1, 4, 1, &fields));
    wire.extend(frame(0, 1, 1, body.as_bytes()));
    let mut stream = TcpStream::connect(&service.address).await.unwrap();
    stream.write_all(&wire).await.unwrap();
    stream
}

/// The next frame: kind, flags and payload; none at the end.
async fn next(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}

#[tokio::test]
async fn a_client_of_http_2_that_lets_a_stream_wait_meets_its_deadline_and_windows_are_bounded() {
    let pg = rows().await;
    let text = service(&pg, "[limits]\nwrite_deadline = \"1s\"");
    let shorter = [("OUTHAUL_TEST_LIMITS", "write_deadline=0.01"), ("OUTHAUL_TEST_OFF", "stream_deadline")];
    for off in [false, true] {
        let running = Service::with(&text, |command| {
            let command = command.env(shorter[0].0, shorter[0].1);
            if off { command.env(shorter[1].0, shorter[1].1) } else { command }
        })
        .await;
        let asked = ("POST", "/v1/query/large/export", r#"{"columns":["id","v"]}"#);
        let mut stream = stalled(&running, asked).await;
        let mut came = 0;
        let mut settings = Vec::new();
        let until = if off { Duration::from_secs(3) } else { LIMIT };
        let ended = tokio::time::timeout(until, async {
            while let Some((kind, flags, payload)) = next(&mut stream).await {
                match kind {
                    0 => came += payload.len(),
                    4 if flags == 0 => settings = payload,
                    _ => {}
                }
            }
        });
        let ended = ended.await.is_ok();
        assert_eq!((came, ended), (1_000, !off));
        let setting = |id: u16| {
            let found = settings.chunks(6).find(|it| it[..2] == id.to_be_bytes()).unwrap();
            u32::from_be_bytes(found[2..].try_into().unwrap())
        };
        assert_eq!((setting(3), setting(4)), (32, 64 * 1024), "streams and their windows");
        if off {
            assert_eq!(metric(&running, "outhaul_service_streams ").await, 1);
            continue;
        }
        let gone = async || (metric(&running, "outhaul_service_streams ").await == 0).then_some(());
        eventually(LIMIT, "its memory", gone).await;
        let audit: Value = serde_json::from_str(&admin(&running, "/audit?tenant=7").await).unwrap();
        assert_eq!(audit[0]["outcome"], "cancelled", "{audit}");
        assert_eq!(metric(&running, "outhaul_service_streams_total{outcome=\"cancelled\"} ").await, 1);
    }
}

/// The path of a file of 36 MB.
async fn file(service: &Service) -> String {
    let body = r#"{"dataset":"large","mode":"background","columns":["id","v"]}"#;
    let job = service.post("seven", "/v1/exports", body, "").await.json();
    let path = format!("/v1/exports/{}", job["id"].as_str().unwrap());
    let done = async || (service.get("seven", &path).await.json()["status"] == "complete").then_some(());
    eventually(LIMIT, "the file", done).await;
    format!("{path}/download")
}

#[tokio::test]
async fn a_client_that_lets_a_file_or_an_analysis_wait_over_http_2_meets_the_deadline_of_streams() {
    let pg = rows().await;
    let text = service(&pg, "");
    for off in [false, true] {
        let running = Service::with(&text, |command| {
            let command = command.env("OUTHAUL_TEST_LIMITS", "write_deadline=0.05");
            if off { command.env("OUTHAUL_TEST_OFF", "stream_deadline") } else { command }
        })
        .await;
        let path = file(&running).await;
        for asked in [("GET", path.as_str(), ""), ("POST", "/v1/analyze/small/by_id", "{}")] {
            let mut stream = stalled(&running, asked).await;
            let mut came = 0;
            let until = if off { Duration::from_secs(3) } else { LIMIT };
            let ended = tokio::time::timeout(until, async {
                while let Some((kind, _, payload)) = next(&mut stream).await {
                    came += if kind == 0 { payload.len() } else { 0 };
                }
            });
            let ended = ended.await.is_ok();
            assert_eq!((came, ended), (1_000, !off), "{asked:?}");
            if off {
                assert_eq!(metric(&running, "outhaul_service_streams ").await, 1, "{asked:?}");
                drop(stream);
            }
            let gone = async || (metric(&running, "outhaul_service_streams ").await == 0).then_some(());
            eventually(LIMIT, "its place and its memory", gone).await;
        }
    }
}

#[tokio::test]
async fn a_service_that_stops_lets_streams_end_and_breaks_off_those_that_do_not() {
    let pg = rows().await;
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("state").display().to_string();
    let text = service(&pg, &format!("state = \"{file}\"\n[limits]\nshutdown = \"3s\""));
    let running = Service::start(&text).await;
    let mut stuck = silent(&running).await;
    let mut head = vec![0; 2_000];
    stuck.read_exact(&mut head).await.unwrap();
    let id = std::str::from_utf8(&head).unwrap().split("x-outhaul-export-id: ").nth(1).unwrap()[..32].to_owned();
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        running.process.signal("TERM").await;
        let ready = async || (admin(&running, "/readyz").await == "stopping\n").then_some(());
        eventually(LIMIT, "its word to those who balance load", ready).await;
    };
    // Ten rows of 150 ms each: under way as the signal comes.
    let (answer, ()) = tokio::join!(running.export("seven", "slow", r#"{"columns":["id","nap"]}"#), stopping);
    assert_eq!((answer.status, answer.end, answer.text().lines().count()), (200, BodyEnd::Whole, 10));
    let began = std::time::Instant::now();
    running.process.wait().await.expect(0);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let mut rest = b"HTTP/1.1 200".to_vec();
    rest.extend(head);
    let _ = stuck.read_to_end(&mut rest).await;
    assert_eq!(Answer::parse(&rest).end, BodyEnd::Broken);
    let again = Service::start(&text).await;
    let receipt = again.get("seven", &format!("/v1/exports/{id}")).await.json();
    assert_eq!((&receipt["status"], &receipt["error"]["code"]), (&"failed".into(), &"interrupted".into()), "{receipt}");
    again.stop().await;
}

#[tokio::test]
async fn records_are_kept_as_long_as_the_file_says() {
    let pg = rows().await;
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("state").display().to_string();
    let text = |retention: &str| service(&pg, &format!("state = \"{file}\"\n{retention}"));
    let first = Service::start(&text("")).await;
    let answer = first.export("seven", "small", IDS).await;
    let kept = first.receipt("seven", &answer).await;
    first.stop().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = Service::start(&text("[retention]\naudit = \"10ms\"")).await;
    let empty = async || (admin(&second, "/audit?tenant=7").await == "[]").then_some(());
    eventually(LIMIT, "the audit forgotten", empty).await;
    assert_eq!(second.receipt("seven", &answer).await, kept);
    second.stop().await;
    let third = Service::start(&text("[retention]\nreceipts = \"10ms\"")).await;
    let path = format!("/v1/exports/{}", answer.header("x-outhaul-export-id").unwrap());
    let gone = async || (third.get("seven", &path).await.status == 404).then_some(());
    eventually(LIMIT, "the receipt forgotten", gone).await;
    third.stop().await;
}

#[tokio::test]
async fn a_path_of_the_public_url_is_answered_with_and_without_a_proxy_that_takes_it_out() {
    let pg = rows().await;
    let text = service(&pg, "public_url = \"https://example.com/exports/\"");
    let service = Service::start(&text).await;
    for prefix in ["", "/exports"] {
        let answer = service.post("seven", &format!("{prefix}/v1/query/small/export"), IDS, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.header("x-outhaul-export-id").unwrap();
        let link = format!("<https://example.com/exports/v1/exports/{id}>; rel=\"status\"");
        assert_eq!(answer.header("link"), Some(link.as_str()));
        assert_eq!(service.get("seven", &format!("{prefix}/v1/exports/{id}")).await.json()["rows"], 10);
    }
    service.get("seven", "/other/v1/datasets").await.problem(404, "not_found");
    service.stop().await;
}
