//! SQL text, made from a plan. Pure: everything that comes from people is quoted or stands in parentheses on lines of
//! its own. It alone is looked up on the search path (see [`super::closed`]): what we write around it names its schema.

mod delta;
mod keys;

use std::num::NonZeroU64;
use std::ops::Range;

pub(super) use self::delta::row_of;
use self::keys::{Edge, beyond, key_range, not_null, null};
use super::order::OID;
use super::session::identifier;
use crate::model::{ColumnOrigin, Direction, KeyValue, RelationKind, TupleId};
use crate::source::postgres::plan::{
    LeafFacts, PgColumn, PgKeyColumn, PgPartition, PgPlan, RelationFacts, Slice, Wire,
};

/// The conditions of a range of blocks, whose bounds [`set_bounds`] puts into settings of the transaction. So all
/// partitions of a leaf have one statement: `pg_stat_statements` keeps COPY by its text and would have an entry for each.
/// On 15 and 18 they are the condition of a Tid Range Scan all the same, estimated and executed like constants.
const BOUNDED: [&str; 2] = [
    "ctid OPERATOR(pg_catalog.>=) pg_catalog.current_setting('outhaul.from')::pg_catalog.tid",
    "ctid OPERATOR(pg_catalog.<) pg_catalog.current_setting('outhaul.to')::pg_catalog.tid",
];

/// How the names of built-in types begin.
const BUILT_IN: &str = "pg_catalog.";

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
pub(crate) fn select(plan: &PgPlan, partition: &PgPartition, extra: &[String], after: Option<&KeyValue>) -> String {
    // One more, where the statement itself is to show whether there is one; it is not decoded.
    let beyond = u64::from(plan.cap.by_reading);
    let limit = partition.row_limit.map(|limit| limit.get().saturating_add(beyond));
    limited(plan, partition, extra, after, limit)
}

/// The same of a page in the order of the key: so many rows at most, with the texts of the key behind the columns.
pub(crate) fn page(plan: &PgPlan, partition: &PgPartition, after: Option<&KeyValue>, limit: u64) -> String {
    let partition = PgPartition { ordered: true, ..partition.clone() };
    limited(plan, &partition, &key_texts(&plan.key), after, Some(limit))
}

fn limited(
    plan: &PgPlan,
    partition: &PgPartition,
    extra: &[String],
    after: Option<&KeyValue>,
    limit: Option<u64>,
) -> String {
    let mut list: Vec<String> = plan.columns.iter().map(column).collect();
    list.extend(extra.iter().cloned());
    let list = list.join(", ");
    if let Slice::Leaves { from, to } = partition.slice {
        return of_leaves(plan, from, to, &list) + &sorted(plan);
    }
    // COPY sends rows without columns as nothing at all; a plan always has one.
    let mut sql = format!("SELECT {list}\nFROM {}", from(&plan.relation, &partition.slice));
    let mut conditions = if set_bounds(&partition.slice).is_some() {
        predicate(plan, leaf_of(plan, &partition.slice)).into_iter().chain(BOUNDED.map(str::to_owned)).collect()
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
    } else if limit.is_none() {
        sql.push_str(&sorted(plan));
    }
    if let Some(limit) = limit {
        sql.push_str("\nLIMIT ");
        sql.push_str(&limit.to_string());
    }
    sql
}

/// A page of a served run: rows in the order of `key`, whose leading column is NULL in all of them or in none.
#[derive(Debug)]
pub(crate) struct ServedPage<'a> {
    /// What orders them; in the rows whose leading column is NULL, the columns behind it.
    pub(crate) key: &'a [PgKeyColumn],
    /// What holds of the leading column, where it can be NULL.
    pub(crate) leading: Option<LeadingKey<'a>>,
    /// The key of the last row of the page before.
    pub(crate) after: Option<&'a KeyValue>,
    /// At most so many rows.
    pub(crate) limit: Option<u64>,
    /// Whether the rows that share the last one's key come too.
    pub(crate) ties: bool,
}

