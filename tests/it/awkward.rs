//! Relations whose rows are easily lost, doubled or miscounted: what makes them so is in each test's setup.

use std::time::Duration;

use crate::support::job::{Export, command, copy, data, export_csv, sorted};
use crate::support::night::Night;
use crate::support::pg::{Pg, both, pg};
use crate::support::run::{Run, Stop, outhaul};
use crate::support::{eventually, manifest};

const CSV: [&str; 4] = ["--format", "csv", "--csv-header", "off"];

/// Exports `args` and expects the rows of `query`, in any order.
async fn rows_of(pg: &Pg, args: &[&str], query: &str, code: i32) -> Export {
    let done = export_csv(pg, args, code).await;
    let expected = sorted(&copy(pg, query).await);
    assert!(done.sorted() == expected, "PostgreSQL {}: {args:?} differ from {query}", pg.version);
    done
}

/// Exports `args`, makes a change at a stop, and expects the code.
async fn changed_at(pg: &Pg, place: &'static str, args: &[&str], change: &str, code: i32) -> Run {
    changed_without(pg, place, args, change, "").await.expect(code)
}

/// The same with a mechanism switched off, and whatever code there is.
async fn changed_without(pg: &Pg, place: &'static str, args: &[&str], change: &str, off: &str) -> Run {
    let (dest, stop) = (tempfile::tempdir().unwrap(), Stop::at(place));
    let to = dest.path().join("out");
    let run = command(pg, to.to_str().unwrap(), &[&CSV[..], args].concat()).stops([&stop]);
    let run = run.env("OUTHAUL_TEST_OFF", off).spawn();
    run.stands_at(&stop).await;
    pg.batch(change).await;
    stop.release();
    run.wait().await
}

#[tokio::test]
async fn a_key_whose_operators_are_not_on_the_search_path_is_compared_as_it_is_sorted() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create schema ext; create extension citext schema ext;
            create table t (k ext.citext primary key, v int);
            insert into t select (case when i % 2 = 0 then 'a' else 'B' end) || i, i from generate_series(1, 3000) i;
            analyze t",
        )
        .await;
        let done = rows_of(&pg, &["--table", "t", "--key", "k", "--partitions", "4"], "select * from t", 0).await;
        assert_eq!(done.partitions(), 4);
        rows_of(&pg, &["--table", "t", "--read-mode", "keyset", "--page-size", "77"], "select * from t", 0).await;
        for partitions in ["1", "4"] {
            let args = ["--table", "t", "--max-rows", "1000", "--partitions", partitions];
            let done = export_csv(&pg, &args, 3).await;
            // A COLLATE would be text's: the type's own order ignores case.
            let expected = copy(&pg, "select * from t order by lower(k::text) limit 1000").await;
            assert!(done.data() == expected, "{version}, {partitions} partitions");
        }
    }
}

#[tokio::test]
async fn composite_and_array_keys_are_split_without_taking_their_nulls_for_null() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create type pair as (x int, y int);
            create table t (k pair, a int[], v int);
            insert into t select row(i % 100, i)::pair, array[i % 100, i], i from generate_series(1, 3000) i;
            insert into t values (row(null, null)::pair, '{}', -1), (row(1, null)::pair, null, -2), (null, '{null}', -3);
            analyze t",
        )
        .await;
        for key in ["k", "k desc", "a", "a desc", "k, v"] {
            rows_of(&pg, &["--table", "t", "--key", key, "--partitions", "4"], "select * from t", 0).await;
        }
    }
}

#[tokio::test]
async fn a_domain_that_refuses_the_bounds_of_its_key_does_not_matter() {
    let pg = pg(15).await;
    pg.batch(
        "create domain tens as int check (value % 10 = 0);
        create table t (k tens primary key); insert into t select i * 10 from generate_series(1, 3000) i",
    )
    .await;
    let done = rows_of(&pg, &["--table", "t", "--key", "k", "--partitions", "7"], "select * from t", 0).await;
    assert_eq!(done.partitions(), 7);
}

