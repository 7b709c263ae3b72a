//! Rows into the parts of their folders, a few of which are open at the same time.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::Attempt;
use crate::base::cpu::on_rayon;
use crate::encode::{FolderRows, FolderSplit};
use crate::export::error::ExportError;
use crate::model::{ColumnPlan, ExportErrorKind, FolderMisfit, FolderOptions, FolderValue};
use crate::source::Batch;
use crate::store::folders_fit;

/// How the rows of a run go into folders.
#[derive(Debug)]
pub(crate) struct WorkFolders {
    /// The columns of a batch.
    columns: Vec<ColumnPlan>,
    split: FolderSplit,
    /// So many parts are open at the same time (invariant I6).
    open: NonZeroUsize,
}

/// How rows go into folders, where they do.
type InFolders = Option<Arc<WorkFolders>>;

/// How rows of these columns go into the folders that are asked for, and the columns of the files.
///
/// # Errors
/// The columns make no such folders.
pub(crate) fn folders_of(
    options: Option<&FolderOptions>,
    columns: &[ColumnPlan],
) -> Result<(InFolders, Arc<[ColumnPlan]>), ExportError> {
    let Some(options) = options else { return Ok((None, columns.into())) };
    let misfit = |misfit: FolderMisfit| {
        let hint = misfit.hint();
        ExportError::new(ExportErrorKind::Usage, misfit.to_string()).with_hint(hint)
    };
    let places = options.places(columns).map_err(misfit)?;
    if !folders_fit(&options.columns) {
        let message = "--partition-by names columns whose names are too long for so many folders";
        return Err(ExportError::new(ExportErrorKind::Usage, message)
            .with_hint("--rename gives shorter ones; fewer levels leave more room"));
    }
    let written = (0..columns.len()).filter(|place| options.keep || !places.contains(place)).collect();
    let split = FolderSplit { places, written };
    let of_files = split.written.iter().filter_map(|place| columns.get(*place).cloned()).collect();
    Ok((Some(Arc::new(WorkFolders { columns: columns.to_vec(), split, open: options.open })), of_files))
}

impl Attempt<'_> {
    /// Writes the rows of a batch, each into the part of its folders.
    pub(super) async fn put_into_folders(
        &mut self,
        folders: Arc<WorkFolders>,
        batch: Batch,
    ) -> Result<(), ExportError> {
        let Batch { rows, changed, .. } = batch;
        let mut changed = folders.split.of_written(&changed);
        let groups = on_rayon(move || folders.split.split(&folders.columns, &rows)).await??;
        for FolderRows { folders, rows } in groups {
            let count = u64::try_from(rows.num_rows()).unwrap_or(u64::MAX);
            // The manifest has the sum over all parts, so that it does not matter which of them has it.
            self.put(folders, rows, std::mem::take(&mut changed), count).await?;
        }
        Ok(())
    }

    /// Makes the open part of these folders the one that is written to. Where there is none it begins, and the part that
    /// was not written to for longest ends where too many would be open.
    pub(super) async fn turn_to(&mut self, folders: Vec<FolderValue>) -> Result<(), ExportError> {
        if let Some(place) = self.open.iter().position(|open| open.folders == folders) {
            self.open[place..].rotate_left(1);
            return Ok(());
        }
        let most = self.work.folders.as_ref().map_or(1, |folders| folders.open.get());
        while self.open.len() >= most {
            self.open.rotate_left(1);
            self.finish_part().await?;
        }
        self.start_part(folders).await
    }

    /// Finishes all parts that are open. Receipts have them in the order in which they began.
    pub(super) async fn finish_parts(&mut self) -> Result<(), ExportError> {
        while !self.open.is_empty() {
            self.finish_part().await?;
        }
        self.parts.sort_by_key(|part| part.roll);
        Ok(())
    }
}
