//! How the values of a Parquet column are best written: by what its first values are like, and by what the server's
//! statistics say of all of them.
//!
//! The writer's own way is a dictionary for every column until it is 1 MiB large. Where values hardly repeat, that costs
//! more time than all other encoding together and makes the file larger.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::num::NonZeroU64;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use crate::model::{Carrier, ColumnStatistics};

/// Values looked at.
const SAMPLE_MAX: usize = 8192;

/// Below so many values, chance decides what repeats; statistics know more.
const SAMPLE_MIN: usize = 500;

/// At this fraction of distinct values a dictionary holds nearly every value once.
const MOSTLY_DISTINCT: f32 = -0.5;

/// Beyond this correlation neighbours are close enough for differences to be short.
const NEARLY_SORTED: f32 = 0.9;

/// Below this correlation any few rows have as many different values as any others.
const SCATTERED: f32 = 0.5;

/// A dictionary is to take less than this part of the plain values: those shrink when they are compressed, while the
/// places in a dictionary hardly do, and finding them takes time.
const DICTIONARY_GAIN: f64 = 0.75;

/// Bytes of a dictionary beyond which the writer gives it up (`DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT`).
const DICTIONARY_BYTES_MAX: f64 = 1_048_576.0;

/// Values for which the delta encoding has one least difference, and one width.
const DELTA_BLOCK: usize = 128;
const DELTA_MINIBLOCK: usize = 32;

/// Bits a value that the heads of its block take.
const DELTA_HEAD_BITS: f64 = 0.6;

/// Bytes of differences from which on they tell whether more of them can be compressed.
const PACKED_MIN: usize = 1024;

/// Differences that compression takes no more than this part off are noise: looking for more costs time when they are
/// written, and again when they are read.
const NOISE: f64 = 0.95;

/// Bytes of a value up to which its length is worth being kept apart. The writer copies such a page once more, so a long
/// value would be in memory once more.
const LENGTHS_WIDTH_MAX: f64 = 256.0;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Dictionary,
    Plain,
    /// `DELTA_BINARY_PACKED`.
    Delta,
    /// The same, without the codec.
    DeltaUncompressed,
    /// `DELTA_LENGTH_BYTE_ARRAY`: the bytes of all values end to end, which compress better without their lengths
    /// between them.
    Lengths,
}

/// Chooses for values of `carrier` of which `values` are the first, if there are any yet, and of which a row group has
/// `group_rows`. `delta` says whether readers know the encodings by differences.
pub(super) fn choose(
    carrier: &Carrier,
    statistics: ColumnStatistics,
    values: Option<&ArrayRef>,
    group_rows: NonZeroU64,
    delta: bool,
) -> Choice {
    let group_rows = usize::try_from(group_rows.get()).map_or(f64::MAX, float);
    match values.and_then(ValueSample::of) {
        Some(sample) => by_sample(carrier, &sample, statistics, group_rows, delta),
        None => by_statistics(carrier, statistics, delta && is_integer(carrier)),
    }
}

fn by_statistics(carrier: &Carrier, statistics: ColumnStatistics, delta: bool) -> Choice {
    let mostly_distinct = statistics.n_distinct.map(|distinct| (-1.0..=MOSTLY_DISTINCT).contains(&distinct));
    let nearly_sorted = statistics.correlation.is_some_and(|correlation| correlation.abs() > NEARLY_SORTED);
    let rarely_repeats = matches!(carrier, Carrier::Float32 | Carrier::Float64 | Carrier::Uuid);
    if !mostly_distinct.unwrap_or(rarely_repeats) {
        Choice::Dictionary
    } else if delta && mostly_distinct == Some(true) && nearly_sorted {
        Choice::Delta
    } else {
        Choice::Plain
    }
}

