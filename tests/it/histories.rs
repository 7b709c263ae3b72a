//! Incremental exports of databases that were restored, and of loads that another process finished: what the next one goes on
//! from, and what it exports in full.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::support::cluster::Cluster;
use crate::support::job::data;
use crate::support::manifest;
use crate::support::night::Night;
use crate::support::pg::pg;
use crate::support::run::{Run, Stop, outhaul};

const TABLE: &str =
    "create table t (id bigint generated always as identity primary key, ts timestamptz default now(), v text);
    insert into t (v) values ('one'), ('two')";

/// Loads of one table, each in a folder of its own.
struct Loads {
    folder: tempfile::TempDir,
}

impl Loads {
    fn to(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A load of a database; `since` is the one before.
    async fn load(&self, url: &str, name: &str, since: &str, code: i32) -> Run {
        let to = self.to(name);
        let since = if since == "none" { since.into() } else { self.to(since) };
        let args =
            ["export", "--from", url, "--table", "t", "--watermark", "ts", "--format", "csv", "--report", "json"];
        let more = ["--csv-header", "off", "--to", to.to_str().unwrap(), "--since", since.to_str().unwrap()];
        outhaul(args.iter().chain(&more)).run().await.expect(code)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        texts(&self.to(name))
    }
}

fn texts(dest: &Path) -> Vec<String> {
    let lines = String::from_utf8(data(dest)).unwrap();
    let mut texts: Vec<String> = lines.lines().map(|line| line.split(',').nth(2).unwrap().to_owned()).collect();
    texts.sort();
    texts
}

async fn done(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().await.unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What `pg_dump` and `pg_restore` bring over has transactions of the new database: nothing is missed, all comes again.
#[tokio::test]
async fn a_dump_that_is_restored_is_exported_in_full() {
    let (server, other) = tokio::join!(Cluster::start(15, &[]), Cluster::start(15, &[]));
    server.batch(TABLE).await;
    let loads = Loads { folder: tempfile::tempdir().unwrap() };
    loads.load(&server.url, "first", "none", 0).await;
    let dump = loads.to("dump");
    let dump = dump.to_str().unwrap();
    done("pg_dump", &["--format", "custom", "--file", dump, &server.url]).await;
    server.batch("create database restored").await;
    let beside = format!("{}/restored", server.url.strip_suffix("/postgres").unwrap());
    for (url, why) in [(&beside, "in another database"), (&other.url, "on another server")] {
        done("pg_restore", &["--dbname", url, "--exit-on-error", dump]).await;
        let client = crate::support::pg::connect(url).await;
        client.batch_execute("insert into t (v) values ('three')").await.unwrap();
        let name = if *url == beside { "beside" } else { "elsewhere" };
        let run = loads.load(url, name, "first", 0).await;
        assert!(run.stderr.contains(why), "{}", run.stderr);
        assert!(run.report["watermark"]["why_full"].as_str().unwrap().contains(why), "{}", run.report);
        assert_eq!(loads.texts(name), ["one", "three", "two"]);
        // From here on it goes by its own transactions.
        client.batch_execute("insert into t (v) values ('four')").await.unwrap();
        let next = format!("{name} again");
        loads.load(url, &next, name, 0).await;
        assert_eq!(loads.texts(&next), ["four"]);
    }
}

/// A copy of the files is the same server at an earlier time.
#[tokio::test]
async fn a_server_whose_files_are_restored_is_exported_in_full_or_refused() {
    let server = Cluster::start(15, &[]).await;
    server.batch(TABLE).await;
    let loads = Loads { folder: tempfile::tempdir().unwrap() };
    let aside = server.set_aside().await;
    // Nothing was written since, and the log is farther: nobody knows what was lost.
    server.batch("select pg_switch_wal(); checkpoint").await;
    loads.load(&server.url, "quiet", "none", 0).await;
    server.put_back(&aside).await;
    let run = loads.load(&server.url, "refused", "quiet", 12).await;
    assert!(run.stderr.contains("of its WAL") && run.stderr.contains("--since none"), "{}", run.stderr);
    assert!(!loads.to("refused").join("_manifest.json").exists());
    // Transactions of after the copy are gone, and their numbers come again.
    for _ in 0..5 {
        server.batch("insert into t (v) values ('lost')").await;
    }
    loads.load(&server.url, "busy", "none", 0).await;
    server.put_back(&aside).await;
    server.batch("insert into t (v) values ('new')").await;
    let run = loads.load(&server.url, "full", "busy", 0).await;
    assert!(run.stderr.contains("do not go on from those"), "{}", run.stderr);
    assert_eq!(loads.texts("full"), ["new", "one", "two"]);
}

/// A load that `outhaul resume DEST` finished by itself: its job finds out at the next run, and goes on from it.
#[tokio::test]
async fn a_load_that_is_resumed_by_itself_is_what_the_next_one_goes_on_from() {
    // Of its own: transactions that others have open would have rows come twice.
    let server = Cluster::start(18, &[]).await;
    for at in ["receipted", "uploaded"] {
        server.batch(&format!("drop table if exists t; {TABLE}")).await;
        let night = Night::new(
            "root = 'ROOT'\n[defaults]\nformat = 'csv'\ncsv_header = 'off'\nkeep_snapshot = '60s'\npartitions = 3\nreaders = 1\n\
             [[export]]\nname = 't'\ntable = 'public.t'\nwatermark = 'ts'\nto = 'ROOT/t/load={run_id}'\n",
        );
        let state =
            || -> Value { serde_json::from_slice(&std::fs::read(night.out("_state/t.json")).unwrap()).unwrap() };
        night.run_at(&server.url, &["--run-id", "n1"]).run().await.expect(0);
        server
            .batch("alter table t add column more int; insert into t (v) select 'second' || repeat('x', 500) from generate_series(1, 600); analyze t")
            .await;
        let stop = Stop::at(at);
        let running = night.run_at(&server.url, &["--run-id", "n2"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        server.batch("insert into t (v) values ('third')").await;
        let load = night.out("t/load=n2");
        let args = ["resume", load.to_str().unwrap(), "--from", &server.url, "--report", "json", "--progress", "none"];
        let run = outhaul(args).run().await.expect(0);
        assert_eq!(run.report["watermark"]["since"], "n1", "{at}: {}", run.report);
        let mark = |run_id: &str| manifest(&night.out(&format!("t/load={run_id}")))["watermark"].clone();
        assert_eq!(mark("n2")["changes"], serde_json::json!([{"column": "more", "change": "added"}]), "{at}");
        assert_eq!(texts(&load).len(), 600, "{at}: what was new under the snapshot of the first process");
        assert_eq!((&state()["last"]["run_id"], &state()["pending"]["run_id"]), (&"n1".into(), &"n2".into()));
        // The same command is the retry: it finds the load committed.
        let again = night.run_at(&server.url, &["--run-id", "n2"]).run().await.expect(0);
        assert_eq!(again.report["exports"][0]["already_committed"], true, "{at}: {}", again.report);
        night.run_at(&server.url, &["--run-id", "n3"]).run().await.expect(0);
        assert_eq!(mark("n3")["since"], "n2", "{at}");
        let third = texts(&night.out("t/load=n3"));
        assert!(third.contains(&"third".to_owned()), "{at}: {third:?}");
        assert!(third.len() <= 1 + 600, "{at}");
        assert_eq!(state()["last"]["run_id"], "n3");
    }
}

/// A retry after midnight: what has committed is found where it stands, and the rest goes beside it.
#[tokio::test]
async fn a_retry_on_another_day_goes_on_in_the_folders_of_the_first() {
    let pg = pg(18).await;
    pg.batch("create table a as select 1 as id; create table b as select 2 as id").await;
    let today = chrono::Utc::now().date_naive();
    let evening = today.pred_opt().unwrap().to_string();
    for (to, days_folder) in [("ROOT/{table}/{date}", false), ("ROOT/{date}/{table}", true)] {
        for off in ["", "first-day"] {
            let night =
                Night::new(&format!("[defaults]\nto = '{to}'\n[[export]]\ntable = 'a'\n[[export]]\ntable = 'b'\n"));
            pg.batch("alter table b rename to hidden").await;
            // As it would have been yesterday.
            night.run(&pg, &["--run-id", "n1", "--date", &evening]).run().await.expect(13);
            pg.batch("alter table hidden rename to b").await;
            let run = night.run(&pg, &["--run-id", "n1"]).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
            let again = run.report["exports"][0]["already_committed"] == true;
            assert_eq!(again, off.is_empty(), "{to}: {}", run.report);
            let folder = |table: &str, day: &str| {
                night.out(&if days_folder { format!("{day}/{table}") } else { format!("{table}/{day}") })
            };
            for table in ["a", "b"] {
                let is_there = |day: &str| folder(table, day).join("_manifest.json").exists();
                assert!(is_there(&evening) || !off.is_empty(), "{to} {table}");
                assert_eq!(is_there(&today.to_string()), !off.is_empty(), "{to} {table}");
            }
            if off.is_empty() {
                // The third try too; and another run is of its own day.
                let run = night.run(&pg, &["--run-id", "n1"]).run().await.expect(0);
                assert_eq!(run.report["exports"][1]["already_committed"], true, "{to}");
                night.run(&pg, &["--run-id", "n2"]).run().await.expect(0);
                assert!(folder("b", &today.to_string()).join("_manifest.json").exists());
            }
        }
    }
}

/// It asks for what its run asked for: there is no way to say anything else.
#[tokio::test]
async fn resume_takes_no_other_rows() {
    for flag in ["--watermark", "--where", "--columns", "--table", "--since", "--look-back"] {
        let run = outhaul(["resume", "out.d", "--from", "postgres://nobody@127.0.0.1:1/none", flag, "x"])
            .run()
            .await
            .expect(2);
        assert!(run.stderr.contains(flag), "{}", run.stderr);
    }
}
