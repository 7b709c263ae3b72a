//! A snapshot that is held outside of its run, so that `resume` can read under it after the run has died.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};

use super::error::ExportError;
use super::identity::RunIdentity;
use super::outside::find::first_that_lives;
use super::outside::posted;
use super::place::place;
use super::record::RunRecord;
use super::request::ExportRequest;
use crate::base::failpoint;
use crate::commit::{Placement, look};
use crate::model::{ExportErrorKind, KeepEnd, KeptSnapshot, ObjectOptions, SnapshotId, Target};
use crate::source::{Begun, Reading, Source};
use crate::store::owner::{ProcessIdentity, owner};
use crate::store::{Destination, Journal, StoreOptions, of_records, shown};

/// Between two looks at the journal: whether the run has begun, has ended, or has new keepers.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Journals that are written to at the same time.
const JOURNALS_AT_ONCE: usize = 16;

/// Until a detached keeper has imported the snapshot and written that down: a connection and a few requests.
const KEEPER_START: Duration = Duration::from_secs(45);

/// What is asked of a keeper.
#[derive(Debug, Clone)]
pub struct KeepRequest {
    /// Where the run reads.
    pub source: Arc<dyn Source>,
    /// Where it writes: its journal is there.
    pub destination: String,
    /// Whether that is a single file.
    pub single_file: bool,
    /// The run; whichever owns the destination unless given.
    pub run_id: Option<String>,
    /// Where the other exports of the run write, each with whether that is a single file.
    pub others: Vec<(String, bool)>,
    /// So long at most.
    pub duration: Duration,
    /// A session may wait so long for the keeper's locks; `None` is for ever.
    pub yield_after: Option<Duration>,
}

/// How a run starts a keeper of its own: this program again, detached.
#[derive(Clone)]
pub struct KeeperLaunch {
    /// The program.
    pub program: PathBuf,
    /// The options by which it connects as the run does, as keys and values; secrets stay in the environment and in
    /// files.
    pub connection: Vec<(String, Vec<String>)>,
    /// See [`KeepRequest::yield_after`].
    pub yield_after: Option<Duration>,
}

/// What a run hands over to its keeper: one line on its standard input, which is then kept open until the run ends.
#[derive(Clone, Serialize, Deserialize)]
pub struct HandOver {
    /// See [`KeeperLaunch::connection`].
    pub connection: Vec<(String, Vec<String>)>,
    /// The destination's URL.
    pub destination: String,
    /// Whether that is a single file.
    pub single_file: bool,
    /// The run.
    pub run_id: String,
    /// See [`KeepRequest::others`].
    #[serde(default)]
    pub others: Vec<(String, bool)>,
    /// So long at most.
    pub duration: Duration,
    /// See [`KeepRequest::yield_after`].
    pub yield_after: Option<Duration>,
}

/// The options may hold a password command; no `{:?}` of ours prints them.
impl std::fmt::Debug for HandOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandOver").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KeeperLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeeperLaunch").field("program", &self.program).finish_non_exhaustive()
    }
}

/// What a keeper answers: one line on its standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeeperReply {
    /// It holds the snapshot, under this id, which stands in the journal.
    Held(String),
    /// It does not.
    Failed {
        /// The class of its error.
        kind: ExportErrorKind,
        /// The error.
        why: String,
        /// What to do about it, where it is known.
        hint: Option<String>,
    },
}

/// A keeper that runs by itself; dropped, it goes on.
#[derive(Debug)]
pub(crate) struct DetachedKeeper {
    /// The id under which it holds the snapshot.
    pub(crate) snapshot: String,
    stdin: ChildStdin,
}

impl DetachedKeeper {
    /// Tells it that its run has ended.
    pub(crate) async fn end(mut self) {
        // It also looks into the journal.
        let _ = self.stdin.write_all(RUN_ENDED).await;
    }
}

/// What a run says to its keeper at its end.
pub const RUN_ENDED: &[u8] = b"end\n";

