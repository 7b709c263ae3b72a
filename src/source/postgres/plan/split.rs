//! Slices of a relation: disjoint, covering (invariant I4), in output order.

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Bound;

use super::error::PlanError;
use super::sizing::{self, Sizing};
use crate::base::memory;
use crate::model::{KeyRange, KeyValue, TupleId};
use crate::source::postgres::plan::{LeafFacts, PgPartition, Slice};

/// A row's place in a relation that is read leaf by leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeapPlace {
    /// Index of the leaf.
    pub leaf: usize,
    /// The place in it.
    pub tuple: TupleId,
}

/// Numbers slices from 0 in the order they come in, which is output order. `ordered` is for plans that are keyed or
/// capped by key; `row_limit` is for a cap on the only partition of a relation that has no key to end it.
///
/// # Errors
/// There are more than `memory::PARTITIONS_MAX`.
pub fn number_partitions(
    slices: Vec<Slice>,
    ordered: bool,
    row_limit: Option<NonZeroU64>,
) -> Result<Vec<PgPartition>, PlanError> {
    let count = slices.len();
    if u32::try_from(count).map_or(true, |count| count > memory::PARTITIONS_MAX) {
        return Err(PlanError::TooManyPartitions { count });
    }
    Ok((0..).zip(slices).map(|(number, slice)| PgPartition { number, slice, ordered, row_limit }).collect())
}

/// Block ranges of large leaves, the last of each leaf open, and runs of small ones, in leaf order.
///
/// An empty relation gives one slice. [`Slice::Whole`] stands where the relation's own name does as well as its
/// leaves: there are none or, where reading through that name is legal (`through_parent`), all of them are empty, or one
/// partition was asked for.
pub fn heap_partitions(leaves: &[LeafFacts], sizing: &Sizing, through_parent: bool) -> Vec<Slice> {
    let one_asked = sizing.partitions == Some(NonZeroU32::MIN);
    let empty = leaves.iter().all(|leaf| leaf.blocks == 0);
    if leaves.is_empty() || (through_parent && leaves.len() > 1 && (one_asked || empty)) {
        return vec![Slice::Whole];
    }
    heap_slices(leaves, sizing, false)
}

/// The slices up to and including the row at `boundary`, which is the last of a capped export in physical order.
///
/// The boundary's leaf must have `ctid_ranges`. Without a boundary there are no rows beyond the cap, and the slices
/// cover every leaf; never [`Slice::Whole`], whose order is the server's.
pub fn heap_capped(leaves: &[LeafFacts], sizing: &Sizing, boundary: Option<HeapPlace>) -> Vec<Slice> {
    let Some(boundary) = boundary else {
        return heap_slices(leaves, sizing, false);
    };
    debug_assert!(boundary.leaf < leaves.len(), "the boundary lies in a leaf of the plan");
    let mut reached: Vec<LeafFacts> = leaves.iter().take(boundary.leaf.saturating_add(1)).cloned().collect();
    if let Some(last) = reached.get_mut(boundary.leaf) {
        last.blocks = boundary.tuple.block.saturating_add(1);
    }
    let mut slices = heap_slices(&reached, sizing, true);
    if let Some(Slice::Heap { leaf, to, .. }) = slices.last_mut()
        && *leaf == boundary.leaf
    {
        *to = place_after(boundary.tuple);
    }
    slices
}

/// The first place behind a row, or `None` where no row can be behind it.
fn place_after(tuple: TupleId) -> Option<TupleId> {
    match tuple.offset.checked_add(1) {
        Some(offset) => Some(TupleId { offset, ..tuple }),
        None => tuple.block.checked_add(1).map(|block| TupleId { block, offset: 0 }),
    }
}

/// With `last_alone` the last leaf shares no slice.
fn heap_slices(leaves: &[LeafFacts], sizing: &Sizing, last_alone: bool) -> Vec<Slice> {
    let mut slices = Vec::new();
    for segment in sizing::allot(leaves, sizing, last_alone) {
        let members = leaves.get(segment.from..segment.to).unwrap_or_default();
        if let [leaf] = members {
            slices.extend(cut_leaf(segment.from, leaf.blocks, segment.slices));
        } else {
            slices.extend(cut_run(segment.from, members, segment.slices));
        }
    }
    slices
}

fn cut_leaf(leaf: usize, blocks: u32, count: u32) -> impl Iterator<Item = Slice> {
    let start = move |nth: u32| TupleId { block: share(blocks, nth, count), offset: 0 };
    (0..count).map(move |nth| Slice::Heap {
        leaf,
        from: (nth > 0).then(|| start(nth)),
        to: (nth + 1 < count).then(|| start(nth + 1)),
    })
}

