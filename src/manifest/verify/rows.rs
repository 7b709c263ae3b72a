//! Counts the lines of a text format, as bytes come by.

use std::io;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use crate::encode::CsvOptions;

const BOM_BYTES: usize = 3;

/// Lines of NDJSON: values hold no raw line feed.
#[derive(Debug, Default)]
pub(super) struct Lines {
    count: u64,
    open: bool,
}

impl Lines {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let ends = bytes.split(|byte| *byte == b'\n').skip(1).count();
        self.count = self.count.saturating_add(u64::try_from(ends).unwrap_or(u64::MAX));
        self.open = bytes.last().map_or(self.open, |byte| *byte != b'\n');
    }

    pub(super) fn end(self) -> io::Result<u64> {
        if self.open { Err(cut_off()) } else { Ok(self.count) }
    }
}

/// Records of CSV, header lines among them, each with one field a column.
///
/// A record ends at a line feed outside quotes, whichever newline was chosen: a `\r` before it counts into the last
/// field, which only lengthens it. `csv_core` skips empty lines, but to PostgreSQL an empty line is a NULL in a table
/// of one column, so those are counted here.
#[derive(Debug)]
pub(super) struct CsvRows {
    reader: Reader,
    columns: usize,
    skip: usize,
    records: u64,
    fields: usize,
    at_start: bool,
    output: Box<[u8; 4096]>,
    ends: Box<[usize; 256]>,
}

impl CsvRows {
    pub(super) fn new(options: &CsvOptions, columns: usize) -> Self {
        let reader = ReaderBuilder::new().delimiter(options.delimiter).terminator(Terminator::Any(b'\n')).build();
        Self {
            reader,
            columns,
            skip: if options.bom { BOM_BYTES } else { 0 },
            records: 0,
            fields: 0,
            at_start: true,
            output: Box::new([0; 4096]),
            ends: Box::new([0; 256]),
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let mut input = &bytes[skipped..];
        while !input.is_empty() {
            if self.at_start && input[0] == b'\n' {
                input = &input[1..];
                self.fields = 1;
                self.end_record()?;
                continue;
            }
            let (result, read, _, ends) = self.reader.read_record(input, &mut *self.output, &mut *self.ends);
            input = &input[read..];
            self.fields += ends;
            self.at_start = false;
            if matches!(result, ReadRecordResult::Record) {
                self.end_record()?;
            }
        }
        Ok(())
    }

    fn end_record(&mut self) -> io::Result<()> {
        self.records = self.records.saturating_add(1);
        let fields = std::mem::take(&mut self.fields);
        self.at_start = true;
        if fields == self.columns {
            return Ok(());
        }
        let (record, columns) = (self.records, self.columns);
        let text = format!("record {record} has {fields} fields where the manifest has {columns} columns");
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    pub(super) fn end(self) -> io::Result<u64> {
        if self.at_start { Ok(self.records) } else { Err(cut_off()) }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "its last line is cut off")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::Newline;

    fn options(newline: Newline, bom: bool) -> CsvOptions {
        CsvOptions { header: true, delimiter: b',', null: String::new(), newline, bom, formula_guard: false }
    }

    fn count(text: &str, columns: usize, options: &CsvOptions, cut: usize) -> io::Result<u64> {
        let mut rows = CsvRows::new(options, columns);
        for bytes in text.as_bytes().chunks(cut) {
            rows.take(bytes)?;
        }
        rows.end()
    }

    #[test]
    fn records_are_lines_outside_quotes_however_bytes_are_cut() {
        let lf = options(Newline::Lf, false);
        let crlf = options(Newline::Crlf, false);
        let cases = [
            ("nothing", "", 2, &lf, 0),
            ("plain", "a,b\n1,2\n", 2, &lf, 2),
            ("a line feed in quotes", "a,b\n\"x\ny\",2\n", 2, &lf, 2),
            ("doubled quotes", "a\n\"\"\"\n\"\"\"\n\"\"\n", 1, &lf, 3),
            ("one column of NULLs", "a\n\n\n1\n\n", 1, &lf, 5),
            ("two columns of NULLs", "a,b\n,\n,\n", 2, &lf, 3),
            ("CRLF", "a,b\r\n1,\"2\"\r\n\"x\r\ny\",\r\n", 2, &crlf, 3),
            ("CRLF, one column of NULLs", "a\r\n\r\n\r\n", 1, &crlf, 3),
            ("a byte order mark", "\u{feff}a\n\n1\n", 1, &options(Newline::Lf, true), 3),
            ("a byte order mark and no header", "\u{feff}\n\n", 1, &options(Newline::Lf, true), 2),
        ];
        for (case, text, columns, options, wanted) in cases {
            for cut in [1, 2, 3, 5, 1_000] {
                assert_eq!(count(text, columns, options, cut).unwrap(), wanted, "{case}, cut at {cut}");
            }
        }
    }

    #[test]
    fn wide_and_long_records_are_one_record() {
        let lf = options(Newline::Lf, false);
        let wide = format!("{}x\n", "x,".repeat(1_599));
        assert_eq!(count(&wide, 1_600, &lf, 1_000).unwrap(), 1);
        let long = format!("\"{}\"\n", "x\"\"\n".repeat(100_000));
        assert_eq!(count(&long, 1, &lf, 77).unwrap(), 1);
    }

    #[test]
    fn damaged_records_are_errors() {
        let lf = options(Newline::Lf, false);
        for (text, columns) in [("a,b\n1\n", 2), ("a\n1,2\n", 1), ("a,b\n\n", 2), ("a\n1", 1), ("a\n\"1\n", 1)] {
            assert!(count(text, columns, &lf, 4).is_err(), "{text:?}");
        }
        let mut lines = Lines::default();
        lines.take(b"{}\n{}");
        assert!(lines.end().is_err());
    }

    proptest! {
        /// The writer is the `csv` crate's own, so that reader and writer are not both ours.
        #[test]
        fn counts_what_csv_wrote(rows in prop::collection::vec(prop::collection::vec("[a\",\n\r é]{0,6}", 3), 0..20), cut in 1_usize..50) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let counted = count(&text, 3, &options(Newline::Lf, false), cut).unwrap();
            prop_assert_eq!(counted, u64::try_from(rows.len()).unwrap());
        }
    }
}
