//! The format of `_manifest.json`. Version 1, of rows, is described for others by `config/manifest.v1.schema.json`; version 2 is
//! of bytes that the source made, and says nothing of rows.
//!
//! The structs here are the format and nothing else is: a field renamed in [`model`](super::model) changes no file.
//! Readers ignore fields they do not know and keep unknown values of `source.kind`, `consistency.mode` and `range.kind` as
//! text, so both can grow; whatever a reader of them would misread needs `version` 3.

mod format;
mod parts;

use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::model::{
    FormatKind, FormatRecord, Manifest, ManifestSource, PartEntry, RowCapRecord, SchemaColumn, SourceKey, SourceName,
    Totals,
};
pub(crate) use parts::crc64nvme_text;

use format::WireFormat;
use parts::WirePart;

use crate::model::{
    Consistency, ConsistencyMode, KeyValue, RowOrder, RowsAvailable, RunStatus, SnapshotRecord, SourceIdentity,
    SourceKind, Watermark, micros,
};

/// What `format` says in every manifest.
pub const FORMAT: &str = "outhaul-manifest";

/// The newest version that this build reads.
pub const VERSION: u64 = VERSION_OF_BYTES;

/// The version of an export of rows.
const VERSION_OF_ROWS: u64 = 1;

/// The version of an export of bytes that the source made.
const VERSION_OF_BYTES: u64 = 2;

