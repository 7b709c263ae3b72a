//! `outhaul run` where each export has its own snapshot.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::http_proxy::{Op, Proxy, Seen};
use crate::support::job::no_sessions_left;
use crate::support::manifest;
use crate::support::night::{Night, THREE, three};
use crate::support::pg::pg;
use crate::support::run::{Stop, outhaul};
use crate::support::s3::s3;

/// Requests to an object store that each further export of a job may take. Two of them list what stands among the parts: before
/// the first read and before the commit.
const REQUESTS_MOST: usize = 38;

/// The snapshots that the manifests of some tables name.
fn snapshots(night: &Night, tables: &[&str]) -> BTreeSet<String> {
    let id = |table: &&str| manifest(&night.out(table))["consistency"]["snapshots"][0]["id"].to_string();
    tables.iter().map(id).collect()
}

#[tokio::test]
async fn each_export_may_have_its_own_snapshot() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let night = Night::new(&format!("snapshot = 'export'\n{}", three("readers = 2").text()));
    let batch = Stop::at("batch");
    let running = night.run(&pg, &[]).stops([&batch]).spawn();
    running.stands_at(&batch).await;
    // A lock session, two keepers and the readers, of no more than two exports at a time.
    let sessions = "select count(*) from pg_stat_activity where application_name like 'outhaul/%' and datname = current_database()";
    let open: usize = pg.sql(sessions).await[0][0].as_ref().unwrap().parse().unwrap();
    assert!(open <= 2 * (2 + 3), "{open}");
    // Whoever has not begun reads what is there then.
    batch.release();
    let run = running.wait().await.expect(0);
    assert_eq!(snapshots(&night, &["a", "b", "c"]).len(), 3);
    assert_eq!(
        (&run.report["one_instant"], &night.record()["one_instant"]),
        (&Value::Bool(false), &Value::Bool(false))
    );
    let rows: Vec<_> =
        ["a", "b", "c"].iter().map(|table| manifest(&night.out(table))["totals"]["rows"].as_u64()).collect();
    assert_eq!(rows, [Some(2000), Some(2000), Some(3)]);
    no_sessions_left(&pg).await;
    let dry = three("readers = 2");
    let dry = Night::new(&format!("snapshot = 'export'\n{}", dry.text()));
    let run = dry.run(&pg, &["--dry-run"]).run().await.expect(0);
    assert_eq!(run.report["exports"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn with_snapshots_of_their_own_exports_fail_alone_and_keyset_has_none() {
    let pg = pg(18).await;
    pg.batch(THREE).await;
    let gone = "[[export]]\ntable = 'gone'\nto = 'ROOT/gone'\n";
    let night = Night::new(&format!("snapshot = 'export'\n{}{gone}", three("").text()));
    let run = night.run(&pg, &[]).run().await.expect(13);
    assert_eq!((night.committed().len(), run.report["errors"].as_array().unwrap().len()), (3, 1), "{}", run.stderr);
    let stop = Night::new(&format!("snapshot = 'export'\non_error = 'stop'\n{}{gone}", three("").text()));
    stop.run(&pg, &[]).run().await.expect(13);
    assert!(stop.committed().is_empty());
    let all = Night::new(&format!("snapshot = 'export'\non_error = 'stop'\n{}", three("readers = 1").text()));
    all.run(&pg, &[]).run().await.expect(0);
    assert_eq!(all.committed().len(), 3);
    pg.batch("alter table a add primary key (id); alter table c add primary key (id)").await;
    let keyset = Night::new(&format!("snapshot = 'export'\n{}", three("read_mode = 'keyset'").text()));
    keyset.run(&pg, &["--only", "a,c"]).run().await.expect(0);
    assert_eq!(manifest(&keyset.out("a"))["consistency"]["mode"], "keyset");
    three("read_mode = 'keyset'").run(&pg, &["--only", "a,c"]).run().await.expect(2);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn a_job_file_says_what_is_read_under_one_snapshot() {
    let schema = outhaul(["run", "--schema"]).run().await.expect(0);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["properties"]["snapshot"]["enum"], serde_json::json!(["run", "export"]));
}

/// The requests to a store of a job of so many tables, in their order.
async fn requests(pg: &crate::support::pg::Pg, only: &str) -> Vec<Seen> {
    let s3 = s3();
    let proxy = Proxy::start(&s3.endpoint, []).await;
    let night = Night::new(&format!(
        "[defaults]\nreaders = 2\nto = '{}/{{table}}'\n[[export]]\ntable = 'public.*'\n",
        s3.url("many")
    ));
    let mut run = night.run(pg, &["--only", only]);
    for (name, value) in s3.env() {
        run = run.env(name, value);
    }
    run.env("AWS_ENDPOINT", &proxy.endpoint).run().await.expect(0);
    proxy.all()
}

/// A store that is 20 ms away takes two hundred tables in 40 s: by how many requests each takes, and how many commit at the
/// same time.
#[tokio::test]
async fn each_further_export_takes_few_requests_and_commits_overlap() {
    const MORE: usize = 11;
    let pg = pg(15).await;
    let tables = (0..=MORE).map(|n| format!("create table t{n:02} as select 1 as id;"));
    pg.batch(&format!("{} analyze", tables.collect::<String>())).await;
    let one = requests(&pg, "public.t00").await.len();
    let all = requests(&pg, "public.*").await;
    let each = (all.len() - one) / MORE;
    println!("{one} requests, and {each} for each further export");
    assert!(each <= REQUESTS_MOST, "{one} for one, {} for {} more", all.len(), MORE);
    // From the parts that become visible to the last word of all.
    let span = |table: &str| {
        let of_it = |seen: &&Seen| seen.target.contains(&format!("/public.{table}/"));
        let place = |op, name: &str| {
            all.iter().position(|seen| of_it(&seen) && seen.op == op && seen.target.contains(name)).unwrap()
        };
        place(Op::Complete, "/data/")..place(Op::Put, "/_SUCCESS")
    };
    let spans: Vec<_> = (0..=MORE).map(|n| span(&format!("t{n:02}"))).collect();
    let at_once = |at: usize| spans.iter().filter(|span| span.contains(&at)).count();
    let most = (0..all.len()).map(at_once).max().unwrap();
    assert!(most >= 3, "commits wait for each other: {spans:?}");
}

/// How often a job of the first tables waits for the disk.
async fn waits_for_the_disk(pg: &crate::support::pg::Pg, only: &str) -> usize {
    let night = three("readers = 1");
    let counted = night.folder.path().join("counted");
    let count = format!("fsync={}", counted.display());
    night.run(pg, &["--only", only]).env("OUTHAUL_TEST_COUNT", &count).run().await.expect(0);
    std::fs::read_to_string(counted).unwrap().lines().count()
}

#[tokio::test]
async fn each_further_export_waits_ten_times_for_the_disk() {
    let pg = pg(15).await;
    pg.batch(THREE).await;
    let (one, three) = (waits_for_the_disk(&pg, "c").await, waits_for_the_disk(&pg, "a,b,c").await);
    // The part, the record of the commit, the part's new name, the manifest, `_SUCCESS` and the owner.
    assert!(three - one <= 2 * 10 && one >= 8, "{one} for one, {three} for three");
}
