//! A `MergeTree` table, one statement for each of its partitions and one for all others. Each partition is of a moment of its
//! own.
//!
//! What was there when the run was planned is there in every partition, as it was, or the run ends: a partition gives no fewer
//! rows than were counted, and each of its parts is still there or went into a larger one, under the same mutation. Rows that
//! are inserted meanwhile may be among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::literal;
use super::parts::Grain;
use super::plan::{ChMode, ChPartition, ChPlan, ChSlice};
use super::prepare::{ChPlanning, count_parts};
use super::settings::ClickHouseSession;
use super::steady::RowTexts;
use crate::base::failpoint;
use crate::base::memory::PARTITIONS_MAX;
use crate::source::{SourceError, SourceFault};

/// Partitions of the table in one statement.
const TOGETHER_MAX: usize = 100;

/// Bytes of the names in the statement for all other partitions: a server reads statements of 256 KiB.
const NAMES_MAX: usize = 192 * 1024;

/// A partition of the table as it was when the run was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TablePartition {
    pub(crate) id: String,
    /// The rows that the statement gave of it.
    pub(crate) rows: u64,
    /// The parts that these rows were in.
    pub(crate) parts: Vec<PartSpan>,
}

/// The inserts that a part holds, and the last mutation that it has been through: both stand in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartSpan {
    first: u64,
    last: u64,
    mutation: Option<u64>,
}

impl PartSpan {
    /// Reads `PARTITION_FIRST_LAST_LEVEL[_MUTATION]`; `None` where a name is none of these.
    pub(crate) fn of(partition_id: &str, part: &str) -> Option<Self> {
        let numbers = part.strip_prefix(partition_id)?.strip_prefix('_')?;
        let numbers: Option<Vec<u64>> = numbers.split('_').map(|number| number.parse().ok()).collect();
        let (first, last, mutation) = match numbers?.as_slice() {
            [first, last, _level] => (*first, *last, None),
            [first, last, _level, mutation] => (*first, *last, Some(*mutation)),
            _ => return None,
        };
        (first <= last).then_some(Self { first, last, mutation })
    }

    /// Whether all of `other` went into it, and nothing was changed on the way.
    fn holds(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last && self.mutation == other.mutation
    }
}

/// Partitions as slices of about so many rows, each of at least one partition.
pub(crate) fn together(partitions: Vec<TablePartition>, slice_rows: u64) -> Vec<Vec<TablePartition>> {
    let mut slices: Vec<Vec<TablePartition>> = Vec::new();
    let mut rows = 0_u64;
    for partition in partitions {
        let more = rows.saturating_add(partition.rows);
        match slices.last_mut() {
            Some(slice) if more <= slice_rows && slice.len() < TOGETHER_MAX => {
                rows = more;
                slice.push(partition);
            }
            _ => {
                rows = partition.rows;
                slices.push(vec![partition]);
            }
        }
    }
    slices
}

/// The condition that gives the rows of these partitions.
pub(crate) fn condition<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    format!("_partition_id IN ({})", names(ids))
}

/// The condition that gives the rows of all others.
pub(crate) fn complement(ids: &[String]) -> String {
    if ids.is_empty() {
        "1".to_owned()
    } else {
        format!("_partition_id NOT IN ({})", names(ids.iter().map(String::as_str)))
    }
}

fn names<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    ids.map(literal).collect::<Vec<_>>().join(", ")
}

