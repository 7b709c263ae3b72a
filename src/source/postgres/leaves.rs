//! Leaves that are read one after the other by one session, a few to a statement.

use std::ops::Range;

use tokio_postgres::types::Type;

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use super::snapshot::{Locks, Waiting};
use crate::base::failpoint;
use crate::source::postgres::plan::LeafFacts;
use crate::source::postgres::plan::locks::STATEMENT_LEAVES_MAX;
use crate::source::{SourceError, SourceFault};

/// Columns that such a statement selects, those of all its leaves together.
const STATEMENT_FIELDS_MAX: usize = 4096;

/// Consecutive leaves of `range` that one statement reads: so many that a round trip does not cost more than they do, and
/// no more than their select lists, of `fields` columns each, and `most_relations` to be locked at a time allow.
pub(super) fn groups(
    leaves: &[LeafFacts],
    range: Range<usize>,
    fields: usize,
    most_relations: Option<u64>,
) -> Vec<Range<usize>> {
    let most_leaves = (STATEMENT_FIELDS_MAX / fields.max(1)).clamp(1, STATEMENT_LEAVES_MAX);
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut relations = 0_u64;
    for place in range {
        let more = leaves.get(place).map_or(1, |leaf| u64::from(leaf.relations));
        relations = relations.saturating_add(more);
        match groups.last_mut() {
            Some(group) if group.len() < most_leaves && most_relations.is_none_or(|most| relations <= most) => {
                group.end = place + 1;
            }
            _ => {
                groups.push(place..place + 1);
                relations = more;
            }
        }
    }
    groups
}

/// Checks that the leaves' names still mean the tables that were planned: a schema can be renamed in spite of our locks.
///
/// # Errors
/// [`SourceFault::SchemaChanged`] where one does not.
pub(super) async fn same_leaves(session: &Session, leaves: &[LeafFacts]) -> Result<(), SourceError> {
    let sql = "SELECT n.name FROM ROWS FROM (pg_catalog.unnest($1::text[]), \
            pg_catalog.unnest($2::oid[])) AS n(name, oid) \
        WHERE NOT COALESCE(pg_catalog.to_regclass(n.name) = n.oid, false) LIMIT 1";
    let Some(name) = first_of(session, leaves, sql).await? else { return Ok(()) };
    Err(SourceError::new(SourceFault::SchemaChanged, format!("{name} was replaced while it was read"))
        .with_hint("another session changed the tables; run the export again when it is done"))
}

/// Locks leaves that were not locked before the snapshot, and makes sure that they are what they were under it: an emptied
/// or rewritten table has another file than its row in the snapshot's catalog says. [`release`] lets them go.
///
/// A savepoint is rolled back with the locks that were taken since, so that the session stays under its snapshot.
///
/// # Errors
/// [`SourceFault::SnapshotLost`] where one is not; [`SourceFault::GaveWay`] where another session holds its lock.
pub(super) async fn lock_and_compare(session: &Session, leaves: &[LeafFacts]) -> Result<(), SourceError> {
    let list: Vec<String> = leaves.iter().map(|leaf| format!("ONLY {}", leaf.sql_name)).collect();
    let sql = format!("SAVEPOINT outhaul_leaves; LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", list.join(", "));
    let action = match leaves {
        [leaf] => format!("locking {} for as long as it is read", leaf.sql_name),
        _ => format!("locking {} tables for as long as they are read", leaves.len()),
    };
    session.batch(&action, &sql).await.map_err(|error| match error.code.as_deref() {
        Some("42P01" | "3F000") => SourceError { fault: SourceFault::SnapshotLost, ..error.with_hint(CHANGED) },
        _ => error,
    })?;
    failpoint::reach("leaves-locked").await;
    compare(session, leaves).await
}

