//! What the manifest says of each column of a part: NULLs, least and greatest value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::compute;
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Decimal64Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow::record_batch::RecordBatch;

use super::EncodeError;
use super::text::{cells, datetime, float, number};
use crate::model::{Carrier, ColumnPlan, ColumnSummary, ManifestStats, Precision};

/// Longer texts and byte strings are cut to a bound of this many bytes, so that receipts and footers stay small.
pub(super) const BOUND_BYTES_MAX: usize = 64;

/// Counts and extremes over the batches of one part.
///
/// Extremes follow PostgreSQL's order, with NaN the greatest number; columns whose values stand in another order as they
/// are held have none ([`ColumnPlan::ordered`]). Text and bytes are compared byte by byte; those longer than 64 bytes
/// become bounds, and `exact` is then false. Numbers that are held as text, decimals of more than 38 digits, JSON and nested
/// values have no extremes.
#[derive(Debug)]
pub struct Tally {
    columns: Arc<[ColumnPlan]>,
    types: Vec<DataType>,
    tallies: Vec<ColumnTally>,
}

#[derive(Debug)]
struct ColumnTally {
    nulls: u64,
    changed: u64,
    extremes: Extremes,
}

/// The least and greatest value so far.
#[derive(Debug)]
enum Extremes {
    Withheld,
    Bool(Option<(bool, bool)>),
    /// All integers, and dates and times as their integers.
    Int(Option<(i64, i64)>),
    Float(FloatExtremes),
    Decimal(Option<(i128, i128)>),
    Bytes(Option<(Cut, Cut)>),
}

/// Extremes of floats: NaN stands above all others, whatever its sign.
#[derive(Debug, Default)]
struct FloatExtremes {
    numbers: Option<(f64, f64)>,
    has_nan: bool,
}

/// The first bytes of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    prefix: Vec<u8>,
    /// Whether more followed.
    truncated: bool,
}

impl Tally {
    /// A tally for one part.
    pub fn new(columns: &Arc<[ColumnPlan]>, stats: ManifestStats) -> Self {
        let tally = |column: &ColumnPlan| ColumnTally { nulls: 0, changed: 0, extremes: Extremes::of(column, stats) };
        Self {
            columns: Arc::clone(columns),
            types: cells::types(columns),
            tallies: columns.iter().map(tally).collect(),
        }
    }

    /// Takes in the values of one batch.
    ///
    /// # Errors
    /// [`EncodeError::WrongCarrier`], as the encoder would.
    pub fn observe(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        cells::check(&self.columns, &self.types, batch)?;
        for (tally, (column, array)) in self.tallies.iter_mut().zip(self.columns.iter().zip(batch.columns())) {
            tally.nulls += super::count(array.null_count());
            tally.extremes.observe(&column.carrier, array);
        }
        Ok(())
    }

    /// Takes in how many values of each column a policy changed; nothing where `changed` is empty.
    pub fn count_changed(&mut self, changed: &[u64]) {
        for (tally, changed) in self.tallies.iter_mut().zip(changed) {
            tally.changed = tally.changed.saturating_add(*changed);
        }
    }

    /// One entry a column, in the plan's order.
    pub fn finish(self) -> Vec<ColumnSummary> {
        let summary = |(column, tally): (&ColumnPlan, ColumnTally)| {
            let (min, max, exact) = tally.extremes.texts(&column.carrier);
            ColumnSummary { name: column.name.clone(), nulls: tally.nulls, min, max, exact, changed: tally.changed }
        };
        self.columns.iter().zip(self.tallies).map(summary).collect()
    }
}

impl Extremes {
    fn of(column: &ColumnPlan, stats: ManifestStats) -> Self {
        match (stats, &column.carrier) {
            _ if !column.ordered => Self::Withheld,
            (ManifestStats::None, _)
            | (ManifestStats::Safe, Carrier::Text | Carrier::Bytes)
            | (
                _,
                Carrier::NumberText
                | Carrier::Json
                | Carrier::Decimal256 { .. }
                | Carrier::List(_)
                | Carrier::Struct(_)
                | Carrier::Map,
            ) => Self::Withheld,
            (_, Carrier::Bool) => Self::Bool(None),
            (_, Carrier::Float32 | Carrier::Float64) => Self::Float(FloatExtremes::default()),
            (_, Carrier::Decimal128 { .. }) => Self::Decimal(None),
            (_, Carrier::Text | Carrier::Bytes | Carrier::Uuid) => Self::Bytes(None),
            _ => Self::Int(None),
        }
    }

    fn observe(&mut self, carrier: &Carrier, array: &ArrayRef) {
        match self {
            Self::Withheld => {}
            Self::Bool(extremes) => {
                let Some(array) = array.as_boolean_opt() else { return };
                widen(extremes, compute::min_boolean(array).zip(compute::max_boolean(array)));
            }
            Self::Int(extremes) => widen(extremes, integers(carrier, array)),
            Self::Float(extremes) => {
                if let Some(array) = array.as_primitive_opt::<Float64Type>() {
                    extremes.observe(array.iter());
                } else if let Some(array) = array.as_primitive_opt::<Float32Type>() {
                    extremes.observe(array.iter().map(|value| value.map(f64::from)));
                }
            }
            Self::Decimal(extremes) => {
                let short = range::<Decimal64Type>(array).map(|(min, max)| (i128::from(min), i128::from(max)));
                widen(extremes, short.or_else(|| range::<Decimal128Type>(array)));
            }
            Self::Bytes(extremes) => {
                let found = bytes(carrier, array).map(|(min, max)| (Cut::new(min), Cut::new(max)));
                widen(extremes, found);
            }
        }
    }

