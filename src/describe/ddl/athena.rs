//! Athena: an external table over the symlink manifest, which lists exactly the manifest's parts.

use super::columns::ValueKind;
use super::folders::Folders;
use super::name::TableName;
use super::quote::{backquoted, is_word, literal};
use super::types::{DialectTypes, TOO_MANY_DIGITS, bare_member};
use super::{Export, Script, TableFolder, lines};
use crate::model::{ColumnChange, Compression, Format};

const PARQUET: DialectTypes = DialectTypes {
    plain: ["boolean", "smallint", "int", "bigint", "float", "double"],
    decimal: ("decimal({p},{s})", 38, TOO_MANY_DIGITS),
    text: "string",
    json: "string",
    bytes: "binary",
    uuid: Err("is a uuid, which it does not read: --preset athena writes text"),
    date: "date",
    time: Err("is a time, which it does not read: --preset athena writes text"),
    timestamps: ["timestamp"; 2],
    list: ("array<{}>", Ok("array<{}>")),
    map: "map<string,string>",
    structure: ("struct<{}>", ","),
    member: bare_member,
    nullable: "{}",
};

const TEXT: DialectTypes = DialectTypes {
    bytes: "string",
    uuid: Ok("string"),
    date: "string",
    time: Ok("string"),
    timestamps: ["string"; 2],
    ..PARQUET
};

pub(super) fn script(export: &Export<'_>, name: &TableName, script: &mut Script) {
    let Some(folder) = export.s3_folder(script) else { return };
    let folders = Folders::of(folder);
    let format = export.format();
    script.refuse(
        format == Format::Csv,
        "its CSV readers tell no NULL from an empty string and split values at line breaks: export with --preset \
         athena and --format parquet or ndjson",
    );
    let lz4 = format == Format::Parquet && export.compression() == Compression::Lz4;
    script.refuse(lz4, "it does not read Parquet with LZ4_RAW: --compression zstd or snappy");
    notes(export, script);
    export.refuse_doubles(script);
    folders.refuse(script);
    let types = if format == Format::Parquet { PARQUET } else { TEXT };
    let columns = export.columns(&types, &folders, script, |name, word| format!("{} {word}", backquoted(name)));
    // Hive escapes a quote by a backslash, Presto by another quote, and Athena's DDL is of both.
    script.refuse(
        folder.contains(['\'', '\\']) || folder.contains(char::is_control),
        "the destination's path has a quote, a backslash or a control character in it",
    );

    let table = name.quoted(backquoted);
    let symlinks = literal(&format!("{folder}_symlink_format_manifest/"));
    let of_folders =
        export.partition_columns(&types, &folders, script, |name, word| format!("{} {word}", backquoted(name)));
    let of_path = !folders.pairs.is_empty();
    let partitioned = of_path || !of_folders.is_empty();
    let guard = if partitioned { " IF NOT EXISTS" } else { "" };
    let keys: Vec<String> =
        of_path.then(|| folders.keys(backquoted, "string")).into_iter().chain(of_folders.clone()).collect();
    let by = if partitioned { format!("PARTITIONED BY ({})\n", keys.join(", ")) } else { String::new() };
    let serde = match format {
        Format::Parquet => "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        Format::Csv | Format::Ndjson | Format::Source => "org.openx.data.jsonserde.JsonSerDe",
    };
    let location = if of_path { literal(folders.root) } else { symlinks.clone() };
    script.statements.push(format!(
        "CREATE EXTERNAL TABLE{guard} {table} (\n{}\n)\n{by}ROW FORMAT SERDE '{serde}'\n\
         STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat'\n\
         OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'\nLOCATION {location}",
        lines(&columns, "    ")
    ));
    if partitioned {
        let changes = export.manifest.watermark.iter().flat_map(|watermark| &watermark.changes);
        let added = changes.filter(|change| change.change == ColumnChange::Added);
        let names: Vec<String> = added.map(|change| format!("{} ", backquoted(&change.column))).collect();
        let new: Vec<String> =
            columns.iter().filter(|column| names.iter().any(|name| column.starts_with(name))).cloned().collect();
        if !new.is_empty() {
            script.statements.push(format!("ALTER TABLE {table} ADD COLUMNS (\n{}\n)", lines(&new, "    ")));
            script.note(
                true,
                "ADD COLUMNS is for a table that an earlier export made; a new one has the columns already",
            );
        }
        if of_folders.is_empty() {
            let pairs = folders.values(backquoted, literal);
            script
                .statements
                .push(format!("ALTER TABLE {table} ADD IF NOT EXISTS\nPARTITION ({pairs}) LOCATION {symlinks}"));
        } else {
            let place = |partition: &TableFolder<'_>| {
                format!("{folder}{}", partition.symlink_path().trim_end_matches("manifest"))
            };
            export.add_partitions(&table, &folders, (backquoted, literal), place, script);
        }
        script.note(true, "Athena runs one statement at a time: the table once, then ADD PARTITION for each export");
    }
}

fn notes(export: &Export<'_>, script: &mut Script) {
    if export.format() == Format::Ndjson {
        script.note_of(
            export.names(|column| matches!(column.kind, ValueKind::Date | ValueKind::Timestamp { .. })),
            "strings, as infinity and years before 1 are; date(…) and from_iso8601_timestamp(…) read them",
        );
        let decimals = export.names(|column| matches!(column.kind, ValueKind::Decimal { .. }));
        script.note_of(decimals, "a decimal there has no NaN");
    } else {
        let fine = |kind: &ValueKind| matches!(kind, ValueKind::Timestamp { micros: true, .. });
        script.note_of(
            export.names(|column| column.kind.any(&fine)),
            "microseconds, of which Athena shows milliseconds; --preset athena writes those",
        );
    }
    script.note_of(
        export.names(|column| !is_word(column.name)),
        "Athena documents letters, digits and underscores in names; --rename gives others",
    );
}
