//! What names stand for, and whose eyes read: the same for every statement of a run, whatever other sessions create,
//! replace or set meanwhile (I4, I5, I13).

use std::collections::BTreeSet;

use crate::support::pg::{Pg, both, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Stop, outhaul};

/// The tables `near.tt` and `far.tt`, and a function in `far`; a role that has `near` before `far` on its path.
const OBJECTS: &str = "create schema near; create schema far;
    create table far.tt as select i as id, 'far' as v from generate_series(1, 4000) i; alter table far.tt add primary key (id);
    create table near.other as select i as id, 'near' as v from generate_series(1, 4000) i; alter table near.other add primary key (id);
    create table far.other as select i as id, 'far' as v from generate_series(1, 4000) i; alter table far.other add primary key (id);
    create function far.f(int) returns text language sql immutable as $$ select 'far' $$;
    create function far.less(int, text) returns bool language sql immutable as $$ select true $$;
    create operator far.<<< (function = far.less, leftarg = int, rightarg = text);
    create view far.v as select id, far.f(id) as v from far.tt; analyze";

/// Makes the objects, and a role with `near, far` as its path: its URL and its name.
async fn made(pg: &Pg) -> (String, String) {
    pg.batch(OBJECTS).await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!(
        "grant usage on schema near, far to {role}; grant select on all tables in schema near, far to {role};
        alter default privileges in schema near grant select on tables to {role};
        alter role {role} set search_path = near, far"
    ))
    .await;
    (url, role)
}

/// The distinct values of the last column.
async fn last(place: &Place) -> BTreeSet<String> {
    place.whole().await.iter().filter_map(|row| Some(row.rsplit_once(',')?.1.to_owned())).collect()
}

const BY_QUERY: &[&str] = &["--query", "select * from tt", "--key", "id"];
const SHADOW: &str = "create table near.tt as select 1 as id, 'near' as v; alter table near.tt add primary key (id)";

#[tokio::test]
async fn a_name_that_comes_to_mean_something_else_ends_the_run() {
    for version in both() {
        let pg = pg(version).await;
        let (url, _) = made(&pg).await;
        for (args, change, undo) in [
            (BY_QUERY, SHADOW, "drop table near.tt"),
            (&["--query", "select * from tt"], SHADOW, "drop table near.tt"),
            (&["--table", "far.tt", "--where", "id in (select id from tt)"], SHADOW, "drop table near.tt"),
            (
                &[
                    "--table",
                    "far.tt",
                    "--where",
                    "id in (select id from tt)",
                    "--read-mode",
                    "keyset",
                    "--page-size",
                    "500",
                ],
                SHADOW,
                "drop table near.tt",
            ),
            (
                &["--table", "far.tt", "--column", "z=f(id)"],
                "create function near.f(int) returns text language sql immutable as $$ select 'near' $$",
                "drop function near.f",
            ),
            (
                &["--table", "far.tt", "--where", "far.f(id) = 'far'"],
                "create or replace function far.f(int) returns text language sql immutable as $$ select 'new' $$",
                "create or replace function far.f(int) returns text language sql immutable as $$ select 'far' $$",
            ),
            (
                &["--table", "far.tt", "--where", "id <<< v"],
                "create operator near.<<< (function = far.less, leftarg = int, rightarg = text)",
                "drop operator near.<<< (int, text)",
            ),
            (
                &["--table", "far.v", "--key", "id"],
                "create or replace function far.f(int) returns text language sql immutable as $$ select 'new' $$",
                "create or replace function far.f(int) returns text language sql immutable as $$ select 'far' $$",
            ),
        ] {
            let place = Place::local();
            let stop = Stop::at("planned");
            let running = place.export(&url, args).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            pg.batch(change).await;
            stop.release();
            let run = running.wait().await.expect(13);
            assert!(run.stderr.contains("than when the run began"), "{version} {args:?}: {}", run.stderr);
            assert!(place.visible().await.is_empty(), "{version} {args:?}");
            pg.batch(undo).await;
            place.export(&url, args).run().await.expect(0);
            assert_eq!(place.whole().await.len(), 4000, "{version} {args:?}");
        }
    }
}

#[tokio::test]
async fn without_the_comparison_the_export_is_of_the_new_table() {
    let pg = pg(18).await;
    let (url, _) = made(&pg).await;
    let place = Place::local();
    let stop = Stop::at("planned");
    let running = place.export(&url, BY_QUERY).env("OUTHAUL_TEST_OFF", "meaning").stops([&stop]).spawn();
    running.stands_at(&stop).await;
    pg.batch(SHADOW).await;
    stop.release();
    running.wait().await.expect(0);
    assert_eq!(place.whole().await.len(), 0, "its rows came after the snapshot");
}

#[tokio::test]
async fn objects_elsewhere_and_schemas_that_come_onto_the_path_change_nothing() {
    for version in both() {
        let pg = pg(version).await;
        let (url, role) = made(&pg).await;
        pg.batch(&format!("alter role {role} set search_path = \"$user\", near, far; create schema aside")).await;
        let place = Place::local();
        let stop = Stop::at("planned");
        let running = place.export(&url, BY_QUERY).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        pg.batch(&format!(
            "create schema {role} authorization {role}; create table {role}.tt as select 1 as id, 'near' as v;
            create table aside.tt as select 1 as id; grant select on {role}.tt to public; analyze far.tt"
        ))
        .await;
        stop.release();
        running.wait().await.expect(0);
        assert_eq!((place.whole().await.len(), last(&place).await.len()), (4000, 1), "{version}");
    }
}