#[tokio::test]
async fn a_child_without_its_parents_not_null_loses_no_row() {
    for version in both() {
        let pg = pg(version).await;
        // Before 18 a child can drop it; from 18 on the parent can keep it to itself.
        let column = if version >= 18 { "id int constraint own not null no inherit" } else { "id int not null" };
        pg.batch(&format!("create table t ({column}); create table c (extra text) inherits (t)")).await;
        if version < 18 {
            pg.batch("alter table c alter id drop not null").await;
        }
        pg.batch(
            "insert into t select generate_series(1, 2000); insert into c select generate_series(1, 2000);
            insert into c values (null, 'x'); analyze",
        )
        .await;
        for args in [&["--table", "t", "--key", "id", "--partitions", "4"][..], &["--table", "t"]] {
            rows_of(&pg, args, "select * from t", 0).await;
        }
    }
}

#[tokio::test]
async fn virtual_columns_are_computed_the_way_of_the_table_that_was_named() {
    let pg = pg(18).await;
    pg.batch(
        "create table p (id int, g int generated always as (id * 2) virtual) partition by range (id);
        create table l (g int generated always as (id * 100) virtual, id int);
        alter table p attach partition l for values from (0) to (1000);
        insert into p select i from generate_series(1, 100) i",
    )
    .await;
    rows_of(&pg, &["--table", "p", "--partitions", "2"], "select * from p", 0).await;
    rows_of(&pg, &["--table", "l", "--partitions", "2"], "select * from l", 0).await;
}

#[tokio::test]
async fn a_partition_that_is_being_detached_is_left_out_as_a_query_leaves_it_out() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table p (id int) partition by range (id);
            create table p1 partition of p for values from (0) to (1000);
            create table p2 partition of p for values from (1000) to (2000);
            insert into p select generate_series(1, 1999)",
        )
        .await;
        let (reader, other) = (pg.connect().await, pg.connect().await);
        reader.batch_execute("begin; select from p").await.unwrap();
        let detach =
            tokio::spawn(async move { other.batch_execute("alter table p detach partition p2 concurrently").await });
        eventually(Duration::from_secs(10), "the mark of the partition", async || {
            let pending = pg.value("select count(*) from pg_inherits where inhdetachpending").await;
            (pending == "1").then_some(())
        })
        .await;
        let done = rows_of(&pg, &["--table", "p"], "select * from p", 0).await;
        assert_eq!(done.manifest()["totals"]["rows"], 999);
        reader.batch_execute("commit").await.unwrap();
        detach.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_physical_cap_counts_by_place_though_an_index_would_serve_its_predicate() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table t as select (i * 7919) % 20000 as a, i as b from generate_series(1, 20000) i;
            create index on t (a); analyze t;
            do $$ begin execute format('alter database %I set enable_seqscan = off', current_database());
                execute format('alter database %I set enable_bitmapscan = off', current_database()); end $$",
        )
        .await;
        for partitions in ["1", "3"] {
            let args = ["--table", "t", "--where", "a < 9000", "--max-rows", "500", "--partitions", partitions];
            let query = "select a, b from (select a, b, ctid from t where a < 9000 order by ctid limit 500) x";
            rows_of(&pg, &args, query, 3).await;
        }
    }
}

#[tokio::test]
async fn a_capped_relation_of_several_leaves_is_one_part_where_one_is_asked_for() {
    let pg = pg(15).await;
    pg.batch(
        "create table p (id int) partition by range (id);
        create table p1 partition of p for values from (0) to (1000);
        create table p2 partition of p for values from (1000) to (2000);
        insert into p select generate_series(1, 1999)",
    )
    .await;
    let dest = tempfile::tempdir().unwrap();
    let to = dest.path().join("all.csv");
    let args = [&CSV[..], &["--table", "p", "--max-rows", "1500", "--single-file"]].concat();
    command(&pg, to.to_str().unwrap(), &args).run().await.expect(3);
    assert_eq!(sorted(&std::fs::read(&to).unwrap()).len(), 1500);
}

#[tokio::test]
async fn an_expression_over_other_rows_is_refused() {
    let pg = pg(15).await;
    pg.batch("create table t as select i as id, array[i, i + 1] as a from generate_series(1, 10) i").await;
    for expression in ["n=count(*)", "n=unnest(a)", "n=row_number() over (order by id)"] {
        let done = export_csv(&pg, &["--table", "t", "--column", expression], 2).await;
        assert!(done.run.stderr.contains("--column n has no value of its own in each row"), "{}", done.run.stderr);
    }
    let done = export_csv(&pg, &["--table", "t", "--column", "n=(select count(*) from unnest(a))"], 0).await;
    assert_eq!(done.manifest()["totals"]["rows"], 10);
}

