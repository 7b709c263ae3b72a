//! Wide rows, huge values, hostile names, and tables of every kind.

use std::time::Duration;

use crate::support::job::{command, copy, export, export_csv, sorted};
use crate::support::oracle;
use crate::support::pg::{both, pg};

const FORMATS: [&str; 3] = ["parquet", "csv", "ndjson"];

#[tokio::test]
async fn tables_of_1600_columns_keep_every_one() {
    for version in both() {
        let pg = pg(version).await;
        let columns = |each: &str| (0..1600).map(|n| each.replace('#', &n.to_string())).collect::<Vec<_>>().join(", ");
        let (define, fill) = (columns("c# int2"), columns("(i + #) % 100"));
        pg.batch(&format!(
            "create table wide ({define}); insert into wide select {fill} from generate_series(1, 40) i"
        ))
        .await;
        for format in FORMATS {
            let done = export(&pg, &["--table", "wide", "--format", format, "--partitions", "3"]).await.expect(0);
            let manifest = done.manifest();
            assert_eq!(manifest["schema"].as_array().unwrap().len(), 1600);
            assert_eq!(manifest["totals"]["rows"], 40);
            if format == "csv" {
                let expected = sorted(&copy(&pg, "select * from wide").await);
                assert_eq!(done.sorted(), expected);
            }
        }
    }
}

/// A row of 300 MB: every format holds it, and the memory it takes is a few times its size.
#[tokio::test]
async fn one_row_of_hundreds_of_megabytes_is_exported() {
    let pg = pg(18).await;
    pg.batch(
        "create table large (id int primary key, v text);
         alter table large alter v set storage external;
         insert into large values (1, 'small'), (3, 'after');
         insert into large select 2, repeat('0123456789abcdef', 300 * 65536)",
    )
    .await;
    for format in FORMATS {
        let dest = tempfile::tempdir().unwrap();
        let to = dest.path().join("out");
        let args = ["--table", "large", "--format", format, "--readers", "1"];
        let run = command(&pg, to.to_str().unwrap(), &args).limit(Duration::from_mins(3)).run().await.expect(0);
        assert_eq!(run.report["rows"], 3, "{format}");
        let bytes = run.report["bytes"].as_u64().unwrap();
        assert!(format == "parquet" || bytes > 300 << 20, "{format}: {bytes}");
        assert!(run.memory_peak < 3 << 30, "{format}: {} bytes at the peak", run.memory_peak);
    }
}

/// COPY itself has room for 1 GB a row; whoever passes it is told so.
#[tokio::test]
async fn a_row_past_a_gigabyte_is_a_clear_error() {
    let pg = pg(15).await;
    pg.batch(
        "create table huge (id int primary key, a text, b text);
         alter table huge alter a set storage external, alter b set storage external;
         insert into huge (id, a) select 1, repeat('0123456789abcdef', 600 * 65536);
         update huge set b = repeat('0123456789abcdef', 600 * 65536)",
    )
    .await;
    let dest = tempfile::tempdir().unwrap();
    let to = dest.path().join("out");
    let run = command(&pg, to.to_str().unwrap(), &["--table", "huge", "--format", "csv"]);
    let run = run.limit(Duration::from_mins(3)).run().await.expect(14);
    assert!(run.stderr.contains("1 GB"), "{}", run.stderr);
    assert!(!to.join("_manifest.json").exists());
}

/// What people and attackers call things.
const NAMES: [&str; 11] = [
    "with \"quotes\" and 'quotes'",
    "a.b.c",
    "two  spaces ",
    "🦀 emoji \u{202e}rtl",
    "x; drop table victim; --",
    "$$; drop table victim; $$",
    "{}[](),\\n",
    "lines\nand\ttabs\r",
    "../../%00/%2e%2e/~",
    "select",
    "sixty_three_bytes_long_name_that_fills_the_identifier_entirely_",
];

#[tokio::test]
async fn hostile_names_are_names_and_nothing_else() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create table victim (id int); insert into victim values (1)").await;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        for name in NAMES {
            let schema = quoted(name);
            // A table has a type of its own name.
            let mood = quoted(&format!("E{}", name.chars().skip(1).collect::<String>()));
            let label = name.replace('\'', "''");
            pg.batch(&format!(
                "create schema {schema}; create type {schema}.{mood} as enum ('{label}', 'b');
                 create type {schema}.pair as ({schema} int, \"element\" {schema}.{mood});
                 create domain {schema}.dom as {schema}.{mood}[];
                 create table {schema}.{schema} ({schema} int primary key, e {schema}.{mood}, p {schema}.pair, d {schema}.dom);
                 insert into {schema}.{schema} select i, '{label}', row(i, 'b')::{schema}.pair, array['b', null]::{schema}.{mood}[]
                    from generate_series(1, 20) i"
            ))
            .await;
            let table = format!("{schema}.{schema}");
            for format in FORMATS {
                let key = format!("{schema} desc");
                let args = ["--table", &table, "--format", format, "--key", &key, "--partitions", "2"];
                let done = export(&pg, &args).await.expect(0);
                let manifest = done.manifest();
                assert_eq!(manifest["totals"]["rows"], 20, "{name}");
                assert_eq!(manifest["schema"][0]["name"], name);
                if format == "csv" {
                    let found = String::from_utf8(done.data()).unwrap();
                    let expected = copy(&pg, &format!("select * from {table} order by {schema} desc")).await;
                    assert_eq!(found, String::from_utf8(expected).unwrap(), "{name}");
                }
            }
        }
        assert_eq!(pg.value("select count(*) from victim").await, "1");
        let database = format!("test \"{}\" ; drop", pg.value("select current_database()").await);
        let quoted_database = quoted(&database);
        pg.batch(&format!("create database {quoted_database}")).await;
        let escaped = database.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
        let (server, _) = pg.url.rsplit_once('/').unwrap();
        let dest = tempfile::tempdir().unwrap();
        let to = dest.path().join("out");
        let args = ["export", "--from", &format!("{server}/{escaped}"), "--query", "select current_database() as d"];
        let rest = ["--to", to.to_str().unwrap(), "--format", "csv", "--report", "json"];
        let run = crate::support::run::outhaul(args.iter().chain(&rest)).run().await;
        pg.batch(&format!("drop database {quoted_database}")).await;
        assert_eq!(run.expect(0).report["rows"], 1);
    }
}

