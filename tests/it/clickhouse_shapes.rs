//! Tables of ClickHouse that are no plain ones: over a cluster, with projections, with columns that are made; and a name that
//! leads to several servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::clickhouse_typed::{Target, found};
use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::run::outhaul;

#[tokio::test]
async fn a_table_over_a_cluster_leaves_exactly_in_one_statement_or_by_a_key() {
    let server = clickhouse().await;
    let columns = "id UInt64, code LowCardinality(FixedString(3)), maybe Nullable(UInt8), twice UInt64 MATERIALIZED id * 2, \
        shown String ALIAS concat(code, '!')";
    server.run(&format!("CREATE TABLE near ({columns}) ENGINE = MergeTree ORDER BY id")).await;
    let rows = "SELECT number, toString(100 + number % 7), if(number % 2 = 0, NULL, 1) FROM numbers(20000)";
    server.run(&format!("INSERT INTO near {rows}")).await;
    let database = &server.database;
    server.run(&format!("CREATE TABLE far AS near ENGINE = Distributed('one', '{database}', 'near', id)")).await;
    let counts = "SELECT count(*), count(DISTINCT id), count(nullif(maybe::VARCHAR, ''))::INT, count(DISTINCT code), sum(twice::BIGINT)::VARCHAR, \
        sum((shown = code || '!')::INT)::INT FROM DATA";
    for table in ["near", "far"] {
        for (format, more) in [
            ("parquet", &[][..]),
            ("csv", &["--compression", "none"]),
            ("ndjson", &["--compression", "none"]),
            ("parquet", &["--key", "id", "--partitions", "5"]),
        ] {
            let target = Target::new();
            let arguments = ["--table", table, "--columns", "id,code,maybe,twice,shown", "--format", format];
            target.export(&server, &[&arguments[..], more].concat()).await.expect(0);
            let expected = json!([[20_000, 20_000, 10_000, 7, "399980000", 20_000]]);
            assert_eq!(found(&target.dest(), counts).await, expected, "{table} {format} {more:?}");
            let manifest = target.manifest();
            let mode = match (table, more.contains(&"--key")) {
                (_, true) => "key_ranges",
                ("near", false) => "part_set",
                _ => "single_statement",
            };
            assert_eq!(manifest["consistency"]["mode"], mode, "{table}");
            // One statement has no count to compare with, and does not say that it has.
            let proof = if mode == "part_set" { "eos_and_count" } else { "eos" };
            assert_eq!(manifest["completeness"]["proof"], proof, "{table}");
        }
    }
    let target = Target::new();
    let run = target.export(&server, &["--table", "far", "--consistency", "per_partition"]).await.expect(0);
    let note = target.manifest()["consistency"]["note"].as_str().unwrap().to_owned();
    assert!(note.contains("engine Distributed has no parts"), "{note} {run:?}");
}

/// The server as somebody sees it whose statements go to the cluster's shard over the network, where nobody listens: the
/// shard is down.
async fn cut_off(server: &ClickHouse) -> String {
    before(server, |_, text: String| text.replacen("POST /?", "POST /?prefer_localhost_replica=0&", 1)).await
}

