//! Whether a manifest may show extremes of a column at all: texts and bytes are compared byte by byte, which is not the
//! order of every type that is held as text.

use crate::commit::model::SchemaColumn;
use crate::commit::types::parse_arrow_type;
use crate::model::{Carrier, ColumnSummary};

/// What is wrong with the extremes that a part's summary shows of a column. One value is the least and the greatest in
/// every order.
pub(super) fn problem(column: &SchemaColumn, summary: &ColumnSummary, part: &str) -> Option<String> {
    let shown = summary.min.is_some() || summary.max.is_some();
    let one = summary.exact && summary.min == summary.max;
    if !shown || one || follows_bytes(column) {
        return None;
    }
    Some(format!(
        "it shows a least and a greatest value of column {:?} in {part}, but {} is not sorted as the bytes of its text \
         are: readers that skip parts by them lose rows, so export again",
        column.name, column.pg_type
    ))
}

/// Whether the column is not held as text or bytes, or is of a type that PostgreSQL sorts by them. Of text that depends on
/// the collation, which an export knew when it showed its extremes.
fn follows_bytes(column: &SchemaColumn) -> bool {
    let name = column.pg_type.as_str();
    let is = |names: &[&str]| {
        // With or without a modifier in parentheses.
        names.iter().any(|known| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('(')))
    };
    match parse_arrow_type(&column.arrow_type) {
        Some(Carrier::Bytes) if is(&["bytea"]) => true,
        Some(Carrier::Text | Carrier::Bytes) => {
            let trimmed = column.policy.split(", ").any(|word| word == "trim");
            is(&["text", "character varying", "name", "uuid", "macaddr", "macaddr8", "bit", "bit varying"])
                || trimmed && is(&["character", "bpchar"])
                || name.starts_with("time") && !name.starts_with("timestamp") && name.ends_with(" without time zone")
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pg_type: &str, arrow_type: &str, policy: &str, min: &str, max: &str) -> bool {
        let column = SchemaColumn {
            name: "c".to_owned(),
            source_column: None,
            pg_type: pg_type.to_owned(),
            source_type: None,
            arrow_type: arrow_type.to_owned(),
            parquet_type: None,
            nullable: true,
            policy: policy.to_owned(),
            policy_count: None,
            note: None,
            protection: None,
        };
        let (min, max) = (Some(min.to_owned()), Some(max.to_owned()));
        let summary = ColumnSummary { name: "c".to_owned(), nulls: 0, min, max, exact: true, changed: 0 };
        problem(&column, &summary, "data/x").is_some()
    }

    #[test]
    fn extremes_by_bytes_are_for_types_that_are_sorted_by_bytes() {
        for (pg_type, arrow_type, policy) in [
            ("ex.size", "Utf8", "lossless"),
            ("time with time zone", "Utf8", "lossless"),
            ("timestamp without time zone", "Utf8", "text"),
            ("inet", "Utf8", "lossless"),
            ("cidr", "Utf8", "lossless"),
            ("money", "Utf8", "lossless"),
            ("interval", "Utf8", "lossless"),
            ("numeric", "Utf8", "lossless"),
            ("character(4)", "Utf8", "lossless"),
            ("jsonb", "Utf8", "lossless"),
            ("text[]", "Utf8", "lossless"),
            ("public.texture", "Utf8", "lossless"),
            ("bits", "Utf8", "lossless"),
            ("geometry(Point,4326)", "Binary", "lossless"),
        ] {
            assert!(told(pg_type, arrow_type, policy, "a", "b"), "{pg_type}");
            assert!(!told(pg_type, arrow_type, policy, "a", "a"), "{pg_type}");
        }
        for (pg_type, arrow_type, policy) in [
            ("text", "Utf8", "lossless"),
            ("text", "Binary", "bytes"),
            ("character varying(20)", "Utf8", "lossless"),
            ("character(4)", "Utf8", "error, trim"),
            ("bit(3)", "Utf8", "lossless"),
            ("uuid", "Utf8", "lossless"),
            ("time(3) without time zone", "Utf8", "text"),
            ("bytea", "Binary", "lossless"),
            ("money", "Decimal128(19,2)", "lossless"),
            ("interesting", "Int64", "lossless"),
        ] {
            assert!(!told(pg_type, arrow_type, policy, "a", "b"), "{pg_type}");
        }
    }
}