    /// Least and greatest value as PostgreSQL prints them, and whether they are values of the part.
    fn texts(self, carrier: &Carrier) -> (Option<String>, Option<String>, bool) {
        let (min, max) = match self {
            Self::Withheld => (None, None),
            Self::Bool(extremes) => both(extremes, |value, out| out.push(if value { b't' } else { b'f' })),
            Self::Int(extremes) => {
                let told = extremes.and_then(|(min, max)| Some((told(carrier, min)?, told(carrier, max)?)));
                both(told, |value, out| integer(carrier, value, out))
            }
            Self::Float(extremes) => both(extremes.ends(), |value, out| float(carrier, value, out)),
            Self::Decimal(extremes) => {
                let Carrier::Decimal128 { scale, .. } = *carrier else { return (None, None, false) };
                both(extremes, |value, out| number::decimal(out, value, usize::try_from(scale).unwrap_or(0)))
            }
            Self::Bytes(extremes) => return byte_texts(extremes, carrier),
        };
        let exact = min.is_some();
        (min, max, exact)
    }
}

/// Takes the extremes of one batch into those of the part.
fn widen<T: PartialOrd>(extremes: &mut Option<(T, T)>, found: Option<(T, T)>) {
    let Some((min, max)) = found else { return };
    match extremes {
        None => *extremes = Some((min, max)),
        Some((least, greatest)) => {
            if min < *least {
                *least = min;
            }
            if max > *greatest {
                *greatest = max;
            }
        }
    }
}

fn range<T: ArrowNumericType + ArrowPrimitiveType>(array: &ArrayRef) -> Option<(T::Native, T::Native)> {
    let array = array.as_primitive_opt::<T>()?;
    let values = array.values();
    // Both in one pass; numbers are ordered whole.
    let widened = |(least, greatest): (T::Native, T::Native), value: T::Native| {
        (if value < least { value } else { least }, if value > greatest { value } else { greatest })
    };
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
        let mut values = nulls.valid_indices().map(|row| values[row]);
        let first = values.next()?;
        return Some(values.fold((first, first), widened));
    }
    let (&first, rest) = values.split_first()?;
    Some(rest.iter().copied().fold((first, first), widened))
}

fn integers(carrier: &Carrier, array: &ArrayRef) -> Option<(i64, i64)> {
    let widened = |(min, max): (i32, i32)| (i64::from(min), i64::from(max));
    match carrier {
        Carrier::Int16 => range::<Int16Type>(array).map(|(min, max)| (i64::from(min), i64::from(max))),
        Carrier::Int32 | Carrier::PgDate => range::<Int32Type>(array).map(widened),
        Carrier::Date32 => range::<Date32Type>(array).map(widened),
        Carrier::Time64 => range::<Time64MicrosecondType>(array),
        Carrier::Timestamp { unit: Precision::Micros, .. } => range::<TimestampMicrosecondType>(array),
        Carrier::Timestamp { unit: Precision::Millis, .. } => range::<TimestampMillisecondType>(array),
        _ => range::<Int64Type>(array),
    }
}

fn bytes<'a>(carrier: &Carrier, array: &'a ArrayRef) -> Option<(&'a [u8], &'a [u8])> {
    match carrier {
        Carrier::Uuid => {
            let array = array.as_fixed_size_binary_opt()?;
            compute::min_fixed_size_binary(array).zip(compute::max_fixed_size_binary(array))
        }
        Carrier::Bytes => {
            let array = array.as_binary_opt::<i32>()?;
            compute::min_binary(array).zip(compute::max_binary(array))
        }
        _ => {
            let array = array.as_string_opt::<i32>()?;
            let extremes = compute::min_string(array).zip(compute::max_string(array));
            extremes.map(|(min, max)| (min.as_bytes(), max.as_bytes()))
        }
    }
}

impl FloatExtremes {
    fn observe(&mut self, values: impl Iterator<Item = Option<f64>>) {
        let (mut min, mut max) = self.numbers.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
        let mut seen = self.numbers.is_some();
        for value in values.flatten() {
            if value.is_nan() {
                self.has_nan = true;
                continue;
            }
            seen = true;
            min = if value < min { value } else { min };
            max = if value > max { value } else { max };
        }
        self.numbers = seen.then_some((min, max));
    }

    fn ends(self) -> Option<(f64, f64)> {
        match (self.numbers, self.has_nan) {
            (Some((min, _)), true) => Some((min, f64::NAN)),
            (None, true) => Some((f64::NAN, f64::NAN)),
            (numbers, false) => numbers,
        }
    }
}

