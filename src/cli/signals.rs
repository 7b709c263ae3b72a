//! SIGINT and SIGTERM. The first stops the run cleanly; the second leaves at once. SIGXFSZ, which would end the process at a
//! limit on file sizes, is taken from the system, so that the write fails instead.
//!
//! The signals have a thread and a runtime of their own, so that the second one is heard even where every other thread is
//! busy or stuck.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use crate::model::ExportErrorKind;

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupted,
    /// SIGTERM, as a supervisor sends it.
    Terminated,
    /// SIGHUP, as a terminal sends it that is closed, where that is listened to.
    HungUp,
}

impl StopSignal {
    /// The kind of the error that a run stopped by it ends with.
    pub(crate) fn kind(self) -> ExportErrorKind {
        match self {
            Self::Interrupted => ExportErrorKind::Interrupted,
            Self::Terminated | Self::HungUp => ExportErrorKind::Terminated,
        }
    }

    /// As the system calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interrupted => "SIGINT",
            Self::Terminated => "SIGTERM",
            Self::HungUp => "SIGHUP",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Interrupted => 2,
            Self::Terminated => 15,
            Self::HungUp => 1,
        }
    }
}

type LastAct = Box<dyn FnOnce() + Send>;

/// What the rest of the program sees of signals. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    token: CancellationToken,
    /// The number of the signal that came first; 0 before.
    first: Arc<AtomicU8>,
    last_act: Arc<Mutex<Option<LastAct>>>,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("reason", &self.reason()).finish_non_exhaustive()
    }
}

impl Signals {
    /// Begins to listen, for the rest of the process's life.
    ///
    /// # Errors
    /// Where the system gives no thread or refuses the handlers.
    pub(crate) fn listen(screen: &Screen) -> io::Result<Self> {
        let signals = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        // A handler stays for as long as the process lives, whoever listens; what the process starts does not inherit it.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        drop(guard);
        let (listener, screen) = (signals.clone(), screen.clone());
        std::thread::Builder::new().name("outhaul-signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    let stop = tokio::select! {
                        Some(()) = interrupts.recv() => StopSignal::Interrupted,
                        Some(()) = terminations.recv() => StopSignal::Terminated,
                        else => break,
                    };
                    listener.take(stop, &screen);
                }
            });
        })?;
        Ok(signals)
    }

    /// Lets a SIGHUP stop the run from now on, where it would end the process at once. A terminal that is closed may send
    /// several, so that none of them counts as the second signal; under nohup there is none.
    ///
    /// # Errors
    /// Where the system refuses the handler.
    pub(crate) fn heed_hangups(&self) -> io::Result<()> {
        if hangups_are_ignored() {
            return Ok(());
        }
        let (mut hangups, signals) = (signal(SignalKind::hangup())?, self.clone());
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                signals.first(StopSignal::HungUp);
            }
        });
        Ok(())
    }

    /// Cancelled by the first signal.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The signal that came first, if any.
    pub(crate) fn reason(&self) -> Option<StopSignal> {
        match self.first.load(Ordering::Acquire) {
            2 => Some(StopSignal::Interrupted),
            15 => Some(StopSignal::Terminated),
            1 => Some(StopSignal::HungUp),
            _ => None,
        }
    }

    /// Sets what is still done when a second signal ends the process at once; it must be quick. Replaces the one before.
    pub(crate) fn set_last_act(&self, act: Option<LastAct>) {
        *self.last_act.lock().unwrap_or_else(PoisonError::into_inner) = act;
    }

    /// Notes a signal; whether it was the first.
    pub(crate) fn first(&self, stop: StopSignal) -> bool {
        let first = self.first.compare_exchange(0, stop.number(), Ordering::AcqRel, Ordering::Acquire);
        self.token.cancel();
        first.is_ok()
    }

    fn take(&self, stop: StopSignal, screen: &Screen) {
        if self.first(stop) {
            // Said by a thread of its own: a terminal that stands still must not delay the second signal.
            let screen = screen.clone();
            let _ = std::thread::Builder::new().spawn(move || {
                screen.line("stopping cleanly; a second signal leaves at once");
            });
            return;
        }
        if let Some(act) = self.last_act.lock().unwrap_or_else(PoisonError::into_inner).take() {
            act();
        }
        leave(stop);
    }
}

/// Whether whoever started us wants us to outlive the terminal. A handler would undo that.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[expect(clippy::exit, reason = "the second signal asks for exactly this")]
fn leave(stop: StopSignal) -> ! {
    std::process::exit(128 + i32::from(stop.number()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::tests::Kept;

    #[test]
    fn the_first_signal_cancels_and_is_remembered() {
        let signals = Signals::default();
        assert_eq!(signals.reason(), None);
        assert!(!signals.token().is_cancelled());
        signals.take(StopSignal::Terminated, &Kept::default().screen());
        assert!(!signals.first(StopSignal::Interrupted));
        assert!(signals.token().is_cancelled());
        assert_eq!(signals.reason(), Some(StopSignal::Terminated));
        assert_eq!(signals.reason().map(StopSignal::kind), Some(ExportErrorKind::Terminated));
    }
}
