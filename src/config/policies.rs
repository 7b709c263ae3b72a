//! Preset and policies: what happens to values that a file cannot hold, or that its readers could misread.

use super::typed::Reader;
use super::value;
use crate::model::policy::decimal;
use crate::model::{
    CharPadding, DuplicateColumns, InvalidUtf8, JsonLargeNumbers, JsonNan, Nested, OnUnrepresentable, Policies,
    PolicyOptions, Preset, TimestampPrecision, UnconstrainedNumeric,
};

const PRESETS: &[(&str, Preset)] =
    &[("postgres", Preset::Postgres), ("athena", Preset::Athena), ("spectrum", Preset::Spectrum)];

const UNREPRESENTABLE: &[(&str, OnUnrepresentable)] =
    &[("error", OnUnrepresentable::Error), ("null", OnUnrepresentable::Null), ("text", OnUnrepresentable::Text)];

const PADDING: &[(&str, CharPadding)] = &[("keep", CharPadding::Keep), ("trim", CharPadding::Trim)];

const UTF8: &[(&str, InvalidUtf8)] =
    &[("error", InvalidUtf8::Error), ("replace", InvalidUtf8::Replace), ("bytes", InvalidUtf8::Bytes)];

const LARGE: &[(&str, JsonLargeNumbers)] =
    &[("number", JsonLargeNumbers::Number), ("string", JsonLargeNumbers::String)];

const NAN: &[(&str, JsonNan)] = &[("string", JsonNan::String), ("null", JsonNan::Null), ("error", JsonNan::Error)];

const NESTED: &[(&str, Nested)] = &[("text", Nested::Native), ("json", Nested::Json)];

const PRECISION: &[(&str, TimestampPrecision)] = &[
    ("us", TimestampPrecision::Micros),
    ("ms", TimestampPrecision::Millis),
    ("ms-exact", TimestampPrecision::MillisExact),
];

const DUPLICATES: &[(&str, DuplicateColumns)] =
    &[("error", DuplicateColumns::Error), ("suffix", DuplicateColumns::Suffix)];

impl Reader<'_> {
    pub(super) fn policies(&mut self) -> PolicyOptions {
        let stand_in = Policies::default();
        PolicyOptions {
            preset: self.choice("preset", PRESETS, Preset::Postgres),
            default: Policies {
                on_unrepresentable: self.choice("on_unrepresentable", UNREPRESENTABLE, stand_in.on_unrepresentable),
                unconstrained_numeric: self.one(
                    "unconstrained_numeric",
                    stand_in.unconstrained_numeric,
                    unconstrained_numeric,
                ),
                char_padding: self.choice("char_padding", PADDING, stand_in.char_padding),
                invalid_utf8: self.choice("invalid_utf8", UTF8, stand_in.invalid_utf8),
                json_large_numbers: self.choice("json_large_numbers", LARGE, stand_in.json_large_numbers),
                json_nan: self.choice("json_nan", NAN, stand_in.json_nan),
                nested: self.choice("csv_nested", NESTED, stand_in.nested),
                timestamp_precision: self.choice("timestamp_precision", PRECISION, stand_in.timestamp_precision),
                as_text: false,
                formula_guard: self.one("csv_formula_guard", false, value::switch),
            },
            columns: self.many("column_policy", value::column_policy),
            duplicate_columns: self.choice("duplicate_columns", DUPLICATES, DuplicateColumns::Error),
        }
    }
}

fn unconstrained_numeric(text: &str) -> Result<UnconstrainedNumeric, String> {
    match text {
        "text" => Ok(UnconstrainedNumeric::Text),
        "double" => Ok(UnconstrainedNumeric::Double),
        _ => decimal(text)
            .map(|(precision, scale)| UnconstrainedNumeric::Decimal { precision, scale })
            .ok_or_else(|| "text, double or decimal(P,S) such as decimal(38,9) is wanted".to_owned()),
    }
}
