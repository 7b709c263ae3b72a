//! What the errors of the server and of the driver mean for a run.

use std::error::Error as StdError;
use std::io;

use tokio_postgres::error::{DbError, ErrorPosition};

use super::frame::ErrorResponse;
use super::sqlstate;
use crate::base::postgres::password::NoPassword;
use crate::base::postgres::settings::ConnectSettings;
use crate::base::postgres::untrusted::{cause, certificate_hint, certificate_words};
use crate::base::postgres::{NotReached, UnreachedReason};
use crate::base::{OPEN_FILES_HINT, tells_of_open_files, voice};
use crate::model::ErrorCode;
use crate::source::{SourceError, SourceFault};

/// What to do where a standby ended the snapshot.
pub(crate) const STANDBY_HINT: &str = "the source is a standby, and its replay ends sessions that see rows it removes: \
    set hot_standby_feedback = on there or raise max_standby_streaming_delay, then run the export again";

/// An error that the server reported. Its DETAIL and CONTEXT stay out: they may quote row values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {sqlstate})")]
pub struct ServerError {
    /// The five-character code.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// The server's own hint.
    pub hint: Option<String>,
    /// Where it is in the statement.
    pub(crate) place: Option<StatementPlace>,
}

/// A place in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatementPlace {
    /// The statement, once it is known which.
    pub(crate) statement: Option<String>,
    /// The character, from 1.
    pub(crate) character: usize,
}

impl From<ErrorResponse> for ServerError {
    fn from(error: ErrorResponse) -> Self {
        let place = error.character.map(|character| StatementPlace { statement: None, character });
        Self { sqlstate: error.sqlstate, message: error.message, hint: error.hint, place }
    }
}

impl SourceError {
    /// Whether the server had no memory left for a lock, or, which has the same code, none at all.
    pub(crate) fn is_lock_table_full(&self) -> bool {
        self.fault == SourceFault::GaveWay && self.code.as_deref() == Some("53200")
    }

    /// Whether somebody else's lock was in the way.
    pub(crate) fn is_lock_conflict(&self) -> bool {
        self.code.as_deref() == Some("55P03")
    }

    /// A driver's error while doing `action`.
    pub(crate) fn driver(action: impl Into<String>, error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Self::server(action, of_driver(db));
        }
        if let Some(missing) = cause::<NoPassword>(&error) {
            return Self::new(SourceFault::Authentication, action).with_source(missing.clone());
        }
        let text = chain(&error);
        let fault = if is_refusal(&error, &text) { SourceFault::Authentication } else { SourceFault::Unavailable };
        let hint = driver_hint(&error, &text).map(str::to_owned);
        Self { hint, ..Self::new(fault, action).with_source(error) }
    }

    /// Why there is no connection.
    pub(super) fn connecting(settings: &ConnectSettings, error: tokio_postgres::Error) -> Self {
        let server = error.as_db_error().map(of_driver);
        let not_reached = cause::<NotReached>(&error).cloned();
        let certificate = match cause::<rustls::Error>(&error) {
            Some(rustls::Error::InvalidCertificate(why)) => Some(certificate_words(why)),
            _ => None,
        };
        let wrapped = Self::driver("connecting to PostgreSQL", error);
        let hosts = settings.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if let Some(NotReached { text, reason }) = not_reached {
            let reason = reason.map(|reason| match reason {
                UnreachedReason::HostUnknown => ErrorCode::HostUnknown,
                UnreachedReason::ConnectionRefused => ErrorCode::ConnectionRefused,
            });
            let wrapped = Self { reason, ..wrapped };
            return if settings.nowhere {
                wrapped
                    .told_as(format!(
                        "no --from, DATABASE_URL or PG* is set, and no server is on the local socket {hosts}"
                    ))
                    .with_hint("--from postgres://user@host:5432/database")
            } else {
                wrapped.told_as(format!("cannot connect to {text}"))
            };
        }
        if let Some(server) = server {
            return wrapped.told_as(format!("cannot connect to {hosts}: {}", server.without_state()));
        }
        if let Some(words) = certificate {
            let reason = Some(ErrorCode::CertificateRefused);
            return Self { reason, ..wrapped.told_as(format!("cannot connect to {hosts}: {words}")) };
        }
        let why = wrapped.source.as_ref().map_or_else(String::new, |source| voice::cause(source.as_ref()));
        let reason = match why.as_str() {
            NO_TLS => Some(ErrorCode::TlsRefused),
            NO_PASSWORD => Some(ErrorCode::PasswordRefused),
            _ => wrapped.reason,
        };
        let why = match why.as_str() {
            NO_TLS => "the server speaks no TLS".to_owned(),
            NO_PASSWORD => "the server asks for a password, and there is none".to_owned(),
            _ => why,
        };
        Self { reason, ..wrapped.told_as(format!("cannot connect to {hosts}: {why}")) }
    }

    /// Says in which statement the server found it.
    pub(super) fn in_statement(mut self, statement: &str, before: usize) -> Self {
        let server = self.source.as_mut().and_then(|source| source.downcast_mut::<ServerError>());
        if let Some(place) = server.and_then(|server| server.place.as_mut()) {
            place.character = place.character.saturating_sub(before);
            place.statement = Some(statement.to_owned());
        }
        self
    }

    /// What the server reported, where it did.
    pub(in crate::source) fn of_server(&self) -> Option<&ServerError> {
        self.source.as_ref()?.downcast_ref()
    }

    /// An error that the server reported while doing `action`.
    pub(crate) fn server<T: Into<String>>(action: T, server: ServerError) -> Self {
        let (fault, hint) = (sqlstate::classify(&server.sqlstate), sqlstate::hint(&server.sqlstate));
        Self::reported(action, server, fault, hint)
    }

    /// An error that the server reported in place of rows while doing `action`.
    pub(crate) fn reading<T: Into<String>>(action: T, server: ServerError) -> Self {
        let fault = sqlstate::classify_reading(&server.sqlstate);
        let hint = sqlstate::hint_reading(&server.sqlstate);
        Self::reported(action, server, fault, hint)
    }

    fn reported(
        action: impl Into<String>,
        server: ServerError,
        fault: SourceFault,
        hint: Option<&'static str>,
    ) -> Self {
        Self {
            fault,
            retry: sqlstate::retry(fault, &server.sqlstate),
            message: action.into(),
            told: false,
            reason: sqlstate::reason(&server.sqlstate),
            code: Some(server.sqlstate.clone()),
            hint: hint.map(str::to_owned).or_else(|| server.hint.clone()),
            source: Some(Box::new(server)),
        }
    }

    /// Whether the server, the database or the role has no connection left.
    pub(crate) fn is_out_of_connections(&self) -> bool {
        self.code.as_deref() == Some("53300")
    }
}

