//! A throwaway PostgreSQL: its own data folder, reached only through a socket in a folder of mode 0700, without fsync.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tokio::io::AsyncWriteExt;

use super::{Job, TABLE, programs};
use crate::cli::signals::Signals;
use crate::export::ExportError;
use crate::model::ExportErrorKind;

const USER: &str = "outhaul";
const DATABASE: &str = "postgres";
const PORT: u16 = 5432;

/// The longest path of a Unix socket on Linux, in bytes, without the NUL at its end.
const SOCKET_PATH_MAX: usize = 107;

/// Accounts that a server is run as where we are root, which PostgreSQL refuses to be.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    user: u32,
    group: u32,
}

/// The server and its folder. Dropping it stops the one and removes the other.
#[derive(Debug)]
pub(super) struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    account: Option<Account>,
    signals: Signals,
}

impl Cluster {
    /// Makes an empty cluster below `under`, or below the system's temporary folder where `under` cannot be used.
    pub(super) async fn create(under: &Path, signals: &Signals) -> Result<Self, ExportError> {
        let programs = programs::find(std::env::var_os("PG_BIN").as_deref(), std::env::var_os("PATH").as_deref())?;
        let (folder, account) = private_folder(under)
            .map_err(|error| failed(format!("making a private folder below {}", under.display())).with_source(error))?;
        let cluster = Self { programs, folder, account, signals: signals.clone() };
        let stop = cluster.stop_command("immediate");
        let left = cluster.folder.clone();
        signals.set_last_act(Some(Box::new(move || {
            // Best effort: the process is on its way out, and nobody is left to be told.
            let _ = quiet(stop).and_then(|_| fs::remove_dir_all(left));
        })));
        let data = cluster.data();
        let arguments = ["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"];
        let initdb = cluster
            .command("initdb", arguments.map(OsString::from).into_iter().chain(["--pgdata".into(), data.into()]));
        cluster.finished("initdb", initdb, "").await?;
        cluster.configure().map_err(|error| failed("writing postgresql.conf").with_source(error))?;
        Ok(cluster)
    }

    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn job(&self, to: PathBuf) -> Job {
        Job { socket: self.folder.clone(), port: PORT, user: USER, database: DATABASE, to }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn configure(&self) -> io::Result<()> {
        let socket = self.folder.to_string_lossy().replace('\'', "''");
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{socket}'\nport = {PORT}\nfsync = off\n\
             full_page_writes = off\nsynchronous_commit = off\nmax_wal_size = '4GB'\nwal_level = minimal\n\
             max_wal_senders = 0\nmax_connections = 100\n"
        );
        let file = self.data().join("postgresql.conf");
        fs::OpenOptions::new().append(true).open(file)?.write_all(settings.as_bytes())
    }

    /// Makes the table. A single-user server does it, so that no client program is needed; each line is a statement.
    pub(super) async fn fill(&self, rows: u64) -> Result<(), ExportError> {
        let sql = format!(
            "create table {TABLE} (id bigint, customer integer not null, amount numeric(12,2) not null, \
             status text not null, created_at timestamptz not null, note text)\n\
             insert into {TABLE} select n, 1 + n * 7919 % 50000, (n * 104729 % 10000000)::numeric / 100, \
             (array['new', 'paid', 'shipped', 'returned'])[1 + n % 4], \
             timestamptz '2024-01-01 00:00:00+00' + n * interval '31 seconds', \
             case when n % 3 <> 0 then 'order ' || n || ', \"gift wrap\", 25 €' end \
             from generate_series(1::bigint, {rows}) n\n\
             alter table {TABLE} add primary key (id)\n\
             vacuum (analyze) {TABLE}\n"
        );
        self.single_user(&sql).await.map(drop)
    }

