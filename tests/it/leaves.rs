//! Tables of thousands of small tables: few parts, few locks (I11), and one snapshot all the same (I5).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::error::SqlState;

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::job::{command, copy, export, export_csv, no_sessions_left, nothing_is_left, parts, sorted};
use crate::support::pg::{Pg, both, connect, pg, rows};
use crate::support::run::{Run, Stop, outhaul};
use crate::support::tcp_proxy::TcpProxy;

/// 200 tables of 10 rows. Each is 4 relations, with its index, its TOAST table and that one's index: two readers and what
/// stands beside them would hold more of the 7040 locks that the server is made for than a run may.
const MANY: &str = "create table p (id int, bucket int, v text, primary key (id, bucket)) partition by list (bucket);
    do $$ begin for i in 0..199 loop
        execute format('create table p_%s partition of p for values in (%s)', i, i);
    end loop; end $$;
    insert into p select i, i % 200, 'v' || i from generate_series(1, 2000) i";

/// The same, by inheritance, in which the parent has rows too.
const CHILDREN: &str = "create table p (id int primary key, bucket int, v text);
    do $$ begin for i in 0..199 loop
        execute format('create table p_%s (primary key (id)) inherits (p)', i);
        execute format('insert into p_%s select %s + 200 * g, %s, g::text from generate_series(1, 10) g', i, i, i);
    end loop; end $$;
    insert into p select -i, null, 'own' from generate_series(1, 5) i";

/// Seven indexes on each: not even one reader could hold the locks of all.
const HEAVY: [&str; 7] = [
    "alter table p drop constraint p_pkey",
    "create index on p (v)",
    "create index on p (v, id)",
    "create index on p (v, bucket)",
    "create index on p (bucket, v)",
    "create index on p (bucket)",
    "create index on p (id, v)",
];

const READ: [&str; 4] = ["--table", "p", "--readers", "2"];

async fn many(version: u32) -> Pg {
    let pg = pg(version).await;
    pg.batch(MANY).await;
    pg
}

/// The plan of an export, as JSON.
async fn plan(url: &str, args: &[&str]) -> Value {
    let fixed = ["plan", "--from", url, "--report", "json"];
    outhaul(fixed.iter().chain(args)).run().await.expect(0).report
}

/// The run, stopped between plan and read, while `change` is made.
async fn changed(pg: &Pg, args: &[&str], change: &str, off: &str, to: &Path) -> Run {
    let planned = Stop::at("planned");
    let all = [&["--format", "csv", "--csv-header", "off", "--progress", "none"], args].concat();
    let run = command(pg, to.to_str().unwrap(), &all).stops([&planned]).env("OUTHAUL_TEST_OFF", off).spawn();
    run.stands_at(&planned).await;
    pg.batch(change).await;
    planned.release();
    run.wait().await
}

#[tokio::test]
async fn many_small_tables_are_a_few_parts() {
    for version in both() {
        let pg = many(version).await;
        let expected = sorted(&copy(&pg, "select * from p").await);
        for (args, way, partitions) in [
            (&["--readers", "2"][..], "leaf_by_leaf", 1),
            (&["--readers", "1"], "before_snapshot", 1),
            (&["--readers", "2", "--partitions", "7"], "leaf_by_leaf", 7),
            (&["--readers", "2", "--partitions", "1"], "leaf_by_leaf", 1),
            (&["--readers", "3", "--source-profile", "gentle"], "leaf_by_leaf", 1),
            (&["--readers", "1", "--partitions", "250"], "before_snapshot", 200),
        ] {
            let args = [&["--table", "p"], args].concat();
            let plan = plan(&pg.url, &args).await;
            assert_eq!(plan["read"]["locks"]["way"], way, "{args:?}: {plan}");
            assert_eq!(plan["partitions"].as_array().unwrap().len(), partitions, "{args:?}");
            let done = export_csv(&pg, &args, 0).await;
            assert!(done.sorted() == expected, "{version} {args:?}");
            assert_eq!(done.partitions(), partitions, "{args:?}");
        }
        let done = export_csv(&pg, &READ, 0).await;
        let manifest = done.manifest();
        let range = &parts(&manifest)[0]["range"];
        assert_eq!((&range["kind"], &range["tables"]), (&"leaves".into(), &200.into()), "{range}");
        assert_eq!(done.run.report["source_cost"]["heap_blocks_read"], 200);
    }
}

