//! A service that runs, and a client of raw sockets: it sees how a body ends, which libraries hide.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::run::{Outhaul, Running, outhaul};
use super::within;

const LIMIT: Duration = Duration::from_secs(30);

/// `outhaul serve` over a file of its own.
pub(crate) struct Service {
    pub(crate) process: Running,
    pub(crate) address: String,
    pub(crate) admin: String,
    pub(crate) folder: TempDir,
    words: Vec<String>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// As its framing says.
    Whole,
    /// The connection ended first.
    Broken,
}

/// An answer, byte for byte.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) end: BodyEnd,
}

/// The digest of a key, as `service.toml` has it.
pub(crate) fn digest(key: &str) -> String {
    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
    Sha256::digest(key).iter().fold(String::new(), hex)
}

/// A key for a tenant.
pub(crate) fn key(name: &str, tenant: &str, tier: &str) -> String {
    let digest = digest(name);
    format!(
        "[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ntenant = \"{tenant}\"\ntier = \"{tier}\"\ndatasets = [\"*\"]\n"
    )
}

fn whole(text: &str) -> String {
    format!("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{text}")
}

/// The file, written where `outhaul serve` finds it, and its command line.
pub(crate) fn written(text: &str, words: &[&str]) -> (TempDir, Outhaul) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.toml");
    std::fs::write(&file, whole(text)).unwrap();
    let mut line = vec!["serve", "--config"];
    line.push(file.to_str().unwrap());
    line.extend(words);
    let command = switched(outhaul(line));
    (folder, command)
}

/// What the test's own environment switches off is off in the service, so that a mechanism can be shown to be needed.
fn switched(command: Outhaul) -> Outhaul {
    match std::env::var("OUTHAUL_TEST_OFF") {
        Ok(off) => command.env("OUTHAUL_TEST_OFF", off),
        Err(_) => command,
    }
}

impl Service {
    /// Starts it.
    pub(crate) async fn start(text: &str) -> Self {
        Self::with(text, |command| command).await
    }

    /// Starts it with something more.
    pub(crate) async fn with(text: &str, more: impl FnOnce(Outhaul) -> Outhaul) -> Self {
        Self::with_words(text, &["-vv"], more).await
    }

    /// The same with these words on its command line.
    pub(crate) async fn with_words(text: &str, words: &[&str], more: impl FnOnce(Outhaul) -> Outhaul) -> Self {
        let (folder, command) = written(text, words);
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self::of(folder, words, more(command)).await
    }

    /// Starts what a test makes of the path of its file, such as a process on a disk of its own.
    pub(crate) async fn by(text: &str, command: impl FnOnce(&str) -> Outhaul) -> Self {
        let (folder, _) = written(text, &[]);
        let command = command(folder.path().join("service.toml").to_str().unwrap());
        Self::of(folder, Vec::new(), command).await
    }

