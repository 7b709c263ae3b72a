//! What is over: exports whose time has come expire, and the files of exports that are over are removed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use futures_util::stream::{self, StreamExt};

use super::super::ServiceState;
use super::super::state::{JobRecord, JobStatus, StateError};
use super::super::webhooks::{WebhookEvent, messages};
use super::routes::audit;
use crate::base::failpoint;
use crate::base::telemetry::serving;
use crate::export::ExportError;
use crate::export::clean::{CleanRequest, clean};
use crate::model::{CredentialCommand, ExportErrorKind};
use crate::store::{Destination, StoreOptions};

const BETWEEN_SWEEPS: Duration = Duration::from_secs(15);

/// Exports that one sweep looks at.
const AT_ONCE: u32 = 100;

/// Exports whose files are removed at the same time.
const REMOVED_AT_ONCE: usize = 4;

/// So long files that could not be removed are left alone, for others to have their turn.
const AFTER_FAILURE: Duration = Duration::from_mins(5);

/// Sweeps until the service stops. What expires does not wait for what is removed: that may be at a destination which does not
/// answer.
pub(crate) async fn sweep(service: Arc<ServiceState>) {
    join(expire_all(&service), remove_all(&service)).await;
}

async fn expire_all(service: &ServiceState) {
    while !service.stopping.is_cancelled() {
        for job in service.store.overdue(AT_ONCE).await.unwrap_or_default() {
            expire_overdue(service, job).await;
        }
        rest(service).await;
    }
}

async fn remove_all(service: &ServiceState) {
    while !service.stopping.is_cancelled() {
        let jobs = service.store.unremoved(AT_ONCE).await.unwrap_or_default();
        stream::iter(jobs).for_each_concurrent(REMOVED_AT_ONCE, |job| remove_files(service, job)).await;
        rest(service).await;
    }
}

async fn rest(service: &ServiceState) {
    tokio::select! {
        () = service.stopping.cancelled() => {}
        () = tokio::time::sleep(failpoint::limit("job_sweep", BETWEEN_SWEEPS)) => {}
    }
}

async fn remove_files(service: &ServiceState, job: JobRecord) {
    let Err(error) = remove(&job, service.config.credentials_of(&job.destination)).await else {
        return drop(service.store.removed(job.id).await);
    };
    tracing::warn!(export = job.id, %error, "the files of an export were not removed");
    if !failpoint::off("removal_turns") {
        drop(service.store.removal_failed(job.id, failpoint::limit("job_removal", AFTER_FAILURE)).await);
    }
}

/// A job that was ready, as it is once it has expired.
pub(super) fn over(job: JobRecord) -> JobRecord {
    JobRecord { status: JobStatus::Expired, revocation: job.revocation.saturating_add(1), ..job }
}

/// Makes an export that is ready expired, now; gives its record where nobody was faster.
pub(super) async fn expire(service: &ServiceState, job: &JobRecord) -> Result<Option<JobRecord>, StateError> {
    let told = messages(&service.config.webhooks, &service.links, WebhookEvent::Expired, &over(job.clone()));
    let expired = service.store.expire(job.id.clone(), told).await?;
    if let Some(expired) = &expired {
        serving::job_ended(expired.status.name());
    }
    Ok(expired)
}

/// Whoever is first writes it down, where several processes sweep.
async fn expire_overdue(service: &ServiceState, job: JobRecord) {
    match expire(service, &job).await {
        Ok(Some(job)) => audit(service, &job, None, "outhaul".to_owned(), "expire").await,
        Ok(None) => {}
        Err(error) => tracing::warn!(export = job.id, %error, "an export did not expire"),
    }
}

/// Removes everything below the folder of an export: what it was ended by has let go of it, or died. A call that stops halfway
/// is made again; two at once do the same work.
async fn remove(job: &JobRecord, credentials: Option<&CredentialCommand>) -> Result<(), ExportError> {
    // Nothing but an export's own folder is ever removed, whatever its row says.
    let base = job.destination.strip_suffix(job.id.as_str()).filter(|base| !job.id.is_empty() && base.ends_with('/'));
    if base.is_none() && !failpoint::off("own_folder") {
        return Err(ExportError::new(ExportErrorKind::DestinationTaken, "the folder is not named by the export's id"));
    }
    let destination = Destination::connect(&job.destination, &StoreOptions::small(), credentials).await?;
    // What never began has no files, and perhaps no folder to be below.
    if job.started_at.is_some() {
        base_is_there(&destination)?;
    }
    let request = CleanRequest {
        destination: job.destination.clone(),
        single_file: false,
        dry_run: false,
        aws_credential_command: credentials.cloned(),
    };
    let cleaned = clean(&request).await?;
    if cleaned.alive.is_some() {
        return Err(ExportError::cancelled());
    }
    let paths: Vec<String> = destination.list("").await?.into_iter().map(|(path, _)| path).collect();
    failpoint::reach("files-listed").await;
    destination.delete_all(paths).await?;
    if let Some(base) = base.filter(|_| destination.local_folder().is_some()) {
        // Folders are left where files were.
        let base = Destination::connect(base, &StoreOptions::small(), None).await?;
        base.delete_local_folder(&job.id, "").await?;
    }
    Ok(())
}

