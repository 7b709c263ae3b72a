//! A statement that says itself in which format it wants its answer: a FORMAT at the end of a query to ClickHouse is `--format
//! source`, and what else is said of the file must agree with it.

use super::implied::{CODECS, FORMATS, cut, imply, last_name, one_value, written};
use super::raw::Raw;
use super::{ConfigError, Environment, connection, value};
use crate::model::Format;
use crate::source::clickhouse::formats::{self, KnownFormat};
use crate::source::clickhouse::lexer;
use crate::source::clickhouse::verbatim::DEFAULT_FORMAT;

/// Ends of names that mean the same, and the one that a format has.
const SAME_ENDS: [(&str, &str); 4] = [("ndjson", "jsonl"), ("json", "jsonl"), ("tab", "tsv"), ("arrow", "arrows")];

/// Adds what is implied where the source writes the bytes itself; `None` where it does not.
pub(super) fn add(raw: &mut Raw, environment: &Environment) -> Option<Vec<ConfigError>> {
    if !connection::is_clickhouse(raw, environment) {
        return None;
    }
    // What is wrong with a statement is told of where it is checked.
    let says = one_value(raw, "query").and_then(|query| lexer::statement(&query).ok()?.format);
    let asked = one_value(raw, "format").map(|format| value::format(&format) == Ok(Format::Source));
    let mut errors = Vec::new();
    match (&says, asked) {
        (None, None | Some(false)) => return None,
        (None | Some(_), Some(true)) => {}
        (Some(format), None) => {
            imply(raw, &format!("--query ends with FORMAT {format}"), &[("format", "source")], &mut errors);
        }
        (Some(format), Some(false)) => {
            let given = one_value(raw, "format").unwrap_or_default();
            let given = written("format", raw.get("format"), &given);
            let what = format!("--query ends with FORMAT {format}, and {given} says otherwise");
            errors.push(ConfigError::new(what, "leave one of them out"));
            return Some(errors);
        }
    }
    let format = says.unwrap_or_else(|| DEFAULT_FORMAT.to_owned());
    if let (Some(to), Some(KnownFormat::Written { extension, .. })) = (one_value(raw, "to"), formats::by_name(&format))
    {
        match agrees(&to, extension) {
            Ok(true) => {
                let clause = format!("{} is the name of a file", written("to", raw.get("to"), &to));
                imply(raw, &clause, &[("single_file", "true")], &mut errors);
            }
            Ok(false) => {}
            Err(end) => {
                let what = format!("--to {to} ends in .{end}, and a file in FORMAT {format} in .{extension}");
                errors.push(ConfigError::new(what, "change the name, or the FORMAT of the query"));
            }
        }
    }
    Some(errors)
}

/// Whether the name of a destination is that of a file with this extension; not where it names a folder.
///
/// # Errors
/// The end of the name, which says another format, or a codec that nobody applies.
fn agrees<'a>(to: &'a str, extension: &str) -> Result<bool, &'a str> {
    let Some(name) = last_name(to) else { return Ok(false) };
    let Some((_, end)) = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) else { return Ok(false) };
    let small = end.to_ascii_lowercase();
    let same = SAME_ENDS.iter().any(|(other, one)| *other == small && *one == extension);
    if small == extension || same {
        return Ok(true);
    }
    let ours =
        FORMATS.iter().any(|(known, ..)| *known == small) || CODECS.iter().any(|(known, _)| cut(name, known).is_some());
    if ours || formats::is_extension(&small) { Err(end) } else { Ok(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_of_the_format_or_a_folder_or_wrong() {
        for (to, extension, agreed) in [
            ("out.csv", "csv", Ok(true)),
            ("s3://bucket/a/OUT.CSV", "csv", Ok(true)),
            ("out.ndjson", "jsonl", Ok(true)),
            ("out.arrow", "arrow", Ok(true)),
            ("out", "csv", Ok(false)),
            ("out.2026", "csv", Ok(false)),
            ("-", "csv", Ok(false)),
            ("s3://bucket.csv", "csv", Ok(false)),
            ("out.tsv", "csv", Err("tsv")),
            ("out.native", "csv", Err("native")),
            ("out.csv.gz", "csv", Err("gz")),
            ("out.json", "csv", Err("json")),
        ] {
            assert_eq!(agrees(to, extension), agreed, "{to}");
        }
    }
}
