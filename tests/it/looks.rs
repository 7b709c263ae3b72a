//! What a person sees before and after an export: what a database has, what a plan would write, what a destination holds.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::pg::{Pg, both, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Run, Stop, outhaul};

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 4000) i;
    alter table t add primary key (id); alter table t set (autovacuum_enabled = off); analyze t";

async fn show(place: &Place, args: &[&str]) -> Run {
    let url = place.url();
    place.outhaul(["show", &url].iter().chain(args).copied()).run().await
}

fn stdout(run: &Run) -> String {
    String::from_utf8(run.stdout.clone()).unwrap()
}

/// The paths of everything that is there: what is looked at stays as it is.
async fn paths(place: &Place) -> Vec<String> {
    place.list().await.into_keys().collect()
}

#[tokio::test]
async fn show_tells_of_an_export_of_a_living_run_and_of_a_dead_one() {
    for (version, place) in both().into_iter().zip(Place::both()) {
        let pg = pg(version).await;
        pg.batch(TABLE).await;

        let nothing = show(&place, &["--json"]).await.expect(30);
        assert!(nothing.report["error"].to_string().contains("no export was committed here"), "{}", nothing.report);

        let stop = Stop::at("receipted");
        let running = export(&pg, &place, &["--key", "id", "--keep-snapshot", "1m"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        let living = show(&place, &["--json"]).await.expect(0).report;
        assert_eq!((&living["manifest"], &living["owner"]["alive"]), (&Value::Null, &json!(true)));
        assert_eq!(living["owner"]["pid"], running.pid());
        let run = &living["runs"][0];
        assert_eq!(
            (&run["state"], &run["relation"], &run["partitions"]),
            (&json!("alive"), &json!("public.t"), &json!(4))
        );
        assert!(run["partitions_read"].as_u64().unwrap() > 0 && run["begun_at"].is_string(), "{run}");
        assert_eq!(run["kept"].as_array().unwrap().len(), 1, "{run}");
        let text = stdout(&show(&place, &["--report", "text"]).await.expect(0));
        assert!(text.contains("nothing is committed at ") && text.contains("\nat work     run "), "{text}");
        assert!(text.contains("\nkept        snapshot "), "{text}");

        running.signal("KILL").await;
        running.wait().await.expect(137);
        // Until it was dead, the other reader went on.
        let before = paths(&place).await;
        let dead = show(&place, &["--json"]).await.expect(0).report;
        assert_eq!((&dead["owner"]["alive"], &dead["runs"][0]["state"]), (&json!(false), &json!("dead")));
        let left = &dead["runs"][0]["left"];
        let staged = left["staged"].as_u64().unwrap();
        let uploads = left["uploads"].as_array().unwrap().len();
        assert!(if matches!(place, Place::S3(_)) { uploads > 0 } else { staged > 0 }, "{left}");
        let text = stdout(&show(&place, &[]).await.expect(0));
        assert!(text.contains("dead run") && text.contains("outhaul clean "), "{text}");
        assert_eq!(paths(&place).await, before, "it only reads");

        let url = place.url();
        place.outhaul(["clean", &url]).run().await.expect(0);
        export(&pg, &place, &["--where", "id > 7"]).run().await.expect(0);
        let shown = show(&place, &["--json"]).await.expect(0).report;
        assert_eq!(shown["manifest"], place.manifest().await);
        assert_eq!((&shown["owner"], &shown["runs"]), (&Value::Null, &json!([])));
        let text = stdout(&show(&place, &[]).await.expect(0));
        for part in ["complete: public.t -> ", "\nwhere       id > 7\n", "3,993 rows in ", "\n  id  integer", "csv"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // Neither the server's address nor a credential.
        assert!(!text.contains("127.0.0.1:") || !text.contains("postgres@"), "{text}");
    }
}

#[tokio::test]
async fn show_finds_a_single_file_by_itself() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.csv");
    let to = file.to_str().unwrap();
    let args = ["export", "--from", &pg.url, "--table", "t", "--to", to, "--format", "csv", "--single-file"];
    outhaul(args).run().await.expect(0);
    let text = stdout(&outhaul(["show", to]).run().await.expect(0));
    assert!(text.starts_with(&format!("complete: public.t -> file://{to}\n")), "{text}");
    let missing = folder.path().join("other.csv");
    outhaul(["show", missing.to_str().unwrap()]).run().await.expect(30);
    std::fs::write(folder.path().join("t.csv.manifest.json"), "{").unwrap();
    let broken = outhaul(["show", to]).run().await.expect(30);
    assert!(broken.stderr.contains("t.csv.manifest.json"), "{}", broken.stderr);
}

#[tokio::test]
async fn a_plan_says_what_it_would_find_at_its_destination() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    for place in Place::both() {
        let url = place.url();
        let plan = async |args: &[&str]| {
            let fixed = ["plan", "--from", &pg.url, "--table", "t", "--to", &url];
            let report = if args.contains(&"--report") { &[][..] } else { &["--report", "json"][..] };
            place.outhaul(fixed.iter().chain(report).chain(args).copied()).run().await.expect(0)
        };
        let state = |run: &Run| run.report["destination"]["state"].clone();
        let free = plan(&["--format", "csv", "--compression", "gzip"]).await;
        assert_eq!((state(&free), &free.report["output"]), (json!("free"), &json!("csv")));
        assert_eq!(free.report["compression"]["codec"], "gzip");
        assert_eq!(place.list().await.len(), 0, "a plan writes nothing");

        let stop = Stop::at("receipted");
        let running = export(&pg, &place, &[]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        let taken = plan(&[]).await;
        assert_eq!((state(&taken), &taken.report["destination"]["pid"]), (json!("at_work"), &json!(running.pid())));
        stop.release();
        running.wait().await.expect(0);

        let committed = plan(&["--where", "id <= 40"]).await;
        assert_eq!(state(&committed), "committed");
        let estimate = committed.report["relation"]["estimated_rows"].as_u64().unwrap();
        assert!((20..200).contains(&estimate), "the estimate is EXPLAIN's: {estimate}");
        for (rule, says) in [("fail", "stop with exit 22"), ("replace", "replace it"), ("skip", "leave it as it is")] {
            let text = stdout(&plan(&["--report", "text", "--on-existing", rule]).await);
            assert!(text.contains(&format!("an export would {says}")), "{text}");
            assert!(text.contains(&format!("\nto          {}", text_url(&place, &url))), "{text}");
        }
    }
    // Nothing says where: the plan is about the source alone.
    let run = outhaul(["plan", "--from", &pg.url, "--table", "t", "--report", "json"]).run().await.expect(0);
    assert_eq!(run.report["destination"], Value::Null);
    // A destination that cannot be looked at is no reason to know nothing of the source.
    let args = ["plan", "--from", &pg.url, "--table", "t", "--to", "s3://nobody/x", "--report", "json"];
    let there = [("AWS_ENDPOINT", "http://127.0.0.1:1".to_owned()), ("AWS_ACCESS_KEY_ID", "a".to_owned())];
    let limited =
        outhaul(args).envs(there).env("AWS_SECRET_ACCESS_KEY", "secret-canary").limit(Duration::from_secs(20));
    let run = limited.run().await.expect(0);
    assert_eq!(run.report["destination"]["state"], "unknown", "{}", run.report);
    assert!(!run.report.to_string().contains("secret-canary"));
}

/// How a destination is shown.
fn text_url(place: &Place, url: &str) -> String {
    if matches!(place, Place::Local(_)) { format!("file://{url}") } else { url.to_owned() }
}

async fn ls(pg: &Pg, args: &[&str]) -> Run {
    let fixed = ["ls", "--from", &pg.url];
    outhaul(fixed.iter().chain(args).copied()).run().await
}

fn relation<'a>(report: &'a Value, table: &str) -> &'a Value {
    let relations = report["relations"].as_array().unwrap();
    relations.iter().find(|relation| relation["table"] == table).unwrap_or_else(|| panic!("{table}: {report}"))
}

