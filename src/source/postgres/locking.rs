//! How a run locks: all of what it reads before the snapshot, or a few leaves at a time, compared with it (I5, I11).

use std::collections::BTreeSet;

use tokio_postgres::types::{ToSql, Type};

use super::catalog::{CatalogRelation, RELATIONS, TREE, TreeNode, TreePlace, query, value};
use super::closed::closed;
use super::connect::Session;
use super::session::identifier;
use super::snapshot::{DeferredLocks, Locks};
use crate::base::failpoint;
use crate::base::words::counted;
use crate::model::{ReadMode, RelationKind, RelationRequest, ShapeOptions, WorkOptions};
use crate::source::postgres::plan::locks::{CONTROL_SESSIONS, Holders, LockShare, LockTable, LockWeight};
use crate::source::postgres::plan::{LockUse, LockWay, RelationFacts, oid};
use crate::source::{SourceError, SourceFault};

/// The name by which predicates may qualify the columns of `--query`.
pub(super) const QUERY_ALIAS: &str = "query";

/// What a run may take of the server's lock table, and what it has to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockRoom {
    table: LockTable,
    /// Readers that were asked for.
    asked: u64,
    holders: Holders,
    keyset: bool,
    keep: bool,
    /// Whether leaves are probably not read by themselves: a key is asked for, or a cap, which goes by a key.
    by_key: bool,
    /// What the relation weighs, where more than itself is behind it.
    weight: LockWeight,
    /// What the lock session holds.
    held: u64,
    /// The most that a reader locks, where it does not lock all.
    largest: Option<u64>,
}

/// What to do where the lock table is too small.
const TOO_SMALL: &str = "raise max_locks_per_transaction on the server, which restarts for it";

impl LockRoom {
    /// Before the relation is known. With `keep` one session more holds the snapshot.
    pub(super) fn new(table: LockTable, shape: &ShapeOptions, work: &WorkOptions, keep: bool) -> Self {
        let asked = u64::try_from(work.readers.get()).unwrap_or(u64::MAX);
        let keyset = matches!(work.read_mode, ReadMode::Keyset { .. });
        let capped = work.cap.as_ref().is_some_and(|cap| cap.max_rows.is_some());
        let by_key = shape.key.is_some() || capped;
        let holders = Holders { readers: asked, beside: beside(keyset, keep, asked) };
        Self { table, asked, holders, keyset, keep, by_key, weight: LockWeight::default(), held: 0, largest: None }
    }

    /// Decides how to lock a relation. `first` is what locks all of it, and `only` the statements to plan where its leaves
    /// are not to be locked.
    ///
    /// # Errors
    /// [`SourceFault::GaveWay`] where the lock table has no room for either way.
    pub(super) async fn decide(
        &mut self,
        lock: &Session,
        found: &CatalogRelation,
        first: Locks,
        only: Vec<String>,
    ) -> Result<Locks, SourceError> {
        if !found.branches && found.kind != RelationKind::View {
            return Ok(first);
        }
        self.weight = weigh(lock, Some(found.oid)).await?;
        if self.table.fits(self.weight.relations, self.holders) {
            return Ok(first);
        }
        let name = found.sql_name();
        let whole_only = self.keyset || first.tables.is_empty();
        if (whole_only || self.by_key) && self.take_fewer_readers() {
            return Ok(Locks { readers: Some(self.holders.readers), ..first });
        }
        if whole_only {
            return Err(self.refuse(&name));
        }
        let (keyset, keep) = (self.keyset, self.keep);
        let share = self.table.share(self.weight, self.asked, |readers| beside(keyset, keep, readers));
        let Some(share) = share else { return Err(self.too_small(&name)) };
        self.holders = Holders { readers: share.readers, beside: beside(keyset, keep, share.readers) };
        let checked = DeferredLocks { branches: vec![name], relations: share.relations };
        Ok(Locks { tables: Vec::new(), statements: only, checked: Some(checked), readers: Some(share.readers) })
    }

    /// Fewer readers hold fewer locks: whether one at least may read.
    fn take_fewer_readers(&mut self) -> bool {
        let (keyset, keep) = (self.keyset, self.keep);
        let fewer = self.table.most_readers(self.weight.relations, self.asked, |readers| beside(keyset, keep, readers));
        if let Some(holders) = fewer {
            self.holders = holders;
        }
        fewer.is_some()
    }

    /// Readers that may read at the same time.
    pub(crate) fn readers(&self) -> usize {
        usize::try_from(self.holders.readers).unwrap_or(usize::MAX)
    }