    async fn single_user(&self, sql: &str) -> Result<Output, ExportError> {
        let arguments = ["--single", "-c", "exit_on_error=on", "-D"].map(OsString::from);
        let arguments = arguments.into_iter().chain([self.data().into(), DATABASE.into()]);
        let postgres = self.command("postgres", arguments);
        self.finished("postgres --single", postgres, sql).await
    }

    /// Starts the server and waits until it answers.
    pub(super) async fn start(&self) -> Result<(), ExportError> {
        let log = self.folder.join("log");
        let arguments = ["start", "--wait", "--silent", "--timeout", "60", "--pgdata"].map(OsString::from);
        let arguments = arguments.into_iter().chain([self.data().into(), "--log".into(), log.clone().into()]);
        let started = self.finished("pg_ctl start", self.command("pg_ctl", arguments), "").await;
        // pg_ctl only says that there is a log.
        started.map(drop).map_err(|error| {
            let log = fs::read_to_string(log).unwrap_or_default();
            match log.lines().next_back() {
                Some(last) => error.with_source(io::Error::other(last.to_owned())),
                None => error,
            }
        })
    }

    /// Stops the server and removes everything, off the async threads.
    pub(super) async fn close(self) {
        // The blocking task only fails where it panics, which the panic hook tells.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    fn stop_command(&self, mode: &str) -> Command {
        let arguments =
            ["stop", "--silent", "--wait", "--timeout", "30", "--mode", mode, "--pgdata"].map(OsString::from);
        self.command("pg_ctl", arguments.into_iter().chain([self.data().into()]))
    }

    fn command(&self, program: &str, arguments: impl IntoIterator<Item = OsString>) -> Command {
        let mut command = Command::new(self.programs.join(program));
        // A caller's PGDATA, PGPORT or PGOPTIONS must not reach another server than this one.
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        if let Some(account) = self.account {
            command.uid(account.user).gid(account.group);
        }
        command
    }

    /// Runs a program to its end with `input`; a signal to us interrupts it.
    async fn finished(&self, what: &str, command: Command, input: &str) -> Result<Output, ExportError> {
        let cancel = self.signals.token();
        if cancel.is_cancelled() {
            return Err(ExportError::cancelled());
        }
        let starting = |error| failed(format!("running {what}")).with_source(error);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(starting)?;
        let pid = child.id();
        if let Some(mut stdin) = child.stdin.take() {
            // Where it does not read, its exit code says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let mut output = std::pin::pin!(child.wait_with_output());
        let output = tokio::select! {
            output = &mut output => output,
            () = cancel.cancelled() => {
                if let Some(pid) = pid {
                    let arguments = ["kill", "INT", &pid.to_string()].map(OsString::from);
                    let _ = quiet(self.command("pg_ctl", arguments));
                }
                output.await
            }
        };
        let output = output.map_err(starting)?;
        if cancel.is_cancelled() {
            return Err(ExportError::cancelled());
        }
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error = failed(format!("{what} ended with {}", output.status));
        Err(if said.is_empty() { error } else { error.with_source(io::Error::other(said)) })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signals.set_last_act(None);
        if self.data().join("postmaster.pid").exists() {
            // Where a clean stop takes too long: nothing in this cluster is worth waiting for.
            let stopped = quiet(self.stop_command("fast"));
            if !stopped.is_ok_and(|status| status.success()) {
                let _ = quiet(self.stop_command("immediate"));
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder)
            // The last act of a second signal may have come first.
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.folder.display(), "removing the demo's server");
        }
    }
}

fn failed(message: impl Into<String>) -> ExportError {
    ExportError::new(ExportErrorKind::SourceUnavailable, message)
}

fn quiet(mut command: Command) -> io::Result<std::process::ExitStatus> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status()
}

