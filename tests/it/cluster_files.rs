//! The files with which a cluster runs an export: their schedulers' schemas know all of it, and their commands do together
//! what they are to do, a killed run included.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crash::kill;
use crate::python::with_tools;
use crate::schedulers::{final_codes, path, text, yaml};
use crate::support::eventually;
use crate::support::job::no_sessions_left;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, Run, Running, outhaul, program};
use crate::support::variable;
use crate::workers::{QUICK, lines, told};
use outhaul::cli::exit;

const ROWS: u64 = 6000;

/// What a worker's caller tries again: config/cluster.md. 22 means that the run goes on in another process, which a worker
/// with a share and without a fence may join.
const WORKERS_AGAIN: [u64; 4] = [11, 21, 22, 143];

/// The codes of a worker that no other one would end with better.
fn workers_last() -> BTreeSet<u64> {
    let page = text("cluster.md");
    let row = page.lines().find(|line| line.starts_with("| 1, 2, 10,")).unwrap();
    let mut codes = BTreeSet::new();
    for part in row.split('|').nth(1).unwrap().split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        codes.extend(first.parse::<u64>().unwrap()..=last.parse::<u64>().unwrap());
    }
    codes
}

/// The jobs of the file for Kubernetes: the run, the keeper, the workers.
fn jobs() -> Vec<Value> {
    text("kubernetes-job.yaml").split("\n---\n").map(yaml).collect()
}

