//! One HTTP/1.1 request to one server: for the program's own calls, and for those to sources that speak HTTP. Each has a
//! connection of its own.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::failpoint;
use super::postgres::keepalive;
use super::postgres::untrusted::cause;

/// For the connection, with its TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// For the first line of the answer: a service may look for the first rows for a while.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);

/// How an answer is compressed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCoding {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl BodyCoding {
    /// As HTTP calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// By the name that HTTP has for it.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Gzip, Self::Zstd].into_iter().find(|coding| coding.name().eq_ignore_ascii_case(name.trim()))
    }
}

/// Whether answers are to be compressed on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodingChoice {
    /// Where nothing else would show that one was cut.
    #[default]
    AsNeeded,
    /// Never.
    Plain,
    /// Always, in this way.
    Packed(BodyCoding),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{0}")]
    Address(&'static str),
    #[error("connecting to {server}")]
    Connect { server: String, source: io::Error },
    #[error("the TLS of {server}")]
    Tls { server: String, source: io::Error },
    #[error("asking {server}")]
    Exchange { server: String, source: hyper::Error },
    #[error("{server} did not answer within {seconds} s")]
    Silent { server: String, seconds: u64 },
    #[error("{server} is at {address}, which is not on the list")]
    NotListed { server: String, address: IpAddr },
}

/// Whom a server with TLS must be, where the system's list of authorities does not say it.
#[derive(Debug, Clone)]
struct OwnTls(Arc<ClientConfig>);

impl PartialEq for OwnTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for OwnTls {}

/// A server, and the path below which everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpServer {
    tls: bool,
    own_tls: Option<OwnTls>,
    host: String,
    port: u16,
    /// `host` or `host:port`, as it was written.
    authority: String,
    /// Without a slash at its end.
    base: String,
    /// Bytes of an answer that the system keeps until they are read; `None` is as many as it likes.
    kept: Option<usize>,
}