/// The ids of partitions that have lost a part since they were planned, or whose rows were changed. `active` are the parts of
/// now that have rows, each with the id of its partition.
fn changed(planned: &[TablePartition], active: &[(String, String)]) -> BTreeSet<String> {
    let mut now: BTreeMap<&str, Vec<PartSpan>> = BTreeMap::new();
    for (id, part) in active {
        // A name that cannot be read holds nothing.
        now.entry(id).or_default().extend(PartSpan::of(id, part));
    }
    let is_changed = |partition: &&TablePartition| {
        let now = now.get(partition.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        !partition.parts.iter().all(|part| now.iter().any(|other| other.holds(*part)))
    };
    planned.iter().filter(is_changed).map(|partition| partition.id.clone()).collect()
}

/// What shows, once a slice has been read, that it has all that was planned.
#[derive(Debug)]
pub(crate) struct PartitionWitness {
    session: Arc<ClickHouseSession>,
    /// Database and table.
    table: (String, String),
    planned: Vec<TablePartition>,
}

impl PartitionWitness {
    pub(crate) fn new(session: Arc<ClickHouseSession>, table: (String, String), planned: Vec<TablePartition>) -> Self {
        Self { session, table, planned }
    }

    /// # Errors
    /// A part that was planned is gone, or has been changed, or the server fails.
    pub(crate) async fn confirm(&self) -> Result<(), SourceError> {
        if failpoint::off("planned_parts") {
            return Ok(());
        }
        let (database, table) = &self.table;
        let sql = format!(
            "SELECT partition_id, name FROM system.parts WHERE active AND rows > 0 AND database = {} AND table = {} AND {}",
            literal(database),
            literal(table),
            condition(self.planned.iter().map(|one| one.id.as_str())).replace("_partition_id", "partition_id"),
        );
        let rows = self.session.ask("looking whether what was planned is still there", &sql, &[]).await?;
        let pair = |row: Vec<Option<String>>| {
            let mut values = row.into_iter().flatten();
            Some((values.next()?, values.next()?))
        };
        let active: Vec<(String, String)> = rows.into_iter().filter_map(pair).collect();
        let changed = changed(&self.planned, &active);
        if changed.is_empty() { Ok(()) } else { Err(gone(&changed)) }
    }
}

fn gone(ids: &BTreeSet<String>) -> SourceError {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let noun = if ids.len() == 1 { "partition" } else { "partitions" };
    let message = format!(
        "rows of the table's {noun} {} that were there when the run was planned are gone, or a mutation has changed them",
        ids.join(", ")
    );
    SourceError::new(SourceFault::SnapshotLost, message)
        .with_hint("export it again when the table is quiet, or with --consistency single_statement")
}

impl ChPlanning<'_> {
    /// A statement for each partition of the table, and one for those that it does not have yet; or why it is one statement.
    pub(super) async fn by_partition(
        &self,
        plan: &mut ChPlan,
        texts: &RowTexts,
    ) -> Result<Option<String>, SourceError> {
        if let Some(why) = self.not_by_parts(plan, texts).await? {
            return Ok(Some(why));
        }
        plan.patches = super::prepare::patches(self.session, &plan.relation).await?;
        // Each part is one piece.
        let grain = Grain { places: u64::MAX, slice_rows: u64::MAX };
        let pieces = count_parts(self.session, &plan.relation, &plan.host, grain, None).await?;
        let mut partitions: Vec<TablePartition> = Vec::new();
        for piece in pieces {
            let Some(span) = PartSpan::of(&piece.partition_id, &piece.part) else {
                return Ok(Some(format!("its part {} has a name of another kind", piece.part)));
            };
            match partitions.last_mut().filter(|last| last.id == piece.partition_id) {
                Some(last) => {
                    last.rows = last.rows.saturating_add(piece.rows);
                    last.parts.push(span);
                }
                None => partitions.push(TablePartition { id: piece.partition_id, rows: piece.rows, parts: vec![span] }),
            }
        }
        let ids: Vec<String> = partitions.iter().map(|partition| partition.id.clone()).collect();
        if complement(&ids).len() > NAMES_MAX {
            return Ok(Some("it has more partitions than one statement can name".to_owned()));
        }
        let rows = partitions.iter().fold(0_u64, |sum, partition| sum.saturating_add(partition.rows));
        let slices =
            together(partitions, Grain::of(rows, self.wanted(plan), self.request.work.partitions.is_some()).slice_rows);
        if u32::try_from(slices.len()).unwrap_or(u32::MAX) >= PARTITIONS_MAX {
            return Ok(Some("it has more partitions than a run may have".to_owned()));
        }
        let others = (!failpoint::off("complement")).then_some(ChSlice::Complement(ids));
        let slices = slices.into_iter().map(ChSlice::Partitions).chain(others);
        plan.partitions = (0_u32..).zip(slices).map(|(number, slice)| ChPartition { number, slice }).collect();
        plan.taken_at = chrono::Utc::now();
        plan.mode = ChMode::PerPartition;
        Ok(None)
    }

    /// Whether rows that FINAL makes one are in one partition of the table: its key is made of columns that stand in the
    /// sorting key by themselves. Floats may be equal there and differ in the partition key, as 0.0 and -0.0 do.
    pub(super) async fn final_keeps_to_partitions(
        &self,
        plan: &ChPlan,
        sorting_key: &str,
    ) -> Result<bool, SourceError> {
        let Some((database, table)) = &plan.relation.table else { return Ok(false) };
        let sql = format!(
            "SELECT name, type FROM system.columns WHERE database = {} AND table = {} AND is_in_partition_key",
            literal(database),
            literal(table)
        );
        let sorted: BTreeSet<&str> = sorting_key.split(", ").map(|column| column.trim_matches('`')).collect();
        let keeps = |row: &Vec<Option<String>>| match row.as_slice() {
            [Some(name), Some(type_name)] => sorted.contains(name.as_str()) && !type_name.contains("Float"),
            _ => false,
        };
        Ok(self.ask("asking for the table's partition key", &sql).await?.iter().all(keeps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(id: &str, rows: u64, parts: &[&str]) -> TablePartition {
        let parts = parts.iter().map(|part| PartSpan::of(id, part).unwrap()).collect();
        TablePartition { id: id.to_owned(), rows, parts }
    }

    #[test]
    fn the_name_of_a_part_says_what_it_holds() {
        let span = |first, last, mutation| Some(PartSpan { first, last, mutation });
        assert_eq!(PartSpan::of("all", "all_1_4_2"), span(1, 4, None));
        assert_eq!(PartSpan::of("202601", "202601_3_3_0_17"), span(3, 3, Some(17)));
        assert_eq!(PartSpan::of("a_b", "a_b_1_2_0"), span(1, 2, None));
        for other in ["all_1_4", "all_4_1_2", "all_1_4_2_5_6", "alle_1_4_2", "all_x_4_2", "all"] {
            assert_eq!(PartSpan::of("all", other), None, "{other}");
        }
    }

    #[test]
    fn parts_that_merge_are_there_and_parts_that_go_or_change_are_not() {
        let planned = [partition("a", 5, &["a_1_1_0", "a_2_3_1"]), partition("b", 5, &["b_4_4_0_5"])];
        let now = |parts: &[(&str, &str)]| {
            let parts: Vec<(String, String)> =
                parts.iter().map(|(id, part)| ((*id).to_owned(), (*part).to_owned())).collect();
            changed(&planned, &parts).into_iter().collect::<Vec<_>>()
        };
        assert!(now(&[("a", "a_1_1_0"), ("a", "a_2_3_1"), ("b", "b_4_4_0_5")]).is_empty());
        assert!(now(&[("a", "a_1_9_2"), ("b", "b_4_8_1_5"), ("c", "c_1_1_0")]).is_empty());
        // Dropped and filled again, in part or whole; mutated; unreadable.
        assert_eq!(now(&[("a", "a_2_9_2"), ("b", "b_4_4_0_5")]), ["a"]);
        assert_eq!(now(&[("a", "a_1_9_2"), ("b", "b_6_6_0")]), ["b"]);
        assert_eq!(now(&[("a", "a_1_9_2_12"), ("b", "b_4_4_0_12")]), ["a", "b"]);
        assert_eq!(now(&[("a", "other"), ("b", "b_4_4_0_5")]), ["a"]);
        assert_eq!(now(&[]), ["a", "b"]);
    }

    #[test]
    fn small_partitions_are_read_together_and_none_is_cut() {
        let of = |rows: &[u64], slice_rows| {
            let partitions = rows.iter().map(|rows| partition("a", *rows, &[])).collect();
            together(partitions, slice_rows).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(of(&[10, 10, 10, 500, 1, 99, 1], 100), [3, 1, 2, 1]);
        assert_eq!(of(&[0; 250], 100), [100, 100, 50]);
        assert_eq!(of(&[], 100), [0; 0]);
    }

    #[test]
    fn the_conditions_leave_nothing_out() {
        assert_eq!(condition(["a", "it's"].into_iter()), "_partition_id IN ('a', 'it\\'s')");
        assert_eq!(complement(&["a".to_owned()]), "_partition_id NOT IN ('a')");
        assert_eq!(complement(&[]), "1");
    }
}
