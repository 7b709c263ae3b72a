//! What can go wrong while reading: the class decides exit code and retry, the message says what was being done.

use std::error::Error as StdError;
use std::io;

use super::password::NoPassword;
use crate::limits;

/// What to do where a standby ended the snapshot.
pub(crate) const STANDBY_HINT: &str = "the source is a standby, and its replay ends sessions that see rows it removes: \
    set hot_standby_feedback = on there or raise max_standby_streaming_delay, then run the export again";

/// The class of a source error, which decides exit code and retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFault {
    /// The request makes no sense for this server or relation (exit 2).
    Usage,
    /// Credentials, privileges, TLS (10).
    Authentication,
    /// Not reachable, or lost (11).
    Unavailable,
    /// The snapshot is gone (12).
    SnapshotLost,
    /// The relation is missing or changed (13).
    SchemaChanged,
    /// A value that its carrier cannot hold (14).
    Data,
    /// The server rejected the statement (15).
    Rejected,
    /// Locked, or a limit was reached (16).
    GaveWay,
    /// The server broke the protocol, or we did (1).
    Protocol,
}

/// Whether the partition that an error ended is worth another attempt, under the same snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retry {
    /// It would end the same way.
    #[default]
    Never,
    /// Whatever it was may be over.
    Again,
    /// A timeout or a person cancelled the statement: once may be a mistake.
    Once,
    /// Somebody held a lock, who may be done soon.
    Briefly,
    /// The server has no connection left: others of ours go on.
    FewerReaders,
}

/// An error of the source layer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// The class.
    pub fault: SourceFault,
    /// What was being done, with its nouns.
    pub message: String,
    /// The SQLSTATE, where the server gave one.
    pub sqlstate: Option<String>,
    /// What to do, where it is known.
    pub hint: Option<String>,
    /// Why.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

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
}

impl SourceError {
    /// An error of our own finding.
    pub(crate) fn new(fault: SourceFault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), sqlstate: None, hint: None, source: None }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds why.
    #[must_use]
    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Whether another attempt may succeed.
    pub fn retry(&self) -> Retry {
        match (self.fault, self.sqlstate.as_deref()) {
            (SourceFault::GaveWay, Some("55P03")) => Retry::Briefly,
            (SourceFault::GaveWay, Some("57014")) => Retry::Once,
            (SourceFault::GaveWay, Some("53300")) => Retry::FewerReaders,
            (SourceFault::Unavailable, _) => Retry::Again,
            _ => Retry::Never,
        }
    }

    /// Whether somebody else's lock was in the way.
    pub(crate) fn is_lock_conflict(&self) -> bool {
        self.sqlstate.as_deref() == Some("55P03")
    }

    /// A driver's error while doing `action`.
    pub(crate) fn driver(action: impl Into<String>, error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let server = ServerError {
                sqlstate: db.code().code().to_owned(),
                message: db.message().to_owned(),
                hint: db.hint().map(str::to_owned),
            };
            return Self::server(action, server);
        }
        if let Some(missing) = cause::<NoPassword>(&error) {
            return Self::new(SourceFault::Authentication, action).with_source(missing.clone());
        }
        let text = chain(&error);
        let fault = if is_refusal(&error, &text) { SourceFault::Authentication } else { SourceFault::Unavailable };
        let hint = driver_hint(&text).map(str::to_owned);
        Self { hint, ..Self::new(fault, action).with_source(error) }
    }

    /// An error that the server reported while doing `action`.
    pub(crate) fn server(action: impl Into<String>, server: ServerError) -> Self {
        let fault = if too_large(&server) {
            SourceFault::Data
        } else if pools_statements(&server) {
            SourceFault::Usage
        } else {
            classify(&server.sqlstate)
        };
        let hint = hint_for(&server).map(str::to_owned).or_else(|| server.hint.clone());
        Self {
            fault,
            message: action.into(),
            sqlstate: Some(server.sqlstate.clone()),
            hint,
            source: Some(Box::new(server)),
        }
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

/// What is wanted of an error's causes; `io::Error` hides the one that it was made of.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| (**error).source()).find_map(|error| {
        let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
        inner.or_else(|| error.downcast_ref())
    })
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let words = std::iter::successors(Some(error), |error| (**error).source()).map(ToString::to_string);
    words.collect::<Vec<_>>().join(": ")
}

