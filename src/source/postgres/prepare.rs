//! From a request to facts: locks first, then the snapshot, then everything planning asks for, seen under it.

use std::sync::Arc;

use super::catalog::{self, Found, ServerFacts, TreeNode};
use super::connect::{Connector, Session, Sessions};
use super::error::{SourceError, SourceFault};
use super::session::{Begin, begin};
use super::settings::ConnectSettings;
use super::snapshot::{Locks, Waiting, unlocked};
use super::sql;
use crate::export::request::{ReadMode, ShapeOptions};
use crate::plan::{ColumnFacts, LeafFacts, RelationFacts, RelationKind, RelationRequest};
use crate::{failpoint, limits};

/// Sessions beside the readers: the lock session and two keepers.
const CONTROL_SESSIONS: usize = 3;

/// A source that has its locks and its snapshot, and answers planning's questions.
#[derive(Debug)]
pub struct Planning {
    pub(crate) sessions: Arc<Sessions>,
    /// Holds the locks; `None` in keyset mode, which has no moment to protect.
    pub(crate) lock: Option<Session>,
    /// The session whose snapshot all facts come from.
    pub(crate) anchor: Session,
    pub(crate) locks: Locks,
    pub(crate) application: String,
    pub(crate) found: Option<Found>,
    /// The relation.
    pub relation: RelationFacts,
    /// The columns that `--column` expressions make, in their order.
    pub expressions: Vec<ColumnFacts>,
    /// The server.
    pub server: ServerFacts,
}

impl Planning {
    /// Connects, locks, takes the snapshot and describes the relation.
    ///
    /// The query or predicate in `shape` has been lexed already; the server checks the rest of it here.
    ///
    /// # Errors
    /// See [`SourceFault`]; nothing stays behind on the server.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    pub async fn begin(
        connect: &ConnectSettings,
        shape: &ShapeOptions,
        readers: usize,
        read_mode: ReadMode,
        run_id: &str,
    ) -> Result<Self, SourceError> {
        let connector = Arc::new(Connector::new(connect.clone())?);
        // The tail of the id is its random part; its head is the time, which many runs share.
        let short: String = run_id.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
        let application = format!("outhaul/{short}");
        let sessions = Arc::new(Sessions::new(connector, &application, readers + CONTROL_SESSIONS)?);
        let lock = sessions.get().await?;
        begin(&lock, Begin::Latest, &format!("{application}/locks")).await?;
        let server = catalog::server_facts(&lock).await?;
        let (found, locks) = lock_relation(&lock, shape, read_mode).await?;
        failpoint::reach("locked").await;
        let (lock, anchor, tree) = match read_mode {
            ReadMode::Copy => {
                let (anchor, tree) = snapshot(&sessions, &lock, found.as_ref(), &application).await?;
                (Some(lock), anchor, tree)
            }
            ReadMode::Keyset { .. } => {
                let tree = match &found {
                    Some(found) => catalog::tree(&lock, found.oid).await?,
                    None => Vec::new(),
                };
                (None, lock, tree)
            }
        };
        let relation = describe(&anchor, shape, found.as_ref(), &tree).await?;
        let expressions = describe_expressions(&anchor, shape, &relation).await?;
        Ok(Self { sessions, lock, anchor, locks, application, found, relation, expressions, server })
    }
}

