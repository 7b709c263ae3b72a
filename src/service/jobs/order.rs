//! What a job exports, as its row keeps it, and the engine's request for it. The question is judged anew by each attempt: what
//! is not granted any more is not exported.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ServiceState;
use super::super::access::Caller;
use super::super::problem::Refusal;
use super::super::query;
use super::super::question::{Question, StreamFormat};
use super::super::state::JobRecord;
use crate::base::failpoint;
use crate::config::service::Dataset;
use crate::export::ExportRequest;
use crate::model::{Compression, DescribedRelation, ScopeCondition, Target};

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

impl From<StreamFormat> for JobFormat {
    fn from(format: StreamFormat) -> Self {
        match format {
            StreamFormat::Ndjson => Self::Ndjson,
            StreamFormat::Csv => Self::Csv,
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
    /// Of whose bucket it is.
    pub(crate) analysis: Option<String>,
    /// Those of the bucket.
    pub(crate) conditions: Vec<ScopeCondition>,
    pub(crate) tenant: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) tier: String,
}

/// By what its rows were chosen.
pub(crate) struct JobRows<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) described: Arc<DescribedRelation>,
}

/// The engine's request for a job.
///
/// # Errors
/// What was asked for is not granted any more, or the database cannot be asked what it has.
pub(crate) async fn request<'a>(
    service: &'a ServiceState,
    job: &JobRecord,
) -> Result<(ExportRequest, JobRows<'a>), Refusal> {
    let unreadable = |_| Refusal::invalid("the request of the job cannot be read");
    let order: JobOrder = serde_json::from_str(&job.request).map_err(unreadable)?;
    let gone = || Refusal::invalid("the dataset is not served any more");
    let dataset = service.config.datasets.get(&job.dataset).ok_or_else(gone)?;
    let JobOrder { question, format, compression, analysis, conditions, tenant, user, tier } = order;
    let max_rows =
        *service.config.tiers.get(&tier).ok_or_else(|| Refusal::forbidden("the tier is not there any more"))?;
    // Whose row it is; which key or token asked is of no account any more.
    let (own, credential) = (job.tenant.clone(), job.credential.clone());
    let caller = Caller { credential, own, datasets: None, tenant, user, tier, max_rows };
    let granted = match &analysis {
        None => caller.may_query(dataset),
        Some(name) => dataset.analyses.get(name).is_some_and(|analysis| caller.may_analyze(analysis)),
    };
    if !granted {
        return Err(Refusal::forbidden("the tier may not have these rows any more"));
    }
    let described = service.described(dataset).await?;
    let scope = question.scope(dataset, &described, &caller, &conditions)?;
    let template = dataset.jobs.get(format.name()).ok_or_else(gone)?.clone();
    let labelled = dataset.labels && format == JobFormat::Csv;
    let mut request = query::fill(template, labelled, &question, dataset, &caller, &scope)?;
    request.format.compression = compression;
    job.id.clone_into(&mut request.commit.run_id);
    request.commit.run_id_given = true;
    // Whoever had the job before has lost its lease.
    request.commit.take_over = !failpoint::off("job_take_over");
    request.commit.target = Target::Destination(job.destination.clone());
    request.commit.aws_credential_command = service.config.credentials_of(&job.destination).cloned();
    Ok((request, JobRows { dataset, described }))
}
