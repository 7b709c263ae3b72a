//! The file of a receipt, `receipts/<partition>-<attempt>.json`, which outlives the version that wrote it (invariant I12).
//!
//! The structs here are the format, and a field that is renamed in [`receipt`](crate::model::receipt) changes no file. Readers
//! ignore members that they do not know.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::{AmountRead, ColumnSummary, FolderValue, PartReceipt, PartitionReceipt, StagedObject, Staging};

/// A partition that was read to its end and uploaded whole.
#[derive(Serialize, Deserialize)]
pub(super) struct ReceiptFile {
    partition: u32,
    attempt: u32,
    /// Of rows; `bytes_read` where nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows_read: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_read: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    beyond_cap: bool,
    parts: Vec<PartFile>,
}

#[derive(Serialize, Deserialize)]
struct PartFile {
    object: ObjectFile,
    roll: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    folders: Vec<FolderFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    header_rows: u32,
    header_bytes: u64,
    columns: Vec<ColumnFile>,
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
}

/// A folder that the part is in, and the value of all its rows; `None` is NULL.
#[derive(Serialize, Deserialize)]
struct FolderFile {
    column: String,
    value: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ObjectFile {
    path: String,
    bytes: u64,
    crc64nvme: u64,
    sha256: Option<String>,
    staging: StagingFile,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum StagingFile {
    Local { file: String },
    Multipart { upload_id: String, chunks: Vec<String> },
    Published,
}

#[derive(Serialize, Deserialize)]
struct ColumnFile {
    name: String,
    nulls: u64,
    min: Option<String>,
    max: Option<String>,
    exact: bool,
    #[serde(default)]
    changed: u64,
}

impl From<&PartitionReceipt> for ReceiptFile {
    fn from(receipt: &PartitionReceipt) -> Self {
        let PartitionReceipt { partition, attempt, read, beyond_cap, ref parts } = *receipt;
        let parts = parts.iter().map(PartFile::from).collect();
        let (rows_read, bytes_read) = match read {
            AmountRead::Rows(rows) => (Some(rows), None),
            AmountRead::Bytes(bytes) => (None, Some(bytes)),
        };
        Self { partition, attempt, rows_read, bytes_read, beyond_cap, parts }
    }
}

impl TryFrom<ReceiptFile> for PartitionReceipt {
    type Error = &'static str;

    fn try_from(file: ReceiptFile) -> Result<Self, Self::Error> {
        let ReceiptFile { partition, attempt, rows_read, bytes_read, beyond_cap, parts } = file;
        let read = match (rows_read, bytes_read) {
            (Some(rows), None) => AmountRead::Rows(rows),
            (None, Some(bytes)) => AmountRead::Bytes(bytes),
            _ => return Err("a receipt has rows_read or bytes_read"),
        };
        Ok(Self { partition, attempt, read, beyond_cap, parts: parts.into_iter().map(PartReceipt::from).collect() })
    }
}

impl From<&PartReceipt> for PartFile {
    fn from(part: &PartReceipt) -> Self {
        let StagedObject { path, bytes, crc64nvme, sha256, staging } = &part.object;
        let staging = match staging.clone() {
            Staging::Local { file } => StagingFile::Local { file },
            Staging::Multipart { upload_id, chunks } => StagingFile::Multipart { upload_id, chunks },
            Staging::Published => StagingFile::Published,
        };
        let column = |column: &ColumnSummary| {
            let ColumnSummary { name, nulls, min, max, exact, changed } = column.clone();
            ColumnFile { name, nulls, min, max, exact, changed }
        };
        let folder = |folder: &FolderValue| {
            let FolderValue { column, value } = folder.clone();
            FolderFile { column, value }
        };
        Self {
            object: ObjectFile {
                path: path.clone(),
                bytes: *bytes,
                crc64nvme: *crc64nvme,
                sha256: sha256.clone(),
                staging,
            },
            roll: part.roll,
            folders: part.folders.iter().map(folder).collect(),
            rows: part.rows,
            header_rows: part.header_rows,
            header_bytes: part.header_bytes,
            columns: part.columns.iter().map(column).collect(),
            started_at: part.started_at,
            finished_at: part.finished_at,
        }
    }
}

impl From<PartFile> for PartReceipt {
    fn from(file: PartFile) -> Self {
        let ObjectFile { path, bytes, crc64nvme, sha256, staging } = file.object;
        let staging = match staging {
            StagingFile::Local { file } => Staging::Local { file },
            StagingFile::Multipart { upload_id, chunks } => Staging::Multipart { upload_id, chunks },
            StagingFile::Published => Staging::Published,
        };
        let column = |column: ColumnFile| {
            let ColumnFile { name, nulls, min, max, exact, changed } = column;
            ColumnSummary { name, nulls, min, max, exact, changed }
        };
        let folder = |FolderFile { column, value }: FolderFile| FolderValue { column, value };
        Self {
            object: StagedObject { path, bytes, crc64nvme, sha256, staging },
            roll: file.roll,
            folders: file.folders.into_iter().map(folder).collect(),
            rows: file.rows,
            header_rows: file.header_rows,
            header_bytes: file.header_bytes,
            columns: file.columns.into_iter().map(column).collect(),
            started_at: file.started_at,
            finished_at: file.finished_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Every kind of staging, as 0.1.0 wrote it.
    fn written() -> Value {
        let part = |roll: u32, staging: Value| {
            json!({
                "object": {"path": format!("data/part-00003-{roll:03}-9f3a2b1c.csv"), "bytes": 12, "crc64nvme": u64::MAX,
                    "sha256": null, "staging": staging},
                "roll": roll, "rows": 2, "header_rows": 1, "header_bytes": 4,
                "columns": [{"name": "id", "nulls": 0, "min": "1", "max": null, "exact": true, "changed": 3}],
                "started_at": "2026-11-28T17:44:27.152983017Z", "finished_at": "2026-11-28T17:44:28Z",
            })
        };
        let parts = [
            part(0, json!({"kind": "local", "file": "_outhaul/run/staging/data/x"})),
            part(1, json!({"kind": "multipart", "upload_id": "id", "chunks": ["\"a\"", "\"b\""]})),
            part(2, json!({"kind": "published"})),
        ];
        json!({"partition": 3, "attempt": 2_671_389_468_u32, "rows_read": 6, "parts": parts})
    }

    fn read(json: Value) -> Result<PartitionReceipt, serde_json::Error> {
        serde_json::from_value::<ReceiptFile>(json)?.try_into().map_err(serde::de::Error::custom)
    }

    #[test]
    fn a_receipt_is_written_as_it_always_was() {
        let receipt = read(written()).unwrap();
        assert_eq!(receipt.parts.len(), 3);
        assert_eq!(serde_json::to_value(ReceiptFile::from(&receipt)).unwrap(), written());
    }

    #[test]
    fn the_folders_of_a_part_are_kept_with_their_values() {
        let mut json = written();
        json["parts"][1]["folders"] = json!([{"column": "dt", "value": "2026-11-28"}, {"column": "c", "value": null}]);
        let receipt = read(json.clone()).unwrap();
        assert_eq!(receipt.parts[0].folders, []);
        assert_eq!(receipt.parts[1].folders[0].value.as_deref(), Some("2026-11-28"));
        assert_eq!(receipt.parts[1].folders[1], FolderValue { column: "c".into(), value: None });
        assert_eq!(serde_json::to_value(ReceiptFile::from(&receipt)).unwrap(), json);
    }

    #[test]
    fn members_of_a_later_version_are_ignored_and_another_staging_is_refused() {
        let mut json = written();
        json["later"] = json!({"a": 1});
        json["parts"][0]["object"]["later"] = json!([1]);
        assert_eq!(read(json.clone()).unwrap(), read(written()).unwrap());
        json["parts"][0]["object"]["staging"] = json!({"kind": "later"});
        assert!(read(json).is_err());
        let mut old = written();
        old["parts"][0]["columns"][0].as_object_mut().unwrap().remove("changed");
        assert_eq!(read(old).unwrap().parts[0].columns[0].changed, 0);
    }
}
