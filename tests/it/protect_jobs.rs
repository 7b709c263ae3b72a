//! `--protect` over several tables and several processes: a name is of one of the tables at least, and the key of hashes is
//! said again to whoever goes on with a run.

use crate::support::clickhouse::clickhouse;
use crate::support::job::{command, export, export_csv, parts};
use crate::support::manifest;
use crate::support::night::Night;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, Run, Stop, outhaul};

const KEY: &str = "echo 'correct horse battery staple'";

const TABLES: &str =
    "create table people (id int primary key, email text); insert into people values (1, 'ann@example.org');
    create table orders (id int primary key, total int); insert into orders values (1, 5); analyze";

async fn tables() -> Pg {
    let pg = pg(18).await;
    pg.batch(TABLES).await;
    pg
}

/// A job of both tables.
fn both(top: &str, defaults: &str, of_orders: &str) -> Night {
    Night::new(&format!(
        "{top}\n[defaults]\nformat = 'csv'\ncsv_header = 'off'\nto = 'ROOT/{{table}}'\n{defaults}\n\
         [[export]]\ntable = 'people'\n[[export]]\ntable = 'orders'\n{of_orders}\n"
    ))
}

fn committed(night: &Night) -> Vec<String> {
    night.committed().into_iter().collect()
}

#[tokio::test]
async fn a_name_is_of_one_table_of_a_job_at_least() {
    let pg = tables().await;
    let night = both("", "protect = ['email=null']", "");
    night.run(&pg, &["--run-id", "n1", "--dry-run"]).run().await.expect(0);
    let run = night.run(&pg, &["--run-id", "n1"]).run().await.expect(0);
    assert!(!run.stderr.contains("--protect"), "{}", run.stderr);
    assert_eq!(manifest(&night.out("people"))["schema"][1]["protection"], "null");
    // The retry finds both committed.
    night.run(&pg, &["--run-id", "n1"]).run().await.expect(0);
    let night = both("", "protect = ['emial=null', 'email=null']", "");
    for args in [&[][..], &["--dry-run"]] {
        let run = night.run(&pg, args).run().await.expect(2);
        assert!(run.stderr.contains("1 column that no export has: \"emial\""), "{}", run.stderr);
        assert_eq!(committed(&night), [""; 0], "nothing is exported before the name is right");
    }
}

/// What no other table is known to have may be the old name of a column that would be published as it is.
#[tokio::test]
async fn a_name_of_what_is_not_read_now_is_asked_of_the_source() {
    let pg = tables().await;
    let shared = || both("", "protect = ['email=null']", "");
    let night = shared();
    for args in [&["--only", "orders", "--dry-run"][..], &["--only", "orders", "--run-id", "n1"]] {
        let run = night.run(&pg, args).run().await.expect(0);
        assert!(!run.stderr.contains("--protect"), "{}", run.stderr);
    }
    assert_eq!(committed(&night), ["orders"]);
    pg.batch("alter table people rename email to e_mail").await;
    // Another export of the run has committed, and lacks it too.
    let run = night.run(&pg, &["--run-id", "n1"]).run().await.expect(2);
    assert!(run.stderr.contains("1 column that no export has: \"email\""), "{}", run.stderr);
    assert_eq!(committed(&night), ["orders"]);
    for args in [&["--only", "people"][..], &["--except", "orders", "--dry-run"], &["--only", "orders"]] {
        let night = shared();
        let run = night.run(&pg, args).run().await.expect(2);
        assert!(run.stderr.contains("1 column that no export has: \"email\""), "{args:?}: {}", run.stderr);
        assert_eq!(committed(&night), [""; 0], "{args:?}");
    }
    // Nobody knows what a table that is missing had.
    pg.batch("alter table people rename to folk").await;
    for args in [&[][..], &["--dry-run"], &["--only", "orders"]] {
        let night = shared();
        let run = night.run(&pg, args).run().await.expect(13);
        assert!(run.stderr.contains("the columns of people are not known"), "{args:?}: {}", run.stderr);
        assert_eq!(committed(&night), [""; 0], "{args:?}");
    }
}

#[tokio::test]
async fn a_column_that_was_there_when_the_run_began_is_not_looked_for_elsewhere() {
    for by_root in [true, false] {
        let pg = pg(18).await;
        pg.batch(MANY).await;
        let night = Night::new(
            "[defaults]\nformat = 'csv'\nto = 'ROOT/{table}'\npartitions = 2\nreaders = 1\nprotect = ['email=null']\n\
             [[export]]\ntable = 'people'\n[[export]]\ntable = 'others'\n",
        );
        killed(night.run(&pg, &["--run-id", "n1"])).await;
        pg.batch("alter table people rename email to e_mail").await;
        let root = night.out("");
        let again =
            if by_root { resume(&pg, root.to_str().unwrap(), &[]) } else { night.run(&pg, &["--run-id", "n1"]) };
        let run = again.run().await.expect(2);
        assert!(run.stderr.contains("people had when the run began"), "{}", run.stderr);
        assert!(!committed(&night).contains(&"people".to_owned()));
    }
}