fn by_sample(
    carrier: &Carrier,
    sample: &ValueSample,
    statistics: ColumnStatistics,
    group_rows: f64,
    delta: bool,
) -> Choice {
    let distinct = sample.distinct(group_rows).max(scattered(statistics, group_rows));
    let plain = group_rows * sample.width;
    let dictionary_page = distinct * sample.width;
    let dictionary = dictionary_page + group_rows * distinct.max(1.0).log2().ceil() / 8.0;
    let differences = group_rows * sample.delta_bits() / 8.0;
    let pays = dictionary_page <= DICTIONARY_BYTES_MAX && dictionary < plain * DICTIONARY_GAIN;
    let has_length = matches!(carrier, Carrier::Text | Carrier::Json | Carrier::NumberText | Carrier::Bytes);
    if delta && is_integer(carrier) && differences <= if pays { dictionary } else { plain } {
        if is_noise(&sample.packed) { Choice::DeltaUncompressed } else { Choice::Delta }
    } else if pays {
        Choice::Dictionary
    } else if delta && has_length && sample.width <= LENGTHS_WIDTH_MAX {
        Choice::Lengths
    } else {
        Choice::Plain
    }
}

/// Different values among `rows` of a column without order; none where the statistics do not tell.
fn scattered(statistics: ColumnStatistics, rows: f64) -> f64 {
    if statistics.correlation.is_some_and(|correlation| correlation.abs() >= SCATTERED) {
        return 0.0;
    }
    match statistics.n_distinct {
        Some(count) if count > 0.0 => among(f64::from(count), rows),
        Some(fraction) if (-1.0..=MOSTLY_DISTINCT).contains(&fraction) => rows,
        _ => 0.0,
    }
}

/// Different values expected in `rows` draws of so many.
fn among(values: f64, rows: f64) -> f64 {
    values * -(-rows / values).exp_m1()
}

/// What the first values of a column are like; NULLs are left out.
#[derive(Debug)]
struct ValueSample {
    rows: f64,
    /// Different values of both halves together and of each.
    different: f64,
    halves: [f64; 2],
    /// Bytes of a value, its length included where it has one.
    width: f64,
    /// The differences between neighbours, for integers.
    packed: Vec<u8>,
}

impl ValueSample {
    /// `None` where there are too few values, or they are no more than bits.
    fn of(array: &ArrayRef) -> Option<Self> {
        let mut hashes = Vec::new();
        let mut bytes = 0;
        let mut integers = Vec::new();
        each_value(array, |value| {
            let mut state = DefaultHasher::new();
            state.write(value);
            hashes.push(state.finish());
            bytes += value.len();
            integers.extend(integer(value));
        });
        if hashes.len() < SAMPLE_MIN {
            return None;
        }
        let (first, second) = hashes.split_at(hashes.len() / 2);
        let different = |hashes: &[u64]| float(hashes.iter().collect::<HashSet<_>>().len());
        let rows = float(hashes.len());
        let length = if matches!(array.data_type(), DataType::Utf8 | DataType::Binary) { 4.0 } else { 0.0 };
        Some(Self {
            rows,
            different: different(&hashes),
            halves: [different(first), different(second)],
            width: float(bytes) / rows + length,
            packed: packed(&integers),
        })
    }

    /// Bits of a value as a difference from the one before.
    fn delta_bits(&self) -> f64 {
        float(self.packed.len() * 8) / self.rows + DELTA_HEAD_BITS
    }

    /// Different values to be expected among `rows`.
    ///
    /// Values that both halves have tell how many there are to draw from (the Lincoln-Petersen estimate). Where like
    /// values lie together, the halves have few in common and all seem different; then the sample's own share counts.
    fn distinct(&self, rows: f64) -> f64 {
        let [first, second] = self.halves;
        let common = (first + second - self.different).max(1.0);
        among(first * second / common, rows).min(rows * self.different / self.rows)
    }
}

/// A count as a float; counts here are small.
fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

/// The bytes of each of the first values that is not NULL.
fn each_value(array: &ArrayRef, mut take: impl FnMut(&[u8])) {
    match array.data_type() {
        DataType::Utf8 => {
            array.as_string::<i32>().iter().take(SAMPLE_MAX).flatten().for_each(|text| take(text.as_bytes()));
        }
        DataType::Binary => array.as_binary::<i32>().iter().take(SAMPLE_MAX).flatten().for_each(take),
        DataType::FixedSizeBinary(_) => {
            array.as_fixed_size_binary().iter().take(SAMPLE_MAX).flatten().for_each(take);
        }
        fixed => {
            let (Some(width), data) = (fixed.primitive_width(), array.to_data()) else { return };
            let Some(buffer) = data.buffers().first() else { return };
            let values = buffer.as_slice().chunks_exact(width).skip(data.offset()).take(array.len());
            for (row, value) in values.take(SAMPLE_MAX).enumerate() {
                if array.is_valid(row) {
                    take(value);
                }
            }
        }
    }
}

