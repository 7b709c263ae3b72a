//! `ClickHouse`: a view over the manifest's parts, one by one.
//!
//! Found out with `ClickHouse` 26.9, and kept so by `tests/it/ddl.rs`: settings within a view's SELECT are in force when
//! the view is read; an unquoted empty field is NULL and `""` is not; what a type cannot hold is an error, but for
//! timestamps in Parquet after 9999, which are shown as 9999 although they are kept.

use super::columns::{Column, Kind};
use super::name::TableName;
use super::quote::{clickhouse_name, escaped_literal};
use super::{Export, Script};
use crate::commit::model::FormatKind;
use crate::model::{Compression, Format};
use crate::store::local_path;

/// Names in one pair of braces. `ClickHouse` makes one regular expression of them.
const NAMES_MAX: usize = 500;

/// Bytes of a statement that the server parses without being told (`max_query_size` is 262,144).
const STATEMENT_BYTES: usize = 250_000;

/// Delimiters that its CSV refuses (`checkBadDelimiter` in `CSVRowInputFormat.cpp`).
const DELIMITERS_REFUSED: &[u8] = b" \t\"'.UL";

/// The most digits of its decimals.
const DECIMAL_DIGITS: u8 = 76;

pub(super) fn script(export: &Export<'_>, name: &TableName) -> Result<Script, Vec<String>> {
    let mut reasons: Vec<String> = export
        .columns
        .iter()
        .filter_map(|column| {
            let why = data_type(column).err()?;
            Some(format!("column {:?} {why}", column.name))
        })
        .collect();
    if export.columns.is_empty() {
        reasons.push("there is no column".to_owned());
    }
    if let FormatKind::Csv(csv) = &export.manifest.format.kind
        && DELIMITERS_REFUSED.contains(&csv.delimiter)
    {
        let delimiter = char::from(csv.delimiter);
        reasons.push(format!("it reads no CSV with the delimiter {delimiter:?}: --csv-delimiter ',' or ';'"));
    }
    let sources = match sources(export) {
        Ok(sources) => sources,
        Err(why) => {
            reasons.push(why);
            Vec::new()
        }
    };
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let selected: Vec<String> =
        export.columns.iter().map(|column| format!("    {}", selected(column, export))).collect();
    let from = match sources.as_slice() {
        [only] => only.clone(),
        several => {
            let several: Vec<String> = several.iter().map(|source| format!("    SELECT * FROM {source}")).collect();
            format!("(\n{}\n)", several.join("\n    UNION ALL\n"))
        }
    };
    let statement = format!(
        "CREATE OR REPLACE VIEW {} AS\nSELECT\n{}\nFROM {from}\nSETTINGS\n    {}",
        name.quoted(clickhouse_name),
        selected.join(",\n"),
        settings(export).join(",\n    ")
    );
    let mut statements = Vec::new();
    if statement.len() > STATEMENT_BYTES {
        statements.push(format!("SET max_query_size = {}", statement.len().saturating_mul(2)));
    }
    statements.push(statement);
    Ok(Script { notes: notes(export), statements })
}

/// The table functions that read all parts: one for each folder and each [`NAMES_MAX`] parts of it.
fn sources(export: &Export<'_>) -> Result<Vec<String>, String> {
    let format = export.manifest.format.format();
    let name = match &export.manifest.format.kind {
        FormatKind::Parquet { .. } => "Parquet",
        FormatKind::Csv(csv) if csv.header => "CSVWithNames",
        FormatKind::Csv(_) => "CSV",
        FormatKind::Ndjson => "JSONEachRow",
    };
    let codec = match (format, export.manifest.format.compression) {
        (Format::Csv | Format::Ndjson, Compression::Gzip(_)) => "gzip",
        (Format::Csv | Format::Ndjson, Compression::Zstd(_)) => "zstd",
        _ => "none",
    };
    let columns =
        export.columns.iter().map(|column| Ok(format!("{} {}", clickhouse_name(column.name), data_type(column)?)));
    let structure = escaped_literal(&columns.collect::<Result<Vec<_>, String>>()?.join(", "));
    let mut groups: Vec<(Place, Vec<String>)> = Vec::new();
    for part in &export.manifest.parts {
        let (place, file) = place(&part.url)?;
        match groups.last_mut() {
            Some((last, files)) if *last == place && files.len() < NAMES_MAX => files.push(file),
            _ => groups.push((place, vec![file])),
        }
    }
    let source = |(place, files): &(Place, Vec<String>)| {
        let files = if let [only] = files.as_slice() { only.clone() } else { format!("{{{}}}", files.join(",")) };
        let url = escaped_literal(&format!("{}/{files}", place.folder));
        format!("{}({url}, '{name}', {structure}, '{codec}')", place.function)
    };
    Ok(groups.iter().map(source).collect())
}

/// A folder, and the table function that reads it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    function: &'static str,
    folder: String,
}

/// The place of a part, and its name there.
fn place(url: &str) -> Result<(Place, String), String> {
    let local = local_path(url);
    let function = match (&local, url.split_once("://")) {
        (Some(_), _) => "file",
        (None, Some(("s3", _))) => "s3",
        (None, Some(("gs", _))) => "gcs",
        _ => return Err("it reads Azure with a connection string, which is no business of this file".to_owned()),
    };
    let path = local.as_deref().unwrap_or(url);
    // Patterns cannot be made literal there, and of a URL it decodes what looks encoded.
    let pattern =
        |c: char| matches!(c, '*' | '?' | '{' | '}' | ',') || (local.is_none() && matches!(c, '%' | '#' | '+'));
    if path.contains(pattern) {
        return Err(format!("{path:?} has characters that it takes for a pattern: export to another folder"));
    }
    let (folder, name) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is in no folder"))?;
    Ok((Place { function, folder: folder.to_owned() }, name.to_owned()))
}

