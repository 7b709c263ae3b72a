//! The same for several exports of one run, each with a store of its own: each ends whole or not at all, whatever becomes
//! of the others.

use super::*;
use crate::export::company::Company;
use crate::export::together::together;
use crate::model::RelationRequest;

const EXPORTS: usize = 3;

/// Several relations that are read together; one of them is refused now and then.
#[derive(Debug)]
struct Several {
    relations: Vec<Arc<Simulated>>,
}

/// Those of them that one run reads.
#[derive(Debug)]
struct SeveralRead {
    /// By the numbers of their requests.
    relations: Vec<Arc<Simulated>>,
    refused: Mutex<BTreeSet<usize>>,
}

impl Source for Several {
    fn kind(&self) -> SourceKind {
        SourceKind::Postgresql
    }

    fn check(&self, _: &mut ShapeOptions) -> Result<(), SourceError> {
        Ok(())
    }

    fn plan(&self, _: Vec<ReadRequest>) -> BoxFuture<'_, Result<Vec<Plan>, SourceError>> {
        ready(Ok(self.relations.iter().map(|relation| relation.planned()).collect())).boxed()
    }

    fn begin(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        let number = |request: &ReadRequest| match &request.shape.relation {
            RelationRequest::Table(name) => name.trim_start_matches('t').parse::<usize>().unwrap(),
            RelationRequest::Query(query) => panic!("{query}"),
        };
        let relations: Vec<_> = requests.iter().map(|request| Arc::clone(&self.relations[number(request)])).collect();
        let is_refused = |(place, relation): (usize, &Arc<Simulated>)| {
            (!relation.calm && relation.dice.one_in(12, "refuse", 0)).then_some(place)
        };
        let refused = relations.iter().enumerate().filter_map(is_refused).collect();
        ready(Ok(Arc::new(SeveralRead { relations, refused: Mutex::new(refused) }) as Arc<dyn Reading>)).boxed()
    }

    fn resume(&self, requests: Vec<ReadRequest>, _: Begun) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        self.begin(requests)
    }
}

impl Reading for SeveralRead {
    fn plan(&self, relation: usize) -> Option<Arc<Plan>> {
        Reading::plan(self.relations[relation].as_ref(), 0)
    }

    fn refused(&self, relation: usize) -> Option<SourceError> {
        let refused = self.refused.lock().unwrap().remove(&relation);
        refused.then(|| SourceError::new(SourceFault::Missing, "simulated"))
    }

    fn facts(&self) -> SourceFacts {
        test_data::source()
    }

    fn consistency(&self, relation: usize) -> Consistency {
        self.relations[relation].consistency(0)
    }

    fn record(&self, _: usize) -> Result<Value, SourceError> {
        Ok(Value::Null)
    }

    fn open(&self, relation: usize, partition: u32) -> BoxFuture<'_, Result<Opened, SourceError>> {
        self.relations[relation].open(0, partition)
    }

    fn replan(&self, relation: usize, partition: u32) -> BoxFuture<'_, Result<Option<Replan>, SourceError>> {
        self.relations[relation].replan(0, partition)
    }

    fn guard(&self) -> BoxFuture<'_, SourceError> {
        self.relations[0].guard()
    }
}

/// One run of several exports, each at a store of its own.
fn runs(seed: u64, stores: &[Arc<FaultStore>], run_id: &str, first: i64, calm: bool) -> Vec<SimulatedRun> {
    let mut runs: Vec<SimulatedRun> = (0_i64..)
        .zip(stores)
        .map(|(nth, store)| {
            let own = seed.wrapping_mul(31).wrapping_add(u64::try_from(nth).unwrap());
            SimulatedRun::new(own, &store.another(), run_id, first + nth * 100_000, calm)
        })
        .collect();
    let relations = runs.iter().map(|run| Arc::clone(&run.source)).collect();
    let source: Arc<dyn Source> = Arc::new(Several { relations });
    for (number, run) in runs.iter_mut().enumerate() {
        run.run.request.source = Arc::clone(&source);
        run.run.request.shape.relation = RelationRequest::Table(format!("t{number}"));
    }
    runs
}

