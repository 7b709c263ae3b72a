//! No search path redirects what the program itself asks; what people write means what it means in their sessions.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::job::{command, copy, export, export_csv, sorted};
use crate::support::pg::{Pg, both, pg};
use crate::support::run::{Stop, outhaul};
use crate::support::sql_names::{Named, statements};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::{eventually, unique};

const LIMIT: Duration = Duration::from_mins(1);

/// Relations and keys of all kinds.
const APP: &str = "
create schema app; create schema ext; create extension citext schema ext;
create type app.mood as enum ('sad', 'so-so', 'fine'); create type app.pair as (x int, y text);
create domain app.handle as ext.citext; create domain app.even as int check (value % 2 = 0);
create table app.t (id int primary key, k varchar(20) not null, u uuid, at timestamptz, mood app.mood, handle app.handle,
    even app.even, c \"char\", n name, num numeric(9, 2), pair app.pair, tags text[], ip inet, doc json, b boolean);
insert into app.t select g, 'k' || g % 400, md5(g::text)::uuid, case when g % 9 > 0 then timestamptz '2020-01-01Z' + g * interval '1 h' end,
    (enum_range(null::app.mood))[1 + g % 3], (case when g % 2 = 0 then 'a' else 'B' end) || g, g * 2, chr(65 + g % 26)::\"char\",
    ('n' || g)::name, g / 7.0, row(g % 50, 'y')::app.pair, array['t' || g], '10.0.0.1', to_json(g), g % 2 = 0
    from generate_series(1, 1200) g;
create table app.heap as select id, k from app.t;
create table app.locked (id int);
create view app.inner_view as select id, k as name, mood from app.t where id > 0;
create view app.v as select id, name from app.inner_view;
create table app.parted (id int not null, k varchar(10)) partition by range (id);
create table app.parted_1 partition of app.parted for values from (0) to (500);
create table app.parted_2 partition of app.parted default;
insert into app.parted select id, k from app.t;
create function app.same(int, int) returns boolean language sql immutable as 'select $1 operator(pg_catalog.=) $2';
analyze;
create table app.fresh (id int primary key, k text) with (autovacuum_enabled = off);
insert into app.fresh select id, k from app.t";

/// What is exported: arguments, the exit code, and whether it is verified against the source as well.
const EXPORTS: [(&[&str], i32, bool); 18] = [
    (
        &["--table", "app.t", "--partitions", "4", "--column", "twice=app.same(id, id)", "--where", "app.same(1, 1)"],
        0,
        true,
    ),
    (&["--table", "app.t", "--key", "k", "--partitions", "4"], 0, true),
    (&["--table", "app.t", "--key", "k, id", "--partitions", "3", "--max-rows", "1000"], 3, true),
    (&["--table", "app.t", "--key", "id desc, k", "--partitions", "3"], 0, false),
    (&["--table", "app.t", "--key", "at desc", "--partitions", "3"], 0, true),
    (&["--table", "app.t", "--key", "u", "--partitions", "3", "--max-rows", "700"], 3, false),
    (&["--table", "app.t", "--key", "mood, handle", "--partitions", "3", "--max-rows", "900"], 3, false),
    (&["--table", "app.t", "--key", "handle", "--partitions", "3"], 0, true),
    (&["--table", "app.t", "--key", "even desc", "--partitions", "3"], 0, false),
    (&["--table", "app.t", "--key", "pair, c, n", "--partitions", "3"], 0, false),
    (
        &["--table", "app.t", "--key", "num", "--read-mode", "keyset", "--page-size", "300", "--partitions", "2"],
        0,
        false,
    ),
    (&["--table", "app.t", "--read-mode", "keyset", "--page-size", "300", "--max-rows", "800"], 3, true),
    (&["--table", "app.heap", "--max-rows", "500", "--partitions", "2"], 3, false),
    (&["--table", "app.v", "--key", "name", "--partitions", "3"], 0, true),
    (&["--query", "select mood, id, pair from app.t", "--key", "id", "--partitions", "3"], 0, true),
    (&["--table", "app.parted", "--partitions", "4"], 0, true),
    (&["--table", "app.fresh", "--key", "id", "--partitions", "3"], 0, true),
    (&["--table", "app.far", "--key", "id", "--partitions", "2"], 0, false),
];

/// Case 03: operators of public that fit a varchar better than those of text.
#[tokio::test]
async fn operators_in_public_do_not_decide_which_rows_are_exported() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table public.t (k varchar(20) primary key, v int);
            insert into public.t select 'k' || g, g from generate_series(1, 3000) g; analyze public.t;
            create function public.never(varchar, varchar) returns boolean language sql immutable as 'select false'",
        )
        .await;
        let expected = sorted(&copy(&pg, "select * from t").await);
        for name in ["=", "<", "<=", ">", ">="] {
            pg.batch(&format!(
                "create operator public.{name} (leftarg = varchar, rightarg = varchar, function = public.never)"
            ))
            .await;
        }
        assert_eq!(pg.value("select count(*) from t where k >= 'k'::varchar").await, "0", "the operators are found");
        let split = export_csv(&pg, &["--table", "public.t", "--key", "k", "--partitions", "4"], 0).await;
        assert_eq!((split.sorted(), split.partitions()), (expected.clone(), 4));
        verified(&pg, &split.dest()).await;
        let pages = ["--table", "public.t", "--read-mode", "keyset", "--page-size", "500"];
        assert_eq!(export_csv(&pg, &pages, 0).await.sorted(), expected);
        for partitions in ["1", "3"] {
            let capped = ["--table", "public.t", "--max-rows", "1000", "--partitions", partitions];
            let capped = export_csv(&pg, &capped, 3).await;
            assert_eq!(capped.data(), copy(&pg, "select * from t order by k limit 1000").await);
            verified(&pg, &capped.dest()).await;
        }
    }
}