#[tokio::test]
async fn a_name_that_stands_in_one_export_is_that_one_s() {
    let pg = tables().await;
    let refused = "--protect names the column \"email\", which the export does not have";
    for (top, defaults, of_orders) in [
        ("", "", "protect = ['email=null']"),
        // Some commit before others are planned.
        ("snapshot = 'export'", "protect = ['email=null']", ""),
    ] {
        let night = both(top, defaults, of_orders);
        let run = night.run(&pg, &[]).run().await.expect(2);
        assert!(run.stderr.contains(refused), "{}", run.stderr);
        assert_eq!(committed(&night), ["people"]);
    }
    // A pattern means several tables, and the name is of one of them.
    let night =
        Night::new("[defaults]\nto = 'ROOT/{table}'\n[[export]]\ntable = 'public.*'\nprotect = ['email=null']\n");
    night.run(&pg, &[]).run().await.expect(0);
    let night = Night::new(
        "[defaults]\nto = 'ROOT/{table}'\n[[export]]\ntable = 'public.o*'\nprotect = ['email=null']\n\
         [[export]]\ntable = 'people'\nprotect = ['email=drop']\n",
    );
    let run = night.run(&pg, &[]).run().await.expect(2);
    assert!(run.stderr.contains("that no export has"), "{}", run.stderr);
    assert_eq!(committed(&night), [""; 0]);
}

#[tokio::test]
async fn an_idle_pattern_is_told_once() {
    let pg = tables().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("protect.toml");
    std::fs::write(&file, "[columns]\nidle = 'drop'\n'*mail' = 'null'\n").unwrap();
    let defaults = format!("protect_file = '{}'", file.display());
    for top in ["", "snapshot = 'export'"] {
        let night = both(top, &defaults, "");
        let run = night.run(&pg, &[]).run().await.expect(0);
        assert_eq!(run.stderr.matches("no column has such a name").count(), 1, "{top}: {}", run.stderr);
        assert!(run.stderr.contains("idle") && !run.stderr.contains("mail"), "{}", run.stderr);
        let run = night.run(&pg, &["--dry-run"]).run().await.expect(0);
        assert_eq!(run.stderr.matches("no column has such a name").count(), 1, "{top}: {}", run.stderr);
    }
    let args = ["--table", "people", "--protect-file", file.to_str().unwrap()];
    let run = export(&pg, &args).await.expect(0).run;
    assert_eq!(run.stderr.matches("no column has such a name").count(), 1, "{}", run.stderr);
    let plan = [&["plan", "--from", &pg.url, "--to", "out.d"], &args[..]].concat();
    let run = outhaul(plan).run().await.expect(0);
    assert_eq!(run.stderr.matches("no column has such a name").count(), 1, "{}", run.stderr);
}

/// An export alone ends the beginning of its job, and among others it is refused by itself.
#[tokio::test]
async fn a_plan_of_a_job_tells_of_no_protected_value() {
    let pg = tables().await;
    let people = "[[export]]\ntable = 'people'\nwhere = 'email::int > 5'\nprotect = ['email=null']\nmax_rows = 2\n";
    for others in ["", "[[export]]\ntable = 'orders'\n"] {
        let text = format!("root = 'ROOT'\n[defaults]\nto = 'ROOT/{{table}}'\n{others}{people}");
        for args in [&["--dry-run"][..], &[]] {
            for (off, seen) in [("", false), ("hidden-words", true)] {
                let run = Night::new(&text).run(&pg, args).env("OUTHAUL_TEST_OFF", off).run().await;
                let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
                assert_eq!(run.code, 15, "{said}");
                assert_eq!(said.contains("ann@example.org"), seen, "{others:?} {args:?} {off:?}: {said}");
            }
        }
    }
}

/// A query that says its FORMAT gives bytes, in which no column can be protected.
#[tokio::test]
async fn bytes_of_a_format_of_the_source_are_protected_by_nothing() {
    let server = clickhouse().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("protect.toml");
    std::fs::write(&file, "[columns]\n'*mail' = 'null'\n").unwrap();
    let query = "select 'ann@example.org' as email format CSV";
    let to = folder.path().join("out");
    let args = ["--query", query, "--to", to.to_str().unwrap(), "--protect-file", file.to_str().unwrap()];
    let run = server.export(&args).run().await.expect(2);
    assert!(run.stderr.contains("--protect-file has no meaning"), "{}", run.stderr);
    for rule in [format!("protect_file = '{}'", file.display()), "protect = ['email=null']".to_owned()] {
        let night = Night::new(&format!(
            "root = 'ROOT'\n[defaults]\n{rule}\n[[export]]\nname = 'q'\nto = 'ROOT/q'\nquery = \"{query}\"\n"
        ));
        for args in [&["--dry-run"][..], &[]] {
            let run = night.run_at(&server.url("writer"), args).env("CLICKHOUSE_PASSWORD", &server.password);
            let run = run.run().await.expect(2);
            assert!(run.stderr.contains("FORMAT"), "{rule} {args:?}: {}", run.stderr);
            assert_eq!(committed(&night), [""; 0], "{rule}");
        }
    }
}

