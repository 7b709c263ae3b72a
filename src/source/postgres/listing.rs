//! The relations of a database, for people who choose one: two statements over the catalog, whatever there is.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;

use super::catalog::{self, CatalogRelation, EXACT_BYTES, NODE, NODE_JOINS, RELATIONS, TreeNode, UNIQUE_KEY, value};
use super::closed::closed;
use super::connect::{Session, Sessions};
use super::describe::{estimated_rows, leaves};
use super::session::{Begin, begin, identifier};
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ListedRelation, ReadableRows, RelationKind, SplitWay};
use crate::source::SourceError;

/// How the session is called.
const APPLICATION: &str = "outhaul/ls";

/// A listing waits so long for those who have locked a table against everybody; then it takes sizes from the catalog.
const LOCK_WAIT: &str = "SET LOCAL lock_timeout = '500ms'";

/// The size of `TABLE` as it was when it was last vacuumed or analysed, which asks nobody.
const NOTED_BYTES: &str = "TABLE.relpages::int8 * pg_catalog.current_setting('block_size')::int8";

/// What is asked of each relation after [`NODE`]: bytes of its large values, its key, whether its schema and any of its
/// columns may be used, and whether it is a partition.
const MORE: &str = "COALESCE((SELECT LARGE FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid), 0::int8), (KEY), \
    COALESCE(pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), false), \
    COALESCE(pg_catalog.has_any_column_privilege(c.oid, 'SELECT'), false), c.relispartition";

/// Relations with rows, but for those of the system and temporary ones.
const LISTED: &str = "c.relkind = ANY ('{r,p,v,m,f}') AND c.relpersistence <> 't' \
    AND n.nspname <> 'information_schema' AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_')";

/// One relation as the catalog has it.
struct RelationRow {
    node: TreeNode,
    schema: String,
    name: String,
    large_bytes: u64,
    key: Vec<String>,
    may_use_schema: bool,
    may_read_a_column: bool,
    is_partition: bool,
}

/// The relations of the database, in the order of their names.
///
/// # Errors
/// The source fails.
///
/// # Cancel safety
/// It only reads.
pub(super) async fn list(connect: &ConnectSettings) -> Result<Vec<ListedRelation>, SourceError> {
    let session = Sessions::new(connect.clone(), false, APPLICATION, 1)?.get().await?;
    begin(&session, Begin::NewSnapshot, APPLICATION).await?;
    let rows = match relations(&session, true).await {
        Err(error) if error.code.as_deref() == Some("55P03") => {
            tracing::warn!("a table is locked against everybody: sizes are those of the last VACUUM or ANALYZE");
            session.batch("leaving a failed transaction", "ROLLBACK").await?;
            begin(&session, Begin::NewSnapshot, APPLICATION).await?;
            relations(&session, false).await?
        }
        rows => rows?,
    };
    let found = rows.iter().map(found).collect::<Result<Vec<_>, _>>()?;
    let children = children(&session).await?;
    let mut listed: Vec<ListedRelation> = Forest::new(&found, &children).listed();
    listed.sort_by(|one, other| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    Ok(listed)
}

async fn relations(session: &Session, exact: bool) -> Result<Vec<Row>, SourceError> {
    session.batch("setting a limit", LOCK_WAIT).await?;
    let bytes = if exact { EXACT_BYTES } else { NOTED_BYTES };
    let sql = format!("SELECT {NODE}, {MORE} FROM pg_catalog.pg_class c {NODE_JOINS} WHERE {LISTED}")
        .replace("RELATIONS", RELATIONS)
        .replace("BYTES", &bytes.replace("TABLE", "c"))
        .replace("LARGE", &bytes.replace("TABLE", "t"))
        .replace("KEY", &UNIQUE_KEY.replace("RELATION", "c.oid"));
    catalog::query(session, "listing the relations", &closed(&sql), &[]).await
}

fn found(row: &Row) -> Result<RelationRow, SourceError> {
    Ok(RelationRow {
        node: catalog::node(row)?,
        schema: value(row, 4)?,
        name: value(row, 5)?,
        large_bytes: u64::try_from(value::<i64>(row, 14)?).unwrap_or(0),
        key: value::<Option<Vec<String>>>(row, 15)?.unwrap_or_default(),
        may_use_schema: value(row, 16)?,
        may_read_a_column: value(row, 17)?,
        is_partition: value(row, 18)?,
    })
}

/// Who inherits from whom: parent and child. What is being detached is left out, as a query of the parent leaves it out.
async fn children(session: &Session) -> Result<Vec<(u32, u32)>, SourceError> {
    let sql = closed("SELECT i.inhparent, i.inhrelid FROM pg_catalog.pg_inherits i WHERE NOT i.inhdetachpending");
    let rows = catalog::query(session, "listing who inherits from whom", &sql, &[]).await?;
    rows.iter().map(|row| Ok((value(row, 0)?, value(row, 1)?))).collect()
}

/// All relations, with those that inherit from each.
struct Forest<'a> {
    found: HashMap<u32, &'a RelationRow>,
    children: HashMap<u32, Vec<u32>>,
    parents: HashMap<u32, u32>,
}

