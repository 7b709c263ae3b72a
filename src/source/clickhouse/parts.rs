//! The parts of a `MergeTree` table, cut into slices that are read apart. Pure.
//!
//! A part never changes: what happens to it makes a new one, under another name. So a slice of named parts has the same rows
//! whenever it is read, or none where the parts are gone, which its planned number of rows shows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::names::literal;

/// Rows of an index granule, unless a table says otherwise: ranges of whole granules are read without the rows beside them.
const GRANULE_ROWS: u64 = 8_192;

/// Pieces of one slice, so that its statement stays short.
const PIECES_MAX: usize = 100;

/// A slice has no fewer rows, unless more slices were asked for: a statement costs more than so many rows do.
const SLICE_ROWS_MIN: u64 = 65_536;

/// Pieces of a plan: the answer that counts them is held in memory.
const COUNTS_MAX: u64 = 100_000;

/// Rows of one part that stand together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartPiece {
    /// The id of the table's partition that the part is of.
    pub(crate) partition_id: String,
    /// The part's name.
    pub(crate) part: String,
    /// The first row's place in the part.
    pub(crate) from: u64,
    /// The place behind the last row.
    pub(crate) to: u64,
    /// The rows that the statement gives of it.
    pub(crate) rows: u64,
}

/// How finely parts are counted, and how many rows a slice is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grain {
    /// Places of one piece.
    pub(crate) places: u64,
    /// Rows of one slice, about.
    pub(crate) slice_rows: u64,
}

impl Grain {
    /// For a table of about so many rows that is to be cut into so many slices. `exactly` is whether somebody asked for
    /// that many.
    pub(crate) fn of(rows: u64, slices: u64, exactly: bool) -> Self {
        let slice_rows = rows.div_ceil(slices.max(1)).max(1);
        let slice_rows = if exactly { slice_rows } else { slice_rows.max(SLICE_ROWS_MIN) };
        // A fourth of a slice, so that slices come out about even.
        let quarter = (slice_rows / 4).max(1);
        let places = match quarter / GRANULE_ROWS {
            0 if exactly => quarter,
            granules => granules.max(1).saturating_mul(GRANULE_ROWS),
        };
        let least = rows.div_ceil(COUNTS_MAX).max(1);
        Self { places: places.max(least), slice_rows }
    }
}

/// Pieces, which come in order, as slices of about the grain's rows.
pub(crate) fn slices(pieces: Vec<PartPiece>, grain: Grain) -> Vec<Vec<PartPiece>> {
    let mut slices: Vec<Vec<PartPiece>> = Vec::new();
    let mut rows = 0_u64;
    for piece in pieces {
        let piece_rows = piece.rows;
        let fits = rows.saturating_add(piece_rows / 2) < grain.slice_rows;
        let left = match slices.last_mut() {
            Some(slice) if fits => joined(slice, piece),
            _ => Some(piece),
        };
        match left {
            None => rows = rows.saturating_add(piece_rows),
            Some(piece) => {
                rows = piece_rows;
                slices.push(vec![piece]);
            }
        }
    }
    slices
}

/// Puts a piece at the end of a slice; gives it back where that has pieces enough.
fn joined(slice: &mut Vec<PartPiece>, piece: PartPiece) -> Option<PartPiece> {
    if let Some(last) = slice.last_mut()
        && (&last.partition_id, &last.part, last.to) == (&piece.partition_id, &piece.part, piece.from)
    {
        last.to = piece.to;
        last.rows = last.rows.saturating_add(piece.rows);
        return None;
    }
    if slice.len() >= PIECES_MAX {
        return Some(piece);
    }
    slice.push(piece);
    None
}

/// The condition that gives just these rows. Beside each piece stand the names by which the server leaves parts out before
/// it looks into them.
pub(crate) fn condition(pieces: &[PartPiece]) -> String {
    let names = |of: &dyn Fn(&PartPiece) -> String| {
        let names: BTreeSet<String> = pieces.iter().map(of).collect();
        names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
    };
    let one = |piece: &PartPiece| {
        let PartPiece { part, from, to, .. } = piece;
        format!("_part = {} AND _part_offset >= {from} AND _part_offset < {to}", literal(part))
    };
    let ids = names(&|piece| piece.partition_id.clone());
    if let [piece] = pieces {
        return format!("_partition_id IN ({ids}) AND {}", one(piece));
    }
    let parts = names(&|piece| piece.part.clone());
    let each: Vec<String> = pieces.iter().map(|piece| format!("({})", one(piece))).collect();
    format!("_partition_id IN ({ids}) AND _part IN ({parts}) AND ({})", each.join(" OR "))
}

