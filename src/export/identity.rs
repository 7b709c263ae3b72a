//! `run.json` of a journal: the few facts of a run by which any later version of outhaul can remove what the run left, or
//! finish it.
//!
//! The file is a format of its own (invariant I12). A plan changes with every release, and what an older one left must
//! still be cleaned, so nothing of a plan stands here. Members and values may be added; whatever a reader of version 1
//! would misread needs `version` 2. The version before `run.json` had the same facts in its `plan.json`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::error::ExportError;
use super::finish::locate;
use super::request::ExportRequest;
use crate::base::failpoint;
use crate::commit::Placement;
use crate::model::{CommitOptions, ExportErrorKind, ObjectOptions, ServerSideEncryption, Visibility};
use crate::store::{AttemptSeed, Journal, unreadable};

/// The version of `run.json` that is written, and the newest that is read.
const VERSION: u32 = 1;

/// What every version of outhaul understands of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunIdentity {
    /// Who wrote it; `None` where that cannot be read.
    pub(crate) outhaul_version: Option<String>,
    /// When it was begun; `None` where that cannot be read.
    pub(crate) created_at: Option<DateTime<Utc>>,
    /// From which the first process has its attempt ids.
    pub(crate) seed: Option<AttemptSeed>,
    /// When its parts become visible; `None` for a value that this version does not know.
    pub(crate) visibility: Option<Visibility>,
    /// Where its files stand below the destination.
    placement: Option<Placement>,
    /// How S3 was told to encrypt what it wrote; of no class, and without tags.
    pub(crate) encryption: ObjectOptions,
    /// The version of the file, where that is newer than this one's.
    newer: Option<u32>,
}

/// `run.json`, version 1.
#[derive(Serialize)]
struct RunFile<'a> {
    version: u32,
    run_id: &'a str,
    outhaul_version: &'a str,
    created_at: DateTime<Utc>,
    seed: String,
    visibility: &'static str,
    placement: PlacementFile,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<EncryptionFile>,
}

/// The same as it is read: whatever is missing, or of another type, is not known.
#[derive(Deserialize)]
struct FoundFile {
    version: u32,
    #[serde(default, deserialize_with = "lenient")]
    outhaul_version: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    created_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "lenient")]
    seed: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    placement: Option<PlacementFile>,
    #[serde(default, deserialize_with = "lenient")]
    encryption: Option<EncryptionFile>,
}

#[derive(Serialize, Deserialize)]
struct PlacementFile {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct EncryptionFile {
    /// In the words of S3.
    sse: ServerSideEncryption,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kms_key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket_key: Option<bool>,
}

/// The stable facts inside a `plan.json`: all that tells of a run of 0.1.0.
#[derive(Deserialize)]
struct InPlan {
    #[serde(default, deserialize_with = "lenient")]
    outhaul_version: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    created_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "lenient")]
    seed: Option<AttemptSeed>,
    #[serde(default, deserialize_with = "lenient")]
    commit: Option<CommitInPlan>,
}

#[derive(Deserialize)]
struct CommitInPlan {
    #[serde(default, deserialize_with = "lenient")]
    target: Option<TargetInPlan>,
    #[serde(default, deserialize_with = "lenient")]
    visibility: Option<String>,
    #[serde(default)]
    single_file: bool,
}

#[derive(Deserialize)]
struct TargetInPlan {
    #[serde(rename = "Destination")]
    destination: String,
}

impl RunIdentity {
    /// Writes down what of a run outlives this version. Before the plan, and before the first object.
    pub(crate) async fn write(
        request: &ExportRequest,
        created_at: DateTime<Utc>,
        seed: AttemptSeed,
        placement: &Placement,
        journal: &Journal,
    ) -> Result<(), ExportError> {
        if failpoint::off("run-record") {
            return Ok(());
        }
        let CommitOptions { run_id, visibility, objects, .. } = &request.commit;
        let json = bytes(run_id, created_at, seed, *visibility, placement, objects)?;
        // Only of these it is known without the file that nothing is visible, and where all of it is.
        if request.commit.visibility == Visibility::AtCommit && *placement == Placement::Parts {
            return Ok(journal.note_run(json.into()).await?);
        }
        Ok(journal.put_run(json.into()).await?)
    }

    /// The identity of the run that a journal is of; `None` where the run did not come so far as to write anything down.
    ///
    /// What cannot be read is not known, and no error: a dead run is removed as far as it is known.
    ///
    /// # Errors
    /// The destination fails.
    pub(crate) async fn read(journal: &Journal) -> Result<Option<Self>, ExportError> {
        let run = journal.run().await?;
        let is_there = run.is_some();
        if let Some(found) = run.as_deref().and_then(of_run) {
            return Ok(Some(found));
        }
        let plan = journal.plan().await?;
        Ok(match &plan {
            Some(plan) => Some(of_plan(plan)),
            None => is_there.then(Self::unknown),
        })
    }

