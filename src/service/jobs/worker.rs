//! Workers: each takes one job after the other and makes its export.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::ServiceState;
use super::super::state::{ClaimLimits, JobsServed};
use super::attempt::JobAttempt;
use crate::base::failpoint;
use crate::config::service::ServiceConfig;

/// A lease, which is renewed three times in its life.
const LEASE: Duration = Duration::from_secs(30);

/// So long a job waits for a process that has its dataset, tier and destination. Then it is tried by any, and fails.
const PATIENCE: Duration = Duration::from_hours(1);

/// Between two looks at an empty queue.
const POLL: Duration = Duration::from_secs(2);

/// Starts the workers of this process. They end once the service stops.
///
/// # Errors
/// The folder of the files cannot be made for its owner alone.
pub(crate) fn start(service: &Arc<ServiceState>) -> io::Result<Vec<JoinHandle<()>>> {
    if service.config.uses_job_folder() {
        // Rows of all tenants are in it.
        DirBuilder::new().recursive(true).mode(0o700).create(&service.config.job_folder)?;
    }
    let (hints, stopping) = (service.store.hints(Arc::clone(&service.job_queued)), service.stopping.clone());
    tokio::spawn(async move { stopping.run_until_cancelled(hints).await });
    let process = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
    let worker = |number| tokio::spawn(work(Arc::clone(service), format!("{process}-{number}")));
    Ok((0..service.config.jobs.workers).map(worker).collect())
}

/// How long an attempt has a job without saying so again.
pub(super) fn lease() -> Duration {
    failpoint::limit("job_lease", LEASE)
}

/// What this process can make exports of.
fn served(config: &ServiceConfig) -> JobsServed {
    JobsServed {
        datasets: config.datasets.keys().cloned().collect(),
        tiers: config.tiers.keys().cloned().collect(),
        destinations: config.destinations.values().map(|destination| destination.url.clone()).collect(),
        patience: failpoint::limit("job_patience", PATIENCE),
    }
}

async fn work(service: Arc<ServiceState>, name: String) {
    let served = Arc::new(served(&service.config));
    let limits = ClaimLimits { lease: lease(), per_tenant: service.config.jobs.running_per_tenant };
    while !service.stopping.is_cancelled() {
        match service.store.claim(name.clone(), Arc::clone(&served), limits).await {
            Ok(Some(job)) => {
                // One that panics, which the panic hook tells, is tried again once its lease runs out.
                let _ = tokio::spawn(JobAttempt::of(&service, job).carry_out()).await;
                // A place of its tenant is free, which another worker may have waited for.
                service.job_queued.notify_one();
            }
            Ok(None) => rest(&service).await,
            Err(error) => {
                tracing::error!(%error, "no export was taken from the queue");
                rest(&service).await;
            }
        }
    }
}

async fn rest(service: &ServiceState) {
    tokio::select! {
        () = service.stopping.cancelled() => {}
        () = service.job_queued.notified() => {}
        () = sleep(failpoint::limit("job_poll", POLL)) => {}
    }
}
