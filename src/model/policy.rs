//! Policies: what happens to values that a file cannot hold exactly, or that its readers could misread.
//!
//! Every default keeps the value or stops the export. A choice is made for all columns by a flag of its own, or for one
//! column by `--column-policy`, and what it changes is counted in the manifest (`policy_count`).

use serde::{Deserialize, Serialize};

/// Which warehouse's rules the types, units and codecs keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// PostgreSQL's own spellings in text, the richest types in Parquet.
    Postgres,
    /// Amazon Athena (engine version 3).
    Athena,
    /// Amazon Redshift Spectrum, and Redshift's COPY.
    Spectrum,
}

/// `--on-unrepresentable`: a value that its column's carrier cannot hold. NaN and infinite numerics, numerics with more
/// digits than were asked for, dates and timestamps at infinity or beyond the target, `24:00:00`, arrays of several
/// dimensions or whose indexes do not begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnrepresentable {
    /// The export fails (exit 14).
    Error,
    /// NULL is written.
    Null,
    /// Decided when planning: a column whose type can hold such a value is written as text.
    Text,
}

/// `--unconstrained-numeric`: how Parquet holds a `numeric` that is declared without a precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnconstrainedNumeric {
    /// As its digits.
    Text,
    /// `decimal(precision, scale)`; what does not fit exactly is unrepresentable.
    Decimal {
        /// 1 to 76.
        precision: u8,
        /// 0 to `precision`.
        scale: u8,
    },
    /// The nearest double; values that are not its shortest decimal are counted.
    Double,
}

/// `--char-padding`: the blanks at the end of `char(n)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CharPadding {
    /// As stored.
    Keep,
    /// Removed.
    Trim,
}

/// `--invalid-utf8`: text of a `SQL_ASCII` database that is not UTF-8. Other databases hold none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvalidUtf8 {
    /// The export fails (exit 14).
    Error,
    /// Each bad sequence becomes U+FFFD.
    Replace,
    /// Text columns are written as bytes: `BYTE_ARRAY` in Parquet, `\x…` in text formats.
    Bytes,
}

/// `--json-large-numbers`: numbers in NDJSON that a reader with 64-bit floats would change, such as 2^53 + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonLargeNumbers {
    /// As numbers, every digit kept.
    Number,
    /// As strings.
    String,
}

/// `--json-nan`: NaN and the infinities in NDJSON, which JSON has no number for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonNan {
    /// As strings, as `row_to_json` writes them.
    String,
    /// NULL is written.
    Null,
    /// The export fails (exit 14).
    Error,
}

/// `--csv-nested`, and `json` by column: arrays, composites, ranges and hstore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nested {
    /// PostgreSQL's output text in CSV, as COPY writes it; lists, structs and maps in Parquet.
    Native,
    /// JSON, as `to_json` writes it.
    Json,
}

/// `--timestamp-precision`: the unit of Parquet timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampPrecision {
    /// Microseconds: nothing is lost.
    Micros,
    /// Milliseconds, finer values rounded as `timestamp(3)` rounds them, and counted.
    Millis,
    /// Milliseconds; a finer value is unrepresentable.
    MillisExact,
}

/// `--duplicate-columns`: two output columns of one name, as a query can have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuplicateColumns {
    /// Refused (exit 2).
    Error,
    /// The second `a` becomes `a_2`, or the next that is free.
    Suffix,
}

/// The choices in force for one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is named as its type, which says what it is")]
pub struct Policies {
    pub on_unrepresentable: OnUnrepresentable,
    pub unconstrained_numeric: UnconstrainedNumeric,
    pub char_padding: CharPadding,
    pub invalid_utf8: InvalidUtf8,
    pub json_large_numbers: JsonLargeNumbers,
    pub json_nan: JsonNan,
    pub nested: Nested,
    pub timestamp_precision: TimestampPrecision,
    /// `text` by column, in Parquet: PostgreSQL's text, whatever the type.
    pub as_text: bool,
    /// `--csv-formula-guard`: CSV text that a spreadsheet would run gets a `'` in front.
    pub formula_guard: bool,
}

