//! A proxy in front of the S3 server that breaks what its rules say, and counts what passes.
//!
//! It changes no header that a signature covers: `Host` stays the proxy's own address, which is what the client signed
//! and all that the server looks at. One request a connection.
//!
//! It can also stand for Google's store, whose clients speak S3's own requests but for conditions on generations: those
//! become conditions on `ETag`s. <https://cloud.google.com/storage/docs/request-preconditions>

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a request asks of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Starts an upload.
    Create,
    /// Uploads a chunk of one.
    Chunk,
    /// Makes one an object.
    Complete,
    /// Drops one.
    Abort,
    /// Writes an object.
    Put,
    /// Reads an object.
    Get,
    /// Lists objects or uploads.
    List,
    /// Looks at an object.
    Head,
    /// Deletes objects; their keys are in the body.
    Delete,
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The server never sees it: this status, these header lines, this body.
    Answer(u16, String, &'static str),
    /// The server never sees it, and the connection ends.
    Lost(End),
    /// The server does what it is asked for, and its answer is lost.
    AnswerLost(End),
    /// Half of the server's answer arrives.
    HalfAnswer,
    /// The body goes on at so many bytes a second.
    Throttle(u64),
    /// One bit of the body changes.
    Corrupt,
}

/// How an answer is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The connection is closed.
    Close,
    /// It is reset.
    Reset,
    /// The answer is a 500.
    Status500,
    /// There is none for as long as the client waits.
    Hang,
}

/// One fault for some requests: those of an operation on a path, counted from 1.
#[derive(Debug)]
pub(crate) struct Rule {
    op: Op,
    path: &'static str,
    which: RangeInclusive<usize>,
    fault: Fault,
    met: usize,
}

/// Every request of an operation whose target holds `path`.
pub(crate) fn on(op: Op, path: &'static str, fault: Fault) -> Rule {
    Rule { op, path, which: 1..=usize::MAX, fault, met: 0 }
}

/// An answer that the server has no part in.
pub(crate) fn answer(status: u16, body: &'static str) -> Fault {
    Fault::Answer(status, String::new(), body)
}

impl Rule {
    /// Only these of them.
    pub(crate) fn only(self, which: RangeInclusive<usize>) -> Self {
        Self { which, ..self }
    }
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub op: Op,
    /// Path and query.
    pub target: String,
    /// Request line and headers.
    pub head: String,
    /// Whether a rule took it.
    pub broken: bool,
}

/// A proxy that runs until it is dropped.
pub(crate) struct Proxy {
    /// `http://127.0.0.1:…`
    pub endpoint: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    generations: bool,
    encrypts: bool,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// In front of the server at an endpoint.
    pub(crate) async fn start(endpoint: &str, rules: impl Into<Vec<Rule>>) -> Self {
        Self::begin(endpoint, rules.into(), (false, false)).await
    }

    /// A store that encrypts, in front of the server at an endpoint, which can not: what asks for it goes no farther, and
    /// nobody may have signed it.
    pub(crate) async fn encrypting(endpoint: &str) -> Self {
        Self::begin(endpoint, Vec::new(), (false, true)).await
    }

    /// Google's store, in front of the server at an endpoint.
    pub(crate) async fn google(endpoint: &str) -> Self {
        Self::begin(endpoint, Vec::new(), (true, false)).await
    }

    async fn begin(endpoint: &str, rules: Vec<Rule>, (generations, encrypts): (bool, bool)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let shared =
            Arc::new(Shared { server, generations, encrypts, rules: Mutex::new(rules), seen: Mutex::default() });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    // A client that goes away is no failure of the test.
                    tokio::spawn(async move { drop(shared.serve(socket).await) });
                }
            }
        });
        Self { endpoint: own, shared, accepting }
    }

    /// Other rules from now on.
    pub(crate) fn set(&self, rules: impl Into<Vec<Rule>>) {
        *self.shared.rules.lock().unwrap() = rules.into();
    }

    /// Counts from none again.
    pub(crate) fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// The requests of an operation so far whose target holds `path`.
    pub(crate) fn seen(&self, op: Op, path: &str) -> Vec<Seen> {
        let all = self.shared.seen.lock().unwrap();
        all.iter().filter(|seen| seen.op == op && seen.target.contains(path)).cloned().collect()
    }

    /// All requests so far, in the order in which they came.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many of them a rule broke.
    pub(crate) fn broken(&self, op: Op, path: &str) -> usize {
        self.seen(op, path).iter().filter(|seen| seen.broken).count()
    }
}