/// A type may be sorted by operators of any names, and have others beside them.
#[tokio::test]
async fn a_key_is_compared_by_the_operators_of_its_operator_class() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create schema app; create type app.odd as (x int);
            create table app.t (k app.odd primary key, v int);
            insert into app.t select row(g)::app.odd, g from generate_series(1, 2000) g",
        )
        .await;
        let class = ODD_CLASS.replace("NEW", "app.odd");
        pg.batch(&format!(
            "drop table app.t; {class}; create table app.t (k app.odd primary key, v int);
            insert into app.t select row(g)::app.odd, g from generate_series(1, 2000) g; analyze app.t"
        ))
        .await;
        // What the class does not say: a `<` for the same type, which means the opposite.
        pg.batch("create operator app.< (leftarg = app.odd, rightarg = app.odd, function = app.odd_gt)").await;
        let expected = copy(&pg, "select k, v from app.t order by v desc").await;
        let done = export_csv(&pg, &["--table", "app.t", "--key", "k", "--partitions", "4"], 0).await;
        assert_eq!(done.data(), expected);
        assert!(done.partitions() > 1, "it is split");
        verified(&pg, &done.dest()).await;
        let pages = ["--table", "app.t", "--read-mode", "keyset", "--page-size", "300"];
        assert_eq!(export_csv(&pg, &pages, 0).await.data(), expected);
        let capped = export_csv(&pg, &["--table", "app.t", "--max-rows", "900", "--partitions", "3"], 3).await;
        assert_eq!(capped.data(), copy(&pg, "select k, v from app.t order by v desc limit 900").await);
    }
}

/// A class for B-trees of the type `NEW` that sorts it from high to low, by operators whose names say nothing.
const ODD_CLASS: &str = "
create function app.odd_lt(NEW, NEW) returns boolean language sql immutable as 'select $1.x > $2.x';
create function app.odd_le(NEW, NEW) returns boolean language sql immutable as 'select $1.x >= $2.x';
create function app.odd_eq(NEW, NEW) returns boolean language sql immutable as 'select $1.x = $2.x';
create function app.odd_ge(NEW, NEW) returns boolean language sql immutable as 'select $1.x <= $2.x';
create function app.odd_gt(NEW, NEW) returns boolean language sql immutable as 'select $1.x < $2.x';
create function app.odd_cmp(NEW, NEW) returns int language sql immutable as 'select btint4cmp($2.x, $1.x)';
create operator app.|<| (leftarg = NEW, rightarg = NEW, function = app.odd_lt, commutator = OPERATOR(app.|>|), restrict = scalarltsel);
create operator app.|<=| (leftarg = NEW, rightarg = NEW, function = app.odd_le);
create operator app.|=| (leftarg = NEW, rightarg = NEW, function = app.odd_eq, commutator = OPERATOR(app.|=|), restrict = eqsel);
create operator app.|>=| (leftarg = NEW, rightarg = NEW, function = app.odd_ge);
create operator app.|>| (leftarg = NEW, rightarg = NEW, function = app.odd_gt, commutator = OPERATOR(app.|<|), restrict = scalargtsel);
create operator class app.odd_ops default for type NEW using btree as operator 1 app.|<|, operator 2 app.|<=|,
    operator 3 app.|=|, operator 4 app.|>=|, operator 5 app.|>|, function 1 app.odd_cmp(NEW, NEW)";