fn both<T>(extremes: Option<(T, T)>, write: impl Fn(T, &mut Vec<u8>)) -> (Option<String>, Option<String>) {
    let text = |value| {
        let mut out = Vec::new();
        write(value, &mut out);
        String::from_utf8(out).ok()
    };
    extremes.map_or((None, None), |(min, max)| (text(min), text(max)))
}

/// The integer that is printed for a value: for Arrow's timestamps, which are all finite, the microseconds since 2000-01-01,
/// in which every timestamp of a source has room and none is an infinity. `None` where it is past that.
fn told(carrier: &Carrier, value: i64) -> Option<i64> {
    let scale = match carrier {
        Carrier::Timestamp { unit: Precision::Micros, .. } => 1,
        Carrier::Timestamp { unit: Precision::Millis, .. } => 1_000,
        _ => return Some(value),
    };
    let epoch = datetime::PG_EPOCH_DAYS * 86_400_000_000 / scale;
    let micros = value.checked_sub(epoch)?.checked_mul(scale)?;
    (micros != i64::MIN && micros != i64::MAX).then_some(micros)
}

fn integer(carrier: &Carrier, value: i64, out: &mut Vec<u8>) {
    let date = |out: &mut Vec<u8>, epoch| datetime::date(out, i32::try_from(value).unwrap_or(i32::MAX), epoch);
    match carrier {
        // The value came from 32 bits.
        Carrier::PgDate => date(out, datetime::PG_EPOCH_DAYS),
        Carrier::Date32 => date(out, 0),
        Carrier::PgTime | Carrier::Time64 => datetime::time(out, value),
        Carrier::PgTimestamp | Carrier::PgTimestampTz | Carrier::Timestamp { .. } => {
            let utc = matches!(carrier, Carrier::PgTimestampTz | Carrier::Timestamp { utc: true, .. });
            datetime::timestamp(out, value, datetime::PG_EPOCH_DAYS, utc, datetime::OUTPUT);
        }
        _ => number::integer(out, value),
    }
}

fn float(carrier: &Carrier, value: f64, out: &mut Vec<u8>) {
    if *carrier == Carrier::Float32 {
        #[expect(clippy::cast_possible_truncation, reason = "the value was widened from 32 bits")]
        float::float4(out, value as f32);
    } else {
        float::float8(out, value);
    }
}

impl Cut {
    fn new(value: &[u8]) -> Self {
        let kept = value.len().min(BOUND_BYTES_MAX);
        Self { prefix: value[..kept].to_vec(), truncated: kept < value.len() }
    }
}

/// A value that no value from `value` on is below, of 64 bytes at most.
pub(super) fn least_bound(value: &[u8], text: bool) -> Vec<u8> {
    let cut = Cut::new(value);
    if text { whole_characters(&cut.prefix).as_bytes().to_vec() } else { cut.prefix }
}

/// A value that no value up to `value` is above, of about as many; `None` where there is none.
pub(super) fn greatest_bound(value: &[u8], text: bool) -> Option<Vec<u8>> {
    let cut = Cut::new(value);
    if text { text_bound(&cut).map(String::into_bytes) } else { byte_bound(cut) }
}

fn byte_texts(extremes: Option<(Cut, Cut)>, carrier: &Carrier) -> (Option<String>, Option<String>, bool) {
    let Some((min, max)) = extremes else { return (None, None, false) };
    let exact = !min.truncated && !max.truncated;
    let (min, max) = match carrier {
        Carrier::Bytes => (Some(hex(&min.prefix)), byte_bound(max).as_deref().map(hex)),
        Carrier::Uuid => both(Some((min, max)), |value, out| number::uuid(out, &value.prefix)),
        _ => (Some(whole_characters(&min.prefix).to_owned()), text_bound(&max)),
    };
    (min, max, exact)
}

fn hex(bytes: &[u8]) -> String {
    let mut out = vec![b'\\'];
    number::hex_bytes(&mut out, bytes);
    String::from_utf8(out).unwrap_or_default()
}

/// The least short byte string that no value beginning with the cut exceeds; `None` where there is none.
fn byte_bound(Cut { mut prefix, truncated }: Cut) -> Option<Vec<u8>> {
    if truncated {
        while prefix.last() == Some(&u8::MAX) {
            prefix.pop();
        }
        *prefix.last_mut()? += 1;
    }
    Some(prefix)
}

/// As [`byte_bound`], in characters.
fn text_bound(cut: &Cut) -> Option<String> {
    let text = whole_characters(&cut.prefix);
    if !cut.truncated {
        return Some(text.to_owned());
    }
    let mut characters = text.chars();
    while let Some(last) = characters.next_back() {
        // A range of characters steps over the surrogates by itself.
        if let Some(next) = (last..=char::MAX).nth(1) {
            return Some(characters.as_str().chars().chain([next]).collect());
        }
    }
    None
}

/// `prefix` without the piece of a character at its end.
fn whole_characters(prefix: &[u8]) -> &str {
    match std::str::from_utf8(prefix) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&prefix[..error.valid_up_to()]).unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
