//! PostgreSQL 15 and 18: a database of its own for every test, on servers that all tests share.

use std::process::Stdio;
use std::time::Duration;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{unique, variable, within};

/// Loading lineitem at scale factor 1 takes half a minute; making its file first, as long again.
const LOAD_LIMIT: Duration = Duration::from_mins(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// The versions that everything is tested on.
pub(crate) const fn both() -> [u32; 2] {
    [15, 18]
}

/// A database of one test, dropped with this handle.
pub(crate) struct Pg {
    /// 15 or 18.
    pub version: u32,
    /// The database's URL, for the superuser `postgres`.
    pub url: String,
    /// The database's name, where it is dropped at the end.
    owned: Option<String>,
    client: Client,
}

/// An empty database on the server of a version.
pub(crate) async fn pg(version: u32) -> Pg {
    create(version, "template0").await
}

/// A database with a copy of TPC-H `public.lineitem` at scale factor 0.01 (60,175 rows), which the test may change.
pub(crate) async fn lineitem(version: u32) -> Pg {
    create(version, &load(version, "0.01").await).await
}

/// The same at another scale factor.
pub(crate) async fn lineitem_at(version: u32, scale: &str) -> Pg {
    create(version, &load(version, scale).await).await
}

/// The database in which all tests read `public.lineitem` at scale factor 1 (6,001,215 rows). Nobody may change it.
pub(crate) async fn lineitem_sf1(version: u32) -> Pg {
    let name = load(version, "1").await;
    let url = database_url(version, &name);
    let client = connect(&url).await;
    client.batch_execute("set default_transaction_read_only = on").await.unwrap();
    Pg { version, url, owned: None, client }
}

impl Pg {
    /// An empty database in another encoding than UTF-8.
    pub(crate) async fn encoded(version: u32, encoding: &str) -> Self {
        create(version, &format!("template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")).await
    }

    /// One more session.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Runs statements, separated by semicolons.
    pub(crate) async fn batch(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The rows of a query, every value as text.
    pub(crate) async fn sql(&self, query: &str) -> Vec<Vec<Option<String>>> {
        rows(&self.client, query).await
    }

    /// The only value of a query.
    pub(crate) async fn value(&self, query: &str) -> String {
        match self.sql(query).await.as_slice() {
            [row] if row.len() == 1 => row[0].clone().unwrap_or_else(|| panic!("{query}: NULL")),
            other => panic!("{query}: one value expected, got {other:?}"),
        }
    }

    /// The sessions of the program under test whose `application_name` ends with `role`, oldest first.
    pub(crate) async fn exporter_pids(&self, role: &str) -> Vec<String> {
        let query = format!(
            "select pid from pg_stat_activity where datname = current_database()
                and application_name like 'outhaul/%/{role}' order by backend_start, pid"
        );
        self.sql(&query).await.into_iter().map(|mut row| row[0].take().unwrap()).collect()
    }

    /// Ends a session and waits until it is gone.
    pub(crate) async fn terminate(&self, pid: &str) {
        assert_eq!(self.value(&format!("select pg_terminate_backend({pid}, 5000)")).await, "t");
    }

    /// The URL for a new role that may log in and nothing more; `attributes` follow `CREATE ROLE`.
    pub(crate) async fn role(&self, attributes: &str) -> (String, String) {
        let name = format!("role_{}", unique());
        self.batch(&format!("create role {name} login {attributes}; grant usage on schema public to {name}")).await;
        (self.url.replace("postgres@", &format!("{name}@")), name)
    }

    /// How many sessions the program under test has open in this database.
    pub(crate) async fn exporter_sessions(&self) -> u64 {
        let query = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name like 'outhaul/%'";
        self.value(query).await.parse().unwrap()
    }
}

impl Drop for Pg {
    /// Drops the database, whoever is still connected to it. The server is thrown away in the end, so that an error here
    /// costs disk space and nothing else.
    fn drop(&mut self) {
        let Some(name) = self.owned.take() else { return };
        let server = server_url(self.version);
        // Not on the test's runtime: a destructor cannot wait on it.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let statement = format!("drop database if exists {name} with (force)");
                let _ = tokio::time::timeout(CONNECT_LIMIT, async {
                    connect(&server).await.batch_execute(&statement).await
                })
                .await;
            });
        });
        let _ = dropped.join();
    }
}

/// The rows of a query on any session, every value as text.
pub(crate) async fn rows(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

async fn create(version: u32, template: &str) -> Pg {
    let name = format!("test_{}", unique());
    let server = connect(&server_url(version)).await;
    server.batch_execute(&format!("create database {name} template {template}")).await.unwrap();
    let url = database_url(version, &name);
    let client = connect(&url).await;
    Pg { version, url, owned: Some(name), client }
}

/// The database that holds lineitem at a scale factor, loaded by whoever asks first.
async fn load(version: u32, scale: &str) -> String {
    within(LOAD_LIMIT, "loading lineitem", async {
        let name = format!("lineitem_{}", scale.replace('.', "_"));
        let server = connect(&server_url(version)).await;
        // Others who want the same wait here; the lock goes with the session.
        server.batch_execute("select pg_advisory_lock(hashtext('outhaul tests: lineitem'))").await.unwrap();
        if rows(&server, &format!("select 1 from pg_database where datname = '{name}'")).await.is_empty() {
            let loading = format!("{name}_loading");
            server.batch_execute(&format!("drop database if exists {loading}")).await.unwrap();
            server.batch_execute(&format!("create database {loading} template template0")).await.unwrap();
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/tpch");
            let loaded = tokio::process::Command::new(script)
                .args(["load", scale, &database_url(version, &loading)])
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await
                .unwrap();
            assert!(loaded.status.success(), "scripts/tpch: {}", String::from_utf8_lossy(&loaded.stderr));
            // Only now does it have the name that others look for.
            server.batch_execute(&format!("alter database {loading} rename to {name}")).await.unwrap();
        }
        name
    })
    .await
}

pub(crate) async fn connect(url: &str) -> Client {
    let connected = within(CONNECT_LIMIT, "connecting", tokio_postgres::connect(url, NoTls)).await;
    let (client, connection) = connected.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    // It ends with the client, or when the server ends it, which the client's next query tells.
    tokio::spawn(async move { drop(connection.await) });
    client
}

fn server_url(version: u32) -> String {
    variable(&format!("OUTHAUL_TEST_PG{version}"))
}

fn database_url(version: u32, database: &str) -> String {
    let url = server_url(version);
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}
