//! A watcher that lists a destination throughout a run and keeps what it saw, and when.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::s3::{S3, list};

/// Between two looks: so short that a part which shows too early is seen, so long that a run on two cores goes on.
const INTERVAL: Duration = Duration::from_millis(5);

/// Runs until it is stopped.
pub(crate) struct Watcher {
    stop: oneshot::Sender<()>,
    looking: JoinHandle<Seen>,
}

/// What a watcher saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// How often it looked.
    pub looks: u64,
    /// Every listing that differed from the one before, with its time: names and sizes. The first entry is the first
    /// look.
    pub changes: Vec<(Instant, BTreeMap<String, u64>)>,
}

impl Watcher {
    /// Watches a folder that need not exist yet, and what is below it.
    pub(crate) fn local(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self::start(move || std::future::ready(files(&folder)))
    }

    /// Watches what is below a path of a test's prefix.
    pub(crate) fn s3(s3: &S3, path: &str) -> Self {
        let (client, below) = (s3.client(), s3.key(path));
        Self::start(move || {
            let (client, below) = (client.clone(), below.clone());
            async move { list(&client, &below).await }
        })
    }

    fn start<L>(look: impl Fn() -> L + Send + 'static) -> Self
    where
        L: Future<Output = BTreeMap<String, u64>> + Send,
    {
        let (stop, mut stopped) = oneshot::channel();
        let looking = tokio::spawn(async move {
            let mut seen = Seen { looks: 0, changes: Vec::new() };
            loop {
                // Asked before the look, so that the last look comes after the stop.
                let last = !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty));
                let listing = look().await;
                seen.looks += 1;
                if seen.changes.last().is_none_or(|(_, before)| *before != listing) {
                    seen.changes.push((Instant::now(), listing));
                }
                if last {
                    return seen;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { stop, looking }
    }

    /// Looks once more, and stops.
    pub(crate) async fn stop(self) -> Seen {
        let _ = self.stop.send(());
        self.looking.await.unwrap()
    }
}

/// All files below a folder with their sizes, by their paths relative to it.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        // What vanishes while it is listed is not there.
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            match std::fs::symlink_metadata(&path) {
                Ok(about) if about.is_dir() => open.push(path),
                Ok(about) => {
                    found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), about.len());
                }
                Err(_) => {}
            }
        }
    }
    found
}
