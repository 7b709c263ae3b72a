//! Row caps: exact, the same however the work is split, recorded, and never called complete (I7).

use serde_json::json;

use crate::support::job::{self, copy, export_csv, parts};
use crate::support::manifest;
use crate::support::pg::{self, Pg, both, pg};
use crate::support::run::Stop;

const BY_ID: &str = "select * from lineitem order by id limit";

#[tokio::test]
async fn the_free_tier_is_the_first_rows_by_key_however_they_are_split() {
    for version in both() {
        let pg = pg::lineitem(version).await;
        let expected = copy(&pg, &format!("{BY_ID} 10000")).await;
        for (partitions, readers) in [("1", "1"), ("3", "2"), ("8", "8")] {
            let args = ["--table", "lineitem", "--tier", "free", "--partitions", partitions, "--readers", readers];
            let done = export_csv(&pg, &args, 3).await;
            assert!(done.data() == expected, "{version} in {partitions}: other bytes");
            assert_eq!(done.partitions(), partitions.parse::<usize>().unwrap());
            assert_eq!(done.manifest()["status"], "truncated");
            let cap = json!({
                "tier": "free", "max_rows": 10_000, "truncated": true,
                "rows_available": {"kind": "at_least", "value": 10_001}, "order": "key", "boundary": ["10000"],
            });
            assert_eq!(done.manifest()["row_cap"], cap);
            assert_eq!(done.run.report["status"], "truncated");
            assert_eq!(done.run.report["exit_code"], 3);
            assert_eq!((&done.run.report["rows"], &done.run.report["max_rows"]), (&json!(10_000), &json!(10_000)));
            let success = std::fs::read_to_string(done.dest().join("_SUCCESS")).unwrap();
            assert!(success.contains("truncated"), "{success}");
        }
    }
}

#[tokio::test]
async fn a_cap_is_exact_at_its_edges() {
    let pg = hundred(18).await;
    for (cap, code, rows) in [("99", 3, 99), ("100", 0, 100), ("101", 0, 100), ("1", 3, 1)] {
        for (key, partitions) in [("id", "1"), ("id", "4"), ("", "1"), ("", "3")] {
            let table = if key.is_empty() { "keyless" } else { "hundred" };
            let done = export_csv(&pg, &["--table", table, "--max-rows", cap, "--partitions", partitions], code).await;
            let what = format!("{cap} of 100 by {key:?} in {partitions}");
            let manifest = done.manifest();
            assert_eq!(manifest["totals"]["rows"], rows, "{what}");
            assert_eq!(manifest["row_cap"]["truncated"], code == 3, "{what}");
            assert_eq!(manifest["status"], if code == 3 { "truncated" } else { "complete" }, "{what}");
            assert_eq!(manifest["row_cap"]["max_rows"], cap.parse::<u64>().unwrap(), "{what}");
            if code == 0 {
                assert_eq!(manifest["row_cap"]["boundary"], json!(null), "{what}");
                assert_eq!(done.run.report["rows_available"], json!({"kind": "exact", "value": 100}), "{what}");
            }
            assert_eq!(job::sorted(&done.data()).len(), rows, "{what}");
        }
    }
    let allowed = export_csv(&pg, &["--table", "hundred", "--max-rows", "99", "--allow-truncated"], 0).await;
    assert_eq!(allowed.manifest()["status"], "truncated", "allowed is not complete");
    assert_eq!(allowed.run.report["status"], "truncated");
}

#[tokio::test]
async fn a_cap_follows_the_key_its_direction_and_its_ties() {
    let pg = hundred(15).await;
    pg.batch("create table ties as select id, id / 40 as bin, nullif(id % 3, 0) as maybe from hundred").await;
    pg.batch("alter table ties add primary key (id)").await;
    for (key, order) in [
        ("bin", "bin, id"),
        ("bin desc", "bin desc, id desc"),
        ("maybe", "maybe nulls last, id"),
        ("maybe desc", "maybe desc nulls last, id desc"),
        ("bin desc, id", "bin desc, id"),
        ("maybe, bin desc", "maybe nulls last, bin desc, id desc"),
    ] {
        for cap in [7, 50, 90] {
            let expected = copy(&pg, &format!("select * from ties order by {order} limit {cap}")).await;
            for partitions in ["1", "3", "8"] {
                let cap = cap.to_string();
                let args = ["--table", "ties", "--key", key, "--max-rows", &cap, "--partitions", partitions];
                let done = export_csv(&pg, &args, 3).await;
                assert!(done.data() == expected, "{key} up to {cap} in {partitions}");
            }
        }
    }
}

