use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::commit::build::build;
use crate::commit::test_data::{facts, format, heap_plan, manifest, object_url, plan, receipts};
use crate::model::{Compression, Format, ManifestStats};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest_v1/manifest.json");
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/manifest.v1.schema.json");

fn json_of(manifest: &Manifest) -> Value {
    serde_json::from_slice(&manifest.to_json().unwrap()).unwrap()
}

fn read(json: &Value) -> Result<Manifest, WireError> {
    Manifest::from_json(&serde_json::to_vec(json).unwrap())
}

/// Every kind of range, format and statistics that a manifest can hold.
fn all_kinds() -> Vec<Manifest> {
    let mut made = vec![manifest()];
    let heap_receipts: Vec<_> = receipts().into_iter().filter(|receipt| receipt.partition < 2).collect();
    let formats = [
        format(Format::Csv, Compression::Gzip(6)),
        format(Format::Csv, Compression::Zstd(3)),
        format(Format::Ndjson, Compression::None),
        format(Format::Parquet, Compression::Lz4),
    ];
    for format in formats {
        for stats in [ManifestStats::Safe, ManifestStats::All, ManifestStats::None] {
            made.push(build(facts(&plan(), &format, stats), &receipts(), object_url).unwrap());
            made.push(build(facts(&heap_plan(), &format, stats), &heap_receipts, object_url).unwrap());
        }
    }
    let mut query = manifest();
    query.source.name = SourceName::Query("select 1".into());
    query.parts[0].sha256 = Some("0".repeat(64));
    query.parts[0].range = crate::model::PartRange::Whole;
    query.consistency.snapshots.clear();
    query.consistency.mode = ConsistencyMode::Keyset;
    made.push(query);
    let mut leaves = manifest();
    let (first, last) = ("public.orders_1".to_owned(), "public.orders_9".to_owned());
    leaves.parts[0].range = crate::model::PartRange::Leaves { first, last, tables: 9 };
    made.push(leaves);
    made
}

#[test]
fn the_golden_is_what_is_written_today() {
    let written = manifest().to_json().unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(Path::new(GOLDEN).parent().unwrap()).unwrap();
        std::fs::write(GOLDEN, &written).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), golden, "v1 is a promise: only additions, then UPDATE_GOLDEN=1");
}

#[test]
fn the_golden_reads_back_as_the_manifest_it_was_made_from() {
    assert_eq!(Manifest::from_json(&std::fs::read(GOLDEN).unwrap()).unwrap(), manifest());
}

#[test]
fn every_kind_of_manifest_survives_the_round_trip() {
    for manifest in all_kinds() {
        assert_eq!(Manifest::from_json(&manifest.to_json().unwrap()).unwrap(), manifest);
    }
}