#[tokio::test]
async fn a_role_s_new_search_path_changes_nothing_for_a_run_or_its_resume() {
    for version in both() {
        let pg = pg(version).await;
        let (url, role) = made(&pg).await;
        let args = ["--query", "select * from other", "--key", "id", "--keep-snapshot", "60s"];
        for kill in [false, true] {
            pg.batch(&format!("alter role {role} set search_path = near, far")).await;
            let place = Place::local();
            let stop = Stop::at(if kill { "receipted" } else { "batch" });
            let running = place.export(&url, &args).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            pg.batch(&format!("alter role {role} set search_path = far, near")).await;
            if kill {
                running.signal("KILL").await;
                running.wait().await;
                let to = place.url();
                outhaul(["resume", &to, "--from", &url, "--progress", "none"]).run().await.expect(0);
            } else {
                for reader in pg.exporter_pids("reader").await {
                    pg.terminate(&reader).await;
                }
                stop.release();
                running.wait().await.expect(0);
            }
            assert_eq!(last(&place).await, BTreeSet::from(["near".to_owned()]), "{version} {kill}");
            assert_eq!(place.whole().await.len(), 4000, "{version} {kill}");
        }
    }
}

#[tokio::test]
async fn a_run_is_not_resumed_through_the_eyes_of_another_role() {
    for version in both() {
        let pg = pg(version).await;
        let (one, name) = made(&pg).await;
        let (other, other_name) = pg.role("").await;
        pg.batch(&format!(
            "create table far.own as select i as id, case when i % 2 = 0 then '{name}' else '{other_name}' end as v
                from generate_series(1, 4000) i; alter table far.own add primary key (id); analyze far.own;
            alter table far.own enable row level security; create policy p on far.own using (v = current_user);
            create view far.who as select id, current_user::text as v from far.tt;
            grant usage on schema near, far to {other_name}; grant select on all tables in schema near, far to {name}, {other_name}"
        ))
        .await;
        for (args, rows) in [
            (&["--table", "far.own", "--key", "id", "--allow-rls"][..], 2000),
            (&["--table", "far.who", "--key", "id"], 4000),
            (&["--query", "select * from far.tt", "--key", "id"], 4000),
        ] {
            for more in [&["--keep-snapshot", "60s"][..], &[]] {
                let place = Place::local();
                let stop = Stop::at("receipted");
                let running = place.export(&one, &[args, more].concat()).stops([&stop]).spawn();
                running.stands_at(&stop).await;
                running.signal("KILL").await;
                running.wait().await;
                let to = place.url();
                let resume = async |url: &str, code: i32| {
                    let mixed = ["--allow-mixed-snapshot"];
                    let all = ["resume", &to, "--from", url, "--progress", "none"];
                    outhaul(all.into_iter().chain(mixed)).run().await.expect(code)
                };
                let code = if more.is_empty() { 13 } else { 2 };
                let refused = resume(&other, code).await;
                assert!(refused.stderr.contains("role"), "{version} {args:?}: {}", refused.stderr);
                assert!(place.visible().await.is_empty(), "{version} {args:?}");
                resume(&one, 0).await;
                assert_eq!(place.whole().await.len(), rows, "{version} {args:?}");
            }
        }
        // Whose rows do not depend on the role may be resumed by another one, as where a vault gives each process its own.
        let place = Place::local();
        let stop = Stop::at("receipted");
        let args = ["--table", "far.tt", "--key", "id", "--keep-snapshot", "60s"];
        let running = place.export(&one, &args).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        let elsewhere = crate::support::pg::pg(version).await;
        let refused = outhaul(["resume", &place.url(), "--from", &elsewhere.url, "--progress", "none"]).run().await;
        let refused = refused.expect(2);
        assert!(refused.stderr.contains("--from names another database"), "{version}: {}", refused.stderr);
        outhaul(["resume", &place.url(), "--from", &other, "--progress", "none"]).run().await.expect(0);
        assert_eq!(place.whole().await.len(), 4000, "{version}");
    }
}

#[tokio::test]
async fn without_the_question_for_the_role_a_resume_mixes_the_rows_of_two() {
    let pg = pg(18).await;
    let (one, name) = made(&pg).await;
    let (other, other_name) = pg.role("").await;
    pg.batch(&format!(
        "create view far.who as select id, current_user::text as v from far.tt;
        grant usage on schema far to {other_name}; grant select on far.who to {name}, {other_name}"
    ))
    .await;
    let place = Place::local();
    let stop = Stop::at("receipted");
    let args = ["--table", "far.who", "--key", "id", "--keep-snapshot", "60s"];
    let running = place.export(&one, &args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await;
    let resume = outhaul(["resume", &place.url(), "--from", &other, "--progress", "none"]);
    resume.env("OUTHAUL_TEST_OFF", "role").run().await.expect(0);
    assert_eq!(last(&place).await, BTreeSet::from([name, other_name]));
}

#[tokio::test]
async fn pages_over_arrays_end_where_array_nulls_is_off() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table t(k text[] primary key, v int); insert into t
            select array['k' || lpad(g::text, 2, '0'), case when g = 10 then null else 'x' end], g from generate_series(1, 30) g",
        )
        .await;
        let name = pg.value("select current_database()").await;
        pg.batch(&format!("alter database {name} set array_nulls = off")).await;
        for args in [&["--read-mode", "keyset", "--page-size", "10"][..], &["--key", "k", "--partitions", "3"]] {
            let place = Place::local();
            export(&pg, &place, args).run().await.expect(0);
            assert_eq!(place.whole().await.len(), 30, "{version} {args:?}");
        }
        let place = Place::local();
        let args = ["--key", "k", "--max-rows", "10", "--allow-truncated"];
        export(&pg, &place, &args).run().await.expect(0);
        assert_eq!(place.whole().await.len(), 10, "{version}");
    }
}
