//! What integration tests stand on: real servers (started by `scripts/test`), the built binary, and readers of its
//! results that share no code with it.
//!
//! A server that is missing fails the test that asks for it; nothing is ever skipped. Every wait has a limit.

pub(crate) mod clickhouse;
pub(crate) mod clickhouse_fake;
pub(crate) mod clickhouse_hop;
pub(crate) mod cluster;
pub(crate) mod differential;
pub(crate) mod disk;
pub(crate) mod fake_service;
pub(crate) mod far;
pub(crate) mod foreign;
pub(crate) mod http_proxy;
pub(crate) mod issuer;
pub(crate) mod job;
pub(crate) mod night;
pub(crate) mod oracle;
pub(crate) mod pg;
pub(crate) mod place;
pub(crate) mod run;
pub(crate) mod s3;
pub(crate) mod schemas;
pub(crate) mod secured;
pub(crate) mod service;
pub(crate) mod shapes;
pub(crate) mod sql_names;
pub(crate) mod tcp_proxy;
pub(crate) mod tls;
pub(crate) mod twins;
pub(crate) mod watch;

use std::time::Duration;

/// The address of a server or tool, as `scripts/test` exports it.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests through scripts/test"))
}

/// The result of `work`, or a failed test once `limit` is over: a hang is a failure.
pub(crate) async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}

/// Looks every 10 ms until `found` gives something.
pub(crate) async fn eventually<T>(limit: Duration, what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    within(limit, what, async {
        loop {
            if let Some(value) = found().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// The manifest of a committed local export.
pub(crate) fn manifest(dest: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dest.join("_manifest.json")).unwrap()).unwrap()
}

/// Eight random hexadecimal digits, for names that nobody else uses.
pub(crate) fn unique() -> String {
    format!("{:08x}", rand::random::<u32>())
}
