//! `outhaul verify --against-source`: the rows of a manifest, counted again in PostgreSQL.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::eventually;
use crate::support::job::{Export, export, parts};
use crate::support::pg::{Pg, both, pg, rows};
use crate::support::run::{Run, outhaul};

/// A run's snapshot that is still held: the manifest is given one that the test holds itself.
#[tokio::test]
async fn under_the_runs_snapshot_every_partition_still_has_its_rows() {
    for version in both() {
        let pg = table(version).await;
        for args in [
            &["--partitions", "3"][..],
            &["--partitions", "3", "--key", "id"],
            &["--partitions", "3", "--key", "k", "--where", "id % 2 = 0"],
            &["--max-rows", "1000", "--partitions", "3", "--allow-truncated"],
            &["--max-rows", "5000"],
            &["--max-rows", "1000", "--allow-truncated", "--key", "k"],
        ] {
            let done = exported(&pg, args).await;
            let keeper = pg.connect().await;
            hold(&keeper, &done).await;
            pg.batch("insert into t select i, i, 'new' from generate_series(5001, 6000) i").await;
            pg.batch("delete from t where id % 10 = 1; update t set k = k + 100000").await;
            let run = against(&pg, &done.dest()).await.expect(0);
            let source = &run.report["source"];
            assert_eq!(
                (&source["mode"], &source["partitions_uncounted"]),
                (&json!("run_snapshot"), &json!(0)),
                "{args:?}"
            );
            let counted = if done.partitions() == 1 && !args.contains(&"--key") { 0..=1 } else { 1..=9 };
            assert!(counted.contains(&source["partitions"].as_u64().unwrap()), "{args:?}: {source}");

            // Rows that the run did not read.
            edit(&done.dest(), |manifest| {
                let part = &mut manifest["parts"][0];
                part["rows"] = (part["rows"].as_u64().unwrap() - 1).into();
                manifest["totals"]["rows"] = (manifest["totals"]["rows"].as_u64().unwrap() - 1).into();
            });
            let run = against(&pg, &done.dest()).await.expect(30);
            let said = problems(&run);
            assert!(said.iter().any(|said| said.contains("the export has")), "{args:?}: {said:?}");
            assert!(said.iter().all(|said| !said.contains("may have changed")), "{args:?}: {said:?}");
            if source["partitions"] != 0 {
                assert!(said.iter().any(|said| said.contains("partition 0 has")), "{args:?}: {said:?}");
            }
            // Its transaction holds no lock on the table: only the snapshot.
            drop(keeper);
            pg.batch("truncate t").await;
            fill(&pg).await;
        }
    }
}

/// Rows moved from one partition to another in the manifest: the total is right, the partitions are not.
#[tokio::test]
async fn partitions_are_compared_each_for_itself() {
    let pg = table(15).await;
    for key in [&[][..], &["--key", "id"]] {
        let done = exported(&pg, &[&["--partitions", "3"], key].concat()).await;
        edit(&done.dest(), |manifest| {
            for (part, more) in [(0, 1_i64), (1, -1)] {
                let rows = &mut manifest["parts"][part]["rows"];
                *rows = (rows.as_i64().unwrap() + more).into();
            }
        });
        let keeper = pg.connect().await;
        hold(&keeper, &done).await;
        let said = problems(&against(&pg, &done.dest()).await.expect(30));
        assert!(
            said.len() == 2 && said[0].contains("partition 0 has") && said[1].contains("partition 1 has"),
            "{said:?}"
        );
        drop(keeper);
        eventually(Duration::from_secs(10), "the end of the snapshot", async || {
            let held = "select count(*) from pg_stat_activity
                where datname = current_database() and state like 'idle in transaction%'";
            (pg.value(held).await == "0").then_some(())
        })
        .await;

        // Once the snapshot is gone, rows may have moved in the heap, but not from one key to another.
        let run = against(&pg, &done.dest()).await.expect(if key.is_empty() { 0 } else { 30 });
        let source = &run.report["source"];
        assert_eq!(source["mode"], "now");
        assert_eq!(source["partitions_uncounted"], if key.is_empty() { 3 } else { 0 });
        assert!(problems(&run).iter().all(|said| said.contains("the source may have changed since")));
    }
}

