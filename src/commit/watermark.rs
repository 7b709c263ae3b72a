//! What an incremental export leaves for the next one: pure, from the plan and the receipts.

use crate::base::text::ordinal::{greater, ordinal};
use crate::model::{
    AskedColumns, Carrier, ColumnPlan, InvalidUtf8, OutputRules, PartitionReceipt, PlannedWatermark, Precision,
    Protection, SchemaChange, TimestampPrecision, Watermark, WatermarkScale,
};

/// The watermark of an export. One that a cap cut short hands on what it went on from: its own rows say nothing of those
/// that it left out.
pub(super) fn watermark(
    planned: &PlannedWatermark,
    (columns, rules): (&[ColumnPlan], OutputRules<'_>),
    receipts: &[PartitionReceipt],
    truncated: bool,
    (selection, changes): (AskedColumns, Vec<SchemaChange>),
) -> Option<Watermark> {
    let before = planned.since.as_ref();
    let (since, key) = (before.map(|since| since.run_id.clone()), output_names(&planned.key, columns, rules));
    if truncated {
        let handed_on = before?.watermark.clone();
        return Some(Watermark { since, why_full: None, key, changes, ..handed_on });
    }
    let value = if planned.scale == WatermarkScale::Transaction {
        Some(planned.horizon.to_string())
    } else {
        let before = before.and_then(|since| since.watermark.value.clone());
        greater(before, greatest(&planned.column, columns, receipts))
    };
    let look_back = look_back(planned, value.as_deref());
    Some(Watermark {
        column: planned.column.clone(),
        value,
        horizon: planned.horizon,
        oldest_xact_start: planned.oldest_xact_start,
        look_back,
        taken_at: planned.taken_at,
        prepared: planned.prepared,
        since,
        why_full: planned.why_full.clone(),
        key,
        selection,
        history: planned.history.clone(),
        changes,
    })
}

/// The names in the output of columns of the relation; none where one of them is not in it, or may be equal there for rows
/// that differ. Equal hashes are of equal texts.
fn output_names(key: &[String], columns: &[ColumnPlan], rules: OutputRules<'_>) -> Vec<String> {
    let tells = |column: &&ColumnPlan| match rules.protect.and_then(|protect| protect.of(column)) {
        None | Some(Protection::Hash) => keeps_apart(column),
        Some(Protection::Mask | Protection::Null | Protection::Drop) => false,
    };
    let output = |name: &String| output_column(name, columns).filter(tells).map(|column| column.name.clone());
    key.iter().map(output).collect::<Option<_>>().unwrap_or_default()
}

/// Whether values of a key that differ do so in the files: a policy may round them, or write the same for several.
fn keeps_apart(column: &ColumnPlan) -> bool {
    let policies = &column.policies;
    let milliseconds = matches!(column.carrier, Carrier::Timestamp { unit: Precision::Millis, .. });
    let rounded = milliseconds && policies.timestamp_precision != TimestampPrecision::MillisExact
        || column.carrier == Carrier::Float64 && column.text_varies;
    // A key has no NULLs at the source.
    !rounded && !column.nullable && policies.invalid_utf8 != InvalidUtf8::Replace
}

fn output_column<'a>(name: &str, columns: &'a [ColumnPlan]) -> Option<&'a ColumnPlan> {
    columns.iter().find(|column| column.origin.column() == Some(name))
}

/// The greatest value of the column in all parts, as far as these tell.
fn greatest(column: &str, columns: &[ColumnPlan], receipts: &[PartitionReceipt]) -> Option<String> {
    let output = output_column(column, columns)?;
    let parts = receipts.iter().flat_map(|receipt| &receipt.parts);
    let summaries = parts.filter_map(|part| part.columns.iter().find(|summary| summary.name == output.name));
    summaries.filter(|summary| summary.exact).map(|summary| summary.max.clone()).fold(None, greater)
}

