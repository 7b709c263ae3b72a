//! The one voice of errors: a sentence with at most one cause, in words that are not a library's; the whole chain only for
//! who asks for it.

use std::error::Error;

/// What is said of an error: its message and, unless the message tells it, the deepest of its causes.
pub(crate) fn sentence(message: &str, source: Option<&(dyn Error + 'static)>, told: bool) -> String {
    let message = one_line(message);
    match source.filter(|_| !told).map(cause) {
        Some(cause) if !cause.is_empty() && !message.contains(&cause) => format!("{message}: {cause}"),
        _ => message,
    }
}

/// The deepest cause of an error: those above it repeat it, or say what was being done.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let deepest = std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error);
    plain(&deepest.to_string())
}

/// The system's own words without its number, in the middle of a sentence: `connection refused`.
pub(crate) fn plain(text: &str) -> String {
    let text = one_line(text);
    let Some((words, _)) = text.rsplit_once(" (os error ") else { return text };
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// An error and all its causes, each by itself. Libraries often repeat their cause in their own message; what has been said
/// is not said again.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |error| (*error).source()) {
        let words = one_line(&without_queries(&error.to_string()));
        if !words.is_empty() && !said.iter().any(|said| said.contains(&words)) {
            said.push(words);
        }
    }
    said
}

/// Control characters become spaces: a server's message must not move the cursor of whoever reads it.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|letter: char| letter.is_control() || letter == ' ').filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Cuts the query off each URL: a signature may stand in it.
pub(crate) fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at);
        let end = url.find(|c: char| c.is_whitespace() || "\"'<>)`".contains(c)).unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        out.push_str(before);
        match url.split_once('?') {
            Some((path, _)) => {
                out.push_str(path);
                out.push_str("?…");
            }
            None => out.push_str(url),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] io::Error);

    fn refused() -> Outer {
        Outer(io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error()))
    }

    #[test]
    fn a_sentence_has_the_deepest_cause_once() {
        let outer = refused();
        assert_eq!(sentence("connecting", Some(&outer), false), "connecting: connection refused");
        assert_eq!(sentence("connection refused", Some(&outer), false), "connection refused");
        assert_eq!(sentence("cannot connect", Some(&outer), true), "cannot connect");
        assert_eq!(sentence("alone", None, false), "alone");
    }

    #[test]
    fn the_chain_is_whole_and_nothing_is_said_twice() {
        assert_eq!(causes(&refused()), ["outer: Connection refused (os error 111)"]);
    }

    #[test]
    fn a_message_cannot_move_the_cursor() {
        assert_eq!(one_line("a\r\n\u{1b}[2Jb \u{9b}31m"), "a [2Jb 31m");
    }

    #[test]
    fn a_url_loses_its_query_and_nothing_else() {
        let text = "GET (https://a.example/x?sig=SECRET&se=1) and s3://b/c, why? \"http://d/?q\" e";
        assert_eq!(without_queries(text), "GET (https://a.example/x?…) and s3://b/c, why? \"http://d/?…\" e");
    }
}
