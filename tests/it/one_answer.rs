//! One answer however the work is split: clocks have one moment, and what each statement would answer differently is
//! read by one statement (I4, I5, I7).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::job::{Export, copy, export, export_csv, sorted};
use crate::support::pg::{Pg, both, pg};
use crate::support::place::{Place, export as export_to};
use crate::support::run::{Stop, outhaul};

/// 4,000 rows in some dozens of blocks.
const TABLE: &str =
    "create table t as select i as id, md5(i::text) as v, timestamptz '2000-01-01' + i * interval '1 day' as at
        from generate_series(1, 4000) i;
    alter table t add primary key (id); alter table t set (autovacuum_enabled = off); analyze t";

/// Every spelling of the same moment.
const CLOCKS: &str = "now(), Transaction_Timestamp ( ) as tt, statement_timestamp() as st,
    current_timestamp, CURRENT_TIMESTAMP(3)::text as ct3, localtimestamp as \"L\", localtime(0), current_time, current_date, now()::date as d,
    coalesce(null, /* now() */ now()) -- now()";

fn lines(data: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8(data.to_vec()).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// The distinct values of all columns from the nth on.
fn beyond(data: &[u8], nth: usize) -> BTreeSet<Vec<String>> {
    lines(data).into_iter().map(|line| line[nth..].to_vec()).collect()
}

fn note(manifest: &Value) -> String {
    manifest["consistency"]["note"].as_str().unwrap_or_default().to_owned()
}

/// The manifest's moment as PostgreSQL prints it.
fn moment(manifest: &Value) -> String {
    let at = manifest["consistency"]["now"].as_str().expect("a moment").replace('T', " ");
    let digits = at.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}+00")
}

#[tokio::test]
async fn every_clock_is_one_moment_in_every_reader() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let query = format!("select id, {CLOCKS}\nfrom t");
        for more in [&["--partitions", "4"][..], &["--partitions", "4", "--max-rows", "3000", "--allow-truncated"]] {
            let args = [&["--query", &query, "--key", "id", "--csv-header", "on"], more].concat();
            let done = export(&pg, &[&["--format", "csv"], &args[..]].concat()).await.expect(0);
            let manifest = done.manifest();
            if more.len() == 2 {
                assert_eq!(done.partitions(), 4, "{version}: {}", note(&manifest));
            }
            let values = beyond(&done.data(), 1);
            assert_eq!(values.len(), 1, "{version} {more:?}: {values:?}");
            let first = values.first().unwrap();
            assert_eq!(first[0], moment(&manifest), "{version}");
            assert_eq!((&first[0], &first[0]), (&first[1], &first[2]), "{version}");
            assert_eq!(first[5].as_str(), first[0].trim_end_matches("+00"), "{version}");
            assert_eq!((&first[8], first[8].as_str()), (&first[9], &first[0][..10]), "{version}");
            let header = columns(&manifest).join(" ");
            let expected = "id now tt st current_timestamp ct3 L localtime current_time current_date d coalesce";
            assert_eq!(header, expected, "{version}");
            assert_eq!(manifest["source"]["query"], query, "what the person wrote");
        }
    }
}

fn columns(manifest: &Value) -> Vec<&str> {
    manifest["schema"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_table_has_one_moment_by_place_by_key_under_a_cap_and_by_pages() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        for more in [
            &["--partitions", "4"][..],
            &["--partitions", "4", "--key", "id"],
            &["--partitions", "4", "--max-rows", "3999", "--allow-truncated"],
            &["--partitions", "4", "--max-rows", "3999", "--key", "at,id", "--allow-truncated"],
            &["--read-mode", "keyset", "--page-size", "500"],
        ] {
            let args =
                ["--table", "t", "--where", "at < now() - interval '1 day'", "--columns", "id", "--column", "n=now()"];
            let args = [&args[..], more].concat();
            let done = export_csv(&pg, &args, 0).await;
            let values = beyond(&done.data(), 1);
            assert_eq!(values, BTreeSet::from([vec![moment(&done.manifest())]]), "{version} {more:?}");
            assert_eq!(done.manifest()["source"]["predicate"], "at < now() - interval '1 day'");
            if more.len() == 2 || more.contains(&"--key") && !more.contains(&"--max-rows") {
                // The last blocks of a heap may be empty.
                assert!(done.partitions() > 2, "{version} {more:?}: {}", note(&done.manifest()));
            }
        }
        let off = ["--table", "t", "--columns", "id", "--column", "n=now()", "--partitions", "4", "--readers", "4"];
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let run = crate::support::job::command(
            &pg,
            to.to_str().unwrap(),
            &[&["--format", "csv", "--csv-header", "off"], &off[..]].concat(),
        );
        run.env("OUTHAUL_TEST_OFF", "clocks,volatility").run().await.expect(0);
        assert!(beyond(&crate::support::job::data(&to), 1).len() > 1, "{version}: the mechanism was off");
    }
}

