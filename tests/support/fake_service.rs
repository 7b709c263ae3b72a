//! A service of streams that behaves as the dataset's name says: it, or what stands before it, cuts, lies, is silent, speaks
//! HTTP/1.0, strips and buffers. It speaks HTTP/1.1 by hand, for no library breaks off as wanted. One request a connection.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) const KEY: &str = "ohk_the-key-of-the-tests";

/// Rows of a stream that is whole.
pub(crate) const ROWS: u64 = 2000;

/// A service. Dropped, it ends.
pub(crate) struct FakeService {
    pub url: String,
    seen: Seen,
    task: JoinHandle<()>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct SeenRequest {
    pub method: String,
    pub path: String,
    /// The names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

type Seen = Arc<Mutex<Vec<SeenRequest>>>;

impl SeenRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

impl Drop for FakeService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeService {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Seen::default();
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let seen = Arc::clone(&kept);
                // A client that goes away is what some of the tests want.
                tokio::spawn(async move { drop(serve(socket, &seen).await) });
            }
        });
        Self { url, seen, task }
    }

    /// What came so far.
    pub(crate) fn requests(&self) -> Vec<SeenRequest> {
        self.seen.lock().unwrap().clone()
    }
}

/// The rows of a format, and what a receipt says of their bytes.
pub(crate) fn rows(format: &str) -> String {
    let mut text = String::new();
    if format == "csv" {
        text.push_str("id,note\r\n");
    }
    for id in 0..ROWS {
        // More digits than a double has, and a line break where CSV may have one.
        let id = 9_007_199_254_740_993 + id;
        if format == "csv" {
            write!(text, "{id},\"two\r\nlines, \"\"ü\"\"\"\r\n").unwrap();
        } else {
            writeln!(text, "{{\"id\":{id},\"note\":\"🦀 {{\\\"$end\\\":\"}}").unwrap();
        }
    }
    text
}

pub(crate) fn crc(bytes: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

async fn serve(socket: TcpStream, seen: &Seen) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        line.clear();
        socket.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = SeenRequest { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body = vec![0; length];
    socket.read_exact(&mut request.body).await?;
    seen.lock().unwrap().push(request.clone());
    let mut socket = socket.into_inner();
    if let Some((content_type, text)) = page(&request.path) {
        let head = format!("200 OK\r\ncontent-type: {content_type}");
        return plain(&mut socket, &head, text.as_bytes()).await;
    }
    if request.header("authorization") != Some(format!("Bearer {KEY}").as_str()) {
        return problem(&mut socket, "401 Unauthorized", "", "unauthorized", "a valid API key is wanted").await;
    }
    match request.path.strip_prefix("/v1/exports/") {
        Some(id) => receipt(&mut socket, id, seen).await,
        None => stream(&mut socket, &request).await,
    }
}

/// What a browser loads.
fn page(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/" => ("text/html", "<!doctype html><title>clients</title>"),
        "/client.js" => ("text/javascript", include_str!("../../src/service/client/client.js")),
        _ => return None,
    })
}

async fn plain(socket: &mut TcpStream, head: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body).await?;
    socket.shutdown().await
}

/// A head that promises a body, of which nothing comes.
async fn head_alone(socket: &mut TcpStream, status: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    tokio::time::sleep(Duration::from_mins(1)).await;
    Ok(())
}

async fn problem(
    socket: &mut TcpStream,
    status: &str,
    headers: &str,
    code: &str,
    message: &str,
) -> std::io::Result<()> {
    let body = json!({"code": code, "message": message, "request_id": "r-1"}).to_string();
    plain(socket, &format!("{status}\r\ncontent-type: application/problem+json{headers}"), body.as_bytes()).await
}

/// The receipt of `CASE.FORMAT`.
async fn receipt(socket: &mut TcpStream, id: &str, seen: &Seen) -> std::io::Result<()> {
    let (case, format) = id.split_once('.').unwrap();
    let all = rows(format);
    let whole = json!({
        "id": id, "status": "complete", "rows": ROWS, "max_rows": null, "truncated": false,
        "crc64nvme": crc(all.as_bytes()), "bytes": all.len(), "error": null,
    });
    let with = |name: &str, value: Value| {
        let mut receipt = whole.clone();
        receipt[name] = value;
        receipt
    };
    let asked = seen.lock().unwrap().iter().filter(|request| request.path.ends_with(id)).count();
    let receipt = match case {
        "hanging-receipt" | "hanging-receipt-cut" => return head_alone(socket, "200 OK").await,
        // Who asks once more with another key has it.
        "expired" if asked <= 2 => {
            return problem(socket, "401 Unauthorized", "", "unauthorized", "a valid API key is wanted").await;
        }
        "no-receipt" | "no-proof" => {
            return problem(socket, "404 Not Found", "", "export_not_found", "there is none").await;
        }
        "truncated" => {
            let mut receipt = with("status", "truncated".into());
            receipt["max_rows"] = ROWS.into();
            receipt
        }
        "cut" | "cut-close" | "cut-http10" | "failed-clean" | "cut-reset" => {
            let error = json!({"code": "source_unavailable", "message": "the database was lost"});
            let mut receipt = with("status", "failed".into());
            receipt["error"] = error;
            receipt
        }
        "lying-rows" => with("rows", (ROWS + 1).into()),
        "lying-crc" => with("crc64nvme", crc(b"other").into()),
        "late-receipt" if asked < 3 => with("status", "streaming".into()),
        "stall" => with("status", "streaming".into()),
        _ => whole,
    };
    plain(socket, "200 OK\r\ncontent-type: application/json", receipt.to_string().as_bytes()).await
}

