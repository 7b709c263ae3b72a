//! Which of several servers a run reads: libpq's rules for several hosts and for `target_session_attrs`.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, SimpleQueryMessage};

use super::connector::Connector;
use super::keepalive;
use super::password;
use super::settings::{ServerAddress, SslMode, TargetSessionAttrs};
use super::stream::{Lender, RawStream, SessionStream};
use super::tls::TlsUpgrade;
use super::untrusted::unknown_host;
use crate::base::voice;

/// One server, found once: a name behind which a balancer sits must not answer twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp { host: String, address: SocketAddr },
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, address } if *host == address.ip().to_string() => write!(f, "{address}"),
            Self::Tcp { host, address } => write!(f, "{host} ({address})"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why no candidate was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct NotReached {
    /// Each candidate, and why.
    pub(crate) text: String,
    pub(crate) reason: Option<UnreachedReason>,
}

/// Why the first of them was not, where it is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnreachedReason {
    HostUnknown,
    ConnectionRefused,
}

/// A connection with what drives it.
pub(crate) type Connected = (Client, JoinHandle<()>, Lender);

impl Connector {
    /// Connects to the server of the run, which the first connection chooses, with the password as it is now.
    pub(crate) async fn connect(&self, config: &Config) -> Result<Connected, Error> {
        let mut config = config.clone();
        if let Some(password) = &self.settings.password {
            match password::current(password).await {
                Ok(password) => drop(config.password(password.expose())),
                Err(error) => return failed(&config, io::Error::other(error)).await,
            }
        }
        let config = &config;
        match self.pinned.get() {
            None => self.choose(config).await,
            Some(endpoint) => self.open_pinned(endpoint, config).await,
        }
    }

    async fn open_pinned(&self, endpoint: &Endpoint, config: &Config) -> Result<Connected, Error> {
        match self.open(endpoint, config, TargetSessionAttrs::Any).await? {
            Ok(connected) => Ok(connected),
            Err(error) => failed(config, all(&[error])).await,
        }
    }

    /// The candidates in order, until one answers and is what `target_session_attrs` asks for.
    async fn choose(&self, config: &Config) -> Result<Connected, Error> {
        let mut failures = Vec::new();
        for target in passes(self.settings.target_session_attrs) {
            failures.clear();
            for address in &self.settings.addresses {
                let found = tokio::time::timeout(self.settings.connect_timeout, endpoints(address)).await;
                let silent =
                    || not_reached(address, &"its name is not looked up in time", Some(UnreachedReason::HostUnknown));
                let endpoints = match found.unwrap_or_else(|_| Err(silent())) {
                    Ok(endpoints) => endpoints,
                    Err(error) => {
                        failures.push(error);
                        continue;
                    }
                };
                for endpoint in endpoints {
                    match self.open(&endpoint, config, *target).await? {
                        Ok(connected) => {
                            let pinned = self.pinned.get_or_init(|| endpoint.clone());
                            if *pinned == endpoint {
                                return Ok(connected);
                            }
                            // Another connection has chosen another candidate meanwhile.
                            return self.open_pinned(pinned, config).await;
                        }
                        Err(error) => failures.push(error),
                    }
                }
            }
        }
        failed(config, all(&failures)).await
    }

    /// One candidate. The inner error lets the search go on; as in libpq, a server that answers and refuses us ends it,
    /// unless it is only starting up or shutting down.
    async fn open(
        &self,
        endpoint: &Endpoint,
        config: &Config,
        target: TargetSessionAttrs,
    ) -> Result<Result<Connected, NotReached>, Error> {
        let named = |why: &dyn fmt::Display| not_reached(endpoint, why, None);
        let undialled = |error: &io::Error| {
            let refused =
                (error.kind() == io::ErrorKind::ConnectionRefused).then_some(UnreachedReason::ConnectionRefused);
            not_reached(endpoint, error, refused)
        };
        let opened = async {
            let (raw, upgrade) = match self.dial(endpoint).await {
                Ok(dialled) => dialled,
                Err(error) => return Ok(Err(undialled(&error))),
            };
            let may_be_plain = self.settings.ssl_mode == SslMode::Prefer && matches!(raw, RawStream::Tcp(_));
            let mut spoken = speak(config, raw, upgrade, self.told.clone()).await;
            if may_be_plain && spoken.as_ref().is_err_and(not_let_in) {
                // As in libpq: pg_hba.conf may let in what does not come encrypted.
                spoken = match self.dial(endpoint).await {
                    Ok((raw, _)) => speak(&plain(config), raw, TlsUpgrade::none(), self.told.clone()).await,
                    Err(error) => return Ok(Err(undialled(&error))),
                };
            }
            let connected = match spoken {
                Ok(connected) => connected,
                Err(error) => {
                    return starting(&error).map_or(Err(error), |why| Ok(Err(named(&why))));
                }
            };
            Ok(match misfit(&connected.0, target).await? {
                None => Ok(connected),
                Some(why) => Err(named(&why)),
            })
        };
        let opened = tokio::time::timeout(self.settings.connect_timeout, opened).await;
        opened.unwrap_or_else(|_| Ok(Err(named(&"no answer in time"))))
    }

