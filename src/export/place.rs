//! Which of the two an address names, after the fact: a folder of parts, or the one file of a `--single-file` export.

use super::error::ExportError;
use super::finish::locate;
use super::identity::RunIdentity;
use crate::commit::Placement;
use crate::model::{CredentialCommand, ExportErrorKind};
use crate::store::{Destination, Journal, StoreOptions};

/// Opens what `url` names: the folder of parts that is there, or else the single file that an export or a run has left a
/// trace of. `single_file` says that it is a file.
///
/// # Errors
/// The address makes no sense, or the destination does not answer.
///
/// # Cancel safety
/// It only reads.
pub(crate) async fn place(url: &str, single_file: bool) -> Result<(Destination, Placement), ExportError> {
    place_by(url, single_file, None).await
}

/// As [`place`], with a command that prints credentials for AWS.
pub(crate) async fn place_by(
    url: &str,
    single_file: bool,
    credentials: Option<&CredentialCommand>,
) -> Result<(Destination, Placement), ExportError> {
    let options = StoreOptions::small();
    let open = async |single_file| {
        let (folder, placement) = locate(url, single_file)?;
        Ok::<_, ExportError>((Destination::connect(folder, &options, credentials).await?, placement))
    };
    if single_file {
        return open(true).await;
    }
    if let Ok((destination, placement)) = open(true).await
        // What cannot be read beside the destination says nothing of the destination itself.
        && has_traces(&destination, &placement).await.unwrap_or(false)
    {
        return Ok((destination, placement));
    }
    open(false).await
}

/// A destination for whoever finishes a run that has died there: what is written from now on is encrypted as that run's own
/// objects are.
///
/// # Errors
/// The destination does not answer.
pub(super) async fn of_run(destination: &Destination, run_id: &str) -> Result<Destination, ExportError> {
    let identity = RunIdentity::read(&Journal::new(destination.clone(), run_id)).await?;
    Ok(destination.encrypted_as(&identity.map(|identity| identity.encryption).unwrap_or_default())?)
}

/// Refuses the folder of an earlier export where a file of its name is to be written.
pub(super) async fn no_folder(destination: &Destination, placement: &Placement) -> Result<(), ExportError> {
    let Placement::Single { name } = placement else { return Ok(()) };
    // A file of that name has nothing beneath it.
    if destination.head(name).await?.is_some() {
        return Ok(());
    }
    let manifest = format!("{name}/{}", Placement::Parts.manifest_path());
    if destination.head(&manifest).await?.is_none() {
        return Ok(());
    }
    let url = placement.url(destination);
    let message = format!("{url} is the folder of an earlier export, and a file is to have its name");
    let hint = "choose another name for the file, or remove the folder";
    Err(ExportError::new(ExportErrorKind::DestinationTaken, message).with_hint(hint))
}

/// Whether something tells of a single file: its manifest, its owner, or the journal of a run that wrote it.
async fn has_traces(destination: &Destination, placement: &Placement) -> Result<bool, ExportError> {
    for path in [placement.manifest_path(), placement.owner_path()] {
        if destination.head(&path).await?.is_some() {
            return Ok(true);
        }
    }
    for (journal, _) in Journal::all(destination).await? {
        if RunIdentity::read(&journal).await?.is_some_and(|identity| identity.is_of(placement)) {
            return Ok(true);
        }
    }
    Ok(false)
}
