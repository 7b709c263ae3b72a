//! Tags of what a caller has already (RFC 9110, 13.1): the one place where `If-Match` and `If-None-Match` are read.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

/// Whether `If-None-Match` names this tag, or `*`: the caller has what would be sent. A tag that a proxy has made weak is the
/// same one.
pub(crate) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    lists(headers, IF_NONE_MATCH, etag, true)
}

/// Whether `If-Match` names other tags than this one.
pub(crate) fn is_another(headers: &HeaderMap, etag: &str) -> bool {
    headers.contains_key(IF_MATCH) && !lists(headers, IF_MATCH, etag, false)
}

fn lists(headers: &HeaderMap, name: HeaderName, etag: &str, weakly: bool) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut tags = texts.flat_map(|text| text.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag == etag || (weakly && tag.strip_prefix("W/") == Some(etag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_a_caller_has_is_known_by_its_tag() {
        let known = |values: &[&str]| is_known(&with(&IF_NONE_MATCH, values), "\"tag\"");
        for values in [&["\"tag\""][..], &["W/\"tag\""], &["\"a\", W/\"tag\""], &["*"], &["\"a\"", "\"tag\""]] {
            assert!(known(values), "{values:?}");
        }
        for values in [&[][..], &[""], &["\"a\""], &["tag"], &["w/\"tag\""], &["\"tag\"x"], &["W/W/\"tag\""]] {
            assert!(!known(values), "{values:?}");
        }
    }

    #[test]
    fn what_a_caller_wants_is_told_by_strong_tags() {
        let another = |values: &[&str]| is_another(&with(&IF_MATCH, values), "\"tag\"");
        assert!(!another(&[]) && !another(&["\"a\", \"tag\""]) && !another(&["*"]));
        assert!(another(&["\"a\""]) && another(&["W/\"tag\""]) && another(&[""]));
    }
}
