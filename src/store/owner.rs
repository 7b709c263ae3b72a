//! Who writes at a destination now: `_outhaul/owner.json`.
//!
//! A run owns its destination from before its first read until its end. It says so again every
//! `OWNER_RENEWAL`; an owner that has not for `OWNER_LEASE`, or whose process is known to be gone, is
//! dead, and the next run takes its place. `resume --take-over` takes it from a living one too. Each change of hands raises the epoch, and every
//! write depends on the version that was read, so that of two only one gets it. Whoever has lost a destination touches
//! nothing there any more: its journal names what it staged, and that is the new owner's to use or to remove.

mod process;

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::destination::Destination;
use super::error::{StoreError, StoreFault};
use super::facts::{ReplaceOutcome, Version};
use super::journal::unreadable;
use crate::base::failpoint;
use crate::model::WorkersWanted;
pub(crate) use process::ProcessIdentity;

/// An owner that has not said for so long that it is alive is dead: a scheduler that runs a killed export again after a
/// minute finds the destination free. Six renewals, so that a slow store or a busy machine costs nobody its run.
const OWNER_LEASE: Duration = Duration::from_mins(1);

/// Between two renewals of `owner.json`, one small request each.
const OWNER_RENEWAL: Duration = Duration::from_secs(10);

/// No clock is wrong by more: an owner that is later is dead.
const CLOCK_SKEW_MAX: TimeDelta = TimeDelta::days(1);

/// Tries to take a destination that others take at the same time.
pub(super) const OWNER_TRIES: usize = 5;

const JSON: &str = "application/json";

/// Where the owner of a whole destination stands.
pub(crate) const OWNER_PATH: &str = "_outhaul/owner.json";

/// The content of `owner.json`, which outlives the version that wrote it (invariant I12): members may be added, readers
/// ignore those that they do not know, and a process that is told in another form counts as not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The run that writes here.
    pub run_id: String,
    /// Raised by one each time the destination changes hands.
    pub epoch: u64,
    /// When the owner last said that it is alive, by its own clock.
    pub renewed_at: DateTime<Utc>,
    /// Tells processes of the same run apart.
    #[serde(default)]
    pub nonce: String,
    /// The owner's process, where the system tells one.
    #[serde(default, deserialize_with = "known_process", skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessIdentity>,
    /// Whether the owner has ended, and could not remove this file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// What other processes must know to read partitions of the run, where they are to.
    #[serde(default, deserialize_with = "known_workers", skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersWanted>,
}

fn known_workers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<WorkersWanted>, D::Error> {
    let told = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(told).ok())
}

fn known_process<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ProcessIdentity>, D::Error> {
    let told = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(told).ok())
}

fn lease() -> Duration {
    failpoint::limit("owner-lease", OWNER_LEASE)
}

impl OwnerRecord {
    /// Whether the owner must be taken for alive.
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        let lease = TimeDelta::from_std(lease()).unwrap_or(TimeDelta::MAX);
        self.may_live() && now - self.renewed_at < lease
    }

    /// Whether the owner is not known to be dead, whatever any clock says.
    pub fn may_live(&self) -> bool {
        !self.ended && !self.process.as_ref().is_some_and(ProcessIdentity::is_gone)
    }
}

/// Reads who owns a destination; `None` where nobody does.
///
/// # Errors
/// [`StoreError`]; [`StoreFault::Taken`] where what is there cannot be understood, since somebody wrote it.
pub(crate) async fn owner(destination: &Destination, path: &str) -> Result<Option<OwnerRecord>, StoreError> {
    Ok(read(destination, path).await?.map(|(record, _)| record))
}

