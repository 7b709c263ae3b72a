//! What belongs to a file: who may read it, who may have it, its versions, and a process that is killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::schema::{MIGRATIONS, migrate};
use super::*;
use crate::service::state::INTERRUPTED;
use crate::service::state::conformance::{self, begun, end};
use crate::service::state::jobs_conformance::{self, job, served};
use crate::service::state::{ClaimLimits, Expiry, JobStatus, JobStore, Submitted};

#[tokio::test]
async fn it_does_what_every_store_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    conformance::all(async || SqliteStore::open(&path).unwrap()).await;
}

#[tokio::test]
async fn its_queue_does_what_every_queue_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    jobs_conformance::all(async || SqliteStore::open(&path).unwrap()).await;
}

/// A clock that is wrong when the service starts takes no record away.
#[tokio::test]
async fn nothing_is_forgotten_by_a_clock_that_is_far_ahead_of_the_newest_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    let expiry = Expiry { exports: Duration::ZERO, audits: Duration::ZERO, messages: Duration::ZERO };
    for (days, gone) in [(2, 1), (30, 0)] {
        let store = SqliteStore::open(&path).unwrap();
        store.begin_export(begun("one", "a")).await.unwrap();
        store.finish_export("one".to_owned(), end(ExportStatus::Complete)).await.unwrap();
        // It streams still, and its end is that of the next start.
        store.begin_export(begun(&format!("streams-{days}"), "a")).await.unwrap();
        let aged = store.ask("time passed", move |transaction| {
            let update = "UPDATE export SET finished_at = finished_at - ?1 * 86400000000";
            transaction.execute(update, [days]).map_err(StateError::database("time passed"))
        });
        aged.await.unwrap();
        drop(store);
        let store = SqliteStore::open(&path).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        // The stream that the start has ended goes too.
        assert_eq!(store.prune(expiry).await.unwrap(), gone * 2, "{days} days");
        let found = store.export("one".to_owned(), "a".to_owned()).await.unwrap();
        assert_eq!(found.is_some(), gone == 0, "{days} days");
    }
}

/// Row H6 of the fault matrix.
#[tokio::test]
async fn h6_of_ten_thousand_that_wait_the_next_is_claimed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state.sqlite3")).unwrap();
    let queued = store.ask("jobs were queued", |transaction| {
        for number in 0..10_000 {
            let waits = job(&format!("{number:05}"), &format!("tenant-{}", number / 500));
            jobs::submit(transaction, &waits, None, 1_000)?;
        }
        Ok(())
    });
    queued.await.unwrap();
    let limits = ClaimLimits { lease: Duration::from_mins(10), per_tenant: 2 };
    let (begun, mut tenants) = (Instant::now(), BTreeSet::new());
    for _ in 0..20 {
        tenants.insert(store.claim("w".to_owned(), served(), limits).await.unwrap().unwrap().tenant);
    }
    // To count the running jobs of a tenant for each job that waits took a minute here.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(tenants.len(), 20, "each tenant had its turn");
    assert_eq!(store.figures().await.unwrap().queued, 9_980);
}

/// The clock went back by a year while nobody had the file.
#[tokio::test]
async fn what_the_last_process_had_waits_for_no_clock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    let store = SqliteStore::open(&path).unwrap();
    for id in ["ran", "cancelled", "waits"] {
        let queued = store.submit(job(id, id), None, 9).await.unwrap();
        assert!(matches!(queued, Submitted::Queued(_)), "{queued:?}");
    }
    let limits = ClaimLimits { lease: Duration::from_mins(10), per_tenant: 2 };
    for _ in 0..2 {
        store.claim("w".to_owned(), served(), limits).await.unwrap().unwrap();
    }
    assert!(store.cancel("cancelled".to_owned(), "cancelled".to_owned()).await.unwrap().is_some());
    let ahead = store.ask("the clock went back", |transaction| {
        let later =
            "UPDATE job SET lease_until = lease_until + 31536000000000, not_before = not_before + 31536000000000";
        transaction.execute(later, []).map_err(StateError::database("the clock went back"))?;
        let told = "INSERT INTO outbox VALUES (1, 'm', 'ran', 'ours', 'export.ready', '{}', 1, 4102444800000000)";
        transaction.execute(told, []).map_err(StateError::database("the clock went back"))
    });
    ahead.await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let mut claimed = Vec::new();
    while let Some(job) = store.claim("w".to_owned(), served(), limits).await.unwrap() {
        claimed.push((job.id, job.status, job.attempt));
    }
    claimed.sort();
    let expected = [("cancelled", JobStatus::Cancelling), ("ran", JobStatus::Running)];
    assert_eq!(claimed, expected.map(|(id, status)| (id.to_owned(), status, 2)));
    let bounded = store.ask("waits were read", |transaction| {
        let select = "SELECT (SELECT max(not_before) FROM job), (SELECT max(due_at) FROM outbox)";
        let read = transaction.query_row(select, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        read.map_err(StateError::database("waits were read"))
    });
    let (job, message) = bounded.await.unwrap();
    let now = chrono::Utc::now().timestamp_micros();
    assert!(job <= now + 300_000_000 && message <= now + 86_400_000_000, "{job} {message}");
}