/// A cast to text may say less than the value is.
#[tokio::test]
async fn a_cast_to_text_of_somebody_s_own_does_not_end_the_pages() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create type mood as enum ('sad', 'so-so', 'fine');
            create table t (k mood, id int, primary key (k, id));
            insert into t select (enum_range(null::mood))[1 + g % 3], g from generate_series(1, 1500) g; analyze t;
            create function label(mood) returns text language sql immutable as $$ select 'fine' $$;
            create cast (mood as text) with function label(mood)",
        )
        .await;
        let expected = copy(&pg, "select * from t order by k, id").await;
        for args in [&["--read-mode", "keyset", "--page-size", "200"][..], &["--key", "k, id", "--partitions", "3"]] {
            let done = export_csv(&pg, &[&["--table", "t"], args].concat(), 0).await;
            assert_eq!(done.data(), expected, "{args:?}");
        }
        let capped = export_csv(&pg, &["--table", "t", "--max-rows", "1000", "--partitions", "3"], 3).await;
        assert_eq!(capped.data(), copy(&pg, "select * from t order by k, id limit 1000").await);
    }
}

#[tokio::test]
async fn a_key_without_an_order_is_refused() {
    let pg = pg(18).await;
    pg.batch("create table t (id int primary key, doc json, at point); insert into t values (1, '{}', '(1,2)')").await;
    for key in ["doc", "id, at"] {
        for more in [&[][..], &["--max-rows", "1"], &["--read-mode", "keyset"]] {
            let done = export(&pg, &[&["--table", "t", "--key", key], more].concat()).await.expect(2);
            assert!(done.run.stderr.contains("have no order"), "{}", done.run.stderr);
        }
    }
}

#[tokio::test]
async fn what_is_sent_names_its_schemas_and_is_not_redirected_on_15() {
    nothing_is_redirected(15).await;
}

#[tokio::test]
async fn what_is_sent_names_its_schemas_and_is_not_redirected_on_18() {
    nothing_is_redirected(18).await;
}

/// All exports twice: heard by a proxy, and with everything that they name put before `pg_catalog` by somebody else.
async fn nothing_is_redirected(version: u32) {
    let mut pg = pg(version).await;
    pg.batch(APP).await;
    foreign_table(&pg).await;
    let (proxy, through) = TcpProxy::before(&pg.url).await;
    let direct = std::mem::replace(&mut pg.url, through);
    let before = all_exports(&pg, &proxy).await;
    let named = sent(&pg, &proxy).await;

    pg.url = direct;
    let session = pg.connect().await;
    hostile(&pg, &session, &named).await;
    let (proxy, through) = TcpProxy::before(&pg.url).await;
    pg.url = through;
    let after = all_exports(&pg, &proxy).await;
    // Types have the same names, too, from which DDL is made.
    for ((args, ..), (before, after)) in EXPORTS.iter().zip(before.iter().zip(&after)) {
        assert_eq!(before, after, "{args:?}");
    }
    theirs(&pg).await;
}

/// Schema and rows of all exports.
async fn all_exports(pg: &Pg, proxy: &TcpProxy) -> Vec<(Value, Vec<String>)> {
    let refused = refused_for_a_lock(pg);
    let exports = async {
        let mut all = Vec::new();
        for (args, code, verify) in EXPORTS {
            let done = export_csv(pg, args, code).await;
            if verify {
                verified(pg, &done.dest()).await;
            }
            all.push((done.manifest()["schema"].take(), done.sorted()));
        }
        resumed(pg).await;
        watched(pg, proxy).await;
        listed(pg).await;
        all
    };
    tokio::join!(refused, exports).1
}

