//! The process of an owner, and whether it is known to be gone.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// A process, such that no other is taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The machine's name, for people.
    pub host: String,
    /// The machine's boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The namespace in which `pid` counts.
    pub pid_namespace: String,
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since the boot: process ids are used again.
    pub started: u64,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessState {
    Alive,
    Gone,
    /// It is of another machine or container, or this system shows nobody the processes of others.
    Unknown,
}

impl ProcessIdentity {
    /// This process; `None` where the system has no `/proc`.
    pub fn current() -> Option<Self> {
        let read = |path: &str| Some(std::fs::read_to_string(path).ok()?.trim().to_owned());
        let pid = std::process::id();
        let Some(Stat::Of(started)) = stat(pid) else { return None };
        Some(Self {
            host: read("/proc/sys/kernel/hostname")?,
            boot_id: read("/proc/sys/kernel/random/boot_id")?,
            pid_namespace: std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned(),
            pid,
            started,
        })
    }

    /// Whether the process is known to be gone: it ran on this boot of this machine, and does no more. One of another
    /// machine or container may live.
    pub fn is_gone(&self) -> bool {
        self.state() == ProcessState::Gone
    }

    /// Whether the process is known to live: it runs on this machine.
    pub fn is_here(&self) -> bool {
        self.state() == ProcessState::Alive
    }

    fn state(&self) -> ProcessState {
        let of_here = Self::current()
            .is_some_and(|ours| (&ours.boot_id, &ours.pid_namespace) == (&self.boot_id, &self.pid_namespace));
        if !of_here {
            return ProcessState::Unknown;
        }
        match stat(self.pid) {
            Some(Stat::Of(started)) if started == self.started => ProcessState::Alive,
            Some(_) => ProcessState::Gone,
            // A system that hides the processes of other users (`hidepid`) has no file of one that lives either.
            None => answers(self.pid),
        }
    }
}

/// Whether there is a process of this number that takes signals, which nobody can hide.
fn answers(pid: u32) -> ProcessState {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return ProcessState::Gone };
    match test_kill_process(pid) {
        Err(Errno::SRCH) => ProcessState::Gone,
        // Of whom the number is by now is not said.
        Ok(()) | Err(_) => ProcessState::Unknown,
    }
}

/// What `/proc/PID/stat` says.
enum Stat {
    /// When it started.
    Of(u64),
    /// It has ended and was not waited for, and does nothing any more.
    Ended,
}

/// Field 22 of `/proc/PID/stat`; the second one, the name, may hold anything and ends with the last parenthesis. `None` where
/// it cannot be read.
fn stat(pid: u32) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return Some(Stat::Ended);
    }
    fields.nth(18)?.parse().ok().map(Stat::Of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_no_signal_is_gone_where_nothing_else_is_known() {
        // The first process of the machine may be of another user.
        for pid in [1, std::process::id()] {
            assert_eq!(answers(pid), ProcessState::Unknown, "{pid}");
        }
        assert_eq!((answers(i32::MAX.unsigned_abs()), answers(u32::MAX)), (ProcessState::Gone, ProcessState::Gone));
        let ours = ProcessIdentity::current().unwrap();
        assert!(ours.is_here() && !ours.is_gone());
        let elsewhere = ProcessIdentity { boot_id: "other".to_owned(), ..ours.clone() };
        assert!(!elsewhere.is_here() && !elsewhere.is_gone());
        let reused = ProcessIdentity { started: 1, ..ours };
        assert!(reused.is_gone() && !reused.is_here());
    }
}
