//! Finds out whether a text that a person wrote may mean a whole row of the relation, or may mean something else where a
//! leaf stands in the relation's place.
//!
//! A leaf is read under the relation's own name, so a column means the same in both. A whole row does not: it has the
//! leaf's row type, with its order of columns and with columns that the relation does not have.

use super::lexer::{Lexer, NAME_BYTES_MAX, Token};

/// Columns that every table has without declaring them.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// The names that decide what a text means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelationNames<'a> {
    /// The relation's own name, unquoted.
    pub(crate) relation: &'a str,
    /// Its columns.
    pub(crate) columns: &'a [String],
    /// Columns of its leaves that it does not have itself.
    pub(crate) leaf_columns: &'a [String],
}

/// Whether a text must be evaluated on rows of the relation itself: it may name the whole row, or something that a leaf
/// has a column for.
///
/// The answer may be a yes too much (a table of the same name in a sub-select), never a no too much. A row can be named by
/// the relation's name only: `t`, `t.*`, and `t.f`, which is a call of `f(t)` where `t` has no column `f`.
pub(crate) fn may_name_whole_row(text: &str, names: RelationNames<'_>) -> bool {
    let Some(words) = words(text) else { return true };
    for (at, word) in words.iter().enumerate() {
        let Word::Name(name) = word else { continue };
        if names.leaf_columns.iter().any(|column| name.is(column)) {
            return true;
        }
        if !name.is(names.relation) || at.checked_sub(1).is_some_and(|before| words[before] == Word::Dot) {
            continue;
        }
        let known = |name: &Name<'_>| {
            names.columns.iter().any(|column| name.is(column)) || SYSTEM_COLUMNS.iter().any(|column| name.is(column))
        };
        let means_row = match (words.get(at + 1), words.get(at + 2)) {
            (Some(Word::Dot), Some(Word::Name(field))) => !known(field),
            // `t.*`
            (Some(Word::Dot), _) => true,
            // A function of that name.
            (Some(Word::Open), _) => false,
            // A column of that name comes before the row.
            _ => !names.columns.iter().any(|column| name.is(column)) && !is_table_reference(&words[..at]),
        };
        if means_row {
            return true;
        }
    }
    false
}

/// Whether what stands before makes the next name a table of a sub-select. `IS DISTINCT FROM` does not.
fn is_table_reference(before: &[Word<'_>]) -> bool {
    let word = |back: usize, expected: &str| match before.len().checked_sub(back).map(|at| &before[at]) {
        Some(Word::Name(Name { text, quoted: false })) => text.eq_ignore_ascii_case(expected),
        _ => false,
    };
    let from = |back: usize| word(back, "from") && !word(back + 1, "distinct");
    from(1) || word(1, "join") || (word(1, "only") && (from(2) || word(2, "join")))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word<'a> {
    Name(Name<'a>),
    Dot,
    Open,
    Other,
}

/// A name as it is written, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name<'a> {
    text: std::borrow::Cow<'a, str>,
    quoted: bool,
}

impl Name<'_> {
    /// Whether PostgreSQL takes it for `name`, or may: it folds letters outside ASCII in some encodings.
    fn is(&self, name: &str) -> bool {
        let same = |written: &str| {
            written == name
                || (name.len() + 3 >= NAME_BYTES_MAX && written.len() > name.len() && written.starts_with(name))
        };
        if self.quoted {
            same(&self.text)
        } else {
            same(&self.text.to_lowercase()) || same(&self.text.to_ascii_lowercase())
        }
    }
}

/// The words of a text; `None` where they cannot be told, or a name is written in escapes.
fn words(text: &str) -> Option<Vec<Word<'_>>> {
    let mut lexer = Lexer::new(text);
    let mut words = Vec::new();
    loop {
        let lexeme = match lexer.next() {
            Ok(Some(lexeme)) => lexeme,
            Ok(None) => return Some(words),
            Err(_) => return None,
        };
        let written = text.get(lexeme.start..lexeme.end)?;
        words.push(match lexeme.token {
            Token::Word => Word::Name(Name { text: written.into(), quoted: false }),
            Token::Open('(') => Word::Open,
            Token::Other if written == "." => Word::Dot,
            Token::Other if written.starts_with('"') => {
                let inner = written.get(1..written.len().checked_sub(1)?)?;
                let text = if inner.contains('"') { inner.replace("\"\"", "\"").into() } else { inner.into() };
                Word::Name(Name { text, quoted: true })
            }
            Token::Other if written.starts_with(['u', 'U']) && written.ends_with('"') => return None,
            Token::Open(_) | Token::Close(_) | Token::Semicolon | Token::Other => Word::Other,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means_row(relation: &str, text: &str) -> bool {
        let columns = ["id", "a", "Name", "status"].map(str::to_owned);
        may_name_whole_row(text, RelationNames { relation, columns: &columns, leaf_columns: &["salary".to_owned()] })
    }

    #[test]
    fn every_way_to_name_a_row_is_seen() {
        for text in [
            "t",
            "T",
            "\"t\"",
            "t.*",
            "t . /* and */ *",
            "(t).a",
            "t::text",
            "md5(t::text)",
            "row_to_json(t)",
            "count(t)",
            "array[t]",
            "t = row(1, 2)",
            "a = 1 and t is null",
            "a is distinct from t",
            "a IS DISTINCT FROM t",
            "t.f",
            "\"t\".\"f\"",
            "(select t)",
            "(select max(v) from jsonb_each_text(to_jsonb(t)) as x(k, v))",
            "(select s from other s where s.a = t.name)",
            "U&\"\\0074\" is null",
            "case when a > 1 then t end",
            "exists (select from t where t is null)",
            "salary > 5",
            "(select max(o.salary) from o)",
            "'open",
        ] {
            assert!(means_row("t", text), "{text}");
        }
        assert!(means_row("select \"x\"", "\"select \"\"x\"\"\"::text"));
        let long = "n".repeat(63);
        assert!(means_row(&long, &format!("{long}nnn is null")));
        assert!(means_row("ärger", "ÄRGER is null"));
    }

    #[test]
    fn what_names_no_row_is_left_alone() {
        for text in [
            "a * a",
            "t.a * t.id > t.a",
            "t.\"Name\" = 'x'",
            "\"T\".a",
            "t.ctid > '(0,1)' and t.tableoid = 1",
            "'t.*' || a",
            "E'it''s \\' t.*'",
            "$x$ t $x$",
            "a -- t\n",
            "/* t */ a",
            "t(a)",
            "x.t",
            "exists (select from t where t.a = 1)",
            "a in (select a from only t join t on true)",
            "ta + tt + a_t",
            "count(*)",
        ] {
            assert!(!means_row("t", text), "{text}");
        }
        assert!(!means_row("status", "status = 'new' and status.a = 1"));
    }
}
