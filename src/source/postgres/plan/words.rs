//! The choices that matter to a column, in the words of their flags, as the plan and the manifest show them.

use super::members::{self, Reach, reaches};
use super::oid;
use super::type_mapping::{Terms, TypeMapping, can_fail, has_timestamp, is_free_text, is_text, numeric};
use crate::model::{
    Carrier, CharPadding, Format, InvalidUtf8, JsonLargeNumbers, JsonNan, OnUnrepresentable, Policies,
    TimestampPrecision,
};
use crate::source::postgres::plan::PgType;

/// The choices that matter to a column, in the words of their flags.
pub(super) fn words(pg_type: &PgType, mapping: &TypeMapping, terms: &Terms) -> String {
    let Policies { on_unrepresentable, json_nan, json_large_numbers, timestamp_precision, .. } = terms.policies;
    let ndjson = terms.format == Format::Ndjson;
    let reach = Reach::of(mapping);
    let mut words: Vec<&str> = mapping.rewritten.into_iter().collect();
    if can_fail(&mapping.carrier) {
        words.push(if on_unrepresentable == OnUnrepresentable::Null { "null" } else { "error" });
    }
    if has_timestamp(&mapping.carrier) && timestamp_precision == TimestampPrecision::Millis {
        words.push("round");
    }
    let is_double = |part: &PgType| part.base_oid == oid::NUMERIC && numeric(part.typmod, terms) == Carrier::Float64;
    let carries_double = mapping.carrier == Carrier::Float64 || mapping.carrier.is_nested();
    if carries_double && reaches(pg_type, reach, &is_double) {
        words.push("double");
    }
    if terms.policies.char_padding == CharPadding::Trim && reaches(pg_type, reach, &members::is_padded) {
        words.push("trim");
    }
    if terms.format == Format::Csv && terms.policies.formula_guard && is_free_text(pg_type, &mapping.carrier) {
        words.push("guard");
    }
    words.extend(utf8_word(pg_type, mapping, terms));
    match json_nan {
        JsonNan::Null if ndjson && reaches(pg_type, reach, &members::is_number) => words.push("null"),
        JsonNan::Error if ndjson && reaches(pg_type, reach, &members::is_number) => words.push("error"),
        _ => {}
    }
    let large = matches!(mapping.carrier, Carrier::Int64 | Carrier::NumberText | Carrier::Json);
    if ndjson && large && json_large_numbers == JsonLargeNumbers::String {
        words.push("string");
    }
    Policies::shown(&words)
}

/// What is chosen for text that a database without an encoding does not vouch for.
fn utf8_word(pg_type: &PgType, mapping: &TypeMapping, terms: &Terms) -> Option<&'static str> {
    let unchecked = terms.server.sql_ascii && mapping.carrier != Carrier::Bytes && members::holds_text(pg_type);
    match terms.policies.invalid_utf8 {
        _ if !unchecked => None,
        InvalidUtf8::Replace => Some("replace"),
        InvalidUtf8::Error => Some("error"),
        InvalidUtf8::Bytes => {
            let stays = is_text(pg_type) || members::keeps_text(pg_type, Reach::of(mapping));
            // Of a value that is rewritten for another choice, parts are bytes all the same.
            let bytes = reaches(pg_type, Reach::of(mapping), &is_text) && mapping.rewritten != Some("bytes");
            if stays { Some("error") } else { bytes.then_some("bytes") }
        }
    }
}

/// Whether a policy may write NULL for a value of the column.
pub(super) fn may_null(mapping: &TypeMapping, terms: &Terms) -> bool {
    let number = matches!(mapping.carrier, Carrier::Float32 | Carrier::Float64 | Carrier::NumberText);
    can_fail(&mapping.carrier) && terms.policies.on_unrepresentable == OnUnrepresentable::Null
        || terms.format == Format::Ndjson && number && terms.policies.json_nan == JsonNan::Null
}
