//! The folders of an export as partitions of an external table: each has manifests of its own, so that no statement names a
//! bare folder.

use std::collections::HashMap;

use super::foreign::{REDSHIFT_PATH, SYMLINK_PATH};
use crate::commit::Manifest;
use crate::commit::model::PartEntry;
use crate::model::FolderValue;

/// The parts of one folder, and what all their rows have in the columns that the files leave out.
#[derive(Debug)]
pub(super) struct TableFolder<'a> {
    /// `dt=2026-11-28/country=NL`.
    folder: &'a str,
    pub(super) values: &'a [FolderValue],
    pub(super) parts: Vec<&'a PartEntry>,
}

impl TableFolder<'_> {
    /// Where its symlink manifest stands, relative to the destination; tables name its folder.
    pub(super) fn symlink_path(&self) -> String {
        self.within(SYMLINK_PATH)
    }

    /// Where its Redshift manifest stands, relative to the destination.
    pub(super) fn redshift_path(&self) -> String {
        self.within(REDSHIFT_PATH)
    }

    fn within(&self, path: &str) -> String {
        let (folder, name) = path.split_once('/').unwrap_or((path, "manifest"));
        format!("{folder}/{}/{name}", self.folder)
    }
}

/// The partitions in output order; none where the files have all columns, and where the export is not on S3, which alone
/// has the engines that take them.
pub(super) fn partitions(manifest: &Manifest) -> Vec<TableFolder<'_>> {
    let kept = |name: &str| manifest.schema.iter().any(|column| column.name == name);
    if manifest.partition_by.iter().all(|column| kept(&column.name)) {
        return Vec::new();
    }
    let mut found: Vec<TableFolder<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for part in manifest.parts.iter().filter(|part| part.url.starts_with("s3://") && !part.partition_values.is_empty())
    {
        let path = part.path.strip_prefix("data/").unwrap_or(&part.path);
        let Some((folder, _)) = path.rsplit_once('/') else { continue };
        let place = *places.entry(folder).or_insert_with(|| {
            found.push(TableFolder { folder, values: &part.partition_values, parts: Vec::new() });
            found.len() - 1
        });
        if let Some(partition) = found.get_mut(place) {
            partition.parts.push(part);
        }
    }
    found
}
