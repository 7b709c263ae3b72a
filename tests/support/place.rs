//! A destination of either kind, looked at from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use object_store::ObjectStoreExt;
use serde_json::Value;
use tempfile::TempDir;

use super::job::{parts, sorted};
use super::run::{Outhaul, outhaul};
use super::s3::{S3, s3};
use super::watch::files;

/// A folder, or a prefix on the S3 server, of one test.
pub(crate) enum Place {
    /// A folder.
    Local(TempDir),
    /// A prefix.
    S3(S3),
}

impl Place {
    /// One of each kind.
    pub(crate) fn both() -> [Self; 2] {
        [Self::local(), Self::S3(s3())]
    }

    /// A folder.
    pub(crate) fn local() -> Self {
        Self::Local(tempfile::tempdir().unwrap())
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Local(_) => self.folder().to_str().unwrap().to_owned(),
            Self::S3(s3) => s3.url("dest"),
        }
    }

    fn folder(&self) -> PathBuf {
        match self {
            Self::Local(folder) => folder.path().join("dest"),
            Self::S3(_) => PathBuf::new(),
        }
    }

    /// A command of ours, with what it needs to write here.
    pub(crate) fn outhaul<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Outhaul {
        let run = outhaul(args);
        match self {
            Self::Local(_) => run,
            Self::S3(s3) => run.envs(s3.env()),
        }
    }

    /// Everything that is there, with its size.
    pub(crate) async fn list(&self) -> BTreeMap<String, u64> {
        match self {
            Self::Local(_) => files(&self.folder()),
            Self::S3(s3) => s3.list("dest").await,
        }
    }

    /// One object's bytes.
    pub(crate) async fn get(&self, path: &str) -> Vec<u8> {
        match self {
            Self::Local(_) => std::fs::read(self.folder().join(path)).unwrap(),
            Self::S3(s3) => s3.get(&format!("dest/{path}")).await,
        }
    }

    /// Removes one object.
    pub(crate) async fn delete(&self, path: &str) {
        match self {
            Self::Local(_) => std::fs::remove_file(self.folder().join(path)).unwrap(),
            Self::S3(s3) => s3.client().delete(&s3.key(&format!("dest/{path}")).into()).await.unwrap(),
        }
    }

    /// The keys of uploads that are neither complete nor aborted.
    pub(crate) async fn open_uploads(&self) -> Vec<String> {
        match self {
            Self::Local(_) => Vec::new(),
            Self::S3(s3) => s3.open_uploads().await,
        }
    }

    /// The manifest.
    pub(crate) async fn manifest(&self) -> Value {
        serde_json::from_slice(&self.get("_manifest.json").await).unwrap()
    }

    /// The data rows of an export in CSV without headers, in a fixed order, after checking that nothing else is there:
    /// each part as the manifest has it, no other part, no open upload, no record of a run, and all that a commit writes.
    pub(crate) async fn whole(&self) -> Vec<String> {
        let manifest = self.manifest().await;
        let mut rest = self.list().await;
        let mut data = Vec::new();
        for part in parts(&manifest) {
            let path = part["path"].as_str().unwrap();
            assert_eq!(rest.remove(path), part["bytes"].as_u64(), "{path}");
            data.extend(self.get(path).await);
        }
        let mut expected =
            vec!["_SUCCESS", "_manifest.json", "_redshift/manifest", "_symlink_format_manifest/manifest"];
        let dialects =
            ["athena", "clickhouse", "duckdb", "redshift", "spectrum"].map(|name| format!("_ddl/{name}.sql"));
        expected.extend(dialects.iter().map(String::as_str));
        expected.sort_unstable();
        let found: Vec<&str> = rest.keys().map(String::as_str).collect();
        assert_eq!(found, expected, "what is there besides the parts");
        assert_eq!(self.open_uploads().await, Vec::<String>::new());
        let rows = sorted(&data);
        assert_eq!(Some(u64::try_from(rows.len()).unwrap()), manifest["totals"]["rows"].as_u64());
        rows
    }

    /// Whether nothing of any run is there.
    pub(crate) async fn is_empty(&self) -> bool {
        self.list().await.is_empty() && self.open_uploads().await.is_empty()
    }
}
