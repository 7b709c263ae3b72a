//! The page at `/` on which a person exports rows, and the scripts that pages of others use: all of them in the binary.

use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::ServiceState;
use super::prefix::BarePrefix;
use super::tags::is_known;
use crate::base::text::number::hex_text;

/// One file.
#[derive(Debug, Clone, Copy)]
struct Asset {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const ASSETS: [Asset; 11] = [
    Asset { path: "/", media_type: "text/html; charset=utf-8", text: include_str!("page.html") },
    Asset { path: "/console.css", media_type: "text/css; charset=utf-8", text: include_str!("console.css") },
    Asset { path: "/console.js", media_type: SCRIPT, text: include_str!("console.js") },
    Asset { path: "/form.js", media_type: SCRIPT, text: include_str!("form.js") },
    Asset { path: "/save.js", media_type: SCRIPT, text: include_str!("save.js") },
    Asset { path: "/jobs.js", media_type: SCRIPT, text: include_str!("jobs.js") },
    Asset { path: "/format.js", media_type: SCRIPT, text: include_str!("format.js") },
    Asset { path: "/statement.js", media_type: SCRIPT, text: include_str!("statement.js") },
    Asset { path: "/client.js", media_type: SCRIPT, text: include_str!("../client/client.js") },
    Asset { path: "/client.d.ts", media_type: SCRIPT, text: include_str!("../client/client.d.ts") },
    Asset { path: "/use-export-rows.js", media_type: SCRIPT, text: include_str!("../client/use-export-rows.js") },
];

/// The page may load what is of this service, and nothing else; nothing in it may become a script, and no other page may
/// frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Answers with the files.
pub(super) fn router() -> Router<Arc<ServiceState>> {
    ASSETS.into_iter().fold(Router::new(), |router, asset| {
        let etag = etag(asset.text);
        let answered = async move |bare: Option<Extension<BarePrefix>>, headers: HeaderMap| match bare {
            Some(Extension(BarePrefix(prefix))) => Redirect::permanent(&format!("{prefix}/")).into_response(),
            None => answer(asset, &etag, &headers),
        };
        router.route(asset.path, get(answered))
    })
}

/// A browser asks each time whether its copy is that of the service, which may have another version since.
fn answer(asset: Asset, etag: &str, headers: &HeaderMap) -> Response {
    let mut response = if is_known(headers, etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, asset.media_type)], asset.text).into_response()
    };
    let fixed = [(CACHE_CONTROL, "no-cache"), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer")];
    let policy = asset.media_type.starts_with("text/html").then_some((CONTENT_SECURITY_POLICY, POLICY));
    let all = fixed.into_iter().chain(policy).chain([(ETAG, etag)]);
    response.headers_mut().extend(all.filter_map(|(name, value)| Some((name, HeaderValue::from_str(value).ok()?))));
    response
}

fn etag(text: &str) -> String {
    format!("\"{}\"", &hex_text(&Sha256::digest(text))[..16])
}
