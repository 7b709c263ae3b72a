//! What belongs to a database: its versions, several processes, a lost connection, hostile texts. The servers are those of
//! the integration tests.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::NoTls;

use super::*;
use crate::base::postgres::settings::{ChannelBinding, Password, Secret, ServerAddress, SslMode, TargetSessionAttrs};
use crate::service::state::conformance::{self, begun, end};
use crate::service::state::{INTERRUPTED, RecordedError};

/// The lease of tests that wait for one to end.
pub(super) const SHORT: Duration = Duration::from_millis(600);

pub(super) const USUAL: Duration = Duration::from_secs(30);

/// A database of one test.
pub(super) struct Database {
    server: tokio_postgres::Config,
    name: String,
}

async fn client(config: &tokio_postgres::Config) -> tokio_postgres::Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Database {
    pub(super) async fn new(version: u32, options: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let variable = format!("OUTHAUL_TEST_PG{version}");
        let url = std::env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set: scripts/pg start"));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("state_{}_{number}", std::process::id());
        let server: tokio_postgres::Config = url.parse().unwrap();
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 {options}");
        client(&server).await.batch_execute(&create).await.unwrap();
        Self { server, name }
    }

    pub(super) async fn client(&self) -> tokio_postgres::Client {
        client(self.server.clone().dbname(&self.name)).await
    }

    fn settings(&self) -> ConnectSettings {
        let [tokio_postgres::config::Host::Tcp(host)] = self.server.get_hosts() else { panic!("one host over TCP") };
        ConnectSettings {
            addresses: vec![ServerAddress::Tcp { host: host.clone(), port: self.server.get_ports()[0] }],
            nowhere: false,
            user: self.server.get_user().unwrap().to_owned(),
            password: Some(Password::Known(Secret::new("unused".to_owned()))),
            database: self.name.clone(),
            options: None,
            ssl_mode: SslMode::Disable,
            ssl_root_cert: None,
            ssl_cert: None,
            channel_binding: ChannelBinding::Disable,
            target_session_attrs: TargetSessionAttrs::Any,
            connect_timeout: Duration::from_secs(10),
            compression: crate::base::http::CodingChoice::AsNeeded,
            exposed: Vec::new(),
        }
    }

    pub(super) async fn store(&self, lease: Duration) -> PostgresStore {
        PostgresStore::with(self.settings(), lease).await.unwrap()
    }

    /// Ends all sessions of the stores, as a restart of the server does.
    pub(super) async fn cut(&self) {
        let cut =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
        client(&self.server).await.execute(cut, &[&self.name]).await.unwrap();
    }

    pub(super) async fn drop(self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        client(&self.server).await.batch_execute(&drop).await.unwrap();
    }
}

#[tokio::test]
async fn it_does_what_every_store_does() {
    for version in [15, 18] {
        let database = Database::new(version, "").await;
        conformance::all(async || database.store(SHORT).await).await;
        database.drop().await;
    }
}

#[tokio::test]
async fn replicas_share_records_and_the_key_and_open_at_the_same_moment() {
    let database = Database::new(18, "").await;
    let stores = futures_util::future::join_all((0..8).map(|_| database.store(USUAL))).await;
    let keys = futures_util::future::join_all(stores.iter().map(StateStore::signing_key)).await;
    let key = *keys[0].as_ref().unwrap();
    assert!(keys.into_iter().all(|other| other.unwrap() == key));
    stores[0].begin_export(begun("shared", "a")).await.unwrap();
    assert!(stores[1].export("shared".to_owned(), "a".to_owned()).await.unwrap().is_some());
    // One of many ends it.
    let ends = stores.iter().map(|store| store.finish_export("shared".to_owned(), end(ExportStatus::Complete)));
    let ends = futures_util::future::join_all(ends).await;
    assert_eq!(ends.into_iter().filter(|end| *end.as_ref().unwrap()).count(), 1);
    database.drop().await;
}

#[tokio::test]
async fn the_streams_of_a_process_that_has_gone_fail_and_those_of_another_go_on() {
    let database = Database::new(18, "").await;
    let (gone, lives) = (database.store(SHORT).await, database.store(SHORT).await);
    gone.begin_export(begun("gone", "a")).await.unwrap();
    lives.begin_export(begun("lives", "a")).await.unwrap();
    drop(gone);
    let status = async |id: &str| lives.export(id.to_owned(), "a".to_owned()).await.unwrap().unwrap().end;
    assert_eq!(status("gone").await.status, ExportStatus::Streaming, "before its lease is over");
    tokio::time::sleep(SHORT * 3).await;
    let ended = status("gone").await;
    assert_eq!((ended.status, ended.error.unwrap().code.as_str()), (ExportStatus::Failed, INTERRUPTED));
    assert_eq!(status("lives").await.status, ExportStatus::Streaming);
    assert!(lives.finish_export("lives".to_owned(), end(ExportStatus::Complete)).await.unwrap());
    let rows = database.client().await.query("SELECT FROM outhaul.instance", &[]).await.unwrap();
    assert_eq!(rows.len(), 1, "who has gone is forgotten");
    database.drop().await;
}