#[tokio::test]
async fn the_moment_outlives_a_reader_and_a_process() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let args = ["--columns", "id", "--column", "n=now()", "--key", "id"];
    let place = Place::local();
    let stop = Stop::at("batch");
    let running = export_to(&pg, &place, &args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    for reader in pg.exporter_pids("reader").await {
        pg.terminate(&reader).await;
    }
    stop.release();
    running.wait().await.expect(0);
    let manifest = place.manifest().await;
    assert_eq!(beyond(&place.whole().await.join("\n").into_bytes(), 1), BTreeSet::from([vec![moment(&manifest)]]));

    for (keep, resume) in [(&["--keep-snapshot", "60s"][..], &[][..]), (&[], &["--allow-mixed-snapshot"])] {
        let place = Place::local();
        let stop = Stop::at("receipted");
        let running = export_to(&pg, &place, &[&args[..], keep].concat()).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        let url = place.url();
        let all = ["resume", &url, "--from", &pg.url, "--report", "json", "--progress", "none"];
        outhaul(all.iter().chain(resume)).run().await.expect(0);
        let manifest = place.manifest().await;
        let values = beyond(&place.whole().await.join("\n").into_bytes(), 1);
        assert_eq!(values, BTreeSet::from([vec![moment(&manifest)]]), "{resume:?}");
        assert_eq!(place.whole().await.len(), 4000, "{resume:?}");
    }
}

#[tokio::test]
async fn a_view_of_current_versions_loses_none_to_a_lost_reader() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create table h(id int primary key, entity text, valid_from timestamptz, valid_to timestamptz, pad text);
            insert into h select g, 'e' || g, '2000-01-01', 'infinity', repeat('x', 300) from generate_series(1, 20000) g;
            create view current as select id, entity, pad from h where valid_from <= now() and now() < valid_to;
            analyze h;
            update h set entity = 'CUSTOMER', valid_to = now() + interval '3 s' where id = 1;
            update h set entity = 'CUSTOMER', valid_from = (select valid_to from h where id = 1) where id = 20000").await;
        let place = Place::local();
        let stop = Stop::at("batch");
        let args = ["--table", "current", "--key", "id", "--partitions", "2"];
        let running = export_to(&pg, &place, &args).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        eventually(Duration::from_secs(10), "the version ends", async || {
            (pg.value("select now() > valid_to from h where id = 1").await == "t").then_some(())
        })
        .await;
        for reader in pg.exporter_pids("reader").await {
            pg.terminate(&reader).await;
        }
        stop.release();
        let run = running.wait().await.expect(0);
        assert!(run.stderr.contains("repeated under the same snapshot"), "{}", run.stderr);
        let rows = place.whole().await;
        assert_eq!(rows.len(), 19999, "{version}");
        assert_eq!(rows.iter().filter(|row| row.contains("CUSTOMER")).count(), 1, "{version}");
        let manifest = place.manifest().await;
        assert!(note(&manifest).contains("now() in view public.current"), "{}", note(&manifest));
        // Its cap is exact at the moment of the one statement.
        for (cap, code) in [("19998", 3), ("19999", 0), ("20000", 0)] {
            let done = export_csv(&pg, &["--table", "current", "--max-rows", cap], code).await;
            assert_eq!(done.manifest()["totals"]["rows"], cap.parse::<u64>().unwrap().min(19999), "{version}");
            assert_eq!(done.manifest()["row_cap"]["truncated"], code == 3, "{version}");
        }
    }
}

