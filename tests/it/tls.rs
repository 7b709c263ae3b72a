//! Who is at the other end: certificates, channel binding, and no silent step back (I9; G5, G6).

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::job::{data, sorted};
use crate::support::pg::{both, pg};
use crate::support::run::{Outhaul, outhaul};
use crate::support::secured::Secured;
use crate::support::tls::{Authority, Demand, LOCAL, downgrader, holds, impostor, word};

const CANARY: &str = "canary-password";

/// An export of one row; what is asked for is whether it connects.
fn export(from: &str, source: &[&str]) -> Outhaul {
    let fixed = ["export", "--from", from, "--format", "csv", "--csv-header", "off", "--report", "json"];
    outhaul(fixed.iter().chain(source)).env("PGPASSWORD", CANARY)
}

const ONE: [&str; 4] = ["--query", "select 1 as one", "--to", "out"];

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_never_hears_the_password() {
    let (authority, stranger) = (Authority::new("ec"), Authority::new("ec"));
    let root = word("sslrootcert", &authority.certificate());
    for (certificate, words) in [
        (authority.issue("db", "DNS:db.example", 30), "is for other names"),
        (authority.issue("db", LOCAL, -1), "has expired"),
        (stranger.issue("db", LOCAL, 30), "no trusted authority signed"),
    ] {
        let server = impostor(&certificate, Demand::Clear).await;
        let from = format!("host=127.0.0.1 port={} user=u {root}", server.port);
        for mode in ["verify-full", "verify-ca", "require"] {
            // As in libpq, `verify-ca` and `require` beside a root certificate ask who signed, not for whom.
            if words == "is for other names" && mode != "verify-full" {
                continue;
            }
            let run = export(&format!("{from} sslmode={mode}"), &ONE).run().await.expect(10);
            assert!(run.stderr.contains(words) && run.stderr.contains("hint: "), "{}", run.stderr);
            assert_eq!(run.report["retryable"], false);
            assert_eq!(server.heard(), b"", "{words} {mode}");
        }
        let run = export(&format!("{from} sslmode=verify-full"), &ONE).env("OUTHAUL_TEST_OFF", "certificates");
        run.run().await;
        assert!(holds(&server.heard(), CANARY), "without the check the password is given away: {words}");
    }
    let wrong_name = authority.issue("db", "DNS:db.example", 30);
    let server = impostor(&wrong_name, Demand::Clear).await;
    let from = format!("host=127.0.0.1 port={} user=u {root} sslmode=verify-ca", server.port);
    export(&from, &ONE).run().await;
    assert!(holds(&server.heard(), CANARY), "verify-ca trusts any host of the authority");
}

#[tokio::test]
async fn with_channel_binding_a_password_is_only_proved() {
    let authority = Authority::new("ec");
    let certificate = authority.issue("db", LOCAL, 30);
    let root = word("sslrootcert", &authority.certificate());
    for (demand, given_away) in [(Demand::Clear, CANARY), (Demand::Md5, "md5")] {
        let server = impostor(&certificate, demand).await;
        let from = format!("host=127.0.0.1 port={} user=u {root} sslmode=verify-full", server.port);
        let run = export(&format!("{from} channel_binding=require"), &ONE).run().await.expect(10);
        assert!(run.stderr.contains("server did not use channel binding"), "{}", run.stderr);
        assert!(run.stderr.contains("scram-sha-256"), "{}", run.stderr);
        assert_eq!(server.heard(), b"");
        let off = export(&format!("{from} channel_binding=require"), &ONE).env("OUTHAUL_TEST_OFF", "channel_binding");
        off.run().await;
        assert!(holds(&server.heard(), given_away), "{}", server.heard().escape_ascii());
    }
    let authority = Authority::new("ed25519");
    let server = impostor(&authority.issue("db", LOCAL, 30), Demand::Clear).await;
    let root = word("sslrootcert", &authority.certificate());
    let from = format!("host=127.0.0.1 port={} user=u {root} sslmode=verify-full channel_binding=require", server.port);
    let run = export(&from, &ONE).run().await.expect(10);
    assert!(run.stderr.contains("Ed25519") && run.stderr.contains("channel_binding=prefer"), "{}", run.stderr);
    assert_eq!(server.heard(), b"");
}

#[tokio::test]
async fn a_proxy_that_says_there_is_no_tls_is_not_believed() {
    let pg = pg(15).await;
    let (server, database) = pg.url.rsplit_once('@').unwrap().1.split_once('/').unwrap();
    let proxy = downgrader(server.to_owned()).await;
    let from = format!("host=127.0.0.1 port={} user=postgres dbname={database}", proxy.port);
    for mode in ["require", "verify-ca", "verify-full"] {
        let run = export(&format!("{from} sslmode={mode}"), &ONE).run().await.expect(10);
        assert!(run.stderr.contains("the server speaks no TLS"), "{}", run.stderr);
        assert_eq!(proxy.heard(), b"", "{mode}");
    }
    export(&format!("{from} sslmode=prefer"), &ONE).run().await.expect(0);
    assert!(holds(&proxy.heard(), "select 1 as one"), "prefer takes what it gets, as in libpq");
    // A server without TLS, and the default for this machine.
    export(&pg.url, &ONE).run().await.expect(0);
}

