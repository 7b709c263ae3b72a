//! Counts rows again, for `verify --against-source`: one read-only session, under a run's own snapshot where somebody
//! still holds it, else under one of its own.

use std::sync::Arc;

use super::catalog::{self, query, value};
use super::closed::closed;
use super::connect::{Connector, Session, Sessions};
use super::describe::describe_query;
use super::leaves::{groups, release};
use super::session::{Begin, begin, identifier};
use super::settings::ConnectSettings;
use super::split_safety::{self, SplitSafety};
use super::{snapshot, sql, statement};
use crate::model::{Plan, ReadingFacts, RelationFacts, RelationRequest, ShapeOptions, Slice};
use crate::plan::locks::STATEMENT_LEAVES_MAX;
use crate::source::{SourceError, SourceFault};
use tokio_postgres::types::Type;

/// What is counted, as a manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted<'a> {
    /// `schema.relation`, unquoted.
    Relation(&'a str),
    /// The text of a query.
    Query(&'a str),
}

/// A snapshot that a run exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported<'a> {
    /// Its id.
    pub id: &'a str,
    /// The oldest transaction that was running when it was taken: after a restart another snapshot may have its id.
    pub xmin: Option<&'a str>,
}

/// A session that counts, all in one transaction.
#[derive(Debug)]
pub struct Recount {
    session: Session,
    /// The relation as it is seen; every table that stores rows of it is a leaf.
    pub relation: RelationFacts,
    /// What the catalog has of it, and the tables behind it; a query has neither.
    found: Option<catalog::Found>,
    tree: Vec<catalog::TreeNode>,
    row_security: bool,
    /// Whether all of it is counted leaf by leaf: there are many, and each may be read as it is.
    leaf_by_leaf: bool,
    /// The id of the run's snapshot, where the session is under it.
    pub snapshot: Option<String>,
}

impl Recount {
    /// Connects, imports the first of `snapshots` that still is one, and describes the relation. `row_security` is
    /// whether the run allowed policies to hide rows.
    ///
    /// # Errors
    /// See [`SourceFault`]; [`SourceFault::SchemaChanged`] where the relation is gone.
    ///
    /// # Cancel safety
    /// Dropping the future closes the session, and the server ends what it runs.
    pub async fn begin(
        connect: &ConnectSettings,
        counted: Counted<'_>,
        snapshots: &[Exported<'_>],
        row_security: bool,
        application: &str,
    ) -> Result<Self, SourceError> {
        let connector = Arc::new(Connector::new(connect.clone(), row_security)?);
        let session = Sessions::new(connector, application, 1)?.get().await?;
        let mut imported = None;
        for exported in snapshots {
            if import(&session, exported, application).await? {
                imported = Some(exported.id.to_owned());
                break;
            }
            session.batch("leaving a failed transaction", "ROLLBACK").await?;
        }
        if imported.is_none() {
            begin(&session, Begin::NewSnapshot, application).await?;
        }
        let (found, tree) = look_up(&session, counted).await?;
        let relation = match (counted, &found) {
            (Counted::Query(text), _) => describe_query(&session, text, row_security).await?,
            (Counted::Relation(name), Some(found)) => describe(&session, name, found, &tree, row_security).await?,
            (Counted::Relation(name), None) => return Err(unknown(name)),
        };
        let plain = |node: &catalog::TreeNode| {
            matches!(node.relkind.as_str(), "r" | "p") && node.may_select && !node.row_security && !node.virtual_columns
        };
        let leaf_by_leaf = tree.len() > STATEMENT_LEAVES_MAX && tree.iter().all(plain);
        Ok(Self { session, relation, found, tree, row_security, leaf_by_leaf, snapshot: imported })
    }

    /// Whether a statement that counts the rows of `plan` sees those that the run saw. The plan's relation is this one's.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub(crate) async fn safety(&self, plan: &Plan) -> Result<SplitSafety, SourceError> {
        // Described, it has locked what it names.
        let statement = sql::count(plan, &Slice::Whole, None);
        statement::describe(&self.session, "looking at the statement that counts the rows", &statement).await?;
        let shape = ShapeOptions {
            relation: match &self.found {
                Some(found) => RelationRequest::Table(found.sql_name()),
                None => RelationRequest::Query(plan.relation.sql_name.clone()),
            },
            columns: None,
            expressions: Vec::new(),
            renames: Vec::new(),
            predicate: plan.predicate.clone(),
            key: None,
            allow_rls: self.row_security,
        };
        split_safety::of(&self.session, &shape, self.found.as_ref(), &self.tree).await
    }

