//! `DuckDB`: a view over the manifest's parts, one by one.
//!
//! Found out with `DuckDB` 2.0.0, and kept so by `tests/it/ddl.rs`:
//! - `allow_quoted_nulls = false` keeps `""` apart from nothing.
//! - `0044-03-15 BC` is read as the year 44 after Christ; `0044-03-15 (BC)` is right.
//! - `\x6162` is no BLOB literal: it would become the byte 61 and the text `62`.
//! - Numbers in JSON become doubles, whatever the column's type; integers of any size do not.
//! - Decimals of more than 38 digits in Parquet become doubles.
//! - `key=value` folders become columns unless `hive_partitioning` is off.

use super::columns::{Column, DECIMAL_DIGITS, Kind};
use super::name::TableName;
use super::quote::{double_quoted, literal};
use super::{Export, Script};
use crate::commit::model::FormatKind;
use crate::model::policy::written;
use crate::model::{Compression, CsvOptions, Format};
use crate::store::local_path;

/// Digits that a double holds whatever they are.
const DOUBLE_DIGITS: u8 = 15;

pub(super) fn script(export: &Export<'_>, name: &TableName) -> Result<Script, Vec<String>> {
    let format = &export.manifest.format;
    let mut reasons = export.distinct_names();
    reasons.extend(export.columns.iter().filter_map(|column| unreadable(column, format.format())));
    if export.columns.is_empty() {
        reasons.push("there is no column".to_owned());
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let (function, options) = match &format.kind {
        FormatKind::Parquet { .. } => ("read_parquet", Vec::new()),
        FormatKind::Csv(csv) => ("read_csv", csv_options(csv, export)),
        FormatKind::Ndjson => {
            let fixed = ["format = 'newline_delimited'".to_owned()];
            ("read_json", [text_options(export), fixed.to_vec()].concat())
        }
    };
    let selected = export.columns.iter().map(|column| format!("    {}", selected(column, format.format())));
    let files = export.manifest.parts.iter().map(|part| format!("        {}", literal(&file(&part.url))));
    let options: Vec<String> = options.iter().map(|option| format!(",\n    {option}")).collect();
    let statement = format!(
        "CREATE OR REPLACE VIEW {} AS\nSELECT\n{}\nFROM {function}(\n    [\n{}\n    ]{},\n    \
         hive_partitioning = false\n)",
        name.quoted(double_quoted),
        selected.collect::<Vec<_>>().join(",\n"),
        files.collect::<Vec<_>>().join(",\n"),
        options.concat()
    );
    Ok(Script { notes: notes(export), statements: vec![statement] })
}

/// Why a column cannot be read exactly.
fn unreadable(column: &Column<'_>, format: Format) -> Option<String> {
    let name = column.name;
    let wide = |kind: &Kind| matches!(kind, Kind::Decimal { precision, .. } if *precision > DECIMAL_DIGITS);
    match (format, &column.kind) {
        (Format::Parquet, kind) if kind.any(&wide) => Some(format!(
            "column {name:?} has decimals of more than {DECIMAL_DIGITS} digits, which it reads as doubles: \
             --column-policy {} writes text",
            written(name, "text")
        )),
        (Format::Ndjson, Kind::Number | Kind::Decimal { .. })
            if !column.large_as_strings() && !fits_double(&column.kind) =>
        {
            Some(format!(
                "column {name:?} has numbers of more than {DOUBLE_DIGITS} digits, which it reads from JSON as doubles: \
                 export with --json-large-numbers string, or as Parquet or CSV"
            ))
        }
        _ => None,
    }
}

fn fits_double(kind: &Kind) -> bool {
    matches!(kind, Kind::Decimal { precision, .. } if *precision <= DOUBLE_DIGITS)
}

fn notes(export: &Export<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let url = export.manifest.parts.first().map_or("", |part| part.url.as_str());
    match url.split_once("://") {
        Some(("s3" | "gs", _)) => {
            notes.push("INSTALL httpfs; LOAD httpfs; and CREATE SECRET for the bucket come first".to_owned());
        }
        Some(("az" | "abfss", _)) => {
            notes.push("INSTALL azure; LOAD azure; and CREATE SECRET for the account come first".to_owned());
        }
        _ => {}
    }
    let format = export.manifest.format.format();
    let has = |is: &dyn Fn(&Kind) -> bool| export.columns.iter().any(|column| column.kind.any(is));
    if has(&|kind| matches!(kind, Kind::Timestamp { utc: true, .. })) {
        notes.push("timestamps with time zone are shown in the session's TimeZone".to_owned());
    }
    if format != Format::Parquet && has(&|kind| matches!(kind, Kind::Decimal { .. })) {
        notes.push("a DECIMAL has no NaN: a query that meets one fails".to_owned());
    }
    if format == Format::Csv {
        // It takes buffers of 32 lines a thread, so that a generous size is memory lost.
        notes.push("lines of more than 2,000,000 bytes fail a query unless max_line_size is raised".to_owned());
    }
    let numbers_within = |column: &Column<'_>| column.kind == Kind::Json && !column.large_as_strings();
    if format == Format::Ndjson && export.columns.iter().any(numbers_within) {
        notes.push("numbers within JSON are read as doubles".to_owned());
    }
    notes
}

/// One item of the select list.
fn selected(column: &Column<'_>, format: Format) -> String {
    let name = double_quoted(column.name);
    let moment = |data_type: &str| {
        format!(
            "CAST(CASE WHEN ends_with({name}, ' BC') THEN regexp_replace({name}, '^([0-9]+-[0-9]+-[0-9]+)(.*) BC$', \
             '\\1 (BC)\\2') ELSE {name} END AS {data_type}) AS {name}"
        )
    };
    match &column.kind {
        _ if format == Format::Parquet => name,
        Kind::Bytes => format!("unhex(substr({name}, 3)) AS {name}"),
        Kind::Date => moment("DATE"),
        Kind::Timestamp { utc: false, .. } => moment("TIMESTAMP"),
        Kind::Timestamp { utc: true, .. } => moment("TIMESTAMP WITH TIME ZONE"),
        Kind::Decimal { precision, scale } if format == Format::Ndjson && !fits_double(&column.kind) => {
            format!("CAST({name} AS DECIMAL({precision}, {scale})) AS {name}")
        }
        _ => name,
    }
}

/// The type as which a text format's column is read, before [`selected`] makes more of it.
fn read_type(column: &Column<'_>, format: Format) -> String {
    match &column.kind {
        Kind::Bool => "BOOLEAN".to_owned(),
        Kind::Int16 => "SMALLINT".to_owned(),
        Kind::Int32 => "INTEGER".to_owned(),
        Kind::Int64 => "BIGINT".to_owned(),
        Kind::Float32 => "FLOAT".to_owned(),
        Kind::Float64 => "DOUBLE".to_owned(),
        Kind::Decimal { precision, scale } if format == Format::Csv || fits_double(&column.kind) => {
            format!("DECIMAL({precision},{scale})")
        }
        Kind::Uuid => "UUID".to_owned(),
        Kind::Time => "TIME".to_owned(),
        Kind::Json if format == Format::Ndjson => "JSON".to_owned(),
        _ => "VARCHAR".to_owned(),
    }
}

fn text_options(export: &Export<'_>) -> Vec<String> {
    let format = &export.manifest.format;
    let columns = export
        .columns
        .iter()
        .map(|column| format!("        {}: {}", literal(column.name), literal(&read_type(column, format.format()))));
    let compression = match format.compression {
        Compression::Gzip(_) => "gzip",
        Compression::Zstd(_) => "zstd",
        Compression::None | Compression::Snappy | Compression::Lz4 => "none",
    };
    vec![
        format!("columns = {{\n{}\n    }}", columns.collect::<Vec<_>>().join(",\n")),
        "auto_detect = false".to_owned(),
        format!("compression = '{compression}'"),
    ]
}

fn csv_options(csv: &CsvOptions, export: &Export<'_>) -> Vec<String> {
    let fixed = [
        format!("header = {}", csv.header),
        format!("delim = {}", literal(&char::from(csv.delimiter).to_string())),
        "quote = '\"'".to_owned(),
        "escape = '\"'".to_owned(),
        format!("nullstr = {}", literal(&csv.null)),
        "allow_quoted_nulls = false".to_owned(),
    ];
    [text_options(export), fixed.to_vec()].concat()
}

/// A part's place as `DuckDB` takes it: a path where it is local, with the characters of patterns made literal.
fn file(url: &str) -> String {
    let place = local_path(url).unwrap_or_else(|| url.to_owned());
    place.chars().fold(String::with_capacity(place.len()), |mut out, c| {
        match c {
            '[' | '*' | '?' => out.extend(['[', c, ']']),
            _ => out.push(c),
        }
        out
    })
}
