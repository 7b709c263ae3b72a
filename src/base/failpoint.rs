//! Places where a test can stop a run, and safety mechanisms that a test can switch off to see another test fail.
//!
//! Compiled in by the feature `failpoints` only, driven by the environment:
//! `OUTHAUL_TEST_OFF=locks,…` switches mechanisms off; `OUTHAUL_TEST_STOP=name=FILE,…` makes FILE when the run reaches
//! `name` and waits until somebody removes it; `OUTHAUL_TEST_LIMITS=name=SECONDS,…` shortens a time limit;
//! `OUTHAUL_TEST_NAMES=FILE` gives the program's own HTTP calls the addresses of hosts, `HOST ADDRESS` a line, as they are at
//! each call; `OUTHAUL_TEST_COUNT=act=FILE` adds a line to FILE for each act; `OUTHAUL_TEST_PANIC=name` panics there; computing threads have places of their own, at which they cannot wait.

#[cfg(not(feature = "failpoints"))]
mod switched {
    use std::net::IpAddr;
    use std::time::Duration;

    /// The address of a host: whatever the system says.
    pub(crate) const fn address(_host: &str) -> Option<IpAddr> {
        None
    }

    /// A time limit: always the usual one.
    pub(crate) const fn limit(_name: &str, usual: Duration) -> Duration {
        usual
    }

    /// Whether a mechanism is switched off: never.
    pub(crate) const fn off(_mechanism: &str) -> bool {
        false
    }

    /// Waits at a place: never.
    pub(crate) async fn reach(_place: &str) {}

    /// Panics at a place: never.
    pub(crate) const fn blow(_place: &str) {}

    /// Counts an act: never.
    pub(crate) const fn count(_act: &str) {}
}

#[cfg(feature = "failpoints")]
mod switched {
    use std::collections::BTreeSet;
    use std::net::IpAddr;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    /// The address of a host, where a test says which it is now.
    pub(crate) fn address(host: &str) -> Option<IpAddr> {
        let names = std::fs::read_to_string(std::env::var_os("OUTHAUL_TEST_NAMES")?).ok()?;
        let mut known = names.lines().filter_map(|line| line.split_once(' '));
        known.find(|(name, _)| *name == host)?.1.parse().ok()
    }

    /// A time limit, or what a test puts in its place.
    pub(crate) fn limit(name: &str, usual: Duration) -> Duration {
        let list = std::env::var("OUTHAUL_TEST_LIMITS").unwrap_or_default();
        let shorter = list.split(',').filter_map(|item| item.split_once('=')).find(|(limit, _)| *limit == name);
        shorter.and_then(|(_, seconds)| Duration::try_from_secs_f64(seconds.parse().ok()?).ok()).unwrap_or(usual)
    }

    /// Whether a mechanism is switched off.
    pub(crate) fn off(mechanism: &str) -> bool {
        std::env::var("OUTHAUL_TEST_OFF").is_ok_and(|list| list.split(',').any(|name| name == mechanism))
    }

    /// Places where somebody has stopped: once a test has let them go, nobody stops there again.
    static STOPPED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

    /// Adds a line to the file that a test has named for an act (`OUTHAUL_TEST_COUNT=fsync=FILE`).
    pub(crate) fn count(act: &str) {
        let Ok(list) = std::env::var("OUTHAUL_TEST_COUNT") else { return };
        let file = list.split(',').filter_map(|item| item.split_once('=')).find(|(name, _)| *name == act);
        let append = |path: &str| std::fs::OpenOptions::new().append(true).create(true).open(path);
        if let Some(Ok(mut file)) = file.map(|(_, path)| append(path)) {
            // A line that is missing is a count too low, which the test that counts sees.
            let _ = std::io::Write::write_all(&mut file, b".\n");
        }
    }

    /// Panics at a place.
    pub(crate) fn blow(place: &str) {
        // The message holds every secret there is, and nobody may show it.
        assert!(std::env::var("OUTHAUL_TEST_PANIC").as_deref() != Ok(place), "{place}: {:?}", std::env::vars());
    }

    /// Waits at a place for as long as its file stands.
    pub(crate) async fn reach(place: &str) {
        blow(place);
        let Ok(list) = std::env::var("OUTHAUL_TEST_STOP") else { return };
        let Some((_, file)) = list.split(',').filter_map(|item| item.split_once('=')).find(|(name, _)| *name == place)
        else {
            return;
        };
        if STOPPED.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned())
            && std::fs::write(file, place).is_err()
        {
            return;
        }
        while std::path::Path::new(file).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) use switched::{address, blow, count, limit, off, reach};
