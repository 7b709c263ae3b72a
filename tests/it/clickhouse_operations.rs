//! ClickHouse as it is run: behind TLS, with a log of queries, beside others who need its threads; and what a person is told who
//! names the wrong place or is not let in.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::clickhouse::{ClickHouse, clickhouse};
use crate::support::clickhouse_fake::{FakeClickHouse, Scripted};
use crate::support::clickhouse_hop::{Hop, Meddling};
use crate::support::run::{Outhaul, Run, Stop, outhaul};
use crate::support::tls::{Authority, LOCAL, Listener, fronted, holds, word};
use crate::support::{eventually, manifest, unique, variable};

const LIMIT: Duration = Duration::from_secs(20);

async fn numbers(rows: u32) -> ClickHouse {
    let server = clickhouse().await;
    server.run("CREATE TABLE t (id UInt32, s String) ENGINE = MergeTree ORDER BY id").await;
    server.run(&format!("INSERT INTO t SELECT number, toString(number) FROM numbers({rows})")).await;
    server
}

/// An export through TLS; `words` follow the URL's `?`.
fn through(server: &ClickHouse, front: &Listener, words: &[&str], arguments: &[&str]) -> Outhaul {
    let url = format!("clickhouses://writer@127.0.0.1:{}/{}?{}", front.port, server.database, words.join("&"));
    let own = ["export", "--from", url.as_str(), "--format", "csv", "--to", "-"];
    outhaul(own.iter().chain(arguments)).env("CLICKHOUSE_PASSWORD", &server.password)
}

const TABLE: [&str; 2] = ["--table", "t"];

