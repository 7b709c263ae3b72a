//! The part of planning that asks: facts and bounds from the server go through the pure functions of [`plan`](super::plan).

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use super::connect::Sessions;
use super::estimate::estimated_rows;
use super::plan::delta;
use super::plan::key::{KeyChoice, choose_key, choose_repeating_key};
use super::plan::sizing::{PARTITIONS_MAX, Sizing};
use super::plan::split::{
    HeapPlace, capped_slices, heap_capped, heap_partitions, integer_bounds, key_slices, number_partitions, pick_bounds,
    row_split_points,
};
use super::plan::{
    ColumnRules, PgColumn, PgPlan, RelationFacts, RowKeyColumn, Slice, Wire, check_folders, columns, oid,
    values_are_safe,
};
use super::prepare::Planning;
use super::watermark;
use crate::base::failpoint;
use crate::model::{
    CapPlan, ColumnPlan, Direction, KeyValue, ManifestStats, ReadMode, ReadRequest, RowCap, RowOrder, RowsAvailable,
    SourceProfile, WorkOptions,
};
use crate::source::{SourceError, SourceFault};

/// A capped export is split once a partition has so many rows: below that, connecting costs more than reading.
const CAP_PARTITION_ROWS: u64 = 100_000;

/// The integer types, whose ranges can be cut by arithmetic.
const INTEGERS: [u32; 3] = [oid::INT8, oid::INT2, oid::INT4];

/// What the cap does, before anything is known of it.
fn uncapped(cap: Option<&RowCap>) -> CapPlan {
    let (tier, max_rows) = cap.map_or((None, None), |cap| (cap.tier.clone(), cap.max_rows));
    CapPlan { tier, max_rows, ..CapPlan::none() }
}

/// Connects, takes locks and snapshot, and makes the plan of a run under them.
///
/// # Errors
/// The request does not fit the relation, or the source fails.
///
/// # Cancel safety
/// Dropping the future closes the sessions.
pub(super) async fn begin(sessions: Arc<Sessions>, request: &ReadRequest) -> Result<(Planning, PgPlan), SourceError> {
    let planning = Planning::begin(sessions, request).await?;
    let plan = planning.watched(plan(request, &planning)).await?;
    Ok((planning, plan))
}

/// Makes the plan, under the snapshot that `planning` holds.
pub(super) async fn plan(request: &ReadRequest, planning: &Planning) -> Result<PgPlan, SourceError> {
    let facts = &planning.relation;
    let shape = &planning.shape;
    let cap = request.work.cap.as_ref();
    let (named, read_mode) = (shape.key.as_deref(), request.work.read_mode);
    let choice = match &request.work.served {
        Some(_) => choose_repeating_key(facts, named, read_mode)?,
        None => choose_key(facts, named, cap, read_mode)?,
    };
    check_folders(&request.together, &shape.expressions, facts)?;
    let rules = ColumnRules { format: request.format, policies: &request.policies, server: planning.server.types };
    let mut plan = PgPlan {
        relation: RelationFacts {
            estimated_rows: estimated_rows(planning, request.work.read_mode).await?,
            ..facts.clone()
        },
        predicate: shape.predicate.clone(),
        now: planning.now.clone(),
        one_statement: one_statement(request, planning)?,
        columns: columns::columns(facts, shape, &planning.expressions, &rules)?,
        key: choice.columns.clone(),
        row_key: Vec::new(),
        watermark: None,
        delta: None,
        cap: uncapped(cap),
        together: Vec::new(),
        partitions: Vec::new(),
        locks: planning.lock_use(),
    };
    let by_index = new_rows(request, planning, &mut plan).await?;
    let as_a_whole = facts.leaves.is_empty() || !choice.columns.is_empty() || plan.one_statement.is_some();
    if planning.checks_leaves() && as_a_whole {
        return Err(planning.refuse_parent());
    }
    plan.row_key = row_key(&plan, request);
    let split = Split { request, planning, choice: &choice, by_index };
    match plan.cap.max_rows {
        // Its pages find out by themselves whether there is a row beyond the cap, so that the first comes at once.
        _ if plan.one_statement.is_some() || request.work.served.is_some() => split.in_one_statement(&mut plan)?,
        Some(max_rows) => split.capped(&mut plan, max_rows).await?,
        None => split.uncapped(&mut plan).await?,
    }
    plan.together = together(request, &plan);
    note_whole_rows(request, &mut plan);
    Ok(plan)
}

