//! The export that an incremental one goes on from: where it is found, and whether the two fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::error::ExportError;
use super::finish::locate;
use super::request::ExportRequest;
use super::run::Run;
use super::state::{JobState, NamedManifest};
use crate::base::words::counted;
use crate::commit::build::{dropped_columns, is_source, output_schema, partition_columns};
use crate::commit::model::{FormatKind, Manifest, SchemaColumn};
use crate::commit::{Existing, Placement, look};
use crate::encode::ProtectKey;
use crate::model::{
    AskedColumns, ColumnChange, CredentialCommand, ExportErrorKind, Format, IncrementalOptions, OnSchemaChange, Plan,
    Protection, ReadRequest, RunStatus, SchemaChange, ShapeOptions, Since, SinceExport,
};
use crate::store::{Destination, StoreOptions, shown};

/// The newest record of a job's runs at its root, and the folder of what it remembers.
const NEWEST_RECORD: &str = "_run.json";
pub(super) const STATE_FOLDER: &str = "_state";

/// What was found of the export to go on from.
#[derive(Debug, Default)]
pub(crate) struct Continuation {
    /// Its manifest and where that stands.
    before: Option<(String, Box<Manifest>)>,
    /// Where the job remembers it.
    state: Option<JobState>,
    changes: Mutex<Vec<SchemaChange>>,
}

impl Continuation {
    /// What the source is told of it.
    ///
    /// # Errors
    /// [`ExportErrorKind::Usage`] where it left nothing to go on from.
    pub(super) fn export(&self) -> Result<Option<SinceExport>, ExportError> {
        let Some((url, manifest)) = &self.before else { return Ok(None) };
        let Some(watermark) = manifest.watermark.clone() else {
            let message = format!("{url} has no watermark to go on from");
            return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint(
                "it was exported without --watermark, or a cap cut it short; --since none exports all rows again",
            ));
        };
        Ok(Some(SinceExport { run_id: manifest.run_id.clone(), watermark }))
    }

    /// What is known of it to a process that only finishes what another one planned.
    pub(super) fn of_changes(changes: Vec<SchemaChange>) -> Self {
        Self { changes: Mutex::new(changes), ..Self::default() }
    }

    /// How the columns differ from those of the export before.
    pub(super) fn changes(&self) -> Vec<SchemaChange> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the job remember an export that has committed. One that cannot be remembered now is found by the next run.
    pub(super) async fn advance(&self, manifest: &Manifest, url: &str) {
        let Some(state) = &self.state else { return };
        if manifest.status != RunStatus::Complete || manifest.watermark.is_none() {
            tracing::warn!("a cap cut the export short: the next one goes on from where this one did");
            return;
        }
        crate::base::failpoint::reach("unremembered").await;
        let named = NamedManifest { run_id: manifest.run_id.clone(), manifest: url.to_owned() };
        if let Err(error) = state.advance(named).await {
            tracing::warn!(error = %error, "the export is committed, and its job could not note it; the next run does");
        }
    }
}

impl Run {
    /// Looks for the export to go on from, once.
    pub(super) async fn look_for_since(&self) -> Result<(), ExportError> {
        let found = find(&self.request).await?;
        found.export()?;
        // Whoever came first has looked.
        let _ = self.since.set(found);
        Ok(())
    }

    /// What the source is asked for.
    pub(super) fn read_request(&self) -> ReadRequest {
        let since = self.since.get().and_then(|found| found.export().ok().flatten());
        self.request.read_request_since(since)
    }