const LEAVES: &str = "create schema s; create table s.p (id int primary key) partition by range (id);
    create table s.p1 partition of s.p for values from (0) to (1000); insert into s.p select generate_series(1, 900);
    create table s.n (id int primary key); insert into s.n select generate_series(1000, 1499);
    create view s.w as select * from s.p;
    create table s.j (id int primary key) partition by range (id);
    create table s.j1 partition of s.j for values from (0) to (1000); insert into s.j select generate_series(1, 900);
    create view s.joined as select p.id, j.id as other from s.p left join s.j on j.id = p.id";

const ATTACH: &str = "alter table s.p attach partition s.n for values from (1000) to (2000)";

#[tokio::test]
async fn what_is_behind_views_and_queries_is_locked_before_the_snapshot_with_all_its_leaves() {
    for version in both() {
        for (source, before, emptied, rows) in [
            (["--table", "s.w"], ATTACH, "truncate s.n", 1400),
            (["--query", "select * from s.p"], ATTACH, "truncate s.n", 1400),
            // Planned without its columns the join, and with it the leaf, would not be there to be locked.
            (["--table", "s.joined"], "select", "truncate s.j1", 900),
        ] {
            let pg = pg(version).await;
            pg.batch(LEAVES).await;
            let (dest, locked, planned) = (tempfile::tempdir().unwrap(), Stop::at("locked"), Stop::at("planned"));
            let to = dest.path().join("out");
            let run = command(&pg, to.to_str().unwrap(), &[&CSV[..], &source].concat());
            let run = run.stops([&locked, &planned]).spawn();
            run.stands_at(&locked).await;
            pg.batch(before).await;
            locked.release();
            run.stands_at(&planned).await;
            let expected =
                sorted(&copy(&pg, &source[1].replace("s.joined", "table s.joined").replace("s.w", "table s.w")).await);
            let other = pg.connect().await;
            other.batch_execute("set lock_timeout = '300ms'").await.unwrap();
            assert!(other.batch_execute(emptied).await.is_err(), "{version}: {emptied} got through");
            planned.release();
            run.wait().await.expect(0);
            assert_eq!(manifest(&to)["totals"]["rows"], rows);
            assert!(sorted(&data(&to)) == expected, "{version}: {source:?}");
        }
    }
}

#[tokio::test]
async fn a_relation_that_is_no_longer_what_was_planned_is_not_read_for_it() {
    let swap = "begin; alter schema s rename to gone; create schema s;
        create table s.p (id int primary key) partition by range (id);
        create table s.p1 partition of s.p for values from (0) to (1000); commit";
    for version in both() {
        for (args, change) in [
            (&["--table", "s.p"][..], swap),
            (&["--table", "s.p", "--key", "id"], swap),
            (&["--table", "s.p", "--read-mode", "keyset", "--page-size", "100"], swap),
            // Its rows would be in some partitions' reads, and make the capped ones too many.
            (&["--table", "s.p", "--max-rows", "850"], ATTACH),
        ] {
            let pg = pg(version).await;
            pg.batch(LEAVES).await;
            changed_at(&pg, "planned", args, change, 13).await;
        }
    }
}

#[tokio::test]
async fn a_lone_reader_holds_the_locks_when_the_lock_session_is_lost() {
    let pg = pg(15).await;
    pg.batch(LEAVES).await;
    let change = "select pg_terminate_backend(pid, 5000) from pg_stat_activity
            where datname = current_database() and application_name like 'outhaul/%/locks';
        do $$ begin set local lock_timeout = '300ms'; truncate s.p; raise 'it got through';
            exception when lock_not_available then null; end $$";
    let run = changed_at(&pg, "planned", &["--table", "s.p", "--readers", "1"], change, 0).await;
    assert_eq!(run.report["rows"], 900);
}

