//! A TCP proxy in front of a server that does to connections what networks do: passes bytes on, holds them back,
//! resets, closes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to the bytes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They arrive.
    Pass,
    /// They are taken and never arrive, in either direction; nobody is told.
    Hold,
    /// The connection is reset (`SO_LINGER` 0).
    Reset,
    /// It is closed.
    Close,
}

/// The proxy; dropped, it drops its connections.
pub(crate) struct TcpProxy {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    /// Where new connections go.
    server: Mutex<SocketAddr>,
    /// Where they go after the next one.
    after_next: Mutex<Option<SocketAddr>>,
    /// Of every connection, those to come included.
    all: watch::Sender<Fate>,
    /// Of connections that the server has sent so many bytes to, by the next field.
    marked: watch::Sender<Fate>,
    /// Bytes from the server after which a connection is marked.
    mark_after: AtomicU64,
    /// How many more connections may be marked.
    marks: AtomicUsize,
    /// What clients have sent, connection by connection.
    heard: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
}

impl TcpProxy {
    /// In front of the server of a `postgres://` URL; gives the URL by way of the proxy, too.
    pub(crate) async fn before(url: &str) -> (Self, String) {
        Self::at("127.0.0.1", url).await
    }

    /// The same at an address of its own, as on another machine: `127.0.0.2`.
    pub(crate) async fn at(host: &str, url: &str) -> (Self, String) {
        let (head, _) = url.split_once('@').unwrap();
        let (server, database) = place(url);
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            after_next: Mutex::default(),
            all: watch::Sender::new(Fate::Pass),
            marked: watch::Sender::new(Fate::Pass),
            mark_after: AtomicU64::new(u64::MAX),
            marks: AtomicUsize::new(0),
            heard: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&own);
                let server = shared.next_server();
                connections.spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    shared.carry(client, server).await;
                });
            }
        });
        (Self { shared, accepting }, format!("{head}@{address}/{database}"))
    }

    /// Sends new connections to another server, as a failover behind a name does.
    pub(crate) fn turn_to(&self, url: &str) {
        *self.shared.server.lock().unwrap() = place(url).0;
    }

    /// Sends one more connection where the last one went, and those behind it to another server, as a balancer does.
    pub(crate) fn turn_after_next(&self, url: &str) {
        *self.shared.after_next.lock().unwrap() = Some(place(url).0);
    }

    /// What happens to all connections from now on.
    pub(crate) fn all(&self, fate: Fate) {
        self.shared.all.send_replace(fate);
    }

    /// What clients have asked the server to run so far: the texts of all `Query` and `Parse` messages.
    pub(crate) fn statements(&self) -> Vec<String> {
        let heard = self.shared.heard.lock().unwrap();
        heard.iter().flat_map(|heard| statements(&heard.lock().unwrap())).collect()
    }

    /// What happens from now on to the first `count` connections that get `bytes` more from the server.
    pub(crate) fn after(&self, bytes: u64, count: usize, fate: Fate) {
        self.shared.marked.send_replace(fate);
        self.shared.marks.store(count, Ordering::SeqCst);
        self.shared.mark_after.store(bytes, Ordering::SeqCst);
    }
}

/// The statements in what the client of one connection has sent, as long as it speaks without TLS.
fn statements(mut heard: &[u8]) -> Vec<String> {
    const SSL_REQUEST: u32 = 80_877_103;
    const CANCEL_REQUEST: u32 = 80_877_102;
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
    let mut found = Vec::new();
    // Messages have no tag until the connection is made.
    while heard.len() >= 8 {
        let (length, code) = (number(heard) as usize, number(&heard[4..]));
        if code == CANCEL_REQUEST || heard.len() < length {
            return found;
        }
        heard = &heard[length..];
        if code != SSL_REQUEST {
            break;
        }
    }
    while heard.len() > 5 {
        let end = 1 + number(&heard[1..]) as usize;
        let Some(body) = heard.get(5..end) else { break };
        let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        match heard[0] {
            b'Q' => found.extend(texts.next()),
            // The statement's name, then its text.
            b'P' => found.extend(texts.nth(1)),
            _ => {}
        }
        heard = &heard[end..];
    }
    found
}

/// The server and the database of a URL.
fn place(url: &str) -> (SocketAddr, &str) {
    let (_, rest) = url.split_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    (server.parse().unwrap(), database)
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn next_server(&self) -> SocketAddr {
        let mut server = self.server.lock().unwrap();
        let now = *server;
        *server = self.after_next.lock().unwrap().take().unwrap_or(now);
        now
    }

    async fn carry(&self, client: TcpStream, server: TcpStream) {
        let mut all = self.all.subscribe();
        let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        let (mut client, mut server) = (client, server);
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        self.heard.lock().unwrap().push(Arc::clone(&heard));
        let mut received = 0_u64;
        let mut marked = false;
        loop {
            let fate = if marked { *self.marked.borrow() } else { *all.borrow_and_update() };
            match fate {
                Fate::Pass => {}
                Fate::Close => return,
                Fate::Reset => {
                    client.set_zero_linger().unwrap();
                    return;
                }
                Fate::Hold if marked => return std::future::pending().await,
                Fate::Hold => {
                    let _ = all.changed().await;
                    continue;
                }
            }
            tokio::select! {
                _ = all.changed() => {}
                read = client.read(&mut up) => match read {
                    Ok(count @ 1..) if server.write_all(&up[..count]).await.is_ok() => {
                        heard.lock().unwrap().extend(&up[..count]);
                    }
                    _ => return,
                },
                read = server.read(&mut down) => match read {
                    Ok(count @ 1..) => {
                        received += count as u64;
                        marked = received >= self.mark_after.load(Ordering::SeqCst) && self.take_mark();
                        if !marked && client.write_all(&down[..count]).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                },
            }
        }
    }

    fn take_mark(&self) -> bool {
        self.marks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}
