//! `GET /v1/datasets`: what the caller may ask for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::ServiceState;
use super::problem::{ProblemBody, Refusal};

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatasetList {
    datasets: Vec<DatasetView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatasetView {
    name: String,
    #[schema(value_type = Vec<String>)]
    formats: [&'static str; 2],
    max_rows: Option<u64>,
    date_column: Option<String>,
    columns: Vec<GrantedColumnView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantedColumnView {
    name: String,
    label: Option<String>,
    filter: bool,
    sort: bool,
}

/// Answers with the datasets whose rows the caller may have.
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
    let may = service.config.datasets.values().filter(|dataset| caller.may_query(dataset));
    let datasets = may.map(|dataset| {
        let column = |(name, column): (&String, &crate::config::service::DatasetColumn)| GrantedColumnView {
            name: name.clone(),
            label: column.label.clone(),
            filter: column.filter,
            sort: column.sort,
        };
        DatasetView {
            name: dataset.name.clone(),
            formats: ["ndjson", "csv"],
            max_rows: caller.max_rows.map(std::num::NonZeroU64::get),
            date_column: dataset.date_column.clone(),
            columns: dataset.columns.iter().map(column).collect(),
        }
    });
    Ok(Json(DatasetList { datasets: datasets.collect() }))
}
