use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, Date32Array, Decimal64Array, Int16Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{Date32Type, Decimal64Type, Int16Type, Int64Type, Schema, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{BoundaryOrder, Encoding, Type};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{WriterProperties, WriterVersion};
use proptest::prelude::*;

use super::super::row_group::RowGroups;
use super::*;
use crate::encode::samples::scrambled;
use crate::model::Precision;

const DELTAS: OwnWay = OwnWay::Deltas { compressed: true };

/// The ways for values of this type.
fn ways(array: &ArrayRef) -> [OwnWay; 2] {
    let strings = matches!(array.data_type(), DataType::Utf8 | DataType::Binary);
    [OwnWay::Dictionary, if strings { OwnWay::Lengths } else { DELTAS }]
}

/// A file with one row group of one column: the arrays, one after the other, written by us or by the Parquet crate.
fn written(arrays: &[ArrayRef], nullable: bool, way: OwnWay, ours: bool, zstd: bool) -> Bytes {
    let field = arrow::datatypes::Field::new("c", arrays[0].data_type().clone(), nullable);
    let schema = Arc::new(Schema::new(vec![field]));
    let compression = if zstd {
        parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default())
    } else {
        parquet::basic::Compression::UNCOMPRESSED
    };
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(compression)
        .set_dictionary_enabled(!ours && way == OwnWay::Dictionary)
        .set_encoding(match way {
            OwnWay::Dictionary => Encoding::PLAIN,
            OwnWay::Deltas { .. } => Encoding::DELTA_BINARY_PACKED,
            OwnWay::Lengths => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        })
        .build();
    let batches =
        arrays.iter().map(|array| RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(array)]).unwrap());
    if !ours {
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).unwrap();
        batches.for_each(|batch| writer.write(&batch).unwrap());
        return writer.into_inner().unwrap().into();
    }
    let codec = if zstd { PageCodec::Zstd(zstd::bulk::Compressor::new(1).unwrap()) } else { PageCodec::None };
    let bound = std::num::NonZeroU64::new(1 << 40).unwrap();
    let mut groups = RowGroups::new(Arc::clone(&schema), properties, vec![Some(way)], codec, bound, bound).unwrap();
    batches.for_each(|batch| groups.write(&batch).unwrap());
    groups.finish().unwrap();
    std::mem::take(groups.finished()).into()
}

fn read(file: Bytes) -> ArrayRef {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let arrays: Vec<ArrayRef> = reader.map(|batch| Arc::clone(batch.unwrap().column(0))).collect();
    concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>()).unwrap()
}

fn chunk(file: &Bytes) -> (ColumnChunkMetaData, ColumnIndexMetaData, Vec<(i64, i32)>) {
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(file).unwrap();
    let metadata = reader.finish().unwrap();
    let index = metadata.page_index_for_row_group(0);
    let pages = &index.offset_index(0).unwrap().page_locations;
    let pages = pages.iter().map(|page| (page.first_row_index, page.compressed_page_size)).collect();
    (metadata.row_group(0).column(0).clone(), index.column_index(0).unwrap().clone(), pages)
}

/// The values come back, the footer says what it says with the Parquet crate's own pages, and the page index is true.
fn check(arrays: &[ArrayRef], nullable: bool) {
    for way in ways(&arrays[0]) {
        check_way(arrays, nullable, way);
    }
}

