//! SQL text, made from a plan. Pure: everything that comes from people is quoted or stands in parentheses on lines of
//! its own.

use std::num::NonZeroU64;
use std::ops::Bound;

use super::session::{identifier, literal};
use crate::plan::{
    ColumnOrigin, ColumnPlan, Direction, KeyColumn, KeyRange, KeyValue, Partition, Plan, RelationFacts, RelationKind,
    Slice, TupleId, Wire,
};

/// The conditions of a range of blocks, whose bounds [`set_bounds`] puts into settings of the transaction. So all
/// partitions of a leaf have one statement: `pg_stat_statements` keeps COPY by its text and would have an entry for each.
/// On 15 and 18 they are the condition of a Tid Range Scan all the same, estimated and executed like constants.
const BOUNDED: [&str; 2] = [
    "ctid >= pg_catalog.current_setting('outhaul.from')::pg_catalog.tid",
    "ctid < pg_catalog.current_setting('outhaul.to')::pg_catalog.tid",
];

/// The statement that must come before [`select`] of a range of blocks, in the same transaction. None for a whole leaf:
/// without a condition it is a scan that keeps to a ring of buffers.
pub(crate) fn set_bounds(slice: &Slice) -> Option<String> {
    let Slice::Heap { from, to, .. } = slice else { return None };
    if from.is_none() && to.is_none() {
        return None;
    }
    let from = from.unwrap_or(TupleId { block: 0, offset: 0 });
    // Behind every row there can be: the last block has the number before this one (`MaxBlockNumber`).
    let to = to.unwrap_or(TupleId { block: u32::MAX, offset: u16::MAX });
    Some(format!(
        "SELECT pg_catalog.set_config('outhaul.from', '({},{})', true), pg_catalog.set_config('outhaul.to', '({},{})', true)",
        from.block, from.offset, to.block, to.offset
    ))
}

/// `SELECT` of one partition, after [`set_bounds`], with `extra` appended to the list of columns.
pub(crate) fn select(plan: &Plan, partition: &Partition, extra: &[String], after: Option<&KeyValue>) -> String {
    let mut list: Vec<String> = plan.columns.iter().map(column).collect();
    list.extend(extra.iter().cloned());
    // COPY sends rows without columns as nothing at all; a plan always has one.
    let mut sql = format!("SELECT {}\nFROM {}", list.join(", "), from(&plan.relation, &partition.slice));
    let mut conditions = if set_bounds(&partition.slice).is_some() {
        predicate(plan).into_iter().chain(BOUNDED.map(str::to_owned)).collect()
    } else {
        conditions(plan, &partition.slice)
    };
    if let Some(after) = after {
        conditions.push(beyond(&plan.key, after, Edge::After));
    }
    sql.push_str(&all_of(&conditions));
    if partition.ordered && !plan.key.is_empty() {
        sql.push_str("\nORDER BY ");
        sql.push_str(&order_by(&plan.relation, &plan.key));
    }
    if let Some(limit) = partition.row_limit {
        sql.push_str("\nLIMIT ");
        sql.push_str(&limit.to_string());
    }
    sql
}

/// `WHERE` all conditions hold, where there are any.
fn all_of(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join("\n  AND ")) }
}

/// Counts the rows of a slice, no further than `limit`.
pub(crate) fn count(plan: &Plan, slice: &Slice, limit: Option<u64>) -> String {
    let limit = limit.map_or(String::new(), |limit| format!("\nLIMIT {limit}"));
    let (from, filter) = (from(&plan.relation, slice), all_of(&conditions(plan, slice)));
    format!("SELECT count(*) FROM (SELECT FROM {from}{filter}{limit}\n) AS counted")
}

/// The statement that sends one partition.
pub(crate) fn copy(select: &str) -> String {
    format!("COPY (\n{select}\n) TO STDOUT (FORMAT binary)")
}

fn column(plan: &ColumnPlan) -> String {
    match (&plan.origin, plan.wire) {
        (ColumnOrigin::Column(name), wire) => carried(&identifier(name), wire),
        (ColumnOrigin::Expression(text), Wire::Binary) => format!("(\n{text}\n)"),
        (ColumnOrigin::Expression(text), Wire::JsonText) => carried(&format!("(\n{text}\n)"), Wire::JsonText),
        // Evaluated once: the output text needs its operand twice.
        (ColumnOrigin::Expression(text), Wire::OutputText) => {
            let value = carried("outhaul_e.v", Wire::OutputText);
            format!("(SELECT {value} FROM (SELECT (\n{text}\n) AS v OFFSET 0) AS outhaul_e)")
        }
    }
}

fn carried(value: &str, wire: Wire) -> String {
    match wire {
        Wire::Binary => value.to_owned(),
        // `::text` writes inet, bool and char(n) differently, and `IS NULL` is true for a composite of NULLs.
        Wire::OutputText => {
            format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {value}) END")
        }
        Wire::JsonText => format!("pg_catalog.to_json({value})::pg_catalog.text"),
    }
}

