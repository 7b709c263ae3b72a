//! What can be exported, and how it is split: every kind of relation and of key, compared with PostgreSQL.

use std::os::unix::fs::PermissionsExt;

use crate::support::cluster::Cluster;
use crate::support::foreign;
use crate::support::job::{copy, export, export_csv, sorted};
use crate::support::manifest;
use crate::support::oracle;
use crate::support::pg::{Pg, both, pg};
use crate::support::run::outhaul;

/// Keys of every kind, with NULLs and ties where they can be.
const KEYED: &str = r#"
create table keyed as select i as id, md5(i::text)::uuid as u, timestamptz '2020-01-01' + i * interval '61 minutes' as at,
    case i % 7 when 0 then null else i % 500 end as maybe,
    case i % 4 when 0 then 'Ärger ' || i when 1 then 'it''s "' || i || '", \' when 2 then upper(md5(i::text)) else '' || i end as t,
    (i % 13)::smallint as small, i::numeric / 7 as n, date '2000-01-01' + i / 10 as d
    from generate_series(1, 6000) i order by md5(i::text);
alter table keyed add primary key (id);
analyze keyed;
create view by_view as select id, u, t from keyed where id % 2 = 0;
create materialized view by_matview as select id, at, maybe from keyed where id % 3 = 0;
analyze by_matview;
"#;

#[tokio::test]
async fn every_kind_of_key_covers_every_row_in_order() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(KEYED).await;
        for (key, order, split) in [
            ("id", "id", true),
            ("id desc", "id desc", true),
            ("u", "u", true),
            ("t", "t", true),
            ("t desc", "t desc", true),
            ("at", "at", true),
            ("at desc, id", "at desc, id", true),
            ("n", "n", true),
            ("d, id desc", "d, id desc", true),
            ("maybe, id", "maybe nulls last, id", true),
            ("maybe desc, u", "maybe desc nulls last, u", true),
            ("small, t, id", "small, t, id", false),
        ] {
            let expected = copy(&pg, &format!("select * from keyed order by {order}")).await;
            let done = export_csv(&pg, &["--table", "keyed", "--key", key, "--partitions", "5"], 0).await;
            assert!(done.data() == expected, "PostgreSQL {version}, --key {key:?}: other bytes or another order");
            assert!(!split || done.partitions() >= 4, "--key {key:?}: {} partitions", done.partitions());
            let named = done.manifest()["source"]["key"][0]["name"].clone();
            assert_eq!(named, key.split([' ', ',']).next().unwrap());
        }
    }
}

#[tokio::test]
async fn an_int_key_is_split_without_statistics_and_at_the_ends_of_its_range() {
    let pg = pg(18).await;
    pg.batch(
        "create table wide (id bigint primary key);
        insert into wide select i from generate_series(-500, 500) i;
        insert into wide values (-9223372036854775808), (9223372036854775807)",
    )
    .await;
    for key in ["id", "id desc"] {
        let done = export_csv(&pg, &["--table", "wide", "--key", key, "--partitions", "6"], 0).await;
        assert!(done.data() == copy(&pg, &format!("select * from wide order by {key}")).await, "{key}");
    }
}

#[tokio::test]
async fn statistics_may_lie_and_no_row_is_lost() {
    let pg = pg(15).await;
    pg.batch(
        "create table lied (k int, v int) with (autovacuum_enabled = false);
        insert into lied select i, i from generate_series(1, 1000) i; analyze lied;
        truncate lied; insert into lied select i, i from generate_series(-2000, -1) i;
        insert into lied select i, i from generate_series(5000, 6000) i; insert into lied values (null, 1), (null, 2)",
    )
    .await;
    let done = export_csv(&pg, &["--table", "lied", "--key", "k", "--partitions", "4"], 0).await;
    assert!(done.sorted() == sorted(&copy(&pg, "select * from lied").await));
}

#[tokio::test]
async fn views_and_materialized_views_and_queries_whole_and_by_key() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(KEYED).await;
        let query = "select k.id, count(*) as n from keyed k join by_view v using (u) group by 1 order by 1 desc";
        let with = "with few as (select * from keyed where id < 500) select t, id from few;";
        for (relation, key, select, kind) in [
            (["--table", "by_view"], "", "select * from by_view", "view"),
            (["--table", "by_view"], "id", "select * from by_view", "view"),
            (["--table", "public.by_matview"], "", "select * from by_matview", "materialized_view"),
            (["--table", "by_matview"], "at", "select * from by_matview", "materialized_view"),
            (["--query", query], "", query, "query"),
            (["--query", query], "id", query, "query"),
            (["--query", with], "t, id", "select t, id from keyed where id < 500", "query"),
            (["--query", "values (1, 'a'), (2, null)"], "", "values (1, 'a'), (2, null)", "query"),
            (["--query", "select 1 as one -- and a comment"], "", "select 1", "query"),
        ] {
            let mut args = [&relation[..], &["--partitions", "4"]].concat();
            if !key.is_empty() {
                args.extend(["--key", key]);
            }
            let done = export_csv(&pg, &args, 0).await;
            let expected = copy(&pg, select).await;
            assert!(done.sorted() == sorted(&expected), "{version}: {args:?} ({kind})");
        }
    }
}