/// Finds the relation, locks it, and makes sure that the name still means what was locked.
async fn lock_relation(
    lock: &Session,
    shape: &ShapeOptions,
    read_mode: ReadMode,
) -> Result<(Option<Found>, Locks), SourceError> {
    let name = match &shape.relation {
        RelationRequest::Query(query) => {
            let statements = vec![checked(shape, &format!("(\n{query}\n) AS query"))];
            let locks = Locks { tables: Vec::new(), statements };
            locks.take(lock, Waiting::Patient).await?;
            return Ok((None, locks));
        }
        RelationRequest::Table(name) => name,
    };
    for _ in 0..limits::SNAPSHOT_TRIES {
        let found = catalog::find(lock, name).await?;
        let lockable = matches!(found.kind, RelationKind::Table | RelationKind::PartitionedTable) && found.may_select;
        let mut locks = Locks::default();
        if lockable {
            locks.tables.push(found.sql_name());
        }
        if !lockable || shape.predicate.is_some() || !shape.expressions.is_empty() {
            locks.statements.push(checked(shape, &found.sql_name()));
        }
        if read_mode == ReadMode::Copy || !locks.statements.is_empty() {
            locks.take(lock, Waiting::Patient).await?;
        }
        if catalog::find(lock, name).await?.oid == found.oid {
            return Ok((Some(found), locks));
        }
        lock.batch("starting over", "ROLLBACK; BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await?;
    }
    Err(SourceError::new(SourceFault::SchemaChanged, format!("{name} is being replaced over and over"))
        .with_hint("another session renames or recreates the table; try again when it is done"))
}

/// A statement that reads what the export will read; planning it locks all of that and finds mistakes in it.
fn checked(shape: &ShapeOptions, from: &str) -> String {
    let list: Vec<String> = shape.expressions.iter().map(|(_, text)| format!("(\n{text}\n)")).collect();
    let filter = shape.predicate.as_ref().map_or(String::new(), |text| format!(" WHERE (\n{text}\n)"));
    format!("SELECT {} FROM {from}{filter}", list.join(", "))
}

/// Takes a snapshot under which every table of the relation is one that the lock session holds.
async fn snapshot(
    sessions: &Sessions,
    lock: &Session,
    found: Option<&Found>,
    application: &str,
) -> Result<(Session, Vec<TreeNode>), SourceError> {
    let anchor = sessions.get().await?;
    for _ in 0..limits::SNAPSHOT_TRIES {
        begin(&anchor, Begin::NewSnapshot, &format!("{application}/keeper")).await?;
        let Some(found) = found else { return Ok((anchor, Vec::new())) };
        let tree = catalog::tree(&anchor, found.oid).await?;
        let oids: Vec<u32> = tree.iter().map(|node| node.oid).collect();
        let missing = unlocked(lock, &oids).await?;
        if missing.is_empty() {
            return Ok((anchor, tree));
        }
        for node in tree.iter().filter(|node| missing.contains(&node.oid) && node.relkind != "f") {
            let sql = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", node.facts.sql_name);
            lock.batch(&format!("locking {}, attached a moment ago", node.facts.sql_name), &sql).await?;
        }
        anchor.batch("leaving a snapshot that was taken too early", "ROLLBACK").await?;
    }
    Err(SourceError::new(SourceFault::SchemaChanged, "tables are being attached faster than they can be locked")
        .with_hint("try again when the maintenance of the partitions is done"))
}

async fn describe(
    anchor: &Session,
    shape: &ShapeOptions,
    found: Option<&Found>,
    tree: &[TreeNode],
) -> Result<RelationFacts, SourceError> {
    if let (RelationRequest::Query(query), None) = (&shape.relation, found) {
        return Ok(RelationFacts {
            kind: RelationKind::Query,
            sql_name: query.clone(),
            alias: "query".to_owned(),
            display_name: None,
            columns: catalog::describe_statement(anchor, "describing the query", query).await?,
            leaves: Vec::new(),
            estimated_rows: None,
            unique_key: None,
        });
    }
    let found = found.ok_or_else(|| SourceError::new(SourceFault::Protocol, "a table request without its table"))?;
    let columns = catalog::columns(anchor, found).await?;
    if columns.is_empty() {
        let message = format!("{} has no columns, so there is nothing to export", found.sql_name());
        return Err(SourceError::new(SourceFault::Usage, message));
    }
    Ok(RelationFacts {
        kind: found.kind,
        sql_name: found.sql_name(),
        alias: super::session::identifier(&found.name),
        display_name: Some(format!("{}.{}", found.schema, found.name)),
        columns,
        leaves: leaves(found, tree),
        estimated_rows: estimated_rows(tree),
        unique_key: catalog::unique_key(anchor, found).await?,
    })
}

/// The tables that may be read in the relation's place; none unless all of them may.
fn leaves(found: &Found, tree: &[TreeNode]) -> Vec<LeafFacts> {
    let stores_rows = |node: &&TreeNode| matches!(node.relkind.as_str(), "r" | "m");
    let direct =
        matches!(found.kind, RelationKind::Table | RelationKind::PartitionedTable | RelationKind::MaterializedView);
    // A leaf's own policies differ from those of the parent through which it would be read, so any of them rules the
    // direct way out; so does a foreign leaf, which cannot be read by `ONLY` and place.
    let legal = tree.iter().all(|node| !node.row_security && node.relkind != "f")
        && tree.iter().filter(stores_rows).all(|node| node.may_select);
    if direct && legal { tree.iter().filter(stores_rows).map(|node| node.facts.clone()).collect() } else { Vec::new() }
}

fn estimated_rows(tree: &[TreeNode]) -> Option<u64> {
    let mut sum: f64 = 0.0;
    for node in tree.iter().filter(|node| matches!(node.relkind.as_str(), "r" | "m" | "f")) {
        // -1 is "never analysed".
        if node.reltuples < 0.0 {
            return None;
        }
        sum += f64::from(node.reltuples);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate for people: not negative by the test above, saturating beyond u64"
    )]
    let rows = sum as u64;
    (!tree.is_empty()).then_some(rows)
}

async fn describe_expressions(
    anchor: &Session,
    shape: &ShapeOptions,
    relation: &RelationFacts,
) -> Result<Vec<ColumnFacts>, SourceError> {
    let mut columns = Vec::with_capacity(shape.expressions.len());
    for (name, text) in &shape.expressions {
        let statement = format!("SELECT (\n{text}\n) FROM {}", sql::relation(relation));
        let described = catalog::describe_statement(anchor, &format!("describing --column {name}"), &statement).await?;
        let [column] = described.as_slice() else {
            let message = format!("--column {name} is not one value a row");
            return Err(SourceError::new(SourceFault::Usage, message));
        };
        columns.push(ColumnFacts { name: name.clone(), ..column.clone() });
    }
    Ok(columns)
}