/// The words with which the driver says that the server speaks no TLS.
const NO_TLS: &str = "server does not support TLS";

/// Those with which it says that there is no password to send.
const NO_PASSWORD: &str = "password missing";

fn of_driver(error: &DbError) -> ServerError {
    let character = match error.position() {
        Some(ErrorPosition::Original(character)) => usize::try_from(*character).ok(),
        _ => None,
    };
    ServerError {
        sqlstate: error.code().code().to_owned(),
        message: error.message().to_owned(),
        hint: error.hint().map(str::to_owned),
        place: character.map(|character| StatementPlace { statement: None, character }),
    }
}

impl ServerError {
    /// Its words; with the code only where we do not say ourselves what it is.
    pub(super) fn without_state(&self) -> String {
        if sqlstate::reason(&self.sqlstate).is_some() { self.message.clone() } else { self.to_string() }
    }
}

/// Whether the driver, and not the network, ended a connection before it was one: who is there, or what is asked of us,
/// is not what the settings want. A TLS handshake that breaks off is no refusal.
fn is_refusal(error: &tokio_postgres::Error, text: &str) -> bool {
    let alert = matches!(cause::<rustls::Error>(error), Some(rustls::Error::AlertReceived(_)));
    let begins = ["invalid configuration", "authentication error"].iter().any(|kind| text.starts_with(kind));
    let network = |error: &io::Error| !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other);
    let handshake = text.starts_with("error performing TLS") && !cause::<io::Error>(error).is_some_and(network);
    alert || begins || handshake
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let words = std::iter::successors(Some(error), |error| (**error).source()).map(ToString::to_string);
    words.collect::<Vec<_>>().join(": ")
}

/// What to do about an error that the driver found itself.
fn driver_hint(error: &(dyn StdError + 'static), text: &str) -> Option<&'static str> {
    match cause::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(why)) => certificate_hint(why).or(Some(TLS_HINT)),
        Some(_) => Some(TLS_HINT),
        None => worded_hint(text),
    }
}

const TLS_HINT: &str = "remote hosts default to sslmode=verify-full, with sslrootcert for the authority to trust; on a trusted network \
    add ?sslmode=disable to --from";

/// By the words of our own libraries, where there is nothing else.
fn worded_hint(text: &str) -> Option<&'static str> {
    if text.contains("TLS") {
        Some(TLS_HINT)
    } else if text.contains("password missing") {
        Some("give one by PGPASSWORD, ~/.pgpass, --password-file or --password-command")
    } else if text.contains("channel binding") {
        Some("channel_binding=require wants TLS over TCP and a server that stores the password as scram-sha-256")
    } else if tells_of_open_files(text) {
        Some(OPEN_FILES_HINT)
    } else if text.starts_with("error connecting") || text.starts_with("error communicating") {
        Some("check host and port in --from, and that the server runs and takes connections there")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[test]
    fn hints_fit_what_the_driver_found() {
        for (text, expected) in [
            ("error performing TLS handshake: server does not support TLS", Some("sslmode")),
            ("authentication error: server did not use channel binding", Some("scram-sha-256")),
            ("invalid configuration: password missing", Some("PGPASSWORD")),
            ("error communicating with the server: No file descriptors available (os error 24)", Some("ulimit -n")),
            (
                "error communicating with the server: 127.0.0.1:1: Connection refused (os error 111)",
                Some("host and port"),
            ),
            ("connection closed", None),
        ] {
            let hint = worded_hint(text);
            assert_eq!(hint.is_some(), expected.is_some(), "{text}");
            assert!(expected.is_none_or(|expected| hint.unwrap().contains(expected)), "{text}: {hint:?}");
        }
    }

    #[test]
    fn hints_fit_what_is_wrong_with_a_certificate() {
        for (why, expected) in [
            (CertificateError::UnknownIssuer, "sslrootcert"),
            (CertificateError::Expired, "a new one"),
            (CertificateError::NotValidForName, "alternative names"),
            (CertificateError::Revoked, "sslmode=disable"),
        ] {
            // As the TLS layer hands it on.
            let error = io::Error::other(rustls::Error::InvalidCertificate(why));
            assert!(driver_hint(&error, "any words").unwrap().contains(expected), "{error}");
        }
        assert!(driver_hint(&io::Error::other(rustls::Error::HandshakeNotComplete), "").unwrap().contains("sslmode"));
    }
}