async fn stream(socket: &mut TcpStream, request: &SeenRequest) -> std::io::Result<()> {
    let case = request.path.split('/').nth(3).unwrap_or_default();
    match case {
        "no-data" => return problem(socket, "404 Not Found", "", "no_data", "No data matches your filters").await,
        "busy" => return problem(socket, "429 Too Many Requests", "\r\nretry-after: 7", "too_many", "too many").await,
        "redirect" => return plain(socket, "302 Found\r\nlocation: http://127.0.0.1:1/", b"").await,
        "hanging-head" => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            return Ok(());
        }
        "hanging-refusal" => return head_alone(socket, "502 Bad Gateway").await,
        "html" => return plain(socket, "200 OK\r\ncontent-type: text/html", b"<html>log in</html>\n").await,
        _ => {}
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    let format = asked["format"].as_str().unwrap_or("ndjson");
    let ends = asked["end_record"] == true && case != "no-proof";
    let body = body_of(case, format, ends);
    let http10 = case.ends_with("http10");
    let mut head = head_of(case, format, ends);
    if http10 || case == "buffered" {
        if !http10 {
            write!(head, "content-length: {}\r\n", body.len()).unwrap();
        }
        socket.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
        return socket.shutdown().await;
    }
    let wanted = request.header("te").is_some_and(|te| te.contains("trailers"));
    let trailers = wanted && !["stripped", "no-proof"].contains(&case);
    head.push_str("transfer-encoding: chunked\r\n");
    if trailers {
        head.push_str("trailer: x-outhaul-export-rows, x-outhaul-export-truncated, x-outhaul-export-crc64nvme\r\n");
    }
    socket.write_all(format!("{head}\r\n").as_bytes()).await?;
    send_chunks(socket, case, body.as_bytes()).await?;
    let mut end = "0\r\n".to_owned();
    if trailers {
        let (crc, truncated) = (crc(rows(format).as_bytes()), case == "truncated");
        write!(end, "x-outhaul-export-rows: {ROWS}\r\nx-outhaul-export-truncated: {truncated}\r\n").unwrap();
        write!(end, "x-outhaul-export-crc64nvme: {crc}\r\n").unwrap();
    }
    end.push_str("\r\n");
    match case {
        // Nothing more comes, and the connection stays.
        "stall" => tokio::time::sleep(Duration::from_mins(1)).await,
        "cut-reset" => rustix::net::sockopt::set_socket_linger(&*socket, Some(Duration::ZERO))?,
        "cut" | "cut-close" | "hanging-receipt-cut" => socket.shutdown().await?,
        _ => {
            socket.write_all(end.as_bytes()).await?;
            socket.shutdown().await?;
        }
    }
    Ok(())
}

/// The rows that are sent, with the end record where it belongs.
fn body_of(case: &str, format: &str, ends: bool) -> String {
    let all = rows(format);
    // Behind a whole row, so that nothing in the bytes gives it away.
    let half = &all[..all.len() / 2];
    let half = half.rfind("\r\n9").map_or_else(|| half.rfind('\n').unwrap() + 1, |at| at + 2);
    let mut body = match case {
        "cut" | "cut-close" | "hanging-receipt-cut" | "cut-http10" | "cut-reset" | "stall" | "lying-proxy" => {
            all[..half].to_owned()
        }
        "half-row" => all[..all.len() - 9].to_owned(),
        _ => all.clone(),
    };
    if ends && body.len() == all.len() && case != "failed-clean" {
        let capped = case == "truncated";
        let (status, max_rows) = if capped { ("truncated", json!(ROWS)) } else { ("complete", json!(null)) };
        let end = json!({"status": status, "rows": ROWS, "max_rows": max_rows, "crc64nvme": crc(all.as_bytes())});
        writeln!(body, "{}", json!({"$end": end})).unwrap();
    }
    body
}

fn head_of(case: &str, format: &str, ends: bool) -> String {
    let http10 = case.ends_with("http10");
    let mut head = format!("HTTP/1.{} 200 OK\r\n", u8::from(!http10));
    let content_type = if format == "csv" { "text/csv; charset=utf-8" } else { "application/x-ndjson" };
    write!(head, "content-type: {content_type}\r\n").unwrap();
    if case != "no-proof" {
        let id = format!("{case}.{format}");
        write!(head, "x-outhaul-export-id: {id}\r\nlink: </v1/exports/{id}>; rel=\"status\"\r\n").unwrap();
    }
    for (sent, line) in [
        (ends, "x-outhaul-export-end-record: true"),
        (case == "truncated", "x-outhaul-export-truncated-hint: true"),
        (case == "coded", "content-encoding: br"),
        (case == "cut-close" || http10, "connection: close"),
    ] {
        if sent {
            write!(head, "{line}\r\n").unwrap();
        }
    }
    head
}

/// In sizes that cut rows and characters.
async fn send_chunks(socket: &mut TcpStream, case: &str, body: &[u8]) -> std::io::Result<()> {
    for (number, piece) in body.chunks(if case == "slow" { 997 } else { 9973 }).enumerate() {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        socket.write_all(&chunk).await?;
        if case == "slow" || number == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
