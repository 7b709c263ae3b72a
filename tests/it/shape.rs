//! The shape of the data: columns, expressions, names, predicates, one stream, pages.

use serde_json::{Value, json};

use crate::support::job::{copy, export, export_csv, sorted};
use crate::support::oracle;
use crate::support::pg::{Pg, both, pg};
use crate::support::run::outhaul;
use crate::support::watch::files;

#[tokio::test]
async fn columns_are_written_in_the_order_given() {
    for version in both() {
        let pg = items(version).await;
        let query = "select note, id, price from items";
        for format in ["parquet", "csv", "ndjson"] {
            let args = ["--table", "items", "--columns", "note,id,price", "--format", format, "--partitions", "3"];
            let done = export(&pg, &args).await.expect(0);
            let found = oracle::local(&done.dest(), &[]).await;
            assert_eq!(found.columns, ["note", "id", "price"], "{format}");
            assert_eq!(found, oracle::query(&pg, query).await, "{version} {format}");
        }
    }
}

#[tokio::test]
async fn expressions_and_new_names_keep_the_split_by_place() {
    let pg = items(18).await;
    let args = [
        ["--table", "items"],
        ["--columns", "id,note"],
        ["--column", "gross=round(price * 1.19, 2)"],
        ["--column", "label=case when id % 2 = 0 then 'even, \"' || id || '\"' end"],
        ["--column", "plus=1 + 1 -- two"],
        ["--rename", "note=\"Note (short)\""],
        ["--partitions", "3"],
    ];
    let args = args.concat();
    let query = "select id, note as \"Note (short)\", round(price * 1.19, 2) as gross,
        case when id % 2 = 0 then 'even, \"' || id || '\"' end as label, 2 as plus from items";
    for format in ["parquet", "csv", "ndjson"] {
        let done = export(&pg, &[&args[..], &["--format", format]].concat()).await.expect(0);
        // The type of an expression is what the server says, so the oracle's text is that of its own type.
        assert_eq!(oracle::local(&done.dest(), &[]).await, oracle::query(&pg, query).await, "{format}");
        assert_eq!(done.partitions(), 3, "{format}");
        assert_eq!(done.manifest()["parts"][0]["range"]["kind"], "heap", "{format}");
    }
    for wrong in [
        ["--columns", "id,nope"],
        ["--rename", "nope=x"],
        ["--rename", "id=note"],
        ["--columns", "id,id"],
        ["--column", "broken"],
        ["--column", "x=id) from items; drop table items; --"],
        ["--key", "nope"],
    ] {
        let refused = export(&pg, &[&["--table", "items"][..], &wrong].concat()).await.expect(2);
        assert!(files(&refused.dest()).is_empty(), "{wrong:?}");
    }
    assert_eq!(pg.value("select count(*) from items").await, "2000");
}

#[tokio::test]
async fn a_predicate_selects_and_cannot_break_out() {
    let pg = items(15).await;
    for (predicate, equal) in [
        ("id <= 100 or id > 1900", "id <= 100 or id > 1900"),
        ("true", "true"),
        ("note is null -- and a comment", "note is null"),
        ("note = $$it's$$ or note like '%;%)'", "note = 'it''s' or note like '%;%)'"),
        ("items.id = any (array[1, 5, 77])", "id in (1, 5, 77)"),
        ("exists (select 1 from items as other where other.id = items.id + 1999)", "id = 1"),
        ("- id < -1990 /* so ( ; */", "id > 1990"),
    ] {
        let expected = sorted(&copy(&pg, &format!("select * from items where {equal}")).await);
        for more in [&["--partitions", "3"][..], &["--key", "id", "--partitions", "3"]] {
            let done = export_csv(&pg, &[&["--table", "items", "--where", predicate], more].concat(), 0).await;
            assert!(done.sorted() == expected, "{predicate} {more:?}");
            assert_eq!(done.manifest()["source"]["predicate"].as_str().unwrap().trim(), predicate);
        }
    }
    for attempt in [
        "true) or (true",
        "true); drop table items; --",
        "true; drop table items",
        "'open",
        "$$open",
        "/* open",
        "(id = 1",
        "true) union select 1, 'x', 2 from (select 1",
        "",
    ] {
        let refused = export(&pg, &["--table", "items", "--where", attempt]).await;
        assert_eq!(refused.run.code, 2, "{attempt}: {}", refused.run.stderr);
        assert!(!refused.dest().exists(), "{attempt}");
    }
    for query in ["select 1; drop table items", "drop table items", "select 1) to '/tmp/x'; --", "copy items to stdout"]
    {
        let refused = export(&pg, &["--query", query]).await;
        assert_eq!(refused.run.code, 2, "{query}: {}", refused.run.stderr);
    }
    for (predicate, code) in [("nope = 1", 13), ("id", 15), ("id = 'x'", 15), ("1 / (id - 1) > 0", 15)] {
        let rejected = export(&pg, &["--table", "items", "--where", predicate]).await.expect(code);
        let told = if code == 13 { "--where: column nope does not exist" } else { "SQLSTATE" };
        assert!(rejected.run.stderr.contains(told), "{predicate}: {}", rejected.run.stderr);
    }
    assert_eq!(pg.value("select count(*) from items").await, "2000");
}

