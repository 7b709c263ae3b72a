//! One part as it is written: its encoder, its writer, and what has gone through them.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;

use super::error::ExportError;
use crate::base::cpu::TaskLost;
use crate::encode::{Encoder, Tally};
use crate::model::{FolderValue, StagedObject};
use crate::store::stream::StreamWriter;
use crate::store::{PartWriter, StoreError};

/// Where a part's bytes go.
#[derive(Debug)]
pub(super) enum PartSink {
    Store(Box<PartWriter>),
    Stream(Box<StreamWriter>),
}

/// A part that is being written.
#[derive(Debug)]
pub(super) struct OpenPart {
    /// The folders that it is in.
    pub(super) folders: Vec<FolderValue>,
    /// Its number among the parts of its attempt.
    pub(super) roll: u32,
    /// `None` only while rayon has them.
    pub(super) encoding: Option<(Box<dyn Encoder>, Tally)>,
    pub(super) writer: Option<PartSink>,
    /// Whether the room for bytes is the writer's.
    pub(super) lent: bool,
    /// The writer's end, in a task of its own: a cancel in the middle of it would leave an upload behind.
    pub(super) finishing: Option<JoinHandle<Result<StagedObject, StoreError>>>,
    pub(super) rows: u64,
    pub(super) started_at: DateTime<Utc>,
}

impl OpenPart {
    /// Bytes that its writer has taken.
    pub(super) fn bytes_written(&self) -> u64 {
        self.writer.as_ref().map_or(0, PartSink::bytes_written)
    }

    /// Room for what a batch adds: the writer's own where it lends any, so that nothing is copied, or else `spare`.
    pub(super) fn room(&mut self, spare: &mut Vec<u8>) -> Vec<u8> {
        let lent = match &mut self.writer {
            Some(PartSink::Store(writer)) => writer.lend(),
            _ => None,
        };
        self.lent = lent.is_some();
        lent.unwrap_or_else(|| std::mem::take(spare))
    }

    /// The writer stays in place while it waits, so that a cancelled wait can still abort the upload. Gives the room
    /// back, empty, where the writer has copied the bytes; new room is cleared by the system page by page, which costs as
    /// much as writing to it.
    pub(super) async fn write(&mut self, out: Vec<u8>) -> Result<Vec<u8>, ExportError> {
        if std::mem::take(&mut self.lent) {
            match &mut self.writer {
                Some(PartSink::Store(writer)) => writer.take_back(out).await?,
                _ => return Err(ExportError::internal("the part's writer is gone")),
            }
            return Ok(Vec::new());
        }
        if out.is_empty() {
            return Ok(out);
        }
        let bytes = Bytes::from(out);
        match &mut self.writer {
            Some(PartSink::Store(writer)) => writer.write(bytes.clone()).await?,
            Some(PartSink::Stream(writer)) => writer.write(bytes.clone()).await?,
            None => return Err(ExportError::internal("the part's writer is gone")),
        }
        let mut spare = bytes.try_into_mut().map(Vec::from).unwrap_or_default();
        spare.clear();
        Ok(spare)
    }

    /// Waits until all of it is staged. In a task of its own: cancelled, it still ends. Sets `unsure` where it fails and may
    /// have left what it had staged.
    pub(super) async fn finish(&mut self, unsure: &mut bool) -> Result<StagedObject, ExportError> {
        let writer = match self.writer.take() {
            Some(PartSink::Store(writer)) => writer,
            Some(PartSink::Stream(writer)) => return Ok(writer.finish().await?),
            None => return Err(ExportError::internal("the part's writer is gone")),
        };
        let finishing = self.finishing.insert(tokio::spawn(writer.finish()));
        let finished = finishing.await;
        self.finishing = None;
        *unsure |= match &finished {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => !error.leaves_nothing,
            Err(_) => true,
        };
        Ok(finished.map_err(|error| ExportError::internal("finishing a part").with_source(TaskLost::from(error)))??)
    }
}

impl PartSink {
    fn bytes_written(&self) -> u64 {
        match self {
            Self::Store(writer) => writer.bytes_written(),
            Self::Stream(writer) => writer.bytes_written(),
        }
    }
}

/// Drops what a writer has staged: whether it is gone.
pub(super) async fn aborted(writer: PartWriter) -> bool {
    let aborted = writer.abort().await;
    if let Err(error) = &aborted {
        tracing::warn!(%error, "an upload could not be aborted");
    }
    aborted.is_ok()
}
