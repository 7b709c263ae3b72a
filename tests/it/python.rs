//! The wheel: it is built around the program, installed by pip, and its modules do what they say.
//!
//! With a real cluster scripts/test-spark tries `outhaul.spark`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use outhaul::cli::exit;
use serde_json::{Value, json};

use crate::readme::KINDS;
use crate::support::job::no_sessions_left;
use crate::support::pg::pg;
use crate::support::run::{Outhaul, program};
use crate::support::variable;

/// A program that needs the user's own tools: cargo, and what scripts/ keeps in its cache.
pub(crate) fn with_tools(path: &str, args: &[&str]) -> Outhaul {
    let mut tool = program(&format!("{}/{path}", env!("CARGO_MANIFEST_DIR")), args).limit(Duration::from_mins(5));
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "OUTHAUL_TEST_CACHE"] {
        if let Some(value) = std::env::var_os(name) {
            tool = tool.env(name, value);
        }
    }
    tool
}

fn python(args: &[&str]) -> Outhaul {
    program(&variable("OUTHAUL_TEST_PYTHON"), args).limit(Duration::from_mins(2))
}

/// The wheel around the program, as pip installs it into a folder.
async fn installed(folder: &Path) -> String {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (wheels, site) = (text(&folder.join("wheels")), text(&folder.join("site")));
    let built = ["--out", &wheels, "--binary", env!("CARGO_BIN_EXE_outhaul")];
    let built = with_tools("scripts/wheel/build", &built).run().await.expect(0);
    let wheel = String::from_utf8(built.stdout).unwrap().trim().to_owned();
    // A tag of an older glibc than that of the machine that built it would be a lie; none is of no use elsewhere.
    assert!(wheel.contains("-py3-none-manylinux_2_"), "{wheel}");
    let pip = "import runpy, sys; sys.argv[0] = 'pip'; runpy.run_module('pip', run_name='__main__')";
    let options = ["--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-index", "--no-deps", "--target"];
    let mut args = vec!["-c", pip, "install"];
    args.extend(options);
    args.extend([site.as_str(), wheel.as_str()]);
    python(&args).run().await.expect(0);
    site
}

#[tokio::test]
async fn the_wheel_brings_the_program_and_raises_by_exit_code() {
    let pg = pg(18).await;
    pg.batch(
        "create table t as select i as id, repeat(md5(i::text), 4) as v from generate_series(1, 6000) i;
        alter table t add primary key (id); analyze t",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let site = installed(folder.path()).await;
    assert!(Path::new(&site).join("outhaul/py.typed").exists());
    let cases = format!("{}/tests/support/wheel.py", env!("CARGO_MANIFEST_DIR"));
    let run = python(&[&cases, &site, &pg.url, folder.path().to_str().unwrap()]).run().await.expect(0);
    let found = run.report;
    assert_eq!((&found["program"], &found["version"]), (&json!("bin/outhaul"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(found["no_program"]["class"], "FileNotFoundError", "{found}");
    let whole = &found["whole"];
    assert_eq!((&whole["status"], &whole["rows"], &whole["there"]), (&json!("complete"), &json!(6000), &json!(true)));
    assert_eq!((&whole["first"], &whole["last"]), (&json!("run_started"), &json!("run_finished")), "{whole}");
    let planned = format!("file://{}/planned", folder.path().display());
    let expected = json!({"status": "planned", "destination": planned, "run_id": "", "there": false});
    assert_eq!(found["planned"], expected);
    assert_eq!((&found["query"]["there"], &found["query"]["secret"]), (&json!(true), &json!(false)));
    assert!(found["query"]["lines"].as_u64() > Some(0), "{}", found["query"]);
    errors(&found);
    assert_eq!((&found["failed_caller"], &found["interrupted"]), (&json!("KeyError"), &json!(true)));
    let stopped = &found["stopped"];
    assert_eq!((&stopped["published"], &stopped["running"]), (&json!([]), &json!(0)), "{stopped}");
    assert!(stopped["seconds"].as_f64() < Some(30.0), "{stopped}");
    task(&found);
    no_sessions_left(&pg).await;
}

/// Each exit code of an export has a class, and each failure its own.
fn errors(found: &Value) {
    let error = |name: &str| {
        let error = &found["errors"][name];
        (error["class"].as_str(), error["code"].as_i64(), error["retryable"].as_bool())
    };
    for (name, class, code, retryable) in [
        ("taken", "DestinationTaken", 22, false),
        ("missing", "SchemaChanged", 13, false),
        ("data", "DataError", 14, false),
        ("rejected", "StatementRejected", 15, false),
        ("option", "UsageError", 2, false),
        ("switch", "UsageError", 2, false),
        ("source", "SourceUnavailable", 11, true),
        ("truncated", "Truncated", 3, false),
    ] {
        assert_eq!(error(name), (Some(class), Some(code), Some(retryable)), "{name}: {}", found["errors"][name]);
    }
    assert_eq!((error("ours").0, error("pipe").0), (Some("TypeError"), Some("ValueError")));
    assert_eq!((&found["errors"]["allowed"]["done"], &found["cut_is_there"]), (&json!("truncated"), &json!(true)));
    let killed = &found["killed"];
    assert_eq!(
        (&killed["class"], &killed["code"], &killed["retryable"]),
        (&json!("OuthaulError"), &json!(-9), &json!(true))
    );
    let mut wanted: BTreeSet<u64> = KINDS.into_iter().map(|kind| u64::from(exit::failed(kind))).collect();
    wanted.insert(u64::from(exit::TRUNCATED));
    let told: BTreeSet<u64> = found["codes"].as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect();
    assert_eq!(told, wanted);
}

/// What a task of Spark does: it tells of receipts, raises what may be tried again, and returns what may not.
fn task(found: &Value) {
    let task = &found["task"];
    for (name, code) in [("other_version", 2), ("other_plan", 2), ("other_epoch", 22)] {
        let line = &task[name][0];
        assert_eq!((&line["type"], &line["code"]), (&json!("failed"), &json!(code)), "{name}: {}", task[name]);
        assert_eq!(task[name].as_array().map(Vec::len), Some(1), "{name}");
    }
    assert!(task["other_version"][0]["message"].as_str().unwrap().contains("the run is of outhaul 0.0.1"), "{task}");
    assert_eq!(task["no_source"]["class"], "WorkerFailed", "{task}");
    assert_eq!(task["receipts"], json!(["receipt", "receipt", "receipt"]), "{task}");
    assert_eq!((&task["again"][0]["type"], &task["again"][0]["already"]), (&json!("receipt"), &json!(true)), "{task}");
    assert_eq!((&task["code"], &task["there"]), (&json!(0), &json!(true)), "{task}");
    assert_eq!(found["job"], json!({"rows": 6000, "exports": [6000], "run_id": "night"}), "{found}");
    assert_eq!(found["no_job"]["class"], "UsageError", "{}", found["no_job"]);
    let there = &found["there"];
    assert_eq!((&there["run_id"], &there["partitions"]), (&there["whole"], &json!([])), "{there}");
    let passwords = found["passwords"].as_object().unwrap();
    for (source, secret) in passwords {
        assert_eq!(secret, source.contains("secret") || source.contains("password="), "{source}");
    }
    assert_eq!(found["refused"]["class"], "ValueError", "{}", found["refused"]);
}
