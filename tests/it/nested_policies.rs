//! Every policy inside arrays, composites and ranges: what is chosen for a column holds for its parts, is counted and is
//! told, or the plan says that it does not reach them.

use serde_json::{Value, json};

use super::policies::{column, parquet};
use crate::support::job::{Export, export};
use crate::support::pg::{Pg, both, pg};
use crate::support::run::outhaul;

/// Types of one `char(4)` and one `float8` in every kind of nesting, and one row of each.
const NESTED: &str = r#"
    create type c as (f float8, c char(4));
    create type deep as (n int, cs c[], t text);
    create domain floats as float8[];
    create domain padded as char(4)[];
    create domain cd as c;
    create table t (id int primary key, fa float8[], na numeric[], ra real[], c c, ca c[], cha char(4)[], d deep, df floats, dp padded,
        dc cd, dca cd[], two float8[], dfa floats[]);
    insert into t values (1, '{NaN,Infinity,1.5}', '{NaN,-Infinity,1.50}', '{NaN,1}', row('NaN', 'a'), array[row('-Infinity', 'a')::c, null],
        '{a,abcd,NULL}', row(1, array[row('NaN', 'b')::c], 'NaN '), '{NaN}', '{a}', row('Infinity', 'x y'), array[row(1, 'z')::cd],
        '[0:1][1:2]={{NaN,1},{2,Infinity}}', '{"{NaN,2}","{3}"}');
    insert into t (id) values (2)"#;

fn object(done: &Export) -> Value {
    let data = String::from_utf8(done.data()).unwrap();
    serde_json::from_str(data.lines().next().unwrap()).unwrap()
}

async fn run(pg: &Pg, format: &str, args: &[&str]) -> Export {
    let fixed = ["--table", "t", "--format", format, "--key", "id"];
    export(pg, &[&fixed[..], args].concat()).await
}

/// The policy and the count of each of these columns.
fn told(done: &Export, names: &[&str]) -> Vec<(String, u64)> {
    let manifest = done.manifest();
    let told = |name: &&str| {
        let column = column(&manifest, name);
        (column["policy"].as_str().unwrap().to_owned(), column["policy_count"].as_u64().unwrap())
    };
    names.iter().map(told).collect()
}

fn pairs(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(policy, count)| ((*policy).to_owned(), *count)).collect()
}

const NUMBERS: [&str; 11] = ["fa", "na", "ra", "c", "ca", "d", "df", "dc", "dca", "two", "dfa"];

#[tokio::test]
async fn nan_inside_a_nested_value_is_what_it_is_in_a_column_of_json() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(NESTED).await;
        let null = json!({"id": 1, "fa": [null, null, 1.5], "na": [null, null, 1.5], "ra": [null, 1], "c": {"f": null, "c": "a   "},
            "ca": [{"f": null, "c": "a   "}, null], "cha": ["a   ", "abcd", null],
            "d": {"n": 1, "cs": [{"f": null, "c": "b   "}], "t": "NaN "}, "df": [null], "dp": ["a   "], "dc": {"f": null, "c": "x y "},
            "dca": [{"f": 1, "c": "z   "}], "two": [[null, 1], [2, null]], "dfa": [[null, 2], [3]]});
        let done = run(&pg, "ndjson", &["--json-nan", "null"]).await.expect(0);
        assert_eq!(object(&done), null);
        let counts = [2, 2, 1, 1, 1, 1, 1, 1, 0, 2, 1];
        assert_eq!(told(&done, &NUMBERS), pairs(&counts.map(|count| ("null", count))));
        assert_eq!(told(&done, &["id", "cha", "dp"]), pairs(&[("lossless", 0); 3]));
        for name in NUMBERS {
            let choice = format!("{name}=error");
            for args in
                [&["--json-nan", "error", "--columns", name][..], &["--columns", name, "--column-policy", &choice]]
            {
                if name == "dca" {
                    run(&pg, "ndjson", args).await.expect(0);
                    continue;
                }
                let refused = run(&pg, "ndjson", args).await.expect(14).run.stderr;
                for words in [&format!("{name:?}"), "id = 1", "--json-nan", &format!("--column-policy {name}=null")] {
                    assert!(refused.contains(words), "{words} not in: {refused}");
                }
            }
            let null = format!("{name}=null");
            run(&pg, "ndjson", &["--columns", name, "--column-policy", &null]).await.expect(0);
        }
        // By other ways: a view, a query, one page at a time, a cap.
        pg.batch("create view v as select id, c, fa from t").await;
        let expected = json!({"id": 1, "c": {"f": null, "c": "a   "}, "fa": [null, null, 1.5]});
        for source in [
            &["--table", "v"][..],
            &["--query", "select id, c, fa from t order by id"],
            &["--table", "t", "--columns", "id,c,fa", "--read-mode", "keyset", "--page-size", "1"],
            &["--table", "t", "--columns", "id,c,fa", "--max-rows", "1", "--allow-truncated"],
        ] {
            let args = [source, &["--format", "ndjson", "--json-nan", "null"]].concat();
            let done = export(&pg, &args).await.expect(0);
            assert_eq!(object(&done), expected, "{source:?}");
            assert_eq!(told(&done, &["c", "fa"]), pairs(&[("null", 1), ("null", 2)]));
        }
    }
}

