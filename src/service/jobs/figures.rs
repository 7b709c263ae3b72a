//! How long the queue is, for the metrics.

use std::sync::Arc;
use std::time::Duration;

use super::super::ServiceState;
use crate::base::failpoint;
use crate::base::telemetry::serving::{self, QueueLength};

/// Between two looks: a scrape takes what the last one found, and waits for no store.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// Measures until the service stops.
pub(crate) async fn measure(service: Arc<ServiceState>) {
    while !service.stopping.is_cancelled() {
        let found = service.store.figures().await;
        if let Err(error) = &found {
            tracing::warn!(%error, "the queue was not counted");
        }
        serving::queue(found.ok().map(|figures| QueueLength {
            queued: figures.queued,
            running: figures.running,
            cancelling: figures.cancelling,
            oldest_lease: figures.oldest_lease.unwrap_or_default(),
        }));
        tokio::select! {
            () = service.stopping.cancelled() => {}
            () = tokio::time::sleep(failpoint::limit("job_figures", BETWEEN_LOOKS)) => {}
        }
    }
}
