use std::num::NonZeroU64;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal64Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, ListArray, MapBuilder, RecordBatch, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use crc_fast::{CrcAlgorithm, checksum};

use super::*;
use crate::commit::build::schema_column;
use crate::commit::model::{FormatKind, FormatRecord, Totals};
use crate::commit::test_data::{column, format, manifest, memory, open};
use crate::encode::samples::scrambled;
use crate::encode::{Tally, encoder};
use crate::model::{
    Carrier, ColumnPlan, Compression, Format, FormatOptions, ManifestStats, Member, Newline, Precision,
};

/// Longer than what the manifest shows of a text.
const LONG: &str = "zz, \"a text\"\nof more than one line, and of more than the sixty-four bytes that are shown";

const ROWS: u64 = 3;

/// Columns of every kind that the text formats have, or that Parquet has.
fn columns(kind: Format) -> Vec<(ColumnPlan, ArrayRef)> {
    let parquet = kind == Format::Parquet;
    let make = |name: &str, type_name: &str, carrier: Carrier, array: ArrayRef| {
        (column(name, type_name, carrier, name != "id"), array)
    };
    let days = [Some(1), None, Some(-800_000)];
    let day: (Carrier, ArrayRef) = if parquet {
        (Carrier::Date32, Arc::new(Date32Array::from_iter(days)))
    } else {
        (Carrier::PgDate, Arc::new(Int32Array::from_iter(days)))
    };
    let moments = [Some(1), Some(-1), None];
    let at: (Carrier, ArrayRef) = if parquet {
        let array = TimestampMicrosecondArray::from_iter(moments).with_timezone("UTC");
        (Carrier::Timestamp { unit: Precision::Micros, utc: true }, Arc::new(array))
    } else {
        (Carrier::PgTimestampTz, Arc::new(Int64Array::from_iter(moments)))
    };
    let price = Decimal64Array::from_iter([Some(-5), Some(1230), None]).with_precision_and_scale(12, 2).unwrap();
    let uuids = FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [2; 16], [0; 16]].into_iter()).unwrap();
    let mut columns = vec![
        make("id", "bigint", Carrier::Int64, Arc::new(Int64Array::from_iter_values([2, 1, 3]))),
        make("day", "date", day.0, day.1),
        make("at", "timestamp with time zone", at.0, at.1),
        make("price", "numeric(12,2)", Carrier::Decimal128 { precision: 12, scale: 2 }, Arc::new(price)),
        make(
            "ratio",
            "double precision",
            Carrier::Float64,
            Arc::new(Float64Array::from_iter([Some(-0.5), None, Some(f64::NAN)])),
        ),
        make(
            "small",
            "real",
            Carrier::Float32,
            Arc::new(Float32Array::from_iter([Some(0.1), Some(1e30), Some(f32::NEG_INFINITY)])),
        ),
        make("flag", "boolean", Carrier::Bool, Arc::new(BooleanArray::from_iter([None, Some(true), Some(false)]))),
        make("note", "text", Carrier::Text, Arc::new(StringArray::from_iter([Some(""), None, Some("=\r\n")]))),
        make("long", "text", Carrier::Text, Arc::new(StringArray::from_iter_values([LONG, "b", &LONG.repeat(100)]))),
        make(
            "raw",
            "bytea",
            Carrier::Bytes,
            Arc::new(BinaryArray::from_iter([Some(&b"\x00\xff"[..]), None, Some(b"")])),
        ),
        make("uid", "uuid", Carrier::Uuid, Arc::new(uuids)),
        make(
            "doc",
            "jsonb",
            Carrier::Json,
            Arc::new(StringArray::from_iter([Some("null"), Some("{\"a\": [1]}"), None])),
        ),
    ];
    if parquet {
        columns.extend(nested());
    }
    columns
}

