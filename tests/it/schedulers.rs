//! The files for schedulers in `config/`: each says what the program does, and is run as far as it can be without its
//! scheduler.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use outhaul::cli::exit;
use outhaul::model::ExportErrorKind;
use serde_json::{Map, Value, json};

use crate::support::pg::{Pg, pg};
use crate::support::run::{Run, program};
use crate::support::variable;

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// The codes that the same command gives again.
pub(crate) fn final_codes() -> BTreeSet<u64> {
    use ExportErrorKind as Kind;
    let kinds = [
        Kind::Internal,
        Kind::Usage,
        Kind::SourceAuthentication,
        Kind::SourceUnavailable,
        Kind::SnapshotLost,
        Kind::SchemaChanged,
        Kind::Data,
        Kind::StatementRejected,
        Kind::GaveWay,
        Kind::DestinationAuthentication,
        Kind::DestinationUnavailable,
        Kind::DestinationTaken,
        Kind::DestinationFull,
        Kind::Verification,
        Kind::Interrupted,
        Kind::Terminated,
    ];
    let last = kinds.into_iter().filter(|kind| !kind.retryable()).map(|kind| u64::from(exit::failed(kind)));
    last.collect()
}

/// YAML without anchors, multi-line texts and nested brackets, which is what our files are.
pub(crate) fn yaml(text: &str) -> Value {
    let lines = text.lines().map(|line| (line.len() - line.trim_start().len(), line.trim().to_owned()));
    let mut lines: Vec<(usize, String)> =
        lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
    let mut at = 0;
    let found = block(&mut lines, &mut at);
    assert_eq!(at, lines.len(), "{:?} stands nowhere", lines.get(at));
    found
}

fn block(lines: &mut [(usize, String)], at: &mut usize) -> Value {
    let indent = lines[*at].0;
    let here = |lines: &[(usize, String)], at: usize| lines.get(at).filter(|(own, _)| *own == indent).cloned();
    if lines[*at].1.starts_with("- ") {
        let mut items = Vec::new();
        while let Some((_, line)) = here(lines, *at).filter(|(_, line)| line.starts_with("- ")) {
            let item = line[2..].trim().to_owned();
            if !item.starts_with('"') && (item.contains(": ") || item.ends_with(':')) {
                lines[*at] = (indent + 2, item);
                items.push(block(lines, at));
            } else {
                items.push(scalar(&item));
                *at += 1;
            }
        }
        return items.into();
    }
    let mut map = Map::new();
    while let Some((_, line)) = here(lines, *at).filter(|(_, line)| !line.starts_with("- ")) {
        let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no key"));
        *at += 1;
        let value = if value.trim().is_empty() { block(lines, at) } else { scalar(value.trim()) };
        assert!(map.insert(key.to_owned(), value).is_none(), "{key} is there twice");
    }
    map.into()
}