/// Finds out which rows are new where only these are read: whether the server would find them by indexes.
async fn new_rows(request: &ReadRequest, planning: &Planning, plan: &mut PgPlan) -> Result<bool, SourceError> {
    let Some(watermark) = &request.watermark else { return Ok(false) };
    if let ReadMode::Keyset { .. } = request.work.read_mode {
        let message = "--read-mode keyset has no snapshot, under which alone new rows are told from old ones";
        return Err(SourceError::new(SourceFault::Usage, message).with_hint("leave it out beside --watermark"));
    }
    let oid = planning.found.as_ref().map(|found| found.oid);
    let now = watermark::moment(&planning.anchor, planning.running, (oid, watermark.since.as_ref())).await?;
    let (planned, delta) = delta::decide(plan, watermark, &now)?;
    if let Some(why) = &planned.why_full {
        tracing::warn!(reason = why, "all rows are exported again");
    }
    (plan.watermark, plan.delta) = (Some(planned), delta);
    let Some((rows, by_index)) = watermark::expected(planning, plan).await? else { return Ok(false) };
    plan.relation.estimated_rows = Some(rows);
    Ok(by_index)
}

/// The columns by which partitions are better sorted: none where the statistics say that the values are few, since sorting
/// costs the server, and none where pages are read in the order of their key.
fn together(request: &ReadRequest, plan: &PgPlan) -> Vec<usize> {
    let place = |name: &String| plan.columns.iter().position(|column| column.output.name == *name);
    let places: Vec<usize> = request.together.iter().filter_map(place).collect();
    // A fraction of the rows, or what nobody knows, may be many.
    let distinct = |place: &usize| plan.columns[*place].output.statistics.n_distinct.filter(|count| *count > 0.0);
    let values: Option<f32> = places.iter().map(distinct).product();
    let few = values.is_some_and(|values| values <= FEW_VALUES);
    let in_pages = matches!(request.work.read_mode, ReadMode::Keyset { .. });
    if few || in_pages { Vec::new() } else { places }
}

/// So many values at most are read unsorted: a reader has about as many parts open.
const FEW_VALUES: f32 = 8.0;

/// Why one statement must read all rows, where splitting them could give what no single statement gives.
fn one_statement(request: &ReadRequest, planning: &Planning) -> Result<Option<String>, SourceError> {
    let work = &request.work;
    let capped = work.cap.as_ref().is_some_and(|cap| cap.max_rows.is_some());
    let safety = &planning.split_safety;
    let foreign = capped.then(|| foreign_rows_vary(request, planning)).flatten();
    let varies = safety.row_set_varies.as_ref().filter(|_| capped).or(foreign.as_ref());
    let Some(why) = safety.one_statement.as_ref().or(varies) else {
        return Ok(None);
    };
    if let ReadMode::Keyset { .. } = work.read_mode {
        let message = format!("--read-mode keyset reads each page by a statement of its own, and {why}");
        return Err(
            SourceError::new(SourceFault::Usage, message).with_hint("--read-mode copy reads it as one statement")
        );
    }
    if work.partitions.is_some_and(|partitions| partitions.get() > 1) || request.shape.key.is_some() {
        tracing::warn!(reason = why, "the rows are not split: one statement reads them all");
    }
    Ok(Some(why.clone()))
}

/// Why a cap over foreign tables is not counted before it is read. Pages are counted as they are read anyway.
fn foreign_rows_vary(request: &ReadRequest, planning: &Planning) -> Option<String> {
    let foreign = &planning.relation.reading.foreign;
    let in_pages = matches!(request.work.read_mode, ReadMode::Keyset { .. });
    (!foreign.is_empty() && !in_pages && !failpoint::off("foreign")).then(|| {
        let tables = foreign.join(", ");
        format!("the foreign tables {tables} may have other rows when they are read than when the cap is counted")
    })
}

/// Says why a relation of several tables is read as one partition, where its whole rows are the reason.
fn note_whole_rows(request: &ReadRequest, plan: &mut PgPlan) {
    let read_whole = matches!(plan.partitions.as_slice(), [partition] if partition.slice == Slice::Whole);
    let in_pages = matches!(request.work.read_mode, ReadMode::Keyset { .. });
    if !plan.relation.reading.whole_rows || !read_whole || in_pages || plan.one_statement.is_some() {
        return;
    }
    let why = "an expression or the predicate may mean the whole row, and the tables that the rows are in have other rows \
        than the table that was named";
    if request.work.partitions.is_some_and(|partitions| partitions.get() > 1) && plan.key.is_empty() {
        tracing::warn!(reason = why, "the rows are not split: one statement reads them all; --key would split them");
    }
    plan.one_statement = Some(why.to_owned());
}