#[tokio::test]
async fn an_idle_reader_takes_the_place_of_a_keeper_that_died() {
    for version in both() {
        let pg = pg(version).await;
        // The second half takes seconds, the first none: its reader has nothing more to do then.
        pg.batch("create table t as select i as id from generate_series(1, 5000) i; analyze t").await;
        let slow = "case when id > 4990 then pg_sleep(0.5) is not null else true end";
        let dest = tempfile::tempdir().unwrap();
        let to = dest.path().join("out");
        let args = ["--table", "t", "--where", slow, "--readers", "2", "--partitions", "2"];
        let run = command(&pg, to.to_str().unwrap(), &[&CSV[..], &args].concat()).spawn();
        eventually(Duration::from_secs(10), "an idle reader", async || {
            // One stands ready before the other has come, too.
            let states = "select coalesce(string_agg(state, ', ' order by state), '') from pg_stat_activity
                where datname = current_database() and application_name like 'outhaul/%/reader'";
            (pg.value(states).await == "active, idle in transaction").then_some(())
        })
        .await;
        let keepers = pg.exporter_pids("keeper").await;
        pg.terminate(&keepers[0]).await;
        eventually(Duration::from_secs(10), "the reader as a keeper", async || {
            let now = pg.exporter_pids("keeper").await.len();
            (now == 2 && pg.exporter_pids("reader").await.len() == 1).then_some(())
        })
        .await;
        assert_eq!(run.wait().await.expect(0).report["rows"], 5000);
    }
}

#[tokio::test]
async fn a_key_that_sorts_otherwise_than_when_it_was_planned_ends_the_pages() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table t (k text collate pg_catalog.\"default\" primary key);
            insert into t select chr(97 + i % 26) || i from generate_series(1, 300) i",
        )
        .await;
        let pages = ["--table", "t", "--read-mode", "keyset", "--page-size", "100"];
        changed_at(&pg, "planned", &pages, "alter table t alter k type text collate pg_catalog.\"C\"", 13).await;
    }
}

#[tokio::test]
async fn leaves_in_a_schema_that_the_role_may_not_use_are_read_through_their_parent() {
    for version in both() {
        let pg = pg(version).await;
        // So many that the locks of all would be too many, where each is locked as it is read.
        let many = "create table p (id int, b int, v text, primary key (id, b)) partition by list (b);
            do $$ begin for i in 0..199 loop execute format('create table p%s partition of p for values in (%s)', i, i);
                end loop; end $$;
            create table parts.below partition of p for values in (200) partition by range (id);
            create table p_below partition of parts.below for values from (0) to (9999);
            insert into p select i, i % 201 from generate_series(1, 2010) i";
        pg.batch(&format!(
            "create schema parts; create table orders (id int primary key) partition by range (id);
            create table parts.o1 partition of orders for values from (0) to (1000);
            create table parts.o2 partition of orders for values from (1000) to (2000);
            insert into orders select generate_series(1, 1900); {many}"
        ))
        .await;
        let (url, role) = pg.role("").await;
        pg.batch(&format!("grant select on all tables in schema public, parts to {role}")).await;
        for (table, args) in
            [("orders", &["--partitions", "2"][..]), ("orders", &["--max-rows", "1900"]), ("p", &["--readers", "2"])]
        {
            let dest = tempfile::tempdir().unwrap();
            let to = dest.path().join("out");
            let fixed = ["export", "--from", &url, "--to", to.to_str().unwrap(), "--table", table];
            outhaul(fixed.iter().chain(&CSV).chain(args)).run().await.expect(0);
            assert!(sorted(&data(&to)) == sorted(&copy(&pg, &format!("table {table}")).await), "{version}: {table}");
        }
    }
}

/// Tables without children, with one, and what reads them.
const TREES: &str = "create table s.t (id int primary key); insert into s.t select generate_series(1, 900);
    create table s.q (id int primary key); create table s.q1 () inherits (s.q);
    insert into s.q1 select generate_series(1, 900); create view s.vt as select * from s.t;
    create function s.counted() returns bigint language plpgsql stable as 'begin return (select count(*) from s.n); end';
    create view s.lazy as select id, s.counted() from s.p";

const INHERIT: [&str; 2] = ["alter table s.n inherit s.t", "alter table s.n inherit s.q"];

