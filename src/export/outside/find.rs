//! The run that a worker is for: one export, or the exports of a job, and what of each is its share.

use std::num::NonZeroUsize;

use chrono::Utc;
use tokio::time::Instant;

use super::deal::dealt;
use super::fence::Fence;
use super::posted::{self, PostedJob};
use super::work::{WAIT_INTERVAL, WorkRequest};
use crate::base::failpoint;
use crate::commit::Placement;
use crate::export::error::ExportError;
use crate::export::place::place_by;
use crate::model::{
    CredentialCommand, ExportErrorKind, ExportShare, InvitedExport, JobPartition, RunFence, WorkerShare, WorkersWanted,
};
use crate::store::error::StoreFault;
use crate::store::journal::plan_sha256;
use crate::store::owner::{OwnerRecord, owner, refuse_alive};
use crate::store::{Destination, StoreOptions};

/// What a worker has to do at one destination.
#[derive(Debug)]
pub(super) struct Task {
    /// The export of a job that writes there, by its number and its name.
    pub(super) export: Option<(u32, String)>,
    pub(super) destination: Destination,
    /// As it is connected to.
    pub(super) url: String,
    pub(super) placement: Placement,
    pub(super) run: RunFence,
    pub(super) max_workers: NonZeroUsize,
    pub(super) share: WorkerShare,
}

