//! From a request to facts: locks first, then the snapshot, then everything planning asks for, seen under it.

use std::sync::Arc;
use std::time::Instant;

use super::catalog::{self, Found, ServerFacts, TreeNode};
use super::connect::{Connector, Session, Sessions};
use super::error::{SourceError, SourceFault};
use super::session::{Begin, ServerIdentity, begin, identifier, server_identity};
use super::settings::ConnectSettings;
use super::snapshot::{Custody, Locks, Waiting, held, unlocked};
use super::sql;
use super::watch::{Watch, explain_refusal};
use crate::export::request::{ReadMode, ShapeOptions, WorkOptions};
use crate::plan::{ColumnFacts, LeafFacts, RelationFacts, RelationKind, RelationRequest};
use crate::{failpoint, limits};

/// Sessions beside the readers: the lock session and two keepers.
pub(super) const CONTROL_SESSIONS: usize = 3;

/// The name by which predicates may qualify the columns of `--query`.
pub(super) const QUERY_ALIAS: &str = "query";

/// A source that has its locks and its snapshot, and answers planning's questions.
#[derive(Debug)]
pub struct Planning {
    pub(crate) sessions: Arc<Sessions>,
    /// Looks at the source, over the session that holds the locks.
    pub(crate) watch: Arc<Watch>,
    /// The session whose snapshot all facts come from.
    pub(crate) anchor: Session,
    /// The snapshot's id and, for the anchor, its custody: where a reader stands ready already.
    pub(crate) exported: Option<(String, Custody)>,
    pub(crate) locks: Locks,
    pub(crate) identity: ServerIdentity,
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
        work: &WorkOptions,
        run_id: &str,
    ) -> Result<Self, SourceError> {
        let (began, read_mode) = (Instant::now(), work.read_mode);
        let connector = Arc::new(Connector::new(connect.clone(), shape.allow_rls)?);
        let application = application(run_id);
        let sessions = Arc::new(Sessions::new(connector, &application, work.readers.get() + CONTROL_SESSIONS)?);
        let lock = sessions.get().await?;
        let locking = async {
            begin(&lock, Begin::Latest, &format!("{application}/locks")).await?;
            let server = server_facts(&lock, work).await?;
            Ok::<_, SourceError>((server, lock_relation(&lock, shape, read_mode, &application).await))
        };
        let (locked, (anchor, spare)) = tokio::join!(Box::pin(locking), Box::pin(connect_others(&sessions, work)));
        let (server, locked) = locked?;
        let named = match &shape.relation {
            RelationRequest::Table(name) => Some(name.as_str()),
            RelationRequest::Query(_) => None,
        };
        let (mut found, locks) = match locked {
            Ok(locked) => locked,
            Err(error) => return Err(explain_refusal(&lock, error, named).await),
        };
        failpoint::reach("locked").await;
        let (held, anchor, tree) = match read_mode {
            ReadMode::Copy => {
                match take_snapshot(&sessions, anchor, &lock, found.as_ref(), &locks, &application).await {
                    Ok((anchor, taken, tree)) => (Some((lock, taken)), anchor, tree),
                    Err(error) => return Err(explain_refusal(&lock, error, named).await),
                }
            }
            ReadMode::Keyset { .. } => {
                let tree = match &found {
                    Some(found) => catalog::tree(&lock, found.oid).await?,
                    None => Vec::new(),
                };
                (None, lock, tree)
            }
        };
        if let Some(found) = &mut found {
            // By now a child may have come that was not there when the relation was looked up.
            found.tables = tree.len();
        }
        let watch = Watch::new(&sessions, work.source_limits, &application, server.standby, began, held);
        let identity = server_identity(&anchor).await?;
        let exported = match &spare {
            Some(_) => Some(Custody::of_exported(&anchor, &locks, &identity, &application).await?),
            None => None,
        };
        let admitting = async {
            if let (Some((id, custody)), Some(spare)) = (&exported, spare) {
                custody.admit(spare, id).await;
            }
        };
        let describing = describe(&anchor, shape, found.as_ref(), &tree);
        let (described, ()) = tokio::join!(Box::pin(describing), Box::pin(admitting));
        let ((relation, expressions), watch) = (described?, Arc::new(watch));
        Ok(Self {
            sessions,
            watch,
            anchor,
            exported,
            locks,
            identity,
            application,
            found,
            relation,
            expressions,
            server,
        })
    }

    /// `work` while the source is watched: its locks are held already.
    ///
    /// # Errors
    /// As `work`; [`SourceFault::GaveWay`] where others need the source more.
    pub(crate) async fn watched<T, E: From<SourceError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // Planning's own future is large.
        let work = Box::pin(work);
        tokio::select! {
            result = work => result,
            error = self.watch.run() => Err(error.into()),
        }
    }
}

