//! Connection settings, after libpq's environment, service file and password file have been read.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::http::CodingChoice;

/// One connection attempt, TCP, TLS and authentication together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where the password of a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// A URL, a variable or libpq's password file has it.
    Known(Secret),
    /// The first line of a file, read for each connection.
    File(PathBuf),
    /// The first line that a shell command prints, run for each connection.
    Command(Secret),
}

/// The certificate that the server is shown where it asks for one, and its private key; files in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `sslcert`: the certificate, and those that lead from it to the authority.
    pub certificate: PathBuf,
    /// `sslkey`.
    pub key: PathBuf,
}

/// libpq's `channel_binding`: whether the proof of the password also proves that nobody stands between the two ends of
/// the TLS connection (RFC 5802, `SCRAM-SHA-256-PLUS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Always: the password is not sent to a server that asks for it in any other way.
    Require,
}

/// libpq's `sslmode`, without `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS where the server offers it, without checking whom it belongs to.
    Prefer,
    /// TLS, without checking whom it belongs to.
    Require,
    /// TLS with a certificate that a known authority signed.
    VerifyCa,
    /// As `VerifyCa`, and the certificate names the host.
    VerifyFull,
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// A host name or IP address.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// The folder of a Unix socket.
    Unix {
        /// The folder.
        folder: PathBuf,
        /// Port, part of the socket's name.
        port: u16,
    },
}

impl ServerAddress {
    /// Whether it is of this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Self::Unix { .. } => true,
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

/// Everything needed to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectSettings {
    /// Candidates, tried in order.
    pub addresses: Vec<ServerAddress>,
    /// Whether nothing said where the server is, so that these are the places where one is by default.
    pub nowhere: bool,
    /// The role.
    pub user: String,
    /// The password, where there is one.
    pub password: Option<Password>,
    /// The database.
    pub database: String,
    /// `options`: command-line options for the backend.
    pub options: Option<String>,
    /// TLS.
    pub ssl_mode: SslMode,
    /// Certificates of the authorities to trust; `None` is the system's.
    pub ssl_root_cert: Option<PathBuf>,
    /// What the server is shown where it asks for a certificate.
    pub ssl_cert: Option<ClientCertificate>,
    /// `channel_binding`.
    pub channel_binding: ChannelBinding,
    /// `target_session_attrs`.
    pub target_session_attrs: TargetSessionAttrs,
    /// `connect_timeout`: for one connection to be made to one address.
    pub connect_timeout: Duration,
    /// `compression`: whether answers are to be compressed on their way, by a source that speaks HTTP.
    pub compression: CodingChoice,
    /// Files that hold a password and that others than their owner can read.
    pub exposed: Vec<PathBuf>,
}

/// libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}
