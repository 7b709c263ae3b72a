//! Names of types as the manifest writes them, and which types' values it may show.
//!
//! The names are spelled out here rather than taken from a library's `Display`, which may change between its releases.

use crate::encode::Format;
use crate::plan::{Carrier, PgType};

/// The Arrow type of a column's batches.
pub(super) fn arrow_type(carrier: Carrier) -> String {
    match carrier {
        Carrier::Bool => "Boolean".into(),
        Carrier::Int16 => "Int16".into(),
        Carrier::Int32 | Carrier::PgDate => "Int32".into(),
        Carrier::Int64 | Carrier::PgTime | Carrier::PgTimestamp | Carrier::PgTimestampTz => "Int64".into(),
        Carrier::Float32 => "Float32".into(),
        Carrier::Float64 => "Float64".into(),
        Carrier::NumberText | Carrier::Text | Carrier::Json => "Utf8".into(),
        Carrier::Decimal128 { precision, scale } => format!("Decimal128({precision},{scale})"),
        Carrier::Bytes => "Binary".into(),
        Carrier::Uuid => "FixedSizeBinary(16)".into(),
        Carrier::Date32 => "Date32".into(),
        Carrier::Time64 => "Time64(MICROS)".into(),
        Carrier::Timestamp { utc: false } => "Timestamp(MICROS)".into(),
        Carrier::Timestamp { utc: true } => "Timestamp(MICROS, UTC)".into(),
    }
}

/// The Parquet type of a column: its logical type where it has one, else its physical type. Text formats have none.
pub(super) fn parquet_type(carrier: Carrier, format: Format) -> Option<String> {
    if format != Format::Parquet {
        return None;
    }
    Some(match carrier {
        Carrier::Bool => "BOOLEAN".into(),
        Carrier::Int16 => "INT(16, true)".into(),
        Carrier::Int32 | Carrier::PgDate => "INT32".into(),
        Carrier::Int64 | Carrier::PgTime | Carrier::PgTimestamp | Carrier::PgTimestampTz => "INT64".into(),
        Carrier::Float32 => "FLOAT".into(),
        Carrier::Float64 => "DOUBLE".into(),
        Carrier::NumberText | Carrier::Text | Carrier::Json => "STRING".into(),
        Carrier::Decimal128 { precision, scale } => format!("DECIMAL({precision},{scale})"),
        Carrier::Bytes => "BYTE_ARRAY".into(),
        Carrier::Uuid => "UUID".into(),
        Carrier::Date32 => "DATE".into(),
        Carrier::Time64 => "TIME(MICROS)".into(),
        Carrier::Timestamp { utc: false } => "TIMESTAMP(MICROS)".into(),
        Carrier::Timestamp { utc: true } => "TIMESTAMP(MICROS, UTC)".into(),
    })
}

/// OIDs of the built-in types whose values say nothing of people: numbers, truth values, times and UUIDs.
const SHOWN: [u32; 15] = [
    16,   // bool
    20,   // int8
    21,   // int2
    23,   // int4
    26,   // oid
    700,  // float4
    701,  // float8
    1082, // date
    1083, // time
    1114, // timestamp
    1184, // timestamptz
    1186, // interval
    1266, // timetz
    1700, // numeric
    2950, // uuid
];

/// Whether `--manifest-stats safe` shows values of this type. It names what is shown, so that a type nobody thought of
/// stays hidden: an array of text, hstore, an enum's labels.
pub(super) fn values_are_safe(pg_type: &PgType) -> bool {
    SHOWN.contains(&pg_type.base_oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pg_type(base_oid: u32) -> PgType {
        PgType { oid: base_oid, base_oid, typmod: None, name: "t".into(), is_enum: false }
    }

    #[test]
    fn text_bytea_json_and_unknown_types_are_not_shown() {
        for oid in [25, 1042, 1043, 19, 17, 114, 3802, 1009, 869, 99_999] {
            assert!(!values_are_safe(&pg_type(oid)), "{oid}");
        }
        for oid in [20, 1700, 1184, 2950] {
            assert!(values_are_safe(&pg_type(oid)), "{oid}");
        }
    }

    #[test]
    fn parquet_types_are_named_for_parquet_alone() {
        let carrier = Carrier::Decimal128 { precision: 12, scale: 2 };
        assert_eq!(parquet_type(carrier, Format::Parquet).as_deref(), Some("DECIMAL(12,2)"));
        assert_eq!(parquet_type(carrier, Format::Csv), None);
        assert_eq!(parquet_type(Carrier::Timestamp { utc: true }, Format::Parquet).unwrap(), "TIMESTAMP(MICROS, UTC)");
    }
}
