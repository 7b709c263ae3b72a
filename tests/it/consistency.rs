//! One snapshot (I5): what others do to a relation while it is exported never makes an export short, and a run that loses
//! its sessions or finds a lock in its way says so.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::support::job::{no_sessions_left, nothing_is_left};
use crate::support::pg::{Pg, both, pg, rows};
use crate::support::run::{Outhaul, Stop, outhaul};
use crate::support::{eventually, oracle};

/// Other people's DDL waits so long for its lock.
const IMPATIENT: &str = "set lock_timeout = '300ms'";

const TABLE: &str = "create table t as select i as id, i::text as v from generate_series(1, 5000) i; analyze t";

/// What somebody does between plan and read.
struct Change {
    setup: &'static str,
    /// What names the relation on the command line.
    source: &'static [&'static str],
    /// What the export must hold.
    contents: &'static str,
    ddl: &'static str,
}

fn export(pg: &Pg, source: &[&str], readers: &str, dest: &Path) -> Outhaul {
    export_from(&pg.url, source, readers, dest)
}

fn export_from(url: &str, source: &[&str], readers: &str, dest: &Path) -> Outhaul {
    let mut arguments = vec!["export", "--from", url, "--to", dest.to_str().unwrap(), "--format", "csv"];
    arguments.extend(["--readers", readers, "--report", "json", "--progress", "none"]);
    arguments.extend(source);
    outhaul(arguments).env("OUTHAUL_PARTITIONS", if source.contains(&"--query") { "1" } else { "4" })
}

/// With the locks the DDL gives up and the export is whole; without them it gets through and the export is short, with
/// exit 0: it is the locks that make the difference.
async fn locks_make_the_difference(change: &Change) {
    for version in both() {
        // One reader has no keepers: its own transaction is the snapshot.
        for readers in if change.ddl == "truncate t" { &["1", "2"][..] } else { &["2"] } {
            let pg = pg(version).await;
            pg.batch(change.setup).await;
            let expected = oracle::query(&pg, change.contents).await;

            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let run = export(&pg, change.source, readers, dest.path()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            let other = pg.connect().await;
            other.batch_execute(IMPATIENT).await.unwrap();
            let refused = other.batch_execute(change.ddl).await.unwrap_err();
            assert_eq!(refused.code().map(SqlState::code), Some("55P03"), "{refused:?}");
            planned.release();
            run.wait().await.expect(0);
            assert_eq!(oracle::local(dest.path(), &[]).await, expected, "{}", change.ddl);

            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let run = export(&pg, change.source, readers, dest.path()).stops([&planned]);
            let run = run.env("OUTHAUL_TEST_OFF", "locks").spawn();
            run.stands_at(&planned).await;
            other.batch_execute(change.ddl).await.unwrap();
            planned.release();
            let short = run.wait().await.expect(0);
            let rows = short.report["rows"].as_u64().unwrap();
            assert!(rows < expected.rows, "{}: {rows} rows without locks", change.ddl);
        }
    }
}

#[tokio::test]
async fn a_truncate_between_plan_and_read_waits_for_the_export() {
    let (source, contents) = (&["--table", "public.t"], "select * from t");
    locks_make_the_difference(&Change { setup: TABLE, source, contents, ddl: "truncate t" }).await;
}

#[tokio::test]
async fn a_rewriting_alter_between_plan_and_read_waits_for_the_export() {
    let (source, contents) = (&["--table", "public.t"], "select * from t");
    let ddl = "alter table t alter column id type bigint";
    locks_make_the_difference(&Change { setup: TABLE, source, contents, ddl }).await;
}

#[tokio::test]
async fn a_refresh_between_plan_and_read_waits_for_the_export() {
    let setup = "create table t as select i as id, i::text as v from generate_series(1, 5000) i;
        create materialized view m as select * from t";
    let (source, contents) = (&["--table", "m"], "select * from m");
    // A refresh freezes what it writes, so that older snapshots see the new rows in place of their own.
    let ddl = "delete from t where id > 10; refresh materialized view m";
    locks_make_the_difference(&Change { setup, source, contents, ddl }).await;
}

#[tokio::test]
async fn a_truncate_of_a_leaf_waits_for_the_export_of_its_parent() {
    let setup = "create table p (id int, v text) partition by range (id);
        create table p1 partition of p for values from (0) to (3000);
        create table p2 partition of p for values from (3000) to (9000);
        insert into p select i, i::text from generate_series(1, 5000) i; analyze p";
    let (source, contents) = (&["--table", "p"], "select * from p");
    locks_make_the_difference(&Change { setup, source, contents, ddl: "truncate p2" }).await;
}

#[tokio::test]
async fn a_truncate_of_a_child_waits_for_the_export_of_its_parent() {
    let setup = "create table p (id int, v text); create table c () inherits (p);
        insert into p select i, i::text from generate_series(1, 10) i;
        insert into c select i, i::text from generate_series(11, 5000) i; analyze p; analyze c";
    let (source, contents) = (&["--table", "p"], "select * from p");
    locks_make_the_difference(&Change { setup, source, contents, ddl: "truncate c" }).await;
}

#[tokio::test]
async fn a_truncate_below_a_view_waits_for_the_export_of_the_view() {
    let setup = "create table t as select i as id, i::text as v from generate_series(1, 5000) i;
        create view upper as select id, v from t; create view w as select * from upper";
    let (source, contents) = (&["--table", "w"], "select * from w");
    locks_make_the_difference(&Change { setup, source, contents, ddl: "truncate t" }).await;
}

#[tokio::test]
async fn a_truncate_of_what_the_predicate_reads_waits_for_the_export() {
    let setup = "create table t as select i as id, i::text as v from generate_series(1, 5000) i;
        create table wanted as select id from t where id % 2 = 0";
    let source = &["--table", "t", "--where", "id in (select id from wanted)"];
    let contents = "select * from t where id % 2 = 0";
    locks_make_the_difference(&Change { setup, source, contents, ddl: "truncate wanted" }).await;
}

/// Describing the query locks what it reads already, so that no run without locks can show the difference.
#[tokio::test]
async fn a_truncate_of_what_a_query_reads_waits_for_the_export() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let expected = oracle::query(&pg, "select * from t").await;
        let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
        let run = export(&pg, &["--query", "select * from t"], "2", dest.path()).stops([&planned]).spawn();
        run.stands_at(&planned).await;
        refused(&pg, "truncate t").await;
        planned.release();
        run.wait().await.expect(0);
        assert_eq!(oracle::local(dest.path(), &[]).await, expected);
    }
}