#[tokio::test]
async fn a_process_that_was_taken_for_gone_has_the_last_word_of_its_streams() {
    let database = Database::new(18, "").await;
    let (silent, lives) = (database.store(SHORT).await, database.store(SHORT).await);
    // It does not come to the database any more, as if that had been away from it.
    silent.renewal.abort();
    for id in ["whole", "own"] {
        silent.begin_export(begun(id, "a")).await.unwrap();
    }
    // The same words by its own mouth are an end like others.
    let stopped = RecordedError { code: INTERRUPTED.to_owned(), message: "the service was stopped".to_owned() };
    let own = ExportEnd { error: Some(stopped), ..end(ExportStatus::Failed) };
    assert!(silent.finish_export("own".to_owned(), own.clone()).await.unwrap());
    tokio::time::sleep(SHORT * 3).await;
    let status = async |id: &str| lives.export(id.to_owned(), "a".to_owned()).await.unwrap().unwrap().end;
    assert_eq!(status("whole").await.error.unwrap().code, INTERRUPTED);
    let complete = || end(ExportStatus::Complete);
    assert!(!lives.finish_export("whole".to_owned(), complete()).await.unwrap(), "it is not its own");
    assert!(silent.finish_export("whole".to_owned(), complete()).await.unwrap());
    assert_eq!(status("whole").await, complete());
    for id in ["whole", "own"] {
        assert!(!silent.finish_export(id.to_owned(), end(ExportStatus::Cancelled)).await.unwrap(), "{id}");
    }
    assert_eq!(status("own").await, own);
    database.drop().await;
}

#[tokio::test]
async fn a_lost_connection_loses_and_doubles_nothing() {
    let database = Database::new(18, "").await;
    let store = database.store(USUAL).await;
    let work = async {
        for number in 0..200 {
            let id = format!("cut-{number}");
            store.begin_export(begun(&id, "a")).await.unwrap();
            assert!(store.finish_export(id, end(ExportStatus::Complete)).await.unwrap(), "{number}");
            let record = AuditRecord {
                at: chrono::Utc::now(),
                request_id: number.to_string(),
                client: None,
                tenant: "a".to_owned(),
                user: None,
                credential: "key".to_owned(),
                action: "export".to_owned(),
                dataset: "d".to_owned(),
                export_id: None,
                outcome: "complete".to_owned(),
                rows: None,
                statement: None,
            };
            store.audit(record).await.unwrap();
        }
    };
    let cuts = async {
        loop {
            tokio::time::sleep(Duration::from_millis(60)).await;
            database.cut().await;
        }
    };
    tokio::select! { () = work => {}, () = cuts => {} }
    let audits = store.audits("a".to_owned(), 1000).await.unwrap();
    let numbers: Vec<String> = audits.into_iter().map(|record| record.request_id).collect();
    assert_eq!(numbers, (0..200).rev().map(|number| number.to_string()).collect::<Vec<_>>());
    database.drop().await;
}

#[tokio::test]
async fn an_older_binary_refuses_what_a_newer_one_wrote() {
    let database = Database::new(15, "").await;
    drop(database.store(USUAL).await);
    let newer = "UPDATE outhaul.version SET version = 99, written_by = '9.9.9'";
    database.client().await.batch_execute(newer).await.unwrap();
    let refused = PostgresStore::open(database.settings()).await.unwrap_err();
    assert!(
        matches!(&refused, StateError::TooNew { written_by, version: 99, .. } if written_by == "9.9.9"),
        "{refused:?}"
    );
    assert!(refused.to_string().starts_with("the state database was last written by outhaul 9.9.9"), "{refused}");
    database.drop().await;
}

/// Steps of a version to come, one of which fails in its midst.
const BROKEN: &[&str] = &[
    include_str!("v1.sql"),
    include_str!("v2.sql"),
    include_str!("v3.sql"),
    include_str!("v4.sql"),
    "CREATE TABLE outhaul.more (x INTEGER); SELECT 1 / 0",
];

const WHOLE: &[&str] = &[
    include_str!("v1.sql"),
    include_str!("v2.sql"),
    include_str!("v3.sql"),
    include_str!("v4.sql"),
    "CREATE TABLE outhaul.more (x INTEGER)",
];

#[tokio::test]
async fn each_step_is_taken_once_and_whole_or_not_at_all() {
    let database = Database::new(15, "").await;
    drop(database.store(USUAL).await);
    let sessions = StateSessions::new(database.settings()).unwrap();
    schema::open(&sessions, BROKEN).await.unwrap_err();
    schema::open(&sessions, WHOLE).await.unwrap();
    schema::open(&sessions, WHOLE).await.unwrap();
    let version = database.client().await.query_one("SELECT version FROM outhaul.version", &[]).await.unwrap();
    assert_eq!(version.get::<_, i64>(0), 5);
    database.drop().await;
}