/// The roles that `Secured` knows by name, all with one password.
async fn make_roles(cluster: &Secured) {
    for role in ["certified", "encrypted", "plain", "old", "clear", "trusted"] {
        let kind = if role == "old" { "md5" } else { "scram-sha-256" };
        cluster
            .batch(&format!("set password_encryption = '{kind}'; create role {role} login password '{CANARY}'"))
            .await;
    }
    cluster.batch("create table t as select i as id from generate_series(1, 40) i; grant select on t to public").await;
}

#[tokio::test]
async fn sessions_are_encrypted_verified_and_bound() {
    let authority = Authority::new("ec");
    let server = authority.issue("db", LOCAL, 30);
    let (client, other) = (authority.issue("certified", "DNS:x", 30), authority.issue("somebody", "DNS:x", 30));
    let files = [word("sslcert", &client.certificate), word("sslkey", &client.key)].join(" ");
    let root = word("sslrootcert", &authority.certificate());
    for version in both() {
        let cluster = Secured::start(version, &authority, &server).await;
        make_roles(&cluster).await;
        let full = format!("{root} sslmode=verify-full");
        // Both readers and their COPY, which goes past the driver.
        let reads = async |user: &str, rest: &str, encrypted: bool| {
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("out");
            let column = "ssl=(select s.ssl from pg_stat_ssl s where s.pid = pg_backend_pid())";
            let args = ["--table", "t", "--column", column, "--partitions", "4", "--readers", "2"];
            let args = [&args[..], &["--to", to.to_str().unwrap()]].concat();
            export(&cluster.from(user, rest), &args).run().await.expect(0);
            let rows = sorted(&data(&to));
            let flag = if encrypted { ",t" } else { ",f" };
            assert!(rows.len() == 40 && rows.iter().all(|row| row.ends_with(flag)), "{user} {rest}: {rows:?}");
        };
        let refused = async |user: &str, rest: &str, words: &str| {
            let run = export(&cluster.from(user, rest), &ONE).run().await.expect(10);
            assert!(run.stderr.contains(words), "{user} {rest}: {}", run.stderr);
        };
        // SCRAM with a proof that is bound to the server's certificate.
        reads("encrypted", &format!("{full} channel_binding=require"), true).await;
        reads("encrypted", &full, true).await;
        reads("encrypted", &format!("{full} channel_binding=disable"), true).await;
        reads("encrypted", "", true).await;
        refused("encrypted", "sslmode=disable", "no pg_hba.conf entry").await;
        // The old ways, which channel binding rules out.
        reads("old", &full, true).await;
        reads("clear", &full, true).await;
        for user in ["old", "clear", "trusted"] {
            refused(user, &format!("{full} channel_binding=require"), "server did not use channel binding").await;
        }
        // `prefer` goes on without TLS where pg_hba.conf wants it so; nothing stricter does.
        reads("plain", "sslmode=prefer", false).await;
        refused("plain", "sslmode=require", "no pg_hba.conf entry").await;
        refused("plain", &full, "no pg_hba.conf entry").await;
        // Client certificates.
        reads("certified", &format!("{full} {files}"), true).await;
        refused("certified", &full, "certificate").await;
        refused("certified", &format!("{full} {files} sslcertmode=disable"), "certificate").await;
        let others = [word("sslcert", &other.certificate), word("sslkey", &other.key)].join(" ");
        refused("certified", &format!("{full} {others}"), "certificate authentication failed").await;
        let mixed = [word("sslcert", &client.certificate), word("sslkey", &other.key)].join(" ");
        refused("certified", &format!("{full} {mixed}"), "do not belong together").await;
        let open = client.key.with_extension("open");
        std::fs::copy(&client.key, &open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
        let opened = [word("sslcert", &client.certificate), word("sslkey", &open)].join(" ");
        refused("certified", &format!("{full} {opened}"), "chmod 600").await;
        cancelled(&cluster, &full).await;
    }
}

/// A cancel request takes the way of the sessions.
async fn cancelled(cluster: &Secured, rest: &str) {
    let slow = ["--query", "select id, pg_sleep(1) is null as slow from t", "--to", "out"];
    let run = export(&cluster.from("encrypted", rest), &slow).spawn();
    // Planning names the query too.
    let running = "select 1 from pg_stat_activity where usename = 'encrypted' and query like 'COPY%pg_sleep%'
        and state = 'active'";
    eventually(Duration::from_secs(30), "the query", async || (!cluster.sql(running).await.is_empty()).then_some(()))
        .await;
    let started = Instant::now();
    run.signal("INT").await;
    let run = run.wait().await.expect(130);
    eventually(Duration::from_secs(5), "the end of the query", async || {
        cluster.sql(running).await.is_empty().then_some(())
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let log = cluster.log();
    assert!(log.contains("canceling statement due to user request"), "{}", run.stderr);
}
