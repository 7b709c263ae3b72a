//! The rows of a stream as they come: counted, summed up, and held against what the service says of them. The end record is
//! taken out of them, for it is none.

use crc_fast::{CrcAlgorithm, Digest};
use serde::Deserialize;

use super::ask::PullFormat;
use crate::commit::crc64nvme_text;

/// How the end record begins.
const END_RECORD: &[u8] = br#"{"$end":"#;

/// Bytes of an end record at most; a longer line is a row.
const END_RECORD_BYTES_MAX: usize = 16 * 1024;

/// Reads the bytes of a stream.
pub(crate) struct RowReader {
    format: PullFormat,
    crc: Digest,
    rows: u64,
    bytes: u64,
    /// CSV: inside of quotes.
    quoted: bool,
    /// The last byte that was taken as one of the data ended a row, or there was none.
    row_ended: bool,
    /// Where there may be an end record.
    end: Option<EndFinder>,
}

/// Holds back a line that may be the end record, until something follows it.
#[derive(Default)]
struct EndFinder {
    /// The line, whole where it has its line feed.
    held: Vec<u8>,
    /// In a line that is not it.
    in_row: bool,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) crc64nvme: String,
    /// Whether the last row is whole.
    pub(crate) ends_whole: bool,
    pub(crate) end_record: Option<EndLine>,
}

/// What the end record says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct EndLine {
    pub(crate) status: String,
    pub(crate) rows: u64,
    #[serde(default)]
    pub(crate) max_rows: Option<u64>,
    #[serde(default)]
    pub(crate) crc64nvme: Option<String>,
}

#[derive(Deserialize)]
struct EndRecordLine {
    #[serde(rename = "$end")]
    end: EndLine,
}

impl RowReader {
    /// One for a stream, which may end in an end record.
    pub(crate) fn new(format: PullFormat, end_record: bool) -> Self {
        let crc = Digest::new(CrcAlgorithm::Crc64Nvme);
        let end = (end_record && format == PullFormat::Ndjson).then(EndFinder::default);
        Self { format, crc, rows: 0, bytes: 0, quoted: false, row_ended: true, end }
    }

    /// Rows so far, without a CSV's header.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.saturating_sub(u64::from(self.format == PullFormat::Csv))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes what came, and appends what of it is data.
    pub(crate) fn take(&mut self, piece: &[u8], data: &mut Vec<u8>) {
        let before = data.len();
        match &mut self.end {
            Some(finder) => finder.sift(piece, data),
            None => data.extend_from_slice(piece),
        }
        let (_, new) = data.split_at(before);
        self.count(new);
    }

    fn count(&mut self, data: &[u8]) {
        self.crc.update(data);
        self.bytes = self.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        for byte in data {
            match byte {
                b'"' if self.format == PullFormat::Csv => self.quoted = !self.quoted,
                b'\n' if !self.quoted => self.rows = self.rows.saturating_add(1),
                _ => {}
            }
        }
        if let Some(last) = data.last() {
            self.row_ended = *last == b'\n' && !self.quoted;
        }
    }

    /// Ends it; what was held and is no end record is given out too.
    pub(crate) fn finish(mut self, data: &mut Vec<u8>) -> Received {
        let held = self.end.take().unwrap_or_default().held;
        let end_record = held.ends_with(b"\n").then(|| serde_json::from_slice::<EndRecordLine>(&held).ok()).flatten();
        if end_record.is_none() {
            self.count(&held);
            data.extend_from_slice(&held);
        }
        Received {
            rows: self.rows(),
            bytes: self.bytes,
            crc64nvme: crc64nvme_text(self.crc.finalize()),
            ends_whole: self.row_ended,
            end_record: end_record.map(|line| line.end),
        }
    }
}

