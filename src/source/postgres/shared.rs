//! Sessions that several runs share, one after the other: what each run has to itself of them, and how a session that a
//! run gave up in the middle of a transaction is kept from the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use deadpool_postgres::Pool;

use super::connect::identity;
use super::session::literal;
use crate::base::failpoint;
use crate::base::postgres::canceller::Canceller;
use crate::base::postgres::stream::Lender;
use crate::model::ServedReads;

/// What a run's transactions begin with.
#[derive(Debug, Default)]
pub(crate) struct RunTerms {
    /// Whether rows that row security hides may be missing; else reading such a table is an error.
    pub(super) allow_rls: bool,
    /// The search path of every session of the run, in SQL; until it is known, each has the role's.
    pub(super) search_path: OnceLock<String>,
    /// `DateStyle` of every session of the run, likewise: people's SQL may say `2/3/2026`.
    pub(super) date_style: OnceLock<String>,
    /// How the statements of a served run are bounded, and what they are told; `None` where the run has a pool of its own.
    pub(super) served: Option<ServedReads>,
}

impl RunTerms {
    /// Whether each transaction of the run is told something that row security may ask for.
    pub(super) fn has_settings(&self) -> bool {
        self.served.as_ref().is_some_and(|served| !served.settings.is_empty())
    }

    /// The settings of a served run, as statements that come before all others of a transaction.
    pub(super) fn settings(&self) -> String {
        let Some(served) = &self.served else { return String::new() };
        let timeout = served.statement_timeout.as_millis().max(1);
        let mut sql = format!("SET LOCAL statement_timeout = {timeout}; ");
        for (name, value) in served.settings.iter().filter(|_| !failpoint::off("tenant_setting")) {
            sql.push_str("SELECT pg_catalog.set_config(");
            sql.push_str(&literal(name));
            sql.push_str(", ");
            sql.push_str(&literal(value));
            sql.push_str(", true); ");
        }
        sql
    }
}

/// What the pool does not keep for a session.
#[derive(Debug, Clone)]
pub(super) struct Companion {
    pub(super) lender: Lender,
    pub(super) entered: Arc<AtomicBool>,
    /// Whether a transaction of it has begun and not ended.
    pub(super) open: Arc<AtomicBool>,
    /// The server process of its last transaction; 0 before the first.
    pub(super) pid: Arc<AtomicI32>,
}

/// All of them, by the one identity that a pooled client has: the address of its statement cache.
#[derive(Debug, Clone, Default)]
pub(super) struct Companions(Arc<Mutex<HashMap<usize, Companion>>>);

impl Companions {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Companion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of a session that is no more.
    pub(super) fn forget(&self, identity: usize) {
        self.lock().remove(&identity);
    }

    /// Notes a new session, and lets go of those whose connections have ended since.
    pub(super) fn add(&self, identity: usize, lender: Lender) {
        let mut companions = self.lock();
        companions.retain(|_, companion| !companion.lender.is_alone());
        let new = Companion { lender, entered: Arc::default(), open: Arc::default(), pid: Arc::default() };
        companions.insert(identity, new);
    }

    pub(super) fn get(&self, identity: usize) -> Option<Companion> {
        self.lock().get(&identity).cloned()
    }
}

/// Sees to it that a session whose transaction is still open when it is dropped is closed and not lent again: it would
/// hold locks and the server's horizon, and somebody else's settings.
#[derive(Debug)]
pub(super) struct Return {
    pub(super) pool: Pool,
    pub(super) companions: Companions,
    pub(super) identity: usize,
    pub(super) open: Arc<AtomicBool>,
    pub(super) canceller: Canceller,
}

impl Drop for Return {
    fn drop(&mut self) {
        if !self.open.load(Ordering::Relaxed) || failpoint::off("return") {
            return;
        }
        // It may be in the middle of a statement, and would notice only once a second that nobody listens.
        self.canceller.clone().send();
        // Alive until its companion is gone: a new one could have the same address.
        let closed = self.pool.retain(|client, _| identity(client) != self.identity);
        self.companions.forget(self.identity);
        drop(closed);
    }
}
