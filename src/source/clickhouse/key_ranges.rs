//! A relation cut by the values of a key's first column: a sample of them says where.

use super::columns::usage;
use super::names::{literal, quoted};
use super::plan::{ChRelation, ChSlice};
use super::settings::ClickHouseSession;
use super::shards::ALL_SHARDS;
use super::types::ChType;
use crate::base::failpoint;
use crate::model::KeyColumn;
use crate::source::{SourceError, SourceFault};

/// Values that are drawn.
const SAMPLE: u64 = 10_000;

/// Steps of a plan after which a condition on the rows gives others than a condition on the relation would.
pub(crate) const LIMITS: [&str; 4] = ["Limit", "Offset", "Window", "Sampling"];

/// Whether the values of a type have an order that a literal of ours can cut.
pub(super) fn is_ordered(ch_type: &ChType) -> bool {
    matches!(
        ch_type,
        ChType::Bool
            | ChType::Integer { .. }
            | ChType::Float32
            | ChType::Float64
            | ChType::Decimal { .. }
            | ChType::Date
            | ChType::DateTime
            | ChType::DateTime64 { .. }
            | ChType::Text
            | ChType::Fixed
            | ChType::Uuid
    )
}

/// # Errors
/// The values of a type have no order, or none that a literal of ours could cut.
pub(crate) fn check(name: &str, type_name: &str) -> Result<(), SourceError> {
    let ordered = match ChType::parse(type_name).as_ref().map(ChType::inner) {
        Ok(ch_type) => is_ordered(ch_type),
        Err(_) => false,
    };
    if ordered {
        return Ok(());
    }
    let message = format!("--key: column {name:?} is of type {type_name}, which cuts no rows");
    Err(usage(message, "name a column of numbers, dates, times, texts or UUIDs"))
}

/// Slices that have every row once, whatever was drawn: below the first value, between two, and all that is not below the
/// last, NULL and NaN among it. `None` where a value does not come back from its text, so that the bounds would be others, in
/// an order of their own.
pub(crate) async fn conditions(
    session: &ClickHouseSession,
    relation: &ChRelation,
    key: (&KeyColumn, &str),
    wanted: u64,
) -> Result<Option<Vec<ChSlice>>, SourceError> {
    let (key, type_name) = key;
    let column = quoted(&key.name);
    let sent = sent(type_name);
    let sql = format!(
        "SELECT hex(toString({sent})), toTypeName({sent}), CAST(toString({sent}), toTypeName({sent})) = value \
         FROM (SELECT DISTINCT arrayJoin(arrayMap(place -> \
         drawn[toUInt64(ceil(length(drawn) * place / {wanted}))], range(1, {wanted}))) AS value FROM (SELECT \
         arraySort(groupArraySample({SAMPLE}, 1)(assumeNotNull({column}))) AS drawn FROM {}{}) WHERE notEmpty(drawn)) \
         ORDER BY value{ALL_SHARDS}",
        relation.from(),
        // What is not a number has no place among the others.
        relation.filter(Some(&format!("{column} IS NOT NULL AND {column} = {column}"))),
    );
    let rows = session.ask("looking for values to cut at", &sql, &[]).await?;
    let mut bounds = Vec::new();
    for row in rows {
        let mut values = row.into_iter().flatten();
        let (Some(value), Some(type_name), Some(same)) = (values.next(), values.next(), values.next()) else {
            return Err(SourceError::new(SourceFault::Protocol, "the server's values to cut at cannot be read"));
        };
        if same != "1" && !failpoint::off("same_bound") {
            return Ok(None);
        }
        bounds.push(bound(&value, &type_name));
    }
    Ok(Some(between(&column, &bounds)))
}

/// A drawn value as it is sent: in a zone with summer time an hour comes twice, and its text is that of either.
fn sent(type_name: &str) -> &'static str {
    match ChType::parse(type_name).as_ref().map(ChType::inner) {
        Ok(ChType::DateTime | ChType::DateTime64 { .. }) if !failpoint::off("bound_in_utc") => {
            "toTimeZone(value, 'UTC')"
        }
        _ => "value",
    }
}

/// A value as an expression; its text comes in hexadecimal digits, since it may be no text at all.
fn bound(hex: &str, type_name: &str) -> String {
    format!("CAST(unhex({}) AS {})", literal(hex), type_name)
}

fn between(column: &str, bounds: &[String]) -> Vec<ChSlice> {
    let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else { return vec![ChSlice::Whole] };
    let mut conditions = vec![format!("{column} < {first}")];
    for pair in bounds.windows(2) {
        if let [from, to] = pair {
            conditions.push(format!("{column} >= {from} AND {column} < {to}"));
        }
    }
    conditions.push(format!("NOT ifNull({column} < {last}, 0)"));
    conditions.into_iter().map(ChSlice::Condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_leave_nothing_out() {
        let bounds = ["1".to_owned(), "5".to_owned()];
        let conditions: Vec<ChSlice> = between("k", &bounds);
        let expected = ["k < 1", "k >= 1 AND k < 5", "NOT ifNull(k < 5, 0)"];
        assert_eq!(conditions, expected.map(|condition| ChSlice::Condition(condition.to_owned())));
        assert_eq!(between("k", &[]), [ChSlice::Whole]);
    }

    #[test]
    fn moments_are_sent_in_utc_and_nothing_else_is() {
        for type_name in
            ["DateTime", "Nullable(DateTime('Europe/Amsterdam'))", "LowCardinality(DateTime)", "DateTime64(3)"]
        {
            assert_eq!(sent(type_name), "toTimeZone(value, 'UTC')", "{type_name}");
        }
        for type_name in ["Date", "Date32", "String", "UInt64"] {
            assert_eq!(sent(type_name), "value", "{type_name}");
        }
    }

    #[test]
    fn only_what_has_an_order_is_a_key() {
        assert!(check("k", "LowCardinality(Nullable(String))").is_ok());
        for type_name in ["Array(UInt8)", "JSON", "Variant(String)", "Enum8('a' = 1)", "Quantum"] {
            assert!(check("k", type_name).is_err(), "{type_name}");
        }
    }
}
