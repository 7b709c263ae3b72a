//! Servers of one test's own, which it may restart, kill and have followed by a standby; and a pooler.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::Client;

use super::pg::connect;
use super::{eventually, within};

const START_LIMIT: Duration = Duration::from_mins(1);

/// A server, stopped and thrown away with this handle.
pub(crate) struct Cluster {
    /// Its URL, for the superuser `postgres`.
    pub url: String,
    version: u32,
    settings: Vec<String>,
    folder: TempDir,
}

impl Cluster {
    /// A new server with these settings (`NAME=VALUE`).
    pub(crate) async fn start(version: u32, settings: &[&str]) -> Self {
        Self::start_in(version, "", settings).await
    }

    /// The same, of a server whose messages are in a language, where it has them: by its code, as `de`.
    pub(crate) async fn start_in(version: u32, language: &str, settings: &[&str]) -> Self {
        let folder = folder();
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let url = start(version, language, folder.path(), "", &settings).await;
        Self { url, version, settings, folder }
    }

    /// A hot standby that streams from this server.
    pub(crate) async fn standby(&self, settings: &[&str]) -> Self {
        let folder = folder();
        let version = self.version.to_string();
        let mut arguments = vec!["standby", &version, folder.path().to_str().unwrap(), &self.url];
        arguments.extend(settings);
        let url = script(&arguments, "").await;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { url, version: self.version, settings, folder }
    }

    /// A session.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Runs statements, separated by semicolons.
    pub(crate) async fn batch(&self, statements: &str) {
        self.connect().await.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// Stops it by a signal (`INT` is a fast shutdown, `QUIT` an immediate one) and starts it again at the same port.
    pub(crate) async fn restart(&self, signal: &str) {
        self.halt(signal).await;
        self.go_on().await;
    }

    /// Restarts it with another next transaction: as after so many that their numbers have begun anew.
    pub(crate) async fn next_transaction(&self, epoch: u32, xid: u32) {
        self.halt("INT").await;
        let (version, epoch, xid) = (self.version.to_string(), epoch.to_string(), xid.to_string());
        script(&["next-xid", &version, self.folder.path().to_str().unwrap(), &epoch, &xid], "").await;
        self.go_on().await;
    }

    /// Its files as they are now, as a copy of its disk has them.
    pub(crate) async fn set_aside(&self) -> TempDir {
        let aside = folder();
        self.halt("INT").await;
        copy(&self.folder.path().join("data"), &aside.path().join("data")).await;
        self.go_on().await;
        aside
    }

    /// Puts files that were set aside in the place of those that it has.
    pub(crate) async fn put_back(&self, aside: &TempDir) {
        self.halt("INT").await;
        let data = self.folder.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        copy(&aside.path().join("data"), &data).await;
        self.go_on().await;
    }

    /// Stops it by a signal.
    pub(crate) async fn halt(&self, signal: &str) {
        let pid = self.postmaster();
        kill(signal, &pid).await;
        eventually(START_LIMIT, "the end of the server", async || (!alive(&pid)).then_some(())).await;
    }

    /// Starts it again at the same port. A standby follows nobody then.
    pub(crate) async fn go_on(&self) {
        let port = self.url.rsplit_once(':').unwrap().1.split('/').next().unwrap();
        assert_eq!(start(self.version, "", self.folder.path(), port, &self.settings).await, self.url);
    }

    /// Starts a standby that was stopped, to follow another server.
    pub(crate) async fn follow(&mut self, other: &Self) {
        self.settings.push(format!("primary_conninfo={}", other.url));
        self.go_on().await;
    }

    fn postmaster(&self) -> String {
        postmaster(self.folder.path()).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        stop(self.folder.path());
    }
}

/// `PgBouncer` in front of a server, stopped with this handle.
pub(crate) struct Pooler {
    /// The URL of the database behind it.
    pub url: String,
    folder: TempDir,
}

impl Pooler {
    /// By `transaction` or by `statement`, in front of the server of a URL.
    pub(crate) async fn start(mode: &str, url: &str) -> Self {
        let folder = folder();
        let through = script(&["pooler", mode, folder.path().to_str().unwrap(), url], "").await;
        Self { url: through, folder }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        stop(self.folder.path());
    }
}

/// Copies a folder with the owners of its files.
async fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().await.unwrap();
    assert!(done.success(), "cp -a {} {}: {done}", from.display(), to.display());
}

/// Sends a signal by its name.
pub(crate) async fn kill(signal: &str, pid: &str) {
    let sent = Command::new("kill").args(["-s", signal, pid]).status().await.unwrap();
    assert!(sent.success(), "kill -s {signal} {pid}: {sent}");
}

/// A folder that the server's user can pass through.
fn folder() -> TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o711)).tempdir().unwrap()
}

async fn start(version: u32, language: &str, folder: &Path, port: &str, settings: &[String]) -> String {
    let version = version.to_string();
    let mut arguments = vec!["start", &version, folder.to_str().unwrap(), port];
    arguments.extend(settings.iter().map(String::as_str));
    script(&arguments, language).await
}

/// `scripts/pg`, and what it prints.
async fn script(arguments: &[&str], language: &str) -> String {
    // Into a file: a server that it starts keeps the pipes of its parent open.
    let printed = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pg"));
    // What gettext looks at before the locale, which is C.UTF-8.
    command.env("LANGUAGE", language);
    command.args(arguments).stdout(printed.reopen().unwrap()).stdin(std::process::Stdio::null());
    let done = within(START_LIMIT, "scripts/pg", command.status()).await.unwrap();
    assert!(done.success(), "scripts/pg {arguments:?}: {done}");
    std::fs::read_to_string(printed.path()).unwrap().trim().to_owned()
}

fn stop(folder: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pg");
    let _ = std::process::Command::new(script).arg("stop").arg(folder).status();
}

fn postmaster(folder: &Path) -> Option<String> {
    let file: PathBuf = folder.join("data/postmaster.pid");
    Some(std::fs::read_to_string(file).ok()?.lines().next()?.to_owned())
}

fn alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}
