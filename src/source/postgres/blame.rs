//! Whose mistake a server's error about a statement is: it names the flag, and what may have been meant.

use tokio_postgres::types::Type;

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use super::error::{ServerError, StatementPlace};
use super::near_table;
use super::plan::{listed, nearest};
use super::session::identifier;
use crate::model::{RelationRequest, ShapeOptions};
use crate::source::{SourceError, SourceFault};

const UNDEFINED_COLUMN: &str = "42703";
const UNDEFINED_TABLE: &str = "42P01";

/// Names the flag in whose text the server found the mistake, and the column that may have been meant; the session's
/// transaction ends where the catalog is asked for it.
pub(super) async fn explain(session: &Session, error: SourceError, shape: &ShapeOptions) -> SourceError {
    let Some((server, flag, (text, at))) = place(&error, shape) else { return error };
    let name = name_at(text, at);
    match (server.sqlstate.as_str(), &shape.relation, name) {
        (UNDEFINED_COLUMN, RelationRequest::Table(table), Some(name)) => {
            let told = error.told_as(format!("{flag}: column {name} does not exist", name = name.last));
            let hint = columns_like(session, table, &name.last).await;
            hint.into_iter().fold(told, SourceError::with_hint)
        }
        (UNDEFINED_COLUMN, RelationRequest::Query(_), Some(name)) => {
            error.told_as(format!("{flag}: column {name} does not exist", name = name.last))
        }
        (UNDEFINED_TABLE, RelationRequest::Query(_), Some(name)) => {
            let told = error.told_as(format!("{flag}: table {name} does not exist", name = name.written));
            let hint = tables_like(session, &name.written).await;
            hint.into_iter().fold(told, SourceError::with_hint)
        }
        _ => {
            let sentence = format!("{flag}: {server}");
            error.told_as(sentence)
        }
    }
}

/// The error, the flag whose text is at fault, that text, and the byte in it.
fn place<'a>(error: &'a SourceError, shape: &'a ShapeOptions) -> Option<(&'a ServerError, String, (&'a str, usize))> {
    // Who gives way to somebody has made no mistake.
    let server = error.of_server().filter(|_| error.fault != SourceFault::GaveWay)?;
    let StatementPlace { statement, character } = server.place.as_ref()?;
    let statement = statement.as_ref()?;
    let (byte, _) = statement.char_indices().nth(character.checked_sub(1)?)?;
    let (flag, text, start) = pieces(statement, shape)
        .find(|(_, text, start)| (*start..=start.saturating_add(text.len())).contains(&byte))?;
    Some((server, flag, (text, byte.checked_sub(start)?)))
}

/// The texts of a person that stand in a statement, each with its flag and where it begins.
fn pieces<'a>(statement: &'a str, shape: &'a ShapeOptions) -> impl Iterator<Item = (String, &'a str, usize)> {
    let query = match &shape.relation {
        RelationRequest::Query(query) => Some(("--query".to_owned(), query.as_str())),
        RelationRequest::Table(_) => None,
    };
    let columns = shape.expressions.iter().map(|(name, text)| (format!("--column {name}"), text.as_str()));
    let predicate = shape.predicate.iter().map(|text| ("--where".to_owned(), text.as_str()));
    // In the order in which they stand there, each on lines of its own between parentheses.
    let mut from = 0;
    columns.chain(query).chain(predicate).filter_map(move |(flag, text)| {
        let enclosed = format!("(\n{text}\n)");
        let start = from + statement.get(from..)?.find(&enclosed)? + 2;
        from = start + text.len();
        Some((flag, text, start))
    })
}

/// A name in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NameInText {
    /// All of it.
    written: String,
    /// Its last part: `b` of `a.b`, as the server folds it.
    last: String,
}

