//! How ClickHouse's password is given and where it never shows, and what a plan says before anything is read.

use serde_json::Value;

use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::run::{Run, outhaul};

async fn table() -> ClickHouse {
    let server = clickhouse().await;
    server
        .run("CREATE TABLE t (id UInt32, day Date, s LowCardinality(String)) ENGINE = MergeTree PARTITION BY day ORDER BY id")
        .await;
    server.run("INSERT INTO t SELECT number, toDate('2026-01-01') + number % 3, 'x' FROM numbers(60000)").await;
    server
}

/// Nothing that a run said or left has the password.
fn keeps(run: &Run, folder: &std::path::Path, secret: &str) {
    let said = [String::from_utf8_lossy(&run.stdout).into_owned(), run.stderr.clone()].concat();
    assert!(!said.contains(secret), "{said}");
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                let shows = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!shows, "{}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn the_password_comes_from_a_file_a_command_or_a_variable_and_shows_nowhere() {
    let server = table().await;
    let secret = server.password.as_str();
    let (folder, given) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = given.path().join("pw");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let (plain, command) = (server.url("writer"), format!("cat {file}"));
    let whole = plain.replace("writer@", &format!("writer:{secret}@"));
    let wrong = plain.replace("writer@", "writer:not-the-one@");
    for (name, from, more, variable, code) in [
        ("file", plain.as_str(), &["--password-file", file][..], None, 0),
        ("command", &plain, &["--password-command", &command], None, 0),
        ("variable", &plain, &[], Some(("CLICKHOUSE_PASSWORD", secret)), 0),
        ("url", "env:WAREHOUSE", &[], Some(("WAREHOUSE", whole.as_str())), 0),
        ("wrong", "env:WAREHOUSE", &[], Some(("WAREHOUSE", wrong.as_str())), 10),
        ("none", &plain, &[], None, 10),
        ("failing", &plain, &["--password-command", "exit 3"], None, 10),
        ("typed", &whole, &[], None, 2),
    ] {
        let to = folder.path().join(name);
        let fixed = ["export", "t", "--from", from, "--to", to.to_str().unwrap(), "-vv"];
        let run = outhaul(fixed.iter().chain(more));
        let run = variable.into_iter().fold(run, |run, (name, value)| run.env(name, value)).run().await;
        assert_eq!(run.code, code, "{name}: {}", run.stderr);
        keeps(&run, &to, secret);
        assert!(!run.stderr.contains("not-the-one"), "{}", run.stderr);
    }
}

async fn planned(server: &ClickHouse, arguments: &[&str]) -> (Value, String) {
    let url = server.url("writer");
    let report = async |report| {
        let own = ["plan", "--from", url.as_str(), "--report", report];
        let run = outhaul(own.iter().chain(arguments)).env("CLICKHOUSE_PASSWORD", &server.password);
        run.run().await.expect(0)
    };
    (report("json").await.report, String::from_utf8(report("text").await.stdout).unwrap())
}

#[tokio::test]
async fn a_plan_has_the_mode_and_why_the_slices_the_types_and_the_settings() {
    let server = table().await;
    let (plan, told) = planned(&server, &["--table", "t", "--partitions", "6", "--readers", "2"]).await;
    let read = &plan["read"];
    assert_eq!(read["mode"], "part_set", "{read}");
    assert!(plan["partitions"].as_array().unwrap().len() >= 6, "{plan}");
    let types: Vec<&str> =
        plan["columns"].as_array().unwrap().iter().map(|column| column["pg_type"].as_str().unwrap_or("?")).collect();
    assert_eq!(types, ["UInt32", "Date", "LowCardinality(String)"], "{}", plan["columns"]);
    assert_eq!(read["settings"]["readonly"], "2", "{read}");
    assert!(told.contains("2 readers") && told.contains("LowCardinality(String)"), "{told}");
    let (_, told) = planned(&server, &["--table", "t", "--where", "id < 7"]).await;
    assert!(told.contains("planning counts the rows of the predicate"), "{told}");
    server.run("CREATE TABLE logged (id UInt32) ENGINE = Log").await;
    for (arguments, why) in [
        (&["--table", "t", "--where", "day < now() - 5"][..], "now may give another answer in each statement"),
        // A server takes some of them without brackets.
        (&["--table", "t", "--where", "day < CURRENT_TIMESTAMP"], "current_timestamp may give another answer"),
        (&["--table", "t", "--where", "day <= today"], "today may give another answer"),
        (&["--table", "t", "--where", "rand() % 2 = 0"], "rand may give another answer"),
        (&["--table", "t", "--column", "lucky=generateUUIDv4()"], "generateUUIDv4 may give another answer"),
        (&["--table", "t", "--where", "id IN (SELECT id FROM t)"], "of its own moment in each statement"),
        (&["--query", "SELECT * FROM t"], "a query is split only with --key"),
        (&["--table", "logged"], "the engine Log has no parts"),
        (&["--table", "t", "--partitions", "1"], "--partitions 1"),
    ] {
        let (plan, told) = planned(&server, arguments).await;
        assert_eq!(plan["read"]["mode"], "single_statement", "{arguments:?}: {}", plan["read"]);
        assert_eq!(plan["partitions"].as_array().unwrap().len(), 1, "{arguments:?}");
        assert!(told.to_lowercase().contains(&why.to_lowercase()), "{arguments:?}: {told}");
    }
}
