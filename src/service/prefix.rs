//! A path in `public_url`: a proxy may leave it in what it passes on, or take it out.

use axum::extract::Request;
use axum::http::Uri;

/// The prefix of a request for nothing below it: what its page names would be looked for beside it.
#[derive(Debug, Clone)]
pub(super) struct BarePrefix(pub(super) String);

/// The request as the routes know it.
pub(super) fn without_prefix<B>(public_url: Option<&str>, mut request: Request<B>) -> Request<B> {
    let Some(prefix) = public_url.and_then(path_of) else { return request };
    if let Some(uri) = rest_of(request.uri(), prefix) {
        if request.uri().path() == prefix && !prefix.ends_with('/') {
            request.extensions_mut().insert(BarePrefix(prefix.to_owned()));
        }
        *request.uri_mut() = uri;
    }
    request
}

/// The path of a URL; none where it has none.
fn path_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.find('/').map(|at| &rest[at..])
}

/// The URI below a prefix, and none where it is not below it.
fn rest_of(uri: &Uri, prefix: &str) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix(prefix)?;
    match rest.as_bytes().first() {
        None => Some(Uri::from_static("/")),
        Some(b'/') => rest.parse().ok(),
        Some(b'?') => format!("/{rest}").parse().ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_the_prefix_is_found_and_nothing_else() {
        for (url, path, expected) in [
            ("https://x/exports", "/exports/v1/datasets?a=b", "/v1/datasets?a=b"),
            ("https://x/exports", "/exports", "/"),
            ("https://x/exports", "/exports?a=/exports/b", "/?a=/exports/b"),
            ("https://x/exports", "/exports/exports/v1", "/exports/v1"),
            ("https://x/exports", "/v1/datasets", "/v1/datasets"),
            ("https://x/exports", "/exportsv1/datasets", "/exportsv1/datasets"),
            ("https://x", "/v1/datasets", "/v1/datasets"),
        ] {
            let request = Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
            assert_eq!(without_prefix(Some(url), request).uri().to_string(), expected, "{url} {path}");
        }
        let request = Request::builder().uri("/v1").body(axum::body::Body::empty()).unwrap();
        assert_eq!(without_prefix(None, request).uri().to_string(), "/v1");
    }
}