/// A list, a struct and a map, each NULL once.
fn nested() -> Vec<(ColumnPlan, ArrayRef)> {
    let element = Arc::new(Carrier::Int32.field("element", true));
    let lists = [Some(vec![Some(1), None]), None, Some(vec![])];
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
    let list = ListArray::new(element, list.offsets().clone(), Arc::clone(list.values()), list.nulls().cloned());
    let members: Arc<[Member]> = Arc::new([Member { name: "x".into(), carrier: Carrier::Int64, nullable: false }]);
    let member: ArrayRef = Arc::new(Int64Array::from_iter_values([1, 2, 3]));
    let nulls = arrow::buffer::NullBuffer::from(vec![true, false, true]);
    let fields = vec![members[0].carrier.field("x", false)].into();
    let structs = StructArray::new(fields, vec![member], Some(nulls));
    let names =
        arrow::array::builder::MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in [Some(("a", None)), None, Some(("b", Some("c")))] {
        if let Some((key, value)) = row {
            map.keys().append_value(key);
            map.values().append_option(value);
        }
        map.append(row.is_some()).unwrap();
    }
    let make = |name: &str, carrier: Carrier, array: ArrayRef| (column(name, "x", carrier, true), array);
    vec![
        make("list", Carrier::List(Arc::new(Carrier::Int32)), Arc::new(list)),
        make("pair", Carrier::Struct(members), Arc::new(structs)),
        make("tags", Carrier::Map, Arc::new(map.finish())),
    ]
}

/// A committed destination of one part.
async fn committed(name: &str, kind: Format, compression: Compression) -> (Destination, Manifest) {
    let destination = memory(name);
    let manifest = fill(&destination, &format(kind, compression)).await;
    (destination, manifest)
}

async fn fill(destination: &Destination, options: &FormatOptions) -> Manifest {
    fill_with(destination, options, columns(options.format)).await
}

async fn fill_with(
    destination: &Destination,
    options: &FormatOptions,
    columns: Vec<(ColumnPlan, ArrayRef)>,
) -> Manifest {
    let (plans, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let plans: Arc<[ColumnPlan]> = plans.into();
    let fields = plans.iter().zip(&arrays).map(|(plan, array)| Field::new(&plan.name, array.data_type().clone(), true));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), arrays).unwrap();
    let mut tally = Tally::new(&plans, ManifestStats::All);
    tally.observe(&batch).unwrap();
    let mut encoder = encoder(options, &plans, true).unwrap();
    let mut bytes = Vec::new();
    encoder.encode(&batch, &mut bytes).unwrap();
    let summary = encoder.finish(&mut bytes).unwrap();

    let mut manifest = manifest();
    manifest.schema =
        plans.iter().map(|plan| schema_column(plan, options.format, &crate::model::SourceKind::Postgresql)).collect();
    manifest.format = FormatRecord::from(options);
    manifest.status = RunStatus::Complete;
    manifest.row_cap.truncated = false;
    manifest.parts.truncate(1);
    let part = &mut manifest.parts[0];
    part.columns = tally.finish();
    (part.rows, part.header_rows) = (summary.rows, summary.header_rows);
    seal(&mut manifest, &bytes);
    destination.put(&manifest.parts[0].path, bytes.into(), "text/csv").await.unwrap();
    write(destination, &manifest).await;
    manifest
}

/// Makes the manifest say of its part's bytes what is true.
fn seal(manifest: &mut Manifest, bytes: &[u8]) {
    let part = &mut manifest.parts[0];
    part.bytes = u64::try_from(bytes.len()).unwrap();
    part.crc64nvme = checksum(CrcAlgorithm::Crc64Nvme, bytes);
    manifest.totals = Totals { parts: 1, rows: part.rows, bytes: part.bytes };
}

async fn write(destination: &Destination, manifest: &Manifest) {
    destination.put("_manifest.json", manifest.to_json().unwrap().into(), "application/json").await.unwrap();
}

async fn findings(destination: &Destination, read_data: bool) -> Vec<String> {
    let report = verify(destination, &Placement::Parts, VerifyOptions { read_data }).await.unwrap();
    report.findings.into_iter().map(|finding| format!("{}: {}", finding.path, finding.problem)).collect()
}

