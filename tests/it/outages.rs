//! Servers that restart, standbys that replay, poolers in between (matrix rows A4, A7, A12): the snapshot is kept, or the
//! run says that it is lost and publishes nothing.

use std::time::Duration;

use crate::support::cluster::{Cluster, Pooler, kill};
use crate::support::job::nothing_is_left;
use crate::support::pg::{both, pg, rows};
use crate::support::run::{Outhaul, Running, Stop, outhaul};
use crate::support::s3::s3;
use crate::support::{eventually, oracle};

const TABLE: &str = "create table t as select i as id, i::text as v from generate_series(1, 5000) i";

/// Every row takes the server 2 ms.
const SLOW: [&str; 2] = ["--column", "slow=case when pg_sleep(0.002) is null then 1 end"];

fn export(url: &str, dest: &str, source: &[&str]) -> Outhaul {
    let mut arguments = vec!["export", "--from", url, "--to", dest, "--format", "csv", "--readers", "2"];
    arguments.extend(["--report", "json", "--progress", "none", "--table", "t"]);
    arguments.extend(source);
    outhaul(arguments)
}

async fn reader(cluster: &Cluster) -> String {
    let client = cluster.connect().await;
    eventually(Duration::from_secs(20), "a reader at work", async || {
        // The first reader comes while the relation is still being described.
        let busy = "select pid from pg_stat_activity where state = 'active' and query like 'COPY%'
            and application_name like 'outhaul/%/reader'";
        rows(&client, busy).await.first().and_then(|row| row[0].clone())
    })
    .await
}

