//! Receipts become a [`Manifest`]: pure, and the last place where a wrong count can be stopped.

use std::collections::HashSet;

use chrono::{DateTime, SubsecRound as _, Utc};

use super::error::ManifestError;
use super::model::{
    FormatRecord, Manifest, ManifestSource, PartEntry, RowCapRecord, SchemaColumn, SourceKey, SourceName, Totals,
};
use super::types::{arrow_type, parquet_type, pg_type};
use super::watermark::watermark;
use crate::base::text::relation::apart;
use crate::model::{
    AmountRead, AskedColumns, CapPlan, ColumnPlan, ColumnSummary, Consistency, FolderOptions, Format, FormatOptions,
    KeyColumn, ManifestStats, OutputRules, PartRange, PartReceipt, Partition, PartitionReceipt, Plan, PlannedContent,
    Protection, RowOrder, RowsAvailable, RunStatus, SchemaChange, SourceFacts, SourceKind,
};

/// What a manifest says that is in no receipt.
#[derive(Debug, Clone)]
pub(crate) struct RunFacts<'a> {
    pub(crate) run_id: String,
    /// Random, new for each commit.
    pub(crate) nonce: String,
    /// This program's version.
    pub(crate) outhaul_version: String,
    /// When the run began.
    pub(crate) created_at: DateTime<Utc>,
    /// When the last receipt was in.
    pub(crate) finished_at: DateTime<Utc>,
    /// The server.
    pub(crate) source: SourceFacts,
    /// What the reads have in common.
    pub(crate) consistency: Consistency,
    /// The plan that was run.
    pub(crate) plan: &'a Plan,
    /// How the parts were written.
    pub(crate) format: &'a FormatOptions,
    /// Which values the manifest may show.
    pub(crate) stats: ManifestStats,
    /// What of the relation was asked for.
    pub(crate) selection: AskedColumns,
    /// How the columns differ from those of the export that an incremental one goes on from.
    pub(crate) changes: Vec<SchemaChange>,
    /// What becomes of the plan's columns in the files.
    pub(crate) rules: OutputRules<'a>,
    /// The id of the key under which values are hashed, where any are.
    pub(crate) protection_key: Option<String>,
}

/// Builds the manifest of a run whose every partition has its receipt.
///
/// `object_url` gives the absolute address of a path relative to the destination. Receipts may come in any order; parts
/// are listed in output order. Times are cut to microseconds, as the file holds them.
///
/// # Errors
/// Whatever contradicts the plan or adds up wrongly: receipts that are not one for each planned partition, rows read
/// that are not in a part (invariant I3), a name given twice, a cap that was not kept (I7), no part at all.
pub(crate) fn build(
    facts: RunFacts<'_>,
    receipts: &[PartitionReceipt],
    object_url: impl Fn(&str) -> String,
) -> Result<Manifest, ManifestError> {
    let RunFacts { plan, format, stats, rules, .. } = facts;
    let ordered = in_plan_order(&plan.partitions, receipts)?;
    let written = written(plan, rules);
    let mut parts = Vec::new();
    for (partition, receipt) in ordered {
        check_counts(receipt, plan.content)?;
        let range = part_range(partition, plan, stats);
        for part in &receipt.parts {
            check_folders(part, rules.folders)?;
            let columns = shown_columns(&part.columns, &written, stats);
            parts.push(part_entry(part, receipt, range.clone(), columns, &object_url));
        }
    }
    check_names(&parts)?;
    let totals = totals(&parts)?;
    let beyond = receipts.iter().any(|receipt| receipt.beyond_cap);
    let row_cap = match totals.rows {
        Some(rows) => row_cap(plan, rows, beyond, stats)?,
        None => uncounted(&plan.cap)?,
    };

    let kind = facts.source.kind;
    let told = (facts.selection, facts.changes);
    let incremental = plan.watermark.as_ref();
    let watermark = incremental.and_then(|it| watermark(it, (&plan.columns, rules), receipts, row_cap.truncated, told));

    Ok(Manifest {
        run_id: facts.run_id,
        nonce: facts.nonce,
        outhaul_version: facts.outhaul_version,
        created_at: facts.created_at.trunc_subsecs(6),
        finished_at: facts.finished_at.trunc_subsecs(6),
        status: if row_cap.truncated { RunStatus::Truncated } else { RunStatus::Complete },
        source: ManifestSource {
            kind: kind.clone(),
            server_version: facts.source.server_version,
            name: source_name(plan),
            predicate: plan.relation.predicate.clone(),
            key: source_key(&plan.key),
            standby: facts.source.standby,
            row_security: plan.relation.row_security,
            identity: plan.relation.identity.clone(),
        },
        consistency: facts.consistency,
        row_cap,
        schema: schema(plan, rules, format.format, &kind, receipts)?,
        partition_by: partition_columns(plan, rules, format.format, &kind),
        dropped: dropped_columns(plan, rules),
        protection_key: facts.protection_key,
        format: FormatRecord::from(format),
        totals,
        parts,
        watermark,
    })
}

