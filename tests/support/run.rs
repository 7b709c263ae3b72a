//! The built binary, run as a user runs it: its own process, a clean environment, real signals.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use super::{eventually, within};

/// A run of the small data takes seconds; tests of large ones say how long theirs may take.
const RUN_LIMIT: Duration = Duration::from_mins(1);

/// How often the memory of a run is read; its peak is kept by the kernel, and only what the last look missed is lost.
const MEMORY_INTERVAL: Duration = Duration::from_millis(10);

/// A command line that is about to run.
pub(crate) struct Outhaul {
    command: Command,
    limit: Duration,
    home: TempDir,
}

/// A process that runs. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Output,
    stderr: Output,
    memory: JoinHandle<u64>,
    limit: Duration,
    _home: TempDir,
}

/// A place at which a run waits until the test lets it go on (the feature `failpoints`).
pub(crate) struct Stop {
    place: &'static str,
    file: PathBuf,
    _folder: TempDir,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code; 128 + n where signal n ended it, as a shell has it.
    pub code: i32,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: String,
    /// The one-line JSON report: the last line of standard output, or null where that is none.
    pub report: serde_json::Value,
    /// The peak of its resident memory, in bytes.
    pub memory_peak: u64,
}

/// The binary with these arguments.
pub(crate) fn outhaul<I>(args: I) -> Outhaul
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    program(env!("CARGO_BIN_EXE_outhaul"), args)
}

/// Any program, run in the same way.
pub(crate) fn program<I>(path: &str, args: I) -> Outhaul
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(path);
    command.args(args).env_clear().current_dir(home.path()).env("HOME", home.path()).env("TMPDIR", home.path());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Outhaul { command, limit: RUN_LIMIT, home }
}

impl Stop {
    /// One stop at a place that `src/base/failpoint.rs` knows.
    pub(crate) fn at(place: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { place, file: folder.path().join(place), _folder: folder }
    }

    /// Lets the run go on.
    pub(crate) fn release(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }
}

impl Outhaul {
    /// Stops the run at these places.
    pub(crate) fn stops<const N: usize>(self, stops: [&Stop; N]) -> Self {
        let places = stops.map(|stop| format!("{}={}", stop.place, stop.file.display()));
        self.env("OUTHAUL_TEST_STOP", places.join(","))
    }

    /// One environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Several, such as [`S3::env`](super::s3::S3::env) gives.
    pub(crate) fn envs<const N: usize>(mut self, pairs: [(&'static str, String); N]) -> Self {
        self.command.envs(pairs);
        self
    }

    /// A pipe as standard input, which stays open until the test ends it.
    pub(crate) fn piped(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// How long it may take.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> Run {
        self.spawn().wait().await
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> Running {
        let mut child = self.command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = Output::collect(child.stdout.take().unwrap());
        let stderr = Output::collect(child.stderr.take().unwrap());
        let memory = tokio::spawn(watch_memory(child.id().unwrap()));
        Running { child, stdin, stdout, stderr, memory, limit: self.limit, _home: self.home }
    }
}

impl Running {
    /// Sends a signal by its name: `INT`, `TERM`, `KILL`, `STOP`, `CONT`.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
        assert!(sent.success(), "kill -s {name} {pid}: {sent}");
    }

    /// Writes a line to its standard input.
    pub(crate) async fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is a pipe");
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// Ends its standard input.
    pub(crate) fn hang_up(&mut self) {
        self.stdin.take().expect("standard input is a pipe");
    }

    /// What it has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What it has said on standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the process has not been waited for")
    }

    /// Waits until the run stands still at a place.
    pub(crate) async fn stands_at(&self, stop: &Stop) {
        let what = format!("reaching {}", stop.place);
        eventually(self.limit, &what, async || {
            let (ended, there) = (self.stderr.reader.is_finished(), stop.file.exists());
            assert!(
                there || !ended,
                "the run ended before {}; its standard error:\n{}",
                stop.place,
                self.stderr.text()
            );
            there.then_some(())
        })
        .await;
    }

    /// Waits until standard error holds a text.
    pub(crate) async fn stderr_has(&self, text: &str) {
        let what = format!("waiting for {text:?} on standard error");
        eventually(self.limit, &what, async || self.stderr.text().contains(text).then_some(())).await;
    }

    /// Waits for its end.
    pub(crate) async fn wait(mut self) -> Run {
        let ended = tokio::time::timeout(self.limit, self.child.wait()).await;
        let Ok(status) = ended else {
            panic!("the run took longer than {:?}; its standard error:\n{}", self.limit, self.stderr.text());
        };
        let status = status.unwrap();
        let code =
            status.code().or_else(|| std::os::unix::process::ExitStatusExt::signal(&status).map(|n| 128 + n)).unwrap();
        // A grandchild may hold the pipes open, and none may outlive the run.
        let stdout = within(self.limit, "the end of standard output", self.stdout.end()).await;
        let stderr =
            String::from_utf8(within(self.limit, "the end of standard error", self.stderr.end()).await).unwrap();
        let last = stdout.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let report = serde_json::from_slice(last).unwrap_or_default();
        Run { code, report, stdout, stderr, memory_peak: self.memory.await.unwrap() }
    }
}

impl Run {
    /// Fails the test unless the run ended with this code, and shows what it said.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "the exit code\n--- standard error ---\n{}\n--- standard output ---\n{}",
            self.stderr,
            self.stdout.escape_ascii()
        );
        self
    }
}

/// A pipe that is read as it fills.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn collect(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let filled = Arc::clone(&bytes);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
                filled.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    async fn end(self) -> Vec<u8> {
        self.reader.await.unwrap();
        std::mem::take(&mut *self.bytes.lock().unwrap())
    }
}

/// The highest `VmHWM` seen until the process is gone, in bytes.
async fn watch_memory(pid: u32) -> u64 {
    let mut peak = 0;
    while let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(kib) = line.and_then(|rest| rest.trim().strip_suffix(" kB")) else { break };
        peak = peak.max(kib.parse::<u64>().unwrap() * 1024);
        tokio::time::sleep(MEMORY_INTERVAL).await;
    }
    peak
}
