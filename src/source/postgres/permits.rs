//! How many readers read at the same time, and how much they lock: less once the server's lock table has been full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::source::postgres::plan::locks::LockShare;
use crate::source::{BatchStream, SourceError, SourceFault};

/// The readers' permits.
#[derive(Debug)]
pub(super) struct Permits {
    readers: Arc<Semaphore>,
    count: u32,
    relations: AtomicU64,
    halved: AtomicBool,
}

/// The right to read one partition.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    _held: OwnedSemaphorePermit,
}

impl Permits {
    /// For readers that share what may be locked.
    pub(super) fn new(share: LockShare) -> Arc<Self> {
        let count = u32::try_from(share.readers).unwrap_or(u32::MAX).max(1);
        let readers = usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            readers: Arc::new(Semaphore::new(readers)),
            count,
            relations: AtomicU64::new(share.relations),
            halved: AtomicBool::new(false),
        })
    }

    /// Waits until a reader may read.
    ///
    /// # Cancel safety
    /// Dropping the future takes no permit.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Permit, SourceError> {
        let held = Arc::clone(&self.readers).acquire_owned().await;
        let held = held.map_err(|error| {
            SourceError::new(SourceFault::Protocol, "a reader that nobody lets read").with_source(error)
        })?;
        Ok(Permit { permits: Arc::clone(self), _held: held })
    }

    /// Relations that a reader may lock at a time.
    pub(super) fn relations(&self) -> u64 {
        self.relations.load(Ordering::Relaxed)
    }

    /// Takes in why a read has failed.
    pub(super) fn heed(&self, error: &SourceError) {
        if error.is_lock_table_full() {
            self.halve();
        }
    }

    /// Others have filled the lock table: from now on half as many readers lock half as much each. Once only: where that
    /// does not help, nothing does but a larger table.
    fn halve(&self) {
        if self.halved.swap(true, Ordering::Relaxed) {
            return;
        }
        let fewer = self.count / 2;
        self.relations.store((self.relations() / 2).max(1), Ordering::Relaxed);
        tracing::warn!(
            readers = self.count - fewer,
            "the server's lock table is full; going on with half as many readers, which lock half as much"
        );
        let readers = Arc::clone(&self.readers);
        tokio::spawn(async move {
            if let Ok(permits) = readers.acquire_many(fewer).await {
                permits.forget();
            }
        });
    }
}

impl Permit {
    /// Takes in why a read has failed.
    pub(super) fn heed(&self, error: &SourceError) {
        self.permits.heed(error);
    }

    /// Is given back with the stream.
    pub(super) fn until_the_end_of(self, batches: BatchStream) -> BatchStream {
        batches.inspect_err(move |error| self.heed(error)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_lock_table_halves_readers_and_groups_once() {
        let permits = Permits::new(LockShare { readers: 4, relations: 100 });
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(permits.get().await.unwrap());
        }
        let mut full = SourceError::new(SourceFault::GaveWay, "full");
        held[0].heed(&full);
        assert_eq!(permits.relations(), 100, "another reason");
        full.code = Some("53200".to_owned());
        for permit in &held {
            permit.heed(&full);
        }
        tokio::task::yield_now().await;
        held.clear();
        tokio::task::yield_now().await;
        assert_eq!((permits.relations(), permits.readers.available_permits()), (50, 2));
    }
}