    /// The same for a query, which `lock` has parsed: what it names is locked, and not yet what is behind it.
    ///
    /// # Errors
    /// [`SourceFault::GaveWay`] where the lock table has no room for what is behind it.
    pub(super) async fn admit_query(&mut self, lock: &Session) -> Result<(), SourceError> {
        self.weight = weigh(lock, None).await?;
        if self.take_fewer_readers() { Ok(()) } else { Err(self.refuse("the query")) }
    }

    /// The same for several relations, by their oids, and queries, all of which `lock` has locked: the sessions beside the
    /// readers hold all of them, each reader what it reads.
    ///
    /// # Errors
    /// [`SourceFault::GaveWay`] where the lock table has no room for them together.
    pub(super) async fn admit_several(&mut self, lock: &Session, roots: &[Option<u32>]) -> Result<(), SourceError> {
        self.weight = weigh(lock, None).await?;
        let mut largest = 0;
        for root in roots {
            // What a query reads is not known apart from the rest.
            let weight = if root.is_some() { weigh(lock, *root).await? } else { self.weight };
            largest = largest.max(weight.relations);
        }
        let beside = u64::try_from(CONTROL_SESSIONS).unwrap_or(u64::MAX);
        let Some(readers) = self.table.readers_of_several(self.weight.relations, largest, beside, self.asked) else {
            return Err(self.refuse("the tables of the run"));
        };
        self.holders = Holders { readers, beside };
        self.largest = Some(largest);
        Ok(())
    }

    /// The lock session holds these relations; those of the catalog are counted apart.
    pub(super) fn holds(&mut self, relations: &[u32]) {
        let own = relations.iter().filter(|oid| **oid >= oid::FIRST_NORMAL);
        self.held = u64::try_from(own.count()).unwrap_or(u64::MAX);
    }

    /// What a plan takes.
    pub(super) fn lock_use(&self, locks: &Locks, facts: &RelationFacts) -> LockUse {
        let fewer = (self.holders.readers < self.asked).then_some(self.holders.readers);
        if let Some(checked) = &locks.checked {
            let branches = u64::try_from(checked.branches.len()).unwrap_or(u64::MAX);
            let share = LockShare { readers: self.holders.readers, relations: checked.relations };
            return LockUse { readers: fewer, ..LockUse::of_share(self.table, branches, share, self.holders) };
        }
        let leaves = facts.leaves.iter().map(|leaf| u64::from(leaf.relations)).sum::<u64>();
        let relations = self.weight.relations.max(leaves).max(self.held);
        if let Some(largest) = self.largest {
            let relations = self.weight.relations.max(self.held);
            return LockUse { readers: fewer, ..LockUse::of_several(self.table, relations, largest, self.holders) };
        }
        let way = if self.keyset { LockWay::PageByPage } else { LockWay::BeforeSnapshot };
        LockUse { readers: fewer, ..LockUse::of_all(way, self.table, relations, self.holders) }
    }

    /// Why a relation is not read through its own name.
    pub(crate) fn refuse(&self, name: &str) -> SourceError {
        let LockWeight { tables, relations, .. } = self.weight;
        let (sessions, entries) = (self.holders.count(), self.table.entries);
        let message = format!(
            "reading {name} as a whole locks {} ({}, with indexes) in {}, more than a quarter of the server's lock table, \
             which max_locks_per_transaction makes for {}",
            counted(relations, "relation"),
            counted(tables, "table"),
            counted(sessions, "session"),
            counted(entries, "lock")
        );
        let alone = Holders { readers: 1, beside: beside(self.keyset, self.keep, 1) };
        let hint = if self.holders.count() > alone.count() && self.table.fits(relations, alone) {
            format!("--readers 1 takes few enough; or {TOO_SMALL}")
        } else {
            TOO_SMALL.to_owned()
        };
        SourceError::new(SourceFault::GaveWay, message).with_hint(hint)
    }

    fn too_small(&self, name: &str) -> SourceError {
        let LockWeight { heaviest, branches, .. } = self.weight;
        let message = format!(
            "a table of {name} is {} with its indexes, below {} from which others inherit: more than a quarter of the \
             server's lock table, which max_locks_per_transaction makes for {}",
            counted(heaviest, "relation"),
            counted(branches, "table"),
            counted(self.table.entries, "lock")
        );
        SourceError::new(SourceFault::GaveWay, message).with_hint(TOO_SMALL)
    }
}

