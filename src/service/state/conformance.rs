//! What every state store does. A store's own tests call [`all`] with a function that opens the same store again and again.

use chrono::{DateTime, Duration, Utc};

use super::{
    AuditRecord, Expiry, ExportEnd, ExportRecord, ExportStatus, INTERRUPTED, RecordedError, StateError, StateStore,
};

const LONG: std::time::Duration = std::time::Duration::from_hours(30 * 24);
const NONE: std::time::Duration = std::time::Duration::ZERO;

/// Opens the store; the one that was opened before has been dropped.
pub(crate) async fn all<S: StateStore>(open: impl AsyncFn() -> S) {
    an_export_is_kept_as_it_was_given(&open().await).await;
    an_export_ends_once(&open().await).await;
    nobody_sees_the_export_of_another_tenant(&open().await).await;
    an_id_is_used_once(&open().await).await;
    the_audit_is_kept_in_order_and_by_tenant(&open().await).await;
    what_is_old_goes_and_what_runs_stays(&open().await).await;
    many_at_once_are_all_kept(&open().await).await;
    the_key_is_made_once(&open).await;
    what_was_answered_outlives_the_store_and_what_had_not_ended_has_failed(&open).await;
}

/// As precise as stores are.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap()
}

/// What is there at once, or within a lease.
async fn soon<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "it does not come");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

pub(crate) fn begun(id: &str, tenant: &str) -> ExportRecord {
    ExportRecord {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        user: None,
        dataset: "orders".to_owned(),
        kind: "stream".to_owned(),
        format: "ndjson".to_owned(),
        started_at: now(),
        finished_at: None,
        end: end(ExportStatus::Streaming),
    }
}

pub(crate) fn end(status: ExportStatus) -> ExportEnd {
    ExportEnd {
        status,
        rows: None,
        max_rows: None,
        truncated: status == ExportStatus::Truncated,
        crc64nvme: None,
        bytes: None,
        error: None,
        notes: Vec::new(),
    }
}

async fn an_export_is_kept_as_it_was_given(store: &impl StateStore) {
    let mut record = begun("kept", "Tenant 'quoted' \u{1f980}");
    record.user = Some("ü\n\0\"; DROP TABLE export; --".to_owned());
    record.end.max_rows = Some(10_000);
    record.end.notes = vec!["rows may come twice".to_owned(), String::new()];
    // The clock of a process may be wrong.
    record.started_at = now() + Duration::days(730);
    store.begin_export(record.clone()).await.unwrap();
    let tenant = record.tenant.clone();
    let kept = store.export(record.id.clone(), tenant.clone()).await.unwrap().unwrap();
    assert!((kept.started_at - now()).abs() < Duration::minutes(1), "{kept:?}");
    record.started_at = kept.started_at;
    assert_eq!(kept, record);

    let ended = ExportEnd {
        status: ExportStatus::Truncated,
        rows: Some(10_000),
        max_rows: Some(10_000),
        truncated: true,
        crc64nvme: Some("AAAAAAAAAAA=".to_owned()),
        bytes: Some(i64::MAX as u64),
        error: Some(RecordedError { code: "key_not_selective".to_owned(), message: "too many ties".to_owned() }),
        notes: vec!["another".to_owned()],
    };
    let before = now();
    assert!(store.finish_export(record.id.clone(), ended.clone()).await.unwrap());
    let found = store.export(record.id.clone(), tenant).await.unwrap().unwrap();
    let finished = found.finished_at.unwrap();
    assert!(before <= finished && finished <= Utc::now(), "{finished}");
    assert_eq!(found, ExportRecord { finished_at: Some(finished), end: ended.clone(), ..record });

    let too_many = ExportEnd { rows: Some(u64::MAX), ..ended };
    store.begin_export(begun("too-many", "a")).await.unwrap();
    let refused = store.finish_export("too-many".to_owned(), too_many).await;
    assert!(matches!(refused, Err(StateError::Database { .. })), "{refused:?}");
    let unchanged = store.export("too-many".to_owned(), "a".to_owned()).await.unwrap().unwrap();
    assert_eq!(unchanged.end.status, ExportStatus::Streaming);
}

async fn an_export_ends_once(store: &impl StateStore) {
    store.begin_export(begun("once", "a")).await.unwrap();
    let none = store.finish_export("once".to_owned(), end(ExportStatus::Streaming)).await;
    assert!(matches!(none, Err(StateError::NoEnd { .. })), "{none:?}");
    assert!(store.finish_export("once".to_owned(), end(ExportStatus::Cancelled)).await.unwrap());
    let first = store.export("once".to_owned(), "a".to_owned()).await.unwrap().unwrap();
    for status in [ExportStatus::Complete, ExportStatus::Failed, ExportStatus::Cancelled] {
        assert!(!store.finish_export("once".to_owned(), end(status)).await.unwrap());
    }
    assert_eq!(store.export("once".to_owned(), "a".to_owned()).await.unwrap().unwrap(), first);
    assert!(!store.finish_export("never-begun".to_owned(), end(ExportStatus::Complete)).await.unwrap());
    assert_eq!(store.export("never-begun".to_owned(), "a".to_owned()).await.unwrap(), None);
}

async fn nobody_sees_the_export_of_another_tenant(store: &impl StateStore) {
    store.begin_export(begun("secret", "a")).await.unwrap();
    for tenant in ["b", "A", "", "a ", "%", "a' OR 'a' = 'a"] {
        assert_eq!(store.export("secret".to_owned(), tenant.to_owned()).await.unwrap(), None, "{tenant:?}");
    }
    assert!(store.export("secret".to_owned(), "a".to_owned()).await.unwrap().is_some());
}

