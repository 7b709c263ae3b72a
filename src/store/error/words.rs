//! What an error of a store's client says to a person: one cause, without bodies, queries, durations and the client's nesting.

use crate::base::voice;

/// A cause that a person reads.
const CAUSE_CHARS_MAX: usize = 200;

/// Why a request failed: the store's own words, else its status, else what the network said of which host.
pub(super) fn cause(error: &(dyn std::error::Error + 'static), full: &str) -> String {
    if let Some(told) = of_xml(full).or_else(|| of_json(full)) {
        return told;
    }
    if let Some((_, status)) = full.split_once("status code: ") {
        let status: Vec<&str> =
            status.split([':', ';', ',', '\n']).next().unwrap_or_default().split(' ').take(4).collect();
        return format!("the store answered {}", status.join(" ").trim_end());
    }
    let host = host(full).map_or_else(String::new, |host| format!("{host}: "));
    if let Some(io) = in_chain::<std::io::Error>(error) {
        return format!("{host}{}", voice::plain(&io.to_string()));
    }
    let deepest = voice::without_queries(&voice::cause(error));
    let end = deepest.floor_char_boundary(CAUSE_CHARS_MAX);
    if end < deepest.len() { format!("{}…", &deepest[..end]) } else { deepest }
}

/// The host of a request that got no answer.
fn host(full: &str) -> Option<&str> {
    let (_, performing) = full.split_once("Error performing ")?;
    let (_, url) = performing.split_once("://")?;
    url.split(['/', ' ']).next()
}

/// Code and message of an XML body.
fn of_xml(full: &str) -> Option<String> {
    let body = &full[full.find("<?xml").or_else(|| full.find("<Error"))?..];
    let tag = |name: &str| {
        let value = body.split_once(&format!("<{name}>"))?.1;
        let value = value.split_once(&format!("</{name}>"))?.0;
        Some(voice::one_line(value).trim_end_matches('.').to_owned()).filter(|value| !value.is_empty())
    };
    match (tag("Code"), tag("Message")) {
        (Some(code), Some(message)) => Some(format!("{message} ({code})")),
        (code, message) => code.or(message),
    }
}

/// The message of a JSON body, as Google's stores write it.
fn of_json(full: &str) -> Option<String> {
    let start = full.find('{')?;
    let body = serde_json::Deserializer::from_str(&full[start..]).into_iter::<serde_json::Value>().next()?.ok()?;
    let error = &body["error"];
    let message =
        error["message"].as_str().or_else(|| body["error_description"].as_str()).or_else(|| error.as_str())?;
    Some(voice::one_line(message).trim_end_matches('.').to_owned())
}

/// The deepest of an error's causes that is of a type.
pub(super) fn in_chain<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.filter_map(|error| error.downcast_ref()).last()
}

/// Cuts XML bodies down to their code and message, and everything to a length that a person reads.
pub(super) fn without_bodies(text: &str) -> String {
    const LENGTH_MAX: usize = 600;
    let mut out = match text.find("<?xml").or_else(|| text.find("<Error")) {
        Some(start) => format!("{}{}", &text[..start], of_xml(text).unwrap_or_default()),
        None => text.to_owned(),
    };
    if out.len() > LENGTH_MAX {
        out.truncate(out.floor_char_boundary(LENGTH_MAX));
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let error = object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
        cause(&error, text)
    }

    #[test]
    fn a_cause_is_one_and_in_a_person_s_words() {
        for (text, expected) in [
            (
                "x in 2.19ms: <?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>",
                "Access Denied (AccessDenied)",
            ),
            ("Server returned non-2xx status code: 503 Slow Down: busy, busy", "the store answered 503 Slow Down"),
            (
                "status code: 401 Unauthorized: {\"error\": {\"code\": 401, \"message\": \"Anonymous caller.\"}}",
                "Anonymous caller",
            ),
            (
                "Error performing GET http://store:9000/b/x?sig=SECRET in 3ms",
                "Error performing GET http://store:9000/b/x?… in 3ms",
            ),
        ] {
            assert_eq!(said(text).trim_start_matches("store:9000: "), expected, "{text}");
        }
    }
}
