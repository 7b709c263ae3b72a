//! The two ends of a run at its destination: what stands there before, and the commit after.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::error::{ExportError, kind_of};
use super::hold::{Hold, own_files};
use super::place;
use super::planned::Planned;
use super::request::ExportRequest;
use super::run::Run;
use super::since::{self, Continuation};
use crate::base::whole_file::{Readers, write_whole};
use crate::base::words::counted;
use crate::commit::model::{Manifest, SourceName};
use crate::commit::{
    CommitRules, Committed, Existing, ManifestError, Placement, RunFacts, StartDecision, before_run, build, commit,
};
use crate::describe;
use crate::encode::ProtectKey;
use crate::model::{
    Direction, Event, ExportErrorKind, ExportReport, Layout, PartitionReceipt, RowOrder, RowsAvailable, StagedObject,
    Target, WatermarkReport,
};
use crate::store::error::{StoreError, StoreFault};
use crate::store::owner::{OwnerRecord, owner};
use crate::store::stream::{STREAM, StreamSink};
use crate::store::{
    Destination, Journal, StoreOptions, Take, check_address, check_objects, check_scheme, file_name, shown,
};

/// Where a run writes.
#[derive(Debug)]
pub(crate) enum RunTarget {
    /// Objects below a destination.
    Destination { destination: Destination, journal: Journal, placement: Placement },
    /// A stream: its manifest is kept for the caller, and written to a file where one is named.
    Stream { sink: StreamSink, file: Option<PathBuf>, manifest: OnceLock<Arc<Manifest>> },
}

/// What a run finds at its destination.
#[derive(Debug)]
pub(crate) enum Before {
    /// Go on; the manifest to replace, where one stands.
    Run(Option<Box<Existing>>),
    /// The run of this id has committed: once planned, its request is compared with ours.
    SameRun(Box<Existing>),
    /// It is to be left alone.
    Skip(Box<Existing>),
}

impl RunTarget {
    /// Opens the destination; nothing is written, and nothing of it is read.
    pub(crate) async fn open(request: &ExportRequest) -> Result<Self, ExportError> {
        let url = match &request.commit.target {
            Target::Stream { manifest } => {
                manifest.as_deref().map_or(Ok(()), check_file)?;
                return Ok(Self::stream(StreamSink::Stdout, manifest.clone()));
            }
            Target::Destination(url) => url,
        };
        let options = StoreOptions {
            chunk_bytes: request.work.upload_chunk_size,
            concurrency: request.work.upload_concurrency,
            sha256: request.commit.sha256,
        };
        let (folder, placement) = locate(url, request.commit.single_file)?;
        let credentials = request.commit.aws_credential_command.as_ref();
        let objects = &request.commit.objects;
        let destination = Destination::connect_for(folder, &options, credentials, objects).await?;
        let journal = Journal::new(destination.clone(), &request.commit.run_id);
        Ok(Self::Destination { destination, journal, placement })
    }

    /// A stream, with the file for its manifest.
    pub(crate) fn stream(sink: StreamSink, file: Option<PathBuf>) -> Self {
        Self::Stream { sink, file, manifest: OnceLock::new() }
    }

    /// The manifest of a stream that has ended well.
    pub(crate) fn streamed(&self) -> Option<Arc<Manifest>> {
        let Self::Stream { manifest, .. } = self else { return None };
        manifest.get().cloned()
    }

    /// Refuses a target that [`RunTarget::open`] would refuse, but for settings in the environment, which a plan needs none of.
    pub(crate) fn check(request: &ExportRequest) -> Result<(), ExportError> {
        let Target::Destination(url) = &request.commit.target else { return Ok(()) };
        let (folder, _) = locate(url, request.commit.single_file)?;
        check_address(folder)?;
        Ok(check_objects(folder, &request.commit.objects)?)
    }

