//! How many rows the server expects of a statement, for people who wait: from `EXPLAIN`, which executes nothing.

use super::catalog::{query, value};
use super::prepare::Planning;
use super::sql;
use crate::model::{ReadMode, RelationKind};
use crate::source::SourceError;

/// Where the plan's rows stand in the first line of `EXPLAIN`.
const ROWS: &str = " rows=";

/// An estimate is worth no waiting for locks, and no long planning.
pub(super) const BOUNDS: &str = "SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '5s'";

/// The rows that the request asks for, where the statistics of its tables do not tell them: of a query, a view, or under a
/// predicate. `None` where nobody can say.
///
/// # Errors
/// The session is lost.
///
/// # Cancel safety
/// Dropped, it leaves the session in a subtransaction.
pub(super) async fn estimated_rows(planning: &Planning, read_mode: ReadMode) -> Result<Option<u64>, SourceError> {
    let (facts, shape) = (&planning.relation, &planning.shape);
    let by_statistics = !matches!(facts.kind, RelationKind::Query | RelationKind::View);
    if by_statistics && shape.predicate.is_none() {
        return Ok(facts.estimated_rows);
    }
    // Pages have no transaction to go back in; a foreign server would be asked too; locks may not suffice for all leaves.
    if read_mode != ReadMode::Copy || planning.checks_leaves() || !facts.reading.foreign.is_empty() {
        return Ok(None);
    }
    let predicate = shape.predicate.as_ref().map_or(String::new(), |predicate| format!(" WHERE (\n{predicate}\n)"));
    let statement = format!("EXPLAIN SELECT FROM {}{predicate}", sql::relation(facts));
    let anchor = &planning.anchor;
    anchor.batch("estimating the rows", &format!("SAVEPOINT estimate; {BOUNDS}")).await?;
    let explained = query(anchor, "estimating the rows", &statement, &[]).await;
    // Back in any case, which also gives up the locks of the indexes.
    anchor.batch("estimating the rows", "ROLLBACK TO SAVEPOINT estimate; RELEASE SAVEPOINT estimate").await?;
    let first = explained.ok().and_then(|rows| rows.into_iter().next());
    Ok(first.and_then(|row| rows_of(value(&row, 0).ok()?)))
}

/// `Seq Scan on t  (cost=0.00..35.50 rows=2550 width=4)`.
pub(super) fn rows_of(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once(ROWS)?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_those_of_the_whole_plan() {
        assert_eq!(rows_of("Seq Scan on t  (cost=0.00..35.50 rows=2550 width=4)"), Some(2550));
        assert_eq!(rows_of("Seq Scan on \" rows=7 \"  (cost=0.00..35.50 rows=1 width=0)"), Some(1));
        assert_eq!(rows_of("nothing"), None);
    }
}
