//! `Prefer` (RFC 7240): what a caller would rather have, of which the service knows `respond-async` alone.

use axum::http::HeaderMap;

/// Whether the caller would rather wait for an export in the background than for a stream.
pub(crate) fn responds_async(headers: &HeaderMap) -> bool {
    let texts = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let names = texts.flat_map(|text| outside_quotes(text, ',')).map(preference);
    // Where one is named twice, the first counts.
    let mut found = names.filter(|(name, _)| name.eq_ignore_ascii_case("respond-async"));
    found.next().is_some_and(|(_, value)| value.is_empty())
}

/// The name of a preference and its value, which is empty where it has none; its parameters are left out.
fn preference(text: &str) -> (&str, &str) {
    let first = outside_quotes(text, ';').next().unwrap_or_default();
    let (name, value) = first.split_once('=').unwrap_or((first, ""));
    (name.trim(), value.trim().trim_matches('"'))
}

/// What stands between the marks of a kind, those within quotes left alone.
fn outside_quotes(text: &str, mark: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |letter| {
        let inside = quoted;
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !inside && letter == mark
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_preference_is_one_by_its_name_and_not_by_its_letters() {
        for (lines, expected) in [
            (&["respond-async"][..], true),
            (&["Respond-Async"], true),
            (&["respond-async, wait=10"], true),
            (&["wait=10,respond-async;foo=bar"], true),
            (&["handling=lenient", " respond-async "], true),
            (&["respond-async=\"\""], true),
            (&["respond-async=no"], false),
            (&["respond-async=no, respond-async"], false),
            (&["x; respond-async"], false),
            (&["x=\"a, respond-async\""], false),
            (&["x=\"a\\\", respond-async\""], false),
            (&["respond-asynchronously"], false),
            (&["return=minimal"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("prefer", HeaderValue::from_static(line));
            }
            assert_eq!(responds_async(&headers), expected, "{lines:?}");
        }
    }
}
