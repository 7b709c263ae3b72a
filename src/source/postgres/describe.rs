//! What planning knows of the relation, as the anchor's session sees it: its columns, its leaves, and the columns that
//! expressions over it make.

use super::catalog::{self, CatalogRelation, TreeNode};
use super::connect::Session;
use super::fixed_now;
use super::locking::QUERY_ALIAS;
use super::order::PG_CATALOG;
use super::read_facts;
use super::session::identifier;
use super::split_safety::{self, SplitSafety};
use super::sql;
use crate::base::text::relation::joined;
use crate::model::{RelationKind, RelationRequest, ScopeColumn, ShapeOptions};
use crate::source::postgres::plan::{ColumnFacts, Comparison, FixedNow, LeafFacts, ReadingFacts, RelationFacts};
use crate::source::{SourceError, SourceFault};

/// What the anchor's session knows of a request.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) relation: RelationFacts,
    /// The columns that expressions over the relation make.
    pub(super) expressions: Vec<ColumnFacts>,
    /// The shape as it is sent.
    pub(super) shape: ShapeOptions,
    pub(super) now: Option<FixedNow>,
    pub(super) split_safety: SplitSafety,
}

/// Describes the relation, and the columns that expressions over it make; says whether the rows may be split.
pub(super) async fn describe(
    anchor: &Session,
    shape: &ShapeOptions,
    found: Option<&CatalogRelation>,
    tree: &[TreeNode],
) -> Result<Described, SourceError> {
    let (shape, now) = fixed_now::fix(anchor, shape, found).await?;
    let mut relation = describe_relation(anchor, &shape, found, tree).await?;
    Box::pin(same_types(anchor, &shape, &relation)).await?;
    relation.reading = read_facts::facts(anchor, &shape, found, tree, &relation).await?;
    if relation.reading.whole_rows {
        relation.leaves.clear();
    }
    let expressions = describe_expressions(anchor, &shape, &relation).await?;
    let split_safety = split_safety::of(anchor, &shape, found, tree).await?;
    Ok(Described { relation, expressions, shape, now, split_safety })
}

/// A query is known by its columns alone.
pub(super) async fn describe_query(
    session: &Session,
    query: &str,
    row_security: bool,
) -> Result<RelationFacts, SourceError> {
    Ok(RelationFacts {
        kind: RelationKind::Query,
        sql_name: query.to_owned(),
        alias: QUERY_ALIAS.to_owned(),
        display_name: None,
        columns: catalog::describe_statement(session, "describing the query", query).await?,
        leaves: Vec::new(),
        estimated_rows: None,
        unique_key: None,
        row_security,
        reading: ReadingFacts::default(),
    })
}

async fn describe_relation(
    anchor: &Session,
    shape: &ShapeOptions,
    found: Option<&CatalogRelation>,
    tree: &[TreeNode],
) -> Result<RelationFacts, SourceError> {
    if let (RelationRequest::Query(query), None) = (&shape.relation, found) {
        return describe_query(anchor, query, shape.allow_rls).await;
    }
    let found = found.ok_or_else(|| SourceError::new(SourceFault::Protocol, "a table request without its table"))?;
    if !shape.allow_rls && tree.iter().any(|node| node.oid == found.oid && node.row_security) {
        return Err(hidden_rows(found));
    }
    // Both questions are on their way at once.
    let (columns, unique_key) = tokio::join!(catalog::columns(anchor, found, tree), catalog::unique_key(anchor, found));
    let (columns, unique_key) = (columns?, unique_key?);
    if columns.is_empty() && shape.expressions.is_empty() {
        let message = format!("{} has no columns, so there is nothing to export", found.sql_name());
        return Err(SourceError::new(SourceFault::Usage, message));
    }
    Ok(RelationFacts {
        kind: found.kind,
        sql_name: found.sql_name(),
        alias: identifier(&found.name),
        display_name: Some(joined(&found.schema, &found.name)),
        columns,
        leaves: leaves(found, tree),
        estimated_rows: estimated_rows(tree),
        unique_key,
        // What lies behind a view is not in the tree.
        row_security: shape.allow_rls
            && (found.kind == RelationKind::View || tree.iter().any(|node| node.row_security)),
        reading: ReadingFacts::default(),
    })
}

