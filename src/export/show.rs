//! What stands at a destination: the export that is committed there, who is at work, and what dead runs left. It only
//! reads.
//!
//! [`show`] tells all of it, and [`before`] as much as concerns an export that is planned.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::error::ExportError;
use super::finish::RunTarget;
use super::identity::RunIdentity;
use super::leftovers::DeadRun;
pub use super::leftovers::Remains;
use super::place::{no_folder, place};
use super::record::RunRecord;
use super::request::ExportRequest;
use super::strangers::unnamed;
use crate::commit::{Manifest, ManifestError, Placement, look};
use crate::model::{ExportErrorKind, KeptSnapshot, OnExisting, Target};
use crate::store::owner::{OwnerRecord, owner};
use crate::store::{Destination, Journal, credentials_by, shown as address_shown};

/// A plan waits so long for its destination: it is about the source.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// What stands at a destination.
#[derive(Debug)]
pub struct Shown {
    /// The destination's URL, or that of the single file, without credentials.
    pub destination: String,
    /// Where its manifest stands, or would.
    pub manifest_url: String,
    /// The export that is committed there.
    pub manifest: Option<Manifest>,
    /// Whether a file of that name is there, where the destination is a single file.
    pub has_file: bool,
    /// Who writes there, or died writing.
    pub owner: Option<ShownOwner>,
    /// The runs that have not ended.
    pub runs: Vec<ShownRun>,
}

/// Who writes at a destination, or died writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownOwner {
    /// The run.
    pub run_id: String,
    /// Whether it must be taken for alive.
    pub alive: bool,
    /// How often the destination has changed hands.
    pub epoch: u64,
    /// When it last said that it is alive, by its own clock.
    pub renewed_at: DateTime<Utc>,
    /// Its machine, where the system tells one.
    pub host: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnendedState {
    /// It is at work.
    Alive,
    /// It died before its commit.
    Dead,
    /// It died after its manifest, with some of its commit undone.
    Unfinished,
    /// A newer version of outhaul wrote records that this one would misread.
    Newer,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownRun {
    /// Its id.
    pub run_id: String,
    /// What it is doing.
    pub state: UnendedState,
    /// When it began, where its records say so.
    pub begun_at: Option<DateTime<Utc>>,
    /// The version of the program that began it.
    pub outhaul_version: Option<String>,
    /// What it reads, as the person wrote it; absent where the plan is another version's, or none.
    pub relation: Option<String>,
    /// How many partitions it reads, where that is known.
    pub partitions: Option<usize>,
    /// How many of them are read and uploaded whole.
    pub partitions_read: usize,
    /// Who holds its snapshot beyond its own life.
    pub kept: Vec<KeptSnapshot>,
    /// What it has there; absent for a run that is at work, whose objects come and go.
    pub left: Option<Remains>,
}

/// What an export would find at its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedDestination {
    /// Its URL, without credentials.
    pub url: String,
    /// Who gives the credentials for it, where some are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// What is there.
    #[serde(flatten)]
    pub state: DestinationState,
}

/// See [`PlannedDestination`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DestinationState {
    /// Standard output, which is always there.
    Stream,
    /// Nothing is in the way.
    Free,
    /// A run is at work there.
    AtWork(ShownOwner),
    /// An export is committed there.
    Committed {
        /// Its run.
        run_id: String,
        /// When it was.
        at: DateTime<Utc>,
    },
    /// A file of that name is there, and no manifest describes it.
    Occupied,
    /// The folder of an earlier export has the name of the file that is planned.
    IsFolder,
    /// What is there would stop an export.
    Refused {
        /// Why.
        why: String,
    },
    /// It cannot be looked at.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl From<OwnerRecord> for ShownOwner {
    fn from(record: OwnerRecord) -> Self {
        let alive = record.is_alive(Utc::now());
        let OwnerRecord { run_id, epoch, renewed_at, process, .. } = record;
        let (host, pid) = process.map(|process| (process.host, process.pid)).unzip();
        Self { run_id, alive, epoch, renewed_at, host, pid }
    }
}

/// Looks at a destination: a folder of parts, or a single file, which `single_file` says or its traces give away.
///
/// # Errors
/// The destination does not answer; [`ExportErrorKind::Verification`] where nothing is there at all, or a manifest that
/// cannot be read.
///
/// # Cancel safety
/// It only reads.
pub async fn show(url: &str, single_file: bool) -> Result<Shown, ExportError> {
    let (destination, placement) = place(url, single_file).await?;
    let mut shown = facts(&destination, &placement).await.map_err(|error| match error {
        ManifestError::Decode { object, source } => {
            ExportError::new(ExportErrorKind::Verification, object).with_source(source)
        }
        error => error.into(),
    })?;
    for (journal, ended) in Journal::all(&destination).await? {
        if !ended {
            shown.runs.extend(run(journal, &destination, &placement, &shown).await?);
        }
    }
    if shown.manifest.is_none() && shown.runs.is_empty() && !shown.owner.as_ref().is_some_and(|owner| owner.alive) {
        let message = format!("{}: there is no manifest: no export was committed here", shown.manifest_url);
        return Err(ExportError::new(ExportErrorKind::Verification, message));
    }
    Ok(shown)
}

