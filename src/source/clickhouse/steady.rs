//! Whether texts of a person give the same answer each time they are asked: only then several statements give what one
//! would.

use std::collections::BTreeSet;

use super::names::literal;
use super::prepare::ChPlanning;
use crate::source::SourceError;

/// Functions of the moment that a server takes without a bracket behind them.
const BARE: [&str; 7] = ["now", "today", "curdate", "current_date", "current_timestamp", "localtime", "localtimestamp"];

impl ChPlanning<'_> {
    /// Why the texts may give another answer each time they are asked; `None` where they do not.
    pub(super) async fn undetermined(&self, texts: &[&str]) -> Result<Option<String>, SourceError> {
        let words: BTreeSet<String> = texts.iter().flat_map(|text| words(text)).collect();
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
                let mut calls: Vec<String> = words(text).into_iter().filter(|word| word != "select").collect();
                // Each stands before a bracket again.
                calls.push(String::new());
                calls.join("(")
            })
            .collect();
        let texts: Vec<&str> = without.iter().map(String::as_str).collect();
        self.undetermined(&texts).await
    }
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