#[tokio::test]
async fn a_cap_counts_the_rows_of_the_predicate() {
    let pg = hundred(18).await;
    for (cap, code) in [("20", 3), ("33", 0), ("34", 0)] {
        let args = ["--table", "hundred", "--where", "id % 3 = 0", "--max-rows", cap, "--partitions", "3"];
        let done = export_csv(&pg, &args, code).await;
        let expected = copy(&pg, &format!("select * from hundred where id % 3 = 0 order by id limit {cap}")).await;
        assert!(done.data() == expected, "{cap}");
    }
}

#[tokio::test]
async fn without_a_key_a_cap_is_physical_and_says_so() {
    let pg = hundred(15).await;
    let first = copy(&pg, "select * from keyless order by ctid limit 40").await;
    for partitions in ["1", "3"] {
        let done = export_csv(&pg, &["--table", "keyless", "--max-rows", "40", "--partitions", partitions], 3).await;
        assert_eq!(done.manifest()["row_cap"]["order"], "physical");
        assert!(done.data() == first, "{partitions}");
    }
    for args in [["--query", "select * from hundred"], ["--table", "a_view"]] {
        let done = export_csv(&pg, &[&args[..], &["--max-rows", "40"]].concat(), 3).await;
        let manifest = done.manifest();
        assert_eq!(manifest["row_cap"]["order"], "unspecified", "{args:?}");
        assert_eq!(manifest["totals"]["rows"], 40, "{args:?}");
        assert_eq!(parts(&manifest).len(), 1, "{args:?}");
        let done = export_csv(&pg, &[&args[..], &["--max-rows", "100"]].concat(), 0).await;
        assert_eq!(done.manifest()["totals"]["rows"], 100, "{args:?}");
    }
}

#[tokio::test]
async fn a_capped_partitioned_table_is_the_same_however_it_is_split() {
    let pg = pg(18).await;
    pg.batch(
        "create table p (id int, v text, primary key (id)) partition by hash (id);
        create table p0 partition of p for values with (modulus 3, remainder 0);
        create table p1 partition of p for values with (modulus 3, remainder 1);
        create table p2 partition of p for values with (modulus 3, remainder 2);
        insert into p select i, 'v' || i from generate_series(1, 3000) i",
    )
    .await;
    let expected = copy(&pg, "select * from p order by id limit 1234").await;
    for partitions in ["1", "5"] {
        let done = export_csv(&pg, &["--table", "p", "--max-rows", "1234", "--partitions", partitions], 3).await;
        assert!(done.data() == expected, "{partitions}");
    }
    pg.batch("alter table p drop constraint p_pkey").await;
    let done = export_csv(&pg, &["--table", "p", "--max-rows", "1234", "--partitions", "5"], 3).await;
    assert_eq!(done.manifest()["totals"]["rows"], 1234);
    assert_eq!(done.manifest()["row_cap"]["order"], "physical");
}

#[tokio::test]
async fn tiers_have_their_rows_and_unknown_ones_are_refused() {
    let pg = hundred(15).await;
    for (tier, max_rows) in [
        ("free", json!(10_000)),
        ("pro", json!(100_000)),
        ("team", json!(1_000_000)),
        ("scale", json!(10_000_000)),
        ("enterprise", json!(null)),
    ] {
        let done = export_csv(&pg, &["--table", "hundred", "--tier", tier], 0).await;
        let cap = &done.manifest()["row_cap"];
        assert_eq!((&cap["tier"], &cap["max_rows"]), (&json!(tier), &max_rows));
        assert_eq!(cap["truncated"], false);
    }
    for args in [&["--tier", "gold"][..], &["--tier", "free", "--max-rows", "5"], &["--max-rows", "0"]] {
        let refused = export_csv(&pg, &[&["--table", "hundred"], args].concat(), 2).await;
        assert!(!refused.dest().exists(), "{args:?}");
    }
    let none = export_csv(&pg, &["--table", "hundred"], 0).await.manifest();
    assert_eq!((&none["row_cap"]["max_rows"], &none["row_cap"]["truncated"]), (&json!(null), &json!(false)));
}

