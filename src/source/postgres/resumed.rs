//! A run that another process began: under its own snapshot, or the rest of it under a new one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::connect::Session;
use super::kept::{self, PgRecord};
use super::let_go::LetGo;
use super::plan::locks::CONTROL_SESSIONS;
use super::plan::{PgPlan, Slice};
use super::prepare::application;
use super::reader::{Moment, PostgresReading};
use super::relation_read::{Common, RelationRead, permits, unknown};
use super::session::{Begin, begin};
use super::source::own_sessions;
use super::watch::Watch;
use super::{decide, keyset};
use crate::base::failpoint;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ReadMode, ReadRequest, SnapshotRecord};
use crate::source::{Begun, SourceError, SourceFault};

/// Goes on under the run's snapshot or, where that is gone and it is allowed, under a new one.
pub(super) async fn resume(
    connect: &ConnectSettings,
    request: &ReadRequest,
    begun: &Begun,
) -> Result<PostgresReading, SourceError> {
    let record = PgRecord::read(&begun.record)?;
    let lost = match PostgresReading::resume(connect, record.clone(), request, begun).await {
        Ok(reading) => return Ok(reading),
        Err(error) => error,
    };
    if lost.fault != SourceFault::SnapshotLost || matches!(request.work.read_mode, ReadMode::Keyset { .. }) {
        return Err(lost);
    }
    if !begun.allow_mixed {
        return Err(lost.with_hint(
            "nobody holds the run's snapshot any more: run the export again; with --keep-snapshot it outlives the \
             run, and --allow-mixed-snapshot reads the rest of a run that is split by key under a new one",
        ));
    }
    Box::pin(anew(connect, request, record, begun)).await
}

/// Goes on with several relations under the snapshot that all of them share, over one set of sessions.
///
/// # Errors
/// [`SourceFault::SnapshotLost`] where nobody holds it any more, or this is another server.
///
/// # Cancel safety
/// Dropping the future closes the sessions.
pub(super) async fn resume_together(
    connect: &ConnectSettings,
    requests: &[ReadRequest],
    begun: &[Begun],
) -> Result<PostgresReading, SourceError> {
    let (Some(first), Some(oldest)) = (requests.first(), begun.first()) else {
        return Err(SourceError::new(SourceFault::Usage, "there is nothing to go on with"));
    };
    if requests.iter().any(|request| !matches!(request.work.read_mode, ReadMode::Copy)) {
        let message = "a run in keyset mode has no snapshot that several relations could share";
        return Err(SourceError::new(SourceFault::Usage, message));
    }
    let (since, application) = (Instant::now(), application(&first.run_id));
    let (common, held) = kept::of_all(begun)?;
    let mut relations = BTreeMap::new();
    for (number, (request, one)) in requests.iter().zip(begun).enumerate() {
        let PgRecord { server: record, plan } = PgRecord::read(&one.record)?;
        relations.insert(number, RelationRead::new(record, plan, request)?);
    }
    let readers = requests.iter().map(|request| request.work.readers.get()).max().unwrap_or(1);
    let readers =
        common.locks.readers.and_then(|most| usize::try_from(most).ok()).map_or(readers, |most| most.min(readers));
    // One more than a single relation has: it looks at the newest catalog while others are read.
    let sessions = kept::sessions(connect, &common, &application, readers + CONTROL_SESSIONS + 1)?;
    let custody = kept::custody(&common, &held, &application).of_several();
    custody.reinforce(&sessions).await?;
    let lock = custody.session(&sessions, "locks").await?;
    for relation in relations.values() {
        relation.record.meaning.check_eyes(&lock).await?;
    }
    custody.second(&sessions).await?;
    let snapshots = oldest.consistency.snapshots.clone();
    let taken = taken_at(&lock, snapshots.first(), since).await?;
    let limits = first.work.source_limits;
    let watch = Watch::new(&sessions, limits, &application, common.server.standby, since, (Some(lock), Some(taken)));
    let Some(snapshot) = snapshots.into_iter().next() else {
        return Err(SourceError::new(SourceFault::SnapshotLost, "the run has no snapshot of its own"));
    };
    let sql_ascii = common.server.types.sql_ascii;
    let common = Common { sessions, watch: Arc::new(watch), custody, snapshot, readers, sql_ascii };
    Ok(PostgresReading::of_several(common, relations, BTreeMap::new()))
}

/// When a snapshot was taken, by this process's clock.
async fn taken_at(
    session: &Session,
    snapshot: Option<&SnapshotRecord>,
    since: Instant,
) -> Result<Instant, SourceError> {
    let age = match snapshot {
        Some(snapshot) if !failpoint::off("snapshot-age") => kept::age(session, snapshot.taken_at).await?,
        _ => Duration::ZERO,
    };
    Ok(Instant::now().checked_sub(age).unwrap_or(since))
}

