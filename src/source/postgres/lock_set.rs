//! What a session locks so that a relation stays as it is while it is read.

use serde::{Deserialize, Serialize};

use super::catalog::query;
use super::connect::Session;
use crate::base::failpoint;
use crate::base::words::counted;
use crate::source::SourceError;

/// What a session must do before it may rely on the relation staying as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locks {
    /// Tables and views, quoted: `LOCK TABLE … IN ACCESS SHARE MODE`, which takes their children too.
    pub(crate) tables: Vec<String>,
    /// Statements whose planning takes the locks that `LOCK TABLE` may not: materialized views, foreign tables, column
    /// grants, queries.
    pub(crate) statements: Vec<String>,
    /// In place of `tables`, where these would take too many locks.
    #[serde(default)]
    pub(crate) checked: Option<DeferredLocks>,
    /// Readers that may hold them at the same time, where these are fewer than were asked for.
    #[serde(default)]
    pub(crate) readers: Option<u64>,
}

/// How the leaves of a relation are locked that are not locked before the snapshot: a few at a time as they are read, and
/// then compared with what they were under the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeferredLocks {
    /// Tables from which others inherit, quoted: locked without their children.
    pub(crate) branches: Vec<String>,
    /// Relations that each reader may lock at a time.
    pub(crate) relations: u64,
}

/// Whether to wait for somebody else's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Up to the session's `lock_timeout`.
    Patient,
    /// Not at all: behind a queued ACCESS EXCLUSIVE a reader would wait for whoever waits for our keeper.
    Nowait,
}

/// Tables that one statement locks: a round trip to a cloud costs more than all of them.
const LOCKED_AT_ONCE: usize = 100;

/// In front of a statement, it has the server plan it.
const EXPLAIN: &str = "EXPLAIN ";

impl Locks {
    /// Whether one statement takes all of them.
    pub(super) fn is_one_statement(&self) -> bool {
        let branches = self.checked.as_ref().is_some_and(|checked| !checked.branches.is_empty());
        let tables = self.tables.len().div_ceil(LOCKED_AT_ONCE);
        tables.saturating_add(usize::from(branches)).saturating_add(self.statements.len()) == 1
    }

    /// Takes the locks in the session's open transaction.
    ///
    /// # Errors
    /// [`crate::source::SourceFault::GaveWay`] where somebody else holds or waits for a conflicting lock.
    pub(crate) async fn take(&self, session: &Session, waiting: Waiting) -> Result<(), SourceError> {
        if failpoint::off("locks") {
            return Ok(());
        }
        let nowait = match waiting {
            Waiting::Patient => "",
            Waiting::Nowait => " NOWAIT",
        };
        for tables in self.tables.chunks(LOCKED_AT_ONCE) {
            let list = tables.join(", ");
            let sql = format!("LOCK TABLE {list} IN ACCESS SHARE MODE{nowait}");
            let action = match tables {
                [table] => format!("locking {table} against changes"),
                tables => format!("locking {} against changes", counted(tables.len(), "table")),
            };
            session.batch(&action, &sql).await?;
        }
        // None is left where the last child went: the root is then read as the leaf that it is.
        let branches = self.checked.iter().map(|checked| &checked.branches).find(|branches| !branches.is_empty());
        if let Some(branches) = branches {
            let list = branches.iter().map(|name| format!("ONLY {name}")).collect::<Vec<_>>().join(", ");
            let sql = format!("LOCK TABLE {list} IN ACCESS SHARE MODE{nowait}");
            session.batch("locking what the tables inherit from against changes", &sql).await?;
        }
        for statement in &self.statements {
            // By the extended protocol, whose statement can only ever be one: people's SQL is in it.
            let explain = format!("{EXPLAIN}{statement}");
            let planned = query(session, "planning the statement, which locks what it reads", &explain, &[]).await;
            planned.map_err(|error| error.in_statement(statement, EXPLAIN.len()))?;
        }
        Ok(())
    }
}
