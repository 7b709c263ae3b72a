use std::num::NonZeroU64;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::basic::{LogicalType, PageType};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::*;
use crate::encode::encoder;
use crate::encode::samples::{
    batch, column, columns_of, every_column, every_value, list, member, options, part, scrambled,
};
use crate::model::{ColumnStatistics, Format, Precision};

fn parquet(compression: Compression) -> FormatOptions {
    options(Format::Parquet, compression)
}

fn footer(object: Vec<u8>) -> ParquetMetaData {
    SerializedFileReader::new(Bytes::from(object)).unwrap().metadata().clone()
}

fn with(name: &str, carrier: Carrier, n_distinct: Option<f32>, correlation: Option<f32>) -> ColumnPlan {
    ColumnPlan { statistics: ColumnStatistics { n_distinct, correlation, avg_width: None }, ..column(name, carrier) }
}

#[test]
fn the_footer_says_what_was_planned() {
    let mut columns = every_column().to_vec();
    columns[2].nullable = false;
    let columns: Arc<[ColumnPlan]> = columns.into();
    let footer = footer(part(&parquet(Compression::Zstd(1)), &columns, &[]).0);
    let file = footer.file_metadata();
    assert_eq!(file.num_rows(), 0);
    assert_eq!(footer.num_row_groups(), 0);
    assert_eq!(file.version(), 1);
    assert_eq!(file.created_by(), Some(CREATED_BY));
    let metadata = file.key_value_metadata().unwrap();
    assert_eq!(metadata.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>(), ["outhaul.run_id"]);
    for (plan, descriptor) in columns.iter().zip(file.schema_descr().columns()) {
        assert_eq!(descriptor.name(), plan.name);
        assert_eq!(descriptor.max_def_level(), i16::from(plan.nullable), "{}", plan.name);
        if plan.carrier == Carrier::Uuid {
            assert_eq!(descriptor.logical_type_ref(), Some(&LogicalType::Uuid));
        }
    }
}

/// The names of the leaves, and the repetition of each of their levels, as the specification of nested types has them.
#[test]
fn nested_columns_have_the_levels_of_the_specification() {
    let columns: Arc<[ColumnPlan]> = vec![
        column("l", list(Carrier::Int32)),
        column("m", Carrier::Map),
        column(
            "s",
            Carrier::Struct(Arc::new([member("a", Carrier::Bool, false), member("b", list(Carrier::Uuid), true)])),
        ),
        column("d", Carrier::Decimal256 { precision: 40, scale: 2 }),
        column("t", Carrier::Timestamp { unit: Precision::Millis, utc: true }),
    ]
    .into();
    let footer = footer(part(&parquet(Compression::None), &columns, &[every_value(&columns, 3)]).0);
    let file = footer.file_metadata();
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, file.schema());
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "message arrow_schema {
  OPTIONAL group l (LIST) {
    REPEATED group list {
      OPTIONAL INT32 element;
    }
  }
  OPTIONAL group m (MAP) {
    REPEATED group key_value {
      REQUIRED BYTE_ARRAY key (STRING);
      OPTIONAL BYTE_ARRAY value (STRING);
    }
  }
  OPTIONAL group s {
    REQUIRED BOOLEAN a;
    OPTIONAL group b (LIST) {
      REPEATED group list {
        OPTIONAL FIXED_LEN_BYTE_ARRAY (16) element (UUID);
      }
    }
  }
  OPTIONAL FIXED_LEN_BYTE_ARRAY (17) d (DECIMAL(40,2));
  OPTIONAL INT64 t (TIMESTAMP(MILLIS,true));
}
"
    );
    // No Arrow schema, which would have readers impose their own types.
    let keys: Vec<&str> = file.key_value_metadata().unwrap().iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, ["outhaul.run_id"]);
}

#[test]
fn every_leaf_has_statistics_and_a_page_index() {
    let columns = columns_of(Format::Parquet);
    let object = Bytes::from(part(&parquet(Compression::Zstd(1)), &columns, &[every_value(&columns, 300)]).0);
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    let footer = reader.parse_and_finish(&object).unwrap();
    let mut indexed = 0;
    for chunk in footer.row_group(0).columns() {
        let path = chunk.column_path();
        let statistics = chunk.statistics().unwrap_or_else(|| panic!("{path}"));
        assert!(statistics.null_count_opt().is_some() && chunk.offset_index_range().is_some(), "{path}");
        // A leaf without a single value has nothing to be indexed by.
        if statistics.min_bytes_opt().is_some() {
            assert!(chunk.column_index_range().is_some(), "{path}");
            indexed += 1;
        }
    }
    assert!(indexed > columns.len(), "{indexed}");
    let first = footer.row_group(0).column(3).statistics().unwrap();
    assert_eq!(first.min_bytes_opt(), Some(i64::MIN.to_le_bytes().as_slice()));
    assert_eq!(first.max_bytes_opt(), Some(i64::MAX.to_le_bytes().as_slice()));
}

