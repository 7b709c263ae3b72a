//! The conditions of a range of keys. Operators and types in them are those that planning read from the catalog, with
//! their schema.

use std::ops::Bound;

use super::super::session::{identifier, literal};
use crate::base::text::key;
use crate::model::{Direction, KeyRange, KeyValue};
use crate::source::postgres::plan::{Comparison, PgKeyColumn};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// Rows strictly after the value.
    After,
    /// The value's own rows and those after it.
    From,
    /// The value's own rows and those before it.
    UpTo,
    /// Rows strictly before the value.
    Before,
}

/// The conditions of a range. An open upper end takes the NULL keys in, since NULLs are last.
pub(super) fn key_range(key: &[PgKeyColumn], range: &KeyRange) -> Vec<String> {
    let upper = match &range.upper {
        Bound::Unbounded => None,
        Bound::Included(value) => Some((value, Edge::UpTo)),
        Bound::Excluded(value) => Some((value, Edge::Before)),
    };
    let lower = match &range.lower {
        Bound::Unbounded => None,
        Bound::Included(value) => Some((value, Edge::From)),
        Bound::Excluded(value) => Some((value, Edge::After)),
    };
    // Where the upper end keeps NULLs out already, the lower one need not let them in, and an index can serve it.
    let leading_nulls_out = upper.is_some_and(|(value, edge)| match value.first() {
        Some(Some(_)) => true,
        Some(None) => edge == Edge::Before && value.len() == 1,
        None => false,
    });
    let lower = lower.map(|(value, edge)| match (key, value.as_slice()) {
        ([column, ..], [Some(text)]) if leading_nulls_out => compared(column, operator(column, edge), text),
        _ => beyond(key, value, edge),
    });
    lower.into_iter().chain(upper.map(|(value, edge)| beyond(key, value, edge))).collect()
}

/// Rows on one side of a key value, in the key's own order with NULLs last.
pub(super) fn beyond(key: &[PgKeyColumn], value: &KeyValue, edge: Edge) -> String {
    let columns: Vec<(&PgKeyColumn, Option<&str>)> =
        key.iter().zip(value).map(|(column, value)| (column, value.as_deref())).collect();
    if let Some(condition) = row_comparison(&columns, edge) {
        return condition;
    }
    lexicographic(&columns, edge)
}

/// The operator, with its schema, that holds between a column and a value for rows on one side of the value.
fn operator(column: &PgKeyColumn, edge: Edge) -> &str {
    let (strict, after) = match edge {
        Edge::After => (true, true),
        Edge::From => (false, true),
        Edge::UpTo => (false, false),
        Edge::Before => (true, false),
    };
    let operators = &column.comparison.operators;
    match (after == (column.direction == Direction::Asc), strict) {
        (true, true) => &operators.greater,
        (true, false) => &operators.greater_or_equal,
        (false, true) => &operators.less,
        (false, false) => &operators.less_or_equal,
    }
}

/// A column as its operators read it.
fn operand(column: &PgKeyColumn) -> String {
    let name = identifier(&column.name);
    match &column.comparison.read_as {
        None => name,
        Some(input) => format!("{name}::{input}"),
    }
}

/// A value of a column as its operators read it.
fn typed(column: &PgKeyColumn, value: &str) -> String {
    let Comparison { value_type, read_as, .. } = &column.comparison;
    let value = format!("{}::{value_type}", key::literal(value).unwrap_or_else(|| literal(value)));
    match read_as {
        Some(input) if input != value_type => format!("{value}::{input}"),
        _ => value,
    }
}

/// `name < value`, by an operator that the type's order rests on.
pub(super) fn compared(column: &PgKeyColumn, operator: &str, value: &str) -> String {
    format!("{} OPERATOR({operator}) {}", operand(column), typed(column, value))
}

/// `IS NULL`, but for a composite value whose fields are NULL, which is a value like any other. Beside a plain `NULL` the
/// server looks for no operator (`transformAExprDistinct`).
pub(super) fn null(column: &PgKeyColumn) -> String {
    format!("{} IS NOT DISTINCT FROM NULL", identifier(&column.name))
}

pub(super) fn not_null(column: &PgKeyColumn) -> String {
    format!("{} IS DISTINCT FROM NULL", identifier(&column.name))
}

/// `a > 1`, or `(a, b) > (1, 2)`, which an index serves as one range; only where no NULL and one direction are involved.
fn row_comparison(columns: &[(&PgKeyColumn, Option<&str>)], edge: Edge) -> Option<String> {
    let (first, _) = columns.first()?;
    let mut values = Vec::with_capacity(columns.len());
    for (column, value) in columns {
        // A lone column's NULLs fall out of every comparison, as they must: NULLs are last, or a partition of their own.
        let nulls_matter = column.nullable && (columns.len() > 1 || matches!(edge, Edge::After | Edge::From));
        // One operator stands for all columns.
        let other_operator = operator(column, edge) != operator(first, edge);
        if column.direction != first.direction || nulls_matter || other_operator {
            return None;
        }
        values.push((*value)?);
    }
    let operator = operator(first, edge);
    if let [value] = values.as_slice() {
        return Some(compared(first, operator, value));
    }
    let names: Vec<String> = columns.iter().map(|(column, _)| operand(column)).collect();
    let values: Vec<String> = columns.iter().zip(values).map(|((column, _), value)| typed(column, value)).collect();
    Some(format!("({}) OPERATOR({operator}) ({})", names.join(", "), values.join(", ")))
}

/// The same as alternatives, column by column: `a > 1 OR (a = 1 AND b < 2)`, NULLs last in each.
fn lexicographic(columns: &[(&PgKeyColumn, Option<&str>)], edge: Edge) -> String {
    let (strict, inclusive) = match edge {
        Edge::After => (Edge::After, false),
        Edge::From => (Edge::After, true),
        Edge::UpTo => (Edge::Before, true),
        Edge::Before => (Edge::Before, false),
    };
    let mut equal: Vec<String> = Vec::new();
    let mut alternatives: Vec<String> = Vec::new();
    for (column, value) in columns {
        let side = match (strict, value) {
            (Edge::After, None) => None,
            (Edge::After, Some(value)) => {
                let comparison = compared(column, operator(column, strict), value);
                Some(if column.nullable { format!("({comparison} OR {})", null(column)) } else { comparison })
            }
            (_, None) => Some(not_null(column)),
            (_, Some(value)) => Some(compared(column, operator(column, strict), value)),
        };
        if let Some(side) = side {
            let mut all = equal.clone();
            all.push(side);
            alternatives.push(format!("({})", all.join(" AND ")));
        }
        equal.push(
            value.map_or_else(|| null(column), |value| compared(column, &column.comparison.operators.equal, value)),
        );
    }
    if inclusive {
        alternatives.push(format!("({})", equal.join(" AND ")));
    }
    if alternatives.is_empty() {
        return "false".to_owned();
    }
    let condition = format!("({})", alternatives.join(" OR "));
    // Redundant, but an index can serve it where the alternatives would be a scan of everything.
    match columns.first() {
        Some((column, Some(value))) if !column.nullable => {
            let edge = if strict == Edge::After { Edge::From } else { Edge::UpTo };
            let leading = compared(column, operator(column, edge), value);
            format!("({leading} AND {condition})")
        }
        _ => condition,
    }
}
