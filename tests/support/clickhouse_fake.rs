//! A server that speaks as ClickHouse servers of all ages do, and as what stands before them: it answers each statement by a
//! script, cuts, stalls and lies. One request a connection.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::run::{Outhaul, outhaul};

/// The tag of its frames.
pub(crate) const TAG: &str = "rnwavjhyxghbwkly";

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With its last chunk.
    Clean,
    /// Without it.
    Broken,
    /// The body has neither chunks nor a length, as HTTP/1.0 has it.
    Closed,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    /// `200 OK`.
    pub status: String,
    /// Lines of the head beside what every answer has.
    pub headers: Vec<String>,
    /// A chunk each.
    pub chunks: Vec<Vec<u8>>,
    pub ending: Ending,
    /// After the first chunk.
    pub pause: Duration,
}

impl Scripted {
    /// An answer of a server of today in this format.
    pub(crate) fn of(format: &str, body: &[u8]) -> Self {
        let headers = vec![format!("X-ClickHouse-Format: {format}"), format!("X-ClickHouse-Exception-Tag: {TAG}")];
        Self::bare(body).with(headers)
    }

    /// One without a header that would say anything.
    pub(crate) fn bare(body: &[u8]) -> Self {
        Self {
            status: "200 OK".to_owned(),
            headers: Vec::new(),
            chunks: vec![body.to_vec()],
            ending: Ending::Clean,
            pause: Duration::ZERO,
        }
    }

    pub(crate) fn with(mut self, headers: Vec<String>) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(crate) fn ends(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    pub(crate) fn status(mut self, status: &str) -> Self {
        status.clone_into(&mut self.status);
        self
    }

    /// The body in an encoding, `gzip` or `zstd`; without its end where the answer is to break off in the middle of it.
    pub(crate) fn packed(mut self, coding: &str, whole: bool) -> Self {
        let all = self.chunks.concat();
        let packed = match coding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                // One flush gives out no more than the encoder's own buffer holds.
                for piece in all.chunks(8 * 1024) {
                    encoder.write_all(piece).unwrap();
                    encoder.flush().unwrap();
                }
                if whole { encoder.finish().unwrap() } else { encoder.get_ref().clone() }
            }
            "zstd" => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
                encoder.write_all(&all).unwrap();
                encoder.flush().unwrap();
                if whole { encoder.finish().unwrap() } else { encoder.get_ref().clone() }
            }
            _ => panic!("no encoding {coding}"),
        };
        self.chunks = vec![packed];
        self.with(vec![format!("Content-Encoding: {coding}")])
    }

    /// Without its last bytes.
    pub(crate) fn short_by(mut self, bytes: usize) -> Self {
        let mut all = self.chunks.concat();
        all.truncate(all.len() - bytes);
        self.chunks = vec![all];
        self
    }

    /// The body in chunks of so many bytes.
    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        let all = self.chunks.concat();
        self.chunks = all.chunks(bytes).map(<[u8]>::to_vec).collect();
        self
    }
}

/// A frame as servers since 25.11 write it.
pub(crate) fn frame(message: &str) -> Vec<u8> {
    let length = message.len() + 1;
    format!("\r\n__exception__\r\n{TAG}\r\n{message}\n{length} {TAG}\r\n__exception__\r\n").into_bytes()
}

/// The server. Dropped, it ends.
pub(crate) struct FakeClickHouse {
    address: String,
    shared: Arc<FakeState>,
    task: JoinHandle<()>,
}

struct FakeState {
    version: String,
    /// Settings of its profile.
    settings: Vec<(&'static str, &'static str)>,
    /// One for each statement, and the last for all that follow.
    answers: Mutex<Vec<Scripted>>,
    seen: Mutex<Vec<(String, String)>>,
    /// What its log of queries says; without it, nobody may read the log.
    log: Mutex<Option<String>>,
    /// A line in the head of every answer.
    behind: Mutex<Option<String>>,
}

impl Drop for FakeClickHouse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeClickHouse {
    /// A server of this version that answers so.
    pub(crate) async fn start(version: &str, answers: Vec<Scripted>) -> Self {
        Self::with(version, vec![("readonly", "0")], answers).await
    }