/// Relations behind the one that `$1` names, or behind all that the session's transaction has locked.
const BEHIND: &str = "WITH RECURSIVE named AS ( \
            SELECT $1::oid AS oid WHERE $1 IS NOT NULL \
            UNION SELECT l.relation FROM pg_catalog.pg_locks l WHERE $1 IS NULL AND l.locktype = 'relation' \
                AND l.pid = pg_catalog.pg_backend_pid() AND l.relation >= $2 \
            UNION SELECT d.refobjid FROM named JOIN pg_catalog.pg_class v ON v.oid = named.oid AND v.relkind = 'v' \
                JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid AND r.ev_type = '1' \
                JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass \
                    AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass \
                    AND d.refobjid <> v.oid), \
        below AS (SELECT oid FROM named \
            UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below ON i.inhparent = below.oid)";

/// What is locked where relation `root` is read through its own name; without one, where all is read that the session's
/// transaction has locked. A view's own dependencies say what is behind it.
async fn weigh(session: &Session, root: Option<u32>) -> Result<LockWeight, SourceError> {
    let sql = closed(
        &"BEHIND, \
        weighed AS (SELECT RELATIONS AS relations, c.relkind = 'p' OR b.oid IS NOT NULL AS branch \
            FROM below JOIN pg_catalog.pg_class c ON c.oid = below.oid \
            LEFT JOIN (SELECT DISTINCT inhparent AS oid FROM pg_catalog.pg_inherits) AS b ON b.oid = c.oid \
            WHERE c.relkind = ANY ('{r,p,v,m,f}'::\"char\"[])) \
        SELECT pg_catalog.count(*), COALESCE(pg_catalog.sum(relations), 0)::int8, \
            COALESCE(pg_catalog.max(relations), 0)::int8, pg_catalog.count(*) FILTER (WHERE branch) FROM weighed"
            .replace("BEHIND", BEHIND)
            .replace("RELATIONS", RELATIONS),
    );
    let rows =
        query(session, "counting the locks to be taken", &sql, &[(&root, Type::OID), (&oid::FIRST_NORMAL, Type::OID)])
            .await?;
    let count =
        |place| rows.first().and_then(|row| u64::try_from(value::<i64>(row, place).ok()?).ok()).unwrap_or(u64::MAX);
    Ok(LockWeight { tables: count(0), relations: count(1), heaviest: count(2), branches: count(3) })
}

/// What is locked where relation `root` is read: itself, what it is made of, and what inherits from that.
pub(super) async fn behind(session: &Session, root: u32) -> Result<BTreeSet<u32>, SourceError> {
    let sql = closed(&format!("{BEHIND} SELECT oid FROM below"));
    let types: [(&(dyn ToSql + Sync), Type); 2] = [(&root, Type::OID), (&oid::FIRST_NORMAL, Type::OID)];
    let rows = query(session, "listing what is behind a relation", &sql, &types).await?;
    rows.iter().map(|row| value(row, 0)).collect()
}

/// The tables among what relation `root` is made of, or among all that the session's transaction has locked, that inherit
/// from no other of these.
pub(super) async fn heads(session: &Session, root: Option<u32>) -> Result<Vec<u32>, SourceError> {
    let sql = closed(&format!(
        "{BEHIND} SELECT c.oid FROM named JOIN pg_catalog.pg_class c ON c.oid = named.oid \
        WHERE c.relkind = ANY ('{{r,p,f}}'::\"char\"[]) AND NOT EXISTS ( \
            SELECT FROM pg_catalog.pg_inherits i JOIN named n ON n.oid = i.inhparent WHERE i.inhrelid = c.oid)"
    ));
    let types: [(&(dyn ToSql + Sync), Type); 2] = [(&root, Type::OID), (&oid::FIRST_NORMAL, Type::OID)];
    let rows = query(session, "listing what others may inherit from", &sql, &types).await?;
    rows.iter().map(|row| value(row, 0)).collect()
}

/// What the lock session holds.
pub(super) async fn held(session: &Session) -> Result<Vec<u32>, SourceError> {
    let sql = closed(
        "SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() \
        AND l.locktype = 'relation' AND l.granted AND l.mode = 'AccessShareLock' ORDER BY l.relation",
    );
    let rows = query(session, "listing the locks", &sql, &[]).await?;
    rows.iter().map(|row| value(row, 0)).collect()
}