#[test]
fn pages_are_of_format_1() {
    let columns = columns_of(Format::Parquet);
    let object = Bytes::from(part(&parquet(Compression::Snappy), &columns, &[every_value(&columns, 300)]).0);
    let reader = SerializedFileReader::new(object).unwrap();
    let group = reader.get_row_group(0).unwrap();
    for leaf in 0..group.num_columns() {
        for page in group.get_column_page_reader(leaf).unwrap() {
            let found = page.unwrap().page_type();
            assert!(matches!(found, PageType::DATA_PAGE | PageType::DICTIONARY_PAGE), "{found:?}");
        }
    }
}

/// Names that people and other programs give, at every level, and each column still steered by its own statistics.
#[test]
fn any_name_is_kept_as_it_is() {
    let names = ["a.b", "a", "b", "\"quoted\"", "😀", " ", "", "list.element", "key_value", "A", "a\0b\n"];
    let nested = |name: &str| {
        let members = names.iter().map(|name| member(name, list(Carrier::Float32), true)).collect();
        column(name, Carrier::Struct(members))
    };
    let columns: Arc<[ColumnPlan]> = names
        .iter()
        .map(|name| with(name, Carrier::Int64, Some(if *name == "a.b" { -1.0 } else { 5.0 }), Some(1.0)))
        .chain([nested("a.b.c"), nested("c")])
        .collect();
    let written = every_value(&columns, 9);
    let footer = footer(part(&parquet(Compression::None), &columns, &[written]).0);
    let leaves = footer.file_metadata().schema_descr().columns();
    let mut expected: Vec<Vec<&str>> = names.iter().map(|name| vec![*name]).collect();
    for outer in ["a.b.c", "c"] {
        expected.extend(names.iter().map(|name| vec![outer, name, "list", "element"]));
    }
    let found: Vec<&[String]> = leaves.iter().map(|leaf| leaf.path().parts()).collect();
    assert_eq!(found, expected);
    for (chunk, path) in footer.row_group(0).columns().iter().zip(&expected) {
        let plain = path.len() > 1 || path[0] == "a.b";
        assert_eq!(chunk.dictionary_page_offset().is_none(), plain, "{path:?}");
    }
}

#[test]
fn the_order_is_told_by_leaves() {
    let columns: Arc<[ColumnPlan]> = vec![
        column("a", Carrier::Text),
        column("b", Carrier::Map),
        column("c", Carrier::Int64),
        column(
            "d",
            Carrier::Struct(Arc::new([member("x", Carrier::Map, true), member("y", list(Carrier::Bool), true)])),
        ),
        column("e", Carrier::Date32),
    ]
    .into();
    let sorting = |sorted: Vec<(usize, bool)>| {
        let mut options = parquet(Compression::None);
        options.parquet.sorted = sorted;
        options.parquet.row_group_rows = NonZeroU64::new(2).unwrap();
        let footer = footer(part(&options, &columns, &[every_value(&columns, 5)]).0);
        assert_eq!(footer.num_row_groups(), 3);
        let groups: Vec<_> = footer.row_groups().iter().map(|group| group.sorting_columns().cloned()).collect();
        assert!(groups.iter().all(|group| *group == groups[0]));
        groups[0].clone()
    };
    let expected = |column_idx, descending| SortingColumn { column_idx, descending, nulls_first: false };
    assert_eq!(sorting(vec![(4, true), (2, false)]), Some(vec![expected(7, true), expected(3, false)]));
    assert_eq!(sorting(vec![(0, false)]), Some(vec![expected(0, false)]));
    assert_eq!(sorting(vec![]), None);
    let mut wrong = parquet(Compression::None);
    wrong.parquet.sorted = vec![(5, false)];
    assert!(encoder(&wrong, &columns, true).is_err());
}

#[test]
fn chunks_have_the_codec_asked_for() {
    let columns = every_column();
    for (compression, expected) in [
        (Compression::None, Codec::UNCOMPRESSED),
        (Compression::Snappy, Codec::SNAPPY),
        (Compression::Lz4, Codec::LZ4_RAW),
        (Compression::Zstd(3), Codec::ZSTD(ZstdLevel::default())),
        (Compression::Gzip(6), Codec::GZIP(GzipLevel::default())),
    ] {
        let footer = footer(part(&parquet(compression), &columns, &[every_value(&columns, 3)]).0);
        for chunk in footer.row_group(0).columns() {
            let (found, expected) = (chunk.compression(), expected);
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&expected));
        }
    }
}