#[tokio::test]
async fn rows_of_a_shard_that_is_down_are_not_left_out_though_the_table_says_so() {
    let server = clickhouse().await;
    let database = &server.database;
    server.run("CREATE TABLE near (id UInt64) ENGINE = MergeTree ORDER BY id").await;
    server.run("INSERT INTO near SELECT number FROM numbers(1000)").await;
    let skips = "SETTINGS skip_unavailable_shards = 1";
    server.run(&format!("CREATE TABLE far AS near ENGINE = Distributed('one', '{database}', 'near') {skips}")).await;
    server.run("CREATE VIEW seen AS SELECT id FROM far").await;
    let url = format!("clickhouse://writer@{}/{}", cut_off(&server).await, server.database);
    for (arguments, code) in [
        (&["--table", "far"][..], 11),
        (&["--table", "seen", "--key", "id", "--partitions", "3"], 11),
        (&["--query", "SELECT id FROM far"], 11),
        (&["--table", "far", "--format", "source"], 11),
        (&["--query", "SELECT id FROM far FORMAT CSV SETTINGS skip_unavailable_shards = 0"], 11),
        // What it says is its own, and so it must say this too.
        (&["--query", "SELECT id FROM far FORMAT CSV"], 2),
        (&["--query", "SELECT id FROM (SELECT * FROM seen) FORMAT CSV"], 2),
        (&["--query", "SELECT id FROM near FORMAT CSV"], 0),
    ] {
        let target = Target::new();
        let dest = target.dest();
        let own = ["export", "--from", &url, "--to", dest.to_str().unwrap(), "--progress", "none"];
        let command = outhaul([&own[..], arguments].concat()).env("CLICKHOUSE_PASSWORD", &server.password);
        let run = command.run().await.expect(code);
        assert_eq!(dest.join("_manifest.json").exists(), code == 0, "{arguments:?}");
        assert!(code != 2 || run.stderr.contains("shards that are down are left out of"), "{}", run.stderr);
    }
    // Where the shard is up there are all of them.
    for arguments in [&["--table", "far"][..], &["--table", "seen"], &["--query", "SELECT id FROM seen"]] {
        let target = Target::new();
        target.export(&server, arguments).await.expect(0);
        assert_eq!(target.manifest()["totals"]["rows"], 1_000, "{arguments:?}");
    }
}

#[tokio::test]
async fn an_alias_that_changes_from_moment_to_moment_is_read_in_one_statement() {
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE people (id UInt64, born Date, age Int64 ALIAS dateDiff('day', born, today()), \
             old UInt8 ALIAS age > 30000, twice UInt64 ALIAS id * 2) ENGINE = MergeTree ORDER BY id",
        )
        .await;
    server.run("INSERT INTO people SELECT number, toDate('2000-01-01') FROM numbers(4000)").await;
    for (arguments, mode) in [
        (&["--columns", "id,age"][..], "single_statement"),
        (&["--columns", "id,old"], "single_statement"),
        (&["--columns", "id", "--where", "old = 0"], "single_statement"),
        (&["--columns", "id", "--column", "x=toInt64(age + 1)"], "single_statement"),
        (&["--columns", "id", "--key", "age"], "single_statement"),
        (&["--columns", "id,twice"], "part_set"),
        (&["--columns", "id"], "part_set"),
    ] {
        for more in [&[][..], &["--consistency", "per_partition"]] {
            if arguments.contains(&"--key") && !more.is_empty() {
                continue;
            }
            let target = Target::new();
            let all = [&["--table", "people", "--partitions", "4"], arguments, more].concat();
            target.export(&server, &all).await.expect(0);
            let consistency = target.manifest()["consistency"].clone();
            let mode = if mode == "part_set" && !more.is_empty() { "per_partition" } else { mode };
            assert_eq!(consistency["mode"], mode, "{all:?}: {consistency}");
            let note = consistency["note"].as_str().unwrap_or_default();
            assert_eq!(note.contains("today may give another answer"), mode == "single_statement", "{all:?}: {note}");
        }
    }
}

#[tokio::test]
async fn a_name_may_be_as_long_as_clickhouse_has_them() {
    let server = clickhouse().await;
    let name = "long_".repeat(20);
    server.run(&format!("CREATE TABLE {name} (id UInt64) ENGINE = MergeTree ORDER BY id")).await;
    server.run(&format!("INSERT INTO {name} SELECT number FROM numbers(7)")).await;
    let target = Target::new();
    target.export(&server, &["--table", &name]).await.expect(0);
    assert_eq!(target.manifest()["totals"]["rows"], 7);
    // PostgreSQL would cut it.
    let other = ["plan", "--from", "postgres://nobody@127.0.0.1:1/x", "--table", &name];
    let run = outhaul(other).run().await.expect(2);
    assert!(run.stderr.contains("63 bytes"), "{}", run.stderr);
}

async fn projected() -> ClickHouse {
    let server = clickhouse().await;
    server
        .run(
            "CREATE TABLE projected (id UInt64, k UInt8, v String, PROJECTION counts (SELECT k, count() GROUP BY k), \
             PROJECTION sorted (SELECT * ORDER BY k, v)) ENGINE = MergeTree ORDER BY id",
        )
        .await;
    server.run("SYSTEM STOP MERGES projected").await;
    for part in 0..2 {
        let from = part * 100_000;
        server
            .run(&format!(
                "INSERT INTO projected SELECT number + {from}, number % 50, toString(number) FROM numbers(100000)"
            ))
            .await;
    }
    server
}

