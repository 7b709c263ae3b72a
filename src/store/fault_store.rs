//! A store in memory that fails as a seed says, and notes all that was asked of it. For tests.
//!
//! Whether a request fails depends on the seed, on what it asks and on how often that was asked before, not on when: the
//! same seed fails the same requests whatever runs beside them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Numbers that follow from a seed and a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice {
    seed: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A number from 0 to `sides - 1`; the same for the same question.
    pub(crate) fn roll(self, question: &str, nth: u64, sides: u64) -> u64 {
        let mut state = self.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in question.bytes().chain(nth.to_le_bytes()) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // SplitMix64's last steps: the low bits of the sum above are poor.
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (state ^ (state >> 31)) % sides
    }

    pub(crate) fn one_in(self, sides: u64, question: &str, nth: u64) -> bool {
        self.roll(question, nth, sides) == 0
    }

    pub(crate) fn millis(self, most: u64, question: &str, nth: u64) -> Duration {
        Duration::from_millis(self.roll(question, nth, most))
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing else, after a while.
    Late(Duration),
    /// It fails, undone.
    Refused,
    /// It is done, and its answer is lost.
    Unheard,
    /// It is done, its answer is lost, it is done again, and that answer comes.
    Twice,
    /// A 409, undone.
    Conflict,
    /// No answer comes; it was done, or not.
    Silent(bool),
}

/// One process's way to the store; see the module.
#[derive(Debug)]
pub(crate) struct FaultStore {
    inner: InMemory,
    dice: Dice,
    state: Arc<Mutex<State>>,
    /// Whether that process was killed: nothing that it asks for happens any more.
    dead: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    calm: bool,
    log: Vec<String>,
    asked: HashMap<String, u64>,
    /// By id: the path, and whether the id was told to anybody.
    uploads: BTreeMap<String, (String, bool)>,
    /// Small objects that somebody began to write, and did not hear that he had.
    unwritten: BTreeSet<String>,
}

