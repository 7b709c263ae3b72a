//! What an export costs its source and whom it stands in the way of: it gives way to DDL and to its limits (exit 16), leaves
//! the cache alone where asked to, and says what it took (matrix rows E3 to E5).

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::job::{no_sessions_left, nothing_is_left};
use crate::support::pg::{Pg, both, pg};
use crate::support::run::{Outhaul, outhaul};
use crate::support::{eventually, oracle, within};

const TABLE: &str = "create table t as select i as id, i::text as v from generate_series(1, 5000) i; analyze t";

fn export(url: &str, dest: &Path, source: &[&str]) -> Outhaul {
    let mut arguments = vec!["export", "--from", url, "--to", dest.to_str().unwrap(), "--format", "csv"];
    arguments.extend(["--report", "json", "--progress", "none", "--table", "t"]);
    arguments.extend(source);
    outhaul(arguments)
}

/// Every row takes the server 2 ms: one reader takes 10 s.
const SLOW: [&str; 2] = ["--column", "slow=case when pg_sleep(0.002) is null then 1 end"];

async fn reading(pg: &Pg) {
    eventually(Duration::from_secs(20), "a reader at work", async || {
        let busy = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'
            and application_name like 'outhaul/%' and query like 'COPY%'";
        (pg.value(busy).await != "0").then_some(())
    })
    .await;
}

/// Runs a statement in a session of its own; how long it took, and the session's process.
async fn timed(pg: &Pg, statement: &'static str) -> (tokio::task::JoinHandle<Duration>, String) {
    let client = pg.connect().await;
    let pid = crate::support::pg::rows(&client, "select pg_backend_pid()").await[0][0].clone().unwrap();
    let running = tokio::spawn(async move {
        let began = Instant::now();
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        began.elapsed()
    });
    (running, pid)
}

