//! One partition on its way: the statements that read it, one after the other, over one session.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;

use super::catalog;
use super::connect::Session;
use super::copy::Copy;
use super::decode::RowKey;
use super::leaves::{compare, groups, lock, lock_and_compare, release, same_leaves, unlock};
use super::newcomers;
use super::permits::Permit;
use super::session::{identifier, send_text_as_stored};
use super::snapshot::Locks;
use super::sql;
use super::untranslatable;
use super::watch::Watch;
use crate::source::postgres::plan::{LeafFacts, PgColumn, PgPartition, PgPlan, Slice};
use crate::source::{Batch, BatchStream, SourceError, SourceFault};

/// What one statement reads.
#[derive(Debug, Clone)]
struct StatementRead {
    partition: PgPartition,
    /// The leaves that it reads directly.
    leaves: Range<usize>,
}

/// What a partition's statement names where that is no leaf, and what that was when it was planned.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) oid: u32,
    pub(super) tables: Option<usize>,
}

/// What the readings of a run have in common.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) watch: Arc<Watch>,
    pub(super) named: Option<Named>,
    /// What is locked for as long as the partition is read, where the session does not hold it anyway.
    pub(super) own: Option<Locks>,
    /// Relations that may be locked at a time, where leaves are locked as they are read.
    pub(super) checked: Option<u64>,
    /// Whether the database's encoding is `SQL_ASCII`.
    pub(super) sql_ascii: bool,
    /// Where the session goes in the end; else back to the pool, still in its transaction.
    pub(super) home: Option<Arc<Mutex<Option<Session>>>>,
}

/// A partition that is being read.
#[derive(Debug)]
pub(super) struct PartitionReading {
    manner: Manner,
    plan: Arc<PgPlan>,
    columns: Arc<[PgColumn]>,
    what: String,
    steps: VecDeque<StatementRead>,
    /// The step under way.
    now: Option<StatementRead>,
    session: Option<Session>,
    copy: Option<Copy>,
    /// What the session has locked, and what nobody knew of.
    strangers: Vec<u32>,
    /// Held for as long as it is read.
    permit: Permit,
}

impl PartitionReading {
    /// Begins to read a partition over `session`, whose transaction has snapshot and locks.
    ///
    /// # Errors
    /// The server refuses, or the session is lost.
    pub(super) async fn start(
        manner: Manner,
        session: Session,
        permit: Permit,
        plan: Arc<PgPlan>,
        partition: &PgPartition,
        what: String,
    ) -> Result<Self, SourceError> {
        let columns: Arc<[PgColumn]> = plan.columns.clone().into();
        let steps = steps(&plan, partition, manner.checked);
        let session = Some(session);
        let strangers = Vec::new();
        let mut reading =
            Self { manner, plan, columns, what, steps, now: None, session, copy: None, strangers, permit };
        reading.lock_own().await?;
        reading.begin_next().await?;
        Ok(reading)
    }

