//! Texts of numbers that came before: quantities, rates and prices of a list have few values, and each is printed once.

use super::error::Problem;
use super::loops::{DecodeFailure, FieldColumn, Variable, variable};
use super::numeric;

/// Numbers that are kept, each at a place of its own: others take it over.
const KEPT: usize = 256;

/// Bytes of the longest number that is kept, as it was sent: its head and four groups.
const SENT_BYTES: usize = 16;

/// And of its text.
const TEXT_BYTES: usize = 24;

/// Blocks that are printed without a look after one whose numbers were mostly new.
const BLOCKS_WITHOUT: u8 = 31;

/// How numbers become text.
#[derive(Debug)]
pub(super) struct NumberTexts {
    /// Without NaN and infinities.
    finite: bool,
    kept: Box<[KeptNumber; KEPT]>,
    blocks_without: u8,
}

#[derive(Debug, Clone, Copy)]
struct KeptNumber {
    /// As it was sent, the first byte in the lowest bits; zeros stand behind it.
    sent: u128,
    /// Bytes of it. No number has none.
    sent_bytes: usize,
    text: [u8; TEXT_BYTES],
    text_bytes: usize,
}

impl NumberTexts {
    pub(super) fn new(finite: bool) -> Self {
        let none = KeptNumber { sent: 0, sent_bytes: 0, text: [0; TEXT_BYTES], text_bytes: 0 };
        Self { finite, kept: Box::new([none; KEPT]), blocks_without: 0 }
    }

    /// Appends the text of each number; returns how many are NULL.
    pub(super) fn append(&mut self, cells: &FieldColumn<'_>, values: &mut Variable) -> Result<usize, DecodeFailure> {
        if self.blocks_without > 0 {
            self.blocks_without -= 1;
            return variable(cells, values, |rest, length, out| self.print(&rest[..length], out));
        }
        let mut new = 0;
        let nulls = variable(cells, values, |rest, length, out| {
            let Some(sent) = sent(rest, length) else {
                new += 1;
                return self.print(&rest[..length], out);
            };
            let place = place(sent);
            let kept = &self.kept[place];
            if kept.sent == sent && kept.sent_bytes == length {
                let end = out.len() + kept.text_bytes;
                // All of its room and a shorter length are cheaper than a copy of a length the compiler does not know.
                out.extend_from_slice(&kept.text);
                out.truncate(end);
                return Ok(());
            }
            new += 1;
            let start = out.len();
            self.print(&rest[..length], out)?;
            self.keep(place, (sent, length), &out[start..]);
            Ok(())
        })?;
        if new > cells.rows() / 2 {
            self.blocks_without = BLOCKS_WITHOUT;
        }
        Ok(nulls)
    }

    fn print(&self, number: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
        if self.finite { numeric::append_finite_text(number, out) } else { numeric::append_text(number, out) }
    }

    fn keep(&mut self, place: usize, (sent, sent_bytes): (u128, usize), text: &[u8]) {
        let kept = &mut self.kept[place];
        if let Some(room) = kept.text.get_mut(..text.len()) {
            room.copy_from_slice(text);
            (kept.sent, kept.sent_bytes, kept.text_bytes) = (sent, sent_bytes, text.len());
        }
    }
}

/// The first `length` bytes as a number; `None` where they are none or too many, or the input ends shortly behind them.
#[inline]
fn sent(rest: &[u8], length: usize) -> Option<u128> {
    let bits = u32::try_from(8 * length).ok().filter(|_| (1..=SENT_BYTES).contains(&length))?;
    Some(u128::from_le_bytes(*rest.first_chunk()?) & (u128::MAX >> (u128::BITS - bits)))
}

