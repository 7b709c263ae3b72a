use std::cmp::Ordering;
use std::num::{NonZeroU64, NonZeroUsize};

use proptest::prelude::*;

use super::*;
use crate::base::memory;
use crate::model::{Direction, Format, SourceProfile};
use crate::source::postgres::plan::split::number_partitions;

fn sizing(partitions: Option<u32>) -> Sizing {
    Sizing {
        readers: NonZeroUsize::new(4).unwrap(),
        partitions: partitions.and_then(NonZeroU32::new),
        // Large, so that the heap of 2^32 blocks, 32 TiB, is hundreds of slices rather than all there may be.
        part_size: NonZeroU64::new(64 << 30).unwrap(),
        format: Format::Csv,
        profile: SourceProfile::Balanced,
    }
}

fn leaf(blocks: u32) -> LeafFacts {
    LeafFacts { oid: 1, sql_name: "public.t".into(), blocks, block_size: 8192, ctid_ranges: true, relations: 1 }
}

fn parts(parts: u32) -> NonZeroU32 {
    NonZeroU32::new(parts).unwrap()
}

fn place(block: u32, offset: u16) -> TupleId {
    TupleId { block, offset }
}

fn heap(leaf: usize, from: Option<TupleId>, to: Option<TupleId>) -> Slice {
    Slice::Heap { leaf, from, to }
}

/// The rules of [`Slice::Heap`] for one row.
fn heap_holds(slice: &Slice, row: HeapPlace) -> bool {
    match slice {
        Slice::Whole => true,
        Slice::Heap { leaf, from, to } => {
            *leaf == row.leaf && from.is_none_or(|from| row.tuple >= from) && to.is_none_or(|to| row.tuple < to)
        }
        Slice::Leaves { from, to } => (*from..*to).contains(&row.leaf),
        Slice::Keys(_) | Slice::NullKeys => panic!("not a heap slice"),
    }
}

/// The rules of [`KeyRange`]: column by column, NULL last in both directions, only the columns the bound has.
fn compare(row: &KeyValue, bound: &KeyValue, key: &[ModelColumn]) -> Ordering {
    row.iter().zip(bound).zip(key).fold(Ordering::Equal, |so_far, ((row, bound), column)| {
        so_far.then_with(|| match (row, bound) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(row), Some(bound)) => {
                let ascending = match column.kind {
                    Kind::Integer => row.parse::<i128>().unwrap().cmp(&bound.parse().unwrap()),
                    Kind::Text => row.as_bytes().cmp(bound.as_bytes()),
                };
                if column.direction == Direction::Desc { ascending.reverse() } else { ascending }
            }
        })
    })
}

fn keys_hold(slice: &Slice, row: &KeyValue, key: &[ModelColumn]) -> bool {
    match slice {
        Slice::Keys(KeyRange { lower, upper }) => {
            let above = match lower {
                Bound::Unbounded => true,
                Bound::Included(bound) => compare(row, bound, key).is_ge(),
                Bound::Excluded(bound) => compare(row, bound, key).is_gt(),
            };
            let below = match upper {
                Bound::Unbounded => true,
                Bound::Included(bound) => compare(row, bound, key).is_le(),
                Bound::Excluded(bound) => compare(row, bound, key).is_lt(),
            };
            above && below
        }
        Slice::NullKeys => row[0].is_none(),
        Slice::Whole | Slice::Heap { .. } | Slice::Leaves { .. } => panic!("not a key slice"),
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Integer,
    Text,
}

#[derive(Debug, Clone, Copy)]
struct ModelColumn {
    kind: Kind,
    direction: Direction,
}

const ASCENDING: [ModelColumn; 1] = [ModelColumn { kind: Kind::Integer, direction: Direction::Asc }];

fn integers(values: impl IntoIterator<Item = i128>) -> Vec<KeyValue> {
    values.into_iter().map(|value| vec![Some(value.to_string())]).collect()
}

/// The number of the only slice that holds the row.
fn only_slice(slices: &[Slice], holds: impl Fn(&Slice) -> bool) -> Result<usize, TestCaseError> {
    let holding: Vec<usize> = (0..slices.len()).filter(|slice| holds(&slices[*slice])).collect();
    prop_assert_eq!(holding.len(), 1, "slices {:?}", holding);
    Ok(holding[0])
}

fn direction() -> impl Strategy<Value = Direction> {
    prop::sample::select(vec![Direction::Asc, Direction::Desc])
}

fn edge_i64() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => any::<i64>(),
        2 => -5..5_i64,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]),
    ]
}