const PARTITIONED: &str = "create table p (id int, v text) partition by range (id);
    create table p1 partition of p for values from (0) to (3000);
    insert into p select i, i::text from generate_series(1, 2999) i; analyze p";

const ATTACH: &str = "create table p2 as select i as id, i::text as v from generate_series(3000, 5000) i;
    alter table p attach partition p2 for values from (3000) to (9000)";

#[tokio::test]
async fn a_leaf_attached_between_locks_and_snapshot_is_locked_too() {
    for version in both() {
        for (off, complete) in [("", true), ("locks", false)] {
            let pg = pg(version).await;
            pg.batch(PARTITIONED).await;
            let dest = tempfile::tempdir().unwrap();
            let (locked, planned) = (Stop::at("locked"), Stop::at("planned"));
            let run = export(&pg, &["--table", "p"], "2", dest.path()).stops([&locked, &planned]);
            let run = run.env("OUTHAUL_TEST_OFF", off).spawn();
            run.stands_at(&locked).await;
            pg.batch(ATTACH).await;
            locked.release();
            run.stands_at(&planned).await;
            let expected = oracle::query(&pg, "select * from p").await;
            if complete {
                refused(&pg, "truncate p2").await;
            } else {
                pg.batch("truncate p2").await;
            }
            planned.release();
            let run = run.wait().await.expect(0);
            if complete {
                assert_eq!(oracle::local(dest.path(), &[]).await, expected);
            } else {
                assert_eq!(run.report["rows"], 2999, "the rows of the new leaf are lost without its lock");
            }
        }
    }
}

#[tokio::test]
async fn a_leaf_attached_or_detached_after_the_snapshot_changes_nothing() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(PARTITIONED).await;
        let expected = oracle::query(&pg, "select * from p").await;
        let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
        let run = export(&pg, &["--table", "p"], "2", dest.path()).stops([&planned]).spawn();
        run.stands_at(&planned).await;
        pg.batch(ATTACH).await;
        refused(&pg, "alter table p detach partition p1").await;
        // It marks the leaf, and waits for all who might still read it through the parent.
        refused(&pg, "alter table p detach partition p1 concurrently").await;
        refused(&pg, "drop table p1").await;
        planned.release();
        run.wait().await.expect(0);
        assert_eq!(oracle::local(dest.path(), &[]).await, expected);
    }
}

