//! What stands among the parts of an export and is nobody's: its readers would take it for rows of their own. It is never
//! removed.

use std::collections::HashSet;

use super::error::ExportError;
use super::finish::RunTarget;
use super::leftovers::open_runs;
use super::run::Run;
use crate::commit::{Manifest, ManifestError, Placement, strangers};
use crate::model::Layout;
use crate::store::Destination;
use crate::store::error::StoreFault;

/// The objects that readers would take for parts, and that neither one of these manifests nor the journal of a run names.
/// None where the role may not list.
///
/// # Errors
/// The destination fails.
///
/// # Cancel safety
/// It only reads.
pub(super) async fn unnamed(
    destination: &Destination,
    (placement, layout): (&Placement, Layout),
    manifests: impl IntoIterator<Item = &Manifest>,
) -> Result<Vec<String>, ExportError> {
    if *placement != Placement::Parts {
        return Ok(Vec::new());
    }
    let parts = manifests.into_iter().flat_map(|manifest| &manifest.parts);
    let named: HashSet<&str> = parts.map(|part| part.path.as_str()).collect();
    let mut found = match strangers(destination, layout == Layout::Flat, &named).await {
        Err(error) if error.fault == StoreFault::Authentication => return Ok(Vec::new()),
        found => found?,
    };
    if !found.is_empty() {
        let mut of_runs = HashSet::new();
        for run in open_runs(destination, placement).await? {
            of_runs.extend(run.may_have_shown());
        }
        found.retain(|(path, _)| !of_runs.contains(path));
    }
    Ok(found.into_iter().map(|(path, _)| path).collect())
}

impl Run {
    /// Makes sure that after the commit readers find the parts and nothing else (invariant I2). What dead runs left is
    /// settled by now.
    ///
    /// # Errors
    /// [`ManifestError::Strangers`]; the destination fails.
    pub(super) async fn refuse_strangers(&self, standing: Option<&Manifest>) -> Result<(), ExportError> {
        let RunTarget::Destination { destination, placement, .. } = &self.place else { return Ok(()) };
        let objects = unnamed(destination, (placement, self.request.commit.layout), standing).await?;
        if objects.is_empty() {
            return Ok(());
        }
        Err(ManifestError::Strangers { destination: destination.url().to_owned(), objects }.into())
    }

    /// Tells of what somebody has put there since the run began. Its rows are read by now, and nothing takes them back.
    pub(super) async fn tell_of_strangers<'a>(&self, manifests: impl IntoIterator<Item = &'a Manifest>) {
        let RunTarget::Destination { destination, placement, .. } = &self.place else { return };
        let found = unnamed(destination, (placement, self.request.commit.layout), manifests).await;
        match found {
            Ok(objects) if objects.is_empty() => {}
            Ok(objects) => {
                let error = ManifestError::Strangers { destination: destination.url().to_owned(), objects };
                tracing::warn!(%error, "somebody has written among the parts since the run began: remove it");
            }
            Err(error) => {
                tracing::debug!(error = error.sentence(), "nobody knows whether others have written among the parts");
            }
        }
    }
}
