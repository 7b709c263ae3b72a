//! What a standby may do to a run, told before anything is locked.

use super::closed::closed;
use super::connect::Session;
use super::server::ServerFacts;
use crate::model::WorkOptions;
use crate::source::SourceError;

/// Says what may go wrong with a standby.
pub(super) async fn warn_of_replay(
    lock: &Session,
    server: &ServerFacts,
    work: &WorkOptions,
) -> Result<(), SourceError> {
    if server.standby {
        warn_of_conflicts(lock).await?;
    } else if work.source_limits.max_replay_lag.is_some() {
        tracing::warn!("--max-replay-lag limits nothing: the source is no standby");
    }
    Ok(())
}

/// On a standby, replay cancels whoever sees rows that it removes; keepers, which idle, lose their session.
async fn warn_of_conflicts(lock: &Session) -> Result<(), SourceError> {
    let sql = closed(
        "SELECT pg_catalog.current_setting('hot_standby_feedback') = 'on' \
        OR pg_catalog.current_setting('max_standby_streaming_delay') = '-1'",
    );
    if lock.batch_value("asking for the standby's settings", &sql).await?.as_deref() == Some("f") {
        tracing::warn!(
            "the source is a standby without hot_standby_feedback: replay may cancel the export (exit 12); \
             hot_standby_feedback = on or a longer max_standby_streaming_delay prevents that"
        );
    }
    Ok(())
}
