//! Values as `--protect` leaves them: pure, between source and encoder, so that every source and format has it.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, StringBuilder, new_null_array};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::EncodeError;
use super::text::{CellValues, Cells};
use crate::model::{ColumnPlan, Protection};

/// Bytes of the shortest key: a shorter one can be guessed.
pub(crate) const KEY_BYTES_MIN: usize = 16;

/// What the id of a key is made of.
const KEY_ID: &[u8] = b"outhaul key id";

/// Hexadecimal digits of the id of a key.
const KEY_ID_DIGITS: usize = 16;

/// The key under which values are hashed. Nobody sees it.
#[derive(Clone)]
pub(crate) struct ProtectKey(Hmac<Sha256>);

impl std::fmt::Debug for ProtectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl ProtectKey {
    /// The key of these bytes; `None` where they are fewer than [`KEY_BYTES_MIN`].
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let long_enough = bytes.len() >= KEY_BYTES_MIN;
        long_enough.then(|| Hmac::new_from_slice(bytes).ok().map(Self)).flatten()
    }

    /// What tells one key from another and says nothing of either.
    pub(crate) fn id(&self) -> String {
        self.digits(KEY_ID, KEY_ID_DIGITS)
    }

    /// The hash of a value's text.
    fn hash(&self, text: &[u8]) -> String {
        self.digits(text, usize::MAX)
    }

    fn digits(&self, text: &[u8], most: usize) -> String {
        let mut mac = self.0.clone();
        mac.update(text);
        let mut digits = String::with_capacity(64);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(digits, "{byte:02x}");
        }
        digits.truncate(most.min(digits.len()));
        digits
    }
}

/// What is done with one column of a batch.
#[derive(Debug, Clone)]
pub(crate) enum ColumnGuard {
    /// Nothing.
    Open,
    /// NULL in its place, also where the column is not written at all.
    Null,
    /// Text, masked.
    Mask,
    /// The hash of its text.
    Hash(ProtectKey),
}

impl ColumnGuard {
    /// What a protection does; `None` where a hash has no key.
    pub(crate) fn of(how: Option<Protection>, key: Option<&ProtectKey>) -> Option<Self> {
        Some(match how {
            None => Self::Open,
            Some(Protection::Null | Protection::Drop) => Self::Null,
            Some(Protection::Mask) => Self::Mask,
            Some(Protection::Hash) => Self::Hash(key?.clone()),
        })
    }

    fn apply(&self, column: &ColumnPlan, array: &ArrayRef) -> Result<ArrayRef, EncodeError> {
        Ok(match self {
            Self::Open => Arc::clone(array),
            Self::Null => new_null_array(array.data_type(), array.len()),
            Self::Mask => {
                let cells = Cells::of(column, array)?;
                let CellValues::Text(texts) = cells.values else {
                    let (column, found) = (column.name.clone(), array.data_type().to_string());
                    return Err(EncodeError::WrongCarrier { column, found, expected: "text".to_owned() });
                };
                let row = |row: usize| (!cells.is_null(row)).then(|| masked(texts.value(row)));
                Arc::new((0..array.len()).map(row).collect::<StringArray>())
            }
            Self::Hash(key) => {
                let cells = Cells::of(column, array)?;
                let mut hashes = StringBuilder::with_capacity(array.len(), array.len().saturating_mul(64));
                let mut text = Vec::new();
                for row in 0..array.len() {
                    if cells.is_null(row) {
                        hashes.append_null();
                        continue;
                    }
                    text.clear();
                    cells.values.output_text(row, &mut text);
                    hashes.append_value(key.hash(&text));
                }
                Arc::new(hashes.finish())
            }
        })
    }
}

/// A batch whose columns are guarded. `columns` are those that the source sends.
///
/// # Errors
/// [`EncodeError::WrongCarrier`] where the batch is not of the planned columns.
pub(crate) fn guarded(
    columns: &[ColumnPlan],
    guards: &[ColumnGuard],
    batch: &RecordBatch,
) -> Result<RecordBatch, EncodeError> {
    let (mut fields, mut arrays) = (Vec::with_capacity(columns.len()), Vec::with_capacity(columns.len()));
    for ((column, guard), array) in columns.iter().zip(guards).zip(batch.columns()) {
        let array = guard.apply(column, array)?;
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(EncodeError::Columns)
}

/// `x` for a letter and `0` for a digit, of any script.
fn masked(text: &str) -> String {
    let mask = |c: char| match c {
        c if c.is_alphabetic() => 'x',
        c if c.is_numeric() => '0',
        c => c,
    };
    text.chars().map(mask).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array};

    use super::super::samples::{batch, column};
    use super::*;
    use crate::model::Carrier;

    #[test]
    fn values_are_masked_hashed_or_gone_and_null_stays_null() {
        let key = ProtectKey::new(b"0123456789abcdef").unwrap();
        let names = ["open", "null", "mask", "hash"];
        let mut columns: Vec<ColumnPlan> = names.map(|name| column(name, Carrier::Text)).into();
        columns.push(column("n", Carrier::Int64));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("Ann-Käthe 42, ٣"), None]));
        let mut arrays = vec![texts; 4];
        arrays.push(Arc::new(Int64Array::from(vec![Some(42), None])));
        let guards = [
            ColumnGuard::Open,
            ColumnGuard::Null,
            ColumnGuard::Mask,
            ColumnGuard::Hash(key.clone()),
            ColumnGuard::Hash(key.clone()),
        ];
        let found = guarded(&columns, &guards, &batch(&columns, arrays)).unwrap();
        let value = |place: usize| {
            let column = found.column(place).as_string::<i32>();
            assert!(column.is_null(1), "{place}");
            column.is_valid(0).then(|| column.value(0).to_owned())
        };
        assert_eq!(value(0).as_deref(), Some("Ann-Käthe 42, ٣"));
        assert_eq!(value(1), None);
        assert_eq!(value(2).as_deref(), Some("xxx-xxxxx 00, 0"));
        assert_eq!(value(3), Some(key.hash("Ann-Käthe 42, ٣".as_bytes())));
        // As `printf 42 | openssl dgst -sha256 -hmac 0123456789abcdef` says.
        assert_eq!(value(4).unwrap(), "8d24a2a526d5f556469db8b6280e3a7b877a41155ca536be3a1f2a9d2be0eacd");
    }

    #[test]
    fn a_key_is_long_enough_and_shows_nothing() {
        assert!(ProtectKey::new(&[7; KEY_BYTES_MIN - 1]).is_none());
        let [one, other] = [[7; 16], [8; 16]].map(|bytes| ProtectKey::new(&bytes).unwrap());
        assert_ne!(one.id(), other.id());
        assert_eq!((one.id().len(), format!("{one:?}").as_str()), (16, "(secret)"));
        assert!(ColumnGuard::of(Some(Protection::Hash), None).is_none());
    }
}
