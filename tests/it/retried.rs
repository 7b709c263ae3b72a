//! `--run-id`: a retry asks for the same, of the same database; whatever is another request is told of, and never answered
//! with the rows of the first.

use serde_json::Value;

use crate::support::clickhouse::clickhouse;
use crate::support::pg::pg;
use crate::support::place::{Place, export};

const ID: [&str; 2] = ["--run-id", "r9"];

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 3) i";

async fn rewrite(place: &Place, change: impl FnOnce(&mut Value)) {
    let mut manifest = place.manifest().await;
    change(&mut manifest);
    std::fs::write(place.folder().join("_manifest.json"), manifest.to_string()).unwrap();
}

#[tokio::test]
async fn another_database_or_server_is_another_request() {
    let (first, second, old) = (pg(18).await, pg(18).await, pg(15).await);
    for pg in [&first, &second, &old] {
        pg.batch(TABLE).await;
    }
    let place = Place::local();
    for already in [false, true] {
        let run = export(&first, &place, &ID).run().await.expect(0);
        assert_eq!(run.report["already_committed"], already);
    }
    let identity = place.manifest().await["source"]["identity"].clone();
    assert_eq!(identity["server"].as_array().unwrap().len(), 1, "{identity}");
    for other in [&second, &old] {
        let run = export(other, &place, &ID).run().await.expect(22);
        assert!(run.stderr.contains("the database of --from differs"), "{}", run.stderr);
    }

    // A role that may not know the cluster knows the database still.
    first.batch("revoke execute on function pg_control_system() from public").await;
    let (url, role) = first.role("").await;
    first.batch(&format!("grant select on t to {role}")).await;
    let run = place.export(&url, &ID).run().await.expect(0);
    assert_eq!(run.report["already_committed"], true);
    let fresh = Place::local();
    fresh.export(&url, &ID).run().await.expect(0);
    assert!(fresh.manifest().await["source"]["identity"]["server"].is_null());
    export(&first, &fresh, &ID).run().await.expect(0);
    export(&second, &fresh, &ID).run().await.expect(22);

    // Earlier versions did not say it.
    rewrite(&place, |manifest| drop(manifest["source"].as_object_mut().unwrap().remove("identity"))).await;
    export(&second, &place, &ID).run().await.expect(0);
}

#[tokio::test]
async fn dots_in_names_make_no_two_relations_one() {
    let pg = pg(18).await;
    pg.batch(
        r#"create schema "Sales.EU"; create table "Sales.EU"."Order.Items" as select 1 as id;
           create schema "Sales"; create table "Sales"."EU.Order.Items" as select 2 as id"#,
    )
    .await;
    let place = Place::local();
    let run = async |table: &str| export(&pg, &place, &["--table", table, "--run-id", "r9"]).run().await;
    run(r#""Sales.EU"."Order.Items""#).await.expect(0);
    let other = run(r#""Sales"."EU.Order.Items""#).await.expect(22);
    assert!(other.stderr.contains("--table or --query differs"), "{}", other.stderr);
    let view = String::from_utf8(place.get("_ddl/duckdb.sql").await).unwrap();
    assert!(view.contains(r#"VIEW "Order.Items" AS"#), "{view}");
    let url = place.url();
    place.outhaul(["verify", &url, "--against-source", "--from", &pg.url]).run().await.expect(0);

    // An earlier version wrote no quotes.
    rewrite(&place, |manifest| manifest["source"]["relation"] = "Sales.EU.Order.Items".into()).await;
    run(r#""Sales.EU"."Order.Items""#).await.expect(0);
}

#[tokio::test]
async fn another_key_of_hashes_is_another_request() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let (place, keys) = (Place::local(), tempfile::tempdir().unwrap());
    let key = |name: &str| keys.path().join(name).to_str().unwrap().to_owned();
    for name in ["one", "two"] {
        std::fs::write(key(name), format!("{name}: correct horse battery staple\n")).unwrap();
    }
    for (name, code) in [("one", 0), ("one", 0), ("two", 22)] {
        let args = ["--protect", "v=hash", "--protect-key-file", &key(name), "--run-id", "r9"];
        let run = export(&pg, &place, &args).run().await.expect(code);
        assert_eq!(run.stderr.contains("the key of --protect differs"), code == 22, "{}", run.stderr);
    }
}

#[tokio::test]
async fn another_export_to_go_on_from_is_another_request() {
    let pg = pg(18).await;
    pg.batch("create table t (id int, ts timestamptz default now()); insert into t values (1), (2)").await;
    let (all, load) = (Place::local(), Place::local());
    let marked = ["--watermark", "ts"];
    export(&pg, &all, &[&marked[..], &["--run-id", "all"]].concat()).run().await.expect(0);
    pg.batch("insert into t values (3)").await;
    let url = all.url();
    let since = [&marked[..], &["--since", &url], &ID].concat();
    let night = async |args: &[&str]| export(&pg, &load, args).run().await;
    assert_eq!(night(&since).await.expect(0).report["already_committed"], false);
    assert_eq!(night(&since).await.expect(0).report["already_committed"], true);
    let run = night(&[&marked[..], &["--since", "none"], &ID].concat()).await.expect(22);
    assert!(run.stderr.contains("--since differs"), "{}", run.stderr);
    let own = load.url();
    night(&[&marked[..], &["--since", &own], &ID].concat()).await.expect(0);
    let run = night(&ID).await.expect(22);
    assert!(run.stderr.contains("--watermark differs"), "{}", run.stderr);
    // All rows were asked for, and a load that has them is no answer to what is new.
    let run = export(&pg, &all, &[&marked[..], &["--since", &own, "--run-id", "all"]].concat()).run().await.expect(22);
    assert!(run.stderr.contains("--since differs"), "{}", run.stderr);
}

#[tokio::test]
async fn another_database_of_clickhouse_is_another_request() {
    let (first, second) = (clickhouse().await, clickhouse().await);
    for server in [&first, &second] {
        server.run("CREATE TABLE t (id UInt32) ENGINE = MergeTree ORDER BY id AS SELECT number FROM numbers(3)").await;
    }
    for args in [&["--table", "t"][..], &["--query", "SELECT id FROM t"], &["--query", "SELECT id FROM t FORMAT CSV"]] {
        let place = Place::local();
        let url = place.url();
        let all = [args, &["--to", &url, "--report", "json"], &ID].concat();
        for already in [false, true] {
            let run = first.export(&all).run().await.expect(0);
            assert_eq!(run.report["already_committed"], already, "{args:?}");
        }
        let run = second.export(&all).run().await.expect(22);
        assert!(run.stderr.contains("the database of --from"), "{args:?}: {}", run.stderr);
    }
}
