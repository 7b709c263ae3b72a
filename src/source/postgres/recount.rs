//! Counts rows again, for `verify --against-source`: one read-only session, under a run's own snapshot where somebody
//! still holds it, else under one of its own.

use std::ops::Bound;

use tokio_postgres::types::{ToSql, Type};

use super::catalog::{self, query, value};
use super::closed::closed;
use super::connect::{Session, Sessions};
use super::describe::describe_query;
use super::leaves::{groups, release};
use super::plan::locks::STATEMENT_LEAVES_MAX;
use super::plan::{
    LockUse, PgKeyColumn, PgPlan, ReadingFacts, RelationFacts, Slice, check_predicate, check_query, clocks,
};
use super::prepare::application;
use super::session::{Begin, begin, identifier};
use super::split_safety::{self, SplitSafety};
use super::{snapshot, sql, statement};
use crate::base::postgres::settings::ConnectSettings;
use crate::base::text::relation::apart;
use crate::model::{CapPlan, ErrorCode, KeyRange, PartRange, RelationRequest, ShapeOptions, SnapshotRecord};
use crate::source::{RecountRequest, Recounted, SourceError, SourceFault};

/// What is counted, as a manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted<'a> {
    /// `schema.relation`, unquoted.
    Relation(&'a str),
    /// The text of a query.
    Query(&'a str),
}

/// Counts the rows of a manifest again.
///
/// # Errors
/// [`SourceFault::SchemaChanged`] where the relation, one of its tables or a column of the export is gone;
/// [`SourceFault::Usage`] where the rows are chosen anew each time, so that no count says anything of those that were
/// exported.
///
/// # Cancel safety
/// It only reads.
pub(super) async fn recount(connect: &ConnectSettings, request: &RecountRequest) -> Result<Recounted, SourceError> {
    if let Some(predicate) = &request.predicate {
        check_predicate(predicate)?;
    }
    let query;
    let counted = match &request.relation {
        RelationRequest::Table(name) => Counted::Relation(name),
        RelationRequest::Query(text) => {
            query = as_sent(&check_query(text)?, request);
            Counted::Query(&query)
        }
    };
    let application = format!("{}/verify", application(&request.run_id));
    let recount = Recount::begin(connect, counted, &request.snapshots, request.allow_rls, &application).await?;
    let plan = plan(request, &recount.relation)?;
    let safety = recount.safety(&plan).await?;
    if let Some(why) = safety.row_set_varies {
        let message = format!("the rows of this export are chosen anew each time, and cannot be counted again: {why}");
        return Err(SourceError::new(SourceFault::Usage, message).with_hint("verify it without --against-source"));
    }
    let rows = recount.count(&plan, &Slice::Whole, request.up_to).await?;
    let mut ranges = Vec::with_capacity(request.ranges.len());
    for range in &request.ranges {
        ranges.push(match slice(range, recount.snapshot.is_some(), &plan.relation, request.ranges.len())? {
            Some(slice) => Some(recount.count(&plan, &slice, None).await?),
            None => None,
        });
    }
    Ok(Recounted { snapshot: recount.snapshot.clone(), rows, ranges, note: safety.one_statement })
}

/// What a person wrote, with the run's moment in place of its clocks.
fn as_sent(text: &str, request: &RecountRequest) -> String {
    request.now.map_or_else(|| text.to_owned(), |now| clocks::fix(text, now))
}

/// A session that counts, all in one transaction.
#[derive(Debug)]
struct Recount {
    session: Session,
    /// The relation as it is seen; every table that stores rows of it is a leaf.
    relation: RelationFacts,
    /// What the catalog has of it, and the tables behind it; a query has neither.
    found: Option<catalog::CatalogRelation>,
    tree: Vec<catalog::TreeNode>,
    row_security: bool,
    /// Whether all of it is counted leaf by leaf: there are many, and each may be read as it is.
    leaf_by_leaf: bool,
    /// The id of the run's snapshot, where the session is under it.
    snapshot: Option<String>,
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
    async fn begin(
        connect: &ConnectSettings,
        counted: Counted<'_>,
        snapshots: &[SnapshotRecord],
        row_security: bool,
        application: &str,
    ) -> Result<Self, SourceError> {
        let session = Sessions::new(connect.clone(), row_security, application, 1)?.get().await?;
        let mut imported = None;
        for exported in snapshots {
            let Some(id) = &exported.id else { continue };
            if import(&session, id, exported.xmin.as_deref(), application).await? {
                imported = Some(id.clone());
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
            let is_read = matches!(node.relkind.as_str(), "r" | "p") && node.may_select && !node.row_security;
            is_read && !node.virtual_columns && !node.only_hides
        };
        let leaf_by_leaf = tree.len() > STATEMENT_LEAVES_MAX && tree.iter().all(plain);
        Ok(Self { session, relation, found, tree, row_security, leaf_by_leaf, snapshot: imported })
    }

    /// Whether a statement that counts the rows of `plan` sees those that the run saw. The plan's relation is this one's.
    ///
    /// # Errors
    /// The server refused or was lost.
    async fn safety(&self, plan: &PgPlan) -> Result<SplitSafety, SourceError> {
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
            scoped: None,
        };
        split_safety::of(&self.session, &shape, self.found.as_ref(), &self.tree).await
    }

    /// How many rows a slice of `plan` has, counted no further than `limit`. The plan's relation is this one's.
    ///
    /// # Errors
    /// The server refused or was lost.
    async fn count(&self, plan: &PgPlan, slice: &Slice, limit: Option<u64>) -> Result<u64, SourceError> {
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

    async fn count_slice(&self, plan: &PgPlan, slice: &Slice, limit: Option<u64>) -> Result<u64, SourceError> {
        let statement = sql::count(plan, slice, limit);
        let rows = query(&self.session, "counting rows", &statement, &[]).await?;
        let count: Option<i64> = rows.first().map(|row| value(row, 0)).transpose()?;
        let count = count.and_then(|count| u64::try_from(count).ok());
        count.ok_or_else(|| SourceError::new(SourceFault::Protocol, "no count came back"))
    }
}

/// False where the snapshot is gone, or is another run's by now.
async fn import(session: &Session, id: &str, xmin: Option<&str>, application: &str) -> Result<bool, SourceError> {
    match begin(session, Begin::Import(id), application).await {
        Ok(()) => {
            let facts = snapshot::facts(session, None).await?;
            // After a restart another snapshot may have its id.
            Ok(xmin.is_none_or(|xmin| facts.xmin.as_deref() == Some(xmin)))
        }
        Err(error) if error.fault == SourceFault::SnapshotLost => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the catalog has of the relation, and the tables behind it.
async fn look_up(
    session: &Session,
    counted: Counted<'_>,
) -> Result<(Option<catalog::CatalogRelation>, Vec<catalog::TreeNode>), SourceError> {
    let Counted::Relation(name) = counted else { return Ok((None, Vec::new())) };
    let mut found = catalog::find(session, &quoted(session, name).await?).await?;
    let tree = catalog::tree(session, found.oid).await?;
    found.tables = tree.len();
    Ok((Some(found), tree))
}

async fn describe(
    session: &Session,
    name: &str,
    found: &catalog::CatalogRelation,
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

/// The slice to count for a partition; `None` where it is all of the export, where its bounds are not shown or of a kind
/// that this version does not know, and where rows may have moved in the heap.
fn slice(
    range: &PartRange,
    in_snapshot: bool,
    relation: &RelationFacts,
    shares: usize,
) -> Result<Option<Slice>, SourceError> {
    Ok(match (range, in_snapshot) {
        // Its bytes are not in the manifest.
        (PartRange::Keys(range), _) if holds_no_characters(range) => None,
        (PartRange::Keys(range), _) => Some(Slice::Keys(range.clone())),
        (PartRange::NullKeys, _) => Some(Slice::NullKeys),
        (PartRange::Heap { leaf: name, from, to }, true) => {
            // The name goes into SQL as it is: only one that the catalog has itself.
            let leaf = relation.leaves.iter().position(|leaf| leaf.sql_name == *name);
            let leaf = leaf.ok_or_else(|| gone(&format!("table {name}"), relation))?;
            Some(Slice::Heap { leaf, from: *from, to: *to })
        }
        (PartRange::Leaves { first, last, tables }, true) => {
            let place = |name: &str| relation.leaves.iter().position(|leaf| leaf.sql_name == *name);
            let from = place(first).ok_or_else(|| gone(&format!("table {first}"), relation))?;
            let last = place(last).ok_or_else(|| gone(&format!("table {last}"), relation))?;
            let to = last.saturating_add(1);
            // A table that has come between them is not seen under the run's snapshot.
            let same =
                to.checked_sub(from).is_some_and(|count| u64::try_from(count).is_ok_and(|count| count == *tables));
            if !same {
                return Err(gone(&format!("one of the tables from {first} on"), relation));
            }
            Some(Slice::Leaves { from, to })
        }
        // It would be counted by its row limit, as the whole was.
        (PartRange::Whole, true) if shares > 1 => Some(Slice::Whole),
        (
            PartRange::Whole
            | PartRange::KeysWithheld
            | PartRange::Heap { .. }
            | PartRange::Leaves { .. }
            | PartRange::Other(_),
            _,
        ) => None,
    })
}

/// As much of the run's plan as counting needs.
fn plan(request: &RecountRequest, relation: &RelationFacts) -> Result<PgPlan, SourceError> {
    let names = relation.column_aliases();
    let column = |name: &str| {
        let place = names.iter().position(|alias| *alias == *name);
        place.and_then(|place| relation.columns.get(place)).ok_or_else(|| gone(&format!("column {name:?}"), relation))
    };
    for name in &request.columns {
        column(name)?;
    }
    let key = request.key.iter().map(|(name, direction)| {
        let facts = column(name)?;
        let comparison = facts.comparison.clone();
        Ok(PgKeyColumn {
            name: name.clone(),
            pg_type: facts.pg_type.clone(),
            direction: *direction,
            nullable: !facts.not_null,
            // It had an order when it was the key: another type has come in its place.
            comparison: comparison.ok_or_else(|| gone(&format!("the order of column {name:?}"), relation))?,
        })
    });
    let key = key.collect::<Result<_, SourceError>>()?;
    Ok(PgPlan {
        relation: relation.clone(),
        predicate: request.predicate.as_ref().map(|text| as_sent(text, request)),
        now: None,
        one_statement: None,
        columns: Vec::new(),
        key,
        locks: LockUse::default(),
        watermark: None,
        delta: None,
        row_key: Vec::new(),
        cap: CapPlan::none(),
        together: Vec::new(),
        partitions: Vec::new(),
    })
}

/// Whether a bound had bytes that are no characters, in whose place the manifest has another one.
fn holds_no_characters(range: &KeyRange) -> bool {
    let bounds = [&range.lower, &range.upper].into_iter().filter_map(|bound| match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    });
    bounds.flatten().flatten().any(|value| value.contains('\u{fffd}'))
}

fn gone(what: &str, relation: &RelationFacts) -> SourceError {
    let name = relation.display_name.as_deref().unwrap_or("the query");
    SourceError::new(SourceFault::SchemaChanged, format!("{what} of the export is no longer in {name}"))
        .with_hint("it was dropped or renamed since the export, so its rows cannot be counted again")
}

fn unknown(name: &str) -> SourceError {
    SourceError::new(SourceFault::Missing, format!("{name} is not in this database"))
        .with_reason(ErrorCode::RelationMissing)
        .with_hint("it was dropped or renamed since the export, or --from names another database")
}

/// The relation that a manifest names. Dots in names make two of them possible where an earlier version wrote no quotes.
async fn quoted(session: &Session, name: &str) -> Result<String, SourceError> {
    let sql = closed(
        "SELECT n.nspname::text, c.relname::text \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind = ANY ('{r,p,v,m,f}') \
            AND (((n.nspname::text || '.' || c.relname::text) = $1) OR ((n.nspname::text = $2) AND (c.relname::text = $3)))",
    );
    let (schema, relation) = apart(name);
    let names: [&(dyn ToSql + Sync); 3] = [&name, &schema, &relation];
    let names = names.map(|name| (name, Type::TEXT));
    let rows = query(session, &format!("looking up {name}"), &sql, &names).await?;
    match rows.as_slice() {
        [row] => Ok(format!("{}.{}", identifier(value(row, 0)?), identifier(value(row, 1)?))),
        [] => Err(unknown(name)),
        _ => Err(SourceError::new(SourceFault::Usage, format!("{name} is the name of more than one relation"))
            .with_hint("dots in a schema's or a table's name make it ambiguous")),
    }
}
