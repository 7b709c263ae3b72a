//! Thousands of runs over a source and a store that fail as a seed says. Whatever fails, in whatever order: one whole
//! export stands at the end, or an error is told and nothing of the run is seen.
//!
//! Owner, journal, coordinator, worker, writer, commit and the removal of dead runs are the real ones; the clock is tokio's paused one, so that a minute's
//! wait costs nothing, and CPU work is done in place. `OUTHAUL_TEST_SEED=N` runs one seed and tells all that it asked of
//! the store; `OUTHAUL_TEST_SEEDS=N` runs so many.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::error::ExportError;
use super::finish::RunTarget;
use super::run::Run;
use crate::base::cpu;
use crate::commit::{Placement, test_data};
use crate::config::{Environment, load};
use crate::model::{
    Carrier, Consistency, ConsistencyMode, ExportErrorKind, ExportReport, Partition, Plan, ReadRequest, ShapeOptions,
    SourceFacts, SourceKind,
};
use crate::source::{Batch, Begun, Opened, Reading, Replan, Retry, Source, SourceError, SourceFault};
use crate::store::fault_store::{Dice, FaultStore};
use crate::store::{Destination, Journal, StoreOptions};

mod several;

const SEEDS: u64 = 2_000;

/// Longer than any run may take of its own clock: what passes this hangs.
const HANG: Duration = Duration::from_hours(24 * 30);

/// The rows of a relation, partition by partition, some of which fail to be read.
#[derive(Debug, Clone)]
struct Simulated {
    dice: Dice,
    /// By the numbers of the partitions as they are planned now.
    rows: Arc<Mutex<BTreeMap<u32, Range<i64>>>>,
    calm: bool,
    opened: Arc<Mutex<BTreeMap<u32, u64>>>,
}

impl Simulated {
    fn new(seed: u64, first: i64, calm: bool) -> Self {
        let dice = Dice::new(seed);
        let mut next = first;
        let rows = (0..=dice.roll("partitions", 0, 6)).map(|nth| {
            // A third of the partitions is empty.
            let count = dice.roll("rows", nth, 60).saturating_sub(20);
            let start = next;
            next += i64::try_from(count).unwrap();
            start..next
        });
        Self { dice, rows: Arc::new(Mutex::new((0..).zip(rows).collect())), calm, opened: Arc::default() }
    }

    fn planned(&self) -> Plan {
        let mut plan = test_data::heap_plan();
        let first = plan.partitions.swap_remove(0);
        plan.columns = vec![test_data::column("id", "bigint", Carrier::Int64, false)];
        let rows = self.rows.lock().unwrap();
        plan.partitions = rows.keys().map(|number| Partition { number: *number, ..first.clone() }).collect();
        plan
    }

    fn ids(&self) -> Vec<i64> {
        self.rows.lock().unwrap().values().cloned().flatten().collect()
    }

    /// An error of the source: most of them pass.
    fn fails(&self, what: &str, nth: u64) -> Option<SourceError> {
        if self.calm || !self.dice.one_in(12, what, nth) {
            return None;
        }
        let (fault, retry) = match self.dice.roll(what, nth + 1_000, 12) {
            0 => (SourceFault::Rejected, Retry::Never),
            1 => (SourceFault::SnapshotLost, Retry::Never),
            2 => (SourceFault::GaveWay, Retry::Briefly),
            3 => (SourceFault::GaveWay, Retry::FewerReaders),
            4 => (SourceFault::Unavailable, Retry::Replan),
            _ => (SourceFault::Unavailable, Retry::Again),
        };
        Some(SourceError { retry, ..SourceError::new(fault, "simulated") })
    }

    fn batches(&self, partition: u32, nth: u64) -> Vec<Result<Batch, SourceError>> {
        // Of what was planned anew there is nothing to read any more.
        let range = self.rows.lock().unwrap().get(&partition).cloned().unwrap_or(0..0);
        let what = format!("batch of {partition}");
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let mut batches = Vec::new();
        let mut next = range.start;
        while next < range.end {
            let step = nth * 1_000 + u64::try_from(batches.len()).unwrap();
            if let Some(error) = self.fails(&what, step) {
                batches.push(Err(error));
                break;
            }
            let end = range.end.min(next + 1 + i64::try_from(self.dice.roll(&what, step, 12)).unwrap());
            let column = Arc::new(Int64Array::from_iter_values(next..end));
            let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
            batches.push(Ok(Batch { rows, changed: Box::default(), beyond_cap: false, is_followed: false }));
            next = end;
        }
        batches
    }
}