#[tokio::test]
async fn https_is_verified_and_a_server_that_proves_nothing_never_hears_the_password() {
    let server = numbers(1000).await;
    let (authority, stranger) = (Authority::new("ec"), Authority::new("ec"));
    let root = word("sslrootcert", &authority.certificate());
    let good = fronted(&authority.issue("db", LOCAL, 30), server.server.clone(), None).await;
    let run = through(&server, &good, &[&root], &TABLE).run().await.expect(0);
    assert_eq!(std::io::BufRead::lines(run.stdout.as_slice()).count(), 1001);
    assert!(holds(&good.heard(), &server.password), "it went past TLS");
    // What the system trusts is trusted without a word.
    let trusting = through(&server, &good, &[], &TABLE).env("SSL_CERT_FILE", authority.certificate());
    trusting.run().await.expect(0);
    for (certificate, words, hint) in [
        (authority.issue("db", "DNS:db.example", 30), "is for other names", "alternative names"),
        (authority.issue("db", LOCAL, -1), "has expired", "a new one"),
        (stranger.issue("db", LOCAL, 30), "no trusted authority signed", "sslrootcert"),
    ] {
        let front = fronted(&certificate, server.server.clone(), None).await;
        for mode in ["sslmode=verify-full", ""] {
            let given: Vec<&str> = [root.as_str(), mode].into_iter().filter(|word| !word.is_empty()).collect();
            let run = through(&server, &front, &given, &TABLE).run().await.expect(10);
            assert!(run.stderr.contains(words) && run.stderr.contains(hint), "{}", run.stderr);
            assert!(run.stdout.is_empty());
        }
        assert_eq!(front.heard(), b"", "{words}");
        // Who asks for no check gets none.
        through(&server, &front, &["sslmode=require"], &TABLE).run().await.expect(0);
        assert!(holds(&front.heard(), &server.password));
    }
    let wrong_name = fronted(&authority.issue("db", "DNS:db.example", 30), server.server.clone(), None).await;
    through(&server, &wrong_name, &[&root, "sslmode=verify-ca"], &TABLE).run().await.expect(0);
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_the_server_wants_one() {
    let server = numbers(1000).await;
    let (authority, stranger) = (Authority::new("ec"), Authority::new("ec"));
    let root = word("sslrootcert", &authority.certificate());
    let front = fronted(&authority.issue("db", LOCAL, 30), server.server.clone(), Some(&authority)).await;
    let own = authority.issue("writer", "DNS:x", 30);
    let other = stranger.issue("writer", "DNS:x", 30);
    let files = |one: &crate::support::tls::Certificate| [word("sslcert", &one.certificate), word("sslkey", &one.key)];
    let [certificate, key] = files(&own);
    through(&server, &front, &[&root, &certificate, &key], &TABLE).run().await.expect(0);
    let heard = front.heard().len();
    let none = through(&server, &front, &[&root], &TABLE).run().await.expect(10);
    assert!(none.stderr.contains("certificate") && none.stderr.contains("sslcert=FILE"), "{}", none.stderr);
    let [certificate, key] = files(&other);
    let refused = through(&server, &front, &[&root, &certificate, &key], &TABLE).run().await.expect(10);
    assert!(refused.stderr.contains("refuses the client's certificate"), "{}", refused.stderr);
    assert_eq!(front.heard().len(), heard, "something was asked without a certificate");
    let mixed =
        through(&server, &front, &[&root, &word("sslcert", &own.certificate), &key], &TABLE).run().await.expect(10);
    assert!(mixed.stderr.contains("do not belong together"), "{}", mixed.stderr);
}

#[tokio::test]
async fn several_readers_the_servers_own_bytes_and_a_cancel_go_through_https() {
    let server = numbers(300_000).await;
    let authority = Authority::new("ec");
    let root = word("sslrootcert", &authority.certificate());
    let front = fronted(&authority.issue("db", LOCAL, 30), server.server.clone(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let url = format!("clickhouses://writer@127.0.0.1:{}/{}?{root}", front.port, server.database);
    let typed = ["export", "t", "--from", &url, "--to", to.to_str().unwrap(), "--readers", "2", "--partitions", "5"];
    outhaul(typed).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
    assert_eq!(manifest(&to)["totals"]["rows"], 300_000);
    let sql = "SELECT * FROM t ORDER BY id FORMAT Native";
    let verbatim = ["export", "--query", sql, "--from", &url, "--to", "-"];
    let run = outhaul(verbatim).env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
    assert!(run.stdout == server.bytes(sql).await);
    let word = format!("w{}", unique());
    let endless =
        format!("SELECT number AS {word}, sleepEachRow(0.01) AS s FROM system.numbers SETTINGS max_block_size = 10");
    let running = async || {
        let sql = format!(
            "SELECT count() FROM system.processes WHERE query LIKE '%{word}%' AND query NOT LIKE '%processes%'"
        );
        server.run(&sql).await.trim().parse::<u32>().unwrap()
    };
    let run = through(&server, &front, &[&root], &["--query", &endless]).spawn();
    eventually(LIMIT, "the query's beginning", async || (running().await > 0).then_some(())).await;
    run.signal("INT").await;
    run.wait().await.expect(130);
    eventually(LIMIT, "the query's end", async || (running().await == 0).then_some(())).await;
}

/// Exports a query in the server's own bytes.
async fn verbatim(server: &FakeClickHouse) -> (Run, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let query = ["--query", "SELECT n FROM t FORMAT TSV", "--to", to.to_str().unwrap()];
    (server.export(&query).env("OUTHAUL_TEST_LIMITS", "query_log=0.01").run().await, folder)
}

#[tokio::test]
async fn the_servers_log_proves_what_an_answer_without_a_tag_cannot() {
    let server = numbers(100_000).await;
    let hop = Hop::before(&server, Meddling::Untag).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out");
    let sql = "SELECT * FROM t ORDER BY id FORMAT TSV";
    hop.export(&server, &["--query", sql, "--to", to.to_str().unwrap()]).run().await.expect(0);
    let manifest_of = manifest(&to);
    assert_eq!(manifest_of["completeness"]["proof"], "query_log");
    assert!(manifest_of["consistency"]["note"].is_null(), "{}", manifest_of["consistency"]);
    let path = manifest_of["parts"][0]["path"].as_str().unwrap();
    assert!(std::fs::read(to.join(path)).unwrap() == server.bytes(sql).await);
    // The same answer, of which the log says each thing that a log can say.
    for (log, code, proof) in [
        (Some("QueryFinish\t\n"), 0, "query_log"),
        (Some(""), 0, "heuristic"),
        (None, 0, "heuristic"),
        (Some("ExceptionWhileProcessing\tCode: 241. DB::Exception: Memory limit exceeded. (NAME)\n"), 16, ""),
        (Some("ExceptionWhileProcessing\tCode: 395. DB::Exception: no. (NAME)\n"), 15, ""),
    ] {
        let fake = FakeClickHouse::start("23.8.1.2", vec![Scripted::bare(b"1\n2\n")]).await;
        if let Some(log) = log {
            fake.logs(log);
        }
        let (run, folder) = verbatim(&fake).await;
        let to = folder.path().join("out");
        assert_eq!(run.code, code, "{log:?}: {}", run.stderr);
        if code == 0 {
            assert_eq!(manifest(&to)["completeness"]["proof"], proof, "{log:?}");
        } else {
            assert!(!to.join("_manifest.json").exists() && !to.join("data").exists(), "{log:?}");
        }
        // It is asked for the very query whose answer was read.
        let asked = fake.statements();
        let (path, _) = asked.iter().find(|(_, sql)| sql.starts_with("SELECT n")).unwrap();
        let id = path.split(['?', '&']).find_map(|word| word.strip_prefix("query_id=")).unwrap();
        assert!(asked.iter().any(|(_, sql)| sql.contains("query_log") && sql.contains(id)), "{asked:?}");
    }
}

#[tokio::test]
async fn readers_together_take_no_more_threads_than_one_query_may() {
    let server = clickhouse().await;
    server.run("CREATE TABLE t (id UInt32, s String) ENGINE = MergeTree ORDER BY id").await;
    let most: u32 = server.run("SELECT getSetting('max_threads')").await.trim().parse().unwrap();
    // A slice is more than sockets take in, so that no query ends while nobody reads.
    let (slices, rows) = ((most * 2).to_string(), most * 2 * 5000);
    server.run(&format!("INSERT INTO t SELECT number, randomPrintableASCII(5000) FROM numbers({rows})")).await;
    for (readers, off) in [(1, ""), (most, ""), (most + 5, ""), (most, "reader_threads")] {
        let queries = readers.min(most);
        // Switched off, each takes as many as one alone may.
        let threads = if off.is_empty() { most / queries * queries } else { most * queries };
        let (folder, stop, text) = (tempfile::tempdir().unwrap(), Stop::at("batch"), readers.to_string());
        let to = folder.path().join("out");
        let arguments = ["--table", "t", "--to", to.to_str().unwrap(), "--readers", &text, "--partitions", &slices];
        let run = server.export(&arguments).env("OUTHAUL_TEST_OFF", off).stops([&stop]).spawn();
        run.stands_at(&stop).await;
        let sql = format!(
            "SELECT count(), sum(toUInt32(if(Settings['max_threads'] = '', '{most}', Settings['max_threads']))) \
             FROM system.processes \
             WHERE query LIKE '%_part_offset%' AND current_database = '{}' AND query_id LIKE 'outhaul-%' \
             FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0",
            server.database
        );
        let seen = async || serde_json::from_str::<Value>(&server.run(&sql).await).unwrap();
        let all = json!([queries, threads]);
        // Every reader that there may be has its query, which waits.
        let what = format!("{all}, queries and threads, for {readers} readers");
        eventually(LIMIT, &what, async || (seen().await == all).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(seen().await, all, "{readers} readers");
        run.signal("INT").await;
        stop.release();
        run.wait().await.expect(130);
        eventually(LIMIT, "the end of all queries", async || (seen().await[0] == 0).then_some(())).await;
    }
}

/// A server runs no two queries of one id: whoever asks second is refused, and a kill meant for one ends the other.
#[tokio::test]
async fn no_two_processes_call_a_query_the_same() {
    let server = numbers(10).await;
    let url = server.url("writer");
    let verbatim = ["--query", "SELECT id FROM t FORMAT JSONEachRow"];
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let kept = kept.to_str().unwrap();
    server.export(&["--table", "t", "--to", kept, "--run-id", "kept"]).run().await.expect(0);
    for round in ["one", "two"] {
        let to = folder.path().join(round);
        let own = to.with_extension("own");
        let (to, own) = (to.to_str().unwrap(), own.to_str().unwrap());
        for run in [
            outhaul(["ls", "--from", &url]),
            outhaul(["plan", "--from", &url, "--table", "t"]),
            outhaul(["verify", kept, "--against-source", "--from", &url]),
            server.export(&["--table", "t", "--to", to, "--run-id", "same"]),
            server.export(&[&verbatim[..], &["--to", own, "--run-id", "same"]].concat()),
        ] {
            run.env("CLICKHOUSE_PASSWORD", &server.password).run().await.expect(0);
        }
    }
    server.run("SYSTEM FLUSH LOGS query_log").await;
    let of_ours = "system.query_log WHERE current_database = currentDatabase() AND type = 'QueryStart' \
        AND query_id LIKE 'outhaul-%'";
    let all: u32 = server.run(&format!("SELECT count() FROM {of_ours}")).await.trim().parse().unwrap();
    assert!(all > 20, "{all}");
    let twice = format!("SELECT query_id, groupArray(query) FROM {of_ours} GROUP BY query_id HAVING count() > 1");
    assert_eq!(server.run(&twice).await, "");
}

/// A server that answers each request with these bytes and goes.
async fn says(answer: &'static [u8]) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer).await;
            let _ = socket.shutdown().await;
            // What was sent to it is read, so that its end is no reset.
            let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        }
    });
    (port, task)
}

/// What is tried: a connection string, a table, the exit code, words of the error, and words of the hint.
type WrongTurn = (String, &'static str, i32, &'static str, &'static str);

/// Where no ClickHouse server speaks HTTP.
fn wrong_places(server: &ClickHouse, [native, silent, banner, https]: [u16; 4], postgres: &str) -> Vec<WrongTurn> {
    let (address, database) = (&server.server, &server.database);
    vec![
        (
            format!("clickhouse://writer@no-such-host.invalid/{database}"),
            "t",
            11,
            "its name stands for no address",
            "host and port",
        ),
        (
            format!("clickhouse://writer@127.0.0.1:9/{database}"),
            "t",
            11,
            "cannot connect to 127.0.0.1:9: connection refused",
            "host and port",
        ),
        (
            format!("clickhouse://writer@127.0.0.1:{native}/{database}"),
            "t",
            2,
            "You must use port 8123 for HTTP",
            "8123",
        ),
        (format!("clickhouse://writer@127.0.0.1:{silent}/{database}"), "t", 11, "asking the server what it is", "9000"),
        (format!("clickhouse://writer@127.0.0.1:{banner}/{database}"), "t", 2, "does not speak HTTP", "8123"),
        (format!("clickhouse://writer@{postgres}"), "t", 11, "asking the server what it is", "9000"),
        (format!("clickhouse://writer@127.0.0.1:{https}/{database}"), "t", 2, "does not speak HTTP", "clickhouses://"),
        (format!("clickhouses://writer@{address}/{database}"), "t", 10, "speaks no TLS", "8123"),
        (format!("https://writer@{address}/{database}"), "t", 2, "no URL of a source", "clickhouses://"),
    ]
}

/// Where one does, and does not know who or what is meant.
fn wrong_people(server: &ClickHouse) -> Vec<WrongTurn> {
    let (address, database) = (&server.server, &server.database);
    vec![
        (
            format!("clickhouse://writer@{address}/nowhere"),
            "t",
            13,
            "Database nowhere does not exist",
            "names the database",
        ),
        (format!("clickhouse://writer@{address}/{database}"), "orders", 13, "there is no table", "outhaul ls"),
        (
            format!("clickhouse://stranger@{address}/{database}"),
            "t",
            10,
            "Authentication failed",
            "CLICKHOUSE_PASSWORD",
        ),
        (
            format!("clickhouse://writer:hunter2@{address}/{database}"),
            "t",
            2,
            "a password on the command line",
            "CLICKHOUSE_PASSWORD",
        ),
    ]
}

#[tokio::test]
async fn whoever_names_the_wrong_place_or_is_not_let_in_is_told_what_to_do() {
    let server = numbers(10).await;
    let authority = Authority::new("ec");
    let front = fronted(&authority.issue("db", LOCAL, 30), server.server.clone(), None).await;
    // As the port of clickhouse-client answers to HTTP.
    let native = b"HTTP/1.0 400 Bad Request\r\n\r\nPort 9000 is for clickhouse-client program\r\nYou must use port 8123 for HTTP.\r\n";
    let (native, _native) = says(native).await;
    let (silent, _silent) = says(b"").await;
    let (banner, _banner) = says(b"220 mail.example ESMTP\r\n").await;
    let postgres = variable("OUTHAUL_TEST_PG15").rsplit_once('@').unwrap().1.to_owned();
    let ports = [native, silent, banner, front.port];
    let cases = wrong_places(&server, ports, &postgres).into_iter().chain(wrong_people(&server));
    for (from, table, code, words, hint) in cases {
        let run =
            outhaul(["export", table, "--from", &from, "--to", "out"]).env("CLICKHOUSE_PASSWORD", &server.password);
        let run = run.run().await;
        assert_eq!(run.code, code, "{from}: {}", run.stderr);
        let (error, hints) =
            run.stderr.split_once("\nhint: ").unwrap_or_else(|| panic!("{from}: no hint: {}", run.stderr));
        assert!(error.contains(words) && hints.contains(hint), "{from}: {}", run.stderr);
        assert!(!run.stderr.contains("hunter2") && !run.stderr.contains(&server.password), "{}", run.stderr);
    }
    let wrong =
        server.export(&["--table", "t", "--to", "out"]).env("CLICKHOUSE_PASSWORD", "hunter2").run().await.expect(10);
    assert!(wrong.stderr.contains("password is incorrect") && !wrong.stderr.contains("hunter2"), "{}", wrong.stderr);
}
