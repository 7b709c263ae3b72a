//! How many partitions, and how many of them each leaf gets.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use crate::base::memory;
use crate::model::{Format, SourceProfile, TupleId, WorkOptions};
use crate::source::postgres::plan::{LeafFacts, PgPartition, PgPlan, Slice};

/// Bytes of heap that are read before a second snapshot keeper would stand: about 10 ms.
const SMALL_PLAN_HEAP_BYTES: u64 = 1024 * 1024;

/// Partitions a reader, where the relation is large enough: with one each, all wait for the slowest.
const PARTITIONS_PER_READER: u64 = 2;

/// The same under `--source-profile fast`: the last ones are shorter, and so is the wait for the slowest.
const PARTITIONS_PER_FAST_READER: u64 = 4;

/// Bytes of heap below which cutting a partition only to keep readers busy costs more in round trips and objects than
/// it gains; a reader takes well under 100 ms for them.
const PARTITION_HEAP_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Heap bytes per 100 bytes of Parquet: zstd and dictionaries take a row to about a quarter of its tuple.
const HEAP_PERCENT_OF_PARQUET: u64 = 400;

/// Heap bytes per 100 bytes of CSV: the text of numbers is longer than their binary form by about the tuple header.
const HEAP_PERCENT_OF_CSV: u64 = 100;

/// Heap bytes per 100 bytes of NDJSON: every row repeats the names of its columns.
const HEAP_PERCENT_OF_NDJSON: u64 = 50;

/// What the number of partitions depends on, the relation apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// Connections that read at the same time.
    pub readers: NonZeroUsize,
    /// `--partitions`; `None` chooses by size.
    pub partitions: Option<NonZeroU32>,
    /// Bytes at which a part rolls, and so the size that a partition's only part should come near.
    pub part_size: NonZeroU64,
    /// The format, which says how many heap bytes make an output byte.
    pub format: Format,
    /// How hard the source may be worked.
    pub profile: SourceProfile,
}

impl Sizing {
    /// What the request says.
    pub fn new(work: &WorkOptions, format: Format) -> Self {
        let WorkOptions { readers, partitions, part_size, source_profile, .. } = *work;
        Self { readers, partitions, part_size, format, profile: source_profile }
    }

    /// How many partitions to ask bounds for, where the relation is split by key: by its bytes in the heap, or an
    /// estimate of them (rows by average width).
    pub fn count(&self, heap_bytes: u64) -> NonZeroU32 {
        if let Some(partitions) = self.partitions {
            return partitions.min(PARTITIONS_MAX);
        }
        let by_readers = self.busy_partitions().min(heap_bytes / PARTITION_HEAP_BYTES_MIN);
        let count = heap_bytes.div_ceil(self.part_heap_bytes()).max(by_readers);
        u32::try_from(count)
            .map_or(PARTITIONS_MAX, |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN).min(PARTITIONS_MAX))
    }

    /// Heap bytes that become about one part.
    fn part_heap_bytes(&self) -> u64 {
        let percent = match self.format {
            Format::Parquet => HEAP_PERCENT_OF_PARQUET,
            Format::Csv | Format::Source => HEAP_PERCENT_OF_CSV,
            Format::Ndjson => HEAP_PERCENT_OF_NDJSON,
        };
        (self.part_size.get() / 100).saturating_mul(percent).max(1)
    }

    /// Partitions that keep every reader busy until near the end.
    fn busy_partitions(&self) -> u64 {
        u64::try_from(self.readers.get()).unwrap_or(u64::MAX).saturating_mul(match self.profile {
            SourceProfile::Gentle => 1,
            SourceProfile::Balanced => PARTITIONS_PER_READER,
            SourceProfile::Fast => PARTITIONS_PER_FAST_READER,
        })
    }
}

/// [`memory::PARTITIONS_MAX`], which is not zero.
pub(crate) const PARTITIONS_MAX: NonZeroU32 = NonZeroU32::new(memory::PARTITIONS_MAX).unwrap();

/// Leaves that are cut into slices together: one leaf, cut by blocks, or a run of small ones, cut between leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Index of the first leaf.
    pub(super) from: usize,
    /// Index behind the last leaf.
    pub(super) to: usize,
    /// What reading it costs.
    pub(super) weight: u64,
    /// Into how many slices it can be cut.
    most: u32,
    /// Into how many it is cut.
    pub(super) slices: u32,
}