/// Which of `oids` the lock session does not hold.
pub(super) async fn unlocked(session: &Session, oids: &[u32]) -> Result<Vec<u32>, SourceError> {
    if failpoint::off("locks") {
        return Ok(Vec::new());
    }
    let sql = closed(
        "SELECT o.oid FROM pg_catalog.unnest($1::oid[]) AS o(oid) WHERE NOT EXISTS ( \
        SELECT FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' \
            AND l.relation = o.oid AND l.granted AND l.mode = 'AccessShareLock')",
    );
    let rows = query(session, "checking the locks", &sql, &[(&oids, Type::OID_ARRAY)]).await?;
    rows.iter().map(|row| value(row, 0)).collect()
}

/// Sessions beside so many readers: the lock session and two keepers, and one more that keeps the snapshot beyond the run.
/// The only reader's own transaction is the snapshot, so there are no keepers.
fn beside(keyset: bool, keep: bool, readers: u64) -> u64 {
    let control = u64::try_from(CONTROL_SESSIONS).unwrap_or(u64::MAX);
    if keyset || (readers == 1 && !keep) { 1 } else { control.saturating_add(keep.into()) }
}

/// The tables of a tree that are locked before the snapshot where its leaves are not: those from which others inherit.
/// Locked, none of their children can be dropped or detached; where the role may not lock one, a child that has gone is
/// found as it is read.
pub(super) fn branches(tree: &[TreeNode]) -> impl Iterator<Item = &TreeNode> {
    tree.iter().filter(|node| node.place == TreePlace::Branch && node.may_select)
}

/// The names of these and of the root by the newest catalog, quoted: locked before the snapshot is taken, they need not be locked too late
/// for it, and it not be taken again.
pub(super) async fn newest_branches(lock: &Session, root: u32) -> Result<Vec<String>, SourceError> {
    let sql = closed(
        &"WITH RECURSIVE TREE \
        SELECT n.nspname::text, c.relname::text FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE (c.oid = $1 OR c.relkind = 'p' \
                OR EXISTS (SELECT FROM pg_catalog.pg_inherits b WHERE b.inhparent = c.oid)) \
            AND COALESCE(pg_catalog.has_table_privilege(c.oid, 'SELECT') \
                AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), false) ORDER BY c.oid"
            .replace("TREE", TREE),
    );
    let rows = query(lock, "listing what the tables inherit from", &sql, &[(&root, Type::OID)]).await?;
    rows.iter().map(|row| Ok(format!("{}.{}", identifier(value(row, 0)?), identifier(value(row, 1)?)))).collect()
}

/// Whether `LOCK TABLE` may take it, and with it all that inherits from it.
pub(super) fn lockable(found: &CatalogRelation) -> bool {
    matches!(found.kind, RelationKind::Table | RelationKind::PartitionedTable) && found.may_select
}

/// What stands behind FROM, and the name by which people's texts know it.
pub(super) fn source_and_alias(shape: &ShapeOptions, found: Option<&CatalogRelation>) -> (String, String) {
    match (&shape.relation, found) {
        (_, Some(found)) => (found.sql_name(), identifier(&found.name)),
        (RelationRequest::Query(text) | RelationRequest::Table(text), None) => {
            (format!("(\n{text}\n)"), QUERY_ALIAS.to_owned())
        }
    }
}

/// Statements whose planning locks what `LOCK TABLE` does not, and finds the mistakes in people's SQL. With `only` they
/// leave the children of a table out.
pub(super) fn statements(shape: &ShapeOptions, found: Option<&CatalogRelation>, only: &str) -> Vec<String> {
    let (from, alias) = source_and_alias(shape, found);
    let from = if found.is_some() { format!("{only}{from}") } else { from };
    let mut statements = Vec::new();
    if !found.is_some_and(lockable) {
        // With every column that is read, or a join for one of them would be planned away with its tables' partitions;
        // and without the predicate, which would plan other partitions away.
        let all = found.is_none_or(|found| found.may_select);
        let columns = match shape.relation_columns() {
            Some(columns) if !all => columns.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", "),
            _ => format!("{alias}.*"),
        };
        statements.push(format!("SELECT {columns} FROM {from} AS {alias}"));
    }
    if shape.predicate.is_some() || !shape.expressions.is_empty() {
        let list: Vec<String> = shape.expressions.iter().map(|(_, text)| format!("(\n{text}\n)")).collect();
        let filter = shape.predicate.as_ref().map_or(String::new(), |text| format!(" WHERE (\n{text}\n)"));
        statements.push(format!("SELECT {} FROM {from} AS {alias}{filter}", list.join(", ")));
    }
    statements
}

#[cfg(test)]
mod tests;