impl Source for Simulated {
    fn kind(&self) -> SourceKind {
        SourceKind::Postgresql
    }

    fn check(&self, _: &mut ShapeOptions) -> Result<(), SourceError> {
        Ok(())
    }

    fn plan(&self, _: Vec<ReadRequest>) -> BoxFuture<'_, Result<Vec<Plan>, SourceError>> {
        ready(Ok(vec![self.planned()])).boxed()
    }

    fn begin(&self, _: Vec<ReadRequest>) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        ready(Ok(Arc::new(self.clone()) as Arc<dyn Reading>)).boxed()
    }

    fn resume(&self, requests: Vec<ReadRequest>, _: Begun) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        self.begin(requests)
    }
}

impl Reading for Simulated {
    fn plan(&self, _: usize) -> Option<Arc<Plan>> {
        Some(Arc::new(self.planned()))
    }

    fn facts(&self) -> SourceFacts {
        test_data::source()
    }

    fn consistency(&self, _: usize) -> Consistency {
        Consistency { mode: ConsistencyMode::SingleSnapshot, snapshots: Vec::new(), now: None, note: None, proof: None }
    }

    fn record(&self, _: usize) -> Result<Value, SourceError> {
        Ok(Value::Null)
    }

    fn open(&self, _: usize, partition: u32) -> BoxFuture<'_, Result<Opened, SourceError>> {
        let nth = *self.opened.lock().unwrap().entry(partition).and_modify(|nth| *nth += 1).or_insert(0);
        let what = format!("open {partition}");
        let dice = self.dice;
        Box::pin(async move {
            tokio::time::sleep(dice.millis(200, &what, nth)).await;
            if let Some(error) = self.fails(&what, nth) {
                return Err(error);
            }
            let batches = stream::iter((0_u64..).zip(self.batches(partition, nth)));
            let late = batches.then(move |(at, batch)| {
                let delay = dice.millis(100, &what, nth * 1_000 + at);
                async move {
                    tokio::time::sleep(delay).await;
                    batch
                }
            });
            Ok(Opened::Rows(late.boxed()))
        })
    }

    /// Cuts the partition anew, half of the time together with another one.
    fn replan(&self, _: usize, partition: u32) -> BoxFuture<'_, Result<Option<Replan>, SourceError>> {
        let mut rows = self.rows.lock().unwrap();
        let next = rows.keys().max().unwrap() + 1;
        let nth = u64::from(next);
        let together = self.dice.one_in(2, "together", nth);
        let other = rows.keys().copied().find(|other| together && *other != partition);
        let discard: Vec<u32> = std::iter::once(partition).chain(other).collect();
        let gone: Vec<Range<i64>> = discard.iter().map(|number| rows.remove(number).unwrap()).collect();
        let halves = gone.into_iter().flat_map(|range| {
            let middle = range.start + (range.end - range.start) / 2;
            [range.start..middle, middle..range.end]
        });
        let added: Vec<(u32, Range<i64>)> = (next..).zip(halves).collect();
        rows.extend(added.iter().cloned());
        drop(rows);
        let add = self.planned().partitions.into_iter().filter(|partition| partition.number >= next).collect();
        let lost = self.dice.one_in(10, "replan", nth);
        let lost = lost.then(|| SourceError::new(SourceFault::SnapshotLost, "simulated"));
        ready(lost.map_or(Ok(Some(Replan { discard, add })), Err)).boxed()
    }

    fn guard(&self) -> BoxFuture<'_, SourceError> {
        let lost = !self.calm && self.dice.one_in(40, "guard", 0);
        Box::pin(async move {
            if !lost {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.dice.millis(3_000, "guard", 1)).await;
            SourceError::new(SourceFault::SnapshotLost, "simulated")
        })
    }
}

/// One run at a destination that others may have used before.
struct SimulatedRun {
    run: Run,
    source: Arc<Simulated>,
    store: Arc<FaultStore>,
}

