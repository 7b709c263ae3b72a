//! `--watermark`: no committed row is ever missed, whoever wrote it and whenever he committed; which rows come twice is
//! promised too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::stream::{self, StreamExt as _};
use outhaul::config::{Environment, load};
use outhaul::export;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::cluster::Cluster;
use crate::support::job::data;
use crate::support::manifest;
use crate::support::pg::{Pg, both, connect, pg};
use crate::support::run::{Outhaul, Run, outhaul};

/// A column of each kind that a watermark can be, and which transaction wrote the row.
const TABLE: &str = "create table t (id bigint generated always as identity primary key, ts timestamptz default now(),
    local timestamp default now(), day date default now(), txid xid8 default pg_current_xact_id(), v text);
    create index on t (ts)";

/// Nights of one table, each a load of its own.
struct Loads {
    url: String,
    folder: tempfile::TempDir,
    watermark: &'static str,
    last: Option<PathBuf>,
    nights: usize,
}

impl Loads {
    fn of(url: &str, watermark: &'static str) -> Self {
        Self { url: url.to_owned(), folder: tempfile::tempdir().unwrap(), watermark, last: None, nights: 0 }
    }

    fn folder(&self, night: usize) -> PathBuf {
        self.folder.path().join(format!("t/load={night}"))
    }

    /// The next night.
    fn command(&mut self, args: &[&str]) -> (Outhaul, PathBuf) {
        self.nights += 1;
        let to = self.folder(self.nights);
        let mut all = vec!["export", "--from", &self.url, "--to", to.to_str().unwrap(), "--report", "json"];
        all.extend(["--watermark", self.watermark]);
        for (flag, value) in [("--table", "t"), ("--format", "csv"), ("--csv-header", "off")] {
            let csv_alone = flag == "--csv-header" && args.contains(&"--format");
            all.extend([flag, value].iter().filter(|_| !args.contains(&flag) && !csv_alone));
        }
        let since = self.last.as_ref().map(|last| last.to_str().unwrap().to_owned());
        let since = since.filter(|_| !args.contains(&"--since"));
        all.extend(since.iter().flat_map(|since| ["--since", since.as_str()]));
        all.extend(args);
        (outhaul(&all), to)
    }

    async fn night_with(&mut self, args: &[&str], off: &str, code: i32) -> Run {
        let (command, to) = self.command(args);
        let run = command.env("OUTHAUL_TEST_OFF", off).run().await.expect(code);
        if code == 0 {
            self.last = Some(to);
        }
        run
    }

    async fn night(&mut self, args: &[&str]) -> Vec<String> {
        self.night_with(args, "", 0).await;
        self.texts()
    }

    /// The values of `v` of the last load.
    fn texts(&self) -> Vec<String> {
        let bytes = data(self.last.as_ref().unwrap());
        let lines = String::from_utf8(bytes).unwrap();
        let mut texts: Vec<String> = lines.lines().map(|line| line.rsplit(',').next().unwrap().to_owned()).collect();
        texts.sort();
        texts
    }

    fn watermark(&self) -> Value {
        manifest(self.last.as_ref().unwrap())["watermark"].clone()
    }
}

