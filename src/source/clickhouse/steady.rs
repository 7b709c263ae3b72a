//! Whether texts of a person give the same answer each time they are asked: only then several statements give what one
//! would.

use std::collections::BTreeSet;

use super::columns::{ChColumn, ChColumnFacts};
use super::lexer;
use super::names::literal;
use super::prepare::ChPlanning;
use crate::model::ShapeOptions;
use crate::source::SourceError;

/// Functions of the moment that a server takes without a bracket behind them.
const BARE: [&str; 7] = ["now", "today", "curdate", "current_date", "current_timestamp", "localtime", "localtimestamp"];

/// The texts that are computed for each row that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RowTexts {
    predicate: Option<String>,
    /// What a person's expressions say, and the aliases of the table that are read.
    values: Vec<String>,
}

impl RowTexts {
    /// Those of a request. An alias is read where it is written, where the key has it, and where a text that is computed names
    /// it, that of another alias too.
    pub(super) fn of(shape: &ShapeOptions, described: &[ChColumnFacts], columns: &[ChColumn]) -> Self {
        let mut values: Vec<String> = shape.expressions.iter().map(|(_, text)| text.clone()).collect();
        let written = columns.iter().filter_map(|column| column.output.origin.column().map(str::to_owned));
        let key = shape.key.iter().flatten().map(|(name, _)| name.clone());
        let texts = shape.predicate.iter().chain(&values).flat_map(|text| lexer::names(text));
        let mut named: BTreeSet<String> = written.chain(key).chain(texts).collect();
        let mut aliases: Vec<(&str, &str)> =
            described.iter().filter_map(|column| Some((column.name.as_str(), column.alias.as_deref()?))).collect();
        loop {
            // A text takes `a.b` apart.
            let is_read = |name: &str| named.contains(name) || name.split('.').all(|part| named.contains(part));
            let (read, rest): (Vec<_>, Vec<_>) = aliases.into_iter().partition(|(name, _)| is_read(name));
            if read.is_empty() {
                return Self { predicate: shape.predicate.clone(), values };
            }
            for (_, text) in read {
                named.extend(lexer::names(text));
                values.push(text.to_owned());
            }
            aliases = rest;
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<&str> {
        self.predicate.iter().chain(&self.values).map(String::as_str).collect()
    }
}

impl ChPlanning<'_> {
    /// Why a value may be of other rows than its own, as those of window functions and aggregates are: a slice would have it of
    /// the rows of the slice.
    pub(super) async fn of_other_rows(&self, texts: &RowTexts) -> Result<Option<String>, SourceError> {
        let called: BTreeSet<String> = texts.values.iter().flat_map(|text| called(text)).collect();
        if called.is_empty() {
            return Ok(None);
        }
        let words: Vec<String> = called.iter().map(|word| literal(word)).collect();
        // The server counts window functions among the aggregates, and does not list those with a combinator behind their names.
        let sql = format!(
            "SELECT name FROM system.functions WHERE is_aggregate = 1 AND arrayExists(outhaul_word -> match(outhaul_word, \
             concat('^', lower(name), '(', (SELECT lower(arrayStringConcat(groupArray(name), '|')) \
             FROM system.aggregate_function_combinators), ')*$')), [{}]) ORDER BY name LIMIT 1",
            words.join(", ")
        );
        let rows = self.ask("asking which functions look at other rows", &sql).await?;
        let name = rows.into_iter().flatten().flatten().next();
        Ok(name.map(|name| format!("{name} looks at other rows than its own")))
    }

    /// Why the texts may give another answer each time they are asked; `None` where they do not.
    pub(super) async fn undetermined(&self, texts: &[&str]) -> Result<Option<String>, SourceError> {
        let words: BTreeSet<String> = texts.iter().flat_map(|text| called(text)).collect();
        if words.contains("select") {
            return Ok(Some("a query within --where or --column is of its own moment in each statement".to_owned()));
        }
        if words.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = words.iter().map(|word| literal(word)).collect();
        let names = names.join(", ");
        for column in ["deterministic", "is_deterministic"] {
            let sql = format!(
                "SELECT name FROM system.functions WHERE lower(name) IN ({names}) AND is_aggregate = 0 \
                 AND ({column} IS NULL OR {column} = 0)"
            );
            match self.ask("asking which functions give another answer each time", &sql).await {
                Ok(rows) => {
                    let name = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
                    return Ok(name.map(|name| format!("{name} may give another answer in each statement")));
                }
                // There is no such column in this version.
                Err(error) if error.code.as_deref() == Some("47") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some("this server does not say which functions give another answer each time".to_owned()))
    }

    /// As [`ChPlanning::undetermined`], of texts that are queries themselves.
    pub(super) async fn undetermined_of_query(&self, texts: &[&str]) -> Result<Option<String>, SourceError> {
        let without: Vec<String> = texts
            .iter()
            .map(|text| {
                let mut calls: Vec<String> = called(text).into_iter().filter(|word| word != "select").collect();
                // Each stands before a bracket again.
                calls.push(String::new());
                calls.join("(")
            })
            .collect();
        let texts: Vec<&str> = without.iter().map(String::as_str).collect();
        self.undetermined(&texts).await
    }
}

/// [`words`], and the names that quotes or a comment part from their brackets.
fn called(text: &str) -> BTreeSet<String> {
    let calls = lexer::calls(text).into_iter().map(|name| name.to_lowercase());
    words(text).into_iter().chain(calls).collect()
}

/// The words of a text that stand before a bracket, those that need none, and `select`, in small letters. What stands in quotes may be among them,
/// which only makes one statement of what could be several.
fn words(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut word = String::new();
    let mut gap = false;
    for letter in text.chars().chain([' ']) {
        if letter.is_alphanumeric() || letter == '_' {
            if gap {
                word.clear();
            }
            gap = false;
            word.extend(letter.to_lowercase());
        } else {
            let alone = word == "select" || BARE.contains(&word.as_str());
            if alone || letter == '(' && !word.is_empty() {
                found.insert(word.clone());
            }
            if !letter.is_whitespace() {
                word.clear();
            }
            gap = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, RelationRequest};

    #[test]
    fn a_function_is_found_whatever_stands_about_its_name() {
        for text in ["`now`()", "\"NOW\" ()", "1 + now/* it */()", "now -- it\n()"] {
            assert!(called(text).contains("now"), "{text}");
        }
    }

    #[test]
    fn an_alias_is_a_text_wherever_it_is_read() {
        let column = |name: &str, alias: Option<&str>| ChColumnFacts {
            name: name.to_owned(),
            type_name: "UInt8".to_owned(),
            hidden: alias.is_some(),
            alias: alias.map(str::to_owned),
        };
        let described = [
            column("id", None),
            column("age", Some("dateDiff('day', born, today())")),
            column("old", Some("`age` > 90")),
            column("n.x", Some("rand()")),
        ];
        let of = |predicate: Option<&str>, key: Option<&str>, expression: Option<&str>| {
            let shape = ShapeOptions {
                predicate: predicate.map(str::to_owned),
                key: key.map(|key| vec![(key.to_owned(), Direction::Asc)]),
                expressions: expression.map(|text| ("e".to_owned(), text.to_owned())).into_iter().collect(),
                relation: RelationRequest::Table("t".to_owned()),
                columns: None,
                renames: Vec::new(),
                allow_rls: false,
                scoped: None,
            };
            RowTexts::of(&shape, &described, &[]).all().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let age = "dateDiff('day', born, today())";
        assert_eq!(of(Some("id = 1"), None, None), ["id = 1"]);
        assert_eq!(of(Some("old"), None, None), ["old", "`age` > 90", age]);
        assert_eq!(of(None, Some("age"), None), [age]);
        assert_eq!(of(None, None, Some("age + 1")), ["age + 1", age]);
        assert_eq!(of(Some("t.n.x > 0"), None, None), ["t.n.x > 0", "rand()"]);
    }

    #[test]
    fn the_functions_of_a_text_are_found() {
        let found = |text| words(text).into_iter().collect::<Vec<_>>();
        assert_eq!(found("a > NOW() and b in (1, 2) or Lower (c) = 'x'"), ["in", "lower", "now"]);
        assert_eq!(found("id IN (SELECT id FROM t)"), ["in", "select"]);
        assert_eq!(found("a and (b or c)"), ["and"]);
        assert!(found("a = 1").is_empty());
        assert_eq!(found("t < CURRENT_TIMESTAMP - 5 and d = today"), ["current_timestamp", "today"]);
        assert!(found("now_id = 1 and t.nowhere = 2").is_empty());
    }
}
