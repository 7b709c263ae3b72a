//! `--max-bytes-per-second`: all readers of a run share one rate.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Reads a second under `--max-bytes-per-second`: a reader that took a whole buffer at once would then rest for long.
const PACES_PER_SECOND: u64 = 8;

/// The rate of one of `most` processes: together they read no faster than the run may.
pub(super) fn share(rate: Option<NonZeroU64>, most: NonZeroUsize) -> Option<NonZeroU64> {
    let most = u64::try_from(most.get()).unwrap_or(u64::MAX);
    rate.map(|rate| NonZeroU64::new(rate.get() / most).unwrap_or(NonZeroU64::MIN))
}

/// A rate; whoever has read rests until the rate allows for it. What the kernel holds in its buffers by then stays below
/// a few MiB a connection, and the server waits once these are full.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: NonZeroU64,
    /// When everything read so far is allowed for.
    even: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(rate: NonZeroU64) -> Self {
        Self { rate, even: Mutex::new(Instant::now()) }
    }

    /// The most bytes to read at once: the rest after them stays short.
    pub(crate) fn chunk(&self) -> usize {
        usize::try_from(self.rate.get() / PACES_PER_SECOND).unwrap_or(usize::MAX).max(1)
    }

    /// Rests after `bytes` were read.
    pub(crate) async fn rest(&self, bytes: usize) {
        let until = self.until(bytes, Instant::now());
        tokio::time::sleep_until(until).await;
    }

    fn until(&self, bytes: usize, now: Instant) -> Instant {
        let nanos =
            u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / u128::from(self.rate.get());
        let worth = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
        // Time that nobody used is not saved up.
        *even = (*even).max(now).checked_add(worth).unwrap_or(*even);
        *even
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_a_second_are_shared() {
        let rate = |bytes, most| share(NonZeroU64::new(bytes), NonZeroUsize::new(most).unwrap()).map(NonZeroU64::get);
        assert_eq!((rate(1000, 4), rate(3, 8), rate(0, 8)), (Some(250), Some(1), None));
    }

    #[test]
    fn readers_share_the_rate_and_save_nothing_up() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        assert_eq!(pace.chunk(), 125);
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!((pace.until(500, now) - now).as_millis(), 500);
        assert_eq!((pace.until(1500, now) - now).as_millis(), 2000);
        let later = now + Duration::from_mins(1);
        assert_eq!((pace.until(1000, later) - later).as_millis(), 1000);
        assert_eq!(Pace::new(NonZeroU64::MIN).chunk(), 1);
    }
}
