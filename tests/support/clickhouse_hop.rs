//! What stands between a client and a real ClickHouse server, and changes what passes: it asks for compressed answers that
//! nobody wanted, takes a header out, or cuts answers and ends them as if they were whole.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::clickhouse::ClickHouse;
use super::run::Outhaul;

/// What it does to answers that are streamed; those to small questions pass as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meddling {
    /// The server is asked to compress them so.
    Compress(&'static str),
    /// The header that says how an error is marked is taken out.
    Untag,
    /// So many bytes are missing at the end, which comes as the end of a whole answer does.
    Shorten(usize),
    /// The same by one that says in its answers that it is there.
    ShortenAndSay(usize),
}

/// The hop. Dropped, it ends.
pub(crate) struct Hop {
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hop {
    /// In front of a server.
    pub(crate) async fn before(server: &ClickHouse, meddling: Meddling) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server: Arc<str> = Arc::from(server.server.as_str());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = Arc::clone(&server);
                // A client that goes away is what some of the tests want.
                tokio::spawn(async move { drop(carry(client, &server, meddling).await) });
            }
        });
        Self { address, task }
    }

    /// The connection string by way of it.
    pub(crate) fn url(&self, parameters: &str, server: &ClickHouse) -> String {
        format!("clickhouse://writer@{}/{}{parameters}", self.address, server.database)
    }

    /// An export of the server by way of it.
    pub(crate) fn export(&self, server: &ClickHouse, arguments: &[&str]) -> Outhaul {
        self.export_with("", server, arguments)
    }

    /// The same with parameters behind the URL.
    pub(crate) fn export_with(&self, parameters: &str, server: &ClickHouse, arguments: &[&str]) -> Outhaul {
        let url = self.url(parameters, server);
        let own = ["export", "--from", url.as_str()];
        super::run::outhaul(own.iter().chain(arguments)).env("CLICKHOUSE_PASSWORD", &server.password)
    }
}

async fn carry(client: TcpStream, server: &str, meddling: Meddling) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = head_of(&mut client).await?;
    // Small questions are answered at once and whole.
    let streamed = !head[0].contains("wait_end_of_query=1") && !head[0].contains("KILL");
    if let Meddling::Compress(coding) = meddling
        && streamed
    {
        head[0] = head[0].replacen(" HTTP/", "&enable_http_compression=1 HTTP/", 1);
        head.push(format!("Accept-Encoding: {coding}\r\n"));
    }
    let length =
        head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).await?;
    let mut behind = BufReader::new(TcpStream::connect(server).await?);
    behind.write_all((head.concat() + "\r\n").as_bytes()).await?;
    behind.write_all(&body).await?;
    let answer = async {
        let mut head = head_of(&mut behind).await?;
        if meddling == Meddling::Untag && streamed {
            head.retain(|line| !line.to_ascii_lowercase().starts_with("x-clickhouse-exception-tag:"));
        }
        if matches!(meddling, Meddling::ShortenAndSay(_)) {
            head.push("Via: 1.1 hop\r\n".to_owned());
        }
        Ok::<_, std::io::Error>(head.concat() + "\r\n")
    };
    let mut client = client.into_inner();
    let head = answer.await?;
    client.write_all(head.as_bytes()).await?;
    match meddling {
        Meddling::Shorten(bytes) | Meddling::ShortenAndSay(bytes) if streamed => {
            let mut body = unchunked(&mut behind).await?;
            body.truncate(body.len().saturating_sub(bytes));
            for chunk in body.chunks(30_000) {
                client.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
                client.write_all(chunk).await?;
                client.write_all(b"\r\n").await?;
            }
            client.write_all(b"0\r\n\r\n").await?;
            client.shutdown().await
        }
        _ => {
            let mut gone = [0; 1];
            let (mut from_client, mut to_client) = client.split();
            tokio::select! {
                // It sends nothing more, and so has gone.
                read = from_client.read(&mut gone) => read.map(drop),
                copied = async {
                    tokio::io::copy(&mut behind, &mut to_client).await?;
                    to_client.shutdown().await
                } => copied,
            }
        }
    }
}

/// The lines of a head, each with its end, without the empty one.
async fn head_of(reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            return Ok(head);
        }
        head.push(line);
    }
}

/// The bytes of a chunked body.
async fn unchunked(reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let Ok(length) = usize::from_str_radix(line.trim(), 16) else { return Ok(all) };
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk).await?;
        if length == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&chunk[..length]);
    }
}