/// Files below a folder that has gone as a whole are not removed: it may have been moved, or its volume not be mounted.
fn base_is_there(destination: &Destination) -> Result<(), ExportError> {
    let folder = destination.local_folder();
    let Some(base) = folder.as_deref().and_then(Path::parent).filter(|base| !base.is_dir()) else { return Ok(()) };
    let message = format!(
        "the folder {} is not there, and its files may stand elsewhere: bring it back, or make it where they are gone",
        base.display()
    );
    Err(ExportError::new(ExportErrorKind::DestinationUnavailable, message))
}

#[cfg(test)]
mod tests {
    use super::super::super::links::tests::ready;
    use super::*;

    /// A folder `name` with what an export leaves there, and a row that says so.
    async fn export(base: &Path, name: &str) -> JobRecord {
        let mut job = ready();
        job.id = name.to_owned();
        job.destination = format!("file://{}/{name}", base.to_str().unwrap());
        let destination = Destination::connect(&job.destination, &StoreOptions::small(), None).await.unwrap();
        for path in ["data/part-0.csv", "data/part-1.csv", "_manifest.json", "_outhaul/lock2"] {
            destination.put(path, "x".into(), "text/csv").await.unwrap();
        }
        job
    }

    fn files(base: &Path, name: &str) -> usize {
        let count = |folder: &str| std::fs::read_dir(base.join(name).join(folder)).map_or(0, Iterator::count);
        count("") + count("data")
    }

    #[tokio::test]
    async fn an_export_that_is_over_leaves_nothing_and_takes_nothing_with_it() {
        let base = tempfile::tempdir().unwrap();
        let (base, outside) = (base.path(), base.path().join("outside.csv"));
        let job = export(base, "0198").await;
        for name in ["01980", "0198x", "other"] {
            export(base, name).await;
        }
        std::fs::write(&outside, "kept").unwrap();
        std::os::unix::fs::symlink(&outside, base.join("0198/data/link.csv")).unwrap();
        std::os::unix::fs::symlink(base.join("other"), base.join("0198/folder")).unwrap();
        remove(&job, None).await.unwrap();
        assert!(!base.join("0198").exists());
        for name in ["01980", "0198x", "other"] {
            assert!(files(base, name) > 3, "{name}");
        }
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "kept");
        // Once more, or of a run that never began, it is the same.
        remove(&job, None).await.unwrap();
    }

    #[tokio::test]
    async fn a_removal_that_died_halfway_goes_on_and_two_at_once_do_the_same() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let job = export(base, "half").await;
        for gone in ["_manifest.json", "data/part-1.csv"] {
            std::fs::remove_file(base.join("half").join(gone)).unwrap();
            remove(&job, None).await.unwrap();
            assert!(!base.join("half").exists(), "{gone}");
            export(base, "half").await;
        }
        let (one, other) = tokio::join!(remove(&job, None), remove(&job, None));
        one.and(other).unwrap();
        assert!(!base.join("half").exists());
    }

    /// A volume that was moved, or is not mounted: its files stand elsewhere, and nobody may call them removed.
    #[tokio::test]
    async fn files_of_a_folder_that_is_away_are_not_removed() {
        let outer = tempfile::tempdir().unwrap();
        let [base, away] = ["base", "away"].map(|name| outer.path().join(name));
        std::fs::create_dir(&base).unwrap();
        let mut job = export(&base, "0198").await;
        job.started_at = Some(job.created_at);
        std::fs::rename(&base, &away).unwrap();
        let error = remove(&job, None).await.unwrap_err();
        assert!(error.to_string().contains("base is not there"), "{error}");
        assert!(!base.exists() && files(&away, "0198") > 3);
        std::fs::rename(&away, &base).unwrap();
        remove(&job, None).await.unwrap();
        assert_eq!(files(&base, "0198"), 0);
        std::fs::remove_dir(&base).unwrap();
        job.started_at = None;
        remove(&job, None).await.unwrap();
    }

    #[tokio::test]
    async fn a_row_that_names_another_folder_removes_nothing() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let mut job = export(base, "0198").await;
        let own = job.destination.clone();
        let strange = [format!("{own}/.."), own.replace("/0198", ""), format!("{own}x"), format!("{own}/data")];
        for destination in strange {
            job.destination = destination;
            remove(&job, None).await.unwrap_err();
        }
        (job.id, job.destination) = (String::new(), format!("file://{}/", base.to_str().unwrap()));
        remove(&job, None).await.unwrap_err();
        assert!(files(base, "0198") > 3);
    }
}
