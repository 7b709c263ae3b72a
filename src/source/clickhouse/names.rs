//! Names and values inside of statements, so that no text of a person ends up outside of its quotes. Pure.

/// A name as ClickHouse reads it back, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A string literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A table's name as a person writes it: its database, where there is one, and its own name. Names in double quotes or
/// backquotes may hold anything; others are words, which keep their case as they do at the server.
///
/// # Errors
/// What would be right.
pub(crate) fn table(text: &str) -> Result<(Option<String>, String), &'static str> {
    let (first, rest) = one(text.trim())?;
    let Some(rest) = rest.strip_prefix('.') else {
        return if rest.is_empty() { Ok((None, first)) } else { Err(WANTED) };
    };
    match one(rest)? {
        (second, "") => Ok((Some(first), second)),
        _ => Err(WANTED),
    }
}

const WANTED: &str = "a name as in SQL is wanted: orders, shop.orders or \"Order Items\"";

fn one(text: &str) -> Result<(String, &str), &'static str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '`'));
    let Some(quote) = quote else {
        let (name, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-');
        return if !name.is_empty() && name.chars().all(word) { Ok((name.to_owned(), rest)) } else { Err(WANTED) };
    };
    let mut name = String::new();
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != quote {
            name.push(letter);
        } else if letters.next_if(|(_, next)| *next == quote).is_some() {
            name.push(quote);
        } else if name.is_empty() {
            return Err("a name is empty");
        } else {
            return Ok((name, text.get(at + 1..).unwrap_or_default()));
        }
    }
    Err("a quote is never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        let of = |text| table(text).map(|(database, name)| (database.unwrap_or_default(), name));
        let pair = |database: &str, name: &str| Ok((database.to_owned(), name.to_owned()));
        assert_eq!(of("Orders"), pair("", "Orders"));
        assert_eq!(of(" shop.orders "), pair("shop", "orders"));
        assert_eq!(of("\"a.b\".`c\"d`"), pair("a.b", "c\"d"));
        assert_eq!(of("`.inner_id.7`"), pair("", ".inner_id.7"));
        for wrong in ["", "a.b.c", "a b", "\"a", "`a`b", "\"\"", "a;b", "f(x)"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(quoted("a`b\\c"), "`a\\`b\\\\c`");
        assert_eq!(literal("it's \\ here"), "'it\\'s \\\\ here'");
    }
}
