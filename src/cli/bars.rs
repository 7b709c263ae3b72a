//! The bars: what a terminal shows of a run at one moment, in lines that fit it.
//!
//! Whatever the terminal's size, from 40 columns and 8 rows on, the percentage, the time left and the totals are there:
//! readers give way to them, and rates to totals.

use std::io;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::human;
use super::looks::{cyan, dim};
use super::meter::{Meter, Phase};
use super::printable;
use super::screen::Screen;
use crate::base::words::counted;
use crate::model::ReaderProgress;

/// Readers shown at once: more say nothing more.
const READERS_SHOWN_MAX: usize = 12;

/// From so many columns on a reader's line has words.
const WORDS_FIT: usize = 58;

/// Rows beside those of the readers: the empty one, the title, the bar, the totals, and two of what was there before.
const ROWS_BESIDE: usize = 6;

/// A terminal's size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Size {
    fn of_stderr() -> Self {
        match rustix::termios::tcgetwinsize(io::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Self { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => Self { columns: 80, rows: 24 },
        }
    }
}

/// The lines of one moment, from the top, each of at most `size.columns` columns.
pub(super) fn lines(meter: &Meter, now: Instant, size: Size, paint: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(relation), Some(destination)) = (&meter.relation, &meter.destination) {
        lines.push(title(&printable::line(relation), &printable::line(destination), size.columns));
    }
    if meter.phase == Phase::Reading {
        lines.extend(readers(&meter.readers, size).into_iter().map(|line| if paint { dim(&line) } else { line }));
    }
    lines.push(bar(meter, now, size.columns, paint));
    lines.push(totals(meter, now, size.columns));
    lines
}

/// `public.lineitem -> s3://lake/lineitem/`; where it is too long, the middle of the destination goes first.
fn title(relation: &str, destination: &str, columns: usize) -> String {
    const LEAST: usize = 12;
    let left = columns.saturating_sub(printable::width(relation) + 4);
    let destination = if left >= LEAST { elided(destination, left) } else { destination.to_owned() };
    elided(&format!("{relation} -> {destination}"), columns)
}

/// A text with its middle left out, where it is wider than `most` columns.
fn elided(text: &str, most: usize) -> String {
    if printable::width(text) <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(1);
    let (front, back) = (kept / 2, kept - kept / 2);
    format!("{}…{}", printable::beginning(text, front), printable::end(text, back))
}

/// As many readers as there is room for.
fn readers(readers: &[ReaderProgress], size: Size) -> Vec<String> {
    let room = size.rows.saturating_sub(ROWS_BESIDE).min(READERS_SHOWN_MAX);
    let shown = if readers.len() <= room { readers.len() } else { room.saturating_sub(1) };
    let mut lines: Vec<String> =
        readers.iter().take(shown).enumerate().map(|(number, reader)| reader_line(number, reader, size)).collect();
    if shown < readers.len() && room > 0 {
        let more = u64::try_from(readers.len() - shown).unwrap_or(u64::MAX);
        lines.push(if shown == 0 { human::plural(more, "reader") } else { format!("and {more} more") });
    }
    lines
}

fn reader_line(number: usize, reader: &ReaderProgress, size: Size) -> String {
    let Some(partition) = reader.partition else { return format!("reader {number:<3} idle") };
    let (rows, bytes) = (human::plural(reader.rows, "row"), human::bytes(reader.bytes));
    if size.columns >= WORDS_FIT {
        format!("reader {number:<3} partition {partition:<6} {rows:>16} {bytes:>12}")
    } else {
        elided(&format!("#{number} part {partition}  {rows}  {bytes}"), size.columns)
    }
}

/// `[=====>      ]  18 %  ETA 00:00:08`, or what is done where no fraction is known.
fn bar(meter: &Meter, now: Instant, columns: usize, paint: bool) -> String {
    let doing = match meter.phase {
        Phase::Connecting => "connecting".to_owned(),
        Phase::Planning => "planning".to_owned(),
        Phase::Reading => meter.eta(now).unwrap_or_else(|| "reading".to_owned()),
        Phase::Committing { parts } => format!("committing {}", counted(parts, "part")),
    };
    let Some((percent, fraction)) = meter.percent().zip(meter.fraction()) else { return doing };
    let words = format!("{percent:>3} %  {doing}");
    let Some(room) = columns.checked_sub(words.chars().count() + 4).filter(|room| *room >= 4) else {
        return words;
    };
    let done = usize::try_from(human::whole(human::float(u64::try_from(room).unwrap_or(0)) * fraction)).unwrap_or(0);
    let done = done.min(room);
    let tip = usize::from(done < room);
    let drawn = format!("{}{}{}", "=".repeat(done), ">".repeat(tip), " ".repeat(room - done - tip));
    format!("[{}] {words}", if paint { cyan(&drawn) } else { drawn })
}