#[tokio::test]
async fn what_is_no_state_database_is_refused_by_name() {
    let foreign = Database::new(18, "").await;
    foreign
        .client()
        .await
        .batch_execute("CREATE SCHEMA outhaul; CREATE TABLE outhaul.export (x INTEGER)")
        .await
        .unwrap();
    let refused = PostgresStore::open(foreign.settings()).await.unwrap_err();
    assert!(matches!(refused, StateError::Foreign { .. }), "{refused:?}");
    foreign.drop().await;
    let latin = Database::new(18, "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'").await;
    let refused = PostgresStore::open(latin.settings()).await.unwrap_err();
    assert!(matches!(&refused, StateError::Encoding { encoding } if encoding == "LATIN1"), "{refused:?}");
    latin.drop().await;
    // Nobody listens there: it is told at once, and not looked for until its time is up.
    let mut nowhere =
        Database { server: "postgres://postgres@127.0.0.1:1/x".parse().unwrap(), name: "x".to_owned() }.settings();
    nowhere.connect_timeout = Duration::from_secs(1);
    let refused = PostgresStore::open(nowhere).await.unwrap_err();
    assert!(matches!(refused, StateError::Unreachable { .. }), "{refused:?}");
}

/// Before a deploy: replicas of the version before are at work.
#[tokio::test]
async fn a_look_changes_nothing_and_finds_what_opening_would() {
    let database = Database::new(18, "").await;
    let client = database.client().await;
    let role = format!("{}_role", database.name);
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let with_role = || ConnectSettings { user: role.clone(), ..database.settings() };
    PostgresStore::probe(database.settings()).await.unwrap();
    let there = client.query("SELECT FROM pg_namespace WHERE nspname = 'outhaul'", &[]).await.unwrap();
    assert!(there.is_empty(), "nothing is made");
    let refused = PostgresStore::probe(with_role()).await.unwrap_err();
    assert!(matches!(refused, StateError::Rights { .. }), "{refused:?}");
    client.batch_execute(&format!("CREATE SCHEMA outhaul AUTHORIZATION {role}")).await.unwrap();
    PostgresStore::probe(with_role()).await.unwrap();
    client.batch_execute("DROP SCHEMA outhaul").await.unwrap();
    // Tables of the version before stay as they are.
    let sessions = StateSessions::new(database.settings()).unwrap();
    schema::open(&sessions, &schema::STEPS[..1]).await.unwrap();
    PostgresStore::probe(database.settings()).await.unwrap();
    let version = client.query_one("SELECT version FROM outhaul.version", &[]).await.unwrap();
    assert_eq!(version.get::<_, i64>(0), 1);
    let refused = PostgresStore::probe(with_role()).await.unwrap_err();
    assert!(matches!(refused, StateError::Rights { .. }), "{refused:?}");
    client.batch_execute("UPDATE outhaul.version SET version = 99").await.unwrap();
    let refused = PostgresStore::probe(database.settings()).await.unwrap_err();
    assert!(matches!(refused, StateError::TooNew { version: 99, .. }), "{refused:?}");
    let name = database.name.clone();
    database.drop().await;
    let mut settings = Database { server: "postgres://postgres@127.0.0.1:1/x".parse().unwrap(), name }.settings();
    settings.connect_timeout = Duration::from_secs(1);
    let refused = PostgresStore::probe(settings).await.unwrap_err();
    assert!(matches!(refused, StateError::Unreachable { .. }), "{refused:?}");
    let server: tokio_postgres::Config = std::env::var("OUTHAUL_TEST_PG18").unwrap().parse().unwrap();
    super::tests::client(&server).await.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn settings_of_the_role_change_nothing() {
    let database = Database::new(18, "").await;
    let hostile = format!(
        "CREATE SCHEMA evil; CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
         ALTER DATABASE {0} SET search_path = evil, pg_catalog; ALTER DATABASE {0} SET default_transaction_isolation = serializable;
         ALTER DATABASE {0} SET default_transaction_read_only = off; ALTER DATABASE {0} SET synchronous_commit = off;
         ALTER DATABASE {0} SET standard_conforming_strings = off; ALTER DATABASE {0} SET statement_timeout = 1000",
        database.name
    );
    database.client().await.batch_execute(&hostile).await.unwrap();
    conformance::all(async || database.store(SHORT).await).await;
    database.drop().await;
}

proptest::proptest! {
    #![proptest_config(crate::regressions::kept())]

    #[test]
    fn every_text_comes_back_and_is_kept_without_a_zero(text in ".*|[\\\\0\u{0}]*") {
        let kept = records::kept(&text);
        proptest::prop_assert!(!kept.contains('\0'));
        proptest::prop_assert_eq!(records::given(&kept), text);
    }
}