/// The segments of the leaves, in their order, and how many slices each is cut into: one at least. With `last_alone` the
/// last leaf is in no run.
///
/// `--partitions N` gives N in all, or as many as there are blocks. The gentle profile cuts no leaf.
pub(super) fn allot(leaves: &[LeafFacts], sizing: &Sizing, last_alone: bool) -> Vec<Segment> {
    let total = leaves.iter().fold(0, |sum: u64, leaf| sum.saturating_add(weight(leaf)));
    let wanted = u64::from(sizing.count(total).get());
    let max = u64::from(memory::PARTITIONS_MAX);
    let cut = |largest| segments(leaves, sizing.profile, largest, last_alone);
    // A leaf that is larger than an equal share is cut; the others share.
    let mut largest = total / wanted;
    let mut segments = cut(largest);
    if sizing.partitions.is_some() {
        while largest > 0 && segments.iter().map(|segment| u64::from(segment.most)).sum::<u64>() < wanted {
            largest /= 2;
            segments = cut(largest);
        }
    }
    // Where large and small leaves take turns there may be more segments than partitions.
    let allowed = if sizing.partitions.is_some() { wanted } else { max };
    while u64::try_from(segments.len()).map_or(true, |count| count > allowed) && largest < total {
        largest = largest.max(1).saturating_mul(2);
        segments = cut(largest);
    }
    if sizing.partitions.is_some() {
        grow(&mut segments, wanted, 0);
        return segments;
    }
    let by_size = |segment: &Segment| {
        let slices = segment.weight.div_ceil(sizing.part_heap_bytes());
        u32::try_from(slices).unwrap_or(u32::MAX).min(segment.most).max(1)
    };
    if segments.iter().map(|segment| u64::from(by_size(segment))).sum::<u64>() > max {
        grow(&mut segments, max, 0);
        return segments;
    }
    for segment in &mut segments {
        segment.slices = by_size(segment);
    }
    grow(&mut segments, sizing.busy_partitions().min(max), PARTITION_HEAP_BYTES_MIN);
    segments
}

/// Leaves whose weight is above `largest` stand alone, and those between two of them are a run.
fn segments(leaves: &[LeafFacts], profile: SourceProfile, largest: u64, last_alone: bool) -> Vec<Segment> {
    let last = leaves.len().checked_sub(1).filter(|_| last_alone);
    let mut segments: Vec<Segment> = Vec::new();
    let mut in_run = false;
    for (place, leaf) in leaves.iter().enumerate() {
        let weight = weight(leaf);
        let small = weight <= largest && last != Some(place);
        match segments.last_mut() {
            Some(run) if in_run && small => {
                run.to += 1;
                run.weight = run.weight.saturating_add(weight);
                run.most = u32::try_from(run.to - run.from).unwrap_or(u32::MAX);
            }
            _ => {
                // A scan of a whole table keeps to a ring of 256 KiB of the server's buffers, a range of blocks does
                // not: `initscan` (heapam.c) makes the ring where SO_ALLOW_STRAT is set, which
                // `table_beginscan_tidrange` (tableam.h) leaves out.
                let most = if profile == SourceProfile::Gentle { 1 } else { most_slices(leaf) };
                segments.push(Segment { from: place, to: place + 1, weight, most, slices: 1 });
            }
        }
        in_run = small;
    }
    segments
}

/// What reading a leaf costs, in bytes of heap: opening one without rows takes about as long as reading a block.
pub(super) fn weight(leaf: &LeafFacts) -> u64 {
    heap_bytes(leaf).max(u64::from(leaf.block_size)).max(1)
}

/// Cuts the segment with the largest slices once more until there are `target` slices in all, or none can be cut without
/// slices smaller than `slice_bytes_min`, than a block or than a leaf.
fn grow(segments: &mut [Segment], target: u64, slice_bytes_min: u64) {
    let may_cut = |segment: &Segment| {
        segment.slices < segment.most && segment.weight / (u64::from(segment.slices) + 1) >= slice_bytes_min
    };
    let mut in_all: u64 = segments.iter().map(|segment| u64::from(segment.slices)).sum();
    let candidate = |(place, it): (usize, &Segment)| Largest { weight: it.weight, slices: it.slices, segment: place };
    let mut queue: BinaryHeap<Largest> =
        segments.iter().enumerate().filter(|(_, it)| may_cut(it)).map(candidate).collect();
    while in_all < target
        && let Some(next) = queue.pop()
        && let Some(segment) = segments.get_mut(next.segment)
    {
        segment.slices += 1;
        in_all += 1;
        if may_cut(segment) {
            queue.push(candidate((next.segment, segment)));
        }
    }
}