#[tokio::test]
async fn foreign_tables_are_read_through_their_server() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(KEYED).await;
        pg.batch(&foreign::tables(&pg, "keyed", "(id int, u uuid, t text)", &["far", "far_leaf"]).await).await;
        pg.batch(
            "create table parent (id int, u uuid, t text) partition by range (id);
            create table near partition of parent for values from (100000) to (200000);
            insert into parent select id + 100000, u, t from keyed;
            alter table parent attach partition far_leaf for values from (0) to (100000);
            analyze",
        )
        .await;
        for (table, key) in [("far", ""), ("far", "id"), ("parent", ""), ("parent", "id")] {
            let mut args = vec!["--table", table, "--partitions", "3"];
            if !key.is_empty() {
                args.extend(["--key", key]);
            }
            let done = export_csv(&pg, &args, 0).await;
            let expected = copy(&pg, &format!("select * from {table}")).await;
            assert!(done.sorted() == sorted(&expected), "{version}: {args:?}");
        }
    }
}

/// Partitioned twice, with a leaf whose columns stand in another order and one that dropped a column.
const PARTITIONED: &str = "
create table orders (id int not null, region text not null, at date not null, note text) partition by range (at);
create table orders_2020 partition of orders for values from ('2020-01-01') to ('2021-01-01') partition by list (region);
create table orders_2020_eu partition of orders_2020 for values in ('eu');
create table orders_2020_us partition of orders_2020 for values in ('us', 'ca');
create table orders_2021 (note text, at date not null, id int not null, gone int, region text not null);
alter table orders_2021 drop column gone;
alter table orders attach partition orders_2021 for values from ('2021-01-01') to ('2022-01-01');
create table orders_rest partition of orders default;
create table orders_empty partition of orders for values from ('1990-01-01') to ('1991-01-01');
insert into orders select i, (array['eu', 'us', 'ca'])[1 + i % 3], date '2019-06-01' + i % 1200, 'note ' || i
    from generate_series(1, 5000) i;
create table base (id int, v text);
create table child (extra int) inherits (base);
create table grandchild () inherits (child);
insert into base select i, 'base' from generate_series(1, 1000) i;
insert into child select i, 'child', i from generate_series(1001, 2000) i;
insert into grandchild select i, 'grandchild', i from generate_series(2001, 3000) i;
analyze";

#[tokio::test]
async fn partitioned_and_inherited_tables_leaf_by_leaf_and_by_key() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(PARTITIONED).await;
        for table in ["orders", "orders_2020", "orders_2021", "base", "child"] {
            let expected = oracle::query(&pg, &format!("select * from {table}")).await;
            for more in [&["--partitions", "9"][..], &["--key", "id", "--partitions", "4"], &["--readers", "1"]] {
                let args = [&["--table", table, "--format", "parquet"][..], more].concat();
                let done = export(&pg, &args).await.expect(0);
                assert_eq!(oracle::local(&done.dest(), &[]).await, expected, "{version}: {args:?}");
            }
        }
    }
}

#[tokio::test]
async fn empty_and_tiny_tables_have_exactly_one_part() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table empty (id int primary key, t text); create table one as select 1 as id, null::text as t",
        )
        .await;
        pg.batch("create table split (id int) partition by list (id)").await;
        for (table, rows, columns) in [("empty", 0, "id,t\n"), ("one", 1, "id,t\n"), ("split", 0, "id\n")] {
            for format in ["parquet", "csv", "ndjson"] {
                for more in [&[][..], &["--partitions", "7"], &["--key", "id"], &["--max-rows", "5"]] {
                    let args = [&["--table", table, "--format", format][..], more].concat();
                    let done = export(&pg, &args).await.expect(0);
                    let manifest = done.manifest();
                    assert_eq!(
                        (&manifest["totals"]["parts"], &manifest["totals"]["rows"]),
                        (&1.into(), &rows.into()),
                        "{args:?}"
                    );
                    if format == "csv" {
                        let part =
                            std::fs::read(done.dest().join(manifest["parts"][0]["path"].as_str().unwrap())).unwrap();
                        let rows = if rows == 0 { "" } else { "1,\n" };
                        assert_eq!(String::from_utf8(part).unwrap(), format!("{columns}{rows}"), "{args:?}");
                    }
                }
            }
            let done = export(&pg, &["--table", table]).await.expect(0);
            assert_eq!(
                oracle::local(&done.dest(), &[]).await,
                oracle::query(&pg, &format!("select * from {table}")).await
            );
        }
    }
}

