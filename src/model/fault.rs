//! The classes of failures.

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportErrorKind {
    /// A bug, or a panic (exit 1).
    Internal,
    /// The request makes no sense (2).
    Usage,
    /// The source refused credentials, a privilege or TLS (10).
    SourceAuthentication,
    /// The source cannot be reached, or was lost (11).
    SourceUnavailable,
    /// The snapshot is gone (12).
    SnapshotLost,
    /// The relation is missing, or changed under the run (13).
    SchemaChanged,
    /// A value cannot be written, or there are fewer rows than `--min-rows` (14).
    Data,
    /// The source rejected the statement (15).
    StatementRejected,
    /// Locked by somebody else, or a source limit was reached (16).
    GaveWay,
    /// The destination refused credentials or a permission (20).
    DestinationAuthentication,
    /// The destination cannot be reached (21).
    DestinationUnavailable,
    /// Somebody else's manifest is there (22).
    DestinationTaken,
    /// The destination is full (23).
    DestinationFull,
    /// What is there is not what the manifest says, or there is no manifest (30).
    Verification,
    /// Whoever read standard output, or the stream, went away (141).
    ReaderGone,
    /// SIGINT (130).
    Interrupted,
    /// SIGTERM (143).
    Terminated,
}

impl ExportErrorKind {
    /// Whether the run was stopped from outside, and did not fail.
    pub(crate) fn is_cancel(self) -> bool {
        matches!(self, Self::Interrupted | Self::Terminated | Self::ReaderGone)
    }

    /// Whether the same command may succeed later without anybody changing anything.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::SourceUnavailable
                | Self::SnapshotLost
                | Self::GaveWay
                | Self::DestinationUnavailable
                | Self::Interrupted
                | Self::Terminated
        )
    }
}