/// A relation whose policies would hide rows from the role; the server would refuse to read it.
fn hidden_rows(found: &CatalogRelation) -> SourceError {
    let message = format!("row-level security of {} hides rows from this role", found.sql_name());
    SourceError::new(SourceFault::Authentication, message).with_hint(
        "export with a role that has BYPASSRLS, or one that the policies let see everything; --allow-rls exports what this \
         role may see",
    )
}

/// The tables that may be read in the relation's place; none unless all of them may.
pub(super) fn leaves(found: &CatalogRelation, tree: &[TreeNode]) -> Vec<LeafFacts> {
    let stores_rows = |node: &&TreeNode| matches!(node.relkind.as_str(), "r" | "m");
    let direct =
        matches!(found.kind, RelationKind::Table | RelationKind::PartitionedTable | RelationKind::MaterializedView);
    // A virtual column read through the parent is computed the parent's way, read from the leaf the leaf's.
    let same_values = tree.len() == 1 || !tree.iter().any(|node| node.virtual_columns);
    // A leaf's own policies differ from those of the parent through which it would be read, so any of them rules the
    // direct way out; so does a foreign leaf, which cannot be read by `ONLY` and place.
    let legal = same_values
        && tree.iter().all(|node| !node.row_security && !node.only_hides && node.relkind != "f")
        && tree.iter().filter(stores_rows).all(|node| node.may_select);
    if direct && legal { tree.iter().filter(stores_rows).map(|node| node.facts.clone()).collect() } else { Vec::new() }
}

/// Rows by the statistics of all tables; none where one was never analysed.
pub(super) fn estimated_rows(tree: &[TreeNode]) -> Option<u64> {
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

/// A column as a scope knows it.
pub(super) fn scope_column(facts: &ColumnFacts, sql: Option<String>) -> ScopeColumn {
    let comparison = facts.comparison.as_ref();
    ScopeColumn {
        name: facts.name.clone(),
        sql,
        type_name: comparison.map_or_else(|| facts.pg_type.name.clone(), |known| known.value_type.clone()),
        operators: comparison.and_then(operators),
        holds_times: facts.pg_type.holds_times(),
    }
}

/// The schema of a type's operators; none where it is that of what is built in.
fn operators(comparison: &Comparison) -> Option<String> {
    let (schema, _) = comparison.operators.equal.rsplit_once('.')?;
    if schema == PG_CATALOG {
        return None;
    }
    let quoted = schema.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Some(quoted.map_or_else(|| schema.to_owned(), |name| name.replace("\"\"", "\"")))
}

/// Refuses rows that are chosen by types that their columns had once: days of a `date` end where those of a moment begin.
async fn same_types(anchor: &Session, shape: &ShapeOptions, relation: &RelationFacts) -> Result<(), SourceError> {
    let Some(scoped) = &shape.scoped else { return Ok(()) };
    let changed = |column: &ScopeColumn| {
        let message = format!("column {} has another type than when its rows were chosen", column.name);
        SourceError::new(SourceFault::SchemaChanged, message)
    };
    let same = |column: &ScopeColumn, facts: &ColumnFacts| {
        let now = scope_column(facts, None);
        (now.type_name, now.operators) == (column.type_name.clone(), column.operators.clone())
    };
    let made: Vec<(&ScopeColumn, &String)> =
        scoped.columns.iter().filter_map(|column| Some((column, column.sql.as_ref()?))).collect();
    for column in scoped.columns.iter().filter(|column| column.sql.is_none()) {
        let facts = relation.columns.iter().find(|facts| facts.name == column.name);
        facts.filter(|facts| same(column, facts)).ok_or_else(|| changed(column))?;
    }
    if made.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = made.iter().enumerate().map(|(nth, (_, text))| format!("(\n{text}\n) AS e{nth}")).collect();
    let statement = format!("SELECT {} FROM {}", list.join(", "), sql::relation(relation));
    let described = catalog::describe_statement(anchor, "describing the columns of a filter", &statement).await?;
    let other = made.iter().zip(&described).find(|((column, _), facts)| !same(column, facts));
    other.map_or(Ok(()), |((column, _), _)| Err(changed(column)))
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
        Err(error) if matches!(error.code.as_deref(), Some("42803" | "42P20" | "0A000")) => {
            let message = format!("--column {name} has no value of its own in each row");
            let hint = "aggregates, window functions and set-returning functions need a --query of their own";
            Err(SourceError { source: error.source, ..SourceError::new(SourceFault::Usage, message).with_hint(hint) })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