const LIMIT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn nobody_waits_longer_than_the_limit_for_ddl_or_behind_it() {
    for (version, readers) in [(15, "1"), (15, "2"), (18, "1"), (18, "2")] {
        let pg = pg(version).await;
        pg.batch(TABLE).await;
        let dest = tempfile::tempdir().unwrap();
        let source = [&["--readers", readers, "--yield-to-ddl", "3s"][..], &SLOW].concat();
        let run = export(&pg.url, dest.path(), &source).spawn();
        reading(&pg).await;
        let (alter, pid) = timed(&pg, "alter table t add column x int").await;
        let waiting = format!("select count(*) from pg_locks where pid = {pid} and not granted");
        eventually(LIMIT, "the queued ALTER", async || (pg.value(&waiting).await == "1").then_some(())).await;
        let (query, _) = timed(&pg, "select count(*) from t").await;
        let run = run.wait().await.expect(16);
        let (alter, query) = (alter.await.unwrap(), query.await.unwrap());
        assert!(alter < LIMIT && query < LIMIT, "the ALTER waited {alter:?}, the query behind it {query:?}");
        let told = format!("gave way to process {pid}, whose ALTER has waited");
        assert!(run.stderr.contains(&told) && run.stderr.contains("for AccessExclusiveLock on t"), "{}", run.stderr);
        assert!(!run.stderr.contains("add column"), "{}", run.stderr);
        assert_eq!(run.report["retryable"], true);
        nothing_is_left(dest.path());
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn without_the_limit_ddl_waits_for_the_whole_export() {
    let ways = [("--yield-to-ddl=1s", "yield"), ("--yield-to-ddl=off", "")];
    for (flag, off) in ways {
        let pg = pg(18).await;
        pg.batch(TABLE).await;
        let dest = tempfile::tempdir().unwrap();
        let source = [&["--readers", "2", "--where", "id <= 2500", flag][..], &SLOW].concat();
        let run = export(&pg.url, dest.path(), &source).env("OUTHAUL_TEST_OFF", off).spawn();
        reading(&pg).await;
        let (alter, _) = timed(&pg, "alter table t add column x int").await;
        run.wait().await.expect(0);
        let alter = alter.await.unwrap();
        assert!(alter > Duration::from_millis(1500), "{flag}: the ALTER waited only {alter:?}");
    }
}

/// A role that may see nobody's statements sees who waits.
#[tokio::test]
async fn a_role_without_privileges_gives_way_too() {
    let pg = pg(15).await;
    pg.batch(TABLE).await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!("grant select on t to {role}")).await;
    let dest = tempfile::tempdir().unwrap();
    let source = [&["--readers", "2", "--yield-to-ddl", "1s"][..], &SLOW].concat();
    let run = export(&url, dest.path(), &source).spawn();
    reading(&pg).await;
    let (truncate, pid) = timed(&pg, "truncate t").await;
    let run = run.wait().await.expect(16);
    assert!(run.stderr.contains(&format!("gave way to process {pid}, whose statement has waited")), "{}", run.stderr);
    assert!(truncate.await.unwrap() < Duration::from_secs(2));
}

/// E5: what waits for our snapshot and keeps nobody else waiting goes on after the export; what queues up is given way to.
#[tokio::test]
async fn maintenance_waits_or_is_given_way_to() {
    for version in both() {
        for (statement, code) in [
            ("create index concurrently on t (id)", 0),
            ("vacuum t", 0),
            ("vacuum full t", 16),
            ("cluster t using t_pkey", 16),
        ] {
            let pg = pg(version).await;
            pg.batch(&format!("{TABLE}; alter table t add primary key (id)")).await;
            let expected = oracle::query(&pg, "select *, null::int as slow from t where id <= 2000").await;
            let dest = tempfile::tempdir().unwrap();
            let source = [&["--readers", "2", "--yield-to-ddl", "1s", "--where", "id <= 2000"][..], &SLOW].concat();
            let run = export(&pg.url, dest.path(), &source).spawn();
            reading(&pg).await;
            pg.batch("update t set v = 'new' where id % 3 = 0").await;
            let (done, _) = timed(&pg, statement).await;
            let run = run.wait().await.expect(code);
            if code == 0 {
                assert_eq!(oracle::local(dest.path(), &[]).await, expected, "{statement}");
            } else {
                assert!(run.stderr.contains("gave way to process"), "{}", run.stderr);
                nothing_is_left(dest.path());
            }
            within(Duration::from_secs(20), statement, done).await.unwrap();
        }
    }
}

#[tokio::test]
async fn limits_of_time_end_planning_and_reading() {
    let pg = pg(18).await;
    pg.batch(&format!("{TABLE}; alter table t add primary key (id)")).await;
    let slow = "pg_sleep(0.002) is not null";
    for (source, says) in [
        (&["--max-duration", "1s", "--readers", "2", "--where", slow][..], "--max-duration"),
        (&["--max-duration", "1s", "--readers", "1", "--where", slow], "--max-duration"),
        (&["--max-snapshot-age", "1s", "--where", slow], "--max-snapshot-age"),
        // The search for row N is part of planning.
        (&["--max-snapshot-age", "1s", "--where", slow, "--max-rows", "4000"], "--max-snapshot-age"),
        (&["--max-duration", "1s", "--read-mode", "keyset", "--where", slow], "--max-duration"),
    ] {
        let dest = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let run = export(&pg.url, dest.path(), source).run().await.expect(16);
        assert!(began.elapsed() < Duration::from_secs(5), "{source:?}: {:?}", began.elapsed());
        assert!(run.stderr.contains(says), "{source:?}: {}", run.stderr);
        assert_eq!(run.report["retryable"], true);
        nothing_is_left(dest.path());
        no_sessions_left(&pg).await;
    }
}

#[tokio::test]
async fn readers_keep_to_their_rate_together() {
    let pg = pg(18).await;
    // 8 MB of values.
    pg.batch("create table t as select i as id, repeat('x', 992) as v from generate_series(1, 8000) i; analyze t")
        .await;
    let expected = oracle::query(&pg, "select * from t").await;
    for source in
        [&["--readers", "2"][..], &["--readers", "2", "--read-mode", "keyset", "--key", "id", "--page-size", "999"]]
    {
        if source.contains(&"keyset") {
            pg.batch("alter table t add primary key (id)").await;
        }
        let dest = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let limited = [source, &["--max-bytes-per-second", "4MB"]].concat();
        export(&pg.url, dest.path(), &limited).run().await.expect(0);
        let taken = began.elapsed();
        assert!((2.0..8.0).contains(&taken.as_secs_f64()), "{source:?}: {taken:?}");
        assert_eq!(oracle::local(dest.path(), &[]).await, expected);
    }
}

#[tokio::test]
async fn profiles_differ_in_readers_and_partitions_and_the_plan_says_what_they_evict() {
    let pg = pg(18).await;
    pg.batch("create table t as select i as id, repeat('x', 992) as v from generate_series(1, 36000) i; analyze t")
        .await;
    let plan = async |flags: &[&str]| {
        let arguments = [&["plan", "--from", &pg.url, "--table", "t", "--report", "json"][..], flags].concat();
        let run = outhaul(arguments).run().await.expect(0);
        let read = &run.report["read"];
        let partitions = run.report["partitions"].as_array().unwrap().len();
        (read["readers"].as_u64().unwrap(), partitions, read["may_evict_bytes"].as_u64().unwrap() > 0)
    };
    assert_eq!(plan(&["--source-profile", "gentle"]).await, (2, 1, false));
    assert_eq!(plan(&[]).await, (4, 8, true));
    assert_eq!(plan(&["--source-profile", "fast"]).await.0, 8);
    assert_eq!(plan(&["--source-profile", "fast", "--readers", "2"]).await, (2, 8, true));
    let text = outhaul(["plan", "--from", &pg.url, "--table", "t"]).run().await.expect(0);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("may evict up to") && text.contains("--source-profile gentle"), "{text}");
    let both =
        ["export", "--from", &pg.url, "--table", "t", "--to", "x", "--source-profile", "gentle", "--partitions", "4"];
    outhaul(both).run().await.expect(2);
}