/// The server takes the place of a row in a projection for its place in the table (ClickHouse#121599, #120719).
#[tokio::test]
async fn projections_change_nothing_in_a_table_that_is_read_by_its_parts() {
    let server = projected().await;
    let counts = "SELECT count(*), count(DISTINCT id), min(k), max(k) FROM DATA";
    let arguments = ["--table", "projected", "--format", "parquet", "--where", "k = 3"];
    for more in
        [&["--partitions", "8"][..], &["--partitions", "8", "--consistency", "per_partition"], &["--partitions", "1"]]
    {
        let target = Target::new();
        target.export(&server, &[&arguments[..], more].concat()).await.expect(0);
        assert_eq!(found(&target.dest(), counts).await, json!([[4_000, 4_000, 3, 3]]), "{more:?}");
        assert!(target.manifest()["consistency"]["note"].as_str().is_none_or(|note| !note.contains("anew")));
    }
    // Whose profile lets nobody switch them off reads in one statement.
    let target = Target::new();
    let dest = target.dest();
    let own = ["--to", dest.to_str().unwrap(), "--progress", "none"];
    server.export_as("settled", &[&own[..], &arguments].concat()).run().await.expect(0);
    assert_eq!(target.manifest()["consistency"]["mode"], "single_statement");
    assert_eq!(found(&dest, counts).await, json!([[4_000, 4_000, 3, 3]]));
}

/// Two servers behind one address, as a load balancer shows them: every other connection is told another name.
async fn two_hosts(server: &ClickHouse) -> String {
    // As long as what it stands for.
    let other =
        |turn: usize, text: String| if turn % 2 == 1 { text.replace(" hostName()", " 'replica2'") } else { text };
    before(server, other).await
}

/// An address before the server, where each request is changed on its way: `change` has its number and its text. It goes on
/// until the test ends.
async fn before(server: &ClickHouse, change: impl Fn(usize, String) -> String + Send + Sync + 'static) -> String {
    let change = Arc::new(change);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (real, turn) = (server.server.clone(), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (real, turn, change) = (real.clone(), Arc::clone(&turn), Arc::clone(&change));
            tokio::spawn(async move {
                let mut request = vec![0; 256 * 1024];
                let mut length = 0;
                // A request of ours is small: its head and its text.
                loop {
                    length += client.read(&mut request[length..]).await.unwrap();
                    let text = String::from_utf8_lossy(&request[..length]).to_lowercase();
                    let Some(end) = text.find("\r\n\r\n") else { continue };
                    let said = text.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                    if length >= end + 4 + said.parse::<usize>().unwrap() {
                        break;
                    }
                }
                let text = String::from_utf8(request[..length].to_vec()).unwrap();
                let text = change(turn.fetch_add(1, Ordering::Relaxed), text);
                let mut upstream = TcpStream::connect(&real).await.unwrap();
                upstream.write_all(text.as_bytes()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_name_that_leads_to_several_servers_is_read_in_one_statement_and_the_plan_says_so() {
    let server = clickhouse().await;
    server.run("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").await;
    server.run("INSERT INTO t SELECT number FROM numbers(5000)").await;
    let address = two_hosts(&server).await;
    let url = format!("clickhouse://writer@{address}/{}", server.database);
    for consistency in ["part_set", "per_partition"] {
        let plan = ["plan", "--from", &url, "--table", "t", "--consistency", consistency];
        let run = outhaul(plan).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
        let told = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(told.contains("connections reach several servers") && told.contains("replica2"), "{told}");
        let target = Target::new();
        let dest = target.dest();
        let export =
            ["export", "--from", &url, "--table", "t", "--consistency", consistency, "--to", dest.to_str().unwrap()];
        outhaul(export).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
        let manifest = target.manifest();
        assert_eq!(manifest["consistency"]["mode"], "single_statement");
        assert_eq!(manifest["totals"]["rows"], 5_000);
        assert!(manifest["consistency"]["note"].as_str().unwrap().contains("several servers"));
    }
}