#[tokio::test]
async fn odd_names_are_quoted_everywhere() {
    let pg = odd(18).await;
    let table = r#""Odd ""Schema""; --"."select, 'x'""#;
    let expected = oracle::query(&pg, &format!("select * from {table}")).await;
    for format in ["parquet", "csv", "ndjson"] {
        for more in
            [&[][..], &["--key", "\"sélect\" desc", "--partitions", "3"], &["--where", "\"a \"\"b\"\", c\" > 5"]]
        {
            let args = [&["--table", table, "--format", format][..], more].concat();
            let done = export(&pg, &args).await.expect(0);
            let found = oracle::local(&done.dest(), &[]).await;
            if more.first() == Some(&"--where") {
                assert_eq!(found.rows, 995, "{args:?}");
            } else {
                assert_eq!(found, expected, "{args:?}");
            }
        }
    }
}

async fn odd(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(
        r#"create schema "Odd ""Schema""; --";
        create table "Odd ""Schema""; --"."select, 'x'" ("sélect" int primary key, "a ""b"", c" int, "{}" text, "order" text);
        insert into "Odd ""Schema""; --"."select, 'x'" select i, i, '{' || i || '}', E'tab\t' || i from generate_series(1, 1000) i;
        analyze"#,
    )
    .await;
    pg
}

/// Keys whose order is not that of their text, with ties, NaN and infinity.
const ODD_KEYS: &str = r#"
create type mood as enum ('z', 'a', 'm');
create table odd_keys as select i as id,
    (('{Apple,apple,Éclair,eclair,zebra,Zoo}'::text[])[1 + i % 6] || i) collate "en-x-icu" as icu,
    (case when i % 50 = 0 then 'NaN' else i / 3.0 end)::float4 as f, (case when i % 50 = 0 then 'NaN' else i / 3.0 end)::numeric as n,
    ('c' || i % 300)::char(8) as c, ('{z,a,m}'::mood[])[1 + i % 3] as e, i * interval '1 hour' as iv, int4send(i) as by,
    case when i % 100 = 0 then 'infinity' else timestamp '2020-01-01' + i * interval '1 hour' end as ts, array[i % 90, i] as arr,
    '9.9.9.250'::inet + i as net, i::money as mo, (i % 5)::bit(4) as bt, time '00:00' + i * interval '10 s' as tm, i % 2 = 0 as b
    from generate_series(1, 4000) i order by md5(i::text);
alter table odd_keys add primary key (id);
analyze odd_keys"#;

#[tokio::test]
async fn keys_of_odd_types_and_collations_cap_and_split() {
    let pg = pg(15).await;
    pg.batch(ODD_KEYS).await;
    let all = sorted(&copy(&pg, "select * from odd_keys").await);
    for key in [
        "icu",
        "icu desc",
        "f",
        "n desc",
        "c",
        "e",
        "iv",
        "by",
        "ts desc",
        "arr",
        "net",
        "mo",
        "bt",
        "tm",
        "e desc, c, n desc",
        "b, f",
    ] {
        let args = ["--table", "odd_keys", "--key", key, "--partitions", "4"];
        let whole = export_csv(&pg, &args, 0).await;
        assert!(whole.sorted() == all, "--key {key:?}");
        let capped = export_csv(&pg, &[&args[..], &["--max-rows", "1300"]].concat(), 3).await;
        let tie = if key.ends_with("desc") { "id desc" } else { "id" };
        let expected = copy(&pg, &format!("select * from odd_keys order by {key}, {tie} limit 1300")).await;
        assert!(capped.data() == expected, "--key {key:?}, capped");
        assert_eq!(capped.partitions(), 4, "--key {key:?}");
    }
}