/// What a page has of the leading column of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LeadingKey<'a> {
    /// Values: an index serves their order in either direction, wherever it has its NULLs.
    Values(&'a PgKeyColumn),
    /// Nothing but NULLs.
    Nulls(&'a PgKeyColumn),
}

/// `SELECT` of a page of the whole relation, with the texts of the key behind the columns.
pub(crate) fn served_page(plan: &PgPlan, page: &ServedPage<'_>) -> String {
    let list: Vec<String> = plan.columns.iter().map(column).chain(key_texts(page.key)).collect();
    let mut conditions = predicate(plan, None);
    conditions.extend(page.leading.map(|leading| match leading {
        LeadingKey::Values(column) => not_null(column),
        LeadingKey::Nulls(column) => null(column),
    }));
    conditions.extend(page.after.map(|after| beyond(page.key, after, Edge::After)));
    let filter = all_of(&conditions);
    let mut sql = format!("SELECT {}\nFROM {}{filter}", list.join(", "), relation(&plan.relation));
    if !page.key.is_empty() {
        sql.push_str("\nORDER BY ");
        sql.push_str(&order_by(&plan.relation, page.key));
    }
    let limit = match page.limit {
        Some(limit) if page.ties && !page.key.is_empty() => format!("\nFETCH FIRST {limit} ROWS WITH TIES"),
        Some(limit) => format!("\nLIMIT {limit}"),
        None => String::new(),
    };
    sql.push_str(&limit);
    sql
}

/// The rows of several leaves, leaf by leaf: PostgreSQL runs the members of such a union in their order.
fn of_leaves(plan: &PgPlan, from: usize, to: usize, list: &str) -> String {
    let leaves = plan.relation.leaves.get(from..to).unwrap_or_default();
    let member = |leaf: &LeafFacts| {
        let filter = all_of(&predicate(plan, Some(leaf)));
        format!("SELECT {list}\nFROM {}{filter}", heap(&plan.relation, &leaf.sql_name))
    };
    leaves.iter().map(member).collect::<Vec<_>>().join("\nUNION ALL\n")
}

/// `ORDER BY` of the columns that are better together, by their places: a name could mean another column.
fn sorted(plan: &PgPlan) -> String {
    if plan.together.is_empty() {
        return String::new();
    }
    let places: Vec<String> = plan.together.iter().map(|place| (place + 1).to_string()).collect();
    format!("\nORDER BY {}", places.join(", "))
}

/// `WHERE` all conditions hold, where there are any.
fn all_of(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join("\n  AND ")) }
}

/// The rows of a slice, without their columns.
pub(crate) fn rows_of(plan: &PgPlan, slice: &Slice) -> String {
    format!("SELECT FROM {}{}", from(&plan.relation, slice), all_of(&conditions(plan, slice)))
}

/// Counts the rows of a slice, no further than `limit`.
pub(crate) fn count(plan: &PgPlan, slice: &Slice, limit: Option<u64>) -> String {
    let limit = limit.map_or(String::new(), |limit| format!("\nLIMIT {limit}"));
    if let Slice::Leaves { from, to } = *slice {
        return format!("SELECT pg_catalog.count(*) FROM (\n{}{limit}\n) AS counted", of_leaves(plan, from, to, "1"));
    }
    let (from, filter) = (from(&plan.relation, slice), all_of(&conditions(plan, slice)));
    format!("SELECT pg_catalog.count(*) FROM (SELECT FROM {from}{filter}{limit}\n) AS counted")
}

/// The statement that sends one partition.
pub(crate) fn copy(select: &str) -> String {
    format!("COPY (\n{select}\n) TO STDOUT (FORMAT binary)")
}

fn column(plan: &PgColumn) -> String {
    match (&plan.output.origin, plan.wire) {
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
        // What comes to inherit from it later has rows that were never its own.
        _ if facts.reading.alone => heap(facts, &facts.sql_name),
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
        Slice::Whole | Slice::Leaves { .. } | Slice::Keys(_) | Slice::NullKeys => relation(facts),
    }
}

/// One leaf under the relation's own name, so that a predicate that says `orders.id` still finds it.
pub(crate) fn heap(facts: &RelationFacts, leaf: &str) -> String {
    format!("ONLY {leaf} AS {}", facts.alias)
}

/// What holds of all rows: the person's predicate, and that they are new where only these are read. `leaf` is the one table
/// that is read.
fn predicate(plan: &PgPlan, leaf: Option<&LeafFacts>) -> Vec<String> {
    let written = plan.predicate.iter().map(|text| format!("(\n{text}\n)"));
    let new = plan.delta.iter().flat_map(|delta| delta::conditions(delta, leaf.map(|leaf| leaf.oid)));
    written.chain(new).collect()
}

/// The one table that a slice is of.
fn leaf_of<'a>(plan: &'a PgPlan, slice: &Slice) -> Option<&'a LeafFacts> {
    let Slice::Heap { leaf, .. } = slice else { return None };
    plan.relation.leaves.get(*leaf)
}

