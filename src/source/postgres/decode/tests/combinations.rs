//! A decoder for whatever planning can ask for: every type in every format, preset and choice.

use super::nested::{array, base, composite, with_kind};
use super::*;
use crate::model::{
    CharPadding, DuplicateColumns, Format, InvalidUtf8, JsonNan, Nested, OnUnrepresentable, PolicyOptions, Preset,
    RelationKind, RelationRequest, ShapeOptions, TimestampPrecision, UnconstrainedNumeric,
};
use crate::source::postgres::plan::{ColumnFacts, Comparison, ExtensionType, RelationFacts};
use crate::source::postgres::plan::{ColumnRules, ServerTypes, columns};

/// Every built-in base type of PostgreSQL 18's `pg_type.dat` that a column can have, and some that no table here names.
const OIDS: [u32; 68] = [
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 114, 142, 600, 601, 602, 603, 604, 628, 650, 700, 701,
    705, 718, 774, 790, 829, 869, 1033, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700, 1790, 2202,
    2203, 2204, 2205, 2206, 2249, 2950, 2970, 3220, 3361, 3402, 3614, 3615, 3642, 3734, 3769, 3802, 4072, 4089, 4191,
    4600, 5017, 5069,
];

fn types() -> Vec<PgType> {
    let mut types: Vec<PgType> = OIDS.map(base).to_vec();
    let typmod = |precision: i32, scale: i32| Some(((precision << 16) | (scale & 0x7ff)) + 4);
    for (precision, scale) in [(12, 2), (38, 38), (39, 0), (76, 2), (1000, 3), (3, -2), (37, -2), (2, 5), (2, 40)] {
        types.push(PgType { typmod: typmod(precision, scale), ..base(1700) });
    }
    types.push(with_kind(20_001, TypeKind::Enum));
    for kind in [
        ExtensionType::Citext,
        ExtensionType::Hstore,
        ExtensionType::Geometry,
        ExtensionType::Vector,
        ExtensionType::Halfvec,
    ] {
        types.push(with_kind(20_002, TypeKind::Extension(kind)));
    }
    types.push(PgType { typmod: Some(4326 << 8), ..with_kind(20_003, TypeKind::Extension(ExtensionType::Geometry)) });
    let scalars = types.clone();
    types.extend(scalars.iter().cloned().map(array));
    types.extend(scalars.iter().map(|pg_type| composite(20_004, vec![("a", pg_type.clone()), ("b", base(23))])));
    types.extend(scalars.iter().cloned().map(|pg_type| with_kind(20_005, TypeKind::Range(Box::new(pg_type)))));
    types.extend(scalars.iter().cloned().map(|pg_type| with_kind(20_006, TypeKind::Multirange(Box::new(pg_type)))));
    let all: Vec<_> = scalars.iter().cloned().map(|pg_type| ("m", array(pg_type))).collect();
    types.push(array(composite(20_007, all)));
    // A domain over each.
    types.extend(scalars.into_iter().map(|pg_type| PgType { oid: 20_008, ..pg_type }));
    types
}

fn facts() -> RelationFacts {
    let column = |(number, pg_type): (usize, PgType)| ColumnFacts {
        name: format!("c{number}"),
        pg_type,
        not_null: false,
        comparison: Some(Comparison::default()),
        byte_ordered: false,
        bytes_equal: true,
        statistics: ColumnStatistics::default(),
    };
    RelationFacts {
        kind: RelationKind::Table,
        sql_name: "t".into(),
        alias: "t".into(),
        display_name: None,
        columns: types().into_iter().enumerate().map(column).collect(),
        leaves: Vec::new(),
        estimated_rows: None,
        unique_key: None,
        row_security: false,
        reading: crate::source::postgres::plan::ReadingFacts::default(),
    }
}

/// Each choice with each other of those that decide on carriers; the rest take turns.
fn policies() -> Vec<Policies> {
    let mut all = Vec::new();
    for on_unrepresentable in [OnUnrepresentable::Error, OnUnrepresentable::Null, OnUnrepresentable::Text] {
        for unconstrained_numeric in [
            UnconstrainedNumeric::Text,
            UnconstrainedNumeric::Decimal { precision: 38, scale: 9 },
            UnconstrainedNumeric::Decimal { precision: 76, scale: 0 },
            UnconstrainedNumeric::Double,
        ] {
            for timestamp_precision in
                [TimestampPrecision::Micros, TimestampPrecision::Millis, TimestampPrecision::MillisExact]
            {
                for invalid_utf8 in [InvalidUtf8::Error, InvalidUtf8::Replace, InvalidUtf8::Bytes] {
                    let turn = all.len();
                    all.push(Policies {
                        on_unrepresentable,
                        unconstrained_numeric,
                        timestamp_precision,
                        invalid_utf8,
                        char_padding: [CharPadding::Keep, CharPadding::Trim][turn % 2],
                        json_nan: [JsonNan::String, JsonNan::Null, JsonNan::Error][turn / 3 % 3],
                        nested: [Nested::Native, Nested::Native, Nested::Json][turn % 3],
                        as_text: turn % 5 == 4,
                        ..Policies::default()
                    });
                }
            }
        }
    }
    all
}

#[test]
fn there_is_a_decoder_for_whatever_planning_asks_for() {
    let facts = facts();
    let shape = ShapeOptions {
        relation: RelationRequest::Table("t".into()),
        columns: None,
        expressions: Vec::new(),
        renames: Vec::new(),
        predicate: None,
        key: None,
        allow_rls: false,
        scoped: None,
    };
    let mut binary_texts = 0;
    for default in policies() {
        for format in [Format::Parquet, Format::Csv, Format::Ndjson] {
            for preset in [Preset::Postgres, Preset::Athena, Preset::Spectrum] {
                let options =
                    PolicyOptions { preset, default, columns: Vec::new(), duplicate_columns: DuplicateColumns::Error };
                let server = ServerTypes {
                    sql_ascii: default.invalid_utf8 != InvalidUtf8::Error,
                    money_scale: 2,
                    infinite_intervals: true,
                };
                let plans = columns(&facts, &shape, &[], &ColumnRules { format, policies: &options, server }).unwrap();
                binary_texts += plans
                    .iter()
                    .filter(|plan| plan.wire == Wire::Binary && plan.output.carrier == Carrier::Text)
                    .count();
                let decoder = BatchDecoder::new(&Arc::from(plans.as_slice()));
                let mut decoder = decoder.unwrap_or_else(|error| panic!("{format:?} {preset:?} {default:?}: {error}"));
                // The Arrow types are the carriers', nested ones included: a batch that differs is refused.
                let batch = decoder.take_batch().unwrap().rows;
                for (array, plan) in batch.columns().iter().zip(&plans) {
                    assert_eq!(array.data_type(), &plan.output.carrier.data_type());
                }
            }
        }
    }
    assert!(binary_texts > 10_000, "{binary_texts}");
}