#[tokio::test]
async fn without_the_snapshot_what_differs_is_labelled() {
    for version in both() {
        let pg = table(version).await;
        for args in [
            &["--table", "t"][..],
            &["--table", "t", "--key", "id", "--partitions", "3"],
            &["--table", "t", "--where", "k < 2000"],
            &["--table", "t", "--read-mode", "keyset"],
            &["--query", "select id, v from t where k < 3000"],
            &["--query", "select id, v from t", "--key", "id", "--max-rows", "6000"],
            &["--table", "t", "--manifest-stats", "none", "--key", "id", "--partitions", "2"],
        ] {
            let done = export(&pg, args).await.expect(0);
            let run = against(&pg, &done.dest()).await.expect(0);
            assert_eq!(
                (&run.report["verified"], &run.report["source"]["mode"]),
                (&json!(true), &json!("now")),
                "{args:?}"
            );
            assert_eq!(run.report["source"]["rows"], done.manifest()["totals"]["rows"], "{args:?}");

            pg.batch("delete from t where id in (7, 8)").await;
            let run = against(&pg, &done.dest()).await.expect(30);
            let said = problems(&run);
            assert!(said[0].contains("at the source now, the manifest says"), "{args:?}: {said:?}");
            assert!(said.iter().all(|said| said.contains("the source may have changed since")), "{args:?}: {said:?}");
            pg.batch("insert into t values (7, 7, 'back'), (8, 8, 'back')").await;
            against(&pg, &done.dest()).await.expect(0);
        }
    }
}

#[tokio::test]
async fn a_cap_that_left_rows_out_is_counted_to_its_end() {
    let pg = table(15).await;
    let done = exported(&pg, &["--max-rows", "1000", "--allow-truncated"]).await;
    against(&pg, &done.dest()).await.expect(0);
    // More rows behind the cap change nothing, fewer than the cap had do.
    pg.batch("delete from t where id > 4000").await;
    against(&pg, &done.dest()).await.expect(0);
    pg.batch("delete from t where id > 1000").await;
    let said = problems(&against(&pg, &done.dest()).await.expect(30));
    assert!(said[0].contains("the manifest says that the cap left rows out"), "{said:?}");
    pg.batch("delete from t where id > 999").await;
    let said = problems(&against(&pg, &done.dest()).await.expect(30));
    assert!(said[0].contains("the export has 999 rows"), "{said:?}");
}

/// After a restart, another session's snapshot may have the id; its oldest transaction gives it away.
#[tokio::test]
async fn a_snapshot_of_the_same_name_is_not_taken_for_the_runs() {
    let pg = table(15).await;
    let done = exported(&pg, &["--partitions", "2"]).await;
    let keeper = pg.connect().await;
    hold(&keeper, &done).await;
    assert_eq!(against(&pg, &done.dest()).await.expect(0).report["source"]["mode"], "run_snapshot");
    edit(&done.dest(), |manifest| manifest["consistency"]["snapshots"][0]["xmin"] = "3".into());
    assert_eq!(against(&pg, &done.dest()).await.expect(0).report["source"]["mode"], "now");
}

