//! The description of the service for programs, and the table of routes that it is held against.

use std::sync::{Arc, LazyLock};

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{ServiceState, analyze, datasets, estimate, jobs, links, query, receipts, statement};

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Outhaul",
        description = "Rows over HTTP, as they are read. Authorization: Bearer KEY with each request.",
        license(name = "MIT OR Apache-2.0")
    ),
    modifiers(&BearerKey),
    security(("key" = [])),
    paths(
        query::export,
        estimate::estimate,
        analyze::analyze,
        analyze::rows,
        receipts::receipt,
        datasets::datasets,
        jobs::submit,
        jobs::list,
        jobs::cancel,
        jobs::events,
        links::download,
        links::part,
        links::manifest,
        statement::sources,
        statement::export,
    )
)]
struct ServiceDescription;

/// How a key is sent.
struct BearerKey;

impl Modify for BearerKey {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        description.components.get_or_insert_default().add_security_scheme("key", bearer);
    }
}

/// What is answered, by method and path.
pub(super) type Routes = Vec<(&'static str, &'static str, MethodRouter<Arc<ServiceState>>)>;

/// Everything that callers may ask.
pub(super) fn routes() -> Routes {
    vec![
        ("post", "/v1/query/{dataset}/export", post(query::export)),
        ("post", "/v1/query/{dataset}/estimate", post(estimate::estimate)),
        ("post", "/v1/analyze/{dataset}/{analysis}", post(analyze::analyze)),
        ("post", "/v1/analyze/{dataset}/{analysis}/rows/export", post(analyze::rows)),
        ("get", "/v1/exports/{id}", get(receipts::receipt)),
        ("delete", "/v1/exports/{id}", delete(jobs::cancel)),
        ("post", "/v1/exports", post(jobs::submit)),
        ("get", "/v1/exports", get(jobs::list)),
        ("get", "/v1/exports/{id}/events", get(jobs::events)),
        ("get", "/v1/exports/{id}/download", get(links::download)),
        ("get", "/v1/exports/{id}/parts/{number}", get(links::part)),
        ("get", "/v1/exports/{id}/manifest", get(links::manifest)),
        ("get", "/v1/datasets", get(datasets::datasets)),
        ("get", "/v1/clickhouse", get(statement::sources)),
        ("post", "/v1/clickhouse/{source}/export", post(statement::export)),
    ]
}

/// Answers with the description, to anybody: it names no dataset.
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| ServiceDescription::openapi().to_pretty_json().unwrap_or_default());
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_lists_what_the_router_answers() {
        let text = ServiceDescription::openapi().to_pretty_json().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut described: Vec<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (method.as_str(), path.as_str()))
            })
            .collect();
        let mut answered: Vec<(&str, &str)> = routes().iter().map(|(method, path, _)| (*method, *path)).collect();
        described.sort_unstable();
        answered.sort_unstable();
        assert_eq!(described, answered);
        let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");
        let text = text.replace(&version, "\"version\": \"0.0.0\"") + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(file, &text).unwrap();
        }
        assert!(std::fs::read_to_string(file).unwrap() == text, "tests/golden/openapi.json is of another version");
    }
}
