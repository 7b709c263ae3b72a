//! Stores that are not S3: Google's and Azure's clients do all that the S3 client does, alone and in a whole export.

use std::collections::BTreeMap;

use serde_json::json;

use crate::store::store_suite::{self, Subject};
use crate::support::http_proxy::Proxy;
use crate::support::job::{command, no_sessions_left};
use crate::support::pg;
use crate::support::run::outhaul;
use crate::support::{unique, variable};

/// Azurite.
fn azure() -> BTreeMap<String, String> {
    [
        ("AZURE_STORAGE_ENDPOINT", variable("OUTHAUL_TEST_AZURE_ENDPOINT")),
        ("AZURE_STORAGE_ACCOUNT_NAME", variable("OUTHAUL_TEST_AZURE_ACCOUNT")),
        ("AZURE_STORAGE_ACCOUNT_KEY", variable("OUTHAUL_TEST_AZURE_KEY")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The S3 server's bucket that needs no signature, through a proxy that knows generations.
async fn google() -> (Proxy, BTreeMap<String, String>) {
    let proxy = Proxy::google(&variable("OUTHAUL_TEST_S3_ENDPOINT")).await;
    let account = json!({
        "gcs_base_url": proxy.endpoint,
        "disable_oauth": true,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    });
    (proxy, BTreeMap::from([("GOOGLE_SERVICE_ACCOUNT_KEY".to_owned(), account.to_string())]))
}

fn google_url() -> String {
    format!("gs://{}/{}", variable("OUTHAUL_TEST_S3_OPEN_BUCKET"), unique())
}

fn azure_url() -> String {
    format!("az://{}/{}", variable("OUTHAUL_TEST_AZURE_CONTAINER"), unique())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_does_what_every_destination_does() {
    let (_proxy, variables) = google().await;
    store_suite::all(&Subject { url: google_url(), variables, tells_crc: false, aborts: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_does_what_every_destination_does() {
    store_suite::all(&Subject { url: azure_url(), variables: azure(), tells_crc: false, aborts: false }).await;
}

#[tokio::test]
async fn whole_exports_stand_in_every_store() {
    let pg = pg::lineitem(18).await;
    let (_proxy, google) = google().await;
    for (to, variables) in [(google_url(), google), (azure_url(), azure())] {
        let export = |args: &[&str]| {
            let args = [&["--table", "lineitem", "--partitions", "3"][..], args].concat();
            variables.iter().fold(command(&pg, &to, &args), |command, (name, value)| command.env(name, value))
        };
        let verify = || {
            let args = ["verify", &to, "--read-data", "--against-source", "--from", &pg.url];
            variables.iter().fold(outhaul(args), |command, (name, value)| command.env(name, value)).run()
        };
        export(&[]).run().await.expect(0);
        verify().await.expect(0);
        export(&[]).run().await.expect(22);
        export(&["--on-existing", "replace", "--format", "ndjson", "--compression", "zstd"]).run().await.expect(0);
        verify().await.expect(0);
    }
    no_sessions_left(&pg).await;
}
