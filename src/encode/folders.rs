//! A batch whose rows belong into several folders becomes one batch for each: pure, and every row is in exactly one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::{partition, take_record_batch};
use arrow::record_batch::RecordBatch;

use super::text::{CellValues, Cells};
use super::{EncodeError, count};
use crate::model::{Carrier, ColumnPlan, FolderValue};

/// By which columns rows go into folders, and which of them are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderSplit {
    /// Where the columns of the folders stand in a batch, from the outermost folder in.
    pub(crate) places: Vec<usize>,
    /// Where the written columns stand, in their order.
    pub(crate) written: Vec<usize>,
}

/// The rows of a batch that belong into one folder, with the written columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FolderRows {
    pub(crate) folders: Vec<FolderValue>,
    pub(crate) rows: RecordBatch,
}

impl FolderSplit {
    /// The rows of a batch by their folders, in the order in which these come first; within a folder in their own order.
    ///
    /// # Errors
    /// [`EncodeError::WrongCarrier`] where the batch is not of the planned columns.
    pub(crate) fn split(&self, columns: &[ColumnPlan], batch: &RecordBatch) -> Result<Vec<FolderRows>, EncodeError> {
        let written = batch.project(&self.written).map_err(EncodeError::Folders)?;
        if self.places.is_empty() {
            return Ok(vec![FolderRows { folders: Vec::new(), rows: written }]);
        }
        let arrays: Vec<ArrayRef> = self.places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let mut cells: Vec<FolderCells<'_>> = Vec::with_capacity(arrays.len());
        for (place, array) in self.places.iter().zip(&arrays) {
            let column = &columns[*place];
            cells.push((column, Cells::of(column, array)?));
        }
        let mut found: HashMap<Vec<FolderValue>, usize> = HashMap::new();
        let mut runs_of: Vec<Vec<Range<usize>>> = Vec::new();
        // Runs of equal values: many where they come in any order, one of each where the source has sorted them.
        for run in partition(&arrays).map_err(EncodeError::Folders)?.ranges() {
            match found.entry(folders_of(&cells, run.start)) {
                Entry::Occupied(group) => runs_of[*group.get()].push(run),
                Entry::Vacant(group) => {
                    group.insert(runs_of.len());
                    runs_of.push(vec![run]);
                }
            }
        }
        let mut groups: Vec<(Vec<FolderValue>, usize)> = found.into_iter().collect();
        groups.sort_unstable_by_key(|(_, group)| *group);
        let rows = |(folders, group): (Vec<FolderValue>, usize)| {
            let rows = match runs_of[group].as_slice() {
                [run] => written.slice(run.start, run.len()),
                runs => {
                    let places: UInt64Array = runs.iter().cloned().flatten().map(count).collect();
                    take_record_batch(&written, &places).map_err(EncodeError::Folders)?
                }
            };
            Ok(FolderRows { folders, rows })
        };
        groups.into_iter().map(rows).collect()
    }

    /// What of a list with one entry for each column of a batch is of the written ones; an empty list stays so.
    pub(crate) fn of_written(&self, list: &[u64]) -> Box<[u64]> {
        self.written.iter().filter_map(|place| list.get(*place).copied()).collect()
    }
}

/// A column of folders in one batch, and its values.
type FolderCells<'a> = (&'a ColumnPlan, Cells<'a>);

/// In which folders a row is.
fn folders_of(cells: &[FolderCells<'_>], row: usize) -> Vec<FolderValue> {
    let folder = |(column, cell): &FolderCells<'_>| {
        let value = (!cell.is_null(row)).then(|| match (&column.carrier, &cell.values) {
            // PostgreSQL prints one letter, which no reader takes for a boolean.
            (Carrier::Bool, CellValues::Bool(values)) => values.value(row).to_string(),
            (_, values) => {
                let mut text = Vec::new();
                values.output_text(row, &mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
        });
        FolderValue { column: column.name.clone(), value }
    };
    cells.iter().map(folder).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Array, AsArray, BooleanArray, Date32Array, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::super::samples::{batch, column};
    use super::*;

    #[test]
    fn each_type_is_written_as_readers_expect_it_and_null_is_no_text() {
        let columns = [
            column("b", Carrier::Bool),
            column("n", Carrier::Int64),
            column("d", Carrier::Date32),
            column("t", Carrier::Text),
            column("rest", Carrier::Int64),
        ];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![Some(true), Some(true), None])),
            Arc::new(Int64Array::from(vec![Some(-7), Some(-7), None])),
            Arc::new(Date32Array::from(vec![Some(20_785), Some(20_785), None])),
            Arc::new(StringArray::from(vec![Some(""), Some(""), None])),
            Arc::new(Int64Array::from(vec![1, 2, 3])),
        ];
        let split = FolderSplit { places: vec![3, 0, 1, 2], written: vec![4] };
        let found = split.split(&columns, &batch(&columns, arrays)).unwrap();
        let values = |group: &FolderRows| group.folders.iter().map(|it| it.value.clone()).collect::<Vec<_>>();
        let texts = ["", "true", "-7", "2026-11-28"].map(|text| Some(text.to_owned()));
        assert_eq!(values(&found[0]), texts);
        assert_eq!(values(&found[1]), [None, None, None, None]);
        assert_eq!(found[0].folders[1].column, "b");
        assert_eq!((found[0].rows.num_rows(), found[0].rows.num_columns(), found.len()), (2, 1, 2));
        assert_eq!(*split.of_written(&[1, 2, 3, 4, 5]), [5]);
        assert!(split.of_written(&[]).is_empty());
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn every_row_is_in_the_folder_of_its_value_in_its_order(
            values in prop::collection::vec((prop::option::of("[ab]{0,1}"), prop::option::of(0_i64..3)), 0..60)
        ) {
            let columns = [column("t", Carrier::Text), column("place", Carrier::Int64), column("n", Carrier::Int64)];
            let texts: StringArray = values.iter().map(|(text, _)| text.as_deref()).collect();
            let numbers: Int64Array = values.iter().map(|(_, number)| *number).collect();
            let places: Int64Array = (0..).take(values.len()).map(Some).collect();
            let arrays: Vec<ArrayRef> = vec![Arc::new(texts), Arc::new(places), Arc::new(numbers)];
            let split = FolderSplit { places: vec![0, 2], written: vec![1] };
            let mut expected: BTreeMap<Vec<Option<String>>, Vec<i64>> = BTreeMap::new();
            for (place, (text, number)) in (0..).zip(&values) {
                let key = vec![text.clone(), number.map(|number| number.to_string())];
                expected.entry(key).or_default().push(place);
            }
            let found = split.split(&columns, &batch(&columns, arrays)).unwrap();
            prop_assert_eq!(found.len(), expected.len());
            for FolderRows { folders, rows } in found {
                let key: Vec<_> = folders.into_iter().map(|folder| folder.value).collect();
                let rows = rows.column(0).as_primitive::<Int64Type>();
                prop_assert_eq!(rows.null_count(), 0);
                prop_assert_eq!(Some(rows.values().to_vec()), expected.remove(&key));
            }
        }
    }
}