/// The statement gives up waiting for a lock.
async fn refused(pg: &Pg, ddl: &str) {
    let other = pg.connect().await;
    other.batch_execute(IMPATIENT).await.unwrap();
    let refused = other.batch_execute(ddl).await.unwrap_err();
    assert_eq!(refused.code().map(SqlState::code), Some("55P03"), "{ddl}: {refused:?}");
}

const CHURN: &str = "update t set v = 'new' where id % 3 = 0; delete from t where id % 3 = 1; vacuum t;
    insert into t select i, 'later' from generate_series(5001, 9000) i";

#[tokio::test]
async fn writes_and_vacuums_between_plan_and_read_change_nothing() {
    for version in both() {
        for source in [&["--table", "t"][..], &["--table", "t", "--key", "id"], &["--query", "select * from t"]] {
            let pg = pg(version).await;
            pg.batch(TABLE).await;
            let expected = oracle::query(&pg, "select * from t").await;
            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let run = export(&pg, source, "2", dest.path()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            for statement in CHURN.split(';') {
                pg.batch(statement).await;
            }
            planned.release();
            run.wait().await.expect(0);
            assert_eq!(oracle::local(dest.path(), &[]).await, expected, "{source:?}");
        }
    }
}

#[tokio::test]
async fn a_keeper_that_dies_is_replaced_and_the_snapshot_lives() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let expected = oracle::query(&pg, "select * from t").await;
        let (dest, reading) = (tempfile::tempdir().unwrap(), Stop::at("reading"));
        let run = export(&pg, &["--table", "t", "--partitions", "2"], "2", dest.path());
        // Its guard watches the keepers while the readers have not connected yet.
        let run = run.stops([&reading]).spawn();
        run.stands_at(&reading).await;
        for statement in CHURN.split(';') {
            pg.batch(statement).await;
        }
        for _ in 0..2 {
            let keepers = pg.exporter_pids("keeper").await;
            assert_eq!(keepers.len(), 2);
            pg.terminate(&keepers[0]).await;
            eventually(Duration::from_secs(10), "a new second keeper", async || {
                let now = pg.exporter_pids("keeper").await;
                (now.len() == 2 && now[0] == keepers[1]).then_some(())
            })
            .await;
        }
        assert_eq!(pg.exporter_pids("reader").await.len(), 0);
        reading.release();
        run.wait().await.expect(0);
        assert_eq!(oracle::local(dest.path(), &[]).await, expected);
    }
}

#[tokio::test]
async fn a_keeper_that_dies_just_before_the_readers_connect_loses_nothing() {
    for version in both() {
        for which in [0, 1] {
            let pg = pg(version).await;
            pg.batch(TABLE).await;
            let expected = oracle::query(&pg, "select * from t").await;
            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let run = export(&pg, &["--table", "t"], "2", dest.path()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            pg.terminate(&pg.exporter_pids("keeper").await[which]).await;
            pg.batch("delete from t").await;
            planned.release();
            run.wait().await.expect(0);
            assert_eq!(oracle::local(dest.path(), &[]).await, expected);
        }
    }
}

#[tokio::test]
async fn a_run_without_keepers_has_lost_its_snapshot() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
        let run = export(&pg, &["--table", "t"], "2", dest.path()).stops([&planned]).spawn();
        run.stands_at(&planned).await;
        for keeper in pg.exporter_pids("keeper").await {
            pg.terminate(&keeper).await;
        }
        planned.release();
        let run = run.wait().await.expect(12);
        assert!(run.stderr.contains("keeper of the snapshot"), "{}", run.stderr);
        assert_eq!(run.report["retryable"], true);
        nothing_is_left(dest.path());
    }
}

