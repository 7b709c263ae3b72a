//! How many partitions, and how many of them each leaf gets.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use super::{LeafFacts, Plan, Slice, TupleId};
use crate::encode::Format;
use crate::export::request::{SourceProfile, WorkOptions};
use crate::limits;

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
        let by_readers = self.busy_partitions().min(heap_bytes / limits::PARTITION_HEAP_BYTES_MIN);
        let count = heap_bytes.div_ceil(self.part_heap_bytes()).max(by_readers);
        u32::try_from(count)
            .map_or(PARTITIONS_MAX, |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN).min(PARTITIONS_MAX))
    }

    /// Heap bytes that become about one part.
    fn part_heap_bytes(&self) -> u64 {
        let percent = match self.format {
            Format::Parquet => limits::HEAP_PERCENT_OF_PARQUET,
            Format::Csv => limits::HEAP_PERCENT_OF_CSV,
            Format::Ndjson => limits::HEAP_PERCENT_OF_NDJSON,
        };
        (self.part_size.get() / 100).saturating_mul(percent).max(1)
    }

    /// Partitions that keep every reader busy until near the end.
    fn busy_partitions(&self) -> u64 {
        u64::try_from(self.readers.get()).unwrap_or(u64::MAX).saturating_mul(match self.profile {
            SourceProfile::Gentle => 1,
            SourceProfile::Balanced => limits::PARTITIONS_PER_READER,
            SourceProfile::Fast => limits::PARTITIONS_PER_FAST_READER,
        })
    }
}

/// [`limits::PARTITIONS_MAX`], which is not zero.
pub(crate) const PARTITIONS_MAX: NonZeroU32 = NonZeroU32::new(limits::PARTITIONS_MAX).unwrap();

/// How many slices each leaf is cut into: one at least, and no more than it has blocks.
///
/// `--partitions N` gives N in all wherever there are neither more leaves nor fewer blocks than that. The gentle profile
/// cuts no leaf.
pub(super) fn allot(leaves: &[LeafFacts], sizing: &Sizing) -> Vec<u32> {
    // A scan of a whole table keeps to a ring of 256 KiB of the server's buffers, a range of blocks does not: `initscan`
    // (heapam.c) makes the ring where SO_ALLOW_STRAT is set, which `table_beginscan_tidrange` (tableam.h) leaves out.
    if sizing.profile == SourceProfile::Gentle {
        return vec![1; leaves.len()];
    }
    if let Some(partitions) = sizing.partitions {
        return grow(leaves, vec![1; leaves.len()], partitions.min(PARTITIONS_MAX).get().into(), 0);
    }
    let by_size: Vec<u32> = leaves
        .iter()
        .map(|leaf| {
            let slices = heap_bytes(leaf).div_ceil(sizing.part_heap_bytes());
            u32::try_from(slices).unwrap_or(u32::MAX).min(most_slices(leaf)).max(1)
        })
        .collect();
    let max = u64::from(limits::PARTITIONS_MAX);
    if by_size.iter().map(|slices| u64::from(*slices)).sum::<u64>() > max {
        return grow(leaves, vec![1; leaves.len()], max, 0);
    }
    grow(leaves, by_size, sizing.busy_partitions().min(max), limits::PARTITION_HEAP_BYTES_MIN)
}

/// Cuts the leaf with the largest slices once more until there are `target` slices in all, or none can be cut without
/// slices smaller than `slice_bytes_min` or than a block.
fn grow(leaves: &[LeafFacts], mut slices: Vec<u32>, target: u64, slice_bytes_min: u64) -> Vec<u32> {
    let may_cut = |leaf: usize, count: u32| {
        let facts = &leaves[leaf];
        count < most_slices(facts) && heap_bytes(facts) / (u64::from(count) + 1) >= slice_bytes_min
    };
    let mut in_all: u64 = slices.iter().map(|count| u64::from(*count)).sum();
    let mut queue: BinaryHeap<Largest> = (0..leaves.len())
        .filter(|leaf| may_cut(*leaf, slices[*leaf]))
        .map(|leaf| Largest { blocks: leaves[leaf].blocks, slices: slices[leaf], leaf })
        .collect();
    while in_all < target
        && let Some(next) = queue.pop()
    {
        let count = next.slices + 1;
        slices[next.leaf] = count;
        in_all += 1;
        if may_cut(next.leaf, count) {
            queue.push(Largest { slices: count, ..next });
        }
    }
    slices
}

