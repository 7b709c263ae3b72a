//! Progress on standard error: bars, plain lines or JSON events.
//!
//! A task takes events off the run's channel and folds them, which costs no IO; a thread of its own draws. A terminal
//! that stands still (Ctrl-S, a stuck pipe) therefore stops the drawing and not the run. Only JSON events, which a script
//! counts on, wait for their reader; `progress` events among them are dropped first.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::{mpsc, oneshot};

use super::bars::Bars;
use super::meter::{Meter, Phase};
use super::screen::Screen;
use super::{events, human};
use crate::base::words::counted;
use crate::model::Event;

/// Events waiting for the front end. A slow terminal slows nothing: progress events are dropped when it is full, the
/// others wait.
const EVENT_QUEUE: usize = 256;

/// Between two redraws of the bars, in which the clock and the rates move even while no event comes.
const BAR_REFRESH: Duration = Duration::from_millis(200);

/// Between two plain progress lines at first.
const PLAIN_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Between two plain progress lines of a long run: a log of two hours has less than two hundred.
const PLAIN_INTERVAL_MAX: Duration = Duration::from_mins(1);

/// Before a run is announced that has no plan yet.
const ANNOUNCEMENT_PATIENCE: Duration = Duration::from_secs(1);

/// So many intervals lie behind by the time the next one is longer.
const PLAIN_THINNING: u32 = 12;

/// How progress is shown (`--progress`), `auto` already resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Bars at the foot of the terminal.
    Bar,
    /// A line now and then.
    Plain,
    /// Every event, one JSON object a line.
    Json,
    None,
}

impl View {
    /// What `--progress auto` means here: bars on a terminal that can move its cursor, else lines; nothing under `-q`.
    pub(crate) fn auto(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match (quiet, io::stderr().is_terminal() && !dumb) {
            (true, _) => Self::None,
            (false, true) => Self::Bar,
            (false, false) => Self::Plain,
        }
    }
}

/// The running display of one export.
#[derive(Debug)]
pub(crate) struct Progress {
    view: View,
    meter: Arc<Mutex<Meter>>,
    watcher: tokio::task::JoinHandle<mpsc::Sender<String>>,
    stop: oneshot::Sender<()>,
    drawer: JoinHandle<()>,
}

impl Progress {
    /// Starts to show what comes over the returned channel. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start(view: View, screen: &Screen) -> io::Result<(Self, mpsc::Sender<Event>)> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let (lines, queue) = mpsc::channel(EVENT_QUEUE);
        let (stop, stopped) = oneshot::channel();
        let meter = Arc::new(Mutex::new(Meter::new(Instant::now())));
        let drawer = {
            let (screen, meter) = (screen.clone(), Arc::clone(&meter));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            std::thread::Builder::new().name("outhaul-progress".into()).spawn(move || {
                runtime.block_on(draw(view, &screen, &meter, queue));
            })?
        };
        let watcher = tokio::spawn(watch(view, receiver, Arc::clone(&meter), lines, stopped));
        Ok((Self { view, meter, watcher, stop, drawer }, events))
    }

    /// Takes in what is still on the channel; to be called once the run has returned.
    pub(crate) async fn drain(self) -> Drained {
        // A sender that somebody forgot must not keep the process alive.
        let _ = self.stop.send(());
        let lines = self.watcher.await.ok();
        let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let commit_begun = matches!(meter.phase, Phase::Committing { .. });
        Drained {
            run_id: meter.run_id.clone(),
            destination: meter.destination.clone(),
            commit_begun,
            planned: matches!(meter.phase, Phase::Reading | Phase::Committing { .. }),
            view: self.view,
            lines,
            drawer: self.drawer,
        }
    }
}

