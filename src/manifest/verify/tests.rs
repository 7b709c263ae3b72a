use std::io::Write;

use crc_fast::{CrcAlgorithm, checksum};

use super::*;
use crate::encode::{Compression, Format};
use crate::manifest::model::{FormatRecord, Totals};
use crate::manifest::test_data::{format, manifest, memory, open};

const CSV: &str = "id,created_at,price,comment,address\n1,,\"2\",\"a\nb\",\n3,,,,\n";
const NDJSON: &str = "{\"id\":1}\n{\"id\":2}\n";

fn packed(text: &str, compression: Compression) -> Vec<u8> {
    // Header and rows in frames of their own, as the encoder writes them.
    let (head, rows) = text.split_once('\n').unwrap();
    let pieces = [format!("{head}\n"), rows.to_owned()];
    let mut bytes = Vec::new();
    for piece in pieces {
        match compression {
            Compression::None => bytes.extend_from_slice(piece.as_bytes()),
            Compression::Gzip(_) => {
                let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::default());
                encoder.write_all(piece.as_bytes()).unwrap();
                encoder.finish().unwrap();
            }
            _ => bytes.extend(zstd::encode_all(piece.as_bytes(), 1).unwrap()),
        }
    }
    bytes
}

fn parquet_file(rows: usize) -> Vec<u8> {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows)));
    let batch = RecordBatch::try_from_iter([("id", values)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// A committed destination of one part with two rows.
async fn committed(name: &str, kind: Format, compression: Compression) -> (Destination, Manifest) {
    let destination = memory(name);
    let manifest = fill(&destination, kind, compression).await;
    (destination, manifest)
}

async fn fill(destination: &Destination, kind: Format, compression: Compression) -> Manifest {
    let bytes = match kind {
        Format::Parquet => parquet_file(2),
        Format::Csv => packed(CSV, compression),
        Format::Ndjson => packed(NDJSON, compression),
    };
    let mut manifest = manifest();
    manifest.format = FormatRecord::from(&format(kind, compression));
    manifest.status = RunStatus::Complete;
    manifest.row_cap.truncated = false;
    manifest.parts.truncate(1);
    let part = &mut manifest.parts[0];
    part.rows = 2;
    part.header_rows = u32::from(kind == Format::Csv);
    part.bytes = u64::try_from(bytes.len()).unwrap();
    part.crc64nvme = checksum(CrcAlgorithm::Crc64Nvme, &bytes);
    manifest.totals = Totals { parts: 1, rows: 2, bytes: part.bytes };
    destination.put(&part.path, bytes.into(), "text/csv").await.unwrap();
    write(destination, &manifest).await;
    manifest
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
        assert_eq!((report.parts, report.rows, report.bytes), (1, 2, manifest.totals.bytes));
    }
}

#[tokio::test]
async fn a_local_parquet_part_is_read_to_its_footer() {
    let folder = tempfile::tempdir().unwrap();
    let destination = open(folder.path().to_str().unwrap());
    let mut manifest = fill(&destination, Format::Parquet, Compression::Zstd(1)).await;
    assert_eq!(findings(&destination, true).await, [""; 0]);
    manifest.parts[0].rows = 3;
    manifest.totals.rows = 3;
    write(&destination, &manifest).await;
    assert!(findings(&destination, true).await[0].contains("footer says 2 rows"));
}

#[tokio::test]
async fn a_wrong_row_count_is_found_in_any_format() {
    for (number, (kind, compression)) in KINDS.into_iter().enumerate() {
        let (destination, mut manifest) = committed(&format!("rows-{number}"), kind, compression).await;
        manifest.parts[0].rows = 3;
        manifest.totals.rows = 3;
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
        [format!("{path}: it has 1 bytes, the manifest says {}", CSV.len())]
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
    let in_data = "data/part-00009-000-00000000.csv: no manifest names it (1 bytes)";
    assert_eq!(findings(&destination, false).await, [in_data]);

    let flat = "part-00001-000-00000001.csv";
    let bytes = destination.read(&manifest.parts[0].path).await.unwrap().unwrap().bytes;
    destination.put(flat, bytes, "text/csv").await.unwrap();
    destination.delete(&manifest.parts[0].path).await.unwrap();
    manifest.parts[0].path = flat.into();
    write(&destination, &manifest).await;
    let beside = "part-00000-000-00000000.csv: no manifest names it (1 bytes)";
    assert_eq!(findings(&destination, false).await, [in_data, beside]);
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
    let changes: [fn(&mut Manifest); 4] = [
        |manifest| manifest.totals.rows += 1,
        |manifest| manifest.status = RunStatus::Truncated,
        |manifest| manifest.row_cap.max_rows = std::num::NonZeroU64::new(1),
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
