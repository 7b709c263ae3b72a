//! The one mapping from outcomes to exit codes. Scripts depend on it: a code never changes its meaning.

use crate::model::{ExportErrorKind, RunStatus};

/// Everything that was asked for is done.
pub const COMPLETE: u8 = 0;
/// A bug, or a panic.
pub const INTERNAL: u8 = 1;
/// The request makes no sense.
pub const USAGE: u8 = 2;
/// Committed, but a cap cut rows off.
pub const TRUNCATED: u8 = 3;
/// What is there is not what the manifest says.
pub const VERIFICATION: u8 = 30;

/// Whoever read standard output went away: what a shell shows for a program that SIGPIPE ended.
pub const READER_GONE: u8 = 141;

/// The exit code of a run that did not commit.
pub fn failed(kind: ExportErrorKind) -> u8 {
    match kind {
        ExportErrorKind::Internal => INTERNAL,
        ExportErrorKind::Usage => USAGE,
        ExportErrorKind::SourceAuthentication => 10,
        ExportErrorKind::SourceUnavailable => 11,
        ExportErrorKind::SnapshotLost => 12,
        ExportErrorKind::SourceMissing | ExportErrorKind::SchemaChanged => 13,
        ExportErrorKind::Data => 14,
        ExportErrorKind::StatementRejected => 15,
        ExportErrorKind::GaveWay => 16,
        ExportErrorKind::DestinationAuthentication => 20,
        ExportErrorKind::DestinationUnavailable => 21,
        ExportErrorKind::DestinationTaken => 22,
        ExportErrorKind::DestinationFull => 23,
        ExportErrorKind::Verification => VERIFICATION,
        ExportErrorKind::ReaderGone => READER_GONE,
        ExportErrorKind::Interrupted => 130,
        ExportErrorKind::Terminated => 143,
    }
}

/// Whether a truncated export is what was wanted (`--allow-truncated`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// It is: exit 0.
    Allowed,
    /// The first rows were asked for, and nothing else (`--limit`): exit 0.
    Asked,
    /// It must be noticed: exit 3.
    Signalled,
}

impl Truncation {
    /// From the flag.
    pub fn from_flag(allow_truncated: bool) -> Self {
        if allow_truncated { Self::Allowed } else { Self::Signalled }
    }
}

/// The exit code of a run that committed.
pub fn committed(status: RunStatus, truncation: Truncation) -> u8 {
    match (status, truncation) {
        (RunStatus::Complete, _) | (RunStatus::Truncated, Truncation::Allowed | Truncation::Asked) => COMPLETE,
        (RunStatus::Truncated, Truncation::Signalled) => TRUNCATED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind with its code, as the design lists them; a new kind does not compile until `failed` knows it, and
    /// this table is what a reviewer compares with the README.
    const TABLE: [(ExportErrorKind, u8, bool); 18] = [
        (ExportErrorKind::Internal, 1, false),
        (ExportErrorKind::Usage, 2, false),
        (ExportErrorKind::SourceAuthentication, 10, false),
        (ExportErrorKind::SourceUnavailable, 11, true),
        (ExportErrorKind::SnapshotLost, 12, true),
        (ExportErrorKind::SourceMissing, 13, false),
        (ExportErrorKind::SchemaChanged, 13, false),
        (ExportErrorKind::Data, 14, false),
        (ExportErrorKind::StatementRejected, 15, false),
        (ExportErrorKind::GaveWay, 16, true),
        (ExportErrorKind::DestinationAuthentication, 20, false),
        (ExportErrorKind::DestinationUnavailable, 21, true),
        (ExportErrorKind::DestinationTaken, 22, false),
        (ExportErrorKind::DestinationFull, 23, false),
        (ExportErrorKind::Verification, 30, false),
        (ExportErrorKind::ReaderGone, 141, false),
        (ExportErrorKind::Interrupted, 130, true),
        (ExportErrorKind::Terminated, 143, true),
    ];

    #[test]
    fn every_kind_has_its_code_and_its_retry() {
        for (kind, code, retryable) in TABLE {
            assert_eq!(failed(kind), code, "{kind:?}");
            assert_eq!(kind.retryable(), retryable, "{kind:?}");
        }
    }

    #[test]
    fn only_what_is_missing_and_what_changed_share_a_code_and_none_looks_like_success() {
        let codes: std::collections::BTreeSet<u8> = TABLE.iter().map(|(kind, ..)| failed(*kind)).collect();
        assert_eq!(codes.len() + 1, TABLE.len());
        assert!(!codes.contains(&COMPLETE) && !codes.contains(&TRUNCATED));
    }

    #[test]
    fn truncated_is_three_unless_allowed() {
        use {RunStatus::*, Truncation::*};
        assert_eq!(committed(Complete, Signalled), 0);
        assert_eq!(committed(Complete, Allowed), 0);
        assert_eq!(committed(Truncated, Signalled), 3);
        assert_eq!(committed(Truncated, Allowed), 0);
        assert_eq!(committed(Truncated, Asked), 0);
    }
}