/// The first half of it: what is committed and who writes, without the journals.
pub(super) async fn facts(destination: &Destination, placement: &Placement) -> Result<Shown, ManifestError> {
    let path = placement.owner_path();
    let owner = owner(destination, &path).await.map_err(ManifestError::Look)?;
    let manifest = look(destination, placement).await?.map(|existing| existing.manifest);
    let has_file = match placement {
        Placement::Parts => false,
        Placement::Single { name } => destination.head(name).await.map_err(ManifestError::Look)?.is_some(),
    };
    Ok(Shown {
        destination: placement.url(destination),
        manifest_url: destination.object_url(&placement.manifest_path()),
        manifest,
        has_file,
        owner: owner.map(ShownOwner::from),
        runs: Vec::new(),
    })
}

/// What a planned export would find at its destination. One that does not answer is no error: a plan is about the source.
///
/// # Cancel safety
/// It only reads.
pub async fn before(request: &ExportRequest) -> PlannedDestination {
    let unknown = |error: &ExportError| DestinationState::Unknown { why: error.sentence() };
    let target = match RunTarget::open(request).await {
        Ok(target) => target,
        Err(error) => {
            let url = match &request.commit.target {
                Target::Destination(url) => address_shown(url),
                Target::Stream { .. } => String::new(),
            };
            return PlannedDestination { url, credentials: None, state: unknown(&error) };
        }
    };
    let url = target.url();
    let RunTarget::Destination { destination, placement, .. } = target else {
        return PlannedDestination { url, credentials: None, state: DestinationState::Stream };
    };
    let looked = async {
        let shown = facts(&destination, &placement).await?;
        let found = state(&shown);
        match (&found, request.commit.on_existing) {
            (DestinationState::Free, _) => match no_folder(&destination, &placement).await {
                Err(error) if error.kind == ExportErrorKind::DestinationTaken => {
                    return Ok::<_, ExportError>(DestinationState::IsFolder);
                }
                looked => looked?,
            },
            (DestinationState::Committed { .. }, OnExisting::Replace) => {}
            _ => return Ok(found),
        }
        let objects = unnamed(&destination, (&placement, request.commit.layout), &shown.manifest).await?;
        if objects.is_empty() {
            return Ok(found);
        }
        Err(ManifestError::Strangers { destination: destination.url().to_owned(), objects }.into())
    };
    let state = match tokio::time::timeout(LOOK_LIMIT, looked).await {
        Ok(Ok(state)) => state,
        Ok(Err(error)) if error.kind == ExportErrorKind::DestinationTaken => {
            DestinationState::Refused { why: error.sentence() }
        }
        Ok(Err(error)) => unknown(&error),
        Err(_) => DestinationState::Unknown { why: format!("it did not answer within {} s", LOOK_LIMIT.as_secs()) },
    };
    let credentials = credentials_by(destination.url(), request.commit.aws_credential_command.as_ref());
    PlannedDestination { url, credentials, state }
}

fn state(shown: &Shown) -> DestinationState {
    match (shown.owner.as_ref().filter(|owner| owner.alive), &shown.manifest) {
        (Some(owner), _) => DestinationState::AtWork(owner.clone()),
        (None, Some(manifest)) => {
            DestinationState::Committed { run_id: manifest.run_id.clone(), at: manifest.finished_at }
        }
        (None, None) if shown.has_file => DestinationState::Occupied,
        (None, None) => DestinationState::Free,
    }
}

/// What the journal of a run tells; `None` where it is of another placement, or has just ended.
async fn run(
    journal: Journal,
    destination: &Destination,
    placement: &Placement,
    shown: &Shown,
) -> Result<Option<ShownRun>, ExportError> {
    let dead = match DeadRun::of(journal.clone(), placement).await {
        Ok(Some(dead)) => dead,
        Ok(None) => return Ok(None),
        Err(error) if error.kind == ExportErrorKind::DestinationTaken => {
            let identity = RunIdentity::read(&journal).await?;
            return Ok(Some(described(&journal, UnendedState::Newer, identity.as_ref()).await?));
        }
        Err(error) => return Err(error),
    };
    let is = |run_id: &str| run_id == journal.run_id();
    let state = if shown.owner.as_ref().is_some_and(|owner| owner.alive && is(&owner.run_id)) {
        UnendedState::Alive
    } else if shown.manifest.as_ref().is_some_and(|manifest| is(&manifest.run_id)) {
        UnendedState::Unfinished
    } else {
        UnendedState::Dead
    };
    let mut run = described(&journal, state, dead.identity()).await?;
    if state != UnendedState::Alive {
        let mut left = dead.remains(destination).await?;
        if state == UnendedState::Unfinished {
            // What is visible is named by the manifest, or goes when the commit is finished.
            left.visible.clear();
        }
        run.left = Some(left);
    }
    // One that ended in the meantime took its records with it.
    let has_ended = dead.identity().is_some() && !journal.is_open().await?;
    Ok((!has_ended).then_some(run))
}

async fn described(
    journal: &Journal,
    state: UnendedState,
    identity: Option<&RunIdentity>,
) -> Result<ShownRun, ExportError> {
    // Another version's plan tells nothing.
    let record = RunRecord::read(journal).await.ok().flatten();
    let relation = record.as_ref().map(|record| &record.plan.relation);
    let kept = journal.keepers::<Value>().await?.into_iter().filter_map(|keeper| serde_json::from_value(keeper).ok());
    Ok(ShownRun {
        run_id: journal.run_id().to_owned(),
        state,
        begun_at: identity.and_then(|identity| identity.created_at),
        outhaul_version: identity.and_then(|identity| identity.outhaul_version.clone()),
        relation: relation.and_then(|relation| relation.name.clone().or_else(|| relation.query.clone())),
        partitions: record.as_ref().map(|record| record.plan.partitions.len()),
        partitions_read: journal.partitions_read().await?,
        kept: kept.collect(),
        left: None,
    })
}
