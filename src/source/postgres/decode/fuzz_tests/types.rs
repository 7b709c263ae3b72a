//! Types of every kind, values of theirs as the server sends them, and how they are mapped.

use std::collections::HashSet;

use crate::model::{
    CharPadding, ColumnStatistics, DuplicateColumns, Format, InvalidUtf8, JsonNan, Nested, OnUnrepresentable, Policies,
    PolicyOptions, Preset, RelationKind, RelationRequest, ShapeOptions, TimestampPrecision, UnconstrainedNumeric,
};
use crate::source::postgres::decode::choose;
use crate::source::postgres::decode::text::tests::{TEXTS, bytes};
use crate::source::postgres::decode::wkb::tests::GEOMETRIES;
use crate::source::postgres::plan::{
    Attribute, ColumnFacts, Comparison, ExtensionType, PgColumn, PgType, RelationFacts, TypeKind,
};
use crate::source::postgres::plan::{ColumnRules, ServerTypes, columns, oid};

/// Every OID that planning knows.
const OIDS: [u32; 46] = [
    oid::BOOL,
    oid::BYTEA,
    oid::CHAR,
    oid::NAME,
    oid::INT8,
    oid::INT2,
    oid::INT4,
    oid::TEXT,
    oid::OID,
    oid::TID,
    oid::XID,
    oid::CID,
    oid::JSON,
    oid::XML,
    oid::POINT,
    oid::LSEG,
    oid::PATH,
    oid::BOX,
    oid::POLYGON,
    oid::LINE,
    oid::CIDR,
    oid::FLOAT4,
    oid::FLOAT8,
    oid::UNKNOWN,
    oid::CIRCLE,
    oid::MACADDR8,
    oid::MONEY,
    oid::MACADDR,
    oid::INET,
    oid::BPCHAR,
    oid::VARCHAR,
    oid::DATE,
    oid::TIME,
    oid::TIMESTAMP,
    oid::TIMESTAMPTZ,
    oid::INTERVAL,
    oid::TIMETZ,
    oid::BIT,
    oid::VARBIT,
    oid::NUMERIC,
    oid::UUID,
    oid::PG_LSN,
    oid::JSONB,
    oid::JSONPATH,
    oid::XID8,
    // A type that nobody knows.
    3614,
];

/// Small numerics, which fit decimals.
const NUMERICS: [&str; 6] = [
    "0000000000000002",
    "0001ffff400000040001",
    "000200000000000200011388",
    "0003000100000002000a13551388",
    "00000000c0000000",
    "00000000f0000020",
];

fn base(oid: u32) -> PgType {
    PgType { oid, base_oid: oid, typmod: None, name: format!("type {oid}"), kind: TypeKind::Base }
}

fn of(oid: u32, kind: TypeKind) -> PgType {
    PgType { kind, ..base(oid) }
}

fn numeric(precision: i32, scale: i32) -> PgType {
    PgType { typmod: Some((precision << 16 | scale) + 4), ..base(oid::NUMERIC) }
}

fn array(element: PgType) -> PgType {
    of(30_000 + element.oid, TypeKind::Array(Box::new(element)))
}

fn range(subtype: PgType) -> PgType {
    of(40_000 + subtype.oid, TypeKind::Range(Box::new(subtype)))
}

fn composite(oid: u32, types: Vec<PgType>) -> PgType {
    let attribute = |(at, pg_type)| Attribute { name: format!("a{at}"), pg_type };
    of(oid, TypeKind::Composite(types.into_iter().enumerate().map(attribute).collect()))
}

/// All that are no part of another one.
pub(super) fn scalars() -> Vec<PgType> {
    let mut types: Vec<PgType> = OIDS.into_iter().map(base).collect();
    types.extend([
        numeric(12, 2),
        numeric(50, 10),
        numeric(76, 76),
        // A domain.
        PgType { oid: 20_000, ..base(oid::INT4) },
        of(20_001, TypeKind::Enum),
        of(20_002, TypeKind::Extension(ExtensionType::Citext)),
        of(20_003, TypeKind::Extension(ExtensionType::Geometry)),
        // With an SRID by its modifier.
        PgType { typmod: Some(4326 << 8), ..of(20_003, TypeKind::Extension(ExtensionType::Geometry)) },
    ]);
    types
}