impl FaultStore {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            dice: Dice::new(seed),
            state: Arc::default(),
            dead: AtomicBool::new(false),
        })
    }

    /// The same store, for another process.
    pub(crate) fn another(&self) -> Arc<Self> {
        let (inner, state) = (self.inner.clone(), Arc::clone(&self.state));
        Arc::new(Self { inner, dice: self.dice, state, dead: AtomicBool::new(false) })
    }

    /// Kills the process: what it asked for and was not done yet will not be done.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Never, once the process is dead.
    async fn lives(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Whether nothing fails from now on.
    pub(crate) fn calm(&self, calm: bool) {
        self.state().calm = calm;
    }

    /// What was asked, and what became of it.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// All objects. Those in memory answer at once.
    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        let listing = self.inner.list(None).collect::<Vec<_>>().now_or_never().unwrap_or_default();
        let read = |path: Path| {
            let bytes = async { self.inner.get(&path).await?.bytes().await }.now_or_never();
            (path.to_string(), bytes.and_then(Result::ok).unwrap_or_default())
        };
        listing.into_iter().flatten().map(|meta| read(meta.location)).collect()
    }

    /// The open uploads: path and id. Those whose id was never told are left out: they are found by listing uploads.
    pub(crate) fn open_uploads(&self) -> Vec<(String, String)> {
        let told = |(id, (path, told)): (&String, &(String, bool))| told.then(|| (path.clone(), id.clone()));
        self.state().uploads.iter().filter_map(told).collect()
    }

    /// Whether somebody began to write a small object, and did not hear that he had.
    pub(crate) fn failed_to_write(&self, path: &str) -> bool {
        self.state().unwritten.contains(path)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to this request.
    fn judge(&self, what: &'static str, path: &str) -> Fault {
        let mut state = self.state();
        let question = format!("{what} {}", without_ids(path));
        let nth = state.asked.entry(question.clone()).and_modify(|asked| *asked += 1).or_insert(1);
        let (nth, dice) = (*nth, self.dice);
        // A quarter of the seeds is calm, the others fail one request in ten to one in eighty.
        let calm = state.calm || dice.one_in(4, "calm", 0);
        let rare = 10 << dice.roll("rare", 0, 4);
        let late = Fault::Late(dice.millis(400, &question, nth));
        let fault = match dice.roll(&question, nth + 1_000_000, rare * 6) {
            _ if calm => late,
            0 => Fault::Refused,
            1 => Fault::Unheard,
            2 | 3 => Fault::Twice,
            4 if !matches!(what, "get" | "list" | "delete") => Fault::Conflict,
            5 => Fault::Silent(dice.one_in(2, &question, nth)),
            _ => late,
        };
        if what == "put" {
            state.unwritten.insert(path.to_owned());
        }
        state.log.push(format!("{what} {path} #{nth}: {fault:?}"));
        fault
    }

    async fn around<T, F>(&self, what: &'static str, path: &str, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.lives().await;
        let done = self.carry_out(self.judge(what, path), path, work).await;
        self.lives().await;
        if done.is_ok() {
            self.state().unwritten.remove(path);
        }
        done
    }

    async fn carry_out<T, F>(&self, fault: Fault, path: &str, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        match fault {
            Fault::Late(delay) => {
                tokio::time::sleep(delay).await;
                self.lives().await;
                work().await
            }
            Fault::Refused => Err(unavailable()),
            Fault::Unheard => {
                drop(work().await);
                Err(unavailable())
            }
            Fault::Twice => {
                drop(work().await);
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.lives().await;
                work().await
            }
            Fault::Conflict => Err(Error::AlreadyExists { path: path.to_owned(), source: "409".into() }),
            Fault::Silent(done) => {
                if done {
                    drop(work().await);
                }
                tokio::time::sleep(Duration::from_hours(24)).await;
                Err(unavailable())
            }
        }
    }

    async fn begin(&self, path: &Path, options: PutMultipartOptions) -> Result<String> {
        let begin = || async {
            let id = self.inner.create_multipart_opts(path, options.clone()).await?;
            self.state().uploads.insert(id.clone(), (path.to_string(), false));
            Ok(id)
        };
        let id = self.around("begin", path.as_ref(), begin).await?;
        if let Some((_, told)) = self.state().uploads.get_mut(&id) {
            *told = true;
        }
        Ok(id)
    }
}

fn unavailable() -> Error {
    Error::Generic { store: "simulated", source: "503 Service Unavailable".into() }
}

/// The path without what is random in it: the ids of attempts.
fn without_ids(path: &str) -> String {
    let is_id = |word: &str| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = path.split_inclusive(['-', '.', '/']);
    words.map(|word| if is_id(word.trim_end_matches(['-', '.', '/'])) { "*" } else { word }).collect()
}

impl std::fmt::Display for FaultStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultStore")
    }
}

type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

fn not_simulated<'a, T: Send + 'a>() -> StoreFuture<'a, T> {
    Box::pin(async { Err(Error::NotImplemented { operation: "this".into(), implementer: "FaultStore".into() }) })
}

// As `async_trait` writes the two traits' methods.
impl ObjectStore for FaultStore {
    fn put_opts<'a, 'b, 't>(
        &'a self,
        path: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreFuture<'t, PutResult>
    where
        'a: 't,
        'b: 't,
        Self: 't,
    {
        let what = match options.mode {
            PutMode::Overwrite => "put",
            PutMode::Create => "create",
            PutMode::Update(_) => "replace",
        };
        Box::pin(self.around(what, path.as_ref(), move || self.inner.put_opts(path, payload.clone(), options.clone())))
    }

