//! Every policy: what stands without it, what each of its choices writes, and the count in the manifest.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::job::{Export, export};
use crate::support::pg::{Pg, both, pg};
use crate::support::{variable, within};

/// The values of a Parquet export as pyarrow reads them, as text, by column; and each column's type.
const READ: &str = "
import glob, json, sys
import pyarrow.parquet as parquet
tables = [parquet.read_table(path) for path in sorted(glob.glob(sys.argv[1] + '/data/*.parquet'))]
columns = {}
for table in tables:
    for name, column in zip(table.column_names, table.columns):
        values = [None if value is None else value.hex() if isinstance(value, bytes) else str(value) for value in column.to_pylist()]
        columns.setdefault(name, [str(column.type), []])[1].extend(values)
print(json.dumps(columns))
";

/// One export: its arguments, and what is expected of the column `v`.
struct Case<'a> {
    args: &'a [&'a str],
    policy: &'a str,
    count: u64,
    values: &'a [Value],
}

pub(super) async fn parquet(done: &Export) -> Value {
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.args(["-c", READ]).arg(done.dest()).kill_on_drop(true);
    let output = within(Duration::from_mins(1), "pyarrow", python.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Columns `id` and `v` of this type, with these values in SQL; numbered from 1.
async fn table(pg: &Pg, pg_type: &str, values: &[&str]) {
    pg.batch(&format!("drop table if exists t; create table t (id int primary key, v {pg_type} not null)")).await;
    for (id, value) in (1..).zip(values) {
        pg.batch(&format!("insert into t values ({id}, {value})")).await;
    }
}

async fn run(pg: &Pg, format: &str, args: &[&str]) -> Export {
    let fixed = ["--table", "t", "--format", format, "--key", "id"];
    export(pg, &[&fixed[..], args].concat()).await
}

pub(super) fn column<'a>(manifest: &'a Value, name: &str) -> &'a Value {
    manifest["schema"].as_array().unwrap().iter().find(|column| column["name"] == name).unwrap()
}

fn check_manifest(done: &Export, case: &Case<'_>) {
    let manifest = done.manifest();
    let v = column(&manifest, "v");
    assert_eq!((&v["policy"], &v["policy_count"]), (&json!(case.policy), &json!(case.count)), "{:?}", case.args);
    assert_eq!(column(&manifest, "id")["policy_count"], 0);
}

async fn parquet_case(pg: &Pg, case: &Case<'_>) {
    let done = run(pg, "parquet", case.args).await.expect(0);
    check_manifest(&done, case);
    assert_eq!(parquet(&done).await["v"][1], json!(case.values), "{:?}", case.args);
}

/// The values of `v` in CSV without a header, or in NDJSON, as they are written.
async fn text_case(pg: &Pg, format: &str, case: &Case<'_>) {
    let header: &[&str] = if format == "csv" { &["--csv-header", "off"] } else { &[] };
    let done = run(pg, format, &[header, case.args].concat()).await.expect(0);
    check_manifest(&done, case);
    let text = String::from_utf8(done.data()).unwrap();
    let value = |line: &str| -> Value {
        match line.split_once("\"v\":") {
            Some((_, rest)) if format == "ndjson" => json!(rest.strip_suffix('}').unwrap()),
            _ => json!(line.split_once(',').unwrap().1),
        }
    };
    assert_eq!(text.lines().map(value).collect::<Vec<_>>(), case.values, "{:?}", case.args);
}

/// The default refuses, naming column, key and flag, and leaves nothing.
async fn refused(pg: &Pg, format: &str, args: &[&str], says: &[&str]) {
    let done = run(pg, format, args).await.expect(14);
    for words in says {
        assert!(done.run.stderr.contains(words), "{words} not in: {}", done.run.stderr);
    }
    assert!(!done.dest().join("data").exists() && !done.dest().join("_manifest.json").exists());
}

