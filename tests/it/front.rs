//! What a run tells people and scripts: report, plan, events, metrics, and every refusal with its exit code.

use serde_json::{Value, json};

use crate::support::job::{command, export, no_sessions_left, parts};
use crate::support::pg::{self, Pg, both, pg};
use crate::support::run::outhaul;
use crate::support::s3::s3;

#[tokio::test]
async fn the_report_is_the_last_line_and_agrees_with_the_manifest() {
    let pg = pg::lineitem(15).await;
    let done = export(&pg, &["--table", "lineitem", "--partitions", "3", "--readers", "2"]).await.expect(0);
    let (report, manifest) = (&done.run.report, done.manifest());
    assert_eq!(std::str::from_utf8(&done.run.stdout).unwrap().lines().count(), 1, "one line, and nothing else");
    assert_eq!(
        (&report["schema_version"], &report["status"], &report["exit_code"], &report["retryable"], &report["error"]),
        (&json!(1), &json!("complete"), &json!(0), &json!(false), &json!(null))
    );
    assert_eq!((&report["relation"], &report["readers"]), (&json!("public.lineitem"), &json!(2)));
    for field in ["rows", "parts", "bytes"] {
        assert_eq!(report[field], manifest["totals"][field], "{field}");
    }
    assert_eq!(report["run_id"], manifest["run_id"]);
    assert_eq!(report["snapshot"], manifest["consistency"]["snapshots"][0]["id"]);
    assert_eq!(report["destination"], format!("file://{}", done.dest().display()));
    assert_eq!(report["rows_available"], json!({"kind": "exact", "value": 60175}));
    assert!(report["seconds"].as_f64().unwrap() > 0.0);

    let text = outhaul(["export", "--from", &pg.url, "--table", "lineitem", "--to", "out"]).run().await.expect(0);
    let summary = String::from_utf8(text.stdout).unwrap() + &text.stderr;
    for part in ["complete: public.lineitem", "60,175 rows", "outhaul verify"] {
        assert!(summary.contains(part), "no {part:?} in {summary}");
    }
    let quiet = ["export", "-q", "--from", &pg.url, "--table", "lineitem", "--to", "out"];
    let quiet = outhaul(quiet).run().await.expect(0);
    assert_eq!(quiet.stderr, "");
}