/// Blocks that the partitions of `plan` cover whose numbers `read` holds for, where these are what is read: a key, a
/// predicate or a watermark may have an index read in their place.
pub fn heap_blocks(plan: &PgPlan, read: impl Fn(u32) -> bool) -> Option<u64> {
    if plan.predicate.is_some() || plan.delta.is_some() || plan.relation.leaves.is_empty() {
        return None;
    }
    plan.partitions.iter().filter(|partition| read(partition.number)).try_fold(0_u64, |sum, partition| {
        let blocks = match &partition.slice {
            _ if partition.ordered || partition.row_limit.is_some() => return None,
            Slice::Whole => plan.relation.leaves.iter().map(|leaf| u64::from(leaf.blocks)).sum(),
            Slice::Heap { leaf, from, to } => {
                // A place within a block has the block read.
                let end = |to: TupleId| u64::from(to.block) + u64::from(to.offset > 0);
                let blocks = u64::from(plan.relation.leaves.get(*leaf)?.blocks);
                let from = from.map_or(0, |from| u64::from(from.block));
                to.map_or(blocks, end).min(blocks).saturating_sub(from)
            }
            Slice::Leaves { from, to } => {
                plan.relation.leaves.get(*from..*to)?.iter().map(|leaf| u64::from(leaf.blocks)).sum()
            }
            Slice::Keys(_) | Slice::NullKeys => return None,
        };
        sum.checked_add(blocks)
    })
}

/// Bytes of the leaf's main fork.
pub(super) fn heap_bytes(leaf: &LeafFacts) -> u64 {
    u64::from(leaf.blocks) * u64::from(leaf.block_size)
}

/// Into how many slices a leaf can be cut.
fn most_slices(leaf: &LeafFacts) -> u32 {
    if leaf.ctid_ranges { leaf.blocks.max(1) } else { 1 }
}

/// A segment in the order of which is cut next: most bytes a slice first, then the earlier segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Largest {
    weight: u64,
    slices: u32,
    segment: usize,
}

impl Ord for Largest {
    fn cmp(&self, other: &Self) -> Ordering {
        // weight / slices, compared without dividing.
        let own = u128::from(self.weight) * u128::from(other.slices);
        let others = u128::from(other.weight) * u128::from(self.slices);
        own.cmp(&others).then(other.segment.cmp(&self.segment))
    }
}

impl PartialOrd for Largest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl LeafFacts {
    /// Whether it is read in less time than a connection takes to make.
    pub fn is_small(&self) -> bool {
        heap_bytes(self) <= SMALL_PLAN_HEAP_BYTES
    }
}