    /// Whether the run's files stand at `placement`. A run of which that is not known has parts.
    pub(crate) fn is_of(&self, placement: &Placement) -> bool {
        self.placement.as_ref().unwrap_or(&Placement::Parts) == placement
    }

    /// Whether it is known where the run's files stand.
    pub(crate) fn has_place(&self) -> bool {
        self.placement.is_some()
    }

    /// Makes sure that this version may touch what the run has left.
    ///
    /// # Errors
    /// Of the class `kind`, where a newer version wrote a record that this one would misread.
    pub(crate) fn check(&self, journal: &Journal, kind: ExportErrorKind) -> Result<(), ExportError> {
        let Some(version) = self.newer else { return Ok(()) };
        let message = format!(
            "run {} at {} was begun by {}, which wrote version {version} of run.json; this outhaul {} reads version {VERSION}",
            journal.run_id(),
            journal.destination_url(),
            self.writer(),
            env!("CARGO_PKG_VERSION"),
        );
        Err(ExportError::new(kind, message).with_hint("use that version of outhaul, or a newer one"))
    }

    /// The program that wrote it, for people.
    pub(crate) fn writer(&self) -> String {
        self.outhaul_version
            .as_ref()
            .map_or("another version of outhaul".to_owned(), |version| format!("outhaul {version}"))
    }

    fn unknown() -> Self {
        Self {
            outhaul_version: None,
            created_at: None,
            seed: None,
            visibility: None,
            placement: None,
            encryption: ObjectOptions::default(),
            newer: None,
        }
    }
}

/// The bytes of `run.json`.
fn bytes(
    run_id: &str,
    created_at: DateTime<Utc>,
    seed: AttemptSeed,
    visibility: Visibility,
    placement: &Placement,
    objects: &ObjectOptions,
) -> Result<Vec<u8>, ExportError> {
    let visibility = match visibility {
        Visibility::AtCommit => "at_commit",
        Visibility::AsWritten => "as_written",
    };
    let (kind, name) = match placement {
        Placement::Parts => ("parts", None),
        Placement::Single { name } => ("single", Some(name.clone())),
    };
    let file = RunFile {
        version: VERSION,
        run_id,
        outhaul_version: env!("CARGO_PKG_VERSION"),
        created_at,
        seed: seed.to_hex(),
        visibility,
        placement: PlacementFile { kind: kind.to_owned(), name },
        encryption: objects.sse.map(|sse| EncryptionFile {
            sse,
            kms_key_id: objects.sse_kms_key_id.clone(),
            bucket_key: objects.sse_bucket_key,
        }),
    };
    serde_json::to_vec(&file).map_err(|error| ExportError::internal("writing run.json").with_source(error))
}

/// What a `run.json` says; `None` where it is none.
fn of_run(bytes: &[u8]) -> Option<RunIdentity> {
    let file: FoundFile = serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::warn!(why = unreadable(error), "the run.json of a dead run is passed over"))
        .ok()?;
    Some(RunIdentity {
        outhaul_version: file.outhaul_version,
        created_at: file.created_at,
        seed: file.seed.as_deref().and_then(AttemptSeed::from_hex),
        visibility: match file.visibility.as_deref() {
            Some("at_commit") => Some(Visibility::AtCommit),
            Some("as_written") => Some(Visibility::AsWritten),
            _ => None,
        },
        placement: file.placement.and_then(|PlacementFile { kind, name }| match (kind.as_str(), name) {
            ("parts", _) => Some(Placement::Parts),
            ("single", Some(name)) => Some(Placement::Single { name }),
            _ => None,
        }),
        encryption: file.encryption.map_or_else(ObjectOptions::default, |found| ObjectOptions {
            sse: Some(found.sse),
            sse_kms_key_id: found.kms_key_id,
            sse_bucket_key: found.bucket_key,
            ..ObjectOptions::default()
        }),
        newer: (file.version > VERSION).then_some(file.version),
    })
}

/// What the `plan.json` of a run without a readable `run.json` says.
fn of_plan(bytes: &[u8]) -> RunIdentity {
    let found = serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::warn!(why = unreadable(error), "the plan.json of a dead run is passed over"));
    let Ok(InPlan { outhaul_version, created_at, seed, commit }) = found else { return RunIdentity::unknown() };
    let placement = commit.as_ref().and_then(|commit| {
        let target = commit.target.as_ref()?;
        Some(locate(&target.destination, commit.single_file).ok()?.1)
    });
    let visibility = match commit.and_then(|commit| commit.visibility).as_deref() {
        Some("AtCommit") => Some(Visibility::AtCommit),
        Some("AsWritten") => Some(Visibility::AsWritten),
        _ => None,
    };
    RunIdentity { outhaul_version, created_at, seed, visibility, placement, ..RunIdentity::unknown() }
}

