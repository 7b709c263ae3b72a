//! `outhaul ddl`, and the statements at the destination: DuckDB and ClickHouse run theirs and show PostgreSQL's values.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::job::{Export, command, export};
use crate::support::pg::{Pg, both, pg};
use crate::support::run::{outhaul, program};
use crate::support::{manifest, variable, within};

const LIMIT: Duration = Duration::from_mins(1);

const EVERYTHING: &str = r#"
create table everything (
    id int primary key, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric(20, 5), nn numeric, t text, vc varchar(30),
    by bytea, d date, tm time, ts timestamp, tz timestamptz, u uuid, doc jsonb, "odd `\ ''name""" text);
insert into everything values
(1, true, -32768, -9223372036854775808, 1e-45, 2.2250738585072014e-308, 123456789012345.12345, 1e30, 'tab	 and "quote", \back', 'x', '\x00ff22', '0001-01-01', '00:00', '0001-01-01 00:00:00', '0001-01-02 00:00:00+00', '00000000-0000-0000-0000-000000000000', '{"a": [1, null]}', 'x'),
(2, false, 32767, 9223372036854775807, 'NaN', 'Infinity', 0, -0.10, '', '', '', '9999-12-31', '23:59:59.999999', '9999-12-31 23:59:59.999999', '9999-12-31 23:59:59.999999+00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '{"b": "text"}', ''),
(3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null),
(4, true, 0, 9007199254740993, -0.0, -0.0, -0.00001, 12345678901234567890.12345678901234567890, E'line\nbreak\r\n ''', '  blanks ', '\x5c78', '2026-11-21', '12:00:00.5', '2026-11-21 12:00:00.25', '2026-11-21 12:00:00+05:30', '123e4567-e89b-12d3-a456-426614174000', '[]', E'\\.'),
(5, true, 1, 1, '-Infinity', 1e23, 1.5, 0, 'NULL', '\N', '\x', '1969-12-31', '01:02:03', '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00', null, 'null', 'é😀');
"#;

/// PostgreSQL's values as `tests/support/ddl.py` writes them.
const EXPECTED: &str = r#"select id::text, case b when true then 't' when false then 'f' end, i2::text, i8::text, encode(float4send(f4), 'hex'), encode(float8send(f8), 'hex'),
    trim_scale(n)::text, nn::text, t, vc, by::text, d::text, tm::text, ts::text, (tz at time zone 'UTC')::text, u::text, doc::text,
    "odd `\ ''name""" from everything order by id"#;

#[tokio::test]
async fn duckdb_and_clickhouse_show_postgres_values() {
    for version in both() {
        let pg = everything(version).await;
        for engine in ["duckdb", "clickhouse"] {
            for args in [
                &["--format", "parquet"][..],
                &["--format", "parquet", "--compression", "snappy"],
                &["--format", "csv"],
                &["--format", "csv", "--compression", "gzip", "--csv-header", "off", "--csv-null", "NULL"],
                &["--format", "csv", "--compression", "zstd", "--csv-delimiter", ";", "--csv-null", "\\N"],
                &["--format", "csv", "--csv-newline", "crlf", "--csv-bom", "--csv-delimiter", "|"],
                &["--format", "ndjson", "--json-large-numbers", "string"],
                &["--format", "ndjson", "--compression", "gzip", "--json-large-numbers", "string"],
            ] {
                let shown = shown(&pg, engine, args).await;
                let mut expected = pg.sql(EXPECTED).await;
                let ndjson = args.contains(&"ndjson");
                for row in &mut expected {
                    // JSON keeps no zeros at the end of what a reader takes for a number, and one null only.
                    if ndjson && row[7].as_deref() == Some("-0.10") {
                        row[7] = Some(shown_number(engine).to_owned());
                    }
                    row[16] = row[16].take().filter(|doc| !ndjson || doc != "null").map(|doc| compact(&doc));
                }
                for (found, expected) in shown.iter().zip(&expected) {
                    assert_eq!(found, expected, "{version} {engine} {args:?}");
                }
                assert_eq!(shown.len(), expected.len());
            }
        }
    }
}

/// What an engine makes of -0.10 in JSON where the column is text.
fn shown_number(engine: &str) -> &'static str {
    if engine == "duckdb" { "-0.1" } else { "-0.10" }
}

