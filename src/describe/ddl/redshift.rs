//! Redshift: a table, and the COPY that loads it from the Redshift manifest.

use super::columns::ValueKind;
use super::folders::Folders;
use super::name::TableName;
use super::quote::{double_quoted, escaped_literal};
use super::types::DialectTypes;
use super::{Export, Script, lines, spectrum};
use crate::commit::model::FormatKind;
use crate::model::{Compression, CsvOptions, Format};

const LONGEST: &str = spectrum::LONGEST;

/// COPY reads Parquet with Spectrum's types: what Spectrum does not read, within nested values too, COPY does not either.
const PARQUET: DialectTypes = DialectTypes {
    list: ("super", spectrum::PARQUET.list.1),
    map: "super",
    structure: ("super", ","),
    ..spectrum::PARQUET
};

const TEXT: DialectTypes = DialectTypes {
    decimal: (PARQUET.decimal.0, PARQUET.decimal.1, Ok(LONGEST)),
    bytes: LONGEST,
    uuid: Ok("char(36)"),
    time: Ok("time"),
    timestamps: ["timestamp", "timestamptz"],
    ..PARQUET
};

pub(super) fn script(export: &Export<'_>, name: &TableName, script: &mut Script) {
    let Some(folder) = export.s3_folder(script) else { return };
    let (format, compression) = (export.format(), export.compression());
    export.refuse_doubles(script);
    let lz4 = format == Format::Parquet && compression == Compression::Lz4;
    script.refuse(lz4, "it does not read Parquet with LZ4_RAW: --compression snappy");
    let types = if format == Format::Parquet { PARQUET } else { TEXT };
    let column = |name: &str, word: &str| format!("{} {}", double_quoted(name), word.to_uppercase());
    let columns = export.columns(&types, &Folders::default(), script, column);

    let table = name.quoted(double_quoted);
    let manifest = escaped_literal(&format!("{folder}_redshift/manifest"));
    script.note(true, "IAM_ROLE default is the cluster's default role; the bucket is in the cluster's region");
    let mut options = match &export.manifest.format.kind {
        FormatKind::Parquet { .. } => parquet_options(export, script),
        FormatKind::Csv(csv) => csv_options(csv, export, script),
        FormatKind::Ndjson => vec!["FORMAT AS JSON 'auto ignorecase'".to_owned()],
        FormatKind::Source => Vec::new(),
    };
    if format != Format::Parquet {
        text_notes(export, script);
        options.extend(["DATEFORMAT 'auto'", "TIMEFORMAT 'auto'", "ENCODING UTF8"].map(str::to_owned));
        match compression {
            Compression::Gzip(_) => options.push("GZIP".to_owned()),
            Compression::Zstd(_) => options.push("ZSTD".to_owned()),
            Compression::None | Compression::Snappy | Compression::Lz4 => {}
        }
    }
    script.note(export.has_column(&ValueKind::is_text), "VARCHAR holds 65,535 bytes: COPY fails over longer text");
    // By name into a table that has other columns or another order. COPY maps Parquet by place alone, and JSON by name.
    let names: Vec<String> = export.columns.iter().map(|column| double_quoted(column.name)).collect();
    let into = if format == Format::Csv { format!("{table} (\n{}\n)", lines(&names, "    ")) } else { table.clone() };
    script.statements.extend([
        format!("CREATE TABLE {table} (\n{}\n)", lines(&columns, "    ")),
        format!("COPY {into}\nFROM {manifest}\nIAM_ROLE default\nMANIFEST\n{}", options.join("\n")),
    ]);
}

fn parquet_options(export: &Export<'_>, script: &mut Script) -> Vec<String> {
    let nested = export.has(&ValueKind::is_nested);
    let utc = export.has_column(&|kind| matches!(kind, ValueKind::Timestamp { utc: true, .. }));
    let zstd = matches!(export.compression(), Compression::Zstd(_));
    script.note(nested, "nested columns are SUPER, as SERIALIZETOJSON loads them");
    script.note(utc, "timestamp with time zone is TIMESTAMP in UTC: COPY reads no other from Parquet");
    script.note(zstd, "AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy");
    ["FORMAT AS PARQUET"].into_iter().chain(nested.then_some("SERIALIZETOJSON")).map(str::to_owned).collect()
}

fn csv_options(csv: &CsvOptions, export: &Export<'_>, script: &mut Script) -> Vec<String> {
    let delimiter = match csv.delimiter {
        b'\t' => "'\\t'".to_owned(),
        other => escaped_literal(&char::from(other).to_string()),
    };
    let mut options = vec!["FORMAT AS CSV".to_owned(), format!("DELIMITER AS {delimiter}"), "QUOTE AS '\"'".to_owned()];
    if csv.header {
        options.push("IGNOREHEADER 1".to_owned());
    }
    let mark = "there is a byte order mark in front of the first value of every part: --csv-bom is off by default";
    script.note(csv.bom && !csv.header, mark);
    // COPY's own default, which it takes as it stands; in other texts a backslash escapes.
    let null = if csv.null == "\\N" { "'\\N'".to_owned() } else { escaped_literal(&csv.null) };
    options.push(format!("NULL AS {null}"));
    let confused = if csv.null.is_empty() {
        "COPY does not tell an unquoted empty field (here NULL) from \"\" (here the empty string): in text columns both \
         become the same; export with --csv-null, Parquet or NDJSON to keep them apart"
            .to_owned()
    } else {
        format!("COPY does not tell unquoted {0} (here NULL) from \"{0}\" (here that text)", csv.null)
    };
    script.note(export.has_column(&ValueKind::is_text), confused);
    options
}

fn text_notes(export: &Export<'_>, script: &mut Script) {
    let bounded = |kind: &ValueKind| {
        matches!(kind, ValueKind::Date | ValueKind::Timestamp { .. } | ValueKind::Time | ValueKind::Decimal { .. })
    };
    script.note(
        export.has_column(&bounded),
        "COPY fails over what its types do not have: infinity and years before 1, 24:00:00, NaN in a decimal",
    );
    script.note(
        export.has_column(&|kind| *kind == ValueKind::Bytes),
        "bytea is text here, \\x and two digits a byte: TO_VARBYTE(SUBSTRING(column, 3), 'hex')",
    );
}