#[tokio::test]
async fn what_breaks_out_of_its_parentheses_is_refused() {
    let pg = pg(18).await;
    pg.batch("create table t (id int); insert into t values (1), (2); create table victim (id int)").await;
    for predicate in [
        "true) or (true",
        "true); drop table victim; --",
        "true /* open",
        "'open",
        "$a$ open",
        "true) union select 1 from (select 1",
        "id in (1, 2",
        "\"open",
    ] {
        export(&pg, &["--table", "t", "--where", predicate]).await.expect(2);
    }
    for query in [
        "select 1) to stdout; drop table victim; --",
        "select 1; drop table victim",
        "drop table victim",
        "with x as (delete from victim returning 1) select * from x",
        "select 1 /*",
    ] {
        let refused = export(&pg, &["--query", query]).await;
        assert!([2, 15].contains(&refused.run.code), "{query}: {}", refused.run.stderr);
        assert!(!refused.dest().join("_manifest.json").exists());
    }
    // A comment at the end takes nothing of ours with it.
    let done = export_csv(&pg, &["--table", "t", "--where", "id = 1 -- only one"], 0).await;
    assert_eq!(done.sorted(), ["1"]);
    assert_eq!(pg.value("select count(*) from pg_class where relname = 'victim'").await, "1");
}

#[tokio::test]
async fn generated_identity_dropped_unlogged_and_virtual_columns_are_read_as_select_reads_them() {
    for version in both() {
        let pg = pg(version).await;
        let (kind, expression) = if version >= 18 { ("virtual", "a * 3") } else { ("stored", "a * 3") };
        pg.batch(&format!(
            "create unlogged table t (id bigint generated always as identity, gone text, a int,
                doubled int generated always as (a * 2) stored, other int generated always as ({expression}) {kind}, late int default 7);
             insert into t (gone, a) select 'x', i from generate_series(1, 500) i;
             alter table t drop column gone; alter table t add column added text default 'd'"
        ))
        .await;
        for format in FORMATS {
            let done = export(&pg, &["--table", "t", "--format", format, "--partitions", "3"]).await.expect(0);
            let expected = oracle::query(&pg, "select * from t").await;
            assert_eq!(oracle::local(&done.dest(), &[]).await, expected, "{version} {format}");
        }
    }
}

#[tokio::test]
async fn a_temporary_table_is_refused_as_one() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create temp table fleeting (id int)").await;
        for name in ["fleeting", "pg_temp.fleeting"] {
            let refused = export(&pg, &["--table", name]).await.expect(2);
            assert!(refused.run.stderr.contains("temporary table"), "{}", refused.run.stderr);
        }
        let schema = pg.value("select nspname from pg_namespace where oid = pg_my_temp_schema()").await;
        let refused = export(&pg, &["--table", &format!("{schema}.fleeting")]).await.expect(2);
        assert!(refused.run.stderr.contains("temporary table"), "{}", refused.run.stderr);
        export(&pg, &["--table", "never_was"]).await.expect(13);
    }
}

#[tokio::test]
async fn rows_that_row_security_leaves_are_exported_where_that_is_asked_for() {
    for version in both() {
        let pg = pg(version).await;
        let (url, role) = pg.role("").await;
        pg.batch(&format!(
            "create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 1000) i;
             grant select on t to {role}; alter table t enable row level security; create policy few on t using (id <= 10)"
        ))
        .await;
        let export_as = async |args: &[&str], code: i32| {
            let dest = tempfile::tempdir().unwrap();
            let to = dest.path().join("out");
            let fixed = ["export", "--from", &url, "--table", "t", "--to", to.to_str().unwrap(), "--report", "json"];
            let run = crate::support::run::outhaul(fixed.iter().chain(args)).run().await.expect(code);
            let manifest = (code == 0).then(|| crate::support::manifest(&to));
            (run, manifest)
        };
        let (refused, _) = export_as(&[], 10).await;
        assert!(refused.stderr.contains("--allow-rls"), "{}", refused.stderr);
        for readers in ["1", "4"] {
            let (_, manifest) = export_as(&["--allow-rls", "--readers", readers], 0).await;
            let manifest = manifest.unwrap();
            assert_eq!((&manifest["totals"]["rows"], &manifest["source"]["row_security"]), (&10.into(), &true.into()));
        }
        // Whom the policies do not concern gets everything, and the manifest says that nothing was hidden.
        let done = export(&pg, &["--table", "t", "--allow-rls"]).await.expect(0);
        let manifest = done.manifest();
        assert_eq!((&manifest["totals"]["rows"], &manifest["source"]["row_security"]), (&1000.into(), &false.into()));
    }
}
