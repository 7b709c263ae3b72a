//! What those who watch exports at night read: metrics, alerts, the runbook.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::job::command;
use crate::support::pg::{Pg, pg};
use crate::support::run::Run;

fn config(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

/// An export to a folder of this name, with its metrics in a file of this name.
async fn export(pg: &Pg, folder: &Path, name: &str, args: &[&str]) -> (Run, String) {
    let (to, file) = (folder.join(name), folder.join(format!("{name}.prom")));
    let all = [&["--metrics-file", file.to_str().unwrap()], args].concat();
    let run = command(pg, to.to_str().unwrap(), &all).run().await;
    (run, std::fs::read_to_string(&file).unwrap_or_default())
}

/// The names and the label names of all series.
fn series(text: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let label = |pair: &str| pair.split_once('=').map(|(name, _)| name.to_owned());
    lines
        .map(|line| {
            let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("{line} has no label"));
            let labels = rest.rsplit_once('}').unwrap().0.split(',').filter_map(label);
            (name.to_owned(), labels.collect())
        })
        .collect()
}

fn value(text: &str, start: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn metrics_tell_exports_apart_and_remember_the_last_commit() {
    let pg = pg(18).await;
    pg.batch("create table t as select 1 as id; create table u as select 1 as id").await;
    let folder = tempfile::tempdir().unwrap();
    let (run, one) = export(&pg, folder.path(), "one", &["--table", "t", "--run-id", "night-1"]).await;
    run.expect(0);
    assert!(one.contains("outhaul_run_info{") && one.contains("run_id=\"night-1\""), "{one}");
    assert_eq!(one.matches("night-1").count(), 1, "a run's id is a label of one metric");
    for (name, expected) in
        [("outhaul_exit_code{", 0.0), ("outhaul_running{", 0.0), ("outhaul_snapshot_age_seconds{", 0.0)]
    {
        assert!((value(&one, name) - expected).abs() < 0.1, "{name}: {one}");
    }
    let committed = value(&one, "outhaul_last_commit_timestamp_seconds{");
    assert!(committed > 1.7e9 && value(&one, "outhaul_run_start_timestamp_seconds{") <= committed, "{one}");

    // Another table, and the same table elsewhere: no series twice.
    let lines = |text: &str| {
        let line = |line: &str| line.rsplit_once(' ').map(|(series, _)| series.to_owned());
        text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect::<BTreeSet<_>>()
    };
    for (name, table) in [("two", "u"), ("three", "t")] {
        let (run, other) = export(&pg, folder.path(), name, &["--table", table]).await;
        run.expect(0);
        assert!(lines(&one).is_disjoint(&lines(&other)), "{one}\n{other}");
    }

    // The same export fails: its exit code is there, and when it last committed too.
    let (run, failed) = export(&pg, folder.path(), "one", &["--table", "t"]).await;
    run.expect(22);
    assert!((value(&failed, "outhaul_exit_code{") - 22.0).abs() < 0.1, "{failed}");
    assert!((value(&failed, "outhaul_last_commit_timestamp_seconds{") - committed).abs() < 0.001, "{failed}");
    let file = folder.path().join("one.prom");
    let args = ["--table", "u", "--metrics-file", file.to_str().unwrap()];
    command(&pg, folder.path().join("two").to_str().unwrap(), &args).run().await.expect(22);
    let other = std::fs::read_to_string(&file).unwrap();
    assert!(!other.lines().any(|line| line.starts_with("outhaul_last_commit")), "that of another export: {other}");
}

#[tokio::test]
async fn the_alerts_ask_for_metrics_and_labels_that_there_are() {
    let pg = pg(15).await;
    pg.batch("create table t as select 1 as id").await;
    let (run, text) = export(&pg, tempfile::tempdir().unwrap().path(), "one", &["--table", "t"]).await;
    run.expect(0);
    let series = series(&text);
    let names: BTreeSet<&str> = series.iter().map(|(name, _)| name.as_str()).collect();
    for (name, labels) in &series {
        assert!(["relation", "to"].iter().all(|label| labels.contains(*label)), "{name} has {labels:?}");
    }
    let alerts = config("alerts.yml");
    let code: String = alerts.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let asked: BTreeSet<&str> = words.filter(|word| word.starts_with("outhaul_")).collect();
    assert!(asked.len() >= 6, "{asked:?}");
    for name in asked {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    for label in code.split("$labels.").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap()) {
        assert!(["relation", "to"].contains(&label), "{label}");
    }
}

#[tokio::test]
async fn the_port_of_zero_is_told() {
    let pg = pg(18).await;
    pg.batch("create table t as select 1 as id").await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let run = command(&pg, to.to_str().unwrap(), &["--table", "t", "--metrics-listen", ":0"]).run().await.expect(0);
    let (_, rest) = run.stderr.split_once("metrics are at http://127.0.0.1:").unwrap();
    assert!(rest.split('/').next().unwrap().parse::<u16>().unwrap() > 0, "{}", run.stderr);
}

#[test]
fn the_runbook_has_each_exit_code_with_what_to_do() {
    let table = config("exit-codes.md");
    let told = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok());
    let wanted: BTreeSet<u8> = told.chain([137, 141]).collect();
    assert!(wanted.len() >= 19, "{wanted:?}");
    let book = config("runbook.md");
    let sections: Vec<(&str, &str)> =
        book.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    assert_eq!(sections.iter().map(|(code, _)| code.parse().unwrap()).collect::<BTreeSet<u8>>(), wanted);
    for (code, text) in sections {
        assert!(["**Means**", "**Type**", "**Wait**"].iter().all(|word| text.contains(word)), "{code}: {text}");
    }
}
