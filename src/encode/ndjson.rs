//! NDJSON: one object a line, each value as `row_to_json` writes it, without insignificant whitespace.

use std::ops::Range;

use super::text::{Cells, Values, datetime, exact, float, json, number};
use crate::plan::ColumnPlan;
use crate::plan::policy::JsonLargeNumbers;

/// Integers up to this one, 2^53, each have a 64-bit float of their own.
const DOUBLE_INTEGERS: u64 = 1 << 53;

/// Writes rows as JSON objects.
#[derive(Debug)]
pub(crate) struct NdjsonRows {
    members: Box<[Member]>,
}

/// What stays the same of a column from row to row.
#[derive(Debug)]
struct Member {
    /// What stands in front of the value: `{"a":`, then `,"b":` and so on.
    key: Box<[u8]>,
    /// Whether numbers that a 64-bit float does not keep become strings.
    for_doubles: bool,
    /// Values in which that happened.
    changed: u64,
}

impl NdjsonRows {
    pub(crate) fn new(columns: &[ColumnPlan]) -> Self {
        let member = |(index, column): (usize, &ColumnPlan)| {
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            json::string(&mut key, column.name.as_bytes());
            key.push(b':');
            let for_doubles = column.policies.json_large_numbers == JsonLargeNumbers::String;
            Member { key: key.into_boxed_slice(), for_doubles, changed: 0 }
        };
        Self { members: columns.iter().enumerate().map(member).collect() }
    }

    /// Appends `rows` of a batch.
    pub(crate) fn append(&mut self, cells: &[Cells<'_>], rows: Range<usize>, out: &mut Vec<u8>) {
        let end: &[u8] = if self.members.is_empty() { b"{}\n" } else { b"}\n" };
        for row in rows {
            for (member, cell) in self.members.iter_mut().zip(cells) {
                out.extend_from_slice(&member.key);
                if cell.is_null(row) {
                    out.extend_from_slice(b"null");
                } else if member.for_doubles {
                    member.changed += u64::from(value_for_doubles(&cell.values, row, out));
                } else {
                    value(&cell.values, row, out);
                }
            }
            out.extend_from_slice(end);
        }
    }

    /// For each column how many values became strings, or hold numbers that did.
    pub(crate) fn changed(&self) -> impl Iterator<Item = u64> {
        self.members.iter().map(|member| member.changed)
    }
}

/// Appends a value; a number that a 64-bit float does not keep is quoted, digits unchanged, and reported.
fn value_for_doubles(values: &Values<'_>, row: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    match *values {
        Values::Json(array) => return json::compact_for_doubles(out, array.value(row).as_bytes()),
        Values::Int64(integers) if integers[row].unsigned_abs() > DOUBLE_INTEGERS => value(values, row, out),
        Values::Decimal { .. } | Values::NumberText(_) => value(values, row, out),
        _ => {
            value(values, row, out);
            return false;
        }
    }
    let written = &out[start..];
    // NaN and the infinities are strings already.
    if written.first() == Some(&b'"') || exact::kept_by_double(written) {
        return false;
    }
    out.insert(start, b'"');
    out.push(b'"');
    true
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
