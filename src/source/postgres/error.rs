//! What can go wrong while reading.

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
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