/// What stands after `FROM` for the relation as a whole, with the alias under which people's predicates know it.
pub(crate) fn relation(facts: &RelationFacts) -> String {
    match facts.kind {
        RelationKind::Query => format!("(\n{}\n) AS {}{}", facts.sql_name, facts.alias, aliases(facts)),
        _ => format!("{} AS {}", facts.sql_name, facts.alias),
    }
}

/// The names of a query's columns, where two share one and could not be told apart.
fn aliases(facts: &RelationFacts) -> String {
    let aliases = facts.column_aliases();
    if aliases.iter().zip(&facts.columns).all(|(alias, column)| *alias == column.name) {
        return String::new();
    }
    format!("({})", aliases.iter().map(|alias| identifier(alias)).collect::<Vec<_>>().join(", "))
}

fn from(facts: &RelationFacts, slice: &Slice) -> String {
    match slice {
        Slice::Heap { leaf, .. } => match facts.leaves.get(*leaf) {
            Some(leaf) => heap(facts, &leaf.sql_name),
            None => relation(facts),
        },
        Slice::Whole | Slice::Keys(_) | Slice::NullKeys => relation(facts),
    }
}

/// One leaf under the relation's own name, so that a predicate that says `orders.id` still finds it.
pub(crate) fn heap(facts: &RelationFacts, leaf: &str) -> String {
    format!("ONLY {leaf} AS {}", facts.alias)
}

fn predicate(plan: &Plan) -> Vec<String> {
    plan.predicate.iter().map(|text| format!("(\n{text}\n)")).collect()
}

fn conditions(plan: &Plan, slice: &Slice) -> Vec<String> {
    let mut conditions = predicate(plan);
    match slice {
        Slice::Whole => {}
        Slice::Heap { from, to, .. } => {
            conditions.extend(from.map(|place| format!("ctid >= {}", tuple_id(place))));
            conditions.extend(to.map(|place| format!("ctid < {}", tuple_id(place))));
        }
        Slice::Keys(range) => conditions.extend(key_range(&plan.key, range)),
        Slice::NullKeys => {
            conditions.extend(plan.key.first().map(null));
        }
    }
    conditions
}

/// A place in a heap as SQL.
pub(crate) fn tuple_id(place: TupleId) -> String {
    format!("'({},{})'::pg_catalog.tid", place.block, place.offset)
}

/// `ORDER BY` of the key, NULLs last. A column that has none gets no `NULLS LAST`, so that a descending read can use
/// an ordinary index. The names are qualified: a bare one would mean an output column of that name, which may be the
/// text of something else.
fn order_by(relation: &RelationFacts, key: &[KeyColumn]) -> String {
    let terms: Vec<String> = key
        .iter()
        .map(|column| {
            let direction = match column.direction {
                Direction::Asc => "",
                Direction::Desc => " DESC",
            };
            let nulls = match (column.direction, column.nullable) {
                // NULLs already sort last in an ascending index.
                (Direction::Asc, _) | (Direction::Desc, false) => "",
                (Direction::Desc, true) => " NULLS LAST",
            };
            format!("{}.{}{direction}{nulls}", relation.alias, identifier(&column.name))
        })
        .collect();
    terms.join(", ")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
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
fn key_range(key: &[KeyColumn], range: &KeyRange) -> Vec<String> {
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
        ([column, ..], [Some(text)]) if leading_nulls_out => compared(column, operator(column.direction, edge), text),
        _ => beyond(key, value, edge),
    });
    lower.into_iter().chain(upper.map(|(value, edge)| beyond(key, value, edge))).collect()
}

/// Rows on one side of a key value, in the key's own order with NULLs last.
fn beyond(key: &[KeyColumn], value: &KeyValue, edge: Edge) -> String {
    let columns: Vec<(&KeyColumn, Option<&str>)> =
        key.iter().zip(value).map(|(column, value)| (column, value.as_deref())).collect();
    if let Some(condition) = row_comparison(&columns, edge) {
        return condition;
    }
    lexicographic(&columns, edge)
}

fn operator(direction: Direction, edge: Edge) -> &'static str {
    let (strict, after) = match edge {
        Edge::After => (true, true),
        Edge::From => (false, true),
        Edge::UpTo => (false, false),
        Edge::Before => (true, false),
    };
    match (after == (direction == Direction::Asc), strict) {
        (true, true) => ">",
        (true, false) => ">=",
        (false, true) => "<",
        (false, false) => "<=",
    }
}

fn typed(column: &KeyColumn, value: &str) -> String {
    format!("{}::{}", literal(value), column.comparison.base_type.as_deref().unwrap_or(&column.pg_type.name))
}

/// `name < value`, by the operator that the type's order rests on.
fn compared(column: &KeyColumn, operator: &str, value: &str) -> String {
    let (name, value) = (identifier(&column.name), typed(column, value));
    match &column.comparison.operators {
        None => format!("{name} {operator} {value}"),
        Some(schema) => format!("{name} OPERATOR({schema}.{operator}) {value}"),
    }
}

