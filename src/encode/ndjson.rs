//! NDJSON: one object a line, each value as `row_to_json` writes it, without insignificant whitespace.

use std::ops::Range;

use super::text::{
    BLOCK_ROWS, Block, Blocks, CellValues, Cells, Quick, Spelling, datetime, exact, float, json, number,
};
use crate::model::{ColumnPlan, JsonLargeNumbers};

/// Integers up to this one, 2^53, each have a 64-bit float of their own.
const DOUBLE_INTEGERS: u64 = 1 << 53;

/// Keys up to this length are copied as so many bytes.
const SHORT_KEY: usize = 32;

/// Writes rows as JSON objects.
#[derive(Debug)]
pub(crate) struct NdjsonRows {
    members: Box<[JsonMember]>,
    blocks: Blocks,
}

/// What stays the same of a column from row to row.
#[derive(Debug)]
struct JsonMember {
    /// What stands in front of the value: `{"a":`, then `,"b":` and so on; [`SHORT_KEY`] bytes at least.
    key: Box<[u8]>,
    key_bytes: usize,
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
            let key_bytes = key.len();
            key.resize(key_bytes.max(SHORT_KEY), b' ');
            JsonMember { key: key.into_boxed_slice(), key_bytes, for_doubles, changed: 0 }
        };
        let members: Box<[JsonMember]> = columns.iter().enumerate().map(member).collect();
        let leads: Vec<usize> = members.iter().map(|member| member.key.len()).collect();
        Self { members, blocks: Blocks::new(&leads) }
    }

    /// Appends `rows` of a batch.
    pub(crate) fn append(&mut self, cells: &[Cells<'_>], rows: Range<usize>, out: &mut Vec<u8>) {
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.write(rows, out, |rows, block, special, out| self.append_block(cells, rows, block, special, out));
        self.blocks = blocks;
    }

    fn append_block(
        &mut self,
        cells: &[Cells<'_>],
        rows: Range<usize>,
        block: &mut Block,
        special: &mut [[bool; BLOCK_ROWS]],
        out: &mut Vec<u8>,
    ) {
        let columns: Vec<_> = self
            .members
            .iter()
            .zip(cells)
            .zip(special)
            .map(|((member, cell), special)| {
                let quick = member.prepare(cell, rows.clone(), special);
                let quoted = matches!(
                    cell.values,
                    CellValues::Text(_) | CellValues::Uuid(_) | CellValues::Date { .. } | CellValues::Timestamp { .. }
                );
                (quick, usize::from(quoted), &*special)
            })
            .collect();
        for (line, row) in rows.enumerate() {
            let mut at = block.begin_row(out);
            for (index, (quick, quote, special)) in columns.iter().enumerate() {
                let member = &mut self.members[index];
                at = member.write_key(&mut block.bytes, at);
                if special[line] {
                    block.at = at;
                    member.special_value(&cells[index], row, block, out);
                    at = block.at;
                } else {
                    block.bytes[at] = b'"';
                    at = quick.write(row, &mut block.bytes, at + quote);
                    block.bytes[at] = b'"';
                    at += quote;
                }
            }
            let (end, length) = if columns.is_empty() { (b"{}\n", 3) } else { (b"}\n ", 2) };
            block.bytes[at..at + 3].copy_from_slice(end);
            block.at = at + length;
        }
    }

    /// For each column how many values became strings, or hold numbers that did.
    pub(crate) fn changed(&self) -> impl Iterator<Item = u64> {
        self.members.iter().map(|member| member.changed)
    }
}

impl JsonMember {
    /// How most values can be written; all others are marked.
    fn prepare<'a>(&self, cell: &Cells<'a>, rows: Range<usize>, special: &mut [bool; BLOCK_ROWS]) -> Quick<'a> {
        const SPELLING: Spelling =
            Spelling { words: &[(*b"false   ", 5), (*b"true    ", 4)], timestamp: datetime::JSON };
        let special = &mut special[..rows.len()];
        special.fill(false);
        let quick = match cell.values {
            CellValues::Int64(_) | CellValues::NumberText(_) if self.for_doubles => Quick::Never,
            CellValues::Text(array) => Quick::texts(array, rows.clone(), json::needs_escape, None, special),
            // The words of those that are not finite.
            CellValues::NumberText(array) => {
                Quick::texts(array, rows.clone(), |byte| byte.is_ascii_uppercase(), None, special)
            }
            values => Quick::fixed(&values, rows.clone(), SPELLING, special),
        };
        if matches!(quick, Quick::Never) {
            special.fill(true);
        }
        cell.mark_nulls(rows, special);
        quick
    }

    /// Writes the key at `at`; returns where it ends.
    #[inline]
    fn write_key(&self, out: &mut [u8], at: usize) -> usize {
        let end = at + self.key_bytes;
        if self.key_bytes <= SHORT_KEY {
            out[at..at + SHORT_KEY].copy_from_slice(&self.key[..SHORT_KEY]);
        } else {
            out[at..end].copy_from_slice(&self.key[..self.key_bytes]);
        }
        end
    }

    /// Appends a value that has to be looked at by itself.
    fn special_value(&mut self, cell: &Cells<'_>, row: usize, block: &mut Block, out: &mut Vec<u8>) {
        if cell.is_null(row) {
            block.put(b"null", out);
            return;
        }
        block.flush(out);
        if self.for_doubles {
            self.changed += u64::from(value_for_doubles(&cell.values, row, out));
        } else {
            value(&cell.values, row, out);
        }
    }
}

/// Appends a value; a number that a 64-bit float does not keep is quoted, digits unchanged, and reported.
fn value_for_doubles(values: &CellValues<'_>, row: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    match *values {
        CellValues::Json(array) => return json::compact_for_doubles(out, array.value(row).as_bytes()),
        CellValues::Int64(integers) if integers[row].unsigned_abs() > DOUBLE_INTEGERS => value(values, row, out),
        CellValues::ShortDecimal { .. } | CellValues::Decimal { .. } | CellValues::NumberText(_) => {
            value(values, row, out);
        }
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

fn value(values: &CellValues<'_>, row: usize, out: &mut Vec<u8>) {
    match *values {
        CellValues::Bool(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
        CellValues::Int16(_)
        | CellValues::Int32(_)
        | CellValues::Int64(_)
        | CellValues::ShortDecimal { .. }
        | CellValues::Decimal { .. } => {
            values.output_text(row, out);
        }
        CellValues::Float32(numbers) if numbers[row].is_finite() => float::float4(out, numbers[row]),
        CellValues::Float64(numbers) if numbers[row].is_finite() => float::float8(out, numbers[row]),
        CellValues::NumberText(array) if is_finite(array.value(row)) => {
            out.extend_from_slice(array.value(row).as_bytes());
        }
        CellValues::Text(array) => json::string(out, array.value(row).as_bytes()),
        CellValues::Json(array) => json::compact(out, array.value(row).as_bytes()),
        CellValues::Bytes(array) => {
            out.extend_from_slice(b"\"\\\\");
            number::hex_bytes(out, array.value(row));
            out.push(b'"');
        }
        CellValues::Timestamp { micros, epoch, utc } => {
            out.push(b'"');
            datetime::timestamp(out, micros[row], epoch, utc, datetime::JSON);
            out.push(b'"');
        }
        CellValues::Float32(_)
        | CellValues::Float64(_)
        | CellValues::NumberText(_)
        | CellValues::Uuid(_)
        | CellValues::Date { .. }
        | CellValues::Time(_) => {
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
