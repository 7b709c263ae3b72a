//! The server's side of a COPY, for tests and benches: rows become payload, payload becomes messages,
//! messages become a stream.

#![expect(clippy::unwrap_used, reason = "a test or a bench fails by panicking")]

use std::borrow::Borrow;

#[cfg(test)]
use proptest::{collection::vec, prelude::*};

/// One row: a value's bytes, or NULL.
pub(crate) type Row = Vec<Option<Vec<u8>>>;

/// Signature, no flags, no extension.
pub(crate) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

pub(crate) fn row_bytes(row: &Row) -> Vec<u8> {
    let mut bytes = i16::try_from(row.len()).unwrap().to_be_bytes().to_vec();
    for value in row {
        match value {
            None => bytes.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                bytes.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend(value);
            }
        }
    }
    bytes
}

/// The whole COPY payload.
#[cfg(test)]
pub(crate) fn payload(rows: &[Row]) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    bytes.extend(rows.iter().flat_map(row_bytes));
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(i32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The answers to Parse, Bind and Execute up to `CopyOutResponse`.
pub(crate) fn opening(columns: u16) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(columns.to_be_bytes());
    body.extend([0, 1].repeat(usize::from(columns)));
    [message(b'1', b""), message(b'2', b""), message(b'H', &body)].concat()
}

/// `CopyDone`, the command tag and `ReadyForQuery`.
pub(crate) fn ending(rows: usize) -> Vec<u8> {
    [message(b'c', b""), message(b'C', format!("COPY {rows}\0").as_bytes()), message(b'Z', b"T")].concat()
}

/// As PostgreSQL sends it: the header with the first row, then a row a message, then the trailer.
pub(crate) fn stream(columns: u16, rows: impl IntoIterator<Item = impl Borrow<Row>>) -> Vec<u8> {
    let mut count = 0;
    let mut bytes = opening(columns);
    let mut before = HEADER.to_vec();
    for row in rows {
        before.extend(row_bytes(row.borrow()));
        count += 1;
        bytes.extend(message(b'd', &before));
        before.clear();
    }
    before.extend((-1_i16).to_be_bytes());
    bytes.extend(message(b'd', &before));
    bytes.extend(ending(count));
    bytes
}

/// The same rows with the payload cut into messages anywhere.
#[cfg(test)]
pub(crate) fn stream_cut(columns: u16, rows: &[Row], cuts: &[usize]) -> Vec<u8> {
    let payload = payload(rows);
    let messages = pieces(&payload, cuts).into_iter().flat_map(|piece| message(b'd', piece));
    [opening(columns), messages.collect(), ending(rows.len())].concat()
}

/// `bytes` in pieces whose lengths are taken from `cuts`, round and round.
#[cfg(test)]
pub(crate) fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for &cut in cuts.iter().cycle() {
        if rest.is_empty() || cuts.iter().all(|&cut| cut == 0) {
            break;
        }
        let (piece, tail) = rest.split_at(cut.min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// Lengths of pieces: often tiny, sometimes several rows.
#[cfg(test)]
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![0_usize..12, 0_usize..300, Just(100_000)], 1..12)
}

/// Rows of so many columns, with NULLs and empty values.
#[cfg(test)]
pub(crate) fn rows(columns: usize, most: usize) -> impl Strategy<Value = Vec<Row>> {
    let value = prop_oneof![
        2 => Just(None),
        2 => Just(Some(Vec::new())),
        8 => vec(any::<u8>(), 0..24).prop_map(Some),
        1 => vec(any::<u8>(), 200..700).prop_map(Some),
    ];
    vec(vec(value, columns), 0..most)
}
