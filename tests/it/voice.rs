//! What errors say: one sentence that names what is at fault in the words of whoever typed it, a hint with something to type,
//! and the same as JSON. Each case is a golden pair in `tests/golden/errors` (`UPDATE_GOLDEN=1` rewrites them).

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::pg::{Pg, both, pg};
use crate::support::run::{Outhaul, Run, outhaul};
use crate::support::s3::s3;
use crate::support::secured::Secured;
use crate::support::tls::{Authority, LOCAL};

/// The passwords and signatures of these tests, which no text may show.
const CANARY: &str = "canary-4711";

const TABLES: &str = r#"
    create table lineitem (id int primary key, l_returnflag text, l_shipdate date); insert into lineitem values (1, 'N', now());
    create table "Orders" (id int primary key); insert into "Orders" values (1);
    create schema sales; create table sales.invoices (id int primary key);
    create table hidden_one (id int); create role blind_ROLE login; grant usage on schema public to blind_ROLE;
    create table dates (id int primary key, d date); insert into dates values (1, 'infinity');
    create table numbers (id int primary key, n numeric(12,2)); insert into numbers values (7, 'NaN');
    create table stamps (id int primary key, t timestamptz); insert into stamps values (1, 'infinity');
    create table times (id int primary key, t time); insert into times values (1, '24:00')"#;

/// Names of libraries and of their types, and what else is nobody's business.
const NEVER: [&str; 15] = [
    "Date32",
    "Decimal128",
    "Timestamp(",
    "Time64",
    "Arrow",
    "Generic S3",
    "Error performing",
    "non-2xx",
    "object_store",
    "os error",
    "Object at location",
    "hyper",
    "reqwest",
    "tokio",
    CANARY,
];

/// An export with a JSON report, to a folder of its own unless `args` say where.
fn command(from: &str, args: &[&str]) -> Outhaul {
    let to = if args.contains(&"--to") { &[][..] } else { &["--to", "out"] };
    outhaul(["export", "--from", from, "--report", "json", "--progress", "none"].iter().chain(to).chain(args))
}

/// Holds what a run said against its golden pair. `varying` are texts that differ each time, and what stands for them.
#[track_caller]
fn check(name: &str, run: &Run, varying: &[(&str, &str)]) {
    let normal = |text: &str| {
        let mut text = text.to_owned();
        for (found, name) in varying.iter().filter(|(found, _)| !found.is_empty()) {
            text = text.replace(found, name);
        }
        text
    };
    for never in NEVER {
        assert!(!run.stderr.contains(never), "{name}: {never} is in {}", run.stderr);
    }
    golden(&format!("{name}.txt"), &normal(&run.stderr));
    let report = &run.report;
    let told = json!({
        "exit_code": report["exit_code"], "error_kind": report["error_kind"], "errors": report["errors"],
    });
    golden(&format!("{name}.json"), &normal(&(serde_json::to_string_pretty(&told).unwrap() + "\n")));
    for error in report["errors"].as_array().unwrap() {
        for field in ["code", "kind", "message", "retryable"] {
            assert!(!error[field].is_null(), "{name}: {field} of {error}");
        }
    }
    valid(name, report);
}

#[track_caller]
fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(actual, expected, "{name} differs; UPDATE_GOLDEN=1 rewrites it");
}