/// Connects the session that will take the snapshot, and one for the first reader, while the lock session is at work. One
/// that cannot be had is asked for again where it is needed.
async fn connect_others(sessions: &Sessions, work: &WorkOptions) -> (Option<Session>, Option<Session>) {
    match work.read_mode {
        ReadMode::Copy if work.readers.get() > 1 => {
            let (anchor, spare) = tokio::join!(sessions.get(), sessions.get());
            (anchor.ok(), spare.ok())
        }
        ReadMode::Copy => (sessions.get().await.ok(), None),
        ReadMode::Keyset { .. } => (None, None),
    }
}

/// Describes the server, and says what may go wrong with it.
async fn server_facts(lock: &Session, work: &WorkOptions) -> Result<ServerFacts, SourceError> {
    let server = catalog::server_facts(lock).await?;
    if server.standby {
        warn_of_conflicts(lock).await?;
    } else if work.source_limits.max_replay_lag.is_some() {
        tracing::warn!("--max-replay-lag limits nothing: the source is no standby");
    }
    Ok(server)
}

/// On a standby, replay cancels whoever sees rows that it removes; keepers, which idle, lose their session.
async fn warn_of_conflicts(lock: &Session) -> Result<(), SourceError> {
    let sql = "SELECT pg_catalog.current_setting('hot_standby_feedback') = 'on' \
        OR pg_catalog.current_setting('max_standby_streaming_delay') = '-1'";
    if lock.batch_value("asking for the standby's settings", sql).await?.as_deref() == Some("f") {
        tracing::warn!(
            "the source is a standby without hot_standby_feedback: replay may cancel the export (exit 12); \
             hot_standby_feedback = on or a longer max_standby_streaming_delay prevents that"
        );
    }
    Ok(())
}

/// How a run's sessions are called, before their role.
pub(crate) fn application(run_id: &str) -> String {
    // The tail of the id is its random part; its head is the time, which many runs share.
    let short: String = run_id.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
    format!("outhaul/{short}")
}

/// Finds the relation, locks it, and makes sure that the name still means what was locked.
async fn lock_relation(
    lock: &Session,
    shape: &ShapeOptions,
    read_mode: ReadMode,
    application: &str,
) -> Result<(Option<Found>, Locks), SourceError> {
    let RelationRequest::Table(name) = &shape.relation else {
        let locks = Locks { tables: Vec::new(), statements: statements(shape, None) };
        locks.take(lock, Waiting::Patient).await?;
        return Ok((None, locks));
    };
    for _ in 0..limits::SNAPSHOT_TRIES {
        let found = catalog::find(lock, name).await?;
        let tables = if lockable(&found) { vec![found.sql_name()] } else { Vec::new() };
        let locks = Locks { tables, statements: statements(shape, Some(&found)) };
        if read_mode == ReadMode::Copy || !locks.statements.is_empty() {
            locks.take(lock, Waiting::Patient).await?;
        }
        if catalog::find(lock, name).await?.oid == found.oid {
            return Ok((Some(found), locks));
        }
        lock.batch("starting over", "ROLLBACK").await?;
        begin(lock, Begin::Latest, &format!("{application}/locks")).await?;
    }
    Err(SourceError::new(SourceFault::SchemaChanged, format!("{name} is being replaced over and over"))
        .with_hint("another session renames or recreates the table; try again when it is done"))
}

/// Whether `LOCK TABLE` may take it, and with it all that inherits from it.
fn lockable(found: &Found) -> bool {
    matches!(found.kind, RelationKind::Table | RelationKind::PartitionedTable) && found.may_select
}

