//! `verify --against-source`: the rows of a manifest, counted again where they came from.

use serde::Serialize;

use super::error::ExportError;
use crate::base::words::counted;
use crate::commit::model::{ConsistencyMode, Manifest, PartRange, SourceKind, SourceName};
use crate::commit::{ManifestError, Placement, look};
use crate::model::{CapPlan, ExportErrorKind, KeyColumn, Plan, RelationFacts, RowsAvailable, Slice};
use crate::plan::clocks;
use crate::plan::predicate::{check_predicate, check_query};
use crate::source::postgres::prepare::application;
use crate::source::postgres::{ConnectSettings, Counted, Exported, Recount};
use crate::store::Destination;
use crate::verify::Finding;

/// What counting again found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceCheck {
    /// Under which snapshot.
    pub mode: CountMode,
    /// Whether foreign tables are among what was read: no snapshot says what they held.
    pub foreign: bool,
    /// The run's snapshot, where it could still be imported.
    pub snapshot: Option<String>,
    /// Rows that the source has, counted no further than one past the cap.
    pub rows: u64,
    /// Partitions that were also counted each for itself.
    pub partitions: u64,
    /// Partitions that could not be.
    pub partitions_uncounted: u64,
    /// Why the rows may be others each time, though as many of them were found, or not.
    pub note: Option<String>,
    /// What differs.
    pub findings: Vec<Finding>,
}

/// Under which snapshot rows were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CountMode {
    /// The run's own: what differs is wrong.
    RunSnapshot,
    /// One taken now: the source may have changed since the run.
    Now,
}

/// Rows of one partition by the manifest.
#[derive(Debug, PartialEq, Eq)]
struct Share<'a> {
    partition: u32,
    range: &'a PartRange,
    rows: u64,
}

/// Counts the rows of the manifest at a destination again. `None` where no manifest can be read there, which
/// [`verify()`](crate::verify::verify) tells.
///
/// The manifest's own query and predicate are run, in a read-only transaction.
///
/// # Errors
/// The destination does not answer; the source cannot be reached or refuses; [`ExportErrorKind::SchemaChanged`] where
/// the relation, one of its tables or a column of the export is gone; [`ExportErrorKind::Usage`] where the rows are chosen
/// anew each time, so that no count says anything of those that were exported.
///
/// # Cancel safety
/// It only reads.
pub async fn against_source(
    destination: &Destination,
    placement: &Placement,
    connect: &ConnectSettings,
) -> Result<Option<SourceCheck>, ExportError> {
    let manifest = match look(destination, placement).await {
        Ok(Some(existing)) => existing.manifest,
        Ok(None) | Err(ManifestError::Decode { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if let SourceKind::Other(kind) = &manifest.source.kind {
        let message =
            format!("the rows of this export came from `{kind}`, and only those from PostgreSQL can be counted again");
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("verify it without --against-source"));
    }
    if let Some(predicate) = &manifest.source.predicate {
        check_predicate(predicate)?;
    }
    let query;
    let counted = match &manifest.source.name {
        SourceName::Relation(name) => Counted::Relation(name),
        SourceName::Query(text) => {
            query = as_sent(&check_query(text)?, &manifest);
            Counted::Query(&query)
        }
    };
    let application = format!("{}/verify", application(&manifest.run_id));
    let snapshots = snapshots(&manifest);
    let recount = Recount::begin(connect, counted, &snapshots, manifest.source.row_security, &application).await?;
    let plan = plan(&manifest, &recount.relation)?;
    let safety = recount.safety(&plan).await?;
    if let Some(why) = safety.row_set_varies {
        let message = format!("the rows of this export are chosen anew each time, and cannot be counted again: {why}");
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("verify it without --against-source"));
    }
    Ok(Some(compare(&manifest, &plan, &recount, safety.one_statement).await?))
}

/// What a person wrote, with the run's moment in place of its clocks.
fn as_sent(text: &str, manifest: &Manifest) -> String {
    manifest.consistency.now.map_or_else(|| text.to_owned(), |now| clocks::fix(text, now))
}

/// The snapshots under which all rows were read.
fn snapshots(manifest: &Manifest) -> Vec<Exported<'_>> {
    let records = match manifest.consistency.mode {
        ConsistencyMode::SingleSnapshot => manifest.consistency.snapshots.as_slice(),
        // Under the snapshot a foreign server shows its rows of today all the same.
        ConsistencyMode::Keyset | ConsistencyMode::Mixed | ConsistencyMode::Foreign | ConsistencyMode::Other(_) => &[],
    };
    let exported = records.iter().filter_map(|record| Some((record.id.as_deref()?, record.xmin.as_deref())));
    exported.map(|(id, xmin)| Exported { id, xmin }).collect()
}