/// The report is what the schema says, and nothing of it is left undescribed.
#[track_caller]
fn valid(name: &str, report: &Value) {
    let schema = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/config/report.v1.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_slice(&schema).unwrap();
    schema["unevaluatedProperties"] = json!(false);
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{name}: {problems:#?}\n{report}");
}

fn port(url: &str) -> &str {
    url.rsplit_once(':').unwrap().1.split('/').next().unwrap()
}

#[tokio::test]
async fn names_that_do_not_exist_are_guessed() {
    for version in both() {
        let pg = pg(version).await;
        let role = format!("blind_{}", port(&pg.url));
        pg.batch(&TABLES.replace("blind_ROLE", &format!("{role}_{version}"))).await;
        for (name, code, args) in [
            ("table_misspelt", 13, &["--table", "lineitm"][..]),
            ("table_misspelt_with_schema", 13, &["--table", "pubic.lineitem"]),
            ("table_in_another_schema", 13, &["--table", "invoices"]),
            ("table_in_the_wrong_schema", 13, &["--table", "public.invoices"]),
            ("table_with_capitals", 13, &["--table", "Orders"]),
            ("table_like_no_other", 13, &["--table", "warehouse_events"]),
            ("where_column", 13, &["--table", "lineitem", "--where", "id > 0 and l_returnflg = 'N'"]),
            ("where_column_qualified", 13, &["--table", "lineitem", "--where", "lineitem.l_shipdat > '2026-01-01'"]),
            ("where_column_like_no_other", 13, &["--table", "lineitem", "--where", "zzz = 1"]),
            ("where_function", 15, &["--table", "lineitem", "--where", "uper(l_returnflag) = 'N'"]),
            ("where_syntax", 15, &["--table", "lineitem", "--where", "id = = 1"]),
            ("column_expression", 13, &["--table", "lineitem", "--column", "x=l_returnflg || 'y'"]),
            ("columns_column", 2, &["--table", "lineitem", "--columns", "id,l_returnflg"]),
            ("key_column", 2, &["--table", "lineitem", "--key", "l_shipdat"]),
            ("query_column", 13, &["--query", "select l_returnflg from lineitem"]),
            ("query_table", 13, &["--query", "select * from lineitm"]),
        ] {
            let run = command(&pg.url, args).run().await.expect(code);
            check(name, &run, &[]);
        }
        // What the role cannot see is not told of.
        let blind = pg.url.replace("postgres@", &format!("{role}_{version}@"));
        let run = command(&blind, &["--table", "hiden_one"]).run().await.expect(13);
        assert!(!run.stderr.contains("hidden_one"), "{}", run.stderr);
        pg.batch(&format!("drop owned by {role}_{version}; drop role {role}_{version}")).await;
    }
}

#[tokio::test]
async fn values_that_fit_nothing_are_told_in_the_words_of_the_database() {
    let pg = pg(18).await;
    pg.batch(&TABLES.replace("create role blind_ROLE login; grant usage on schema public to blind_ROLE;", "")).await;
    for (name, table) in
        [("infinite_date", "dates"), ("nan", "numbers"), ("infinite_timestamp", "stamps"), ("end_of_day", "times")]
    {
        let args = ["--table", table, "--run-id", "nightly"];
        check(name, &command(&pg.url, &args).run().await.expect(14), &[]);
    }
    // Whoever asks for it sees the chain.
    let run = command(&pg.url, &["--table", "lineitem", "--where", "zzz = 1", "-v"]).run().await.expect(13);
    assert!(run.stderr.contains("\n  caused by: column \"zzz\" does not exist (SQLSTATE 42703)\n"), "{}", run.stderr);
}

#[tokio::test]
async fn servers_that_let_nobody_in_are_told_with_what_to_check() {
    let pg = pg(18).await;
    let port = port(&pg.url).to_owned();
    let here = [(port.as_str(), "PORT")];
    let table = ["--table", "t"];
    check("connection_refused", &command("postgres://u@127.0.0.1:1/d", &table).run().await.expect(11), &[]);
    check(
        "host_unknown",
        &command("postgres://u@no-such-host.invalid/d", &table).run().await.expect(11),
        &[("Temporary failure in name resolution", "WHY"), ("Name or service not known", "WHY")],
    );
    let missing = pg.url.replace(pg.url.rsplit_once('/').unwrap().1, "no_such_database");
    check("database_missing", &command(&missing, &table).run().await.expect(10), &here);
    let secure = format!("{}?sslmode=require", pg.url);
    check("tls_refused", &command(&secure, &table).run().await.expect(10), &here);
    for (name, parameter) in [("url_option_unknown", "foo=bar"), ("url_option_misspelt", "sslmod=require")] {
        let run = command(&format!("{}?{parameter}", pg.url), &table).run().await.expect(2);
        check(name, &run, &here);
    }
    let sockets = ["/var/run/postgresql", "/tmp"].map(|folder| Path::new(folder).join(".s.PGSQL.5432"));
    let run = outhaul(["export", "--table", "t", "--to", "out", "--report", "json"]).env("USER", "me").run().await;
    if sockets.iter().any(|socket| socket.exists()) {
        assert!(!run.stderr.contains("no --from"), "{}", run.stderr);
    } else {
        check("nothing_says_where", &run.expect(11), &[]);
    }

    let authority = Authority::new("ec");
    let server = Secured::start(18, &authority, &authority.issue("db", LOCAL, 30)).await;
    server.batch("create role plain login password 'right'").await;
    let port = server.port.to_string();
    let here = [(port.as_str(), "PORT")];
    for (name, user, mode) in [
        ("password_wrong", "plain", "disable"),
        ("role_not_let_in", "nobody", "disable"),
        ("certificate_unknown", "encrypted", "verify-full"),
    ] {
        let from = server.from(user, &format!("sslmode={mode}"));
        let run = command(&from, &table).env("PGPASSWORD", CANARY).run().await.expect(10);
        check(name, &run, &here);
    }
    let run = command(&server.from("plain", "sslmode=disable"), &table).run().await.expect(10);
    check("password_missing", &run, &here);
}

#[tokio::test]
async fn stores_are_told_in_one_sentence() {
    let (pg, s3) = (pg(15).await, s3());
    pg.batch("create table t (id int primary key); insert into t values (1), (2)").await;
    let environment = s3.env();
    let place = [
        (s3.prefix.as_str(), "PREFIX"),
        (s3.endpoint.strip_prefix("http://").unwrap(), "STORE"),
        (&environment[3].1, "KEY"),
    ];
    let to = |to: &str, args: &[&str]| command(&pg.url, &[&["--table", "t", "--to", to], args].concat());
    check("bucket_missing", &to("s3://warehouse-of-nobody/t/", &[]).envs(s3.env()).run().await.expect(2), &place);
    check("bucket_misspelt", &to("s3://outhaul-tset/t/", &[]).envs(s3.env()).run().await.expect(2), &place);
    check("write_denied", &to(&s3.url("t"), &[]).envs(s3.read_only_env()).run().await.expect(20), &place);
    let wrong = |name: &'static str, value: &str| {
        s3.env().map(|(key, old)| (key, if key == name { value.to_owned() } else { old }))
    };
    check(
        "key_unknown",
        &to(&s3.url("t"), &[]).envs(wrong("AWS_ACCESS_KEY_ID", "nobody")).run().await.expect(20),
        &place,
    );
    check(
        "secret_wrong",
        &to(&s3.url("t"), &[]).envs(wrong("AWS_SECRET_ACCESS_KEY", CANARY)).run().await.expect(20),
        &place,
    );
    let away = wrong("AWS_ENDPOINT", "http://127.0.0.1:1");
    let run = to(&s3.url("t"), &[]).envs(away).env("OUTHAUL_TEST_LIMITS", "store-retry=1").run().await.expect(21);
    check("store_unreachable", &run, &place);
    // Without keys, the service of the machine is asked, which stands for one that nobody has here.
    let keyless = [("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1".to_owned()), ("AWS_REGION", "us-east-1".to_owned())];
    let run = to("s3://lake/t/", &[])
        .envs(keyless)
        .env("HOME", "/nowhere")
        .env("OUTHAUL_TEST_LIMITS", "store-retry=1")
        .run()
        .await
        .expect(20);
    check("no_credentials", &run, &place);
    let run = to("s3://lake/t/", &[]).env("AWS_PROFILE", "prod").env("HOME", "/nowhere").run().await.expect(20);
    check("profile_unknown", &run, &place);
    let signed = format!("s3://lake/t/?X-Amz-Signature={CANARY}");
    check("query_in_the_destination", &to(&signed, &[]).run().await.expect(2), &place);
    check("folder_in_a_file", &to("/etc/hostname/out", &[]).run().await, &place);
}