#[tokio::test]
async fn the_report_says_what_the_source_paid() {
    for version in both() {
        let pg = pg(version).await;
        pg.batch(&format!("{TABLE}; alter table t add primary key (id)")).await;
        let blocks: u64 = pg.value("select pg_relation_size('t') / 8192").await.parse().unwrap();
        for (source, connections, held, read) in [
            (&["--readers", "2", "--partitions", "4"][..], 5, true, Some(blocks)),
            (&["--readers", "1"], 2, true, Some(blocks)),
            (&["--readers", "2", "--where", "id < 9"], 4, true, None),
            (&["--read-mode", "keyset", "--readers", "1"], 2, false, None),
        ] {
            let dest = tempfile::tempdir().unwrap();
            let run = export(&pg.url, dest.path(), source).run().await.expect(0);
            let cost = &run.report["source_cost"];
            assert!(cost["peak_connections"].as_u64().unwrap() <= connections, "{source:?}: {cost}");
            assert_eq!(cost["snapshot_age_seconds"].as_f64().is_some_and(|age| age > 0.0), held, "{source:?}: {cost}");
            assert_eq!(cost["heap_blocks_read"].as_u64(), read, "{source:?}: {cost}");
        }
        let dest = tempfile::tempdir().unwrap();
        let arguments = ["export", "--from", &pg.url, "--table", "t", "--to", dest.path().to_str().unwrap()];
        let text = outhaul(arguments).run().await.expect(0);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("  source    ") && text.contains(&format!("{blocks} blocks of heap read")), "{text}");
    }
}

/// All partitions are one statement, and each of them still a Tid Range Scan with its bounds as the condition.
#[tokio::test]
async fn all_partitions_are_one_entry_of_pg_stat_statements() {
    for version in both() {
        let cluster = Cluster::start(version, &["shared_preload_libraries=pg_stat_statements"]).await;
        cluster
            .batch(
                "create extension pg_stat_statements;
                 create table t as select i as id, i::text as v from generate_series(1, 50000) i; analyze t",
            )
            .await;
        let dest = tempfile::tempdir().unwrap();
        let run = export(&cluster.url, dest.path(), &["--readers", "2", "--partitions", "7"]).run().await.expect(0);
        assert_eq!(run.report["rows"], 50_000);
        let client = cluster.connect().await;
        let entries = "select query, calls, rows from pg_stat_statements where query like 'COPY%'";
        let entries = crate::support::pg::rows(&client, entries).await;
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((entry[1].as_deref(), entry[2].as_deref()), (Some("7"), Some("50000")));
        let (select, _) = entry[0].as_ref().unwrap().rsplit_once(") TO STDOUT").unwrap();
        let explain = format!("explain {}", select.strip_prefix("COPY (").unwrap());
        client
            .batch_execute(
                "select set_config('outhaul.from', '(9,0)', false), set_config('outhaul.to', '(12,0)', false)",
            )
            .await
            .unwrap();
        let plan: Vec<String> =
            crate::support::pg::rows(&client, &explain).await.into_iter().map(|row| row[0].clone().unwrap()).collect();
        assert!(plan[0].contains("Tid Range Scan") && plan[1].contains("TID Cond") && plan.len() == 2, "{plan:#?}");
    }
}

