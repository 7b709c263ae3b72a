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
    /// A table or column that was asked for is not there (13).
    SourceMissing,
    /// The relation changed under the run (13).
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

/// What a failure is, finer than its class: for scripts that tell one from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// There is no such table or view.
    RelationMissing,
    /// There is no such column.
    ColumnMissing,
    /// There is no such schema.
    SchemaMissing,
    /// There is no such database.
    DatabaseMissing,
    /// Nobody listens there.
    ConnectionRefused,
    /// The name of a host stands for no address.
    HostUnknown,
    /// The server speaks no TLS, or none that is wanted.
    TlsRefused,
    /// The server's certificate is not trusted.
    CertificateRefused,
    /// The password is wrong, or there is none.
    PasswordRefused,
    /// The role is not let in.
    RoleRefused,
    /// The role may not do it.
    PermissionDenied,
    /// A value does not fit what it is to be written as.
    ValueUnrepresentable,
    /// A row is larger than a service sends.
    RowTooLarge,
    /// So many rows share one value of the key that no page can end between them.
    KeyNotSelective,
    /// There is no such bucket or container.
    BucketMissing,
    /// No credentials for the store were found.
    CredentialsMissing,
    /// The store does not know the credentials, or their time is up.
    CredentialsRefused,
    /// The credentials may not do it.
    AccessDenied,
    /// An export or a file stands there already.
    DestinationOccupied,
    /// The run of this id committed another request.
    OtherRequest,
    /// An option, a key or a variable that does not exist.
    OptionUnknown,
}
