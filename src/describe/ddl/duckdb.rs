//! `DuckDB`: a view over the manifest's parts, one by one.
//!
//! Found out with `DuckDB` 2.0.0, and kept so by `tests/it/ddl.rs`:
//! - `allow_quoted_nulls = false` keeps `""` apart from nothing.
//! - `0044-03-15 BC` is read as the year 44 after Christ; `0044-03-15 (BC)` is right.
//! - `\x6162` is no BLOB literal: it would become the byte 61 and the text `62`.
//! - Numbers in JSON become doubles, whatever the column's type; integers of any size do not.
//! - Decimals of more than 38 digits in Parquet become doubles.
//! - `key=value` folders become columns unless `hive_partitioning` is off.

use std::collections::HashMap;

use super::columns::{DECIMAL_DIGITS, DdlColumn, ValueKind};
use super::current::{CurrentView, current};
use super::folders::Folders;
use super::name::TableName;
use super::quote::{double_quoted, literal};
use super::types::DialectTypes;
use super::{Export, Script, lines};
use crate::commit::model::FormatKind;
use crate::model::policy::written;
use crate::model::{Compression, CsvOptions, Format};
use crate::store::local_path;

/// Digits that a double holds whatever they are.
const DOUBLE_DIGITS: u8 = 15;