#[tokio::test]
async fn ls_lists_what_could_be_exported_and_how() {
    for version in both() {
        let pg = pg(version).await;
        let role = format!("ls_reader_{}", pg.value("select current_database()").await);
        pg.batch(&format!(
            "{TABLE};
            create table parted (id int not null, at int not null, primary key (at, id)) partition by range (at);
            create table parted_1 partition of parted for values from (0) to (10);
            create table parted_2 partition of parted for values from (10) to (20);
            insert into parted select i, i % 20 from generate_series(1, 1000) i; analyze parted;
            create view v as select * from t; create materialized view m as select * from t; analyze m;
            create table \"Odd Name\" (x text); create table nokey (x int); create unique index on nokey (x);
            create temporary table mine (x int);
            create schema other; create table other.hidden (x int);
            create table secured (id int primary key); alter table secured enable row level security;
            create role {role} login; grant select on t, parted, secured to {role}; grant select (x) on nokey to {role}"
        ))
        .await;
        // Whoever may create functions where the session looks does not read along.
        pg.batch("create function public.lower(name) returns text language sql as $$ select 1/0 || '' $$").await;
        let report = ls(&pg, &["--json"]).await.expect(0).report;
        let names: Vec<&str> =
            report["relations"].as_array().unwrap().iter().map(|one| one["table"].as_str().unwrap()).collect();
        let expected = [
            "other.hidden",
            "public.\"Odd Name\"",
            "public.m",
            "public.nokey",
            "public.parted",
            "public.secured",
            "public.t",
            "public.v",
        ];
        assert_eq!(names, expected);
        let t = relation(&report, "public.t");
        assert_eq!((&t["estimated_rows"], &t["key"], &t["split"]), (&json!(4000), &json!(["id"]), &json!("blocks")));
        assert!(t["bytes"].as_u64().unwrap() > 200_000, "{t}");
        let parted = relation(&report, "public.parted");
        assert_eq!((&parted["estimated_rows"], &parted["tables"]), (&json!(1000), &json!(2)));
        assert_eq!((&parted["key"], &parted["kind"]), (&json!(["at", "id"]), &json!("partitioned_table")));
        assert_eq!(relation(&report, "public.v")["split"], "one_partition");
        assert_eq!(relation(&report, "public.m")["split"], "blocks");
        assert_eq!(relation(&report, "public.nokey")["key"], json!([]), "a key that may be NULL");

        let one = ls(&pg, &["parted_1", "--json"]).await.expect(0).report;
        assert_eq!(relation(&one, "public.parted_1")["part_of"], "public.parted");
        assert_eq!(ls(&pg, &["Odd*", "--json"]).await.expect(0).report["relations"].as_array().unwrap().len(), 1);
        let none = ls(&pg, &["nothing*"]).await.expect(13);
        assert!(none.stderr.contains("no relation is named nothing*"), "{}", none.stderr);
        let text = stdout(&ls(&pg, &[]).await.expect(0));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

        let url = pg.url.replace("postgres@", &format!("{role}@"));
        let seen = outhaul(["ls", "--from", &url, "--report", "json"]).run().await.expect(0).report;
        let readable = |table: &str| relation(&seen, table)["readable"].clone();
        assert_eq!(readable("public.t"), "all");
        assert_eq!(readable("public.nokey"), "some_columns");
        assert_eq!(readable("public.secured"), "some_rows");
        assert_eq!(readable("other.hidden"), "none");
        assert_eq!(relation(&seen, "public.parted")["split"], "key", "its leaves may not be read by themselves");
        pg.batch(&format!("drop owned by {role}; drop role {role}")).await;
    }
}

#[tokio::test]
async fn ls_does_not_wait_for_whoever_rewrites_a_table() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let other = pg.connect().await;
    other.batch_execute("begin; lock table t in access exclusive mode").await.unwrap();
    let run = ls(&pg, &["--json"]).await.expect(0);
    assert!(relation(&run.report, "public.t")["bytes"].as_u64().unwrap() > 200_000, "{}", run.report);
    assert!(run.stderr.contains("sizes are those of the last VACUUM"), "{}", run.stderr);
    other.batch_execute("rollback").await.unwrap();
}