    /// The destination's URL, without credentials.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Destination { destination, placement, .. } => placement.url(destination),
            Self::Stream { .. } => STREAM.to_owned(),
        }
    }

    /// Where its manifest is going to stand.
    pub(super) fn manifest_url(&self) -> String {
        match self {
            Self::Destination { destination, placement, .. } => destination.object_url(&placement.manifest_path()),
            Self::Stream { .. } => STREAM.to_owned(),
        }
    }

    /// Looks at what stands there.
    pub(crate) async fn look(&self, request: &ExportRequest) -> Result<Before, ExportError> {
        let Self::Destination { destination, placement, .. } = self else { return Ok(Before::Run(None)) };
        place::no_folder(destination, placement).await?;
        let rules = &request.commit;
        let run_id = rules.run_id_given.then_some(rules.run_id.as_str());
        let standing = match before_run(destination, placement, rules.on_existing, run_id).await {
            // A dead run may have left the single file. Whoever takes its place removes it then, and looks again.
            Err(error @ ManifestError::Occupied { .. }) => {
                let owner = owner(destination, &placement.owner_path()).await?;
                // One of our own run is waited for.
                let other = |owner: &OwnerRecord| run_id != Some(owner.run_id.as_str());
                if owner.is_none_or(|owner| owner.is_alive(Utc::now()) && other(&owner)) {
                    return Err(error.into());
                }
                StartDecision::Nothing
            }
            standing => standing?,
        };
        Ok(match standing {
            StartDecision::Nothing => Before::Run(None),
            StartDecision::Replace(existing) => Before::Run(Some(existing)),
            StartDecision::SameRun(existing) => Before::SameRun(existing),
            StartDecision::Skip(existing) => Before::Skip(existing),
        })
    }

    /// Refuses a destination where the commit could not write what it is to write: better before the rows are read.
    pub(crate) async fn ready(&self, request: &ExportRequest) -> Result<(), ExportError> {
        let Self::Destination { destination, placement, .. } = self else { return Ok(()) };
        let mut paths = own_files(placement);
        paths.push(match (placement, request.commit.layout) {
            (Placement::Single { name }, _) => name.clone(),
            (Placement::Parts, Layout::Nested) => "data/part".to_owned(),
            (Placement::Parts, Layout::Flat) => "part".to_owned(),
        });
        Ok(destination.ready(paths).await?)
    }

    /// Takes the destination; a stream has none to take.
    pub(crate) async fn take(
        &self,
        run_id: &str,
        how: Take,
        stop: &CancellationToken,
    ) -> Result<Option<Hold>, ExportError> {
        let Self::Destination { destination, placement, .. } = self else { return Ok(None) };
        Ok(Some(Hold::take(destination, placement, run_id, how, stop.clone()).await?))
    }

    /// Gives a manifest that stands whatever a commit that died after it did not come to write. Where somebody is at
    /// work there, that is his.
    pub(crate) async fn repair(&self, run_id: &str) -> Result<(), ExportError> {
        let Self::Destination { destination, placement, .. } = self else { return Ok(()) };
        let Some(owner) = owner(destination, &placement.owner_path()).await? else {
            // Whoever was killed as the last thing of all may have left empty folders.
            destination.remove_empty().await;
            return Ok(());
        };
        if owner.is_alive(Utc::now()) {
            return Ok(());
        }
        let hold = Hold::take(destination, placement, run_id, Take::Free, CancellationToken::new()).await?;
        hold.settle_dead_runs(destination, placement, None).await?;
        Ok(hold.release(destination).await?)
    }
}

/// The folder to open and what stands in it; for a single file, the file's folder.
pub(crate) fn locate(url: &str, single_file: bool) -> Result<(&str, Placement), ExportError> {
    if !single_file {
        return Ok((url, Placement::Parts));
    }
    // Before it is cut in two: the folder of `data:x` would be this one.
    check_scheme(url)?;
    let (folder, name) = match url.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => (".", url),
    };
    if name.is_empty() || folder.ends_with([':', '/']) && folder != "/" {
        let message = format!("--single-file needs the name of a file, and {} has none", shown(url));
        return Err(ExportError::new(ExportErrorKind::Usage, message));
    }
    // As its folder is read, so that the URL that a report shows names the same file.
    let name = if url.starts_with("file://") { file_name(url, name)? } else { name.to_owned() };
    Ok((folder, Placement::Single { name }))
}