    /// How many rows a slice of `plan` has, counted no further than `limit`. The plan's relation is this one's.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn count(&self, plan: &Plan, slice: &Slice, limit: Option<u64>) -> Result<u64, SourceError> {
        let range = match slice {
            Slice::Leaves { from, to } => *from..*to,
            Slice::Whole if self.leaf_by_leaf => 0..plan.relation.leaves.len(),
            _ => return self.count_slice(plan, slice, limit).await,
        };
        let mut sum = 0_u64;
        for group in groups(&plan.relation.leaves, range, 1, None) {
            // The locks of a group go with its savepoint: all of them together could fill the server's lock table.
            self.session.batch("counting rows", "SAVEPOINT outhaul_leaves").await?;
            let group = Slice::Leaves { from: group.start, to: group.end };
            let left = limit.map(|limit| limit.saturating_sub(sum));
            sum = sum.saturating_add(self.count_slice(plan, &group, left).await?);
            release(&self.session).await?;
            if limit.is_some_and(|limit| sum >= limit) {
                break;
            }
        }
        Ok(sum)
    }

    async fn count_slice(&self, plan: &Plan, slice: &Slice, limit: Option<u64>) -> Result<u64, SourceError> {
        let statement = sql::count(plan, slice, limit);
        let rows = query(&self.session, "counting rows", &statement, &[]).await?;
        let count: Option<i64> = rows.first().map(|row| value(row, 0)).transpose()?;
        let count = count.and_then(|count| u64::try_from(count).ok());
        count.ok_or_else(|| SourceError::new(SourceFault::Protocol, "no count came back"))
    }
}

/// False where the snapshot is gone, or is another run's by now.
async fn import(session: &Session, exported: &Exported<'_>, application: &str) -> Result<bool, SourceError> {
    match begin(session, Begin::Import(exported.id), application).await {
        Ok(()) => {
            let facts = snapshot::facts(session, None).await?;
            Ok(exported.xmin.is_none_or(|xmin| facts.xmin.as_deref() == Some(xmin)))
        }
        Err(error) if error.fault == SourceFault::SnapshotLost => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the catalog has of the relation, and the tables behind it.
async fn look_up(
    session: &Session,
    counted: Counted<'_>,
) -> Result<(Option<catalog::Found>, Vec<catalog::TreeNode>), SourceError> {
    let Counted::Relation(name) = counted else { return Ok((None, Vec::new())) };
    let mut found = catalog::find(session, &quoted(session, name).await?).await?;
    let tree = catalog::tree(session, found.oid).await?;
    found.tables = tree.len();
    Ok((Some(found), tree))
}

async fn describe(
    session: &Session,
    name: &str,
    found: &catalog::Found,
    tree: &[catalog::TreeNode],
    row_security: bool,
) -> Result<RelationFacts, SourceError> {
    let stores_rows = |node: &&catalog::TreeNode| matches!(node.relkind.as_str(), "r" | "m");
    Ok(RelationFacts {
        kind: found.kind,
        sql_name: found.sql_name(),
        alias: identifier(&found.name),
        display_name: Some(name.to_owned()),
        columns: catalog::columns(session, found, tree).await?,
        leaves: tree.iter().filter(stores_rows).map(|node| node.facts.clone()).collect(),
        estimated_rows: None,
        unique_key: None,
        row_security,
        reading: ReadingFacts::default(),
    })
}

fn unknown(name: &str) -> SourceError {
    SourceError::new(SourceFault::SchemaChanged, format!("{name} is not in this database"))
        .with_hint("it was dropped or renamed since the export, or --from names another database")
}

/// The relation that a manifest names. Dots in names make two of them possible.
async fn quoted(session: &Session, name: &str) -> Result<String, SourceError> {
    let sql = closed(
        "SELECT n.nspname::text, c.relname::text \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind = ANY ('{r,p,v,m,f}') AND (n.nspname::text || '.' || c.relname::text) = $1",
    );
    let rows = query(session, &format!("looking up {name}"), &sql, &[(&name, Type::TEXT)]).await?;
    match rows.as_slice() {
        [row] => Ok(format!("{}.{}", identifier(value(row, 0)?), identifier(value(row, 1)?))),
        [] => Err(unknown(name)),
        _ => Err(SourceError::new(SourceFault::Usage, format!("{name} is the name of more than one relation"))
            .with_hint("dots in a schema's or a table's name make it ambiguous")),
    }
}
