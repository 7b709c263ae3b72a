//! What a job remembers of an export: its last committed manifest, in one object under `_state/`.
//!
//! Before an export begins, its object also names the manifest that it is going to write, as `pending`. A run that dies after
//! its commit and before the object is advanced is found by that: the next run looks whether the pending manifest stands.

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::error::ExportError;
use super::finish::RunTarget;
use super::place::place_by;
use super::since::manifest_at;
use crate::base::failpoint;
use crate::commit::placement::MANIFEST_PATH;
use crate::model::{CommitOptions, CredentialCommand, ExportErrorKind, RunStatus, StatePlace};
use crate::store::{Destination, Journal, StoreOptions, Version, of_records, unreadable};

/// The version of the object.
const STATE_VERSION: u32 = 1;

const JSON: &str = "application/json";

/// `_state/<export>.json`, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StateRecord {
    version: u32,
    export: String,
    /// The export to go on from.
    last: Option<NamedManifest>,
    /// The manifest that a run was about to write.
    pending: Option<NamedManifest>,
}

/// A manifest and its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedManifest {
    pub(super) run_id: String,
    /// Its URL.
    pub(super) manifest: String,
}

/// What was read or written last, brought up to date.
#[derive(Debug, Clone)]
struct SeenState {
    record: StateRecord,
    /// None where no object is there.
    version: Option<Version>,
}

/// What a job remembers of one export.
#[derive(Debug)]
pub(crate) struct JobState {
    folder: Destination,
    path: String,
    export: String,
    seen: Mutex<Option<SeenState>>,
    /// What a run had committed and not said so: it may have left out what comes after the manifest.
    unsaid: Mutex<Option<NamedManifest>>,
}

impl JobState {
    /// Opens the folder.
    pub(super) async fn open(place: &StatePlace, commit: &CommitOptions) -> Result<Self, ExportError> {
        let objects = of_records(&place.folder, &commit.objects)?;
        let credentials = commit.aws_credential_command.as_ref();
        let folder = Destination::connect_for(&place.folder, &StoreOptions::small(), credentials, &objects).await?;
        Ok(Self::of(folder, "", &place.name))
    }

    /// The object of an export below `prefix`, which is empty or ends with a slash.
    pub(super) fn of(folder: Destination, prefix: &str, export: &str) -> Self {
        let path = format!("{prefix}{}.json", file_name(export));
        Self { folder, path, export: export.to_owned(), seen: Mutex::default(), unsaid: Mutex::default() }
    }

    /// The export to go on from. A run that committed and died before it could say so is found; it is noted where the next
    /// export begins.
    ///
    /// # Errors
    /// The object cannot be read, or another version wrote it.
    ///
    /// # Cancel safety
    /// It only reads.
    pub(super) async fn settled(
        &self,
        credentials: Option<&CredentialCommand>,
    ) -> Result<Option<NamedManifest>, ExportError> {
        let SeenState { mut record, version } = self.read().await?;
        if let Some(committed) = self.committed(&record, credentials).await? {
            tracing::info!(run_id = committed.run_id, "a run had committed {} and not said so", self.export);
            *self.unsaid.lock().await = Some(committed.clone());
            record = StateRecord { last: Some(committed), pending: None, ..record };
        }
        let last = record.last.clone();
        *self.seen.lock().await = Some(SeenState { record, version });
        Ok(last)
    }

    /// Gives a load that was committed by a run which could not say so whatever that run did not come to write: `_SUCCESS`, and
    /// what readers are told of it.
    ///
    /// # Errors
    /// Its destination cannot be read or written, or its commit was of a version that writes something else.
    pub(super) async fn finish_unsaid(&self, credentials: Option<&CredentialCommand>) -> Result<(), ExportError> {
        let Some(NamedManifest { run_id, manifest }) = self.unsaid.lock().await.take() else { return Ok(()) };
        let Some(folder) = manifest.strip_suffix(MANIFEST_PATH).filter(|_| !failpoint::off("finish-unsaid")) else {
            return Ok(());
        };
        let (destination, placement) = place_by(folder, false, credentials).await?;
        let journal = Journal::new(destination.clone(), run_id.clone());
        RunTarget::Destination { destination, placement, journal }.repair(&run_id).await
    }

    /// Notes which manifest is about to be written.
    ///
    /// # Errors
    /// The object cannot be written, or other runs of the job write it all the time.
    pub(super) async fn begin(&self, named: NamedManifest) -> Result<(), ExportError> {
        let seen = self.seen.lock().await.clone();
        let Some(SeenState { record, version }) = seen else {
            return Err(ExportError::internal("what a job remembers was not read"));
        };
        let pending = StateRecord { pending: Some(named), ..record };
        if self.write(pending, version.as_ref()).await? {
            return Ok(());
        }
        let message = format!("another run of the job has begun or committed {} at the same moment", self.export);
        Err(ExportError::new(ExportErrorKind::DestinationTaken, message)
            .with_hint("run the job again when that is done"))
    }

    /// Notes that an export has committed.
    ///
    /// # Errors
    /// The object cannot be written, or another run has changed it since this one began: that one's word stands.
    pub(super) async fn advance(&self, named: NamedManifest) -> Result<(), ExportError> {
        let seen = self.seen.lock().await.clone();
        let Some(SeenState { record, version }) = seen else {
            return Err(ExportError::internal("what a job remembers was not read"));
        };
        let advanced = StateRecord { last: Some(named), pending: None, ..record };
        if self.write(advanced, version.as_ref()).await? {
            return Ok(());
        }
        let message = format!("another run of the job has changed {}", self.folder.object_url(&self.path));
        Err(ExportError::new(ExportErrorKind::DestinationTaken, message))
    }