#[tokio::test]
async fn its_owner_alone_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    // It had been open to all.
    std::fs::write(&path, b"").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    store.signing_key().await.unwrap();
    let files: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_is_answered_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state.sqlite3")).unwrap();
    let pragma = async |name: &'static str| {
        let asked = store.ask("a setting was read", move |transaction| {
            let value = transaction.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
            value.map_err(StateError::database("a setting was read"))
        });
        asked.await.unwrap()
    };
    assert_eq!(pragma("journal_mode").await, "wal".to_owned().into());
    // FULL: each commit waits for the disk.
    assert_eq!(pragma("synchronous").await, 2.into());
}

#[tokio::test]
async fn one_process_has_the_file_whatever_the_path_to_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    let store = SqliteStore::open(&path).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        let refused = SqliteStore::open(path).unwrap_err();
        let expected = format!("is in use by another process (process {})", std::process::id());
        assert!(refused.to_string().ends_with(&expected), "{refused}");
        assert!(refused.hint().unwrap().contains("stop the other"));
    }
    store.signing_key().await.unwrap();
    drop(store);
    SqliteStore::open(&link).unwrap();
}

#[test]
fn a_file_of_something_else_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let [text, database] = ["notes.txt", "other.sqlite3"].map(|name| folder.path().join(name));
    std::fs::write(&text, "my notes, which are longer than a header of SQLite is: a hundred bytes.".repeat(9)).unwrap();
    Connection::open(&database).unwrap().execute_batch("create table mine (x int)").unwrap();
    for path in [text, database] {
        let before = std::fs::read(&path).unwrap();
        let refused = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(refused, StateError::Foreign { .. }), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    let missing = SqliteStore::open(&folder.path().join("missing/state")).unwrap_err();
    assert!(missing.to_string().contains("missing/state") && missing.hint().is_some(), "{missing}");
}

#[tokio::test]
async fn an_older_file_goes_forward_and_keeps_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    let store = SqliteStore::open(&path).unwrap();
    store.begin_export(begun("one", "a")).await.unwrap();
    store.finish_export("one".to_owned(), end(ExportStatus::Complete)).await.unwrap();
    drop(store);
    let mut connection = Connection::open(&path).unwrap();
    let broken = [MIGRATIONS, &["ALTER TABLE export ADD COLUMN more TEXT", "CREATE TABLE half (x INT); nonsense"]];
    migrate(&mut connection, &path, &broken.concat()).unwrap_err();
    // The step that failed left nothing, the one before it stays.
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(version).unwrap(), MIGRATIONS.len() + 1);
    let mended = [MIGRATIONS, &["ALTER TABLE export ADD COLUMN more TEXT", "CREATE TABLE half (x INT)"]].concat();
    migrate(&mut connection, &path, &mended).unwrap();
    migrate(&mut connection, &path, &mended).unwrap();
    let kept: i64 =
        connection.query_row("SELECT count(*) FROM export WHERE more IS NULL", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1);
}

#[test]
fn an_older_outhaul_refuses_the_file_of_a_newer_one_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    drop(SqliteStore::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA user_version = 77; UPDATE written_by SET outhaul = '9.8.7'").unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    let told = refused.to_string();
    for part in ["state.sqlite3", "by outhaul 9.8.7", env!("CARGO_PKG_VERSION"), "version 77"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(refused.hint().unwrap().contains("that version"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// The path of the state, for the process that is going to be killed.
const KILLED: &str = "OUTHAUL_TEST_KILLED_STATE";

/// A process that begins and ends exports is killed in the middle of it, several times: what it was answered is there.
#[tokio::test]
async fn a_process_that_is_killed_loses_nothing_that_it_was_answered() {
    if let Some(path) = std::env::var_os(KILLED) {
        write_until_killed(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite3");
    for round in 0..4 {
        let name = "service::state::sqlite::tests::a_process_that_is_killed_loses_nothing_that_it_was_answered";
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(KILLED, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        // The harness says things too.
        let mut answered = lines.filter(|line| line.starts_with("begun ") || line.starts_with("ended "));
        let mut seen: Vec<String> = answered.by_ref().take(20 + round * 7).collect();
        process.kill().unwrap();
        process.wait().unwrap();
        // What was said before it died.
        seen.extend(answered);
        let store = SqliteStore::open(&path).unwrap();
        for line in &seen {
            let (what, id) = line.split_once(' ').unwrap();
            let found = store.export(id.to_owned(), "killed".to_owned()).await.unwrap().unwrap();
            if what == "ended" {
                assert_eq!(found.end.status, ExportStatus::Complete, "{id}");
            } else if !seen.contains(&format!("ended {id}")) && found.end.status != ExportStatus::Complete {
                assert_eq!(found.end.error.unwrap().code, INTERRUPTED, "{id}");
            }
        }
    }
}

async fn write_until_killed(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    let say = |text: String| {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}").unwrap();
        stdout.flush().unwrap();
    };
    say(String::new());
    for number in 0_u64.. {
        let id = format!("{}-{number}", std::process::id());
        store.begin_export(begun(&id, "killed")).await.unwrap();
        say(format!("begun {id}"));
        if !number.is_multiple_of(3) {
            store.finish_export(id.clone(), end(ExportStatus::Complete)).await.unwrap();
            say(format!("ended {id}"));
        }
    }
}
