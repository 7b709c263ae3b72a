//! Whether the files of exports can be kept at a destination, found out by a small file that comes and goes.

use bytes::Bytes;

use crate::config::service::JobDestination;
use crate::export::ExportError;
use crate::model::ExportErrorKind;
use crate::store::{Destination, StoreOptions};

/// Writes, reads, lists and deletes a file in a folder of its own, as an export has one.
pub(crate) async fn probe(place: &JobDestination) -> Result<(), ExportError> {
    let url = format!("{}/outhaul-check-{:016x}", place.url, rand::random::<u64>());
    let destination = Destination::connect(&url, &StoreOptions::small(), place.credentials.as_ref()).await?;
    let (path, written) = ("probe", Bytes::from_static(b"outhaul serve --check\n"));
    destination.put(path, written.clone(), "text/plain").await?;
    let seen = async {
        let read = destination.read(path).await?;
        let listed = destination.list("").await?;
        let same = read.is_some_and(|read| read.bytes == written) && listed.iter().any(|(found, _)| found == path);
        let other =
            || ExportError::new(ExportErrorKind::DestinationUnavailable, "a file that was written is not there");
        if same { Ok(()) } else { Err(other()) }
    };
    let seen = seen.await;
    let deleted = destination.delete(path).await;
    destination.remove_empty().await;
    seen?;
    Ok(deleted?)
}