#[tokio::test]
async fn what_is_gone_has_its_exit_code() {
    let pg = table(18).await;
    let done = exported(&pg, &["--key", "k", "--where", "v <> ''", "--rename", "id=number"]).await;
    let dest = done.dest();
    against(&pg, &dest).await.expect(0);
    for (change, back, named) in [
        ("alter table t rename v to w", "alter table t rename w to v", "\"v\""),
        ("alter table t rename k to w", "alter table t rename w to k", "\"k\""),
        ("alter table t rename id to w", "alter table t rename w to id", "\"id\""),
        ("alter table t rename to u", "alter table u rename to t", "public.t"),
    ] {
        pg.batch(change).await;
        let run = against(&pg, &dest).await.expect(13);
        assert!(run.report["error"].as_str().unwrap().contains(named), "{change}: {}", run.stderr);
        pg.batch(back).await;
    }
    let (url, _) = pg.role("").await;
    command(&dest, &url).run().await.expect(10);
    command(&dest, "postgres://postgres@127.0.0.1:1/x").run().await.expect(11);
    let args = ["verify", dest.to_str().unwrap(), "--against-source", "--from", "postgres://u:secret@127.0.0.1/x"];
    let run = outhaul(args).run().await.expect(2);
    assert!(!run.stderr.contains("secret"), "{}", run.stderr);
    outhaul(["verify", dest.to_str().unwrap(), "--from", &pg.url]).run().await.expect(2);
}

#[tokio::test]
async fn names_with_dots_and_leaves_of_a_partitioned_table_are_found() {
    let pg = pg(15).await;
    pg.batch(
        "create schema \"a.b\"; create table \"a.b\".\"c\"\"d\" (id int) partition by range (id);
        create table \"a.b\".\"low; x\" partition of \"a.b\".\"c\"\"d\" for values from (0) to (500);
        create table \"a.b\".high partition of \"a.b\".\"c\"\"d\" default;
        insert into \"a.b\".\"c\"\"d\" select generate_series(1, 1000)",
    )
    .await;
    let done = export(&pg, &["--table", "\"a.b\".\"c\"\"d\"", "--partitions", "4"]).await.expect(0);
    against(&pg, &done.dest()).await.expect(0);
    let keeper = pg.connect().await;
    hold(&keeper, &done).await;
    let run = against(&pg, &done.dest()).await.expect(0);
    assert_eq!(run.report["source"]["partitions"], done.partitions());
    // A leaf's name reaches SQL only where the catalog has it.
    edit(&done.dest(), |manifest| {
        for part in manifest["parts"].as_array_mut().unwrap() {
            part["range"]["leaf"] = "(select 1)".into();
        }
    });
    against(&pg, &done.dest()).await.expect(13);
}

#[tokio::test]
async fn people_see_how_it_was_counted() {
    let pg = table(15).await;
    let done = exported(&pg, &["--partitions", "2"]).await;
    let dest = done.dest();
    let args = ["verify", dest.to_str().unwrap(), "--against-source"];
    let run = outhaul(args).env("DATABASE_URL", &pg.url).run().await.expect(0);
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("5,000 rows counted in the source as it is now"), "{text}");
    let keeper = pg.connect().await;
    hold(&keeper, &done).await;
    let run = outhaul(args).env("DATABASE_URL", &pg.url).run().await.expect(0);
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("counted in the run's snapshot") && text.contains("each of 2 partitions"), "{text}");
    std::fs::remove_file(dest.join("_manifest.json")).unwrap();
    outhaul(args).env("DATABASE_URL", &pg.url).run().await.expect(30);
}

/// Puts a snapshot that `keeper` holds in the place of the run's own, of which it has the same rows.
async fn hold(keeper: &Client, done: &Export) {
    keeper.batch_execute("begin isolation level repeatable read").await.unwrap();
    let found = rows(keeper, "select pg_export_snapshot(), pg_snapshot_xmin(pg_current_snapshot())").await;
    edit(&done.dest(), |manifest| {
        assert_eq!(manifest["consistency"]["snapshots"].as_array().unwrap().len(), 1);
        let snapshot = &mut manifest["consistency"]["snapshots"][0];
        snapshot["id"] = found[0][0].clone().into();
        snapshot["xmin"] = found[0][1].clone().into();
    });
}

