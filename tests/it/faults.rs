//! What a person meets who does something at the wrong moment: resumes a living run, closes a pipe, has something in the
//! way at the destination, or leaves out what the program can find by itself.

use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::Value;

use crate::support::pg::{Pg, pg};
use crate::support::place::{Place, export};
use crate::support::run::{Outhaul, Run, Running, Stop, outhaul, program};

const TABLE: &str = "create table t as select i as id, md5(i::text) as v from generate_series(1, 4000) i;
    alter table t add primary key (id); alter table t set (autovacuum_enabled = off); analyze t";

async fn table() -> Pg {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    pg
}

fn resume(pg: &Pg, place: &Place, args: &[&str]) -> Outhaul {
    let url = place.url();
    let mut all = vec!["resume", &url, "--from", &pg.url, "--report", "json"];
    all.extend(args);
    place.outhaul(all)
}

async fn kill(running: Running) {
    running.signal("KILL").await;
    assert_eq!(running.wait().await.code, 137);
}

fn single(pg: &Pg, place: &Place, to: &str, args: &[&str]) -> Outhaul {
    let mut all = vec!["export", "--from", &pg.url, "--table", "t", "--to", to, "--format", "csv", "--single-file"];
    all.extend(["--report", "json", "--progress", "none"]);
    all.extend(args);
    place.outhaul(all)
}