async fn simulate_several(seed: u64, stores: &[Arc<FaultStore>]) -> Vec<End> {
    let dice = Dice::new(seed);
    let cancel = CancellationToken::new();
    let before: Vec<Standing> = stores.iter().map(|store| Standing::of(store)).collect();
    let second = runs(seed, stores, "second", 0, false);
    if dice.one_in(6, "cancel", 0) {
        let (cancel, after) = (cancel.clone(), dice.millis(4_000, "cancel", 1));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            cancel.cancel();
        });
    }
    let readers = usize::try_from(dice.roll("readers", 0, 4)).unwrap() + 1;
    let all_or_none = dice.one_in(3, "stop", 0);
    let life = if dice.one_in(6, "kill", 0) { dice.millis(6_000, "kill", 1) } else { HANG };
    // Within a life of its own: what dies, dies whole.
    let ends = {
        let company = Company::new(EXPORTS, readers, all_or_none, &cancel);
        let all: Vec<&Run> = second.iter().map(|run| &run.run).collect();
        tokio::time::timeout(life, together(&all, &company, &cancel)).await
    };
    let ends = match ends {
        Ok(results) => {
            let ends: Vec<End> = stores
                .iter()
                .zip(&second)
                .zip(before.iter().zip(&results))
                .map(|((store, run), (before, result))| judge(store, run, before, result))
                .collect();
            ends
        }
        Err(elapsed) => {
            assert!(life < HANG, "the run hangs: {elapsed}");
            for run in &second {
                run.store.kill();
            }
            vec![End::Killed; EXPORTS]
        }
    };
    for store in stores {
        store.calm(true);
    }
    let last = runs(seed ^ 2, stores, "last", 2_000_000, true);
    let nobody = CancellationToken::new();
    let company = Company::new(EXPORTS, readers, all_or_none, &nobody);
    let all: Vec<&Run> = last.iter().map(|run| &run.run).collect();
    let ended = together(&all, &company, &nobody);
    for ended in tokio::time::timeout(HANG, ended).await.expect("the last run hangs") {
        ended.unwrap_or_else(|error| panic!("the last run failed: {error:?}"));
    }
    for (store, last) in stores.iter().zip(&last) {
        let after = Standing::of(store);
        assert_eq!((after.run_id.as_deref(), &after.ids), (Some("last"), &sorted(last.source.ids())));
        assert_eq!(after.visible, after.named, "beside the last export, after {ends:?}");
    }
    ends
}

/// Runs one seed on a runtime of its own.
fn run_several(seed: u64) -> Result<Vec<End>, Vec<String>> {
    cpu::in_place::want();
    let stores: Vec<Arc<FaultStore>> =
        (0..EXPORTS).map(|nth| FaultStore::new(seed.wrapping_add(u64::try_from(nth).unwrap()))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let work = std::panic::AssertUnwindSafe(|| runtime.block_on(simulate_several(seed, &stores)));
    std::panic::catch_unwind(work).map_err(|_| stores.iter().flat_map(|store| store.log()).collect())
}

#[test]
fn exports_of_one_run_end_each_by_itself() {
    if let Some(seed) = number("OUTHAUL_TEST_SEED") {
        let ended = run_several(seed);
        assert!(ended.is_ok(), "seed {seed} failed:\n{}", ended.unwrap_err().join("\n"));
        return;
    }
    let first: u64 = rand::random::<u32>().into();
    let seeds = number("OUTHAUL_TEST_SEEDS").unwrap_or(SEEDS) / 4;
    let (mut ends, mut apart) = (BTreeMap::<End, u64>::new(), 0_u64);
    for seed in first..first + seeds {
        let ended = run_several(seed).unwrap_or_else(|_| panic!("run again with OUTHAUL_TEST_SEED={seed}"));
        apart += u64::from(ended.contains(&End::Committed) && ended.contains(&End::Failed));
        for end in ended {
            *ends.entry(end).or_default() += 1;
        }
    }
    let exports = u64::try_from(EXPORTS).unwrap() * seeds;
    let share = |end| ends.get(&end).copied().unwrap_or(0) * 100 / exports;
    assert!(share(End::Committed) > 15 && share(End::Failed) > 10 && share(End::Cancelled) > 2, "{ends:?}");
    assert!(apart * 100 / seeds > 5, "{apart} of {seeds} have one that committed beside one that failed");
}