/// A count of other rows says nothing of those that were exported.
#[tokio::test]
async fn rows_that_are_chosen_anew_each_time_are_not_compared() {
    for version in both() {
        let pg = table(version).await;
        for (args, place) in [
            (&["--where", "random() < 0.5"][..], "random() in --where"),
            (&["--where", "random() < 0.5", "--key", "id", "--partitions", "3"], "random() in --where"),
            // Whatever the count would be.
            (&["--where", "random() < 2"], "random() in --where"),
            (&["--where", "random() < 0.5", "--max-rows", "10", "--allow-truncated"], "random() in --where"),
        ] {
            let done = exported(&pg, args).await;
            let keeper = pg.connect().await;
            for _ in 0..2 {
                let run = against(&pg, &done.dest()).await.expect(2);
                for words in [place, "chosen anew each time", "--against-source"] {
                    assert!(run.report.to_string().contains(words), "{args:?}: {}", run.report);
                }
                // Under the run's own snapshot they are chosen anew as well.
                hold(&keeper, &done).await;
            }
            let dest = done.dest();
            outhaul(["verify", dest.to_str().unwrap(), "--read-data"]).run().await.expect(0);
        }
        // Of whole statements it is not known whether they have other rows or other values.
        for (query, code) in [
            ("select * from t where random() < 0.5", 30),
            ("select * from t tablesample bernoulli (50)", 30),
            ("select id, random() from t", 0),
            ("select id, row_number() over (order by id) from t", 0),
            ("select * from t limit 100", 0),
        ] {
            let done = export(&pg, &["--query", query]).await.expect(0);
            if code == 30 {
                // They could be as many by chance.
                edit(&done.dest(), |manifest| {
                    manifest["parts"][0]["rows"] = 100_000.into();
                    manifest["totals"]["rows"] = 100_000.into();
                });
            }
            let run = against(&pg, &done.dest()).await.expect(code);
            let said = if code == 0 { run.report["source"]["note"].to_string() } else { problems(&run).join("; ") };
            assert!(said.contains("may give each statement something else"), "{query}: {}", run.report);
            let dest = done.dest();
            let text = outhaul(["verify", dest.to_str().unwrap(), "--against-source", "--from", &pg.url]).run().await;
            let text = String::from_utf8(text.expect(code).stdout).unwrap();
            assert!(text.contains("may give each statement something else"), "{query}: {text}");
        }
        let done = exported(&pg, &["--where", "k < 100"]).await;
        assert_eq!(against(&pg, &done.dest()).await.expect(0).report["source"]["note"], json!(null));
    }
}

fn edit(dest: &Path, change: impl FnOnce(&mut Value)) {
    let mut manifest = crate::support::manifest(dest);
    change(&mut manifest);
    std::fs::write(dest.join("_manifest.json"), manifest.to_string()).unwrap();
}

fn problems(run: &Run) -> Vec<String> {
    let findings = run.report["source"]["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["problem"].as_str().unwrap().to_owned()).collect()
}

fn command(dest: &Path, url: &str) -> crate::support::run::Outhaul {
    outhaul(["verify", dest.to_str().unwrap(), "--against-source", "--from", url, "--report", "json"])
}

async fn against(pg: &Pg, dest: &Path) -> Run {
    command(dest, &pg.url).run().await
}

async fn exported(pg: &Pg, more: &[&str]) -> Export {
    let done = export(pg, &[&["--table", "t"], more].concat()).await.expect(0);
    assert!(!parts(&done.manifest()).is_empty());
    done
}

async fn table(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch("create table t (id int primary key, k int, v text)").await;
    fill(&pg).await;
    pg
}

/// Every tenth `k` is NULL.
async fn fill(pg: &Pg) {
    let rows = "select i, case when i % 10 > 0 then i end, 'value ' || i from generate_series(1, 5000) i";
    pg.batch(&format!("insert into t {rows}; analyze t")).await;
}