async fn compare(
    manifest: &Manifest,
    plan: &Plan,
    recount: &Recount,
    note: Option<String>,
) -> Result<SourceCheck, ExportError> {
    let mode = if recount.snapshot.is_some() { CountMode::RunSnapshot } else { CountMode::Now };
    let teller = Teller { mode, manifest, note: note.as_deref() };
    let cap = manifest.row_cap.max_rows.map(std::num::NonZeroU64::get);
    let rows = recount.count(plan, &Slice::Whole, cap.map(|cap| cap.saturating_add(1))).await?;
    let mut check = SourceCheck {
        mode,
        foreign: manifest.consistency.mode == ConsistencyMode::Foreign,
        snapshot: recount.snapshot.clone(),
        rows,
        partitions: 0,
        partitions_uncounted: 0,
        note: None,
        findings: Vec::new(),
    };
    let within = cap.map_or(rows, |cap| rows.min(cap));
    if within != manifest.totals.rows {
        check.findings.push(teller.differs("the export", within, manifest.totals.rows));
    } else if cap.is_some_and(|cap| (rows > cap) != manifest.row_cap.truncated) {
        let says = if manifest.row_cap.truncated { "that the cap left rows out" } else { "that no row was left out" };
        check.findings.push(teller.finding(format!("{} or more, and the manifest says {says}", counted(rows, "row"))));
    }
    let shares = shares(manifest);
    for share in &shares {
        let Some(slice) = slice(share.range, mode, &plan.relation, shares.len())? else {
            check.partitions_uncounted += u64::from(shares.len() > 1);
            continue;
        };
        let rows = recount.count(plan, &slice, None).await?;
        check.partitions += 1;
        if rows != share.rows {
            check.findings.push(teller.differs(&format!("partition {}", share.partition), rows, share.rows));
        }
    }
    check.note = note;
    Ok(check)
}

/// Words for what differs.
struct Teller<'a> {
    mode: CountMode,
    manifest: &'a Manifest,
    /// Why the rows may be others each time.
    note: Option<&'a str>,
}

impl Teller<'_> {
    fn differs(&self, what: &str, found: u64, said: u64) -> Finding {
        let place = match self.mode {
            CountMode::RunSnapshot => "in the run's snapshot",
            CountMode::Now => "at the source now",
        };
        self.finding(format!("{what} has {} {place}, the manifest says {said}", counted(found, "row")))
    }

    fn finding(&self, problem: String) -> Finding {
        let Manifest { source, created_at, .. } = self.manifest;
        let name = match &source.name {
            SourceName::Relation(name) => name,
            SourceName::Query(_) => "query",
        };
        let problem = match self.note {
            Some(why) => format!("{problem}; {why}, so they may be others each time"),
            None => problem,
        };
        match self.mode {
            CountMode::RunSnapshot => Finding::new(name, problem),
            CountMode::Now => {
                let since = created_at.format("%Y-%m-%d %H:%M:%S UTC");
                Finding::new(name, format!("{problem}; the source may have changed since {since}"))
            }
        }
    }
}

/// The manifest's partitions that have parts, with their rows.
fn shares(manifest: &Manifest) -> Vec<Share<'_>> {
    let mut shares: Vec<Share<'_>> = Vec::new();
    for part in &manifest.parts {
        match shares.last_mut() {
            Some(share) if share.partition == part.partition => share.rows = share.rows.saturating_add(part.rows),
            _ => shares.push(Share { partition: part.partition, range: &part.range, rows: part.rows }),
        }
    }
    shares
}

