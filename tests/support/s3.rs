//! A real S3 server: a prefix of its own for every test in one shared bucket.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{unique, variable, within};

const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A place on the server that belongs to one test.
pub(crate) struct S3 {
    /// `http://127.0.0.1:…`
    pub endpoint: String,
    /// The bucket that all tests share.
    pub bucket: String,
    /// The test's own prefix, without slashes around it.
    pub prefix: String,
    access_key: String,
    secret_key: String,
}

/// A fresh prefix.
pub(crate) fn s3() -> S3 {
    S3 {
        endpoint: variable("OUTHAUL_TEST_S3_ENDPOINT"),
        bucket: variable("OUTHAUL_TEST_S3_BUCKET"),
        prefix: format!("test-{}", unique()),
        access_key: variable("OUTHAUL_TEST_S3_ACCESS_KEY"),
        secret_key: variable("OUTHAUL_TEST_S3_SECRET_KEY"),
    }
}

/// A fresh prefix in the part of the bucket to which the policies of `config/` are bound.
pub(crate) fn guarded() -> S3 {
    S3 { prefix: format!("guarded/test-{}", unique()), ..s3() }
}

impl S3 {
    /// The environment of an identity that `identities.py` makes: `exporter`, `cleaner`, or `exporter` without an action.
    pub(crate) fn env_of(&self, identity: &str) -> [(&'static str, String); 5] {
        self.env().map(|(name, value)| match name {
            "AWS_ACCESS_KEY_ID" => (name, format!("{identity}{value}")),
            _ => (name, value),
        })
    }

    /// The URL of something below the prefix.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.key(path))
    }

    /// What the binary needs in its environment to write here.
    pub(crate) fn env(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
        ]
    }

    /// What the binary needs to read here and have every write refused.
    pub(crate) fn read_only_env(&self) -> [(&'static str, String); 5] {
        self.env_of("reader")
    }

    /// The objects below `path` with their sizes, by the rest of their names.
    pub(crate) async fn list(&self, path: &str) -> BTreeMap<String, u64> {
        list(&self.client(), &self.key(path)).await
    }

    /// An object's bytes.
    pub(crate) async fn get(&self, path: &str) -> Vec<u8> {
        let client = self.client();
        let key = at(&self.key(path));
        let read = async { client.get(&key).await.unwrap().bytes().await.unwrap() };
        within(ANSWER_LIMIT, "reading an object", read).await.to_vec()
    }

    /// Stores an object.
    pub(crate) async fn put(&self, path: &str, body: &[u8]) {
        let client = self.client();
        let key = at(&self.key(path));
        within(ANSWER_LIMIT, "storing an object", client.put(&key, body.to_vec().into())).await.unwrap();
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, path: &str) {
        let client = self.client();
        let key = at(&self.key(path));
        within(ANSWER_LIMIT, "deleting an object", client.delete(&key)).await.unwrap();
    }

    /// The keys of open multipart uploads below the prefix, asked through another client than ours.
    pub(crate) async fn open_uploads(&self) -> Vec<String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/s3.py");
        let mut python = tokio::process::Command::new(variable("OUTHAUL_TEST_PYTHON"));
        python.args([script, "uploads", &self.key("")]).kill_on_drop(true);
        let output = within(ANSWER_LIMIT, "listing uploads", python.output()).await.unwrap();
        assert!(output.status.success(), "s3.py: {}", String::from_utf8_lossy(&output.stderr));
        let found: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        found.iter().map(|upload| upload["key"].as_str().unwrap().to_owned()).collect()
    }

    /// A client with all rights.
    pub(crate) fn client(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_bucket_name(&self.bucket)
            .build()
            .unwrap()
    }

    /// The key of something below the prefix.
    pub(crate) fn key(&self, path: &str) -> String {
        format!("{}/{path}", self.prefix)
    }
}

/// A key as it stands: made by `From`, it would have percent signs and digits in place of letters beyond ASCII.
fn at(key: &str) -> ObjectPath {
    ObjectPath::parse(key).unwrap()
}

/// The objects below a key with their sizes, by the rest of their names.
pub(crate) async fn list(client: &AmazonS3, below: &str) -> BTreeMap<String, u64> {
    let below = below.trim_end_matches('/');
    let listing = client.list(Some(&at(below))).map_ok(|object| {
        let path = object.location.as_ref().strip_prefix(below).unwrap().trim_start_matches('/').to_owned();
        (path, object.size)
    });
    within(ANSWER_LIMIT, "listing objects", listing.try_collect()).await.unwrap()
}