#[tokio::test]
async fn values_that_a_type_cannot_hold_are_an_error_or_null_or_make_the_column_text() {
    for version in both() {
        let pg = pg(version).await;
        for (pg_type, good, bad, said, as_text) in [
            ("numeric(12,2)", ("1.5", "1.50"), "'NaN'", "NaN", ["1.50", "NaN"]),
            ("numeric(3,-2)", ("12300", "12300"), "'NaN'", "NaN", ["12300", "NaN"]),
            ("date", ("'2024-02-29'", "2024-02-29"), "'infinity'", "infinity", ["2024-02-29", "infinity"]),
            (
                "timestamp",
                ("'2024-02-29 01:02:03.5'", "2024-02-29 01:02:03.500000"),
                "'-infinity'",
                "-infinity",
                ["2024-02-29 01:02:03.5", "-infinity"],
            ),
            (
                "timestamptz",
                ("'2024-02-29 01:02:03+00'", "2024-02-29 01:02:03+00:00"),
                "'294276-12-31 23:59:59.999999+00'",
                "timestamp",
                ["2024-02-29 01:02:03+00", "294276-12-31 23:59:59.999999+00"],
            ),
            ("time", ("'23:59:59.5'", "23:59:59.500000"), "'24:00'", "24:00:00", ["23:59:59.5", "24:00:00"]),
            ("int[]", ("'{1,null}'", "[1, None]"), "'{{1,2},{3,4}}'", "dimension", ["{1,NULL}", "{{1,2},{3,4}}"]),
            ("text[]", ("'{a}'", "['a']"), "'[0:1]={a,b}'", "index", ["{a}", "[0:1]={a,b}"]),
        ] {
            table(&pg, pg_type, &[good.0, bad]).await;
            refused(&pg, "parquet", &[], &["\"v\"", "id = 2", said, "--on-unrepresentable"]).await;
            let null = [json!(good.1), Value::Null];
            for args in [["--on-unrepresentable", "null"], ["--column-policy", "v=null"]] {
                parquet_case(&pg, &Case { args: &args, policy: "null", count: 1, values: &null }).await;
            }
            let text = as_text.map(|text| json!(text));
            for args in [["--on-unrepresentable", "text"], ["--column-policy", "v=text"]] {
                parquet_case(&pg, &Case { args: &args, policy: "text", count: 2, values: &text }).await;
            }
            // Text formats hold them all.
            for format in ["csv", "ndjson"] {
                run(&pg, format, &[]).await.expect(0);
            }
        }
    }
}

#[tokio::test]
async fn a_null_inside_a_nested_value_is_the_innermost_that_can_be_one() {
    let pg = pg(15).await;
    table(&pg, "numeric(5,2)[]", &["'{1.5,NaN}'", "'{2}'"]).await;
    refused(&pg, "parquet", &[], &["\"v\"", "id = 1", "NaN"]).await;
    let values = [json!("[Decimal('1.50'), None]"), json!("[Decimal('2.00')]")];
    parquet_case(&pg, &Case { args: &["--on-unrepresentable", "null"], policy: "null", count: 1, values: &values })
        .await;
    pg.batch("drop table t; drop type if exists pair; create type pair as (a int, b date)").await;
    table(&pg, "pair", &["row(1, 'infinity')", "row(2, '2024-02-29')"]).await;
    let values = [json!("{'a': 1, 'b': None}"), json!("{'a': 2, 'b': datetime.date(2024, 2, 29)}")];
    parquet_case(&pg, &Case { args: &["--column-policy", "v=null"], policy: "null", count: 1, values: &values }).await;
}

#[tokio::test]
async fn one_column_can_choose_otherwise_than_the_rest() {
    let pg = pg(18).await;
    pg.batch(
        "create table t (id int primary key, v date, w date);
         insert into t values (1, 'infinity', '2024-01-01'), (2, '2024-01-02', null)",
    )
    .await;
    let done = run(&pg, "parquet", &["--column-policy", "v=null"]).await.expect(0);
    let manifest = done.manifest();
    assert_eq!(
        (&column(&manifest, "v")["policy"], &column(&manifest, "w")["policy"]),
        (&json!("null"), &json!("error"))
    );
    pg.batch("update t set w = '-infinity' where id = 1").await;
    refused(&pg, "parquet", &["--column-policy", "v=null"], &["\"w\"", "id = 1", "-infinity"]).await;
    run(&pg, "parquet", &["--on-unrepresentable", "null", "--column-policy", "w=error"]).await.expect(14);
    let wrong = run(&pg, "parquet", &["--column-policy", "nope=null"]).await.expect(2);
    assert!(wrong.run.stderr.contains("nope"), "{}", wrong.run.stderr);
    let wrong = run(&pg, "parquet", &["--column-policy", "id=null"]).await.expect(2);
    assert!(wrong.run.stderr.contains("--column-policy id=null"), "{}", wrong.run.stderr);
}