/// The slice to count for a partition; `None` where it is all of the export, where its bounds are not shown or of a kind
/// that this version does not know, and where rows may have moved in the heap.
fn slice(
    range: &PartRange,
    mode: CountMode,
    relation: &RelationFacts,
    shares: usize,
) -> Result<Option<Slice>, ExportError> {
    Ok(match (range, mode) {
        (PartRange::Keys(range), _) => Some(Slice::Keys(range.clone())),
        (PartRange::NullKeys, _) => Some(Slice::NullKeys),
        (PartRange::Heap { leaf: name, from, to }, CountMode::RunSnapshot) => {
            // The name goes into SQL as it is: only one that the catalog has itself.
            let leaf = relation.leaves.iter().position(|leaf| leaf.sql_name == *name);
            let leaf = leaf.ok_or_else(|| gone(&format!("table {name}"), relation))?;
            Some(Slice::Heap { leaf, from: *from, to: *to })
        }
        (PartRange::Leaves { first, last, tables }, CountMode::RunSnapshot) => {
            let place = |name: &str| relation.leaves.iter().position(|leaf| leaf.sql_name == *name);
            let from = place(first).ok_or_else(|| gone(&format!("table {first}"), relation))?;
            let last = place(last).ok_or_else(|| gone(&format!("table {last}"), relation))?;
            let to = last.saturating_add(1);
            // A table that has come between them is not seen under the run's snapshot.
            let same =
                to.checked_sub(from).is_some_and(|count| u64::try_from(count).is_ok_and(|count| count == *tables));
            if !same {
                return Err(gone(&format!("one of the tables from {first} on"), relation));
            }
            Some(Slice::Leaves { from, to })
        }
        // It would be counted by its row limit, as the whole was.
        (PartRange::Whole, CountMode::RunSnapshot) if shares > 1 => Some(Slice::Whole),
        (
            PartRange::Whole
            | PartRange::KeysWithheld
            | PartRange::Heap { .. }
            | PartRange::Leaves { .. }
            | PartRange::Other(_),
            _,
        ) => None,
    })
}

/// As much of the run's plan as counting needs.
fn plan(manifest: &Manifest, relation: &RelationFacts) -> Result<Plan, ExportError> {
    let names = relation.column_aliases();
    let column = |name: &str| {
        let place = names.iter().position(|alias| *alias == *name);
        place.and_then(|place| relation.columns.get(place)).ok_or_else(|| gone(&format!("column {name:?}"), relation))
    };
    for described in &manifest.schema {
        if let Some(name) = &described.source_column {
            column(name)?;
        }
    }
    let key = manifest.source.key.iter().map(|key| {
        let facts = column(&key.name)?;
        let comparison = facts.comparison.clone();
        Ok(KeyColumn {
            name: key.name.clone(),
            pg_type: facts.pg_type.clone(),
            direction: key.direction,
            nullable: !facts.not_null,
            // It had an order when it was the key: another type has come in its place.
            comparison: comparison.ok_or_else(|| gone(&format!("the order of column {:?}", key.name), relation))?,
        })
    });
    let key = key.collect::<Result<_, ExportError>>()?;
    Ok(Plan {
        relation: relation.clone(),
        predicate: manifest.source.predicate.as_ref().map(|text| as_sent(text, manifest)),
        now: None,
        one_statement: None,
        columns: Vec::new(),
        key,
        locks: crate::model::LockUse::default(),
        row_key: Vec::new(),
        cap: CapPlan {
            tier: None,
            max_rows: None,
            truncated: false,
            order: manifest.row_cap.order,
            boundary: None,
            available: RowsAvailable::Unknown,
            by_reading: false,
        },
        partitions: Vec::new(),
    })
}

fn gone(what: &str, relation: &RelationFacts) -> ExportError {
    let name = relation.display_name.as_deref().unwrap_or("the query");
    ExportError::new(ExportErrorKind::SchemaChanged, format!("{what} of the export is no longer in {name}"))
        .with_hint("it was dropped or renamed since the export, so its rows cannot be counted again")
}