/// What the manifest of this plan calls its relation.
pub(crate) fn source_name(plan: &Plan) -> SourceName {
    match (&plan.relation.name, &plan.relation.query) {
        (Some(name), _) => SourceName::Relation(name.clone()),
        (None, query) => SourceName::Query(query.clone().unwrap_or_default()),
    }
}

/// Whether the relation of this plan is the one that a manifest names. Earlier versions wrote no quotes around names.
pub(crate) fn is_source(name: &SourceName, plan: &Plan) -> bool {
    match (name, source_name(plan)) {
        (SourceName::Relation(then), SourceName::Relation(now)) => {
            let unquoted = || match apart(&now) {
                (Some(schema), relation) if now.contains('"') => *then == format!("{schema}.{relation}"),
                _ => false,
            };
            *then == now || unquoted()
        }
        (then, now) => *then == now,
    }
}

/// What the manifest of this plan says of its key.
pub(super) fn source_key(key: &[KeyColumn]) -> Vec<SourceKey> {
    key.iter().map(|column| SourceKey { name: column.name.clone(), direction: column.direction }).collect()
}

/// The columns, with what policies changed in all parts.
fn schema(
    plan: &Plan,
    rules: OutputRules<'_>,
    format: Format,
    kind: &SourceKind,
    receipts: &[PartitionReceipt],
) -> Result<Vec<SchemaColumn>, ManifestError> {
    let parts = || receipts.iter().flat_map(|receipt| &receipt.parts);
    let counted = |(place, column): (usize, SchemaColumn)| {
        let changed = parts().filter_map(|part| part.columns.get(place)).map(|column| column.changed);
        let policy_count = Some(sum(changed, "values changed by a policy")?);
        Ok(SchemaColumn { policy_count, ..column })
    };
    output_schema(plan, rules, format, kind).into_iter().enumerate().map(counted).collect()
}

/// What the manifest of this plan says of the columns of the files, but for what a run counts.
pub(crate) fn output_schema(
    plan: &Plan,
    rules: OutputRules<'_>,
    format: Format,
    kind: &SourceKind,
) -> Vec<SchemaColumn> {
    let described = |column: ColumnPlan| {
        let protection = rules.protection(&column);
        SchemaColumn { protection, ..schema_column(&column, format, kind) }
    };
    written(plan, rules).into_iter().map(described).collect()
}

/// The columns of the files.
fn written(plan: &Plan, rules: OutputRules<'_>) -> Vec<ColumnPlan> {
    plan.columns.iter().filter_map(|column| rules.written(column)).collect()
}

/// What the manifest says of the columns that protection keeps out of the files.
pub(crate) fn dropped_columns(plan: &Plan, rules: OutputRules<'_>) -> Vec<String> {
    let is_dropped =
        |column: &&ColumnPlan| rules.protect.and_then(|protect| protect.of(column)) == Some(Protection::Drop);
    plan.columns.iter().filter(is_dropped).map(|column| column.name.clone()).collect()
}

/// What the manifest says of the columns that parts have folders for.
pub(crate) fn partition_columns(
    plan: &Plan,
    rules: OutputRules<'_>,
    format: Format,
    kind: &SourceKind,
) -> Vec<SchemaColumn> {
    let names = rules.folders.into_iter().flat_map(|folders| &folders.columns);
    let planned = names.filter_map(|name| plan.columns.iter().find(|column| column.name == *name));
    planned.map(|column| schema_column(column, format, kind)).collect()
}

/// A part with rows has one value for each folder that it was to be in.
fn check_folders(part: &PartReceipt, folders: Option<&FolderOptions>) -> Result<(), ManifestError> {
    let wanted = folders.into_iter().flat_map(|folders| &folders.columns);
    let is_empty = part.folders.is_empty() && part.rows == Some(0);
    if is_empty || part.folders.iter().map(|folder| &folder.column).eq(wanted) {
        return Ok(());
    }
    Err(ManifestError::Folders { path: part.object.path.clone() })
}