#[inline]
fn place(sent: u128) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "each is one half")]
    let halves = [sent as u64, (sent >> 64) as u64];
    // The upper bits of the product depend on all of both.
    let scattered = (halves[0] ^ halves[1]).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(scattered >> 56).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::loops::place as offset;
    use super::*;
    use crate::source::postgres::frame::Field;

    /// A number of these groups as it is sent.
    fn number((groups, weight, sign, dscale): &(Vec<u16>, i16, u16, u16)) -> Vec<u8> {
        let head = [u16::try_from(groups.len()).unwrap(), weight.cast_unsigned(), *sign, *dscale];
        head.iter().chain(groups).flat_map(|part| part.to_be_bytes()).collect()
    }

    fn numbers() -> impl Strategy<Value = Vec<u8>> {
        let group = prop_oneof![Just(0_u16), Just(9999), 0..=9999_u16, any::<u16>()];
        let sign =
            prop_oneof![4 => Just(0_u16), 2 => Just(0x4000), 1 => Just(0xc000), 1 => Just(0xd000), 1 => any::<u16>()];
        let whole = (prop::collection::vec(group, 0..6), -3..5_i16, sign, 0..20_u16).prop_map(|parts| number(&parts));
        // Broken ones, too: some are the beginning of another.
        prop_oneof![8 => whole, 1 => prop::collection::vec(any::<u8>(), 0..12), 1 => Just(vec![0; 8]), 1 => Just(vec![0; 10])]
    }

    /// What is appended in blocks, until one fails.
    fn texts(finite: bool, blocks: &[Vec<Vec<u8>>]) -> (Vec<Vec<u8>>, Option<usize>) {
        let (mut texts, mut values) = (NumberTexts::new(finite), Variable::new());
        let (mut rows, mut failed) = (0, None);
        for block in blocks {
            let mut input = Vec::new();
            let fields = block.iter().map(|number| {
                let field = Field::at(u32::try_from(input.len()).unwrap(), u32::try_from(number.len()).unwrap());
                input.extend_from_slice(number);
                field
            });
            let fields: Vec<Field> = fields.collect();
            let cells = FieldColumn { input: &input, fields: &fields, columns: 1, column: 0 };
            match texts.append(&cells, &mut values) {
                Ok(_) => rows += block.len(),
                Err(failure) => {
                    rows += failure.row;
                    failed = Some(rows);
                    values.truncate(rows);
                    break;
                }
            }
        }
        let (offsets, bytes) = values.take();
        let ends = offsets.windows(2).map(|ends| bytes[offset(ends[0])..offset(ends[1])].to_vec());
        (ends.collect(), failed)
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn a_number_is_printed_as_if_it_were_alone(
            pool in prop::collection::vec(numbers(), 1..20),
            picks in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..40), 1..6),
            finite in any::<bool>(),
        ) {
            let blocks: Vec<Vec<Vec<u8>>> =
                picks.iter().map(|block| block.iter().map(|pick| pick.get(&pool).clone()).collect()).collect();
            let print = if finite { numeric::append_finite_text } else { numeric::append_text };
            let (mut expected, mut failed) = (Vec::new(), None);
            for (row, number) in blocks.iter().flatten().enumerate() {
                let mut text = Vec::new();
                if print(number, &mut text).is_err() {
                    failed = Some(row);
                    break;
                }
                expected.push(text);
            }
            prop_assert_eq!(texts(finite, &blocks), (expected, failed));
        }
    }

    #[test]
    fn numbers_at_one_place_do_not_stand_for_each_other() {
        let numbers: Vec<Vec<u8>> = (0..2_000).map(|group| number(&(vec![1, group], 0, 0, 4))).collect();
        // Twice a number before the next: the second time it is a kept one, which had the place of another.
        let twice: Vec<Vec<u8>> = numbers.iter().flat_map(|number| [number.clone(), number.clone()]).collect();
        let expected: Vec<Vec<u8>> = (0..4_000).map(|row| format!("1.{:04}", row / 2).into_bytes()).collect();
        assert_eq!(texts(false, &[twice]), (expected, None));
    }
}
