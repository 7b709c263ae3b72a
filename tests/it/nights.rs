//! Nights of a job with incremental exports: each load has what is new, the job remembers where it was, and a run that is killed
//! or retried loses nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::job::data;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, Run, Stop, outhaul};
use crate::support::{manifest, variable, within};

const SHOP: &str =
    "create table orders (id bigint generated always as identity primary key, ts timestamptz default now(), v text);
    create table small (id int primary key, v text); insert into small values (1, 'one')";

/// What the view of the newest rows shows.
const CURRENT: &str = r#"
import duckdb, json, sys
connection = duckdb.connect()
connection.execute(open(sys.argv[1], encoding="utf-8").read())
print(json.dumps(connection.execute("select id, v from orders_current order by id").fetchall()))
"#;

struct Job {
    folder: tempfile::TempDir,
    night: usize,
}

impl Job {
    fn new(format: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let root = root.to_str().unwrap();
        let text = format!(
            "root = '{root}'\n[defaults]\nformat = '{format}'\n\
             [[export]]\nname = 'orders'\ntable = 'public.orders'\nwatermark = 'ts'\nto = '{root}/orders/load={{run_id}}'\n\
             [[export]]\nname = 'small'\ntable = 'public.small'\non_existing = 'replace'\nto = '{root}/small'\n"
        );
        std::fs::write(folder.path().join("job.toml"), text).unwrap();
        Self { folder, night: 0 }
    }

    fn command(&self, url: &str, run_id: &str, args: &[&str]) -> Outhaul {
        let job = self.folder.path().join("job.toml");
        let fixed = ["run", job.to_str().unwrap(), "--from", url, "--report", "json", "--progress", "none"];
        outhaul(fixed.iter().chain(&["--run-id", run_id]).chain(args))
    }

    async fn run(&mut self, url: &str, args: &[&str]) -> Run {
        self.night += 1;
        self.command(url, &format!("night-{}", self.night), args).run().await.expect(0)
    }

    fn load(&self, run_id: &str) -> PathBuf {
        self.folder.path().join(format!("out/orders/load={run_id}"))
    }

    fn state(&self) -> Value {
        let path = self.folder.path().join("out/_state/orders.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The rows of a night, by their ids.
    fn rows(&self, night: usize) -> BTreeMap<i64, String> {
        let lines = String::from_utf8(data(&self.load(&format!("night-{night}")))).unwrap();
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[0].parse().unwrap(), fields[2].to_owned())
        };
        lines.lines().map(row).collect()
    }
}

/// What happened to a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Nothing.
    Calm,
    /// It was killed while it read.
    Killed,
    /// It was killed between its commit and its state.
    Unremembered,
    /// It was run twice with the same id.
    Retried,
}

async fn night(job: &mut Job, url: &str, fate: Fate) {
    let run_id = format!("night-{}", job.night + 1);
    match fate {
        Fate::Calm => {}
        Fate::Killed | Fate::Unremembered => {
            let stop = Stop::at(if fate == Fate::Killed { "uploaded" } else { "unremembered" });
            let running = job.command(url, &run_id, &["--only", "orders"]).stops([&stop]).spawn();
            running.stands_at(&stop).await;
            running.signal("KILL").await;
            running.wait().await;
            job.night += usize::from(fate == Fate::Unremembered);
        }
        Fate::Retried => {
            job.run(url, &[]).await;
            job.night -= 1;
        }
    }
    job.run(url, &[]).await;
}

#[tokio::test]
async fn ten_nights_have_every_row_once_though_one_is_killed_and_one_is_retried() {
    // Of its own: transactions that others have open would have rows come twice.
    let pg = Cluster::start(18, &[]).await;
    pg.batch(SHOP).await;
    let mut job = Job::new("csv");
    let mut expected: Vec<String> = Vec::new();
    let late = pg.connect().await;
    for nth in 1..=10 {
        pg.batch(&format!("insert into orders (v) values ('v{nth}a'), ('v{nth}b')")).await;
        expected.extend([format!("v{nth}a"), format!("v{nth}b")]);
        if nth == 4 {
            late.batch_execute("begin; insert into orders (v) values ('late')").await.unwrap();
        } else if nth == 6 {
            late.batch_execute("commit").await.unwrap();
            expected.push("late".to_owned());
        }
        let fate = match nth {
            3 => Fate::Killed,
            5 => Fate::Unremembered,
            8 => Fate::Retried,
            _ => Fate::Calm,
        };
        night(&mut job, &pg.url, fate).await;
        assert_eq!(job.state()["last"]["run_id"], format!("night-{}", job.night), "{nth}");
        assert_eq!(job.state()["pending"], Value::Null);
    }
    let (mut all, mut twice) = (BTreeMap::new(), Vec::new());
    for night in 1..=job.night {
        for (id, v) in job.rows(night) {
            twice.extend(all.insert(id, v.clone()));
        }
    }
    let mut found: Vec<String> = all.into_values().collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // While a transaction is open, what others commit beside it comes again.
    assert!(twice.iter().all(|v| ["v4", "v5", "v6"].iter().any(|night| v.starts_with(night))), "{twice:?}");
    let mark = |night: usize| manifest(&job.load(&format!("night-{night}")))["watermark"].clone();
    assert_eq!(mark(1)["since"], Value::Null);
    for night in 2..=job.night {
        assert_eq!(mark(night)["since"], format!("night-{}", night - 1));
    }
}

