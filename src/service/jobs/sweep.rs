//! What is over: exports whose time has come expire, and the files of exports that are over are removed.

use std::sync::Arc;
use std::time::Duration;

use super::super::ServiceState;
use super::super::state::JobRecord;
use super::routes::{audit, expire};
use crate::base::failpoint;
use crate::export::ExportError;
use crate::export::clean::{CleanRequest, clean};
use crate::export::place::place;

const BETWEEN_SWEEPS: Duration = Duration::from_secs(15);

/// Exports that one sweep looks at.
const AT_ONCE: u32 = 100;

/// Sweeps until the service stops.
pub(crate) async fn sweep(service: Arc<ServiceState>) {
    while !service.stopping.is_cancelled() {
        for job in service.store.overdue(AT_ONCE).await.unwrap_or_default() {
            if let Ok(job) = expire(&service, job).await {
                audit(&service, &job, None, "outhaul".to_owned(), "expire").await;
            }
        }
        for job in service.store.unremoved(AT_ONCE).await.unwrap_or_default() {
            match remove(&job).await {
                Ok(()) => drop(service.store.removed(job.id).await),
                Err(error) => tracing::warn!(export = job.id, %error, "the files of an export were not removed"),
            }
        }
        tokio::select! {
            () = service.stopping.cancelled() => {}
            () = tokio::time::sleep(failpoint::limit("job_sweep", BETWEEN_SWEEPS)) => {}
        }
    }
}

/// Removes everything below the folder of an export: what it was ended by has let go of it, or died.
async fn remove(job: &JobRecord) -> Result<(), ExportError> {
    let request = CleanRequest { destination: job.destination.clone(), single_file: false, dry_run: false };
    let cleaned = clean(&request).await?;
    if cleaned.alive.is_some() {
        return Err(ExportError::cancelled());
    }
    let (destination, _) = place(&job.destination, false).await?;
    let paths = destination.list("").await?.into_iter().map(|(path, _)| path).collect();
    destination.delete_all(paths).await?;
    destination.remove_empty().await;
    Ok(())
}