/// What the codec takes next to nothing off goes without, once there is much of it.
#[test]
fn places_that_are_noise_are_not_compressed() {
    let columns: Arc<[ColumnPlan]> = vec![column("noise", Carrier::Text), column("order", Carrier::Text)].into();
    for (rows, expected) in [(5_000, [true, true]), (200_000, [false, true])] {
        let texts = |of: &dyn Fn(i64) -> i64| -> ArrayRef {
            Arc::new((0..rows).map(|row| Some(format!("word {:>3}", of(row)))).collect::<StringArray>())
        };
        let written = batch(&columns, vec![texts(&|row| scrambled(row, 256)), texts(&|row| row / 50 % 256)]);
        let (object, _) = part(&parquet(Compression::Zstd(1)), &columns, std::slice::from_ref(&written));
        let footer = footer(object);
        let chunks = footer.row_group(0).columns();
        assert!(chunks.iter().all(|chunk| chunk.dictionary_page_offset().is_some()));
        let compressed: Vec<bool> = chunks.iter().map(|chunk| chunk.compression() != Codec::UNCOMPRESSED).collect();
        assert_eq!(compressed, expected, "{rows} rows");
    }
}

#[test]
fn statistics_steer_the_encodings() {
    let decimal = |precision| Carrier::Decimal128 { precision, scale: 2 };
    let (distinct, sorted) = (Some(-1.0), Some(1.0));
    let cases = [
        (with("unknown", Carrier::Int64, None, None), true, false),
        (with("repeating", Carrier::Int64, Some(20.0), sorted), true, false),
        (with("half", Carrier::Int64, Some(-0.4), sorted), true, false),
        (with("shuffled_id", Carrier::Int64, distinct, Some(0.1)), false, false),
        (with("id", Carrier::Int64, distinct, sorted), false, true),
        (with("down", Carrier::Int32, distinct, Some(-0.99)), false, true),
        (with("narrow", decimal(18), distinct, sorted), false, true),
        (with("wide", decimal(19), distinct, sorted), false, false),
        (with("words", Carrier::Text, distinct, sorted), false, false),
        (with("words_repeating", Carrier::Text, Some(7.0), None), true, false),
        (with("uuid", Carrier::Uuid, None, None), false, false),
        (with("uuid_repeating", Carrier::Uuid, Some(-0.1), None), true, false),
        (with("float", Carrier::Float64, None, None), false, false),
        (with("float_repeating", Carrier::Float32, Some(11.0), None), true, false),
        (with("stamp", Carrier::Timestamp { unit: Precision::Micros, utc: true }, distinct, sorted), false, true),
        (with("with.dots", Carrier::Int64, distinct, sorted), false, true),
        // What the server knows of lists says nothing of their elements.
        (with("list", list(Carrier::Int64), distinct, sorted), true, false),
        (with("vector", list(Carrier::Float32), Some(3.0), None), false, false),
    ];
    let columns: Arc<[ColumnPlan]> = cases.iter().map(|case| case.0.clone()).collect();
    let footer = footer(part(&parquet(Compression::None), &columns, &[every_value(&columns, 300)]).0);
    for ((plan, dictionary, delta), chunk) in cases.iter().zip(footer.row_group(0).columns()) {
        assert_eq!(chunk.dictionary_page_offset().is_some(), *dictionary, "{}", plan.name);
        let encodings: Vec<Encoding> = chunk.encodings().collect();
        assert_eq!(encodings.contains(&Encoding::DELTA_BINARY_PACKED), *delta, "{}", plan.name);
    }
    // Where readers need not know it.
    let mut options = parquet(Compression::None);
    options.parquet.delta = false;
    let footer = self::footer(part(&options, &columns, &[every_value(&columns, 300)]).0);
    for ((plan, dictionary, _), chunk) in cases.iter().zip(footer.row_group(0).columns()) {
        assert_eq!(chunk.dictionary_page_offset().is_some(), *dictionary, "{}", plan.name);
        assert!(!chunk.encodings().any(|encoding| encoding == Encoding::DELTA_BINARY_PACKED), "{}", plan.name);
    }
}

