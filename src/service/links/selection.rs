//! Which bytes of a file a request is for: `Range`, `If-Range`, `If-Match` and `If-None-Match` (RFC 9110).

use std::ops::Range;

use axum::http::header::{IF_RANGE, RANGE};
use axum::http::{HeaderMap, Method};

use super::super::tags::{is_another, is_known};
use crate::base::failpoint;

/// What is sent of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    Whole,
    Bytes(Range<u64>),
    /// The client has it already.
    NotModified,
    /// The client wants another one.
    OtherFile,
    /// There are no such bytes.
    NoSuchBytes,
}

/// What of a file of `length` bytes, whose strong tag is `etag`, the request is for.
pub(crate) fn selection(method: &Method, headers: &HeaderMap, etag: &str, length: u64) -> Selection {
    if is_another(headers, etag) {
        return Selection::OtherFile;
    }
    if is_known(headers, etag) {
        return Selection::NotModified;
    }
    // Of another file, the rest of what the client has would be a mixture of both.
    let stale = headers.get(IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes());
    if *method != Method::GET || (stale && !failpoint::off("if_range")) {
        return Selection::Whole;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next().and_then(|range| range.to_str().ok()), ranges.next()) {
        (Some(text), None) => of_range(text, length),
        _ => Selection::Whole,
    }
}

/// A range that is no range, and several at once, are not looked at, as RFC 9110 allows.
fn of_range(text: &str, length: u64) -> Selection {
    let Some((unit, range)) = text.split_once('=') else { return Selection::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(most)) if first.is_empty() => length.saturating_sub(most)..length,
        _ => return Selection::Whole,
    };
    if range.is_empty() { Selection::NoSuchBytes } else { Selection::Bytes(range) }
}

/// Digits alone; a number that is larger than any file is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

    use super::*;

    fn asked(fields: &[(HeaderName, &str)]) -> Selection {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        selection(&Method::GET, &headers, "\"tag\"", 100)
    }

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let range = |text| asked(&[(RANGE, text)]);
        assert_eq!(asked(&[]), Selection::Whole);
        assert_eq!(range("bytes=0-0"), Selection::Bytes(0..1));
        assert_eq!(range("bytes=10-"), Selection::Bytes(10..100));
        assert_eq!(range("bytes=-7"), Selection::Bytes(93..100));
        assert_eq!(range("bytes=-700"), Selection::Bytes(0..100));
        assert_eq!(range("Bytes=90-1000"), Selection::Bytes(90..100));
        assert_eq!(range("bytes=90-99999999999999999999999"), Selection::Bytes(90..100));
        for none in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(range(none), Selection::NoSuchBytes, "{none}");
        }
        for odd in ["bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "rows=0-1", "bytes=0-1,5-6", "bytes=+1-2"] {
            assert_eq!(range(odd), Selection::Whole, "{odd}");
        }
        assert_eq!(asked(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=2-3")]), Selection::Whole);
        let headers = HeaderMap::from_iter([(RANGE, "bytes=0-1".parse().unwrap())]);
        assert_eq!(selection(&Method::HEAD, &headers, "\"tag\"", 100), Selection::Whole);
        assert_eq!(selection(&Method::GET, &headers, "\"tag\"", 0), Selection::NoSuchBytes);
    }

    /// BitMiracle-AI/Dormice#86: a range of another file was sent, and the resumed file was corrupt.
    #[test]
    fn a_range_of_another_file_is_the_whole_one() {
        let resumed = |tag| asked(&[(RANGE, "bytes=10-"), (IF_RANGE, tag)]);
        assert_eq!(resumed("\"tag\""), Selection::Bytes(10..100));
        for stale in ["\"other\"", "W/\"tag\"", "Sun, 29 Nov 2026 10:00:00 GMT", ""] {
            assert_eq!(resumed(stale), Selection::Whole, "{stale}");
        }
    }

    #[test]
    fn tags_decide_first() {
        let range = (RANGE, "bytes=0-1");
        assert_eq!(asked(&[(IF_NONE_MATCH, "\"a\", W/\"tag\""), range.clone()]), Selection::NotModified);
        assert_eq!(asked(&[(IF_NONE_MATCH, "*")]), Selection::NotModified);
        assert_eq!(asked(&[(IF_NONE_MATCH, "\"a\"")]), Selection::Whole);
        assert_eq!(asked(&[(IF_MATCH, "\"a\""), range.clone()]), Selection::OtherFile);
        assert_eq!(asked(&[(IF_MATCH, "W/\"tag\"")]), Selection::OtherFile);
        assert_eq!(asked(&[(IF_MATCH, "\"a\", \"tag\""), range]), Selection::Bytes(0..2));
    }
}