/// Builds the manifest from the receipts and commits it.
///
/// # Errors
/// See [`ManifestError`]; `--min-rows` first.
pub(crate) async fn finish(
    run: &Run,
    planned: &Planned,
    receipts: &[PartitionReceipt],
    previous: Option<Box<Existing>>,
    hold: Option<&Hold>,
) -> Result<ExportReport, ExportError> {
    enough_rows(&run.request, receipts.iter().filter_map(|receipt| receipt.read.rows()).sum())?;
    let facts = run_facts(run, planned);
    let manifest = Arc::new(match &run.place {
        RunTarget::Destination { destination, .. } => build(facts, receipts, |path| destination.object_url(path))?,
        RunTarget::Stream { .. } => build(facts, receipts, |_| STREAM.to_owned())?,
    });
    tell_of_small_parts(&manifest);
    let url = match &run.place {
        RunTarget::Destination { destination, placement, journal } => {
            let staged: Vec<&StagedObject> =
                receipts.iter().flat_map(|receipt| &receipt.parts).map(|part| &part.object).collect();
            run.commit_begun.set();
            run.tell(Event::Committing { parts: staged.len() }).await;
            run.tell_of_strangers(previous.iter().map(|previous| &previous.manifest).chain([&*manifest])).await;
            let on_existing = run.request.commit.on_existing;
            let rules = CommitRules {
                placement: placement.clone(),
                on_existing,
                describe: describe::documents,
                previous: previous.map(|it| *it),
                run: hold.map(|hold| (hold.claim.clone(), journal.clone())),
            };
            let committed = commit(destination, Arc::clone(&manifest), &staged, &rules).await.inspect_err(|error| {
                if matches!(error, ManifestError::Stranded { .. }) {
                    run.litter.set();
                }
            })?;
            warn(&committed);
            // Where the role may not delete, the next run may not either.
            let passing = committed.warnings.iter().any(|warning| warning.fault != StoreFault::Authentication);
            if passing {
                run.litter.set();
            }
            if let Some(found) = run.since.get() {
                found.advance(&manifest, &committed.manifest_url).await;
            }
            Some(committed.manifest_url)
        }
        RunTarget::Stream { file, manifest: kept, .. } => {
            if file.is_some() {
                // From here on the stream is whole.
                run.tell(Event::Committing { parts: 1 }).await;
            }
            let written = file.as_ref().map(|file| write_file(file, &manifest)).transpose()?;
            kept.get_or_init(|| Arc::clone(&manifest));
            written
        }
    };
    Ok(report(run, &manifest, url, false))
}

/// Folders with more parts than this, all in all, are told of where the parts are small.
const PARTS_MANY: u64 = 1000;

/// Parts are small below so many bytes: reading them takes more requests than bytes.
const PART_SMALL_BYTES: u64 = 256 * 1024;

/// Tells of folders that are made of many small parts.
fn tell_of_small_parts(manifest: &Manifest) {
    let (parts, bytes) = (manifest.totals.parts, manifest.totals.bytes);
    let each = bytes.checked_div(parts).unwrap_or_default();
    if !manifest.partition_by.is_empty() && parts >= PARTS_MANY && each < PART_SMALL_BYTES {
        let message = "--partition-by makes many small parts: coarser values or fewer --partitions make larger ones";
        tracing::warn!(parts, bytes, "{message}");
    }
}

fn warn(committed: &Committed) {
    for warning in &committed.warnings {
        tracing::warn!(error = %warning, "a part of the replaced export is still there");
    }
}

/// Refuses a place for the manifest of a stream that is none, before anything is read.
fn check_file(file: &Path) -> Result<(), ExportError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let why = match folder {
        _ if file.is_dir() => "is a folder, and the manifest is a file".to_owned(),
        Some(folder) if !folder.is_dir() => format!("cannot be written: there is no folder {}", folder.display()),
        _ => return Ok(()),
    };
    Err(ExportError::new(ExportErrorKind::Usage, format!("--manifest: {} {why}", file.display()))
        .with_hint("name a file in a folder that is there"))
}

/// The manifest of a stream, beside whatever the stream became: written whole, then renamed.
fn write_file(file: &Path, manifest: &Manifest) -> Result<String, ExportError> {
    let failed = |error: std::io::Error| {
        let StoreError { fault, source, .. } = StoreError::from_io("writing", file.display().to_string(), error);
        // It was there when the run began.
        let kind = if fault == StoreFault::Missing { ExportErrorKind::Usage } else { kind_of(fault) };
        let error = ExportError::new(kind, format!("--manifest: cannot write {}", file.display()));
        ExportError { source: Some(source), ..error }.with_hint("name a file in a folder that this user may write to")
    };
    let json =
        manifest.to_json().map_err(|error| ExportError::internal("writing the manifest as JSON").with_source(error))?;
    write_whole(file, &json, Readers::Owner).map_err(failed)?;
    Ok(file.display().to_string())
}

