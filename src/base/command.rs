//! Runs a program that answers in a few bytes: a password, credentials.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Bytes of an answer: a token of an identity service has a few thousand.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// What a program said, and how it ended. Its output is a secret.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// The shell with a command line.
pub(crate) fn shell(line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]);
    shell
}

/// Runs a program without input in a process group of its own.
///
/// # Errors
/// The program cannot be started, or says more than [`ANSWER_BYTES_MAX`].
///
/// # Cancel safety
/// Dropping the future kills the program with everything that it started in its process group.
pub(crate) async fn run(mut command: Command) -> io::Result<Answer> {
    command.process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let _group = ProcessGroup::of(&child);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("it has no output"));
    };
    let (status, stdout, stderr) = tokio::try_join!(child.wait(), all_of(stdout), all_of(stderr))?;
    Ok(Answer { status, stdout, stderr })
}

struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Usually nothing is left of it.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// All bytes of a source, which may be [`ANSWER_BYTES_MAX`].
///
/// # Errors
/// There are more, or they cannot be read.
pub(crate) async fn all_of(source: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > ANSWER_BYTES_MAX) {
        return Err(io::Error::other(format!("more than {ANSWER_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