impl<'a> Forest<'a> {
    fn new(found: &'a [RelationRow], edges: &[(u32, u32)]) -> Self {
        let found: HashMap<u32, &RelationRow> = found.iter().map(|relation| (relation.node.oid, relation)).collect();
        let (mut children, mut parents) = (HashMap::<u32, Vec<u32>>::new(), HashMap::new());
        // Indexes inherit too.
        for (parent, child) in
            edges.iter().filter(|(parent, child)| found.contains_key(parent) && found.contains_key(child))
        {
            children.entry(*parent).or_default().push(*child);
            parents.insert(*child, *parent);
        }
        Self { found, children, parents }
    }

    fn listed(&self) -> Vec<ListedRelation> {
        self.found.values().map(|relation| self.relation(relation)).collect()
    }

    /// The relation and all that inherits from it, each once.
    fn tree(&self, root: &'a RelationRow) -> Vec<&'a RelationRow> {
        let (mut tree, mut seen) = (vec![root], HashSet::from([root.node.oid]));
        let mut next = 0;
        while let Some(relation) = tree.get(next) {
            for child in self.children.get(&relation.node.oid).into_iter().flatten() {
                if seen.insert(*child) {
                    tree.extend(self.found.get(child).copied());
                }
            }
            next += 1;
        }
        tree
    }

    fn relation(&self, relation: &'a RelationRow) -> ListedRelation {
        let members = self.tree(relation);
        let tree: Vec<TreeNode> = members.iter().map(|member| member.node.clone()).collect();
        let kind = kind(&relation.node.relkind);
        let found = CatalogRelation {
            oid: relation.node.oid,
            kind,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            may_select: relation.node.may_select,
            tables: members.len(),
            branches: members.len() > 1,
        };
        let stores_rows = |member: &&&RelationRow| matches!(member.node.relkind.as_str(), "r" | "m");
        let bytes = |member: &&RelationRow| {
            u64::from(member.node.facts.blocks) * u64::from(member.node.facts.block_size) + member.large_bytes
        };
        let bytes_of_each: Vec<u64> = members.iter().filter(stores_rows).map(bytes).collect();
        // As for an export: a unique index on an inheritance parent says nothing of its children's rows.
        let has_key = !(kind == RelationKind::Table && found.has_children());
        let key = if has_key { relation.key.clone() } else { Vec::new() };
        let holds_rows = |member: &&&RelationRow| matches!(member.node.relkind.as_str(), "r" | "m" | "f");
        ListedRelation {
            table: table_name(relation),
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            kind,
            part_of: self.parent(relation).map(table_name),
            tables: members.iter().filter(holds_rows).count(),
            estimated_rows: if kind == RelationKind::View { None } else { estimated_rows(&tree) },
            bytes: (!bytes_of_each.is_empty()).then(|| bytes_of_each.into_iter().fold(0, u64::saturating_add)),
            split: split(&found, &tree, &key),
            key,
            readable: readable(relation),
        }
    }

    fn parent(&self, relation: &RelationRow) -> Option<&'a RelationRow> {
        let parent = self.parents.get(&relation.node.oid).filter(|_| relation.is_partition)?;
        self.found.get(parent).copied()
    }
}

fn kind(relkind: &str) -> RelationKind {
    match relkind {
        "p" => RelationKind::PartitionedTable,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::ForeignTable,
        _ => RelationKind::Table,
    }
}

/// How planning would split it.
fn split(found: &CatalogRelation, tree: &[TreeNode], key: &[String]) -> SplitWay {
    match leaves(found, tree).as_slice() {
        leaves if leaves.iter().any(|leaf| leaf.ctid_ranges) => SplitWay::Blocks,
        [_, _, ..] => SplitWay::Tables,
        [] if !key.is_empty() => SplitWay::Key,
        _ => SplitWay::OnePartition,
    }
}

fn readable(relation: &RelationRow) -> ReadableRows {
    match relation.node.may_select {
        _ if !relation.may_use_schema || !relation.may_read_a_column => ReadableRows::None,
        _ if relation.node.row_security => ReadableRows::SomeRows,
        true => ReadableRows::All,
        false => ReadableRows::SomeColumns,
    }
}

fn table_name(relation: &RelationRow) -> String {
    format!("{}.{}", plain(&relation.schema), plain(&relation.name))
}

/// A name as a person would write it: quoted where it would else be another.
fn plain(name: &str) -> String {
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let safe = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if begins && name.chars().all(safe) { name.to_owned() } else { identifier(name) }
}

#[cfg(test)]
mod tests;
