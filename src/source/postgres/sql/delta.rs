//! The conditions of the rows that are new since another export.

use super::keys::{compared, null};
use crate::source::postgres::plan::delta::{Delta, TransactionWindow};

/// How many transaction ids a row can tell apart.
const XID_SPAN: u64 = 1 << 32;

/// The conditions of the rows of a delta: of one table, by its OID, or of the whole relation.
pub(super) fn conditions(delta: &Delta, table: Option<u32>) -> Vec<String> {
    let conditions = of_known_tables(delta);
    if table.is_some_and(|table| delta.new_tables.contains(&table)) {
        return Vec::new();
    }
    if table.is_some() || delta.new_tables.is_empty() || conditions.is_empty() {
        return conditions;
    }
    let new: Vec<String> = delta.new_tables.iter().map(u32::to_string).collect();
    vec![format!(
        "(tableoid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[]) OR ({}))",
        new.join(", "),
        conditions.join(" AND ")
    )]
}

fn of_known_tables(delta: &Delta) -> Vec<String> {
    let column = &delta.column;
    let operators = &column.comparison.operators;
    let mut conditions = Vec::new();
    if let Some(least) = &delta.least {
        let bound = compared(column, &operators.greater_or_equal, least);
        // A row without a value is nowhere in the order, and is not lost for that.
        conditions.push(if column.nullable { format!("({bound} OR {})", null(column)) } else { bound });
    }
    let beyond = delta.beyond.as_ref().map(|value| compared(column, &operators.greater, value));
    let window = delta.window.map(row_of);
    let either: Vec<String> = beyond.into_iter().chain(window).collect();
    if !either.is_empty() {
        conditions.push(format!("({})", either.join(" OR ")));
    }
    conditions
}

/// Whether a row is of one of these transactions. A row has the low half of its transaction's id only: one that is older by
/// a multiple of 2^32 looks the same.
pub(in crate::source::postgres) fn row_of(TransactionWindow { from, to }: TransactionWindow) -> String {
    let (first, length) = (from % XID_SPAN, to.saturating_sub(from));
    if length >= XID_SPAN {
        return "true".to_owned();
    }
    format!(
        "(((xmin::pg_catalog.text::pg_catalog.int8 OPERATOR(pg_catalog.-) {first}::pg_catalog.int8) \
         OPERATOR(pg_catalog.+) {XID_SPAN}::pg_catalog.int8) OPERATOR(pg_catalog.%) {XID_SPAN}::pg_catalog.int8) \
         OPERATOR(pg_catalog.<) {length}::pg_catalog.int8"
    )
}