    /// Whether a plan of this run goes on from the same export as this process would.
    pub(super) fn goes_on_as(&self, plan: &Plan) -> bool {
        match (&plan.watermark, &self.request.incremental) {
            (None, None) => true,
            (Some(planned), Some(asked)) => {
                let before = self.since.get().and_then(|found| found.before.as_ref());
                let before = before.map(|(_, manifest)| manifest.run_id.as_str());
                let same = planned.since.as_ref().map(|since| since.run_id.as_str()) == before;
                same && planned.column == asked.column && planned.look_back == asked.look_back
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// What of `--watermark` and `--since` a manifest of this run's id answers otherwise than asked. What a job remembers may
    /// have moved on by this very run.
    pub(super) fn asks_otherwise(&self, manifest: &Manifest) -> [(&'static str, bool); 2] {
        let (asked, left) = (self.request.incremental.as_ref(), manifest.watermark.as_ref());
        let other_column = match (asked, left) {
            (Some(asked), Some(left)) => asked.column != left.column,
            (None, left) => left.is_some(),
            // A cap that cuts off the first export leaves none.
            (Some(_), None) => manifest.status != RunStatus::Truncated,
        };
        let since = left.and_then(|left| left.since.as_deref());
        let other_since = match asked.map(|asked| &asked.since) {
            Some(Since::Nothing) => since.is_some(),
            Some(Since::At(_)) => {
                let before = self.since.get().and_then(|found| found.before.as_ref());
                let named = before.map(|(_, before)| before.run_id.as_str());
                left.is_some() && named != since && named != Some(manifest.run_id.as_str())
            }
            Some(Since::Remembered) | None => false,
        };
        [("--watermark", other_column), ("--since", other_since)]
    }

    /// Compares what is planned with the export to go on from, and keeps how the columns differ.
    pub(super) fn compare_since(&self, plan: &Plan) -> Result<(), ExportError> {
        let Some(found) = self.since.get() else { return Ok(()) };
        let key = self.protect_key.get().and_then(Option::as_ref).map(ProtectKey::id);
        let changes = compare(&self.request, plan, found, key.as_deref())?;
        *found.changes.lock().unwrap_or_else(PoisonError::into_inner) = changes;
        Ok(())
    }

    /// Notes that the export begins; `previous` is the manifest that it would replace.
    pub(super) async fn begin_since(&self, previous: Option<&Existing>) -> Result<(), ExportError> {
        let Some(found) = self.since.get() else { return Ok(()) };
        if let (Some(_), Some(previous)) = (&found.before, previous) {
            let message = format!(
                "{} is the load of run {}, whose rows this one does not have",
                previous.url, previous.manifest.run_id
            );
            return Err(ExportError::new(ExportErrorKind::DestinationTaken, message).with_hint(
                "put {run_id} into --to, so that each load has a folder of its own; --since none exports all rows again",
            ));
        }
        let Some(state) = &found.state else { return Ok(()) };
        state.finish_unsaid(self.request.commit.aws_credential_command.as_ref()).await?;
        let url = self.place.manifest_url();
        state.begin(NamedManifest { run_id: self.request.commit.run_id.clone(), manifest: url }).await
    }
}

/// What of a relation is asked for.
pub(super) fn selection(shape: &ShapeOptions) -> AskedColumns {
    let ShapeOptions { columns, expressions, renames, .. } = shape.clone();
    AskedColumns { columns, expressions, renames }
}

/// Looks for the export that an incremental one goes on from; nothing for others.
///
/// # Errors
/// It is named and not there, or what is there cannot be read; the destination does not answer.
///
/// # Cancel safety
/// It only reads.
pub(super) async fn find(request: &ExportRequest) -> Result<Continuation, ExportError> {
    let Some(asked) = &request.incremental else { return Ok(Continuation::default()) };
    if !request.source.knows_watermarks() {
        let message = "this source cannot be asked for what is new since another export";
        return Err(ExportError::new(ExportErrorKind::Usage, message).with_hint("leave --watermark out"));
    }
    let credentials = request.commit.aws_credential_command.as_ref();
    let state = match &asked.state {
        Some(place) => Some(JobState::open(place, &request.commit).await?),
        None => None,
    };
    let remembered = match &state {
        Some(state) => state.settled(credentials).await?,
        None => None,
    };
    let before = match &asked.since {
        Since::Nothing => None,
        Since::Remembered => match remembered {
            Some(named) => Some(manifest_at(&named.manifest, credentials).await?.ok_or_else(|| gone(&named.manifest))?),
            None => None,
        },
        Since::At(url) => Some(at(url, asked, request, credentials).await?),
    };
    if before.is_none() {
        tracing::info!(column = asked.column, "there is no export to go on from: all rows are exported");
    }
    Ok(Continuation {
        before: before.map(|(url, manifest)| (url, Box::new(manifest))),
        state,
        changes: Mutex::default(),
    })
}

fn gone(url: &str) -> ExportError {
    let message = format!("{}: there is no manifest, and the export is to go on from it", shown(url));
    ExportError::new(ExportErrorKind::Usage, message)
        .with_hint("--since names another export to go on from; --since none exports all rows again")
}

/// Of a record of a run, where an export's manifest is.
#[derive(Deserialize)]
struct RecordedRun {
    run_id: String,
    exports: Vec<RecordedExport>,
}

#[derive(Deserialize)]
struct RecordedExport {
    name: String,
    manifest: Option<String>,
}

/// The manifest that an address means: its own, or that of the export of this name in a run's record or at a job's root.
async fn at(
    url: &str,
    asked: &IncrementalOptions,
    request: &ExportRequest,
    credentials: Option<&CredentialCommand>,
) -> Result<(String, Manifest), ExportError> {
    let name = asked.state.as_ref().map_or_else(|| super::job::relation(request), |place| place.name.clone());
    if url.rsplit_once('.').is_some_and(|(_, extension)| extension == "json") {
        let Some(bytes) = read(url, credentials).await? else { return Err(gone(url)) };
        return match serde_json::from_slice::<RecordedRun>(&bytes) {
            Ok(record) if serde_json::from_slice::<Value>(&bytes).is_ok_and(|it| it.get("format").is_none()) => {
                of_record(url, record, &name, credentials).await
            }
            _ => manifest_at(url, credentials).await?.ok_or_else(|| gone(url)),
        };
    }
    let folder = Destination::connect(url, &StoreOptions::small(), credentials).await?;
    if let Some(existing) = look(&folder, &Placement::Parts).await? {
        return Ok((existing.url, existing.manifest));
    }
    let state = JobState::of(folder.clone(), &format!("{STATE_FOLDER}/"), &name);
    if let Some(named) = state.settled(credentials).await? {
        return manifest_at(&named.manifest, credentials).await?.ok_or_else(|| gone(&named.manifest));
    }
    let Some(record) = folder.read(NEWEST_RECORD).await? else { return Err(gone(url)) };
    match serde_json::from_slice::<RecordedRun>(&record.bytes) {
        Ok(record) => of_record(&folder.object_url(NEWEST_RECORD), record, &name, credentials).await,
        Err(_) => Err(gone(url)),
    }
}

/// The manifest of an export in a run's record.
async fn of_record(
    url: &str,
    record: RecordedRun,
    name: &str,
    credentials: Option<&CredentialCommand>,
) -> Result<(String, Manifest), ExportError> {
    let RecordedRun { run_id, exports } = record;
    let number = counted(exports.len(), "export");
    let manifest = exports.into_iter().find(|export| export.name == name).and_then(|export| export.manifest);
    let Some(manifest) = manifest else {
        let message = format!("{}: run {run_id} has {number}, and none of them is a committed {name}", shown(url));
        return Err(ExportError::new(ExportErrorKind::Usage, message)
            .with_hint("name the manifest to go on from, or --since none"));
    };
    manifest_at(&manifest, credentials).await?.ok_or_else(|| gone(&manifest))
}

/// The bytes of an object by its address; `None` where there is none.
async fn read(url: &str, credentials: Option<&CredentialCommand>) -> Result<Option<bytes::Bytes>, ExportError> {
    let (folder, placement) = locate(url, true)?;
    let Placement::Single { name } = placement else { return Ok(None) };
    let folder = Destination::connect(folder, &StoreOptions::small(), credentials).await?;
    Ok(folder.read(&name).await?.map(|small| small.bytes))
}

/// The manifest at an address; `None` where there is none.
pub(super) async fn manifest_at(
    url: &str,
    credentials: Option<&CredentialCommand>,
) -> Result<Option<(String, Manifest)>, ExportError> {
    let Some(bytes) = read(url, credentials).await? else { return Ok(None) };
    let parsed = crate::base::cpu::on_rayon(move || Manifest::from_json(&bytes)).await;
    let parsed = parsed.map_err(|error| ExportError::internal("reading a manifest").with_source(error))?;
    let manifest = parsed.map_err(|error| {
        ExportError::new(ExportErrorKind::Usage, format!("{} is no manifest to go on from", shown(url)))
            .with_source(error)
    })?;
    Ok(Some((url.to_owned(), manifest)))
}

/// Compares what is planned with the export that it goes on from: how the columns differ.
///
/// # Errors
/// [`ExportErrorKind::Usage`] where another relation, predicate, selection or watermark is asked for;
/// [`ExportErrorKind::SchemaChanged`] where the columns differ and that is to be an error.
pub(super) fn compare(
    request: &ExportRequest,
    plan: &Plan,
    found: &Continuation,
    protect_key: Option<&str>,
) -> Result<Vec<SchemaChange>, ExportError> {
    let (Some(asked), Some((url, before))) = (&request.incremental, &found.before) else { return Ok(Vec::new()) };
    let Some(watermark) = &before.watermark else { return Ok(Vec::new()) };
    let kind = &before.source.kind;
    let rules = request.commit.output_rules();
    let columns = output_schema(plan, rules, request.format.format, kind);
    let folders = partition_columns(plan, rules, request.format.format, kind);
    let is_text = request.format.format != Format::Parquet;
    let other_csv = matches!(&before.format.kind, FormatKind::Csv(options) if *options != request.format.csv);
    let differs = [
        ("--table or --query", !is_source(&before.source.name, plan)),
        ("--watermark", watermark.column != asked.column),
        ("--where", before.source.predicate != plan.relation.predicate),
        ("the columns that are asked for", watermark.selection != selection(&request.shape)),
        ("--allow-rls", before.source.row_security != plan.relation.row_security),
        ("--format", before.format.format() != request.format.format),
        // One reader of all loads reads them all alike.
        ("the options of CSV", other_csv),
        // It finds the parts by their names, and these end with it.
        ("--compression", is_text && before.format.compression != request.format.compression),
        (
            "--partition-by or --keep-partition-columns",
            // What the files of one load have, those of the other have not.
            in_folders_alone(&before.partition_by, &before.schema) != in_folders_alone(&folders, &columns),
        ),
        ("--protect", protects_otherwise((&before.schema, &before.dropped), (&columns, &dropped_columns(plan, rules)))),
        (
            "the key of --protect",
            protect_key.is_some_and(|key| before.protection_key.as_deref().is_some_and(|old| old != key)),
        ),
    ];
    let fields: Vec<&str> = differs.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect();
    if !fields.is_empty() {
        let message = format!("the export goes on from {url}, and differs from it in {}", fields.join(", "));
        return Err(ExportError::new(ExportErrorKind::Usage, message)
            .with_hint("ask for the same, or export all rows again with --since none"));
    }
    let changes = changes(&before.schema, &columns);
    if changes.is_empty() {
        return Ok(changes);
    }
    let told: Vec<String> = changes.iter().map(told).collect();
    if asked.on_schema_change == OnSchemaChange::Fail {
        let message = format!("the columns differ from those of {url}: {}", told.join(", "));
        return Err(ExportError::new(ExportErrorKind::SchemaChanged, message)
            .with_hint("--on-schema-change report goes on; --since none exports all rows again with the new columns"));
    }
    tracing::warn!(changes = told.join(", "), "the columns differ from those of the export before");
    Ok(changes)
}

/// The columns of folders that the files do not have.
fn in_folders_alone<'a>(folders: &'a [SchemaColumn], files: &[SchemaColumn]) -> BTreeSet<&'a str> {
    let alone = folders.iter().filter(|folder| files.iter().all(|column| column.name != folder.name));
    alone.map(|folder| folder.name.as_str()).collect()
}

/// The columns of an export: those of its files, and those that protection drops.
type Protected<'a> = (&'a [SchemaColumn], &'a [String]);

/// Whether a column is protected otherwise than it was: equal values would not be equal over all loads, and a person who
/// reads them sees what nobody was to see.
fn protects_otherwise(before: Protected<'_>, now: Protected<'_>) -> bool {
    let all = |(files, dropped): Protected<'_>| -> BTreeMap<String, Option<String>> {
        let dropped = dropped.iter().map(|name| (name.clone(), Some(Protection::Drop.word().to_owned())));
        files.iter().map(|column| (column.name.clone(), column.protection.clone())).chain(dropped).collect()
    };
    let before = all(before);
    all(now).iter().any(|(name, protection)| before.get(name).is_some_and(|old| old != protection))
}

fn told(change: &SchemaChange) -> String {
    let what = match change.change {
        ColumnChange::Added => "added",
        ColumnChange::Dropped => "dropped",
        ColumnChange::Retyped => "of another type",
    };
    format!("{} {what}", change.column)
}

fn changes(before: &[SchemaColumn], now: &[SchemaColumn]) -> Vec<SchemaChange> {
    let of = |column: &SchemaColumn, change| SchemaChange { column: column.name.clone(), change };
    let named = |columns: &[SchemaColumn], name: &str| columns.iter().find(|column| column.name == *name).cloned();
    let dropped = before.iter().filter(|column| named(now, &column.name).is_none());
    let mut changes: Vec<SchemaChange> = dropped.map(|column| of(column, ColumnChange::Dropped)).collect();
    for column in now {
        let types = |column: &SchemaColumn| (column.pg_type.clone(), column.arrow_type.clone());
        match named(before, &column.name) {
            None => changes.push(of(column, ColumnChange::Added)),
            Some(old) if types(&old) != types(column) => changes.push(of(column, ColumnChange::Retyped)),
            Some(_) => {}
        }
    }
    changes
}
