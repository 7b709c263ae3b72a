//! Text of some rows, written place by place instead of appended: a short value then costs one store, and where the
//! next one begins is kept in a register.

use std::ops::Range;

use arrow::array::{BooleanArray, FixedSizeBinaryArray, StringArray};

use super::cells::CellValues;
use super::datetime::{self, TimestampStyle, Zone};
use super::number;

/// Rows prepared at a time: enough to make little of the preparation, few enough that what it looked at is still in
/// the processor's first caches when it is written.
pub(crate) const BLOCK_ROWS: usize = 512;

/// Text collected before it is appended to the output.
const BLOCK_BYTES: usize = 32 * 1024;

/// What a [`Quick`] value may overwrite from where it begins, its end included.
const QUICK_BYTES: usize = 64;
const _: () = assert!(number::INTEGER_BYTES <= QUICK_BYTES && datetime::TIMESTAMP_BYTES <= QUICK_BYTES);

/// What else stands around a quick value: up to 32 bytes copied in front, a quote, a line's end.
const AROUND_BYTES: usize = 32 + 4;

/// Texts longer than this on the average are not worth a look beforehand.
const LONG: usize = 48;

/// Texts looked at to see whether most are special, which are then cheaper one by one.
const SAMPLE: usize = 16;

/// Text on its way to the output, with room for the quick values of one row.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) at: usize,
    /// What a row takes at most, values that were [`put`](Self::put) aside.
    row: usize,
}

impl Block {
    /// For rows whose column `i` has `leads[i]` bytes in front of its value.
    pub(crate) fn new(leads: impl Iterator<Item = usize>) -> Self {
        let row = leads.map(|lead| lead + QUICK_BYTES + AROUND_BYTES).sum::<usize>() + AROUND_BYTES;
        Self { bytes: vec![0; BLOCK_BYTES.max(4 * row)].into_boxed_slice(), at: 0, row }
    }

    /// Makes room for a row and returns where it begins.
    #[inline]
    pub(crate) fn begin_row(&mut self, out: &mut Vec<u8>) -> usize {
        if self.bytes.len() - self.at < self.row {
            self.flush(out);
        }
        self.at
    }

    /// Appends bytes of any number; there is room for a row behind them.
    pub(crate) fn put(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.bytes.len() - self.at < text.len().saturating_add(self.row) {
            self.flush(out);
            if self.bytes.len() < text.len().saturating_add(self.row) {
                out.extend_from_slice(text);
                return;
            }
        }
        self.bytes[self.at..self.at + text.len()].copy_from_slice(text);
        self.at += text.len();
    }

    /// Hands on what was collected.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.at]);
        self.at = 0;
    }
}

/// A block, and of each column which of the block's values are looked at by themselves; kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    block: Block,
    special: Vec<[bool; BLOCK_ROWS]>,
}

impl Blocks {
    /// For rows whose column `i` has `leads[i]` bytes in front of its value.
    pub(crate) fn new(leads: &[usize]) -> Self {
        Self { block: Block::new(leads.iter().copied()), special: vec![[false; BLOCK_ROWS]; leads.len()] }
    }

    /// Has `rows` written, [`BLOCK_ROWS`] at a time, and hands on all of it.
    pub(crate) fn write(
        &mut self,
        rows: Range<usize>,
        out: &mut Vec<u8>,
        mut write: impl FnMut(Range<usize>, &mut Block, &mut [[bool; BLOCK_ROWS]], &mut Vec<u8>),
    ) {
        for from in rows.clone().step_by(BLOCK_ROWS) {
            write(from..rows.end.min(from + BLOCK_ROWS), &mut self.block, &mut self.special, out);
        }
        self.block.flush(out);
    }
}

/// `false` and `true`, and their lengths.
pub(crate) type Words = [([u8; 8], usize); 2];

/// What differs between the formats in the text of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spelling {
    pub(crate) words: &'static Words,
    pub(crate) timestamp: TimestampStyle,
}