/// A display that has seen everything but the end.
#[derive(Debug)]
pub(crate) struct Drained {
    /// The run's id, once it has said it.
    pub(crate) run_id: Option<String>,
    /// The destination as the run named it, without credentials.
    pub(crate) destination: Option<String>,
    /// Whether the run has told its plan.
    pub(crate) planned: bool,
    /// Whether the run has told that its commit began.
    pub(crate) commit_begun: bool,
    view: View,
    lines: Option<mpsc::Sender<String>>,
    drawer: JoinHandle<()>,
}

impl Drained {
    /// Ends the display and restores the terminal; `last` is how the run ended.
    pub(crate) async fn finish(self, last: &Event) {
        if let Some(lines) = self.lines
            && self.view == View::Json
            && let Ok(line) = events::line(last, Utc::now())
        {
            let _ = lines.send(line).await;
        }
        // The queue is closed now, so that the drawer ends after its last line.
        let _ = tokio::task::spawn_blocking(move || self.drawer.join()).await;
    }
}

/// Folds events until the run has dropped its sender or `stopped` comes. Gives the line queue back for the last event.
async fn watch(
    view: View,
    mut events: mpsc::Receiver<Event>,
    meter: Arc<Mutex<Meter>>,
    lines: mpsc::Sender<String>,
    mut stopped: oneshot::Receiver<()>,
) -> mpsc::Sender<String> {
    let mut open = true;
    // Said once there is something to say it of: where nothing is reached, the error says enough.
    let mut held: Option<String> = None;
    let patience = tokio::time::sleep(ANNOUNCEMENT_PATIENCE);
    tokio::pin!(patience);
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut stopped, if open => {
                events.close();
                open = false;
                continue;
            }
            event = events.recv() => event,
            () = &mut patience, if held.is_some() => {
                held.take().map(|line| lines.try_send(line));
                continue;
            }
        };
        let Some(event) = event else { return lines };
        meter.lock().unwrap_or_else(PoisonError::into_inner).apply(&event, Instant::now());
        // How the run ended is known once its future has returned; `finish` says it, once.
        if matches!(event, Event::RunFinished { .. } | Event::RunFailed { .. }) {
            continue;
        }
        match view {
            View::Json => {
                let Ok(line) = events::line(&event, Utc::now()) else {
                    continue;
                };
                match event {
                    Event::Progress { .. } => drop(lines.try_send(line)),
                    _ => drop(lines.send(line).await),
                }
            }
            View::Plain | View::Bar => {
                let line = announcement(view, &event);
                if matches!(event, Event::RunStarted { .. }) {
                    held = line;
                } else {
                    for line in held.take().into_iter().chain(line) {
                        drop(lines.try_send(line));
                    }
                }
            }
            View::None => {}
        }
    }
}

/// What is said of a step as soon as it is taken.
fn announcement(view: View, event: &Event) -> Option<String> {
    match event {
        Event::RunStarted { run_id, .. } if view == View::Bar => Some(format!("run {run_id}")),
        _ if view == View::Bar => None,
        Event::RunStarted { run_id, relation, destination, format, compression, single_file, readers } => {
            let readers = human::plural(u64::try_from(*readers).unwrap_or(u64::MAX), "reader");
            let format = match (single_file, compression.as_str()) {
                (false, _) => format.clone(),
                (true, "none") => format!("one file of {format}"),
                (true, codec) => format!("one file of {format} with {codec}"),
            };
            Some(format!("exporting {relation} to {destination} as {format}, {readers} (run {run_id})"))
        }
        Event::Planned { partitions, estimated_rows, snapshot, truncated, resumed, .. } => {
            let partitions = u64::try_from(*partitions).unwrap_or(u64::MAX);
            let planned = format!("planned {}", human::plural(partitions, "partition"));
            let rows = estimated_rows.map(|rows| format!(", about {} by statistics", human::plural(rows, "row")));
            let before = u64::try_from(resumed.partitions).unwrap_or(u64::MAX);
            let before = (before > 0).then(|| format!(", {} of them read before", human::count(before)));
            let snapshot = snapshot.as_ref().map(|snapshot| format!(", snapshot {snapshot}"));
            let cap = truncated.then(|| "; the cap will cut rows off".to_owned());
            Some([Some(planned), before, rows, snapshot, cap].into_iter().flatten().collect())
        }
        Event::Committing { parts } => {
            let parts = u64::try_from(*parts).unwrap_or(u64::MAX);
            Some(format!("committing {}", human::plural(parts, "part")))
        }
        Event::PartitionStarted { .. }
        | Event::Progress { .. }
        | Event::PartFinished { .. }
        | Event::RunFinished { .. }
        | Event::RunFailed { .. } => None,
    }
}

