//! Keys at the ends of their types, statistics that are missing, relations of every kind, and a table that is another one
//! when its run is resumed (rows E2, F3, F4, F10 and F11 of the fault matrix).

use crate::support::job::{copy, export, export_csv, no_sessions_left, rows, sorted};
use crate::support::oracle;
use crate::support::pg::{both, pg};
use crate::support::place::{Place, export as export_to};
use crate::support::run::Stop;
use crate::support::watch::files;

/// What may be done to a table between a run and its resumption, once nobody holds a lock for the run.
const CHANGES: [&str; 7] = [
    "alter table t add column more int",
    "alter table t drop column v",
    "alter table t rename column v to w",
    "alter table t alter column v type varchar(40)",
    "alter table t alter column v set not null",
    "alter table t rename to u; create table t (id int primary key, v text)",
    "drop table t",
];

#[tokio::test]
async fn e2_a_run_is_not_resumed_over_another_schema() {
    for (nth, change) in CHANGES.into_iter().enumerate() {
        let pg = pg(both()[nth % 2]).await;
        pg.batch("create table t as select i as id, md5(i::text) as v from generate_series(1, 4000) i").await;
        pg.batch("alter table t add primary key (id); analyze t").await;
        let place = Place::both().into_iter().nth(nth / 2 % 2).unwrap();
        let stop = Stop::at("receipted");
        let running = export_to(&pg, &place, &["--key", "id"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await.expect(137);
        no_sessions_left(&pg).await;
        pg.batch(change).await;
        let url = place.url();
        let resume = ["resume", &url, "--from", &pg.url, "--allow-mixed-snapshot", "--report", "json"];
        let run = place.outhaul(resume).run().await.expect(13);
        assert_eq!(run.report["retryable"], false, "{change}");
        assert_eq!(place.visible().await, [""; 0], "{change}");
        if change != "drop table t" {
            export_to(&pg, &place, &[]).run().await.expect(0);
            assert_eq!(place.whole().await, rows(&pg).await, "{change}");
        }
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn f3_f11_keys_that_hardly_split_and_tables_without_statistics_lose_no_row() {
    for version in both() {
        let pg = pg(version).await;
        for (name, key) in [
            ("same", "7"),
            ("none", "null::int"),
            ("nearly_same", "case i when 3000 then 2147483647 else 1 end"),
            ("nearly_none", "case i when 1 then 5 end"),
            ("two", "i % 2"),
            ("each", "i"),
        ] {
            pg.batch(&format!(
                "create table {name} (k int, v text) with (autovacuum_enabled = off);
                 insert into {name} select {key}, repeat(md5(i::text), 10) from generate_series(1, 3000) i"
            ))
            .await;
            let expected = sorted(&copy(&pg, &format!("select * from {name}")).await);
            for (analyzed, more) in [(false, &[][..]), (false, &["--key", "k"]), (true, &["--key", "k desc"])] {
                if analyzed {
                    pg.batch(&format!("analyze {name}")).await;
                }
                let args = [&["--table", name, "--partitions", "5"][..], more].concat();
                let done = export_csv(&pg, &args, 0).await;
                assert!(done.sorted() == expected, "{version} {name} {more:?}, analyzed: {analyzed}");
            }
        }
    }
}

/// Types and their extreme values.
const EXTREMES: [(&str, &str); 9] = [
    ("int2", "(-32768), (32767), (0)"),
    ("int4", "(-2147483648), (2147483647), (0)"),
    ("int8", "(-9223372036854775808), (9223372036854775807), (0)"),
    ("numeric", "('NaN'), ('Infinity'), ('-Infinity'), (-1e100), (1e100), (1e-100)"),
    ("float8", "('NaN'), ('Infinity'), ('-Infinity'), ('-0'), (1e308), (5e-324)"),
    ("timestamptz", "('-infinity'), ('infinity'), ('4713-01-01 00:00+00 BC'), ('294276-12-31 23:59:59+00')"),
    ("date", "('-infinity'), ('infinity'), ('4713-01-01 BC'), ('5874897-12-31')"),
    ("uuid", "('00000000-0000-0000-0000-000000000000'), ('ffffffff-ffff-ffff-ffff-ffffffffffff')"),
    ("text collate blind", "(''), ('é'), ('É'), ('é '), (repeat('z', 500)), (E'\\u0001')"),
];

#[tokio::test]
async fn f4_keys_at_the_ends_of_their_types_are_split_without_losing_a_row() {
    for version in both() {
        let pg = pg(version).await;
        // Texts that differ in case are equal to it. One of the builds has no ICU.
        let blind = if version == 15 {
            "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        } else {
            "create collation blind (provider = builtin, locale = 'C.UTF-8')"
        };
        pg.batch(blind).await;
        for (nth, (kind, values)) in EXTREMES.into_iter().enumerate() {
            let name = format!("ends_{nth}");
            let many = match kind {
                "timestamptz" => "timestamptz '2020-01-01' + i * interval '1 hour'".to_owned(),
                "date" => "date '2000-01-01' + i".to_owned(),
                "uuid" => "md5(i::text)::uuid".to_owned(),
                "text collate blind" => "case when i % 2 = 0 then 'Row ' else 'row ' end || i / 2".to_owned(),
                number => format!("((i % 300) * 100)::{number}"),
            };
            pg.batch(&format!(
                "create table {name} (k {kind}, id serial primary key); insert into {name} values {values}, (null);
                 insert into {name} select {many} from generate_series(1, 2000) i; analyze {name}"
            ))
            .await;
            let expected = sorted(&copy(&pg, &format!("select * from {name}")).await);
            for key in ["k", "k desc, id"] {
                let args = ["--table", &name, "--key", key, "--partitions", "6"];
                let done = export_csv(&pg, &args, 0).await;
                assert!(done.sorted() == expected, "{version} {kind}, --key {key:?}");
                assert!(done.partitions() > 1, "{version} {kind}, --key {key:?}: not split");
            }
        }
    }
}

#[tokio::test]
async fn f10_what_has_rows_is_exported_and_what_has_none_is_refused_by_its_kind() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 100) i;
             create sequence s; create type pair as (a int, b int); create table nothing ();
             create table keyless (a int); insert into keyless select generate_series(1, 100)",
        )
        .await;
        for table in ["keyless", "pg_catalog.pg_type", "information_schema.columns"] {
            let done = export(&pg, &["--table", table, "--format", "csv"]).await.expect(0);
            let expected = oracle::query(&pg, &format!("select * from {table}")).await.rows;
            assert_eq!(done.manifest()["totals"]["rows"], expected, "{version} {table}");
        }
        let toast = pg.value("select 'pg_toast.pg_toast_' || 't'::regclass::oid").await;
        for (name, told) in [
            ("s", "is a sequence"),
            ("t_pkey", "is an index"),
            ("pair", "is a composite type"),
            ("nothing", "has no columns"),
            (toast.as_str(), "is not a relation with rows"),
        ] {
            let refused = export(&pg, &["--table", name]).await.expect(2);
            assert!(refused.run.stderr.contains(told), "{}", refused.run.stderr);
            let left: Vec<_> = files(&refused.dest()).into_keys().filter(|path| path != "_outhaul/lock").collect();
            assert_eq!(left, [""; 0], "{name}");
        }
        no_sessions_left(&pg).await;
    }
}