fn container(job: &Value) -> &Value {
    &job["spec"]["template"]["spec"]["containers"][0]
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The codes with which a job fails at once.
fn failing(job: &Value) -> BTreeSet<u64> {
    let rules = &job["spec"]["podFailurePolicy"]["rules"];
    assert_eq!((&rules[0]["action"], &rules[1]["action"]), (&json!("Ignore"), &json!("FailJob")), "{rules}");
    assert_eq!(rules[1]["onExitCodes"]["containerName"], container(job)["name"]);
    rules[1]["onExitCodes"]["values"].as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_schemas_of_kubernetes_know_what_the_manifests_say() {
    let check = async |file: &Path| with_tools("scripts/kubernetes", &[file.to_str().unwrap()]).run().await;
    for name in ["kubernetes-job.yaml", "kubernetes-cronjob.yaml"] {
        check(&path(name)).await.expect(0);
    }
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.yaml");
    std::fs::write(&wrong, text("kubernetes-job.yaml").replace("backoffLimitPerIndex", "backoffLimitPerIndexes"))
        .unwrap();
    let run = check(&wrong).await.expect(1);
    assert!(run.stderr.contains("backoffLimitPerIndexes") || run.stdout.len() > 10, "{run:?}");
}

#[test]
fn the_jobs_of_kubernetes_try_again_what_may_pass() {
    let jobs = jobs();
    let [run, keep, workers] = &jobs[..] else { panic!("{} jobs", jobs.len()) };
    let mut wanted = final_codes();
    wanted.insert(u64::from(exit::TRUNCATED));
    assert_eq!(failing(run), wanted);
    assert_eq!(failing(workers), workers_last());
    assert!(workers_last().is_disjoint(&BTreeSet::from(WORKERS_AGAIN)));
    assert_eq!(run["spec"]["podReplacementPolicy"], "Failed", "two pods would take the run from each other");
    let spec = &workers["spec"];
    assert_eq!((&spec["completionMode"], &spec["maxFailedIndexes"]), (&json!("Indexed"), &json!(0)));
    assert!(spec["backoffLimitPerIndex"].as_u64() > Some(0));
    let args = words(&container(workers)["args"]);
    let shards = args.iter().position(|word| word == "--shards").unwrap() + 1;
    assert_eq!(args[shards], spec["completions"].to_string());
    for job in [run, keep, workers] {
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!((&pod["restartPolicy"], &pod["automountServiceAccountToken"]), (&json!("Never"), &json!(false)));
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let context = &container(job)["securityContext"];
        assert_eq!(
            (
                &context["allowPrivilegeEscalation"],
                &context["readOnlyRootFilesystem"],
                &context["capabilities"]["drop"]
            ),
            (&json!(false), &json!(true), &json!(["ALL"]))
        );
        assert!(container(job)["stdin"].is_null(), "a pod's standard input is /dev/null");
    }
}

/// A table, and a folder that all pods see.
struct Cluster {
    pg: Pg,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let pg = pg(18).await;
        pg.batch(&format!(
            "create table orders as select i as id, md5(i::text) as v from generate_series(1, {ROWS}) i;
            alter table orders add primary key (id); analyze orders"
        ))
        .await;
        Self { pg, folder: tempfile::tempdir().unwrap() }
    }

    fn dest(&self) -> String {
        self.folder.path().join("out").display().to_string()
    }

    /// With what the pods of a job have: the secret, the config map, and nothing to type.
    fn pod(&self, run: Outhaul) -> Outhaul {
        let bin = Path::new(env!("CARGO_BIN_EXE_outhaul")).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let run =
            run.env("PATH", path).env("TABLE", "orders").env("DEST", self.dest()).env("DATABASE_URL", &self.pg.url);
        let run = run.env("RUN_ID", "6f0b2f7e-0d56-4c3c-9f57-0a2ee0f0c001");
        // Several partitions of a small table.
        run.env("OUTHAUL_PARTITIONS", "8").env("OUTHAUL_TEST_LIMITS", QUICK)
    }

    /// A command as the scheduler starts it.
    fn started(&self, words: &[String], index: Option<(&str, usize)>) -> Running {
        let words = words.iter().map(|word| word.replace("$(DEST)", &self.dest()));
        let run = self.pod(outhaul(words));
        match index {
            Some((name, index)) => run.env(name, index.to_string()).spawn(),
            None => run.spawn(),
        }
    }

    async fn rows(&self) -> Value {
        let manifest = std::fs::read(Path::new(&self.dest()).join("_manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let verified = self.pod(outhaul(["verify", &self.dest(), "--read-data", "--report", "json"])).run().await;
        verified.expect(0);
        manifest["totals"]["rows"].clone()
    }
}

async fn ready(running: &Running) -> Value {
    eventually(Duration::from_secs(30), "the line `ready`", async || lines(&running.stdout(), "ready").pop()).await
}

/// The jobs' own commands: the pod of the run is killed, and the one in its place goes on under the keeper's snapshot.
#[tokio::test]
async fn the_pods_of_kubernetes_go_on_with_a_killed_run() {
    let cluster = Cluster::new().await;
    let jobs = jobs();
    let script = words(&container(&jobs[0])["command"]);
    assert_eq!(script[..2], ["/bin/sh", "-c"]);
    let run = || cluster.pod(program("/bin/sh", ["-c", &script[2]])).spawn();
    let work = async |indexes: std::ops::Range<usize>| -> (usize, usize) {
        let args = words(&container(&jobs[2])["args"]);
        let pods: Vec<Running> =
            indexes.map(|index| cluster.started(&args, Some(("JOB_COMPLETION_INDEX", index)))).collect();
        let mut counts = (0, 0);
        for pod in pods {
            let (read, already) = told(&pod.wait().await.expect(0));
            counts = (counts.0 + read.len(), counts.1 + already.len());
        }
        counts
    };
    let keeper = cluster.started(&words(&container(&jobs[1])["args"]), None);
    let first = run();
    let partitions = ready(&first).await["partitions"].as_array().unwrap().len();
    keeper.stderr_has("holding the snapshot as").await;
    let (read, _) = work(0..3).await;
    assert!(read > 0 && read < partitions, "{read} of {partitions}");
    kill(first).await;
    cluster.pg.batch("update orders set v = 'later'").await;
    let second = run();
    let missing = ready(&second).await;
    assert_eq!((&missing["epoch"], missing["partitions"].as_array().unwrap().len()), (&json!(2), partitions - read));
    let (rest, again) = work(0..8).await;
    assert_eq!((rest, again), (partitions - read, read));
    let done = second.wait().await.expect(0);
    assert_eq!(done.report["rows"], ROWS, "{}", done.report);
    keeper.wait().await.expect(0);
    assert_eq!(cluster.rows().await, json!(ROWS));
    no_sessions_left(&cluster.pg).await;
}

/// The line of the run alone, without a keeper: a killed run whose snapshot is gone begins anew (12), a pod that comes after
/// the commit reports it, and the jobs made again with `--on-existing replace` export the rows of now.
#[tokio::test]
async fn the_line_of_kubernetes_exports_again_what_cannot_go_on() {
    let cluster = Cluster::new().await;
    let jobs = jobs();
    let script = words(&container(&jobs[0])["command"])[2].clone();
    let again = script.replace("outhaul export ", "outhaul export --on-existing replace ");
    assert_ne!(script, again);
    let run = |line: &str, id: &str| cluster.pod(program("/bin/sh", ["-c", line])).env("RUN_ID", id).spawn();
    let work = async || {
        let args =
            words(&container(&jobs[2])["args"]).into_iter().map(|word| if word == "8" { "1".to_owned() } else { word });
        let args: Vec<String> = args.collect();
        cluster.started(&args, Some(("JOB_COMPLETION_INDEX", 0))).wait().await.expect(0);
    };
    let first = run(&script, "job-1");
    ready(&first).await;
    kill(first).await;
    let second = run(&script, "job-1");
    ready(&second).await;
    work().await;
    assert_eq!(second.wait().await.expect(0).report["rows"], ROWS);
    let third = run(&script, "job-1").wait().await.expect(0);
    assert_eq!((&third.report["rows"], &third.report["rows_read_now"]), (&json!(ROWS), &json!(0)), "{}", third.report);
    // The next night.
    cluster.pg.batch("delete from orders where id > 10").await;
    run(&script, "job-2").wait().await.expect(22);
    let night = run(&again, "job-2");
    ready(&night).await;
    work().await;
    night.wait().await.expect(0);
    assert_eq!(cluster.rows().await, json!(10));
    no_sessions_left(&cluster.pg).await;
}

/// The words of a job definition of AWS Batch, its parameters in their places.
fn batch_words(definition: &Value, more: &[(&str, &str)]) -> Vec<String> {
    let parameters = definition["parameters"].as_object().unwrap();
    let value = |name: &str| {
        let given = more.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        given.unwrap_or_else(|| parameters[name].as_str().unwrap().to_owned())
    };
    let place = |word: String| word.strip_prefix("Ref::").map_or_else(|| word.clone(), value);
    words(&definition["containerProperties"]["command"]).into_iter().map(place).collect()
}

/// Whether AWS Batch tries again after a code: the first rule that fits decides.
fn tries_again(definition: &Value, code: u64) -> bool {
    let rules = definition["retryStrategy"]["evaluateOnExit"].as_array().unwrap();
    assert!(rules.len() <= 5, "AWS Batch takes five rules");
    let fits = |rule: &&Value| {
        rule["onReason"] == "*"
            || rule["onExitCode"].as_str().is_some_and(|pattern| match pattern.strip_suffix('*') {
                Some(start) => code.to_string().starts_with(start),
                None => code.to_string() == pattern,
            })
    };
    rules.iter().find(fits).is_none_or(|rule| rule["action"] == "RETRY")
}

const BATCH_INPUTS: &str = r#"
import json, sys
import botocore.session
from botocore.validate import ParamValidator
asked = json.loads(sys.argv[1])
model = botocore.session.get_session().get_service_model("batch")
for operation, value in asked:
    shape = model.operation_model(operation).input_shape
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        print(operation, report.generate_report())
"#;

async fn batch_inputs(asked: Value) -> Run {
    let python = variable("OUTHAUL_TEST_PYTHON");
    program(&python, ["-c", BATCH_INPUTS, &asked.to_string()]).run().await.expect(0)
}

#[tokio::test]
async fn aws_batch_takes_the_definitions_and_their_commands_work_together() {
    let file: Value = serde_json::from_str(&text("batch-job.json")).unwrap();
    let (run, worker) = (&file["run"], &file["worker"]);
    let (definition, submission) = ("RegisterJobDefinition", "SubmitJob");
    let asked = json!([
        [definition, run],
        [definition, worker],
        [submission, file["submit"]["run"]],
        [submission, file["submit"]["workers"]],
    ]);
    let said = batch_inputs(asked).await;
    assert!(said.stdout.is_empty(), "{}", said.stdout.escape_ascii());
    let mut wrong = worker.clone();
    wrong["retryStrategy"]["attempts"] = json!("ten");
    wrong["containerProperties"]["comand"] = json!([]);
    let said = batch_inputs(json!([[definition, wrong]])).await;
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("attempts") && said.contains("comand"), "{said}");
    // An array's size is how many shares there are.
    let size = file["submit"]["workers"]["arrayProperties"]["size"].to_string();
    assert_eq!(worker["parameters"]["shards"], json!(size));
    let again = |definition: &Value| (1..=143).filter(|code| tries_again(definition, *code)).collect::<Vec<u64>>();
    assert_eq!((again(run), again(worker)), (vec![11, 12, 21, 22], vec![11, 21, 22]));

    let cluster = Cluster::new().await;
    let dest = cluster.dest();
    let started = cluster.started(&batch_words(run, &[("destination", &dest)]), None);
    let words = batch_words(worker, &[("destination", &dest)]);
    let pods: Vec<Running> =
        (0..8).map(|index| cluster.started(&words, Some(("AWS_BATCH_JOB_ARRAY_INDEX", index)))).collect();
    let mut read = Vec::new();
    for pod in pods {
        read.extend(told(&pod.wait().await.expect(0)).0);
    }
    let done = started.wait().await.expect(0);
    assert_eq!((&done.report["rows"], read.len()), (&json!(ROWS), read.iter().collect::<BTreeSet<_>>().len()));
    assert_eq!(cluster.rows().await, json!(ROWS));
    no_sessions_left(&cluster.pg).await;
}