#[tokio::test]
async fn tables_of_every_size_and_shape_are_whole() {
    for version in both() {
        let pg = many(version).await;
        // A large one, some without rows, a default partition, partitions below a partition, one without rows below it.
        pg.batch(
            "create table p_large partition of p for values in (1000);
            insert into p select i, 1000, repeat('x', 500) from generate_series(1, 20000) i;
            create table p_none partition of p for values in (1001);
            create table p_default partition of p default;
            insert into p values (1, 5000, 'else');
            create table p_below partition of p for values in (1002) partition by range (id);
            create table p_below_1 partition of p_below for values from (0) to (100);
            create table p_below_2 partition of p_below for values from (100) to (200);
            create table p_below_none partition of p_below for values from (200) to (300);
            insert into p select i, 1002, null from generate_series(0, 199) i",
        )
        .await;
        let expected = sorted(&copy(&pg, "select * from p").await);
        for args in [
            &["--readers", "2"][..],
            &["--readers", "3", "--partitions", "5"],
            &["--readers", "1"],
            &["--readers", "2", "--part-size", "5MiB"],
            &["--readers", "2", "--column", "w=v || p.id", "--columns", "id,bucket,v"],
        ] {
            let done = export_csv(&pg, &[&["--table", "p"], args].concat(), 0).await;
            if args.contains(&"--column") {
                let expected = sorted(&copy(&pg, "select id, bucket, v, v || p.id from p").await);
                assert!(done.sorted() == expected, "{version} {args:?}");
            } else {
                assert!(done.sorted() == expected, "{version} {args:?}");
            }
        }
        let predicate = "p.id % 3 = 0 and v in (select v from p_7 union select 'v3')";
        let expected = sorted(&copy(&pg, &format!("select * from p where {predicate}")).await);
        let done = export_csv(&pg, &[&READ[..], &["--where", predicate]].concat(), 0).await;
        assert!(!expected.is_empty() && done.sorted() == expected, "{version}");
    }
}

#[tokio::test]
async fn a_cap_over_many_tables_is_exact() {
    for version in both() {
        let pg = many(version).await;
        for statement in HEAVY {
            pg.batch(statement).await;
        }
        pg.batch("truncate p_3, p_199").await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out.csv");
        let one = ["--table", "p", "--single-file", "--format", "csv", "--csv-header", "off"];
        command(&pg, file.to_str().unwrap(), &one).run().await.expect(0);
        let expected = sorted(&copy(&pg, "select * from p").await);
        assert!(sorted(&std::fs::read(&file).unwrap()) == expected, "{version}: one file");
        for (cap, code, rows) in [("1", 3, 1), ("10", 3, 10), ("637", 3, 637), ("1980", 0, 1980), ("5000", 0, 1980)] {
            let mut seen = Vec::new();
            for partitions in ["1", "4"] {
                let args = ["--table", "p", "--max-rows", cap, "--readers", "2", "--partitions", partitions];
                let done = export_csv(&pg, &args, code).await;
                assert_eq!(done.manifest()["totals"]["rows"], rows, "{version} {args:?}");
                assert_eq!(done.manifest()["row_cap"]["order"], "physical");
                seen.push(done.data());
            }
            assert!(seen[0] == seen[1], "{version}: the first {cap} rows depend on how they are split");
        }
    }
}