/// What to do about an error that the driver found itself, by its text.
fn driver_hint(text: &str) -> Option<&'static str> {
    if text.contains("UnknownIssuer") {
        Some("no trusted authority has signed the server's certificate: sslrootcert names the file of the one that has")
    } else if text.contains("invalid peer certificate: Expired") || text.contains("certificate expired") {
        Some("the server's certificate has ended: it needs a new one")
    } else if text.contains("not valid for name") || text.contains("NotValidForName") {
        Some("the server's certificate is for other names than the host in --from: use one of its alternative names")
    } else if text.contains("CaUsedAsEndEntity") {
        Some(
            "the server shows the certificate of an authority as its own: let that authority sign one for the server; sslmode=require encrypts without checking",
        )
    } else if text.contains("TLS") {
        Some(
            "sslmode decides on TLS: verify-full is the default for remote hosts; sslrootcert names the authority to trust",
        )
    } else if text.contains("password missing") {
        Some("the server asks for a password: PGPASSWORD, ~/.pgpass, --password-file or --password-command")
    } else if text.contains("channel binding") {
        Some("channel_binding=require wants TLS over TCP and a server that stores the password as scram-sha-256")
    } else if text.contains("Too many open files") {
        Some(limits::OPEN_FILES_HINT)
    } else if text.starts_with("error connecting") || text.starts_with("error communicating") {
        Some("check host and port in --from, and that the server runs and takes connections there")
    } else {
        None
    }
}

/// The class of a SQLSTATE (PostgreSQL, Appendix A).
fn classify(sqlstate: &str) -> SourceFault {
    match sqlstate {
        // Missing schema, table, column, or a table that is no longer what it was.
        "3F000" | "42P01" | "42703" | "42P10" => SourceFault::SchemaChanged,
        "42501" | "3D000" => SourceFault::Authentication,
        "42602" => SourceFault::Usage,
        // Bytes that are no text in the client's encoding; a row past what COPY can hold.
        "22021" | "22P05" | "54000" => SourceFault::Data,
        "55P03" | "57014" | "53300" => SourceFault::GaveWay,
        // A transaction that only reads fails to serialize for one reason: on a standby, replay removes what its snapshot
        // sees, or takes its lock away. Every session under the snapshot is hit.
        "40001" => SourceFault::SnapshotLost,
        "57P01" | "57P02" | "57P03" | "57P05" | "40P01" | "25P03" | "25P04" => SourceFault::Unavailable,
        _ => match sqlstate.get(..2) {
            Some("08" | "53" | "58") => SourceFault::Unavailable,
            Some("28") => SourceFault::Authentication,
            Some("XX") => SourceFault::Protocol,
            _ => SourceFault::Rejected,
        },
    }
}

/// Whether the server says that a value or a row passes the 1 GB that it can hold in one piece (`MaxAllocSize`): text or
/// a row that outgrows its buffer (`stringinfo.c`; up to 17 it calls that out of memory), or a value that cannot be made.
fn too_large(server: &ServerError) -> bool {
    let says = |text: &str| server.message.contains(text);
    match server.sqlstate.as_str() {
        "54000" => says("out of memory") || says("string buffer exceeds") || says("exceeds the maximum"),
        "53200" => says("enlarge string buffer"),
        "XX000" => says("invalid memory alloc request size") || says("enlarge string buffer"),
        _ => false,
    }
}

/// Whether a pooler refuses transactions (`PgBouncer`, `pool_mode = statement`).
fn pools_statements(server: &ServerError) -> bool {
    server.sqlstate == "08P01" && server.message.contains("statement pooling")
}