async fn read(destination: &Destination, path: &str) -> Result<Option<(OwnerRecord, Version)>, StoreError> {
    let Some(small) = destination.read(path).await? else { return Ok(None) };
    match serde_json::from_slice(&small.bytes) {
        Ok(record) => Ok(Some((record, small.version))),
        Err(error) => {
            let why = format!(
                "it is not the owner record of an export that this version of outhaul knows: {}; somebody may be writing there",
                unreadable(&error)
            );
            Err(StoreError::new("reading", destination.object_url(path), StoreFault::Taken, why))
        }
    }
}

/// Reads who owned a destination, and refuses where that owner lives.
///
/// Clocks differ. An owner of another machine that is late by our clock may live, so that `patient` callers wait for one
/// renewal: a record that changes is of somebody who lives.
///
/// # Errors
/// [`StoreFault::Taken`] where the owner lives; other classes where the destination cannot be read.
///
/// # Cancel safety
/// It only reads.
pub(crate) async fn refuse_alive(
    destination: &Destination,
    path: &str,
    patient: bool,
) -> Result<Option<OwnerRecord>, StoreError> {
    let Some((found, version)) = read(destination, path).await? else { return Ok(None) };
    if failpoint::off("owner") {
        return Ok(Some(found));
    }
    if found.is_alive(Utc::now()) {
        return Err(taken(destination, &found));
    }
    let late = Utc::now() - found.renewed_at;
    if !found.may_live() || !patient || late > CLOCK_SKEW_MAX {
        return Ok(Some(found));
    }
    // A slow store or a busy machine renews a little late.
    let renewal = failpoint::limit("owner-renewal", OWNER_RENEWAL);
    tokio::time::sleep(renewal + renewal / 5).await;
    match read(destination, path).await? {
        Some((now, later)) if later != version && !now.ended => Err(taken(destination, &now)),
        now => Ok(now.map(|(record, _)| record)),
    }
}

/// Waits for the end of an owner of our own run of which nobody knows whether it lives: a scheduler that begins a killed run
/// again says the same run. What stands there then.
///
/// # Errors
/// [`StoreFault::Taken`] where the owner is another run's, or lives.
async fn outlived(
    destination: &Destination,
    path: &str,
    run_id: &str,
    (other, version): (&OwnerRecord, &Version),
) -> Result<Option<(OwnerRecord, Version)>, StoreError> {
    let is_here = other.process.as_ref().is_some_and(ProcessIdentity::is_here);
    if other.run_id != run_id || is_here || failpoint::off("patient-take") {
        return Err(taken(destination, other));
    }
    let seconds = lease().as_secs();
    tracing::warn!(
        run_id,
        "a process of this run was at work there a moment ago; waiting up to {seconds} s for a sign of it"
    );
    let (until, renewal) = (Instant::now() + lease(), failpoint::limit("owner-renewal", OWNER_RENEWAL));
    loop {
        tokio::time::sleep(renewal).await;
        match read(destination, path).await? {
            Some((now, later)) if later != *version && !now.ended => return Err(taken(destination, &now)),
            // Clocks differ: so long without a sign is long enough.
            Some((now, _)) if now.is_alive(Utc::now()) && Instant::now() < until => {}
            now => return Ok(now),
        }
    }
}

/// How a destination is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// From nobody, or from a dead owner.
    Free,
    /// From anybody: `resume --take-over`.
    Over,
}

/// The ownership of a destination. Clones share it.
#[derive(Debug, Clone)]
pub struct Claim {
    inner: Arc<OwnerInner>,
}

#[derive(Debug)]
struct OwnerInner {
    destination: Destination,
    path: String,
    /// What we wrote last, and its version.
    held: RwLock<(OwnerRecord, Version)>,
    /// The one before us, where there was one.
    previous: Option<OwnerRecord>,
    lost: CancellationToken,
    /// Who else is to read partitions of the run.
    wanted: OnceLock<WorkersWanted>,
}