fn edge_u32() -> impl Strategy<Value = u32> {
    prop_oneof![3 => any::<u32>(), 2 => 0..40_u32, 1 => prop::sample::select(vec![u32::MAX - 1, u32::MAX])]
}

fn any_tuple() -> impl Strategy<Value = TupleId> {
    let offset = prop_oneof![any::<u16>(), prop::sample::select(vec![1, 2, u16::MAX - 1, u16::MAX])];
    (edge_u32(), offset).prop_map(|(block, offset)| place(block, offset.max(1)))
}

fn any_leaves() -> impl Strategy<Value = Vec<LeafFacts>> {
    let any_leaf = (edge_u32(), prop::bool::weighted(0.8))
        .prop_map(|(blocks, ctid_ranges)| LeafFacts { ctid_ranges, ..leaf(blocks) });
    prop::collection::vec(any_leaf, 1..12)
}

/// Two key columns, each an integer or a text, in either direction, NULL now and then.
fn any_key() -> impl Strategy<Value = (Vec<ModelColumn>, Vec<KeyValue>, Vec<KeyValue>)> {
    let kind = || prop::sample::select(vec![Kind::Integer, Kind::Text]);
    let column = || (kind(), direction()).prop_map(|(kind, direction)| ModelColumn { kind, direction });
    (column(), column()).prop_flat_map(|(first, second)| {
        let value = |kind| match kind {
            Kind::Integer => prop::option::weighted(0.9, edge_i64().prop_map(|value| value.to_string())).boxed(),
            Kind::Text => prop::option::weighted(0.9, "[a-cé]{0,3}|\\PC{0,4}").boxed(),
        };
        let row = (value(first.kind), value(second.kind)).prop_map(|(first, second)| vec![first, second]);
        let rows = prop::collection::vec(row, 0..24);
        (Just(vec![first, second]), rows.clone(), rows)
    })
}

