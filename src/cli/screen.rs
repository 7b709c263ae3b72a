//! Standard error, shared by bars, log lines and messages, and standard output for the result. Nothing here panics or
//! fails where the other side has closed its end: a reader that went away is no reason to lose a run.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::Utc;
use indicatif::{MultiProgress, ProgressDrawTarget};

use super::exit;
use super::looks::{Looks, painted, record};
use super::printable;
use crate::model::ExportErrorKind;

/// Standard error with bars at its foot. Clones share it.
#[derive(Clone)]
pub(crate) struct Screen {
    bars: MultiProgress,
    lines: Arc<Mutex<Box<dyn Write + Send>>>,
    looks: Arc<Mutex<Looks>>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Screen {
    /// The process's own standard error, without bars until bars are shown.
    pub(crate) fn stderr() -> Self {
        Self::writing_to(Box::new(io::stderr()))
    }

    /// One that writes its lines elsewhere.
    pub(crate) fn writing_to(lines: Box<dyn Write + Send>) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        Self { bars, lines: Arc::new(Mutex::new(lines)), looks: Arc::new(Mutex::new(Looks::PLAIN)) }
    }

    pub(crate) fn show_bars(&self) -> &MultiProgress {
        self.bars.set_draw_target(ProgressDrawTarget::stderr());
        &self.bars
    }

    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Takes the bars away for good and leaves the cursor at the beginning of a line.
    pub(crate) fn clear(&self) {
        // The terminal may be gone.
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Says how lines look from now on.
    pub(crate) fn look(&self, looks: Looks) {
        *self.looks.lock().unwrap_or_else(PoisonError::into_inner) = looks;
    }

    pub(crate) fn looks(&self) -> Looks {
        *self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something to people, above the bars.
    pub(crate) fn line(&self, text: &str) {
        let looks = self.looks();
        if looks.json {
            self.raw_line(&record(text, Utc::now()));
        } else if looks.paints_stderr() {
            self.raw_line(&painted(&printable::lines(text)));
        } else {
            self.raw_line(&printable::lines(text));
        }
    }

    /// Writes one line as it is: what a program reads.
    pub(crate) fn raw_line(&self, text: &str) {
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        self.write_whole(line.as_bytes());
    }

    fn write_whole(&self, bytes: &[u8]) {
        self.bars.suspend(|| {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = lines.write_all(bytes).and_then(|()| lines.flush());
        });
    }
}

/// One log record on its way to the screen: written whole when it is dropped, so that records do not mix.
#[derive(Debug)]
pub(crate) struct Record {
    screen: Screen,
    bytes: Vec<u8>,
}

impl Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.screen.write_whole(&self.bytes);
        }
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Screen {
    type Writer = Record;

    fn make_writer(&'a self) -> Record {
        Record { screen: self.clone(), bytes: Vec::new() }
    }
}

/// Writes what a command was asked for to standard output: the exit code of the command.
pub(crate) fn stdout_answer(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    let written =
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
    match written {
        Ok(()) => exit::COMPLETE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::READER_GONE,
        Err(_) => exit::failed(ExportErrorKind::DestinationFull),
    }
}

/// Writes one line to standard output, beside which the command has an exit code of its own.
pub(crate) fn stdout_line(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A screen's lines, kept.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        pub(crate) fn screen(&self) -> Screen {
            Screen::writing_to(Box::new(self.clone()))
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_closed_reader_is_no_error() {
        Screen::writing_to(Box::new(Closed)).line("nobody reads this");
    }

    #[test]
    fn a_record_is_written_whole() {
        use tracing_subscriber::fmt::MakeWriter;
        let kept = Kept::default();
        let screen = kept.screen();
        {
            let mut record = screen.make_writer();
            record.write_all(b"one ").unwrap();
            screen.line("between");
            record.write_all(b"two\n").unwrap();
        }
        assert_eq!(kept.text(), "between\none two\n");
    }
}
