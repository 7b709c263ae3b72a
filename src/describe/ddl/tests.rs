//! What is written for each dialect, as goldens, and that parsers of the dialects take it.

use std::path::Path;

use sqlparser::dialect::{ClickHouseDialect, Dialect as Parsed, DuckDbDialect, HiveDialect, RedshiftSqlDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::*;
use crate::commit::model::{FormatRecord, PartEntry, SchemaColumn};
use crate::commit::test_data;
use crate::model::{Compression, FolderValue, Format};

fn column(name: &str, pg_type: &str, arrow_type: &str) -> SchemaColumn {
    SchemaColumn {
        name: name.into(),
        source_column: None,
        pg_type: pg_type.into(),
        source_type: None,
        arrow_type: arrow_type.into(),
        parquet_type: None,
        nullable: true,
        policy: "lossless".into(),
        policy_count: None,
        note: None,
        protection: None,
    }
}

/// What every engine reads from Parquet.
fn plain() -> Vec<SchemaColumn> {
    let mut columns = vec![
        column("id", "bigint", "Int64"),
        column("flag", "boolean", "Boolean"),
        column("small", "smallint", "Int16"),
        column("count", "integer", "Int32"),
        column("ratio", "real", "Float32"),
        column("weight", "double precision", "Float64"),
        column("price", "numeric(12,2)", "Decimal128(12,2)"),
        column("amount", "numeric", "Utf8"),
        column("note", "text", "Utf8"),
        column("doc", "jsonb", "Utf8"),
        column("raw", "bytea", "Binary"),
        column("day", "date", "Date32"),
        column("at", "timestamp without time zone", "Timestamp(MILLIS)"),
        column("at_utc", "timestamp with time zone", "Timestamp(MICROS, UTC)"),
        column("tags", "text[]", "List(Utf8)"),
        column("range", "int4range", "Struct(\"lower\": Int32, \"upper\": Int32, \"empty\": Boolean)"),
        column("attributes", "hstore", "Map(Utf8, Utf8)"),
        column("steps", "step[]", "List(Struct(\"at\": Date32, \"name\": Utf8))"),
    ];
    columns[0].nullable = false;
    columns
}

/// What some engines do not read from Parquet.
fn rich() -> Vec<SchemaColumn> {
    vec![
        column("id", "uuid", "FixedSizeBinary(16)"),
        column("opens", "time without time zone", "Time64(MICROS)"),
        column("wide", "numeric", "Decimal256(50,10)"),
        column("grid", "x[]", "List(Struct(\"y\": List(Int32)))"),
        column("odd", "pair", "Struct(\"a b`c\": Int32)"),
        column("Id", "integer", "Int32"),
    ]
}

/// The same values in text formats.
fn text() -> Vec<SchemaColumn> {
    vec![
        column("id", "bigint", "Int64"),
        column("flag", "boolean", "Boolean"),
        column("count", "integer", "Int32"),
        column("weight", "double precision", "Float64"),
        column("price", "numeric(12,2)", "Utf8"),
        column("note", "text", "Utf8"),
        column("doc", "jsonb", "Utf8"),
        column("raw", "bytea", "Binary"),
        column("key", "uuid", "FixedSizeBinary(16)"),
        column("day", "date", "Int32"),
        column("opens", "time(3) without time zone", "Int64"),
        column("at", "timestamp without time zone", "Int64"),
        column("at_utc", "timestamp(0) with time zone", "Int64"),
        column("tags", "text[]", "Utf8"),
        column("born", "birthday", "Int32"),
    ]
}

const EVIL: &str = "a'; DROP TABLE x; -- \" ` \\ \n/* {b,c} */";

fn evil() -> Vec<SchemaColumn> {
    vec![column(EVIL, "integer", "Int32"), column("\\'", "text", "Utf8"), column("``", "text", "Utf8")]
}

struct Case {
    name: &'static str,
    relation: &'static str,
    folder: &'static str,
    schema: Vec<SchemaColumn>,
    format: FormatRecord,
}

impl Case {
    fn manifest(&self) -> Manifest {
        let mut manifest = test_data::manifest();
        manifest.source.name = SourceName::Relation(self.relation.into());
        manifest.schema.clone_from(&self.schema);
        manifest.format.clone_from(&self.format);
        if self.name == "partitions" {
            manifest.partition_by = vec![column("region", "text", "Utf8"), column("n", "integer", "Int32")];
            for (part, region) in manifest.parts.iter_mut().zip([Some("N/L"), None, Some("N/L"), Some("be")]) {
                let folder = |column: &str, value: Option<&str>| FolderValue {
                    column: column.to_owned(),
                    value: value.map(str::to_owned),
                };
                part.partition_values = vec![folder("region", region), folder("n", Some("7"))];
                let folders = crate::store::folder_path(&part.partition_values);
                part.path = part.path.replace("data/", &format!("data/{folders}"));
            }
        }
        for part in &mut manifest.parts {
            part.url = format!("{}/{}", self.folder, part.path);
        }
        manifest
    }
}

fn record(format: Format, compression: Compression) -> FormatRecord {
    FormatRecord::from(&test_data::format(format, compression))
}

fn cases() -> Vec<Case> {
    let parquet = || record(Format::Parquet, Compression::Zstd(1));
    let mut options = test_data::format(Format::Csv, Compression::Gzip(6));
    (options.csv.delimiter, options.csv.null, options.csv.header) = (b'\t', "\\N".into(), false);
    let with_options = FormatRecord::from(&options);
    let mut numbers = text();
    numbers.push(column("exact", "numeric", "Utf8"));
    for column in &mut numbers {
        if ["price", "exact", "doc"].contains(&column.name.as_str()) {
            column.policy = "lossless, string".into();
        }
    }
    let mut day = plain();
    day[11].name = "DT".into();
    let case = |name, relation, folder, schema, format| Case { name, relation, folder, schema, format };
    vec![
        case("parquet", "public.orders", "s3://lake/orders", plain(), parquet()),
        case("parquet_rich", "public.orders", "s3://lake/orders", rich(), parquet()),
        case("csv", "public.orders", "s3://lake/orders", text(), record(Format::Csv, Compression::None)),
        case("csv_options", "public.orders", "s3://lake/orders", text(), with_options),
        case("ndjson", "public.orders", "s3://lake/orders", text(), record(Format::Ndjson, Compression::None)),
        case(
            "ndjson_numbers",
            "public.orders",
            "s3://lake/orders",
            numbers,
            record(Format::Ndjson, Compression::Gzip(6)),
        ),
        case("partitions", "public.orders", "s3://lake/orders/load=7", plain(), parquet()),
        case("folders", "public.orders", "s3://lake/orders/dt=2026-11-21/hour=07", day, parquet()),
        case(
            "local",
            "public.orders",
            "file:///data/a%20b/%5B1%5D/x=1",
            text(),
            record(Format::Csv, Compression::Zstd(1)),
        ),
        case("evil", "public.a'; DROP TABLE x; -- \" ` \\ \n", "s3://lake/it's", evil(), parquet()),
    ]
}

#[test]
fn each_dialect_is_as_its_golden() {
    for case in cases() {
        for dialect in Dialect::ALL {
            let actual = file(&case.manifest(), dialect);
            let golden = format!("tests/golden/ddl/{}/{}.sql", case.name, dialect.name());
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&golden);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &actual).unwrap();
            }
            let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{golden}: {error}"));
            assert_eq!(actual, expected, "{golden} differs; UPDATE_GOLDEN=1 rewrites it");
        }
    }
}