    /// All metrics.
    pub(crate) async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.admin).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        within(LIMIT, "the metrics", stream.read_to_string(&mut text)).await.unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Kills it at once, and starts it over the same state.
    pub(crate) async fn killed_and_started(self, more: impl FnOnce(Outhaul) -> Outhaul) -> Self {
        let Self { process, folder, words, .. } = self;
        process.signal("KILL").await;
        process.wait().await;
        Self::again(folder, words, more).await
    }

    /// Waits until it has stopped well, as it was told to, and starts it over the same state.
    pub(crate) async fn stopped_and_started(self, more: impl FnOnce(Outhaul) -> Outhaul) -> Self {
        let Self { process, folder, words, .. } = self;
        process.wait().await.expect(0);
        Self::again(folder, words, more).await
    }

    /// Writes another file, which the next start reads.
    pub(crate) fn rewrite(&self, text: &str) {
        std::fs::write(self.folder.path().join("service.toml"), whole(text)).unwrap();
    }

    async fn again(folder: TempDir, words: Vec<String>, more: impl FnOnce(Outhaul) -> Outhaul) -> Self {
        let file = folder.path().join("service.toml");
        let line = ["serve", "--config", file.to_str().unwrap()].into_iter().chain(words.iter().map(String::as_str));
        let command = switched(outhaul(line));
        Self::of(folder, words, more(command)).await
    }

    async fn of(folder: TempDir, words: Vec<String>, command: Outhaul) -> Self {
        let process = command.spawn();
        process.stderr_has("health on http://").await;
        let said = process.stderr().replace("listening on https://", "listening on http://");
        let after = |mark: &str| {
            let rest = said.split(mark).nth(1)?;
            rest.split([',', '\n', ' ']).next().map(str::to_owned)
        };
        // A worker answers no callers.
        let address = after("listening on http://").unwrap_or_default();
        let admin = after("health on http://").unwrap();
        Self { process, address, admin, folder, words }
    }

    /// Asks for a stream.
    pub(crate) async fn export(&self, key: &str, dataset: &str, body: &str) -> Answer {
        self.post(key, &format!("/v1/query/{dataset}/export"), body, "").await
    }

    /// The same with more lines of a head.
    pub(crate) async fn export_with(&self, key: &str, dataset: &str, body: &str, head: &str) -> Answer {
        self.post(key, &format!("/v1/query/{dataset}/export"), body, head).await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &str, head: &str) -> Answer {
        self.ask(&request("POST", key, path, body, head)).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        self.ask(&request("GET", key, path, "", "")).await
    }

    /// The receipt of a stream.
    pub(crate) async fn receipt(&self, key: &str, answer: &Answer) -> serde_json::Value {
        let link = answer.header("link").unwrap();
        let path = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
        self.get(key, path).await.json()
    }

    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect(request).await;
        let mut wire = Vec::new();
        // A reset ends what was sent as well.
        let _ = within(LIMIT, "the answer", stream.read_to_end(&mut wire)).await;
        Answer::parse(&wire)
    }

    /// The value of a metric, by its name and its labels.
    pub(crate) async fn metric(&self, name: &str) -> String {
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    }

    /// The newest records of the audit of a tenant.
    pub(crate) async fn audit(&self, tenant: &str) -> serde_json::Value {
        let mut stream = TcpStream::connect(&self.admin).await.unwrap();
        let asked = format!("GET /audit?tenant={tenant} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut wire = Vec::new();
        within(LIMIT, "the audit", stream.read_to_end(&mut wire)).await.unwrap();
        Answer::parse(&wire).json()
    }

    /// A connection over which a request has gone.
    pub(crate) async fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Stops it as a supervisor does, and shows what it has said.
    pub(crate) async fn stop(self) -> String {
        self.process.signal("TERM").await;
        self.process.wait().await.expect(0).stderr
    }
}

/// So often a test kills what it kills at random moments: eight times, unless a soak says more.
pub(crate) fn kills() -> usize {
    std::env::var("OUTHAUL_TEST_KILLS").map_or(8, |number| number.parse().unwrap())
}

/// One request whose connection ends with its answer.
pub(crate) fn request(method: &str, key: &str, path: &str, body: &str, head: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: service\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
         Content-Length: {length}\r\n{head}\r\n{body}"
    )
}

impl Answer {
    pub(crate) fn parse(wire: &[u8]) -> Self {
        let split = wire.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer has a head");
        let (head, rest) = (std::str::from_utf8(&wire[..split]).unwrap(), &wire[split + 4..]);
        let (line, head) = head.split_once("\r\n").unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer =
            Self { status, head: fields(head), body: Vec::new(), trailers: Vec::new(), end: BodyEnd::Broken };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.chunks(rest);
        } else {
            let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            answer.body = rest.to_vec();
            answer.end = if rest.len() == length { BodyEnd::Whole } else { BodyEnd::Broken };
        }
        answer
    }

    fn chunks(&mut self, mut rest: &[u8]) {
        loop {
            let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") else { return };
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
            rest = &rest[end + 2..];
            if size == 0 {
                let text = std::str::from_utf8(rest).unwrap();
                if text == "\r\n" || text.ends_with("\r\n\r\n") {
                    self.trailers = fields(text);
                    self.end = BodyEnd::Whole;
                }
                return;
            }
            self.body.extend_from_slice(&rest[..size.min(rest.len())]);
            let Some(next) = rest.get(size + 2..) else { return };
            rest = next;
        }
    }

    /// A field of the head.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A trailer.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body.escape_ascii().to_string()))
    }

    /// Fails the test unless it is a problem with this status and code; gives the body without what differs each time.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> serde_json::Value {
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/problem+json")), "{self:?}");
        let mut body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert!(body["message"].is_string() && body["request_id"].as_str() == self.header("x-request-id"), "{body}");
        body.as_object_mut().unwrap().remove("request_id");
        body
    }
}

fn fields(head: &str) -> Vec<(String, String)> {
    let split = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    head.lines().filter_map(split).collect()
}
