//! NDJSON: one object a line, each value as `row_to_json` writes it, without insignificant whitespace.

use std::ops::Range;

use super::text::{Cells, Values, datetime, float, json, number};
use crate::plan::ColumnPlan;

/// Writes rows as JSON objects.
#[derive(Debug)]
pub(crate) struct NdjsonRows {
    /// For each column what stands in front of its value: `{"a":`, then `,"b":` and so on.
    keys: Box<[Box<[u8]>]>,
}

impl NdjsonRows {
    pub(crate) fn new(columns: &[ColumnPlan]) -> Self {
        let key = |(index, column): (usize, &ColumnPlan)| {
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            json::string(&mut key, column.name.as_bytes());
            key.push(b':');
            key.into_boxed_slice()
        };
        Self { keys: columns.iter().enumerate().map(key).collect() }
    }

    /// Appends `rows` of a batch.
    pub(crate) fn append(&self, cells: &[Cells<'_>], rows: Range<usize>, out: &mut Vec<u8>) {
        let end: &[u8] = if self.keys.is_empty() { b"{}\n" } else { b"}\n" };
        for row in rows {
            for (key, cell) in self.keys.iter().zip(cells) {
                out.extend_from_slice(key);
                if cell.is_null(row) {
                    out.extend_from_slice(b"null");
                } else {
                    value(&cell.values, row, out);
                }
            }
            out.extend_from_slice(end);
        }
    }
}

fn value(values: &Values<'_>, row: usize, out: &mut Vec<u8>) {
    match *values {
        Values::Bool(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
        Values::Int16(_) | Values::Int32(_) | Values::Int64(_) | Values::Decimal { .. } => values.output_text(row, out),
        Values::Float32(numbers) if numbers[row].is_finite() => float::float4(out, numbers[row]),
        Values::Float64(numbers) if numbers[row].is_finite() => float::float8(out, numbers[row]),
        Values::NumberText(array) if is_finite(array.value(row)) => out.extend_from_slice(array.value(row).as_bytes()),
        Values::Text(array) => json::string(out, array.value(row).as_bytes()),
        Values::Json(array) => json::compact(out, array.value(row).as_bytes()),
        Values::Bytes(array) => {
            out.extend_from_slice(b"\"\\\\");
            number::hex_bytes(out, array.value(row));
            out.push(b'"');
        }
        Values::Timestamp { micros, epoch, utc } => {
            out.push(b'"');
            datetime::timestamp(out, micros[row], epoch, utc, datetime::JSON);
            out.push(b'"');
        }
        Values::Float32(_)
        | Values::Float64(_)
        | Values::NumberText(_)
        | Values::Uuid(_)
        | Values::Date { .. }
        | Values::Time(_) => {
            out.push(b'"');
            values.output_text(row, out);
            out.push(b'"');
        }
    }
}

/// Whether PostgreSQL's text of a number is one in JSON too: all are but `NaN`, `Infinity` and `-Infinity`.
fn is_finite(number: &str) -> bool {
    number.strip_prefix('-').unwrap_or(number).starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
#[path = "ndjson_tests.rs"]
mod tests;