async fn an_id_is_used_once(store: &impl StateStore) {
    store.begin_export(begun("taken", "a")).await.unwrap();
    let again = store.begin_export(begun("taken", "b")).await;
    assert!(matches!(&again, Err(StateError::Taken { id }) if id == "taken"), "{again:?}");
    assert!(store.export("taken".to_owned(), "a".to_owned()).await.unwrap().is_some());
    assert_eq!(store.export("taken".to_owned(), "b".to_owned()).await.unwrap(), None);
}

async fn the_audit_is_kept_in_order_and_by_tenant(store: &impl StateStore) {
    let record = |number: u64, tenant: &str| AuditRecord {
        // The clock of a process may be wrong.
        at: now() + Duration::days(730),
        request_id: format!("request-{number}"),
        client: (number > 1).then(|| format!("10.0.0.{number}")),
        tenant: tenant.to_owned(),
        user: number.is_multiple_of(2).then(|| "somebody".to_owned()),
        credential: "key ci".to_owned(),
        action: "export".to_owned(),
        dataset: "orders".to_owned(),
        export_id: (!number.is_multiple_of(2)).then(|| format!("export-{number}")),
        outcome: "complete".to_owned(),
        rows: (!number.is_multiple_of(2)).then_some(number),
        statement: (number > 2).then(|| "SELECT ?".to_owned()),
    };
    let all: Vec<AuditRecord> = (0..5).map(|number| record(number, "audited")).collect();
    for one in &all {
        store.audit(one.clone()).await.unwrap();
    }
    store.audit(record(9, "another")).await.unwrap();
    let newest: Vec<AuditRecord> = all.into_iter().rev().collect();
    let audits = async |most| {
        let mut found = store.audits("audited".to_owned(), most).await.unwrap();
        for (record, given) in found.iter_mut().zip(&newest) {
            assert!((record.at - now()).abs() < Duration::minutes(1), "{record:?}");
            record.at = given.at;
        }
        found
    };
    assert_eq!(audits(100).await, newest);
    assert_eq!(audits(2).await, newest[..2]);
    assert_eq!(store.audits("nobody".to_owned(), 100).await.unwrap(), []);
}

async fn what_is_old_goes_and_what_runs_stays(store: &impl StateStore) {
    for id in ["old", "running"] {
        store.begin_export(begun(id, "pruned")).await.unwrap();
    }
    store.finish_export("old".to_owned(), end(ExportStatus::Complete)).await.unwrap();
    let there = async |id: &str| store.export(id.to_owned(), "pruned".to_owned()).await.unwrap().is_some();
    let keeps = Expiry { exports: LONG, audits: LONG, messages: LONG };
    assert_eq!(store.prune(keeps).await.unwrap(), 0);
    assert!(there("old").await && there("running").await);
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let audits = store.audits("audited".to_owned(), 100).await.unwrap();
    assert!(store.prune(Expiry { exports: NONE, ..keeps }).await.unwrap() > 0);
    assert!(!there("old").await && there("running").await);
    assert_eq!(store.audits("audited".to_owned(), 100).await.unwrap(), audits);
    assert!(!audits.is_empty());
    store.prune(Expiry { audits: NONE, ..keeps }).await.unwrap();
    assert_eq!(store.audits("audited".to_owned(), 100).await.unwrap(), []);
}

/// More than wait in any queue.
async fn many_at_once_are_all_kept(store: &impl StateStore) {
    let ids: Vec<String> = (0..300).map(|number| format!("many-{number}")).collect();
    let one = async |id: &String| {
        store.begin_export(begun(id, "many")).await.unwrap();
        assert!(store.finish_export(id.clone(), end(ExportStatus::Complete)).await.unwrap());
        store.export(id.clone(), "many".to_owned()).await.unwrap().unwrap().end.status
    };
    let statuses = futures_util::future::join_all(ids.iter().map(one)).await;
    assert!(statuses.iter().all(|status| *status == ExportStatus::Complete));
    // Whoever waits no longer has handed his record over all the same.
    let mut left = Box::pin(store.begin_export(begun("left", "many")));
    assert!(futures_util::poll!(&mut left).is_pending());
    drop(left);
    soon(async || store.export("left".to_owned(), "many".to_owned()).await.unwrap()).await;
}

async fn the_key_is_made_once<S: StateStore>(open: &impl AsyncFn() -> S) {
    let store = open().await;
    let key = store.signing_key().await.unwrap();
    assert_ne!(key, [0; 32]);
    assert_eq!(store.signing_key().await.unwrap(), key);
    drop(store);
    assert_eq!(open().await.signing_key().await.unwrap(), key);
}

async fn what_was_answered_outlives_the_store_and_what_had_not_ended_has_failed<S: StateStore>(
    open: &impl AsyncFn() -> S,
) {
    let store = open().await;
    for id in ["whole", "half"] {
        store.begin_export(begun(id, "lasting")).await.unwrap();
    }
    store.finish_export("whole".to_owned(), end(ExportStatus::Complete)).await.unwrap();
    let whole = store.export("whole".to_owned(), "lasting".to_owned()).await.unwrap();
    drop(store);
    let store = open().await;
    assert_eq!(store.export("whole".to_owned(), "lasting".to_owned()).await.unwrap(), whole);
    let half = async || {
        let half = store.export("half".to_owned(), "lasting".to_owned()).await.unwrap().unwrap();
        Some(half).filter(|half| half.end.status != ExportStatus::Streaming)
    };
    let half = soon(half).await;
    assert_eq!(half.end.status, ExportStatus::Failed);
    assert_eq!(half.end.error.unwrap().code, INTERRUPTED);
    assert!(half.finished_at.is_some());
    // The process that began it has gone: this is another one, which knows no better end.
    assert!(!store.finish_export("half".to_owned(), end(ExportStatus::Complete)).await.unwrap());
}
