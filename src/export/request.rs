//! One export, as it is asked for.

use std::sync::Arc;

use super::error::ExportError;
use super::keep::KeeperLaunch;
use super::outside::Outside;
use crate::base::failpoint;
use crate::base::memory::{
    BATCH_TEXT_BYTES, COMPRESSOR_BYTES, PARTS_SUPPOSED, ROW_BYTES_SUPPOSED, RunMemory, STREAM_PIECES,
};
use crate::model::{
    CommitOptions, Format, FormatOptions, IncrementalOptions, PolicyOptions, ReadRequest, ShapeOptions, SinceExport,
    Target, WatermarkRequest, WorkOptions,
};
use crate::source::{Source, SourceError};

/// One export: one relation, one destination, one manifest.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Where the rows are.
    pub source: Arc<dyn Source>,
    /// Which rows and columns.
    pub shape: ShapeOptions,
    /// How they are written.
    pub format: FormatOptions,
    /// For whom, and what happens to values that cannot be written.
    pub policies: PolicyOptions,
    /// How the work is split.
    pub work: WorkOptions,
    /// Where it goes and how it is committed.
    pub commit: CommitOptions,
    /// Where only what is new since another export is to be read.
    pub incremental: Option<IncrementalOptions>,
    /// How a keeper outside of this process is started, where the snapshot is to outlive it.
    pub keeper: Option<KeeperLaunch>,
    /// That other processes read the partitions, as many at a time as `work` has readers; no record has it.
    pub external: Option<Outside>,
}

impl ExportRequest {
    /// Bytes of memory that a run of it may hold (I6): what it reserves where several runs share a process.
    pub fn memory_bytes(&self) -> u64 {
        let Self { work, format, commit, .. } = self;
        let text = bytes(BATCH_TEXT_BYTES);
        let served = work.served.as_ref();
        let largest_row = served.map_or(ROW_BYTES_SUPPOSED, |served| served.max_row_bytes.get());
        let (readers, on_their_way, parts) = match commit.target {
            // Of one reader, whatever their number.
            Target::Stream { .. } => {
                // A piece has a batch, or one row that is larger.
                let pieces = text.max(largest_row).saturating_mul(STREAM_PIECES);
                (1, pieces.saturating_add(COMPRESSOR_BYTES), 1)
            }
            Target::Destination(_) => {
                let chunks = bytes(work.upload_concurrency.get()).saturating_add(1);
                let parts = work.partitions.map_or(PARTS_SUPPOSED, std::num::NonZeroU32::get);
                (bytes(work.readers.get()), chunks.saturating_mul(bytes(work.upload_chunk_size.get())), parts.into())
            }
        };
        let run = RunMemory {
            readers,
            page: served.map_or(0, |served| served.page_bytes.get()),
            open_parts: commit.folders.as_ref().map_or(1, |folders| bytes(folders.open.get())),
            encoder: if format.format == Format::Parquet { format.parquet.row_group_bytes.get() } else { text },
            on_their_way,
            largest_row,
            parts,
        };
        run.peak()
    }

    /// An error of planning, as it may be told.
    pub(crate) fn told(&self, error: SourceError) -> ExportError {
        let hidden = self.commit.protect.is_some() && !failpoint::off("hidden-words");
        if hidden { error.without_words_of_rows().into() } else { error.into() }
    }

    /// What of it the source is asked for, where there is no export to go on from.
    pub(crate) fn read_request(&self) -> ReadRequest {
        self.read_request_since(None)
    }

    /// What of it the source is asked for; `since` is the export that an incremental one goes on from.
    pub(crate) fn read_request_since(&self, since: Option<SinceExport>) -> ReadRequest {
        // Workers read under the snapshot of another process, where there is one.
        let shared = self.external.is_some() && self.source.holds_snapshots();
        let Self { shape, format, policies, work, mut commit, incremental, .. } = self.clone();
        let watermark =
            incremental.map(|asked| WatermarkRequest { column: asked.column, look_back: asked.look_back, since });
        ReadRequest {
            watermark,
            // One object in one order is one partition.
            single: commit.single_file || matches!(commit.target, Target::Stream { .. }),
            run_id: commit.run_id,
            shape,
            format: format.format,
            policies,
            work,
            stats: commit.manifest_stats,
            protect: commit.protect.take(),
            together: commit.folders.map_or_else(Vec::new, |folders| folders.columns),
            keep: commit.keep_snapshot.is_some() || shared,
        }
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