/// What the server does to bounds: sorts them in the key's order and leaves equal ones out.
fn sorted(mut values: Vec<KeyValue>, key: &[ModelColumn]) -> Vec<KeyValue> {
    values.sort_by(|a, b| compare(a, b, key));
    values.dedup();
    values
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    #[test]
    fn heap_partitions_are_disjoint_and_cover_all_blocks(
        leaves in any_leaves(),
        partitions in prop::option::of(1..300_u32),
        tuples in prop::collection::vec(any_tuple(), 1..20),
    ) {
        let slices = heap_partitions(&leaves, &sizing(partitions), true);
        prop_assert!(slices.len() <= memory::PARTITIONS_MAX as usize);
        for leaf in 0..leaves.len() {
            let edges = slices.iter().filter_map(|slice| match slice {
                Slice::Heap { from: Some(from), .. } => Some(*from),
                _ => None,
            });
            let around = edges.flat_map(|edge| [place(edge.block, 1), place(edge.block.saturating_sub(1), u16::MAX)]);
            for tuple in around.step_by(1 + slices.len() / 50).chain(tuples.iter().copied()) {
                only_slice(&slices, |slice| heap_holds(slice, HeapPlace { leaf, tuple }))?;
            }
        }
    }

    #[test]
    fn asked_for_partitions_are_given_where_there_are_blocks(
        blocks in prop::collection::vec(0..500_u32, 1..6),
        asked in 1..400_u32,
    ) {
        let leaves: Vec<LeafFacts> = blocks.iter().map(|blocks| leaf(*blocks)).collect();
        let slices = heap_partitions(&leaves, &sizing(Some(asked)), true);
        let most: u32 = blocks.iter().map(|blocks| *blocks.max(&1)).sum();
        let empty = blocks.iter().all(|blocks| *blocks == 0);
        let expected = if empty { 1 } else { asked.min(most) };
        prop_assert_eq!(slices.len(), usize::try_from(expected).unwrap());
    }

    #[test]
    fn heap_slices_rise_and_are_balanced(blocks in 1..100_000_u32, asked in 2..300_u32) {
        let slices = heap_partitions(&[leaf(blocks)], &sizing(Some(asked)), true);
        let starts: Vec<u32> = slices.iter().map(|slice| match slice {
            Slice::Heap { from, .. } => from.map_or(0, |from| from.block),
            _ => panic!("not a heap slice"),
        }).collect();
        let ends = starts.iter().copied().skip(1).chain([blocks]);
        let sizes: Vec<u32> = starts.iter().zip(ends).map(|(start, end)| end.checked_sub(*start).unwrap()).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
        prop_assert!(sizes.iter().all(|size| *size > 0));
    }

    #[test]
    fn a_heap_cap_ends_with_its_last_row(
        leaves in any_leaves(),
        at in any::<prop::sample::Index>(),
        last in any_tuple(),
        partitions in prop::option::of(1..50_u32),
        tuples in prop::collection::vec(any_tuple(), 1..20),
    ) {
        let boundary = HeapPlace { leaf: at.index(leaves.len()), tuple: last };
        let slices = heap_capped(&leaves, &sizing(partitions), Some(boundary));
        let after = [place(last.block, last.offset.saturating_add(1)), place(last.block.saturating_add(1), 1)];
        let mut kept: Vec<(HeapPlace, usize)> = Vec::new();
        for leaf in 0..leaves.len() {
            for tuple in tuples.iter().copied().chain(after).chain([last, place(last.block, 1), place(0, 1)]) {
                let row = HeapPlace { leaf, tuple };
                if row <= boundary {
                    kept.push((row, only_slice(&slices, |slice| heap_holds(slice, row))?));
                } else {
                    prop_assert!(!slices.iter().any(|slice| heap_holds(slice, row)), "{:?}", row);
                }
            }
        }
        // Rows in heap order are in slices in number order.
        kept.sort_by_key(|(row, _)| *row);
        prop_assert!(kept.is_sorted_by_key(|(_, slice)| *slice), "{:?}", kept);
    }

    #[test]
    fn key_slices_cover_every_integer(
        min in edge_i64(), max in edge_i64(), count in 1..200_u32, rows in prop::collection::vec(edge_i64(), 1..20),
        direction in direction(),
    ) {
        let (min, max) = (min.min(max), min.max(max));
        let key = [ModelColumn { kind: Kind::Integer, direction }];
        let mut bounds = integer_bounds(min.into(), max.into(), parts(count));
        if direction == Direction::Desc {
            bounds.reverse();
        }
        let slices = key_slices(integers(bounds.clone()), true);
        prop_assert_eq!(slices.len(), bounds.len() + 2);
        let edges = bounds.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        let rows = rows.into_iter().chain([min, max, i64::MIN, i64::MAX]).map(i128::from);
        let mut rows = integers(edges.chain(rows));
        rows.push(vec![None]);
        let rows = sorted(rows, &key);
        let mut held = Vec::new();
        for row in &rows {
            held.push(only_slice(&slices, |slice| keys_hold(slice, row, &key))?);
        }
        prop_assert!(held.is_sorted());
        prop_assert_eq!(held.last().copied(), Some(slices.len() - 1));
    }

    #[test]
    fn integer_bounds_are_even_steps(min in edge_i64(), max in edge_i64(), count in 1..1000_u32) {
        let (min, max) = (i128::from(min.min(max)), i128::from(min.max(max)));
        let bounds = integer_bounds(min, max, parts(count));
        let expected = i128::from(count).min(max - min + 1) - 1;
        prop_assert_eq!(i128::try_from(bounds.len()).unwrap(), expected);
        let edges: Vec<i128> = [min].into_iter().chain(bounds).chain([max + 1]).collect();
        let widths: Vec<i128> = edges.windows(2).map(|edge| edge[1] - edge[0]).collect();
        prop_assert!(widths.iter().all(|width| *width > 0));
        prop_assert!(widths.iter().max().unwrap() - widths.iter().min().unwrap() <= 1, "{:?}", widths);
    }

    #[test]
    fn key_slices_cover_composite_keys((key, bounds, rows) in any_key(), leading_only in any::<bool>()) {
        let width = if leading_only { 1 } else { 2 };
        let bounds: Vec<KeyValue> =
            bounds.into_iter().filter(|bound| bound[0].is_some()).map(|bound| bound[..width].to_vec()).collect();
        let bounds = sorted(bounds, &key);
        let slices = key_slices(bounds.clone(), true);
        let mut rows = rows;
        rows.extend(bounds.into_iter().map(|mut bound| { bound.resize(2, None); bound }));
        let mut held = Vec::new();
        for row in sorted(rows, &key) {
            held.push(only_slice(&slices, |slice| keys_hold(slice, &row, &key))?);
        }
        prop_assert!(held.is_sorted());
    }

    #[test]
    fn capped_slices_hold_the_first_rows_in_order((key, rows, _) in any_key(), cap in 1..30_usize, count in 1..10_u32) {
        // Unique by the model: equal keys of distinct text do not occur in it.
        let rows = sorted(rows, &key);
        let kept = cap.min(rows.len());
        let truncated = cap < rows.len();
        let splits = row_split_points(u64::try_from(kept).unwrap(), parts(count));
        let splits: Vec<KeyValue> = splits.into_iter().map(|row| rows[usize::try_from(row).unwrap() - 1].clone()).collect();
        let boundary = truncated.then(|| rows[kept - 1].clone());
        let slices = capped_slices(splits, boundary);
        prop_assert_eq!(slices.len(), usize::try_from(count).unwrap().min(kept.max(1)));
        let mut held = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            if number < kept {
                held.push(only_slice(&slices, |slice| keys_hold(slice, row, &key))?);
            } else {
                prop_assert!(!slices.iter().any(|slice| keys_hold(slice, row, &key)), "{:?}", row);
            }
        }
        prop_assert!(held.is_sorted());
        // No partition is empty.
        held.dedup();
        prop_assert!(rows.is_empty() || held.len() == slices.len());
    }

    #[test]
    fn split_points_are_even(rows in any::<u64>(), count in 1..1000_u32) {
        let points = row_split_points(rows, parts(count));
        let mut sizes: Vec<u64> = Vec::new();
        let mut before = 0;
        for point in points.iter().copied().chain([rows]) {
            sizes.push(point.checked_sub(before).unwrap());
            before = point;
        }
        prop_assert_eq!(u64::try_from(sizes.len()).unwrap(), u64::from(count).min(rows.max(1)));
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
    }

    #[test]
    fn picked_bounds_are_inner_boundaries_in_order(length in 0..150_usize, count in 1..200_u32) {
        let histogram = integers((0..length).map(|value| i128::try_from(value).unwrap()));
        let picked = pick_bounds(&histogram, parts(count));
        let expected = usize::try_from(count).unwrap().min(length.saturating_sub(1).max(1)) - 1;
        prop_assert_eq!(picked.len(), expected);
        prop_assert_eq!(&sorted(picked.clone(), &ASCENDING), &picked);
        prop_assert!(picked.iter().all(|bound| Some(bound) != histogram.first() && Some(bound) != histogram.last()));
    }
}