/// A signature stands in the query of each request's URL, and no text shows it, the whole chain of an error neither.
#[tokio::test]
async fn signatures_of_requests_are_in_no_text() {
    let pg = pg(18).await;
    pg.batch("create table t as select 1 as id").await;
    let run = command(&pg.url, &["--table", "t", "--to", "az://container/t", "-vv"])
        .env("AZURE_STORAGE_ACCOUNT_NAME", "account")
        .env("AZURE_STORAGE_SAS_TOKEN", format!("sv=2024-11-04&sig={CANARY}"))
        .env("AZURE_ENDPOINT", "http://127.0.0.1:1/account")
        .env("OUTHAUL_TEST_LIMITS", "store-retry=1")
        .run()
        .await
        .expect(21);
    let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
    assert!(run.stderr.contains("caused by: ") && run.stderr.contains("connection refused"), "{said}");
    assert!(!said.contains(CANARY) && !said.contains("sig="), "{said}");
}

/// A scheduler's own ids are good ids, and the same id of another request is told with what differs.
#[tokio::test]
async fn run_ids_of_schedulers_are_taken_and_another_request_is_told() {
    let (pg, s3) = (pg(18).await, s3());
    pg.batch("create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')").await;
    let id = "manual__2026-11-27T00:00:00+00:00";
    let folder = tempfile::tempdir().unwrap();
    for to in [folder.path().join("out").to_str().unwrap().to_owned(), s3.url("out"), s3.url("dated/{run_id}/")] {
        let fixed = ["--to", &to, "--table", "t", "--run-id", id];
        let run = |more: &[&str]| command(&pg.url, &[&fixed[..], more].concat()).envs(s3.env());
        assert_eq!(run(&[]).run().await.expect(0).report["run_id"], id, "{to}");
        let written = to.replace("{run_id}", id);
        outhaul(["verify", &written, "--read-data"]).envs(s3.env()).run().await.expect(0);
        assert_eq!(run(&[]).run().await.expect(0).report["already_committed"], true);
        if written == to {
            let other = run(&["--where", "id = 1"]).run().await.expect(22);
            check("other_request", &other, &[(&to, "DEST"), ("file://", "")]);
        }
    }
    let run = command(&pg.url, &["--table", "t", "--run-id", "of yesterday/2"]).run().await.expect(2);
    check("run_id_refused", &run, &[]);
    for id in [":x", "+x", "_x", ".x"] {
        command(&pg.url, &["--table", "t", "--run-id", id]).run().await.expect(2);
    }
}

