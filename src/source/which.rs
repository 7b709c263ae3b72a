//! Which database rows come from, as a manifest may say it.

use sha2::{Digest as _, Sha256};

use crate::model::SourceIdentity;

/// What tells the database of a run from another one: `database` is alike on all of its servers, and of `server` one mark is
/// enough. The hashes are the run's own, so that no two manifests tell whether they are of one database.
pub(super) fn identity(
    run_id: &str,
    database: &str,
    server: impl IntoIterator<Item = impl AsRef<str>>,
) -> SourceIdentity {
    let hash = |text: &str| {
        let digest: [u8; 32] =
            Sha256::new().chain_update(run_id).chain_update([0]).chain_update(text).finalize().into();
        digest.iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    };
    SourceIdentity { database: hash(database), server: server.into_iter().map(|mark| hash(mark.as_ref())).collect() }
}