#[tokio::test]
async fn without_the_repair_a_load_comes_twice_in_full() {
    let pg = pg(18).await;
    pg.batch(&format!("{SHOP}; insert into orders (v) values ('one')")).await;
    for off in ["", "state-repair"] {
        let mut job = Job::new("csv");
        night(&mut job, &pg.url, Fate::Calm).await;
        pg.batch("insert into orders (v) values ('two')").await;
        let stop = Stop::at("unremembered");
        let running = job.command(&pg.url, "night-2", &["--only", "orders"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        job.night = 3;
        job.command(&pg.url, "night-3", &[]).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        let since = manifest(&job.load("night-3"))["watermark"]["since"].clone();
        assert_eq!(since, if off.is_empty() { "night-2" } else { "night-1" });
        // What others have open may have it come twice all the same.
        assert!(off.is_empty() || job.rows(3).values().any(|v| v == "two"), "{:?}", job.rows(3));
    }
}

/// Readers wait for what is written after the manifest: the next night writes it for a run that was killed before.
#[tokio::test]
async fn the_next_night_finishes_a_load_that_was_committed_and_not_finished() {
    let pg = pg(18).await;
    pg.batch(&format!("{SHOP}; insert into orders (v) values ('one')")).await;
    for off in ["", "finish-unsaid"] {
        let mut job = Job::new("parquet");
        job.run(&pg.url, &[]).await;
        let stop = Stop::at("committed");
        let running = job.command(&pg.url, "night-2", &["--only", "orders"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        running.signal("KILL").await;
        running.wait().await;
        assert!(!job.load("night-2").join("_SUCCESS").exists());
        job.command(&pg.url, "night-3", &[]).env("OUTHAUL_TEST_OFF", off).run().await.expect(0);
        for written in ["_SUCCESS", "_ddl/duckdb.sql"] {
            assert_eq!(job.load("night-2").join(written).exists(), off.is_empty(), "{written}");
        }
        assert_eq!(manifest(&job.load("night-3"))["watermark"]["since"], "night-2");
    }
}

/// Loads that one reader cannot read together, or whose equal values would differ, are none of one export.
#[tokio::test]
async fn what_readers_of_all_loads_could_not_join_is_refused() {
    let pg = pg(18).await;
    pg.batch("create table t (id int primary key, ts timestamptz default now(), email text); insert into t values (1)")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let keys = ["first", "second"].map(|name| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{name:x<40}")).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let hashed = ["--protect", "email=hash", "--protect-key-file", &keys[0]];
    for (name, first, second, expected) in [
        ("a", &["--compression", "gzip"][..], &["--compression", "zstd"][..], "--compression"),
        ("b", &hashed[..], &[][..], "--protect"),
        ("c", &hashed[..], &["--protect", "email=hash", "--protect-key-file", &keys[1]][..], "the key of --protect"),
        ("d", &hashed[..], &hashed[..], ""),
        ("e", &["--csv-header", "off"][..], &["--csv-header", "on"][..], "the options of CSV"),
        ("f", &[][..], &["--csv-null", "NULL"][..], "the options of CSV"),
        ("g", &["--protect", "email=drop"][..], &[][..], "--protect"),
        ("h", &[][..], &["--protect", "email=drop"][..], "--protect"),
        ("i", &["--protect", "email=drop"][..], &["--protect", "email=drop"][..], ""),
        ("j", &["--partition-by", "email"][..], &[][..], "--partition-by or --keep-partition-columns"),
        ("k", &[][..], &["--partition-by", "email"][..], "--partition-by or --keep-partition-columns"),
        (
            "l",
            &["--partition-by", "email"][..],
            &["--partition-by", "email", "--keep-partition-columns"][..],
            "--partition-by or --keep-partition-columns",
        ),
        ("m", &["--partition-by", "email"][..], &["--partition-by", "email"][..], ""),
    ] {
        let load = |night: &str| folder.path().join(format!("{name}/load={night}")).to_str().unwrap().to_owned();
        let export = |to: &str, args: &[&str]| {
            let fixed =
                ["export", "--from", &pg.url, "--table", "t", "--watermark", "ts", "--format", "csv", "--to", to];
            outhaul(fixed.iter().chain(args))
        };
        let (one, two) = (load("1"), load("2"));
        export(&one, first).run().await.expect(0);
        let again = [&["--since", one.as_str(), "--on-schema-change", "fail"][..], second].concat();
        let run = export(&two, &again).run().await.expect(if expected.is_empty() { 0 } else { 2 });
        assert!(
            expected.is_empty() || run.stderr.contains(&format!("differs from it in {expected}")),
            "{}",
            run.stderr
        );
    }
}

/// Rows whose keys are masked cannot be told apart by them.
#[tokio::test]
async fn a_view_of_the_newest_rows_needs_keys_that_are_told_apart() {
    let pg = pg(18).await;
    pg.batch("create table t (email text primary key, ts timestamptz default now()); insert into t values ('a@b.c')")
        .await;
    let folder = tempfile::tempdir().unwrap();
    for (how, tells) in [("mask", false), ("null", false), ("drop", false), ("hash", true)] {
        let key = folder.path().join("key");
        std::fs::write(&key, "k".repeat(40)).unwrap();
        let to = folder.path().join(format!("{how}/load=1"));
        let protect = format!("email={how}");
        let fixed = ["export", "--from", &pg.url, "--table", "t", "--watermark", "ts", "--to", to.to_str().unwrap()];
        let hashed = ["--protect-key-file", key.to_str().unwrap()];
        let key = if how == "hash" { &hashed[..] } else { &[] };
        outhaul(fixed.iter().chain(&["--protect", &protect]).chain(key)).run().await.expect(0);
        let expected = if tells { serde_json::json!(["email"]) } else { serde_json::json!([]) };
        assert_eq!(manifest(&to)["watermark"]["key"], expected, "{how}");
    }
}

/// Two rows whose keys are rounded to one would be one row of the view.
#[tokio::test]
async fn a_view_of_the_newest_rows_needs_keys_that_are_kept_apart() {
    let pg = pg(15).await;
    pg.batch(
        "create table t (device int, at timestamptz, n numeric, primary key (device, at), unique (n));
        create table u (n numeric primary key, at timestamptz);
        insert into t values (1, '2026-01-01 00:00:00.0001+00', 1), (1, '2026-01-01 00:00:00.0004+00', 2);
        insert into u values (9007199254740992, now()), (9007199254740993, now());
        create table dec (n numeric(20,2) primary key, at timestamptz);
        create extension if not exists citext; create table ci (k citext primary key, at timestamptz);
        create collation alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create table icu (k text collate alike primary key, at timestamptz);
        create table real (k float8 primary key, at timestamptz); create table padded (k char(3) primary key, at timestamptz);
        create type kind as enum ('a'); create domain name_d as varchar(9);
        create table kinds (kind kind, name name_d, day date, id uuid, at timestamptz, primary key (kind, name, day, id))",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, "k".repeat(40)).unwrap();
    let key_file = key_file.to_str().unwrap();
    for (number, (table, args, key)) in [
        ("t", &[][..], &["device", "at"][..]),
        ("t", &["--timestamp-precision", "ms"], &[]),
        ("t", &["--preset", "athena"], &[]),
        // 1 and 1.00 are one key and two texts.
        ("u", &[], &[]),
        ("u", &["--format", "ndjson"], &[]),
        ("u", &["--unconstrained-numeric", "decimal(38,2)"], &["n"]),
        ("u", &["--unconstrained-numeric", "double"], &[]),
        ("dec", &["--format", "csv"], &["n"]),
        ("ci", &[], &[]),
        ("ci", &["--protect", "k=hash", "--protect-key-file", key_file], &[]),
        ("icu", &[], &[]),
        ("real", &[], &[]),
        ("padded", &[], &["k"]),
        ("kinds", &[], &["kind", "name", "day", "id"]),
    ]
    .into_iter()
    .enumerate()
    {
        let to = folder.path().join(format!("{number}/load=1"));
        let fixed = ["export", "--from", &pg.url, "--table", table, "--watermark", "at", "--to", to.to_str().unwrap()];
        outhaul(fixed.iter().chain(args)).run().await.expect(0);
        assert_eq!(manifest(&to)["watermark"]["key"], serde_json::json!(key), "{table} {args:?}");
        let sql = std::fs::read_to_string(to.join("_ddl/duckdb.sql")).unwrap();
        assert_eq!(sql.contains("_current\" AS"), !key.is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn the_newest_rows_of_all_loads_are_the_table() {
    let pg = pg(18).await;
    pg.batch(&format!("{SHOP}; insert into orders (v) values ('one'), ('two'), ('three')")).await;
    for format in ["parquet", "csv", "ndjson"] {
        pg.batch("truncate orders; insert into orders (v) values ('one'), ('two'), ('three')").await;
        let mut job = Job::new(format);
        job.run(&pg.url, &[]).await;
        pg.batch(
            "update orders set v = 'two again', ts = now() where v = 'two'; insert into orders (v) values ('four')",
        )
        .await;
        job.run(&pg.url, &[]).await;
        assert_eq!(current(&job, 2).await, table(&pg).await, "{format}");
        // Deletes are not seen until all rows are exported again.
        pg.batch("delete from orders where v = 'one'").await;
        job.run(&pg.url, &[]).await;
        assert_eq!(current(&job, 3).await.len(), 4, "{format}");
        let full = job.run(&pg.url, &["--since", "none"]).await;
        assert_eq!(full.report["exports"][0]["watermark"]["since"], Value::Null);
        assert_eq!(current(&job, 4).await, table(&pg).await, "{format}");
    }
}

/// CSV is read by place: a load whose columns are others, or stand in another order, would show one column's values as
/// another's.
#[tokio::test]
async fn a_view_of_csv_fails_where_a_load_has_other_columns() {
    let pg = pg(18).await;
    for format in ["csv", "parquet"] {
        pg.batch(&format!("drop table if exists orders, small; {SHOP}; alter table orders add w text")).await;
        pg.batch("insert into orders (v, w) values ('v', 'w')").await;
        let mut job = Job::new(format);
        job.run(&pg.url, &[]).await;
        pg.batch(
            "alter table orders rename v to x; alter table orders rename w to v; alter table orders rename x to w;
            insert into orders (v, w) values ('new v', 'new w')",
        )
        .await;
        job.run(&pg.url, &[]).await;
        let shown = asked(&job.load("night-2")).await;
        if format == "csv" {
            let error = shown.unwrap_err();
            assert!(error.contains("night-1/ are not those of this load: export all rows again"), "{error}");
        } else {
            // What others have open may have the first row come again, as it is now.
            let shown = shown.unwrap();
            assert!(["v", "w"].contains(&shown[0].1.as_str()) && shown[1] == (2, "new v".to_owned()), "{shown:?}");
        }
        job.run(&pg.url, &["--since", "none"]).await;
        assert_eq!(current(&job, 3).await, table(&pg).await, "{format}");
    }
}

/// It hands on the moment of the load that it went on from, and its rows are newer all the same.
#[tokio::test]
async fn rows_of_a_load_that_a_cap_cut_short_are_newer_than_those_before_it() {
    let pg = pg(18).await;
    pg.batch(&format!("{SHOP}; insert into orders (v) values ('one'), ('two')")).await;
    let folder = tempfile::tempdir().unwrap();
    let load = |night: u32| folder.path().join(format!("load={night}"));
    let export = async |night: u32, args: &[&str]| {
        let to = load(night).to_str().unwrap().to_owned();
        let fixed = ["export", "--from", &pg.url, "--table", "orders", "--watermark", "ts", "--to", &to];
        outhaul(fixed.iter().chain(args)).run().await.expect(0)
    };
    export(1, &[]).await;
    pg.batch("update orders set v = 'one again', ts = now() where id = 1; insert into orders (v) values ('three')")
        .await;
    export(2, &["--since", load(1).to_str().unwrap(), "--limit", "1"]).await;
    let moment = |night: u32| manifest(&load(night))["watermark"]["taken_at"].clone();
    assert_eq!(moment(1), moment(2));
    let shown = asked(&load(2)).await.unwrap();
    assert_eq!(shown, [(1, "one again".to_owned()), (2, "two".to_owned())]);
}

async fn current(job: &Job, night: usize) -> Vec<(i64, String)> {
    let load = job.load(&format!("night-{night}"));
    let sql = load.join("_ddl/duckdb.sql");
    asked(&load).await.unwrap_or_else(|said| panic!("{said}\n{}", std::fs::read_to_string(&sql).unwrap()))
}

/// What a load's view of the newest rows shows, or what DuckDB says instead.
async fn asked(load: &Path) -> Result<Vec<(i64, String)>, String> {
    let sql = load.join("_ddl/duckdb.sql");
    let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
    python.args(["-c", CURRENT]).arg(&sql).kill_on_drop(true);
    let output = within(Duration::from_mins(1), "DuckDB", python.output()).await.unwrap();
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn table(pg: &Pg) -> Vec<(i64, String)> {
    let rows = pg.sql("select id, v from orders order by id").await;
    rows.into_iter().map(|row| (row[0].clone().unwrap().parse().unwrap(), row[1].clone().unwrap())).collect()
}

#[tokio::test]
async fn what_to_go_on_from_may_be_a_record_a_root_or_a_manifest() {
    let pg = pg(18).await;
    pg.batch(&format!("{SHOP}; insert into orders (v) values ('one')")).await;
    let mut job = Job::new("csv");
    job.run(&pg.url, &[]).await;
    pg.batch("insert into orders (v) values ('two')").await;
    let root = job.folder.path().join("out");
    let root = root.to_str().unwrap();
    let record = format!("{root}/_runs/night-1.json");
    let manifest_url = format!("{root}/orders/load=night-1/_manifest.json");
    let folder = format!("{root}/orders/load=night-1");
    for since in [record.as_str(), &manifest_url, &folder, root, &format!("{root}/_run.json")] {
        let to = job.folder.path().join(format!("alone-{}", since.len()));
        let run = outhaul([
            "run",
            job.folder.path().join("job.toml").to_str().unwrap(),
            "--from",
            &pg.url,
            "--report",
            "json",
            "--progress",
            "none",
            "--only",
            "orders",
            "--dry-run",
            "--since",
            since,
        ]);
        let plan = run.run().await.expect(0);
        assert!(String::from_utf8_lossy(&plan.stdout).contains("orders"), "{since}");
        let mut args =
            vec!["export", "--from", &pg.url, "--table", "public.orders", "--watermark", "ts", "--format", "csv"];
        args.extend(["--csv-header", "on", "--report", "json", "--to", to.to_str().unwrap(), "--since", since]);
        // A record and a root say it by the name of the export, which is the table's where there is no job.
        let code = if since == manifest_url || since == folder { 0 } else { 2 };
        let run = outhaul(args).run().await.expect(code);
        if code == 0 {
            assert_eq!(run.report["watermark"]["since"], "night-1", "{since}");
        }
    }
    job.run(&pg.url, &["--since", &record]).await;
    assert!(job.rows(2).values().any(|v| v == "two"), "{:?}", job.rows(2));
    assert_eq!(manifest(&job.load("night-2"))["watermark"]["since"], "night-1");
}

#[tokio::test]
async fn a_job_that_could_not_remember_is_refused() {
    let pg = pg(18).await;
    pg.batch(SHOP).await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    for (text, what) in [
        (
            "[[export]]\ntable = 'orders'\nwatermark = 'ts'\nto = 'ROOT/{date}/{table}/load={run_id}'\n",
            "write state = ",
        ),
        (
            "root = 'ROOT'\n[[export]]\ntable = 'orders'\nwatermark = 'ts'\nto = 'ROOT/{table}'\n",
            "put {run_id} into `to`",
        ),
        ("state = 'ROOT/s'\n[[export]]\ntable = 'orders'\nto = 'ROOT/{table}'\n", "state has no meaning"),
    ] {
        let job = folder.path().join("job.toml");
        std::fs::write(&job, text.replace("ROOT", root)).unwrap();
        let run = outhaul(["run", job.to_str().unwrap(), "--from", &pg.url]).run().await.expect(2);
        assert!(run.stderr.contains(what), "{}", run.stderr);
    }
    // A state that cannot be read is no reason to export everything, and none to lose anything.
    let mut job = Job::new("csv");
    job.run(&pg.url, &[]).await;
    std::fs::write(job.folder.path().join("out/_state/orders.json"), "{").unwrap();
    let run = job.command(&pg.url, "night-2", &[]).run().await.expect(2);
    assert!(run.stderr.contains("does not say which export to go on from"), "{}", run.stderr);
    assert!(!job.load("night-2").join("_manifest.json").exists());
}