#[tokio::test]
async fn a_run_can_write_nothing_even_through_functions() {
    let pg = items(18).await;
    pg.batch(
        "create function wipe() returns boolean language plpgsql as $$ begin delete from items; return true; end $$",
    )
    .await;
    for args in [["--table", "items", "--where", "wipe()"], ["--query", "select wipe()", "--format", "csv"]] {
        let rejected = export(&pg, &args).await.expect(15);
        assert!(rejected.run.stderr.contains("25006"), "{}", rejected.run.stderr);
    }
    assert_eq!(pg.value("select count(*) from items").await, "2000");
}

#[tokio::test]
async fn one_stream_on_standard_output_holds_the_data_and_nothing_else() {
    let pg = items(18).await;
    let run = async |args: &[&str]| {
        let fixed = ["export", "--from", &pg.url, "--to", "-", "--table", "items", "--report", "json"];
        outhaul(fixed.iter().chain(args)).run().await
    };
    let expected = copy(&pg, "select * from items order by id desc").await;
    let done = run(&["--format", "csv", "--csv-header", "off", "--key", "id desc", "--readers", "1"]).await.expect(0);
    assert!(done.stdout == expected);
    let report: Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&report["rows"], &report["status"], &report["manifest"]),
        (&json!(2000), &json!("complete"), &json!(null))
    );

    let done = run(&["--format", "csv"]).await.expect(0);
    assert!(done.stdout.starts_with(b"id,note,price\n"));
    let lines = run(&["--format", "ndjson", "--where", "id = 2"]).await.expect(0);
    let json_line = pg.value("select row_to_json(items) from items where id = 2").await;
    let (found, expected): (Value, Value) =
        (serde_json::from_slice(&lines.stdout).unwrap(), serde_json::from_str(&json_line).unwrap());
    assert_eq!((found, lines.stdout.last()), (expected, Some(&b'\n')));

    // A stream of Parquet is a file like any other: the oracle reads it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("_manifest.json");
    let parquet = run(&["--format", "parquet", "--manifest", file.to_str().unwrap()]).await.expect(0);
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::write(folder.path().join("stream.parquet"), &parquet.stdout).unwrap();
    assert_eq!(manifest["parts"].as_array().unwrap().len(), 1);
    manifest["parts"][0]["path"] = json!("stream.parquet");
    std::fs::write(&file, manifest.to_string()).unwrap();
    assert_eq!(oracle::local(folder.path(), &[]).await, oracle::query(&pg, "select * from items").await);

    let capped = run(&["--format", "csv", "--csv-header", "off", "--max-rows", "5"]).await.expect(3);
    assert!(capped.stdout == copy(&pg, "select * from items order by id limit 5").await);
    let failed = run(&["--format", "csv", "--where", "1 / (id - 1999) > -5"]).await.expect(15);
    assert!(failed.stderr.contains("22012"), "{}", failed.stderr);
    let few = run(&["--format", "csv", "--min-rows", "5000", "--manifest", file.to_str().unwrap()]).await.expect(14);
    assert!(few.stderr.contains("5000"));
    for contradiction in
        [["--single-file", "--sha256"], ["--on-existing", "skip"], ["--partitions", "3"], ["--layout", "flat"]]
    {
        let refused = run(&contradiction).await.expect(2);
        assert!(refused.stdout.is_empty(), "{contradiction:?}");
    }
}