/// Arrays, composites and domains have an order by their kind, whether what they are made of has one or not.
#[tokio::test]
async fn a_key_of_parts_without_an_order_is_refused_by_its_name() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create type pair as (id int, j json); create type deep as (n int, ps pair[]);
            create domain doc as json; create domain docs as json[]; create domain paired as pair;
            create type holder as (id int, d doc); create type fine as (a int, b text[]); create domain finer as fine;
            create type moody as enum ('a', 'b');
            create table t (id int primary key, j json, js json[], p pair, ps pair[], d deep, doc doc, docs docs, a_docs doc[],
                paired paired, h holder, pt point[], xs xml[], xid xid[], ok fine, finer finer[], moods moody[], r int4range[],
                v int2vector, texts text[]);
            insert into t (id, js, p, ps, d, docs, a_docs, paired, h, pt, xid, ok, finer, moods, r, v, texts)
                select i, array['1'::json], row(1, '1')::pair, array[row(1, '1')::pair], row(1, array[row(1, '1')::pair])::deep,
                    array['1'::json], array['1'::doc], row(1, '1')::pair, row(1, '1')::holder, array['(1,1)'::point],
                    array['7'::xid], row(1, array[i::text])::fine, array[row(i, '{b}')::fine::finer], array['a'::moody],
                    array[int4range(i, i + 1)], '1 2', array[i::text]
                from generate_series(1, 20) i; analyze t;
            create view v as select * from t",
        )
        .await;
        for (column, type_name) in [
            ("j", "json"),
            ("js", "json[]"),
            ("p", "pair"),
            ("ps", "pair[]"),
            ("d", "deep"),
            ("doc", "doc"),
            ("docs", "docs"),
            ("a_docs", "doc[]"),
            ("paired", "paired"),
            ("h", "holder"),
            ("pt", "point[]"),
            ("xs", "xml[]"),
            ("xid", "xid[]"),
        ] {
            for of in [["--table", "t"], ["--table", "v"], ["--query", "select * from t"]] {
                // A row description names the type that a domain is made of.
                let named = of[0] == "--query" && matches!(column, "doc" | "docs" | "paired");
                for key in [column.to_owned(), format!("id, {column} desc")] {
                    let done = export(&pg, &[&of[..], &["--key", &key, "--on-unrepresentable", "text"]].concat()).await;
                    let error = done.expect(2).run.stderr;
                    assert!(error.contains(&format!("column {column:?}")), "{of:?} {key}: {error}");
                    assert!(
                        named || error.contains(&format!("of type {type_name} have no order")),
                        "{of:?} {key}: {error}"
                    );
                }
            }
        }
        for column in ["ok", "finer", "moods", "r", "v", "texts"] {
            let done = export_csv(&pg, &["--table", "t", "--key", column, "--columns", "id"], 0).await;
            assert_eq!(done.sorted().len(), 20, "{column}");
        }
    }
}

/// The server makes such an index, and takes rows until two of them are compared.
#[tokio::test]
async fn an_own_key_of_parts_without_an_order_is_no_key() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create table t (j json[] primary key); insert into t values (array['1'::json])").await;
        for args in [&[][..], &["--max-rows", "1"], &["--max-rows", "5", "--allow-truncated"], &["--partitions", "3"]] {
            let done = export_csv(&pg, &[&["--table", "t"], args].concat(), 0).await;
            assert_eq!(done.sorted(), ["{1}"], "{args:?}");
        }
        // An operator class of the type's own is an order, whatever the type is made of.
        pg.batch(
            "create type own as (id int, j json);
            create function lt(own, own) returns bool immutable language sql return $1.id < $2.id;
            create function le(own, own) returns bool immutable language sql return $1.id <= $2.id;
            create function eq(own, own) returns bool immutable language sql return $1.id = $2.id;
            create function ge(own, own) returns bool immutable language sql return $1.id >= $2.id;
            create function gt(own, own) returns bool immutable language sql return $1.id > $2.id;
            create function cmp(own, own) returns int immutable language sql return sign($1.id - $2.id)::int;
            create operator < (leftarg = own, rightarg = own, procedure = lt);
            create operator <= (leftarg = own, rightarg = own, procedure = le);
            create operator = (leftarg = own, rightarg = own, procedure = eq);
            create operator >= (leftarg = own, rightarg = own, procedure = ge);
            create operator > (leftarg = own, rightarg = own, procedure = gt);
            create operator class own_ops default for type own using btree as operator 1 <, operator 2 <=, operator 3 =,
                operator 4 >=, operator 5 >, function 1 cmp(own, own);
            create table o as select row(i, '1')::own as o, i as id from generate_series(1, 9) i",
        )
        .await;
        let done = export_csv(&pg, &["--table", "o", "--key", "o desc", "--columns", "id"], 0).await;
        assert_eq!(String::from_utf8(done.data()).unwrap().trim(), "9\n8\n7\n6\n5\n4\n3\n2\n1");
    }
}

