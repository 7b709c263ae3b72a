//! Redshift Spectrum: an external table whose location is the Redshift manifest.

use super::columns::ValueKind;
use super::folders::Folders;
use super::name::TableName;
use super::quote::{double_quoted, escaped_literal};
use super::types::{DialectTypes, TOO_MANY_DIGITS, bare_member};
use super::{Export, Script, TableFolder, lines};
use crate::model::{Compression, Format};

/// The longest text.
pub(super) const LONGEST: &str = "varchar(65535)";

pub(super) const PARQUET: DialectTypes = DialectTypes {
    plain: ["boolean", "smallint", "integer", "bigint", "real", "double precision"],
    decimal: ("decimal({p},{s})", 38, TOO_MANY_DIGITS),
    text: LONGEST,
    json: LONGEST,
    // The longest on clusters of any age.
    bytes: "varbyte(1024000)",
    uuid: Err("is a uuid, which it does not read: --preset spectrum writes text"),
    date: "date",
    time: Err("is a time, which it does not read: --preset spectrum writes text"),
    timestamps: ["timestamp"; 2],
    list: ("array<{}>", Err("is a list within a list, which it does not read: --preset spectrum writes JSON")),
    map: "map<varchar(65535),varchar(65535)>",
    structure: ("struct<{}>", ","),
    member: bare_member,
    nullable: "{}",
};

pub(super) const TEXT: DialectTypes = DialectTypes {
    bytes: LONGEST,
    uuid: Ok(LONGEST),
    date: LONGEST,
    time: Ok(LONGEST),
    timestamps: [LONGEST; 2],
    ..PARQUET
};

pub(super) fn script(export: &Export<'_>, name: &TableName, script: &mut Script) {
    let Some(folder) = export.s3_folder(script) else { return };
    let folders = Folders::of(folder);
    let (format, compression) = (export.format(), export.compression());
    script.refuse(
        format == Format::Csv,
        "its CSV readers tell no NULL from an empty string and split values at line breaks: export as Parquet or \
         NDJSON, or load the CSV with Redshift's COPY",
    );
    let lz4 = format == Format::Parquet && compression == Compression::Lz4;
    let zstd = format == Format::Ndjson && matches!(compression, Compression::Zstd(_));
    script.refuse(lz4, "it does not read Parquet with LZ4_RAW: --compression snappy");
    script.refuse(zstd, "it does not read zstd around text: --compression gzip");
    notes(export, name, script);
    export.refuse_doubles(script);
    folders.refuse(script);
    let types = if format == Format::Parquet { PARQUET } else { TEXT };
    let columns = export.columns(&types, &folders, script, |name, word| format!("{} {word}", double_quoted(name)));
    script.refuse(name.parts.len() != 2, "an external table has a schema and a name: --name schema.table");

    let table = name.quoted(double_quoted);
    let manifest = escaped_literal(&format!("{folder}_redshift/manifest"));
    let stored = match format {
        Format::Parquet => "STORED AS PARQUET",
        Format::Csv | Format::Ndjson | Format::Source => {
            "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'\nSTORED AS TEXTFILE"
        }
    };
    let create = format!("CREATE EXTERNAL TABLE {table} (\n{}\n)\n", lines(&columns, "    "));
    let column = |name: &str, word: &str| format!("{} {word}", double_quoted(name));
    let of_folders = export.partition_columns(&types, &folders, script, column);
    if folders.pairs.is_empty() && of_folders.is_empty() {
        let rows = export.manifest.totals.rows.unwrap_or_default();
        script
            .statements
            .push(format!("{create}{stored}\nLOCATION {manifest}\nTABLE PROPERTIES ('numRows' = '{rows}')"));
        return;
    }
    let of_path = !folders.pairs.is_empty();
    let keys: Vec<String> =
        of_path.then(|| folders.keys(double_quoted, "varchar(256)")).into_iter().chain(of_folders.clone()).collect();
    let by = keys.join(", ");
    let pairs = folders.values(double_quoted, escaped_literal);
    let root = escaped_literal(folders.root);
    script.note(true, "the table is made once; ADD PARTITION is for each export");
    if !of_folders.is_empty() {
        script.statements.push(format!("{create}PARTITIONED BY ({by})\n{stored}\nLOCATION {root}"));
        let place = |partition: &TableFolder<'_>| format!("{folder}{}", partition.redshift_path());
        export.add_partitions(&table, &folders, (double_quoted, escaped_literal), place, script);
        return;
    }
    script.statements.extend([
        format!("{create}PARTITIONED BY ({by})\n{stored}\nLOCATION {root}"),
        format!("ALTER TABLE {table} ADD IF NOT EXISTS\nPARTITION ({pairs}) LOCATION {manifest}"),
    ]);
}

fn notes(export: &Export<'_>, name: &TableName, script: &mut Script) {
    if let [schema, _] = name.parts.as_slice() {
        let schema = format!("{schema:?} is a schema that CREATE EXTERNAL SCHEMA made; --name gives another");
        script.note(true, schema);
    }
    let zstd = matches!(export.compression(), Compression::Zstd(_));
    let (nested, json) = (export.has(&ValueKind::is_nested), export.format() == Format::Ndjson);
    script.note(zstd, "AWS documents Parquet with gzip and snappy here; --preset spectrum writes snappy");
    script.note(export.has(&ValueKind::is_text), "text of more than 65,535 bytes is cut when it is read");
    script.note(nested, "nested columns are read with Redshift's syntax for them: FROM table t, t.list element");
    script.note(json, "dates and times are text, as infinity and years before 1 are; a decimal has no NaN");
}
