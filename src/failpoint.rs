//! Places where a test can stop a run, and safety mechanisms that a test can switch off to see another test fail.
//!
//! Compiled in by the feature `failpoints` only, driven by the environment:
//! `OUTHAUL_TEST_OFF=locks,…` switches mechanisms off; `OUTHAUL_TEST_STOP=name=FILE,…` makes FILE when the run reaches
//! `name` and waits until somebody removes it; `OUTHAUL_TEST_MILLIS=name=N,…` shortens a limit of time.

#[cfg(not(feature = "failpoints"))]
mod switched {
    /// Whether a mechanism is switched off: never.
    pub(crate) const fn off(_mechanism: &str) -> bool {
        false
    }

    /// Waits at a place: never.
    pub(crate) async fn reach(_place: &str) {}

    /// A limit of time: as it stands.
    pub(crate) const fn time(_limit: &str, usual: std::time::Duration) -> std::time::Duration {
        usual
    }
}

#[cfg(feature = "failpoints")]
mod switched {
    use std::time::Duration;

    /// Whether a mechanism is switched off.
    pub(crate) fn off(mechanism: &str) -> bool {
        std::env::var("OUTHAUL_TEST_OFF").is_ok_and(|list| list.split(',').any(|name| name == mechanism))
    }

    /// A limit of time, or what a test puts in its place.
    pub(crate) fn time(limit: &str, usual: Duration) -> Duration {
        let Ok(list) = std::env::var("OUTHAUL_TEST_MILLIS") else { return usual };
        let millis = list.split(',').filter_map(|item| item.split_once('=')).find(|(name, _)| *name == limit);
        millis.and_then(|(_, millis)| millis.parse().ok()).map_or(usual, Duration::from_millis)
    }

    /// Waits at a place for as long as its file stands.
    pub(crate) async fn reach(place: &str) {
        let Ok(list) = std::env::var("OUTHAUL_TEST_STOP") else { return };
        let Some((_, file)) = list.split(',').filter_map(|item| item.split_once('=')).find(|(name, _)| *name == place)
        else {
            return;
        };
        if std::fs::write(file, place).is_ok() {
            while std::path::Path::new(file).exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

pub(crate) use switched::{off, reach, time};
