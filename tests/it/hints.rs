//! What a message tells a person to do is done, and works: the messages about names, keys and columns, which people meet
//! first. `codes` has those about values and servers.

use crate::support::job::{command, export};
use crate::support::pg::{Pg, both, pg};

const TABLES: &str = r#"create table "Orders" (id int primary key, v text); insert into "Orders" values (1, 'a'), (2, 'b');
    create schema "Of 2026"; create table "Of 2026"."Order Items" (id int); insert into "Of 2026"."Order Items" values (1);
    create table t (id int primary key, created_at timestamptz default now(), v text); insert into t values (1), (2);
    create table keyless (id int not null, v text); insert into keyless values (1), (2)"#;

/// The words of the message, which has to be there.
async fn refused(pg: &Pg, args: &[&str], code: i32, words: &str) -> String {
    let run = export(pg, args).await.expect(code).run;
    assert!(run.stderr.contains(words), "{args:?}: {}", run.stderr);
    assert_eq!(run.report["retryable"], false, "{args:?}");
    run.stderr
}

async fn rows(pg: &Pg, args: &[&str]) -> serde_json::Value {
    export(pg, args).await.expect(0).manifest()["totals"]["rows"].clone()
}

#[tokio::test]
async fn a_table_that_is_not_found_is_found_as_the_hint_writes_it() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLES).await;
        for (name, code, words) in [
            ("Orders", 13, "did you mean 'public.\"Orders\"'?"),
            ("public.Orders", 13, "did you mean 'public.\"Orders\"'?"),
            ("Of 2026.Order Items", 2, "a name as in SQL is wanted: orders, public.orders or \"Order Items\""),
        ] {
            refused(&pg, &["--table", name], code, words).await;
            let quoted = match name.split_once('.') {
                None => format!("\"{name}\""),
                Some(("public", table)) => format!("public.\"{table}\""),
                Some((schema, table)) => format!("\"{schema}\".\"{table}\""),
            };
            assert!(rows(&pg, &["--table", &quoted]).await.as_u64().unwrap() > 0, "{version} {quoted}");
        }
        let columns = ["--table", "t", "--columns"];
        for (name, meant) in [("create_at", "created_at"), ("ID", "id"), ("Created_At", "created_at")] {
            let meant = format!("did you mean {meant:?}?");
            let said = refused(&pg, &[&columns[..], &[name]].concat(), 2, &meant).await;
            let (_, meant) = said.split_once("did you mean \"").unwrap();
            let (meant, _) = meant.split_once('"').unwrap();
            assert_eq!(rows(&pg, &[&columns[..], &[meant]].concat()).await, 2);
        }
    }
}

#[tokio::test]
async fn names_in_a_person_s_sql_are_found_as_the_hint_writes_them() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLES).await;
        let table = ["--table", "public.t", "--where"];
        let words = "a column alone or behind the table's name without its schema";
        refused(&pg, &[&table[..], &["public.t.id = 1"]].concat(), 13, words).await;
        for alone in ["id = 1", "t.id = 1"] {
            assert_eq!(rows(&pg, &[&table[..], &[alone]].concat()).await, 1, "{version} {alone}");
        }
        refused(&pg, &["--query", "select * from Orders"], 13, "did you mean public.\"Orders\"?").await;
        let words = "a table with its schema, and in double quotes where it has capitals or dots";
        refused(&pg, &["--query", "select * from nothing_like_it"], 13, words).await;
        assert_eq!(rows(&pg, &["--query", "select * from public.\"Orders\""]).await, 2);
    }
}

#[tokio::test]
async fn pages_without_a_key_get_one_or_are_not_needed() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLES).await;
        let pages = ["--table", "keyless", "--read-mode", "keyset"];
        refused(&pg, &pages, 2, "add one, or use --read-mode copy").await;
        assert_eq!(rows(&pg, &["--table", "keyless", "--read-mode", "copy"]).await, 2);
        pg.batch("create unique index on keyless (id)").await;
        assert_eq!(rows(&pg, &pages).await, 2, "{version}");
    }
}

#[tokio::test]
async fn an_expression_that_is_no_value_of_a_row_is_a_query_s() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLES).await;
        for text in ["count(*)", "row_number() over (order by id)", "generate_series(1, id)"] {
            let words = "aggregates, window functions and set-returning functions need a --query of their own";
            refused(&pg, &["--table", "t", "--column", &format!("x={text}")], 2, words).await;
            export(&pg, &["--query", &format!("select {text} as x from t")]).await.expect(0);
        }
    }
}

#[tokio::test]
async fn two_columns_of_one_name_are_told_apart_in_each_way_that_is_told() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLES).await;
        let taken = ["--table", "t", "--column", "v=upper(v)"];
        let words = "leave it out with --columns, give it another name with --rename, or name the expression otherwise";
        refused(&pg, &taken, 2, words).await;
        for way in [&["--columns", "id,created_at"][..], &["--rename", "v=old_v"]] {
            assert_eq!(rows(&pg, &[&taken[..], way].concat()).await, 2, "{version} {way:?}");
        }
        assert_eq!(rows(&pg, &["--table", "t", "--column", "upper_v=upper(v)"]).await, 2);
        for (query, otherwise) in [
            ("select t.id, o.id from t, \"Orders\" o", "select t.id, o.id as order_id from t, \"Orders\" o"),
            ("select 1, 2", "select 1 as one, 2"),
        ] {
            let words = "a query's with AS in it";
            refused(&pg, &["--query", query], 2, words).await;
            export(&pg, &["--query", otherwise]).await.expect(0);
            export(&pg, &["--query", query, "--duplicate-columns", "suffix"]).await.expect(0);
        }
        let renamed = ["--table", "t", "--rename", "v=id"];
        refused(&pg, &renamed, 2, "a table's column with --rename").await;
        assert_eq!(rows(&pg, &["--table", "t", "--rename", "v=id", "--rename", "id=old_id"]).await, 2);
        let twice = ["--table", "t", "--column", "x=1", "--column"];
        refused(&pg, &[&twice[..], &["x=2"]].concat(), 2, "an expression in its --column").await;
        assert_eq!(rows(&pg, &[&twice[..], &["y=2"]].concat()).await, 2);
    }
}

#[tokio::test]
async fn a_destination_that_is_taken_is_replaced_or_left_as_it_is_told() {
    let pg = pg(18).await;
    pg.batch(TABLES).await;
    let done = export(&pg, &["--table", "t"]).await.expect(0);
    let to = done.dest();
    let again = |way: &[&str]| command(&pg, to.to_str().unwrap(), &[&["--table", "t"], way].concat()).run();
    let said = again(&[]).await.expect(22).stderr;
    let (_, ways) = said.split_once("--on-existing ").unwrap();
    let ways = ways.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '|')).next().unwrap();
    assert!(ways.split('|').count() > 0 && !ways.is_empty(), "{said}");
    for way in ways.split('|') {
        again(&["--on-existing", way]).await.expect(0);
    }
}