#[tokio::test]
async fn blanks_inside_nested_values_are_kept_or_trimmed_in_every_format() {
    let names = ["c", "ca", "cha", "d", "dp", "dc", "dca"];
    let counts = [1, 1, 1, 1, 1, 1, 1];
    let columns = names.join(",");
    for version in both() {
        let pg = pg(version).await;
        pg.batch(NESTED).await;
        let keep = ["--columns", &columns];
        let trim = ["--columns", &columns, "--char-padding", "trim"];
        let done = run(&pg, "ndjson", &trim).await.expect(0);
        let nested = json!({"c": {"f": "NaN", "c": "a"}, "ca": [{"f": "-Infinity", "c": "a"}, null], "cha": ["a", "abcd", null],
            "d": {"n": 1, "cs": [{"f": "NaN", "c": "b"}], "t": "NaN "}, "dp": ["a"], "dc": {"f": "Infinity", "c": "x y"},
            "dca": [{"f": 1, "c": "z"}]});
        assert_eq!(object(&done), nested);
        assert_eq!(told(&done, &names), pairs(&counts.map(|count| ("trim", count))));
        // PostgreSQL's own text of the same values with the blanks cut off.
        let done = run(&pg, "csv", &[&trim[..], &["--csv-header", "off"]].concat()).await.expect(0);
        let own = "\"(NaN,a)\",\"{\"\"(-Infinity,a)\"\",NULL}\",\"{a,abcd,NULL}\",\"(1,\"\"{\"\"\"\"(NaN,b)\"\"\"\"}\"\",\"\"NaN \"\")\",\
            {a},\"(Infinity,\"\"x y\"\")\",\"{\"\"(1,z)\"\"}\"\n,,,,,,\n";
        assert_eq!(String::from_utf8(done.data()).unwrap(), own);
        assert_eq!(told(&done, &names), pairs(&counts.map(|count| ("trim", count))));
        let done =
            run(&pg, "csv", &[&trim[..], &["--csv-nested", "json", "--csv-header", "off"]].concat()).await.expect(0);
        assert!(String::from_utf8(done.data()).unwrap().contains("\"{\"\"f\"\":\"\"NaN\"\",\"\"c\"\":\"\"a\"\"}\""));
        for (args, blanks) in [(&keep[..], "   "), (&trim, "")] {
            let done = run(&pg, "parquet", args).await.expect(0);
            let read = parquet(&done).await;
            assert_eq!(read["cha"][1][0], json!(format!("['a{blanks}', 'abcd', None]")));
            assert_eq!(read["c"][1][0], json!(format!("{{'f': nan, 'c': 'a{blanks}'}}")));
            assert_eq!(read["ca"][1][0], json!(format!("[{{'f': -inf, 'c': 'a{blanks}'}}, None]")));
            let done =
                run(&pg, "parquet", &[args, &["--column-policy", "cha=text", "--column-policy", "c=json"]].concat())
                    .await;
            let read = parquet(&done.expect(0)).await;
            let element = if blanks.is_empty() { "a" } else { "\"a   \"" };
            assert_eq!(read["cha"][1][0], json!(format!("{{{element},abcd,NULL}}")));
            assert_eq!(read["c"][1][0], json!(format!("{{\"f\":\"NaN\",\"c\":\"a{blanks}\"}}")));
        }
        let done = run(&pg, "parquet", &trim).await.expect(0);
        assert_eq!(told(&done, &["c", "cha"]), pairs(&[("trim", 1), ("error, trim", 1)]));
        for name in names {
            for format in ["parquet", "csv", "ndjson"] {
                let choice = format!("{name}=trim");
                let done = run(&pg, format, &["--columns", name, "--column-policy", &choice]).await.expect(0);
                assert_eq!(told(&done, &[name])[0].1, 1, "{name} {format}");
                let done = run(&pg, format, &["--columns", name]).await.expect(0);
                let note = column(&done.manifest(), name)["note"].clone();
                assert!(note.as_str().unwrap().contains("padded with blanks"), "{name} {format}: {note}");
            }
        }
    }
}