/// Where reading shows whether there are more rows, one row is read beyond the cap: of it nothing is told, and what it holds
/// fails nothing.
#[tokio::test]
async fn the_row_beyond_a_cap_counts_nowhere() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table t (id int, n numeric(6,2), f float8, c char(4), d date);
            insert into t select i, i, i, 'abcd', '2024-01-01' from generate_series(1, 3) i;
            insert into t values (4, 'NaN', 'NaN', 'a', 'infinity')",
        )
        .await;
        let query = ["--query", "select * from t order by id limit 100", "--format", "parquet"];
        for (more, changed) in [(&["--on-unrepresentable", "null", "--char-padding", "trim"][..], true), (&[], false)] {
            let run = async |rows: &str, code| {
                let args = [&query[..], more, &["--max-rows", rows, "--manifest-stats", "all"]].concat();
                job::export(&pg, &args).await.expect(code)
            };
            let done = run("3", 3).await.manifest();
            assert_eq!(done["totals"]["rows"], 3);
            for column in done["schema"].as_array().unwrap() {
                assert_eq!(column["policy_count"], 0, "{version} {more:?}: {column}");
            }
            for column in parts(&done)[0]["columns"].as_object().unwrap().values() {
                assert_eq!(column["nulls"], 0, "{version} {more:?}: {column}");
                assert_ne!(column["max"], "NaN", "{version} {more:?}: {column}");
                assert_ne!(column["min"], "a", "{version} {more:?}: {column}");
            }
            let whole = run("4", if changed { 0 } else { 14 }).await;
            if changed {
                let counted = |name| {
                    let manifest = whole.manifest();
                    let schema = manifest["schema"].as_array().unwrap().clone();
                    schema.into_iter().find(|column| column["name"] == name).unwrap()["policy_count"].clone()
                };
                assert_eq!((counted("n"), counted("c"), counted("d")), (json!(1), json!(1), json!(1)));
            }
        }
        // A row alone in its batch, and caps at the ends of batches.
        pg.batch("create table wide as select i as id, repeat('x', 9000) as v from generate_series(1, 5000) i").await;
        for cap in [1_u64, 4_095, 4_096, 4_097, 4_999, 5_000, 5_001] {
            let (cap, code, rows) = (cap.to_string(), if cap < 5_000 { 3 } else { 0 }, cap.min(5_000));
            let query = "select * from wide order by id limit 10000";
            let done = export_csv(&pg, &["--query", query, "--max-rows", &cap], code).await;
            assert_eq!(done.manifest()["totals"]["rows"], rows, "{version} {cap}");
            assert_eq!(done.data(), copy(&pg, &format!("select * from wide order by id limit {cap}")).await, "{cap}");
        }
    }
}

/// Rows 1 to 100, in no order on disk, in a table with a key, in one without and behind a view.
async fn hundred(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(
        "create table hundred as select id, 'row ' || id as v from generate_series(1, 100) as id order by md5(id::text);
        create table keyless as select id, repeat(md5(id::text), 20) as filler from hundred;
        alter table hundred add primary key (id);
        create view a_view as select * from hundred;
        analyze",
    )
    .await;
    pg
}

#[tokio::test]
async fn a_cap_over_pages_is_told_by_what_they_read_and_not_by_what_was_there_when_they_were_planned() {
    for version in both() {
        for (rows, change, code) in [
            (100, "insert into t select generate_series(-49, 0)", 3),
            (101, "delete from t where id <= 5", 0),
            (100, "select", 0),
            (101, "select", 3),
            (300, "delete from t where id > 99", 0),
        ] {
            // Below the cap, a part of it, all of it, and beyond.
            for page in ["1", "10", "33", "100", "1000"] {
                let pg = pg(version).await;
                pg.batch(&format!(
                    "create table t (id int primary key); insert into t select generate_series(1, {rows})"
                ))
                .await;
                let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
                let to = dest.path().join("out");
                let args = ["--table", "t", "--read-mode", "keyset", "--page-size", page, "--max-rows", "100"];
                let csv = ["--format", "csv", "--csv-header", "off"];
                let run = job::command(&pg, to.to_str().unwrap(), &[&args[..], &csv].concat());
                let run = run.stops([&planned]).spawn();
                run.stands_at(&planned).await;
                pg.batch(change).await;
                planned.release();
                let run = run.wait().await.expect(code);
                let what = format!("{version}: {rows} rows, {change}, in pages of {page}");
                assert!(job::data(&to) == copy(&pg, "select * from t order by id limit 100").await, "{what}");
                let cap = &manifest(&to)["row_cap"];
                assert_eq!(cap["truncated"], code == 3, "{what}");
                // Which row is the last one was not known when the pages were planned.
                assert_eq!((&cap["order"], &cap["boundary"]), (&json!("key"), &json!(null)), "{what}");
                assert_eq!(run.report["status"], if code == 3 { "truncated" } else { "complete" }, "{what}");
            }
        }
    }
}