#[tokio::test]
async fn older_rows_of_what_becomes_a_child_after_the_snapshot_are_not_among_those_that_were_there() {
    let below = "create table s.m (id int primary key) partition by range (id);
        alter table s.m attach partition s.n for values from (1000) to (2000);
        alter table s.p attach partition s.m for values from (1000) to (2000)";
    let [of_plain, of_parent] = INHERIT;
    for version in both() {
        for (args, change) in [
            // Counted without them, the cap would say that the rows were all.
            (&["--table", "s.w", "--max-rows", "950"][..], ATTACH),
            (&["--table", "s.w"], ATTACH),
            (&["--table", "s.w", "--readers", "1"], ATTACH),
            (&["--table", "s.w", "--key", "id", "--partitions", "4"], ATTACH),
            (&["--query", "select * from s.p"], ATTACH),
            (&["--query", "select * from s.p", "--key", "id", "--partitions", "4"], ATTACH),
            (&["--query", "select * from s.p"], below),
            (&["--table", "s.lazy"], ATTACH),
            (&["--table", "s.vt"], of_plain),
            (&["--query", "select * from s.t", "--readers", "1"], of_plain),
            (&["--table", "s.q", "--key", "id", "--partitions", "4"], of_parent),
            // What a predicate reads beside the relation.
            (&["--table", "s.t", "--where", "id + 500 in (select id from s.p)"], ATTACH),
            (&["--table", "s.j", "--where", "id in (select id from s.t)", "--readers", "1"], of_plain),
        ] {
            let trees = async || {
                let pg = pg(version).await;
                pg.batch(&format!("{LEAVES}; {TREES}")).await;
                pg
            };
            changed_without(&trees().await, "planned", args, change, "newcomers").await.expect(0);
            let run = changed_at(&trees().await, "planned", args, change, 13).await;
            assert!(run.stderr.contains("s.n came to inherit"), "{version}: {args:?}: {}", run.stderr);
        }
    }
}

#[tokio::test]
async fn of_several_relations_only_those_fail_that_something_came_to_inherit_from() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(&format!("{LEAVES}; {TREES}")).await;
        let one = |table: &str| format!("[[export]]\ntable = '{table}'\nto = 'ROOT/{table}'\n");
        let night = Night::new(&["s.w", "s.vt", "s.p"].map(one).concat());
        let planned = Stop::at("planned");
        let run = night.run(&pg, &["--readers", "2"]).stops([&planned]).spawn();
        run.stands_at(&planned).await;
        pg.batch(ATTACH).await;
        planned.release();
        let run = run.wait().await.expect(13);
        assert_eq!(night.committed(), ["s.p", "s.vt"].map(str::to_owned).into(), "{}", run.stderr);
        assert_eq!(manifest(&night.out("s.p"))["totals"]["rows"], 900);
    }
}

#[tokio::test]
async fn what_becomes_a_child_and_is_not_read_or_has_no_rows_yet_ends_nothing() {
    let new = "create table s.new () inherits (s.t); insert into s.new values (5000)";
    let [of_plain, of_parent] = INHERIT;
    for version in both() {
        for (args, change) in [
            (&["--table", "s.t", "--key", "id", "--partitions", "4"][..], of_plain),
            (&["--table", "s.t", "--max-rows", "950"], of_plain),
            (&["--table", "s.t", "--where", "id > 0 or (select true)", "--readers", "1"], of_plain),
            (&["--table", "s.q"], of_parent),
            (&["--table", "s.p"], ATTACH),
            (&["--table", "s.p", "--where", "id in (select id from s.q)"], ATTACH),
            (&["--table", "s.vt"], new),
            (&["--table", "s.vt", "--readers", "1"], new),
            // What a function reads was locked by nobody before.
            (&["--table", "s.lazy"], "create index on s.n (id)"),
            (&["--table", "s.lazy", "--readers", "1"], "select"),
        ] {
            let pg = pg(version).await;
            pg.batch(&format!("{LEAVES}; {TREES}")).await;
            let run = changed_at(&pg, "planned", args, change, 0).await;
            assert_eq!(run.report["rows"], 900, "{version}: {args:?}");
        }
    }
}