/// A view that stands since the night before, whose parts are removed one by one, must not show fewer rows.
#[tokio::test]
async fn a_view_whose_parts_go_fails() {
    let pg = pg(18).await;
    pg.batch("create table t (id int primary key); insert into t select generate_series(1, 300)").await;
    for engine in ["duckdb", "clickhouse"] {
        for format in ["parquet", "csv"] {
            let args = ["--table", "t", "--format", format, "--key", "id", "--partitions", "3"];
            let done = export(&pg, &args).await.expect(0);
            let dest = done.dest();
            let sql = ddl(&dest, &["--dialect", engine, "--name", "v"]).run().await.expect(0).stdout;
            assert_eq!(asked(&sql, engine, &[]).await.unwrap().len(), 300, "{engine} {format}");
            let parts: Vec<_> = dest.join("data").read_dir().unwrap().map(|part| part.unwrap().path()).collect();
            assert_eq!(parts.len(), 3);
            for part in parts {
                std::fs::remove_file(&part).unwrap();
                let shown = asked(&sql, engine, &[]).await;
                assert!(shown.is_err(), "{engine} {format}: {} rows", shown.unwrap().len());
            }
        }
    }
}

/// JSON's own null is `null` in NDJSON, as an absent value is; a name that a spreadsheet would run is quoted in a header.
#[tokio::test]
async fn clickhouse_puts_no_default_where_a_value_was() {
    let pg = pg(18).await;
    pg.batch(
        "create domain doc as jsonb; create table t (id int primary key, j jsonb not null, d doc not null, \"=x\" text);
        insert into t values (1, 'null', 'null', 'kept'), (2, '\"\"', '1', null)",
    )
    .await;
    for engine in ["duckdb", "clickhouse"] {
        for (format, null) in [("ndjson", None), ("csv", Some("null"))] {
            let args = ["--table", "t", "--format", format, "--csv-formula-guard"];
            let done = export(&pg, &args[..if format == "csv" { 5 } else { 4 }]).await;
            let rows = run(&done.expect(0).dest(), engine, &[]).await;
            let found: Vec<_> =
                rows.iter().map(|row| (row[1].as_deref(), row[2].as_deref(), row[3].as_deref())).collect();
            let empty = if format == "csv" { "\"\"" } else { rows[1][1].as_deref().unwrap() };
            let expected = [(null, null, Some("kept")), (Some(empty), Some("1"), None)];
            assert_eq!(found, expected, "{engine} {format}");
        }
    }
}

#[tokio::test]
async fn one_column_of_nulls_and_empty_texts_is_read_row_by_row() {
    let pg = pg(18).await;
    pg.batch("create table id_only (id text); insert into id_only values ('1'), (null), (''), ('b'), (null)").await;
    for engine in ["duckdb", "clickhouse"] {
        for header in ["on", "off"] {
            let done = export(&pg, &["--table", "id_only", "--format", "csv", "--csv-header", header]).await.expect(0);
            let mut rows = run(&done.dest(), engine, &[]).await;
            rows.sort();
            let expected = [None, None, Some(""), Some("1"), Some("b")].map(|value| vec![value.map(str::to_owned)]);
            assert_eq!(rows, expected, "{engine} {header}");
        }
    }
}

#[tokio::test]
async fn duckdb_reads_infinity_and_years_before_christ() {
    let pg = pg(18).await;
    pg.batch(
        "create table far (id int, d date, ts timestamp, tz timestamptz);
        insert into far values (1, 'infinity', '-infinity', 'infinity'), (2, '0044-03-15 BC', '0044-03-15 12:34:56.5 BC', '0044-03-15 00:00:00+00 BC'),
            (3, '12026-01-01', '12026-01-01 01:02:03', '12026-01-01 01:02:03+00')",
    )
    .await;
    let expected =
        pg.sql("select id::text, d::text, ts::text, (tz at time zone 'UTC')::text from far order by id").await;
    for format in ["csv", "ndjson"] {
        let done = export(&pg, &["--table", "far", "--format", format]).await.expect(0);
        assert_eq!(run(&done.dest(), "duckdb", &[]).await, expected, "{format}");
    }
}

#[tokio::test]
async fn folders_of_keys_add_no_column() {
    let pg = pg(18).await;
    pg.batch("create table t (id int, x text); insert into t values (1, 'in the row')").await;
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("a b/x=in the path/y=2");
    for engine in ["duckdb", "clickhouse"] {
        for format in ["parquet", "csv", "ndjson"] {
            let args = ["--table", "t", "--format", format, "--on-existing", "replace"];
            command(&pg, dest.to_str().unwrap(), &args).run().await.expect(0);
            let row = ["1", "in the row"].map(|value| Some(value.to_owned())).to_vec();
            assert_eq!(run(&dest, engine, &[]).await, [row], "{engine} {format}");
        }
    }
}

