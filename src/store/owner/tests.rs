use super::OWNER_RENEWAL;
use super::*;
use crate::store::StoreOptions;

fn memory(name: &str) -> Destination {
    Destination::in_memory(&format!("owner-{name}"), &StoreOptions::small())
}

async fn put(destination: &Destination, record: &OwnerRecord) {
    destination.put(OWNER_PATH, bytes(record), JSON).await.unwrap();
}

fn foreign(renewed: TimeDelta) -> OwnerRecord {
    OwnerRecord {
        run_id: "other".to_owned(),
        epoch: 7,
        renewed_at: Utc::now() - renewed,
        nonce: "theirs".to_owned(),
        process: None,
        ended: false,
        workers: None,
    }
}

#[tokio::test]
async fn a_live_owner_is_left_alone_byte_for_byte() {
    let destination = memory("live");
    put(&destination, &foreign(TimeDelta::seconds(5))).await;
    let before = destination.read(OWNER_PATH).await.unwrap().unwrap();
    let error = Claim::take(&destination, OWNER_PATH, "ours", Take::Free).await.unwrap_err();
    assert_eq!(error.fault, StoreFault::Taken);
    assert!(error.source.to_string().contains("run other is writing there"), "{}", error.source);
    assert_eq!(destination.read(OWNER_PATH).await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn a_dead_owner_is_succeeded_and_a_live_one_overthrown_by_resume() {
    let gone = ProcessIdentity { started: 1, ..ProcessIdentity::current().unwrap() };
    for (name, record, how) in [
        ("expired", foreign(TimeDelta::hours(1)), Take::Free),
        ("ended", OwnerRecord { ended: true, ..foreign(TimeDelta::zero()) }, Take::Free),
        ("gone", OwnerRecord { process: Some(gone), ..foreign(TimeDelta::zero()) }, Take::Free),
        ("overthrown", foreign(TimeDelta::zero()), Take::Over),
    ] {
        let destination = memory(name);
        put(&destination, &record).await;
        let claim = Claim::take(&destination, OWNER_PATH, "ours", how).await.unwrap();
        assert_eq!(claim.epoch(), 8, "{name}");
        assert_eq!(claim.previous().unwrap().run_id, "other");
        assert_eq!(owner(&destination, OWNER_PATH).await.unwrap().unwrap().run_id, "ours");
        claim.check().await.unwrap();
        claim.release().await.unwrap();
        assert_eq!(owner(&destination, OWNER_PATH).await.unwrap(), None);
    }
}

#[tokio::test]
async fn whoever_has_lost_a_destination_finds_out_and_touches_nothing() {
    let destination = memory("lost");
    let old = Claim::take(&destination, OWNER_PATH, "old", Take::Free).await.unwrap();
    let new = Claim::take(&destination, OWNER_PATH, "new", Take::Over).await.unwrap();
    assert_eq!((old.epoch(), new.epoch()), (1, 2));
    assert!(!old.lost().is_cancelled());
    let before = destination.read(OWNER_PATH).await.unwrap();
    assert_eq!(old.renew().await.unwrap_err().fault, StoreFault::Taken);
    assert!(old.lost().is_cancelled());
    assert_eq!(old.check().await.unwrap_err().fault, StoreFault::Taken);
    old.release().await.unwrap();
    assert_eq!(destination.read(OWNER_PATH).await.unwrap(), before);
    new.renew().await.unwrap();
    new.renew().await.unwrap();
    new.check().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_renewed_until_it_is_lost() {
    let destination = memory("renewed");
    let claim = Claim::take(&destination, OWNER_PATH, "ours", Take::Free).await.unwrap();
    let first = owner(&destination, OWNER_PATH).await.unwrap().unwrap().renewed_at;
    let keeping = tokio::spawn({
        let claim = claim.clone();
        async move { claim.keep(&CancellationToken::new()).await }
    });
    tokio::time::sleep(OWNER_RENEWAL * 3).await;
    assert!(owner(&destination, OWNER_PATH).await.unwrap().unwrap().renewed_at > first);
    Claim::take(&destination, OWNER_PATH, "new", Take::Over).await.unwrap();
    assert_eq!(keeping.await.unwrap().unwrap().fault, StoreFault::Taken);
    let ended = CancellationToken::new();
    ended.cancel();
    assert!(claim.keep(&ended).await.is_none(), "nothing is renewed once the run has ended");
}

#[tokio::test]
async fn of_many_that_come_at_once_one_gets_it() {
    let destination = memory("race");
    let takes = (0..8).map(|index| {
        let destination = destination.clone();
        async move { Claim::take(&destination, OWNER_PATH, &format!("run-{index}"), Take::Free).await }
    });
    let results = futures_util::future::join_all(takes).await;
    let winners: Vec<_> = results.iter().filter(|result| result.is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
}

#[tokio::test]
async fn what_is_no_owner_record_is_somebody_s() {
    let destination = memory("strange");
    destination.put(OWNER_PATH, "{}".into(), JSON).await.unwrap();
    let error = Claim::take(&destination, OWNER_PATH, "ours", Take::Over).await.unwrap_err();
    assert_eq!(error.fault, StoreFault::Taken);
    // What the design names is enough.
    let plain = r#"{"run_id":"x","epoch":3,"renewed_at":"2020-01-01T00:00:00Z"}"#;
    destination.put(OWNER_PATH, plain.into(), JSON).await.unwrap();
    assert_eq!(Claim::take(&destination, OWNER_PATH, "ours", Take::Free).await.unwrap().epoch(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_late_by_our_clock_and_renews_is_alive() {
    for (renews, patient, refused) in [(true, true, true), (true, false, false), (false, true, false)] {
        let destination = memory(&format!("skewed-{renews}-{patient}"));
        put(&destination, &foreign(TimeDelta::hours(1))).await;
        let looking = refuse_alive(&destination, OWNER_PATH, patient);
        let renewing = async {
            tokio::time::sleep(OWNER_RENEWAL).await;
            if renews {
                put(&destination, &foreign(TimeDelta::minutes(59))).await;
            }
        };
        let (found, ()) = tokio::join!(looking, renewing);
        assert_eq!(found.is_err(), refused, "{renews} {patient}: {found:?}");
    }
    let destination = memory("days-late");
    put(&destination, &foreign(TimeDelta::days(2))).await;
    let began = tokio::time::Instant::now();
    assert!(refuse_alive(&destination, OWNER_PATH, true).await.unwrap().is_some());
    assert_eq!(began.elapsed(), std::time::Duration::ZERO, "no clock is wrong by days");
    let destination = memory("late-and-gone");
    let gone = ProcessIdentity { started: 1, ..ProcessIdentity::current().unwrap() };
    put(&destination, &OwnerRecord { process: Some(gone), ..foreign(TimeDelta::zero()) }).await;
    let began = tokio::time::Instant::now();
    assert!(refuse_alive(&destination, OWNER_PATH, true).await.unwrap().is_some());
    assert_eq!(began.elapsed(), std::time::Duration::ZERO, "a process that is known to be gone is not waited for");
}

#[test]
fn this_process_lives() {
    let ours = ProcessIdentity::current().unwrap();
    assert!(!ours.is_gone());
    assert!(ProcessIdentity { pid: u32::MAX, ..ours.clone() }.is_gone());
    // Of another boot or namespace nothing is known.
    assert!(!ProcessIdentity { boot_id: "other".to_owned(), pid: u32::MAX, ..ours.clone() }.is_gone());
    assert!(!ProcessIdentity { pid_namespace: "other".to_owned(), pid: u32::MAX, ..ours }.is_gone());
}

#[tokio::test]
async fn workers_are_invited_by_the_record_and_stay_so_as_it_is_renewed() {
    let destination = memory("workers");
    let claim = Claim::take(&destination, OWNER_PATH, "ours", Take::Free).await.unwrap();
    assert!(!claim.has_invited());
    let wanted = WorkersWanted { plan_sha256: "00ff".to_owned(), max_workers: 8 };
    claim.invite(wanted.clone()).await.unwrap();
    claim.renew().await.unwrap();
    let record = owner(&destination, OWNER_PATH).await.unwrap().unwrap();
    assert_eq!((record.workers, claim.has_invited()), (Some(wanted), true));
    // In a form of a later version they are not known, and the rest is.
    let json = r#"{"run_id":"r","epoch":1,"renewed_at":"2026-11-28T17:44:27Z","workers":{"plan":7}}"#;
    let record: OwnerRecord = serde_json::from_str(json).unwrap();
    assert_eq!((record.run_id.as_str(), record.workers), ("r", None));
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_of_the_same_run_is_waited_for_and_a_live_one_refuses() {
    let ours = || OwnerRecord { run_id: "ours".to_owned(), ..foreign(TimeDelta::zero()) };
    let began = tokio::time::Instant::now();
    let destination = memory("silent");
    put(&destination, &ours()).await;
    let claim = Claim::take(&destination, OWNER_PATH, "ours", Take::Free).await.unwrap();
    assert_eq!((claim.epoch(), claim.previous().unwrap().run_id.as_str()), (8, "ours"));
    assert!(began.elapsed() >= OWNER_LEASE && began.elapsed() <= OWNER_LEASE + OWNER_RENEWAL, "{:?}", began.elapsed());

    let destination = memory("renewing");
    put(&destination, &ours()).await;
    let renewing = async {
        tokio::time::sleep(OWNER_RENEWAL).await;
        put(&destination, &ours()).await;
    };
    let (taken, ()) = tokio::join!(Claim::take(&destination, OWNER_PATH, "ours", Take::Free), renewing);
    assert_eq!(taken.unwrap_err().fault, StoreFault::Taken);

    // Nothing is to be waited for where the process is seen, or where another run is at work.
    let began = tokio::time::Instant::now();
    let here = OwnerRecord { process: ProcessIdentity::current(), ..ours() };
    for (name, record) in [("here", here), ("another", foreign(TimeDelta::zero()))] {
        let destination = memory(name);
        put(&destination, &record).await;
        assert!(Claim::take(&destination, OWNER_PATH, "ours", Take::Free).await.is_err(), "{name}");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}
