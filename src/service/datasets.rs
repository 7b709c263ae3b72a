//! `GET /v1/datasets`: what the caller may ask for.

use std::num::NonZeroU64;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::ServiceState;
use super::access::Caller;
use super::problem::{ProblemBody, Refusal};
use crate::config::service::{Dataset, DatasetColumn};

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatasetList {
    datasets: Vec<DatasetView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatasetView {
    name: String,
    /// Whether its rows can be asked for; an analysis may be granted alone.
    query: bool,
    #[schema(value_type = Vec<String>)]
    formats: [&'static str; 2],
    max_rows: Option<u64>,
    date_column: Option<String>,
    columns: Vec<GrantedColumnView>,
    analyses: Vec<AnalysisDescription>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnalysisDescription {
    name: String,
    /// The names of a bucket's dimensions and measures.
    dimensions: Vec<String>,
    measures: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantedColumnView {
    name: String,
    label: Option<String>,
    filter: bool,
    sort: bool,
}

/// Answers with the datasets of which the caller may have rows, or an analysis.
#[utoipa::path(
    get,
    path = "/v1/datasets",
    operation_id = "listDatasets",
    responses(
        (status = 200, description = "What the caller may ask for", body = DatasetList),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn datasets(
    State(service): State<Arc<ServiceState>>,
    headers: HeaderMap,
) -> Result<Json<DatasetList>, Refusal> {
    let caller = service.caller(&headers)?;
    let usable = service.config.datasets.values().filter(|dataset| caller.may_use(dataset));
    let datasets = usable.map(|dataset| DatasetView::of(dataset, &caller));
    let datasets = datasets.filter(|dataset| dataset.query || !dataset.analyses.is_empty());
    Ok(Json(DatasetList { datasets: datasets.collect() }))
}

impl DatasetView {
    fn of(dataset: &Dataset, caller: &Caller) -> Self {
        let column = |(name, column): (&String, &DatasetColumn)| GrantedColumnView {
            name: name.clone(),
            label: column.label.clone(),
            filter: column.filter,
            sort: column.sort,
        };
        let granted = dataset.analyses.iter().filter(|(_, analysis)| caller.may_analyze(analysis));
        let analyses = granted.map(|(name, analysis)| AnalysisDescription {
            name: name.clone(),
            dimensions: analysis.dimension_names(dataset).cloned().collect(),
            measures: analysis.measures.iter().map(|(kind, column)| kind.output(column)).collect(),
        });
        Self {
            name: dataset.name.clone(),
            query: caller.may_query(dataset),
            formats: ["ndjson", "csv"],
            max_rows: caller.max_rows.map(NonZeroU64::get),
            date_column: dataset.date_column.clone(),
            columns: dataset.columns.iter().map(column).collect(),
            analyses: analyses.collect(),
        }
    }
}