/// What follows from a file that cannot be read is not told beside it.
#[tokio::test]
async fn a_broken_file_is_the_only_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let varying = [(folder.path().to_str().unwrap(), "FOLDER")];
    for (name, text) in [
        ("config_broken", "table = \"t\nto = 'out'\n"),
        ("config_key_unknown", "tabel = 't'\nto = 'out'\n"),
        ("config_two_mistakes", "tabel = 't'\nformat = 'cvs'\n"),
    ] {
        std::fs::write(&file, text).unwrap();
        let args = ["export", "--config", file.to_str().unwrap(), "--report", "json"];
        check(name, &outhaul(args).run().await.expect(2), &varying);
    }
    let missing = folder.path().join("none.toml");
    let args = ["export", "--config", missing.to_str().unwrap(), "--report", "json"];
    check("config_missing", &outhaul(args).run().await.expect(2), &varying);
}

/// Every command's report is in one envelope, also where it fails or was not understood.
#[tokio::test]
async fn each_command_reports_in_the_same_envelope() {
    let pg = pg(18).await;
    pg.batch("create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 30) i")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (to, capped, nowhere) = (at("out"), at("capped"), at("nowhere"));
    let from = ["--from", &pg.url, "--table", "t"];
    let (job, root) = (at("job.toml"), at("night"));
    std::fs::write(&job, format!("root = '{root}'\n[[export]]\ntable = 't'\nto = '{root}/t'\n")).unwrap();
    let export = |to: &str, more: &[&str]| [&["export"], &from[..], &["--to", to], more].concat().join("\u{1f}");
    let cases: Vec<(&str, i32, String)> = vec![
        ("export", 0, export(&to, &[])),
        ("export", 3, export(&capped, &["--max-rows", "3"])),
        ("export", 22, export(&to, &[])),
        ("export", 2, export(&to, &["--format", "cvs"])),
        ("export", 2, "export\u{1f}--tabel\u{1f}t".to_owned()),
        ("export", 0, export(&nowhere, &["--dry-run"])),
        ("run", 0, ["run", &job, "--from", &pg.url, "--dry-run"].join("\u{1f}")),
        ("run", 0, ["run", &job, "--from", &pg.url].join("\u{1f}")),
        ("resume", 0, ["resume", &root, "--from", &pg.url].join("\u{1f}")),
        ("plan", 0, [&["plan"], &from[..]].concat().join("\u{1f}")),
        ("plan", 13, ["plan", "--from", &pg.url, "--table", "u"].join("\u{1f}")),
        ("verify", 0, ["verify", &to].join("\u{1f}")),
        ("verify", 0, ["verify", &to, "--against-source", "--from", &pg.url].join("\u{1f}")),
        ("verify", 30, ["verify", &nowhere].join("\u{1f}")),
        ("clean", 0, ["clean", &to].join("\u{1f}")),
        ("clean", 2, ["clean", "http://x"].join("\u{1f}")),
        ("resume", 2, ["resume", &nowhere, "--from", &pg.url].join("\u{1f}")),
        ("ddl", 30, ["ddl", &nowhere, "--dialect", "duckdb"].join("\u{1f}")),
        ("keep", 2, ["keep", "http://x", "--from", &pg.url].join("\u{1f}")),
    ];
    let keys = |report: &Value| -> Vec<String> { report.as_object().unwrap().keys().cloned().collect() };
    for (command, code, line) in cases {
        let run = outhaul(line.split('\u{1f}')).env("OUTHAUL_REPORT", "json").run().await.expect(code);
        valid(&line, &run.report);
        let report = &run.report;
        assert_eq!((&report["command"], &report["exit_code"]), (&json!(command), &json!(code)), "{report}");
        assert_eq!(report["errors"].as_array().unwrap().is_empty(), [0, 3].contains(&code), "{report}");
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert!(report["started_at"].as_str() <= report["ended_at"].as_str(), "{report}");
        assert!(keys(report).contains(&"retryable".to_owned()));
    }
    let nothing = outhaul(["exprot"]).env("OUTHAUL_REPORT", "json").run().await.expect(2);
    valid("exprot", &nothing.report);
    assert_eq!(nothing.report["command"], Value::Null);
}

