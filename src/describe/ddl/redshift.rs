//! Redshift: a table, and the COPY that loads it from the Redshift manifest.

use super::columns::{Column, DECIMAL_DIGITS, Kind};
use super::name::TableName;
use super::quote::{double_quoted, escaped_literal};
use super::spectrum::{BYTES, TEXT, external_type};
use super::{Export, Script};
use crate::commit::model::FormatKind;
use crate::model::{Compression, CsvOptions, Format};

pub(super) fn script(export: &Export<'_>, name: &TableName) -> Result<Script, Vec<String>> {
    let folder = export.s3_folder()?;
    let format = &export.manifest.format;
    let mut reasons = export.distinct_names();
    if (format.format(), format.compression) == (Format::Parquet, Compression::Lz4) {
        reasons.push("it does not read Parquet with LZ4_RAW: --compression snappy".to_owned());
    }
    let mut columns = Vec::new();
    for column in &export.columns {
        match table_type(&column.kind, format.format()) {
            Ok(data_type) => columns.push(format!("    {} {data_type}", double_quoted(column.name))),
            Err(why) => reasons.push(format!("column {:?} {why}", column.name)),
        }
    }
    if columns.is_empty() {
        reasons.push("there is no column".to_owned());
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }

    let table = name.quoted(double_quoted);
    let manifest = escaped_literal(&format!("{folder}_redshift/manifest"));
    let mut notes =
        vec!["IAM_ROLE default is the cluster's default role; the bucket is in the cluster's region".to_owned()];
    let mut options = match &format.kind {
        FormatKind::Parquet { .. } => parquet_options(export, &mut notes),
        FormatKind::Csv(csv) => csv_options(csv, &export.columns, &mut notes),
        FormatKind::Ndjson => vec!["FORMAT AS JSON 'auto ignorecase'".to_owned()],
    };
    if format.format() != Format::Parquet {
        text_notes(&export.columns, &mut notes);
        options.extend(["DATEFORMAT 'auto'", "TIMEFORMAT 'auto'", "ENCODING UTF8"].map(str::to_owned));
        match format.compression {
            Compression::Gzip(_) => options.push("GZIP".to_owned()),
            Compression::Zstd(_) => options.push("ZSTD".to_owned()),
            Compression::None | Compression::Snappy | Compression::Lz4 => {}
        }
    }
    if export.columns.iter().any(|column| column.kind.is_text()) {
        notes.push("VARCHAR holds 65,535 bytes: COPY fails over longer text".to_owned());
    }
    let create = format!("CREATE TABLE {table} (\n{}\n)", columns.join(",\n"));
    let copy = format!("COPY {table}\nFROM {manifest}\nIAM_ROLE default\nMANIFEST\n{}", options.join("\n"));
    Ok(Script { notes, statements: vec![create, copy] })
}

fn parquet_options(export: &Export<'_>, notes: &mut Vec<String>) -> Vec<String> {
    let mut options = vec!["FORMAT AS PARQUET".to_owned()];
    if export.columns.iter().any(|column| column.kind.is_nested()) {
        options.push("SERIALIZETOJSON".to_owned());
        notes.push("nested columns are SUPER, as SERIALIZETOJSON loads them".to_owned());
    }
    if export.columns.iter().any(|column| matches!(column.kind, Kind::Timestamp { utc: true, .. })) {
        notes.push("timestamp with time zone is TIMESTAMP in UTC: COPY reads no other from Parquet".to_owned());
    }
    if matches!(export.manifest.format.compression, Compression::Zstd(_)) {
        notes.push("AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy".to_owned());
    }
    options
}

fn csv_options(csv: &CsvOptions, columns: &[Column<'_>], notes: &mut Vec<String>) -> Vec<String> {
    let delimiter = match csv.delimiter {
        b'\t' => "'\\t'".to_owned(),
        other => escaped_literal(&char::from(other).to_string()),
    };
    let mut options = vec!["FORMAT AS CSV".to_owned(), format!("DELIMITER AS {delimiter}"), "QUOTE AS '\"'".to_owned()];
    if csv.header {
        options.push("IGNOREHEADER 1".to_owned());
    } else if csv.bom {
        notes.push(
            "there is a byte order mark in front of the first value of every part: --csv-bom is off by default"
                .to_owned(),
        );
    }
    // COPY's own default, which it takes as it stands; in other texts a backslash escapes.
    let null = if csv.null == "\\N" { "'\\N'".to_owned() } else { escaped_literal(&csv.null) };
    options.push(format!("NULL AS {null}"));
    if columns.iter().any(|column| column.kind.is_text()) {
        notes.push(if csv.null.is_empty() {
            "COPY does not tell an unquoted empty field (here NULL) from \"\" (here the empty string): in text columns \
             both become the same; export with --csv-null, Parquet or NDJSON to keep them apart"
                .to_owned()
        } else {
            format!("COPY does not tell unquoted {0} (here NULL) from \"{0}\" (here that text)", csv.null)
        });
    }
    options
}

fn text_notes(columns: &[Column<'_>], notes: &mut Vec<String>) {
    let has = |is: &dyn Fn(&Kind) -> bool| columns.iter().any(|column| is(&column.kind));
    if has(&|kind| matches!(kind, Kind::Date | Kind::Timestamp { .. } | Kind::Time | Kind::Decimal { .. })) {
        notes.push(
            "COPY fails over what its types do not have: infinity and years before 1, 24:00:00, NaN in a decimal"
                .to_owned(),
        );
    }
    if has(&|kind| *kind == Kind::Bytes) {
        notes.push("bytea is text here, \\x and two digits a byte: TO_VARBYTE(SUBSTRING(column, 3), 'hex')".to_owned());
    }
}

/// The type of a column, or why there is none. COPY reads Parquet with Spectrum's types.
fn table_type(kind: &Kind, format: Format) -> Result<String, String> {
    Ok(match kind {
        // What Spectrum does not read within them, COPY does not either.
        Kind::List(_) | Kind::Struct(_) | Kind::Map => external_type(kind, format).map(|_| "SUPER".to_owned())?,
        Kind::Bytes if format == Format::Parquet => BYTES.to_uppercase(),
        _ if format == Format::Parquet => external_type(kind, format)?.to_uppercase(),
        Kind::Decimal { precision, .. } if *precision > DECIMAL_DIGITS => TEXT.to_uppercase(),
        Kind::Uuid => "CHAR(36)".to_owned(),
        Kind::Date => "DATE".to_owned(),
        Kind::Time => "TIME".to_owned(),
        Kind::Timestamp { utc: false, .. } => "TIMESTAMP".to_owned(),
        Kind::Timestamp { utc: true, .. } => "TIMESTAMPTZ".to_owned(),
        _ => external_type(kind, format)?.to_uppercase(),
    })
}