fn settings(export: &Export<'_>) -> Vec<String> {
    let mut settings = vec!["use_hive_partitioning = 0".to_owned()];
    if export.manifest.format.format() != Format::Parquet {
        settings.push("date_time_input_format = 'best_effort'".to_owned());
    }
    if let FormatKind::Csv(csv) = &export.manifest.format.kind {
        settings.push(format!("format_csv_delimiter = {}", escaped_literal(&char::from(csv.delimiter).to_string())));
        settings.push(format!("format_csv_null_representation = {}", escaped_literal(&csv.null)));
        let off = [
            "input_format_csv_empty_as_default",
            "input_format_csv_trim_whitespaces",
            "input_format_csv_detect_header",
            "format_csv_allow_single_quotes",
        ];
        settings.extend(off.map(|name| format!("{name} = 0")));
    }
    settings
}

fn notes(export: &Export<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let url = export.manifest.parts.first().map_or("", |part| part.url.as_str());
    notes.push(match url.split_once("://") {
        Some(("file", _)) => {
            "file() reads below user_files_path on a server, and anywhere in clickhouse-local".to_owned()
        }
        _ => "the server's own credentials read the bucket".to_owned(),
    });
    let format = export.manifest.format.format();
    let has = |is: &dyn Fn(&Kind) -> bool| export.columns.iter().any(|column| column.kind.any(is));
    if has(&|kind| matches!(kind, Kind::Date | Kind::Timestamp { .. })) {
        notes.push(if format == Format::Parquet {
            "a date outside the years 0 to 9999 fails a query; a timestamp after 9999 is shown as 9999".to_owned()
        } else {
            "a date or timestamp at infinity or outside the years 0 to 9999 fails a query".to_owned()
        });
    }
    if format != Format::Parquet && has(&|kind| matches!(kind, Kind::Decimal { .. })) {
        notes.push("a Decimal has no NaN: a query that meets one fails".to_owned());
    }
    let json: Vec<String> = export
        .columns
        .iter()
        .filter(|column| format == Format::Ndjson && column.kind == Kind::Json)
        .map(|column| format!("{:?}", column.name))
        .collect();
    if !json.is_empty() {
        notes.push(format!("{}: JSON as text, where a string stands without its quotes", json.join(", ")));
    }
    let nested = export.columns.iter().filter(|column| column.nullable && column.kind.is_nested());
    let nested: Vec<String> = nested.map(|column| format!("{:?}", column.name)).collect();
    if !nested.is_empty() {
        notes.push(format!("{}: ClickHouse has no NULL there, and shows an empty value for it", nested.join(", ")));
    }
    notes
}

/// One item of the select list.
fn selected(column: &Column<'_>, export: &Export<'_>) -> String {
    let name = clickhouse_name(column.name);
    if column.kind == Kind::Bytes && export.manifest.format.format() != Format::Parquet {
        return format!("unhex(substring({name}, 3)) AS {name}");
    }
    name
}

/// A column's type, or why there is none.
fn data_type(column: &Column<'_>) -> Result<String, String> {
    let inner = value_type(&column.kind)?;
    Ok(if column.nullable && !column.kind.is_nested() { format!("Nullable({inner})") } else { inner })
}

fn value_type(kind: &Kind) -> Result<String, String> {
    // What is nested says nothing of its NULLs.
    let within = |kind: &Kind| {
        let inner = value_type(kind)?;
        Ok::<_, String>(if kind.is_nested() { inner } else { format!("Nullable({inner})") })
    };
    Ok(match kind {
        Kind::Bool => "Bool".to_owned(),
        Kind::Int16 => "Int16".to_owned(),
        Kind::Int32 => "Int32".to_owned(),
        Kind::Int64 => "Int64".to_owned(),
        Kind::Float32 => "Float32".to_owned(),
        Kind::Float64 => "Float64".to_owned(),
        Kind::Decimal { precision, scale } if *precision <= DECIMAL_DIGITS => format!("Decimal({precision}, {scale})"),
        Kind::Decimal { precision, .. } => {
            return Err(format!("has {precision} digits, and it reads {DECIMAL_DIGITS}"));
        }
        Kind::Number | Kind::Text | Kind::Json | Kind::Bytes | Kind::Unclear => "String".to_owned(),
        Kind::Uuid => "UUID".to_owned(),
        Kind::Date => "Date32".to_owned(),
        Kind::Time => "Time64(6)".to_owned(),
        Kind::Timestamp { micros, .. } => format!("DateTime64({}, 'UTC')", if *micros { 6 } else { 3 }),
        Kind::List(element) => format!("Array({})", within(element)?),
        Kind::Map => "Map(String, Nullable(String))".to_owned(),
        Kind::Struct(members) => {
            let member = |(name, kind): &(String, Kind)| Ok(format!("{} {}", clickhouse_name(name), within(kind)?));
            format!("Tuple({})", members.iter().map(member).collect::<Result<Vec<_>, String>>()?.join(", "))
        }
    })
}