#[test]
fn the_sources_of_dbt_are_as_their_golden_and_every_text_stays_one() {
    for case in cases() {
        let actual = dbt::sources(&case.manifest(), &Placement::Parts, None);
        let golden = format!("tests/golden/ddl/{}/dbt-sources.yml", case.name);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&golden);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &actual).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{golden}: {error}"));
        assert_eq!(actual, expected, "{golden} differs; UPDATE_GOLDEN=1 rewrites it");
        let mut names = Vec::new();
        for line in actual.lines().filter(|line| !line.starts_with("# ")) {
            let line = line.trim_start();
            let Some((key, value)) = line.split_once(": ") else {
                let known = ["sources:", "tables:", "meta:", "external:", "columns:", "data_tests:", "- not_null"];
                assert!(known.contains(&line), "{}: {line}", case.name);
                continue;
            };
            let known =
                ["version", "- name", "external_location", "location", "file_format", "row_format", "data_type"];
            assert!(known.contains(&key), "{}: {line}", case.name);
            let value: serde_json::Value = serde_json::from_str(value).unwrap();
            names.extend(value.as_str().filter(|_| key == "- name").map(str::to_owned));
        }
        if !names.is_empty() {
            // Those of folders come behind those of the files.
            let manifest = case.manifest();
            let all = manifest.schema.iter().chain(
                manifest
                    .partition_by
                    .iter()
                    .filter(|column| !manifest.schema.iter().any(|own| own.name == column.name)),
            );
            let wanted: Vec<String> = all.map(|column| column.name.clone()).collect();
            assert_eq!(names.get(2..), Some(wanted.as_slice()), "{}", case.name);
        }
    }
    let name = TableName::parse("lake.\"my orders\"").unwrap();
    let named = dbt::sources(&test_data::manifest(), &Placement::Parts, Some(&name));
    assert!(named.contains("  - name: \"lake\"\n    tables:\n      - name: \"my orders\"\n"), "{named}");
}

