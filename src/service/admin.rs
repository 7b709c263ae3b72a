//! The operator's listener: metrics, whether the process lives, whether it takes requests.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::Service;
use crate::base::telemetry::exporter::Exporter;

/// What the operator may ask.
pub(crate) fn router(service: Arc<Service>, metrics: Arc<Exporter>) -> Router {
    let metrics = get(move || {
        let text = metrics.text();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response() }
    });
    Router::new()
        .route("/metrics", metrics)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(service)
}

/// Not while it stops: whoever balances load is to send nobody any more.
async fn ready(State(service): State<Arc<Service>>) -> (StatusCode, &'static str) {
    if service.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}
