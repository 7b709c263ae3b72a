//! Reads CSV again, as bytes come by: every field's length, NULL and value.

use std::io;
use std::sync::Arc;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder, Terminator};

use super::columns::{ExpectedColumn, KEPT_BYTES, ObservedStatistics};
use super::value::TextKind;
use super::{cut_off, odd};
use crate::base::words::counted;
use crate::model::{CsvOptions, Newline};

const BYTE_ORDER_MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// Records of CSV, each with one field a column; the first may be a header.
///
/// A record ends at a line feed outside quotes, whichever newline was chosen: a `\r` before it is cut off the last
/// field. `csv_core` skips empty lines, but to PostgreSQL an empty line is a NULL in a table of one column, so those are
/// seen here. Of a field no more is kept than is needed to tell it from others.
#[derive(Debug)]
pub(super) struct CsvReader {
    reader: Reader,
    options: CsvOptions,
    columns: Arc<[ExpectedColumn]>,
    found: Vec<ObservedStatistics>,
    /// How much of the byte order mark is still to come.
    mark: &'static [u8],
    header: bool,
    records: u64,
    /// The number of the field that is being read.
    field: usize,
    /// Whether it begins with a quote; `None` before its first byte.
    quoted: Option<bool>,
    value: Vec<u8>,
    /// Bytes of a field that are kept.
    keep: usize,
    longer: bool,
    output: Box<[u8; 4096]>,
}

impl CsvReader {
    pub(super) fn new(options: &CsvOptions, columns: &Arc<[ExpectedColumn]>) -> Self {
        let reader = ReaderBuilder::new().delimiter(options.delimiter).terminator(Terminator::Any(b'\n')).build();
        let names = columns.iter().map(|column| column.name.len());
        let needed = names.chain([KEPT_BYTES, options.null.len()]).max().unwrap_or(KEPT_BYTES);
        Self {
            reader,
            options: options.clone(),
            columns: Arc::clone(columns),
            found: vec![ObservedStatistics::default(); columns.len()],
            mark: if options.bom { &BYTE_ORDER_MARK } else { &[] },
            header: options.header,
            records: 0,
            field: 0,
            quoted: None,
            value: Vec::new(),
            // A guard's `'` before it, a `\r` after it, and one that tells that there is more.
            keep: needed.saturating_add(3),
            longer: false,
            output: Box::new([0; 4096]),
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let marked = self.mark.len().min(bytes.len());
        let (mark, mut input) = bytes.split_at(marked);
        if *mark != self.mark[..marked] {
            return Err(odd("it does not begin with the byte order mark"));
        }
        self.mark = &self.mark[marked..];
        while let Some(first) = input.first() {
            if self.field == 0 && self.quoted.is_none() && *first == b'\n' {
                input = &input[1..];
                self.end_field(true)?;
                continue;
            }
            self.quoted.get_or_insert(*first == b'"');
            let (result, read, written) = self.reader.read_field(input, &mut *self.output);
            input = &input[read..];
            let room = self.keep.saturating_sub(self.value.len());
            self.longer |= written > room;
            self.value.extend_from_slice(&self.output[..written.min(room)]);
            if let ReadFieldResult::Field { record_end } = result {
                self.end_field(record_end)?;
            }
        }
        Ok(())
    }

    fn end_field(&mut self, record_end: bool) -> io::Result<()> {
        if record_end
            && self.options.newline == Newline::Crlf
            && !self.longer
            && self.value.pop_if(|last| *last == b'\r').is_none()
        {
            return Err(odd(format!("record {} does not end in CRLF", self.records.saturating_add(1))));
        }
        let quoted = self.quoted.take() == Some(true);
        // One field too many is told at the record's end.
        if let Some(column) = self.columns.get(self.field) {
            if self.header {
                self.check_name(column)?;
            } else if !quoted && !self.longer && self.value == self.options.null.as_bytes() {
                self.found[self.field].nulls += 1;
            } else {
                self.observe()?;
            }
        }
        self.value.clear();
        self.longer = false;
        self.field += 1;
        if record_end { self.end_record() } else { Ok(()) }
    }

    fn check_name(&self, column: &ExpectedColumn) -> io::Result<()> {
        let guarded = || self.options.formula_guard && self.value.strip_prefix(b"'") == Some(column.name.as_bytes());
        if self.value == column.name.as_bytes() || guarded() {
            return Ok(());
        }
        Err(odd(format!("the header names something else where the manifest has column {:?}", column.name)))
    }

    fn observe(&mut self) -> io::Result<()> {
        let column = &self.columns[self.field];
        // No value that has to be read whole is so long, but bytes.
        let whole = !self.longer || matches!(column.kind, TextKind::Text | TextKind::Bytes);
        // Pairs of digits after the `\x`.
        let kept = if self.longer && column.kind == TextKind::Bytes { self.value.len() & !1 } else { self.value.len() };
        match column.kind.parse(&self.value[..kept]).filter(|_| whole) {
            Some(value) => self.found[self.field].widen(value),
            None if column.kind == TextKind::Opaque => {}
            None => {
                let row = self.records.saturating_add(1).saturating_sub(u64::from(self.options.header));
                return Err(odd(format!("row {row} has something else than its type in column {:?}", column.name)));
            }
        }
        Ok(())
    }

    fn end_record(&mut self) -> io::Result<()> {
        self.records = self.records.saturating_add(1);
        self.header = false;
        let fields = std::mem::take(&mut self.field);
        if fields == self.columns.len() {
            return Ok(());
        }
        let (record, columns) = (self.records, self.columns.len());
        let (fields, columns) = (counted(fields, "field"), counted(columns, "column"));
        Err(odd(format!("record {record} has {fields} where the manifest has {columns}")))
    }

    /// Lines, the header among them, and what was found of each column.
    pub(super) fn end(self) -> io::Result<(u64, Vec<ObservedStatistics>)> {
        let whole = self.field == 0 && self.quoted.is_none() && self.mark.is_empty();
        if whole { Ok((self.records, self.found)) } else { Err(cut_off()) }
    }
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