fn check_way(arrays: &[ArrayRef], nullable: bool, way: OwnWay) {
    let expected = concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>()).unwrap();
    for zstd in [false, true] {
        let ours = written(arrays, nullable, way, true, zstd);
        // A reader has one type for all decimals.
        assert_eq!(&cast(&read(ours.clone()), expected.data_type()).unwrap(), &expected);
        let theirs = written(arrays, nullable, way, false, zstd);
        let ((ours, our_index, our_pages), (theirs, ..)) = (chunk(&ours), chunk(&theirs));
        let encodings = |chunk: &ColumnChunkMetaData| chunk.encodings().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(encodings(&ours), encodings(&theirs), "{way:?}");
        assert_eq!(ours.page_encoding_stats().map(Vec::len), theirs.page_encoding_stats().map(Vec::len));
        assert_eq!(ours.num_values(), theirs.num_values());
        assert_eq!(ours.unencoded_byte_array_data_bytes(), theirs.unencoded_byte_array_data_bytes());
        assert_eq!(ours.dictionary_page_offset(), theirs.dictionary_page_offset());
        let (our, their) = (ours.statistics().unwrap(), theirs.statistics().unwrap());
        assert_eq!((our.min_bytes_opt(), our.max_bytes_opt()), (their.min_bytes_opt(), their.max_bytes_opt()));
        assert_eq!((our.null_count_opt(), our.min_is_exact()), (their.null_count_opt(), their.min_is_exact()));
        assert_eq!(our.is_min_max_backwards_compatible(), their.is_min_max_backwards_compatible());
        assert_eq!(our_index.get_boundary_order(), Some(order(&expected)));
        for (page, (first, bytes)) in our_pages.iter().enumerate() {
            let first = usize::try_from(*first).unwrap();
            assert!(first == page * PAGE_ROWS && *bytes > 0, "page {page} at {first}");
            let values = expected.slice(first, PAGE_ROWS.min(expected.len() - first));
            assert_eq!(our_index.null_counts().unwrap()[page], i64::try_from(values.null_count()).unwrap());
            assert_eq!(our_index.is_null_page(page), values.null_count() == values.len());
            assert_eq!(indexed(&our_index, page), extremes(&values));
        }
    }
}

