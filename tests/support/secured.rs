//! A PostgreSQL of one test's own, which asks for passwords and certificates, and logs every statement.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::tls::{Authority, Certificate};
use super::{eventually, pg, within};

const START_LIMIT: Duration = Duration::from_mins(1);

/// Who may come in and how: over the socket everybody, over TCP by the name of the role.
const HBA: &str = "
local   all all                     trust
hostssl all certified 127.0.0.1/32  cert
hostssl all encrypted 127.0.0.1/32  scram-sha-256
hostnossl all plain   127.0.0.1/32  scram-sha-256
host    all old       127.0.0.1/32  md5
host    all clear     127.0.0.1/32  password
host    all trusted   127.0.0.1/32  trust
host    all outhaul,changing 127.0.0.1/32  scram-sha-256
";

/// The server, stopped and removed with this handle.
pub(crate) struct Secured {
    /// The port on 127.0.0.1.
    pub port: u16,
    folder: TempDir,
    client: Client,
}

impl Secured {
    /// A server with this certificate, which trusts those that the authority gives to clients.
    pub(crate) async fn start(version: u32, authority: &Authority, certificate: &Certificate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server may run as another user, who must be able to pass through.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let server = folder.path().join("pg");
        let mut start = tokio::process::Command::new(script());
        start.args(["start", &version.to_string()]).arg(&server).stdin(Stdio::null()).stderr(Stdio::inherit());
        let started = within(START_LIMIT, "starting PostgreSQL", start.output()).await.unwrap();
        assert!(started.status.success(), "scripts/pg start {version}: {}", started.status);
        let url = String::from_utf8(started.stdout).unwrap();
        let port = url.trim().rsplit_once(':').unwrap().1.split_once('/').unwrap().0.parse().unwrap();

        let data = server.join("data");
        give(&authority.certificate(), &data.join("root.crt"));
        give(&certificate.certificate, &data.join("server.crt"));
        give(&certificate.key, &data.join("server.key"));
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        let client = connect(&server, port).await;
        for setting in ["ssl = on", "ssl_ca_file = 'root.crt'", "log_statement = 'all'", "log_line_prefix = '%a|'"] {
            client.batch_execute(&format!("alter system set {setting}")).await.unwrap();
        }
        client.batch_execute("select pg_reload_conf()").await.unwrap();
        eventually(START_LIMIT, "TLS on the server", async || {
            let settings = pg::rows(&connect(&server, port).await, "show log_statement").await;
            (settings[0][0].as_deref() == Some("all")).then_some(())
        })
        .await;
        Self { port, folder, client }
    }

    /// Runs statements as the superuser.
    pub(crate) async fn batch(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The rows of a query, every value as text.
    pub(crate) async fn sql(&self, query: &str) -> Vec<Vec<Option<String>>> {
        pg::rows(&self.client, query).await
    }

    /// A connection string over TCP; `rest` is more words of it.
    pub(crate) fn from(&self, user: &str, rest: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname=postgres {rest}", self.port)
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("pg/log")).unwrap()).into_owned()
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // Its files go with the folder whether this succeeds or not.
        let _ = Command::new(script()).arg("stop").arg(self.folder.path().join("pg")).status();
    }
}

fn script() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pg")
}

/// Copies a file for the server alone, whose user owns its data folder.
fn give(from: &Path, to: &PathBuf) {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, Permissions::from_mode(0o600)).unwrap();
    let owner = to.parent().unwrap().metadata().unwrap();
    chown(to, Some(owner.uid()), Some(owner.gid())).unwrap();
}

async fn connect(server: &Path, port: u16) -> Client {
    let config = format!("host={} port={port} user=postgres", server.display());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}
