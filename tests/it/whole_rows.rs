//! Whole rows in expressions and predicates: always rows of the table that was named, however its leaves are built.

use serde_json::{Value, json};

use crate::support::job::{command, copy, export, export_csv, sorted};
use crate::support::pg::{Pg, both, pg};
use crate::support::{variable, within};

/// Leaves with another order of columns and with dropped ones, children with more columns, and names that mean one thing
/// on the parent and another on a leaf.
const TABLES: &str = r#"
create schema wr;
create table wr.t (a int, b int, k int) partition by list (k);
create table wr.t1 (k int, b int, a int);
alter table wr.t attach partition wr.t1 for values in (1);
create table wr.t2 partition of wr.t for values in (2);
insert into wr.t values (10, 20, 1), (30, 40, 2);
create table wr.keyed (k int, id int primary key, v text) partition by range (id);
create table wr.keyed_low (v text, gone int, id int not null, k int);
alter table wr.keyed_low drop column gone;
alter table wr.keyed attach partition wr.keyed_low for values from (0) to (5000);
create table wr.keyed_high partition of wr.keyed for values from (5000) to (10000) partition by range (id);
create table wr.keyed_higher (id int not null, v text, k int);
alter table wr.keyed_high attach partition wr.keyed_higher default;
insert into wr.keyed select i % 7, i, repeat(md5(i::text), 3) from generate_series(1, 9000) i;
create table wr.lone (a int, b text) partition by list (a);
create table wr.lone_leaf (b text, a int);
alter table wr.lone attach partition wr.lone_leaf default;
insert into wr.lone select i, 'row ' || i from generate_series(1, 2000) i;
create table wr.staff (id int, name text);
create table wr.boss (salary numeric, staff text default 'a column', mood text default 'of the child') inherits (wr.staff);
insert into wr.staff values (1, 'a'); insert into wr.boss values (2, 'b', 999999);
create table wr.other (salary numeric);
insert into wr.other values (1), (2);
create table wr.mood (m text);
insert into wr.mood values ('happy');
create table wr."T ""x" (a int, b int) partition by list (a);
create table wr.quoted_leaf (b int, a int);
alter table wr."T ""x" attach partition wr.quoted_leaf default;
insert into wr."T ""x" values (1, 2), (3, 4);
create function wr.f(wr.t) returns int language sql immutable as 'select $1.a';
create function wr.pay(wr.staff) returns text language sql immutable as $$select 'staff'$$;
create function wr.pay(wr.boss) returns text language sql immutable as $$select 'boss'$$;
create function salary(wr.staff) returns int language sql immutable as 'select -1';
analyze;
"#;