    /// The batches, in order.
    pub(super) fn batches(self) -> BatchStream {
        stream::try_unfold(self, |mut reading| async move { Ok(reading.next().await?.map(|batch| (batch, reading))) })
            .boxed()
    }

    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            let Some(copy) = &mut self.copy else { return Ok(None) };
            match copy.next().await {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => {}
                Err(error) => {
                    let error = self.explained(error).await;
                    return Err(self.given_up(error));
                }
            }
            self.session = self.copy.take().and_then(Copy::into_session);
            // Whether it was the same is asked before the lock is given back, and both are on their way at once.
            let ended = match (&self.session, self.manner.own.is_some() && self.steps.is_empty()) {
                (Some(session), true) => {
                    let (ended, unlocked) = tokio::join!(self.end_step(), unlock(session));
                    ended.and_then(|strangers| unlocked.map(|()| strangers))
                }
                _ => self.end_step().await,
            };
            let ended = match ended {
                Ok(strangers) => {
                    self.strangers.extend(strangers);
                    self.meet_strangers().await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                return Err(self.given_up(error));
            }
            self.begin_next().await?;
        }
    }

    /// Sends the next statement, or gives the session back where there is none.
    async fn begin_next(&mut self) -> Result<(), SourceError> {
        self.now = self.steps.pop_front();
        if self.now.is_none() {
            let session = self.session.take();
            if let (Some(session), Some(home)) = (session, &self.manner.home) {
                // It is the snapshot.
                *home.lock().await = Some(session);
            }
            return Ok(());
        }
        if let Err(error) = self.begin_step().await {
            let name = self.manner.named.as_ref().map(|named| named.name.as_str());
            let error = self.manner.watch.explain(error, name).await;
            return Err(self.given_up(error));
        }
        let (Some(step), Some(session)) = (&self.now, self.session.take()) else { return Err(gone(&self.what)) };
        let key = RowKey::new(&self.plan.columns, &self.plan.row_key);
        let extra: Vec<String> = key.extra().iter().map(|name| identifier(name)).collect();
        let statement = sql::copy(&sql::select(&self.plan, &step.partition, &extra, None));
        let watch = Arc::clone(&self.manner.watch);
        let cap = step.partition.row_limit.filter(|_| self.plan.cap.by_reading);
        match Copy::start(session, watch, &statement, &self.columns, key, cap, self.what.clone()).await {
            Ok(copy) => self.copy = Some(copy.with_batches_at_once()),
            Err(error) => return Err(self.given_up(error)),
        }
        Ok(())
    }

    /// Locks the relation, where the session does not hold it anyway.
    async fn lock_own(&mut self) -> Result<(), SourceError> {
        let (Some(session), Some(own)) = (&self.session, &self.manner.own) else { return Ok(()) };
        let Err(error) = lock(session, own).await else { return Ok(()) };
        let name = self.manner.named.as_ref().map(|named| named.name.as_str());
        let error = self.manner.watch.explain(error, name).await;
        Err(self.given_up(error))
    }

    /// What the statement of a step needs to stand in its transaction.
    async fn begin_step(&self) -> Result<(), SourceError> {
        let (Some(step), Some(session)) = (&self.now, &self.session) else { return Err(gone(&self.what)) };
        if self.manner.checked.is_some() {
            lock_and_compare(session, self.leaves(step)).await?;
        } else if self.manner.own.is_some() {
            compare(session, self.leaves(step)).await?;
        }
        if self.manner.sql_ascii {
            send_text_as_stored(session).await?;
        }
        match sql::set_bounds(&step.partition.slice) {
            Some(bounds) => session.batch("setting the bounds of a partition", &bounds).await,
            None => Ok(()),
        }
    }

    /// Makes sure that what was read is what was planned. Gives what else the session has locked.
    async fn end_step(&self) -> Result<Vec<u32>, SourceError> {
        let (Some(step), Some(session)) = (&self.now, &self.session) else { return Err(gone(&self.what)) };
        let leaves = self.leaves(step);
        let comparing = async {
            match &self.manner.named {
                _ if !leaves.is_empty() => same_leaves(session, leaves).await,
                Some(named) => catalog::same_relation(session, &named.name, named.oid, named.tables).await,
                None => Ok(()),
            }
        };
        let looking = newcomers::strangers(session, &self.plan.relation.reading.parents);
        let (same, strangers) = tokio::join!(comparing, looking);
        same?;
        let strangers = strangers?;
        if !leaves.is_empty() && self.manner.checked.is_some() {
            release(session).await?;
        }
        Ok(strangers)
    }

    /// Once all is read, makes sure that nothing has come to inherit from it, where the session has locked something that
    /// nobody knew of.
    async fn meet_strangers(&self) -> Result<(), SourceError> {
        let Some(step) = self.now.as_ref().filter(|_| self.steps.is_empty() && !self.strangers.is_empty()) else {
            return Ok(());
        };
        let facts = &self.plan.relation.reading;
        let apart = facts.alone || !self.leaves(step).is_empty();
        // Of a table that is read by `ONLY` nobody's rows come beside its own, though its new children may be locked.
        let own = self.manner.named.as_ref().filter(|_| apart).map(|named| named.oid);
        let parents: Vec<u32> = facts.parents.iter().copied().filter(|oid| Some(*oid) != own).collect();
        if parents.is_empty() {
            return Ok(());
        }
        self.manner.watch.meet(&parents, &self.strangers).await
    }

    /// The error of a statement, with the column and the row where only a search finds them.
    async fn explained(&mut self, error: SourceError) -> SourceError {
        // Its session and its connection are spent.
        let rows = self.copy.take().and_then(|copy| copy.refused_after());
        let (Some(rows), Some(step)) = (rows, &self.now) else { return error };
        let (plan, partition, what) = (self.plan.as_ref(), &step.partition, self.what.as_str());
        let reading = untranslatable::FailedRead { plan, partition, page: false, after: None, rows, what };
        untranslatable::explain(error, &self.manner.watch, reading).await
    }

    fn leaves(&self, step: &StatementRead) -> &[LeafFacts] {
        self.plan.relation.leaves.get(step.leaves.clone()).unwrap_or_default()
    }

    /// The session is in no state that anybody else knows.
    fn given_up(&mut self, error: SourceError) -> SourceError {
        self.permit.heed(&error);
        if let Some(session) = self.session.take() {
            session.discard();
        }
        error
    }
}

impl Drop for PartitionReading {
    /// A session between two statements has state of its own.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.discard();
        }
    }
}

fn gone(what: &str) -> SourceError {
    SourceError::new(SourceFault::Unavailable, format!("reading {what}: the session is gone"))
}

/// The statements that read a partition.
fn steps(plan: &PgPlan, partition: &PgPartition, most_relations: Option<u64>) -> VecDeque<StatementRead> {
    let leaves = &plan.relation.leaves;
    match &partition.slice {
        Slice::Leaves { from, to } => {
            let step = |leaves: Range<usize>| StatementRead {
                partition: PgPartition {
                    slice: Slice::Leaves { from: leaves.start, to: leaves.end },
                    ..partition.clone()
                },
                leaves,
            };
            groups(leaves, *from..*to, plan.columns.len(), most_relations).into_iter().map(step).collect()
        }
        Slice::Heap { leaf, .. } => [StatementRead { partition: partition.clone(), leaves: *leaf..leaf + 1 }].into(),
        Slice::Whole | Slice::Keys(_) | Slice::NullKeys => {
            [StatementRead { partition: partition.clone(), leaves: 0..0 }].into()
        }
    }
}
