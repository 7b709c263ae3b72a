//! CSV as `COPY … TO … (FORMAT csv)` writes it: the type's output text, quoted only where a reader needs it.

use std::ops::Range;

use super::text::{BLOCK_ROWS, Block, Blocks, CellValues, Cells, Quick, Spelling, datetime};
use crate::model::{Carrier, ColumnPlan, CsvOptions, Newline};

const QUOTE: u8 = b'"';
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug)]
pub(crate) struct CsvRows {
    options: CsvOptions,
    /// Up to two bytes, and how many.
    newline: ([u8; 2], usize),
    /// For each column, whether its values can be written without looking at them.
    plain: Box<[bool]>,
    /// For each column, whether its values are guarded.
    guarded: Box<[bool]>,
    /// For each column, how many values got a `'` in front.
    changed: Box<[u64]>,
    /// One value that has to be looked at before it is written.
    scratch: Vec<u8>,
    blocks: Blocks,
}

impl CsvRows {
    pub(crate) fn new(options: &CsvOptions, columns: &[ColumnPlan]) -> Self {
        Self {
            newline: match options.newline {
                Newline::Lf => (*b"\n ", 1),
                Newline::Crlf => (*b"\r\n", 2),
            },
            plain: columns.iter().map(|column| never_quoted(&column.carrier, options)).collect(),
            guarded: columns.iter().map(|column| options.formula_guard && column.free_text).collect(),
            changed: vec![0; columns.len()].into_boxed_slice(),
            options: options.clone(),
            scratch: Vec::new(),
            blocks: Blocks::new(&vec![1; columns.len()]),
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
        out.extend_from_slice(&self.newline.0[..self.newline.1]);
    }

    /// Header lines in the prologue.
    pub(crate) fn header_rows(&self) -> u32 {
        u32::from(self.options.header)
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
        let columns: Vec<_> = cells
            .iter()
            .zip(special)
            .enumerate()
            .map(|(index, (cell, special))| {
                let quick = self.prepare(index, cell, rows.clone(), special);
                (quick, &*special)
            })
            .collect();
        let mut any = [false; BLOCK_ROWS];
        for (_, special) in &columns {
            any.iter_mut().zip(special.iter()).for_each(|(any, special)| *any |= special);
        }
        let delimiter = self.options.delimiter;
        for (line, row) in rows.enumerate() {
            let mut at = block.begin_row(out);
            for (index, (quick, special)) in columns.iter().enumerate() {
                // Of most rows nothing is special, which is asked once for all columns.
                if any[line] && special[line] {
                    block.at = at;
                    self.special_value(index, &cells[index], row, block, out);
                    at = block.at;
                } else {
                    at = quick.write(row, &mut block.bytes, at);
                }
                block.bytes[at] = delimiter;
                at += 1;
            }
            // Behind the last value is none.
            at -= usize::from(!columns.is_empty());
            block.bytes[at..at + 2].copy_from_slice(&self.newline.0);
            block.at = at + self.newline.1;
        }
    }

    /// How most values of a column can be written; all others are marked.
    fn prepare<'a>(
        &self,
        index: usize,
        cell: &Cells<'a>,
        rows: Range<usize>,
        special: &mut [bool; BLOCK_ROWS],
    ) -> Quick<'a> {
        const SPELLING: Spelling =
            Spelling { words: &[(*b"f       ", 1), (*b"t       ", 1)], timestamp: datetime::OUTPUT };
        let special = &mut special[..rows.len()];
        special.fill(false);
        let delimiter = self.options.delimiter;
        let null = self.options.null.len();
        let quick = match cell.values {
            CellValues::Text(_) if self.guarded[index] => Quick::Never,
            // `\.` alone on its line.
            CellValues::Text(array) | CellValues::Json(array) if self.plain.len() == 1 => {
                let special_byte = |byte| is_special(byte, delimiter) || byte == b'\\';
                Quick::texts(array, rows.clone(), special_byte, Some(null), special)
            }
            CellValues::Text(array) | CellValues::Json(array) => {
                Quick::texts(array, rows.clone(), |byte| is_special(byte, delimiter), Some(null), special)
            }
            _ if !self.plain[index] => Quick::Never,
            CellValues::NumberText(array) => Quick::texts(array, rows.clone(), |_| false, None, special),
            values => Quick::fixed(&values, rows.clone(), SPELLING, special),
        };
        if matches!(quick, Quick::Never) {
            special.fill(true);
        }
        cell.mark_nulls(rows, special);
        quick
    }

    /// Appends a value that has to be looked at by itself.
    fn special_value(&mut self, index: usize, cell: &Cells<'_>, row: usize, block: &mut Block, out: &mut Vec<u8>) {
        if cell.is_null(row) {
            block.put(self.options.null.as_bytes(), out);
            return;
        }
        block.flush(out);
        match cell.values {
            CellValues::Text(array) if self.guarded[index] && is_formula(array.value(row).as_bytes()) => {
                self.guarded(array.value(row).as_bytes(), out);
                self.changed[index] += 1;
            }
            CellValues::Text(array) | CellValues::Json(array) => self.field(array.value(row).as_bytes(), out),
            _ if self.plain[index] => cell.values.output_text(row, out),
            _ => self.composed(out, |value| cell.values.output_text(row, value)),
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
fn has_special(value: &[u8], delimiter: u8) -> bool {
    const LANES: usize = 16;
    let special = |byte: u8| is_special(byte, delimiter);
    // Without early exit inside a block, the compiler compares all of it in a few instructions.
    let any = |block: &[u8; LANES]| block.iter().fold(false, |found, &byte| found | special(byte));
    match value.last_chunk::<LANES>() {
        Some(last) => value.as_chunks().0.iter().any(any) || any(last),
        None => value.iter().any(|&byte| special(byte)),
    }
}

#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "branches would keep the compiler from comparing many bytes at once")]
fn is_special(byte: u8, delimiter: u8) -> bool {
    (byte == delimiter) | (byte == QUOTE) | (byte == b'\n') | (byte == b'\r')
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
