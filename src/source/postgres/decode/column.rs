//! One column, or one part of a nested one: values, NULLs and the policies that decide on them.

use arrow::array::{ArrayRef, NullBufferBuilder};
use arrow::datatypes::DataType;

use super::choose;
use super::error::{Problem, target};
use super::loops::{ABSENT, DecodeFailure, FieldColumn};
use super::values::{TakeError, ValueBuilder};
use crate::model::{Carrier, InvalidUtf8, JsonNan, OnUnrepresentable, Policies};
use crate::source::postgres::plan::PgColumn;

/// What happens to text that is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Utf8 {
    /// Found where the batch is assembled.
    AtEnd,
    /// Found while the row's key is known: where the server does not vouch for its text.
    Refused,
    Replaced,
}

/// A column with a decoder that was chosen once.
#[derive(Debug)]
pub(super) struct ColumnDecoder {
    values: ValueBuilder,
    nulls: NullBufferBuilder,
    carrier: Carrier,
    data_type: DataType,
    nullable: bool,
    policies: Policies,
    utf8: Utf8,
    /// Every value counts as changed.
    rewritten: bool,
    /// Values that a policy changed since the last take, those of nested parts left out.
    changed: u64,
    /// Rows of the block under way that a policy made NULL, in order.
    nulled: Vec<usize>,
}

impl ColumnDecoder {
    /// A column of the plan; `None` where its wire form cannot become its carrier.
    pub(super) fn new(plan: &PgColumn) -> Option<Self> {
        let values = choose::values(&plan.pg_type, plan.wire, &plan.output.carrier, &plan.output.policies)?;
        let mut column = Self::part(values, &plan.output.carrier, &plan.output.policies);
        column.nullable = plan.output.nullable;
        column.rewritten = plan.output.rewritten;
        if may_fail(plan) {
            column.refuse_utf8();
        }
        Some(column)
    }

    /// Has text that is not UTF-8 found at its row, in every part.
    pub(super) fn refuse_utf8(&mut self) {
        let text = matches!(self.carrier, Carrier::Text | Carrier::Json);
        match &mut self.values {
            ValueBuilder::Lists(lists) => lists.items().iter_mut().for_each(Self::refuse_utf8),
            ValueBuilder::Structs(structs) => structs.members().iter_mut().for_each(Self::refuse_utf8),
            _ if text && self.utf8 == Utf8::AtEnd => self.utf8 = Utf8::Refused,
            _ => {}
        }
    }

    /// The elements of a list or the members of a struct.
    pub(super) fn part(values: ValueBuilder, carrier: &Carrier, policies: &Policies) -> Self {
        let text = matches!(carrier, Carrier::Text | Carrier::Json);
        Self {
            values,
            nulls: NullBufferBuilder::new(0),
            carrier: carrier.clone(),
            data_type: carrier.data_type(),
            nullable: true,
            policies: *policies,
            utf8: if text && policies.invalid_utf8 == InvalidUtf8::Replace { Utf8::Replaced } else { Utf8::AtEnd },
            rewritten: false,
            changed: 0,
            nulled: Vec::new(),
        }
    }

    /// Appends one value for each row of a block.
    pub(super) fn append(&mut self, cells: &FieldColumn<'_>) -> Result<(), DecodeFailure> {
        self.nulled.clear();
        let before = self.nulls.len();
        let nulls = match self.values.append(cells, &mut self.changed) {
            Ok(nulls) => nulls,
            Err(failure) => self.go_on(cells, before, failure)?,
        };
        if self.utf8 != Utf8::AtEnd {
            self.check_utf8(before)?;
        }
        if nulls == 0 {
            self.nulls.append_n_non_nulls(cells.rows());
            return Ok(());
        }
        let mut nulled = self.nulled.iter().copied().peekable();
        for (row, field) in cells.iter().enumerate() {
            if field.is_null() && !self.nullable {
                return Err(DecodeFailure::new(row, Problem::Null));
            }
            let value = !field.is_null() && nulled.next_if_eq(&row).is_none();
            self.nulls.append(value);
        }
        Ok(())
    }

    /// After a failure: NULL in its place where the policy says so, and on with the rows behind it.
    #[cold]
    fn go_on(
        &mut self,
        cells: &FieldColumn<'_>,
        before: usize,
        failure: DecodeFailure,
    ) -> Result<usize, DecodeFailure> {
        let (mut from, mut failure) = (0, failure);
        loop {
            let row = from + failure.row;
            if !self.nulls_instead(&failure.problem) {
                return Err(DecodeFailure { row, ..failure });
            }
            self.values.truncate(before + row);
            self.values.append(&ABSENT, &mut self.changed)?;
            self.nulled.push(row);
            self.changed += 1;
            from = row + 1;
            match self.values.append(&cells.behind(from), &mut self.changed) {
                Ok(_) => return Ok(cells.rows()),
                Err(next) => failure = next,
            }
        }
    }

    fn nulls_instead(&self, problem: &Problem) -> bool {
        let policy = match problem {
            Problem::Unrepresentable { .. } | Problem::TooFine => {
                self.policies.on_unrepresentable == OnUnrepresentable::Null
            }
            Problem::NoJsonNumber { .. } => self.policies.json_nan == JsonNan::Null,
            _ => false,
        };
        policy && self.nullable
    }

    fn check_utf8(&mut self, before: usize) -> Result<(), DecodeFailure> {
        let ValueBuilder::Variable(values, _) = &mut self.values else { return Ok(()) };
        if self.utf8 == Utf8::Replaced {
            self.changed += values.replace_invalid(before)?;
            return Ok(());
        }
        match values.invalid_utf8(before) {
            Some(row) => Err(DecodeFailure::new(row - before, Problem::InvalidUtf8)),
            None => Ok(()),
        }
    }

    /// A failure in a part of a nested value, at its parent's row.
    #[cold]
    pub(super) fn within(&self, failure: DecodeFailure, row: usize) -> DecodeFailure {
        let target = failure.target.or_else(|| Some(target(&self.carrier)));
        DecodeFailure { row, problem: failure.problem, target }
    }

    /// Bytes of the values so far, without NULL bitmaps and spare room.
    pub(super) fn bytes(&self) -> usize {
        self.values.bytes()
    }

    /// Whether values can be ten thousand times as long as their wire form.
    pub(super) fn expands(&self) -> bool {
        self.values.expands()
    }

    /// The values so far as an array, and how many a policy changed.
    pub(super) fn take(&mut self) -> Result<(ArrayRef, u64), TakeError> {
        let nulls = self.nulls.finish();
        let mut changed = std::mem::take(&mut self.changed);
        let array = self.values.take(&self.data_type, nulls, &mut changed)?;
        if self.rewritten {
            changed = (array.len() - array.null_count()) as u64;
        }
        Ok((array, changed))
    }

    /// As [`Self::take`], for a member that is never NULL where its struct is not: the rest are zeros.
    pub(super) fn take_required(&mut self) -> Result<(ArrayRef, u64), TakeError> {
        self.nulls = NullBufferBuilder::new(0);
        let mut changed = std::mem::take(&mut self.changed);
        Ok((self.values.take(&self.data_type, None, &mut changed)?, changed))
    }
}

/// Whether some value of the column can end the export: planning has said so in the column's policy.
pub(super) fn may_fail(plan: &PgColumn) -> bool {
    plan.output.policy.split(", ").any(|word| word == "error")
}
