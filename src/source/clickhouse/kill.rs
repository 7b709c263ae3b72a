//! Queries that nobody waits for any more are killed, each by its own id and on a connection of its own: a server notices
//! only at its next write that its client has gone, and one that computes writes nothing.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::watch;

use super::http::ClickHouseHttp;
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

/// A query that runs: dropped before [`RunningQuery::ended`], it is killed in the background, where there is a runtime.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    server: Arc<ClickHouseHttp>,
    ended: bool,
    id: String,
}

impl RunningQuery {
    pub(crate) fn new(server: Arc<ClickHouseHttp>, id: String) -> Self {
        server.opened();
        Self { server, ended: false, id }
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
            let (pending, server, id) = (PendingKill::new(), Arc::clone(&self.server), std::mem::take(&mut self.id));
            runtime.spawn(async move {
                let killing = server.kill(&id);
                // Whoever may not kill leaves it to the server.
                let _ = tokio::time::timeout(failpoint::limit("kill_query", KILL_TIMEOUT), killing).await;
                drop(pending);
            });
        }
    }
}
