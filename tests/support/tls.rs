//! Certificates made by openssl, and servers that are not what they seem.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// For the servers on 127.0.0.1.
pub(crate) const LOCAL: &str = "IP:127.0.0.1";

/// What signs certificates.
pub(crate) struct Authority {
    folder: TempDir,
}

/// Two PEM files; they go with their authority.
pub(crate) struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// An authority with a key that openssl makes so: `ec`, `ed25519`.
    pub(crate) fn new(key: &str) -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        let subject = format!("/CN=authority {}", super::unique());
        let mut arguments = vec!["req", "-x509", "-nodes", "-subj", &subject, "-days", "30"];
        arguments.extend(["-keyout", "ca.key", "-out", "ca.crt", "-newkey", key]);
        arguments.extend((key == "ec").then_some(["-pkeyopt", "ec_paramgen_curve:P-256"]).into_iter().flatten());
        authority.openssl(&arguments);
        authority
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate for a common name and alternative names, valid for so many days from now.
    pub(crate) fn issue(&self, common: &str, names: &str, days: i32) -> Certificate {
        let file = |kind: &str| format!("{}.{kind}", super::unique());
        let (key, request, extensions, certificate) = (file("key"), file("csr"), file("ext"), file("crt"));
        std::fs::write(self.folder.path().join(&extensions), format!("subjectAltName={names}\n")).unwrap();
        let subject = format!("/CN={common}");
        self.openssl(&["req", "-nodes", "-newkey", "rsa:2048", "-subj", &subject, "-keyout", &key, "-out", &request]);
        let days = days.to_string();
        let mut arguments = vec!["x509", "-req", "-in", &request, "-CA", "ca.crt", "-CAkey", "ca.key", "-days", &days];
        arguments.extend(["-CAcreateserial", "-extfile", &extensions, "-out", &certificate]);
        self.openssl(&arguments);
        let path = |name: String| self.folder.path().join(name);
        Certificate { certificate: path(certificate), key: path(key) }
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What a false server asks its client for.
#[derive(Clone, Copy)]
pub(crate) enum Demand {
    /// The password as it is.
    Clear,
    /// Its MD5 hash with a salt.
    Md5,
}

/// A server on a port of 127.0.0.1 that remembers what it hears.
pub(crate) struct Listener {
    /// The port.
    pub port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Listener {
    async fn start<F>(serve: impl Fn(TcpStream, Arc<Mutex<Vec<u8>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that leaves is what these servers are for.
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Self { port, heard, task }
    }

    /// What clients said after the false server had shown what it is.
    pub(crate) fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who takes TLS connections with a certificate.
pub(crate) fn acceptor(certificate: &Certificate) -> TlsAcceptor {
    accepting(certificate, None)
}

/// The same, where clients must show a certificate of this authority if there is one.
fn accepting(certificate: &Certificate, clients: Option<&Authority>) -> TlsAcceptor {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&certificate.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

/// TLS in front of a server that has none, and hears what clients send through it. With `clients` it asks them for a
/// certificate of that authority.
pub(crate) async fn fronted(certificate: &Certificate, server: String, clients: Option<&Authority>) -> Listener {
    let acceptor = accepting(certificate, clients);
    Listener::start(move |client, heard| {
        let (acceptor, server) = (acceptor.clone(), server.clone());
        async move {
            let (mut from_client, mut to_client) = tokio::io::split(acceptor.accept(client).await?);
            let mut behind = TcpStream::connect(server).await?;
            let (mut from_server, mut to_server) = behind.split();
            let asking = async {
                let mut buffer = [0; 4096];
                loop {
                    let count = from_client.read(&mut buffer).await?;
                    if count == 0 {
                        return Ok(());
                    }
                    heard.lock().unwrap().extend_from_slice(&buffer[..count]);
                    to_server.write_all(&buffer[..count]).await?;
                }
            };
            let answering = async {
                tokio::io::copy(&mut from_server, &mut to_client).await?;
                to_client.shutdown().await
            };
            // Whoever goes first ends it for both.
            tokio::select! {
                ended = asking => ended,
                ended = answering => ended,
            }
        }
    })
    .await
}

/// A server with TLS that asks for the password in a way that gives it away, and hears what comes then.
pub(crate) async fn impostor(certificate: &Certificate, demand: Demand) -> Listener {
    let acceptor = acceptor(certificate);
    Listener::start(move |mut stream, heard| {
        let acceptor = acceptor.clone();
        async move {
            stream.read_exact(&mut [0; 8]).await?;
            stream.write_all(b"S").await?;
            let mut stream = acceptor.accept(stream).await?;
            let length = stream.read_u32().await?;
            stream.read_exact(&mut vec![0; usize::try_from(length).unwrap() - 4]).await?;
            stream
                .write_all(match demand {
                    Demand::Clear => b"R\0\0\0\x08\0\0\0\x03",
                    Demand::Md5 => b"R\0\0\0\x0c\0\0\0\x05salt",
                })
                .await?;
            stream.flush().await?;
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await?;
            heard.lock().unwrap().extend_from_slice(&buffer[..count]);
            Ok(())
        }
    })
    .await
}

/// A proxy that says there is no TLS, whatever is behind it, and hears what comes then.
pub(crate) async fn downgrader(server: String) -> Listener {
    Listener::start(move |mut client, heard| {
        let server = server.clone();
        async move {
            let mut behind = TcpStream::connect(server).await?;
            client.read_exact(&mut [0; 8]).await?;
            client.write_all(b"N").await?;
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = behind.split();
            let forward = async {
                let mut buffer = [0; 4096];
                loop {
                    let count = from_client.read(&mut buffer).await?;
                    if count == 0 {
                        return to_server.shutdown().await;
                    }
                    heard.lock().unwrap().extend_from_slice(&buffer[..count]);
                    to_server.write_all(&buffer[..count]).await?;
                }
            };
            tokio::try_join!(forward, tokio::io::copy(&mut from_server, &mut to_client)).map(|_| ())
        }
    })
    .await
}

/// Whether `text` is somewhere in `bytes`.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The words of a connection string that name a file.
pub(crate) fn word(name: &str, file: &Path) -> String {
    format!("{name}={}", file.display())
}
