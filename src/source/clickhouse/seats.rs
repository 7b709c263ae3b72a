//! How many processes read a run at the same time. Each statement that reads for it has one of so many query ids, and a server
//! runs no two queries with the same one: whoever finds all of them taken waits. A seat is free again once its query has
//! ended, also where the process that asked it is gone.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::body::ClickHouseBody;
use super::http::QuestionParameters;
use super::kill::QueryName;
use super::names::literal;
use super::settings::{ClickHouseSession, WantedSetting, must};
use crate::base::failpoint;
use crate::source::SourceError;

/// A seat would be taken from whoever has it.
pub(super) const WANTED: WantedSetting = must("replace_running_query", "0");

/// The code of a query whose id another one has (`QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING`).
const TAKEN: &str = "216";

/// Between two looks for a free seat, half of it more or less: the first, since a query ends a moment after its answer has,
/// and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// For the statement that ends what others left, its connection included.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(2);

/// The seats of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkerSeats {
    /// How the ids begin.
    prefix: String,
    ids: Vec<String>,
}

impl WorkerSeats {
    /// So many seats of a run.
    pub(super) fn new(own: &str, most: NonZeroUsize) -> Self {
        let prefix = prefix(own);
        let ids = (0..most.get()).map(|seat| format!("{prefix}{seat}")).collect();
        Self { prefix, ids }
    }

    /// Asks, once one of the seats is free.
    ///
    /// # Errors
    /// As [`ClickHouseSession::stream`].
    ///
    /// # Cancel safety
    /// Dropped, it takes no seat.
    pub(super) async fn stream(
        &self,
        session: &ClickHouseSession,
        doing: &str,
        sql: &str,
        parameters: QuestionParameters<'_>,
    ) -> Result<ClickHouseBody, SourceError> {
        // A kill that comes late would end the query of whoever has the seat next.
        let mark = format!("outhaul-{:016x}", rand::random::<u64>());
        let sql = format!("/* {mark} */ {sql}");
        if failpoint::off("slots") {
            return session.stream(doing, &sql, &QueryName::unique(mark), parameters).await;
        }
        let (mut pause, mut told) = (PAUSE_MIN, false);
        loop {
            for id in self.free(session).await {
                let name = QueryName { id, mark: Some(mark.clone()) };
                match session.stream(doing, &sql, &name, parameters).await {
                    Err(error) if error.code.as_deref() == Some(TAKEN) => {}
                    answer => return answer,
                }
            }
            if pause >= PAUSE_MAX && !std::mem::replace(&mut told, true) {
                tracing::warn!(most = self.ids.len(), "as many workers read as may; waiting for one of them to end");
            }
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    /// The seats that seem to be free, in an order of this look's own: all who wait would try the same one otherwise.
    async fn free(&self, session: &ClickHouseSession) -> Vec<String> {
        let sql =
            format!("SELECT query_id FROM system.processes WHERE startsWith(query_id, {})", literal(&self.prefix));
        // Where nobody may look, each seat is tried.
        let rows = session.ask("looking for a free seat of the run", &sql, &[]).await.unwrap_or_default();
        let taken: Vec<String> = rows.into_iter().flatten().flatten().collect();
        let mut free: Vec<String> = self.ids.iter().filter(|id| !taken.contains(id)).cloned().collect();
        let most = free.len();
        free.rotate_left(rand::random_range(0..most.max(1)).min(most));
        free
    }
}

/// Ends the queries of all seats of a run, as far as the server can be reached and lets this user do so.
pub(super) async fn clear(session: &ClickHouseSession, own: &str) {
    if failpoint::off("clear_seats") {
        return;
    }
    match tokio::time::timeout(CLEAR_TIMEOUT, session.kill_all(&prefix(own))).await {
        Ok(Ok(())) => {}
        // The server ends them once it notices that nobody reads.
        Ok(Err(error)) => tracing::debug!(%error, "what workers may have left at the server could not be ended"),
        Err(_) => tracing::debug!("what workers may have left at the server could not be ended in time"),
    }
}

/// How the ids of a run's seats begin; `own` is of this run alone.
fn prefix(own: &str) -> String {
    format!("outhaul-{own}-worker-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seat_of_each_run_has_an_id_of_its_own() {
        let of = |own, most| WorkerSeats::new(own, NonZeroUsize::new(most).unwrap());
        assert_eq!(of("a", 2).ids, ["outhaul-a-worker-0", "outhaul-a-worker-1"]);
        assert_eq!(of("a", 1).ids, of("a", 2).ids[..1], "every process of a run finds the same");
        assert!(of("ab", 3).ids.iter().all(|id| !id.starts_with(&of("a", 3).prefix)));
    }
}
