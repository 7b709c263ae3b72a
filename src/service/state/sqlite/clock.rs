//! Whether the clock of this process, which is the store's, is to be believed before what is old is forgotten for good.

use std::time::{Duration, Instant};

/// A clock that is further ahead of the last look than the time that has passed is doubted.
const LEAP: Duration = Duration::from_hours(7 * 24);

/// So long a clock is doubted: somebody may mend it. One that stays as it is was right, and the service had not run.
const DOUBT: Duration = Duration::from_hours(3 * 24);

/// What the clock said before.
#[derive(Debug)]
pub(super) struct ClockWatch {
    /// Microseconds since 1970: the last look at the clock, or the newest record of the last process.
    last: i64,
    /// When that was looked at, by a clock that nobody sets.
    looked: Instant,
    doubted_until: Option<Instant>,
}

impl ClockWatch {
    pub(super) const fn since(last: i64, looked: Instant) -> Self {
        Self { last, looked, doubted_until: None }
    }

    /// Whether the clock is believed.
    pub(super) fn believes(&mut self, clock: i64, now: Instant) -> bool {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let passed = micros(now.saturating_duration_since(self.looked));
        let ahead = clock.saturating_sub(self.last).saturating_sub(passed);
        (self.last, self.looked) = (clock, now);
        if ahead > micros(LEAP) {
            self.doubted_until = now.checked_add(DOUBT);
        } else if ahead < -micros(LEAP) {
            // It was set back.
            self.doubted_until = None;
        }
        self.doubted_until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const DAY_MICROS: i64 = 86_400_000_000;

    #[test]
    fn a_clock_that_leaps_is_doubted_until_it_is_mended_or_has_stayed() {
        let begun = Instant::now();
        let mut watch = ClockWatch::since(0, begun);
        // Two years of an hourly look, and a weekend without one.
        assert!(watch.believes(2 * DAY_MICROS, begun));
        assert!(watch.believes(732 * DAY_MICROS, begun + 730 * DAY));
        let leapt = begun + 731 * DAY;
        assert!(!watch.believes(1_463 * DAY_MICROS, leapt));
        assert!(!watch.believes(1_465 * DAY_MICROS, leapt + 2 * DAY));
        // Mended.
        assert!(watch.believes(736 * DAY_MICROS, leapt + 3 * DAY));
        assert!(!watch.believes(800 * DAY_MICROS, leapt + 3 * DAY));
        assert!(!watch.believes(802 * DAY_MICROS, leapt + 5 * DAY));
        // It has stayed.
        assert!(watch.believes(803 * DAY_MICROS, leapt + 6 * DAY));
    }
}