const KINDS: [(Format, Compression); 7] = [
    (Format::Parquet, Compression::Zstd(1)),
    (Format::Csv, Compression::None),
    (Format::Csv, Compression::Gzip(6)),
    (Format::Csv, Compression::Zstd(1)),
    (Format::Ndjson, Compression::None),
    (Format::Ndjson, Compression::Gzip(6)),
    (Format::Ndjson, Compression::Zstd(1)),
];

#[tokio::test]
async fn an_untouched_destination_has_no_findings_in_any_format() {
    for (number, (kind, compression)) in KINDS.into_iter().enumerate() {
        let (destination, manifest) = committed(&format!("untouched-{number}"), kind, compression).await;
        for read_data in [false, true] {
            assert_eq!(findings(&destination, read_data).await, [""; 0], "{kind:?} {compression:?}");
        }
        let report = verify(&destination, &Placement::Parts, VerifyOptions { read_data: true }).await.unwrap();
        assert_eq!((report.parts, report.rows, report.bytes), (1, Some(ROWS), manifest.totals.bytes));
    }
}

#[tokio::test]
async fn a_local_parquet_part_is_read_to_its_footer() {
    let folder = tempfile::tempdir().unwrap();
    let destination = open(folder.path().to_str().unwrap());
    let mut manifest = fill(&destination, &format(Format::Parquet, Compression::Zstd(1))).await;
    assert_eq!(findings(&destination, true).await, [""; 0]);
    manifest.parts[0].rows = Some(4);
    manifest.totals.rows = Some(4);
    write(&destination, &manifest).await;
    assert!(findings(&destination, true).await[0].contains("footer says 3 rows"));
}