/// Draws until the line queue closes.
async fn draw(view: View, screen: &Screen, meter: &Mutex<Meter>, mut queue: mpsc::Receiver<String>) {
    let mut bars = (view == View::Bar).then(|| Bars::new(screen));
    let mut plain = (view == View::Plain).then(|| Plain::new(Instant::now()));
    let mut refresh = tokio::time::interval(BAR_REFRESH);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            line = queue.recv() => match line {
                Some(line) if view == View::Json => screen.raw_line(&line),
                Some(line) => screen.line(&line),
                None => break,
            },
            _ = refresh.tick(), if bars.is_some() || plain.is_some() => {
                let now = Instant::now();
                let meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
                let line = plain.as_mut().and_then(|plain| plain.line(&meter, now));
                let sight = bars.as_ref().map(|bars| bars.lines(&meter, now));
                // Nothing is written under the lock: the terminal may stand still.
                drop(meter);
                if let Some(line) = line {
                    screen.line(&line);
                }
                if let (Some(bars), Some(sight)) = (&mut bars, sight) {
                    bars.show(&sight);
                }
            }
        }
    }
    screen.clear();
}

/// Between two plain progress lines of a run that has lasted so long.
fn interval(elapsed: Duration) -> Duration {
    (elapsed / PLAIN_THINNING).clamp(PLAIN_INTERVAL_MIN, PLAIN_INTERVAL_MAX)
}

/// Plain lines: one every few seconds, and one at each tenth of the work.
#[derive(Debug)]
struct Plain {
    last: Instant,
    tenth: u64,
}

impl Plain {
    fn new(now: Instant) -> Self {
        Self { last: now, tenth: 0 }
    }

    fn line(&mut self, meter: &Meter, now: Instant) -> Option<String> {
        let tenth = meter.percent().unwrap_or(0) / 10;
        let due = now.saturating_duration_since(self.last) >= interval(meter.elapsed(now))
            || (tenth > self.tenth && meter.phase == Phase::Reading);
        if !due {
            return None;
        }
        self.last = now;
        self.tenth = tenth;
        let elapsed = human::clock(meter.elapsed(now));
        let what = match meter.phase {
            Phase::Connecting => "connecting".to_owned(),
            Phase::Planning => "planning".to_owned(),
            Phase::Committing { parts } => format!("committing {}", counted(parts, "part")),
            Phase::Reading => {
                let percent = meter.percent().map_or_else(String::new, |n| format!("{n} %, "));
                let Meter { partitions, partitions_done, .. } = meter;
                let volume = meter.volume(now);
                format!("{percent}{partitions_done} of {}, {volume}", counted(*partitions, "partition"))
            }
        };
        let eta = meter.eta(now).map_or_else(String::new, |eta| format!(", {eta}"));
        Some(format!("[{elapsed}] {what}{eta}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;
    use crate::cli::screen::tests::Kept;

    /// Runs the display over `events` and gives back all it wrote.
    fn shown(view: View, events: Vec<Event>, last: &Event) -> String {
        let kept = Kept::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (progress, sender) = Progress::start(view, &kept.screen()).unwrap();
            for event in events {
                sender.send(event).await.unwrap();
            }
            drop(sender);
            progress.drain().await.finish(last).await;
        });
        kept.text()
    }

    fn without_end(events: Vec<Event>) -> (Vec<Event>, Event) {
        let (ends, events): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|e| matches!(e, Event::RunFinished { .. } | Event::RunFailed { .. }));
        (events, ends.into_iter().next().unwrap())
    }