/// `IS NULL`, but for a composite value whose fields are NULL, which is a value like any other.
fn null(column: &KeyColumn) -> String {
    format!("{} IS NOT DISTINCT FROM NULL", identifier(&column.name))
}

fn not_null(column: &KeyColumn) -> String {
    format!("{} IS DISTINCT FROM NULL", identifier(&column.name))
}

/// `a > 1`, or `(a, b) > (1, 2)`, which an index serves as one range; only where no NULL and one direction are involved.
fn row_comparison(columns: &[(&KeyColumn, Option<&str>)], edge: Edge) -> Option<String> {
    let (first, _) = columns.first()?;
    let mut values = Vec::with_capacity(columns.len());
    for (column, value) in columns {
        // A lone column's NULLs fall out of every comparison, as they must: NULLs are last, or a partition of their own.
        let nulls_matter = column.nullable && (columns.len() > 1 || matches!(edge, Edge::After | Edge::From));
        // One operator name stands for all columns.
        let other_operator = columns.len() > 1 && column.comparison.operators.is_some();
        if column.direction != first.direction || nulls_matter || other_operator {
            return None;
        }
        values.push((*value)?);
    }
    let operator = operator(first.direction, edge);
    if let [value] = values.as_slice() {
        return Some(compared(first, operator, value));
    }
    let names: Vec<String> = columns.iter().map(|(column, _)| identifier(&column.name)).collect();
    let values: Vec<String> = columns.iter().zip(values).map(|((column, _), value)| typed(column, value)).collect();
    Some(format!("({}) {operator} ({})", names.join(", "), values.join(", ")))
}

/// The same as alternatives, column by column: `a > 1 OR (a = 1 AND b < 2)`, NULLs last in each.
fn lexicographic(columns: &[(&KeyColumn, Option<&str>)], edge: Edge) -> String {
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
                let comparison = compared(column, operator(column.direction, strict), value);
                Some(if column.nullable { format!("({comparison} OR {})", null(column)) } else { comparison })
            }
            (_, None) => Some(not_null(column)),
            (_, Some(value)) => Some(compared(column, operator(column.direction, strict), value)),
        };
        if let Some(side) = side {
            let mut all = equal.clone();
            all.push(side);
            alternatives.push(format!("({})", all.join(" AND ")));
        }
        equal.push(value.map_or_else(|| null(column), |value| compared(column, "=", value)));
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
            let leading = compared(column, operator(column.direction, edge), value);
            format!("({leading} AND {condition})")
        }
        _ => condition,
    }
}

fn filter(plan: &Plan) -> String {
    plan.predicate.as_ref().map_or(String::new(), |text| format!(" WHERE (\n{text}\n)"))
}

/// Key values of every `points`-th row, at most `limit` rows into the key's order: `place`, then one text a column.
pub(crate) fn rows_by_key(plan: &Plan, limit: u64, points: &[u64]) -> String {
    let texts: Vec<String> = plan.key.iter().map(|column| format!("{}::text", identifier(&column.name))).collect();
    let aliases: Vec<String> = (0..texts.len()).map(|index| format!("k{index}")).collect();
    let list: Vec<String> = texts.iter().zip(&aliases).map(|(text, alias)| format!("{text} AS {alias}")).collect();
    let inner = format!(
        "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
        list.join(", "),
        relation(&plan.relation),
        filter(plan),
        order_by(&plan.relation, &plan.key)
    );
    let points: Vec<String> = points.iter().map(u64::to_string).collect();
    let names = aliases.join(", ");
    format!(
        "SELECT place, {names} FROM (SELECT {names}, row_number() OVER () AS place FROM (\n{inner}\n) AS ordered) AS numbered \
         WHERE place IN ({}) ORDER BY place",
        points.join(", ")
    )
}

/// How many rows one leaf has, counted no further than `limit`.
pub(crate) fn count_up_to(plan: &Plan, source: &str, limit: NonZeroU64) -> String {
    format!("SELECT count(*) FROM (SELECT FROM {source}{} LIMIT {limit}) AS counted", filter(plan))
}

/// Makes scans of a heap give rows by their places, whatever predicate stands beside: for the rest of a transaction.
pub(crate) const PHYSICAL_ORDER: &str =
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off";

/// The places of chosen rows of one leaf, in physical order (see [`PHYSICAL_ORDER`]): `place`, block, offset.
pub(crate) fn rows_by_place(plan: &Plan, source: &str, limit: u64, points: &[u64]) -> String {
    let filter = filter(plan);
    let points: Vec<String> = points.iter().map(u64::to_string).collect();
    format!(
        "SELECT place, (t::text::point)[0]::int8, (t::text::point)[1]::int4 FROM (SELECT t, row_number() OVER () AS place FROM \
         (SELECT ctid AS t FROM {source}{filter} LIMIT {limit}) AS physical) AS numbered \
         WHERE place IN ({}) ORDER BY place",
        points.join(", ")
    )
}

#[cfg(test)]
mod tests;
