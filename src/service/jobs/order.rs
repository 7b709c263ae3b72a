//! What a job exports, as its row keeps it, and the engine's request for it. The question is judged anew by each attempt: what
//! is not granted any more is not exported.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ServiceState;
use super::super::access::Caller;
use super::super::problem::Refusal;
use super::super::query;
use super::super::question::{Question, StreamFormat};
use super::super::state::JobRecord;
use crate::export::ExportRequest;
use crate::model::{Compression, ScopeCondition, Target};

/// The levels that the command line has where none is said.
const ZSTD_LEVEL: i32 = 1;
const GZIP_LEVEL: u32 = 6;

/// The formats of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobFormat {
    #[default]
    Ndjson,
    Csv,
    Parquet,
}

impl JobFormat {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// As a stream has it, where one can.
    pub(crate) const fn streamed(self) -> Option<StreamFormat> {
        match self {
            Self::Ndjson => Some(StreamFormat::Ndjson),
            Self::Csv => Some(StreamFormat::Csv),
            Self::Parquet => None,
        }
    }
}

/// The codec of a name, where the format has it.
///
/// # Errors
/// There is no such codec, or not for this format.
pub(crate) fn compression(name: Option<&str>, format: JobFormat) -> Result<Compression, Refusal> {
    let parquet = format == JobFormat::Parquet;
    match name {
        None if parquet => Ok(Compression::Zstd(ZSTD_LEVEL)),
        None | Some("none") => Ok(Compression::None),
        Some("zstd") => Ok(Compression::Zstd(ZSTD_LEVEL)),
        Some("gzip") => Ok(Compression::Gzip(GZIP_LEVEL)),
        Some("snappy") if parquet => Ok(Compression::Snappy),
        Some("lz4") if parquet => Ok(Compression::Lz4),
        Some(_) => {
            let codecs = if parquet { "none, snappy, lz4, zstd, gzip" } else { "none, zstd, gzip" };
            Err(Refusal::invalid(format!("compression: {} has one of {codecs}", format.name())))
        }
    }
}

/// What the row keeps.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JobOrder {
    pub(crate) question: Question,
    pub(crate) format: JobFormat,
    pub(crate) compression: Compression,
    /// Those of a bucket.
    pub(crate) conditions: Vec<ScopeCondition>,
    pub(crate) tenant: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) tier: String,
    pub(crate) max_rows: Option<NonZeroU64>,
    pub(crate) credential: String,
}

/// The engine's request for a job.
///
/// # Errors
/// What was asked for is not granted any more, or the database cannot be asked what it has.
pub(crate) async fn request(service: &ServiceState, job: &JobRecord) -> Result<ExportRequest, Refusal> {
    let unreadable = |_| Refusal::invalid("the request of the job cannot be read");
    let order: JobOrder = serde_json::from_str(&job.request).map_err(unreadable)?;
    let gone = || Refusal::invalid("the dataset is not served any more");
    let dataset = service.config.datasets.get(&job.dataset).ok_or_else(gone)?;
    let JobOrder { question, format, compression, conditions, tenant, user, tier, max_rows, credential } = order;
    let caller = Caller::recorded(tenant, user, tier, max_rows, credential);
    let described = service.described(dataset).await?;
    let mut scope = question.scope(dataset, described, &caller)?;
    scope.conditions.extend(conditions);
    let template = dataset.jobs.get(format.name()).ok_or_else(gone)?.clone();
    let labelled = dataset.labels && format == JobFormat::Csv;
    let mut request = query::fill(template, labelled, &question, dataset, &caller, &scope)?;
    request.format.compression = compression;
    job.id.clone_into(&mut request.commit.run_id);
    request.commit.run_id_given = true;
    request.commit.target = Target::Destination(job.destination.clone());
    request.commit.aws_credential_command = service.config.credentials_of(&job.destination).cloned();
    Ok(request)
}
