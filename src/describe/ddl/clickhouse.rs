//! `ClickHouse`: a view over the manifest's parts, one by one.
//!
//! Found out with `ClickHouse` 26.9, and kept so by `tests/it/ddl.rs`: settings within a view's SELECT are in force when
//! the view is read; an unquoted empty field is NULL and `""` is not; what a type cannot hold is an error, but for
//! timestamps in Parquet after 9999, which are shown as 9999 although they are kept.

use super::columns::{DdlColumn, ValueKind};
use super::folders::Folders;
use super::name::TableName;
use super::quote::{clickhouse_name, escaped_literal};
use super::types::DialectTypes;
use super::{Export, Script, lines};
use crate::commit::model::FormatKind;
use crate::model::{Compression, Format};
use crate::store::local_path;

/// Names in one pair of braces. `ClickHouse` makes one regular expression of them. Of an object store it asks for each name
/// and fails where one is gone; of a folder it takes what is there, so each file has a function of its own.
const NAMES_MAX: usize = 500;

/// Bytes of a statement that the server parses without being told (`max_query_size` is 262,144).
const STATEMENT_BYTES: usize = 250_000;

/// Delimiters that its CSV refuses (`checkBadDelimiter` in `CSVRowInputFormat.cpp`).
const DELIMITERS_REFUSED: &[u8] = b" \t\"'.UL";

const TYPES: DialectTypes = DialectTypes {
    plain: ["Bool", "Int16", "Int32", "Int64", "Float32", "Float64"],
    decimal: ("Decimal({p}, {s})", 76, Err("has more than 76 digits, the most it reads")),
    text: "String",
    json: "String",
    bytes: "String",
    uuid: Ok("UUID"),
    date: "Date32",
    time: Ok("Time64(6)"),
    timestamps: ["DateTime64({f}, 'UTC')"; 2],
    list: ("Array({})", Ok("Array({})")),
    map: "Map(String, Nullable(String))",
    structure: ("Tuple({})", ", "),
    member: |name| Ok(format!("{} ", clickhouse_name(name))),
    nullable: "Nullable({})",
};

pub(super) fn script(export: &Export<'_>, name: &TableName, script: &mut Script) {
    let column = |name: &str, word: &str| format!("{} {word}", clickhouse_name(name));
    let columns = export.columns(&TYPES, &Folders::default(), script, column);
    if let FormatKind::Csv(csv) = &export.manifest.format.kind {
        let delimiter = char::from(csv.delimiter);
        script.refuse(
            DELIMITERS_REFUSED.contains(&csv.delimiter),
            format!("it reads no CSV with the delimiter {delimiter:?}: --csv-delimiter ',' or ';'"),
        );
    }
    let sources = match sources(export, &columns) {
        Ok(sources) => sources,
        Err(why) => return script.refuse(true, why),
    };
    let selected: Vec<String> = export.columns.iter().map(|column| selected(column, export.format())).collect();
    let from = match sources.as_slice() {
        [only] => only.clone(),
        several => {
            let several: Vec<String> = several.iter().map(|source| format!("    SELECT * FROM {source}")).collect();
            format!("(\n{}\n)", several.join("\n    UNION ALL\n"))
        }
    };
    let statement = format!(
        "CREATE OR REPLACE VIEW {} AS\nSELECT\n{}\nFROM {from}\nSETTINGS\n{}",
        name.quoted(clickhouse_name),
        lines(&selected, "    "),
        lines(&settings(export), "    ")
    );
    if statement.len() > STATEMENT_BYTES {
        script.statements.push(format!("SET max_query_size = {}", statement.len().saturating_mul(2)));
    }
    script.statements.push(statement);
    notes(export, script);
}

/// The table functions that read all parts: one for each folder and each [`NAMES_MAX`] parts of it.
fn sources(export: &Export<'_>, columns: &[String]) -> Result<Vec<String>, String> {
    let name = match &export.manifest.format.kind {
        FormatKind::Parquet { .. } => "Parquet",
        FormatKind::Csv(csv) if csv.header => "CSVWithNames",
        FormatKind::Csv(_) => "CSV",
        FormatKind::Ndjson => "JSONEachRow",
        FormatKind::Source => "RawBLOB",
    };
    let codec = match (export.format(), export.compression()) {
        (Format::Csv | Format::Ndjson | Format::Source, Compression::Gzip(_)) => "gzip",
        (Format::Csv | Format::Ndjson | Format::Source, Compression::Zstd(_)) => "zstd",
        _ => "none",
    };
    let structure = escaped_literal(&columns.join(", "));
    let mut groups: Vec<(TableFunction, Vec<String>)> = Vec::new();
    for part in &export.manifest.parts {
        let (place, file) = place(&part.url)?;
        match groups.last_mut() {
            Some((last, files)) if *last == place && files.len() < NAMES_MAX && !place.is_local() => files.push(file),
            _ => groups.push((place, vec![file])),
        }
    }
    let source = |(place, files): &(TableFunction, Vec<String>)| {
        let files = if let [only] = files.as_slice() { only.clone() } else { format!("{{{}}}", files.join(",")) };
        let url = escaped_literal(&format!("{}/{files}", place.folder));
        format!("{}({url}, '{name}', {structure}, '{codec}')", place.function)
    };
    Ok(groups.iter().map(source).collect())
}