#[tokio::test]
async fn numerics_without_precision_are_text_or_a_decimal_or_a_double() {
    for version in both() {
        let pg = pg(version).await;
        table(&pg, "numeric", &["1.10", "9007199254740993", "1e-5"]).await;
        let text = ["1.10", "9007199254740993", "0.00001"].map(|text| json!(text));
        parquet_case(&pg, &Case { args: &[], policy: "lossless", count: 0, values: &text }).await;
        let decimal = ["1.10000", "9007199254740993.00000", "0.00001"].map(|text| json!(text));
        for args in [["--unconstrained-numeric", "decimal(38,5)"], ["--column-policy", "v=decimal(38,5)"]] {
            parquet_case(&pg, &Case { args: &args, policy: "error", count: 0, values: &decimal }).await;
        }
        let double = ["1.1", "9007199254740992.0", "1e-05"].map(|text| json!(text));
        for args in [["--unconstrained-numeric", "double"], ["--column-policy", "v=double"]] {
            parquet_case(&pg, &Case { args: &args, policy: "double", count: 1, values: &double }).await;
        }
        let short = ["--unconstrained-numeric", "decimal(38,4)"];
        refused(&pg, "parquet", &short, &["\"v\"", "id = 3", "--on-unrepresentable"]).await;
        let null = [json!("1.1000"), json!("9007199254740993.0000"), Value::Null];
        let args = [&short[..], &["--on-unrepresentable", "null"]].concat();
        parquet_case(&pg, &Case { args: &args, policy: "null", count: 1, values: &null }).await;
        // More digits than everybody reads are text, unless asked for.
        table(&pg, "numeric(50,10)", &["1234567890123456789012345678901234567890.5"]).await;
        let text = [json!("1234567890123456789012345678901234567890.5000000000")];
        parquet_case(&pg, &Case { args: &[], policy: "lossless", count: 0, values: &text }).await;
        let args = ["--column-policy", "v=decimal(50,10)"];
        parquet_case(&pg, &Case { args: &args, policy: "error", count: 0, values: &text }).await;
    }
}

#[tokio::test]
async fn timestamps_in_milliseconds_are_rounded_and_counted_or_refused() {
    for version in both() {
        let pg = pg(version).await;
        let values = ["'2000-01-01 00:00:00.0005'", "'1999-12-31 23:59:59.9984999'", "'2024-01-01 00:00:00.123'"];
        table(&pg, "timestamp", &values).await;
        let rounded = pg.sql("select v::timestamp(3)::text from t order by id").await;
        let expected: Vec<Value> = rounded
            .iter()
            .map(|row| {
                let text = row[0].clone().unwrap();
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                json!(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction:0<6}") })
            })
            .collect();
        for args in [&["--timestamp-precision", "ms"][..], &["--preset", "athena"]] {
            parquet_case(&pg, &Case { args, policy: "error, round", count: 2, values: &expected }).await;
        }
        let done = run(&pg, "parquet", &["--preset", "athena"]).await.expect(0);
        assert_eq!(parquet(&done).await["v"][0], "timestamp[ms]");
        for args in [&["--timestamp-precision", "ms-exact"][..], &["--preset", "athena", "--column-policy", "v=error"]]
        {
            refused(&pg, "parquet", args, &["\"v\"", "id = 1", "millisecond"]).await;
        }
        let args = ["--timestamp-precision", "ms-exact", "--on-unrepresentable", "null"];
        let values = [Value::Null, Value::Null, json!("2024-01-01 00:00:00.123000")];
        parquet_case(&pg, &Case { args: &args, policy: "null", count: 2, values: &values }).await;
    }
}

#[tokio::test]
async fn char_n_keeps_its_blanks_or_loses_them() {
    let pg = pg(18).await;
    table(&pg, "char(4)", &["'ab'", "'abcd'", "''"]).await;
    let kept = ["ab  ", "abcd", "    "].map(|text| json!(text));
    let trimmed = ["ab", "abcd", ""].map(|text| json!(text));
    parquet_case(&pg, &Case { args: &[], policy: "lossless", count: 0, values: &kept }).await;
    for args in [["--char-padding", "trim"], ["--column-policy", "v=trim"]] {
        parquet_case(&pg, &Case { args: &args, policy: "trim", count: 2, values: &trimmed }).await;
        let csv = [json!("ab"), json!("abcd"), json!("\"\"")];
        text_case(&pg, "csv", &Case { args: &args, policy: "trim", count: 2, values: &csv }).await;
        let quoted = trimmed.clone().map(|text| json!(text.to_string()));
        text_case(&pg, "ndjson", &Case { args: &args, policy: "trim", count: 2, values: &quoted }).await;
    }
    let args = ["--char-padding", "trim", "--column-policy", "v=keep"];
    parquet_case(&pg, &Case { args: &args, policy: "lossless", count: 0, values: &kept }).await;
}