/// A table, `--column` expressions, and a predicate.
const SHAPES: &[(&str, &str, &str)] = &[
    ("wr.t", "t", ""),
    ("wr.t", "md5(t::text)", ""),
    ("wr.t", "row_to_json(t.*)", "k > 0"),
    ("wr.t", "a", "t::text = '(10,20,1)'"),
    ("wr.t", "array[t]", ""),
    ("wr.t", "wr.f(t)", ""),
    ("wr.t", "t = row(10, 20, 1)", ""),
    ("wr.t", "(select t)", ""),
    ("wr.t", "(select max(x.value) from jsonb_each_text(to_jsonb(t)) x where x.key = 'a')", ""),
    ("wr.t", "t.a * t.b", "a * b > 0 and 't.*' <> ''"),
    ("wr.t", "t.tableoid::regclass", "ctid is not null and xmin is not null"),
    ("wr.t", "b", "exists (select from wr.staff s where s.id * 10 = t.a) or t is null"),
    ("wr.keyed", "md5(keyed::text)", ""),
    ("wr.keyed", "id", "keyed::text like '(1,%'"),
    ("wr.keyed", "to_jsonb(keyed) - 'v'", "id % 3 = 0"),
    ("wr.lone", "lone::text", ""),
    ("wr.lone", "a", "lone::text < '(5'"),
    ("wr.staff", "to_jsonb(staff)", ""),
    ("wr.staff", "staff", ""),
    ("wr.staff", "name", "staff = row(2, 'b'::text)"),
    ("wr.staff", "wr.pay(staff)", ""),
    ("wr.staff", "staff.salary", ""),
    ("wr.staff", "(select sum(salary) from wr.other)", ""),
    ("wr.staff", "(select max(mood::text) from wr.mood)", ""),
    (r#"wr."T ""x""#, r#""T ""x"::text"#, r#""T ""x" is not null"#),
];

/// The name by which a predicate knows the table.
fn alias(table: &str) -> &str {
    table.split_once('.').unwrap().1
}

async fn made(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(TABLES).await;
    pg
}

#[tokio::test]
async fn a_whole_row_is_one_of_the_table_that_was_named() {
    for version in both() {
        let pg = made(version).await;
        for (table, expression, predicate) in SHAPES {
            let filter = if predicate.is_empty() { String::new() } else { format!(" where ({predicate})") };
            let select = format!("select *, ({expression}) from {table} as {}{filter}", alias(table));
            let expected = sorted(&copy(&pg, &select).await);
            let column = format!("x={expression}");
            let mut args = vec!["--table", table, "--column", &column];
            if !predicate.is_empty() {
                args.extend(["--where", predicate]);
            }
            for more in [&[][..], &["--partitions", "3"], &["--readers", "1", "--partitions", "2"]] {
                let done = export_csv(&pg, &[&args[..], more].concat(), 0).await;
                assert_eq!(done.sorted(), expected, "PostgreSQL {version}: {args:?} {more:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_whole_row_can_be_split_by_key_and_capped() {
    for version in both() {
        let pg = made(version).await;
        let row = ["--table", "wr.keyed", "--column", "x=keyed::text", "--where", "keyed::text like '(%'"];
        let select = "select *, keyed::text from wr.keyed";
        let split = export_csv(&pg, &[&row[..], &["--key", "id", "--partitions", "4"]].concat(), 0).await;
        assert_eq!(split.sorted(), sorted(&copy(&pg, select).await));
        assert!(split.partitions() > 1, "through the parent a key still splits");
        let by_itself = export_csv(&pg, &[&row[..], &["--partitions", "4"]].concat(), 0).await;
        assert!(by_itself.partitions() > 1, "and so does the primary key, unasked");
        let capped = export_csv(&pg, &[&row[..], &["--max-rows", "5500", "--partitions", "3"]].concat(), 3).await;
        assert!(capped.data() == copy(&pg, &format!("{select} order by id limit 5500")).await);
        let pages = ["--read-mode", "keyset", "--page-size", "700"];
        let pages = export_csv(&pg, &[&row[..], &pages].concat(), 0).await;
        assert_eq!(pages.sorted(), split.sorted());

        for (cap, code) in [("1", 3), ("2", 0), ("3", 0)] {
            let row = ["--table", "wr.t", "--column", "x=t::text", "--partitions", "2", "--max-rows", cap];
            let capped = export_csv(&pg, &row, code).await;
            let rows = sorted(&copy(&pg, "select *, t::text from wr.t").await);
            let found = capped.sorted();
            assert_eq!(found.len(), cap.parse::<usize>().unwrap().min(2));
            assert!(found.iter().all(|row| rows.contains(row)), "{found:?}");
        }
    }
}

#[tokio::test]
async fn a_whole_row_in_one_partition_is_noted() {
    let pg = made(18).await;
    for (column, noted) in [("x=t::text", true), ("x=t.a + b", false)] {
        let args = ["--table", "wr.t", "--column", column, "--partitions", "2"];
        let done = export_csv(&pg, &args, 0).await;
        let note = done.manifest()["consistency"]["note"].clone();
        assert_eq!(note.as_str().is_some_and(|note| note.contains("whole row")), noted, "{note}");
        assert_eq!(done.partitions(), if noted { 1 } else { 2 });
        let plan = |report: &'static str| {
            let all = [&["plan", "--from", &pg.url, "--report", report, "--format", "csv"][..], &args].concat();
            crate::support::run::outhaul(all).run()
        };
        let text = plan("text").await.expect(0);
        assert_eq!(String::from_utf8_lossy(&text.stdout).contains("whole row"), noted);
        let json = plan("json").await.expect(0);
        assert_eq!(json.report["read"]["note"].as_str().is_some_and(|note| note.contains("whole row")), noted);
    }
}

#[tokio::test]
async fn a_whole_row_in_parquet_has_the_fields_of_the_table_that_was_named() {
    for version in both() {
        let pg = made(version).await;
        let first = json!({"a": 10, "b": 20, "k": 1});
        let second = json!({"a": 30, "b": 40, "k": 2});
        assert_eq!(parquet(&pg, "wr.t", "x=t").await, [first.clone(), second.clone()]);
        assert_eq!(parquet(&pg, "wr.t", "x=array[t]").await, [json!([first]), json!([second])]);
        let staff = [json!({"id": 1, "name": "a"}), json!({"id": 2, "name": "b"})];
        assert_eq!(parquet(&pg, "wr.staff", "x=staff").await, staff);
    }
}

/// The values of the column `x`, in order.
async fn parquet(pg: &Pg, table: &str, column: &str) -> Vec<Value> {
    let done = export(pg, &["--table", table, "--column", column, "--partitions", "2"]).await.expect(0);
    let script = "import glob, json, sys, pyarrow.parquet as p\n\
        rows = [row['x'] for f in glob.glob(sys.argv[1] + '/data/*') for row in p.read_table(f).to_pylist()]\n\
        print(json.dumps(sorted(rows, key=str)))";
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.args(["-c", script]).arg(done.dest()).kill_on_drop(true);
    let output = within(std::time::Duration::from_mins(1), "pyarrow", python.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Without the mechanism a leaf's own row goes out: another order, and a column that nobody asked for.
#[tokio::test]
async fn a_whole_row_of_a_leaf_is_seen_by_the_tests_above() {
    let pg = made(18).await;
    let folder = tempfile::tempdir().unwrap();
    for (name, table, column, wrong) in
        [("t", "wr.t", "x=t::text", "\"(1,20,10)\""), ("staff", "wr.staff", "x=to_jsonb(staff)::text", "a column")]
    {
        let to = folder.path().join(name);
        let args = ["--table", table, "--column", column, "--format", "csv", "--partitions", "2"];
        command(&pg, to.to_str().unwrap(), &args).env("OUTHAUL_TEST_OFF", "whole-rows").run().await.expect(0);
        let data = String::from_utf8(crate::support::job::data(&to)).unwrap();
        assert!(data.contains(wrong), "{data}");
    }
}
