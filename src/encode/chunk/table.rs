//! The different values of a column chunk, each with its place.

/// Places fit into 16 bits.
const VALUES_MAX: usize = 1 << 16;

/// Bytes of a dictionary page, as the Parquet crate bounds its own: readers keep it in memory.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Longer values would have to be cut for statistics.
const VALUE_BYTES_MAX: usize = 64;

/// Slots of a new table; always a power of two, and more than twice as many as values.
const SLOTS: usize = 256;

/// An odd number without pattern: the golden ratio's fraction of 2^64.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// More values, or longer ones, than a dictionary is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// By a value's hash, where to look for its place plus one; zero is free.
#[derive(Debug)]
struct Slots(Vec<u32>);

impl Slots {
    fn new() -> Self {
        Self(vec![0; SLOTS])
    }

    /// The place of the value of this hash which `is` tells; `Err` is the slot for a new one.
    #[inline]
    fn find(&self, hash: u64, is: impl Fn(usize) -> bool) -> Result<u16, usize> {
        let mask = self.0.len() - 1;
        // The product's upper bits depend on all of the value.
        let mut slot = usize::try_from(hash >> 32).unwrap_or(0) & mask;
        loop {
            match self.0[slot] {
                0 => return Err(slot),
                taken => {
                    let place = taken as usize - 1;
                    if is(place) {
                        return Ok(u16::try_from(place).unwrap_or(u16::MAX));
                    }
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Takes the slot for the value at `place`, the last one so far, and makes room for the next; `hash` is any value's.
    fn take(&mut self, slot: usize, place: usize, hash: impl Fn(usize) -> u64) -> Result<u16, Full> {
        let taken = u32::try_from(place + 1).map_err(|_| Full)?;
        self.0[slot] = taken;
        if (place + 1) * 2 >= self.0.len() {
            let grown = self.0.len() * 4;
            self.0 = vec![0; grown];
            for place in 0..taken {
                let Err(slot) = self.find(hash(place as usize), |_| false) else { continue };
                self.0[slot] = place + 1;
            }
        }
        u16::try_from(place).map_err(|_| Full)
    }
}

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(SCATTER).rotate_left(29)
}

/// Numbers near the first one, in both directions, whose places stand in a table without hashes.
pub(super) const NEAR: usize = 1 << 13;

/// Whole numbers of 64 bits.
#[derive(Debug)]
pub(super) struct Integers {
    slots: Slots,
    pub(super) values: Vec<i64>,
    /// By the distance from the least near number, its place plus one; zero where that is not known. Empty until
    /// [`Self::look_near`].
    near: Vec<u16>,
    least_near: i64,
}

impl Integers {
    pub(super) fn new() -> Self {
        Self { slots: Slots::new(), values: Vec::new(), near: Vec::new(), least_near: 0 }
    }

    /// Makes numbers near each other cheaper to look for, for 16 KiB.
    pub(super) fn look_near(&mut self) {
        if self.near.is_empty()
            && let Some(first) = self.values.first()
        {
            self.near = vec![0; NEAR];
            self.least_near = first.saturating_sub_unsigned(NEAR as u64 / 2);
        }
    }

    /// The place of `value`, a new one where it has none.
    #[inline]
    pub(super) fn place(&mut self, value: i64) -> Result<u16, Full> {
        let distance = usize::try_from(value.wrapping_sub(self.least_near).cast_unsigned()).unwrap_or(usize::MAX);
        match self.near.get(distance) {
            Some(0) => {
                let place = self.find(value)?;
                // The last of all places has no number above it.
                self.near[distance] = place.checked_add(1).unwrap_or(0);
                Ok(place)
            }
            Some(above) => Ok(above - 1),
            None => self.find(value),
        }
    }

    #[inline]
    fn find(&mut self, value: i64) -> Result<u16, Full> {
        let hash = |value: i64| value.cast_unsigned().wrapping_mul(SCATTER);
        match self.slots.find(hash(value), |place| self.values[place] == value) {
            Ok(place) => Ok(place),
            Err(slot) => {
                let place = self.values.len();
                if place == VALUES_MAX {
                    return Err(Full);
                }
                self.values.push(value);
                self.slots.take(slot, place, |place| hash(self.values[place]))
            }
        }
    }
}

/// Byte strings.
#[derive(Debug)]
pub(super) struct Strings {
    slots: Slots,
    /// End to end, each behind its length in 4 bytes: a dictionary page as it is written.
    pub(super) page: Vec<u8>,
    /// Where each value begins in the page and its length.
    spans: Vec<(u32, u32)>,
    /// Of each string of one byte its place plus one; zero where it has none. Flags are such strings.
    ones: Box<[u16; 256]>,
}

impl Strings {
    pub(super) fn new() -> Self {
        Self { slots: Slots::new(), page: Vec::new(), spans: Vec::new(), ones: Box::new([0; 256]) }
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn value(&self, place: usize) -> &[u8] {
        let (start, length) = self.spans[place];
        &self.page[start as usize..][..length as usize]
    }

    /// The place of `value`, a new one where it has none.
    #[inline]
    pub(super) fn place(&mut self, value: &[u8]) -> Result<u16, Full> {
        if let [byte] = *value {
            let one = usize::from(byte);
            if self.ones[one] == 0 {
                let place = self.find(value)?;
                // The last of all places has no number above it.
                self.ones[one] = place.checked_add(1).unwrap_or(0);
                return Ok(place);
            }
            return Ok(self.ones[one] - 1);
        }
        self.find(value)
    }

    #[inline]
    fn find(&mut self, value: &[u8]) -> Result<u16, Full> {
        let hash = hash(value);
        match self.slots.find(hash, |place| same(self.value(place), value)) {
            Ok(place) => Ok(place),
            Err(slot) => self.add(slot, value),
        }
    }

    fn add(&mut self, slot: usize, value: &[u8]) -> Result<u16, Full> {
        let place = self.spans.len();
        if place == VALUES_MAX || value.len() > VALUE_BYTES_MAX || self.page.len() + value.len() > PAGE_BYTES_MAX {
            return Err(Full);
        }
        let length = u32::try_from(value.len()).map_err(|_| Full)?;
        self.page.extend_from_slice(&length.to_le_bytes());
        self.spans.push((u32::try_from(self.page.len()).map_err(|_| Full)?, length));
        self.page.extend_from_slice(value);
        let Self { slots, page, spans, .. } = self;
        slots.take(slot, place, |place| {
            let (start, length) = spans[place];
            hash(&page[start as usize..][..length as usize])
        })
    }
}

/// The first and the last bytes of a short value as two words, which overlap; nothing of a call for so few bytes.
#[inline]
fn ends(value: &[u8]) -> Option<(u64, u64)> {
    if let (Some(first), Some(last)) = (value.first_chunk::<8>(), value.last_chunk::<8>()) {
        return (value.len() <= 16).then(|| (u64::from_le_bytes(*first), u64::from_le_bytes(*last)));
    }
    if let (Some(first), Some(last)) = (value.first_chunk::<4>(), value.last_chunk::<4>()) {
        return Some((u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()));
    }
    match *value {
        [a, b, c] => Some((u16::from_le_bytes([a, b]).into(), c.into())),
        [a, b] => Some((a.into(), b.into())),
        [a] => Some((a.into(), 0)),
        _ => Some((0, 0)),
    }
}

#[inline]
fn hash(value: &[u8]) -> u64 {
    let length = value.len() as u64;
    if let Some((first, last)) = ends(value) {
        return mix(mix(length, first), last).wrapping_mul(SCATTER);
    }
    let (words, _) = value.as_chunks::<8>();
    let last = value.last_chunk::<8>().map_or(0, |last| u64::from_le_bytes(*last));
    words.iter().fold(mix(length, last), |hash, word| mix(hash, u64::from_le_bytes(*word))).wrapping_mul(SCATTER)
}

#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    if let (Some(one), Some(other)) = (ends(one), ends(other)) {
        return one == other;
    }
    let ((ours, _), (theirs, _)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    ours.iter().zip(theirs).all(|(ours, theirs)| ours == theirs) && one.last_chunk::<8>() == other.last_chunk::<8>()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn strings() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()];
        prop::collection::vec(prop::collection::vec(byte, 0..40), 0..300)
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn equal_strings_have_one_place(strings in strings()) {
            let mut table = Strings::new();
            let mut known: HashMap<&[u8], u16> = HashMap::new();
            for string in &strings {
                let next = u16::try_from(known.len()).unwrap();
                let expected = *known.entry(string).or_insert(next);
                prop_assert_eq!(table.place(string), Ok(expected));
                prop_assert_eq!(table.value(usize::from(expected)), string.as_slice());
            }
            prop_assert_eq!(table.len(), known.len());
        }

        #[test]
        fn equal_integers_have_one_place(integers in prop::collection::vec(prop_oneof![-9..9_i64, any::<i64>()], 0..900)) {
            let mut table = Integers::new();
            let mut known: HashMap<i64, u16> = HashMap::new();
            for &integer in &integers {
                let next = u16::try_from(known.len()).unwrap();
                prop_assert_eq!(table.place(integer), Ok(*known.entry(integer).or_insert(next)));
                // From some number on the table of near ones answers, and answers the same.
                if known.len() == 5 {
                    table.look_near();
                }
            }
            prop_assert_eq!(table.values.len(), known.len());
        }
    }

    #[test]
    fn a_table_is_full_at_its_bounds_and_still_knows_what_it_has() {
        let mut table = Integers::new();
        for value in 0..65_536 {
            assert_eq!(table.place(value * 1024), Ok(u16::try_from(value).unwrap()));
        }
        assert_eq!(table.place(-1), Err(Full));
        assert_eq!(table.place(65_535 * 1024), Ok(65_535));

        let mut table = Strings::new();
        assert_eq!(table.place(&[b'x'; 65]), Err(Full));
        assert_eq!(table.place(&[b'x'; 64]), Ok(0));
        let full = (0..65_536).find(|number| table.place(format!("{number:064}").as_bytes()).is_err()).unwrap();
        assert!((15_000..16_000).contains(&full), "{full} values of 68 bytes");
        assert_eq!(table.place(&[b'x'; 64]), Ok(0));
    }
}