    fn put_multipart_opts<'a, 'b, 't>(
        &'a self,
        _: &'b Path,
        _: PutMultipartOptions,
    ) -> StoreFuture<'t, Box<dyn MultipartUpload>>
    where
        'a: 't,
        'b: 't,
        Self: 't,
    {
        not_simulated()
    }

    fn get_opts<'a, 'b, 't>(&'a self, path: &'b Path, options: GetOptions) -> StoreFuture<'t, GetResult>
    where
        'a: 't,
        'b: 't,
        Self: 't,
    {
        Box::pin(self.around("get", path.as_ref(), move || self.inner.get_opts(path, options.clone())))
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // The stream may not borrow the store; a fork would not see what comes later, but a clone shares all.
        let fault = self.judge("delete", "some");
        let fault = if self.dead.load(Ordering::Relaxed) { Fault::Silent(false) } else { fault };
        let inner = self.inner.clone();
        stream::once(async move {
            let paths: Vec<_> = paths.collect().await;
            match fault {
                Fault::Late(delay) => tokio::time::sleep(delay).await,
                Fault::Refused | Fault::Conflict => return vec![Err(unavailable())],
                Fault::Silent(false) => {
                    tokio::time::sleep(Duration::from_hours(24)).await;
                    return vec![Err(unavailable())];
                }
                Fault::Unheard | Fault::Twice | Fault::Silent(true) => {}
            }
            let gone = inner.delete_stream(stream::iter(paths).boxed()).collect::<Vec<_>>().await;
            match fault {
                Fault::Unheard => vec![Err(unavailable())],
                Fault::Silent(_) => {
                    tokio::time::sleep(Duration::from_hours(24)).await;
                    vec![Err(unavailable())]
                }
                _ => gone,
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let below = prefix.map(ToString::to_string).unwrap_or_default();
        match self.judge("list", &below) {
            Fault::Late(_) | Fault::Twice => self.inner.list(prefix),
            _ => stream::once(async { Err(unavailable()) }).boxed(),
        }
    }

    fn list_with_delimiter<'a, 'b, 't>(&'a self, _: Option<&'b Path>) -> StoreFuture<'t, ListResult>
    where
        'a: 't,
        'b: 't,
        Self: 't,
    {
        not_simulated()
    }

    fn copy_opts<'a, 'b, 'c, 't>(&'a self, _: &'b Path, _: &'c Path, _: CopyOptions) -> StoreFuture<'t, ()>
    where
        'a: 't,
        'b: 't,
        'c: 't,
        Self: 't,
    {
        not_simulated()
    }
}

impl MultipartStore for FaultStore {
    fn create_multipart<'a, 'b, 't>(&'a self, path: &'b Path) -> StoreFuture<'t, String>
    where
        'a: 't,
        'b: 't,
        Self: 't,
    {
        Box::pin(self.begin(path, PutMultipartOptions::default()))
    }

    fn create_multipart_opts<'a, 'b, 't>(
        &'a self,
        path: &'b Path,
        options: PutMultipartOptions,
    ) -> StoreFuture<'t, String>
    where
        'a: 't,
        'b: 't,
        Self: 't,
    {
        Box::pin(self.begin(path, options))
    }

    fn put_part<'a, 'b, 'c, 't>(
        &'a self,
        path: &'b Path,
        id: &'c String,
        index: usize,
        chunk: PutPayload,
    ) -> StoreFuture<'t, PartId>
    where
        'a: 't,
        'b: 't,
        'c: 't,
        Self: 't,
    {
        Box::pin(self.around("chunk", path.as_ref(), move || self.inner.put_part(path, id, index, chunk.clone())))
    }

    fn complete_multipart<'a, 'b, 'c, 't>(
        &'a self,
        path: &'b Path,
        id: &'c String,
        parts: Vec<PartId>,
    ) -> StoreFuture<'t, PutResult>
    where
        'a: 't,
        'b: 't,
        'c: 't,
        Self: 't,
    {
        Box::pin(self.around("complete", path.as_ref(), move || {
            let parts = parts.clone();
            async move {
                let done = self.inner.complete_multipart(path, id, parts).await?;
                self.state().uploads.remove(id);
                Ok(done)
            }
        }))
    }

    fn abort_multipart<'a, 'b, 'c, 't>(&'a self, path: &'b Path, id: &'c String) -> StoreFuture<'t, ()>
    where
        'a: 't,
        'b: 't,
        'c: 't,
        Self: 't,
    {
        Box::pin(self.around("abort", path.as_ref(), move || async move {
            self.inner.abort_multipart(path, id).await?;
            self.state().uploads.remove(id);
            Ok(())
        }))
    }
}