/// An integer from Arrow's bytes of it; of other values, something.
fn integer(value: &[u8]) -> Option<i64> {
    Some(match *value {
        [a, b] => i16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]).into(),
        _ if value.len() <= 16 => i64::from_le_bytes(*value.first_chunk()?),
        _ => return None,
    })
}

/// The differences between neighbours as `DELTA_BINARY_PACKED` stores them, without the heads of their blocks.
fn packed(integers: &[i64]) -> Vec<u8> {
    let differences: Vec<i64> = integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let mut packed = Vec::with_capacity(size_of_val(integers));
    for block in differences.chunks(DELTA_BLOCK) {
        let least = block.iter().copied().min().unwrap_or(0);
        let above = |difference: &i64| difference.wrapping_sub(least).cast_unsigned();
        for miniblock in block.chunks(DELTA_MINIBLOCK) {
            let width = u64::BITS - miniblock.iter().map(above).max().unwrap_or(0).leading_zeros();
            let (mut bits, mut filled) = (0_u128, 0);
            for difference in miniblock {
                bits |= u128::from(above(difference)) << filled;
                filled += width;
                while filled >= u8::BITS {
                    packed.push(bits.to_le_bytes()[0]);
                    bits >>= u8::BITS;
                    filled -= u8::BITS;
                }
            }
            if filled > 0 {
                packed.push(bits.to_le_bytes()[0]);
            }
        }
    }
    packed
}

/// Whether differences are known not to get shorter by compression.
fn is_noise(packed: &[u8]) -> bool {
    if packed.len() < PACKED_MIN {
        return false;
    }
    let compressed = zstd::bulk::compress(packed, 1).map_or(0, |compressed| compressed.len());
    float(compressed) > float(packed.len()) * NOISE
}