/// The extremes of a page as the index has them.
fn indexed(index: &ColumnIndexMetaData, page: usize) -> Option<(Value, Value)> {
    let integer = |value: Option<i64>| value.map(Value::Integer);
    match index {
        ColumnIndexMetaData::INT32(index) => {
            let of = |value: Option<&i32>| integer(value.copied().map(i64::from));
            of(index.min_value(page)).zip(of(index.max_value(page)))
        }
        ColumnIndexMetaData::INT64(index) => {
            integer(index.min_value(page).copied()).zip(integer(index.max_value(page).copied()))
        }
        ColumnIndexMetaData::BYTE_ARRAY(index) => {
            let of = |value: Option<&[u8]>| value.map(|value| Value::Bytes(value.to_vec()));
            of(index.min_value(page)).zip(of(index.max_value(page)))
        }
        _ => panic!("an index of another type"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Integer(i64),
    Bytes(Vec<u8>),
}

/// The extremes of an array.
fn extremes(array: &ArrayRef) -> Option<(Value, Value)> {
    let valid = (0..array.len()).filter(|&row| array.is_valid(row));
    let values = valid.map(|row| match array.data_type() {
        DataType::Utf8 => Value::Bytes(array.as_string::<i32>().value(row).as_bytes().to_vec()),
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::Int16 => Value::Integer(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Date32 => Value::Integer(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Int64 => Value::Integer(array.as_primitive::<Int64Type>().value(row)),
        DataType::Decimal64(..) => Value::Integer(array.as_primitive::<Decimal64Type>().value(row)),
        _ => Value::Integer(array.as_primitive::<TimestampMicrosecondType>().value(row)),
    });
    let values: Vec<Value> = values.collect();
    values.iter().min().cloned().zip(values.iter().max().cloned())
}

/// How the extremes of the pages are ordered; pages without values are left out.
fn order(array: &ArrayRef) -> BoundaryOrder {
    let starts = (0..array.len()).step_by(PAGE_ROWS);
    let pages: Vec<_> = starts.filter_map(|at| extremes(&array.slice(at, PAGE_ROWS.min(array.len() - at)))).collect();
    let rises = pages.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1);
    let falls = pages.is_sorted_by(|a, b| a.0 >= b.0 && a.1 >= b.1);
    match (rises, falls) {
        (true, _) => BoundaryOrder::ASCENDING,
        (false, true) => BoundaryOrder::DESCENDING,
        (false, false) => BoundaryOrder::UNORDERED,
    }
}

/// Cut in two, so that a chunk gets more than one array.
fn halves(array: &ArrayRef) -> [ArrayRef; 2] {
    let middle = array.len() / 3;
    [array.slice(0, middle), array.slice(middle, array.len() - middle)]
}

fn arrays(values: &[Option<i64>]) -> Vec<ArrayRef> {
    let decimal = |precision| -> ArrayRef {
        let array: Decimal64Array = values.iter().copied().collect();
        Arc::new(array.with_precision_and_scale(precision, 2).unwrap())
    };
    let narrow = || values.iter().map(|value| value.map(|value| i32::try_from(value).unwrap()));
    let text = || values.iter().map(|value| value.map(|value| format!("{value:>9}")));
    vec![
        Arc::new(narrow().map(|value| value.map(|value| i16::try_from(value % 100).unwrap())).collect::<Int16Array>()),
        Arc::new(narrow().collect::<Date32Array>()),
        Arc::new(values.iter().copied().collect::<Int64Array>()),
        Arc::new(values.iter().copied().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        decimal(9),
        decimal(18),
        Arc::new(text().collect::<StringArray>()),
        Arc::new(text().map(|value| value.map(String::into_bytes)).collect::<BinaryArray>()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..crate::regressions::kept() })]
    #[test]
    fn any_values_come_back(
        values in prop::collection::vec(prop::option::weighted(0.8, -9..9_i64), 1..400),
    ) {
        for array in arrays(&values) {
            check(&halves(&array).map(|half| half), true);
        }
    }
}

#[test]
fn pages_nulls_and_order() {
    let rows = 50_000_i64;
    let cases: [(&str, Vec<Option<i64>>); 6] = [
        ("rising", (0..rows).map(|row| Some(row / 100)).collect()),
        ("falling", (0..rows).map(|row| Some((rows - row) / 100)).collect()),
        ("mixed", (0..rows).map(|row| Some(row * 7919 % 1000)).collect()),
        ("one", vec![Some(5); 50_000]),
        ("none in the first page", (0..rows).map(|row| (row > 25_000).then_some(row % 3)).collect()),
        ("none at all", vec![None; 30_000]),
    ];
    for (name, values) in cases {
        for array in arrays(&values) {
            println!("{name} as {}", array.data_type());
            check(&halves(&array), true);
            if array.null_count() == 0 {
                check(&[array], false);
            }
        }
    }
}

#[test]
fn what_grows_too_large_goes_on_without_a_dictionary() {
    let long = |from: i64, rows: i64| -> ArrayRef {
        let value = |row| (row % 7 > 0).then(|| format!("{}{:>60}", "x".repeat(usize::from(row > 30_000) * 20), row));
        Arc::new((from..from + rows).map(value).collect::<StringArray>())
    };
    let ids = |from: i64, rows: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(from..from + rows)) };
    for arrays in [
        [ids(0, 60_000), ids(60_000, 60_000), ids(0, 60_000)],
        [long(0, 10), long(10, 40_000), long(3, 200)],
        [long(30_001, 3), long(0, 7), long(0, 7)],
    ] {
        let file = written(&arrays, true, OwnWay::Dictionary, true, true);
        let expected = concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>()).unwrap();
        assert_eq!(chunk(&file).0.dictionary_page_offset(), None);
        assert_eq!(read(file).as_ref(), expected.as_ref());
    }
}

/// Integers of every width and texts of every length, in pages of their own.
#[test]
fn what_hardly_repeats_comes_back() {
    let noise = |row: i64, bits: u32| scrambled(row, i64::MAX) >> (63 - bits);
    for bits in [0, 1, 7, 8, 20, 31] {
        let values: Vec<Option<i64>> =
            (0..45_000).map(|row| (row % 11 > 0 || bits < 8).then(|| noise(row, bits))).collect();
        let texts = values.iter().map(|value| value.map(|value| "ä".repeat(usize::try_from(value % 30).unwrap())));
        let ints = || values.iter().map(|value| value.map(|value| i32::try_from(value).unwrap()));
        let all: [(ArrayRef, OwnWay); 3] = [
            (Arc::new(values.iter().copied().collect::<Int64Array>()), DELTAS),
            (Arc::new(ints().collect::<Date32Array>()), DELTAS),
            (Arc::new(texts.collect::<StringArray>()), OwnWay::Lengths),
        ];
        for (array, way) in all {
            check_way(&halves(&array), true, way);
        }
    }
    let ends: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0, i64::MAX, i64::MIN, -1, 1]));
    check_way(&[ends], false, DELTAS);
    let ends: ArrayRef = Arc::new(Date32Array::from(vec![i32::MIN, i32::MAX, 0, i32::MAX, i32::MIN, -1, 1]));
    check_way(&[ends], false, DELTAS);
}