/// A change that the locks would have held up is found as its table is read; switched off, the export is short.
#[tokio::test]
async fn what_happens_to_an_unlocked_table_is_found() {
    for (version, setup, change, named) in [
        (15, MANY, "truncate p_7", "p_7"),
        (18, MANY, "begin; delete from p_9; truncate p_8; commit", "p_8"),
        (18, CHILDREN, "truncate p_7", "p_7"),
        (15, CHILDREN, "alter table p_7 set unlogged", "p_7"),
        (18, CHILDREN, "drop table p_7", "TRUNCATE, DROP"),
        // It loses no rows, and cannot be told from what does.
        (15, MANY, "vacuum full p_7", "p_7"),
    ] {
        let pg = pg(version).await;
        pg.batch(setup).await;
        let folder = tempfile::tempdir().unwrap();
        let run = changed(&pg, &READ, change, "", folder.path()).await.expect(12);
        assert!(run.stderr.contains(named) && run.stderr.contains("VACUUM FULL"), "{change}: {}", run.stderr);
        assert_eq!(run.report["retryable"], true, "{change}");
        nothing_is_left(folder.path());
        no_sessions_left(&pg).await;
    }
    for version in both() {
        for setup in [MANY, CHILDREN] {
            let pg = pg(version).await;
            pg.batch(setup).await;
            let all: u64 = pg.value("select count(*) from p").await.parse().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let run = changed(&pg, &READ, "truncate p_7", "relfilenode", folder.path()).await.expect(0);
            assert_eq!(run.report["rows"], all - 10, "{version}: it is the comparison that makes the difference");
        }
    }
}

#[tokio::test]
async fn what_inherits_from_a_locked_table_stays() {
    for version in both() {
        let pg = many(version).await;
        let expected = sorted(&copy(&pg, "select * from p").await);
        let folder = tempfile::tempdir().unwrap();
        let planned = Stop::at("planned");
        let all = [&["--format", "csv", "--csv-header", "off", "--progress", "none"], &READ[..]].concat();
        let run = command(&pg, folder.path().to_str().unwrap(), &all).stops([&planned]).spawn();
        run.stands_at(&planned).await;
        pg.batch(
            "create table p_new (like p including all); alter table p attach partition p_new for values in (777);
            insert into p values (1, 777, 'later');
            delete from p where bucket = 9; update p set v = 'later' where bucket = 10",
        )
        .await;
        pg.batch("vacuum p_9").await;
        let other = pg.connect().await;
        other.batch_execute("set lock_timeout = '300ms'").await.unwrap();
        for refused in [
            "drop table p_7",
            "alter table p detach partition p_7",
            "alter table p detach partition p_8 concurrently",
            "alter table p alter column v type varchar(20)",
            "truncate p",
        ] {
            let error = other.batch_execute(refused).await.unwrap_err();
            assert_eq!(error.code().map(SqlState::code), Some("55P03"), "{refused}: {error:?}");
        }
        planned.release();
        run.wait().await.expect(0);
        assert!(sorted(&crate::support::job::data(folder.path())) == expected, "{version}");
    }
}

/// To list thousands of tables takes a second: not done twice where nobody changes them.
#[tokio::test]
async fn tables_below_tables_are_listed_once() {
    for version in both() {
        let mut pg = pg(version).await;
        pg.batch(
            "create table p (id int, bucket int, v text, primary key (id, bucket)) partition by range (bucket);
            do $$ begin for i in 0..199 loop
                if i % 50 = 0 then
                    execute format('create table b_%s partition of p for values from (%s) to (%s)
                        partition by list (bucket)', i, i, i + 50);
                end if;
                execute format('create table p_%s partition of b_%s for values in (%s)', i, i / 50 * 50, i);
            end loop; end $$;
            insert into p select i, i % 200, 'v' || i from generate_series(1, 2000) i",
        )
        .await;
        let (proxy, through) = TcpProxy::before(&pg.url).await;
        pg.url = through;
        let done = export(&pg, &READ).await.expect(0);
        assert_eq!(done.run.report["rows"], 2000, "{version}");
        let heard = proxy.statements();
        assert!(
            heard.iter().any(|sql| sql.contains("outhaul_leaves")),
            "{version}: leaves are locked as they are read"
        );
        let listed = heard.iter().filter(|sql| sql.contains("c.reltuples") && sql.contains("tree"));
        assert_eq!(listed.count(), 1, "{version}");
    }
}

#[tokio::test]
async fn a_root_may_lose_its_last_child_before_the_snapshot() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(CHILDREN).await;
        let folder = tempfile::tempdir().unwrap();
        let locked = Stop::at("locked");
        let args = [&["--format", "csv", "--progress", "none"], &READ[..]].concat();
        let run = command(&pg, folder.path().to_str().unwrap(), &args).stops([&locked]).spawn();
        run.stands_at(&locked).await;
        // A few at a time: a transaction that drops all of them would need their locks at once.
        for first in (0..200).step_by(20) {
            let tables: Vec<String> = (first..first + 20).map(|table| format!("p_{table}")).collect();
            pg.batch(&format!("drop table {}", tables.join(", "))).await;
        }
        locked.release();
        let done = run.wait().await.expect(0);
        assert_eq!(done.report["rows"], 5, "{version}");
    }
}