impl Claim {
    /// Takes the destination for `run_id`. Nothing else has been written there by then.
    ///
    /// # Errors
    /// [`StoreFault::Taken`] where another owner lives, under [`Take::Free`]; other classes where the destination
    /// cannot be read or written. An owner of the same run, such as a pod that was killed a moment ago, is waited for.
    ///
    /// # Cancel safety
    /// A dropped call may have taken the destination; its process is gone soon, or its lease.
    pub async fn take(destination: &Destination, path: &str, run_id: &str, how: Take) -> Result<Self, StoreError> {
        let mut record = OwnerRecord {
            run_id: run_id.to_owned(),
            epoch: 1,
            renewed_at: Utc::now(),
            nonce: format!("{:016x}", rand::random::<u64>()),
            process: ProcessIdentity::current(),
            ended: false,
            workers: None,
        };
        for _ in 0..OWNER_TRIES {
            let mut found = read(destination, path).await?;
            if let Some((other, version)) =
                found.as_ref().filter(|(other, _)| how == Take::Free && other.is_alive(Utc::now()))
                && !failpoint::off("owner")
            {
                found = outlived(destination, path, run_id, (other, version)).await?;
            }
            record.epoch = found.as_ref().map_or(1, |(other, _)| other.epoch.saturating_add(1));
            record.renewed_at = Utc::now();
            match &found {
                None => drop(destination.create(path, bytes(&record), JSON).await?),
                Some((_, version)) => drop(destination.replace(path, bytes(&record), JSON, version).await?),
            }
            // What the write said may be of a first try whose answer was lost.
            if let Some((now, version)) = read(destination, path).await?
                && now.nonce == record.nonce
            {
                let inner = OwnerInner {
                    destination: destination.clone(),
                    path: path.to_owned(),
                    held: RwLock::new((record, version)),
                    previous: found.map(|(record, _)| record),
                    lost: CancellationToken::new(),
                    wanted: OnceLock::new(),
                };
                return Ok(Self { inner: Arc::new(inner) });
            }
        }
        let why = "others take it as fast as we do";
        Err(StoreError::new("taking", destination.object_url(path), StoreFault::Taken, why))
    }

    /// How often the destination has changed hands, with ours.
    pub fn epoch(&self) -> u64 {
        self.held().0.epoch
    }

    /// Says in the record what other processes must know to read partitions of the run.
    ///
    /// # Errors
    /// [`StoreFault::Taken`] where the destination is not ours any more; other classes where it cannot be written.
    pub async fn invite(&self, wanted: WorkersWanted) -> Result<(), StoreError> {
        let wanted = self.inner.wanted.get_or_init(|| wanted);
        for _ in 0..OWNER_TRIES {
            self.renew().await?;
            // A renewal that was under way may have written over it.
            if self.held().0.workers.as_ref() == Some(wanted) {
                return Ok(());
            }
        }
        let OwnerInner { destination, path, .. } = &*self.inner;
        let why = "what the workers must know cannot be written into it";
        Err(StoreError::new("writing", destination.object_url(path), StoreFault::Unavailable, why))
    }

    /// Whether other processes were asked to read partitions of the run.
    pub fn has_invited(&self) -> bool {
        self.inner.wanted.get().is_some()
    }

    /// Who owned it before.
    pub fn previous(&self) -> Option<&OwnerRecord> {
        self.inner.previous.as_ref()
    }

    /// Cancelled once the destination is known to be somebody else's.
    pub fn lost(&self) -> &CancellationToken {
        &self.inner.lost
    }

    /// Whether it still is ours, asked of the destination.
    ///
    /// # Errors
    /// [`StoreFault::Taken`] where it is not; other classes where that cannot be found out.
    pub async fn check(&self) -> Result<(), StoreError> {
        if failpoint::off("owner") {
            return Ok(());
        }
        let OwnerInner { destination, path, lost, .. } = &*self.inner;
        let now = read(destination, path).await?;
        let nonce = self.held().0.nonce;
        match now {
            Some((record, _)) if record.nonce == nonce => Ok(()),
            other => {
                lost.cancel();
                Err(lost_to(destination, path, other.as_ref().map(|(record, _)| record)))
            }
        }
    }