    /// A socket to the run's server for a cancel request.
    pub(super) async fn socket(&self) -> io::Result<(RawStream, TlsUpgrade)> {
        let endpoint = self.pinned.get().ok_or_else(|| io::Error::other("no server has been chosen"))?;
        self.dial(endpoint).await
    }

    async fn dial(&self, endpoint: &Endpoint) -> io::Result<(RawStream, TlsUpgrade)> {
        let (host, address) = match endpoint {
            Endpoint::Unix(path) => {
                return Ok((RawStream::Unix(UnixStream::connect(path).await?), TlsUpgrade::none()));
            }
            Endpoint::Tcp { host, address } => (host, address),
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        keepalive::set(&stream)?;
        let upgrade = self.tls.as_ref().map_or_else(TlsUpgrade::none, |config| {
            TlsUpgrade::new(Arc::clone(config), host, self.settings.channel_binding)
        });
        Ok((RawStream::Tcp(stream), upgrade))
    }
}

/// What is asked of the candidates, round by round.
fn passes(target: TargetSessionAttrs) -> &'static [TargetSessionAttrs] {
    use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
    match target {
        Any => &[Any],
        ReadWrite => &[ReadWrite],
        ReadOnly => &[ReadOnly],
        Primary => &[Primary],
        Standby => &[Standby],
        PreferStandby => &[Standby, Any],
    }
}

/// What keeps a server from being what is asked for; the words are libpq's own.
fn mismatch(target: TargetSessionAttrs, standby: bool, read_only: bool) -> Option<&'static str> {
    use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
    match target {
        ReadWrite if standby || read_only => Some("session is read-only"),
        ReadOnly if !standby && !read_only => Some("session is not read-only"),
        Primary if standby => Some("server is in hot standby mode"),
        Standby if !standby => Some("server is not in hot standby mode"),
        Any | PreferStandby | ReadWrite | ReadOnly | Primary | Standby => None,
    }
}

/// Asks a server what it is. libpq reads the same from parameters that poolers do not always pass on.
async fn misfit(client: &Client, target: TargetSessionAttrs) -> Result<Option<&'static str>, Error> {
    const ASK: &str =
        "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')";
    if target == TargetSessionAttrs::Any {
        return Ok(None);
    }
    let answer = client.simple_query(ASK).await?;
    let is = |column: usize, word: &str| {
        answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(column) == Some(word)))
    };
    Ok(mismatch(target, is(0, "t"), is(1, "on")))
}

/// What a server says that takes no sessions now (`cannot_connect_now`).
fn starting(error: &Error) -> Option<String> {
    let error = error.as_db_error().filter(|error| error.code().code() == "57P03")?;
    Some(error.message().to_owned())
}

/// A candidate, and why it is none.
fn not_reached(candidate: &dyn fmt::Display, why: &dyn fmt::Display, reason: Option<UnreachedReason>) -> NotReached {
    NotReached { text: format!("{candidate}: {}", voice::plain(&why.to_string())), reason }
}

/// One error for all candidates.
fn all(failures: &[NotReached]) -> io::Error {
    let texts: Vec<&str> = failures.iter().map(|failure| failure.text.as_str()).collect();
    let text = if texts.is_empty() { "no host".to_owned() } else { texts.join("; ") };
    io::Error::other(NotReached { text, reason: failures.first().and_then(|failure| failure.reason) })
}