/// Whether the format stores the carrier as INT32 or INT64.
fn is_integer(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Decimal128 { precision, .. } => *precision <= 18,
        Carrier::Bool
        | Carrier::Float32
        | Carrier::Float64
        | Carrier::NumberText
        | Carrier::Text
        | Carrier::Json
        | Carrier::Bytes
        | Carrier::Uuid
        | Carrier::Decimal256 { .. }
        | Carrier::List(_)
        | Carrier::Struct(_)
        | Carrier::Map => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Decimal64Array, Float64Array, Int32Array, Int64Array, StringArray};

    use super::*;
    use crate::encode::samples::scrambled;

    const GROUP: NonZeroU64 = NonZeroU64::new(122_880).unwrap();
    const GROUP_ROWS: f64 = 122_880.0;
    const ROWS: i64 = 9000;

    fn longs(value: impl Fn(i64) -> i64) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(value)))
    }

    fn ints(value: impl Fn(i64) -> i64) -> ArrayRef {
        Arc::new(Int32Array::from_iter_values((0..ROWS).map(|row| i32::try_from(value(row)).unwrap())))
    }

    fn texts(value: impl Fn(i64) -> String) -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..ROWS).map(value)))
    }

    fn chosen(carrier: &Carrier, values: &ArrayRef) -> Choice {
        choose(carrier, ColumnStatistics::default(), Some(values), GROUP, true)
    }

    #[test]
    fn the_first_values_decide_where_the_server_knows_nothing() {
        let money = Carrier::Decimal128 { precision: 15, scale: 2 };
        let decimals = |values: i64| -> ArrayRef {
            let unscaled = (0..ROWS).map(|row| scrambled(row, values) * 100);
            Arc::new(Decimal64Array::from_iter_values(unscaled).with_precision_and_scale(15, 2).unwrap())
        };
        let cases = [
            ("ids", Carrier::Int64, longs(|row| row), Choice::Delta),
            ("orders of four lines", Carrier::Int64, longs(|row| row / 4), Choice::Delta),
            ("keys of 200,000", Carrier::Int32, ints(|row| scrambled(row, 200_000)), Choice::DeltaUncompressed),
            ("keys of 100", Carrier::Int64, longs(|row| scrambled(row, 100) * 1_000_003), Choice::Dictionary),
            ("hashes", Carrier::Int64, longs(|row| scrambled(row, i64::MAX)), Choice::Plain),
            (
                "days",
                Carrier::Date32,
                Arc::new(Date32Array::from_iter_values(
                    (0..ROWS).map(|row| i32::try_from(scrambled(row, 2500)).unwrap()),
                )),
                Choice::Dictionary,
            ),
            ("amounts", money.clone(), decimals(50), Choice::Dictionary),
            ("prices", money, decimals(100_000_000), Choice::DeltaUncompressed),
            ("flags", Carrier::Text, texts(|row| scrambled(row, 3).to_string()), Choice::Dictionary),
            ("words", Carrier::Text, texts(|row| format!("word {}", scrambled(row, 1_000_000_000))), Choice::Lengths),
            ("long words", Carrier::Text, texts(|row| format!("{:0>400}", scrambled(row, 40_000))), Choice::Plain),
            (
                "measures",
                Carrier::Float64,
                Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| {
                    #[expect(clippy::cast_precision_loss, reason = "any number does")]
                    let value = scrambled(row, 1 << 50) as f64;
                    value.sqrt()
                }))),
                Choice::Plain,
            ),
            (
                "levels",
                Carrier::Float64,
                Arc::new(Float64Array::from_iter_values(
                    (0..ROWS).map(|row| f64::from(u8::try_from(scrambled(row, 9)).unwrap())),
                )),
                Choice::Dictionary,
            ),
        ];
        for (name, carrier, values, expected) in cases {
            assert_eq!(chosen(&carrier, &values), expected, "{name}");
        }
    }

    #[test]
    fn the_server_s_count_is_believed_where_values_are_scattered() {
        let words = texts(|_| "the same".to_owned());
        let chosen = |n_distinct, correlation| {
            let statistics = ColumnStatistics { n_distinct: Some(n_distinct), correlation, avg_width: None };
            choose(&Carrier::Text, statistics, Some(&words), GROUP, true)
        };
        assert_eq!(chosen(1.0, Some(0.0)), Choice::Dictionary);
        assert_eq!(chosen(-0.9, Some(0.1)), Choice::Lengths);
        assert_eq!(chosen(1e9, None), Choice::Lengths);
        // Like values lie together.
        assert_eq!(chosen(1e9, Some(0.8)), Choice::Dictionary);
    }

    #[test]
    fn differences_are_compressed_unless_they_are_known_to_be_noise() {
        let keys = |row| scrambled(row, 100_000);
        let few: ArrayRef =
            Arc::new(Int64Array::from_iter_values((0..600).map(|row| row * 1000 + scrambled(row, 500))));
        assert_eq!(chosen(&Carrier::Int64, &few), Choice::Delta, "too few to know");
        assert_eq!(chosen(&Carrier::Int64, &longs(keys)), Choice::DeltaUncompressed);
        // One of twenty is large, and makes the others wide.
        let skewed = longs(|row| scrambled(row, 60_000) * i64::from(scrambled(row, 20) == 0) + row);
        assert_eq!(chosen(&Carrier::Int64, &skewed), Choice::Delta);
        let again = longs(|row| scrambled(row % 100, 1 << 40));
        assert_ne!(chosen(&Carrier::Int64, &again), Choice::DeltaUncompressed);
    }

    #[test]
    fn differences_are_for_readers_that_know_them() {
        let ids = longs(|row| row);
        assert_eq!(choose(&Carrier::Int64, ColumnStatistics::default(), Some(&ids), GROUP, false), Choice::Plain);
        let words = texts(|row| row.to_string());
        assert_eq!(choose(&Carrier::Text, ColumnStatistics::default(), Some(&words), GROUP, false), Choice::Plain);
    }

    #[test]
    fn the_estimate_is_near_the_truth() {
        for values in [50, 2500, 10_000, 200_000] {
            let sample = ValueSample::of(&longs(|row| scrambled(row, values))).unwrap();
            let truth = (0..122_880).map(|row| scrambled(row, values)).collect::<HashSet<_>>().len();
            let ratio = sample.distinct(GROUP_ROWS) / float(truth);
            assert!((0.7..1.4).contains(&ratio), "{values}: {ratio}");
        }
        let sorted = ValueSample::of(&longs(|row| row / 4)).unwrap();
        assert!((0.24..0.27).contains(&(sorted.distinct(GROUP_ROWS) / GROUP_ROWS)), "{sorted:?}");
    }
}
