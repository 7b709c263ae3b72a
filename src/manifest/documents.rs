//! Every file that a commit writes beside the parts.

use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use serde::Serialize;

use super::ddl::{self, Dialect};
use super::error::ManifestError;
use super::foreign::{REDSHIFT_PATH, SYMLINK_PATH, redshift, symlink};
use super::model::Manifest;
use super::placement::{Placement, SUCCESS_PATH};
use super::wire::{WireError, crc64nvme_text};
use crate::base::cpu::on_rayon;
use crate::model::RunStatus;
use crate::store::Destination;

pub(super) const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Every file that is written, made before anything is touched.
pub(super) struct Documents {
    pub(super) manifest: Bytes,
    redshift: Bytes,
    symlink: Bytes,
    ddl: Vec<(&'static str, Bytes)>,
    success: Bytes,
}

/// The body of `_SUCCESS`; pollers look only for the file.
#[derive(Serialize)]
struct Success {
    status: RunStatus,
    rows: u64,
    manifest_crc64nvme: String,
}

impl Documents {
    /// Those of a manifest that is to be written.
    pub(super) async fn of(manifest: Arc<Manifest>) -> Result<Self, ManifestError> {
        Self::with(manifest, None).await
    }

    /// Those of a manifest that stands already, as these bytes.
    pub(super) async fn of_standing(manifest: Arc<Manifest>, bytes: Bytes) -> Result<Self, ManifestError> {
        Self::with(manifest, Some(bytes)).await
    }

    async fn with(manifest: Arc<Manifest>, standing: Option<Bytes>) -> Result<Self, ManifestError> {
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
                redshift: redshift(&manifest)?.into(),
                symlink: symlink(&manifest).into(),
                ddl: Dialect::ALL.map(|dialect| (dialect.path(), ddl::file(&manifest, dialect).into())).into(),
                success: serde_json::to_vec(&success)?.into(),
            })
        });
        made.await?.map_err(|source| ManifestError::Serialize { run_id, source })
    }

    /// The foreign manifests and the DDL, then `_SUCCESS`.
    pub(super) async fn describe(&self, destination: &Destination, placement: &Placement) -> Result<(), ManifestError> {
        if matches!(placement, Placement::Single { .. }) {
            return Ok(());
        }
        let Documents { redshift, symlink, ddl, success, .. } = self;
        let manifests = [(REDSHIFT_PATH, redshift, JSON), (SYMLINK_PATH, symlink, TEXT)];
        let ddl = ddl.iter().map(|(path, bytes)| (*path, bytes, TEXT));
        for (what, bytes, content_type) in manifests.into_iter().chain(ddl).chain([(SUCCESS_PATH, success, JSON)]) {
            let put = destination.put(what, bytes.clone(), content_type).await;
            put.map_err(|source| ManifestError::Unfinished { what, source })?;
        }
        Ok(())
    }
}
