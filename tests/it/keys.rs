//! Keys of types whose values are not what their text seems to say: bytes that are no UTF-8, names that several objects
//! have, rows of no type.

use serde_json::json;

use crate::support::job::{copy, export, export_csv};
use crate::support::pg::{Pg, both, pg};

/// Bytes of every kind in a text: no UTF-8 at all, half a character, a character, and quotes beside them.
const BYTES: &str = r"create table t (v text primary key, n int);
    insert into t select case i % 5
            when 0 then convert_from('\xe9', 'SQL_ASCII') || i
            when 1 then 'it''s \' || convert_from('\xc3', 'SQL_ASCII') || i
            when 2 then convert_from('\xc3a9', 'SQL_ASCII') || i
            when 3 then i || convert_from('\xf48fbe80ff', 'SQL_ASCII')
            else 'plain ' || i end, i from generate_series(1, 3000) i;
    create table c (v varchar(40) not null, w text[] not null, n int, primary key (v, w));
    insert into c select v, array[v], n from t;
    create domain d as text; create type pair as (a d, b int);
    create table p (k pair primary key, n int); insert into p select row(v, n)::pair, n from t;
    analyze t; analyze c; analyze p";

#[tokio::test]
async fn keys_of_a_sql_ascii_database_are_kept_byte_by_byte() {
    for version in both() {
        let pg = Pg::encoded(version, "SQL_ASCII").await;
        pg.batch(BYTES).await;
        for (table, key) in [("t", "v"), ("c", "v, w"), ("p", "k")] {
            let query = |limit: &str| format!("select n from {table} order by {key} {limit}");
            let expected = copy(&pg, &query("")).await;
            for args in [
                &["--key", key, "--partitions", "4"][..],
                &["--read-mode", "keyset", "--page-size", "100"],
                &["--read-mode", "keyset", "--page-size", "100", "--key", &format!("{key} desc")],
            ] {
                let with = |more: &[&'static str]| [&["--table", table], args, more].concat();
                let done = export_csv(&pg, &with(&["--columns", "n"]), 0).await;
                if args[0] == "--key" && table == "t" {
                    assert_eq!(done.partitions(), 4, "{version}");
                }
                if !args.iter().any(|arg| arg.ends_with(" desc")) {
                    assert_eq!(done.data(), expected, "{version} {table} {args:?}");
                }
                for choice in ["replace", "bytes"] {
                    let manifest = export_csv(&pg, &with(&["--invalid-utf8", choice]), 0).await.manifest();
                    assert_eq!(manifest["totals"]["rows"], 3000, "{version} {table} {args:?}");
                }
            }
            let capped = ["--table", table, "--columns", "n", "--max-rows", "2000", "--partitions", "2"];
            assert_eq!(export_csv(&pg, &capped, 3).await.data(), copy(&pg, &query("limit 2000")).await, "{version}");
        }
        let whole = ["--table", "t", "--invalid-utf8", "replace", "--manifest-stats", "all", "--max-rows", "2999"];
        let boundary = pg.value("select n from t order by v offset 2998 limit 1").await;
        let manifest = export_csv(&pg, &whole, 3).await.manifest();
        assert_eq!(manifest["row_cap"]["boundary"], json!([format!("\u{fffd}{boundary}")]), "{version}");
    }
}

#[tokio::test]
async fn a_key_without_a_form_in_utf_8_is_refused_with_a_way_out() {
    for version in both() {
        let pg = Pg::encoded(version, "WIN1252").await;
        pg.batch(
            r"create table t (v text primary key, n numeric);
            insert into t select convert_from('\x81', 'WIN1252') || i, i from generate_series(1, 2000) i; analyze t",
        )
        .await;
        let bytes = "b=convert_to(v, 'WIN1252')";
        let columns = ["--columns", "n", "--column", bytes];
        let table = [&["--table", "t"], &columns[..]].concat();
        for (args, words, way) in [
            (&["--key", "v", "--partitions", "2"][..], "another column with --key", &["--key", "n"][..]),
            (&["--key", "v", "--partitions", "2"], "or none", &[]),
            (&["--max-rows", "2000"], "cap a --query that selects from the table", &["--max-rows", "2000"]),
            (&["--read-mode", "keyset", "--page-size", "9"], "--read-mode copy", &["--read-mode", "copy"]),
            (&["--read-mode", "keyset", "--page-size", "9999"], "--read-mode copy", &["--read-mode", "copy"]),
        ] {
            for statistics in
                ["alter table t alter v set statistics 0; analyze t", "alter table t alter v set statistics 99"]
            {
                pg.batch(statistics).await;
                let run = export(&pg, &[&table[..], args].concat()).await.run;
                if run.code == 0 {
                    // Without statistics nothing bounds partitions.
                    assert_eq!(args[0], "--key");
                    continue;
                }
                let refused = run.expect(2);
                assert!(
                    refused.stderr.contains("a value of the key has no form in UTF-8"),
                    "{args:?}: {}",
                    refused.stderr
                );
                assert!(refused.stderr.contains(words), "{args:?}: {}", refused.stderr);
            }
            pg.batch("analyze t").await;
            let table = if way.contains(&"--max-rows") {
                vec!["--query", "select n, convert_to(v, 'WIN1252') as b from t"]
            } else {
                table.clone()
            };
            export(&pg, &[&table[..], way].concat()).await.expect(0);
        }
        // A row that fails is named by its key, but by nothing of it that is not shown.
        pg.batch("update t set n = 'NaN' where n = 7").await;
        let refused =
            export(&pg, &["--table", "t", "--columns", "n", "--json-nan", "error", "--format", "ndjson"]).await;
        let refused = refused.expect(14).run;
        assert!(refused.stderr.contains("row with v = (not shown"), "{version}: {}", refused.stderr);
    }
}

/// What names share, and what is renamed while it is read, are numbers.
const NAMED: [(&str, &str, &str); 11] = [
    ("regproc", "pg_proc", "oid"),
    ("regprocedure", "pg_proc", "oid"),
    ("regoper", "pg_operator", "oid"),
    ("regoperator", "pg_operator", "oid"),
    ("regclass", "pg_class", "oid"),
    ("regtype", "pg_type", "oid"),
    ("regrole", "pg_authid", "oid"),
    ("regnamespace", "pg_namespace", "oid"),
    ("regconfig", "pg_ts_config", "oid"),
    ("regdictionary", "pg_ts_dict", "oid"),
    ("regcollation", "pg_collation", "oid"),
];

#[tokio::test]
async fn keys_that_print_as_names_are_numbers() {
    for version in both() {
        let pg = pg(version).await;
        for (pg_type, catalog, oid) in NAMED {
            pg.batch(&format!(
                "create table t_{pg_type} (k {pg_type} primary key, n int);
                insert into t_{pg_type} select {oid}::{pg_type}, row_number() over () from {catalog} limit 300;
                insert into t_{pg_type} values (4294967295::oid::{pg_type}, 0), (0::oid::{pg_type}, -1)
                    on conflict do nothing;
                analyze t_{pg_type}"
            ))
            .await;
            let table = format!("t_{pg_type}");
            let order = format!("select n from {table} order by k");
            let expected = copy(&pg, &order).await;
            let table = ["--table", table.as_str(), "--columns", "n"];
            for args in [&["--key", "k", "--partitions", "3"][..], &["--read-mode", "keyset", "--page-size", "7"]] {
                let done = export_csv(&pg, &[&table[..], args].concat(), 0).await;
                assert!(done.data() == expected, "{version} {pg_type} {args:?}");
            }
            let half = pg.value(&format!("select count(*) / 2 from t_{pg_type}")).await;
            let capped = export_csv(&pg, &[&table[..], &["--max-rows", &half, "--partitions", "2"]].concat(), 3).await;
            assert!(capped.data() == copy(&pg, &format!("{order} limit {half}")).await, "{version} {pg_type}");
        }
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_from_its_text_is_refused_with_a_way_out() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create type named as (f regproc, n int);
            create table t (id int primary key, a regproc[] unique not null, c named not null);
            insert into t select i, array[p.oid::regproc], row(p.oid::regproc, i)::named
                from (select row_number() over () as i, oid from pg_proc limit 300) p",
        )
        .await;
        for (key, what) in [("a", "regproc[]"), ("c", "named")] {
            for args in [&["--partitions", "2"][..], &["--read-mode", "keyset"], &["--max-rows", "9"]] {
                refused(&pg, &[&["--table", "t", "--key", key], args].concat(), key, what).await;
            }
        }
        for (query, what) in [
            ("select row(id, id) as k, id as n from t", "record"),
            ("select array[row(id, id)] as k, id as n from t", "record[]"),
            ("select a as k, id as n from t", "regproc[]"),
        ] {
            refused(&pg, &["--query", query, "--key", "k"], "k", what).await;
            refused(&pg, &["--query", query, "--key", "k", "--max-rows", "9"], "k", what).await;
        }
        // The two ways that the hint names.
        export_csv(&pg, &["--query", "select row(id, id) as k, id as n from t", "--key", "n"], 0).await;
        export_csv(&pg, &["--query", "select (c).f::oid as f, (c).n as n, id from t", "--key", "f, n"], 0).await;
        // Nobody asked for it as a key.
        pg.batch("alter table t drop constraint t_pkey").await;
        export_csv(&pg, &["--table", "t", "--max-rows", "9"], 3).await;
    }
}

async fn refused(pg: &Pg, args: &[&str], key: &str, pg_type: &str) {
    let refused = export(pg, args).await.expect(2).run;
    for words in [&format!("--key: column {key:?} is of type {pg_type}"), "name another column"] {
        assert!(refused.stderr.contains(words), "{args:?}: {}", refused.stderr);
    }
}
