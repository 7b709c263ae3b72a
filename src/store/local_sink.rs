//! A staged local file as the end of a [`PartWriter`](super::PartWriter).

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::checksums::Checksums;
use super::direct::{AlignedBuffer, BlockFile};
use super::error::{StoreError, StoreFault};
use super::local::Folder;
use super::writer::compute;
use crate::base::cpu::TaskLost;
use crate::model::Staging;

/// One block is written while the next one fills; the two take turns until the part's end.
#[derive(Debug)]
pub(super) struct LocalSink {
    staged: StagedFile,
    /// Allocated with the first byte that goes into it.
    filling: Option<AlignedBuffer>,
    /// Where the bytes begin in the memory of a block that was lent, and how many there were.
    lent: Option<(usize, usize)>,
    state: WriteState,
}

#[derive(Debug)]
enum WriteState {
    Idle(BlockFile),
    /// Gives the file back, and its block, empty again.
    Writing(JoinHandle<std::io::Result<(BlockFile, AlignedBuffer)>>),
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
        Ok(Self { staged, filling: None, lent: None, state: WriteState::Idle(BlockFile::new(file)) })
    }

    /// Takes as much of `bytes` as fits. True once the block is full.
    pub(super) fn fill(&mut self, bytes: &mut Bytes) -> bool {
        if bytes.is_empty() {
            return false;
        }
        let mut block = self.take_filling();
        let full = block.fill(bytes);
        self.filling = Some(block);
        full
    }

    /// The block that fills, or an empty one.
    fn take_filling(&mut self) -> AlignedBuffer {
        self.filling.take().or_else(|| self.staged.folder.blocks.take()).unwrap_or_else(AlignedBuffer::new)
    }

    /// Leaves a block to the next part.
    fn leave(&self, block: Option<AlignedBuffer>) {
        if let Some(mut block) = block {
            block.clear();
            self.staged.folder.blocks.keep(block);
        }
    }

    /// The memory of the block that fills, for bytes to be appended without another copy.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        let block = self.take_filling();
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
                Ok(self.filling.insert(AlignedBuffer::of(memory, start)).is_full())
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
        self.state = WriteState::Writing(tokio::task::spawn_blocking(move || {
            file.append(&block)?;
            block.clear();
            Ok((file, block))
        }));
        Ok(checksums)
    }

    pub(super) async fn finish(&mut self, object: &str) -> Result<Staging, StoreError> {
        let (file, spare) = self.idle(object).await?;
        self.leave(spare);
        let filling = self.filling.take();
        self.leave(filling);
        // Its name here need not outlive a loss of power: it gets another one at commit, whose folder is synced then.
        let sync = move |_: &Folder| file.sync();
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
    async fn idle(&mut self, object: &str) -> Result<(BlockFile, Option<AlignedBuffer>), StoreError> {
        let lost = |why: String| Err(StoreError::new("staging", object, StoreFault::Unavailable, why));
        match std::mem::replace(&mut self.state, WriteState::Failed) {
            WriteState::Idle(file) => Ok((file, None)),
            WriteState::Writing(task) => match task.await {
                Ok(Ok((file, block))) => Ok((file, Some(block))),
                Ok(Err(error)) => Err(StoreError::from_io("staging", object, error)),
                Err(error) => lost(TaskLost::from(error).to_string()),
            },
            WriteState::Failed => lost("an earlier write failed or was interrupted".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;

    use bytes::Bytes;

    use super::super::direct::LOCAL_BLOCK_BYTES;
    use crate::store::{Destination, Journal, PartWriter, StoreOptions};

    const BLOCK: usize = LOCAL_BLOCK_BYTES;

    fn open(folder: &Path) -> Destination {
        let some = NonZeroUsize::new(8 << 20).unwrap();
        let options = StoreOptions { chunk_bytes: some, concurrency: NonZeroUsize::MIN, sha256: false };
        Destination::open(folder.to_str().unwrap(), &options).unwrap()
    }

    async fn writer(destination: &Destination, path: &str) -> PartWriter {
        destination.writer(path, "text/csv", &Journal::new(destination.clone(), "run")).await.unwrap()
    }

    fn content(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    #[tokio::test]
    async fn what_is_appended_to_lent_memory_is_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let destination = open(folder.path());
        let whole = content(7 * BLOCK + 12_345);
        // Less than a block, to the edge of one, over it, more than it has room for, and nothing.
        let cuts = [0, 700_001, BLOCK, BLOCK + 1, 2 * BLOCK + 77, 6 * BLOCK, 6 * BLOCK, whole.len()];
        // Twice: the second part gets the blocks that the first one has left.
        for part in ["a", "b"] {
            let mut writer = writer(&destination, part).await;
            for (index, cut) in cuts.windows(2).enumerate() {
                let bytes = &whole[cut[0]..cut[1]];
                // Now and then bytes come by the other way.
                if index % 3 == 1 {
                    writer.write(Bytes::copy_from_slice(bytes)).await.unwrap();
                } else {
                    let mut memory = writer.lend().unwrap();
                    memory.extend_from_slice(bytes);
                    writer.take_back(memory).await.unwrap();
                }
                assert_eq!(writer.bytes_written(), cut[1] as u64);
            }
            let object = writer.finish().await.unwrap();
            let expected = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &whole);
            assert_eq!((object.bytes, object.crc64nvme), (whole.len() as u64, expected));
            destination.publish(&object).await.unwrap();
            assert!(std::fs::read(folder.path().join(part)).unwrap() == whole, "other bytes came back");
        }
    }

    #[tokio::test]
    async fn memory_that_does_not_come_back_spoils_the_part() {
        let folder = tempfile::tempdir().unwrap();
        let destination = open(folder.path());
        let mut kept = writer(&destination, "kept").await;
        kept.write(Bytes::from_static(b"1")).await.unwrap();
        let memory = kept.lend().unwrap();
        assert!(kept.lend().is_none());
        assert!(kept.write(Bytes::from_static(b"2")).await.is_err());
        drop(memory);
        assert!(kept.finish().await.is_err());

        let mut other = writer(&destination, "other").await;
        other.write(Bytes::from_static(b"1")).await.unwrap();
        other.lend().unwrap();
        assert!(other.take_back(Vec::new()).await.is_err());
        assert!(other.finish().await.is_err());
    }
}
