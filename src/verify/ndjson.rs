//! Reads NDJSON again: one object a line, each with every column in the schema's order.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::{ExpectedColumn, KEPT_BYTES, ObservedStatistics};
use super::value::{TextKind, Value};
use super::{cut_off, odd};

/// Lines of NDJSON. Values hold no raw line feed, so a line is a row; one row is held at a time.
#[derive(Debug)]
pub(super) struct NdjsonReader {
    columns: Arc<[ExpectedColumn]>,
    found: Vec<ObservedStatistics>,
    rows: u64,
    /// The line that has not ended yet.
    line: Vec<u8>,
}

impl NdjsonReader {
    pub(super) fn new(columns: &Arc<[ExpectedColumn]>) -> Self {
        Self {
            columns: Arc::clone(columns),
            found: vec![ObservedStatistics::default(); columns.len()],
            rows: 0,
            line: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                None => self.line.extend_from_slice(piece),
                Some(end) if self.line.is_empty() => self.row(end)?,
                Some(end) => {
                    let mut line = std::mem::take(&mut self.line);
                    line.extend_from_slice(end);
                    self.row(&line)?;
                    line.clear();
                    self.line = line;
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, line: &[u8]) -> io::Result<()> {
        self.rows = self.rows.saturating_add(1);
        let mut json = serde_json::Deserializer::from_slice(line);
        let row = RowObject { columns: &self.columns, found: &mut self.found };
        row.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| odd(format!("row {}: {error}", self.rows)))
    }

    /// Rows, and what was found of each column.
    pub(super) fn end(self) -> io::Result<(u64, Vec<ObservedStatistics>)> {
        if self.line.is_empty() { Ok((self.rows, self.found)) } else { Err(cut_off()) }
    }
}

/// One row; its errors name columns, never values.
struct RowObject<'a> {
    columns: &'a [ExpectedColumn],
    found: &'a mut [ObservedStatistics],
}

impl<'de> DeserializeSeed<'de> for RowObject<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowObject<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object with every column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        for (column, found) in self.columns.iter().zip(&mut *self.found) {
            let name = map.next_key::<Text<'de>>()?;
            if name.is_none_or(|name| name.0 != *column.name) {
                return Err(A::Error::custom(format_args!("column {:?} is not in its place", column.name)));
            }
            let value: &'de RawValue = map.next_value()?;
            if !observe(column, found, value.get()) {
                return Err(A::Error::custom(format_args!(
                    "column {:?} has something else than its type",
                    column.name
                )));
            }
        }
        match map.next_key::<Text<'de>>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("it has more members than the manifest has columns")),
        }
    }
}

/// Takes a value in; false where it is none of the column's.
fn observe(column: &ExpectedColumn, found: &mut ObservedStatistics, json: &str) -> bool {
    if json == "null" {
        found.nulls += 1;
        return true;
    }
    let quoted = json.starts_with('"');
    let value = match column.kind {
        TextKind::Opaque => return true,
        // JSON itself, and numbers held as text, stand there unquoted.
        TextKind::Text if !quoted => return true,
        TextKind::Text | TextKind::Bytes | TextKind::Uuid if !quoted => return false,
        TextKind::Bool if quoted => return false,
        kind if quoted => {
            // JSON of PostgreSQL's may hold escapes of what is no character.
            let Ok(Text(text)) = serde_json::from_str(json) else { return kind == TextKind::Text && column.more_nulls };
            if kind == TextKind::Text {
                let kept = &text.as_bytes()[..text.len().min(KEPT_BYTES)];
                Some(Value::Bytes(kept.to_vec()))
            } else {
                kind.parse(text.as_bytes())
            }
        }
        kind => kind.parse(json.as_bytes()),
    };
    match value {
        Some(value) => {
            found.widen(value);
            true
        }
        None => false,
    }
}

/// A string, borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::columns::tests::columns;

    fn read(text: &str, cut: usize) -> io::Result<(u64, Vec<ObservedStatistics>)> {
        let mut rows = NdjsonReader::new(&columns(&[("a", TextKind::Whole), ("é\"", TextKind::Text)]));
        for bytes in text.as_bytes().chunks(cut) {
            rows.take(bytes)?;
        }
        rows.end()
    }

    #[test]
    fn rows_are_lines_however_bytes_are_cut() {
        let text = "{\"a\":-1,\"é\\\"\":\"x\\ny\"}\n{\"a\":\"9007199254740993\",\"é\\\"\":null}\n{\"a\":2, \"\\u00e9\\\"\" : \"\" }\n";
        for cut in [1, 2, 7, 1_000] {
            let (rows, found) = read(text, cut).unwrap();
            assert_eq!((rows, found[0].nulls, found[1].nulls), (3, 0, 1), "cut at {cut}");
            let Some((Value::Int(-1), Value::Int(9_007_199_254_740_993))) = found[0].extremes else {
                panic!("{found:?}")
            };
        }
        assert_eq!(read("", 1).unwrap().0, 0);
    }

    #[test]
    fn rows_that_are_not_the_columns_are_errors() {
        for (text, why) in [
            ("{\"a\":1}", "cut off"),
            ("{\"a\":1}\n", "column \"é\\\"\" is not in its place"),
            ("{\"é\\\"\":\"\",\"a\":1}\n", "column \"a\" is not in its place"),
            ("{\"a\":1,\"é\\\"\":\"\",\"b\":1}\n", "more members"),
            ("{\"a\":1.5,\"é\\\"\":\"\"}\n", "column \"a\" has something else than its type"),
            ("{\"a\":{\"secret\":1},\"é\\\"\":\"\"}\n", "column \"a\" has something else than its type"),
            ("[1]\n", "an object with every column"),
            ("{\"a\":1,\"é\\\"\":\"\"}{}\n", "trailing"),
            ("\n", "EOF"),
        ] {
            let error = read(text, 5).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