#[tokio::test]
async fn pages_by_key_give_the_same_contents() {
    for version in both() {
        let pg = items(version).await;
        pg.batch("create table keyless as select * from items; create table pairs as select id / 9 as a, id % 9 as b, note from items").await;
        pg.batch("alter table pairs add primary key (a, b)").await;
        for (table, more, order) in [
            ("items", &["--page-size", "7"][..], "id"),
            ("items", &["--page-size", "2000"], "id"),
            ("items", &["--page-size", "100", "--key", "note desc, id"], "note desc nulls last, id"),
            ("items", &[], "id"),
            ("pairs", &["--page-size", "333"], "a, b"),
            ("pairs", &["--page-size", "333", "--key", "b desc", "--max-rows", "700"], "b desc, a desc limit 700"),
        ] {
            let args = [&["--table", table, "--read-mode", "keyset"][..], more].concat();
            let code = if more.contains(&"--max-rows") { 3 } else { 0 };
            let done = export_csv(&pg, &args, code).await;
            let expected = copy(&pg, &format!("select * from {table} order by {order}")).await;
            assert!(sorted(&done.data()) == sorted(&expected), "{version}: {args:?}");
            let manifest = done.manifest();
            assert_eq!(manifest["consistency"]["mode"], "keyset");
            assert!(manifest["consistency"]["note"].is_string());
            // Pages follow the order where the whole is one partition.
            assert!(done.partitions() > 1 || done.data() == expected, "{version}: {args:?}: another order");
        }
        export_csv(&pg, &["--table", "keyless", "--read-mode", "keyset"], 2).await;
        export_csv(&pg, &["--table", "items", "--page-size", "7"], 2).await;
    }
}

#[tokio::test]
async fn csv_as_asked_for() {
    let pg = pg(18).await;
    pg.batch(r#"create table t (a text, b text, c int); insert into t values ('x;y', null, 1), ('', '=1+1', null), ('"', E'l\nm', 3)"#).await;
    for (more, expected) in [
        (&[][..], "a,b,c\nx;y,,1\n\"\",=1+1,\n\"\"\"\",\"l\nm\",3\n"),
        (&["--csv-delimiter", ";", "--csv-null", "\\N"], "a;b;c\n\"x;y\";\\N;1\n;=1+1;\\N\n\"\"\"\";\"l\nm\";3\n"),
        (&["--csv-newline", "crlf", "--csv-header", "off"], "x;y,,1\r\n\"\",=1+1,\r\n\"\"\"\",\"l\nm\",3\r\n"),
        (&["--csv-bom"], "\u{feff}a,b,c\nx;y,,1\n\"\",=1+1,\n\"\"\"\",\"l\nm\",3\n"),
        (&["--csv-formula-guard"], "a,b,c\nx;y,,1\n\"\",'=1+1,\n\"\"\"\",\"l\nm\",3\n"),
    ] {
        let done = export(&pg, &[&["--table", "t", "--format", "csv"][..], more].concat()).await.expect(0);
        let manifest = done.manifest();
        let part = std::fs::read(done.dest().join(manifest["parts"][0]["path"].as_str().unwrap())).unwrap();
        assert_eq!(String::from_utf8(part).unwrap(), expected, "{more:?}");
    }
}

/// 2,000 rows with NULLs, quotes and a predicate's traps in them.
async fn items(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(
        "create table items (id int primary key, note text, price numeric(10, 2) not null);
        insert into items select i, case i % 5 when 0 then null when 1 then 'it''s' when 2 then 'a;b)' else 'note, ' || i end, i / 7.0
            from generate_series(1, 2000) i;
        analyze",
    )
    .await;
    pg
}