/// The columns of the key, or of the relation's unique one, by which errors name rows.
fn row_key(plan: &PgPlan, request: &ReadRequest) -> Vec<RowKeyColumn> {
    let written: Vec<ColumnPlan> = plan.columns.iter().map(|column| column.output.clone()).collect();
    let hidden = |name: &str| {
        request.protect.as_ref().is_some_and(|protect| protect.hides(name, &written)) && !failpoint::off("hidden_keys")
    };
    let unique = plan.relation.unique_key.as_deref().unwrap_or_default();
    let names: Vec<&str> = if unique.is_empty() {
        plan.key.iter().map(|column| column.name.as_str()).collect()
    } else {
        unique.iter().map(String::as_str).collect()
    };
    let column = |name: &str| {
        let facts = plan.relation.columns.iter().find(|column| column.name == name)?;
        let here = |column: &&PgColumn| column.wire == Wire::Binary && column.output.origin.column() == Some(name);
        Some(RowKeyColumn {
            name: name.to_owned(),
            place: plan.columns.iter().position(|column| here(&column)),
            shown: !hidden(name) && (request.stats == ManifestStats::All || values_are_safe(&facts.pg_type)),
            pg_type: facts.pg_type.clone(),
        })
    };
    names.into_iter().filter_map(column).collect()
}

struct Split<'a> {
    request: &'a ReadRequest,
    planning: &'a Planning,
    choice: &'a KeyChoice,
    /// Whether the server would find the rows by indexes, which it does not where a table is cut by its blocks.
    by_index: bool,
}