/// A new folder of mode 0700 that belongs to whom the server runs as: us, or an account where we are root.
fn private_folder(under: &Path) -> io::Result<(PathBuf, Option<Account>)> {
    let name = format!(".outhaul-demo-{:08x}", rand::random::<u32>());
    // What a file of ours belongs to tells who we are.
    let make = |base: &Path| -> io::Result<(PathBuf, u32)> {
        let folder = base.join(&name);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let owner = fs::metadata(&folder)?.uid();
        Ok((folder, owner))
    };
    let (mut folder, owner) = make(under)?;
    let socket = folder.join(format!(".s.PGSQL.{PORT}"));
    let too_long = socket.as_os_str().len() > SOCKET_PATH_MAX;
    if too_long || (owner == 0 && !open_to_all(under)?) {
        fs::remove_dir(&folder)?;
        folder = make(&std::env::temp_dir())?.0;
    }
    if owner != 0 {
        return Ok((folder, None));
    }
    let account = account(&fs::read_to_string("/etc/passwd")?)
        .ok_or_else(|| io::Error::other("we are root, which PostgreSQL refuses, and there is no postgres or nobody"))?;
    chown(&folder, Some(account.user), Some(account.group))?;
    Ok((folder, Some(account)))
}

/// Whether another account can reach the folder.
fn open_to_all(folder: &Path) -> io::Result<bool> {
    for folder in folder.ancestors() {
        if fs::metadata(folder)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn account(passwd: &str) -> Option<Account> {
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            (user != 0).then_some(Account { user, group })
        })
    };
    ACCOUNTS.into_iter().find_map(find)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::signals::StopSignal;

    #[test]
    fn the_account_is_postgres_and_else_nobody() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:n:/:/bin/false\n";
        assert_eq!(account(passwd), Some(Account { user: 65534, group: 65533 }));
        let both = format!("{passwd}postgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n");
        assert_eq!(account(&both), Some(Account { user: 101, group: 104 }));
        assert_eq!(account("postgres:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n"), None);
    }

    #[test]
    fn a_folder_too_deep_for_a_socket_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(SOCKET_PATH_MAX));
        fs::create_dir(&deep).unwrap();
        let (folder, _) = private_folder(&deep).unwrap();
        assert!(!folder.starts_with(root.path()));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        fs::remove_dir(&folder).unwrap();
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_server_comes_up_with_its_rows_and_goes_without_a_trace() {
        let root = tempfile::tempdir().unwrap();
        let cluster = Cluster::create(root.path(), &Signals::default()).await.unwrap();
        cluster.fill(1_000).await.unwrap();
        let counted = cluster.single_user(&format!("select count(*), count(note) from {TABLE}\n")).await.unwrap();
        let counted = String::from_utf8_lossy(&counted.stdout).into_owned();
        assert!(counted.contains("count = \"1000\"") && counted.contains("count = \"667\""), "{counted}");
        cluster.start().await.unwrap();
        let folder = cluster.folder().to_owned();
        let pid = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
        let process = Path::new("/proc").join(pid.lines().next().unwrap());
        assert!(folder.join(".s.PGSQL.5432").exists() && process.exists());
        cluster.close().await;
        assert!(!folder.exists());
        // pg_ctl waits for the pid file to go; the process itself goes a moment later.
        let gone = async {
            while process.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.expect("the server still runs");
    }

    #[tokio::test]
    async fn a_statement_that_fails_is_told_with_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let cluster = Cluster::create(root.path(), &Signals::default()).await.unwrap();
        let error = cluster.single_user("select 1 / 0\n").await.unwrap_err();
        assert!(error.sentence().contains("division by zero"), "{error:?}");
    }

    #[tokio::test]
    async fn a_signal_interrupts_the_making_of_rows() {
        let root = tempfile::tempdir().unwrap();
        let signals = Signals::default();
        let cluster = Cluster::create(root.path(), &signals).await.unwrap();
        let folder = cluster.folder().to_owned();
        let later = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            signals.first(StopSignal::Interrupted);
        };
        let (filled, ()) = tokio::join!(cluster.fill(1_000_000_000), later);
        assert_eq!(filled.unwrap_err().kind, ExportErrorKind::Interrupted);
        cluster.close().await;
        assert!(!folder.exists());
    }
}