impl EndFinder {
    fn sift(&mut self, mut piece: &[u8], data: &mut Vec<u8>) {
        while !piece.is_empty() {
            let line_end = piece.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let (line, rest) = piece.split_at(line_end.unwrap_or(piece.len()));
            if self.held.ends_with(b"\n") {
                // Something follows: it was a row.
                data.append(&mut self.held);
            }
            if self.in_row {
                data.extend_from_slice(line);
            } else {
                self.held.extend_from_slice(line);
                let seen = self.held.len().min(END_RECORD.len());
                if self.held[..seen] != END_RECORD[..seen] || self.held.len() > END_RECORD_BYTES_MAX {
                    data.append(&mut self.held);
                    self.in_row = true;
                }
            }
            if line_end.is_some() {
                self.in_row = false;
            }
            piece = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out of pieces of this size.
    fn read(format: PullFormat, end_record: bool, text: &[u8], size: usize) -> (Vec<u8>, Received) {
        let mut reader = RowReader::new(format, end_record);
        let mut data = Vec::new();
        for piece in text.chunks(size) {
            reader.take(piece, &mut data);
        }
        let received = reader.finish(&mut data);
        (data, received)
    }

    const END: &str = "{\"$end\":{\"status\":\"complete\",\"rows\":2,\"max_rows\":null,\"crc64nvme\":\"x\"}}\n";

    #[test]
    fn the_end_record_is_no_row_however_it_is_cut() {
        let rows = "{\"a\":1}\n{\"b\":\"{\\\"$end\\\":\"}\n";
        let text = format!("{rows}{END}");
        for size in 1..=text.len() {
            let (data, received) = read(PullFormat::Ndjson, true, text.as_bytes(), size);
            assert_eq!(data, rows.as_bytes(), "{size}");
            assert_eq!((received.rows, received.bytes, received.ends_whole), (2, rows.len() as u64, true));
            let end = received.end_record.unwrap();
            assert_eq!((end.status.as_str(), end.rows, end.max_rows), ("complete", 2, None));
        }
        // Where none was promised, it is what it looks like: a row.
        let (data, received) = read(PullFormat::Ndjson, false, text.as_bytes(), 7);
        assert_eq!((data.as_slice(), received.rows, received.end_record), (text.as_bytes(), 3, None));
    }

    #[test]
    fn a_row_that_looks_like_the_end_record_is_a_row() {
        let half = &END[..END.len() - 4];
        for (text, rows, whole) in [(format!("{END}{{\"a\":1}}\n"), 2, true), (format!("{END}{half}"), 1, false)] {
            for size in [1, 5, 1000] {
                let (data, received) = read(PullFormat::Ndjson, true, text.as_bytes(), size);
                assert_eq!(data, text.as_bytes());
                assert_eq!((received.rows, received.ends_whole, &received.end_record), (rows, whole, &None));
            }
        }
        let long = format!("{{\"$end\":\"{}\"}}\n", "x".repeat(END_RECORD_BYTES_MAX));
        assert_eq!(read(PullFormat::Ndjson, true, long.as_bytes(), 100).1.rows, 1);
    }

    #[test]
    fn rows_of_csv_may_have_line_breaks() {
        let text = b"a,b\r\n1,\"x\r\ny \"\"z\"\"\"\r\n2,\r\n";
        for size in 1..=text.len() {
            let (data, received) = read(PullFormat::Csv, false, text, size);
            assert_eq!(data, text);
            assert_eq!((received.rows, received.ends_whole), (2, true));
        }
        for cut in [b"a\r\n1".as_slice(), b"a\r\n\"x\r\n"] {
            assert!(!read(PullFormat::Csv, false, cut, 3).1.ends_whole);
        }
        assert_eq!(read(PullFormat::Csv, false, b"", 3).1.rows, 0);
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn nothing_is_lost_and_nothing_is_added(
            lines in prop::collection::vec("(\\{\"\\$e(nd\":)?)?[a-z\"{}:]{0,8}", 0..8),
            size in 1_usize..20,
            last in any::<bool>(),
        ) {
            let mut text = lines.join("\n");
            if last {
                text.push('\n');
            }
            let (data, received) = read(PullFormat::Ndjson, true, text.as_bytes(), size);
            if received.end_record.is_none() {
                prop_assert_eq!(data, text.as_bytes());
                prop_assert_eq!(received.rows, text.matches('\n').count() as u64);
            }
        }
    }
}