/// Arrays, composites, ranges, multiranges, maps and vectors, and some of them within others.
pub(super) fn nested() -> Vec<PgType> {
    let pair = || composite(20_010, vec![base(oid::INT4), base(oid::TEXT)]);
    let elements =
        [oid::BOOL, oid::INT4, oid::FLOAT8, oid::TEXT, oid::UUID, oid::DATE, oid::TIMESTAMPTZ, oid::INTERVAL];
    let mut types: Vec<PgType> = elements.into_iter().map(|oid| array(base(oid))).collect();
    types.extend([
        array(numeric(12, 2)),
        array(pair()),
        // Of a domain over an array.
        array(PgType { oid: 20_011, ..array(base(oid::INT2)) }),
        pair(),
        composite(20_012, vec![array(base(oid::INT4)), pair(), range(base(oid::DATE)), numeric(50, 10)]),
        range(base(oid::INT8)),
        range(numeric(12, 2)),
        of(20_013, TypeKind::Multirange(Box::new(base(oid::INT4)))),
        of(20_015, TypeKind::Extension(ExtensionType::Hstore)),
        of(20_016, TypeKind::Extension(ExtensionType::Vector)),
        of(20_017, TypeKind::Extension(ExtensionType::Halfvec)),
    ]);
    types
}

/// Behind its length; NULL is a length of -1.
fn sized(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        None => (-1_i32).to_be_bytes().to_vec(),
        Some(value) => [&i32::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat(),
    }
}

fn counted(parts: &[Vec<u8>]) -> Vec<u8> {
    [&u32::try_from(parts.len()).unwrap().to_be_bytes()[..], &parts.concat()].concat()
}

/// Values as the type's send function makes them.
pub(super) fn valid(of: &PgType) -> Vec<Vec<u8>> {
    match &of.kind {
        TypeKind::Base => match of.base_oid {
            oid::NUMERIC if of.typmod.is_some() => NUMERICS.map(bytes).to_vec(),
            oid::NUMERIC => NUMERICS.map(bytes).into_iter().chain(known(oid::NUMERIC)).collect(),
            oid::MONEY => known(oid::INT8),
            oid::VARCHAR | oid::UNKNOWN => known(oid::TEXT),
            oid => known(oid),
        },
        TypeKind::Enum | TypeKind::Extension(ExtensionType::Citext) => known(oid::TEXT),
        TypeKind::Array(element) => arrays(element),
        TypeKind::Composite(attributes) => composites(attributes),
        TypeKind::Range(subtype) => ranges(subtype),
        TypeKind::Multirange(subtype) => {
            let ranges: Vec<Vec<u8>> = ranges(subtype).iter().map(|range| sized(Some(range))).collect();
            vec![counted(&[]), counted(&ranges[..1]), counted(&ranges)]
        }
        TypeKind::Extension(ExtensionType::Hstore) => {
            let pair = |value: Option<&[u8]>| [sized(Some(b"k")), sized(value)].concat();
            vec![counted(&[]), counted(&[pair(None), pair(Some(b"")), pair(Some("ü".as_bytes()))])]
        }
        TypeKind::Extension(ExtensionType::Geometry) => {
            GEOMETRIES.iter().map(|(_, extended, _)| super::super::wkb::tests::bytes(extended)).collect()
        }
        TypeKind::Extension(ExtensionType::Vector) => vec![bytes("00000000"), bytes("000200003fc0000080000000")],
        TypeKind::Extension(ExtensionType::Halfvec) => vec![bytes("00000000"), bytes("000300003e0080007c00")],
    }
}

/// Values of a type with a text writer.
pub(super) fn known(of: u32) -> Vec<Vec<u8>> {
    TEXTS.iter().filter(|(oid, ..)| *oid == of).map(|(_, wire, _)| bytes(wire)).collect()
}

fn arrays(element: &PgType) -> Vec<Vec<u8>> {
    let items = valid(element);
    let array = |dimensions: &[(u32, u32)], items: &[Option<&[u8]>]| {
        let nulls = u32::from(items.contains(&None));
        let head = [u32::try_from(dimensions.len()).unwrap(), nulls, element.oid];
        let numbers = head.into_iter().chain(dimensions.iter().flat_map(|&(count, lower)| [count, lower]));
        let mut bytes: Vec<u8> = numbers.flat_map(u32::to_be_bytes).collect();
        for item in items {
            bytes.extend(sized(*item));
        }
        bytes
    };
    let (first, last) = (items.first().map(Vec::as_slice), items.last().map(Vec::as_slice));
    vec![
        array(&[], &[]),
        array(&[(1, 1)], &[first]),
        array(&[(4, 1)], &[first, None, last, last]),
        array(&[(1, 0)], &[last]),
        array(&[(1, 1), (2, 1)], &[first, last]),
    ]
}

