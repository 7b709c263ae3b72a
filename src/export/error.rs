//! Why an export did not commit. [`ExportErrorKind`] is the only thing that maps outward: to exit codes in
//! `cli/exit.rs` and, later, to HTTP in `service/`.

use std::error::Error as StdError;

use crate::base::voice;
use crate::commit::ManifestError;
use crate::commit::wire::WireError;
use crate::encode::EncodeError;
use crate::model::{ErrorCode, ExportErrorKind};
use crate::source::{Retry, SourceError, SourceFault};
use crate::store::StoreError;
use crate::store::error::StoreFault;

/// An export that did not commit.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExportError {
    /// The class.
    pub kind: ExportErrorKind,
    /// What is finer than the class, where it is known.
    pub code: Option<ErrorCode>,
    /// What was being done, with its nouns: partition, object, relation.
    pub message: String,
    /// Whether the message tells the cause, which is then not added to it.
    pub told: bool,
    /// What to do, where it is known.
    pub hint: Option<String>,
    /// The source's own code for it, where it gave one.
    pub source_code: Option<String>,
    /// Whether the partition that it ended is worth another attempt.
    pub retry: Retry,
    /// Whether what the run has uploaded stays, and `resume` goes on with it.
    pub resumable: bool,
    /// Why.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ExportError {
    /// An error without hint or source.
    pub fn new(kind: ExportErrorKind, message: impl Into<String>) -> Self {
        let (message, retry) = (message.into(), Retry::Never);
        let (code, source_code, hint, source) = (None, None, None, None);
        Self { kind, code, message, told: false, hint, source_code, retry, resumable: false, source }
    }

    /// Says what it is, finer than its class.
    #[must_use]
    pub fn with_code(mut self, code: ErrorCode) -> Self {
        self.code = Some(code);
        self
    }

    /// What is said of it: one sentence, with at most one cause.
    pub fn sentence(&self) -> String {
        let source = self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static));
        voice::sentence(&self.message, source, self.told)
    }

    /// Adds why.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ExportErrorKind::Internal, message)
            .with_hint("this is a bug in outhaul; please report it with this message")
    }

    /// A run that was told to stop; whoever told it knows by which signal.
    pub(crate) fn cancelled() -> Self {
        Self::new(ExportErrorKind::Interrupted, "stopped before commit")
    }

    /// The same error for one more export that it ended: its cause is part of the message.
    pub(crate) fn again(&self) -> Self {
        let (code, told, hint, retry) = (self.code, true, self.hint.clone(), self.retry);
        Self { code, told, hint, retry, source_code: self.source_code.clone(), ..Self::new(self.kind, self.sentence()) }
    }

    /// Says how often it was tried, where that was more than once.
    pub(crate) fn after_attempts(mut self, attempts: u32) -> Self {
        if attempts > 1 {
            self.message = format!("{} (attempt {attempts}, the last)", self.message);
        }
        self
    }

    /// Whether the manifest stands, or may.
    pub(super) fn may_be_committed(&self) -> bool {
        let source = self.source.as_ref().and_then(|source| source.downcast_ref::<ManifestError>());
        source.is_some_and(ManifestError::may_be_committed)
    }

    /// Names the partition, which no message of source, encoder or store does by itself. One that was told to stop is
    /// nobody's fault.
    pub(crate) fn in_partition(mut self, relation: Option<&str>, partition: u32) -> Self {
        if self.kind != ExportErrorKind::Interrupted {
            let relation = relation.unwrap_or("the query");
            self.message = format!("partition {partition} of {relation}: {}", self.message);
        }
        self
    }
}

impl From<SourceError> for ExportError {
    fn from(error: SourceError) -> Self {
        let kind = match error.fault {
            SourceFault::Usage => ExportErrorKind::Usage,
            SourceFault::Authentication => ExportErrorKind::SourceAuthentication,
            SourceFault::Unavailable => ExportErrorKind::SourceUnavailable,
            SourceFault::SnapshotLost => ExportErrorKind::SnapshotLost,
            SourceFault::Missing => ExportErrorKind::SourceMissing,
            SourceFault::SchemaChanged => ExportErrorKind::SchemaChanged,
            SourceFault::Data => ExportErrorKind::Data,
            SourceFault::Rejected => ExportErrorKind::StatementRejected,
            SourceFault::GaveWay => ExportErrorKind::GaveWay,
            SourceFault::Protocol => ExportErrorKind::Internal,
        };
        let SourceError { retry, told, reason: code, code: source_code, hint, source, message, .. } = error;
        Self { code, told, hint, source_code, retry, source, ..Self::new(kind, message) }
    }
}