/// Makes sure that leaves, which the session has locked since, are what they were under its snapshot.
///
/// # Errors
/// [`SourceFault::SnapshotLost`] where one is not.
pub(super) async fn compare(session: &Session, leaves: &[LeafFacts]) -> Result<(), SourceError> {
    if leaves.is_empty() || failpoint::off("relfilenode") {
        return Ok(());
    }
    // The plain read of pg_class sees the snapshot's row; the function sees the newest.
    let sql = "SELECT n.name FROM ROWS FROM (pg_catalog.unnest($1::text[]), \
            pg_catalog.unnest($2::oid[])) AS n(name, oid) \
        LEFT JOIN pg_catalog.pg_class c ON c.oid = n.oid \
        WHERE NOT COALESCE(pg_catalog.to_regclass(n.name) = n.oid \
            AND c.relfilenode = pg_catalog.pg_relation_filenode(n.oid), false) LIMIT 1";
    let Some(name) = first_of(session, leaves, sql).await? else { return Ok(()) };
    let message = format!("{name} was emptied, rewritten or replaced after the snapshot was taken");
    Err(SourceError::new(SourceFault::SnapshotLost, message).with_hint(CHANGED))
}

/// What changes a table so that an older snapshot does not find its rows, or that looks as if.
const CHANGED: &str = "TRUNCATE, DROP, a rewriting ALTER TABLE, CLUSTER and VACUUM FULL do that (the last two lose no \
    rows, and cannot be told from the others): run the export again when they are done";

/// Lets go of what [`lock_and_compare`] has locked, and of all that was locked since.
pub(super) async fn release(session: &Session) -> Result<(), SourceError> {
    let sql = "ROLLBACK TO SAVEPOINT outhaul_leaves; RELEASE SAVEPOINT outhaul_leaves";
    session.batch("letting go of the tables that were read", sql).await
}

/// Locks one of several relations for as long as a partition of it is read. The keepers hold all of them meanwhile, so what
/// was locked before the snapshot stays locked; [`unlock`] lets it go.
///
/// # Errors
/// [`SourceFault::GaveWay`] where another session waits for it.
pub(super) async fn lock(session: &Session, locks: &Locks) -> Result<(), SourceError> {
    // Both are on their way at once: after a savepoint that failed the server takes no locks.
    let (savepoint, taken) = tokio::join!(
        session.batch("locking the relation for as long as it is read", "SAVEPOINT outhaul_relation"),
        locks.take(session, Waiting::Nowait),
    );
    savepoint.and(taken)
}

/// Lets go of what [`lock`] has locked, and of all that was locked since.
pub(super) async fn unlock(session: &Session) -> Result<(), SourceError> {
    let sql = "ROLLBACK TO SAVEPOINT outhaul_relation; RELEASE SAVEPOINT outhaul_relation";
    session.batch("letting go of the relation that was read", sql).await
}

/// The first of the leaves that a statement names, whose parameters are their names and OIDs.
async fn first_of(session: &Session, leaves: &[LeafFacts], sql: &str) -> Result<Option<String>, SourceError> {
    let names: Vec<&str> = leaves.iter().map(|leaf| leaf.sql_name.as_str()).collect();
    let oids: Vec<u32> = leaves.iter().map(|leaf| leaf.oid).collect();
    let action = match leaves {
        [leaf] => format!("checking {}", leaf.sql_name),
        _ => "checking tables".to_owned(),
    };
    let rows = query(session, &action, &closed(sql), &[(&names, Type::TEXT_ARRAY), (&oids, Type::OID_ARRAY)]).await?;
    rows.first().map(|row| value(row, 0)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_within_their_bounds() {
        let leaf = |relations| LeafFacts {
            oid: 1,
            sql_name: "t".into(),
            blocks: 1,
            block_size: 8192,
            ctid_ranges: true,
            relations,
        };
        let leaves = vec![leaf(2); 200];
        assert_eq!(groups(&leaves, 0..200, 5, None), [0..64, 64..128, 128..192, 192..200]);
        assert_eq!(groups(&leaves, 10..14, 3000, None), [10..11, 11..12, 12..13, 13..14]);
        assert_eq!(groups(&leaves, 0..7, 5, Some(7)), [0..3, 3..6, 6..7]);
        let mixed = [leaf(9), leaf(1), leaf(1), leaf(9)];
        assert_eq!(groups(&mixed, 0..4, 5, Some(3)), [0..1, 1..3, 3..4], "a leaf is read whatever it takes");
        assert!(groups(&[], 0..0, 5, None).is_empty());
    }
}