    #[test]
    fn json_shows_each_event_once_and_the_end_last() {
        let (events, last) = without_end(samples::events());
        let names: Vec<String> = shown(View::Json, events, &last)
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].to_string())
            .collect();
        let expected =
            ["run_started", "planned", "partition_started", "progress", "part_finished", "committing", "run_finished"];
        assert_eq!(names, expected.map(|name| format!("\"{name}\"")));
    }

    #[test]
    fn an_end_that_the_run_sends_itself_is_not_shown_twice() {
        let (mut events, last) = without_end(samples::events());
        events.push(last.clone());
        let text = shown(View::Json, events, &last);
        assert_eq!(text.matches("run_finished").count(), 1);
    }

    #[test]
    fn plain_announces_the_steps() {
        let (events, last) = without_end(samples::events());
        let text = shown(View::Plain, events, &last);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('[')).collect();
        assert_eq!(
            lines,
            [
                "exporting public.lineitem to s3://lake/lineitem/ as parquet, 4 readers \
                 (run 01890a5d-ac96-774b-bcce-b302099a8057)",
                "planned 24 partitions, about 6,000,000 rows by statistics, \
                 snapshot 00000003-0000001B-1",
                "committing 24 parts",
            ]
        );
    }

    #[test]
    fn none_shows_nothing() {
        let (events, last) = without_end(samples::events());
        assert_eq!(shown(View::None, events, &last), "");
    }

    #[test]
    fn a_forgotten_sender_does_not_hang_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kept = Kept::default();
            let (progress, _forgotten) = Progress::start(View::Plain, &kept.screen()).unwrap();
            let (_, last) = without_end(samples::events());
            let end = async { progress.drain().await.finish(&last).await };
            tokio::time::timeout(Duration::from_secs(10), end).await.unwrap();
        });
    }

    #[test]
    fn a_screen_that_stands_still_does_not_stop_the_run() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl io::Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = std::sync::mpsc::channel();
        let screen = Screen::writing_to(Box::new(Stuck(stuck)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (progress, sender) = Progress::start(View::Plain, &screen).unwrap();
            let sending = async {
                for _ in 0..4 * EVENT_QUEUE {
                    sender.send(Event::Committing { parts: 1 }).await.unwrap();
                }
            };
            tokio::time::timeout(Duration::from_secs(10), sending).await.unwrap();
            drop(release);
            let (_, last) = without_end(samples::events());
            progress.drain().await.finish(&last).await;
        });
    }

    #[test]
    fn plain_lines_come_by_time_and_by_tenths() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let mut plain = Plain::new(start);
        for event in &samples::events()[..4] {
            meter.apply(event, start);
        }
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            plain.line(&meter, after(2)).as_deref(),
            Some(
                "[00:00:02] 18 %, 4 of 24 partitions, 1,200,000 rows (600,000/s), \
                 57.22 MiB (28.61 MiB/s), ETA 00:00:08"
            )
        );
        assert_eq!(plain.line(&meter, after(3)), None);
        assert!(plain.line(&meter, after(7)).is_some());
    }

    #[test]
    fn plain_lines_thin_out() {
        let start = Instant::now();
        let mut plain = Plain::new(start);
        let mut meter = Meter::new(start);
        for event in &samples::events()[..2] {
            meter.apply(event, start);
        }
        let times: Vec<u64> =
            (1..=7_200).filter(|second| plain.line(&meter, start + Duration::from_secs(*second)).is_some()).collect();
        assert_eq!(times[..4], [5, 10, 15, 20]);
        assert!(times.len() < 200, "{} lines in two hours", times.len());
        assert!(times.windows(2).all(|pair| (5..=60).contains(&(pair[1] - pair[0]))), "{times:?}");
    }
}