/// Noise is not compressed, and short words stand apart from their lengths; where readers need not know how, all is plain.
#[test]
fn first_values_choose_encoding_and_codec_and_come_back() {
    let columns: Arc<[ColumnPlan]> = vec![
        column("id", Carrier::Int64),
        column("noise", Carrier::Int64),
        column("words", Carrier::Text),
        column("long", Carrier::Text),
    ]
    .into();
    let noise = |row| scrambled(row, 1 << 20);
    let texts = |width: usize| -> ArrayRef {
        let text = |row| (row % 7 != 0).then(|| format!("{:0>width$}", noise(row)));
        Arc::new((0..5_000).map(text).collect::<StringArray>())
    };
    let noise: ArrayRef = Arc::new(Int64Array::from_iter_values((0..5_000).map(noise)));
    let written = batch(&columns, vec![ids(0, 5_000), noise, texts(7), texts(300)]);
    for (delta, expected) in [
        (true, [Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_LENGTH_BYTE_ARRAY]),
        (false, [Encoding::PLAIN; 3]),
    ] {
        let mut options = parquet(Compression::Zstd(1));
        options.parquet.delta = delta;
        let (object, _) = part(&options, &columns, std::slice::from_ref(&written));
        let footer = footer(object.clone());
        let chunks = footer.row_group(0).columns();
        for (chunk, encoding) in chunks.iter().zip(expected.iter().chain([&Encoding::PLAIN])) {
            assert!(chunk.encodings().any(|found| found == *encoding), "{:?}", chunk.column_path());
        }
        let compressed: Vec<bool> = chunks.iter().map(|chunk| chunk.compression() != Codec::UNCOMPRESSED).collect();
        assert_eq!(compressed, [true, !delta, true, true]);
        let read = ParquetRecordBatchReader::try_new(Bytes::from(object), 5_000).unwrap().next().unwrap().unwrap();
        assert_eq!(read.columns(), written.columns());
    }
}

fn ids(from: i64, rows: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(from..from + rows))
}

#[test]
fn row_groups_end_at_their_rows() {
    let columns: Arc<[ColumnPlan]> = vec![column("id", Carrier::Int64)].into();
    let mut options = parquet(Compression::None);
    options.parquet.row_group_rows = NonZeroU64::new(1_000).unwrap();
    let batches = [batch(&columns, vec![ids(0, 1_700)]), batch(&columns, vec![ids(1_700, 800)])];
    let footer = footer(part(&options, &columns, &batches).0);
    let rows: Vec<i64> = footer.row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(rows, [1_000, 1_000, 500]);
}

#[test]
fn row_groups_end_at_their_bytes_and_leave_at_once() {
    let columns: Arc<[ColumnPlan]> = vec![with("words", Carrier::Text, Some(-1.0), None)].into();
    let limit = 64 * 1024;
    let mut options = parquet(Compression::None);
    options.parquet.row_group_bytes = NonZeroU64::new(limit).unwrap();
    let limit = usize::try_from(limit).unwrap();
    let mut encoder = encoder(&options, &columns, true).unwrap();
    let (mut object, mut held_most) = (Vec::new(), 0);
    for round in 0..40 {
        let words: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..100).map(|row| format!("{round:050}{row:050}"))));
        encoder.encode(&batch(&columns, vec![words]), &mut object).unwrap();
        held_most = held_most.max(encoder.buffered_bytes());
    }
    assert!(held_most > limit / 2 && held_most < limit, "{held_most}");
    assert!(object.len() > 300_000, "finished row groups have left: {}", object.len());
    encoder.finish(&mut object).unwrap();
    let footer = footer(object);
    assert!(footer.num_row_groups() >= 6);
    for group in footer.row_groups() {
        assert!(group.compressed_size() <= i64::try_from(limit).unwrap() + 2_048, "{}", group.compressed_size());
    }
}

/// Flags are a bit each in the file and two bytes in memory.
#[test]
fn row_groups_end_before_many_flags_take_too_much() {
    let flags = |number: usize| with(&format!("f{number}"), Carrier::Text, Some(2.0), None);
    let columns: Arc<[ColumnPlan]> = (0..100).map(flags).collect();
    let mut options = parquet(Compression::None);
    options.parquet.row_group_bytes = NonZeroU64::new(256 * 1024).unwrap();
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..2_000).map(|row| ["y", "n"][row % 2])));
    let batches = vec![batch(&columns, vec![values; 100]); 10];
    let footer = footer(part(&options, &columns, &batches).0);
    let rows: Vec<i64> = footer.row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    // Four times the bytes, at two hundred bytes a row, and a batch.
    assert!(rows.iter().all(|&rows| rows <= 1024 * 1024 / 200 + 2_000), "{rows:?}");
    assert_eq!(rows.iter().sum::<i64>(), 20_000);
}

#[test]
fn a_null_where_none_was_promised_is_an_error() {
    let columns: Arc<[ColumnPlan]> = vec![ColumnPlan { nullable: false, ..column("id", Carrier::Int64) }].into();
    let mut encoder = encoder(&parquet(Compression::None), &columns, true).unwrap();
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let error = encoder.encode(&batch(&columns, vec![nulls]), &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, EncodeError::Unrepresentable { column, .. } if column == "id"), "{error}");
    assert!(error.hint().unwrap().contains("--column NAME=EXPRESSION"), "{error}");
}
