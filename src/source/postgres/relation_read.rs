//! One relation of those that are read, and what several of them share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use super::connect::Sessions;
use super::kept::SourceRecord;
use super::partition_reading::Named;
use super::permits::Permits;
use super::plan::locks::LockShare;
use super::plan::{PgPartition, PgPlan};
use super::snapshot::Custody;
use super::watch::Watch;
use crate::model::{Plan, ReadRequest, RelationKind, SnapshotRecord};
use crate::source::{SourceError, SourceFault};

/// One relation that is read.
#[derive(Debug)]
pub(super) struct RelationRead {
    pub(super) record: SourceRecord,
    pub(super) plan: Arc<PgPlan>,
    pub(super) told: Arc<Plan>,
    /// What is locked where it is read; `None` where that is not known.
    pub(super) behind: Option<BTreeSet<u32>>,
    /// The partitions that were opened here.
    opened: SyncMutex<BTreeSet<u32>>,
}

/// What relations are read over that were planned together.
pub(super) struct Common {
    pub(super) sessions: Arc<Sessions>,
    pub(super) watch: Arc<Watch>,
    pub(super) custody: Custody,
    pub(super) snapshot: SnapshotRecord,
    /// Readers that may read at the same time.
    pub(super) readers: usize,
    pub(super) sql_ascii: bool,
}

impl RelationRead {
    /// A relation that was planned.
    ///
    /// # Errors
    /// The plan cannot be told.
    pub(super) fn new(record: SourceRecord, plan: PgPlan, request: &ReadRequest) -> Result<Self, SourceError> {
        let mut told = plan.told(request)?;
        told.relation.identity = record.server.identity(&request.run_id);
        Ok(Self { record, plan: Arc::new(plan), told: Arc::new(told), behind: None, opened: SyncMutex::default() })
    }

    /// The same, of which is known what is locked where it is read.
    pub(super) fn with_behind(self, behind: Option<BTreeSet<u32>>) -> Self {
        Self { behind, ..self }
    }

    pub(super) fn opened(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn partition(&self, number: u32) -> Result<PgPartition, SourceError> {
        let partition = usize::try_from(number).ok().and_then(|place| self.plan.partitions.get(place));
        let partition = partition.ok_or_else(|| {
            SourceError::new(SourceFault::Protocol, format!("there is no partition {number} in the plan"))
        })?;
        self.opened().insert(number);
        Ok(partition.clone())
    }

    pub(super) fn named(&self) -> Option<Named> {
        let found = self.record.found.as_ref()?;
        let tables = (found.kind == RelationKind::PartitionedTable).then_some(found.tables);
        Some(Named { name: found.sql_name(), oid: found.oid, tables })
    }
}

/// The error of a number that no request has.
pub(super) fn unknown(relation: usize) -> SourceError {
    SourceError::new(SourceFault::Protocol, format!("relation {relation} is not one of the run's"))
}

/// The permits of readers of one relation.
pub(super) fn permits(record: &SourceRecord, readers: usize) -> Arc<Permits> {
    let readers = u64::try_from(readers).unwrap_or(u64::MAX);
    Permits::new(LockShare {
        readers: record.locks.readers.map_or(readers, |most| most.min(readers)),
        relations: record.locks.checked.as_ref().map_or(u64::MAX, |checked| checked.relations),
    })
}
