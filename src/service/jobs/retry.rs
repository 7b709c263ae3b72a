//! What becomes of an attempt that failed: which failures of the engine pass by themselves, and how long that is waited for.

use std::time::Duration;

use axum::http::StatusCode;

use super::super::problem::told;
use super::super::state::RecordedError;
use crate::base::failpoint;
use crate::export::ExportError;
use crate::model::ExportErrorKind;

/// Before the second attempt; each later one waits twice as long.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// Whether another attempt may succeed without anybody changing anything: the one list, by the engine's classes, with what
/// the command line exits with.
pub(super) const fn passes_by_itself(kind: ExportErrorKind) -> bool {
    use ExportErrorKind as Kind;
    match kind {
        // 11, 12, 16, 21. Another attempt has another snapshot, and plans anew what changed under this one (13). Only a
        // worker stops its run (130, 141, 143).
        Kind::SourceUnavailable
        | Kind::SnapshotLost
        | Kind::GaveWay
        | Kind::DestinationUnavailable
        | Kind::SchemaChanged
        | Kind::ReaderGone
        | Kind::Interrupted
        | Kind::Terminated => true,
        // 1 is a bug; 2, 10, 13, 14, 15, 20, 22, 23 and 30 are the operator's, or the data's.
        Kind::Internal
        | Kind::Usage
        | Kind::SourceAuthentication
        | Kind::SourceMissing
        | Kind::Data
        | Kind::StatementRejected
        | Kind::DestinationAuthentication
        | Kind::DestinationTaken
        | Kind::DestinationFull
        | Kind::Verification => false,
    }
}

/// How long a job waits after so many attempts that count.
pub(super) fn backoff(attempts: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    failpoint::limit("job_backoff", FIRST_BACKOFF).saturating_mul(doubled).min(BACKOFF_MAX)
}

/// What a caller is told of a failure.
pub(super) fn error_of(error: &ExportError) -> RecordedError {
    use ExportErrorKind as Kind;
    let (_, code, message) = match error.kind {
        Kind::DestinationUnavailable => {
            (StatusCode::BAD_GATEWAY, "destination_unavailable", "the destination cannot be reached")
        }
        Kind::DestinationFull => (StatusCode::BAD_GATEWAY, "destination_full", "the destination is full"),
        Kind::DestinationAuthentication => {
            (StatusCode::BAD_GATEWAY, "destination_authentication", "the destination refused the service")
        }
        _ => told(error),
    };
    recorded(code, message)
}

pub(super) fn recorded(code: &str, message: &str) -> RecordedError {
    RecordedError { code: code.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_and_none_is_endless() {
        let waits: Vec<u64> = [1, 2, 3, 8, 9, 200, u32::MAX].map(|attempts| backoff(attempts).as_secs()).into();
        assert_eq!(waits, [2, 4, 8, 256, 300, 300, 300]);
    }

    #[test]
    fn what_the_engine_calls_retryable_is_tried_again() {
        use ExportErrorKind as Kind;
        for kind in [Kind::SourceUnavailable, Kind::SnapshotLost, Kind::GaveWay, Kind::DestinationUnavailable] {
            assert!(kind.retryable() && passes_by_itself(kind), "{kind:?}");
        }
        for kind in [Kind::Internal, Kind::Data, Kind::StatementRejected, Kind::DestinationFull, Kind::Usage] {
            assert!(!kind.retryable() && !passes_by_itself(kind), "{kind:?}");
        }
    }
}
