//! No hangs (matrix rows A8 to A10): a connection that lost its bytes is found out, a server that works is left alone, and
//! a slow destination is nobody's silence.

use std::time::{Duration, Instant};

use crate::support::pg::{Pg, both, pg};
use crate::support::run::{Outhaul, Stop, outhaul};
use crate::support::tcp_proxy::{Fate, TcpProxy};
use crate::support::{oracle, within};

/// About 24 MB, more than the sockets between a server and its reader hold.
const LARGE: &str = "create table t as select i as id, repeat(md5(i::text), 20) as v from generate_series(1, 36000) i;
    analyze t";

/// Limits short enough for a test: silence after a second, believed when seen again.
const IMPATIENT: (&str, &str) = ("OUTHAUL_TEST_LIMITS", "silence=1,recheck=0.3,inquiry=2");

fn export(url: &str, dest: &str, source: &[&str]) -> Outhaul {
    let mut arguments = vec!["export", "--from", url, "--to", dest, "--format", "csv", "--progress", "none"];
    arguments.extend(["--report", "json", "--table", "t"]);
    arguments.extend(source);
    outhaul(arguments).env(IMPATIENT.0, IMPATIENT.1)
}

/// A run whose readers connect by way of the proxy once it stands still.
async fn planned(
    pg: &Pg,
    source: &[&str],
    off: &str,
) -> (TcpProxy, crate::support::run::Running, Stop, tempfile::TempDir) {
    let (proxy, url) = TcpProxy::before(&pg.url).await;
    let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
    let run = export(&url, dest.path().to_str().unwrap(), source).stops([&planned]).env("OUTHAUL_TEST_OFF", off);
    let run = run.spawn();
    run.stands_at(&planned).await;
    (proxy, run, planned, dest)
}

const TWO: [&str; 4] = ["--readers", "2", "--partitions", "4"];

/// A8: the network takes a reader's bytes and tells nobody. Its partition is read again by another connection.
#[tokio::test]
async fn a_reader_whose_bytes_do_not_arrive_is_given_up_within_the_deadline() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(LARGE).await;
        let expected = oracle::query(&pg, "select * from t").await;
        // One partition, which is more than the sockets hold.
        let (proxy, run, planned, dest) = planned(&pg, &["--readers", "2", "--partitions", "1"], "").await;
        proxy.after(1 << 20, 1, Fate::Hold);
        let began = Instant::now();
        planned.release();
        let run = run.wait().await.expect(0);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!(run.stderr.contains("no bytes for 1 s, and the server waits for us"), "{}", run.stderr);
        assert!(run.stderr.contains("partition "), "{}", run.stderr);
        assert_eq!(oracle::local(dest.path(), &[]).await, expected);
    }
}

#[tokio::test]
async fn a_network_that_takes_the_bytes_of_every_reader_ends_the_run() {
    let pg = pg(18).await;
    pg.batch(LARGE).await;
    let (proxy, run, planned, _dest) = planned(&pg, &TWO, "").await;
    proxy.after(1 << 20, usize::MAX, Fate::Hold);
    planned.release();
    let run = run.wait().await.expect(11);
    assert!(run.stderr.contains("no bytes for 1 s, and the server"), "{}", run.stderr);
    assert_eq!(run.report["retryable"], true);
}

/// The same with the last bytes: the server has sent them all, and waits for the next statement.
#[tokio::test]
async fn a_reader_whose_last_bytes_do_not_arrive_is_given_up() {
    let pg = pg(18).await;
    pg.batch(LARGE).await;
    let (proxy, run, planned, _dest) = planned(&pg, &["--readers", "2", "--where", "id <= 3000"], "").await;
    proxy.after(1 << 19, 1, Fate::Hold);
    planned.release();
    let run = run.wait().await.expect(0);
    assert_eq!(run.report["rows"], 3000);
    assert!(run.stderr.contains("the server has nothing more to send"), "{}", run.stderr);
}

#[tokio::test]
async fn without_the_deadline_the_same_run_hangs() {
    let pg = pg(18).await;
    pg.batch(LARGE).await;
    let (proxy, run, planned, _dest) = planned(&pg, &TWO, "silence").await;
    proxy.after(1 << 20, 1, Fate::Hold);
    planned.release();
    let waited = tokio::time::timeout(Duration::from_secs(6), run.wait()).await;
    assert!(waited.is_err(), "it ended: {waited:?}");
}

/// Nothing arrives any more, from any session: the question is not answered either.
#[tokio::test]
async fn a_server_that_cannot_be_asked_is_lost() {
    let pg = pg(18).await;
    pg.batch(LARGE).await;
    let (proxy, run, planned, _dest) = planned(&pg, &["--readers", "1"], "").await;
    proxy.after(8 << 20, 1, Fate::Hold);
    planned.release();
    tokio::time::sleep(Duration::from_millis(700)).await;
    proxy.all(Fate::Hold);
    let began = Instant::now();
    // The snapshot was the only reader's own.
    let run = run.wait().await.expect(12);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(run.stderr.contains("no bytes for 1 s, and nor does the server answer"), "{}", run.stderr);
}

