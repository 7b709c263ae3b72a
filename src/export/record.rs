//! What a run leaves of itself at the destination before its first read: all that another process of the same version needs
//! to go on with it. What other versions need to remove it stands in `run.json` ([`identity`](super::identity)).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ExportError;
use super::identity::RunIdentity;
use super::planned::{Planned, format_of};
use super::request::ExportRequest;
use crate::model::{
    CommitOptions, Consistency, ExportErrorKind, FormatOptions, Plan, PolicyOptions, ProtectOptions, SchemaChange,
    ShapeOptions, SnapshotId, SourceFacts, Target, WorkOptions,
};
use crate::source::{Begun, Source};
use crate::store::{AttemptSeed, Journal, StoreError, unreadable};

/// The form of [`RunRecord`]; another one cannot be resumed by this version. It holds the plan as it is in memory, so each
/// release that changes a type of the plan raises the number. 0.1.0 wrote 1.
const VERSION: u32 = 4;

/// `plan.json` of a journal. No connection settings are in it, and no secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) version: u32,
    pub(crate) run_id: String,
    pub(crate) outhaul_version: String,
    pub(crate) created_at: DateTime<Utc>,
    /// From which the first process has its attempt ids.
    pub(crate) seed: AttemptSeed,
    pub(crate) shape: ShapeOptions,
    pub(crate) format: FormatOptions,
    pub(crate) policies: PolicyOptions,
    pub(crate) work: WorkOptions,
    pub(crate) commit: CommitOptions,
    pub(crate) plan: Plan,
    pub(crate) facts: SourceFacts,
    pub(crate) consistency: Consistency,
    /// What the source noted for itself.
    pub(crate) source: Value,
    /// The ids under which the snapshot could be imported when the run began.
    pub(crate) held: Vec<String>,
    /// How the columns differ from those of the export that it goes on from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<SchemaChange>,
    /// The key under which values are hashed, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protect_key_id: Option<String>,
}

/// Read first, so that another version's members are not complained of.
#[derive(Deserialize)]
struct RecordVersion {
    version: u32,
}

impl RunRecord {
    /// The ids by which the run's snapshot can be imported, as far as the journal knows: those that the run began with, and
    /// those of all who came to hold it since. Some may be gone.
    async fn snapshot_ids(&self, journal: &Journal) -> Result<Vec<String>, StoreError> {
        let since = journal.keepers::<SnapshotId>().await?;
        Ok(self.held.iter().cloned().chain(since.into_iter().map(|kept| kept.snapshot)).collect())
    }

    pub(crate) fn new(
        request: &ExportRequest,
        (created_at, seed): (DateTime<Utc>, AttemptSeed),
        planned: &Planned,
        source: Value,
        held: Vec<String>,
    ) -> Self {
        let ExportRequest { shape, format, policies, work, commit, .. } = request.clone();
        let Planned { plan, facts, consistency, .. } = planned;
        Self {
            version: VERSION,
            run_id: commit.run_id.clone(),
            outhaul_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_at,
            seed,
            shape,
            format,
            policies,
            work,
            commit,
            plan: Plan::clone(plan),
            facts: facts.clone(),
            consistency: consistency.clone(),
            source,
            held,
            changes: Vec::new(),
            protect_key_id: planned.protect_key_id.clone(),
        }
    }

    /// Notes that the source has changed its plan: who goes on with the run goes by the new one.
    pub(crate) async fn change_plan(journal: &Journal, planned: &Planned, source: Value) -> Result<(), ExportError> {
        let record = Self::read(journal).await?;
        let record = record.ok_or_else(|| ExportError::internal("a run has no record whose plan could be changed"))?;
        let Planned { plan, facts, consistency, .. } = planned;
        let (plan, facts, consistency) = (Plan::clone(plan), facts.clone(), consistency.clone());
        Self { plan, facts, consistency, source, ..record }.write(journal).await
    }