    /// Says again and again that we are alive, until the destination is somebody else's or, with `None`, `ended` is
    /// cancelled.
    ///
    /// # Cancel safety
    /// Dropping it stops the renewal; one that was under way may leave a temporary file in a folder.
    pub async fn keep(&self, ended: &CancellationToken) -> Option<StoreError> {
        let interval = failpoint::limit("owner-renewal", OWNER_RENEWAL);
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => return None,
                () = tokio::time::sleep(interval) => {}
            }
            match self.renew().await {
                Ok(()) => {}
                Err(error) if error.fault == StoreFault::Taken => return Some(error),
                // A store that does not answer: the reads and writes of the run find out.
                Err(error) => tracing::debug!(%error, "the owner record is old"),
            }
        }
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let OwnerInner { destination, path, .. } = &*self.inner;
        let (mut record, version) = self.held();
        record.renewed_at = Utc::now();
        record.workers = self.inner.wanted.get().cloned();
        if destination.replace(path, bytes(&record), JSON, &version).await? == ReplaceOutcome::Changed {
            self.check().await?;
        }
        if let Some((now, version)) = read(destination, path).await?
            && now.nonce == record.nonce
        {
            *self.inner.held.write().unwrap_or_else(PoisonError::into_inner) = (now, version);
        }
        Ok(())
    }

    /// Gives the destination back, where it still is ours. A role that may not delete leaves the record, and in it that
    /// the owner has ended.
    ///
    /// # Errors
    /// [`StoreError`]; the next run waits for the lease then.
    pub async fn release(&self) -> Result<(), StoreError> {
        if self.inner.lost.is_cancelled() || self.check().await.is_err() {
            return Ok(());
        }
        let OwnerInner { destination, path, .. } = &*self.inner;
        if destination.delete(path).await.is_ok() {
            return Ok(());
        }
        self.end().await
    }

    /// Leaves the record, so that what stands in the journal is found, and says in it that the owner has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(&self) -> Result<(), StoreError> {
        let OwnerInner { destination, path, .. } = &*self.inner;
        let (mut record, version) = self.held();
        record.ended = true;
        destination.replace(path, bytes(&record), JSON, &version).await.map(|_| ())
    }

    fn held(&self) -> (OwnerRecord, Version) {
        self.inner.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Removes the record of a dead owner, where it is still the one that was read.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn forget(destination: &Destination, path: &str, dead: &OwnerRecord) -> Result<(), StoreError> {
    match read(destination, path).await? {
        Some((record, _)) if record == *dead => destination.delete(path).await,
        _ => Ok(()),
    }
}

fn bytes(record: &OwnerRecord) -> Bytes {
    // Text, numbers and a time: nothing that JSON cannot hold.
    serde_json::to_vec(record).unwrap_or_default().into()
}

fn taken(destination: &Destination, other: &OwnerRecord) -> StoreError {
    let process = other
        .process
        .as_ref()
        .map_or(String::new(), |process| format!(" (process {} on {})", process.pid, process.host));
    let said = other.renewed_at.format("%H:%M:%S UTC");
    let why = format!("run {}{process} is writing there, and said so at {said}", other.run_id);
    StoreError::new("taking", destination.url(), StoreFault::Taken, why).with_hint(format!(
        "if it is dead, it is taken over {} s after that, and by `outhaul resume --take-over` at once",
        OWNER_LEASE.as_secs()
    ))
}

fn lost_to(destination: &Destination, path: &str, other: Option<&OwnerRecord>) -> StoreError {
    let why = match other {
        Some(other) => format!("run {} (epoch {}) has taken this destination over", other.run_id, other.epoch),
        None => "another run has taken this destination over, and has ended".to_owned(),
    };
    StoreError::new("keeping", destination.object_url(path), StoreFault::Taken, why)
}

#[cfg(test)]
mod tests;
