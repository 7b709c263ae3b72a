//! `--partition-by`: names and expressions, and what of a request they become.

use super::options::Given;
use super::{ConfigError, value};
use crate::model::FolderOptions;
use crate::model::folders::alike;

/// One level of folders: its name, and the expression that makes its values; without one, the column of that name.
pub(super) type FolderTerm = (String, Option<String>);

/// `dt=created_at::date,country`: terms between commas that stand in no brackets and no quotes.
pub(super) fn terms(text: &str) -> Result<Vec<FolderTerm>, String> {
    const WANTED: &str = "NAME or NAME=EXPRESSION is wanted, as in 'dt=created_at::date,country'";
    split(text)
        .into_iter()
        .map(|term| {
            if let Ok(names) = value::names(term) {
                let [name] = <[String; 1]>::try_from(names).map_err(|_| WANTED.to_owned())?;
                return Ok((name, None));
            }
            let (name, expression) = value::expression(term).map_err(|_| WANTED.to_owned())?;
            Ok((name, Some(expression)))
        })
        .collect()
}

/// The pieces between the commas of the outermost level.
fn split(text: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            ('(' | '[', None) => depth += 1,
            (')' | ']', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

impl Given {
    /// What `--partition-by` asks for; `None` where nobody gave it, or where a default is missing.
    pub(super) fn folders(&self) -> Option<FolderOptions> {
        let columns: Vec<String> = self.partition_by.iter().flatten().map(|(name, _)| name.clone()).collect();
        if columns.is_empty() {
            return None;
        }
        Some(FolderOptions { columns, keep: self.keep_partition_columns?, open: self.open_parts? })
    }

    /// The columns that its expressions make, behind those of `--column`.
    pub(super) fn expressions(&mut self) -> Vec<(String, String)> {
        let mut expressions = std::mem::take(&mut self.column);
        let made = self.partition_by.iter().flatten().cloned();
        expressions.extend(made.filter_map(|(name, expression)| Some((name, expression?))));
        expressions
    }

    /// `--columns`, with the columns that folders need beside them.
    pub(super) fn columns_read(&mut self) -> Option<Vec<String>> {
        let mut columns = self.columns.take()?;
        for (name, expression) in self.partition_by.iter().flatten() {
            let renamed = self.rename.iter().any(|(_, new)| new == name);
            let made = self.column.iter().any(|(of, _)| of == name);
            if expression.is_none() && !renamed && !made && !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        Some(columns)
    }

    /// Names that make no folders, whatever the columns are.
    pub(super) fn folder_mistakes(&self) -> Vec<ConfigError> {
        let names: Vec<&String> = self.partition_by.iter().flatten().map(|(name, _)| name).collect();
        let mut mistakes = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if names[..at].iter().any(|other| alike(other, name)) {
                let what = format!("--partition-by names {name:?} twice");
                mistakes.push(ConfigError::new(what, "give each level of folders another name"));
            }
            let mut of_destination =
                self.to.iter().flat_map(|to| to.split('/')).filter_map(|folder| folder.split_once('='));
            if let Some((key, _)) = of_destination.find(|(key, _)| alike(key, name)) {
                let what = format!(
                    "--partition-by names {name:?}, and --to is in a folder {key}=…, which readers take for it"
                );
                mistakes.push(ConfigError::new(what, "give the folders or the destination another name"));
            }
        }
        if let Some(name) = names.iter().find(|name| name.starts_with(['_', '.'])) {
            let what = format!("--partition-by names {name:?}, and readers take such a folder for hidden");
            mistakes.push(ConfigError::new(what, "write NAME=EXPRESSION with another name, or --rename the column"));
        }
        if names.len() > LEVELS_MAX {
            let what = format!("--partition-by names {} levels of folders", names.len());
            mistakes.push(ConfigError::new(what, format!("{LEVELS_MAX} at most are wanted")));
        }
        mistakes
    }
}

/// More would leave no room for their names in the key of an object.
const LEVELS_MAX: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_stand_between_the_outer_commas() {
        let term = |name: &str, expression: Option<&str>| (name.to_owned(), expression.map(str::to_owned));
        for (text, expected) in [
            ("country", vec![term("country", None)]),
            (" country , \"a, b\" ", vec![term("country", None), term("a, b", None)]),
            (
                "dt=date_trunc('month', created_at)::date,country",
                vec![term("dt", Some("date_trunc('month', created_at)::date")), term("country", None)],
            ),
            ("x=a[1, 2],y=left(b, 1) || ',='", vec![term("x", Some("a[1, 2]")), term("y", Some("left(b, 1) || ',='"))]),
        ] {
            assert_eq!(terms(text), Ok(expected), "{text}");
        }
        for wrong in ["", ",", "a,", "a=", "a b", "=x"] {
            assert!(terms(wrong).unwrap_err().contains("NAME=EXPRESSION"), "{wrong}");
        }
    }
}