    /// What was planned.
    pub(crate) fn planned(&self) -> Result<Planned, ExportError> {
        let Self { plan, format, facts, consistency, protect_key_id, .. } = self.clone();
        let format = format_of(&plan, &format)?;
        Ok(Planned { format, plan: Arc::new(plan), facts, consistency, protect_key_id })
    }

    /// What the source is told of the run.
    pub(crate) async fn begun(&self, journal: &Journal, allow_mixed: bool) -> Result<Begun, StoreError> {
        Ok(Begun {
            record: self.source.clone(),
            consistency: self.consistency.clone(),
            held: self.snapshot_ids(journal).await?,
            allow_mixed,
        })
    }

    /// Writes it down, before the first read.
    pub(crate) async fn write(&self, journal: &Journal) -> Result<(), ExportError> {
        let json = serde_json::to_vec(self)
            .map_err(|error| ExportError::internal("writing the plan down").with_source(error))?;
        Ok(journal.put_plan(json.into()).await?)
    }

    /// The record in a journal; `None` where the run did not come so far.
    ///
    /// # Errors
    /// The destination fails, or another version of outhaul wrote the record (exit 2).
    pub(crate) async fn read(journal: &Journal) -> Result<Option<Self>, ExportError> {
        let Some(bytes) = journal.plan().await? else { return Ok(None) };
        let version = serde_json::from_slice::<RecordVersion>(&bytes).ok().map(|header| header.version);
        let why = match (version, serde_json::from_slice::<Self>(&bytes)) {
            (Some(VERSION), Ok(record)) => return Ok(Some(record)),
            (None | Some(VERSION), Err(error)) => format!("of plan.json, {}", unreadable(&error)),
            (None, Ok(_)) => "its plan has no version".to_owned(),
            (Some(other), _) => format!("its plan is of version {other}, where version {VERSION} is wanted"),
        };
        let identity = RunIdentity::read(journal).await?;
        let writer = identity.map_or("another version of outhaul".to_owned(), |identity| identity.writer());
        let message = format!(
            "run {} at {} was begun by {writer}, and this outhaul {} cannot go on with it: {why}",
            journal.run_id(),
            journal.destination_url(),
            env!("CARGO_PKG_VERSION"),
        );
        Err(ExportError::new(ExportErrorKind::Usage, message).with_hint(
            "resume it with the version that began it; or export again, which removes what the run left, as `outhaul clean` \
             does",
        ))
    }

    /// Whether it is of a run that was asked for the same as `request`, so that what has a receipt is what would be read.
    pub(crate) fn asks_for(&self, request: &ExportRequest) -> bool {
        let ExportRequest { shape, format, policies, work, commit, .. } = request;
        // How much at a time and for how long changes no row.
        let of_record = WorkOptions { readers: work.readers, source_limits: work.source_limits, ..self.work.clone() };
        let as_asked = CommitOptions {
            target: commit.target.clone(),
            run_id_given: commit.run_id_given,
            keep_snapshot: commit.keep_snapshot,
            on_signal: commit.on_signal,
            protect: self.commit.protect.as_ref().map(ProtectOptions::of_one_export),
            ..self.commit.clone()
        };
        let protect = commit.protect.as_ref().map(ProtectOptions::of_one_export);
        let commit = CommitOptions { protect, ..commit.clone() };
        let ours = serde_json::to_value((&self.shape, &self.format, &self.policies, &of_record, &as_asked)).ok();
        ours.is_some() && ours == serde_json::to_value((shape, format, policies, work, commit)).ok()
    }

    /// The request, to be carried out at `source` and `target`.
    pub(crate) fn request(&self, source: Arc<dyn Source>, target: Target) -> ExportRequest {
        ExportRequest {
            source,
            shape: self.shape.clone(),
            format: self.format.clone(),
            policies: self.policies.clone(),
            incremental: None,
            keeper: None,
            external: None,
            work: self.work.clone(),
            commit: CommitOptions { target, ..self.commit.clone() },
        }
    }
}
