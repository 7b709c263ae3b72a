//! In which order the rows of a Parquet file stand, as its readers compare values.

use crate::model::{
    Carrier, ColumnOrigin, ColumnPlan, Direction, KeyColumn, OnUnrepresentable, Precision, TimestampPrecision,
};

/// The output columns by which rows read in the order of `key` are sorted in a Parquet file: each column's place and
/// whether it descends, NULLs last.
///
/// They are the leading key columns that are written as they are and that Parquet orders as PostgreSQL does. Text is
/// not among them (collations), nor are floats (NaN) and numbers written as text; and where values become NULL or are
/// rounded on their way, the order ends.
pub(crate) fn sorted_columns(key: &[KeyColumn], columns: &[ColumnPlan]) -> Vec<(usize, bool)> {
    let mut sorted = Vec::new();
    for key_column in key {
        let is_key =
            |column: &&ColumnPlan| matches!(&column.origin, ColumnOrigin::Column(name) if *name == key_column.name);
        let found = columns.iter().enumerate().find(|(_, column)| is_key(column));
        let Some((place, column)) = found.filter(|(_, column)| same_order(column)) else { break };
        sorted.push((place, key_column.direction == Direction::Desc));
        // Rows that differed may now be equal here, and the next column says nothing of their order.
        if is_rounded(column) {
            break;
        }
    }
    sorted
}

/// Whether Parquet orders what is written of a column as its source orders the column.
fn same_order(column: &ColumnPlan) -> bool {
    // The infinities stand at either end, NULL only at one.
    let never_null = column.policies.on_unrepresentable != OnUnrepresentable::Null;
    match column.carrier {
        Carrier::Bool | Carrier::Int16 | Carrier::Int32 | Carrier::Int64 => true,
        Carrier::Decimal128 { .. }
        | Carrier::Decimal256 { .. }
        | Carrier::Date32
        | Carrier::Time64
        | Carrier::Timestamp { .. } => never_null,
        // ClickHouse orders UUIDs by their second half.
        Carrier::Bytes | Carrier::Uuid => column.ordered,
        Carrier::Float32
        | Carrier::Float64
        | Carrier::NumberText
        | Carrier::Text
        | Carrier::Json
        | Carrier::PgDate
        | Carrier::PgTime
        | Carrier::PgTimestamp
        | Carrier::PgTimestampTz
        | Carrier::List(_)
        | Carrier::Struct(_)
        | Carrier::Map => false,
    }
}

fn is_rounded(column: &ColumnPlan) -> bool {
    matches!(column.carrier, Carrier::Timestamp { unit: Precision::Millis, .. })
        && column.policies.timestamp_precision != TimestampPrecision::MillisExact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples::column;
    use crate::model::Policies;

    fn key(columns: &[(&str, Direction)]) -> Vec<KeyColumn> {
        let column = |(name, direction): &(&str, Direction)| KeyColumn {
            name: (*name).to_owned(),
            direction: *direction,
            nullable: true,
            may_show: true,
        };
        columns.iter().map(column).collect()
    }

    fn stamp(unit: Precision) -> Carrier {
        Carrier::Timestamp { unit, utc: true }
    }

    /// A table in which `x` is the column in question, between two that qualify.
    fn sorted_with(x: ColumnPlan) -> Vec<(usize, bool)> {
        use Direction::{Asc, Desc};
        let columns = [column("z", Carrier::Text), column("a", Carrier::Int64), x, column("b", Carrier::Int16)];
        sorted_columns(&key(&[("b", Desc), ("x", Asc), ("a", Asc)]), &columns)
    }

    #[test]
    fn types_that_parquet_orders_alike_qualify() {
        for (carrier, qualifies) in [
            (Carrier::Bool, true),
            (Carrier::Int16, true),
            (Carrier::Int32, true),
            (Carrier::Int64, true),
            (Carrier::Decimal128 { precision: 12, scale: 2 }, true),
            (Carrier::Decimal256 { precision: 40, scale: 2 }, true),
            (Carrier::Uuid, true),
            (Carrier::Date32, true),
            (Carrier::Time64, true),
            (stamp(Precision::Micros), true),
            (Carrier::Text, false),
            (Carrier::Json, false),
            (Carrier::NumberText, false),
            (Carrier::Float32, false),
            (Carrier::Float64, false),
            (Carrier::Map, false),
        ] {
            let expected = if qualifies { vec![(3, true), (2, false), (1, false)] } else { vec![(3, true)] };
            assert_eq!(sorted_with(column("x", carrier.clone())), expected, "{carrier:?}");
        }
        for carrier in [Carrier::Bytes, Carrier::Uuid] {
            for (ordered, length) in [(true, 3), (false, 1)] {
                let x = ColumnPlan { ordered, ..column("x", carrier.clone()) };
                assert_eq!(sorted_with(x).len(), length, "{carrier:?}");
            }
        }
    }

    #[test]
    fn policies_end_the_order() {
        let with = |carrier: Carrier, policies: Policies| ColumnPlan { policies, ..column("x", carrier) };
        let precision = |timestamp_precision| Policies { timestamp_precision, ..Policies::default() };
        let null = Policies { on_unrepresentable: OnUnrepresentable::Null, ..Policies::default() };
        for (x, length) in [
            (with(stamp(Precision::Millis), precision(TimestampPrecision::Millis)), 2),
            (with(stamp(Precision::Millis), precision(TimestampPrecision::MillisExact)), 3),
            (with(stamp(Precision::Micros), null), 1),
            (with(Carrier::Date32, null), 1),
            (with(Carrier::Decimal128 { precision: 9, scale: 0 }, null), 1),
            (with(Carrier::Int32, null), 3),
        ] {
            assert_eq!(sorted_with(x.clone()).len(), length, "{x:?}");
        }
    }

    #[test]
    fn only_columns_written_as_they_are_count() {
        let ascending = key(&[("a", Direction::Asc), ("b", Direction::Asc)]);
        let renamed = ColumnPlan { name: "other".to_owned(), ..column("a", Carrier::Int64) };
        let expression =
            ColumnPlan { origin: ColumnOrigin::Expression("-a".to_owned()), ..column("a", Carrier::Int64) };
        let b = || column("b", Carrier::Int32);
        assert_eq!(sorted_columns(&ascending, &[b(), renamed]), [(1, false), (0, false)]);
        assert_eq!(sorted_columns(&ascending, &[expression, b()]), []);
        assert_eq!(sorted_columns(&ascending, &[b()]), []);
        assert_eq!(sorted_columns(&ascending, &[]), []);
        assert_eq!(sorted_columns(&[], &[b()]), []);
    }
}
