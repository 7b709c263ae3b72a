//! What an export is made of, for its tenant: a list of links with what checks them. The manifest itself also names the
//! source, its predicate and where the objects are, which is the operator's business.

use serde::Serialize;
use utoipa::ToSchema;

use crate::commit::model::{PartEntry, SchemaColumn};
use crate::commit::{Manifest, crc64nvme_text};
use crate::model::{Format, RunStatus};

/// An export's files.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileListing {
    id: String,
    dataset: String,
    /// `complete` or `truncated`.
    status: String,
    rows: Option<u64>,
    max_rows: Option<u64>,
    /// Of all parts.
    bytes: u64,
    #[schema(value_type = String)]
    format: Format,
    /// `none`, `gzip`, `zstd`, …
    compression: String,
    /// In the order of the columns.
    columns: Vec<ListedColumn>,
    /// All parts as one file; none where the format has no such thing.
    download_url: Option<String>,
    /// In the order of the rows.
    parts: Vec<ListedPart>,
}

/// A column.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedColumn {
    name: String,
    r#type: String,
    nullable: bool,
}

/// A part.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedPart {
    url: String,
    rows: Option<u64>,
    bytes: u64,
    /// Of all bytes, in base64.
    crc64nvme: String,
    sha256: Option<String>,
    /// Header lines in front of the rows.
    header_rows: u32,
    /// Bytes in front of the rows, which whoever joins parts leaves out of all but the first.
    header_bytes: u64,
}

/// Lists an export's files; `url` gives the link of a part by its number.
pub(crate) fn listing(
    manifest: &Manifest,
    (id, dataset): (&str, &str),
    download_url: Option<String>,
    url: impl Fn(usize) -> Option<String>,
) -> Option<FileListing> {
    let column = |column: &SchemaColumn| ListedColumn {
        name: column.name.clone(),
        r#type: column.pg_type.clone(),
        nullable: column.nullable,
    };
    let part = |(number, part): (usize, &PartEntry)| {
        Some(ListedPart {
            url: url(number)?,
            rows: part.rows,
            bytes: part.bytes,
            crc64nvme: crc64nvme_text(part.crc64nvme),
            sha256: part.sha256.clone(),
            header_rows: part.header_rows,
            header_bytes: part.header_bytes,
        })
    };
    let status = match manifest.status {
        RunStatus::Complete => "complete",
        RunStatus::Truncated => "truncated",
    };
    Some(FileListing {
        id: id.to_owned(),
        dataset: dataset.to_owned(),
        status: status.to_owned(),
        rows: manifest.totals.rows,
        max_rows: manifest.row_cap.max_rows.map(std::num::NonZeroU64::get),
        bytes: manifest.totals.bytes,
        format: manifest.format.format(),
        compression: manifest.format.compression.name().to_owned(),
        columns: manifest.schema.iter().map(column).collect(),
        download_url,
        parts: manifest.parts.iter().enumerate().map(part).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::test_data::manifest;

    #[test]
    fn a_listing_names_neither_the_source_nor_the_store() {
        let manifest = manifest();
        let list = listing(&manifest, ("id", "orders"), None, |number| Some(format!("/link/{number}"))).unwrap();
        let text = serde_json::to_string(&list).unwrap();
        for secret in ["public.orders", "price > 0", "memory:", "data/part", "18.", "_manifest"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!((list.parts.len(), list.rows), (manifest.parts.len(), manifest.totals.rows));
        assert_eq!(list.parts[1].url, "/link/1");
    }
}
