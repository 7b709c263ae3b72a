//! Manifests that other engines read: Redshift `COPY … MANIFEST` and Spectrum, and the symlink manifest of Athena, Trino
//! and Hive.

use serde::Serialize;

use crate::commit::Manifest;
use crate::commit::model::PartEntry;

/// Where the Redshift manifest stands, relative to the destination.
pub(crate) const REDSHIFT_PATH: &str = "_redshift/manifest";

/// Where the symlink manifest stands; tables over it name its folder.
pub(crate) const SYMLINK_PATH: &str = "_symlink_format_manifest/manifest";

#[derive(Serialize)]
struct Redshift<'a> {
    entries: Vec<RedshiftEntry<'a>>,
}

#[derive(Serialize)]
struct RedshiftEntry<'a> {
    url: &'a str,
    mandatory: bool,
    meta: Meta,
}

/// `content_length` is what COPY of Parquet requires. `record_count` is data rows: UNLOAD's own counts header lines too.
#[derive(Serialize)]
struct Meta {
    content_length: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_count: Option<u64>,
}

/// The manifest for Redshift. Every entry is mandatory: COPY must fail over a missing part rather than load less.
///
/// # Errors
/// What serde says, should it refuse a value.
pub(crate) fn redshift(manifest: &Manifest) -> Result<Vec<u8>, serde_json::Error> {
    redshift_of(manifest.parts.iter())
}

/// The same of some parts.
///
/// # Errors
/// As [`redshift`].
pub(super) fn redshift_of<'a>(parts: impl Iterator<Item = &'a PartEntry>) -> Result<Vec<u8>, serde_json::Error> {
    let entries = parts.map(|part| RedshiftEntry {
        url: &part.url,
        mandatory: true,
        meta: Meta { content_length: part.bytes, record_count: part.rows },
    });
    let mut bytes = serde_json::to_vec_pretty(&Redshift { entries: entries.collect() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The symlink manifest: one absolute URI a line, in output order.
pub(crate) fn symlink(manifest: &Manifest) -> Vec<u8> {
    symlink_of(manifest.parts.iter())
}

/// The same of some parts.
pub(super) fn symlink_of<'a>(parts: impl Iterator<Item = &'a PartEntry>) -> Vec<u8> {
    let mut text = String::new();
    for part in parts {
        text.push_str(&part.url);
        text.push('\n');
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::test_data::manifest;

    #[test]
    fn redshift_entries_are_mandatory_with_length_and_count() {
        let bytes = redshift(&manifest()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            json["entries"][0],
            serde_json::json!({
                "url": "s3://bucket/orders/data/part-00000-000-9f3a2b1c.parquet",
                "mandatory": true,
                "meta": {"content_length": 1_000, "record_count": 6},
            })
        );
        assert_eq!(json["entries"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn symlink_has_one_absolute_uri_a_line() {
        let text = String::from_utf8(symlink(&manifest())).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with('\n') && text.lines().all(|line| line.starts_with("s3://bucket/orders/data/part-")));
    }
}
