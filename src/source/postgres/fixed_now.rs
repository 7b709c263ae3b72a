//! One moment for `now()` and its kin in what a person wrote. Each session has its own, which nobody can set, so the
//! text is sent with literals of the moment at which the transaction began that took the snapshot.

use chrono::DateTime;
use tokio_postgres::types::Type;

use super::catalog::{CatalogRelation, query, value};
use super::closed::closed;
use super::connect::Session;
use super::locking::source_and_alias;
use super::statement::{self, OutputColumn};
use crate::base::failpoint;
use crate::model::{RelationRequest, ShapeOptions};
use crate::source::postgres::plan::FixedNow;
use crate::source::postgres::plan::clocks::{self, Clocks};
use crate::source::{SourceError, SourceFault};

/// The shape with literals in place of its clocks, and their moment; the shape as it is where it has none, and where one
/// of them cannot be replaced: they are to agree with each other, so that all are left to a single statement then.
pub(super) async fn fix(
    session: &Session,
    shape: &ShapeOptions,
    found: Option<&CatalogRelation>,
) -> Result<(ShapeOptions, Option<FixedNow>), SourceError> {
    let unchanged = || (shape.clone(), None);
    let clocks = clocks(shape);
    let fit = clocks.iter().all(|clocks| clocks.is_empty() || clocks.can_be_fixed());
    if failpoint::off("clocks") || !fit || clocks.iter().all(Clocks::is_empty) {
        return Ok(unchanged());
    }
    let bare: Vec<&str> = clocks.iter().flat_map(Clocks::by_path).collect();
    let sql = "SELECT (extract(epoch FROM pg_catalog.now()) * 1000000)::int8, \
        EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n \
                ON n.oid = p.pronamespace \
            WHERE p.proname::text = ANY ($1) \
                AND pg_catalog.array_position(pg_catalog.current_schemas(true), n.nspname) < \
                    pg_catalog.array_position(pg_catalog.current_schemas(true), 'pg_catalog'::name))";
    let rows = query(session, "asking for the time", &closed(sql), &[(&bare, Type::TEXT_ARRAY)]).await?;
    let unknown = || SourceError::new(SourceFault::Protocol, "the server does not know the time");
    let row = rows.first().ok_or_else(unknown)?;
    let at = DateTime::from_timestamp_micros(value(row, 0)?).ok_or_else(unknown)?;
    if value(row, 1)? {
        return Ok(unchanged());
    }
    let mut fixed = shape.clone();
    let mut now = FixedNow { at, query: None, predicate: shape.predicate.clone() };
    if let RelationRequest::Query(text) = &mut fixed.relation {
        now.query = Some(std::mem::replace(text, clocks::fix(text, at)));
    }
    if let Some(text) = &mut fixed.predicate {
        *text = clocks::fix(text, at);
    }
    let operators = fixed.scoped.iter_mut().flat_map(|scoped| &mut scoped.texts);
    for text in fixed.expressions.iter_mut().map(|(_, text)| text).chain(operators) {
        *text = clocks::fix(text, at);
    }
    let written = columns(session, &probe(shape, found)).await?;
    let same = written.is_some() && written == columns(session, &probe(&fixed, found)).await?;
    Ok(if same { (fixed, Some(now)) } else { unchanged() })
}

/// The clocks in all that a person wrote; what stands in quotes in a predicate of ours is a value of a caller.
fn clocks(shape: &ShapeOptions) -> Vec<Clocks> {
    let Some(scoped) = &shape.scoped else { return texts(shape).map(Clocks::of).collect() };
    let others = ShapeOptions { predicate: None, ..shape.clone() };
    texts(&others).chain(scoped.texts.iter().map(String::as_str)).map(Clocks::of).collect()
}

/// All that a person wrote.
pub(super) fn texts(shape: &ShapeOptions) -> impl Iterator<Item = &str> {
    let query = match &shape.relation {
        RelationRequest::Query(text) => Some(text.as_str()),
        RelationRequest::Table(_) => None,
    };
    let expressions = shape.expressions.iter().map(|(_, text)| text.as_str());
    query.into_iter().chain(shape.predicate.as_deref()).chain(expressions)
}

/// A statement with all that a person wrote in it.
fn probe(shape: &ShapeOptions, found: Option<&CatalogRelation>) -> String {
    // Under names of ours: theirs are not taken from the text.
    let expressions =
        (0..).zip(&shape.expressions).map(|(nth, (_, text)): (usize, _)| format!("(\n{text}\n) AS e{nth}"));
    let (from, alias) = source_and_alias(shape, found);
    let all = found.is_none().then(|| format!("{alias}.*"));
    let list: Vec<String> = all.into_iter().chain(expressions).collect();
    let filter = shape.predicate.as_ref().map_or(String::new(), |text| format!(" WHERE (\n{text}\n)"));
    format!("SELECT {} FROM {from} AS {alias}{filter}", list.join(", "))
}

/// Name, type and modifier of each column that a statement returns; `None` where the server refuses the statement.
async fn columns(session: &Session, statement: &str) -> Result<Option<Vec<(String, u32, i32)>>, SourceError> {
    const ACTION: &str = "setting the clocks in the statement";
    session.batch(ACTION, "SAVEPOINT outhaul_clocks").await?;
    let described = statement::describe(session, ACTION, statement).await;
    // A server that is lost shows here.
    let end = if described.is_ok() { "" } else { "ROLLBACK TO SAVEPOINT outhaul_clocks; " };
    session.batch(ACTION, &format!("{end}RELEASE SAVEPOINT outhaul_clocks")).await?;
    let facts = |column: OutputColumn| (column.name, column.type_oid, column.typmod);
    Ok(described.ok().map(|columns| columns.into_iter().map(facts).collect()))
}
