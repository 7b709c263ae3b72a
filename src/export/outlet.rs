//! Where the parts of an export go, and how what went there is taken back.

use crate::model::{Layout, StagedObject, Staging};
use crate::store::stream::StreamSink;
use crate::store::{Destination, Journal, StoreError};

/// Where parts go.
#[derive(Debug, Clone)]
pub(crate) enum Outlet {
    /// Objects of their own below the destination.
    Parts { destination: Destination, journal: Journal, layout: Layout },
    /// One object of exactly this name.
    Single { destination: Destination, journal: Journal, name: String },
    /// One object, which its reader has as it is written.
    Stream(StreamSink),
}

impl Outlet {
    /// Where it is noted what becomes of the run; nobody reads such notes of a stream.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        match self {
            Self::Parts { journal, .. } | Self::Single { journal, .. } => Some(journal),
            Self::Stream(_) => None,
        }
    }
}

/// Removes one object of a run that will not commit, visible or not: whether it is gone.
pub(crate) async fn discard(outlet: &Outlet, object: &StagedObject) -> bool {
    let (Outlet::Parts { destination, .. } | Outlet::Single { destination, .. }) = outlet else { return true };
    let removed: Result<(), StoreError> = match object.staging {
        Staging::Published => destination.delete(&object.path).await,
        _ => destination.discard(object).await,
    };
    if let Err(error) = removed {
        tracing::warn!(%error, "a part of a failed run could not be removed");
        return false;
    }
    true
}
