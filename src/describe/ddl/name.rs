//! The name of a table, as `--name` takes it.

/// One to three names: table, schema and table, or catalog, schema and table. No dialect's quotes are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(super) parts: Vec<String>,
}

impl TableName {
    /// Reads `table`, `schema.table` or `catalog.schema.table`; a name with a dot in it stands in double quotes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
                closed(quoted).ok_or("a double quote does not close")?
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            };
            if part.is_empty() || part.contains(char::is_control) {
                return Err("a name is empty or has a control character in it".to_owned());
            }
            parts.push(part);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return Err("a dot is wanted after a name in double quotes".to_owned()),
            }
        }
        if parts.len() > 3 {
            return Err("at most catalog.schema.table is wanted; a name with a dot stands in double quotes".to_owned());
        }
        Ok(Self { parts })
    }

    /// All names, quoted by `quote`, with dots between them.
    pub(super) fn quoted(&self, quote: fn(&str) -> String) -> String {
        self.parts.iter().map(|part| quote(part)).collect::<Vec<_>>().join(".")
    }
}

/// The name that ends at the next single double quote, and what follows it.
fn closed(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_quotes() {
        for (text, parts) in [
            ("orders", &["orders"][..]),
            ("lake.orders", &["lake", "orders"]),
            ("a.b.c", &["a", "b", "c"]),
            ("\"a.b\".\"c\"\"d\"", &["a.b", "c\"d"]),
            ("x.\"y\"", &["x", "y"]),
        ] {
            assert_eq!(TableName::parse(text).unwrap().parts, parts, "{text}");
        }
        for wrong in ["", ".", "a.", ".a", "a.b.c.d", "\"a", "\"a\"b", "\"\"", "a\nb"] {
            TableName::parse(wrong).unwrap_err();
        }
    }
}