/// What the manifest says of a column, but for what a run counts.
pub(crate) fn schema_column(column: &ColumnPlan, format: Format, kind: &SourceKind) -> SchemaColumn {
    let of_postgres = *kind == SourceKind::Postgresql;
    SchemaColumn {
        name: column.name.clone(),
        source_column: column.origin.column().map(str::to_owned),
        pg_type: if of_postgres { column.type_name.clone() } else { pg_type(&column.carrier) },
        source_type: (!of_postgres).then(|| column.type_name.clone()),
        arrow_type: arrow_type(&column.carrier),
        parquet_type: parquet_type(&column.carrier, format),
        nullable: column.nullable,
        policy: column.policy.clone(),
        policy_count: None,
        note: column.note.clone(),
        protection: None,
    }
}

/// Pairs each planned partition with its one receipt.
fn in_plan_order<'a>(
    partitions: &'a [Partition],
    receipts: &'a [PartitionReceipt],
) -> Result<Vec<(&'a Partition, &'a PartitionReceipt)>, ManifestError> {
    let planned: HashSet<u32> = partitions.iter().map(|partition| partition.number).collect();
    if let Some(stray) = receipts.iter().find(|receipt| !planned.contains(&receipt.partition)) {
        let found = receipts.iter().filter(|receipt| receipt.partition == stray.partition).count();
        return Err(ManifestError::Receipts {
            partition: stray.partition,
            found: count(found, "receipts")?,
            expected: 0,
        });
    }
    let mut by_number: Vec<&PartitionReceipt> = receipts.iter().collect();
    by_number.sort_unstable_by_key(|receipt| receipt.partition);
    let mut pairs = Vec::with_capacity(partitions.len());
    let mut rest = by_number.as_slice();
    let mut least = 0_u64;
    for partition in partitions {
        let number = partition.number;
        let found = rest.iter().take_while(|receipt| receipt.partition == number).count();
        // Numbers may be missing, of partitions that were planned anew; none comes twice.
        if found != 1 || u64::from(number) < least {
            return Err(ManifestError::Receipts { partition: number, found: count(found, "receipts")?, expected: 1 });
        }
        let Some((receipt, later)) = rest.split_first() else { break };
        pairs.push((partition, *receipt));
        (rest, least) = (later, u64::from(number) + 1);
    }
    Ok(pairs)
}

/// Invariant I3 for one partition, and its parts' numbers.
fn check_counts(receipt: &PartitionReceipt, content: PlannedContent) -> Result<(), ManifestError> {
    let PartitionReceipt { partition, read, ref parts, .. } = *receipt;
    let written = match (content, read) {
        (PlannedContent::Rows, AmountRead::Rows(_)) => {
            let rows = parts.iter().map(|part| part.rows).collect::<Option<Vec<_>>>();
            sum(rows.ok_or(ManifestError::Content { partition })?.into_iter(), "rows of a partition")?
        }
        (PlannedContent::Bytes, AmountRead::Bytes(_)) if parts.iter().all(|part| part.rows.is_none()) => {
            sum(parts.iter().map(|part| part.object.bytes), "bytes of a partition")?
        }
        _ => return Err(ManifestError::Content { partition }),
    };
    match read {
        AmountRead::Rows(read) | AmountRead::Bytes(read) if read == written => {}
        AmountRead::Rows(read) => return Err(ManifestError::RowCount { partition, read, written }),
        AmountRead::Bytes(read) => return Err(ManifestError::ByteCount { partition, read, written }),
    }
    match (0_u32..).zip(&receipt.parts).find(|(roll, part)| part.roll != *roll) {
        Some((roll, _)) => Err(ManifestError::Rolls { partition: receipt.partition, roll }),
        None => Ok(()),
    }
}

fn check_names(parts: &[PartEntry]) -> Result<(), ManifestError> {
    if parts.is_empty() {
        return Err(ManifestError::NoParts);
    }
    let mut seen = HashSet::with_capacity(parts.len());
    match parts.iter().find(|part| !seen.insert(part.path.as_str())) {
        Some(part) => Err(ManifestError::DuplicatePath { path: part.path.clone() }),
        None => Ok(()),
    }
}

