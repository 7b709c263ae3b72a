//! Identifiers, literals and comments: what stands in them can be anything that PostgreSQL allows in a name.

/// Appends a comment of one line.
pub(super) fn comment(out: &mut String, text: &str) {
    out.push_str("-- ");
    out.extend(text.chars().map(|c| if ends_line(c) { ' ' } else { c }));
    out.push('\n');
}

/// Whether somebody may take it for the end of a line.
fn ends_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// In double quotes, as standard SQL has it.
pub(super) fn double_quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// In backquotes, as Hive has it.
pub(super) fn backquoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// In backquotes, where a backslash escapes too: `ClickHouse`.
pub(super) fn clickhouse_name(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "``"))
}

/// A literal in standard SQL: a backslash is itself.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A literal where a backslash escapes, and two quotes are one: Redshift, `ClickHouse`.
pub(super) fn escaped_literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Whether a name is a plain word in any dialect.
pub(super) fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out() {
        let evil = "a\"; drop `x`' \\' --\n";
        assert_eq!(double_quoted(evil), "\"a\"\"; drop `x`' \\' --\n\"");
        assert_eq!(backquoted(evil), "`a\"; drop ``x``' \\' --\n`");
        assert_eq!(clickhouse_name(evil), "`a\"; drop ``x``' \\\\' --\n`");
        assert_eq!(literal("it's \\"), "'it''s \\'");
        assert_eq!(escaped_literal("it's \\"), "'it''s \\\\'");
        let mut text = String::new();
        comment(&mut text, "a\nb\r\u{2028}\u{85}drop");
        assert_eq!(text, "-- a b   drop\n");
    }
}