/// The rest of a run that is split by key, under a new snapshot.
async fn anew(
    connect: &ConnectSettings,
    request: &ReadRequest,
    record: PgRecord,
    begun: &Begun,
) -> Result<PostgresReading, SourceError> {
    if let Some(why) = bound_to_its_snapshot(&record.plan) {
        let message = format!("--allow-mixed-snapshot cannot go on here: {why}");
        return Err(SourceError::new(SourceFault::SnapshotLost, message)
            .with_hint("run the export again; --key or --keep-snapshot makes it resumable"));
    }
    // Whoever holds the snapshot beyond the run imports it.
    let keeping = ReadRequest { keep: true, ..request.clone() };
    let (planning, plan) = decide::begin(own_sessions(connect, &keeping)?, &keeping).await?;
    if columns(&plan) != columns(&record.plan) || plan.key != record.plan.key {
        return Err(changed("the columns or the key of the relation have changed since the run began"));
    }
    if plan.one_statement.is_some() {
        return Err(changed("the rows of the relation can no longer be read by several statements"));
    }
    let reading = Box::pin(PostgresReading::new(planning, plan, &keeping)).await?;
    if !reading.source_record()?.is_of_relation(&record.server) {
        return Err(changed("another relation has come in the place of the one that the run began with"));
    }
    if !reading.source_record()?.means_as(&record.server) {
        return Err(changed(
            "the role or a name in --query, --where or --column does not mean what it did when the run began",
        ));
    }
    reading.source_record()?.meaning.same_settings(&record.server.meaning)?;
    reading.into_rest_of(record.plan, request, &begun.consistency.snapshots)
}

/// Why the rest of a run is no rest of it under another snapshot.
fn bound_to_its_snapshot(plan: &PgPlan) -> Option<&'static str> {
    let by_key = |slice: &Slice| matches!(slice, Slice::Keys(_) | Slice::NullKeys);
    if !plan.partitions.iter().all(|partition| by_key(&partition.slice)) {
        Some("the run is not split by key: between two snapshots rows move from one block to another")
    } else if plan.watermark.is_some() {
        Some("the run is incremental: what is new under another snapshot is not what was new under its own")
    } else if plan.cap.max_rows.is_some() {
        Some("the run is capped: the first rows of two snapshots are not the same")
    } else {
        None
    }
}

/// What must be as it was for two halves of an export to fit.
fn columns(plan: &PgPlan) -> Vec<impl PartialEq> {
    let facts = plan.columns.iter().map(|column| {
        let output = &column.output;
        (output.name.clone(), column.pg_type.clone(), output.carrier.clone(), output.nullable)
    });
    facts.collect()
}

fn changed(what: &str) -> SourceError {
    SourceError::new(SourceFault::SchemaChanged, what).with_hint("run the export again")
}

impl PostgresReading {
    /// Goes on with a run that another process began, under the snapshot that others hold.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where nobody holds it any more, or this is another server;
    /// [`SourceFault::SchemaChanged`] where the relation is not what it was.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    pub(super) async fn resume(
        connect: &ConnectSettings,
        PgRecord { server: record, plan }: PgRecord,
        request: &ReadRequest,
        begun: &Begun,
    ) -> Result<Self, SourceError> {
        let (since, work) = (Instant::now(), &request.work);
        let application = application(&request.run_id);
        let sessions = kept::sessions(connect, &record, &application, work.readers.get() + CONTROL_SESSIONS)?;
        let sql_ascii = record.server.types.sql_ascii;
        let (held, moment) = match work.read_mode {
            ReadMode::Keyset { page_size } => {
                let anchor = sessions.get().await?;
                begin(&anchor, Begin::Latest, &format!("{application}/plan")).await?;
                record.meaning.check_eyes(&anchor).await?;
                let found = record.found.as_ref();
                let pages = keyset::Pages::new(&anchor, found, page_size, &application, sql_ascii).await?;
                anchor.batch("ending planning", "COMMIT").await?;
                ((None, None), Moment::Pages(pages))
            }
            ReadMode::Copy => {
                let custody = kept::custody(&record, &begun.held, &application);
                custody.reinforce(&sessions).await?;
                let lock = custody.session(&sessions, "locks").await?;
                record.meaning.check_eyes(&lock).await?;
                custody.second(&sessions).await?;
                let taken = taken_at(&lock, begun.consistency.snapshots.first(), since).await?;
                ((Some(lock), Some(taken)), Moment::Kept(Box::new(custody)))
            }
        };
        let watch = Watch::new(&sessions, work.source_limits, &application, record.server.standby, since, held);
        let permits = permits(&record, work.readers.get());
        Ok(Self {
            sessions,
            watch: Arc::new(watch),
            moment,
            relations: [(0, RelationRead::new(record, plan, request)?)].into(),
            let_go: LetGo::new(),
            refused: Mutex::default(),
            snapshots: begun.consistency.snapshots.clone(),
            read_mode: work.read_mode,
            mixed: false,
            permits,
            sql_ascii,
            served: None,
            slots: None,
        })
    }

    /// The same as the rest of a run whose first partitions were read by `plan`, and under `snapshots`.
    pub(super) fn into_rest_of(
        mut self,
        plan: PgPlan,
        request: &ReadRequest,
        snapshots: &[SnapshotRecord],
    ) -> Result<Self, SourceError> {
        let record = self.relations.remove(&0).ok_or_else(|| unknown(0))?.record;
        let relations = [(0, RelationRead::new(record, plan, request)?)].into();
        let snapshots = snapshots.iter().cloned().chain(self.snapshots).collect();
        Ok(Self { relations, snapshots, mixed: true, ..self })
    }
}
