//! A destination of either kind, looked at from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use object_store::ObjectStoreExt;
use serde_json::Value;
use tempfile::TempDir;

use super::job::{parts, sorted};
use super::oracle;
use super::pg::Pg;
use super::run::{Outhaul, outhaul, program};
use super::s3::{S3, s3};
use super::watch::files;

/// See [`Place::export`].
const EXPORT: [(&str, &str); 7] = [
    ("--table", "t"),
    ("--format", "csv"),
    ("--csv-header", "off"),
    ("--readers", "2"),
    ("--partitions", "4"),
    ("--report", "json"),
    ("--progress", "none"),
];

/// A folder, or a prefix on the S3 server, of one test.
pub(crate) enum Place {
    /// A folder.
    Local(TempDir),
    /// A prefix.
    S3(S3),
}

/// [`Place::export`] of a test's database.
pub(crate) fn export(pg: &Pg, place: &Place, args: &[&str]) -> Outhaul {
    place.export(&pg.url, args)
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

    /// The folder, of the one kind.
    pub(crate) fn folder(&self) -> PathBuf {
        match self {
            Self::Local(folder) => folder.path().join("dest"),
            Self::S3(_) => PathBuf::new(),
        }
    }

    /// A command of ours, with what it needs to write here.
    pub(crate) fn outhaul<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Outhaul {
        self.known_to(outhaul(args))
    }

    /// What a run needs to write here.
    pub(crate) fn known_to(&self, run: Outhaul) -> Outhaul {
        match self {
            Self::Local(_) => run,
            Self::S3(s3) => run.envs(s3.env()),
        }
    }

    /// An export of the table `t`: CSV that [`rows`](super::job::rows) can be compared with, by two readers in four
    /// partitions, unless `args` say otherwise.
    pub(crate) fn export(&self, from: &str, args: &[&str]) -> Outhaul {
        self.known_to(outhaul(self.arguments(from, args)))
    }

    /// The same after some words of the shell: limits, redirections.
    pub(crate) fn export_by(&self, before: &str, from: &str, args: &[&str]) -> Outhaul {
        // The shell becomes the program: signals and the exit code are its own.
        let script = format!("{before} exec \"$0\" \"$@\"");
        let shell = ["-c", script.as_str(), env!("CARGO_BIN_EXE_outhaul")].map(str::to_owned);
        self.known_to(program("/bin/sh", shell.into_iter().chain(self.arguments(from, args))))
    }

    fn arguments(&self, from: &str, args: &[&str]) -> Vec<String> {
        let mut all = vec!["export".to_owned(), "--from".to_owned(), from.to_owned()];
        if !args.contains(&"--to") {
            all.extend(["--to".to_owned(), self.url()]);
        }
        let other = args.windows(2).any(|pair| pair[0] == "--format" && pair[1] != "csv");
        let csv_only = |name: &str| other && name.starts_with("--csv-");
        for (name, value) in EXPORT.into_iter().filter(|(name, _)| {
            let instead = args.contains(name) || *name == "--table" && args.contains(&"--query");
            !instead && !csv_only(name)
        }) {
            all.extend([name.to_owned(), value.to_owned()]);
        }
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all
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

    /// Takes away a part that waits for its commit, of a name that has this in it.
    pub(crate) async fn lose_part(&self, name: &str) {
        let of = |folder: &'static str| move |path: &String| path.contains(folder) && path.contains(name);
        match self {
            Self::Local(_) => {
                let staged = self.list().await.into_keys().find(of("/staging/")).unwrap();
                self.delete(&staged).await;
            }
            Self::S3(s3) => {
                let upload = self.list().await.into_keys().find(of("/uploads/")).unwrap();
                let upload: Value = serde_json::from_slice(&self.get(&upload).await).unwrap();
                let key = s3.key(&format!("dest/{}", upload["path"].as_str().unwrap()));
                let id = upload["upload_id"].as_str().unwrap().to_owned();
                let client = s3.client();
                object_store::multipart::MultipartStore::abort_multipart(&client, &key.into(), &id).await.unwrap();
            }
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
        expected.push("_ddl/dbt-sources.yml");
        expected.sort_unstable();
        // On S3 each folder of rows has two manifests of its own.
        rest.retain(|path, _| !(path.contains('=') && path.ends_with("/manifest")));
        let found: Vec<&str> = rest.keys().map(String::as_str).collect();
        assert_eq!(found, expected, "what is there besides the parts");
        assert_eq!(self.open_uploads().await, Vec::<String>::new());
        let rows = sorted(&data);
        assert_eq!(Some(u64::try_from(rows.len()).unwrap()), manifest["totals"]["rows"].as_u64());
        rows
    }

    /// What an independent reader finds in it.
    pub(crate) async fn contents(&self) -> oracle::Contents {
        match self {
            Self::Local(_) => oracle::local(&self.folder(), &[]).await,
            Self::S3(s3) => oracle::on_s3(s3, "dest", &[]).await,
        }
    }

    /// What readers of the destination see; `_outhaul` is our own.
    pub(crate) async fn visible(&self) -> Vec<String> {
        self.list().await.into_keys().filter(|path| !path.starts_with("_outhaul/")).collect()
    }

    /// What waits for its run's commit: staged files, open uploads.
    pub(crate) async fn staged(&self) -> Vec<String> {
        match self {
            Self::Local(_) => self.list().await.into_keys().filter(|path| path.contains("/staging/")).collect(),
            Self::S3(_) => self.open_uploads().await,
        }
    }

    /// Fails the test where anything of any run is there.
    pub(crate) async fn nothing_is_left(&self) {
        assert!(self.is_empty().await, "{:?} and the uploads {:?}", self.list().await, self.open_uploads().await);
    }

    /// Whether nothing of any run is there.
    pub(crate) async fn is_empty(&self) -> bool {
        self.list().await.is_empty() && self.open_uploads().await.is_empty()
    }
}
