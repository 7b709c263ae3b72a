//! What is done with rows before they are encoded: some columns are protected, and rows go into the parts of their folders,
//! a few of which are open at the same time.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::{Attempt, Work};
use crate::base::cpu::on_rayon;
use crate::base::failpoint;
use crate::encode::{ColumnGuard, EncodeError, FolderRows, FolderSplit, ProtectKey, guarded};
use crate::export::error::ExportError;
use crate::model::{ColumnPlan, ExportErrorKind, FolderValue, OutputRules, Plan};
use crate::source::{Batch, SourceError};
use crate::store::folders_fit;

/// What is done with the rows of a run before they are encoded.
#[derive(Debug)]
pub(crate) struct WorkColumns {
    /// The columns of a batch.
    columns: Vec<ColumnPlan>,
    /// What protects each of them; none where nothing does.
    guards: Vec<ColumnGuard>,
    split: FolderSplit,
    /// So many parts are open at the same time (invariant I6).
    open: NonZeroUsize,
}

impl Work {
    /// An error of the source while rows come, as it may be told: with no words of its own where columns are protected.
    pub(in crate::export) fn told(&self, error: SourceError) -> ExportError {
        let protects = self.shape.as_ref().is_some_and(|shape| !shape.guards.is_empty());
        if protects && !failpoint::off("hidden-words") { error.without_words().into() } else { error.into() }
    }
}

impl WorkColumns {
    /// The rows of a batch as they are written, by their folders.
    fn of_batch(&self, batch: &RecordBatch) -> Result<Vec<FolderRows>, EncodeError> {
        if self.guards.is_empty() || failpoint::off("protect") {
            return self.split.split(&self.columns, batch);
        }
        self.split.split(&self.columns, &guarded(&self.columns, &self.guards, batch)?)
    }
}

/// Refuses columns that make no folders, or that cannot be protected so.
///
/// # Errors
/// [`ExportErrorKind::Usage`].
pub(crate) fn check_columns(plan: &Plan, rules: OutputRules<'_>) -> Result<(), ExportError> {
    if let Some(folders) = rules.folders {
        let written = plan.columns.iter().filter(|column| rules.written(column).is_some());
        let placed = folders.places(&plan.columns).and_then(|_| folders.stand_apart(written));
        placed.map_err(|misfit| refused(&misfit, misfit.hint()))?;
        if !folders_fit(&folders.columns) {
            let message = "--partition-by names columns whose names are too long for so many folders";
            return Err(ExportError::new(ExportErrorKind::Usage, message)
                .with_hint("--rename gives shorter ones; fewer levels leave more room"));
        }
    }
    if let Some(planned) = &plan.watermark {
        let is_it = |column: &&ColumnPlan| column.origin.column() == Some(&planned.column);
        let left_out = plan.columns.iter().find(is_it).is_some_and(|column| rules.written(column).is_none());
        if left_out || rules.protect.is_some_and(|protect| protect.hides(&planned.column, &plan.columns)) {
            let message = format!("the files have the watermark {:?} not as it is", planned.column);
            return Err(ExportError::new(ExportErrorKind::Usage, message)
                .with_hint("protect another column, and add --keep-partition-columns where it makes folders"));
        }
    }
    if let Some(protect) = rules.protect {
        protect.check(plan, rules.folders).map_err(|misfit| refused(&misfit, misfit.hint()))?;
    }
    Ok(())
}

fn refused(misfit: &dyn std::error::Error, hint: &'static str) -> ExportError {
    ExportError::new(ExportErrorKind::Usage, misfit.to_string()).with_hint(hint)
}

/// What is done with rows before they are encoded, where anything is.
type RowShape = Option<Arc<WorkColumns>>;

/// What is done with rows of a plan, and the columns of the files.
///
/// # Errors
/// As [`check_columns`]; a hash without a key, which is a bug.
pub(crate) fn columns_of(
    plan: &Plan,
    rules: OutputRules<'_>,
    key: Option<&ProtectKey>,
) -> Result<(RowShape, Arc<[ColumnPlan]>), ExportError> {
    let columns = plan.columns.clone();
    if rules.folders.is_none() && rules.protect.is_none() {
        return Ok((None, columns.into()));
    }
    check_columns(plan, rules)?;
    let places = match rules.folders {
        Some(folders) => folders.places(&columns).map_err(|misfit| refused(&misfit, misfit.hint()))?,
        None => Vec::new(),
    };
    let of_files: Vec<Option<ColumnPlan>> = columns.iter().map(|column| rules.written(column)).collect();
    let written = (0..).zip(&of_files).filter(|(_, column)| column.is_some()).map(|(place, _)| place).collect();
    let mut guards = Vec::new();
    if let Some(protect) = rules.protect {
        for column in &columns {
            let guard = ColumnGuard::of(protect.of(column), key);
            guards.push(guard.ok_or_else(|| ExportError::internal("a column is to be hashed and there is no key"))?);
        }
    }
    let open = rules.folders.map_or(NonZeroUsize::MIN, |folders| folders.open);
    let work = WorkColumns { columns, guards, split: FolderSplit { places, written }, open };
    Ok((Some(Arc::new(work)), of_files.into_iter().flatten().collect()))
}

impl Attempt<'_> {
    /// Writes the rows of a batch as they are to be, each into the part of its folders.
    pub(super) async fn put_in_shape(&mut self, shape: Arc<WorkColumns>, batch: Batch) -> Result<(), ExportError> {
        let Batch { rows, changed, .. } = batch;
        let mut changed = shape.split.of_written(&changed);
        let groups = on_rayon(move || shape.of_batch(&rows)).await??;
        for FolderRows { folders, rows } in groups {
            // The manifest has the sum over all parts, so that it does not matter which of them has it.
            self.put(folders, [(rows, std::mem::take(&mut changed))].into()).await?;
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
        let most = self.work.shape.as_ref().map_or(1, |shape| shape.open.get());
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
