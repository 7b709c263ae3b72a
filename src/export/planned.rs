//! What is known of an export once it is planned.

use std::sync::Arc;

use super::error::ExportError;
use super::request::ExportRequest;
use super::worker::check_columns;
use crate::model::{Consistency, ExportErrorKind, Format, FormatOptions, Plan, PlannedContent, SourceFacts};
use crate::source::Reading;

/// What is known of it once it is planned.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Arc<Plan>,
    /// How the parts are written: as asked, but for bytes of the source's own.
    pub(crate) format: FormatOptions,
    pub(crate) facts: SourceFacts,
    pub(crate) consistency: Consistency,
    /// Of the key under which the run hashes values.
    pub(crate) protect_key_id: Option<String>,
}

impl Planned {
    /// What a reading says of one of its relations.
    ///
    /// # Errors
    /// As [`format_of`].
    pub(super) fn of(reading: &dyn Reading, relation: usize, asked: &FormatOptions) -> Result<Self, ExportError> {
        let plan = reading.plan(relation).ok_or_else(|| ExportError::internal("the source planned nothing"))?;
        let format = format_of(&plan, asked)?;
        let (facts, consistency) = (reading.facts(), reading.consistency(relation));
        Ok(Self { plan, format, facts, consistency, protect_key_id: None })
    }

    /// The id of the snapshot that all reads share.
    pub(super) fn snapshot(&self) -> Option<String> {
        self.consistency.snapshots.first().and_then(|snapshot| snapshot.id.clone())
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::test_data::heap_plan;
    use crate::model::{AbsentColumn, OutputRules, ProtectOptions, ProtectRule, Protection};

    #[test]
    fn bytes_of_the_source_have_no_columns_to_protect() {
        for absent in [AbsentColumn::Refused, AbsentColumn::RefusedByAll(0), AbsentColumn::Told] {
            let rule = ProtectRule { name: "a".to_owned(), pattern: false, how: Protection::Null, absent };
            let protect = ProtectOptions { rules: vec![rule], ..ProtectOptions::default() };
            let rules = OutputRules { folders: None, protect: Some(&protect) };
            let plan = Plan { content: PlannedContent::Bytes, columns: Vec::new(), ..heap_plan() };
            let error = check_columns(&plan, rules).unwrap_err();
            assert_eq!(error.kind, ExportErrorKind::Usage, "{absent:?}");
            assert!(error.hint.unwrap().contains("take the FORMAT away"), "{absent:?}");
        }
    }
}