/// What is PostgreSQL's own text inside the value is told, and no choice for the column is taken that would do nothing.
#[tokio::test]
async fn a_choice_that_cannot_reach_a_part_is_told_or_refused() {
    let pg = pg(18).await;
    pg.batch(
        "create type words as range (subtype = bpchar);
         create table t (id int primary key, r numrange, m nummultirange, w words, p numrange[]);
         insert into t values (1, '[1,NaN]', '{[1,2]}', '[\"a \",b]', '{\"[1,2]\"}')",
    )
    .await;
    let plan = async |args: &[&str]| {
        let fixed = ["plan", "--from", &pg.url, "--report", "json", "--to", "out"];
        let run = outhaul(fixed.iter().chain(args)).run().await.expect(0);
        run.report["columns"].clone()
    };
    let note = |columns: &Value, name: &str| {
        let found = columns.as_array().unwrap().iter().find(|column| column["name"] == name).unwrap();
        found["note"].as_str().unwrap_or_default().to_owned()
    };
    let columns = plan(&["--table", "t", "--format", "ndjson", "--json-nan", "null", "--char-padding", "trim"]).await;
    for name in ["r", "m", "p"] {
        assert!(note(&columns, name).contains("--json-nan does not reach"), "{name}: {}", note(&columns, name));
        let choice = format!("{name}=null");
        let refused = run(&pg, "ndjson", &["--column-policy", &choice]).await.expect(2);
        assert!(refused.run.stderr.contains("has no such choice"), "{}", refused.run.stderr);
    }
    assert!(note(&columns, "w").contains("--char-padding does not reach"));
    for format in ["csv", "ndjson"] {
        run(&pg, format, &["--column-policy", "w=trim"]).await.expect(2);
    }
    let done = run(&pg, "parquet", &["--columns", "w", "--column-policy", "w=trim"]).await.expect(0);
    assert!(parquet(&done).await["w"][1][0].as_str().unwrap().contains("'lower': 'a'"));
    assert_eq!(told(&done, &["w"]), pairs(&[("trim", 1)]));
    let query = "select 1 as id, row('NaN'::float8, 'a'::char(3)) as r";
    let columns = plan(&["--query", query, "--format", "ndjson", "--json-nan", "null", "--char-padding", "trim"]).await;
    assert!(note(&columns, "r").contains("--char-padding and --json-nan do not reach"), "{}", note(&columns, "r"));
    let columns = plan(&["--query", query, "--format", "csv", "--char-padding", "trim"]).await;
    assert!(note(&columns, "r").contains("--char-padding does not reach"));
    let refused = export(&pg, &["--query", query, "--format", "ndjson", "--column-policy", "r=null"]).await;
    refused.expect(2);
}

