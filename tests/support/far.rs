//! A relay in front of a server that is far away: every byte arrives later, in both directions, and as many as before.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// Pieces that are on their way in one direction of a connection.
const ON_THEIR_WAY: usize = 1 << 12;

/// The relay; dropped, it drops its connections.
pub(crate) struct Far {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Far {
    /// In front of the server at `address`; an answer comes `round_trip` later than it would.
    pub(crate) async fn before(server: SocketAddr, round_trip: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    for socket in [&client, &server] {
                        socket.set_nodelay(true).unwrap();
                    }
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::join!(
                        late(from_client, to_server, round_trip / 2),
                        late(from_server, to_client, round_trip / 2)
                    );
                });
            }
        });
        Self { address, accepting }
    }

    /// In front of the server of a `postgres://` URL; gives the URL by way of the relay, too.
    pub(crate) async fn before_database(url: &str, round_trip: Duration) -> (Self, String) {
        let (head, rest) = url.split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let far = Self::before(server.parse().unwrap(), round_trip).await;
        let url = format!("{head}@{}/{database}", far.address);
        (far, url)
    }
}

/// Carries bytes in one direction, each as much later.
async fn late(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sent, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THEIR_WAY);
    let reading = async move {
        loop {
            let mut piece = vec![0; 64 << 10];
            match from.read(&mut piece).await {
                Ok(count @ 1..) => {
                    piece.truncate(count);
                    if sent.send((Instant::now() + delay, piece)).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    let writing = async move {
        while let Some((at, piece)) = arriving.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

impl Drop for Far {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