/// What is made beside the table `t`.
const OBJECTS: &str = "create schema app;
    create function app.vol(int) returns int language sql as 'select 1';
    create function app.stab(int) returns int language sql stable as 'select 1';
    create function app.sure(int) returns int language sql immutable as 'select 1';
    create function of_row(t) returns int language sql volatile as 'select 1';
    create function app.less(int, text) returns bool language sql volatile as 'select true';
    create operator app.<<< (function = app.less, leftarg = int, rightarg = text);
    create function app.step(int, int) returns int language sql volatile as 'select 1';
    create aggregate app.odd(int) (sfunc = app.step, stype = int, initcond = '0');
    create type app.kind as (n int);
    create function app.kind(int) returns app.kind language sql volatile as 'select row($1)::app.kind';
    create cast (int as app.kind) with function app.kind(int);
    create view app.v_pick as select * from t order by random() limit 1000;
    create view app.v_over_pick with (security_barrier) as select id, v from app.v_pick where id > 0;
    create view app.v_sample as select * from t tablesample bernoulli (50);
    create view app.v_skip as select * from t offset 5;
    create view app.v_one as select distinct on (v) * from t;
    create view app.v_win as select *, row_number() over () as r from t;
    create view app.v_sub as select * from t where id in (select (random() * 4000)::int from generate_series(1, 500));
    create view app.v_cte as with w as materialized (select *, app.vol(id) as x from t) select id from w;
    create view app.v_stable as select *, app.stab(id) as x from t;
    create view app.v_operator as select * from t where id operator(app.<<<) v;
    create view app.v_cast as select id, cast(id as app.kind) as k from t;
    create view app.v_aggregate as select id, app.odd(id) as o from t group by id;
    create view app.v_today as select *, current_date as d from t;
    create view app.v_local as select *, localtime(2) as d from t;
    create view app.v_text as select * from t where at < 'now'::text::timestamptz;
    create view app.v_age as select id, age(at) as a from t;
    create view app.v_setting as select id, current_setting('application_name') as a from t;
    create view app.v_pid as select id, pg_backend_pid() as p from t;
    create view app.v_lateral as select t.id, r.x from t, lateral (select random() as x) r;
    create view app.v_clock as select id, clock_timestamp() as c from t;
    create view app.v_fine as select id, date_trunc('day', at) as d, to_char(at, 'YYYY') as y, json_build_object('id', id) as j,
        at + interval '1 day' as n, app.sure(id) as s, lower(v) as l from t where at > '2000-01-01';
    create view app.v_over_fine as select id, max(y) as y, json_agg(j) as j from app.v_fine group by id;
    create materialized view app.kept as select id, random() as r from t;
    create view app.v_over_kept as select id, r from app.kept;
    analyze app.kept";

#[tokio::test]
async fn what_each_statement_answers_differently_is_read_by_one() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        pg.batch(OBJECTS).await;
        let picked = export_csv(&pg, &["--table", "app.v_pick", "--key", "id", "--partitions", "4"], 0).await;
        assert_eq!(picked.manifest()["totals"]["rows"], 1000, "{version}");
        for (view, what) in [
            ("pick", "LIMIT in view app.v_pick"),
            ("over_pick", "LIMIT in view app.v_pick"),
            ("sample", "TABLESAMPLE in view app.v_sample"),
            ("skip", "OFFSET in view app.v_skip"),
            ("one", "DISTINCT ON in view app.v_one"),
            ("win", "a window function in view app.v_win"),
            ("sub", "random() in view app.v_sub"),
            ("cte", "app.vol(), which is not labelled IMMUTABLE, in view app.v_cte"),
            ("stable", "app.stab()"),
            ("operator", "app.less()"),
            ("cast", "app.kind()"),
            ("aggregate", "app.step()"),
            ("today", "a clock (current_date, …) in view app.v_today"),
            ("local", "a clock"),
            ("text", "the time 'now'"),
            ("age", "age() in view app.v_age"),
            ("setting", "current_setting()"),
            ("pid", "pg_backend_pid()"),
            ("lateral", "random()"),
            ("clock", "clock_timestamp()"),
        ] {
            one(&pg, &["--table", &format!("app.v_{view}")], what).await;
            one(&pg, &["--query", &format!("select * from app.v_{view}")], what).await;
        }
        for (query, what) in [
            ("select * from t order by random() limit 1000", "LIMIT in the query"),
            ("select id from t where random() < 0.5", "random() in the query"),
            ("select id from (values (1, random()), (2, random())) v(id, r)", "random() in the query"),
            ("with r as (select random() as x) select id, x from t, r", "random()"),
            ("select id, \"random\"() from t", "random()"),
            ("select id from t where at < 'now'", "the time 'now' in the query"),
            ("select id, date 'TODAY' from t", "the time 'TODAY'"),
            ("select id, E'\\x6eow'::text::timestamptz from t", "the time"),
            ("select id, \"now\"() from t", "now() in the query"),
            ("select id, t.of_row from t", "of_row()"),
            ("select id from t where id operator(app.<<<) v", "app.less()"),
            ("select id, id::app.kind as k from t", "app.kind()"),
            ("select id, U&\"\\0072andom\"() from t", "a name in Unicode escapes"),
            ("select id, sum(id) over (order by v) from t", "a window function"),
            ("select id from app . \"v_over_pick\"", "LIMIT in view app.v_pick"),
        ] {
            one(&pg, &["--query", query], what).await;
        }
        for (flag, text, what) in [
            ("--where", "app.stab(id) = 1", "in --where"),
            ("--where", "id in (select id from app.v_pick)", "LIMIT in view app.v_pick"),
            ("--where", "id < (select random() * 4000)", "random() in --where"),
            ("--where", "at < 'now'", "in --where"),
            ("--column", "x=app.vol(id)", "in --column x"),
            ("--column", "x=pg_backend_pid()", "pg_backend_pid() in --column x"),
            ("--column", "x=(select max(id) from app.v_sample)", "TABLESAMPLE in view app.v_sample"),
            ("--column", "x=of_row(t)", "in --column x"),
            ("--column", "x=\"now\"()", "now() in --column x"),
        ] {
            one(&pg, &["--table", "t", flag, text], what).await;
            let refused = export(&pg, &["--table", "t", "--read-mode", "keyset", flag, text]).await.expect(2);
            assert!(refused.run.stderr.contains("--read-mode copy"), "{text}: {}", refused.run.stderr);
        }
    }
}

