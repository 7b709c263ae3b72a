//! Special inputs of times: the texts that a server reads as a time by its clock, alone or within an array, a range, a
//! row or a JSON document.
//!
//! The server's date parser takes a zone, the name of a day and marks beside them, and any punctuation between them. A
//! text that is only prose is told by its other words.

/// The words.
const SPECIAL: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Words that the parser bears beside one of [`SPECIAL`], and does not take for a zone.
const BESIDE: [&str; 11] = ["ad", "allballs", "am", "at", "bc", "dst", "epoch", "infinity", "on", "pm", "t"];

/// How the names of days begin.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Whether the server may read a text, or an element of it, as a time by its clock.
pub(crate) fn is_special_time(text: &str) -> bool {
    // What parts the elements of arrays, ranges, rows, JSON and XML.
    let parts = |letter: char| ",:;=<>{}[]()\"'\\".contains(letter) || letter.is_control() && !letter.is_whitespace();
    text.to_lowercase().split(parts).any(element_is_special)
}

/// One zone is all that may stand beside a special word and is not known here.
fn element_is_special(element: &str) -> bool {
    let mut special = false;
    let mut unknown = 0;
    for chunk in element.split_whitespace() {
        let words = || chunk.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty());
        special |= words().any(|word| SPECIAL.contains(&word));
        unknown += usize::from(words().any(|word| {
            !SPECIAL.contains(&word) && !BESIDE.contains(&word) && !DAYS.iter().any(|day| word.starts_with(day))
        }));
    }
    special && unknown <= 1
}

/// Whether one of the words is in the server's own form of a value that holds texts, which need nothing between them.
pub(crate) fn holds_special_time(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    SPECIAL.iter().any(|word| lower.windows(word.len()).any(|window| window == word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_reads_as_a_time_is_seen() {
        for text in [
            "now",
            " NOW ",
            "!now",
            "today04:05",
            "04:05 PST today",
            "20:00pm tomorrow America/Argentina/Buenos_Aires",
            "Saturday, today",
            "today at 10:00 Cuba",
            "today EST5EDT",
            "[-infinity,now)",
            "[epoch,now]",
            "{[2000-01-01,2001-01-01),[2002-01-01,now)}",
            "(abc,now)",
            "(\"see you tomorrow, maybe\",now)",
            "{\"at\":\"now\"}",
            "{\"at\":\"today\\u0020\"}",
            "<at>yesterday</at>",
            "at=>now",
            "{\"a b c d\",tomorrow}",
        ] {
            assert!(is_special_time(text), "{text}");
        }
    }

    #[test]
    fn prose_is_no_time() {
        for text in ["nowhere", "known", "snow", "to day", "see you tomorrow, maybe", "as of now it is", "anow", ""] {
            assert!(!is_special_time(text), "{text}");
        }
    }

    #[test]
    fn a_word_is_seen_in_a_value_without_separators() {
        assert!(holds_special_time(b"\x01\0\0\x20\x02\0\0\x80atNow") && !holds_special_time(b"\x01atnoon"));
    }
}
