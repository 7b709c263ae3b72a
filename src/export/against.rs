//! `verify --against-source`: the rows of a manifest, counted again where they came from.

use serde::Serialize;

use super::error::ExportError;
use crate::base::failpoint;
use crate::base::words::counted;
use crate::commit::model::{Manifest, SourceName};
use crate::commit::{ManifestError, Placement, look};
use crate::model::{ConsistencyMode, ExportErrorKind, PartRange, RelationRequest};
use crate::source::{RecountRequest, Recounted, Source, SourceError};
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
    source: &dyn Source,
) -> Result<Option<SourceCheck>, ExportError> {
    let manifest = match look(destination, placement).await {
        Ok(Some(existing)) => existing.manifest,
        Ok(None) | Err(ManifestError::Decode { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (kind, ours) = (&manifest.source.kind, source.kind());
    if *kind != ours {
        let message = format!("the rows of this export came from `{kind}`, and --from names a server of `{ours}`");
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("verify it without --against-source"));
    }
    if manifest.watermark.as_ref().is_some_and(|watermark| watermark.since.is_some()) {
        let message = "the export has only what was new since the export before it, which nobody can count again";
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("verify it without --against-source"));
    }
    let Some(shares) = shares(&manifest) else {
        let message = "the export holds bytes as its source made them, whose rows nobody counted";
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("verify it without --against-source"));
    };
    let recounted = match source.recount(request(&manifest, &shares)) {
        Some(recounting) => recounting.await.map_err(told)?,
        None => {
            return Err(ExportError::new(ExportErrorKind::Usage, "this source cannot count its rows again")
                .with_hint("verify it without --against-source"));
        }
    };
    Ok(Some(compare(&manifest, &shares, recounted)))
}

/// An error of counting, as it may be told. The manifest does not name the columns that `--protect` dropped, and the server
/// may quote one of their values: of no export are values told.
fn told(error: SourceError) -> SourceError {
    if failpoint::off("hidden-words") { error } else { error.without_words_of_rows() }
}

/// What is to be counted.
fn request(manifest: &Manifest, shares: &[Share<'_>]) -> RecountRequest {
    let source = &manifest.source;
    RecountRequest {
        run_id: manifest.run_id.clone(),
        relation: match &source.name {
            SourceName::Relation(name) => RelationRequest::Table(name.clone()),
            SourceName::Query(text) => RelationRequest::Query(text.clone()),
        },
        predicate: source.predicate.clone(),
        now: manifest.consistency.now,
        key: source.key.iter().map(|key| (key.name.clone(), key.direction)).collect(),
        columns: manifest.schema.iter().filter_map(|column| column.source_column.clone()).collect(),
        allow_rls: source.row_security,
        snapshots: match manifest.consistency.mode {
            ConsistencyMode::SingleSnapshot => manifest.consistency.snapshots.clone(),
            // Under the snapshot a foreign server shows its rows of today all the same.
            ConsistencyMode::Keyset | ConsistencyMode::Mixed | ConsistencyMode::Foreign | ConsistencyMode::Other(_) => {
                Vec::new()
            }
        },
        up_to: manifest.row_cap.max_rows.map(|cap| cap.get().saturating_add(1)),
        ranges: shares.iter().map(|share| share.range.clone()).collect(),
    }
}

fn compare(manifest: &Manifest, shares: &[Share<'_>], recounted: Recounted) -> SourceCheck {
    let Recounted { snapshot, rows, ranges, note } = recounted;
    let mode = if snapshot.is_some() { CountMode::RunSnapshot } else { CountMode::Now };
    let teller = Teller { mode, manifest, note: note.as_deref() };
    let cap = manifest.row_cap.max_rows.map(std::num::NonZeroU64::get);
    let mut findings = Vec::new();
    let within = cap.map_or(rows, |cap| rows.min(cap));
    let said = manifest.totals.rows.unwrap_or_default();
    if within != said {
        findings.push(teller.differs("the export", within, said));
    } else if cap.is_some_and(|cap| (rows > cap) != manifest.row_cap.truncated) {
        let says = if manifest.row_cap.truncated { "that the cap left rows out" } else { "that no row was left out" };
        findings.push(teller.finding(format!("{} or more, and the manifest says {says}", counted(rows, "row"))));
    }
    let (mut partitions, mut partitions_uncounted) = (0, 0);
    for (share, rows) in shares.iter().zip(ranges) {
        let Some(rows) = rows else {
            partitions_uncounted += u64::from(shares.len() > 1);
            continue;
        };
        partitions += 1;
        if rows != share.rows {
            findings.push(teller.differs(&format!("partition {}", share.partition), rows, share.rows));
        }
    }
    let foreign = manifest.consistency.mode == ConsistencyMode::Foreign;
    SourceCheck { mode, foreign, snapshot, rows, partitions, partitions_uncounted, note, findings }
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

/// The manifest's partitions that have parts, with their rows; `None` where nobody counted them.
fn shares(manifest: &Manifest) -> Option<Vec<Share<'_>>> {
    let mut shares: Vec<Share<'_>> = Vec::new();
    for part in &manifest.parts {
        let rows = part.rows?;
        match shares.last_mut() {
            Some(share) if share.partition == part.partition => share.rows = share.rows.saturating_add(rows),
            _ => shares.push(Share { partition: part.partition, range: &part.range, rows }),
        }
    }
    Some(shares)
}
