//! How many processes read a run at the same time: each session that reads for it holds one of so many advisory locks, to
//! the end of its transaction, and whoever finds none free waits without a connection.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::closed::closed;
use super::connect::{Session, Sessions};
use super::snapshot::{Custody, READER};
use crate::base::failpoint;
use crate::source::SourceError;

/// Between two looks for a free slot, half of it more or less: each look is a connection.
const SLOT_PAUSE: Duration = Duration::from_secs(2);

/// The first pause, and the first waits that nobody hears of: the slot of a session that was closed just now, as a worker of
/// several exports does from one to the next, is free within moments.
const SLOT_PAUSE_FIRST: Duration = Duration::from_millis(50);
const SLOT_WAITS_UNTOLD: u32 = 2;

/// The slots of a run.
#[derive(Debug)]
pub(super) struct ReaderSlots {
    /// The keys of their advisory locks.
    keys: Vec<i64>,
    /// The server process of the session that has one; 0 where none has.
    seated: AtomicI32,
}

impl ReaderSlots {
    /// So many slots of a run.
    pub(super) fn new(run_id: &str, most: NonZeroUsize) -> Self {
        let keys = (0..most.get()).map(|slot| key(run_id, slot)).collect();
        Self { keys, seated: AtomicI32::new(0) }
    }

    /// A session under the snapshot that may read, once one of the slots is free.
    ///
    /// # Errors
    /// As [`Custody::session`].
    ///
    /// # Cancel safety
    /// Dropped, it takes no slot.
    pub(super) async fn session(&self, custody: &Custody, sessions: &Sessions) -> Result<Session, SourceError> {
        let mut waits = 0_u32;
        loop {
            let session = custody.session(sessions, READER).await?;
            // It comes out of the pool, and its transaction has gone on.
            if session.pid() == Some(self.seated.load(Ordering::Relaxed)) || failpoint::off("slots") {
                return Ok(session);
            }
            match self.take(&session).await {
                Ok(true) => {
                    self.seated.store(session.pid().unwrap_or(0), Ordering::Relaxed);
                    return Ok(session);
                }
                Ok(false) => session.discard(),
                Err(error) => {
                    session.discard();
                    return Err(error);
                }
            }
            if waits == SLOT_WAITS_UNTOLD {
                tracing::warn!(most = self.keys.len(), "as many workers read as may; waiting for one of them to end");
            }
            let pause = SLOT_PAUSE_FIRST.saturating_mul(1 << waits.min(8)).min(SLOT_PAUSE);
            waits = waits.saturating_add(1);
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }

    /// Takes a free slot to the end of the session's transaction; whether there was one.
    async fn take(&self, session: &Session) -> Result<bool, SourceError> {
        let taken = session.batch_value("looking for a free slot of the run", &self.statement()).await?;
        Ok(taken.is_some())
    }

    /// One statement that takes the first free lock and no other: `CASE` stops at the first condition that holds.
    fn statement(&self) -> String {
        let mut sql = "SELECT CASE".to_owned();
        for (slot, key) in self.keys.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(sql, " WHEN pg_catalog.pg_try_advisory_xact_lock('{key}'::int8) THEN {slot}");
        }
        sql.push_str(" END");
        closed(&sql)
    }
}

/// The key of a slot: of all 64 bits, which no application's own keys meet by chance.
fn key(run_id: &str, slot: usize) -> i64 {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"outhaul worker slot\0")
        .chain_update(run_id)
        .chain_update(b"\0")
        .chain_update(slot.to_string())
        .finalize()
        .into();
    digest.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_slot_of_each_run_has_a_key_of_its_own() {
        let keys: BTreeSet<i64> = ["a", "b", "a1"].iter().flat_map(|run| (0..20).map(|slot| key(run, slot))).collect();
        assert_eq!(keys.len(), 60);
        assert_eq!(key("run", 0), key("run", 0), "every process of a run finds the same");
    }

    #[test]
    fn the_statement_takes_one_lock() {
        let statement = ReaderSlots::new("run", NonZeroUsize::new(2).unwrap()).statement();
        assert_eq!(statement.matches("pg_try_advisory_xact_lock").count(), 2, "{statement}");
        assert!(statement.starts_with("SELECT CASE WHEN ") && statement.ends_with(" THEN 1 END"), "{statement}");
    }
}
