//! Retries: a reader or a keeper that is lost costs an attempt and nothing else (rows A1-A3 and A11 of the fault matrix).

use std::time::Duration;

use crate::support::eventually;
use crate::support::job::{no_sessions_left, rows};
use crate::support::night::Night;
use crate::support::pg::{both, connect, pg};
use crate::support::place::Place;
use crate::support::run::Stop;
use crate::support::tcp_proxy::TcpProxy;

/// Some megabytes, so that a reader is still at it when it is met.
const TABLE: &str = "create table t as select i as id, repeat(md5(i::text), 20) as v from generate_series(1, 20000) i;
    alter table t set (autovacuum_enabled = off); analyze t";

/// What the snapshot must not see.
const LATER: &str = "delete from t where id % 3 = 0; insert into t values (30000, 'later')";

#[tokio::test]
async fn a1_a_reader_that_is_killed_is_replaced_under_the_same_snapshot() {
    for version in both() {
        // Before its first row, in the middle, after its last row, after its receipt.
        for at in ["reading", "batch", "finished", "receipted"] {
            for place in Place::both() {
                let pg = pg(version).await;
                pg.batch(TABLE).await;
                let expected = rows(&pg).await;
                let stop = Stop::at(at);
                let running = place.export(&pg.url, &["--readers", "2", "-v"]).stops([&stop]).spawn();
                running.stands_at(&stop).await;
                pg.batch(LATER).await;
                for reader in pg.exporter_pids("reader").await {
                    pg.terminate(&reader).await;
                }
                stop.release();
                let run = running.wait().await.expect(0);
                assert_eq!(place.whole().await, expected, "{at}: {}", run.stderr);
                if at == "batch" {
                    assert!(run.stderr.contains("repeated under the same snapshot"), "{}", run.stderr);
                }
            }
        }
    }
}

#[tokio::test]
async fn a1_a_reader_that_is_killed_again_and_again_ends_the_run_in_the_end() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let place = Place::local();
    let args = ["--readers", "2", "--column", "slow=case when pg_sleep(0.01) is null then 1 end"];
    let running = place.export(&pg.url, &args).spawn();
    let killing = tokio::spawn({
        let client = pg.connect().await;
        async move {
            loop {
                let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name like 'outhaul/%/reader'";
                client.batch_execute(kill).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let run = running.wait().await.expect(11);
    killing.abort();
    assert!(run.stderr.contains("(attempt 5, the last)"), "{}", run.stderr);
    assert!(place.is_empty().await, "{:?}", place.list().await);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn a3_readers_that_have_the_snapshot_finish_without_keepers() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let (place, expected) = (Place::local(), rows(&pg).await);
        let stop = Stop::at("batch");
        let running = place.export(&pg.url, &["--readers", "2"]).stops([&stop]).spawn();
        running.stands_at(&stop).await;
        eventually(Duration::from_secs(10), "two readers", async || {
            (pg.exporter_pids("reader").await.len() == 2).then_some(())
        })
        .await;
        pg.batch(LATER).await;
        for keeper in pg.exporter_pids("keeper").await {
            pg.terminate(&keeper).await;
        }
        stop.release();
        running.wait().await.expect(0);
        assert_eq!(place.whole().await, expected);
    }
}

#[tokio::test]
async fn a3_a_keeper_that_was_lent_is_replaced_once_there_are_connections() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let expected = rows(&pg).await;
        // A lock session, two keepers and one reader; the other reader is a keeper.
        let (url, role) = pg.role("connection limit 4").await;
        pg.batch(&format!("grant select on t to {role}")).await;
        let place = Place::local();
        let stop = Stop::at("batch");
        let running = place.export(&url, &["--readers", "2"]).env("OUTHAUL_TEST_LIMITS", "keeper=0.2").stops([&stop]);
        let running = running.spawn();
        running.stands_at(&stop).await;
        running.stderr_has("a keeper of the snapshot reads").await;
        let lent = pg.exporter_pids("keeper").await;
        assert_eq!(lent.len(), 2);
        pg.batch(&format!("alter role {role} connection limit -1")).await;
        eventually(Duration::from_secs(10), "a new keeper", async || {
            (pg.exporter_pids("keeper").await.len() == 3).then_some(())
        })
        .await;
        pg.batch(LATER).await;
        for keeper in lent {
            pg.terminate(&keeper).await;
        }
        stop.release();
        let run = running.wait().await.expect(0);
        assert_eq!(place.whole().await, expected, "{}", run.stderr);
    }
}