/// The name at a byte.
fn name_at(text: &str, at: usize) -> Option<NameInText> {
    let whole = text.get(at..)?;
    let mut rest = whole;
    loop {
        let (name, tail) = if let Some(quoted) = rest.strip_prefix('"') {
            let (name, tail) = quoted.split_once('"')?;
            (name.to_owned(), tail)
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            (rest.get(..end)?.to_lowercase(), rest.get(end..)?)
        };
        match tail.strip_prefix('.') {
            Some(tail) if !name.is_empty() => rest = tail,
            _ if name.is_empty() => return None,
            _ => {
                let written = whole.strip_suffix(tail)?.to_owned();
                return Some(NameInText { written, last: name });
            }
        }
    }
}

/// The column of a table that is most like a name, or else all columns. What cannot be asked is not told.
async fn columns_like(session: &Session, table: &str, missing: &str) -> Option<String> {
    session.batch("leaving a failed transaction", "ROLLBACK").await.ok()?;
    let sql = closed(
        "SELECT a.attname::text FROM pg_catalog.pg_attribute a \
        WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    );
    let rows = query(session, "looking for a column", &sql, &[(&table, Type::TEXT)]).await.ok()?;
    let names: Vec<&str> = rows.iter().filter_map(|row| value(row, 0).ok()).collect();
    let like = nearest(missing, &names).map(|near| format!("did you mean {}?", shown(near)));
    like.or_else(|| (!names.is_empty()).then(|| format!("the columns are {}", listed(&names))))
}

/// The tables that a name in a query may have meant.
async fn tables_like(session: &Session, name: &str) -> Option<String> {
    session.batch("leaving a failed transaction", "ROLLBACK").await.ok()?;
    near_table::in_sql(session, name).await.ok().flatten()
}

/// A name as SQL writes it: in double quotes only where it needs them.
pub(super) fn shown(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if plain { name.to_owned() } else { identifier(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(expressions: &[(&str, &str)], predicate: Option<&str>) -> ShapeOptions {
        ShapeOptions {
            relation: RelationRequest::Table("t".into()),
            columns: None,
            expressions: expressions.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            renames: Vec::new(),
            predicate: predicate.map(str::to_owned),
            key: None,
            allow_rls: false,
            scoped: None,
        }
    }

    #[test]
    fn a_place_belongs_to_the_text_it_stands_in() {
        let shape = shape(&[("a", "x + 1"), ("b", "ü + x")], Some("x = 1"));
        let statement = "SELECT (\nx + 1\n), (\nü + x\n) FROM t AS t WHERE (\nx = 1\n)";
        for (words, flag) in [("x + 1", "--column a"), ("ü + x", "--column b"), ("x = 1", "--where")] {
            let byte = statement.find(words).unwrap();
            let character = statement[..byte].chars().count() + 1;
            let place = StatementPlace { statement: Some(statement.into()), character };
            let server =
                ServerError { sqlstate: "42703".into(), message: String::new(), hint: None, place: Some(place) };
            let error = SourceError::server("planning", server);
            let (_, told, (text, at)) = super::place(&error, &shape).unwrap();
            assert_eq!((told.as_str(), text, at), (flag, words, 0));
        }
    }

    #[test]
    fn a_name_is_the_last_of_its_parts_as_the_server_folds_it() {
        for (text, name) in [
            ("Foo = 1", "foo"),
            ("t.Bar=1", "bar"),
            ("\"Of T\".\"Col X\" > 2", "Col X"),
            ("größe", "größe"),
            ("s.t.u)", "u"),
        ] {
            assert_eq!(name_at(text, 0).unwrap().last, name);
        }
        assert_eq!(name_at("= 1", 0), None);
        assert_eq!(name_at("from Sales.\"T 1\" x", 5).unwrap().written, "Sales.\"T 1\"");
    }

    #[test]
    fn a_name_is_quoted_where_it_needs_it() {
        assert_eq!(["a_1", "Orders", "a b", "1a"].map(shown), ["a_1", "\"Orders\"", "\"a b\"", "\"1a\""]);
    }
}