#[tokio::test]
async fn a_living_run_is_not_resumed_unless_it_is_to_be_taken_over() {
    let pg = table().await;
    for place in Place::both() {
        let stop = Stop::at("receipted");
        // One reader: nobody else writes while it stands.
        let running = export(&pg, &place, &["--key", "id", "--readers", "1"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        let before = place.list().await;
        let refused = resume(&pg, &place, &[]).run().await.expect(22);
        assert!(refused.stderr.contains(&format!("(process {} on ", running.pid())), "{}", refused.stderr);
        assert!(refused.stderr.contains("resume --take-over"), "{}", refused.stderr);
        assert_eq!(place.list().await.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        stop.release();
        running.wait().await.expect(0);

        // One that has not written its plan yet is alive too, and what stands is not reported in its place.
        let stop = Stop::at("locked");
        let running = export(&pg, &place, &["--on-existing", "replace"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        resume(&pg, &place, &[]).run().await.expect(22);
        stop.release();
        running.wait().await.expect(0);
    }
}

#[tokio::test]
async fn what_was_read_before_a_resume_is_in_no_rate() {
    let pg = table().await;
    let place = Place::local();
    let stop = Stop::at("receipted");
    let running =
        export(&pg, &place, &["--key", "id", "--readers", "1", "--keep-snapshot", "1m"]).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    kill(running).await;
    let run = resume(&pg, &place, &["--progress", "json"]).run().await.expect(0);
    let (rows, now) = (run.report["rows"].as_u64().unwrap(), run.report["rows_read_now"].as_u64().unwrap());
    assert_eq!(rows, 4000);
    assert!(now > 0 && now < rows, "{now}");
    assert!(run.report["bytes_written_now"].as_u64() < run.report["bytes"].as_u64());
    let planned = run.stderr.lines().find(|line| line.contains("\"planned\"")).unwrap();
    let planned: Value = serde_json::from_str(planned).unwrap();
    assert_eq!(planned["resumed"]["rows"], rows - now);
    assert_eq!(resume(&pg, &place, &[]).run().await.expect(0).report["rows_read_now"], 0);
}

/// A shell that gives the exit code of the program before the pipe; `$0` is outhaul.
async fn piped(command: &str, reader: &str) -> Run {
    let script = format!("{{ {command}; }} | {reader}; exit ${{PIPESTATUS[0]}}");
    program("/bin/bash", ["-c", &script, env!("CARGO_BIN_EXE_outhaul")]).run().await
}

#[tokio::test]
async fn a_closed_pipe_is_no_message() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id, md5(i::text) as v from generate_series(1, 20000) i").await;
    for format in ["csv", "ndjson", "parquet"] {
        let export = format!("--from '{}' --table t --to - --format {format} --compression none", pg.url);
        for reader in ["head -c 1", "true"] {
            let command = format!("sleep 0.2; $0 export {export} --progress none");
            let run = piped(&command, reader).await.expect(141);
            assert_eq!(run.stderr, "", "{format} {reader}");
        }
    }
    let command = format!("$0 export --from '{}' --table t --to - --format csv --progress none --report json", pg.url);
    let run = piped(&command, "head -1").await.expect(141);
    let report: Value = serde_json::from_str(run.stderr.trim()).unwrap();
    assert_eq!((&report["status"], &report["exit_code"]), (&"cancelled".into(), &141.into()));
    let dest = tempfile::tempdir().unwrap();
    let to = dest.path().to_str().unwrap();
    // The export stands, whoever hears of it.
    piped(&format!("sleep 0.2; $0 export --from '{}' --table t --to {to} --progress none", pg.url), "true")
        .await
        .expect(0);
    for command in [
        format!("plan --from '{}' --table t", pg.url),
        format!("ddl {to} --dialect duckdb"),
        "--help".to_owned(),
        "export --help".to_owned(),
        "--version".to_owned(),
    ] {
        let run = piped(&format!("sleep 0.2; $0 {command}"), "true").await.expect(141);
        assert_eq!(run.stderr, "", "{command}");
    }
    piped(&format!("sleep 0.2; $0 verify {to}"), "true").await.expect(0);
}

#[tokio::test]
async fn what_is_in_the_way_at_the_destination_is_seen_before_reading() {
    let pg = table().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path();
    for case in
        ["data leads out", "data is a file", "data leads nowhere", "the manifest is a folder", "all leads nowhere"]
    {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("dest");
        std::fs::create_dir(&dest).unwrap();
        match case {
            "data leads out" => symlink(outside, dest.join("data")).unwrap(),
            "data is a file" => std::fs::write(dest.join("data"), "mine").unwrap(),
            "data leads nowhere" => symlink("gone", dest.join("data")).unwrap(),
            "the manifest is a folder" => std::fs::create_dir(dest.join("_SUCCESS")).unwrap(),
            _ => {
                std::fs::remove_dir(&dest).unwrap();
                symlink(outside.join("gone"), &dest).unwrap();
            }
        }
        let to = dest.to_str().unwrap();
        let args = ["export", "--from", &pg.url, "--table", "t", "--to", to, "--progress", "json"];
        let run = outhaul(args).run().await;
        assert!([2, 21].contains(&run.code), "{case}: {} {}", run.code, run.stderr);
        assert!(!run.stderr.contains("\"planned\""), "{case}: {}", run.stderr);
        outhaul(["clean", to]).run().await.expect(0);
        assert!(!dest.join("_outhaul").exists(), "{case}");
    }
}

#[tokio::test]
async fn clean_settles_a_run_whose_folder_has_become_a_link() {
    let pg = table().await;
    let (place, elsewhere) = (Place::local(), tempfile::tempdir().unwrap());
    let stop = Stop::at("published");
    let running = export(&pg, &place, &[]).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    kill(running).await;
    let data = place.folder().join("data");
    std::fs::rename(&data, elsewhere.path().join("data")).unwrap();
    symlink(elsewhere.path().join("data"), &data).unwrap();
    let url = place.url();
    place.outhaul(["clean", &url]).run().await.expect(0);
    assert!(!place.folder().join("_outhaul").exists());
    assert!(elsewhere.path().join("data").read_dir().unwrap().next().is_some(), "nothing behind the link is touched");
}

#[tokio::test]
async fn single_files_are_found_without_being_told() {
    let pg = table().await;
    for place in Place::both() {
        let file = format!("{}/t.csv", place.url());
        let stop = Stop::at("uploaded");
        let running = single(&pg, &place, &file, &[]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        kill(running).await;
        let dry = place.outhaul(["clean", &file, "--dry-run", "--report", "json"]).run().await.expect(0);
        assert_eq!(dry.report["report"]["runs"].as_array().unwrap().len(), 1, "{}", dry.report);
        let cleaned = place.outhaul(["clean", &file, "--report", "json"]).run().await.expect(0);
        assert!(cleaned.report["report"]["destination"].as_str().unwrap().ends_with("/t.csv"), "{}", cleaned.report);
        assert_eq!(cleaned.report["report"]["runs"].as_array().unwrap().len(), 1, "{}", cleaned.report);
        assert!(place.list().await.is_empty() && place.open_uploads().await.is_empty());

        single(&pg, &place, &file, &[]).run().await.expect(0);
        let run = place.outhaul(["resume", &file, "--from", &pg.url, "--report", "json"]).run().await.expect(0);
        assert_eq!(run.report["already_committed"], true);
        let run = place.outhaul(["clean", &file]).run().await.expect(0);
        assert!(String::from_utf8_lossy(&run.stdout).contains("t.csv"), "{}", run.stdout.escape_ascii());
        let kept =
            place.outhaul(["keep", &file, "--from", &pg.url]).limit(Duration::from_secs(20)).run().await.expect(0);
        assert!(kept.stderr.contains("finished"), "{}", kept.stderr);
    }
}

#[tokio::test]
async fn the_snapshot_of_a_finished_export_is_not_waited_for() {
    let pg = table().await;
    let place = Place::local();
    export(&pg, &place, &["--run-id", "one"]).run().await.expect(0);
    let url = place.url();
    for args in [&[][..], &["--run-id", "one"]] {
        let all = [&["keep", url.as_str(), "--from", &pg.url], args].concat();
        let run = place.outhaul(all).limit(Duration::from_secs(20)).run().await.expect(0);
        assert!(run.stderr.contains("the export there is finished"), "{}", run.stderr);
    }
    // Another one may be about to begin.
    let run = place.outhaul(["keep", &url, "--from", &pg.url, "--run-id", "two", "--for", "1s"]).run().await.expect(2);
    assert!(run.stderr.contains("no run began"), "{}", run.stderr);
}

#[tokio::test]
async fn the_estimate_knows_the_predicate() {
    let pg = table().await;
    pg.batch(
        "create view w as select * from t where id <= 40; create function boom() returns int language plpgsql as
        $$ begin raise exception 'executed'; end $$",
    )
    .await;
    let cases: [(&[&str], std::ops::RangeInclusive<u64>); 5] = [
        (&["--table", "t"], 4000..=4000),
        (&["--table", "t", "--where", "id <= 40"], 20..=80),
        (&["--query", "select * from t where id <= 40"], 20..=80),
        (&["--table", "w"], 20..=80),
        // Planned, and not executed.
        (&["--query", "select boom() as x from t where id <= 40"], 20..=80),
    ];
    for (args, expected) in cases {
        let all = [&["plan", "--from", &pg.url, "--report", "json"], args].concat();
        let run = outhaul(all).run().await.expect(0);
        let rows = run.report["relation"]["estimated_rows"].as_u64().or(run.report["estimated_rows"].as_u64());
        assert!(rows.is_some_and(|rows| expected.contains(&rows)), "{args:?}: {rows:?} {}", run.report);
    }
    let place = Place::local();
    let run = export(&pg, &place, &["--where", "id <= 40"]).run().await.expect(0);
    assert_eq!(run.report["rows"], 40);
}

#[tokio::test]
async fn each_line_on_standard_error_is_json_where_that_is_asked_for() {
    let pg = table().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("dest");
    let to = to.to_str().unwrap();
    let good = ["export", "--from", &pg.url, "--table", "t", "--to", to];
    let cases: [(&[&str], i32); 6] = [
        (&good, 0),
        (&good, 22),
        (&["export", "--from", &pg.url, "--table", "nowhere", "--to", "other"], 13),
        (&["export", "--tabel", "t"], 2),
        (&["export", "--format", "xlsx", "--to", to], 2),
        (&["clean", "s4://nowhere"], 2),
    ];
    for (args, code) in cases {
        let run = outhaul([args, &["--log-format", "json"]].concat()).run().await.expect(code);
        assert!(!run.stderr.is_empty(), "{args:?}");
        for line in run.stderr.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{args:?}: {line}"));
            assert!(record["message"].is_string() && record["level"].is_string(), "{line}");
        }
        assert_eq!(run.stderr.contains(r#""level":"ERROR""#), code != 0, "{}", run.stderr);
    }
}

#[tokio::test]
async fn colours_are_where_they_are_asked_for() {
    let args = ["export", "--format", "xlsx", "--to", "x"];
    let always = outhaul([&args[..], &["--color", "always"]].concat()).run().await.expect(2);
    assert!(always.stderr.starts_with("\u{1b}[1;31merror:\u{1b}[0m "), "{}", always.stderr);
    assert!(always.stderr.contains("\u{1b}[2mhint: "), "{}", always.stderr);
    for more in [&[][..], &["--color", "never"], &["--color", "auto"]] {
        let run = outhaul([&args[..], more].concat()).run().await.expect(2);
        assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
    }
}

/// What a terminal of tmux shows.
async fn screen(socket: &str) -> String {
    let run = program("tmux", ["-L", socket, "capture-pane", "-p", "-t", "it"]).run().await.expect(0);
    String::from_utf8(run.stdout).unwrap()
}

#[tokio::test]
async fn a_real_terminal_shows_percent_and_totals_at_every_size() {
    let pg = table().await;
    for (columns, rows, variable) in
        [("120", "30", "NO_COLOR=1"), ("80", "24", "X=1"), ("60", "24", "NO_COLOR=1"), ("40", "14", "X=1")]
    {
        let dest = tempfile::tempdir().unwrap();
        let to = dest.path().join("t");
        let socket = format!("outhaul-{}-{columns}", std::process::id());
        // Slow enough that a person sees something.
        let command = format!(
            "env {variable} TERM=screen {} export --from '{}' --table t --to {} --format csv --readers 16 --partitions 20 \
             --max-bytes-per-second 40KB",
            env!("CARGO_BIN_EXE_outhaul"),
            pg.url,
            to.display()
        );
        let new =
            ["-L", &socket, "-f", "/dev/null", "new-session", "-d", "-s", "it", "-x", columns, "-y", rows, &command];
        program("tmux", new).run().await.expect(0);
        let mut seen = String::new();
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            seen = screen(&socket).await;
            if seen.contains("ETA") {
                break;
            }
        }
        program("tmux", ["-L", &socket, "kill-server"]).run().await;
        let what = format!("{columns}x{rows}:\n{seen}");
        for part in ["run ", "t -> file:", " %", "ETA 00:", " rows", "and "] {
            assert!(seen.contains(part), "no {part:?} at {what}");
        }
        // A cut or wrapped line would stand before the one that follows it.
        let lines: Vec<&str> = seen.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(lines[lines.len() - 2].starts_with('[') && lines[lines.len() - 2].contains("ETA"), "{what}");
        assert!(lines[lines.len() - 1].contains(" rows"), "{what}");
        assert_eq!(lines.iter().filter(|line| line.starts_with('[')).count(), 1, "{what}");
    }
}