impl Split<'_> {
    /// One object in one order is one partition.
    fn single(&self) -> bool {
        self.request.single
    }

    /// One partition, read by one statement or page by page. Under a cap one row more is read, which shows whether there is
    /// one.
    fn in_one_statement(&self, plan: &mut PgPlan) -> Result<(), SourceError> {
        let ordered = self.choice.ordered;
        if ordered && self.choice.unique {
            plan.cap.order = RowOrder::Key;
        }
        if let Some(max_rows) = plan.cap.max_rows {
            countable(max_rows)?;
            plan.cap.by_reading = true;
        }
        plan.partitions = number_partitions(vec![Slice::Whole], ordered, plan.cap.max_rows)?;
        Ok(())
    }

    async fn uncapped(&self, plan: &mut PgPlan) -> Result<(), SourceError> {
        if self.choice.ordered {
            plan.cap.order = if self.choice.unique { RowOrder::Key } else { RowOrder::Unspecified };
        }
        let leaves = &plan.relation.leaves;
        let slices = if self.single() && self.planning.checks_leaves() {
            vec![Slice::Leaves { from: 0, to: leaves.len() }]
        } else if self.single() {
            vec![Slice::Whole]
        } else if let Some(leading) = self.choice.columns.first() {
            key_slices(self.key_bounds(leading).await?, leading.nullable)
        } else {
            heap_partitions(leaves, &self.sizing(), !self.planning.checks_leaves())
        };
        plan.partitions = number_partitions(slices, self.choice.ordered, None)?;
        Ok(())
    }

    fn sizing(&self) -> Sizing {
        let work = &self.request.work;
        if self.by_index && work.partitions.is_none() && work.cap.is_none() {
            // Each table in one pass, or a few of them in turn.
            let whole = WorkOptions { source_profile: SourceProfile::Gentle, ..work.clone() };
            return Sizing::new(&whole, self.request.format);
        }
        Sizing::new(work, self.request.format)
    }

    /// Bounds of the leading key column, from its histogram or, for integers, between its extremes.
    async fn key_bounds(
        &self,
        leading: &crate::source::postgres::plan::PgKeyColumn,
    ) -> Result<Vec<KeyValue>, SourceError> {
        let Some(origin) = self.planning.key_origin(leading).await? else { return Ok(Vec::new()) };
        let parts = self.sizing().count(origin.bytes.unwrap_or(0));
        let histogram = self.planning.histogram(leading, &origin).await?;
        let bounds = pick_bounds(&histogram, parts);
        if !bounds.is_empty() || !INTEGERS.contains(&leading.pg_type.base_oid) {
            return Ok(bounds);
        }
        let Some((min, max)) = self.planning.integer_extremes(leading).await? else { return Ok(Vec::new()) };
        let mut bounds: Vec<KeyValue> = integer_bounds(i128::from(min), i128::from(max), parts)
            .into_iter()
            .map(|bound| vec![Some(bound.to_string())])
            .collect();
        if leading.direction == Direction::Desc {
            bounds.reverse();
        }
        Ok(bounds)
    }

    async fn capped(&self, plan: &mut PgPlan, max_rows: NonZeroU64) -> Result<(), SourceError> {
        if matches!(self.request.work.read_mode, ReadMode::Keyset { .. }) {
            // Pages are their own moments: what was row N when planning may not be when reading.
            return self.in_one_statement(plan);
        }
        countable(max_rows)?;
        // Each leaf is a partition of its own at least, and one object holds one partition.
        let leaves = &plan.relation.leaves;
        let one_or_many = if self.single() { leaves.len() == 1 } else { !leaves.is_empty() };
        let by_place = one_or_many && leaves.iter().all(|leaf| leaf.ctid_ranges);
        if self.choice.unique && !self.choice.columns.is_empty() {
            self.capped_by_key(plan, max_rows).await
        } else if self.choice.columns.is_empty() && by_place {
            self.capped_by_place(plan, max_rows).await
        } else if self.planning.checks_leaves() {
            Err(self.planning.refuse_parent())
        } else {
            self.capped_by_limit(plan, max_rows).await
        }
    }

    async fn capped_by_key(&self, plan: &mut PgPlan, max_rows: NonZeroU64) -> Result<(), SourceError> {
        let parts = if self.single() { NonZeroU32::MIN } else { self.capped_parts(max_rows) };
        let points = row_split_points(max_rows.get(), parts);
        let found = self.planning.cap_by_key(plan, max_rows.get(), &points).await?;
        plan.cap.order = RowOrder::Key;
        set_cap(&mut plan.cap, max_rows, found.more);
        let boundary = found.boundary.filter(|_| found.more);
        plan.cap.boundary.clone_from(&boundary);
        plan.partitions = number_partitions(capped_slices(found.splits, boundary), true, None)?;
        Ok(())
    }

    fn capped_parts(&self, max_rows: NonZeroU64) -> NonZeroU32 {
        let readers = u64::try_from(self.request.work.readers.get()).unwrap_or(u64::MAX);
        let by_rows = (max_rows.get() / CAP_PARTITION_ROWS).clamp(1, readers.saturating_mul(2));
        let chosen = u32::try_from(by_rows).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        self.request.work.partitions.unwrap_or(chosen).min(PARTITIONS_MAX)
    }

    /// Leaf by leaf: the first N rows by their place.
    async fn capped_by_place(&self, plan: &mut PgPlan, max_rows: NonZeroU64) -> Result<(), SourceError> {
        plan.cap.order = RowOrder::Physical;
        let mut left = max_rows.get();
        let mut boundary = None;
        let mut more = false;
        'leaves: for group in self.planning.leaf_groups(plan) {
            let wanted = left.checked_add(1).ok_or_else(|| too_large(max_rows))?;
            for (leaf, rows) in self.planning.count_leaves(plan, group, wanted).await? {
                if left == 0 {
                    more = rows > 0;
                } else if rows >= left {
                    let found = self.planning.cap_by_place(plan, leaf, left, &[]).await?;
                    boundary = found.boundary.map(|tuple| HeapPlace { leaf, tuple });
                    more = rows > left;
                }
                left = left.saturating_sub(rows);
                if more {
                    break 'leaves;
                }
            }
        }
        set_cap(&mut plan.cap, max_rows, more);
        let boundary = boundary.filter(|_| more);
        plan.cap.boundary = boundary.map(|place| {
            let leaf = plan.relation.leaves.get(place.leaf).map(|leaf| leaf.sql_name.clone());
            vec![leaf, Some(format!("({},{})", place.tuple.block, place.tuple.offset))]
        });
        let mut sizing = self.sizing();
        if self.single() {
            sizing.partitions = Some(NonZeroU32::MIN);
        } else if sizing.partitions.is_none() {
            sizing.partitions = Some(self.capped_parts(max_rows));
        }
        let slices = heap_capped(&plan.relation.leaves, &sizing, boundary);
        plan.partitions = number_partitions(slices, false, None)?;
        Ok(())
    }

    /// One partition that ends after N rows, in whatever order the server sends them.
    async fn capped_by_limit(&self, plan: &mut PgPlan, max_rows: NonZeroU64) -> Result<(), SourceError> {
        let wanted = max_rows.get().checked_add(1).ok_or_else(|| too_large(max_rows))?;
        let more = self.planning.count_up_to(plan, wanted).await? == wanted;
        set_cap(&mut plan.cap, max_rows, more);
        plan.partitions = number_partitions(vec![Slice::Whole], self.choice.ordered, Some(max_rows))?;
        Ok(())
    }
}

fn set_cap(cap: &mut CapPlan, max_rows: NonZeroU64, more: bool) {
    cap.truncated = more;
    if more {
        cap.available = RowsAvailable::AtLeast(max_rows.get().saturating_add(1));
    }
}

/// PostgreSQL counts in bigint, and row N+1 is looked for.
fn countable(max_rows: NonZeroU64) -> Result<(), SourceError> {
    match i64::try_from(max_rows.get()) {
        Ok(rows) if rows < i64::MAX => Ok(()),
        _ => Err(too_large(max_rows)),
    }
}

fn too_large(max_rows: NonZeroU64) -> SourceError {
    SourceError::new(SourceFault::Usage, format!("a cap of {max_rows} rows is too large"))
}