#[test]
fn one_leaf_is_cut_at_blocks_and_left_open() {
    assert_eq!(
        heap_partitions(&[leaf(10)], &sizing(Some(3)), true),
        [
            heap(0, None, Some(place(3, 0))),
            heap(0, Some(place(3, 0)), Some(place(6, 0))),
            heap(0, Some(place(6, 0)), None),
        ]
    );
}

#[test]
fn an_empty_relation_is_one_partition() {
    assert_eq!(heap_partitions(&[leaf(0)], &sizing(None), true), [heap(0, None, None)]);
    assert_eq!(heap_partitions(&[leaf(0)], &sizing(Some(8)), true), [heap(0, None, None)]);
    assert_eq!(heap_partitions(&[leaf(0), leaf(0)], &sizing(None), true), [Slice::Whole]);
    assert_eq!(heap_partitions(&[], &sizing(None), true), [Slice::Whole]);
}

#[test]
fn an_empty_leaf_beside_others_shares_their_slice() {
    assert_eq!(heap_partitions(&[leaf(0), leaf(2)], &sizing(None), true), [Slice::Leaves { from: 0, to: 2 }]);
    let asked = heap_partitions(&[leaf(0), leaf(2)], &sizing(Some(2)), true);
    assert_eq!(asked, [heap(0, None, None), heap(1, None, None)]);
}

#[test]
fn a_leaf_without_ctid_ranges_is_one_slice() {
    let other = LeafFacts { ctid_ranges: false, ..leaf(1000) };
    assert_eq!(heap_partitions(&[other], &sizing(Some(4)), true), [heap(0, None, None)]);
}

#[test]
fn one_partition_of_several_leaves_is_the_whole_relation() {
    assert_eq!(heap_partitions(&[leaf(5), leaf(5)], &sizing(Some(1)), true), [Slice::Whole]);
    assert_eq!(heap_partitions(&[leaf(5), leaf(5)], &sizing(Some(1)), false), [Slice::Leaves { from: 0, to: 2 }]);
    assert_eq!(heap_partitions(&[leaf(0), leaf(0)], &sizing(None), false), [Slice::Leaves { from: 0, to: 2 }]);
}

#[test]
fn more_leaves_than_there_may_be_partitions_share_them() {
    let slices = heap_partitions(&vec![leaf(1); 100_000], &sizing(None), true);
    assert_eq!(slices.len(), 8);
    assert_eq!(slices.last(), Some(&Slice::Leaves { from: 87_500, to: 100_000 }));
}

