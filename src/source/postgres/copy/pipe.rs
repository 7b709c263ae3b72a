//! What is handed to rayon and comes back: bytes that were read, and how far they are framed and decoded.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::super::decode::{BatchDecoder, DecodeError, RowKey};
use super::super::frame::{Field, FieldTable, FrameError, FrameState, Framer};
use super::super::watch::Watch;
use crate::base::memory;
use crate::source::Batch;
use crate::source::postgres::plan::PgColumn;

/// Fields framed before they are decoded: their places (8 bytes each) and their bytes stay in the processor's cache for
/// all columns.
const FRAMED_FIELDS: usize = 8192;

/// The last message of a COPY: whoever has read it need not wait for more.
const READY_TAG: u8 = b'Z';

const READY_BYTES: usize = 6;

/// What is handed to rayon and comes back.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) buffer: Vec<u8>,
    /// `buffer[start..filled]` is not yet framed, or framed and not yet decoded.
    start: usize,
    pub(super) filled: usize,
    pub(super) framer: Framer,
    fields: FieldTable,
    next_row: usize,
    /// Rows framed at a time.
    framed_rows: usize,
    /// Bytes that the rows of `fields` take.
    consumed: usize,
    /// Bytes of all rows framed so far.
    pub(super) framed_bytes: u64,
    /// A row with more bytes ends the read.
    pub(super) row_bytes_max: usize,
    state: FrameState,
    decoder: BatchDecoder,
    /// Why no more bytes will come; what has come is looked at first, since it may hold the server's last words.
    pub(super) end: Option<End>,
}

#[derive(Debug)]
pub(super) enum End {
    Closed,
    Broken(std::io::Error),
}

#[derive(Debug)]
pub(super) enum CopyProgress {
    Batch(Batch),
    NeedMore,
    Done(Option<Batch>),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error("a row takes more bytes than the {0} that it may")]
    RowTooLarge(usize),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Pipe {
    pub(super) fn new(
        columns: &Arc<[PgColumn]>,
        key: RowKey,
        cap: Option<NonZeroU64>,
        watch: &Watch,
    ) -> Result<Self, DecodeError> {
        let fields = columns.len() + key.extra().len();
        let width = u16::try_from(fields)
            .map_err(|_| DecodeError::Columns { expected: usize::from(u16::MAX), found: fields })?;
        Ok(Self {
            buffer: watch.buffers().take().unwrap_or_else(|| vec![0; memory::READ_BUFFER_BYTES]),
            start: 0,
            filled: 0,
            framer: Framer::new(width),
            fields: FieldTable::default(),
            next_row: 0,
            framed_rows: FRAMED_FIELDS / fields.max(1),
            consumed: 0,
            framed_bytes: 0,
            row_bytes_max: memory::MESSAGE_BYTES_MAX,
            state: FrameState::Full,
            decoder: BatchDecoder::new(columns)?.with_row_key(key).with_cap(cap),
            end: None,
        })
    }

    /// Takes steps until so many batches are full, or they are as large, the bytes run out or the COPY ends: these batches,
    /// and what is next where it is no batch.
    pub(super) fn steps(&mut self, batches: usize) -> (VecDeque<Batch>, Option<Result<CopyProgress, StepError>>) {
        let (mut ready, mut bytes) = (VecDeque::with_capacity(batches), 0);
        // A batch may be far beyond its bound: numbers that are short on the wire become long texts.
        while ready.len() < batches && bytes < batches.saturating_mul(memory::BATCH_BYTES_MAX) {
            match self.step() {
                Ok(CopyProgress::Batch(batch)) => {
                    bytes += batch.rows.get_array_memory_size();
                    ready.push_back(batch);
                }
                progress => return (ready, Some(progress)),
            }
        }
        (ready, None)
    }

    /// Frames and decodes until a batch is full, the bytes run out or the COPY ends.
    fn step(&mut self) -> Result<CopyProgress, StepError> {
        loop {
            if self.next_row < self.fields.rows() {
                let input = &self.buffer[self.start..self.filled];
                self.next_row = self.decoder.decode(input, &self.fields, self.next_row)?;
                if self.decoder.is_full() {
                    return Ok(CopyProgress::Batch(self.decoder.take_batch()?));
                }
            }
            self.start += std::mem::take(&mut self.consumed);
            match self.state {
                FrameState::Full => {}
                FrameState::NeedMore => {
                    // Looked at again once more has been read.
                    self.state = FrameState::Full;
                    return Ok(CopyProgress::NeedMore);
                }
                FrameState::Ready => {
                    let told = self.decoder.rows() == 0 && !self.decoder.is_beyond_cap();
                    let rest = if told { None } else { Some(self.decoder.take_batch()?) };
                    return Ok(CopyProgress::Done(rest));
                }
            }
            let input = &mut self.buffer[self.start..self.filled];
            let framed = self.framer.frame(input, &mut self.fields, self.framed_rows)?;
            self.consumed = framed.consumed;
            self.framed_bytes = self.framed_bytes.saturating_add(framed.consumed as u64);
            self.state = framed.state;
            self.next_row = 0;
            self.check_rows()?;
        }
    }

    /// Refuses a row that takes too much, framed or not.
    fn check_rows(&self) -> Result<(), StepError> {
        let too_large = || Err(StepError::RowTooLarge(self.row_bytes_max));
        let row_bytes = |row: &[Field]| row.iter().map(|field| field.length()).sum::<usize>();
        let mut rows = self.fields.fields().chunks(self.fields.columns().max(1));
        if self.consumed > self.row_bytes_max && rows.any(|row| row_bytes(row) > self.row_bytes_max) {
            return too_large();
        }
        // Messages, fields and the length of a field have headers.
        let room = self.row_bytes_max.saturating_add(16 + 4 * self.fields.columns());
        if self.state == FrameState::NeedMore && self.framer.needed_bytes() > room { too_large() } else { Ok(()) }
    }

    /// Moves what is left to the front and makes room for at least what the framer waits for.
    pub(super) fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        let wanted = self.framer.needed_bytes().max(memory::READ_BUFFER_BYTES);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        } else if self.buffer.len() > wanted && self.filled <= wanted {
            // A huge row is behind us; its room goes back.
            self.buffer.truncate(wanted);
            self.buffer.shrink_to_fit();
        }
    }

    pub(super) fn ends_ready(&self) -> bool {
        self.filled >= READY_BYTES
            && self.buffer[self.filled - READY_BYTES..self.filled].starts_with(&[READY_TAG, 0, 0, 0, 5])
    }
}