/// Bounds of long texts are cut, as the Parquet crate cuts them; a page of large ones ends early.
#[test]
fn long_texts_have_short_bounds_and_pages_of_few() {
    let texts = |all: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(all)) };
    let bytes = |all: Vec<Vec<u8>>| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(all)) };
    let long = |head: &str| format!("{head}{}", "é".repeat(60));
    for array in [
        texts(vec![long("b"), "a".to_owned(), long("c")]),
        texts(vec![long("b"), long("a"), long("")]),
        bytes(vec![vec![7; 100], vec![255; 64], vec![]]),
        texts(vec![String::new()]),
    ] {
        let [ours, theirs] =
            [true, false].map(|ours| chunk(&written(&[Arc::clone(&array)], false, OwnWay::Lengths, ours, true)));
        let ends = |chunk: &ColumnChunkMetaData| {
            let found = chunk.statistics().unwrap();
            let [least, greatest] = [found.min_bytes_opt(), found.max_bytes_opt()].map(|end| end.map(<[u8]>::to_vec));
            (least, greatest, found.min_is_exact(), found.max_is_exact())
        };
        assert_eq!(ends(&ours.0), ends(&theirs.0));
        assert_eq!(indexed(&ours.1, 0), indexed(&theirs.1, 0));
    }
    // Nothing short is above these.
    let file = written(&[bytes(vec![vec![], vec![255; 100]])], false, OwnWay::Lengths, true, true);
    let mut reader = ParquetMetaDataReader::new();
    reader.try_parse(&file).unwrap();
    let footer = reader.finish().unwrap();
    let found = footer.row_group(0).column(0).statistics().unwrap();
    assert_eq!((found.min_bytes_opt(), found.max_bytes_opt()), (None, None), "neither, for readers that want both");
    assert_eq!(read(file).len(), 2);
    let large = texts((0..900).map(|row| format!("{row}{}", "x".repeat(5_000))).collect());
    let file = written(&halves(&large), false, OwnWay::Lengths, true, true);
    let pages = chunk(&file).2;
    assert!((4..7).contains(&pages.len()), "{pages:?}");
    assert_eq!(read(file).as_ref(), large.as_ref());
}

/// Bounds are cut to whole letters, and then fall where the texts rise: the index claims no order that its bounds lack.
#[test]
fn the_order_of_pages_is_that_of_their_bounds() {
    let page = |least: &str, greatest: &str| {
        let text =
            move |row: usize| if row == 0 { format!("{}{least}zzz", "a".repeat(62)) } else { greatest.to_owned() };
        (0..PAGE_ROWS).map(text).collect::<Vec<_>>()
    };
    let texts: ArrayRef = Arc::new(StringArray::from([page("é", "b"), page("€", "c")].concat()));
    let index = chunk(&written(&[texts], false, OwnWay::Lengths, true, true)).1;
    let [(first, _), (second, _)] = [0, 1].map(|page| indexed(&index, page).unwrap());
    assert!(first > second, "{first:?} {second:?}");
    assert_eq!(index.get_boundary_order(), Some(BoundaryOrder::UNORDERED));
}

/// What planning may send here is what can be written here.
#[test]
fn carriers_have_a_physical_type_that_is_known() {
    let utc = Carrier::Timestamp { unit: Precision::Micros, utc: true };
    for carrier in [Carrier::Int16, Carrier::Date32, Carrier::Time64, utc, Carrier::Text, Carrier::Json, Carrier::Bytes]
    {
        assert!(is_for(&carrier));
        let schema = Schema::new(vec![carrier.field("c", true)]);
        let physical = ArrowSchemaConverter::new().convert(&schema).unwrap().column(0).physical_type();
        assert!(matches!(physical, Type::INT32 | Type::INT64 | Type::BYTE_ARRAY), "{carrier:?}");
    }
    for carrier in [Carrier::Bool, Carrier::Float64, Carrier::Uuid, Carrier::Decimal128 { precision: 19, scale: 0 }] {
        assert!(!is_for(&carrier), "{carrier:?}");
    }
}
