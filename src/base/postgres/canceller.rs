//! Cancel requests: each goes over a connection of its own, and nobody waits for it but a process that is about to end.

use std::sync::{Arc, LazyLock};

use tokio::sync::watch;
use tokio_postgres::CancelToken;

use super::connector::Connector;

/// The right to cancel what one session runs.
#[derive(Clone)]
pub(crate) struct Canceller {
    connector: Arc<Connector>,
    token: CancelToken,
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token holds the session's secret key.
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

impl Canceller {
    pub(crate) fn new(connector: Arc<Connector>, token: CancelToken) -> Self {
        Self { connector, token }
    }

    /// Sends the request in the background, bounded by a timeout; [`cancels_sent`] waits for it. Outside
    /// a runtime nothing is sent.
    pub(crate) fn send(self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let pending = PendingConnect::new();
            runtime.spawn(async move {
                self.connector.cancel(&self.token).await;
                drop(pending);
            });
        }
    }
}

/// Cancel requests on their way.
static PENDING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

struct PendingConnect;

impl PendingConnect {
    fn new() -> Self {
        PENDING.send_modify(|count| *count += 1);
        Self
    }
}

impl Drop for PendingConnect {
    fn drop(&mut self) {
        PENDING.send_modify(|count| *count -= 1);
    }
}

/// Waits until all cancel requests of this process have been sent or given up: with TLS each takes some round trips, and
/// a process that has ended sends nothing.
pub(crate) async fn cancels_sent() {
    // The sender is never dropped.
    let _ = PENDING.subscribe().wait_for(|count| *count == 0).await;
}
