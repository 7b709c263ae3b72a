//! How other engines read an export: pure, from the manifest alone.
//!
//! ```text
//! Manifest ──foreign──> _redshift/manifest, _symlink_format_manifest/manifest
//!            partitions > the same two in a folder for each partition of a table
//!            ddl ─────> _ddl/*.sql, _ddl/dbt-sources.yml
//! ```

pub mod ddl;
pub mod foreign;
mod partitions;

use crate::commit::{Document, Manifest, Placement};
use ddl::Dialect;
use ddl::dbt::{self, DBT_PATH};
use foreign::{REDSHIFT_PATH, SYMLINK_PATH, redshift, redshift_of, symlink, symlink_of};
use partitions::partitions;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The files that a commit writes beside the manifest, in the order in which they are written.
///
/// # Errors
/// What serde says, should it refuse a value.
pub fn documents(manifest: &Manifest) -> Result<Vec<Document>, serde_json::Error> {
    let document = |path: &str, bytes: Vec<u8>, content_type| Document {
        path: path.to_owned(),
        bytes: bytes.into(),
        content_type,
    };
    let mut documents =
        vec![document(REDSHIFT_PATH, redshift(manifest)?, JSON), document(SYMLINK_PATH, symlink(manifest), TEXT)];
    let scripts = Dialect::ALL.map(|dialect| document(dialect.path(), ddl::file(manifest, dialect).into_bytes(), TEXT));
    documents.extend(scripts);
    let sources = dbt::sources(manifest, &Placement::Parts, None);
    documents.push(document(DBT_PATH, sources.into_bytes(), TEXT));
    for partition in partitions(manifest) {
        let parts = || partition.parts.iter().copied();
        documents.push(document(&partition.redshift_path(), redshift_of(parts())?, JSON));
        documents.push(document(&partition.symlink_path(), symlink_of(parts()), TEXT));
    }
    Ok(documents)
}

/// Where [`documents`] stand, relative to the destination, but for those of partitions.
pub fn paths() -> impl Iterator<Item = &'static str> {
    [REDSHIFT_PATH, SYMLINK_PATH].into_iter().chain(Dialect::ALL.map(Dialect::path)).chain([DBT_PATH])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::test_data::manifest;

    #[test]
    fn every_document_stands_at_a_path_of_its_own() {
        let documents = documents(&manifest()).unwrap();
        assert!(documents.iter().map(|document| document.path.as_str()).eq(paths()));
        assert!(documents.iter().all(|document| !document.bytes.is_empty()));
    }
}