/// As which the columns of CSV are read, before [`selected`] makes more of them. Parquet says so itself.
const CSV: DialectTypes = DialectTypes {
    plain: ["BOOLEAN", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE"],
    decimal: ("DECIMAL({p},{s})", u8::MAX, Ok("VARCHAR")),
    text: "VARCHAR",
    json: "VARCHAR",
    bytes: "VARCHAR",
    uuid: Ok("UUID"),
    date: "VARCHAR",
    time: Ok("TIME"),
    timestamps: ["VARCHAR"; 2],
    list: ("VARCHAR", Ok("VARCHAR")),
    map: "VARCHAR",
    structure: ("VARCHAR", ""),
    member: |_| Ok(String::new()),
    nullable: "{}",
};

const NDJSON: DialectTypes =
    DialectTypes { decimal: (CSV.decimal.0, DOUBLE_DIGITS, CSV.decimal.2), json: "JSON", ..CSV };

pub(super) fn script(export: &Export<'_>, name: &TableName, script: &mut Script) {
    let format = export.format();
    export.refuse_doubles(script);
    script.refusals.extend(export.columns.iter().filter_map(|column| unreadable(column, format)));
    let (function, options) = match &export.manifest.format.kind {
        FormatKind::Parquet { .. } => {
            script.refuse(export.columns.is_empty(), "no column is left");
            ("read_parquet", Vec::new())
        }
        FormatKind::Csv(csv) => ("read_csv", [text_options(export, &CSV, script), csv_options(csv)].concat()),
        FormatKind::Source => ("read_blob", Vec::new()),
        FormatKind::Ndjson => {
            let fixed = vec!["format = 'newline_delimited'".to_owned()];
            ("read_json", [text_options(export, &NDJSON, script), fixed].concat())
        }
    };
    notes(export, script);
    let of_files: Vec<String> = export.columns.iter().map(|column| selected(column, format)).collect();
    let joined: Vec<String> = options.iter().map(|option| format!(",\n    {option}")).collect();
    let select = |(values, files): &(Vec<String>, Vec<String>)| {
        format!(
            "SELECT\n{}\nFROM {function}(\n    [\n{}\n    ]{},\n    hive_partitioning = false\n)",
            lines(&[of_files.clone(), values.clone()].concat(), "    "),
            lines(files, "        "),
            joined.concat()
        )
    };
    let selects: Vec<String> = by_values(export).iter().map(select).collect();
    script.statements.push(format!("CREATE OR REPLACE VIEW {} AS\n{}", name.quoted(double_quoted), union(selects)));
    if export.manifest.watermark.is_some() {
        let view = CurrentView {
            name,
            selected: &of_files,
            function,
            options: &options,
            in_folders: !export.of_folders.is_empty(),
        };
        match current(export.manifest, &view) {
            Ok(statement) => script.statements.push(statement),
            Err(why) => script.note(true, why),
        }
    }
}

/// The parts by what their folders have for the columns that they leave out, as items of the select list. Without such
/// columns all parts are together.
fn by_values(export: &Export<'_>) -> Vec<(Vec<String>, Vec<String>)> {
    let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut places: HashMap<Vec<String>, usize> = HashMap::new();
    for part in &export.manifest.parts {
        let value = |column: &DdlColumn<'_>| {
            let found = part.partition_values.iter().find(|folder| folder.column == column.name);
            item(column, found.and_then(|folder| folder.value.as_deref()))
        };
        let values: Vec<String> = export.of_folders.iter().map(value).collect();
        let place = *places.entry(values.clone()).or_insert_with(|| {
            groups.push((values, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(literal(&file(&part.url)));
    }
    groups
}

/// A value as an item of the select list.
fn item(column: &DdlColumn<'_>, value: Option<&str>) -> String {
    let data_type = match &column.kind {
        ValueKind::Bool => "BOOLEAN",
        ValueKind::Int16 => "SMALLINT",
        ValueKind::Int32 => "INTEGER",
        ValueKind::Int64 => "BIGINT",
        ValueKind::Date => "DATE",
        _ => "VARCHAR",
    };
    let value = match (value, &column.kind) {
        (None, _) => "NULL".to_owned(),
        (Some(date), ValueKind::Date) => literal(&date.replace(" BC", " (BC)")),
        (Some(text), _) => literal(text),
    };
    format!("CAST({value} AS {data_type}) AS {}", double_quoted(column.name))
}

/// All rows of several statements; many are put in brackets, since a long chain would be too deep for it.
fn union(mut selects: Vec<String>) -> String {
    while selects.len() > CHAIN_MAX {
        selects = selects.chunks(CHAIN_MAX).map(|chain| format!("(\n{}\n)", chain.join("\nUNION ALL\n"))).collect();
    }
    selects.join("\nUNION ALL\n")
}

/// Statements in one chain.
const CHAIN_MAX: usize = 64;

/// Why a column cannot be read exactly.
fn unreadable(column: &DdlColumn<'_>, format: Format) -> Option<String> {
    let name = column.name;
    let wide = |kind: &ValueKind| matches!(kind, ValueKind::Decimal { precision, .. } if *precision > DECIMAL_DIGITS);
    match (format, &column.kind) {
        (Format::Parquet, kind) if kind.any(&wide) => Some(format!(
            "column {name:?} has decimals of more than {DECIMAL_DIGITS} digits, which it reads as doubles: \
             --column-policy {} writes text",
            written(name, "text")
        )),
        (Format::Ndjson, ValueKind::Number | ValueKind::Decimal { .. })
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

fn fits_double(kind: &ValueKind) -> bool {
    matches!(kind, ValueKind::Decimal { precision, .. } if *precision <= DOUBLE_DIGITS)
}

fn notes(export: &Export<'_>, script: &mut Script) {
    let (format, scheme) = (export.format(), export.scheme());
    let (bucket, azure) = (["s3", "gs"].contains(&scheme), ["az", "abfss"].contains(&scheme));
    let utc = export.has(&|kind| matches!(kind, ValueKind::Timestamp { utc: true, .. }));
    let decimals = format != Format::Parquet && export.has(&|kind| matches!(kind, ValueKind::Decimal { .. }));
    let within = export.columns.iter().any(|column| column.kind == ValueKind::Json && !column.large_as_strings());
    script.note(bucket, "INSTALL httpfs; LOAD httpfs; and CREATE SECRET for the bucket come first");
    script.note(azure, "INSTALL azure; LOAD azure; and CREATE SECRET for the account come first");
    script.note(utc, "timestamps with time zone are shown in the session's TimeZone");
    script.note(decimals, "a DECIMAL has no NaN: a query that meets one fails");
    // It takes buffers of 32 lines a thread, so that a generous size is memory lost.
    let long = "lines of more than 2,000,000 bytes fail a query unless max_line_size is raised";
    script.note(format == Format::Csv, long);
    script.note(format == Format::Ndjson && within, "numbers within JSON are read as doubles");
}

/// One item of the select list.
fn selected(column: &DdlColumn<'_>, format: Format) -> String {
    let name = double_quoted(column.name);
    let moment = |data_type: &str| {
        format!(
            "CAST(CASE WHEN ends_with({name}, ' BC') THEN regexp_replace({name}, '^([0-9]+-[0-9]+-[0-9]+)(.*) BC$', \
             '\\1 (BC)\\2') ELSE {name} END AS {data_type}) AS {name}"
        )
    };
    match &column.kind {
        _ if format == Format::Parquet => name,
        ValueKind::Bytes => format!("unhex(substr({name}, 3)) AS {name}"),
        ValueKind::Date => moment("DATE"),
        ValueKind::Timestamp { utc: false, .. } => moment("TIMESTAMP"),
        ValueKind::Timestamp { utc: true, .. } => moment("TIMESTAMP WITH TIME ZONE"),
        ValueKind::Decimal { precision, scale } if format == Format::Ndjson && !fits_double(&column.kind) => {
            format!("CAST({name} AS DECIMAL({precision}, {scale})) AS {name}")
        }
        _ => name,
    }
}

fn text_options(export: &Export<'_>, types: &DialectTypes, script: &mut Script) -> Vec<String> {
    let column = |name: &str, word: &str| format!("{}: {}", literal(name), literal(word));
    let columns = export.columns(types, &Folders::default(), script, column);
    let compression = match export.compression() {
        Compression::Gzip(_) => "gzip",
        Compression::Zstd(_) => "zstd",
        Compression::None | Compression::Snappy | Compression::Lz4 => "none",
    };
    vec![
        format!("columns = {{\n{}\n    }}", lines(&columns, "        ")),
        "auto_detect = false".to_owned(),
        format!("compression = '{compression}'"),
    ]
}

fn csv_options(csv: &CsvOptions) -> Vec<String> {
    vec![
        format!("header = {}", csv.header),
        format!("delim = {}", literal(&char::from(csv.delimiter).to_string())),
        "quote = '\"'".to_owned(),
        "escape = '\"'".to_owned(),
        format!("nullstr = {}", literal(&csv.null)),
        "allow_quoted_nulls = false".to_owned(),
    ]
}

/// A part's place as `DuckDB` takes it: a path where it is local, with the characters of patterns made literal.
pub(super) fn file(url: &str) -> String {
    let place = local_path(url).unwrap_or_else(|| url.to_owned());
    place.chars().fold(String::with_capacity(place.len()), |mut out, c| {
        match c {
            '[' | '*' | '?' => out.extend(['[', c, ']']),
            _ => out.push(c),
        }
        out
    })
}
