//! A staged local file as the end of a [`PartWriter`](super::PartWriter).

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::checksums::Checksums;
use super::direct::{Block, BlockFile};
use super::error::{StoreError, StoreFault};
use super::local::Folder;
use super::receipt::Staging;
use super::writer::compute;

/// One block is written while the next one fills; the two take turns until the part's end.
#[derive(Debug)]
pub(super) struct LocalSink {
    staged: StagedFile,
    /// Allocated with the first byte that goes into it.
    filling: Option<Block>,
    /// Where the bytes begin in the memory of a block that was lent, and how many there were.
    lent: Option<(usize, usize)>,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(BlockFile),
    /// Gives the file back, and its block, empty again.
    Writing(JoinHandle<std::io::Result<(BlockFile, Block)>>),
    Failed,
}

/// A staged file, removed on drop unless it is to be kept.
#[derive(Debug)]
struct StagedFile {
    folder: Arc<Folder>,
    file: String,
    keep: bool,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.keep {
            // A leftover is in the run's staging folder, which is removed whole at its end.
            let _ = self.folder.delete(&self.file);
        }
    }
}

impl LocalSink {
    pub(super) async fn start(folder: &Arc<Folder>, file: String, object: String) -> Result<Self, StoreError> {
        let staged = StagedFile { folder: Arc::clone(folder), file, keep: false };
        let name = staged.file.clone();
        let file = folder.run("staging", object, move |folder| folder.stage(&name)).await?;
        Ok(Self { staged, filling: None, lent: None, state: State::Idle(BlockFile::new(file)) })
    }

    /// Takes as much of `bytes` as fits. True once the block is full.
    pub(super) fn fill(&mut self, bytes: &mut Bytes) -> bool {
        !bytes.is_empty() && self.filling.get_or_insert_with(Block::new).fill(bytes)
    }

    /// The memory of the block that fills, for bytes to be appended without another copy.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        let block = self.filling.take().unwrap_or_else(Block::new);
        let bytes = block.bytes().len();
        let (memory, start) = block.into_memory();
        self.lent = Some((start, bytes));
        memory
    }

    /// Whether memory that was lent has not come back.
    pub(super) fn has_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// Takes what [`Self::lend`] lent. True once the block is full.
    pub(super) fn take_back(&mut self, object: &str, memory: Vec<u8>) -> Result<bool, StoreError> {
        match self.lent.take() {
            Some((start, bytes)) if memory.len() >= start + bytes => {
                Ok(self.filling.insert(Block::of(memory, start)).is_full())
            }
            _ => {
                Err(StoreError::new("staging", object, StoreFault::Unavailable, "other memory came back than was lent"))
            }
        }
    }

    /// Bytes in the block that fills.
    pub(super) fn gathered(&self) -> usize {
        self.filling.as_ref().map_or(0, |block| block.bytes().len())
    }

    /// Hashes the block that fills, waits for the one before it and has it written, all but a tail of a full one.
    pub(super) async fn send(&mut self, object: &str, mut checksums: Checksums) -> Result<Checksums, StoreError> {
        let Some(mut block) = self.filling.take() else { return Ok(checksums) };
        let mut tail = block.split_tail();
        let size = block.bytes().len();
        let hash = move || {
            checksums.update(block.bytes());
            (checksums, block)
        };
        let (checksums, mut block) = compute(object, size, hash).await?;
        let (mut file, spare) = self.idle(object).await?;
        self.filling = spare;
        self.fill(&mut tail);
        self.state = State::Writing(tokio::task::spawn_blocking(move || {
            file.append(&block)?;
            block.clear();
            Ok((file, block))
        }));
        Ok(checksums)
    }

    pub(super) async fn finish(&mut self, object: &str) -> Result<Staging, StoreError> {
        let (file, _) = self.idle(object).await?;
        let name = self.staged.file.clone();
        let sync = move |folder: &Folder| {
            file.sync()?;
            folder.sync_folder_of(&name)
        };
        self.staged.folder.run("staging", object.to_owned(), sync).await?;
        self.staged.keep = true;
        Ok(Staging::Local { file: self.staged.file.clone() })
    }

    pub(super) async fn abort(mut self, object: String) -> Result<(), StoreError> {
        // What is being written must end before its file goes; how it ended does not matter any more.
        let _ = self.idle(&object).await;
        let file = self.staged.file.clone();
        self.staged.folder.run("discarding", object, move |folder| folder.delete(&file)).await
    }

    /// The file, once nothing is being written, and the block that was.
    async fn idle(&mut self, object: &str) -> Result<(BlockFile, Option<Block>), StoreError> {
        let lost = |why: String| Err(StoreError::new("staging", object, StoreFault::Unavailable, why));
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(file) => Ok((file, None)),
            State::Writing(task) => match task.await {
                Ok(Ok((file, block))) => Ok((file, Some(block))),
                Ok(Err(error)) => Err(StoreError::from_io("staging", object, error)),
                Err(error) => lost(error.to_string()),
            },
            State::Failed => lost("an earlier write failed or was interrupted".into()),
        }
    }
}