/// Reads it by one statement although it is asked to be split, and says why in plan, log and manifest.
async fn one(pg: &Pg, args: &[&str], what: &str) -> Export {
    let split = ["--key", "id", "--partitions", "4"];
    let args = [args, &split].concat();
    let done = export_csv(pg, &args, 0).await;
    let said = note(&done.manifest());
    assert!(said.contains(what) && said.starts_with("read as one statement: "), "{args:?}: {said:?} without {what:?}");
    assert_eq!(done.partitions(), 1, "{args:?}");
    assert!(done.run.stderr.contains("one statement reads them all"), "{args:?}: {}", done.run.stderr);
    done
}

/// A cast that nobody wrote keeps texts whole only where it may occur, and is named.
#[tokio::test]
async fn a_cast_counts_where_its_types_may_occur() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        pg.batch(
            "create type box1 as (n int); create domain boxed as box1; create type mood as enum ('a', 'b');
            create function box_int(box1) returns int language sql volatile as 'select pg_backend_pid()';
            create cast (box1 as int) with function box_int(box1) as implicit;
            create function mood_int(mood) returns int language sql stable as 'select 1';
            create cast (mood as int) with function mood_int(mood) as implicit;
            create function boxes(int) returns box1 language sql immutable as 'select row($1)::box1';
            create function unboxed(boxed[]) returns int language sql immutable as 'select 1';
            create operator @@@ (function = boxes, rightarg = int);
            create table b (id int primary key, b box1, m mood); insert into b select i, row(i)::box1, 'a' from generate_series(1, 9) i;
            create view over_b as select id, m from b; create table arrays (id int primary key, bs boxed[])",
        )
        .await;
        let cast = "the cast from box1 to integer by public.box_int(), which is not labelled IMMUTABLE, in";
        for text in ["id < 3000", "v like '1%' and id % 2 = 0", "at > '2000-01-01' and id between 1 and 3900"] {
            let args = ["--table", "t", "--where", text];
            export(&pg, &[&args[..], &["--read-mode", "keyset"]].concat()).await.expect(0);
            let done = export_csv(&pg, &[&args[..], &["--key", "id", "--partitions", "4"]].concat(), 0).await;
            assert!(done.partitions() > 1, "{version} {text}");
            let query = format!("select id, v from t where {text}");
            let done = export_csv(&pg, &["--query", &query, "--key", "id", "--partitions", "4"], 0).await;
            assert!(done.partitions() > 1, "{version} {text}");
        }
        for text in [
            "row(id)::box1 < 5",
            "(boxes(id)).n < 5",
            "(@@@ id).n > 1",
            "unboxed(null) = 1",
            "id < any ('{1}'::int[]) and null::boxed is null",
        ] {
            one(&pg, &["--table", "t", "--where", text], cast).await;
            one(&pg, &["--query", &format!("select id from t where {text}")], cast).await;
        }
        one(&pg, &["--table", "b", "--where", "id > 0"], cast).await;
        one(&pg, &["--table", "arrays", "--where", "id > 0"], cast).await;
        one(&pg, &["--query", "select b.id from b where id > 0"], cast).await;
        let mood = "the cast from mood to integer by public.mood_int(), which is not labelled IMMUTABLE, in --where";
        one(&pg, &["--table", "over_b", "--where", "id > 0"], mood).await;
        let refused = export(&pg, &["--table", "b", "--read-mode", "keyset", "--where", "id > 0"]).await.expect(2).run;
        assert!(refused.stderr.contains(cast), "{version}: {}", refused.stderr);
        // As the hint says.
        export(&pg, &["--table", "b", "--read-mode", "copy", "--where", "id > 0"]).await.expect(0);
    }
}