#[tokio::test]
async fn numbers_and_moments_inside_nested_values_follow_the_choices_for_parquet() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create type m as (n numeric, at timestamptz);
             create table t (id int primary key, n numeric[], m m, ts timestamp[], r numrange);
             insert into t values (1, '{1.5,9007199254740993}', row(0.1, '2024-01-01 00:00:00.1236+00'), '{2024-01-01 00:00:00.0005}', '[0.5,9007199254740993]'),
                (2, null, null, null, null)",
        )
        .await;
        let done =
            run(&pg, "parquet", &["--unconstrained-numeric", "double", "--timestamp-precision", "ms"]).await.expect(0);
        let read = parquet(&done).await;
        assert_eq!(read["n"][1][0], "[1.5, 9007199254740992.0]");
        assert_eq!(read["ts"][1][0], "[datetime.datetime(2024, 1, 1, 0, 0, 0, 1000)]");
        assert_eq!(
            told(&done, &["n", "m", "ts", "r"]),
            pairs(&[("error, double", 1), ("error, round, double", 1), ("error, round", 1), ("double", 1)])
        );
        for (choice, policy) in [
            ("n=double", "error, double"),
            ("m=double", "error, double"),
            ("ts=round", "error, round"),
            ("m=round", "error, round"),
        ] {
            let name = choice.split_once('=').unwrap().0;
            let done = run(&pg, "parquet", &["--column-policy", choice]).await.expect(0);
            assert_eq!(told(&done, &[name])[0].0, policy, "{choice}");
        }
        let done = run(&pg, "parquet", &["--column-policy", "n=decimal(20,2)"]).await.expect(0);
        assert_eq!(parquet(&done).await["n"][1][0], "[Decimal('1.50'), Decimal('9007199254740993.00')]");
        for args in [&["--timestamp-precision", "ms-exact"][..], &["--column-policy", "n=decimal(9,2)"]] {
            let refused = run(&pg, "parquet", args).await.expect(14).run.stderr;
            assert!(refused.contains("id = 1") && refused.contains("--on-unrepresentable"), "{refused}");
        }
        let args = ["--column-policy", "n=decimal(9,2)", "--column-policy", "n=null"];
        let done = run(&pg, "parquet", &args).await.expect(0);
        assert_eq!(parquet(&done).await["n"][1][0], "[Decimal('1.50'), None]");
        assert_eq!(told(&done, &["n"]), pairs(&[("null", 1)]));
        for choice in ["n=round", "ts=double"] {
            run(&pg, "parquet", &["--column-policy", choice]).await.expect(2);
        }
    }
}

#[tokio::test]
async fn text_of_a_sql_ascii_database_inside_nested_values_is_checked_replaced_or_bytes() {
    for version in both() {
        let pg = Pg::encoded(version, "SQL_ASCII").await;
        pg.batch(
            r"create type p as (n int, t text, c char(3));
             create table t (id int primary key, a text[], p p, ps p[]);
             insert into t values (1, array[E'caf\xe9', 'x'], row(1, E'caf\xe9', 'a'), array[row(2, 'b', E'\xe9')::p])",
        )
        .await;
        let names = ["a", "p", "ps"];
        for format in ["parquet", "csv", "ndjson"] {
            for name in names {
                let refused = run(&pg, format, &["--columns", name]).await.expect(14).run.stderr;
                for words in [&format!("{name:?}"), "row with id = 1: ", "UTF-8", "--invalid-utf8"] {
                    assert!(refused.contains(words), "{words} not in: {refused}");
                }
                for choice in ["replace", "bytes"] {
                    let by_column = format!("{name}={choice}");
                    for args in [["--invalid-utf8", choice], ["--column-policy", &by_column]] {
                        let done = run(&pg, format, &[&["--columns", name][..], &args].concat()).await.expect(0);
                        let (policy, count) = told(&done, &[name]).remove(0);
                        assert!(policy.contains(choice) && count == 1, "{format} {name} {args:?}: {policy} {count}");
                    }
                }
            }
        }
        let done = run(&pg, "ndjson", &["--invalid-utf8", "replace", "--columns", "a,p,ps"]).await.expect(0);
        let replaced = json!({"a": ["caf\u{fffd}", "x"], "p": {"n": 1, "t": "caf\u{fffd}", "c": "a  "}, "ps": [{"n": 2, "t": "b", "c": "\u{fffd}  "}]});
        assert_eq!(object(&done), replaced);
        let bytes = ["--invalid-utf8", "bytes", "--columns", "a,p,ps", "--char-padding", "trim"];
        let done = run(&pg, "ndjson", &bytes).await.expect(0);
        let hex = json!({"a": ["\\x636166e9", "\\x78"], "p": {"n": 1, "t": "\\x636166e9", "c": "\\x61"}, "ps": [{"n": 2, "t": "\\x62", "c": "\\xe9"}]});
        assert_eq!(object(&done), hex);
        let done = run(&pg, "csv", &[&bytes[..], &["--csv-header", "off"]].concat()).await.expect(0);
        let own = pg.value(
            r"select concat_ws(',', array['\x636166e9', '\x78'], row(1, '\x636166e9', '\x61'), array[row(2, '\x62', '\xe9')])",
        );
        let data = String::from_utf8(done.data()).unwrap();
        assert_eq!(data.trim_end().replace("\"\"", "'").replace('"', "").replace('\'', "\""), own.await);
        let done = run(&pg, "parquet", &bytes).await.expect(0);
        assert_eq!(parquet(&done).await["a"][1][0], "[b'caf\\xe9', b'x']");
    }
}

