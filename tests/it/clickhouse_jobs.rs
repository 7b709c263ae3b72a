//! Job files whose tables are those of a ClickHouse server: they have no moment in common, so each is read by itself.

use serde_json::json;

use crate::clickhouse_typed::found;
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::manifest;
use crate::support::night::Night;
use crate::support::run::Outhaul;

async fn server() -> ClickHouse {
    let server = clickhouse().await;
    for (table, rows) in [("a", 20_000), ("b", 7), ("empty", 0)] {
        server.run(&format!("CREATE TABLE {table} (id UInt64, s String) ENGINE = MergeTree ORDER BY id")).await;
        server.run(&format!("INSERT INTO {table} SELECT number, toString(number) FROM numbers({rows})")).await;
    }
    server.run("CREATE VIEW v AS SELECT id FROM b WHERE id > 4").await;
    server
}

fn night(server: &ClickHouse, head: &str) -> Night {
    let one = |name: &str, what: &str| format!("[[export]]\nname = \"{name}\"\n{what}\nto = \"ROOT/{name}\"\n");
    let database = &server.database;
    let exports = [
        format!("[[export]]\ntable = \"{database}.*\"\nexcept = [\"{database}.b*\"]\nto = \"ROOT/{{table}}\"\n"),
        one("some", &format!("table = \"{database}.b\"\nwhere = \"id < 5\"\nformat = \"csv\"")),
        one("own", "query = \"SELECT * FROM b ORDER BY id FORMAT JSONEachRow\""),
    ];
    Night::new(&format!("{head}\n[defaults]\nreaders = 2\n{}", exports.concat()))
}

fn run(night: &Night, server: &ClickHouse, args: &[&str]) -> Outhaul {
    night.run_at(&server.url("writer"), args).env("CLICKHOUSE_PASSWORD", &server.password)
}

const COUNT: &str = "SELECT count(*), count(DISTINCT id) FROM DATA";

#[tokio::test]
async fn each_table_is_read_by_itself_where_the_job_file_says_so() {
    let server = server().await;
    let night = night(&server, "snapshot = \"export\"");
    let planned = run(&night, &server, &["--dry-run"]).run().await.expect(0);
    assert_eq!(planned.report["exports"].as_array().unwrap().len(), 5, "{}", planned.report);
    assert!(night.committed().is_empty());
    let done = run(&night, &server, &[]).run().await.expect(0);
    assert_eq!(done.report["one_instant"], false, "{}", done.report);
    let exports = done.report["exports"].as_array().unwrap();
    assert!(exports.len() == 5 && exports.iter().all(|export| export["status"] == "complete"), "{}", done.report);
    assert_eq!(night.record()["exports"].as_array().unwrap().len(), 5);
    let database = &server.database;
    for (name, rows, mode) in [
        (format!("{database}.a"), 20_000, "part_set"),
        (format!("{database}.v"), 2, "single_statement"),
        ("some".to_owned(), 5, "part_set"),
    ] {
        let to = night.out(&name);
        assert_eq!(found(&to, COUNT).await, json!([[rows, rows]]), "{name}");
        let manifest = manifest(&to);
        assert_eq!((&manifest["totals"]["rows"], &manifest["consistency"]["mode"]), (&json!(rows), &json!(mode)));
        assert_eq!(manifest["run_id"], done.report["run_id"]);
    }
    assert_eq!(manifest(&night.out(&format!("{database}.empty")))["totals"]["rows"], 0);
    let own = manifest(&night.out("own"));
    assert_eq!(own["version"], 2);
    let bytes = std::fs::read(night.out("own").join(own["parts"][0]["path"].as_str().unwrap())).unwrap();
    assert!(bytes == server.bytes("SELECT * FROM b ORDER BY id FORMAT JSONEachRow").await);
    // The same run once more reads nothing.
    let id = done.report["run_id"].as_str().unwrap();
    let again = run(&night, &server, &["--run-id", id]).run().await.expect(0);
    assert!(again.report["exports"].as_array().unwrap().iter().all(|export| export["already_committed"] == true));
}

#[tokio::test]
async fn one_moment_for_several_tables_is_refused_with_the_key_that_helps() {
    let server = server().await;
    for args in [&[][..], &["--dry-run"]] {
        let night = night(&server, "");
        let refused = run(&night, &server, args).run().await.expect(2);
        let told = format!("{} {}", refused.stderr, refused.report);
        assert!(told.contains("no moment in common") && told.contains("snapshot = "), "{told}");
        assert!(!told.contains("run an export for each table"), "{told}");
        assert!(night.committed().is_empty());
        // One alone has its own moment.
        run(&night, &server, &["--only", "some"]).run().await.expect(0);
    }
}

#[tokio::test]
async fn a_table_that_fails_leaves_the_others_alone_and_the_same_command_goes_on() {
    let server = server().await;
    let night = night(&server, "snapshot = \"export\"");
    // The view has nothing to read from any more, and so have the two that name the table.
    server.run("DETACH TABLE b").await;
    let run_id = ["--run-id", "night"];
    let failed = run(&night, &server, &run_id).run().await.expect(13);
    let codes: Vec<i64> = failed.report["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|export| export["exit_code"].as_i64().unwrap())
        .collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 2, "{codes:?} {}", failed.stderr);
    server.run("ATTACH TABLE b").await;
    let done = run(&night, &server, &run_id).run().await.expect(0);
    assert_eq!(found(&night.out("some"), COUNT).await, json!([[5, 5]]), "{}", done.report);
}