    async fn read(&self) -> Result<SeenState, ExportError> {
        let Some(small) = self.folder.read(&self.path).await? else {
            let (export, version) = (self.export.clone(), STATE_VERSION);
            return Ok(SeenState { record: StateRecord { version, export, last: None, pending: None }, version: None });
        };
        let why = match serde_json::from_slice::<StateRecord>(&small.bytes) {
            Ok(record) if record.version == STATE_VERSION => {
                return Ok(SeenState { record, version: Some(small.version) });
            }
            Ok(record) => format!("it is of version {}, where version {STATE_VERSION} is wanted", record.version),
            Err(error) => unreadable(&error),
        };
        let url = self.folder.object_url(&self.path);
        let message = format!("{url} does not say which export to go on from: {why}");
        Err(ExportError::new(ExportErrorKind::Usage, message)
            .with_hint("remove it, and the next run exports all rows; or name the export with --since"))
    }

    /// The pending manifest, where it stands and goes on from what the object names.
    async fn committed(
        &self,
        record: &StateRecord,
        credentials: Option<&CredentialCommand>,
    ) -> Result<Option<NamedManifest>, ExportError> {
        let Some(pending) = record.pending.clone().filter(|_| !failpoint::off("state-repair")) else { return Ok(None) };
        let Some((_, manifest)) = manifest_at(&pending.manifest, credentials).await? else { return Ok(None) };
        let is_it = manifest.run_id == pending.run_id && manifest.status == RunStatus::Complete;
        Ok((is_it && manifest.watermark.is_some()).then_some(pending))
    }

    /// Writes the object where it is as it was seen: whether it was.
    async fn write(&self, record: StateRecord, version: Option<&Version>) -> Result<bool, ExportError> {
        let json = serde_json::to_vec_pretty(&record)
            .map_err(|error| ExportError::internal("writing what a job remembers").with_source(error))?;
        let bytes = bytes::Bytes::from(json);
        let written = match version {
            None => self.folder.create(&self.path, bytes.clone(), JSON).await.map(drop),
            Some(version) => self.folder.replace(&self.path, bytes.clone(), JSON, version).await.map(drop),
        };
        // What the write itself says is not trusted: a lost answer makes a success look like somebody else's.
        let standing = self.folder.read(&self.path).await?;
        let Some(small) = standing.filter(|small| small.bytes == bytes) else {
            written?;
            return Ok(false);
        };
        *self.seen.lock().await = Some(SeenState { record, version: Some(small.version) });
        Ok(true)
    }
}

/// A name as the name of a file: no two names have the same.
fn file_name(export: &str) -> String {
    let mut name = String::new();
    for byte in export.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && !name.is_empty()) {
            name.push(char::from(byte));
        } else {
            name.extend(format!("%{byte:02X}").chars());
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(run_id: &str) -> NamedManifest {
        NamedManifest { run_id: run_id.into(), manifest: format!("memory:///{run_id}/_manifest.json") }
    }

    fn state(name: &str) -> JobState {
        JobState::of(Destination::in_memory(&format!("state-{name}"), &StoreOptions::small()), "", "public.orders")
    }

    #[tokio::test]
    async fn an_export_is_remembered_once_it_has_committed() {
        let first = state("remembered");
        assert_eq!(first.read().await.unwrap().record.last, None);
        *first.seen.lock().await = Some(first.read().await.unwrap());
        first.begin(named("one")).await.unwrap();
        assert_eq!(state("remembered").read().await.unwrap().record.last, None);
        first.advance(named("one")).await.unwrap();
        let record = state("remembered").read().await.unwrap().record;
        assert_eq!((record.last, record.pending), (Some(named("one")), None));
    }

    #[tokio::test]
    async fn of_two_runs_at_the_same_moment_one_gives_way() {
        let (first, second) = (state("two"), state("two"));
        for one in [&first, &second] {
            *one.seen.lock().await = Some(one.read().await.unwrap());
        }
        first.begin(named("one")).await.unwrap();
        let error = second.begin(named("two")).await.unwrap_err();
        assert_eq!(error.kind, ExportErrorKind::DestinationTaken);
        first.advance(named("one")).await.unwrap();
        assert!(second.advance(named("two")).await.is_err());
        assert_eq!(first.read().await.unwrap().record.last, Some(named("one")));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_no_beginning() {
        for text in ["{", r#"{"version": 9, "export": "public.orders", "last": null, "pending": null}"#] {
            let state = state(&format!("broken-{}", text.len()));
            state.folder.put(&state.path, text.into(), JSON).await.unwrap();
            assert_eq!(state.read().await.unwrap_err().kind, ExportErrorKind::Usage);
        }
    }

    #[test]
    fn names_of_exports_are_names_of_files() {
        for (name, file) in [
            ("public.orders", "public.orders"),
            ("a/b", "a%2Fb"),
            ("..", "%2E."),
            ("\"Odd\"", "%22Odd%22"),
            ("a%2Fb", "a%252Fb"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }
}
