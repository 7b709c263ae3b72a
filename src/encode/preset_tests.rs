//! Files of the warehouse presets, from every type: nothing in them that Athena or Redshift Spectrum cannot read.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression as Codec, Encoding, LogicalType, TimeUnit};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;

use super::samples::{every_value, only_nulls, part};
use crate::config::{Environment, load};
use crate::export::request::ExportRequest;
use crate::model::{Carrier, ColumnPlan, ColumnStatistics, RelationKind, RelationRequest, ShapeOptions};
use crate::source::postgres::plan::{
    Attribute, ColumnFacts, ColumnRules, Comparison, ExtensionType, PgType, ReadingFacts, RelationFacts, ServerTypes,
    TypeKind, columns, oid,
};

fn pg_type(base_oid: u32, kind: TypeKind) -> PgType {
    PgType { oid: base_oid, base_oid, typmod: None, name: format!("type{base_oid}"), kind }
}

fn composite(members: impl IntoIterator<Item = PgType>) -> PgType {
    let attribute = |(place, pg_type)| Attribute { name: format!("m{place}"), pg_type };
    pg_type(70_000, TypeKind::Composite(members.into_iter().enumerate().map(attribute).collect()))
}

fn array(element: PgType) -> PgType {
    pg_type(70_001, TypeKind::Array(Box::new(element)))
}

/// Every scalar type, its array, a composite, a range; and lists within lists.
fn types() -> Vec<PgType> {
    let typmod = |digits: i32, scale: i32| Some((digits << 16 | scale) + 4);
    let numeric = |typmod| PgType { typmod, ..pg_type(oid::NUMERIC, TypeKind::Base) };
    let scalars: Vec<PgType> = [
        oid::BOOL,
        oid::INT2,
        oid::INT4,
        oid::INT8,
        oid::OID,
        oid::XID8,
        oid::FLOAT4,
        oid::FLOAT8,
        oid::MONEY,
        oid::TEXT,
        oid::BPCHAR,
        oid::JSON,
        oid::JSONB,
        oid::BYTEA,
        oid::UUID,
        oid::DATE,
        oid::TIME,
        oid::TIMETZ,
        oid::TIMESTAMP,
        oid::TIMESTAMPTZ,
        oid::INTERVAL,
        oid::INET,
        oid::BIT,
        oid::POINT,
        oid::XML,
        60_000,
    ]
    .map(|oid| pg_type(oid, TypeKind::Base))
    .into_iter()
    .chain([numeric(None), numeric(typmod(12, 2)), numeric(typmod(38, 0)), numeric(typmod(60, 3))])
    .collect();
    let range = pg_type(70_002, TypeKind::Range(Box::new(pg_type(oid::TIMESTAMPTZ, TypeKind::Base))));
    let strings = || array(pg_type(oid::TEXT, TypeKind::Base));
    let extension = |kind| pg_type(70_003, TypeKind::Extension(kind));
    let nested = [
        composite(scalars.clone()),
        range.clone(),
        pg_type(70_004, TypeKind::Multirange(Box::new(pg_type(oid::TIMESTAMPTZ, TypeKind::Base)))),
        array(range),
        array(composite([strings()])),
        array(extension(ExtensionType::Hstore)),
        composite([array(composite([strings()])), extension(ExtensionType::Vector)]),
        extension(ExtensionType::Hstore),
        extension(ExtensionType::Vector),
        extension(ExtensionType::Geometry),
    ];
    let arrays: Vec<PgType> = scalars.iter().cloned().map(array).collect();
    scalars.into_iter().chain(arrays).chain(nested).collect()
}

fn request(preset: &str) -> ExportRequest {
    let words = [("from", "postgres://me@db/shop"), ("table", "t"), ("to", "out"), ("preset", preset)];
    let flags = words.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
    load(flags, &Environment::of([], []), true).unwrap().0
}