#[tokio::test]
async fn numbers_that_a_double_would_change_can_be_strings_in_json() {
    let pg = pg(15).await;
    table(&pg, "bigint", &["9007199254740992", "9007199254740993", "-9223372036854775808"]).await;
    let plain = ["9007199254740992", "9007199254740993", "-9223372036854775808"].map(|text| json!(text));
    text_case(&pg, "ndjson", &Case { args: &[], policy: "lossless", count: 0, values: &plain }).await;
    // -2^63 has a float of its own, which prints as -9223372036854776000.
    let quoted = ["9007199254740992", "\"9007199254740993\"", "\"-9223372036854775808\""].map(|text| json!(text));
    for args in [["--json-large-numbers", "string"], ["--column-policy", "v=string"]] {
        text_case(&pg, "ndjson", &Case { args: &args, policy: "string", count: 2, values: &quoted }).await;
    }
    table(&pg, "numeric", &["0.1", "12345678901234567.89", "'NaN'"]).await;
    let quoted = ["0.1", "\"12345678901234567.89\"", "\"NaN\""].map(|text| json!(text));
    let args = ["--json-large-numbers", "string"];
    text_case(&pg, "ndjson", &Case { args: &args, policy: "string", count: 1, values: &quoted }).await;
    table(&pg, "jsonb", &[r#"'{"a": [1, 9007199254740993], "b": "9007199254740993"}'"#, "'1'"]).await;
    let quoted = [r#"{"a":[1,"9007199254740993"],"b":"9007199254740993"}"#, "1"].map(|text| json!(text));
    text_case(&pg, "ndjson", &Case { args: &args, policy: "string", count: 1, values: &quoted }).await;
    table(&pg, "bigint[]", &["'{1,9007199254740993,9007199254740995}'"]).await;
    let quoted = [json!("[1,\"9007199254740993\",\"9007199254740995\"]")];
    text_case(&pg, "ndjson", &Case { args: &args, policy: "string", count: 1, values: &quoted }).await;
}

#[tokio::test]
async fn nan_in_json_is_a_string_or_null_or_an_error() {
    let pg = pg(18).await;
    for pg_type in ["double precision", "real", "numeric"] {
        table(&pg, pg_type, &["1.5", "'NaN'", "'-Infinity'"]).await;
        let strings = ["1.5", "\"NaN\"", "\"-Infinity\""].map(|text| json!(text));
        text_case(&pg, "ndjson", &Case { args: &[], policy: "lossless", count: 0, values: &strings }).await;
        let nulls = ["1.5", "null", "null"].map(|text| json!(text));
        for args in [["--json-nan", "null"], ["--column-policy", "v=null"]] {
            text_case(&pg, "ndjson", &Case { args: &args, policy: "null", count: 2, values: &nulls }).await;
        }
        for args in [["--json-nan", "error"], ["--column-policy", "v=error"]] {
            refused(&pg, "ndjson", &args, &["\"v\"", "id = 2", "NaN", "--json-nan"]).await;
        }
    }
}

#[tokio::test]
async fn nested_values_in_csv_are_postgres_text_or_json() {
    let pg = pg(15).await;
    table(&pg, "int[]", &["'{1,2}'", "'{{1},{null}}'"]).await;
    let text = ["\"{1,2}\"", "\"{{1},{NULL}}\""].map(|text| json!(text));
    text_case(&pg, "csv", &Case { args: &[], policy: "lossless", count: 0, values: &text }).await;
    let json = ["\"[1,2]\"", "\"[[1],[null]]\""].map(|text| json!(text));
    for args in [["--csv-nested", "json"], ["--column-policy", "v=json"]] {
        text_case(&pg, "csv", &Case { args: &args, policy: "json", count: 2, values: &json }).await;
    }
}

#[tokio::test]
async fn text_that_a_spreadsheet_would_run_is_guarded_and_counted() {
    let pg = pg(18).await;
    table(&pg, "text", &["'=1+1'", "'plain'", "'-3'", "'@x'"]).await;
    let plain = ["=1+1", "plain", "-3", "@x"].map(|text| json!(text));
    text_case(&pg, "csv", &Case { args: &[], policy: "lossless", count: 0, values: &plain }).await;
    let guarded = ["'=1+1", "plain", "'-3", "'@x"].map(|text| json!(text));
    let args = ["--csv-formula-guard"];
    text_case(&pg, "csv", &Case { args: &args, policy: "guard", count: 3, values: &guarded }).await;
    table(&pg, "int", &["-3"]).await;
    text_case(&pg, "csv", &Case { args: &args, policy: "lossless", count: 0, values: &[json!("-3")] }).await;
}

#[tokio::test]
async fn columns_of_one_name_are_refused_or_numbered() {
    for version in both() {
        let pg = pg(version).await;
        let query = "select 1 as a, 2 as a, 3 as a_2 union all select 4, 5, 6";
        for format in ["parquet", "csv", "ndjson"] {
            let refused = export(&pg, &["--query", query, "--format", format]).await.expect(2);
            assert!(refused.run.stderr.contains("--duplicate-columns"), "{}", refused.run.stderr);
            let args = ["--query", query, "--format", format, "--duplicate-columns", "suffix"];
            let done = export(&pg, &args).await.expect(0);
            let manifest = done.manifest();
            let names: Vec<_> = manifest["schema"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
            assert_eq!(names, ["a", "a_3", "a_2"]);
            assert!(column(&manifest, "a_3")["note"].as_str().unwrap().contains("a second column \"a\""));
            if format == "csv" {
                assert_eq!(done.sorted(), ["1,2,3", "4,5,6"]);
            }
        }
    }
}

#[tokio::test]
async fn text_of_a_sql_ascii_database_is_checked_replaced_or_bytes() {
    for version in both() {
        let pg = Pg::encoded(version, "SQL_ASCII").await;
        table(&pg, "text", &["'plain'", r"E'caf\xe9'", r"E'\xc3\xa9'"]).await;
        for format in ["parquet", "csv", "ndjson"] {
            refused(&pg, format, &[], &["\"v\"", "id = 2", "UTF-8", "--invalid-utf8"]).await;
        }
        let replaced = ["plain", "caf\u{fffd}", "é"];
        let bytes = ["706c61696e", "636166e9", "c3a9"];
        for how in ["--invalid-utf8", "--column-policy"] {
            let choice = |word: &str| if how == "--column-policy" { format!("v={word}") } else { word.to_owned() };
            let (replace, as_bytes) = (choice("replace"), choice("bytes"));
            let args = [how, replace.as_str()];
            let values = replaced.map(|text| json!(text));
            parquet_case(&pg, &Case { args: &args, policy: "replace", count: 1, values: &values }).await;
            text_case(&pg, "csv", &Case { args: &args, policy: "replace", count: 1, values: &values }).await;
            let values = replaced.map(|text| json!(format!("\"{text}\"")));
            text_case(&pg, "ndjson", &Case { args: &args, policy: "replace", count: 1, values: &values }).await;
            let args = [how, as_bytes.as_str()];
            let values = bytes.map(|text| json!(text));
            parquet_case(&pg, &Case { args: &args, policy: "bytes", count: 3, values: &values }).await;
            let values = bytes.map(|text| json!(format!("\\x{text}")));
            text_case(&pg, "csv", &Case { args: &args, policy: "bytes", count: 3, values: &values }).await;
            let values = bytes.map(|text| json!(format!("\"\\\\x{text}\"")));
            text_case(&pg, "ndjson", &Case { args: &args, policy: "bytes", count: 3, values: &values }).await;
        }
    }
}

#[tokio::test]
async fn other_encodings_are_translated_by_the_server() {
    for version in both() {
        for encoding in ["LATIN1", "EUC_JP"] {
            let pg = Pg::encoded(version, encoding).await;
            let text = if encoding == "LATIN1" { "'caf\u{e9}'" } else { "'\u{65e5}\u{672c}'" };
            table(&pg, "text", &[text]).await;
            let expected = text.trim_matches('\'');
            parquet_case(&pg, &Case { args: &[], policy: "lossless", count: 0, values: &[json!(expected)] }).await;
            let case = Case { args: &[], policy: "lossless", count: 0, values: &[json!(expected)] };
            text_case(&pg, "csv", &case).await;
        }
    }
}