async fn run(client: &Client, statements: &str) {
    client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// A inserts one row and another in a savepoint, and stays open over the first night; B and C do not.
async fn late_commit(writers: &str, loads: &mut Loads, off: &str) -> (Vec<String>, Vec<String>) {
    run(&connect(writers).await, "insert into t (v) values ('before')").await;
    let (a, b) = (connect(writers).await, connect(writers).await);
    run(&a, "begin; insert into t (v) values ('A'); savepoint s; insert into t (v) values ('Asub'); release s").await;
    run(&b, "insert into t (v) values ('B')").await;
    loads.night_with(&[], off, 0).await;
    let first = loads.texts();
    run(&a, "commit").await;
    run(&b, "insert into t (v) values ('C')").await;
    loads.night_with(&[], off, 0).await;
    (first, loads.texts())
}

/// A server of its own: whoever has a transaction open on it, in any database, has more rows come twice.
async fn server(version: u32) -> Cluster {
    let cluster = Cluster::start(version, &[]).await;
    cluster.batch(TABLE).await;
    cluster
}

#[tokio::test]
async fn rows_that_are_committed_late_are_not_missed() {
    for version in both() {
        let cluster = server(version).await;
        for watermark in ["ts", "local", "day", "id", "txid"] {
            let mut loads = Loads::of(&cluster.url, watermark);
            cluster.batch("truncate t").await;
            let (first, second) = late_commit(&cluster.url, &mut loads, "").await;
            assert_eq!(first, ["B", "before"], "{version} {watermark}");
            assert_eq!(second, ["A", "Asub", "B", "C"], "{version} {watermark}");
            // Nothing new is a load without rows: it commits.
            assert_eq!(loads.night(&[]).await, [""; 0], "{version} {watermark}");
            let mark = loads.watermark();
            assert_eq!(mark["since"], manifest(&loads.folder(2))["run_id"]);
            assert_eq!(mark["column"], watermark);
        }
    }
}

#[tokio::test]
async fn without_the_horizon_or_the_look_back_rows_are_missed() {
    for (watermark, off) in [("ts", "horizon"), ("id", "horizon"), ("ts", "look-back")] {
        let pg = pg(15).await;
        pg.batch(TABLE).await;
        let (_, second) = late_commit(&pg.url, &mut Loads::of(&pg.url, watermark), off).await;
        assert!(!second.contains(&"A".to_owned()), "{watermark} {off}: {second:?}");
    }
}

#[tokio::test]
async fn prepared_transactions_equal_values_and_nulls_are_not_missed() {
    let cluster = Cluster::start(15, &["max_prepared_transactions=2"]).await;
    cluster.batch(TABLE).await;
    for watermark in ["ts", "id", "txid"] {
        cluster.batch("truncate t").await;
        let mut loads = Loads::of(&cluster.url, watermark);
        cluster.batch("insert into t (v) values ('one')").await;
        cluster.batch("begin; insert into t (v) values ('prepared'); prepare transaction 'p'").await;
        cluster.batch("insert into t (v) values ('two')").await;
        assert_eq!(loads.night(&[]).await, ["one", "two"]);
        assert_eq!(loads.watermark()["prepared"], true);
        cluster.batch("commit prepared 'p'").await;
        let found = loads.night(&[]).await;
        assert!(found.contains(&"prepared".to_owned()), "{watermark}: {found:?}");
        // The same value as the greatest one, and none.
        cluster
            .batch(
                "insert into t (ts, txid, v) select max(ts), pg_current_xact_id(), 'equal' from t;
                 insert into t (ts, txid, v) values (null, null, 'null')",
            )
            .await;
        let found = loads.night(&[]).await;
        for text in ["equal", "null"] {
            assert!(found.contains(&text.to_owned()), "{watermark} {text}: {found:?}");
        }
    }
}

#[tokio::test]
async fn partitioned_tables_predicates_and_caps_have_their_new_rows() {
    let pg = Cluster::start(18, &[]).await;
    pg.batch(
        "create table t (id bigint generated always as identity, ts timestamptz default now(), v text) partition by hash (id);
         create table t0 partition of t for values with (modulus 2, remainder 0);
         create table t1 partition of t for values with (modulus 2, remainder 1);
         insert into t (v) select 'old' from generate_series(1, 5000)",
    )
    .await;
    for watermark in ["ts", "id"] {
        let mut loads = Loads::of(&pg.url, watermark);
        loads.night(&["--where", "v <> 'hidden'", "--partitions", "7"]).await;
        pg.batch("insert into t (v) values ('new'), ('hidden'), ('new')").await;
        let found = loads.night(&["--where", "v <> 'hidden'", "--partitions", "7"]).await;
        assert_eq!(found, ["new", "new"], "{watermark}");
        pg.batch("insert into t (v) values ('a'), ('b')").await;
        let before = loads.watermark();
        loads.night(&["--where", "v <> 'hidden'", "--limit", "1", "--key", "id"]).await;
        assert_eq!(manifest(loads.last.as_ref().unwrap())["status"], "truncated");
        for field in ["value", "horizon", "taken_at", "oldest_xact_start"] {
            assert_eq!(loads.watermark()[field], before[field], "a capped load advances {field}");
        }
        assert_eq!(loads.night(&["--where", "v <> 'hidden'"]).await, ["a", "b"]);
        pg.batch("delete from t where v <> 'old'").await;
    }
}

#[tokio::test]
async fn what_a_table_held_before_it_was_attached_is_not_missed() {
    let pg = Cluster::start(18, &[]).await;
    pg.batch(
        "create table t (id bigint, ts timestamptz default now(), txid xid8 default pg_current_xact_id(), v text)
            partition by range (id);
         create table t0 partition of t for values from (0) to (100); insert into t (id, v) values (1, 'old')",
    )
    .await;
    for (at, watermark, args) in
        [(1, "ts", &[][..]), (2, "ts", &["--key", "id"]), (3, "txid", &[]), (4, "ts", &["--partitions", "1"])]
    {
        // Filled before the export, and attached after it.
        pg.batch(&format!(
            "create table t{at} (like t including defaults);
             insert into t{at} (id, ts, v) values ({at}00, '2020-01-01', 'attached')"
        ))
        .await;
        for off in ["", "new-tables"] {
            let mut loads = Loads::of(&pg.url, watermark);
            loads.night(args).await;
            pg.batch(&format!("alter table t attach partition t{at} for values from ({at}00) to ({at}99)")).await;
            loads.night_with(args, off, 0).await;
            let found = loads.texts().contains(&"attached".to_owned());
            assert_eq!(found, off.is_empty(), "{watermark} {args:?}");
            pg.batch(&format!("alter table t detach partition t{at}")).await;
        }
        pg.batch(&format!("drop table t{at}")).await;
    }
}

/// What is detached, filled and attached again between two nights is known by its OID, and its rows are as old as they like.
#[tokio::test]
async fn what_a_table_was_given_while_it_was_detached_is_not_missed() {
    let pg = Cluster::start(18, &[]).await;
    pg.batch(
        "create table t (id bigint, ts timestamptz, v text) partition by range (ts);
         create table t_new partition of t for values from ('2026-01-01') to ('2030-01-01');
         create table t_old partition of t for values from ('2019-01-01') to ('2026-01-01') partition by range (ts);
         create table t_2020 partition of t_old for values from ('2020-01-01') to ('2021-01-01');
         create table p (id bigint, ts timestamptz, v text); create table p_old () inherits (p);
         insert into t values (1, '2026-02-01', 'new'), (2, '2020-02-01', 'old');
         insert into p values (1, '2026-02-01', 'new'); insert into p_old values (2, '2020-02-01', 'old')",
    )
    .await;
    let leaf = (
        "alter table t_old detach partition t_2020; insert into t_2020 values (3, '2020-03-01', 'late')",
        "alter table t_old attach partition t_2020 for values from ('2020-01-01') to ('2021-01-01')",
    );
    let branch = (
        "alter table t detach partition t_old; insert into t_old values (3, '2020-03-01', 'late')",
        "alter table t attach partition t_old for values from ('2019-01-01') to ('2026-01-01')",
    );
    let child = (
        "alter table p_old no inherit p; insert into p_old values (3, '2020-03-01', 'late')",
        "alter table p_old inherit p",
    );
    for (table, (apart, back), args) in [
        ("t", leaf, &[][..]),
        ("t", leaf, &["--partitions", "1"]),
        ("t", branch, &[]),
        ("t", branch, &["--key", "id"]),
        ("p", child, &[]),
    ] {
        let mut loads = Loads::of(&pg.url, "ts");
        let args = [&["--table", table][..], args].concat();
        assert_eq!(loads.night(&args).await, ["new", "old"]);
        pg.batch(apart).await;
        pg.batch(back).await;
        // Frozen it keeps its number.
        pg.batch("vacuum (freeze) pg_inherits").await;
        assert_eq!(loads.night(&args).await, ["late", "old"], "{table} {args:?} {apart}");
        assert_eq!(loads.night(&args).await, [""; 0], "{table} {args:?} {apart}");
        pg.batch(&format!("delete from {table} where id = 3")).await;
    }
}

#[tokio::test]
async fn views_go_by_the_transaction_s_id_alone() {
    let pg = Cluster::start(18, &[]).await;
    pg.batch(&format!("{TABLE}; create view seen as select * from t; insert into t (v) values ('one')")).await;
    let mut loads = Loads::of(&pg.url, "ts");
    let refused = loads.night_with(&["--table", "seen"], "", 2).await;
    assert!(refused.stderr.contains("do not say which transaction wrote them"), "{}", refused.stderr);
    let mut loads = Loads::of(&pg.url, "txid");
    let args = ["--table", "seen"];
    assert_eq!(loads.night(&args).await, ["one"]);
    pg.batch("insert into t (v) values ('two')").await;
    assert_eq!(loads.night(&args).await, ["two"]);
}

#[tokio::test]
async fn what_does_not_fit_the_export_before_is_refused() {
    let pg = pg(18).await;
    pg.batch(&format!("{TABLE}; create table other (like t including all); insert into t (v) values ('one')")).await;
    let mut loads = Loads::of(&pg.url, "ts");
    loads.night(&[]).await;
    for (args, what) in [
        (&["--where", "id > 0"][..], "--where"),
        (&["--columns", "id,ts,v"], "the columns that are asked for"),
        (&["--column", "one=1"], "the columns that are asked for"),
        (&["--table", "other"], "--table or --query"),
        (&["--format", "ndjson"], "--format"),
    ] {
        let (command, _) = loads.command(args);
        let refused = command.run().await.expect(2);
        assert!(refused.stderr.contains(what) && refused.stderr.contains("--since none"), "{}", refused.stderr);
    }
    loads.watermark = "id";
    let (command, _) = loads.command(&[]);
    let refused = command.run().await.expect(2);
    assert!(refused.stderr.contains("differs from it in --watermark"), "{}", refused.stderr);
    // All rows again may be any rows.
    let (command, _) = loads.command(&["--since", "none", "--where", "id > 0"]);
    let run = command.run().await.expect(0);
    assert_eq!(run.report["watermark"]["since"], Value::Null);
    loads.watermark = "ts";
    for (args, what) in [
        (&["--read-mode", "keyset"][..], "--watermark has no meaning with --read-mode keyset"),
        (&["--manifest-stats", "none"], "--watermark has no meaning with --manifest-stats none"),
        (&["--since", "nowhere"], "there is no manifest"),
    ] {
        let refused = loads.night_with(args, "", 2).await;
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    }
    for (column, args, what) in [
        ("v", &[][..], "tell no new rows from old ones"),
        ("nothing", &[], "there is no column"),
        ("id", &["--look-back", "1h"], "--look-back is a time"),
    ] {
        let refused = Loads::of(&pg.url, column).night_with(args, "", 2).await;
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    }
    // A load in the place of another one would take its rows away.
    let to = loads.folder(1);
    let args = ["--to", to.to_str().unwrap(), "--on-existing", "replace", "--since", to.to_str().unwrap()];
    let mut all = vec!["export", "--from", &pg.url, "--table", "t", "--watermark", "ts", "--format", "csv"];
    all.extend(["--csv-header", "off"]);
    all.extend(args);
    let refused = outhaul(&all).run().await.expect(22);
    assert!(refused.stderr.contains("put {run_id} into --to"), "{}", refused.stderr);
    let without = ["export", "--from", &pg.url, "--table", "t", "--to", "x", "--since", "none"];
    let refused = outhaul(without).run().await.expect(2);
    assert!(refused.stderr.contains("--since has no meaning without --watermark"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_changed_schema_is_told_or_refused() {
    let pg = pg(18).await;
    pg.batch(&format!("{TABLE}; insert into t (v) values ('one')")).await;
    let mut loads = Loads::of(&pg.url, "ts");
    loads.night(&[]).await;
    pg.batch("alter table t add column more int; alter table t drop column day; insert into t (v) values ('two')")
        .await;
    let refused = loads.night_with(&["--on-schema-change", "fail"], "", 13).await;
    assert!(refused.stderr.contains("day dropped, more added"), "{}", refused.stderr);
    let told = loads.night_with(&[], "", 0).await;
    assert!(told.stderr.contains("day dropped, more added"), "{}", told.stderr);
    let changes = &loads.watermark()["changes"];
    assert_eq!(changes[1], serde_json::json!({"column": "more", "change": "added"}));
    let shown = outhaul(["show", loads.last.as_ref().unwrap().to_str().unwrap()]).run().await.expect(0);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("watermark   ts up to 20") && shown.contains("column more is new"), "{shown}");
}

#[tokio::test]
async fn another_history_is_exported_in_full() {
    let pg = pg(18).await;
    pg.batch(&format!("{TABLE}; insert into t (v) values ('one')")).await;
    let mut loads = Loads::of(&pg.url, "ts");
    loads.night(&[]).await;
    // The same rows in another table of its name: their transactions say nothing of the first one's.
    pg.batch(&format!(
        "alter table t rename to old; alter index t_pkey rename to old_pkey; {TABLE};
        insert into t (ts, v) select ts, v from old"
    ))
    .await;
    let run = loads.night_with(&[], "", 0).await;
    assert_eq!(loads.texts(), ["one"]);
    assert!(run.stderr.contains("made anew"), "{}", run.stderr);
    assert_eq!(loads.watermark()["since"], Value::Null);
    let told = &run.report["watermark"];
    assert!(told["why_full"].as_str().unwrap().contains("made anew"), "{told}");
    // A manifest of a server that is farther than this one.
    let path = loads.last.clone().unwrap().join("_manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["watermark"]["history"]["lsn"] = "FFFF/0".into();
    std::fs::write(&path, json.to_string()).unwrap();
    let refused = loads.night_with(&[], "", 12).await;
    assert!(refused.stderr.contains("of its WAL"), "{}", refused.stderr);
    json["watermark"]["history"]["system_identifier"] = "7".into();
    std::fs::write(&path, json.to_string()).unwrap();
    let run = loads.night_with(&[], "", 0).await;
    assert!(run.stderr.contains("another server"), "{}", run.stderr);
    assert_eq!(loads.texts(), ["one"]);
}

/// Waits until a standby has all that its primary has written.
async fn caught_up(primary: &Cluster, standby: &Cluster) {
    // The tests' servers commit asynchronously: what is written, let alone sent, may lack the last commits.
    let lsn = crate::support::pg::rows(&primary.connect().await, "select pg_current_wal_insert_lsn()").await;
    let lsn = lsn[0][0].clone().unwrap();
    let sql = format!("select pg_last_wal_replay_lsn() >= '{lsn}'");
    crate::support::eventually(std::time::Duration::from_secs(20), "replay", async || {
        (crate::support::pg::rows(&standby.connect().await, &sql).await[0][0].as_deref() == Some("t")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_standby_misses_nothing_and_a_promoted_one_begins_anew() {
    let streams = ["wal_level=replica", "max_wal_senders=4"];
    let primary = Cluster::start(15, &streams).await;
    let standby = primary.standby(&[&streams[..], &["hot_standby_feedback=on"]].concat()).await;
    primary.batch(&format!("{TABLE}; insert into t (v) values ('before')")).await;
    let caught_up = async || caught_up(&primary, &standby).await;
    let mut loads = Loads::of(&standby.url, "ts");
    let a = primary.connect().await;
    run(&a, "begin; insert into t (v) values ('A'); savepoint s; insert into t (v) values ('Asub'); release s").await;
    primary.batch("insert into t (v) values ('B')").await;
    caught_up().await;
    assert_eq!(loads.night(&[]).await, ["B", "before"]);
    assert_eq!(loads.watermark()["oldest_xact_start"], Value::Null);
    run(&a, "commit").await;
    primary.batch("insert into t (v) values ('C')").await;
    caught_up().await;
    let found: BTreeSet<String> = loads.night(&[]).await.into_iter().collect();
    for text in ["A", "Asub", "C"] {
        assert!(found.contains(text), "{found:?}");
    }
    assert!(!found.contains("before"));
    standby.batch("select pg_promote(true, 60)").await;
    standby.batch("insert into t (v) values ('after')").await;
    let run = loads.night_with(&[], "", 0).await;
    assert!(run.stderr.contains("promoted or restored"), "{}", run.stderr);
    assert_eq!(loads.texts(), ["A", "Asub", "B", "C", "after", "before"]);
}

/// A standby notes late in its files that what it replays is another timeline's: the transactions of the server that was
/// promoted have numbers that the export before had seen of the one that died.
#[tokio::test]
async fn a_standby_that_follows_a_promoted_server_begins_anew() {
    let streams = ["wal_level=replica", "max_wal_senders=4"];
    let insert = async |server: &Cluster, text: &str, times: usize| {
        let client = server.connect().await;
        for _ in 0..times {
            run(&client, &format!("insert into t (v) values ('{text}')")).await;
        }
    };
    let a = Cluster::start(15, &streams).await;
    a.batch(&format!("{TABLE}; create role plain login; grant select on t to plain")).await;
    let (mut b, c) = (a.standby(&streams).await, a.standby(&streams).await);
    b.halt("INT").await;
    c.halt("INT").await;
    insert(&a, "gone", 10).await;
    let mut loads = Loads::of(&a.url, "txid");
    loads.night(&[]).await;
    let from_a = loads.last.clone().unwrap();
    a.halt("QUIT").await;
    c.go_on().await;
    c.batch("select pg_promote(true, 60)").await;
    insert(&c, "anew", 6).await;
    insert(&c, "beyond", 20).await;
    b.follow(&c).await;
    caught_up(&c, &b).await;
    for (url, why) in [(b.url.replace("postgres@", "plain@"), ""), (b.url.clone(), "promoted or restored")] {
        loads.url = url;
        let run = loads.night_with(&["--since", from_a.to_str().unwrap()], "", 0).await;
        let told = run.report["watermark"]["why_full"].as_str().unwrap_or_else(|| panic!("{}", run.report)).to_owned();
        assert!(told.contains(why), "{told}");
        assert_eq!(loads.texts(), [&["anew"; 6][..], &["beyond"; 20]].concat());
    }
    c.batch("insert into t (v) values ('new')").await;
    caught_up(&c, &b).await;
    assert_eq!(loads.night(&[]).await, ["new"]);
}

/// `track_activities` that is off while a transaction begins hides for good when it began.
#[tokio::test]
async fn a_transaction_that_hid_its_beginning_is_not_missed() {
    const LATE: &str = "insert into t (ts, v) values (now() - interval '1 hour', 'late')";
    for version in both() {
        for (first, then) in [(LATE, ""), ("select", LATE)] {
            let pg = pg(version).await;
            pg.batch(&format!("{TABLE}; insert into t (v) values ('before')")).await;
            let mut loads = Loads::of(&pg.url, "ts");
            let hidden = connect(&pg.url).await;
            for statement in ["set track_activities = off", "begin", first, "set track_activities = on"] {
                run(&hidden, statement).await;
            }
            loads.night(&[]).await;
            assert_eq!(loads.watermark()["oldest_xact_start"], Value::Null, "{version} {first}");
            run(&hidden, then).await;
            run(&hidden, "commit").await;
            assert!(loads.night(&[]).await.contains(&"late".to_owned()), "{version} {first}");
            loads.night(&[]).await;
            assert!(loads.watermark()["oldest_xact_start"].is_string(), "{version} {first}");
        }
    }
}

#[tokio::test]
async fn an_old_transaction_of_a_role_that_sees_no_others_is_found_by_looking_at_every_row() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!("grant select on t to {role}")).await;
    let mut loads = Loads::of(&url, "ts");
    let (first, second) = late_commit(&pg.url, &mut loads, "").await;
    assert_eq!(first, ["B", "before"]);
    assert!(second.contains(&"A".to_owned()) && second.contains(&"Asub".to_owned()), "{second:?}");
    let mark = loads.watermark();
    assert_eq!((&mark["oldest_xact_start"], &mark["look_back"]), (&Value::Null, &Value::Null));
    pg.batch(&format!("grant pg_read_all_stats to {role}")).await;
    loads.night(&[]).await;
    assert!(loads.watermark()["oldest_xact_start"].is_string());
}

/// Where nobody tells when the oldest transaction began, `--look-back` bounds nothing.
#[tokio::test]
async fn a_look_back_leaves_out_no_row_of_a_transaction_that_is_older() {
    let pg = pg(18).await;
    pg.batch(TABLE).await;
    let (url, role) = pg.role("").await;
    pg.batch(&format!("grant select on t to {role}; insert into t (v) values ('before')")).await;
    let mut loads = Loads::of(&url, "ts");
    let open = connect(&pg.url).await;
    run(&open, "begin; insert into t (ts, v) values (now() - interval '1 hour', 'begun an hour ago')").await;
    loads.night(&["--look-back", "1s"]).await;
    run(&open, "commit").await;
    assert!(loads.night(&["--look-back", "1s"]).await.contains(&"begun an hour ago".to_owned()));
}

/// A refresh shows rows that were written long before, and an empty parent may be given tables that were filled long before.
#[tokio::test]
async fn rows_that_come_into_view_late_are_not_missed() {
    let pg = Cluster::start(18, &[]).await;
    pg.batch(&format!("{TABLE}; create materialized view seen as select * from t")).await;
    let late = pg.connect().await;
    late.batch_execute("begin; insert into t (ts, v) values (now() - interval '1 hour', 'late')").await.unwrap();
    pg.batch("insert into t (v) values ('one'); refresh materialized view seen").await;
    late.batch_execute("commit").await.unwrap();
    let (mut loads, args) = (Loads::of(&pg.url, "ts"), ["--table", "seen"]);
    assert_eq!(loads.night(&args).await, ["one"]);
    pg.batch("refresh materialized view seen").await;
    assert!(loads.night(&args).await.contains(&"late".to_owned()));
    pg.batch(
        "create table parent (id bigint, ts timestamptz, v text) partition by range (id);
         create table child (id bigint, ts timestamptz, v text); insert into child values (1, '2020-01-01', 'old')",
    )
    .await;
    let (mut loads, args) = (Loads::of(&pg.url, "ts"), ["--table", "parent"]);
    assert_eq!(loads.night(&args).await, [""; 0]);
    pg.batch("select pg_current_xact_id()").await;
    pg.batch("alter table parent attach partition child for values from (0) to (9)").await;
    assert_eq!(loads.night(&args).await, ["old"]);
}

/// The ids of another server's transactions say nothing here.
#[tokio::test]
async fn a_foreign_table_has_no_watermark() {
    let pg = pg(18).await;
    pg.batch(
        "create extension if not exists file_fdw; create server files foreign data wrapper file_fdw;
         create foreign table t (txid xid8, v text) server files options (program 'printf \"800,one\\n\"', format 'csv')",
    )
    .await;
    let run = Loads::of(&pg.url, "txid").night_with(&[], "", 2).await;
    assert!(run.stderr.contains("do not say which transaction wrote them"), "{}", run.stderr);
}

#[tokio::test]
async fn numbers_of_transactions_that_begin_anew_lose_no_row() {
    for watermark in ["ts", "txid"] {
        let cluster = server(15).await;
        for _ in 0..20 {
            cluster.batch("insert into t (v) values ('before')").await;
        }
        // What is frozen keeps its number, which is beyond those that come.
        cluster.batch("vacuum freeze").await;
        let mut loads = Loads::of(&cluster.url, watermark);
        loads.night(&[]).await;
        let horizon = |loads: &Loads| loads.watermark()["horizon"].as_str().unwrap().parse::<u64>().unwrap();
        let before = horizon(&loads);
        cluster.next_transaction(1, 600).await;
        cluster.batch("insert into t (v) values ('first')").await;
        let found = loads.night(&[]).await;
        assert!(found.contains(&"first".to_owned()), "{watermark}: {found:?}");
        assert!(horizon(&loads) > before + (1 << 31), "{watermark}");
        cluster.batch("insert into t (v) values ('second')").await;
        assert_eq!(loads.night(&[]).await, ["second"], "{watermark}");
    }
}

/// What a schedule of writers does to one table over some nights, and what the loads make of it.
struct Schedule {
    random: StdRng,
    pg: Pg,
    writers: Vec<Client>,
    open: Vec<bool>,
    loads: Loads,
    /// The newest version of each row over all loads.
    current: BTreeMap<i64, String>,
    seen: BTreeSet<(i64, String)>,
    versions: u64,
}

const WRITERS: usize = 4;

impl Schedule {
    async fn new(seed: u64, watermark: &'static str) -> Self {
        let pg = pg(if seed.is_multiple_of(2) { 15 } else { 18 }).await;
        pg.batch(TABLE).await;
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let writer = pg.connect().await;
            run(&writer, "set lock_timeout = '5s'").await;
            writers.push(writer);
        }
        Self {
            random: StdRng::seed_from_u64(seed),
            loads: Loads::of(&pg.url, watermark),
            pg,
            writers,
            open: vec![false; WRITERS],
            current: BTreeMap::new(),
            seen: BTreeSet::new(),
            versions: 0,
        }
    }

    /// One statement of one of the writers.
    async fn step(&mut self) {
        let writer = self.random.random_range(0..WRITERS);
        self.versions += 1;
        let version = self.versions;
        let statement = match (self.open[writer], self.random.random_range(0..10)) {
            (false, 0..=3) => "begin".to_owned(),
            (true, 0) => "commit".to_owned(),
            (true, 1) => "rollback".to_owned(),
            (true, 2) => format!("savepoint s; insert into t (v) values ('{writer}-{version}'); rollback to s"),
            (true, 3) => format!("savepoint s; insert into t (v) values ('{writer}-{version}'); release s"),
            // Everybody changes his own rows only, or one would wait for another.
            (_, 4..6) => format!(
                "update t set v = '{writer}-{version}', ts = now(), local = now(), day = now(), txid = pg_current_xact_id()
                 where id in (select id from t where v like '{writer}-%' order by random() limit 2)"
            ),
            _ => format!("insert into t (v) values ('{writer}-{version}')"),
        };
        self.open[writer] = match statement.as_str() {
            "begin" => true,
            "commit" | "rollback" => false,
            _ => self.open[writer],
        };
        run(&self.writers[writer], &statement).await;
    }

    /// Exports what is new, and compares all loads with the table.
    async fn night(&mut self, what: &str) {
        self.loads.nights += 1;
        let to = self.loads.folder(self.loads.nights);
        let mut flags = vec![
            ("from", self.loads.url.clone()),
            ("to", to.to_str().unwrap().to_owned()),
            ("table", "t".to_owned()),
            ("watermark", self.loads.watermark.to_owned()),
            ("columns", format!("id,v,{}", self.loads.watermark).replace(",id", "")),
            ("column", "raw=xmin::text".to_owned()),
            ("format", "csv".to_owned()),
            ("csv_header", "off".to_owned()),
            ("readers", "1".to_owned()),
        ];
        flags.extend(self.loads.last.as_ref().map(|last| ("since", last.to_str().unwrap().to_owned())));
        let horizon = self.loads.last.as_ref().map(|_| self.loads.watermark()["horizon"].clone());
        let flags = flags.into_iter().map(|(key, value)| (key, vec![value])).collect();
        let (request, _) = load(flags, &Environment::default(), true).unwrap();
        let (events, mut told) = tokio::sync::mpsc::channel(64);
        let hearing = tokio::spawn(async move { while told.recv().await.is_some() {} });
        Box::pin(export::run(request, events, CancellationToken::new())).await.unwrap();
        hearing.await.unwrap();
        self.loads.last = Some(to.clone());
        let horizon = horizon.and_then(|horizon| horizon.as_str()?.parse::<u64>().ok());
        for line in String::from_utf8(data(&to)).unwrap().lines() {
            let fields: Vec<&str> = line.split(',').collect();
            let (id, version) = (fields[0].parse::<i64>().unwrap(), fields[1].to_owned());
            let raw: u64 = fields.last().unwrap().parse().unwrap();
            if !self.seen.insert((id, version.clone())) {
                assert!(raw >= horizon.unwrap(), "{what}: {line} came twice, below {horizon:?}");
            }
            self.current.insert(id, version);
        }
        let rows = self.pg.sql("select id, v from t").await;
        let table: BTreeMap<i64, String> =
            rows.into_iter().map(|row| (row[0].clone().unwrap().parse().unwrap(), row[1].clone().unwrap())).collect();
        assert_eq!(self.current, table, "{what}");
    }
}

/// How many schedules: 15, or as many as the soak asks for.
fn seeds() -> u64 {
    std::env::var("OUTHAUL_TEST_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(15)
}

/// Schedules that go on at the same time.
const AT_ONCE: usize = 6;

#[tokio::test]
async fn over_twenty_nights_of_any_schedule_nothing_is_lost() {
    let first: u64 = rand::random::<u32>().into();
    let schedules = stream::iter(first..first + seeds()).map(twenty_nights);
    schedules.buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn twenty_nights(seed: u64) {
    let watermark = ["ts", "id", "txid", "local", "day"][usize::try_from(seed % 5).unwrap()];
    let mut schedule = Schedule::new(seed, watermark).await;
    for night in 0..20 {
        for _ in 0..schedule.random.random_range(0..12) {
            schedule.step().await;
        }
        schedule.night(&format!("seed {seed}, {watermark}, night {night}")).await;
    }
    for (writer, open) in schedule.writers.iter().zip(&schedule.open) {
        if *open {
            run(writer, "commit").await;
        }
    }
    schedule.night(&format!("seed {seed}, {watermark}, the last night")).await;
}