/// Seconds that the next export looks back behind the value, rounded up; `None` where it looks at every row.
fn look_back(planned: &PlannedWatermark, value: Option<&str>) -> Option<u64> {
    let asked = i128::try_from(planned.look_back.unwrap_or_default().as_micros()).ok()?;
    let value = ordinal(value?)?;
    let from = value.saturating_sub(asked).min(planned.floor?.timestamp_micros().into());
    u64::try_from(value.checked_sub(from)?.checked_add(999_999)? / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commit::test_data::{at, plan, receipts};
    use crate::model::{SinceExport, WatermarkHistory};

    fn planned(since: Option<SinceExport>) -> PlannedWatermark {
        PlannedWatermark {
            column: "id".into(),
            scale: WatermarkScale::Number,
            horizon: 748,
            oldest_xact_start: Some(at(-60)),
            prepared: false,
            taken_at: at(0),
            look_back: None,
            floor: None,
            history: WatermarkHistory::default(),
            key: vec!["id".into()],
            since,
            why_full: None,
        }
    }

    fn made(planned: &PlannedWatermark, truncated: bool) -> Option<Watermark> {
        watermark(
            planned,
            (&plan().columns, OutputRules::default()),
            &receipts(),
            truncated,
            (AskedColumns::default(), Vec::new()),
        )
    }

    fn since(value: &str) -> SinceExport {
        let before = Watermark { value: Some(value.into()), horizon: 700, ..made(&planned(None), false).unwrap() };
        SinceExport { run_id: "before".into(), watermark: before }
    }

    #[test]
    fn the_value_is_the_greatest_that_was_ever_exported() {
        let value = |planned: &PlannedWatermark| made(planned, false).unwrap().value;
        assert_eq!(value(&planned(None)).as_deref(), Some("77"));
        assert_eq!(value(&planned(Some(since("9")))).as_deref(), Some("77"));
        assert_eq!(value(&planned(Some(since("100")))).as_deref(), Some("100"));
        let unknown = PlannedWatermark { column: "comment".into(), ..planned(Some(since("9"))) };
        assert_eq!(value(&unknown).as_deref(), Some("9"), "an extreme that is no value of the column");
        let by_transaction = PlannedWatermark { scale: WatermarkScale::Transaction, ..planned(None) };
        assert_eq!(value(&by_transaction).as_deref(), Some("748"));
    }

    #[test]
    fn what_a_cap_cut_short_advances_nothing() {
        assert_eq!(made(&planned(None), true), None);
        let handed_on = made(&planned(Some(since("9"))), true).unwrap();
        assert_eq!((handed_on.value.as_deref(), handed_on.horizon), (Some("9"), 700));
        assert_eq!(handed_on.since.as_deref(), Some("before"));
    }

    #[test]
    fn the_look_back_reaches_to_the_oldest_transaction_at_least() {
        let moments = |look_back, floor| {
            let look_back = Some(Duration::from_secs(look_back));
            PlannedWatermark { scale: WatermarkScale::Instant, look_back, floor: Some(floor), ..planned(None) }
        };
        let value = "1970-01-02 00:00:00+00";
        let floor = |seconds: i64| chrono::DateTime::from_timestamp_micros(seconds * 1_000_000).unwrap();
        assert_eq!(look_back(&moments(0, floor(86_000)), Some(value)), Some(400));
        assert_eq!(look_back(&moments(3_600, floor(86_000)), Some(value)), Some(3_600));
        assert_eq!(look_back(&moments(0, floor(90_000)), Some(value)), Some(0));
        assert_eq!(look_back(&moments(0, floor(0)), None), None);
        assert_eq!(look_back(&planned(None), Some("77")), None);
    }

    #[test]
    fn a_key_that_is_not_in_the_output_is_none() {
        assert_eq!(made(&planned(None), false).unwrap().key, ["id"]);
        let missing = PlannedWatermark { key: vec!["id".into(), "line".into()], ..planned(None) };
        assert!(made(&missing, false).unwrap().key.is_empty());
    }
}