fn operation(method: &str, target: &str) -> Op {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match method {
        "POST" if has("uploads") => Op::Create,
        "POST" if has("delete") => Op::Delete,
        "POST" => Op::Complete,
        "PUT" if has("partNumber") => Op::Chunk,
        "PUT" => Op::Put,
        "DELETE" if has("uploadId") => Op::Abort,
        "DELETE" => Op::Delete,
        "HEAD" => Op::Head,
        "GET" if has("list-type") || has("uploads") => Op::List,
        "GET" => Op::Get,
        other => panic!("a request with the method {other}"),
    }
}

impl Shared {
    /// The rule that takes a request; the first that matches counts it, whether it takes it or not.
    fn judge(&self, op: Op, target: &str, head: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let mut fault = None;
        for rule in rules.iter_mut().filter(|rule| rule.op == op && target.contains(rule.path)) {
            rule.met += 1;
            if fault.is_none() && rule.which.contains(&rule.met) {
                fault = Some(rule.fault.clone());
            }
        }
        let (target, head) = (target.to_owned(), head.to_owned());
        self.seen.lock().unwrap().push(Seen { op, target, head, broken: fault.is_some() });
        fault
    }

    async fn serve(&self, socket: TcpStream) -> std::io::Result<()> {
        let mut client = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if client.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let fault = self.judge(operation(method, target), target, &head);
        match fault {
            Some(Fault::Answer(status, headers, body)) => {
                drain(&mut client, length).await?;
                let size = body.len();
                let head = format!("HTTP/1.1 {status} Because\r\n{headers}Connection: close\r\n");
                let body = if method == "HEAD" { "" } else { body };
                client.write_all(format!("{head}Content-Length: {size}\r\n\r\n{body}").as_bytes()).await
            }
            Some(Fault::Lost(how)) => {
                drain(&mut client, length).await?;
                end(client, how).await
            }
            fault => {
                let reply = self.forward(&mut client, &head, length, fault.as_ref()).await?;
                match fault {
                    Some(Fault::AnswerLost(how)) => end(client, how).await,
                    Some(Fault::HalfAnswer) => client.write_all(&reply[..reply.len() - reply.len() / 4]).await,
                    _ => client.write_all(&reply).await,
                }
            }
        }
    }

    /// The server's whole answer.
    async fn forward(
        &self,
        client: &mut BufReader<TcpStream>,
        head: &str,
        length: u64,
        fault: Option<&Fault>,
    ) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.server).await?;
        // Of Google's tokens the server knows nothing.
        let dropped: &[&str] = if self.generations { &["connection:", "authorization:"] } else { &["connection:"] };
        let is_dropped = |line: &str| {
            let line = line.to_ascii_lowercase();
            let encrypts = self.encrypts && line.starts_with("x-amz-server-side-encryption");
            encrypts || dropped.iter().any(|name| line.starts_with(name))
        };
        let kept = head.trim_end().lines().filter(|line| !is_dropped(line));
        let mut head = kept.fold(String::new(), |head, line| head + line + "\r\n");
        match header(&head, "x-goog-if-generation-match") {
            Some("0") => head.push_str("If-None-Match: *\r\n"),
            Some(generation) => head = format!("{head}If-Match: \"{generation}\"\r\n"),
            None => {}
        }
        let head = head + "Connection: close\r\n\r\n";
        server.write_all(head.as_bytes()).await?;
        let (mut left, mut buffer) = (length, vec![0; 16 * 1024]);
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap());
            let count = client.read(&mut buffer[..most]).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match fault {
                Some(Fault::Throttle(rate)) => {
                    tokio::time::sleep(Duration::from_micros(1_000_000 * count as u64 / rate)).await;
                }
                Some(Fault::Corrupt) if left == length => buffer[count / 2] ^= 1,
                _ => {}
            }
            server.write_all(&buffer[..count]).await?;
            left -= count as u64;
        }
        let mut reply = Vec::new();
        server.read_to_end(&mut reply).await?;
        if self.generations {
            let head = String::from_utf8_lossy(&reply).into_owned();
            if let (Some(line), Some(tag)) = (head.find("\r\n"), header(&head, "etag")) {
                let generation = format!("\r\nx-goog-generation: {}", tag.trim_matches('"'));
                reply.splice(line..line, generation.into_bytes());
            }
        }
        Ok(reply)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

async fn drain(client: &mut BufReader<TcpStream>, length: u64) -> std::io::Result<()> {
    tokio::io::copy(&mut client.take(length), &mut tokio::io::sink()).await.map(drop)
}

async fn end(mut client: BufReader<TcpStream>, how: End) -> std::io::Result<()> {
    match how {
        End::Close => client.shutdown().await,
        End::Reset => client.get_ref().set_zero_linger(),
        End::Status500 => {
            client.write_all(b"HTTP/1.1 500 Because\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await
        }
        // Until the client gives up.
        End::Hang => client.read(&mut [0]).await.map(drop),
    }
}