impl KeeperLaunch {
    /// Starts a keeper for the exports of a run, and waits until its id stands in their journals.
    pub(super) async fn start(&self, requests: &[&ExportRequest]) -> Result<DetachedKeeper, ExportError> {
        let no_journal = || ExportError::internal("a keeper for a run that has no journal");
        let (request, others) = requests.split_first().ok_or_else(no_journal)?;
        let (Target::Destination(destination), Some(duration)) = (&request.commit.target, request.commit.keep_snapshot)
        else {
            return Err(no_journal());
        };
        let others = others.iter().filter_map(|other| match &other.commit.target {
            Target::Destination(url) => Some((url.clone(), other.commit.single_file)),
            Target::Stream { .. } => None,
        });
        let failed = |why: &dyn std::fmt::Display| {
            ExportError::new(ExportErrorKind::SourceUnavailable, format!("starting the keeper of the snapshot: {why}"))
                .with_hint("without --keep-snapshot the export needs none")
        };
        let hand_over = HandOver {
            connection: self.connection.clone(),
            destination: destination.clone(),
            single_file: request.commit.single_file,
            run_id: request.commit.run_id.clone(),
            others: others.collect(),
            duration,
            yield_after: self.yield_after,
        };
        let mut line = serde_json::to_vec(&hand_over).map_err(|error| failed(&error))?;
        line.push(b'\n');
        let mut program = Command::new(&self.program);
        if let Some(command) = &request.commit.aws_credential_command {
            program.env("OUTHAUL_AWS_CREDENTIAL_COMMAND", command.expose());
        }
        let mut child = program
            .args(["keep", "--handed-over"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A Ctrl-C is the run's, and not the keeper's.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(&error))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&"it has no pipes"));
        };
        let answer = async {
            stdin.write_all(&line).await?;
            stdin.flush().await?;
            let mut answer = String::new();
            BufReader::new(stdout).read_line(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(KEEPER_START, answer).await;
        let answer = answer.map_err(|_| failed(&"it did not answer in time"))?.map_err(|error| failed(&error))?;
        match serde_json::from_str(&answer) {
            Ok(KeeperReply::Held(snapshot)) => Ok(DetachedKeeper { snapshot, stdin }),
            Ok(KeeperReply::Failed { kind, why, hint }) => {
                let own = "without --keep-snapshot the export needs none";
                let hint = hint.map_or_else(|| own.to_owned(), |hint| format!("{hint}; {own}"));
                Err(ExportError { kind, hint: Some(hint), ..failed(&why) })
            }
            Err(_) => Err(failed(&"it ended without an answer")),
        }
    }
}