impl HttpServer {
    /// Reads `http[s]://host[:port][/path]`.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn parse(text: &str) -> Result<Self, HttpError> {
        let uri: Uri = text.parse().map_err(|_| HttpError::Address("this is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(HttpError::Address("a URL of a service begins with https:// or http://")),
        };
        let authority = uri.authority().ok_or(HttpError::Address("the URL names no host"))?;
        if authority.as_str().contains('@') {
            return Err(HttpError::Address("a URL of a service holds no user and no password"));
        }
        if uri.query().is_some() {
            return Err(HttpError::Address("a URL of a service has no query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(HttpError::Address("the URL names no host"));
        }
        let written = authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
        let port = match (authority.port_u16(), written) {
            (Some(port), _) => port,
            // No other server than the one that was meant gets the key.
            (None, Some(text)) if !text.is_empty() => return Err(HttpError::Address("the URL's port is none")),
            (None, _) if tls => 443,
            (None, _) => 80,
        };
        let base = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { tls, own_tls: None, host, port, authority: authority.as_str().to_owned(), base, kept: None })
    }

    /// A server at its root, with TLS by `tls` or without any. `host` is a name or an address, an IPv6 address without
    /// brackets.
    pub(crate) fn at(host: &str, port: u16, tls: Option<Arc<ClientConfig>>) -> Self {
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let own_tls = tls.map(OwnTls);
        Self {
            tls: own_tls.is_some(),
            own_tls,
            host: host.to_owned(),
            port,
            authority,
            base: String::new(),
            kept: None,
        }
    }

    /// The same, of whose answers the system keeps only about so many bytes until they are read.
    pub(crate) fn keeping(self, bytes: usize) -> Self {
        Self { kept: Some(bytes), ..self }
    }

    /// The path of a resource, whose own begins with a slash.
    pub(crate) fn path(&self, resource: &str) -> String {
        format!("{}{resource}", self.base)
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether others on the way can read what is sent.
    pub(crate) fn is_open(&self) -> bool {
        let loopback = self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        !self.tls && !loopback
    }

    /// Sends a request on a connection of its own, and gives the answer once its head is there. The connection is closed
    /// when the answer's body is dropped.
    ///
    /// # Errors
    /// The server cannot be reached, is not trusted, or does not answer in time.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, HttpError> {
        self.send_where(request, |_| true).await
    }

    /// As [`HttpServer::send`], where the address that the server turns out to have is an allowed one: whatever its name
    /// resolves to, nothing is sent to another.
    pub(crate) async fn send_where(
        &self,
        request: Request<Full<Bytes>>,
        allowed: impl Fn(IpAddr) -> bool,
    ) -> Result<Response<Incoming>, HttpError> {
        self.exchange_where(request, allowed, Some(failpoint::limit("http_answer", ANSWER_TIMEOUT))).await
    }

    /// As [`HttpServer::send`], where the head of the answer may take `answer`, or as long as it likes: a query may
    /// compute for hours before its first row. A network that died meanwhile is noticed all the same.
    pub(crate) async fn send_patiently(
        &self,
        request: Request<Full<Bytes>>,
        answer: Option<Duration>,
    ) -> Result<Response<Incoming>, HttpError> {
        self.exchange_where(request, |_| true, answer).await
    }

    async fn exchange_where(
        &self,
        request: Request<Full<Bytes>>,
        allowed: impl Fn(IpAddr) -> bool,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, HttpError> {
        let server = || self.authority.clone();
        let socket = self.within(CONNECT_TIMEOUT, self.connect()).await?;
        let address = socket.peer_addr().map_err(|source| HttpError::Connect { server: server(), source })?.ip();
        if !allowed(address) {
            return Err(HttpError::NotListed { server: server(), address });
        }
        let asked = async {
            if !self.tls {
                return exchange(socket, request)
                    .await
                    .map_err(|source| HttpError::Exchange { server: server(), source });
            }
            let secured = self.within(CONNECT_TIMEOUT, Box::pin(self.secure(socket))).await?;
            exchange(secured, request).await.map_err(|source| HttpError::Exchange { server: server(), source })
        };
        // TLS and exchange are large, and few.
        let asked = Box::pin(asked);
        match limit {
            Some(limit) => self.within(limit, asked).await,
            None => asked.await,
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        let silent = |_| HttpError::Silent { server: self.authority.clone(), seconds: limit.as_secs() };
        tokio::time::timeout(limit, work).await.map_err(silent)?
    }

    async fn connect(&self) -> Result<TcpStream, HttpError> {
        let connected = match failpoint::address(&self.host) {
            Some(address) => TcpStream::connect((address, self.port)).await,
            None => TcpStream::connect((self.host.as_str(), self.port)).await,
        };
        let set = connected.and_then(|socket| {
            keepalive::set(&socket)?;
            if let Some(bytes) = self.kept {
                keepalive::keep_little(&socket, bytes)?;
            }
            Ok(socket)
        });
        set.map_err(|source| HttpError::Connect { server: self.authority.clone(), source })
    }

    async fn secure(&self, socket: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, HttpError> {
        let failed = |source| HttpError::Tls { server: self.authority.clone(), source };
        // A connection that breaks off on the way says nothing of the TLS of either side.
        let broken = |source: io::Error| match cause::<rustls::Error>(&source) {
            Some(_) => failed(source),
            None => HttpError::Connect { server: self.authority.clone(), source },
        };
        let config = match &self.own_tls {
            Some(OwnTls(config)) => Arc::clone(config),
            None => Arc::new(system_tls().map_err(|error| failed(io::Error::other(error)))?),
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
        TlsConnector::from(config).connect(name, socket).await.map_err(broken)
    }
}

/// Trusts whom the system trusts.
fn system_tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // Its error comes out of the request or of the body; it ends with them.
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_server_and_a_path() {
        let server = HttpServer::parse("https://data.example.com/exports/").unwrap();
        assert_eq!((server.tls, server.host.as_str(), server.port), (true, "data.example.com", 443));
        assert_eq!(server.path("/v1/datasets"), "/exports/v1/datasets");
        let server = HttpServer::parse("http://[::1]:8080").unwrap();
        assert_eq!((server.host.as_str(), server.port, server.authority()), ("::1", 8080, "[::1]:8080"));
        assert_eq!(server.path("/x"), "/x");
        for (url, port) in
            [("http://[::1]", 80), ("https://[::1]/x", 443), ("https://host:", 443), ("http://h:65535", 65_535)]
        {
            assert_eq!(HttpServer::parse(url).unwrap().port, port, "{url}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_not_another_one() {
        for url in ["https://host:99999", "http://[::1]:65536/x", "https://10.0.0.1:123456789012"] {
            assert!(matches!(HttpServer::parse(url), Err(HttpError::Address("the URL's port is none"))), "{url}");
        }
        HttpServer::parse("https://host:8080a").unwrap_err();
    }

    #[test]
    fn a_key_may_be_read_on_the_way_to_another_machine_without_tls() {
        let open = ["http://data.example.com", "http://10.0.0.1:80", "http://127.0.0.1.example.com"];
        let closed = ["https://data.example.com", "http://localhost:1", "http://127.0.0.1:2", "http://[::1]/x"];
        assert!(open.iter().all(|url| HttpServer::parse(url).unwrap().is_open()));
        assert!(!closed.iter().any(|url| HttpServer::parse(url).unwrap().is_open()));
    }

    /// How it ends with a server that answers the first bytes of TLS with these, and goes away, with a reset or without.
    async fn asked_over_tls(answer: &'static [u8], reset: bool) -> HttpError {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = HttpServer::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        let answering = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            socket.write_all(answer).await.unwrap();
            if reset {
                rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
            }
        };
        let request = Request::get("/").body(Full::default()).unwrap();
        tokio::join!(server.send(request), answering).0.unwrap_err()
    }

    #[tokio::test]
    async fn a_handshake_that_breaks_off_is_a_lost_connection_and_no_refused_tls() {
        for reset in [false, true] {
            let error = asked_over_tls(b"", reset).await;
            assert!(matches!(error, HttpError::Connect { .. }), "{reset}: {error:?}");
        }
        let error = asked_over_tls(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).await;
        assert!(matches!(error, HttpError::Tls { .. }), "{error:?}");
        // The alert `handshake_failure`.
        let error = asked_over_tls(b"\x15\x03\x03\x00\x02\x02\x28", false).await;
        assert!(matches!(error, HttpError::Tls { .. }), "{error:?}");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "localhost:8080", "ftp://x", "http://", "http://u:p@host/", "http://host/?a=b", "http://:80"] {
            assert!(matches!(HttpServer::parse(text), Err(HttpError::Address(_))), "{text}");
        }
    }
}