/// A run that dies and is gone on with, under its snapshot.
async fn resumed(pg: &Pg) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let stop = Stop::at("batch");
    let args = ["--table", "app.t", "--key", "k, id", "--partitions", "3", "--keep-snapshot", "60s"];
    let running = command(pg, to.to_str().unwrap(), &args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    assert_eq!(running.wait().await.code, 137);
    let to = to.to_str().unwrap();
    let run = outhaul(["resume", to, "--from", &pg.url, "--report", "json"]).run().await.expect(0);
    assert_eq!(run.report["rows"], 1200, "{}", run.stderr);
}

/// A run that looks whether somebody waits for it.
async fn watched(pg: &Pg, proxy: &TcpProxy) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let stop = Stop::at("batch");
    let args = ["--table", "app.t", "--yield-to-ddl", "400ms", "--partitions", "2"];
    let running = command(pg, to.to_str().unwrap(), &args).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    let session = pg.connect().await;
    let ddl = tokio::spawn(async move { session.batch_execute("alter table app.t add column later int").await });
    eventually(LIMIT, "a look at who waits", async || {
        proxy.statements().iter().any(|statement| statement.contains("waitstart")).then_some(())
    })
    .await;
    let run = running.wait().await.expect(16);
    assert!(run.stderr.contains("gave way to process"), "{}", run.stderr);
    ddl.await.unwrap().unwrap();
    pg.batch("alter table app.t drop column later").await;
}

/// A listing says the same whoever has put what on the path.
async fn listed(pg: &Pg) {
    let run = outhaul(["ls", "app.*", "--from", &pg.url, "--json"]).run().await.expect(0);
    let facts = |table: &str| {
        let relations = run.report["relations"].as_array().unwrap().iter();
        let found: Vec<&Value> = relations.filter(|relation| relation["table"] == table).collect();
        let [relation] = found.as_slice() else { panic!("{table}: {}", run.report) };
        ["estimated_rows", "key", "split", "tables"].map(|fact| relation[fact].clone())
    };
    assert_eq!(facts("app.t"), [1200.into(), serde_json::json!(["id"]), "blocks".into(), 1.into()]);
    assert_eq!(facts("app.parted"), [1200.into(), serde_json::json!([]), "blocks".into(), 2.into()]);
}

/// A run that is told who is in its way.
async fn refused_for_a_lock(pg: &Pg) {
    let session = pg.connect().await;
    session.batch_execute("begin; lock table app.locked in access exclusive mode").await.unwrap();
    let done = export(pg, &["--table", "app.locked"]).await.expect(16);
    assert!(done.run.stderr.contains("holds ACCESS EXCLUSIVE on"), "{}", done.run.stderr);
}

/// Checks all statements that went through the proxy, and gives what they name.
async fn sent(pg: &Pg, proxy: &TcpProxy) -> Named {
    let mut people: Vec<String> =
        ["app.same(id, id)", "app.same(1, 1)", "select mood, id, pair from app.t"].map(str::to_owned).into();
    for view in ["app.v", "app.inner_view"] {
        let definition = pg.connect().await;
        let printed = format!("set search_path = pg_catalog; select pg_get_viewdef('{view}'::regclass)");
        let printed = crate::support::pg::rows(&definition, &printed).await.remove(0).remove(0).unwrap();
        people.push(printed.trim_end_matches(';').to_owned());
    }
    let mut named = Named::default();
    let mut problems = BTreeSet::new();
    let heard = proxy.statements();
    for message in &heard {
        // What people wrote is theirs: a word in its place.
        let ours = people.iter().fold(message.clone(), |ours, theirs| ours.replace(theirs.as_str(), "SELECT"));
        // The test's own sessions speak through the proxy too.
        if ours.starts_with("alter table")
            || ours.starts_with("begin; lock")
            || ours.contains("set search_path")
            || ours.starts_with("copy (")
        {
            continue;
        }
        for statement in statements(&ours) {
            problems.extend(named.read(&statement));
        }
    }
    assert_eq!(problems, BTreeSet::new());
    // All parts of the program have spoken.
    for part in [
        "pg_get_viewdef",
        "histogram_bounds",
        "pg_opclass",
        "row_number",
        "ctid AS t",
        "string_agg",
        "outhaul.from",
        "EXPLAIN",
        "LOCK TABLE",
        "SET TRANSACTION SNAPSHOT",
        "pg_export_snapshot",
        "waitstart",
        "AccessExclusiveLock",
        "pg_collation",
        "pg_partition_tree",
        "has_table_privilege",
        "count(*) FROM (SELECT FROM",
        "format('%s'",
        "pg_catalog.min(",
        "IS DISTINCT FROM NULL",
        "typsubscript",
    ] {
        assert!(heard.iter().any(|statement| statement.contains(part)), "nobody said {part}");
    }
    named
}