#[tokio::test]
async fn a11_a_server_without_connections_gets_fewer_readers() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        // A lock session, two keepers and two readers.
        let (url, role) = pg.role("connection limit 5").await;
        pg.batch(&format!("grant select on t to {role}")).await;
        let place = Place::local();
        let run = place.export(&url, &["--readers", "16", "--partitions", "32"]).run().await.expect(0);
        assert!(run.stderr.contains("going on with fewer readers"), "{}", run.stderr);
        assert_eq!(place.whole().await, rows(&pg).await);
        // Not even the sessions that hold the snapshot.
        pg.batch(&format!("alter role {role} connection limit 1")).await;
        let place = Place::local();
        let run = place.export(&url, &["--readers", "2"]).run().await.expect(16);
        assert!(run.stderr.contains("no connection left"), "{}", run.stderr);
        assert!(place.is_empty().await);
    }
}

#[tokio::test]
async fn a15_another_server_behind_the_same_name_is_never_read() {
    let (ours, other) = (pg(18).await, pg(15).await);
    ours.batch(TABLE).await;
    // The same database, as a standby that was promoted has it, with other rows.
    let name = ours.value("select current_database()").await;
    other.batch(&format!("create database {name}")).await;
    let place = Place::local();
    let (proxy, url) = TcpProxy::before(&ours.url).await;
    let stop = Stop::at("planned");
    let running = place.export(&url, &["--readers", "2"]).stops([&stop]).spawn();
    running.stands_at(&stop).await;
    proxy.turn_to(&other.url);
    stop.release();
    let run = running.wait().await.expect(12);
    assert!(run.stderr.contains("snapshot") || run.stderr.contains("another server"), "{}", run.stderr);
    assert!(place.is_empty().await);
    other.batch(&format!("drop database {name} with (force)")).await;
}

#[tokio::test]
async fn a15_locks_on_another_server_than_the_snapshots_are_none() {
    let (ours, other) = (pg(18).await, pg(15).await);
    let name = ours.value("select current_database()").await;
    other.batch(&format!("create database {name}")).await;
    let (server, _) = other.url.rsplit_once('/').unwrap();
    let others = connect(&format!("{server}/{name}")).await;
    for client in [&ours.connect().await, &others] {
        client.batch_execute("create table t as select i as id from generate_series(1, 10) i").await.unwrap();
    }
    // The oids of the table differ, as a standby's would not; of a query none are compared.
    for readers in ["1", "2"] {
        let (proxy, url) = TcpProxy::before(&ours.url).await;
        proxy.turn_after_next(&other.url);
        let place = Place::local();
        let run = place.export(&url, &["--query", "select * from t", "--readers", readers]).run().await.expect(12);
        assert!(run.stderr.contains("another server"), "{}", run.stderr);
        assert!(place.is_empty().await);
    }
    let (proxy, url) = TcpProxy::before(&ours.url).await;
    proxy.turn_after_next(&other.url);
    let one = |name: &str| format!("[[export]]\nquery = 'select * from t'\nname = '{name}'\nto = 'ROOT/{name}'\n");
    let night = Night::new(&[one("a"), one("b")].concat());
    let run = night.run_at(&url, &[]).run().await.expect(12);
    assert!(run.stderr.contains("another server") && night.committed().is_empty(), "{}", run.stderr);
    drop(others);
    other.batch(&format!("drop database {name} with (force)")).await;
}