fn planned(request: &ExportRequest) -> Arc<[ColumnPlan]> {
    let statistics = ColumnStatistics { n_distinct: Some(-1.0), correlation: Some(1.0), avg_width: None };
    let facts = |(place, pg_type)| ColumnFacts {
        name: format!("c{place}"),
        pg_type,
        not_null: false,
        comparison: Some(Comparison::default()),
        byte_ordered: false,
        bytes_equal: true,
        statistics,
    };
    let facts = RelationFacts {
        kind: RelationKind::Table,
        sql_name: "t".to_owned(),
        alias: "t".to_owned(),
        display_name: Some("t".to_owned()),
        columns: types().into_iter().enumerate().map(facts).collect(),
        leaves: Vec::new(),
        estimated_rows: None,
        unique_key: None,
        row_security: false,
        reading: ReadingFacts::default(),
    };
    let shape = ShapeOptions {
        relation: RelationRequest::Table("t".to_owned()),
        columns: None,
        expressions: Vec::new(),
        renames: Vec::new(),
        predicate: None,
        key: None,
        allow_rls: false,
        scoped: None,
    };
    let rules = ColumnRules {
        format: request.format.format,
        policies: &request.policies,
        server: ServerTypes { sql_ascii: false, money_scale: 2, infinite_intervals: true },
    };
    columns(&facts, &shape, &[], &rules).unwrap().into_iter().map(|column| column.output).collect()
}

fn file(request: &ExportRequest) -> ParquetMetaData {
    let columns = planned(request);
    let batches = [every_value(&columns, 100), only_nulls(&columns, 2)];
    let (object, _) = part(&request.format, &columns, &batches);
    SerializedFileReader::new(Bytes::from(object)).unwrap().metadata().clone()
}

/// How many lists and maps enclose the deepest leaf.
fn depth(node: &Type) -> usize {
    let repeated = match node.get_basic_info().logical_type_ref() {
        Some(LogicalType::List | LogicalType::Map) => 1,
        _ => 0,
    };
    let below = if node.is_group() { node.get_fields().iter().map(|field| depth(field)).max() } else { None };
    repeated + below.unwrap_or(0)
}

#[test]
fn warehouses_get_only_what_they_read() {
    for (preset, unit, codec) in [("athena", TimeUnit::MILLIS, "ZSTD"), ("spectrum", TimeUnit::MICROS, "SNAPPY")] {
        let request = request(preset);
        assert_eq!(request.format.parquet.row_group_bytes.get(), 64 << 20, "{preset}");
        let footer = file(&request);
        assert_eq!(footer.file_metadata().version(), 1);
        let schema = footer.file_metadata().schema();
        assert!(schema.get_fields().iter().all(|field| depth(field) <= 1), "{preset}: a list in a list");
        let mut stamps = 0;
        for leaf in footer.file_metadata().schema_descr().columns() {
            match leaf.logical_type_ref() {
                Some(LogicalType::Timestamp(stamp)) => {
                    stamps += 1;
                    assert_eq!(stamp.unit, unit, "{preset} {}", leaf.path());
                }
                Some(LogicalType::Uuid | LogicalType::Time(_)) => panic!("{preset} {}", leaf.path()),
                Some(LogicalType::Decimal(decimal)) => assert!(decimal.precision <= 38, "{}", leaf.path()),
                _ => {}
            }
        }
        assert!(stamps >= 6, "{stamps}");
        for chunk in footer.row_group(0).columns() {
            let found = chunk.compression();
            let expected = if codec == "SNAPPY" { found == Codec::SNAPPY } else { matches!(found, Codec::ZSTD(_)) };
            assert!(expected, "{preset}: {found:?}");
            let old = |encoding| {
                matches!(
                    encoding,
                    Encoding::PLAIN | Encoding::RLE | Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY
                )
            };
            assert!(chunk.encodings().all(old), "{preset} {}", chunk.column_path());
        }
    }
}

/// The test above can fail: without a preset the same types make a file that has all of it.
#[test]
fn without_a_preset_types_are_the_richest() {
    let request = request("postgres");
    let footer = file(&request);
    let leaves = footer.file_metadata().schema_descr().columns();
    let any = |wanted: fn(&LogicalType) -> bool| leaves.iter().any(|leaf| leaf.logical_type_ref().is_some_and(wanted));
    assert!(any(|found| matches!(found, LogicalType::Uuid)));
    assert!(any(|found| matches!(found, LogicalType::Time(_))));
    assert!(any(|found| matches!(found, LogicalType::Timestamp(stamp) if stamp.unit == TimeUnit::MICROS)));
    assert!(footer.file_metadata().schema().get_fields().iter().any(|field| depth(field) > 1));
    let delta = |encoding| encoding == Encoding::DELTA_BINARY_PACKED;
    assert!(footer.row_group(0).columns().iter().any(|chunk| chunk.encodings().any(delta)));
    assert!(planned(&request).iter().any(|column| column.carrier == Carrier::Uuid));
}