fn part_entry(
    part: &PartReceipt,
    receipt: &PartitionReceipt,
    range: PartRange,
    columns: Vec<ColumnSummary>,
    object_url: impl Fn(&str) -> String,
) -> PartEntry {
    PartEntry {
        path: part.object.path.clone(),
        url: object_url(&part.object.path),
        rows: part.rows,
        bytes: part.object.bytes,
        crc64nvme: part.object.crc64nvme,
        sha256: part.object.sha256.clone(),
        partition: receipt.partition,
        roll: part.roll,
        attempt: receipt.attempt,
        range,
        partition_values: part.folders.clone(),
        started_at: part.started_at.trunc_subsecs(6),
        finished_at: part.finished_at.trunc_subsecs(6),
        header_rows: part.header_rows,
        header_bytes: part.header_bytes,
        columns,
    }
}

pub(crate) fn totals(parts: &[PartEntry]) -> Result<Totals, ManifestError> {
    Ok(Totals {
        parts: count(parts.len(), "parts")?,
        rows: parts
            .iter()
            .map(|part| part.rows)
            .collect::<Option<Vec<_>>>()
            .map(|rows| sum(rows.into_iter(), "rows"))
            .transpose()?,
        bytes: sum(parts.iter().map(|part| part.bytes), "bytes")?,
    })
}

/// Invariant I7: under a cap that cuts there are exactly so many rows, under any other no more. `beyond` is whether the
/// statement had a row more, where the plan left that to the reading.
fn row_cap(plan: &Plan, rows: u64, beyond: bool, stats: ManifestStats) -> Result<RowCapRecord, ManifestError> {
    let CapPlan { tier, max_rows, truncated, order, boundary, available, by_reading } = &plan.cap;
    let (truncated, available) = match max_rows {
        Some(cap) if *by_reading => (beyond, RowsAvailable::AtLeast(cap.get().saturating_add(1))),
        _ => (*truncated, *available),
    };
    match (max_rows, truncated) {
        (Some(cap), true) if rows != cap.get() => {
            return Err(ManifestError::Cap { rows, cap: cap.get(), planned: "reached" });
        }
        (Some(cap), false) if rows > cap.get() => {
            return Err(ManifestError::Cap { rows, cap: cap.get(), planned: "not exceeded" });
        }
        (None, true) => return Err(ManifestError::Cap { rows, cap: u64::MAX, planned: "reached" }),
        _ => {}
    }
    Ok(RowCapRecord {
        tier: tier.clone(),
        max_rows: *max_rows,
        truncated,
        available: if truncated { available } else { RowsAvailable::Exact(rows) },
        order: *order,
        boundary: boundary.clone().filter(|_| key_is_shown(&plan.key, stats)),
    })
}

/// The cap of bytes in which nobody counts rows: there is none.
fn uncounted(cap: &CapPlan) -> Result<RowCapRecord, ManifestError> {
    if let Some(cap) = cap.max_rows {
        return Err(ManifestError::Cap { rows: 0, cap: cap.get(), planned: "counted" });
    }
    let (available, order) = (RowsAvailable::Unknown, RowOrder::Unspecified);
    Ok(RowCapRecord { tier: None, max_rows: None, truncated: false, available, order, boundary: None })
}

/// The rows of a partition, without the values that may not be shown.
fn part_range(partition: &Partition, plan: &Plan, stats: ManifestStats) -> PartRange {
    match &partition.range {
        PartRange::Keys(_) if !key_is_shown(&plan.key, stats) => PartRange::KeysWithheld,
        range => range.clone(),
    }
}

/// One text column in the key withholds the whole value: half a key identifies nothing, and a gap reads like a NULL.
fn key_is_shown(key: &[KeyColumn], stats: ManifestStats) -> bool {
    match stats {
        ManifestStats::All => true,
        ManifestStats::None => false,
        ManifestStats::Safe => key.iter().all(|column| column.may_show),
    }
}

fn shown_columns(summaries: &[ColumnSummary], columns: &[ColumnPlan], stats: ManifestStats) -> Vec<ColumnSummary> {
    if stats == ManifestStats::None {
        return Vec::new();
    }
    let shown = |name: &str| {
        stats == ManifestStats::All
            || columns.iter().find(|column| column.name == name).is_some_and(|column| column.may_show)
    };
    let mut summaries = summaries.to_vec();
    for summary in &mut summaries {
        if !shown(&summary.name) {
            summary.min = None;
            summary.max = None;
        }
    }
    summaries
}

fn sum(values: impl Iterator<Item = u64>, what: &'static str) -> Result<u64, ManifestError> {
    values.into_iter().try_fold(0_u64, u64::checked_add).ok_or(ManifestError::Overflow { what })
}

fn count(length: usize, what: &'static str) -> Result<u64, ManifestError> {
    u64::try_from(length).map_err(|_| ManifestError::Overflow { what })
}

#[cfg(test)]
mod tests;