#[test]
fn a_checksum_is_written_as_s3_writes_it() {
    // S3 says `rosUhgp5mIg=` for the CRC64NVME 0xAE8B14860A799888 of "123456789".
    assert_eq!(crc64nvme_text(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
}

#[test]
fn times_are_utc_with_microseconds_even_where_they_are_zero() {
    let mut manifest = manifest();
    manifest.created_at = DateTime::from_timestamp(0, 0).unwrap();
    assert_eq!(json_of(&manifest)["created_at"], "1970-01-01T00:00:00.000000Z");
}

#[test]
fn a_reader_ignores_fields_of_a_later_writer() {
    let mut json = json_of(&manifest());
    json["later"] = json!({"a": [1]});
    for pointer in
        ["/source", "/consistency", "/consistency/snapshots/0", "/row_cap", "/row_cap/rows_available", "/schema/0"]
    {
        json.pointer_mut(pointer).unwrap()["later"] = json!(1);
    }
    for pointer in ["/format_options", "/totals", "/parts/0", "/parts/0/range", "/parts/0/columns/id"] {
        json.pointer_mut(pointer).unwrap()["later"] = json!("x");
    }
    assert_eq!(read(&json).unwrap(), manifest());
}

/// Enumerations that may grow: a manifest of a later writer is read, kept as it is, and replaced.
#[test]
fn a_reader_bears_values_of_a_later_writer() {
    let mut json = json_of(&manifest());
    json["source"]["kind"] = json!("oracle");
    json["consistency"]["mode"] = json!("part_set");
    json["parts"][0]["range"] = json!({"kind": "source", "where": {"_part": ["all_1_1_0"]}});
    json["parts"][1]["range"] = json!({"kind": "leaves", "leaves": ["public.a", "public.b"]});
    let read = read(&json).unwrap();
    assert_eq!(read.source.kind, SourceKind::Other("oracle".into()));
    assert_eq!(read.consistency.mode, ConsistencyMode::Other("part_set".into()));
    assert_eq!(read.parts.len(), manifest().parts.len());
    let written = json_of(&read);
    assert_eq!(written["source"]["kind"], "oracle");
    assert_eq!(written["consistency"]["mode"], "part_set");
    assert_eq!(written["parts"][0]["range"]["kind"], "source");

    let schema: Value = serde_json::from_slice(&std::fs::read(SCHEMA).unwrap()).unwrap();
    let validator = jsonschema::options().build(&schema).unwrap();
    for json in [&json, &written] {
        let problems: Vec<_> = validator.iter_errors(json).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

/// A kind that is known is still checked.
#[test]
fn a_range_that_lacks_a_member_is_not_taken_for_one_of_a_later_writer() {
    for range in [
        json!({"kind": "heap", "from": null, "to": null}),
        json!({"kind": "keys", "lower": {"values": "x", "inclusive": true}, "upper": null, "withheld": false}),
    ] {
        let mut json = json_of(&manifest());
        json["parts"][0]["range"] = range;
        assert!(matches!(read(&json), Err(WireError::Value { field: "parts.range", .. })), "{:?}", read(&json));
    }
    let mut json = json_of(&manifest());
    json["parts"][0]["range"] = json!({});
    assert!(matches!(read(&json), Err(WireError::Json(_))));
}

#[test]
fn a_missing_field_is_named() {
    let cases = [
        ("", "nonce"),
        ("", "status"),
        ("", "parts"),
        ("/source", "server_version"),
        ("/row_cap", "truncated"),
        ("/parts/1", "crc64nvme"),
        ("/parts/1", "path"),
    ];
    for (pointer, field) in cases {
        let mut json = json_of(&manifest());
        json.pointer_mut(pointer).unwrap().as_object_mut().unwrap().shift_remove(field);
        let error = read(&json).unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains(&format!("`{field}`")), "{pointer}/{field}: {text}");
    }
}

#[test]
fn version_1_counts_rows_everywhere_and_version_2_nowhere() {
    for (pointer, field) in
        [("/totals", "rows"), ("/parts/1", "rows"), ("/parts/1", "header_rows"), ("/parts/1", "columns")]
    {
        let mut json = json_of(&manifest());
        json.pointer_mut(pointer).unwrap().as_object_mut().unwrap().shift_remove(field);
        let refused = read(&json).unwrap_err();
        assert!(
            matches!(refused, WireError::Value { field: "version" | "parts", .. }),
            "{pointer}/{field}: {refused:?}"
        );
    }
    let mut json = json_of(&manifest());
    json["version"] = json!(2);
    assert!(matches!(read(&json), Err(WireError::Value { field: "version", .. })));
    let mut bytes = manifest();
    bytes.format.kind = FormatKind::Source;
    (bytes.totals.rows, bytes.schema) = (None, Vec::new());
    for part in &mut bytes.parts {
        (part.rows, part.columns) = (None, Vec::new());
    }
    let json = json_of(&bytes);
    assert_eq!((&json["version"], &json["format_options"]["format"]), (&json!(2), &json!("source")));
    assert_eq!(read(&json).unwrap(), bytes);
}

#[test]
fn another_format_and_a_newer_version_are_told_apart() {
    let mut json = json_of(&manifest());
    json["format"] = json!("other");
    assert!(matches!(read(&json), Err(WireError::Format { found }) if found == "other"));

    let newer = json!({"format": FORMAT, "version": 3, "everything": "else"});
    assert!(matches!(read(&newer), Err(WireError::Version { found: 3 })));
    assert!(matches!(Manifest::from_json(b"{\"format\":"), Err(WireError::Json(_))));
}

#[test]
fn values_that_a_field_cannot_have_are_refused() {
    let cases = [
        ("/parts/0/path", json!("../orders/data/part"), "parts.path"),
        ("/parts/0/path", json!("/etc/passwd"), "parts.path"),
        ("/parts/0/path", json!("data//part"), "parts.path"),
        ("/parts/0/path", json!("data/./part"), "parts.path"),
        ("/parts/0/path", json!("_manifest.json"), "parts.path"),
        ("/parts/0/path", json!("_outhaul/owner.json"), "parts.path"),
        ("/parts/0/path", json!(""), "parts.path"),
        ("/parts/0/crc64nvme", json!("AAAA"), "parts.crc64nvme"),
        ("/parts/0/attempt", json!("xyz"), "parts.attempt"),
        ("/row_cap/rows_available", json!({"kind": "exact", "value": null}), "row_cap.rows_available.value"),
        ("/source/query", json!("select 1"), "source.relation"),
        ("/format_options/compression/level", json!(null), "format_options.compression.level"),
    ];
    for (pointer, value, wanted) in cases {
        let mut json = json_of(&manifest());
        match json.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => json["source"]["query"] = value.clone(),
        }
        match read(&json) {
            Err(WireError::Value { field, .. }) => assert_eq!(field, wanted, "{pointer} = {value}"),
            other => panic!("{pointer} = {value}: {other:?}"),
        }
    }
}

#[test]
fn golden_and_fresh_manifests_keep_to_the_schema() {
    let schema: Value = serde_json::from_slice(&std::fs::read(SCHEMA).unwrap()).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let golden: Value = serde_json::from_slice(&std::fs::read(GOLDEN).unwrap()).unwrap();
    for json in std::iter::once(golden).chain(all_kinds().iter().map(json_of)) {
        let problems: Vec<_> =
            validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }

    let broken = [
        ("/version", json!(2)),
        ("/status", json!("failed")),
        ("/parts/0/crc64nvme", json!("short")),
        ("/parts/0/rows", json!(-1)),
        ("/row_cap/rows_available/kind", json!("about")),
        ("/created_at", json!("2026-01-01T00:00:00Z")),
        ("/source/relation", json!(null)),
        ("/parts", json!([])),
    ];
    for (pointer, value) in broken {
        let mut json = json_of(&manifest());
        *json.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&json), "{pointer} is not checked");
    }
}

/// A field that is written but not described would be found by nobody who reads the schema.
#[test]
fn the_schema_describes_every_field_that_is_written() {
    fn close(schema: &mut Value) {
        if let Value::Object(object) = schema {
            if object.contains_key("properties") {
                object.insert("unevaluatedProperties".into(), json!(false));
            }
            object.values_mut().for_each(close);
        } else if let Value::Array(items) = schema {
            items.iter_mut().for_each(close);
        }
    }
    let mut schema: Value = serde_json::from_slice(&std::fs::read(SCHEMA).unwrap()).unwrap();
    close(&mut schema);
    let validator = jsonschema::options().build(&schema).unwrap();
    for json in all_kinds().iter().map(json_of) {
        let problems: Vec<_> =
            validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