#[tokio::test]
async fn a_lock_session_that_dies_leaves_the_locks_with_the_others() {
    for version in both() {
        for readers in ["1", "2"] {
            let pg = pg(version).await;
            pg.batch(TABLE).await;
            let expected = oracle::query(&pg, "select * from t").await;
            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let run = export(&pg, &["--table", "t"], readers, dest.path()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            let locks = pg.exporter_pids("locks").await;
            assert_eq!(locks.len(), 1);
            pg.terminate(&locks[0]).await;
            refused(&pg, "truncate t").await;
            planned.release();
            run.wait().await.expect(0);
            assert_eq!(oracle::local(dest.path(), &[]).await, expected, "{readers} readers");
        }
    }
}

/// A small table's lock session becomes its reader: the locks stay, and whichever of the two is lost, no row is.
#[tokio::test]
async fn a_small_table_needs_two_sessions_and_can_lose_one() {
    for version in both() {
        for lost in ["keeper", "reader"] {
            let pg = pg(version).await;
            pg.batch(TABLE).await;
            let expected = oracle::query(&pg, "select * from t").await;
            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let run = export(&pg, &["--table", "t", "--partitions", "1"], "2", dest.path()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            assert_eq!(pg.exporter_sessions().await, 2);
            pg.terminate(&pg.exporter_pids(lost).await[0]).await;
            refused(&pg, "truncate t").await;
            pg.batch("delete from t").await;
            planned.release();
            run.wait().await.expect(0);
            assert_eq!(oracle::local(dest.path(), &[]).await, expected, "without the {lost}");
        }
    }
}

/// Every row takes the server 2 ms.
const SLOW: [&str; 2] = ["--column", "slow=case when pg_sleep(0.002) is null then 1 end"];

#[tokio::test]
async fn a_lone_reader_that_dies_takes_the_snapshot_with_it_and_nothing_is_published() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let dest = tempfile::tempdir().unwrap();
        let source = [&["--table", "t"][..], &SLOW].concat();
        let reading = Stop::at("batch");
        let run = export(&pg, &source, "1", dest.path()).stops([&reading]).spawn();
        run.stands_at(&reading).await;
        pg.terminate(&pg.exporter_pids("keeper").await[0]).await;
        reading.release();
        let run = run.wait().await.expect(12);
        assert!(run.stderr.contains("--readers 2"), "{}", run.stderr);
        assert_eq!(run.report["retryable"], true);
        nothing_is_left(dest.path());
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn a_table_that_somebody_holds_is_left_alone_within_the_lock_timeout() {
    let attempt = async |version, source: &[&str]| {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        pg.batch("create materialized view m as select * from t").await;
        let other = pg.connect().await;
        other.batch_execute("begin; lock table t in access exclusive mode").await.unwrap();
        let pid = rows(&other, "select pg_backend_pid()").await[0][0].clone().unwrap();
        let dest = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let run = export(&pg, source, "2", dest.path()).run().await.expect(16);
        let taken = started.elapsed();
        assert!(taken < Duration::from_secs(16), "{taken:?}");
        let doing = ["locking \"public\".\"t\"", "planning the statement"];
        assert!(doing.iter().any(|text| run.stderr.contains(text)), "{}", run.stderr);
        assert!(run.stderr.contains("holds a conflicting lock"), "{}", run.stderr);
        let told = format!("process {pid} holds ACCESS EXCLUSIVE on t");
        assert!(run.stderr.contains(&told), "{}", run.stderr);
        // What a query would have read is not known before it is locked: somebody in the database is in the way.
        assert_eq!(run.stderr.contains("in this database"), source.contains(&"--query"), "{}", run.stderr);
        assert_eq!(run.report["retryable"], true);
        nothing_is_left(dest.path());
    };
    tokio::join!(
        attempt(15, &["--table", "t"]),
        attempt(18, &["--table", "t"]),
        attempt(18, &["--query", "select * from t"]),
    );
}

#[tokio::test]
async fn ddl_that_queues_behind_our_lock_hangs_nobody() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let expected = oracle::query(&pg, "select * from t").await;
        let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
        let run = export(&pg, &["--table", "t"], "2", dest.path()).stops([&planned]).spawn();
        run.stands_at(&planned).await;
        let other = pg.connect().await;
        let pid = rows(&other, "select pg_backend_pid()").await[0][0].clone().unwrap();
        let alter = tokio::spawn(async move { other.batch_execute("alter table t add column x int").await });
        eventually(Duration::from_secs(10), "the queued ALTER", async || {
            let waiting = "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'";
            (pg.value(waiting).await == "1").then_some(())
        })
        .await;
        let released = Instant::now();
        planned.release();
        let run = run.wait().await;
        assert!(released.elapsed() < Duration::from_secs(8), "{:?}", released.elapsed());
        if run.code == 0 {
            assert_eq!(oracle::local(dest.path(), &[]).await, expected);
        } else {
            let run = run.expect(16);
            assert!(run.stderr.contains("locking \"public\".\"t\""), "{}", run.stderr);
            assert!(run.stderr.contains(&format!("process {pid} waits for ACCESS EXCLUSIVE on t")), "{}", run.stderr);
            nothing_is_left(dest.path());
        }
        alter.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn timeouts_of_the_role_do_not_end_a_run() {
    for version in both() {
        for readers in ["1", "2"] {
            let pg = pg(version).await;
            pg.batch(TABLE).await;
            let (url, role) = pg.role("").await;
            pg.batch(&format!("grant select on t to {role}")).await;
            let mut settings = vec!["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"];
            settings.extend((version >= 17).then_some("transaction_timeout"));
            for setting in settings {
                pg.batch(&format!("alter role {role} set {setting} = '1s'")).await;
            }
            let (dest, planned) = (tempfile::tempdir().unwrap(), Stop::at("planned"));
            let source = [&["--table", "t", "--where", "id <= 1600"][..], &SLOW].concat();
            let run = export_from(&url, &source, readers, dest.path()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            planned.release();
            let run = run.wait().await.expect(0);
            assert_eq!(run.report["rows"], 1600);
        }
    }
}

#[tokio::test]
async fn rows_that_row_security_would_hide_are_an_error_with_a_hint() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let (url, role) = pg.role("").await;
        pg.batch(&format!(
            "grant select on t to {role}; alter table t enable row level security;
             create policy few on t using (id <= 10);
             create table p (id int) partition by range (id); create table p1 partition of p for values from (0) to (9);
             insert into p values (1), (2); grant select on p, p1 to {role};
             alter table p enable row level security; create policy none on p using (false)"
        ))
        .await;
        for table in ["t", "p"] {
            let dest = tempfile::tempdir().unwrap();
            let run = export_from(&url, &["--table", table], "2", dest.path()).run().await.expect(10);
            assert!(run.stderr.contains("BYPASSRLS"), "{}", run.stderr);
            assert!(run.stderr.contains("row-level security"), "{}", run.stderr);
            nothing_is_left(dest.path());
        }
        pg.batch(&format!("alter role {role} bypassrls")).await;
        let dest = tempfile::tempdir().unwrap();
        export_from(&url, &["--table", "t"], "2", dest.path()).run().await.expect(0);
        assert_eq!(oracle::local(dest.path(), &[]).await.rows, 5000);
    }
}

#[tokio::test]
async fn grants_on_columns_parents_or_leaves_are_enough_for_what_they_grant() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let (url, role) = pg.role("").await;
        pg.batch(&format!(
            "grant select (id) on t to {role};
             create table p (id int, v text) partition by range (id);
             create table p1 partition of p for values from (0) to (3000);
             create table p2 partition of p for values from (3000) to (9000);
             insert into p select * from t; grant select on p to {role};
             create table q (id int, v text) partition by range (id);
             create table q1 partition of q for values from (0) to (9000);
             insert into q select * from t; grant select on q1 to {role}"
        ))
        .await;
        for (source, contents) in [
            (&["--table", "t", "--columns", "id"][..], "select id from t"),
            (&["--table", "t", "--columns", "id", "--where", "id > 7"], "select id from t where id > 7"),
            (&["--table", "p"], "select * from p"),
            (&["--table", "p", "--key", "id"], "select * from p"),
            (&["--table", "q1"], "select * from q1"),
        ] {
            let dest = tempfile::tempdir().unwrap();
            let (planned, expected) = (Stop::at("planned"), oracle::query(&pg, contents).await);
            let run = export_from(&url, source, "2", dest.path()).stops([&planned]).spawn();
            run.stands_at(&planned).await;
            refused(&pg, &format!("truncate {}", source[1])).await;
            planned.release();
            run.wait().await.expect(0);
            assert_eq!(oracle::local(dest.path(), &[]).await, expected, "{source:?}");
        }
        for source in [&["--table", "t"][..], &["--table", "t", "--columns", "v"], &["--table", "q"]] {
            let dest = tempfile::tempdir().unwrap();
            let run = export_from(&url, source, "2", dest.path()).run().await.expect(10);
            assert!(run.stderr.contains("permission denied for table"), "{}", run.stderr);
            assert!(run.stderr.contains("hint: the role needs"), "{}", run.stderr);
            nothing_is_left(dest.path());
        }
    }
}