/// Statements whose planning locks what `LOCK TABLE` does not, and finds the mistakes in people's SQL.
fn statements(shape: &ShapeOptions, found: Option<&Found>) -> Vec<String> {
    let (from, alias) = match (&shape.relation, found) {
        (_, Some(found)) => (found.sql_name(), identifier(&found.name)),
        (RelationRequest::Query(text) | RelationRequest::Table(text), None) => {
            (format!("(\n{text}\n)"), QUERY_ALIAS.to_owned())
        }
    };
    let mut statements = Vec::new();
    if !found.is_some_and(lockable) {
        // With every column that is read, or a join for one of them would be planned away with its tables' partitions;
        // and without the predicate, which would plan other partitions away.
        let all = found.is_none_or(|found| found.may_select);
        let columns = match &shape.columns {
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

/// Takes a snapshot under which nothing is read but what the lock session holds, in the anchor's transaction. Also says
/// when, and what the relation consists of under it.
async fn take_snapshot(
    sessions: &Sessions,
    anchor: Option<Session>,
    lock: &Session,
    found: Option<&Found>,
    locks: &Locks,
    application: &str,
) -> Result<(Session, Instant, Vec<TreeNode>), SourceError> {
    let anchor = match anchor {
        // It idled while the lock session waited, and the server may have ended it for that.
        Some(anchor) if !anchor.client().is_closed() => anchor,
        _ => sessions.get().await?,
    };
    for _ in 0..limits::SNAPSHOT_TRIES {
        let before = held(lock).await?;
        let taken = Instant::now();
        begin(&anchor, Begin::NewSnapshot, &format!("{application}/keeper")).await?;
        let tree = match found {
            Some(found) => catalog::tree(&anchor, found.oid).await?,
            None => Vec::new(),
        };
        // What came between the locks and the snapshot is locked only now, too late for this snapshot: it may have been
        // emptied before. Behind views and queries nothing else would show it.
        locks.take(lock, Waiting::Patient).await?;
        let oids: Vec<u32> = tree.iter().map(|node| node.oid).collect();
        if held(lock).await? == before && unlocked(lock, &oids).await?.is_empty() {
            // The anchor may be the only reader, and the lock session may be lost.
            locks.take(&anchor, Waiting::Nowait).await?;
            return Ok((anchor, taken, tree));
        }
        anchor.batch("leaving a snapshot that was taken too early", "ROLLBACK").await?;
    }
    Err(SourceError::new(SourceFault::SchemaChanged, "tables are being attached faster than they can be locked")
        .with_hint("try again when the maintenance of the partitions is done"))
}

/// The relation, and the columns that expressions over it make.
async fn describe(
    anchor: &Session,
    shape: &ShapeOptions,
    found: Option<&Found>,
    tree: &[TreeNode],
) -> Result<(RelationFacts, Vec<ColumnFacts>), SourceError> {
    let relation = describe_relation(anchor, shape, found, tree).await?;
    let expressions = describe_expressions(anchor, shape, &relation).await?;
    Ok((relation, expressions))
}

async fn describe_relation(
    anchor: &Session,
    shape: &ShapeOptions,
    found: Option<&Found>,
    tree: &[TreeNode],
) -> Result<RelationFacts, SourceError> {
    if let (RelationRequest::Query(query), None) = (&shape.relation, found) {
        return Ok(RelationFacts {
            kind: RelationKind::Query,
            sql_name: query.clone(),
            alias: QUERY_ALIAS.to_owned(),
            display_name: None,
            columns: catalog::describe_statement(anchor, "describing the query", query).await?,
            leaves: Vec::new(),
            estimated_rows: None,
            unique_key: None,
            row_security: shape.allow_rls,
        });
    }
    let found = found.ok_or_else(|| SourceError::new(SourceFault::Protocol, "a table request without its table"))?;
    let columns = catalog::columns(anchor, found, tree).await?;
    if columns.is_empty() && shape.expressions.is_empty() {
        let message = format!("{} has no columns, so there is nothing to export", found.sql_name());
        return Err(SourceError::new(SourceFault::Usage, message));
    }
    Ok(RelationFacts {
        kind: found.kind,
        sql_name: found.sql_name(),
        alias: identifier(&found.name),
        display_name: Some(format!("{}.{}", found.schema, found.name)),
        columns,
        leaves: leaves(found, tree),
        estimated_rows: estimated_rows(tree),
        unique_key: catalog::unique_key(anchor, found).await?,
        // What lies behind a view is not in the tree.
        row_security: shape.allow_rls
            && (found.kind == RelationKind::View || tree.iter().any(|node| node.row_security)),
    })
}

/// The tables that may be read in the relation's place; none unless all of them may.
fn leaves(found: &Found, tree: &[TreeNode]) -> Vec<LeafFacts> {
    let stores_rows = |node: &&TreeNode| matches!(node.relkind.as_str(), "r" | "m");
    let direct =
        matches!(found.kind, RelationKind::Table | RelationKind::PartitionedTable | RelationKind::MaterializedView);
    // A virtual column read through the parent is computed the parent's way, read from the leaf the leaf's.
    let same_values = tree.len() == 1 || !tree.iter().any(|node| node.virtual_columns);
    // A leaf's own policies differ from those of the parent through which it would be read, so any of them rules the
    // direct way out; so does a foreign leaf, which cannot be read by `ONLY` and place.
    let legal = same_values
        && tree.iter().all(|node| !node.row_security && node.relkind != "f")
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
        one_value_a_row(anchor, name, text, relation).await?;
        columns.push(ColumnFacts { name: name.clone(), ..column.clone() });
    }
    Ok(columns)
}

/// Refuses aggregates, window functions and set-returning functions: their values would depend on how the rows are
/// split, and a cap would count rows that they multiply. `WHERE` is where PostgreSQL itself refuses them.
async fn one_value_a_row(
    anchor: &Session,
    name: &str,
    text: &str,
    relation: &RelationFacts,
) -> Result<(), SourceError> {
    let statement = format!("SELECT FROM {} WHERE (\n{text}\n) IS NULL", sql::relation(relation));
    let described = catalog::describe_statement(anchor, &format!("describing --column {name}"), &statement).await;
    match described {
        Ok(_) => Ok(()),
        // Grouping, windowing and a set where there can be none.
        Err(error) if matches!(error.sqlstate.as_deref(), Some("42803" | "42P20" | "0A000")) => {
            let message = format!("--column {name} has no value of its own in each row");
            let hint = "aggregates, window functions and set-returning functions need a --query of their own";
            Err(SourceError { source: error.source, ..SourceError::new(SourceFault::Usage, message).with_hint(hint) })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