/// A server whose cache an export can empty: 2048 buffers, half of them full of a table that is read again and again, and
/// a table of eight times as many. No autovacuum touches either, and both have their hint bits.
async fn small_cache(version: u32) -> Cluster {
    // Rows of a commit that is not on disk get no hint bits, nor do those of the 31 transactions that share its place in the
    // log. The scan would set them, which with checksums is logged, and a ring drops what it would have to flush the log for.
    let settings = [
        "shared_buffers=16MB",
        "autovacuum=off",
        "synchronous_commit=on",
        "shared_preload_libraries=pg_stat_statements",
    ];
    let cluster = Cluster::start(version, &settings).await;
    let client = cluster.connect().await;
    for statement in [
        "create extension pg_buffercache",
        "create extension pg_stat_statements",
        "create table hot as select i as id, repeat('x', 1900) as v from generate_series(1, 4000) i",
        "create table t as select i as id, repeat('x', 1900) as v from generate_series(1, 64000) i",
        "vacuum analyze hot",
        "vacuum analyze t",
        "checkpoint",
    ] {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    // A sequential scan of a table of this size would keep to a ring as well.
    client.batch_execute("set enable_seqscan = off").await.unwrap();
    for _ in 0..6 {
        client.batch_execute("select count(v) from hot where ctid >= '(0,0)'").await.unwrap();
    }
    cluster
}

/// Buffers that hold the hot table.
async fn hot_buffers(cluster: &Cluster) -> u64 {
    let sql = "select count(*) from pg_buffercache
        where relfilenode = pg_relation_filenode('hot') and relforknumber = 0
            and reldatabase = (select oid from pg_database where datname = current_database())";
    let rows = crate::support::pg::rows(&cluster.connect().await, sql).await;
    rows[0][0].as_ref().unwrap().parse().unwrap()
}

/// E4: a sequential scan of a table larger than a quarter of the cache stays in a ring of buffers (`initscan` in
/// `heapam.c`, `GetAccessStrategy`); a scan of ctid ranges asks for none.
#[tokio::test]
async fn gentle_leaves_the_cache_alone_and_balanced_does_not() {
    for version in both() {
        let cluster = small_cache(version).await;
        let before = hot_buffers(&cluster).await;
        assert_eq!(before, 1000);
        let client = cluster.connect().await;
        for (profile, partitions) in [("gentle", 1), ("balanced", 8)] {
            client.batch_execute("select pg_stat_statements_reset()").await.unwrap();
            let dest = tempfile::tempdir().unwrap();
            let run = export(&cluster.url, dest.path(), &["--source-profile", profile]).run().await.expect(0);
            assert_eq!(run.report["rows"], 64_000);
            let left = hot_buffers(&cluster).await;
            let entries = "select query, calls from pg_stat_statements where query like 'COPY%'";
            let entries = crate::support::pg::rows(&client, entries).await;
            let [entry] = entries.as_slice() else { panic!("{entries:?}") };
            assert_eq!(entry[1], Some(partitions.to_string()), "{profile}");
            if profile == "balanced" {
                assert!(left < before / 10, "{version}: balanced left {left} of {before} buffers");
                continue;
            }
            assert!(left > before * 9 / 10, "{version}: gentle left {left} of {before} buffers");
            let (select, _) = entry[0].as_ref().unwrap().rsplit_once(") TO STDOUT").unwrap();
            let explain = format!("explain {}", select.strip_prefix("COPY (").unwrap());
            let plan = crate::support::pg::rows(&client, &explain).await;
            let plan: Vec<&str> = plan.iter().map(|row| row[0].as_deref().unwrap()).collect();
            assert!(plan.len() == 1 && plan[0].starts_with("Seq Scan on t "), "{plan:#?}");
        }
    }
}