#[tokio::test]
async fn a_cap_is_not_planned_over_an_emptied_table() {
    for version in both() {
        let pg = many(version).await;
        for statement in HEAVY {
            pg.batch(statement).await;
        }
        let folder = tempfile::tempdir().unwrap();
        // The snapshot stands, and nothing is planned yet.
        let snapshot = Stop::at("snapshot");
        let args = [&["--format", "csv", "--progress", "none", "--max-rows", "100"], &READ[..]].concat();
        let run = command(&pg, folder.path().to_str().unwrap(), &args).stops([&snapshot]).spawn();
        run.stands_at(&snapshot).await;
        pg.batch("truncate p_3").await;
        snapshot.release();
        run.wait().await.expect(12);
        nothing_is_left(folder.path());
    }
}

#[tokio::test]
async fn a_resumed_run_compares_too() {
    for version in both() {
        for (change, code) in [("delete from p", 0), ("truncate p_7", 12)] {
            let pg = many(version).await;
            let expected = sorted(&copy(&pg, "select * from p").await);
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().to_str().unwrap();
            let kept = ["--keep-snapshot", "60s", "--partitions", "3", "--format", "csv", "--csv-header", "off"];
            let at = Stop::at("reading");
            let run = command(&pg, to, &[&READ[..], &kept].concat()).stops([&at]).spawn();
            run.stands_at(&at).await;
            run.signal("KILL").await;
            run.wait().await;
            pg.batch(change).await;
            let resume = ["resume", to, "--from", &pg.url, "--report", "json", "--progress", "none", "--readers", "4"];
            let run = outhaul(resume).run().await.expect(code);
            if code == 0 {
                assert!(sorted(&crate::support::job::data(folder.path())) == expected, "{version}");
                assert_eq!(run.report["rows"], 2000);
            }
        }
    }
}

#[tokio::test]
async fn what_must_be_read_as_a_whole_has_fewer_readers_or_is_refused() {
    for version in both() {
        let pg = many(version).await;
        pg.batch("create view w as select * from p; create view x as select w.* from w join p using (id, bucket)")
            .await;
        let parent = &["--table", "p", "--key", "id"][..];
        let capped = &["--table", "p", "--max-rows", "10"][..];
        let paged = &["--table", "p", "--key", "id,bucket", "--read-mode", "keyset"][..];
        let view = &["--table", "x"][..];
        let query = &["--query", "select * from w"][..];
        for args in [parent, capped, paged, view, query] {
            let all = [args, &["--readers", "8"]].concat();
            let planned = plan(&pg.url, &all).await;
            let read = &planned["read"];
            assert!(read["readers"].as_u64().unwrap() < 8, "{args:?}: {read}");
            assert!(read["locks"]["at_most"].as_u64().unwrap() <= 3520 + 8 * 64, "{args:?}: {read}");
            let done = export(&pg, &all).await.expect(if args == capped { 3 } else { 0 });
            assert_eq!(done.manifest()["totals"]["rows"], if args == capped { 10 } else { 2000 }, "{args:?}");
        }
        // Twice as many, with three indexes more: two sessions would hold too many.
        pg.batch(
            "do $$ begin for i in 200..299 loop
                execute format('create table p_%s partition of p for values in (%s)', i, i); end loop; end $$;
            create index on p (v); create index on p (bucket); create index on p (v, id)",
        )
        .await;
        for args in [parent, capped, paged, view, query] {
            let refused = export(&pg, args).await.expect(16);
            let said = &refused.run.stderr;
            assert!(said.contains("max_locks_per_transaction") && said.contains("7040"), "{said}");
            assert!(!refused.dest().join("_manifest.json").exists());
            assert_eq!(refused.run.report["retryable"], true);
        }
        let done = export_csv(&pg, &READ, 0).await;
        assert_eq!(done.manifest()["totals"]["rows"], 2000, "its tables are read by themselves");
    }
}

