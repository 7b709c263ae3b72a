//! Queries that nobody waits for any more are killed, each by its own id and on a connection of its own: a server notices
//! only at its next write that its client has gone, and one that computes writes nothing.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::watch;

use super::http::ClickHouseHttp;
use super::names::literal;
use crate::base::failpoint;

/// For the statement that kills a query, its connection included.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// Kills on their way.
static PENDING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

struct PendingKill;

impl PendingKill {
    fn new() -> Self {
        PENDING.send_modify(|count| *count += 1);
        Self
    }
}

impl Drop for PendingKill {
    fn drop(&mut self) {
        PENDING.send_modify(|count| *count -= 1);
    }
}

/// Waits until all of this process have been sent or given up.
pub(crate) async fn kills_sent() {
    // The sender is never dropped.
    let _ = PENDING.subscribe().wait_for(|count| *count == 0).await;
}

/// How a server knows a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryName {
    /// No two queries that run have the same.
    pub id: String,
    /// Stands in its text, where another query may have the id after it.
    pub mark: Option<String>,
}

impl QueryName {
    /// A query whose id no other one ever has.
    pub(crate) fn unique(id: impl Into<String>) -> Self {
        Self { id: id.into(), mark: None }
    }

    /// The statement that kills it, and no other.
    pub(super) fn kill(&self) -> String {
        let mark =
            self.mark.as_ref().map_or(String::new(), |mark| format!(" AND position(query, {}) > 0", literal(mark)));
        format!("KILL QUERY WHERE query_id = {}{mark} ASYNC", literal(&self.id))
    }
}

/// A query that runs: dropped before [`RunningQuery::ended`], it is killed in the background, where there is a runtime.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    server: Arc<ClickHouseHttp>,
    ended: bool,
    name: QueryName,
}

impl RunningQuery {
    pub(crate) fn new(server: Arc<ClickHouseHttp>, name: QueryName) -> Self {
        server.opened();
        Self { server, ended: false, name }
    }

    /// The server has ended it: there is nothing to kill.
    pub(crate) fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        self.server.closed();
        if self.ended || failpoint::off("kill_query") {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (pending, server, name) = (PendingKill::new(), Arc::clone(&self.server), self.name.clone());
            runtime.spawn(async move {
                let killing = server.kill(&name);
                // Whoever may not kill leaves it to the server.
                let _ = tokio::time::timeout(failpoint::limit("kill_query", KILL_TIMEOUT), killing).await;
                drop(pending);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_killed_by_its_id_and_by_its_mark() {
        let one = QueryName::unique("outhaul-1");
        assert_eq!(one.kill(), "KILL QUERY WHERE query_id = 'outhaul-1' ASYNC");
        let marked = QueryName { mark: Some("m".to_owned()), ..one };
        assert_eq!(marked.kill(), "KILL QUERY WHERE query_id = 'outhaul-1' AND position(query, 'm') > 0 ASYNC");
    }
}