async fn endpoints(address: &ServerAddress) -> Result<Vec<Endpoint>, NotReached> {
    match address {
        ServerAddress::Unix { folder, port } => Ok(vec![Endpoint::Unix(folder.join(format!(".s.PGSQL.{port}")))]),
        ServerAddress::Tcp { host, port } => {
            let found = tokio::net::lookup_host((host.as_str(), *port))
                .await
                .map_err(|error| not_reached(address, &unresolved(&error), Some(UnreachedReason::HostUnknown)))?;
            Ok(found.map(|address| Endpoint::Tcp { host: host.clone(), address }).collect())
        }
    }
}

fn unresolved(error: &io::Error) -> String {
    unknown_host(error).unwrap_or_else(|| format!("its name stands for no address ({error})"))
}

/// Whether `pg_hba.conf` has no entry for such a connection, or one that refuses it
/// (`ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION`; its words are translated).
fn not_let_in(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.code().code() == "28000")
}

fn plain(config: &Config) -> Config {
    let mut config = config.clone();
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    config
}

/// TLS where it is wanted, authentication, and a task that drives the connection.
async fn speak(
    config: &Config,
    raw: RawStream,
    upgrade: TlsUpgrade,
    told: Option<Arc<Notify>>,
) -> Result<Connected, Error> {
    let config = Connector::for_socket(config, &raw);
    let tls = config.get_ssl_mode() != tokio_postgres::config::SslMode::Disable;
    drive(&config, SessionStream::new(raw, tls), upgrade, told).await
}

/// The driver's error has no public constructor; writing to a stream that has failed makes one.
async fn failed(config: &Config, error: io::Error) -> Result<Connected, Error> {
    drive(&plain(config), SessionStream::failed(error), TlsUpgrade::none(), None).await
}

async fn drive(
    config: &Config,
    stream: SessionStream,
    upgrade: TlsUpgrade,
    told: Option<Arc<Notify>>,
) -> Result<Connected, Error> {
    let lender = stream.lender();
    let (client, mut connection) = config.connect_raw(stream, upgrade).await?;
    let driver = tokio::spawn(async move {
        let ended = match told {
            None => connection.await,
            Some(told) => poll_fn(|context| listened(&mut connection, &told, context)).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "session ended");
        }
    });
    Ok((client, driver, lender))
}

/// Drives a connection until it ends, and tells of each `NOTIFY` that it hears.
fn listened<S, T>(
    connection: &mut Connection<S, T>,
    told: &Notify,
    context: &mut Context<'_>,
) -> Poll<Result<(), Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match ready!(connection.poll_message(context)) {
            Some(Ok(AsyncMessage::Notification(_))) => told.notify_one(),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_judged_as_libpq_judges_them() {
        use TargetSessionAttrs::{Any, Primary, ReadOnly, ReadWrite, Standby};
        // A primary, a primary whose sessions are read-only by default, a standby.
        let servers = [(false, false), (false, true), (true, false)];
        for (target, fits) in [
            (Any, [true, true, true]),
            (ReadWrite, [true, false, false]),
            (ReadOnly, [false, true, true]),
            (Primary, [true, true, false]),
            (Standby, [false, false, true]),
        ] {
            for ((standby, read_only), fits) in servers.into_iter().zip(fits) {
                let found = mismatch(target, standby, read_only);
                assert_eq!(found.is_none(), fits, "{target:?} {standby} {read_only}: {found:?}");
            }
        }
    }

    #[test]
    fn a_preferred_standby_is_looked_for_first_and_then_anything_will_do() {
        assert_eq!(passes(TargetSessionAttrs::PreferStandby), [TargetSessionAttrs::Standby, TargetSessionAttrs::Any]);
        assert_eq!(passes(TargetSessionAttrs::Primary), [TargetSessionAttrs::Primary]);
    }

    #[test]
    fn every_candidate_is_told() {
        let failures = [("a:1", "refused"), ("b:1", "session is read-only")];
        let failures = failures.map(|(candidate, why)| not_reached(&candidate, &why, None));
        assert_eq!(all(&failures).to_string(), "a:1: refused; b:1: session is read-only");
    }

    #[test]
    fn an_endpoint_names_its_host_once() {
        let tcp = |host: &str| Endpoint::Tcp { host: host.to_owned(), address: "127.0.0.1:5432".parse().unwrap() };
        assert_eq!(tcp("127.0.0.1").to_string(), "127.0.0.1:5432");
        assert_eq!(tcp("localhost").to_string(), "localhost (127.0.0.1:5432)");
    }
}