impl Policies {
    /// The choices that matter to a column, in the words of their flags, each said once, since one may matter for two reasons.
    pub(crate) fn shown(words: &[&str]) -> String {
        let mut said = Vec::with_capacity(words.len());
        for word in words {
            if !said.contains(word) {
                said.push(*word);
            }
        }
        if said.is_empty() { "lossless".to_owned() } else { said.join(", ") }
    }
}

impl Default for Policies {
    /// Nothing is lost: as `config/default.toml` has it, for what is made without a request.
    fn default() -> Self {
        Self {
            on_unrepresentable: OnUnrepresentable::Error,
            unconstrained_numeric: UnconstrainedNumeric::Text,
            char_padding: CharPadding::Keep,
            invalid_utf8: InvalidUtf8::Error,
            json_large_numbers: JsonLargeNumbers::Number,
            json_nan: JsonNan::String,
            nested: Nested::Native,
            timestamp_precision: TimestampPrecision::Micros,
            as_text: false,
            formula_guard: false,
        }
    }
}

/// What `--column-policy COLUMN=CHOICE` can say. Which choices a column takes depends on its type and the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnChoice {
    /// Whatever cannot be written exactly is an error.
    Error,
    /// What cannot be written is NULL.
    Null,
    /// The column is written as PostgreSQL's text.
    Text,
    /// `decimal(precision, scale)`, for numeric without a precision.
    Decimal {
        /// 1 to 76.
        precision: u8,
        /// 0 to `precision`.
        scale: u8,
    },
    /// Double, for numeric without a precision.
    Double,
    /// `char(n)` with its blanks.
    Keep,
    /// `char(n)` without its blanks.
    Trim,
    /// U+FFFD for what is not UTF-8.
    Replace,
    /// Text as bytes.
    Bytes,
    /// Large numbers in NDJSON as numbers.
    Number,
    /// Large numbers in NDJSON as strings.
    String,
    /// A nested value as JSON.
    Json,
    /// Timestamps finer than the target rounded.
    Round,
    /// CSV text as it is, whatever a spreadsheet takes it for.
    Raw,
}

impl ColumnChoice {
    /// Reads a choice as the flag takes it; `None` is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "error" => Self::Error,
            "null" => Self::Null,
            "text" => Self::Text,
            "double" => Self::Double,
            "keep" => Self::Keep,
            "trim" => Self::Trim,
            "replace" => Self::Replace,
            "bytes" => Self::Bytes,
            "number" => Self::Number,
            "string" => Self::String,
            "json" => Self::Json,
            "round" => Self::Round,
            "raw" => Self::Raw,
            _ => {
                let (precision, scale) = decimal(text)?;
                Self::Decimal { precision, scale }
            }
        })
    }
}

impl std::fmt::Display for ColumnChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Null => "null",
            Self::Text => "text",
            Self::Double => "double",
            Self::Keep => "keep",
            Self::Trim => "trim",
            Self::Replace => "replace",
            Self::Bytes => "bytes",
            Self::Number => "number",
            Self::String => "string",
            Self::Json => "json",
            Self::Round => "round",
            Self::Raw => "raw",
            Self::Decimal { precision, scale } => return write!(f, "decimal({precision},{scale})"),
        })
    }
}

/// `column=choice` as a shell takes it for `--column-policy`: a name that is not a plain word in double quotes, and all of
/// it in single ones.
pub(crate) fn written(column: &str, choice: &str) -> String {
    if !column.is_empty() && column.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return format!("{column}={choice}");
    }
    let quoted = format!("\"{}\"={choice}", column.replace('"', "\"\""));
    format!("'{}'", quoted.replace('\'', r"'\''"))
}

/// Precision and scale of `decimal(p,s)` with `1 <= p <= 76` and `s <= p`.
pub fn decimal(text: &str) -> Option<(u8, u8)> {
    let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    ((1..=76).contains(&precision) && scale <= precision).then_some((precision, scale))
}

/// The choices of a whole request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyOptions {
    /// The preset.
    pub preset: Preset,
    /// For every column.
    pub default: Policies,
    /// `--column-policy`, by the name of the output column, in the order given.
    pub columns: Vec<(String, ColumnChoice)>,
    /// For their names.
    pub duplicate_columns: DuplicateColumns,
}