fn scalar(text: &str) -> Value {
    if let Some(list) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return list.split(',').map(|item| scalar(item.trim())).collect();
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[test]
fn the_cron_job_of_kubernetes_has_no_rights_and_ends_where_a_try_is_of_no_use() {
    let job = yaml(&text("kubernetes-cronjob.yaml"));
    assert_eq!((&job["apiVersion"], &job["kind"]), (&json!("batch/v1"), &json!("CronJob")));
    assert_eq!(job["spec"]["concurrencyPolicy"], "Forbid");
    let spec = &job["spec"]["jobTemplate"]["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&json!(1), &json!(1)));
    let rules = spec["podFailurePolicy"]["rules"].as_array().unwrap();
    // The first that fits decides.
    assert_eq!(
        (&rules[0]["action"], &rules[0]["onPodConditions"][0]["type"]),
        (&json!("Ignore"), &json!("DisruptionTarget"))
    );
    let codes = &rules[1]["onExitCodes"];
    assert_eq!((&rules[1]["action"], &codes["operator"]), (&json!("FailJob"), &json!("In")));
    let told: BTreeSet<u64> = codes["values"].as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect();
    let mut wanted = final_codes();
    wanted.insert(u64::from(exit::TRUNCATED));
    // Whoever writes there now may have ended by the next try.
    wanted.remove(&22);
    assert_eq!(told, wanted);
    let pod = &spec["template"]["spec"];
    // What podFailurePolicy demands.
    assert_eq!(pod["restartPolicy"], "Never");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["name"], codes["containerName"]);
    // The policy "restricted" of Kubernetes.
    let context = &container["securityContext"];
    assert_eq!(
        (&context["allowPrivilegeEscalation"], &context["readOnlyRootFilesystem"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    let mounts = |list: &Value| {
        let names = list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    assert_eq!(mounts(&container["volumeMounts"]), mounts(&pod["volumes"]));
}

/// What a scheduler would start, with the paths of this test.
struct Night {
    folder: tempfile::TempDir,
    url: String,
    /// Its database goes with it.
    _pg: Pg,
}

impl Night {
    async fn new() -> Self {
        let pg = pg(18).await;
        pg.batch("create table orders (id int primary key); insert into orders select generate_series(1, 100)").await;
        let folder = tempfile::tempdir().unwrap();
        let job =
            "[defaults]\nfrom = \"env:DATABASE_URL\"\nto = \"./out/{table}\"\n[[export]]\ntable = \"public.orders\"\n";
        std::fs::write(folder.path().join("job.toml"), job).unwrap();
        Self { folder, url: pg.url.clone(), _pg: pg }
    }

    fn place(&self, line: &str) -> String {
        let folder = self.folder.path().display().to_string();
        let bin = env!("CARGO_BIN_EXE_outhaul");
        let line = line.replace("/usr/bin/outhaul", bin).replace("/etc/outhaul", &folder);
        line.replace("/var/lib/outhaul-night", &folder).replace("/var/lib/outhaul", &folder)
    }

    /// As a shell runs it.
    async fn run(&self, line: &str) -> Run {
        let bin = Path::new(env!("CARGO_BIN_EXE_outhaul")).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let line = format!("cd {} && {}", self.folder.path().display(), self.place(line));
        program("/bin/sh", ["-c", &line]).env("PATH", path).env("DATABASE_URL", &self.url).run().await
    }

    fn report(&self) -> Value {
        let report = std::fs::read(self.folder.path().join("report.json")).unwrap();
        std::fs::remove_file(self.folder.path().join("report.json")).unwrap();
        serde_json::from_slice(&report).unwrap()
    }
}

/// The settings of a unit of systemd.
fn unit(name: &str) -> Vec<(String, String)> {
    let text = text(name);
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn systemd_takes_the_units_and_their_command_runs_once_a_night() {
    let files = ["outhaul-night.service", "outhaul-night.timer"].map(|name| path(name).to_str().unwrap().to_owned());
    let verified = program("systemd-analyze", ["verify", "--man=no", &files[0], &files[1]]).run().await;
    assert!(verified.code == 0 && verified.stderr.is_empty(), "{}", verified.stderr);
    let service = unit("outhaul-night.service");
    let value = |key: &str| service.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap();
    let codes: BTreeSet<u64> = value("RestartPreventExitStatus").split(' ').map(|code| code.parse().unwrap()).collect();
    assert_eq!(codes, final_codes());
    assert_eq!(value("SuccessExitStatus"), exit::TRUNCATED.to_string());
    // systemd writes a percent sign twice, and starts the program without a shell of its own.
    let line = value("ExecStart").replace("%%", "%");
    let night = Night::new().await;
    for _ in 0..2 {
        let run = night.run(&line).await;
        assert_eq!(run.code, 0, "{}", run.stderr);
        let report = night.report();
        assert_eq!(report["exit_code"], 0, "{report}");
    }
    let record: Value =
        serde_json::from_slice(&std::fs::read(night.folder.path().join("out/_run.json")).unwrap()).unwrap();
    let id = record["run_id"].as_str().unwrap();
    assert!(id.starts_with("night-20"), "{id}");
    // The second time did nothing twice.
    let manifest = std::fs::read(night.folder.path().join("out/public.orders/_manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((manifest["run_id"].as_str(), &manifest["totals"]["rows"]), (Some(id), &json!(100)), "{manifest}");
}

#[tokio::test]
async fn the_line_of_cron_is_quiet_unless_it_fails() {
    let page = text("schedulers.md");
    let (_, cron) = page.split_once("```cron\n").unwrap();
    let (cron, _) = cron.split_once("```").unwrap();
    let line = cron.lines().find(|line| line.starts_with("15 2 * * * ")).unwrap();
    // What cron does with a percent sign.
    let line = line.strip_prefix("15 2 * * * ").unwrap().replace("\\%", "%");
    assert!(!line.contains('\\'), "{line}");
    let night = Night::new().await;
    let run = night.run(&line).await;
    assert_eq!((run.code, run.stdout.as_slice(), run.stderr.as_str()), (0, &b""[..], ""));
    assert_eq!(night.report()["exit_code"], 0);
    let gone = Night { url: "postgresql://nobody@127.0.0.1:1/none".to_owned(), ..night };
    let run = gone.run(&line).await;
    assert!(run.code == 11 && !run.stderr.is_empty(), "{run:?}");
    assert_eq!((&gone.report()["exit_code"], run.stdout.len()), (&json!(11), 0));
}

/// Airflow as far as the DAG sees it.
const AIRFLOW: &str = r#"
import datetime, json, os, signal, sys, time, types
tasks = []
def dag(**settings):
    assert settings["max_active_runs"] == 1 and settings["catchup"] is False
    return lambda function: function
def task(**settings):
    assert settings["retries"] > 0
    return lambda function: tasks.append(function) or (lambda: None)
class AirflowException(Exception): pass
class AirflowFailException(AirflowException): pass
class AirflowSkipException(AirflowException): pass
airflow, decorators, exceptions = (types.ModuleType(name) for name in ["airflow", "airflow.decorators", "airflow.exceptions"])
decorators.dag, decorators.task = dag, task
exceptions.AirflowFailException, exceptions.AirflowSkipException = AirflowFailException, AirflowSkipException
sys.modules.update({"airflow": airflow, "airflow.decorators": decorators, "airflow.exceptions": exceptions})
asked = json.loads(os.environ["DAG_TEST"])
os.chdir(asked["folder"])
exec(compile(asked["dag"], "airflow_dag.py", "exec"), {"__name__": "airflow_dag"})
# As `execution_timeout` ends a task, once its program runs.
def timed_out(*_):
    if not os.path.exists("runs"):
        return signal.setitimer(signal.ITIMER_REAL, 0.05)
    raise AirflowException("timeout")
signal.signal(signal.SIGALRM, timed_out)
if asked["timeout"]:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    answer = tasks[0](data_interval_end=datetime.datetime(2026, 11, 30), run_id="scheduled__2026-11-30T02:15:00+00:00")
    print(json.dumps(["done", answer]))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"#;

#[tokio::test]
async fn the_dag_of_airflow_tries_again_only_what_may_pass() {
    let night = Night::new().await;
    let fake = tempfile::tempdir().unwrap();
    let outhaul = fake.path().join("outhaul");
    let run = async |path: &Path, timeout: bool| -> (String, Value) {
        let dag = night.place(&text("airflow_dag.py"));
        let asked = json!({"dag": dag, "folder": night.folder.path(), "timeout": timeout}).to_string();
        let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
        let python =
            program(&variable("OUTHAUL_TEST_PYTHON"), ["-c", AIRFLOW]).env("DAG_TEST", asked).env("PATH", path);
        let done = python.env("DATABASE_URL", &night.url).run().await;
        assert_eq!(done.code, 0, "{}", done.stderr);
        let mut answer: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
        (answer[0].as_str().unwrap().to_owned(), answer.remove(1))
    };
    // The program itself, twice: the second try reports what has committed.
    for _ in 0..2 {
        let (outcome, report) = run(Path::new(env!("CARGO_BIN_EXE_outhaul")).parent().unwrap(), false).await;
        assert_eq!((outcome.as_str(), &report["exit_code"]), ("done", &json!(0)), "{report}");
    }
    let record = std::fs::read(night.folder.path().join("out/_run.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["run_id"], "scheduled__2026-11-30T02-15-00-00-00");
    // Each way in which it can end.
    for (code, retryable, outcome) in [
        (0, false, "done"),
        (3, false, "done"),
        (16, true, "AirflowSkipException"),
        (11, true, "RuntimeError"),
        (21, true, "RuntimeError"),
        (2, false, "AirflowFailException"),
        (22, false, "RuntimeError"),
    ] {
        let report = json!({"exit_code": code, "retryable": retryable, "errors": [{"message": "why"}]});
        let script = format!("#!/bin/sh\nprintf '%s\\n' '{report}'\nexit {code}\n");
        write_program(&outhaul, &script);
        let (found, said) = run(fake.path(), false).await;
        assert_eq!(found, outcome, "{code}: {said}");
    }
    // Killed, it says nothing at all, and is tried no more often than Airflow would by itself.
    write_program(&outhaul, "#!/bin/sh\nkill -9 $$\n");
    let (found, said) = run(fake.path(), false).await;
    assert_eq!((found.as_str(), said), ("RuntimeError", json!("exit -9")));
    // Out of time, it is asked to stop and not killed: it removes what it has staged.
    let stops = "#!/bin/sh\ntrap 'kill $!; echo removed >stopped; exit 143' TERM\n: >runs\nsleep 60 >&- 2>&- &\nwait\n";
    write_program(&outhaul, stops);
    let (found, said) = run(fake.path(), true).await;
    assert_eq!((found.as_str(), said), ("AirflowException", json!("timeout")));
    assert!(night.folder.path().join("stopped").exists());
}

fn write_program(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