fn hint_for(server: &ServerError) -> Option<&'static str> {
    if pools_statements(server) {
        return Some(
            "the pooler in between gives each statement another connection, and an export needs transactions: connect to \
             the server itself, or by way of a pool_mode of transaction or session",
        );
    }
    if too_large(server) {
        return Some(
            "PostgreSQL itself cannot send a value or a row above 1 GB: leave the wide column out with --columns, the \
             row with --where, or cut the value with --column 'name=expression'",
        );
    }
    match server.sqlstate.as_str() {
        "42501" if server.message.contains("row-level security") => Some(
            "row security would hide rows: export with a role that has BYPASSRLS, or one that the policies let see everything; --allow-rls exports what this role may see",
        ),
        "42501" => Some(
            "the role needs USAGE on the schema and SELECT on the table, or on the columns that --columns names; config/postgres-role.sql makes such a role",
        ),
        "28000" if server.message.starts_with("no pg_hba.conf entry") => Some(
            "the server's pg_hba.conf does not let this user in from here; where it asks for encryption, or for none, sslmode decides",
        ),
        "28P01" | "28000" => {
            Some("check user and password: PGPASSWORD, ~/.pgpass, --password-file or --password-command")
        }
        "3D000" => Some("check the database name in --from"),
        "53300" => Some("the server has no connection left: lower --readers, or try later"),
        "55P03" => Some(
            "another session holds a conflicting lock, for example ALTER TABLE or TRUNCATE: try again when it is done",
        ),
        "40001" => Some(STANDBY_HINT),
        "57014" => Some("the statement was cancelled on the server, by a timeout or by a person"),
        "42P01" if server.message.starts_with("invalid reference to FROM-clause entry") => {
            Some("write the column alone, or behind the table's name without its schema")
        }
        "42P01" | "3F000" => {
            Some("check the name; names with capitals or dots need double quotes inside: --table 'public.\"Orders\"'")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_have_their_class() {
        for (state, fault) in [
            ("28P01", SourceFault::Authentication),
            ("42501", SourceFault::Authentication),
            ("42P01", SourceFault::SchemaChanged),
            ("55P03", SourceFault::GaveWay),
            ("53300", SourceFault::GaveWay),
            ("53200", SourceFault::Unavailable),
            ("57P01", SourceFault::Unavailable),
            ("40001", SourceFault::SnapshotLost),
            ("08006", SourceFault::Unavailable),
            ("42601", SourceFault::Rejected),
            ("22012", SourceFault::Rejected),
            ("22021", SourceFault::Data),
        ] {
            assert_eq!(classify(state), fault, "{state}");
        }
    }

    #[test]
    fn hints_fit_what_the_server_said() {
        let hint = |sqlstate: &str, message: &str| {
            let server =
                ServerError { sqlstate: sqlstate.into(), message: message.into(), hint: Some("its own".into()) };
            SourceError::server("reading", server).hint.unwrap()
        };
        assert!(hint("28000", "no pg_hba.conf entry for host").contains("sslmode"));
        assert!(hint("28000", "role \"x\" does not exist").contains("password"));
        assert!(hint("42P01", "invalid reference to FROM-clause entry for table \"t\"").contains("without its schema"));
        assert!(hint("42P01", "relation \"t\" does not exist").contains("double quotes"));
        assert_eq!(hint("42601", "syntax error"), "its own");
    }

    #[test]
    fn what_postgresql_cannot_send_is_the_data_s_fault() {
        for (sqlstate, message, too_large) in [
            // A row, on 15; then on 18.
            ("54000", "out of memory", true),
            ("54000", "string buffer exceeds maximum allowed length (1073741823 bytes)", true),
            ("54000", "total size of jsonb array elements exceeds the maximum of 268435455 bytes", true),
            // A value's text.
            ("XX000", "invalid memory alloc request size 1073741824", true),
            ("53200", "out of memory", false),
            ("XX000", "cache lookup failed for type 1", false),
            ("54001", "stack depth limit exceeded", false),
        ] {
            let server = ServerError { sqlstate: sqlstate.into(), message: message.into(), hint: None };
            let error = SourceError::server("reading", server);
            assert_eq!(error.fault == SourceFault::Data, too_large, "{message}");
            assert_eq!(error.hint.is_some_and(|hint| hint.contains("above 1 GB")), too_large, "{message}");
        }
    }

    #[test]
    fn hints_fit_what_the_driver_found() {
        for (text, expected) in [
            ("error performing TLS handshake: server does not support TLS", Some("sslmode")),
            ("error performing TLS handshake: invalid peer certificate: UnknownIssuer", Some("sslrootcert")),
            ("error performing TLS handshake: invalid peer certificate: Expired", Some("a new one")),
            ("error performing TLS handshake: invalid peer certificate: CaUsedAsEndEntity", Some("sslmode=require")),
            ("invalid peer certificate: certificate not valid for name \"x\"", Some("alternative names")),
            ("authentication error: server did not use channel binding", Some("scram-sha-256")),
            ("invalid configuration: password missing", Some("PGPASSWORD")),
            (
                "error communicating with the server: 127.0.0.1:1: Connection refused (os error 111)",
                Some("host and port"),
            ),
            ("connection closed", None),
        ] {
            let hint = driver_hint(text);
            assert_eq!(hint.is_some(), expected.is_some(), "{text}");
            assert!(expected.is_none_or(|expected| hint.unwrap().contains(expected)), "{text}: {hint:?}");
        }
    }
}
