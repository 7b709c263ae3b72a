//! Pages of other origins: those that are listed may ask, and read what a stream says of itself.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ServiceState;

const EXPOSED: &str = "link, location, preference-applied, retry-after, content-disposition, x-request-id, x-outhaul-export-id, \
    x-outhaul-export-truncated-hint, x-outhaul-export-end-record, etag, accept-ranges, content-range";

const ALLOWED: &str = "authorization, content-type, prefer, idempotency-key, last-event-id, range, if-range, if-match, \
    if-none-match, x-outhaul-database-authorization";

/// Adds what a browser wants to know, and answers what it asks beforehand. A key comes in a header of its own, so that no
/// page asks with what the browser has of somebody.
pub(crate) async fn cors(State(service): State<Arc<ServiceState>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let listed =
        |origin: &HeaderValue| service.config.cors_origins.iter().any(|known| known.as_bytes() == origin.as_bytes());
    let asks = request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let allowed = origin.filter(listed);
    let mut response = if asks && allowed.is_some() {
        let answers = [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, DELETE"),
            (ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        (StatusCode::NO_CONTENT, answers).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}