/// Puts rivals of all that is named into a schema before `pg_catalog`, and of citext's operators beside them.
async fn hostile(pg: &Pg, session: &Client, named: &Named) {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(",");
    assert!(named.operators.len() > 5 && named.functions.len() > 20 && named.types.len() > 5, "{named:?}");
    let settings = format!(
        "create schema evil; set hostile.schema = 'evil'; set hostile.functions = '{}';
        set hostile.types = '{}'; set hostile.relations = '{}'",
        list(&named.functions),
        list(&named.types),
        list(&named.relations)
    );
    session.batch_execute(&settings).await.unwrap();
    session.batch_execute(include_str!("../support/hostile.sql")).await.unwrap();
    // A domain's own operators come before those of the type under it, in the very schema of the latter.
    session
        .batch_execute(
            "create function ext.never(app.handle, ext.citext) returns boolean language sql immutable as 'select false';
            create operator ext.< (leftarg = app.handle, rightarg = ext.citext, function = ext.never);
            create operator ext.>= (leftarg = app.handle, rightarg = ext.citext, function = ext.never)",
        )
        .await
        .unwrap();
    let database = crate::support::pg::rows(session, "select current_database()").await.remove(0).remove(0).unwrap();
    session
        .batch_execute(&format!("alter database {database} set search_path = evil, public, pg_catalog"))
        .await
        .unwrap();
    // They are found where no schema is named.
    let client = pg.connect().await;
    for bitten in [
        "select 1 where 1 = 1",
        "select 1 where pg_catalog.now() > pg_catalog.now()",
        "select count(*) from pg_catalog.pg_class",
        "select 1 where 'a'::pg_catalog.varchar < 'b'::pg_catalog.varchar",
        "select upper('x'::pg_catalog.text)",
        "select pg_catalog.pg_get_viewdef('app.v'::pg_catalog.regclass)",
    ] {
        let error = client.batch_execute(bitten).await.expect_err(bitten);
        assert!(error.as_db_error().is_some_and(|error| error.message().contains("hijacked")), "{bitten}: {error:?}");
    }
    assert!(client.batch_execute("select 'x'::pg_catalog.name::text").await.is_err());
    assert!(crate::support::pg::rows(&client, "select 1 from pg_class").await.is_empty());
}

/// What a person writes is looked up as in a session of theirs.
async fn theirs(pg: &Pg) {
    let session = pg.connect().await;
    session
        .batch_execute(
            "create operator evil.=== (leftarg = pg_catalog.int4, rightarg = pg_catalog.int4, function = app.same);
            create view evil.t as select id, k from app.t",
        )
        .await
        .unwrap();
    let done = export_csv(pg, &["--table", "t", "--where", "id === 7"], 0).await;
    assert_eq!(done.sorted(), ["7,k7"]);
    let done = export_csv(pg, &["--query", "select id from t where id === 8"], 0).await;
    assert_eq!(done.sorted(), ["8"]);
    for redirected in
        [&["--table", "app.t", "--where", "id = 7"][..], &["--query", "select id from app.t where id = 7"]]
    {
        let done = export(pg, redirected).await;
        assert!(done.run.code != 0 && done.run.stderr.contains("hijacked"), "{}", done.run.stderr);
    }
}

/// `app.far`, which reads a file.
async fn foreign_table(pg: &Pg) {
    let folder = pg.value("select current_setting('data_directory')").await;
    let file = format!("{folder}/far_{}.csv", unique());
    pg.batch(&format!(
        "copy (select id, k from app.t) to '{file}' (format csv); create extension file_fdw schema ext;
        create server far foreign data wrapper file_fdw;
        create foreign table app.far (id int, k text) server far options (filename '{file}', format 'csv')"
    ))
    .await;
}

async fn verified(pg: &Pg, dest: &Path) {
    let args = ["verify", dest.to_str().unwrap(), "--against-source", "--from", &pg.url, "--report", "json"];
    outhaul(args).run().await.expect(0);
}
