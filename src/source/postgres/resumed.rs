//! A run that another process began: under its own snapshot, or the rest of it under a new one.

use super::decide;
use super::kept::PgRecord;
use super::plan::{PgPlan, Slice};
use super::reader::PostgresReading;
use super::source::own_sessions;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ReadMode, ReadRequest};
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
    anew(connect, request, record, begun).await
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
    let reading = PostgresReading::new(planning, plan, &keeping).await?;
    if !reading.source_record()?.is_of_relation(&record.server) {
        return Err(changed("another relation has come in the place of the one that the run began with"));
    }
    if !reading.source_record()?.means_as(&record.server) {
        return Err(changed(
            "the role or a name in --query, --where or --column does not mean what it did when the run began",
        ));
    }
    reading.into_rest_of(record.plan, request, &begun.consistency.snapshots)
}

/// Why the rest of a run is no rest of it under another snapshot.
fn bound_to_its_snapshot(plan: &PgPlan) -> Option<&'static str> {
    let by_key = |slice: &Slice| matches!(slice, Slice::Keys(_) | Slice::NullKeys);
    if !plan.partitions.iter().all(|partition| by_key(&partition.slice)) {
        Some("the run is not split by key: between two snapshots rows move from one block to another")
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
