//! Every file that a commit writes beside the parts.

use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::error::ManifestError;
use super::model::Manifest;
use super::placement::{Placement, SUCCESS_PATH};
use super::wire::{WireError, crc64nvme_text};
use crate::base::cpu::on_rayon;
use crate::model::RunStatus;
use crate::store::Destination;

pub(super) const JSON: &str = "application/json";

/// Documents that are written to a store at the same time.
const WRITTEN_AT_ONCE: usize = 8;

/// A file beside the manifest, which says how others read the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it stands, relative to the destination.
    pub path: String,
    /// What it says.
    pub bytes: Bytes,
    /// Its media type.
    pub content_type: &'static str,
}

/// Makes the documents of a manifest, in the order in which they are written.
pub(crate) type Describe = fn(&Manifest) -> Result<Vec<Document>, serde_json::Error>;

/// Every file that is written, made before anything is touched.
pub(super) struct Documents {
    pub(super) manifest: Bytes,
    described: Vec<Document>,
    success: Bytes,
}

/// The body of `_SUCCESS`; pollers look only for the file.
#[derive(Serialize)]
struct Success {
    status: RunStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    manifest_crc64nvme: String,
}

impl Documents {
    /// Those of a manifest that is to be written.
    pub(super) async fn of(manifest: Arc<Manifest>, describe: Describe) -> Result<Self, ManifestError> {
        Self::with(manifest, None, describe).await
    }

    /// Those of a manifest that stands already, as these bytes.
    pub(super) async fn of_standing(
        manifest: Arc<Manifest>,
        bytes: Bytes,
        describe: Describe,
    ) -> Result<Self, ManifestError> {
        Self::with(manifest, Some(bytes), describe).await
    }

    async fn with(manifest: Arc<Manifest>, standing: Option<Bytes>, describe: Describe) -> Result<Self, ManifestError> {
        let run_id = manifest.run_id.clone();
        let made = on_rayon(move || {
            let json: Bytes = match standing {
                Some(bytes) => bytes,
                None => manifest.to_json()?.into(),
            };
            let success = Success {
                status: manifest.status,
                rows: manifest.totals.rows,
                manifest_crc64nvme: crc64nvme_text(checksum(CrcAlgorithm::Crc64Nvme, &json)),
            };
            Ok::<_, WireError>(Self {
                manifest: json,
                described: describe(&manifest)?,
                success: serde_json::to_vec(&success)?.into(),
            })
        });
        made.await?.map_err(|source| ManifestError::Serialize { run_id, source })
    }

    /// Writes the documents, then `_SUCCESS`.
    pub(super) async fn write(&self, destination: &Destination, placement: &Placement) -> Result<(), ManifestError> {
        if matches!(placement, Placement::Single { .. }) {
            return Ok(());
        }
        // They can be made again from the manifest (`outhaul ddl`), so no loss of power is feared for them.
        let mut writing = Vec::new();
        for document in &self.described {
            writing.push(async move {
                let put = destination.note(&document.path, document.bytes.clone(), document.content_type).await;
                put.map_err(|source| ManifestError::Unfinished { what: document.path.clone(), source })
            });
        }
        // Whoever is far away is waited for once; a folder here would only need more open files.
        let at_once = if destination.local_folder().is_some() { 1 } else { WRITTEN_AT_ONCE };
        stream::iter(writing).buffered(at_once).try_collect::<()>().await?;
        let put = destination.put(SUCCESS_PATH, self.success.clone(), JSON).await;
        put.map_err(|source| ManifestError::Unfinished { what: SUCCESS_PATH.to_owned(), source })
    }
}