/// A server whose lock table is as large as by default.
async fn small_server(version: u32) -> Cluster {
    Cluster::start(version, &["max_connections=100", "max_locks_per_transaction=64", "max_prepared_transactions=0"])
        .await
}

#[tokio::test]
async fn four_thousand_tables_leave_the_lock_table_to_others() {
    const TABLES: u32 = 4000;
    let server = small_server(18).await;
    let client = server.connect().await;
    client.batch_execute("create table p (id int, n int) partition by list (id)").await.unwrap();
    for hundred in 0..TABLES / 100 {
        let (from, to) = (hundred * 100, hundred * 100 + 99);
        let make = format!(
            "do $$ begin for i in {from}..{to} loop
                execute format('create table p_%s partition of p for values in (%s)', i, i);
                execute format('insert into p_%s select %s, g from generate_series(1, 10) g', i, i);
            end loop; end $$"
        );
        client.batch_execute(&make).await.unwrap();
    }
    client
        .batch_execute(
            "create table busy (a int primary key, b int, c int, d int); create index on busy (b);
            create index on busy (c); create index on busy (d); insert into busy values (1, 1, 1, 1)",
        )
        .await
        .unwrap();
    let planned = plan(&server.url, &["--table", "p", "--readers", "4"]).await;
    let locks = &planned["read"]["locks"];
    let at_most = locks["at_most"].as_u64().unwrap();
    assert_eq!((&locks["way"], &locks["lock_table"]), (&"leaf_by_leaf".into(), &6400.into()));
    assert!(at_most <= 1600, "{locks}");

    let over = Arc::new(AtomicBool::new(false));
    let beside = tokio::spawn(use_busily(server.url.clone(), Arc::clone(&over)));
    let peak = tokio::spawn(peak_of_locks(server.url.clone(), Arc::clone(&over)));
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let args = ["--table", "p", "--readers", "4", "--format", "csv", "--csv-header", "off", "--report", "json"];
    let fixed = ["export", "--from", &server.url, "--to", to.to_str().unwrap(), "--progress", "none"];
    let began = Instant::now();
    let run = outhaul(fixed.iter().chain(&args)).run().await.expect(0);
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let (peak, beside) = (peak.await.unwrap(), beside.await.unwrap());
    assert!(peak <= at_most, "{peak} locks, and the plan says {at_most}");
    assert!(peak > 100 && beside > 10, "{peak} locks seen, {beside} transactions beside");
    assert!(!run.stderr.contains("53200"), "{}", run.stderr);
    assert!(parts(&crate::support::manifest(&to)).len() <= 8);
    let rows = crate::support::job::data(&to);
    let expected: Vec<String> = (0..TABLES).flat_map(|i| (1..=10).map(move |g| format!("{i},{g}"))).collect();
    assert!(sorted(&rows) == sorted(expected.join("\n").as_bytes()));
    // A build without optimization on a busy machine: a release build takes a third of it.
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// Many sessions, each of which locks tables and their indexes, transaction after transaction: how many there were.
async fn use_busily(url: String, over: Arc<AtomicBool>) -> usize {
    let clients = (0..20).map(|_| async {
        let client = connect(&url).await;
        let mut transactions = 0;
        while !over.load(Ordering::Relaxed) {
            let work = "begin; select * from busy where a = 1; update busy set b = b + 1 where a = 2; \
                select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid < 100; commit";
            client.batch_execute(work).await.unwrap();
            transactions += 1;
        }
        transactions
    });
    futures_util::future::join_all(clients).await.into_iter().sum()
}

/// The most locks that sessions of the program were seen to hold.
async fn peak_of_locks(url: String, over: Arc<AtomicBool>) -> u64 {
    let client = connect(&url).await;
    let count = "select count(*) from pg_locks where pid in (select pid from pg_stat_activity \
        where application_name like 'outhaul/%')";
    let mut peak = 0;
    while !over.load(Ordering::Relaxed) {
        let seen = rows(&client, count).await[0][0].clone().unwrap().parse().unwrap();
        peak = peak.max(seen);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    peak
}

#[tokio::test]
async fn a_lock_table_that_others_have_filled_is_said_and_not_fought_over() {
    let server = small_server(15).await;
    let client = server.connect().await;
    client.batch_execute(MANY).await.unwrap();
    let fill = "do $$ begin for i in 1..200000 loop perform pg_advisory_lock(i); end loop; \
        exception when out_of_memory then null; end $$";
    let folder = tempfile::tempdir().unwrap();
    let planned = Stop::at("planned");
    let args = ["--table", "p", "--readers", "2", "--format", "csv", "--report", "json", "--progress", "none"];
    let fixed = ["export", "--from", &server.url, "--to", folder.path().to_str().unwrap()];
    let run = outhaul(fixed.iter().chain(&args)).stops([&planned]).spawn();
    run.stands_at(&planned).await;
    // Whatever room the failed one has left again is filled to the last lock.
    let filler = server.connect().await;
    filler.batch_execute(fill).await.unwrap();
    let mut taken = 0;
    while filler.batch_execute(&format!("select pg_advisory_lock({})", 300_000 + taken)).await.is_ok() {
        taken += 1;
    }
    planned.release();
    let run = run.wait().await.expect(16);
    assert!(run.stderr.contains("max_locks_per_transaction"), "{}", run.stderr);
    assert!(run.stderr.lines().filter(|line| line.contains("53200")).count() <= 4, "{}", run.stderr);
    nothing_is_left(folder.path());
    drop(filler);
    eventually(Duration::from_secs(10), "room in the lock table", async || {
        client.batch_execute("select count(*) from p").await.is_ok().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_with_a_tiny_lock_table_is_read_by_one_reader() {
    for settings in [
        ["max_connections=100", "max_locks_per_transaction=10"],
        ["max_connections=20", "max_locks_per_transaction=10"],
    ] {
        let server = Cluster::start(18, &settings).await;
        let client = server.connect().await;
        // Forty at a time: who makes them holds their locks to the end.
        client.batch_execute("create table p (id int primary key, v text) partition by range (id)").await.unwrap();
        for from in (0..280).step_by(40) {
            let make = format!(
                "do $$ begin for i in {from}..{from} + 39 loop
                    execute format('create table p_%s partition of p for values from (%s) to (%s)', i, i, i + 1);
                end loop; end $$; insert into p select i, i from generate_series({from}, {from} + 39) i"
            );
            client.batch_execute(&make).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let args = ["--table", "p", "--format", "csv", "--report", "json", "--progress", "none"];
        let planned = plan(&server.url, &args[..2]).await;
        assert_eq!(planned["read"]["locks"]["way"], "leaf_by_leaf", "{planned}");
        let fixed = ["export", "--from", &server.url, "--to", folder.path().to_str().unwrap()];
        let run = outhaul(fixed.iter().chain(&args)).run().await.expect(0);
        assert_eq!(run.report["rows"], 280, "{}", run.report);
    }
}
