//! A statement as the audit keeps it: its words without its literals and comments.

/// Characters of a statement that are kept.
const CHARS_MAX: usize = 4_000;

/// The statement with `?` for each text and number, and one space between its words. What has no end is left out to its
/// end.
pub(super) fn without_literals(sql: &str) -> String {
    let mut out = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (taken, kept) = token(rest, first);
        match kept {
            Kept::Space if out.is_empty() || out.ends_with(' ') => {}
            Kept::Space => out.push(' '),
            Kept::Literal => out.push('?'),
            Kept::Word => out.push_str(rest.get(..taken).unwrap_or_default()),
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    shortened(out.trim_end())
}

/// The statement, no longer than what is kept.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What becomes of a token.
enum Kept {
    Space,
    Literal,
    Word,
}

/// The length of the first token, and what becomes of it.
fn token(rest: &str, first: char) -> (usize, Kept) {
    let until = |mark: &str, from: usize| {
        let found = rest.get(from..).and_then(|behind| behind.find(mark));
        found.map_or(rest.len(), |at| from.saturating_add(at).saturating_add(mark.len()))
    };
    match first {
        _ if first.is_whitespace() => (first.len_utf8(), Kept::Space),
        '-' if rest.starts_with("--") => (until("\n", 2), Kept::Space),
        '#' if rest.starts_with("# ") || rest.starts_with("#!") => (until("\n", 1), Kept::Space),
        '/' if rest.starts_with("/*") => (until("*/", 2), Kept::Space),
        // Some people write texts between double quotes.
        '\'' | '"' => (quoted(rest, first), Kept::Literal),
        '`' => (quoted(rest, first), Kept::Word),
        '$' => match heredoc(rest) {
            Some(tag) => (until(tag, tag.len()), Kept::Literal),
            None => (1, Kept::Word),
        },
        _ if first.is_ascii_digit() => (length(rest, |letter| is_letter(letter) || letter == '.'), Kept::Literal),
        _ if is_letter(first) => (length(rest, is_letter), Kept::Word),
        _ => (first.len_utf8(), Kept::Word),
    }
}

fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn length(rest: &str, is_part: impl Fn(char) -> bool) -> usize {
    rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())
}

/// The length of what stands between quotes, those included. A doubled quote makes two of them, which is the same here.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at.saturating_add(quote.len_utf8()),
            _ => {}
        }
    }
    rest.len()
}

/// The mark of a text such as `$tag$ … $tag$`.
fn heredoc(rest: &str) -> Option<&str> {
    let name = length(rest.get(1..)?, |letter| letter.is_ascii_alphanumeric() || letter == '_');
    let end = name.saturating_add(2);
    rest.get(..end).filter(|tag| tag.ends_with('$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_go_and_words_stay() {
        for (sql, kept) in [
            ("SELECT 'secret', 42, 1.5e3 FROM t1 WHERE a = 'it''s'", "SELECT ?, ?, ? FROM t1 WHERE a = ??"),
            ("SELECT 'a\\'b' -- secret\n FROM `t 1` /* secret */ FORMAT CSV", "SELECT ? FROM `t 1` FORMAT CSV"),
            ("SELECT $$secret$$, $x$ secret $$ $x$, a$b", "SELECT ?, ?, a$b"),
            ("SELECT \"secret\", x'4142', 0xFF, -7", "SELECT ?, x?, ?, -?"),
            ("SELECT 'secret without an end", "SELECT ?"),
            ("SELECT 1 /* secret", "SELECT ?"),
            ("# secret\nSELECT größe FROM t", "SELECT größe FROM t"),
            ("", ""),
        ] {
            assert_eq!(without_literals(sql), kept, "{sql}");
        }
        assert_eq!(without_literals(&"a".repeat(CHARS_MAX + 1)).chars().count(), CHARS_MAX + 1);
    }
}