/// A folder, and the table function that reads it.
#[derive(Debug, PartialEq, Eq)]
struct TableFunction {
    function: &'static str,
    folder: String,
}

impl TableFunction {
    fn is_local(&self) -> bool {
        self.function == "file"
    }
}

/// The place of a part, and its name there.
fn place(url: &str) -> Result<(TableFunction, String), String> {
    let local = local_path(url);
    let function = match (&local, url.split_once("://")) {
        (Some(_), _) => "file",
        (None, Some(("s3", _))) => "s3",
        (None, Some(("gs", _))) => "gcs",
        _ => return Err("it reads Azure with a connection string, which is no business of this file".to_owned()),
    };
    let path = local.as_deref().unwrap_or(url);
    // Patterns cannot be made literal there, of a URL it decodes what looks encoded, and blanks and letters beyond ASCII
    // are in no URI.
    let pattern =
        |c: char| matches!(c, '*' | '?' | '{' | '}' | ',') || (local.is_none() && matches!(c, '%' | '#' | '+'));
    if path.contains(pattern) {
        return Err(format!("{path:?} has characters that it takes for a pattern: export to another folder"));
    }
    if local.is_none() && !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{path:?} has characters that it takes in no URL: export to another folder"));
    }
    let (folder, name) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is in no folder"))?;
    Ok((TableFunction { function, folder: folder.to_owned() }, name.to_owned()))
}

fn settings(export: &Export<'_>) -> Vec<String> {
    let mut settings = vec!["use_hive_partitioning = 0".to_owned()];
    if export.format() != Format::Parquet {
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
            // The columns stand in the order of the file, and a header whose names a spreadsheet would run is quoted.
            "input_format_with_names_use_header",
        ];
        settings.extend(off.map(|name| format!("{name} = 0")));
    }
    settings
}

fn notes(export: &Export<'_>, script: &mut Script) {
    let format = export.format();
    let moments = export.has(&|kind| matches!(kind, ValueKind::Date | ValueKind::Timestamp { .. }));
    let decimals = format != Format::Parquet && export.has(&|kind| matches!(kind, ValueKind::Decimal { .. }));
    let from = match export.scheme() {
        "file" => "file() reads below user_files_path on a server, and anywhere in clickhouse-local",
        _ => "the server's own credentials read the bucket",
    };
    let outside = match format {
        Format::Parquet => "a date outside the years 0 to 9999 fails a query; a timestamp after 9999 is shown as 9999",
        _ => "a date or timestamp at infinity or outside the years 0 to 9999 fails a query",
    };
    script.note(true, from);
    script.note(moments, outside);
    script.note(decimals, "a Decimal has no NaN: a query that meets one fails");
    script.note_of(
        export.names(|column| format == Format::Ndjson && column.kind == ValueKind::Json),
        "JSON as text, where a string stands without its quotes",
    );
    script.note_of(
        export.names(|column| column.nullable && column.kind.is_nested()),
        "ClickHouse has no NULL there, and shows an empty value for it",
    );
}

/// One item of the select list.
fn selected(column: &DdlColumn<'_>, format: Format) -> String {
    let name = clickhouse_name(column.name);
    if column.kind == ValueKind::Bytes && format != Format::Parquet {
        return format!("unhex(substring({name}, 3)) AS {name}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ClickHouse 26.9: "Bad URI syntax: URI contains invalid characters".
    #[test]
    fn what_stands_in_no_uri_is_refused_where_a_url_is_read() {
        for folder in ["sp ace", "ü", "tab\there"] {
            assert!(place(&format!("s3://lake/{folder}/part.csv")).unwrap_err().contains("in no URL"), "{folder}");
            assert!(place(&format!("file:///lake/{}/part.csv", folder.replace(' ', "%20"))).is_ok(), "{folder}");
        }
        assert!(place("s3://lake/br[1]=~'$&;:@!()/part.csv").is_ok());
    }
}