impl PgPlan {
    /// Whether it is read in less time than a connection takes to make: one slice of a small heap.
    pub fn is_small(&self) -> bool {
        let leaf = match self.partitions.as_slice() {
            [PgPartition { slice: Slice::Heap { leaf, .. }, .. }] => self.relation.leaves.get(*leaf),
            _ => None,
        };
        leaf.is_some_and(LeafFacts::is_small)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizing(readers: usize, part_mib: u64, format: Format) -> Sizing {
        Sizing {
            readers: NonZeroUsize::new(readers).unwrap(),
            partitions: None,
            part_size: NonZeroU64::new(part_mib << 20).unwrap(),
            format,
            profile: SourceProfile::Balanced,
        }
    }

    fn leaf(mib: u32) -> LeafFacts {
        LeafFacts { oid: 1, sql_name: "t".into(), blocks: mib * 128, block_size: 8192, ctid_ranges: true, relations: 1 }
    }

    fn slices(leaves: &[LeafFacts], sizing: &Sizing) -> Vec<u32> {
        allot(leaves, sizing, false).iter().map(|segment| segment.slices).collect()
    }

    #[test]
    fn a_part_comes_near_its_size() {
        // 40 GiB of heap are about 10 GiB of Parquet, 40 of CSV, 80 of NDJSON.
        for (format, partitions) in [(Format::Parquet, 41), (Format::Csv, 161), (Format::Ndjson, 321)] {
            let count = slices(&[leaf(40 * 1024)], &sizing(4, 256, format))[0];
            assert!(count.abs_diff(partitions) <= 1, "{format:?}: {count}");
            assert_eq!(sizing(4, 256, format).count(40 << 30).get(), count);
        }
    }

    #[test]
    fn readers_are_kept_busy_but_not_with_crumbs() {
        let csv = sizing(4, 256, Format::Csv);
        for (mib, count) in [(0, 1), (1, 1), (7, 1), (8, 2), (31, 7), (32, 8), (200, 8)] {
            assert_eq!(slices(&[leaf(mib)], &csv), [count], "{mib} MiB");
            assert_eq!(csv.count(u64::from(mib) << 20).get(), count, "{mib} MiB");
        }
        assert_eq!(slices(&[leaf(64), leaf(0), leaf(128)], &csv), [3, 1, 4]);
    }

    #[test]
    fn a_profile_cuts_more_or_not_at_all() {
        let profile = |profile| Sizing { profile, ..sizing(4, 256, Format::Csv) };
        // The two small ones could share a partition, and make two for readers that would idle.
        assert_eq!(slices(&[leaf(40 * 1024), leaf(0), leaf(64)], &profile(SourceProfile::Gentle)), [1, 2]);
        assert_eq!(slices(&[leaf(200)], &profile(SourceProfile::Fast)), [16]);
        assert_eq!(profile(SourceProfile::Fast).count(200 << 20).get(), 16);
    }

    #[test]
    fn small_leaves_share_partitions_and_do_not_keep_a_large_one_whole() {
        let mut leaves = vec![leaf(1); 1000];
        leaves.push(leaf(40 * 1024));
        let segments = allot(&leaves, &sizing(4, 256, Format::Csv), false);
        let [run, large] = segments.as_slice() else { panic!("{segments:?}") };
        assert_eq!((run.from, run.to, run.slices), (0, 1000, 4));
        assert!(large.slices >= 160, "{large:?}");
    }

    #[test]
    fn thousands_of_tiny_leaves_are_a_few_partitions() {
        let tiny = LeafFacts { blocks: 1, ..leaf(0) };
        for (leaves, readers, expected) in [(4000, 4, 7), (4000, 1, 2), (20_000, 4, 8), (100_000, 4, 8), (100, 4, 1)] {
            let counts = slices(&vec![tiny.clone(); leaves], &sizing(readers, 256, Format::Csv));
            assert_eq!(counts, [expected], "{leaves} leaves, {readers} readers");
        }
        let empty = vec![leaf(0); 4000];
        assert_eq!(slices(&empty, &sizing(4, 256, Format::Csv)), [7], "a leaf without rows must be opened too");
    }

    #[test]
    fn large_and_small_leaves_in_turns_are_never_too_many() {
        let turns: Vec<LeafFacts> = (0..120_000).map(|place| leaf(if place % 2 == 0 { 1 } else { 512 })).collect();
        let count: u64 = slices(&turns, &sizing(4, 256, Format::Csv)).iter().map(|slices| u64::from(*slices)).sum();
        assert!(count <= u64::from(memory::PARTITIONS_MAX), "{count}");
        let few = Sizing { partitions: NonZeroU32::new(5), ..sizing(4, 256, Format::Csv) };
        assert_eq!(slices(&turns[..1000], &few).iter().sum::<u32>(), 5);
    }

    #[test]
    fn as_many_as_asked_for_where_there_are_blocks() {
        let asked = |n| Sizing { partitions: NonZeroU32::new(n), ..sizing(4, 256, Format::Csv) };
        let blocks = |blocks| LeafFacts { blocks, ..leaf(0) };
        assert_eq!(slices(&[blocks(10)], &asked(7)), [7]);
        assert_eq!(slices(&[blocks(3)], &asked(7)), [3]);
        assert_eq!(slices(&[blocks(0), blocks(100), blocks(50)], &asked(7)), [1, 4, 2]);
        assert_eq!(slices(&[blocks(9), blocks(9), blocks(9)], &asked(2)), [2]);
        let other = LeafFacts { ctid_ranges: false, ..blocks(100) };
        assert_eq!(slices(&[other, blocks(4)], &asked(4)), [1, 3]);
    }

    #[test]
    fn never_more_than_names_have_digits_for() {
        let huge = LeafFacts { blocks: u32::MAX, ..leaf(0) };
        let tiny_parts = sizing(4, 1, Format::Ndjson);
        let counts = slices(&[huge.clone(), huge, leaf(1)], &tiny_parts);
        assert_eq!(counts.iter().sum::<u32>(), memory::PARTITIONS_MAX);
        assert_eq!(tiny_parts.count(u64::MAX).get(), memory::PARTITIONS_MAX);
        let asked = Sizing { partitions: NonZeroU32::new(u32::MAX), ..tiny_parts };
        assert_eq!(asked.count(1).get(), memory::PARTITIONS_MAX);
        let many = sizing(usize::MAX, 256, Format::Csv);
        assert_eq!(slices(&[LeafFacts { blocks: u32::MAX, ..leaf(0) }], &many), [memory::PARTITIONS_MAX]);
    }
}