#[test]
fn a_heap_cap_ends_behind_its_row() {
    let capped =
        |tuple| heap_capped(&[leaf(4), leaf(4), leaf(4)], &sizing(Some(1)), Some(HeapPlace { leaf: 1, tuple }));
    assert_eq!(capped(place(2, 7)), [heap(0, None, None), heap(1, None, Some(place(2, 8)))]);
    assert_eq!(capped(place(2, u16::MAX)), [heap(0, None, None), heap(1, None, Some(place(3, 0)))]);
    assert_eq!(capped(place(u32::MAX, u16::MAX)), [heap(0, None, None), heap(1, None, None)]);
    assert_eq!(heap_capped(&[leaf(1), leaf(1)], &sizing(Some(1)), None), [Slice::Leaves { from: 0, to: 2 }]);
    let capped =
        heap_capped(&[leaf(4), leaf(4), leaf(4)], &sizing(Some(1)), Some(HeapPlace { leaf: 2, tuple: place(2, 7) }));
    assert_eq!(capped, [Slice::Leaves { from: 0, to: 2 }, heap(2, None, Some(place(2, 8)))]);
}

#[test]
fn ranges_between_bounds() {
    let keys = |lower, upper| Slice::Keys(KeyRange { lower, upper });
    let [ten, twenty] = [10, 20].map(|value: i128| vec![Some(value.to_string())]);
    assert_eq!(
        key_slices(vec![ten.clone(), twenty.clone()], false),
        [
            keys(Bound::Unbounded, Bound::Excluded(ten.clone())),
            keys(Bound::Included(ten.clone()), Bound::Excluded(twenty.clone())),
            keys(Bound::Included(twenty.clone()), Bound::Unbounded),
        ]
    );
    assert_eq!(key_slices(Vec::new(), false), [keys(Bound::Unbounded, Bound::Unbounded)]);
    assert_eq!(key_slices(Vec::new(), true), [keys(Bound::Unbounded, Bound::Excluded(vec![None])), Slice::NullKeys,]);
    assert_eq!(
        capped_slices(vec![ten.clone()], Some(twenty.clone())),
        [
            keys(Bound::Unbounded, Bound::Included(ten.clone())),
            keys(Bound::Excluded(ten.clone()), Bound::Included(twenty)),
        ]
    );
    assert_eq!(
        capped_slices(vec![ten.clone()], None),
        [keys(Bound::Unbounded, Bound::Included(ten.clone())), keys(Bound::Excluded(ten), Bound::Unbounded),]
    );
}

#[test]
fn integer_bounds_at_the_ends() {
    assert_eq!(integer_bounds(1, 100, parts(4)), [26, 51, 76]);
    assert_eq!(integer_bounds(5, 5, parts(4)), []);
    assert_eq!(integer_bounds(6, 5, parts(4)), []);
    assert_eq!(integer_bounds(1, 2, parts(4)), [2]);
    assert_eq!(integer_bounds(i64::MIN.into(), i64::MAX.into(), parts(2)), [0]);
    assert_eq!(integer_bounds(i128::MIN, i128::MAX, parts(2)).len(), 1);
    assert_eq!(integer_bounds(i128::MIN, i128::MAX, parts(u32::MAX / 1024)).len(), 4_194_302);
}

#[test]
fn split_points_of_few_rows() {
    assert_eq!(row_split_points(10_000, parts(3)), [3333, 6666]);
    assert_eq!(row_split_points(2, parts(8)), [1]);
    assert!(row_split_points(1, parts(8)).is_empty());
    assert!(row_split_points(0, parts(8)).is_empty());
}

#[test]
fn repeated_histogram_bounds_are_taken_once() {
    assert_eq!(pick_bounds(&integers([1, 2, 2, 2, 3]), parts(4)), integers([2]));
    assert_eq!(pick_bounds(&integers([1, 2]), parts(4)), integers([]));
    assert_eq!(pick_bounds(&integers(0..101), parts(4)), integers([25, 50, 75]));
}

#[test]
fn partitions_are_numbered_in_order_and_not_beyond_the_limit() {
    let numbered = number_partitions(key_slices(integers([1, 2]), true), true, None).unwrap();
    assert_eq!(numbered.iter().map(|partition| partition.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(numbered.iter().all(|partition| partition.ordered));
    let many = vec![Slice::Whole; usize::try_from(memory::PARTITIONS_MAX).unwrap()];
    assert!(number_partitions(many.clone(), false, None).is_ok());
    let error = number_partitions([many, vec![Slice::Whole]].concat(), false, None).unwrap_err();
    assert!(error.whole().starts_with("the plan has 100000 partitions, more than 99999;"), "{error}");
}
