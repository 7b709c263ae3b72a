//! Tables that come to inherit from what is read after the snapshot was taken. Neither ATTACH PARTITION nor INHERIT waits
//! for the lock of a reader, and the server looks for children in the newest catalog: a statement that it plans then reads
//! them too, and finds the rows that were committed before the snapshot.
//!
//! Such a statement has locked them. So what a session holds is compared with what inherited under the snapshot; what a
//! function reads as it runs has been locked by nobody before, too, and the newest catalog tells one from the other.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::catalog::{TypedParameter, query, value};
use super::closed::closed;
use super::connect::Session;
use crate::source::postgres::plan::oid;
use crate::source::{SourceError, SourceFault};

/// `parents` and all that inherits from them, as the session's transaction sees it.
const FAMILY: &str = "WITH RECURSIVE family AS (SELECT p.oid FROM pg_catalog.unnest($1::oid[]) AS p(oid) \
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN family f ON i.inhparent = f.oid)";

/// The relations with rows that a session has locked under its snapshot, and that did not inherit from `parents` there. A
/// table that was made later has no rows under it, but for a foreign one; only those have no file.
///
/// # Errors
/// The server refused or was lost.
pub(super) async fn strangers(session: &Session, parents: &[u32]) -> Result<Vec<u32>, SourceError> {
    if parents.is_empty() {
        return Ok(Vec::new());
    }
    let sql = closed(
        &"FAMILY SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l \
            LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation \
        WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.relation >= $2 \
            AND NOT EXISTS (SELECT FROM family f WHERE f.oid = l.relation) \
            AND CASE WHEN c.oid IS NULL THEN pg_catalog.pg_relation_filenode(l.relation) IS NULL \
                ELSE c.relkind = ANY ('{r,f}'::\"char\"[]) END"
            .replace("FAMILY", FAMILY),
    );
    let parameters: [TypedParameter<'_>; 2] = [(&parents, Type::OID_ARRAY), (&oid::FIRST_NORMAL, Type::OID)];
    let rows = query(session, "looking for what else was read", &sql, &parameters).await?;
    rows.iter().map(|row| value(row, 0)).collect()
}

/// Which of the strangers (`$2`) inherits from the parents (`$1`) by now. To be asked where the newest catalog is seen, and to
/// be [`closed`] before.
pub(super) fn question() -> String {
    "FAMILY SELECT c.oid::regclass::text FROM family f JOIN pg_catalog.pg_class c ON c.oid = f.oid \
        WHERE c.oid = ANY ($2) AND c.relkind = ANY ('{r,f}'::\"char\"[]) ORDER BY c.oid LIMIT 1"
        .replace("FAMILY", FAMILY)
}

/// What is to be said of its answer.
///
/// # Errors
/// [`SourceFault::SchemaChanged`] where there is one.
pub(super) fn refuse(answer: &[Row]) -> Result<(), SourceError> {
    let Some(row) = answer.first() else { return Ok(()) };
    let name: &str = value(row, 0)?;
    let message = format!("{name} came to inherit from a table after the snapshot was taken, and was read with it");
    Err(SourceError::new(SourceFault::SchemaChanged, message)
        .with_hint("another session attached a partition or a child; run the export again when it is done"))
}
