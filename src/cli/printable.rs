//! Texts of others on a terminal: how wide they are, and which of their characters would act on it.
//!
//! Names of tables and columns may have any character. One that begins an escape sequence could move the cursor, change
//! the window's title or hide a line; one that turns the direction of writing could show another name.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that a text takes on a terminal: those of Chinese, Japanese and Korean letters are two each.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// A text with spaces behind it up to `columns`.
pub(super) fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The beginning of a text that takes at most `columns`.
pub(super) fn beginning(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let mut fits = |letter: char| {
        taken += letter.width().unwrap_or(0);
        taken <= columns
    };
    let end = text.char_indices().map(|(at, letter)| (at, fits(letter))).find(|(_, fits)| !fits);
    end.map_or(text, |(at, _)| &text[..at])
}

/// The end of a text that takes at most `columns`.
pub(super) fn end(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let mut start = text.len();
    for (at, letter) in text.char_indices().rev() {
        taken += letter.width().unwrap_or(0);
        if taken > columns {
            break;
        }
        start = at;
    }
    &text[start..]
}

/// Lines with their control characters as escapes.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| letter != '\n' && acts(letter))
}

/// As [`lines`], for what has to stay on one line.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, acts)
}

fn acts(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, acts: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if acts(letter) {
            let _ = write!(escaped, "{}", letter.escape_unicode());
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_on_a_terminal_is_an_escape() {
        assert_eq!(lines("a\u{1b}[2Jb\nc\u{9b}1m"), "a\\u{1b}[2Jb\nc\\u{9b}1m");
        assert_eq!(line("a\nb\rc"), "a\\u{a}b\\u{d}c");
        assert_eq!(line("in\u{202e}gpj.exe"), "in\\u{202e}gpj.exe");
        assert!(matches!(line("Überweisungen 表"), Cow::Borrowed(_)));
    }

    #[test]
    fn wide_letters_take_two_columns() {
        assert_eq!((width("表名"), width("é"), width("e\u{301}")), (4, 1, 1));
        assert_eq!((padded("表", 4).as_str(), beginning("a表名", 4), end("表名a", 4)), ("表  ", "a表", "名a"));
        assert_eq!((beginning("表", 1), end("表", 1), beginning("ab", 9), end("ab", 9)), ("", "", "ab", "ab"));
    }
}