/// What ends a server's sessions.
enum Outage {
    /// A shutdown by a signal, and a new start.
    Restart(&'static str),
    /// One server process dies, and the server ends the others (`restart_after_crash`).
    Crash,
}

/// A4: a snapshot does not survive its server.
#[tokio::test]
async fn a_restart_loses_the_snapshot_and_leaves_no_upload() {
    for version in both() {
        let cluster = Cluster::start(version, &["restart_after_crash=on"]).await;
        cluster.batch(TABLE).await;
        for outage in [Outage::Restart("INT"), Outage::Restart("QUIT"), Outage::Crash] {
            let (s3, planned) = (s3(), Stop::at("planned"));
            let run = export(&cluster.url, &s3.url("dest/"), &SLOW).envs(s3.env()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            suffer(&cluster, &outage).await;
            planned.release();
            lost(run).await;
            assert_eq!(s3.open_uploads().await, [""; 0]);

            let run = export(&cluster.url, &s3.url("other/"), &SLOW).envs(s3.env()).spawn();
            reader(&cluster).await;
            suffer(&cluster, &outage).await;
            lost(run).await;
            assert_eq!(s3.open_uploads().await, [""; 0]);
            let visible: Vec<String> =
                s3.list("").await.into_keys().filter(|path| !path.contains("_outhaul")).collect();
            assert_eq!(visible, [""; 0]);
        }
    }
}

async fn suffer(cluster: &Cluster, outage: &Outage) {
    match outage {
        Outage::Restart(signal) => cluster.restart(signal).await,
        Outage::Crash => {
            let client = cluster.connect().await;
            let victim = "select pid from pg_stat_activity where application_name like 'outhaul/%' limit 1";
            let pid = rows(&client, victim).await[0][0].clone().unwrap();
            kill("KILL", &pid).await;
            eventually(Duration::from_secs(20), "the crash", async || client.is_closed().then_some(())).await;
            eventually(Duration::from_secs(20), "the server's recovery", async || {
                let connected = tokio_postgres::connect(&cluster.url, tokio_postgres::NoTls).await;
                connected.ok().map(drop)
            })
            .await;
        }
    }
}

async fn lost(run: Running) {
    let run = run.wait().await.expect(12);
    assert!(run.stderr.contains("snapshot"), "{}", run.stderr);
    assert_eq!(run.report["retryable"], true);
}

/// Waits until what happens on the primary happens on the standby.
async fn streams(primary: &Cluster, standby: &Cluster) {
    let marker = format!("marker_{}", crate::support::unique());
    primary.batch(&format!("create table {marker} ()")).await;
    let client = standby.connect().await;
    eventually(Duration::from_secs(20), "the standby", async || {
        let there = format!("select count(*) from pg_class where relname = '{marker}'");
        (rows(&client, &there).await[0][0].as_deref() == Some("1")).then_some(())
    })
    .await;
}

const STREAMS: [&str; 2] = ["wal_level=replica", "max_wal_senders=4"];

/// A7: replay on a standby removes rows that the snapshot sees, while a reader reads them, and while only keepers hold it.
#[tokio::test]
async fn a_standby_that_replays_what_the_snapshot_sees_loses_it() {
    for version in both() {
        let primary = Cluster::start(version, &[&STREAMS[..], &["autovacuum=off"]].concat()).await;
        primary.batch(TABLE).await;
        let standby = primary.standby(&[&STREAMS[..], &["max_standby_streaming_delay=500ms"]].concat()).await;
        streams(&primary, &standby).await;
        for keeper in [false, true] {
            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let run = export(&standby.url, dest.path().to_str().unwrap(), &SLOW);
            let run = if keeper { run.stops([&planned]).spawn() } else { run.spawn() };
            if keeper {
                run.stands_at(&planned).await;
            } else {
                reader(&standby).await;
            }
            let client = standby.connect().await;
            eventually(Duration::from_secs(20), "the end of the keepers", async || {
                primary.batch("update t set v = 'new' where id % 7 = 0").await;
                primary.batch("vacuum t").await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                let left = "select count(*) from pg_stat_activity where application_name like 'outhaul/%/keeper'";
                (rows(&client, left).await[0][0].as_deref() == Some("0")).then_some(())
            })
            .await;
            if keeper {
                planned.release();
            }
            let run = run.wait().await.expect(12);
            for name in ["hot_standby_feedback", "max_standby_streaming_delay"] {
                let told = run.stderr.split("hint:").nth(1).unwrap_or_default();
                assert!(told.contains(name), "{keeper}: {}", run.stderr);
            }
            assert!(run.stderr.contains("standby without hot_standby_feedback"), "no warning: {}", run.stderr);
            nothing_is_left(dest.path());
        }
        // A standby that waits for the export warns of nothing and ends well.
        let patient = primary.standby(&[&STREAMS[..], &["max_standby_streaming_delay=-1"]].concat()).await;
        streams(&primary, &patient).await;
        let dest = tempfile::tempdir().unwrap();
        let run = export(&patient.url, dest.path().to_str().unwrap(), &[]).run().await.expect(0);
        assert_eq!((run.report["rows"].as_u64(), run.stderr.contains("standby without")), (Some(5000), false));
        // Replay that stands still is a standby that falls behind.
        patient.connect().await.batch_execute("select pg_wal_replay_pause()").await.unwrap();
        primary.batch("update t set v = 'newer'").await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let dest = tempfile::tempdir().unwrap();
        let limited = [&["--max-replay-lag", "1s"][..], &SLOW].concat();
        let run = export(&patient.url, dest.path().to_str().unwrap(), &limited).run().await.expect(16);
        assert!(run.stderr.contains("--max-replay-lag"), "{}", run.stderr);
    }
}

/// A12: a pooler that gives out connections by transaction serves an export, one by statement cannot.
#[tokio::test]
async fn a_pooler_by_transaction_works_and_one_by_statement_is_told_apart() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(&format!("{TABLE}; alter table t add primary key (id)")).await;
        let expected = oracle::query(&pg, "select * from t").await;
        let pooler = Pooler::start("transaction", &pg.url).await;
        for source in
            [&["--partitions", "4"][..], &["--key", "id"], &["--max-rows", "5000"], &["--read-mode", "keyset"]]
        {
            let dest = tempfile::tempdir().unwrap();
            export(&pooler.url, dest.path().to_str().unwrap(), source).run().await.expect(0);
            assert_eq!(oracle::local(dest.path(), &[]).await, expected, "{source:?}");
        }
        let pooler = Pooler::start("statement", &pg.url).await;
        for source in [&[][..], &["--read-mode", "keyset"]] {
            let dest = tempfile::tempdir().unwrap();
            let run = export(&pooler.url, dest.path().to_str().unwrap(), source).run().await.expect(2);
            assert!(run.stderr.contains("pool_mode of transaction or session"), "{}", run.stderr);
            nothing_is_left(dest.path());
        }
    }
}
