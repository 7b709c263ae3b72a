//! Redshift Spectrum: an external table whose location is the Redshift manifest.

use super::athena::{member, too_many_digits};
use super::columns::{DECIMAL_DIGITS, Kind};
use super::folders::Folders;
use super::name::TableName;
use super::quote::{double_quoted, escaped_literal};
use super::{Export, Script};
use crate::model::{Compression, Format};

/// Bytes of the longest VARCHAR.
pub(super) const TEXT: &str = "varchar(65535)";
/// Bytes of the longest VARBYTE on clusters of any age.
pub(super) const BYTES: &str = "varbyte(1024000)";

pub(super) fn script(export: &Export<'_>, name: &TableName) -> Result<Script, Vec<String>> {
    let folder = export.s3_folder()?;
    let folders = Folders::of(folder);
    let mut reasons = [unread(export), export.distinct_names(), folders.refusals()].concat();
    let format = export.manifest.format.format();
    let mut notes = notes(export, name);
    let mut columns = Vec::new();
    for column in &export.columns {
        if let Some(note) = folders.note(column.name) {
            notes.push(note);
            continue;
        }
        match external_type(&column.kind, format) {
            Ok(data_type) => columns.push(format!("    {} {data_type}", double_quoted(column.name))),
            Err(why) => reasons.push(format!("column {:?} {why}", column.name)),
        }
    }
    if columns.is_empty() {
        reasons.push("no column is left".to_owned());
    }
    if name.parts.len() != 2 {
        reasons.push("an external table has a schema and a name: --name schema.table".to_owned());
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }

    let table = name.quoted(double_quoted);
    let manifest = escaped_literal(&format!("{folder}_redshift/manifest"));
    let stored = match format {
        Format::Parquet => "STORED AS PARQUET",
        Format::Csv | Format::Ndjson => "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'\nSTORED AS TEXTFILE",
    };
    let create = format!("CREATE EXTERNAL TABLE {table} (\n{}\n)\n", columns.join(",\n"));
    if folders.pairs.is_empty() {
        let rows = export.manifest.totals.rows;
        let statement = format!("{create}{stored}\nLOCATION {manifest}\nTABLE PROPERTIES ('numRows' = '{rows}')");
        return Ok(Script { notes, statements: vec![statement] });
    }
    let listed = |pair: &dyn Fn(&(&str, &str)) -> String| folders.pairs.iter().map(pair).collect::<Vec<_>>().join(", ");
    let by = listed(&|(key, _)| format!("{} varchar(256)", double_quoted(key)));
    let pairs = listed(&|(key, value)| format!("{} = {}", double_quoted(key), escaped_literal(value)));
    let root = escaped_literal(folders.root);
    notes.push("the table is made once; ADD PARTITION is for each export".to_owned());
    let statements = vec![
        format!("{create}PARTITIONED BY ({by})\n{stored}\nLOCATION {root}"),
        format!("ALTER TABLE {table} ADD IF NOT EXISTS\nPARTITION ({pairs}) LOCATION {manifest}"),
    ];
    Ok(Script { notes, statements })
}

/// What of the files as a whole is not read.
fn unread(export: &Export<'_>) -> Vec<String> {
    let reason = match (export.manifest.format.format(), export.manifest.format.compression) {
        (Format::Csv, _) => {
            "its CSV readers tell no NULL from an empty string and split values at line breaks: export as Parquet or \
             NDJSON, or load the CSV with Redshift's COPY"
        }
        (Format::Parquet, Compression::Lz4) => "it does not read Parquet with LZ4_RAW: --compression snappy",
        (Format::Ndjson, Compression::Zstd(_)) => "it does not read zstd around text: --compression gzip",
        _ => return Vec::new(),
    };
    vec![reason.to_owned()]
}

fn notes(export: &Export<'_>, name: &TableName) -> Vec<String> {
    let mut notes = Vec::new();
    if let [schema, _] = name.parts.as_slice() {
        notes.push(format!("{schema:?} is a schema that CREATE EXTERNAL SCHEMA made; --name gives another"));
    }
    if matches!(export.manifest.format.compression, Compression::Zstd(_)) {
        notes.push("AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy".to_owned());
    }
    if export.columns.iter().any(|column| column.kind.any(&Kind::is_text)) {
        notes.push("text of more than 65,535 bytes is cut when it is read".to_owned());
    }
    if export.columns.iter().any(|column| column.kind.is_nested()) {
        notes.push("nested columns are read with Redshift's syntax for them: FROM table t, t.list element".to_owned());
    }
    if export.manifest.format.format() == Format::Ndjson {
        notes.push("dates and times are text, as infinity and years before 1 are; a decimal has no NaN".to_owned());
    }
    notes
}

/// The type of an external table's column, or why there is none.
pub(super) fn external_type(kind: &Kind, format: Format) -> Result<String, String> {
    let text = format != Format::Parquet;
    Ok(match kind {
        Kind::Bool => "boolean".to_owned(),
        Kind::Int16 => "smallint".to_owned(),
        Kind::Int32 => "integer".to_owned(),
        Kind::Int64 => "bigint".to_owned(),
        Kind::Float32 => "real".to_owned(),
        Kind::Float64 => "double precision".to_owned(),
        Kind::Decimal { precision, scale } if *precision <= DECIMAL_DIGITS => format!("decimal({precision},{scale})"),
        Kind::Decimal { .. } => return Err(too_many_digits()),
        Kind::Number | Kind::Text | Kind::Json | Kind::Unclear => TEXT.to_owned(),
        Kind::Bytes | Kind::Uuid | Kind::Date | Kind::Time | Kind::Timestamp { .. } if text => TEXT.to_owned(),
        Kind::Bytes => BYTES.to_owned(),
        Kind::Date => "date".to_owned(),
        Kind::Timestamp { .. } => "timestamp".to_owned(),
        Kind::Uuid => return Err("is a uuid, which it does not read: --preset spectrum writes text".to_owned()),
        Kind::Time => return Err("is a time, which it does not read: --preset spectrum writes text".to_owned()),
        Kind::List(element) if element.any(&|kind| matches!(kind, Kind::List(_) | Kind::Map)) => {
            return Err("is a list within a list, which it does not read: --preset spectrum writes JSON".to_owned());
        }
        Kind::List(element) => format!("array<{}>", external_type(element, format)?),
        Kind::Map => format!("map<{TEXT},{TEXT}>"),
        Kind::Struct(members) => {
            let member =
                |(name, kind): &(String, Kind)| Ok(format!("{}:{}", member(name)?, external_type(kind, format)?));
            format!("struct<{}>", members.iter().map(member).collect::<Result<Vec<_>, String>>()?.join(","))
        }
    })
}