/// The totals, with as much beside them as there is room for.
fn totals(meter: &Meter, now: Instant, columns: usize) -> String {
    let Meter { partitions, partitions_done, .. } = meter;
    let clock = human::clock(meter.elapsed(now));
    let (rows, bytes) = (human::plural(meter.rows, "row"), human::bytes(meter.bytes));
    let (rows_rate, bytes_rate) = meter.rates(now);
    let (rows_rate, bytes_rate) = (human::count(rows_rate), human::bytes(bytes_rate));
    let split = format!("{partitions_done}/{}", counted(*partitions, "partition"));
    let all = [
        format!("{clock}  {split}  {rows} ({rows_rate}/s)  {bytes} ({bytes_rate}/s)"),
        format!("{clock}  {partitions_done}/{partitions}  {rows} ({rows_rate}/s)  {bytes} ({bytes_rate}/s)"),
        format!("{clock}  {rows} ({rows_rate}/s)  {bytes}"),
        format!("{clock}  {rows}  {bytes}"),
        format!("{rows}  {bytes}"),
    ];
    let fits = |line: &&String| line.chars().count() <= columns;
    all.iter().find(fits).cloned().unwrap_or_else(|| elided(&rows, columns))
}

/// The lines at the foot of the terminal.
pub(super) struct Bars {
    screen: Screen,
    paint: bool,
    /// A terminal echoes Ctrl-C and pushes everything down by a line; the first one then stays behind, so it is empty.
    blank: ProgressBar,
    lines: Vec<ProgressBar>,
}

impl Bars {
    pub(super) fn new(screen: &Screen) -> Self {
        let blank = screen.show_bars().add(message_bar());
        blank.tick();
        Self { screen: screen.clone(), paint: screen.looks().paints_stderr(), blank, lines: Vec::new() }
    }

    /// See [`lines`].
    pub(super) fn lines(&self, meter: &Meter, now: Instant) -> Vec<String> {
        lines(meter, now, Size::of_stderr(), self.paint)
    }

    pub(super) fn show(&mut self, lines: &[String]) {
        while self.lines.len() > lines.len()
            && let Some(bar) = self.lines.pop()
        {
            bar.finish_and_clear();
            self.screen.bars().remove(&bar);
        }
        while self.lines.len() < lines.len() {
            self.lines.push(self.screen.bars().add(message_bar()));
        }
        self.blank.tick();
        for (bar, line) in self.lines.iter().zip(lines) {
            bar.set_message(line.clone());
        }
        if let Some(last) = self.lines.last() {
            last.tick();
        }
    }
}

fn message_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::{golden, samples};
    use crate::model::Event;

    /// Sixteen readers, two seconds after the plan.
    fn reading() -> (Meter, Instant) {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for event in &samples::events()[..4] {
            let mut event = event.clone();
            if let Event::Progress { readers, .. } = &mut event {
                let busy = readers[0];
                readers.resize(16, ReaderProgress { partition: Some(23), ..busy });
            }
            meter.apply(&event, start);
        }
        (meter, start + Duration::from_secs(2))
    }

    const SIZES: [(usize, usize); 6] = [(120, 40), (80, 24), (60, 24), (40, 24), (80, 14), (40, 14)];

    #[test]
    fn terminals_of_all_sizes_have_their_pictures() {
        let (meter, now) = reading();
        for (columns, rows) in SIZES {
            for (paint, ending) in [(false, ""), (true, "-color")] {
                let picture = lines(&meter, now, Size { columns, rows }, paint).join("\n") + "\n";
                golden::check(&format!("terminal/{columns}x{rows}{ending}.txt"), &picture);
            }
        }
    }

    #[test]
    fn a_commit_and_a_beginning_have_their_pictures() {
        let (mut meter, now) = reading();
        meter.apply(&Event::Committing { parts: 24 }, now);
        let size = Size { columns: 60, rows: 24 };
        golden::check("terminal/committing.txt", &(lines(&meter, now, size, false).join("\n") + "\n"));
        let mut meter = Meter::new(now);
        meter.apply(&samples::events()[0], now);
        golden::check("terminal/planning.txt", &(lines(&meter, now, size, false).join("\n") + "\n"));
    }

    #[test]
    fn percent_time_left_and_totals_are_seen_at_every_size() {
        let (meter, now) = reading();
        for columns in 40..200 {
            for rows in 8..60 {
                let lines = lines(&meter, now, Size { columns, rows }, false);
                let size = format!("{columns}x{rows}: {lines:#?}");
                assert!(lines.iter().all(|line| line.chars().count() <= columns), "{size}");
                assert!(lines.len() + 2 <= rows, "{size}");
                let text = lines.join("\n");
                for seen in ["46 %", "ETA 00:00:02", "1,200,000 rows", "57.22 MiB", "public.lineitem -> s3:"] {
                    assert!(text.contains(seen), "no {seen} at {size}");
                }
            }
        }
    }

    #[test]
    fn no_percentage_is_shown_where_nothing_can_be_estimated() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let mut events = samples::events();
        if let Event::Planned { estimated_rows, partitions, .. } = &mut events[1] {
            (*estimated_rows, *partitions) = (None, 1);
        }
        if let Event::Progress { partitions, partitions_done, .. } = &mut events[3] {
            (*partitions, *partitions_done) = (1, 0);
        }
        for event in &events[..4] {
            meter.apply(event, start);
        }
        let now = start + Duration::from_secs(9);
        let text = lines(&meter, now, Size { columns: 80, rows: 24 }, false).join("\n");
        assert!(!text.contains('%') && !text.contains("ETA"), "{text}");
    }
}