#[test]
fn the_dialects_parsers_take_what_is_written() {
    let mut parsed = 0;
    for case in cases() {
        for dialect in Dialect::ALL {
            let Ok(sql) = ddl(&case.manifest(), &Placement::Parts, dialect, None) else { continue };
            let statements =
                parse(dialect, &sql).unwrap_or_else(|error| panic!("{} {dialect:?}: {error}\n{sql}", case.name));
            let wanted = match dialect {
                Dialect::Redshift => 2,
                Dialect::Athena | Dialect::Spectrum if ["folders", "partitions"].contains(&case.name) => 2,
                _ => 1,
            };
            assert_eq!(statements, wanted, "{} {dialect:?}\n{sql}", case.name);
            parsed += 1;
        }
    }
    assert!(parsed > 25, "{parsed}");
}

/// A line without what the parser's grammars lack: nested types, some options of COPY, the place of a partition, and the
/// words that Redshift has for TBLPROPERTIES.
fn known(line: &str) -> String {
    if ["SERIALIZETOJSON", "QUOTE AS '\"'", "ENCODING UTF8"].contains(&line.trim_end_matches(';')) {
        return line[line.trim_end_matches(';').len()..].to_owned();
    }
    if let Some((partition, _)) = line.split_once(") LOCATION ") {
        return format!("{partition}){}\n", if line.ends_with(';') { ";" } else { "" });
    }
    let nested = ["array<", "struct<", "map<"].iter().find_map(|word| line.find(&format!(" {word}")));
    match nested.filter(|_| line.starts_with("    ")) {
        Some(at) => format!("{} date{}\n", &line[..at], if line.ends_with(',') { "," } else { "" }),
        None => format!("{}\n", line.replace("TABLE PROPERTIES", "TBLPROPERTIES")),
    }
}

/// How many statements a parser of the dialect finds.
fn parse(dialect: Dialect, sql: &str) -> Result<usize, String> {
    let parser: &dyn Parsed = match dialect {
        Dialect::Athena => &HiveDialect {},
        Dialect::Spectrum | Dialect::Redshift => &RedshiftSqlDialect {},
        Dialect::Duckdb => &DuckDbDialect {},
        Dialect::Clickhouse => &ClickHouseDialect {},
    };
    let sql: String = sql.lines().map(known).collect();
    Parser::parse_sql(parser, &sql).map(|statements| statements.len()).map_err(|error| error.to_string())
}

#[test]
fn names_can_be_given() {
    let manifest = test_data::manifest();
    let name = TableName::parse("lake.\"my.orders\"").unwrap();
    for (dialect, expected) in [
        (Dialect::Athena, "`lake`.`my.orders` ("),
        (Dialect::Spectrum, "\"lake\".\"my.orders\" ("),
        (Dialect::Redshift, "COPY \"lake\".\"my.orders\"\n"),
        (Dialect::Duckdb, "VIEW \"lake\".\"my.orders\" AS"),
        (Dialect::Clickhouse, "VIEW `lake`.`my.orders` AS"),
    ] {
        let sql = ddl(&manifest, &Placement::Parts, dialect, Some(&name)).unwrap();
        assert!(sql.contains(expected), "{sql}");
    }
    let short = TableName::parse("orders").unwrap();
    ddl(&manifest, &Placement::Parts, Dialect::Spectrum, Some(&short)).unwrap_err();
}