/// Cuts a run of leaves, the first of which has the index `first`, between leaves: into slices that weigh about the same
/// and have a leaf at least.
fn cut_run(first: usize, leaves: &[LeafFacts], count: u32) -> Vec<Slice> {
    let total: u128 = leaves.iter().map(|leaf| u128::from(sizing::weight(leaf))).sum();
    let mut slices = Vec::new();
    let (mut from, mut to, mut sum) = (0, 0, 0_u128);
    for nth in 1..=count {
        let goal = evenly(total, nth.into(), count.into());
        let left = usize::try_from(count - nth).unwrap_or(usize::MAX);
        let most = leaves.len().saturating_sub(left);
        while let Some(leaf) = leaves.get(to).filter(|_| to < most) {
            let weight = u128::from(sizing::weight(leaf));
            if nth < count && to > from && sum + weight / 2 > goal {
                break;
            }
            sum += weight;
            to += 1;
        }
        slices.push(match to - from {
            1 => Slice::Heap { leaf: first + from, from: None, to: None },
            _ => Slice::Leaves { from: first + from, to: first + to },
        });
        from = to;
    }
    slices
}

/// `nth / count` of the blocks, rounded down.
fn share(blocks: u32, nth: u32, count: u32) -> u32 {
    let blocks_before = u64::from(blocks) * u64::from(nth) / u64::from(count);
    u32::try_from(blocks_before).unwrap_or(blocks)
}

/// The ranges between the bounds, and the rows whose leading key column is NULL where there can be any.
///
/// `bounds` are distinct and in the key's order *as the server sorts them*: out of order, ranges would overlap.
pub fn key_slices(bounds: Vec<KeyValue>, nullable: bool) -> Vec<Slice> {
    // NULL comes last, so "before NULL" is every value.
    let end = if nullable { Bound::Excluded(vec![None]) } else { Bound::Unbounded };
    let mut lower = Bound::Unbounded;
    let mut slices = Vec::with_capacity(bounds.len() + 2);
    for bound in bounds {
        slices.push(Slice::Keys(KeyRange { lower, upper: Bound::Excluded(bound.clone()) }));
        lower = Bound::Included(bound);
    }
    slices.push(Slice::Keys(KeyRange { lower, upper: end }));
    if nullable {
        slices.push(Slice::NullKeys);
    }
    slices
}

/// The ranges that end with the given rows, the last of them at the cap's boundary, or open where the cap cuts
/// nothing off. NULL keys are in them: at their places in the key's order.
///
/// `splits` are values of the whole key, distinct and in its order: the last rows of all partitions but the last.
pub fn capped_slices(splits: Vec<KeyValue>, boundary: Option<KeyValue>) -> Vec<Slice> {
    let mut lower = Bound::Unbounded;
    let mut slices = Vec::with_capacity(splits.len() + 1);
    for split in splits {
        slices.push(Slice::Keys(KeyRange { lower, upper: Bound::Included(split.clone()) }));
        lower = Bound::Excluded(split);
    }
    let end = boundary.map_or(Bound::Unbounded, Bound::Included);
    slices.push(Slice::Keys(KeyRange { lower, upper: end }));
    slices
}

/// The row numbers, from 1, of the last row of each of `parts` partitions but the last. Fewer where there are fewer
/// rows.
pub fn row_split_points(rows: u64, parts: NonZeroU32) -> Vec<u64> {
    let parts = u64::from(parts.get()).min(rows);
    (1..parts).map(|nth| evenly(rows.into(), nth.into(), parts.into())).filter_map(|row| row.try_into().ok()).collect()
}

/// Bounds that cut the integers from `min` to `max` into `parts` ranges of the same width, or as many as there are
/// integers: ascending (reverse them for a descending key), distinct, above `min` and not above `max`.
pub fn integer_bounds(min: i128, max: i128, parts: NonZeroU32) -> Vec<i128> {
    if min > max {
        return Vec::new();
    }
    // Saturates for the whole i128 domain only, where one integer more or less is no matter.
    let count = max.abs_diff(min).saturating_add(1);
    let parts = u128::from(parts.get()).min(count);
    (1..parts).filter_map(|nth| min.checked_add_unsigned(evenly(count, nth, parts))).collect()
}

/// `nth / parts` of `count`, rounded down; for `nth <= parts <= u32::MAX` it cannot overflow.
fn evenly(count: u128, nth: u128, parts: u128) -> u128 {
    (count / parts) * nth + (count % parts) * nth / parts
}

/// Chooses the bounds for `parts` ranges from the boundaries of an equal-frequency histogram (`pg_stats`), whose
/// first and last are the least and the greatest sampled value and so bound nothing.
///
/// Sort and de-duplicate them on the server before [`key_slices`]: the histogram is in the order of the column's own
/// collation and ascending.
pub fn pick_bounds(histogram: &[KeyValue], parts: NonZeroU32) -> Vec<KeyValue> {
    let buckets = u128::try_from(histogram.len().saturating_sub(1)).unwrap_or(0);
    let parts = u128::from(parts.get()).min(buckets);
    let mut bounds: Vec<KeyValue> = (1..parts)
        .filter_map(|nth| histogram.get(usize::try_from(evenly(buckets, nth, parts)).ok()?))
        .cloned()
        .collect();
    bounds.dedup();
    bounds
}

#[cfg(test)]
mod tests;
