//! Several servers, and which of them is read.

use crate::support::pg::{Pg, pg};
use crate::support::run::outhaul;
use crate::support::unique;

/// A database of one name on both servers: sessions in that on 15 are read-only by default.
struct Two {
    first: Pg,
    second: Pg,
    name: String,
}

impl Two {
    async fn start() -> Self {
        let (first, second) = (pg(15).await, pg(18).await);
        let name = format!("servers_{}", unique());
        for server in [&first, &second] {
            server.batch(&format!("create database {name} template template0")).await;
        }
        first.batch(&format!("alter database {name} set default_transaction_read_only = on")).await;
        Self { first, second, name }
    }

    /// `postgres://postgres@one,two/name?target_session_attrs=…`, and a first host on which nobody listens.
    fn url(&self, target: &str) -> String {
        let host = |pg: &Pg| pg.url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        let hosts = ["127.0.0.1:1".to_owned(), host(&self.first), host(&self.second)].join(",");
        format!("postgres://postgres@{hosts}/{}?target_session_attrs={target}", self.name)
    }

    async fn drop(self) {
        for server in [&self.first, &self.second] {
            server.batch(&format!("drop database {} with (force)", self.name)).await;
        }
    }
}

#[tokio::test]
async fn the_first_server_that_is_what_was_asked_for_is_read() {
    let two = Two::start().await;
    for (target, version) in [
        ("any", "15."),
        ("read-only", "15."),
        ("primary", "15."),
        ("read-write", "18."),
        // Neither is a standby, so that the first that answers will do.
        ("prefer-standby", "15."),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("out");
        let query = "select 1 as one";
        let url = two.url(target);
        let args = ["export", "--from", &url, "--query", query, "--to", to.to_str().unwrap(), "--report", "json"];
        outhaul(args).run().await.expect(0);
        let manifest = crate::support::manifest(&to);
        let found = manifest["source"]["server_version"].as_str().unwrap();
        assert!(found.starts_with(version), "{target}: {found}");
    }
    two.drop().await;
}

#[tokio::test]
async fn where_no_server_is_what_was_asked_for_each_is_told_with_its_reason() {
    let two = Two::start().await;
    let url = two.url("standby");
    let run =
        outhaul(["plan", "--from", &url, "--query", "select 1 as one", "--report", "json"]).run().await.expect(11);
    assert_eq!(run.stderr.matches("server is not in hot standby mode").count(), 2, "{}", run.stderr);
    assert!(run.stderr.contains("127.0.0.1:1: connection refused"), "{}", run.stderr);
    assert_eq!(run.report["retryable"], true, "{}", run.report);
    two.drop().await;
}