#[tokio::test]
async fn a_wrong_row_count_is_found_in_any_format() {
    for (number, (kind, compression)) in KINDS.into_iter().enumerate() {
        let (destination, mut manifest) = committed(&format!("rows-{number}"), kind, compression).await;
        manifest.parts[0].rows = Some(4);
        manifest.totals.rows = Some(4);
        write(&destination, &manifest).await;
        assert_eq!(findings(&destination, false).await, [""; 0]);
        assert_eq!(findings(&destination, true).await.len(), 1, "{kind:?} {compression:?}");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_found_by_reading() {
    for (number, (kind, compression)) in KINDS.into_iter().enumerate() {
        let (destination, manifest) = committed(&format!("bit-{number}"), kind, compression).await;
        let path = &manifest.parts[0].path;
        let mut bytes = destination.read(path).await.unwrap().unwrap().bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        destination.put(path, bytes.into(), "text/csv").await.unwrap();
        let found = findings(&destination, true).await;
        assert!(found[0].contains("CRC64NVME"), "{kind:?} {compression:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_part_of_another_size_or_gone_is_found_by_looking() {
    let (destination, manifest) = committed("size", Format::Csv, Compression::None).await;
    let path = &manifest.parts[0].path;
    destination.put(path, "x".into(), "text/csv").await.unwrap();
    assert_eq!(
        findings(&destination, false).await,
        [format!("{path}: it has 1 byte, the manifest says {}", manifest.totals.bytes)]
    );
    destination.delete(path).await.unwrap();
    assert_eq!(findings(&destination, true).await, [format!("{path}: it is missing")]);
}

#[tokio::test]
async fn objects_that_no_manifest_names_are_found() {
    let (destination, mut manifest) = committed("strangers", Format::Csv, Compression::None).await;
    for path in ["data/part-00009-000-00000000.csv", "part-00000-000-00000000.csv", "readme.txt", "_outhaul/x"] {
        destination.put(path, "x".into(), "text/csv").await.unwrap();
    }
    let in_data = "data/part-00009-000-00000000.csv: no manifest names it (1 byte)";
    assert_eq!(findings(&destination, false).await, [in_data]);

    let flat = "part-00001-000-00000001.csv";
    let bytes = destination.read(&manifest.parts[0].path).await.unwrap().unwrap().bytes;
    destination.put(flat, bytes, "text/csv").await.unwrap();
    destination.delete(&manifest.parts[0].path).await.unwrap();
    manifest.parts[0].path = flat.into();
    write(&destination, &manifest).await;
    let beside = "part-00000-000-00000000.csv: no manifest names it (1 byte)";
    assert_eq!(findings(&destination, false).await, [in_data, beside]);
    let in_folders = "_dt=1/c=x/part-00000-000-00000000.csv";
    destination.put(in_folders, "x".into(), "text/csv").await.unwrap();
    let in_folders = format!("{in_folders}: no manifest names it (1 byte)");
    assert_eq!(findings(&destination, false).await, [in_folders.as_str(), in_data, beside]);
}

#[tokio::test]
async fn what_readers_pass_over_is_no_stranger() {
    let (destination, _) = committed("hidden", Format::Csv, Compression::None).await;
    for hidden in
        ["data/.nfs000a", "data/.DS_Store", "data/dt=1/_temporary", "data/.snapshot/x=1/part", "data/_tmp/part"]
    {
        destination.put(hidden, "x".into(), "text/csv").await.unwrap();
    }
    assert_eq!(findings(&destination, false).await, [""; 0]);
    destination.put("data/_dt=1/part", "x".into(), "text/csv").await.unwrap();
    assert_eq!(findings(&destination, false).await, ["data/_dt=1/part: no manifest names it (1 byte)"]);
}

#[tokio::test]
async fn no_manifest_and_a_broken_one_are_findings() {
    let destination = memory("no-manifest");
    assert!(findings(&destination, false).await[0].contains("no manifest"));
    destination.put("_manifest.json", "{}".into(), "application/json").await.unwrap();
    let found = findings(&destination, false).await;
    assert!(found.len() == 1 && found[0].contains("missing field `format`"), "{found:?}");
}

#[tokio::test]
async fn a_manifest_that_contradicts_itself_is_found() {
    let (destination, sound) = committed("contradiction", Format::Csv, Compression::None).await;
    let changes: [fn(&mut Manifest); 10] = [
        |manifest| manifest.totals.rows = Some(4),
        |manifest| manifest.status = RunStatus::Truncated,
        |manifest| manifest.row_cap.max_rows = NonZeroU64::new(1),
        |manifest| manifest.parts[0].columns[1].nulls = 4,
        |manifest| manifest.parts[0].columns[0].nulls = 1,
        |manifest| manifest.parts[0].columns.swap(0, 1),
        |manifest| manifest.parts[0].roll = 1,
        |manifest| manifest.schema[3].arrow_type = "Decimal512(100,2)".to_owned(),
        |manifest| manifest.schema[3].parquet_type = Some("DECIMAL(12,2)".to_owned()),
        |manifest| {
            manifest.parts.push(manifest.parts[0].clone());
            manifest.totals = totals(&manifest.parts).unwrap();
        },
    ];
    for change in changes {
        let mut manifest = sound.clone();
        change(&mut manifest);
        write(&destination, &manifest).await;
        assert_eq!(findings(&destination, false).await.len(), 1, "{:?}", manifest.totals);
    }
}

#[tokio::test]
async fn sha256_is_checked_where_the_manifest_has_one() {
    let (destination, mut manifest) = committed("sha256", Format::Ndjson, Compression::None).await;
    manifest.parts[0].sha256 = Some("0".repeat(64));
    write(&destination, &manifest).await;
    assert!(findings(&destination, true).await[0].contains("SHA-256"));
}

/// Manifests that lie about the data, each in one way. The last is told of by more than one finding.
type Lie = (&'static str, fn(&mut Manifest));

#[expect(clippy::too_many_lines, reason = "one table")]
fn lies(kind: Format) -> Vec<Lie> {
    fn at<'a>(manifest: &'a mut Manifest, name: &str) -> &'a mut ColumnSummary {
        manifest.parts[0].columns.iter_mut().find(|column| column.name == name).unwrap()
    }
    #[expect(clippy::unnecessary_wraps, reason = "an extreme, which may be missing")]
    fn to(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
    let mut lies: Vec<Lie> = vec![
        ("column \"day\": 1 of its values are NULL, the manifest says 2", |manifest| at(manifest, "day").nulls = 2),
        ("column \"price\": 1 of its values are NULL, the manifest says 0", |manifest| at(manifest, "price").nulls = 0),
        ("column \"note\": 1 of its values are NULL, the manifest says 0", |manifest| at(manifest, "note").nulls = 0),
        ("column \"id\": its least value is not \"0\"", |manifest| at(manifest, "id").min = to("0")),
        ("column \"id\": its least value is not \"2\"", |manifest| at(manifest, "id").min = to("2")),
        ("column \"id\": its greatest value is not \"4\"", |manifest| at(manifest, "id").max = to("4")),
        ("column \"id\": its greatest value is not \"2\"", |manifest| at(manifest, "id").max = to("2")),
        ("column \"id\": the manifest's least value \"x\" is none", |manifest| at(manifest, "id").min = to("x")),
        ("column \"day\": its least value is not", |manifest| at(manifest, "day").min = to("0001-01-01")),
        ("column \"at\": its greatest value is not", |manifest| {
            at(manifest, "at").max = to("2000-01-01 00:00:00.000002+00");
        }),
        ("column \"price\": its least value is not", |manifest| at(manifest, "price").min = to("-0.04")),
        ("column \"ratio\": its greatest value is not", |manifest| at(manifest, "ratio").max = to("Infinity")),
        ("column \"small\": its least value is not", |manifest| at(manifest, "small").min = to("0.1")),
        ("column \"flag\": its greatest value is not", |manifest| at(manifest, "flag").max = to("f")),
        ("column \"note\": its greatest value is not", |manifest| at(manifest, "note").max = to("=")),
        ("column \"long\": its least value is not \"c\", as the manifest says of a bound", |manifest| {
            at(manifest, "long").min = to("c");
        }),
        ("column \"long\": its greatest value is not \"z\", as the manifest says of a bound", |manifest| {
            at(manifest, "long").max = to("z");
        }),
        ("column \"long\": its greatest value is not", |manifest| at(manifest, "long").exact = true),
        ("column \"raw\": its least value is not", |manifest| at(manifest, "raw").min = to("\\x00")),
        ("column \"uid\": its least value is not", |manifest| {
            at(manifest, "uid").min = to("00000000-0000-0000-0000-000000000001");
        }),
    ];
    match kind {
        Format::Parquet => lies.extend::<[Lie; 11]>([
            ("it has column \"id\" where the manifest has \"number\"", |manifest| {
                manifest.schema[0].name = "number".to_owned();
                manifest.parts[0].columns[0].name = "number".to_owned();
            }),
            ("it has 15 columns, the manifest 14", |manifest| {
                manifest.schema.pop();
                manifest.parts[0].columns.pop();
            }),
            ("column \"id\": it is Int64 in the file, the manifest says Int32", |manifest| {
                manifest.schema[0].arrow_type = "Int32".to_owned();
                manifest.schema[0].parquet_type = to("INT32");
            }),
            ("column \"price\": it is Decimal128(12, 2) in the file", |manifest| {
                manifest.schema[3].arrow_type = "Decimal128(13,2)".to_owned();
                manifest.schema[3].parquet_type = to("DECIMAL(13,2)");
            }),
            ("column \"list\": it is List", |manifest| {
                manifest.schema[12].arrow_type = "List(Int64)".to_owned();
                manifest.schema[12].parquet_type = to("LIST(INT64)");
            }),
            ("column \"pair\": it is Struct", |manifest| {
                manifest.schema[13].arrow_type = "Struct(\"y\": Int64)".to_owned();
                manifest.schema[13].parquet_type = to("STRUCT(\"y\": INT64)");
            }),
            ("column \"list\": 1 of its values are NULL, the manifest says 0", |manifest| {
                at(manifest, "list").nulls = 0;
            }),
            ("column \"tags\": 1 of its values are NULL, the manifest says 0", |manifest| {
                at(manifest, "tags").nulls = 0;
            }),
            ("column \"id\": it cannot be NULL in the file, the manifest says that it can", |manifest| {
                manifest.schema[0].nullable = true;
            }),
            ("a row group has 3 rows, the manifest says 2 at most", |manifest| {
                let FormatKind::Parquet { row_group_rows, .. } = &mut manifest.format.kind else { panic!("Parquet") };
                *row_group_rows = NonZeroU64::new(2).unwrap();
            }),
            ("it is compressed with", |manifest| manifest.format.compression = Compression::Snappy),
        ]),
        Format::Csv => lies.extend::<[Lie; 5]>([
            ("the header names something else where the manifest has column \"number\"", |manifest| {
                manifest.schema[0].name = "number".to_owned();
                manifest.parts[0].columns[0].name = "number".to_owned();
            }),
            ("has 12 fields where the manifest has 11 columns", |manifest| {
                manifest.schema.pop();
                manifest.parts[0].columns.pop();
            }),
            ("row 1 has something else than its type in column \"note\"", |manifest| {
                manifest.schema[7].arrow_type = "Int64".to_owned();
            }),
            ("column \"doc\": 1 of its values are NULL, the manifest says 0", |manifest| at(manifest, "doc").nulls = 0),
            ("it does not begin with the byte order mark", |manifest| {
                let FormatKind::Csv(options) = &mut manifest.format.kind else { panic!("CSV") };
                options.bom = true;
            }),
        ]),
        Format::Ndjson => lies.extend::<[Lie; 4]>([
            ("row 1: column \"number\" is not in its place", |manifest| {
                manifest.schema[0].name = "number".to_owned();
                manifest.parts[0].columns[0].name = "number".to_owned();
            }),
            ("row 1: it has more members than the manifest has columns", |manifest| {
                manifest.schema.pop();
                manifest.parts[0].columns.pop();
            }),
            ("row 1: column \"note\" has something else than its type", |manifest| {
                manifest.schema[7].arrow_type = "Int64".to_owned();
            }),
            // JSON's own null cannot be told from SQL's, but fewer than counted there cannot be.
            ("column \"doc\": 2 of its values are NULL, the manifest says 3", |manifest| at(manifest, "doc").nulls = 3),
        ]),
        Format::Source => panic!("of its values nothing is said"),
    }
    lies
}

#[tokio::test]
async fn a_column_of_noise_may_be_uncompressed_and_no_other_may() {
    let destination = memory("noise");
    let noise = |row| scrambled(row, 1 << 20);
    let noise: ArrayRef = Arc::new(Int64Array::from_iter_values((0..5_000).map(noise)));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..5_000).map(|row| format!("row {row}"))));
    let columns = || {
        vec![
            (column("noise", "bigint", Carrier::Int64, true), Arc::clone(&noise)),
            (column("words", "text", Carrier::Text, true), Arc::clone(&words)),
        ]
    };
    for (compression, expected) in [(Compression::Zstd(1), 0), (Compression::None, 1)] {
        let mut manifest = fill_with(&destination, &format(Format::Parquet, compression), columns()).await;
        manifest.format.compression = Compression::Zstd(1);
        write(&destination, &manifest).await;
        let found = findings(&destination, true).await;
        let codec = found.iter().filter(|found| found.contains("it is compressed with UNCOMPRESSED"));
        assert_eq!(codec.count(), expected, "{compression:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_manifest_that_lies_about_the_data_is_found_by_reading() {
    for (kind, compression) in [
        (Format::Parquet, Compression::Zstd(1)),
        (Format::Csv, Compression::None),
        (Format::Ndjson, Compression::Gzip(6)),
    ] {
        let (destination, sound) = committed(&format!("lies-{kind:?}"), kind, compression).await;
        for (wanted, lie) in lies(kind) {
            let mut manifest = sound.clone();
            lie(&mut manifest);
            write(&destination, &manifest).await;
            let found = findings(&destination, true).await;
            assert!(found.iter().any(|found| found.contains(wanted)), "{kind:?}: no {wanted:?} in {found:?}");
            assert_eq!(findings(&destination, false).await, [""; 0], "{kind:?}: {wanted:?} needs no reading");
        }
        // What the manifest does not show is not compared.
        let mut manifest = sound.clone();
        manifest.parts[0].columns.clear();
        write(&destination, &manifest).await;
        assert_eq!(findings(&destination, true).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_null_where_none_can_be_is_found_without_statistics() {
    for (kind, place) in [(Format::Csv, 1), (Format::Ndjson, 1)] {
        let (destination, mut manifest) = committed(&format!("promise-{kind:?}"), kind, Compression::None).await;
        manifest.parts[0].columns.clear();
        manifest.schema[place].nullable = false;
        write(&destination, &manifest).await;
        let found = findings(&destination, true).await;
        assert!(found[0].contains("the manifest says that none can be"), "{found:?}");
    }
}

#[tokio::test]
async fn damage_that_the_checksum_agrees_with_is_found_all_the_same() {
    for kind in [Format::Parquet, Format::Csv, Format::Ndjson] {
        let (destination, mut manifest) = committed(&format!("agrees-{kind:?}"), kind, Compression::None).await;
        let path = manifest.parts[0].path.clone();
        let mut bytes = destination.read(&path).await.unwrap().unwrap().bytes.to_vec();
        let from: &[u8] = if kind == Format::Parquet { &2_i64.to_le_bytes() } else { b"12.30" };
        let to: &[u8] = if kind == Format::Parquet { &9_i64.to_le_bytes() } else { b"92.30" };
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
        for at in places {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        seal(&mut manifest, &bytes);
        destination.put(&path, bytes.into(), "text/csv").await.unwrap();
        write(&destination, &manifest).await;
        let found = findings(&destination, true).await;
        assert!(found.iter().any(|found| found.contains("its greatest value is not")), "{kind:?}: {found:?}");
    }
}

#[tokio::test]
async fn every_way_to_write_csv_reads_back() {
    let sound = format(Format::Csv, Compression::None);
    let changes: [fn(&mut FormatOptions); 6] = [
        |options| options.csv.header = false,
        |options| options.csv.delimiter = b'\t',
        |options| options.csv.null = "NULL".to_owned(),
        |options| options.csv.newline = Newline::Crlf,
        |options| options.csv.bom = true,
        |options| options.csv.formula_guard = true,
    ];
    let mut all = sound.clone();
    for (number, change) in changes.into_iter().enumerate() {
        change(&mut all);
        let mut one = sound.clone();
        change(&mut one);
        for (which, options) in [("one", &one), ("all", &all)] {
            let destination = memory(&format!("csv-{number}-{which}"));
            fill(&destination, options).await;
            assert_eq!(findings(&destination, true).await, [""; 0], "{:?}", options.csv);
        }
    }
}

#[tokio::test]
async fn row_groups_are_read_one_by_one() {
    let mut options = format(Format::Parquet, Compression::Snappy);
    options.parquet.row_group_rows = NonZeroU64::MIN;
    let destination = memory("row-groups");
    let mut manifest = fill(&destination, &options).await;
    assert_eq!(findings(&destination, true).await, [""; 0]);
    manifest.parts[0].columns[0].max = Some("2".to_owned());
    write(&destination, &manifest).await;
    assert_eq!(findings(&destination, true).await.len(), 1);
}

#[tokio::test]
async fn kept_checksums_are_counted() {
    // Neither memory nor a folder keeps one.
    let (destination, _) = committed("kept", Format::Csv, Compression::None).await;
    let report = verify(&destination, &Placement::Parts, VerifyOptions { read_data: false }).await.unwrap();
    assert_eq!(report.checksums_kept, 0);
}