/// A table that an earlier load made does not have a column that is new in this one.
#[test]
fn athena_is_told_of_columns_that_are_new_in_a_load() {
    let mut manifest = test_data::manifest();
    manifest.schema =
        vec![column("id", "bigint", "Int64"), column("note", "text", "Utf8"), column("gone", "text", "Utf8")];
    let changes = serde_json::json!([
        {"column": "note", "change": "added"}, {"column": "old", "change": "dropped"}, {"column": "gone", "change": "retyped"}
    ]);
    let watermark = serde_json::json!({
        "column": "id", "value": "7", "horizon": "1000", "oldest_xact_start": null, "look_back": null,
        "taken_at": "2026-11-28T00:00:00.000000Z", "since": "r0", "selection": {"columns": null}, "history": {}, "changes": changes
    });
    manifest.watermark = Some(serde_json::from_value(watermark).unwrap());
    for (folder, told) in [("s3://lake/orders/load=r1", true), ("s3://lake/orders", false)] {
        for part in &mut manifest.parts {
            part.url = format!("{folder}/{}", part.path);
        }
        let sql = ddl(&manifest, &Placement::Parts, Dialect::Athena, None).unwrap();
        let added = sql.contains("ADD COLUMNS (\n    `note` string\n)");
        assert_eq!(added, told, "{sql}");
        assert_eq!(sql.matches("ADD COLUMNS (").count(), usize::from(told), "{sql}");
    }
}

#[test]
fn one_file_has_no_foreign_manifest() {
    let mut manifest = test_data::manifest();
    let single = Placement::Single { name: "orders.parquet".into() };
    manifest.parts.truncate(1);
    manifest.parts[0].path = "orders.parquet".into();
    manifest.parts[0].url = "s3://lake/orders.parquet".into();
    for dialect in Dialect::ALL {
        let made = ddl(&manifest, &single, dialect, None);
        let wanted = matches!(dialect, Dialect::Duckdb | Dialect::Clickhouse);
        assert_eq!(made.is_ok(), wanted, "{made:?}");
    }
}

#[test]
fn many_parts_are_split_and_long_statements_say_so() {
    let mut manifest = test_data::manifest();
    let part = manifest.parts[0].clone();
    let numbered = |number: u32| PartEntry { url: part.url.replace("00000", &format!("{number:05}")), ..part.clone() };
    manifest.parts = (0..10_001).map(numbered).collect();
    let sql = ddl(&manifest, &Placement::Parts, Dialect::Clickhouse, None).unwrap();
    assert_eq!(sql.matches("SELECT * FROM s3(").count(), 21, "{sql}");
    assert!(sql.contains("\nSET max_query_size = "));
    for sql in [sql, ddl(&manifest, &Placement::Parts, Dialect::Duckdb, None).unwrap()] {
        let named: Vec<&str> = sql.split("part-").skip(1).filter_map(|rest| rest.split('.').next()).collect();
        let wanted: Vec<String> = (0..10_001).map(|number| format!("{number:05}-000-9f3a2b1c")).collect();
        assert_eq!(named, wanted);
    }
}

/// Nothing that people name can end a literal, a name or a comment: the tokens outside them are those of a tame export.
#[test]
fn names_inject_nothing() {
    let all = cases();
    let evil = all.iter().find(|case| case.name == "evil").unwrap();
    let tame = Case {
        name: "tame",
        relation: "public.a",
        folder: "s3://lake/its",
        schema: vec![column("a", "integer", "Int32"), column("b", "text", "Utf8"), column("c", "text", "Utf8")],
        format: evil.format.clone(),
    };
    let words = |case: &Case, dialect: Dialect| {
        let parser: &dyn Parsed = match dialect {
            Dialect::Athena => &HiveDialect {},
            Dialect::Duckdb => &DuckDbDialect {},
            Dialect::Clickhouse => &ClickHouseDialect {},
            Dialect::Redshift | Dialect::Spectrum => &RedshiftSqlDialect {},
        };
        let mut manifest = case.manifest();
        if dialect == Dialect::Athena {
            // It refuses the other folder.
            manifest.parts.iter_mut().for_each(|part| part.url = format!("s3://lake/its/{}", part.path));
        }
        let sql = ddl(&manifest, &Placement::Parts, dialect, None).unwrap();
        let tokens = Tokenizer::new(parser, &sql).tokenize().unwrap();
        let kept = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_)));
        let blanked = kept.map(|token| match token {
            Token::SingleQuotedString(_) => "'…'".to_owned(),
            Token::Word(word) if word.quote_style.is_some() => "`…`".to_owned(),
            other => other.to_string(),
        });
        blanked.collect::<Vec<_>>()
    };
    for dialect in Dialect::ALL {
        assert_eq!(words(evil, dialect), words(&tame, dialect), "{dialect:?}");
    }
}