#[tokio::test]
async fn what_is_known_to_be_harmless_is_split() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        pg.batch(OBJECTS).await;
        for (args, equal) in [
            (&["--table", "app.v_fine", "--columns", "id,d,y,n,s,l"][..], "select id, d, y, n, s, l from app.v_fine"),
            (&["--table", "app.v_over_fine", "--columns", "id,y"], "select id, y from app.v_over_fine"),
            (&["--query", "select v_pick.id, v_pick.v as v_win from t as v_pick"], "select id, v from t"),
            (&["--table", "app.v_over_kept"], "select * from app.v_over_kept"),
            (&["--table", "app.kept"], "select * from app.kept"),
            (
                &["--query", "select id, to_char(at, 'DD') from t where at > now() - interval '90 years'"],
                "select id, to_char(at, 'DD') from t",
            ),
            (&["--query", "select distinct id from t where v like '%' order by id"], "select id from t"),
            (
                &["--table", "t", "--columns", "id", "--where", "exists (select 1 from t u where u.id = t.id)"],
                "select id from t",
            ),
            (
                &["--table", "t", "--columns", "id,v", "--where", "at is not null and app.sure(id) = 1"],
                "select id, v from t",
            ),
        ] {
            let done = export_csv(&pg, &[args, &["--key", "id", "--partitions", "4"]].concat(), 0).await;
            assert_eq!(done.partitions(), 4, "{args:?}: {}", note(&done.manifest()));
            assert_eq!(done.sorted(), sorted(&copy(&pg, equal).await), "{args:?}");
        }
        // A row of its own moment or chance is the same however the rows are split.
        for args in
            [["--where", "random() < 0.5"], ["--column", "u=gen_random_uuid()"], ["--column", "c=clock_timestamp()"]]
        {
            let done = export_csv(&pg, &[&["--table", "t", "--partitions", "4"], &args[..]].concat(), 0).await;
            assert!(done.partitions() > 2, "{args:?}: {}", note(&done.manifest()));
        }
    }
}

#[tokio::test]
async fn without_the_check_a_sample_has_rows_that_it_can_never_have() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    pg.batch(OBJECTS).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let args = ["--table", "app.v_pick", "--key", "id", "--partitions", "4"];
    let run = crate::support::job::command(&pg, to.to_str().unwrap(), &args).env("OUTHAUL_TEST_OFF", "volatility");
    run.run().await.expect(0);
    assert_eq!(crate::support::manifest(&to)["consistency"]["note"], json!(null));
    let parts = crate::support::manifest(&to)["parts"].as_array().unwrap().len();
    assert_eq!(parts, 4, "four samples of a sample");
}

#[tokio::test]
async fn a_cap_is_exact_over_rows_that_each_statement_chooses() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        pg.batch(OBJECTS).await;
        for (args, cap, code, rows) in [
            (&["--table", "t", "--where", "random() < 0.5"][..], "1000", 3, 1000),
            (&["--table", "t", "--where", "random() < 0.5", "--key", "at"], "1000", 3, 1000),
            (&["--table", "t", "--where", "random() < 2", "--partitions", "3"], "4000", 0, 4000),
            (&["--table", "t", "--where", "random() < 2"], "3999", 3, 3999),
            (&["--table", "app.v_pick"], "999", 3, 999),
            (&["--table", "app.v_pick", "--key", "id"], "1000", 0, 1000),
            (&["--table", "app.v_pick"], "1001", 0, 1000),
            (&["--query", "select * from t where random() < 0.5"], "1000", 3, 1000),
            (&["--query", "select * from t limit 100"], "50", 3, 50),
            (&["--table", "app.v_sample"], "100", 3, 100),
        ] {
            let done = export_csv(&pg, &[args, &["--max-rows", cap]].concat(), code).await;
            let manifest = done.manifest();
            assert_eq!(manifest["totals"]["rows"], rows, "{version} {args:?}");
            assert_eq!(done.sorted().len(), rows, "{version} {args:?}");
            let cap: u64 = cap.parse().unwrap();
            let available = if code == 3 {
                json!({"kind": "at_least", "value": cap + 1})
            } else {
                json!({"kind": "exact", "value": rows})
            };
            assert_eq!(manifest["row_cap"]["rows_available"], available, "{version} {args:?}");
            assert_eq!(manifest["row_cap"]["truncated"], code == 3, "{version} {args:?}");
            assert!(note(&manifest).contains("read as one statement"), "{version} {args:?}");
        }
        let args = ["--table", "t", "--where", "random() < 0.5", "--max-rows", "10", "--read-mode", "keyset"];
        let refused = export(&pg, &args).await.expect(2);
        assert!(refused.run.stderr.contains("random() in --where"), "{}", refused.run.stderr);
        // The value of a column is no matter of the cap.
        let done = export_csv(&pg, &["--table", "t", "--column", "u=random()", "--max-rows", "10"], 3).await;
        assert_eq!(done.manifest()["row_cap"]["order"], "key");
    }
}

