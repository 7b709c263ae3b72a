//! What a run's own facts become part of: its id, and the placeholders of `--to`.

use chrono::{NaiveDate, Utc};

use super::{ConfigError, value};
use crate::model::RelationRequest;

/// The day by which `{date}` expands unless another is given.
pub(super) fn today() -> String {
    Utc::now().date_naive().to_string()
}

/// What expands in `--to`.
const KNOWN: &str = "{date}, {run_id}, {table} and {schema} expand";

/// A new run id: when it began, and enough randomness that no two runs share it.
pub(super) fn new_run_id() -> String {
    format!("{}-{:08x}", Utc::now().format("%Y%m%dT%H%M%SZ"), rand::random::<u32>())
}

/// Expands `{date}`, `{run_id}`, `{table}` and `{schema}`. Beside its schema a table stands without it.
pub(super) fn expand(
    to: &str,
    date: Option<NaiveDate>,
    run_id: &str,
    relation: Option<&RelationRequest>,
) -> Result<String, ConfigError> {
    let date = date.map_or_else(today, |date| date.to_string());
    let has_schema = to.contains("{schema}");
    let mut expanded = String::new();
    let mut rest = to;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(ConfigError::new(format!("--to {to}: a {{ is never closed"), KNOWN));
        };
        expanded.push_str(before);
        match (name, relation) {
            ("date", _) => expanded.push_str(&date),
            ("run_id", _) => expanded.push_str(run_id),
            ("table", Some(RelationRequest::Table(table))) => {
                expanded.push_str(&table_in_path(table, !has_schema)?);
            }
            ("schema", Some(RelationRequest::Table(table))) => expanded.push_str(&schema_in_path(table)?),
            ("table" | "schema", Some(RelationRequest::Query(_))) => {
                return Err(ConfigError::new(
                    format!("--to names {{{name}}}, and a --query has none"),
                    "name the destination yourself",
                ));
            }
            // What is missing is told of where --table is read.
            ("table" | "schema", None) => {}
            _ => {
                let what = format!("--to {to}: {{{name}}} is not known");
                return Err(ConfigError::new(what, KNOWN));
            }
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The table's name as one segment of a path, as the catalog has it: `orders`, or `public.orders` where it was written so.
/// Letters, marks and digits of any script stand for themselves. Other characters are refused rather than replaced, so that
/// two tables never share a folder.
fn table_in_path(table: &str, with_schema: bool) -> Result<String, ConfigError> {
    // A name that cannot be read is told of where --table is read.
    let Ok((schema, name)) = value::table(table) else { return Ok(String::new()) };
    let schema = schema.filter(|_| with_schema);
    let path = schema.map_or_else(|| name.clone(), |schema| format!("{schema}.{name}"));
    in_path("table", path)
}

/// The schema's name as one segment of a path.
fn schema_in_path(table: &str) -> Result<String, ConfigError> {
    match value::table(table) {
        Ok((Some(schema), _)) => in_path("schema", schema),
        Ok((None, _)) => {
            let what = format!("--to names {{schema}}, and --table {table} has none");
            Err(ConfigError::new(what, "write the table with its schema: public.orders"))
        }
        // A name that cannot be read is told of where --table is read.
        Err(_) => Ok(String::new()),
    }
}

fn in_path(placeholder: &str, path: String) -> Result<String, ConfigError> {
    if path.chars().all(stands_in_path) && !path.starts_with(['.', '_']) {
        Ok(path)
    } else {
        let what = format!("--to: {{{placeholder}}} is {path:?} here, which cannot stand in a path");
        Err(ConfigError::new(what, "write a name in its place"))
    }
}

/// Marks are letters too: half of the scripts write vowels with them.
fn stands_in_path(c: char) -> bool {
    // Those that are invisible, or turn the text around, deceive whoever reads a listing; two of them shape letters.
    let format = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..);
    c.is_ascii_alphanumeric() || "._-".contains(c) || !(c.is_ascii() || c.is_control() || c.is_whitespace() || format)
}