/// A member of which nothing is known where it has another type.
fn lenient<'de, T: serde::de::DeserializeOwned, D: serde::Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/run_v1");

    fn seed() -> AttemptSeed {
        AttemptSeed::from_hex("00ce61faa0b26aa9").unwrap()
    }

    fn kinds() -> [(&'static str, Visibility, Placement, ObjectOptions); 3] {
        let encryption = ObjectOptions {
            sse: Some(ServerSideEncryption::Kms),
            sse_kms_key_id: Some("alias/lake".to_owned()),
            sse_bucket_key: Some(true),
            ..ObjectOptions::default()
        };
        let single = Placement::Single { name: "orders \"7\".csv".to_owned() };
        [
            ("parts", Visibility::AtCommit, Placement::Parts, ObjectOptions::default()),
            ("single", Visibility::AsWritten, single, ObjectOptions::default()),
            ("encrypted", Visibility::AtCommit, Placement::Parts, encryption),
        ]
    }

    #[test]
    fn the_goldens_are_what_is_written_today_and_are_read() {
        for (name, visibility, placement, encryption) in kinds() {
            let created_at = "2026-11-28T17:44:27.152983017Z".parse().unwrap();
            let written =
                bytes("20261128T174427Z-9f3a2b1c", created_at, seed(), visibility, &placement, &encryption).unwrap();
            let file = format!("{GOLDEN}/{name}.json");
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(GOLDEN).unwrap();
                std::fs::write(&file, &written).unwrap();
            }
            let golden = std::fs::read(&file).unwrap();
            let version = |bytes: &[u8]| {
                let mut json: Value = serde_json::from_slice(bytes).unwrap();
                json["outhaul_version"].take();
                json.to_string()
            };
            assert_eq!(
                version(&written),
                version(&golden),
                "version 1 is a promise: only additions, then UPDATE_GOLDEN=1"
            );
            let found = of_run(&golden).unwrap();
            assert_eq!((found.seed, found.visibility, found.newer), (Some(seed()), Some(visibility), None));
            assert!(found.is_of(&placement));
            assert_eq!(found.encryption, encryption);
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-11-28T17:44:27Z".parse().unwrap()
    }

    fn changed(member: &str, value: Value) -> RunIdentity {
        let plain = ObjectOptions::default();
        let mut json: Value = serde_json::from_slice(
            &bytes("r", now(), seed(), Visibility::AtCommit, &Placement::Parts, &plain).unwrap(),
        )
        .unwrap();
        json[member] = value;
        of_run(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_a_later_version_adds_is_ignored_and_what_it_changes_is_not_known() {
        let plain = changed("later", json!({"a": [1]}));
        assert_eq!(plain.created_at, Some(now()));
        assert_eq!((plain.seed, plain.visibility), (Some(seed()), Some(Visibility::AtCommit)));
        assert_eq!(changed("visibility", json!("in_turns")).visibility, None);
        assert_eq!(changed("seed", json!(7)).seed, None);
        assert_eq!(changed("created_at", json!("yesterday")), RunIdentity { created_at: None, ..plain.clone() });
        assert_eq!(changed("placement", json!({"kind": "tree"})).placement, None);
        assert_eq!(changed("encryption", json!({"sse": "later"})), plain);
        assert_eq!(changed("version", json!(2)).newer, Some(2));
        for broken in ["", "{", "[]", "{}", r#"{"version":1"#, r#"{"version":-1}"#] {
            assert_eq!(of_run(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn the_facts_of_a_run_without_a_run_json_are_taken_from_its_plan() {
        let mut plan = json!({
            "version": 1, "outhaul_version": "0.1.0", "seed": {"seed": 14_870_677_380_082_802_409_u64},
            "commit": {"target": {"Destination": "/tmp/x/out.csv"}, "visibility": "AsWritten", "single_file": true},
            "plan": {"anything": [1, null]},
        });
        let found = of_plan(plan.to_string().as_bytes());
        assert_eq!(found.outhaul_version.as_deref(), Some("0.1.0"));
        assert_eq!(found.seed.unwrap().to_hex(), format!("{:016x}", 14_870_677_380_082_802_409_u64));
        assert_eq!(found.visibility, Some(Visibility::AsWritten));
        assert!(found.is_of(&Placement::Single { name: "out.csv".to_owned() }) && !found.is_of(&Placement::Parts));

        plan["commit"]["single_file"] = json!(false);
        plan["commit"]["visibility"] = json!({"later": 1});
        let found = of_plan(plan.to_string().as_bytes());
        assert!(found.is_of(&Placement::Parts) && found.visibility.is_none() && found.seed.is_some());
        for broken in ["", "{", "[]", "\u{0}\u{1}", r#"{"version":99}"#] {
            let found = of_plan(broken.as_bytes());
            assert!(found.is_of(&Placement::Parts) && found.seed.is_none(), "{broken:?}");
        }
    }
}
