//! CSV as `COPY … TO … (FORMAT csv)` writes it: the type's output text, quoted only where a reader needs it.

use std::ops::Range;

use super::options::{CsvOptions, Newline};
use super::text::{Cells, Values};
use crate::plan::{Carrier, ColumnPlan, is_free_text};

const QUOTE: u8 = b'"';
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Writes rows as CSV.
#[derive(Debug)]
pub(crate) struct CsvRows {
    options: CsvOptions,
    newline: &'static [u8],
    /// For each column, whether its values can be written without looking at them.
    plain: Box<[bool]>,
    /// For each column, whether its values are guarded.
    guarded: Box<[bool]>,
    /// For each column, how many values got a `'` in front.
    changed: Box<[u64]>,
    /// One value that has to be looked at before it is written.
    scratch: Vec<u8>,
}

impl CsvRows {
    pub(crate) fn new(options: &CsvOptions, columns: &[ColumnPlan]) -> Self {
        Self {
            newline: match options.newline {
                Newline::Lf => b"\n",
                Newline::Crlf => b"\r\n",
            },
            plain: columns.iter().map(|column| never_quoted(&column.carrier, options)).collect(),
            guarded: columns
                .iter()
                .map(|column| options.formula_guard && is_free_text(&column.pg_type, &column.carrier))
                .collect(),
            changed: vec![0; columns.len()].into_boxed_slice(),
            options: options.clone(),
            scratch: Vec::new(),
        }
    }

    /// Appends what stands in front of the rows: byte order mark and column names, as far as asked for.
    pub(crate) fn prologue(&mut self, columns: &[ColumnPlan], out: &mut Vec<u8>) {
        if self.options.bom {
            out.extend_from_slice(BYTE_ORDER_MARK);
        }
        if !self.options.header {
            return;
        }
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(self.options.delimiter);
            }
            let name = column.name.as_bytes();
            if self.options.formula_guard && is_formula(name) {
                self.guarded(name, out);
            } else {
                self.field(name, out);
            }
        }
        out.extend_from_slice(self.newline);
    }

    /// Header lines in the prologue.
    pub(crate) fn header_rows(&self) -> u32 {
        u32::from(self.options.header)
    }

    /// Appends `rows` of a batch.
    pub(crate) fn append(&mut self, cells: &[Cells<'_>], rows: Range<usize>, out: &mut Vec<u8>) {
        for row in rows {
            for (index, cell) in cells.iter().enumerate() {
                if index > 0 {
                    out.push(self.options.delimiter);
                }
                if cell.is_null(row) {
                    out.extend_from_slice(self.options.null.as_bytes());
                    continue;
                }
                match cell.values {
                    Values::Text(array) if self.guarded[index] && is_formula(array.value(row).as_bytes()) => {
                        self.guarded(array.value(row).as_bytes(), out);
                        self.changed[index] += 1;
                    }
                    Values::Text(array) | Values::Json(array) => self.field(array.value(row).as_bytes(), out),
                    _ if self.plain[index] => cell.values.output_text(row, out),
                    _ => self.composed(out, |value| cell.values.output_text(row, value)),
                }
            }
            out.extend_from_slice(self.newline);
        }
    }

    /// For each column how many values the guard changed; names are not among them.
    pub(crate) fn changed(&self) -> impl Iterator<Item = u64> {
        self.changed.iter().copied()
    }

    /// Appends text with a `'` in front, by which spreadsheets know that it is text.
    fn guarded(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.composed(out, |guarded| {
            guarded.push(b'\'');
            guarded.extend_from_slice(value);
        });
    }

    /// Appends a value that has to be put together before it can be looked at.
    fn composed(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        write(&mut value);
        self.field(&value, out);
        self.scratch = value;
    }

    /// Appends one value, quoted where it must be.
    fn field(&self, value: &[u8], out: &mut Vec<u8>) {
        if self.needs_quotes(value) {
            quoted(value, out);
        } else {
            out.extend_from_slice(value);
        }
    }

    fn needs_quotes(&self, value: &[u8]) -> bool {
        value == self.options.null.as_bytes()
            // Alone on its line it would be COPY's end of data.
            || (value == b"\\." && self.plain.len() == 1)
            || has_special(value, self.options.delimiter)
    }
}

/// Whether a value holds the delimiter, a quote, CR or LF.
#[expect(clippy::needless_bitwise_bool, reason = "branches would keep the compiler from comparing many bytes at once")]
fn has_special(value: &[u8], delimiter: u8) -> bool {
    let special = |byte: u8| (byte == delimiter) | (byte == QUOTE) | (byte == b'\n') | (byte == b'\r');
    let (blocks, rest) = value.as_chunks::<16>();
    // Without early exit inside a block, the compiler compares all of it in a few instructions.
    blocks.iter().any(|block| block.iter().fold(false, |found, &byte| found | special(byte)))
        || rest.iter().any(|&byte| special(byte))
}

/// Appends a value in quotes, its own quotes doubled.
#[expect(clippy::naive_bytecount, reason = "few values are quoted, and the compiler counts them by blocks")]
fn quoted(value: &[u8], out: &mut Vec<u8>) {
    let quotes = value.iter().filter(|&&byte| byte == QUOTE).count();
    out.push(QUOTE);
    let start = out.len();
    out.resize(start + value.len() + quotes, 0);
    let (result, _, written) = csv_core::quote(value, &mut out[start..], QUOTE, QUOTE, true);
    debug_assert_eq!(result, csv_core::WriteResult::InputEmpty);
    debug_assert_eq!(start + written, out.len());
    out.push(QUOTE);
}

/// Whether a spreadsheet may take text for a formula by its beginning: the characters of OWASP's page on CSV injection,
/// and the full-width forms of the first four, which East Asian editions read alike.
fn is_formula(text: &[u8]) -> bool {
    const FULL_WIDTH: [&str; 4] = ["\u{ff1d}", "\u{ff0b}", "\u{ff0d}", "\u{ff20}"];
    match text.first() {
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | b'\n') => true,
        Some(0xef) => FULL_WIDTH.iter().any(|sign| text.starts_with(sign.as_bytes())),
        _ => false,
    }
}

/// Whether no value of this carrier can hold the delimiter or equal the null text.
fn never_quoted(carrier: &Carrier, options: &CsvOptions) -> bool {
    let Some(alphabet) = alphabet(carrier) else { return false };
    let null = options.null.as_bytes();
    !alphabet.contains(&options.delimiter) && (null.is_empty() || null.iter().any(|byte| !alphabet.contains(byte)))
}

/// Every byte that values of this carrier are made of; `None` where that can be any.
fn alphabet(carrier: &Carrier) -> Option<&'static [u8]> {
    Some(match carrier {
        Carrier::Text | Carrier::Json | Carrier::List(_) | Carrier::Struct(_) | Carrier::Map => return None,
        Carrier::Bool => b"tf",
        Carrier::Int16 | Carrier::Int32 | Carrier::Int64 => b"-0123456789",
        Carrier::Decimal128 { .. } | Carrier::Decimal256 { .. } => b"-.0123456789",
        Carrier::Float32 | Carrier::Float64 | Carrier::NumberText => b"-+.0123456789eNaInfinity",
        Carrier::Bytes => b"\\x0123456789abcdef",
        Carrier::Uuid => b"-0123456789abcdef",
        Carrier::PgDate
        | Carrier::PgTime
        | Carrier::PgTimestamp
        | Carrier::PgTimestampTz
        | Carrier::Date32
        | Carrier::Time64
        | Carrier::Timestamp { .. } => b"-+.:0123456789 BCinfinity",
    })
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