    /// The same with a profile.
    pub(crate) async fn with(
        version: &str,
        settings: Vec<(&'static str, &'static str)>,
        answers: Vec<Scripted>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answers, seen) = (Mutex::new(answers), Mutex::default());
        let (log, behind) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(FakeState { version: version.to_owned(), settings, answers, seen, log, behind });
        let kept = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&kept);
                // A client that goes away is what some of the tests want.
                tokio::spawn(async move { drop(serve(socket, &shared).await) });
            }
        });
        Self { address, shared, task }
    }

    /// Lets its log of queries be read, which says this of each query, with tabs between values.
    pub(crate) fn logs(&self, said: &str) {
        *self.shared.log.lock().unwrap() = Some(said.to_owned());
    }

    /// A line in the head of every answer from now on, as what stands between adds it.
    pub(crate) fn behind(&self, line: &str) {
        *self.shared.behind.lock().unwrap() = Some(line.to_owned());
    }

    /// An export from it.
    pub(crate) fn export(&self, arguments: &[&str]) -> Outhaul {
        self.export_with("", arguments)
    }

    /// The same with parameters behind the URL.
    pub(crate) fn export_with(&self, parameters: &str, arguments: &[&str]) -> Outhaul {
        let url = self.url() + parameters;
        let own = ["export", "--from", url.as_str()];
        outhaul(own.iter().chain(arguments))
    }

    pub(crate) fn url(&self) -> String {
        format!("clickhouse://me@{}/db", self.address)
    }

    /// The statements that came, but for those about the server itself, each with its path.
    pub(crate) fn statements(&self) -> Vec<(String, String)> {
        let seen = self.shared.seen.lock().unwrap().clone();
        seen.into_iter().filter(|(_, sql)| !sql.contains("system.settings") && !is_of_itself(sql)).collect()
    }

    /// The ids of the queries that were to be killed.
    pub(crate) fn killed(&self) -> Vec<String> {
        let statements = self.statements().into_iter();
        statements
            .filter_map(|(_, sql)| {
                Some(sql.strip_prefix("KILL QUERY WHERE query_id = '")?.split('\'').next()?.to_owned())
            })
            .collect()
    }
}

/// Whether a statement asks what tables there are, or which server it is: it has no tables, and no id.
fn is_of_itself(sql: &str) -> bool {
    sql.contains("FROM system.tables WHERE database IN") || sql.contains("serverUUID()")
}

async fn serve(socket: TcpStream, shared: &FakeState) -> std::io::Result<()> {
    // Else each small piece waits for the client to acknowledge the one before.
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket);
    let (mut path, mut length) = (String::new(), 0_usize);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim_end().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    let sql = String::from_utf8(body).unwrap();
    shared.seen.lock().unwrap().push((path, sql.clone()));
    let mut answer = shared.answer(&sql);
    answer.headers.extend(shared.behind.lock().unwrap().clone());
    let mut socket = reader.into_inner();
    write(&mut socket, &answer).await?;
    socket.shutdown().await
}

impl FakeState {
    fn answer(&self, sql: &str) -> Scripted {
        if sql.contains("system.settings") {
            let mut facts = format!("version()\t{}\nhostName()\tfake\ntimezone()\tUTC\n", self.version);
            for (name, value) in &self.settings {
                facts.extend([name, "\t", value, "\n"]);
            }
            return Scripted::bare(facts.as_bytes());
        }
        // It has no queries that run, either.
        if sql.starts_with("KILL ") || is_of_itself(sql) {
            return Scripted::bare(b"");
        }
        if sql.contains("system.query_log") {
            if let Some(said) = &*self.log.lock().unwrap() {
                return Scripted::bare(said.as_bytes());
            }
            let refused =
                "Code: 60. DB::Exception: Unknown table expression identifier 'system.query_log'. (UNKNOWN_TABLE)\n";
            return Scripted::bare(refused.as_bytes()).status("404 Not Found");
        }
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.remove(0) } else { answers.first().unwrap().clone() }
    }
}

async fn write(socket: &mut TcpStream, answer: &Scripted) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    let chunked = answer.ending != Ending::Closed;
    if chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    }
    for header in &answer.headers {
        head.extend([header, "\r\n"]);
    }
    socket.write_all(format!("{head}\r\n").as_bytes()).await?;
    for (at, chunk) in answer.chunks.iter().filter(|chunk| !chunk.is_empty()).enumerate() {
        if chunked {
            socket.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
        }
        socket.write_all(chunk).await?;
        if chunked {
            socket.write_all(b"\r\n").await?;
        }
        if at == 0 {
            tokio::time::sleep(answer.pause).await;
        }
    }
    if answer.ending == Ending::Clean {
        socket.write_all(b"0\r\n\r\n").await?;
    }
    socket.flush().await
}