/// `--min-rows`, checked before anything is published.
fn enough_rows(request: &ExportRequest, rows: u64) -> Result<(), ExportError> {
    match request.work.min_rows {
        Some(min) if rows < min.get() => {
            let message = format!("there are {} where --min-rows asks for {min}", counted(rows, "row"));
            Err(ExportError::new(ExportErrorKind::Data, message))
        }
        _ => Ok(()),
    }
}

fn run_facts<'a>(run: &'a Run, planned: &'a Planned) -> RunFacts<'a> {
    RunFacts {
        run_id: run.request.commit.run_id.clone(),
        nonce: format!("{:032x}", rand::random::<u128>()),
        outhaul_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: run.created_at(),
        finished_at: Utc::now(),
        source: planned.facts.clone(),
        consistency: planned.consistency.clone(),
        plan: &planned.plan,
        format: &planned.format,
        stats: run.request.commit.manifest_stats,
        selection: since::selection(&run.request.shape),
        changes: run.since.get().map(Continuation::changes).unwrap_or_default(),
        rules: run.request.commit.output_rules(),
        protection_key: run.protect_key.get().and_then(Option::as_ref).map(ProtectKey::id),
    }
}

/// The report of the run that a manifest is of: this one, or an earlier one that is found.
pub(crate) fn report(run: &Run, manifest: &Manifest, url: Option<String>, already_committed: bool) -> ExportReport {
    let report = report_of(&run.place, run.request.work.readers.get(), run.started, manifest, url, already_committed);
    ExportReport { truncation_allowed: run.request.work.allow_truncated, ..report }
}

/// As [`report`], where nothing else is known of the run.
pub(crate) fn report_of(
    place: &RunTarget,
    readers: usize,
    started: Instant,
    manifest: &Manifest,
    url: Option<String>,
    already_committed: bool,
) -> ExportReport {
    let is_by_key = manifest.row_cap.order == RowOrder::Key;
    let key = manifest.source.key.iter().filter(|_| is_by_key);
    ExportReport {
        status: manifest.status,
        run_id: manifest.run_id.clone(),
        relation: match &manifest.source.name {
            SourceName::Relation(name) => name.clone(),
            SourceName::Query(_) => "query".to_owned(),
        },
        destination: place.url(),
        manifest: url,
        rows: manifest.totals.rows,
        rows_read_now: 0,
        bytes_written_now: 0,
        parts: manifest.totals.parts,
        bytes: manifest.totals.bytes,
        max_rows: manifest.row_cap.max_rows.map(std::num::NonZeroU64::get),
        tier: manifest.row_cap.tier.clone(),
        order: manifest.row_cap.order,
        key: key.clone().map(|column| column.name.clone()).collect(),
        descending: key
            .filter(|column| column.direction == Direction::Desc)
            .map(|column| column.name.clone())
            .collect(),
        rows_available: match manifest.row_cap.available {
            RowsAvailable::Unknown if !manifest.row_cap.truncated => {
                manifest.totals.rows.map_or(RowsAvailable::Unknown, RowsAvailable::Exact)
            }
            other => other,
        },
        snapshot: manifest.consistency.snapshots.first().and_then(|snapshot| snapshot.id.clone()),
        readers,
        seconds: started.elapsed().as_secs_f64(),
        source_cost: None,
        watermark: manifest.watermark.as_ref().map(WatermarkReport::from),
        already_committed,
        truncation_allowed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_single_file_is_decoded_where_its_folder_is() {
        for (url, folder, name) in [
            ("file:///a%20b/my%20file.csv", "file:///a%20b", "my file.csv"),
            ("file:///out/100%25.csv", "file:///out", "100%.csv"),
            ("/out/100%25.csv", "/out", "100%25.csv"),
            ("/out/100%.csv", "/out", "100%.csv"),
            ("s3://bucket/a%20b.csv", "s3://bucket", "a%20b.csv"),
        ] {
            let named = (folder, Placement::Single { name: name.into() });
            assert_eq!(locate(url, true).unwrap(), named, "{url}");
        }
        for url in ["file:///out/a%2Fb.csv", "file:///out/a%00.csv", "file:///out/%ff.csv", "file:///out/100%.csv"] {
            assert_eq!(locate(url, true).unwrap_err().kind, ExportErrorKind::Usage, "{url}");
        }
    }
}