#[tokio::test]
async fn a_role_reads_what_it_may_and_never_less_than_it_asked_for() {
    for version in both() {
        let pg = pg(version).await;
        let role = format!("weak_{}", pg.value("select current_database()").await);
        pg.batch(&format!(
            "create role {role} login;
            create table hidden (id int primary key, owner text); insert into hidden select i, 'x' from generate_series(1, 100) i;
            alter table hidden enable row level security; create policy own on hidden using (owner = current_user);
            create table few (id int primary key, secret text); insert into few select i, 'x' from generate_series(1, 100) i;
            create table parts (id int) partition by range (id);
            create table parts_low partition of parts for values from (0) to (500);
            create table parts_high partition of parts for values from (500) to (5000);
            insert into parts select generate_series(1, 1000);
            grant select on hidden, parts to {role}; grant select (id) on few to {role}; analyze"
        ))
        .await;
        let weak = pg.url.replace("postgres@", &format!("{role}@"));
        for (args, code, rows) in [
            // Row security would leave rows out: an error, never a smaller export.
            (&["--table", "hidden"][..], 10, 0),
            (&["--table", "hidden", "--max-rows", "5"], 10, 0),
            (&["--table", "hidden", "--read-mode", "keyset"], 10, 0),
            (&["--query", "select * from hidden"], 10, 0),
            (&["--table", "few"], 10, 0),
            (&["--table", "few", "--columns", "id"], 0, 100),
            (&["--table", "few", "--columns", "id", "--where", "secret = 'x'"], 10, 0),
            (&["--table", "few", "--columns", "id", "--max-rows", "7"], 3, 7),
            // Through the parent, whose leaves it may not read.
            (&["--table", "parts", "--partitions", "4"], 0, 1000),
            (&["--table", "parts", "--key", "id", "--partitions", "4"], 0, 1000),
            (&["--table", "parts_low"], 10, 0),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let dest = folder.path().join("out");
            let fixed = ["export", "--from", &weak, "--to", dest.to_str().unwrap(), "--report", "json"];
            let run = crate::support::run::outhaul(fixed.iter().chain(args)).run().await;
            assert_eq!(run.code, code, "{version} {args:?}: {}", run.stderr);
            assert!([0, 3].contains(&code) == (run.report["rows"] == rows), "{version} {args:?}: {}", run.report);
            assert_eq!(dest.join("_manifest.json").exists(), [0, 3].contains(&code), "{version} {args:?}");
        }
        pg.batch(&format!("drop owned by {role}; drop role {role}")).await;
    }
}

/// Of a chunk that `TimescaleDB` has compressed, `ONLY` gives no row. The extension itself is in no package: that it is there
/// must be enough.
#[tokio::test]
async fn a_hypertable_and_its_chunks_are_read_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let of_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), of_all.clone()).unwrap();
    let extensions = folder.path().join("extension");
    std::fs::create_dir(&extensions).unwrap();
    std::fs::set_permissions(&extensions, of_all).unwrap();
    std::fs::write(extensions.join("timescaledb.control"), "default_version = '1'\n").unwrap();
    std::fs::write(extensions.join("timescaledb--1.sql"), "select 1;\n").unwrap();
    let pg = Cluster::start(18, &[&format!("extension_control_path=$system:{}", folder.path().display())]).await;
    pg.batch(
        "create table m (id int, v text); create table c1 () inherits (m); create table c2 () inherits (m);
        create table alone (id int, v text); create table p (id int, v text) partition by list (id);
        create table p1 partition of p for values in (1); create table p2 partition of p default;
        insert into c1 select n, 'one' from generate_series(1, 50) n; insert into c2 values (51, 'two');
        insert into alone values (1, 'x'); insert into p values (1, 'x'), (2, 'y')",
    )
    .await;
    for (extension, hyper) in [("", "heap"), ("create extension timescaledb", "whole")] {
        pg.batch(extension).await;
        for (table, rows, kind) in [("m", 51, hyper), ("c1", 50, hyper), ("alone", 1, "heap"), ("p", 2, "leaves")] {
            let dest = tempfile::tempdir().unwrap();
            let to = dest.path().join("out");
            let args = ["export", "--from", &pg.url, "--table", table, "--to", to.to_str().unwrap(), "--readers", "2"];
            outhaul(args).run().await.expect(0);
            let manifest = manifest(&to);
            assert_eq!(manifest["totals"]["rows"], rows, "{table}");
            let first = manifest["parts"][0]["range"]["kind"].as_str().unwrap();
            assert!(first == kind || kind == "heap" && first == "leaves", "{extension}: {table} is read as {first}");
        }
    }
}
