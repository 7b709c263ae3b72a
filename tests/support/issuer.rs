//! Whoever issues tokens: keys made by openssl, a document of them over HTTP, and a server of it that is not well.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::tls::{Certificate, acceptor};

/// A key that signs tokens.
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
}

impl SigningKey {
    pub(crate) fn new(kid: &str, algorithm: Algorithm) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let ec = |curve: &str| {
            let curve = format!("ec_paramgen_curve:{curve}");
            openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &curve, "-out", "pem"]);
            openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", "pem", "-outform", "DER", "-out", "key"]);
        };
        match algorithm {
            Algorithm::ES256 => ec("P-256"),
            Algorithm::ES384 => ec("P-384"),
            Algorithm::EdDSA => openssl(&["genpkey", "-algorithm", "ed25519", "-outform", "DER", "-out", "key"]),
            _ => {
                openssl(&["genrsa", "-traditional", "-out", "pem", "2048"]);
                openssl(&["rsa", "-in", "pem", "-traditional", "-outform", "DER", "-out", "key"]);
            }
        }
        let der = std::fs::read(folder.path().join("key")).unwrap();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(&der),
            Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
            _ => EncodingKey::from_rsa_der(&der),
        };
        Self { kid: kid.to_owned(), algorithm, key }
    }

    /// Its public half.
    pub(crate) fn public(&self) -> Value {
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        key["kid"] = self.kid.clone().into();
        key
    }

    pub(crate) fn header(&self) -> Header {
        Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        encode(&self.header(), claims, &self.key).unwrap()
    }
}

/// The document of some keys.
pub(crate) fn document(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()}).to_string()
}

/// Seconds from now, as tokens have them.
pub(crate) fn moment(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}

/// What its server answers with.
#[derive(Debug, Clone)]
pub(crate) enum IssuerAnswer {
    Document(String),
    /// The document, behind a silence.
    Late(Duration, String),
    /// The lines of a head, and no body.
    Head(&'static str),
    /// It takes the request and is silent.
    Silent,
    /// A body without an end.
    Endless,
}

/// Its server.
pub(crate) struct Issuer {
    pub(crate) url: String,
    answer: Arc<Mutex<IssuerAnswer>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Issuer {
    pub(crate) async fn start(answer: IssuerAnswer) -> Self {
        Self::over(None, answer).await
    }

    /// Over TLS where there is a certificate.
    pub(crate) async fn over(certificate: Option<&Certificate>, answer: IssuerAnswer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if certificate.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/keys", listener.local_addr().unwrap());
        let tls = certificate.map(acceptor);
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (kept, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, tls) = (kept.lock().unwrap().clone(), tls.clone());
                // A service that gives up is what some of the tests want.
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(socket).await?, answer).await,
                        None => serve(socket, answer).await,
                    }
                });
            }
        });
        Self { url, answer, asked, task }
    }

    pub(crate) fn turn_to(&self, answer: IssuerAnswer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin, answer: IssuerAnswer) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    // Long enough for others to ask meanwhile.
    let (silence, answer) = match answer {
        IssuerAnswer::Late(silence, text) => (silence, IssuerAnswer::Document(text)),
        other => (Duration::from_millis(100), other),
    };
    match answer {
        IssuerAnswer::Late(..) => Ok(()),
        IssuerAnswer::Document(text) => {
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", text.len());
            tokio::time::sleep(silence).await;
            socket.write_all(format!("{head}connection: close\r\n\r\n{text}").as_bytes()).await?;
            socket.shutdown().await
        }
        IssuerAnswer::Head(head) => {
            socket.write_all(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await
        }
        IssuerAnswer::Silent => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            Ok(())
        }
        IssuerAnswer::Endless => {
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\": [").await?;
            loop {
                socket.write_all(&[b' '; 4_096]).await?;
            }
        }
    }
}
