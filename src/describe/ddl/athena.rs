//! Athena: an external table over the symlink manifest, which lists exactly the manifest's parts.

use super::columns::{Column, DECIMAL_DIGITS, Kind};
use super::folders::Folders;
use super::name::TableName;
use super::quote::{backquoted, is_word, literal};
use super::{Export, Script};
use crate::model::{Compression, Format};

const TEXT_READERS: &str = "its CSV readers tell no NULL from an empty string and split values at line breaks: export \
                            with --preset athena and --format parquet or ndjson";

pub(super) fn script(export: &Export<'_>, name: &TableName) -> Result<Script, Vec<String>> {
    let folder = export.s3_folder()?;
    let folders = Folders::of(folder);
    let mut reasons = [unread(export), export.distinct_names(), folders.refusals()].concat();
    let mut notes = notes(export);
    let mut columns = Vec::new();
    for column in &export.columns {
        if let Some(note) = folders.note(column.name) {
            notes.push(note);
            continue;
        }
        match hive_type(&column.kind, export.manifest.format.format()) {
            Ok(data_type) => columns.push(format!("    {} {data_type}", backquoted(column.name))),
            Err(why) => reasons.push(format!("column {:?} {why}", column.name)),
        }
    }
    if columns.is_empty() {
        reasons.push("no column is left".to_owned());
    }
    if folder.contains(['\'', '\\']) || folder.contains(char::is_control) {
        // Hive escapes a quote by a backslash, Presto by another quote, and Athena's DDL is of both.
        reasons.push("the destination's path has a quote, a backslash or a control character in it".to_owned());
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }

    let table = name.quoted(backquoted);
    let symlinks = literal(&format!("{folder}_symlink_format_manifest/"));
    let partitioned = !folders.pairs.is_empty();
    let guard = if partitioned { " IF NOT EXISTS" } else { "" };
    let by: Vec<String> = folders.pairs.iter().map(|(key, _)| format!("{} string", backquoted(key))).collect();
    let by = if partitioned { format!("PARTITIONED BY ({})\n", by.join(", ")) } else { String::new() };
    let serde = match export.manifest.format.format() {
        Format::Parquet => "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        Format::Csv | Format::Ndjson => "org.openx.data.jsonserde.JsonSerDe",
    };
    let location = if partitioned { literal(folders.root) } else { symlinks.clone() };
    let mut statements = vec![format!(
        "CREATE EXTERNAL TABLE{guard} {table} (\n{}\n)\n{by}ROW FORMAT SERDE '{serde}'\n\
         STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat'\n\
         OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'\nLOCATION {location}",
        columns.join(",\n")
    )];
    if partitioned {
        let pairs = folders.pairs.iter().map(|(key, value)| format!("{} = {}", backquoted(key), literal(value)));
        let pairs = pairs.collect::<Vec<_>>().join(", ");
        statements.push(format!("ALTER TABLE {table} ADD IF NOT EXISTS\nPARTITION ({pairs}) LOCATION {symlinks}"));
        notes
            .push("Athena runs one statement at a time: the table once, then ADD PARTITION for each export".to_owned());
    }
    Ok(Script { notes, statements })
}

/// What of the files as a whole is not read.
fn unread(export: &Export<'_>) -> Vec<String> {
    match (export.manifest.format.format(), export.manifest.format.compression) {
        (Format::Csv, _) => vec![TEXT_READERS.to_owned()],
        (Format::Parquet, Compression::Lz4) => {
            vec!["it does not read Parquet with LZ4_RAW: --compression zstd or snappy".to_owned()]
        }
        _ => Vec::new(),
    }
}

fn notes(export: &Export<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let named = |is: &dyn Fn(&Column<'_>) -> bool| {
        let names = export.columns.iter().filter(|column| is(column)).map(|column| format!("{:?}", column.name));
        names.collect::<Vec<_>>().join(", ")
    };
    if export.manifest.format.format() == Format::Ndjson {
        let moments = named(&|column| matches!(column.kind, Kind::Date | Kind::Timestamp { .. }));
        if !moments.is_empty() {
            notes.push(format!(
                "{moments}: strings, as infinity and years before 1 are; date(…) and from_iso8601_timestamp(…) read them"
            ));
        }
        let decimals = named(&|column| matches!(column.kind, Kind::Decimal { .. }));
        if !decimals.is_empty() {
            notes.push(format!("{decimals}: a decimal there has no NaN"));
        }
    } else {
        let fine = |kind: &Kind| matches!(kind, Kind::Timestamp { micros: true, .. });
        let fine = named(&|column| column.kind.any(&fine));
        if !fine.is_empty() {
            notes.push(format!(
                "{fine}: microseconds, of which Athena shows milliseconds; --preset athena writes those"
            ));
        }
    }
    let odd = named(&|column| !is_word(column.name));
    if !odd.is_empty() {
        notes.push(format!("{odd}: Athena documents letters, digits and underscores in names; --rename gives others"));
    }
    notes
}

/// The type in Hive's DDL, or why there is none.
pub(super) fn hive_type(kind: &Kind, format: Format) -> Result<String, String> {
    let text = format != Format::Parquet;
    Ok(match kind {
        Kind::Bool => "boolean".to_owned(),
        Kind::Int16 => "smallint".to_owned(),
        Kind::Int32 => "int".to_owned(),
        Kind::Int64 => "bigint".to_owned(),
        Kind::Float32 => "float".to_owned(),
        Kind::Float64 => "double".to_owned(),
        Kind::Decimal { precision, scale } if *precision <= DECIMAL_DIGITS => format!("decimal({precision},{scale})"),
        Kind::Decimal { .. } => return Err(too_many_digits()),
        Kind::Number | Kind::Text | Kind::Json | Kind::Unclear => "string".to_owned(),
        Kind::Bytes | Kind::Uuid | Kind::Date | Kind::Time | Kind::Timestamp { .. } if text => "string".to_owned(),
        Kind::Bytes => "binary".to_owned(),
        Kind::Date => "date".to_owned(),
        Kind::Timestamp { .. } => "timestamp".to_owned(),
        Kind::Uuid => return Err("is a uuid, which it does not read: --preset athena writes text".to_owned()),
        Kind::Time => return Err("is a time, which it does not read: --preset athena writes text".to_owned()),
        Kind::List(element) => format!("array<{}>", hive_type(element, format)?),
        Kind::Map => "map<string,string>".to_owned(),
        Kind::Struct(members) => {
            let member = |(name, kind): &(String, Kind)| Ok(format!("{}:{}", member(name)?, hive_type(kind, format)?));
            format!("struct<{}>", members.iter().map(member).collect::<Result<Vec<_>, String>>()?.join(","))
        }
    })
}

/// Members are not quoted in a type's name.
pub(super) fn member(name: &str) -> Result<&str, String> {
    if is_word(name) {
        return Ok(name);
    }
    Err(format!("has a member {name:?}, which can have no name there: --column-policy COLUMN=json writes it as text"))
}

pub(super) fn too_many_digits() -> String {
    format!("has more than {DECIMAL_DIGITS} digits, the most it reads: --column-policy COLUMN=text writes text")
}