/// Holds a run's snapshot until the run has ended, `stop` resolves or the time is up. `held` is told the id once it
/// stands in the journal.
///
/// # Errors
/// There is no such run, its snapshot is held by nobody any more, or source or destination fail.
///
/// # Cancel safety
/// Dropping the future closes the session.
pub async fn keep(
    request: KeepRequest,
    held: impl FnOnce(&KeptSnapshot),
    stop: impl Future<Output = KeepEnd> + Send,
) -> Result<KeepEnd, ExportError> {
    let deadline = Instant::now() + request.duration;
    let (destination, placement) = place(&request.destination, request.single_file).await?;
    let mut stop = std::pin::pin!(stop);
    let BegunRun { journal, record, others } = loop {
        if let Some(found) = begun_run(&request, &destination, &placement).await? {
            break found;
        }
        if has_ended(&destination, &placement, request.run_id.as_deref()).await? {
            return Ok(KeepEnd::RunEnded);
        }
        // A pod of its own may be up before the run's.
        tokio::select! {
            end = &mut stop => return Ok(end),
            () = tokio::time::sleep_until(deadline.into()) => {
                let message = format!("no run began at {}", destination.url());
                return Err(ExportError::new(ExportErrorKind::Usage, message));
            }
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    };
    if record.held.is_empty() {
        let message = "the run has one reader, whose own transaction is the snapshot: nobody else can hold it";
        return Err(ExportError::new(ExportErrorKind::Usage, message)
            .with_hint("export with --readers 2 or more, or with --keep-snapshot"));
    }
    let (begun, journals) = of_all(&others, journal, &record).await?;
    let Some(keeping) = request.source.keep(record.run_id.clone(), begun) else {
        return Err(ExportError::new(ExportErrorKind::Usage, "this source has no snapshot that could be held"));
    };
    let keeper = keeping.await?;
    let process = ProcessIdentity::current();
    let kept = KeptSnapshot {
        snapshot: keeper.snapshot().to_owned(),
        until: Utc::now() + TimeDelta::from_std(request.duration).unwrap_or(TimeDelta::zero()),
        host: process.map(|process| process.host).unwrap_or_default(),
        pid: std::process::id(),
    };
    let name = format!("{:08x}", rand::random::<u32>());
    for some in journals.chunks(JOURNALS_AT_ONCE) {
        try_join_all(some.iter().map(|journal| journal.record_keeper(&name, &kept))).await?;
    }
    held(&kept);
    let over = async {
        tokio::select! {
            end = stop => end,
            end = run_ended(&journals) => end,
        }
    };
    Ok(keeper.hold(deadline, request.yield_after, over.boxed()).await?)
}

/// A run that has begun.
struct BegunRun {
    journal: Journal,
    record: RunRecord,
    /// See [`KeepRequest::others`].
    others: Vec<(String, bool)>,
}

/// The run at a destination, or the job at a root whose exports wait for workers, if it has begun.
async fn begun_run(
    request: &KeepRequest,
    destination: &Destination,
    placement: &Placement,
) -> Result<Option<BegunRun>, ExportError> {
    let run_id = match &request.run_id {
        Some(run_id) => Some(run_id.clone()),
        None => owner(destination, &placement.owner_path()).await?.map(|owner| owner.run_id),
    };
    if let Some(run_id) = run_id {
        let journal = Journal::new(destination.clone(), run_id);
        if let Some(identity) = RunIdentity::read(&journal).await? {
            identity.check(&journal, ExportErrorKind::Usage)?;
        }
        if let Some(record) = RunRecord::read(&journal).await? {
            return Ok(Some(BegunRun { journal, record, others: request.others.clone() }));
        }
    }
    if request.single_file || !request.others.is_empty() {
        return Ok(None);
    }
    let runs = match &request.run_id {
        Some(asked) => vec![asked.clone()],
        None => posted::runs(destination).await?,
    };
    let Some(job) = first_that_lives(destination, &runs, None).await? else { return Ok(None) };
    let mut places = job.exports.into_iter().map(|export| (export.destination, false));
    let Some((first, _)) = places.next() else { return Ok(None) };
    let (destination, _) = place(&first, false).await?;
    let journal = Journal::new(destination, job.run_id);
    let record = RunRecord::read(&journal).await?;
    Ok(record.map(|record| BegunRun { journal, record, others: places.collect() }))
}

/// What is known of all exports of a run whose first one is known, and their journals.
async fn of_all(
    others: &[(String, bool)],
    journal: Journal,
    record: &RunRecord,
) -> Result<(Vec<Begun>, Vec<Journal>), ExportError> {
    let begun_first = record.begun(&journal, false).await?;
    let (mut begun, mut journals) = (vec![begun_first], vec![encrypted(journal, record).await?]);
    for (url, single_file) in others {
        let (destination, _) = place(url, *single_file).await?;
        let journal = Journal::new(destination, record.run_id.clone());
        let other = RunRecord::read(&journal).await?;
        let message = || format!("no export of the run has begun at {}", shown(url));
        let gone = || ExportError::new(ExportErrorKind::Usage, message());
        let other = other.ok_or_else(gone)?;
        if other.consistency.snapshots != record.consistency.snapshots {
            let message = format!("{} is read under another snapshot of the run", shown(url));
            return Err(ExportError::new(ExportErrorKind::Usage, message)
                .with_hint("a keeper holds one snapshot: name the destinations of the exports one by one"));
        }
        begun.push(other.begun(&journal, false).await?);
        journals.push(encrypted(journal, &other).await?);
    }
    Ok((begun, journals))
}

/// A journal of a run whose notes are encrypted as what the run writes.
async fn encrypted(journal: Journal, record: &RunRecord) -> Result<Journal, ExportError> {
    let url = journal.destination_url().to_owned();
    let objects = of_records(&url, &record.commit.objects)?;
    if objects == ObjectOptions::default() {
        return Ok(journal);
    }
    let destination = Destination::connect_for(&url, &StoreOptions::small(), None, &objects).await?;
    Ok(Journal::new(destination, journal.run_id()))
}

/// Notes the ids of keepers that take the place of lost ones, and those of a process that goes on with the run (`resumed`), so
/// that a keeper outside of the run and a worker, which come later, find one that lives. For as long as it is polled.
///
/// # Cancel safety
/// An id may be noted or not.
pub(super) async fn note_new_keepers(reading: &dyn Reading, journal: &Journal, resumed: bool) -> Infallible {
    // Those that the run began with stand in its record.
    let mut known: HashSet<String> = if resumed {
        noted(journal).await.unwrap_or_default().into_iter().collect()
    } else {
        reading.held().await.into_iter().collect()
    };
    loop {
        tokio::time::sleep(failpoint::limit("note-keepers", LOOK_INTERVAL)).await;
        for snapshot in reading.held().await {
            if known.contains(&snapshot) || failpoint::off("note-keepers") {
                continue;
            }
            let record = SnapshotId { snapshot: snapshot.clone() };
            match journal.record_keeper(&format!("{:08x}", rand::random::<u32>()), &record).await {
                Ok(()) => drop(known.insert(snapshot)),
                // The next look tries again; nothing but a later keeper depends on it.
                Err(error) => tracing::debug!(%error, "a keeper is not noted"),
            }
        }
    }
}

/// The ids that a journal has; none where it cannot be read, so that some are noted twice.
async fn noted(journal: &Journal) -> Option<Vec<String>> {
    let record = RunRecord::read(journal).await.ok()??;
    Some(record.begun(journal, false).await.ok()?.held)
}

/// Whether the export at a destination is finished: its manifest stands, and nobody is at work there. Which run is meant
/// says `run_id`; an export that is to replace one that stands has to be named.
async fn has_ended(
    destination: &Destination,
    placement: &Placement,
    run_id: Option<&str>,
) -> Result<bool, ExportError> {
    // In this order: an owner leaves after his manifest stands.
    if owner(destination, &placement.owner_path()).await?.is_some_and(|owner| owner.is_alive(Utc::now())) {
        return Ok(false);
    }
    let standing = look(destination, placement).await?;
    Ok(standing.is_some_and(|it| run_id.is_none_or(|run_id| run_id == it.manifest.run_id)))
}

/// Resolves once the run's journals are closed, at all its destinations.
async fn run_ended(journals: &[Journal]) -> KeepEnd {
    let mut open = journals;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // One that is open is enough. A destination that does not answer now says nothing.
        while let [first, rest @ ..] = open
            && let Ok(false) = first.is_open().await
        {
            open = rest;
        }
        if open.is_empty() {
            return KeepEnd::RunEnded;
        }
    }
}
