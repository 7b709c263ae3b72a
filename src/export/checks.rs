//! Whether what is asked of an export goes with its plan.

use super::error::ExportError;
use super::request::ExportRequest;
use super::worker::check_columns;
use crate::model::{ExportErrorKind, Format, FormatOptions, Plan, PlannedContent};

/// How the parts of a plan are written.
///
/// # Errors
/// The relation gives rows, and its source's own format is asked for.
pub(super) fn format_of(plan: &Plan, asked: &FormatOptions) -> Result<FormatOptions, ExportError> {
    match (plan.content, asked.format) {
        (PlannedContent::Rows, Format::Source) => {
            let message = "the source has no format of its own for these rows: choose parquet, csv or ndjson";
            Err(ExportError::new(ExportErrorKind::Usage, message))
        }
        (PlannedContent::Rows, _) => Ok(asked.clone()),
        (PlannedContent::Bytes, _) => Ok(asked.clone().of_source()),
    }
}

/// Refuses columns that make no folders or cannot be protected, and to count rows where the source gives bytes of its own.
pub(super) fn check_counts(plan: &Plan, request: &ExportRequest) -> Result<(), ExportError> {
    check_columns(plan, request.commit.output_rules())?;
    let counts = request.work.cap.is_some() || request.work.min_rows.is_some();
    if plan.content == PlannedContent::Rows || !counts {
        return Ok(());
    }
    let message = "nobody counts rows in bytes that are written as the source makes them";
    Err(ExportError::new(ExportErrorKind::Usage, message)
        .with_hint("leave --max-rows, --tier and --min-rows out, or choose parquet, csv or ndjson"))
}