#[tokio::test]
async fn the_commit_writes_what_the_command_prints() {
    let pg = everything(18).await;
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    for format in ["parquet", "csv", "ndjson"] {
        let args = ["--table", "everything", "--format", format, "--on-existing", "replace"];
        command(&pg, dest.to_str().unwrap(), &args).run().await.expect(0);
        for dialect in ["athena", "spectrum", "redshift", "duckdb", "clickhouse"] {
            let file = std::fs::read_to_string(dest.join(format!("_ddl/{dialect}.sql"))).unwrap();
            assert!(file.contains(manifest(&dest)["run_id"].as_str().unwrap()), "{file}");
            let reads = matches!((dialect, format), ("duckdb", "parquet" | "csv") | ("clickhouse", _));
            let printed = ddl(&dest, &["--dialect", dialect]).run().await.expect(if reads { 0 } else { 2 });
            if reads {
                assert_eq!(String::from_utf8(printed.stdout).unwrap(), file);
            } else {
                assert!(printed.stdout.is_empty(), "{printed:?}");
                assert!(file.lines().all(|line| line.starts_with("-- ")), "{file}");
            }
        }
        let sources = std::fs::read_to_string(dest.join("_ddl/dbt-sources.yml")).unwrap();
        let printed = ddl(&dest, &["--dialect", "dbt"]).run().await.expect(0);
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), sources);
        // What dbt-duckdb reads gives the rows.
        let location = sources.lines().find_map(|line| line.trim().strip_prefix("external_location: "));
        assert_eq!(location.is_some(), format == "parquet", "{sources}");
        if let Some(location) = location {
            let location: String = serde_json::from_str(location).unwrap();
            let count =
                "import duckdb, sys; print(duckdb.sql('select count(*), max(id) from ' + sys.argv[1]).fetchall())";
            let python = program(&variable("OUTHAUL_TEST_PYTHON"), ["-c", count, &location]).run().await.expect(0);
            assert_eq!(String::from_utf8(python.stdout).unwrap().trim(), "[(5, 5)]");
        }
        outhaul(["verify", dest.to_str().unwrap(), "--read-data"]).run().await.expect(0);
    }
    let refused = ddl(&dest, &["--dialect", "duckdb"]).run().await.expect(2);
    assert!(refused.stderr.contains("\"nn\"") && refused.stderr.contains("--json-large-numbers"), "{}", refused.stderr);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let pg = everything(18).await;
    let done = export(&pg, &["--table", "everything"]).await.expect(0);
    let wrong = ddl(&done.dest(), &["--dialect", "duckbd"]).run().await.expect(2);
    assert!(wrong.stderr.contains("duckdb"), "{}", wrong.stderr);
    ddl(&done.dest(), &[]).run().await.expect(2);
    ddl(&done.dest(), &["--dialect", "duckdb", "--name", "a.b.c.d"]).run().await.expect(2);
    let local = ddl(&done.dest(), &["--dialect", "athena"]).run().await.expect(2);
    assert!(local.stderr.contains("S3"), "{}", local.stderr);
    let nothing = ddl(&done.dest().join("data"), &["--dialect", "duckdb"]).run().await.expect(30);
    assert!(nothing.stderr.contains("no manifest"), "{}", nothing.stderr);
}

fn ddl(dest: &Path, args: &[&str]) -> crate::support::run::Outhaul {
    outhaul(["ddl", dest.to_str().unwrap()].iter().chain(args))
}

/// The rows that an engine shows of an export in several parts.
async fn shown(pg: &Pg, engine: &str, args: &[&str]) -> Vec<Vec<Option<String>>> {
    let all = [&["--table", "everything", "--key", "id", "--partitions", "3"][..], args].concat();
    let done: Export = export(pg, &all).await.expect(0);
    let mut rows = run(&done.dest(), engine, &["by"]).await;
    for row in &mut rows {
        row[16] = row[16].take().map(|doc| compact(&doc));
    }
    rows
}

fn compact(json: &str) -> String {
    serde_json::from_str::<Value>(json).unwrap_or_else(|error| panic!("{json}: {error}")).to_string()
}

async fn run(dest: &Path, engine: &str, bytes_columns: &[&str]) -> Vec<Vec<Option<String>>> {
    let sql = ddl(dest, &["--dialect", engine, "--name", "v"]).run().await.expect(0).stdout;
    let shown = asked(&sql, engine, bytes_columns).await;
    shown.unwrap_or_else(|said| panic!("{engine}: {said}\n{}", String::from_utf8_lossy(&sql)))
}

/// What the view `v` of some statements shows, or what the engine says instead.
async fn asked(sql: &[u8], engine: &str, bytes_columns: &[&str]) -> Result<Vec<Vec<Option<String>>>, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ddl.sql");
    std::fs::write(&file, sql).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ddl.py");
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.arg(script).arg(engine).arg(&file).args(bytes_columns).current_dir(folder.path()).kill_on_drop(true);
    let output = within(LIMIT, "ddl.py", python.output()).await.unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    Ok(serde_json::from_value(answer["rows"].clone()).unwrap())
}

async fn everything(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(EVERYTHING).await;
    pg
}
