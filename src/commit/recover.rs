//! After a commit that died: it is finished where its manifest stands, and taken back where it does not.

use std::collections::HashSet;
use std::sync::Arc;

use super::documents::{Describe, Documents};
use super::error::ManifestError;
use super::existing::{Existing, look};
use super::placement::{Placement, SUCCESS_PATH};
use super::record::CommitRecord;
use crate::store::Destination;
use crate::store::error::StoreFault;

/// What has become of a commit that died.
#[derive(Debug)]
pub(crate) enum Recovered {
    /// Its manifest stands, and now everything that belongs to it.
    Committed(Box<Existing>),
    /// It does not, and nothing that the commit had made visible; so many parts were removed.
    TakenBack(u64),
}

/// Finishes or takes back the commit that `record` was about to make, or, where there is none, removes whatever of `begun`
/// became visible before its commit.
///
/// What a manifest names is never removed, nor what stood at the key of a single file before. A manifest that stands gets
/// back the `_SUCCESS` that the dead commit removed.
///
/// # Errors
/// [`ManifestError`]; the call may be repeated.
///
/// # Cancel safety
/// Each step is whole, and a repeated call goes on.
pub(crate) async fn recover(
    destination: &Destination,
    placement: &Placement,
    record: Option<&CommitRecord>,
    begun: &[String],
    describe: Describe,
) -> Result<Recovered, ManifestError> {
    let standing = look(destination, placement).await?;
    let committed = record.is_some_and(|record| standing.as_ref().is_some_and(|it| it.manifest.nonce == record.nonce));
    let named: HashSet<&str> =
        standing.iter().flat_map(|existing| &existing.manifest.parts).map(|part| part.path.as_str()).collect();
    let mine = record.iter().flat_map(|record| if committed { &record.replaced } else { &record.parts });
    let mut removed = 0;
    for path in mine.chain(begun).filter(|path| !named.contains(path.as_str())) {
        // Looked for first: the role that exports may not delete, and most are not there.
        let there = match destination.head(path).await {
            Ok(facts) => facts.is_some_and(|facts| record.is_none_or(|record| record.may_have_made(path, &facts))),
            // Behind a link that leads away, or a file where a folder was, is nothing that the run has made.
            Err(error) if error.fault == StoreFault::Configuration => false,
            Err(error) => return Err(ManifestError::Look(error)),
        };
        if there {
            destination.delete(path).await.map_err(|source| ManifestError::Remove { path: path.clone(), source })?;
            removed += 1;
        }
    }
    if let Some(existing) = &standing
        && *placement == Placement::Parts
        && record.is_some()
        && destination.head(SUCCESS_PATH).await.map_err(ManifestError::Look)?.is_none()
    {
        finish(destination, placement, existing, describe).await?;
    }
    Ok(match standing {
        Some(existing) if committed => Recovered::Committed(Box::new(existing)),
        _ => Recovered::TakenBack(removed),
    })
}

/// Writes what stands beside a manifest.
async fn finish(
    destination: &Destination,
    placement: &Placement,
    existing: &Existing,
    describe: Describe,
) -> Result<(), ManifestError> {
    let bytes = destination.read(&placement.manifest_path()).await.map_err(ManifestError::Look)?;
    let Some(small) = bytes.filter(|small| small.version == existing.version) else { return Ok(()) };
    let documents = Documents::of_standing(Arc::new(existing.manifest.clone()), small.bytes, describe).await?;
    documents.write(destination, placement).await
}