/// Blocks that the partitions of `plan` cover whose numbers `read` holds for, where these are what is read: a key or a
/// predicate may have an index read in their place.
pub fn heap_blocks(plan: &Plan, read: impl Fn(u32) -> bool) -> Option<u64> {
    if plan.predicate.is_some() || plan.relation.leaves.is_empty() {
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

/// A leaf in the order of who is cut next: most blocks a slice first, then the earlier leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Largest {
    blocks: u32,
    slices: u32,
    leaf: usize,
}

impl Ord for Largest {
    fn cmp(&self, other: &Self) -> Ordering {
        // blocks / slices, compared without dividing.
        let own = u64::from(self.blocks) * u64::from(other.slices);
        let others = u64::from(other.blocks) * u64::from(self.slices);
        own.cmp(&others).then(other.leaf.cmp(&self.leaf))
    }
}

impl PartialOrd for Largest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
        LeafFacts { oid: 1, sql_name: "t".into(), blocks: mib * 128, block_size: 8192, ctid_ranges: true }
    }

    #[test]
    fn a_part_comes_near_its_size() {
        // 40 GiB of heap are about 10 GiB of Parquet, 40 of CSV, 80 of NDJSON.
        for (format, partitions) in [(Format::Parquet, 41), (Format::Csv, 161), (Format::Ndjson, 321)] {
            let slices = allot(&[leaf(40 * 1024)], &sizing(4, 256, format))[0];
            assert!(slices.abs_diff(partitions) <= 1, "{format:?}: {slices}");
            assert_eq!(sizing(4, 256, format).count(40 << 30).get(), slices);
        }
    }

    #[test]
    fn readers_are_kept_busy_but_not_with_crumbs() {
        let csv = sizing(4, 256, Format::Csv);
        for (mib, slices) in [(0, 1), (1, 1), (7, 1), (8, 2), (31, 7), (32, 8), (200, 8)] {
            assert_eq!(allot(&[leaf(mib)], &csv), [slices], "{mib} MiB");
            assert_eq!(csv.count(u64::from(mib) << 20).get(), slices, "{mib} MiB");
        }
        assert_eq!(allot(&[leaf(64), leaf(0), leaf(128)], &csv), [3, 1, 4]);
    }

    #[test]
    fn a_profile_cuts_more_or_not_at_all() {
        let profile = |profile| Sizing { profile, ..sizing(4, 256, Format::Csv) };
        assert_eq!(allot(&[leaf(40 * 1024), leaf(0), leaf(64)], &profile(SourceProfile::Gentle)), [1, 1, 1]);
        assert_eq!(allot(&[leaf(200)], &profile(SourceProfile::Fast)), [16]);
        assert_eq!(profile(SourceProfile::Fast).count(200 << 20).get(), 16);
    }

    #[test]
    fn small_leaves_do_not_keep_a_large_one_whole() {
        let mut leaves = vec![leaf(1); 1000];
        leaves.push(leaf(40 * 1024));
        let slices = allot(&leaves, &sizing(4, 256, Format::Csv));
        assert!(slices[1000] >= 160, "{}", slices[1000]);
        assert!(slices[..1000].iter().all(|slices| *slices == 1));
    }

    #[test]
    fn as_many_as_asked_for_where_there_are_blocks() {
        let asked = |n| Sizing { partitions: NonZeroU32::new(n), ..sizing(4, 256, Format::Csv) };
        let blocks = |blocks| LeafFacts { blocks, ..leaf(0) };
        assert_eq!(allot(&[blocks(10)], &asked(7)), [7]);
        assert_eq!(allot(&[blocks(3)], &asked(7)), [3]);
        assert_eq!(allot(&[blocks(0), blocks(100), blocks(50)], &asked(7)), [1, 4, 2]);
        assert_eq!(allot(&[blocks(9), blocks(9), blocks(9)], &asked(2)), [1, 1, 1]);
        let other = LeafFacts { ctid_ranges: false, ..blocks(100) };
        assert_eq!(allot(&[other, blocks(4)], &asked(4)), [1, 3]);
    }

    #[test]
    fn never_more_than_names_have_digits_for() {
        let huge = LeafFacts { blocks: u32::MAX, ..leaf(0) };
        let tiny_parts = sizing(4, 1, Format::Ndjson);
        let slices = allot(&[huge.clone(), huge, leaf(1)], &tiny_parts);
        assert_eq!(slices.iter().sum::<u32>(), limits::PARTITIONS_MAX);
        assert_eq!(tiny_parts.count(u64::MAX).get(), limits::PARTITIONS_MAX);
        let asked = Sizing { partitions: NonZeroU32::new(u32::MAX), ..tiny_parts };
        assert_eq!(asked.count(1).get(), limits::PARTITIONS_MAX);
        let many = sizing(usize::MAX, 256, Format::Csv);
        assert_eq!(allot(&[LeafFacts { blocks: u32::MAX, ..leaf(0) }], &many), [limits::PARTITIONS_MAX]);
    }
}
