//! Names of relations with their schemas, as manifests and people have them: one text for each relation.

/// `schema.relation`. A name with a dot or a quote in it stands in quotes: without them two relations would have one text.
pub(crate) fn joined(schema: &str, relation: &str) -> String {
    let shown = |name: &str| {
        if name.contains(['.', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
    };
    format!("{}.{}", shown(schema), shown(relation))
}

/// The schema and the relation of such a text, whose names may stand in backquotes too, as those of ClickHouse do. Earlier
/// versions wrote no quotes: there the first dot ends the schema, since a schema with a dot is rarer than a relation with one.
pub(crate) fn apart(text: &str) -> (Option<String>, String) {
    let apart = || match quoted(text) {
        Some((relation, "")) => Some((None, relation)),
        Some((schema, rest)) => Some((Some(schema), last(rest.strip_prefix('.')?))),
        None => text.split_once('.').map(|(schema, relation)| (Some(schema.to_owned()), last(relation))),
    };
    apart().unwrap_or_else(|| (None, text.to_owned()))
}

/// A relation's own name: in quotes, or whatever is there.
fn last(text: &str) -> String {
    quoted(text).filter(|(_, rest)| rest.is_empty()).map_or_else(|| text.to_owned(), |(name, _)| name)
}

/// The name in quotes at the front of a text, and what is behind it; `None` where there is none.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '`'))?;
    let mut name = String::new();
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != quote || letters.next_if(|(_, next)| *next == quote).is_some() {
            name.push(letter);
        } else {
            return Some((name, text.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_relations_have_one_text() {
        for (schema, relation, text) in [
            ("public", "orders", "public.orders"),
            ("Sales", "Order Items", "Sales.Order Items"),
            ("Sales.EU", "Order.Items", "\"Sales.EU\".\"Order.Items\""),
            ("Sales", "EU.Order.Items", "Sales.\"EU.Order.Items\""),
            ("Sales.EU.Order", "Items", "\"Sales.EU.Order\".Items"),
            ("a\"b", "\"", "\"a\"\"b\".\"\"\"\""),
        ] {
            assert_eq!(joined(schema, relation), text);
            assert_eq!(apart(text), (Some(schema.to_owned()), relation.to_owned()), "{text}");
        }
        for (text, schema, relation) in [
            ("orders", None, "orders"),
            ("Sales.EU.Order.Items", Some("Sales"), "EU.Order.Items"),
            ("shop.`a-b`", Some("shop"), "a-b"),
            ("`my.db`.`a``b`", Some("my.db"), "a`b"),
            ("public.we\"ird", Some("public"), "we\"ird"),
            ("\"open.x", Some("\"open"), "x"),
        ] {
            assert_eq!(apart(text), (schema.map(str::to_owned), relation.to_owned()), "{text}");
        }
    }
}
