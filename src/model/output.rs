//! What becomes of a plan's columns on their way into the files.

use super::{ColumnPlan, FolderOptions, ProtectOptions};

/// What takes columns out of the files, or changes what they have of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputRules<'a> {
    /// `--partition-by`.
    pub folders: Option<&'a FolderOptions>,
    /// `--protect`.
    pub protect: Option<&'a ProtectOptions>,
}

impl OutputRules<'_> {
    /// A column as the files have it; `None` where they do not.
    pub fn written(self, column: &ColumnPlan) -> Option<ColumnPlan> {
        if self.folders.is_some_and(|folders| !folders.writes(&column.name)) {
            return None;
        }
        self.protect.map_or_else(|| Some(column.clone()), |protect| protect.written(column))
    }

    /// The word for what protects a column, where anything does.
    pub fn protection(self, column: &ColumnPlan) -> Option<String> {
        self.protect.and_then(|protect| protect.of(column)).map(|how| how.word().to_owned())
    }
}
