//! Databases that no export was written for, every value compared: what contrib modules bring, what `pgbench` makes, and
//! schemas that nobody should make.

use std::collections::BTreeSet;

use crate::support::differential::{equal_but, judge};
use crate::support::pg::{Pg, both, pg};

const CONTRIB: &str = include_str!("../support/contrib.sql");
const MEANER: &str = include_str!("../support/meaner.sql");

/// One of each; `every_type` and `pgbench` have all.
const FORMATS: [&str; 3] = ["parquet", "csv", "ndjson.zst"];
const SOME: [&str; 2] = ["--formats", "parquet,csv,ndjson.zst"];

#[tokio::test]
async fn schemas_that_nobody_should_make() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(MEANER).await;
        let mut expected = BTreeSet::new();
        for relation in ["all_dropped", "nothing", "no_columns"] {
            expected.extend(FORMATS.map(|format| format!("empty {format} \"public\".\"{relation}\"")));
        }
        for relation in ["fails", "Not \"\"filled\"\""] {
            expected.extend(FORMATS.map(|format| format!("unread {format} \"public\".\"{relation}\"")));
        }
        let unrepresentable = [
            "\"infinite\".\"arrays\"",
            "\"infinite\".\"composites\"",
            "\"infinite\".\"dates\"",
            "\"infinite\".\"domains\"",
            "\"infinite\".\"last_year\"",
            "\"infinite\".\"numbers\"",
            "\"infinite\".\"shifted\"",
            "\"infinite\".\"stamps\"",
            "\"infinite\".\"times\"",
            "\"infinite\".\"within\"",
            "\"types\".\"shouts_with_infinity\"",
        ];
        expected.extend(unrepresentable.map(|relation| format!("text parquet {relation}")));
        assert_eq!(equal_but(&pg, &SOME, "the schema of meaner.sql").await, expected, "{version}");
    }
}

#[tokio::test]
async fn what_contrib_modules_bring() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(CONTRIB).await;
        // Arrays of several dimensions.
        let mut expected = BTreeSet::from(["text parquet \"public\".\"citexts\"".to_owned()]);
        // The wheel of PostgreSQL 18 lacks the library that tables of other servers need.
        if version == 15 {
            expected.extend(FORMATS.map(|format| format!("unread {format} \"public\".\"unreachable\"")));
        }
        assert_eq!(equal_but(&pg, &SOME, "the schema of contrib.sql").await, expected, "{version}");
    }
}

/// As `pgbench -i --partitions=3` makes them.
const PGBENCH: &str = "
    create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
    create table pgbench_tellers (tid int not null primary key, bid int, tbalance int, filler char(84)) with (fillfactor = 100);
    create table pgbench_accounts (aid int not null primary key, bid int, abalance int, filler char(84)) partition by range (aid);
    create table pgbench_accounts_1 partition of pgbench_accounts for values from (minvalue) to (6668);
    create table pgbench_accounts_2 partition of pgbench_accounts for values from (6668) to (13335);
    create table pgbench_accounts_3 partition of pgbench_accounts for values from (13335) to (maxvalue);
    create table pgbench_branches (bid int not null primary key, bbalance int, filler char(88)) with (fillfactor = 100);
    insert into pgbench_branches (bid, bbalance) values (1, 0);
    insert into pgbench_tellers (tid, bid, tbalance) select n, 1, 0 from generate_series(1, 10) as n;
    insert into pgbench_accounts select n, 1, 0, '' from generate_series(1, 20000) as n;
    update pgbench_accounts set abalance = aid where aid % 7 = 0;
    delete from pgbench_accounts where aid % 11 = 0;
    insert into pgbench_history select n % 10, 1, n, n, timestamp '2026-01-01' + n * interval '1.5 s' from generate_series(1, 3000) as n";

#[tokio::test]
async fn what_pgbench_makes() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(PGBENCH).await;
        assert_eq!(equal_but(&pg, &[], "pgbench's tables").await, BTreeSet::new(), "{version}");
    }
}

/// The comparison can fail: an exporter that trims a value, or leaves out a row, is found out in every format.
#[tokio::test]
async fn a_damaged_value_and_a_lost_row_are_seen() {
    let pg = pg(18).await;
    pg.batch("create table padded as select n as id, 'ab'::char(4) as c from generate_series(1, 100) as n").await;
    for (damage, seen) in [
        ("--char-padding trim", "column \"c\": 'ab  '"),
        ("--char-padding trim", "column \"c\": '\"ab  \"'"),
        ("--where 'id <> 7'", "1 rows are missing, 0 rows are not PostgreSQL's"),
    ] {
        let (_folder, said) = damaged(&pg, damage).await;
        assert!(said.contains(seen) && said.contains("5 differs"), "{damage}: {said}");
    }
}

/// What the comparison says of the binary run with further arguments.
async fn damaged(pg: &Pg, arguments: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("outhaul");
    std::fs::write(&script, format!("#!/bin/sh\nexec {} \"$@\" {arguments}\n", env!("CARGO_BIN_EXE_outhaul"))).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let judged = judge(pg, &script, &[]).await;
    assert_eq!(judged.code, 1, "{judged:?}");
    (folder, judged.said)
}