impl SimulatedRun {
    fn new(seed: u64, store: &Arc<FaultStore>, run_id: &str, first: i64, calm: bool) -> Self {
        let destination = Destination::of_store(store, &StoreOptions::small());
        let dice = Dice::new(seed);
        let visibility = if dice.one_in(4, "visibility", 0) { "as-written" } else { "at-commit" };
        let readers = (dice.roll("readers", 0, 4) + 1).to_string();
        let words = [
            ("from", "postgres://me@db/shop"),
            ("table", "t"),
            ("to", destination.url()),
            ("format", "csv"),
            ("run_id", run_id),
            ("on_existing", "replace"),
            ("visibility", visibility),
            ("readers", &readers),
        ];
        let flags = words.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
        let mut request = load(flags, &Environment::of([], []), true).unwrap().0;
        let source = Arc::new(Simulated::new(seed, first, calm));
        request.source = Arc::clone(&source) as Arc<dyn Source>;
        // This process lives, and so would the owner that it left a moment ago.
        request.commit.take_over = true;
        // Some dozen rows.
        request.work.part_size = NonZeroU64::new(40).unwrap();
        let journal = Journal::new(destination.clone(), run_id);
        let (events, mut told) = tokio::sync::mpsc::channel(1_000);
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        let place = RunTarget::Destination { destination, journal, placement: Placement::Parts };
        let run = Run::new(request, place, events);
        Self { run, source, store: Arc::clone(store) }
    }

    fn run_id(&self) -> &str {
        &self.run.request.commit.run_id
    }

    async fn go(&self, cancel: &CancellationToken) -> Result<ExportReport, ExportError> {
        self.run.execute(cancel).await
    }
}

/// What stands at the destination.
struct Standing {
    /// Of the manifest, where one stands.
    run_id: Option<String>,
    /// The parts it names.
    named: BTreeSet<String>,
    /// All below `data/`.
    visible: BTreeSet<String>,
    /// The rows of the parts it names.
    ids: Vec<i64>,
}

impl Standing {
    fn of(store: &FaultStore) -> Self {
        let objects = store.objects();
        let visible = objects.keys().filter(|path| path.starts_with("data/")).cloned().collect();
        let Some(manifest) = objects.get("_manifest.json") else {
            return Self { run_id: None, named: BTreeSet::new(), visible, ids: Vec::new() };
        };
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let mut ids = Vec::new();
        let mut named = BTreeSet::new();
        for part in manifest["parts"].as_array().unwrap() {
            let path = part["path"].as_str().unwrap();
            let bytes = objects.get(path).unwrap_or_else(|| panic!("the manifest names {path}, which is not there"));
            assert_eq!(part["bytes"], bytes.len(), "{path}");
            let lines: Vec<i64> =
                std::str::from_utf8(bytes).unwrap().lines().skip(1).map(|line| line.parse().unwrap()).collect();
            assert_eq!(part["rows"], lines.len(), "{path}");
            ids.extend(lines);
            named.insert(path.to_owned());
        }
        assert_eq!(manifest["totals"]["rows"], ids.len());
        ids.sort_unstable();
        Self { run_id: manifest["run_id"].as_str().map(str::to_owned), named, visible, ids }
    }
}

/// What a later cleaner finds in a run's journal.
fn journalled(store: &FaultStore, run_id: &str) -> BTreeSet<String> {
    let below = format!("_outhaul/{run_id}/uploads/");
    let name = |path: &String| Some(path.strip_prefix(&below)?.strip_suffix(".json")?.to_owned());
    store.objects().keys().filter_map(name).collect()
}

/// How a seed ended, for the sum at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Committed,
    Failed,
    Cancelled,
    Unknown,
    Killed,
}

/// One run with faults, in half of the seeds after one without; what must be true of it. Then one more without.
async fn simulate(seed: u64, store: &Arc<FaultStore>) -> End {
    let dice = Dice::new(seed);
    let nobody = CancellationToken::new();
    let mut old_ids = Vec::new();
    store.calm(true);
    if dice.one_in(2, "before", 0) {
        let first = SimulatedRun::new(seed ^ 1, &store.another(), "first", 1_000_000, true);
        first.go(&nobody).await.unwrap();
        old_ids = first.source.ids();
    }
    let before = Standing::of(store);
    assert_eq!(before.ids, old_ids);

    store.calm(false);
    let run = SimulatedRun::new(seed, &store.another(), "second", 0, false);
    let cancel = CancellationToken::new();
    if dice.one_in(6, "cancel", 0) {
        let (cancel, after) = (cancel.clone(), dice.millis(4_000, "cancel", 1));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            cancel.cancel();
        });
    }
    let life = if dice.one_in(4, "kill", 0) { dice.millis(6_000, "kill", 1) } else { HANG };
    let end = match tokio::time::timeout(life, run.go(&cancel)).await {
        Ok(result) => judge(store, &run, &before, &result),
        Err(elapsed) => {
            assert!(life < HANG, "the run hangs: {elapsed}");
            run.store.kill();
            End::Killed
        }
    };

    store.calm(true);
    let last = SimulatedRun::new(seed ^ 2, &store.another(), "last", 2_000_000, true);
    let ended = tokio::time::timeout(HANG, last.go(&nobody)).await.expect("the last run hangs");
    ended.unwrap_or_else(|error| panic!("the last run failed: {error:?}"));
    let after = Standing::of(store);
    assert_eq!((after.run_id.as_deref(), &after.ids), (Some("last"), &sorted(last.source.ids())));
    assert_eq!(after.visible, after.named, "beside the last export, after {end:?}");
    for (path, id) in store.open_uploads() {
        let noted = !store.failed_to_write(&format!("_outhaul/second/uploads/{path}.json"));
        assert!(!noted, "upload {id} of {path} is still open, after {end:?}");
    }
    end
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

