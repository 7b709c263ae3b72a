//! Insides of the stages, opened to the benches in `benches/` by the feature `bench`. No part of the interface.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::source::postgres::decode::{BATCH_ROWS_MAX, BatchDecoder};
use crate::source::postgres::frame::{FieldTable, FrameState, Framer, wire};
use crate::source::postgres::plan::PgColumn;
use crate::store::checksums::Checksums;
use crate::store::direct::{AlignedBuffer, BlockFile};

/// Bytes of a block of a local file.
pub const LOCAL_BLOCK_BYTES: usize = crate::store::direct::LOCAL_BLOCK_BYTES;

/// Bytes that a reader receives at once.
pub const READ_BUFFER_BYTES: usize = crate::base::memory::READ_BUFFER_BYTES;

/// Bytes that gather in the kernel before a reader is woken for more.
pub const READ_LOW_WATER_BYTES: usize = crate::base::postgres::low_water::READ_LOW_WATER_BYTES;

/// One row on the wire: each value's bytes, or NULL.
pub type Row = Vec<Option<Vec<u8>>>;

/// All that the server sends for a COPY of `rows`, from the answer to Parse to `ReadyForQuery`, a row a message.
pub fn copy_stream(columns: u16, rows: impl IntoIterator<Item = Row>) -> Vec<u8> {
    wire::stream(columns, rows)
}

/// What it took to read a COPY. Bringing bytes into the buffer and dropping batches count nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct StageTimes {
    /// Time spent in the framer.
    pub frame: Duration,
    /// Time spent in the decoder.
    pub decode: Duration,
}

/// Reads COPYs as the source does, one buffer after the other, but from memory. The decoder finds each buffer as warm
/// in the caches as the framer left it.
#[derive(Debug)]
pub struct CopyReader {
    width: u16,
    buffer: Vec<u8>,
    fields: FieldTable,
    decoder: Option<BatchDecoder>,
}

impl CopyReader {
    /// Frames rows of so many columns, and decodes nothing.
    pub fn framing(width: u16) -> Self {
        Self { width, buffer: vec![0; READ_BUFFER_BYTES], fields: FieldTable::default(), decoder: None }
    }

    /// Frames and decodes.
    ///
    /// # Errors
    /// A column that cannot be decoded as planned, or too many of them.
    pub fn decoding(columns: &Arc<[PgColumn]>) -> Result<Self, Box<dyn Error>> {
        let decoder = Some(BatchDecoder::new(columns)?);
        Ok(Self { decoder, ..Self::framing(u16::try_from(columns.len())?) })
    }

    /// Reads one COPY to its end and hands on its batches.
    ///
    /// # Errors
    /// A broken stream, a row larger than the buffer, or a value that cannot be decoded.
    pub fn read(&mut self, stream: &[u8], mut take: impl FnMut(RecordBatch)) -> Result<StageTimes, Box<dyn Error>> {
        let mut framer = Framer::new(self.width);
        let mut times = StageTimes::default();
        let (mut rest, mut filled) = (stream, 0);
        loop {
            let (arrived, later) = rest.split_at(rest.len().min(self.buffer.len() - filled));
            self.buffer[filled..filled + arrived.len()].copy_from_slice(arrived);
            filled += arrived.len();
            rest = later;
            let mut start = 0;
            let state = loop {
                let began = Instant::now();
                let step = framer.frame(&mut self.buffer[start..filled], &mut self.fields, BATCH_ROWS_MAX)?;
                times.frame += began.elapsed();
                times.decode += self.decode(start, filled, &mut take)?;
                start += step.consumed;
                if step.state != FrameState::Full {
                    break step.state;
                }
            };
            if state == FrameState::Ready {
                break;
            }
            if arrived.is_empty() {
                return Err(framer.closed().into());
            }
            self.buffer.copy_within(start..filled, 0);
            filled -= start;
        }
        if let Some(decoder) = &mut self.decoder {
            let began = Instant::now();
            let batch = decoder.take_batch()?;
            times.decode += began.elapsed();
            if batch.rows.num_rows() > 0 {
                take(batch.rows);
            }
        }
        Ok(times)
    }

    fn decode(
        &mut self,
        start: usize,
        filled: usize,
        take: &mut impl FnMut(RecordBatch),
    ) -> Result<Duration, Box<dyn Error>> {
        let mut spent = Duration::ZERO;
        let Some(decoder) = &mut self.decoder else { return Ok(spent) };
        let mut from = 0;
        while from < self.fields.rows() {
            let began = Instant::now();
            from = decoder.decode(&self.buffer[start..filled], &self.fields, from)?;
            let batch = if decoder.is_full() { Some(decoder.take_batch()?) } else { None };
            spent += began.elapsed();
            if let Some(batch) = batch {
                take(batch.rows);
            }
        }
        Ok(spent)
    }
}

/// The CRC64NVME of `bytes` and, where asked for, the SHA-256 in hex.
pub fn checksums(bytes: &[u8], sha256: bool) -> (u64, Option<String>) {
    let mut checksums = Checksums::new(sha256);
    checksums.update(bytes);
    checksums.finish()
}

/// From now on `socket` is readable at so many bytes, as a COPY has it.
///
/// # Errors
/// The system refuses.
pub fn wake_at(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    crate::base::postgres::low_water::set(socket, bytes)
}

/// Writes `bytes` into a new file as a local part is written, past the page cache where that pays, and syncs it.
///
/// # Errors
/// Of the operating system.
pub fn write_blocks(file: File, mut bytes: Bytes) -> io::Result<()> {
    let (mut file, mut block) = (BlockFile::new(file), AlignedBuffer::new());
    while !bytes.is_empty() {
        if block.fill(&mut bytes) {
            file.append(&block)?;
            block.clear();
        }
    }
    file.append(&block)?;
    file.sync()
}

/// What a local part does with the text of batches until it is written: has it appended to its own block, or copies it
/// there from a buffer. Returns the bytes of the blocks that were filled.
#[derive(Debug, Default)]
pub struct Gather {
    block: Option<AlignedBuffer>,
    buffer: Vec<u8>,
}

impl Gather {
    /// Takes one batch, which `append` makes.
    pub fn batch(&mut self, lent: bool, append: impl FnOnce(&mut Vec<u8>)) -> usize {
        let mut written = 0;
        let mut block = self.block.take().unwrap_or_else(AlignedBuffer::new);
        if lent {
            let (mut memory, start) = block.into_memory();
            append(&mut memory);
            block = AlignedBuffer::of(memory, start);
            if block.is_full() {
                let mut tail = block.split_tail();
                written += block.bytes().len();
                block.clear();
                block.fill(&mut tail);
            }
        } else {
            self.buffer.clear();
            append(&mut self.buffer);
            let mut bytes = Bytes::from(std::mem::take(&mut self.buffer));
            let mut rest = bytes.clone();
            while block.fill(&mut rest) {
                written += block.bytes().len();
                block.clear();
            }
            drop(rest);
            self.buffer = std::mem::take(&mut bytes).try_into_mut().map(Vec::from).unwrap_or_default();
        }
        self.block = Some(block);
        written
    }
}
