//! `outhaul run`: the tables of a job file are of one instant, each commits or fails by itself, and the same command is the
//! retry.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::job::no_sessions_left;
use crate::support::night::{Night, PAIRS, THREE, foreign_keys, shop, three};
use crate::support::pg::{Pg, pg};
use crate::support::run::{Run, Stop, outhaul};
use crate::support::{eventually, manifest, within};

/// Writes parents and then their children, each pair in a transaction of its own, until it is dropped.
async fn writing(pg: &Pg) {
    let client = pg.connect().await;
    for id in 301_i64.. {
        for n in 0..PAIRS {
            let pair = format!(
                "begin; insert into parent{n} values ({id}, 'new'); insert into child{n} (parent) values ({id}); commit"
            );
            client.batch_execute(&pair).await.unwrap();
        }
    }
}

#[tokio::test]
async fn forty_tables_are_of_one_instant_while_others_write() {
    let pg = shop().await;
    let night = Night::all("readers = 3\npart_size = '16KiB'");
    let run = night.run(&pg, &[]);
    let run = tokio::select! {
        run = run.run() => run.expect(0),
        () = writing(&pg) => unreachable!(),
    };
    let exports = run.report["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 40);
    assert_eq!(run.report["one_instant"], true);
    let snapshots: BTreeSet<String> = exports
        .iter()
        .map(|export| manifest(&night.out(export["name"].as_str().unwrap())))
        .inspect(|manifest| assert_eq!(manifest["run_id"], run.report["run_id"]))
        .map(|manifest| manifest["consistency"]["snapshots"][0]["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    for [lost, rows] in foreign_keys(&night.out("")).await {
        assert!(lost == 0 && rows >= 900, "{lost} of {rows}");
    }
    assert_eq!(manifest(&night.out("public.empty"))["totals"]["rows"], 0);
    let connections = exports.iter().map(|export| export["source_cost"]["peak_connections"].as_u64().unwrap()).max();
    assert!(connections.unwrap() <= 3 + 4, "{connections:?}");
    let record = night.record();
    assert_eq!((record["exports"].as_array().unwrap().len(), &record["one_instant"]), (40, &Value::Bool(true)));
    assert_eq!(record["run_id"], run.report["run_id"]);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn killed_at_any_moment_the_same_command_makes_it_whole() {
    let pg = shop().await;
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..4 {
        let night = Night::all("readers = 2\npart_size = '8KiB'");
        let args = ["--run-id", "night-1"];
        let running = night.run(&pg, &args).spawn();
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1_500))).await;
        running.signal("KILL").await;
        running.wait().await;
        let before = night.committed();
        let run = night.run(&pg, &args).run().await.expect(0);
        let exports = run.report["exports"].as_array().unwrap();
        let told = |export: &Value| export["already_committed"] == true;
        let stood: BTreeSet<String> = exports
            .iter()
            .filter(|export| told(export))
            .map(|export| export["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(stood, before, "round {round}, seed {seed}");
        assert_eq!(night.committed().len(), 40, "round {round}, seed {seed}");
        // What was read whole is of the first instant, too.
        let id = |name: &String| manifest(&night.out(name))["consistency"]["snapshots"][0]["id"].to_string();
        let mixed = night.committed().iter().map(id).collect::<BTreeSet<_>>().len() > 1;
        assert_eq!(run.report["one_instant"], !mixed, "{} before", before.len());
        assert_eq!(night.record()["one_instant"], !mixed);
        if !mixed {
            assert!(foreign_keys(&night.out("")).await.iter().all(|[lost, _]| *lost == 0));
        }
        for name in night.committed() {
            assert!(!night.out(&name).join("_outhaul").exists(), "{name} has leftovers, seed {seed}");
        }
    }
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn an_export_fails_alone_and_the_others_commit() {
    let pg = pg(18).await;
    pg.batch(
        "create table a as select 1 as id; create table b as select 2 as id; create table locked (id int); analyze",
    )
    .await;
    let one = |table: &str, more: &str| format!("[[export]]\ntable = '{table}'\nto = 'ROOT/{table}'\n{more}\n");
    let text = [
        one("a", ""),
        one("gone", ""),
        one("b", "where = 'nothing = 1'"),
        one("locked", ""),
        "[[export]]\nname = 'divided'\nquery = 'select 1 / (id - 2) as x from b'\nto = 'ROOT/divided'\n".to_owned(),
    ];
    let night = Night::new(&text.concat());
    let blocker = pg.connect().await;
    blocker.batch_execute("begin; lock table locked").await.unwrap();
    let run = night.run(&pg, &[]).env("OUTHAUL_TEST_LIMITS", "lock=0.5").run().await.expect(13);
    let codes: Vec<(String, i64)> = run.report["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|export| (export["name"].as_str().unwrap().to_owned(), export["exit_code"].as_i64().unwrap()))
        .collect();
    let expected = [("a", 0), ("gone", 13), ("b", 13), ("locked", 16), ("divided", 14)];
    let told: Vec<(&str, i64)> = codes.iter().map(|(name, code)| (name.as_str(), *code)).collect();
    assert!(told[..4] == expected[..4] && [14, 15].contains(&told[4].1), "{told:?}\n{}", run.stderr);
    assert_eq!(night.committed(), BTreeSet::from(["a".to_owned()]));
    assert_eq!(run.report["retryable"], false);
    let statuses: Vec<&str> =
        run.report["exports"].as_array().unwrap().iter().map(|export| export["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["complete", "failed", "failed", "failed", "failed"]);
    assert!(run.stderr.contains("gone: ") && run.stderr.contains("locked: "), "{}", run.stderr);
    // Only what is locked is left, and may be tried again.
    let only = night.run(&pg, &["--only", "locked"]).env("OUTHAUL_TEST_LIMITS", "lock=0.5").run().await.expect(16);
    assert_eq!(only.report["retryable"], true);
    blocker.batch_execute("rollback").await.unwrap();
    night.run(&pg, &["--only", "locked"]).run().await.expect(0);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn with_stop_none_commits_unless_all_are_read() {
    let pg = pg(15).await;
    pg.batch(
        "create table a as select i as id from generate_series(1, 100) i; create table b as select 2 as id; analyze",
    )
    .await;
    let text = "on_error = 'stop'\n[[export]]\ntable = 'a'\nto = 'ROOT/a'\n[[export]]\nname = 'b'\n\
        query = 'select 1 / (id - 2) as x from b'\nto = 'ROOT/b'\n";
    let night = Night::new(text);
    let run = night.run(&pg, &[]).run().await;
    assert!([14, 15].contains(&run.code), "{}: {}", run.code, run.stderr);
    assert_eq!(night.committed(), BTreeSet::new());
    assert_eq!(run.report["exports"][0]["status"], "cancelled");
    assert!(run.report["exports"][0].to_string().contains("another export of the run failed"), "{}", run.report);
    std::fs::write(
        night.folder.path().join("job.toml"),
        std::fs::read_to_string(night.folder.path().join("job.toml")).unwrap().replace("id - 2", "id"),
    )
    .unwrap();
    night.run(&pg, &[]).run().await.expect(0);
    assert_eq!(night.committed().len(), 2);
}

#[tokio::test]
async fn a_truncated_export_a_taken_place_and_a_signal_have_their_codes() {
    let pg = pg(15).await;
    pg.batch(
        "create table a as select i as id from generate_series(1, 100) i; alter table a add primary key (id); \
        create table b as select 2 as id; analyze",
    )
    .await;
    let text = "[[export]]\ntable = 'a'\nto = 'ROOT/a'\nmax_rows = 10\n[[export]]\ntable = 'b'\nto = 'ROOT/b'\n";
    let night = Night::new(text);
    let run = night.run(&pg, &[]).run().await.expect(3);
    assert_eq!((&run.report["status"], run.report["errors"].as_array().unwrap().len()), (&"truncated".into(), 0));
    assert_eq!(manifest(&night.out("a"))["totals"]["rows"], 10);
    // Another run of the same places.
    let run = night.run(&pg, &[]).run().await.expect(22);
    assert_eq!(run.report["errors"].as_array().unwrap().len(), 2);
    let (begun, night) = (Stop::at("reading"), Night::new(text));
    let running = night.run(&pg, &[]).stops([&begun]).spawn();
    running.stands_at(&begun).await;
    running.signal("TERM").await;
    let run = running.wait().await.expect(143);
    assert_eq!((&run.report["retryable"], night.committed()), (&Value::Bool(true), BTreeSet::new()));
    no_sessions_left(&pg).await;
}

/// The tables of which sessions of a role hold locks.
async fn locked_by(pg: &Pg, role: &str) -> BTreeSet<String> {
    let sql = format!(
        "select distinct c.relname from pg_locks l join pg_stat_activity s using (pid) join pg_class c on c.oid = l.relation
         where s.datname = current_database() and s.application_name like 'outhaul/%/{role}' and c.relname in ('a', 'b', 'c')"
    );
    pg.sql(&sql).await.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

#[tokio::test]
async fn a_reader_locks_what_it_reads_and_the_keepers_everything() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let (batch, night) = (Stop::at("batch"), three("readers = 1"));
    let running = night.run(&pg, &[]).stops([&batch]).spawn();
    running.stands_at(&batch).await;
    assert_eq!(locked_by(&pg, "reader").await.len(), 1);
    let all = BTreeSet::from(["a", "b", "c"].map(str::to_owned));
    assert_eq!((locked_by(&pg, "keeper").await, locked_by(&pg, "locks").await), (all.clone(), all));
    batch.release();
    running.wait().await.expect(0);
    // Where one is left of several it is no other.
    let text = "[[export]]\ntable = 'gone'\nto = 'ROOT/gone'\n[[export]]\ntable = 'a'\nto = 'ROOT/a'\n";
    let (batch, night) = (Stop::at("batch"), Night::new(text));
    let running = night.run(&pg, &[]).stops([&batch]).spawn();
    running.stands_at(&batch).await;
    assert_eq!(locked_by(&pg, "reader").await, BTreeSet::from(["a".to_owned()]));
    batch.release();
    running.wait().await.expect(13);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn a_table_emptied_after_the_snapshot_is_never_fewer_rows() {
    for (off, codes) in [("locks", [12, 0]), ("locks,relfilenode", [0, 0])] {
        let pg = pg(18).await;
        pg.batch(THREE).await;
        let (planned, night) = (Stop::at("reading"), three("readers = 1"));
        let running = night.run(&pg, &["--only", "b,c"]).stops([&planned]).env("OUTHAUL_TEST_OFF", off).spawn();
        running.stands_at(&planned).await;
        pg.batch("truncate b").await;
        planned.release();
        let run = running.wait().await;
        let found: Vec<_> =
            run.report["exports"].as_array().unwrap().iter().map(|export| export["exit_code"].as_i64()).collect();
        assert_eq!(found, codes.map(Some), "{off}: {}", run.stderr);
    }
}

#[tokio::test]
async fn who_waits_for_one_table_ends_its_export_alone() {
    for (off, code) in [("", 0), ("let-go", 16)] {
        let pg = pg(15).await;
        pg.batch(THREE).await;
        let (reading, night) = (Stop::at("reading"), three("readers = 2\nyield_to_ddl = '2s'"));
        let running = night.run(&pg, &[]).stops([&reading]).env("OUTHAUL_TEST_OFF", off).spawn();
        running.stands_at(&reading).await;
        // Nobody reads it yet, and all have it locked.
        let waited = std::time::Instant::now();
        within(Duration::from_secs(20), "the lock", pg.batch("alter table c add column more int")).await;
        assert!(waited.elapsed() < Duration::from_secs(4), "{:?}", waited.elapsed());
        reading.release();
        let run = running.wait().await.expect(16);
        let codes: Vec<_> = run.report["exports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|export| export["exit_code"].as_i64().unwrap())
            .collect();
        // One of the others stands still; without the mechanism it goes too.
        assert!(codes[2] == 16 && codes[..2].iter().max() == Some(&code), "{off}: {codes:?} {}", run.stderr);
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn a_table_that_is_read_whole_is_let_go() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let one = |table: &str, query: &str| format!("[[export]]\nname = '{table}'\n{query}\nto = 'ROOT/{table}'\n");
    let slow = "query = 'select id, pg_sleep(0.004)::text as s from a'";
    let night = Night::new(&format!("[defaults]\nreaders = 2\n{}{}", one("a", slow), one("b", "table = 'b'")));
    let running = night.run(&pg, &[]).env("OUTHAUL_TEST_LIMITS", "let-go=1").spawn();
    let gone = async || (night.committed().contains("b") && !locked_by(&pg, "%").await.contains("b")).then_some(());
    eventually(Duration::from_secs(20), "b is let go", gone).await;
    assert!(locked_by(&pg, "%").await.contains("a"), "a is still read");
    within(Duration::from_secs(2), "the lock of b", pg.batch("drop table b")).await;
    running.wait().await.expect(0);
    assert_eq!(manifest(&night.out("a"))["totals"]["rows"], 2000);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn clean_takes_the_root_of_a_job() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let (batch, night) = (Stop::at("batch"), three("readers = 2"));
    let running = night.run(&pg, &["--run-id", "dead"]).stops([&batch]).spawn();
    running.stands_at(&batch).await;
    let root = night.out("");
    let root = root.to_str().unwrap();
    let alive = outhaul(["clean", root, "--report", "json"]).run().await.expect(0);
    assert_eq!(alive.report["report"]["alive"], "dead");
    running.signal("KILL").await;
    running.wait().await;
    let record: Value = serde_json::from_slice(&std::fs::read(night.out("_runs/dead.json")).unwrap()).unwrap();
    assert_eq!((&record["ended_at"], &record["exports"][0]["status"]), (&Value::Null, &"running".into()));
    let dry = outhaul(["clean", root, "--dry-run", "--report", "json"]).run().await.expect(0);
    assert!(!dry.report["report"]["runs"].as_array().unwrap().is_empty() && night.out("a/_outhaul").exists());
    outhaul(["clean", root]).run().await.expect(0);
    for table in ["a", "b", "c"] {
        assert!(!night.out(table).join("_outhaul").exists(), "{table}");
    }
    assert!(night.committed().is_empty() && !night.out("_runs/dead.json").exists());
    night.run(&pg, &[]).run().await.expect(0);
    assert_eq!(night.committed().len(), 3);
}

#[tokio::test]
async fn a_dry_run_shows_every_plan_and_writes_nothing() {
    let pg = shop().await;
    let night = Night::all("readers = 2");
    let run = night.run(&pg, &["--dry-run", "--except", "public.view*"]).run().await.expect(0);
    let exports = run.report["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 29);
    assert!(exports.iter().all(|export| export["partitions"].as_u64().unwrap() > 0), "{}", run.report);
    assert!(!night.out("").exists());
    let job = night.folder.path().join("job.toml");
    let text = outhaul(["run", job.to_str().unwrap(), "--from", &pg.url, "--dry-run"]).run().await.expect(0);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().count() == 41 && text.contains("public.parent0"), "{text}");
    let schema = outhaul(["run", "--schema"]).run().await.expect(0);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema["properties"]["export"]["items"]["properties"]["max_rows"].is_object());
}

/// A job of the tables `a` and `b`, run as somebody runs it who asks for no report: `more` is what `a` has besides.
async fn by_hand(pg: &Pg, more: &str, args: &[&str]) -> Run {
    let one = |table: &str, more: &str| format!("[[export]]\ntable = '{table}'\nto = 'ROOT/{table}'\n{more}\n");
    let night = Night::new(&format!("{}{}", one("a", more), one("b", "")));
    let job = night.folder.path().join("job.toml");
    let fixed = ["run", job.to_str().unwrap(), "--from", &pg.url, "--progress", "none"];
    outhaul(fixed.iter().chain(args)).run().await
}

#[tokio::test]
async fn a_truncated_export_is_never_called_complete() {
    let pg = pg(18).await;
    let keyed = |table: &str| {
        format!("create table {table} (id int primary key); insert into {table} select generate_series(1, 100);")
    };
    pg.batch(&format!("{}{} analyze", keyed("a"), keyed("b"))).await;
    let cut = "1 of 2 exports cut short by a cap";
    let asked = "the first rows of 1 of 2 exports, as asked; there are more\n".to_owned();
    let quiet = |code: u8| format!("TRUNCATED: a: first 10 rows of at least 11 by key (id); exit {code}\n");
    for (more, code, headline, whisper) in [
        ("max_rows = 10", 3, format!("TRUNCATED: {cut}; exit 3\n"), quiet(3)),
        ("max_rows = 10\nallow_truncated = true", 0, format!("TRUNCATED: {cut}; exit 0\n"), quiet(0)),
        ("limit = 10", 0, asked, String::new()),
        ("", 0, "complete: 2 exports\n".to_owned(), String::new()),
    ] {
        let told = by_hand(&pg, more, &[]).await.expect(code);
        let text = String::from_utf8(told.stdout).unwrap();
        assert!(text.starts_with(&headline), "{more}: {text}");
        let hushed = by_hand(&pg, more, &["-q"]).await.expect(code);
        assert_eq!((hushed.stderr.as_str(), hushed.stdout.as_slice()), (whisper.as_str(), &b""[..]), "{more}");
        let json = by_hand(&pg, more, &["-q", "--report", "json"]).await.expect(code);
        let status = if more.is_empty() { "complete" } else { "truncated" };
        assert_eq!((&json.report["status"], json.stderr.as_str()), (&status.into(), ""), "{more}");
        assert_eq!(json.report["exports"][0]["status"], status, "{more}");
    }
    // What failed is worse, and what was cut short is told beside it.
    pg.batch("drop table b").await;
    let failed = by_hand(&pg, "max_rows = 10", &["-q"]).await.expect(13);
    assert!(failed.stderr.contains(&quiet(3)) && failed.stderr.contains("b: error: "), "{}", failed.stderr);
    let json = by_hand(&pg, "max_rows = 10", &["--report", "json"]).await.expect(13);
    assert_eq!(json.report["status"], "incomplete");
}

/// A job file that says how people hear of it, and what the last night left in its report file.
struct Told {
    folder: tempfile::TempDir,
}

impl Told {
    fn new(defaults: &str, export: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report.json");
        std::fs::write(&report, "{\"status\":\"complete\"}\n").unwrap();
        let how = format!("report = 'json'\nreport_file = '{}'\nlog_format = 'json'\n", report.display());
        let text = format!("[defaults]\n{how}{defaults}\n[[export]]\n{export}\n");
        std::fs::write(folder.path().join("job.toml"), text).unwrap();
        Self { folder }
    }

    async fn run(&self, args: &[&str]) -> Run {
        let job = self.folder.path().join("job.toml");
        outhaul(["run", job.to_str().unwrap()].iter().chain(args)).run().await
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.path().join("report.json")).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_job_that_fails_before_it_begins_is_told_as_its_file_says() {
    let down = "from = 'postgres://nobody@127.0.0.1:1/none'\nto = './out/{table}'";
    for (defaults, export, code) in [
        (down.to_owned(), "table = 'public.*'", 11),
        // What is known to be wrong only once all of the file is understood.
        (down.to_owned(), "table = 'public.a'\nformat = 'cvs'", 2),
        (format!("{down}\nmax_duration = 'soon'"), "table = 'public.a'", 2),
        (format!("{down}\nfromat = 'csv'"), "table = 'public.a'", 2),
        (format!("{down}\nprogress = 'loud'"), "table = 'public.a'", 2),
    ] {
        let told = Told::new(&defaults, export);
        let run = told.run(&[]).await.expect(code);
        assert_eq!((&run.report["exit_code"], &run.report["status"]), (&code.into(), &"failed".into()), "{export}");
        assert_eq!(told.report(), run.report, "{export}");
        let records = run.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_ok());
        assert!(records && !run.stderr.is_empty(), "{export}: {}", run.stderr);
        // A flag goes before the file.
        let told = Told::new(&defaults, export);
        let run = told.run(&["--report", "text", "--log-format", "text"]).await.expect(code);
        assert_eq!((run.stdout.as_slice(), &told.report()["exit_code"]), (&b""[..], &code.into()), "{export}");
        assert!(run.stderr.starts_with("error: "), "{export}: {}", run.stderr);
    }
}

#[tokio::test]
async fn a_tilde_in_a_job_file_is_one_folder_for_parts_and_records() {
    let pg = pg(15).await;
    pg.batch("create table a as select 1 as id; analyze").await;
    let night =
        Night::new("[defaults]\nto = '~/night/{table}'\nreport_file = '~/report.json'\n[[export]]\ntable = 'a'\n");
    let home = night.folder.path();
    night.run(&pg, &[]).env("HOME", home).run().await.expect(0);
    for file in ["night/a/_manifest.json", "night/_run.json", "report.json"] {
        assert!(home.join(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn the_example_runs_against_the_database_of_the_demo() {
    let pg = pg(15).await;
    pg.batch(
        "create table public.orders (id bigint primary key, customer integer not null, amount numeric(12,2) not null,
             status text not null, created_at timestamptz not null, note text);
         insert into orders select n, n, n, (array['new', 'paid'])[1 + n % 2], now(), null from generate_series(1, 50) n;
         create table tmp_1 (id int); analyze",
    )
    .await;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/job.example.toml");
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(example).unwrap();
    let text = text.replace("./out", folder.path().to_str().unwrap());
    let job = folder.path().join("job.toml");
    std::fs::write(&job, text).unwrap();
    let args = ["run", job.to_str().unwrap(), "--date", "2026-11-28"];
    let run = outhaul(args).env("DATABASE_URL", &pg.url).run().await.expect(0);
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(said.contains("complete: 3 exports") && !said.contains("tmp_1"), "{said}");
    let day = folder.path().join("night/2026-11-28");
    assert_eq!(manifest(&day.join("public/orders"))["totals"]["rows"], 50);
    assert_eq!(manifest(&day.join("revenue"))["totals"]["rows"], 2);
    assert!(day.join("new_orders.csv.gz").exists() && folder.path().join("night/_run.json").exists());
    // The next night takes its place.
    outhaul(args).env("DATABASE_URL", &pg.url).run().await.expect(0);
}