/// Waits for the run that wants workers.
///
/// # Errors
/// As [`super::work::work`].
pub(super) async fn find(request: &WorkRequest) -> Result<Vec<Task>, ExportError> {
    let credentials = request.aws_credential_command.as_ref();
    let (destination, placement) = place_by(&request.destination, false, credentials).await?;
    if placement != Placement::Parts {
        let message = format!("{} is a single file, which one process writes", request.destination);
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    let deadline = Instant::now() + request.wait;
    let mut unread = None;
    loop {
        if let Some(job) = job(request, &destination, &mut unread).await? {
            return of_job(request, job).await;
        }
        if let Some((run, max_workers)) = one(request, &destination, &placement.owner_path()).await? {
            let (url, share) = (request.destination.clone(), request.share.clone());
            return Ok(vec![Task { export: None, destination, url, placement, run, max_workers, share }]);
        }
        if Instant::now() >= deadline {
            if let Some(error) = unread {
                return Err(error);
            }
            let message = format!("no run that wants workers was at {} in time", destination.url());
            return Err(ExportError::new(ExportErrorKind::GaveWay, message).with_hint(
                "`outhaul export --workers external` is such a run, and `outhaul run` is one at the root of its job; --wait says \
                 how long it is awaited",
            ));
        }
        tokio::time::sleep(failpoint::limit("wait", WAIT_INTERVAL)).await;
    }
}

/// The export that wants workers, and how many read at the same time.
async fn one(
    request: &WorkRequest,
    destination: &Destination,
    path: &str,
) -> Result<Option<(RunFence, NonZeroUsize)>, ExportError> {
    // Whose clock is another does not matter where it is said which process of the run is meant.
    let wanted = |owner: &OwnerRecord| match &request.run {
        Some(_) => owner.may_live(),
        None => owner.is_alive(Utc::now()),
    };
    let found = match owner(destination, path).await?.filter(wanted) {
        None if request.run.is_none() => renewed(destination, path).await?,
        found => found,
    };
    match (&request.run, found) {
        (asked, Some(owner))
            if asked.as_ref().is_none_or(|run| (&run.run_id, run.epoch) == (&owner.run_id, owner.epoch)) =>
        {
            let Some(WorkersWanted { plan_sha256, max_workers }) = owner.workers else { return Ok(None) };
            let max_workers = NonZeroUsize::new(max_workers).unwrap_or(NonZeroUsize::MIN);
            let found = RunFence { run_id: owner.run_id, epoch: owner.epoch, plan_sha256 };
            Ok(Some((request.run.clone().unwrap_or(found), max_workers)))
        }
        (Some(asked), _) => {
            let fence = Fence { destination: destination.clone(), path: path.to_owned(), run: asked.clone() };
            fence.check().await.map(|()| None)
        }
        (None, _) => Ok(None),
    }
}

/// The job that wants workers: the one that is asked for, or whichever lives. What a dead run of another version has left is
/// no reason to end, and in `unread` then.
async fn job(
    request: &WorkRequest,
    root: &Destination,
    unread: &mut Option<ExportError>,
) -> Result<Option<PostedJob>, ExportError> {
    if let Some(asked) = &request.run {
        let Some((job, bytes)) = posted::read(root, &asked.run_id).await? else { return Ok(None) };
        if job.epoch != asked.epoch {
            let message = format!(
                "this worker is of run {} (epoch {}), which goes on in another process (epoch {})",
                asked.run_id, asked.epoch, job.epoch
            );
            return Err(ExportError::new(ExportErrorKind::DestinationTaken, message));
        }
        let found = plan_sha256(&bytes);
        if found != asked.plan_sha256 && !failpoint::off("plan-hash") {
            let message = format!(
                "the exports of run {} at {} have the SHA-256 {found}, and {} was asked for",
                asked.run_id,
                root.url(),
                asked.plan_sha256
            );
            return Err(ExportError::new(ExportErrorKind::Usage, message)
                .with_hint("take --plan-sha256 from the line `ready` of the run, or leave it out with --shard"));
        }
        return of_this_version(job).map(Some);
    }
    let mut latest = None;
    for run_id in posted::runs(root).await? {
        let Some(job) = posted::known(root, &run_id, |error| *unread = Some(error)).await? else { continue };
        if lives(&job, request.aws_credential_command.as_ref()).await? {
            return of_this_version(job).map(Some);
        }
        latest.get_or_insert(job);
    }
    match latest {
        Some(job) if lives_late(&job, request.aws_credential_command.as_ref()).await? => of_this_version(job).map(Some),
        _ => Ok(None),
    }
}

fn of_this_version(job: PostedJob) -> Result<PostedJob, ExportError> {
    let version = env!("CARGO_PKG_VERSION");
    if job.outhaul_version == version {
        return Ok(job);
    }
    let message =
        format!("run {} is of outhaul {}, and this worker is outhaul {version}", job.run_id, job.outhaul_version);
    Err(ExportError::new(ExportErrorKind::Usage, message)
        .with_hint("workers and the run that they read for are of one version"))
}

/// The first of some runs that has left a job here and lives; what this version cannot read is passed over.
///
/// # Errors
/// A destination fails.
pub(crate) async fn first_that_lives(
    root: &Destination,
    runs: &[String],
    credentials: Option<&CredentialCommand>,
) -> Result<Option<PostedJob>, ExportError> {
    let unread = |error: ExportError| {
        tracing::warn!(error = error.sentence(), "what stands there for workers is passed over");
    };
    for run_id in runs {
        let Some(job) = posted::known(root, run_id, unread).await? else { continue };
        if lives(&job, credentials).await? {
            return Ok(Some(job));
        }
    }
    Ok(None)
}

/// Whether an export of a job still is its run's.
///
/// # Errors
/// A destination fails.
async fn lives(job: &PostedJob, credentials: Option<&CredentialCommand>) -> Result<bool, ExportError> {
    for export in &job.exports {
        let destination = connect(export, credentials).await?;
        let owner = owner(&destination, &Placement::Parts.owner_path()).await?;
        if owner.is_some_and(|owner| is_of(&owner, job, export) && owner.is_alive(Utc::now())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a job that is late by our clock shows within a renewal that it lives.
async fn lives_late(job: &PostedJob, credentials: Option<&CredentialCommand>) -> Result<bool, ExportError> {
    let path = Placement::Parts.owner_path();
    for export in &job.exports {
        let destination = connect(export, credentials).await?;
        if owner(&destination, &path).await?.is_some_and(|owner| is_of(&owner, job, export)) {
            // A run that lives renews all of its records.
            return Ok(renewed(&destination, &path).await?.is_some_and(|owner| is_of(&owner, job, export)));
        }
    }
    Ok(false)
}

fn is_of(owner: &OwnerRecord, job: &PostedJob, export: &InvitedExport) -> bool {
    (owner.run_id.as_str(), owner.epoch) == (job.run_id.as_str(), export.epoch)
}

/// The owner that is late by our clock, where it shows within a renewal that it lives: clocks differ.
async fn renewed(destination: &Destination, path: &str) -> Result<Option<OwnerRecord>, ExportError> {
    match refuse_alive(destination, path, true).await {
        Err(error) if error.fault == StoreFault::Taken => {
            Ok(owner(destination, path).await?.filter(|owner| !owner.ended))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(None),
    }
}

async fn connect(export: &InvitedExport, credentials: Option<&CredentialCommand>) -> Result<Destination, ExportError> {
    Ok(Destination::connect(&export.destination, &StoreOptions::small(), credentials).await?)
}

/// What of a job is the worker's: a task for each export.
async fn of_job(request: &WorkRequest, job: PostedJob) -> Result<Vec<Task>, ExportError> {
    let max_workers = NonZeroUsize::new(job.max_workers).unwrap_or(NonZeroUsize::MIN);
    let mut tasks = Vec::new();
    for (export, partitions) in shares(&request.share, &job)? {
        let InvitedExport { number, name, destination: url, epoch, plan_sha256 } = export.clone();
        let destination = connect(export, request.aws_credential_command.as_ref()).await?;
        let run = RunFence { run_id: job.run_id.clone(), epoch, plan_sha256 };
        let (export, share) = (Some((number, name)), WorkerShare::Partitions(partitions));
        tasks.push(Task { export, destination, url, placement: Placement::Parts, run, max_workers, share });
    }
    Ok(tasks)
}

/// The partitions of each export that are a worker's: those of one export follow one another, so that it changes its session
/// as seldom as can be.
fn shares<'a>(share: &WorkerShare, job: &'a PostedJob) -> Result<Vec<(&'a InvitedExport, Vec<u32>)>, ExportError> {
    let mut shares: Vec<(&InvitedExport, Vec<u32>)> = Vec::new();
    let mut add = |export: &'a InvitedExport, number: u32| match shares
        .iter_mut()
        .find(|(known, _)| known.number == export.number)
    {
        Some((_, numbers)) => numbers.push(number),
        None => shares.push((export, vec![number])),
    };
    match share {
        WorkerShare::Partitions(_) => {
            let message = format!("run {} is a job's, and its partitions have an export in front", job.run_id);
            return Err(ExportError::new(ExportErrorKind::Usage, message)
                .with_hint("--partitions EXPORT:7,12 takes exports and partitions of the line `ready`"));
        }
        WorkerShare::OfExports(asked) => {
            for ExportShare { export, partitions } in asked {
                let meant = named(export, job)?;
                for number in partitions {
                    add(meant, *number);
                }
            }
        }
        WorkerShare::Shard { index, of } => {
            for JobPartition { export, number, .. } in shard(job, *index, *of) {
                let meant = job.exports.iter().find(|one| one.number == *export);
                let unknown = || ExportError::internal("a partition is of no export of its job");
                add(meant.ok_or_else(unknown)?, *number);
            }
        }
    }
    Ok(shares)
}

/// What one of `of` shards has of a job, the heaviest first. Each export is dealt by itself, from a shard of its own on: which
/// partition is whose depends on nothing but plans, and not on what is done of a run when it goes on.
fn shard(job: &PostedJob, index: u32, of: u32) -> Vec<&JobPartition> {
    let of = of.max(1);
    let all = if job.dealt.is_empty() { &job.partitions } else { &job.dealt };
    let of_export = |export: &InvitedExport| {
        let own: Vec<&JobPartition> = all.iter().filter(|one| one.export == export.number).collect();
        let from = u64::from(index) + u64::from(of - export.number % of);
        dealt(&own, u32::try_from(from % u64::from(of)).unwrap_or(0), of).copied().collect::<Vec<_>>()
    };
    let mut mine: Vec<&JobPartition> = job.exports.iter().flat_map(of_export).collect();
    mine.sort_by_key(|one| (std::cmp::Reverse(one.weight), one.export, one.number));
    mine
}

/// The export of a number or a name.
fn named<'a>(text: &str, job: &'a PostedJob) -> Result<&'a InvitedExport, ExportError> {
    let by_number = text.parse().ok().and_then(|number: u32| job.exports.iter().find(|one| one.number == number));
    by_number.or_else(|| job.exports.iter().find(|one| one.name == text)).ok_or_else(|| {
        let known = job.exports.iter().map(|one| format!("{} ({})", one.number, one.name)).collect::<Vec<_>>();
        let message = format!("run {} has no export {text}: those that wait are {}", job.run_id, known.join(", "));
        ExportError::new(ExportErrorKind::Usage, message)
            .with_hint("--partitions takes the exports of the line `ready`, by number or by name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> PostedJob {
        let export = |number: u32, name: &str| InvitedExport {
            number,
            name: name.to_owned(),
            destination: format!("s3://lake/{name}"),
            epoch: 1,
            plan_sha256: String::new(),
        };
        let partition = |export, number, weight| JobPartition { export, number, weight };
        PostedJob {
            version: posted::VERSION,
            run_id: "night".to_owned(),
            epoch: 1,
            outhaul_version: String::new(),
            exports: vec![export(0, "public.a"), export(3, "public.b")],
            partitions: vec![partition(3, 1, 90), partition(0, 0, 50), partition(3, 0, 40), partition(3, 2, 30)],
            dealt: Vec::new(),
            max_workers: 2,
        }
    }

    fn found(share: &WorkerShare) -> Result<Vec<(u32, Vec<u32>)>, String> {
        let job = job();
        let found = shares(share, &job).map_err(|error| error.message)?;
        Ok(found.into_iter().map(|(export, numbers)| (export.number, numbers)).collect())
    }

    #[test]
    fn the_partitions_of_all_exports_are_dealt_and_those_of_one_follow_one_another() {
        assert_eq!(found(&WorkerShare::Shard { index: 0, of: 1 }), Ok(vec![(3, vec![1, 0, 2]), (0, vec![0])]));
        assert_eq!(found(&WorkerShare::Shard { index: 0, of: 2 }), Ok(vec![(0, vec![0]), (3, vec![0])]));
        assert_eq!(found(&WorkerShare::Shard { index: 1, of: 2 }), Ok(vec![(3, vec![1, 2])]));
        assert_eq!(found(&WorkerShare::Shard { index: 7, of: 9 }), Ok(vec![]));
    }

    #[test]
    fn a_share_is_the_same_however_far_the_run_has_come() {
        let before = PostedJob { dealt: job().partitions, ..job() };
        // One export has ended, and half of the other has receipts.
        let exports = before.exports[1..].to_vec();
        let dealt: Vec<JobPartition> = before.dealt.iter().filter(|one| one.export == 3).copied().collect();
        let after = PostedJob { exports, partitions: dealt[1..].to_vec(), dealt, ..job() };
        for of in 1..6 {
            let mut all = Vec::new();
            for index in 0..of {
                let share = |job: &PostedJob| shard(job, index, of).into_iter().copied().collect::<Vec<_>>();
                let kept: Vec<JobPartition> = share(&before).into_iter().filter(|one| one.export == 3).collect();
                assert_eq!(share(&after), kept, "{index} of {of}");
                all.extend(share(&before).iter().map(|one| (one.export, one.number)));
            }
            all.sort_unstable();
            assert_eq!(all, [(0, 0), (3, 0), (3, 1), (3, 2)], "each is of one shard of {of}");
        }
    }

    #[test]
    fn an_export_is_known_by_number_and_by_name() {
        let share = |export: &str| {
            WorkerShare::OfExports(vec![ExportShare { export: export.to_owned(), partitions: vec![7, 12] }])
        };
        assert_eq!(found(&share("3")), found(&share("public.b")));
        assert_eq!(found(&share("public.a")), Ok(vec![(0, vec![7, 12])]));
        assert!(found(&share("1")).unwrap_err().contains("0 (public.a), 3 (public.b)"));
        assert!(found(&WorkerShare::Partitions(vec![1])).unwrap_err().contains("an export in front"));
    }
}
