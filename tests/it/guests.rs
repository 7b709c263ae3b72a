//! Guests and leftovers: prepared transactions, which no process runs, and temporary children of other sessions
//! (`tests/cases.md`, 06 and 07).

use crate::support::job::{command, copy, export, export_csv, no_sessions_left, nothing_is_left, sorted};
use crate::support::pg::{Pg, both, pg};
use crate::support::run::Run;
use crate::support::{eventually, unique};

/// A lock is waited for this long.
const IMPATIENT: (&str, &str) = ("OUTHAUL_TEST_LIMITS", "lock=0.5");

/// A prepared transaction that has run a statement; its name is the server's, not the database's.
async fn prepare(pg: &Pg, statement: &str) -> String {
    let gid = format!("left over {}", unique());
    pg.batch(&format!("begin; {statement}; prepare transaction '{gid}'")).await;
    gid
}

/// A run that meets the lock of a prepared transaction, and says so.
async fn gives_way(pg: &Pg, args: &[&str], gid: &str) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let (name, value) = IMPATIENT;
    let run = command(pg, dest.to_str().unwrap(), args).env(name, value).run().await.expect(16);
    for words in [&format!("prepared transaction '{gid}' of postgres"), &format!("ROLLBACK PREPARED '{gid}'")] {
        assert!(run.stderr.contains(words), "{args:?}: {}", run.stderr);
    }
    assert!(run.stderr.contains("waiting does not end it"), "{args:?}: {}", run.stderr);
    assert_eq!(run.report["retryable"], true);
    nothing_is_left(&dest);
    run
}

#[tokio::test]
async fn a_prepared_transaction_that_holds_the_lock_is_named() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(
            "create table p (id int primary key); insert into p values (1); create view v as select * from p;
             create materialized view m as select 1 as id;
             create table par (id int); create table kid () inherits (par)",
        )
        .await;
        for (statement, args) in [
            ("lock table p in access exclusive mode", &["--table", "p"][..]),
            ("alter table p add column x int", &["--table", "p", "--readers", "1"]),
            ("truncate p", &["--table", "p", "--read-mode", "keyset"]),
            ("truncate p", &["--table", "v"]),
            ("drop view v", &["--table", "v"]),
            ("lock table p in access exclusive mode", &["--query", "select id from p"]),
            ("lock table kid in access exclusive mode", &["--table", "par"]),
            ("refresh materialized view m", &["--table", "m"]),
        ] {
            let gid = prepare(&pg, statement).await;
            let run = gives_way(&pg, args, &gid).await;
            assert!(run.stderr.contains("holds ACCESS EXCLUSIVE on"), "{statement}: {}", run.stderr);
            pg.batch(&format!("rollback prepared '{gid}'")).await;
            export(&pg, args).await.expect(0);
        }
        no_sessions_left(&pg).await;
    }
}

/// A lock that does not conflict with ours, and an ALTER between it and us.
#[tokio::test]
async fn a_prepared_transaction_for_which_another_session_waits_is_named() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create table p (id int)").await;
        let gid = prepare(&pg, "insert into p values (1)").await;
        let other = pg.connect().await;
        let alter = tokio::spawn(async move { other.batch_execute("alter table p add column x int").await });
        let queued = "select count(*) from pg_locks where relation = 'p'::regclass and not granted";
        eventually(std::time::Duration::from_secs(10), "the queued ALTER", async || {
            (pg.value(queued).await == "1").then_some(())
        })
        .await;
        let run = gives_way(&pg, &["--table", "p"], &gid).await;
        assert!(run.stderr.contains("waits for ACCESS EXCLUSIVE on p, behind the prepared"), "{}", run.stderr);
        pg.batch(&format!("commit prepared '{gid}'")).await;
        alter.await.unwrap().unwrap();
    }
}

/// Who holds locks that do not conflict is nobody's concern.
#[tokio::test]
async fn a_prepared_transaction_that_is_not_in_the_way_changes_nothing() {
    let pg = pg(18).await;
    pg.batch("create table p (id int); insert into p values (1)").await;
    let gid = prepare(&pg, "insert into p values (2)").await;
    let done = export_csv(&pg, &["--table", "p", "--yield-to-ddl", "1s"], 0).await;
    assert_eq!(done.sorted(), ["1"]);
    pg.batch(&format!("rollback prepared '{gid}'")).await;
}

#[tokio::test]
async fn temporary_children_of_other_sessions_are_left_out_as_the_server_leaves_them_out() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch("create table par (id int primary key, v text); insert into par select i, i::text from generate_series(1, 3000) i; analyze par")
            .await;
        let guest = pg.connect().await;
        let kid = "create temp table kid () inherits (par); insert into kid values (5000, 'guest')";
        guest.batch_execute(kid).await.unwrap();
        let ways = [
            &["--table", "par"][..],
            &["--table", "par", "--readers", "1"],
            &["--table", "par", "--partitions", "4"],
            &["--table", "par", "--key", "id"],
            &["--table", "par", "--max-rows", "5000"],
            &["--table", "par", "--key", "id", "--max-rows", "5000"],
            &["--table", "par", "--read-mode", "keyset", "--page-size", "999"],
            &["--table", "par", "--where", "id > 0"],
            &["--query", "select * from par"],
        ];
        // Then beside a child that stays, and with a guest of the guest.
        for (nth, more) in
            ["", "create table own () inherits (par); insert into own values (6000, 'own')"].iter().enumerate()
        {
            pg.batch(more).await;
            guest.batch_execute(&format!("create temp table grandkid{nth} () inherits (kid)")).await.unwrap();
            let expected = sorted(&copy(&pg, "select * from par").await);
            assert_eq!(expected.len(), 3000 + nth);
            for args in ways {
                // A unique index on a parent says nothing of its children's rows.
                if nth == 1 && args.contains(&"keyset") {
                    continue;
                }
                assert_eq!(export_csv(&pg, args, 0).await.sorted(), expected, "{nth} {args:?}");
            }
        }
        let done = export(&pg, &["--table", "par"]).await.expect(0);
        let dest = done.dest();
        let verify = ["verify", dest.to_str().unwrap(), "--read-data", "--against-source", "--from", &pg.url];
        crate::support::run::outhaul(verify).run().await.expect(0);
        // The guest leaves while the export reads.
        drop(guest);
        export_csv(&pg, &["--table", "par"], 0).await;
        no_sessions_left(&pg).await;
    }
}