/// How the values of a column are written where nothing is special about them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Quick<'a> {
    /// All are special.
    Never,
    Bool(&'a BooleanArray, &'static Words),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Uuid(&'a FixedSizeBinaryArray),
    /// Of the years 1 to 9999.
    Date {
        days: &'a [i32],
        epoch: i64,
    },
    /// Of the years 1 to 9999.
    Timestamp {
        micros: &'a [i64],
        epoch: i64,
        separator: u8,
        zone: Zone,
    },
    /// Up to 16 bytes long.
    Text16(Texts<'a>),
    Text32(Texts<'a>),
    Text64(Texts<'a>),
}

/// Texts end to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts<'a> {
    offsets: &'a [i32],
    values: &'a [u8],
}

impl<'a> Quick<'a> {
    /// For values of one width; marks in `special` those of `rows` that have to be written another way.
    pub(crate) fn fixed(values: &CellValues<'a>, rows: Range<usize>, spelling: Spelling, special: &mut [bool]) -> Self {
        match *values {
            CellValues::Bool(array) => Self::Bool(array, spelling.words),
            CellValues::Int16(values) => Self::Int16(values),
            CellValues::Int32(values) => Self::Int32(values),
            CellValues::Int64(values) => Self::Int64(values),
            CellValues::Uuid(array) => Self::Uuid(array),
            CellValues::Date { days, epoch } => {
                for (special, &day) in special.iter_mut().zip(&days[rows]) {
                    *special |= !datetime::is_plain_day(i64::from(day) + epoch);
                }
                Self::Date { days, epoch }
            }
            CellValues::Timestamp { micros, epoch, utc } => {
                for (special, &micros) in special.iter_mut().zip(&micros[rows]) {
                    *special |= !datetime::is_plain_timestamp(micros, epoch);
                }
                let TimestampStyle { separator, .. } = spelling.timestamp;
                Self::Timestamp { micros, epoch, separator, zone: spelling.timestamp.zone(utc) }
            }
            _ => Self::Never,
        }
    }

    /// For texts that can be copied as they are, unless they hold a byte of `special_byte` or have `special_length`;
    /// marks those, and the long ones, in `special`.
    pub(crate) fn texts(
        array: &'a StringArray,
        rows: Range<usize>,
        special_byte: impl Fn(u8) -> bool,
        special_length: Option<usize>,
        special: &mut [bool],
    ) -> Self {
        let texts = Texts { offsets: array.value_offsets(), values: array.value_data() };
        let ends = &texts.offsets[rows.start..=rows.end];
        let bytes = place(ends[0])..place(ends[rows.len()]);
        if bytes.len() > LONG * rows.len() {
            return Self::Never;
        }
        let text = |ends: &[i32]| &texts.values[place(ends[0])..place(ends[1])];
        let sample = ends.windows(2).take(SAMPLE).filter(|ends| text(ends).iter().any(|&byte| special_byte(byte)));
        if sample.count() > SAMPLE / 2 {
            return Self::Never;
        }
        mark_bytes(&texts.values[bytes], ends, special_byte, special);
        let longest = ends.windows(2).map(|ends| ends[1].wrapping_sub(ends[0])).max().unwrap_or(0);
        let (quick, chunk) = match longest {
            ..=16 => (Self::Text16(texts), 16),
            17..=32 => (Self::Text32(texts), 32),
            _ => (Self::Text64(texts), 64),
        };
        // The last ones cannot be read in chunks.
        let last = i32::try_from(texts.values.len()).unwrap_or(i32::MAX).saturating_sub(chunk);
        let special_length = special_length.and_then(|length| i32::try_from(length).ok()).unwrap_or(-1);
        for (special, ends) in special.iter_mut().zip(ends.windows(2)) {
            let length = ends[1].wrapping_sub(ends[0]);
            *special |= length > chunk || length == special_length || ends[0] > last;
        }
        quick
    }

    /// Writes the value of a row at `at`, from where on `out` has [`QUICK_BYTES`]; returns where it ends. What stands
    /// behind that changes too.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call saves and restores more registers than most values take to write")]
    pub(crate) fn write(&self, row: usize, out: &mut [u8], at: usize) -> usize {
        let integer = match *self {
            Self::Int16(values) => i64::from(values[row]),
            Self::Int32(values) => i64::from(values[row]),
            Self::Int64(values) => values[row],
            Self::Never => return at,
            Self::Bool(array, words) => {
                let (word, length) = &words[usize::from(array.value(row))];
                out[at..at + word.len()].copy_from_slice(word);
                return at + length;
            }
            Self::Uuid(array) => {
                let text = number::uuid_text(array.value(row));
                out[at..at + text.len()].copy_from_slice(&text);
                return at + text.len();
            }
            Self::Date { days, epoch } => {
                let text = datetime::plain_date(i64::from(days[row]) + epoch);
                out[at..at + text.len()].copy_from_slice(&text);
                return at + text.len();
            }
            Self::Timestamp { micros, epoch, separator, zone } => {
                return datetime::write_plain_timestamp(out, at, micros[row], epoch, separator, zone);
            }
            Self::Text16(texts) => return texts.write::<16>(row, out, at),
            Self::Text32(texts) => return texts.write::<32>(row, out, at),
            Self::Text64(texts) => return texts.write::<64>(row, out, at),
        };
        // All integers end in one copy of this.
        number::write_integer(out, at, integer)
    }
}

impl Texts<'_> {
    #[inline]
    fn write<const N: usize>(&self, row: usize, out: &mut [u8], at: usize) -> usize {
        let (start, end) = (place(self.offsets[row]), place(self.offsets[row + 1]));
        out[at..at + N].copy_from_slice(&self.values[start..start + N]);
        at + (end - start)
    }
}

/// An offset as a place; it is never below zero.
#[inline]
fn place(offset: i32) -> usize {
    offset.unsigned_abs() as usize
}

/// Marks the texts that hold a byte of this kind. `bytes` are those of all, from `ends[0]` on.
fn mark_bytes(bytes: &[u8], ends: &[i32], special_byte: impl Fn(u8) -> bool, special: &mut [bool]) {
    const LANES: usize = 16;
    let first = place(ends[0]);
    let mut row = 0;
    for (index, block) in bytes.chunks(LANES).enumerate() {
        // Without early exit inside a block, the compiler compares all of it in a few instructions.
        let found = match block.as_array::<LANES>() {
            Some(block) => block.iter().fold(false, |found, &byte| found | special_byte(byte)),
            None => true,
        };
        if !found {
            continue;
        }
        for (at, _) in block.iter().enumerate().filter(|&(_, &byte)| special_byte(byte)) {
            let at = first + index * LANES + at;
            while place(ends[row + 1]) <= at {
                row += 1;
            }
            special[row] = true;
        }
    }
}