/// Why bytes are no manifest that this build can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are named for what they hold, and each message says it")]
pub enum WireError {
    /// The JSON is broken, or a field is missing or of a wrong type; serde's message names it.
    #[error("not a manifest that this build can read")]
    Json(#[from] serde_json::Error),
    /// `format` is somebody else's.
    #[error("format is {found:?} where a manifest says {FORMAT:?}")]
    Format { found: String },
    /// Written by a newer build.
    #[error("manifest version {found} is newer than {VERSION}, the newest this build reads; use a newer outhaul")]
    Version { found: u64 },
    /// A value that the field cannot have.
    #[error("{field} has the value {found:?}: {reason}")]
    Value { field: &'static str, found: String, reason: &'static str },
}

impl Manifest {
    /// The bytes of `_manifest.json`: JSON indented by two spaces, ending in a newline.
    ///
    /// # Errors
    /// [`WireError::Json`], should serde refuse a value.
    pub fn to_json(&self) -> Result<Vec<u8>, WireError> {
        let mut bytes = serde_json::to_vec_pretty(&WireManifest::from(self))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what [`Manifest::to_json`] wrote, or what a later build did in these versions.
    ///
    /// # Errors
    /// [`WireError`], by field.
    pub fn from_json(bytes: &[u8]) -> Result<Self, WireError> {
        let header: Header = serde_json::from_slice(bytes)?;
        if header.format != FORMAT {
            return Err(WireError::Format { found: header.format });
        }
        if header.version > VERSION {
            return Err(WireError::Version { found: header.version });
        }
        if header.version == 0 {
            return Err(WireError::Value { field: "version", found: "0".into(), reason: "versions begin at 1" });
        }
        serde_json::from_slice::<WireManifest>(bytes)?.try_into()
    }
}

/// Read first, so that another version's fields are not complained of.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct WireManifest {
    format: String,
    version: u64,
    run_id: String,
    nonce: String,
    outhaul_version: String,
    #[serde(with = "micros")]
    created_at: DateTime<Utc>,
    #[serde(with = "micros")]
    finished_at: DateTime<Utc>,
    status: RunStatus,
    source: WireSource,
    consistency: WireConsistency,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completeness: Option<WireCompleteness>,
    row_cap: WireRowCap,
    schema: Vec<SchemaColumn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    partition_by: Vec<SchemaColumn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protection_key: Option<String>,
    format_options: WireFormat,
    totals: Totals,
    parts: Vec<WirePart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watermark: Option<Watermark>,
}

/// Exactly one of `relation` and `query` is there.
#[derive(Serialize, Deserialize)]
struct WireSource {
    kind: SourceKind,
    server_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    predicate: Option<String>,
    key: Vec<SourceKey>,
    standby: bool,
    #[serde(default)]
    row_security: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<SourceIdentity>,
}

#[derive(Serialize, Deserialize)]
struct WireTime(#[serde(with = "micros")] DateTime<Utc>);

#[derive(Serialize, Deserialize)]
struct WireConsistency {
    mode: ConsistencyMode,
    snapshots: Vec<SnapshotRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    now: Option<WireTime>,
    note: Option<String>,
}

/// What shows that nothing is missing, where the source says it.
#[derive(Serialize, Deserialize)]
struct WireCompleteness {
    proof: String,
}

#[derive(Serialize, Deserialize)]
struct WireRowCap {
    tier: Option<String>,
    max_rows: Option<NonZeroU64>,
    truncated: bool,
    rows_available: WireAvailable,
    order: RowOrder,
    boundary: Option<KeyValue>,
}

#[derive(Serialize, Deserialize)]
struct WireAvailable {
    kind: AvailableKind,
    value: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AvailableKind {
    Exact,
    AtLeast,
    Unknown,
}

impl From<RowsAvailable> for WireAvailable {
    fn from(available: RowsAvailable) -> Self {
        let (kind, value) = match available {
            RowsAvailable::Exact(rows) => (AvailableKind::Exact, Some(rows)),
            RowsAvailable::AtLeast(rows) => (AvailableKind::AtLeast, Some(rows)),
            RowsAvailable::Unknown => (AvailableKind::Unknown, None),
        };
        Self { kind, value }
    }
}

impl TryFrom<WireAvailable> for RowsAvailable {
    type Error = WireError;

    fn try_from(wire: WireAvailable) -> Result<Self, WireError> {
        match (wire.kind, wire.value) {
            (AvailableKind::Exact, Some(rows)) => Ok(Self::Exact(rows)),
            (AvailableKind::AtLeast, Some(rows)) => Ok(Self::AtLeast(rows)),
            (AvailableKind::Unknown, _) => Ok(Self::Unknown),
            (AvailableKind::Exact | AvailableKind::AtLeast, None) => Err(WireError::Value {
                field: "row_cap.rows_available.value",
                found: "null".into(),
                reason: "a count that is known has a value",
            }),
        }
    }
}

impl From<&ManifestSource> for WireSource {
    fn from(source: &ManifestSource) -> Self {
        let (relation, query) = match &source.name {
            SourceName::Relation(name) => (Some(name.clone()), None),
            SourceName::Query(text) => (None, Some(text.clone())),
        };
        Self {
            kind: source.kind.clone(),
            server_version: source.server_version.clone(),
            relation,
            query,
            predicate: source.predicate.clone(),
            key: source.key.clone(),
            standby: source.standby,
            row_security: source.row_security,
            identity: source.identity.clone(),
        }
    }
}

impl TryFrom<WireSource> for ManifestSource {
    type Error = WireError;

    fn try_from(wire: WireSource) -> Result<Self, WireError> {
        let name = match (wire.relation, wire.query) {
            (Some(name), None) => SourceName::Relation(name),
            (None, Some(text)) => SourceName::Query(text),
            (relation, _) => {
                return Err(WireError::Value {
                    field: "source.relation",
                    found: relation.unwrap_or_default(),
                    reason: "exactly one of relation and query must be there",
                });
            }
        };
        Ok(Self {
            kind: wire.kind,
            server_version: wire.server_version,
            name,
            predicate: wire.predicate,
            key: wire.key,
            standby: wire.standby,
            row_security: wire.row_security,
            identity: wire.identity,
        })
    }
}

impl From<&Manifest> for WireManifest {
    fn from(manifest: &Manifest) -> Self {
        let Manifest { consistency, row_cap, .. } = manifest;
        Self {
            format: FORMAT.into(),
            version: if manifest.totals.rows.is_some() { VERSION_OF_ROWS } else { VERSION_OF_BYTES },
            run_id: manifest.run_id.clone(),
            nonce: manifest.nonce.clone(),
            outhaul_version: manifest.outhaul_version.clone(),
            created_at: manifest.created_at,
            finished_at: manifest.finished_at,
            status: manifest.status,
            source: (&manifest.source).into(),
            consistency: WireConsistency {
                mode: consistency.mode.clone(),
                snapshots: consistency.snapshots.clone(),
                now: consistency.now.map(WireTime),
                note: consistency.note.clone(),
            },
            completeness: consistency.proof.clone().map(|proof| WireCompleteness { proof }),
            row_cap: WireRowCap {
                tier: row_cap.tier.clone(),
                max_rows: row_cap.max_rows,
                truncated: row_cap.truncated,
                rows_available: row_cap.available.into(),
                order: row_cap.order,
                boundary: row_cap.boundary.clone(),
            },
            schema: manifest.schema.clone(),
            partition_by: manifest.partition_by.clone(),
            dropped: manifest.dropped.clone(),
            protection_key: manifest.protection_key.clone(),
            format_options: (&manifest.format).into(),
            totals: manifest.totals,
            parts: manifest.parts.iter().map(WirePart::from).collect(),
            watermark: manifest.watermark.clone(),
        }
    }
}

impl TryFrom<WireManifest> for Manifest {
    type Error = WireError;

    fn try_from(wire: WireManifest) -> Result<Self, WireError> {
        let of_rows = wire.version == VERSION_OF_ROWS;
        let parts = wire.parts.into_iter().map(PartEntry::try_from).collect::<Result<Vec<_>, _>>()?;
        let format = FormatRecord::try_from(wire.format_options)?;
        let told = [wire.totals.rows.is_some(), format.kind != FormatKind::Source];
        if told.into_iter().chain(parts.iter().map(|part| part.rows.is_some())).any(|rows| rows != of_rows) {
            return Err(WireError::Value {
                field: "version",
                found: wire.version.to_string(),
                reason: "version 1 counts the rows of each part, and version 2, of bytes of the source, counts none",
            });
        }
        let WireRowCap { tier, max_rows, truncated, rows_available, order, boundary } = wire.row_cap;
        let WireConsistency { mode, snapshots, now, note } = wire.consistency;
        Ok(Self {
            run_id: wire.run_id,
            nonce: wire.nonce,
            outhaul_version: wire.outhaul_version,
            created_at: wire.created_at,
            finished_at: wire.finished_at,
            status: wire.status,
            source: wire.source.try_into()?,
            consistency: Consistency {
                mode,
                snapshots,
                now: now.map(|now| now.0),
                note,
                proof: wire.completeness.map(|it| it.proof),
            },
            row_cap: RowCapRecord { tier, max_rows, truncated, available: rows_available.try_into()?, order, boundary },
            schema: wire.schema,
            partition_by: wire.partition_by,
            dropped: wire.dropped,
            protection_key: wire.protection_key,
            format,
            totals: wire.totals,
            parts,
            watermark: wire.watermark,
        })
    }
}

#[cfg(test)]
mod tests;