#[tokio::test]
async fn a_plan_tells_what_would_be_done_and_reads_no_rows() {
    let pg = pg::lineitem(18).await;
    pg.batch("create view unreadable as select 1 / (id - id) as x, id from lineitem").await;
    let plan = async |args: &[&str]| {
        let fixed = ["plan", "--from", &pg.url, "--report", "json"];
        outhaul(fixed.iter().chain(args)).run().await.expect(0).report
    };
    let found = plan(&["--table", "lineitem", "--partitions", "5", "--readers", "3", "--format", "csv"]).await;
    let partitions = found["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 5);
    let numbers: Vec<_> = partitions.iter().map(|partition| partition["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(found["columns"].as_array().unwrap().len(), 17);
    assert_eq!(
        (&found["columns"][5]["name"], &found["columns"][5]["pg_type"]),
        (&json!("l_quantity"), &json!("numeric(15,2)"))
    );
    assert_eq!((&found["read"]["readers"], &found["relation"]["name"]), (&json!(3), &json!("public.lineitem")));
    assert!(found["read"]["peak_connections"].as_u64().unwrap() >= 3);
    let capped = plan(&["--table", "lineitem", "--tier", "free"]).await;
    assert_eq!((&capped["row_cap"]["truncated"], &capped["row_cap"]["boundary"]), (&json!(true), &json!(["10000"])));
    plan(&["--table", "unreadable"]).await;
    let text = outhaul(["plan", "--from", &pg.url, "--table", "lineitem"]).run().await.expect(0);
    assert!(String::from_utf8(text.stdout).unwrap().contains("public.lineitem"));
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn events_come_in_order_and_agree_with_the_manifest() {
    let pg = pg::lineitem(15).await;
    let args = ["--table", "lineitem", "--partitions", "4", "--readers", "2", "--progress", "json"];
    let done = export(&pg, &args).await.expect(0);
    let events: Vec<Value> = done.run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let rare: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !["progress", "partition_started", "part_finished"].contains(name))
        .collect();
    assert_eq!(rare, ["run_started", "planned", "committing", "run_finished"]);
    assert_eq!((names[0], names[1], *names.last().unwrap()), ("run_started", "planned", "run_finished"));
    assert!(events.iter().all(|event| event["schema_version"] == 1 && event["time"].is_string()));
    let manifest = done.manifest();
    for part in parts(&manifest) {
        let told =
            events.iter().position(|event| event["event"] == "part_finished" && event["path"] == part["path"]).unwrap();
        let began = events
            .iter()
            .position(|event| event["event"] == "partition_started" && event["partition"] == part["partition"])
            .unwrap();
        assert!(began < told && names[told..].contains(&"committing"));
        for field in ["rows", "bytes", "partition"] {
            assert_eq!(events[told][field], part[field], "{field}");
        }
    }
    let (started, planned, finished) = (&events[0], &events[1], events.last().unwrap());
    assert_eq!((&started["run_id"], &started["readers"]), (&manifest["run_id"], &json!(2)));
    assert_eq!(planned["partitions"], 4);
    assert_eq!(planned["snapshot"], manifest["consistency"]["snapshots"][0]["id"]);
    assert_eq!(finished["report"]["rows"], 60_175);

    let failed = export(&pg, &["--table", "lineitem", "--where", "1 / (id - 60000) > -5", "--progress", "json"])
        .await
        .expect(15);
    let events: Vec<Value> = failed.run.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["exit_code"], &last["retryable"]),
        (&json!("run_failed"), &json!(15), &json!(false))
    );
    assert!(last["error"].as_str().unwrap().contains("22012"), "{last}");
    assert!(events.iter().all(|event| event["event"] != "committing"));
}

#[tokio::test]
async fn metrics_count_what_was_done() {
    let pg = pg::lineitem(18).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outhaul.prom");
    let args = ["--table", "lineitem", "--partitions", "3", "--metrics-file", file.to_str().unwrap()];
    let done = export(&pg, &args).await.expect(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let value = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let bytes: f64 = done.manifest()["totals"]["bytes"].to_string().parse().unwrap();
    for (name, expected) in [
        ("outhaul_rows_read_total", 60_175.0),
        ("outhaul_rows_encoded_total", 60_175.0),
        ("outhaul_bytes_written_total", bytes),
        ("outhaul_partitions_completed_total", 3.0),
        ("outhaul_exports_total", 1.0),
    ] {
        assert!((value(name) - expected).abs() < 0.5, "{name} is {}, not {expected}:\n{text}", value(name));
    }
}

#[tokio::test]
async fn every_refusal_has_its_exit_code_and_leaves_nothing() {
    for version in both() {
        let pg = small(version).await;
        let (server, database) = pg.url.rsplit_once('/').unwrap();
        let nobody = pg.url.replace("postgres@", "nobody_at_all@");
        let nowhere = format!("{server}/{database}_no");
        let closed = format!("postgres://postgres@127.0.0.1:{}/postgres", closed_port());
        let weak = pg.url.replace("postgres@", &format!("weak_{database}@"));
        let cases: [(&str, &[&str], i64, bool); 22] = [
            (&pg.url, &["--table", "nope"], 13, false),
            (&pg.url, &["--table", "no_schema.t"], 13, false),
            (&nobody, &["--table", "t"], 10, false),
            (&nowhere, &["--table", "t"], 10, false),
            (&weak, &["--table", "t"], 10, false),
            (&weak, &["--query", "select * from t"], 10, false),
            (&closed, &["--table", "t"], 11, true),
            (&pg.url, &["--table", "t", "--where", "nope > 1"], 13, false),
            (&pg.url, &["--table", "t", "--where", "id + 1"], 15, false),
            (&pg.url, &["--query", "select 1 from from t"], 15, false),
            (&pg.url, &["--table", "t", "--no-such-flag"], 2, false),
            (&pg.url, &["--table", "t", "--format", "avro"], 2, false),
            (&pg.url, &["--table", "t", "--readers", "0"], 2, false),
            (&pg.url, &["--table", "t", "--query", "select 1"], 2, false),
            (&pg.url, &[], 2, false),
            (&pg.url, &["--table", "t", "--keep-snapshot", "1h", "--read-mode", "keyset"], 2, false),
            (&pg.url, &["--table", "t", "--column-policy", "x=null"], 2, false),
            (&pg.url, &["--table", "t", "--column-policy", "id=trim"], 2, false),
            (&pg.url, &["--table", "t", "--preset", "athena", "--format", "csv"], 2, false),
            (&pg.url, &["--table", "t", "--preset", "redshift"], 2, false),
            (&pg.url, &["--table", "t", "--csv-bom"], 2, false),
            ("mysql://me@localhost/x", &["--table", "t"], 2, false),
        ];
        for (from, args, code, retryable) in cases {
            let folder = tempfile::tempdir().unwrap();
            let dest = folder.path().join("out");
            let fixed = ["export", "--from", from, "--to", dest.to_str().unwrap(), "--report", "json"];
            let run = outhaul(fixed.iter().chain(args)).run().await;
            assert_eq!(i64::from(run.code), code, "{from} {args:?}: {}", run.stderr);
            assert_eq!(
                (&run.report["exit_code"], &run.report["retryable"]),
                (&json!(code), &json!(retryable)),
                "{args:?}"
            );
            assert!(run.stderr.contains("error: "), "{args:?}: {}", run.stderr);
            assert!(!dest.join("_manifest.json").exists() && !dest.join("data").exists(), "{args:?}");
        }
    }
}

#[tokio::test]
async fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let pg = small(18).await;
    let from = pg.url.replace("postgres@", "postgres:hunter2@");
    let folder = tempfile::tempdir().unwrap();
    let args = ["export", "--from", &from, "--table", "t", "--to", folder.path().to_str().unwrap(), "--report", "json"];
    let run = outhaul(args).run().await.expect(2);
    let said = run.stderr + std::str::from_utf8(&run.stdout).unwrap();
    assert!(said.contains("password") && !said.contains("hunter2"), "{said}");
    let args = ["export", "--from", "env:SECRET_URL", "--table", "t", "--to", folder.path().to_str().unwrap()];
    let run = outhaul(args).env("SECRET_URL", &from).run().await.expect(0);
    assert!(!run.stderr.contains("hunter2"));
    for (path, _) in crate::support::watch::files(folder.path()) {
        let bytes = std::fs::read(folder.path().join(&path)).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{path} holds the password");
    }
}

#[tokio::test]
async fn destinations_that_refuse_are_told_from_those_that_are_away() {
    let (pg, s3) = (small(15).await, s3());
    let to = s3.url("out");
    let run = command(&pg, &to, &["--table", "t"]).envs(s3.read_only_env()).run().await.expect(20);
    assert_eq!(run.report["retryable"], false);
    let wrong =
        s3.env().map(|(name, value)| if name == "AWS_ACCESS_KEY_ID" { (name, "nobody".into()) } else { (name, value) });
    command(&pg, &to, &["--table", "t"]).envs(wrong).run().await.expect(20);
    let run = command(&pg, "s3://no-such-bucket-here/out", &["--table", "t"]).envs(s3.env()).run().await;
    assert!(
        [2, 20, 21].contains(&run.code) && run.stderr.contains("no-such-bucket-here"),
        "{}: {}",
        run.code,
        run.stderr
    );
    assert_eq!(s3.list("").await.len(), 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = file.path().join("out");
    let run = command(&pg, below.to_str().unwrap(), &["--table", "t"]).run().await;
    assert!([2, 20, 21].contains(&run.code), "{}: {}", run.code, run.stderr);
}

#[tokio::test]
async fn settings_come_from_flag_environment_and_file_in_this_order() {
    let pg = small(18).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outhaul.toml");
    std::fs::write(&file, "format = \"ndjson\"\ncsv_header = \"off\"\npartitions = 2\n").unwrap();
    let to = folder.path().join("{table}-{date}-{run_id}");
    let args = ["--table", "t", "--config", file.to_str().unwrap(), "--date", "2026-02-03", "--run-id", "r1"];
    command(&pg, to.to_str().unwrap(), &args).env("OUTHAUL_FORMAT", "csv").run().await.expect(0);
    let dest = folder.path().join("t-2026-02-03-r1");
    let manifest = crate::support::manifest(&dest);
    assert_eq!(manifest["format_options"]["format"], "csv", "the environment goes before the file");
    assert_eq!(manifest["parts"][0]["header_rows"], 0, "the file goes before the defaults");
    std::fs::write(&file, "fromat = \"csv\"").unwrap();
    let refused = command(&pg, "out", &["--table", "t", "--config", file.to_str().unwrap()]).run().await.expect(2);
    assert!(refused.stderr.contains("fromat") && refused.stderr.contains("format"), "{}", refused.stderr);
}

/// A small table and a role that may not read it.
async fn small(version: u32) -> Pg {
    let pg = pg(version).await;
    let database = pg.value("select current_database()").await;
    pg.batch("create table t as select i as id from generate_series(1, 100) i").await;
    pg.batch(&format!("create role weak_{database} login")).await;
    pg
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