/// Sorts, filters and sleeps send nothing for hours, and are no fault.
#[tokio::test]
async fn a_server_that_works_in_silence_is_left_alone() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create table t as select i as id from generate_series(1, 10) i; analyze t").await;
        for readers in ["1", "2"] {
            let dest = tempfile::tempdir().unwrap();
            let slow = ["--readers", readers, "--where", "id < 10 or pg_sleep(3) is not null"];
            let run = export(&pg.url, dest.path().to_str().unwrap(), &slow).run().await.expect(0);
            assert_eq!(run.report["rows"], 10);
        }
    }
}

/// A9: a connection that ends in the middle is noticed at once, and its partition read again.
#[tokio::test]
async fn a_reset_and_a_close_cost_an_attempt() {
    for fate in [Fate::Reset, Fate::Close] {
        let pg = pg(18).await;
        pg.batch(LARGE).await;
        let expected = oracle::query(&pg, "select * from t").await;
        let (proxy, run, planned, dest) = planned(&pg, &TWO, "").await;
        proxy.after(1 << 20, 1, fate);
        planned.release();
        let run = run.wait().await.expect(0);
        assert!(run.stderr.contains("partition "), "{fate:?}: {}", run.stderr);
        assert!(!run.stderr.contains("no bytes"), "{fate:?}: {}", run.stderr);
        assert_eq!(oracle::local(dest.path(), &[]).await, expected);
    }
}

/// A10: the destination takes nothing for several times the deadline, and the server's own limits are short.
#[tokio::test]
async fn a_destination_that_stalls_is_not_the_source_s_silence() {
    use tokio::io::AsyncReadExt;
    for version in both() {
        let pg = pg(version).await;
        pg.batch(LARGE).await;
        let (url, role) = pg.role("").await;
        pg.batch(&format!(
            "grant select on t to {role}; alter role {role} set statement_timeout = '1s';
             alter role {role} set idle_in_transaction_session_timeout = '1s'; alter role {role} set tcp_user_timeout = '1s'"
        ))
        .await;
        let expected = oracle::query(&pg, "select * from t").await;
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_outhaul"))
            .args(["export", "--from", &url, "--to", "-", "--format", "csv", "--table", "t", "--progress", "none"])
            .env(IMPATIENT.0, IMPATIENT.1)
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let mut text = Vec::new();
        within(Duration::from_secs(30), "reading on", stdout.read_to_end(&mut text)).await.unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
        assert_eq!(String::from_utf8(text).unwrap().lines().count() as u64, expected.rows + 1);
    }
}

/// Ten rows, and a search for the sixth of them that takes four seconds.
const TEN: &str = "create table t as select i as id from generate_series(1, 10) i;
    alter table t add primary key (id); analyze t";

const SEARCH: [&str; 6] = ["--max-rows", "5", "--yield-to-ddl", "off", "--where", "id <> 6 or pg_sleep(4) is not null"];

/// A run that searches for where its cap ends, by way of the proxy.
async fn searching(pg: &Pg, dest: &tempfile::TempDir, off: &str) -> (TcpProxy, crate::support::run::Running) {
    let (proxy, url) = TcpProxy::before(&pg.url).await;
    let run = export(&url, dest.path().to_str().unwrap(), &SEARCH)
        .env(IMPATIENT.0, "silence=6,recheck=0.3,inquiry=2")
        .env("OUTHAUL_TEST_OFF", off)
        .spawn();
    crate::support::eventually(Duration::from_secs(20), "the search", async || {
        let busy = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'
            and application_name like 'outhaul/%' and wait_event = 'PgSleep'";
        (pg.value(busy).await != "0").then_some(())
    })
    .await;
    (proxy, run)
}

/// A8, before the first read: planning is as patient as readers are, and no more.
#[tokio::test]
async fn a_search_of_planning_may_take_long_and_its_answer_may_not_be_lost() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TEN).await;
        let dest = tempfile::tempdir().unwrap();
        // The limits of this one are shorter than the search.
        let run = export(&pg.url, dest.path().to_str().unwrap(), &SEARCH).run().await.expect(3);
        assert_eq!(run.report["rows"], 5);

        for (lost, why) in [("answer", "the server has nothing more to send"), ("all", "nor does the server answer")] {
            let dest = tempfile::tempdir().unwrap();
            let (proxy, run) = searching(&pg, &dest, "").await;
            match lost {
                "answer" => proxy.after(1, 1, Fate::Hold),
                _ => proxy.all(Fate::Hold),
            }
            let began = Instant::now();
            let run = run.wait().await.expect(11);
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            assert!(run.stderr.contains("no bytes for 6 s") && run.stderr.contains(why), "{}", run.stderr);
            assert_eq!(run.report["retryable"], true);
            crate::support::job::nothing_is_left(dest.path());
        }
    }
}

#[tokio::test]
async fn without_the_deadline_planning_hangs() {
    let pg = pg(18).await;
    pg.batch(TEN).await;
    let dest = tempfile::tempdir().unwrap();
    let (proxy, run) = searching(&pg, &dest, "silence").await;
    proxy.after(1, 1, Fate::Hold);
    let waited = tokio::time::timeout(Duration::from_secs(12), run.wait()).await;
    assert!(waited.is_err(), "it ended: {waited:?}");
}
