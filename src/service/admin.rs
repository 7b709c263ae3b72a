//! The operator's listener: metrics, whether the process lives, whether it takes requests, and who asked for what.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::ServiceState;
use super::state::AuditRecord;
use crate::base::telemetry::exporter::Exporter;
use crate::base::telemetry::serving::{self, Usage};

/// What the operator may ask.
pub(crate) fn router(service: Arc<ServiceState>, metrics: Arc<Exporter>) -> Router {
    let used = Arc::clone(&service);
    let metrics = get(move || {
        let (streams, memory) = (used.limits.under_way(), &used.memory);
        serving::usage(Usage { streams, memory_reserved: memory.reserved(), memory: memory.bytes() });
        let text = metrics.text();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response() }
    });
    Router::new()
        .route("/metrics", metrics)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/audit", get(audit))
        .with_state(service)
}

/// Of whom, which is said in one of three ways, and how many records at most.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    tenant: Option<String>,
    /// A key without a tenant.
    key: Option<String>,
    /// The user of a token without one.
    user: Option<String>,
    #[serde(default = "usual")]
    most: u32,
}

impl AuditQuery {
    /// As records name him.
    fn owner(&self) -> Option<String> {
        match (&self.tenant, &self.key, &self.user) {
            (Some(name), None, None) => Some(format!("tenant:{name}")),
            (None, Some(name), None) => Some(format!("key:{name}")),
            (None, None, Some(name)) => Some(format!("user:{name}")),
            _ => None,
        }
    }
}

/// Records of one answer, unless it is said.
fn usual() -> u32 {
    100
}

/// Who asked for what, the newest first.
#[derive(Debug, Serialize)]
struct AuditView {
    at: DateTime<Utc>,
    request_id: String,
    client: Option<String>,
    user: Option<String>,
    credential: String,
    action: String,
    dataset: String,
    export_id: Option<String>,
    outcome: String,
    rows: Option<u64>,
    statement: Option<String>,
}

/// The newest records of a tenant, or of a caller without one.
async fn audit(
    State(service): State<Arc<ServiceState>>,
    Query(asked): Query<AuditQuery>,
) -> Result<Json<Vec<AuditView>>, (StatusCode, &'static str)> {
    let one = (StatusCode::BAD_REQUEST, "name one of tenant, key and user, as in /audit?tenant=7\n");
    let found = service.store.audits(asked.owner().ok_or(one)?, asked.most).await;
    let records = found.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "the state store does not answer\n"))?;
    let view = |record: AuditRecord| AuditView {
        at: record.at,
        request_id: record.request_id,
        client: record.client,
        user: record.user,
        credential: record.credential,
        action: record.action,
        dataset: record.dataset,
        export_id: record.export_id,
        outcome: record.outcome,
        rows: record.rows,
        statement: record.statement,
    };
    Ok(Json(records.into_iter().map(view).collect()))
}

/// Not while it stops: whoever balances load is to send nobody any more.
async fn ready(State(service): State<Arc<ServiceState>>) -> (StatusCode, &'static str) {
    if service.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}