const MANY: &str = "create table people (id int primary key, email text);
    insert into people select i, 'ann' || i from generate_series(1, 600) i;
    create table others (id int primary key, email text); insert into others values (1, 'ann1'); analyze";

const HASHED: [&str; 4] = ["--protect", "email=hash", "--protect-key-command", KEY];

fn resume(pg: &Pg, to: &str, args: &[&str]) -> Outhaul {
    outhaul(["resume", to, "--from", &pg.url, "--report", "json", "--progress", "none"].iter().chain(args))
}

async fn killed(command: Outhaul) -> Run {
    let stop = Stop::at("receipted");
    let running = command.stops([&stop]).spawn();
    running.stands_at(&stop).await;
    running.signal("KILL").await;
    running.wait().await
}

#[tokio::test]
async fn a_command_that_prints_the_key_is_said_again_to_resume() {
    let pg = pg(18).await;
    pg.batch(MANY).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let to = to.to_str().unwrap();
    let args = [&HASHED[..], &["--table", "people", "--keep-snapshot", "60s", "--partitions", "3"]].concat();
    let csv = ["--format", "csv", "--csv-header", "off"];
    killed(command(&pg, to, &[&args[..], &csv].concat())).await;
    for (given, what) in [
        (&[][..], "give it again: --protect-key-command"),
        (&["--protect-key-command", "echo 'some other key of any length'"], "another than the one"),
        (&["--protect-key-command", KEY, "--protect-key-file", "x"], "both given"),
    ] {
        let run = resume(&pg, to, given).run().await.expect(2);
        assert!(run.stderr.contains(what), "{}", run.stderr);
        assert!(!run.stderr.contains("horse"), "{}", run.stderr);
    }
    resume(&pg, to, &["--protect-key-command", KEY]).run().await.expect(0);
    let whole = export_csv(&pg, &[&HASHED[..], &["--table", "people"]].concat(), 0).await.sorted();
    let mut lines: Vec<String> = Vec::new();
    for part in parts(&manifest(to.as_ref())) {
        let text = std::fs::read_to_string(folder.path().join("out").join(part["path"].as_str().unwrap())).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort();
    assert_eq!(lines, whole);
}

#[tokio::test]
async fn a_key_for_a_run_that_hashes_nothing_is_refused() {
    let pg = pg(18).await;
    pg.batch(MANY).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let to = to.to_str().unwrap();
    killed(command(&pg, to, &["--table", "people", "--keep-snapshot", "60s", "--partitions", "3"])).await;
    let run = resume(&pg, to, &["--protect-key-command", KEY]).run().await.expect(2);
    assert!(run.stderr.contains("the run hashes no column"), "{}", run.stderr);
    resume(&pg, to, &[]).run().await.expect(0);
}

#[tokio::test]
async fn a_job_goes_on_under_a_key_that_is_said_again() {
    let pg = pg(18).await;
    pg.batch(MANY).await;
    // By its root; by the same command; by that for a few of its exports, whose names are the same.
    for how in ["root", "run", "only"] {
        let night = Night::new(&format!(
            "[defaults]\nformat = 'csv'\ncsv_header = 'off'\nto = 'ROOT/{{table}}'\nkeep_snapshot = '60s'\npartitions = 2\nreaders = 1\n\
             protect = ['email=hash']\nprotect_key_command = \"{KEY}\"\n\
             [[export]]\ntable = 'people'\n[[export]]\ntable = 'others'\n"
        ));
        killed(night.run(&pg, &["--run-id", "n1"])).await;
        let run = match how {
            "root" => {
                let root = night.out("");
                resume(&pg, root.to_str().unwrap(), &["--protect-key-command", KEY]).run().await.expect(0)
            }
            "run" => night.run(&pg, &["--run-id", "n1"]).run().await.expect(0),
            _ => {
                let run = night.run(&pg, &["--run-id", "n1", "--only", "people"]).run().await.expect(0);
                night.run(&pg, &["--run-id", "n1"]).run().await.expect(0);
                run
            }
        };
        let people =
            run.report["exports"].as_array().unwrap().iter().find(|export| export["name"] == "people").unwrap();
        assert!(people["rows_read_now"].as_u64().unwrap() < 600, "{how}: what was read is not read again: {people}");
        let hash = |table: &str| {
            let manifest = manifest(&night.out(table));
            let all = parts(&manifest)
                .iter()
                .map(|part| std::fs::read_to_string(night.out(table).join(part["path"].as_str().unwrap())).unwrap());
            let all: String = all.collect();
            let line = all.lines().find(|line| line.starts_with("1,")).unwrap().to_owned();
            (line, manifest["protection_key"].clone(), all.lines().count())
        };
        let (people, others) = (hash("people"), hash("others"));
        assert_eq!((&people.0, &people.1), (&others.0, &others.1), "equal values stay equal");
        assert_eq!((people.2, others.2), (600, 1));
    }
}