fn conditions(plan: &PgPlan, slice: &Slice) -> Vec<String> {
    let mut conditions = predicate(plan, leaf_of(plan, slice));
    match slice {
        Slice::Whole | Slice::Leaves { .. } => {}
        Slice::Heap { from, to, .. } => {
            conditions.extend(from.map(|place| format!("ctid OPERATOR(pg_catalog.>=) {}", tuple_id(place))));
            conditions.extend(to.map(|place| format!("ctid OPERATOR(pg_catalog.<) {}", tuple_id(place))));
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
fn order_by(relation: &RelationFacts, key: &[PgKeyColumn]) -> String {
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

/// The text of `value`, a value of a key column, from which the same value can be read again. A cast to text of a type
/// that is not built in may be somebody's own, and need not say what the value is.
pub(crate) fn text_of(column: &PgKeyColumn, value: &str) -> String {
    if column.comparison.value_type == OID {
        // The name of a function or an operator need not be one of its own.
        format!("{value}::{OID}::pg_catalog.text")
    } else if column.comparison.value_type.starts_with(BUILT_IN) {
        format!("{value}::pg_catalog.text")
    } else {
        carried(value, Wire::OutputText)
    }
}

/// The texts of a row's key, column by column.
pub(crate) fn key_texts(key: &[PgKeyColumn]) -> Vec<String> {
    key.iter().map(|column| text_of(column, &identifier(&column.name))).collect()
}

fn filter(plan: &PgPlan) -> String {
    let conditions = predicate(plan, None);
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Key values of every `points`-th row, at most `limit` rows into the key's order: `place`, then one text a column.
pub(crate) fn rows_by_key(plan: &PgPlan, limit: u64, points: &[u64]) -> String {
    let aliases: Vec<String> = (0..plan.key.len()).map(|index| format!("k{index}")).collect();
    let keyed = || plan.key.iter().zip(&aliases);
    let values: Vec<String> =
        keyed().map(|(column, alias)| format!("{} AS {alias}", identifier(&column.name))).collect();
    let texts: Vec<String> = keyed().map(|(column, alias)| text_of(column, alias)).collect();
    let inner = format!(
        "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
        values.join(", "),
        relation(&plan.relation),
        filter(plan),
        order_by(&plan.relation, &plan.key)
    );
    format!(
        "SELECT place, {} FROM (SELECT {}, pg_catalog.row_number() OVER () AS place FROM (\n{inner}\n) AS ordered) \
         AS numbered WHERE {} ORDER BY place",
        texts.join(", "),
        aliases.join(", "),
        is_one_of("place", points)
    )
}

/// Whether a number is one of these.
fn is_one_of(number: &str, of: &[u64]) -> String {
    let of: Vec<String> = of.iter().map(u64::to_string).collect();
    format!("{number} OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.int8[])", of.join(", "))
}

/// How many rows a relation has, counted no further than `limit`.
pub(crate) fn count_up_to(plan: &PgPlan, source: &str, limit: NonZeroU64) -> String {
    format!("SELECT pg_catalog.count(*) FROM (SELECT FROM {source}{} LIMIT {limit}) AS counted", filter(plan))
}

/// How many rows each of some leaves has, counted leaf by leaf and no further than `limit` in all: the leaf's index, and
/// its rows where there are any.
pub(crate) fn count_leaves(plan: &PgPlan, leaves: Range<usize>, limit: NonZeroU64) -> String {
    let filter = filter(plan);
    let member = |(place, leaf): (usize, &LeafFacts)| {
        format!("SELECT {place} AS leaf FROM {}{filter}", heap(&plan.relation, &leaf.sql_name))
    };
    let facts = plan.relation.leaves.get(leaves.clone()).unwrap_or_default();
    let members: Vec<String> = leaves.zip(facts).map(member).collect();
    format!(
        "SELECT leaf::pg_catalog.int8, pg_catalog.count(*) FROM (\n{}\nLIMIT {limit}) AS counted GROUP BY leaf ORDER BY leaf",
        members.join("\nUNION ALL\n")
    )
}

/// Makes scans of a heap give rows by their places, whatever predicate stands beside: for the rest of a transaction.
pub(crate) const PHYSICAL_ORDER: &str =
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off";

/// The places of chosen rows of one leaf, in physical order (see [`PHYSICAL_ORDER`]): `place`, block, offset.
pub(crate) fn rows_by_place(plan: &PgPlan, source: &str, limit: u64, points: &[u64]) -> String {
    let (filter, chosen) = (filter(plan), is_one_of("place", points));
    format!(
        "SELECT place, (p[0])::pg_catalog.int8, (p[1])::pg_catalog.int4 FROM (SELECT place, \
         t::pg_catalog.text::pg_catalog.point AS p FROM (SELECT t, pg_catalog.row_number() OVER () AS place FROM \
         (SELECT ctid AS t FROM {source}{filter} LIMIT {limit}) AS physical) AS numbered WHERE {chosen}) AS chosen \
         ORDER BY place"
    )
}

#[cfg(test)]
mod tests;