fn judge(store: &FaultStore, run: &SimulatedRun, before: &Standing, result: &Result<ExportReport, ExportError>) -> End {
    let after = Standing::of(store);
    let ours = after.run_id.as_deref() == Some(run.run_id());
    let end = match result {
        Ok(_) => End::Committed,
        Err(error) if error.may_be_committed() => End::Unknown,
        Err(error) if error.kind == ExportErrorKind::Interrupted => End::Cancelled,
        Err(_) => End::Failed,
    };
    match end {
        End::Committed => assert!(ours, "committed, and {:?} stands", after.run_id),
        End::Failed | End::Cancelled => assert!(!ours, "failed, and the manifest stands"),
        End::Unknown | End::Killed => {}
    }
    if ours {
        assert_eq!(after.ids, sorted(run.source.ids()), "rows of the new export");
    } else {
        assert_eq!((&after.run_id, &after.ids), (&before.run_id, &before.ids), "the old export");
    }
    // What is there beside the manifest's parts could not be removed, and the run's journal, which stays, names it.
    let known = journalled(store, run.run_id());
    for extra in after.visible.difference(&after.named) {
        let replaced = ours && before.named.contains(extra);
        assert!(replaced || known.contains(extra), "{extra} is seen, and nobody knows of it");
    }
    for (path, id) in store.open_uploads() {
        // Of a store that takes no note only a list of its uploads tells more.
        let record = format!("_outhaul/{}/uploads/{path}.json", run.run_id());
        let noted = known.contains(&path) || store.failed_to_write(&record);
        assert!(noted, "upload {id} of {path} is open, and nobody knows of it");
    }
    end
}

/// Runs one seed on a runtime of its own; a panic of it comes back with what was asked of the store.
fn run_seed(seed: u64) -> Result<End, Vec<String>> {
    cpu::in_place::want();
    let store = FaultStore::new(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let work = std::panic::AssertUnwindSafe(|| runtime.block_on(simulate(seed, &store)));
    std::panic::catch_unwind(work).map_err(|_| store.log())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[test]
fn seeds_end_with_one_whole_export_or_none() {
    if let Some(seed) = number("OUTHAUL_TEST_SEED") {
        let ended = run_seed(seed);
        assert!(ended.is_ok(), "seed {seed} failed:\n{}", ended.unwrap_err().join("\n"));
        return;
    }
    let first: u64 = rand::random::<u32>().into();
    let (next, last) = (AtomicU64::new(first), first + number("OUTHAUL_TEST_SEEDS").unwrap_or(SEEDS));
    let ends = Mutex::new(BTreeMap::<End, u64>::new());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || !failed.lock().unwrap().is_empty() {
                        return;
                    }
                    match run_seed(seed) {
                        Ok(end) => *ends.lock().unwrap().entry(end).or_default() += 1,
                        Err(_) => failed.lock().unwrap().push(seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "run again with OUTHAUL_TEST_SEED={failed:?}");
    let ends = ends.into_inner().unwrap();
    // Seeds that all end alike test nothing.
    let share = |end| ends.get(&end).copied().unwrap_or(0) * 100 / (last - first);
    assert!(share(End::Committed) > 25 && share(End::Failed) > 10 && share(End::Cancelled) > 2, "{ends:?}");
}

/// A mechanism that is switched off is missed: the seeds find it.
#[cfg(feature = "failpoints")]
#[test]
fn without_reading_back_some_seed_fails() {
    let this = std::env::current_exe().unwrap();
    let name = "export::simulation::seeds_end_with_one_whole_export_or_none";
    let mut run = std::process::Command::new(this);
    let output = run.args([name, "--exact"]).env("OUTHAUL_TEST_OFF", "read-back").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("run again with OUTHAUL_TEST_SEED="), "{said}");
}