/// Athena and Redshift do not tell `A` from `a`, in members no more than in columns.
#[tokio::test]
async fn members_of_one_name_are_refused_or_numbered_as_columns_are() {
    let pg = pg(15).await;
    pg.batch(
        "create type pair as (a int, \"A\" int); create type holder as (id int, pairs pair[]);
         create table t (id int primary key, p pair, ps pair[], h holder);
         insert into t values (1, row(1, 2), array[row(3, 4)::pair], row(5, array[row(6, 7)::pair]))",
    )
    .await;
    for preset in ["athena", "spectrum"] {
        for name in ["p", "ps", "h"] {
            let args = ["--preset", preset, "--columns", &format!("id,{name}")];
            let refused = run(&pg, "parquet", &args).await.expect(2).run.stderr;
            assert!(refused.contains(&format!("{name:?}")) && refused.contains("\"A\""), "{refused}");
            // The ways that the message names.
            assert!(refused.contains(&format!("--column-policy {name}=json")), "{refused}");
            run(&pg, "parquet", &[&args[..], &["--column-policy", &format!("{name}=json")]].concat()).await.expect(0);
            let numbered =
                run(&pg, "parquet", &[&args[..], &["--duplicate-columns", "suffix"]].concat()).await.expect(0);
            let read = parquet(&numbered).await;
            assert!(read[name][1][0].as_str().unwrap().contains("'A_2': "), "{read}");
            let refused = run(&pg, "ndjson", &args).await.expect(2).run.stderr;
            assert!(refused.contains(&format!("--column 'NAME=\"{name}\"::text'")), "{refused}");
            let expression = format!("n=\"{name}\"::text");
            let args = ["--preset", preset, "--columns", "id", "--column", &expression];
            run(&pg, "ndjson", &args).await.expect(0);
        }
        let refused = run(&pg, "ndjson", &["--preset", preset, "--columns", "p", "--rename", "p=q"]).await.expect(2);
        assert!(refused.run.stderr.contains("column \"q\"") && refused.run.stderr.contains("'NAME=\"p\"::text'"));
    }
    // Others tell them apart, and so does their DDL or it refuses.
    let done = run(&pg, "parquet", &[]).await.expect(0);
    assert!(parquet(&done).await["p"][1][0].as_str().unwrap().contains("'A': 2"));
    let refused = outhaul(["ddl", done.dest().to_str().unwrap(), "--dialect", "duckdb"]).run().await.expect(2);
    assert!(refused.stderr.contains("member \"A\""), "{}", refused.stderr);
}

#[tokio::test]
async fn what_pandas_cannot_read_of_uuids_is_told_with_a_way_that_it_can() {
    const READ: &str = "
import glob, sys, pandas
print(pandas.read_parquet(sorted(glob.glob(sys.argv[1] + '/data/*.parquet'))[0]).iloc[0].tolist())
";
    let pg = pg(18).await;
    pg.batch("create table t (id int primary key, u uuid, us uuid[]); insert into t values (1, gen_random_uuid(), array[gen_random_uuid()])").await;
    let reads = async |done: &Export| {
        let mut python = tokio::process::Command::new(crate::support::variable("OUTHAUL_TEST_PYTHON"));
        python.args(["-c", READ]).arg(done.dest()).kill_on_drop(true).output().await.unwrap().status.success()
    };
    let done = run(&pg, "parquet", &[]).await.expect(0);
    assert!(!reads(&done).await, "the note can go");
    let manifest = done.manifest();
    assert!(column(&manifest, "us")["note"].as_str().unwrap().contains("pandas cannot read"));
    assert_eq!(column(&manifest, "u")["note"], Value::Null);
    for choice in ["us=text", "us=json"] {
        let done = run(&pg, "parquet", &["--column-policy", choice]).await.expect(0);
        assert!(reads(&done).await, "{choice}");
    }
}