#[tokio::test]
async fn plan_and_run_say_it_and_a_policy_is_looked_behind() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    pg.batch(OBJECTS).await;
    let plan = async |args: &[&str]| {
        let fixed = ["plan", "--from", &pg.url, "--report", "json"];
        let run = outhaul(fixed.iter().chain(args)).run().await.expect(0);
        let plan: Value = serde_json::from_slice(&run.stdout).unwrap();
        plan
    };
    let view = plan(&["--table", "app.v_pick", "--key", "id", "--partitions", "4"]).await;
    assert!(view.to_string().contains("one statement: LIMIT in view app.v_pick"), "{view}");
    let clock = plan(&["--table", "t", "--where", "at < now()"]).await;
    assert!(clock.to_string().contains("\"predicate\":\"at < now()\""), "{clock}");
    assert!(clock.to_string().contains("\"now\":\"20"), "{clock}");
    let text = outhaul(["plan", "--from", &pg.url, "--table", "app.v_pick"]).run().await.expect(0);
    assert!(String::from_utf8(text.stdout).unwrap().contains("one statement: LIMIT in view app.v_pick"));

    // Once more by the same id: another moment, the same request.
    let place = Place::local();
    let args = ["--where", "at < now()", "--run-id", "one"];
    export_to(&pg, &place, &args).run().await.expect(0);
    let again = export_to(&pg, &place, &args).run().await.expect(0);
    assert_eq!(again.report["already_committed"], true);
    let url = place.url();
    let verify = ["verify", &url, "--against-source", "--from", &pg.url];
    outhaul(verify).run().await.expect(0);

    let (url, role) = pg.role("").await;
    pg.batch(&format!(
        "grant select on t to {role}; alter table t enable row level security;
        create policy p on t using (at < now() and id < 3000)"
    ))
    .await;
    let place = Place::local();
    place.export(&url, &["--allow-rls", "--key", "id"]).run().await.expect(0);
    let manifest = place.manifest().await;
    assert!(note(&manifest).contains("now() in a policy of public.t"), "{manifest}");
    assert_eq!(place.whole().await.len(), 2999);
}

#[tokio::test]
async fn a_clock_of_somebody_else_is_left_alone() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    pg.batch(
        "create schema fake; create function fake.now() returns timestamptz immutable language sql
        as $$ select timestamptz '2001-01-01' $$",
    )
    .await;
    let name = pg.value("select current_database()").await;
    let args = ["--table", "t", "--columns", "id", "--column", "n=now()"];
    let done = export_csv(&pg, &[&args[..], &["--partitions", "4"]].concat(), 0).await;
    assert_eq!((done.partitions() > 1, beyond(&done.data(), 1).len()), (true, 1), "not on the path");
    pg.batch(&format!("alter database {name} set search_path = fake, pg_catalog, public")).await;
    let done = export_csv(&pg, &[&args[..], &["--partitions", "4"]].concat(), 0).await;
    assert_eq!(beyond(&done.data(), 1), BTreeSet::from([vec!["2001-01-01 00:00:00+00".to_owned()]]));
    assert_eq!(done.manifest()["consistency"]["now"], json!(null));
    let done = export_csv(&pg, &["--table", "t", "--where", "at < now()"], 0).await;
    assert_eq!(done.manifest()["totals"]["rows"], 365);
}