/// The ids of the table's partitions that slices have rows of.
pub(crate) fn partition_ids(pieces: &[PartPiece]) -> BTreeSet<String> {
    pieces.iter().map(|piece| piece.partition_id.clone()).collect()
}

/// All ids that hang together with those of one slice: a slice of two partitions joins them, since it is planned anew as a
/// whole.
pub(crate) fn closure(first: &[PartPiece], all: &[Vec<PartPiece>]) -> BTreeSet<String> {
    let mut ids = partition_ids(first);
    loop {
        let before = ids.len();
        for slice in all {
            if slice.iter().any(|piece| ids.contains(&piece.partition_id)) {
                ids.extend(partition_ids(slice));
            }
        }
        if ids.len() == before {
            return ids;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(id: &str, part: &str, from: u64, to: u64) -> PartPiece {
        PartPiece { partition_id: id.to_owned(), part: part.to_owned(), from, to, rows: to - from }
    }

    #[test]
    fn pieces_that_follow_one_another_become_one() {
        let grain = Grain { places: 10, slice_rows: 40 };
        let pieces = vec![
            piece("a", "a_1", 0, 10),
            piece("a", "a_1", 10, 20),
            piece("a", "a_2", 0, 5),
            piece("b", "b_1", 0, 100),
        ];
        let made = slices(pieces, grain);
        assert_eq!(made, [vec![piece("a", "a_1", 0, 20), piece("a", "a_2", 0, 5)], vec![piece("b", "b_1", 0, 100)]]);
    }

    #[test]
    fn a_condition_names_parts_and_places() {
        let one = condition(&[piece("a", "a'1", 0, 10)]);
        assert_eq!(one, "_partition_id IN ('a') AND _part = 'a\\'1' AND _part_offset >= 0 AND _part_offset < 10");
        let two = condition(&[piece("a", "a_1", 5, 10), piece("b", "b_1", 0, 3)]);
        assert!(
            two.starts_with("_partition_id IN ('a', 'b') AND _part IN ('a_1', 'b_1') AND ((_part = 'a_1' AND"),
            "{two}"
        );
    }

    #[test]
    fn partitions_that_a_slice_joins_are_planned_anew_together() {
        let slices = [
            vec![piece("a", "1", 0, 1), piece("b", "2", 0, 1)],
            vec![piece("b", "3", 0, 1), piece("c", "4", 0, 1)],
            vec![piece("d", "5", 0, 1)],
        ];
        let ids = closure(&slices[0], &slices);
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn the_grain_follows_what_is_asked_for() {
        assert_eq!(Grain::of(600_000, 8, false), Grain { places: 16_384, slice_rows: 75_000 });
        assert_eq!(Grain::of(100, 4, true), Grain { places: 6, slice_rows: 25 });
        assert_eq!(Grain::of(0, 0, false).slice_rows, 65_536);
        assert!(Grain::of(u64::MAX, 1, false).places >= u64::MAX / 200_000);
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn slices_have_every_row_once(counts in prop::collection::vec((0_u8..3, 0_u8..4, 1_u64..50), 0..60), target in 1_u64..200) {
            let mut pieces = Vec::new();
            let mut ends = std::collections::BTreeMap::new();
            for (id, part, rows) in counts {
                let from = ends.entry((id, part)).or_insert(0_u64);
                pieces.push(piece(&id.to_string(), &format!("{id}_{part}"), *from, *from + rows));
                *from += rows;
            }
            pieces.sort_by(|a, b| (&a.partition_id, &a.part, a.from).cmp(&(&b.partition_id, &b.part, b.from)));
            let places = |pieces: &[PartPiece]| {
                pieces.iter().flat_map(|piece| (piece.from..piece.to).map(|place| (piece.part.clone(), place))).collect::<Vec<_>>()
            };
            let all = places(&pieces);
            let made = slices(pieces, Grain { places: 1, slice_rows: target });
            prop_assert_eq!(made.iter().flat_map(|slice| places(slice)).collect::<Vec<_>>(), all);
            prop_assert!(made.iter().all(|slice| slice.len() <= PIECES_MAX));
        }
    }
}
