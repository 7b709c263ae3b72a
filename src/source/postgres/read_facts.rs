//! What of a relation says how it may be read: foreign tables behind it, tables that others may come to inherit from, and
//! texts that mean whole rows.

use tokio_postgres::types::Type;

use super::catalog::{self, CatalogRelation, TreeNode};
use super::closed::closed;
use super::connect::Session;
use super::fixed_now::texts;
use super::locking::heads;
use crate::base::failpoint;
use crate::model::{RelationKind, ShapeOptions};
use crate::source::SourceError;
use crate::source::postgres::plan::mentions::Mentions;
use crate::source::postgres::plan::whole_row::{RelationNames, may_name_whole_row};
use crate::source::postgres::plan::{ReadingFacts, RelationFacts};

/// What says how the relation may be read. The anchor holds all locks of the run by now.
pub(super) async fn facts(
    anchor: &Session,
    shape: &ShapeOptions,
    found: Option<&CatalogRelation>,
    tree: &[TreeNode],
    relation: &RelationFacts,
) -> Result<ReadingFacts, SourceError> {
    let foreign_leaves: Vec<u32> = tree.iter().filter(|node| node.relkind == "f").map(|node| node.oid).collect();
    let has_text = shape.predicate.is_some() || !shape.expressions.is_empty();
    let reads_tables_only = matches!(relation.kind, RelationKind::Table | RelationKind::PartitionedTable) && !has_text;
    let finding = async {
        let nothing = foreign_leaves.is_empty() && reads_tables_only;
        if nothing { Ok(Vec::new()) } else { foreign_tables(anchor, &foreign_leaves).await }
    };
    let (foreign, parents) = tokio::join!(finding, parents(anchor, shape, found, tree));
    let (foreign, parents) = (foreign?, parents?);
    let whole_rows = match found {
        Some(found) if has_text && relation.leaves.iter().any(|leaf| leaf.oid != found.oid) => {
            may_name_whole_rows(anchor, shape, found, relation).await?
        }
        _ => false,
    };
    let whole = matches!(tree, [only] if !only.only_hides);
    let alone = matches!(relation.kind, RelationKind::Table | RelationKind::ForeignTable) && whole;
    Ok(ReadingFacts { whole_rows, foreign, alone, parents })
}

/// The tables that are read with all that inherits from them. Of a partitioned table that is named the partitions are
/// counted as it is read.
async fn parents(
    anchor: &Session,
    shape: &ShapeOptions,
    found: Option<&CatalogRelation>,
    tree: &[TreeNode],
) -> Result<Vec<u32>, SourceError> {
    if failpoint::off("newcomers") {
        return Ok(Vec::new());
    }
    match found {
        // A statement in a text reads tables of its own.
        Some(found) if !texts(shape).any(|text| Mentions::of(text).statement) => match found.kind {
            RelationKind::View => heads(anchor, Some(found.oid)).await,
            RelationKind::Table if tree.len() > 1 => Ok(vec![found.oid]),
            _ => Ok(Vec::new()),
        },
        _ => heads(anchor, None).await,
    }
}

/// Whether an expression or the predicate may mean another row when it is read from a leaf than from the relation.
async fn may_name_whole_rows(
    anchor: &Session,
    shape: &ShapeOptions,
    found: &CatalogRelation,
    relation: &RelationFacts,
) -> Result<bool, SourceError> {
    if failpoint::off("whole-rows") {
        return Ok(false);
    }
    // Partitions have the columns of their parent and no others.
    let leaf_columns = match found.kind {
        RelationKind::Table => columns_of_children(anchor, found.oid).await?,
        _ => Vec::new(),
    };
    let columns: Vec<String> = relation.columns.iter().map(|column| column.name.clone()).collect();
    let names = RelationNames { relation: &found.name, columns: &columns, leaf_columns: &leaf_columns };
    let texts = shape.expressions.iter().map(|(_, text)| text).chain(&shape.predicate);
    Ok(texts.into_iter().any(|text| may_name_whole_row(text, names)))
}

/// Columns of the relation's tables that the relation does not have itself: children by inheritance may have more.
async fn columns_of_children(session: &Session, root: u32) -> Result<Vec<String>, SourceError> {
    let sql = closed(
        "WITH RECURSIVE tree AS ( \
            SELECT $1::oid AS oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid) \
        SELECT DISTINCT a.attname::text FROM tree JOIN pg_catalog.pg_attribute a ON a.attrelid = tree.oid \
        WHERE a.attnum > 0 AND NOT a.attisdropped AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute o \
            WHERE o.attrelid = $1 AND o.attname = a.attname AND NOT o.attisdropped)",
    );
    let rows = catalog::query(session, "listing the columns of the child tables", &sql, &[(&root, Type::OID)]).await?;
    rows.iter().map(|row| catalog::value(row, 0)).collect()
}

/// The foreign tables among `oids` and among all that the session's transaction has locked, `schema.table` for people.
async fn foreign_tables(session: &Session, oids: &[u32]) -> Result<Vec<String>, SourceError> {
    let sql = closed(
        "SELECT n.nspname::text || '.' || c.relname::text \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind = 'f' AND (c.oid = ANY ($1) OR EXISTS (SELECT FROM pg_catalog.pg_locks l \
            WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.relation = c.oid AND l.granted)) \
        ORDER BY n.nspname, c.relname",
    );
    let rows = catalog::query(session, "looking for foreign tables", &sql, &[(&oids, Type::OID_ARRAY)]).await?;
    rows.iter().map(|row| catalog::value(row, 0)).collect()
}
