//! The rows of a partition on their way from the source into the encoder of a part: a few batches at a time, so that threads
//! hand over to each other less often.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::record_batch::RecordBatch;
use futures_util::StreamExt;

use super::Attempt;
use crate::base::cpu::on_rayon;
use crate::base::{failpoint, telemetry};
use crate::encode::{EncodeError, bytes_of, count};
use crate::export::error::ExportError;
use crate::export::outlet::Outlet;
use crate::export::part::OpenPart;
use crate::model::{AmountRead, FolderValue, Format};
use crate::source::{Batch, Opened};

impl Attempt<'_> {
    pub(super) async fn read(&mut self) -> Result<(), ExportError> {
        let opened = self.work.reading.open(self.work.relation, self.partition.number).await;
        let mut batches = match (opened.map_err(|error| self.work.told(error))?, self.read) {
            (Opened::Rows(batches), AmountRead::Rows(_)) => batches,
            (Opened::Bytes { kind, batches }, AmountRead::Bytes(_)) => {
                self.kind = Some(kind);
                // No bytes are an object too.
                self.start_part(Vec::new()).await?;
                batches
            }
            (opened, _) => {
                let message = format!("the source opened {opened:?} where its plan has {:?}", self.work.plan.content);
                return Err(ExportError::internal(message));
            }
        };
        let mut together = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.work.told(error))?;
            let is_followed = batch.is_followed;
            self.beyond_cap |= batch.beyond_cap;
            if batch.rows.num_rows() > 0 {
                together.push(batch);
            }
            if !is_followed && !together.is_empty() {
                self.take(std::mem::take(&mut together)).await?;
            }
        }
        // Whatever the source promised of another batch.
        self.take(together).await?;
        drop(batches);
        self.finish_parts().await
    }

    /// Writes batches that came together.
    async fn take(&mut self, batches: Vec<Batch>) -> Result<(), ExportError> {
        if batches.is_empty() {
            return Ok(());
        }
        let before = self.read.rows().unwrap_or(0);
        for batch in &batches {
            self.read = self.with(batch)?;
        }
        let rows = self.read.rows().unwrap_or(0) - before;
        telemetry::rows_read(rows);
        match self.work.shape.clone() {
            None => {
                let batches = batches.into_iter().map(|batch| (batch.rows, batch.changed));
                self.put(Vec::new(), batches.collect()).await?;
            }
            Some(shape) => {
                for batch in batches {
                    self.put_in_shape(Arc::clone(&shape), batch).await?;
                }
            }
        }
        telemetry::rows_encoded(rows);
        failpoint::reach("batch").await;
        self.counters.rows.store(self.read.rows().unwrap_or(0), Ordering::Relaxed);
        let finished: u64 = self.parts.iter().map(|part| part.object.bytes).sum();
        let written: u64 = self.open.iter().map(OpenPart::bytes_written).sum();
        // What an encoder holds back is counted before compression: shown, the total would shrink as it is written.
        self.counters.bytes.store(finished.saturating_add(written), Ordering::Relaxed);
        Ok(())
    }

    /// Writes rows into the part of their folders, each batch with how many values of its columns were changed.
    pub(super) async fn put(
        &mut self,
        folders: Vec<FolderValue>,
        mut batches: VecDeque<(RecordBatch, Box<[u64]>)>,
    ) -> Result<(), ExportError> {
        let counts = matches!(self.read, AmountRead::Rows(_));
        while !batches.is_empty() {
            self.turn_to(folders.clone()).await?;
            let (mut encoder, mut tally) = self.encoding()?;
            let mut out = self.room()?;
            let room = match self.work.format.format {
                Format::Parquet => self.work.part_size.saturating_sub(self.current()?.bytes_written()),
                // Text is as large as its batches, and of Parquet only row groups leave the encoder.
                _ => 0,
            };
            let pending = on_rayon(move || {
                failpoint::blow("encoding");
                let (mut rows, before) = (0, out.len());
                while let Some((batch, changed)) = batches.pop_front() {
                    tally.count_changed(&changed);
                    if counts {
                        tally.observe(&batch)?;
                        rows += count(batch.num_rows());
                    }
                    encoder.encode(&batch, &mut out)?;
                    if count(out.len() - before + encoder.buffered_bytes()) >= room {
                        break;
                    }
                }
                let buffered = count(encoder.buffered_bytes());
                Ok::<_, EncodeError>(((encoder, tally), out, (rows, buffered), batches))
            });
            let (encoding, out, (rows, buffered), rest) = pending.await??;
            batches = rest;
            self.write(encoding, out).await?;
            let open = self.current()?;
            open.rows += rows;
            let size = open.bytes_written().saturating_add(buffered);
            // Bytes of the source's own format are one object: nobody knows where they could be cut.
            let may_roll = counts && matches!(self.work.outlet, Outlet::Parts { .. });
            if size >= self.work.part_size && may_roll {
                self.finish_part().await?;
            }
        }
        Ok(())
    }

    /// What is read with this batch.
    fn with(&self, batch: &Batch) -> Result<AmountRead, ExportError> {
        let overflow = || ExportError::internal("the count of what was read overflows");
        match self.read {
            AmountRead::Rows(before) => {
                let total = before.checked_add(count(batch.rows.num_rows())).ok_or_else(overflow)?;
                // A source that ignores its limit would make a capped export wrong without anybody seeing it.
                if self.partition.row_limit.is_some_and(|limit| total > limit.get()) {
                    return Err(ExportError::internal("the source sent more rows than the plan allows"));
                }
                Ok(AmountRead::Rows(total))
            }
            AmountRead::Bytes(before) => {
                let bytes = bytes_of(&batch.rows)?.iter().flatten().map(<[u8]>::len).sum::<usize>();
                before.checked_add(count(bytes)).map(AmountRead::Bytes).ok_or_else(overflow)
            }
        }
    }
}