impl From<EncodeError> for ExportError {
    fn from(error: EncodeError) -> Self {
        let kind = match error {
            EncodeError::Unrepresentable { .. } => ExportErrorKind::Data,
            _ => ExportErrorKind::Internal,
        };
        let message = voice::sentence(&error.to_string(), error.source(), false);
        let code = matches!(kind, ExportErrorKind::Data).then_some(ErrorCode::ValueUnrepresentable);
        Self { code, told: true, hint: error.hint(), ..Self::new(kind, message).with_source(error) }
    }
}

/// What a fault of the destination makes of an export, wherever it was met.
pub(super) fn kind_of(fault: StoreFault) -> ExportErrorKind {
    match fault {
        StoreFault::Configuration => ExportErrorKind::Usage,
        StoreFault::Authentication => ExportErrorKind::DestinationAuthentication,
        StoreFault::Unavailable | StoreFault::Missing => ExportErrorKind::DestinationUnavailable,
        StoreFault::Taken => ExportErrorKind::DestinationTaken,
        StoreFault::ReaderGone => ExportErrorKind::ReaderGone,
        StoreFault::Full => ExportErrorKind::DestinationFull,
    }
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        let kind = kind_of(error.fault);
        let (message, code, hint) = (error.to_string(), error.code, error.hint.clone().map(String::from));
        Self { code, told: true, hint, source: Some(error.source), ..Self::new(kind, message) }
    }
}

impl From<ManifestError> for ExportError {
    fn from(error: ManifestError) -> Self {
        let kind = match error.fault() {
            None => ExportErrorKind::Internal,
            Some(fault) => kind_of(fault),
        };
        let message = match (&error, error.store()) {
            (
                ManifestError::ReadBack(_) | ManifestError::Unfinished { .. } | ManifestError::Stranded { .. },
                Some(store),
            ) => {
                format!("{error}: {store}")
            }
            (_, Some(store)) => store.to_string(),
            (ManifestError::Stranded { source, .. }, None) => format!("{error}: {source}"),
            (_, None) => voice::sentence(&error.to_string(), error.source(), false),
        };
        let code = match &error {
            ManifestError::Taken { .. } | ManifestError::Occupied { .. } | ManifestError::Strangers { .. } => {
                Some(ErrorCode::DestinationOccupied)
            }
            ManifestError::OtherRequest { .. } => Some(ErrorCode::OtherRequest),
            other => other.store().and_then(|store| store.code),
        };
        let hint = match &error {
            ManifestError::Taken { .. } => Some(
                "choose another destination, for example with {date} or {run_id} in it, or --on-existing skip or replace",
            ),
            ManifestError::Occupied { .. } => Some("--on-existing replace overwrites it"),
            ManifestError::Strangers { .. } => Some(
                "readers would take them for rows of this export: remove what is of no use any more, or choose another destination",
            ),
            // Of a newer version its own words say what to do.
            ManifestError::Decode { source, .. } if !matches!(source, WireError::Version { .. }) => Some(
                "it is damaged, and nobody knows which parts it named: remove it together with the parts that stand there, or \
                 choose another destination",
            ),
            ManifestError::OtherRequest { .. } => {
                Some("a retry asks for the same; give another export another --run-id")
            }
            ManifestError::Overtaken { .. } => Some(
                "export again with --on-existing replace once the other run has ended, and let one run write there at a time",
            ),
            ManifestError::Unfinished { .. } => {
                Some("the manifest stands; the same command with the same --run-id reports the export")
            }
            _ => None,
        };
        let hint = hint.map(str::to_owned).or_else(|| error.store()?.hint.clone().map(String::from));
        Self { code, told: true, hint, source: Some(Box::new(error)), ..Self::new(kind, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_whatever_other_numbers_a_message_holds() {
        let named = |kind, message: &str| ExportError::new(kind, message).in_partition(Some("public.t"), 1).message;
        let message = "uploading s3://bucket/partition 12/data/x";
        assert_eq!(named(ExportErrorKind::DestinationFull, message), format!("partition 1 of public.t: {message}"));
        assert_eq!(named(ExportErrorKind::Interrupted, "stopped"), "stopped");
    }
}
