//! What progress is shown from: a pure fold over events. No clock of its own and no IO, so that tests give the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::human;
use crate::model::{Event, ReaderProgress};

/// Rates shown are taken over about this long: shorter ones jump with every row group.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// What the run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    Planning,
    Reading,
    Committing { parts: usize },
}

/// Everything that a bar or a line shows.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    reading_since: Option<Instant>,
    pub(crate) phase: Phase,
    pub(crate) run_id: Option<String>,
    pub(crate) relation: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) partitions: usize,
    pub(crate) partitions_done: usize,
    pub(crate) readers: Vec<ReaderProgress>,
    estimated_rows: Option<u64>,
    /// The fraction that was done before a run was resumed: nothing of it says how fast this process is.
    resumed: f64,
    /// The largest fraction shown so far: a bar never goes backwards.
    fraction: f64,
    samples: VecDeque<ProgressSample>,
}

#[derive(Debug, Clone, Copy)]
struct ProgressSample {
    at: Instant,
    rows: u64,
    bytes: u64,
}

/// Samples kept for the rates; `Progress` comes a few times a second.
const SAMPLES_MAX: usize = 64;

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            reading_since: None,
            phase: Phase::Connecting,
            run_id: None,
            relation: None,
            destination: None,
            rows: 0,
            bytes: 0,
            partitions: 0,
            partitions_done: 0,
            readers: Vec::new(),
            estimated_rows: None,
            resumed: 0.0,
            fraction: 0.0,
            samples: VecDeque::new(),
        }
    }

    /// Takes one event in.
    pub(crate) fn apply(&mut self, event: &Event, now: Instant) {
        match event {
            Event::RunStarted { run_id, readers, relation, destination, .. } => {
                self.relation = Some(relation.clone());
                self.run_id = Some(run_id.clone());
                self.destination = Some(destination.clone());
                self.phase = Phase::Planning;
                self.readers = vec![ReaderProgress::default(); *readers];
            }
            Event::Planned { partitions, estimated_rows, resumed, .. } => {
                self.phase = Phase::Reading;
                self.reading_since = Some(now);
                self.partitions = *partitions;
                self.estimated_rows = *estimated_rows;
                (self.rows, self.bytes) = (resumed.rows, resumed.bytes);
                self.partitions_done = resumed.partitions;
                self.fraction = self.estimate_fraction();
                self.resumed = self.fraction;
                self.sample(now);
            }
            Event::PartitionStarted { reader, partition } => {
                if let Some(slot) = self.readers.get_mut(*reader) {
                    *slot = ReaderProgress { partition: Some(*partition), ..Default::default() };
                }
            }
            Event::Progress { rows, bytes, partitions_done, partitions, readers } => {
                self.rows = *rows;
                self.bytes = *bytes;
                self.partitions = *partitions;
                self.partitions_done = *partitions_done;
                self.readers.clone_from(readers);
                self.sample(now);
                self.fraction = self.fraction.max(self.estimate_fraction());
            }
            Event::Committing { parts } => {
                self.phase = Phase::Committing { parts: *parts };
                self.partitions_done = self.partitions;
                self.fraction = 1.0;
                for reader in &mut self.readers {
                    *reader = ReaderProgress::default();
                }
            }
            Event::PartFinished { .. } | Event::RunFinished { .. } | Event::RunFailed { .. } => {}
        }
    }

    /// Partitions done, plus how far each reader is through its own. What a partition holds is taken from those done,
    /// and only before the first of them from the server's statistics, which know nothing of a predicate.
    fn estimate_fraction(&self) -> f64 {
        if self.partitions == 0 {
            return 0.0;
        }
        let partitions = human::float(u64::try_from(self.partitions).unwrap_or(u64::MAX));
        let done = human::float(u64::try_from(self.partitions_done).unwrap_or(u64::MAX));
        let in_flight: u64 = self
            .readers
            .iter()
            .filter(|reader| reader.partition.is_some())
            .fold(0, |sum, reader| sum.saturating_add(reader.rows));
        let rows_done = human::float(self.rows.saturating_sub(in_flight));
        let expected = if self.partitions_done > 0 && rows_done > 0.0 {
            Some(rows_done / done)
        } else {
            self.estimated_rows.map(|rows| human::float(rows) / partitions)
        };
        let partial: f64 = expected.filter(|rows| *rows > 0.0).map_or(0.0, |expected| {
            self.readers
                .iter()
                .filter(|reader| reader.partition.is_some())
                .map(|reader| (human::float(reader.rows) / expected).min(0.95))
                .sum()
        });
        ((done + partial) / partitions).clamp(0.0, 1.0)
    }

    fn sample(&mut self, now: Instant) {
        self.samples.push_back(ProgressSample { at: now, rows: self.rows, bytes: self.bytes });
        // One sample older than the window stays, so that the window is always whole.
        while self.samples.len() > SAMPLES_MAX
            || self.samples.get(1).is_some_and(|sample| now.saturating_duration_since(sample.at) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// 0 to 1; unknown until something can be said.
    pub(crate) fn fraction(&self) -> Option<f64> {
        (self.fraction > 0.0).then_some(self.fraction)
    }

    /// 0 to 100, rounded down: 100 only at the commit.
    pub(crate) fn percent(&self) -> Option<u64> {
        self.fraction().map(|fraction| human::whole((fraction * 100.0).floor()))
    }

    /// Rows and bytes a second over the last seconds; falls to zero while nothing comes.
    pub(crate) fn rates(&self, now: Instant) -> (u64, u64) {
        let Some(first) = self.samples.front() else {
            return (0, 0);
        };
        let seconds = now.saturating_duration_since(first.at).as_secs_f64();
        (
            human::per_second(self.rows.saturating_sub(first.rows), seconds),
            human::per_second(self.bytes.saturating_sub(first.bytes), seconds),
        )
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Time left, once a second and a hundredth of the work lie behind.
    pub(crate) fn remaining(&self, now: Instant) -> Option<Duration> {
        let fraction = self.fraction()?;
        let read_now = Some(fraction - self.resumed).filter(|read_now| *read_now >= 0.01)?;
        let reading = now.saturating_duration_since(self.reading_since?);
        if reading < Duration::from_secs(1) {
            return None;
        }
        Duration::try_from_secs_f64(reading.as_secs_f64() * (1.0 - fraction) / read_now).ok()
    }

    /// `1,380,000 rows (276,000/s), 66.20 MiB (13.24 MiB/s)`.
    pub(crate) fn volume(&self, now: Instant) -> String {
        let (rows, bytes) = self.rates(now);
        format!(
            "{} ({}/s), {} ({}/s)",
            human::plural(self.rows, "row"),
            human::count(rows),
            human::bytes(self.bytes),
            human::bytes(bytes)
        )
    }

    /// `ETA 00:00:17`, or nothing.
    pub(crate) fn eta(&self, now: Instant) -> Option<String> {
        if self.phase != Phase::Reading {
            return None;
        }
        self.remaining(now).map(|left| format!("ETA {}", human::clock(left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ResumedProgress;

    fn planned(partitions: usize, estimated_rows: Option<u64>, now: Instant) -> Meter {
        let mut meter = Meter::new(now);
        let run_id = String::new();
        meter.apply(
            &Event::Planned {
                run_id,
                partitions,
                estimated_rows,
                estimated_bytes: None,
                snapshot: None,
                truncated: false,
                resumed: ResumedProgress::default(),
            },
            now,
        );
        meter
    }

    fn progress(rows: u64, done: usize, partitions: usize, in_flight: &[(u32, u64)]) -> Event {
        let readers = in_flight
            .iter()
            .map(|&(partition, rows)| ReaderProgress { partition: Some(partition), rows, bytes: 0 })
            .collect();
        Event::Progress { rows, bytes: rows, partitions_done: done, partitions, readers }
    }

    #[test]
    fn statistics_count_until_a_partition_is_done_and_then_what_it_held() {
        let now = Instant::now();
        let mut meter = planned(10, Some(1_000), now);
        assert_eq!(meter.percent(), None);
        meter.apply(&progress(50, 0, 10, &[(0, 50)]), now);
        assert_eq!(meter.percent(), Some(5));
        // The predicate lets a tenth through: a partition holds 10 rows, not 100.
        meter.apply(&progress(15, 1, 10, &[(1, 5)]), now);
        assert_eq!(meter.percent(), Some(15));
    }

    #[test]
    fn wrong_statistics_never_show_the_end_too_early() {
        let now = Instant::now();
        let mut meter = planned(1, Some(10), now);
        meter.apply(&progress(1_000_000, 0, 1, &[(0, 1_000_000)]), now);
        assert_eq!(meter.percent(), Some(95));
        meter.apply(&Event::Committing { parts: 1 }, now);
        assert_eq!(meter.percent(), Some(100));
    }

    #[test]
    fn a_partition_read_again_does_not_move_the_bar_back() {
        let now = Instant::now();
        let mut meter = planned(2, Some(200), now);
        meter.apply(&progress(80, 0, 2, &[(0, 80)]), now);
        meter.apply(&progress(0, 0, 2, &[(0, 0)]), now);
        assert_eq!(meter.percent(), Some(40));
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_fall_when_nothing_comes() {
        let start = Instant::now();
        let mut meter = planned(10, None, start);
        for second in 1..=20_u64 {
            let now = start + Duration::from_secs(second);
            // Slow for ten seconds, then ten times as fast.
            let rows = if second <= 10 { second * 100 } else { 1_000 + (second - 10) * 1_000 };
            meter.apply(&progress(rows, 1, 10, &[]), now);
        }
        assert_eq!(meter.rates(start + Duration::from_secs(20)).0, 1_000);
        assert!(meter.rates(start + Duration::from_mins(1)).0 < 200);
    }

    #[test]
    fn what_an_earlier_process_read_is_in_no_rate() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let resumed = ResumedProgress { partitions: 5, rows: 5_000_000, bytes: 5_000_000 };
        let planned = Event::Planned {
            run_id: String::new(),
            partitions: 10,
            estimated_rows: Some(10_000_000),
            estimated_bytes: None,
            snapshot: None,
            truncated: false,
            resumed,
        };
        meter.apply(&planned, start);
        assert_eq!((meter.percent(), meter.rows), (Some(50), 5_000_000));
        let now = start + Duration::from_secs(2);
        meter.apply(&progress(6_000_000, 6, 10, &[]), now);
        assert_eq!(meter.rates(now), (500_000, 500_000));
        // One partition in two seconds, four to go.
        let left = meter.remaining(now).unwrap().as_millis();
        assert!((7_999..=8_001).contains(&left), "{left} ms");
    }

    #[test]
    fn time_left_follows_the_fraction() {
        let start = Instant::now();
        let mut meter = planned(4, None, start);
        let now = start + Duration::from_secs(10);
        meter.apply(&progress(100, 1, 4, &[]), now);
        assert_eq!(meter.remaining(now), Some(Duration::from_secs(30)));
        assert_eq!(meter.eta(now).as_deref(), Some("ETA 00:00:30"));
        meter.apply(&Event::Committing { parts: 1 }, now);
        assert_eq!(meter.eta(now), None);
    }
}