#[tokio::test]
async fn the_report_is_written_to_a_file_too_whole_and_also_where_it_failed() {
    let pg = pg(15).await;
    pg.batch("create table t (id int primary key)").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let (path, to) = (file.to_str().unwrap(), folder.path().join("out"));
    let written = || -> Value {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let fixed = ["--from", &pg.url, "--report-file", path];
    for (code, form, args) in [
        (0, "json", &["export", "--table", "t", "--to", to.to_str().unwrap()][..]),
        (22, "json", &["export", "--table", "t", "--to", to.to_str().unwrap()]),
        (13, "text", &["export", "--table", "u", "--to", "out"]),
        (2, "text", &["export", "--table", "t", "--to", "out", "--readers", "many"]),
        (2, "json", &["export", "--tabel", "t"]),
        (0, "text", &["plan", "--table", "t"]),
    ] {
        let run = outhaul(args.iter().chain(&fixed)).env("OUTHAUL_REPORT", form).run().await.expect(code);
        let report = written();
        valid(form, &report);
        assert_eq!(report["exit_code"], code, "{args:?}");
        assert_eq!(form == "json", run.report == report, "{args:?}: {}", run.report);
    }
    let args = ["verify", to.to_str().unwrap(), "--report-file", path];
    outhaul(args).run().await.expect(0);
    assert_eq!((written()["command"].clone(), written()["verified"].clone()), (json!("verify"), json!(true)));
    // A file of configuration may name it as well, also where it has a mistake elsewhere.
    let config = folder.path().join("job.toml");
    std::fs::write(&config, format!("report = 'json'\nreport_file = '{path}'\nreaders = 'many'\ntabel = 't'\n"))
        .unwrap();
    let args = ["export", "--from", &pg.url, "--table", "t", "--to", "out", "--config", config.to_str().unwrap()];
    let run = outhaul(args).run().await.expect(2);
    assert_eq!((&run.report, run.report["errors"].as_array().unwrap().len()), (&written(), 2));
    // One that cannot be written changes nothing of how the run ended.
    let config = folder.path().join("job.toml");
    let missing = folder.path().join("none/report.json");
    std::fs::write(&config, format!("report_file = '{}'\n", missing.display())).unwrap();
    let args = ["export", "--from", &pg.url, "--table", "t", "--to", "out", "--config", config.to_str().unwrap()];
    let run = outhaul(args).run().await.expect(0);
    assert!(run.stderr.contains("warning: --report-file: cannot write"), "{}", run.stderr);
    let names = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), ["job.toml", "out", "report.json"].map(str::to_owned).into());
}

/// A run that reached nothing says nothing of runs: neither before its error nor after it.
#[tokio::test]
async fn a_run_that_reached_nothing_is_not_spoken_of() {
    let args = ["export", "--from", "postgres://u@127.0.0.1:1/d", "--table", "t", "--to", "out"];
    let run = outhaul(args).run().await.expect(11);
    assert!(!run.stderr.contains("run ") && run.stderr.starts_with("error: cannot connect"), "{}", run.stderr);
    let pg: Pg = pg(18).await;
    pg.batch("create table t as select 1 / (2 - i) as x from generate_series(3, 3) i; insert into t values (0)").await;
    let args = ["export", "--from", &pg.url, "--query", "select 1 / x from t", "--to", "out"];
    let run = outhaul(args).run().await.expect(15);
    assert!(run.stderr.contains("exporting query") && run.stderr.contains("nothing was published)"), "{}", run.stderr);
}