fn composites(attributes: &[Attribute]) -> Vec<Vec<u8>> {
    let row = |value: &dyn Fn(Vec<Vec<u8>>) -> Option<Vec<u8>>| {
        let parts = attributes.iter().map(|attribute| {
            let value = value(valid(&attribute.pg_type));
            [&attribute.pg_type.oid.to_be_bytes()[..], &sized(value.as_deref())].concat()
        });
        counted(&parts.collect::<Vec<_>>())
    };
    vec![row(&|_| None), row(&|values| values.first().cloned()), row(&|values| values.last().cloned())]
}

/// Flags as `rangetypes.h` has them, then the bounds that there are.
fn ranges(subtype: &PgType) -> Vec<Vec<u8>> {
    let values = valid(subtype);
    let (first, last) = (sized(values.first().map(Vec::as_slice)), sized(values.last().map(Vec::as_slice)));
    vec![
        [vec![0x02], first.clone(), last.clone()].concat(),
        [vec![0x06], first.clone(), last.clone()].concat(),
        [vec![0x08], last].concat(),
        [vec![0x12], first].concat(),
        vec![0x18],
        vec![0x01],
    ]
}

/// The ways in which a type is mapped, over formats, presets and policies, as far as they have a decoder that no
/// type before it has.
pub(super) fn plans(pg_type: &PgType, seen: &mut HashSet<String>) -> Vec<PgColumn> {
    let mut plans = Vec::new();
    for format in [Format::Csv, Format::Ndjson, Format::Parquet] {
        for preset in [Preset::Postgres, Preset::Athena, Preset::Spectrum] {
            for policies in policies() {
                for sql_ascii in [false, true] {
                    let plan = plan(pg_type, format, preset, policies, sql_ascii);
                    // A decoder of a nested type shows the policies that it was made under, so it goes by its type.
                    let decoder = if plan.output.carrier.is_nested() {
                        format!("{pg_type:?} {:?}", plan.output.carrier)
                    } else {
                        let values =
                            choose::values(&plan.pg_type, plan.wire, &plan.output.carrier, &plan.output.policies);
                        format!("{values:?} {:?}", plan.output.carrier)
                    };
                    let way = format!("{decoder} {}", plan.output.policy);
                    if seen.insert(way) {
                        plans.push(plan);
                    }
                }
            }
        }
    }
    plans
}

fn policies() -> Vec<Policies> {
    let default = Policies::default();
    let null = Policies { on_unrepresentable: OnUnrepresentable::Null, json_nan: JsonNan::Null, ..default };
    let decimal = |precision, scale| Policies {
        unconstrained_numeric: UnconstrainedNumeric::Decimal { precision, scale },
        ..default
    };
    vec![
        default,
        null,
        Policies { json_nan: JsonNan::Error, ..default },
        Policies { on_unrepresentable: OnUnrepresentable::Text, ..default },
        Policies { as_text: true, ..default },
        decimal(38, 10),
        decimal(76, 20),
        Policies { unconstrained_numeric: UnconstrainedNumeric::Double, ..default },
        Policies { char_padding: CharPadding::Trim, ..default },
        Policies { invalid_utf8: InvalidUtf8::Replace, ..null },
        Policies { invalid_utf8: InvalidUtf8::Bytes, ..default },
        Policies { nested: Nested::Json, ..default },
        Policies { timestamp_precision: TimestampPrecision::Millis, ..default },
        Policies { timestamp_precision: TimestampPrecision::MillisExact, ..null },
    ]
}

fn plan(pg_type: &PgType, format: Format, preset: Preset, policies: Policies, sql_ascii: bool) -> PgColumn {
    let column = ColumnFacts {
        name: "c".to_owned(),
        pg_type: pg_type.clone(),
        not_null: false,
        comparison: Some(Comparison::default()),
        byte_ordered: false,
        bytes_equal: true,
        statistics: ColumnStatistics::default(),
    };
    let facts = RelationFacts {
        kind: RelationKind::Table,
        sql_name: "t".to_owned(),
        alias: "t".to_owned(),
        display_name: None,
        columns: vec![column],
        leaves: vec![],
        estimated_rows: None,
        unique_key: None,
        row_security: false,
        reading: crate::source::postgres::plan::ReadingFacts::default(),
    };
    let shape = ShapeOptions {
        relation: RelationRequest::Table("t".to_owned()),
        columns: None,
        expressions: vec![],
        renames: vec![],
        predicate: None,
        key: None,
        allow_rls: false,
        scoped: None,
    };
    let options =
        PolicyOptions { preset, default: policies, columns: vec![], duplicate_columns: DuplicateColumns::Error };
    let rules = ColumnRules {
        format,
        policies: &options,
        server: ServerTypes { sql_ascii, money_scale: 2, infinite_intervals: true },
    };
    columns(&facts, &shape, &[], &rules).unwrap().remove(0)
}
